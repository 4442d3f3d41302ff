# SPDX-License-Identifier: Apache-2.0
"""Tangent states of a circuit, the quantum geometric tensor, and products of the metric with vectors.

The tangent state of a parameter x_p is ``d_p psi = dpsi/dx_p`` of the final state psi(x). Global phases are left out:
generators have no trace, as in ``LinCombQGT``. The quantum geometric tensor is

    ``Q_pq = <d_p psi|d_q psi> - <d_p psi|psi><psi|d_q psi>``,

a Hermitian matrix. Its real part is the metric (a quarter of the quantum Fisher information), and its imaginary part
half the Berry curvature.

Tangent states of columns are sums of few final states at shifted columns (see `shift_rules`), rows of one batch. They
need no kernels of their own. A column costs one forward sweep if it is the angle of one rotation, at most two if it is
the angle of another op, and four otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import blas

from qiskit_fused.common.array_modules import to_numpy
from qiskit_fused.common.byte_sizes import format_bytes
from qiskit_fused.common.forks import cached_property
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.engines.interface import Watch
from qiskit_fused.execution.column_shifts import ColumnPoint, bandwidth_of_amplitudes, combine
from qiskit_fused.execution.derivatives import check_expressions
from qiskit_fused.execution.product_threads import for_each_tile, single_threaded_products
from qiskit_fused.execution.row_cuts import cut_evenly, rows_that_fit, share
from qiskit_fused.execution.statevectors import FinalStates, StateBatch
from qiskit_fused.options import FusedOptions
from qiskit_fused.program.shift_rules import central_differences

_LIMIT_SHARE = 2  # tangent states and the states they are made of take at most 1/2 of the memory limit
_TILE, _DEVICE_TILE = 128, 2048  # tangent states whose products a thread, or a CUDA device, computes at a time
_Block = tuple[slice, Any]  # the places of some used columns, and their tangent states, on the host or on a device

_STATES_PER_COLUMN = 6  # states of complex128 in memory for each column of a block: four shifted states, and copies


@dataclass(frozen=True, eq=False)
class MetricTensor:
    """The quantum geometric tensor of one circuit as a function of one row of parameter values.

    Attributes:
        compiled: the circuit.
        options: the options of the engine.
        phase_fix: whether the second term of the tensor counts. Without it, ``<d_p psi|d_q psi>`` is computed.
    """

    compiled: CompiledCircuit
    options: FusedOptions
    phase_fix: bool = True

    @cached_property
    def _states(self) -> FinalStates:
        """The final states as a function of columns, without their global phases."""
        return FinalStates(self.compiled.of_columns, self.options, only_active=True, with_phase=False)

    def tensor(self, values: np.ndarray, parameters: np.ndarray | None, real: bool, watch: Watch | None) -> np.ndarray:
        """Return the tensor, complex128 (Q, Q), or its real part, float64 (Q, Q).

        Args:
            values: finite parameter values, float64 (P,).
            parameters: int (Q,), positions of the parameters, in the order of the tensor; None is all parameters.
            real: whether only the real part is computed, which takes half the time of the product.
            watch: told the progress.

        Raises:
            RowError: if an expression has no finite derivative.
            MemoryError: if the tangent states of two parameters do not fit the memory limit.

        Cost: see the module. If not all tangent states fit the memory limit, they are computed block by block, and
        some of them several times.
        """
        point = ColumnPoint(self.compiled, values, parameters)
        count = len(point.used)
        states = self._states.on_device(count)
        blocks = self._blocks(states, point)
        of_columns = np.zeros((count, count), np.float64 if real else np.complex128)
        steps = _Steps(watch, len(blocks) * (len(blocks) + 1) // 2)
        with states.context(), single_threaded_products():
            for number, rows in enumerate(blocks):
                left = rows, self._tangents(states, point, rows, steps)
                self._multiply(of_columns, left, left, real)
                for others in blocks[number + 1 :]:
                    self._multiply(of_columns, left, (others, self._tangents(states, point, others, steps)), real)
        jacobian = point.jacobian()
        if jacobian is None:
            return of_columns
        with single_threaded_products():
            of_parameters: np.ndarray = jacobian.T @ of_columns @ jacobian
        return of_parameters

    def _blocks(self, states: FinalStates, point: ColumnPoint) -> list[slice]:
        """Cut the used columns into blocks, of which two fit the memory limit at a time."""
        column_bytes, count = 16 * _STATES_PER_COLUMN << states.num_qubits, len(point.used)
        limit = states.limit_for(_LIMIT_SHARE * count * column_bytes)
        if limit is None:
            return cut_evenly(count, count)
        room = limit // _LIMIT_SHARE
        if column_bytes > room:
            raise MemoryError(
                f"the tangent states of one parameter take {format_bytes(column_bytes)}, memory_limit is "
                f"{format_bytes(2 * room)}; raise memory_limit or use fewer qubits."
            )
        size = rows_that_fit(room, column_bytes)
        return cut_evenly(count, size if size >= count else max(size // 2, 1))

    def _tangents(self, states: FinalStates, point: ColumnPoint, rows: slice, steps: _Steps) -> Any:
        """Return the tangent states of some used columns, complex (N, 2^n), in the number format of the options."""
        columns = point.used[rows]
        segments = self.compiled.column_rules.of_states(columns, point.bandwidth[rows], self.options.dtype)
        found = states.states(point.shifted(columns, segments), steps.next())
        tangents = states.array_module.ascontiguousarray(combine(segments, found, len(columns)))
        if self.phase_fix:
            tangents = _without_part_along(found[0], tangents)
        return tangents

    def _multiply(self, result: np.ndarray, left: _Block, right: _Block, real: bool) -> None:
        """Write the products of two blocks of tangent states, and their mirror images, into the tensor."""
        is_diagonal = left[0] == right[0]
        numbers = [_as_real(block) if real else block for _, block in (left, right)]
        is_on_host = isinstance(left[1], np.ndarray)
        rows, others = (cut_evenly(len(block), _TILE if is_on_host else _DEVICE_TILE) for block in numbers)
        tiles = [(one, other) for one in rows for other in others if not is_diagonal or other.start >= one.start]

        def multiply(tile: tuple[slice, slice]) -> int:
            one, other = tile
            product = to_numpy(numbers[0][one].conj() @ numbers[1][other].T)
            places = slice(left[0].start + one.start, left[0].start + one.stop)
            mirrored = slice(right[0].start + other.start, right[0].start + other.stop)
            result[places, mirrored] = product
            if places != mirrored:
                result[mirrored, places] = product.conj().T
            return product.size

        for_each_tile(multiply, tiles, self.options.resolve_num_threads() if is_on_host else 1, lambda work: None)

    def metric_times(self, values: np.ndarray, vectors: np.ndarray, watch: Watch | None = None) -> np.ndarray:
        """Return the products of the metric Re Q with vectors, float64 (M, P), for vectors (M, P).

        The tangent state along a vector v comes from four states at ``x + h v``, and one backward sweep turns it into
        ``Re <d_p psi|d_v psi>``. No P x P array is made.

        Args:
            values: finite parameter values, float64 (P,).
            vectors: v, float64 (M, P).
            watch: told the progress.
        """
        program, states = self.compiled.program, self._states
        rows = np.repeat(program.columns(values[None]), len(vectors), axis=0)
        directions = vectors
        if program.expressions.num_expressions:
            jacobian = program.expressions.jacobian(values[None])[0]
            check_expressions(program.expressions, values[None], jacobian.sum(axis=0)[None])
            directions = np.concatenate([vectors, vectors @ jacobian.T], axis=1)
        scale = np.abs(directions) @ self.compiled.column_rules.bandwidth
        scale += bandwidth_of_amplitudes(program, rows, directions)
        scale[scale == 0] = 1.0
        shifts, weights = central_differences(self.options.dtype)
        moved = rows[None] + (shifts[:, None] / scale)[:, :, None] * directions
        every = np.concatenate([rows[:1], moved.reshape(-1, rows.shape[1])])
        found = states.states(every, share(watch, 0, len(every), len(every) + 2 * len(rows)))
        psi, shifted = found[0], found[1:].reshape(len(shifts), len(rows), -1)
        tangents = np.einsum("j,jbi->bi", weights, shifted) * scale[:, None]
        with single_threaded_products():
            tangents = _without_part_along(psi, tangents)
        batch = StateBatch(rows, tangents, wants_states=False)
        products: np.ndarray = states.evaluate(
            batch, share(watch, len(every), len(every) + 2 * len(rows), len(every) + 2 * len(rows))
        ).gradients
        if program.expressions.num_expressions:
            products = products[:, : program.num_parameters] + products[:, program.num_parameters :] @ jacobian
        return products


class _Steps:
    """The shares of a watch for steps of equal work."""

    def __init__(self, watch: Watch | None, count: int):
        self._watches: Iterator[Any] = iter(share(watch, number, number + 1, count) for number in range(count))

    def next(self) -> Watch | None:
        """Return the watch of the next step."""
        watch: Watch | None = next(self._watches)
        return watch


def _without_part_along(psi: Any, tangents: Any) -> Any:
    """Return ``t - psi <psi|t>`` for each tangent state t, (N, 2^n). The tangent states are overwritten."""
    if isinstance(psi, np.ndarray) and len(tangents):  # BLAS takes no empty array
        # One pass in place takes a fifth of the time of NumPy's product and difference, for 96 states of 8 qubits.
        subtract = blas.cgeru if tangents.dtype == np.complex64 else blas.zgeru
        return subtract(-1, psi, np.vecdot(psi, tangents), a=tangents.T, overwrite_a=True).T
    tangents -= (tangents @ psi.conj())[:, None] * psi
    return tangents


def _as_real(states: Any) -> Any:
    """Return states (N, 2^n) as real numbers (N, 2^(n+1)), whose products are the real parts of overlaps."""
    return states.view(states.real.dtype)
