# SPDX-License-Identifier: Apache-2.0
"""What the CUDA engine is asked, and what one chunk of it answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from qiskit_fused.common.forks import cached_property
from qiskit_fused.engines.interface import Ends
from qiskit_fused.options.method import Method

if TYPE_CHECKING:
    from qiskit_fused.engines.cuda.device_data import DevicePlan


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked: the arguments of `Engine.evaluate`.

    Attributes:
        on_device: columns, cotangents and states are arrays of the device, and so are the answers.
    """

    columns: Any
    rows: np.ndarray
    chosen: np.ndarray
    gradient: bool
    imaginary: bool
    cotangents: Any
    sum_columns: np.ndarray | None
    dtype: str
    method: Method
    ends: Ends
    on_device: bool = False

    @property
    def weighted(self) -> bool:
        """Whether pairs have cotangents."""
        return self.gradient and self.cotangents is not None

    @property
    def final_cotangents(self) -> Any:
        """Cotangents of the final states of rows, or None."""
        return self.ends.final_cotangents if self.gradient else None

    @property
    def per_row(self) -> bool:
        """Whether a row has one cotangent, whatever its pairs."""
        return self.weighted or self.final_cotangents is not None

    @property
    def state_gradients(self) -> bool:
        """Whether gradients with respect to start states are wanted."""
        return self.gradient and self.ends.initial_gradients

    @cached_property
    def entries(self) -> tuple[np.ndarray, np.ndarray]:
        """What is cut into chunks: pairs, and rows that have none but are simulated all the same.

        Returns:
            The row of each entry, ascending, and how many pairs there are before each of them, and in all.
        """
        if not self.ends.final and self.final_cotangents is None:
            return self.rows, np.arange(len(self.rows) + 1)
        num_pairs = np.bincount(self.rows, minlength=len(self.columns))
        num_entries = np.maximum(num_pairs, 1)
        is_pair = np.repeat(num_pairs > 0, num_entries)
        return np.repeat(np.arange(len(num_pairs)), num_entries), np.append(0, np.cumsum(is_pair))

    def of_rows(self, array: Any, rows: np.ndarray, xp: Any) -> Any:
        """Return some rows, ascending, of an array (B, ...) of the question: a view where they are neighbours."""
        first, last = int(rows[0]), int(rows[-1])
        if last - first + 1 == len(rows):
            return array[first : last + 1]
        return array[xp.asarray(rows) if self.on_device else rows]

    @cached_property
    def is_summed(self) -> np.ndarray:
        """Bool (C,): of these columns, gradients are wanted as a sum over rows."""
        if self.per_row and self.sum_columns is not None:
            return self.sum_columns
        return np.zeros(self.columns.shape[1], dtype=bool)


class Answer(NamedTuple):
    """What a chunk found, on the device; None what was not asked for.

    Attributes:
        values: float64 (pairs,).
        gradients: float64 (units, columns that are not summed).
        sums: float64 (columns that are summed,), over the units.
        of_states: complex (units, 2^n), derivatives with respect to the start.
    """

    values: Any
    gradients: Any = None
    sums: Any = None
    of_states: Any = None


@dataclass(frozen=True, eq=False)
class Finals:
    """The last states of the rows of a call for values alone: a call for gradients of the same rows begins there.

    Attributes:
        plan: on the device.
        stream: handle of the stream that made them; in another one their memory could be given away too early.
        rows: int (b,), ascending.
        columns: float64 (b, C), a copy.
        states: complex (b, 2^N).
    """

    plan: DevicePlan
    stream: int
    rows: np.ndarray
    columns: Any
    states: Any

    @property
    def num_bytes(self) -> int:
        """Bytes on the device."""
        return int(self.columns.nbytes + self.states.nbytes)

    def part(self, rows: slice) -> Finals:
        """Return the same for some of the rows; states are views."""
        return replace(self, rows=self.rows[rows], columns=self.columns[rows], states=self.states[rows])

    def may_serve(self, plan: DevicePlan, stream: int, question: Question) -> bool:
        """Say whether a question may be about these rows; their columns are still to be compared."""
        return (
            question.gradient
            and self.plan is plan
            and self.stream == stream
            and np.array_equal(np.unique(question.entries[0]), self.rows)
        )
