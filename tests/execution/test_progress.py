# SPDX-License-Identifier: Apache-2.0
"""The option ``progress``: one bar or one callback for all the work of a job."""

import re
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.circuit.library import real_amplitudes
from qiskit_machine_learning.gradients import DerivativeType

from qiskit_fused import FusedEstimator, FusedEstimatorGradient, FusedOptions
from qiskit_fused.common.cancellation import Cancellation, uninterrupted
from qiskit_fused.engines.interface import DoesNotFit, Evaluation
from qiskit_fused.engines.reference import ReferenceEngine
from qiskit_fused.execution import program_evaluation
from qiskit_fused.execution.progress import Part, Progress

CIRCUITS = [real_amplitudes(2, reps=1), real_amplitudes(3, reps=2)]
PUBS = [(CIRCUITS[0], "ZZ", np.zeros((5, 4))), (CIRCUITS[1], ["ZZZ", "XII"], np.zeros(9))]


class Callback:
    """A progress callback that keeps its arguments and the names of the threads that called it."""

    def __init__(self):
        self.calls, self.threads = [], set()

    def __call__(self, done, total):
        self.calls.append((done, total))
        self.threads.add(threading.current_thread().name)

    def check(self):
        """Assert that the steps rise from 0 to their total, and that the total is always the same."""
        done, totals = zip(*self.calls)
        assert done[0] == 0 and done[-1] == totals[0] > 0
        assert list(done) == sorted(done) and len(set(totals)) == 1


@pytest.fixture
def every_step(monkeypatch):
    """Call a progress callback at every step, without a least time between two calls."""
    monkeypatch.setattr("qiskit_fused.execution.progress._INTERVAL", 0)


@pytest.fixture
def engine(monkeypatch, every_step):
    """An engine whose results are zeros, in ten steps for each circuit; it calls ``engine.at(k)`` before step k."""

    def evaluate(fused, observables, request, watch=None):
        engine.num_evaluations += 1
        for step in range(11):
            engine.at(step)
            if watch(step, 10):
                raise RuntimeError("the evaluation was cancelled.")
        gradients = None if request.gradient is None else np.zeros((request.num_gradients, request.num_columns))
        return Evaluation(np.zeros(request.num_pairs), gradients)

    engine = SimpleNamespace(evaluate=evaluate, num_evaluations=0, at=lambda step: None)
    monkeypatch.setattr(program_evaluation, "engine_for", lambda *_: engine)
    return engine


@pytest.fixture
def bars(monkeypatch):
    """A list of the bars, which are shown without delay, each with the lines that it showed."""
    import tqdm.auto

    monkeypatch.setattr("qiskit_fused.execution.progress._BAR_AFTER", 0)

    class Bar(tqdm.auto.tqdm):
        def __init__(self, *args, **keywords):
            made.append(self)
            self.shown, self.closed = [], False
            super().__init__(*args, **keywords)

        def display(self, *args, **keywords):
            self.shown.append(str(self))
            return super().display(*args, **keywords)

        def close(self):
            self.closed = True
            super().close()

    made = []
    monkeypatch.setattr("tqdm.auto.tqdm", Bar)
    return made


# --- the callback ---


def test_the_thread_of_the_job_tells_a_callback_all_steps(device, every_step):
    callback = Callback()
    job = FusedEstimator(device=device, progress=callback).run(PUBS)
    plain = FusedEstimator(device=device).run(PUBS).result()
    for result, reference in zip(job.result(), plain):
        np.testing.assert_array_equal(result.data.evs, reference.data.evs)
    callback.check()
    [name] = callback.threads
    assert name.startswith("qiskit-fused")


def test_a_callback_is_told_all_steps_of_gradients(device, every_step):
    callback = Callback()
    gradient = FusedEstimatorGradient(device=device, progress=callback)
    gradient.run(CIRCUITS, ["ZZ", "ZZZ"], [np.zeros(4), np.zeros(9)]).result()
    callback.check()
    callback.calls.clear()
    gradient.value_and_gradient(CIRCUITS[1], ["ZZZ", "XII"], np.zeros((3, 9)))
    callback.check()


@pytest.mark.parametrize("derivative_type", DerivativeType)
def test_real_and_imaginary_parts_have_one_total_of_steps(engine, derivative_type):
    callback = Callback()
    gradient = FusedEstimatorGradient(progress=callback, derivative_type=derivative_type)
    gradient.value_and_gradient(CIRCUITS[0], "ZZ", np.zeros(4))
    callback.check()
    assert engine.num_evaluations == (2 if derivative_type is DerivativeType.COMPLEX else 1)


def test_a_callback_is_not_called_at_every_step(engine, monkeypatch):
    monkeypatch.setattr("qiskit_fused.execution.progress._INTERVAL", 1000)
    callback = Callback()
    FusedEstimator(progress=callback).run(PUBS).result()
    callback.check()
    assert len(callback.calls) == 2


@pytest.mark.parametrize("when", [0, 1, -1], ids=["begin", "middle", "end"])
def test_an_exception_in_a_callback_ends_the_job_and_is_raised_by_its_result(engine, when):
    callback, calls = Callback(), []
    FusedEstimator(progress=callback).run(PUBS).result()
    last = when % len(callback.calls)

    def fail(done, total):
        calls.append(done)
        if len(calls) > last:
            raise ValueError(f"no more than {done} steps")

    estimator = FusedEstimator(progress=fail)
    with pytest.raises(ValueError, match="no more than"):
        estimator.run(PUBS).result()
    assert len(calls) == last + 1
    estimator.options.progress = False
    assert len(estimator.run(PUBS).result()) == 2


def test_an_exception_in_a_callback_ends_the_work_of_each_engine(device, every_step):
    num_qubits, calls = 10, []
    circuit = real_amplitudes(num_qubits, reps=10)

    def fail(done, total):
        calls.append(done)
        if done > 0:
            raise ValueError(f"no more than {done} steps")

    with pytest.raises(ValueError, match="no more than"):
        FusedEstimatorGradient(device=device, progress=fail).value_and_gradient(
            circuit, "Z" * num_qubits, np.zeros((100, circuit.num_parameters))
        )
    assert [done > 0 for done in calls[-2:]] == [False, True]


def test_an_error_is_not_tried_again_when_the_circuit_is_the_same(engine):
    circuit = real_amplitudes(5, reps=100)
    gradient = FusedEstimatorGradient()
    gradient.value_and_gradient(circuit, "ZZZZZ", np.zeros(circuit.num_parameters))
    engine.at = lambda step: 1 // 0
    with pytest.raises(ZeroDivisionError):
        gradient.value_and_gradient(circuit, "ZZZZZ", np.zeros(circuit.num_parameters))
    assert engine.num_evaluations == 2


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_progress_is_true_false_or_a_callback(value):
    with pytest.raises(
        ValueError, match=r"option progress is .*; allowed: True, False, a function of done and total steps"
    ):
        FusedOptions(progress=value)
    assert FusedOptions(progress=print).changed() == {"progress": print}


# --- the bar ---


def test_one_bar_shows_the_whole_job(engine, bars, capsys):
    FusedEstimator(progress=True).run(PUBS).result()
    [bar] = bars
    assert bar.n == bar.total and bar.closed
    text = capsys.readouterr().err
    percentages = [int(number) for number in re.findall(r"(\d+)%", text)]
    assert percentages[0] == 0 and percentages[-1] == 100 and percentages == sorted(percentages)
    assert text.count("\n") == 1


def test_the_bar_says_what_runs_and_how_long_it_will_take(engine, bars):
    def look(step):
        if step == 6:
            bars[-1].refresh()

    engine.at = look
    gradient = FusedEstimatorGradient(progress=True)
    gradient.value_and_gradient(CIRCUITS[0], "ZZ", np.zeros((4, 4)))
    [text] = [text for text in bars[0].shown if "row 3/4" in text]
    assert re.match(r"gradients, 2 qubits: +50%.* \[\d\d:\d\d<\d\d:\d\d, .*step/s, row 3/4\]", text)
    gradient.run(CIRCUITS, ["ZZ", "ZZZ"], [np.zeros(4), np.zeros(9)]).result()
    assert any(text.startswith("gradients, 3 qubits (2 of 2): ") for text in bars[1].shown)


def test_short_work_shows_no_bar(engine, bars, monkeypatch, capsys):
    monkeypatch.setattr("qiskit_fused.execution.progress._BAR_AFTER", 0.5)
    gradient = FusedEstimatorGradient(progress=True)
    for _ in range(20):
        gradient.value_and_gradient(CIRCUITS[0], "ZZ", np.zeros((4, 4)))
        FusedEstimator(progress=True).run(PUBS).result()
    assert bars == [] and capsys.readouterr().err == ""


def test_work_of_more_than_half_a_second_shows_a_bar_that_counts_from_its_begin(engine, bars, monkeypatch):
    monkeypatch.setattr("qiskit_fused.execution.progress._BAR_AFTER", 0.1)
    engine.at = lambda step: time.sleep(0.05)
    FusedEstimator(progress=True).run(PUBS[:1]).result()
    [bar] = bars
    assert bar.closed and bar.n == bar.total and bar.format_dict["elapsed"] > 0.5
    assert "0%" not in bar.shown[-1].split("|")[0].replace("100%", "")


def test_the_bar_closes_without_reaching_its_end_when_the_work_fails(engine, bars):
    def fail(step):
        if step == 5:
            raise MemoryError("no more")

    engine.at = fail
    with pytest.raises(MemoryError, match="no more"):
        FusedEstimator(progress=True).run(PUBS).result()
    assert bars[0].closed and 0 < bars[0].n < bars[0].total


def test_the_bar_closes_without_reaching_its_end_when_the_job_is_cancelled(engine, bars):
    begun, cancelled = threading.Event(), threading.Event()

    def hold(step):
        if step == 5:
            begun.set()
            assert cancelled.wait(60)

    engine.at = hold
    job = FusedEstimator(progress=True).run(PUBS)
    assert begun.wait(60)
    job.cancel()
    cancelled.set()
    with pytest.raises(RuntimeError, match="the evaluation was cancelled"):
        job.result()
    assert bars[0].closed and 0 < bars[0].n < bars[0].total


def test_without_tqdm_the_bar_is_an_error_that_names_tqdm_and_a_callback_works(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r"option progress=True needs tqdm; pip install tqdm\."):
        FusedEstimator(progress=True).run(PUBS).result()
    callback = Callback()
    FusedEstimator(progress=callback).run(PUBS).result()
    callback.check()


# --- steps ---


def test_steps_are_gates_on_statevectors_of_the_widest_circuit():
    assert Part(4, 10, 3).num_steps(4) == 30  # a forward sweep of 3 rows
    assert Part(4, 10, 3, 5).num_steps(4) == 10 * (3 + 3 + 5)  # psi forward and backward, lam backward
    assert Part(4, 10, 3).num_steps(5) == 15
    assert Part(4, 0, 3).num_steps(4) == Part(2, 10, 3).num_steps(60) == 1


def test_steps_do_not_go_back_when_another_engine_begins_again(every_step):
    callback = Callback()
    with Progress(callback, [Part(2, 10, 10)]) as progress:
        progress.next_part()
        assert progress.watch(0, 0) is False  # the total is 0 before an engine has counted its steps
        for done in (0, 5, 9, 0, 5, 9, 10):
            assert progress.watch(done, 10) is False
    callback.check()
    assert [done for done, _ in callback.calls] == [0, 0, 0, 0, 50, 90, 90, 90, 90, 100]


def test_steps_have_one_total_when_an_engine_gives_up_and_another_engine_begins(engine, monkeypatch):
    callback = Callback()

    def give_up(step):
        if step == 5 and engine.num_evaluations == 1:
            raise DoesNotFit("too large")

    engine.at = give_up
    FusedEstimator(progress=callback).run(PUBS[:1]).result()
    callback.check()
    assert engine.num_evaluations == 2


def test_circuits_that_fall_back_are_part_of_the_work(engine):
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.reset(0)
    callback = Callback()
    with pytest.warns(UserWarning, match="StatevectorEstimator"):
        job = FusedEstimator(progress=callback).run([(circuit, "ZZ"), PUBS[0], (circuit, "ZI")])
    assert job.metrics()["fallback"] == 2
    callback.check()
    assert len({done for done, _ in callback.calls}) > 10  # the PUB between the two fallbacks tells its steps


def test_a_job_without_pubs_does_not_call_the_callback(every_step):
    callback = Callback()
    assert len(FusedEstimator(progress=callback).run([]).result()) == 0
    assert callback.calls == []
    FusedEstimator(progress=callback).run([(CIRCUITS[0], "ZZ", np.zeros((0, 4)))]).result()
    callback.check()


def test_a_job_that_was_cancelled_does_not_begin_its_next_part():
    cancellation, parts = Cancellation(), []

    def work():
        with uninterrupted(), Progress(False, [Part(1, 1, 1)] * 2) as progress:
            progress.next_part()
            parts.append(progress.watch(0, 1))
            cancellation.set()
            parts.append(progress.watch(0, 1))
            progress.next_part()
            parts.append("next")

    with pytest.raises(RuntimeError, match="the evaluation was cancelled"):
        cancellation.run(work)
    assert parts == [False, True]
    assert Progress(False, []).watch(0, 1) is False  # the cancellation does not reach the thread's next work


def test_the_reference_engine_counts_gates_on_states():
    circuit = QuantumCircuit(2)
    circuit.ry(Parameter("a"), 0)
    circuit.cx(0, 1)
    calls = []

    class Engine(ReferenceEngine):
        def evaluate(self, fused, observables, request, watch=None):
            return super().evaluate(fused, observables, request, lambda *steps: calls.append(steps) or watch(*steps))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program_evaluation, "engine_for", lambda *_: Engine())
        FusedEstimatorGradient().value_and_gradient(circuit, ["ZZ", "ZI"], np.zeros((2, 1)))
    assert calls == [(done, 16) for done in (1, 2, 5, 8, 9, 10, 13, 16)]
