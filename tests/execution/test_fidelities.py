# SPDX-License-Identifier: Apache-2.0
"""Fidelities of samples agree with Qiskit's statevectors, and their gradients with finite differences."""

import re

import numpy as np
import pytest
from circuits import circuits
from hypothesis import given, settings
from numpy.testing import assert_allclose, assert_array_equal
from qiskit import transpile
from qiskit.circuit import ParameterVector, QuantumCircuit
from qiskit.circuit.library import pauli_feature_map, real_amplitudes, z_feature_map, zz_feature_map
from qiskit.quantum_info import Statevector
from qiskit_machine_learning.circuit.library import raw_feature_vector

from qiskit_fused import compile_circuit
from qiskit_fused.execution.fidelities import Fidelities

# SciPy warns about the sparse format in which Qiskit exponentiates a PauliEvolutionGate.
pytestmark = pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")

RNG = np.random.default_rng(7)
X, W = ParameterVector("x", 2), ParameterVector("w", 3)
SAMPLES, OTHERS, WEIGHTS = RNG.normal(size=(6, 2)), RNG.normal(size=(4, 2)), RNG.normal(size=3)
SAMPLES[4] = SAMPLES[5] = SAMPLES[1]
OTHERS[2] = SAMPLES[4]
SETS = pytest.mark.parametrize("others", [None, OTHERS], ids=["one", "two"])


def trainable_circuit():
    """Return a circuit of expressions of inputs and weights, with an idle qubit."""
    circuit = QuantumCircuit(3)
    circuit.ry(X[0] * W[0], 0)
    circuit.rx(X[1] + W[1], 2)
    circuit.cx(0, 2)
    circuit.rz(X[0] ** 2, 0)
    circuit.ry(W[2] * X[1], 0)
    circuit.crx(W[0], 0, 2)
    return circuit


def function_of(circuit=None, **options):
    return Fidelities(trainable_circuit() if circuit is None else circuit, X, W, **options)


def expected_matrix(function, circuit, samples, weights=(), others=None):
    def states(rows):
        inputs, weight_params = function.parameters
        bound = [
            circuit.assign_parameters({**dict(zip(inputs, row)), **dict(zip(weight_params, weights))}) for row in rows
        ]
        return np.array([Statevector(one).data for one in bound])

    left = states(samples)
    return abs(left.conj() @ (left if others is None else states(others)).T) ** 2


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
def test_values_are_fidelities_and_equal_samples_have_exactly_one(others, device, dtype):
    function, circuit = function_of(device=device, dtype=dtype), trainable_circuit()
    matrix = function.values(SAMPLES, WEIGHTS, others)
    expected = expected_matrix(function, circuit, SAMPLES, WEIGHTS, others)
    assert matrix.dtype == np.float64
    assert_allclose(matrix, expected, atol=1e-13 if dtype == "complex128" else 2e-6)
    equal = (SAMPLES[:, None] == (SAMPLES if others is None else others)).all(axis=2)
    assert (matrix[equal] == 1).all()
    if others is None:
        assert_array_equal(matrix, matrix.T)


@SETS
@pytest.mark.parametrize("input_gradients", [False, True])
def test_a_vector_jacobian_product_agrees_with_finite_differences(others, input_gradients, device):
    function, circuit = function_of(device=device), trainable_circuit()
    cotangents = RNG.normal(size=(6, 6 if others is None else 4))
    found = function.value_and_vjp(SAMPLES, WEIGHTS, cotangents, others, input_gradients=input_gradients)

    def loss(samples, weights, others):
        return (cotangents * expected_matrix(function, circuit, samples, weights, others)).sum()

    assert_allclose(found.values, function.values(SAMPLES, WEIGHTS, others), atol=1e-13)
    equal = (SAMPLES[:, None] == (SAMPLES if others is None else others)).all(axis=2)
    assert (found.values[equal] == 1).all()
    assert_allclose(found.weights, differences(lambda w: loss(SAMPLES, w, others), WEIGHTS), atol=1e-7)
    if not input_gradients:
        assert found.inputs is None and found.others is None
        return
    assert_allclose(found.inputs, differences(lambda x: loss(x, WEIGHTS, others), SAMPLES), atol=1e-7)
    if others is None:
        assert found.others is None
    else:
        assert_allclose(found.others, differences(lambda y: loss(SAMPLES, WEIGHTS, y), OTHERS), atol=1e-7)


def test_cotangents_may_be_a_function_of_the_matrix():
    function, seen = function_of(), []
    found = function.value_and_vjp(SAMPLES, WEIGHTS, lambda matrix: seen.append(matrix) or 2 * matrix)
    expected = function.value_and_vjp(SAMPLES, WEIGHTS, 2 * found.values)
    assert len(seen) == 1 and seen[0] is found.values
    assert_allclose(found.weights, expected.weights, atol=1e-14)


def test_the_cotangents_of_the_diagonal_have_no_gradient():
    found = function_of().value_and_vjp(SAMPLES[:4], WEIGHTS, np.diag([1e6, 2e6, 3e6, 4e6]))
    assert not found.weights.any() and not found.inputs.any()


@settings(max_examples=25, deadline=None)
@given(circuits(max_qubits=3))
def test_any_circuit_has_the_fidelities_of_its_statevectors(circuit):
    function = Fidelities(circuit, circuit.parameters)
    samples = RNG.normal(size=(3, function.num_inputs))
    assert_allclose(function.values(samples), expected_matrix(function, circuit, samples), atol=1e-11)


@pytest.mark.parametrize(
    "circuit",
    [
        z_feature_map(2),
        zz_feature_map(3, entanglement="linear"),
        pauli_feature_map(2, paulis=["X", "YZ"]),
        real_amplitudes(3, reps=1),
        raw_feature_vector(4),
        transpile(zz_feature_map(3), basis_gates=["rz", "sx", "cx"], coupling_map=[[0, 1], [1, 2]], seed_transpiler=1),
    ],
    ids=["z", "zz", "pauli", "real", "amplitudes", "transpiled"],
)
def test_feature_maps_have_the_fidelities_of_their_statevectors_and_gradients(circuit):
    function = Fidelities(circuit, circuit.parameters)
    samples = RNG.random((4, function.num_inputs))
    expected = expected_matrix(function, circuit, samples)
    assert_allclose(function.values(samples), expected, atol=1e-13)
    cotangents = RNG.normal(size=(4, 4))
    found = function.value_and_vjp(samples, (), cotangents)
    assert found.weights.shape == (0,)
    slopes = differences(lambda x: (cotangents * expected_matrix(function, circuit, x)).sum(), samples)
    assert_allclose(found.inputs, slopes, atol=1e-7)


def test_one_sample_no_sample_and_samples_without_inputs_have_matrices():
    function = function_of()
    assert_array_equal(function.values(SAMPLES[:1], WEIGHTS), [[1.0]])
    assert function.values(SAMPLES[:0], WEIGHTS).shape == (0, 0)
    assert function.values(SAMPLES[:0], WEIGHTS, OTHERS).shape == (0, 4)
    assert function.values(OTHERS, WEIGHTS, SAMPLES[:0]).shape == (4, 0)
    empty = function.value_and_vjp(SAMPLES[:0], WEIGHTS, np.zeros((0, 4)), OTHERS)
    assert not empty.weights.any() and empty.inputs.shape == (0, 2) and not empty.others.any()
    constant = QuantumCircuit(2)
    constant.h(0)
    assert_array_equal(Fidelities(constant).values(np.zeros((3, 0))), np.ones((3, 3)))
    assert_array_equal(Fidelities(QuantumCircuit(2)).values(np.zeros((2, 0)), (), np.zeros((1, 0))), np.ones((2, 1)))


def test_values_by_name_are_ordered():
    function = function_of()
    by_name = {X[1]: SAMPLES[:, 1], X[0]: SAMPLES[:, 0]}
    assert_array_equal(function.values(by_name, dict(zip(W, WEIGHTS))), function.values(SAMPLES, WEIGHTS))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((SAMPLES[:, :1], WEIGHTS), "inputs have shape (6, 1); allowed: (samples, 2)."),
        ((SAMPLES, WEIGHTS[:2]), "weights have shape (2,); allowed: (3,)."),
        ((SAMPLES, WEIGHTS, OTHERS[0]), "others have shape (2,); allowed: (samples, 2)."),
        ((SAMPLES, WEIGHTS, [[0, 0], [0, np.nan]]), "the value of parameter 'x[1]' in row 1 of others is nan"),
        (([[np.inf, 0]], WEIGHTS), "the value of parameter 'x[0]' in row 0 of inputs is inf"),
        ((SAMPLES, [0, np.nan, 0]), "the value of parameter 'w[1]' is nan"),
    ],
)
def test_bad_samples_are_named(arguments, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        function_of().values(*arguments)


def test_an_error_about_an_angle_names_the_sample_and_its_set():
    circuit = QuantumCircuit(1)
    circuit.ry(X[0] ** 0.5, 0)
    circuit.rz(X[1], 0)
    samples, wrong = np.ones((4, 2)), np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 2.0]])
    for arguments, text in (((wrong, ()), "row 2 of inputs"), ((samples, (), wrong), "row 2 of others")):
        with pytest.raises(ValueError, match=text):
            Fidelities(circuit, X).values(*arguments)


@pytest.mark.parametrize(
    ("cotangents", "error", "text"),
    [
        (np.ones((6, 5)), ValueError, "cotangents have shape (6, 5); allowed: (6, 6)"),
        (np.full((6, 6), np.nan), ValueError, "the cotangent of element (0, 0) of the matrix is nan."),
        (lambda matrix: (1.0, matrix), TypeError, "cotangents are a tuple of 2 with a number at 0"),
        (None, TypeError, "cotangents is None; allowed: real numbers, one for each element of the matrix."),
    ],
)
def test_bad_cotangents_are_named(cotangents, error, text):
    with pytest.raises(error, match=re.escape(text)):
        function_of().value_and_vjp(SAMPLES, WEIGHTS, cotangents)


def test_parameters_are_inputs_or_weights():
    with pytest.raises(ValueError, match=re.escape("parameter 'w[0]' of the circuit must be one input")):
        Fidelities(trainable_circuit(), X)


def test_an_object_shows_its_numbers_and_options():
    assert repr(function_of(compile_circuit(trainable_circuit()), dtype="complex64")) == (
        "Fidelities(3 qubits, 2 inputs, 3 weights, dtype='complex64')"
    )


def test_progress_counts_values_and_gradients_together(monkeypatch):
    monkeypatch.setattr("qiskit_fused.execution.progress._INTERVAL", 0)
    calls = []
    function = function_of(progress=lambda done, total: calls.append((done, total)))
    function.value_and_vjp(SAMPLES, WEIGHTS, lambda matrix: matrix)
    done, totals = zip(*calls)
    assert done[0] == 0 and done[-1] == totals[0] and list(done) == sorted(done) and len(set(totals)) == 1
