# SPDX-License-Identifier: Apache-2.0
"""Observables whose coefficients are out of the range of a number format are evaluated as multiples of others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qiskit_fused.common.row_errors import RowError
from qiskit_fused.engines.evaluation import Evaluation
from qiskit_fused.engines.request import Request
from qiskit_fused.program.observables import Observables

_LARGE = 2.0**50  # a cotangent; times an observable in range it is in the range of float32


def is_out_of_range(operators: Observables, request: Request) -> bool:
    """Say whether to evaluate multiples of the observables, or of their weighted sums."""
    if operators.scaled is not None:
        return True
    cotangents = request.cotangents
    if cotangents is None or request.dtype != "complex64" or request.is_on_device:
        return False
    return bool(np.abs(cotangents).max(initial=0.0) > _LARGE)


class Scaling:
    """Multiples of observables and cotangents that are in range, and what multiplies their results in float64.

    Args:
        operators: observables; these or the cotangents are not in range.
        request: the request.

    Attributes:
        operators, request: what to evaluate in the place of both.
    """

    def __init__(self, operators: Observables, request: Request):
        scaled, exponents = operators.scaled or (operators, np.zeros(len(operators), dtype=np.int64))
        self.operators, self.request = scaled, request
        self._of_pair = self._of_gradients = exponents[request.pairs.observable]
        gradient, cotangents = request.gradient, request.cotangents
        if gradient is not None and cotangents is not None:
            # one power of two for all: gradients are sums over the observables of a row
            largest = int((np.frexp(cotangents)[1] + self._of_pair)[cotangents != 0].max(initial=0))
            in_range = np.ldexp(cotangents, self._of_pair - largest)
            self._of_gradients = np.array(largest)
            self.request = request._replace(gradient=gradient._replace(cotangents=in_range))

    def multiplied(self, found: Evaluation) -> Evaluation:
        """Return the evaluation of the observables that were asked for.

        Raises:
            RowError: when a value or a derivative is larger than the largest float64.
        """
        pairs = self.request.pairs
        with np.errstate(over="ignore"):
            values = np.ldexp(found.values, self._of_pair)
            gradients = _multiplied(found.gradients, self._of_gradients)
            state_gradients = _multiplied(found.state_gradients, self._of_gradients)
        wrong = ~np.isfinite(values)
        if gradients is not None:
            is_wrong = ~np.isfinite(gradients).all(axis=1)
            wrong |= is_wrong[pairs.row] if self.request.gradients_are_per_row else is_wrong
        if wrong.any():
            row, observable = pairs.row[wrong][0], pairs.observable[wrong][0]
            raise RowError(
                f"the value of observable {observable} in ",
                int(row),
                f", or a derivative of it, is larger than {np.finfo(float).max:.3g}, the largest number of float64; "
                "divide the coefficients by a number.",
            )
        return replace(found, values=values, gradients=gradients, state_gradients=state_gradients)


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
