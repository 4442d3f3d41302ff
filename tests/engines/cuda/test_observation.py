# SPDX-License-Identifier: Apache-2.0
"""Outcomes of measurements on the CUDA engine: lists of amplitudes, chunks, memory, cached states, starts, limits."""

import numpy as np
import pytest
from asking import Ends, ask
from cuda_cases import count_allocations, engine_on, forget_last_states
from cuda_emulation import EmulatedRuntime, missing_tools
from engine_cases import all_pairs, assert_agree, random_circuit, rows_of
from qiskit.circuit.library import real_amplitudes

from qiskit_fused.engines.cuda import engine as engine_module
from qiskit_fused.engines.cuda.engine import CudaEngine
from qiskit_fused.engines.cuda.memory import predict
from qiskit_fused.engines.interface import DoesNotFit
from qiskit_fused.engines.reference import ReferenceEngine
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.lowering.lower import lower
from qiskit_fused.options.method import REVERSE, Method
from qiskit_fused.program.outcomes import Outcomes

pytestmark = [
    pytest.mark.skipif(missing_tools() is not None, reason=str(missing_tools())),
    pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning"),
]


def skewed(num_qubits, num_outcomes, seed=0):
    """Return a table in which half of the bitstrings have outcome 1, and some have none."""
    rng = np.random.default_rng(seed)
    table = rng.integers(-1, num_outcomes, 1 << num_qubits)
    return np.where(rng.random(len(table)) < 0.5, min(1, num_outcomes - 1), table)


def question_of(num_qubits, table, num_outcomes, num_rows=3, *, circuit=None, any_start=False):
    """Return the question of all outcomes of all qubits, which are measured in another order."""
    circuit = circuit or random_circuit(num_qubits, 15, seed=2)
    outcomes = Outcomes(num_qubits, np.random.default_rng(1).permutation(num_qubits), table, num_outcomes)
    program = lower(circuit)
    plan = fuse_program(program.from_any_state() if any_start else program, outcomes.support(num_qubits))
    return plan, outcomes, rows_of(plan.program, num_rows=num_rows), all_pairs(num_rows, len(outcomes))


def options_of(mode, num_pairs):
    """Return the keywords of a request for values, for all gradients, or for gradients of weighted sums."""
    weights = np.random.default_rng(4).normal(size=num_pairs)
    return {
        "values": {},
        "jacobian": {"gradient": True},
        "cotangents": {"gradient": True, "cotangents": weights},
    }[mode]


MODES = ["values", "jacobian", "cotangents"]
every_mode = pytest.mark.parametrize("mode", MODES)


def assert_equal_bits(actual, expected):
    for name in ("values", "gradients", "state_gradients"):
        one, other = getattr(actual, name), getattr(expected, name)
        assert (one is None) == (other is None) and (one is None or np.array_equal(one, other)), name


@pytest.mark.slow
@pytest.mark.parametrize("is_real", [False, True], ids=["complex", "real"])
@every_mode
def test_lists_that_are_cut_into_parts_agree_with_the_reference(mode, is_real, dtype):
    circuit = real_amplitudes(12, reps=1) if is_real else None
    question = question_of(12, skewed(12, 3), 3, num_rows=2, circuit=circuit)
    assert question[0].is_real == is_real
    options = options_of(mode, 6)
    expected = ask(ReferenceEngine(), *question, **options)
    for tile_qubits in (None, 7):
        engine = CudaEngine(EmulatedRuntime(check=True, seed=1), max_tile_qubits=tile_qubits)
        assert_agree(ask(engine, *question, **options, dtype=dtype), expected, dtype)
        (kept,) = engine._observables.values()
        assert kept.num_parts >= 2


def test_sums_over_many_parts_keep_the_digits_of_single_precision():
    question = question_of(15, np.arange(1 << 15) % 3 == 0, 2, num_rows=1)
    single, double = (
        ask(CudaEngine(EmulatedRuntime()), *question, dtype=d).values for d in ("complex64", "complex128")
    )
    np.testing.assert_allclose(single, double, atol=2e-6)
    np.testing.assert_allclose(double.sum(), 1, atol=1e-12)


@every_mode
def test_the_order_of_blocks_and_threads_changes_no_bit(mode, dtype):
    for num_qubits, num_outcomes in ((3, 5), (9, 40), (12, 2)):
        question = question_of(num_qubits, skewed(num_qubits, num_outcomes), num_outcomes, num_rows=2)
        options = {**options_of(mode, 2 * num_outcomes), "dtype": dtype}
        if mode == "jacobian":
            question = *question[:3], tuple(part[:3] for part in question[3])
        runtime, results = EmulatedRuntime(check=True), []
        for runtime.seed in (0, 1, 77):
            results.append(ask(engine_on(runtime, 6), *question, **options))
        for result in results[1:]:
            assert_equal_bits(result, results[0])


@every_mode
@pytest.mark.parametrize(("num_qubits", "num_outcomes"), [(7, 9), (12, 3)])
def test_results_do_not_depend_on_chunks_bit_for_bit(mode, num_qubits, num_outcomes, dtype):
    question = question_of(num_qubits, skewed(num_qubits, num_outcomes), num_outcomes, num_rows=4)
    options = {**options_of(mode, 4 * num_outcomes), "dtype": dtype}
    engine = engine_on(num_multiprocessors=1000)
    whole = ask(engine, *question, **options)
    (kept,) = engine._observables.values()
    chunks, room = [whole.stats["chunks"]], whole.stats["bytes"]
    while True:
        room = int(0.7 * room)
        try:
            actual = ask(engine_on(memory_limit=kept.num_bytes + room), *question, **options)
        except MemoryError:
            break
        assert_equal_bits(actual, whole)
        assert actual.stats["bytes"] <= room
        chunks.append(actual.stats["chunks"])
    # With the least memory, a chunk has the states of one row, or of one pair.
    assert chunks == sorted(chunks) and chunks[0] == 1
    assert chunks[-1] >= (3 * num_outcomes if mode == "jacobian" else 3)


@every_mode
@pytest.mark.parametrize("method", ["reverse", "store", "checkpoint"])
def test_bytes_are_predicted(mode, method, dtype):
    method = Method(method, 3 if method == "checkpoint" else None)
    for num_qubits, num_outcomes, least in ((3, 8, 0.0), (9, 4, 0.8), (12, 2, 0.8)):
        question = question_of(num_qubits, skewed(num_qubits, num_outcomes), num_outcomes)
        options = {**options_of(mode, 3 * num_outcomes), "dtype": dtype, "method": method}
        runtime = EmulatedRuntime(num_multiprocessors=1000)
        count, engine = count_allocations(runtime), engine_on(runtime)
        ask(engine, *question, **options)  # the plan and the lists stay on the device
        forget_last_states(engine)
        count.peak = before = count.live
        stats = ask(engine, *question, **options).stats
        assert stats["chunks"] == 1 and least * stats["bytes"] <= count.peak - before <= stats["bytes"]
        forget_last_states(engine)
        assert count.live == before


# With many outcomes, one backward sweep for each of them would take long under emulation.
@pytest.mark.parametrize(
    ("mode", "num_outcomes"),
    [(mode, k) for mode in MODES for k in (1, 2, 64, 1 << 14) if mode != "jacobian" or k <= 2],
)
def test_a_prediction_without_a_device_says_what_the_engine_says(mode, num_outcomes, dtype):
    question = question_of(14, np.arange(1 << 14) % num_outcomes, num_outcomes, num_rows=2)
    columns = np.random.default_rng(1).normal(size=question[2].shape)
    question = *question[:2], columns, question[3]
    options = {**options_of(mode, 2 * num_outcomes), "dtype": dtype}
    actual = ask(CudaEngine(EmulatedRuntime(num_multiprocessors=1000)), *question, **options).stats["bytes"]
    counts = {"num_observables": num_outcomes, "num_outcomes": num_outcomes}
    foreseen = predict(
        question[0], 2, REVERSE, dtype, gradient=mode != "values", per_row=mode == "cotangents", **counts
    )
    assert foreseen.bytes == actual


def test_a_prediction_leaves_room_for_the_lists():
    plan = question_of(12, None, None)[0]
    counts = {"num_observables": 2, "num_outcomes": 2, "gradient": False}
    whole = predict(plan, 1, **counts)
    assert predict(plan, 1, **counts, limit=whole.bytes + (8 << 12)).num_chunks == 0
    assert predict(plan, 1, **counts, limit=whole.bytes + (10 << 12)).num_chunks == 1


@pytest.mark.parametrize("mode", ["jacobian", "cotangents"])
def test_gradients_begin_with_the_last_states_of_values_of_the_same_rows(mode, dtype):
    question = question_of(8, skewed(8, 3), 3)
    options = {**options_of(mode, 9), "dtype": dtype}
    expected = ask(engine_on(), *question, **options)
    engine = engine_on()
    values = ask(engine, *question, dtype=dtype)
    actual = ask(engine, *question, **options)
    assert actual.stats["sweeps"] == expected.stats["sweeps"] - values.stats["sweeps"]
    assert_equal_bits(actual, expected)


@pytest.mark.parametrize("mode", ["jacobian", "cotangents"])
@pytest.mark.parametrize("method", [REVERSE, Method("checkpoint", 2)], ids=lambda method: method.name)
def test_gradients_of_start_states_and_final_states_come_with_outcomes(mode, method, dtype):
    question = question_of(6, skewed(6, 4), 4, any_start=True)
    states = np.random.default_rng(5).normal(size=(3, 64, 2)) @ [1, 1j]
    options = {**options_of(mode, 12), "ends": Ends(states / np.linalg.norm(states, axis=1, keepdims=True), True)}
    expected = ask(ReferenceEngine(), *question, **options)
    actual = ask(engine_on(check=True), *question, **options, dtype=dtype, method=method)
    assert_agree(actual, expected, dtype)
    np.testing.assert_allclose(
        actual.state_gradients, expected.state_gradients, atol=1e-11 if dtype == "complex128" else 1e-4
    )


def test_rows_without_pairs_have_no_gradient():
    plan, outcomes, columns, _ = question_of(7, skewed(7, 3), 3, num_rows=4)
    pairs = np.array([0, 2, 2], np.int32), np.array([2, 0, 1], np.int32)
    plan = fuse_program(plan.program, None)
    options = {"gradient": True, "cotangents": np.array([1.0, -2.0, 0.5])}
    actual = ask(engine_on(check=True), plan, outcomes, columns, pairs, **options, ends=Ends(final=True))
    assert_agree(actual, ask(ReferenceEngine(), plan, outcomes, columns, pairs, **options), "complex128")
    assert not actual.gradients[[1, 3]].any() and actual.final_states.shape == (4, 128)


def test_lists_are_copied_to_the_device_once_and_give_way_to_others(monkeypatch):
    made, make = [], engine_module.device_outcomes

    def counted(*arguments):
        made.append(make(*arguments))
        return made[-1]

    monkeypatch.setattr(engine_module, "device_outcomes", counted)
    question, engine = question_of(8, None, None), engine_on()
    for options in ({}, options_of("cotangents", 3 * 256), {}):
        ask(engine, *question, **options)
    assert len(made) == 1 and made[0].num_bytes >= (8 + 12) << 8
    limited = engine_on(memory_limit=200_000)  # lists may keep a quarter of the limit
    for seed in range(30):
        ask(limited, *question_of(8, skewed(8, 5, seed), 5))
    kept = limited._observables.values()
    assert 1 < len(kept) < 30 and sum(outcomes.num_bytes for outcomes in kept) <= 50_000


def test_a_list_that_takes_more_than_all_others_is_kept_alone():
    engine = engine_on(memory_limit=60_000)  # lists may keep a quarter, unless one list takes more
    for seed in range(3):
        ask(engine, *question_of(5, None, None, num_rows=1))
        question = question_of(11, skewed(11, 5, seed), 5, num_rows=1)
        for _ in range(2):
            ask(engine, *question)
            (kept,) = engine._observables.values()
            assert kept.num_bytes > 15_000


@pytest.mark.parametrize("gradient", [False, True])
def test_outcomes_that_do_not_fit_are_refused_before_they_are_made(gradient, dtype):
    question = question_of(12, None, None, num_rows=1)
    runtime = EmulatedRuntime(memory=110_000)
    count, engine = count_allocations(runtime), engine_on(runtime)
    for _ in range(2):
        before = count.peak
        with pytest.raises(DoesNotFit) as refused:
            ask(engine, *question, gradient=gradient, dtype=dtype)
    assert count.peak == before and "outcome" not in vars(question[1].restrict(question[0].wires))
    for part in ("the statevector of 12 qubits and the outcomes", f"GiB in {dtype}", "of emulated", "device='cpu'"):
        assert part in str(refused.value)


def test_states_that_do_not_fit_beside_the_outcomes_are_refused():
    question, engine = question_of(10, None, None, num_rows=1), engine_on(memory_limit=1 << 20)
    ask(engine, *question)
    (kept,) = engine._observables.values()
    engine.memory_limit = kept.num_bytes + (16 << 10)  # the statevector alone
    with pytest.raises(DoesNotFit, match="may be used beside the outcomes of its amplitudes"):
        ask(engine, *question)


def test_more_amplitudes_than_a_list_can_number_are_refused():
    circuit = real_amplitudes(32, reps=1, entanglement="full")
    outcomes = Outcomes(32, [0])
    plan = fuse_program(lower(circuit), outcomes.support(32))
    engine = engine_on(memory=1 << 50)
    with pytest.raises(DoesNotFit, match="at most 31 qubits, and the measured qubits see 32 qubits"):
        ask(engine, plan, outcomes, np.zeros((1, plan.program.num_columns)), all_pairs(1, 2))


def test_work_does_not_grow_with_outcomes_times_amplitudes(dtype):
    """The emulation counts the sectors of memory that the kernels of outcomes read and write."""
    sectors = {}
    for num_outcomes in (1, 2, 32, 1024):
        question = question_of(10, np.arange(1024) % num_outcomes, num_outcomes)
        runtime = EmulatedRuntime(check=True)
        with runtime.trace():
            ask(CudaEngine(runtime), *question, **options_of("cotangents", 3 * num_outcomes), dtype=dtype)
        sectors[num_outcomes] = sum(site.passes for site in runtime.sites() if site.file == "outcomes.cu")
    assert sectors[1024] < 6 * sectors[1]
