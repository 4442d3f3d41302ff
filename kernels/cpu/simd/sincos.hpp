// SPDX-License-Identifier: Apache-2.0
//
// Sine and cosine of a vector. Only packs.cpp includes this header.
//
// Method: x = k pi/2 + r with |r| <= pi/4, in double precision. pi/2 is subtracted in three parts; the first two have
// 33 bits, so their products with k are exact. Polynomials in r^2 give sin(r) and cos(r) in the number format of the
// result, and k mod 4 exchanges them and sets the signs.
// Error: for |x| <= LARGEST_ANGLE at most 2.3e-16, and 1e-7 in single precision (tests/engines/cpu/test_packs.py).
// Larger numbers, infinities and NaN go to the C library.
// Source: fdlibm (Sun Microsystems, 1993), k_sin.c and k_cos.c, and Cephes (Moshier, 1992), sinf.c, for the
// coefficients; Cody and Waite (1980), for the reduction.
#pragma once

#include "cpu/simd/pack_rows.hpp"
#include "shared/tuning.h"

namespace qf {
namespace QF_ISA {
namespace {

constexpr double LARGEST_ANGLE = 1e6;  // k then has at most 20 bits, so that 33 bits times k are exact

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

// Return the sine and cosine of k pi/2 + r with |r| <= pi/4; magnitudes below SMALLEST_SINE become 0.
template <class T>
QF_INLINE inline SineAndCosine<T> sine_and_cosine_of(typename Simd<T>::V r, typename Simd<T>::Mask k) {
    using S = Simd<T>;
    using V = typename S::V;
    using Mask = typename S::Mask;
    // Only sin(r) can be tiny, and then it is r.
    const V distance = (V)((Mask)r & ~(Mask)S::splat(T(-0.0)));
    r = distance < T(SMALLEST_SINE) ? V{} : r;
    const V z = r * r;
    V s, c;
    if constexpr (sizeof(T) == sizeof(double)) {
        s = z * 1.58969099521155010221e-10 - 2.50507602534068634195e-08;
        s = s * z + 2.75573137070700676789e-06;
        s = s * z - 1.98412698298579493134e-04;
        s = s * z + 8.33333333332248946124e-03;
        s = s * z - 1.66666666666666324348e-01;
        c = z * -1.13596475577881948265e-11 + 2.08757232129817482790e-09;
        c = c * z - 2.75573143513906633035e-07;
        c = c * z + 2.48015872894767294178e-05;
        c = c * z - 1.38888888888741095749e-03;
        c = c * z + 4.16666666666666019037e-02;
    } else {
        s = z * -1.9515295891e-4f + 8.3321608736e-3f;
        s = s * z - 1.6666654611e-1f;
        c = z * 2.443315711809948e-5f - 1.388731625493765e-3f;
        c = c * z + 4.166664568298827e-2f;
    }
    s = r + (r * z) * s;
    c = T(1) - (T(0.5) * z - (z * z) * c);
    const Mask odd = (k & 1) != 0, sign = (Mask)S::splat(T(-0.0));
    const V sine = odd ? c : s, cosine = odd ? s : c;
    constexpr int to_sign = 8 * sizeof(T) - 2;  // from bit 1 to the highest bit
    return {(V)((Mask)sine ^ (k << to_sign & sign)), (V)((Mask)cosine ^ ((k + 1) << to_sign & sign))};
}

// Replace the sine and cosine of numbers that are too large for the reduction. The results of other numbers stay, so
// that no result depends on the other numbers.
template <class T>
__attribute__((noinline, cold)) void set_large(const double* numbers, T* sine, T* cosine) {
    auto of = [](double x) { return static_cast<T>(x < SMALLEST_SINE && x > -SMALLEST_SINE ? 0 : x); };
    for (int j = 0; j < Simd<T>::width; ++j) {
        if (__builtin_fabs(numbers[j]) <= LARGEST_ANGLE) continue;
        sine[j] = of(__builtin_sin(numbers[j]));
        cosine[j] = of(__builtin_cos(numbers[j]));
    }
}

// Return the sine and cosine of W numbers in vectors of doubles; magnitudes below SMALLEST_SINE become 0.
template <class T>
QF_INLINE inline SineAndCosine<T> sine_and_cosine(const DV* x) {
    using S = Simd<T>;
    constexpr int parts = S::width / D::width;
    auto magnitude = [&](int i) QF_INLINE { return (DMask)x[i] & ~(DMask)D::splat(-0.0); };
    DMask largest = magnitude(0);  // magnitudes of numbers are ordered as their bits are
    if constexpr (parts == 2) largest = largest > magnitude(1) ? largest : magnitude(1);
    constexpr double two_over_pi = 6.36619772367581382433e-01, half_pi = 1.57079632679489661923;
    constexpr double rounder = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer, held by the low bits
    constexpr double part1 = 1.57079632673412561417e+00, part2 = 6.07710050630396597660e-11,
                     part3 = 2.02226624879595063154e-21;
    DV r[parts];
    DMask quadrant[parts];
    unroll<parts>([&](auto i) QF_INLINE {
        const DV shifted = x[i] * two_over_pi + rounder, k = shifted - rounder;
        quadrant[i] = (DMask)shifted;
        // The error of k half_pi is at most 1e-10, which single precision cannot hold beside an angle.
        r[i] = sizeof(T) < sizeof(double) ? x[i] - k * half_pi : ((x[i] - k * part1) - k * part2) - k * part3;
    });
    auto result = sine_and_cosine_of<T>(narrow<T>(r), low_bits<T>(quadrant));
    if (__builtin_expect(any<double>(largest > (DMask)D::splat(LARGEST_ANGLE)), false)) {
        alignas(64) double numbers[S::width];
        alignas(64) T sine[S::width], cosine[S::width];
        unroll<parts>([&](auto i) QF_INLINE { D::store(numbers + i * D::width, x[i]); });
        S::store(sine, result.sine);
        S::store(cosine, result.cosine);
        set_large(numbers, sine, cosine);
        result = {S::load(sine), S::load(cosine)};
    }
    return result;
}

}  // namespace
}  // namespace QF_ISA
}  // namespace qf
