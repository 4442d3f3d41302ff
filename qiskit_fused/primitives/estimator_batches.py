# SPDX-License-Identifier: Apache-2.0
"""The PUBs of one circuit -> one batch: each array of values and each observable once, and the pairs asked for."""

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
    """A PUB, ready to run: rows of values, flat observables, and the shapes that broadcast them."""

    circuit: Any  # a circuit, or a compiled one
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
        """Whether another estimator is to run it."""
        return self.pub is not None


def join_tasks(group: list[Task]) -> tuple[Observables, np.ndarray, list[tuple[int, Task]], Pairs, np.ndarray]:
    """Join the PUBs of one circuit.

    Returns:
        The observables, the rows, the first row of each PUB that has rows of its own, the pairs that are asked for, and
        for each value of all PUBs its pair.
    """
    values: dict[int, tuple[int, np.ndarray]] = {}
    operators: dict[int, tuple[int, Any]] = {}
    num_rows = num_observables = 0
    rows, columns = [], []
    owners: list[tuple[int, Task]] = []
    for task in group:
        part = task.observables.operators
        known = values.get(task.values_key)
        if known is None or not are_equal(known[1], task.values):
            values[task.values_key] = (num_rows, task.values)
            owners.append((num_rows, task))
            num_rows += len(task.values)
        if id(part) not in operators:
            operators[id(part)] = (num_observables, part)
            num_observables += part.num_observables
        rows.append(_spread(values[task.values_key][0], task.values_shape, task.shape))
        columns.append(_spread(operators[id(part)][0], task.observables.shape, task.shape))
    row, observable = (np.concatenate(parts) for parts in (rows, columns))
    # the engine wants pairs sorted by row, and each only once
    count = max(num_observables, 1)
    key, back = unique_sorted(row * count + observable)
    pairs = Pairs((key // count).astype(np.int32), (key % count).astype(np.int32))
    stacked = stack_observables([part for _, part in operators.values()])
    return stacked, join_arrays([task.values for _, task in owners]), owners, pairs, back


def name_owner(row: int, owners: list[tuple[int, Task]]) -> str:
    """Name a row of several PUBs, of which each begins at some row, as a row of its PUB."""
    first, task = next(owner for owner in reversed(owners) if owner[0] <= row)
    return name_row(row - first, task.values_shape, task.number)


def _spread(offset: int, own: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Return the flat index into an array of shape ``own`` of each element of the broadcast ``shape``."""
    index = np.arange(offset, offset + prod(own))
    return index if own == shape else np.broadcast_to(index.reshape(own), shape).ravel()
