# SPDX-License-Identifier: Apache-2.0
"""Reset locks, and any other state that a module registers, in a forked child process.

A fork copies the memory of a process, but only the thread that forks. If another thread holds a lock at that moment,
the lock would stay locked forever in the child. All locks of this package are made here, and are open in a child.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ref

_locks: set[ref[Any]] = set()
_actions: list[Callable[[], None]] = []


def new_lock() -> Any:
    """Return a ``threading.Lock`` that is open in a forked child."""
    return _registered(threading.Lock())


def new_rlock() -> Any:
    """Return a ``threading.RLock`` that is open in a forked child."""
    return _registered(threading.RLock())


def _registered(lock: Any) -> Any:
    # Not a WeakSet: the callback of a WeakSet is Python code, and Ctrl-C during this callback would be lost.
    _locks.add(ref(lock, _locks.discard))
    return lock


def in_child(action: Callable[[], None]) -> Callable[[], None]:
    """Register a function that each forked child calls after its locks are open. A decorator for module functions."""
    _actions.append(action)
    return action


def begin_anew() -> None:
    """Open all locks, then call all registered functions. Each forked child calls this function."""
    for reference in list(_locks):
        lock = reference()
        if lock is not None:
            lock._at_fork_reinit()
    for action in _actions:
        action()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=begin_anew)


if TYPE_CHECKING:
    from functools import cached_property as cached_property
else:

    class cached_property(functools.cached_property):  # noqa: N801, the name of the class in functools
        """A property that is computed at its first use, as in functools, but without the lock of Python before 3.12.

        All objects of a class share that lock. If a thread holds the lock during a fork, the child would wait for the
        lock forever. Without the lock, two threads may compute the value at the same time; the first value stays.
        """

        def __get__(self, instance, owner=None):
            return self if instance is None else instance.__dict__.setdefault(self.attrname, self.func(instance))
