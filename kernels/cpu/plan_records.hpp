// SPDX-License-Identifier: Apache-2.0
//
// The records of a plan that only the CPU engine has: its runs, its terms, and the one-qubit factors of its phases. The
// headers of simd/ include this header, so it needs no standard library but the integer types.
#pragma once

#include <cstdint>

#include "shared/plan_records.h"

namespace qf {

using index_t = std::uint64_t;

struct Run {
    int first_leaf, end_leaf;
    int bit, layer;
    bool single_axis;  // all leaves are RX, or all are RY; the gradient then needs Im<lam|Y|psi> only
    bool about_x;      // all leaves are RX, and some angle is not constant; then lambda = pi/2 where it is not defined
};

// Say whether all gates of a run are RY. Such a run is its rotation alone: phi and lambda are 0, and tau has a sign.
inline bool is_about_y(const Run& run, const Leaf* leaves) {
    return run.single_axis && leaves[run.first_leaf].kind == LEAF_RY;
}

// A diagonal gate of phase `phase`: exp(-i/2 angle [(i & care) == value] (-1)^popcount(i & sign)).
struct Term {
    int phase;
    int column;
    double coefficient, offset;
    index_t care, value, sign;
};

// The factor term^exponent of |1> of a bit. Its gradient is -exponent/2 times the sum of p Z.
struct OneBody {
    int bit, term, exponent;
};

// The slope of a phase, in radians for each unit of a column.
struct ColumnSlope {
    int column;
    double slope;
};

// The angle coefficient * column + offset of a gate, in radians, times a power of 2.
struct AffineAngle {
    int column;
    double coefficient, offset;
};
constexpr double TURN = 6.28318530717958647693;  // radians

}  // namespace qf
