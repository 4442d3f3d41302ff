# SPDX-License-Identifier: Apache-2.0
"""All pairs of samples, of which a kernel matrix is made, and the gradients that are requested after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from qiskit_fused.common.row_blocks import distinct_rows, row_blocks
from qiskit_fused.engines.interface import Watch
from qiskit_fused.execution.progress import Part


class KernelVjp(NamedTuple):
    """A kernel matrix and a vector-Jacobian product, the gradient of ``S = sum_ij C_ij K_ij`` for constant C.

    Attributes:
        values: float64 (N, M), the matrix K.
        weights: float64 (W,), ``dS/dw``, or None if it was not computed.
        inputs: float64 (N, I), ``dS/dx``, or None if it was not computed. If K was made of x alone, sample i has row i
            and column i of K, and both count.
        others: float64 (M, I), ``dS/dy``, or None if K was made of x alone or the gradient was not computed.
    """

    values: Any
    weights: Any = None
    inputs: Any = None
    others: Any = None


class KernelEvaluation(NamedTuple):
    """A kernel matrix whose gradients are computed later.

    Attributes:
        values: float64 (N, M), the matrix K.
        vjp: a function that maps cotangents C, float64 (N, M), to the `KernelVjp` that was requested. It may be called
            several times. It holds the states of all samples where they fit the memory limit.
    """

    values: np.ndarray
    vjp: Callable[[np.ndarray], KernelVjp]


class PairBatch(NamedTuple):
    """Samples, and the gradients that are requested after their kernel matrix.

    Attributes:
        inputs: x, float64 (N, I).
        weights: w, float64 (W,).
        others: y, float64 (M, I), or None for a matrix of x alone.
        input_gradients: whether gradients of x and y are requested.
        weight_gradients: whether the gradient of w is requested.
        names: the names of x and y in errors.
    """

    inputs: Any
    weights: Any = ()
    others: Any = None
    input_gradients: bool = False
    weight_gradients: bool = False
    names: tuple[str, str] = ("inputs", "others")

    @property
    def shape(self) -> tuple[int, int]:
        """(N, M), the shape of the matrix."""
        return len(self.inputs), len(self.inputs if self.others is None else self.others)

    @property
    def has_gradient(self) -> bool:
        """Whether a gradient is requested."""
        return self.input_gradients or self.weight_gradients


class Pairs(Protocol):
    """The pairs of a batch: computes the matrix first, and its gradients then."""

    @property
    def part(self) -> Part:
        """The part of the progress for the matrix."""

    @property
    def part_of_gradients(self) -> Part:
        """The part of the progress for the gradients."""

    def values(self, watch: Watch | None = None) -> np.ndarray:
        """Return the matrix, float64 (N, M). Elements of equal samples are exactly 1."""

    def vjp(self, cotangents: np.ndarray, watch: Watch | None = None) -> KernelVjp:
        """Return the gradients that the batch requests, without values, for cotangents C, float64 (N, M)."""


class Samples:
    """The samples of one side of a matrix. Equal samples share a row, unless each sample has a gradient of its own.

    Args:
        inputs: float64 (N, I).
        share_rows: whether equal samples share a row.

    Attributes:
        rows: int (U,), the samples that have a row.
        places: int (N,), the row of each sample.
    """

    def __init__(self, inputs: np.ndarray, share_rows: bool):
        self.num_samples = len(inputs)
        self.rows = self.places = np.arange(len(inputs))
        if share_rows:
            self.rows, self.places = distinct_rows(inputs)

    @property
    def share_rows(self) -> bool:
        """Whether some samples share a row."""
        return len(self.rows) < self.num_samples

    def names(self, argument: str) -> Callable[[int], str]:
        """Return a function that returns the name of a row in errors: "3 of inputs" for sample 3."""
        rows = self.rows
        return lambda row: f"{rows[row]} of {argument}"

    def summed(self, array: np.ndarray) -> np.ndarray:
        """Return the sums (U, ...) over the samples of each row, for an array (N, ...)."""
        if not self.share_rows:
            return array
        order = np.argsort(self.places, kind="stable")
        begin = np.searchsorted(self.places[order], np.arange(len(self.rows)))
        sums: np.ndarray = np.add.reduceat(array[order], begin, axis=0)
        return sums


def set_ones(matrix: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    """Set the elements of equal samples to 1.

    Args:
        matrix: float64 (N, M), changed in place.
        left: int (N,), a number of the sample of each row. Equal samples have equal numbers.
        right: int (M,), the number of the sample of each column.
    """
    if np.isin(left, right).any():
        for rows in row_blocks(matrix):
            matrix[rows][left[rows, None] == right] = 1
