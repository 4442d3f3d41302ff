// SPDX-License-Identifier: Apache-2.0
//
// Products of a dense matrix on k target bits with the amplitudes of a state. Only sweeps.cpp includes this header.
//
// Equation: psi[base ^ offset[m]] <- sum over c of matrix[m][c] psi[base ^ offset[c]], for each group of 2^k
// amplitudes. Work: 2^k complex multiply-adds for each amplitude. A vector holds rows of the matrix, so the target bits
// may lie anywhere in the index, and a state of k bits fills the vectors too. The columns of four groups are multiplied
// together: one load of the matrix serves four groups.
// Determinism: the order of the additions of an amplitude is the order of the columns.
#pragma once

#include "cpu/simd/simd.hpp"
#include "cpu/simd/sweeps.hpp"
#include "shared/tuning.h"

namespace qf {
namespace QF_ISA {
namespace {

constexpr std::size_t most_rows = std::size_t(1) << MAX_DENSE_QUBITS;

template <class T, int Groups, bool Real>
void multiply_groups(const DenseProduct<T>& d, const index_t* offset, const index_t* base, T* re, T* im) {
    using S = Simd<T>;
    using V = typename S::V;
    constexpr int parts = Real ? 1 : 2;
    const std::size_t size = std::size_t(1) << d.num_targets, width = S::width;
    const std::size_t rows = size > width ? size : width;
    alignas(64) T in[most_rows * Groups * parts], out[(most_rows + S::width) * Groups * parts];
    for (std::size_t m = 0; m < size; ++m)
        for (int g = 0; g < Groups; ++g) {
            const index_t i = base[g] ^ offset[m];
            in[(m * Groups + g) * parts] = re[i];
            if constexpr (!Real) in[(m * Groups + g) * parts + 1] = im[i];
        }
    const T* matrix = d.panels;
    for (std::size_t row = 0; row < rows; row += width) {
        V sum_re[Groups] = {}, sum_im[Groups] = {};
        for (std::size_t m = 0; m < size; ++m, matrix += 2 * width) {
            const V a_re = S::load(matrix), a_im = S::load(matrix + width);
            const T* const x = in + m * Groups * parts;
            unroll<Groups>([&](auto g) QF_INLINE {
                const V x_re = S::splat(x[g * parts]);
                sum_re[g] += a_re * x_re;
                if constexpr (!Real) {
                    const V x_im = S::splat(x[g * parts + 1]);
                    sum_im[g] += a_im * x_re;
                    sum_re[g] -= a_im * x_im;
                    sum_im[g] += a_re * x_im;
                }
            });
        }
        unroll<Groups>([&](auto g) QF_INLINE {
            S::store(out + g * parts * rows + row, sum_re[g]);
            if constexpr (!Real) S::store(out + (g * parts + 1) * rows + row, sum_im[g]);
        });
    }
    for (int g = 0; g < Groups; ++g)
        for (std::size_t m = 0; m < size; ++m) {
            const index_t i = base[g] ^ offset[m];
            re[i] = out[g * parts * rows + m];
            if constexpr (!Real) im[i] = out[(g * parts + 1) * rows + m];
        }
}

template <class T, bool Real>
void multiply_range(const DenseProduct<T>& d, index_t begin, index_t end, T* re, T* im) {
    constexpr int at_once = 4;
    index_t next = 0;  // the bits of the number of the next group, put into the free bits
    for (index_t left = d.free, number = begin; left && number; left &= left - 1, number >>= 1)
        if (number & 1) next |= left & (~left + 1);
    auto next_base = [&] {
        const index_t base = d.places.at(next | d.value);
        next = ((next | ~d.free) + 1) & d.free;
        return base;
    };
    index_t offset[most_rows];
    for (std::size_t m = 0; m < std::size_t(1) << d.num_targets; ++m) offset[m] = d.places.at(d.offset[m] << d.shift);
    index_t base[at_once], group = begin;
    for (; group + at_once <= end; group += at_once) {
        for (index_t& entry : base) entry = next_base();
        multiply_groups<T, at_once, Real>(d, offset, base, re, im);
    }
    for (; group < end; ++group) {
        base[0] = next_base();
        multiply_groups<T, 1, Real>(d, offset, base, re, im);
    }
}

template <class T>
void multiply_dense(const DenseProduct<T>& d, index_t begin, index_t end, T* re, T* im) {
    im ? multiply_range<T, false>(d, begin, end, re, im) : multiply_range<T, true>(d, begin, end, re, im);
}

}  // namespace
}  // namespace QF_ISA
}  // namespace qf
