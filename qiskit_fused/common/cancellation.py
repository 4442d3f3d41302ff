# SPDX-License-Identifier: Apache-2.0
"""Stop the threads of a job that was cancelled.

A thread that runs Python code stops by an exception that Python raises in this thread, as Ctrl-C stops the main thread.
A thread inside the C++ engine or a CUDA kernel asks `Cancellation.is_set` every 50 ms (see `engines.Watch`).
"""

from __future__ import annotations

import _weakrefset
import ctypes
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from qiskit_fused.common.forks import new_lock

CANCELLED = "the evaluation was cancelled."

# Seconds after which a thread that still runs is interrupted again. _SPARED_SECONDS is for a thread that was not
# interrupted, because the exception would have done harm or would have been lost (see `_is_spared`). _LOST_SECONDS is
# for a thread whose exception was lost in a callback of a C library that ignores exceptions.
_SPARED_SECONDS, _LOST_SECONDS = 0.002, 0.5

# The files of the import system and of the callbacks of weak dictionaries and weak sets.
_SPARED_FILES = ("<frozen importlib", str(weakref.__file__), str(_weakrefset.__file__))

_HERE = threading.local()  # _HERE.cancellation is the `Cancellation` of the work in this thread


class Stopped(BaseException):
    """Raised in a thread whose work was cancelled; like KeyboardInterrupt, ``except Exception`` does not catch it."""


class Cancellation:
    """The flag that some work was cancelled, and the threads that do this work.

    Args:
        of_one_call: whether one call of `run` is all the work. Such work cannot be cancelled after the call returned.
    """

    def __init__(self, of_one_call: bool = False) -> None:
        self._lock, self._of_one_call = new_lock(), of_one_call
        self._is_set = self._has_ended = False
        self._threads: set[int] = set()  # the threads whose Python code may be interrupted anywhere
        self._all_left = threading.Event()  # set when the last thread leaves cancelled work
        self._is_repeating = False

    def is_set(self) -> bool:
        """Say whether the work was cancelled."""
        return self._is_set

    def check(self) -> None:
        """Raise a RuntimeError if the work was cancelled."""
        if self._is_set:
            raise RuntimeError(CANCELLED)

    def set(self) -> bool:
        """Cancel the work: its threads stop soon. Return False if the work had ended before it was cancelled."""
        with self._lock:
            if self._has_ended:
                return self._is_set
            self._is_set = True
            if self._threads:
                self._repeat(self._stop_threads())
        return True

    def _stop_threads(self) -> float:
        """Interrupt the threads, and return the seconds until they are interrupted again. The caller holds the lock."""
        stopped = [_interrupt(thread) for thread in self._threads]
        return _LOST_SECONDS if all(stopped) else _SPARED_SECONDS

    def _repeat(self, seconds: float) -> None:
        """Start a thread that interrupts the threads again until all of them have left. The caller holds the lock."""

        def work(seconds: float) -> None:
            while not self._all_left.wait(seconds):
                with self._lock:
                    if not self._threads:  # a `Stopped` raised in `_leave` may have left the event unset
                        return
                    seconds = self._stop_threads()

        if not self._is_repeating:
            self._is_repeating = True
            with suppress(RuntimeError):  # no thread can start while the interpreter shuts down
                threading.Thread(target=work, args=(seconds,), daemon=True).start()

    def run(self, function: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        """Call a function in this thread, and stop the function when the work is cancelled.

        Raises:
            RuntimeError: if the work was cancelled, whatever exception the function raised.
        """
        thread, before = threading.get_ident(), getattr(_HERE, "cancellation", None)
        _HERE.cancellation = self
        try:
            try:
                self._enter(thread)
                result = function(*args, **keywords)
            finally:
                self._has_ended = self._of_one_call
                # `Stopped` may be raised in this block too. After _leave, no other thread raises it in this thread.
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
            if self._is_set:
                _catch_pending(thread)
                if not self._threads:
                    self._all_left.set()


def current() -> Cancellation | None:
    """Return the cancellation of the work in this thread; None if nobody can cancel this work."""
    return getattr(_HERE, "cancellation", None)


def stop_if_cancelled() -> None:
    """Raise `Stopped` if the work in this thread was cancelled.

    Each step of the compilation begins with this call, because Python may lose the exception that `_interrupt` raises.
    """
    cancellation = current()
    if cancellation is not None and cancellation.is_set():
        raise Stopped


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Do not interrupt a block of code, such as a callback of the user: this thread stops after the block."""
    cancellation, thread = current(), threading.get_ident()
    if cancellation is None or thread not in cancellation._threads:
        yield
        return
    cancellation._leave(thread)
    yield
    cancellation._enter(thread)


def _interrupt(thread: int) -> bool:
    """Raise `Stopped` in a thread and return True. A thread that must be spared is left alone: return False."""
    if _is_spared(thread):
        return False
    _raise_in(thread, Stopped)
    if _is_spared(thread):  # the thread began an import or a callback after the first check
        _raise_in(thread, None)
        return False
    return True


def _is_spared(thread: int) -> bool:
    """Say whether a thread must not be interrupted now.

    An interrupted import would leave an incomplete module for the rest of the process. Python ignores the exceptions of
    finalizers and of the callbacks of weak references and of the garbage collector, so `Stopped` would be lost there.
    A thread that makes many objects in C code runs hardly any other Python code than these callbacks.
    """
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    frame = sys._current_frames().get(thread)
    while frame is not None:
        code = frame.f_code
        if code in callbacks or code.co_name == "__del__" or code.co_filename.startswith(_SPARED_FILES):
            return True
        frame = frame.f_back
    return False


def _catch_pending(thread: int) -> None:
    """Catch the `Stopped` that `_interrupt` may have left pending in this thread.

    This function raises a `Stopped`, which replaces a pending one, and catches it. It does not withdraw the pending
    exception, because then, until the next such exception is raised, CPython 3.11 is in a state in which each call that
    a profiler or a debugger observes never returns.
    """
    with suppress(Stopped):
        _raise_in(thread, Stopped)  # replaces a pending `Stopped`
        while True:  # Python raises the exception during this loop at the latest
            pass


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Make Python raise an exception in a thread before its next instruction. None withdraws a pending exception."""
    error = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error)
