# SPDX-License-Identifier: Apache-2.0
"""Work items, which are cut into chunks; the result of a chunk; and final states cached for the next call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from qiskit_fused.common.array_modules import array_module
from qiskit_fused.common.caches import BoundedCache
from qiskit_fused.engines.cuda.device_data import DevicePlan
from qiskit_fused.engines.request import Request
from qiskit_fused.engines.split_columns import SplitColumns


class WorkItems(NamedTuple):
    """The work items of a request: one for each pair, and one for each row that is simulated without pairs.

    Attributes:
        row: int (items,), the row of each item, ascending.
        pairs_before: int (items + 1,), the number of pairs before each item, then the number of all pairs.
    """

    row: np.ndarray
    pairs_before: np.ndarray


def work_items(request: Request) -> WorkItems:
    """Return the work items of a request. Rows without pairs have an item if final states go in or come out."""
    row, boundary = request.pairs.row, request.boundary
    if not boundary.final and boundary.final_cotangents is None:
        return WorkItems(row, np.arange(len(row) + 1))
    num_pairs = np.bincount(row, minlength=request.num_rows)
    num_items = np.maximum(num_pairs, 1)
    is_pair = np.repeat(num_pairs > 0, num_items)
    return WorkItems(np.repeat(np.arange(len(num_pairs)), num_items), np.append(0, np.cumsum(is_pair)))


def distinct_rows(row: np.ndarray) -> np.ndarray:
    """Return the distinct numbers of an ascending array in linear time. `np.unique` would sort the array."""
    is_first = np.ones(len(row), dtype=bool)
    np.not_equal(row[1:], row[:-1], out=is_first[1:])
    return row[is_first]


class PairPlaces(NamedTuple):
    """The rows of some work items, and the pairs of each row.

    Attributes:
        rows: int (rows,), the rows of the items, ascending.
        begin_of_row: int32 (rows + 1,), the pairs of ``rows[b]`` are ``begin_of_row[b]:begin_of_row[b + 1]``.
        row_of_pair: int32 (pairs,), index into ``rows``.
    """

    rows: np.ndarray
    begin_of_row: np.ndarray
    row_of_pair: np.ndarray


_PLACES: BoundedCache[PairPlaces] = BoundedCache(32 << 20)  # the bound is in bytes


def place_pairs(row_of_item: np.ndarray, row_of_pair: np.ndarray) -> PairPlaces:
    """Return the rows of work items, and the places of pairs among them; the arguments are ascending.

    The result is cached for read-only pairs that are the items. A training loop has the same pairs at each step.
    """
    is_kept = row_of_item is row_of_pair and not row_of_pair.flags.writeable
    places = _PLACES.get(id(row_of_pair)) if is_kept else None
    if places is None:
        rows = distinct_rows(row_of_item)
        begin_of_row = np.append(np.searchsorted(row_of_pair, rows), len(row_of_pair)).astype(np.int32)
        numbers = np.repeat(np.arange(len(rows), dtype=np.int32), np.diff(begin_of_row))
        places = PairPlaces(rows, begin_of_row, numbers)
        if is_kept:
            _PLACES.put(id(row_of_pair), places, sum(array.nbytes for array in places), row_of_pair)
    return places


def take_rows(array: Any, rows: np.ndarray) -> Any:
    """Return rows of an array (B, ...) of a request, as a view if the rows are consecutive.

    Args:
        array: an array on the host or on the device, or `SplitColumns`.
        rows: the numbers of the rows, ascending.
    """
    first, last = int(rows[0]), int(rows[-1])
    if last - first + 1 == len(rows):
        return array[first : last + 1]
    return array[rows] if isinstance(array, SplitColumns) else array[array_module(array).asarray(rows)]


def is_summed(request: Request) -> np.ndarray:
    """Return bool (C,), the columns whose gradients the device sums over rows."""
    summed = request.summed_columns
    return np.zeros(request.num_columns, dtype=bool) if summed is None else summed


class ChunkNumbers(NamedTuple):
    """The numbers that a chunk returns: parts of one array, so that one copy brings all of them to the host.

    Attributes:
        all: float64, the values, then the gradients, then the sums.
        values: float64 (pairs,).
        gradients: float64 (units, columns that are not summed); `chunk` defines units.
        sums: float64 (summed columns,), the gradients summed over the units.
    """

    all: Any
    values: Any
    gradients: Any
    sums: Any

    @classmethod
    def parts_of(cls, numbers: Any, num_values: int, gradients_shape: tuple[int, int]) -> ChunkNumbers:
        """Cut an array into its parts."""
        end = num_values + gradients_shape[0] * gradients_shape[1]
        return cls(numbers, numbers[:num_values], numbers[num_values:end].reshape(gradients_shape), numbers[end:])

    def copied(self, fetch: Callable[[Any], Any]) -> ChunkNumbers:
        """Return the same parts of a copy of the array, which ``fetch`` makes."""
        return self.parts_of(fetch(self.all), len(self.values), self.gradients.shape)


class ChunkResult(NamedTuple):
    """The result of a chunk. Arrays are on the device unless stated; an array is None if the request needs none.

    Attributes:
        rows: the rows of the chunk, ascending.
        pairs: the pairs of the chunk.
        numbers: the values, and with gradients the gradients and their sums.
        state_gradients: complex (units, 2^n), the gradients of the initial states.
        final_states: complex (rows, 2^N), the final states that are returned, on the host unless the request keeps them
            on the device.
        device_final_states: complex (rows, 2^N), the final states of the sweep; None if the request has gradients.
    """

    rows: np.ndarray
    pairs: slice
    numbers: ChunkNumbers
    state_gradients: Any = None
    final_states: Any = None
    device_final_states: Any = None


@dataclass(frozen=True, eq=False)
class CachedFinalStates:
    """The final states of a call for values. A call for gradients of the same rows starts from them.

    Attributes:
        plan: the plan on the device.
        stream: handle of the stream in which the states were computed. Only a call in the same stream may use them; the
            memory pool could give their memory to later work of their stream while another stream still reads it.
        rows: int (b,), the rows, ascending.
        columns: a copy of the columns of these rows, on the host if the call had them on the host.
        states: complex (b, 2^N), the final states.
    """

    plan: DevicePlan
    stream: int
    rows: np.ndarray
    columns: SplitColumns
    states: Any

    @property
    def num_bytes(self) -> int:
        """Bytes of device memory."""
        columns = self.columns
        of_columns = columns.varying.nbytes + columns.shared.nbytes if columns.is_on_device else 0
        return int(of_columns + self.states.nbytes)

    def part(self, rows: slice) -> CachedFinalStates:
        """Return the final states of a slice of the rows, as views."""
        return replace(self, rows=self.rows[rows], columns=self.columns[rows], states=self.states[rows])

    def may_serve(self, plan: DevicePlan, stream: int, request: Request) -> bool:
        """Return whether a request may start from these states. The chunk still has to compare the columns."""
        return (
            request.gradient is not None
            and self.plan is plan
            and self.stream == stream
            and self.columns.is_on_device == request.is_on_device
            and np.array_equal(place_pairs(work_items(request).row, request.pairs.row).rows, self.rows)
        )
