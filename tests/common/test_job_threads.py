# SPDX-License-Identifier: Apache-2.0
"""Any number of jobs may wait for each other, and only a few jobs compute at the same time."""

import threading
import time

import numpy as np
import pytest
from qiskit.circuit.library import real_amplitudes
from qiskit.providers import JobStatus

from qiskit_fused import FusedEstimator, FusedJob
from qiskit_fused.common.job_threads import MAX_COMPUTING, JobThreads, job_threads

CIRCUIT = real_amplitudes(2, reps=1)
PUB = (CIRCUIT, "ZZ", np.zeros(4))


def job_threads_alive():
    return [thread for thread in threading.enumerate() if thread.name.startswith("qiskit-fused")]


def submitted(function, *args):
    job = FusedJob(function, *args)
    job.submit()
    return job


@pytest.mark.parametrize("num_jobs", [8, 20, 100])
def test_jobs_whose_callback_waits_for_a_job_end(num_jobs):
    plain = FusedEstimator()

    def wait_for_a_job(done, total):
        assert plain.run([PUB]).result()[0].data.evs == 1

    estimator = FusedEstimator(progress=wait_for_a_job)
    jobs = [estimator.run([PUB]) for _ in range(num_jobs)]
    assert [job.result()[0].data.evs for job in jobs] == [1] * num_jobs


@pytest.mark.parametrize("num_jobs", [8, 20, 100])
def test_jobs_whose_callback_waits_for_what_a_later_job_does_end(num_jobs):
    happened = threading.Event()

    def wait(done, total):
        assert happened.wait(60)

    jobs = [FusedEstimator(progress=wait).run([PUB]) for _ in range(num_jobs)]
    last = FusedEstimator(progress=lambda done, total: happened.set()).run([PUB])
    assert [job.result()[0].data.evs for job in [*jobs, last]] == [1] * (num_jobs + 1)


@pytest.mark.parametrize("num_jobs", [8, 20, 100])
def test_jobs_that_submit_and_wait_end_at_any_depth(num_jobs):
    def work(depth):
        if depth == 0:
            return 1, {}
        return sum(job.result() for job in [submitted(work, depth - 1) for _ in range(2)]), {}

    jobs = [submitted(work, 3) for _ in range(num_jobs)]
    assert [job.result() for job in jobs] == [8] * num_jobs


def test_many_jobs_queue_and_threads_that_are_too_many_end():
    before = len(job_threads_alive())
    computing, most = 0, 0
    lock = threading.Lock()

    def work():
        nonlocal computing, most
        with lock:
            computing += 1
            most = max(most, computing)
        time.sleep(1e-4)
        with lock:
            computing -= 1
        return 1, {}

    jobs = [submitted(work) for _ in range(10_000)]
    assert len(job_threads_alive()) <= max(before, MAX_COMPUTING) + 1
    assert sum(job.result() for job in jobs) == 10_000
    assert most <= MAX_COMPUTING


def test_threads_for_jobs_that_wait_end_with_them():
    release = threading.Event()

    def hold():
        return release.wait(60), {}

    held = submitted(hold)
    waiters = [submitted(lambda: (held.result(), {})) for _ in range(30)]
    while len(job_threads_alive()) < 31:
        time.sleep(0.001)
    release.set()
    assert all(job.result() for job in waiters)
    end = time.monotonic() + 30
    while len(job_threads_alive()) > MAX_COMPUTING + 1 and time.monotonic() < end:
        time.sleep(0.001)
    assert len(job_threads_alive()) <= MAX_COMPUTING + 1


def test_a_long_callback_makes_way_for_a_job_that_queues():
    release, running = threading.Event(), threading.Semaphore(0)

    def hold(done, total):
        running.release()
        assert release.wait(60)

    jobs = [FusedEstimator(progress=hold).run([PUB]) for _ in range(MAX_COMPUTING)]
    for _ in jobs:
        assert running.acquire(timeout=60)
    assert FusedEstimator().run([PUB]).result()[0].data.evs == 1
    assert [job.status() for job in jobs] == [JobStatus.RUNNING] * MAX_COMPUTING
    release.set()
    assert [job.result()[0].data.evs for job in jobs] == [1] * MAX_COMPUTING


def test_threads_count_no_job_as_waiting_once_it_computes_again():
    threads = JobThreads()
    release = threading.Event()

    def wait_a_little():
        with threads.waiting():
            pass
        with threads.in_foreign_code():
            pass
        return release.wait(60)

    futures = [threads.submit(wait_a_little) for _ in range(3 * MAX_COMPUTING)]
    time.sleep(0.2)
    assert sum(future.running() for future in futures) < 3 * MAX_COMPUTING
    assert list(threads._waits.values()).count(False) == sum(future.running() for future in futures)
    release.set()
    assert all(future.result() for future in futures)
    assert threads.submit(threading.get_ident).result() not in {threading.get_ident()}
    assert not job_threads().is_current()
