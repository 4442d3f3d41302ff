// SPDX-License-Identifier: Apache-2.0
//
// The inner loops of the CPU engine, as a table of functions. There is one table for each instruction set and number
// format.
//
// Layout: a statevector is two arrays re[2^n] and im[2^n], aligned to 64 bytes. Amplitude i has qubit q in bit q of i.
// With W numbers in a SIMD vector, the lowest log2(W) qubits are *lane* qubits; the other qubits are *strided*. A real
// state has a null pointer for im, real diagonals, and chunks of at least two vectors.
// Contract: every function works on a part of the state, the amplitudes that agree in some bits of the index (see
// Range). Parts that differ in these bits are disjoint, so several threads may run the same sweep. Work and traffic:
// kernels/README.md, section Contracts of the CPU sweeps. Determinism: sums are returned for each part, and the caller
// adds them in a fixed order, so results are the same bits for any number of threads. Source: kernels/README.md,
// sections Normal form and Gradients.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "cpu/plan_records.hpp"

namespace qf {

// The rotation of one qubit up to a real factor: T(tau) X^flip with T(tau) = [[1, -tau], [tau, 1]] and |tau| <= 1. With
// a = beta/2, Ry(beta) = cos(a) T(tan a) for a <= pi/4, and Ry(beta) = sin(a) diag(-1, 1) T(cot a) X for a > pi/4.
template <class T>
struct Rotation {
    int bit;
    bool flip;
    T tau;
};

// The places of the amplitudes of a state. If `of_high` is not null, amplitudes whose bits from `shift` on are t lie
// where amplitudes with of_high[t] would lie. The places are linear over GF(2): at(i ^ j) is at(i) ^ at(j).
struct Places {
    const std::uint32_t* of_high = nullptr;
    int shift = 0;

    index_t at(index_t i) const {
        return of_high ? (i & ((index_t(1) << shift) - 1)) | index_t(of_high[i >> shift]) << shift : i;
    }
};

// Rotations of lane qubits, at most one for each.
template <class T>
struct LaneList {
    const Rotation<T>* rotations = nullptr;
    int count = 0;
};

// A part of a state: all indices whose bits `fixed` are equal to the bits of `value`, which has no other bits. Lane
// bits are never fixed.
struct Range {
    int num_bits;  // number of bits of the whole index
    index_t fixed, value;
    Places places = {};

    index_t at(index_t i) const { return places.at(i); }
};

constexpr int max_variant_bits = 12;  // most bits of h that select a version of the low table

// A factor exp(-i phi/2 g) with g = g_high(h) g_low(l), which is -1, 0 or 1.
template <class T>
struct CrossTerm {
    const T* low;               // g_low, [2^low_bits]
    index_t care, value, sign;  // the masks of g_high over h
    T cos_minus_one, sin;       // cos(phi/2) - 1 and sin(phi/2)
};

// A diagonal D: D[i] = scale * low[variant(h)][l] * high[h], where l is the low_bits lowest bits of i
// and h is the other bits. If `linear` is not null, the sweep computes the low table of each h: base[l] * product of
// linear[h][b] over the set bits b of l, times every cross term whose g_high(h) is not 0.
template <class T>
struct Diagonal {
    int low_bits;
    const T *low_re, *low_im;    // [variants][2^low_bits], or base [2^low_bits] if linear is not null
    const T *high_re, *high_im;  // [2^high_bits], or null if the index has no high bits
    T scale;
    int variant_bit[max_variant_bits];  // the bits of h that select the variant, in ascending order
    int num_variant_bits;
    const T *linear_re, *linear_im;  // [2^high_bits][low_bits] or null
    const CrossTerm<T>* cross;
    int num_cross;
};

// The summand d[i] psi[i ^ flip] of (O psi)[i]. The factor d = d_re + i d_im has one number for each i of a chunk, the
// first of which belongs to the first amplitude of the chunk. Where a pointer is null, this part of d is a constant.
template <class T>
struct FlipGroup {
    index_t flip;
    const T *d_re, *d_im;
    T constant_re, constant_im;
};

// The sums of p_i = Im(conj(lam_i) psi_i) that the adjoint of a diagonal stores. z_b(l) is (-1)^(bit b of l).
template <class T>
struct PhaseSums {
    T* low;          // [variants][2^low_bits]: sum over h, added to the array; null: the sweep stores no sums
    double* total;   // [2^high_bits]: sum over l; not used if the index has no high bits
    double* linear;  // [2^high_bits][low_bits]: sum over l of z_b(l) p; only with Diagonal::linear; may be null
    double* cross;   // [num_cross][2^high_bits]: sum over l of g_low(l) p; only with Diagonal::linear; may be null
};

// A dense matrix on k target bits. The amplitudes of group g have the indices base ^ (offset[m] << shift), where base
// is the bits of g placed in the bits of `free`, plus `value`. `free` may leave out bits of the index: then the product
// acts only where these bits are as in `value`.
template <class T>
struct DenseProduct {
    int num_targets;  // k
    int shift;
    const T* panels;        // [rows / W][2^k columns][re, im][W rows of the matrix]; rows after the last one are 0
    const index_t* offset;  // [2^k]
    index_t free, value;
    Places places = {};
};

// A permutation of the 2^bits amplitudes of a block that moves amplitude l to the index A l. With W numbers in a
// vector, vector v moves as a whole: to vector w, where A (v W) = w W + x, and lane number lanes[x][i] of v becomes
// lane i of w.
template <class T>
struct BlockMove {
    using Lane = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
    int bits;
    const index_t* steps;  // [bits - log2(W)]: the XOR of A of the lowest j + 1 bits of v
    const Lane* lanes;     // [W][W]
};

template <class T>
struct Sweeps {
    const char* isa;
    int lane_bits;           // log2 of the vector width in numbers
    int max_rotate;          // most strided qubits in one call of `rotate`
    int max_adjoint;         // most strided qubits in one call of `rotate_adjoint` without X sums
    int max_adjoint_with_x;  // most strided qubits in one call of `rotate_adjoint` with X sums
    int max_sums;            // most strided qubits in one call of `rotation_sums` without X sums
    int max_sums_with_x;     // most strided qubits in one call of `rotation_sums` with X sums

    // psi <- rotations psi. All bits are strided (>= lane_bits) and ascending; count <= max_rotate.
    void (*rotate)(const Range&, const Rotation<T>*, int count, T* re, T* im);
    // psi <- rotations psi, for any number of lane qubits.
    void (*rotate_lanes)(const Range&, const Rotation<T>*, int count, T* re, T* im);
    // psi <- rotations psi and lam <- rotations lam; then sums[2j] = Im<lam|Y_j|psi> and, with with_x, sums[2j + 1] =
    // Im<lam|X_j|psi>, else 0. rotate_lanes_adjoint does the same for lane qubits.
    void (*rotate_adjoint)(const Range&, const Rotation<T>*, int count, bool with_x, T* psi_re, T* psi_im, T* lam_re,
                           T* lam_im, double* sums);
    void (*rotate_lanes_adjoint)(const Range&, const Rotation<T>*, int count, bool with_x, T* psi_re, T* psi_im,
                                 T* lam_re, T* lam_im, double* sums);
    // Compute the same sums for the given psi and lam; then, with moves_lam, lam <- rotations lam. Without it, only the
    // bits of the rotations are used. lane_sums does the same for lane qubits, and rotates no state.
    void (*rotation_sums)(const Range&, const Rotation<T>*, int count, bool with_x, bool moves_lam, T* psi_re,
                          T* psi_im, T* lam_re, T* lam_im, double* sums);
    void (*lane_sums)(const Range&, const Rotation<T>*, int count, bool with_x, T* psi_re, T* psi_im, T* lam_re,
                      T* lam_im, double* sums);

    // to <- rotations D from, for any number of rotations of lane qubits. Both may be the same state. The low_bits
    // lowest bits are not fixed. If `ahead` is not 0, the loop also asks the L2 cache for the amplitudes that lie
    // `ahead` indices after the ones that it reads. scratch is [2 * 2^low_bits].
    void (*phase)(const Diagonal<T>&, const Range&, index_t ahead, const T* from_re, const T* from_im, T* to_re,
                  T* to_im, const Rotation<T>* lanes, int num_lanes, T* scratch);
    // lam <- conj(D) lam and, with moves_psi, psi <- conj(D) psi; then the sums of p. With moves_psi, the rotations
    // `after` of lane qubits then act on psi and lam. Without, the rotations `before` act on lam before D is undone.
    // lane_sums[2j] = Im<lam|Y_j|psi> for the qubits of `after`, at the end. scratch is [3 * 2^low_bits].
    void (*phase_adjoint)(const Diagonal<T>&, const Range&, index_t ahead, bool moves_psi, T* psi_re, T* psi_im,
                          T* lam_re, T* lam_im, const PhaseSums<T>&, const LaneList<T>& before,
                          const LaneList<T>& after, double* lane_sums, T* scratch);
    // table[l] = root * product of factor[b] over the set bits b of l, times base[l] if base is not null. If 2^bits is
    // less than a vector, the rest of the vector is set to 0.
    void (*linear_table)(const T* factor_re, const T* factor_im, int bits, T root, const T* base_re, const T* base_im,
                         T* re, T* im);
    // z[b] = sum over l of (-1)^(bit b of l) values[l]. Returns the sum of all values.
    double (*z_sums)(const T* values, int bits, double* z);

    // lam[i] = sum over groups of d[i] psi[i ^ flip] for i = begin .. end - 1, or lam[i] += with `accumulate`. A null
    // lam is not written. Returns the sum over i of Re(conj(psi[i]) sum of d[i] psi[i ^ flip]). The chunk bits must be
    // the highest bits of the index.
    double (*observe)(index_t begin, index_t end, const FlipGroup<T>* groups, std::size_t count, const T* psi_re,
                      const T* psi_im, T* lam_re, T* lam_im, bool accumulate);

    // psi <- matrix psi for the groups begin .. end - 1. With a null im, the matrix must be real.
    void (*dense)(const DenseProduct<T>&, index_t begin, index_t end, T* re, T* im);

    // to[(A l) ^ origin] = from[l] for the amplitudes l of a block. The blocks are different.
    void (*move_block)(const BlockMove<T>&, index_t origin, const T* from, T* to);

    double (*fma_peak)();  // measures the flop/s of one thread that does multiply-adds on registers
};

// Return the functions of the instruction set in use (dispatch.cpp chooses it).
template <class T>
const Sweeps<T>& best_sweeps();
const char* isa_name();

}  // namespace qf
