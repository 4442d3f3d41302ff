# SPDX-License-Identifier: Apache-2.0
"""The option ``executor``: the rows of a batch go in portions to the workers of a `concurrent.futures.Executor`.

How rows are cut depends on the work alone, not on how many workers there are or who is fast, so that sums over portions
are the same in every run. What all portions share, the circuit and the observables, is sent by name: workers keep what
they have received, and one that lacks something, because it is new, says so and is sent the portion with all of it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple
from uuid import uuid4
from weakref import WeakKeyDictionary, WeakSet

from qiskit_fused.common.caches import BoundedCache
from qiskit_fused.common.cancellation import CANCELLED, Cancellation
from qiskit_fused.common.forks import cached_property, in_child, new_lock
from qiskit_fused.common.row_errors import shifted
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.engines.interface import Watch
from qiskit_fused.execution.progress import Part
from qiskit_fused.execution.row_cuts import cut_into
from qiskit_fused.options import FusedOptions

# Work is counted in gates times amplitudes, 0.3 ns each on one core. A portion is 20 ms, since a Dask task takes 2.5 ms
# and a pool's 0.3 ms beside its work, or more where there would be very many, up to a second.
_MIN_WORK, _MAX_WORK = 1 << 26, 1 << 31
_MANY_PORTIONS = 256
_GPU_FACTOR = 256  # a GPU does in that time, about
_IN_FLIGHT = 256  # portions at most that wait for a worker, run, or are done before their turn: memory is theirs
_GUESSED_WORKERS = 8  # where an executor does not say
_KEPT_BYTES = 256 << 20  # of circuits and observables that a worker keeps
_UNPICKLED = 3  # times the bytes of its pickle that an object takes, about
_POLL_SECONDS = 0.05  # between two looks at whether the work was cancelled


def cut_portions(
    options: FusedOptions, compiled: CompiledCircuit, num_rows: int, num_adjoint_states: int | None
) -> list[slice]:
    """Return the portions of a batch, none where it is to run in this process.

    Portions are cut before all other cuts: each is work for a process of its own, whose memory limit and blocks are its
    own too, and only the portion decides how many rows travel at a time.

    Args:
        options: without an executor there are no portions; nor in a child of the process that uses the executor, which
            does not outlive a fork, as it is not pickled either.
        compiled: the circuit.
        num_rows: B.
        num_adjoint_states: cotangents to go back with, None where no gradients are wanted.
    """
    if options.executor is None or not num_rows or options.executor in _of_parents:
        return []
    part = Part.of(compiled, num_rows, num_adjoint_states)
    work = part.num_steps(part.num_qubits) << part.num_qubits
    size = min(max(work // _MANY_PORTIONS, _MIN_WORK), _MAX_WORK)
    if options.device == "cuda":
        size *= _GPU_FACTOR
    count = min(max(work // size, 1), num_rows)
    if count == 1 and options.device != "cuda":  # which this machine may not have
        return []
    return cut_into(count, num_rows)


def options_of_workers(options: FusedOptions) -> FusedOptions:
    """Return the options that hold on a worker."""
    return replace(options, executor=None, progress=False, num_threads=options.num_threads or 1, seed=None)


def run_portions(
    executor: Executor | None,
    function: Callable[..., Any],
    shared: Sequence[Any],
    arguments: Callable[[int], tuple[Any, ...]],
    portions: Sequence[slice],
    watch: Watch | None = None,
) -> Iterator[Any]:
    """Call ``function(*shared, cancelled, *arguments(number))`` on workers for each portion, and yield what it returns.

    Results come in the order of portions, each when those before it have come.

    Args:
        executor: whose workers.
        function: of a module; ``cancelled`` is set where a thread of this process should end early.
        shared: what all portions share, kept by workers. Objects that do not change, compared by identity.
        arguments: the others of a portion, by its number.
        portions: of the rows.
        watch: told how many rows are done, of how many; True ends the work.

    Raises:
        RuntimeError: when the executor is broken or shut down, or the work was cancelled.
        Exception: what the first portion raised that raised anything, in the order of portions.
    """
    assert executor is not None
    run = _Run(executor, function, shared, arguments, portions)
    num_whole = 0 if run.is_known() else getattr(executor, "_max_workers", None) or _GUESSED_WORKERS
    begun = done = 0
    results: dict[int, Any] = {}  # that came before their turn
    try:
        for turn in range(len(portions)):
            while begun < min(turn + _IN_FLIGHT, len(portions)):
                run.submit(begun, whole=begun < num_whole)
                begun += 1
            while turn not in results:
                for number, result in run.next_results():
                    if isinstance(result, _Missing):
                        run.submit(number, whole=True)
                    else:
                        results[number] = result
                        done += portions[number].stop - portions[number].start
                if watch is not None and watch(done, portions[-1].stop):
                    raise RuntimeError(CANCELLED)
            result = results.pop(turn)
            if isinstance(result, _Raised):
                raise result.error
            yield result
    finally:
        run.end()


class _Raised(NamedTuple):
    """The error of a portion, raised at its turn: which error is raised does not depend on who is fast."""

    error: Exception


class _Run:
    """The portions of one call that are with an executor."""

    def __init__(
        self,
        executor: Executor,
        function: Callable[..., Any],
        shared: Sequence[Any],
        arguments: Callable[[int], tuple[Any, ...]],
        portions: Sequence[slice],
    ):
        self.flying: dict[Future[Any], int] = {}
        self._executor, self._function, self._arguments, self._portions = executor, function, arguments, portions
        self._shared = [_Shared(value) for value in shared]
        self._cancelled = _Cancelled()
        self._ready: SimpleQueue[Future[Any]] = SimpleQueue()

    def is_known(self) -> bool:
        """Say whether workers of this executor have been sent all that is shared; from now on they have."""
        known = _sent.setdefault(self._executor, WeakSet())
        missing = [one.value for one in self._shared if one.value not in known]
        known.update(missing)
        return not missing

    def submit(self, number: int, whole: bool = False) -> None:
        """Give a portion to the executor, together with all that is shared, or with the names of that."""
        shared = [_Reference(one, whole) for one in self._shared]
        call = _Call(self._function, shared, self._cancelled, self._arguments(number))
        try:
            future = self._executor.submit(run_portion, call)
        except RuntimeError as error:  # broken, or shut down
            raise self._failure(error) from error
        self.flying[future] = number
        future.add_done_callback(self._ready.put)

    def next_results(self) -> list[tuple[int, Any]]:
        """Return numbers and results of portions that are done, none when that takes long."""
        try:
            futures = [self._ready.get(timeout=_POLL_SECONDS)]
            while not self._ready.empty():
                futures.append(self._ready.get())
        except Empty:
            return []
        try:
            return [self._result(future) for future in futures]
        except (BrokenExecutor, CancelledError) as error:
            raise self._failure(error) from error

    def _result(self, future: Future[Any]) -> tuple[int, Any]:
        number = self.flying.pop(future)
        try:
            with shifted(self._portions[number].start):
                return number, future.result()
        except (BrokenExecutor, CancelledError):
            raise
        except Exception as error:
            return number, _Raised(error)

    def end(self) -> None:
        """Take back what has not begun, and tell threads to end."""
        self._cancelled.cancellation.set()
        for future in self.flying:
            future.cancel()

    def _failure(self, error: Exception) -> RuntimeError:
        what = type(self._executor).__name__
        if isinstance(error, BrokenExecutor):
            return RuntimeError(
                f"a worker of the executor ({what}) has died, of too little memory perhaps, and the executor with it: "
                f"{error} Make a new one, with fewer workers if memory was short; Dask's client.get_executor() "
                "replaces workers and repeats what they were doing."
            )
        reason = f": {error}" if str(error) else ""
        return RuntimeError(f"the executor ({what}) was shut down{reason}; make a new one, or set executor=None.")


# Which objects the workers of an executor have been sent. A new worker lacks them; it says so.
_sent: WeakKeyDictionary[Executor, WeakSet[Any]] = WeakKeyDictionary()
_of_parents: WeakSet[Executor] = WeakSet()  # executors that lost their threads when this process was forked
_names: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
_received: BoundedCache[Any] = BoundedCache(_KEPT_BYTES)  # on a worker
_lock = new_lock()


@in_child
def _after_fork() -> None:
    _of_parents.update(_sent)


class _Shared:
    """An object that many portions share, its name, and its pickle, made when it is first needed."""

    def __init__(self, value: Any):
        self.value = value
        self.name: str = _names.setdefault(value, uuid4().hex)

    @cached_property
    def pickled(self) -> bytes:
        value = self.value
        if isinstance(value, CompiledCircuit):
            value = value._keeping(None)  # a worker runs the program, and has no use for the circuit
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


class _Reference:
    """A shared object on its way to a worker: itself to a thread, else its name, with ``whole`` also its pickle.

    Nothing is looked up or unpickled before a worker asks, as Dask unpickles and pickles again on the way.
    """

    def __init__(self, shared: _Shared, whole: bool):
        self._shared, self._whole = shared, whole

    def __reduce__(self) -> tuple[Any, ...]:
        return _Parcel, (self._shared.name, self._shared.pickled if self._whole else None)

    def open(self) -> Any:
        return self._shared.value


class _Parcel:
    """What a `_Reference` is when it was unpickled."""

    def __init__(self, name: str, pickled: bytes | None):
        self._name, self._pickled = name, pickled

    def open(self) -> Any:
        """Return the object, None if it has never come here."""
        with _lock:
            value = _received.get(self._name)
            if value is None and self._pickled is not None:
                value = pickle.loads(self._pickled)
                _received.put(self._name, value, min(_UNPICKLED * len(self._pickled), _received.max_bytes // 3))
        return value


class _Missing:
    """The result of a portion whose worker lacks something that it was sent the name of."""


class _Cancelled:
    """A cancellation that threads share with the caller; other processes get one of their own, which is never set."""

    def __init__(self) -> None:
        self.cancellation = Cancellation()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Cancelled, ()


class _Call:
    """What a worker is to do; see `run_portion`."""

    def __init__(
        self,
        function: Callable[..., Any],
        shared: list[_Reference],
        cancelled: _Cancelled,
        arguments: tuple[Any, ...],
    ):
        self._function, self._shared, self._cancelled, self._arguments = function, shared, cancelled, arguments

    def run(self) -> Any:
        values = [reference.open() for reference in self._shared]
        if any(value is None for value in values):
            return _Missing()
        cancellation = self._cancelled.cancellation
        return cancellation.run(self._function, *values, cancellation, *self._arguments)

    def __dask_tokenize__(self) -> str:
        """Name the call for Dask, which would else hash its arrays to see whether it has done it before."""
        return uuid4().hex


def run_portion(call: _Call) -> Any:
    """Do one portion, on a worker."""
    return call.run()
