# SPDX-License-Identifier: Apache-2.0
"""Bits of masks."""

from __future__ import annotations


def bits_of(mask: int) -> list[int]:
    """List the bits that are set, ascending."""
    bits = []
    while mask:
        bits.append((mask & -mask).bit_length() - 1)
        mask &= mask - 1
    return bits
