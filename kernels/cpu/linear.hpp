// SPDX-License-Identifier: Apache-2.0
//
// Linear maps of the index over GF(2) in the form that the sweeps read. A map is the product of two maps: the first
// moves amplitudes inside the chunks of window 1, the second inside the chunks of window 0 (windows.hpp). Each map
// moves the blocks of a chunk along cycles, so it needs one block of memory beside the state.
#pragma once

#include <cstddef>
#include <vector>

#include "cpu/plan.hpp"
#include "cpu/runtime/buffer.hpp"
#include "cpu/windows.hpp"

namespace qf {

// A map that moves amplitudes inside the chunks of one window.
template <class T>
class ChunkMap {
  public:
    ChunkMap(const std::vector<index_t>& columns, const Window& window, int block_bits, int lane_bits);
    // Apply the map to the real or the imaginary parts of one chunk of a state. `scratch` holds one block.
    void apply(const Sweeps<T>& sweeps, int chunk, T* state, T* scratch) const;
    static std::size_t bytes(int num_bits, int block_bits);

  private:
    using Lane = typename BlockMove<T>::Lane;
    const int block_bits_;
    std::vector<index_t> origin_;             // [blocks]: the index inside its new block of amplitude 0 of a block
    std::vector<std::uint32_t> order_;        // the blocks of one cycle after the other; each receives the next one
    std::vector<std::uint32_t> cycle_begin_;  // [cycles + 1], in order_
    std::vector<std::uint32_t> chunk_begin_;  // [chunks + 1], in cycle_begin_
    std::vector<index_t> steps_;
    Buffer<Lane> lanes_;
};

// A linear map and its inverse. The map moves amplitudes in window 1, then in window 0; its inverse has the opposite
// order.
template <class T>
class LinearForm {
  public:
    LinearForm(const std::vector<index_t>& columns, const std::array<Window, 2>& windows, int lane_bits);
    const ChunkMap<T>& part(int window, bool adjoint) const { return parts_[2 * window + (adjoint ? 1 : 0)]; }
    static int first_window(bool adjoint) { return adjoint ? 0 : 1; }
    // Return log2 of the number of amplitudes of a block.
    static int block_bits(const Window& window);
    static std::size_t bytes(const Window& window);

  private:
    std::vector<ChunkMap<T>> parts_;
};

// Return the maps of a plan.
template <class T>
std::vector<LinearForm<T>> linear_forms(const PlanData& plan, const std::array<Window, 2>& windows, int lane_bits);

}  // namespace qf
