# SPDX-License-Identifier: Apache-2.0
"""Hessians of expectation values, and their products with vectors, from exact gradients at shifted columns.

Let ``g(c)`` be the gradient of an expectation value with respect to the columns c of the program, by a backward sweep.

* *Hessian*: row j is the derivative of g with respect to column j, by the shift rule of the column (see `shift_rules`).
* *Product with a vector w*: the derivative of g along w, by central differences of fourth order at four points. Along
  w, an expectation value is a trigonometric polynomial whose frequencies are at most the bandwidth
  ``sum_j |w_j| bandwidth_j``. The step is a small number divided by this bandwidth, so the truncation error is bounded
  for every circuit and vector.

Columns are affine along w, whatever the expressions of the circuit are. The chain rule to second order,

    ``d^2E/dx_p dx_q = sum_jk dc_j/dx_p H_jk dc_k/dx_q + sum_j g_j d^2c_j/dx_p dx_q``,

is applied to the exact derivatives of the expressions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from qiskit_fused.common.byte_sizes import format_bytes
from qiskit_fused.common.free_memory import ALWAYS_FREE, resolve_limit
from qiskit_fused.common.row_errors import renumbered
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.engines.interface import Watch
from qiskit_fused.engines.request import GradientRequest, Request, all_pairs, pairs_of
from qiskit_fused.execution.column_shifts import ColumnPoint, bandwidth_of_amplitudes, combine
from qiskit_fused.execution.derivatives import (
    check_derivatives,
    completed,
    differentiated,
    pull_back,
    unseen_expressions,
)
from qiskit_fused.execution.evaluate import evaluate
from qiskit_fused.execution.magnitudes import too_large
from qiskit_fused.execution.product_threads import single_threaded_products
from qiskit_fused.execution.row_cuts import JoinedArrays, cut_evenly, evaluate_slice, rows_that_fit, share
from qiskit_fused.options import FusedOptions
from qiskit_fused.program.observables import Observables
from qiskit_fused.program.shift_rules import central_differences

NUM_POINTS = 5  # gradients for each product: the point itself, and four points on the line through it

_BLOCK_BYTES = 1 << 26  # columns and gradients of a block of rows take at most 64 MiB
_BLOCKS_IN_LIMIT = 8  # columns and gradients of a block of rows take at most memory_limit / 8
_MIN_BLOCK_ROWS = 16  # least number of rows of a block, also if it exceeds _BLOCK_BYTES: each thread needs a row


class Products(NamedTuple):
    """Values, gradients and products of Hessians with vectors.

    Attributes:
        values: float64 (B, K).
        gradients: float64 (B, K, P).
        products: float64 (B, K, P).
    """

    values: np.ndarray
    gradients: np.ndarray
    products: np.ndarray


class _Lines(NamedTuple):
    """B rows of parameter values x and of vectors v."""

    values: np.ndarray
    vectors: np.ndarray

    @property
    def num_rows(self) -> int:
        return len(self.values)

    def rows(self, rows: slice) -> _Lines:
        return _Lines(self.values[rows], self.vectors[rows])


@dataclass(frozen=True, eq=False)
class SecondDerivatives:
    """Second derivatives of K observables after one circuit.

    Attributes:
        compiled: the circuit.
        operators: the observables.
        options: the options of the engine.
    """

    compiled: CompiledCircuit
    operators: Observables
    options: FusedOptions

    def products(self, values: np.ndarray, vectors: np.ndarray, watch: Watch | None = None) -> Products:
        """Return values, gradients and the products of the Hessians with vectors.

        Args:
            values: finite parameter values, float64 (B, P).
            vectors: finite vectors, float64 (B, P).
            watch: told the progress.

        Raises:
            RowError: if an expression has no finite derivative or second derivative.

        Cost: five gradients for each row and observable.
        """
        lines, joined = _Lines(values, vectors), JoinedArrays()
        size = max(self._rows_of_block() // NUM_POINTS, 1)
        for rows in cut_evenly(len(values), size):
            part = evaluate_slice(lines, rows, self._products_of_block, watch)
            for name, array in zip(Products._fields, part):
                joined.put(name, array, rows, len(values))
        return Products(*(joined[name] for name in Products._fields))

    def _products_of_block(self, lines: _Lines, watch: Watch | None) -> Products:
        compiled, (values, vectors), swept = self.compiled, lines, differentiated(self.operators)
        program, count = compiled.program, len(values)
        columns, directions = program.columns(values), vectors
        unseen = None
        if program.expressions.num_expressions:
            unseen = unseen_expressions(compiled, self.operators)
            directions = np.concatenate([vectors, program.expressions.rates(values, vectors)[0]], axis=1)
        scale = np.abs(directions) @ compiled.column_rules.bandwidth
        scale += bandwidth_of_amplitudes(program, columns, directions)
        scale[scale == 0] = 1.0
        shifts, weights = central_differences(self.options.dtype)
        rows = np.repeat(columns[:, None], NUM_POINTS, axis=1)
        rows[:, 1:] += (shifts / scale[:, None])[:, :, None] * directions[:, None]
        evs, gradients = self._gradients(rows.reshape(count * NUM_POINTS, rows.shape[2]), swept, watch)
        evs = evs.reshape(count, NUM_POINTS, len(swept))[:, 0]
        gradients = gradients.reshape(count, NUM_POINTS, *gradients.shape[1:])
        changes = np.einsum("j,bjkc->bkc", weights, gradients[:, 1:]) * scale[:, None, None]
        both = np.concatenate([gradients[:, 0], changes], axis=1)
        pairs = all_pairs(count, both.shape[1])
        pulled = pull_back(compiled, values, both.reshape(len(pairs.row), both.shape[2]), pairs, self.operators)
        first, second = np.split(pulled.reshape(count, both.shape[1], values.shape[1]), 2, axis=1)
        check_derivatives(compiled, values, first)
        if unseen is not None:
            second = second + program.expressions.pull_back_rates(values, vectors, gradients[:, 0], unseen)
        evs, first, second = (
            completed(self.operators, swept, array, total) for array, total in ((evs, 1), (first, 0), (second, 0))
        )
        _check_range(second)
        return Products(evs, first, second)

    def hessian(
        self, values: np.ndarray, parameters: np.ndarray | None, watch: Watch | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return values (K,), gradients (K, Q) and Hessians (K, Q, Q) at one row of parameter values.

        Args:
            values: finite parameter values, float64 (P,).
            parameters: int (Q,), positions of the parameters to differentiate; None is all parameters.
            watch: told the progress.

        Raises:
            RowError: if an expression has no finite derivative or second derivative.
            MemoryError: if the Hessians do not fit the free memory.

        Cost: for each observable, two gradients for each parameter that is the angle of one gate with two eigenvalues,
        and four gradients for any other parameter.
        """
        compiled, swept = self.compiled, differentiated(self.operators)
        seen = compiled.seen_columns(self.operators.support(compiled.num_qubits))
        point = ColumnPoint(compiled, values, parameters, seen)
        self._check_memory(len(swept), max(len(point.used), point.num_parameters))
        hessians = np.zeros((len(swept), len(point.used), len(point.used)))
        blocks = cut_evenly(len(point.used), max(self._rows_of_block() // 4, 1))
        for number, block in enumerate(blocks):
            columns = point.used[block]
            segments = compiled.column_rules.of_values(columns, point.bandwidth[block], self.options.dtype)
            rows = point.shifted(columns, segments)
            evs, by_column = self._gradients(rows, swept, share(watch, number, number + 1, len(blocks)))
            if number == 0:
                values_here, gradients = evs[0], by_column[0]
            hessians[:, block] = combine(segments, by_column[..., point.used], len(columns)).transpose(1, 0, 2)
        hessians = (hessians + hessians.transpose(0, 2, 1)) / 2
        _check_range(hessians[None])
        first, jacobian = gradients[:, point.used], point.jacobian()
        if jacobian is not None:
            with single_threaded_products():
                first, hessians = first @ jacobian, jacobian.T @ hessians @ jacobian
            hessians += self._curvature_of_expressions(values, gradients, point.parameters, ~seen)
        return (
            completed(self.operators, swept, values_here[None], 1)[0],
            completed(self.operators, swept, first[None], 0)[0],
            completed(self.operators, swept, hessians[None], 0)[0],
        )

    def _curvature_of_expressions(
        self, values: np.ndarray, gradients: np.ndarray, parameters: np.ndarray, unseen: np.ndarray
    ) -> np.ndarray:
        """Return ``sum_e g_e d^2c_e/dx_p dx_q`` of the chosen parameters, float64 (K, Q, Q), for gradients g (K, C)."""
        program = self.compiled.program
        result = np.zeros((len(gradients), len(parameters), len(parameters)))
        if not program.expressions.num_expressions:
            return result
        directions = np.eye(program.num_parameters)[parameters]
        rows = np.broadcast_to(values, directions.shape)
        repeated = np.broadcast_to(gradients, (len(parameters), *gradients.shape))
        with renumbered(lambda _: 0):
            rates = program.expressions.pull_back_rates(rows, directions, repeated, unseen[program.num_parameters :])
        return rates[:, :, parameters].transpose(1, 0, 2)

    def _gradients(self, rows: np.ndarray, swept: np.ndarray, watch: Watch | None) -> tuple[np.ndarray, np.ndarray]:
        """Return values (B, D) and gradients with respect to columns (B, D, C), for rows of columns (B, C)."""
        of_columns = self.compiled.of_columns
        gradient = GradientRequest(of_initial_states=of_columns.program.encodes(None))
        request = Request(rows, pairs_of(len(rows), swept), gradient, dtype=self.options.dtype)
        evaluation = evaluate(self.options, of_columns, self.operators, request, watch=watch)
        shape = len(rows), len(swept)
        return evaluation.values.reshape(shape), evaluation.gradients.reshape(*shape, rows.shape[1])

    def _rows_of_block(self) -> int:
        """Return the largest number of rows of columns of a block."""
        row_bytes = 16 * self.compiled.program.num_columns * (len(self.operators) + 1)
        size = rows_that_fit(_BLOCK_BYTES, row_bytes, _MIN_BLOCK_ROWS)
        if self.options.memory_limit is not None:
            size = min(size, rows_that_fit(self.options.resolve_memory_limit() // _BLOCKS_IN_LIMIT, row_bytes))
        return size

    def _check_memory(self, num_observables: int, size: int) -> None:
        """Raise a MemoryError where the Hessians do not fit the free memory."""
        num_bytes = 3 * 8 * num_observables * size * size  # beside the result, two arrays of its size exist at a time
        if num_bytes > ALWAYS_FREE and num_bytes > (room := resolve_limit(None)):
            raise MemoryError(
                f"the Hessians of {size:,} parameters take {format_bytes(num_bytes)}, {format_bytes(room)} may be "
                "used; use hessian_vector_product, or give fewer parameters."
            )


def _check_range(derivatives: np.ndarray) -> None:
    """Raise a RowError if a second derivative (B, K, ...) is not finite: a difference was larger than any float64."""
    if not np.isfinite(derivatives).all():
        row, observable = np.argwhere(~np.isfinite(derivatives))[0][:2].tolist()
        raise too_large(row, observable)
