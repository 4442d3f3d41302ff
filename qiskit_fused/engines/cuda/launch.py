# SPDX-License-Identifier: Apache-2.0
"""Launches of the kernels of ``kernels/cuda/*.cu``: macros and launch sizes for a number format and a tile."""

from __future__ import annotations

from typing import Any

import numpy as np

from qiskit_fused.engines.cuda.formats import (
    REAL_FORMAT,
    REGISTER_QUBITS,
    real_type,
    shared_memory,
    states_at_once,
    tiles_per_block,
)
from qiskit_fused.engines.cuda.passes import Passes


def kernel(runtime: Any, file: str, name: str, dtype: str, tile_qubits: int | None = None, stages: str = "") -> Any:
    """Return a compiled kernel.

    Args:
        runtime: the device.
        file: name of the kernel file. "gradients.cu" has no amplitudes, so it is the same for real and complex formats.
        name: name of the kernel.
        dtype: format of the amplitudes.
        tile_qubits: t, for the kernels of sweeps, which are compiled for one size of tile.
        stages: the code of the stages of a pass (see `compiled_stages`), or "" for the interpreter of stages.
    """
    if file == "gradients.cu":
        dtype = "complex128" if real_type(dtype) == np.float64 else "complex64"
    num_states = states_at_once(dtype, runtime.shared_memory_per_multiprocessor) if file == "sweeps.cu" else 2
    code = {"stages": stages} if stages else {}
    return runtime.module(file, **code, **definitions(dtype, tile_qubits, num_states)).function(name)


def definitions(dtype: str, tile_qubits: int | None = None, num_states: int = 2) -> dict[str, int]:
    """Return the macros that a kernel file is compiled with; ``num_states`` is the result of `states_at_once`."""
    registers = REGISTER_QUBITS[dtype]
    return {
        "QF_DOUBLE": int(real_type(dtype) == np.float64),
        "QF_REAL": int(dtype in REAL_FORMAT.values()),
        "QF_TILE_QUBITS": registers if tile_qubits is None else tile_qubits,
        "QF_REGISTER_QUBITS": registers,
        "QF_STATES_AT_ONCE": num_states,
    }


def sweep_shape(runtime: Any, passes: Passes, dtype: str, num_units: int, *, adjoint: bool) -> tuple[int, int, int]:
    """Return the number of blocks of a sweep, the threads of a block, and the bytes of shared memory of a block.

    Args:
        runtime: the device.
        passes: the passes of the plan.
        dtype: format of the amplitudes.
        num_units: number of states that the sweep takes together.
        adjoint: whether the sweep is a backward sweep, whose tiles hold two states.
    """
    tiles, threads = tiles_per_block(passes.tile_qubits, dtype)
    blocks = -(-num_units * passes.num_tiles // tiles)
    num_states = states_at_once(dtype, runtime.shared_memory_per_multiprocessor) if adjoint else 1
    return blocks, threads, shared_memory(passes.tile_qubits, dtype, num_states, adjoint)
