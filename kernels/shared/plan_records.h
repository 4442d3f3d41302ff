// SPDX-License-Identifier: Apache-2.0
//
// The records of a plan that both engines share: the gates, and the angles of gates and terms. Each engine schedules
// runs and terms differently, so cpu/plan.hpp and cuda/records.cuh define the records of runs and terms. Python reads
// the kinds of gates through _cpu.constants().
#pragma once

#include "shared/host_device.h"
#include "shared/su2.h"

namespace qf {

// The kinds of gates. RX, RY and RZ are exp(-i angle/2 P) of the Pauli matrix P. SU2 is a constant matrix. RV is
// exp(-i/2 (x X + y Y + z Z)), whose x, y and z are three consecutive columns.
enum LeafKind : int { LEAF_RX = 0, LEAF_RY = 1, LEAF_RZ = 2, LEAF_SU2 = 3, LEAF_RV = 4 };

// A leaf is one gate of a run.
struct Leaf {
    double coefficient, offset;  // angle = coefficient * column + offset, in radians
    Quaternion quaternion;       // the matrix of an SU2 gate
    int kind;                    // a LeafKind
    int column;                  // column of the angle, or the first of the three columns of RV; -1: constant angle
    int output;                  // CUDA only: index of the first gradient of this leaf; -1: the leaf has no gradient
    int unused;
};

// Return the angle of a leaf or of a term, in radians. columns[k] is the number in column k of one row.
template <class Gate, class Columns>
QF_SHARED double angle_of(const Gate& gate, const Columns& columns) {
    return gate.column < 0 ? gate.offset : gate.coefficient * columns[gate.column] + gate.offset;
}

// Return the rotation vector of an RV gate, in radians.
template <class Columns>
QF_SHARED Vector3 vector_of(const Leaf& leaf, const Columns& columns) {
    return {columns[leaf.column], columns[leaf.column + 1], columns[leaf.column + 2]};
}

}  // namespace qf
