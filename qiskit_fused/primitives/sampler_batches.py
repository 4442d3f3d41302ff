# SPDX-License-Identifier: Apache-2.0
"""Evaluates all PUBs of one circuit as one batch, block by block, and draws the shots of each block."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from qiskit.primitives import BitArray
from qiskit.primitives.containers.sampler_pub import SamplerPub

from qiskit_fused.common.byte_sizes import format_bytes
from qiskit_fused.common.free_memory import ALWAYS_FREE, resolve_limit
from qiskit_fused.common.row_blocks import are_equal, join_arrays
from qiskit_fused.common.row_errors import renumbered, shifted
from qiskit_fused.common.text import count_text
from qiskit_fused.engines.cpu.drawing import BYTES_PER_OUTCOME, SHOTS_BETWEEN_CHECKS, draw_shots, find_tables
from qiskit_fused.engines.request import Request, all_pairs
from qiskit_fused.execution.evaluate import evaluate
from qiskit_fused.execution.progress import Progress
from qiskit_fused.execution.row_cuts import check_cancelled, cut_evenly, rows_that_fit, share
from qiskit_fused.options import FusedOptions
from qiskit_fused.primitives.exact_probabilities import ExactProbabilities
from qiskit_fused.primitives.pub_errors import name_row
from qiskit_fused.primitives.sampled_circuits import Readout, SampledCircuit

# Bytes of the arrays of one block of rows. Larger blocks were not faster, because the arrays of a block stay in the
# cache; workers of an executor get larger blocks, which they share.
_BLOCK_BYTES, _SHARED_BLOCK_BYTES = 1 << 25, 1 << 28
_PROBABILITY_BYTES = 16  # bytes of a probability and of its pair of a row and an outcome


@dataclass(eq=False, slots=True)
class Task:
    """A validated PUB.

    Attributes:
        circuit: the circuit of the PUB.
        values: float64 (rows, P), the rows of parameter values.
        values_key: id of the object that holds the values in the PUB; equal ids may share rows.
        shape: shape of the rows.
        shots: number of shots of each row; None asks for exact probabilities.
        number: number of the PUB, for errors.
        stream: number of the random stream of its first row; its other rows have the next numbers.
        pub: the PUB for a simulator of Qiskit, if the circuit needs a fallback.
        first_row: place of its first row among the rows that are simulated.
        fields: the results by the names of classical registers, once they are there.
    """

    circuit: SampledCircuit
    values: np.ndarray
    values_key: int
    shape: tuple[int, ...]
    shots: int | None
    number: int
    stream: int
    pub: SamplerPub | None = None
    first_row: int = 0
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def readout(self) -> Readout:
        """The readout of the circuit, which has no error."""
        assert self.circuit.readout is not None
        return self.circuit.readout


class Batch:
    """The PUBs of one compiled circuit that measure the same qubits.

    Equal rows are simulated once if they are rows of the same array, or if the circuit has no parameters.

    Args:
        tasks: the PUBs.

    Attributes:
        compiled: the compiled circuit.
        values: float64 (R, P), the rows that are simulated.
    """

    def __init__(self, tasks: list[Task]):
        self._tasks = tasks
        self._outcomes = tasks[0].readout.outcomes
        self._owners: list[tuple[int, Task]] = []  # (first row, PUB) for each PUB that added rows
        assert tasks[0].circuit.compiled is not None
        self.compiled = tasks[0].circuit.compiled
        if tasks[0].values.shape[1]:
            self.values = self._join()
        else:
            self.values = np.zeros((min(1, sum(len(task.values) for task in tasks)), 0))
            self._owners.append((0, tasks[0]))

    def _join(self) -> np.ndarray:
        added: dict[int, Task] = {}
        num_rows = 0
        for task in self._tasks:
            other = added.get(task.values_key)
            if other is not None and are_equal(other.values, task.values):
                task.first_row = other.first_row
                continue
            task.first_row = num_rows
            added[task.values_key] = task
            self._owners.append((num_rows, task))
            num_rows += len(task.values)
        return join_arrays([task.values for _, task in self._owners])

    def _name_owner(self, row: int) -> str:
        """Return the name of a row for errors: its index in its PUB, and the number of the PUB."""
        first, task = next(owner for owner in reversed(self._owners) if owner[0] <= row)
        return name_row(row - first, task.shape, task.number)

    def run(self, options: FusedOptions, key: np.ndarray, metrics: dict[str, Any], progress: Progress) -> None:
        """Evaluate all rows, and set the fields of all PUBs.

        Args:
            options: the options of the sampler.
            key: uint64 (2,), the key of the random streams.
            metrics: metrics to which the metrics of this batch are added.
            progress: the progress of the job.

        Raises:
            MemoryError: if the results, or the simulation of one row, do not fit the memory.
        """
        parts: dict[Any, list[Task]] = {}
        for task in self._tasks:
            parts.setdefault((task.shots, task.readout.layout if task.shots else ()), []).append(task)
        sinks: list[_ExactSink | _ShotSink] = []
        for (shots, _), tasks in parts.items():
            if shots is None:
                sinks.append(_ExactSink(tasks, len(self.values)))
            else:
                sinks.append(_ShotSink(tasks, shots, key, options.resolve_num_threads()))
        _check_memory(sinks)
        num_rows, num_outcomes = len(self.values), self._outcomes.num_observables
        budget = _BLOCK_BYTES if options.executor is None else _SHARED_BLOCK_BYTES
        if options.memory_limit is not None:
            budget = min(budget, options.resolve_memory_limit())
        # A gate with a parameter counts as different in all rows, whether or not its values differ in this batch. So
        # the rounding of the probabilities of a row, which may decide a shot, does not depend on values in other rows.
        may_vary = np.ones(self.values.shape[1], dtype=bool)
        bytes_per_row = _PROBABILITY_BYTES * num_outcomes + sum(sink.bytes_per_row(num_outcomes) for sink in sinks)
        for rows in cut_evenly(num_rows, rows_that_fit(budget, bytes_per_row)) if num_rows else ():
            pairs = all_pairs(rows.stop - rows.start, num_outcomes)
            request = Request(self.values[rows], pairs, dtype=options.dtype, may_vary=may_vary)
            watch = share(progress.watch, rows.start, rows.stop, num_rows)
            with renumbered(self._name_owner), shifted(rows.start):
                values = evaluate(options, self.compiled, self._outcomes, request, metrics=metrics, watch=watch).values
            begin = time.perf_counter()
            for sink in sinks:
                for _ in sink.take(rows, values.reshape(-1, num_outcomes)):
                    check_cancelled(progress.watch, rows.stop, num_rows)
            metrics["drawing_seconds"] += time.perf_counter() - begin
        for sink in sinks:
            sink.finish()
            metrics["shots"] += sink.num_shots


class _ExactSink:
    """Keeps the probabilities of all rows, and gives them to PUBs without shots."""

    num_shots = 0

    def __init__(self, tasks: list[Task], num_rows: int):
        self._tasks = tasks
        self.num_rows, self._num_outcomes = num_rows, tasks[0].readout.outcomes.num_observables
        self._joint: np.ndarray | None = None  # float64 (R, 2^k)

    @property
    def num_bytes(self) -> int:
        """Bytes of the results."""
        return 8 * self.num_rows * self._num_outcomes

    def __str__(self) -> str:
        return f"probabilities of {count_text(self._num_outcomes, 'bitstring')} in {count_text(self.num_rows, 'row')}"

    def bytes_per_row(self, num_outcomes: int) -> int:
        """Return the bytes of temporary arrays for each row of a block."""
        return 0

    def take(self, rows: slice, probabilities: np.ndarray) -> Iterator[None]:
        """Take the probabilities of some rows. Yield where the job may be cancelled."""
        if len(probabilities) == self.num_rows:
            self._joint = probabilities
            return
        if self._joint is None:
            self._joint = np.empty((self.num_rows, self._num_outcomes))
        self._joint[rows] = probabilities
        yield

    def finish(self) -> None:
        """Set the fields of the PUBs."""
        joint = np.empty((0, self._num_outcomes)) if self._joint is None else self._joint
        for task in self._tasks:
            num_rows = prod(task.shape)
            if task.values.shape[1]:
                part = joint[task.first_row : task.first_row + num_rows]
            else:
                part = np.broadcast_to(joint[:num_rows], (num_rows, self._num_outcomes))
            part = part.reshape(*task.shape, self._num_outcomes)
            task.fields = {name: ExactProbabilities(part, sources) for name, sources in task.readout.registers}


class _ShotSink:
    """Draws the shots of PUBs with equal numbers of shots and equal registers.

    Draw d is a row of a PUB. Draws are numbered in the order of the rows that are simulated, so that the draws from a
    block of rows are consecutive.
    """

    def __init__(self, tasks: list[Task], shots: int, key: np.ndarray, num_threads: int):
        self._tasks, self._shots, self._key, self._num_threads = tasks, shots, key, num_threads
        sizes = np.array([len(task.values) for task in tasks])
        self._ends = np.cumsum(sizes)
        within = np.arange(self._ends[-1]) - np.repeat(self._ends - sizes, sizes)
        self._streams = (np.repeat([task.stream for task in tasks], sizes) + within).astype(np.uint64)
        self._sources = np.repeat([task.first_row for task in tasks], sizes)
        if tasks[0].values.shape[1]:
            self._sources += within
        self._place: np.ndarray | None = None  # the draw of each row of the PUBs; None: the same number
        if (np.diff(self._sources) < 0).any():
            order = np.argsort(self._sources, kind="stable")
            self._sources, self._streams = self._sources[order], self._streams[order]
            self._place = np.empty_like(order)
            self._place[order] = np.arange(len(order))
        readout = tasks[0].readout
        self._tables = find_tables(readout.layout, len(readout.outcomes.measured))
        self._packed: np.ndarray | None = None  # uint8 (D, shots, bytes)
        self.num_rows = len(self._sources)
        self.num_shots = shots * self.num_rows

    @property
    def num_bytes(self) -> int:
        """Bytes of the results."""
        return self.num_shots * self._tables.num_bytes

    def __str__(self) -> str:
        return f"{count_text(self._shots, 'shot')} of {count_text(self.num_rows, 'row')}"

    def bytes_per_row(self, num_outcomes: int) -> int:
        """Return the bytes of temporary arrays for each row of a block."""
        return BYTES_PER_OUTCOME * num_outcomes

    def take(self, rows: slice, probabilities: np.ndarray) -> Iterator[None]:
        """Draw from the probabilities of some rows. Yield where the job may be cancelled."""
        packed = self._results()
        begin, end = np.searchsorted(self._sources, (rows.start, rows.stop)).tolist()
        for part in cut_evenly(end - begin, rows_that_fit(SHOTS_BETWEEN_CHECKS, self._shots)) if end > begin else ():
            draws = slice(begin + part.start, begin + part.stop)
            sources, streams = self._sources[draws] - rows.start, self._streams[draws]
            for shots in cut_evenly(self._shots, SHOTS_BETWEEN_CHECKS):  # one part, or one draw
                draw_shots(
                    probabilities,
                    sources,
                    streams,
                    self._key,
                    self._tables,
                    packed[draws, shots],
                    first_shot=shots.start,
                    num_threads=self._num_threads,
                )
                yield

    def finish(self) -> None:
        """Set the fields of the PUBs."""
        packed = self._results()
        if self._place is not None:
            packed = packed[self._place]
        registers = [packed]
        if len(self._tables.slices) != 1:
            registers = [np.ascontiguousarray(packed[..., part]) for part in self._tables.slices]
        for task, end in zip(self._tasks, self._ends.tolist()):
            begin = end - len(task.values)
            for (name, sources), array in zip(task.readout.registers, registers):
                task.fields[name] = BitArray(array[begin:end].reshape(*task.shape, *array.shape[1:]), len(sources))

    def _results(self) -> np.ndarray:
        """Return the array of the results, which the first call allocates."""
        if self._packed is None:
            self._packed = np.empty((len(self._sources), self._shots, self._tables.num_bytes), np.uint8)
        return self._packed


def _check_memory(sinks: list[_ExactSink | _ShotSink]) -> None:
    """Raise a MemoryError if the results do not fit the free memory."""
    num_bytes = sum(sink.num_bytes for sink in sinks)
    if num_bytes > ALWAYS_FREE and num_bytes > (free := resolve_limit(None)):
        raise MemoryError(
            f"the {' and the '.join(map(str, sinks))} need {format_bytes(num_bytes)}, {format_bytes(free)} are free; "
            f"{_cure_of(sinks)}."
        )


def _cure_of(sinks: list[_ExactSink | _ShotSink]) -> str:
    """Return what makes the results of sinks smaller."""
    cures = ["run fewer rows at a time"] if any(sink.num_rows > 1 for sink in sinks) else []
    if any(sink.num_shots for sink in sinks):
        cures.append("draw fewer shots")
    if not all(sink.num_shots for sink in sinks):
        cures.append("measure fewer qubits")
    return ", or ".join(cures)
