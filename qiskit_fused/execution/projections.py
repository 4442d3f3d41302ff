# SPDX-License-Identifier: Apache-2.0
"""Projected kernels: a Gaussian function of the distance of expectation values, for all pairs of samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite, sqrt
from numbers import Real
from typing import Any

import numpy as np
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.quantum_info import SparsePauliOp

from qiskit_fused.common.array_modules import to_numpy
from qiskit_fused.common.row_blocks import BLOCK_BYTES, distinct_rows, row_blocks
from qiskit_fused.common.row_errors import renumbered
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.compilation.observables import FixedObservables, LiveObservables
from qiskit_fused.engines.interface import Watch
from qiskit_fused.execution.fidelity_sizes import check_room
from qiskit_fused.execution.kernel_function import KernelFunction
from qiskit_fused.execution.pair_batches import KernelVjp, PairBatch, Samples, set_ones
from qiskit_fused.execution.product_threads import for_each_tile, single_threaded_products
from qiskit_fused.execution.progress import Part
from qiskit_fused.execution.row_batches import RowBatch
from qiskit_fused.execution.row_functions import RowFunction
from qiskit_fused.execution.statevectors import FinalStates
from qiskit_fused.options.fused_options import FusedOptions, FusedOptionsDict, Unpack
from qiskit_fused.options.keywords import checks_keywords

_TILE_BYTES = 1 << 19  # bytes of the elements of a matrix that a thread computes at a time


class Projections(KernelFunction):
    """Projected kernels of all pairs of samples after one circuit, as a function of inputs x (N, I) and weights w (W,).

    Element ij of the matrix is ``K_ij = exp(-gamma sum_k (E_k(x_i, w) - E_k(y_j, w))^2)``, where E_k is the expectation
    value of the k-th observable after the circuit. Without observables, these are X, Y and Z divided by sqrt(2) on each
    qubit. Then ``K_ij = exp(-gamma sum_q |rho_q(x_i, w) - rho_q(y_j, w)|^2)`` with the density matrix rho_q of qubit q
    and the Frobenius norm (arXiv:2011.01938).

    >>> circuit, x = QuantumCircuit(1), Parameter("x")
    >>> _ = circuit.ry(x, 0)
    >>> Projections(circuit, [x]).values([[0.0], [1.0]]).round(3).tolist()
    [[1.0, 0.631], [0.631, 1.0]]

    Args:
        circuit: the circuit, or the result of `compile_circuit`. It is compiled when this object is made.
        input_params: the I parameters of which each sample has its own values.
        weight_params: the W parameters whose values all samples share. Each parameter of the circuit is one input or
            one weight.
        observables: one observable or a list; None is X, Y and Z divided by sqrt(2) on each qubit. Each call reads the
            observables, so it sees an observable that was changed in place.
        gamma: the factor in the exponent, above 0.
        options: `FusedOptions`, which are kept, not copied, or a mapping.
        keywords: single options, which override ``options``.

    Raises:
        UnsupportedInstruction: if the circuit has an instruction that no engine can simulate.
        TypeError: for a circuit or an observable of a wrong type, or an unknown option.
        ValueError: for a parameter that is not in the circuit, a parameter of the circuit that is not one input or one
            weight, observables on another number of qubits, or a gamma that is not above 0.

    Cost: a forward sweep for each distinct sample, which gives the values of all observables. Gradients take a forward
    and a backward sweep for each sample, for any number of observables.
    """

    @checks_keywords()
    def __init__(
        self,
        circuit: QuantumCircuit | CompiledCircuit,
        input_params: Iterable[Parameter] = (),
        weight_params: Iterable[Parameter] = (),
        observables: Any = None,
        gamma: float = 1.0,
        options: FusedOptions | Mapping[str, Any] | None = None,
        **keywords: Unpack[FusedOptionsDict],
    ):
        super().__init__(circuit, input_params, weight_params, options, keywords)
        num_qubits = self.compiled.num_qubits
        self._observables: LiveObservables | FixedObservables
        if observables is None:
            self._observables = FixedObservables(LiveObservables(paulis_of_qubits(num_qubits), num_qubits).now())
        else:
            self._observables = LiveObservables(observables, num_qubits)
        self.gamma = check_gamma(gamma)

    def _settings(self) -> dict[str, Any]:
        return {} if self.gamma == 1 else {"gamma": self.gamma}

    def _pairs(self, batch: PairBatch) -> _ProjectionPairs:
        function = RowFunction(self.compiled, self._observables.now(), self.options, self._columns)
        return _ProjectionPairs(function, self.gamma, batch)


def paulis_of_qubits(num_qubits: int) -> list[SparsePauliOp]:
    """Return X, Y and Z divided by sqrt(2) on each qubit."""
    return [
        SparsePauliOp.from_sparse_list([(letter, [qubit], 1 / sqrt(2))], num_qubits)
        for qubit in range(num_qubits)
        for letter in "XYZ"
    ]


def check_gamma(gamma: Any) -> float:
    """Return a factor in an exponent as a float.

    Raises:
        ValueError: for a factor that is not a finite number above 0.
    """
    if isinstance(gamma, bool) or not isinstance(gamma, Real) or not isfinite(gamma) or gamma <= 0:
        raise ValueError(f"gamma is {gamma!r}; allowed: a finite number above 0.")
    return float(gamma)


class _ProjectionPairs:
    """The matrix of a batch (see `Pairs`). Equal samples are simulated once, also if one is in x and one is in y."""

    def __init__(self, function: RowFunction, gamma: float, batch: PairBatch):
        self._function, self._gamma, self._batch = function, gamma, batch
        self._place = FinalStates(function.compiled, function.options, with_phase=False)  # of products
        inputs = batch.inputs if batch.others is None else np.concatenate([batch.inputs, batch.others])
        self._samples = Samples(inputs, not batch.input_gradients)
        self._rows = RowBatch(inputs[self._samples.rows], batch.weights)
        self._numbers = distinct_rows(inputs)[1] if batch.input_gradients else self._samples.places
        self._expectations = self._matrix = np.zeros((0, 0))

    @property
    def part(self) -> Part:
        return Part.of(self._function.compiled, self._rows.num_rows)

    @property
    def part_of_gradients(self) -> Part:
        return Part.of(self._function.compiled, self._rows.num_rows, self._rows.num_rows)

    def _name(self, row: int) -> str:
        """Return the name of a row in errors: "3 of inputs" for sample 3."""
        sample, count = int(self._samples.rows[row]), len(self._batch.inputs)
        first, second = self._batch.names
        return f"{sample} of {first}" if sample < count else f"{sample - count} of {second}"

    def _sides(self, array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the parts of an array of all samples that belong to x and to y. Without y, both are the array."""
        if self._batch.others is None:
            return array, array
        count = len(self._batch.inputs)
        return array[:count], array[count:]

    def values(self, watch: Watch | None = None) -> np.ndarray:
        check_room(*self._batch.shape)
        with renumbered(self._name):
            self._expectations = self._function.evaluate_rows(self._rows, watch).values[self._samples.places]
        self._place = self._place.on_device(self._rows.num_rows)
        matrix = np.empty(self._batch.shape)
        with self._place.context():
            self._fill(matrix, *map(self._place.array_module.asarray, self._sides(self._expectations)))
        set_ones(matrix, *self._sides(self._numbers))
        if self._batch.has_gradient:
            self._matrix = matrix.copy()  # the caller may change the matrix before gradients are computed
        return matrix

    def _fill(self, matrix: np.ndarray, left: Any, right: Any) -> None:
        """Fill the matrix from the values of its rows and columns, arrays of the host or of a device."""
        xp, num_threads = self._place.array_module, self._function.options.resolve_num_threads()
        squares = [(side * side).sum(axis=1) for side in (left, right)]

        def fill(rows: slice) -> int:
            part = xp.matmul(left[rows], right.T, out=matrix[rows] if xp is np else None)
            part *= -2
            part += squares[0][rows, None] + squares[1]
            xp.maximum(part, 0, out=part)
            part *= -self._gamma
            xp.exp(part, out=part)
            if xp is not np:
                matrix[rows] = to_numpy(part)
            return 0

        tiles = list(row_blocks(matrix, _TILE_BYTES if xp is np else BLOCK_BYTES))
        for_each_tile(fill, tiles, num_threads if xp is np else 1, lambda work: None)

    def vjp(self, cotangents: np.ndarray, watch: Watch | None = None) -> KernelVjp:
        batch = self._batch
        if not batch.has_gradient:
            return KernelVjp(None)
        left, right = self._sides(self._expectations)
        factors = -2 * self._gamma * cotangents * self._matrix
        with single_threaded_products():
            of_left = factors.sum(axis=1)[:, None] * left - factors @ right
            of_right = factors.sum(axis=0)[:, None] * right - factors.T @ left
        of_values = of_left + of_right if batch.others is None else np.concatenate([of_left, of_right])
        rows = self._rows._replace(
            cotangents=self._samples.summed(of_values),
            input_gradients=batch.input_gradients,
            weight_gradients=batch.weight_gradients,
        )
        with renumbered(self._name):
            found = self._function.evaluate_rows(rows, watch)
        weights = found.weights if batch.weight_gradients else None
        if not batch.input_gradients:
            return KernelVjp(None, weights)
        inputs, others = self._sides(found.inputs)
        return KernelVjp(None, weights, inputs, None if batch.others is None else others)
