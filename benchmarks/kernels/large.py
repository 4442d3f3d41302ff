# SPDX-License-Identifier: Apache-2.0
"""The measurement of a large matrix within a memory limit. It runs in a process of its own and returns plain data."""

from __future__ import annotations

import time

import numpy as np

from common.worker import Record, forget_peak_memory, memory_in_use, return_free_memory


def large_matrix(num_qubits: int, num_samples: int, memory_limit: int) -> Record:
    """Compute the matrix of `zz_feature_map` in complex64; return seconds, memory and the number of progress calls.

    The memory is the peak of the process less the memory before the call and less the matrix.
    """
    from qiskit.circuit.library import zz_feature_map

    from qiskit_fused import FusedQuantumKernel

    calls: list[tuple[int, int]] = []
    kernel = FusedQuantumKernel(
        feature_map=zz_feature_map(num_qubits),
        dtype="complex64",
        memory_limit=memory_limit,
        progress=lambda done, total: calls.append((done, total)),
    )
    samples = np.random.default_rng(0).random((num_samples, num_qubits))
    kernel.evaluate(samples[: max(num_samples // 40, 2)])  # libraries, the compiled circuit and workspaces of BLAS
    return_free_memory()
    before = memory_in_use("VmRSS")
    forget_peak_memory()
    calls.clear()
    start = time.perf_counter()
    matrix = kernel.evaluate(samples)
    seconds = time.perf_counter() - start
    peak = memory_in_use("VmHWM")
    growth = None if before is None or peak is None else peak - before - matrix.nbytes
    return {"seconds": seconds, "growth_bytes": growth, "matrix_bytes": matrix.nbytes, "progress_calls": len(calls)}
