# SPDX-License-Identifier: Apache-2.0
"""The fidelities of all pairs of two sets of rows of one circuit, and their gradients, within the memory limit.

Each row of parameter values v makes a state psi(v). The matrix has the elements ``K_ij = |<psi(v_i)|psi(u_j)>|^2`` for
left rows v and right rows u. In a symmetric matrix, the right rows are the left rows.

If all states fit the memory limit, each row is simulated once. Otherwise some states are kept at a time, and all others
are simulated block by block beside them. The matrix itself belongs to the caller and does not count.

If a CUDA device simulates the rows, then states, overlaps and cotangents stay there, and the memory limit is about the
memory of the device. Fidelities come to the host tile by tile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qiskit_fused.common.array_modules import to_numpy
from qiskit_fused.common.cancellation import Cancellation
from qiskit_fused.common.row_errors import renumbered, shifted
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.engines.interface import Watch
from qiskit_fused.execution.executor import options_of_workers, run_portions
from qiskit_fused.execution.fidelity_sizes import Meter, choose_sizes, cut_for_workers, num_gates
from qiskit_fused.execution.overlaps import Tile, Tiling, cotangents_of_states, mirror, overlaps_of, squared
from qiskit_fused.execution.product_threads import for_each_tile
from qiskit_fused.execution.row_cuts import JoinedArrays, cut_evenly
from qiskit_fused.execution.statevectors import FinalStates
from qiskit_fused.options import FusedOptions

RowName = Callable[[int], Any]

_PRODUCTS_OF_ONE_THREAD = 1 << 22  # up to this number of complex multiplications, 1 ms, threads do not save time
_GRADIENT_SWEEPS = 3  # a gradient of a state takes a forward sweep and two backward sweeps


class _Side:
    """The left or the right rows of a matrix, and their states where they are kept.

    Args:
        rows: the final states as a function of parameter values.
        values: parameter values (N, P).
        block: number of states that are simulated at a time.
        name: returns the name of a row, for errors.
    """

    def __init__(self, rows: FinalStates, values: np.ndarray, block: int, name: RowName):
        self._rows, self.values, self._block, self.name = rows, values, block, name
        self._kept: Any = None

    def __len__(self) -> int:
        return len(self.values)

    def states(self, part: slice, meter: Meter) -> Any:
        """Return the states of some rows, kept or simulated."""
        if self._kept is not None:
            return self._kept[part]
        count, states = part.stop - part.start, JoinedArrays()
        for block in cut_evenly(count, self._block):
            rows = _moved(block, part.start)
            watch = meter.begin((rows.stop - rows.start) * num_gates(self._rows))
            with renumbered(self.name), shifted(rows.start):
                states.put("states", self._rows.states(self.values[rows], watch), block, count)
        return states["states"]

    def keep(self, states: Any) -> None:
        """Keep the states of all rows."""
        self._kept = states

    def gradients(self, part: slice, cotangents: Any, meter: Meter) -> np.ndarray:
        """Return the gradients of some rows for the cotangents of their states."""
        watch = meter.begin(_GRADIENT_SWEEPS * len(cotangents) * num_gates(self._rows))
        with renumbered(self.name), shifted(part.start):
            return self._rows.vjp(self.values[part], cotangents, watch)


class FidelityMatrix:
    """The fidelities of all pairs of left and right rows.

    Args:
        rows: the final states as a function of parameter values, without idle qubits.
        left: parameter values of the left rows, (N, P).
        right: parameter values of the right rows, (M, P); None for a symmetric matrix.
        gradient: whether gradients are computed after the values. Then the states, and the overlaps too, are kept if
            they fit the memory limit.
        names: functions that return the names of left and of right rows, for errors.
    """

    def __init__(
        self,
        rows: FinalStates,
        left: np.ndarray,
        right: np.ndarray | None = None,
        gradient: bool = False,
        names: tuple[RowName, RowName] = (int, int),
    ):
        num_right, self._is_symmetric = len(left) if right is None else len(right), right is None
        self._rows = rows = rows.on_device(max(len(left), num_right), gradient)
        self._sizes = choose_sizes(rows, len(left), num_right, self._is_symmetric, gradient)
        # All states together are simulated by one call, which spreads them over the workers of an executor.
        block = max(len(left), num_right) if self._sizes.together else self._sizes.block
        self._left = _Side(rows, left, block, names[0])
        self._right = self._left if right is None else _Side(rows, right, block, names[1])
        self._overlaps: Any = None
        self._portions = [] if gradient else cut_for_workers(rows, self._sizes, num_right, len(left))

    @property
    def work(self) -> int:
        """The estimated work of `fill`, in the unit of `Meter`."""
        num_left, num_right = len(self._left), len(self._right)
        pairs = num_left * num_right
        if not self._is_symmetric:
            return self._num_states(num_right, num_left) * num_gates(self._rows) + pairs
        num_states = num_left if self._sizes.together else self._num_states(num_right, num_left) // 2
        return num_states * num_gates(self._rows) + pairs // 2

    def work_of_gradients(self, of_right: bool) -> int:
        """Return the estimated work of `gradients`, in the unit of `Meter`."""
        sides = [(len(self._left), len(self._right))]
        if of_right:
            sides.append((len(self._right), len(self._left)))
        num_sweeps = sum(_GRADIENT_SWEEPS * count for count, _ in sides)
        if not self._sizes.together:
            num_sweeps += sum(self._num_states(*side) for side in sides)
        return num_sweeps * num_gates(self._rows) + sum(count * num_others for count, num_others in sides)

    def _num_states(self, num_kept: int, num_others: int) -> int:
        """Return the number of states that are simulated to compare each state of one side with each of the other."""
        return num_kept + num_others * -(-num_kept // self._sizes.kept)

    def fill(self, matrix: np.ndarray, watch: Watch | None = None) -> None:
        """Fill a matrix, float64 (N, M). A symmetric matrix equals its transpose, and its diagonal is exactly 1."""
        if self._portions:
            self._fill_on_workers(matrix, watch)
        else:
            with self._rows.context():
                self._fill_here(matrix, Meter(watch, self.work))

    def _fill_here(self, matrix: np.ndarray, meter: Meter) -> None:
        """Compute the matrix in this process."""
        left, right, sizes = self._left, self._right, self._sizes
        if sizes.together:
            self._keep_states(meter)
        if sizes.overlaps:
            self._overlaps = self._rows.array_module.empty(matrix.shape, dtype=self._rows.options.dtype)
        for kept in cut_evenly(len(right), sizes.kept):
            states, begin = right.states(kept, meter), 0
            if self._is_symmetric:
                self._fill_square(matrix, kept.start, states, meter)
                begin = kept.stop
            for block in cut_evenly(len(left) - begin, len(left) if sizes.together else sizes.block):
                rows = _moved(block, begin)
                if rows.stop > rows.start:
                    self._fill_rectangle(matrix, (rows.start, kept.start), left.states(rows, meter), states, meter)

    def _keep_states(self, meter: Meter) -> None:
        """Simulate the rows of both sides by one call, and keep their states."""
        left, right, count = self._left, self._right, len(self._left)
        if self._is_symmetric:
            left.keep(left.states(slice(0, count), meter))
            return
        values = np.concatenate([left.values, right.values])
        name = lambda row: left.name(row) if row < count else right.name(row - count)  # noqa: E731
        both = _Side(self._rows, values, len(values), name)
        states = both.states(slice(0, len(both)), meter)
        left.keep(states[:count])
        right.keep(states[count:])

    def _fill_square(self, matrix: np.ndarray, begin: int, states: Any, meter: Meter) -> None:
        """Compute the square of a symmetric matrix that begins at the row and column ``begin``."""

        def compute(tile: Tile) -> int:
            overlaps = overlaps_of(states[tile.rows], states[tile.columns])
            square = max(tile.columns.stop - tile.rows.start, 0)  # the columns of the tile on the diagonal
            if square:
                mirror(overlaps[:, -square:])
            self._put(matrix, _moved(tile.rows, begin), _moved(tile.columns, begin), overlaps, square)
            return overlaps.size

        tiling = self._tiling(len(states) ** 2)
        for_each_tile(compute, tiling.lower_tiles(len(states)), tiling.num_threads, meter.add)

    def _fill_rectangle(self, matrix: np.ndarray, begin: tuple[int, int], left: Any, right: Any, meter: Meter) -> None:
        """Compute the rectangle that begins at a row and a column, and its mirror image if the matrix is symmetric."""

        def compute(tile: Tile) -> int:
            overlaps = overlaps_of(left[tile.rows], right[tile.columns])
            self._put(matrix, _moved(tile.rows, begin[0]), _moved(tile.columns, begin[1]), overlaps)
            return overlaps.size

        tiling = self._tiling(len(left) * len(right))
        for_each_tile(compute, tiling.tiles(len(left), len(right)), tiling.num_threads, meter.add)

    def _tiling(self, num_overlaps: int) -> Tiling:
        """Return how overlaps are cut into tiles. Few overlaps are computed by this thread alone."""
        size, options, tile_bytes = 1 << self._rows.num_qubits, self._rows.options, self._sizes.tile_bytes
        is_small = num_overlaps * size <= _PRODUCTS_OF_ONE_THREAD
        num_threads = 1 if is_small or tile_bytes else options.resolve_num_threads()
        return Tiling(size, np.dtype(options.dtype).itemsize, num_threads, tile_bytes)

    def _put(self, matrix: np.ndarray, rows: slice, columns: slice, overlaps: Any, square: int = 0) -> None:
        """Put the squares of overlaps into the matrix, and keep the overlaps for gradients.

        A symmetric matrix gets their mirror images too, except for the last ``square`` columns, which are on the
        diagonal.
        """
        squares, kept = to_numpy(squared(overlaps)), self._overlaps
        matrix[rows, columns] = squares
        if kept is not None:
            kept[rows, columns] = overlaps
        if self._is_symmetric:
            count = len(squares.T) - square
            mirrored = slice(columns.start, columns.start + count)
            matrix[mirrored, rows] = squares[:, :count].T
            if kept is not None:
                kept[mirrored, rows] = overlaps[:, :count].conj().T

    def _fill_on_workers(self, matrix: np.ndarray, watch: Watch | None) -> None:
        """Compute the matrix on the workers of the executor. A portion is some of the columns."""
        left, right, options = self._left.values, self._right.values, self._rows.options
        is_symmetric, worker_options = self._is_symmetric, options_of_workers(options)

        def arguments(number: int) -> tuple[Any, ...]:
            columns = self._portions[number]
            rows = left[columns.start :] if is_symmetric else left
            return worker_options, (columns.start if is_symmetric else 0, columns.start), rows, right[columns]

        shared = (self._rows.compiled,)
        parts = run_portions(options.executor, _evaluate_portion, shared, arguments, self._portions, watch)
        for columns, part in zip(self._portions, parts):
            if is_symmetric:
                mirror(part[: columns.stop - columns.start])
                matrix[columns, columns.start :] = part.T
            matrix[columns.start if is_symmetric else 0 :, columns] = part

    def gradients(
        self, weights: np.ndarray, of_right: bool = False, watch: Watch | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return gradients with respect to the parameter values of each row.

        Args:
            weights: real (N, M). The gradient of left row i is the gradient of ``sum_j w_ij K_ij`` for constant right
                states. A symmetric matrix whose elements have the cotangents C has the weights ``C + C^T``, since row i
                has an element for each row and for each column. Its diagonal is 1 and has no gradient.
            of_right: whether gradients of the right rows are returned too, for constant left states.
            watch: told the progress.

        Returns:
            The gradients of the left rows (N, P), and the gradients of the right rows (M, P) or None.
        """
        meter = Meter(watch, self.work_of_gradients(of_right))
        left, right, overlaps = self._left, self._right, self._overlaps
        with self._rows.context():
            of_left = self._gradients_of(left, right, weights, overlaps, meter)
            if not of_right:
                return of_left, None
            transposed = None if overlaps is None else overlaps.conj().T
            return of_left, self._gradients_of(right, left, weights.T, transposed, meter)

    def _gradients_of(
        self, side: _Side, others: _Side, weights: np.ndarray, kept_overlaps: Any, meter: Meter
    ) -> np.ndarray:
        """Return the gradients (N, P) of the rows of one side. Weights and overlaps are (N, M) for M other rows."""
        sizes, gradients, xp = self._sizes, np.empty(side.values.shape), self._rows.array_module
        for rows in cut_evenly(len(side), sizes.block if sizes.together else sizes.kept):
            states = None if kept_overlaps is not None else side.states(rows, meter)
            shape = rows.stop - rows.start, 1 << self._rows.num_qubits
            cotangents = xp.empty(shape, dtype=self._rows.options.dtype)
            if not len(others):
                cotangents[...] = 0
            for columns in cut_evenly(len(others), len(others) if sizes.together else sizes.block):
                place = rows, columns
                kept = None if kept_overlaps is None else kept_overlaps[place]
                right = others.states(columns, meter)
                self._add_cotangents(cotangents, weights[place], kept, (states, right), columns.start == 0, meter)
            gradients[rows] = side.gradients(rows, cotangents, meter)
        return gradients

    def _add_cotangents(
        self,
        cotangents: Any,
        weights: np.ndarray,
        kept_overlaps: Any,
        states: tuple[Any, Any],
        is_first: bool,
        meter: Meter,
    ) -> None:
        """Add the cotangents of left states behind the fidelities with some right states, see `cotangents_of_states`.

        Args:
            cotangents: (N, D), changed in place.
            weights: real (N, M).
            kept_overlaps: the overlaps (N, M), or None if they are computed of the states.
            states: the left states (N, D), or None with kept overlaps; and the right states (M, D).
            is_first: whether the cotangents have no values yet.
            meter: told the progress.
        """
        (left, right), tiling = states, self._tiling(2 * weights.size)

        def compute(strip: slice) -> int:
            for columns in tiling.columns(strip, len(right)):
                if kept_overlaps is not None:
                    overlaps = kept_overlaps[strip, columns]
                else:
                    overlaps = overlaps_of(left[strip], right[columns])
                arguments = weights[strip, columns], overlaps, right[columns]
                if is_first and columns.start == 0:
                    cotangents_of_states(*arguments, out=cotangents[strip])
                else:
                    cotangents[strip] += cotangents_of_states(*arguments)
            return int(weights[strip].size)

        for_each_tile(compute, tiling.strips(*weights.shape), tiling.num_threads, meter.add)


def _moved(part: slice, begin: int) -> slice:
    """Return a slice that begins ``begin`` later."""
    return slice(part.start + begin, part.stop + begin)


def _evaluate_portion(
    compiled: CompiledCircuit,
    cancelled: Cancellation,
    options: FusedOptions,
    begin: tuple[int, int],
    left: np.ndarray,
    right: np.ndarray,
) -> np.ndarray:
    """Compute the rectangle of the matrix that begins at a row and a column, on a worker."""
    part, states = np.empty((len(left), len(right))), FinalStates(compiled, options, only_active=True, with_phase=False)
    # A name that is a text is final; the caller does not change it.
    matrix = FidelityMatrix(
        states, left, right, names=(lambda row: str(row + begin[0]), lambda row: str(row + begin[1]))
    )
    matrix.fill(part, lambda done, total: cancelled.is_set())
    return part
