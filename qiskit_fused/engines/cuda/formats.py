# SPDX-License-Identifier: Apache-2.0
"""Number formats of amplitudes on a GPU, and the tiles of states in each: their qubits, threads and shared memory."""

from __future__ import annotations

from functools import cache

import numpy as np

from qiskit_fused.common.native import CONSTANTS

# The format of the amplitudes of real states, by dtype; complex states have the dtype as their format.
REAL_FORMAT = {"complex64": "float32", "complex128": "float64"}
_SYSTEM_BYTES = 1024  # bytes of shared memory of each block that the system takes
_BANK_BYTES = 128  # number of bytes that the banks of shared memory read at once
# r by format: a thread holds 2^r amplitudes in its registers.
REGISTER_QUBITS = {"complex64": 4, "complex128": 3, "float32": 4, "float64": 4}
# t by format, for states of several tiles: tiles of 2^t amplitudes let two blocks share a multiprocessor.
USUAL_TILE_QUBITS = {"complex64": 12, "complex128": 11, "float32": 12, "float64": 12}
# The largest t by format: a state of t qubits is a single tile, and its block has a multiprocessor to itself.
MAX_TILE_QUBITS = {"complex64": 13, "complex128": 12, "float32": 13, "float64": 12}


def amplitude_format(dtype: str, is_real: bool) -> str:
    """Return the format of the amplitudes for a dtype: real numbers if states stay real."""
    return REAL_FORMAT[dtype] if is_real else dtype


@cache
def real_type(dtype: str) -> np.dtype:
    """Return the dtype of the real numbers of a format."""
    return np.finfo(dtype).dtype


def choose_tile_qubits(
    num_qubits: int, dtype: str, shared_memory_per_block: int | None = None, num_states: int = 2
) -> int:
    """Return t, the largest number of qubits of a tile, for a state of n qubits.

    Args:
        num_qubits: n.
        dtype: format of the amplitudes.
        shared_memory_per_block: bytes of shared memory that a block can have; None means enough for any tile.
        num_states: see `states_at_once`.
    """
    t = num_qubits if num_qubits == MAX_TILE_QUBITS[dtype] else USUAL_TILE_QUBITS[dtype]
    while shared_memory_per_block is not None and shared_memory(t, dtype, num_states) > shared_memory_per_block:
        t -= 1
    return t


@cache
def tiles_per_block(tile_qubits: int, dtype: str) -> tuple[int, int]:
    """Return the number of tiles, and of threads, of a block of a sweep."""
    threads = 1 << (tile_qubits - REGISTER_QUBITS[dtype])
    least = CONSTANTS.min_sweep_threads
    return max(least // threads, 1), max(least, threads)


def tile_bytes(tile_qubits: int, dtype: str) -> int:
    """Return the bytes of a tile in shared memory; kernels/cuda/sweep_tiles.cuh explains the padding."""
    registers, item = REGISTER_QUBITS[dtype], np.dtype(dtype).itemsize
    is_padded = _BANK_BYTES // item == 1 << registers
    return item * ((1 << tile_qubits) + is_padded * (1 << (tile_qubits - registers)))


@cache
def states_at_once(dtype: str, shared_memory_per_multiprocessor: int) -> int:
    """Return the number of states that a backward sweep exchanges together, 1 or 2.

    It is 2 if a multiprocessor has shared memory for two blocks of the usual tiles with both states.

    Args:
        dtype: format of the amplitudes.
        shared_memory_per_multiprocessor: bytes of shared memory of a multiprocessor.
    """
    block = shared_memory(USUAL_TILE_QUBITS[dtype], dtype, 2) + _SYSTEM_BYTES
    return 2 if 2 * block <= shared_memory_per_multiprocessor else 1


@cache
def shared_memory(tile_qubits: int, dtype: str, num_states: int, adjoint: bool = True) -> int:
    """Return the bytes of shared memory of a block of a sweep.

    Args:
        tile_qubits: t.
        dtype: format of the amplitudes.
        num_states: number of states whose tiles are in shared memory at the same time.
        adjoint: whether the sweep is a backward sweep, which stores the sums of each warp too.
    """
    tiles, _ = tiles_per_block(tile_qubits, dtype)
    size = num_states * tiles * tile_bytes(tile_qubits, dtype)
    if adjoint:
        thread_qubits = tile_qubits - REGISTER_QUBITS[dtype]
        lane_qubits = min(thread_qubits, CONSTANTS.warp_qubits)
        entries = CONSTANTS.warp_entries + lane_qubits
        size += 2 * tiles * (entries << (thread_qubits - lane_qubits)) * real_type(dtype).itemsize
    return size
