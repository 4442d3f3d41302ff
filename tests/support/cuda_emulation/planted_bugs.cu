// SPDX-License-Identifier: Apache-2.0
//
// Kernels with one error each, for tests/engines/cuda/test_emulation.py. The array x has 1024 numbers. Launches have
// blocks of at most 64 threads and 256 bytes of dynamic shared memory.

extern "C" __global__ void different_barriers(float* x) {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
    x[threadIdx.x] = 1;
}

extern "C" __global__ void return_before_barrier(float* x) {
    if (threadIdx.x >= 40) return;
    __syncthreads();
    x[threadIdx.x] = 1;
}

extern "C" __global__ void barrier_against_warp_barrier(float* x) {
    if (threadIdx.x & 1)
        __syncwarp();
    else
        __syncthreads();
    x[threadIdx.x] = 1;
}

extern "C" __global__ void mask_without_caller(float* x) {
    x[threadIdx.x] = __shfl_xor_sync(0xffffu, x[threadIdx.x], 1);
}

extern "C" __global__ void mask_with_absent_lanes(float* x) {
    if (threadIdx.x < 16) x[threadIdx.x] = __shfl_xor_sync(0xffffffffu, x[threadIdx.x], 1);
}

extern "C" __global__ void shuffle_from_outside_mask(float* x) {
    if (threadIdx.x < 16) x[threadIdx.x] = __shfl_xor_sync(0xffffu, x[threadIdx.x], 16);
}

extern "C" __global__ void different_collectives(float* x) {
    if (threadIdx.x & 1)
        x[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
    else
        x[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 2.0f, 1);
}

extern "C" __global__ void large_local_array(float* x) {
    volatile float values[20000];
    for (int i = 0; i < 20000; ++i) values[i] = x[threadIdx.x];
    x[threadIdx.x] = values[threadIdx.x];
}

extern "C" __global__ void unwritten_shared(float* x) {
    __shared__ float values[64];
    if (threadIdx.x < 32) values[threadIdx.x] = 1;
    __syncthreads();
    x[threadIdx.x] = values[threadIdx.x];
}

extern "C" __global__ void unwritten_dynamic_shared(float* x) {
    extern __shared__ float dynamic[];
    if (threadIdx.x < 32) dynamic[threadIdx.x] = 1;
    __syncthreads();
    x[threadIdx.x] = dynamic[threadIdx.x];
}

extern "C" __global__ void no_barrier_after_write(float* x) {
    __shared__ float values[64];
    values[threadIdx.x] = x[threadIdx.x];
    if (threadIdx.x % 2 == 0) x[threadIdx.x] = values[threadIdx.x ^ 32];
    values[threadIdx.x] = 0;
}

extern "C" __global__ void no_barrier_before_overwrite(float* x) {
    __shared__ float values[64];
    values[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    const float other = values[63 - threadIdx.x];
    values[threadIdx.x] = other;
    __syncthreads();
    x[threadIdx.x] = values[threadIdx.x];
}

extern "C" __global__ void no_warp_barrier(float* x) {
    extern __shared__ float dynamic[];
    dynamic[threadIdx.x] = x[threadIdx.x];
    __syncwarp();
    const float other = dynamic[threadIdx.x ^ 31];
    dynamic[threadIdx.x] = other;
    x[threadIdx.x] = dynamic[threadIdx.x];
}

extern "C" __global__ void shuffle_for_warp_barrier(float* x) {
    extern __shared__ float dynamic[];
    dynamic[threadIdx.x] = 0;
    __syncwarp();
    dynamic[threadIdx.x] = __shfl_xor_sync(0xffffffffu, x[threadIdx.x], 1);
    __ballot_sync(0xffffffffu, 1);
    x[threadIdx.x] = dynamic[threadIdx.x ^ 31];
}

extern "C" __global__ void same_output_of_blocks(float* x) {
    if (threadIdx.x == 0) x[0] = static_cast<float>(blockIdx.x);
}

extern "C" __global__ void read_of_other_block(float* x) {
    if (threadIdx.x == 0) x[blockIdx.x] = x[1 - blockIdx.x];
}

extern "C" __global__ void plain_write_beside_atomic(float* x) {
    if (blockIdx.x == 0)
        atomicAdd(&x[0], 1.0f);
    else
        x[0] = 2;
}

extern "C" __global__ void global_past_end(float* x) {
    x[threadIdx.x + 1024 - 63 * blockDim.x / 64] += 1;
}

extern "C" __global__ void global_before_begin(const float* x, float* y) {
    y[threadIdx.x] = x[static_cast<int>(threadIdx.x) - 1];
}

extern "C" __global__ void dynamic_shared_past_end(float* x) {
    extern __shared__ float dynamic[];
    dynamic[threadIdx.x + 1] = x[threadIdx.x];
}

extern "C" __global__ void null_pointer(float* x, const float* y) {
    x[threadIdx.x] = y[threadIdx.x];
}

extern "C" __global__ void misaligned_vector(float* x) {
    const float4 v = *reinterpret_cast<const float4*>(x + 1 + 4 * threadIdx.x);
    *reinterpret_cast<float4*>(x + 512 + 4 * threadIdx.x) = v;
}

extern "C" __global__ void shift_too_far(float* x) {
    x[threadIdx.x] = static_cast<float>(1 << (threadIdx.x + 1));
}

extern "C" __global__ void write_of_constant(float* x, const float* __restrict__ same) {
    x[threadIdx.x] = same[threadIdx.x] + 1;
}

extern "C" __global__ void unwritten_global(float* x, const double* unwritten) {
    x[threadIdx.x] = static_cast<float>(unwritten[threadIdx.x]);
}
