# SPDX-License-Identifier: Apache-2.0
"""Dense gates: every engine applies a constant matrix on several qubits, and its inverse on the way back."""

import numpy as np
import pytest
from asking import Ends, ask
from engine_cases import (
    TOLERANCE,
    all_pairs,
    assert_agree,
    assert_agrees_with_reference,
    dense_circuit,
    on_engines,
    plan_of,
    random_observables,
    total_z,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit.circuit import ParameterVector, QuantumCircuit
from qiskit.circuit.library import UnitaryGate
from qiskit.quantum_info import SparsePauliOp, random_unitary

from qiskit_fused.engines.cpu.engine import CpuEngine
from qiskit_fused.engines.reference import ReferenceEngine
from qiskit_fused.options.method import REVERSE, Method

METHODS = [REVERSE, Method("store"), Method("checkpoint", 2)]


@on_engines(cpu=[3, 5, 8, 9, 14], emulated=[4], tiles=[7])
def test_dense_gates_agree_with_the_reference(make_engine, num_qubits, dtype):
    circuit = dense_circuit(num_qubits, 3, seed=num_qubits)
    plan, _ = plan_of(circuit, total_z(num_qubits))
    assert len(plan.dense_matrices) == 2
    assert_agrees_with_reference(make_engine(2), circuit, random_observables(num_qubits, 3), dtype)


@on_engines(cpu=[4, 10, 14], emulated=[4], tiles=[7])
def test_imaginary_derivatives_pass_through_dense_gates(make_engine, num_qubits):
    circuit = dense_circuit(num_qubits, 2, 1, seed=num_qubits)
    assert_agrees_with_reference(make_engine(2), circuit, random_observables(num_qubits, 3), imaginary=True)


@given(
    st.integers(2, 8), st.integers(0, 2), st.integers(0, 2), st.booleans(), st.integers(0, 99), st.sampled_from(METHODS)
)
@settings(max_examples=40, deadline=None)
def test_any_matrix_on_any_qubits_under_any_controls_agrees_with_the_reference(
    num_targets, num_controls, num_others, real, seed, method
):
    num_qubits = num_targets + num_controls + num_others
    circuit = dense_circuit(num_qubits, num_targets, num_controls, seed, real)
    num_rows = 1 + seed % 20 if num_qubits <= 6 else 2  # few rows are swept one by one, many in packs
    plan, operators = plan_of(circuit, random_observables(num_qubits, seed))
    columns = plan.program.columns(np.random.default_rng(seed).normal(size=(num_rows, plan.program.num_parameters)))
    question = plan, operators, columns, all_pairs(num_rows, 2)
    expected = ask(ReferenceEngine(), *question, gradient=True)
    for dtype in TOLERANCE:
        assert_agree(ask(CpuEngine(2), *question, gradient=True, dtype=dtype, method=method), expected, dtype)


@on_engines(cpu=[3, 9, 14], emulated=[4], tiles=[7])
def test_final_states_and_their_cotangents_have_the_phase_of_dense_gates(make_engine, num_qubits, dtype):
    circuit = dense_circuit(num_qubits, 3, seed=1)
    plan, operators = plan_of(circuit, total_z(num_qubits), imaginary=True)
    columns = plan.program.columns(np.random.default_rng(2).normal(size=(2, 3)))
    cotangents = np.random.default_rng(8).normal(size=(2, 1 << num_qubits, 2)) @ [1, 1j]
    no_pairs, ends = (np.zeros(0, np.int32), np.zeros(0, np.int32)), Ends(final=True, final_cotangents=cotangents)
    question = plan, operators, columns, no_pairs
    actual = ask(make_engine(2), *question, gradient=True, dtype=dtype, ends=ends)
    expected = ask(ReferenceEngine(), *question, gradient=True, ends=ends)
    np.testing.assert_allclose(actual.final_states, expected.final_states, rtol=0, atol=TOLERANCE[dtype])
    scale = max(1.0, np.abs(expected.gradients).max())
    np.testing.assert_allclose(actual.gradients, expected.gradients, rtol=0, atol=scale * TOLERANCE[dtype])


@pytest.mark.parametrize(("num_qubits", "num_rows"), [(6, 40), (15, 3)], ids=["packs", "chunks"])
def test_dense_gates_have_the_same_bits_for_any_number_of_threads(num_qubits, num_rows, dtype):
    plan, operators = plan_of(dense_circuit(num_qubits, 4, 1), random_observables(num_qubits, 1))
    columns = plan.program.columns(np.random.default_rng(0).normal(size=(num_rows, 3)))
    question = plan, operators, columns, all_pairs(num_rows, 2)
    one, *others = (ask(CpuEngine(count), *question, gradient=True, dtype=dtype) for count in (1, 2, 5))
    for other in others:
        np.testing.assert_array_equal(one.values, other.values)
        np.testing.assert_array_equal(one.gradients, other.gradients)


@pytest.mark.parametrize("num_qubits", [5, 9])
def test_states_stay_real_through_orthogonal_matrices_alone(num_qubits, dtype):
    circuit = dense_circuit(num_qubits, 3, real=True)
    assert plan_of(circuit, total_z(num_qubits))[0].is_real
    assert_agrees_with_reference(CpuEngine(), circuit, [total_z(num_qubits)], dtype)
    assert not plan_of(dense_circuit(num_qubits, 3), total_z(num_qubits))[0].is_real


def test_dense_gates_that_no_observable_sees_are_left_out():
    circuit = QuantumCircuit(7)
    for qubit, angle in enumerate(ParameterVector("p", 7)):
        circuit.ry(angle, qubit)
    circuit.append(UnitaryGate(random_unitary(8, seed=1)).control(1, annotated=True), [6, 0, 1, 2])
    circuit.append(UnitaryGate(random_unitary(8, seed=2)), [3, 4, 5])
    for label, num_dense, num_qubits in (("IIZIIII", 1, 3), ("IIIIIIZ", 1, 4), ("ZIIIIII", 0, 1), ("XIIIIII", 1, 4)):
        observable = SparsePauliOp(label)
        plan, _ = plan_of(circuit, observable)
        assert (len(plan.dense_matrices), plan.num_qubits) == (num_dense, num_qubits)
        assert_agrees_with_reference(CpuEngine(), circuit, [observable])
