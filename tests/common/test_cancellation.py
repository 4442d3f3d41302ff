# SPDX-License-Identifier: Apache-2.0
"""cancel() and Ctrl-C stop every kind of work within a second, wherever the time is spent."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from qiskit.circuit import ParameterVector, QuantumCircuit
from qiskit.circuit.library import real_amplitudes
from qiskit.providers import JobStatus
from qiskit.quantum_info import SparsePauliOp

from qiskit_fused import FusedEstimator, FusedEstimatorGradient, FusedEstimatorQNN, FusedJob, compile_circuit, fuse
from qiskit_fused.common import cancellation
from qiskit_fused.common.cancellation import Cancellation, Stopped, current, uninterrupted

# An exception that stops a thread inside the callback of a weak reference is lost. The package raises it again.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
MOST_SECONDS = 5  # stopping takes less than one second; the machine may be busy with other tests
OPTIONS = {"num_threads": 1, "dtype": "complex64"}
PUB = (real_amplitudes(2, reps=1), "ZZ", np.zeros(4))


def rows(num_rows, num_parameters):
    return np.random.default_rng(0).normal(size=(num_rows, num_parameters))


def gates(num_qubits, num_gates, num_parameters=4):
    """Return a circuit of many gates, which act on each qubit in turn."""
    angles = ParameterVector("a", num_parameters)
    circuit = QuantumCircuit(num_qubits)
    for index in range(num_gates):
        (circuit.ry, circuit.rx)[index % 2](angles[index % num_parameters], index % num_qubits)
        if num_qubits > 1 and index % 3 == 0:
            circuit.cz(index % num_qubits, (index + 1) % num_qubits)
    return circuit


def paulis(num_qubits, num_terms, letters="IXYZ"):
    chosen = np.random.default_rng(0).choice(list(letters), (num_terms, num_qubits))
    return SparsePauliOp(["".join(label) for label in chosen])


def binding_for_values():
    compiled = compile_circuit(gates(1, 20_000))
    return lambda: FusedEstimatorGradient(**OPTIONS).value_and_gradient(compiled, "Z", rows(200_000, 4))


def binding_for_terms():
    circuit, angles = QuantumCircuit(2), ParameterVector("a", 3)
    circuit.h([0, 1])
    for index in range(20_000):
        circuit.rzz(angles[index % 3], 0, 1)
        circuit.x(0)
    compiled = compile_circuit(circuit)
    return lambda: FusedEstimatorGradient(**OPTIONS).value_and_gradient(compiled, "XX", rows(20_000, 3))


def planning():
    circuit = gates(12, 100_000)
    return lambda: [
        FusedEstimatorGradient(**OPTIONS).value_and_gradient(circuit.copy(), "Z" * 12, rows(1, 4)) for _ in range(5)
    ]


def fusing():
    circuit = gates(8, 30_000)
    return lambda: [str(fuse(circuit.copy(), "Z" * 8)) for _ in range(10)]


def expressions():
    circuit, angles = QuantumCircuit(3), ParameterVector("a", 20)
    for index in range(200):
        circuit.ry((angles[index % 20] * angles[(7 * index + 1) % 20]).sin() * angles[(index + 3) % 20], index % 3)
    compiled = compile_circuit(circuit)
    return lambda: FusedEstimatorGradient(**OPTIONS).value_and_gradient(compiled, "ZZZ", rows(800_000, 20))


def observables():
    operator = paulis(14, 100_000)
    return lambda: FusedEstimator(**OPTIONS).run([(gates(14, 40), operator, rows(4, 4))]).result()


def diagonals():
    operator = paulis(16, 3000)
    return lambda: FusedEstimatorGradient(**OPTIONS).value_and_gradient(gates(16, 40), operator, rows(9, 4))


def start_states():
    states = rows(1, 1 << 18) / np.linalg.norm(rows(1, 1 << 18))
    return lambda: FusedEstimatorGradient(**OPTIONS).value_and_gradient(
        gates(18, 40), "Z" * 18, rows(1500, 4), initial_states=states
    )


def many_pubs():
    circuit = gates(3, 20)
    pubs = [(circuit, "ZZZ", values) for values in rows(200_000, 4)]
    return lambda: FusedEstimator(**OPTIONS).run(pubs).result()


def many_circuits():
    circuits = [gates(4, 60) for _ in range(50)]
    return lambda: [
        FusedEstimator(**OPTIONS).run([(circuit.copy(), "ZZZZ", rows(1, 4)) for circuit in circuits]).result()
        for _ in range(100)
    ]


def network():
    parameters = list((circuit := gates(8, 300, 20)).parameters)
    qnn = FusedEstimatorQNN(
        circuit=circuit, input_params=parameters[:4], weight_params=parameters[4:], options=dict(OPTIONS)
    )
    return lambda: qnn.backward(rows(400_000, 4), np.zeros(16))


def layer():
    torch = pytest.importorskip("torch")
    from qiskit_fused.torch import FusedLayer

    parameters = list((circuit := gates(8, 300, 20)).parameters)
    module = FusedLayer(circuit, "Z" * 8, parameters[:4], parameters[4:], **OPTIONS)
    return lambda: module(torch.zeros(400_000, 4)).sum().backward()


def falling_back():
    circuit = gates(14, 30_000)
    circuit.reset(0)
    return lambda: FusedEstimator(**OPTIONS).run([(circuit, "Z" * 14, np.zeros(4))]).result()


KINDS = [
    binding_for_values,
    binding_for_terms,
    planning,
    fusing,
    expressions,
    observables,
    diagonals,
    start_states,
    many_pubs,
    many_circuits,
    network,
    layer,
    falling_back,
]


def still_works():
    assert FusedEstimator().run([PUB]).result()[0].data.evs == 1


@pytest.mark.filterwarnings("ignore:.*Running it with StatevectorEstimator")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_cancelled_job_ends_soon_whatever_it_does(kind):
    work = kind()
    job = FusedJob(lambda: (work(), {}))
    job.submit()
    time.sleep(0.3)
    start = time.perf_counter()
    assert job.cancel() and job.status() is JobStatus.CANCELLED
    with pytest.raises(RuntimeError, match="the evaluation was cancelled"):
        job.result()
    seconds = time.perf_counter() - start
    sys.stdout.write(f"ended after {seconds:.3f} s\n")
    assert seconds < MOST_SECONDS
    still_works()


CIRCUIT = gates(8, 3000)


class Finalized:
    def __del__(self):
        sum(range(20))


class Referenced:
    pass


def compiled_circuits():
    return fuse(CIRCUIT.copy(), "Z" * 8)


def finalized_objects():
    return [Finalized() for _ in range(1000)].clear()


def weakly_referenced_objects():
    objects = [Referenced() for _ in range(1000)]
    references = weakref.WeakValueDictionary(enumerate(objects))
    objects.clear()
    return references


@pytest.mark.parametrize(
    "make", [compiled_circuits, finalized_objects, weakly_referenced_objects], ids=lambda make: make.__name__
)
def test_no_exception_that_stops_a_thread_is_lost_where_python_ignores_many_exceptions(make, monkeypatch):
    def callback(phase, info):
        sum(range(200))

    def work():
        while True:
            make()

    def interrupt(thread):
        interrupted.append(real(thread))
        return interrupted[-1]

    real, interrupted = cancellation._interrupt, []
    monkeypatch.setattr(cancellation, "_interrupt", interrupt)
    gc.callbacks.append(callback)
    try:
        for _ in range(5):
            interrupted.clear()
            job = FusedJob(work)
            job.submit()
            time.sleep(0.1)
            start = time.perf_counter()
            assert job.cancel()
            with pytest.raises(RuntimeError, match="the evaluation was cancelled"):
                job.result()
            sys.stdout.write(f"ended after {time.perf_counter() - start:.3f} s and {len(interrupted)} attempts\n")
            assert sum(interrupted) <= 2  # a C library may lose one
    finally:
        gc.callbacks.remove(callback)


def test_the_thread_that_asks_again_ends_even_if_the_last_thread_leaves_by_an_exception(monkeypatch):
    def interrupted(thread):
        monkeypatch.undo()
        raise Stopped

    def work():
        while True:
            time.sleep(0.01)

    before = set(threading.enumerate())
    monkeypatch.setattr(cancellation, "_catch_pending", interrupted)
    job = FusedJob(work)
    job.submit()
    time.sleep(0.1)
    assert job.cancel()
    with pytest.raises(RuntimeError, match="the evaluation was cancelled"):
        job.result()
    end = time.perf_counter() + MOST_SECONDS
    while not set(threading.enumerate()) <= before:
        assert time.perf_counter() < end
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*Running it with StatevectorEstimator")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_ctrl_c_ends_soon_whatever_runs(kind):
    work, signalled, ended = kind(), [], []

    interrupted = threading.Event()

    def send_signals():  # repeatedly, because Python loses a signal during the callback of a weak reference
        while not interrupted.wait(0.3 if not signalled else 0.5):
            signalled.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=send_signals)

    def run():
        sender.start()
        work()
        ended.append(True)
        while sender.is_alive():  # a late signal raises KeyboardInterrupt here
            sender.join(0.1)

    with pytest.raises(KeyboardInterrupt):
        run()
    interrupted.set()
    sender.join()
    seconds = time.perf_counter() - signalled[0]
    sys.stdout.write(f"ended after {seconds:.3f} s\n")
    assert not ended and seconds < MOST_SECONDS
    still_works()


def test_a_cancelled_job_stops_in_python_code_that_never_ends():
    def work():
        while True:
            pass

    for _ in range(20):
        job = FusedJob(work)
        job.submit()
        assert job.cancel() and job.cancelled() and job.in_final_state() and not job.running()
        with pytest.raises(RuntimeError, match="the evaluation was cancelled"):
            job.result()
    still_works()


def test_cancel_is_false_for_a_job_with_a_result_or_an_error():
    job = FusedJob(lambda: (3, {}))
    job.submit()
    assert job.result() == 3 and job.cancel() is False and job.status() is JobStatus.DONE
    failed = FusedJob(lambda: 1 // 0)
    failed.submit()
    with pytest.raises(ZeroDivisionError):
        failed.result()
    assert failed.cancel() is False and failed.status() is JobStatus.ERROR


def test_a_job_that_was_cancelled_twice_or_before_it_began_is_cancelled():
    release = threading.Event()

    def hold():
        return release.wait(60), {}

    jobs = [FusedJob(hold) for _ in range(30)]
    for job in jobs:
        job.submit()
    assert all(job.cancel() for job in reversed(jobs)) and all(job.cancel() for job in jobs)
    release.set()
    for job in jobs:
        assert job.cancelled() and not job.done()
        with pytest.raises(RuntimeError, match="the evaluation was cancelled"):
            job.result()
    still_works()


def test_cancel_decides_between_a_result_and_an_error():
    for number in range(200):
        job = FusedEstimator().run([PUB])
        time.sleep(number * 5e-6)
        if job.cancel():
            with pytest.raises(RuntimeError, match="the evaluation was cancelled"):
                job.result()
            assert job.cancelled()
        else:
            assert job.result()[0].data.evs == 1 and job.done()


def test_a_callback_runs_to_its_end_before_the_job_stops():
    calls, jobs, submitted = [], [], threading.Event()

    def cancel_and_go_on(done, total):
        assert submitted.wait(60) and jobs[0].cancel()
        calls.extend(range(10_000))

    jobs.append(FusedEstimator(progress=cancel_and_go_on).run([PUB]))
    submitted.set()
    with pytest.raises(RuntimeError, match="the evaluation was cancelled"):
        jobs[0].result()
    assert len(calls) == 10_000


def test_an_error_of_a_callback_after_cancel_is_the_cause():
    jobs, submitted = [], threading.Event()

    def cancel_and_fail(done, total):
        assert submitted.wait(60) and jobs[0].cancel()
        raise ValueError("no more")

    jobs.append(FusedEstimator(progress=cancel_and_fail).run([PUB]))
    submitted.set()
    with pytest.raises(RuntimeError, match="the evaluation was cancelled") as caught:
        jobs[0].result()
    assert isinstance(caught.value.__cause__, ValueError) and jobs[0].cancelled()


def test_a_cancelled_job_ends_while_it_waits_for_its_own_job_and_cancels_it():
    inner = []

    def wait_for_another(done, total):
        job = FusedJob(binding_for_values())
        inner.append(job)
        job.submit()
        job.result()

    outer = FusedEstimator(progress=wait_for_another).run([PUB])
    while not inner:
        time.sleep(0.001)
    time.sleep(0.3)
    start = time.perf_counter()
    assert outer.cancel()
    with pytest.raises(RuntimeError, match="the evaluation was cancelled"):
        outer.result()
    with pytest.raises(RuntimeError, match="the evaluation was cancelled"):
        inner[0].result()
    assert time.perf_counter() - start < MOST_SECONDS
    still_works()


def test_portions_in_the_threads_of_an_executor_stop_too():
    with ThreadPoolExecutor(2) as pool:
        circuit = gates(1, 20_000)
        job = FusedEstimator(executor=pool, **OPTIONS).run([(circuit, "Z", rows(400_000, 4))])
        time.sleep(0.5)
        start = time.perf_counter()
        assert job.cancel()
        with pytest.raises(RuntimeError, match="the evaluation was cancelled"):
            job.result()
        assert pool.submit(time.perf_counter).result() - start < MOST_SECONDS


def test_a_module_that_is_being_imported_is_imported_to_its_end(tmp_path, monkeypatch):
    (tmp_path / "slow_module.py").write_text("import time\nfor _ in range(30):\n    time.sleep(0.01)\nEND = True\n")
    monkeypatch.syspath_prepend(tmp_path)

    def work():
        import slow_module  # noqa: F401

        while True:
            pass

    job = FusedJob(work)
    job.submit()
    time.sleep(0.1)
    assert job.cancel()
    with pytest.raises(RuntimeError, match="the evaluation was cancelled"):
        job.result()
    assert sys.modules.pop("slow_module").END


def start_and_go_on(thread):
    thread.start()
    while True:
        pass


def test_a_thread_that_left_its_work_is_never_interrupted():
    for _ in range(300):
        cancellation = Cancellation()
        thread = threading.Thread(target=cancellation.set)
        try:
            with pytest.raises(RuntimeError, match="the evaluation was cancelled"):
                cancellation.run(start_and_go_on, thread)
            thread.join()
            assert current() is None and not cancellation._threads
            assert cancellation.set()
            sum(range(1000))
        except Stopped:
            pytest.fail("interrupted outside the work")
    with uninterrupted():
        assert current() is None


OBSERVED = """
import sys, threading, time
from qiskit_fused.common import cancellation
from qiskit_fused.common.cancellation import Cancellation

def work(cancellation):
    timer = threading.Timer({delay}, cancellation.set)
    timer.start()
    while {is_cancelled}:
        pass
    timer.cancel()

try:
    cancellation = Cancellation()
    cancellation.run(work, cancellation)
except RuntimeError:
    print("cancelled", end=" ")
{observe}(lambda *_: None)
time.sleep(0.01)
(lambda: None)()
print("returned")
"""


@pytest.mark.parametrize("observe", ["sys.setprofile", "sys.settrace"])
@pytest.mark.parametrize(("delay", "is_cancelled"), [(100, False), (0.01, True)])
@pytest.mark.slow
def test_calls_that_a_profiler_or_debugger_observes_return_after_work_has_ended(observe, delay, is_cancelled):
    program = OBSERVED.format(delay=delay, is_cancelled=is_cancelled, observe=observe)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent,  # python -c looks there first, and a checkout has no extension module
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    assert done.stdout == ("cancelled returned\n" if is_cancelled else "returned\n"), done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("restarts_calls", [False, True])
def test_ctrl_c_while_waiting_cancels_a_job_that_never_ends(restarts_calls):
    def work():
        while True:
            pass

    job = FusedJob(work)
    job.submit()
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    signal.siginterrupt(signal.SIGINT, not restarts_calls)
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            job.result()
    finally:
        signal.siginterrupt(signal.SIGINT, True)
    assert job.cancelled()
    with pytest.raises(RuntimeError, match="the evaluation was cancelled"):
        job.result()
    still_works()
