# SPDX-License-Identifier: Apache-2.0
"""Boundary states of engines: given start states, final states, and cotangents of final states."""

import numpy as np
import pytest
from asking import Ends, ask
from engine_cases import TOLERANCE, all_pairs, assert_agree, on_engines, random_circuit, random_observables, rows_of
from qiskit.circuit.library import real_amplitudes
from qiskit.quantum_info import Statevector

from qiskit_fused.compilation.observables import coerce_observables
from qiskit_fused.engines.reference import ReferenceEngine, apply_observable
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.lowering.lower import lower
from qiskit_fused.options.method import REVERSE, Method

# SciPy warns about the sparse format in which Qiskit exponentiates a PauliEvolutionGate.
pytestmark = pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")

METHODS = [REVERSE, Method("store"), Method("checkpoint", 2)]
NO_PAIRS = np.zeros(0, np.int32), np.zeros(0, np.int32)

every_size = on_engines(cpu=[1, 2, 3, 7, 10, 14], emulated=[1, 4, 13], tiles=[3, 7, 10])


def circuit_of(num_qubits):
    if num_qubits == 1:
        return real_amplitudes(1, reps=2)
    circuit = random_circuit(num_qubits, 20, seed=num_qubits)
    circuit.swap(0, num_qubits - 1)  # the bits of the final state are renamed
    return circuit


def question(num_qubits, num_rows=3, any_start=False):
    program = lower(circuit_of(num_qubits))
    program = program.from_any_state() if any_start else program
    operators = coerce_observables(random_observables(num_qubits, 1)).operators
    return fuse_program(program, None), operators, rows_of(program, num_rows=num_rows)


def random_states(num_rows, num_qubits):
    states = np.random.default_rng(7).normal(size=(num_rows, 1 << num_qubits, 2)) @ [1, 1j]
    return states / np.linalg.norm(states, axis=1, keepdims=True)


def random_cotangents(num_rows, num_qubits):
    return np.random.default_rng(8).normal(size=(num_rows, 1 << num_qubits, 2)) @ [1, 1j]


@every_size
def test_final_states_are_those_of_qiskits_statevector_but_for_the_phase_of_the_program(make_engine, num_qubits, dtype):
    plan, operators, columns = question(num_qubits)
    actual = ask(make_engine(2), plan, operators, columns, NO_PAIRS, dtype=dtype, ends=Ends(final=True))
    circuit = circuit_of(num_qubits)
    expected = np.array([Statevector(circuit.assign_parameters(row[: circuit.num_parameters])).data for row in columns])
    order = np.zeros(1, np.int64)
    for bit in np.argsort(plan.wires):  # the circuit qubit of bit 0, of bit 1, ...
        order = np.concatenate([order, order | 1 << bit])
    found = plan.phase_of_circuit.factors(columns)[:, None] * actual.final_states
    np.testing.assert_allclose(found, expected[:, order], rtol=0, atol=TOLERANCE[dtype])
    assert actual.values.shape == (0,)


@every_size
def test_final_states_come_with_values_of_pairs(make_engine, num_qubits, dtype):
    plan, operators, columns = question(num_qubits)
    pairs = all_pairs(3, 2)
    actual = ask(make_engine(2), plan, operators, columns, pairs, dtype=dtype, ends=Ends(final=True))
    terms = operators.restrict(plan.wires)
    expected = [np.vdot(psi, apply_observable(terms, k, psi)).real for psi in actual.final_states for k in range(2)]
    np.testing.assert_allclose(actual.values, expected, atol=10 * TOLERANCE[dtype])


@every_size
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("from_states", [False, True], ids=["zero", "states"])
def test_cotangents_of_final_states_give_the_gradients_of_what_they_come_from(
    make_engine, num_qubits, method, from_states, dtype
):
    engine = make_engine(2)
    plan, operators, columns = question(num_qubits, any_start=from_states)
    initial, weights = random_states(3, num_qubits) if from_states else None, np.array([0.4, -1.2])
    psi = ask(engine, plan, operators, columns, NO_PAIRS, dtype=dtype, ends=Ends(initial, final=True)).final_states
    terms = operators.restrict(plan.wires)
    cotangents = np.array([2 * sum(w * apply_observable(terms, k, row) for k, w in enumerate(weights)) for row in psi])
    actual = ask(
        engine,
        plan,
        operators,
        columns,
        NO_PAIRS,
        gradient=True,
        dtype=dtype,
        method=method,
        ends=Ends(initial, from_states, final_cotangents=cotangents),
    )
    expected = ask(
        ReferenceEngine(),
        plan,
        operators,
        columns,
        all_pairs(3, 2),
        gradient=True,
        cotangents=np.tile(weights, 3),
        ends=Ends(initial, from_states),
    )
    scale = 4 * max(1.0, np.abs(expected.gradients).max(initial=0))
    np.testing.assert_allclose(actual.gradients, expected.gradients, rtol=0, atol=scale * TOLERANCE[dtype])
    if from_states:
        np.testing.assert_allclose(actual.state_gradients, expected.state_gradients, atol=4 * TOLERANCE[dtype])


@every_size
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("from_states", [False, True], ids=["zero", "states"])
def test_cotangents_that_depend_on_the_global_phase_give_the_gradients_of_the_reference(
    make_engine, num_qubits, method, from_states, dtype
):
    plan, operators, columns = question(num_qubits, any_start=from_states)
    initial = random_states(3, num_qubits) if from_states else None
    ends = Ends(initial, from_states, True, random_cotangents(3, num_qubits))
    actual, expected = (
        ask(engine, plan, operators, columns, NO_PAIRS, gradient=True, ends=ends, dtype=number_format, method=kept)
        for engine, number_format, kept in ((make_engine(2), dtype, method), (ReferenceEngine(), "complex128", REVERSE))
    )
    np.testing.assert_allclose(actual.final_states, expected.final_states, rtol=0, atol=TOLERANCE[dtype])
    for found, wanted in ((actual.gradients, expected.gradients), (actual.state_gradients, expected.state_gradients)):
        if wanted is not None:
            scale = 4 * max(1.0, np.abs(wanted).max(initial=0))
            np.testing.assert_allclose(found, wanted, rtol=0, atol=scale * TOLERANCE[dtype])


def test_gradients_of_cotangents_are_finite_differences_of_the_final_states():
    plan, operators, columns = question(4)
    cotangents, step = random_cotangents(3, 4), 1e-6

    def states(columns):
        return ask(ReferenceEngine(), plan, operators, columns, NO_PAIRS, ends=Ends(final=True)).final_states

    ends = Ends(final_cotangents=cotangents)
    found = ask(ReferenceEngine(), plan, operators, columns, NO_PAIRS, gradient=True, ends=ends).gradients
    for column in range(columns.shape[1]):
        moved = np.zeros_like(columns)
        moved[:, column] = step
        change = (states(columns + moved) - states(columns - moved)) / (2 * step)
        np.testing.assert_allclose(found[:, column], (cotangents.conj() * change).sum(axis=1).real, atol=1e-8)


def test_the_reference_engine_takes_and_gives_states_at_the_end():
    plan, operators, columns = question(4)
    engine, terms = ReferenceEngine(), operators.restrict(plan.wires)
    psi = ask(engine, plan, operators, columns, NO_PAIRS, ends=Ends(final=True)).final_states
    cotangents = np.array([2 * apply_observable(terms, 0, row) for row in psi])
    actual = ask(engine, plan, operators, columns, NO_PAIRS, gradient=True, ends=Ends(final_cotangents=cotangents))
    pairs = np.arange(3, dtype=np.int32), np.zeros(3, np.int32)
    expected = ask(engine, plan, operators, columns, pairs, gradient=True)
    np.testing.assert_allclose(actual.gradients, expected.gradients, atol=1e-12)


@every_size
def test_one_start_state_serves_all_rows(make_engine, num_qubits, dtype):
    plan, operators, columns = question(num_qubits, any_start=True)
    one, pairs = random_states(1, num_qubits), all_pairs(3, 2)
    shared, repeated = (
        ask(make_engine(2), plan, operators, columns, pairs, gradient=True, dtype=dtype, ends=Ends(states, True))
        for states in (one, np.repeat(one, 3, axis=0))
    )
    assert_agree(shared, repeated, dtype)
    np.testing.assert_array_equal(shared.state_gradients, repeated.state_gradients)


@every_size
def test_gradients_of_final_states_do_not_depend_on_threads_bit_for_bit(make_engine, num_qubits, dtype):
    plan, operators, columns = question(num_qubits)
    ends = Ends(final=True, final_cotangents=random_states(3, num_qubits))
    first, again = (
        ask(make_engine(threads), plan, operators, columns, NO_PAIRS, gradient=True, dtype=dtype, ends=ends)
        for threads in (1, 2)
    )
    assert np.array_equal(first.gradients, again.gradients)
    assert np.array_equal(first.final_states, again.final_states)
