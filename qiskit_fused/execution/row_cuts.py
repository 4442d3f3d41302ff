# SPDX-License-Identifier: Apache-2.0
"""Cuts the rows of a request into slices, evaluates the slices one after the other, and joins their results.

Four modules bound the number of rows that are evaluated at a time: `row_functions` by the arrays of a block of rows,
`evaluate` by all bytes of an evaluation, `initial_states` by the states in which rows start, and `shared_evaluation` by
the states between the parts that rows share. The portions of an executor are slices too (`executor`). The CUDA engine
cuts pairs instead of rows, since only this engine knows the memory of its device.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from itertools import pairwise
from typing import Any

from qiskit_fused.common.array_modules import array_module
from qiskit_fused.common.cancellation import CANCELLED
from qiskit_fused.common.row_errors import shifted
from qiskit_fused.engines.evaluation import Evaluation
from qiskit_fused.engines.interface import Watch
from qiskit_fused.engines.request import Request

Evaluate = Callable[[Request, Watch | None], Evaluation]


def rows_that_fit(num_bytes: int, bytes_per_row: float, least: int = 1) -> int:
    """Return how many rows of ``bytes_per_row`` fit into ``num_bytes``, at least ``least``."""
    return max(int(num_bytes / max(bytes_per_row, 1)), least)


def cut_evenly(num_rows: int, most_rows: int) -> list[slice]:
    """Cut rows into slices of nearly equal length, none longer than ``most_rows``. 0 rows give one empty slice."""
    return cut_into(max(-(-num_rows // max(most_rows, 1)), 1), num_rows)


def cut_into(count: int, num_rows: int) -> list[slice]:
    """Cut rows into ``count`` slices of nearly equal length."""
    return [slice(*ends) for ends in pairwise(num_rows * number // count for number in range(count + 1))]


def share(watch: Watch | None, begin: int, end: int, whole: int) -> Watch | None:
    """Return a watch for a part of the work, which tells the progress of the part to the watch of the whole work.

    Args:
        watch: the watch of the whole work, or None.
        begin: work before the part, in the unit of ``whole``.
        end: work before the end of the part.
        whole: the whole work.
    """
    if watch is None or (begin, end) == (0, whole):
        return watch
    return lambda done, total: watch(begin * total + (end - begin) * done, whole * total)


def check_cancelled(watch: Watch | None, done: int, whole: int) -> None:
    """Tell a watch how much is done, and ask whether to end the work.

    This is for the time between two parts of the work: an engine calls a watch only during long work.

    Raises:
        RuntimeError: when ``watch`` ends the work.
    """
    if watch is not None and watch(done, whole):
        raise RuntimeError(CANCELLED)


def evaluate_slice(request: Any, rows: slice, evaluate: Callable[..., Any], watch: Watch | None) -> Any:
    """Return the result of ``evaluate`` for some rows of a request. Errors name the numbers of rows in the request.

    Args:
        request: a `Request`, a `RowBatch`, or another object with ``num_rows`` and ``rows(slice)``.
        rows: the slice of rows.
        evaluate: called with the request of these rows and a watch.
        watch: told the progress of all rows.
    """
    if rows.start:
        check_cancelled(watch, rows.start, request.num_rows)
    with shifted(rows.start):
        return evaluate(request.rows(rows), share(watch, rows.start, rows.stop, request.num_rows))


def evaluate_slices(request: Request, slices: Iterable[slice], evaluate: Evaluate, watch: Watch | None) -> Evaluation:
    """Evaluate slices of a request, one after the other, and return the evaluation of the request."""
    joined = JoinedEvaluation(request)
    for rows in slices:
        joined.add(rows, evaluate_slice(request, rows, evaluate, watch))
    return joined.evaluation()


class JoinedArrays(dict[Hashable, Any]):
    """Arrays of all rows, which are filled part by part. An array that comes as one part is kept without a copy."""

    def put(self, name: Hashable, part: Any, place: slice, length: int) -> None:
        """Copy a part to its place in the array of that name; the first part makes the array, of that length."""
        if part is None:
            self.setdefault(name, None)
        elif place == slice(0, length):
            self[name] = part
        else:
            if name not in self:
                self[name] = array_module(part).empty((length, *part.shape[1:]), dtype=part.dtype)
            self[name][place] = part


class JoinedEvaluation:
    """Joins the evaluations of slices of rows to the evaluation of a request, with the stats of the first slice."""

    def __init__(self, request: Request):
        self._request, self._arrays = request, JoinedArrays()
        self._first: Evaluation | None = None

    def add(self, rows: slice, evaluation: Evaluation) -> None:
        """Add the evaluation of some rows."""
        request, put = self._request, self._arrays.put
        if self._first is None:
            self._first = evaluation
            if rows == slice(0, request.num_rows):
                return
        num_rows, num_pairs = request.num_rows, request.num_pairs
        pairs = request.pairs.of_rows(rows)
        gradient_place = (rows, num_rows) if request.gradients_are_per_row else (pairs, num_pairs)
        put("values", evaluation.values, pairs, num_pairs)
        put("gradients", evaluation.gradients, *gradient_place)
        put("state_gradients", evaluation.state_gradients, *gradient_place)
        put("final_states", evaluation.final_states, rows, num_rows)

    def evaluation(self) -> Evaluation:
        """Return the evaluation of all rows."""
        assert self._first is not None
        if not self._arrays:
            return self._first
        return Evaluation(**{str(name): array for name, array in self._arrays.items()}, stats=self._first.stats)
