# SPDX-License-Identifier: Apache-2.0
"""How the kernels of ``kernels/cuda/*.cu`` are compiled and launched: their sizes for a number format and a tile."""

from __future__ import annotations

from typing import Any

import numpy as np

from qiskit_fused.engines.cuda.formats import REAL_FORMAT, REGISTER_QUBITS, real_type, shared_memory, tiles_per_block
from qiskit_fused.engines.cuda.passes import Passes


def kernel(runtime: Any, file: str, name: str, dtype: str, tile_qubits: int | None = None) -> Any:
    """Return a kernel; those of sweeps are compiled for one size of tile, and sums know of no amplitudes."""
    if file == "gradients.cu":
        dtype = "complex128" if real_type(dtype) == np.float64 else "complex64"
    return runtime.module(file, **definitions(dtype, tile_qubits)).function(name)


def definitions(dtype: str, tile_qubits: int | None = None) -> dict[str, int]:
    """Return the macros that a kernel file is compiled with."""
    registers = REGISTER_QUBITS[dtype]
    return {
        "QF_DOUBLE": int(real_type(dtype) == np.float64),
        "QF_REAL": int(dtype in REAL_FORMAT.values()),
        "QF_TILE_QUBITS": registers if tile_qubits is None else tile_qubits,
        "QF_REGISTER_QUBITS": registers,
    }


def sweep_shape(passes: Passes, dtype: str, num_units: int, *, adjoint: bool) -> tuple[int, int, int]:
    """Return the blocks of a sweep, their threads and their bytes of shared memory."""
    tiles, threads = tiles_per_block(passes.tile_qubits, dtype)
    blocks = -(-num_units * passes.num_tiles // tiles)
    return blocks, threads, shared_memory(passes.tile_qubits, dtype, adjoint)
