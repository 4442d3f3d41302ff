// SPDX-License-Identifier: Apache-2.0
//
// Constants that kernels and Python have in common. Python reads them through _cpu.constants(); nothing else repeats
// them.
#pragma once

namespace qf {

// --- CPU engine ---

// Bits of the index that a table takes as low: small enough for the L1 cache, and large enough that the work done once
// for each block of 2^MAX_LOW_BITS amplitudes costs nothing.
constexpr int MAX_LOW_BITS = 8;

// The widest vectors are those of AVX-512; they rotate as many strided qubits in one pass.
constexpr int WIDEST_VECTOR_BYTES = 64, WIDEST_BLOCK_QUBITS = 4;

// Sines and cosines of half angles below this are 0. The cosine of the double next to pi/2 is 6e-17: as a rounding
// error it would give a direction to a component that has none.
constexpr double SMALLEST_SINE = 2e-16;

// Bytes of workspaces, tables and states that the process keeps between calls at most.
constexpr unsigned long long MOST_KEPT_BYTES = 256ull << 20;

// --- CUDA engine ---

// Register bits that a piece and a stage have room for, and tile bits and bits of the tile number of a window.
constexpr int MAX_REGISTER_QUBITS = 4, MAX_WINDOW_QUBITS = 16, MAX_OUTSIDE_QUBITS = 48;

// Amplitudes that one block of `observe` sums.
constexpr int OBSERVED_AMPLITUDES = 1024;

// Outputs that neighbouring threads of `sum_tiles` sum side by side.
constexpr int OUTPUT_LANES = 8;

// Threads that a block of a sweep has at least, and log2 of the threads of a warp.
constexpr int MIN_SWEEP_THREADS = 128, WARP_QUBITS = 5;

// Sums that a warp leaves at a stage: Y, X and Z of each register bit, and the sum of p. One more for each thread bit
// inside the warp follows, its Z.
constexpr int WARP_ENTRIES = 3 * MAX_REGISTER_QUBITS + 1;

// Where the angle of a diagonal comes from: a term, or Rz(lambda) or Rz(phi) of a run Rz(phi) Ry Rz(lambda).
enum SourceKind : int { SOURCE_TERM = 0, SOURCE_RUN_IN = 1, SOURCE_RUN_OUT = 2 };

// An extra is a factor for the threads whose index matches, for |1> of a register bit of these, or for all amplitudes.
enum ExtraKind : int { EXTRA_THREAD = 0, EXTRA_REGISTER = 1, EXTRA_TERM = 2 };

}  // namespace qf
