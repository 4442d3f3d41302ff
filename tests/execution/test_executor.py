# SPDX-License-Identifier: Apache-2.0
"""The option ``executor``: workers share the rows of a batch, and the results are equal to those of one process."""

import copy
import multiprocessing
import os
import pickle
import random
import re
import signal
import threading
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from qiskit.circuit import QuantumCircuit
from qiskit.circuit.library import CZGate, real_amplitudes, zz_feature_map
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.circuit.library import raw_feature_vector
from qiskit_machine_learning.gradients import DerivativeType

from qiskit_fused import FusedEstimator, FusedEstimatorGradient, FusedOptions, compile_circuit
from qiskit_fused.common.caches import BoundedCache
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.compilation.observables import coerce_observables
from qiskit_fused.engines.request import GradientRequest, Request, all_pairs
from qiskit_fused.execution import executor as workers
from qiskit_fused.execution.evaluate import evaluate
from qiskit_fused.execution.expectations import Expectations

OBSERVABLES = ["ZZZ", SparsePauliOp(["XII", "IYZ"], [0.5, -1.0])]


class PicklingExecutor(Executor):
    """Runs each call at once from its pickle, as a worker in another process does, and keeps the pickles."""

    def __init__(self):
        self.pickles = []

    def submit(self, function, /, *args, **keywords):
        future = Future()
        self.pickles.append(pickle.dumps((function, args, keywords)))
        function, args, keywords = pickle.loads(self.pickles[-1])
        try:
            future.set_result(function(*args, **keywords))
        except Exception as error:
            future.set_exception(error)
        return future


class UnsteadyExecutor(ThreadPoolExecutor):
    """A pool of threads that begin each call after a random delay of up to 3 ms."""

    def submit(self, function, /, *args, **keywords):
        def dawdle():
            time.sleep(random.uniform(0, 0.003))
            return function(*args, **keywords)

        return super().submit(dawdle)


@pytest.fixture(scope="module")
def processes():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.fixture(params=["threads", "processes", "pickles"])
def executor(request):
    """A pool of threads, a pool of processes, or a `PicklingExecutor`."""
    if request.param == "processes":
        yield request.getfixturevalue("processes")
    elif request.param == "pickles":
        yield PicklingExecutor()
    else:
        with ThreadPoolExecutor(3) as pool:
            yield pool


@pytest.fixture(autouse=True)
def small_portions(monkeypatch):
    """Cut small work into portions too, and empty the worker's cache of shared objects."""
    monkeypatch.setattr(workers, "_MIN_WORK", 1)
    monkeypatch.setattr(workers, "_received", BoundedCache(1 << 28))


@pytest.fixture
def every_step(monkeypatch):
    """Call a progress callback at every step, without a least time between two calls."""
    monkeypatch.setattr("qiskit_fused.execution.progress._INTERVAL", 0)


@pytest.fixture
def circuit():
    return zz_feature_map(3, reps=1).compose(real_amplitudes(3, reps=2, parameter_prefix="w"))


def rows(num_rows, circuit, seed=0):
    return np.random.default_rng(seed).normal(size=(num_rows, circuit.num_parameters))


def long_work(num_rows=2000):
    """Return circuit, observable and rows of a gradient that takes about a second."""
    circuit = real_amplitudes(10, reps=12)
    return circuit, "Z" * 10, rows(num_rows, circuit)


def assert_same(actual, expected):
    """Assert that values or gradients are equal up to rounding."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-11)


def expectations(circuit, **options):
    parameters = list(circuit.parameters)
    inputs = [parameter for parameter in parameters if parameter.name.startswith("x")]
    weights = [parameter for parameter in parameters if not parameter.name.startswith("x")]
    return Expectations(circuit, OBSERVABLES, inputs, weights, FusedOptions(**options))


# --- the answer ---


def test_an_estimator_gives_the_same_values(executor, circuit):
    pubs = [
        (circuit, [["ZZZ"], ["XIX"]], rows(7, circuit)),
        (circuit, "ZII", rows(5, circuit, 1)),
        (QuantumCircuit(1), "Z"),
    ]
    job = FusedEstimator(executor=executor).run(pubs)
    for actual, expected in zip(job.result(), FusedEstimator().run(pubs).result()):
        assert_same(actual.data.evs, expected.data.evs)
    metrics = job.metrics()
    assert (metrics["rows"], metrics["pairs"], metrics["portions"], metrics["device"]) == (13, 20, 12, "cpu")
    assert metrics["seconds"] > 0


@pytest.mark.parametrize("derivative_type", DerivativeType)
def test_a_gradient_is_the_same(executor, circuit, derivative_type):
    values = rows(20, circuit)
    expected = FusedEstimatorGradient(derivative_type=derivative_type).value_and_gradient(circuit, OBSERVABLES, values)
    gradient = FusedEstimatorGradient(executor=executor, derivative_type=derivative_type)
    for actual, reference in zip(gradient.value_and_gradient(circuit, OBSERVABLES, values), expected):
        assert_same(actual, reference)


def test_a_gradient_job_is_the_same_for_a_part_of_all_pairs(executor, circuit):
    arguments = [circuit] * 9, [OBSERVABLES[number % 2] for number in (0, 0, 1, 0, 1, 1, 1, 0, 0)], rows(9, circuit)
    actual = FusedEstimatorGradient(executor=executor).run(*arguments).result().gradients
    expected = FusedEstimatorGradient().run(*arguments).result().gradients
    assert_same(actual, expected)


@pytest.mark.parametrize("with_states", [False, True], ids=["from zero", "from states"])
def test_expectations_and_all_their_derivatives_are_the_same(executor, circuit, with_states):
    in_process, on_workers = expectations(circuit), expectations(circuit, executor=executor)
    generator = np.random.default_rng(3)
    inputs, weights = generator.normal(size=(50, in_process.num_inputs)), generator.normal(size=in_process.num_weights)
    cotangents = generator.normal(size=(50, 2))
    states = None
    if with_states:
        states = generator.normal(size=(50, 8)) + 1j * generator.normal(size=(50, 8))
        states /= np.linalg.norm(states, axis=1)[:, None]

    def ask(function):
        vjp = function.value_and_vjp(inputs, weights, cotangents, initial_states=states)
        jacobian = function.value_and_jacobian(inputs, weights, initial_states=states)
        return [function.values(inputs, weights, initial_states=states), *vjp, *jacobian]

    for actual, expected in zip(ask(on_workers), ask(in_process)):
        if expected is None:
            assert actual is None
        else:
            assert_same(actual, expected)
    without = on_workers.value_and_vjp(inputs, weights, cotangents, initial_states=states, input_gradients=False)
    assert without.inputs is None
    assert on_workers.value_and_jacobian(inputs, weights, input_gradients=False)[1] is None


def test_a_function_of_values_gives_the_cotangents_of_one_row_after_the_other(executor, circuit):
    on_workers = expectations(circuit, executor=executor)
    inputs, weights = rows(50, circuit)[:, :3], np.zeros(on_workers.num_weights)
    targets = iter(np.arange(50))

    def derivative(values):
        """Return the derivative of a squared error whose targets are read one after the other."""
        return 2 * (values - np.array([[next(targets)] for _ in values]))

    actual = on_workers.value_and_vjp(inputs, weights, derivative)
    values = expectations(circuit).values(inputs, weights)
    expected = expectations(circuit).value_and_vjp(inputs, weights, 2 * (values - np.arange(50)[:, None]))
    assert_same(actual.weights, expected.weights)
    assert_same(actual.inputs, expected.inputs)


def test_a_batch_with_cotangents_can_be_shared_too(executor, circuit):
    compiled, operators = compile_circuit(circuit), coerce_observables(OBSERVABLES).operators
    cotangents = np.random.default_rng(5).normal(size=20)
    request = Request(rows(10, circuit), all_pairs(10, 2), GradientRequest(cotangents))
    actual, expected = (
        evaluate(options, compiled, operators, request) for options in (FusedOptions(executor=executor), FusedOptions())
    )
    assert_same(actual.gradients, expected.gradients)


def test_sums_do_not_depend_on_workers_or_timing(circuit):
    inputs, weights, cotangents = rows(100, circuit)[:, :3], rows(1, circuit)[0, 3:], rows(100, circuit, 1)[:, :2]
    sums = []
    for num_workers in (1, 3, 4):
        with UnsteadyExecutor(num_workers) as pool:
            on_workers = expectations(circuit, executor=pool)
            sums += [on_workers.value_and_vjp(inputs, weights, cotangents).weights for _ in range(3)]
    for later_sum in sums[1:]:
        np.testing.assert_array_equal(later_sum, sums[0])


def test_errors_name_the_row_of_the_batch(executor):
    circuit = raw_feature_vector(4).compose(real_amplitudes(2, reps=1, parameter_prefix="w"))
    values = np.ones((60, circuit.num_parameters))
    amplitudes = [parameter for parameter in circuit.parameters if not parameter.name.startswith("w")]
    weights = [parameter for parameter in circuit.parameters if parameter.name.startswith("w")]
    values[41] = [parameter in weights for parameter in circuit.parameters]
    with pytest.raises(ValueError, match=r"norm 0\.0 in row 41"):
        FusedEstimatorGradient(executor=executor).value_and_gradient(circuit, "ZZ", values)
    on_workers = Expectations(circuit, "ZZ", amplitudes, weights, FusedOptions(executor=executor))
    inputs = np.ones((60, 4))
    inputs[41] = 0
    with pytest.raises(ValueError, match=r"norm 0\.0 in row 41"):
        on_workers.value_and_vjp(inputs, np.ones(len(weights)), np.ones((60, 1)))


def test_a_change_of_a_circuit_reaches_the_workers(executor):
    circuit = real_amplitudes(5, reps=100).decompose()
    gradient, values = FusedEstimatorGradient(executor=executor), rows(3, circuit)
    gradient.value_and_gradient(circuit, "ZZZZZ", values)
    place = [instruction.name for instruction in circuit.data].index("cx")
    circuit.data[place] = circuit.data[place].replace(operation=CZGate())
    actual = gradient.value_and_gradient(circuit, "ZZZZZ", values)
    expected = FusedEstimatorGradient().value_and_gradient(circuit.copy(), "ZZZZZ", values)
    for result, reference in zip(actual, expected):
        assert_same(result, reference)


# --- how work is cut and sent ---


def test_portions_are_all_rows_in_order_and_depend_on_the_work_alone(monkeypatch, circuit):
    monkeypatch.undo()
    compiled = compile_circuit(real_amplitudes(12, reps=3))
    with ThreadPoolExecutor(1) as single, ThreadPoolExecutor(7) as seven:
        cuts = [workers.cut_portions(FusedOptions(executor=pool), compiled, 3000, 3000) for pool in (single, seven)]
        assert cuts[0] == cuts[1] and len(cuts[0]) > 1
        assert [row for portion in cuts[0] for row in range(3000)[portion]] == list(range(3000))
        for num_rows in (5, 10**6):
            cut = workers.cut_portions(FusedOptions(executor=single), compiled, num_rows, None)
            assert len(cut) == 0 if num_rows == 5 else 100 < len(cut) < 10**4
        huge = compile_circuit(real_amplitudes(20, reps=3))
        cut = workers.cut_portions(FusedOptions(executor=single), huge, 3, 3)
        assert [part.stop - part.start for part in cut] == [1] * 3


def test_small_work_stays_in_this_process(monkeypatch, circuit):
    monkeypatch.undo()
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    FusedEstimatorGradient(executor=executor).value_and_gradient(circuit, OBSERVABLES, rows(20, circuit))
    expectations(circuit, executor=executor).values(np.zeros((5, 3)), np.zeros(9))


@pytest.mark.parametrize("seconds", [0.001, 0.05, 20.0])
def test_portions_of_a_gpu_take_as_long_as_portions_of_a_cpu_would(monkeypatch, seconds):
    """A GPU counts as 256 cores."""
    monkeypatch.undo()
    work = int(seconds / 0.3e-9)  # of one core
    on_cpu = workers.count_portions(FusedOptions(), work)
    assert workers.count_portions(FusedOptions(device="cuda"), 256 * work) == on_cpu
    assert (on_cpu > 100) == (seconds > 10)


def test_circuits_and_observables_are_sent_once_to_each_worker(circuit):
    executor = PicklingExecutor()
    gradient = FusedEstimatorGradient(executor=executor)
    size, large = len(pickle.dumps(CompiledCircuit(circuit))), []
    for seed in range(3):
        gradient.value_and_gradient(circuit, OBSERVABLES, rows(30, circuit, seed))
        large.append(sum(len(pickled) > size for pickled in executor.pickles))
        assert len(executor.pickles) == 30
        executor.pickles.clear()
    assert large == [workers._GUESSED_WORKERS, 0, 0]
    workers._received.clear()  # as if a new worker had replaced the worker
    actual, _ = gradient.value_and_gradient(circuit, OBSERVABLES, rows(30, circuit))
    assert len(executor.pickles) == 30 + sum(len(pickled) > size for pickled in executor.pickles) > 30
    expected, _ = FusedEstimatorGradient().value_and_gradient(circuit, OBSERVABLES, rows(30, circuit))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)  # 30 rows are in packs, and a single row is not


def test_a_worker_unpickles_a_circuit_once_and_bounds_the_bytes_of_its_circuits(monkeypatch, circuit):
    received = BoundedCache(1 << 28)
    monkeypatch.setattr(workers, "_received", received)
    executor, opened = PicklingExecutor(), []
    monkeypatch.setattr(CompiledCircuit, "__setstate__", _counting(opened, CompiledCircuit.__setstate__))
    gradient = FusedEstimatorGradient(executor=executor)
    circuits = [circuit, circuit.copy(), circuit.copy()]
    for copied in circuits:
        gradient.value_and_gradient(copied, OBSERVABLES, rows(30, circuit))
    assert len(opened) == 3
    gradient.value_and_gradient(circuits[0], OBSERVABLES, rows(30, circuit))
    assert len(opened) == 3
    received.max_bytes = received.num_bytes - 1  # a further circuit evicts others
    for _ in range(10):
        gradient.value_and_gradient(circuit.copy(), OBSERVABLES, rows(30, circuit))
        assert received.num_bytes <= received.max_bytes


def _counting(calls, function):
    def counted(*args):
        calls.append(args)
        return function(*args)

    return counted


def test_nothing_is_pickled_for_threads(monkeypatch, circuit):
    monkeypatch.setattr(workers._Reference, "__reduce__", lambda self: pytest.fail("pickled"))
    with ThreadPoolExecutor(2) as pool:
        FusedEstimatorGradient(executor=pool).value_and_gradient(circuit, OBSERVABLES, rows(30, circuit))


def test_many_portions_are_not_sent_all_at_once(monkeypatch, circuit):
    monkeypatch.setattr(workers, "_IN_FLIGHT", 4)
    most = []

    class Counting(ThreadPoolExecutor):
        def submit(self, *args):
            most.append(sum(not future.done() for future in futures))
            futures.append(super().submit(*args))
            return futures[-1]

    futures = []
    with Counting(2) as pool:
        FusedEstimatorGradient(executor=pool).value_and_gradient(circuit, OBSERVABLES, rows(60, circuit))
    assert len(futures) == 60 and max(most) <= 3


@pytest.mark.parametrize(("num_threads", "expected"), [(None, 1), (3, 3)])
def test_a_worker_uses_one_thread_unless_num_threads_is_set(num_threads, expected):
    with ThreadPoolExecutor(1) as pool:
        options = FusedOptions(
            executor=pool, num_threads=num_threads, dtype="complex64", memory_limit="1GB", progress=print, seed=3
        )
        assert workers.options_of_workers(options) == FusedOptions(
            num_threads=expected, dtype="complex64", memory_limit="1GB"
        )


def test_workers_may_have_devices_that_this_process_lacks(monkeypatch, circuit):
    monkeypatch.setenv("QISKIT_FUSED_DISABLE_CUDA", "1")
    with ThreadPoolExecutor(1) as pool:
        gradient = FusedEstimatorGradient(executor=pool, device="cuda")
        cut = workers.cut_portions(gradient.fused_options, compile_circuit(circuit), 1, 1)
        assert cut == [slice(0, 1)]
        with pytest.raises(RuntimeError, match=r"device='cuda' is not available: .* QISKIT_FUSED_DISABLE_CUDA is set"):
            gradient.value_and_gradient(circuit, "ZZZ", np.zeros(circuit.num_parameters))


# --- progress, cancelling, errors ---


def test_progress_is_told_for_each_portion(executor, circuit, every_step):
    steps = []
    gradient = FusedEstimatorGradient(executor=executor, progress=lambda *step: steps.append(step))
    gradient.value_and_gradient(circuit, OBSERVABLES, rows(10, circuit))
    done, totals = zip(*steps)
    assert done[0] == 0 and done[-1] == totals[0] and list(done) == sorted(done) and len(set(totals)) == 1
    steps.clear()
    on_workers = expectations(circuit, executor=executor, progress=lambda *step: steps.append(step))
    on_workers.value_and_vjp(np.zeros((10, 3)), np.zeros(9), lambda values: values)
    done, totals = zip(*steps)
    assert done[0] == 0 and done[-1] == totals[0] and list(done) == sorted(done) and len(set(totals)) == 1


def test_an_exception_in_a_progress_callback_ends_the_work(executor, circuit, every_step):
    def fail(done, total):
        if done:
            raise ValueError(f"no more than {done} steps")

    gradient = FusedEstimatorGradient(executor=executor, progress=fail)
    with pytest.raises(ValueError, match="no more than"):
        gradient.value_and_gradient(circuit, OBSERVABLES, rows(10, circuit))


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_a_cancelled_job_ends_soon_and_leaves_executor_and_gradient_usable(kind, request):
    circuit, observable, values = long_work(10_000)
    with ThreadPoolExecutor(2) as pool:
        gradient = FusedEstimatorGradient(executor=pool if kind == "threads" else request.getfixturevalue("processes"))
        job = gradient.run([circuit] * len(values), [observable] * len(values), values)
        time.sleep(0.2)
        start = time.perf_counter()
        assert job.cancel()
        with pytest.raises(RuntimeError, match="the evaluation was cancelled"):
            job.result()
        assert time.perf_counter() - start < 3
        actual, _ = gradient.value_and_gradient(circuit, observable, values[:5])
        expected, _ = FusedEstimatorGradient().value_and_gradient(circuit, observable, values[:5])
        assert_same(actual, expected)


def test_portions_that_have_not_begun_are_cancelled_with_their_job(circuit):
    futures, begun, end = [], threading.Event(), threading.Event()

    class Remembering(ThreadPoolExecutor):
        def submit(self, *args):
            futures.append(super().submit(*args))
            return futures[-1]

    with Remembering(1) as pool:
        pool.submit(lambda: begun.set() or end.wait(60))
        assert begun.wait(60)
        job = FusedEstimator(executor=pool).run([(circuit, "ZZZ", rows(20, circuit))])
        while len(futures) < 21:
            time.sleep(0.01)
        job.cancel()
        with pytest.raises(RuntimeError, match="the evaluation was cancelled"):
            job.result()
        assert [future.cancelled() for future in futures] == [False] + [True] * 20
        end.set()


def test_threads_that_work_for_a_cancelled_job_end_soon(monkeypatch):
    monkeypatch.setattr(workers, "_MIN_WORK", 1 << 34)
    monkeypatch.setattr(workers, "_MAX_WORK", 1 << 34)  # a portion of several seconds
    circuit = real_amplitudes(12, reps=40)
    values = rows(5000, circuit)
    with ThreadPoolExecutor(2) as pool:
        assert len(workers.cut_portions(FusedOptions(executor=pool), compile_circuit(circuit), 5000, 5000)) > 1
        job = FusedEstimatorGradient(executor=pool).run([circuit] * 5000, ["Z" * 12] * 5000, values)
        time.sleep(0.3)
        job.cancel()
        with pytest.raises(RuntimeError, match="the evaluation was cancelled"):
            job.result()
        start = time.perf_counter()
    assert time.perf_counter() - start < 2  # the threads ended within 2 s of the job


def test_an_error_of_a_worker_is_raised_and_ends_the_others(executor, circuit):
    gradient = FusedEstimatorGradient(executor=executor, memory_limit=1000)
    with pytest.raises(MemoryError, match="memory_limit"):
        gradient.value_and_gradient(circuit, OBSERVABLES, rows(20, circuit))
    gradient.fused_options.memory_limit = None
    gradient.value_and_gradient(circuit, OBSERVABLES, rows(20, circuit))


def test_a_broken_pool_is_one_clear_error():
    circuit, observable, values = long_work()
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:

        def kill(done, total):
            if done:
                os.kill(next(iter(pool._processes)), signal.SIGKILL)

        gradient = FusedEstimatorGradient(executor=pool, progress=kill)
        text = (
            r"a worker of the executor \(ProcessPoolExecutor\) has died, .* Make a new one, .* client.get_executor\(\)"
        )
        for _ in range(2):  # each use of the broken pool raises the error
            with pytest.raises(RuntimeError, match=text):
                gradient.value_and_gradient(circuit, observable, values)


def test_an_executor_that_was_shut_down_is_one_clear_error(circuit):
    pool = ThreadPoolExecutor(1)
    gradient = FusedEstimatorGradient(executor=pool)
    pool.shutdown()
    with pytest.raises(
        RuntimeError, match=r"the executor \(ThreadPoolExecutor\) was shut down: cannot schedule .*; make"
    ):
        gradient.value_and_gradient(circuit, OBSERVABLES, rows(20, circuit))


def test_an_executor_that_is_shut_down_meanwhile_is_one_clear_error(circuit):
    begun, end = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: begun.set() or end.wait(60))
        job = FusedEstimator(executor=pool).run([(circuit, "ZZZ", rows(20, circuit))])
        assert begun.wait(60)
        while not pool._work_queue.qsize():
            time.sleep(0.01)
        pool.shutdown(wait=False, cancel_futures=True)
        end.set()
        with pytest.raises(RuntimeError, match=r"the executor \(ThreadPoolExecutor\) was shut down"):
            job.result()


# --- options ---


@pytest.mark.parametrize(
    "wrong", [4, "dask", ThreadPoolExecutor, threading.Lock()], ids=["number", "name", "class", "lock"]
)
def test_only_executors_are_executors(wrong):
    text = "allowed: None, a concurrent.futures.Executor; client.get_executor() of a Dask client is one"
    with pytest.raises(ValueError, match=re.escape(text)):
        FusedOptions(executor=wrong)


def test_options_are_pickled_without_their_executor_and_copied_with_it():
    with ThreadPoolExecutor(1) as pool:
        options = FusedOptions(executor=pool, dtype="complex64", seed=np.random.default_rng(1))
        again = pickle.loads(pickle.dumps(options))
        assert again.executor is None and again.dtype == "complex64"
        again.executor = pool
        for copied in (copy.copy(options), copy.deepcopy(options)):
            assert copied.executor is pool and copied is not options
            copied.dtype = "complex128"
        assert options.dtype == "complex64"
        assert copied.seed is not options.seed and copy.copy(options).seed is options.seed
        first, second = copy.deepcopy([options] * 2)
        assert first is second
        assert pickle.loads(pickle.dumps(FusedEstimator(executor=pool))).options.executor is None
        assert FusedEstimator(options=FusedEstimator(executor=pool).options).options.executor is pool


def test_a_forked_child_does_not_use_the_executor(monkeypatch, circuit):
    monkeypatch.setattr(workers, "_of_parents", type(workers._of_parents)())
    with ThreadPoolExecutor(1) as pool:
        gradient = FusedEstimatorGradient(executor=pool)
        actual, _ = gradient.value_and_gradient(circuit, OBSERVABLES, rows(20, circuit))
        workers._after_fork()
        pool.shutdown()
        again, _ = gradient.value_and_gradient(circuit, OBSERVABLES, rows(20, circuit))
        assert_same(again, actual)


# --- Dask ---


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs="CRITICAL"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.mark.slow
def test_a_dask_cluster_gives_the_same_results(client, circuit):
    inputs, weights, cotangents = rows(300, circuit)[:, :3], rows(1, circuit)[0, 3:], rows(300, circuit, 1)[:, :2]
    on_workers = expectations(circuit, executor=client.get_executor())
    for actual, expected in zip(
        on_workers.value_and_vjp(inputs, weights, cotangents),
        expectations(circuit).value_and_vjp(inputs, weights, cotangents),
    ):
        if expected is not None:
            assert_same(actual, expected)


@pytest.mark.slow
def test_dask_repeats_the_work_of_a_worker_that_was_killed(client, monkeypatch):
    monkeypatch.undo()
    circuit, observable, values = long_work()
    pids = client.run(os.getpid)
    address, victim = next(iter(pids.items()))
    killed = []

    def kill(done, total):
        if 0 < done < total and not killed:
            killed.append(done / total)
            os.kill(victim, signal.SIGKILL)

    gradient = FusedEstimatorGradient(executor=client.get_executor(), progress=kill)
    actual = gradient.value_and_gradient(circuit, observable, values)
    assert len(killed) == 1 and killed[0] < 0.5
    expected = FusedEstimatorGradient().value_and_gradient(circuit, observable, values)
    for result, reference in zip(actual, expected):
        assert_same(result, reference)
    removed = [event for _, event in client.get_events(address) if event["action"] == "remove-worker"]
    assert removed[0]["processing-tasks"]  # the worker was killed during its work
    assert victim not in client.run(os.getpid).values()


def test_a_dask_client_is_refused_and_the_error_names_its_executor(client):
    with pytest.raises(ValueError, match=r"client.get_executor\(\) of a Dask client is one"):
        FusedEstimator(executor=client)
