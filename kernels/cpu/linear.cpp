// SPDX-License-Identifier: Apache-2.0
//
// The factors of linear maps of the index, the cycles of blocks, and the permutations inside blocks.
#include "cpu/linear.hpp"

#include <algorithm>

#include "shared/tuning.h"

namespace qf {
namespace {

// Up to 25 qubits a state has at most 2^12 blocks, so that the lists of blocks stay small. Blocks have at least 2^8
// amplitudes, so that most of the time goes to vectors, not to blocks.
constexpr int most_block_number_bits = 12;

// Return the inverse of a map. The columns of lower bits are inverted first.
Columns inverse(const Columns& columns) {
    Columns result;
    for (std::size_t b = 0; b < columns.size(); ++b) {
        const index_t bit = index_t(1) << b;
        result.push_back(bit ^ product(result, columns[b] ^ bit));
    }
    return result;
}

// Return the part of a map that moves amplitudes inside the chunks of window 0.
Columns part_inside_chunks(const Window& window, const Columns& columns) {
    Columns result;
    for (const index_t column : inverse(part_of_chunks(window, columns))) result.push_back(product(columns, column));
    return result;
}

}  // namespace

Columns part_of_chunks(const Window& window, const Columns& columns) {
    Columns result;
    for (std::size_t b = 0; b < columns.size(); ++b)
        result.push_back((columns[b] & window.left_out()) | index_t(1) << b);
    return result;
}

index_t product(const Columns& columns, index_t i) {
    index_t result = 0;
    for (; i; i &= i - 1) result ^= columns[__builtin_ctzll(i)];
    return result;
}

template <class T>
ChunkMap<T>::ChunkMap(const Columns& columns, const Window& window, int block_bits, int lane_bits)
    : block_bits_(block_bits), lanes_(std::size_t(1) << 2 * lane_bits) {
    const index_t low = (index_t(1) << block_bits) - 1, width = index_t(1) << lane_bits;
    const index_t blocks = index_t(1) << (window.num_bits - block_bits);
    index_t step = 0;
    bool moves_inside = false;
    for (int b = 0; b < block_bits; ++b) moves_inside = moves_inside || columns[b] != index_t(1) << b;
    for (int b = lane_bits; b < block_bits; ++b) steps_.push_back(step ^= columns[b]);
    for (index_t x = 0; x < width; ++x)
        for (index_t i = 0; i < width; ++i) lanes_[x * width + (product(columns, i) ^ x)] = static_cast<Lane>(i);
    for (index_t h = 0; h < blocks; ++h) origin_.push_back(product(columns, h << block_bits) & low);
    std::vector<char> done(blocks);
    auto add_cycle = [&](index_t first) {
        const std::size_t begin = order_.size();
        index_t h = first;
        do {
            order_.push_back(static_cast<std::uint32_t>(h));
            done[h] = 1;
            h = product(columns, h << block_bits) >> block_bits;
        } while (h != first);
        std::reverse(order_.begin() + begin + 1, order_.end());
        if (order_.size() == begin + 1 && !moves_inside && !origin_[first])
            order_.pop_back();  // the block stays as it is
        else
            cycle_begin_.push_back(static_cast<std::uint32_t>(begin));
    };
    for (int chunk = 0; chunk < 1 << window.width; ++chunk) {
        chunk_begin_.push_back(static_cast<std::uint32_t>(cycle_begin_.size()));
        const ChunkBlocks of_chunk = window.blocks(chunk, block_bits);
        for (index_t j = 0; j < of_chunk.count; ++j)
            if (!done[of_chunk.number(j)]) add_cycle(of_chunk.number(j));
    }
    chunk_begin_.push_back(static_cast<std::uint32_t>(cycle_begin_.size()));
    cycle_begin_.push_back(static_cast<std::uint32_t>(order_.size()));
}

template <class T>
void ChunkMap<T>::apply(const Sweeps<T>& sweeps, int chunk, T* state, T* scratch) const {
    const BlockMove<T> move{block_bits_, steps_.data(), lanes_.data()};
    const std::size_t size = std::size_t(1) << block_bits_;
    for (std::uint32_t cycle = chunk_begin_[chunk]; cycle < chunk_begin_[chunk + 1]; ++cycle) {
        const std::uint32_t *block = order_.data() + cycle_begin_[cycle], first = *block;
        const std::uint32_t* const last = order_.data() + cycle_begin_[cycle + 1] - 1;
        std::copy_n(state + first * size, size, scratch);
        for (; block != last; ++block)
            sweeps.move_block(move, origin_[block[1]], state + block[1] * size, state + block[0] * size);
        sweeps.move_block(move, origin_[first], scratch, state + *last * size);
    }
}

template <class T>
std::size_t ChunkMap<T>::bytes(int num_bits, int block_bits) {
    // The lanes are counted for the widest vectors, so that predictions do not depend on the CPU.
    const std::size_t blocks = std::size_t(1) << (num_bits - block_bits), width = WIDEST_VECTOR_BYTES / sizeof(T);
    return sizeof(ChunkMap<T>) + blocks * sizeof(index_t) + (3 * blocks + 2) * sizeof(std::uint32_t) +
           block_bits * sizeof(index_t) + width * width * sizeof(Lane);
}

template <class T>
LinearForm<T>::LinearForm(const Columns& columns, const Window& window, int lane_bits)
    : map_(part_inside_chunks(window, columns), window, block_bits(window), lane_bits),
      inverse_(inverse(part_inside_chunks(window, columns)), window, block_bits(window), lane_bits) {}

template <class T>
int LinearForm<T>::block_bits(const Window& window) {
    return std::min(window.position, std::max(MAX_LOW_BITS, window.num_bits - most_block_number_bits));
}

template <class T>
std::size_t LinearForm<T>::bytes(const Window& window) {
    return 2 * ChunkMap<T>::bytes(window.num_bits, block_bits(window));
}

template <class T>
std::vector<LinearForm<T>> linear_forms(const PlanData& plan, const Window& window, int lane_bits) {
    std::vector<LinearForm<T>> forms;
    for (const auto& map : plan.maps) forms.emplace_back(map.columns, window, lane_bits);
    return forms;
}

template class ChunkMap<float>;
template class ChunkMap<double>;
template class LinearForm<float>;
template class LinearForm<double>;
template std::vector<LinearForm<float>> linear_forms(const PlanData&, const Window&, int);
template std::vector<LinearForm<double>> linear_forms(const PlanData&, const Window&, int);

}  // namespace qf
