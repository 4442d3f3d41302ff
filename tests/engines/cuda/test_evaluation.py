# SPDX-License-Identifier: Apache-2.0
"""Results of the CUDA engine that are not one number per pair: gradients summed over rows, and final states."""

import numpy as np
import pytest
from asking import Ends, ask
from cuda_cases import count_allocations, engine_on, forget_last_states
from cuda_emulation import EmulatedRuntime, missing_tools
from engine_cases import TOLERANCE, all_pairs, assert_agree, plan_of, random_circuit, random_observables

from qiskit_fused.engines.cuda.engine import CudaEngine
from qiskit_fused.engines.cuda.memory import UNITS_PER_SUM, predict
from qiskit_fused.engines.interface import DoesNotFit
from qiskit_fused.engines.reference import ReferenceEngine
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.options.method import REVERSE, Method

pytestmark = pytest.mark.skipif(missing_tools() is not None, reason=str(missing_tools()))

NO_PAIRS = np.zeros(0, np.int32), np.zeros(0, np.int32)
NUM_ROWS = 2 * UNITS_PER_SUM + 5


def weighted_question(num_qubits=3, num_rows=NUM_ROWS, num_gates=40):
    """Return a question of two observables with cotangents, rows in which all columns vary."""
    plan, operators = plan_of(random_circuit(num_qubits, num_gates, seed=6), random_observables(num_qubits, 1))
    rng = np.random.default_rng(3)
    columns = rng.normal(size=(num_rows, plan.program.num_columns))
    question = plan, operators, columns, all_pairs(num_rows, 2)
    return question, {"gradient": True, "cotangents": rng.normal(size=2 * num_rows)}


def every_second(num_columns):
    return np.arange(num_columns) % 2 == 0


def assert_sums_agree(actual, expected, summed, dtype):
    """Compare the sums of summed columns, and the other columns row by row."""
    scale = TOLERANCE[dtype] * max(1.0, np.abs(expected.gradients).max()) * np.sqrt(len(expected.gradients))
    assert actual.gradients.shape == expected.gradients.shape
    np.testing.assert_allclose(actual.gradients[:, ~summed], expected.gradients[:, ~summed], rtol=0, atol=scale)
    sums, expected_sums = (evaluation.gradients[:, summed].sum(axis=0) for evaluation in (actual, expected))
    np.testing.assert_allclose(sums, expected_sums, rtol=0, atol=scale)
    np.testing.assert_allclose(actual.values, expected.values, rtol=0, atol=scale)


@pytest.mark.parametrize("which", ["some", "all", "none"])
@pytest.mark.parametrize("num_rows", [1, UNITS_PER_SUM, NUM_ROWS])
def test_columns_are_summed_over_rows(which, num_rows, dtype):
    question, options = weighted_question(num_rows=num_rows)
    num_columns = question[2].shape[1]
    summed = {"some": every_second(num_columns), "all": np.ones(num_columns, bool), "none": np.zeros(num_columns, bool)}
    engine, turned = (CudaEngine(EmulatedRuntime(check=True, seed=seed)) for seed in (0, 5))
    expected = ask(engine, *question, **options, dtype=dtype)
    actual = ask(engine, *question, **options, dtype=dtype, sum_columns=summed[which])
    assert_sums_agree(actual, expected, summed[which], dtype)
    assert np.array_equal(actual.gradients[:, ~summed[which]], expected.gradients[:, ~summed[which]])
    if which != "none":
        assert not actual.gradients[1:, summed[which]].any()
    again = ask(turned, *question, **options, dtype=dtype, sum_columns=summed[which])
    assert np.array_equal(again.gradients, actual.gradients)


def test_sums_of_chunks_add_up(dtype):
    question, options = weighted_question(num_qubits=6, num_rows=20)
    summed = every_second(question[2].shape[1])
    expected = ask(ReferenceEngine(), *question, **options)
    whole = ask(engine_on(), *question, **options, dtype=dtype, sum_columns=summed)
    for share in (0.6, 0.2):
        limit = int(share * whole.stats["bytes"])
        actual = ask(engine_on(memory_limit=limit), *question, **options, dtype=dtype, sum_columns=summed)
        assert actual.stats["chunks"] > 1
        assert_sums_agree(actual, expected, summed, dtype)
        scale = np.abs(whole.gradients).max()
        np.testing.assert_allclose(actual.gradients, whole.gradients, rtol=0, atol=1e-14 * scale)


def test_sums_are_asked_for_with_cotangents_only():
    question, options = weighted_question(num_rows=3)
    summed = every_second(question[2].shape[1])
    expected = ask(CudaEngine(EmulatedRuntime()), *question, gradient=True)
    actual = ask(CudaEngine(EmulatedRuntime()), *question, gradient=True, sum_columns=summed)
    assert np.array_equal(actual.gradients, expected.gradients)
    plan, operators, columns, _ = question
    options["cotangents"] = np.zeros(0)
    nothing = ask(CudaEngine(EmulatedRuntime()), plan, operators, columns, NO_PAIRS, **options, sum_columns=summed)
    assert nothing.gradients.shape == columns.shape and not nothing.gradients.any()


def test_sums_take_the_place_of_gradients_in_memory():
    question, options = weighted_question(num_qubits=3, num_rows=200)
    num_columns = question[2].shape[1]
    taken = {}
    for summed in (np.zeros(num_columns, bool), np.ones(num_columns, bool)):
        runtime = EmulatedRuntime()
        count, engine = count_allocations(runtime), CudaEngine(runtime)
        ask(engine, *question, **options, sum_columns=summed)
        count.peak = before = count.live
        predicted = ask(engine, *question, **options, sum_columns=summed).stats["bytes"]
        assert 0.85 * predicted <= count.peak - before <= predicted
        taken[bool(summed[0])] = predicted
        foreseen = predict(question[0], 200, num_observables=2, per_row=True, summed=int(summed.sum()))
        assert foreseen.bytes == predicted
    assert taken[False] - taken[True] > 0.75 * 200 * 8 * num_columns


def ends_question(num_qubits, num_rows, any_start=False):
    """Return a question about all gates of a circuit, without pairs."""
    plan, operators = plan_of(random_circuit(num_qubits, 15, seed=8), random_observables(num_qubits, 1), imaginary=True)
    if any_start:
        plan = fuse_program(plan.program.from_any_state(), None)
    columns = np.random.default_rng(2).normal(size=(num_rows, plan.program.num_columns))
    return plan, operators, columns


def random_states(num_rows, num_qubits):
    states = np.random.default_rng(7).normal(size=(num_rows, 1 << num_qubits, 2)) @ [1, 1j]
    return states / np.linalg.norm(states, axis=1, keepdims=True)


@pytest.mark.parametrize("method", [REVERSE, Method("checkpoint", 2)], ids=lambda method: method.name)
@pytest.mark.parametrize("pairs", [NO_PAIRS, all_pairs(6, 2), (np.array([1, 1, 4], np.int32), np.zeros(3, np.int32))])
@pytest.mark.parametrize("kind", ["values", "jacobian", "cotangents", "final cotangents"])
def test_states_at_the_end_do_not_depend_on_chunks_bit_for_bit(kind, pairs, method, dtype):
    plan, operators, columns = ends_question(7, 6)
    if kind == "final cotangents":
        pairs = NO_PAIRS
    options = {"gradient": kind != "values", "dtype": dtype, "method": method}
    if kind == "cotangents":
        options["cotangents"] = np.linspace(-1, 1, len(pairs[0]))
    ends = Ends(final=True, final_cotangents=random_states(6, 7) if kind == "final cotangents" else None)
    question = plan, operators, columns, pairs
    whole = ask(engine_on(), *question, **options, ends=ends)
    assert whole.stats["chunks"] == 1 and whole.final_states.dtype == dtype
    alone = ask(engine_on(), plan, operators, columns, NO_PAIRS, dtype=dtype, ends=Ends(final=True))
    assert np.array_equal(whole.final_states, alone.final_states)
    if len(pairs[0]):
        assert_agree(whole, ask(engine_on(), *question, **options), dtype)
    actual = ask(engine_on(memory_limit=int(0.4 * whole.stats["bytes"])), *question, **options, ends=ends)
    assert actual.stats["chunks"] > 1
    for name in ("values", "gradients", "final_states"):
        one, other = getattr(actual, name), getattr(whole, name)
        assert (one is None) == (other is None) and (one is None or np.array_equal(one, other)), name


def test_gradients_of_final_states_are_summed_over_rows_too(dtype):
    plan, operators, columns = ends_question(6, 5)
    ends, summed = Ends(final_cotangents=random_states(5, 6)), every_second(columns.shape[1])
    question, options = (plan, operators, columns, NO_PAIRS), {"gradient": True, "ends": ends, "dtype": dtype}
    expected = ask(engine_on(), *question, **options)
    assert_sums_agree(ask(engine_on(), *question, **options, sum_columns=summed), expected, summed, dtype)


@pytest.mark.parametrize("method", ["reverse", "store", "checkpoint"])
@pytest.mark.parametrize("kind", ["final", "cotangents", "one start"])
def test_bytes_of_states_at_both_ends_are_predicted(kind, method, dtype):
    method = Method(method, 3 if method == "checkpoint" else None)
    for num_qubits, least in ((3, 0.0), (9, 0.85)):
        plan, operators, columns = ends_question(num_qubits, 3, any_start=kind == "one start")
        ends = {
            "final": Ends(final=True),
            "cotangents": Ends(final_cotangents=random_states(3, num_qubits)),
            "one start": Ends(random_states(1, num_qubits), True, final_cotangents=random_states(3, num_qubits)),
        }[kind]
        options = {"gradient": kind != "final", "dtype": dtype, "method": method, "ends": ends}
        runtime = EmulatedRuntime(num_multiprocessors=1000)
        count, engine = count_allocations(runtime), engine_on(runtime)
        ask(engine, plan, operators, columns, NO_PAIRS, **options)
        forget_last_states(engine)
        count.peak = before = count.live
        predicted = ask(engine, plan, operators, columns, NO_PAIRS, **options).stats["bytes"]
        assert least * predicted <= count.peak - before <= predicted
        forget_last_states(engine)
        assert count.live == before
    if kind != "one start":
        plan, operators, columns = ends_question(14, 2)
        if kind == "cotangents":
            options["ends"] = Ends(final_cotangents=random_states(2, 14))
        engine = CudaEngine(EmulatedRuntime(num_multiprocessors=1000))
        actual = ask(engine, plan, operators, columns, NO_PAIRS, **options).stats["bytes"]
        gradient = kind == "cotangents"
        assert predict(plan, 2, method, dtype, gradient=gradient, num_observables=0, per_row=gradient).bytes == actual


def test_steps_of_rows_without_pairs_are_counted(monkeypatch):
    from qiskit_fused.engines.cuda import throttle

    monkeypatch.setattr(throttle, "FIRST_AHEAD", 1)
    monkeypatch.setattr(throttle, "LEAST_WAIT", 0)
    plan, operators, columns = ends_question(7, 6)
    for pairs, cotangents in (
        (NO_PAIRS, None),
        (NO_PAIRS, random_states(6, 7)),
        ((np.array([1, 4], np.int32), np.zeros(2, np.int32)), None),
    ):
        told = []
        ask(engine_on(),
            plan, operators, columns, pairs, gradient=True, ends=Ends(final=True, final_cotangents=cotangents),
            watch=lambda *steps, told=told: told.append(steps),
        )  # fmt: skip
        assert told[0][0] == 0 and told[-1][0] == told[-1][1]


def kinds_of_gradients(num_pairs):
    return {"jacobian": {}, "cotangents": {"cotangents": np.linspace(-1, 1, num_pairs)}}


@pytest.mark.parametrize("num_qubits", [4, 8])
@pytest.mark.parametrize("kind", ["jacobian", "cotangents"])
def test_gradients_begin_with_the_last_states_of_values_of_the_same_rows(kind, num_qubits, dtype):
    question, _ = weighted_question(num_qubits, num_rows=4)
    options = {"gradient": True, "dtype": dtype, **kinds_of_gradients(8)[kind]}
    expected = ask(engine_on(check=True), *question, **options)
    engine, told = engine_on(check=True), []
    values = ask(engine, *question, dtype=dtype)
    actual = ask(engine, *question, **options, watch=lambda *steps: told.append(steps))
    assert np.array_equal(actual.gradients, expected.gradients) and np.array_equal(actual.values, expected.values)
    assert actual.stats["sweeps"] == expected.stats["sweeps"] - values.stats["sweeps"]
    assert told[-1][0] == told[-1][1]
    # That gradient has overwritten the cached final states, so the next evaluation makes them again.
    again = ask(engine, *question, **options)
    assert again.stats["sweeps"] == expected.stats["sweeps"]
    assert np.array_equal(again.gradients, expected.gradients)


def test_last_states_serve_no_other_question():
    question, _ = weighted_question(8, num_rows=4)
    plan, operators, columns, pairs = question
    changed, some = columns.copy(), slice(2, 8)
    changed[3, 0] += 1e-9
    other = fuse_program(plan.program, None)
    engine = engine_on()
    whole = ask(engine, *question, gradient=True).stats["sweeps"]
    for after, sweeps in (
        (((plan, operators, changed, pairs), {}), whole),
        (((plan, operators, columns, (pairs[0][some], pairs[1][some])), {}), whole),
        (((other, operators, columns, pairs), {}), None),
        ((question, {"dtype": "complex64"}), None),
        ((question, {"method": Method("store")}), whole),
        ((question, {}), whole // 2),
    ):
        arguments, options = after
        expected = ask(engine_on(), *arguments, gradient=True, **options)
        ask(engine, *question)
        actual = ask(engine, *arguments, gradient=True, **options)
        assert np.array_equal(actual.gradients, expected.gradients)
        assert actual.stats["sweeps"] == (sweeps or expected.stats["sweeps"])


def test_columns_that_the_caller_changes_are_noticed():
    question, _ = weighted_question(6, num_rows=4)
    engine = engine_on()
    ask(engine, *question)
    question[2][1, 0] += 0.5
    assert_agree(ask(engine, *question, gradient=True), ask(engine_on(), *question, gradient=True), "complex128")


def test_last_states_take_an_eighth_of_the_memory_at_most_and_give_way():
    question, _ = weighted_question(8, num_rows=4)
    whole = ask(engine_on(), *question).stats["bytes"]
    runtime = EmulatedRuntime(memory=1 << 24)
    count, engine = count_allocations(runtime), engine_on(runtime)
    ask(engine, *question, gradient=True)
    without = count.live
    ask(engine, *question)
    assert 4 << 12 <= count.live - without <= 2 * 4 << 12
    ask(engine, *question, gradient=True)
    assert count.live == without
    ask(engine, *question)
    count.peak = count.live
    predicted = ask(engine, question[0], question[1], question[2] + 1.0, question[3], gradient=True).stats["bytes"]
    assert count.peak - without <= predicted and count.live == without
    runtime.memory = 4 * whole
    ask(engine, *question)
    assert count.live == without


def test_every_evaluation_waits_for_the_one_before_it_which_may_be_in_another_stream():
    class Marked(EmulatedRuntime):
        def mark(self):
            log.append("mark")
            return len(log)

        def wait_for(self, mark):
            log.append(mark)

    log: list = []
    question, engine = weighted_question(4, num_rows=2)[0], engine_on(Marked())
    ask(engine, *question)  # plan and observables stay on the device
    before = len(log)
    ask(engine, *question)
    assert log[before:] == [before, "mark"]
    with pytest.raises(DoesNotFit):
        ask(engine_on(Marked(memory=1)), *question)
    assert log[-1] == "mark"
    after = len(log)
    ask(engine, *question)
    assert log[after:] == [before + 2, "mark"]


def test_last_states_of_another_stream_are_left_alone():
    question, _ = weighted_question(6, num_rows=2)
    engine = engine_on()
    ask(engine, *question)
    engine.runtime.current_stream = lambda: 1
    whole = ask(engine_on(), *question, gradient=True)
    actual = ask(engine, *question, gradient=True)
    assert actual.stats["sweeps"] == whole.stats["sweeps"]


@pytest.mark.parametrize("kind", ["jacobian", "cotangents"])
def test_last_states_of_chunks_that_stay_in_the_l2_cache_serve_chunks_too(kind, dtype):
    question, _ = weighted_question(8, num_rows=12)
    options = {"gradient": True, "dtype": dtype, **kinds_of_gradients(24)[kind]}
    states = 12 * np.dtype(dtype).itemsize << 8

    def engine(l2_bytes):
        runtime = EmulatedRuntime(l2_bytes=l2_bytes, num_multiprocessors=1)
        return engine_on(runtime), count_allocations(runtime)

    whole = ask(engine(1 << 30)[0], *question, **options)
    alone = ask(engine(states // 2)[0], *question, **options)
    cached, count = engine(states // 2)
    ask(cached, *question, **options)
    count.peak = before = count.live
    values = ask(cached, *question, dtype=dtype)
    assert values.stats["chunks"] > 1 and count.live - before >= states
    assert count.peak - before <= values.stats["bytes"]
    count.peak = count.live
    actual = ask(cached, *question, **options)
    assert actual.stats["chunks"] == alone.stats["chunks"] > 1 and count.live == before
    for name in ("values", "gradients"):
        assert np.array_equal(getattr(actual, name), getattr(whole, name))
    split = kind == "jacobian" and actual.stats["sweeps"] == alone.stats["sweeps"]
    if not split:
        assert actual.stats["sweeps"] == alone.stats["sweeps"] // 2
        assert count.peak - before <= actual.stats["bytes"] <= alone.stats["bytes"] + 2 * states
    assert kind == "jacobian" or not split
    # other columns in a later chunk
    ask(cached, *question, dtype=dtype)
    changed = question[2].copy()
    changed[-1] += 0.1
    other = question[0], question[1], changed, question[3]
    assert_agree(ask(cached, *other, **options), ask(engine(1 << 30)[0], *other, **options), dtype)


def test_a_row_in_two_chunks_is_uncomputed_from_a_state_of_its_own():
    plan, operators = plan_of(random_circuit(8, 20, seed=6), random_observables(8, 1))
    columns = np.random.default_rng(3).normal(size=(4, plan.program.num_columns))
    pairs = all_pairs(4, 2)
    states = 4 * 16 << 8
    for l2_bytes in range(states // 4, 3 * states, states // 4):
        engine = engine_on(l2_bytes=l2_bytes, num_multiprocessors=1)
        ask(engine, plan, operators, columns, pairs)
        actual = ask(engine, plan, operators, columns, pairs, gradient=True)
        expected = ask(engine_on(), plan, operators, columns, pairs, gradient=True)
        assert np.array_equal(actual.gradients, expected.gradients)
