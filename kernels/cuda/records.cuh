// SPDX-License-Identifier: Apache-2.0
//
// The records of a plan as the device reads them. qiskit_fused/engines/cuda/passes.py writes them; their fields are the
// fields of its NumPy dtypes, in this order.
//
// Slots. What has one value for all rows comes first; what differs from row to row follows, row by row (`place`).
#pragma once

#include "cuda/amplitude.cuh"
#include "shared/masks.h"
#include "shared/plan_records.h"
#include "shared/su2.h"
#include "shared/tuning.h"

using namespace qf;

constexpr double INVERSE_PI = 0.31830988618379067154;

struct Run {  // gates of one qubit: Rz(phi) Ry(2 a) Rz(lambda)
    int first_leaf, end_leaf;
    int slot;                 // of its rotation and its angles
    int only_rx;              // all leaves are RX: lambda is pi/2 where it is not defined
    int sum_x, sum_y, sum_z;  // index in the totals of a pair, -1: zero
    int sum_z_after;          // Im<lam|Z|psi> behind the rotation
};

struct Term {  // exp(-i angle/2 g) of a diagonal g
    double coefficient, offset;
    int column, slot;
};

struct Item {  // adds coefficient * angle * g(p) to the argument of a table entry at tile index p
    double coefficient;
    unsigned care, value, sign;
    int source, slot, unused;
};

// A part of a piece that no table of threads or of registers alone can hold; masks over local indices.
//   EXTRA_THREAD: a factor where the index matches    EXTRA_REGISTER: the same for |1> of a register bit
//   EXTRA_TERM: factor^g for every amplitude
struct Extra {
    Mask care, value, sign;
    double coefficient;
    int source, slot, kind, bit;
};

struct Direct {  // sum over the tile of p g, for a g whose Walsh series is long; masks over local indices
    Mask care, value, sign;
};

// A piece of a phase: diagonal gates executed together. Its tables start at `table`:
//   [2^(t-r) factors by thread | r factors of |1> of each register bit | extras]
// Its gradients are sums of p = Im(conj(lam) psi) over the tile.
struct Piece {
    long long table;
    Mask signs[MAX_REGISTER_QUBITS];  // |1> of register bit b gets -1 where popcount(local index & signs[b]) is odd
    int arrangement;
    unsigned register_signs;  // bit j: sign of register j
    int first_thread_item, first_register_item, end_item;
    int first_extra, end_extra;
    int z_slot;                                 // sums of p (-1)^bit of every tile bit, then of p; -1: not wanted
    int walsh_slot, first_walsh, end_walsh;     // sums of p (-1)^popcount(index & mask) for a list of masks
    int direct_slot, first_direct, end_direct;  // sums of p g
};

struct Stage {  // [exchange] [piece] [rotations of some register bits]
    int arrangement, piece;
    int rotate, sum_x;  // masks of register bits; every rotated bit has its Y summed
    int y_slot, x_slot;
    int slot[MAX_REGISTER_QUBITS];  // of the rotation of each register bit
};

struct Slots {  // of rotations, terms and table entries: for all rows, and for each row
    long long shared_runs, varying_runs, shared_terms, varying_terms, shared_entries, varying_entries;
};

struct Output {  // totals[total] = sum over tiles of (-1)^popcount(tile & outside) partial[tile][slot]
    Mask outside;
    int slot, total;
};

struct Group {  // terms of an observable that flip the same bits: (O psi)[i] = sum of d[i] psi[i ^ flip]
    Mask flip;
    int first_term, end_term;
};

struct ObservableTerm {  // (re + i im) [(i & care) == value] (-1)^popcount(i & sign) in d[i]
    Mask care, value, sign;
    double re, im;
};

struct Window {  // address bit of each tile bit, and of each bit of the tile number
    unsigned char tile[MAX_WINDOW_QUBITS], outside[MAX_OUTSIDE_QUBITS];
};

// Ry turns (Z, X) of w, so that X before it is (cos Z_before - Z_after)/sin. Only where this sine is below about 1/8 is
// X summed. Plain comparisons: all kernels must decide alike. rotation: (tan(a/2), sin(a)), the sine is that of 2 a.
__device__ __forceinline__ bool is_x_summed(Complex rotation) {
    return rotation.y < Real(0.0627) || rotation.y > Real(0.998);
}

// Index of a slot for a row: the first num_shared slots are the same for all rows.
__device__ __forceinline__ long long place(long long slot, long long row, long long num_shared, long long num_varying) {
    return slot < num_shared ? slot : slot + row * num_varying;
}

// The matrix of a leaf; columns: those of its row.
__device__ __forceinline__ Quaternion leaf_quaternion(const Leaf& leaf, const double* columns) {
    if (leaf.kind == LEAF_SU2) return leaf.quaternion;
    double sine, cosine;
    if (leaf.kind == LEAF_RV) {
        const Vector3 v = vector_of(leaf, columns);
        const double t = sqrt(dot(v, v));
        sincospi(t * (INVERSE_PI / 2), &sine, &cosine);
        return rotation_of(v, t, sine, cosine);
    }
    sincospi(angle_of(leaf, columns) * (INVERSE_PI / 2), &sine, &cosine);
    return {cosine, leaf.kind == LEAF_RX ? sine : 0, leaf.kind == LEAF_RY ? sine : 0, leaf.kind == LEAF_RZ ? sine : 0};
}
