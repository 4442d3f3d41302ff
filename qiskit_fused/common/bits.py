# SPDX-License-Identifier: Apache-2.0
"""Bits of indices and masks: list the bits, move the bits, and expand functions of an index in signs of its bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def bits_of(mask: int) -> list[int]:
    """List the positions of the bits that are set in a mask, in ascending order."""
    bits = []
    while mask:
        bits.append((mask & -mask).bit_length() - 1)
        mask &= mask - 1
    return bits


def spread(positions: Sequence[int]) -> np.ndarray:
    """Return int64 (2**k,): entry i is the number i with its bit j moved to bit ``positions[j]``."""
    index = np.arange(1 << len(positions))
    moved = np.zeros(len(index), dtype=np.int64)
    for bit, position in enumerate(positions):
        moved |= (index >> bit & 1) << position
    return moved


def walsh(values: np.ndarray) -> np.ndarray:
    """Return the Walsh-Hadamard weights w, float64 (..., 2**k), of values (..., 2**k).

    The weights satisfy ``values[..., i] = sum_m w[..., m] (-1)^popcount(i & m)``. Cost: k 2**k additions for each
    vector of 2**k values.
    """
    weights = np.array(values, dtype=float)
    size, step = weights.shape[-1], 1
    while step < size:
        pairs = weights.reshape(-1, 2, step)
        weights = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1) / 2
        step *= 2
    return weights.reshape(np.shape(values))
