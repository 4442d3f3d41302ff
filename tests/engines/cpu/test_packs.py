# SPDX-License-Identifier: Apache-2.0
"""Packs: the CPU engine evaluates many rows of few qubits side by side, one row in each number of a vector."""

import numpy as np
import pytest
from asking import Ends, ask, make_request, most_bytes
from circuits import circuits
from engine_cases import (
    TOLERANCE,
    all_pairs,
    assert_agree,
    dense_circuit,
    full_graph,
    plan_of,
    random_circuit,
    random_observables,
    total_z,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from layered_circuits import hardware_efficient, rx_ry_layers
from qiskit.circuit import ParameterVector, QuantumCircuit
from qiskit.circuit.library import PauliEvolutionGate, ZGate, real_amplitudes
from qiskit.quantum_info import SparsePauliOp

from qiskit_fused import _cpu
from qiskit_fused.common.caches import release_memory
from qiskit_fused.compilation.observables import coerce_observables
from qiskit_fused.engines.cpu.engine import CpuEngine
from qiskit_fused.engines.cpu.memory import Counts, Footprint
from qiskit_fused.engines.reference import ReferenceEngine
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.lowering.lower import lower
from qiskit_fused.program.outcomes import Outcomes

pytestmark = pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")

NUM_ROWS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 64, 1000]
WIDEST = 16  # rows of the widest pack: complex64 with AVX-512
NO_PAIRS = np.zeros(0, np.int32), np.zeros(0, np.int32)


def circuit_of(num_qubits, seed):
    """Return a random circuit; from 9 qubits on, one with angles on one qubit each, as packs of so many qubits need."""
    if num_qubits == 1:
        return full_graph(1)
    if num_qubits < 9:
        return random_circuit(num_qubits, 15, seed)
    circuit = hardware_efficient(num_qubits, 1)
    circuit.ccz(0, num_qubits - 2, num_qubits - 1)
    circuit.cp(0.3, 1, num_qubits - 1)
    for qubit, angle in enumerate(ParameterVector("b", num_qubits)):
        circuit.rx(angle, qubit)
    return circuit


def some_qubits(num_rows):
    """Return numbers of qubits; packs of 9 and 10 qubits need four times as many rows as the widest pack has."""
    return (3, 6) if num_rows > 100 else (1, 2, 4, 5, 8, 9, 10) if num_rows >= 4 * WIDEST else (1, 2, 4, 5, 8)


def rows_with(plan, num_rows, own, seed=0):
    """Return columns: a parameter marked in ``own`` differs between rows, the others are equal. Row 0 has zeros."""
    rng = np.random.default_rng(seed)
    values = np.broadcast_to(rng.uniform(-3, 3, plan.program.num_parameters), (num_rows, plan.program.num_parameters))
    values = np.where(own, rng.uniform(-3, 3, values.shape), values)
    values[0] = np.where(own, 0.0, values[0])
    return plan.program.columns(values)


def shifted_rows(plan, num_rows):
    """Return columns: each row differs from row 0 in one column, as derivatives by shift rules need them."""
    rng, count = np.random.default_rng(num_rows), plan.program.num_columns
    columns = np.repeat(plan.program.columns(rng.uniform(-3, 3, (1, plan.program.num_parameters))), num_rows, axis=0)
    columns[np.arange(1, num_rows), np.arange(num_rows - 1) * count // num_rows] += rng.uniform(1, 2, num_rows - 1)
    return columns


def some_rows(num_rows):
    """Return the rows that the reference engine evaluates too: the first and last ones, and those at ends of packs."""
    return np.unique(
        np.clip([0, 1, 3, 4, 7, 8, 15, 16, 17, num_rows // 2, num_rows - 2, num_rows - 1], 0, num_rows - 1)
    )


def assert_rows_agree(plan, operators, columns, dtype, *, weights=None, imaginary=False, num_threads=1):
    """Assert that values and gradients of some rows agree with the reference engine."""
    num_rows, count = len(columns), len(operators)
    options = {"gradient": True, "imaginary": imaginary}
    actual = ask(
        CpuEngine(num_threads), plan, operators, columns, all_pairs(num_rows, count),
        cotangents=weights, dtype=dtype, **options,
    )  # fmt: skip
    chosen = some_rows(num_rows)
    pairs = (chosen[:, None] * count + np.arange(count)).ravel()
    expected = ask(
        ReferenceEngine(), plan, operators, columns[chosen], all_pairs(len(chosen), count),
        cotangents=None if weights is None else weights[pairs], **options,
    )  # fmt: skip
    actual.values = actual.values[pairs]
    actual.gradients = actual.gradients[pairs if weights is None else chosen]
    assert_agree(actual, expected, dtype)


def states_plan_of(circuit, any_start=False):
    """Return the fused program of a circuit for final states, whose rows start in |0...0> or in given states."""
    program = lower(circuit)
    return fuse_program(program.from_any_state() if any_start else program, None)


def random_ends(plan, num_rows):
    """Return a request for final states and, from random cotangents of them, for gradients."""
    states = np.random.default_rng(num_rows).normal(size=(2, num_rows, 1 << plan.num_qubits, 2)) @ [1, 1j]
    initial = states[0] / np.linalg.norm(states[0], axis=1, keepdims=True) if plan.takes_states else None
    return Ends(initial, plan.takes_states, True, states[1])


def assert_states_agree(plan, columns, dtype, num_threads=1):
    """Assert that final states and gradients of their cotangents agree with the reference engine, in some rows."""
    ends, chosen = random_ends(plan, len(columns)), some_rows(len(columns))
    operators = coerce_observables([]).operators
    few = ends._replace(
        initial=None if ends.initial is None else ends.initial[chosen], final_cotangents=ends.final_cotangents[chosen]
    )
    question = {"gradient": True, "dtype": dtype}
    actual = ask(CpuEngine(num_threads), plan, operators, columns, NO_PAIRS, ends=ends, **question)
    expected = ask(ReferenceEngine(), plan, operators, columns[chosen], NO_PAIRS, ends=few, gradient=True)
    for name in ("final_states", "gradients", "state_gradients"):
        wanted = getattr(expected, name)
        if wanted is None:
            continue
        scale = 1.0 if name == "final_states" else 4 * max(1.0, np.abs(wanted).max(initial=0))
        found = getattr(actual, name)[chosen]
        np.testing.assert_allclose(found, wanted, rtol=0, atol=scale * TOLERANCE[dtype], err_msg=name)
    alone = ask(
        CpuEngine(num_threads), plan, operators, columns, NO_PAIRS, ends=Ends(ends.initial, final=True), dtype=dtype
    )
    np.testing.assert_array_equal(alone.final_states, actual.final_states)


@pytest.mark.parametrize("num_rows", NUM_ROWS)
@pytest.mark.parametrize("own", ["all", "some", "none"])
def test_any_number_of_rows_agrees_with_the_reference(num_rows, own, dtype):
    for num_qubits in some_qubits(num_rows):
        circuit = circuit_of(num_qubits, num_rows)
        plan, operators = plan_of(circuit, random_observables(num_qubits, num_rows))
        marks = {"all": True, "some": np.arange(plan.program.num_parameters) % 3 == 0, "none": False}
        columns = rows_with(plan, num_rows, marks[own])
        assert_rows_agree(plan, operators, columns, dtype, num_threads=2)
        weights = np.random.default_rng(1).normal(size=2 * num_rows)
        assert_rows_agree(plan, operators, columns, dtype, weights=weights, num_threads=2)


@pytest.mark.parametrize("num_rows", NUM_ROWS)
@pytest.mark.parametrize("any_start", [False, True], ids=["zero", "states"])
def test_states_at_the_ends_of_any_number_of_rows_agree_with_the_reference(num_rows, any_start, dtype):
    for num_qubits in some_qubits(num_rows):
        circuit = circuit_of(num_qubits, num_rows)
        plan = states_plan_of(circuit, any_start)
        for own in (True, np.arange(plan.program.num_parameters) % 3 == 0):
            assert_states_agree(plan, rows_with(plan, num_rows, own), dtype, num_threads=2)


@settings(max_examples=60, deadline=None)
@given(
    circuit=circuits(),
    num_rows=st.integers(2, 19),
    own=st.lists(st.booleans(), min_size=3, max_size=3),
    any_start=st.booleans(),
    dtype=st.sampled_from(["complex64", "complex128"]),
)
def test_states_at_the_ends_of_random_circuits_agree_with_the_reference(circuit, num_rows, own, any_start, dtype):
    plan = states_plan_of(circuit, any_start)
    assert_states_agree(plan, rows_with(plan, num_rows, np.array(own)[: plan.program.num_parameters]), dtype)


@pytest.mark.parametrize(
    "circuit",
    [random_circuit(4, 60, seed=1), rx_ry_layers(5, 8), hardware_efficient(9, 2), real_amplitudes(6), full_graph(6)],
    ids=["random", "layers", "9 qubits", "real", "graph"],
)
def test_rows_that_differ_in_columns_of_their_pack_alone_agree_with_the_reference(circuit, dtype):
    observables = random_observables(circuit.num_qubits, 5)
    plan, operators = plan_of(circuit, observables)
    whole, _ = plan_of(circuit, observables, imaginary=True)
    for num_rows in (4 * WIDEST + 1, 9 * WIDEST):
        columns = shifted_rows(plan, num_rows)
        assert_rows_agree(plan, operators, columns, dtype, num_threads=2)
        weights = np.random.default_rng(1).normal(size=2 * num_rows)
        assert_rows_agree(plan, operators, columns, dtype, weights=weights, num_threads=2)
        assert_rows_agree(whole, operators, shifted_rows(whole, num_rows), dtype, imaginary=True)
        for any_start in (False, True):
            states_plan = states_plan_of(circuit, any_start)
            assert_states_agree(states_plan, shifted_rows(states_plan, num_rows), dtype, num_threads=2)


@pytest.mark.parametrize("weighted", [False, True], ids=["jacobian", "cotangents"])
def test_bits_of_shifted_rows_do_not_depend_on_the_number_of_threads(weighted, dtype):
    plan, operators = plan_of(rx_ry_layers(5, 8), random_observables(5, 1))
    columns = shifted_rows(plan, 9 * WIDEST)
    columns[2 * WIDEST : 3 * WIDEST] += 0.1  # a pack that differs in all columns
    pairs, options = all_pairs(len(columns), 2), {"gradient": True, "dtype": dtype}
    if weighted:
        options["cotangents"] = np.random.default_rng(0).normal(size=2 * len(columns))
        options["sum_columns"] = np.ones(plan.program.num_columns, dtype=bool)
    results = [ask(CpuEngine(threads), plan, operators, columns, pairs, **options) for threads in (1, 2, 3, 3)]
    for result in results[1:]:
        assert np.array_equal(result.values, results[0].values)
        assert np.array_equal(result.gradients, results[0].gradients)


def test_final_states_have_the_signs_of_constants_on_many_qubits(dtype):
    angles = ParameterVector("a", 4)
    circuit = QuantumCircuit(4)
    for number, angle in enumerate(angles):
        circuit.rx(angle, number)
        circuit.append(ZGate().control(2, ctrl_state=0, annotated=False), [number, (number + 1) % 4, (number + 2) % 4])
        circuit.append(PauliEvolutionGate(SparsePauliOp("ZZZ"), np.pi / 2), [0, 1, 3])
        circuit.ry(angle, (number + 1) % 4)
    for any_start in (False, True):
        plan = states_plan_of(circuit, any_start)
        assert_states_agree(plan, rows_with(plan, 21, True), dtype)


@settings(max_examples=60, deadline=None)
@given(
    circuit=circuits(),
    num_rows=st.integers(2, 19),
    own=st.lists(st.booleans(), min_size=3, max_size=3),
    weighted=st.booleans(),
    imaginary=st.booleans(),
    dtype=st.sampled_from(["complex64", "complex128"]),
)
def test_random_circuits_of_every_gate_agree_with_the_reference(circuit, num_rows, own, weighted, imaginary, dtype):
    plan, operators = plan_of(circuit, random_observables(circuit.num_qubits, 3), imaginary)
    columns = rows_with(plan, num_rows, np.array(own)[: plan.program.num_parameters])
    weights = np.random.default_rng(1).normal(size=2 * num_rows) if weighted else None
    assert_rows_agree(plan, operators, columns, dtype, weights=weights, imaginary=imaginary)


@pytest.mark.parametrize("num_qubits", range(1, 11))
def test_full_graph_phases_and_projectors_of_trained_angles_agree_with_the_reference(num_qubits, dtype):
    circuit = full_graph(num_qubits)
    if num_qubits > 2:
        circuit.mcp(ParameterVector("controlled", 1)[0], [0, 1], 2)
    plan, operators = plan_of(circuit, random_observables(num_qubits, 5))
    assert_rows_agree(plan, operators, rows_with(plan, 21 if num_qubits < 9 else 70, True), dtype)


@pytest.mark.parametrize(("num_qubits", "num_rows"), [(1, 37), (3, 37), (8, 37), (10, 70)])
def test_real_states_agree_with_the_reference(num_qubits, num_rows, dtype):
    angles = ParameterVector("a", 3 * num_qubits)
    circuit = QuantumCircuit(num_qubits)
    for index, angle in enumerate(angles):
        circuit.ry(angle, index % num_qubits)
        if index % num_qubits:
            circuit.cx(index % num_qubits - 1, index % num_qubits)
    plan, operators = plan_of(circuit, random_observables(num_qubits, 2))
    assert plan.is_real
    columns = rows_with(plan, num_rows, True)
    assert_rows_agree(plan, operators, columns, dtype)
    assert_rows_agree(plan, operators, columns, dtype, imaginary=True)
    assert_states_agree(states_plan_of(circuit), columns, dtype)


@pytest.mark.parametrize("weighted", [False, True], ids=["jacobian", "cotangents"])
@pytest.mark.parametrize("own", ["all", "some"])
def test_bits_do_not_depend_on_the_number_of_threads(own, weighted, dtype):
    num_rows = 1000
    plan, operators = plan_of(random_circuit(5, 30, seed=1), random_observables(5, 1))
    marks = np.arange(plan.program.num_parameters) < 2 if own == "some" else True
    columns, pairs = rows_with(plan, num_rows, marks), all_pairs(num_rows, 2)
    options = {"gradient": True, "dtype": dtype}
    if weighted:
        options["cotangents"] = np.random.default_rng(0).normal(size=2 * num_rows)
        options["sum_columns"] = np.ones(plan.program.num_columns, dtype=bool)
    results = [ask(CpuEngine(threads), plan, operators, columns, pairs, **options) for threads in (1, 2, 3, 3)]
    assert results[1].stats["num_threads"] == 2
    for result in results[1:]:
        assert np.array_equal(result.values, results[0].values)
        assert np.array_equal(result.gradients, results[0].gradients)


@pytest.mark.parametrize("circuit", [random_circuit(5, 30, seed=1), real_amplitudes(5)], ids=["complex", "real"])
def test_bits_of_states_depend_neither_on_threads_nor_on_other_rows(circuit, dtype):
    plan, operators, num_rows = states_plan_of(circuit), coerce_observables([]).operators, 1000
    columns, ends = rows_with(plan, num_rows, True), random_ends(plan, num_rows)
    order = np.random.default_rng(0).permutation(num_rows)
    options = {"gradient": True, "dtype": dtype}
    first, second = (
        ask(CpuEngine(threads), plan, operators, columns[rows], NO_PAIRS,
            ends=ends._replace(final_cotangents=ends.final_cotangents[rows]), **options)
        for threads, rows in ((1, slice(None)), (2, order))
    )  # fmt: skip
    assert second.stats["num_threads"] == 2
    np.testing.assert_array_equal(second.final_states, first.final_states[order])
    np.testing.assert_array_equal(second.gradients, first.gradients[order])


@pytest.mark.parametrize("num_rows", [20, 200])
def test_gradients_of_shared_angles_may_be_summed_over_rows(num_rows, dtype):
    plan, operators = plan_of(random_circuit(6, 40, seed=3), random_observables(6, 3))
    columns, pairs = rows_with(plan, num_rows, np.arange(plan.program.num_parameters) < 2), all_pairs(num_rows, 2)
    weights, summed = np.random.default_rng(0).normal(size=2 * num_rows), np.ones(plan.program.num_columns, dtype=bool)
    question = CpuEngine(2), plan, operators, columns, pairs
    rows = ask(*question, gradient=True, cotangents=weights, dtype=dtype)
    sums = ask(*question, gradient=True, cotangents=weights, dtype=dtype, sum_columns=summed)
    rows.gradients, sums.gradients = rows.gradients.sum(axis=0), sums.gradients.sum(axis=0)
    assert_agree(sums, rows, dtype)


def test_gradients_of_cotangents_of_states_may_be_summed_over_rows(dtype):
    plan, operators, num_rows = states_plan_of(random_circuit(6, 40, seed=3)), coerce_observables([]).operators, 21
    columns = rows_with(plan, num_rows, np.arange(plan.program.num_parameters) < 2)
    question, ends = (CpuEngine(2), plan, operators, columns, NO_PAIRS), random_ends(plan, num_rows)
    summed = np.ones(plan.program.num_columns, dtype=bool)
    rows = ask(*question, gradient=True, dtype=dtype, ends=ends)
    sums = ask(*question, gradient=True, dtype=dtype, ends=ends, sum_columns=summed)
    rows.gradients, sums.gradients = rows.gradients.sum(axis=0), sums.gradients.sum(axis=0)
    assert_agree(sums, rows, dtype)


def test_the_bits_of_a_row_do_not_depend_on_the_other_rows_of_its_pack(dtype):
    num_rows = 3 * WIDEST
    plan, operators = plan_of(random_circuit(4, 30, seed=7), random_observables(4, 7))
    columns, pairs = rows_with(plan, num_rows, True), all_pairs(num_rows, 2)
    columns[1] *= 1e7  # sines and cosines of such large angles are computed in another way
    order = np.random.default_rng(0).permutation(num_rows)
    first, second = (
        ask(CpuEngine(), plan, operators, rows, pairs, gradient=True, dtype=dtype) for rows in (columns, columns[order])
    )
    assert np.array_equal(second.values.reshape(-1, 2), first.values.reshape(-1, 2)[order])
    shape = num_rows, 2, plan.program.num_columns
    assert np.array_equal(second.gradients.reshape(shape), first.gradients.reshape(shape)[order])


def test_many_layers_keep_the_norm_of_states():
    plan, operators = states_plan_of(hardware_efficient(4, 500), False), coerce_observables([]).operators
    columns, ends = rows_with(plan, 64, True, seed=1), Ends(final=True)
    states = ask(CpuEngine(), plan, operators, columns, NO_PAIRS, dtype="complex64", ends=ends).final_states
    # The errors of single rows are random, about 1e-6. Their mean is larger if each layer shrinks the state a little.
    assert abs((np.linalg.norm(states, axis=1) - 1).mean()) < 1e-6


@pytest.mark.parametrize("weighted", [False, True], ids=["jacobian", "cotangents"])
def test_rows_of_a_pack_may_have_different_observables_and_none(weighted, dtype):
    num_rows = WIDEST + 5
    plan, operators = plan_of(random_circuit(4, 30, seed=2), [*random_observables(4, 2), SparsePauliOp("XYZX")])
    columns = rows_with(plan, num_rows, True)
    chosen = np.random.default_rng(5).random((num_rows, 3)) < 0.5
    chosen[3] = False
    pairs = tuple(part.astype(np.int32) for part in np.nonzero(chosen))
    weights = np.random.default_rng(6).normal(size=len(pairs[0])) if weighted else None
    options = {"gradient": True, "cotangents": weights}
    expected = ask(ReferenceEngine(), plan, operators, columns, pairs, **options)
    actual = ask(CpuEngine(2), plan, operators, columns, pairs, dtype=dtype, **options)
    assert_agree(actual, expected, dtype)
    if weighted:
        assert not actual.gradients[3].any()


@pytest.mark.parametrize("num_outcomes", [2, 16])
@pytest.mark.parametrize("weighted", [False, True], ids=["jacobian", "cotangents"])
def test_outcomes_of_many_rows_agree_with_the_reference(num_outcomes, weighted, dtype):
    for num_qubits, num_rows in ((4, 21), (10, 66)):
        plan, _ = plan_of(circuit_of(num_qubits, 2), total_z(num_qubits), imaginary=True)
        table = (np.arange(1 << num_qubits) % num_outcomes).astype(np.int32)
        outcomes = Outcomes(num_qubits, np.arange(num_qubits), table, num_outcomes)
        columns = rows_with(plan, num_rows, True)
        weights = np.random.default_rng(1).normal(size=num_rows * num_outcomes) if weighted else None
        assert_rows_agree(plan, outcomes, columns, dtype, weights=weights)


@pytest.mark.parametrize("own", [True, False], ids=["own angles", "shared angles"])
@pytest.mark.parametrize(
    ("circuit", "num_rows"),
    [
        (random_circuit(5, 30, seed=4), 2 * WIDEST + 3),
        (rx_ry_layers(8, 12), 20 * WIDEST),  # the states of some packs exceed what is kept
        (rx_ry_layers(8, 40), WIDEST),  # the last states alone are kept
        (real_amplitudes(5), 2 * WIDEST + 3),
        (dense_circuit(6, 3), WIDEST),
    ],
    ids=["all states", "some packs", "last states", "real", "dense"],
)
def test_gradients_after_values_of_the_same_rows_have_the_same_bits(circuit, num_rows, own, dtype):
    diagonal = [total_z(circuit.num_qubits), SparsePauliOp("Z" * circuit.num_qubits)]
    for observables in (random_observables(circuit.num_qubits, 4), diagonal):
        plan, operators = plan_of(circuit, observables)
        columns = rows_with(plan, num_rows, own if own else np.arange(plan.program.num_parameters) < 1)
        pairs, engine = all_pairs(num_rows, 2), CpuEngine(2)
        values = ask(CpuEngine(), plan, operators, columns, pairs, dtype=dtype).values
        expected = ask(CpuEngine(), plan, operators, columns, pairs, gradient=True, dtype=dtype)
        # The second call for values keeps states, because a call for gradients has followed the first one.
        for before in (columns, columns, columns[::-1].copy(), columns[:2], columns, columns):
            found = ask(engine, plan, operators, before, all_pairs(len(before), 2), dtype=dtype)
            if before is columns:
                np.testing.assert_array_equal(found.values, values)
            for _ in range(2):
                actual = ask(engine, plan, operators, columns, pairs, gradient=True, dtype=dtype)
                np.testing.assert_array_equal(actual.gradients, expected.gradients)
                np.testing.assert_array_equal(actual.values, expected.values)


def test_a_call_for_values_keeps_states_only_after_a_gradient_followed_the_call_before_it(dtype):
    plan, operators = plan_of(rx_ry_layers(6, 4), [total_z(6)])
    columns, engine = rows_with(plan, 2 * WIDEST, True), CpuEngine(1)

    def num_bytes(gradient=False):
        asked = make_request(columns, all_pairs(len(columns), 1), gradient=gradient, dtype=dtype)
        return engine.evaluate(plan, operators, asked).stats["bytes"]

    num_bytes(), num_bytes(gradient=True)
    after_gradient, not_read, again = num_bytes(), num_bytes(), num_bytes()
    assert after_gradient - not_read >= 6 * len(columns) * np.dtype(dtype).itemsize << 6  # six states of each row
    assert again == not_read


def test_deep_circuits_whose_states_are_not_kept_agree_with_the_reference(dtype):
    plan, operators = plan_of(rx_ry_layers(8, 100), [total_z(8)])
    for own in (True, np.arange(plan.program.num_parameters) < 8):
        assert_rows_agree(plan, operators, rows_with(plan, WIDEST, own), dtype)


@pytest.mark.parametrize("gradient", [False, True], ids=["values", "gradients"])
@pytest.mark.parametrize("num_rows", [2, 9, 40, 300])
@pytest.mark.parametrize(
    "circuit",
    [rx_ry_layers(4, 10), rx_ry_layers(8, 12), rx_ry_layers(10, 12), full_graph(6), full_graph(9)],
    ids=["4", "8", "10", "graph of 6", "graph of 9"],
)
def test_the_engine_allocates_what_was_predicted(circuit, num_rows, gradient, dtype):
    observables = [total_z(circuit.num_qubits), SparsePauliOp("Y" * circuit.num_qubits)]
    plan, operators = plan_of(circuit, observables)
    footprint = Footprint(plan, dtype)
    for own in (True, np.arange(plan.program.num_parameters) < 2):
        columns = rows_with(plan, num_rows, own)
        varying = footprint.varying_phases((columns != columns[0]).any(axis=0))
        for count in (1, 2):
            release_memory()
            request = make_request(columns, all_pairs(num_rows, count), gradient=gradient, dtype=dtype)
            num_bytes = most_bytes(CpuEngine(2), plan, operators, request)
            counts = Counts(num_rows, num_rows * count, dtype, gradient, False, count, count)
            predicted = footprint.total(counts, 2, 0, varying)
            assert num_bytes == pytest.approx(predicted, rel=0.03, abs=2000)


@pytest.mark.parametrize("gradient", [False, True], ids=["states", "gradients"])
@pytest.mark.parametrize("num_rows", [2, 40])
@pytest.mark.parametrize(
    "circuit", [rx_ry_layers(4, 10), full_graph(6), real_amplitudes(8)], ids=["4", "graph", "real"]
)
def test_the_engine_allocates_what_was_predicted_for_states(circuit, num_rows, gradient, dtype):
    plan, operators = states_plan_of(circuit), coerce_observables([]).operators
    columns = rows_with(plan, num_rows, True)
    footprint, ends = Footprint(plan, dtype), random_ends(plan, num_rows) if gradient else Ends(final=True)
    request = make_request(columns, NO_PAIRS, gradient=gradient, dtype=dtype, ends=ends)
    varying = footprint.varying_phases((columns != columns[0]).any(axis=0))
    release_memory()
    num_bytes = most_bytes(CpuEngine(2), plan, operators, request)
    assert num_bytes == pytest.approx(footprint.total(Counts.of(request), 2, 0, varying), rel=0.03, abs=2000)


def test_a_watch_sees_the_progress_of_packs_and_ends_them():
    plan, operators = plan_of(rx_ry_layers(7, 60), total_z(7))
    columns = np.random.default_rng(0).uniform(-3, 3, (4000, plan.program.num_columns))
    seen = []

    def watch(done, total):
        seen.append((done, total))
        return done > 0

    request = make_request(columns, all_pairs(4000, 1), gradient=True)
    with pytest.raises(RuntimeError, match=r"the evaluation was cancelled\."):
        CpuEngine(1).evaluate(plan, operators, request, watch)
    done, total = seen[-1]
    assert 0 < done < total


SINE_ERRORS = [(np.float64, 2.3e-16), (np.float32, 1e-7)]


@pytest.mark.parametrize(("dtype", "bound"), SINE_ERRORS)
def test_sines_and_cosines_have_the_stated_error(dtype, bound):
    # kernels/cpu/simd/sincos.hpp states the error. Numbers of 80 bits tell it where long double has them.
    rng = np.random.default_rng(0)
    angles = np.concatenate(
        [
            rng.uniform(-7, 7, 20_000),
            rng.uniform(-2e6, 2e6, 20_000),
            rng.uniform(-1e9, 1e9, 1000),
            rng.choice([-1, 1], 1000) * (np.pi * 2**20 + rng.uniform(-2, 2, 1000)),  # at the limit of the reduction
            rng.choice([-1, 1], 1000) * np.exp(rng.uniform(10, 700, 1000)),
            np.pi * np.arange(-64, 65) / 4,
            [0.0, 1e-300, 5e-324, 1e6, 2e6, np.nextafter(2e6, 3e6), 1e22, np.inf, np.nan],
        ]
    )
    found = np.empty((2, len(angles)), dtype)
    _cpu.half_angles(angles, found)
    half = angles.astype(np.longdouble) / 2
    with np.errstate(invalid="ignore"):
        expected = np.array([np.cos(half), np.sin(half)])
    finite = np.isfinite(angles)
    error = np.abs(found - expected)[:, finite].max()
    assert error < bound
    assert np.isnan(found[:, ~finite]).all()
    exact = np.abs(expected.astype(float)) < 2e-16
    assert (found[exact] == 0).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_sines_and_cosines_do_not_depend_on_the_other_angles_of_a_vector(dtype):
    # Beyond the reduction, the C library computes them.
    angles = np.pi * 2**20 + np.linspace(-4, 4, 64)
    alone, beside_others = np.empty((2, 2, len(angles)), dtype)
    _cpu.half_angles(angles, beside_others)
    for k in range(len(angles)):
        one = np.empty((2, 1), dtype)
        _cpu.half_angles(angles[k : k + 1], one)
        alone[:, k] = one[:, 0]
    np.testing.assert_array_equal(alone, beside_others)
