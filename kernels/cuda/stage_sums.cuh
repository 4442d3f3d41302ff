// SPDX-License-Identifier: Apache-2.0
//
// Sums of a stage of backward_sweep over the amplitudes of a tile: over registers, lanes, warps, in this order.
//
// Work per complex amplitude, in multiply-adds: 2 for p = Im(conj(lam) psi). Sums have a fixed order.
#pragma once

#include "cuda/stages.cuh"
#include "cuda/threads.cuh"

// Layout of the sums that each warp stores at a stage. One reduction over lanes takes WIDTH values.
constexpr int Y_ENTRY = 0, X_ENTRY = WIDTH, REGISTER_Z_ENTRY = 2 * WIDTH, LANE_Z_ENTRY = 3 * WIDTH;
constexpr int NUM_ENTRIES = WARP_ENTRIES + LANE_QUBITS;
static_assert(WARP_ENTRIES == LANE_Z_ENTRY + 1, "every sum has a place");
static_assert(REGISTER_QUBITS <= WIDTH && REGISTER_QUBITS <= TILE_QUBITS, "a stage names WIDTH register bits");

// Add each of COUNT values over the threads of a warp that hold one tile, and store the sums to `entries`. While a lane
// holds several values, each step halves their number: of two lanes, one keeps the first half, the other the second.
template <int COUNT>
__device__ __forceinline__ void reduce_lanes(Real (&value)[COUNT], int thread, Real* entries) {
    constexpr int HELD = COUNT >> LANE_QUBITS ? COUNT >> LANE_QUBITS : 1;
    int first = 0;
    bool writes = true;
#pragma unroll
    for (int step = 0; step < LANE_QUBITS; ++step) {
        const bool upper = thread >> step & 1;
        const int kept = COUNT >> (step + 1);
        if (kept == 0) {
            value[0] += __shfl_xor_sync(ALL_LANES, value[0], 1 << step);
            writes = writes && !upper;
        }
#pragma unroll
        for (int i = 0; i < kept; ++i) {
            const Real passed_on = upper ? value[i] : value[i + kept];
            value[i] = (upper ? value[i + kept] : value[i]) + __shfl_xor_sync(ALL_LANES, passed_on, 1 << step);
        }
        if (upper) first += kept;
    }
#pragma unroll
    for (int i = 0; i < HELD; ++i)
        if (writes) entries[first + i] = value[i];
}

// Return p = Im(conj(lam) psi) of register j.
__device__ __forceinline__ Real imaginary_product(const State& psi, const State& lam, int j) {
    return imaginary_product(lam[j], psi[j]);
}

// Sum p (-1)^bit over the threads of a warp for every register bit and every lane bit, and sum p itself.
__device__ __forceinline__ void reduce_z(const State& psi, const State& lam, int thread, Real* entries, Real square) {
    Real z[WIDTH] = {}, p[NUM_REGISTERS / 2];
#pragma unroll
    for (int j = 0; j < NUM_REGISTERS / 2; ++j) {
        const Real even = imaginary_product(psi, lam, 2 * j), odd = imaginary_product(psi, lam, 2 * j + 1);
        z[0] += even - odd;
        p[j] = even + odd;
    }
#pragma unroll
    for (int b = 1; b < REGISTER_QUBITS; ++b) {
#pragma unroll
        for (int j = 0; j < NUM_REGISTERS >> (b + 1); ++j) {
            z[b] += p[2 * j] - p[2 * j + 1];
            p[j] = p[2 * j] + p[2 * j + 1];
        }
    }
#pragma unroll
    for (int b = 0; b < REGISTER_QUBITS; ++b) z[b] *= square;
    reduce_lanes(z, thread, entries + REGISTER_Z_ENTRY);
    // After a Walsh-Hadamard transform over the lanes, lane m holds the sum of p (-1)^popcount(lane & m).
    Real walsh = p[0] * square;
#pragma unroll
    for (int q = 0; q < LANE_QUBITS; ++q) {
        const Real other = __shfl_xor_sync(ALL_LANES, walsh, 1 << q);
        walsh = thread >> q & 1 ? other - walsh : other + walsh;
    }
    const int lane = thread & ((1 << LANE_QUBITS) - 1);
    if ((lane & (lane - 1)) == 0) entries[LANE_Z_ENTRY + __ffs(lane)] = walsh;
}

// The sums of all warps of one tile at one stage. Stages use two buffers in turn, so that one barrier for each stage is
// enough (see the end of the loop in backward_sweep).
struct SumBuffer {
    Real* entries;
    __device__ __forceinline__ Real* of_warp(int warp) const { return entries + warp * NUM_ENTRIES; }
    __device__ __forceinline__ Real total(int entry, int signs = 0) const {
        Real sum = 0;
#pragma unroll
        for (int warp = 0; warp < WARPS_PER_TILE; ++warp) {
            const Real value = entries[warp * NUM_ENTRIES + entry];
            sum += warp & signs ? -value : value;
        }
        return sum;
    }
};

// Add the sums of all warps of a tile, and store the sums of a stage.
__device__ __forceinline__ void store_sums(const SumBuffer& sums, const Stage& stage, bool sums_x, int z_partial,
                                           const Place& place, Real* partial) {
    // A tile may have a single thread, so a thread may store several sums.
    for (int k = place.thread; k < 2 * REGISTER_QUBITS + TILE_QUBITS + 1; k += THREADS_PER_TILE) {
        if (k < REGISTER_QUBITS) {
            if (stage.rotate >> k & 1) partial[stage.y_partial + k] = sums.total(Y_ENTRY + k);
            continue;
        }
        if (k < 2 * REGISTER_QUBITS) {
            const int b = k - REGISTER_QUBITS;
            // sum_tiles reads every sum, so a sum that run_gradients does not need is 0.
            if (!IS_REAL && stage.sum_x >> b & 1) partial[stage.x_partial + b] = sums_x ? sums.total(X_ENTRY + b) : 0;
            continue;
        }
        if (z_partial < 0) continue;
        const int bit = k - 2 * REGISTER_QUBITS, b = bit - stage.arrangement;
        const int thread_bit = bit < stage.arrangement ? bit : bit - REGISTER_QUBITS;
        Real sum;
        if (bit == TILE_QUBITS)
            sum = sums.total(LANE_Z_ENTRY);
        else if (b >= 0 && b < REGISTER_QUBITS)
            sum = sums.total(REGISTER_Z_ENTRY + b);
        else if (thread_bit < LANE_QUBITS)
            sum = sums.total(LANE_Z_ENTRY + 1 + thread_bit);
        else
            sum = sums.total(LANE_Z_ENTRY, 1 << (thread_bit - LANE_QUBITS));
        partial[z_partial + bit] = sum;
    }
}

// Replace values[m] by the sum over i of (-1)^popcount(i & m) values[i]. The 2^t values lie in the places of tile
// indices. All threads must have passed a barrier before the call, and have passed one when it returns.
__device__ __forceinline__ void walsh_hadamard(Real* values, const Place& place) {
    for (int first = 0; first < TILE_QUBITS; first += REGISTER_QUBITS) {
        const int arrangement = first < LOAD_ARRANGEMENT ? first : LOAD_ARRANGEMENT;
        Real v[NUM_REGISTERS];
        visit_places(values, place, arrangement, [&](int j, const Real* there) { v[j] = *there; });
#pragma unroll
        for (int b = 0; b < REGISTER_QUBITS; ++b) {
            if (arrangement + b < first) continue;  // the previous arrangement has transformed this bit
#pragma unroll
            for (int j = 0; j < NUM_REGISTERS; ++j) {
                if (j >> b & 1) continue;
                const Real sum = v[j] + v[j | 1 << b];
                v[j | 1 << b] = v[j] - v[j | 1 << b];
                v[j] = sum;
            }
        }
        visit_places(values, place, arrangement, [&](int j, Real* there) { *there = v[j]; });
        __syncthreads();
    }
}

// Sum p over a tile for masks of several bits (Walsh sums), and sum p g for a list of generators g. scratch holds 2^t
// numbers.
__device__ __forceinline__ void long_sums(const State& psi, const State& lam, const Piece& piece, const unsigned* masks,
                                          const Direct* directs, const Place& place, Real* scratch, Real* partial,
                                          Real square) {
    if (piece.walsh_partial >= 0) {
        __syncthreads();  // before this barrier, threads may still read scratch
        visit_places(scratch, place, piece.arrangement,
                     [&](int j, Real* there) { *there = imaginary_product(psi, lam, j) * square; });
        __syncthreads();
        walsh_hadamard(scratch, place);
        for (int k = piece.first_walsh + place.thread; k < piece.end_walsh; k += THREADS_PER_TILE)
            if (place.valid)
                partial[piece.walsh_partial + k - piece.first_walsh] = scratch[place_of(masks[k]) ^ skew(place)];
    }
#pragma unroll 1
    for (int k = piece.first_direct; k < piece.end_direct; ++k) {
        const RegisterMasks g =
            on_registers(directs[k].care, directs[k].value, directs[k].sign, place, piece.arrangement);
        Real sum[1] = {0};
#pragma unroll
        for (int j = 0; j < NUM_REGISTERS; ++j)
            if (g.matches && (j & g.care) == g.value)
                sum[0] += negate_if(imaginary_product(psi, lam, j) * square, g.odd + __popc(j & g.sign));
        __syncthreads();
        reduce_lanes(sum, place.thread, scratch + (place.thread >> LANE_QUBITS));
        __syncthreads();
        if (place.thread == 0 && place.valid) {
            Real total = 0;
            for (int warp = 0; warp < WARPS_PER_TILE; ++warp) total += scratch[warp];
            partial[piece.direct_partial + k - piece.first_direct] = total;
        }
    }
}

// The tile of a thread in shared memory, the sums of its warps, and the places of its sums in global memory.
struct BackwardMemory {
    Amplitude* tile;
    Real *entries, *partial;
    const unsigned* __restrict__ masks;
    const Direct* __restrict__ directs;
};

// Undo the rotations and the piece of stage s on psi and lam, and store the sums of the stage. With SCALED, rotations
// change `scale`, which times the registers of psi, and of lam, are their amplitudes.
template <bool SCALED, class Extras>
__device__ __forceinline__ void backward_stage(State& psi, State& lam, int s, const Stage& stage, const Piece& piece,
                                               const Extras& extras, const PassData& pass, const Place& here, int row,
                                               const BackwardMemory& memory, Real& scale) {
    const SumBuffer sums{memory.entries + (s & 1) * WARPS_PER_TILE * NUM_ENTRIES};
    Real* const mine = sums.of_warp(here.thread >> LANE_QUBITS);
    bool sums_x = false;
    int z_partial = -1;
    if (stage.rotate) {
        const Rotations coefficients{stage, pass.rotations, *pass.slots, row};
        Real y[WIDTH] = {}, x[WIDTH] = {};
        RotateBack<SCALED> back{psi, lam, coefficients, y, scale, false};
        for_each_bit(back);
        reduce_lanes(y, here.thread, mine + Y_ENTRY);
        // The tiles of one warp may belong to different rows, but all lanes must join the reduction.
        sums_x = !IS_REAL && __any_sync(ALL_LANES, back.sums_x);
        if (sums_x) {
            SumX sum{psi, lam, stage.sum_x, x, scale * scale};
            for_each_bit(sum);
            reduce_lanes(x, here.thread, mine + X_ENTRY);
        }
    }
    if (stage.piece >= 0) {
        if (!IS_REAL && (piece.walsh_partial >= 0 || piece.direct_partial >= 0))
            long_sums(psi, lam, piece, memory.masks, memory.directs, here, reinterpret_cast<Real*>(memory.tile),
                      memory.partial, scale * scale);
        z_partial = IS_REAL ? -1 : piece.z_partial;
        if (z_partial >= 0) reduce_z(psi, lam, here.thread, mine, scale * scale);
        apply_piece<true>(psi, &lam, piece, extras, pass.table(piece, row), here, scale);
    }
    // After this barrier the sums are complete, and the next stage may write the buffers of the exchange.
    __syncthreads();
    if (here.valid) store_sums(sums, stage, sums_x, z_partial, here, memory.partial);
}
