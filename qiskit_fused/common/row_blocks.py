# SPDX-License-Identifier: Apache-2.0
"""Operations on arrays of gigabytes, one block of rows at a time.

Python handles Ctrl-C and cancelled jobs only between two operations of NumPy. An operation on one block takes some
milliseconds, and one on all rows may take seconds. Temporary arrays have the size of one block.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qiskit_fused import _cpu

BLOCK_BYTES = 1 << 25  # bytes of one block: 32 MiB


def row_blocks(array: np.ndarray, most_bytes: int = BLOCK_BYTES) -> Iterator[slice]:
    """Yield the rows of an array as slices of ``most_bytes`` or less, and of one row at least."""
    num_rows = len(array)
    size = max(num_rows * most_bytes // max(array.nbytes, 1), 1)
    for begin in range(0, num_rows, size):
        yield slice(begin, min(begin + size, num_rows))


def copy_rows(array: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    """Return a copy of an array, contiguous in C order, with numbers of the given dtype."""
    if array.nbytes <= BLOCK_BYTES:
        return np.array(array, dtype=dtype, order="C")
    copy: np.ndarray = np.empty(array.shape, dtype=dtype)
    for rows in row_blocks(array):
        copy[rows] = array[rows]
    return copy


def join_arrays(arrays: list[np.ndarray]) -> np.ndarray:
    """Return the rows of all arrays (B_i, P) in one array (sum of B_i, P). A single array is returned as is."""
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
    """Say whether all numbers are finite."""
    kind = array.dtype.char
    if kind not in "dD" or not array.flags.c_contiguous or not array.dtype.isnative:
        return all(np.isfinite(array[rows]).all() for rows in row_blocks(array))
    numbers = array if kind == "d" else array.view(np.float64)
    if numbers.nbytes <= BLOCK_BYTES:
        return _cpu.all_finite(numbers)
    return all(_cpu.all_finite(numbers[rows]) for rows in row_blocks(numbers))


def are_equal(left: np.ndarray, right: np.ndarray) -> bool:
    """Say whether two arrays have the same shape and the same numbers."""
    if left is right or left.shape != right.shape or left.nbytes <= BLOCK_BYTES:
        return left is right or np.array_equal(left, right)
    return all(np.array_equal(left[rows], right[rows]) for rows in row_blocks(left))


def columns_that_differ(array: np.ndarray) -> np.ndarray:
    """Return, bool (P,), in which columns of an array (B, P) some row differs from row 0."""
    if array.nbytes <= BLOCK_BYTES:
        return (array[1:] != array[:1]).any(axis=0)
    differ, others = np.zeros(array.shape[1], dtype=bool), array[1:]
    for rows in row_blocks(others):
        differ |= (others[rows] != array[:1]).any(axis=0)
    return differ


def unique_sorted(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct numbers of an array (N,) in ascending order, and the index (N,) of each number among them."""
    if (keys[1:] > keys[:-1]).all():
        return keys, np.arange(len(keys))
    distinct, places = np.unique(keys, return_inverse=True)
    return distinct, places


def take_rows(array: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the rows ``array[places]``. If the places are all rows in order, return the array as is."""
    if len(places) == len(array) and bool((places == np.arange(len(array))).all()):
        return array
    taken = np.empty((len(places), *array.shape[1:]), dtype=array.dtype)
    for rows in row_blocks(taken):
        taken[rows] = array[places[rows]]
    return taken


def distinct_rows(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the distinct rows of an array of finite float64 numbers (N, P).

    Returns:
        The index of each of the U distinct rows where it occurs first, ascending (U,); and the number, among these, of
        each row of the array (N,). The number of a row is never larger than its index.
    """
    count = len(array)
    if count < 2 or (array.shape[1] and _all_differ(array[:, 0])):
        return np.arange(count), np.arange(count)
    if not array.shape[1]:
        return np.zeros(1, np.intp), np.zeros(count, np.intp)
    array = np.ascontiguousarray(array + 0.0)  # -0.0 becomes 0.0, so that equal rows are equal bytes
    rows = array.view(np.dtype((np.void, array.itemsize * array.shape[1])))[:, 0]
    _, first, places = np.unique(rows, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    return first[order], number[places]


def _all_differ(numbers: np.ndarray) -> bool:
    ordered = np.sort(numbers)
    return bool((ordered[1:] != ordered[:-1]).all())


def repeat_in_place(matrix: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> None:
    """Fill a matrix (N, M) from its upper left corner: element ij becomes the element (rows[i], columns[j]) of it.

    Args:
        matrix: float64 (N, M), changed in place.
        rows: int (N,), ``rows[i] <= i``.
        columns: int (M,).
    """
    # The last rows are filled first, since the rows that they are filled from are before them.
    for part in reversed(list(row_blocks(matrix))):
        matrix[part] = matrix[rows[part]][:, columns]
