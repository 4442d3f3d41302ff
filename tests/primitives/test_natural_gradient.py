# SPDX-License-Identifier: Apache-2.0
"""`natural_gradient` solves the linear system of the metric, as a matrix or by conjugate gradients."""

import numpy as np
import pytest
from circuits import values_of
from qiskit.circuit.library import efficient_su2
from qiskit.quantum_info import SparsePauliOp

from qiskit_fused import FusedEstimatorGradient, FusedQGT, natural_gradient

CIRCUIT = efficient_su2(3, reps=1)
OBSERVABLE = SparsePauliOp(["ZZI", "IZZ", "XII", "IXI", "IIX"], [1.0, 1.0, 0.5, 0.5, 0.5])


def test_both_solvers_solve_the_system_of_the_metric(dtype):
    values = values_of(CIRCUIT)
    metric = FusedQGT().run(CIRCUIT, values).result().qgts[0].real
    value, gradient = FusedEstimatorGradient().value_and_gradient(CIRCUIT, OBSERVABLE, values)
    expected = np.linalg.solve(metric + 0.01 * np.eye(12), gradient[0, 0])
    for solver in ("auto", "dense", "cg"):
        found = natural_gradient(CIRCUIT, OBSERVABLE, values, regularisation=0.01, solver=solver, dtype=dtype)
        tolerance = 1e-5 if dtype == "complex128" else 1e-2  # errors of the metric, divided by the regularisation
        assert np.linalg.norm(found.step - expected) < tolerance * np.linalg.norm(expected)
        np.testing.assert_allclose(found.gradient, gradient[0, 0], atol=1e-5)
        assert abs(found.value - value[0, 0]) < 1e-5


def test_a_singular_metric_gives_the_step_of_the_least_norm():
    values = np.zeros(12)
    metric = FusedQGT().run(CIRCUIT, values).result().qgts[0].real
    assert np.linalg.matrix_rank(metric, tol=1e-8) < 12
    _, gradient, step = natural_gradient(CIRCUIT, OBSERVABLE, values, regularisation=0)
    np.testing.assert_allclose(step, np.linalg.pinv(metric, rcond=1e-8) @ gradient, atol=1e-9)


def test_the_regularisation_may_be_an_array_without_dimensions():
    values = np.linspace(0, 1, 12)
    found = natural_gradient(CIRCUIT, OBSERVABLE, values, regularisation=np.array(0.5)).step
    assert (found == natural_gradient(CIRCUIT, OBSERVABLE, values, regularisation=0.5).step).all()


def test_a_wrong_argument_is_refused():
    values = np.zeros(12)
    with pytest.raises(ValueError, match="solver is 'lu'; allowed: 'auto', 'dense', 'cg'"):
        natural_gradient(CIRCUIT, OBSERVABLE, values, solver="lu")
    for regularisation in (-1, np.nan, np.inf, None, "1e-3", [0.1]):
        with pytest.raises(ValueError, match=r"regularisation is .*; allowed: a finite number >= 0"):
            natural_gradient(CIRCUIT, OBSERVABLE, values, regularisation=regularisation)
    with pytest.raises(ValueError, match=r"regularisation is 0; allowed: .* > 0 for solver='cg'"):
        natural_gradient(CIRCUIT, OBSERVABLE, values, regularisation=0, solver="cg")
    for max_iterations in (0, -1, 2.5):
        with pytest.raises(ValueError, match=r"max_iterations is .*; allowed: an integer >= 1"):
            natural_gradient(CIRCUIT, OBSERVABLE, values, solver="cg", max_iterations=max_iterations)
    with pytest.raises(
        ValueError, match=r"takes one observable and one row of values; given: 2 observables and 1 row\."
    ):
        natural_gradient(CIRCUIT, ["ZZZ", "XXX"], values)
