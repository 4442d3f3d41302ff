# SPDX-License-Identifier: Apache-2.0
"""The methods of `FusedEstimatorGradient` that return Hessians, and products of Hessians with vectors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from qiskit.circuit import Parameter, QuantumCircuit

from qiskit_fused.common.row_errors import RowError, renumbered
from qiskit_fused.compilation.circuits import COMPILED, CompiledCircuit
from qiskit_fused.compilation.observables import circuit_observables
from qiskit_fused.execution.arguments import ordered_rows
from qiskit_fused.execution.finite_values import check_finite
from qiskit_fused.execution.progress import Part, Progress
from qiskit_fused.execution.second_derivatives import NUM_POINTS, SecondDerivatives
from qiskit_fused.options import FusedOptions
from qiskit_fused.primitives.fused_gradient import FusedGradient
from qiskit_fused.program.observables import Observables

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


class CurvatureMethods(FusedGradient):
    """Second derivatives of expectation values, for `FusedEstimatorGradient`."""

    def value_gradient_and_hessian(
        self,
        circuit: QuantumCircuit | CompiledCircuit,
        observables: Any,
        parameter_values: Any,
        parameters: Iterable[Parameter] | Parameter | None = None,
    ) -> Arrays:
        """Return values, gradients and Hessians of all pairs of rows and observables.

        With row b of the parameter values, ``values[b, k] = E_k(theta_b) = <psi_b|O_k|psi_b>``, ``gradients[b, k, p] =
        dE_k/dtheta_p`` and ``hessians[b, k, p, q] = d^2E_k/dtheta_p dtheta_q``. They are derivatives of the real value,
        whatever the derivative type of this gradient is. `hessian_vector_product` makes no P x P array.

        >>> circuit = QuantumCircuit(1)
        >>> a, b = Parameter("a"), Parameter("b")
        >>> _ = circuit.ry(a * b, 0)
        >>> from qiskit_fused import FusedEstimatorGradient
        >>> values, gradients, hessians = FusedEstimatorGradient().value_gradient_and_hessian(circuit, "Z", [0.5, 2.0])
        >>> hessians[0, 0].round(3).tolist()
        [[-2.161, -1.382], [-1.382, -0.135]]

        Args:
            circuit: the circuit, with P parameters, or the result of `compile_circuit`.
            observables: one observable or a list of K; None is Z on all qubits.
            parameter_values: real (B, P), or (P,) for B = 1, or values by name; see `value_and_gradient`.
            parameters: the parameters to differentiate, in the order of the axes of gradients and Hessians; None is
                all, in the order of ``circuit.parameters``.

        Returns:
            Values (B, K), gradients (B, K, P) and Hessians (B, K, P, P), float64, where P counts ``parameters`` if they
            are given. Hessians are symmetric.

        Raises:
            UnsupportedInstruction: if the circuit has an instruction that no engine can simulate.
            TypeError: for a circuit, observable or values of a wrong type.
            ValueError: for shapes that do not fit, parameters that are not in the circuit, or values, derivatives or
                second derivatives that are not finite; the text names the row.
            MemoryError: if a row does not fit the memory limit, or the Hessians do not fit the free memory.

        Cost: for each row and observable, two gradients for each parameter that is the angle of one gate with two
        eigenvalues, and four gradients for any other parameter, in one batch. Exact up to rounding errors if at most
        two rotations share a parameter. Otherwise the parameter has central differences of exact gradients, whose
        error is about 1e-11 in complex128 and 1e-5 in complex64, relative to the sum of the coefficients of the
        parameter in all angles, times the largest gradient.

        Source: parameter-shift rules for several frequencies, arXiv:2107.12390.
        """
        compiled = COMPILED.get(circuit)
        operators = circuit_observables(observables, compiled.num_qubits).operators
        values = _rows(compiled, parameter_values)
        columns = None if parameters is None else compiled.find_columns("parameters", parameters)
        return hessians_of_rows(self.fused_options, compiled, operators, values, columns)

    def hessian_vector_product(
        self, circuit: QuantumCircuit | CompiledCircuit, observables: Any, parameter_values: Any, vectors: Any
    ) -> Arrays:
        """Return values, gradients, and products of the Hessians with vectors, for all rows and observables.

        With row b of the parameter values, ``products[b, k, p] = sum_q d^2E_k/dtheta_p dtheta_q vectors[b, q]``. No
        P x P array is made, so circuits of many thousand parameters are differentiated twice at the cost of a few
        gradients.

        >>> circuit = QuantumCircuit(1)
        >>> a, b = Parameter("a"), Parameter("b")
        >>> _ = circuit.ry(a * b, 0)
        >>> from qiskit_fused import FusedEstimatorGradient
        >>> _, _, products = FusedEstimatorGradient().hessian_vector_product(circuit, "Z", [0.5, 2.0], [1.0, 1.0])
        >>> products[0, 0].round(3).tolist()
        [-3.543, -1.517]

        Args:
            circuit: the circuit, with P parameters, or the result of `compile_circuit`.
            observables: one observable or a list of K; None is Z on all qubits.
            parameter_values: real (B, P), or (P,) for B = 1, or values by name; see `value_and_gradient`.
            vectors: real (B, P), or (P,) for one vector for all rows; or values by name.

        Returns:
            Values (B, K), gradients (B, K, P) and products (B, K, P), float64.

        Raises:
            UnsupportedInstruction: if the circuit has an instruction that no engine can simulate.
            TypeError: for a circuit, observable, values or vectors of a wrong type.
            ValueError: for shapes that do not fit, or values, vectors, derivatives or second derivatives that are not
                finite; the text names the row.
            MemoryError: if a row does not fit the memory limit.

        Cost: five gradients for each row and observable, whatever P is. Products are central differences of fourth
        order of exact gradients along the vector, with steps that the bandwidth of the circuit along the vector
        bounds. In complex128 their relative error is below 1e-9: 1e-12 for some tens of parameters, 7e-11 for 720. In
        complex64 it is 1e-5 for some tens of parameters, and 4e-4 for 720.
        """
        compiled = COMPILED.get(circuit)
        operators = circuit_observables(observables, compiled.num_qubits).operators
        values, along = _rows(compiled, parameter_values), ordered_rows(vectors, compiled.parameters, "vectors")
        if not np.isfinite(along).all():
            row, column = np.argwhere(~np.isfinite(along))[0].tolist()
            name = compiled.parameters[column].name
            raise RowError(f"the element of '{name}' in ", row, f" of the vectors is {along[row, column]}.")
        if len(along) not in (1, len(values)):
            raise ValueError(
                f"there are {len(along)} vectors and {len(values)} rows of parameter_values; allowed: one vector, or "
                "one for each row."
            )
        along = np.broadcast_to(along, values.shape)
        return products_of_rows(self.fused_options, compiled, operators, values, along)


def hessians_of_rows(
    options: FusedOptions,
    compiled: CompiledCircuit,
    operators: Observables,
    values: np.ndarray,
    columns: np.ndarray | None = None,
) -> Arrays:
    """Return values (B, K), gradients (B, K, P) and Hessians (B, K, P, P), and show the progress.

    Args:
        options: options of the engine.
        compiled: the circuit.
        operators: K observables on the qubits of the circuit.
        values: finite parameter values, float64 (B, P).
        columns: positions of the parameters to differentiate; None is all. P counts these in the result.
    """
    function, results = SecondDerivatives(compiled, operators, options), []
    count = len(compiled.parameters) if columns is None else len(columns)
    num_rows = 1 + 2 * count
    parts = (Part.of(compiled, num_rows, num_rows * len(operators)) for _ in values)
    with Progress(options.progress, parts) as progress:
        for number, row in enumerate(values):
            progress.next_part()
            with renumbered([number].__getitem__):
                results.append(function.hessian(row, columns, progress.watch))
    if not results:
        shape = 0, len(operators), count, count
        return np.zeros(shape[:2]), np.zeros(shape[:3]), np.zeros(shape)
    first, second, third = (np.array(arrays) for arrays in zip(*results))
    return first, second, third


def products_of_rows(
    options: FusedOptions, compiled: CompiledCircuit, operators: Observables, values: np.ndarray, vectors: np.ndarray
) -> Arrays:
    """Return values (B, K), gradients (B, K, P) and products of Hessians with vectors (B, P), and show the progress."""
    num_rows = NUM_POINTS * len(values)
    part = Part.of(compiled, num_rows, num_rows * len(operators))
    with Progress(options.progress, (part,)) as progress:
        progress.next_part()
        return SecondDerivatives(compiled, operators, options).products(values, vectors, progress.watch)


def _rows(compiled: CompiledCircuit, parameter_values: Any) -> np.ndarray:
    """Return checked parameter values, float64 (B, P)."""
    values = ordered_rows(parameter_values, compiled.parameters)
    check_finite(values, compiled.parameters)
    return values
