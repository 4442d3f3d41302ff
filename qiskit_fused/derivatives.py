# SPDX-License-Identifier: Apache-2.0
"""The chain rule: from gradients with respect to a program's columns to those with respect to its parameters."""

from __future__ import annotations

from functools import partial

import numpy as np

from qiskit_fused.compiler import CompiledCircuit
from qiskit_fused.row_errors import renumbered

Pairs = tuple[np.ndarray, np.ndarray]


def pull_back(compiled: CompiledCircuit, values: np.ndarray, gradients: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Turn gradients (N, C) with respect to columns into gradients (N, P) with respect to parameters.

    They are NaN where an expression has no finite derivative; see `check_derivatives`.
    """
    program = compiled.program
    if not program.expressions.num_expressions:
        return gradients
    rows, count = pairs[0], len(pairs[0])
    per_row = count // len(values) if len(values) else 0
    if count and per_row * len(values) == count and np.array_equal(rows, np.repeat(np.arange(len(values)), per_row)):
        shaped = gradients.reshape(len(values), per_row, -1)
        return program.expressions.pull_back(values, shaped).reshape(count, -1)
    return program.expressions.pull_back(values[rows], gradients[:, None, :])[:, 0, :]


def check_derivatives(
    compiled: CompiledCircuit,
    values: np.ndarray,
    gradients: np.ndarray,
    columns: np.ndarray | None = None,
    rows: np.ndarray | None = None,
) -> None:
    """Raise a RowError if a gradient that a caller asked for is not finite because of an expression.

    Args:
        compiled: the circuit.
        values: (B, P).
        gradients: (N, ..., P), real or complex.
        columns: the parameters that were asked for; None is all.
        rows: int (N,), the row of values of each gradient; None is the same number. The error names the gradient.
    """
    expressions = compiled.program.expressions
    if not expressions.num_expressions or np.isfinite(gradients).all():
        return
    wrong = ~np.isfinite(gradients).all(axis=tuple(range(1, gradients.ndim - 1)))
    for column in range(gradients.shape[-1]) if columns is None else columns.tolist():
        if wrong[:, column].any():
            first = int(np.flatnonzero(wrong[:, column])[0])
            with renumbered(partial(_constant, first)):
                expressions.check_derivatives(values, first if rows is None else int(rows[first]), column)


def _constant(number: int, _: int) -> int:
    return number
