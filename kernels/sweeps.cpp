// SPDX-License-Identifier: Apache-2.0
//
// Rotations, diagonals and observables on one chunk of a statevector; interface and layout: sweeps.hpp.
//
//   rotate          psi <- T(tau) X^flip psi              1 FMA per real number and qubit
//   rotate_adjoint  the same on psi and lam, then Im<lam|Y|psi> (and X): 1 FMA more for each sum
//   phase           psi <- low[l] high[h] psi             8 multiply-adds per amplitude (6 where n <= low_bits)
//   phase_adjoint   conj of it on psi and lam, p = Im(conj(lam) psi): 14 multiply-adds and 2 additions
//
// Compiled once per instruction set; QF_ISA names the namespace. Determinism: no sum crosses a chunk, and the order of
// additions inside a chunk depends on the vector width only.
// Source of the mathematics: arXiv:2603.02804 for fusing both directions; kernels/README.md for the normal form.
#include "sweeps.hpp"

#include <chrono>
#include <type_traits>
#include <utility>

#include "simd.hpp"

namespace qf {
namespace QF_ISA {
namespace {

// Walks the vectors of a chunk whose group bits are 0: spreads a counter by inserting zero bits.
template <int Holes>
struct Walk {
    index_t below[Holes > 0 ? Holes : 1];
    int width[Holes > 0 ? Holes : 1];
    index_t base;

    index_t operator()(index_t counter) const {
        unroll<Holes>([&](auto i) QF_INLINE { counter = (counter & below[i]) | ((counter & ~below[i]) << width[i]); });
        return counter + base;
    }
};

// Amplitude index of the j-th vector; bits of the group are strided and ascending.
template <class T, int Holes>
Walk<Holes> make_walk(const Range& range, const Rotation<T>* rotations, int count) {
    Walk<Holes> walk{};
    walk.base = range.value << range.position;
    int hole = 0;
    bool range_done = Holes == count;  // chunk bits on top need no hole
    for (int j = 0; j < count; ++j) {
        if (!range_done && range.position < rotations[j].bit) {
            walk.below[hole] = (index_t(1) << range.position) - 1;
            walk.width[hole++] = range.width;
            range_done = true;
        }
        walk.below[hole] = (index_t(1) << rotations[j].bit) - 1;
        walk.width[hole++] = 1;
    }
    if (!range_done) {
        walk.below[hole] = (index_t(1) << range.position) - 1;
        walk.width[hole++] = range.width;
    }
    return walk;
}

// Keep a loaded vector in its register: the compiler would rather load it again as a memory operand.
#if defined(__x86_64__)
#define QF_KEEP(v) asm("" : "+v"(v))
#else
#define QF_KEEP(v) (void)0
#endif

// K strided rotations of 2^K vectors. Bit j of Flips: rotation j is T(tau) X, else T(tau).
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
        unroll<1 << K>([&](auto r) QF_INLINE {
            const T* pair = p + rows.offset[r >> 1];
            a[r] = S::load(r & 1 ? pair + rows.first : pair);
            QF_KEEP(a[r]);
        });
    }
    template <class Rows>
    QF_INLINE void store(T* p, const Rows& rows, const V* a) const {
        unroll<1 << K>([&](auto r) QF_INLINE {
            T* pair = p + rows.offset[r >> 1];
            S::store(r & 1 ? pair + rows.first : pair, a[r]);
        });
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

// The 2^K rows of one step: pairs of vectors that are rotations[0] apart.
template <class T, int K, int Holes>
struct Rows {
    Walk<Holes> walk;
    index_t count, first, offset[1 << (K - 1)];

    Rows(const Range& range, const Rotation<T>* rotations) : walk(make_walk<T, Holes>(range, rotations, K)) {
        count = index_t(1) << (range.num_bits - range.width - K - Simd<T>::lane_bits);
        first = index_t(1) << rotations[0].bit;
        offset[0] = 0;
        for (int j = 1; j < K; ++j)
            for (int r = 0; r < 1 << (j - 1); ++r)
                offset[r | 1 << (j - 1)] = offset[r] + (index_t(1) << rotations[j].bit);
    }
};

template <class T, int K, int Holes, int Flips>
void rotate_strided(const Range& range, const Rotation<T>* rotations, T* re, T* im) {
    using S = Simd<T>;
    const Rotator<T, K, Flips> rotator(rotations);
    const Rows<T, K, Holes> rows(range, rotations);
    for (index_t step = 0; step < rows.count; ++step) {
        const index_t i = rows.walk(step << S::lane_bits);
        typename S::V a[1 << K];
        rotator.load(re + i, rows, a);
        rotator.apply(a);
        rotator.store(re + i, rows, a);
        rotator.load(im + i, rows, a);
        rotator.apply(a);
        rotator.store(im + i, rows, a);
    }
}

template <class T>
int flips_of(const Rotation<T>* rotations, int count) {
    int flips = 0;
    for (int j = 0; j < count; ++j) flips |= rotations[j].flip << j;
    return flips;
}

template <class T>
bool on_top(const Range& range) {
    return range.position + range.width == range.num_bits;
}

template <class T, int K, int... Flips>
void rotate_strided(const Range& range, const Rotation<T>* rotations, T* re, T* im,
                    std::integer_sequence<int, Flips...>) {
    using Function = void (*)(const Range&, const Rotation<T>*, T*, T*);
    static constexpr Function on_top_table[] = {rotate_strided<T, K, K, Flips>...};
    static constexpr Function hole_table[] = {rotate_strided<T, K, K + 1, Flips>...};
    (on_top<T>(range) ? on_top_table : hole_table)[flips_of(rotations, K)](range, rotations, re, im);
}

// Register counts decide the group sizes: 32 vectors hold 16 rows, or psi and lam of two qubits with real and imaginary
// parts; 16 vectors (AVX2, SSE2) half of that.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int max_rotate = 4, max_adjoint = 2, max_adjoint_with_x = 2, max_sums = 3, max_sums_with_x = 2;
#else
constexpr int max_rotate = 3, max_adjoint = 2, max_adjoint_with_x = 1, max_sums = 2, max_sums_with_x = 1;
#endif

// Call f with the constant that `count` is.
template <int Max, class F>
QF_INLINE inline void with_constant(int count, F&& f) {
    unroll<Max>([&](auto k) QF_INLINE {
        if (count == k + 1) f(std::integral_constant<int, k + 1>{});
    });
}

template <class T>
void rotate(const Range& range, const Rotation<T>* rotations, int count, T* re, T* im) {
    with_constant<max_rotate>(count, [&](auto k) {
        rotate_strided<T, k>(range, rotations, re, im, std::make_integer_sequence<int, 1 << k>{});
    });
}

// Sums are made in short pieces in the format of the amplitudes and added up in double: in single precision a long sum
// of equal numbers loses digits with its length.
constexpr index_t steps_per_sum = 512;
inline index_t end_of_sum(index_t begin, index_t end, index_t length) {
    return end - begin < length ? end : begin + length;
}

// Y_j from real arrays: sum over pairs of l1 p0 - l0 p1, real and imaginary parts added.
template <class T, int K>
QF_INLINE inline void add_y(const typename Simd<T>::V* psi, const typename Simd<T>::V* lam, typename Simd<T>::V* y) {
    unroll<K>([&](auto j) QF_INLINE {
        unroll<1 << K>([&](auto r) QF_INLINE {
            if constexpr (!(r >> j & 1)) {
                y[j] += lam[r | 1 << j] * psi[r];
                y[j] -= lam[r] * psi[r | 1 << j];
            }
        });
    });
}

template <bool Moves, class R, class T, class Rows, class V>
QF_INLINE inline void load_and_turn(const R& rotator, T* p, const Rows& rows, V* a) {
    rotator.load(p, rows, a);
    if constexpr (Moves) {
        rotator.apply(a);
        rotator.store(p, rows, a);
    }
}

template <class T, int K, int Holes, bool WithX, bool Moves, int Flips>
void rotate_strided_adjoint(const Range& range, const Rotation<T>* rotations, T* psi_re, T* psi_im, T* lam_re,
                            T* lam_im, double* sums) {
    using S = Simd<T>;
    using V = typename S::V;
    const Rotator<T, K, Flips> rotator(rotations);
    const Rows<T, K, Holes> rows(range, rotations);
    for (int j = 0; j < K; ++j) sums[2 * j] = sums[2 * j + 1] = 0;
    for (index_t step = 0; step < rows.count;) {
        const index_t stop = end_of_sum(step, rows.count, steps_per_sum);
        V y[K] = {}, z[K] = {}, x[K] = {};  // two sums of Y where nothing else fills the time of an addition
        for (; step < stop; ++step) {
            const index_t i = rows.walk(step << S::lane_bits);
            V p[1 << K], l[1 << K];
            load_and_turn<Moves>(rotator, psi_re + i, rows, p);
            load_and_turn<Moves>(rotator, lam_re + i, rows, l);
            add_y<T, K>(p, l, y);
            V q[1 << K], m[1 << K];
            load_and_turn<Moves>(rotator, psi_im + i, rows, q);
            load_and_turn<Moves>(rotator, lam_im + i, rows, m);
            add_y<T, K>(q, m, Moves ? y : z);
            if constexpr (WithX) {
                unroll<K>([&](auto j) QF_INLINE {
                    unroll<1 << K>([&](auto r) QF_INLINE {
                        x[j] += l[r] * q[r ^ 1 << j];
                        x[j] -= m[r] * p[r ^ 1 << j];
                    });
                });
            }
        }
        for (int j = 0; j < K; ++j) {
            sums[2 * j] += S::sum(y[j] + z[j]);
            if (WithX) sums[2 * j + 1] += S::sum(x[j]);
        }
    }
}

template <class T, int K, bool WithX, bool Moves, int... Flips>
void rotate_strided_adjoint(const Range& range, const Rotation<T>* rotations, T* psi_re, T* psi_im, T* lam_re,
                            T* lam_im, double* sums, std::integer_sequence<int, Flips...>) {
    using Function = void (*)(const Range&, const Rotation<T>*, T*, T*, T*, T*, double*);
    static constexpr Function on_top_table[] = {rotate_strided_adjoint<T, K, K, WithX, Moves, Flips>...};
    static constexpr Function hole_table[] = {rotate_strided_adjoint<T, K, K + 1, WithX, Moves, Flips>...};
    const int flips = Moves ? flips_of(rotations, K) : 0;
    (on_top<T>(range) ? on_top_table : hole_table)[flips](range, rotations, psi_re, psi_im, lam_re, lam_im, sums);
}

template <class T>
void rotate_adjoint(const Range& range, const Rotation<T>* rotations, int count, bool with_x, T* psi_re, T* psi_im,
                    T* lam_re, T* lam_im, double* sums) {
    auto run = [&](auto k, auto x) {
        rotate_strided_adjoint<T, k, x, true>(range, rotations, psi_re, psi_im, lam_re, lam_im, sums,
                                              std::make_integer_sequence<int, 1 << k>{});
    };
    if (with_x)
        with_constant<max_adjoint_with_x>(count, [&](auto k) { run(k, std::true_type{}); });
    else
        with_constant<max_adjoint>(count, [&](auto k) { run(k, std::false_type{}); });
}

template <class T>
void rotation_sums(const Range& range, const Rotation<T>* rotations, int count, bool with_x, T* psi_re, T* psi_im,
                   T* lam_re, T* lam_im, double* sums) {
    auto run = [&](auto k, auto x) {
        rotate_strided_adjoint<T, k, x, false>(range, rotations, psi_re, psi_im, lam_re, lam_im, sums,
                                               std::integer_sequence<int, 0>{});
    };
    if (with_x)
        with_constant<max_sums_with_x>(count, [&](auto k) { run(k, std::true_type{}); });
    else
        with_constant<max_sums>(count, [&](auto k) { run(k, std::false_type{}); });
}

// Rotations of all lane qubits at once, held per lane bit: mode 0 none, 1 plain, 2 flipped.
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
    // The same for psi and lam (re and im of each), adding Im<lam|Y|psi> before the rotation: as Y commutes with it,
    // only a factor differs, and the permuted psi serves both.
    template <int Bit>
    void apply_with_y(V* v, V* y) const {
        if constexpr (Bit < S::lane_bits) {
            if (mode[Bit] == 0) return;
            V other[4];
            unroll<4>([&](auto i) QF_INLINE { other[i] = S::template flip_lanes<1 << Bit>(v[i]); });
            y[Bit] += v[2] * other[0];
            y[Bit] += v[3] * other[1];
            if (mode[Bit] == 1)
                unroll<4>([&](auto i) QF_INLINE { v[i] = v[i] + tau[Bit] * other[i]; });
            else
                unroll<4>([&](auto i) QF_INLINE { v[i] = other[i] + tau[Bit] * v[i]; });
        }
    }
    template <int N>
    void apply(V* v) const {
        apply_bit<0, N>(v);
        if constexpr (S::lane_bits > 1) apply_bit<1, N>(v);
        if constexpr (S::lane_bits > 2) apply_bit<2, N>(v);
        if constexpr (S::lane_bits > 3) apply_bit<3, N>(v);
    }
};

template <class T>
void chunk_vectors(const Range& range, index_t& begin, index_t& end) {
    const index_t size = index_t(1) << (range.num_bits - range.width);
    begin = range.value * size;
    end = begin + size;
}

template <class T>
void rotate_lanes(const Range& range, const Rotation<T>* rotations, int count, T* re, T* im) {
    using S = Simd<T>;
    const Lanes<T> lanes(rotations, count);
    index_t begin, end;
    chunk_vectors<T>(range, begin, end);
    index_t i = begin;
    for (; i + 2 * S::width <= end; i += 2 * S::width) {
        typename S::V v[4] = {S::load(re + i), S::load(im + i), S::load(re + i + S::width), S::load(im + i + S::width)};
        lanes.template apply<4>(v);
        S::store(re + i, v[0]);
        S::store(im + i, v[1]);
        S::store(re + i + S::width, v[2]);
        S::store(im + i + S::width, v[3]);
    }
    for (; i < end; i += S::width) {
        typename S::V v[2] = {S::load(re + i), S::load(im + i)};
        lanes.template apply<2>(v);
        S::store(re + i, v[0]);
        S::store(im + i, v[1]);
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
        y[Bit] += v[3] * flipped_im;
        if constexpr (WithX) {
            x[Bit] += v[2] * flipped_im;
            x[Bit] -= v[3] * flipped_re;
        }
    }
}

template <class T, bool WithX, bool Moves>
void rotate_lanes_adjoint(const Range& range, const Rotation<T>* rotations, int count, T* psi_re, T* psi_im, T* lam_re,
                          T* lam_im, double* sums) {
    using S = Simd<T>;
    using V = typename S::V;
    const Lanes<T> lanes(rotations, count);
    index_t begin, end;
    chunk_vectors<T>(range, begin, end);
    for (int j = 0; j < count; ++j) sums[2 * j] = sums[2 * j + 1] = 0;
    for (index_t i = begin; i < end;) {
        const index_t stop = end_of_sum(i, end, steps_per_sum * S::width);
        V y[4] = {}, x[4] = {};
        for (; i < stop; i += S::width) {
            V v[4] = {S::load(psi_re + i), S::load(psi_im + i), S::load(lam_re + i), S::load(lam_im + i)};
            if constexpr (Moves && !WithX) {
                unroll<4>([&](auto bit) QF_INLINE { lanes.template apply_with_y<bit>(v, y); });
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
        for (int j = 0; j < count; ++j) {
            const int bit = rotations[j].bit;
            sums[2 * j] += S::sum(y[bit] * S::by_bit(bit, T(-1), T(1)));
            if (WithX) sums[2 * j + 1] += S::sum(x[bit]);
        }
    }
    if (WithX || !Moves) return;
    double norm2 = 1;  // of the rotations that a sum was made before
    for (int j = count - 1; j >= 0; --j) {
        norm2 *= 1 + static_cast<double>(rotations[j].tau) * rotations[j].tau;
        sums[2 * j] *= rotations[j].flip ? -norm2 : norm2;
    }
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

template <class T>
void linear_table(const T* factor_re, const T* factor_im, int bits, T root, const T* base_re, const T* base_im, T* re,
                  T* im) {
    using S = Simd<T>;
    using V = typename S::V;
    V first_re = S::splat(root), first_im = S::splat(0);
    const int in_lanes = bits < S::lane_bits ? bits : S::lane_bits;
    for (int b = 0; b < in_lanes; ++b) {
        const V fr = S::by_bit(b, T(1), factor_re[b]), fi = S::by_bit(b, T(0), factor_im[b]);
        const V old = first_re;
        first_re = old * fr - first_im * fi;
        first_im = old * fi + first_im * fr;
    }
    for (int i = 1 << in_lanes; i < S::width; ++i) first_re[i] = first_im[i] = 0;
    S::store(re, first_re);
    S::store(im, first_im);
    for (int b = S::lane_bits; b < bits; ++b) {
        const std::size_t half = std::size_t(1) << b;
        const V fr = S::splat(factor_re[b]), fi = S::splat(factor_im[b]);
        for (std::size_t l = 0; l < half; l += S::width) {
            const V ar = S::load(re + l), ai = S::load(im + l);
            S::store(re + half + l, ar * fr - ai * fi);
            S::store(im + half + l, ar * fi + ai * fr);
        }
    }
    if (!base_re) return;
    const std::size_t size = std::size_t(1) << (bits < S::lane_bits ? S::lane_bits : bits);
    for (std::size_t l = 0; l < size; l += S::width) {
        const V ar = S::load(re + l), ai = S::load(im + l), br = S::load(base_re + l), bi = S::load(base_im + l);
        S::store(re + l, ar * br - ai * bi);
        S::store(im + l, ar * bi + ai * br);
    }
}

inline int parity(index_t x) {
    return __builtin_parityll(x);
}

template <class T>
int cross_value(const CrossTerm<T>& term, index_t h) {  // g_high(h)
    if ((h & term.care) != term.value) return 0;
    return parity(h & term.sign) ? -1 : 1;
}

// The low table of block h: read where it is stored, else made in scratch.
template <class T>
void low_table(const Diagonal<T>& d, index_t h, T* scratch, const T*& re, const T*& im) {
    using S = Simd<T>;
    const std::size_t size = std::size_t(1) << d.low_bits;
    if (!d.linear_re) {
        index_t variant = 0;
        for (int b = 0; b < d.num_variant_bits; ++b) variant |= (h >> d.variant_bit[b] & 1) << b;
        re = d.low_re + variant * size;
        im = d.low_im + variant * size;
        return;
    }
    T *table_re = scratch, *table_im = scratch + size;
    linear_table<T>(d.linear_re + h * d.low_bits, d.linear_im + h * d.low_bits, d.low_bits, T(1), d.low_re, d.low_im,
                    table_re, table_im);
    for (int t = 0; t < d.num_cross; ++t) {
        const auto& term = d.cross[t];
        const int g = cross_value(term, h);
        if (!g) continue;
        for (std::size_t l = 0; l < size; l += S::width) {
            const auto low = S::load(term.low + l);
            const auto fr = T(1) + low * low * term.cos_minus_one, fi = low * (T(-g) * term.sin);
            const auto ar = S::load(table_re + l), ai = S::load(table_im + l);
            S::store(table_re + l, ar * fr - ai * fi);
            S::store(table_im + l, ar * fi + ai * fr);
        }
    }
    re = table_re;
    im = table_im;
}

template <class T, bool HasHigh>
void phase(const Diagonal<T>& d, index_t begin, index_t end, const T* from_re, const T* from_im, T* to_re, T* to_im,
           T* scratch) {
    using S = Simd<T>;
    using V = typename S::V;
    const std::size_t size = std::size_t(1) << d.low_bits;
    const V scale = S::splat(d.scale);
    for (index_t h = begin; h < end; ++h) {
        const T *low_re, *low_im;
        low_table(d, h, scratch, low_re, low_im);
        const V hr = HasHigh ? S::splat(d.high_re[h] * d.scale) : V{},
                hi = HasHigh ? S::splat(d.high_im[h] * d.scale) : V{};
        const std::size_t block = h * size;
        for (std::size_t l = 0; l < size; l += S::width) {
            V tr = S::load(low_re + l), ti = S::load(low_im + l);
            if constexpr (HasHigh) {
                const V old = tr;
                tr = old * hr - ti * hi;
                ti = old * hi + ti * hr;
            } else {
                tr *= scale;
                ti *= scale;
            }
            const V ar = S::load(from_re + block + l), ai = S::load(from_im + block + l);
            S::store(to_re + block + l, ar * tr - ai * ti);
            S::store(to_im + block + l, ar * ti + ai * tr);
        }
    }
}

template <class T>
void phase(const Diagonal<T>& d, index_t begin, index_t end, const T* from_re, const T* from_im, T* to_re, T* to_im,
           T* scratch) {
    (d.high_re ? phase<T, true> : phase<T, false>)(d, begin, end, from_re, from_im, to_re, to_im, scratch);
}

template <class T>
double z_sums(const T* values, int bits, double* z) {
    using S = Simd<T>;
    using V = typename S::V;
    // Fold the highest bit away again and again; V folded[] holds the sums over the bits already gone.
    const int vector_bits = bits > S::lane_bits ? bits - S::lane_bits : 0;
    alignas(64) T folded[1 << 10];
    const T* from = values;
    for (int b = vector_bits - 1; b >= 0; --b) {
        const std::size_t half = std::size_t(S::width) << b;
        V difference{};
        for (std::size_t l = 0; l < half; l += S::width) {
            const V v0 = S::load(from + l), v1 = S::load(from + half + l);
            difference += v0 - v1;
            S::store(folded + l, v0 + v1);
        }
        z[b + S::lane_bits] = S::sum(difference);
        from = folded;
    }
    const V rest = S::load(from);
    for (int b = 0; b < (bits < S::lane_bits ? bits : S::lane_bits); ++b)
        z[b] = S::sum(rest * S::by_bit(b, T(1), T(-1)));
    return S::sum(rest);
}

template <class T, bool HasHigh, bool Sums, bool MovesPsi>
void phase_adjoint(const Diagonal<T>& d, index_t begin, index_t end, T* psi_re, T* psi_im, T* lam_re, T* lam_im,
                   const PhaseSums<T>& sums, T* scratch) {
    using S = Simd<T>;
    using V = typename S::V;
    const std::size_t size = std::size_t(1) << d.low_bits;
    const V scale = S::splat(d.scale);
    const bool per_block = Sums && (sums.linear || sums.cross);
    T* p_block = scratch + 2 * size;
    for (index_t h = begin; h < end; ++h) {
        const T *low_re, *low_im;
        low_table(d, h, scratch, low_re, low_im);
        index_t variant = 0;
        if (!d.linear_re)
            for (int b = 0; b < d.num_variant_bits; ++b) variant |= (h >> d.variant_bit[b] & 1) << b;
        const V hr = HasHigh ? S::splat(d.high_re[h] * d.scale) : V{},
                hi = HasHigh ? S::splat(d.high_im[h] * d.scale) : V{};
        T *pr = psi_re + h * size, *pi = psi_im + h * size, *lr = lam_re + h * size, *li = lam_im + h * size;
        T* low_sums = Sums ? sums.low + variant * size : nullptr;
        V total{};
        for (std::size_t l = 0; l < size; l += S::width) {
            V tr = S::load(low_re + l), ti = S::load(low_im + l);
            if constexpr (HasHigh) {
                const V old = tr;
                tr = old * hr - ti * hi;
                ti = old * hi + ti * hr;
            } else {
                tr *= scale;
                ti *= scale;
            }
            V psi_r{}, psi_i{}, ar{}, ai{};
            if constexpr (Sums || MovesPsi) psi_r = S::load(pr + l), psi_i = S::load(pi + l);
            if constexpr (MovesPsi) {
                ar = psi_r, ai = psi_i;
                psi_r = ar * tr + ai * ti, psi_i = ai * tr - ar * ti;
                S::store(pr + l, psi_r);
                S::store(pi + l, psi_i);
            }
            ar = S::load(lr + l), ai = S::load(li + l);
            const V lam_r = ar * tr + ai * ti, lam_i = ai * tr - ar * ti;
            S::store(lr + l, lam_r);
            S::store(li + l, lam_i);
            if constexpr (Sums) {
                const V p = lam_r * psi_i - lam_i * psi_r;
                S::store(low_sums + l, S::load(low_sums + l) + p);
                if constexpr (HasHigh) {
                    total += p;
                    if (per_block) S::store(p_block + l, p);
                }
            }
        }
        if constexpr (Sums && HasHigh) {
            sums.total[h] = S::sum(total);
            if (sums.linear) z_sums<T>(p_block, d.low_bits, sums.linear + h * d.low_bits);
            if (sums.cross) {
                for (int t = 0; t < d.num_cross; ++t) {
                    V dot{};
                    for (std::size_t l = 0; l < size; l += S::width)
                        dot += S::load(p_block + l) * S::load(d.cross[t].low + l);
                    sums.cross[h * d.num_cross + t] = S::sum(dot);
                }
            }
        }
    }
}

template <class T, bool MovesPsi>
void choose_phase_adjoint(const Diagonal<T>& d, index_t begin, index_t end, T* psi_re, T* psi_im, T* lam_re, T* lam_im,
                          const PhaseSums<T>& sums, T* scratch) {
    auto run = [&](auto function) { function(d, begin, end, psi_re, psi_im, lam_re, lam_im, sums, scratch); };
    if (d.high_re && sums.low) return run(phase_adjoint<T, true, true, MovesPsi>);
    if (d.high_re) return run(phase_adjoint<T, true, false, MovesPsi>);
    if (sums.low) return run(phase_adjoint<T, false, true, MovesPsi>);
    run(phase_adjoint<T, false, false, MovesPsi>);
}

template <class T>
void phase_adjoint(const Diagonal<T>& d, index_t begin, index_t end, bool moves_psi, T* psi_re, T* psi_im, T* lam_re,
                   T* lam_im, const PhaseSums<T>& sums, T* scratch) {
    (moves_psi ? choose_phase_adjoint<T, true> : choose_phase_adjoint<T, false>)(d, begin, end, psi_re, psi_im, lam_re,
                                                                                 lam_im, sums, scratch);
}

template <class T>
double observe(index_t begin, index_t end, index_t flip, const T* d_re, const T* d_im, const T* psi_re, const T* psi_im,
               T* lam_re, T* lam_im, bool accumulate) {
    using S = Simd<T>;
    using V = typename S::V;
    const index_t strided = flip & ~index_t(S::width - 1);
    const int in_lanes = static_cast<int>(flip & (S::width - 1));
    double total = 0;
    for (index_t i = begin; i < end;) {
        const index_t stop = end_of_sum(i, end, steps_per_sum * S::width);
        V value{};
        for (; i < stop; i += S::width) {
            const V fr = S::flip_lanes(S::load(psi_re + (i ^ strided)), in_lanes);
            const V fi = S::flip_lanes(S::load(psi_im + (i ^ strided)), in_lanes);
            V cr{}, ci{};
            if (d_re) {
                const V d = S::load(d_re + i - begin);
                cr += d * fr;
                ci += d * fi;
            }
            if (d_im) {
                const V d = S::load(d_im + i - begin);
                cr -= d * fi;
                ci += d * fr;
            }
            value += S::load(psi_re + i) * cr + S::load(psi_im + i) * ci;
            if (lam_re) {
                S::store(lam_re + i, accumulate ? S::load(lam_re + i) + cr : cr);
                S::store(lam_im + i, accumulate ? S::load(lam_im + i) + ci : ci);
            }
        }
        total += S::sum(value);
    }
    return total;
}

template <class T>
double fma_peak() {
    using S = Simd<T>;
    constexpr int chains = 12, repeats = 1 << 20;
    typename S::V a[chains];
    for (int i = 0; i < chains; ++i) a[i] = S::splat(T(i));
    volatile T source = T(0.999999);
    const auto x = S::splat(source), y = S::splat(T(1) - source);
    double best = 0;
    for (int round = 0; round < 5; ++round) {
        const auto start = std::chrono::steady_clock::now();
        for (int r = 0; r < repeats; ++r) unroll<chains>([&](auto i) QF_INLINE { a[i] = a[i] * x + y; });
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        const double rate = 2.0 * chains * repeats * S::width / seconds.count();
        if (rate > best) best = rate;
    }
    volatile T sink = 0;
    for (int i = 0; i < chains; ++i) sink = sink + S::sum(a[i]);
    return best;
}

#define QF_STRING_(x) #x
#define QF_STRING(x) QF_STRING_(x)

template <class T>
constexpr Sweeps<T> make_table() {
    return {QF_STRING(QF_ISA),
            Simd<T>::lane_bits,
            max_rotate,
            max_adjoint,
            max_adjoint_with_x,
            max_sums,
            max_sums_with_x,
            rotate<T>,
            rotate_lanes<T>,
            rotate_adjoint<T>,
            rotate_lanes_adjoint<T>,
            rotation_sums<T>,
            lane_sums<T>,
            phase<T>,
            phase_adjoint<T>,
            linear_table<T>,
            z_sums<T>,
            observe<T>,
            fma_peak<T>};
}

}  // namespace

extern const Sweeps<float> sweeps_float;
extern const Sweeps<double> sweeps_double;
const Sweeps<float> sweeps_float = make_table<float>();
const Sweeps<double> sweeps_double = make_table<double>();

}  // namespace QF_ISA
}  // namespace qf
