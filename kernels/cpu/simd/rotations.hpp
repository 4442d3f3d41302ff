// SPDX-License-Identifier: Apache-2.0
//
// Rotations of one or two states, and the sums of their adjoints. Only sweeps.cpp includes this header. The contracts
// are in sweeps.hpp. A real state has a null pointer for im.
#pragma once

#include <type_traits>
#include <utility>

#include "cpu/simd/simd.hpp"
#include "cpu/simd/sweeps.hpp"
#include "shared/tuning.h"

namespace qf {
namespace QF_ISA {
namespace {

template <class T, int K>
struct PlacedRows;

// K strided rotations of 2^K vectors. If bit j of Flips is 1, rotation j is T(tau) X, else T(tau).
template <class T, int K, int Flips>
struct Rotator {
    using S = Simd<T>;
    using V = typename S::V;
    V tau[K];

    QF_INLINE explicit Rotator(const Rotation<T>* rotations) {
        unroll<K>([&](auto j) QF_INLINE { tau[j] = S::splat(rotations[j].tau); });
    }
    template <class Rows>
    QF_INLINE void load(const T* p, const Rows& rows, V* a) const {
        const T* const pairs[2] = {p, p + rows.first};
        unroll<1 << K>([&](auto r) QF_INLINE { a[r] = S::load_once(pairs[r & 1] + rows.offset[r >> 1]); });
    }
    template <class Rows>
    QF_INLINE void store(T* p, const Rows& rows, const V* a) const {
        T* const pairs[2] = {p, p + rows.first};
        unroll<1 << K>([&](auto r) QF_INLINE { S::store(pairs[r & 1] + rows.offset[r >> 1], a[r]); });
    }
    QF_INLINE void load(const T* p, const PlacedRows<T, K>& rows, V* a) const {
        unroll<1 << K>([&](auto r) QF_INLINE { a[r] = S::load_once(p + rows.offset[r]); });
    }
    QF_INLINE void store(T* p, const PlacedRows<T, K>& rows, const V* a) const {
        unroll<1 << K>([&](auto r) QF_INLINE { S::store(p + rows.offset[r], a[r]); });
    }
    QF_INLINE void apply(V* a) const {
        unroll<K>([&](auto j) QF_INLINE {
            unroll<1 << K>([&](auto r) QF_INLINE {
                if constexpr (!(r >> j & 1)) {
                    const V a0 = a[r], a1 = a[r | 1 << j];
                    if constexpr (Flips >> j & 1) {
                        a[r] = a1 - tau[j] * a0;
                        a[r | 1 << j] = a0 + tau[j] * a1;
                    } else {
                        a[r] = a0 - tau[j] * a1;
                        a[r | 1 << j] = a1 + tau[j] * a0;
                    }
                }
            });
        });
    }
};

inline int bit_count(index_t x) {
    int count = 0;
    for (; x; x &= x - 1) ++count;
    return count;
}

// The blocks of 2^bits neighbouring amplitudes of a range, one after the other. The fixed bits of a block number are
// filled with ones, so a carry passes through them.
struct Blocks {
    const Range& range;
    int bits;
    index_t fixed, value;     // over the number of a block
    index_t left, place = 0;  // blocks from the current one on; the current number without the fixed bits

    Blocks(const Range& range, int bits)
        : range(range), bits(bits), fixed(range.fixed >> bits), value(range.value >> bits) {
        left = index_t(1) << (range.num_bits - bits - bit_count(fixed));
    }
    index_t number() const { return place | value; }
    // Return the places of the first amplitude of the block, and after its last one.
    index_t first() const { return range.at(number() << bits); }
    index_t end() const { return first() + (index_t(1) << bits); }
    void next() {
        place = ((place | fixed) + 1) & ~fixed;
        --left;
    }
};

// Cut a range into as few blocks as possible.
inline Blocks pieces_of(const Range& range) {
    int bits = 0;
    const int end = range.places.of_high ? range.places.shift : range.num_bits;
    while (bits < end && !(range.fixed >> bits & 1)) ++bits;
    return {range, bits};
}

// The places of the 2^K vectors of each step: an index in which the bits of the rotations are 0, and pairs of vectors
// whose indices differ in the bit of rotations[0].
template <class T, int K>
struct Rows {
    index_t count, holes, first, offset[1 << (K - 1)];
    index_t value, index = 0;  // the fixed bits; the index of the current step without them

    Rows(const Range& range, const Rotation<T>* rotations) : value(range.value) {
        count = index_t(1) << (range.num_bits - bit_count(range.fixed) - K - Simd<T>::lane_bits);
        holes = range.fixed;
        for (int j = 0; j < K; ++j) holes |= index_t(1) << rotations[j].bit;
        first = index_t(1) << rotations[0].bit;
        offset[0] = 0;
        for (int j = 1; j < K; ++j)
            for (int r = 0; r < 1 << (j - 1); ++r)
                offset[r | 1 << (j - 1)] = offset[r] + (index_t(1) << rotations[j].bit);
    }
    // The holes are filled with ones, so a carry passes through them.
    QF_INLINE void next() { index = ((index | holes) + Simd<T>::width) & ~holes; }
};

// The same for a range whose amplitudes lie at other places. offset[r] is the place of row r without the bits of the
// index below `places.shift`. The places change with the bits from there on only, which differ in few steps.
template <class T, int K>
struct PlacedRows {
    const Range& range;
    index_t count, holes, all, below, row[1 << K], offset[1 << K];
    index_t value = 0, index = 0, number = 0;  // index: the bits of `number` below `shift`

    PlacedRows(const Range& range, const Rotation<T>* rotations)
        : range(range), all((index_t(1) << range.num_bits) - 1), below((index_t(1) << range.places.shift) - 1) {
        const Rows<T, K> rows(range, rotations);
        count = rows.count, holes = rows.holes;
        for (int r = 0; r < 1 << K; ++r) row[r] = rows.offset[r >> 1] + (r & 1 ? rows.first : 0);
        find_places();
    }
    void find_places() {
        for (int r = 0; r < 1 << K; ++r) offset[r] = range.at(((number | range.value) & ~below) | row[r]);
        index = (number | range.value) & below;
    }
    QF_INLINE void next() {
        const index_t before = number;
        number = ((number | holes) + Simd<T>::width) & ~holes & all;  // the step after the last one is the first again
        if ((before ^ number) >> range.places.shift) return find_places();
        index = (number | range.value) & below;
    }
};

template <class T, int K, class R, int Flips>
void rotate_strided(const Range& range, const Rotation<T>* rotations, T* re, T* im) {
    using S = Simd<T>;
    const Rotator<T, K, Flips> rotator(rotations);
    R rows(range, rotations);
    re += rows.value;
    if (im) im += rows.value;
    for (index_t step = 0; step < rows.count; ++step, rows.next()) {
        typename S::V a[1 << K];
        rotator.load(re + rows.index, rows, a);
        rotator.apply(a);
        rotator.store(re + rows.index, rows, a);
        if (!im) continue;
        rotator.load(im + rows.index, rows, a);
        rotator.apply(a);
        rotator.store(im + rows.index, rows, a);
    }
}

template <class T>
int flips_of(const Rotation<T>* rotations, int count) {
    int flips = 0;
    for (int j = 0; j < count; ++j) flips |= rotations[j].flip << j;
    return flips;
}

template <class T, int K, class R, int... Flips>
void rotate_strided(const Range& range, const Rotation<T>* rotations, T* re, T* im,
                    std::integer_sequence<int, Flips...>) {
    using Function = void (*)(const Range&, const Rotation<T>*, T*, T*);
    static constexpr Function table[] = {rotate_strided<T, K, R, Flips>...};
    table[flips_of(rotations, K)](range, rotations, re, im);
}

// The number of vector registers decides how many qubits one pass rotates. 32 registers (AVX-512, NEON) hold 16 vectors
// of one state, or real and imaginary parts of psi and lam for two qubits. 16 registers (AVX2, SSE2) hold half as many.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int max_rotate = WIDEST_BLOCK_QUBITS, max_adjoint = 3, max_adjoint_with_x = 2, max_sums = 3,
              max_sums_with_x = 2;
constexpr int vectors_at_once = 2;  // vectors of each array that phase_adjoint() takes together
#else
constexpr int max_rotate = 3, max_adjoint = 2, max_adjoint_with_x = 1, max_sums = 2, max_sums_with_x = 1;
constexpr int vectors_at_once = 1;
#endif

// Call f with `count`, 1 to Max, as a compile-time constant.
template <int Max, class F>
QF_INLINE inline void with_constant(int count, F&& f) {
    unroll<Max>([&](auto k) QF_INLINE {
        if (count == k + 1) f(std::integral_constant<int, k + 1>{});
    });
}

template <class T>
void rotate(const Range& range, const Rotation<T>* rotations, int count, T* re, T* im) {
    with_constant<max_rotate>(count, [&](auto k) {
        constexpr std::make_integer_sequence<int, 1 << k> flips;
        if (range.places.of_high)
            rotate_strided<T, k, PlacedRows<T, k>>(range, rotations, re, im, flips);
        else
            rotate_strided<T, k, Rows<T, k>>(range, rotations, re, im, flips);
    });
}

// At most 512 steps are summed in the format of the amplitudes; these partial sums are then added in double. In single
// precision a long sum of equal numbers loses digits with its length.
constexpr index_t steps_per_sum = 512;
inline index_t end_of_sum(index_t begin, index_t end, index_t length) {
    return end - begin < length ? end : begin + length;
}

// Add to y[j] the sum over pairs of amplitudes (0, 1) of qubit j of lam_1 psi_0, and to z[j] the sum of lam_0 psi_1,
// for the real parts or for the imaginary parts. y[j] - z[j] of both parts is Im<lam|Y_j|psi>.
template <class T, int K>
QF_INLINE inline void add_y(const typename Simd<T>::V* psi, const typename Simd<T>::V* lam, typename Simd<T>::V* y,
                            typename Simd<T>::V* z) {
    unroll<1 << K>([&](auto r) QF_INLINE {
        unroll<K>([&](auto j) QF_INLINE {
            if constexpr (!(r >> j & 1)) {
                y[j] += lam[r | 1 << j] * psi[r];
                z[j] += lam[r] * psi[r | 1 << j];
            }
        });
    });
}

// Whether an adjoint rotates psi and lam (`both`), lam alone after its sums (`lam`), or no state (`none`).
enum class Moves { both, lam, none };

template <class T, int K, class Places, bool WithX, Moves M, int Flips>
void rotate_strided_adjoint(const Range& range, const Rotation<T>* rotations, T* psi_re, T* psi_im, T* lam_re,
                            T* lam_im, double* sums) {
    using S = Simd<T>;
    using V = typename S::V;
    constexpr int Parts = M == Moves::both && K < 3 ? 1 : 2;  // real and imaginary parts are summed apart if it is 2
    const Rotator<T, K, Flips> rotator(rotations);
    Places rows(range, rotations);
    auto load = [&](T* part, V* a) QF_INLINE {
        rotator.load(part, rows, a);
        if constexpr (M != Moves::both) return;
        rotator.apply(a);
        rotator.store(part, rows, a);
    };
    auto turn_lam = [&](T* part, V* a) QF_INLINE {
        if constexpr (M != Moves::lam) return;
        rotator.apply(a);
        rotator.store(part, rows, a);
    };
    psi_re += rows.value, lam_re += rows.value;
    if (psi_im) psi_im += rows.value, lam_im += rows.value;
    for (int j = 0; j < K; ++j) sums[2 * j] = sums[2 * j + 1] = 0;
    for (index_t step = 0; step < rows.count;) {
        const index_t stop = end_of_sum(step, rows.count, steps_per_sum);
        // An addition waits for the addition before it to the same vector, so the sums of Y are spread over 2 or 4
        // vectors for each rotation.
        V y[Parts * K] = {}, z[Parts * K] = {}, x[K] = {};
        for (; step < stop; ++step, rows.next()) {
            const index_t i = rows.index;
            V p[1 << K], l[1 << K];
            load(psi_re + i, p);
            load(lam_re + i, l);
            add_y<T, K>(p, l, y, z);
            if (!psi_im) {
                turn_lam(lam_re + i, l);
                continue;
            }
            V q[1 << K], m[1 << K];
            if constexpr (!WithX) turn_lam(lam_re + i, l);
            load(psi_im + i, q);
            load(lam_im + i, m);
            add_y<T, K>(q, m, y + (Parts - 1) * K, z + (Parts - 1) * K);
            if constexpr (WithX) {
                unroll<K>([&](auto j) QF_INLINE {
                    unroll<1 << K>([&](auto r) QF_INLINE {
                        x[j] += l[r] * q[r ^ 1 << j];
                        x[j] -= m[r] * p[r ^ 1 << j];
                    });
                });
                turn_lam(lam_re + i, l);
            }
            turn_lam(lam_im + i, m);
        }
        for (int j = 0; j < K; ++j) {
            V sum = y[j] - z[j];
            if constexpr (Parts == 2) sum += y[K + j] - z[K + j];
            sums[2 * j] += S::sum(sum);
            if (WithX) sums[2 * j + 1] += S::sum(x[j]);
        }
    }
}

template <class T, int K, class Places, bool WithX, Moves M, int... Flips>
void rotate_strided_adjoint(const Range& range, const Rotation<T>* rotations, T* psi_re, T* psi_im, T* lam_re,
                            T* lam_im, double* sums, std::integer_sequence<int, Flips...>) {
    using Function = void (*)(const Range&, const Rotation<T>*, T*, T*, T*, T*, double*);
    static constexpr Function table[] = {rotate_strided_adjoint<T, K, Places, WithX, M, Flips>...};
    table[M != Moves::none ? flips_of(rotations, K) : 0](range, rotations, psi_re, psi_im, lam_re, lam_im, sums);
}

// Call the loop for `count` rotations, of at most Most, or MostWithX with sums of X.
template <class T, Moves M, int Most, int MostWithX>
void choose_adjoint(const Range& range, const Rotation<T>* rotations, int count, bool with_x, T* psi_re, T* psi_im,
                    T* lam_re, T* lam_im, double* sums) {
    auto run = [&](auto k, auto x) {
        constexpr std::make_integer_sequence<int, M != Moves::none ? 1 << k : 1> flips;
        if (range.places.of_high)
            rotate_strided_adjoint<T, k, PlacedRows<T, k>, x, M>(range, rotations, psi_re, psi_im, lam_re, lam_im, sums,
                                                                 flips);
        else
            rotate_strided_adjoint<T, k, Rows<T, k>, x, M>(range, rotations, psi_re, psi_im, lam_re, lam_im, sums,
                                                           flips);
    };
    if (with_x)
        with_constant<MostWithX>(count, [&](auto k) { run(k, std::true_type{}); });
    else
        with_constant<Most>(count, [&](auto k) { run(k, std::false_type{}); });
}

template <class T>
void rotate_adjoint(const Range& range, const Rotation<T>* rotations, int count, bool with_x, T* psi_re, T* psi_im,
                    T* lam_re, T* lam_im, double* sums) {
    choose_adjoint<T, Moves::both, max_adjoint, max_adjoint_with_x>(range, rotations, count, with_x, psi_re, psi_im,
                                                                    lam_re, lam_im, sums);
}

template <class T>
void rotation_sums(const Range& range, const Rotation<T>* rotations, int count, bool with_x, bool moves_lam, T* psi_re,
                   T* psi_im, T* lam_re, T* lam_im, double* sums) {
    const auto function = moves_lam ? choose_adjoint<T, Moves::lam, max_sums, max_sums_with_x>
                                    : choose_adjoint<T, Moves::none, max_sums, max_sums_with_x>;
    function(range, rotations, count, with_x, psi_re, psi_im, lam_re, lam_im, sums);
}

// Rotations of all lane qubits at once. mode[b] is 0 without a rotation of lane bit b, 1 for T(tau), 2 for T(tau) X.
template <class T>
struct Lanes {
    using S = Simd<T>;
    using V = typename S::V;
    int mode[S::lane_bits > 0 ? S::lane_bits : 1] = {};
    V tau[S::lane_bits > 0 ? S::lane_bits : 1] = {};

    Lanes(const Rotation<T>* rotations, int count) {
        for (int j = 0; j < count; ++j) {
            mode[rotations[j].bit] = rotations[j].flip ? 2 : 1;
            tau[rotations[j].bit] = S::by_bit(rotations[j].bit, -rotations[j].tau, rotations[j].tau);
        }
    }

    template <int Bit, int N>
    void apply_bit(V* v) const {
        if (mode[Bit] == 1) {
            unroll<N>([&](auto i) QF_INLINE { v[i] = v[i] + tau[Bit] * S::template flip_lanes<1 << Bit>(v[i]); });
        } else if (mode[Bit] == 2) {
            unroll<N>([&](auto i) QF_INLINE { v[i] = S::template flip_lanes<1 << Bit>(v[i]) + tau[Bit] * v[i]; });
        }
    }
    // Rotate psi and lam in U vectors (v holds re and im of psi, then of lam, for each), and add Im<lam|Y|psi> before
    // the rotation to y: real parts to y[bit], imaginary parts to y[4 + bit]. Y commutes with the rotation, so the sum
    // after the rotation differs by a factor only. The permuted psi serves both.
    template <int Bit, int U>
    QF_INLINE void apply_bit_with_y(V* v, V* y) const {
        if constexpr (Bit < S::lane_bits) {
            if (mode[Bit] == 0) return;
            V other[4 * U];
            unroll<4 * U>([&](auto i) QF_INLINE { other[i] = S::template flip_lanes<1 << Bit>(v[i]); });
            unroll<U>([&](auto u) QF_INLINE {
                y[Bit] += v[4 * u + 2] * other[4 * u];
                y[4 + Bit] += v[4 * u + 3] * other[4 * u + 1];
            });
            if (mode[Bit] == 1)
                unroll<4 * U>([&](auto i) QF_INLINE { v[i] = v[i] + tau[Bit] * other[i]; });
            else
                unroll<4 * U>([&](auto i) QF_INLINE { v[i] = other[i] + tau[Bit] * v[i]; });
        }
    }
    template <int U>
    QF_INLINE void apply_with_y(V* v, V* y) const {
        unroll<S::lane_bits>([&](auto bit) QF_INLINE { apply_bit_with_y<bit, U>(v, y); });
    }
    // Add Im<lam|Y|psi> to y, and rotate no state.
    template <int U>
    QF_INLINE void add_y(const V* v, V* y) const {
        unroll<S::lane_bits>([&](auto bit) QF_INLINE {
            if (mode[bit] == 0) return;
            unroll<U>([&](auto u) QF_INLINE {
                y[bit] += v[4 * u + 2] * S::template flip_lanes<1 << bit>(v[4 * u]);
                y[4 + bit] += v[4 * u + 3] * S::template flip_lanes<1 << bit>(v[4 * u + 1]);
            });
        });
    }
    template <int N>
    void apply(V* v) const {
        apply_bit<0, N>(v);
        if constexpr (S::lane_bits > 1) apply_bit<1, N>(v);
        if constexpr (S::lane_bits > 2) apply_bit<2, N>(v);
        if constexpr (S::lane_bits > 3) apply_bit<3, N>(v);
    }
};

// Lane rotations take two vectors at a time: re and im of the same amplitudes, or two vectors of re of a real state,
// for which im is set to the second vector. Return the distance from one pair to the next, in numbers.
template <class T>
index_t pair_vectors(T* re, T*& im) {
    if (im) return Simd<T>::width;
    im = re + Simd<T>::width;
    return 2 * Simd<T>::width;
}

template <class T>
void rotate_lanes(const Lanes<T>& lanes, index_t begin, index_t end, T* re, T* im) {
    using S = Simd<T>;
    const index_t step = pair_vectors(re, im);
    index_t i = begin;
    for (; i + 2 * step <= end; i += 2 * step) {
        typename S::V v[4] = {S::load(re + i), S::load(im + i), S::load(re + i + step), S::load(im + i + step)};
        lanes.template apply<4>(v);
        S::store(re + i, v[0]);
        S::store(im + i, v[1]);
        S::store(re + i + step, v[2]);
        S::store(im + i + step, v[3]);
    }
    for (; i < end; i += step) {
        typename S::V v[2] = {S::load(re + i), S::load(im + i)};
        lanes.template apply<2>(v);
        S::store(re + i, v[0]);
        S::store(im + i, v[1]);
    }
}

template <class T>
void rotate_lanes(const Range& range, const Rotation<T>* rotations, int count, T* re, T* im) {
    const Lanes<T> lanes(rotations, count);
    for (Blocks pieces = pieces_of(range); pieces.left; pieces.next())
        rotate_lanes(lanes, pieces.first(), pieces.end(), re, im);
}

// Add the sums of Y over the vectors y, one for each lane bit, to the sums of the rotations.
template <class T>
void add_lane_y(const Rotation<T>* rotations, int count, const typename Simd<T>::V* y, double* sums) {
    using S = Simd<T>;
    for (int j = 0; j < count; ++j)
        sums[2 * j] += S::sum(y[rotations[j].bit] * S::by_bit(rotations[j].bit, T(-1), T(1)));
}

// Turn the sums of Y that Lanes::apply_with_y() has taken before each rotation into the sums after all rotations.
template <class T>
void finish_lane_y(const Rotation<T>* rotations, int count, double* sums) {
    double norm2 = 1;  // squared norm of the rotations that followed a sum
    for (int j = count - 1; j >= 0; --j) {
        norm2 *= 1 + static_cast<double>(rotations[j].tau) * rotations[j].tau;
        sums[2 * j] *= rotations[j].flip ? -norm2 : norm2;
    }
}

template <class T, int Bit, bool WithX>
void add_lane_sums(const typename Simd<T>::V* v, int mode, typename Simd<T>::V* y, typename Simd<T>::V* x) {
    using S = Simd<T>;
    if constexpr (Bit < S::lane_bits) {
        if (mode == 0) return;
        const auto flipped_re = S::template flip_lanes<1 << Bit>(v[0]);
        const auto flipped_im = S::template flip_lanes<1 << Bit>(v[1]);
        y[Bit] += v[2] * flipped_re;
        y[4 + Bit] += v[3] * flipped_im;
        if constexpr (WithX) {
            x[Bit] += v[2] * flipped_im;
            x[Bit] -= v[3] * flipped_re;
        }
    }
}

// Rotate the vectors begin .. end - 1 and add their sums. The sums are indexed with constants only, so the compiler
// keeps them in registers.
template <class T, bool WithX, bool Moves>
void rotate_vectors(const Lanes<T>& lanes, index_t begin, index_t end, index_t step, T* psi_re, T* psi_im, T* lam_re,
                    T* lam_im, typename Simd<T>::V* y_sums, typename Simd<T>::V* x_sums) {
    using S = Simd<T>;
    using V = typename S::V;
    V y[2 * 4] = {}, x[4] = {};
    for (index_t i = begin; i < end; i += step) {
        V v[4] = {S::load(psi_re + i), S::load(psi_im + i), S::load(lam_re + i), S::load(lam_im + i)};
        if constexpr (Moves && !WithX) {
            lanes.template apply_with_y<1>(v, y);
        } else {
            if constexpr (Moves) lanes.template apply<4>(v);
            unroll<4>([&](auto bit) QF_INLINE {
                if constexpr (bit < S::lane_bits) add_lane_sums<T, bit, WithX>(v, lanes.mode[bit], y, x);
            });
        }
        if constexpr (!Moves) continue;
        S::store(psi_re + i, v[0]);
        S::store(psi_im + i, v[1]);
        S::store(lam_re + i, v[2]);
        S::store(lam_im + i, v[3]);
    }
    for (int bit = 0; bit < 4; ++bit) y_sums[bit] = y[bit] + y[4 + bit], x_sums[bit] = x[bit];
}

template <class T, bool WithX, bool Moves>
void rotate_lanes_adjoint(const Range& range, const Rotation<T>* rotations, int count, T* psi_re, T* psi_im, T* lam_re,
                          T* lam_im, double* sums) {
    using S = Simd<T>;
    const Lanes<T> lanes(rotations, count);
    const index_t step = pair_vectors(psi_re, psi_im);
    pair_vectors(lam_re, lam_im);
    for (int j = 0; j < count; ++j) sums[2 * j] = sums[2 * j + 1] = 0;
    for (Blocks pieces = pieces_of(range); pieces.left; pieces.next())
        for (index_t i = pieces.first(), stop; i < pieces.end(); i = stop) {
            stop = end_of_sum(i, pieces.end(), steps_per_sum * step);
            typename S::V y[4], x[4];
            rotate_vectors<T, WithX, Moves>(lanes, i, stop, step, psi_re, psi_im, lam_re, lam_im, y, x);
            add_lane_y<T>(rotations, count, y, sums);
            for (int j = 0; WithX && j < count; ++j) sums[2 * j + 1] += S::sum(x[rotations[j].bit]);
        }
    if (!WithX && Moves) finish_lane_y(rotations, count, sums);
}

template <class T>
void rotate_lanes_adjoint(const Range& range, const Rotation<T>* rotations, int count, bool with_x, T* psi_re,
                          T* psi_im, T* lam_re, T* lam_im, double* sums) {
    (with_x ? rotate_lanes_adjoint<T, true, true>
            : rotate_lanes_adjoint<T, false, true>)(range, rotations, count, psi_re, psi_im, lam_re, lam_im, sums);
}

template <class T>
void lane_sums(const Range& range, const Rotation<T>* rotations, int count, bool with_x, T* psi_re, T* psi_im,
               T* lam_re, T* lam_im, double* sums) {
    (with_x ? rotate_lanes_adjoint<T, true, false>
            : rotate_lanes_adjoint<T, false, false>)(range, rotations, count, psi_re, psi_im, lam_re, lam_im, sums);
}

}  // namespace
}  // namespace QF_ISA
}  // namespace qf
