# SPDX-License-Identifier: Apache-2.0
"""Linear maps: the CPU engine moves amplitudes where a circuit has CX gates that follow each other."""

import numpy as np
import pytest
from asking import Ends, ask
from engine_cases import (
    CX_PAIRS,
    TOLERANCE,
    all_pairs,
    assert_agree,
    assert_agrees_with_reference,
    cx_layers,
    many_strings,
    plan_of,
    random_circuit,
    random_observables,
    rows_of,
    total_z,
)
from qiskit.circuit import ParameterVector, QuantumCircuit
from qiskit.circuit.library import UnitaryGate
from qiskit.quantum_info import random_unitary

from qiskit_fused.common.native import CONSTANTS
from qiskit_fused.engines.cpu import costs, native_plan
from qiskit_fused.engines.cpu.engine import CpuEngine
from qiskit_fused.engines.cpu.native_plan import windows
from qiskit_fused.engines.reference import ReferenceEngine
from qiskit_fused.fusion import layers
from qiskit_fused.fusion.dense_gates import rotations_and_terms
from qiskit_fused.options.method import REVERSE, Method

METHODS = [REVERSE, Method("store"), Method("checkpoint", 2)]


def assert_maps_agree_with_rotations_and_terms(circuit, dtype="complex128", methods=(REVERSE,), **options):
    """Assert that values and gradients with linear maps are those without maps, which other tests check."""
    plan, operators = plan_of(circuit, random_observables(circuit.num_qubits, 1), options.get("imaginary", False))
    assert len(plan.map_layer)
    question = operators, rows_of(plan.program, num_rows=2), all_pairs(2, 2)
    expected = ask(CpuEngine(2), rotations_and_terms(plan), *question, gradient=True, **options)
    for method in methods:
        actual = ask(CpuEngine(2), plan, *question, gradient=True, dtype=dtype, method=method, **options)
        assert_agree(actual, expected, dtype)


@pytest.mark.parametrize("pairs", CX_PAIRS)
def test_linear_maps_agree_with_the_reference(pairs, dtype):
    circuit, observables = cx_layers(11, pairs, 2), random_observables(11, 1)
    assert len(plan_of(circuit, observables)[0].map_layer) == 2
    assert_agrees_with_reference(CpuEngine(), circuit, observables, dtype)


@pytest.mark.parametrize("pairs", CX_PAIRS)
@pytest.mark.parametrize("num_qubits", [14, 16])
def test_linear_maps_move_amplitudes_in_the_chunks_of_two_windows(num_qubits, pairs, dtype):
    assert_maps_agree_with_rotations_and_terms(cx_layers(num_qubits, pairs, 2), dtype)


@pytest.mark.parametrize("pairs", ["ladder", "ring"])
def test_states_that_are_kept_pass_through_linear_maps(pairs, dtype):
    assert_maps_agree_with_rotations_and_terms(cx_layers(14, pairs, gates=("rx", "rz")), dtype, METHODS)


def test_imaginary_derivatives_pass_through_linear_maps():
    assert_maps_agree_with_rotations_and_terms(cx_layers(14), imaginary=True)


@pytest.mark.parametrize("pairs", ["ladder", "ring"])
def test_final_states_and_their_cotangents_have_the_phase_of_linear_maps(pairs, dtype):
    plan, operators = plan_of(cx_layers(11, pairs, 2), total_z(11), imaginary=True)
    assert len(plan.map_layer) == 2
    cotangents = np.random.default_rng(8).normal(size=(2, 1 << 11, 2)) @ [1, 1j]
    no_pairs, ends = (np.zeros(0, np.int32), np.zeros(0, np.int32)), Ends(final=True, final_cotangents=cotangents)
    question = operators, rows_of(plan.program, num_rows=2), no_pairs
    actual = ask(CpuEngine(2), plan, *question, gradient=True, dtype=dtype, ends=ends)
    expected = ask(ReferenceEngine(), plan, *question, gradient=True, ends=ends)
    np.testing.assert_allclose(actual.final_states, expected.final_states, rtol=0, atol=TOLERANCE[dtype])
    scale = max(1.0, np.abs(expected.gradients).max())
    np.testing.assert_allclose(actual.gradients, expected.gradients, rtol=0, atol=scale * TOLERANCE[dtype])
    plain = rotations_and_terms(plan)
    states = ask(CpuEngine(), plain, *question, ends=Ends(final=True)).final_states
    np.testing.assert_allclose(
        np.exp(1j * plain.extra_phase) * states, expected.final_states, rtol=0, atol=TOLERANCE["complex128"]
    )


@pytest.mark.parametrize("pairs", CX_PAIRS)
def test_rotations_and_terms_take_the_place_of_linear_maps_on_the_same_bits(pairs):
    plan, _ = plan_of(cx_layers(11, pairs), total_z(11))
    plain = rotations_and_terms(plan)
    assert len(plan.map_layer) and not len(plain.map_layer)
    np.testing.assert_array_equal(plain.wires, plan.wires)
    np.testing.assert_array_equal(plain.start_bits, plan.start_bits)


def test_linear_maps_have_the_same_bits_for_any_number_of_threads(dtype):
    plan, operators = plan_of(cx_layers(15, "ring"), random_observables(15, 1))
    question = plan, operators, rows_of(plan.program, num_rows=1), all_pairs(1, 2)
    one, *others = (ask(CpuEngine(count), *question, gradient=True, dtype=dtype) for count in (1, 2, 5))
    for other in others:
        np.testing.assert_array_equal(one.values, other.values)
        np.testing.assert_array_equal(one.gradients, other.gradients)


def test_states_stay_real_through_linear_maps(dtype):
    circuit = cx_layers(14, gates=("ry",))
    assert plan_of(circuit, total_z(14))[0].is_real
    assert_maps_agree_with_rotations_and_terms(circuit, dtype)


@pytest.mark.parametrize("bits", [0, 1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_maps_between_any_gates_agree_with_rotations_and_terms_in_any_chunks(monkeypatch, seed, bits):
    for module in (costs, native_plan):
        monkeypatch.setattr(module, "chunk_bits", lambda num_qubits: bits)
    monkeypatch.setattr(layers, "_cost", lambda fused: -len(fused.map_layer))  # takes all maps
    rng = np.random.default_rng(seed)
    circuit = random_circuit(14, 10, seed)
    for _ in range(4):
        for _ in range(12):
            control, target = rng.choice(14, 2, replace=False).tolist()
            if control < target or rng.random() < 0.2:
                circuit.cx(control, target)
        if seed == 0:
            circuit.append(UnitaryGate(random_unitary(8, seed=1)), rng.permutation(14)[:3].tolist())
        circuit.ry(0.3, int(rng.integers(14)))
        circuit.ccz(0, 1, int(rng.integers(2, 14)))
    assert_maps_agree_with_rotations_and_terms(circuit, methods=METHODS)


def test_maps_beside_tables_of_all_amplitudes_take_passes_of_their_own(monkeypatch):
    for module in (costs, native_plan):
        monkeypatch.setattr(module, "chunk_bits", lambda num_qubits: (num_qubits - CONSTANTS.max_low_bits) // 2)
    ladder = QuantumCircuit(12)
    for qubit in range(11):
        ladder.cx(qubit, qubit + 1)
    circuit = many_strings(12).compose(ladder)
    for qubit, angle in enumerate(ParameterVector("z", 12)):
        circuit.ry(angle, qubit)
    circuit = circuit.compose(many_strings(12).assign_parameters([0.1 * k for k in range(6)])).compose(ladder)
    for qubit in range(12):
        circuit.ry(0.2 * qubit, qubit)
    plan, _ = plan_of(circuit, random_observables(12, 1))
    assert set(windows(plan, "complex128")) == {0, 1}
    assert_maps_agree_with_rotations_and_terms(circuit, methods=METHODS)


def test_equal_maps_are_stored_once():
    plan, _ = plan_of(cx_layers(12, num_layers=5), total_z(12))
    assert (len(plan.map_layer), len(plan.map_columns)) == (5, 1)
    highest = [column.bit_length() - 1 for column in plan.map_columns[0].tolist()]
    assert highest == [*range(12)]
