// SPDX-License-Identifier: Apache-2.0
//
// The number format, and the arithmetic of amplitudes. A number is Real: float or double. An amplitude is Complex, or
// Real for circuits whose states stay real. Such circuits consist of rotations and signs, only their Y sums are
// nonzero, and only the real part of an observable's diagonals contributes.
//
// Compile with -DQF_DOUBLE=0|1 (float or double) and -DQF_REAL=0|1 (complex or real amplitudes).
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

// Each function below has one overload for Complex and one for Real. The imaginary part of a Real amplitude is 0.

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

// s a
__device__ __forceinline__ Complex multiple(Complex a, Real s) {
    return make_complex(s * a.x, s * a.y);
}

__device__ __forceinline__ Real multiple(Real a, Real s) {
    return s * a;
}

// a += s b
__device__ __forceinline__ void add_multiple(Complex& a, Real s, Complex b) {
    a.x += s * b.x;
    a.y += s * b.y;
}

__device__ __forceinline__ void add_multiple(Real& a, Real s, Real b) {
    a += s * b;
}

// Re(conj(a) b)
__device__ __forceinline__ Real real_product(Complex a, Complex b) {
    return a.x * b.x + a.y * b.y;
}

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

// plus - minus += Im(conj(a) b). The first product is added to `plus` and the second product to `minus`.
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

// No kernel evaluates this overload: real amplitudes are never multiplied by i. It exists so that the code compiles.
__device__ __forceinline__ Real times_i(Real a) {
    return a;
}

// Change the sign of the number if the lowest bit of `bit` is 1.
__device__ __forceinline__ float negate_if(float value, unsigned bit) {
    return __uint_as_float(__float_as_uint(value) ^ bit << 31);
}

__device__ __forceinline__ double negate_if(double value, unsigned bit) {
    return bit & 1 ? -value : value;
}

__device__ __forceinline__ Complex negate_if(Complex a, unsigned bit) {
    return make_complex(negate_if(a.x, bit), negate_if(a.y, bit));
}

// Return a number of modulus 1, or its inverse if the lowest bit of `bit` is 1.
__device__ __forceinline__ Complex invert_if(Complex a, unsigned bit) {
    return make_complex(a.x, negate_if(a.y, bit));
}

__device__ __forceinline__ Real invert_if(Real a, unsigned) {
    return a;
}
