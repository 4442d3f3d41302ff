# SPDX-License-Identifier: Apache-2.0
"""Memory of the CUDA engine: predicts the bytes of an evaluation before it allocates, and cuts a batch to fit.

A *chunk* is a part of the pairs of a batch, which the device evaluates at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from qiskit_fused.common.native import CONSTANTS
from qiskit_fused.engines.checkpointing import Schedule, make_schedule, num_steps, schedule_of
from qiskit_fused.engines.cuda.formats import REGISTER_QUBITS, amplitude_format, choose_tile_qubits, real_type
from qiskit_fused.engines.cuda.outcome_lists import count_parts, most_bytes
from qiskit_fused.engines.cuda.passes import Passes, make_passes
from qiskit_fused.engines.cuda.value_layout import leaf_records, place_slots
from qiskit_fused.fusion.dense_gates import rotations_and_terms
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.options.method import REVERSE, Method

UNITS_PER_SUM = 64  # number of cotangents over which one thread of `combine` sums a gradient
BLOCKS_AT_ONCE = 2  # number of blocks of a sweep that a multiprocessor runs at the same time

_PAIR_BYTES = 32  # bytes of the value, the cotangent, the observable and the row of a pair of an observable with terms
_OUTCOME_PAIR_BYTES = 20  # bytes of the value, the row, the outcome and the unit of a pair
_ROW_BYTES = 8  # bytes of the first pair and of the unit of a row


@dataclass(frozen=True)
class ChunkBytes:
    """Bytes of a chunk on the device.

    Attributes:
        fixed: bytes of a chunk of any size.
        row: bytes for each row.
        pair: bytes for each pair of a row and an observable.
    """

    fixed: int
    row: int
    pair: int

    @property
    def smallest(self) -> int:
        """Bytes of a chunk of one pair."""
        return self.fixed + self.row + self.pair


class OutcomeCounts(NamedTuple):
    """The sizes of the lists of outcomes that fix the bytes of a chunk.

    Attributes:
        num_outcomes: K.
        num_parts: number of parts of all long lists (see `outcome_lists`).
    """

    num_outcomes: int
    num_parts: int


@dataclass(frozen=True)
class Demand:
    """Bytes of an evaluation on the device, from which `chunk_bytes` follows for any number of kept states.

    Attributes:
        state: bytes of one statevector or cotangent.
        fixed, row, pair: see `ChunkBytes`. They include cotangents and their sums, but no states.
        copies: whether a row has several pairs, each of which uncomputes its own copy of the row's state if states are
            not kept.
        starts: whether rows bring start states. A start state stays beside the kept states; without kept states it is
            overwritten.
    """

    state: int
    fixed: int
    row: int
    pair: int
    copies: bool
    starts: bool = False

    def chunk_bytes(self, num_states: int | None, limit: int) -> tuple[ChunkBytes, int]:
        """Return the bytes of chunks, and the limit in bytes for a chunk.

        Args:
            num_states: number of states kept for each row; None uncomputes a single state.
            limit: largest number of bytes of a chunk. If it has no room for the copy of a state, every chunk is one
                pair, which needs no copy, and the returned limit is the bytes of one pair.
        """
        held = 1 if num_states is None else num_states + self.starts
        size = ChunkBytes(self.fixed, self.row + self.state * held, self.pair)
        if num_states is not None or not self.copies:
            return size, limit
        copied = replace(size, pair=size.pair + self.state)
        return (copied, limit) if copied.smallest <= limit else (size, min(size.smallest, limit))


def find_demand(
    passes: Passes,
    slots: np.void,
    shape: tuple[int, int],
    dtype: str,
    *,
    gradient: bool,
    per_row: bool,
    several: bool,
    starts: bool,
    shared_start: bool = False,
    summed: int = 0,
    returned: int = 0,
    outcomes: OutcomeCounts | None = None,
) -> Demand:
    """Predict the bytes of an evaluation.

    Args:
        passes: the passes of the plan.
        slots: the record of ``records.SLOTS``.
        shape: number of columns, and number of gradients of all leaves.
        dtype: format of the amplitudes.
        gradient: whether gradients are computed.
        per_row: whether there is one cotangent for each row, not one for each pair.
        several: whether some row has more than one pair.
        starts: whether rows bring start states.
        shared_start: whether all rows start in one given state.
        summed: number of columns whose gradients are summed over rows.
        returned: bytes of results that stay on the device.
        outcomes: the sizes of the lists, for projectors onto outcomes; None for observables with terms.
    """
    item = np.dtype(dtype).itemsize
    state_size = 1 << passes.num_address_bits
    num_columns, num_leaf_outputs = shape

    def bound(which: str) -> int:
        runs, terms, entries, columns = (
            int(slots[f"{which}_{name}"]) for name in ("runs", "terms", "entries", "columns")
        )
        return runs * (16 + 4 * real_type(dtype).itemsize) + 8 * (terms + columns) + item * entries

    fixed = bound("shared") + shared_start * state_size * item + returned
    fixed += 4  # the number of pairs, behind the first pairs of all rows
    row = bound("varying") + _ROW_BYTES
    if outcomes is None:
        pair = 8 * max(state_size // CONSTANTS.observed_amplitudes, 1) + _PAIR_BYTES
    else:
        row += 8 * outcomes.num_parts
        pair = _OUTCOME_PAIR_BYTES
        if gradient and per_row:  # the cotangents, and the weights of all outcomes
            row, pair = row + real_type(dtype).itemsize * outcomes.num_outcomes, pair + 8
    if gradient:
        most_partials = max((sweep.num_partials for sweep in passes.passes), default=0)
        unit = state_size * item + passes.num_tiles * most_partials * real_type(dtype).itemsize
        unit += 8 * (passes.num_totals + num_leaf_outputs + num_columns - summed + -(-summed // UNITS_PER_SUM))
        # 8 bytes for each summed gradient, and 8 for the last partial sum, which covers fewer than UNITS_PER_SUM units.
        fixed += 16 * summed
        row, pair = (row + unit, pair) if per_row else (row, pair + unit)
    copies = gradient and several and not per_row
    return Demand(state_size * item, fixed, row, pair, copies=copies, starts=starts)


def choose_schedule(
    method: Method, demand: Demand, passes: Passes, rows: np.ndarray, limit: int, num_multiprocessors: int
) -> Schedule | None:
    """Choose the states that are kept; None uncomputes them.

    Args:
        method: the method; "checkpoint" without a number of states keeps as many as fit the limit.
        demand: bytes of the evaluation.
        passes: the passes of the plan.
        rows: int (N,), ascending, the row of each pair.
        limit: largest number of bytes of a chunk.
        num_multiprocessors: number of multiprocessors of the device.
    """
    num_positions = len(passes.passes)
    if num_positions <= 1:  # the backward sweep needs only the final state
        return make_schedule(1, 1) if num_positions else None
    if not takes_what_fits(method):
        return schedule_of(method, num_positions)
    rows_at_once = -(-2 * BLOCKS_AT_ONCE * num_multiprocessors // passes.num_tiles)
    return make_schedule(num_positions, _most_states(demand, num_positions, rows, limit, rows_at_once))


def takes_what_fits(method: Method) -> bool:
    """Return whether a method keeps as many states as the memory allows."""
    return method.name == "checkpoint" and method.num_states is None and method.num_segments is None


def _most_states(demand: Demand, num_positions: int, rows: np.ndarray, limit: int, rows_at_once: int) -> int:
    """Return the number of states per row with which all pairs take the least time; 1 if no number fits.

    With more states, fewer steps are recomputed, but a chunk has fewer rows. A sweep over fewer rows than
    ``rows_at_once``, which is two waves of blocks, takes as long as a sweep over ``rows_at_once``. A step back is
    counted as two steps forward.
    """
    num_pairs = max(len(rows), 1)
    pairs_per_row = -(-num_pairs // (1 + int(np.count_nonzero(rows[1:] != rows[:-1]))))
    best, least = 1, float("inf")
    at_once = min(num_pairs, rows_at_once * pairs_per_row)
    while at_once:
        num_rows = -(-at_once // pairs_per_row)
        left = limit - demand.fixed - num_rows * demand.row - at_once * demand.pair
        num_states = min(left // (num_rows * demand.state) - demand.starts, num_positions)
        if num_states >= 1:
            steps = num_steps(num_positions, num_states) + 2 * num_positions * max(at_once / rows_at_once, 1)
            time = -(-num_pairs // at_once) * steps
            if time < least:
                best, least = num_states, time
        at_once //= 2
    return best


def cut_into_chunks(
    rows: np.ndarray, size: ChunkBytes, limit: int, resident: int, *, whole_rows: bool
) -> Iterator[tuple[slice, int]]:
    """Cut pairs into chunks of bounded size.

    Args:
        rows: int (N,), ascending, the row of each pair.
        size: bytes of a chunk; one pair must fit the limit.
        limit: largest number of bytes of a chunk.
        resident: largest number of bytes of a chunk without the fixed bytes; one pair may exceed it.
        whole_rows: whether all pairs of a row stay in one chunk; a single row may then exceed the limit.

    Yields:
        Slice of the pairs, and bytes, of each chunk. The slices are ascending and without gaps.
    """
    if not len(rows):
        return
    is_next = rows[1:] != rows[:-1]
    room = min(limit - size.fixed, max(resident, size.row + size.pair))
    whole = size.pair * len(rows) + size.row * (1 + int(np.count_nonzero(is_next)))
    if whole <= room:
        yield slice(0, len(rows)), size.fixed + whole
        return
    is_first = np.append(True, is_next)
    begin_of_row = np.append(np.flatnonzero(is_first), len(rows))
    ends = np.cumsum(size.pair + size.row * is_first)
    start = 0
    while start < len(rows):
        # The first pair of a chunk adds the bytes of its row, even if an earlier chunk has the first pairs of this row.
        used = int(ends[start]) - size.pair - size.row
        end = max(int(np.searchsorted(ends, used + room, side="right")), start + 1)
        if whole_rows:
            row = np.searchsorted(begin_of_row, end, side="right") - 1
            end = int(begin_of_row[row] if begin_of_row[row] > start else begin_of_row[row + 1])
        yield slice(start, end), size.fixed + int(ends[end - 1]) - used
        start = end


@dataclass(frozen=True)
class Prediction:
    """The predicted memory and work of an evaluation on a GPU.

    Attributes:
        bytes: bytes of the largest chunk.
        num_states: number of states kept for each row.
        num_positions: number of passes of a forward sweep.
        num_steps: number of all forward passes, the forward sweep included.
        num_chunks: number of chunks of the batch; 0 if not even one pair fits.
    """

    bytes: int
    num_states: int
    num_positions: int
    num_steps: int
    num_chunks: int


def predict(
    plan: FusedProgram,
    batch_size: int = 1,
    method: Method = REVERSE,
    dtype: str = "complex128",
    *,
    gradient: bool = True,
    num_observables: int = 1,
    num_outcomes: int = 0,
    per_row: bool = False,
    summed: int = 0,
    limit: int = 1 << 62,
    num_multiprocessors: int = 132,
) -> Prediction:
    """Predict the memory and work of an evaluation on a GPU: rows with different values, each with all observables.

    The evaluation may cut chunks further to stay in the L2 cache of the device, which the prediction leaves out.

    Args:
        plan: the fused program.
        batch_size: number of rows.
        method: the method by which the backward sweep gets its states.
        dtype: number format of the amplitudes.
        gradient: whether gradients are computed, for each observable.
        num_observables: number of observables of each row; 0 simulates rows for their final states.
        num_outcomes: number of outcomes K if the observables are the projectors onto K outcomes, else 0. The prediction
            takes the outcomes to have equally many amplitudes.
        per_row: with ``gradient``, whether each row has a single cotangent: of the sum of its observables, or of its
            final state.
        summed: with ``per_row``, number of columns whose gradients are summed over rows.
        limit: largest number of bytes of device memory.
        num_multiprocessors: number of multiprocessors of the device.

    Cost: the cost of `make_passes`.
    """
    plan = rotations_and_terms(plan)
    is_real = plan.stays_real(final_states=not num_observables)
    dtype = amplitude_format(dtype, is_real)
    passes = make_passes(plan, choose_tile_qubits(plan.num_qubits, dtype), REGISTER_QUBITS[dtype], is_real)
    num_columns = plan.program.num_columns
    slots = place_slots(plan, passes, np.full(num_columns, batch_size > 1)).record[0]
    shape = num_columns, leaf_records(plan)[1]
    several = num_observables > 1
    outcomes = None
    if num_outcomes:
        outcomes = OutcomeCounts(num_outcomes, count_parts(plan.num_qubits, num_outcomes))
        limit -= most_bytes(passes.num_address_bits, num_outcomes)
    demand = find_demand(
        passes, slots, shape, dtype, gradient=gradient, per_row=per_row, several=several, starts=plan.takes_states,
        summed=summed, outcomes=outcomes,
    )  # fmt: skip
    rows = np.repeat(np.arange(batch_size), max(num_observables, 1))
    schedule = choose_schedule(method, demand, passes, rows, limit, num_multiprocessors) if gradient else None
    size, limit = demand.chunk_bytes(schedule.num_states if schedule else None, limit)
    fits = size.smallest <= limit
    chunks = [taken for _, taken in cut_into_chunks(rows, size, limit, limit, whole_rows=per_row)] if fits else []
    num_positions = len(passes.passes)
    return Prediction(
        bytes=max(chunks, default=size.smallest),
        num_states=schedule.num_states if schedule else 1,
        num_positions=num_positions,
        num_steps=schedule.num_steps if schedule else num_positions,
        num_chunks=len(chunks),
    )
