# SPDX-License-Identifier: Apache-2.0
"""One chunk of rows and pairs on a CUDA device: the launches from angles to gradients.

Bind angles and tables, sweep forward, observe (values and cotangents), sweep back, turn sums into gradients. A *unit*
is what a backward sweep pulls back: a pair, or a row where cotangents are given. Position k of the chain of states (see
`schedules`) is behind pass k - 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qiskit_fused.common.native import CONSTANTS
from qiskit_fused.engines.checkpointing import BACK, FORWARD, Schedule
from qiskit_fused.engines.cuda.device_data import DeviceObservables, DevicePlan, DeviceSlots
from qiskit_fused.engines.cuda.formats import real_type
from qiskit_fused.engines.cuda.launch import kernel, sweep_shape
from qiskit_fused.engines.cuda.memory import UNITS_PER_SUM
from qiskit_fused.engines.cuda.throttle import Pace
from qiskit_fused.engines.cuda.work_items import CachedFinalStates, ChunkResult, WorkItems, take_rows
from qiskit_fused.engines.request import Request

if TYPE_CHECKING:
    from qiskit_fused.engines.cuda.value_layout import Slots

_BLOCK = 128  # threads of kernels that work on one number each


@dataclass(frozen=True)
class Setting:
    """What all chunks of an evaluation share.

    Attributes:
        runtime: the device.
        plan, slots, observables: on the device.
        num_qubits, num_runs: of the plan.
        request: rows and pairs of all chunks.
        items: what is cut into chunks.
        schedule: which states are kept, or None where they are uncomputed.
        pace: counts the sweeps.
        kept, summed: int32, columns whose gradients are kept and those that are summed over rows, on the device.
    """

    runtime: Any
    plan: DevicePlan
    slots: DeviceSlots
    observables: DeviceObservables
    num_qubits: int
    num_runs: int
    request: Request
    items: WorkItems
    schedule: Schedule | None
    pace: Pace
    kept: Any
    summed: Any

    def actions(self) -> list[list[int]]:
        """Return what to do, as in `Schedule`; a state that is uncomputed is the only one."""
        if self.schedule is not None:
            return self.schedule.actions.tolist()
        positions = range(1, len(self.plan.passes.passes) + 1)
        forward = [[FORWARD, position, 0 if position > 1 else -1, 0] for position in positions]
        return forward + [
            [BACK, position, 0, -1] for position in reversed(positions) if self.request.gradient is not None
        ]


class Chunk:
    """Rows and pairs that are evaluated together.

    Args:
        setting: what all chunks share.
        items: which of `Setting.items`.

    Attributes:
        rows: which rows, ascending.
        pairs: which pairs.
        row_of_pair: int32, index into ``rows``.
        cached: last states of these rows, if their columns are the same; may be given where a schedule has one state.
        room: for the states (rows, 2^N), where only values are asked for and these are to be kept; may be given.
    """

    def __init__(self, setting: Setting, items: slice):
        self.setting = setting
        self.xp, self.request, self.passes = setting.runtime.xp, setting.request, setting.plan.passes
        row_of_item, pairs_before = setting.items
        self.rows = np.unique(row_of_item[items])
        self.pairs = slice(int(pairs_before[items.start]), int(pairs_before[items.stop]))
        self.row_of_pair = np.searchsorted(self.rows, self.request.pairs.row[self.pairs]).astype(np.int32)
        self.state_size = 1 << self.passes.num_address_bits
        self.initial: Any = None  # states that rows brought, on the device
        self.cached: CachedFinalStates | None = None
        self.room: Any = None

    def evaluate(self) -> ChunkResult:
        """Launch everything.

        The states of the forward sweep are in one array (states that are kept, rows, 2^N), the cotangents in another
        one, and the states that rows brought in a third one, which is dropped after the backward sweep, before the
        arrays of gradients are made.
        """
        setting, request = self.setting, self.request
        columns = self.xp.asarray(self._of_rows(request.columns))
        cached_states = self._take_cached_states(columns)
        bound = self._bind(columns)
        self.initial = self._initial_states()
        states = self._room_for_states() if cached_states is None else cached_states.reshape(1, *cached_states.shape)
        # The forward sweep is all actions before the first step back, which is from the last position.
        actions = setting.actions()
        turn = next((k for k, action in enumerate(actions) if action[0] == BACK), len(actions))
        if cached_states is not None:
            setting.pace.skip(turn * len(self.rows))
        elif not self.passes.passes:
            self._start(states[0])
        else:
            self._step_forward(actions[:turn], states, bound)
        del cached_states  # the array of states is the only reference to them
        psi = states[actions[turn][2] if turn < len(actions) else 0]
        final_states = setting.runtime.to_host(psi) if request.boundary.final else None
        values, lam = self._observe(psi)
        if lam is None or not len(lam):
            self.initial = None
            return ChunkResult(self.rows, self.pairs, values, final_states=final_states, last_states=psi)
        back = _Backward(self, states, lam)
        for action in actions[turn:]:
            if action[0] == FORWARD:
                self._step_forward([action], states, bound)
            else:
                self._back(back, action[1], states[action[2]], bound)
        self.initial = None
        gradients, sums = self._gradients(back, columns, bound)
        of_states = None
        if request.wants_state_gradients:
            lam *= 2
            of_states = lam[:, : 1 << setting.num_qubits]
        return ChunkResult(self.rows, self.pairs, values, gradients, sums, of_states, final_states)

    def _take_cached_states(self, columns: Any) -> Any:
        """Return the last states (rows, 2^N) of an earlier call if its columns are the same, else drop them."""
        cached, self.cached = self.cached, None
        if cached is None or not bool((columns == cached.columns).all()):
            return None
        return cached.states

    def _room_for_states(self) -> Any:
        """Return the array (states that are kept, rows, 2^N) of a forward sweep."""
        schedule = self.setting.schedule
        if self.initial is not None and schedule is None:
            return self.initial[None]  # there are no others, and these are needed once
        if self.room is not None:
            return self.room.reshape(1, *self.room.shape)
        num_states = schedule.num_states if schedule else 1
        return self.xp.empty((num_states, len(self.rows), self.state_size), dtype=self.request.dtype)

    def _step_forward(self, actions: list[list[int]], states: Any, bound: tuple[Any, Any, Any]) -> None:
        for _, position, source, target in actions:
            self._forward(position, states[source], states[target], bound)

    def _of_rows(self, array: Any) -> Any:
        return take_rows(array, self.rows)

    def _launch(
        self, file: str, name: str, grid: int, block: int, args: tuple[Any, ...], shared_memory: int = 0
    ) -> None:
        of_tile = file in ("sweeps.cu", "bind.cu")  # the tables that are bound have the shape of the tile
        tile_qubits = self.passes.tile_qubits if of_tile else None
        launch = kernel(self.setting.runtime, file, name, self.request.dtype, tile_qubits)
        launch(grid, block, args, shared_memory)

    def _bind(self, columns: Any) -> tuple[Any, Any, Any]:
        """Return the angles of the runs, the rotations and the tables of pieces."""
        xp, slots, dtype, num_rows = self.xp, self.setting.slots, self.request.dtype, len(self.rows)
        counts: Slots = slots.host
        num_runs, num_terms = counts.count("runs", num_rows), counts.count("terms", num_rows)
        run_angles = xp.empty((max(num_runs, 1), 2), dtype=np.float64)
        rotations = xp.empty((max(num_runs, 1), 2), dtype=real_type(dtype))
        term_angles = xp.empty(max(num_terms, 1), dtype=np.float64)
        tables = xp.empty(max(counts.count("entries", num_rows), 1), dtype=dtype)
        shape = (columns, np.int32(columns.shape[1]), np.int32(num_rows))
        if num_runs:
            args: tuple[Any, ...] = (*shape, self.setting.plan.leaves, slots.runs, slots.run_order, slots.record)
            self._launch("bind.cu", "bind_runs", -(-num_runs // _BLOCK), _BLOCK, (*args, run_angles, rotations))
        if num_terms:
            args = (*shape, slots.terms, slots.term_order, slots.record, term_angles)
            self._launch("bind.cu", "bind_terms", -(-num_terms // _BLOCK), _BLOCK, args)
        shared, varying = counts.num_shared_pieces, counts.num_varying_pieces
        if shared + varying:
            args = (slots.pieces, slots.piece_order, np.int32(shared), np.int32(varying), slots.items, slots.extras)
            args += (run_angles, term_angles, slots.record, tables)
            self._launch("bind.cu", "bind_tables", shared + num_rows * varying, _BLOCK, args)
        return run_angles, rotations, tables

    def _initial_states(self) -> Any:
        """Return the start states (rows, 2^N) that rows bring, on the device, or None."""
        given = self.request.boundary.initial
        if given is None:
            return None
        return self._states_of(given[:1] if len(given) == 1 else self._of_rows(given))

    def _states_of(self, given: Any, scale: float = 1.0) -> Any:
        """Return states (rows, 2^N) on the device of given ones (rows or 1, 2^n), multiplied by a number; a copy."""
        xp, dtype, (count, size) = self.xp, self.request.dtype, given.shape
        if not self.request.is_on_device:
            unused = self.state_size - size
            given = np.pad(given, ((0, 0), (0, unused))) if unused else given
            given = xp.array(given if scale == 1 else scale * given, dtype=dtype)  # a copy, also on an emulated device
            if count == len(self.rows):
                return given
            size = self.state_size
        states = xp.zeros((len(self.rows), self.state_size), dtype=dtype)
        states[:, :size] = given
        if self.request.is_on_device and scale != 1:
            states *= scale
        return states

    def _start(self, states: Any) -> Any:
        """Return the states before the first pass, made in the array given unless rows brought them."""
        if self.initial is not None:
            return self.initial
        initial = self.setting.plan.initial_state
        states.fill(0)
        if initial is None:
            states[:, 0] = 1
        else:
            states[:, : len(initial)] = initial
        return states

    def _forward(self, position: int, source: Any, target: Any, bound: tuple[Any, Any, Any]) -> None:
        """Make a position, (rows, 2^N), from the one before it, which may lie in the same place."""
        passes, slots, plan, k = self.passes, self.setting.slots, self.setting.plan, position - 1
        num_rows = len(self.rows)
        if position == 1:
            source = self._start(target)
        self.setting.pace.launch(num_rows, self.state_size)
        stages = passes.passes[k].stages
        args: tuple[Any, ...] = (source, target, np.int32(passes.num_address_bits), np.int32(num_rows))
        args += (np.int32(passes.num_tiles), plan.windows[k], slots.stages[k], np.int32(stages.stop - stages.start))
        args += (slots.pieces, slots.extras, slots.record, *bound[1:])
        grid, threads, shared = sweep_shape(passes, self.request.dtype, num_rows, adjoint=False)
        self._launch("sweeps.cu", "forward_sweep", grid, threads, args, shared)

    def _observe(self, psi: Any) -> tuple[Any, Any]:
        """Return values and, with gradients, the cotangents (units, 2^N) of the last states (rows, 2^N)."""
        xp, request, terms = self.xp, self.request, self.setting.observables
        num_rows, num_pairs = len(self.rows), len(self.row_of_pair)
        if request.boundary.final_cotangents is not None:
            # lam = O psi makes 2 Re <lam|d psi>; a cotangent G of the state, Re <G|d psi>
            return xp.empty(0, dtype=np.float64), self._states_of(self._of_rows(request.boundary.final_cotangents), 0.5)
        if not num_pairs:  # rows that are simulated for their final states
            return xp.empty(0, dtype=np.float64), None
        num_sums = max(self.state_size // CONSTANTS.observed_amplitudes, 1)
        partial = xp.empty((num_pairs, num_sums), dtype=np.float64)
        begin = np.searchsorted(self.row_of_pair, np.arange(num_rows + 1)).astype(np.int32)
        lam = cotangents = None
        if request.gradient is not None:
            lam = xp.empty(
                (num_rows if request.gradients_are_per_row else num_pairs, self.state_size), dtype=request.dtype
            )
        if request.cotangents is not None:
            cotangents = xp.asarray(request.cotangents[self.pairs], dtype=np.float64)
        args: tuple[Any, ...] = (
            psi,
            lam,
            xp.asarray(begin),
            xp.asarray(request.pairs.observable[self.pairs], dtype=np.int32),
        )
        args += (terms.observable_begin, terms.groups, terms.terms, terms.diagonals, cotangents)
        args += (np.int32(self.passes.num_address_bits), np.int32(request.imaginary), partial)
        block = min(max(self.state_size // 4, 32), 256)
        self._launch("observe.cu", "observe", num_rows * num_sums, block, args)
        values = xp.empty(num_pairs, dtype=np.float64)
        self._sum_chunks(partial, values)
        return values, lam

    def _back(self, back: _Backward, position: int, psi: Any, bound: tuple[Any, Any, Any]) -> None:
        """Pull all cotangents back through the pass before a position, whose states (rows, 2^N) are ``psi``."""
        passes, slots, plan, k = self.passes, self.setting.slots, self.setting.plan, position - 1
        num_units, sweep, last = len(back.lam), passes.passes[k], position == 1
        # Nobody reads the states after the last sweep, nor those before a position that is kept.
        target = None if last else back.psi
        of_rows = back.psi is None or position == len(passes.passes)
        source = psi if of_rows else back.psi
        self.setting.pace.launch(2 * num_units, self.state_size)
        counts = (np.int32(num_units), np.int32(passes.num_tiles))
        store_lam = not last or self.request.wants_state_gradients
        args: tuple[Any, ...] = (source, target, np.int32(of_rows), back.lam, np.int32(store_lam))
        args += (np.int32(passes.num_address_bits), back.row_of_unit, *counts, plan.windows[k], slots.stages[k])
        args += (np.int32(sweep.stages.stop - sweep.stages.start), slots.pieces, slots.extras, plan.masks, plan.directs)
        args += (slots.record, *bound[1:], back.sums, np.int32(sweep.num_slots))
        grid, threads, shared = sweep_shape(passes, self.request.dtype, num_units, adjoint=True)
        self._launch("sweeps.cu", "adjoint_sweep", grid, threads, args, shared)
        num_outputs = sweep.outputs.stop - sweep.outputs.start
        if num_outputs:
            tasks = num_units * -(-num_outputs // CONSTANTS.output_lanes)
            block = 32 if passes.num_tiles <= 4 else _BLOCK if passes.num_tiles < 1024 else 1024
            args = (back.sums, *counts, np.int32(sweep.num_slots), plan.outputs[k], np.int32(num_outputs))
            args += (back.totals, np.int32(back.totals.shape[1]))
            self._launch("gradients.cu", "sum_tiles", min(tasks, 1 << 16), block, args)

    def _gradients(self, back: _Backward, columns: Any, bound: tuple[Any, Any, Any]) -> tuple[Any, Any]:
        """Return gradients (units, kept columns), and sums over units (summed columns,)."""
        xp, setting, plan, slots = self.xp, self.setting, self.setting.plan, self.setting.slots
        num_units, num_totals = back.totals.shape
        num_runs, num_columns = setting.num_runs, columns.shape[1]
        outputs = np.int32(plan.num_leaf_outputs)
        leaf_gradients = xp.empty((num_units, max(plan.num_leaf_outputs, 1)), dtype=np.float64)
        if plan.num_leaf_outputs:
            args: tuple[Any, ...] = (back.totals, np.int32(num_totals), columns, np.int32(num_columns))
            args += (back.row_of_unit, np.int32(num_units), plan.leaves, slots.runs, np.int32(num_runs), slots.record)
            args += (*bound[:2], leaf_gradients, outputs)
            self._launch("gradients.cu", "run_gradients", -(-num_units * num_runs // _BLOCK), _BLOCK, args)

        def combine(chosen: Any, units_per_sum: int, strides: tuple[int, int], found: Any) -> None:
            num_sums = -(-num_units // units_per_sum)
            args = (*plan.combination, leaf_gradients, outputs, back.totals, np.int32(num_totals))
            args += (chosen, np.int32(len(chosen)), np.int32(num_units), np.int32(units_per_sum))
            args += (*map(np.int32, strides), found)
            self._launch("gradients.cu", "combine", -(-num_sums * len(chosen) // _BLOCK), _BLOCK, args)

        num_kept, num_summed = len(setting.kept), len(setting.summed)
        gradients = xp.empty((num_units, num_kept), dtype=np.float64)
        if num_kept:
            combine(setting.kept, 1, (num_kept, 1), gradients)
        if not num_summed:
            return gradients, None
        num_sums = -(-num_units // UNITS_PER_SUM)
        partial = xp.empty((num_summed, num_sums), dtype=np.float64)
        combine(setting.summed, UNITS_PER_SUM, (1, num_sums), partial)
        if num_sums == 1:
            return gradients, partial[:, 0]
        sums = xp.empty(num_summed, dtype=np.float64)
        self._sum_chunks(partial, sums)
        return gradients, sums

    def _sum_chunks(self, partial: Any, sums: Any) -> None:
        count, num_chunks = partial.shape
        args = (partial, np.int32(count), np.int32(num_chunks), sums)
        block = 32 if num_chunks <= 32 else _BLOCK
        self._launch("gradients.cu", "sum_chunks", min(count, 1 << 16), block, args)


class _Backward:
    """Arrays of a backward sweep.

    Attributes:
        lam: cotangents (units, 2^N).
        psi: (units, 2^N), what is uncomputed beside them, or None where the states of positions are kept.
        row_of_unit: int32.
        totals: float64 (units, totals).
        sums: those that tiles leave, of one pass at a time.
    """

    def __init__(self, chunk: Chunk, states: Any, lam: Any):
        xp, passes, num_units = chunk.xp, chunk.passes, len(lam)
        self.lam, self.psi = lam, None
        if chunk.setting.schedule is None:
            self.psi = states[0] if num_units == len(chunk.rows) else xp.empty(lam.shape, dtype=lam.dtype)
        if chunk.request.gradients_are_per_row:
            self.row_of_unit = xp.arange(num_units, dtype=np.int32)
        else:
            self.row_of_unit = xp.asarray(chunk.row_of_pair)
        self.totals = xp.empty((num_units, max(passes.num_totals, 1)), dtype=np.float64)
        most_slots = max((sweep.num_slots for sweep in passes.passes), default=0)
        num_sums = max(num_units * passes.num_tiles * most_slots, 1)
        self.sums = xp.empty(num_sums, dtype=real_type(chunk.request.dtype))
