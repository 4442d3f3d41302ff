// SPDX-License-Identifier: Apache-2.0
//
// Packs of rows: from angles to rotations and factors, and from sums to gradients. Only packs.cpp includes this header.
// packs.hpp has the contracts. Angles and gradients are double, and all numbers between them have the number format T
// of the amplitudes.
#pragma once

#include "cpu/simd/pack_rows.hpp"
#include "cpu/simd/packs.hpp"
#include "cpu/simd/sincos.hpp"
#include "shared/su2.h"
#include "shared/tuning.h"

namespace qf {
namespace QF_ISA {
namespace {

// A vector of complex numbers, or of quaternions a - i (b X + c Y + d Z).
template <class V>
struct ComplexLanes {
    V re, im;
};
template <class V>
QF_INLINE inline ComplexLanes<V> operator*(ComplexLanes<V> a, ComplexLanes<V> b) {
    return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

// Return a number of modulus 1 from a number whose modulus m is 1 up to rounding errors: 1/m = 1 + (1 - m^2)/2. The
// small number (1 - m^2)/2 is not rounded beside 1, where numbers above 1 lie twice as far apart as those below: the
// errors of the moduli would have a mean of -1e-8 in single precision, and many layers would shrink the state.
template <class V>
QF_INLINE inline ComplexLanes<V> of_modulus_1(ComplexLanes<V> f) {
    const V error = (0.5f - f.re * f.re * 0.5f) - f.im * f.im * 0.5f;
    return {f.re + f.re * error, f.im + f.im * error};
}

// Call store(index, sine and cosine of half the angle) for each gate or term in a list.
template <class T, class Gate, class Store>
QF_INLINE inline void bind_half_angles(const Gate* gates, const int* list, int count, const double* angles,
                                       Store&& store) {
    constexpr int W = Simd<T>::width, parts = W / D::width;
    auto half_angle = [&](int index, DV* x) QF_INLINE {
        const Gate& gate = gates[index];
        unroll<parts>([&](auto i) QF_INLINE {
            x[i] = D::splat(0.5 * gate.offset);
            if (gate.column >= 0) x[i] += 0.5 * gate.coefficient * D::load(angles + gate.column * W + i * D::width);
        });
    };
    // Four gates take each step together. The last four repeat the last gate. No function is called in this loop, so
    // that the constants of the polynomials stay in registers.
    constexpr int at_once = 4;
    typename Simd<T>::Mask beyond{};
    for (int n = 0; n < count; n += at_once) {
        auto index = [&](int i) { return list[n + i < count ? n + i : count - 1]; };
        DV x[at_once * parts];
        SineAndCosine<T> h[at_once];
        unroll<at_once>([&](auto i) QF_INLINE { half_angle(index(i), x + i * parts); });
        reduced_sines<T, at_once>(x, beyond, h);
        unroll<at_once>([&](auto i) QF_INLINE { store(index(i), h[i]); });
    }
    if (!any_beyond<T>(beyond)) return;
    for (int n = 0; n < count; ++n) {
        DV x[parts];
        half_angle(list[n], x);
        store(list[n], sine_and_cosine<T>(x));
    }
}

inline void sines(const double* numbers, int count, double* cosines_and_sines) {
    for (int first = 0; first < count; first += D::width) {
        const int n = count - first < D::width ? count - first : D::width;
        DV x{};
        __builtin_memcpy(&x, numbers + first, n * sizeof(double));
        const SineAndCosine<double> h = sine_and_cosine<double>(&x);
        alignas(64) double cosines[D::width], sines[D::width];  // an index into a vector would store it for each number
        D::store(cosines, h.cosine);
        D::store(sines, h.sine);
        for (int j = 0; j < n; ++j) {
            cosines_and_sines[2 * (first + j)] = cosines[j];
            cosines_and_sines[2 * (first + j) + 1] = sines[j];
        }
    }
}

// Store the quaternion and the rotation vector of an RV gate.
template <class T>
void bind_vector(const Leaf& leaf, const double* angles, T* out) {
    constexpr int W = Simd<T>::width;
    for (int j = 0; j < W; ++j) {
        const double* column = angles + leaf.column * W + j;
        const Vector3 v{column[0], column[W], column[2 * W]};
        const double t = __builtin_sqrt(dot(v, v));
        const Quaternion q = rotation_of(v, t, __builtin_sin(t / 2), __builtin_cos(t / 2));
        const double numbers[7] = {q.a, q.b, q.c, q.d, v.x, v.y, v.z};
        for (int i = 0; i < 7; ++i) out[i * W + j] = static_cast<T>(numbers[i]);
    }
}

template <class T>
void bind_leaves(const Leaf* leaves, const int* list, int count, const double* angles, const PackValues<T>& values) {
    constexpr int W = Simd<T>::width;
    bind_half_angles<T>(leaves, list, count, angles, [&](int index, const SineAndCosine<T>& h) QF_INLINE {
        Simd<T>::store(values.leaf + index * 2 * W, h.cosine);
        Simd<T>::store(values.leaf + index * 2 * W + W, h.sine);
    });
    if (!values.vector) return;
    for (int n = 0; n < count; ++n)
        if (leaves[list[n]].kind == LEAF_RV) bind_vector(leaves[list[n]], angles, values.vector + list[n] * 7 * W);
}

template <class T>
void bind_terms(const Term* terms, const int* list, int count, const double* angles, const PackValues<T>& values) {
    constexpr int W = Simd<T>::width;
    bind_half_angles<T>(terms, list, count, angles, [&](int index, const SineAndCosine<T>& h) QF_INLINE {
        const auto unit = of_modulus_1(ComplexLanes<typename Simd<T>::V>{h.cosine, -h.sine});
        Simd<T>::store(values.term + index * 2 * W, unit.re);
        Simd<T>::store(values.term + index * 2 * W + W, unit.im);
    });
}

template <class T>
QF_INLINE inline typename Simd<T>::V square_root(typename Simd<T>::V v) {
#if defined(__AVX512F__) && !defined(__clang__)
    if constexpr (sizeof(T) == sizeof(double))
        return (typename Simd<T>::V)_mm512_maskz_sqrt_pd(0xff, (__m512d)v);
    else
        return (typename Simd<T>::V)_mm512_maskz_sqrt_ps(0xffff, (__m512)v);
#elif defined(__AVX2__) && !defined(__clang__)
    if constexpr (sizeof(T) == sizeof(double))
        return (typename Simd<T>::V)_mm256_sqrt_pd((__m256d)v);
    else
        return (typename Simd<T>::V)_mm256_sqrt_ps((__m256)v);
#else
    for (int j = 0; j < Simd<T>::width; ++j) v[j] = static_cast<T>(__builtin_sqrt(v[j]));
    return v;
#endif
}

// Set the vectors of the quaternion of a gate that is the same in all rows.
template <class T>
QF_INLINE inline void constant_gate(const Quaternion& gate, typename Simd<T>::V* q) {
    const double numbers[4] = {gate.a, gate.b, gate.c, gate.d};
    unroll<4>([&](auto k) QF_INLINE { q[k] = Simd<T>::splat(static_cast<T>(numbers[k])); });
}

// Multiply the gates of a run. (alpha, beta) is the first column of the matrix [[alpha, -conj(beta)], [beta,
// conj(alpha)]].
template <class T, class V = typename Simd<T>::V>
QF_INLINE inline void multiply_gates(const Run& run, const Leaf* leaves, const PackValues<T>& values,
                                     ComplexLanes<V>& alpha, ComplexLanes<V>& beta) {
    using S = Simd<T>;
    using Complex = ComplexLanes<V>;
    constexpr int W = S::width;
    // Set the first column of the matrix of gate i.
    auto load = [&](int i, Complex& u, Complex& v) QF_INLINE {
        if (leaves[i].kind < LEAF_SU2) {
            const V c = S::load(values.leaf + i * 2 * W), s = S::load(values.leaf + i * 2 * W + W);
            u = {c, leaves[i].kind == LEAF_RZ ? -s : V{}};
            v = {leaves[i].kind == LEAF_RY ? s : V{}, leaves[i].kind == LEAF_RX ? -s : V{}};
            return;
        }
        V q[4];
        if (leaves[i].kind == LEAF_SU2)
            constant_gate<T>(leaves[i].quaternion, q);
        else
            unroll<4>([&](auto k) QF_INLINE { q[k] = S::load(values.vector + (i * 7 + k) * W); });
        u = {q[0], -q[3]};
        v = {q[2], -q[1]};
    };
    load(run.first_leaf, alpha, beta);
    for (int i = run.first_leaf + 1; i < run.end_leaf; ++i) {
        const Complex a = alpha, b = beta;
        if (leaves[i].kind < LEAF_SU2) {
            const V c = S::load(values.leaf + i * 2 * W), s = S::load(values.leaf + i * 2 * W + W);
            if (leaves[i].kind == LEAF_RX) {
                alpha = {c * a.re + s * b.im, c * a.im - s * b.re};
                beta = {c * b.re + s * a.im, c * b.im - s * a.re};
            } else if (leaves[i].kind == LEAF_RY) {
                alpha = {c * a.re - s * b.re, c * a.im - s * b.im};
                beta = {c * b.re + s * a.re, c * b.im + s * a.im};
            } else {
                alpha = Complex{c, -s} * a;
                beta = Complex{c, s} * b;
            }
            continue;
        }
        Complex u, v;
        load(i, u, v);
        const Complex ua = u * a, vb = Complex{v.re, -v.im} * b, va = v * a, ub = Complex{u.re, -u.im} * b;
        alpha = {ua.re - vb.re, ua.im - vb.im};
        beta = {va.re + ub.re, va.im + ub.im};
    }
}

// Store tau and the norm of rotations, out[2][W].
template <class T, class V = typename Simd<T>::V>
QF_INLINE inline void store_rotation(V tau, typename Simd<T>::Mask flip, bool rounds_tau, T* out) {
    using S = Simd<T>;
    S::store(out, tau);
    if constexpr (sizeof(T) == sizeof(double)) {
        if (rounds_tau) {
            alignas(64) float rounded[S::width];
            store_as(rounded, tau);
            S::store(out, load_as(rounded));
        }
    }
    const V t = S::load(out), length = square_root<T>(T(1) + t * t);
    S::store(out + S::width, T(1) / (flip ? -length : length));
}

// Bind run r, which has gates RY alone, as a rotation with a sign: alpha and beta are real, phi and lambda are 0.
template <class T, class V = typename Simd<T>::V>
QF_INLINE inline void bind_about_y(int r, V alpha, V beta, const PackValues<T>& values) {
    using S = Simd<T>;
    constexpr int W = S::width;
    const V zero{}, one = S::splat(1);
    const typename S::Mask flip = beta * beta > alpha * alpha;
    const V longer = flip ? beta : alpha, shorter = flip ? alpha : beta;
    store_rotation<T>(shorter / longer, flip, values.rounds_tau, values.rotation + r * 2 * W);
    const V numbers[RUN_VALUES] = {
        one, zero, flip ? -one : one, zero, alpha * alpha - beta * beta, S::splat(NO_INVERSE)};
    unroll<RUN_VALUES>([&](auto k) QF_INLINE { S::store(values.run + (r * RUN_VALUES + k) * W, numbers[k]); });
    values.sums_x[r] = 0;
    if (!values.left) return;
    S::store(values.left + 2 * r * W, longer < zero ? -one : one);
    S::store(values.left + (2 * r + 1) * W, zero);
}

// alpha = cos(a) exp(-i(phi + lambda)/2), beta = sin(a) exp(i(phi - lambda)/2) with a = beta/2 in [0, pi/2]. If sin(a)
// or cos(a) is 0, only phi + lambda or phi - lambda is defined (Normal form).
template <class T>
void bind_runs(const Run* runs, const Leaf* leaves, const int* list, int count, const PackValues<T>& values) {
    using S = Simd<T>;
    using V = typename S::V;
    using Mask = typename S::Mask;
    using Complex = ComplexLanes<V>;
    constexpr int W = S::width;
    constexpr T tiny = sizeof(T) == sizeof(double) ? T(1e-300) : T(1e-36);  // smaller squared moduli count as 0
    for (int n = 0; n < count; ++n) {
        const int r = list[n];
        T* const out = values.run + r * RUN_VALUES * W;
        Complex alpha, beta;
        multiply_gates(runs[r], leaves, values, alpha, beta);
        if (values.rotation && is_about_y(runs[r], leaves)) {
            bind_about_y<T>(r, alpha.re, beta.re, values);
            continue;
        }
        V cos2 = alpha.re * alpha.re + alpha.im * alpha.im, sin2 = beta.re * beta.re + beta.im * beta.im;
        const V error = (cos2 - T(0.5)) + (sin2 - T(0.5));  // of the norm, from the rounding errors of the product
        cos2 -= cos2 * error;
        sin2 -= sin2 * error;
        const Mask no_sine = sin2 < tiny, no_cosine = cos2 < tiny, degenerate = no_sine | no_cosine;
        const V c = square_root<T>(cos2), s = square_root<T>(sin2);
        const V product = degenerate ? S::splat(1) : c * s, sum = T(1) + c;
        const V quotient = T(1) / (product * sum), inverse = quotient * sum;
        if (!values.rotation) {
            S::store(values.shears + r * 2 * W, s * (quotient * product));
            S::store(values.shears + r * 2 * W + W, s);
        }
        const Complex conj_alpha{alpha.re, -alpha.im};
        Complex in = conj_alpha * Complex{beta.re, -beta.im}, after = beta * conj_alpha;
        in = {inverse * in.re, inverse * in.im};
        after = {inverse * after.re, inverse * after.im};
        V inverse_sine = T(0.5) * inverse;
        if (any<T>(degenerate)) {
            const Complex alpha2 = conj_alpha * conj_alpha, beta2 = beta * beta;
            const V one = S::splat(runs[r].about_x ? 0 : 1), i = S::splat(runs[r].about_x ? 1 : 0);
            in = {degenerate ? one : in.re, degenerate ? i : in.im};
            const Complex at_0 = runs[r].about_x ? Complex{alpha2.im, -alpha2.re} : alpha2;
            const Complex at_pi = runs[r].about_x ? Complex{-beta2.im, beta2.re} : beta2;
            after.re = no_sine ? at_0.re : no_cosine ? at_pi.re : after.re;
            after.im = no_sine ? at_0.im : no_cosine ? at_pi.im : after.im;
            inverse_sine = degenerate ? S::splat(NO_INVERSE) : inverse_sine;
        }
        if (values.rotation) {
            const Mask flip = sin2 > cos2;
            const V tau = degenerate ? V{} : (flip ? c : s) / (flip ? s : c);
            store_rotation<T>(tau, flip, values.rounds_tau, values.rotation + r * 2 * W);
            after = {flip ? -after.re : after.re, flip ? -after.im : after.im};
        }
        S::store(out + IN_RE * W, in.re);
        S::store(out + IN_IM * W, in.im);
        S::store(out + OUT_RE * W, after.re);
        S::store(out + OUT_IM * W, after.im);
        S::store(out + COSINE * W, cos2 - sin2);
        S::store(out + INVERSE_SINE * W, inverse_sine);
        values.sums_x[r] = !runs[r].single_axis && any<T>(inverse_sine > T(LARGEST_INVERSE_SINE));
        if (!values.left) continue;
        // exp(i chi), the phase that the rotation and its two factors leave out: alpha/cos(a), and conj(beta in) at
        // cos(a) = 0.
        const V by_cosine = degenerate ? S::splat(1) : s * inverse;
        const Complex at_half_turn = runs[r].about_x ? Complex{-beta.im, -beta.re} : Complex{beta.re, -beta.im};
        S::store(values.left + 2 * r * W, no_cosine ? at_half_turn.re : by_cosine * alpha.re);
        S::store(values.left + (2 * r + 1) * W, no_cosine ? at_half_turn.im : by_cosine * alpha.im);
    }
}

template <class T>
void bind_states(const AffineAngle* list, int count, double constant, const double* angles, int num_runs,
                 const PackValues<T>& values, double* factor) {
    constexpr int W = Simd<T>::width;
    constexpr double rounder = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer
    for_each_part<T>([&](int j) QF_INLINE {
        DV phase = D::splat(constant);
        ComplexLanes<DV> product{D::splat(1), DV{}};
        for (int n = 0; n < count; ++n) {
            DV angle = list[n].coefficient * D::load(angles + list[n].column * W + j) + list[n].offset;
            // A sum with large angles would be rounded like its largest partial sum, so they become factors. A lane
            // with a small angle has the factor 1, so that no result depends on the other lanes.
            const DMask is_small = (angle <= TURN) & (angle >= -TURN);
            if (__builtin_expect(any<double>(~is_small), false)) {
                const DV large = is_small ? DV{} : angle;
                const SineAndCosine<double> h = sine_and_cosine<double>(&large);
                product = product * ComplexLanes<DV>{h.cosine, h.sine};
                angle = is_small ? angle : DV{};
            }
            phase += angle;
            phase -= TURN * ((phase * (1 / TURN) + rounder) - rounder);
        }
        const SineAndCosine<double> h = sine_and_cosine<double>(&phase);
        product = product * ComplexLanes<DV>{h.cosine, h.sine};
        for (int r = 0; r < num_runs; ++r) {
            const T* const left = values.left + 2 * r * W + j;
            product = product * ComplexLanes<DV>{load_as(left), load_as(left + W)};
        }
        product = of_modulus_1(product);
        D::store(factor + j, product.re);
        D::store(factor + W + j, product.im);
    });
}

template <class V>
struct VectorLanes {
    V x, y, z;
};

// Return w of run r.
template <class T, class V = typename Simd<T>::V>
QF_INLINE inline VectorLanes<V> w_of(const Run& run, int r, const PackValues<T>& values, const PackSums<T>& sums) {
    using S = Simd<T>;
    constexpr int W = S::width;
    const T* const before = sums.z + (run.layer * sums.bits + run.bit) * W;
    const T* const bound = values.run + r * RUN_VALUES * W;
    const V z_before = sums.has_z[run.layer] ? S::load(before) : V{};
    V x{};
    if (sums.parts == 2 && !run.single_axis) {
        const V z_after = sums.has_z[run.layer + 1] ? S::load(before + sums.bits * W) : V{};
        const V cosine = S::load(bound + COSINE * W), inverse = S::load(bound + INVERSE_SINE * W);
        x = (cosine * z_before - z_after) * inverse;
        if (values.sums_x[r]) {
            V sum = S::load(sums.run + (2 * r + 1) * W);
            if (sums.after) sum = cosine * sum - z_after / inverse;
            x = inverse > T(LARGEST_INVERSE_SINE) ? sum : x;
        }
    }
    return {x, S::load(sums.run + 2 * r * W), z_before};
}

template <class T>
void set_w(const Run* runs, const int* list, int count, const PackValues<T>& values, const PackSums<T>& sums, T* w) {
    using S = Simd<T>;
    constexpr int W = S::width;
    for (int n = 0; n < count; ++n) {
        const auto of_run = w_of<T>(runs[list[n]], list[n], values, sums);
        T* const to = w + 3 * list[n] * W;
        S::store(to, of_run.x);
        S::store(to + W, of_run.y);
        S::store(to + 2 * W, of_run.z);
    }
}

// Turn w from the place before the gate q to the place after it (turn() of su2.h).
template <class T, class V = typename Simd<T>::V>
QF_INLINE inline void turn_lanes(const V* q, V& x, V& y, V& z) {
    const V tx = T(2) * (q[2] * z - q[3] * y), ty = T(2) * (q[3] * x - q[1] * z), tz = T(2) * (q[1] * y - q[2] * x);
    x += q[0] * tx + q[2] * tz - q[3] * ty;
    y += q[0] * ty + q[3] * tx - q[1] * tz;
    z += q[0] * tz + q[1] * ty - q[2] * tx;
}

// Add slope * value to a column of the gradient, or store it if the column has no other summand.
template <class T>
QF_INLINE inline void add_to_column(double slope, typename Simd<T>::V value, bool is_single, double* to) {
    if (is_single)
        for_each_double<T>(value, [&](int j, DV v) QF_INLINE { D::store(to + j, slope * v); });
    else
        for_each_double<T>(value, [&](int j, DV v) QF_INLINE { D::store(to + j, D::load(to + j) + slope * v); });
}

// Add the gradients of all leaves of a run with this w.
template <class T, class V = typename Simd<T>::V>
QF_INLINE inline void add_gradients_of(const Run& run, int r, const Leaf* leaves, const PackValues<T>& values,
                                       VectorLanes<V> w, const char* is_single, double* gradient) {
    using S = Simd<T>;
    constexpr int W = S::width;
    // Turn w back through Rz(lambda) to the input of the run, then forward through the gates.
    const T* const bound = values.run + r * RUN_VALUES * W;
    const V in_re = S::load(bound + IN_RE * W), in_im = S::load(bound + IN_IM * W);
    V x = in_re * w.x + in_im * w.y, y = in_re * w.y - in_im * w.x, z = w.z;
    auto turn_about = [&](int i, V& u, V& v) QF_INLINE {
        if (i + 1 == run.end_leaf) return;
        const V c = S::load(values.leaf + i * 2 * W), s = S::load(values.leaf + i * 2 * W + W);
        const V cosine = c * c - s * s, sine = T(2) * (c * s), old = u;
        u = cosine * old - sine * v;
        v = sine * old + cosine * v;
    };
    auto add = [&](const Leaf& leaf, V value) QF_INLINE {
        if (leaf.column < 0) return;
        add_to_column<T>(leaf.coefficient, value, is_single[leaf.column], gradient + leaf.column * W);
    };
    for (int i = run.first_leaf; i < run.end_leaf; ++i) {
        const Leaf& leaf = leaves[i];
        V q[4];
        if (leaf.kind == LEAF_RX) {
            add(leaf, x);
            turn_about(i, y, z);
        } else if (leaf.kind == LEAF_RY) {
            add(leaf, y);
            turn_about(i, z, x);
        } else if (leaf.kind == LEAF_RZ) {
            add(leaf, z);
            turn_about(i, x, y);
        } else if (leaf.kind == LEAF_SU2) {
            constant_gate<T>(leaf.quaternion, q);
            turn_lanes<T>(q, x, y, z);
        } else {
            const T* const vector = values.vector + i * 7 * W;
            unroll<4>([&](auto k) QF_INLINE { q[k] = S::load(vector + k * W); });
            turn_lanes<T>(q, x, y, z);
            for (int j = 0; j < W && leaf.column >= 0; ++j) {
                const Vector3 v{vector[4 * W + j], vector[5 * W + j], vector[6 * W + j]};
                const double t = __builtin_sqrt(dot(v, v));
                const Vector3 g =
                    rotation_vector_gradient(v, t, __builtin_sin(t), __builtin_cos(t), Vector3{x[j], y[j], z[j]});
                double* const to = gradient + leaf.column * W + j;
                to[0] += g.x;
                to[W] += g.y;
                to[2 * W] += g.z;
            }
        }
    }
}

template <class T>
void add_run_gradients(const Run* runs, const Leaf* leaves, const int* list, int count, const PackValues<T>& values,
                       const PackSums<T>& sums, double* gradient) {
    for (int n = 0; n < count; ++n) {
        const Run& run = runs[list[n]];
        add_gradients_of<T>(run, list[n], leaves, values, w_of<T>(run, list[n], values, sums), sums.is_single,
                            gradient);
    }
}

template <class T>
void add_summed_gradients(const Run* runs, const Leaf* leaves, const int* list, int count, const PackValues<T>& values,
                          const T* w, const char* is_single, double* gradient) {
    using S = Simd<T>;
    for (int n = 0; n < count; ++n) {
        const T* const of_run = w + 3 * list[n] * S::width;
        add_gradients_of<T>(runs[list[n]], list[n], leaves, values,
                            {S::load(of_run), S::load(of_run + S::width), S::load(of_run + 2 * S::width)}, is_single,
                            gradient);
    }
}

template <class T>
void add_term_gradients(const Term* terms, const OneBody* list, int count, const T* z, const char* is_single,
                        double* gradient) {
    constexpr int W = Simd<T>::width;
    for (int n = 0; n < count; ++n) {
        const Term& term = terms[list[n].term];
        if (term.column < 0) continue;
        const double slope = -0.5 * list[n].exponent * term.coefficient;
        add_to_column<T>(slope, Simd<T>::load(z + list[n].bit * W), is_single[term.column], gradient + term.column * W);
    }
}

template <class T>
void add_rows(const int* list, int count, const T* w, double* sums) {
    constexpr int W = Simd<T>::width;
    for (int n = 0; n < count; ++n)
        for (int axis = 0; axis < 3; ++axis) {
            DV sum{};
            for_each_part<T>([&](int j) QF_INLINE { sum += load_as(w + (3 * list[n] + axis) * W + j); });
            sums[3 * list[n] + axis] += D::sum(sum);
        }
}

}  // namespace
}  // namespace QF_ISA
}  // namespace qf
