# SPDX-License-Identifier: Apache-2.0
"""Caches that are bounded in bytes, and the call that empties all of them.

One class for every kind of thing that is kept between calls. Each kind has a bound in bytes; what goes beyond it pushes
out other entries at random. Random choice keeps most of its hits where a loop visits a little more than what fits, one
after the other; to drop the entry that was used least recently would then drop each one just before it is needed.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Hashable
from functools import wraps
from random import Random
from typing import Any, Generic, TypeVar

import numpy as np

from qiskit_fused.common import forks

_V = TypeVar("_V")
_OVERHEAD = 600  # bytes of an entry beside its value: key, record, weak reference, places in a dict and a list


class Owner:
    """An object that owns entries of caches, where no object at hand dies at the right time."""

    __slots__ = ("__weakref__",)


def array_bytes(thing: Any) -> int:
    """Count the bytes of the arrays that are attributes of an object."""
    return sum(part.nbytes for part in vars(thing).values() if isinstance(part, np.ndarray))


class _OwnerReference(weakref.ref):
    """A weak reference that knows which entry it is the owner of."""

    __slots__ = ("key",)
    key: Hashable


class _Entry(Generic[_V]):
    __slots__ = ("num_bytes", "owner", "place", "value")

    def __init__(self, value: _V, num_bytes: int, owner: _OwnerReference | None):
        self.value, self.num_bytes, self.owner, self.place = value, num_bytes, owner, 0


class BoundedCache(Generic[_V]):
    """Values by key, of so many bytes at most; shared by threads, and usable in forked children.

    Args:
        max_bytes: bound of all values together. A larger value is kept only while its owner lives, and then counts as
            half of the bound, so that it does not push out everything else.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self._entries: dict[Hashable, _Entry[_V]] = {}
        self._keys: list[Hashable] = []  # entry number i of the random choice
        self._num_bytes = 0
        self._orphans: deque[_OwnerReference] = deque()  # owners that are gone, whose entries are still there
        self._add_orphan = self._orphans.append
        self._lock = forks.new_lock()
        self._random = Random(0)
        _caches.add(self)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def num_bytes(self) -> int:
        """Bytes of all values, as they were told by `put`."""
        return self._num_bytes

    def get(self, key: Hashable) -> _V | None:
        """Return the value of a key, or None."""
        if self._orphans:
            self._free_orphans()
        entry = self._entries.get(key)
        return None if entry is None else entry.value

    def put(self, key: Hashable, value: _V, num_bytes: int, owner: Any = None, *, replace: bool = False) -> _V:
        """Keep a value, as far as the bound allows, and return it.

        Where another thread was faster its value stays and is returned, unless ``replace`` says otherwise.

        Args:
            key: of the value; with an owner it has to be one that only this owner has, such as its ``id``.
            value: what to keep; never None.
            num_bytes: of the value.
            owner: when this object is gone, the entry is dropped at the next use of the cache.
            replace: whether to drop what is there.
        """
        num_bytes += _OVERHEAD
        if num_bytes > self.max_bytes:
            if owner is None:
                return value
            num_bytes = self.max_bytes // 2
        reference = None
        if owner is not None:
            # the callback is not Python code, in which Ctrl-C could be lost or which could want the lock again
            reference = _OwnerReference(owner, self._add_orphan)
            reference.key = key
        dropped: list[Any] = []  # freed when the lock is open
        return self._change(self._insert, dropped, key, _Entry(value, num_bytes, reference), replace)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            dropped = self._entries, self._keys
            self._entries, self._keys, self._num_bytes = {}, [], 0
        del dropped

    def recount(self) -> None:
        """Make places and bytes agree with the entries, where a change was left in the middle."""
        self._entries = {
            key: entry for key, entry in self._entries.items() if entry.owner is None or entry.owner() is not None
        }
        self._keys = list(self._entries)
        for place, key in enumerate(self._keys):
            self._entries[key].place = place
        self._num_bytes = sum(entry.num_bytes for entry in self._entries.values())

    def _insert(self, dropped: list[Any], key: Hashable, entry: _Entry[_V], replace: bool) -> _V:
        self._drop_orphans(dropped)
        present = self._entries.get(key)
        if present is not None:
            if not replace:
                return present.value
            self._drop(key, dropped)
        entry.place = len(self._keys)
        self._keys.append(key)
        self._entries[key] = entry
        self._num_bytes += entry.num_bytes
        while self._num_bytes > self.max_bytes and len(self._keys) > 1:
            chosen = self._keys[self._random.randrange(len(self._keys))]
            if chosen != key:
                self._drop(chosen, dropped)
        return entry.value

    def _drop(self, key: Hashable, dropped: list[Any]) -> None:
        entry = self._entries.pop(key)
        last = self._keys.pop()
        if last != key:
            self._keys[entry.place] = last
            self._entries[last].place = entry.place
        self._num_bytes -= entry.num_bytes
        dropped.append(entry)

    def _change(self, change: Callable[..., Any], *arguments: Any) -> Any:
        with self._lock:
            try:
                return change(*arguments)
            except BaseException:  # Ctrl-C, in the middle of a change
                self.recount()
                raise

    def _free_orphans(self) -> None:
        dropped: list[Any] = []
        self._change(self._drop_orphans, dropped)

    def _drop_orphans(self, dropped: list[Any]) -> None:
        while self._orphans:
            owner = self._orphans[0]
            entry = self._entries.get(owner.key)
            if entry is not None and entry.owner is owner:
                self._drop(owner.key, dropped)
            self._orphans.popleft()


def keeps(max_bytes: int, count_bytes: Callable[[_V], int]) -> Callable[[Callable[..., _V]], Callable[..., _V]]:
    """Have a function keep what it returned for its arguments; a decorator.

    Args:
        max_bytes: of all values together.
        count_bytes: counts the bytes of a value.
    """

    def decorate(function: Callable[..., _V]) -> Callable[..., _V]:
        cache: BoundedCache[_V] = BoundedCache(max_bytes)

        @wraps(function)
        def find(*arguments: Any) -> _V:
            value = cache.get(arguments)
            if value is None:
                value = function(*arguments)
                value = cache.put(arguments, value, count_bytes(value))
            return value

        return find

    return decorate


_caches: weakref.WeakSet[BoundedCache[Any]] = weakref.WeakSet()
_releases: list[Callable[[], None]] = []


@forks.in_child
def _recount() -> None:
    for cache in list(_caches):
        cache.recount()


def on_release(action: Callable[[], None]) -> Callable[[], None]:
    """Have `release_memory` call a function; a decorator for functions of modules."""
    _releases.append(action)
    return action


def release_memory() -> None:
    """Free everything that is kept between calls: compiled circuits, plans, observables, tables and workspaces.

    Calls that run at the moment keep what they use until they end. Later calls make again what they need: their results
    are the same, the first one of each circuit takes longer.

    >>> import qiskit_fused
    >>> qiskit_fused.release_memory()
    """
    for cache in list(_caches):
        cache.clear()
    for action in _releases:
        action()
