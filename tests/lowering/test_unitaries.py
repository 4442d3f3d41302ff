# SPDX-License-Identifier: Apache-2.0
"""A matrix is a dense gate only if it is no product, no controlled gate and no diagonal of fewer qubits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from normal_form_oracle import assert_lowered
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.circuit.library import Isometry, UnitaryGate
from qiskit.quantum_info import Operator, random_unitary
from scipy.linalg import block_diag

from qiskit_fused.common.bits import spread
from qiskit_fused.program.program import OpKind


def lowered(gate, num_qubits=None):
    """Return the program of a gate behind a rotation with a parameter, so that it is no part of a start state."""
    circuit = QuantumCircuit(num_qubits or gate.num_qubits)
    for qubit in range(circuit.num_qubits):
        circuit.ry(Parameter(f"p{qubit}"), qubit)
    circuit.append(gate, range(gate.num_qubits))
    return assert_lowered(circuit)


def matrix_of(num_qubits, build):
    circuit = QuantumCircuit(num_qubits, global_phase=0.3)
    build(circuit)
    return UnitaryGate(Operator(circuit))


def dense_sizes(program):
    """Return the numbers of targets and of controls of each dense gate."""
    chosen = program.ops.kind == OpKind.DENSE
    masks = (part[chosen] for part in (program.ops.sign, program.ops.care))
    return list(zip(*(np.bitwise_count(part).tolist() for part in masks)))


@pytest.mark.parametrize("num_qubits", [3, 4, 5])
def test_a_generic_matrix_is_one_dense_gate(num_qubits):
    assert dense_sizes(lowered(UnitaryGate(random_unitary(2**num_qubits, seed=1)))) == [(num_qubits, 0)]


def test_products_of_one_qubit_gates_and_controlled_gates_are_no_dense_gates():
    def product(circuit):
        for qubit in range(5):
            circuit.u(0.3 + qubit, 0.2, -qubit, qubit)

    def controlled(circuit):
        circuit.mcx([0, 2, 3, 4], 1, ctrl_state=6)

    def diagonal(circuit):
        circuit.rzz(0.3, 0, 4)
        circuit.cp(0.2, 3, 1)
        circuit.x(2)

    for build in (product, controlled, diagonal):
        assert dense_sizes(lowered(matrix_of(5, build))) == []


@given(st.permutations(range(6)), st.integers(0, 3), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_factors_and_controls_are_taken_off_whatever_their_places(places, num_controls, seed):
    blocks = [np.eye(2 ** (5 - num_controls)) for _ in range(2**num_controls)]
    blocks[seed % len(blocks)] = random_unitary(2 ** (5 - num_controls), seed=seed).data
    matrix = np.kron(random_unitary(2, seed=seed + 1).data, block_diag(*blocks))
    moved = spread(places)
    program = lowered(UnitaryGate(matrix[np.ix_(moved, moved)]))
    assert dense_sizes(program) == ([(5 - num_controls, num_controls)] if num_controls < 4 else [])


def test_an_isometry_on_all_qubits_is_its_matrix():
    assert dense_sizes(lowered(Isometry(random_unitary(8, seed=1).data, 0, 0))) == [(3, 0)]
