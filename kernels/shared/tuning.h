// SPDX-License-Identifier: Apache-2.0
//
// Constants that kernels and Python share. Python reads them through _cpu.constants(); no Python file repeats a value.
#pragma once

namespace qf {

// --- CPU engine ---

// Number of low index bits that one phase table covers, at most. A table of 2^8 complex numbers fits the L1 cache. The
// bound is high enough that work done once for each block of 2^MAX_LOW_BITS amplitudes costs almost no time.
constexpr int MAX_LOW_BITS = 8;

// The widest vector has 64 bytes (AVX-512). With these vectors, one pass rotates up to 4 strided qubits.
constexpr int WIDEST_VECTOR_BYTES = 64, WIDEST_BLOCK_QUBITS = 4;

// Most qubits of the matrix of a dense gate. A matrix of 2^8 rows takes 1 MiB, and each amplitude 2^8 multiply-adds.
constexpr int MAX_DENSE_QUBITS = 8;

// A sine or cosine of a half angle with a magnitude below this bound counts as 0. Example: the cosine of the double
// nearest to pi/2 is 6e-17. This rounding error would give a phase to a matrix element that is exactly 0.
constexpr double SMALLEST_SINE = 2e-16;

// The process keeps at most this many bytes of workspaces, tables and states between calls.
constexpr unsigned long long MOST_KEPT_BYTES = 256ull << 20;

// --- CUDA engine ---

// Array size of the records: the most register bits of a piece or a stage.
constexpr int MAX_REGISTER_QUBITS = 4;

// Number of amplitudes that one block of `observe` sums.
constexpr int OBSERVED_AMPLITUDES = 1024;

// Number of outputs that neighbouring threads of `sum_tiles` sum side by side.
constexpr int OUTPUT_LANES = 8;

// Least number of threads in a block of a sweep, and log2 of the number of threads in a warp.
constexpr int MIN_SWEEP_THREADS = 128, WARP_QUBITS = 5;

// Number of sums that a warp stores at a stage, without its lane bits: Y, X and Z of each register bit, and the sum of
// p. The Z sums of the lane bits follow, one for each thread bit inside the warp.
constexpr int WARP_ENTRIES = 3 * MAX_REGISTER_QUBITS + 1;

// The source of the angle of a diagonal: a term, or Rz(lambda) (IN) or Rz(phi) (OUT) of a run Rz(phi) Ry Rz(lambda).
enum SourceKind : int { SOURCE_TERM = 0, SOURCE_RUN_IN = 1, SOURCE_RUN_OUT = 2 };

// The kind of an extra, a factor that no table holds. THREAD multiplies all amplitudes of a thread whose index matches.
// REGISTER multiplies the amplitudes of such a thread in which one register bit is 1. TERM is tested for each
// amplitude.
enum ExtraKind : int { EXTRA_THREAD = 0, EXTRA_REGISTER = 1, EXTRA_TERM = 2 };

}  // namespace qf
