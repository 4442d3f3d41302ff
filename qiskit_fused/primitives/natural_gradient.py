# SPDX-License-Identifier: Apache-2.0
"""`natural_gradient`: a gradient step measured by the distance of states instead of the distance of parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from qiskit.circuit import QuantumCircuit
from qiskit_machine_learning.gradients import DerivativeType

from qiskit_fused.common.choices import check_choice, check_count
from qiskit_fused.common.text import count_text
from qiskit_fused.compilation.circuits import COMPILED, CompiledCircuit
from qiskit_fused.compilation.observables import circuit_observables
from qiskit_fused.execution.arguments import ordered_rows
from qiskit_fused.execution.finite_values import check_finite
from qiskit_fused.execution.metric_tensor import MetricTensor
from qiskit_fused.options import FusedOptions
from qiskit_fused.options.fused_options import FusedOptionsDict, Unpack
from qiskit_fused.options.keywords import checks_keywords
from qiskit_fused.primitives.differentiation import differentiate_rows

_MOST_DENSE = 1000  # up to this number of parameters, "auto" makes the metric as a matrix
_SOLVERS = ("auto", "dense", "cg")
_TOLERANCE = 1e-6  # conjugate gradients end at this norm of the residual, relative to the norm of the gradient


class NaturalGradient(NamedTuple):
    """A value, its gradient and its natural gradient.

    Attributes:
        value: the expectation value, a float.
        gradient: float64 (P,).
        step: the natural gradient, float64 (P,): the solution s of ``(Re Q + regularisation) s = gradient``.
    """

    value: float
    gradient: np.ndarray
    step: np.ndarray


@checks_keywords()
def natural_gradient(
    circuit: QuantumCircuit | CompiledCircuit,
    observable: Any,
    parameter_values: Any,
    *,
    regularisation: float = 1e-3,
    solver: str = "auto",
    max_iterations: int | None = None,
    options: FusedOptions | Mapping[str, Any] | None = None,
    **keywords: Unpack[FusedOptionsDict],
) -> NaturalGradient:
    """Return the value, the gradient and the natural gradient of an expectation value.

    The natural gradient is the solution s of ``(Re Q + r) s = g``: Re Q is the metric, the real part of the quantum
    geometric tensor (see `FusedQGT`), r the regularisation times the identity, and g the gradient. A step
    ``x - rate * s`` is a step of steepest descent in the distance of states. Where parameters move the state slowly,
    it moves them farther.

    >>> from qiskit.circuit.library import real_amplitudes
    >>> x, circuit = np.array([0.1, 0.2, 0.3, 0.4]), real_amplitudes(2, reps=1)
    >>> for _ in range(30):
    ...     value, gradient, step = natural_gradient(circuit, "ZZ", x)
    ...     x = x - 0.2 * step
    >>> round(natural_gradient(circuit, "ZZ", x).value, 3)
    -1.0

    Args:
        circuit: the circuit, with P parameters, or the result of `compile_circuit`.
        observable: one observable; None is Z on all qubits.
        parameter_values: real (P,), in the order of ``circuit.parameters``, or values by name.
        regularisation: r, a number >= 0 that is added to the diagonal of the metric. The metric is singular where
            parameters are redundant; with r = 0, the solution of the least norm is taken.
        solver: "dense" makes the metric and solves the linear system. "cg" takes conjugate gradients on products of the
            metric with vectors, and makes no P x P array; it needs r > 0. "auto" is "dense" up to 1,000 parameters.
        max_iterations: the largest number of iterations of "cg"; None is P.
        options: `FusedOptions` or a mapping.
        keywords: single options, which override ``options``.

    Raises:
        UnsupportedInstruction: if the circuit has an instruction that no engine can simulate.
        TypeError: for a circuit, observable or values of a wrong type, or an unknown option.
        ValueError: for several observables, several rows, another solver, a regularisation that is negative or not
            finite, a number of iterations below 1, or values or derivatives that are not finite.
        MemoryError: if a state does not fit the memory limit.

    Cost: a gradient, and for "dense" the metric (see `FusedQGT`). For "cg", each iteration takes four forward sweeps
    and one backward sweep. In complex64 a product of "cg" has a relative error of about 1e-5, which the solution
    multiplies by the ratio of the largest eigenvalue of the metric to the regularisation.

    Source: quantum natural gradient, arXiv:1909.02108.
    """
    check_choice("solver", solver, _SOLVERS)
    regularisation = _checked_regularisation(regularisation, solver)
    if max_iterations is not None:
        check_count("max_iterations", max_iterations)
    compiled = COMPILED.get(circuit)
    if keywords or not isinstance(options, FusedOptions):
        options = FusedOptions.coerce(options, **keywords)
    operators = circuit_observables(observable, compiled.num_qubits).operators
    values = ordered_rows(parameter_values, compiled.parameters)
    check_finite(values, compiled.parameters)
    if len(operators) != 1 or len(values) != 1:
        raise ValueError(
            "natural_gradient takes one observable and one row of values; given: "
            f"{count_text(len(operators), 'observable')} and {count_text(len(values), 'row')}."
        )
    evs, gradients = differentiate_rows(options, DerivativeType.REAL, compiled, operators, values)
    gradient, metric, count = gradients[0, 0], MetricTensor(compiled, options), len(compiled.parameters)
    if solver == "dense" or (solver == "auto" and (count <= _MOST_DENSE or regularisation == 0)):
        step = _solve(metric.tensor(values[0], None, True, None), regularisation, gradient)
    else:
        step = _conjugate_gradients(
            lambda vector: metric.metric_times(values[0], vector[None])[0] + regularisation * vector,
            gradient,
            count if max_iterations is None else max_iterations,
        )
    return NaturalGradient(float(evs[0, 0]), gradient, step)


def _checked_regularisation(regularisation: Any, solver: str) -> float:
    if hasattr(regularisation, "item") and np.ndim(regularisation) == 0:
        regularisation = regularisation.item()  # of an array or a tensor
    is_number = isinstance(regularisation, Real) and isfinite(regularisation)
    if not is_number or regularisation < 0 or (solver == "cg" and regularisation == 0):
        raise ValueError(
            f"regularisation is {regularisation!r:.60}; allowed: a finite number >= 0, and > 0 for solver='cg'."
        )
    return float(regularisation)


def _solve(metric: np.ndarray, regularisation: float, gradient: np.ndarray) -> np.ndarray:
    """Return the solution of a dense system; of a system without regularisation, the solution of the least norm."""
    if regularisation == 0:
        # rounding errors of the metric are not taken for small eigenvalues
        return np.linalg.pinv(metric, rcond=1e-10, hermitian=True) @ gradient
    return np.linalg.solve(metric + regularisation * np.eye(len(metric)), gradient)


def _conjugate_gradients(
    product: Callable[[np.ndarray], np.ndarray], gradient: np.ndarray, max_iterations: int
) -> np.ndarray:
    """Return the solution of a positive definite system, given by its products with vectors."""
    solution, residual = np.zeros_like(gradient), gradient.copy()
    direction, square = residual, float(residual @ residual)
    goal = _TOLERANCE**2 * square
    for _ in range(max_iterations):
        if square <= goal:
            break
        image = product(direction)
        length = square / float(direction @ image)
        solution += length * direction
        residual = residual - length * image
        previous, square = square, float(residual @ residual)
        direction = residual + square / previous * direction
    return solution
