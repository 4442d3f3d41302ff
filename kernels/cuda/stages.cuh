// SPDX-License-Identifier: Apache-2.0
//
// The steps of a stage inside the registers of a thread: rotations with their sums, and pieces of diagonals.
//
// Work per complex amplitude, in multiply-adds: 3 for a rotation; 6 for its adjoint on psi and lam, and 2 for each sum
// of Y or X; about 8 for a piece, and 12 for its adjoint.
#pragma once

#include "cuda/records.cuh"
#include "cuda/sweep_tiles.cuh"

constexpr int WIDTH = MAX_REGISTER_QUBITS;  // bounds the number of register bits; a power of two

// Rotate one register bit by the angle a, as three shears with the coefficients tan(a/2) and sin(a).
template <int BIT>
__device__ __forceinline__ void rotate(State& a, Real half_tan, Real sine) {
#pragma unroll
    for (int j = 0; j < NUM_REGISTERS; ++j) {
        if (j >> BIT & 1) continue;
        Amplitude &x = a[j], &y = a[j | 1 << BIT];
        add_multiple(x, -half_tan, y);
        add_multiple(y, sine, x);
        add_multiple(x, -half_tan, y);
    }
}

// Rotate one register bit by the angle a and multiply by 1/cos(a): two multiply-adds for each number, not three. The
// new x needs a place beside the old one, so the compiler moves numbers unless it knows all rotations of a sweep.
template <int BIT>
__device__ __forceinline__ void rotate_scaled(State& a, Real tangent) {
#pragma unroll
    for (int j = 0; j < NUM_REGISTERS; ++j) {
        if (j >> BIT & 1) continue;
        const Amplitude x = a[j];
        add_multiple(a[j], -tangent, a[j | 1 << BIT]);
        add_multiple(a[j | 1 << BIT], tangent, x);
    }
}

__device__ __forceinline__ void multiply_all(State& a, Real s) {
#pragma unroll
    for (int j = 0; j < NUM_REGISTERS; ++j) a[j] = multiple(a[j], s);
}

// Call visit.at<BIT>() for every register bit.
template <int BIT = 0, class Visit>
__device__ __forceinline__ void for_each_bit(Visit& visit) {
    if constexpr (BIT < REGISTER_QUBITS) {
        visit.template at<BIT>();
        for_each_bit<BIT + 1>(visit);
    }
}

// The rotations of one stage in one row.
struct Rotations {
    const Stage& stage;
    const Rotation* __restrict__ coefficients;
    int shared_runs, of_row;  // number of shared slots; offset of the row, added to varying slots
    __device__ __forceinline__ Rotations(const Stage& stage, const Rotation* __restrict__ coefficients,
                                         const Slots& slots, int row)
        : stage(stage),
          coefficients(coefficients),
          shared_runs(static_cast<int>(slots.shared_runs)),
          of_row(row * static_cast<int>(slots.varying_runs)) {}
    __device__ __forceinline__ const Rotation& operator[](int bit) const {
        const int slot = stage.slot[bit];
        return coefficients[slot < shared_runs ? slot : slot + of_row];
    }
};

// With SCALED, `scale` times the registers are the amplitudes.
template <bool SCALED>
struct RotateForward {
    State& psi;
    const Rotations& rotations;
    Real& scale;
    template <int BIT>
    __device__ __forceinline__ void at() {
        if (!(rotations.stage.rotate >> BIT & 1)) return;
        const Rotation& c = rotations[BIT];
        if (SCALED && c.scaled.y != 0) {
            rotate_scaled<BIT>(psi, c.scaled.x);
            scale *= c.scaled.y;
        } else {
            rotate<BIT>(psi, c.shears.x, c.shears.y);
        }
    }
};

// Undo the rotations of a stage on psi and lam, and sum Im<lam|Y|psi> for each rotated bit.
template <bool SCALED>
struct RotateBack {
    State &psi, &lam;
    const Rotations& rotations;
    Real (&sums)[WIDTH];
    Real& scale;
    bool sums_x;  // true: at least one bit needs its X sum from the amplitudes
    template <int BIT>
    __device__ __forceinline__ void at() {
        if (!(rotations.stage.rotate >> BIT & 1)) return;
        const Rotation& c = rotations[BIT];
        sums_x = sums_x || (rotations.stage.sum_x >> BIT & 1 && is_x_summed(c.shears));
        if (SCALED && c.scaled.y != 0) {
            rotate_scaled<BIT>(psi, -c.scaled.x);
            rotate_scaled<BIT>(lam, -c.scaled.x);
            scale *= c.scaled.y;
        } else {
            rotate<BIT>(psi, -c.shears.x, -c.shears.y);
            rotate<BIT>(lam, -c.shears.x, -c.shears.y);
        }
        Real plus = 0, minus = 0;
#pragma unroll
        for (int j = 0; j < NUM_REGISTERS; ++j) {
            if (j >> BIT & 1) continue;
            constexpr int one = 1 << BIT;
            add_real_product(plus, lam[j | one], psi[j]);
            add_real_product(minus, lam[j], psi[j | one]);
        }
        sums[BIT] = (plus - minus) * (scale * scale);
    }
};

// Sum Im<lam|X|psi> for each register bit of a mask.
struct SumX {
    const State &psi, &lam;
    int summed_bits;
    Real (&sums)[WIDTH];
    Real square;  // of the scale
    template <int BIT>
    __device__ __forceinline__ void at() {
        if (!(summed_bits >> BIT & 1)) return;
        Real plus = 0, minus = 0;
#pragma unroll
        for (int j = 0; j < NUM_REGISTERS; ++j) {
            add_imaginary_product(plus, minus, lam[j], psi[j ^ 1 << BIT]);
        }
        sums[BIT] = (plus - minus) * square;
    }
};

// The factors of a piece in one thread: register j gets head * product of ratio[b] over the bits b that are set in j.
struct PieceFactors {
    Amplitude head, ratio[REGISTER_QUBITS];
};

// Return a number whose lowest bit is the parity of the set bits of local index & mask. The two halves of the local
// index are joined by exclusive or, which keeps the parity.
__device__ __forceinline__ unsigned local_parity(int index, int tile, Mask mask) {
    return __popc((index & static_cast<unsigned>(mask)) ^ (tile & static_cast<unsigned>(mask >> TILE_QUBITS)));
}

// The extras of a piece, as records of the plan. `visit` takes the number of an extra in its piece, and the extra.
struct ListedExtras {
    const Extra* __restrict__ extras;
    const Piece& piece;
    template <class Visit>
    __device__ __forceinline__ void for_each(Visit visit) const {
#pragma unroll 1
        for (int e = piece.first_extra; e < piece.end_extra; ++e) visit(e - piece.first_extra, extras[e]);
    }
};

template <class Extras>
__device__ __forceinline__ PieceFactors piece_factors(const Piece& piece, const Extras& extras,
                                                      const Amplitude* __restrict__ table, const Place& place) {
    PieceFactors factors;
    const int index = tile_index(place.thread, 0, piece.arrangement);
    factors.head = table[place.thread];
    table += THREADS_PER_TILE;
#pragma unroll
    for (int b = 0; b < REGISTER_QUBITS; ++b) {
        const unsigned odd = local_parity(index, place.tile, piece.signs[b]);
        factors.ratio[b] = negate_if(table[b], odd);
    }
    table += REGISTER_QUBITS;
    const Mask local = static_cast<Mask>(place.tile) << TILE_QUBITS | index;
    extras.for_each([&](int e, const Extra& extra) {
        if (extra.kind == EXTRA_TERM || (local & extra.care) != extra.value) return;
        const Amplitude factor = table[e];
        if (extra.kind == EXTRA_THREAD) factors.head = multiply(factors.head, factor);
#pragma unroll
        for (int b = 0; b < REGISTER_QUBITS; ++b)
            if (extra.kind == EXTRA_REGISTER && extra.bit == b) factors.ratio[b] = multiply(factors.ratio[b], factor);
    });
    return factors;
}

// A generator g on the registers of one thread. If `matches`, register j has g = 0 unless (j & care) == value; else the
// sign of g is the parity of `odd` plus the set bits of j & sign. If not `matches`, g is 0 on all registers.
struct RegisterMasks {
    unsigned care, value, sign, odd;
    bool matches;
};

__device__ __forceinline__ RegisterMasks on_registers(Mask care, Mask value, Mask sign, const Place& place,
                                                      int arrangement) {
    const Mask local = static_cast<Mask>(place.tile) << TILE_QUBITS | tile_index(place.thread, 0, arrangement);
    const Mask registers = static_cast<Mask>(NUM_REGISTERS - 1) << arrangement;
    RegisterMasks masks;
    masks.care = static_cast<unsigned>((care & registers) >> arrangement);
    masks.value = static_cast<unsigned>((value & registers) >> arrangement);
    masks.sign = static_cast<unsigned>((sign & registers) >> arrangement);
    masks.odd = __popcll(local & sign);
    masks.matches = ((local ^ value) & care & ~registers) == 0;
    return masks;
}

__device__ __forceinline__ void times(Amplitude& a, Amplitude factor, bool inverse) {
    a = inverse ? multiply_conjugate(a, factor) : multiply(a, factor);
}

template <bool INVERSE>
__device__ __forceinline__ void apply_term(State& psi, State* lam, const RegisterMasks& masks, Amplitude factor) {
    if (!masks.matches) return;
#pragma unroll
    for (int j = 0; j < NUM_REGISTERS; ++j) {
        if ((j & masks.care) != masks.value) continue;
        const Amplitude f = invert_if(factor, masks.odd + __popc(j & masks.sign));
        times(psi[j], f, INVERSE);
        if (INVERSE) times((*lam)[j], f, INVERSE);
    }
}

// Multiply psi by the diagonal of a piece. With INVERSE, multiply psi and lam by the inverse of the diagonal. Multiply
// all of them by `scale`, which then is 1.
template <bool INVERSE, class Extras>
__device__ __forceinline__ void apply_piece(State& psi, State* lam, const Piece& piece, const Extras& extras,
                                            const Amplitude* __restrict__ table, const Place& place, Real& scale) {
    PieceFactors factors = piece_factors(piece, extras, table, place);
    factors.head = multiple(factors.head, scale);
    scale = 1;
    // The loop makes four factors at a time, in Gray code of the higher register bits. Two states leave no registers
    // for all factors.
    Amplitude factor[4];
    factor[0] = factors.head;
    factor[1] = multiply(factor[0], factors.ratio[0]);
    factor[2] = multiply(factor[0], factors.ratio[1]);
    factor[3] = multiply(factor[1], factors.ratio[1]);
#pragma unroll
    for (int i = 0; i < NUM_REGISTERS / 4; ++i) {
        const int high = i ^ i >> 1;
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const int j = high << 2 | k;
            const unsigned odd = piece.register_signs >> j;
            const Amplitude f = negate_if(factor[k], odd);
            times(psi[j], f, INVERSE);
            if (INVERSE) times((*lam)[j], f, INVERSE);
            // Factors have modulus 1, so the inverse of a ratio is its conjugate.
            const int flipped = high ^ ((i + 1) ^ (i + 1) >> 1);
#pragma unroll
            for (int b = 2; b < REGISTER_QUBITS; ++b)
                if (flipped == 1 << (b - 2)) times(factor[k], factors.ratio[b], high >> (b - 2) & 1);
        }
    }
    table += THREADS_PER_TILE + REGISTER_QUBITS;
    extras.for_each([&](int e, const Extra& extra) {
        if (extra.kind != EXTRA_TERM) return;
        const RegisterMasks masks = on_registers(extra.care, extra.value, extra.sign, place, piece.arrangement);
        apply_term<INVERSE>(psi, lam, masks, table[e]);
    });
}

// The records of a pass, and the bound numbers of all rows.
struct PassData {
    const Stage* __restrict__ stages;
    int num_stages;
    const Piece* __restrict__ pieces;
    const Extra* __restrict__ extras;
    const Slots* __restrict__ slots;
    const Rotation* __restrict__ rotations;
    const Amplitude* __restrict__ tables;

    __device__ __forceinline__ const Amplitude* table(const Piece& piece, int row) const {
        return tables + place(piece.table, row, slots->shared_entries, slots->varying_entries);
    }
};

// Apply the piece and the rotations of a stage to psi. With SCALED, rotations change `scale`.
template <bool SCALED, class Extras>
__device__ __forceinline__ void forward_stage(State& psi, const Stage& stage, const Piece& piece, const Extras& extras,
                                              const PassData& pass, const Place& here, Real& scale) {
    if (stage.piece >= 0) apply_piece<false>(psi, nullptr, piece, extras, pass.table(piece, here.unit), here, scale);
    const Rotations coefficients{stage, pass.rotations, *pass.slots, here.unit};
    RotateForward<SCALED> forward{psi, coefficients, scale};
    for_each_bit(forward);
}
