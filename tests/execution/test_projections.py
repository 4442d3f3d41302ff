# SPDX-License-Identifier: Apache-2.0
"""Projected kernels agree with density matrices of Qiskit, and their gradients with finite differences."""

import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from qiskit.circuit import ParameterVector, QuantumCircuit
from qiskit.circuit.library import zz_feature_map
from qiskit.quantum_info import SparsePauliOp, Statevector, partial_trace

from qiskit_fused.execution import executor
from qiskit_fused.execution.projections import Projections

RNG = np.random.default_rng(4)
X, W = ParameterVector("x", 2), ParameterVector("w", 2)
SAMPLES, OTHERS, WEIGHTS = RNG.normal(size=(6, 2)), RNG.normal(size=(4, 2)), RNG.normal(size=2)
SAMPLES[4] = SAMPLES[1]
OTHERS[2] = SAMPLES[4]
SETS = pytest.mark.parametrize("others", [None, OTHERS], ids=["one", "two"])


def circuit_of():
    """Return a circuit of expressions of inputs and weights, with an idle qubit."""
    circuit = QuantumCircuit(3)
    circuit.ry(X[0] * W[0], 0)
    circuit.rx(X[1] + W[1], 2)
    circuit.cx(0, 2)
    circuit.rz(X[0] ** 2, 2)
    circuit.ry(W[1], 2)
    return circuit


def states_of(samples, weights):
    circuit = circuit_of()
    return [Statevector(circuit.assign_parameters({**dict(zip(X, row)), **dict(zip(W, weights))})) for row in samples]


def expected_matrix(samples, weights, others=None, gamma=1.0):
    """Return the kernel of the density matrices of single qubits."""

    def reduced(samples):
        qubits = [[1, 2], [0, 2], [0, 1]]
        return np.array([[partial_trace(state, rest).data for rest in qubits] for state in states_of(samples, weights)])

    left = reduced(samples)
    right = left if others is None else reduced(others)
    return np.exp(-gamma * (abs(left[:, None] - right) ** 2).sum(axis=(2, 3, 4)))


def differences(function, array, step=1e-6):
    """Return the central differences of a function of an array."""
    found = np.zeros(array.shape)
    for index in np.ndindex(*array.shape):
        ahead, behind = array.copy(), array.copy()
        ahead[index] += step
        behind[index] -= step
        found[index] = (function(ahead) - function(behind)) / (2 * step)
    return found


@SETS
@pytest.mark.parametrize("gamma", [1.0, 0.3])
def test_values_are_gaussian_functions_of_density_matrices(others, gamma, device, dtype):
    function = Projections(circuit_of(), X, W, gamma=gamma, device=device, dtype=dtype)
    matrix = function.values(SAMPLES, WEIGHTS, others)
    expected = expected_matrix(SAMPLES, WEIGHTS, others, gamma)
    assert_allclose(matrix, expected, atol=1e-13 if dtype == "complex128" else 2e-6)
    equal = (SAMPLES[:, None] == (SAMPLES if others is None else others)).all(axis=2)
    assert (matrix[equal] == 1).all()
    if others is None:
        assert_array_equal(matrix, matrix.T)


@SETS
@pytest.mark.parametrize("input_gradients", [False, True])
def test_a_vector_jacobian_product_agrees_with_finite_differences(others, input_gradients, device):
    function = Projections(circuit_of(), X, W, gamma=0.7, device=device)
    cotangents = RNG.normal(size=(6, 6 if others is None else 4))
    found = function.value_and_vjp(SAMPLES, WEIGHTS, cotangents, others, input_gradients=input_gradients)

    def loss(samples, weights, others):
        return (cotangents * expected_matrix(samples, weights, others, 0.7)).sum()

    assert_allclose(found.values, function.values(SAMPLES, WEIGHTS, others), atol=1e-13)
    assert_allclose(found.weights, differences(lambda w: loss(SAMPLES, w, others), WEIGHTS), atol=1e-7)
    if not input_gradients:
        assert found.inputs is None and found.others is None
        return
    assert_allclose(found.inputs, differences(lambda x: loss(x, WEIGHTS, others), SAMPLES), atol=1e-7)
    if others is None:
        assert found.others is None
    else:
        assert_allclose(found.others, differences(lambda y: loss(SAMPLES, WEIGHTS, y), OTHERS), atol=1e-7)


def test_given_observables_take_the_place_of_density_matrices():
    observables = [SparsePauliOp(["ZII", "XIX"], [0.5, -2.0]), "IIZ"]
    matrix = Projections(circuit_of(), X, W, observables, 0.5).values(SAMPLES, WEIGHTS)
    operators = [observables[0], SparsePauliOp("IIZ")]
    values = [
        [state.expectation_value(operator).real for operator in operators] for state in states_of(SAMPLES, WEIGHTS)
    ]
    distances = ((np.array(values)[:, None] - np.array(values)) ** 2).sum(axis=2)
    assert_allclose(matrix, np.exp(-0.5 * distances), atol=1e-13)


def test_an_observable_that_changes_in_place_counts_from_the_next_call_on():
    observable = SparsePauliOp("IIZ")
    function = Projections(circuit_of(), X, W, observable)
    before = function.values(SAMPLES, WEIGHTS)
    observable.coeffs[0] = 2.0
    assert_allclose(function.values(SAMPLES, WEIGHTS), before**4, atol=1e-13)


def test_a_matrix_that_the_caller_changes_does_not_change_gradients():
    def cotangents(matrix):
        matrix *= 0
        return np.ones((6, 6))

    function = Projections(circuit_of(), X, W)
    found = function.value_and_vjp(SAMPLES, WEIGHTS, cotangents)
    assert_allclose(found.weights, function.value_and_vjp(SAMPLES, WEIGHTS, np.ones((6, 6))).weights, atol=1e-14)


def test_workers_and_limits_give_the_same_matrix(monkeypatch):
    monkeypatch.setattr(executor, "_MIN_WORK", 100)
    circuit, samples = zz_feature_map(3), RNG.normal(size=(40, 3))
    expected = Projections(circuit, circuit.parameters).value_and_vjp(samples, (), np.ones((40, 40)))
    with ThreadPoolExecutor(2) as pool:
        for options in ({"executor": pool}, {"memory_limit": 16_000}):
            function = Projections(circuit, circuit.parameters, **options)
            found = function.value_and_vjp(samples, (), np.ones((40, 40)))
            assert_allclose(found.values, expected.values, atol=1e-13)
            assert_allclose(found.inputs, expected.inputs, atol=1e-11)


def test_empty_sets_have_empty_matrices():
    function = Projections(circuit_of(), X, W)
    assert function.values(SAMPLES[:0], WEIGHTS).shape == (0, 0)
    found = function.value_and_vjp(SAMPLES[:0], WEIGHTS, np.zeros((0, 4)), OTHERS)
    assert found.values.shape == (0, 4) and not found.weights.any() and found.inputs.shape == (0, 2)


@pytest.mark.parametrize("gamma", [0, -1.0, np.nan, np.inf, "scale", True])
def test_a_bad_factor_is_refused(gamma):
    with pytest.raises(ValueError, match=re.escape(f"gamma is {gamma!r}; allowed: a finite number above 0.")):
        Projections(circuit_of(), X, W, gamma=gamma)


def test_an_object_shows_its_numbers_and_settings():
    assert repr(Projections(circuit_of(), X, W, gamma=2)) == "Projections(3 qubits, 2 inputs, 2 weights, gamma=2.0)"


def test_progress_counts_values_and_gradients_together(monkeypatch):
    monkeypatch.setattr("qiskit_fused.execution.progress._INTERVAL", 0)
    calls = []
    function = Projections(circuit_of(), X, W, progress=lambda done, total: calls.append((done, total)))
    function.value_and_vjp(SAMPLES, WEIGHTS, lambda matrix: matrix)
    done, totals = zip(*calls)
    assert done[0] == 0 and done[-1] == totals[0] and list(done) == sorted(done) and len(set(totals)) == 1
