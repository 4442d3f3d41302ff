# SPDX-License-Identifier: Apache-2.0
"""Rows that `Expectations` evaluates, and what it finds for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from qiskit_fused.common.arrays import real_values
from qiskit_fused.common.row_errors import RowError
from qiskit_fused.execution.initial_states import RowStarts

Cotangents = np.ndarray | Callable[[np.ndarray], np.ndarray]


class Vjp(NamedTuple):
    """Values and a vector-Jacobian product.

    Attributes:
        values: float64 (B, K).
        inputs: float64 (B, I), or None where not asked for.
        weights: float64 (W,), the sum over all rows.
        initial_states: complex128 (B, 2**n), G with ``d sum = Re sum conj(G) d psi`` (what torch calls a gradient), or
            None where no states were given or this was not asked for.
    """

    values: np.ndarray
    inputs: np.ndarray | None
    weights: np.ndarray
    initial_states: np.ndarray | None = None


class Rows(NamedTuple):
    """Rows that were checked."""

    inputs: np.ndarray  # (B, I)
    weights: np.ndarray  # (W,)
    starts: RowStarts
    cotangents: Any = None  # (B, K), or a function; None if no gradient, or a Jacobian, is wanted

    def part(self, rows: slice) -> Rows:
        """Return some of the rows."""
        if rows == slice(0, len(self.inputs)):
            return self
        cotangents = None if self.cotangents is None else self.cotangents[rows]
        return Rows(self.inputs[rows], self.weights, self.starts.part(rows), cotangents)


class Found(NamedTuple):
    """What one evaluation of some rows gives."""

    values: np.ndarray  # (b, K)
    gradients: Any  # (b, P), or (b K, P) of a Jacobian; None if not asked for
    of_states: Any  # (b, 2**n), or None


def check_cotangents(cotangents: Any, shape: tuple[int, int]) -> np.ndarray:
    """Return cotangents as an array (B, K); a ValueError names the first that is not finite."""
    if isinstance(cotangents, tuple) and cotangents and np.ndim(cotangents[0]) == 0:  # (loss, dloss/dvalue)
        raise TypeError(
            f"cotangents are a tuple of {len(cotangents)} with a number at 0; allowed: an array of shape {shape}. A "
            "function of the values returns dloss/dvalue alone, without the loss."
        )
    array = real_values(cotangents, "cotangents", "value of each row")
    if array.shape != shape:
        raise ValueError(f"cotangents have shape {array.shape}; allowed: {shape}, one for each value.")
    if not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0].tolist()
        raise RowError(f"the cotangent of observable {column} in ", row, f" is {array[row, column]}.")
    return array
