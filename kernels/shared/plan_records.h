// SPDX-License-Identifier: Apache-2.0
//
// The parts of a plan that both engines read alike: gates, and the angles of gates and terms. How runs and terms are
// scheduled differs: those records are in cpu/plan.hpp and cuda/records.cuh. Python takes the kinds from here, by way
// of _cpu.constants().
#pragma once

#include "shared/host_device.h"
#include "shared/su2.h"

namespace qf {

// RX, RY, RZ: exp(-i angle/2 P). SU2: a constant matrix. RV: exp(-i/2 (x X + y Y + z Z)) of three columns in a row.
enum LeafKind : int { LEAF_RX = 0, LEAF_RY = 1, LEAF_RZ = 2, LEAF_SU2 = 3, LEAF_RV = 4 };

struct Leaf {  // one gate of a run
    double coefficient, offset;
    Quaternion quaternion;  // of SU2
    int kind;               // LeafKind
    int column;             // -1: the angle is constant; of RV, the first of three
    int output;             // CUDA: its first number among the gradients of leaves, -1: it has none
    int unused;
};

// The angle of a leaf or a term, in radians.
template <class Gate>
QF_SHARED double angle_of(const Gate& gate, const double* columns) {
    return gate.column < 0 ? gate.offset : gate.coefficient * columns[gate.column] + gate.offset;
}

// The rotation vector of a leaf RV.
QF_SHARED Vector3 vector_of(const Leaf& leaf, const double* columns) {
    return {columns[leaf.column], columns[leaf.column + 1], columns[leaf.column + 2]};
}

}  // namespace qf
