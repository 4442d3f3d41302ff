# SPDX-License-Identifier: Apache-2.0
"""All pairs of samples whose fidelities are computed: equal samples are simulated once, and have the fidelity 1."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from qiskit_fused.common.forks import cached_property
from qiskit_fused.common.row_blocks import distinct_rows, repeat_in_place, row_blocks
from qiskit_fused.engines.interface import Watch
from qiskit_fused.execution.fidelity_matrix import FidelityMatrix
from qiskit_fused.execution.fidelity_sizes import check_room
from qiskit_fused.execution.progress import Part
from qiskit_fused.execution.row_functions import ParameterColumns
from qiskit_fused.execution.statevectors import FinalStates


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


class PairBatch(NamedTuple):
    """Samples, and the gradients that are requested after their fidelities.

    Attributes:
        inputs: x, float64 (N, I).
        weights: w, float64 (W,).
        others: y, float64 (M, I), or None for a matrix of x alone.
        input_gradients: whether gradients of x and y are requested.
        weight_gradients: whether the gradient of w is requested.
    """

    inputs: np.ndarray
    weights: np.ndarray
    others: np.ndarray | None = None
    input_gradients: bool = False
    weight_gradients: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """(N, M), the shape of the matrix."""
        return len(self.inputs), len(self.inputs if self.others is None else self.others)

    @property
    def has_gradient(self) -> bool:
        """Whether a gradient is requested."""
        return self.input_gradients or self.weight_gradients


class _Samples:
    """The samples of one side of a matrix. Equal samples share a row, unless each sample has a gradient of its own.

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
    def shares_rows(self) -> bool:
        """Whether some samples share a row."""
        return len(self.rows) < self.num_samples

    def summed(self, array: np.ndarray) -> np.ndarray:
        """Return the sums (U, ...) over the samples of each row, for an array (N, ...)."""
        if not self.shares_rows:
            return array
        order = np.argsort(self.places, kind="stable")
        begin = np.searchsorted(self.places[order], np.arange(len(self.rows)))
        sums: np.ndarray = np.add.reduceat(array[order], begin, axis=0)
        return sums


class FidelityPairs:
    """The matrix ``K_ij = |<psi(x_i, w)|psi(y_j, w)>|^2`` of a batch.

    Args:
        states: the final states as a function of parameter values, without idle qubits.
        columns: the positions of inputs and weights among the parameters.
        batch: the samples, checked.
    """

    def __init__(self, states: FinalStates, columns: ParameterColumns, batch: PairBatch):
        self._columns, self._batch, self._num_qubits = columns, batch, states.num_qubits
        self._left = self._right = _Samples(batch.inputs, not batch.input_gradients)
        right = None
        if batch.others is not None:
            self._right = _Samples(batch.others, not batch.input_gradients)
            right = self._values(batch.others[self._right.rows])
        left = self._values(batch.inputs[self._left.rows])
        self._matrix = FidelityMatrix(states, left, right, batch.has_gradient)

    def _values(self, inputs: np.ndarray) -> np.ndarray:
        """Return parameter values of the circuit, (U, P)."""
        columns, weights = self._columns, self._batch.weights
        values: np.ndarray = np.empty((len(inputs), inputs.shape[1] + len(weights)))
        for index, numbers in zip(columns.index, (inputs, weights)):
            values[:, index] = numbers
        return values

    @property
    def part(self) -> Part:
        """The part of the progress for the matrix."""
        return self._part_of(self._matrix.work)

    @property
    def part_of_gradients(self) -> Part:
        """The part of the progress for the gradients."""
        return self._part_of(self._matrix.work_of_gradients(self._batch.others is not None))

    def _part_of(self, work: int) -> Part:
        num_rows = max(len(self._left.rows), 1)
        return Part(self._num_qubits, -(-work // num_rows), num_rows)

    def values(self, watch: Watch | None = None) -> np.ndarray:
        """Return the matrix, float64 (N, M). Elements of equal samples are exactly 1.

        Raises:
            MemoryError: if a state does not fit the memory limit, or the matrix does not fit the free memory.
        """
        left, right, shape = self._left, self._right, self._batch.shape
        check_room(*shape)
        matrix = np.empty(shape)
        corner = matrix[: len(left.rows), : len(right.rows)]
        self._matrix.fill(corner, watch)
        if self._numbers is not None:
            of_left, of_right = self._numbers
            for rows in row_blocks(corner):
                corner[rows][of_left[rows, None] == of_right] = 1
        if left.shares_rows or right.shares_rows:
            repeat_in_place(matrix, left.places, right.places)
        return matrix

    @cached_property
    def _numbers(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The numbers of the samples of left and right rows, where equal samples have equal numbers.

        None if no left row and right row have equal samples, apart from the diagonal of a symmetric matrix.
        """
        inputs, others = self._batch.inputs, self._batch.others
        if others is None:
            if not self._batch.input_gradients:
                return None
            numbers = distinct_rows(inputs)[1]
            return (numbers, numbers) if len(np.unique(numbers)) < len(numbers) else None
        numbers = distinct_rows(np.concatenate([inputs, others]))[1]
        of_left, of_right = numbers[: len(inputs)][self._left.rows], numbers[len(inputs) :][self._right.rows]
        return (of_left, of_right) if np.isin(of_left, of_right).any() else None

    def vjp(self, cotangents: np.ndarray, watch: Watch | None = None) -> KernelVjp:
        """Return the gradients that the batch requests, without values.

        Args:
            cotangents: C, float64 (N, M).
            watch: told the progress.
        """
        batch, left, right = self._batch, self._left, self._right
        if not batch.has_gradient:
            return KernelVjp(None)
        is_symmetric = batch.others is None
        if is_symmetric:
            cotangents = cotangents + cotangents.T
            np.fill_diagonal(cotangents, 0)
        factors = right.summed(left.summed(cotangents).T).T
        of_left, of_right = self._matrix.gradients(factors, not is_symmetric, watch)
        inputs, weights = self._columns.index
        of_weights = of_inputs = of_others = None
        if batch.weight_gradients:
            of_weights = of_left[:, weights].sum(axis=0)
            if of_right is not None:
                of_weights += of_right[:, weights].sum(axis=0)
        if batch.input_gradients:
            of_inputs = of_left[:, inputs]
            of_others = None if of_right is None else of_right[:, inputs]
        return KernelVjp(None, of_weights, of_inputs, of_others)
