# SPDX-License-Identifier: Apache-2.0
"""The number of threads of NumPy's matrix products, which a library of NumPy chooses, not this package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import ThreadpoolController

from qiskit_fused.common.forks import in_child, new_lock

_lock = new_lock()
_users = 0  # the number of `limited_products` that run
_limiter: Any = None  # the limit that they share; the last of them ends it


@in_child
def _after_fork() -> None:
    global _users, _limiter
    _users, _limiter = 0, None


@contextmanager
def limited_products(num_threads: int | None) -> Iterator[None]:
    """Let matrix products in this context use at most ``num_threads`` threads; None changes nothing.

    The limit holds for the whole process. If threads enter this context at the same time, the limit of the first of
    them holds until the last of them leaves.

    Cost: a few milliseconds, to find the libraries of the process.
    """
    global _users, _limiter
    if num_threads is None:
        yield
        return
    with _lock:
        _users += 1
        if _users == 1:
            _limiter = ThreadpoolController().limit(limits=num_threads, user_api="blas")
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users and _limiter is not None:
                _limiter.restore_original_limits()
                _limiter = None
