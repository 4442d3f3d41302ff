# SPDX-License-Identifier: Apache-2.0
"""The threads in which jobs run: a few threads that are reused, and more while jobs wait for other jobs.

At most `MAX_COMPUTING` jobs compute at a time, and the other jobs queue. A waiting job does not count. A job waits
while its thread is inside `JobThreads.waiting`, or has been inside `JobThreads.in_foreign_code` for `PATIENCE` seconds.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from qiskit_fused.common.forks import in_child, new_lock

MAX_COMPUTING = 8  # jobs that compute at the same time
MAX_THREADS = 1000  # jobs that compute or wait at the same time; further jobs queue, even if all others wait for them
PATIENCE = 0.05  # seconds in foreign code after which a job counts as waiting

_of_process: list[JobThreads] = []

_Task = tuple[Future, Callable[[], Any]]


class JobThreads:
    """An executor that runs functions in threads. The functions may wait for each other without a deadlock."""

    def __init__(self) -> None:
        self._lock = new_lock()
        self._queue: deque[_Task] = deque()
        # Idle threads are reused: starting a thread for each job takes longer than simulating a small circuit.
        self._kept = ThreadPoolExecutor(MAX_COMPUTING, thread_name_prefix="qiskit-fused")
        self._num_kept_busy = 0
        self._admitted: deque[_Task] = deque()  # tasks whose threads are starting
        self._waits: dict[int, bool] = {}  # for each thread with a job: whether the job waits
        self._foreign_since: dict[int, float] = {}  # time.monotonic() at which each thread entered foreign code
        self._is_observed = False

    def submit(self, function: Callable[[], Any]) -> Future[Any]:
        """Call a function in a thread, at once or as soon as a thread is free, and return the future of its result.

        A job that another job submits goes to the front of the queue, because the other job probably waits for it.
        """
        task: _Task = Future(), function
        with self._lock:
            if self.is_current():
                self._queue.appendleft(task)
            else:
                self._queue.append(task)
            self._admit()
        return task[0]

    def is_current(self) -> bool:
        """Say whether this thread runs a job."""
        return threading.get_ident() in self._waits

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the job of this thread as waiting inside the ``with`` block."""
        thread = threading.get_ident()
        with self._lock:
            before = self._waits.get(thread)
            if before is False:
                self._waits[thread] = True
                self._admit()
        try:
            yield
        finally:
            if before is False:
                self._waits[thread] = False

    @contextmanager
    def in_foreign_code(self) -> Iterator[None]:
        """Mark code of the user, such as a callback, that may wait for another job without a call of `waiting`."""
        thread = threading.get_ident()
        if not self.is_current():
            yield
            return
        with self._lock:
            self._foreign_since[thread] = time.monotonic()
            self._observe()
        try:
            yield
        finally:
            with self._lock:
                self._foreign_since.pop(thread, None)
                self._waits[thread] = False

    def _admit(self) -> None:
        """Start queued jobs until `MAX_COMPUTING` jobs compute. The caller holds the lock."""
        while (
            self._queue
            and len(self._admitted) + len(self._waits) < MAX_THREADS
            and len(self._admitted) + self._num_computing() < MAX_COMPUTING
        ):
            is_kept = self._num_kept_busy < MAX_COMPUTING
            try:
                if is_kept:
                    self._kept.submit(self._work, True)
                else:
                    threading.Thread(target=self._work, args=(False,), name="qiskit-fused-more").start()
            except RuntimeError:  # the interpreter shuts down, or the system has no more threads
                if not self._waits:
                    raise
                return  # the thread of a job that ends takes this job from the queue
            self._num_kept_busy += is_kept
            self._admitted.append(self._queue.popleft())
        self._observe()

    def _num_computing(self) -> int:
        return sum(not waits for waits in self._waits.values())

    def _work(self, is_kept: bool) -> None:
        thread = threading.get_ident()
        with self._lock:
            task: _Task | None = self._admitted.popleft()
            self._waits[thread] = False
        while task is not None:
            future, function = task
            if future.set_running_or_notify_cancel():
                try:
                    result = function()
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            del future, function, task  # an idle thread must not keep the objects of its last job alive
            task = self._next_task(thread, is_kept)

    def _next_task(self, thread: int, is_kept: bool) -> _Task | None:
        with self._lock:
            self._foreign_since.pop(thread, None)
            self._waits[thread] = False
            if self._queue and self._num_computing() <= MAX_COMPUTING:
                return self._queue.popleft()
            del self._waits[thread]
            self._num_kept_busy -= is_kept
            return None

    def _observe(self) -> None:
        """Start a thread that marks jobs in foreign code as waiting while jobs queue. The caller holds the lock."""
        if self._queue and self._foreign_since and not self._is_observed:
            self._is_observed = True
            threading.Thread(target=self._observe_foreign_code, name="qiskit-fused-observer", daemon=True).start()

    def _observe_foreign_code(self) -> None:
        while self._is_observed:
            time.sleep(PATIENCE)
            with self._lock:
                latest = time.monotonic() - PATIENCE
                for thread, since in self._foreign_since.items():
                    if since <= latest:
                        self._waits[thread] = True
                self._admit()
                self._is_observed = bool(self._queue and self._foreign_since)


def job_threads() -> JobThreads:
    """Return the `JobThreads` of this process."""
    if not _of_process:
        _of_process.append(JobThreads())  # two threads may each append an object: both return the first object
    return _of_process[0]


@in_child
def _forget_threads() -> None:
    _of_process.clear()  # a forked child does not have the threads of its parent
