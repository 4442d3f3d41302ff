# SPDX-License-Identifier: Apache-2.0
"""How many states a matrix of fidelities keeps in memory, how it is cut for workers, and how much of it is done."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qiskit_fused.common.byte_sizes import format_bytes
from qiskit_fused.common.free_memory import ALWAYS_FREE, resolve_limit
from qiskit_fused.engines.interface import Watch
from qiskit_fused.execution.executor import count_portions, has_workers
from qiskit_fused.execution.row_cuts import check_cancelled, cut_into, rows_that_fit, share
from qiskit_fused.execution.statevectors import FinalStates

_KEPT_SHARE = 2  # kept states take at most 1/2 of the memory limit
_OTHER_SHARE = 8  # states that are simulated at a time take at most 1/8 of it, and overlaps that are kept another 1/8
# On a CUDA device, the overlaps of a tile take at most 1/16 of the limit and 128 MiB. Their squares take as much again.
_TILE_SHARE, _DEVICE_TILE_BYTES = 16, 128 << 20
_ENGINE_ITEM = 16  # bytes of an amplitude that an engine returns

# Workers simulate states again, and this process does not. They get a matrix whose states fit the memory of this
# process only if there are at least _LEAST_PORTIONS portions, and if this takes at most 1/_EXTRA_SHARE more work.
_LEAST_PORTIONS, _EXTRA_SHARE = 8, 4
_WORK_OF_PRODUCT = 2 / 3  # a complex multiply-add takes 0.2 ns on one core; the unit of portions is 0.3 ns


def num_gates(rows: FinalStates) -> int:
    """Return the number of gates of a circuit, at least 1."""
    return max(len(rows.compiled.program.gates), 1)


class Sizes(NamedTuple):
    """How many states are in memory at a time.

    Attributes:
        kept: number of states that are kept while all others are compared with them.
        block: number of states that are simulated at a time.
        together: whether all states are kept.
        overlaps: whether all overlaps are kept too, for gradients.
        tile_bytes: most bytes of the overlaps of a tile of a CUDA device; 0 on the host.
    """

    kept: int
    block: int
    together: bool
    overlaps: bool
    tile_bytes: int = 0


def choose_sizes(rows: FinalStates, num_left: int, num_right: int, is_symmetric: bool, gradient: bool) -> Sizes:
    """Return how many states of a matrix are in memory at a time.

    Args:
        rows: the final states as a function of parameter values, without idle qubits.
        num_left: N, number of left rows.
        num_right: M, number of right rows.
        is_symmetric: whether the right rows are the left rows.
        gradient: whether gradients are computed after the values.
    """
    size, itemsize = 1 << rows.num_qubits, np.dtype(rows.options.dtype).itemsize
    state_bytes = size * itemsize
    count = num_left + (0 if is_symmetric else num_right)
    overlap_bytes = num_left * num_right * itemsize if gradient else 0
    needed = count * state_bytes * _KEPT_SHARE + overlap_bytes * _OTHER_SHARE
    simulated = _OTHER_SHARE * count * (size * _ENGINE_ITEM + state_bytes)
    limit = rows.limit_for(needed + simulated)
    if limit is None:  # all of it fits
        limit = needed + simulated
    block = rows_that_fit(limit // _OTHER_SHARE, size * _ENGINE_ITEM + state_bytes)
    together = count * state_bytes * _KEPT_SHARE <= limit
    kept = max(count, 1) if together else rows_that_fit(limit // _KEPT_SHARE, state_bytes * (2 if gradient else 1))
    keeps_overlaps = gradient and together and overlap_bytes * _OTHER_SHARE <= limit
    tile_bytes = 0 if rows.runtime is None else max(min(limit // _TILE_SHARE, _DEVICE_TILE_BYTES), 1)
    return Sizes(kept, block, together, keeps_overlaps, tile_bytes)


def cut_for_workers(rows: FinalStates, sizes: Sizes, num_cut: int, num_others: int) -> list[slice]:
    """Return the portions of a matrix for the workers of the executor; an empty list: it is computed in this process.

    A portion is some of the ``num_cut`` rows or columns. Its worker also simulates the states of all ``num_others``
    columns or rows.
    """
    if not has_workers(rows.options) or not num_cut:
        return []
    size = 1 << rows.num_qubits
    work = int(num_cut * num_others * size * _WORK_OF_PRODUCT)
    count = min(count_portions(rows.options, work), num_cut)
    count = min(count, work // max(_EXTRA_SHARE * num_others * num_gates(rows) * size, 1))
    if sizes.together and count < _LEAST_PORTIONS:
        return []
    return cut_into(max(count, -(-num_cut // sizes.kept)), num_cut)


def check_room(num_rows: int, num_columns: int) -> None:
    """Raise a MemoryError if a matrix of float64 does not fit the free memory."""
    num_bytes = 8 * num_rows * num_columns
    if num_bytes > ALWAYS_FREE and num_bytes > (limit := resolve_limit(None)):
        raise MemoryError(
            f"a matrix of {num_rows:,} x {num_columns:,} fidelities takes {format_bytes(num_bytes)}, and "
            f"{format_bytes(limit)} are free; use fewer samples, or evaluate parts of the matrix."
        )


class Meter:
    """Tells a watch how much of some work is done. A unit of work is a gate on a state, or an overlap of two states.

    Args:
        watch: the watch of the whole work, or None.
        whole: the whole work.
    """

    def __init__(self, watch: Watch | None, whole: int):
        self._watch, self._whole, self._done = watch, max(whole, 1), 0

    def begin(self, work: int) -> Watch | None:
        """Return a watch for the next part of the work, which counts as done from now on."""
        begin, self._done = self._done, min(self._done + work, self._whole)
        return share(self._watch, begin, self._done, self._whole)

    def add(self, work: int) -> None:
        """Count work that is done.

        Raises:
            RuntimeError: when the watch ends the work.
        """
        self._done = min(self._done + work, self._whole)
        check_cancelled(self._watch, self._done, self._whole)
