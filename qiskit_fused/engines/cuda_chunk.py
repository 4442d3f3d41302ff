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

from qiskit_fused.chunks import CHUNK_AMPLITUDES
from qiskit_fused.engines.launching import kernel, sweep_shape
from qiskit_fused.engines.pacing import Pace
from qiskit_fused.engines.uploads import DeviceObservables, DevicePlan, DeviceSlots
from qiskit_fused.schedules import BACK, FORWARD, Method, Schedule

if TYPE_CHECKING:
    from qiskit_fused.slots import Slots

_BLOCK = 128  # threads of kernels that work on one number each


@dataclass(frozen=True)
class Question:
    """What is asked: the arguments of `Engine.evaluate`, as arrays of one type."""

    columns: np.ndarray
    rows: np.ndarray
    chosen: np.ndarray
    gradient: bool
    imaginary: bool
    cotangents: np.ndarray | None
    dtype: str
    method: Method
    initial_states: np.ndarray | None
    state_gradients: bool

    @property
    def per_row(self) -> bool:
        """Whether a row has one cotangent, whatever its pairs."""
        return self.cotangents is not None


@dataclass(frozen=True)
class Setting:
    """What all chunks of an evaluation share.

    Attributes:
        runtime: the device.
        plan, slots, observables: on the device.
        num_runs: of the plan.
        question: what is asked.
        schedule: which states are kept, or None where they are uncomputed.
        pace: counts the sweeps.
    """

    runtime: Any
    plan: DevicePlan
    slots: DeviceSlots
    observables: DeviceObservables
    num_runs: int
    question: Question
    schedule: Schedule | None
    pace: Pace

    def actions(self) -> list[list[int]]:
        """Return what to do, as in `Schedule`; a state that is uncomputed is the only one."""
        if self.schedule is not None:
            return self.schedule.actions.tolist()
        positions = range(1, len(self.plan.passes.passes) + 1)
        forward = [[FORWARD, position, 0 if position > 1 else -1, 0] for position in positions]
        return forward + [[BACK, position, 0, -1] for position in reversed(positions) if self.question.gradient]


class Chunk:
    """Rows and pairs that are evaluated together.

    Args:
        setting: what all chunks share.
        pairs: which pairs.

    Attributes:
        rows: which rows, ascending.
        row_of_pair: int32, index into ``rows``.
    """

    def __init__(self, setting: Setting, pairs: slice):
        self.setting, self.pairs = setting, pairs
        self.xp, self.question, self.passes = setting.runtime.xp, setting.question, setting.plan.passes
        self.rows, row_of_pair = np.unique(self.question.rows[pairs], return_inverse=True)
        self.row_of_pair = row_of_pair.astype(np.int32)
        self.state_size = 1 << self.passes.num_address_bits
        self.starts: Any = None  # states that rows brought, on the device

    def evaluate(self) -> tuple[Any, Any, Any]:
        """Launch everything; return what is asked for, on the device.

        Returns:
            Values float64 (pairs,), gradients float64 (units, C) or None, and the cotangents of the start, complex
            (units, 2^N), or None: half the gradients with respect to it.
        """
        xp, question, schedule = self.xp, self.question, self.setting.schedule
        all_rows = len(self.rows) == len(question.columns)
        columns = xp.asarray(question.columns if all_rows else question.columns[self.rows])
        bound = self._bind(columns)
        num_states = schedule.num_states if schedule else 1
        self.starts = self._brought()
        if self.starts is not None and schedule is None:
            states = self.starts[None]  # there are no others, and these are needed once
        else:
            states = xp.empty((num_states, len(self.rows), self.state_size), dtype=question.dtype)
        if not self.passes.passes:
            self._start(states[0])
        # The forward sweep is what comes before the first step back, which is from the last position.
        actions = self.setting.actions()
        turn = next((k for k, action in enumerate(actions) if action[0] == BACK), len(actions))
        for _, position, source, target in actions[:turn]:
            self._forward(position, states[source], states[target], bound)
        values, lam = self._observe(states[actions[turn][2] if turn < len(actions) else 0])
        if lam is None:
            self.starts = None
            return values, None, None
        back = _Backward(self, states, lam)
        for kind, position, source, target in actions[turn:]:
            if kind == FORWARD:
                self._forward(position, states[source], states[target], bound)
            else:
                self._back(back, position, states[source], bound)
        self.starts = None
        return values, self._gradients(back, columns, bound), lam if question.state_gradients else None

    def _launch(
        self, file: str, name: str, grid: int, block: int, args: tuple[Any, ...], shared_memory: int = 0
    ) -> None:
        of_tile = file in ("sweeps.cu", "bind.cu")  # the tables that are bound have the shape of the tile
        tile_qubits = self.passes.tile_qubits if of_tile else None
        launch = kernel(self.setting.runtime, file, name, self.question.dtype, tile_qubits)
        launch(grid, block, args, shared_memory)

    def _bind(self, columns: Any) -> tuple[Any, Any, Any]:
        """Return the angles of the runs, the rotations and the tables of pieces."""
        xp, slots, dtype, num_rows = self.xp, self.setting.slots, self.question.dtype, len(self.rows)
        counts: Slots = slots.host
        num_runs, num_terms = counts.count("runs", num_rows), counts.count("terms", num_rows)
        run_angles = xp.empty((max(num_runs, 1), 2), dtype=np.float64)
        rotations = xp.empty(max(num_runs, 1), dtype=dtype)
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

    def _brought(self) -> Any:
        """Return the start states (rows, 2^N) that rows bring, on the device, or None."""
        states = self.question.initial_states
        if states is None:
            return None
        if len(self.rows) != len(states):
            states = states[self.rows]
        unused = self.state_size - states.shape[1]
        states = np.pad(states, ((0, 0), (0, unused))) if unused else states
        return self.xp.array(states, dtype=self.question.dtype)  # a copy, also where the host is the device

    def _start(self, states: Any) -> Any:
        """Return the states before the first pass, made in the array given unless rows brought them."""
        if self.starts is not None:
            return self.starts
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
        grid, threads, shared = sweep_shape(passes, self.question.dtype, num_rows, adjoint=False)
        self._launch("sweeps.cu", "forward_sweep", grid, threads, args, shared)

    def _observe(self, psi: Any) -> tuple[Any, Any]:
        """Return values and, with gradients, the cotangents (units, 2^N) of the last states (rows, 2^N)."""
        xp, question, terms = self.xp, self.question, self.setting.observables
        num_rows, num_pairs = len(self.rows), len(self.row_of_pair)
        num_sums = max(self.state_size // CHUNK_AMPLITUDES, 1)
        partial = xp.empty((num_pairs, num_sums), dtype=np.float64)
        begin = np.searchsorted(self.row_of_pair, np.arange(num_rows + 1)).astype(np.int32)
        lam = cotangents = None
        if question.gradient:
            lam = xp.empty((num_rows if question.per_row else num_pairs, self.state_size), dtype=question.dtype)
        if question.cotangents is not None:
            cotangents = xp.asarray(question.cotangents[self.pairs])
        args: tuple[Any, ...] = (psi, lam, xp.asarray(begin), xp.asarray(question.chosen[self.pairs]))
        args += (terms.observable_begin, terms.groups, terms.terms, terms.diagonals, cotangents)
        args += (np.int32(self.passes.num_address_bits), np.int32(question.imaginary), partial)
        block = min(max(self.state_size // 4, 32), 256)
        self._launch("observe.cu", "observe", num_rows * num_sums, block, args)
        values = xp.empty(num_pairs, dtype=np.float64)
        args = (partial, np.int32(num_pairs), np.int32(num_sums), values)
        self._launch("gradients.cu", "sum_chunks", min(num_pairs, 1 << 16), 32 if num_sums <= 32 else _BLOCK, args)
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
        store_lam = not last or self.question.state_gradients
        args: tuple[Any, ...] = (source, target, np.int32(of_rows), back.lam, np.int32(store_lam))
        args += (np.int32(passes.num_address_bits), back.row_of_unit, *counts, plan.windows[k], slots.stages[k])
        args += (np.int32(sweep.stages.stop - sweep.stages.start), slots.pieces, slots.extras, plan.masks, plan.directs)
        args += (slots.record, *bound[1:], back.sums, np.int32(sweep.num_slots))
        grid, threads, shared = sweep_shape(passes, self.question.dtype, num_units, adjoint=True)
        self._launch("sweeps.cu", "adjoint_sweep", grid, threads, args, shared)
        num_outputs = sweep.outputs.stop - sweep.outputs.start
        if num_outputs:
            tasks = num_units * -(-num_outputs // 8)
            block = 32 if passes.num_tiles <= 4 else _BLOCK if passes.num_tiles < 1024 else 1024
            args = (back.sums, *counts, np.int32(sweep.num_slots), plan.outputs[k], np.int32(num_outputs))
            args += (back.totals, np.int32(back.totals.shape[1]))
            self._launch("gradients.cu", "sum_tiles", min(tasks, 1 << 16), block, args)

    def _gradients(self, back: _Backward, columns: Any, bound: tuple[Any, Any, Any]) -> Any:
        xp, plan, slots = self.xp, self.setting.plan, self.setting.slots
        num_units, num_totals = back.totals.shape
        num_runs, num_columns = self.setting.num_runs, columns.shape[1]
        outputs = np.int32(plan.num_leaf_outputs)
        leaf_gradients = xp.empty((num_units, max(plan.num_leaf_outputs, 1)), dtype=np.float64)
        if plan.num_leaf_outputs:
            args: tuple[Any, ...] = (back.totals, np.int32(num_totals), columns, np.int32(num_columns))
            args += (back.row_of_unit, np.int32(num_units), plan.leaves, slots.runs, np.int32(num_runs), slots.record)
            args += (*bound[:2], leaf_gradients, outputs)
            self._launch("gradients.cu", "run_gradients", -(-num_units * num_runs // _BLOCK), _BLOCK, args)
        gradients = xp.empty((num_units, num_columns), dtype=np.float64)
        if num_columns:
            args = (*plan.combination, leaf_gradients, outputs, back.totals, np.int32(num_totals))
            args += (np.int32(num_columns), np.int32(num_units), gradients)
            self._launch("gradients.cu", "combine", -(-num_units * num_columns // _BLOCK), _BLOCK, args)
        return gradients


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
        if chunk.question.per_row:
            self.row_of_unit = xp.arange(num_units, dtype=np.int32)
        else:
            self.row_of_unit = xp.asarray(chunk.row_of_pair)
        self.totals = xp.empty((num_units, max(passes.num_totals, 1)), dtype=np.float64)
        most_slots = max((sweep.num_slots for sweep in passes.passes), default=0)
        real = np.float32 if chunk.question.dtype == "complex64" else np.float64
        self.sums = xp.empty(max(num_units * passes.num_tiles * most_slots, 1), dtype=real)
