# SPDX-License-Identifier: Apache-2.0
"""Observables whose coefficients are out of the range of a number format are evaluated as multiples of others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from qiskit_fused.common.row_errors import RowError
from qiskit_fused.engines.interface import Evaluation
from qiskit_fused.program.observables import Observables

_LARGE = 2.0**50  # a cotangent; times an observable in range it is in the range of float32


def is_out_of_range(operators: Observables, cotangents: np.ndarray | None, dtype: str) -> bool:
    """Say whether to evaluate multiples of the observables, or of their weighted sums."""
    if operators.scaled is not None:
        return True
    return cotangents is not None and dtype == "complex64" and bool(np.abs(cotangents).max(initial=0.0) > _LARGE)


def evaluate_scaled(
    evaluate: Callable[..., Evaluation],
    operators: Observables,
    pairs: tuple[np.ndarray, np.ndarray],
    cotangents: np.ndarray | None,
    **flags: Any,
) -> Evaluation:
    """Evaluate `Observables.scaled` in the place of observables, and multiply the results in float64.

    Args:
        evaluate: `execution.evaluate`, which takes all other arguments by name.
        operators: observables; these or the cotangents are not in range.
        pairs: row and observable of each pair.
        cotangents: weights of the pairs, or None.
        flags: further arguments of ``evaluate``.

    Raises:
        RowError: when a value or a derivative is larger than the largest float64; rows are those of this batch.
    """
    scaled, exponents = operators.scaled or (operators, np.zeros(len(operators), dtype=np.int64))
    of_pair = exponents[pairs[1]]
    of_gradients = of_pair
    if cotangents is not None:  # one power of two for all: gradients are sums over the observables of a row
        largest = int((np.frexp(cotangents)[1] + of_pair)[cotangents != 0].max(initial=0))
        cotangents = np.ldexp(cotangents, of_pair - largest)
        of_gradients = np.array(largest)
    found = evaluate(operators=scaled, pairs=pairs, cotangents=cotangents, **flags)
    with np.errstate(over="ignore"):
        values = np.ldexp(found.values, of_pair)
        gradients, of_states = (_multiplied(part, of_gradients) for part in (found.gradients, found.state_gradients))
    wrong = ~np.isfinite(values)
    if gradients is not None:
        of_rows = ~np.isfinite(gradients).all(axis=1)
        wrong |= of_rows[pairs[0]] if cotangents is not None else of_rows
    if wrong.any():
        row, observable = pairs[0][wrong][0], pairs[1][wrong][0]
        raise RowError(
            f"the value of observable {observable} in ",
            int(row),
            f", or a derivative of it, is larger than {np.finfo(float).max:.3g}, the largest number of float64; divide "
            "the coefficients by a number.",
        )
    return replace(found, values=values, gradients=gradients, state_gradients=of_states)


def _multiplied(numbers: np.ndarray | None, exponents: np.ndarray) -> np.ndarray | None:
    """Multiply (N, C) real or complex numbers by powers of two, one for each row or one for all."""
    if numbers is None:
        return None
    shape = exponents.reshape(-1, 1) if exponents.ndim else exponents
    if not np.iscomplexobj(numbers):
        return np.asarray(np.ldexp(numbers, shape))
    multiplied = np.empty_like(numbers)
    multiplied.real, multiplied.imag = np.ldexp(numbers.real, shape), np.ldexp(numbers.imag, shape)
    return multiplied
