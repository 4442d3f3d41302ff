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
#include "cuda/interpreted_stages.cuh"
#include "cuda/stage_sums.cuh"
#include "cuda/stages.cuh"
#include "cuda/sweep_tiles.cuh"

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, FORWARD_BLOCKS)
    forward_sweep(const Amplitude* source, Amplitude* target, int num_address_bits, int units, int window_low,
                  int window_high, const Stage* __restrict__ stages, int num_stages, const Piece* __restrict__ pieces,
                  const Extra* __restrict__ extras, const Slots* __restrict__ slots,
                  const Rotation* __restrict__ rotations, const Amplitude* __restrict__ tables) {
    extern __shared__ __align__(16) double shared_memory[];
    const Place here = find_place(units, num_address_bits);
    const Window window = window_of_pass(window_low, window_high);
    Amplitude* const tile = reinterpret_cast<Amplitude*>(shared_memory) + TILE_PLACES * here.tile_in_block;
    State psi;
    load(psi, source, here.unit, here, window, num_address_bits);
    forward_stages(psi, {stages, num_stages, pieces, extras, slots, rotations, tables}, here, tile);
    store(psi, target, here.unit, here, window, num_address_bits);
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, MIN_BLOCKS)
    backward_sweep(const Amplitude* source, Amplitude* target, int psi_of_rows, Amplitude* lam_state, int store_lam,
                   int num_address_bits, const int* __restrict__ row_of_unit, int units, int window_low,
                   int window_high, const Stage* __restrict__ stages, int num_stages, const Piece* __restrict__ pieces,
                   const Extra* __restrict__ extras, const unsigned* __restrict__ masks,
                   const Direct* __restrict__ directs, const Slots* __restrict__ slots,
                   const Rotation* __restrict__ rotations, const Amplitude* __restrict__ tables, Real* partial,
                   int num_partials) {
    extern __shared__ __align__(16) double shared_memory[];
    const Place here = find_place(units, num_address_bits);
    const Window window = window_of_pass(window_low, window_high);
    const int row = row_of_unit[here.unit];
    Amplitude* const tile = reinterpret_cast<Amplitude*>(shared_memory) + TILE_PLACES * here.tile_in_block;
    Real* const entries =
        reinterpret_cast<Real*>(reinterpret_cast<Amplitude*>(shared_memory) + STATES_AT_ONCE * STATE_PLACES) +
        2 * WARPS_PER_TILE * NUM_ENTRIES * here.tile_in_block;
    partial += ((static_cast<long long>(here.unit) << (num_address_bits - TILE_QUBITS)) + here.tile) * num_partials;
    State psi, lam;
    load(psi, source, psi_of_rows ? row : here.unit, here, window, num_address_bits);
    load(lam, lam_state, here.unit, here, window, num_address_bits);
    const PassData pass{stages, num_stages, pieces, extras, slots, rotations, tables};
    backward_stages(psi, lam, pass, here, row, {tile, entries, partial, masks, directs});
    if (target) store(psi, target, here.unit, here, window, num_address_bits);
    if (store_lam) store(lam, lam_state, here.unit, here, window, num_address_bits);
}
