# SPDX-License-Identifier: Apache-2.0
"""The threads in which jobs run: a few that are kept, and more while jobs wait for other jobs.

At most `MAX_COMPUTING` jobs compute at a time, and the others queue. A job that waits does not count. It waits while
its thread is inside `JobThreads.waiting`, or has been inside `JobThreads.in_foreign_code` for `PATIENCE` seconds.
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

MAX_COMPUTING = 8
MAX_THREADS = 1000  # of jobs that compute or wait; jobs beyond it queue, even if all others wait for them
PATIENCE = 0.05  # seconds

_of_process: list[JobThreads] = []

_Task = tuple[Future, Callable[[], Any]]


class JobThreads:
    """Runs functions in threads, as an executor does, and lets them wait for each other."""

    def __init__(self) -> None:
        self._lock = new_lock()
        self._queue: deque[_Task] = deque()
        # Idle threads are reused: to start a thread for each job costs more than a small circuit does.
        self._kept = ThreadPoolExecutor(MAX_COMPUTING, thread_name_prefix="qiskit-fused")
        self._num_kept_busy = 0
        self._admitted: deque[_Task] = deque()  # whose threads are starting
        self._waits: dict[int, bool] = {}  # of each thread that has a job: whether the job waits
        self._foreign_since: dict[int, float] = {}  # when threads entered foreign code, time.monotonic()
        self._is_observed = False

    def submit(self, function: Callable[[], Any]) -> Future[Any]:
        """Call a function in a thread, at once or when there is one for it.

        A job that another job submits goes to the front of the queue, since the other is likely to wait for it.
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
        """Say whether this thread is one that runs a job."""
        return threading.get_ident() in self._waits

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Do not count the job of this thread as one that computes."""
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
        """Mark code that may wait for another job, such as a callback, without our seeing it."""
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
        """Begin queued jobs while fewer than allowed compute. The lock is held."""
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
            except RuntimeError:  # the interpreter ends, or the system has no more threads
                if not self._waits:
                    raise
                return  # the job begins when another one ends
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
            del future, function, task  # a thread that waits for its next job keeps nothing of the last one
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
        """See to it that jobs which stay in foreign code make way while others queue. The lock is held."""
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
    """Return the threads of all jobs of this process."""
    if not _of_process:
        _of_process.append(JobThreads())  # two threads may each make one: the first is taken by both
    return _of_process[0]


@in_child
def _forget_threads() -> None:
    _of_process.clear()  # a forked child has none of its parent's threads
