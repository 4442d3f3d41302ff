# SPDX-License-Identifier: Apache-2.0
"""Operations on arrays that may be gigabytes, block by block of rows.

Python hears Ctrl-C, and that a job was cancelled, between two operations of NumPy only. An operation on one block takes
some milliseconds, where one on all rows may take seconds; it also makes its temporary arrays of one block only.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

import numpy as np

BLOCK_BYTES = 1 << 25
_FEW_BYTES = 1 << 13  # of an array whose sum of squares is looked at first: 1,024 numbers


def row_blocks(array: np.ndarray) -> Iterator[slice]:
    """Yield the rows of an array in blocks of 32 MiB or less, of one row at least."""
    num_rows = len(array)
    size = max(num_rows * BLOCK_BYTES // max(array.nbytes, 1), 1)
    for begin in range(0, num_rows, size):
        yield slice(begin, min(begin + size, num_rows))


def copy_rows(array: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    """Return a contiguous copy of an array as numbers of a type."""
    if array.nbytes <= BLOCK_BYTES:
        return np.array(array, dtype=dtype, order="C")
    copy: np.ndarray = np.empty(array.shape, dtype=dtype)
    for rows in row_blocks(array):
        copy[rows] = array[rows]
    return copy


def join_arrays(arrays: list[np.ndarray]) -> np.ndarray:
    """Return arrays (B_i, P) one below the other; of one array, this array itself."""
    if len(arrays) == 1:
        return arrays[0]
    if sum(array.nbytes for array in arrays) <= BLOCK_BYTES:
        return np.concatenate(arrays)
    joined = np.empty((sum(map(len, arrays)), *arrays[0].shape[1:]), dtype=arrays[0].dtype)
    begin = 0
    for array in arrays:
        part = joined[begin : begin + len(array)]
        for rows in row_blocks(array):
            part[rows] = array[rows]
        begin += len(array)
    return joined


def all_finite(array: np.ndarray) -> bool:
    """Say whether no number is NaN or infinite."""
    # For few numbers their sum of squares takes a quarter of the time, and is not finite where one of them is not.
    if array.nbytes <= _FEW_BYTES and isfinite(np.vdot(array, array).real):
        return True
    if array.nbytes <= BLOCK_BYTES:
        return bool(np.isfinite(array).all())
    return all(np.isfinite(array[rows]).all() for rows in row_blocks(array))


def are_equal(left: np.ndarray, right: np.ndarray) -> bool:
    """Say whether two arrays have the same shape and the same numbers."""
    if left is right or left.shape != right.shape or left.nbytes <= BLOCK_BYTES:
        return left is right or np.array_equal(left, right)
    return all(np.array_equal(left[rows], right[rows]) for rows in row_blocks(left))


def columns_that_differ(array: np.ndarray) -> np.ndarray:
    """Say, bool (P,), in which columns of an array (B, P) some row differs from the first one."""
    if array.nbytes <= BLOCK_BYTES:
        return (array[1:] != array[:1]).any(axis=0)
    differ, others = np.zeros(array.shape[1], dtype=bool), array[1:]
    for rows in row_blocks(others):
        differ |= (others[rows] != array[:1]).any(axis=0)
    return differ


def unique_sorted(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct numbers of an array, ascending, and the place of each number of the array among them."""
    if (keys[1:] > keys[:-1]).all():
        return keys, np.arange(len(keys))
    distinct, places = np.unique(keys, return_inverse=True)
    return distinct, places


def take_rows(array: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the rows of an array at some places; where these are all rows in order, the array itself."""
    if len(places) == len(array) and bool((places == np.arange(len(array))).all()):
        return array
    taken = np.empty((len(places), *array.shape[1:]), dtype=array.dtype)
    for rows in row_blocks(taken):
        taken[rows] = array[places[rows]]
    return taken
