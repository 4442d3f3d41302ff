// SPDX-License-Identifier: Apache-2.0
//
// Packs of rows: sums over states, and observables. Only packs.cpp includes this header. packs.hpp has the contracts.
#pragma once

#include "cpu/simd/pack_sweeps.hpp"
#include "shared/masks.h"

namespace qf {
namespace QF_ISA {
namespace {

enum class TableKind { none, own, shared };

// Undo a phase of lam, and sum p, and Y and X of K bits, where psi and lam stand between the phase and the layer
// before.
template <class T, int K, bool WithX, int Parts, TableKind Kind>
void sum_bits(int bits, const T* table, T* p, const PackRotation<T>* rotations, bool accumulate, const T* psi, T* lam,
              T* sums) {
    using S = Simd<T>;
    using V = typename S::V;
    constexpr int W = S::width, N = 1 << K;
    constexpr bool shared = Kind == TableKind::shared;
    const Places<T, K> places(bits, Parts, rotations);
    V y[2 * K + 1] = {}, x[2 * K + 1] = {};  // two sums for each bit, because additions wait for each other
    for (index_t step = 0; step < places.count; ++step) {
        const index_t first = places(step) * Parts * W;
        V a[N], b[N], c[N], d[N];
        unroll<N>([&](auto r) QF_INLINE {
            const index_t i = first + places.offset[r];
            a[r] = S::load_once(psi + i);
            b[r] = S::load_once(lam + i);
            if constexpr (Parts == 2) c[r] = S::load_once(psi + i + W), d[r] = S::load_once(lam + i + W);
            if constexpr (Kind == TableKind::none) return;
            const T* const factor = table + (shared ? i / W : i);
            const V tr = table_part<T, Parts, shared>(factor, 0, 0);
            if constexpr (Parts == 1) {  // the inverse of a sign is the sign itself
                b[r] *= tr;
            } else {
                const V ti = table_part<T, Parts, shared>(factor, 0, 1), re = b[r];
                b[r] = re * tr + d[r] * ti;
                d[r] = d[r] * tr - re * ti;
                S::store(lam + i + W, d[r]);
                if (p) S::store(p + i / 2, b[r] * c[r] - d[r] * a[r]);
            }
            S::store(lam + i, b[r]);
        });
        unroll<K>([&](auto j) QF_INLINE {
            unroll<N>([&](auto r) QF_INLINE {
                constexpr int other = r ^ 1 << j, k = 2 * j + (r >> j & 1);
                if constexpr (r >> j & 1) {
                    y[k] += b[r] * a[other];
                    if constexpr (Parts == 2) y[k] += d[r] * c[other];
                } else {
                    y[k] -= b[r] * a[other];
                    if constexpr (Parts == 2) y[k] -= d[r] * c[other];
                }
                if constexpr (WithX && Parts == 2) {
                    x[2 * j] += b[r] * c[other];
                    x[2 * j + 1] -= d[r] * a[other];
                }
            });
        });
    }
    unroll<K>([&](auto j) QF_INLINE {
        T* const to = sums + 2 * j * W;
        const T sign = !rotations[j].shears && rotations[j].flip ? -1 : 1;
        const V of_y = sign * (y[2 * j] + y[2 * j + 1]), of_x = sign * (x[2 * j] + x[2 * j + 1]);
        S::store(to, accumulate ? S::load(to) + of_y : of_y);
        if (WithX) S::store(to + W, accumulate ? S::load(to + W) + of_x : of_x);
    });
}
template <class T>
void sum_pack(int bits, int parts, PackTable<T> table, T* p, const PackRotation<T>* rotations, int count, bool with_x,
              bool accumulate, const T* psi, T* lam, T* sums) {
    auto run = [&](auto k, auto x, auto q) {
        auto call = [&](auto function) { function(bits, table.numbers, p, rotations, accumulate, psi, lam, sums); };
        if (!table.numbers)
            call(sum_bits<T, k, x, q, TableKind::none>);
        else
            call(table.is_shared ? sum_bits<T, k, x, q, TableKind::shared> : sum_bits<T, k, x, q, TableKind::own>);
    };
    with_parts(parts, [&](auto q) {
        if (count == 0) run(std::integral_constant<int, 0>{}, std::false_type{}, q);
        with_count<pack_sums>(count,
                              [&](auto k) { with_x ? run(k, std::true_type{}, q) : run(k, std::false_type{}, q); });
    });
}

template <class T>
void pack_z_sums(int bits, T* p, T* z) {
    using S = Simd<T>;
    using V = typename S::V;
    constexpr int W = S::width;
    int b = bits - 1;
    for (; b > 0; b -= 2) {  // the two highest bits that are left
        const index_t quarter = index_t(1) << (b - 1);
        V high[2] = {}, low[2] = {};
        auto add = [&](index_t i, auto k) QF_INLINE {
            V v[4];
            unroll<4>([&](auto j) QF_INLINE { v[j] = S::load(p + (j * quarter + i) * W); });
            const V sum0 = v[0] + v[1], sum1 = v[2] + v[3];
            high[k] += sum0 - sum1;
            low[k] += (v[0] - v[1]) + (v[2] - v[3]);
            S::store(p + i * W, sum0 + sum1);
        };
        index_t i = 0;
        for (; i + 2 <= quarter; i += 2) unroll<2>([&](auto k) QF_INLINE { add(i + k, k); });
        if (i < quarter) add(i, std::integral_constant<int, 0>{});
        S::store(z + b * W, high[0] + high[1]);
        S::store(z + (b - 1) * W, low[0] + low[1]);
    }
    if (b == 0) S::store(z, S::load(p) - S::load(p + W));
}

template <class T>
void pack_walsh(int bits, T* p) {
    using S = Simd<T>;
    constexpr int W = S::width;
    const index_t size = index_t(1) << bits;
    for (index_t half = 1; half < size; half *= 2)
        for (index_t i = 0; i < size; i += 2 * half)
            for (index_t j = i; j < i + half; ++j) {
                const auto a = S::load(p + j * W), b = S::load(p + (j + half) * W);
                S::store(p + j * W, a + b);
                S::store(p + (j + half) * W, a - b);
            }
}

template <class T>
void generator_sum(int bits, index_t care, index_t value, index_t sign, const T* p, T* sum) {
    using S = Simd<T>;
    typename S::V total{};
    for (index_t i = 0; i < index_t(1) << bits; ++i) {
        const int g = generator(care, value, sign, i);
        if (g > 0) total += S::load(p + i * S::width);
        if (g < 0) total -= S::load(p + i * S::width);
    }
    S::store(sum, total);
}

template <class T>
QF_INLINE inline void add_doubles(double* to, typename Simd<T>::V v) {
    for_each_double<T>(v, [&](int j, DV x) QF_INLINE { D::store(to + j, D::load(to + j) + x); });
}

// Sums of at most this many amplitudes are added in the number format of the amplitudes, longer sums in double.
constexpr index_t amplitudes_per_sum = 16;

template <class T, int Parts>
void observe_parts(int bits, index_t flip, const T* d_re, const T* d_im, const T* psi, T* lam, const T* weight,
                   bool accumulate, double* value) {
    using S = Simd<T>;
    using V = typename S::V;
    constexpr int W = S::width, step = Parts * W;
    const index_t size = index_t(1) << bits;
    const V w = weight ? S::load(weight) : S::splat(1);
    for (index_t i = 0; i < size;) {
        const index_t stop = size - i < amplitudes_per_sum ? size : i + amplitudes_per_sum;
        V re{}, im{};
        for (; i < stop; ++i) {
            const T* const from = psi + (i ^ flip) * step;
            const V fr = S::load(from), fi = Parts == 2 ? S::load(from + (Parts - 1) * W) : V{};
            V cr{}, ci{};
            if (d_re) {
                const V d = S::splat(d_re[i]);
                cr += d * fr;
                ci += d * fi;
            }
            if (d_im && Parts == 2) {
                const V d = S::splat(d_im[i]);
                cr -= d * fi;
                ci += d * fr;
            }
            re += S::load(psi + i * step) * cr;
            if (Parts == 2) im += S::load(psi + i * step + (Parts - 1) * W) * ci;
            if (!lam) continue;
            T* const to = lam + i * step;
            S::store(to, accumulate ? S::load(to) + w * cr : w * cr);
            if (Parts == 2) S::store(to + W, accumulate ? S::load(to + W) + w * ci : w * ci);
        }
        add_doubles<T>(value, re + im);
    }
}
template <class T>
void observe_pack(int bits, int parts, index_t flip, const T* d_re, const T* d_im, const T* psi, T* lam,
                  const T* weight, bool accumulate, double* value) {
    with_parts(parts,
               [&](auto p) { observe_parts<T, p>(bits, flip, d_re, d_im, psi, lam, weight, accumulate, value); });
}

template <class T>
void observe_outcomes(int bits, int parts, const std::int32_t* slots, const T* psi, T* lam, const T* weights,
                      double* sums) {
    using S = Simd<T>;
    using V = typename S::V;
    constexpr int W = S::width;
    for (index_t i = 0; i < index_t(1) << bits; ++i) {
        const T* const at = psi + i * parts * W;
        const V re = S::load(at), im = parts == 2 ? S::load(at + W) : V{};
        add_doubles<T>(sums + slots[i] * W, re * re + im * im);
        if (!lam) continue;
        const V w = S::load(weights + slots[i] * W);
        S::store(lam + i * parts * W, w * re);
        if (parts == 2) S::store(lam + i * parts * W + W, w * im);
    }
}

}  // namespace
}  // namespace QF_ISA
}  // namespace qf
