# SPDX-License-Identifier: Apache-2.0
"""Schedules: every gate runs once, in order, where its targets are local, and with few exchanges."""

import numpy as np
import pytest
from circuits import circuits
from engine_cases import dense_circuit, random_circuit
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector

from qiskit_fused.common.bits import bits_of
from qiskit_fused.distributed.schedule import make_schedule
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.lowering.lower import lower

pytestmark = pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")


def fused_of(circuit):
    return fuse_program(lower(circuit), None)


def layered(num_qubits, num_layers, pairs):
    """Return layers of RX, RY, RZ on all qubits and CZ on pairs of qubits."""
    circuit, angles = QuantumCircuit(num_qubits), iter(ParameterVector("p", 3 * num_qubits * num_layers))
    for _ in range(num_layers):
        for qubit in range(num_qubits):
            for rotate in (circuit.rx, circuit.ry, circuit.rz):
                rotate(next(angles), qubit)
        for pair in pairs:
            circuit.cz(*pair)
    return circuit


def ring(num_qubits):
    return [(qubit, (qubit + 1) % num_qubits) for qubit in range(num_qubits)]


def assert_is_right(fused, schedule):
    """Assert that segments hold every gate once, that targets are local, and that no gate overtakes an earlier gate."""
    n, local = fused.num_qubits, schedule.num_local
    kinds = (("runs", fused.num_runs), ("terms", len(fused.term_phase)), ("dense", len(fused.dense_layer)))
    segment_of = {}
    for name, count in kinds:
        parts = [getattr(segment, name) for segment in schedule.segments]
        assert sorted(np.concatenate(parts).tolist()) == list(range(count))
        segment_of[name] = np.empty(count, int)
        for number, part in enumerate(parts):
            segment_of[name][part] = number
    moves = [(layer, 1 << qubit, 0) for layer, qubit in zip(fused.run_layer.tolist(), fused.run_qubit.tolist())]
    moves += zip(fused.dense_layer.tolist(), fused.dense_targets.tolist(), fused.dense_care.tolist())
    numbers = [*segment_of["runs"], *segment_of["dense"]]
    for (_, targets, _), number in zip(moves, numbers):
        assert all(schedule.segments[number].places[qubit] < local for qubit in bits_of(targets))
    steps = [(2 * layer + 1, targets | care, number) for (layer, targets, care), number in zip(moves, numbers)]
    supports = (fused.term_care | fused.term_sign).tolist()
    steps += [(2 * phase, *rest) for phase, *rest in zip(fused.term_phase.tolist(), supports, segment_of["terms"])]
    for time, qubits, number in steps:
        for other_time, other_qubits, other_number in steps:
            if time < other_time and qubits & other_qubits:
                both_are_terms = time % 2 == other_time % 2 == 0
                assert number <= other_number or both_are_terms
    for before, after, exchange in zip(schedule.segments, schedule.segments[1:], schedule.exchanges):
        moved = before.places.copy()
        for rank_bit, local_bit in zip(exchange.rank_bits, exchange.local_bits):
            first, second = np.flatnonzero(moved == local + rank_bit)[0], np.flatnonzero(moved == local_bit)[0]
            moved[first], moved[second] = moved[second], moved[first]
        np.testing.assert_array_equal(moved, after.places)
    for segment in schedule.segments:
        assert sorted(segment.places.tolist()) == list(range(n))


@settings(max_examples=60, deadline=None)
@given(circuit=circuits(max_qubits=7, max_gates=14), num_global=st.integers(0, 3))
def test_every_gate_runs_once_in_order_where_its_targets_are_local(circuit, num_global):
    fused = fused_of(circuit)
    widest = max([1, *np.bitwise_count(fused.dense_targets).tolist()])
    num_global = max(0, min(num_global, fused.num_qubits - widest))
    if fused.num_qubits:
        assert_is_right(fused, make_schedule(fused, num_global))


@pytest.mark.parametrize("num_global", [1, 2, 3])
def test_schedules_of_many_gates_are_right(num_global):
    for fused in map(fused_of, (random_circuit(8, 80, seed=num_global), dense_circuit(8, 3, num_controls=2))):
        assert_is_right(fused, make_schedule(fused, num_global))


def test_a_ring_of_34_qubits_runs_many_layers_between_two_exchanges():
    fused = fused_of(layered(34, 100, ring(34)))
    schedule = make_schedule(fused, 3)
    assert len(schedule.exchanges) == 7
    assert sum(exchange.moved for exchange in schedule.exchanges) <= 7 * 0.875


def test_numbers_of_qubits_do_not_matter_for_a_ring():
    order = np.random.default_rng(0).permutation(34).tolist()
    fused = fused_of(layered(34, 100, [(order[first], order[second]) for first, second in ring(34)]))
    assert len(make_schedule(fused, 3).exchanges) == 7


def test_diagonal_gates_need_no_exchange():
    circuit = QuantumCircuit(6)
    circuit.rzz(0.3, 0, 5)
    circuit.ccz(0, 1, 5)
    schedule = make_schedule(fused_of(circuit), 2)
    assert len(schedule.segments) == 1 and not schedule.exchanges


def test_one_rank_has_one_segment():
    schedule = make_schedule(fused_of(random_circuit(6, 40, seed=0)), 0)
    assert len(schedule.segments) == 1 and schedule.num_local == 6


def test_an_exchange_of_several_qubits_moves_less_than_several_exchanges():
    fused = fused_of(layered(8, 12, ring(8)))
    assert {len(exchange.rank_bits) for exchange in make_schedule(fused, 3).exchanges} <= {1, 2, 3}
    assert all(0.5 <= exchange.moved <= 0.875 for exchange in make_schedule(fused, 3).exchanges)


def test_the_last_segment_keeps_qubits_local_that_observables_flip():
    circuit = layered(6, 1, [])
    support = np.array([2, 2, 2, 1, 2, 2], np.uint8)
    fused = fuse_program(lower(circuit), support)
    places = make_schedule(fused, 1).segments[-1].places
    assert places[fused.wires[3]] == 5


@pytest.mark.parametrize(
    ("circuit", "num_global", "text"),
    [
        (layered(3, 1, []), 3, "the observables see 3 qubits, so 8 ranks hold 0 qubits each, and each rank needs 1"),
        (dense_circuit(5, 3), 3, "a dense gate acts on 3 qubits; use at most 4 ranks"),
    ],
)
def test_ranks_that_are_too_small_are_an_error_that_names_the_largest_number(circuit, num_global, text):
    with pytest.raises(ValueError, match=text):
        make_schedule(fused_of(circuit), num_global)
