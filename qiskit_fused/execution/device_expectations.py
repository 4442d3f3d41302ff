# SPDX-License-Identifier: Apache-2.0
"""`Expectations` of arrays that are on a CUDA device: they go to the engine as they are, and answers stay there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qiskit_fused.engines.interface import NO_STATES, Ends
from qiskit_fused.execution.evaluate import check_finite, choose_device, engine_for
from qiskit_fused.execution.initial_states import check_norms, circuit_order
from qiskit_fused.execution.row_batches import Vjp, check_cotangents
from qiskit_fused.execution.shared_parts import ROWS, find_sharing, may_share
from qiskit_fused.primitives.gradient_requests import all_pairs

if TYPE_CHECKING:
    from qiskit_fused.execution.expectations import Expectations

_AT_ONCE = 1 << 24  # amplitudes whose squares are made


def on_device(
    expectations: Expectations, num_rows: int, *, gradient: bool, any_start: bool
) -> DeviceExpectations | None:
    """Return what evaluates rows without the host, on the current CUDA device; None where the host is needed.

    It is needed where the sweeps do not run on the GPU, where an executor shares the rows, where coefficients of
    observables are out of range, where columns or start
    states are made by NumPy (expressions that are not affine in one parameter, and amplitude encodings), and where what
    all rows have in common is worth simulating once, see `Sharing`.

    Args:
        expectations: what is evaluated.
        num_rows: B.
        gradient: whether gradients are wanted.
        any_start: whether rows bring start states.

    Raises:
        UnsupportedInstruction: with ``any_start``, when an instruction needs its qubits in |0>.
        RuntimeError: for a device that cannot be used.
    """
    options, compiled = expectations.options, expectations.compiled
    program = compiled.program
    if expectations.operators.scaled is not None:
        return None
    if options.executor is not None or program.expressions.num_expressions or program.encodings or not num_rows:
        return None
    if not any_start and compiled.light_cones.groups(expectations.operators, num_rows, per_pair=False) is not None:
        return None
    plan = compiled.plan(expectations.operators.support(compiled.num_qubits), any_start=any_start)
    if choose_device(options, plan, num_rows, num_rows, gradient) != "cuda":
        return None
    if may_share(plan, num_rows):
        varies = np.zeros(program.num_columns, dtype=bool)
        varies[expectations._inputs] = True
        if find_sharing(plan, varies).choose(num_rows, expectations.num_observables, gradient) != ROWS:
            return None
    return DeviceExpectations(expectations, plan, engine_for("cuda", options))


class DeviceExpectations:
    """Values and gradients of `Expectations` for arrays of a CUDA device, in its current stream; see `on_device`.

    What comes to the host: whether all numbers are finite, the norms of start states, and which columns vary.
    """

    def __init__(self, expectations: Expectations, plan: Any, engine: Any):
        self._expectations, self._plan, self._engine = expectations, plan, engine
        self.runtime = engine.runtime

    def values(self, inputs: Any, weights: Any, initial_states: Any = None) -> Any:
        """Return expectation values, float64 (B, K) on the device; see `Expectations.values`."""
        return self._evaluate(inputs, weights, initial_states, None, None).values.reshape(len(inputs), -1)

    def value_and_vjp(
        self,
        inputs: Any,
        weights: Any,
        cotangents: Any,
        initial_states: Any = None,
        *,
        input_gradients: bool,
        state_gradients: bool,
    ) -> Vjp:
        """Return values and a vector-Jacobian product on the device; see `Expectations.value_and_vjp`.

        Gradients of the states have the number format of the option dtype.
        """
        xp, function = self.runtime.xp, self._expectations
        if not bool(xp.isfinite(cotangents).all()):
            check_cotangents(self.runtime.to_host(cotangents), cotangents.shape)
        num_columns = function.compiled.program.num_columns
        summed = np.ones(num_columns, dtype=bool)
        if input_gradients:
            summed[function._inputs] = False
        state_gradients = state_gradients and initial_states is not None
        found = self._evaluate(inputs, weights, initial_states, cotangents, summed, state_gradients)
        # of the summed columns, and of the others, in their own order
        place = np.where(summed, np.cumsum(summed), np.cumsum(~summed)) - 1
        of_weights = found.sums[xp.asarray(place[function._weights])]
        of_inputs = found.gradients[:, xp.asarray(place[function._inputs])] if input_gradients else None
        of_states, order = found.of_states, circuit_order(self._plan) if state_gradients else None
        if order is not None:
            of_states = of_states[:, xp.asarray(np.argsort(order))]
        return Vjp(found.values.reshape(len(inputs), -1), of_inputs, of_weights, of_states)

    def _evaluate(
        self,
        inputs: Any,
        weights: Any,
        initial_states: Any,
        cotangents: Any,
        sum_columns: np.ndarray | None,
        state_gradients: bool = False,
    ) -> Any:
        xp, function = self.runtime.xp, self._expectations
        for given, parameters in zip((inputs, weights), function.parameters):
            if not bool(xp.isfinite(given).all()):
                check_finite(self.runtime.to_host(given), parameters)
        columns = xp.empty((len(inputs), function.compiled.program.num_columns), dtype=np.float64)
        columns[:, xp.asarray(function._inputs)] = inputs
        columns[:, xp.asarray(function._weights)] = weights
        ends = NO_STATES
        if initial_states is not None:
            check_norms(self._norms(initial_states))
            order = circuit_order(self._plan)
            states = initial_states if order is None else initial_states[:, xp.asarray(order)]
            ends = Ends(states, state_gradients)
        num_adjoint_states = None if cotangents is None else len(inputs)
        with function._progress(len(inputs), num_adjoint_states) as progress:
            progress.next_part()
            return self._engine.evaluate_on_device(
                self._plan,
                function.operators,
                columns,
                all_pairs(len(inputs), function.num_observables),
                cotangents=None if cotangents is None else cotangents.ravel(),
                sum_columns=sum_columns,
                dtype=function.options.dtype,
                method=function.options.gpu_method(),
                ends=ends,
                watch=progress.watch,
            )

    def _norms(self, states: Any) -> np.ndarray:
        """Return the norms of states (B, 2^n), float64 (B,) on the host; takes little memory."""
        num_rows, size = states.shape
        step = max(_AT_ONCE // num_rows, 1)
        squares = self.runtime.xp.zeros(num_rows, dtype=np.float64)
        for begin in range(0, size, step):
            part = abs(states[:, begin : begin + step])
            squares += (part * part).sum(axis=1, dtype=np.float64)
        return np.sqrt(self.runtime.to_host(squares))
