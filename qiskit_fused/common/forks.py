# SPDX-License-Identifier: Apache-2.0
"""What begins anew in a forked child, in one place: locks, and whatever else a module registers.

A fork copies the memory of a process, but only the thread that forks. A lock that another thread held at that moment
would stay locked for good in the child. Every lock of this package comes from here, and a child finds it open.
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
    # not in a WeakSet, whose callback is Python code: Ctrl-C that arrives while it runs would be lost
    _locks.add(ref(lock, _locks.discard))
    return lock


def in_child(action: Callable[[], None]) -> Callable[[], None]:
    """Call a function in each forked child, when its locks are open; a decorator for functions of modules."""
    _actions.append(action)
    return action


def begin_anew() -> None:
    """Open all locks and call all registered functions, as a forked child does."""
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

    class cached_property(functools.cached_property):  # noqa: N801, the name it has there
        """A property that is computed at its first use, as in functools, but without the lock of Python before 3.12.

        That lock is one for all objects of a class, and a child forked while a thread holds it would wait for it for
        good. Two threads may compute the value at the same time; the first value stays.
        """

        def __get__(self, instance, owner=None):
            return self if instance is None else instance.__dict__.setdefault(self.attrname, self.func(instance))
