// SPDX-License-Identifier: Apache-2.0
//
// The threads of a block of a sweep, the amplitudes that a thread loads and stores, and exchanges between threads.
//
// Layout, launch and shared memory: see sweeps.cu. An exchange writes and reads shared memory once for each amplitude,
// without bank conflicts.
#pragma once

#include "cuda/amplitude.cuh"
#include "cuda/tile.cuh"
#include "shared/tuning.h"

using namespace qf;

constexpr int BLOCK_THREADS = THREADS_PER_TILE < MIN_SWEEP_THREADS ? MIN_SWEEP_THREADS : THREADS_PER_TILE;
constexpr int TILES_PER_BLOCK = BLOCK_THREADS / THREADS_PER_TILE;
constexpr int BANKS = 128 / sizeof(Amplitude);  // shared memory has 32 banks of 4 bytes; this counts them in amplitudes
constexpr int LANE_QUBITS = THREAD_QUBITS < WARP_QUBITS ? THREAD_QUBITS : WARP_QUBITS;  // thread bits inside a warp
constexpr int WARPS_PER_TILE = 1 << (THREAD_QUBITS - LANE_QUBITS);
constexpr int LOAD_ARRANGEMENT = TILE_QUBITS - REGISTER_QUBITS;  // neighbouring threads take neighbouring amplitudes
// The compiler may use 128 registers for each thread, which hold two states without spills. It may use 168 registers if
// one or two threads hold a tile, and for real amplitudes also if four threads hold a tile.
constexpr int MIN_BLOCKS = THREAD_QUBITS <= (IS_REAL ? 2 : 1) ? 3 : BLOCK_THREADS > 512 ? 1 : 512 / BLOCK_THREADS;
// One state of complex64 fits 80 registers, so that a multiprocessor runs 24 warps of forward_sweep, not 16.
constexpr bool FITS_80_REGISTERS = sizeof(Amplitude) == 8 && !IS_REAL && TILES_PER_BLOCK == 1 && BLOCK_THREADS <= 256;
constexpr int FORWARD_BLOCKS = FITS_80_REGISTERS ? 768 / BLOCK_THREADS : MIN_BLOCKS;

typedef Amplitude State[NUM_REGISTERS];

// The work of this thread: its number inside the tile, the tile inside the block and inside the state, and the unit.
struct Place {
    int tile_in_block, thread, tile;
    int unit;
    bool valid;  // false: the thread lies beyond the last tile; it joins barriers and reductions but stores nothing
};

__device__ __forceinline__ Place find_place(int units, int num_address_bits) {
    const int tile_bits = num_address_bits - TILE_QUBITS;  // number of bits of the number of a tile
    Place place;
    place.tile_in_block = threadIdx.x >> THREAD_QUBITS;
    place.thread = threadIdx.x & (THREADS_PER_TILE - 1);
    if (TILES_PER_BLOCK == 1) {  // the grid has a block for each tile
        place.valid = true;
        place.unit = static_cast<int>(blockIdx.x >> tile_bits);
        place.tile = static_cast<int>(blockIdx.x & ((1u << tile_bits) - 1));
        return place;
    }
    const long long last = (static_cast<long long>(units) << tile_bits) - 1;
    long long number = static_cast<long long>(blockIdx.x) * TILES_PER_BLOCK + place.tile_in_block;
    place.valid = number <= last;
    if (!place.valid) number = last;
    place.unit = static_cast<int>(number >> tile_bits);
    place.tile = static_cast<int>(number & ((1ll << tile_bits) - 1));
    return place;
}

// Call visit(j, pointer to register j in state `number` of an array of states) for all registers, in the arrangement of
// loads and stores. Each call computes the addresses again, because an address kept across the sweep would occupy two
// registers. The distance of registers has 32 bits: states have at most 31 + r qubits.
template <class Pointer, class Visit>
__device__ __forceinline__ void for_each_address(Pointer states, int number, const Place& place, const Window& window,
                                                 int num_address_bits, Visit visit) {
    states += static_cast<Mask>(number) << num_address_bits | window.of_tile(place.tile);
    states += window.of_index(tile_index(place.thread, 0, LOAD_ARRANGEMENT));
    if (window.low <= LOAD_ARRANGEMENT || window.low == window.high) {  // one run of the window has all register bits
        const unsigned distance = 1u << (LOAD_ARRANGEMENT + window.high - window.low);
#pragma unroll
        for (int j = 0; j < NUM_REGISTERS; ++j) visit(j, states + static_cast<Mask>(distance) * j);
    } else {
#pragma unroll
        for (int j = 0; j < NUM_REGISTERS; ++j) visit(j, states + window.of_index(j << LOAD_ARRANGEMENT));
    }
}

// Load the registers of this thread from state `number` of an array of states. `store` below writes the registers back.
__device__ __forceinline__ void load(State& a, const Amplitude* states, int number, const Place& place,
                                     const Window& window, int num_address_bits) {
    for_each_address(states, number, place, window, num_address_bits,
                     [&](int j, const Amplitude* from) { a[j] = place.valid ? *from : Amplitude{}; });
}

__device__ __forceinline__ void store(const State& a, Amplitude* states, int number, const Place& place,
                                      const Window& window, int num_address_bits) {
    for_each_address(states, number, place, window, num_address_bits, [&](int j, Amplitude* to) {
        if (place.valid) *to = a[j];
    });
}

// The amplitudes of a tile lie in shared memory in the order of their tile index, with an unused place after every 2^r
// of them. No arrangement has bank conflicts (kernels/README.md, section Exchange). `float` has twice as many slots as
// a thread has registers; a padding has conflicts there, and places are exclusive-ored instead.
constexpr bool IS_PADDED = BANKS == NUM_REGISTERS;

// Return the place of a tile index in shared memory.
__device__ __forceinline__ constexpr int place_of(int index) {
    return IS_PADDED ? index + (index >> REGISTER_QUBITS) : index ^ (index >> REGISTER_QUBITS & (BANKS - 1));
}

constexpr int TILE_PLACES = IS_PADDED ? place_of(1 << TILE_QUBITS) : 1 << TILE_QUBITS;
constexpr int STATE_PLACES = TILE_PLACES * TILES_PER_BLOCK;  // the tiles of psi come before the tiles of lam
// The number of states that backward_sweep exchanges together. Where a multiprocessor has no shared memory for two
// blocks with two states, exchanging psi before lam takes two more barriers and half of the memory.
constexpr int STATES_AT_ONCE = QF_STATES_AT_ONCE;

// Return the number that is exclusive-ored into all places of a tile, so that tiles of one warp use different banks.
// Padded tiles do so by their size.
__device__ __forceinline__ int skew(const Place& place) {
    return IS_PADDED || TILES_PER_BLOCK == 1 ? 0 : place.tile_in_block << THREAD_QUBITS & (BANKS - 1);
}

// Call visit(j, pointer to the place of register j) for all registers; `tile` is the start of the tile. The place of
// register j is the place of register 0 plus, or exclusive or, the places of the bits of j in the arrangement, because
// these tile indices have no common bits. The loop visits registers in Gray code, so that each step is one operation.
// In an arrangement that the compiler knows, places are constants beside the place of register 0.
template <class Number, class Visit>
__device__ __forceinline__ void visit_places(Number* tile, const Place& place, int arrangement, Visit visit) {
    int index = place_of(tile_index(place.thread, 0, arrangement)) ^ skew(place);
    int of_bit[REGISTER_QUBITS];
#pragma unroll
    for (int b = 0; b < REGISTER_QUBITS; ++b) of_bit[b] = place_of(1 << (arrangement + b));
    Number* mine = tile + index;
#pragma unroll
    for (int i = 0; i < NUM_REGISTERS; ++i) {
        const int j = i ^ i >> 1, next = (i + 1) ^ (i + 1) >> 1;
        visit(j, mine);
#pragma unroll
        for (int b = 0; b < REGISTER_QUBITS; ++b) {
            if ((j ^ next) != 1 << b) continue;
            index ^= of_bit[b];
            if (IS_PADDED)
                mine += next >> b & 1 ? of_bit[b] : -of_bit[b];
            else
                mine = tile + index;
        }
    }
}

// Do what visit_places does. Most exchanges are between the arrangements of the lowest, the next and the highest
// register bits, for which the code is compiled apart.
template <class Visit>
__device__ __forceinline__ void for_each_place(Amplitude* tile, const Place& place, int arrangement, Visit visit) {
    if (arrangement == 0)
        visit_places(tile, place, 0, visit);
    else if (arrangement == LOAD_ARRANGEMENT)
        visit_places(tile, place, LOAD_ARRANGEMENT, visit);
    else if (arrangement == REGISTER_QUBITS)
        visit_places(tile, place, REGISTER_QUBITS, visit);
    else
        visit_places(tile, place, arrangement, visit);
}

// Bring the amplitudes of a tile from one arrangement to another. One barrier is enough: in the next exchange each
// thread writes only the places that it read in this one.
__device__ __forceinline__ void exchange(State& a, Amplitude* tile, const Place& place, int from, int to) {
    for_each_place(tile, place, from, [&](int j, Amplitude* there) { *there = a[j]; });
    __syncthreads();
    for_each_place(tile, place, to, [&](int j, Amplitude* there) { a[j] = *there; });
}

// Bring the amplitudes of psi and lam to another arrangement, by one barrier if there is memory for both.
__device__ __forceinline__ void exchange(State& psi, State& lam, Amplitude* tile, const Place& place, int from,
                                         int to) {
    if (STATES_AT_ONCE == 1) {
        exchange(psi, tile, place, from, to);
        __syncthreads();  // after this barrier, all threads have read psi
        exchange(lam, tile, place, from, to);
        return;
    }
    for_each_place(tile, place, from, [&](int j, Amplitude* there) {
        there[0] = psi[j];
        there[STATE_PLACES] = lam[j];
    });
    __syncthreads();
    for_each_place(tile, place, to, [&](int j, Amplitude* there) {
        psi[j] = there[0];
        lam[j] = there[STATE_PLACES];
    });
}
