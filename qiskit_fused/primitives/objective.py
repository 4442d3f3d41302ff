# SPDX-License-Identifier: Apache-2.0
"""`Objective`: one expectation value as a function of one point, in the form in which SciPy takes functions."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from qiskit.circuit import Parameter
from qiskit_machine_learning.gradients import DerivativeType

from qiskit_fused.common.text import count_text
from qiskit_fused.compilation.circuits import COMPILED
from qiskit_fused.compilation.observables import LiveObservables
from qiskit_fused.engines.request import Request, all_pairs
from qiskit_fused.execution.arguments import is_by_name, order_of, ordered_values, values_by_name
from qiskit_fused.execution.evaluate import evaluate
from qiskit_fused.execution.finite_values import check_finite
from qiskit_fused.execution.progress import Part, Progress
from qiskit_fused.options import FusedOptions
from qiskit_fused.primitives.curvature import hessians_of_rows, products_of_rows
from qiskit_fused.primitives.differentiation import differentiate_rows


class _HasOptions(Protocol):
    """A gradient object. An objective reads its options at each call."""

    @property
    def fused_options(self) -> FusedOptions:
        """The options of the engine."""


class Objective:
    """An expectation value as a function of one point, made by `FusedEstimatorGradient.objective`.

    ``objective(x)`` returns ``E(x) = <0|U(x)^+ O U(x)|0>``, a float, and its gradient ``dE/dx_p``, float64 (P,), by the
    same sweeps. ``objective.value(x)`` returns the value alone, by one forward sweep. ``objective.gradient(x)`` returns
    the gradient alone.

    >>> from qiskit import QuantumCircuit
    >>> from qiskit_fused import FusedEstimatorGradient
    >>> circuit = QuantumCircuit(1)
    >>> _ = circuit.ry(Parameter("a"), 0)
    >>> objective = FusedEstimatorGradient().objective(circuit, "Z")
    >>> value, gradient = objective([0.5])
    >>> round(value, 3), gradient.round(3).tolist()
    (0.878, [-0.479])

    Attributes:
        parameters: the P parameters, in the order of x.
    """

    parameters: tuple[Parameter, ...]

    def __init__(self, gradient: _HasOptions, circuit: Any, observable: Any, fixed: Any):
        self._engine = gradient
        self._compiled = COMPILED.get(circuit)
        self._observables = LiveObservables(observable, self._compiled.num_qubits)
        if self._observables.shape not in ((), (1,)):
            raise ValueError(
                f"objective takes one observable, and observable holds {self._observables.now().num_observables}; "
                "add them up to one observable, or use value_and_gradient."
            )
        self.parameters = self._compiled.parameters
        self._row = np.zeros(len(self.parameters))  # the values of fixed parameters, and 0 for the others
        self._free: np.ndarray | None = None  # positions of the parameters of x; None if no parameter is fixed
        if fixed is not None:
            self._fix(fixed, self._compiled.parameters)

    def _fix(self, fixed: Any, parameters: tuple[Parameter, ...]) -> None:
        """Fix the values of some parameters of the circuit."""
        if not is_by_name(fixed):
            raise TypeError(f"fixed is of type {type(fixed).__name__}; allowed: a dict of parameters and their values.")
        columns, values = values_by_name(fixed, parameters, "fixed")
        if values.ndim != 1:
            raise ValueError(f"fixed has values of shape {values.shape[:-1]}; allowed: one value for each parameter.")
        check_finite(values[None], tuple(parameters[column] for column in columns))
        self._row[columns] = values
        self._free = np.delete(np.arange(len(parameters)), columns)
        self.parameters = tuple(parameters[column] for column in self._free)

    def __call__(self, x: Any) -> tuple[float, np.ndarray]:
        """Return the value, and the gradient float64 (P,).

        Args:
            x: real numbers (P,), in the order of ``parameters``; or a dict of values by name.

        Raises:
            TypeError: for values that are not real numbers.
            ValueError: for another number of values, or values or derivatives that are not finite.

        Cost: one forward and one backward sweep.
        """
        values, gradients = differentiate_rows(
            self._engine.fused_options,
            DerivativeType.REAL,
            self._compiled,
            self._observables.now(),
            self._row_of(x),
            self._free,
        )
        return float(values[0, 0]), gradients[0, 0]

    def value(self, x: Any) -> float:
        """Return the value alone, by one forward sweep. The argument and the errors are as in a call."""
        row, options, compiled = self._row_of(x), self._engine.fused_options, self._compiled
        with Progress(options.progress, (Part.of(compiled, 1) for _ in range(1))) as progress:
            progress.next_part()
            request = Request(row, all_pairs(1, 1), dtype=options.dtype)
            evaluation = evaluate(options, compiled, self._observables.now(), request, watch=progress.watch)
        return float(evaluation.values[0])

    def gradient(self, x: Any) -> np.ndarray:
        """Return the gradient alone, float64 (P,). The argument, the errors and the cost are as in a call."""
        return self(x)[1]

    def hessian(self, x: Any) -> np.ndarray:
        """Return the Hessian, float64 (P, P), for SciPy's ``hess``; see `value_gradient_and_hessian`.

        The argument and the errors are as in a call. It costs two to four gradients for each parameter.
        """
        arguments = self._engine.fused_options, self._compiled, self._observables.now(), self._row_of(x)
        hessian: np.ndarray = hessians_of_rows(*arguments, self._free)[2][0, 0]
        return hessian

    def hessian_product(self, x: Any, vector: Any) -> np.ndarray:
        """Return the product of the Hessian with a vector, float64 (P,), for SciPy's ``hessp``.

        The point x is as in a call, and the vector (P,) has the order of ``parameters``. It costs five gradients; see
        `hessian_vector_product`.
        """
        row, along = self._row_of(x), ordered_values(vector, self.parameters, "vector")
        if along.shape != (len(self.parameters),) or not np.isfinite(along).all():
            raise ValueError(f"vector must be {len(self.parameters)} finite numbers, one for each of the parameters.")
        vectors = np.zeros(row.shape)
        vectors[0, slice(None) if self._free is None else self._free] = along
        arguments = self._engine.fused_options, self._compiled, self._observables.now(), row, vectors
        product: np.ndarray = products_of_rows(*arguments)[2][0, 0]
        return product if self._free is None else product[self._free]

    def __repr__(self) -> str:
        sizes = count_text(len(self.parameters), "parameter"), count_text(self._compiled.num_qubits, "qubit")
        return f"Objective({', '.join(sizes)})"

    def _row_of(self, x: Any) -> np.ndarray:
        """Return the parameter values of the circuit at the point x, checked, as one row (1, P)."""
        values = ordered_values(x, self.parameters, "x")
        count = len(self.parameters)
        if count == 1 and values.ndim == 0:  # scipy.optimize.minimize_scalar gives a number
            values = values[None]
        if values.shape != (count,):
            raise ValueError(
                f"x has shape {values.shape}; allowed: ({count},), one value for each of objective.parameters, in "
                f"{order_of(self.parameters)}."
            )
        if self._free is not None:
            row = self._row.copy()
            row[self._free] = values
            values = row
        values = values[None]
        check_finite(values, self._compiled.parameters)
        return values
