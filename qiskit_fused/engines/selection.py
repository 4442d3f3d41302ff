# SPDX-License-Identifier: Apache-2.0
"""Which engine runs: engines by the name of their device, and the size of work that suits a GPU."""

from __future__ import annotations

from typing import Any

from qiskit_fused.engines.cpu.engine import CpuEngine
from qiskit_fused.engines.cuda import availability
from qiskit_fused.engines.interface import Engine
from qiskit_fused.engines.reference import ReferenceEngine


def select_engine(device: str, num_threads: int = 1, memory_limit: int | None = None) -> Engine:
    """Return a new engine of a device.

    Args:
        device: "cpu", "reference", or "cuda" for the current CUDA device.
        num_threads: threads at most, for the CPU engine.
        memory_limit: bytes of device memory at most, for the CUDA engine; None is what is free.

    Raises:
        RuntimeError: when the device cannot be used, with the reason.
    """
    if device == "reference":
        return ReferenceEngine()
    if device == "cuda":
        # Most processes never use a GPU, and the modules of this engine would take 4 % of the import of qiskit_fused.
        from qiskit_fused.engines.cuda.engine import CudaEngine

        return CudaEngine(require_gpu(), memory_limit=memory_limit)
    return CpuEngine(num_threads)


def require_gpu() -> Any:
    """Return the runtime of the current CUDA device.

    Raises:
        RuntimeError: when there is none that can be used, with the reason and its cure.
    """
    runtime, reason = availability.usable_gpu()
    if runtime is None:
        raise RuntimeError(f"device='cuda' is not available: {reason}. device='cpu' works without a GPU.")
    return runtime


# Estimates: nothing has been timed on a GPU yet. Less work than this takes a few CPU threads some milliseconds, in
# which a GPU would hardly have been started; fewer amplitudes at a time leave even one multiprocessor idle.
MIN_GPU_WORK = 2 * 10**7  # amplitude-rotations
MIN_GPU_AMPLITUDES = 2**12


def suits_gpu(num_qubits: int, num_runs: int, num_rows: int) -> bool:
    """Say whether ``device="auto"`` prefers a GPU for rows of a plan, by the size of the work alone."""
    amplitudes = num_rows << num_qubits
    return amplitudes >= MIN_GPU_AMPLITUDES and amplitudes * num_runs >= MIN_GPU_WORK
