# SPDX-License-Identifier: Apache-2.0
"""Evaluates a `RowBatch`, in this process or on the workers of an executor."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from qiskit_fused.common.array_modules import array_module
from qiskit_fused.common.cancellation import Cancellation
from qiskit_fused.common.forks import cached_property
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.engines.evaluation import Evaluation
from qiskit_fused.engines.interface import DoesNotFit, Watch
from qiskit_fused.engines.request import NO_STATES, BoundaryStates, GradientRequest, Request, all_pairs, pairs_of
from qiskit_fused.execution.column_shifts import bandwidth_along
from qiskit_fused.execution.derivatives import (
    check_derivatives,
    completed,
    differentiated,
    num_differentiated,
    pull_back,
    pull_back_zero,
)
from qiskit_fused.execution.devices import choose_device, engine_for
from qiskit_fused.execution.evaluate import evaluate
from qiskit_fused.execution.executor import cut_portions, options_of_workers, run_portions
from qiskit_fused.execution.finite_values import check_finite
from qiskit_fused.execution.initial_states import check_device_states, check_states
from qiskit_fused.execution.magnitudes import has_large_cotangents
from qiskit_fused.execution.parameter_columns import ParameterColumns
from qiskit_fused.execution.progress import Part, progress_of
from qiskit_fused.execution.result_sizes import check_results
from qiskit_fused.execution.row_batches import RowBatch, Vjp, check_cotangents, check_finite_cotangents, join_rows
from qiskit_fused.execution.row_cuts import cut_evenly, evaluate_slice, rows_that_fit, share
from qiskit_fused.execution.shared_parts import ROWS, find_sharing, may_share
from qiskit_fused.options import FusedOptions
from qiskit_fused.program.observables import Observables

_BLOCK_BYTES = 1 << 26  # columns, values and gradients of a block of rows take at most 64 MiB
_BLOCKS_IN_LIMIT = 8  # columns, values and gradients of a block of rows take at most memory_limit / 8
_MIN_BLOCK_ROWS = 16  # least number of rows of a block, also if it exceeds _BLOCK_BYTES: each thread needs a row
_GRADIENT_TIME = 4  # estimated time of the values and a gradient, in forward sweeps; the values take 1 of them


@dataclass(frozen=True, eq=False)
class RowFunction:
    """K observables after one circuit, as a function of rows of inputs and of weights.

    Attributes:
        compiled: the circuit.
        operators: the observables.
        options: options of the engine.
        columns: the positions of inputs and weights among the parameters.
    """

    compiled: CompiledCircuit
    operators: Observables
    options: FusedOptions
    columns: ParameterColumns

    def evaluate(self, batch: RowBatch) -> Vjp:
        """Check and evaluate rows: arrays of the host, or of the CUDA device of `device_runtime`.

        Of arrays on a device, only these facts come to the host: whether all numbers are finite, and the norms of
        initial states.

        Raises:
            ValueError: for shapes that do not fit, values that are not finite, or a state whose norm is not 1.
            MemoryError: if a row does not fit the memory limit, or the results do not fit the memory.
        """
        batch = self._checked(batch)
        with progress_of(self.options.progress, self._parts_of, batch) as progress:
            progress.next_part()
            return self.evaluate_rows(batch, progress.watch)

    def _parts_of(self, batch: RowBatch) -> tuple[Part]:
        """Return the only part of the progress of a batch."""
        return (Part.of(self.compiled, batch.num_rows, batch.num_adjoint_states(len(self.operators))),)

    def _checked(self, batch: RowBatch) -> RowBatch:
        """Check shapes and numbers of a batch, and return the batch with its initial states as an array."""
        inputs, weights, states, cotangents = batch[:4]
        columns = self.columns
        columns.check_shapes(inputs, weights)
        check_finite(inputs, columns.parameters[0])
        check_finite(weights, columns.parameters[1])
        if states is not None:
            check = check_states if isinstance(inputs, np.ndarray) else check_device_states
            states = check(states, self.compiled.num_qubits)
            if len(states) != len(inputs):
                raise ValueError(
                    f"there are {len(states)} initial_states; allowed: {len(inputs)}, one for each row of inputs."
                )
            batch = batch._replace(initial_states=states)
        if cotangents is not None and not callable(cotangents):
            check_finite_cotangents(cotangents)
        return batch

    def evaluate_rows(self, batch: RowBatch, watch: Watch | None) -> Vjp:
        """Evaluate rows that were checked: on the workers of an executor, or block by block in this process.

        Raises:
            MemoryError: if a row does not fit the memory limit, or the results do not fit the memory.
        """
        options, num_rows = self.options, len(batch.inputs)
        if isinstance(batch.inputs, np.ndarray):
            check_results(options, self.compiled, self.operators, num_rows, gradient=batch.jacobian)
        if callable(batch.cotangents):
            whole = _GRADIENT_TIME
            values = self.evaluate_rows(batch._replace(cotangents=None), share(watch, 0, 1, whole)).values
            batch = batch._replace(cotangents=check_cotangents(batch.cotangents(values), values.shape))
            watch = share(watch, 1, whole, whole)
        if options.executor is not None:
            num_adjoint_states = batch.num_adjoint_states(len(self.operators))
            portions = cut_portions(options, self.compiled, num_rows, num_adjoint_states)
            if portions:
                return join_rows(batch, self._on_workers(portions, batch, watch))
        splits_columns = self._splits_columns(batch)
        most_rows = self._most_rows(batch, splits_columns)
        if num_rows <= most_rows:
            return self._evaluate_block(splits_columns, batch, watch)
        evaluate_block, slices = partial(self._evaluate_block, splits_columns), cut_evenly(num_rows, most_rows)
        return join_rows(batch, ((rows, evaluate_slice(batch, rows, evaluate_block, watch)) for rows in slices))

    def _on_workers(self, portions: list[slice], batch: RowBatch, watch: Watch | None) -> Iterable[tuple[slice, Vjp]]:
        """Yield portions of the rows and the results that the workers of the executor return, one after the other."""
        columns, worker_options = (self.columns.inputs, self.columns.weights), options_of_workers(self.options)
        results = run_portions(
            self.options.executor,
            _evaluate_portion,
            (self.compiled, self.operators),
            lambda number: (worker_options, columns, batch.rows(portions[number])),
            portions,
            watch,
        )
        return zip(portions, results)

    def _most_rows(self, batch: RowBatch, splits_columns: bool) -> int:
        """Return the largest number of rows whose columns, values and gradients take at most _BLOCK_BYTES.

        Rows on a CUDA device are one block, which the CUDA engine cuts.
        """
        if not isinstance(batch.inputs, np.ndarray):
            return batch.num_rows
        count = len(self.operators)
        num_columns = len(self.columns.inputs) if splits_columns else self.compiled.program.num_columns
        row_bytes = 8 * (num_columns * (count if batch.jacobian else 1) + count)
        size = rows_that_fit(_BLOCK_BYTES, row_bytes, _MIN_BLOCK_ROWS)
        if self.options.memory_limit is not None:
            size = min(size, rows_that_fit(self.options.resolve_memory_limit() // _BLOCKS_IN_LIMIT, row_bytes))
        return size

    def _evaluate_block(self, splits_columns: bool, batch: RowBatch, watch: Watch | None) -> Vjp:
        """Evaluate a block of rows in this process.

        Rows on the host whose states do not fit the GPU are evaluated again in the way that takes less memory.
        """
        if splits_columns:
            try:
                return self._evaluate_request(batch, self._request(batch, self.columns.split), watch)
            except DoesNotFit:
                if not isinstance(batch.inputs, np.ndarray):
                    raise
        return self._evaluate_request(batch, self._request(batch, self.columns.join), watch)

    def _splits_columns(self, batch: RowBatch) -> bool:
        """Say whether rows go to the CUDA engine as they are. It takes weights as columns that all rows share."""
        if not isinstance(batch.inputs, np.ndarray):
            return True
        if batch.jacobian or batch.initial_states is not None:
            return False
        gradient = batch.cotangents is not None
        if self.device_runtime(batch.num_rows, gradient=gradient, any_start=False) is None:
            return False
        return not gradient or not has_large_cotangents(batch.cotangents, self.options.dtype)

    def _evaluate_request(self, batch: RowBatch, request: Request, watch: Watch | None) -> Vjp:
        """Evaluate the request of a block of rows."""
        operators = self.operators
        evaluation = evaluate(self.options, self.compiled, operators, request, watch=watch)
        count = num_differentiated(operators) if batch.jacobian else len(operators)
        values = evaluation.values.reshape(len(batch.inputs), count)
        if request.gradient is None:
            return Vjp(values)
        if request.is_split:
            inputs, weights = self._gradients_of_split_columns(batch, evaluation)
        else:
            inputs, weights = self._gradients(batch, request, evaluation)
        if batch.jacobian:
            swept = differentiated(operators)
            values, inputs, weights = (
                None if array is None else completed(operators, swept, array, total)
                for array, total in ((values, 1), (inputs, 0), (weights, 0))
            )
        return Vjp(values, inputs, weights, evaluation.state_gradients)

    def _request(self, batch: RowBatch, columns_of: Callable[[Any, Any], Any]) -> Request:
        """Return the request of a block of rows; ``columns_of`` makes columns of inputs and weights."""
        columns, operators, num_rows = self.columns, self.operators, len(batch.inputs)
        values = columns_of(batch.inputs, batch.weights)
        boundary, states, gradient = NO_STATES, batch.initial_states, None
        if states is not None:
            boundary = BoundaryStates(states, on_circuit_qubits=True)
        if batch.jacobian or batch.cotangents is not None:
            of_states = batch.state_gradients
            if states is None:
                of_states = self.compiled.program.encodes(None if batch.input_gradients else columns.weights)
            cotangents = None if batch.cotangents is None else batch.cotangents.ravel()
            if batch.jacobian or batch.input_gradients:
                summed, unused = columns.shared, None
            else:
                summed, unused = columns.summed_without_input_gradients, columns.unused_without_input_gradients
            gradient = GradientRequest(cotangents, False, summed, unused, of_states)
        pairs = pairs_of(num_rows, differentiated(operators)) if batch.jacobian else all_pairs(num_rows, len(operators))
        return Request(values, pairs, gradient, boundary, self.options.dtype, may_vary=columns.depend_on_inputs)

    def _gradients(
        self, batch: RowBatch, request: Request, evaluation: Evaluation
    ) -> tuple[np.ndarray | None, np.ndarray]:
        """Return gradients of inputs, or None where they are not requested, and of weights, for a block of b rows.

        Their shapes are (b, I) and (W,). A Jacobian has the shapes (b, K, I) and (b, K, W).
        """
        gradients = evaluation.gradients
        if self.compiled.program.expressions.num_expressions:
            gradients = self._pulled_back(batch, request, gradients)
        inputs, weights = self.columns.index
        if batch.jacobian:
            shaped = gradients.reshape(batch.num_rows, num_differentiated(self.operators), gradients.shape[1])
            return shaped[:, :, inputs] if batch.input_gradients else None, shaped[:, :, weights]
        return gradients[:, inputs] if batch.input_gradients else None, np.add.reduce(gradients[:, weights])

    def _pulled_back(self, batch: RowBatch, request: Request, of_columns: np.ndarray) -> np.ndarray:
        """Turn gradients with respect to columns into gradients (N, P) with respect to parameters.

        Raises:
            RowError: if a requested gradient is not finite.
        """
        columns, num_rows, values = self.columns, batch.num_rows, request.columns
        pairs = request.pairs if batch.jacobian else all_pairs(num_rows, 1)
        gradients = pull_back(self.compiled, values, of_columns, pairs, self.operators)
        if batch.cotangents is not None and not np.isfinite(gradients).all():
            is_zero = ~batch.cotangents.any(axis=1)
            if is_zero.all():
                gradients = np.zeros_like(gradients)
            else:
                gradients[is_zero] = pull_back_zero(
                    self.compiled,
                    values[is_zero],
                    of_columns[is_zero],
                    columns.depend_on_inputs,
                    self.operators,
                )
        requested = [columns.inputs] * batch.input_gradients + [columns.weights] * batch.weight_gradients
        per_row = num_differentiated(self.operators) if batch.jacobian else 1
        shaped = gradients.reshape(num_rows, per_row, values.shape[1])
        check_derivatives(self.compiled, values, shaped, np.concatenate([np.zeros(0, np.intp), *requested]))
        return gradients

    def _gradients_of_split_columns(self, batch: RowBatch, evaluation: Evaluation) -> tuple[Any, Any]:
        """Return gradients of inputs (b, I), or None where they are not requested, and of weights (W,)."""
        if not batch.input_gradients:
            return None, _selected(evaluation.sums, self.columns.places_without_input_gradients[1])
        inputs, weights = self.columns.places
        return _selected(evaluation.gradients, inputs), _selected(evaluation.sums, weights)

    def bandwidth_along(self, batch: RowBatch, input_vectors: np.ndarray, weight_vector: np.ndarray) -> np.ndarray:
        """Return the rates at which the values of rows change along lines, float64 (B,).

        Args:
            batch: inputs and weights, arrays of the host.
            input_vectors: directions of the inputs, float64 (B, I).
            weight_vector: direction of the weights, float64 (W,).
        """
        join = self.columns.join
        return bandwidth_along(self.compiled, join(batch.inputs, batch.weights), join(input_vectors, weight_vector))

    @cached_property
    def with_weights_in_rows(self) -> RowFunction:
        """This function with all parameters as inputs: first the inputs, then the weights, which vary by row."""
        joined = np.concatenate([self.columns.inputs, self.columns.weights])
        return replace(self, columns=ParameterColumns(self.compiled, joined, joined[:0]))

    def device_runtime(self, num_rows: int, *, gradient: bool, any_start: bool) -> Any:
        """Return the runtime of the current CUDA device if it can evaluate rows without the host, else None.

        The host is needed in these cases: the sweeps do not run on the GPU; an executor gets the rows; coefficients of
        observables are out of range; NumPy computes columns or initial states, for expressions that are not affine in
        one parameter and for amplitude encodings; light cones are evaluated one after the other; or gates that all
        rows share are simulated once, see `Sharing`.

        Raises:
            UnsupportedInstruction: with ``any_start``, when an instruction needs its qubits in |0>.
            RuntimeError: for a device that cannot be used.
        """
        options, compiled, operators, program = self.options, self.compiled, self.operators, self.compiled.program
        if operators.scaled is not None or options.executor is not None or not num_rows:
            return None
        if program.expressions.num_expressions or program.encodings:
            return None
        if not any_start and compiled.light_cones.groups(operators, num_rows, per_pair=False) is not None:
            return None
        fused = compiled.fused_program(operators.support(compiled.num_qubits), any_start=any_start)
        if choose_device(options, fused, num_rows, num_rows, gradient) != "cuda":
            return None
        if may_share(fused, num_rows):
            sharing = find_sharing(fused, self.columns.depend_on_inputs)
            if sharing.choose(num_rows, len(operators), gradient, evolve=operators.have_terms) != ROWS:
                return None
        engine: Any = engine_for("cuda", options)
        return engine.runtime


def _selected(array: Any, index: Any) -> Any:
    """Return the elements (..., C) of an array on the host or on a device at an index of its last axis."""
    return array[..., index if isinstance(index, slice) else array_module(array).asarray(index)]


def _evaluate_portion(
    compiled: CompiledCircuit,
    operators: Observables,
    cancelled: Cancellation,
    options: FusedOptions,
    columns: tuple[np.ndarray, np.ndarray],
    batch: RowBatch,
) -> Vjp:
    """Evaluate a portion of the rows, on a worker."""
    function = RowFunction(compiled, operators, options, ParameterColumns(compiled, *columns))
    return function.evaluate_rows(batch, lambda done, total: cancelled.is_set())
