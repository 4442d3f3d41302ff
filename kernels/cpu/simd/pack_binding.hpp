// SPDX-License-Identifier: Apache-2.0
//
// Packs of rows: from angles to rotations and factors, and from sums to gradients. Only packs.cpp includes this header.
// packs.hpp has the contracts. All numbers are double; the W rows of a pack take one vector of doubles, or two if the
// amplitudes are single.
#pragma once

#include "cpu/simd/pack_rows.hpp"
#include "cpu/simd/packs.hpp"
#include "cpu/simd/sincos.hpp"
#include "shared/su2.h"
#include "shared/tuning.h"

namespace qf {
namespace QF_ISA {
namespace {

// Return the cosine and sine of half the angle of a gate or a term.
template <class Gate>
QF_INLINE inline SineAndCosine half_angle(const Gate& gate, const double* angles, int width, int j) {
    if (gate.column < 0) return sine_and_cosine(D::splat(0.5 * gate.offset));
    return sine_and_cosine(0.5 * gate.coefficient * D::load(angles + gate.column * width + j) + 0.5 * gate.offset);
}

template <class T>
void bind_leaves(const Leaf* leaves, const int* list, int count, const double* angles, const PackValues<T>& values) {
    constexpr int W = Simd<T>::width;
    for (int n = 0; n < count; ++n) {
        const int index = list[n];
        const Leaf& leaf = leaves[index];
        if (leaf.kind == LEAF_SU2) continue;
        if (leaf.kind == LEAF_RV) {
            double* out = values.vector + index * 7 * W;
            for (int j = 0; j < W; ++j) {
                const double* column = angles + leaf.column * W + j;
                const Vector3 v{column[0], column[W], column[2 * W]};
                const double t = __builtin_sqrt(dot(v, v));
                const Quaternion q = rotation_of(v, t, __builtin_sin(t / 2), __builtin_cos(t / 2));
                const double numbers[7] = {q.a, q.b, q.c, q.d, v.x, v.y, v.z};
                for (int i = 0; i < 7; ++i) out[i * W + j] = numbers[i];
            }
            continue;
        }
        double* out = values.leaf + index * 2 * W;
        for_each_part<T>([&](int j) QF_INLINE {
            const SineAndCosine h = half_angle(leaf, angles, W, j);
            D::store(out + j, h.cosine);
            D::store(out + W + j, h.sine);
        });
    }
}

template <class T>
void bind_terms(const Term* terms, const int* list, int count, const double* angles, const PackValues<T>& values) {
    constexpr int W = Simd<T>::width;
    for (int n = 0; n < count; ++n)
        for_each_part<T>([&](int j) QF_INLINE {
            const SineAndCosine h = half_angle(terms[list[n]], angles, W, j);
            D::store(values.term + list[n] * 2 * W + j, h.cosine);
            D::store(values.term + list[n] * 2 * W + W + j, -h.sine);
        });
}

// A vector of complex numbers, or of quaternions a - i (b X + c Y + d Z).
struct ComplexLanes {
    DV re, im;
};
QF_INLINE inline ComplexLanes operator*(ComplexLanes a, ComplexLanes b) {
    return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

QF_INLINE inline DV square_root(DV v) {
#if defined(__AVX512F__) && !defined(__clang__)
    return (DV)_mm512_maskz_sqrt_pd(0xff, (__m512d)v);
#elif defined(__AVX2__) && !defined(__clang__)
    return (DV)_mm256_sqrt_pd((__m256d)v);
#else
    for (int j = 0; j < D::width; ++j) v[j] = __builtin_sqrt(v[j]);
    return v;
#endif
}

// Multiply the gates of a run. (alpha, beta) is the first column of the matrix [[alpha, -conj(beta)], [beta,
// conj(alpha)]].
template <class T>
QF_INLINE inline void multiply_gates(const Run& run, const Leaf* leaves, const PackValues<T>& values, int j,
                                     ComplexLanes& alpha, ComplexLanes& beta) {
    constexpr int W = Simd<T>::width;
    alpha = {D::splat(1), DV{}};
    beta = {DV{}, DV{}};
    for (int i = run.first_leaf; i < run.end_leaf; ++i) {
        const ComplexLanes a = alpha, b = beta;
        if (leaves[i].kind < LEAF_SU2) {
            const DV c = D::load(values.leaf + i * 2 * W + j), s = D::load(values.leaf + i * 2 * W + W + j);
            if (leaves[i].kind == LEAF_RX) {
                alpha = {c * a.re + s * b.im, c * a.im - s * b.re};
                beta = {c * b.re + s * a.im, c * b.im - s * a.re};
            } else if (leaves[i].kind == LEAF_RY) {
                alpha = {c * a.re - s * b.re, c * a.im - s * b.im};
                beta = {c * b.re + s * a.re, c * b.im + s * a.im};
            } else {
                alpha = ComplexLanes{c, -s} * a;
                beta = ComplexLanes{c, s} * b;
            }
            continue;
        }
        DV q[4];
        if (leaves[i].kind == LEAF_SU2) {
            const Quaternion& gate = leaves[i].quaternion;
            q[0] = D::splat(gate.a), q[1] = D::splat(gate.b), q[2] = D::splat(gate.c), q[3] = D::splat(gate.d);
        } else {
            for (int k = 0; k < 4; ++k) q[k] = D::load(values.vector + (i * 7 + k) * W + j);
        }
        const ComplexLanes ua = ComplexLanes{q[0], -q[3]} * a, vb = ComplexLanes{q[2], q[1]} * b;
        const ComplexLanes va = ComplexLanes{q[2], -q[1]} * a, ub = ComplexLanes{q[0], q[3]} * b;
        alpha = {ua.re - vb.re, ua.im - vb.im};
        beta = {va.re + ub.re, va.im + ub.im};
    }
}

// alpha = cos(a) exp(-i(phi + lambda)/2), beta = sin(a) exp(i(phi - lambda)/2) with a = beta/2 in [0, pi/2]. If sin(a)
// or cos(a) is 0, only phi + lambda or phi - lambda is defined (Normal form).
template <class T>
void bind_runs(const Run* runs, const Leaf* leaves, const int* list, int count, const PackValues<T>& values) {
    constexpr int W = Simd<T>::width;
    constexpr double tiny = 1e-300;  // a squared modulus below this bound counts as 0
    for (int n = 0; n < count; ++n) {
        const int r = list[n];
        double* const out = values.run + r * RUN_VALUES * W;
        DMask sums_x{};
        for_each_part<T>([&](int j) QF_INLINE {
            ComplexLanes alpha, beta;
            multiply_gates(runs[r], leaves, values, j, alpha, beta);
            const DV cos2 = alpha.re * alpha.re + alpha.im * alpha.im, sin2 = beta.re * beta.re + beta.im * beta.im;
            const DMask no_sine = sin2 < tiny, no_cosine = cos2 < tiny, degenerate = no_sine | no_cosine;
            const DV c = square_root(cos2), s = square_root(sin2);
            const DV product = degenerate ? D::splat(1) : c * s, sum = 1.0 + c;
            const DV quotient = 1.0 / (product * sum), inverse = quotient * sum;
            store_as(values.shears + r * 2 * W + j, s * (quotient * product));
            store_as(values.shears + r * 2 * W + W + j, s);
            const ComplexLanes conj_alpha{alpha.re, -alpha.im};
            ComplexLanes in = conj_alpha * ComplexLanes{beta.re, -beta.im}, after = beta * conj_alpha;
            in = {inverse * in.re, inverse * in.im};
            after = {inverse * after.re, inverse * after.im};
            const ComplexLanes alpha2 = conj_alpha * conj_alpha, beta2 = beta * beta;
            const DV one = D::splat(runs[r].about_x ? 0 : 1), i = D::splat(runs[r].about_x ? 1 : 0);
            in = {degenerate ? one : in.re, degenerate ? i : in.im};
            const ComplexLanes at_0 = runs[r].about_x ? ComplexLanes{alpha2.im, -alpha2.re} : alpha2;
            const ComplexLanes at_pi = runs[r].about_x ? ComplexLanes{-beta2.im, beta2.re} : beta2;
            after.re = no_sine ? at_0.re : no_cosine ? at_pi.re : after.re;
            after.im = no_sine ? at_0.im : no_cosine ? at_pi.im : after.im;
            const DV inverse_sine = degenerate ? D::splat(1e300) : 0.5 * inverse;
            D::store(out + IN_RE * W + j, in.re);
            D::store(out + IN_IM * W + j, in.im);
            D::store(out + OUT_RE * W + j, after.re);
            D::store(out + OUT_IM * W + j, after.im);
            D::store(out + COSINE * W + j, cos2 - sin2);
            D::store(out + INVERSE_SINE * W + j, inverse_sine);
            // exp(i chi), the phase that the rotation and its two factors leave out: alpha/cos(a), and conj(beta in) at
            // cos(a) = 0.
            const DV by_cosine = degenerate ? D::splat(1) : s * inverse;
            const ComplexLanes at_half_turn =
                runs[r].about_x ? ComplexLanes{-beta.im, -beta.re} : ComplexLanes{beta.re, -beta.im};
            D::store(values.left + 2 * r * W + j, no_cosine ? at_half_turn.re : by_cosine * alpha.re);
            D::store(values.left + (2 * r + 1) * W + j, no_cosine ? at_half_turn.im : by_cosine * alpha.im);
            sums_x |= inverse_sine > LARGEST_INVERSE_SINE;
        });
        values.sums_x[r] = !runs[r].single_axis && any<double>(sums_x);
    }
}

template <class T>
void bind_states(const ColumnSlope* slopes, int count, double offset, const double* angles, int num_runs,
                 const PackValues<T>& values, double* factor) {
    constexpr int W = Simd<T>::width;
    for_each_part<T>([&](int j) QF_INLINE {
        DV phase = D::splat(offset);
        for (int n = 0; n < count; ++n) phase += slopes[n].slope * D::load(angles + slopes[n].column * W + j);
        const SineAndCosine h = sine_and_cosine(phase);
        ComplexLanes product{h.cosine, h.sine};
        for (int r = 0; r < num_runs; ++r) {
            const double* const left = values.left + 2 * r * W + j;
            product = product * ComplexLanes{D::load(left), D::load(left + W)};
        }
        D::store(factor + j, product.re);
        D::store(factor + W + j, product.im);
    });
}

template <class T>
void fill_factors(int bits, const Run* runs, int first_out, int end_out, int first_in, int end_in,
                  const OneBody* one_body, int num_one_body, const PackValues<T>& values, double* factor) {
    constexpr int W = Simd<T>::width;
    index_t is_set = 0;  // bits whose factor has its first value
    auto multiply = [&](int bit, const double* by, bool conjugate) {
        const bool is_first = !(is_set >> bit & 1);
        is_set |= index_t(1) << bit;
        for_each_part<T>([&](int j) QF_INLINE {
            double* const at = factor + bit * 2 * W + j;
            const DV im = D::load(by + W + j);
            ComplexLanes f{D::load(by + j), conjugate ? -im : im};
            if (!is_first) f = ComplexLanes{D::load(at), D::load(at + W)} * f;
            D::store(at, f.re);
            D::store(at + W, f.im);
        });
    };
    for (int r = first_out; r < end_out; ++r) multiply(runs[r].bit, values.run + (r * RUN_VALUES + OUT_RE) * W, false);
    for (int r = first_in; r < end_in; ++r) multiply(runs[r].bit, values.run + (r * RUN_VALUES + IN_RE) * W, false);
    for (int t = 0; t < num_one_body; ++t) {
        const OneBody& one = one_body[t];
        const int times = one.exponent < 0 ? -one.exponent : one.exponent;
        for (int i = 0; i < times; ++i) multiply(one.bit, values.term + one.term * 2 * W, one.exponent < 0);
    }
    for (int b = 0; b < bits; ++b)
        for_each_part<T>([&](int j) QF_INLINE {
            if (is_set >> b & 1) return;
            D::store(factor + b * 2 * W + j, D::splat(1));
            D::store(factor + b * 2 * W + W + j, DV{});
        });
}

template <class T>
void set_w(const Run* runs, const int* list, int count, int bits, int parts, const PackValues<T>& values,
           const double* run_sums, const double* z, const char* has_z, double* w) {
    constexpr int W = Simd<T>::width;
    for (int n = 0; n < count; ++n) {
        const int r = list[n], layer = runs[r].layer;
        const double* const before = z + (layer * bits + runs[r].bit) * W;
        const double* const after = before + bits * W;
        const double* const run = values.run + r * RUN_VALUES * W;
        const bool has_x = parts == 2 && !runs[r].single_axis;
        for_each_part<T>([&](int j) QF_INLINE {
            const DV z_before = has_z[layer] ? D::load(before + j) : DV{};
            DV x{};
            if (has_x) {
                const DV z_after = has_z[layer + 1] ? D::load(after + j) : DV{};
                const DV inverse = D::load(run + INVERSE_SINE * W + j);
                x = (D::load(run + COSINE * W + j) * z_before - z_after) * inverse;
                if (values.sums_x[r]) x = inverse > LARGEST_INVERSE_SINE ? D::load(run_sums + (2 * r + 1) * W + j) : x;
            }
            D::store(w + 3 * r * W + j, x);
            D::store(w + (3 * r + 1) * W + j, D::load(run_sums + 2 * r * W + j));
            D::store(w + (3 * r + 2) * W + j, z_before);
        });
    }
}

// Turn w from the place before the gate q to the place after it (turn() of su2.h).
QF_INLINE inline void turn_lanes(const DV* q, DV& x, DV& y, DV& z) {
    const DV tx = 2.0 * (q[2] * z - q[3] * y), ty = 2.0 * (q[3] * x - q[1] * z), tz = 2.0 * (q[1] * y - q[2] * x);
    x += q[0] * tx + q[2] * tz - q[3] * ty;
    y += q[0] * ty + q[3] * tx - q[1] * tz;
    z += q[0] * tz + q[1] * ty - q[2] * tx;
}

template <class T>
void add_run_gradients(const Run* runs, const Leaf* leaves, const int* list, int count, const PackValues<T>& values,
                       const double* w, double* gradient) {
    constexpr int W = Simd<T>::width;
    for (int n = 0; n < count; ++n)
        for_each_part<T>([&](int j) QF_INLINE {
            const int r = list[n];
            // Turn w back through Rz(lambda) to the input of the run, then forward through the gates.
            const double* const run = values.run + r * RUN_VALUES * W + j;
            const DV in_re = D::load(run + IN_RE * W), in_im = D::load(run + IN_IM * W);
            const DV w_x = D::load(w + 3 * r * W + j), w_y = D::load(w + (3 * r + 1) * W + j);
            DV x = in_re * w_x + in_im * w_y, y = in_re * w_y - in_im * w_x, z = D::load(w + (3 * r + 2) * W + j);
            auto turn_about = [&](int i, DV& u, DV& v) QF_INLINE {
                if (i + 1 == runs[r].end_leaf) return;
                const DV c = D::load(values.leaf + i * 2 * W + j), s = D::load(values.leaf + i * 2 * W + W + j);
                const DV cosine = c * c - s * s, sine = 2.0 * (c * s), old = u;
                u = cosine * old - sine * v;
                v = sine * old + cosine * v;
            };
            auto add = [&](const Leaf& leaf, DV value) QF_INLINE {
                if (leaf.column < 0) return;
                double* const to = gradient + leaf.column * W + j;
                D::store(to, D::load(to) + leaf.coefficient * value);
            };
            for (int i = runs[r].first_leaf; i < runs[r].end_leaf; ++i) {
                const Leaf& leaf = leaves[i];
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
                    const Quaternion& gate = leaf.quaternion;
                    const DV q[4] = {D::splat(gate.a), D::splat(gate.b), D::splat(gate.c), D::splat(gate.d)};
                    turn_lanes(q, x, y, z);
                } else {
                    const double* const vector = values.vector + i * 7 * W + j;
                    const DV q[4] = {D::load(vector), D::load(vector + W), D::load(vector + 2 * W),
                                     D::load(vector + 3 * W)};
                    turn_lanes(q, x, y, z);
                    for (int k = 0; k < D::width; ++k) {
                        const Vector3 v{vector[4 * W + k], vector[5 * W + k], vector[6 * W + k]};
                        const double t = __builtin_sqrt(dot(v, v));
                        const Vector3 g = rotation_vector_gradient(v, t, __builtin_sin(t), __builtin_cos(t),
                                                                   Vector3{x[k], y[k], z[k]});
                        double* const to = gradient + leaf.column * W + j + k;
                        to[0] += g.x;
                        to[W] += g.y;
                        to[2 * W] += g.z;
                    }
                }
            }
        });
}

template <class T>
void add_rows(const int* list, int count, const double* w, double* sums) {
    constexpr int W = Simd<T>::width;
    for (int n = 0; n < count; ++n)
        for (int axis = 0; axis < 3; ++axis) {
            DV sum{};
            for_each_part<T>([&](int j) QF_INLINE { sum += D::load(w + (3 * list[n] + axis) * W + j); });
            sums[3 * list[n] + axis] += D::sum(sum);
        }
}

}  // namespace
}  // namespace QF_ISA
}  // namespace qf
