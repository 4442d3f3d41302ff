# SPDX-License-Identifier: Apache-2.0
"""Coefficients of any size give right values and gradients in every number format, or an error that names the cause."""

import numpy as np
import pytest
from asking import make_request
from qiskit.circuit import ParameterVector, QuantumCircuit
from qiskit.circuit.library import efficient_su2
from qiskit.quantum_info import SparsePauliOp

from qiskit_fused import FusedEstimator, FusedEstimatorGradient, compile_circuit
from qiskit_fused.compilation.observables import coerce_observables
from qiskit_fused.execution.evaluate import evaluate
from qiskit_fused.execution.fidelities import Fidelities
from qiskit_fused.execution.projections import Projections
from qiskit_fused.options import FusedOptions
from qiskit_fused.program.observables import Observables

V = ParameterVector("v", 3)
POINTS = np.array([[0.3, 0.4, 0.5], [1.3, -0.4, 0.1], [2.0, 0.7, -0.3]])


def ansatz():
    circuit = QuantumCircuit(3)
    circuit.ry(V[0], 0)
    circuit.cx(0, 1)
    circuit.rx(V[1], 1)
    circuit.cx(1, 2)
    circuit.u(V[2], 0.3, 0.1, 2)
    return circuit


OPERATORS = [SparsePauliOp(["ZZI"]), SparsePauliOp(["XXI", "IZY"], [1.0, 0.5]), SparsePauliOp(["IYX", "ZII"])]


@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("factor", [1e30, 1e39, 1e200, 1e307])
def test_large_coefficients_scale_values_and_gradients(factor, dtype, device):
    options = {"dtype": dtype, "device": device}
    estimator, gradient = FusedEstimator(**options), FusedEstimatorGradient(**options)
    mixed = [OPERATORS[0], OPERATORS[1] * factor, OPERATORS[2] * factor]
    factors = np.array([1.0, factor, factor])
    expected = estimator.run([(ansatz(), [[operator] for operator in OPERATORS], POINTS)]).result()[0].data.evs
    actual = estimator.run([(ansatz(), [[operator] for operator in mixed], POINTS)]).result()[0].data.evs
    np.testing.assert_allclose(actual / factors[:, None], expected, rtol=1e-5, atol=1e-6)
    values, gradients = gradient.value_and_gradient(ansatz(), OPERATORS, POINTS)
    large_values, large = gradient.value_and_gradient(ansatz(), mixed, POINTS)
    np.testing.assert_allclose(large_values / factors, values, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(large / factors[:, None], gradients, rtol=1e-5, atol=1e-6)


def test_weighted_sums_of_large_observables_have_gradients():
    compiled, weights = compile_circuit(ansatz()), np.array([0.5, -2e-39, 1e-39] * 3)
    large = coerce_observables([OPERATORS[0], OPERATORS[1] * 1e39, OPERATORS[2] * 1e39]).operators
    small = coerce_observables(OPERATORS).operators
    pairs = np.repeat(np.arange(3, dtype=np.int32), 3), np.tile(np.arange(3, dtype=np.int32), 3)
    options = FusedOptions(dtype="complex64")
    actual, expected = (
        evaluate(
            options,
            compiled,
            operators,
            make_request(POINTS, pairs, gradient=True, cotangents=cotangents, dtype="complex64"),
        )
        for operators, cotangents in ((large, weights), (small, np.array([0.5, -2.0, 1.0] * 3)))
    )
    np.testing.assert_allclose(actual.gradients, expected.gradients, atol=1e-5)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_large_weights_scale_gradients(dtype):
    operators = coerce_observables(OPERATORS).operators
    pairs = np.repeat(np.arange(3, dtype=np.int32), 3), np.tile(np.arange(3, dtype=np.int32), 3)
    weights = np.linspace(-1, 2, 9)

    def ask(weights):
        request = make_request(POINTS, pairs, gradient=True, cotangents=weights, dtype=dtype)
        return evaluate(FusedOptions(dtype=dtype), compile_circuit(ansatz()), operators, request)

    np.testing.assert_allclose(ask(weights * 1e60).gradients / 1e60, ask(weights).gradients, atol=1e-5)


@pytest.mark.parametrize("kind", [Fidelities, Projections])
@pytest.mark.parametrize("others", [None, [[0.4, -0.3]]], ids=["one set", "two sets"])
def test_large_cotangents_of_kernels_scale_gradients(kind, others):
    circuit = efficient_su2(2, reps=1)
    function = kind(circuit, circuit.parameters[:2], circuit.parameters[2:], dtype="complex64")
    samples, weights = [[0.1, 0.2], [0.9, -0.4]], np.linspace(0, 1, 6)
    cotangents = np.array([[1.0, -2.0], [0.5, 3.0]])[:, : 2 if others is None else 1]
    expected = function.value_and_vjp(samples, weights, cotangents, others)
    found = function.value_and_vjp(samples, weights, 1e200 * cotangents, others)
    for large, small in zip(found[1:], expected[1:]):
        assert (large is None) == (small is None)
        if large is not None:
            np.testing.assert_allclose(large, 1e200 * small, rtol=1e-4, atol=1e194)


def test_a_result_larger_than_any_float_is_an_error_that_names_row_and_observable():
    operators = [SparsePauliOp(["III"]), SparsePauliOp(["III", "ZII", "IZI"], [1.7e308] * 3)]
    with pytest.raises(ValueError, match=r"observable 1 in row 2.*larger than 1\.8e\+308.*divide the coefficients"):
        FusedEstimatorGradient().value_and_gradient(ansatz(), operators, [[3.1, 0, 0], [3.1, 0, 0], [0, 0, 0]])


def test_coefficients_in_range_are_taken_as_they_are():
    operators = Observables(1, 2, [0, 1], [1e12, 1e-12], [0, 1, 2], [1, 1], [0, 0])
    assert operators.scaled is None
    tiny = Observables(1, 2, [0, 1], [1.0, 3e-60], [0, 1, 2], [1, 1], [0, 0])
    scaled, exponents = tiny.scaled
    assert exponents[0] == 0
    np.testing.assert_array_equal(np.ldexp(scaled.coefficients.real, exponents), tiny.coefficients.real)
