// SPDX-License-Identifier: Apache-2.0
//
// Packs of rows: from bound values to tables of phases. Only packs.cpp includes this header. packs.hpp has the
// contracts.
//
// Multiply-adds for each amplitude: fill_table 4; multiply_table 4. Half as many, or fewer, for real states.
#pragma once

#include "cpu/simd/pack_binding.hpp"
#include "cpu/simd/packs.hpp"
#include "shared/masks.h"

namespace qf {
namespace QF_ISA {
namespace {

template <class T>
void set_factors(int bits, const PackFactor* factors, const int* list, int count, const PackValues<T>& values, T* out) {
    using S = Simd<T>;
    using Complex = ComplexLanes<typename S::V>;
    constexpr int W = S::width;
    auto load = [&](const T* at) QF_INLINE { return Complex{S::load(at), S::load(at + W)}; };
    for (int n = 0; n < count; ++n)
        for (int i = list[n] * bits; i < (list[n] + 1) * bits; ++i) {
            const PackFactor& factor = factors[i];
            Complex f{S::splat(1), typename S::V{}};
            if (factor.in >= 0) f = load(values.run + (factor.in * RUN_VALUES + IN_RE) * W);
            if (factor.out >= 0) f = f * load(values.run + (factor.out * RUN_VALUES + OUT_RE) * W);
            for (int t = 0; t < factor.num_terms; ++t) {
                Complex g = load(values.term + factor.terms[t].term * 2 * W);
                if (factor.terms[t].exponent < 0) g.im = -g.im;
                f = f * (factor.terms[t].exponent % 2 ? g : g * g);  // exponents are -2, -1, 1 and 2
            }
            f = of_modulus_1(f);
            S::store(out + i * 2 * W, f.re);
            S::store(out + (i * 2 + 1) * W, f.im);
        }
}

// Set the products of `scale` and the factors of all subsets of some bits.
template <class T, class V = typename Simd<T>::V>
QF_INLINE inline void set_products(int bits, const T* factors, T scale, ComplexLanes<V>* products) {
    using S = Simd<T>;
    products[0] = {S::splat(scale), V{}};
    for (int b = 0; b < bits; ++b, factors += 2 * S::width) {
        const ComplexLanes<V> f{S::load(factors), S::load(factors + S::width)};
        ComplexLanes<V>* const high = products + (index_t(1) << b);
        high[0] = {f.re * scale, f.im * scale};
        for (index_t i = 1; i < index_t(1) << b; ++i) high[i] = products[i] * f;
    }
}

// table[h][l] <- signs * high[h] * low[l] for Count neighbouring l, whose factors stay in registers.
template <class T, int Parts, int Count, class V = typename Simd<T>::V>
QF_INLINE inline void fill_columns(index_t num_low, index_t num_high, const ComplexLanes<V>* low,
                                   const ComplexLanes<V>* high, const T* signs, T* table) {
    using S = Simd<T>;
    using Mask = typename S::Mask;
    constexpr int W = S::width, step = Parts * W;
    ComplexLanes<V> g[Count];
    unroll<Count>([&](auto l)
                      QF_INLINE { g[l] = {S::load_once((const T*)&low[l].re), S::load_once((const T*)&low[l].im)}; });
    for (index_t h = 0; h < num_high; ++h, table += num_low * step) {
        const ComplexLanes<V> of_high = high[h];
        unroll<Count>([&](auto l) QF_INLINE {
            ComplexLanes<V> f = of_high;
            if (signs) {
                const Mask sign = (Mask)S::splat(signs[h * num_low + l]);
                f = {(V)((Mask)f.re ^ sign), (V)((Mask)f.im ^ sign)};
            }
            if constexpr (Parts == 1) {
                S::store(table + l * step, g[l].re * f.re);
            } else {
                const ComplexLanes<V> product = g[l] * f;
                S::store(table + l * step, product.re);
                S::store(table + l * step + W, product.im);
            }
        });
    }
}

template <class T, int Parts>
void fill_table_of(int bits, const T* factors, T norm, const PackConstants<T>& constants, T* table) {
    using S = Simd<T>;
    using V = typename S::V;
    constexpr int W = S::width, step = Parts * W;
    // A factor of an amplitude is the product of a factor of its low bits and a factor of its high bits. Doubling would
    // be slower, because each step waits for the numbers that the step before it stores.
    ComplexLanes<V> low[1 << MOST_PACK_QUBITS / 2], high[1 << (MOST_PACK_QUBITS + 1) / 2];
    const int low_bits = bits / 2;
    const index_t num_low = index_t(1) << low_bits, num_high = index_t(1) << (bits - low_bits);
    set_products<T>(low_bits, factors, T(1), low);
    set_products<T>(bits - low_bits, factors + low_bits * 2 * W, norm, high);
    const T* const signs = constants.signs;
    auto fill = [&](index_t l, auto count) QF_INLINE {
        fill_columns<T, Parts, count>(num_low, num_high, low + l, high, signs ? signs + l : nullptr, table + l * step);
    };
    if (num_low == 1)
        fill(0, std::integral_constant<int, 1>{});
    else if (num_low == 2)
        fill(0, std::integral_constant<int, 2>{});
    else
        for (index_t l = 0; l < num_low; l += 4) fill(l, std::integral_constant<int, 4>{});
    if (!constants.values || constants.signs) return;
    for (index_t i = 0; i < index_t(1) << bits; ++i) {
        const V fr = S::splat(constants.values[2 * i]), fi = S::splat(constants.values[2 * i + 1]);
        const V ar = S::load(table + i * step);
        if constexpr (Parts == 1) {
            S::store(table + i * step, ar * fr);
        } else {
            const V ai = S::load(table + i * step + W);
            S::store(table + i * step, ar * fr - ai * fi);
            S::store(table + i * step + W, ar * fi + ai * fr);
        }
    }
}
template <class T>
void fill_table(int bits, int parts, const T* factors, T norm, const PackConstants<T>& constants, T* table) {
    with_parts(parts, [&](auto p) { fill_table_of<T, p>(bits, factors, norm, constants, table); });
}

template <class T>
void multiply_table(int bits, index_t care, index_t value, index_t sign, const T* unit, T* table) {
    using S = Simd<T>;
    constexpr int W = S::width;
    const auto fr = S::load(unit), fi = S::load(unit + W);
    for (index_t i = 0; i < index_t(1) << bits; ++i) {
        const int g = generator(care, value, sign, i);
        if (!g) continue;
        T* const at = table + i * 2 * W;
        const auto ar = S::load(at), ai = S::load(at + W), im = g > 0 ? fi : -fi;
        S::store(at, ar * fr - ai * im);
        S::store(at + W, ar * im + ai * fr);
    }
}

}  // namespace
}  // namespace QF_ISA
}  // namespace qf
