// SPDX-License-Identifier: Apache-2.0
//
// Vectors of the instruction set QF_ISA for which sweeps.cpp is compiled, and loops over registers. Only sweeps.cpp
// and rotations.hpp include this header. All functions have internal linkage; CMakeLists.txt says why.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#ifndef QF_ISA
#error "compile with -DQF_ISA=<name>"
#endif

#if defined(__AVX512F__)
#define QF_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define QF_VECTOR_BYTES 32
#else
#define QF_VECTOR_BYTES 16
#endif

#define QF_INLINE __attribute__((always_inline))

namespace qf {
namespace QF_ISA {
namespace {

// Call f(0), ..., f(N - 1) with compile-time constants. All loops over registers use `unroll`, because the compiler
// keeps an array of vectors in memory if an index into the array is a variable.
template <class F, int... I>
QF_INLINE inline void unroll(F&& f, std::integer_sequence<int, I...>) {
    (f(std::integral_constant<int, I>{}), ...);
}
template <int N, class F>
QF_INLINE inline void unroll(F&& f) {
    unroll(f, std::make_integer_sequence<int, N>{});
}

constexpr int log2_of(std::size_t x) {
    return x <= 1 ? 0 : 1 + log2_of(x / 2);
}

template <class T>
struct Simd {
    static constexpr int width = QF_VECTOR_BYTES / sizeof(T);
    static constexpr int lane_bits = log2_of(width);
    using Int = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
    typedef T V __attribute__((vector_size(QF_VECTOR_BYTES)));
    typedef Int Mask __attribute__((vector_size(QF_VECTOR_BYTES)));

    static V load(const T* p) { return *reinterpret_cast<const V*>(p); }
    // Load into a register. A plain load of a vector with several uses may become several memory operands, and the
    // loads of a core are as scarce as its multiply-adds.
    QF_INLINE static V load_once(const T* p) {
        V v = load(p);
#if defined(__x86_64__)
        asm("" : "+v"(v));
#endif
        return v;
    }
    // Ask the L2 cache for the vector at p, which the program reads later.
    static void fetch(const T* p) { __builtin_prefetch(p, 0, 2); }
    static void store(T* p, V v) { *reinterpret_cast<V*>(p) = v; }
    static V splat(T x) { return x - V{}; }

    // Return the vector whose lane i is v[i ^ Flip].
    template <int Flip, std::size_t... I>
    static V flip_lanes(V v, std::index_sequence<I...>) {
#if defined(__clang__)
        return __builtin_shufflevector(v, v, static_cast<int>(I ^ Flip)...);
#else
        return __builtin_shuffle(v, Mask{static_cast<Int>(I ^ Flip)...});
#endif
    }
    template <int Flip>
    static V flip_lanes(V v) {
        return flip_lanes<Flip>(v, std::make_index_sequence<width>{});
    }
    // Return the lanes for permute() that flip the bits `flip` of the number of each lane.
    static Mask flipped(int flip) { return lane_numbers(std::make_index_sequence<width>{}) ^ static_cast<Int>(flip); }
    // Return the vector whose lane i is v[lanes[i]].
    static V permute(V v, Mask lanes) {
#if defined(__clang__)
        V result{};
        for (int i = 0; i < width; ++i) result[i] = v[lanes[i]];
        return result;
#else
        return __builtin_shuffle(v, lanes);
#endif
    }
    // Return the sum of all lanes. The halves of the vector are added again and again; if lanes were added one after
    // the other, each addition would wait for the previous one.
    static T sum(V v) {
        if constexpr (lane_bits > 3) v += flip_lanes<8>(v);
        if constexpr (lane_bits > 2) v += flip_lanes<4>(v);
        if constexpr (lane_bits > 1) v += flip_lanes<2>(v);
        return v[0] + v[1];
    }
    // Return the vector that has at1 in each lane whose number has bit `bit` set, and at0 in all other lanes.
    static V by_bit(int bit, T at0, T at1) {
        const Mask at_bit = (lane_numbers(std::make_index_sequence<width>{}) & (Int(1) << bit)) != 0;
        return at_bit ? splat(at1) : splat(at0);
    }
    template <std::size_t... I>
    static Mask lane_numbers(std::index_sequence<I...>) {
        return Mask{static_cast<Int>(I)...};
    }
};

}  // namespace
}  // namespace QF_ISA
}  // namespace qf
