# SPDX-License-Identifier: Apache-2.0
"""Circuits of layers of rotations and entanglers."""

from qiskit.circuit import ParameterVector, QuantumCircuit
from qiskit.quantum_info import SparsePauliOp


def hardware_efficient(num_qubits, num_layers, is_ring=False):
    angles = iter(ParameterVector("a", 3 * num_qubits * num_layers))
    circuit = QuantumCircuit(num_qubits)
    for _ in range(num_layers):
        for qubit in range(num_qubits):
            for gate in (circuit.rx, circuit.ry, circuit.rz):
                gate(next(angles), qubit)
        for qubit in range(num_qubits - (not is_ring)):
            circuit.cz(qubit, (qubit + 1) % num_qubits)
    return circuit


def total_z(num_qubits):
    return SparsePauliOp.from_sparse_list([("Z", [q], 1.0) for q in range(num_qubits)], num_qubits)


def rx_ry_layers(num_qubits, num_layers):
    """Return a circuit of layers, each of RX and RY on every qubit and CZ between neighbours."""
    angles = iter(ParameterVector("a", 2 * num_qubits * num_layers))
    circuit = QuantumCircuit(num_qubits)
    for _ in range(num_layers):
        for qubit in range(num_qubits):
            circuit.rx(next(angles), qubit)
            circuit.ry(next(angles), qubit)
        for qubit in range(num_qubits - 1):
            circuit.cz(qubit, qubit + 1)
    return circuit
