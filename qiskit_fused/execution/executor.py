# SPDX-License-Identifier: Apache-2.0
"""The option ``executor``: sends the rows of a batch in portions to the workers of a `concurrent.futures.Executor`.

The cuts between portions depend on the work alone, not on the number of workers or on their speed, so that sums over
portions are the same bits in every run. All portions share the circuit and the observables. These shared objects are
sent by name, since workers keep the objects that they have received. A worker that lacks an object of that name returns
`_Missing`, and the portion is sent again together with the shared objects.
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

# The unit of work is one gate applied to one amplitude, about 0.3 ns on one core. A portion has at least _MIN_WORK, 20
# ms, since a task costs 2.5 ms beside its work with Dask and 0.3 ms with a pool of processes. A batch that would have
# more than _MANY_PORTIONS portions gets larger ones, up to _MAX_WORK, 0.6 s.
_MIN_WORK, _MAX_WORK = 1 << 26, 1 << 31
_MANY_PORTIONS = 256
_GPU_FACTOR = 256  # estimated ratio of the work per second of a GPU to the work per second of one core
_IN_FLIGHT = 256  # largest number of portions whose arguments or results are in memory at the same time
_GUESSED_WORKERS = 8  # assumed number of workers of an executor that does not tell its number
_CACHE_BYTES = 256 << 20  # largest size of the circuits and observables that a worker keeps, in bytes
_UNPICKLED = 3  # estimated ratio of the bytes of an object to the bytes of its pickle
_POLL_SECONDS = 0.05  # seconds between two checks whether the work was cancelled


def cut_portions(
    options: FusedOptions, compiled: CompiledCircuit, num_rows: int, num_adjoint_states: int | None
) -> list[slice]:
    """Return the portions of a batch; an empty list means that the batch runs in this process.

    A batch is cut into portions before all other cuts. A worker evaluates a portion as a batch of its own: it applies
    its own memory limit, and cuts the portion into blocks.

    Args:
        options: options with or without an executor. There are no portions unless `has_workers`.
        compiled: the circuit.
        num_rows: B.
        num_adjoint_states: number of adjoint states of a backward sweep; None where no gradients are requested.
    """
    if not num_rows or not has_workers(options):
        return []
    part = Part.of(compiled, num_rows, num_adjoint_states)
    count = min(count_portions(options, part.num_steps(part.num_qubits) << part.num_qubits), num_rows)
    if count == 1 and options.device != "cuda":  # with "cuda", this machine may lack the GPU that a worker has
        return []
    return cut_into(count, num_rows)


def has_workers(options: FusedOptions) -> bool:
    """Say whether there is an executor, and this process may use it.

    A forked child of the process that uses the executor may not, since an executor loses its threads in a fork.
    """
    return options.executor is not None and options.executor not in _of_parents


def count_portions(options: FusedOptions, work: int) -> int:
    """Return the number of portions, at least 1, for some work in units of one gate applied to one amplitude."""
    speed = _GPU_FACTOR if options.device == "cuda" else 1
    size = min(max(work // _MANY_PORTIONS, _MIN_WORK * speed), _MAX_WORK * speed)
    return max(work // size, 1)


def options_of_workers(options: FusedOptions) -> FusedOptions:
    """Return the options with which a worker evaluates a portion: one thread, unless num_threads is set."""
    return replace(options, executor=None, progress=False, num_threads=options.num_threads or 1, seed=None)


def run_portions(
    executor: Executor | None,
    function: Callable[..., Any],
    shared: Sequence[Any],
    arguments: Callable[[int], tuple[Any, ...]],
    portions: Sequence[slice],
    watch: Watch | None = None,
) -> Iterator[Any]:
    """Call ``function(*shared, cancelled, *arguments(number))`` on a worker for each portion, and yield the results.

    Results are yielded in the order of portions.

    Args:
        executor: the executor whose workers run the portions.
        function: a function of a module, since it is pickled. Its argument ``cancelled`` is a `Cancellation`, which is
            set when the work is cancelled and the worker is a thread of this process.
        shared: the arguments that all portions share: objects that never change. Workers keep them.
        arguments: called with the number of a portion; returns the other arguments of this portion.
        portions: the rows of each portion.
        watch: told how many rows are done, of how many; it returns True to end the work.

    Raises:
        RuntimeError: when the executor is broken or shut down, or the work was cancelled.
        Exception: the error of the first portion, in the order of portions, that raised an error.
    """
    assert executor is not None
    sender = _PortionSender(executor, function, shared, arguments, portions)
    num_whole = 0 if sender.was_sent() else getattr(executor, "_max_workers", None) or _GUESSED_WORKERS
    begun = done = 0
    results: dict[int, Any] = {}  # results of portions that ended before their turn
    try:
        for turn in range(len(portions)):
            while begun < min(turn + _IN_FLIGHT, len(portions)):
                sender.submit(begun, whole=begun < num_whole)
                begun += 1
            while turn not in results:
                for number, result in sender.next_results():
                    if isinstance(result, _Missing):
                        sender.submit(number, whole=True)
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
        sender.end()


class _Raised(NamedTuple):
    """The error of a portion. It is raised at the turn of the portion, so that fast workers do not change the error."""

    error: Exception


class _PortionSender:
    """Sends the portions of one call of `run_portions` to an executor, and receives their results."""

    def __init__(
        self,
        executor: Executor,
        function: Callable[..., Any],
        shared: Sequence[Any],
        arguments: Callable[[int], tuple[Any, ...]],
        portions: Sequence[slice],
    ):
        self._pending: dict[Future[Any], int] = {}  # the numbers of portions that were sent and not yet received
        self._executor, self._function, self._arguments, self._portions = executor, function, arguments, portions
        self._shared = [_Shared(value) for value in shared]
        self._cancelled = _Cancelled()
        self._ready: SimpleQueue[Future[Any]] = SimpleQueue()

    def was_sent(self) -> bool:
        """Say whether all shared objects were sent to this executor before, and note them as sent."""
        sent = _sent.setdefault(self._executor, WeakSet())
        missing = [shared.value for shared in self._shared if shared.value not in sent]
        sent.update(missing)
        return not missing

    def submit(self, number: int, whole: bool = False) -> None:
        """Send a portion to the executor, with the names of the shared objects and, if ``whole``, their pickles."""
        references = [_Reference(shared, whole) for shared in self._shared]
        call = _Call(self._function, references, self._cancelled, self._arguments(number))
        try:
            future = self._executor.submit(run_portion, call)
        except RuntimeError as error:  # broken, or shut down
            raise self._failure(error) from error
        self._pending[future] = number
        future.add_done_callback(self._ready.put)

    def next_results(self) -> list[tuple[int, Any]]:
        """Return the numbers and results of portions that have ended; an empty list if none ends within 0.05 s."""
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
        """Return the number of a portion and its result, which is `_Raised` after an error of the portion."""
        number = self._pending.pop(future)
        try:
            with shifted(self._portions[number].start):
                return number, future.result()
        except (BrokenExecutor, CancelledError):
            raise
        except Exception as error:
            return number, _Raised(error)

    def end(self) -> None:
        """Cancel the portions that have not begun, and set the cancellation for portions that run on threads."""
        self._cancelled.cancellation.set()
        for future in self._pending:
            future.cancel()

    def _failure(self, error: Exception) -> RuntimeError:
        """Return an error that says that the executor is broken or shut down, and what to do."""
        executor = type(self._executor).__name__
        if isinstance(error, BrokenExecutor):
            return RuntimeError(
                f"a worker of the executor ({executor}) has died, of too little memory perhaps, and the executor with "
                f"it: {error} Make a new one, with fewer workers if memory was short; Dask's client.get_executor() "
                "replaces workers and repeats what they were doing."
            )
        reason = f": {error}" if str(error) else ""
        return RuntimeError(f"the executor ({executor}) was shut down{reason}; make a new one, or set executor=None.")


# The shared objects that were sent to each executor. A worker that joined later lacks them and returns `_Missing`.
_sent: WeakKeyDictionary[Executor, WeakSet[Any]] = WeakKeyDictionary()
_of_parents: WeakSet[Executor] = WeakSet()  # executors that lost their threads when this process was forked
_names: WeakKeyDictionary[Any, str] = WeakKeyDictionary()  # the name of each shared object
_received: BoundedCache[Any] = BoundedCache(_CACHE_BYTES)  # on a worker: shared objects by their names
_lock = new_lock()


@in_child
def _after_fork() -> None:
    _of_parents.update(_sent)


class _Shared:
    """A shared object, its name, and its pickle, which is made when it is first needed."""

    def __init__(self, value: Any):
        self.value = value
        self.name: str = _names.setdefault(value, uuid4().hex)

    @cached_property
    def pickled(self) -> bytes:
        value = self.value
        if isinstance(value, CompiledCircuit):
            value = value._keeping(None)  # a worker runs the program and does not need the circuit
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


class _Reference:
    """A shared object on the caller's side. A worker that is a thread gets the object itself.

    Pickling a reference makes a `_Parcel`: the name of the object and, if ``whole``, its pickle. The worker looks up or
    unpickles the object only when the portion begins, since Dask unpickles and pickles a parcel on its way.
    """

    def __init__(self, shared: _Shared, whole: bool):
        self._shared, self._whole = shared, whole

    def __reduce__(self) -> tuple[Any, ...]:
        return _Parcel, (self._shared.name, self._shared.pickled if self._whole else None)

    def open(self) -> Any:
        return self._shared.value


class _Parcel:
    """A shared object on the worker's side: found by name in the worker's cache, or unpickled from attached bytes."""

    def __init__(self, name: str, pickled: bytes | None):
        self._name, self._pickled = name, pickled

    def open(self) -> Any:
        """Return the object; None if this worker does not have it."""
        with _lock:
            value = _received.get(self._name)
            if value is None and self._pickled is not None:
                value = pickle.loads(self._pickled)
                _received.put(self._name, value, min(_UNPICKLED * len(self._pickled), _received.max_bytes // 3))
        return value


class _Missing:
    """The result of a portion whose worker lacks a shared object."""


class _Cancelled:
    """A cancellation. Threads share it with the caller. A worker in another process gets one that is never set."""

    def __init__(self) -> None:
        self.cancellation = Cancellation()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Cancelled, ()


class _Call:
    """The call of a function for one portion, which a worker runs; see `run_portion`."""

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
        """Return a new name for Dask. Without a name, Dask would hash all arrays to look for an earlier equal call."""
        return uuid4().hex


def run_portion(call: _Call) -> Any:
    """Evaluate one portion, on a worker."""
    return call.run()
