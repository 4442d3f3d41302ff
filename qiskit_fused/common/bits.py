# SPDX-License-Identifier: Apache-2.0
"""Bits of indices and masks: list them, move them, and sum over signs by them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def bits_of(mask: int) -> list[int]:
    """List the bits that are set, ascending."""
    bits = []
    while mask:
        bits.append((mask & -mask).bit_length() - 1)
        mask &= mask - 1
    return bits


def spread(positions: Sequence[int]) -> np.ndarray:
    """Return int64 (2**k,): index i with its bit j moved to bit ``positions[j]``."""
    index = np.arange(1 << len(positions))
    moved = np.zeros(len(index), dtype=np.int64)
    for bit, position in enumerate(positions):
        moved |= (index >> bit & 1) << position
    return moved


def walsh(values: np.ndarray) -> np.ndarray:
    """Return weights w with ``values[..., i] = sum_m w[..., m] (-1)^popcount(i & m)``, for values (..., 2**k)."""
    weights = np.array(values, dtype=float)
    size, step = weights.shape[-1], 1
    while step < size:
        pairs = weights.reshape(-1, 2, step)
        weights = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1) / 2
        step *= 2
    return weights.reshape(np.shape(values))
