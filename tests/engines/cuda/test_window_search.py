# SPDX-License-Identifier: Apache-2.0
"""The search for windows: its order of runs, its cycles, and the cost of its sequences."""

import numpy as np
import pytest
from circuits import circuits
from hypothesis import given, settings
from hypothesis import strategies as st
from layered_circuits import hardware_efficient
from qiskit.circuit import ParameterVector, QuantumCircuit

from qiskit_fused.engines.cuda import tiling, window_search
from qiskit_fused.engines.cuda.tiling import make_windows
from qiskit_fused.engines.cuda.window_search import LONGEST_SWEEP, search_windows
from qiskit_fused.fusion.dense_gates import rotations_and_terms
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.lowering.lower import lower


def fuse(circuit):
    return rotations_and_terms(fuse_program(lower(circuit)))


def brickwork(num_qubits, num_layers):
    """Return a circuit of layers, each of RX on every qubit and CZ on every second pair of neighbours."""
    angles = iter(ParameterVector("a", num_qubits * num_layers))
    circuit = QuantumCircuit(num_qubits)
    for layer in range(num_layers):
        for qubit in range(num_qubits):
            circuit.rx(next(angles), qubit)
        for qubit in range(layer % 2, num_qubits - 1, 2):
            circuit.cz(qubit, qubit + 1)
    return circuit


def irregular(num_qubits, num_gates):
    rng = np.random.default_rng(5)
    circuit = QuantumCircuit(num_qubits)
    for angle in ParameterVector("a", num_gates):
        first, second = rng.choice(num_qubits, 2, replace=False).tolist()
        circuit.rx(angle, first)
        circuit.cz(first, second)
    return circuit


def search(fused, tile_qubits, register_qubits=3):
    candidates = np.array(tiling._candidates(fused.num_qubits, tile_qubits))
    arrangements = [tiling.arrangement_of(bit, tile_qubits, register_qubits) for bit in range(tile_qubits)]
    return search_windows(tiling._Order(fused).run_order(), candidates, np.array(arrangements))


@settings(max_examples=20, deadline=None)
@given(circuit=circuits(max_qubits=7, max_gates=20), data=st.data())
def test_a_run_is_ready_in_the_search_if_no_term_before_it_waits(circuit, data):
    fused = fuse(circuit)
    order = tiling._Order(fused)
    runs, frontier = order.run_order(), tiling._Frontier.start(order)
    everywhere = range(fused.num_qubits)
    for _ in range(fused.num_runs):
        frontier.execute_terms(order, everywhere)
        ready = [q for q in everywhere if not frontier.waiting[q] and frontier.done[q] < len(order.runs[q])]
        done = np.array(frontier.done)
        assert ready == np.flatnonzero((runs.needed[runs.first + done] <= done).all(axis=1)).tolist()
        frontier.do_run(order, data.draw(st.sampled_from(ready)))
    assert frontier.done == runs.counts.tolist()


@pytest.mark.parametrize(
    ("circuit", "period"),
    [
        (hardware_efficient(6, 12, is_ring=True), [1] * 6),
        (hardware_efficient(6, 12), [1] * 6),
        (brickwork(6, 12), [1, 2, 2, 2, 2, 1]),  # qubits 0 and 5 merge the rotations of two layers
        (irregular(6, 60), None),
        (hardware_efficient(6, 2), None),
    ],
    ids=["ring", "ladder", "brickwork", "irregular", "too short"],
)
def test_the_period_of_a_program_is_found(circuit, period):
    found = tiling._Order(fuse(circuit)).run_order().period()
    assert (found is None and period is None) or found.tolist() == period


@pytest.mark.parametrize(
    "circuit",
    [hardware_efficient(8, 60, is_ring=True), brickwork(8, 60), irregular(8, 400)],
    ids=["ring", "bricks", "no"],
)
def test_a_search_executes_all_runs_in_sweeps_of_few_stages(circuit):
    fused = fuse(circuit)
    sweeps, windows = search(fused, 5), make_windows(fused, 5, 3)
    assert all(steps == sum(bool(step.runs) for step in window.steps) for (_, steps), window in zip(sweeps, windows))
    assert sum(len(step.runs) for window in windows[: len(sweeps)] for step in window.steps) == fused.num_runs
    for window in windows:
        arrangements = [
            {tiling.arrangement_of(window.qubits.index(fused.run_qubit[run]), 5, 3) for run in step.runs}
            for step in window.steps
        ]
        assert sum(map(len, arrangements)) <= LONGEST_SWEEP


def test_equal_layers_are_a_cycle_of_sweeps_and_any_number_of_layers_takes_the_same_search(monkeypatch):
    calls, extend = [], window_search._Search._extend
    monkeypatch.setattr(window_search._Search, "_extend", lambda *given: calls.append(0) or extend(*given))
    search(fuse(hardware_efficient(10, 60, is_ring=True)), 6)
    num_calls = len(calls)
    sweeps = search(fuse(hardware_efficient(10, 600, is_ring=True)), 6)
    assert len(calls) < 2.2 * num_calls < 2 * 600
    middle = sweeps[20:-20]
    assert len(middle) > 100 and any(middle[period:] == middle[:-period] for period in range(1, 5))


def test_the_found_windows_cost_less_than_windows_that_take_the_most_steps():
    fused = fuse(hardware_efficient(10, 20, is_ring=True))
    order, candidates = tiling._Order(fused), tiling._candidates(10, 6)
    frontier, deepest = tiling._Frontier.start(order), []
    while not frontier.is_end(order):
        qubits = max(candidates, key=lambda one: sum(len(s.runs) for s in tiling._advance(order, frontier, one).steps))
        advance = tiling._advance(order, frontier, qubits)
        frontier = advance.frontier
        deepest.append(tiling.Window(qubits, advance.steps))

    def cost(windows):
        steps = [(window, step) for window in windows for step in window.steps if step.runs]
        stages = sum(
            len({tiling.arrangement_of(window.qubits.index(fused.run_qubit[run]), 6, 3) for run in step.runs})
            for window, step in steps
        )
        return 60 * len(windows) + 40 * len(steps) + 19 * stages

    assert cost(make_windows(fused, 6, 3)) < 0.9 * cost(deepest)


def test_programs_without_rotations_have_windows_for_their_terms():
    circuit = QuantumCircuit(7)
    for qubit in range(6):
        circuit.cz(qubit, qubit + 1)
    fused = fuse(circuit)
    windows = make_windows(fused, 5, 3)
    assert not fused.num_runs
    assert sum(len(step.terms) for window in windows for step in window.steps) == 6
