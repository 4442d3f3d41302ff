# SPDX-License-Identifier: Apache-2.0
"""Selection of an engine: makes the engine of a device, and says whether a batch is large enough for a GPU."""

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
        num_threads: largest number of threads of the CPU engine.
        memory_limit: largest number of bytes of device memory of the CUDA engine; None is all free memory.

    Raises:
        RuntimeError: when the device cannot be used, with the reason.
    """
    if device == "reference":
        return ReferenceEngine()
    if device == "cuda":
        # Most processes never use a GPU, and the modules of this engine would take 4 % of the import of qiskit_fused.
        from qiskit_fused.engines.cuda.compiled_stages import least_work
        from qiskit_fused.engines.cuda.engine import CudaEngine

        return CudaEngine(require_gpu(), memory_limit, compile_above=least_work())
    return CpuEngine(num_threads)


def require_gpu(what: str = "device='cuda'") -> Any:
    """Return the runtime of the current CUDA device. ``what`` needs it, for the error.

    Raises:
        RuntimeError: when no CUDA device can be used, with the reason and its cure.
    """
    runtime, reason = availability.usable_gpu()
    if runtime is None:
        raise RuntimeError(f"{what} is not available: {reason}. device='cpu' works without a GPU.")
    return runtime


# Both bounds are estimates; nothing has been timed on a GPU yet.
MIN_GPU_WORK = 2 * 10**7  # least work for a GPU, in amplitudes times rotations: some milliseconds of a few CPU threads
MIN_GPU_AMPLITUDES = 2**12  # least number of amplitudes of all rows; fewer leave even one multiprocessor idle


def suits_gpu(num_qubits: int, work: float, num_rows: int) -> bool:
    """Return whether ``device="auto"`` prefers a GPU for the rows of a plan, by the size of its `FusedProgram.work`."""
    amplitudes = num_rows << num_qubits
    return amplitudes >= MIN_GPU_AMPLITUDES and amplitudes * work >= MIN_GPU_WORK
