// SPDX-License-Identifier: Apache-2.0
//
// The stages of a pass, read from the records of the plan: one code for all passes.
//
// For passes that take long, qiskit_fused/engines/cuda/compiled_stages.py writes another file with the same two
// functions, in the place of this one. It names the shape of each stage, so that the compiler knows arrangements, masks
// and signs.
#pragma once

#include "cuda/stage_sums.cuh"
#include "cuda/stages.cuh"
#include "cuda/sweep_tiles.cuh"

// Return the window of the pass, of which a kernel has the two numbers.
__device__ __forceinline__ Window window_of_pass(int low, int high) {
    return {low, high};
}

// Take psi, in the arrangement of loads and stores, through all stages of a pass and back to this arrangement.
__device__ __forceinline__ void forward_stages(State& psi, const PassData& pass, const Place& here, Amplitude* tile) {
    int arrangement = LOAD_ARRANGEMENT;
    Real scale = 1;
#pragma unroll 1
    for (int s = 0; s <= pass.num_stages; ++s) {
        const int next = s < pass.num_stages ? pass.stages[s].arrangement : LOAD_ARRANGEMENT;
        if (next != arrangement) {
            exchange(psi, tile, here, arrangement, next);
            arrangement = next;
        }
        if (s == pass.num_stages) break;
        const Stage& stage = pass.stages[s];
        const Piece& piece = pass.pieces[stage.piece];  // not read if stage.piece is -1
        forward_stage<false>(psi, stage, piece, ListedExtras{pass.extras, piece}, pass, here, scale);
    }
}

// Take psi and lam back through all stages, from and to the arrangement of loads and stores, and store all sums.
__device__ __forceinline__ void backward_stages(State& psi, State& lam, const PassData& pass, const Place& here,
                                                int row, const BackwardMemory& memory) {
    int arrangement = LOAD_ARRANGEMENT;
    Real scale = 1;
#pragma unroll 1
    for (int s = pass.num_stages - 1; s >= -1; --s) {
        const int next = s >= 0 ? pass.stages[s].arrangement : LOAD_ARRANGEMENT;
        if (next != arrangement) {
            exchange(psi, lam, memory.tile, here, arrangement, next);
            arrangement = next;
        }
        if (s < 0) break;
        const Stage& stage = pass.stages[s];
        const Piece& piece = pass.pieces[stage.piece];
        backward_stage<false>(psi, lam, s, stage, piece, ListedExtras{pass.extras, piece}, pass, here, row, memory,
                              scale);
    }
}
