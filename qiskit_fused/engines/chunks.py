# SPDX-License-Identifier: Apache-2.0
"""Chunks of a batch that fit a device: how many bytes they take, before anything is allocated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ChunkBytes:
    """Bytes on the device.

    Attributes:
        fixed: whatever the chunk.
        row: for each row.
        pair: for each pair of a row and an observable.
    """

    fixed: int
    row: int
    pair: int

    @property
    def smallest(self) -> int:
        """Bytes of a chunk of one pair."""
        return self.fixed + self.row + self.pair


def cut_into_chunks(
    rows: np.ndarray, size: ChunkBytes, limit: int, resident: int, *, whole_rows: bool
) -> Iterator[tuple[slice, int]]:
    """Cut pairs into chunks of bounded size.

    Args:
        rows: int (N,), ascending, the row of each pair.
        size: bytes; one pair must fit the limit.
        limit: bytes of a chunk.
        resident: bytes of a chunk without the fixed ones; one pair may be more.
        whole_rows: never cut between pairs of one row; such a row may then exceed the limit.

    Yields:
        Chunks, ascending and without gaps, and the bytes of each.
    """
    is_first = np.append(True, rows[1:] != rows[:-1])
    begin_of_row = np.append(np.flatnonzero(is_first), len(rows))
    ends = np.cumsum(size.pair + size.row * is_first)
    room = min(limit - size.fixed, max(resident, size.row + size.pair))
    start = 0
    while start < len(rows):
        # the first pair of a chunk brings its row, also where an earlier chunk has begun that row
        used = int(ends[start]) - size.pair - size.row
        end = max(int(np.searchsorted(ends, used + room, side="right")), start + 1)
        if whole_rows:
            row = np.searchsorted(begin_of_row, end, side="right") - 1
            end = int(begin_of_row[row] if begin_of_row[row] > start else begin_of_row[row + 1])
        yield slice(start, end), size.fixed + int(ends[end - 1]) - used
        start = end
