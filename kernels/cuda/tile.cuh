// SPDX-License-Identifier: Apache-2.0
//
// Tiles. An amplitude lies at an address of N bits; bit q of the address is qubit q. A *window* is a choice of t
// address bits. A *tile* is the 2^t amplitudes that agree in all other bits. A group of 2^(t - r) threads holds a tile,
// with 2^r amplitudes in the registers of each thread. The *tile index* of an amplitude is made of its t window bits.
// In *arrangement* s, the register bits are the tile bits s .. s + r - 1, and the thread bits are the other tile bits.
// The *local index* of an amplitude is its tile index, with the number of the tile in the bits above.
//
// Compile with -DQF_TILE_QUBITS=t and -DQF_REGISTER_QUBITS=r.
#pragma once

constexpr int TILE_QUBITS = QF_TILE_QUBITS;
constexpr int REGISTER_QUBITS = QF_REGISTER_QUBITS;
constexpr int NUM_REGISTERS = 1 << REGISTER_QUBITS;
constexpr int THREAD_QUBITS = TILE_QUBITS - REGISTER_QUBITS;
constexpr int THREADS_PER_TILE = 1 << THREAD_QUBITS;

// Return the tile index of register j of a thread.
__device__ __forceinline__ int tile_index(int thread, int j, int arrangement) {
    const int low = thread & ((1 << arrangement) - 1);
    return low | j << arrangement | (thread >> arrangement) << (arrangement + REGISTER_QUBITS);
}
