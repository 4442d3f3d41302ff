// SPDX-License-Identifier: Apache-2.0
//
// Rotations, diagonals and observables on a part of a statevector. sweeps.hpp has the layout and the contracts.
//
// Equation, and multiply-adds:
//   rotate          psi <- T(tau) X^flip psi: 1 for each real number and qubit
//   rotate_adjoint  the same for psi and lam, then Im<lam|Y|psi> and Im<lam|X|psi>: 1 more for each sum
//   phase           psi <- low[l] high[h] psi: 8 for each amplitude, 6 if the index has no high bits
//   phase_adjoint   psi, lam <- conj(low[l] high[h]) psi, lam and p = Im(conj(lam) psi): 14 and 2 additions for each
//                   amplitude
// Contract: the file is compiled once for each instruction set; the macro QF_ISA names the namespace.
// Determinism: no sum leaves its part. The order of additions inside a part depends on the vector width only.
// Source: arXiv:2603.02804 fuses gates in both directions; kernels/README.md, section Normal form.
#include "cpu/simd/sweeps.hpp"

#include <chrono>

#include "cpu/simd/dense.hpp"
#include "cpu/simd/rotations.hpp"
#include "cpu/simd/simd.hpp"
#include "shared/masks.h"

namespace qf {
namespace QF_ISA {
namespace {

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

// Compute the low table of block h in scratch.
template <class T>
__attribute__((noinline)) void make_low_table(const Diagonal<T>& d, index_t h, T* scratch) {
    using S = Simd<T>;
    const std::size_t size = std::size_t(1) << d.low_bits;
    T *table_re = scratch, *table_im = scratch + size;
    linear_table<T>(d.linear_re + h * d.low_bits, d.linear_im + h * d.low_bits, d.low_bits, T(1), d.low_re, d.low_im,
                    table_re, table_im);
    for (int t = 0; t < d.num_cross; ++t) {
        const auto& term = d.cross[t];
        const int g = generator(term.care, term.value, term.sign, h);
        if (!g) continue;
        for (std::size_t l = 0; l < size; l += S::width) {
            const auto low = S::load(term.low + l);
            const auto fr = T(1) + low * low * term.cos_minus_one, fi = low * (T(-g) * term.sin);
            const auto ar = S::load(table_re + l), ai = S::load(table_im + l);
            S::store(table_re + l, ar * fr - ai * fi);
            S::store(table_im + l, ar * fi + ai * fr);
        }
    }
}

// Return the number of the version of the low table of block h.
template <class T>
QF_INLINE inline index_t variant_of(const Diagonal<T>& d, index_t h) {
    index_t variant = 0;
    for (int b = 0; b < d.num_variant_bits; ++b) variant |= (h >> d.variant_bit[b] & 1) << b;
    return variant;
}

// Return the low table of block h in re and im: a stored table, or a table computed in scratch.
template <class T>
QF_INLINE inline void low_table(const Diagonal<T>& d, index_t h, T* scratch, const T*& re, const T*& im) {
    const std::size_t size = std::size_t(1) << d.low_bits;
    if (d.linear_re) {
        make_low_table(d, h, scratch);
        re = scratch;
        im = scratch + size;
    } else {
        const index_t variant = variant_of(d, h);
        re = d.low_re + variant * size;
        im = d.low_im + variant * size;
    }
}

// to <- D from, for real states and a real diagonal.
template <class T>
void real_phase(const Diagonal<T>& d, const Range& range, index_t ahead, const T* from, T* to, T* scratch) {
    using S = Simd<T>;
    const std::size_t size = std::size_t(1) << d.low_bits;
    for (Blocks blocks(range, d.low_bits); blocks.left; blocks.next()) {
        const index_t h = blocks.number();
        const T *low_re, *low_im;
        low_table(d, h, scratch, low_re, low_im);
        const std::size_t block = blocks.first();
        const auto factor = S::splat(d.high_re ? d.high_re[h] * d.scale : d.scale);
        for (std::size_t l = 0; l < size; l += S::width) {
            if (ahead) S::fetch(from + block + l + ahead);
            S::store(to + block + l, S::load(from + block + l) * (S::load(low_re + l) * factor));
        }
    }
}

// The factors of a phase for one vector: low times high if the index has high bits, else low times the scale.
template <class T, bool HasHigh>
struct Factor {
    using S = Simd<T>;
    using V = typename S::V;
    V re, im;

    QF_INLINE Factor(const T* low_re, const T* low_im, V high_re, V high_im) {
        const V lr = S::load_once(low_re), li = S::load_once(low_im);
        if constexpr (HasHigh) {
            re = lr * high_re - li * high_im;
            im = lr * high_im + li * high_re;
        } else {
            re = lr * high_re;
            im = li * high_re;
        }
    }
};

// U neighbouring vectors are taken together, because the rotations of the lane qubits of one vector wait for each
// other.
template <class T, bool HasHigh, bool Turns, int U>
void phase(const Diagonal<T>& d, const Range& range, index_t ahead, const T* from_re, const T* from_im, T* to_re,
           T* to_im, const Lanes<T>& lanes, T* scratch) {
    using S = Simd<T>;
    using V = typename S::V;
    const std::size_t size = std::size_t(1) << d.low_bits;
    const V scale = S::splat(d.scale);
    for (Blocks blocks(range, d.low_bits); blocks.left; blocks.next()) {
        const index_t h = blocks.number();
        const T *low_re, *low_im;
        low_table(d, h, scratch, low_re, low_im);
        const V hr = HasHigh ? S::splat(d.high_re[h] * d.scale) : V{},
                hi = HasHigh ? S::splat(d.high_im[h] * d.scale) : V{};
        const std::size_t block = blocks.first();
        for (std::size_t l = 0; l < size; l += U * S::width) {
            V v[2 * U];
            unroll<U>([&](auto u) QF_INLINE {
                const std::size_t i = l + u * S::width;
                if (HasHigh && ahead) {
                    S::fetch(from_re + block + i + ahead);
                    S::fetch(from_im + block + i + ahead);
                }
                const Factor<T, HasHigh> t(low_re + i, low_im + i, HasHigh ? hr : scale, hi);
                const V ar = S::load_once(from_re + block + i), ai = S::load_once(from_im + block + i);
                v[2 * u] = ar * t.re - ai * t.im;
                v[2 * u + 1] = ar * t.im + ai * t.re;
            });
            if constexpr (Turns) lanes.template apply<2 * U>(v);
            unroll<U>([&](auto u) QF_INLINE {
                S::store(to_re + block + l + u * S::width, v[2 * u]);
                S::store(to_im + block + l + u * S::width, v[2 * u + 1]);
            });
        }
    }
}

template <class T>
void phase(const Diagonal<T>& d, const Range& range, index_t ahead, const T* from_re, const T* from_im, T* to_re,
           T* to_im, const Rotation<T>* rotations, int count, T* scratch) {
    if (!from_im) {
        real_phase(d, range, ahead, from_re, to_re, scratch);
        if (count) rotate_lanes<T>(range, rotations, count, to_re, nullptr);
        return;
    }
    const Lanes<T> lanes(rotations, count);
    auto run = [&](auto function) { function(d, range, ahead, from_re, from_im, to_re, to_im, lanes, scratch); };
    const bool pairs = d.low_bits > Simd<T>::lane_bits;  // a block has at least two vectors
    if (d.high_re) return !count ? run(phase<T, true, false, 1>) : run(phase<T, true, true, 2>);
    if (!count) return run(phase<T, false, false, 1>);
    pairs ? run(phase<T, false, true, 2>) : run(phase<T, false, true, 1>);
}

template <class T>
double z_sums(const T* values, int bits, double* z) {
    using S = Simd<T>;
    using V = typename S::V;
    // Each step sums over the highest remaining bit. folded[] holds the sums over the bits that are already summed.
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
    V rest = S::load(from);
    unroll<S::lane_bits>([&](auto step) {  // sum over the lane bits in the same way
        constexpr int b = S::lane_bits - 1 - step;
        const V other = S::template flip_lanes<1 << b>(rest);
        V difference = rest - other;
        unroll<b>([&](auto lower) { difference += S::template flip_lanes<1 << lower>(difference); });
        if (b < bits) z[b] = difference[0];
        rest += other;
    });
    return rest[0];
}

// U neighbouring vectors are taken together, because the rotations of the lane qubits of one vector wait for each
// other.
template <class T, bool HasHigh, bool Sums, bool MovesPsi, bool Turns, int U>
void phase_adjoint(const Diagonal<T>& d, const Range& range, index_t ahead, T* psi_re, T* psi_im, T* lam_re, T* lam_im,
                   const PhaseSums<T>& sums, const LaneList<T>& before, const LaneList<T>& after, double* lane_sums,
                   T* scratch) {
    using S = Simd<T>;
    using V = typename S::V;
    const std::size_t size = std::size_t(1) << d.low_bits;
    const V scale = S::splat(d.scale);
    const bool per_block = Sums && (sums.linear || sums.cross);
    T* p_block = scratch + 2 * size;
    const Lanes<T> lanes_before(before.rotations, before.count), lanes(after.rotations, after.count);
    const index_t blocks_per_y = steps_per_sum * S::width >> d.low_bits;  // low_bits <= 8, so at least 4
    V y[2 * 4] = {};
    index_t done = 0;
    for (Blocks blocks(range, d.low_bits); blocks.left; blocks.next()) {
        const index_t h = blocks.number();
        const T *low_re, *low_im;
        low_table(d, h, scratch, low_re, low_im);
        const index_t variant = d.linear_re ? 0 : variant_of(d, h);
        const V hr = HasHigh ? S::splat(d.high_re[h] * d.scale) : V{},
                hi = HasHigh ? S::splat(d.high_im[h] * d.scale) : V{};
        const std::size_t block = blocks.first();
        T *pr = psi_re + block, *pi = psi_im + block, *lr = lam_re + block, *li = lam_im + block;
        T* low_sums = Sums ? sums.low + variant * size : nullptr;
        V total{};
        for (std::size_t l = 0; l < size; l += U * S::width) {
            V v[4 * U] = {};  // of each vector: re and im of psi, then of lam
            V lam[2 * U];
            unroll<U>([&](auto u) QF_INLINE {
                const std::size_t i = l + u * S::width;
                if (HasHigh && ahead)
                    for (const T* part : {pr, pi, lr, li}) S::fetch(part + i + ahead);
                lam[2 * u] = S::load_once(lr + i), lam[2 * u + 1] = S::load_once(li + i);
            });
            if constexpr (Turns && !MovesPsi) lanes_before.template apply<2 * U>(lam);
            unroll<U>([&](auto u) QF_INLINE {
                const std::size_t i = l + u * S::width;
                const Factor<T, HasHigh> t(low_re + i, low_im + i, HasHigh ? hr : scale, hi);
                V* const of_u = v + 4 * u;
                auto undo = [&](V ar, V ai, V* to) QF_INLINE {
                    to[0] = ar * t.re + ai * t.im;
                    to[1] = ai * t.re - ar * t.im;
                };
                if constexpr (MovesPsi || Sums || Turns) of_u[0] = S::load_once(pr + i), of_u[1] = S::load_once(pi + i);
                if constexpr (MovesPsi) undo(of_u[0], of_u[1], of_u);
                undo(lam[2 * u], lam[2 * u + 1], of_u + 2);
                if constexpr (Sums) {
                    const V p = of_u[2] * of_u[1] - of_u[3] * of_u[0];
                    S::store(low_sums + i, S::load(low_sums + i) + p);
                    if constexpr (HasHigh) {
                        total += p;
                        if (per_block) S::store(p_block + i, p);
                    }
                }
            });
            if constexpr (Turns && MovesPsi) lanes.template apply_with_y<U>(v, y);
            if constexpr (Turns && !MovesPsi) lanes.template add_y<U>(v, y);
            unroll<U>([&](auto u) QF_INLINE {
                const std::size_t i = l + u * S::width;
                if constexpr (MovesPsi) {
                    S::store(pr + i, v[4 * u]);
                    S::store(pi + i, v[4 * u + 1]);
                }
                S::store(lr + i, v[4 * u + 2]);
                S::store(li + i, v[4 * u + 3]);
            });
        }
        if (Turns && (++done % blocks_per_y == 0 || blocks.left == 1)) {
            V of_bit[4];  // a copy, because the compiler keeps an array in memory whose index is a variable
            unroll<4>([&](auto b) QF_INLINE {
                of_bit[b] = y[b] + y[4 + b];
                y[b] = y[4 + b] = V{};
            });
            add_lane_y<T>(after.rotations, after.count, of_bit, lane_sums);
        }
        if constexpr (Sums && HasHigh) {
            sums.total[h] = S::sum(total);
            if (sums.linear) z_sums<T>(p_block, d.low_bits, sums.linear + h * d.low_bits);
            if (sums.cross) {
                for (int t = 0; t < d.num_cross; ++t) {
                    V dot{};
                    for (std::size_t l = 0; l < size; l += S::width)
                        dot += S::load(p_block + l) * S::load(d.cross[t].low + l);
                    sums.cross[(index_t(t) << (range.num_bits - d.low_bits)) + h] = S::sum(dot);
                }
            }
        }
    }
}

template <class T, bool MovesPsi, bool Turns>
void choose_phase_adjoint(const Diagonal<T>& d, const Range& range, index_t ahead, T* psi_re, T* psi_im, T* lam_re,
                          T* lam_im, const PhaseSums<T>& sums, const LaneList<T>& before, const LaneList<T>& after,
                          double* lane_sums, T* scratch) {
    auto run = [&](auto function) {
        function(d, range, ahead, psi_re, psi_im, lam_re, lam_im, sums, before, after, lane_sums, scratch);
    };
    constexpr int U = Turns ? vectors_at_once : 1;
    if (d.high_re && sums.low) return run(phase_adjoint<T, true, true, MovesPsi, Turns, U>);
    if (d.high_re) return run(phase_adjoint<T, true, false, MovesPsi, Turns, U>);
    if (d.low_bits > Simd<T>::lane_bits) {
        if (sums.low) return run(phase_adjoint<T, false, true, MovesPsi, Turns, U>);
        return run(phase_adjoint<T, false, false, MovesPsi, Turns, U>);
    }
    if (sums.low) return run(phase_adjoint<T, false, true, MovesPsi, Turns, 1>);
    run(phase_adjoint<T, false, false, MovesPsi, Turns, 1>);
}

template <class T>
void phase_adjoint(const Diagonal<T>& d, const Range& range, index_t ahead, bool moves_psi, T* psi_re, T* psi_im,
                   T* lam_re, T* lam_im, const PhaseSums<T>& sums, const LaneList<T>& before, const LaneList<T>& after,
                   double* lane_sums, T* scratch) {
    auto run = [&](auto function) {
        function(d, range, ahead, psi_re, psi_im, lam_re, lam_im, sums, before, after, lane_sums, scratch);
    };
    for (int j = 0; j < 2 * after.count; ++j) lane_sums[j] = 0;
    if (before.count + after.count == 0)
        return moves_psi ? run(choose_phase_adjoint<T, true, false>) : run(choose_phase_adjoint<T, false, false>);
    if (!moves_psi) return run(choose_phase_adjoint<T, false, true>);
    run(choose_phase_adjoint<T, true, true>);
    finish_lane_y(after.rotations, after.count, lane_sums);
}

// U vectors take each group together, so that the kind of a group is found once for all of them. Complex: psi has
// imaginary parts.
template <class T, int U, bool Complex>
double observe(index_t begin, index_t end, const FlipGroup<T>* groups, std::size_t count, const T* psi_re,
               const T* psi_im, T* lam_re, T* lam_im, bool accumulate) {
    using S = Simd<T>;
    using V = typename S::V;
    double total = 0;
    for (index_t i = begin; i < end;) {
        const index_t stop = end_of_sum(i, end, steps_per_sum * S::width);
        V value{};
        for (; i < stop; i += U * S::width) {
            V cr[U]{}, ci[U]{};
            for (const auto* group = groups; group != groups + count; ++group) {
                const int in_lanes = static_cast<int>(group->flip & (S::width - 1));
                const index_t strided = group->flip - in_lanes;
                const auto lanes = S::flipped(in_lanes);
                // Add d psi[i ^ flip], where d is the part of the diagonal in a table, or a constant without a table.
                auto add = [&](auto has_lanes, auto is_imaginary, const T* table, T constant) QF_INLINE {
                    auto multiply = [&](auto has_table) QF_INLINE {
                        unroll<U>([&](auto u) QF_INLINE {
                            const index_t at = i + u * S::width;
                            const V d = has_table ? S::load(table + at - begin) : S::splat(constant);
                            auto flipped = [&](const T* part) QF_INLINE {
                                const V v = S::load(part + (at ^ strided));
                                return has_lanes ? S::permute(v, lanes) : v;
                            };
                            const V fr = flipped(psi_re), fi = Complex ? flipped(psi_im) : V{};
                            if (is_imaginary) {
                                cr[u] -= d * fi;
                                ci[u] += d * fr;
                            } else {
                                cr[u] += d * fr;
                                if (Complex) ci[u] += d * fi;
                            }
                        });
                    };
                    table ? multiply(std::true_type{}) : multiply(std::false_type{});
                };
                auto add_parts = [&](auto has_lanes) QF_INLINE {
                    if (group->d_re || group->constant_re != 0)
                        add(has_lanes, std::false_type{}, group->d_re, group->constant_re);
                    if (Complex && (group->d_im || group->constant_im != 0))
                        add(has_lanes, std::true_type{}, group->d_im, group->constant_im);
                };
                in_lanes ? add_parts(std::true_type{}) : add_parts(std::false_type{});
            }
            unroll<U>([&](auto u) QF_INLINE {
                const index_t at = i + u * S::width;
                value += S::load(psi_re + at) * cr[u];
                if (Complex) value += S::load(psi_im + at) * ci[u];
                if (lam_re) S::store(lam_re + at, accumulate ? S::load(lam_re + at) + cr[u] : cr[u]);
                if (lam_im) S::store(lam_im + at, accumulate ? S::load(lam_im + at) + ci[u] : ci[u]);
            });
        }
        total += S::sum(value);
    }
    return total;
}

template <class T>
double choose_observe(index_t begin, index_t end, const FlipGroup<T>* groups, std::size_t count, const T* psi_re,
                      const T* psi_im, T* lam_re, T* lam_im, bool accumulate) {
    constexpr int most = 4;
    auto run = [&](auto function) {
        return function(begin, end, groups, count, psi_re, psi_im, lam_re, lam_im, accumulate);
    };
    if ((end - begin) % (most * Simd<T>::width)) return psi_im ? run(observe<T, 1, true>) : run(observe<T, 1, false>);
    return psi_im ? run(observe<T, most, true>) : run(observe<T, most, false>);
}

template <class T>
void move_block(const BlockMove<T>& move, index_t origin, const T* from, T* to) {
    using S = Simd<T>;
    const index_t count = index_t(1) << (move.bits - S::lane_bits), in_lanes = S::width - 1;
    index_t place = origin;
    for (index_t v = 0;;) {
        const auto lanes = *reinterpret_cast<const typename S::Mask*>(move.lanes + (place & in_lanes) * S::width);
        S::store(to + (place & ~in_lanes), S::permute(S::load(from + v * S::width), lanes));
        if (++v == count) return;
        place ^= move.steps[__builtin_ctzll(v)];
    }
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
            choose_observe<T>,
            multiply_dense<T>,
            move_block<T>,
            fma_peak<T>};
}

}  // namespace

extern const Sweeps<float> sweeps_float;
extern const Sweeps<double> sweeps_double;
const Sweeps<float> sweeps_float = make_table<float>();
const Sweeps<double> sweeps_double = make_table<double>();

}  // namespace QF_ISA
}  // namespace qf
