# SPDX-License-Identifier: Apache-2.0
"""Columns whose shared numbers are stored once have the same numbers as the dense array."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qiskit_fused.engines.split_columns import SplitColumns


@st.composite
def split_columns(draw):
    """Return an array whose columns differ between rows where a mask says so, the mask, and a larger mask."""
    num_rows, num_columns = draw(st.integers(1, 4)), draw(st.integers(0, 6))
    mask = st.lists(st.booleans(), min_size=num_columns, max_size=num_columns).map(
        lambda bits: np.array(bits, dtype=bool)
    )
    varies, more = draw(mask), draw(mask)
    columns = np.arange(1.0, 1 + num_rows * num_columns).reshape(num_rows, num_columns)
    columns[:, ~varies] = columns[0, ~varies]
    return columns, varies, varies | more


@given(split_columns())
def test_columns_are_split_and_joined_without_loss(case):
    columns, varies, more = case
    split = SplitColumns.of(columns, varies)
    assert split.shape == columns.shape and not split.is_on_device
    assert split.varying.shape[1] == varies.sum() and split.shared.size == (~varies).sum()
    np.testing.assert_array_equal(split.dense(), columns)
    np.testing.assert_array_equal(split[1:].dense(), columns[1:])
    np.testing.assert_array_equal(split[np.array([0])].dense(), columns[:1])
    stored = split.stored(more)
    np.testing.assert_array_equal(stored.dense(), columns)
    assert np.array_equal(stored.is_varying, more)
    np.testing.assert_array_equal(stored.joined(), [*columns[0, ~more], *columns[:, more].ravel()])


@given(split_columns())
def test_equal_columns_have_the_same_numbers_in_the_same_layout(case):
    columns, varies, more = case
    split = SplitColumns.of(columns, varies)
    assert split.equal(split.copy()) and split.equal(split[:])
    assert split.equal(split.stored(more)) == np.array_equal(varies, more)
    if columns.size:
        other = split.copy()
        (other.varying if varies.any() else other.shared).flat[0] += 1
        assert not split.equal(other)
    assert not split.equal(split[1:])
