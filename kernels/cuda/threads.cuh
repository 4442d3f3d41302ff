// SPDX-License-Identifier: Apache-2.0
//
// Threads together: the mask of all lanes of a warp, and sums over the threads of a block.
#pragma once

constexpr unsigned ALL_LANES = 0xffffffffu;

// Sums x over the threads whose numbers agree modulo LANES, for thread numbers below LANES.
template <int LANES>
__device__ __forceinline__ double block_sums(double x) {
    __shared__ double sums[32 * LANES];
    for (int offset = 16; offset >= LANES; offset /= 2) x += __shfl_xor_sync(ALL_LANES, x, offset);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    __syncthreads();  // the sums of the previous call have been read
    if (lane < LANES) sums[warp * LANES + lane] = x;
    __syncthreads();
    if (threadIdx.x < LANES)
        for (int w = 1; w < blockDim.x / 32; ++w) x += sums[w * LANES + lane];
    return x;
}
