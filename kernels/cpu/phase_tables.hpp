// SPDX-License-Identifier: Apache-2.0
//
// The tables of a phase: factors of amplitudes that the sweeps multiply.
#pragma once

#include <vector>

#include "cpu/phases.hpp"
#include "cpu/runtime/buffer.hpp"

namespace qf {

// Return the phases with constant tables and, if asked for, with the low parts of terms on three or more qubits.
std::vector<Phase> with_constants(const PlanData& plan, int low_bits, std::vector<Phase> phases, bool with_low_parts);

// The number of elements in the tables of a phase.
struct TableSizes {
    std::size_t low = 0, high = 0, linear = 0, cross = 0;
    std::size_t numbers() const { return low + high + linear + cross; }
};

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
    const ConstantTable* base_of = nullptr;  // the constants that `base` holds, and nothing else; or null
};

template <class T>
void allocate(const Phase& phase, int num_qubits, int low_bits, PhaseTables<T>& tables);
template <class T>
void build_tables(const PlanData& plan, const Phase& phase, int low_bits, const Bound& bound, const Sweeps<T>& sweeps,
                  PhaseScratch<T>& scratch, PhaseTables<T>& tables);

}  // namespace qf
