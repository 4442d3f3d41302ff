# SPDX-License-Identifier: Apache-2.0
"""The option num_segments is at most the number of layers of the fused program, on every device."""

import re

import numpy as np
import pytest
from layered_circuits import hardware_efficient, total_z
from qiskit.circuit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp

from qiskit_fused import FusedEstimator, FusedEstimatorGradient, FusedOptions, fuse
from qiskit_fused.common.free_memory import TooManyQubits
from qiskit_fused.compilation.circuits import compile_circuit
from qiskit_fused.compilation.observables import coerce_observables
from qiskit_fused.execution import segments, shared_parts
from qiskit_fused.execution.expectations import Expectations

CIRCUIT, OBSERVABLE = hardware_efficient(4, 6), total_z(4)
VALUES = np.linspace(0, 1, CIRCUIT.num_parameters)[None]
TEXT = (
    "option num_segments is 7, and the fused circuit has 6 layers; use a number of at most 6, or None, which keeps as "
    "many states as fit in memory_limit."
)


def options_of(num_segments, device="cpu"):
    return FusedOptions(device=device, method="checkpoint", num_segments=num_segments)


def check(options, circuit=CIRCUIT, observable=OBSERVABLE, **keywords):
    operators = coerce_observables(observable).operators
    flags = {"whole": False, "any_start": False} | keywords
    segments.check_option(options, compile_circuit(circuit), operators, **flags)


@pytest.mark.parametrize("device", ["auto", "cpu", "reference", "cuda"])
def test_more_segments_than_layers_are_refused_with_both_numbers_and_the_cure(device):
    with pytest.raises(ValueError, match=re.escape(TEXT)):
        check(options_of(7, device))
    check(options_of(6, device))


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_a_gradient_takes_as_many_segments_as_layers_and_no_more(device):
    with pytest.raises(ValueError, match=re.escape(TEXT)):
        FusedEstimatorGradient(options=options_of(7, device)).value_and_gradient(CIRCUIT, OBSERVABLE, VALUES)
    with pytest.raises(ValueError, match=re.escape(TEXT)):
        FusedEstimatorGradient(options=options_of(7, device)).run([CIRCUIT], [OBSERVABLE], VALUES).result()
    actual = FusedEstimatorGradient(options=options_of(6, device)).value_and_gradient(CIRCUIT, OBSERVABLE, VALUES)
    expected = FusedEstimatorGradient(device="reference").value_and_gradient(CIRCUIT, OBSERVABLE, VALUES)
    np.testing.assert_allclose(actual[1], expected[1], atol=1e-12)


def test_values_need_no_segments():
    actual = FusedEstimator(options=options_of(7)).run([(CIRCUIT, OBSERVABLE, VALUES)]).result()[0].data.evs
    expected = FusedEstimator(device="cpu").run([(CIRCUIT, OBSERVABLE, VALUES)]).result()[0].data.evs
    np.testing.assert_array_equal(actual, expected)


def test_the_limit_counts_the_layers_of_the_gates_that_are_simulated():
    circuit = QuantumCircuit(2)
    for _ in range(3):
        circuit.rx(0.1, 0)
        circuit.rz(0.2, 0)
        circuit.rx(0.3, 0)
        circuit.cz(0, 1)
        circuit.ry(0.4, 1)
    few, many = fuse(circuit, "IZ").num_layers, fuse(circuit).num_layers
    assert few < many
    with pytest.raises(ValueError, match=f"has {few} layers"):
        check(options_of(many), circuit, "IZ")
    check(options_of(many), circuit, "IZ", whole=True)


def test_parts_with_fewer_layers_than_segments_have_a_segment_for_each_layer(monkeypatch):
    monkeypatch.setattr(shared_parts, "MIN_WORK", 0)
    monkeypatch.setattr(shared_parts.Sharing, "choose", lambda *_: shared_parts.PREFIX)
    circuit = hardware_efficient(6, 12)
    weights, inputs = circuit.parameters[:-18], circuit.parameters[-18:]  # the inputs are in the last layer
    rng = np.random.default_rng(0)
    question = rng.normal(size=(40, 18)), rng.normal(size=len(weights)), np.ones((40, 1))
    actual, expected = (
        Expectations(circuit, total_z(6), inputs, weights, options).value_and_vjp(*question)
        for options in (options_of(12), FusedOptions(device="reference"))
    )
    np.testing.assert_allclose(actual.weights, expected.weights, atol=1e-11)
    np.testing.assert_allclose(actual.inputs, expected.inputs, atol=1e-11)


def test_a_circuit_without_layers_takes_any_number():
    check(options_of(7), CIRCUIT, SparsePauliOp("IIII"))


def test_observables_that_see_too_many_qubits_together_have_no_limit():
    circuit = QuantumCircuit(70)
    circuit.ry(0.1, range(70))
    circuit.cz(range(69), range(1, 70))
    circuit.ry(0.2, range(70))
    with pytest.raises(TooManyQubits):
        compile_circuit(circuit).fused_program(np.full(70, 2, np.uint8))
    check(options_of(7), circuit, total_z(70))
