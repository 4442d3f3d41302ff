// SPDX-License-Identifier: Apache-2.0
//
// Windows and their chunks. A chunk is the amplitudes that agree in `width` neighbouring bits of the index; the
// *window* is the other bits. A pass takes one chunk after the other, and may rotate the bits of the window. There are
// two windows for each state: window 0 leaves out the highest bits, and window 1 leaves out as many bits below these.
// Every bit is in window 0 or in window 1.
//
// A chunk is swept in *tiles*, the amplitudes that agree in all bits but the lowest `tile_bits` bits of the window. A
// tile stays in the L1 cache while a phase and rotations inside the tile are applied.
#pragma once

#include "cpu/simd/sweeps.hpp"

namespace qf {

// The numbers h of the blocks of 2^low_bits amplitudes in one chunk: j = 0 .. count - 1, with the bits of the chunk
// inserted at `position`.
struct ChunkBlocks {
    int position, width;
    index_t chunk, count;

    index_t number(index_t j) const { return (j & below()) | chunk << position | (j & ~below()) << width; }
    // Return the part of a mask of h that acts on j, as a mask of j.
    index_t within(index_t mask) const { return (mask & below()) | (mask >> width & ~below()); }
    // Return the part of a mask of h that has one value in the whole chunk, applied to this value.
    index_t outside(index_t mask) const { return chunk << position & mask; }

  private:
    index_t below() const { return (index_t(1) << position) - 1; }
};

struct Window {
    int num_bits, position, width, tile_bits;
    // Distance in indices from a chunk to the next one, which the L2 cache is asked for during the sweep over a chunk.
    // 0: the cache holds the whole state, or cannot hold two chunks.
    index_t ahead;

    index_t left_out() const { return ((index_t(1) << width) - 1) << position; }
    bool has(int bit) const { return !(left_out() >> bit & 1); }
    // Return the bits of the window that differ inside a tile.
    index_t tile() const {
        const index_t all = (index_t(1) << tile_bits) - 1, below = (index_t(1) << position) - 1;
        return (all & below) | (all & ~below) << width;
    }
    Range chunk(int c) const { return {num_bits, left_out(), static_cast<index_t>(c) << position}; }
    ChunkBlocks blocks(int c, int low_bits) const {
        return {position - low_bits, width, static_cast<index_t>(c), index_t(1) << (num_bits - width - low_bits)};
    }
    // Call function(range) for each tile of a chunk.
    template <class F>
    void for_each_tile(int c, F&& function) const {
        const index_t all = num_bits == 64 ? ~index_t(0) : (index_t(1) << num_bits) - 1;
        const index_t fixed = all & ~tile(), numbers = fixed & ~left_out();
        index_t number = 0;
        do {
            function(Range{num_bits, fixed, number | static_cast<index_t>(c) << position});
            number = ((number | ~numbers) + 1) & numbers;
        } while (number);
    }
};

}  // namespace qf
