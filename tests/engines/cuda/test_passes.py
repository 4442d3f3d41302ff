# SPDX-License-Identifier: Apache-2.0
"""FusedProgram -> passes: the records, replayed with NumPy, give the circuit's final state, and the passes are few.

`replay` follows the records as kernels/cuda/records.cuh describes them, on the whole state, without tiles or threads.
"""

import time
from bisect import bisect_left

import numpy as np
import pytest
from circuits import circuits
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit.circuit import ParameterVector, QuantumCircuit

from qiskit_fused.common.bits import bits_of
from qiskit_fused.engines.cuda import tiling
from qiskit_fused.engines.cuda.passes import cover, make_passes
from qiskit_fused.engines.cuda.records import ExtraKind, Source
from qiskit_fused.engines.cuda.tiling import LOW_QUBITS, make_windows
from qiskit_fused.engines.cuda.value_layout import place_slots
from qiskit_fused.engines.reference import final_state, parity
from qiskit_fused.fusion.dense_gates import rotations_and_terms
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.lowering.lower import lower
from qiskit_fused.program.program import OpKind

pytestmark = pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")

PAULIS = {OpKind.RX: [1, 0, 0], OpKind.RY: [0, 1, 0], OpKind.RZ: [0, 0, 1]}


def leaf_quaternion(plan, leaf, columns):
    """Return (a, b, c, d) of the matrix a - i (b X + c Y + d Z)."""
    kind, column = plan.leaf_kind[leaf], plan.leaf_column[leaf]
    if kind == OpKind.SU2:
        return plan.leaf_quaternion[leaf]
    if kind == OpKind.RV:
        vector = columns[column : column + 3]
    else:
        varying = plan.leaf_coefficient[leaf] * columns[column] if column >= 0 else 0.0
        vector = (varying + plan.leaf_offset[leaf]) * np.array(PAULIS[kind])
    length = np.linalg.norm(vector)
    return np.array([np.cos(length / 2), *(np.sinc(length / 2 / np.pi) / 2 * vector)])


def run_angles(plan, run, columns):
    """Return lambda, a and phi of Rz(phi) Ry(2 a) Rz(lambda)."""
    matrix = np.eye(2)
    for leaf in range(*plan.run_begin[run : run + 2]):
        a, b, c, d = leaf_quaternion(plan, leaf, columns)
        matrix = np.array([[a - 1j * d, -c - 1j * b], [c - 1j * b, a + 1j * d]]) @ matrix
    (alpha, _), (beta, _) = matrix
    return -np.angle(alpha) - np.angle(beta), np.arctan2(abs(beta), abs(alpha)), np.angle(beta) - np.angle(alpha)


def generator(record, index):
    """Return g of a record's masks at indices (uint64)."""
    care, value, sign = (np.uint64(record[name]) for name in ("care", "value", "sign"))
    return ((index & care) == value) * (1.0 - 2.0 * parity(index & sign))


def piece_argument(passes, slots, piece, index, angle_of):
    """Return the argument of the factor that a piece gives each amplitude, by local index (uint64)."""
    t, r, s = passes.tile_qubits, passes.register_qubits, int(piece["arrangement"])
    registers = np.uint64(((1 << r) - 1) << s)
    without = index & ~registers

    def of_items(first, end, index):
        items = slots.items[piece[first] : piece[end]]
        return sum(item["coefficient"] * angle_of(item) * generator(item, index) for item in items)

    argument = of_items("first_thread_item", "first_register_item", without & np.uint64((1 << t) - 1))
    argument = argument + np.pi * (
        int(piece["register_signs"]) >> ((index & registers) >> np.uint64(s)).astype(int) & 1
    )
    extras = slots.extras[piece["first_extra"] : piece["end_extra"]]
    for b in range(r):
        one = np.uint64(1 << (s + b))
        ratio = of_items("first_register_item", "end_item", one) + np.pi * parity(without & piece["signs"][b])
        for extra in extras[(extras["kind"] == ExtraKind.REGISTER) & (extras["bit"] == b)]:
            ratio = ratio + extra["coefficient"] * angle_of(extra) * ((without & extra["care"]) == extra["value"])
        argument = argument + ratio * ((index & one) != 0)
    for extra in extras[extras["kind"] == ExtraKind.THREAD]:
        argument = argument + extra["coefficient"] * angle_of(extra) * ((without & extra["care"]) == extra["value"])
    for extra in extras[extras["kind"] == ExtraKind.TERM]:
        argument = argument + extra["coefficient"] * angle_of(extra) * generator(extra, index)
    return argument


def replay(plan, passes, slots, columns):
    """Return the final state (2^N,) and how often each run was executed."""
    num_bits = passes.num_address_bits
    runs = [run_angles(plan, run, columns) for run in slots.run_order]  # in the order of the slots
    terms = [
        plan.term_offset[term] + (plan.term_coefficient[term] * columns[plan.term_column[term]] if varying else 0.0)
        for term, varying in zip(slots.term_order, (plan.term_column >= 0)[slots.term_order])
    ]

    def angle_of(record):
        if record["source"] == Source.TERM:
            return terms[record["slot"]]
        return runs[record["slot"]][0 if record["source"] == Source.RUN_IN else 2]

    executed = np.zeros(plan.num_runs, dtype=int)
    index = np.arange(1 << num_bits, dtype=np.uint64)
    psi = np.zeros(len(index), dtype=complex)
    start = [1.0] if plan.initial_state is None else plan.initial_state
    psi[: len(start)] = start
    for window, sweep in zip(passes.windows, passes.passes):
        high_end = window.high + passes.tile_qubits - window.low
        held = [*range(window.low), *range(window.high, high_end)]
        places = [*held, *range(window.low, window.high), *range(high_end, num_bits)]
        assert sorted(places) == list(range(num_bits))
        address = sum((index >> np.uint64(bit) & np.uint64(1)) << np.uint64(place) for bit, place in enumerate(places))
        local = psi[address]
        for stage in slots.stages[sweep.stages]:
            if stage["piece"] >= 0:
                piece = slots.pieces[stage["piece"]]
                assert piece["arrangement"] == stage["arrangement"]
                local = local * np.exp(1j * piece_argument(passes, slots, piece, index, angle_of))
            for b in bits_of(int(stage["rotate"])):
                assert b < passes.register_qubits
                executed[slots.run_order[stage["slot"][b]]] += 1
                _, a, _ = runs[stage["slot"][b]]
                x, y = np.moveaxis(local.reshape(-1, 2, 1 << (stage["arrangement"] + b)), 1, 0)
                local = np.stack([np.cos(a) * x - np.sin(a) * y, np.sin(a) * x + np.cos(a) * y], axis=1).reshape(-1)
        psi[address] = local
    return psi, executed


@settings(max_examples=60, deadline=None)
@given(
    circuit=circuits(max_qubits=7, max_gates=14), tile=st.sampled_from([(4, 2), (4, 3), (5, 4), (6, 3)]), data=st.data()
)
def test_the_records_replayed_with_numpy_are_the_circuit(circuit, tile, data):
    program = lower(circuit)
    columns = program.columns(np.random.default_rng(0).uniform(-2, 2, (1, program.num_parameters)))[0]
    plan = rotations_and_terms(fuse_program(program))
    passes = make_passes(plan, *tile)
    varies = np.array(data.draw(st.lists(st.booleans(), min_size=len(columns), max_size=len(columns))), dtype=bool)
    psi, executed = replay(plan, passes, place_slots(plan, passes, varies), columns)
    assert (executed == 1).all()
    assert not psi[1 << plan.num_qubits :].any()
    # A swap moves amplitudes in the reference engine, but only renames qubits in a plan.
    index = np.arange(1 << plan.num_qubits)
    moved = np.zeros_like(index)
    for start, end in zip(program.wires, plan.wires):
        moved |= (index >> end & 1) << start if start >= 0 else 0
    overlap = np.vdot(final_state(program, columns)[moved], psi[: len(index)])
    np.testing.assert_allclose(abs(overlap), 1, atol=1e-11)


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(circuit=circuits(max_qubits=8, max_gates=20), tile_qubits=st.integers(4, 8))
def test_windows_run_everything_once_and_in_an_order_that_the_plan_allows(circuit, tile_qubits):
    plan = rotations_and_terms(fuse_program(lower(circuit)))
    runs_of = [np.flatnonzero(plan.run_qubit == qubit).tolist() for qubit in range(plan.num_qubits)]
    members = [bits_of(int(support)) for support in plan.term_care | plan.term_sign]
    layers_of = [plan.run_layer[runs].tolist() for runs in runs_of]
    phases = plan.term_phase.tolist()
    runs_before = [{q: bisect_left(layers_of[q], phase) for q in qubits} for phase, qubits in zip(phases, members)]
    done, executed, ended = [0] * plan.num_qubits, set(), set()

    for window in make_windows(plan, tile_qubits, 3):
        assert list(window.qubits) == sorted(set(window.qubits))
        assert len(window.qubits) == min(tile_qubits, plan.num_qubits)
        for step in window.steps:
            for term in step.terms:
                assert term not in executed
                assert set(members[term]) & set(window.qubits)
                assert {qubit: done[qubit] for qubit in members[term]} == runs_before[term]
                executed.add(term)
            for run in step.runs:
                qubit = plan.run_qubit[run]
                assert qubit in window.qubits and runs_of[qubit][done[qubit]] == run
                assert all(
                    term in executed for term, needs in enumerate(runs_before) if needs.get(qubit, 99) <= done[qubit]
                )
                done[qubit] += 1
            for qubit in step.endings:
                assert qubit in window.qubits and qubit not in ended and done[qubit] == len(runs_of[qubit])
                ended.add(qubit)
    assert done == [len(runs) for runs in runs_of]
    assert executed == set(range(len(members)))
    assert ended == {qubit for qubit in range(plan.num_qubits) if runs_of[qubit]}


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(circuit=circuits(max_qubits=8, max_gates=20), tile_qubits=st.integers(4, 8))
def test_a_frontier_counts_at_any_time_what_its_runs_and_terms_say(circuit, tile_qubits):
    order = tiling._Order(plan := rotations_and_terms(fuse_program(lower(circuit))))
    frontier = tiling._Frontier.start(order)
    candidates = tiling._candidates(plan.num_qubits, tile_qubits)
    for number in range(2 * plan.num_layers + 2):
        before = frontier.copy()
        frontier = tiling._advance(order, frontier, candidates[number % len(candidates)]).frontier
        for qubit in range(plan.num_qubits):
            terms = order.terms[qubit][frontier.done[qubit]]
            assert frontier.waiting[qubit] == sum(not frontier.executed[term] for term in terms)
            assert before.done[qubit] <= frontier.done[qubit] <= len(order.runs[qubit])
        for term, members in enumerate(order.qubits):
            behind = [any(term in terms for terms in order.terms[q][: frontier.done[q] + 1]) for q in members]
            assert frontier.arrived[term] == sum(behind)
            assert all(behind) or not frontier.executed[term]
        assert all(frontier.done[qubit] == len(order.runs[qubit]) for qubit in frontier.ended)


def layers(num_qubits, num_layers, ring):
    """Return a circuit of layers, each of RY and RZ on every qubit and CZ between neighbours."""
    angles = iter(ParameterVector("a", 2 * num_qubits * num_layers))
    circuit = QuantumCircuit(num_qubits)
    for _ in range(num_layers):
        for qubit in range(num_qubits):
            circuit.ry(next(angles), qubit)
            circuit.rz(next(angles), qubit)
        for qubit in range(num_qubits if ring else num_qubits - 1):
            circuit.cz(qubit, (qubit + 1) % num_qubits)
    return circuit


# The largest numbers of passes, steps and stages for 100 layers with tiles of 12 qubits, by number of qubits and shape
# of the layers.
MOST = {
    (12, "ladder"): (1, 101, 301), (16, "ladder"): (37, 195, 505), (20, "ladder"): (52, 205, 590),
    (24, "ladder"): (62, 340, 830), (12, "ring"): (1, 101, 301), (16, "ring"): (40, 190, 525),
    (20, "ring"): (52, 203, 605), (24, "ring"): (76, 330, 830),
}  # fmt: skip


@pytest.mark.parametrize(("num_qubits", "shape"), MOST)
def test_a_pass_goes_many_layers_deep(num_qubits, shape):
    fused = fuse_program(lower(layers(num_qubits, 100, shape == "ring")))
    windows = make_windows(fused, 12, 4)
    num_steps = sum(len(window.steps) for window in windows)
    counts = len(windows), num_steps, len(make_passes(fused, 12, 4).stages)
    assert all(count <= most for count, most in zip(counts, MOST[num_qubits, shape])), counts
    assert all(set(range(LOW_QUBITS)) <= set(window.qubits) for window in windows)
    assert all(len(window.qubits) == 12 for window in windows)


@pytest.mark.slow
def test_20_qubits_and_1000_layers_are_cut_into_passes_in_seconds():
    plan = fuse_program(lower(layers(20, 1000, ring=True)))
    started = time.perf_counter()
    passes = make_passes(plan, 12, 4)
    assert time.perf_counter() - started < 10
    assert len(passes.passes) < 0.51 * 1000


def check_cover(groups, bits, tile_qubits, register_qubits):
    assert sorted(bit for _, covered in groups for bit in covered) == sorted(bits)
    for first, covered in groups:
        assert 0 <= first <= tile_qubits - register_qubits
        assert covered and all(first <= bit < first + register_qubits for bit in covered)


@pytest.mark.parametrize("register_qubits", [2, 3, 4])
@pytest.mark.parametrize("tile_qubits", range(4, 13))
def test_full_layers_go_through_the_fewest_arrangements_to_and_fro(tile_qubits, register_qubits):
    arrangement, before = tile_qubits - register_qubits, None
    for _ in range(4):
        groups = cover(list(range(tile_qubits)), arrangement, tile_qubits, register_qubits)
        check_cover(groups, range(tile_qubits), tile_qubits, register_qubits)
        arrangements = [first for first, _ in groups]
        assert len(groups) == -(-tile_qubits // register_qubits)
        assert arrangements[0] == arrangement, "what is in registers comes first"
        assert arrangements in (sorted(arrangements), sorted(arrangements, reverse=True))
        assert before is None or arrangements[-1] == before[0]
        arrangement, before = arrangements[-1], arrangements


@given(st.data())
def test_any_bits_are_rotated_in_aligned_arrangements_the_current_one_first(data):
    r = data.draw(st.integers(2, 4))
    t = data.draw(st.integers(r, 12))
    arrangement = data.draw(st.integers(0, t - r))
    bits = data.draw(st.lists(st.integers(0, t - 1), unique=True))
    groups = cover(bits, arrangement, t, r)
    check_cover(groups, bits, t, r)
    arrangements = [first for first, _ in groups]
    assert len(set(arrangements)) == len(arrangements)
    assert all(first % r == 0 or first == t - r for first in arrangements)
    assert arrangement not in arrangements or arrangements[0] == arrangement


@settings(max_examples=60, deadline=None)
@given(circuit=circuits(max_qubits=6, max_gates=14), data=st.data())
def test_slots_of_what_all_rows_share_come_first_and_tables_lie_side_by_side(circuit, data):
    plan = rotations_and_terms(fuse_program(lower(circuit)))
    passes, num_columns = make_passes(plan, 4, 3), plan.program.num_columns
    varies = np.array(data.draw(st.lists(st.booleans(), min_size=num_columns, max_size=num_columns)), dtype=bool)
    slots = place_slots(plan, passes, varies)
    (record,) = slots.record

    def varies_with(kinds, columns):
        width = [3 if kind == OpKind.RV else 1 for kind in kinds]
        return any(column >= 0 and varies[column : column + k].any() for column, k in zip(columns, width))

    run_varies = [
        varies_with(plan.leaf_kind[begin:end], plan.leaf_column[begin:end])
        for begin, end in zip(plan.run_begin, plan.run_begin[1:])
    ]
    term_varies = [varies_with([OpKind.TERM], [column]) for column in plan.term_column]
    for name, of, order in (("runs", run_varies, slots.run_order), ("terms", term_varies, slots.term_order)):
        assert sorted(order) == list(range(len(of)))
        assert [of[k] for k in order] == sorted(of)
        assert (record[f"shared_{name}"], record[f"varying_{name}"]) == (of.count(False), of.count(True))

    # A piece with a part that varies has its own tables for each row.
    piece_varies = np.zeros(len(slots.pieces), dtype=bool)
    for parts, piece in ((slots.items, passes.item_piece), (slots.extras, passes.extra_piece)):
        shared = np.where(parts["source"] == Source.TERM, record["shared_terms"], record["shared_runs"])
        piece_varies[piece[parts["slot"] >= shared]] = True
    assert (piece_varies[slots.piece_order] == np.sort(piece_varies)).all()
    assert (slots.num_shared_pieces, slots.num_varying_pieces) == ((~piece_varies).sum(), piece_varies.sum())
    ends = slots.pieces["table"] + passes.piece_entries
    assert (slots.pieces["table"][slots.piece_order] == np.append(0, ends[slots.piece_order])[: len(ends)]).all()
    assert ends.max(initial=0) == record["shared_entries"] + record["varying_entries"]
    assert (ends[~piece_varies] <= record["shared_entries"]).all()
    assert (slots.pieces["table"][piece_varies] >= record["shared_entries"]).all()
