// SPDX-License-Identifier: Apache-2.0
//
// Packs of rows: phases and rotations. Only packs.cpp includes this header. packs.hpp has the contracts.
//
// Multiply-adds for each amplitude: a phase 4; phase_adjoint 8, and 3 with p; a rotation 3 (three shears on the real
// and on the imaginary parts), or 2 if it is the same in all rows; its adjoint twice as many, 2 for Y and 2 for X; sum
// 4 for a phase, 2 for p, and 2 for Y and 2 for X of each bit. Half as many, or fewer, for real states.
#pragma once

#include "cpu/simd/pack_binding.hpp"
#include "cpu/simd/packs.hpp"

namespace qf {
namespace QF_ISA {
namespace {

template <class T>
void start(int bits, int parts, const PackRotation<T>* rotations, int count, T* psi) {
    using S = Simd<T>;
    using V = typename S::V;
    constexpr int W = S::width;
    const int step = parts * W;
    S::store(psi, S::splat(1));
    for (int b = 0; b < bits; ++b) {
        V at0 = S::splat(1), at1{};
        if (count > 0 && rotations->bit == b) {
            const PackRotation<T>& rotation = *rotations++;
            --count;
            if (rotation.shears) {
                at1 = S::load(rotation.shears + W);
                at0 -= S::load(rotation.shears) * at1;  // cos(a) = 1 - tan(a/2) sin(a)
            } else {
                at0 = S::splat(rotation.flip ? -rotation.tau : 1);
                at1 = S::splat(rotation.flip ? 1 : rotation.tau);
            }
        }
        const index_t half = index_t(1) << b;
        for (index_t i = 0; i < half; ++i) {
            const V a = S::load(psi + i * step);
            S::store(psi + i * step, a * at0);
            S::store(psi + (half + i) * step, a * at1);
        }
    }
    if (parts == 2)
        for (index_t i = 0; i < index_t(1) << bits; ++i) S::store(psi + i * step + W, V{});
}

// Load one part of the table's factor of amplitude i.
template <class T, int Parts, bool Shared>
QF_INLINE inline typename Simd<T>::V table_part(const T* table, index_t i, int part) {
    if constexpr (Shared)
        return Simd<T>::splat(table[i * Parts + part]);
    else
        return Simd<T>::load(table + (i * Parts + part) * Simd<T>::width);
}

template <class T, int Parts, bool Shared>
void phase_of(int bits, const T* table, const T* psi, T* out) {
    using S = Simd<T>;
    using V = typename S::V;
    constexpr int W = S::width;
    for (index_t i = 0; i < index_t(1) << bits; ++i, psi += Parts * W, out += Parts * W) {
        const V tr = table_part<T, Parts, Shared>(table, i, 0), ar = S::load(psi);
        if constexpr (Parts == 1) {
            S::store(out, ar * tr);
        } else {
            const V ti = table_part<T, Parts, Shared>(table, i, 1), ai = S::load(psi + W);
            S::store(out, ar * tr - ai * ti);
            S::store(out + W, ar * ti + ai * tr);
        }
    }
}
template <class T>
void phase(int bits, int parts, PackTable<T> table, const T* psi, T* out) {
    with_parts(parts, [&](auto p) {
        (table.is_shared ? phase_of<T, p, true> : phase_of<T, p, false>)(bits, table.numbers, psi, out);
    });
}

template <class T, int Parts, bool Shared, bool Sums>
void phase_adjoint_of(int bits, const T* table, T* psi, T* lam, T* p) {
    using S = Simd<T>;
    using V = typename S::V;
    constexpr int W = S::width;
    for (index_t i = 0; i < index_t(1) << bits; ++i) {
        T *const a = psi + i * Parts * W, *const b = lam + i * Parts * W;
        const V tr = table_part<T, Parts, Shared>(table, i, 0), ar = S::load(a), br = S::load(b);
        if constexpr (Parts == 1) {  // the inverse of a sign is the sign itself
            S::store(a, ar * tr);
            S::store(b, br * tr);
        } else {
            const V ti = table_part<T, Parts, Shared>(table, i, 1), ai = S::load(a + W), bi = S::load(b + W);
            const V psi_re = ar * tr + ai * ti, psi_im = ai * tr - ar * ti;
            const V lam_re = br * tr + bi * ti, lam_im = bi * tr - br * ti;
            S::store(a, psi_re);
            S::store(a + W, psi_im);
            S::store(b, lam_re);
            S::store(b + W, lam_im);
            if constexpr (Sums) S::store(p + i * W, lam_re * psi_im - lam_im * psi_re);
        }
    }
}
template <class T>
void phase_adjoint(int bits, int parts, PackTable<T> table, T* psi, T* lam, T* p) {
    with_parts(parts, [&](auto q) {
        constexpr int Parts = decltype(q)::value;
        auto run = [&](auto function) { function(bits, table.numbers, psi, lam, p); };
        if (table.is_shared)
            run(p ? phase_adjoint_of<T, Parts, true, true> : phase_adjoint_of<T, Parts, true, false>);
        else
            run(p ? phase_adjoint_of<T, Parts, false, true> : phase_adjoint_of<T, Parts, false, false>);
    });
}

// Bits that one pass rotates. 32 registers (AVX-512, NEON) hold psi and lam of two bits, 16 registers (AVX2, SSE2) of
// one. Measured with 32 registers: four bits take 1.18 of the time of three (n = 8), and three bits of the adjoint 1.1
// of two, because vectors that lie powers of two apart share sets of the L1 cache.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int registers = 32;
constexpr int pack_rotate = 3, pack_rotate_last = 4, pack_adjoint = 2, pack_adjoint_with_x = 2, pack_sums = 2;
#else
constexpr int registers = 16;
constexpr int pack_rotate = 3, pack_rotate_last = 3, pack_adjoint = 2, pack_adjoint_with_x = 1, pack_sums = 2;
#endif

// The places of the 2^K amplitudes that K rotations join.
template <class T, int K>
struct Places {
    int bit[K + 1];
    index_t offset[1 << K], flipped[1 << K], count;  // offsets in numbers
    const index_t* from = offset;                    // where vectors come from, the flips included

    Places(const Places&) = delete;
    Places(int bits, int parts, const PackRotation<T>* rotations) : count(index_t(1) << (bits - K)) {
        int flips = 0;
        offset[0] = 0;
        for (int j = 0; j < K; ++j) {
            if (!rotations[j].shears && rotations[j].flip) flips |= 1 << j;
            bit[j] = rotations[j].bit;
            for (int r = 0; r < 1 << j; ++r)
                offset[r | 1 << j] = offset[r] + (index_t(parts * Simd<T>::width) << bit[j]);
        }
        if (!flips) return;
        for (int r = 0; r < 1 << K; ++r) flipped[r] = offset[r ^ flips];
        from = flipped;
    }
    // Return the index of the amplitude number `step` in which all rotated bits are 0.
    QF_INLINE index_t operator()(index_t step) const {
        unroll<K>([&](auto j) QF_INLINE {
            const index_t below = (index_t(1) << bit[j]) - 1;
            step = (step & below) | (step & ~below) << 1;
        });
        return step;
    }
};

template <class T, int K>
struct Shears {
    using S = Simd<T>;
    using V = typename S::V;
    V t[K], s[K];

    QF_INLINE explicit Shears(const PackRotation<T>* rotations, bool inverse) {
        unroll<K>([&](auto j) QF_INLINE {
            t[j] = S::load(rotations[j].shears);
            s[j] = S::load(rotations[j].shears + S::width);
            if (inverse) t[j] = -t[j], s[j] = -s[j];
        });
    }
    QF_INLINE void apply(V* a) const {
        unroll<K>([&](auto j) QF_INLINE {
            unroll<1 << K>([&](auto r) QF_INLINE {
                if constexpr (!(r >> j & 1)) a[r] -= t[j] * a[r | 1 << j];
            });
            unroll<1 << K>([&](auto r) QF_INLINE {
                if constexpr (!(r >> j & 1)) a[r | 1 << j] += s[j] * a[r];
            });
            unroll<1 << K>([&](auto r) QF_INLINE {
                if constexpr (!(r >> j & 1)) a[r] -= t[j] * a[r | 1 << j];
            });
        });
    }
};

// Rotations T(tau), after the flips. The inverse of T(tau) X is T(tau) X up to its norm.
template <class T, int K>
struct SharedTurns {
    using S = Simd<T>;
    using V = typename S::V;
    V tau[K];

    QF_INLINE explicit SharedTurns(const PackRotation<T>* rotations, bool inverse) {
        unroll<K>([&](auto j) QF_INLINE {
            tau[j] = S::splat(inverse && !rotations[j].flip ? -rotations[j].tau : rotations[j].tau);
        });
    }
    QF_INLINE void apply(V* a) const {
        unroll<K>([&](auto j) QF_INLINE {
            unroll<1 << K>([&](auto r) QF_INLINE {
                if constexpr (!(r >> j & 1)) {
                    const V a0 = a[r], a1 = a[r | 1 << j];
                    a[r] = a0 - tau[j] * a1;
                    a[r | 1 << j] = a1 + tau[j] * a0;
                }
            });
        });
    }
};

template <class T, int K, class Turns>
QF_INLINE inline void turn_at(const Turns& turns, const Places<T, K>& places, T* p, typename Simd<T>::V* a) {
    unroll<1 << K>([&](auto r) QF_INLINE { a[r] = Simd<T>::load(p + places.from[r]); });
    turns.apply(a);
    unroll<1 << K>([&](auto r) QF_INLINE { Simd<T>::store(p + places.offset[r], a[r]); });
}

template <class T, int K, class Turns>
void rotate_bits(int bits, int parts, const PackRotation<T>* rotations, bool inverse, T* psi) {
    constexpr int W = Simd<T>::width;
    const Turns turns(rotations, inverse);
    const Places<T, K> places(bits, parts, rotations);
    for (index_t step = 0; step < places.count; ++step) {
        T* const at = psi + places(step) * parts * W;
        for (int part = 0; part < parts; ++part) {
            typename Simd<T>::V a[1 << K];
            turn_at(turns, places, at + part * W, a);
        }
    }
}

// The same after a phase, for complex amplitudes.
template <class T, int K, class Turns, bool Shared>
void phase_and_rotate_bits(int bits, const T* table, const PackRotation<T>* rotations, const T* psi, T* out) {
    using S = Simd<T>;
    using V = typename S::V;
    constexpr int W = S::width;
    const Turns turns(rotations, false);
    const Places<T, K> places(bits, 2, rotations);
    for (index_t step = 0; step < places.count; ++step) {
        const index_t first = places(step) * 2 * W;
        V a[1 << K], c[1 << K];
        unroll<1 << K>([&](auto r) QF_INLINE {
            const index_t i = first + places.from[r];
            const T* const factor = table + (Shared ? i / W : i);
            const V tr = table_part<T, 2, Shared>(factor, 0, 0), ti = table_part<T, 2, Shared>(factor, 0, 1);
            const V re = S::load(psi + i), im = S::load(psi + i + W);
            a[r] = re * tr - im * ti;
            c[r] = re * ti + im * tr;
        });
        turns.apply(a);
        turns.apply(c);
        unroll<1 << K>([&](auto r) QF_INLINE {
            S::store(out + first + places.offset[r], a[r]);
            S::store(out + first + places.offset[r] + W, c[r]);
        });
    }
}

template <int Max, class F>
QF_INLINE inline void with_count(int count, F&& f) {
    unroll<Max>([&](auto k) QF_INLINE {
        if (count == k + 1) f(std::integral_constant<int, k + 1>{});
    });
}

template <class T>
void rotate_pack(int bits, int parts, const PackRotation<T>* rotations, int count, bool inverse, T* psi) {
    with_count<pack_rotate_last>(count, [&](auto k) {
        (rotations->shears ? rotate_bits<T, k, Shears<T, k>>
                           : rotate_bits<T, k, SharedTurns<T, k>>)(bits, parts, rotations, inverse, psi);
    });
}

// The most bits whose rotations a phase takes along: 32 registers hold both parts of eight amplitudes, 16 of four.
constexpr int most_after_phase = registers / 16 + 1;

template <class T>
void phase_and_rotate(int bits, int parts, PackTable<T> table, const PackRotation<T>* rotations, int count,
                      const T* psi, T* out) {
    if (parts == 1 || count < 2) {
        phase(bits, parts, table, psi, out);
        return rotate_pack(bits, parts, rotations, count, false, out);
    }
    with_count<most_after_phase>(count, [&](auto k) {
        if constexpr (k > 1) {
            auto run = [&](auto function) { function(bits, table.numbers, rotations, psi, out); };
            if (rotations->shears)
                run(table.is_shared ? phase_and_rotate_bits<T, k, Shears<T, k>, true>
                                    : phase_and_rotate_bits<T, k, Shears<T, k>, false>);
            else
                run(table.is_shared ? phase_and_rotate_bits<T, k, SharedTurns<T, k>, true>
                                    : phase_and_rotate_bits<T, k, SharedTurns<T, k>, false>);
        }
    });
}

template <class T, int K, bool WithX, class Turns>
void rotate_bits_adjoint(int bits, int parts, const PackRotation<T>* rotations, bool accumulate, T scale, T* psi,
                         T* lam, T* sums) {
    using S = Simd<T>;
    using V = typename S::V;
    constexpr int W = S::width;
    const Turns turns(rotations, true);
    const Places<T, K> places(bits, parts, rotations);
    V y[K] = {}, x[K] = {};
    for (index_t step = 0; step < places.count; ++step) {
        const index_t i = places(step) * parts * W;
        auto add_y = [&](const V* a, const V* b) QF_INLINE {
            unroll<K>([&](auto j) QF_INLINE {
                unroll<1 << K>([&](auto r) QF_INLINE {
                    if constexpr (!(r >> j & 1)) {
                        y[j] += b[r | 1 << j] * a[r];
                        y[j] -= b[r] * a[r | 1 << j];
                    }
                });
            });
        };
        V a[1 << K], b[1 << K];
        turn_at(turns, places, psi + i, a);
        turn_at(turns, places, lam + i, b);
        add_y(a, b);
        if (parts == 1) continue;
        V c[1 << K], d[1 << K];
        turn_at(turns, places, psi + i + W, c);
        turn_at(turns, places, lam + i + W, d);
        add_y(c, d);
        if constexpr (WithX)
            unroll<K>([&](auto j) QF_INLINE {
                unroll<1 << K>([&](auto r) QF_INLINE {
                    x[j] += b[r] * c[r ^ 1 << j];
                    x[j] -= d[r] * a[r ^ 1 << j];
                });
            });
    }
    unroll<K>([&](auto j) QF_INLINE {
        T* const to = sums + 2 * j * W;
        y[j] *= scale, x[j] *= scale;
        S::store(to, accumulate ? S::load(to) + y[j] : y[j]);
        if (WithX) S::store(to + W, accumulate ? S::load(to + W) + x[j] : x[j]);
    });
}
template <class T>
void rotate_pack_adjoint(int bits, int parts, const PackRotation<T>* rotations, int count, bool with_x, bool accumulate,
                         T scale, T* psi, T* lam, T* sums) {
    auto run = [&](auto k, auto x) {
        (rotations->shears ? rotate_bits_adjoint<T, k, x, Shears<T, k>>
                           : rotate_bits_adjoint<T, k, x, SharedTurns<T, k>>)(bits, parts, rotations, accumulate, scale,
                                                                              psi, lam, sums);
    };
    if (with_x)
        with_count<pack_adjoint_with_x>(count, [&](auto k) { run(k, std::true_type{}); });
    else
        with_count<pack_adjoint>(count, [&](auto k) { run(k, std::false_type{}); });
}

}  // namespace
}  // namespace QF_ISA
}  // namespace qf
