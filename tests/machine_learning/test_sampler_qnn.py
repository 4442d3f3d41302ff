# SPDX-License-Identifier: Apache-2.0
"""FusedSamplerQNN agrees with SamplerQNN where SamplerQNN is right, and is right where it is not."""

import copy
import pickle

import numpy as np
import pytest
from circuits import circuits
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from qiskit import generate_preset_pass_manager, transpile
from qiskit.circuit import ClassicalRegister, Parameter, ParameterVector, QuantumCircuit
from qiskit.circuit.library import efficient_su2, real_amplitudes, zz_feature_map
from qiskit.primitives import StatevectorSampler
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import Statevector
from qiskit_machine_learning.algorithms import NeuralNetworkClassifier
from qiskit_machine_learning.exceptions import QiskitMachineLearningError
from qiskit_machine_learning.gradients import SPSASamplerGradient
from qiskit_machine_learning.neural_networks import SamplerQNN
from qiskit_machine_learning.optimizers import L_BFGS_B
from sklearn.base import clone

from qiskit_fused import FusedSampler, FusedSamplerGradient, FusedSamplerQNN, UnsupportedInstruction, compile_circuit
from qiskit_fused.execution import row_functions

A, B, C = (Parameter(name) for name in ("c", "a", "b"))  # not in the order of the circuit


def parity(integer):
    return bin(integer).count("1") % 2


def pair(integer):
    return np.array([parity(integer), 2 * parity(integer)])


def high_bit(integer):
    return integer // 2


INTERPRETS = {
    "integer": {},
    "parity": {"interpret": parity, "output_shape": 2},
    "pair": {"interpret": pair, "output_shape": (2, 3)},
}


def parts(num_inputs=2, num_weights=1, **keywords):
    """Return the arguments of a network with ``num_inputs`` inputs (0 or 2) and ``num_weights`` weights (0 or 1)."""
    circuit = QuantumCircuit(2)
    circuit.ry(A + 0.1 if num_inputs else 0.4, 0)
    circuit.cx(0, 1)
    circuit.rx(B if num_inputs else 0.3, 1)
    circuit.ry(2 * C if num_weights else 0.2, 0)
    circuit.cz(1, 0)
    circuit.h(0)
    return {"circuit": circuit, "input_params": [A, B][:num_inputs], "weight_params": [C][:num_weights]} | keywords


def assert_same(found, expected, atol=1e-9):
    # `SamplerQNN` makes counts of probabilities, which rounds them to multiples of 1e-12.
    assert type(found) is type(expected)
    if expected is not None:
        assert found.shape == expected.shape and found.dtype == expected.dtype
        assert_allclose(
            *(array if isinstance(array, np.ndarray) else array.todense() for array in (found, expected)), atol=atol
        )


def data(shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape)


INPUTS = {"none": None, "one": data(2), "rows": data((3, 2)), "grid": data((2, 3, 2)), "list": [[0.1, 0.2]]}


def layers(kind, **keywords):
    """Return a network of two qubits, with its feature map and ansatz."""
    features, ansatz = zz_feature_map(2, reps=1), real_amplitudes(2, reps=1)
    return kind(
        circuit=features.compose(ansatz), input_params=features.parameters, weight_params=ansatz.parameters, **keywords
    )


# --- passes ---


@pytest.mark.parametrize("input_gradients", [False, True])
@pytest.mark.parametrize("interpret", INTERPRETS)
@pytest.mark.parametrize("num_weights", [0, 1])
@pytest.mark.parametrize("inputs", INPUTS)
def test_passes_have_the_values_and_shapes_of_sampler_qnn(inputs, num_weights, interpret, input_gradients, device):
    given, weights = INPUTS[inputs], data(num_weights)
    arguments = parts(0 if given is None else 2, num_weights, input_gradients=input_gradients, **INTERPRETS[interpret])
    fused, upstream = FusedSamplerQNN(**arguments, device=device), SamplerQNN(**arguments)
    assert fused.output_shape == upstream.output_shape and not fused.sparse
    weights = weights if num_weights else None
    if given is not None or num_weights:  # without parameters, all outputs of SamplerQNN are 0
        assert_same(fused.forward(given, weights), upstream.forward(given, weights))
    for found, expected in zip(fused.backward(given, weights), upstream.backward(given, weights)):
        assert_same(found, expected)


@pytest.mark.parametrize("inputs", ["none", "rows", "grid"])
@pytest.mark.parametrize("interpret", INTERPRETS)
def test_sparse_networks_return_coo_arrays(interpret, inputs):
    sparse = pytest.importorskip("sparse")
    given = INPUTS[inputs]
    arguments = parts(0 if given is None else 2, sparse=True, input_gradients=True, **INTERPRETS[interpret])
    fused, upstream = FusedSamplerQNN(**arguments), SamplerQNN(**arguments)
    assert fused.sparse and isinstance(fused.forward(given, [0.3]), sparse.COO)
    assert_same(fused.forward(given, [0.3]), upstream.forward(given, [0.3]))
    for found, expected in zip(fused.backward(given, [0.3]), upstream.backward(given, [0.3])):
        assert_same(found, expected)
    shots = FusedSamplerQNN(**arguments, sampler=FusedSampler(default_shots=10)).forward(given, [0.3])
    assert isinstance(shots, sparse.COO) and shots.shape == fused.forward(given, [0.3]).shape
    values = fused.value_and_vjp(given, [0.3], lambda outputs: outputs)[0]
    assert_same(values, fused.forward(given, [0.3]).todense())
    if given is not None:
        assert isinstance(fused.forward(np.zeros((0, 2)), [0.3]), sparse.COO)
        assert fused.backward(np.zeros((0, 2)), [0.3])[1].shape == (0, *fused.output_shape, 1)


@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")
@settings(max_examples=20, deadline=None)
@given(circuit=circuits(max_qubits=3), table=st.lists(st.integers(0, 2), min_size=8, max_size=8))
def test_outputs_and_gradients_of_random_circuits_are_exact(circuit, table):
    weights = data(circuit.num_parameters)
    arguments = {
        "circuit": circuit,
        "weight_params": circuit.parameters,
        "interpret": table.__getitem__,
        "output_shape": 3,
    }

    def outputs(at):
        probabilities = Statevector(circuit.assign_parameters(at)).probabilities()
        return np.bincount(table[: len(probabilities)], probabilities, minlength=3)

    steps = 1e-5 * np.eye(len(weights))
    jacobian = np.array([(outputs(weights + h) - outputs(weights - h)) / 2e-5 for h in steps]).reshape(-1, 3).T
    for device in ("reference", "cpu"):
        network = FusedSamplerQNN(**arguments, device=device)
        assert_allclose(network.forward(None, weights)[0], outputs(weights), atol=1e-10)
        if len(weights):
            assert_allclose(network.backward(None, weights)[1][0], jacobian, atol=1e-6)
            assert_allclose(network.vjp(None, weights, [1.0, 2.0, -0.5])[1], [1.0, 2.0, -0.5] @ jacobian, atol=1e-6)


def test_outputs_in_single_precision_are_near(dtype, device):
    exact, fused = layers(FusedSamplerQNN), layers(FusedSamplerQNN, dtype=dtype, device=device)
    tolerance = 1e-12 if dtype == "complex128" else 1e-5
    assert_allclose(fused.forward(INPUTS["rows"], data(4)), exact.forward(INPUTS["rows"], data(4)), atol=tolerance)
    for found, expected in zip(fused.backward(INPUTS["rows"], data(4)), exact.backward(INPUTS["rows"], data(4))):
        if expected is not None:
            assert_allclose(found, expected, atol=tolerance)


@pytest.mark.parametrize("given", [0.3, [0.3], [[0.3], [0.5]]])
def test_a_number_is_a_sample_of_one_input(given):
    circuit = QuantumCircuit(1)
    circuit.rx(A, 0)
    circuit.ry(C, 0)
    arguments = {"circuit": circuit, "input_params": [A], "weight_params": [C], "input_gradients": True}
    fused, upstream = FusedSamplerQNN(**arguments), SamplerQNN(**arguments)
    assert_same(fused.forward(given, 0.7), upstream.forward(given, 0.7))
    for found, expected in zip(fused.backward(given, 0.7), upstream.backward(given, 0.7)):
        assert_same(found, expected)
    assert fused.vjp(given, 0.7, np.ones((np.size(given), 2)))[0].shape == np.shape(given)


@pytest.mark.parametrize("shape", [(0, 2), (0, 3, 2), (3, 0, 2)])
@pytest.mark.parametrize("shots", [None, 5])
def test_empty_batches_have_empty_outputs(shape, shots):
    sampler = FusedSampler(default_shots=shots)
    network = FusedSamplerQNN(**parts(interpret=pair, output_shape=(2, 3), input_gradients=True), sampler=sampler)
    assert network.forward(np.zeros(shape), [0.1]).shape == (*shape[:-1], 2, 3)
    of_inputs, of_weights = network.backward(np.zeros(shape), [0.1])
    assert of_inputs.shape == (*shape[:-1], 2, 3, 2) and of_weights.shape == (*shape[:-1], 2, 3, 1)
    of_inputs, of_weights = network.vjp(np.zeros(shape), [0.1], np.zeros((*shape[:-1], 2, 3)))
    assert of_inputs.shape == shape and of_weights.tolist() == [0.0]


def test_each_pass_is_one_evaluation(monkeypatch):
    calls = []
    evaluate = row_functions.evaluate

    def watched(options, compiled, operators, request, **keywords):
        calls.append(request.num_pairs)
        return evaluate(options, compiled, operators, request, **keywords)

    monkeypatch.setattr(row_functions, "evaluate", watched)
    fused = FusedSamplerQNN(**parts(interpret=parity, output_shape=3, input_gradients=True))
    fused.forward(INPUTS["rows"], [0.1])
    fused.value_and_vjp(INPUTS["rows"], [0.1], np.ones((3, 3)))
    fused.backward(INPUTS["rows"], [0.1])
    # A Jacobian takes a sweep for the first class alone: the second follows from it, and no integer has the third.
    assert calls == [9, 9, 3]
    assert not fused.backward(INPUTS["rows"], [0.1])[1][:, 2].any()


# --- vector-Jacobian products ---


@pytest.mark.parametrize("input_gradients", [False, True])
@pytest.mark.parametrize("interpret", INTERPRETS)
@pytest.mark.parametrize("inputs", INPUTS)
def test_vjp_contracts_the_jacobian(inputs, interpret, input_gradients, device):
    given = INPUTS[inputs]
    arguments = parts(0 if given is None else 2, input_gradients=input_gradients, **INTERPRETS[interpret])
    fused = FusedSamplerQNN(**arguments, device=device)
    outputs = fused.forward(given, [0.4])
    cotangent = data(outputs.shape)
    values, of_inputs, of_weights = fused.value_and_vjp(given, [0.4], cotangent)
    assert_same(values, outputs, 1e-12)
    jacobian_inputs, jacobian_weights = fused.backward(given, [0.4])
    assert_same(of_weights, np.tensordot(cotangent, jacobian_weights, cotangent.ndim), 1e-12)
    if given is None or not input_gradients:
        assert of_inputs is None
    else:
        count = len(fused.output_shape)
        products = (cotangent[..., None] * jacobian_inputs).sum(axis=tuple(range(-1 - count, -1)))
        assert_same(of_inputs, products.reshape(np.shape(given)), 1e-12)
    assert_same(fused.vjp(given, [0.4], lambda _: cotangent)[1], of_weights, 1e-12)


def test_a_cotangent_has_the_shape_of_the_outputs():
    fused = FusedSamplerQNN(**parts(interpret=pair, output_shape=(2, 3)))
    single = fused.vjp([0.1, 0.2], [0.3], np.ones((2, 3)))[1]
    assert_same(single, fused.vjp([0.1, 0.2], [0.3], np.ones((1, 2, 3)))[1])
    with pytest.raises(ValueError, match=r"cotangent has shape \(3, 6\); allowed: \(3, 2, 3\)\.$"):
        fused.vjp(INPUTS["rows"], [0.1], np.ones((3, 6)))
    shapes = []
    fused.vjp(INPUTS["rows"], [0.1], lambda outputs: shapes.append(outputs.shape) or outputs)
    assert shapes == [(3, 2, 3)]


# --- interpret ---


def test_interpret_is_called_once_for_each_integer_and_again_when_it_changes():
    calls = []

    def count(integer):
        calls.append(integer)
        return integer % 2

    network = FusedSamplerQNN(**parts(interpret=count, output_shape=2), gradient=FusedSamplerGradient(num_threads=1))
    assert not calls
    for _ in range(2):
        network.forward(INPUTS["rows"], [0.1])
        network.backward(INPUTS["rows"], [0.1])
        network.vjp(INPUTS["rows"], [0.1], np.ones((3, 2)))
    assert calls == [0, 1, 2, 3]
    network.set_interpret(count, 3)
    assert network.forward(INPUTS["rows"], [0.1]).shape == (3, 3) and len(calls) == 8
    network._interpret = high_bit
    assert_allclose(
        network.forward(INPUTS["rows"], [0.1])[:, :2],
        FusedSamplerQNN(**parts(interpret=high_bit, output_shape=2)).forward(INPUTS["rows"], [0.1]),
    )
    network.set_interpret()
    assert network.output_shape == (4,) and network.interpret(3) == 3
    assert_same(network.forward(INPUTS["rows"], [0.1]), FusedSamplerQNN(**parts()).forward(INPUTS["rows"], [0.1]))


@pytest.mark.parametrize(
    ("value", "shape", "text"),
    [
        (2, 2, r"interpret\(0\) is 2; allowed for output_shape \(2,\): integers from 0 to 1"),
        (-1, 2, r"interpret\(0\) is -1; allowed"),
        (0.5, 2, r"interpret\(0\) is 0.5; allowed"),
        ((0, 3), (2, 3), r"interpret\(0\) is \(0, 3\); allowed .* tuples of 2 integers, from \(0, 0\) to \(1, 2\)"),
    ],
)
def test_what_interpret_may_not_return_is_named_with_its_integer(value, shape, text):
    network = FusedSamplerQNN(**parts(interpret=lambda _: value, output_shape=shape))
    cotangent = np.ones((3, *network.output_shape))
    for ask in (network.forward, network.backward, lambda *given: network.vjp(*given, cotangent)):
        with pytest.raises(ValueError, match=text):
            ask(INPUTS["rows"], [0.1])


def test_interpret_needs_an_output_shape_and_no_interpret_none(caplog):
    text = "No output shape given|output_shape is .*; allowed: an integer of at least 1"
    for bad in (None, (2, 0), 2.5, "2"):
        with pytest.raises(QiskitMachineLearningError, match=text):
            FusedSamplerQNN(**parts(interpret=parity, output_shape=bad))
    assert FusedSamplerQNN(**parts(output_shape=7)).output_shape == (4,)
    assert "No interpret function given" in caplog.text


# --- which bits ---


@pytest.mark.parametrize("shots", [None, 4000])
def test_samples_of_a_batch_keep_their_outputs_whatever_the_register_is_called(shots):
    circuit = QuantumCircuit(1, 1)  # the register is called "c"
    circuit.ry(A, 0)
    circuit.measure(0, 0)
    network = FusedSamplerQNN(circuit=circuit, input_params=[A], sampler=FusedSampler(default_shots=shots, seed=1))
    angles = np.array([[0.1], [3.0], [1.5]])
    ones = np.sin(angles / 2) ** 2
    assert_allclose(network.forward(angles, []), np.hstack([1 - ones, ones]), atol=1e-12 if shots is None else 0.03)
    upstream = SamplerQNN(circuit=circuit, input_params=[A]).forward(angles, [])
    assert_allclose(upstream, upstream[[0, 0, 0]])  # the average of all samples


@pytest.mark.parametrize("shots", [None, 4000])
def test_several_registers_are_joined_and_unmeasured_bits_are_zero(shots):
    circuit = QuantumCircuit(3)
    circuit.add_register(ClassicalRegister(2, "low"), ClassicalRegister(1, "high"))
    circuit.ry(A, 0)
    circuit.ry(B, 2)
    circuit.measure([0, 2], [1, 2])
    network = FusedSamplerQNN(circuit=circuit, input_params=[A, B], sampler=FusedSampler(default_shots=shots, seed=1))
    one, other = np.sin(0.2) ** 2, np.sin(0.45) ** 2
    expected = [(1 - one) * (1 - other), 0, one * (1 - other), 0, (1 - one) * other, 0, one * other, 0]
    assert_allclose(network.forward([[0.4, 0.9]], None)[0], expected, atol=1e-12 if shots is None else 0.03)


@pytest.mark.parametrize("shots", [None, 4000])
def test_the_register_of_measure_all_is_read_alone_as_upstream_does(shots):
    circuit = QuantumCircuit(2, 2)
    circuit.ry(A, 1)
    circuit.measure_all()
    arguments = {"circuit": circuit, "input_params": [A]}
    expected = SamplerQNN(**arguments).forward([[0.4], [0.9]], None)
    network = FusedSamplerQNN(**arguments, sampler=FusedSampler(default_shots=shots, seed=1))
    assert_same(network.forward([[0.4], [0.9]], None), expected, 1e-9 if shots is None else 0.03)


@pytest.mark.parametrize("shots", [None, 4000])
def test_integers_beyond_the_qubits_belong_to_no_output(shots):
    circuit = QuantumCircuit(1, 2)
    circuit.ry(A, 0)
    circuit.measure([0, 0], [0, 1])  # 0 or 3, and the outputs are 0 and 1
    network = FusedSamplerQNN(circuit=circuit, input_params=[A], sampler=FusedSampler(default_shots=shots, seed=1))
    assert network.output_shape == (2,)
    expected = [[np.cos(0.25) ** 2, 0], [np.cos(0.5) ** 2, 0]]
    assert_allclose(network.forward([[0.5], [1.0]], []), expected, atol=1e-12 if shots is None else 0.03)
    network.input_gradients = True
    assert_allclose(network.backward([[0.5]], [])[0][0], [[-np.sin(0.5) / 2], [0]], atol=1e-12)


def test_circuits_without_parameters_have_outputs():
    circuit = QuantumCircuit(2)
    circuit.x(0)
    network = FusedSamplerQNN(circuit=circuit)
    assert_allclose(network.forward(None, None), [[0, 1, 0, 0]], atol=1e-15)
    assert network.backward(None, None) == (None, None)
    assert not SamplerQNN(circuit=circuit).forward(None, None).any()
    for kind, shots in ((FusedSamplerQNN, 5), (SamplerQNN, 5), (SamplerQNN, None)):
        other = kind(circuit=circuit, sampler=FusedSampler(default_shots=shots))
        assert_allclose(other.forward(None, None), [[0, 1, 0, 0]], atol=1e-12)


LINE = [[i, i + 1] for i in range(5)]


@pytest.mark.parametrize("shots", [None, 4000])
@pytest.mark.parametrize("layout", [[4, 2, 3], [2, 0, 1]])
@pytest.mark.parametrize("measured", ["before", "after", "by the network"])
def test_transpiled_circuits_keep_their_qubits(measured, layout, shots):
    features, ansatz = zz_feature_map(3, reps=1), real_amplitudes(3, reps=1)
    circuit = features.compose(ansatz)
    arguments = {
        "input_params": features.parameters,
        "weight_params": ansatz.parameters,
        "interpret": high_bit,
        "output_shape": 4,
    }
    sampler = FusedSampler(default_shots=shots, seed=1)
    inputs, weights = data((2, 3)), data(6)
    expected = FusedSamplerQNN(circuit=circuit, **arguments)
    transpiled = transpile(
        circuit.measure_all(inplace=False) if measured == "before" else circuit,
        coupling_map=LINE,
        initial_layout=layout,
    )
    if measured == "after":
        transpiled.measure_all()
    fused = FusedSamplerQNN(circuit=transpiled, **arguments, sampler=sampler)
    assert fused.circuit.num_qubits == 6 and fused.num_virtual_qubits == 3
    tolerance = 1e-12 if shots is None else 0.03
    assert_allclose(fused.forward(inputs, weights), expected.forward(inputs, weights), atol=tolerance)
    assert_allclose(fused.backward(inputs, weights)[1], expected.backward(inputs, weights)[1], atol=1e-12)
    if measured != "before":  # the integers of SamplerQNN are wrong then
        upstream = SamplerQNN(circuit=transpiled, **arguments)
        assert_same(
            FusedSamplerQNN(circuit=transpiled, **arguments).forward(inputs, weights), upstream.forward(inputs, weights)
        )


def test_a_pass_manager_transpiles_the_circuit():
    manager = generate_preset_pass_manager(1, GenericBackendV2(5, seed=1), seed_transpiler=1)
    fused, expected = layers(FusedSamplerQNN, pass_manager=manager), layers(FusedSamplerQNN)
    assert fused.circuit.num_qubits == 5 and fused.output_shape == expected.output_shape == (4,)
    assert_same(fused.forward(INPUTS["rows"], data(4)), expected.forward(INPUTS["rows"], data(4)))


# --- samplers ---


def test_gradients_of_a_network_with_shots_are_exact():
    sampler = FusedSampler(default_shots=200, seed=7)
    network, exact = FusedSamplerQNN(**parts(), sampler=sampler), FusedSamplerQNN(**parts())
    assert network.sampler is sampler
    outputs = network.forward(INPUTS["rows"], [0.1])
    assert_allclose(outputs * 200, np.rint(outputs * 200), atol=1e-12)
    assert not np.array_equal(network.forward(INPUTS["rows"], [0.1]), outputs)  # other shots
    assert_same(network.backward(INPUTS["rows"], [0.1])[1], exact.backward(INPUTS["rows"], [0.1])[1])
    values = network.value_and_vjp(INPUTS["rows"], [0.1], np.ones((3, 4)))[0]
    assert_same(values, exact.forward(INPUTS["rows"], [0.1]))


def test_a_sampler_with_a_run_of_its_own_is_asked():
    class Recording(FusedSampler):
        def run(self, pubs, *, shots=None):
            pubs = list(pubs)
            recorded.append(len(pubs))
            return super().run(pubs, shots=shots)

    recorded = []
    network = FusedSamplerQNN(**parts(), sampler=Recording(default_shots=None))
    assert_same(network.forward(INPUTS["rows"], [0.1]), FusedSamplerQNN(**parts()).forward(INPUTS["rows"], [0.1]))
    network.sampler = StatevectorSampler(default_shots=4000, seed=1)
    expected = FusedSamplerQNN(**parts()).forward(INPUTS["rows"], [0.1])
    assert_allclose(network.forward(INPUTS["rows"], [0.1]), expected, atol=0.05)
    assert recorded == [1]


@pytest.mark.parametrize("keywords", [{"dtype": "complex64"}, {"options": {"dtype": "complex64"}}])
def test_options_are_those_of_the_sampler_that_is_made(keywords):
    fused = FusedSamplerQNN(**parts(), **keywords)
    assert fused.sampler.options.dtype == "complex64" and fused.gradient.fused_options is fused.sampler.options
    assert fused.sampler.default_shots is None
    assert repr(fused) == "FusedSamplerQNN(2 qubits, 2 inputs, 1 weight, 4 outputs, dtype='complex64')"
    sampler = FusedSampler(default_shots=10, device="cpu")
    changed = FusedSamplerQNN(**parts(), sampler=sampler, dtype="complex64")
    assert changed.sampler.default_shots == 10 and changed.sampler.options.device == "cpu"
    assert "default_shots=10" in repr(changed) and sampler.options.dtype == "complex128"


def test_the_gradients_own_options_rule_the_backward_pass():
    fused = FusedSamplerQNN(**parts(), gradient=FusedSamplerGradient(dtype="complex64"))
    exact = FusedSamplerQNN(**parts()).backward(INPUTS["rows"], [0.1])[1]
    assert 0 < np.abs(fused.backward(INPUTS["rows"], [0.1])[1] - exact).max() < 1e-5


def test_another_gradient_is_used_as_upstream_uses_it():
    def network(kind):
        gradient = SPSASamplerGradient(FusedSampler(default_shots=None), epsilon=0.1, seed=5)
        return kind(**parts(), sampler=FusedSampler(default_shots=None), gradient=gradient)

    fused = network(FusedSamplerQNN)
    assert_same(fused.backward(INPUTS["rows"], [0.1])[1], network(SamplerQNN).backward(INPUTS["rows"], [0.1])[1])
    with pytest.raises(TypeError, match=r"vjp needs a FusedSamplerGradient.*SPSASamplerGradient"):
        fused.vjp(INPUTS["rows"], [0.1], np.ones((3, 4)))


def test_our_primitives_serve_the_network_of_upstream():
    ours = {"sampler": FusedSampler(default_shots=None), "gradient": FusedSamplerGradient()}
    network, expected = (
        SamplerQNN(**parts(**INTERPRETS["parity"]), **ours),
        FusedSamplerQNN(**parts(**INTERPRETS["parity"])),
    )
    assert_same(network.forward(INPUTS["rows"], [0.1]), expected.forward(INPUTS["rows"], [0.1]))
    assert_same(network.backward(INPUTS["rows"], [0.1])[1], expected.backward(INPUTS["rows"], [0.1])[1])


# --- errors ---


def test_wrong_samplers_and_options_are_refused():
    with pytest.raises(TypeError, match=r"FusedSampler or None, not StatevectorSampler; .*accelerate\(qnn\)"):
        FusedSamplerQNN(**parts(), sampler=StatevectorSampler())
    with pytest.raises(TypeError, match="give one of both"):
        FusedSamplerQNN(**parts(), sampler=FusedSampler(), options={"dtype": "complex64"})
    with pytest.raises(TypeError, match="unknown option 'dtyp'"):
        FusedSamplerQNN(**parts(), dtyp="complex64")


def test_networks_whose_parts_do_not_go_together_are_refused_at_construction():
    with pytest.raises(ValueError, match="input_params and weight_params lack 'b' of the circuit"):
        FusedSamplerQNN(**parts() | {"weight_params": None})
    circuit = QuantumCircuit(1, 1)
    circuit.ry(A, 0)
    with pytest.raises(ValueError, match="1 classical bit, and no qubit is measured into"):
        FusedSamplerQNN(circuit=circuit, input_params=[A])


def test_errors_name_parameters_and_rows_as_the_user_does():
    fused = FusedSamplerQNN(**parts())
    bad = INPUTS["rows"].copy()
    bad[1, 1] = np.nan
    for ask in (fused.forward, fused.backward, lambda *given: fused.vjp(*given, np.ones((len(bad), 4)))):
        with pytest.raises(ValueError, match="parameter 'a' in row 1 is nan"):
            ask(bad, [0.1])
        with pytest.raises(ValueError, match=r"input_data is None; allowed: an array \(\.\.\., 2\) .* of 'c', 'a', or"):
            ask(None, [0.1])


@pytest.mark.parametrize("shots", [None, 20])
def test_a_circuit_no_sweep_can_do_runs_forward_alone(shots):
    arguments = parts(0) | {"sampler": FusedSampler(default_shots=shots)}
    arguments["circuit"].reset(0)
    network = FusedSamplerQNN(**arguments)
    with pytest.warns(UserWarning, match="resets a qubit that is in use"):
        outputs = network.forward(None, [0.3])
    assert outputs.shape == (1, 4) and outputs.sum() == pytest.approx(1)
    with pytest.raises(UnsupportedInstruction, match="reset"):
        network.backward(None, [0.3])
    with pytest.raises(UnsupportedInstruction, match="reset"):
        FusedSamplerQNN(**arguments, fallback=False).forward(None, [0.3])


# --- models ---


def test_changes_of_a_circuit_without_parameters_are_seen():
    circuit = QuantumCircuit(1, 1)
    circuit.measure(0, 0)
    fused = FusedSamplerQNN(circuit=circuit)
    assert_allclose(fused.forward(None, None), [[1, 0]])
    circuit.data.pop()
    circuit.x(0)
    circuit.measure(0, 0)
    assert_allclose(fused.forward(None, None), [[0, 1]], atol=1e-15)


def test_compiled_circuits_are_taken():
    arguments = parts(**INTERPRETS["parity"])
    expected = FusedSamplerQNN(**arguments).forward(INPUTS["rows"], [0.1])
    arguments["circuit"] = compile_circuit(arguments["circuit"].measure_all(inplace=False))
    assert_same(FusedSamplerQNN(**arguments).forward(INPUTS["rows"], [0.1]), expected)


@pytest.mark.parametrize("copies", ["pickle", "deepcopy", "clone", "copy"])
@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("interpret", INTERPRETS)
def test_copies_give_the_same(copies, used, interpret):
    fused = FusedSamplerQNN(**parts(input_gradients=True, **INTERPRETS[interpret]), dtype="complex64")
    if used:
        fused.forward(INPUTS["rows"], [0.1])
    make = {
        "pickle": lambda network: pickle.loads(pickle.dumps(network)),
        "deepcopy": copy.deepcopy,
        "clone": lambda network: clone(network, safe=False),
        "copy": copy.copy,
    }
    other = make[copies](fused)
    assert type(other) is FusedSamplerQNN and other.sampler.options.dtype == "complex64"
    assert other.gradient.fused_options is other.sampler.options
    assert_same(other.forward(INPUTS["rows"], [0.1]), fused.forward(INPUTS["rows"], [0.1]))
    for found, expected in zip(other.backward(INPUTS["rows"], [0.1]), fused.backward(INPUTS["rows"], [0.1])):
        assert_same(found, expected)


@pytest.mark.parametrize("one_hot", [False, True])
def test_classifiers_train_alike(one_hot):
    labels = np.array([[1, 0], [0, 1], [1, 0]]) if one_hot else np.array([1, 0, 1])
    found, expected = (
        NeuralNetworkClassifier(
            layers(kind, **INTERPRETS["parity"]), one_hot=one_hot, optimizer=L_BFGS_B(maxiter=3), initial_point=data(4)
        ).fit(INPUTS["rows"], labels)
        for kind in (FusedSamplerQNN, SamplerQNN)
    )
    assert_allclose(found.weights, expected.weights, atol=1e-6)
    assert_allclose(found.predict_proba(INPUTS["rows"]), expected.predict_proba(INPUTS["rows"]), atol=1e-6)


def test_a_jacobian_of_many_outputs_stays_within_the_memory_limit():
    ansatz = efficient_su2(10, reps=2)
    inputs = ParameterVector("x", 10)
    circuit = QuantumCircuit(10)
    for qubit in range(10):
        circuit.ry(inputs[qubit], qubit)
    arguments = {
        "circuit": circuit.compose(ansatz),
        "input_params": inputs,
        "weight_params": ansatz.parameters,
        "device": "cpu",
    }
    rows, weights = data((3, 10)), data(ansatz.num_parameters)
    _, expected = FusedSamplerQNN(**arguments).backward(rows, weights)
    limited = FusedSamplerQNN(**arguments, memory_limit="8 MB")
    assert_allclose(limited.backward(rows, weights)[1], expected, atol=1e-12)
    assert_allclose(limited.forward(rows, weights), FusedSamplerQNN(**arguments).forward(rows, weights), atol=1e-12)
