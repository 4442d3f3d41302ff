# SPDX-License-Identifier: Apache-2.0
"""Evaluates a `RowBatch`, in this process or on the workers of an executor."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
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
from qiskit_fused.engines.split_columns import SplitColumns
from qiskit_fused.execution.derivatives import (
    check_derivatives,
    completed,
    differentiated,
    first_observables,
    pull_back,
    pull_back_zero,
)
from qiskit_fused.execution.devices import choose_device, engine_for
from qiskit_fused.execution.evaluate import evaluate
from qiskit_fused.execution.executor import cut_portions, options_of_workers, run_portions
from qiskit_fused.execution.magnitudes import has_large_cotangents
from qiskit_fused.execution.result_sizes import check_results
from qiskit_fused.execution.row_batches import RowBatch, Vjp, check_cotangents, join_rows
from qiskit_fused.execution.row_cuts import cut_evenly, evaluate_slice, rows_that_fit, share
from qiskit_fused.execution.shared_parts import ROWS, find_sharing, may_share
from qiskit_fused.options import FusedOptions
from qiskit_fused.program.observables import Observables
from qiskit_fused.program.program import Program

_BLOCK_BYTES = 1 << 26  # columns, values and gradients of a block of rows take at most 64 MiB
_BLOCKS_IN_LIMIT = 8  # columns, values and gradients of a block of rows take at most memory_limit / 8
_MIN_BLOCK_ROWS = 16  # least number of rows of a block, also if it exceeds _BLOCK_BYTES: each thread needs a row
_GRADIENT_TIME = 4  # estimated time of the values and a gradient, in forward sweeps; the values take 1 of them


class ParameterColumns:
    """The positions of inputs and weights among the parameters of a circuit.

    Args:
        program: the circuit.
        inputs: int (I,), positions of the inputs.
        weights: int (W,), positions of the weights.
    """

    def __init__(self, program: Program, inputs: np.ndarray, weights: np.ndarray):
        self._program, self.inputs, self.weights = program, inputs, weights

    @classmethod
    def of(cls, compiled: CompiledCircuit, input_params: Any, weight_params: Any) -> ParameterColumns:
        """Return the positions of the inputs and weights of a circuit.

        Raises:
            ValueError: for a parameter that is not in the circuit, or a parameter of the circuit that is not one input
                or one weight.
        """
        inputs = compiled.find_columns("input_params", input_params)
        weights = compiled.find_columns("weight_params", weight_params)
        uses = np.bincount(np.concatenate([inputs, weights]), minlength=len(compiled.parameters))
        if (uses != 1).any():
            name = compiled.parameters[int(np.flatnonzero(uses != 1)[0])].name
            raise ValueError(
                f"parameter '{name}' of the circuit must be one input parameter or one weight parameter, not "
                f"{'both' if uses.max() > 1 else 'neither'}."
            )
        return cls(compiled.program, inputs, weights)

    @cached_property
    def index(self) -> tuple[Any, Any]:
        """Positions of inputs and of weights. Consecutive positions are a slice, which selects without a copy."""
        return _as_slice(self.inputs), _as_slice(self.weights)

    def join(self, inputs: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return parameter values of the circuit, float64 (B, P), of inputs (B, I) and of weights (W,)."""
        values = np.empty((len(inputs), self._program.num_parameters))
        for index, numbers in zip(self.index, (inputs, weights)):
            values[:, index] = numbers
        return values

    def split(self, inputs: Any, weights: Any) -> SplitColumns:
        """Return the parameter values of the circuit as columns, of which the weights are stored once."""
        is_input = np.zeros(self._program.num_parameters, bool)
        is_input[self.inputs] = True
        return SplitColumns(_sorted(inputs, self.inputs), _sorted(weights, self.weights), is_input)

    @cached_property
    def depend_on_inputs(self) -> np.ndarray:
        """Bool (C,): whether a column of the program depends on inputs, and so may vary between rows."""
        is_input = np.zeros(self._program.num_parameters, bool)
        is_input[self.inputs] = True
        return self._program.depends_on(is_input)

    @cached_property
    def shared(self) -> np.ndarray:
        """Bool (C,): whether a column does not depend on inputs, and so is the same in all rows."""
        return ~self.depend_on_inputs

    @cached_property
    def unused_without_input_gradients(self) -> np.ndarray:
        """Bool (C,): whether a column does not depend on weights."""
        is_weight = np.zeros(self._program.num_parameters, bool)
        is_weight[self.weights] = True
        return ~self._program.depends_on(is_weight)

    def places(self, is_summed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions of the gradients of inputs and of weights of split columns, int (I,) and int (W,).

        The gradients of summed columns are one array and the gradients of the other columns another array, both in the
        order of the columns.
        """
        position = np.where(is_summed, np.cumsum(is_summed), np.cumsum(~is_summed)) - 1
        return position[self.inputs], position[self.weights]


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

    def evaluate(self, batch: RowBatch, watch: Watch | None) -> Vjp:
        """Evaluate rows that were checked: on the workers of an executor, or block by block in this process.

        Raises:
            MemoryError: if a row does not fit the memory limit, or the results do not fit the memory.
        """
        if isinstance(batch.inputs, np.ndarray):
            check_results(self.options, self.compiled, self.operators, batch.num_rows, gradient=batch.jacobian)
        if callable(batch.cotangents):
            whole = _GRADIENT_TIME
            values = self.evaluate(batch._replace(cotangents=None), share(watch, 0, 1, whole)).values
            batch = batch._replace(cotangents=check_cotangents(batch.cotangents(values), values.shape))
            watch = share(watch, 1, whole, whole)
        return join_rows(batch, self._parts(batch, watch))

    def _parts(self, batch: RowBatch, watch: Watch | None) -> Iterable[tuple[slice, Vjp]]:
        """Yield slices of the rows and their results, one after the other."""
        options, num_adjoint_states = self.options, batch.num_adjoint_states(len(self.operators))
        if options.executor is not None:
            portions = cut_portions(options, self.compiled, batch.num_rows, num_adjoint_states)
            if portions:
                columns, worker_options = (self.columns.inputs, self.columns.weights), options_of_workers(options)
                shared = self.compiled, self.operators
                return zip(
                    portions,
                    run_portions(
                        options.executor,
                        _evaluate_portion,
                        shared,
                        lambda number: (worker_options, columns, batch.rows(portions[number])),
                        portions,
                        watch,
                    ),
                )
        splits_columns = self._splits_columns(batch)
        evaluate_block = partial(self._evaluate_block, splits_columns)
        slices = self._blocks(batch, splits_columns)
        return ((rows, evaluate_slice(batch, rows, evaluate_block, watch)) for rows in slices)

    def _blocks(self, batch: RowBatch, splits_columns: bool) -> list[slice]:
        """Cut rows so that the columns, values and gradients of a block take at most _BLOCK_BYTES.

        Rows on a CUDA device are one block, which the CUDA engine cuts.
        """
        if not isinstance(batch.inputs, np.ndarray):
            return cut_evenly(batch.num_rows, batch.num_rows)
        count = len(self.operators)
        num_columns = len(self.columns.inputs) if splits_columns else self.compiled.program.num_columns
        row_bytes = 8 * (num_columns * (count if batch.jacobian else 1) + count)
        size = rows_that_fit(_BLOCK_BYTES, row_bytes, _MIN_BLOCK_ROWS)
        if self.options.memory_limit is not None:
            size = min(size, rows_that_fit(self.options.resolve_memory_limit() // _BLOCKS_IN_LIMIT, row_bytes))
        return cut_evenly(batch.num_rows, size)

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
        if batch.jacobian or batch.initial_states is not None or not batch.num_rows:
            return False
        gradient = batch.cotangents is not None
        if self.device_runtime(batch.num_rows, gradient=gradient, any_start=False) is None:
            return False
        return not gradient or not has_large_cotangents(batch.cotangents, self.options.dtype)

    def _evaluate_request(self, batch: RowBatch, request: Request, watch: Watch | None) -> Vjp:
        """Evaluate the request of a block of rows."""
        evaluation = evaluate(self.options, self.compiled, self.operators, request, watch=watch)
        values = evaluation.values.reshape(batch.num_rows, len(self._evaluated(batch)))
        if request.gradient is None:
            return Vjp(values)
        if request.is_split:
            inputs, weights = self._gradients_of_split_columns(batch, request, evaluation)
        else:
            inputs, weights = self._gradients(batch, request, evaluation)
        if batch.jacobian:
            values, inputs, weights = (
                None if array is None else completed(self.operators, self._evaluated(batch), array, total)
                for array, total in ((values, 1), (inputs, 0), (weights, 0))
            )
        return Vjp(values, inputs, weights, evaluation.state_gradients)

    def _evaluated(self, batch: RowBatch) -> np.ndarray:
        """Return the observables that the engine evaluates: for a Jacobian, fewer than all, see `differentiated`."""
        return differentiated(self.operators) if batch.jacobian else first_observables(len(self.operators))

    def _request(self, batch: RowBatch, columns_of: Callable[[Any, Any], Any]) -> Request:
        """Return the request of a block of rows; ``columns_of`` makes columns of inputs and weights."""
        columns, num_rows = self.columns, batch.num_rows
        values = columns_of(batch.inputs, batch.weights)
        boundary, states = NO_STATES, batch.initial_states
        if states is not None:
            boundary = BoundaryStates(states, on_circuit_qubits=True)
        gradient = None
        if batch.jacobian or batch.cotangents is not None:
            of_states = batch.state_gradients
            if states is None:
                of_states = self.compiled.program.encodes(None if batch.input_gradients else columns.weights)
            cotangents = None if batch.cotangents is None else batch.cotangents.ravel()
            needs_inputs = batch.jacobian or batch.input_gradients
            unused = None if needs_inputs else columns.unused_without_input_gradients
            gradient = GradientRequest(cotangents, False, columns.shared, unused, of_states)
        pairs = pairs_of(num_rows, self._evaluated(batch))
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
            shaped = gradients.reshape(batch.num_rows, len(self._evaluated(batch)), gradients.shape[1])
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
        per_row = len(self._evaluated(batch)) if batch.jacobian else 1
        shaped = gradients.reshape(num_rows, per_row, values.shape[1])
        check_derivatives(self.compiled, values, shaped, np.concatenate([np.zeros(0, np.intp), *requested]))
        return gradients

    def _gradients_of_split_columns(self, batch: RowBatch, request: Request, evaluation: Evaluation) -> tuple[Any, Any]:
        """Return gradients of inputs (b, I), or None where they are not requested, and of weights (W,)."""
        xp, is_summed = array_module(evaluation.sums), request.summed_columns
        assert is_summed is not None
        inputs, weights = self.columns.places(is_summed)
        input_gradients = evaluation.gradients[:, xp.asarray(inputs)] if batch.input_gradients else None
        return input_gradients, evaluation.sums[xp.asarray(weights)]

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


def _evaluate_portion(
    compiled: CompiledCircuit,
    operators: Observables,
    cancelled: Cancellation,
    options: FusedOptions,
    columns: tuple[np.ndarray, np.ndarray],
    batch: RowBatch,
) -> Vjp:
    """Evaluate a portion of the rows, on a worker."""
    function = RowFunction(compiled, operators, options, ParameterColumns(compiled.program, *columns))
    return function.evaluate(batch, lambda done, total: cancelled.is_set())


def _sorted(numbers: Any, positions: np.ndarray) -> Any:
    """Return numbers (..., P) in the order of their positions, as a view if they are in order."""
    if (positions[1:] > positions[:-1]).all():
        return numbers
    return numbers[..., array_module(numbers).asarray(np.argsort(positions))]


def _as_slice(columns: np.ndarray) -> Any:
    """Return a slice that selects the same columns; the columns themselves where no slice does."""
    if len(columns) and (columns == columns[0] + np.arange(len(columns))).all():
        return slice(int(columns[0]), int(columns[0]) + len(columns))
    return columns
