# SPDX-License-Identifier: Apache-2.0
"""The parts of a request that are cut into chunks, what a chunk returns, and states that are kept for the next call."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from qiskit_fused.common.array_modules import array_module
from qiskit_fused.engines.request import Request

if TYPE_CHECKING:
    from qiskit_fused.engines.cuda.device_data import DevicePlan


class WorkItems(NamedTuple):
    """One item for each pair, and one for each row without pairs that is simulated for its final state.

    Attributes:
        row: the row of each item, ascending.
        pairs_before: how many pairs there are before each item, and in all.
    """

    row: np.ndarray
    pairs_before: np.ndarray


def work_items(request: Request) -> WorkItems:
    """Return what a request is cut into."""
    row, boundary = request.pairs.row, request.boundary
    if not boundary.final and boundary.final_cotangents is None:
        return WorkItems(row, np.arange(len(row) + 1))
    num_pairs = np.bincount(row, minlength=request.num_rows)
    num_items = np.maximum(num_pairs, 1)
    is_pair = np.repeat(num_pairs > 0, num_items)
    return WorkItems(np.repeat(np.arange(len(num_pairs)), num_items), np.append(0, np.cumsum(is_pair)))


def take_rows(array: Any, rows: np.ndarray) -> Any:
    """Return some rows, ascending, of an array (B, ...) of a request: a view where they are neighbours."""
    first, last = int(rows[0]), int(rows[-1])
    if last - first + 1 == len(rows):
        return array[first : last + 1]
    return array[array_module(array).asarray(rows)]


def is_summed(request: Request) -> np.ndarray:
    """Return bool (C,): gradients of these columns are summed over rows on the device."""
    summed = request.summed_columns
    return np.zeros(request.num_columns, dtype=bool) if summed is None else summed


class ChunkResult(NamedTuple):
    """What a chunk found: arrays of the device, but for the final states; None for what was not asked for.

    Attributes:
        rows: the rows of the chunk, ascending.
        pairs: the pairs of the chunk.
        values: float64 (pairs,).
        gradients: float64 (units, columns that are not summed), see `chunk` for units.
        sums: float64 (columns that are summed,), over the units.
        state_gradients: complex (units, 2^n), derivatives with respect to the initial states.
        final_states: complex (rows, 2^N) on the host.
        last_states: complex (rows, 2^N), the states behind the last gate, where no gradients are asked for.
    """

    rows: np.ndarray
    pairs: slice
    values: Any
    gradients: Any = None
    sums: Any = None
    state_gradients: Any = None
    final_states: np.ndarray | None = None
    last_states: Any = None


@dataclass(frozen=True, eq=False)
class CachedFinalStates:
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

    def part(self, rows: slice) -> CachedFinalStates:
        """Return the same for some of the rows; states are views."""
        return replace(self, rows=self.rows[rows], columns=self.columns[rows], states=self.states[rows])

    def may_serve(self, plan: DevicePlan, stream: int, request: Request) -> bool:
        """Say whether a request may be about these rows; their columns are still to be compared."""
        return (
            request.gradient is not None
            and self.plan is plan
            and self.stream == stream
            and np.array_equal(np.unique(work_items(request).row), self.rows)
        )
