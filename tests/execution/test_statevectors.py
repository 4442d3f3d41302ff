# SPDX-License-Identifier: Apache-2.0
"""Final states as a function of parameter values, and their vector-Jacobian product."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit.library import zz_feature_map
from qiskit.quantum_info import Statevector

from qiskit_fused import FusedOptions, compile_circuit
from qiskit_fused.execution.statevectors import FinalStates, StateBatch


def sparse_circuit():
    """Return a circuit in which a qubit is idle, qubits are renamed by a swap, and angles are expressions."""
    circuit = QuantumCircuit(6)
    circuit.compose(zz_feature_map(4, reps=2), [1, 3, 0, 5], inplace=True)
    circuit.swap(1, 5)
    return circuit


def rows_of(num_rows):
    return np.random.default_rng(0).normal(size=(num_rows, 4))


def fidelity_loss(states):
    """Return sum_b |<psi_b|psi_0>|^2 and its cotangents G, with dL = Re sum conj(G) dpsi."""
    overlaps = states.conj() @ states[:1].T
    cotangents = 2 * overlaps.conj() * states[:1]
    cotangents[0] += (2 * overlaps * states).sum(axis=0)
    return (np.abs(overlaps) ** 2).sum(), cotangents


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_states_are_those_of_qiskits_statevector_up_to_a_phase(device):
    circuit, rows = sparse_circuit(), rows_of(5)
    states = FinalStates(compile_circuit(circuit), FusedOptions(device=device)).states(rows)
    expected = np.array([Statevector(circuit.assign_parameters(row)).data for row in rows])
    np.testing.assert_allclose(np.abs(np.einsum("bi,bi->b", expected.conj(), states)), 1.0, atol=1e-12)


def test_states_of_active_qubits_leave_idle_qubits_out():
    compiled, rows = compile_circuit(sparse_circuit()), rows_of(3)
    states = FinalStates(compiled, FusedOptions()).states(rows)
    active = FinalStates(compiled, FusedOptions(), only_active=True).states(rows)
    assert active.shape == (3, 16)
    index = [sum((number >> bit & 1) << qubit for bit, qubit in enumerate([0, 1, 3, 5])) for number in range(16)]
    np.testing.assert_array_equal(states[:, index], active)


@pytest.mark.parametrize("only_active", [False, True])
def test_a_vector_jacobian_product_is_the_gradient_of_a_loss_of_the_states(only_active):
    rows, step = rows_of(3), 1e-6
    function = FinalStates(compile_circuit(sparse_circuit()), FusedOptions(), only_active)
    _, cotangents = fidelity_loss(function.states(rows))
    gradients = function.vjp(rows, cotangents)
    assert gradients.shape == (3, 4)
    for row, column in np.ndindex(3, 4):
        losses = []
        for sign in (1, -1):
            moved = rows.copy()
            moved[row, column] += sign * step
            losses.append(fidelity_loss(function.states(moved))[0])
        np.testing.assert_allclose(gradients[row, column], (losses[0] - losses[1]) / (2 * step), atol=1e-7)


def test_results_do_not_depend_on_blocks_or_workers():
    compiled, rows = compile_circuit(sparse_circuit()), rows_of(30)
    plain = FinalStates(compiled, FusedOptions())
    batch = StateBatch(rows, fidelity_loss(plain.states(rows))[1])
    expected = plain.evaluate(batch)
    in_blocks = FinalStates(compiled, FusedOptions(memory_limit="1 MB")).evaluate(batch)
    with ThreadPoolExecutor(2) as executor:
        on_workers = FinalStates(compiled, FusedOptions(executor=executor)).evaluate(batch)
    for found in (in_blocks, on_workers):
        np.testing.assert_allclose(found.states, expected.states, atol=1e-14)
        np.testing.assert_allclose(found.gradients, expected.gradients, atol=1e-12)


def test_states_have_the_number_format_of_the_options():
    compiled, rows = compile_circuit(sparse_circuit()), rows_of(2)
    single = FinalStates(compiled, FusedOptions(dtype="complex64")).states(rows)
    assert single.dtype == np.complex64
    np.testing.assert_allclose(single, FinalStates(compiled, FusedOptions()).states(rows), atol=1e-5)


def test_a_circuit_without_gates_stays_in_zero():
    states = FinalStates(compile_circuit(QuantumCircuit(2)), FusedOptions()).states(np.zeros((3, 0)))
    np.testing.assert_array_equal(np.abs(states), np.eye(4)[[0, 0, 0]])
