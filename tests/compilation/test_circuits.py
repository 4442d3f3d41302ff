# SPDX-License-Identifier: Apache-2.0
"""A circuit is compared with its compiled circuit in each call; no result may be stale."""

import copy
import pickle

import numpy as np
import pytest
from qiskit.circuit import Parameter, ParameterVector, QuantumCircuit
from qiskit.circuit.library import CZGate, RXGate, RYGate
from qiskit.quantum_info import SparsePauliOp

from qiskit_fused import CompiledCircuit, FusedEstimatorGradient, UnsupportedInstruction, compile_circuit
from qiskit_fused.compilation import circuits

OBSERVABLE = SparsePauliOp(["ZII", "IZI", "XXI"], [1.0, 0.5, -0.3])


def large_circuit(num_gates=450):
    angles = ParameterVector("a", num_gates)
    circuit = QuantumCircuit(3)
    for index, angle in enumerate(angles):
        (circuit.rx, circuit.ry, circuit.rz)[index % 3](angle, index // 3 % 3)
    circuit.cz(0, 1)
    circuit.cz(1, 2)
    return circuit


@pytest.fixture
def gradient(device):
    return FusedEstimatorGradient(device=device)


@pytest.fixture
def circuit():
    return large_circuit()


@pytest.fixture
def values(circuit):
    return np.random.default_rng(3).uniform(-2, 2, circuit.num_parameters)


def assert_like_a_fresh_copy(gradient, circuit, values):
    actual = gradient.value_and_gradient(circuit, OBSERVABLE, values)
    expected = gradient.value_and_gradient(circuit.copy(), OBSERVABLE, values)
    for mine, fresh in zip(actual, expected):
        np.testing.assert_array_equal(mine, fresh)


def test_an_unchanged_circuit_is_compared_once_and_not_compiled_again(gradient, circuit, values, monkeypatch):
    gradient.value_and_gradient(circuit, OBSERVABLE, values)
    lowered, compared = [], []
    monkeypatch.setattr("qiskit_fused.compilation.circuits.lower", lowered.append)
    describes = CompiledCircuit.describes
    monkeypatch.setattr(CompiledCircuit, "describes", lambda self, c: compared.append(c) or describes(self, c))
    gradient.value_and_gradient(circuit, OBSERVABLE, values)
    assert compared == [circuit]
    assert lowered == []


@pytest.mark.parametrize(
    "change",
    [
        lambda circuit: circuit.data.__setitem__(0, circuit.data[0].replace(operation=RXGate(0.3))),
        lambda circuit: circuit.data.__setitem__(
            1, circuit.data[1].replace(operation=RYGate(2 * circuit.parameters[1]))
        ),
        lambda circuit: circuit.data.__setitem__(-1, circuit.data[-1].replace(qubits=circuit.qubits[::2])),
        lambda circuit: circuit.data.pop(7),
        lambda circuit: circuit.rx(0.4, 0),
        lambda circuit: circuit.assign_parameters({circuit.parameters[0]: Parameter("b")}, inplace=True),
        lambda circuit: circuit.assign_parameters({circuit.parameters[0]: 0.1}, inplace=True),
    ],
    ids=["angle", "coefficient", "qubits", "removal", "addition", "renaming", "binding"],
)
def test_a_change_of_a_large_circuit_is_noticed(gradient, circuit, values, change):
    gradient.value_and_gradient(circuit, OBSERVABLE, values)
    change(circuit)
    assert_like_a_fresh_copy(gradient, circuit, values[: circuit.num_parameters])


def test_an_error_of_the_circuit_as_it_was_is_not_reported(gradient, circuit, values):
    circuit.data[0] = circuit.data[0].replace(operation=RXGate(1 / circuit.parameters[0]))
    gradient.value_and_gradient(circuit, OBSERVABLE, values)
    values[0] = 0.0
    with pytest.raises(ValueError, match=r"1/a\[0\]|a\[0\]"):
        gradient.value_and_gradient(circuit, OBSERVABLE, values)
    circuit.data[0] = circuit.data[0].replace(operation=RXGate(circuit.parameters[0]))
    assert_like_a_fresh_copy(gradient, circuit, values)


def test_a_change_into_something_unsupported_is_reported(gradient, circuit, values):
    gradient.value_and_gradient(circuit, OBSERVABLE, values)
    circuit.reset(0)
    with pytest.raises(UnsupportedInstruction, match="reset"):
        gradient.value_and_gradient(circuit, OBSERVABLE, values)


def test_a_compiled_circuit_stays_as_it_was(gradient, circuit, values):
    compiled = compile_circuit(circuit)
    before = gradient.value_and_gradient(circuit, OBSERVABLE, values)
    circuit.append(CZGate(), [0, 2])
    circuit.rx(0.7, 0)
    after = gradient.value_and_gradient(compiled, OBSERVABLE, values)
    for mine, expected in zip(after, before):
        np.testing.assert_array_equal(mine, expected)


@pytest.mark.parametrize(
    "copies",
    [copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))],
    ids=["copy", "deep", "pickle"],
)
def test_a_copy_of_a_compiled_circuit_runs_and_describes_no_circuit(gradient, circuit, values, copies):
    compiled = compile_circuit(circuit)
    expected = gradient.value_and_gradient(compiled, OBSERVABLE, values, circuit.parameters[:2])
    again = copies(compiled)
    for mine, original in zip(gradient.value_and_gradient(again, OBSERVABLE, values, circuit.parameters[:2]), expected):
        np.testing.assert_array_equal(mine, original)
    assert compiled.describes(circuit) and compiled._fits(circuit)
    assert not again.describes(circuit) and not again._fits(circuit)


def test_a_compiled_circuit_shows_its_size(circuit):
    assert repr(compile_circuit(circuit)) == "CompiledCircuit(3 qubits, 450 parameters, 452 gates)"


def test_a_change_of_a_small_circuit_is_noticed(gradient):
    circuit = large_circuit(9)
    values = np.linspace(0, 1, 9)
    gradient.value_and_gradient(circuit, OBSERVABLE, values)
    circuit.data[0] = circuit.data[0].replace(operation=RXGate(0.3))
    assert_like_a_fresh_copy(gradient, circuit, values[:-1])


def test_columns_of_parameters_are_found_again_in_any_order_and_after_an_error(circuit):
    compiled, parameters = compile_circuit(circuit), list(circuit.parameters)
    for chosen in (parameters, parameters[::-1], parameters[:3], parameters[1:4], parameters[:3]):
        expected = [parameters.index(parameter) for parameter in chosen]
        for _ in range(2):
            assert compiled.find_columns("parameters", iter(chosen)).tolist() == expected
        with pytest.raises(ValueError, match="'other'"):
            compiled.find_columns("parameters", [*chosen[1:], Parameter("other")])


def test_the_columns_that_observables_see_are_found_once_for_each_support(monkeypatch):
    circuit, angles = QuantumCircuit(2), ParameterVector("a", 3)
    circuit.ry(angles[0], 0)
    circuit.rz(angles[1], 0)
    circuit.rx(angles[2], 1)
    compiled = compile_circuit(circuit)
    assert compiled.seen_columns(np.array([1, 0], np.uint8)).tolist() == [True, False, False]
    assert compiled.seen_columns(np.array([2, 0], np.uint8)).tolist() == [True, True, False]
    monkeypatch.setattr(circuits, "seen_columns", None)
    assert compiled.seen_columns(np.array([1, 0], np.uint8)).tolist() == [True, False, False]
