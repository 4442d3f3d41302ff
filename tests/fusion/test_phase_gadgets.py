# SPDX-License-Identifier: Apache-2.0
"""Removal of pairs of CX gates that undo each other around diagonals; all other CX gates stay."""

import itertools

import numpy as np
import pytest
from circuits import circuits_of_cx_and_diagonals, values_of
from hypothesis import given, settings
from normal_form_oracle import apply_ops
from qiskit.circuit import ParameterVector, QuantumCircuit
from qiskit.circuit.library import RYGate, pauli_feature_map, qaoa_ansatz, real_amplitudes, zz_feature_map
from qiskit.quantum_info import SparsePauliOp

from qiskit_fused import FusedEstimatorGradient, fuse
from qiskit_fused.fusion.phase_gadgets import OPS_OF_CX, merge_ladders
from qiskit_fused.lowering.lower import lower


@settings(max_examples=300)
@given(circuits_of_cx_and_diagonals())
def test_the_circuit_stays_the_same(circuit):
    program = lower(circuit)
    merged, phase = merge_ladders(program.ops)
    assert len(merged) <= len(program.ops)
    columns = program.columns(np.asarray(values_of(circuit), dtype=float)[None])[0]
    unit = np.eye(1 << program.num_qubits)
    expected, found = (apply_ops(ops, columns, unit) for ops in (program.ops, merged))
    np.testing.assert_allclose(np.exp(1j * phase) * found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("first", "second", "sign"), [("cx", "cx", 1), ("h", "cx", -1), ("cx", "h", -1), ("h", "h", 1)]
)
def test_a_pair_of_cx_with_opposite_signs_leaves_the_phase_pi(first, second, sign):
    circuit = QuantumCircuit(2)
    for kind in (first, second):
        if kind == "cx":
            circuit.cx(0, 1)
        else:  # H is exp(i pi/2) times an op of determinant 1, so the ops of H CZ H are -1 times those of a CX
            circuit.h(1)
            circuit.cz(0, 1)
            circuit.h(1)
    merged, phase = merge_ladders(lower(circuit).ops)
    assert len(merged) == 0
    assert np.exp(1j * phase).real == sign


def num_undone(circuit):
    ops = lower(circuit).ops
    return (len(ops) - len(merge_ladders(ops).ops)) / OPS_OF_CX


@pytest.mark.parametrize("between", ["nothing", "z", "term", "other qubit", "commuting cx", "x rotation of the target"])
def test_a_pair_of_cx_around_what_commutes_and_diagonals_is_left_out(between):
    angle = ParameterVector("a", 1)[0]
    circuit = QuantumCircuit(4)
    circuit.cx(0, 1)
    if between == "z":
        circuit.rz(angle, 1)
    elif between == "term":
        circuit.mcp(angle, [0, 1], 2)
    elif between == "other qubit":
        circuit.rv(angle, 1, 2, 2)
    elif between == "commuting cx":
        circuit.cx(0, 2)
        circuit.cx(3, 1)
        circuit.rz(angle, 1)
    elif between == "x rotation of the target":
        circuit.rx(angle, 1)
    circuit.cx(0, 1)
    assert num_undone(circuit) == 2


def test_a_cx_may_be_written_as_a_cz_between_hadamards():
    circuit = QuantumCircuit(2)
    circuit.cx(0, 1)
    circuit.rz(0.3, 1)
    circuit.h(1)
    circuit.cz(0, 1)
    circuit.h(1)
    assert num_undone(circuit) == 2


@pytest.mark.parametrize(("off", "undone"), [("nothing", 2), ("angle", 0), ("axis", 0), ("way back", 0)])
def test_what_is_almost_a_cx_is_none(off, undone):
    circuit, little = QuantumCircuit(2), 1e-8
    for _ in range(2):
        axis = np.pi / 2 + little * (off == "axis")
        circuit.unitary(RYGate(-axis), [1])
        circuit.cp(np.pi - little * (off == "angle"), 0, 1)
        circuit.unitary(RYGate(axis + little * (off == "way back")), [1])
        circuit.rz(0.3, 1)
    assert num_undone(circuit) == undone


@pytest.mark.parametrize("between", ["y rotation of the target", "x rotation of the control", "cx back", "condition"])
def test_a_pair_of_cx_around_anything_else_stays(between):
    angle = ParameterVector("a", 1)[0]
    circuit = QuantumCircuit(3)
    circuit.cx(0, 1)
    if between == "y rotation of the target":
        circuit.ry(angle, 1)
    elif between == "x rotation of the control":
        circuit.rx(angle, 0)
    elif between == "cx back":
        circuit.cx(1, 2)
    elif between == "condition":  # without the CX, the condition on qubit 1 would be a condition on a parity
        circuit.cp(angle, 1, 2)
    circuit.cx(0, 1)
    assert num_undone(circuit) == 0


@pytest.mark.parametrize("num_qubits", [2, 5, 10])
def test_a_ladder_around_a_rotation_is_one_term(num_qubits):
    circuit = QuantumCircuit(num_qubits)
    circuit.h(range(num_qubits))
    for qubit in range(num_qubits - 1):
        circuit.cx(qubit, qubit + 1)
    circuit.rz(ParameterVector("t", 1)[0], num_qubits - 1)
    for qubit in reversed(range(num_qubits - 1)):
        circuit.cx(qubit, qubit + 1)
    plan = fuse(circuit)
    assert plan.num_layers == 1
    assert plan.term_sign.tolist() == [(1 << num_qubits) - 1]
    assert f"{2 * num_qubits - 2} CX undo each other" in " ".join(plan.explain().split())


def cost_of_many_bodies(num_qubits):
    quadruples = itertools.combinations(range(num_qubits), 4)
    return SparsePauliOp.from_sparse_list([("ZZZZ", list(qubits), 1.0) for qubits in quadruples], num_qubits)


@pytest.mark.parametrize(
    ("circuit", "num_layers"),
    [
        (zz_feature_map(6), 2),
        (zz_feature_map(6, entanglement="linear"), 2),
        (pauli_feature_map(5, paulis=["Z", "ZZ", "ZZZ"], reps=3), 3),
        (qaoa_ansatz(cost_of_many_bodies(6), reps=2), 3),
    ],
    ids=["zz", "zz linear", "zzz", "qaoa of four bodies"],
)
def test_feature_maps_and_qaoa_are_a_layer_a_repetition(circuit, num_layers):
    plan = fuse(circuit)
    assert plan.num_layers == num_layers
    assert plan.num_runs == num_layers * circuit.num_qubits


def test_gradients_through_merged_ladders_are_those_of_the_gates():
    circuit = zz_feature_map(4).compose(real_amplitudes(4, reps=1, parameter_prefix="w"))
    circuit = circuit.compose(pauli_feature_map(4, paulis=["XYZ", "ZZ"], reps=1, parameter_prefix="y"))
    rows = np.random.default_rng(0).normal(size=(3, circuit.num_parameters))
    results = [
        FusedEstimatorGradient(device=device).value_and_gradient(circuit, ["ZZZZ", "XIYI"], rows)
        for device in ("cpu", "reference")
    ]
    for actual, expected in zip(*results):
        np.testing.assert_allclose(actual, expected, atol=1e-12)
