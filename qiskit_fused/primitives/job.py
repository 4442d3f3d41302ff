# SPDX-License-Identifier: Apache-2.0
"""`FusedJob`: a job with its result and metrics. A short job runs in the thread of its caller, others in their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future, TimeoutError, wait
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Any, NamedTuple

from qiskit.providers import JobError, JobStatus
from qiskit_machine_learning.algorithm_job import AlgorithmJob

from qiskit_fused.common.cancellation import CANCELLED, Cancellation, Stopped, current
from qiskit_fused.common.job_threads import job_threads
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.engines.cuda import availability
from qiskit_fused.execution.progress import Part
from qiskit_fused.options import FusedOptions

STOP_SECONDS = 1.0  # after Ctrl-C, `result` waits at most 1 s for the thread of its job to end
_POLL_SECONDS = 0.1  # seconds between two checks of a job that waits for another job whether it was cancelled
_SIGNAL_SECONDS = 0.25  # seconds between two checks of a waiting thread whether Ctrl-C was pressed

# A job of at most this work, in gates applied to an amplitude, takes about 1 ms on one core of an AMD Zen 4. It runs in
# the thread of its caller, because handing a job to another thread and back takes 0.07 to 0.2 ms.
_WORK_IN_CALLER = 1 << 23


class Size(NamedTuple):
    """The size of the work for one circuit of a job.

    Attributes:
        compiled: the circuit; None if it was not compiled.
        num_rows: the number of rows.
        num_terms: the number of Pauli terms whose expectation values a row needs.
        num_adjoint_states: the number of adjoint states of a backward sweep; None where no gradients are requested.
    """

    compiled: CompiledCircuit | None
    num_rows: int
    num_terms: int = 0
    num_adjoint_states: int | None = None


def _is_short(options: FusedOptions, sizes: Iterable[Size]) -> bool:
    """Say whether a job takes about a millisecond or less, so that it can run in the thread of its caller.

    A circuit that is not compiled, or that no earlier call has fused, may take longer. A progress callback may wait for
    the thread of the caller.
    """
    if options.progress is not False or options.device not in ("auto", "cpu"):
        return False
    work = 0
    for compiled, num_rows, num_terms, num_adjoint_states in sizes:
        if compiled is None or not compiled.has_fused_program:
            return False
        part = Part.of(compiled, num_rows, num_adjoint_states)
        work += part.num_gates * part.num_sweeps + num_terms * num_rows << part.num_qubits
        if work > _WORK_IN_CALLER:
            return False
    return True


class FusedJob(AlgorithmJob):
    """A ``PrimitiveJob`` that also tells what ran. Estimators and gradients return it.

    A job of about a millisecond or less, whose circuits an earlier call has fused, runs in the thread of its caller and
    has ended when ``run`` returns. Of longer jobs, eight compute at a time, and the others are QUEUED. While a job
    waits for another job, or for its progress callback, a queued job computes in its place, so jobs may wait for each
    other.

    ``cancel()`` stops a job within a second, even a running job; Ctrl-C during ``result()`` does the same. If
    ``cancel()`` returns False, the job had already ended.

    >>> from qiskit import QuantumCircuit
    >>> from qiskit_fused import FusedEstimator
    >>> job = FusedEstimator(device="cpu").run([(QuantumCircuit(1), "Z")])
    >>> job.result()[0].data.evs.item()
    1.0
    >>> job.status().name, job.metrics()["rows"]
    ('DONE', 1)
    """

    _metrics: dict[str, Any]
    _future: Any
    _result: Any
    _status: JobStatus | None
    _cancellation: Cancellation | None = None
    _submitter: Cancellation | None = None  # the cancellation of the job whose thread submitted this job

    def __repr__(self) -> str:
        is_submitted = self._future is not None or self._status is not None
        return f"FusedJob({self.job_id()!r}, {self.status().name if is_submitted else 'not submitted'})"

    def submit(self, sizes: Iterable[Size] | None = None) -> None:
        """Start the job. It runs on the CUDA device and stream that are current in the calling thread.

        Args:
            sizes: the sizes of the work for all circuits of the job, if they are known. A job of about a millisecond
                or less runs in the calling thread, and has ended when this method returns.

        Raises:
            JobError: if the job was submitted before.
        """
        if self._future is not None:
            raise JobError("Primitive job has been submitted already.")
        options = next((argument for argument in self._args if isinstance(argument, FusedOptions)), None)
        if options is not None and sizes is not None and _is_short(options, sizes):
            self._run_in_caller()
            return
        wants_gpu = options is not None and options.device in ("auto", "cuda")
        place = availability.place() if wants_gpu else nullcontext()
        self._cancellation, self._submitter = Cancellation(of_one_call=True), current()
        self._future = job_threads().submit(
            partial(self._cancellation.run, _run_in, place, self._function, *self._args, **self._kwargs)
        )

    def _run_in_caller(self) -> None:
        """Run the job in this thread. Ctrl-C, or the end of the job of this thread, is raised here."""
        self._cancellation, self._submitter, future = Cancellation(of_one_call=True), current(), Future[Any]()
        try:
            future.set_result(self._cancellation.run(self._function, *self._args, **self._kwargs))
        except Exception as error:
            future.set_exception(error)
        self._future = future

    def _submit(self) -> None:
        self.submit()

    def result(self) -> Any:
        """Wait for the job and return its result.

        Raises:
            RuntimeError: "the evaluation was cancelled.", as soon as the thread of a cancelled job has stopped.
            Exception: any error that the job raised.
        """
        if self._result is None:
            self._check_submitted()
            try:
                if current() is not None:
                    self._wait_in_job()
                self._wait()
                self._result, self._metrics = self._future.result()
            except CancelledError:  # the job was cancelled before it began
                raise RuntimeError(CANCELLED) from None
            except KeyboardInterrupt:
                self.cancel()
                wait([self._future], STOP_SECONDS)  # a thread that has ended has freed its memory and closed its bar
                raise
        return self._result

    def _wait(self) -> None:
        """Wait for the end of the job. Ctrl-C interrupts the wait.

        The wait is made of short waits, since Ctrl-C does not interrupt a wait without a time limit after a library,
        such as asyncio, has asked the system to restart calls that a signal interrupts.
        """
        while not self._future.done():
            with suppress(TimeoutError):
                self._future.exception(_SIGNAL_SECONDS)

    def _wait_in_job(self) -> None:
        """Wait in the thread of another job for the end of this job, or for the cancellation of the other job."""
        waiter, threads = current(), job_threads()
        try:
            with threads.waiting() if threads.is_current() else nullcontext():
                while not wait([self._future], _POLL_SECONDS).done:
                    if waiter is not None and waiter.is_set():
                        raise Stopped
        except Stopped:
            if self._submitter is waiter:
                self.cancel()
            raise

    def status(self) -> JobStatus:
        """Return the status of the job.

        It is CANCELLED as soon as ``cancel()`` has returned True, and QUEUED before the job has a thread. A
        ``PrimitiveJob`` of Qiskit that waits for a thread has the status ERROR, and keeps it.
        """
        if self._status is None and self._future is not None:
            assert self._cancellation is not None
            if self._cancellation.is_set():
                self._status = JobStatus.CANCELLED
            elif not (self._future.running() or self._future.done()):
                return JobStatus.QUEUED
        return super().status()

    def cancel(self) -> bool:
        """Cancel the job: it does not begin, or stops within a second.

        Returns:
            True if the job is cancelled. Then ``cancelled()`` is true, and ``result()`` raises a RuntimeError. False if
            the job had already ended, with a result or an error.
        """
        self._check_submitted()
        assert self._cancellation is not None
        is_cancelled = self._cancellation.set()
        if is_cancelled:
            self._future.cancel()
        return is_cancelled

    def metrics(self) -> dict[str, Any]:
        """Wait for the job and return what ran, by name.

        Returns:
            A dict, whose entries depend on what ran. The main ones are the ``device``, the ``dtype``, the name of the
            ``kernels``, the numbers of ``rows``, of (row, observable) ``pairs``, of ``sweeps`` and of ``chunks`` of a
            state, the peak ``bytes``, and the ``seconds``. If workers of an executor shared the rows, ``portions`` is
            the number of parts, and ``bytes`` is the largest peak of a worker.

        Raises:
            RuntimeError: if the job was cancelled.
            Exception: any error that the job raised.
        """
        self.result()
        return dict(self._metrics)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {
            "_function": None,
            "_args": (),
            "_kwargs": {},
            "_cancellation": None,
            "_submitter": None,
        }


def _run_in(place: AbstractContextManager[Any], function: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    """Call a function inside a context, such as the current CUDA device and stream."""
    with place:
        return function(*args, **keywords)
