# SPDX-License-Identifier: Apache-2.0
"""Observables after a circuit as a function of rows: what evaluates a `RowBatch` in this process and on workers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qiskit_fused.common.array_modules import array_module
from qiskit_fused.common.cancellation import Cancellation
from qiskit_fused.common.forks import cached_property
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.engines.evaluation import Evaluation
from qiskit_fused.engines.interface import Watch
from qiskit_fused.engines.request import NO_STATES, BoundaryStates, GradientRequest, Request, all_pairs
from qiskit_fused.execution.derivatives import check_derivatives, pull_back
from qiskit_fused.execution.devices import choose_device, engine_for
from qiskit_fused.execution.evaluate import evaluate
from qiskit_fused.execution.executor import cut_portions, options_of_workers, run_portions
from qiskit_fused.execution.row_batches import RowBatch, Vjp, check_cotangents, join_rows
from qiskit_fused.execution.row_cuts import cut_evenly, evaluate_slice, rows_that_fit, share
from qiskit_fused.execution.shared_parts import ROWS, find_sharing, may_share
from qiskit_fused.options import FusedOptions
from qiskit_fused.program.observables import Observables
from qiskit_fused.program.program import Program

_BLOCK_BYTES = 1 << 26  # bytes of the values and gradients of a block of rows
_BLOCKS_IN_LIMIT = 8  # the values and gradients of a block take at most this part of memory_limit
_MIN_BLOCK_ROWS = 16  # rows of a block at least, where a row alone takes many bytes: threads run rows side by side
_GRADIENT_TIME = 4  # a gradient takes about as long as this many forward sweeps, one of which finds the values


class ParameterColumns:
    """Where inputs and weights stand among the parameters of a circuit.

    Args:
        program: the circuit.
        inputs: int (I,), columns of the inputs.
        weights: int (W,), columns of the weights.
    """

    def __init__(self, program: Program, inputs: np.ndarray, weights: np.ndarray):
        self._program, self.inputs, self.weights = program, inputs, weights

    @cached_property
    def index(self) -> tuple[Any, Any]:
        """Columns of inputs and of weights, as slices where they are consecutive: these select without a copy."""
        return _as_slice(self.inputs), _as_slice(self.weights)

    @cached_property
    def depend_on_inputs(self) -> np.ndarray:
        """Bool (C,): columns of the program that depend on inputs, and so may vary between rows."""
        of_inputs = np.zeros(self._program.num_parameters, bool)
        of_inputs[self.inputs] = True
        return self._program.depends_on(of_inputs)

    @cached_property
    def shared(self) -> np.ndarray:
        """Bool (C,): columns that depend on weights alone."""
        return ~self.depend_on_inputs

    @cached_property
    def unused_without_input_gradients(self) -> np.ndarray:
        """Bool (C,): columns that do not depend on weights."""
        of_weights = np.zeros(self._program.num_parameters, bool)
        of_weights[self.weights] = True
        return ~self._program.depends_on(of_weights)

    def places(self, is_summed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where gradients of inputs and of weights are, if summed and other columns are apart in their order."""
        place = np.where(is_summed, np.cumsum(is_summed), np.cumsum(~is_summed)) - 1
        return place[self.inputs], place[self.weights]


@dataclass(frozen=True, eq=False)
class RowFunction:
    """K observables after one circuit, as a function of rows of inputs and of weights.

    Attributes:
        compiled: the circuit.
        operators: the observables.
        options: how engines run.
        columns: which parameters are inputs and weights.
    """

    compiled: CompiledCircuit
    operators: Observables
    options: FusedOptions
    columns: ParameterColumns

    def evaluate(self, batch: RowBatch, watch: Watch | None) -> Vjp:
        """Evaluate rows that were checked: by workers, or block by block in this process."""
        if callable(batch.cotangents):
            whole = _GRADIENT_TIME
            values = self.evaluate(batch._replace(cotangents=None), share(watch, 0, 1, whole)).values
            batch = batch._replace(cotangents=check_cotangents(batch.cotangents(values), values.shape))
            watch = share(watch, 1, whole, whole)
        return join_rows(batch, self._parts(batch, watch))

    def _parts(self, batch: RowBatch, watch: Watch | None) -> Iterable[tuple[slice, Vjp]]:
        """Yield slices of the rows and what was found for them, one after the other."""
        options, num_adjoint_states = self.options, batch.num_adjoint_states(len(self.operators))
        if options.executor is not None:
            portions = cut_portions(options, self.compiled, batch.num_rows, num_adjoint_states)
            if portions:
                columns, given = (self.columns.inputs, self.columns.weights), options_of_workers(options)
                shared = self.compiled, self.operators
                return zip(
                    portions,
                    run_portions(
                        options.executor,
                        _evaluate_portion,
                        shared,
                        lambda number: (given, columns, batch.rows(portions[number])),
                        portions,
                        watch,
                    ),
                )
        return ((rows, evaluate_slice(batch, rows, self._evaluate_block, watch)) for rows in self._blocks(batch))

    def _blocks(self, batch: RowBatch) -> list[slice]:
        """Cut rows so that the columns, values and gradients of a block are few bytes; a GPU engine cuts by itself."""
        if not isinstance(batch.inputs, np.ndarray):
            return cut_evenly(batch.num_rows, batch.num_rows)
        count = len(self.operators)
        row = 8 * (self.compiled.program.num_columns * (count if batch.jacobian else 1) + count)
        size = rows_that_fit(_BLOCK_BYTES, row, _MIN_BLOCK_ROWS)
        if self.options.memory_limit is not None:
            size = min(size, rows_that_fit(self.options.resolve_memory_limit() // _BLOCKS_IN_LIMIT, row))
        return cut_evenly(batch.num_rows, size)

    def _evaluate_block(self, batch: RowBatch, watch: Watch | None) -> Vjp:
        request = self._request(batch)
        found = evaluate(self.options, self.compiled, self.operators, request, watch=watch)
        values = found.values.reshape(batch.num_rows, len(self.operators))
        if request.gradient is None:
            return Vjp(values)
        if request.is_on_device:
            inputs, weights = self._gradients_on_device(batch, request, found)
        else:
            inputs, weights = self._gradients(batch, request, found)
        return Vjp(values, inputs if batch.input_gradients else None, weights, found.state_gradients)

    def _request(self, batch: RowBatch) -> Request:
        """Return the request of a block of rows."""
        xp, columns, num_rows = array_module(batch.inputs), self.columns, batch.num_rows
        values = xp.empty((num_rows, len(self.compiled.parameters)), dtype=np.float64)
        for index, given in zip(columns.index, (batch.inputs, batch.weights)):
            values[:, index if isinstance(index, slice) else xp.asarray(index)] = given
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
        pairs = all_pairs(num_rows, len(self.operators))
        return Request(values, pairs, gradient, boundary, self.options.dtype, may_vary=columns.depend_on_inputs)

    def _gradients(self, batch: RowBatch, request: Request, found: Evaluation) -> tuple[np.ndarray, np.ndarray]:
        """Return gradients of inputs and of weights: (b, I) and (W,), or (b, K, I) and (b, K, W) of a Jacobian."""
        columns, num_rows, values = self.columns, batch.num_rows, request.columns
        pairs = request.pairs if batch.jacobian else all_pairs(num_rows, 1)
        gradients = pull_back(self.compiled, values, found.gradients, pairs, self.operators)
        if batch.cotangents is not None and not np.isfinite(gradients).all():
            gradients[~batch.cotangents.any(axis=1)] = 0.0  # a row of weight 0 has no part in the sum
        asked = [columns.inputs] * batch.input_gradients + [columns.weights] * batch.weight_gradients
        per_row = len(gradients) // max(num_rows, 1)
        shaped = gradients.reshape(num_rows, per_row, values.shape[1])
        check_derivatives(self.compiled, values, shaped, np.concatenate([np.zeros(0, np.intp), *asked]))
        of_inputs, of_weights = columns.index
        if batch.jacobian:
            shaped = gradients.reshape(-1, len(self.operators), values.shape[1])
            return shaped[:, :, of_inputs], shaped[:, :, of_weights]
        return gradients[:, of_inputs], gradients[:, of_weights].sum(axis=0)

    def _gradients_on_device(self, batch: RowBatch, request: Request, found: Evaluation) -> tuple[Any, Any]:
        """Return gradients of inputs (b, I), where these are not summed away, and of weights (W,)."""
        xp, is_summed = array_module(found.sums), request.summed_columns
        assert is_summed is not None
        inputs, weights = self.columns.places(is_summed)
        of_inputs = found.gradients[:, xp.asarray(inputs)] if batch.input_gradients else None
        return of_inputs, found.sums[xp.asarray(weights)]

    def device_runtime(self, num_rows: int, *, gradient: bool, any_start: bool) -> Any:
        """Return the runtime of the current CUDA device where rows on it are evaluated without the host, else None.

        The host is needed where the sweeps do not run on the GPU, where an executor shares the rows, where coefficients
        of observables are out of range, where columns or initial states are made by NumPy (expressions that are not
        affine in one parameter, and amplitude encodings), where light cones are evaluated one by one, and where what
        all rows have in common is worth simulating once, see `Sharing`.

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
        plan = compiled.plan(operators.support(compiled.num_qubits), any_start=any_start)
        if choose_device(options, plan, num_rows, num_rows, gradient) != "cuda":
            return None
        if may_share(plan, num_rows):
            sharing = find_sharing(plan, self.columns.depend_on_inputs)
            if sharing.choose(num_rows, len(operators), gradient) != ROWS:
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


def _as_slice(columns: np.ndarray) -> Any:
    """Return a slice that selects the same columns, or these."""
    if len(columns) and (columns == columns[0] + np.arange(len(columns))).all():
        return slice(int(columns[0]), int(columns[0]) + len(columns))
    return columns
