# SPDX-License-Identifier: Apache-2.0
"""Methods of the CUDA engine: the states it keeps, their bytes and sweeps; gradients are the same for all methods."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from asking import ask
from cuda_emulation import EmulatedRuntime, missing_tools
from engine_cases import all_pairs, assert_agree, plan_of, random_circuit, random_observables, rows_of, total_z
from qiskit.circuit import ParameterVector, QuantumCircuit
from qiskit.quantum_info import random_statevector

from qiskit_fused.engines.checkpointing import BACK, FORWARD, num_steps, schedule_of
from qiskit_fused.engines.cuda import evaluation as cuda_run
from qiskit_fused.engines.cuda import throttle
from qiskit_fused.engines.cuda.engine import CudaEngine
from qiskit_fused.engines.cuda.memory import predict
from qiskit_fused.engines.cuda.throttle import Pace
from qiskit_fused.engines.interface import DoesNotFit
from qiskit_fused.engines.reference import ReferenceEngine
from qiskit_fused.options.method import REVERSE, Method

pytestmark = pytest.mark.skipif(missing_tools() is not None, reason=str(missing_tools()))

METHODS = {
    "reverse": REVERSE,
    "store": Method("store"),
    "what fits": Method("checkpoint"),
    "one state": Method("checkpoint", num_states=1),
    "three states": Method("checkpoint", num_states=3),
    "two segments": Method("checkpoint", num_segments=2),
}
KEPT = [name for name in METHODS if name != "reverse"]
WEIGHTS = np.linspace(-1.5, 2, 12)


def deep_question(num_qubits=7, num_rows=3, num_observables=2):
    """Return plan, observables, columns and all pairs; the circuit takes several passes over tiles of 5 qubits."""
    circuit, parameters = QuantumCircuit(num_qubits), ParameterVector("q", num_qubits)
    for layer in range(4):
        if layer == 2:
            circuit.compose(random_circuit(num_qubits, 15, seed=3), inplace=True)
        for qubit in range(num_qubits):
            circuit.rx(parameters[qubit], qubit)
            circuit.cz(qubit, (qubit + 1) % num_qubits)
            circuit.ry(parameters[qubit] + qubit, qubit)
    observables = [total_z(num_qubits), *random_observables(num_qubits, 1), *random_observables(num_qubits, 2)]
    plan, operators = plan_of(circuit, observables[:num_observables])
    return plan, operators, rows_of(plan.program, num_rows=num_rows), all_pairs(num_rows, num_observables)


def engine_on(runtime=None):
    return CudaEngine(runtime or EmulatedRuntime(), max_tile_qubits=5)


def engine_with(chunk_bytes, **options):
    """Return an engine whose chunks may take ``chunk_bytes`` bytes, nine tenths of the free memory."""
    return engine_on(EmulatedRuntime(memory=-(-10 * chunk_bytes // 9), **options))


def options_of(mode, num_pairs=6):
    return {"gradient": True} | ({"cotangents": WEIGHTS[:num_pairs]} if mode == "cotangents" else {})


def num_passes(question):
    return ask(engine_on(), *question).stats["sweeps"]


@pytest.mark.parametrize("mode", ["jacobian", "cotangents"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_the_same_gradients(method, mode, dtype):
    question, options = deep_question(), options_of(mode)
    assert num_passes(question) >= 6
    engine = engine_on(EmulatedRuntime(check=True, seed=3))
    actual = ask(engine, *question, **options, dtype=dtype, method=METHODS[method])
    assert_agree(actual, ask(ReferenceEngine(), *question, **options), dtype)
    assert actual.stats["method"] == METHODS[method].name
    # All methods that keep states give the same bits, however often they recompute the states.
    stored = ask(engine, *question, **options, dtype=dtype, method=METHODS["store"])
    assert method == "reverse" or np.array_equal(actual.gradients, stored.gradients)
    assert np.array_equal(actual.values, stored.values)


@pytest.mark.parametrize("method", METHODS)
def test_a_start_state_is_made_again(method, dtype):
    circuit = QuantumCircuit(7)
    circuit.initialize(random_statevector(4, seed=7).data, [0, 6])
    circuit.compose(random_circuit(7, 25, seed=5), inplace=True)
    plan, operators = plan_of(circuit, random_observables(7, 8))
    question = plan, operators, rows_of(plan.program), all_pairs(3, 2)
    actual = ask(engine_on(), *question, gradient=True, imaginary=False, dtype=dtype, method=METHODS[method])
    assert_agree(actual, ask(ReferenceEngine(), *question, gradient=True), dtype)


def test_steps_and_states_are_those_of_the_schedule():
    question = deep_question()
    passes = num_passes(question)
    expected = {
        "reverse": (1, passes),
        "store": (passes, passes),
        "what fits": (passes, passes),
        "one state": (1, num_steps(passes, 1)),
        "three states": (3, num_steps(passes, 3)),
        "two segments": (1 + passes - passes // 2, passes + passes // 2 - 1),
    }
    for name, (states, steps) in expected.items():
        stats = ask(engine_on(), *question, gradient=True, method=METHODS[name]).stats
        assert (stats["states"], stats["sweeps"]) == (states, steps + passes), name
    assert "method" not in ask(engine_on(), *question, method=METHODS["store"]).stats


def test_a_circuit_of_one_pass_keeps_its_only_state_whatever_the_method():
    question = deep_question(num_qubits=5)
    actual = [ask(engine_on(), *question, gradient=True, method=method) for method in METHODS.values()]
    assert {one.stats["states"] for one in actual} == {1} and {one.stats["sweeps"] for one in actual} == {2}
    assert len({one.stats["bytes"] for one in actual}) == 1
    assert all(np.array_equal(one.gradients, actual[0].gradients) for one in actual)


def test_a_circuit_without_gates_has_no_states_to_keep():
    plan, operators = plan_of(QuantumCircuit(2), total_z(2))
    for method in METHODS.values():
        actual = ask(engine_on(), plan, operators, np.zeros((1, 0)), all_pairs(1, 1), gradient=True, method=method)
        assert actual.values == [2.0] and actual.gradients.shape == (1, 0)


@pytest.mark.parametrize("mode", ["jacobian", "cotangents"])
def test_checkpoints_take_the_memory_that_there_is(mode):
    question, options = deep_question(), options_of(mode)
    passes = num_passes(question)
    whole = ask(engine_with(1 << 30, num_multiprocessors=1), *question, **options, method=Method("checkpoint"))
    assert whole.stats["states"] == passes and whole.stats["chunks"] == 1
    limit, states, sweeps = whole.stats["bytes"], [], []
    while True:
        limit_that_fits, limit = limit, int(limit * 0.8)
        try:
            actual = ask(engine_with(limit, num_multiprocessors=1), *question, **options, method=Method("checkpoint"))
        except DoesNotFit:
            break
        assert actual.stats["bytes"] <= limit
        assert np.array_equal(actual.gradients, whole.gradients)
        states.append(actual.stats["states"])
        sweeps.append(actual.stats["sweeps"])
    assert len(set(states)) >= 4 and states[0] > passes // 2 and states[-1] <= 2
    assert sweeps[0] < sweeps[-1]
    # The least limit that fits is about the bytes of methods with one state.
    for name in ("one state", "reverse"):
        least = ask(engine_with(limit_that_fits), *question, **options, method=METHODS[name])
        assert np.allclose(least.gradients, whole.gradients)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", ["jacobian", "cotangents"])
def test_results_do_not_depend_on_chunks_bit_for_bit(mode, method):
    question = deep_question(num_rows=4, num_observables=3)
    options = options_of(mode, 12) | {"method": METHODS[method]}
    whole = ask(engine_on(), *question, **options)
    for share in (0.7, 0.5):
        actual = ask(engine_with(int(share * whole.stats["bytes"])), *question, **options)
        assert actual.stats["chunks"] > 1 or method == "what fits"
        assert np.array_equal(actual.gradients, whole.gradients) and np.array_equal(actual.values, whole.values)


@pytest.mark.parametrize(
    ("method", "cure"),
    [
        ("store", "use method='checkpoint', method='reverse'"),
        ("two segments", "method='checkpoint' without num_segments"),
    ],
)
def test_states_that_do_not_fit_are_refused_with_their_number_and_the_cure(method, cure):
    question = deep_question(num_rows=1, num_observables=1)
    fitting = ask(engine_on(), *question, gradient=True, method=METHODS[method]).stats
    engine = engine_with(fitting["bytes"] - 1)
    with pytest.raises(DoesNotFit) as refused:
        ask(engine, *question, gradient=True, method=METHODS[method])
    text = str(refused.value)
    kept = (
        f"the {fitting['states']} statevectors that method='{METHODS[method].name}' keeps and the cotangent of 7 qubits"
    )
    assert kept in text and cure in text, text
    for other in (REVERSE, Method("checkpoint")):
        ask(engine, *question, gradient=True, method=other)
    # Without gradients, no state is kept.
    ask(engine, *question, method=METHODS[method])


def test_too_little_for_one_state_is_refused_by_every_checkpoint():
    question = deep_question(num_rows=1, num_observables=1)
    least = ask(engine_on(), *question, gradient=True, method=METHODS["one state"]).stats["bytes"]
    ask(engine_with(least), *question, gradient=True, method=Method("checkpoint"))
    with pytest.raises(DoesNotFit, match="the statevector and cotangent of 7 qubits"):
        ask(engine_with(least - 1), *question, gradient=True, method=Method("checkpoint"))


@pytest.mark.parametrize("num_qubits", [5, 14])
@pytest.mark.parametrize("method", METHODS)
def test_a_prediction_without_a_device_says_what_the_engine_says(method, num_qubits, dtype):
    plan, operators = plan_of(random_circuit(num_qubits, 8, seed=3), random_observables(num_qubits, 1))
    columns = np.random.default_rng(1).normal(size=(2, plan.program.num_columns))
    runtime = EmulatedRuntime(num_multiprocessors=132)
    for gradient in (False, True):
        options = {"gradient": gradient, "method": METHODS[method]}
        actual = ask(CudaEngine(runtime), plan, operators, columns, all_pairs(2, 2), **options, dtype=dtype).stats
        foreseen = predict(plan, 2, METHODS[method], dtype, gradient=gradient, num_observables=2)
        assert (foreseen.bytes, foreseen.num_chunks) == (actual["bytes"], 1)
        assert foreseen.num_states == actual.get("states", 1)
        assert foreseen.num_steps + foreseen.num_positions * gradient == actual["sweeps"]


def test_a_prediction_keeps_to_a_limit_or_says_that_nothing_fits():
    plan = deep_question()[0]
    whole = predict(plan, 8, Method("store"), "complex64")
    parts = predict(plan, 8, Method("store"), "complex64", limit=whole.bytes // 3)
    assert whole.num_chunks == 1 and parts.num_chunks >= 3 and parts.bytes <= whole.bytes // 3
    assert predict(plan, 8, Method("store"), "complex64", limit=1000).num_chunks == 0


# The tests below plant bugs in schedules.


def plant(monkeypatch, edit):
    """Make the engine follow a schedule whose actions ``edit`` has changed."""
    choose = cuda_run.choose_schedule

    def wrong(*arguments):
        schedule = choose(*arguments)
        return replace(schedule, actions=edit(schedule.actions.copy()))

    monkeypatch.setattr(cuda_run, "choose_schedule", wrong)


def agrees(question, method):
    expected = ask(ReferenceEngine(), *question, gradient=True)
    actual = ask(engine_on(EmulatedRuntime(check=True)), *question, gradient=True, method=method)
    try:
        assert_agree(actual, expected, "complex128")
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("method", ["store", "three states", "two segments"])
def test_a_state_from_the_wrong_place_is_noticed(method, monkeypatch):
    question = deep_question(num_rows=2, num_observables=1)
    schedule = schedule_of(METHODS[method], num_passes(question))
    actions = schedule.actions.tolist()
    assert agrees(question, METHODS[method])
    turn = next(k for k, action in enumerate(actions) if action[0] == BACK)
    restored = [k for k, (kind, position, *_) in enumerate(actions) if kind == FORWARD and position > 1 and k > turn]
    used = [k for k, action in enumerate(actions) if action[0] == BACK]
    assert restored or method == "store"
    for k, shift in itertools.product([*restored[:3], *used[:2], used[-1]], (1, schedule.num_states - 1)):

        def edit(edited, k=k, shift=shift):
            edited[k, 2] = (edited[k, 2] + shift) % schedule.num_states
            return edited

        with monkeypatch.context() as planted:
            plant(planted, edit)
            assert not agrees(question, METHODS[method]), (actions[k], shift)


# The tests below are about progress and stopping.


@pytest.mark.parametrize("method", METHODS)
def test_steps_grow_to_their_total_sweep_by_sweep(method, monkeypatch):
    monkeypatch.setattr(throttle, "FIRST_AHEAD", 1)
    monkeypatch.setattr(throttle, "LEAST_WAIT", 0)
    question, told = deep_question(), []
    whole = ask(engine_on(), *question, gradient=True, method=METHODS[method])
    limit = int(0.6 * whole.stats["bytes"])

    def watch(done, total):
        told.append((done, total))
        return False

    actual = ask(engine_with(limit), *question, gradient=True, method=METHODS[method], watch=watch)
    (total,) = {total for _, total in told}
    done = [done for done, _ in told]
    assert done == sorted(done) and done[0] == 0 and done[-1] == total
    assert len(told) > actual.stats["sweeps"]


def test_an_evaluation_that_begins_again_goes_on_counting():
    told = []
    runtime = EmulatedRuntime()
    engine, failures = engine_on(runtime), iter([False] * 5 + [True])
    question = deep_question()
    ask(engine, *question, gradient=True)
    empty = runtime.xp.empty

    def failing(*arguments, **options):
        if next(failures, False):
            raise MemoryError
        return empty(*arguments, **options)

    runtime.xp.empty = failing
    actual = ask(engine, *question, gradient=True, watch=lambda *steps: told.append(steps))
    assert next(failures, None) is None and actual.stats["chunks"] > 1
    assert told[0][0] == 0 and told[-1][0] == told[-1][1] > told[0][1]
    assert all(now[0] >= before[0] and now[1] >= before[1] for before, now in itertools.pairwise(told))


@pytest.mark.parametrize(("speed", "longest"), [(1e8, 1.4), (3e10, 0.25), (1e12, 0.25)])
def test_the_host_waits_often_for_any_device(speed, longest, monkeypatch):
    """The device has a given speed, in amplitudes per second of a simulated clock.

    The host waits for a slow device after every sweep, and for a fast device after more and more sweeps.
    """
    clock, queued, waits = [0.0], [0], []

    class Device:
        def synchronize(self):
            clock[0] += queued[0] / speed
            queued[0] = 0

    monkeypatch.setattr(throttle.time, "perf_counter", lambda: clock[0])
    pace = Pace(Device(), lambda *steps: waits.append(clock[0]))
    sweeps = 3000
    pace.expect(sweeps)
    for _ in range(sweeps):
        pace.launch(1, 1 << 27)
        queued[0] += 1 << 27
        clock[0] += 1e-5
    between = np.diff(waits)
    assert between.max() <= max(longest, 2 * 2**28 / speed)
    assert len(waits) <= sweeps + 1
    if speed > 1e9:  # the host seldom waits for a fast device
        assert np.median(between) > 0.02
