// SPDX-License-Identifier: Apache-2.0
//
// Sine and cosine of a vector of doubles. Only packs.cpp includes this header.
//
// Method: x = k pi/2 + r with |r| <= pi/4. pi/2 is subtracted in three parts; the first two have 33 bits, so their
// products with k are exact. Polynomials in r^2 give sin(r) and cos(r), and k mod 4 exchanges them and sets the signs.
// Error: at most 2.3e-16 for |x| <= LARGEST_ANGLE (tests/engines/cpu/test_packs.py); larger numbers, infinities and NaN
// go to the C library.
// Source: fdlibm (Sun Microsystems, 1993), k_sin.c and k_cos.c, for the coefficients; Cody and Waite (1980), for the
// reduction.
#pragma once

#include "cpu/simd/simd.hpp"
#include "shared/tuning.h"

namespace qf {
namespace QF_ISA {
namespace {

constexpr double LARGEST_ANGLE = 1e6;  // k then has at most 20 bits, so that 33 bits times k are exact

struct SineAndCosine {
    Simd<double>::V sine, cosine;
};

// Say whether a lane of a mask is set.
template <class T>
QF_INLINE inline bool any(typename Simd<T>::Mask mask) {
    using S = Simd<T>;
    typename S::Int all = 0;
#if defined(__AVX512F__) && !defined(__clang__)
    if constexpr (sizeof(T) == 8) return _mm512_test_epi64_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__) && !defined(__clang__)
    if constexpr (sizeof(T) == 8) return _mm256_movemask_pd((__m256d)mask) != 0;
#endif
    for (int j = 0; j < S::width; ++j) all |= mask[j];
    return all != 0;
}

// Return the sine and cosine of x; magnitudes below SMALLEST_SINE become 0.
QF_INLINE inline SineAndCosine sine_and_cosine(Simd<double>::V x) {
    using S = Simd<double>;
    using V = S::V;
    using Mask = S::Mask;
    const V magnitude = (V)((Mask)x & ~(Mask)S::splat(-0.0));
    if (__builtin_expect(any<double>(~(magnitude <= LARGEST_ANGLE)), false)) {
        SineAndCosine result{};
        for (int j = 0; j < S::width; ++j) {
            const double sine = __builtin_sin(x[j]), cosine = __builtin_cos(x[j]);
            result.sine[j] = sine < SMALLEST_SINE && sine > -SMALLEST_SINE ? 0 : sine;
            result.cosine[j] = cosine < SMALLEST_SINE && cosine > -SMALLEST_SINE ? 0 : cosine;
        }
        return result;
    }
    constexpr double two_over_pi = 6.36619772367581382433e-01;
    constexpr double rounder = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer, held by the low bits
    constexpr double part1 = 1.57079632673412561417e+00, part2 = 6.07710050630396597660e-11,
                     part3 = 2.02226624879595063154e-21;
    const V shifted = x * two_over_pi + rounder;
    const V k = shifted - rounder;
    const Mask quadrant = (Mask)shifted;
    V r = ((x - k * part1) - k * part2) - k * part3;
    // Only sin(r) can be tiny, and then it is r.
    const V distance = (V)((Mask)r & ~(Mask)S::splat(-0.0));
    r = distance < SMALLEST_SINE ? V{} : r;
    const V z = r * r;
    V s = z * 1.58969099521155010221e-10 - 2.50507602534068634195e-08;
    s = s * z + 2.75573137070700676789e-06;
    s = s * z - 1.98412698298579493134e-04;
    s = s * z + 8.33333333332248946124e-03;
    s = s * z - 1.66666666666666324348e-01;
    s = r + (r * z) * s;
    V c = z * -1.13596475577881948265e-11 + 2.08757232129817482790e-09;
    c = c * z - 2.75573143513906633035e-07;
    c = c * z + 2.48015872894767294178e-05;
    c = c * z - 1.38888888888741095749e-03;
    c = c * z + 4.16666666666666019037e-02;
    c = 1.0 - (0.5 * z - (z * z) * c);
    const Mask odd = (quadrant & 1) != 0;
    const V sine = odd ? c : s, cosine = odd ? s : c;
    return {(V)((Mask)sine ^ ((quadrant & 2) << 62)), (V)((Mask)cosine ^ (((quadrant + 1) & 2) << 62))};
}

}  // namespace
}  // namespace QF_ISA
}  // namespace qf
