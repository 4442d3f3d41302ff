// SPDX-License-Identifier: Apache-2.0
//
// Packs of rows: from the rows of arrays to vectors with one number of each row, and back. Only packs.cpp includes this
// header. packs.hpp has the contracts.
//
// Method: squares of D::width rows and D::width columns, doubles, are transposed in registers. A row of amplitudes has
// two columns for each amplitude, its real part and its imaginary part.
#pragma once

#include "cpu/simd/packs.hpp"
#include "cpu/simd/simd.hpp"

namespace qf {
namespace QF_ISA {
namespace {

using D = Simd<double>;
using DV = D::V;
using DMask = D::Mask;

// Convert between a vector of doubles and as many numbers of the amplitudes.
template <class T>
QF_INLINE inline void store_as(T* p, DV v) {
    if constexpr (sizeof(T) == sizeof(double)) {
        D::store(p, v);
    } else {
        typedef T Part __attribute__((vector_size(D::width * sizeof(T))));
        *reinterpret_cast<Part*>(p) = __builtin_convertvector(v, Part);
    }
}
template <class Part>
QF_INLINE inline DV widen(Part v) {
    if constexpr (sizeof(Part) == sizeof(DV)) {
        return v;
    } else {
#if defined(__AVX512F__) && !defined(__clang__)
        return (DV)_mm512_maskz_cvtps_pd(0xff, (__m256)v);  // GCC 12 converts the halves of the vector
#else
        return __builtin_convertvector(v, DV);
#endif
    }
}
template <class T>
QF_INLINE inline DV load_as(const T* p) {
    typedef T Part __attribute__((vector_size(D::width * sizeof(T))));
    return widen(*reinterpret_cast<const Part*>(p));
}

inline bool all_finite(const double* numbers, std::size_t count) {
    constexpr std::size_t at_once = 4, ahead = 512;  // vectors whose sums do not wait for each other; numbers
    double rest = 0;                                 // sums of zeros, or NaN
    auto add_one = [&] {
        rest += *numbers++ * 0;
        --count;
    };
    while (count > 0 && reinterpret_cast<std::uintptr_t>(numbers) % sizeof(DV) != 0) add_one();
    DV zeros[at_once] = {};
    for (; count >= at_once * D::width; count -= at_once * D::width, numbers += at_once * D::width)
        unroll<at_once>([&](auto k) QF_INLINE {
            __builtin_prefetch(numbers + ahead + k * D::width);  // the hardware stops at the end of a page
            zeros[k] += D::load(numbers + k * D::width) * 0.0;
        });
    while (count > 0) add_one();
    return rest == 0 && D::sum((zeros[0] + zeros[1]) + (zeros[2] + zeros[3])) == 0;
}

// Return a vector that holds the numbers of two vectors, one after the other.
template <class Part, std::size_t... I>
QF_INLINE inline auto join(Part a, Part b, std::index_sequence<I...>) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(a, b, static_cast<int>(I)...);
#else
    typedef std::remove_reference_t<decltype(a[0])> Whole __attribute__((vector_size(2 * sizeof(Part))));
    const Part parts[2] = {a, b};
    Whole whole;
    __builtin_memcpy(&whole, parts, sizeof(whole));
    return whole;
#endif
}

// Call f with the number of parts as a compile-time constant.
template <class F>
QF_INLINE inline void with_parts(int parts, F&& f) {
    if (parts == 1)
        f(std::integral_constant<int, 1>{});
    else
        f(std::integral_constant<int, 2>{});
}

// Call f(j) for the first number j of each vector of doubles of a pack.
template <class T, class F>
QF_INLINE inline void for_each_part(F&& f) {
    for (int j = 0; j < Simd<T>::width; j += D::width) f(j);
}

// Return the numbers of vectors of doubles as one vector of W numbers of the amplitudes.
template <class T>
QF_INLINE inline typename Simd<T>::V narrow(const DV* v) {
    if constexpr (sizeof(T) == sizeof(double)) {
        return v[0];
    } else {
        typedef T Part __attribute__((vector_size(D::width * sizeof(T))));
        const Part parts[2] = {__builtin_convertvector(v[0], Part), __builtin_convertvector(v[1], Part)};
        return join(parts[0], parts[1], std::make_index_sequence<2 * D::width>{});
    }
}
// Return the low words (High = 0) or the high words (High = 1) of two vectors of 64-bit integers as one vector.
template <class T, int High, std::size_t... I>
QF_INLINE inline typename Simd<T>::Mask words(const DMask* v, std::index_sequence<I...>) {
    using Mask = typename Simd<T>::Mask;
#if defined(__clang__)
    return __builtin_shufflevector((Mask)v[0], (Mask)v[1], static_cast<int>(2 * I + High)...);
#else
    return __builtin_shuffle((Mask)v[0], (Mask)v[1], Mask{static_cast<std::int32_t>(2 * I + High)...});
#endif
}
template <class T, int High>
QF_INLINE inline typename Simd<T>::Mask words(const DMask* v) {
    return words<T, High>(v, std::make_index_sequence<Simd<T>::width>{});
}
// Call f(j, v) for each vector of doubles of a pack: its first number j and its numbers v.
template <class T, class F>
QF_INLINE inline void for_each_double(typename Simd<T>::V v, F&& f) {
    typedef T Part __attribute__((vector_size(D::width * sizeof(T))));
    constexpr int n = sizeof(v) / sizeof(Part);
    Part parts[n];
    __builtin_memcpy(parts, &v, sizeof(parts));
    unroll<n>([&](auto i) QF_INLINE { f(i * D::width, widen(parts[i])); });
}

// Exchange bit Step of the row with bit Step of the column, in a square matrix with one row for each vector.
template <int Step, std::size_t... I>
QF_INLINE inline void exchange(DV& a, DV& b, std::index_sequence<I...>) {
    constexpr int n = D::width;
#if defined(__clang__)
    const DV low = __builtin_shufflevector(a, b, static_cast<int>(I & Step ? n + (I ^ Step) : I)...);
    const DV high = __builtin_shufflevector(a, b, static_cast<int>(I & Step ? n + I : I | Step)...);
#else
    const DV low = __builtin_shuffle(a, b, DMask{static_cast<std::int64_t>(I & Step ? n + (I ^ Step) : I)...});
    const DV high = __builtin_shuffle(a, b, DMask{static_cast<std::int64_t>(I & Step ? n + I : I | Step)...});
#endif
    a = low;
    b = high;
}
QF_INLINE inline void transpose(DV* v) {
    unroll<D::lane_bits>([&](auto bit) QF_INLINE {
        unroll<D::width>([&](auto i) QF_INLINE {
            if constexpr (!(i >> bit & 1))
                exchange<1 << bit>(v[i], v[i | 1 << bit], std::make_index_sequence<D::width>{});
        });
    });
}

// Call f(first, j, n) for squares of the rows j .. j + D::width - 1 and the columns first .. first + n - 1. n is
// D::width, a constant of the compiler, or less in the last square of these rows.
template <class T, class F>
QF_INLINE inline void for_each_square(int num_columns, F&& f) {
    for_each_part<T>([&](int j) QF_INLINE {
        int first = 0;
        for (; first + D::width <= num_columns; first += D::width) f(first, j, std::integral_constant<int, D::width>{});
        if (first < num_columns) f(first, j, num_columns - first);
    });
}

// v[i] <- column number i of a square of n columns, from rows[row][column].
template <class N>
QF_INLINE inline void read_square(const double* const* rows, int first, N n, DV* v) {
    unroll<D::width>([&](auto i) QF_INLINE {
        DV row{};
        __builtin_memcpy(&row, rows[i] + first, n * sizeof(double));
        v[i] = row;
    });
    transpose(v);
}
// rows[row][column] <- a square of n columns v[i], for the rows that are not null.
template <class Out, class N>
QF_INLINE inline void write_square(DV* v, int first, N n, Out* const* rows) {
    transpose(v);
    unroll<D::width>([&](auto i) QF_INLINE {
        Out row[D::width];
        store_as(row, v[i]);
        if (rows[i]) __builtin_memcpy(rows[i] + first, row, n * sizeof(Out));
    });
}

// Call f(first, j, n) for squares of the rows j .. j + D::width - 1 and the columns first .. first + n - 1, which may
// overlap. If the rows have whole squares, n is D::width, a constant of the compiler. If all rows begin at the same
// place of a vector, all squares but the first and the last begin at aligned addresses: arrays of NumPy are aligned to
// 16 bytes, and a vector that lies in two cache lines takes twice the time.
template <class T, class Row, class F>
QF_INLINE inline void for_each_square_of_columns(int num_columns, const Row* row, F&& f) {
    constexpr std::integral_constant<int, D::width> whole;
    const int place = static_cast<int>(reinterpret_cast<std::uintptr_t>(row) / sizeof(double) % whole);
    const int first_aligned = place > 0 && num_columns % whole == 0 ? whole - place : 0;
    for_each_part<T>([&](int j) QF_INLINE {
        if (num_columns < whole) return f(0, j, num_columns);
        if (first_aligned > 0) f(0, j, whole);
        int first = first_aligned;
        for (; first + whole <= num_columns; first += whole) f(first, j, whole);
        if (first < num_columns) f(num_columns - whole, j, whole);
    });
}

template <class T>
bool load_columns(const double* rows, int num_columns, int count, const char* wanted, double* out) {
    constexpr int W = Simd<T>::width;
    const double* row[W];
    for (int j = 0; j < W; ++j) row[j] = rows + static_cast<std::size_t>(j < count ? j : count - 1) * num_columns;
    DV zeros[2] = {};  // sums of zeros, or NaN
    for_each_square_of_columns<T>(num_columns, rows, [&](int first, int j, auto n) QF_INLINE {
        index_t marks = 0;
        __builtin_memcpy(&marks, wanted + first, n);
        if (!marks) return;
        DV v[D::width];
        read_square(row + j, first, n, v);
        unroll<D::width>([&](auto i) QF_INLINE {
            if (i < n) D::store(out + (first + i) * W + j, v[i]);
            zeros[i % 2] += v[i] * 0.0;
        });
    });
    return D::sum(zeros[0] + zeros[1]) == 0;
}

template <class T>
void store_columns(const double* gradient, int num_columns, double* const* rows) {
    constexpr int W = Simd<T>::width;
    const double* some = nullptr;
    for (int j = 0; j < W && !some; ++j) some = rows[j];
    for_each_square_of_columns<T>(num_columns, some, [&](int first, int j, auto n) QF_INLINE {
        DV v[D::width];
        unroll<D::width>([&](auto i) QF_INLINE { v[i] = i < n ? D::load(gradient + (first + i) * W + j) : DV{}; });
        write_square(v, first, n, rows + j);
    });
}

template <class T, int Parts>
void load_states_of(int bits, const double* const* rows, const double* factor, T* state, const T* psi,
                    double* overlap) {
    constexpr int W = Simd<T>::width;
    for (int j = 0; psi && j < W; ++j) overlap[j] = 0;
    for_each_square<T>(2 << bits, [&](int first, int j, auto n) QF_INLINE {
        const DV fr = factor ? D::load(factor + j) : D::splat(1), fi = factor ? D::load(factor + W + j) : DV{};
        DV v[D::width], sum{};
        read_square(rows + j, first, n, v);
        unroll<D::width / 2>([&](auto i) QF_INLINE {
            if (2 * i >= n) return;
            const DV re = v[2 * i] * fr - v[2 * i + 1] * fi, im = v[2 * i] * fi + v[2 * i + 1] * fr;
            const std::size_t at = (first / 2 + i) * std::size_t(Parts * W) + j;
            store_as(state + at, re);
            if (Parts == 1) return;
            store_as(state + at + W, im);
            if (psi) sum += re * load_as(psi + at + W) - im * load_as(psi + at);
        });
        if (psi) D::store(overlap + j, D::load(overlap + j) + sum);
    });
}
template <class T>
void load_states(int bits, int parts, const double* const* rows, const double* factor, T* state, const T* psi,
                 double* overlap) {
    with_parts(parts, [&](auto p) { load_states_of<T, p>(bits, rows, factor, state, psi, overlap); });
}

template <class T, int Parts, class Out>
void store_states_of(int bits, const T* state, const double* factor, Out* const* rows) {
    constexpr int W = Simd<T>::width;
    for_each_square<T>(2 << bits, [&](int first, int j, auto n) QF_INLINE {
        const DV fr = D::load(factor + j), fi = D::load(factor + W + j);
        DV v[D::width] = {};
        unroll<D::width / 2>([&](auto i) QF_INLINE {
            if (2 * i >= n) return;
            const std::size_t at = (first / 2 + i) * std::size_t(Parts * W) + j;
            const DV re = load_as(state + at), im = Parts == 2 ? load_as(state + at + (Parts - 1) * W) : DV{};
            v[2 * i] = re * fr - im * fi;
            v[2 * i + 1] = re * fi + im * fr;
        });
        write_square(v, first, n, rows + j);
    });
}
template <class T, class Out>
void store_states(int bits, int parts, const T* state, const double* factor, Out* const* rows) {
    with_parts(parts, [&](auto p) { store_states_of<T, p>(bits, state, factor, rows); });
}

}  // namespace
}  // namespace QF_ISA
}  // namespace qf
