// SPDX-License-Identifier: Apache-2.0
//
// Expectation values, and lam at the start of the backward sweep.
//
// Equation:
//   (O psi)[i] = sum over groups of O of d[i] psi[i ^ flip]
//   d[i] = sum over terms of (re + i im) [(i & care) == value] (-1)^popcount(i & sign)
//   value = Re <psi|O|psi>
//   lam = O psi of each pair, or with cotangents lam = sum over the pairs of a row of cotangent * O psi;
//   lam is multiplied by i if `imaginary` is 1
// Layout: psi [rows][2^N]; lam [pairs][2^N], or [rows][2^N] with cotangents [pairs], or null: values only; diagonals
// [groups][2^N], or null: the kernel then computes d from the terms; partial [pairs][num_chunks] in double, with
// num_chunks = 2^N / min(2^N, 1024). The pairs of a row are row_begin[row] .. row_begin[row + 1] - 1; the groups of
// observable o are observable_begin[o] .. observable_begin[o + 1] - 1.
// Launch: 1-D, exact grids. observe takes rows * num_chunks blocks of 2^k threads, 32 <= 2^k <= 256; the best block has
// a quarter as many threads as a chunk has amplitudes. fill_diagonals takes ceil(2^N / block) blocks for each group,
// blocks of any size.
// Work per amplitude, pair and group: 4 multiply-adds and 2 additions. With null diagonals each term adds 2
// multiply-adds and one population count.
// Traffic per amplitude, pair and group: one amplitude and one number of a diagonal are read. lam is written once for
// each pair, or once for each row with cotangents. A flip permutes aligned blocks of 32 amplitudes and the amplitudes
// inside each block, so the reads of a warp coalesce.
// Determinism: the sum over a chunk is a fixed tree that depends on the number of threads only.
// Source: kernels/README.md, section CUDA engine.
#include "cuda/amplitude.cuh"
#include "cuda/records.cuh"
#include "cuda/threads.cuh"

constexpr int HELD = 4;  // Each thread holds 4 amplitudes at a time, so that their loads overlap.

extern "C" __global__ void fill_diagonals(const Group* groups, const ObservableTerm* terms, int num_address_bits,
                                          Amplitude* diagonals) {
    const Mask size = Mask(1) << num_address_bits;
    const unsigned blocks_per_group = static_cast<unsigned>((size + blockDim.x - 1) / blockDim.x);
    const unsigned g = blockIdx.x / blocks_per_group;
    const Mask i = static_cast<Mask>(blockIdx.x % blocks_per_group) * blockDim.x + threadIdx.x;
    if (i >= size) return;
    double re = 0, im = 0;
    for (int t = groups[g].first_term; t < groups[g].end_term; ++t) {
        const ObservableTerm& term = terms[t];
        const int sign = generator(term.care, term.value, term.sign, i);
        re += sign * term.re;
        im += sign * term.im;
    }
    set(diagonals[g * size + i], static_cast<Real>(re), static_cast<Real>(im));
}

// value[j] += d[index[j]] psi[index[j] ^ flip]
__device__ __forceinline__ void add_group(const Amplitude* psi, const Group& group, const ObservableTerm* terms,
                                          const Amplitude* diagonal, const Mask (&index)[HELD],
                                          Amplitude (&value)[HELD]) {
    Amplitude d[HELD];
#pragma unroll
    for (int j = 0; j < HELD; ++j) d[j] = diagonal ? diagonal[index[j]] : Amplitude{};
    if (!diagonal)
        for (int t = group.first_term; t < group.end_term; ++t) {
            const ObservableTerm& term = terms[t];
            Amplitude coefficient;
            set(coefficient, static_cast<Real>(term.re), static_cast<Real>(term.im));
#pragma unroll
            for (int j = 0; j < HELD; ++j) {
                const int sign = generator(term.care, term.value, term.sign, index[j]);
                add_multiple(d[j], static_cast<Real>(sign), coefficient);
            }
        }
#pragma unroll
    for (int j = 0; j < HELD; ++j) add_multiple(value[j], 1, multiply(d[j], psi[index[j] ^ group.flip]));
}

extern "C" __global__ void observe(const Amplitude* psi, Amplitude* lam, const int* row_begin,
                                   const int* pair_observable, const int* observable_begin, const Group* groups,
                                   const ObservableTerm* terms, const Amplitude* diagonals, const double* cotangents,
                                   int num_address_bits, int imaginary, double* partial) {
    const Mask size = Mask(1) << num_address_bits;
    const int chunk_size = size < OBSERVED_AMPLITUDES ? static_cast<int>(size) : OBSERVED_AMPLITUDES;
    const int num_chunks = static_cast<int>(size / chunk_size);
    const long long row = blockIdx.x / num_chunks;
    const int chunk = blockIdx.x % num_chunks;
    psi += row * size;

    for (int first = 0; first < chunk_size; first += HELD * blockDim.x) {
        Mask index[HELD];
        bool inside[HELD];
        Amplitude own[HELD], weighted[HELD];
#pragma unroll
        for (int j = 0; j < HELD; ++j) {
            const int local = first + j * blockDim.x + threadIdx.x;
            inside[j] = local < chunk_size;
            index[j] = static_cast<Mask>(chunk) * chunk_size + (inside[j] ? local : 0);
            own[j] = inside[j] ? psi[index[j]] : Amplitude{};  // an amplitude outside the chunk adds 0 to the value
            weighted[j] = Amplitude{};
        }
        for (long long pair = row_begin[row]; pair < row_begin[row + 1]; ++pair) {
            const int observable = pair_observable[pair];
            Amplitude value[HELD];
#pragma unroll
            for (int j = 0; j < HELD; ++j) value[j] = Amplitude{};
            for (long long g = observable_begin[observable]; g < observable_begin[observable + 1]; ++g)
                add_group(psi, groups[g], terms, diagonals ? diagonals + g * size : nullptr, index, value);

            double sum = 0;
#pragma unroll
            for (int j = 0; j < HELD; ++j) sum += real_product(own[j], value[j]);
            sum = block_sums<1>(sum);
            if (threadIdx.x == 0) {
                double& total = partial[pair * num_chunks + chunk];
                total = first == 0 ? sum : total + sum;
            }
            if (!lam) continue;
            const Real weight = cotangents ? static_cast<Real>(cotangents[pair]) : 1;
#pragma unroll
            for (int j = 0; j < HELD; ++j) {
                const Amplitude x = imaginary ? times_i(value[j]) : value[j];
                add_multiple(weighted[j], weight, x);
                if (!cotangents && inside[j]) lam[pair * size + index[j]] = x;
            }
        }
        if (!lam || !cotangents) continue;
#pragma unroll
        for (int j = 0; j < HELD; ++j)
            if (inside[j]) lam[row * size + index[j]] = weighted[j];
    }
}
