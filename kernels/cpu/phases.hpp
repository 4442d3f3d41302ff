// SPDX-License-Identifier: Apache-2.0
//
// Phases: all diagonal gates between two layers, as one multiplication.
//
// A phase is a product over l (low bits of the index) and h (high bits). Terms on one or two qubits become factors of
// |1> and |11>; constant factors inside the low or the high bits are tabulated once per plan. Pairs that join a low and
// a high bit make the low table depend on h: by a few bits of h (`variants`: all versions are stored), or, where more
// bits of h take part, through linear factors from which each block makes its table on the fly (`per_block`). Where
// very many Z strings join low and high bits, the whole table is stored, made by a Walsh transform (`whole`).
#pragma once

#include <memory>
#include <vector>

#include "cpu/angles.hpp"
#include "cpu/runtime/buffer.hpp"

namespace qf {

struct OneBody {  // factor term^exponent of |1> of `bit`; gradient z * sum of Z
    int bit, term, exponent;
};

struct Pair {  // |11> of bits low < high
    struct Source {
        int term, exponent;
    };
    int low, high;
    bool constant;  // no source depends on a column
    std::vector<Source> sources;
};

struct ManyBody {  // a term on three or more qubits
    int term;
    bool has_low, has_high;
    bool by_walsh;                             // a Z string of a phase that is `whole`; `low` is then empty
    index_t sign;                              // mask over the index
    index_t high_care, high_value, high_sign;  // masks over h
    std::vector<double> low;                   // values over l, in {-1, 0, 1}
    double mean;                               // trace of the generator over its dimension
};

// A diagonal of constants inside the low or the high bits, made once per plan however many phases have it.
struct ConstantTable {
    int shift, bits;  // its bits of the index
    std::vector<Pair> pairs;
    std::vector<int> many_terms;
    std::vector<Complex> values;  // [2^bits]; empty before with_constants()
};

struct TableSizes {  // numbers in the tables of a phase
    std::size_t low = 0, high = 0, linear = 0, cross = 0;
    std::size_t numbers() const { return low + high + linear + cross; }
};

struct Phase {
    int first_in = 0, end_in = 0;    // runs of the layer after: their Rz(lambda)
    int first_out = 0, end_out = 0;  // runs of the layer before: their Rz(phi)
    std::vector<OneBody> one_body;
    std::vector<Pair> low_pairs, high_pairs, cross_pairs;
    std::vector<ManyBody> many_body;
    std::vector<int> variant_bits;  // bits of h
    bool per_block = false, whole = false;
    bool want_pairs = false, want_many = false;                        // a pair or a many-body term has a gradient
    bool want_sums = false;                                            // anything has: Z of a run or of a term
    std::shared_ptr<const ConstantTable> constant_low, constant_high;  // null: all ones

    int num_variants() const { return 1 << variant_bits.size(); }
};

// What the phases of a plan consist of, without the tables that an engine keeps.
std::vector<Phase> make_phases(const PlanData& plan, int low_bits);
// The same phases with these tables: constants, and the low parts of terms on three or more qubits.
std::vector<Phase> with_constants(const PlanData& plan, int low_bits, std::vector<Phase> phases);
TableSizes table_sizes(const Phase& phase, int num_qubits, int low_bits);

// Tables of one phase for one row.
template <class T>
struct PhaseTables {
    Buffer<T> low, high, linear;  // re then im
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
    std::vector<double> strings;  // re then im of the factors of Z strings together
    Buffer<T> base;
};

template <class T>
void allocate(const Phase& phase, int num_qubits, int low_bits, PhaseTables<T>& tables);
template <class T>
void build_tables(const PlanData& plan, const Phase& phase, int low_bits, const Bound& bound, const Sweeps<T>& sweeps,
                  PhaseScratch<T>& scratch, PhaseTables<T>& tables);

// Sums of one phase over one chunk of h, reduced to what gradients need.
struct PhaseGradient {
    double* z;     // [num_qubits]
    double* pair;  // [low, then high, then cross pairs]
    double* many;  // [many_body]: sum of (g - mean) p
};
struct ChunkSums {  // raw sums, see PhaseSums
    const double* total;
    const double* linear;
    const double* cross;
    index_t begin, end;  // chunk of h
};
template <class T>
void reduce_sums(const Phase& phase, int num_qubits, int low_bits, const Sweeps<T>& sweeps, const T* low,
                 const ChunkSums& chunk, std::vector<double>& scratch, PhaseGradient out);

// Add the gradients of the phase's terms.
void add_term_gradients(const PlanData& plan, const Phase& phase, const PhaseGradient& sums, double* gradient);

}  // namespace qf
