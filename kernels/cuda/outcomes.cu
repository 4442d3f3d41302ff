// SPDX-License-Identifier: Apache-2.0
//
// Probabilities of the outcomes of a measurement, and lam at the start of the backward sweep.
//
// Equation:
//   (P_k psi)[i] = psi[i] if outcome[i] = k, else 0; an amplitude with outcome -1 belongs to no outcome
//   value of a pair (row, k) = <psi|P_k|psi> = sum of |psi[i]|^2 over the list of k
//   lam[i] = weight[outcome[i]] psi[i], or 0 for outcome -1; lam is multiplied by i if `imaginary` is 1
// The list of k has all i with outcome[i] = k. A unit is a row, whose weights are the cotangents of its pairs, or a
// pair (row, k), which has weight 1 for outcome k and 0 for all others.
// Layout: psi [rows][2^N]; lam [units][2^N]; outcome [2^N]. order has the lists of all outcomes, one after the other,
// each of them ascending. lists [num_outcomes] has the place of each list. A long list is cut into parts, parts
// [num_parts]; then `lists` has the place of its parts. partial [rows][num_parts] in double has the sum of each part.
// The pairs are (row_of_pair[p], pair_outcome[p]); values and cotangents [pairs] in double. weights
// [rows][num_outcomes] are zeros before outcome_values; null means that units are pairs.
// Launch: 1-D, blocks of a multiple of 32 threads, exact grids. sum_parts takes one warp for each row and part,
// outcome_values 2^log_lanes threads for each pair, and outcome_adjoints one thread for each amplitude of a unit.
// Work: two multiply-adds (one for a real amplitude) and one addition in double for each entry of a list; two
// multiplications (one) for each amplitude of lam. The work of a row does not grow with outcomes times amplitudes.
// Traffic: an entry of a list takes 4 bytes of order and one amplitude. An amplitude of lam takes one amplitude, one
// outcome and one weight, which is mostly in a cache, and one amplitude is written.
// Determinism: the sum over a list is a fixed tree that depends on the lists only. There are no atomics.
// Source: kernels/README.md, section CUDA engine, Outcomes.
#include "cuda/amplitude.cuh"
#include "cuda/records.cuh"
#include "cuda/threads.cuh"

// Return this thread's share of the sum of |psi|^2 over some entries of order. Neighbouring threads, the lanes 0 ..
// num_lanes - 1, share the sum.
__device__ __forceinline__ double sum_of_lane(const Amplitude* psi, const unsigned* entries, int count, int lane,
                                              int num_lanes) {
    double sum = 0;
#pragma unroll 4  // the loads of four entries overlap
    for (int j = lane; j < count; j += num_lanes) {
        const Amplitude x = psi[entries[j]];
        sum += real_product(x, x);
    }
    return sum;
}

// Sum x over num_lanes neighbouring threads, a power of two up to 32. All threads of the warp call this function.
__device__ __forceinline__ double sum_over_lanes(double x, int num_lanes) {
    for (int offset = num_lanes / 2; offset; offset /= 2) x += __shfl_xor_sync(ALL_LANES, x, offset);
    return x;
}

extern "C" __global__ void sum_parts(const Amplitude* psi, int num_address_bits, int rows, const unsigned* order,
                                     const ListPart* parts, int num_parts, double* partial) {
    const long long task = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
    if (task >= static_cast<long long>(rows) * num_parts) return;  // a whole warp returns
    const ListPart part = parts[task % num_parts];
    const int lane = threadIdx.x % 32;
    psi += task / num_parts << num_address_bits;
    double sum = sum_of_lane(psi, order + part.begin, static_cast<int>(part.end - part.begin), lane, 32);
    sum = sum_over_lanes(sum, 32);
    if (lane == 0) partial[task] = sum;
}

extern "C" __global__ void outcome_values(const Amplitude* psi, int num_address_bits, const unsigned* order,
                                          const OutcomeList* lists, const double* partial, int num_parts,
                                          const int* row_of_pair, const int* pair_outcome, int num_pairs, int log_lanes,
                                          const double* cotangents, Real* weights, int num_outcomes, double* values) {
    const long long thread = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    const int num_lanes = 1 << log_lanes, lane = static_cast<int>(thread & (num_lanes - 1));
    const bool valid = thread >> log_lanes < num_pairs;
    // Threads beyond the last pair repeat it: all threads of a warp meet in sum_over_lanes.
    const int pair = valid ? static_cast<int>(thread >> log_lanes) : num_pairs - 1;
    const long long row = row_of_pair[pair];
    const OutcomeList list = lists[pair_outcome[pair]];
    const int count = static_cast<int>(list.end - list.begin);
    double sum = 0;
    if (list.has_parts) {
        const double* sums = partial + row * num_parts + list.begin;
        for (int j = lane; j < count; j += num_lanes) sum += sums[j];
    } else {
        sum = sum_of_lane(psi + (row << num_address_bits), order + list.begin, count, lane, num_lanes);
    }
    sum = sum_over_lanes(sum, num_lanes);
    if (!valid || lane) return;
    values[pair] = sum;
    if (weights) weights[row * num_outcomes + pair_outcome[pair]] = static_cast<Real>(cotangents[pair]);
}

extern "C" __global__ void outcome_adjoints(const Amplitude* psi, int num_address_bits, const int* outcome,
                                            const Real* weights, int num_outcomes, const int* row_of_pair,
                                            const int* pair_outcome, int units, int imaginary, Amplitude* lam) {
    const long long entry = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    const long long unit = entry >> num_address_bits, i = entry & ((1LL << num_address_bits) - 1);
    if (unit >= units) return;
    const long long row = weights ? unit : row_of_pair[unit];
    const int k = outcome[i];
    Real weight = 0;
    if (k >= 0) weight = weights ? weights[row * num_outcomes + k] : Real(k == pair_outcome[unit]);
    Amplitude result{};
    add_multiple(result, weight, psi[(row << num_address_bits) + i]);
    lam[entry] = imaginary ? times_i(result) : result;
}
