// SPDX-License-Identifier: Apache-2.0
//
// The records of a plan as the device reads them. qiskit_fused/engines/cuda/passes.py writes the records;
// qiskit_fused/engines/cuda/records.py declares NumPy dtypes with the same fields in the same order.
//
// Layout of values: a *slot* numbers a column, a rotation, a term or a table entry. The shared slots, whose value is
// the same in all rows, come first. The varying slots follow, row by row. `place` maps (slot, row) to an array index.
#pragma once

#include "cuda/amplitude.cuh"
#include "shared/masks.h"
#include "shared/plan_records.h"
#include "shared/su2.h"
#include "shared/tuning.h"

using namespace qf;

constexpr double INVERSE_PI = 0.31830988618379067154;

// The gates of one qubit between two terms, as one matrix Rz(phi) Ry(2 a) Rz(lambda).
struct Run {
    int first_leaf, end_leaf;
    int slot;                 // slot of the rotation and of its angles
    int only_rx;              // 1: all gates are RX, and lambda is pi/2 if the matrix does not define it
    int sum_x, sum_y, sum_z;  // index of Im<lam|X|psi>, Y and Z before the rotation in the totals; -1: the sum is zero
    int sum_z_after;          // index of Im<lam|Z|psi> after the rotation in the totals
};

// exp(-i angle/2 g) of a diagonal generator g.
struct Term {
    double coefficient, offset;
    int column, slot;
};

// An item adds coefficient * angle * g(p) to the argument of the table entry at tile index p.
struct Item {
    double coefficient;
    unsigned care, value, sign;
    int source, slot, unused;
};

// A factor of a piece that depends on more bits than a table of threads or of registers covers. Masks are over local
// indices (tile.cuh).
//   EXTRA_THREAD    the factor multiplies all amplitudes of a thread whose local index matches (care, value)
//   EXTRA_REGISTER  the same, but only the amplitudes in which register bit `bit` is 1
//   EXTRA_TERM      factor^g(local index) multiplies every amplitude
struct Extra {
    Mask care, value, sign;
    double coefficient;
    int source, slot, kind, bit;
};

// A sum of p g over the tile, for a generator g whose Walsh series is long. Masks are over local indices.
struct Direct {
    Mask care, value, sign;
};

// A piece of a phase: the diagonal gates that one stage applies together. Its table starts at `table`:
//   [2^(t-r) factors, one for each thread | r factors, one for |1> of each register bit | one factor for each extra]
// The gradients of a piece are sums of p = Im(conj(lam) psi) over the tile.
struct Piece {
    long long table;
    Mask signs[MAX_REGISTER_QUBITS];  // |1> of register bit b gets -1 where popcount(local index & signs[b]) is odd
    int arrangement;
    unsigned register_signs;  // bit j is 1 if register j changes sign
    int first_thread_item, first_register_item, end_item;
    int first_extra, end_extra;
    int z_partial;                              // sums of p (-1)^bit for each tile bit, then the sum of p; -1: no sums
    int walsh_partial, first_walsh, end_walsh;  // sums of p (-1)^popcount(index & mask) for a list of masks
    int direct_partial, first_direct, end_direct;  // sums of p g for a list of Direct records
};

// A stage does three steps, each optional: exchange amplitudes between threads, apply a piece, rotate register bits.
struct Stage {
    int arrangement, piece;         // piece -1: the stage has no piece
    int rotate, sum_x;              // masks of register bits: the rotated bits, and the bits whose X sum may be needed
    int y_partial, x_partial;       // index of the Y and X sums of register bit 0 in the partial sums of a tile
    int slot[MAX_REGISTER_QUBITS];  // slot of the rotation of each register bit
};

// The number of shared and of varying slots of rotations, terms, table entries and columns.
struct Slots {
    long long shared_runs, varying_runs, shared_terms, varying_terms, shared_entries, varying_entries;
    long long shared_columns, varying_columns;
};

// totals[total] = sum over tiles of (-1)^popcount(tile & outside) partial[tile][output.partial]
struct Output {
    Mask outside;
    int partial, total;
};

// The terms of an observable that flip the same bits: (O psi)[i] = sum over groups of d[i] psi[i ^ flip].
struct Group {
    Mask flip;
    int first_term, end_term;
};

// The summand (re + i im) [(i & care) == value] (-1)^popcount(i & sign) of the diagonal d[i] of a group.
struct ObservableTerm {
    Mask care, value, sign;
    double re, im;
};

// The list of the amplitudes of an outcome: the entries begin .. end - 1 of all amplitudes sorted by outcome. If
// has_parts is 1, the list is cut, and begin .. end - 1 are its parts.
struct OutcomeList {
    unsigned begin, end;
    int has_parts;
};

// A part of a long list: the entries begin .. end - 1 of all amplitudes sorted by outcome.
struct ListPart {
    unsigned begin, end;
};

// A rotation by an angle a between 0 and pi/2, for the two ways in which sweeps rotate. The scaled way is left out,
// scaled = (0, 0), where tan(a/2) is above MOST_SCALED_HALF_TAN.
struct Rotation {
    Complex shears;  // tan(a/2), sin(a)
    Complex scaled;  // tan(a), cos(a)
};

// Say whether the X sum of a run is taken from the amplitudes. `rotation` is (tan(a/2), sin(a)). Ry(2 a) turns (Z, X)
// of w, so X before the rotation is (cos(2 a) Z_before - Z_after)/sin(2 a). The kernels sum X only where sin(2 a) is
// below about 1/8, because the division would lose digits there. Comparisons with constants make all kernels decide
// alike.
__device__ __forceinline__ bool is_x_summed(Complex rotation) {
    return rotation.y < Real(0.0627) || rotation.y > Real(0.998);
}

// Return the array index of a slot in a row. The first num_shared slots have one value for all rows.
__device__ __forceinline__ long long place(long long slot, long long row, long long num_shared, long long num_varying) {
    return slot < num_shared ? slot : slot + row * num_varying;
}

// The columns of one row: the parameter values, numbered by slot. Leaves and terms name a column by its slot.
struct Columns {
    const double* numbers;  // the shared columns, then the varying columns of each row
    long long num_shared, of_row;
    __device__ __forceinline__ Columns(const double* numbers, const Slots& slots, long long row)
        : numbers(numbers), num_shared(slots.shared_columns), of_row(row * slots.varying_columns) {}
    __device__ __forceinline__ double operator[](int slot) const {
        return numbers[slot < num_shared ? slot : slot + of_row];
    }
};

// Two turns are the period of the half angles of gates. They are the sum of three numbers. The first has 50 bits, so
// its product with an integer k differs from x = k * two turns + rest by a number that is exact.
constexpr double TWO_TURNS[3] = {12.566370614359172, 4.898587196589413e-16, -1.1979079238873359e-32};

// Return the rest of x for an integer number of two turns. It is between -1 and 1 turn, and exact to 1e-15, for
// |x| < 1e15.
__device__ __forceinline__ double near_rest(double x) {
    const double k = rint(x * (1 / TWO_TURNS[0]));
    return __fma_rn(-k, TWO_TURNS[2], __fma_rn(-k, TWO_TURNS[1], __fma_rn(-k, TWO_TURNS[0], x)));
}

// The same for |x| < 1e30, between -2 and 2 turns. Angles of at most one turn stay as they are.
__device__ __forceinline__ double rest_of_two_turns(double x) {
    const double k = rint(x * (1 / TWO_TURNS[0]));
    const double product = k * TWO_TURNS[1], error = __fma_rn(k, TWO_TURNS[1], -product);
    const double rest = near_rest(__fma_rn(-k, TWO_TURNS[0], x));
    return (rest - near_rest(product)) - __fma_rn(k, TWO_TURNS[2], error);
}

// Return the angle of a leaf or of a term for its sine and cosine. sincospi and sums of angles would round a large
// angle.
template <class Gate>
__device__ __forceinline__ double small_angle_of(const Gate& gate, const Columns& columns) {
    return rest_of_two_turns(angle_of(gate, columns));
}

// Return the matrix of a leaf in one row.
__device__ __forceinline__ Quaternion leaf_quaternion(const Leaf& leaf, const Columns& columns) {
    if (leaf.kind == LEAF_SU2) return leaf.quaternion;
    double sine, cosine;
    if (leaf.kind == LEAF_RV) {
        const Vector3 v = vector_of(leaf, columns);
        const double t = sqrt(dot(v, v));
        sincospi(t * (INVERSE_PI / 2), &sine, &cosine);
        return rotation_of(v, t, sine, cosine);
    }
    sincospi(small_angle_of(leaf, columns) * (INVERSE_PI / 2), &sine, &cosine);
    return {cosine, leaf.kind == LEAF_RX ? sine : 0, leaf.kind == LEAF_RY ? sine : 0, leaf.kind == LEAF_RZ ? sine : 0};
}
