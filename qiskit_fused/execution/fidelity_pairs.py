# SPDX-License-Identifier: Apache-2.0
"""The fidelities of all pairs of a batch: equal samples are simulated once, and have the fidelity 1."""

from __future__ import annotations

import numpy as np

from qiskit_fused.common.row_blocks import distinct_rows, repeat_in_place
from qiskit_fused.engines.interface import Watch
from qiskit_fused.execution.fidelity_matrix import FidelityMatrix
from qiskit_fused.execution.fidelity_sizes import check_room
from qiskit_fused.execution.pair_batches import KernelVjp, PairBatch, Samples, set_ones
from qiskit_fused.execution.parameter_columns import ParameterColumns
from qiskit_fused.execution.progress import Part
from qiskit_fused.execution.statevectors import FinalStates


class FidelityPairs:
    """The matrix ``K_ij = |<psi(x_i, w)|psi(y_j, w)>|^2`` of a batch (see `Pairs`).

    Args:
        states: the final states as a function of parameter values, without idle qubits.
        columns: the positions of inputs and weights among the parameters.
        batch: the samples, checked.
    """

    def __init__(self, states: FinalStates, columns: ParameterColumns, batch: PairBatch):
        self._columns, self._batch, self._num_qubits = columns, batch, states.num_qubits
        self._left = self._right = Samples(batch.inputs, not batch.input_gradients)
        right = None
        if batch.others is not None:
            self._right = Samples(batch.others, not batch.input_gradients)
            right = columns.join(batch.others[self._right.rows], batch.weights)
        left = columns.join(batch.inputs[self._left.rows], batch.weights)
        names = self._left.names(batch.names[0]), self._right.names(batch.names[1])
        self._matrix = FidelityMatrix(states, left, right, batch.has_gradient, names)

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
        self._set_ones(corner)
        if left.share_rows or right.share_rows:
            repeat_in_place(matrix, left.places, right.places)
        return matrix

    def _set_ones(self, corner: np.ndarray) -> None:
        """Set the elements of equal samples to 1, where `FidelityMatrix` has not done so."""
        inputs, others = self._batch.inputs, self._batch.others
        if others is not None:
            numbers = distinct_rows(np.concatenate([inputs, others]))[1]
            set_ones(corner, numbers[: len(inputs)][self._left.rows], numbers[len(inputs) :][self._right.rows])
        elif self._batch.input_gradients:
            first, numbers = distinct_rows(inputs)
            if len(first) < len(inputs):
                set_ones(corner, numbers, numbers)

    def vjp(self, cotangents: np.ndarray, watch: Watch | None = None) -> KernelVjp:
        """Return the gradients that the batch requests, without values, for cotangents C, float64 (N, M)."""
        batch, is_symmetric = self._batch, self._batch.others is None
        if not batch.has_gradient:
            return KernelVjp(None)
        if is_symmetric:
            cotangents = cotangents + cotangents.T
            np.fill_diagonal(cotangents, 0)
        factors = self._right.summed(self._left.summed(cotangents).T).T
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
