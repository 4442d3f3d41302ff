# SPDX-License-Identifier: Apache-2.0
"""Checks that a communicator is one, and that all ranks make the same call."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from qiskit_fused.distributed.communicator import Communicator, check_size

_DIGIT_BITS, _NUM_DIGITS = 20, 3  # the sum of the squares of such digits is exact in float64 for up to 2^13 ranks


def check_communicator(communicator: Any) -> None:
    """Raise a TypeError or ValueError unless an object is a `Communicator` with a valid rank and size."""
    missing = [name for name in ("rank", "size", "exchange", "sum") if not hasattr(communicator, name)]
    if missing:
        raise TypeError(
            f"communicator is a {type(communicator).__name__} without {', '.join(missing)}; give an MpiCommunicator, "
            "or an object with the members of Communicator."
        )
    size = check_size(communicator.size)
    if not 0 <= communicator.rank < size:
        raise ValueError(f"communicator.rank is {communicator.rank}; allowed: 0 to {size - 1}.")


def check_same_call(communicator: Communicator, parts: Iterable[Any]) -> None:
    """Raise a ValueError on all ranks if their calls differ.

    Args:
        communicator: connects the ranks.
        parts: texts and arrays, which are equal on all ranks if the calls are equal.

    Cost: a hash of the arrays, and one sum of six numbers over the ranks.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(repr((getattr(part, "shape", None), getattr(part, "dtype", None))).encode())
        is_plain = isinstance(part, np.ndarray) and part.dtype != object
        digest.update(np.ascontiguousarray(part).tobytes() if is_plain else repr(np.asarray(part).tolist()).encode())
    number = int.from_bytes(digest.digest(), "big")
    digits = [number >> _DIGIT_BITS * place & (1 << _DIGIT_BITS) - 1 for place in range(_NUM_DIGITS)]
    sums = communicator.sum(np.array([*digits, *(digit**2 for digit in digits)], dtype=np.float64)).tolist()
    # The variance of the digits over the ranks is 0 on every rank, or positive on every rank.
    for total, total_of_squares in zip(sums[:_NUM_DIGITS], sums[_NUM_DIGITS:]):
        if communicator.size * int(total_of_squares) != int(total) ** 2:
            raise ValueError(
                "the ranks made different calls; on all ranks, call the same function with the same circuit, "
                "observables, parameter values, cotangents and dtype."
            )
