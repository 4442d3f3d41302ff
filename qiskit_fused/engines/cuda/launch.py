# SPDX-License-Identifier: Apache-2.0
"""How the kernels of ``kernels/cuda/*.cu`` are compiled and launched: their sizes for a number format and a tile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qiskit_fused.engines.cuda.memory import REAL_FORMAT, REGISTER_QUBITS, real_type

if TYPE_CHECKING:
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


def tiles_per_block(tile_qubits: int, dtype: str) -> tuple[int, int]:
    """Return the tiles and the threads of a block of a sweep."""
    threads = 1 << (tile_qubits - REGISTER_QUBITS[dtype])
    return max(128 // threads, 1), max(128, threads)


def shared_memory(tile_qubits: int, dtype: str, adjoint: bool = True) -> int:
    """Return the bytes of shared memory of a block of a sweep: its tiles of each state, and sums of each warp."""
    tiles, _ = tiles_per_block(tile_qubits, dtype)
    item = np.dtype(dtype).itemsize
    size = (2 if adjoint else 1) * tiles * item << tile_qubits
    if adjoint:
        thread_qubits = tile_qubits - REGISTER_QUBITS[dtype]
        lane_qubits = min(thread_qubits, 5)
        entries = 3 * 4 + 1 + lane_qubits
        size += 2 * tiles * (entries << (thread_qubits - lane_qubits)) * real_type(dtype).itemsize
    return size


def sweep_shape(passes: Passes, dtype: str, num_units: int, *, adjoint: bool) -> tuple[int, int, int]:
    """Return the blocks of a sweep, their threads and their bytes of shared memory."""
    tiles, threads = tiles_per_block(passes.tile_qubits, dtype)
    blocks = -(-num_units * passes.num_tiles // tiles)
    return blocks, threads, shared_memory(passes.tile_qubits, dtype, adjoint)
