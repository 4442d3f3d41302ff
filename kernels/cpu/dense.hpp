// SPDX-License-Identifier: Apache-2.0
//
// Dense gates in the form that the sweeps read: the panels of a matrix and of its conjugate transpose.
#pragma once

#include <cstddef>
#include <vector>

#include "cpu/plan.hpp"
#include "cpu/runtime/buffer.hpp"

namespace qf {

template <class T>
class DenseForm {
  public:
    // Make the panels for vectors of 2^lane_bits numbers.
    DenseForm(const DenseGate& gate, int lane_bits);
    // Return the gate, or its inverse, on a state of 2^bits amplitudes.
    DenseProduct<T> on_state(int bits, bool adjoint) const;
    // Return the gate, or its inverse, on a pack of 2^lane_bits rows (simd/packs.hpp). To the sweep, the pack is one
    // state whose lowest bits number the rows, and whose next bit is the part if amplitudes have two parts.
    DenseProduct<T> on_pack(int bits, int lane_bits, int parts, bool adjoint) const;
    static std::size_t bytes(const DenseGate& gate);

  private:
    const DenseGate& gate_;
    int num_targets_;
    std::vector<index_t> offset_;  // [2^k]: the bits of a row number, placed in the target bits
    Buffer<T> panels_[2];          // of the matrix, and of its conjugate transpose
};

// Return the dense gates of a plan for vectors of 2^lane_bits numbers.
template <class T>
std::vector<DenseForm<T>> dense_forms(const PlanData& plan, int lane_bits);

// Return the number of groups of 2^k amplitudes that a product joins.
template <class T>
index_t num_groups(const DenseProduct<T>& product) {
    index_t count = 1;
    for (index_t left = product.free; left; left &= left - 1) count *= 2;
    return count;
}

// Return the work of the dense gates of a plan, for each amplitude, in rotations of one qubit.
double dense_work(const PlanData& plan);

}  // namespace qf
