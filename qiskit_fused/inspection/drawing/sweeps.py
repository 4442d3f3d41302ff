# SPDX-License-Identifier: Apache-2.0
"""FusedProgram -> sweeps: the order in which each engine executes phases and layers, for pictures.

The work is counted in *steps*. On the CPU, step k is phase k and layer k: one sweep, but the next sweep executes the
rotations outside the window of the sweep, and each dense gate takes one more. On a GPU, a sweep is a window of many
steps (see `tiling`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from qiskit_fused.common.native import CONSTANTS
from qiskit_fused.engines.cpu.costs import chunk_bits, num_positions, num_sweeps
from qiskit_fused.engines.cpu.native_plan import windows
from qiskit_fused.engines.cuda.formats import REGISTER_QUBITS, amplitude_format, choose_tile_qubits
from qiskit_fused.engines.cuda.passes import cover
from qiskit_fused.engines.cuda.tiling import make_windows
from qiskit_fused.fusion.fused_program import FusedProgram

_BLOCK_QUBITS = CONSTANTS.widest_block_qubits  # strided qubits that the widest vectors rotate in one block


class SweepPart(NamedTuple):
    """The part of one step that one sweep executes.

    Attributes:
        sweep: number of the sweep, 1, 2, ...
        window: bits that a tile of the sweep holds.
        terms: terms that are applied before the blocks; None if an earlier sweep applied the terms of the step.
        blocks: lists of runs; the runs of a block are rotated together in registers.
        dense: dense gates, at most one in a part.
        maps: linear maps, at most one in a part.
    """

    sweep: int
    window: tuple[int, ...]
    terms: Sequence[int] | None
    blocks: list[list[int]]
    dense: Sequence[int] = ()
    maps: Sequence[int] = ()


def _lane_bits(dtype: str) -> int:
    """Return log2 of the numbers in the widest vectors."""
    return (2 * CONSTANTS.widest_vector_bytes // np.dtype(dtype).itemsize).bit_length() - 1


class CpuSweeps:
    """Sweeps of the CPU engine, with the blocks of its widest vectors.

    Attributes:
        unit: name of a step.
        where: device or chunks on which the sweeps run, for a title.
        num_steps, num_sweeps: number of steps and of sweeps of the forward pass.
        num_positions: number of states that a backward pass needs (see `checkpointing`); position p is the state before
            a step.
        num_start_sweeps: number of first sweeps, which write the product state of |0...0> after layer 0.
        cut_from: lowest bit along which a sweep cuts the state into chunks.
    """

    unit = "layer"

    def __init__(self, fused: FusedProgram, dtype: str):
        self._fused, self._lanes = fused, _lane_bits(dtype)
        self.num_steps, self.num_sweeps = fused.num_layers + 1, num_sweeps(fused)
        self.num_positions = num_positions(fused)
        n, bits = fused.num_qubits, chunk_bits(fused.num_qubits)
        self.cut_from, self.where = n - 2 * bits, f", in {1 << bits} chunks" if bits else ""
        self._windows = windows(fused, dtype)
        self._window_bits = [(*range(n - bits),), (*range(n - 2 * bits), *range(n - bits, n))]
        self.num_start_sweeps = 1 if fused.starts_at_zero and fused.num_layers else 0

    def step_after(self, position: int) -> int:
        """Return the step that starts from a position; ``num_steps`` for the last position."""
        return self.num_steps - self.num_positions + position

    def end(self, step: int) -> int:
        """Return the step that starts from the first position after ``step``."""
        return step + 1

    def parts(self, step: int) -> Iterator[SweepPart]:
        """Yield the parts of a step, one for each sweep that executes some of it."""
        fused = self._fused
        gates = range(*np.searchsorted(fused.dense_layer, [step, step + 1]).tolist())
        sweep = 1 + step + gates.start
        terms, runs = (
            range(*np.searchsorted(of, [step, step + 1]).tolist()) for of in (fused.term_phase, fused.run_layer)
        )
        window, other = (self._window_bits[at] for at in (self._windows[step], 1 - self._windows[step]))
        bits = fused.run_qubit[runs.start : runs.stop].tolist()
        lanes = [run for run, bit in zip(runs, bits) if bit < self._lanes]
        strided = [run for run, bit in zip(runs, bits) if bit >= self._lanes and bit in window]
        pending = [run for run, bit in zip(runs, bits) if bit not in window]
        maps = range(*np.searchsorted(fused.map_layer, [step, step + 1]).tolist())
        yield SweepPart(sweep, window, terms, ([lanes] if lanes else []) + _in_blocks(strided), maps=maps)
        for number, gate in enumerate(gates, 1):
            yield SweepPart(sweep + number, tuple(range(fused.num_qubits)), None, [], [gate])
        if pending:
            yield SweepPart(sweep + 1 + len(gates), other, None, _in_blocks(pending))


class CudaSweeps:
    """Sweeps of the CUDA engine, with the attributes of `CpuSweeps`; position p is the state after the first p windows.

    Cost: the cost of `make_windows`.
    """

    unit, where = "step", ", on a GPU"
    num_start_sweeps = 0

    def __init__(self, fused: FusedProgram, dtype: str):
        dtype = amplitude_format(dtype, fused.stays_real())
        self._fused, self._registers = fused, REGISTER_QUBITS[dtype]
        self._tile = max(min(fused.num_qubits, choose_tile_qubits(fused.num_qubits, dtype)), self._registers)
        windows = make_windows(fused, self._tile, self._registers)
        self._steps = [(number, window, step) for number, window in enumerate(windows, 1) for step in window.steps]
        self._ends = np.cumsum([0] + [len(window.steps) for window in windows]).tolist()
        self.num_steps, self.num_sweeps = len(self._steps), len(windows)
        self.num_positions, self.cut_from = max(len(windows), 1), fused.num_qubits

    def step_after(self, position: int) -> int:
        """Return the step that starts from a position; ``num_steps`` for the last position."""
        return self._ends[min(position, self.num_sweeps)]

    def end(self, step: int) -> int:
        """Return the step that starts from the first position after ``step``."""
        return self._ends[self._steps[step][0]]

    def parts(self, step: int) -> Iterator[SweepPart]:
        """Yield the one part of a step, which one sweep executes."""
        sweep, window, work = self._steps[step]
        run_at = {window.qubits.index(self._fused.run_qubit[run]): run for run in work.runs}
        groups = cover(list(run_at), self._tile - self._registers, self._tile, self._registers)
        yield SweepPart(sweep, window.qubits, work.terms, [[run_at[bit] for bit in bits] for _, bits in groups])


def _in_blocks(runs: list[int]) -> list[list[int]]:
    return [runs[i : i + _BLOCK_QUBITS] for i in range(0, len(runs), _BLOCK_QUBITS)]
