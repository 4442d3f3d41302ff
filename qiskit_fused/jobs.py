# SPDX-License-Identifier: Apache-2.0
"""The job that runs beside the caller and holds a result and what ran."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from typing import Any

from qiskit.providers import JobError, JobStatus
from qiskit_machine_learning.algorithm_job import AlgorithmJob

from qiskit_fused.engines import cupy_runtime
from qiskit_fused.forks import in_child, new_lock
from qiskit_fused.options import FusedOptions
from qiskit_fused.progress import run_cancellable

MAX_WORKERS = 8
STOP_SECONDS = 1.0  # in which work ends after Ctrl-C

_pools: list[ThreadPoolExecutor] = []
_lock = new_lock()


@in_child
def _forget_threads() -> None:
    _pools.clear()  # a forked child has none of its parent's threads


class FusedJob(AlgorithmJob):
    """A ``PrimitiveJob`` that also says what ran. Its function returns the result and a dict of metrics.

    Cancelling it, or Ctrl-C while waiting for its result, ends work that has begun within a second; its result is then
    a RuntimeError.
    """

    _metrics: dict[str, Any]
    _future: Any
    _result: Any
    _status: JobStatus | None
    _cancelled: threading.Event | None = None

    def submit(self) -> None:
        """Start the job, on the CUDA device and stream that are current in this thread."""
        if self._future is not None:
            raise JobError("Primitive job has been submitted already.")
        with _lock:
            if not _pools:  # idle threads are reused: starting one per job costs more than a small circuit
                _pools.append(ThreadPoolExecutor(MAX_WORKERS, thread_name_prefix="qiskit-fused"))
        self._cancelled = threading.Event()
        wants_gpu = any(isinstance(one, FusedOptions) and one.device in ("auto", "cuda") for one in self._args)
        place = cupy_runtime.place() if wants_gpu else nullcontext()
        self._future = _pools[0].submit(
            run_cancellable, self._cancelled, place, self._function, *self._args, **self._kwargs
        )

    def _submit(self) -> None:
        self.submit()

    def result(self) -> Any:
        """Wait for the job and return its result; raises what the job raised."""
        if self._result is None:
            self._check_submitted()
            try:
                self._result, self._metrics = self._future.result()
            except KeyboardInterrupt:
                self.cancel()
                wait([self._future], STOP_SECONDS)  # its memory is free again, and its bar closed
                raise
        return self._result

    def status(self) -> JobStatus:
        """Return the status; a job that waits for a free thread is QUEUED (for ``PrimitiveJob``, an error for good)."""
        waits = (
            self._status is None and self._future is not None and not (self._future.running() or self._future.done())
        )
        return JobStatus.QUEUED if waits else super().status()

    def cancel(self) -> bool:
        """Cancel the job: True if it had not begun, else its work ends as soon as the engine can."""
        self._check_submitted()
        assert self._cancelled is not None
        self._cancelled.set()
        return bool(self._future.cancel())

    def metrics(self) -> dict[str, Any]:
        """Wait for the job and return what ran: device, dtype, kernels, sweeps, chunks, bytes, rows, pairs, seconds.

        Where workers of an executor shared it, also portions; bytes are then the most that one worker used.
        """
        self.result()
        return dict(self._metrics)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_function": None, "_args": (), "_kwargs": {}, "_cancelled": None}
