// SPDX-License-Identifier: Apache-2.0
//
// Linear maps of the index over GF(2) in the form that the sweeps read. A map is the product of two maps: the first
// moves whole chunks of window 0 (windows.hpp), the second moves amplitudes inside these chunks. The first is a change
// of the places where the sweeps find the chunks (Frame in layout.hpp). The second moves the blocks of a chunk along
// cycles, so it needs one block of memory beside the state.
#pragma once

#include <cstddef>
#include <vector>

#include "cpu/plan.hpp"
#include "cpu/runtime/buffer.hpp"
#include "cpu/windows.hpp"

namespace qf {

// The columns of the matrix of a map: amplitude i moves to the XOR of the columns b over the set bits b of i. The
// highest bit of column b is b.
using Columns = std::vector<index_t>;

index_t product(const Columns& columns, index_t i);

// Return the part of a map that moves whole chunks of window 0: it changes the bits that the window leaves out.
Columns part_of_chunks(const Window& window, const Columns& columns);

// A map that moves amplitudes inside the chunks of window 0.
template <class T>
class ChunkMap {
  public:
    ChunkMap(const Columns& columns, const Window& window, int block_bits, int lane_bits);
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

// The part of a linear map that moves amplitudes inside the chunks of window 0, and its inverse.
template <class T>
class LinearForm {
  public:
    LinearForm(const Columns& columns, const Window& window, int lane_bits);
    const ChunkMap<T>& part(bool adjoint) const { return adjoint ? inverse_ : map_; }
    // Return log2 of the number of amplitudes of a block.
    static int block_bits(const Window& window);
    static std::size_t bytes(const Window& window);

  private:
    ChunkMap<T> map_, inverse_;
};

// Return the maps of a plan for window 0.
template <class T>
std::vector<LinearForm<T>> linear_forms(const PlanData& plan, const Window& window, int lane_bits);

}  // namespace qf
