# SPDX-License-Identifier: Apache-2.0
"""Operations on blocks of rows give the results of NumPy's operations on the whole array."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qiskit_fused.common import row_blocks

SHAPES = st.tuples(st.integers(0, 9), st.integers(0, 5))
NUMBERS = st.sampled_from([0.0, 1.0, -2.5, np.nan, np.inf])


@pytest.fixture(params=[1, 40, 1 << 25], autouse=True)
def block_bytes(request, monkeypatch):
    monkeypatch.setattr(row_blocks, "BLOCK_BYTES", request.param)


@given(arrays(np.float64, SHAPES, elements=NUMBERS))
def test_blocks_are_all_rows_in_order(array):
    rows = [row for block in row_blocks.row_blocks(array) for row in range(block.start, block.stop)]
    assert rows == list(range(len(array)))


@given(arrays(st.sampled_from([np.float32, np.float64, np.int16]), SHAPES, elements=st.integers(-4, 4)))
def test_a_copy_is_contiguous_and_shares_nothing(array):
    for given_array in (array, np.asfortranarray(array), array[::2]):
        copy = row_blocks.copy_rows(given_array)
        np.testing.assert_array_equal(copy, given_array)
        assert copy.dtype == np.float64 and copy.flags.c_contiguous and not np.shares_memory(copy, given_array)


@given(arrays(np.float64, SHAPES, elements=NUMBERS))
def test_sums_over_blocks_are_those_over_all(array):
    assert row_blocks.all_finite(array) == np.isfinite(array).all()
    np.testing.assert_array_equal(row_blocks.columns_that_differ(array), (array[1:] != array[:1]).any(axis=0))
    for other in (array.copy(), array + 1, array[:-1]):
        assert row_blocks.are_equal(array, other) == np.array_equal(array, other)
    np.testing.assert_array_equal(row_blocks.join_arrays([array, array[1:]]), np.concatenate([array, array[1:]]))


@given(arrays(np.int64, st.integers(0, 9), elements=st.integers(0, 9)), st.booleans())
def test_places_lead_back_to_all_keys(keys, ascending):
    keys = np.unique(keys) if ascending else keys
    distinct, places = row_blocks.unique_sorted(keys)
    np.testing.assert_array_equal(distinct, np.unique(keys))
    np.testing.assert_array_equal(row_blocks.take_rows(distinct[:, None], places)[:, 0], keys)


@given(arrays(np.float64, SHAPES, elements=st.sampled_from([0.0, -0.0, 1.0, -2.5])))
def test_distinct_rows_are_numbered_by_their_first_occurrence(array):
    first, places = row_blocks.distinct_rows(array)
    assert len(first) == len(np.unique(array + 0.0, axis=0)) if array.shape[1] else len(first) == min(len(array), 1)
    np.testing.assert_array_equal(array[first][places], array)
    np.testing.assert_array_equal(places[first], np.arange(len(first)))
    assert (np.diff(first) > 0).all() and (places <= np.arange(len(array))).all()


@given(st.lists(st.integers(0, 3), max_size=9), st.lists(st.integers(0, 3), max_size=9))
def test_a_matrix_is_repeated_in_its_own_memory(row_kinds, column_kinds):
    rows, columns = (
        row_blocks.distinct_rows(np.array(kinds, float)[:, None])[1] for kinds in (row_kinds, column_kinds)
    )
    corner = np.random.default_rng(0).random((len(set(row_kinds)), len(set(column_kinds))))
    matrix = np.full((len(rows), len(columns)), np.nan)
    matrix[: corner.shape[0], : corner.shape[1]] = corner
    row_blocks.repeat_in_place(matrix, rows, columns)
    np.testing.assert_array_equal(matrix, corner[rows][:, columns])
