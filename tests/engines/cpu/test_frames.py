# SPDX-License-Identifier: Apache-2.0
"""Linear maps of states that are cut into chunks: frames say where each chunk lies, and all results stay the same."""

from dataclasses import replace

import numpy as np
import pytest
from asking import Ends, ask
from engine_cases import (
    TOLERANCE,
    all_pairs,
    assert_agree,
    assert_formats_agree_with_reference,
    cx_layers,
    plan_of,
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
from qiskit_fused.engines.cpu.state_sweeps import CpuSweeps
from qiskit_fused.engines.reference import ReferenceEngine
from qiskit_fused.fusion import layers
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.lowering.lower import lower
from qiskit_fused.options.method import REVERSE, Method
from qiskit_fused.program.outcomes import Outcomes

METHODS = {"reverse": REVERSE, "store": Method("store"), "checkpoint": Method("checkpoint", 3)}
NO_PAIRS = np.zeros(0, np.int32), np.zeros(0, np.int32)
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


@pytest.fixture
def cut(monkeypatch):
    """Return a function that makes plans cut states by a number of bits; at first, both windows hold whole blocks."""

    def cut_by(bits):
        for module in (costs, native_plan):
            monkeypatch.setattr(module, "chunk_bits", bits)

    cut_by(lambda num_qubits: (num_qubits - CONSTANTS.max_low_bits) // 2)
    return cut_by


@pytest.fixture
def all_maps(monkeypatch):
    """Make fusion take linear maps wherever a circuit has any."""
    monkeypatch.setattr(layers, "_cost", lambda fused: -len(fused.map_layer))


def random_cx_circuit(num_qubits, seed, num_layers=4, num_dense=0):
    """Return layers of rotations, CX ladders, random CX gates and terms, the first ones with dense gates."""
    rng = np.random.default_rng(seed)
    circuit, angles = QuantumCircuit(num_qubits), iter(ParameterVector("p", 3 * num_layers * num_qubits))
    circuit.h(range(num_qubits))
    for layer in range(num_layers):
        for qubit in rng.permutation(num_qubits)[: num_qubits - 2].tolist():
            for gate in rng.choice(["rx", "ry", "rz"], 2):
                getattr(circuit, gate)(next(angles), qubit)
        for qubit in range(num_qubits - 1 if layer % 2 else 0):
            circuit.cx(qubit, qubit + 1)
        for _ in range(num_qubits):
            control, target = sorted(rng.choice(num_qubits, 2, replace=False).tolist(), reverse=rng.random() < 0.1)
            circuit.cx(control, target)
        circuit.rzz(next(angles), *rng.choice(num_qubits, 2, replace=False).tolist())
        if layer < num_dense:
            gate = UnitaryGate(random_unitary(8, seed=seed))
            if layer % 2:
                gate = gate.control(1, ctrl_state=layer // 2 % 2, annotated=True)
            circuit.append(gate, rng.permutation(num_qubits)[: gate.num_qubits].tolist())
    return circuit


def has_frames(plan):
    """Say whether the maps of a plan move chunks: a column of one of the highest bits has another of these bits."""
    high = ~0 << plan.num_qubits - native_plan.chunk_bits(plan.num_qubits)
    return any((column & high).bit_count() > 1 for map_ in plan.map_columns for column in map_.tolist())


@pytest.mark.parametrize("num_qubits", [*range(11, 16), *(pytest.param(n, marks=pytest.mark.slow) for n in (16, 17))])
def test_random_cx_circuits_agree_with_the_reference(num_qubits, all_maps):
    for seed in range(4 if num_qubits < 14 else 1):
        circuit, observables = random_cx_circuit(num_qubits, seed), random_observables(num_qubits, seed)
        plan, _ = plan_of(circuit, observables)
        assert len(plan.map_layer) >= 4 and has_frames(plan) == (num_qubits >= 14)
        assert_formats_agree_with_reference(CpuEngine(2), circuit, observables)


@every_method
@pytest.mark.parametrize("imaginary", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 3])
def test_frames_agree_with_the_reference_in_any_chunks(bits, imaginary, method, cut, all_maps):
    cut(lambda num_qubits: bits)
    plan, operators = plan_of(random_cx_circuit(13, bits), random_observables(13, 1), imaginary)
    assert has_frames(plan) == (bits > 1)
    question = plan, operators, rows_of(plan.program, num_rows=2), all_pairs(2, 2)
    expected = ask(ReferenceEngine(), *question, gradient=True, imaginary=imaginary)
    for dtype in TOLERANCE:
        options = {"gradient": True, "imaginary": imaginary, "dtype": dtype, "method": method}
        assert_agree(ask(CpuEngine(2), *question, **options), expected, dtype)


@every_method
@pytest.mark.parametrize("seed", range(3))
def test_dense_gates_find_their_amplitudes_by_frames(seed, method, cut, all_maps):
    plan, operators = plan_of(random_cx_circuit(13, seed, num_dense=4), random_observables(13, 1))
    assert has_frames(plan) and len(plan.dense_layer) == 4
    question = plan, operators, rows_of(plan.program, num_rows=2), all_pairs(2, 2)
    expected = ask(ReferenceEngine(), *question, gradient=True)
    for dtype in TOLERANCE:
        for threads in (1, 2):
            actual = ask(CpuEngine(threads), *question, gradient=True, dtype=dtype, method=method)
            assert_agree(actual, expected, dtype)


@every_method
@pytest.mark.parametrize("gates", [("ry", "rz"), ("ry",)])
def test_maps_of_consecutive_layers_agree_with_the_reference(gates, method, cut):
    circuit, angles = QuantumCircuit(13), ParameterVector("a", 13)
    for pairs in ("ladder", "pairs", "ladder from the end"):
        for gate in gates:
            for qubit in range(13):
                getattr(circuit, gate)(angles[qubit] * (1 + qubit % 2) + 0.1, qubit)
        circuit = circuit.compose(cx_layers(13, pairs, 1, gates=()))
        for qubit in range(13):
            circuit.rz(np.pi if gates == ("ry",) else angles[qubit], qubit)
        circuit = circuit.compose(cx_layers(13, "pairs", 1, gates=()))
    plan, operators = plan_of(circuit, random_observables(13, 1))
    assert 1 in np.diff(plan.map_layer) and has_frames(plan) and plan.is_real == (gates == ("ry",))
    question = plan, operators, rows_of(plan.program, num_rows=2), all_pairs(2, 2)
    expected = ask(ReferenceEngine(), *question, gradient=True)
    for dtype in TOLERANCE:
        assert_agree(ask(CpuEngine(2), *question, gradient=True, dtype=dtype, method=method), expected, dtype)


def random_ends(num_rows):
    """Return states and cotangents of 13 qubits."""
    states, cotangents = np.random.default_rng(0).normal(size=(2, num_rows, 1 << 13, 2)) @ [1, 1j]
    return states / np.linalg.norm(states, axis=1, keepdims=True), cotangents


def assert_ends_agree_with_the_reference(plan, ends, **options):
    """Assert that gradients and the states that leave the engine agree with the reference engine."""
    _, operators = plan_of(random_cx_circuit(13, 6), total_z(13))
    question = plan, operators, rows_of(plan.program, num_rows=2), NO_PAIRS
    actual = ask(CpuEngine(2), *question, gradient=True, ends=ends, **options)
    expected = ask(ReferenceEngine(), *question, gradient=True, ends=ends)
    for name in ("gradients", "final_states", *(["state_gradients"] if ends.initial_gradients else [])):
        found, wanted = getattr(actual, name), getattr(expected, name)
        atol = TOLERANCE[options.get("dtype", "complex128")] * max(1, np.abs(wanted).max())
        np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)


@every_method
@pytest.mark.parametrize("num_dense", [0, 3])
def test_final_states_and_their_cotangents_pass_through_frames(num_dense, method, cut, all_maps, dtype):
    plan, _ = plan_of(random_cx_circuit(13, 6, num_dense=num_dense), total_z(13), imaginary=True)
    assert has_frames(plan)
    ends = Ends(final=True, final_cotangents=random_ends(2)[1])
    assert_ends_agree_with_the_reference(plan, ends, dtype=dtype, method=method)


@pytest.mark.parametrize("num_dense", [0, 3])
def test_start_states_and_their_gradients_pass_through_frames(num_dense, cut, all_maps, dtype):
    plan, _ = plan_of(random_cx_circuit(13, 6, num_dense=num_dense), total_z(13), imaginary=True)
    assert has_frames(plan)
    starts, cotangents = random_ends(2)
    ends = Ends(initial=starts, initial_gradients=True, final=True, final_cotangents=cotangents)
    assert_ends_agree_with_the_reference(plan, ends, dtype=dtype)


def test_sweeps_from_the_end_return_to_the_start_through_frames(cut, all_maps):
    program = lower(random_cx_circuit(13, 7))
    # Fusion makes no maps for programs that start in any state, so the start is changed behind it.
    plan, columns = replace(fuse_program(program, None), program=program.from_any_state()), rows_of(program, num_rows=1)
    assert has_frames(plan)
    start, cotangents = random_ends(1)
    ends = Ends(initial=start, initial_gradients=True, final=True, final_cotangents=cotangents)
    _, operators = plan_of(random_cx_circuit(13, 7), total_z(13))
    expected = ask(ReferenceEngine(), plan, operators, columns, NO_PAIRS, gradient=True, ends=ends)
    state, cotangent = start.copy(), cotangents.copy()
    CpuSweeps("complex128", 2).forward(plan, columns, state)
    np.testing.assert_allclose(state, expected.final_states, rtol=0, atol=1e-12)
    gradient = CpuSweeps("complex128", 2).back(plan, columns, state, cotangent)
    np.testing.assert_allclose(gradient, expected.gradients[0], rtol=0, atol=1e-9)
    np.testing.assert_allclose(state, start, rtol=0, atol=1e-12)
    np.testing.assert_allclose(cotangent, expected.state_gradients, rtol=0, atol=1e-9)


def test_outcomes_after_frames_agree_with_the_reference(cut, all_maps, dtype):
    rng, program = np.random.default_rng(2), lower(random_cx_circuit(13, 8))
    measured = rng.permutation(13)[:12]
    outcomes = Outcomes(13, measured, rng.integers(-1, 3, 1 << 12), 3)
    plan = fuse_program(program, outcomes.support(13))
    assert has_frames(plan)
    question = plan, outcomes, rows_of(program, num_rows=2), all_pairs(2, 3)
    expected = ask(ReferenceEngine(), *question, gradient=True)
    assert_agree(ask(CpuEngine(2), *question, gradient=True, dtype=dtype), expected, dtype)


def test_frames_keep_the_bits_for_any_number_of_threads(cut, all_maps, dtype):
    plan, operators = plan_of(random_cx_circuit(13, 9, num_dense=2), random_observables(13, 1))
    question = plan, operators, rows_of(plan.program, num_rows=1), all_pairs(1, 2)
    one, *others = (ask(CpuEngine(count), *question, gradient=True, dtype=dtype) for count in (1, 2, 3))
    for other in others:
        np.testing.assert_array_equal(one.values, other.values)
        np.testing.assert_array_equal(one.gradients, other.gradients)


@pytest.mark.parametrize("num_qubits", [14, 20])
def test_windows_take_turns_around_linear_maps(num_qubits):
    plan, _ = plan_of(cx_layers(num_qubits, num_layers=4), total_z(num_qubits))
    assert has_frames(plan)
    assert set(windows(plan, "complex64")) == {0, 1}


@pytest.mark.parametrize("method", [REVERSE, Method("store")], ids=["reverse", "store"])
def test_many_threads_in_many_frames_keep_the_bits(cut, all_maps, method):
    cut(lambda num_qubits: 3)
    plan, operators = plan_of(random_cx_circuit(14, 5), [total_z(14)])
    assert len(plan.map_layer) > 1
    question = plan, operators, rows_of(plan.program)[:1], all_pairs(1, 1)
    expected = ask(CpuEngine(1), *question, gradient=True, method=method)
    engine = CpuEngine(4)
    for _ in range(40):
        actual = ask(engine, *question, gradient=True, method=method)
        np.testing.assert_array_equal(actual.gradients, expected.gradients)
