# SPDX-License-Identifier: Apache-2.0
"""Rows are cut in one way: slices of a request are evaluated one after the other, and their results put together.

Four things bound the rows that are evaluated at a time, each where it is known: the arrays of a block of a training
step (`expectations`), all bytes of an evaluation (`evaluate`), the states that rows start in (`initial_states`), and
the states between parts that rows share (`shared_evaluation`). The portions of an executor are slices too (`executor`).
The CUDA engine cuts pairs, not rows, as it alone knows the memory of its device.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from itertools import pairwise
from typing import Any

import numpy as np

from qiskit_fused.common.cancellation import CANCELLED
from qiskit_fused.common.row_errors import shifted
from qiskit_fused.engines.evaluation import Evaluation
from qiskit_fused.engines.interface import Watch
from qiskit_fused.engines.request import Request

Evaluate = Callable[[Request, Watch | None], Evaluation]


def rows_that_fit(num_bytes: int, bytes_per_row: float, least: int = 1) -> int:
    """Return how many rows of so many bytes fit, but ``least`` at least."""
    return max(int(num_bytes / max(bytes_per_row, 1)), least)


def cut_evenly(num_rows: int, most_rows: int) -> list[slice]:
    """Cut rows into slices of nearly equal length, none longer than ``most_rows``; no rows are one empty slice."""
    return cut_into(max(-(-num_rows // max(most_rows, 1)), 1), num_rows)


def cut_into(count: int, num_rows: int) -> list[slice]:
    """Cut rows into so many slices of nearly equal length."""
    return [slice(*ends) for ends in pairwise(num_rows * number // count for number in range(count + 1))]


def share(watch: Watch | None, begin: int, end: int, whole: int) -> Watch | None:
    """Return what hears of a part of the work, from begin to end of a whole."""
    if watch is None or (begin, end) == (0, whole):
        return watch
    return lambda done, total: watch(begin * total + (end - begin) * done, whole * total)


def check_cancelled(watch: Watch | None, done: int, whole: int) -> None:
    """Tell how much is done between two parts of the work, since engines tell a watch of long work only.

    Raises:
        RuntimeError: when ``watch`` ends the work.
    """
    if watch is not None and watch(done, whole):
        raise RuntimeError(CANCELLED)


def evaluate_slice(request: Any, rows: slice, evaluate: Callable[..., Any], watch: Watch | None) -> Any:
    """Return what ``evaluate`` finds for some rows; errors name rows of the request, and ``watch`` hears its share.

    Args:
        request: what has ``num_rows``, and ``rows(rows)`` to make the request of some rows.
        rows: which rows.
        evaluate: called with the request of these rows and a watch.
        watch: hears of all rows.
    """
    if rows.start:
        check_cancelled(watch, rows.start, request.num_rows)
    with shifted(rows.start):
        return evaluate(request.rows(rows), share(watch, rows.start, rows.stop, request.num_rows))


def evaluate_slices(request: Request, slices: Iterable[slice], evaluate: Evaluate, watch: Watch | None) -> Evaluation:
    """Return the evaluation of a request from those of its slices, one after the other."""
    joined = JoinedEvaluation(request)
    for rows in slices:
        joined.add(rows, evaluate_slice(request, rows, evaluate, watch))
    return joined.evaluation()


class JoinedArrays(dict[Hashable, Any]):
    """Arrays of all rows, filled part by part; an array that comes whole is kept as it is."""

    def put(self, name: Hashable, part: Any, place: slice, length: int) -> None:
        """Copy a part to its place in an array of that length, which is made with the first part."""
        if part is None:
            self.setdefault(name, None)
        elif place == slice(0, length):
            self[name] = part
        else:
            if name not in self:
                self[name] = np.empty((length, *part.shape[1:]), part.dtype)
            self[name][place] = part


class JoinedEvaluation:
    """The evaluation of a request, from the evaluations of slices of its rows; stats are those of the first one."""

    def __init__(self, request: Request):
        self._request, self._arrays = request, JoinedArrays()
        self._first: Evaluation | None = None

    def add(self, rows: slice, found: Evaluation) -> None:
        """Add the evaluation of some rows."""
        request, put = self._request, self._arrays.put
        if self._first is None:
            self._first = found
            if rows == slice(0, request.num_rows):
                return
        num_rows, num_pairs = request.num_rows, request.num_pairs
        pairs = request.pairs.of_rows(rows)
        of_gradients = (rows, num_rows) if request.gradients_are_per_row else (pairs, num_pairs)
        put("values", found.values, pairs, num_pairs)
        put("gradients", found.gradients, *of_gradients)
        put("state_gradients", found.state_gradients, *of_gradients)
        put("final_states", found.final_states, rows, num_rows)

    def evaluation(self) -> Evaluation:
        """Return the evaluation of all rows."""
        assert self._first is not None
        if not self._arrays:
            return self._first
        return Evaluation(**{str(name): array for name, array in self._arrays.items()}, stats=self._first.stats)
