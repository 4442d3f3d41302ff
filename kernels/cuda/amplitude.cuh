// SPDX-License-Identifier: Apache-2.0
//
// The format of numbers and amplitudes, and the arithmetic of amplitudes. A number is Real, float or double. An
// amplitude is Complex, or Real where states stay real: then rotations and signs are all there is, of the sums only
// those of Y are not zero, and of an observable the real part of d matters.
//
// Compiled with -DQF_DOUBLE=0|1 -DQF_REAL=0|1.
#pragma once

#if QF_DOUBLE
typedef double Real;
typedef double2 Complex;
#else
typedef float Real;
typedef float2 Complex;
#endif
#if QF_REAL
typedef Real Amplitude;
constexpr bool IS_REAL = true;
#else
typedef Complex Amplitude;
constexpr bool IS_REAL = false;
#endif

__device__ __forceinline__ Complex make_complex(Real re, Real im) {
    Complex z;
    z.x = re;
    z.y = im;
    return z;
}

__device__ __forceinline__ Complex multiply(Complex a, Complex b) {
    return make_complex(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}

__device__ __forceinline__ Complex multiply_conjugate(Complex a, Complex b) {  // a conj(b)
    return make_complex(a.x * b.x + a.y * b.y, a.y * b.x - a.x * b.y);
}

// What amplitudes have in common: overloads for Complex and Real, whose imaginary part is 0.

__device__ __forceinline__ Real multiply(Real a, Real b) {
    return a * b;
}

__device__ __forceinline__ Real multiply_conjugate(Real a, Real b) {
    return a * b;
}

__device__ __forceinline__ void set(Complex& a, Real re, Real im) {
    a = make_complex(re, im);
}

__device__ __forceinline__ void set(Real& a, Real re, Real) {
    a = re;
}

// a += s b
__device__ __forceinline__ void add_multiple(Complex& a, Real s, Complex b) {
    a.x += s * b.x;
    a.y += s * b.y;
}

__device__ __forceinline__ void add_multiple(Real& a, Real s, Real b) {
    a += s * b;
}

__device__ __forceinline__ Real real_product(Complex a, Complex b) {
    return a.x * b.x + a.y * b.y;
}  // Re(conj(a) b)

__device__ __forceinline__ Real real_product(Real a, Real b) {
    return a * b;
}

// sum += Re(conj(a) b)
__device__ __forceinline__ void add_real_product(Real& sum, Complex a, Complex b) {
    sum += a.x * b.x;
    sum += a.y * b.y;
}

__device__ __forceinline__ void add_real_product(Real& sum, Real a, Real b) {
    sum += a * b;
}

// plus - minus += Im(conj(a) b)
__device__ __forceinline__ void add_imaginary_product(Real& plus, Real& minus, Complex a, Complex b) {
    plus += a.x * b.y;
    minus += a.y * b.x;
}

__device__ __forceinline__ void add_imaginary_product(Real&, Real&, Real, Real) {}

__device__ __forceinline__ Real imaginary_product(Complex a, Complex b) {  // Im(conj(a) b)
    return a.x * b.y - a.y * b.x;
}

__device__ __forceinline__ Real imaginary_product(Real, Real) {
    return 0;
}

__device__ __forceinline__ Complex times_i(Complex a) {
    return make_complex(-a.y, a.x);
}

__device__ __forceinline__ Real times_i(Real a) {
    return a;
}  // never asked for

// Change the sign if the lowest bit is set.
__device__ __forceinline__ float negate_if(float value, unsigned bit) {
    return __uint_as_float(__float_as_uint(value) ^ bit << 31);
}

__device__ __forceinline__ double negate_if(double value, unsigned bit) {
    return bit & 1 ? -value : value;
}

__device__ __forceinline__ Complex negate_if(Complex a, unsigned bit) {
    return make_complex(negate_if(a.x, bit), negate_if(a.y, bit));
}

// The inverse of a number of modulus 1 if the lowest bit is set.
__device__ __forceinline__ Complex invert_if(Complex a, unsigned bit) {
    return make_complex(a.x, negate_if(a.y, bit));
}

__device__ __forceinline__ Real invert_if(Real a, unsigned) {
    return a;
}
