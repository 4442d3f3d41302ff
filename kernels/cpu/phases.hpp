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
#include "cpu/runtime/buffer.hpp"

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

// The number of elements in the tables of a phase.
struct TableSizes {
    std::size_t low = 0, high = 0, linear = 0, cross = 0;
    std::size_t numbers() const { return low + high + linear + cross; }
};

struct Phase {
    int first_in = 0, end_in = 0;    // runs of the layer after the phase, whose Rz(lambda) is part of the phase
    int first_out = 0, end_out = 0;  // runs of the layer before the phase, whose Rz(phi) is part of the phase
    std::vector<OneBody> one_body;
    std::vector<Pair> low_pairs, high_pairs, cross_pairs;
    std::vector<ManyBody> many_body;
    std::vector<int> variant_bits;  // bits of h that select the version of the low table
    bool per_block = false, whole = false;
    bool want_pairs = false, want_many = false;                        // a pair, or a many-body term, has a gradient
    bool want_sums = false;                                            // a term, or a run that needs Z, has a gradient
    std::shared_ptr<const ConstantTable> constant_low, constant_high;  // null: all entries are 1

    int num_variants() const { return 1 << variant_bits.size(); }
};

// Return the phases of a plan without constant tables.
std::vector<Phase> make_phases(const PlanData& plan, int low_bits);
// Return the phases with constant tables, and with the low parts of terms on three or more qubits.
std::vector<Phase> with_constants(const PlanData& plan, int low_bits, std::vector<Phase> phases);
TableSizes table_sizes(const Phase& phase, int num_qubits, int low_bits);

// The tables of one phase in one row. Each buffer holds all real parts, then all imaginary parts.
template <class T>
struct PhaseTables {
    Buffer<T> low, high, linear;
    std::vector<CrossTerm<T>> cross;
    std::vector<Buffer<T>> cross_low;

    std::size_t bytes() const {
        std::size_t size = low.size() + high.size() + linear.size();
        for (const auto& table : cross_low) size += table.size();
        return size * sizeof(T);
    }

    Diagonal<T> view(const Phase& phase, int low_bits, T scale) const;
};

template <class T>
struct PhaseScratch {
    std::vector<Complex> factor, values;
    std::vector<double> strings;  // product of the factors of all Z strings: all real parts, then all imaginary parts
    Buffer<T> base;
};

template <class T>
void allocate(const Phase& phase, int num_qubits, int low_bits, PhaseTables<T>& tables);
template <class T>
void build_tables(const PlanData& plan, const Phase& phase, int low_bits, const Bound& bound, const Sweeps<T>& sweeps,
                  PhaseScratch<T>& scratch, PhaseTables<T>& tables);

// Output: the sums of p that the gradients of one phase need, over one chunk of h.
struct PhaseGradient {
    double* z;     // [num_qubits]: sum of p Z
    double* pair;  // [low pairs, then high pairs, then cross pairs]: sum of p Z Z
    double* many;  // [many_body]: sum of (g - mean) p
};
// Input: the raw sums of p of one phase (PhaseSums). The chunk is the blocks h = begin .. end - 1.
struct ChunkSums {
    const double* total;
    const double* linear;
    const double* cross;
    index_t begin, end;
};
template <class T>
void reduce_sums(const Phase& phase, int num_qubits, int low_bits, const Sweeps<T>& sweeps, const T* low,
                 const ChunkSums& chunk, std::vector<double>& scratch, PhaseGradient out);

// Add the gradients of the terms of a phase to gradient [num_columns].
void add_term_gradients(const PlanData& plan, const Phase& phase, const PhaseGradient& sums, double* gradient);
// The same for the terms of phase 0, on the start state |0...0>, for Im<lam|psi> = 1.
std::vector<ColumnSlope> gradients_of_first_phase(const PlanData& plan);

// A phase in radians: offset + sum of slope * column.
struct AffinePhase {
    double offset = 0;
    std::vector<ColumnSlope> slopes;
    double at(const double* columns) const;
};
// Tables apply terms up to a global phase. Return the phase that traceless terms exp(-i angle/2 (g - mean)) have beyond
// the tables. without_first: phase 0 was not applied, because the row starts in |0...0>.
AffinePhase phase_of_terms(const PlanData& plan, bool without_first);

}  // namespace qf
