# SPDX-License-Identifier: Apache-2.0
"""Overlaps of two sets of states as matrix products, cut into tiles, and the cotangents of states behind fidelities.

States are the rows of arrays, psi (N, D) and phi (M, D), where D is the number of amplitudes. All overlaps
``S_ij = <psi_i|phi_j>`` are one matrix product, ``S = conj(psi) phi^T`` (N, M). The size of a tile is bounded in two
ways: its overlaps stay in a cache of the CPU while they are squared, and its product takes less than a second, so that
a call can be cancelled.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from qiskit_fused.execution.row_cuts import cut_evenly

_TILE_BYTES = 4 << 20  # most bytes of the overlaps of a tile
_TILE_PRODUCTS = 1 << 31  # most complex multiplications of a tile; two cores do some 5e9 of them in a second
_LEAST_TILE_ROWS = 64  # with fewer rows, a matrix product would spend its time on copying the states
_LEAST_STRIPS = 8  # a symmetric matrix is cut into this number of strips, so that 7/16 of the products are left out


class Tile(NamedTuple):
    """A rectangle of a matrix: a slice of its rows and a slice of its columns."""

    rows: slice
    columns: slice


def cut_tiles(num_rows: int, num_columns: int, size: int, itemsize: int) -> Iterator[Tile]:
    """Yield the tiles of a matrix, one strip of rows after the other.

    Args:
        num_rows: N.
        num_columns: M.
        size: D, the number of amplitudes of a state.
        itemsize: bytes of an overlap.
    """
    height = _height(num_columns, size, itemsize)
    for rows in cut_evenly(num_rows, height):
        for columns in cut_evenly(num_columns, _width(height, size)):
            yield Tile(rows, columns)


def cut_lower_tiles(num_rows: int, size: int, itemsize: int) -> Iterator[Tile]:
    """Yield tiles that cover the diagonal of a square matrix and all elements below it.

    Tiles on the diagonal are squares, and all other tiles are below the diagonal.
    """
    height = max(min(_height(num_rows, size, itemsize), -(-num_rows // _LEAST_STRIPS)), _LEAST_TILE_ROWS)
    for rows in cut_evenly(num_rows, height):
        for columns in cut_evenly(rows.start, _width(height, size)) if rows.start else ():
            yield Tile(rows, columns)
        yield Tile(rows, rows)


def _height(num_columns: int, size: int, itemsize: int) -> int:
    """Return the number of rows of a tile."""
    by_bytes = max(_TILE_BYTES // max(num_columns * itemsize, 1), _LEAST_TILE_ROWS)
    return max(min(by_bytes, _TILE_PRODUCTS // (_LEAST_TILE_ROWS * size)), 1)


def _width(height: int, size: int) -> int:
    """Return the number of columns of a tile of ``height`` rows."""
    return max(_TILE_PRODUCTS // (height * size), _LEAST_TILE_ROWS)


def overlaps_of(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the overlaps ``<left_i|right_j>`` of states (N, D) and (M, D), an array (N, M)."""
    overlaps: np.ndarray = left.conj() @ right.T
    return overlaps


def squared(overlaps: np.ndarray) -> np.ndarray:
    """Return ``|S_ij|^2``, real (N, M), at most 1: a square that exceeds 1 does so by a rounding error."""
    squares = np.square(overlaps.real)
    if overlaps.dtype.kind == "c":
        squares += np.square(overlaps.imag)
    return np.minimum(squares, 1, out=squares)


def mirror(square: np.ndarray) -> None:
    """Copy the elements below the diagonal of a Hermitian matrix to their places above it. Set the diagonal to 1."""
    lower = np.tril(square, -1)
    np.add(lower, lower.conj().T, out=square)
    np.fill_diagonal(square, 1)


def cotangents_of_states(weights: np.ndarray, overlaps: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the cotangents of the left states behind ``L = sum_ij w_ij |<left_i|right_j>|^2``, an array (N, D).

    The cotangent is ``G_i = 2 sum_j w_ij <right_j|left_i> right_j``. If the right states do not change, then ``dL = Re
    sum_i <G_i|d left_i>``.

    Args:
        weights: w, real (N, M).
        overlaps: ``<left_i|right_j>``, (N, M).
        right: (M, D).
    """
    factors = overlaps.conj()
    factors *= 2 * weights
    cotangents: np.ndarray = factors @ right
    return cotangents
