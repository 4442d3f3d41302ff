# SPDX-License-Identifier: Apache-2.0
"""Addresses beyond 2^32: a few blocks of launches over states of up to 33 qubits run, on memory that is used sparsely.

The memory of a state of 64 GiB is reserved but not provided: the system provides a page at its first use.
"""

import mmap

import numpy as np
import pytest
from cuda_emulation import EmulatedRuntime, missing_tools

from qiskit_fused.engines.cuda import records
from qiskit_fused.engines.cuda.launch import kernel

pytestmark = pytest.mark.skipif(missing_tools() is not None, reason=str(missing_tools()))
TILE_QUBITS, THREADS = 12, 256
SIZES = [(31, 1), (33, 1), (32, 3), (26, 200)]  # qubits and rows; the last has more than 2^33 amplitudes in all


def sparse_array(num_rows, num_qubits):
    """Return zeros, complex64 (num_rows * 2^num_qubits,), whose pages do not exist before their first use."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
    try:
        memory = mmap.mmap(-1, 8 * num_rows << num_qubits, flags=flags)
    except OSError as error:
        pytest.skip(f"the system reserves no memory of this size: {error}")
    return np.frombuffer(memory, np.complex64)


def some_blocks(grid):
    return sorted({0, 1, grid // 2, grid // 2 + 1, grid - 2, grid - 1})


def addresses_of_tile(block, num_qubits, low, high):
    """Return the indices (2^12,) of the amplitudes of a tile in an array of states, by the definition of a window."""
    end = high + TILE_QUBITS - low
    held, outside = [*range(low), *range(high, end)], [*range(low, high), *range(end, num_qubits)]
    row, tile = divmod(block, 1 << (num_qubits - TILE_QUBITS))
    base = (row << num_qubits) + sum((tile >> k & 1) << bit for k, bit in enumerate(outside))
    index = np.arange(1 << TILE_QUBITS)
    return base + sum((index >> k & 1) << bit for k, bit in enumerate(held))


def checked_runtime():
    runtime = EmulatedRuntime(check=True)
    runtime.in_place, runtime.selected_blocks = True, some_blocks
    return runtime


@pytest.mark.parametrize("window", ["low", "high", "wrapped"])
@pytest.mark.parametrize(("num_qubits", "num_rows"), SIZES)
def test_sweeps_read_and_write_the_amplitudes_of_their_tile(num_qubits, num_rows, window):
    low, high = {"low": (12, 12), "high": (3, num_qubits - 9), "wrapped": (7, num_qubits - 5)}[window]
    runtime, source, target = checked_runtime(), *(sparse_array(num_rows, num_qubits) for _ in range(2))
    grid, expected = num_rows << (num_qubits - TILE_QUBITS), {}
    rng = np.random.default_rng(0)
    for block in some_blocks(grid):
        expected[block] = rng.normal(size=1 << TILE_QUBITS).astype(np.complex64)
        source[addresses_of_tile(block, num_qubits, low, high)] = expected[block]
    sizes = np.int32(num_qubits), np.int32(num_rows), np.int32(low), np.int32(high)
    launch = kernel(runtime, "sweeps.cu", "forward_sweep", "complex64", TILE_QUBITS)
    launch(grid, THREADS, (source, target, *sizes, None, np.int32(0), *[None] * 5), 1 << 16)
    for block, amplitudes in expected.items():  # a block makes as many stores as its tile has amplitudes
        assert np.array_equal(target[addresses_of_tile(block, num_qubits, low, high)], amplitudes)


@pytest.mark.parametrize(("num_qubits", "num_rows"), SIZES)
def test_observables_read_the_amplitudes_that_they_flip(num_qubits, num_rows):
    runtime, psi = checked_runtime(), sparse_array(num_rows, num_qubits)
    flip, num_chunks, rng = 1 << (num_qubits - 1), 1 << (num_qubits - 10), np.random.default_rng(0)
    group, term = np.zeros(1, records.GROUP), np.zeros(1, records.OBSERVABLE_TERM)
    group["flip"], group["end_term"], term["re"] = flip, 1, 1.0
    grid, expected = num_rows * num_chunks, {}
    for block in some_blocks(grid):
        index = block * 1024 + np.arange(1024)
        psi[index], psi[index ^ flip] = rng.normal(size=(2, 1024))
    for block in some_blocks(grid):
        index = block * 1024 + np.arange(1024)
        expected[block] = (psi[index].real.astype(float) * psi[index ^ flip].real).sum()
    partial, begin = np.zeros(grid), np.arange(num_rows + 1, dtype=np.int32)
    arguments = (psi, None, begin, np.zeros(num_rows, np.int32), np.array([0, 1], np.int32), group, term, None, None)
    launch = kernel(runtime, "observe.cu", "observe", "complex64")
    launch(grid, 256, (*arguments, np.int32(num_qubits), np.int32(0), partial))
    for block, value in expected.items():
        np.testing.assert_allclose(partial[block], value, rtol=1e-5)
