# SPDX-License-Identifier: Apache-2.0
"""Hessians of `FusedEstimatorGradient` and of its objectives, as users and SciPy call them."""

import numpy as np
import pytest
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.circuit.library import efficient_su2, real_amplitudes
from qiskit.quantum_info import SparsePauliOp
from scipy.optimize import minimize

from qiskit_fused import FusedEstimatorGradient, compile_circuit

GRADIENT = FusedEstimatorGradient()


def test_rows_and_observables_have_their_own_hessians():
    circuit = efficient_su2(2, reps=1)
    rows = np.random.default_rng(0).normal(size=(3, 8))
    values, gradients, hessians = GRADIENT.value_gradient_and_hessian(compile_circuit(circuit), ["ZZ", "XI"], rows)
    assert values.shape == (3, 2) and gradients.shape == (3, 2, 8) and hessians.shape == (3, 2, 8, 8)
    _, _, alone = GRADIENT.value_gradient_and_hessian(circuit, "XI", rows[2], circuit.parameters[5])
    np.testing.assert_allclose(alone[0, 0], hessians[2, 1, 5:6, 5:6], atol=1e-14)
    _, _, products = GRADIENT.hessian_vector_product(circuit, ["ZZ", "XI"], rows, np.eye(8)[3])
    np.testing.assert_allclose(products, hessians[..., 3], atol=1e-10)
    assert GRADIENT.value_gradient_and_hessian(circuit, "ZZ", np.zeros((0, 8)))[2].shape == (0, 1, 8, 8)


@pytest.mark.parametrize("method", ["trust-ncg", "trust-exact", "Newton-CG"])
def test_scipys_methods_with_second_derivatives_find_a_minimum_in_few_steps(method):
    observable = SparsePauliOp(["ZZI", "IZZ", "XII", "IXI", "IIX"], [1.0, 1.0, 0.5, 0.5, 0.5])
    circuit, extra = real_amplitudes(3, reps=2), Parameter("fixed")
    circuit.rz(extra, 0)
    objective = GRADIENT.objective(circuit, observable, fixed={extra: 0.3})
    second = {"hess": objective.hessian} if method == "trust-exact" else {"hessp": objective.hessian_product}
    start = np.random.default_rng(3).normal(scale=0.5, size=9)
    found = minimize(objective, start, jac=True, method=method, options={"maxiter": 40}, **second)
    assert np.abs(objective.gradient(found.x)).max() < 1e-4
    point, vector = start, np.arange(9.0)
    np.testing.assert_allclose(objective.hessian(point) @ vector, objective.hessian_product(point, vector), atol=1e-9)


def test_errors_name_the_row_and_the_argument():
    circuit = QuantumCircuit(1)
    circuit.ry(Parameter("a") ** 1.5, 0)
    with pytest.raises(ValueError, match="no finite second derivative with respect to 'a' in row 1"):
        GRADIENT.value_gradient_and_hessian(circuit, "X", [[0.5], [0.0]])
    with pytest.raises(ValueError, match="there are 2 vectors and 3 rows"):
        GRADIENT.hessian_vector_product(circuit, "Z", np.ones((3, 1)), np.ones((2, 1)))
    with pytest.raises(ValueError, match="vectors has shape"):
        GRADIENT.hessian_vector_product(circuit, "Z", [1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="'a' in row 1 of the vectors is nan"):
        GRADIENT.hessian_vector_product(circuit, "Z", np.ones((2, 1)), [[1.0], [np.nan]])
