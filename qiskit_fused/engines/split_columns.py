# SPDX-License-Identifier: Apache-2.0
"""The columns of rows, with the numbers that all rows share stored once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qiskit_fused.common.array_modules import array_module, to_numpy


@dataclass(frozen=True, eq=False)
class SplitColumns:
    """C columns of B rows. A layer of W weights and I inputs has W shared columns and I columns that vary.

    >>> columns = SplitColumns(np.array([[1.0], [2.0]]), np.array([7.0, 8.0]), np.array([False, True, False]))
    >>> columns.dense().tolist()
    [[7.0, 1.0, 8.0], [7.0, 2.0, 8.0]]

    Attributes:
        varying: float64 (B, V), the numbers of each row, on the host or on a CUDA device.
        shared: float64 (C - V,), the numbers that are the same in all rows, in the same place as ``varying``.
        is_varying: bool (C,), the columns in ``varying``. Both arrays are in the order of the columns.
    """

    varying: Any
    shared: Any
    is_varying: np.ndarray

    @classmethod
    def of(cls, columns: np.ndarray, is_varying: np.ndarray) -> SplitColumns:
        """Split columns (B, C); the columns that are not in ``is_varying`` are the same in all rows."""
        if is_varying.all():
            return cls(columns, np.zeros(0), is_varying)
        shared = columns[0, ~is_varying] if len(columns) else np.zeros(np.count_nonzero(~is_varying))
        return cls(np.ascontiguousarray(columns[:, is_varying]), shared, is_varying)

    def __len__(self) -> int:
        return len(self.varying)

    def __getitem__(self, rows: slice | np.ndarray) -> SplitColumns:
        """Return the columns of some rows. A slice makes views."""
        if isinstance(rows, np.ndarray):
            rows = array_module(self.varying).asarray(rows)
        return SplitColumns(self.varying[rows], self.shared, self.is_varying)

    @property
    def shape(self) -> tuple[int, int]:
        """B and C."""
        return len(self.varying), len(self.is_varying)

    @property
    def is_on_device(self) -> bool:
        """Whether the numbers are on a CUDA device."""
        return not isinstance(self.varying, np.ndarray)

    def copy(self) -> SplitColumns:
        """Return columns in memory of their own."""
        xp = array_module(self.varying)
        return SplitColumns(xp.array(self.varying), xp.array(self.shared), self.is_varying)

    def equal(self, other: SplitColumns) -> bool:
        """Say whether two objects in the same place have the same numbers in the same layout."""
        return (
            self.shape == other.shape
            and bool((self.is_varying == other.is_varying).all())
            and bool((self.varying == other.varying).all())
            and bool((self.shared == other.shared).all())
        )

    def stored(self, is_varying: np.ndarray) -> SplitColumns:
        """Return the same columns with more of them stored for each row: all of ``is_varying``, bool (C,)."""
        if np.array_equal(is_varying, self.is_varying):
            return self
        xp = array_module(self.varying)
        varying = xp.empty((len(self), np.count_nonzero(is_varying)), dtype=np.float64)
        was_varying = self.is_varying[is_varying]
        varying[:, xp.asarray(np.flatnonzero(was_varying))] = self.varying
        moved, kept = is_varying[~self.is_varying], ~is_varying[~self.is_varying]
        varying[:, xp.asarray(np.flatnonzero(~was_varying))] = self.shared[xp.asarray(np.flatnonzero(moved))]
        return SplitColumns(varying, self.shared[xp.asarray(np.flatnonzero(kept))], is_varying)

    def joined(self) -> Any:
        """Return the numbers in one array (C - V + B V,): the shared columns, then the columns of each row."""
        xp = array_module(self.varying)
        joined = xp.empty(self.shared.size + self.varying.size, dtype=np.float64)
        joined[: self.shared.size] = self.shared
        joined[self.shared.size :] = self.varying.ravel()
        return joined

    def dense(self) -> np.ndarray:
        """Return float64 (B, C) on the host."""
        columns = np.empty(self.shape)
        columns[:, self.is_varying] = to_numpy(self.varying)
        columns[:, ~self.is_varying] = to_numpy(self.shared)
        return columns
