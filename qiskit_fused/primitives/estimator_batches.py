# SPDX-License-Identifier: Apache-2.0
"""Joins the PUBs of one circuit to one batch: its rows of values, its observables, and the requested pairs of both."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from qiskit.primitives.containers.estimator_pub import EstimatorPub

from qiskit_fused.common.row_blocks import are_equal, join_arrays, unique_sorted
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.compilation.observables import CoercedObservables, stack_observables
from qiskit_fused.engines.request import Pairs
from qiskit_fused.primitives.pub_errors import name_row
from qiskit_fused.program.observables import Observables


@dataclass(eq=False)
class Task:
    """A validated PUB.

    Attributes:
        circuit: the circuit or compiled circuit of the PUB.
        compiled: the compiled circuit; None after an error.
        error: the error of compiling the circuit, or None.
        observables: the observables, as a flat list and a shape.
        values: float64 (rows, P), the rows of parameter values.
        values_key: id of the object that holds the values in the PUB; equal ids may share rows.
        shape: shape of the result, the broadcast shape of observables and values.
        values_shape: shape of the rows of values.
        precision: target precision.
        metadata: metadata of the circuit.
        number: number of the PUB, for errors.
        pub: the PUB for ``StatevectorEstimator``, if the circuit needs a fallback.
        evs: the values, once they are evaluated.
    """

    circuit: Any
    compiled: CompiledCircuit | None
    error: Exception | None
    observables: CoercedObservables
    values: np.ndarray
    values_key: int
    shape: tuple[int, ...]
    values_shape: tuple[int, ...]
    precision: float
    metadata: Any
    number: int
    pub: EstimatorPub | None = None
    evs: np.ndarray | None = None

    @property
    def falls_back(self) -> bool:
        """Whether the PUB needs a fallback to ``StatevectorEstimator``."""
        return self.pub is not None


def join_tasks(group: list[Task]) -> tuple[Observables, np.ndarray, list[tuple[int, Task]], Pairs, np.ndarray]:
    """Join the PUBs of one circuit.

    Returns:
        The observables; the rows of values; (first row, PUB) for each PUB that added rows; the pairs; and for each
        value of all PUBs the index of its pair.
    """
    values: dict[int, tuple[int, np.ndarray]] = {}
    operators: dict[int, tuple[int, Any]] = {}
    num_rows = num_observables = 0
    rows, columns = [], []
    owners: list[tuple[int, Task]] = []
    for task in group:
        part = task.observables.operators
        added = values.get(task.values_key)
        if added is None or not are_equal(added[1], task.values):
            values[task.values_key] = (num_rows, task.values)
            owners.append((num_rows, task))
            num_rows += len(task.values)
        if id(part) not in operators:
            operators[id(part)] = (num_observables, part)
            num_observables += part.num_observables
        rows.append(_spread(values[task.values_key][0], task.values_shape, task.shape))
        columns.append(_spread(operators[id(part)][0], task.observables.shape, task.shape))
    row, observable = (np.concatenate(parts) for parts in (rows, columns))
    # Engines need pairs that are sorted by row, each pair once.
    count = max(num_observables, 1)
    key, back = unique_sorted(row * count + observable)
    pairs = Pairs((key // count).astype(np.int32), (key % count).astype(np.int32))
    stacked = stack_observables([part for _, part in operators.values()])
    return stacked, join_arrays([task.values for _, task in owners]), owners, pairs, back


def name_owner(row: int, owners: list[tuple[int, Task]]) -> str:
    """Return the name of a row of the batch for errors: its index in its PUB, and the number of the PUB."""
    first, task = next(owner for owner in reversed(owners) if owner[0] <= row)
    return name_row(row - first, task.values_shape, task.number)


def _spread(offset: int, part_shape: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Return for each element of the broadcast ``shape`` its flat index in an array of ``part_shape``, plus offset."""
    index = np.arange(offset, offset + prod(part_shape))
    return index if part_shape == shape else np.broadcast_to(index.reshape(part_shape), shape).ravel()
