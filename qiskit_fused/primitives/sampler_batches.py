# SPDX-License-Identifier: Apache-2.0
"""Evaluates all PUBs of one circuit as one batch, block by block, and draws the shots of each block."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from qiskit_fused.common.caches import keeps
from qiskit_fused.common.row_blocks import are_equal, join_arrays
from qiskit_fused.common.row_errors import renumbered, shifted
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.compilation.measurements import MeasuredRegister, Measurements
from qiskit_fused.engines.request import Request, all_pairs
from qiskit_fused.execution.evaluate import evaluate
from qiskit_fused.execution.progress import Progress
from qiskit_fused.execution.row_cuts import cut_evenly, rows_that_fit, share
from qiskit_fused.options import FusedOptions
from qiskit_fused.primitives.exact_probabilities import ExactProbabilities
from qiskit_fused.primitives.pub_errors import name_row
from qiskit_fused.primitives.sample_drawing import BitPacker, draw_outcomes
from qiskit_fused.program.outcomes import Outcomes

_BLOCK_BYTES = 1 << 25  # bytes of the probabilities of a block of rows, and of everything that is made of them
_BYTES_PER_OUTCOME = 24  # a probability, the numbers of its row and of its outcome, and its place in a sum
_BYTES_PER_SHOT = 8  # an outcome and its packed bits


@dataclass(eq=False, slots=True)
class Task:
    """A validated PUB.

    Attributes:
        circuit: the circuit or compiled circuit of the PUB.
        readout: what is simulated and read out; None after an error.
        error: the error of compiling the circuit, or None.
        values: float64 (rows, P), the rows of parameter values.
        values_key: id of the object that holds the values in the PUB; equal ids may share rows.
        shape: shape of the rows.
        shots: number of shots of each row; None asks for exact probabilities.
        number: number of the PUB, for errors.
        stream: number of the random stream of its first row; the other rows have the following streams.
        pub: the PUB for a simulator of Qiskit, if the circuit needs a fallback.
        first_row: position of its first row among the rows that are simulated.
        fields: the results, one for each classical register, once they are there.
    """

    circuit: Any
    readout: Readout | None
    error: Exception | None
    values: np.ndarray
    values_key: int
    shape: tuple[int, ...]
    shots: int | None
    number: int
    stream: int
    pub: Any = None
    first_row: int = 0
    fields: dict[str, Any] = field(default_factory=dict)


class Readout:
    """A compiled circuit, the joint outcomes of its measured qubits, and the bits of its classical registers.

    Measured qubits on which no gate acts are always 0, and are left out of the outcomes.

    Attributes:
        compiled: the compiled circuit.
        outcomes: the bitstrings of the k measured qubits.
        registers: the classical registers; the sources of their bits are positions among the k measured qubits.
    """

    def __init__(self, compiled: CompiledCircuit, measurements: Measurements):
        self.compiled = compiled
        is_active = compiled.program.wires[measurements.qubits] >= 0
        position = np.append(np.where(is_active, np.cumsum(is_active) - 1, -1), -1)  # the source -1 stays -1
        self.registers = tuple(MeasuredRegister(name, position[sources]) for name, sources in measurements.registers)
        self.outcomes = _outcomes(compiled.num_qubits, measurements.qubits[is_active].tobytes())

    @property
    def num_measured(self) -> int:
        """K, the number of measured qubits that are simulated."""
        return len(self.outcomes.measured)


def _count_bytes(outcomes: Outcomes) -> int:
    return outcomes.measured.nbytes


@keeps(8 << 20, _count_bytes)
def _outcomes(num_qubits: int, qubits: bytes) -> Outcomes:
    """Return the outcomes of measured qubits; the same object for the same qubits, so that engines know it again."""
    return Outcomes(num_qubits, np.frombuffer(qubits, dtype=np.int64))


class Batch:
    """The PUBs of one circuit that measure the same qubits.

    Args:
        tasks: the PUBs.

    Attributes:
        values: float64 (R, P), the rows that are simulated. Equal rows are simulated once if they are rows of the same
            array, or if the circuit has no parameters.
    """

    def __init__(self, tasks: list[Task]):
        assert tasks[0].readout is not None
        self.tasks, self.readout = tasks, tasks[0].readout
        self.owners: list[tuple[int, Task]] = []  # (first row, PUB) for each PUB that added rows
        if tasks[0].values.shape[1]:
            self.values = self._join()
        else:
            self.values = np.zeros((int(any(prod(task.shape) for task in tasks)), 0))
            self.owners.append((0, tasks[0]))

    def _join(self) -> np.ndarray:
        added: dict[int, Task] = {}
        num_rows = 0
        for task in self.tasks:
            other = added.get(task.values_key)
            if other is not None and are_equal(other.values, task.values):
                task.first_row = other.first_row
                continue
            task.first_row = num_rows
            added[task.values_key] = task
            self.owners.append((num_rows, task))
            num_rows += len(task.values)
        return join_arrays([task.values for _, task in self.owners])

    def name_owner(self, row: int) -> str:
        """Return the name of a row for errors: its index in its PUB, and the number of the PUB."""
        first, task = next(owner for owner in reversed(self.owners) if owner[0] <= row)
        return name_row(row - first, task.shape, task.number)

    def run(self, options: FusedOptions, key: np.ndarray, metrics: dict[str, Any], progress: Progress) -> None:
        """Evaluate all rows, and set the fields of all PUBs."""
        readout = self.readout
        num_rows, num_outcomes = len(self.values), readout.outcomes.num_observables
        parts: dict[int | None, list[Task]] = {}
        for task in self.tasks:
            parts.setdefault(task.shots, []).append(task)
        sinks = [
            _ExactSink(tasks, num_rows, readout) if shots is None else _ShotSink(tasks, shots, readout, key)
            for shots, tasks in parts.items()
        ]
        budget = min(options.resolve_memory_limit() if options.memory_limit else _BLOCK_BYTES, _BLOCK_BYTES)
        per_row = _BYTES_PER_OUTCOME * num_outcomes + sum(sink.bytes_per_row for sink in sinks)
        for rows in cut_evenly(num_rows, rows_that_fit(budget, per_row)) if num_rows else ():
            request = Request(self.values[rows], all_pairs(rows.stop - rows.start, num_outcomes), dtype=options.dtype)
            watch = share(progress.watch, rows.start, rows.stop, num_rows)
            with renumbered(self.name_owner), shifted(rows.start):
                evaluation = evaluate(
                    options, readout.compiled, readout.outcomes, request, metrics=metrics, watch=watch
                )
            probabilities = evaluation.values.reshape(-1, num_outcomes)
            begin = time.perf_counter()
            for sink in sinks:
                sink.take(rows, probabilities)
            metrics["drawing_seconds"] = metrics.get("drawing_seconds", 0) + time.perf_counter() - begin
        for sink in sinks:
            sink.finish()
            metrics["shots"] += sink.num_shots


class _ExactSink:
    """Keeps the probabilities of all rows."""

    bytes_per_row = num_shots = 0

    def __init__(self, tasks: list[Task], num_rows: int, readout: Readout):
        self._tasks = tasks
        self._joint = np.empty((num_rows, readout.outcomes.num_observables))

    def take(self, rows: slice, probabilities: np.ndarray) -> None:
        self._joint[rows] = probabilities

    def finish(self) -> None:
        for task in self._tasks:
            assert task.readout is not None
            num_rows = prod(task.shape)
            if task.values.shape[1]:
                joint = self._joint[task.first_row : task.first_row + num_rows]
            else:
                joint = np.broadcast_to(self._joint, (num_rows, self._joint.shape[1]))
            joint = joint.reshape(*task.shape, -1)
            task.fields = {name: ExactProbabilities(joint, sources) for name, sources in task.readout.registers}


class _ShotSink:
    """Draws the shots of PUBs with equal numbers of shots."""

    def __init__(self, tasks: list[Task], shots: int, readout: Readout, key: np.ndarray):
        self._tasks, self._shots, self._key = tasks, shots, key
        sizes = np.array([prod(task.shape) for task in tasks])
        self._ends = np.cumsum(sizes)
        within = np.arange(self._ends[-1]) - np.repeat(self._ends - sizes, sizes)
        self._sources = np.repeat([task.first_row for task in tasks], sizes)
        if tasks[0].values.shape[1]:
            self._sources += within
        self._streams = (np.repeat([task.stream for task in tasks], sizes) + within).astype(np.uint64)
        self._packers: dict[tuple[int, ...], BitPacker] = {}
        self._packed: dict[tuple[int, ...], np.ndarray] = {}
        for task in tasks:
            assert task.readout is not None
            for _, sources in task.readout.registers:
                places = tuple(sources.tolist())
                if places not in self._packers:
                    packer = self._packers[places] = BitPacker(sources, readout.num_measured)
                    self._packed[places] = np.empty((len(self._sources), shots, packer.num_bytes), np.uint8)
        self.num_shots = shots * len(self._sources)
        self.bytes_per_row = _BYTES_PER_SHOT * shots

    def take(self, rows: slice, probabilities: np.ndarray) -> None:
        chosen = np.flatnonzero((self._sources >= rows.start) & (self._sources < rows.stop))
        outcomes = draw_outcomes(
            probabilities, self._sources[chosen] - rows.start, self._streams[chosen], self._key, self._shots
        )
        for places, packer in self._packers.items():
            self._packed[places][chosen] = packer.pack(outcomes)

    def finish(self) -> None:
        from qiskit.primitives import BitArray

        for task, end in zip(self._tasks, self._ends.tolist()):
            assert task.readout is not None
            for name, sources in task.readout.registers:
                packed = self._packed[tuple(sources.tolist())][end - prod(task.shape) : end]
                task.fields[name] = BitArray(packed.reshape(*task.shape, *packed.shape[1:]), len(sources))
