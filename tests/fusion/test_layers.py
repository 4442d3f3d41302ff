# SPDX-License-Identifier: Apache-2.0
"""Fusion of gates into layers and phases, and the omission of gates that no observable sees."""

import numpy as np
import pytest
from asking import ask
from circuits import circuits
from hypothesis import given, settings
from hypothesis import strategies as st
from layered_circuits import hardware_efficient, total_z
from qiskit.circuit import ParameterVector, QuantumCircuit
from qiskit.circuit.library import efficient_su2
from qiskit.quantum_info import SparsePauliOp

from qiskit_fused import fuse
from qiskit_fused.compilation.observables import coerce_observables
from qiskit_fused.engines.cpu.engine import CpuEngine
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.lowering.lower import lower

pytestmark = pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")


def evaluate(plan, observables, columns):
    operators = coerce_observables(observables).operators
    row, chosen = np.zeros(len(operators), np.int32), np.arange(len(operators), dtype=np.int32)
    return ask(CpuEngine(), plan, operators, columns[None], (row, chosen), gradient=True)


def test_a_layer_of_rotations_and_entanglers_is_one_layer_and_one_phase():
    plan = fuse(hardware_efficient(6, 4), total_z(6))
    assert (plan.num_layers, plan.num_runs) == (4, 24)


def test_a_full_graph_of_zz_interactions_is_one_phase():
    circuit = QuantumCircuit(8)
    angles = iter(ParameterVector("g", 36))
    circuit.h(range(8))
    for i in range(8):
        for j in range(i):
            circuit.rzz(next(angles), i, j)
    for qubit in range(8):
        circuit.rx(next(angles), qubit)
    plan = fuse(circuit, total_z(8))
    assert plan.num_layers == 2
    assert np.count_nonzero((plan.term_phase == 1) & (plan.term_column >= 0)) == 28


def test_a_linear_cx_ladder_of_12_qubits_takes_under_3_phases_and_2_rotations_a_qubit():
    few, many = (fuse(efficient_su2(12, reps=reps, entanglement="linear")) for reps in (10, 30))
    assert (many.num_layers - few.num_layers) / 20 < 3
    assert (many.num_runs - few.num_runs) / 20 / 12 < 2


def test_diagonal_gates_at_the_ends_of_a_run_are_terms():
    circuit = QuantumCircuit(1)
    a, b, c = ParameterVector("p", 3)
    circuit.rz(a, 0)
    circuit.ry(b, 0)
    circuit.rz(c, 0)
    plan = fuse(circuit)
    assert plan.leaf_column.tolist() == [1]
    assert sorted(zip(plan.term_phase.tolist(), plan.term_column.tolist())) == [(0, 0), (1, 2)]


def test_the_light_cone_of_z_on_one_qubit_through_five_layers_is_five_of_22_qubits():
    circuit = hardware_efficient(22, 5)
    assert fuse(circuit, SparsePauliOp.from_sparse_list([("Z", [0], 1.0)], 22)).num_qubits == 5
    assert fuse(circuit, SparsePauliOp("Z" * 22)).num_qubits == 22


def test_diagonal_gates_that_commute_with_the_observable_are_left_out():
    circuit = QuantumCircuit(2)
    circuit.ry(0.3, [0, 1])
    circuit.cz(0, 1)
    circuit.rz(0.4, 0)
    assert len(fuse(circuit, "ZZ").term_phase) == 0
    assert len(fuse(circuit, "XZ").term_phase) == 1
    assert len(fuse(circuit, "ZX").term_phase) == 2


def test_an_observable_that_sees_no_gate_is_a_constant():
    circuit = hardware_efficient(3, 2)
    plan = fuse(circuit, "III")
    assert plan.num_qubits == 0
    result = evaluate(plan.fused_program, ["III"], np.linspace(0, 1, 18))
    np.testing.assert_allclose(result.values, [1.0])
    np.testing.assert_array_equal(result.gradients, np.zeros((1, 18)))


@settings(max_examples=60, deadline=None)
@given(
    circuit=circuits(max_qubits=5, max_gates=12), letters=st.lists(st.sampled_from("IXYZ01+r"), min_size=5, max_size=5)
)
def test_what_is_outside_the_light_cone_changes_nothing(circuit, letters):
    observable = "".join(letters[: circuit.num_qubits])
    program = lower(circuit)
    columns = program.columns(np.full((1, program.num_parameters), 0.7))[0]
    support = coerce_observables(observable).operators.support(circuit.num_qubits)
    reduced, full = fuse_program(program, support), fuse_program(program)
    assert reduced.num_qubits <= full.num_qubits
    some, all_ = evaluate(reduced, [observable], columns), evaluate(full, [observable], columns)
    np.testing.assert_allclose(some.values, all_.values, atol=1e-12)
    np.testing.assert_allclose(some.gradients, all_.gradients, atol=1e-11)


@pytest.mark.slow
def test_60_000_parameters_are_planned_in_seconds():
    circuit = hardware_efficient(20, 1000)
    plan = fuse(circuit, total_z(20))
    assert (plan.num_layers, plan.num_runs) == (1000, 20_000)
