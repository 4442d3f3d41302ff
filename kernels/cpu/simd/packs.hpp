// SPDX-License-Identifier: Apache-2.0
//
// The inner loops over packs, as a table of functions. A *pack* is W rows of a batch whose amplitudes lie side by side
// in vectors of W numbers: number j of a vector belongs to row j of the pack. Every function does the same work for all
// W rows, so nothing is permuted inside a vector, and each row has its own angles.
//
// Layout: "[n][W]" are n vectors. A state is [2^bits][parts][W]: the real and the imaginary part of each amplitude, or
// the real part alone (parts = 1) for states that stay real. Angles, gradients and values of observables are double.
// Bound values, states, their tables and their sums have the number format T of the amplitudes. All arrays are aligned
// to 64 bytes.
// Contract: a function works on one pack, and threads work on different packs. A result of a row depends on this row
// alone, so results are the same bits for any number of threads and for any other rows of the pack.
// Source: kernels/README.md, sections Packs of rows, Normal form and Gradients.
#pragma once

#include "cpu/plan_records.hpp"
#include "shared/plan_records.h"

namespace qf {

// The vectors that binding stores for each run Rz(phi) Ry(beta) Rz(lambda): the factors exp(i lambda) and exp(i phi) of
// |1> in the phases before and after the rotation, cos(beta), and 1/sin(beta) (NO_INVERSE if sin(beta) is 0).
enum RunValue : int { IN_RE = 0, IN_IM, OUT_RE, OUT_IM, COSINE, INVERSE_SINE, RUN_VALUES };
constexpr float NO_INVERSE = 1e30f;

// Packs of rows are evaluated up to this number of qubits. One table holds a whole phase.
constexpr int MOST_PACK_QUBITS = 10;

constexpr int MOST_PACK_ROWS = 16;  // the largest W: single precision in vectors of 64 bytes

// X of a run is summed for a pack if |sin(beta)| of one of its rows is below 1/LARGEST_INVERSE_SINE.
constexpr double LARGEST_INVERSE_SINE = 8;

// The values of a pack that depend on its angles.
template <class T>
struct PackValues {
    T* leaf;       // [leaves][2][W]: cosine and sine of the half angle, for RX, RY and RZ
    T* vector;     // [leaves][7][W]: quaternion and rotation vector, for RV; null if the plan has no RV leaf
    T* run;        // [runs][RUN_VALUES][W]
    T* left;       // [runs][2][W]: the phase that the rotation and its factors leave out; null if not wanted
    T* term;       // [terms][2][W]: exp(-i angle/2)
    T* shears;     // [runs][2][W]: tan(beta/4) and sin(beta/2)
    char* sums_x;  // [runs]: 1 if X must be summed for some row of the pack
    // If not null, instead of `shears`: [runs][2][W], tau and the norm that is left out of the rotation T(tau) X^flip.
    // For a flip, which a rotation has if cos(beta) < 0, the norm and exp(i phi) are negated.
    T* rotation = nullptr;
    bool rounds_tau = false;  // true: tau is rounded to single precision before the norm is computed
};

// The rotation of one bit. With shears[2][W], which hold t and s, it is three shears x -= t y, y += s x, x -= t y.
// Without them it is T(tau) X^flip in all rows, as in simd/sweeps.hpp, which leaves out a norm.
template <class T>
struct PackRotation {
    int bit;
    const T* shears;
    T tau;
    bool flip;
};

// The table of a phase: [2^bits][parts][W], or [2^bits][parts] if it is the same in all rows. Null numbers: no phase.
template <class T>
struct PackTable {
    const T* numbers;
    bool is_shared;
};

// The factor of |1> of a bit of a phase: from the run before the phase, from the run after it (-1: there is none), and
// from one-qubit terms.
struct PackFactor {
    int out, in;
    const OneBody* terms;
    int num_terms;
};

// The constants of a phase: a factor of each amplitude.
template <class T>
struct PackConstants {
    const T* values;  // [2^bits][2], or null if all factors are 1
    const T* signs;   // [2^bits], or null if some factor is no sign up to a global sign; -0 if the sign of i differs
                      // from the sign of 0, else 0
};

// The sums of a backward sweep.
template <class T>
struct PackSums {
    int bits, parts;        // parts is 1 for real states, whose X is 0
    const T* run;           // [runs][2][W]: Y and X
    bool after;             // true: `run` has the sums after the rotations (sum); false: before (rotate_adjoint)
    const T* z;             // [phases][bits][W]
    const char* has_z;      // [phases]: 0 where z was not computed
    const char* is_single;  // [columns]: 1 if the gradient has one summand, which is stored; else it is added
};

template <class T>
struct PackSweeps {
    int width;                    // W
    int max_rotate, max_adjoint;  // most bits in one call of `rotate` and of `rotate_adjoint`
    int most_rotate;              // `rotate` also takes the last bits of a layer if they are as many as this
    int max_adjoint_with_x;       // most bits in one call of `rotate_adjoint` with X sums
    int max_after_phase;          // most bits in one call of `phase_and_rotate`
    int max_sums;                 // most bits in one call of `sum`

    // out[column][W] <- rows[row][column] for row = 0 .. count - 1; rows after the last one repeat it. Only columns
    // with a mark in `wanted` must be read. Say whether all numbers read are finite.
    bool (*load_columns)(const double* rows, int num_columns, int count, const char* wanted, double* out);
    // Say whether all numbers are finite.
    bool (*all_finite)(const double* numbers, std::size_t count);
    // cosines_and_sines[count][2] <- cosine and sine of each of `count` numbers, of one row.
    void (*sines)(const double* numbers, int count, double* cosines_and_sines);
    // The values of leaves, runs and terms in a list, from angles[column][W]. Sine and cosine have the errors of
    // simd/sincos.hpp.
    void (*bind_leaves)(const Leaf*, const int* list, int count, const double* angles, const PackValues<T>&);
    void (*bind_runs)(const Run*, const Leaf*, const int* list, int count, const PackValues<T>&);
    void (*bind_terms)(const Term*, const int* list, int count, const double* angles, const PackValues<T>&);
    // factor[2][W] <- exp(i (constant + sum of affine angles)) times the phases that all runs leave out. The affine
    // angles are functions of angles[column][W]; the constant is at most one turn.
    void (*bind_states)(const AffineAngle*, int count, double constant, const double* angles, int num_runs,
                        const PackValues<T>&, double* factor);

    // out[phase][bits][2][W] <- the factors of |1>, of modulus 1, for the phases in a list.
    void (*set_factors)(int bits, const PackFactor*, const int* list, int count, const PackValues<T>&, T* out);
    // table[2^bits][parts][W] <- norm * constants * product over the set bits b of factors[b][2][W].
    void (*fill_table)(int bits, int parts, const T* factors, T norm, const PackConstants<T>&, T* table);
    // table[i] <- table[i] * unit^g(i) for the generator g of the masks (shared/masks.h) and unit[2][W] of modulus 1;
    // parts is 2.
    void (*multiply_table)(int bits, index_t care, index_t value, index_t sign, const T* unit, T* table);

    // psi <- rotations |0...0>; the bits are ascending.
    void (*start)(int bits, int parts, const PackRotation<T>*, int count, T* psi);
    // state <- factor[2][W] * rows[row][2^bits][2], complex numbers; a null factor is 1. If psi is not null,
    // overlap[W] = Im <state|psi>. parts = 1 keeps the real part alone, and leaves overlap 0.
    void (*load_states)(int bits, int parts, const double* const* rows, const double* factor, T* state, const T* psi,
                        double* overlap);
    // rows[row][2^bits][2] <- factor[2][W] * state for the rows that are not null.
    void (*store_doubles)(int bits, int parts, const T* state, const double* factor, double* const* rows);
    void (*store_singles)(int bits, int parts, const T* state, const double* factor, float* const* rows);
    // psi <- rotations psi, or inverse rotations psi; the bits are ascending, and all rotations of a call have shears,
    // or none.
    void (*rotate)(int bits, int parts, const PackRotation<T>*, int count, bool inverse, T* psi);
    // out <- rotations table psi; out may be psi, else they do not overlap.
    void (*phase_and_rotate)(int bits, int parts, PackTable<T>, const PackRotation<T>*, int count, const T* psi,
                             T* out);
    // psi, lam <- conj(table) psi, lam, and p[2^bits][W] = Im(conj(lam) psi) if p is not null (then parts is 2).
    void (*phase_adjoint)(int bits, int parts, PackTable<T>, T* psi, T* lam, T* p);
    // psi, lam <- inverse rotations psi, lam; then sums[2j] = scale Im<lam|Y_j|psi> and, with with_x, sums[2j + 1] =
    // scale Im<lam|X_j|psi>, [2 count][W], or sums += with `accumulate`.
    void (*rotate_adjoint)(int bits, int parts, const PackRotation<T>*, int count, bool with_x, bool accumulate,
                           T scale, T* psi, T* lam, T* sums);
    // lam <- conj(table) lam if there is a table, and then p as phase_adjoint; sums[2j] = Im<lam|Y_j|psi> and, with
    // with_x, sums[2j + 1] = Im<lam|X_j|psi>, or sums += with `accumulate`. The states stand after the rotations, and
    // sums get the sign of the matrix diag(-1, 1) that a flip leaves out. No state is rotated, and psi stays.
    void (*sum)(int bits, int parts, PackTable<T>, T* p, const PackRotation<T>*, int count, bool with_x,
                bool accumulate, const T* psi, T* lam, T* sums);
    // z[b] = sum over i of (-1)^(bit b of i) p[i], [bits][W]. p is overwritten.
    void (*z_sums)(int bits, T* p, T* z);
    // p[m] <- sum over i of (-1)^popcount(i & m) p[i].
    void (*walsh)(int bits, T* p);
    // sum[W] = sum over i of g(i) p[i] for the generator g of the masks.
    void (*generator_sum)(int bits, index_t care, index_t value, index_t sign, const T* p, T* sum);

    // value[W] += Re<psi|D|psi> with (D psi)[i] = d[i] psi[i ^ flip] and d = d_re + i d_im, [2^bits]; a null part is 0.
    // If lam is not null, lam = weight[W] * D psi, or lam += with `accumulate`; null weights are 1.
    void (*observe)(int bits, int parts, index_t flip, const T* d_re, const T* d_im, const T* psi, T* lam,
                    const T* weight, bool accumulate, double* value);
    // sums[slot][W] += probability of the amplitudes with this slot; lam[i] = weights[slots[i]][W] * psi[i] if lam is
    // not null.
    void (*observe_outcomes)(int bits, int parts, const std::int32_t* slots, const T* psi, T* lam, const T* weights,
                             double* sums);

    // w[run][3][W] <- Im<lam|(X, Y, Z)|psi> between Rz(lambda) and Ry.
    void (*set_w)(const Run*, const int* list, int count, const PackValues<T>&, const PackSums<T>&, T* w);
    // gradient[column][W] += the gradients of all leaves of the runs, with w from the sums or as given.
    void (*add_run_gradients)(const Run*, const Leaf*, const int* list, int count, const PackValues<T>&,
                              const PackSums<T>&, double* gradient);
    void (*add_summed_gradients)(const Run*, const Leaf*, const int* list, int count, const PackValues<T>&, const T* w,
                                 const char* is_single, double* gradient);
    // gradient[column][W] += the gradients of one-qubit terms, from z[bits][W] of their phase.
    void (*add_term_gradients)(const Term*, const OneBody*, int count, const T* z, const char* is_single,
                               double* gradient);
    // sums[run][3] += the sum of w over the rows of the pack.
    void (*add_rows)(const int* list, int count, const T* w, double* sums);
    // rows[j][column] <- gradient[column][j] for all columns and the rows that are not null.
    void (*store_columns)(const double* gradient, int num_columns, double* const* rows);
};

template <class T>
const PackSweeps<T>& best_pack_sweeps();

}  // namespace qf
