# SPDX-License-Identifier: Apache-2.0
"""Overlaps of two sets of states as matrix products, cut into tiles, and the cotangents of states behind fidelities.

States are the rows of arrays, psi (N, D) and phi (M, D), where D is the number of amplitudes. The arrays are on the
host or on a CUDA device. All overlaps ``S_ij = <psi_i|phi_j>`` are one matrix product, ``S = conj(psi) phi^T`` (N, M).
The size of a tile is bounded in two ways: its overlaps stay in a cache of the CPU while they are squared, and its
product takes less than a second, so that a call can be cancelled.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from qiskit_fused.common.array_modules import array_module
from qiskit_fused.execution.row_cuts import cut_evenly

# The most bytes of the overlaps of a tile, and the most complex multiplications: a core does 3e9 to 6e9 of them in a
# second. A GPU does some hundred times as many, and small tiles would not keep it busy.
_TILE_BYTES, _TILE_PRODUCTS = 4 << 20, 1 << 31
_DEVICE_TILE_PRODUCTS = 1 << 37
# With fewer rows, a matrix product spends its time on copying the states: 200 states of 2^12 amplitudes times a matrix
# (200, 200) took 12 ms in strips of 25 rows, 5.4 ms in strips of 50 rows and 4.6 ms in strips of 100 rows (complex64,
# two AVX-512 cores).
_LEAST_TILE_ROWS = 64
_STRIPS_PER_THREAD = 4  # with fewer strips for each thread, some threads would end long before the others
_LEAST_STRIPS = 8  # a symmetric matrix is cut into this number of strips, so that 7/16 of the products are left out


class Tile(NamedTuple):
    """A rectangle of a matrix: a slice of its rows and a slice of its columns."""

    rows: slice
    columns: slice


class Tiling(NamedTuple):
    """How matrices of the overlaps of states are cut into tiles.

    Attributes:
        size: D, the number of amplitudes of a state.
        itemsize: bytes of an overlap.
        num_threads: number of threads that compute tiles side by side.
        device_bytes: most bytes of the overlaps of a tile of a CUDA device; 0: the host computes the tiles.
    """

    size: int
    itemsize: int
    num_threads: int = 1
    device_bytes: int = 0

    @property
    def _most_products(self) -> int:
        return _DEVICE_TILE_PRODUCTS if self.device_bytes else _TILE_PRODUCTS

    def tiles(self, num_rows: int, num_columns: int) -> list[Tile]:
        """Return the tiles of a matrix, one strip of rows after the other."""
        strips = self.strips(num_rows, num_columns)
        return [Tile(rows, columns) for rows in strips for columns in self.columns(rows, num_columns)]

    def lower_tiles(self, num_rows: int) -> list[Tile]:
        """Return tiles that cover the diagonal of a square matrix and all elements below it.

        The last tile of a strip ends with the square of the strip on the diagonal. Long strips come first.
        """
        height = max(min(self._height(num_rows), -(-num_rows // _LEAST_STRIPS)), _LEAST_TILE_ROWS // 2)
        tiles = []
        for rows in reversed(cut_evenly(num_rows, height)):
            before = self.columns(rows, rows.start) if rows.start else [slice(0, 0)]
            tiles += [Tile(rows, columns) for columns in before[:-1]]
            tiles.append(Tile(rows, slice(before[-1].start, rows.stop)))
        return tiles

    def strips(self, num_rows: int, num_columns: int) -> list[slice]:
        """Return the slices of rows of the tiles of a matrix: several for each thread, if there are many rows."""
        for_threads = -(-num_rows // (_STRIPS_PER_THREAD * self.num_threads)) if self.num_threads > 1 else num_rows
        return cut_evenly(num_rows, min(self._height(num_columns), max(for_threads, _LEAST_TILE_ROWS)))

    def columns(self, rows: slice, num_columns: int) -> list[slice]:
        """Return the slices of columns of the tiles of a strip of rows."""
        height = max(rows.stop - rows.start, 1)
        return cut_evenly(num_columns, max(self._most_products // (height * self.size), _LEAST_TILE_ROWS))

    def _height(self, num_columns: int) -> int:
        """Return the largest number of rows of a tile."""
        by_bytes = max((self.device_bytes or _TILE_BYTES) // max(num_columns * self.itemsize, 1), _LEAST_TILE_ROWS)
        return max(min(by_bytes, self._most_products // (_LEAST_TILE_ROWS * self.size)), 1)


def overlaps_of(left: Any, right: Any) -> Any:
    """Return the overlaps ``<left_i|right_j>`` of states (N, D) and (M, D), an array (N, M)."""
    return left.conj() @ right.T


def squared(overlaps: Any) -> Any:
    """Return ``|S_ij|^2``, real (N, M), at most 1: a square that exceeds 1 does so by a rounding error."""
    xp = array_module(overlaps)
    squares = xp.square(overlaps.real)
    if overlaps.dtype.kind == "c":
        squares += xp.square(overlaps.imag)
    return xp.minimum(squares, 1, out=squares)


def mirror(square: Any) -> None:
    """Copy the elements below the diagonal of a Hermitian matrix to their places above it. Set the diagonal to 1."""
    xp = array_module(square)
    lower = xp.tril(square, -1)
    xp.add(lower, lower.conj().T, out=square)
    xp.fill_diagonal(square, 1)


def cotangents_of_states(weights: np.ndarray, overlaps: Any, right: Any, out: Any = None) -> Any:
    """Return the cotangents of the left states behind ``L = sum_ij w_ij |<left_i|right_j>|^2``, an array (N, D).

    The cotangent is ``G_i = 2 sum_j w_ij <right_j|left_i> right_j``. If the right states do not change, then ``dL = Re
    sum_i <G_i|d left_i>``.

    Args:
        weights: w, real (N, M), on the host.
        overlaps: ``<left_i|right_j>``, (N, M).
        right: (M, D).
        out: the array that gets the cotangents; None makes one.
    """
    xp, factors = array_module(overlaps), overlaps.conj()
    factors *= xp.asarray(2 * weights, dtype=factors.real.dtype)
    return xp.matmul(factors, right, out=out)
