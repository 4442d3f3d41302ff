// SPDX-License-Identifier: Apache-2.0
//
// One sweep over all amplitudes: a kernel reads each tile once, applies the stages of a pass, and writes the tile once.
//
// Equation: R_k are the rotations of register bits of stage k, and D_k is the diagonal of its piece.
//   forward_sweep   psi <- R_m D_m .. R_1 D_1 psi
//   backward_sweep  psi, lam <- D_1^-1 R_1^-1 .. D_m^-1 R_m^-1 (psi, lam). Where the sweep undoes R_k, it sums
//                   Im<lam|Y|psi> and Im<lam|X|psi> over each tile; where it undoes D_k, it sums p = Im(conj(lam) psi).
// Layout: source, target, lam [units][2^N]; partial [units][tiles][sums]; rotations and tables as in bind.cu; records
// as in records.cuh. source and target may be the same array. In backward_sweep with psi_of_rows, source is
// [rows][2^N]: the units of a row share psi, and target must be another array or null. A null target leaves psi
// unwritten, and store_lam = 0 leaves lam unwritten.
//
// Launch: 1-D, ceil(units * tiles / TILES_PER_BLOCK) blocks of BLOCK_THREADS threads. Dynamic shared memory holds
// TILES_PER_BLOCK tiles of TILE_PLACES amplitudes of each state, of one state if QF_STATES_AT_ONCE is 1; backward_sweep
// needs 2 * TILES_PER_BLOCK * WARPS_PER_TILE * NUM_ENTRIES numbers more.
//
// Work per complex amplitude, in multiply-adds: 3 for a rotation; 6 for its adjoint on psi and lam, and 2 for each sum
// of Y or X; about 8 for a piece; 12 for its adjoint, and 2 for p. Traffic per amplitude: each pass reads and writes
// each state once. An exchange between threads writes and reads shared memory once, without bank conflicts.
//
// Determinism: sums have a fixed order and there are no atomics, so the same input gives the same bits.
// Source: arXiv:2603.02804 fuses gates in both directions. Three shears that make a rotation are lifting steps.
#include "cuda/amplitude.cuh"
#include "cuda/records.cuh"
#include "cuda/threads.cuh"
#include "cuda/tile.cuh"

constexpr int BLOCK_THREADS = THREADS_PER_TILE < MIN_SWEEP_THREADS ? MIN_SWEEP_THREADS : THREADS_PER_TILE;
constexpr int TILES_PER_BLOCK = BLOCK_THREADS / THREADS_PER_TILE;
constexpr int BANKS = 128 / sizeof(Amplitude);  // shared memory has 32 banks of 4 bytes; this counts them in amplitudes
constexpr int LANE_QUBITS = THREAD_QUBITS < WARP_QUBITS ? THREAD_QUBITS : WARP_QUBITS;  // thread bits inside a warp
constexpr int WARPS_PER_TILE = 1 << (THREAD_QUBITS - LANE_QUBITS);
constexpr int LOAD_ARRANGEMENT = TILE_QUBITS - REGISTER_QUBITS;  // neighbouring threads take neighbouring amplitudes
// The compiler may use 128 registers for each thread, which hold two states without spills. It may use 168 registers if
// one or two threads hold a tile, and for real amplitudes also if four threads hold a tile.
constexpr int MIN_BLOCKS = THREAD_QUBITS <= (IS_REAL ? 2 : 1) ? 3 : BLOCK_THREADS > 512 ? 1 : 512 / BLOCK_THREADS;
// One state of complex64 fits 80 registers, so that a multiprocessor runs 24 warps of forward_sweep, not 16.
constexpr bool FITS_80_REGISTERS = sizeof(Amplitude) == 8 && !IS_REAL && TILES_PER_BLOCK == 1 && BLOCK_THREADS <= 256;
constexpr int FORWARD_BLOCKS = FITS_80_REGISTERS ? 768 / BLOCK_THREADS : MIN_BLOCKS;

// Layout of the sums that each warp stores at a stage. WIDTH bounds the number of register bits and is the number of
// values that one reduction over lanes takes, a power of two.
constexpr int WIDTH = MAX_REGISTER_QUBITS;
constexpr int Y_ENTRY = 0, X_ENTRY = WIDTH, REGISTER_Z_ENTRY = 2 * WIDTH, LANE_Z_ENTRY = 3 * WIDTH;
constexpr int NUM_ENTRIES = WARP_ENTRIES + LANE_QUBITS;
static_assert(WARP_ENTRIES == LANE_Z_ENTRY + 1, "every sum has a place");
static_assert(REGISTER_QUBITS <= WIDTH && REGISTER_QUBITS <= TILE_QUBITS, "a stage names WIDTH register bits");

typedef Amplitude State[NUM_REGISTERS];

// The work of this thread: its number inside the tile, the tile inside the block and inside the state, and the unit.
struct Place {
    int tile_in_block, thread, tile;
    int unit;
    bool valid;  // false: the thread lies beyond the last tile; it joins barriers and reductions but stores nothing
};

__device__ __forceinline__ Place find_place(int units, int num_address_bits) {
    const int tile_bits = num_address_bits - TILE_QUBITS;  // number of bits of the number of a tile
    Place place;
    place.tile_in_block = threadIdx.x >> THREAD_QUBITS;
    place.thread = threadIdx.x & (THREADS_PER_TILE - 1);
    if (TILES_PER_BLOCK == 1) {  // the grid has a block for each tile
        place.valid = true;
        place.unit = static_cast<int>(blockIdx.x >> tile_bits);
        place.tile = static_cast<int>(blockIdx.x & ((1u << tile_bits) - 1));
        return place;
    }
    const long long last = (static_cast<long long>(units) << tile_bits) - 1;
    long long number = static_cast<long long>(blockIdx.x) * TILES_PER_BLOCK + place.tile_in_block;
    place.valid = number <= last;
    if (!place.valid) number = last;
    place.unit = static_cast<int>(number >> tile_bits);
    place.tile = static_cast<int>(number & ((1ll << tile_bits) - 1));
    return place;
}

// Call visit(j, pointer to register j in state `number` of an array of states) for all registers, in the arrangement of
// loads and stores. Each call computes the addresses again, because an address kept across the sweep would occupy two
// registers. The distance of registers has 32 bits: states have at most 31 + r qubits.
template <class Pointer, class Visit>
__device__ __forceinline__ void for_each_address(Pointer states, int number, const Place& place, const Window& window,
                                                 int num_address_bits, Visit visit) {
    states += static_cast<Mask>(number) << num_address_bits | window.of_tile(place.tile);
    states += window.of_index(tile_index(place.thread, 0, LOAD_ARRANGEMENT));
    if (window.low <= LOAD_ARRANGEMENT || window.low == window.high) {  // one run of the window has all register bits
        const unsigned distance = 1u << (LOAD_ARRANGEMENT + window.high - window.low);
#pragma unroll
        for (int j = 0; j < NUM_REGISTERS; ++j) visit(j, states + static_cast<Mask>(distance) * j);
    } else {
#pragma unroll
        for (int j = 0; j < NUM_REGISTERS; ++j) visit(j, states + window.of_index(j << LOAD_ARRANGEMENT));
    }
}

// Load the registers of this thread from state `number` of an array of states. `store` below writes the registers back.
__device__ __forceinline__ void load(State& a, const Amplitude* states, int number, const Place& place,
                                     const Window& window, int num_address_bits) {
    for_each_address(states, number, place, window, num_address_bits,
                     [&](int j, const Amplitude* from) { a[j] = place.valid ? *from : Amplitude{}; });
}

__device__ __forceinline__ void store(const State& a, Amplitude* states, int number, const Place& place,
                                      const Window& window, int num_address_bits) {
    for_each_address(states, number, place, window, num_address_bits, [&](int j, Amplitude* to) {
        if (place.valid) *to = a[j];
    });
}

// The amplitudes of a tile lie in shared memory in the order of their tile index, with an unused place after every 2^r
// of them. No arrangement has bank conflicts (kernels/README.md, section Exchange). `float` has twice as many slots as
// a thread has registers; a padding has conflicts there, and places are exclusive-ored instead.
constexpr bool IS_PADDED = BANKS == NUM_REGISTERS;

// Return the place of a tile index in shared memory.
__device__ __forceinline__ constexpr int place_of(int index) {
    return IS_PADDED ? index + (index >> REGISTER_QUBITS) : index ^ (index >> REGISTER_QUBITS & (BANKS - 1));
}

constexpr int TILE_PLACES = IS_PADDED ? place_of(1 << TILE_QUBITS) : 1 << TILE_QUBITS;
constexpr int STATE_PLACES = TILE_PLACES * TILES_PER_BLOCK;  // the tiles of psi come before the tiles of lam
// The number of states that backward_sweep exchanges together. Where a multiprocessor has no shared memory for two
// blocks with two states, exchanging psi before lam takes two more barriers and half of the memory.
constexpr int STATES_AT_ONCE = QF_STATES_AT_ONCE;

// Return the number that is exclusive-ored into all places of a tile, so that tiles of one warp use different banks.
// Padded tiles do so by their size.
__device__ __forceinline__ int skew(const Place& place) {
    return IS_PADDED || TILES_PER_BLOCK == 1 ? 0 : place.tile_in_block << THREAD_QUBITS & (BANKS - 1);
}

// Call visit(j, pointer to the place of register j) for all registers; `tile` is the start of the tile. The place of
// register j is the place of register 0 plus, or exclusive or, the places of the bits of j in the arrangement, because
// these tile indices have no common bits. The loop visits registers in Gray code, so that each step is one operation.
// In an arrangement that the compiler knows, places are constants beside the place of register 0.
template <class Number, class Visit>
__device__ __forceinline__ void visit_places(Number* tile, const Place& place, int arrangement, Visit visit) {
    int index = place_of(tile_index(place.thread, 0, arrangement)) ^ skew(place);
    int of_bit[REGISTER_QUBITS];
#pragma unroll
    for (int b = 0; b < REGISTER_QUBITS; ++b) of_bit[b] = place_of(1 << (arrangement + b));
    Number* mine = tile + index;
#pragma unroll
    for (int i = 0; i < NUM_REGISTERS; ++i) {
        const int j = i ^ i >> 1, next = (i + 1) ^ (i + 1) >> 1;
        visit(j, mine);
#pragma unroll
        for (int b = 0; b < REGISTER_QUBITS; ++b) {
            if ((j ^ next) != 1 << b) continue;
            index ^= of_bit[b];
            if (IS_PADDED)
                mine += next >> b & 1 ? of_bit[b] : -of_bit[b];
            else
                mine = tile + index;
        }
    }
}

// Do what visit_places does. Most exchanges are between the arrangements of the lowest, the next and the highest
// register bits, for which the code is compiled apart.
template <class Visit>
__device__ __forceinline__ void for_each_place(Amplitude* tile, const Place& place, int arrangement, Visit visit) {
    if (arrangement == 0)
        visit_places(tile, place, 0, visit);
    else if (arrangement == LOAD_ARRANGEMENT)
        visit_places(tile, place, LOAD_ARRANGEMENT, visit);
    else if (arrangement == REGISTER_QUBITS)
        visit_places(tile, place, REGISTER_QUBITS, visit);
    else
        visit_places(tile, place, arrangement, visit);
}

// Bring the amplitudes of a tile from one arrangement to another. One barrier is enough: in the next exchange each
// thread writes only the places that it read in this one.
__device__ __forceinline__ void exchange(State& a, Amplitude* tile, const Place& place, int from, int to) {
    for_each_place(tile, place, from, [&](int j, Amplitude* there) { *there = a[j]; });
    __syncthreads();
    for_each_place(tile, place, to, [&](int j, Amplitude* there) { a[j] = *there; });
}

// Bring the amplitudes of psi and lam to another arrangement, by one barrier if there is memory for both.
__device__ __forceinline__ void exchange(State& psi, State& lam, Amplitude* tile, const Place& place, int from,
                                         int to) {
    if (STATES_AT_ONCE == 1) {
        exchange(psi, tile, place, from, to);
        __syncthreads();  // after this barrier, all threads have read psi
        exchange(lam, tile, place, from, to);
        return;
    }
    for_each_place(tile, place, from, [&](int j, Amplitude* there) {
        there[0] = psi[j];
        there[STATE_PLACES] = lam[j];
    });
    __syncthreads();
    for_each_place(tile, place, to, [&](int j, Amplitude* there) {
        psi[j] = there[0];
        lam[j] = there[STATE_PLACES];
    });
}

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
    const Complex* __restrict__ coefficients;
    int shared_runs, of_row;  // number of shared slots; offset of the row, added to varying slots
    __device__ __forceinline__ Rotations(const Stage& stage, const Complex* __restrict__ coefficients,
                                         const Slots& slots, int row)
        : stage(stage),
          coefficients(coefficients),
          shared_runs(static_cast<int>(slots.shared_runs)),
          of_row(row * static_cast<int>(slots.varying_runs)) {}
    __device__ __forceinline__ Complex operator[](int bit) const {
        const int slot = stage.slot[bit];
        return coefficients[slot < shared_runs ? slot : slot + of_row];
    }
};

struct RotateForward {
    State& psi;
    const Rotations& rotations;
    template <int BIT>
    __device__ __forceinline__ void at() {
        if (!(rotations.stage.rotate >> BIT & 1)) return;
        const Complex c = rotations[BIT];
        rotate<BIT>(psi, c.x, c.y);
    }
};

// Undo the rotations of a stage on psi and lam, and sum Im<lam|Y|psi> for each rotated bit.
struct RotateBack {
    State &psi, &lam;
    const Rotations& rotations;
    Real (&sums)[WIDTH];
    bool sums_x;  // true: at least one bit needs its X sum from the amplitudes
    template <int BIT>
    __device__ __forceinline__ void at() {
        if (!(rotations.stage.rotate >> BIT & 1)) return;
        const Complex c = rotations[BIT];
        sums_x = sums_x || (rotations.stage.sum_x >> BIT & 1 && is_x_summed(c));
        rotate<BIT>(psi, -c.x, -c.y);
        rotate<BIT>(lam, -c.x, -c.y);
        Real plus = 0, minus = 0;
#pragma unroll
        for (int j = 0; j < NUM_REGISTERS; ++j) {
            if (j >> BIT & 1) continue;
            constexpr int one = 1 << BIT;
            add_real_product(plus, lam[j | one], psi[j]);
            add_real_product(minus, lam[j], psi[j | one]);
        }
        sums[BIT] = plus - minus;
    }
};

// Sum Im<lam|X|psi> for each register bit of a mask.
struct SumX {
    const State &psi, &lam;
    int summed_bits;
    Real (&sums)[WIDTH];
    template <int BIT>
    __device__ __forceinline__ void at() {
        if (!(summed_bits >> BIT & 1)) return;
        Real plus = 0, minus = 0;
#pragma unroll
        for (int j = 0; j < NUM_REGISTERS; ++j) {
            add_imaginary_product(plus, minus, lam[j], psi[j ^ 1 << BIT]);
        }
        sums[BIT] = plus - minus;
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

__device__ __forceinline__ PieceFactors piece_factors(const Piece& piece, const Extra* __restrict__ extras,
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
    table += REGISTER_QUBITS - piece.first_extra;
    const Mask local = static_cast<Mask>(place.tile) << TILE_QUBITS | index;
#pragma unroll 1
    for (int e = piece.first_extra; e < piece.end_extra; ++e) {
        const Extra& extra = extras[e];
        if (extra.kind == EXTRA_TERM || (local & extra.care) != extra.value) continue;
        const Amplitude factor = table[e];
        if (extra.kind == EXTRA_THREAD) factors.head = multiply(factors.head, factor);
#pragma unroll
        for (int b = 0; b < REGISTER_QUBITS; ++b)
            if (extra.kind == EXTRA_REGISTER && extra.bit == b) factors.ratio[b] = multiply(factors.ratio[b], factor);
    }
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

// Multiply psi by the diagonal of a piece. With INVERSE, multiply psi and lam by the inverse of the diagonal.
template <bool INVERSE>
__device__ __forceinline__ void apply_piece(State& psi, State* lam, const Piece& piece,
                                            const Extra* __restrict__ extras, const Amplitude* __restrict__ table,
                                            const Place& place) {
    PieceFactors factors = piece_factors(piece, extras, table, place);
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
#pragma unroll 1
    for (int e = piece.first_extra; e < piece.end_extra; ++e) {
        const Extra& extra = extras[e];
        if (extra.kind != EXTRA_TERM) continue;
        const RegisterMasks masks = on_registers(extra.care, extra.value, extra.sign, place, piece.arrangement);
        apply_term<INVERSE>(psi, lam, masks, table[e - piece.first_extra]);
    }
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, FORWARD_BLOCKS)
    forward_sweep(const Amplitude* source, Amplitude* target, int num_address_bits, int units, int window_low,
                  int window_high, const Stage* __restrict__ stages, int num_stages, const Piece* __restrict__ pieces,
                  const Extra* __restrict__ extras, const Slots* __restrict__ slots,
                  const Complex* __restrict__ rotations, const Amplitude* __restrict__ tables) {
    extern __shared__ __align__(16) double shared_memory[];
    const Place here = find_place(units, num_address_bits);
    const Window window{window_low, window_high};
    Amplitude* const tile = reinterpret_cast<Amplitude*>(shared_memory) + TILE_PLACES * here.tile_in_block;
    State psi;
    load(psi, source, here.unit, here, window, num_address_bits);
    int arrangement = LOAD_ARRANGEMENT;
#pragma unroll 1
    for (int s = 0; s <= num_stages; ++s) {
        const int next = s < num_stages ? stages[s].arrangement : LOAD_ARRANGEMENT;
        if (next != arrangement) {
            exchange(psi, tile, here, arrangement, next);
            arrangement = next;
        }
        if (s == num_stages) break;
        const Stage& stage = stages[s];
        if (stage.piece >= 0) {
            const Piece& piece = pieces[stage.piece];
            const Amplitude* table =
                tables + place(piece.table, here.unit, slots->shared_entries, slots->varying_entries);
            apply_piece<false>(psi, nullptr, piece, extras, table, here);
        }
        const Rotations coefficients{stage, rotations, *slots, here.unit};
        RotateForward forward{psi, coefficients};
        for_each_bit(forward);
    }
    store(psi, target, here.unit, here, window, num_address_bits);
}

// Add each of COUNT values over the threads of a warp that hold one tile, and store the sums to `entries`. While a lane
// holds several values, each step halves their number: of two lanes, one keeps the first half, the other the second.
template <int COUNT>
__device__ __forceinline__ void reduce_lanes(Real (&value)[COUNT], int thread, Real* entries) {
    constexpr int HELD = COUNT >> LANE_QUBITS ? COUNT >> LANE_QUBITS : 1;
    int first = 0;
    bool writes = true;
#pragma unroll
    for (int step = 0; step < LANE_QUBITS; ++step) {
        const bool upper = thread >> step & 1;
        const int kept = COUNT >> (step + 1);
        if (kept == 0) {
            value[0] += __shfl_xor_sync(ALL_LANES, value[0], 1 << step);
            writes = writes && !upper;
        }
#pragma unroll
        for (int i = 0; i < kept; ++i) {
            const Real passed_on = upper ? value[i] : value[i + kept];
            value[i] = (upper ? value[i + kept] : value[i]) + __shfl_xor_sync(ALL_LANES, passed_on, 1 << step);
        }
        if (upper) first += kept;
    }
#pragma unroll
    for (int i = 0; i < HELD; ++i)
        if (writes) entries[first + i] = value[i];
}

// Return p = Im(conj(lam) psi) of register j.
__device__ __forceinline__ Real imaginary_product(const State& psi, const State& lam, int j) {
    return imaginary_product(lam[j], psi[j]);
}

// Sum p (-1)^bit over the threads of a warp for every register bit and every lane bit, and sum p itself.
__device__ __forceinline__ void reduce_z(const State& psi, const State& lam, int thread, Real* entries) {
    Real z[WIDTH] = {}, p[NUM_REGISTERS / 2];
#pragma unroll
    for (int j = 0; j < NUM_REGISTERS / 2; ++j) {
        const Real even = imaginary_product(psi, lam, 2 * j), odd = imaginary_product(psi, lam, 2 * j + 1);
        z[0] += even - odd;
        p[j] = even + odd;
    }
#pragma unroll
    for (int b = 1; b < REGISTER_QUBITS; ++b) {
#pragma unroll
        for (int j = 0; j < NUM_REGISTERS >> (b + 1); ++j) {
            z[b] += p[2 * j] - p[2 * j + 1];
            p[j] = p[2 * j] + p[2 * j + 1];
        }
    }
    reduce_lanes(z, thread, entries + REGISTER_Z_ENTRY);
    // After a Walsh-Hadamard transform over the lanes, lane m holds the sum of p (-1)^popcount(lane & m).
    Real walsh = p[0];
#pragma unroll
    for (int q = 0; q < LANE_QUBITS; ++q) {
        const Real other = __shfl_xor_sync(ALL_LANES, walsh, 1 << q);
        walsh = thread >> q & 1 ? other - walsh : other + walsh;
    }
    const int lane = thread & ((1 << LANE_QUBITS) - 1);
    if ((lane & (lane - 1)) == 0) entries[LANE_Z_ENTRY + __ffs(lane)] = walsh;
}

// The sums of all warps of one tile at one stage. Stages use two buffers in turn, so that one barrier for each stage is
// enough (see the end of the loop in backward_sweep).
struct SumBuffer {
    Real* entries;
    __device__ __forceinline__ Real* of_warp(int warp) const { return entries + warp * NUM_ENTRIES; }
    __device__ __forceinline__ Real total(int entry, int signs = 0) const {
        Real sum = 0;
#pragma unroll
        for (int warp = 0; warp < WARPS_PER_TILE; ++warp) {
            const Real value = entries[warp * NUM_ENTRIES + entry];
            sum += warp & signs ? -value : value;
        }
        return sum;
    }
};

// Add the sums of all warps of a tile, and store the sums of a stage.
__device__ __forceinline__ void store_sums(const SumBuffer& sums, const Stage& stage, bool sums_x, int z_partial,
                                           const Place& place, Real* partial) {
    // A tile may have a single thread, so a thread may store several sums.
    for (int k = place.thread; k < 2 * REGISTER_QUBITS + TILE_QUBITS + 1; k += THREADS_PER_TILE) {
        if (k < REGISTER_QUBITS) {
            if (stage.rotate >> k & 1) partial[stage.y_partial + k] = sums.total(Y_ENTRY + k);
            continue;
        }
        if (k < 2 * REGISTER_QUBITS) {
            const int b = k - REGISTER_QUBITS;
            // sum_tiles reads every sum, so a sum that run_gradients does not need is 0.
            if (!IS_REAL && stage.sum_x >> b & 1) partial[stage.x_partial + b] = sums_x ? sums.total(X_ENTRY + b) : 0;
            continue;
        }
        if (z_partial < 0) continue;
        const int bit = k - 2 * REGISTER_QUBITS, b = bit - stage.arrangement;
        const int thread_bit = bit < stage.arrangement ? bit : bit - REGISTER_QUBITS;
        Real sum;
        if (bit == TILE_QUBITS)
            sum = sums.total(LANE_Z_ENTRY);
        else if (b >= 0 && b < REGISTER_QUBITS)
            sum = sums.total(REGISTER_Z_ENTRY + b);
        else if (thread_bit < LANE_QUBITS)
            sum = sums.total(LANE_Z_ENTRY + 1 + thread_bit);
        else
            sum = sums.total(LANE_Z_ENTRY, 1 << (thread_bit - LANE_QUBITS));
        partial[z_partial + bit] = sum;
    }
}

// Replace values[m] by the sum over i of (-1)^popcount(i & m) values[i]. The 2^t values lie in the places of tile
// indices. All threads must have passed a barrier before the call, and have passed one when it returns.
__device__ __forceinline__ void walsh_hadamard(Real* values, const Place& place) {
    for (int first = 0; first < TILE_QUBITS; first += REGISTER_QUBITS) {
        const int arrangement = first < LOAD_ARRANGEMENT ? first : LOAD_ARRANGEMENT;
        Real v[NUM_REGISTERS];
        visit_places(values, place, arrangement, [&](int j, const Real* there) { v[j] = *there; });
#pragma unroll
        for (int b = 0; b < REGISTER_QUBITS; ++b) {
            if (arrangement + b < first) continue;  // the previous arrangement has transformed this bit
#pragma unroll
            for (int j = 0; j < NUM_REGISTERS; ++j) {
                if (j >> b & 1) continue;
                const Real sum = v[j] + v[j | 1 << b];
                v[j | 1 << b] = v[j] - v[j | 1 << b];
                v[j] = sum;
            }
        }
        visit_places(values, place, arrangement, [&](int j, Real* there) { *there = v[j]; });
        __syncthreads();
    }
}

// Sum p over a tile for masks of several bits (Walsh sums), and sum p g for a list of generators g. scratch holds 2^t
// numbers.
__device__ __forceinline__ void long_sums(const State& psi, const State& lam, const Piece& piece, const unsigned* masks,
                                          const Direct* directs, const Place& place, Real* scratch, Real* partial) {
    if (piece.walsh_partial >= 0) {
        __syncthreads();  // before this barrier, threads may still read scratch
        visit_places(scratch, place, piece.arrangement,
                     [&](int j, Real* there) { *there = imaginary_product(psi, lam, j); });
        __syncthreads();
        walsh_hadamard(scratch, place);
        for (int k = piece.first_walsh + place.thread; k < piece.end_walsh; k += THREADS_PER_TILE)
            if (place.valid)
                partial[piece.walsh_partial + k - piece.first_walsh] = scratch[place_of(masks[k]) ^ skew(place)];
    }
#pragma unroll 1
    for (int k = piece.first_direct; k < piece.end_direct; ++k) {
        const RegisterMasks g =
            on_registers(directs[k].care, directs[k].value, directs[k].sign, place, piece.arrangement);
        Real sum[1] = {0};
#pragma unroll
        for (int j = 0; j < NUM_REGISTERS; ++j)
            if (g.matches && (j & g.care) == g.value)
                sum[0] += negate_if(imaginary_product(psi, lam, j), g.odd + __popc(j & g.sign));
        __syncthreads();
        reduce_lanes(sum, place.thread, scratch + (place.thread >> LANE_QUBITS));
        __syncthreads();
        if (place.thread == 0 && place.valid) {
            Real total = 0;
            for (int warp = 0; warp < WARPS_PER_TILE; ++warp) total += scratch[warp];
            partial[piece.direct_partial + k - piece.first_direct] = total;
        }
    }
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, MIN_BLOCKS)
    backward_sweep(const Amplitude* source, Amplitude* target, int psi_of_rows, Amplitude* lam_state, int store_lam,
                   int num_address_bits, const int* __restrict__ row_of_unit, int units, int window_low,
                   int window_high, const Stage* __restrict__ stages, int num_stages, const Piece* __restrict__ pieces,
                   const Extra* __restrict__ extras, const unsigned* __restrict__ masks,
                   const Direct* __restrict__ directs, const Slots* __restrict__ slots,
                   const Complex* __restrict__ rotations, const Amplitude* __restrict__ tables, Real* partial,
                   int num_partials) {
    extern __shared__ __align__(16) double shared_memory[];
    const Place here = find_place(units, num_address_bits);
    const Window window{window_low, window_high};
    const int row = row_of_unit[here.unit];
    Amplitude* const tile = reinterpret_cast<Amplitude*>(shared_memory) + TILE_PLACES * here.tile_in_block;
    Real* const entries =
        reinterpret_cast<Real*>(reinterpret_cast<Amplitude*>(shared_memory) + STATES_AT_ONCE * STATE_PLACES) +
        2 * WARPS_PER_TILE * NUM_ENTRIES * here.tile_in_block;
    partial += ((static_cast<long long>(here.unit) << (num_address_bits - TILE_QUBITS)) + here.tile) * num_partials;
    State psi, lam;
    load(psi, source, psi_of_rows ? row : here.unit, here, window, num_address_bits);
    load(lam, lam_state, here.unit, here, window, num_address_bits);
    int arrangement = LOAD_ARRANGEMENT;
#pragma unroll 1
    for (int s = num_stages - 1; s >= -1; --s) {
        const int next = s >= 0 ? stages[s].arrangement : LOAD_ARRANGEMENT;
        if (next != arrangement) {
            exchange(psi, lam, tile, here, arrangement, next);
            arrangement = next;
        }
        if (s < 0) break;
        const Stage& stage = stages[s];
        const SumBuffer sums{entries + (s & 1) * WARPS_PER_TILE * NUM_ENTRIES};
        Real* const mine = sums.of_warp(here.thread >> LANE_QUBITS);
        bool sums_x = false;
        int z_partial = -1;
        if (stage.rotate) {
            const Rotations coefficients{stage, rotations, *slots, row};
            Real y[WIDTH] = {}, x[WIDTH] = {};
            RotateBack back{psi, lam, coefficients, y, false};
            for_each_bit(back);
            reduce_lanes(y, here.thread, mine + Y_ENTRY);
            // The tiles of one warp may belong to different rows, but all lanes must join the reduction.
            sums_x = !IS_REAL && __any_sync(ALL_LANES, back.sums_x);
            if (sums_x) {
                SumX sum{psi, lam, stage.sum_x, x};
                for_each_bit(sum);
                reduce_lanes(x, here.thread, mine + X_ENTRY);
            }
        }
        if (stage.piece >= 0) {
            const Piece& piece = pieces[stage.piece];
            if (!IS_REAL && (piece.walsh_partial >= 0 || piece.direct_partial >= 0))
                long_sums(psi, lam, piece, masks, directs, here, reinterpret_cast<Real*>(tile), partial);
            z_partial = IS_REAL ? -1 : piece.z_partial;
            if (z_partial >= 0) reduce_z(psi, lam, here.thread, mine);
            const Amplitude* table = tables + place(piece.table, row, slots->shared_entries, slots->varying_entries);
            apply_piece<true>(psi, &lam, piece, extras, table, here);
        }
        // After this barrier the sums are complete, and the next stage may write the buffers of the exchange.
        __syncthreads();
        if (here.valid) store_sums(sums, stage, sums_x, z_partial, here, partial);
    }
    if (target) store(psi, target, here.unit, here, window, num_address_bits);
    if (store_lam) store(lam, lam_state, here.unit, here, window, num_address_bits);
}
