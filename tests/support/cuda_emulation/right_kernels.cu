// SPDX-License-Identifier: Apache-2.0
//
// Kernels without errors, and access patterns with known costs, for tests/engines/cuda/test_emulation.py.
#ifndef BLOCK
#define BLOCK 64
#endif

constexpr unsigned FULL_WARP = 0xffffffffu;

// y[b] = sum of block b of x: shuffles, static and dynamic shared memory, and a barrier.
extern "C" __global__ void __launch_bounds__(BLOCK, 2) block_sums(const float* __restrict__ x, double* y) {
    extern __shared__ __align__(16) double sums[];
    double sum = __ldg(x + blockIdx.x * blockDim.x + threadIdx.x);
    for (int step = 16; step; step >>= 1) sum += __shfl_down_sync(FULL_WARP, sum, step);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (unsigned warp = 1; warp < blockDim.x / 32; ++warp) sum += sums[warp];
    y[blockIdx.x] = sum;
}

// Swap x[i] and x[i ^ 32] inside a block, three times through the same shared memory.
extern "C" __global__ void __launch_bounds__(64) swap_halves(float* x) {
    __shared__ float values[64];
    float* const mine = x + blockIdx.x * 64 + threadIdx.x;
    for (int turn = 0; turn < 3; ++turn) {
        values[threadIdx.x] = *mine;
        __syncthreads();
        *mine = values[threadIdx.x ^ 32];
        __syncthreads();
    }
}

extern "C" __global__ void warp_barriers(float* x) {
    __shared__ float values[64];
    values[threadIdx.x] = x[threadIdx.x];
    __syncwarp();
    const float other = values[threadIdx.x ^ 31];
    __syncwarp();
    values[threadIdx.x] = other;
    x[threadIdx.x] = values[threadIdx.x];
}

extern "C" __global__ void half_warps(float* x) {
    float value = x[threadIdx.x];
    if (threadIdx.x % 32 < 16)
        value = __shfl_xor_sync(0x0000ffffu, value, 8);
    else
        value = __shfl_xor_sync(0xffff0000u, value, 8);
    if (__any_sync(FULL_WARP, value < 0)) value = -1;
    x[threadIdx.x] = value;
}

extern "C" __global__ void count_blocks(unsigned* count) {
    if (threadIdx.x == 0) atomicAdd(count, 1u);
}

struct Record {
    long long number;
    int kind, unused;
};

extern "C" __global__ void take_arguments(double* out, const Record* records, int count, long long offset, float scale,
                                          bool negative) {
    const int i = threadIdx.x;
    if (i < count) out[i] = (negative ? -scale : scale) * static_cast<double>(records[i].number + offset);
}

extern "C" __global__ void add_optional(float* x, const float* y) {
    if (y) x[threadIdx.x] += y[threadIdx.x];
}

extern "C" __global__ void copy_unwritten_shared(float* x) {
    __shared__ float values[64];
    extern __shared__ float dynamic[];
    if (threadIdx.x == 0) values[0] = dynamic[0] = 1;
    x[threadIdx.x] = values[threadIdx.x];
    x[64 + threadIdx.x] = dynamic[threadIdx.x];
}

// ---- access patterns of one warp
extern "C" __global__ void copy_rows(float* x) {
    x[threadIdx.x] = x[threadIdx.x + 512];
}
extern "C" __global__ void copy_strided(float* x) {
    x[threadIdx.x] = x[threadIdx.x * 32];
}
extern "C" __global__ void copy_vectors(float* x) {
    float4* const vectors = reinterpret_cast<float4*>(x);
    vectors[threadIdx.x] = vectors[threadIdx.x + 64];
}

// Thread t sums row t of a matrix of 32 x 32 numbers in shared memory. Rows lie ROW numbers apart: with 32 all threads
// read one bank at a time, with 33 they read different banks.
template <int ROW>
__device__ __forceinline__ void sum_columns(float* x, float* matrix) {
    const int t = threadIdx.x;
    float sum = 0;
    for (int i = 0; i < 32; ++i) matrix[i * ROW + t] = x[i * 32 + t];
    __syncthreads();
    for (int i = 0; i < 32; ++i) sum += matrix[t * ROW + i];
    x[t] = sum;
}
extern "C" __global__ void sum_columns_with_conflicts(float* x) {
    __shared__ float matrix[32 * 32];
    sum_columns<32>(x, matrix);
}
extern "C" __global__ void sum_columns_padded(float* x) {
    __shared__ float matrix[32 * 33];
    sum_columns<33>(x, matrix);
}
extern "C" __global__ void swap_vectors_in_shared(float* x) {
    __shared__ float4 vectors[32];
    vectors[threadIdx.x] = reinterpret_cast<float4*>(x)[threadIdx.x];
    __syncwarp();
    x[threadIdx.x] = vectors[threadIdx.x ^ 1].x;
}
