# SPDX-License-Identifier: Apache-2.0
"""Memory of the CUDA engine: bytes of an evaluation, and chunks of a batch that fit; known before it is allocated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from qiskit_fused.common.native import CONSTANTS
from qiskit_fused.engines.checkpointing import Schedule, make_schedule, num_steps, schedule_of
from qiskit_fused.engines.cuda.formats import REGISTER_QUBITS, amplitude_format, choose_tile_qubits, real_type
from qiskit_fused.engines.cuda.passes import Passes, make_passes
from qiskit_fused.engines.cuda.value_layout import leaf_records, place_slots
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.options.method import REVERSE, Method

UNITS_PER_SUM = 64  # of a thread of `combine`, where gradients are summed over rows
BLOCKS_AT_ONCE = 2  # of a multiprocessor

_PAIR_BYTES = 32  # of its value, cotangent, observable and row


@dataclass(frozen=True)
class ChunkBytes:
    """Bytes on the device.

    Attributes:
        fixed: whatever the chunk.
        row: for each row.
        pair: for each pair of a row and an observable.
    """

    fixed: int
    row: int
    pair: int

    @property
    def smallest(self) -> int:
        """Bytes of a chunk of one pair."""
        return self.fixed + self.row + self.pair


@dataclass(frozen=True)
class Demand:
    """Bytes of an evaluation on the device, but for the number of states that a method keeps.

    Attributes:
        state: one statevector or cotangent.
        fixed, row, pair: see `ChunkBytes`; cotangents and their sums included, states not.
        copies: several pairs of a row each uncompute a copy of its state, where states are not kept.
        starts: rows bring start states, which stay beside those that are kept; uncomputing needs them but once.
    """

    state: int
    fixed: int
    row: int
    pair: int
    copies: bool
    starts: bool = False

    def chunk_bytes(self, num_states: int | None, limit: int) -> tuple[ChunkBytes, int]:
        """Return the bytes of chunks, and a limit for them.

        Args:
            num_states: of each row that are kept; None: one, which is uncomputed.
            limit: bytes of a chunk. Where it has no room for a copy, chunks are one pair each and need none.
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
) -> Demand:
    """Predict bytes.

    Args:
        passes: the plan as passes.
        slots: the record of ``records.SLOTS``.
        shape: columns, and gradient numbers of all leaves.
        dtype: format of the amplitudes.
        gradient: whether gradients are wanted.
        per_row: with a cotangent for each row, not for each pair.
        several: whether some row has more than one pair.
        starts: whether rows bring start states.
        shared_start: one start state serves all rows.
        summed: columns whose gradients are summed over rows.
        returned: bytes of answers that stay on the device.
    """
    item = np.dtype(dtype).itemsize
    state_size = 1 << passes.num_address_bits
    num_columns, num_leaf_outputs = shape

    def bound(which: str) -> int:
        runs, terms, entries = (int(slots[f"{which}_{name}"]) for name in ("runs", "terms", "entries"))
        return runs * (16 + 2 * real_type(dtype).itemsize) + 8 * terms + item * entries

    fixed = bound("shared") + 4 * num_columns + shared_start * state_size * item + returned
    row = 8 * num_columns + bound("varying")
    pair = 8 * max(state_size // CONSTANTS.observed_amplitudes, 1) + _PAIR_BYTES
    if gradient:
        most_slots = max((sweep.num_slots for sweep in passes.passes), default=0)
        unit = state_size * item + passes.num_tiles * most_slots * real_type(dtype).itemsize
        unit += 8 * (passes.num_totals + num_leaf_outputs + num_columns - summed + -(-summed // UNITS_PER_SUM))
        fixed += 16 * summed  # their sums, and what the last of them counts for less than its share
        row, pair = (row + unit, pair) if per_row else (row, pair + unit)
    copies = gradient and several and not per_row
    return Demand(state_size * item, fixed, row, pair, copies=copies, starts=starts)


def choose_schedule(
    method: Method, demand: Demand, passes: Passes, rows: np.ndarray, limit: int, num_multiprocessors: int
) -> Schedule | None:
    """Choose which states are kept; None uncomputes them.

    Args:
        method: the method; "checkpoint" without a number of states takes what fits the limit.
        demand: bytes of the evaluation.
        passes: the plan as passes.
        rows: int (N,), ascending, the row of each pair.
        limit: bytes of a chunk.
        num_multiprocessors: of the device.
    """
    num_positions = len(passes.passes)
    if num_positions <= 1:  # nobody needs a state before the last one
        return make_schedule(1, 1) if num_positions else None
    if not takes_what_fits(method):
        return schedule_of(method, num_positions)
    rows_at_once = -(-2 * BLOCKS_AT_ONCE * num_multiprocessors // passes.num_tiles)
    return make_schedule(num_positions, _most_states(demand, num_positions, rows, limit, rows_at_once))


def takes_what_fits(method: Method) -> bool:
    """Say whether a method leaves the number of states to the memory there is."""
    return method.name == "checkpoint" and method.num_states is None and method.num_segments is None


def _most_states(demand: Demand, num_positions: int, rows: np.ndarray, limit: int, rows_at_once: int) -> int:
    """Return the states of a row with which all pairs take the least time; 1 where none fits.

    More states leave fewer steps to recompute, and room for fewer rows: a sweep over less than ``rows_at_once``, two
    waves of blocks, is not faster for that. A step back is taken as two steps forward.
    """
    num_pairs = max(len(rows), 1)
    pairs_per_row = -(-num_pairs // max(len(np.unique(rows)), 1))
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
        size: bytes; one pair must fit the limit.
        limit: bytes of a chunk.
        resident: bytes of a chunk without the fixed ones; one pair may be more.
        whole_rows: never cut between pairs of one row; such a row may then exceed the limit.

    Yields:
        Chunks, ascending and without gaps, and the bytes of each.
    """
    is_first = np.append(True, rows[1:] != rows[:-1])
    begin_of_row = np.append(np.flatnonzero(is_first), len(rows))
    ends = np.cumsum(size.pair + size.row * is_first)
    room = min(limit - size.fixed, max(resident, size.row + size.pair))
    start = 0
    while start < len(rows):
        # the first pair of a chunk brings its row, also where an earlier chunk has begun that row
        used = int(ends[start]) - size.pair - size.row
        end = max(int(np.searchsorted(ends, used + room, side="right")), start + 1)
        if whole_rows:
            row = np.searchsorted(begin_of_row, end, side="right") - 1
            end = int(begin_of_row[row] if begin_of_row[row] > start else begin_of_row[row + 1])
        yield slice(start, end), size.fixed + int(ends[end - 1]) - used
        start = end


@dataclass(frozen=True)
class Prediction:
    """What an evaluation on a GPU will take.

    Attributes:
        bytes: of the largest chunk.
        num_states: kept for each row.
        num_positions: passes of a forward sweep.
        num_steps: passes forward in all, those of the forward sweep included.
        num_chunks: chunks of the batch; 0: not even one pair fits.
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
    per_row: bool = False,
    summed: int = 0,
    limit: int = 1 << 62,
    num_multiprocessors: int = 132,
) -> Prediction:
    """Predict an evaluation of rows with values of their own, each with all observables, on a GPU.

    Args:
        plan: the plan.
        batch_size: rows.
        method: how the backward sweep gets its states.
        dtype: number format of the amplitudes.
        gradient: whether gradients are wanted, one of each observable.
        num_observables: observables; with 0 of them, rows are simulated for their final states.
        per_row: with gradient, rows have one cotangent each: of the sum of their observables, or of their final states.
        summed: with ``per_row``, columns whose gradients are summed over rows.
        limit: bytes of device memory that may be used.
        num_multiprocessors: of the device.

    Cost: that of `make_passes`. Chunks that are cut to stay in the L2 cache of a device are not foreseen.
    """
    is_real = plan.stays_real(final_states=not num_observables)
    dtype = amplitude_format(dtype, is_real)
    passes = make_passes(plan, choose_tile_qubits(plan.num_qubits, dtype), REGISTER_QUBITS[dtype], is_real)
    num_columns = plan.program.num_columns
    slots = place_slots(plan, passes, np.full(num_columns, batch_size > 1)).record[0]
    shape = num_columns, leaf_records(plan)[1]
    several = num_observables > 1
    demand = find_demand(
        passes, slots, shape, dtype, gradient=gradient, per_row=per_row, several=several, starts=plan.takes_states,
        summed=summed,
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
