# SPDX-License-Identifier: Apache-2.0
"""The rows that `Expectations` evaluates, and the values and gradients that it returns for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from qiskit_fused.common.array_modules import to_numpy
from qiskit_fused.common.arrays import real_values
from qiskit_fused.common.row_errors import RowError
from qiskit_fused.execution.finite_values import is_finite
from qiskit_fused.execution.row_cuts import JoinedArrays

Cotangents = np.ndarray | Callable[[np.ndarray], np.ndarray]


class Vjp(NamedTuple):
    """Values and a vector-Jacobian product, the gradient of ``S = sum_bk g[b, k] E_k(x_b, w)`` for constant g.

    >>> from qiskit.circuit import Parameter, QuantumCircuit
    >>> from qiskit_fused.execution.expectations import Expectations
    >>> circuit, w = QuantumCircuit(1), Parameter("w")
    >>> _ = circuit.ry(w, 0)
    >>> vjp = Expectations(circuit, "Z", [], [w]).value_and_vjp(np.zeros((1, 0)), [0.5], [[1.0]])
    >>> vjp.values.round(3).tolist(), vjp.weights.round(3).tolist()
    ([[0.878]], [-0.479])

    Attributes:
        values: float64 (B, K), ``E_k(x_b, w)``.
        inputs: float64 (B, I), ``dS/dx[b, i]``, or None if it was not computed.
        weights: float64 (W,), ``dS/dw[j]``, summed over all rows.
        initial_states: complex128 (B, 2^n), the array G with ``dS = Re sum(conj(G) dpsi)`` for initial states psi,
            which PyTorch calls the gradient. None if there are no initial states or G was not computed.
    """

    values: Any
    inputs: Any = None
    weights: Any = None
    initial_states: Any = None


class RowBatch(NamedTuple):
    """B rows of inputs, the weights that all rows share, and the requested gradients.

    All arrays are on the host, or all on one CUDA device.

    Attributes:
        inputs: float64 (B, I).
        weights: float64 (W,).
        initial_states: (B, 2**n) on the qubits of the circuit, or None.
        cotangents: float64 (B, K), which requests the gradient of the sum of cotangents times values; or a function of
            the values that returns this array; or None.
        jacobian: whether the gradient of each value is requested.
        input_gradients, weight_gradients, state_gradients: whether gradients of inputs, weights and initial states are
            requested.
    """

    inputs: Any
    weights: Any
    initial_states: Any = None
    cotangents: Any = None
    jacobian: bool = False
    input_gradients: bool = True
    weight_gradients: bool = True
    state_gradients: bool = False

    @property
    def num_rows(self) -> int:
        """B, rows."""
        return len(self.inputs)

    def rows(self, rows: slice) -> RowBatch:
        """Return some of the rows."""
        if rows == slice(0, self.num_rows):
            return self
        states, cotangents = (
            None if array is None else array[rows] for array in (self.initial_states, self.cotangents)
        )
        return self._replace(inputs=self.inputs[rows], initial_states=states, cotangents=cotangents)

    def num_adjoint_states(self, num_observables: int) -> int | None:
        """Return the number of adjoint states of a backward sweep; None where no gradients are requested."""
        if self.jacobian:
            return self.num_rows * num_observables
        return None if self.cotangents is None else self.num_rows


def join_rows(batch: RowBatch, parts: Iterable[tuple[slice, Vjp]]) -> Vjp:
    """Join the results of slices of a batch. Gradients of weights are added, except in a Jacobian."""
    joined, num_rows = JoinedArrays(), batch.num_rows
    weight_gradients: Any = None
    for rows, part in parts:
        joined.put("values", part.values, rows, num_rows)
        joined.put("inputs", part.inputs, rows, num_rows)
        joined.put("initial_states", part.initial_states, rows, num_rows)
        if batch.jacobian:
            joined.put("weights", part.weights, rows, num_rows)
        elif part.weights is not None:
            weight_gradients = part.weights if weight_gradients is None else weight_gradients + part.weights
    weights = joined["weights"] if batch.jacobian else weight_gradients
    return Vjp(joined["values"], joined["inputs"], weights, joined["initial_states"])


def check_cotangents(cotangents: Any, shape: tuple[int, int]) -> Any:
    """Return cotangents as an array (B, K).

    Raises:
        TypeError: for a tuple of a loss and its derivatives.
        ValueError: for another shape, or a cotangent that is not finite. The text names the first such cotangent.
    """
    if isinstance(cotangents, tuple) and cotangents and np.ndim(cotangents[0]) == 0:  # (loss, dloss/dvalue)
        raise TypeError(
            f"cotangents are a tuple of {len(cotangents)} with a number at 0; allowed: an array of shape {shape}. A "
            "function of the values returns dloss/dvalue alone, without the loss."
        )
    array = real_values(cotangents, "cotangents", "value of each row")
    if array.shape != shape:
        raise ValueError(f"cotangents have shape {array.shape}; allowed: {shape}, one for each value.")
    check_finite_cotangents(array)
    return array


def check_finite_cotangents(array: Any) -> None:
    """Raise a ValueError that names the first cotangent that is not finite."""
    if not is_finite(array):
        array = to_numpy(array)
        row, column = np.argwhere(~np.isfinite(array))[0].tolist()
        raise RowError(f"the cotangent of observable {column} in ", row, f" is {array[row, column]}.")
