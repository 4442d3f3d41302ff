# SPDX-License-Identifier: Apache-2.0
"""How a job that was cancelled stops, wherever it is.

A thread that runs Python code is stopped by an exception that Python raises in it, as Ctrl-C does in the main thread.
A thread that is inside the C++ engine or a CUDA kernel asks `Cancellation.is_set` every 50 ms (see `engines.Watch`).
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from qiskit_fused.common.forks import new_lock

CANCELLED = "the evaluation was cancelled."

# After so many seconds a thread that goes on is interrupted again: one that imported a module, and one that lost the
# exception in code which ignores exceptions, such as a callback of a weak reference.
_IMPORT_SECONDS, _LOST_SECONDS = 0.05, 0.5

_HERE = threading.local()  # .cancellation: the `Cancellation` of the work that this thread does


class Stopped(BaseException):
    """Raised in a thread whose work was cancelled; like KeyboardInterrupt, ``except Exception`` does not catch it."""


class Cancellation:
    """Whether some work was cancelled, and the threads to stop when it is.

    Args:
        of_one_call: whether one call of `run` is all the work, which cannot be cancelled any more once it has returned.
    """

    def __init__(self, of_one_call: bool = False) -> None:
        self._lock, self._of_one_call = new_lock(), of_one_call
        self._is_set = self._has_ended = False
        self._threads: set[int] = set()  # that run Python code which may be interrupted anywhere
        self._timer: threading.Timer | None = None

    def is_set(self) -> bool:
        """Say whether the work was cancelled."""
        return self._is_set

    def check(self) -> None:
        """Raise a RuntimeError when the work was cancelled."""
        if self._is_set:
            raise RuntimeError(CANCELLED)

    def set(self) -> bool:
        """Cancel the work: its threads stop soon. Return False, and do nothing, when it has ended with a result."""
        with self._lock:
            if self._has_ended:
                return self._is_set
            self._is_set = True
            self._stop_threads()
        return True

    def _stop_threads(self) -> None:
        """Interrupt the threads, and again later those that go on. The lock is held."""
        stopped = [_interrupt(thread) for thread in self._threads]
        if stopped and self._timer is None:
            self._timer = threading.Timer(_LOST_SECONDS if all(stopped) else _IMPORT_SECONDS, self._try_again)
            self._timer.daemon = True
            with suppress(RuntimeError):  # the interpreter ends
                self._timer.start()

    def _try_again(self) -> None:
        with self._lock:
            self._timer = None
            self._stop_threads()

    def run(self, function: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        """Call a function that stops when the work is cancelled.

        Raises:
            RuntimeError: when the work was cancelled, whatever the function raised then.
        """
        thread, before = threading.get_ident(), getattr(_HERE, "cancellation", None)
        _HERE.cancellation = self
        try:
            try:
                self._enter(thread)
                result = function(*args, **keywords)
            finally:
                self._has_ended = self._of_one_call
                # `Stopped` may be raised in this block too. No other thread raises it here once this one is left.
                while thread in self._threads:
                    with suppress(Stopped):
                        self._leave(thread)
            self.check()
            return result
        except BaseException as error:
            if self._is_set:
                raise RuntimeError(CANCELLED) from (None if isinstance(error, Stopped) else error)
            raise
        finally:
            _HERE.cancellation = before

    def _enter(self, thread: int) -> None:
        with self._lock:
            if self._is_set:
                raise Stopped
            self._threads.add(thread)

    def _leave(self, thread: int) -> None:
        with self._lock:
            self._threads.discard(thread)
            _raise_in(thread, None)
            if self._timer is not None and not self._threads:
                self._timer.cancel()
                self._timer = None


def current() -> Cancellation | None:
    """Return the cancellation of the work that this thread does, None where nobody can cancel it."""
    return getattr(_HERE, "cancellation", None)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let a block of code, such as a callback of the user, run to its end before the work in this thread stops."""
    cancellation, thread = current(), threading.get_ident()
    if cancellation is None or thread not in cancellation._threads:
        yield
        return
    cancellation._leave(thread)
    yield
    cancellation._enter(thread)


def _interrupt(thread: int) -> bool:
    """Raise `Stopped` in a thread, unless it is importing a module, which would stay half made for good."""
    if _is_importing(thread):
        return False
    _raise_in(thread, Stopped)
    if _is_importing(thread):  # it has begun to meanwhile
        _raise_in(thread, None)
        return False
    return True


def _is_importing(thread: int) -> bool:
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Have Python raise an exception in a thread before its next instruction; None takes back one not yet raised."""
    error = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error)
