// SPDX-License-Identifier: Apache-2.0
//
// The inner loops of the CPU engine, as a table of functions: one table per instruction set and number format.
//
// State layout: a statevector is two arrays re[2^n], im[2^n], 64-byte aligned; amplitude i has qubit q in bit q of i.
// "Lane qubits" are the lowest log2(W) bits, W being the numbers in a SIMD vector; the others are "strided".
//
// A real state has no im: its pointer is null. Its diagonals are real too, and its chunks are two vectors or more.
//
// Every function works on a *chunk*: the amplitudes whose chunk bits have one value (see Range). Chunks are disjoint,
// so several threads may run the same sweep; sums are returned per chunk and added in chunk order by the caller,
// which makes results independent of the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qf {

using index_t = std::uint64_t;

// The rotation of one qubit, up to a real factor: T(tau) X^flip with T(tau) = [[1, -tau], [tau, 1]] and |tau| <= 1.
// Ry(beta) = cos(a) T(tan a) with a = beta/2; beyond a quarter turn, Ry(beta) = sin(a) diag(-1, 1) T(cot a) X.
template <class T>
struct Rotation {
    int bit;
    bool flip;
    T tau;
};

// The amplitudes of one chunk: all indices with the `width` bits from `position` equal to `value`.
struct Range {
    int num_bits;  // of the whole index
    int position, width;
    index_t value;
};

constexpr int max_variant_bits = 12;  // bits of h that select a version of the low table

template <class T>
struct CrossTerm {              // exp(-i phi/2 g), g = g_high(h) g_low(l) with values in {-1, 0, 1}
    const T* low;               // g_low, [2^low_bits]
    index_t care, value, sign;  // g_high, masks over h
    T cos_minus_one, sin;       // of phi/2
};

// A diagonal over one chunk: T[i] = scale * low[variant(h)][l] * high[h], with l the low_bits lowest bits of i.
// Where `linear` is given, the low table is made per h instead: base[l] * prod over set bits b of l of linear[h][b],
// times every cross term that is active at h.
template <class T>
struct Diagonal {
    int low_bits;
    const T *low_re, *low_im;    // [variants][2^low_bits], or base [2^low_bits] where linear is given
    const T *high_re, *high_im;  // [2^high_bits], or null where low_bits reach over the whole index
    T scale;
    int variant_bit[max_variant_bits];  // bits of h that select the variant, ascending
    int num_variant_bits;
    const T *linear_re, *linear_im;  // [2^high_bits][low_bits] or null
    const CrossTerm<T>* cross;
    int num_cross;
};

// Sums of p_i = Im(conj(lam_i) psi_i) that the adjoint of a diagonal collects.
template <class T>
struct PhaseSums {
    T* low;          // [variants][2^low_bits], added over h; null: no sums wanted
    double* total;   // [2^high_bits], sum over l; null where high_bits == 0
    double* linear;  // [2^high_bits][low_bits], sum over l of z_b(l) p; only with Diagonal::linear, null: not wanted
    double* cross;   // [2^high_bits][num_cross], sum over l of g_low(l) p; likewise
};

template <class T>
struct Sweeps {
    const char* isa;
    int lane_bits;           // log2 of the vector width
    int max_rotate;          // strided qubits per pass of `rotate`
    int max_adjoint;         // strided qubits per pass of `rotate_adjoint` without, and
    int max_adjoint_with_x;  // with the X sums
    int max_sums;            // strided qubits per pass of `rotation_sums` without, and
    int max_sums_with_x;     // with the X sums

    // psi <- rotations psi. All bits strided (>= lane_bits) and ascending, count <= max_rotate.
    void (*rotate)(const Range&, const Rotation<T>*, int count, T* re, T* im);
    // The same for lane qubits, any number of them; the chunk bits must be the highest ones.
    void (*rotate_lanes)(const Range&, const Rotation<T>*, int count, T* re, T* im);
    // psi, lam <- rotations psi, lam; then sums[2j] = Im<lam|Y_j|psi> and sums[2j + 1] = Im<lam|X_j|psi> (0 without
    // with_x).
    void (*rotate_adjoint)(const Range&, const Rotation<T>*, int count, bool with_x, T* psi_re, T* psi_im, T* lam_re,
                           T* lam_im, double* sums);
    void (*rotate_lanes_adjoint)(const Range&, const Rotation<T>*, int count, bool with_x, T* psi_re, T* psi_im,
                                 T* lam_re, T* lam_im, double* sums);
    // The same sums of psi and lam as they are; of the rotations only the bits matter.
    void (*rotation_sums)(const Range&, const Rotation<T>*, int count, bool with_x, T* psi_re, T* psi_im, T* lam_re,
                          T* lam_im, double* sums);
    void (*lane_sums)(const Range&, const Rotation<T>*, int count, bool with_x, T* psi_re, T* psi_im, T* lam_re,
                      T* lam_im, double* sums);

    // to <- D from over high indices [begin, end); both may be the same state. scratch: 2 * 2^low_bits.
    void (*phase)(const Diagonal<T>&, index_t begin, index_t end, const T* from_re, const T* from_im, T* to_re,
                  T* to_im, T* scratch);
    // lam <- conj(D) lam and, with moves_psi, psi <- conj(D) psi; then the sums of p. scratch: 3 * 2^low_bits.
    void (*phase_adjoint)(const Diagonal<T>&, index_t begin, index_t end, bool moves_psi, T* psi_re, T* psi_im,
                          T* lam_re, T* lam_im, const PhaseSums<T>&, T* scratch);
    // table[l] = root * prod over set bits b of l of factor[b], times base[l] if given. Entries past 2^bits are zeroed
    // up to a whole vector.
    void (*linear_table)(const T* factor_re, const T* factor_im, int bits, T root, const T* base_re, const T* base_im,
                         T* re, T* im);
    // z[b] = sum over l of (-1)^{bit b of l} values[l]; returns sum of values.
    double (*z_sums)(const T* values, int bits, double* z);

    // lam (+)= d psi[i ^ flip] over vectors of the chunk, d = d_re + i d_im (either may be null: zero); returns the
    // chunk's Re <psi|contribution>. lam null: only the value. The chunk bits must be the highest ones.
    double (*observe)(index_t begin, index_t end, index_t flip, const T* d_re, const T* d_im, const T* psi_re,
                      const T* psi_im, T* lam_re, T* lam_im, bool accumulate);

    double (*fma_peak)();  // flop/s of one thread, multiply-adds on registers
};

// The functions of the instruction set in use, see dispatch.cpp.
template <class T>
const Sweeps<T>& best_sweeps();
const char* isa_name();

}  // namespace qf
