// SPDX-License-Identifier: Apache-2.0
//
// Tiles. An amplitude lies at an address of N bits; bit q of the address is qubit q. A *window* is a choice of t
// address bits, in two runs: `low` bits from bit 0 on, and the other bits from bit `high` on. A *tile* is the 2^t
// amplitudes that agree in all other bits. A group of 2^(t - r) threads holds a tile, with 2^r amplitudes in the
// registers of each thread. The *tile index* of an amplitude is made of its t window bits. In *arrangement* s, the
// register bits are the tile bits s .. s + r - 1, and the thread bits are the other tile bits. The *local index* of an
// amplitude is its tile index, with the number of the tile in the bits above.
//
// Compile with -DQF_TILE_QUBITS=t and -DQF_REGISTER_QUBITS=r.
#pragma once

#include "shared/masks.h"

using qf::Mask;

constexpr int TILE_QUBITS = QF_TILE_QUBITS;
constexpr int REGISTER_QUBITS = QF_REGISTER_QUBITS;
constexpr int NUM_REGISTERS = 1 << REGISTER_QUBITS;
constexpr int THREAD_QUBITS = TILE_QUBITS - REGISTER_QUBITS;
constexpr int THREADS_PER_TILE = 1 << THREAD_QUBITS;

// The two runs of the address bits of a window. A window of all bits has low = high = TILE_QUBITS.
struct Window {
    int low, high;

    // Return the address bits of a tile index, and of the number of a tile.
    __device__ __forceinline__ Mask of_index(unsigned index) const {
        return (index & ((1u << low) - 1)) | static_cast<Mask>(index >> low) << high;
    }
    __device__ __forceinline__ Mask of_tile(unsigned tile) const {
        const int between = high - low;  // number of address bits between the two runs
        const Mask below = tile & ((1u << between) - 1), above = tile >> between;
        return below << low | above << (TILE_QUBITS + between);
    }
};

// Return the tile index of register j of a thread.
__device__ __forceinline__ int tile_index(int thread, int j, int arrangement) {
    const int low = thread & ((1 << arrangement) - 1);
    return low | j << arrangement | (thread >> arrangement) << (arrangement + REGISTER_QUBITS);
}
