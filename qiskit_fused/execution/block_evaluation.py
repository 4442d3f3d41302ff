# SPDX-License-Identifier: Apache-2.0
"""Evaluate a batch that does not fit the memory limit as a whole: in blocks of rows, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qiskit_fused.common.free_memory import resolve_limit
from qiskit_fused.common.row_errors import shifted
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.engines.interface import Evaluation, Watch
from qiskit_fused.execution.initial_states import RowStarts
from qiskit_fused.execution.shared_evaluation import share
from qiskit_fused.options import FusedOptions
from qiskit_fused.program.observables import Observables


def evaluate_blocks(
    evaluate: Callable[..., Evaluation],
    refusal: MemoryError,
    options: FusedOptions,
    compiled: CompiledCircuit,
    operators: Observables,
    values: np.ndarray,
    pairs: tuple[np.ndarray, np.ndarray],
    *,
    gradient: bool,
    cotangents: np.ndarray | None,
    starts: RowStarts,
    meanwhile: Callable[[], Any] | None,
    watch: Watch | None,
    **flags: Any,
) -> Evaluation:
    """Return what ``evaluate`` returns for all rows, from blocks of rows that fit the memory limit.

    A block holds its own part of the arrays. The arrays of all rows belong to the caller: they must fit the free
    memory, not the limit.

    Args:
        evaluate: evaluates some rows.
        refusal: what it raised for all of them.
        options: these and all arguments below are those of `execution.evaluate`.
        compiled: see there.
        operators: see there.
        values: see there.
        pairs: see there.
        gradient: see there.
        cotangents: see there.
        starts: see there.
        meanwhile: see there.
        watch: see there.
        flags: its other arguments.

    Raises:
        MemoryError: ``refusal`` where there is one row, or the arrays of all rows do not fit the free memory; where a
            row alone does not fit, what is raised for that row.
    """
    num_rows = len(values)
    num_adjoint_states = gradient * (num_rows if cotangents is not None else len(pairs[0]))
    if num_rows < 2 or 8 * (len(pairs[0]) + num_adjoint_states * compiled.program.num_columns) > resolve_limit(None):
        raise refusal
    whole: dict[str, np.ndarray] = {}
    # The first row goes alone: where it does not fit, no block does, and the error is about the circuit.
    answer, begin, size = None, 0, 1
    while begin < num_rows:
        rows = slice(begin, min(begin + size, num_rows))
        chosen = slice(*np.searchsorted(pairs[0], (rows.start, rows.stop)))
        try:
            with shifted(begin):
                found = evaluate(
                    options,
                    compiled,
                    operators,
                    values[rows],
                    (pairs[0][chosen] - np.int32(begin), pairs[1][chosen]),
                    gradient=gradient,
                    cotangents=None if cotangents is None else cotangents[chosen],
                    starts=starts.part(rows),
                    meanwhile=None if begin else meanwhile,
                    watch=share(watch, rows.start, rows.stop, num_rows),
                    **flags,
                )
        except MemoryError:
            if size == 1:
                raise
            size //= 2
            continue
        place = (chosen, len(pairs[0])) if cotangents is None else (rows, num_rows)
        if begin == 0:
            answer, size = found.answer, max(num_rows // 2, 1)
        _insert(whole, found, values=(chosen, len(pairs[0])), gradients=place, state_gradients=place)
        begin = rows.stop
    return Evaluation(whole["values"], whole.get("gradients"), {}, answer, whole.get("state_gradients"))


def _insert(whole: dict[str, np.ndarray], found: Evaluation, **places: tuple[slice, int]) -> None:
    """Copy the arrays of a block to their places in those of all rows, which are made with the first block."""
    for name, (place, length) in places.items():
        part = getattr(found, name)
        if part is not None:
            if name not in whole:
                whole[name] = np.empty((length, *part.shape[1:]), part.dtype)
            whole[name][place] = part
