# SPDX-License-Identifier: Apache-2.0
"""An ``interpret`` function is called once for each integer, and its results become the outcomes of a measurement."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import transpile
from qiskit.circuit import ClassicalRegister, Parameter, QuantumCircuit, QuantumRegister
from qiskit.quantum_info import Statevector

from qiskit_fused import FusedSampler, FusedSamplerQNN, compile_circuit
from qiskit_fused.compilation.outcome_tables import find_outcomes, tabulate
from qiskit_fused.execution.expectations import Expectations
from qiskit_fused.program.outcomes import DROPPED


def probabilities(circuit, *arguments):
    """Return the probabilities of outcomes, in their shape."""
    outcomes, shape = find_outcomes(circuit, *arguments)
    return Expectations(circuit, outcomes).values(np.zeros((1, 0)), []).reshape(shape)


def test_interpret_is_called_once_for_each_integer_with_a_python_int():
    calls = []
    table, shape = tabulate(lambda z: calls.append(z) or z % 2, 2, np.array([3, 1, 3, 0]))
    assert calls == [0, 1, 3] and {type(call) for call in calls} == {int}
    assert table.dtype == np.int32 and table.tolist() == [1, 1, 1, 0] and shape == (2,)


def test_outcomes_of_several_dimensions_are_numbered_in_row_major_order():
    table, shape = tabulate(lambda z: (z % 2, z // 2), (2, 3), np.arange(6))
    assert table.tolist() == [np.ravel_multi_index((z % 2, z // 2), (2, 3)) for z in range(6)] and shape == (2, 3)


@pytest.mark.parametrize("value", [True, np.True_, np.int8(1), np.array(1), (1,), [np.True_], np.array([1])])
def test_interpret_may_return_every_kind_of_integer(value):
    table, shape = tabulate(lambda _: value, np.int64(2), np.arange(2))
    assert table.tolist() == [1, 1] and shape == (2,) and type(shape[0]) is int


def test_negative_integers_belong_to_no_outcome_and_no_interpret_is_the_integer():
    integers = np.array([2, -1, 0, 2])
    assert tabulate(None, 3, integers)[0].tolist() == [2, DROPPED, 0, 2]
    assert tabulate(lambda z: z // 2, 2, integers)[0].tolist() == [1, DROPPED, 0, 1]


@pytest.mark.parametrize(
    ("value", "shape", "text"),
    [
        (2, 2, "interpret(0) is 2; allowed for output_shape (2,): integers from 0 to 1."),
        (-1, 2, "interpret(0) is -1; allowed"),
        (10**30, 2, "allowed for output_shape (2,)"),
        (0.0, 2, "interpret(0) is 0.0; allowed"),
        ("1", 2, "interpret(0) is '1'; allowed"),
        (None, 2, "interpret(0) is None; allowed"),
        (1, (2, 3), "allowed for output_shape (2, 3): tuples of 2 integers, from (0, 0) to (1, 2)."),
        ((0, 3), (2, 3), "interpret(0) is (0, 3); allowed"),
        ((0, 0.5), (2, 3), "interpret(0) is (0, 0.5); allowed"),
        (0, None, "interpret is given without output_shape"),
        (0, 0, "output_shape is 0; allowed: an integer of at least 1"),
        (0, (), "output_shape is (); allowed"),
        (0, "two", "output_shape is 'two'; allowed"),
        (0, (2, 1.5), "output_shape is (2, 1.5); allowed"),
    ],
)
def test_errors_name_the_integer_the_result_and_what_is_allowed(value, shape, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        tabulate(lambda _: value, shape, np.arange(2))


def test_other_errors_name_their_cure():
    circuit = QuantumCircuit(1, 1)
    with pytest.raises(TypeError, match="interpret must be a function of an integer, or None, not int"):
        find_outcomes(QuantumCircuit(1), 3, 2)
    with pytest.raises(ValueError, match="output_shape is 2, and there is no interpret"):
        find_outcomes(QuantumCircuit(1), None, 2)
    with pytest.raises(ValueError, match="has 1 classical bit, and no qubit is measured into them"):
        find_outcomes(circuit)
    with pytest.raises(TypeError, match="circuit must be a QuantumCircuit, not int"):
        find_outcomes(3)
    with pytest.raises(MemoryError, match="31 qubits are measured together"):
        find_outcomes(QuantumCircuit(31), lambda z: 0, 1)
    circuit = QuantumCircuit(1, 40)
    circuit.measure(0, 0)
    with pytest.raises(MemoryError, match=r"at most 2\^30\. Give an interpret function"):
        find_outcomes(circuit)


@pytest.mark.parametrize("bits", [31, 5000, 20000])
def test_registers_of_any_width_are_refused_in_one_short_sentence_or_interpreted(bits):
    circuit = QuantumCircuit(QuantumRegister(1), ClassicalRegister(bits, "c"))
    circuit.x(0)
    circuit.measure(0, bits - 1)
    count = 2**31 if bits == 31 else rf"2\^{bits}"
    with pytest.raises(MemoryError, match=f"^{count} outcomes .* Give an interpret") as error:
        find_outcomes(circuit)
    assert len(str(error.value)) < 140
    np.testing.assert_allclose(probabilities(circuit, lambda z: z >> (bits - 1), 2), [0, 1], atol=1e-15)
    with pytest.raises(ValueError, match=r"^interpret\((2.\d+|1073741824)\) is (2.\d+|1073741824); allowed") as error:
        find_outcomes(circuit, lambda z: z, 2)
    assert len(str(error.value)) < 180


def test_integers_are_those_of_all_classical_bits_in_their_order():
    circuit = QuantumCircuit(QuantumRegister(3), ClassicalRegister(2, "b"), ClassicalRegister(1, "a"))
    circuit.x(0)
    circuit.measure([2, 0], [0, 2])  # nothing is measured into the second bit
    np.testing.assert_allclose(probabilities(circuit), np.eye(8)[0b100], atol=1e-15)
    np.testing.assert_allclose(probabilities(circuit, lambda z: z >> 2, 2), [0, 1], atol=1e-15)
    np.testing.assert_allclose(probabilities(compile_circuit(circuit)), np.eye(8)[0b100], atol=1e-15)


def test_bits_with_a_qubit_each_need_no_table():
    circuit = QuantumCircuit(3, 2)
    circuit.x(2)
    circuit.measure([2, 1], [0, 1])
    outcomes, shape = find_outcomes(circuit)
    assert outcomes.table is None and outcomes.measured.tolist() == [2, 1] and shape == (4,)
    np.testing.assert_allclose(probabilities(circuit), np.eye(4)[0b01], atol=1e-15)


def test_a_circuit_without_classical_bits_is_measured_on_the_qubits_before_transpilation():
    circuit = QuantumCircuit(2)
    circuit.x(1)
    np.testing.assert_allclose(probabilities(circuit), np.eye(4)[0b10], atol=1e-15)
    transpiled = transpile(circuit, coupling_map=[[0, 1], [1, 2], [2, 3]], initial_layout=[3, 1])
    np.testing.assert_allclose(probabilities(transpiled), np.eye(4)[0b10], atol=1e-15)
    circuit.measure_all()
    transpiled = transpile(circuit, coupling_map=[[0, 1], [1, 2], [2, 3]], initial_layout=[3, 1])
    np.testing.assert_allclose(probabilities(transpiled), np.eye(4)[0b10], atol=1e-15)


def distribution(circuit, qubit_of_bit):
    """Return the probabilities of the integers below 2^n; a bit of an integer is a qubit of the circuit, or None."""
    probabilities = np.zeros(2**circuit.num_qubits)
    for label, probability in enumerate(Statevector(circuit).probabilities()):
        integer = sum((label >> qubit & 1) << bit for bit, qubit in enumerate(qubit_of_bit) if qubit is not None)
        if integer < len(probabilities):
            probabilities[integer] += probability
    return probabilities


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_bits_before_and_after_any_transpilation_agree_with_statevector(draws):
    num_qubits = draws.draw(st.integers(1, 3))
    circuit = QuantumCircuit(num_qubits)
    for qubit in range(num_qubits):
        circuit.ry(draws.draw(st.floats(0.3, 2.8)), qubit)
    for _ in range(draws.draw(st.integers(0, 2)) if num_qubits > 1 else 0):
        circuit.cx(*draws.draw(st.permutations(range(num_qubits)))[:2])
    when = draws.draw(st.sampled_from(["before, by hand", "before, by measure_all", "after", "by the network"]))
    bits, measured = list(range(num_qubits)), circuit.copy()
    if when == "before, by hand":  # a qubit may have several bits, and a bit no qubit
        bits = draws.draw(st.lists(st.sampled_from([None, *range(num_qubits)]), min_size=1, max_size=4))
        bits[draws.draw(st.integers(0, len(bits) - 1))] = 0
        measured.add_register(ClassicalRegister(len(bits), "c"))
        for bit, qubit in enumerate(bits):
            if qubit is not None:
                measured.measure(qubit, bit)
    elif when == "before, by measure_all":
        measured.measure_all()
    size = draws.draw(st.integers(max(num_qubits, 2), 5))
    transpiled = transpile(
        measured,
        coupling_map=[[i, i + 1] for i in range(size - 1)],
        basis_gates=["rz", "sx", "x", "cx"],
        initial_layout=draws.draw(st.permutations(range(size)))[:num_qubits],
        optimization_level=draws.draw(st.integers(0, 2)),
        seed_transpiler=draws.draw(st.integers(0, 9)),
    )
    if when == "after":
        transpiled.measure_all()
    expected = distribution(circuit, bits)
    for each in (measured, transpiled) if when != "after" else (transpiled,):
        np.testing.assert_allclose(FusedSamplerQNN(circuit=each).forward(None, None)[0], expected, atol=1e-9)


@pytest.mark.parametrize("shots", [None, 4000])
@pytest.mark.parametrize("layout", [[0, 1], [1, 0]])
def test_a_layout_changes_no_bits_that_were_measured_before_it(layout, shots):
    angle = Parameter("a")
    crosswise, many = QuantumCircuit(2, 2), QuantumCircuit(2)
    crosswise.ry(angle, 0)
    crosswise.measure([0, 1], [1, 0])
    many.add_register(ClassicalRegister(3, "meas"))
    many.ry(angle, 0)
    many.ry(1.0, 1)
    many.measure([0, 1, 0], [0, 1, 2])
    one = np.sin(0.5) ** 2  # the probability that a qubit is 1
    for circuit, outputs in (
        (crosswise, [1 - one, 0, one, 0]),
        (many, [(1 - one) ** 2, 0, (1 - one) * one, 0]),  # integers from 4 on belong to no output
    ):
        transpiled = transpile(circuit, coupling_map=[[0, 1], [1, 0]], initial_layout=layout, optimization_level=0)
        for each in (circuit, transpiled):
            sampler = FusedSampler(default_shots=shots, seed=1)
            network = FusedSamplerQNN(circuit=each, input_params=[angle], sampler=sampler)
            np.testing.assert_allclose(network.forward([[1.0]], None), [outputs], atol=1e-12 if shots is None else 0.03)


def test_a_device_without_further_qubits_is_measured_after_transpilation_by_measure_all():
    angle = Parameter("a")
    circuit = QuantumCircuit(2)
    circuit.ry(angle, 0)
    one = np.sin(0.5) ** 2
    for name, outputs in (("meas", [1 - one, one, 0, 0]), ("c", [1 - one, 0, one, 0])):
        transpiled = transpile(circuit, coupling_map=[[0, 1], [1, 0]], initial_layout=[1, 0], optimization_level=0)
        transpiled.add_register(ClassicalRegister(2, name))
        transpiled.measure([0, 1], [0, 1])
        network = FusedSamplerQNN(circuit=transpiled, input_params=[angle])
        np.testing.assert_allclose(network.forward([[1.0]], None), [outputs], atol=1e-12)
