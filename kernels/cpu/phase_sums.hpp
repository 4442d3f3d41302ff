// SPDX-License-Identifier: Apache-2.0
//
// The sums of p that the gradients of the terms of a phase need.
#pragma once

#include <vector>

#include "cpu/phases.hpp"
#include "cpu/windows.hpp"

namespace qf {

// Output: the sums of p that the gradients of one phase need, over one chunk of h.
struct PhaseGradient {
    double* z;     // [num_qubits]: sum of p Z
    double* pair;  // [low pairs, then high pairs, then cross pairs]: sum of p Z Z
    double* many;  // [many_body]: sum of (g - mean) p
};
// Input: the raw sums of p of one phase (PhaseSums) over the blocks of one chunk. Block h has the same places in the
// arrays for all phases, because another thread may write the sums of the next phase at the same time.
struct ChunkSums {
    const double* total;
    const double* linear;
    const double* cross;
    ChunkBlocks blocks;
};
template <class T>
void reduce_sums(const Phase& phase, int num_qubits, int low_bits, const Sweeps<T>& sweeps, const T* low,
                 const ChunkSums& chunk, std::vector<double>& scratch, PhaseGradient out);

// Add the gradients of the terms of a phase to gradient [num_columns].
void add_term_gradients(const PlanData& plan, const Phase& phase, const PhaseGradient& sums, double* gradient);

}  // namespace qf
