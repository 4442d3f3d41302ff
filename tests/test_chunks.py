# SPDX-License-Identifier: Apache-2.0
"""Chunks of a batch: they cover the pairs in order, keep to their bounds, and are as large as the bounds allow."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiskit_fused.engines.chunks import ChunkBytes, cut_into_chunks

row_numbers = st.lists(st.integers(0, 12), max_size=40).map(lambda rows: np.array(sorted(rows), dtype=np.int64))
sizes = st.builds(ChunkBytes, fixed=st.integers(0, 300), row=st.integers(0, 100), pair=st.integers(1, 100))


def bytes_of(rows, size):
    return size.fixed + size.row * len(np.unique(rows)) + size.pair * len(rows)


@given(rows=row_numbers, size=sizes, more=st.integers(0, 1500), resident=st.integers(1, 2000), whole_rows=st.booleans())
def test_chunks_cover_all_pairs_and_are_as_large_as_their_bounds_allow(rows, size, more, resident, whole_rows):
    limit = size.smallest + more
    chunks = list(cut_into_chunks(rows, size, limit, resident, whole_rows=whole_rows))
    assert [part.start for part, _ in chunks] == [0, *(part.stop for part, _ in chunks)][: len(chunks)]
    assert not chunks or chunks[-1][0].stop == len(rows)
    assert len(rows) == 0 or chunks

    def fits(pairs):
        taken = bytes_of(pairs, size)
        return taken <= limit and taken - size.fixed <= max(resident, size.row + size.pair)

    for part, taken in chunks:
        pairs = rows[part]
        assert len(pairs) and taken == bytes_of(pairs, size)
        assert fits(pairs) or (whole_rows and len(np.unique(pairs)) == 1)
        following = rows[part.stop :]
        if len(following):
            assert not (whole_rows and following[0] == pairs[-1])
            more_pairs = following[: np.searchsorted(following, following[0], side="right") if whole_rows else 1]
            assert not fits(np.append(pairs, more_pairs))


@pytest.mark.parametrize(("room", "expected"), [(120, [4, 2]), (110, [3, 3]), (80, [1, 4, 1]), (70, [1, 3, 1, 1])])
def test_a_row_in_two_chunks_is_counted_in_both(room, expected):
    rows, size = np.array([0, 3, 3, 3, 3, 4]), ChunkBytes(fixed=7, row=40, pair=10)
    chunks = cut_into_chunks(rows, size, 7 + room, 1 << 62, whole_rows=False)
    assert [part.stop - part.start for part, _ in chunks] == expected


def test_no_pairs_are_no_chunks():
    empty = np.zeros(0, dtype=np.int64)
    assert not list(cut_into_chunks(empty, ChunkBytes(1, 1, 1), 3, 1, whole_rows=True))
