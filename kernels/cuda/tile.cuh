// SPDX-License-Identifier: Apache-2.0
//
// Addresses. An amplitude lies at an address of N bits, one per qubit. A window is t of these bits; the 2^t amplitudes
// that differ in them only are a tile, held by one group of 2^(t - r) threads with 2^r amplitudes each in registers.
// In arrangement s the r register bits are tile bits s .. s + r - 1 and the bits of the thread number are the others.
// The local index of an amplitude is its tile index, with the number of its tile in the bits above.
//
// Compiled with -DQF_TILE_QUBITS=t -DQF_REGISTER_QUBITS=r.
#pragma once

constexpr int TILE_QUBITS = QF_TILE_QUBITS;
constexpr int REGISTER_QUBITS = QF_REGISTER_QUBITS;
constexpr int NUM_REGISTERS = 1 << REGISTER_QUBITS;
constexpr int THREAD_QUBITS = TILE_QUBITS - REGISTER_QUBITS;
constexpr int THREADS_PER_TILE = 1 << THREAD_QUBITS;

// Tile index of a register of a thread.
__device__ __forceinline__ int tile_index(int thread, int j, int arrangement) {
    const int low = thread & ((1 << arrangement) - 1);
    return low | j << arrangement | (thread >> arrangement) << (arrangement + REGISTER_QUBITS);
}
