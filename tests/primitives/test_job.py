# SPDX-License-Identifier: Apache-2.0
"""Jobs of FusedEstimator: status, metrics, copies, and threads that share an estimator."""

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from qiskit.circuit.library import real_amplitudes, zz_feature_map
from qiskit.providers import JobError, JobStatus

from qiskit_fused import FusedEstimator, FusedJob, FusedOptions, compile_circuit
from qiskit_fused.common.job_threads import MAX_COMPUTING
from qiskit_fused.compilation.circuits import COMPILED
from qiskit_fused.primitives.job import Size


@pytest.fixture
def estimator(device):
    return FusedEstimator(device=device)


@pytest.fixture
def circuit():
    return zz_feature_map(3, reps=1).compose(real_amplitudes(3, reps=1, parameter_prefix="w"))


def rows(circuit, *shape, seed=0):
    return np.random.default_rng(seed).normal(size=(*shape, circuit.num_parameters))


def test_metrics_count_rows_pairs_and_sweeps(device, dtype, circuit):
    job = FusedEstimator(device=device, dtype=dtype, num_threads=2).run([(circuit, "ZZZ", rows(circuit, 3))])
    metrics = job.metrics()
    assert (metrics["device"], metrics["dtype"]) == (device, dtype)
    assert metrics["kernels"] and isinstance(metrics["kernels"], str)
    assert (metrics["rows"], metrics["pairs"], metrics["fallback"]) == (3, 3, 0)
    assert metrics["seconds"] > 0 and metrics["sweeps"] >= 1 and metrics["chunks"] >= 1 and metrics["bytes"] > 0


def test_the_job_is_a_primitive_job(estimator, circuit):
    job = estimator.run([(circuit, "ZZZ", rows(circuit))])
    result = job.result()
    assert job.done() and job.in_final_state() and not job.running() and not job.cancelled()
    assert isinstance(job.job_id(), str)
    again = pickle.loads(pickle.dumps(job))
    np.testing.assert_array_equal(again.result()[0].data.evs, result[0].data.evs)
    assert again.metrics() == job.metrics()


def test_a_job_shows_its_id_and_status():
    release, started = threading.Event(), threading.Event()

    def work():
        started.set()
        assert release.wait(60)
        raise RuntimeError("of the work")

    job = FusedJob(work)
    assert repr(job) == f"FusedJob('{job.job_id()}', not submitted)"
    job.submit()
    assert started.wait(60) and repr(job) == f"FusedJob('{job.job_id()}', RUNNING)"
    release.set()
    with pytest.raises(RuntimeError, match="of the work"):
        job.result()
    assert repr(job) == f"FusedJob('{job.job_id()}', ERROR)"
    finished = FusedJob(lambda: (0, {}))
    finished.submit()
    assert finished.result() == 0
    assert repr(pickle.loads(pickle.dumps(finished))) == repr(finished) == f"FusedJob('{finished.job_id()}', DONE)"


def test_a_job_that_waits_for_a_thread_is_queued_and_then_done():
    release, started = threading.Event(), threading.Semaphore(0)

    def work():
        started.release()
        assert release.wait(60)
        return "result", {}

    jobs = [FusedJob(work) for _ in range(MAX_COMPUTING + 1)]
    for job in jobs:
        job.submit()
    for _ in range(MAX_COMPUTING):
        assert started.acquire(timeout=60)
    assert [job.status() for job in jobs] == [JobStatus.RUNNING] * MAX_COMPUTING + [JobStatus.QUEUED]
    assert not (jobs[-1].done() or jobs[-1].running() or jobs[-1].cancelled() or jobs[-1].in_final_state())
    release.set()
    assert [job.result() for job in jobs] == ["result"] * len(jobs)
    assert all(job.done() for job in jobs)


def test_a_queued_job_can_be_cancelled_and_an_unsubmitted_one_has_no_status():
    release = threading.Event()
    jobs = [FusedJob(release.wait, 60) for _ in range(MAX_COMPUTING + 1)]
    with pytest.raises(JobError, match="not been submitted"):
        jobs[-1].status()
    for job in jobs:
        job.submit()
    assert jobs[-1].cancel() and jobs[-1].cancelled()
    release.set()


def thread_of_job(options, *sizes):
    """Return the thread in which a job of these sizes runs."""
    job = FusedJob(lambda options: (threading.get_ident(), {}), options)
    job.submit(sizes)
    return job.result()


def test_a_job_of_little_work_runs_in_the_thread_of_its_caller(circuit):
    compiled, here = compile_circuit(circuit), threading.get_ident()
    options, other = FusedOptions(device="cpu"), FusedOptions(device="cpu", progress=lambda done, total: None)
    assert thread_of_job(options, Size(compiled, 1)) != here, "the first call fuses the circuit, which may take long"
    FusedEstimator(options=options).run([(compiled, "ZZZ", rows(circuit))]).result()
    assert thread_of_job(options, Size(compiled, 1), Size(compiled, 2, 3, 4)) == here
    for sizes in (
        [Size(compiled, 1 << 20)],
        [Size(compiled, 1, 1 << 30)],
        [Size(compiled, 1, 1, 1 << 20)],
        [Size(None, 1)],
    ):
        assert thread_of_job(options, Size(compiled, 1), *sizes) != here
    assert thread_of_job(other, Size(compiled, 1)) != here, "a callback may wait for the thread of the caller"
    assert thread_of_job(FusedOptions(device="reference"), Size(compiled, 1)) != here


def test_a_job_that_ended_in_the_thread_of_its_caller_is_done_and_raises_its_error_in_result(circuit):
    compiled, options = compile_circuit(circuit), FusedOptions(device="cpu")
    FusedEstimator(options=options).run([(compiled, "ZZZ", rows(circuit))]).result()
    job = FusedJob(lambda options: 1 / 0, options)
    job.submit([Size(compiled, 1)])
    assert job.status() is JobStatus.ERROR and not job.cancel()
    with pytest.raises(ZeroDivisionError):
        job.result()


def test_values_may_change_after_run(estimator, circuit):
    values = rows(circuit, 3)
    expected = estimator.run([(circuit, "ZZZ", values.copy())]).result()[0].data.evs
    job = estimator.run([(circuit, "ZZZ", values)])
    values[:] = 0
    np.testing.assert_array_equal(job.result()[0].data.evs, expected)


def test_an_estimator_survives_pickle_and_deepcopy(device, circuit):
    estimator = FusedEstimator(device=device, dtype="complex64", default_precision=0.25, precision_mode="exact", seed=2)
    pub = (circuit, "ZZZ", rows(circuit))
    expected = estimator.run([pub]).result()[0].data.evs
    for other in (pickle.loads(pickle.dumps(estimator)), copy.deepcopy(estimator)):
        assert other.options == estimator.options
        np.testing.assert_array_equal(other.run([pub]).result()[0].data.evs, expected)


def test_threads_may_share_an_estimator(estimator):
    circuits = [real_amplitudes(3, reps=reps) for reps in (1, 2, 3)]
    pubs = [(circuits[i % 3], ["ZZZ", "XIX"][i % 2], rows(circuits[i % 3], seed=i)) for i in range(24)]
    expected = [estimator.run([pub]).result()[0].data.evs for pub in pubs]
    COMPILED.clear()
    barrier = threading.Barrier(4)

    def work(part):
        barrier.wait()
        return [estimator.run([pub]).result()[0].data.evs for pub in part]

    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(work, [pubs[i::4] for i in range(4)]))
    for i, part in enumerate(parts):
        np.testing.assert_array_equal(part, expected[i::4])


def test_progress_changes_nothing(device, circuit, capsys, monkeypatch):
    monkeypatch.setattr("qiskit_fused.execution.progress._BAR_AFTER", 0)
    pubs = [(circuit, [["ZZZ"], ["XII"]], rows(circuit, 120)), (circuit, "IIZ", rows(circuit, 2))]
    plain = FusedEstimator(device=device).run(pubs).result()
    job = FusedEstimator(device=device, progress=True).run(pubs)
    for result, reference in zip(job.result(), plain):
        np.testing.assert_array_equal(result.data.evs, reference.data.evs)
    assert "100%" in capsys.readouterr().err
