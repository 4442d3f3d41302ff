// SPDX-License-Identifier: Apache-2.0
//
// The operations of PTX that C++ has no operator for, on registers that are unsigned integers. A register of 32 or 64
// bits may hold a float or a double. This header comes before the translated text of a module.
#pragma once
#pragma GCC optimize("fp-contract=off")  // PTX says itself where it fuses a multiplication and an addition
#include <cmath>
#include <cstdint>
#include <cstring>

namespace ptx {

inline float as_float(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}
inline double as_double(uint64_t bits) {
    double x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}
inline uint32_t bits_of(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline uint64_t bits_of(double x) {
    uint64_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

// A shift by the width of a register, or by more, shifts out all bits.
template <class Register>
inline Register shift_left(Register a, uint32_t count) {
    return count >= 8 * sizeof a ? Register(0) : static_cast<Register>(a << count);
}
template <class Register>  // arithmetic for signed types
inline Register shift_right(Register a, uint32_t count) {
    const uint32_t most = 8 * sizeof a - 1;
    if (count > most) return a < 0 ? static_cast<Register>(-1) : Register(0);
    return static_cast<Register>(a >> count);
}
inline uint32_t funnel_left(uint32_t low, uint32_t high, uint32_t count) {
    return static_cast<uint32_t>(((uint64_t(high) << 32 | low) << count) >> 32);
}
inline uint32_t funnel_right(uint32_t low, uint32_t high, uint32_t count) {
    return static_cast<uint32_t>((uint64_t(high) << 32 | low) >> count);
}

// Any function of three bits, given by its table of 8 bits.
inline uint32_t lop3(uint32_t a, uint32_t b, uint32_t c, int table) {
    uint32_t result = 0;
    for (int k = 0; k < 8; ++k)
        if (table >> k & 1) result |= (k & 4 ? a : ~a) & (k & 2 ? b : ~b) & (k & 1 ? c : ~c);
    return result;
}

// Choose four of the eight bytes of b:a.
inline uint32_t permute_bytes(uint32_t a, uint32_t b, uint32_t selector) {
    const uint64_t bytes = uint64_t(b) << 32 | a;
    uint32_t result = 0;
    for (int i = 0; i < 4; ++i) {
        const uint32_t choice = selector >> 4 * i & 15;
        uint32_t byte = bytes >> 8 * (choice & 7) & 255;
        if (choice & 8) byte = byte & 128 ? 255 : 0;
        result |= byte << 8 * i;
    }
    return result;
}

inline uint32_t extract_bits(uint32_t a, uint32_t position, uint32_t length) {
    position &= 255, length &= 255;
    if (length == 0 || position > 31) return 0;
    a >>= position;
    return length > 31 ? a : a & ((1u << length) - 1);
}
inline int32_t extract_signed_bits(uint32_t a, uint32_t position, uint32_t length) {
    position &= 255, length &= 255;
    if (length == 0) return 0;
    const uint32_t top = position + length - 1 > 31 ? 31 : position + length - 1, sign = a >> top & 1;
    uint32_t result = 0;
    for (uint32_t i = 0; i < 32; ++i) result |= (i < length && position + i < 32 ? a >> (position + i) & 1 : sign) << i;
    return static_cast<int32_t>(result);
}
inline uint32_t insert_bits(uint32_t a, uint32_t b, uint32_t position, uint32_t length) {
    position &= 255, length &= 255;
    for (uint32_t i = 0; i < length && position + i < 32; ++i)
        b = (b & ~(1u << (position + i))) | (a >> i & 1) << (position + i);
    return b;
}
inline uint32_t reverse_bits(uint32_t a) {
    uint32_t result = 0;
    for (int i = 0; i < 32; ++i) result |= (a >> i & 1) << (31 - i);
    return result;
}
inline uint32_t highest_bit(uint32_t a) {
    return a ? 31 - __builtin_clz(a) : ~0u;
}
inline uint32_t leading_zeros(uint32_t a) {
    return a ? __builtin_clz(a) : 32;
}
inline uint32_t leading_zeros(uint64_t a) {
    return a ? __builtin_clzll(a) : 64;
}

// Addresses of shared memory: static arrays begin at STATIC_BASE, the dynamic array at DYNAMIC_BASE.
constexpr uint32_t STATIC_BASE = 0x400, DYNAMIC_BASE = 0x10000;
typedef unsigned __int128 uint128_t;

template <class T>
inline T* opaque(T* pointer) {  // g++ would fold an address outside the array that the pointer points to
    asm("" : "+r"(pointer));
    return pointer;
}

}  // namespace ptx
using namespace ptx;
