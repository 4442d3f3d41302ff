# SPDX-License-Identifier: Apache-2.0
"""The chain rule: turns gradients with respect to a program's columns into gradients with respect to its parameters."""

from __future__ import annotations

from functools import lru_cache, partial

import numpy as np

from qiskit_fused.common.row_errors import renumbered
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.program.observables import Observables
from qiskit_fused.program.program import Expressions

Pairs = tuple[np.ndarray, np.ndarray]


def differentiated(operators: Observables) -> np.ndarray:
    """Return the observables whose values and gradients are computed for a Jacobian, int32 (D,), ascending.

    A Jacobian takes one backward sweep for each observable. `completed` adds what needs no sweep: the gradient of an
    observable that is 0, and the last gradient if the values of a row add up to 1.
    """
    count = num_differentiated(operators)
    if operators.not_zero is None:
        return first_observables(count)
    return operators.not_zero[:count].astype(np.int32)


@lru_cache(maxsize=256)
def first_observables(count: int) -> np.ndarray:
    """Return the numbers of the first observables, int32 (count,), read-only."""
    numbers = np.arange(count, dtype=np.int32)
    numbers.setflags(write=False)
    return numbers


def num_differentiated(operators: Observables) -> int:
    """Return D, the number of observables of `differentiated`."""
    count = len(operators) if operators.not_zero is None else len(operators.not_zero)
    return count - 1 if operators.sum_to_one and count > 1 else count


def completed(operators: Observables, swept: np.ndarray, array: np.ndarray, total: float) -> np.ndarray:
    """Return an array (b, K, ...) of all observables.

    Args:
        operators: the K observables.
        swept: the observables of `differentiated`, int (D,).
        array: (b, D, ...), the values or gradients of these observables.
        total: the sum of the values or gradients of a row, if the values of a row add up to 1.
    """
    if len(swept) == len(operators):
        return array
    shape, not_zero = (len(array), len(operators), *array.shape[2:]), operators.not_zero
    if not_zero is None:  # then all observables but the last one are swept, and they add up to 1
        complete = np.empty(shape)
        complete[:, :-1] = array
        np.subtract(total, array[:, 0] if len(swept) == 1 else array.sum(axis=1), out=complete[:, -1])
        return complete
    complete = np.zeros(shape)
    complete[:, swept] = array
    last = int(not_zero[-1]) if len(not_zero) else -1
    if operators.sum_to_one and last != swept[-1]:
        complete[:, last] = total - array.sum(axis=1)
    return complete


def pull_back(
    compiled: CompiledCircuit,
    values: np.ndarray,
    gradients: np.ndarray,
    pairs: Pairs,
    operators: Observables | None = None,
) -> np.ndarray:
    """Turn gradients (N, C) with respect to columns into gradients (N, P) with respect to parameters.

    A gradient is NaN where an expression has no finite derivative; see `check_derivatives`. With ``operators``, only
    expressions in the light cone of some observable can make a gradient NaN; without them, all expressions can.
    """
    program = compiled.program
    if not program.expressions.num_expressions:
        return gradients
    rows, count = pairs[0], len(pairs[0])
    per_row = count // len(values) if len(values) else 0
    shaped = gradients[:, None, :]
    if count and per_row * len(values) == count and np.array_equal(rows, np.repeat(np.arange(len(values)), per_row)):
        shaped = gradients.reshape(len(values), per_row, -1)
    else:
        values = values[rows]
    pulled_back = program.expressions.pull_back(values, shaped)
    if operators is not None and not np.isfinite(pulled_back).all():
        pulled_back = program.expressions.pull_back(values, shaped, unseen_expressions(compiled, operators))
    return pulled_back.reshape(count, program.num_parameters)


def pull_back_zero(
    compiled: CompiledCircuit,
    values: np.ndarray,
    gradients: np.ndarray,
    depend_on_inputs: np.ndarray,
    operators: Observables,
) -> np.ndarray:
    """Do what `pull_back` does for rows whose cotangents are all 0.

    Such rows need no derivatives of expressions of the inputs, because their gradients with respect to these columns
    are 0. But an engine may have given such a row the gradients that are summed over all rows: the gradients with
    respect to columns that do not depend on inputs.

    Args:
        compiled: the circuit.
        values: parameter values of these rows (B, P).
        gradients: gradients of these rows with respect to columns (B, C).
        depend_on_inputs: bool (C,), whether a column depends on inputs.
        operators: the observables.
    """
    program = compiled.program
    unused = depend_on_inputs[program.num_parameters :] | unseen_expressions(compiled, operators)
    return program.expressions.pull_back(values, gradients[:, None, :], unused)[:, 0]


def unseen_expressions(compiled: CompiledCircuit, operators: Observables) -> np.ndarray:
    """Return bool (E,): whether an expression is outside the light cones of all observables."""
    seen = compiled.seen_columns(operators.support(compiled.num_qubits))
    return ~seen[compiled.program.num_parameters :]


def check_derivatives(
    compiled: CompiledCircuit,
    values: np.ndarray,
    gradients: np.ndarray,
    columns: np.ndarray | None = None,
    rows: np.ndarray | None = None,
) -> None:
    """Raise a RowError if a requested gradient is not finite because of an expression. The error names its position.

    Args:
        compiled: the circuit.
        values: parameter values (B, P).
        gradients: gradients (N, ..., P), real or complex.
        columns: positions of the parameters whose gradients are requested; None is all parameters.
        rows: int (N,), the row of ``values`` of each gradient; None: gradient i belongs to row i.
    """
    check_expressions(compiled.program.expressions, values, gradients, columns, rows)


def check_expressions(
    expressions: Expressions,
    values: np.ndarray,
    gradients: np.ndarray,
    columns: np.ndarray | None = None,
    rows: np.ndarray | None = None,
) -> None:
    """Do what `check_derivatives` does, for gradients that depend on any expressions of the parameters."""
    if not expressions.num_expressions or np.isfinite(gradients).all():
        return
    wrong = ~np.isfinite(gradients).all(axis=tuple(range(1, gradients.ndim - 1)))
    for column in range(gradients.shape[-1]) if columns is None else columns.tolist():
        if wrong[:, column].any():
            first = int(np.flatnonzero(wrong[:, column])[0])
            with renumbered(partial(_constant, first)):
                expressions.check_derivatives(values, first if rows is None else int(rows[first]), column)


def _constant(number: int, _: int) -> int:
    """Return ``number`` as the row that an error names."""
    return number
