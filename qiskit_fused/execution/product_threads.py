# SPDX-License-Identifier: Apache-2.0
"""Matrix products of many tiles on the threads of this package: each product runs on one thread.

The library behind NumPy's matrix products has threads of its own. They wait for each other in every product, and a
product of a small tile then takes up to 100 times as long where another program uses one of the CPUs. So these threads
are switched off while tiles are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

from qiskit_fused.common.forks import in_child, new_lock

_Tile = TypeVar("_Tile")

_NUMBERS_OF_ONE_THREAD = 8192  # the largest number of numbers whose inner product `np.vdot` computes on one thread

_lock = new_lock()
_libraries: list[Any] | None = None  # the controllers of the libraries of this process; a search takes a millisecond
_users = 0  # the number of `single_threaded_products` that run
_limited: list[tuple[Any, int]] = []  # the libraries and their numbers of threads before the first of them


@in_child
def _after_fork() -> None:
    global _users
    _restore()
    _users = 0


@contextmanager
def single_threaded_products() -> Iterator[None]:
    """Let each matrix product of NumPy run on one thread, in all threads of the process.

    Several threads may be in this context at the same time. The last of them that leaves ends the limit.
    """
    global _libraries, _users
    with _lock:
        if not _users:
            if _libraries is None:
                _libraries = ThreadpoolController().select(user_api="blas").lib_controllers
            # `ThreadpoolController.limit` would take 12 us.
            _limited.extend((library, library.get_num_threads()) for library in _libraries)
            for library in _libraries:
                _set_num_threads(library, 1)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _restore()


def _restore() -> None:
    """Set the libraries back to the numbers of threads that they had before."""
    for library, num_threads in _limited:
        _set_num_threads(library, num_threads)
    _limited.clear()


def _set_num_threads(library: Any, num_threads: int) -> None:
    """Set the number of threads of a library for the whole process.

    threadpoolctl 3.8 lets only one thread set the number of OpenBLAS: the first that sets it, for as long as it lives.
    It ignores all other threads. Jobs run in several threads that live on, so this rule is lifted here.
    """
    forget_thread = getattr(library, "clear_controlling_thread", lambda force: None)
    forget_thread(force=True)
    library.set_num_threads(num_threads)
    forget_thread(force=True)


def inner_product(left: np.ndarray, right: np.ndarray) -> float:
    """Return the real part of ``sum conj(left) right`` of two arrays of one shape and dtype, on this thread alone.

    `np.vdot` and `np.linalg.norm` use the threads of the library for more than 10,000 numbers.
    """
    if left.size <= _NUMBERS_OF_ONE_THREAD:
        return float(np.vdot(left, right).real)
    left, right = (np.ascontiguousarray(array).reshape(-1).view(array.real.dtype) for array in (left, right))
    return float(np.einsum("i,i->", left, right))


def for_each_tile(
    function: Callable[[_Tile], int], tiles: Sequence[_Tile], num_threads: int, done: Callable[[int], None]
) -> None:
    """Call a function for each tile, on several threads.

    Args:
        function: computes a tile and returns its work. Results of tiles do not depend on each other.
        tiles: the tiles.
        num_threads: number of threads.
        done: called with the work of each tile, in the order of tiles and by this thread. If it raises an error, tiles
            that have not begun are left out.
    """
    with single_threaded_products():
        if min(num_threads, len(tiles)) < 2:
            for tile in tiles:
                done(function(tile))
            return
        pool = ThreadPoolExecutor(min(num_threads, len(tiles)), thread_name_prefix="qiskit-fused-tiles")
        try:
            for work in pool.map(function, tiles):
                done(work)
        finally:
            pool.shutdown(cancel_futures=True)
