// SPDX-License-Identifier: Apache-2.0
//
// A phase is the product of all diagonal gates between two layers, applied as one multiplication for each amplitude.
//
// The index of an amplitude has low bits l and high bits h. The factor of an amplitude is a number of the low table
// times a number of the high table. Terms on one or two qubits are factors of |1> and |11>. Constant factors inside the
// low or the high bits are tabulated once for each plan. Terms that join low and high bits make the low table depend on
// h. There are three ways to store such a phase:
//   variants   a few bits of h join low bits: all versions of the low table are stored
//   per_block  many bits of h join low bits: each block computes its low table from one factor for each low bit
//   whole      very many Z strings join low and high bits: a table of all amplitudes, made by a Walsh transform
// Source: kernels/README.md, section Normal form.
#pragma once

#include <memory>
#include <vector>

#include "cpu/angles.hpp"

namespace qf {

// The factor of |11> of two bits, low < high: the product of term^exponent over the sources.
struct Pair {
    struct Source {
        int term, exponent;
    };
    int low, high;
    bool constant;  // true: no source depends on a column
    std::vector<Source> sources;
};

// A term on three or more qubits.
struct ManyBody {
    int term;
    bool has_low, has_high;                    // the generator depends on low bits, on high bits
    bool by_walsh;                             // true: a Z string of a `whole` phase; `low` is then empty
    index_t sign;                              // mask over the index
    index_t high_care, high_value, high_sign;  // masks over h
    std::vector<double> low;                   // [2^low_bits]: the factor of the generator over l, -1, 0 or 1
    double mean;                               // trace of the generator divided by its dimension
};

// A diagonal of constant terms inside the low or the high bits. Phases with equal constants share one table.
struct ConstantTable {
    int shift, bits;  // the table covers the index bits shift .. shift + bits - 1
    std::vector<Pair> pairs;
    std::vector<int> many_terms;
    std::vector<Complex> values;  // [2^bits]; empty before with_constants()
};

struct Phase {
    int first_in = 0, end_in = 0;    // runs of the layer after the phase, whose Rz(lambda) is part of the phase
    int first_out = 0, end_out = 0;  // runs of the layer before the phase, whose Rz(phi) is part of the phase
    std::vector<OneBody> one_body;   // in the order of their bits
    std::vector<Pair> low_pairs, high_pairs, cross_pairs;
    std::vector<ManyBody> many_body;
    std::vector<int> variant_bits;  // bits of h that select the version of the low table
    bool per_block = false, whole = false;
    // true: for all angles, all factors of the phase are 1. The layer before it has a linear map and no runs.
    bool identity = false;
    bool want_terms = false;                                           // a term has a gradient
    bool want_pairs = false, want_many = false;                        // a pair, or a many-body term, has a gradient
    bool want_sums = false;                                            // a term, or a run that needs Z, has a gradient
    std::shared_ptr<const ConstantTable> constant_low, constant_high;  // null: all entries are 1

    int num_variants() const { return 1 << variant_bits.size(); }
};

// Return the phases of a plan without constant tables.
std::vector<Phase> make_phases(const PlanData& plan, int low_bits);

// Return the gradients of the terms of phase 0, on the start state |0...0>, for Im<lam|psi> = 1.
std::vector<ColumnSlope> gradients_of_first_phase(const PlanData& plan);

// A phase in radians: constant + sum of angles. It is right up to multiples of a turn, for angles of any size.
struct AffinePhase {
    double constant = 0;
    std::vector<AffineAngle> angles;
    double at(const double* columns) const;
};
// Return the sum of a phase of at most one turn and an angle, up to multiples of a turn. A sum of large angles would be
// rounded like its largest partial sum; sine and cosine are exact for large angles.
inline double add_angle(double phase, double angle) {
    const bool is_large = !(std::abs(angle) <= TURN);
    return std::remainder(phase + (is_large ? std::atan2(std::sin(angle), std::cos(angle)) : angle), TURN);
}
// Tables apply terms up to a global phase. Return the phase that traceless terms exp(-i angle/2 (g - mean)) have beyond
// the tables. without_first: phase 0 was not applied, because the row starts in |0...0>.
AffinePhase phase_of_terms(const PlanData& plan, bool without_first);

}  // namespace qf
