// SPDX-License-Identifier: Apache-2.0
//
// The mask of all lanes of a warp, and sums over the threads of a block.
//
// Launch contract: the block has a multiple of 32 threads, at most 1,024, and every thread calls block_sums.
// Determinism: a sum is a fixed tree over lanes, then over warps in order.
#pragma once

constexpr unsigned ALL_LANES = 0xffffffffu;

// Sum x over all threads whose number has the same remainder modulo LANES (a power of two, at most 32). Thread k of the
// first LANES threads returns the sum of remainder k; the result of the other threads is not used.
template <int LANES>
__device__ __forceinline__ double block_sums(double x) {
    __shared__ double sums[32 * LANES];
    for (int offset = 16; offset >= LANES; offset /= 2) x += __shfl_xor_sync(ALL_LANES, x, offset);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    __syncthreads();  // after this barrier, all threads have read the sums of the previous call
    if (lane < LANES) sums[warp * LANES + lane] = x;
    __syncthreads();
    if (threadIdx.x < LANES)
        for (int w = 1; w < blockDim.x / 32; ++w) x += sums[w * LANES + lane];
    return x;
}
