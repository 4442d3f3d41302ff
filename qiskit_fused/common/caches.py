# SPDX-License-Identifier: Apache-2.0
"""Caches that are bounded in bytes, and the function that empties all of them.

Large results that Python keeps between calls are in `BoundedCache` objects. Engines keep their own workspaces, and
register functions that free them (see `on_release`). Each cache has a bound in bytes. When a new entry exceeds the
bound, the cache drops entries at random. If a loop visits slightly more values than fit, one after the other, a
random choice still finds most of them; dropping the least recently used entry would drop each just before its use.
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
_OVERHEAD = 600  # bytes that an entry takes beside its value: key, record, weak reference, slots in a dict and a list


class Owner:
    """An object that owns cache entries: the entries live as long as the object that holds this owner."""

    __slots__ = ("__weakref__",)


def array_bytes(thing: Any) -> int:
    """Return the bytes of all arrays that are attributes of an object."""
    return sum(part.nbytes for part in vars(thing).values() if isinstance(part, np.ndarray))


class _OwnerReference(weakref.ref):
    """A weak reference to the owner of an entry, with the key of the entry."""

    __slots__ = ("key",)
    key: Hashable


class _Entry(Generic[_V]):
    __slots__ = ("num_bytes", "owner", "place", "value")

    def __init__(self, value: _V, num_bytes: int, owner: _OwnerReference | None):
        self.value, self.num_bytes, self.owner, self.place = value, num_bytes, owner, 0


class BoundedCache(Generic[_V]):
    """A dict of values whose bytes are bounded. Threads may share it, and forked children may use it.

    Args:
        max_bytes: bound of all values together, in bytes. A single larger value is kept only while its owner lives. It
            counts as half of the bound, so that the cache does not drop everything else.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self._entries: dict[Hashable, _Entry[_V]] = {}
        self._keys: list[Hashable] = []  # all keys, so that a random number chooses an entry
        self._num_bytes = 0
        self._orphans: deque[_OwnerReference] = deque()  # references to dead owners whose entries are not yet dropped
        self._add_orphan = self._orphans.append
        self._lock = forks.new_lock()
        self._random = Random(0)
        _caches.add(self)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def num_bytes(self) -> int:
        """Bytes of all entries, as counted by the callers of `put`."""
        return self._num_bytes

    def get(self, key: Hashable) -> _V | None:
        """Return the value of a key; None if the cache does not hold the key."""
        if self._orphans:
            self._free_orphans()
        entry = self._entries.get(key)
        return None if entry is None else entry.value

    def put(self, key: Hashable, value: _V, num_bytes: int, owner: Any = None, *, replace: bool = False) -> _V:
        """Store a value if the bound allows it, and return the value.

        If another thread has already stored a value for this key, return that value, unless ``replace`` is true.

        Args:
            key: the key of the value. With an owner, the key must belong to this owner alone, such as its ``id``.
            value: the value; never None.
            num_bytes: the bytes of the value.
            owner: an object. After its death, the entry is dropped at the next use of the cache.
            replace: whether the value replaces an earlier value of this key.
        """
        num_bytes += _OVERHEAD
        if num_bytes > self.max_bytes:
            if owner is None:
                return value
            num_bytes = self.max_bytes // 2
        reference = None
        if owner is not None:
            # The callback is native code. A callback in Python could swallow Ctrl-C, or ask for the lock again.
            reference = _OwnerReference(owner, self._add_orphan)
            reference.key = key
        dropped: list[Any] = []  # holds dropped entries, so that they are freed after the lock is released
        return self._change(self._insert, dropped, key, _Entry(value, num_bytes, reference), replace)

    def clear(self) -> None:
        """Drop all entries."""
        with self._lock:
            dropped = self._entries, self._keys
            self._entries, self._keys, self._num_bytes = {}, [], 0
        del dropped

    def recount(self) -> None:
        """Count places and bytes again from the entries, after an exception interrupted a change."""
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
            except BaseException:  # Ctrl-C may interrupt a change
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
    """Return a decorator that caches the results of a function by its positional arguments.

    Args:
        max_bytes: bound of all results together, in bytes.
        count_bytes: returns the bytes of one result.
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
    """Register a function that `release_memory` calls. A decorator for functions at module level."""
    _releases.append(action)
    return action


def release_memory() -> None:
    """Free everything that is kept between calls: compiled circuits, plans, observables, tables and workspaces.

    Calls that run at the moment keep what they use until they end. Later calls make again what they need: they return
    the same results, and the first call with each circuit takes longer, because it compiles the circuit again. The
    caches are bounded without this function too.

    >>> import qiskit_fused
    >>> qiskit_fused.release_memory()
    """
    for cache in list(_caches):
        cache.clear()
    for action in _releases:
        action()
