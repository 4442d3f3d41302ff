# SPDX-License-Identifier: Apache-2.0
"""Evaluates observables whose coefficients are out of the range of a number format, by scaling with powers of two."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from qiskit_fused.common.row_errors import RowError
from qiskit_fused.engines.evaluation import Evaluation
from qiskit_fused.engines.request import Request
from qiskit_fused.execution.product_threads import inner_product
from qiskit_fused.program.observables import Observables

LARGEST_COTANGENT = 2.0**50  # largest cotangent whose product with a scaled observable is in the range of float32


def is_out_of_range(operators: Observables, request: Request) -> bool:
    """Say whether the coefficients of the observables, or the cotangents, have to be scaled."""
    if operators.scaled is not None:
        return True
    if request.cotangents is None or request.is_split:
        return False
    return has_large_cotangents(request.cotangents, request.dtype)


def has_large_cotangents(cotangents: Any, dtype: str) -> bool:
    """Say whether cotangents, on the host or a device, are so large that they are scaled in the format ``dtype``."""
    if dtype != "complex64":
        return False
    # No cotangent is larger than the root of the sum of squares, which takes a quarter of the time of the maximum.
    if isinstance(cotangents, np.ndarray) and inner_product(cotangents, cotangents) <= LARGEST_COTANGENT**2:
        return False
    return bool(cotangents.size and abs(cotangents).max() > LARGEST_COTANGENT)


def scaled_cotangents(cotangents: Any, dtype: str) -> tuple[Any, int]:
    """Return cotangents, real or complex, times a power of two that brings them into range, and minus its exponent."""
    if not has_large_cotangents(cotangents, dtype):
        return cotangents, 0
    largest = float(max(abs(cotangents.real).max(), abs(cotangents.imag).max()))  # an absolute value may overflow
    exponent = int(np.frexp(largest)[1])
    return cotangents * np.ldexp(1.0, -exponent), exponent


class Scaling:
    """Observables and cotangents scaled into range by powers of two, which later multiply the results in float64.

    Args:
        operators: the observables.
        request: the request. Its cotangents or the coefficients of the observables are out of range.

    Attributes:
        operators: the scaled observables.
        request: the request with scaled cotangents.
    """

    def __init__(self, operators: Observables, request: Request):
        scaled, exponents = operators.scaled or (operators, np.zeros(len(operators), dtype=np.int64))
        self.operators, self.request = scaled, request
        self._value_exponents = self._gradient_exponents = exponents[request.pairs.observable]
        gradient, cotangents = request.gradient, request.cotangents
        if gradient is not None and cotangents is not None:
            # All cotangents share one power of two, since gradients are sums over the observables of a row.
            largest = int((np.frexp(cotangents)[1] + self._value_exponents)[cotangents != 0].max(initial=0))
            in_range = np.ldexp(cotangents, self._value_exponents - largest)
            self._gradient_exponents = np.array(largest)
            self.request = request._replace(gradient=gradient._replace(cotangents=in_range))

    def multiplied(self, evaluation: Evaluation) -> Evaluation:
        """Return the evaluation of the unscaled observables, from the evaluation of the scaled observables.

        Raises:
            RowError: when a value or a derivative is larger than the largest float64.
        """
        pairs = self.request.pairs
        with np.errstate(over="ignore"):
            values = np.ldexp(evaluation.values, self._value_exponents)
            gradients = _multiplied(evaluation.gradients, self._gradient_exponents)
            state_gradients = _multiplied(evaluation.state_gradients, self._gradient_exponents)
        wrong = ~np.isfinite(values)
        if gradients is not None:
            is_wrong = ~np.isfinite(gradients).all(axis=1)
            wrong |= is_wrong[pairs.row] if self.request.gradients_are_per_row else is_wrong
        if wrong.any():
            row, observable = pairs.row[wrong][0], pairs.observable[wrong][0]
            raise too_large(int(row), observable)
        return replace(evaluation, values=values, gradients=gradients, state_gradients=state_gradients)


def too_large(row: int, observable: int) -> RowError:
    """Return the error for a value or a derivative that is larger than the largest float64."""
    return RowError(
        f"the value of observable {observable} in ",
        row,
        f", or a derivative of it, is larger than {np.finfo(float).max:.3g}, the largest number of float64; "
        "divide the coefficients by a number.",
    )


def _multiplied(numbers: np.ndarray | None, exponents: np.ndarray) -> np.ndarray | None:
    """Multiply real or complex numbers (N, C) by powers of two: one power for each row, or one for all rows."""
    if numbers is None:
        return None
    shape = exponents.reshape(-1, 1) if exponents.ndim else exponents
    if not np.iscomplexobj(numbers):
        return np.asarray(np.ldexp(numbers, shape))
    multiplied = np.empty_like(numbers)
    multiplied.real, multiplied.imag = np.ldexp(numbers.real, shape), np.ldexp(numbers.imag, shape)
    return multiplied
