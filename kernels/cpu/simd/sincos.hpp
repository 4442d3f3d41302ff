// SPDX-License-Identifier: Apache-2.0
//
// Sine and cosine of a vector. Only packs.cpp includes this header.
//
// Method: x = k pi/2 + r with |r| <= pi/4. For double precision, pi/2 is subtracted in three parts; the first two have
// 33 bits, so their products with k are exact. For single precision, one multiply-add in double precision gives x in
// units of pi/2 as a number with 32 bits after the point; the bits before the point are k, and r is half a unit less
// than the bits after it. Polynomials in r^2 give sin(r) and cos(r) in the number format of the result, and k mod 4
// exchanges them and sets the signs.
// Error: for |k| < largest_quadrant at most 2.3e-16, and 1e-7 in single precision (tests/engines/cpu/test_packs.py).
// Larger numbers, infinities and NaN go to the C library.
// Source: fdlibm (Sun Microsystems, 1993), k_sin.c and k_cos.c, and Cephes (Moshier, 1992), sinf.c, for the
// coefficients; Cody and Waite (1980), for the reduction in double precision.
#pragma once

#include "cpu/simd/pack_rows.hpp"
#include "shared/tuning.h"

namespace qf {
namespace QF_ISA {
namespace {

// |k| is smaller: so that 33 bits times k are exact, or that 20 bits before the point hold k.
template <class T>
constexpr std::int64_t largest_quadrant = std::int64_t(1) << (sizeof(T) == sizeof(double) ? 20 : 18);
template <class T>
constexpr typename Simd<T>::Int beyond_bits = -2 * largest_quadrant<T>;  // the bits that say that |k| is larger

template <class T>
struct SineAndCosine {
    typename Simd<T>::V sine, cosine;
};

// Say whether a lane of a mask is set.
template <class T>
QF_INLINE inline bool any(typename Simd<T>::Mask mask) {
    using S = Simd<T>;
    typename S::Int all = 0;
#if defined(__AVX512F__) && !defined(__clang__)
    return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__) && !defined(__clang__)
    return _mm256_movemask_ps((__m256)mask) != 0;
#endif
    for (int j = 0; j < S::width; ++j) all |= mask[j];
    return all != 0;
}

// Compute sines and cosines of N vectors k pi/2 + r with |r| <= pi/4. The vectors take each step together, because the
// steps of one vector wait for each other. Magnitudes below SMALLEST_SINE become 0 in double precision.
template <class T, int N>
QF_INLINE inline void sine_and_cosine_of(typename Simd<T>::V* r, const typename Simd<T>::Mask* k,
                                         SineAndCosine<T>* to) {
    using S = Simd<T>;
    using V = typename S::V;
    using Mask = typename S::Mask;
    V z[N], s[N], c[N];
    auto each = [](auto&& step) QF_INLINE { unroll<N>(step); };
    if constexpr (sizeof(T) == sizeof(double)) {
        each([&](auto i) QF_INLINE {
            // Only sin(r) can be tiny, and then it is r.
            const V distance = (V)((Mask)r[i] & ~(Mask)S::splat(T(-0.0)));
            r[i] = distance < T(SMALLEST_SINE) ? V{} : r[i];
            z[i] = r[i] * r[i];
            s[i] = z[i] * 1.58969099521155010221e-10 - 2.50507602534068634195e-08;
            s[i] = s[i] * z[i] + 2.75573137070700676789e-06;
            s[i] = s[i] * z[i] - 1.98412698298579493134e-04;
            s[i] = s[i] * z[i] + 8.33333333332248946124e-03;
            s[i] = s[i] * z[i] - 1.66666666666666324348e-01;
            c[i] = z[i] * -1.13596475577881948265e-11 + 2.08757232129817482790e-09;
            c[i] = c[i] * z[i] - 2.75573143513906633035e-07;
            c[i] = c[i] * z[i] + 2.48015872894767294178e-05;
            c[i] = c[i] * z[i] - 1.38888888888741095749e-03;
            c[i] = c[i] * z[i] + 4.16666666666666019037e-02;
        });
    } else {
        each([&](auto i) QF_INLINE { z[i] = r[i] * r[i]; });
        each([&](auto i) QF_INLINE {
            s[i] = z[i] * -1.9515295891e-4f + 8.3321608736e-3f;
            c[i] = z[i] * 2.443315711809948e-5f - 1.388731625493765e-3f;
        });
        each([&](auto i) QF_INLINE {
            s[i] = s[i] * z[i] - 1.6666654611e-1f;
            c[i] = c[i] * z[i] + 4.166664568298827e-2f;
        });
    }
    each([&](auto i) QF_INLINE {
        s[i] = r[i] + (r[i] * z[i]) * s[i];
        c[i] = T(1) - (T(0.5) * z[i] - (z[i] * z[i]) * c[i]);
    });
    each([&](auto i) QF_INLINE {
        const Mask odd = (k[i] & 1) != 0, sign = (Mask)S::splat(T(-0.0));
        const V sine = odd ? c[i] : s[i], cosine = odd ? s[i] : c[i];
        constexpr int to_sign = 8 * sizeof(T) - 2;  // from bit 1 to the highest bit
        to[i].sine = (V)((Mask)sine ^ (k[i] << to_sign & sign));
        to[i].cosine = (V)((Mask)cosine ^ ((k[i] + 1) << to_sign & sign));
    });
}

// Replace results of the lanes beyond the reduction by results of the C library.
template <class T>
__attribute__((noinline, cold)) void replace_beyond(const DV* x, const typename Simd<T>::Mask& beyond,
                                                    SineAndCosine<T>& result) {
    constexpr int n = D::width;
    auto of = [](double number) {
        return static_cast<T>(number < SMALLEST_SINE && number > -SMALLEST_SINE ? 0 : number);
    };
    for (int j = 0; j < Simd<T>::width; ++j) {
        if (!(beyond[j] & beyond_bits<T>)) continue;
        result.sine[j] = of(__builtin_sin(x[j / n][j % n]));
        result.cosine[j] = of(__builtin_cos(x[j / n][j % n]));
    }
}

// Compute sines and cosines of N times W numbers in vectors of doubles. `beyond` collects bits: a lane is beyond the
// reduction, and its results are wrong, if one of the bits beyond_bits is set. Infinities and NaN are beyond it too.
template <class T, int N>
QF_INLINE inline void reduced_sines(const DV* x, typename Simd<T>::Mask& beyond, SineAndCosine<T>* to) {
    using S = Simd<T>;
    using Mask = typename S::Mask;
    constexpr double two_over_pi = 6.36619772367581382433e-01, half_pi = 1.57079632679489661923;
    // Adding 1.5 * 2^52 rounds to an integer, held by the low bits; adding 1.5 * 2^20 leaves 32 bits after the point.
    // With largest_quadrant more, the integer is positive. With 0.5 more, truncation rounds to the nearest integer.
    typename S::V rest[N];
    Mask k[N];
    if constexpr (sizeof(T) == sizeof(double)) {
        constexpr double at_zero = 6755399441055744.0, rounder = at_zero + largest_quadrant<T>;
        constexpr double part1 = 1.57079632673412561417e+00, part2 = 6.07710050630396597660e-11,
                         part3 = 2.02226624879595063154e-21;
        unroll<N>([&](auto i) QF_INLINE {
            const DV shifted = x[i] * two_over_pi + rounder, whole = shifted - rounder;
            k[i] = (Mask)shifted;
            beyond |= k[i] ^ (Mask)D::splat(at_zero);
            rest[i] = ((x[i] - whole * part1) - whole * part2) - whole * part3;
        });
    } else {
        constexpr double at_zero = 1572864.0, rounder = at_zero + largest_quadrant<T> + 0.5;
        const DMask zeros[2] = {(DMask)D::splat(at_zero), (DMask)D::splat(at_zero)};
        const Mask k_at_zero = words<T, 1>(zeros);
        unroll<N>([&](auto i) QF_INLINE {
            DMask fixed[2];
            unroll<2>([&](auto j) QF_INLINE { fixed[j] = (DMask)(x[2 * i + j] * two_over_pi + rounder); });
            k[i] = words<T, 1>(fixed);
            beyond |= k[i] ^ k_at_zero;
            const Mask fraction = words<T, 0>(fixed) ^ std::int32_t(-0x7fffffff - 1);
            rest[i] = __builtin_convertvector(fraction, typename S::V) * T(half_pi * 0x1p-32);
        });
    }
    sine_and_cosine_of<T, N>(rest, k, to);
}

// Say whether a lane is beyond the reduction.
template <class T>
QF_INLINE inline bool any_beyond(typename Simd<T>::Mask beyond) {
    return __builtin_expect(any<T>((beyond & beyond_bits<T>) != 0), false);
}

// Return the sine and cosine of W numbers in vectors of doubles. The C library computes the results of lanes that are
// beyond the reduction. The results of other numbers stay, so that no result depends on the other numbers.
template <class T>
QF_INLINE inline SineAndCosine<T> sine_and_cosine(const DV* x) {
    typename Simd<T>::Mask beyond{};
    SineAndCosine<T> result;
    reduced_sines<T, 1>(x, beyond, &result);
    if (any_beyond<T>(beyond)) replace_beyond<T>(x, beyond, result);
    return result;
}

}  // namespace
}  // namespace QF_ISA
}  // namespace qf
