# SPDX-License-Identifier: Apache-2.0
"""The measurements of a circuit are found wherever they stand, and the last measurement into a bit counts."""

from qiskit.circuit import ClassicalRegister, QuantumCircuit, QuantumRegister

from qiskit_fused.compilation.measurements import find_measurements, integers_of


def test_each_bit_names_its_qubit_and_the_last_measurement_counts():
    circuit = QuantumCircuit(QuantumRegister(4), ClassicalRegister(2, "a"), ClassicalRegister(2, "b"))
    circuit.measure([1, 3, 3], [0, 0, 2])
    circuit.h(0)
    circuit.measure(1, 3)
    qubits, registers, bits = find_measurements(circuit)
    assert qubits.tolist() == [1, 3] and bits.tolist() == [1, -1, 1, 0]
    assert [(register.name, register.sources.tolist()) for register in registers] == [("a", [1, -1]), ("b", [1, 0])]


def test_a_measurement_counts_where_instructions_that_do_nothing_follow_it():
    circuit = QuantumCircuit(2, 2)
    circuit.measure([0, 1], [0, 1])
    circuit.barrier()
    circuit.delay(5, 0)
    circuit.id(1)
    circuit.id(0)
    circuit.append(QuantumCircuit(2, name="empty").to_gate(), [0, 1])
    assert find_measurements(circuit).bits.tolist() == [0, 1]


def test_a_measurement_counts_inside_the_definition_of_an_instruction():
    inner = QuantumCircuit(2, 2)
    inner.measure([0, 1], [1, 0])
    outer = QuantumCircuit(2, 2)
    outer.append(inner.to_instruction(), [0, 1], [0, 1])
    circuit = QuantumCircuit(3, 2)
    circuit.append(outer.to_instruction(), [2, 0], [0, 1])
    measurements = find_measurements(circuit)
    assert measurements.qubits[measurements.bits].tolist() == [0, 2]


def test_the_integer_of_a_bitstring_has_the_bits_of_its_qubits():
    assert integers_of([1, -1, 0, 1], 2).tolist() == [0, 0b0100, 0b1001, 0b1101]
    assert integers_of([0] * 70, 1).tolist() == [0, 2**70 - 1]
