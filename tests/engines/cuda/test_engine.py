# SPDX-License-Identifier: Apache-2.0
"""The work of the CUDA engine around its kernels: chunks, memory, retries, statistics, stopping, threads, devices."""

import logging
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from asking import Ends, ask
from cuda_cases import count_allocations, engine_on, forget_last_states
from cuda_emulation import EmulatedRuntime, missing_tools
from engine_cases import (
    TOLERANCE,
    all_pairs,
    assert_agree,
    plan_of,
    random_circuit,
    random_observables,
    rows_of,
    total_z,
)
from qiskit.quantum_info import SparsePauliOp

from qiskit_fused.engines.cuda import evaluation, records, throttle
from qiskit_fused.engines.cuda.engine import CudaEngine
from qiskit_fused.engines.cuda.memory import predict
from qiskit_fused.engines.reference import ReferenceEngine
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.options.method import Method

pytestmark = pytest.mark.skipif(missing_tools() is not None, reason=str(missing_tools()))

WEIGHTS = np.linspace(-1.5, 2, 12)
MODES = {
    "values": {"gradient": False},
    "jacobian": {"gradient": True},
    "cotangents": {"gradient": True, "cotangents": WEIGHTS},
}


def make_question(num_qubits=8, num_rows=6, num_observables=2, num_gates=20):
    """Return a plan, observables, columns and all pairs."""
    observables = random_observables(num_qubits, 1)
    paulis = ["X", "Y", "Z", "XY", "ZZ", "YI", "IX"]
    observables += [
        SparsePauliOp((paulis[k] + "I" * num_qubits)[:num_qubits], 0.3 + k) for k in range(num_observables - 2)
    ]
    plan, operators = plan_of(random_circuit(num_qubits, num_gates, seed=2), observables)
    return plan, operators, rows_of(plan.program, num_rows=num_rows), all_pairs(num_rows, num_observables)


def assert_equal_bits(actual, expected):
    assert np.array_equal(actual.values, expected.values)
    assert (actual.gradients is None) == (expected.gradients is None)
    assert expected.gradients is None or np.array_equal(actual.gradients, expected.gradients)


@pytest.mark.parametrize("mode", MODES)
def test_results_do_not_depend_on_chunks_bit_for_bit(mode, dtype):
    question = make_question()
    options = {**MODES[mode], "dtype": dtype}
    whole = ask(engine_on(), *question, **options)
    assert whole.stats["chunks"] == 1
    assert_agree(whole, ask(ReferenceEngine(), *question, **MODES[mode]), dtype)

    memory, chunks = int(whole.stats["bytes"] / 0.9), [1]
    while True:
        memory = int(memory * 0.7)
        try:
            actual = ask(engine_on(memory=memory), *question, **options)
        except MemoryError:
            break
        assert_equal_bits(actual, whole)
        assert actual.stats["bytes"] <= 0.9 * memory
        chunks.append(actual.stats["chunks"])
    assert chunks == sorted(chunks)
    # With the least memory, a chunk has the states of one row, or of one pair.
    assert 2 in chunks and chunks[-1] >= (12 if mode == "jacobian" else 6)


def test_a_row_with_many_observables_is_split(dtype):
    question = make_question(num_rows=2, num_observables=7)
    whole = ask(engine_on(), *question, gradient=True, dtype=dtype)
    actual = ask(engine_on(memory_limit=whole.stats["bytes"] // 3), *question, gradient=True, dtype=dtype)
    assert actual.stats["chunks"] >= 4
    assert_equal_bits(actual, whole)
    weights = WEIGHTS[np.arange(14) % 12]
    whole = ask(engine_on(), *question, gradient=True, cotangents=weights, dtype=dtype)
    limit = int(0.7 * whole.stats["bytes"])
    actual = ask(engine_on(memory_limit=limit), *question, gradient=True, cotangents=weights, dtype=dtype)
    assert actual.stats["chunks"] == 2
    assert_equal_bits(actual, whole)


def test_chunks_stay_in_the_l2_cache_where_they_still_fill_the_device():
    question = make_question(num_rows=8)
    options = {"gradient": True, "dtype": "complex64"}
    one = ask(engine_on(l2_bytes=1 << 30, num_multiprocessors=1), *question, **options)
    cached = ask(engine_on(l2_bytes=one.stats["bytes"] // 2, num_multiprocessors=1), *question, **options)
    assert one.stats["chunks"] == 1 and cached.stats["chunks"] >= 3
    assert cached.stats["bytes"] <= one.stats["bytes"] // 2
    assert_equal_bits(cached, one)
    # Smaller chunks would leave a device of many multiprocessors idle. They would also gain nothing if one window holds
    # all qubits, because every amplitude is then read once.
    wide = ask(engine_on(l2_bytes=one.stats["bytes"] // 2, num_multiprocessors=1000), *question, **options)
    assert wide.stats["chunks"] == 1
    single = ask(engine_on(l2_bytes=1000, num_multiprocessors=1, tile_qubits=8), *question, **options)
    assert single.stats["chunks"] == 1 and single.stats["sweeps"] == 2


@pytest.mark.parametrize("gradient", [False, True])
def test_what_does_not_fit_is_refused_with_figures_and_a_cure_before_anything_is_allocated(gradient, dtype):
    question = make_question(num_qubits=12, num_rows=1)
    runtime = EmulatedRuntime(memory=30_000)
    count = count_allocations(runtime)
    engine = engine_on(runtime)
    with pytest.raises(MemoryError) as refused:
        ask(engine, *question, gradient=gradient, dtype=dtype)
    text = str(refused.value)
    what = "statevector and cotangent" if gradient else "statevector"
    for part in (f"the {what} of 12 qubits", f"GiB in {dtype}", "of emulated 2.51e-05 GiB may be used", "device='cpu'"):
        assert part in text, text
    assert ("dtype='complex64'" in text) == (dtype == "complex128")
    before = count.peak
    with pytest.raises(MemoryError):
        ask(engine, *question, gradient=gradient, dtype=dtype)
    assert count.peak == before
    runtime.memory = 1 << 30
    ask(engine, *question, gradient=gradient, dtype=dtype)


@pytest.mark.parametrize("method", ["reverse", "store", "checkpoint"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.slow
def test_bytes_are_predicted(mode, method, dtype):
    options = {**MODES[mode], "dtype": dtype, "method": Method(method, 3 if method == "checkpoint" else None)}
    for num_qubits, least in ((3, 0.0), (8, 0.85), (10, 0.85), (11, 0.85)):
        question = make_question(num_qubits, num_rows=3, num_observables=4)
        runtime = EmulatedRuntime(num_multiprocessors=1000)
        count = count_allocations(runtime)
        for tile_qubits in (4, 5, num_qubits):
            engine = engine_on(runtime, tile_qubits=tile_qubits)
            ask(engine, *question, **options)  # plan and observables stay on the device
            forget_last_states(engine)
            count.peak = before = count.live
            stats = ask(engine, *question, **options).stats
            predicted = stats["bytes"]
            assert stats["chunks"] == 1
            assert least * predicted <= count.peak - before <= predicted
            forget_last_states(engine)
            assert count.live == before
    del engine
    assert count.live == 0


def question_with_starts(num_qubits=8, num_rows=6, num_observables=2):
    """Return a question, and keywords with a start state for each row."""
    plan, operators, columns, pairs = make_question(num_qubits, num_rows, num_observables)
    states = np.random.default_rng(5).normal(size=(num_rows, 1 << num_qubits, 2)) @ [1, 1j]
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    plan = fuse_program(plan.program.from_any_state(), None)
    return (plan, operators, columns, pairs), {"ends": Ends(states, True)}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["reverse", "store", "checkpoint"])
@pytest.mark.parametrize("mode", MODES)
def test_bytes_of_start_states_are_predicted(mode, method, dtype):
    method = Method(method, 3 if method == "checkpoint" else None)
    for num_qubits, least in ((3, 0.0), (9, 0.85)):
        question, starts = question_with_starts(num_qubits, 3, 4)
        options = {**MODES[mode], **starts, "dtype": dtype, "method": method}
        runtime = EmulatedRuntime(num_multiprocessors=1000)
        count = count_allocations(runtime)
        engine = engine_on(runtime)
        ask(engine, *question, **options)
        count.peak = before = count.live
        predicted = ask(engine, *question, **options).stats["bytes"]
        assert least * predicted <= count.peak - before <= predicted
        assert count.live == before
    question, starts = question_with_starts(14, 3, 2)
    question = question[0], question[1], np.random.default_rng(1).normal(size=question[2].shape), question[3]
    if mode != "cotangents":
        options = {**MODES[mode], **starts, "dtype": dtype, "method": method}
        actual = ask(CudaEngine(EmulatedRuntime(num_multiprocessors=1000)), *question, **options).stats["bytes"]
        foreseen = predict(question[0], 3, method, dtype, gradient=mode != "values", num_observables=2)
        assert foreseen.bytes == actual


@pytest.mark.parametrize("method", ["reverse", "checkpoint"])
@pytest.mark.parametrize("mode", MODES)
def test_start_states_do_not_depend_on_chunks_bit_for_bit(mode, method, dtype):
    question, starts = question_with_starts()
    options = {**MODES[mode], **starts, "dtype": dtype, "method": Method(method, 1 if method == "checkpoint" else None)}
    whole = ask(engine_on(), *question, **options)
    assert_agree(whole, ask(ReferenceEngine(), *question, **MODES[mode], **starts), dtype)
    runtime = EmulatedRuntime(memory=int(whole.stats["bytes"] / 0.9 / 3))
    count = count_allocations(runtime)
    engine = engine_on(runtime)
    ask(engine, *question, **options)
    count.peak = before = count.live  # the plan and the observables
    actual = ask(engine, *question, **options)
    assert actual.stats["chunks"] >= 3
    assert_equal_bits(actual, whole)
    assert mode == "values" or np.array_equal(actual.state_gradients, whole.state_gradients)
    assert count.peak - before <= actual.stats["bytes"]


class OutOfMemory(Exception):
    """The error that a device raises, in the place of CuPy's error."""


def fail_allocations(runtime, fails):
    """Make runtime.xp.empty raise for arrays whose number of bytes ``fails`` accepts."""
    empty, runtime.out_of_memory = runtime.xp.empty, OutOfMemory

    def failing(shape, dtype=float):
        array = empty(shape, dtype)
        if fails(array.nbytes):
            raise OutOfMemory
        return array

    runtime.xp.empty = failing


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("failing", [0, 3, 5])
def test_a_device_that_runs_out_of_memory_is_asked_again_for_less(mode, failing, caplog):
    question = make_question()
    expected = ask(engine_on(), *question, **MODES[mode])
    runtime, allocations = EmulatedRuntime(), iter(range(1 << 20))
    engine = engine_on(runtime)
    ask(engine, *question, **MODES[mode])
    fail_allocations(runtime, lambda size: next(allocations) == failing)
    with caplog.at_level(logging.WARNING, logger="qiskit_fused"):
        actual = ask(engine, *question, **MODES[mode])
    assert_equal_bits(actual, expected)
    assert actual.stats["chunks"] >= 2 and actual.stats["bytes"] <= expected.stats["bytes"] // 2
    (record,) = caplog.records
    assert "out of memory" in record.message and str(expected.stats["bytes"] // 2) in record.message


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_observables", [2, 7])
def test_a_device_that_never_has_enough_memory_ends_with_its_error(mode, num_observables):
    # One row has hundreds of pairs; with cotangents, the pairs of a row stay in one chunk.
    plan, operators, columns, pairs = make_question(num_rows=1, num_observables=num_observables)
    pairs = tuple(np.tile(part, 100) for part in pairs)
    options = dict(MODES[mode])
    if "cotangents" in options:
        options["cotangents"] = np.ones(len(pairs[0]))
    runtime, tries = EmulatedRuntime(), iter(range(100))
    engine = engine_on(runtime)
    ask(engine, plan, operators, columns, pairs, **options)
    fail_allocations(runtime, lambda size: next(tries) >= 0)
    with pytest.raises((OutOfMemory, MemoryError)):
        ask(engine, plan, operators, columns, pairs, **options)


def test_statistics_name_device_kernels_sweeps_chunks_and_bytes(dtype):
    actual = ask(engine_on(), *make_question(), gradient=True, dtype=dtype)
    assert actual.stats["gpu"] == "emulated"
    assert f"2^5 amplitudes, {16 if dtype == 'complex64' else 8} a thread" in actual.stats["kernels"]
    assert {"sweeps", "chunks", "bytes"} <= set(actual.stats)
    assert actual.stats["sweeps"] > 3 and actual.stats["chunks"] == 1 and actual.stats["bytes"] > 0
    values = ask(engine_on(), *make_question(), dtype=dtype)
    assert values.stats["sweeps"] < actual.stats["sweeps"]


@pytest.mark.parametrize("mode", MODES)
def test_watch_ends_an_evaluation_with_an_error_wherever_it_is(mode, monkeypatch):
    monkeypatch.setattr(throttle, "FIRST_AHEAD", 1)
    monkeypatch.setattr(throttle, "LEAST_WAIT", 0)  # makes the host wait for every sweep
    question = make_question()
    engine, watched = engine_on(memory_limit=60_000), []
    expected = ask(engine, *question, **MODES[mode], watch=lambda done, total: watched.append(0))
    assert len(watched) > expected.stats["sweeps"]
    for last in {0, len(watched) // 2, len(watched) - 1}:
        answers = iter([False] * last + [True])
        with pytest.raises(RuntimeError, match="cancelled"):
            ask(engine, *question, **MODES[mode], watch=lambda done, total, answers=answers: next(answers))
    assert_equal_bits(ask(engine, *question, **MODES[mode]), expected)


@pytest.mark.parametrize(("num_qubits", "tile_qubits"), [(3, 3), (8, 5), (10, 10)])
@pytest.mark.slow
def test_the_order_of_blocks_and_threads_changes_no_bit(num_qubits, tile_qubits, dtype):
    question, runtime = make_question(num_qubits, num_rows=2), EmulatedRuntime(check=True)
    for mode in ("jacobian", "cotangents"):
        options = {**MODES[mode], "dtype": dtype}
        if "cotangents" in options:
            options["cotangents"] = WEIGHTS[:4]
        results = []
        for runtime.seed in (0, 1, 7, 1234):
            results.append(ask(engine_on(runtime, tile_qubits), *question, **options))
        for result in results[1:]:
            assert_equal_bits(result, results[0])


def test_threads_share_an_engine_with_little_memory():
    engine = engine_on(memory_limit=60_000)
    questions = [(make_question(n, num_rows=rows), mode) for n, rows in ((3, 6), (6, 6), (8, 6)) for mode in MODES]
    expected = [ask(engine_on(), *question, **MODES[mode]) for question, mode in questions]
    with ThreadPoolExecutor(4) as pool:
        actual = list(pool.map(lambda case: ask(engine, *case[0], **MODES[case[1]]), questions * 3))
    for result, reference in zip(actual, expected * 3):
        assert_equal_bits(result, reference)
    assert max(result.stats["chunks"] for result in actual) > 1


@pytest.mark.slow
@pytest.mark.parametrize(("shared_memory", "passes"), [(232448, 1), (65536, 2)])
def test_a_state_of_one_qubit_more_than_a_tile_is_one_tile_where_it_fits(shared_memory, passes, dtype):
    engine = CudaEngine(EmulatedRuntime(shared_memory_per_block=shared_memory))
    num_qubits = 13 if dtype == "complex64" else 12
    plan, operators = plan_of(random_circuit(num_qubits, 10, seed=4), total_z(num_qubits))
    question = plan, operators, rows_of(plan.program, num_rows=1), all_pairs(1, 1)
    actual = ask(engine, *question, gradient=True, dtype=dtype)
    assert (actual.stats["sweeps"] == 2) == (passes == 1)
    assert_agree(actual, ask(ReferenceEngine(), *question, gradient=True), dtype)


@pytest.mark.parametrize(("shared_memory", "tile_qubits"), [(65536, (11, 10)), (49152, (11, 10)), (232448, (12, 11))])
def test_tiles_fit_the_shared_memory_of_the_device(shared_memory, tile_qubits, dtype):
    engine = CudaEngine(EmulatedRuntime(shared_memory_per_block=shared_memory))
    expected = tile_qubits[dtype == "complex128"]
    assert engine.tile_qubits(dtype, 14) == expected
    # The emulated device refuses a launch that requests more shared memory than it has.
    plan, operators = plan_of(random_circuit(14, 10, seed=4), total_z(14))
    question = plan, operators, rows_of(plan.program, num_rows=1), all_pairs(1, 1)
    actual = ask(engine, *question, gradient=True, dtype=dtype)
    assert f"2^{expected} amplitudes" in actual.stats["kernels"]
    assert_agree(actual, ask(ReferenceEngine(), *question, gradient=True), dtype)


@pytest.mark.parametrize("mode", MODES)
def test_rows_that_no_pair_names_are_never_looked_at(mode, dtype):
    plan, operators, columns, _ = make_question(num_rows=5)
    rows, chosen = np.array([1, 1, 4], np.int32), np.array([1, 0, 1], np.int32)
    columns[[0, 2, 3]] = np.nan
    options = dict(MODES[mode])
    if "cotangents" in options:
        options["cotangents"] = np.array([1.0, -2.0, 0.5])
    actual = ask(engine_on(), plan, operators, columns, (rows, chosen), **options, dtype=dtype)
    expected = ask(ReferenceEngine(), plan, operators, columns, (rows, chosen), **options)
    assert_agree(actual, expected, dtype)
    if "cotangents" in options:
        assert not actual.gradients[[0, 2, 3]].any()


def test_nothing_is_read_that_was_not_written(dtype):
    """Arrays of the emulated device are NaN at first; with checks, shared memory is NaN at first, too."""
    question = make_question(num_qubits=6, num_rows=3)
    for tile_qubits in (4, 5, 6):
        engine = engine_on(check=True, tile_qubits=tile_qubits)
        for mode in ("values", "jacobian"):
            actual = ask(engine, *question, **MODES[mode], dtype=dtype)
            assert_agree(actual, ask(ReferenceEngine(), *question, **MODES[mode]), dtype)
    assert set(TOLERANCE) == {"complex64", "complex128"}


@pytest.mark.parametrize("mode", ["jacobian", "cotangents"])
def test_sums_over_tiles_read_no_number_that_no_tile_has_written(mode, dtype):
    """In most rows the X sum of a run is not needed, but the kernel that adds the tiles reads it for all rows."""

    class Watched(EmulatedRuntime):
        num_sums = 0

        def module(self, file, **defines):
            launched = super().module(file, **defines).function

            def function(name):
                return lambda grid, block, args, *rest: (
                    self.look(name, args),
                    launched(name)(grid, block, args, *rest),
                )

            return SimpleNamespace(function=function)

        def look(self, name, args):
            if name != "sum_tiles":
                return
            partial, units, num_tiles, num_partials, outputs, num_outputs = args[:6]
            used = outputs.view(records.OUTPUT)["partial"][:num_outputs]
            sums = partial[: units * num_tiles * num_partials].reshape(-1, num_partials)[:, used]
            assert np.isfinite(sums).all()
            self.num_sums += sums.size

    runtime = Watched()
    ask(engine_on(runtime), *make_question(), **MODES[mode], dtype=dtype)
    assert runtime.num_sums > 0


def test_a_chunk_has_no_more_rotations_than_32_bits_count(monkeypatch, dtype):
    plan, *_ = question = make_question(num_rows=40)
    whole = ask(engine_on(), *question, gradient=True, dtype=dtype)
    rotations = []

    class Watched(EmulatedRuntime):
        def module(self, file, **defines):
            launched = super().module(file, **defines).function

            def function(name):
                def launch(grid, block, args, *rest):
                    if name == "bind_runs":
                        rotations.append(args[-1].shape[0])
                    launched(name)(grid, block, args, *rest)

                return launch

            return SimpleNamespace(function=function)

    monkeypatch.setattr(evaluation, "_MAX_ROTATIONS", plan.num_runs + 25)
    cut = ask(engine_on(Watched()), *question, gradient=True, dtype=dtype)
    assert_equal_bits(cut, whole)
    assert len(rotations) == cut.stats["chunks"] > 1 and max(rotations) <= plan.num_runs + 25


def test_a_first_call_that_is_interrupted_leaves_nothing_half_made():
    class Interrupted(EmulatedRuntime):
        interrupts = 1

        def module(self, file, **defines):
            if file == "observe.cu" and self.interrupts:
                self.interrupts -= 1
                raise KeyboardInterrupt
            return super().module(file, **defines)

    question = make_question()
    engine = CudaEngine(Interrupted())
    with pytest.raises(KeyboardInterrupt):
        ask(engine, *question)
    expected = ask(CudaEngine(EmulatedRuntime()), *question)
    assert np.array_equal(ask(engine, *question).values, expected.values)


def test_diagonals_of_observables_are_kept_within_bounds():
    plan, _ = plan_of(random_circuit(6, 10, seed=1), total_z(6))
    columns = rows_of(plan.program, num_rows=1)
    engine, many = engine_on(), [plan_of(random_circuit(6, 1, seed=1), k * total_z(6))[1] for k in range(1, 101)]
    for observables in many:
        ask(engine, plan, observables, columns, all_pairs(1, 1))
    assert 0 < len(engine._observables) <= 64
    tight = engine_on(memory_limit=100_000)
    for observables in many:
        ask(tight, plan, observables, columns, all_pairs(1, 1))
    assert sum(kept.num_bytes for kept in tight._observables.values()) <= 25_000
