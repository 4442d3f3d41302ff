# SPDX-License-Identifier: Apache-2.0
"""One chunk of rows and pairs on a CUDA device: the launches of kernels, from angles to gradients.

A chunk binds angles and tables, sweeps forward, computes values and adjoint states from the final states, sweeps back,
and turns the sums of the backward sweep into gradients. The backward sweep has one adjoint state for each *unit*. Units
are the rows of the chunk if each row has one gradient, and otherwise its pairs. Position k of the chain of states (see
`checkpointing`) is the state after k passes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qiskit_fused.common.array_modules import array_module
from qiskit_fused.common.native import CONSTANTS
from qiskit_fused.engines.checkpointing import BACK, FORWARD
from qiskit_fused.engines.cuda.backward_arrays import BackwardArrays
from qiskit_fused.engines.cuda.device_data import upload_together
from qiskit_fused.engines.cuda.formats import real_type
from qiskit_fused.engines.cuda.launch import sweep_shape
from qiskit_fused.engines.cuda.memory import UNITS_PER_SUM
from qiskit_fused.engines.cuda.observation import ChunkPairs, observe
from qiskit_fused.engines.cuda.row_factors import factors_of_rows, returned_states
from qiskit_fused.engines.cuda.setting import Bound, Setting
from qiskit_fused.engines.cuda.work_items import CachedFinalStates, ChunkNumbers, ChunkResult, place_pairs, take_rows
from qiskit_fused.engines.split_columns import SplitColumns

_BLOCK = 128  # number of threads of a block, for kernels in which a thread computes one number


class Chunk:
    """Rows and pairs that are evaluated together.

    Args:
        setting: the data that all chunks share.
        items: the slice of `Setting.items` that belongs to the chunk.

    Attributes:
        has_all_pairs: whether all pairs of the request, and no other items, are the items of the chunk.
        rows, begin_of_row, row_of_pair: see `PairPlaces`.
        pairs: the slice of the pairs that belongs to the chunk.
        pairs_on_device: the pairs and units, on the device; `evaluate` sets this attribute.
        cached: final states from which the chunk starts if their columns are the same, or None. They need a schedule of
            one state. The caller sets this attribute, and `evaluate` becomes the owner.
        final_states_out: (rows, 2^N), the array in which a request without gradients leaves the final states, or None.
            The caller sets this attribute.
    """

    def __init__(self, setting: Setting, items: slice):
        self.setting = setting
        self.xp, self.request, self.passes = setting.runtime.xp, setting.request, setting.plan.passes
        row_of_item, pairs_before = setting.items
        self.pairs = slice(int(pairs_before[items.start]), int(pairs_before[items.stop]))
        row_of_pair = self.request.pairs.row
        is_whole = items.stop - items.start == len(row_of_item)
        self.has_all_pairs = is_whole and row_of_item is row_of_pair
        if not is_whole:
            row_of_item, row_of_pair = row_of_item[items], row_of_pair[self.pairs]
        self.rows, self.begin_of_row, self.row_of_pair = place_pairs(row_of_item, row_of_pair)
        self.state_size = 1 << self.passes.num_address_bits
        self.pairs_on_device: Any = None
        self.initial: Any = None  # initial states of the rows on the device, or None
        self.cached: CachedFinalStates | None = None
        self.final_states_out: Any = None

    def evaluate(self) -> ChunkResult:
        """Launch all kernels of the chunk.

        Three arrays of statevectors may exist at the same time, and nearly all device memory is theirs. The order of
        the steps frees each array as early as possible:

        1. Cached final states with other columns are freed before any array of statevectors is allocated.
        2. ``self.initial`` has the initial states of rows. The backward sweep of a schedule may step forward from them
           again, so they are freed after the backward sweep, before the arrays of gradients are allocated.
        3. ``states`` (kept states, rows, 2^N) is the array of the forward sweep. It may be the array of the cached
           final states, of the initial states, or of the caller. It is freed at the return, unless it is returned.
        4. ``lam`` (units, 2^N) has the adjoint states. The forward sweep needs none, so they are allocated after it.
        """
        split_columns = self._of_rows(self.setting.columns)
        cached_states = self._take_cached_states(split_columns)
        columns = self._upload(split_columns)
        bound = self._bind(columns)
        self.initial = self._initial_states()
        # The actions before the first step back are the forward sweep. The first step back starts from the final state.
        actions = self.setting.actions()
        turn = next((k for k, action in enumerate(actions) if action[0] == BACK), len(actions))
        states = self._sweep_forward(actions[:turn], cached_states, bound)
        psi = states[actions[turn][2] if turn < len(actions) else 0]
        factors = self._factors(bound)
        boundary, final_states = self.request.boundary, None
        if boundary.from_end:
            assert factors is not None
            psi *= self.xp.asarray(factors.conj().astype(psi.dtype))  # psi is the final state of the caller
        else:
            final_states = returned_states(self.setting.runtime, boundary, psi, factors)
        numbers = self._numbers()
        lam = self._observe(psi, factors, numbers.values)
        if lam is None or not len(lam):
            self.initial = None
            return ChunkResult(self.rows, self.pairs, numbers, final_states=final_states, device_final_states=psi)
        back = BackwardArrays(self, states, lam)
        self._sweep_back(actions[turn:], back, states, bound)
        self.initial = None
        self._gradients(back, columns, bound, numbers)
        if boundary.from_end:
            final_states = returned_states(self.setting.runtime, boundary, psi, np.ones((1, 1)))
        state_gradients = None
        if self.request.wants_state_gradients:
            lam *= 2
            state_gradients = lam[:, : 1 << self.setting.num_qubits]
        return ChunkResult(self.rows, self.pairs, numbers, state_gradients, final_states)

    def _upload(self, columns: SplitColumns) -> Any:
        """Copy the pairs and the columns of the chunk to the device; return the columns (see `SplitColumns.joined`)."""
        request, runtime = self.request, self.setting.runtime
        pairs, per_row = request.pairs, request.gradients_are_per_row
        is_kept = self.has_all_pairs and not (pairs.row.flags.writeable or pairs.observable.flags.writeable)
        kept = self.setting.plan.kept_places(pairs, per_row, self._places) if is_kept else None
        places = [] if kept else self._places()
        numbers = [columns.joined(), *([] if request.cotangents is None else [request.cotangents[self.pairs]])]
        numbers = [array_module(array).asarray(array, dtype=np.float64) for array in numbers]
        sent = [*([] if columns.is_on_device else numbers), *places]
        uploaded = upload_together(runtime, sent) if sent else []
        row, begin, observable, row_of_unit = kept or uploaded[len(sent) - 4 :]
        if not columns.is_on_device:
            numbers = uploaded[: len(numbers)]
        cotangents = numbers[1] if len(numbers) > 1 else None
        self.pairs_on_device = ChunkPairs(len(self.rows), len(row), row, begin, observable, row_of_unit, cotangents)
        return numbers[0]

    def _places(self) -> list[np.ndarray]:
        """Return the rows of pairs, the first pairs of rows, the observables of pairs, and the rows of units."""
        row = self.row_of_pair
        row_of_unit = np.arange(len(self.rows), dtype=np.int32) if self.request.gradients_are_per_row else row
        observable = np.asarray(self.request.pairs.observable[self.pairs], dtype=np.int32)
        return [row, self.begin_of_row, observable, row_of_unit]

    def _numbers(self) -> ChunkNumbers:
        """Return memory for the numbers that the chunk returns."""
        num_units, num_separate, num_sums, final_cotangents = 0, 0, 0, self.request.boundary.final_cotangents
        if self.request.gradient is not None and (len(self.row_of_pair) or final_cotangents is not None):
            num_units = len(self.pairs_on_device.row_of_unit)
            num_separate, num_sums = self.setting.chosen_columns.num_separate, self.setting.chosen_columns.num_summed
        num_values = len(self.row_of_pair) if final_cotangents is None else 0
        size = num_values + num_units * num_separate + num_sums
        return ChunkNumbers.parts_of(self.xp.empty(size, dtype=np.float64), num_values, (num_units, num_separate))

    def _sweep_forward(self, actions: list[list[int]], cached_states: Any, bound: Bound) -> Any:
        """Return the states (kept states, rows, 2^N) after the forward sweep, or the cached states without a sweep."""
        if cached_states is not None:
            self.setting.pace.skip(len(actions) * len(self.rows))
            return cached_states.reshape(1, *cached_states.shape)
        if self.request.boundary.from_end:
            self.setting.pace.skip(len(actions) * len(self.rows))
            return self.initial[None]
        states = self._array_of_states()
        if not self.passes.passes:
            self._start(states[0])
        else:
            self._step_forward(actions, states, bound)
        return states

    def _sweep_back(self, actions: list[list[int]], back: BackwardArrays, states: Any, bound: Bound) -> None:
        """Pull the adjoint states back to the start of the circuit; a schedule steps forward again in between."""
        for action in actions:
            if action[0] == FORWARD:
                self._step_forward([action], states, bound)
            else:
                self._step_back(back, action[1], states[action[2]], bound)

    def _take_cached_states(self, columns: SplitColumns) -> Any:
        """Return the cached final states (rows, 2^N) if their columns are the same, else drop them and return None."""
        cached, self.cached = self.cached, None
        if cached is None or not columns.equal(cached.columns):
            return None
        return cached.states

    def _array_of_states(self) -> Any:
        """Return the array (kept states, rows, 2^N) that the forward sweep fills."""
        schedule = self.setting.schedule
        if self.initial is not None and schedule is None:
            return self.initial[None]  # without a schedule, the sweep reads the initial states only once
        if self.final_states_out is not None:
            return self.final_states_out.reshape(1, *self.final_states_out.shape)
        num_states = schedule.num_states if schedule else 1
        return self.xp.empty((num_states, len(self.rows), self.state_size), dtype=self.request.dtype)

    def _step_forward(self, actions: list[list[int]], states: Any, bound: Bound) -> None:
        for _, position, source, target in actions:
            self._forward(position, states[source], states[target], bound)

    def _of_rows(self, array: Any) -> Any:
        return take_rows(array, self.rows)

    def _bind(self, columns: Any) -> Bound:
        """Compute the angles, rotations and tables of the chunk from its columns (see `SplitColumns.joined`)."""
        xp, slots, dtype, num_rows = self.xp, self.setting.slots, self.request.dtype, len(self.rows)
        counts = slots.host
        num_runs, num_terms = counts.count("runs", num_rows), counts.count("terms", num_rows)
        run_angles = xp.empty((max(num_runs, 1), 2), dtype=np.float64)
        rotations = xp.empty((max(num_runs, 1), 4), dtype=real_type(dtype))
        term_angles = xp.empty(max(num_terms, 1), dtype=np.float64)
        tables = xp.empty(max(counts.count("entries", num_rows), 1), dtype=dtype)
        shape = (columns, np.int32(num_rows))
        if num_runs:
            args: tuple[Any, ...] = (*shape, slots.leaves, slots.runs, slots.run_order, slots.record)
            self.setting.launch("bind.cu", "bind_runs", -(-num_runs // _BLOCK), _BLOCK, (*args, run_angles, rotations))
        if num_terms:
            args = (*shape, slots.terms, slots.term_order, slots.record, term_angles)
            self.setting.launch("bind.cu", "bind_terms", -(-num_terms // _BLOCK), _BLOCK, args)
        shared, varying = counts.num_shared_pieces, counts.num_varying_pieces
        if shared + varying:
            args = (slots.pieces, slots.piece_order, np.int32(shared), np.int32(varying), slots.items, slots.extras)
            args += (run_angles, term_angles, slots.record, tables)
            self.setting.launch("bind.cu", "bind_tables", shared + num_rows * varying, _BLOCK, args)
        return Bound(run_angles, rotations, tables)

    def _factors(self, bound: Bound) -> np.ndarray | None:
        """Return the factors, complex128 (rows, 1), of states at the end (see `row_factors`); None without them."""
        boundary, setting = self.request.boundary, self.setting
        if not boundary.final and boundary.final_cotangents is None:
            return None
        columns, run_angles = self._of_rows(setting.columns).dense(), setting.runtime.to_host(bound.run_angles)
        return factors_of_rows(setting.plan.phase_of_terms, setting.slots.host, columns, run_angles)[:, None]

    def _initial_states(self) -> Any:
        """Return a copy of the initial states of the rows, (rows, 2^N) on the device; None if the request has none."""
        initial = self.request.boundary.initial
        if initial is None:
            return None
        return self._upload_states(initial[:1] if len(initial) == 1 else self._of_rows(initial))

    def _upload_states(self, source: Any, scale: np.ndarray | None = None) -> Any:
        """Return a copy of states, (rows, 2^N) on the device, padded with zeros and multiplied by numbers.

        Args:
            source: states (rows, 2^n), or one state (1, 2^n) for all rows, on the host or on the device.
            scale: complex128 (rows, 1), the number of each row; None multiplies by 1.
        """
        xp, dtype, (count, size), is_on_host = self.xp, self.request.dtype, source.shape, isinstance(source, np.ndarray)
        if is_on_host:
            unused = self.state_size - size
            source = np.pad(source, ((0, 0), (0, unused))) if unused else source
            source = np.asarray(source if scale is None else scale * source, dtype=dtype)
            source = self.setting.runtime.to_device(source)
            if count == len(self.rows):
                return source
            size = self.state_size
        states = xp.zeros((len(self.rows), self.state_size), dtype=dtype)
        states[:, :size] = source
        if not is_on_host and scale is not None:
            states *= xp.asarray(scale.astype(dtype))
        return states

    def _start(self, states: Any) -> Any:
        """Return the states before the first pass: the initial states of rows, or ``states``, which are then filled."""
        if self.initial is not None:
            return self.initial
        initial = self.setting.plan.initial_state
        states.fill(0)
        if initial is None:
            states[:, 0] = 1
        else:
            states[:, : len(initial)] = initial
        return states

    def _forward(self, position: int, source: Any, target: Any, bound: Bound) -> None:
        """Launch the pass that ends at a position.

        Args:
            position: the position.
            source: (rows, 2^N), the states of the position before it; unused for position 1.
            target: (rows, 2^N), receives the states of the position; it may be the same array as ``source``.
            bound: the bound numbers.
        """
        passes, slots, plan, k = self.passes, self.setting.slots, self.setting.plan, position - 1
        num_rows = len(self.rows)
        if position == 1:
            source = self._start(target)
        self.setting.pace.launch(num_rows, self.state_size)
        stages = passes.passes[k].stages
        args: tuple[Any, ...] = (source, target, np.int32(passes.num_address_bits), np.int32(num_rows))
        args += (*map(np.int32, passes.windows[k]), slots.stages[k], np.int32(stages.stop - stages.start))
        args += (slots.pieces, slots.extras, slots.record, bound.rotations, bound.tables)
        grid, threads, shared = sweep_shape(self.setting.runtime, passes, self.request.dtype, num_rows, adjoint=False)
        self.setting.launch("sweeps.cu", "forward_sweep", grid, threads, args, shared, plan.compiled.text(k))

    def _observe(self, psi: Any, factors: np.ndarray | None, values: Any) -> Any:
        """Compute the values of the pairs; return the adjoint states (units, 2^N), or None without gradients.

        Args:
            psi: (rows, 2^N), the final states.
            factors: complex128 (rows, 1), see `factors_of_rows`; None without states at the end.
            values: float64 (pairs,), receives the values.
        """
        request = self.request
        if request.boundary.final_cotangents is not None:
            # An adjoint state lam = O psi stands for the derivative 2 Re <lam|d psi>. A cotangent G of the final state
            # stands for Re <G|d psi>, so its adjoint state is G / 2.
            assert factors is not None
            return self._upload_states(self._of_rows(request.boundary.final_cotangents), 0.5 * factors.conj())
        if not len(self.row_of_pair):  # the rows of this chunk have no pairs; the request asks for their final states
            return None
        return observe(self.setting, self.pairs_on_device, psi, values)

    def _step_back(self, back: BackwardArrays, position: int, psi: Any, bound: Bound) -> None:
        """Pull all adjoint states back through the pass that ends at a position, and sum its derivatives.

        Args:
            back: the arrays of the backward sweep.
            position: the position.
            psi: (rows, 2^N), the states of the position.
            bound: the bound numbers.
        """
        passes, slots, plan, k = self.passes, self.setting.slots, self.setting.plan, position - 1
        num_units, sweep, last = len(back.lam), passes.passes[k], position == 1
        # The kernel stores the uncomputed states only if the next step back reads them: a schedule reads kept states
        # instead, and after position 1 there is no next step. With from_end, the caller reads the last states.
        target = None if last and not self.request.boundary.from_end else back.psi
        of_rows = back.psi is None or position == len(passes.passes)
        source = psi if of_rows else back.psi
        self.setting.pace.launch(2 * num_units, self.state_size)
        counts = (np.int32(num_units), np.int32(passes.num_tiles))
        store_lam = not last or self.request.wants_state_gradients
        args: tuple[Any, ...] = (source, target, np.int32(of_rows), back.lam, np.int32(store_lam))
        args += (np.int32(passes.num_address_bits), back.row_of_unit, np.int32(num_units))
        args += (*map(np.int32, passes.windows[k]), slots.stages[k])
        args += (np.int32(sweep.stages.stop - sweep.stages.start), slots.pieces, slots.extras, plan.masks, plan.directs)
        args += (slots.record, bound.rotations, bound.tables, back.sums, np.int32(sweep.num_partials))
        grid, threads, shared = sweep_shape(self.setting.runtime, passes, self.request.dtype, num_units, adjoint=True)
        self.setting.launch("sweeps.cu", "backward_sweep", grid, threads, args, shared, plan.compiled.text(k))
        num_outputs = sweep.outputs.stop - sweep.outputs.start
        if num_outputs:
            tasks = num_units * -(-num_outputs // CONSTANTS.output_lanes)
            block = 32 if passes.num_tiles <= 4 else _BLOCK if passes.num_tiles < 1024 else 1024
            args = (back.sums, *counts, np.int32(sweep.num_partials), plan.outputs[k], np.int32(num_outputs))
            args += (back.totals, np.int32(back.totals.shape[1]))
            self.setting.launch("gradients.cu", "sum_tiles", min(tasks, 1 << 16), block, args)

    def _gradients(self, back: BackwardArrays, columns: Any, bound: Bound, numbers: ChunkNumbers) -> None:
        """Compute the gradients of units, and the sums over units."""
        xp, setting, num_units = self.xp, self.setting, len(back.lam)
        leaf_gradients = self._leaf_gradients(back, columns, bound)
        separate, summed, num_separate, num_summed = setting.chosen_columns
        if num_separate:
            self._combine(back, leaf_gradients, separate, 1, (num_separate, 1), numbers.gradients)
        if not num_summed:
            return
        num_sums = -(-num_units // UNITS_PER_SUM)
        partial = numbers.sums if num_sums == 1 else xp.empty((num_summed, num_sums), dtype=np.float64)
        self._combine(back, leaf_gradients, summed, UNITS_PER_SUM, (1, num_sums), partial)
        if num_sums > 1:
            setting.sum_chunks(partial, numbers.sums)

    def _leaf_gradients(self, back: BackwardArrays, columns: Any, bound: Bound) -> Any:
        """Return float64 (units, leaf outputs), the gradients of the angles of all leaves."""
        plan, slots, num_runs = self.setting.plan, self.setting.slots, self.setting.num_runs
        num_units, num_totals = back.totals.shape
        leaf_gradients = self.xp.empty((num_units, max(plan.num_leaf_outputs, 1)), dtype=np.float64)
        if plan.num_leaf_outputs:
            args: tuple[Any, ...] = (back.totals, np.int32(num_totals), columns, back.row_of_unit)
            args += (np.int32(num_units), slots.leaves, slots.runs, np.int32(num_runs), slots.record)
            args += (bound.run_angles, bound.rotations, leaf_gradients, np.int32(plan.num_leaf_outputs))
            self.setting.launch("gradients.cu", "run_gradients", -(-num_units * num_runs // _BLOCK), _BLOCK, args)
        return leaf_gradients

    def _combine(
        self,
        back: BackwardArrays,
        leaf_gradients: Any,
        columns: Any,
        units_per_sum: int,
        strides: tuple[int, int],
        result: Any,
    ) -> None:
        """Launch the kernel that turns leaf gradients and totals into gradients of columns.

        Args:
            back: the arrays of the backward sweep.
            leaf_gradients: float64 (units, leaf outputs).
            columns: int32, the columns.
            units_per_sum: number of consecutive units whose gradients are summed; 1 sums none.
            strides: distance in ``result`` between two sums of a column, and between two columns.
            result: float64, receives the sums.
        """
        plan, (num_units, num_totals) = self.setting.plan, back.totals.shape
        num_sums = -(-num_units // units_per_sum)
        args: tuple[Any, ...] = (*plan.combination, leaf_gradients, np.int32(plan.num_leaf_outputs))
        args += (back.totals, np.int32(num_totals), columns, np.int32(len(columns)), np.int32(num_units))
        args += (np.int32(units_per_sum), *map(np.int32, strides), result)
        self.setting.launch("gradients.cu", "combine", -(-num_sums * len(columns) // _BLOCK), _BLOCK, args)
