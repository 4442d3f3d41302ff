# SPDX-License-Identifier: Apache-2.0
"""A function of the caller that the CPU engine calls while another thread sweeps.

A gradient compares a large circuit with its compiled form in this way: the comparison holds Python's lock, the sweeps
do not. The function passes all layers between the caller and the engine by a variable of the thread, because no layer
but these two has to know it. An engine that does not look for the function leaves it to the caller.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")
_of_thread = threading.local()


class WorkBeside(Generic[_T]):
    """A function that is called once, by the first CPU evaluation inside the ``with`` block or by `result`.

    Args:
        function: called without arguments, in the thread that made this object.
    """

    def __init__(self, function: Callable[[], _T]):
        self._function = function
        self._results: list[_T] = []

    def __enter__(self) -> WorkBeside[_T]:
        _of_thread.work = self
        return self

    def __exit__(self, *error: object) -> None:
        _of_thread.work = None

    def __call__(self) -> None:
        """Call the function. The engine does this while another thread sweeps."""
        self._results.append(self._function())

    def result(self) -> _T:
        """Return the result of the function, which is called now if no engine has called it."""
        if not self._results:
            self()
        return self._results[0]


def take_work() -> WorkBeside | None:
    """Return the work that waits in this thread, and let no other evaluation find it; None if no work waits."""
    work: WorkBeside | None = getattr(_of_thread, "work", None)
    if work is not None:
        _of_thread.work = None
    return work
