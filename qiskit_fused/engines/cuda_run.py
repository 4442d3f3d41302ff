# SPDX-License-Identifier: Apache-2.0
"""One evaluation on a CUDA device: the launches, chunk by chunk.

For a chunk of rows and pairs: bind angles and tables, sweep forward, observe (values and cotangents), sweep back, turn
sums into gradients. A *unit* is what a backward sweep pulls back: a pair, or a row where cotangents are given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qiskit_fused.engines import DoesNotFit, Evaluation
from qiskit_fused.engines.chunks import ChunkBytes, cut_into_chunks
from qiskit_fused.engines.launching import kernel, sweep_shape
from qiskit_fused.engines.uploads import DeviceObservables, DevicePlan, DeviceSlots

if TYPE_CHECKING:
    from qiskit_fused.plan import Plan
    from qiskit_fused.slots import Slots

_BLOCK = 128  # threads of kernels that work on one number each
_CHUNK_AMPLITUDES = 1024  # of a block of `observe`
_AMPLITUDES_AHEAD = 1 << 32  # swept before the host waits, to be stopped in time: some 0.2 s of an H200 (computed)
_MAX_ROWS_TIMES_RUNS = 1 << 31  # kernels count rotations in 32 bits


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
    stop: Callable[[], bool] | None

    @property
    def per_row(self) -> bool:
        """Whether a row has one cotangent, whatever its pairs."""
        return self.cotangents is not None


class Run:
    """One evaluation."""

    def __init__(
        self, runtime: Any, plan: Plan, device_plan: DevicePlan, observables: DeviceObservables, question: Question
    ):
        self.runtime, self.xp = runtime, runtime.xp
        self.num_qubits, self.num_runs = plan.num_qubits, plan.num_runs
        self.plan, self.passes = device_plan, device_plan.passes
        self.observables, self.question = observables, question
        columns = question.columns
        varies = (columns != columns[:1]).any(axis=0) if len(columns) else np.zeros(columns.shape[1], dtype=bool)
        self.slots: DeviceSlots = device_plan.slots(plan, varies)
        self.state_size = 1 << self.passes.num_address_bits
        self.num_chunks = 0
        self.num_sweeps = 0
        self.amplitudes_ahead = 0
        self.chunk_bytes = 0
        self.size = ChunkBytes(0, 0, 0)
        self.answer: Any = None
        self.asked = False

    def answer_again(self) -> Any:
        """Return what ``meanwhile`` returned, for a run that replaces this one."""
        return self.answer

    def evaluate(self, limit: int, meanwhile: Callable[[], Any] | None) -> Evaluation:
        """Answer within ``limit`` bytes of device memory; ``meanwhile`` is called beside the first chunk."""
        question = self.question
        values, gradients = np.zeros(len(question.rows)), None
        for pairs in self._chunks(limit):
            self.num_chunks += 1
            rows, row_of_pair = np.unique(question.rows[pairs], return_inverse=True)
            answers = self._chunk(pairs, rows, row_of_pair.astype(np.int32))
            if not self.asked:
                self.asked, self.answer = True, meanwhile() if meanwhile else None
            values[pairs] = self.runtime.to_host(answers[0])
            if question.gradient:
                found = self.runtime.to_host(answers[1])
                count = len(question.columns) if question.per_row else len(question.rows)
                if len(found) == count:
                    gradients = found
                    continue
                if gradients is None:
                    gradients = np.zeros((count, found.shape[1]))
                gradients[rows if question.per_row else pairs] = found
        if question.gradient and gradients is None:
            count = len(question.columns) if question.per_row else len(question.rows)
            gradients = np.zeros((count, question.columns.shape[1]))
        if not self.asked and meanwhile:
            self.answer = meanwhile()
        return Evaluation(values, gradients, self._stats(), self.answer)

    def _stats(self) -> dict[str, Any]:
        passes = self.passes
        return {
            "gpu": self.runtime.name,
            "kernels": f"sweeps of 2^{passes.tile_qubits} amplitudes, {1 << passes.register_qubits} a thread",
            "sweeps": self.num_sweeps,
            "chunks": self.num_chunks,
            "bytes": self.chunk_bytes,
        }

    def _chunks(self, limit: int) -> Iterator[slice]:
        """Cut the pairs into chunks that fit the memory, and the L2 cache where that still fills the device."""
        rows = self.question.rows
        self.size = self._size(several=bool((rows[1:] == rows[:-1]).any()))
        if self.size.smallest > limit:
            raise DoesNotFit(self._refusal(limit))
        if not len(rows):
            return
        unit = self.size.row + self.size.pair
        varying_runs = int(self.slots.host.record["varying_runs"][0])
        resident = min(self._resident_bytes(unit), unit * (_MAX_ROWS_TIMES_RUNS // (varying_runs + 1)))
        for pairs, size in cut_into_chunks(rows, self.size, limit, resident, whole_rows=self.question.per_row):
            self.chunk_bytes = max(self.chunk_bytes, size)
            yield pairs

    def _size(self, several: bool) -> ChunkBytes:
        """Predict bytes; ``several``: whether some row has more than one pair."""
        question, passes, record = self.question, self.passes, self.slots.host.record[0]
        item = np.dtype(question.dtype).itemsize
        state = self.state_size * item
        num_columns = question.columns.shape[1]

        def bound(which: str) -> int:
            runs, terms, entries = (int(record[f"{which}_{name}"]) for name in ("runs", "terms", "entries"))
            return runs * (16 + item) + 8 * terms + item * entries

        row = state + 8 * num_columns + bound("varying")
        pair = 8 * max(self.state_size // _CHUNK_AMPLITUDES, 1) + 32
        if question.gradient:
            most_slots = max((sweep.num_slots for sweep in passes.passes), default=0)
            unit = state + passes.num_tiles * most_slots * (item // 2)
            unit += 8 * (passes.num_totals + self.plan.num_leaf_outputs + num_columns)
            if question.per_row:
                row += unit
            else:
                pair += unit + (state if several else 0)
        return ChunkBytes(fixed=bound("shared"), row=row, pair=pair)

    def _resident_bytes(self, unit_bytes: int) -> int:
        """Return the bytes of a chunk whose states stay in half of the L2 cache.

        A wave is the blocks that run at once: whole waves, and no bound where the cache holds less than two.
        """
        passes, states = self.passes, 1 + self.question.gradient
        unit_states = states * self.state_size * np.dtype(self.question.dtype).itemsize
        wave = 2 * self.runtime.num_multiprocessors
        waves = self.runtime.l2_bytes // 2 // unit_states * passes.num_tiles // wave
        if waves < 2 or len(passes.passes) == 1:
            return 1 << 62
        return max(waves * wave // passes.num_tiles, 1) * unit_bytes

    def _refusal(self, limit: int) -> str:
        n, dtype = self.num_qubits, self.question.dtype
        what = "statevector and cotangent" if self.question.gradient else "statevector"
        cure = "fewer qubits" if dtype == "complex64" else "dtype='complex64', fewer qubits"
        return (
            f"the {what} of {n} qubits with their sums and tables take {self.size.smallest / 2**30:.3g} GiB in "
            f"{dtype}, of {self.runtime.name} {limit / 2**30:.3g} GiB may be used; use {cure}, device='cpu' or a "
            "larger memory_limit."
        )

    # One chunk.

    def _launch(
        self, file: str, name: str, grid: int, block: int, args: tuple[Any, ...], shared_memory: int = 0
    ) -> None:
        of_tile = file in ("sweeps.cu", "bind.cu")  # the tables that are bound have the shape of the tile
        tile_qubits = self.passes.tile_qubits if of_tile else None
        kernel(self.runtime, file, name, self.question.dtype, tile_qubits)(grid, block, args, shared_memory)

    def _chunk(self, pairs: slice, rows: np.ndarray, row_of_pair: np.ndarray) -> tuple[Any, Any]:
        xp, question = self.xp, self.question
        all_rows = len(rows) == len(question.columns)
        columns = xp.asarray(question.columns if all_rows else question.columns[rows])
        bound = self._bind(columns, len(rows))
        psi = self._start(len(rows))
        self._forward(psi, bound)
        partial, lam = self._observe(psi, pairs, rows, row_of_pair)
        num_pairs = len(row_of_pair)
        values = xp.empty(num_pairs, dtype=np.float64)
        num_sums = partial.size // num_pairs
        self._launch(
            "gradients.cu", "sum_chunks", min(num_pairs, 1 << 16), 32 if num_sums <= 32 else _BLOCK,
            (partial, np.int32(num_pairs), np.int32(num_sums), values),
        )  # fmt: skip
        if lam is None:
            return values, None
        if question.per_row:
            row_of_unit = xp.arange(len(rows), dtype=np.int32)
        else:
            row_of_unit = xp.asarray(row_of_pair)
            if num_pairs > len(rows):
                psi = psi[row_of_unit]  # every cotangent is pulled back beside a state of its own
        return values, self._pull_back(psi, lam, row_of_unit, columns, bound)

    def _bind(self, columns: Any, num_rows: int) -> tuple[Any, Any, Any]:
        xp, slots, dtype = self.xp, self.slots, self.question.dtype
        counts: Slots = slots.host
        num_runs, num_terms = counts.count("runs", num_rows), counts.count("terms", num_rows)
        run_angles = xp.empty((max(num_runs, 1), 2), dtype=np.float64)
        rotations = xp.empty(max(num_runs, 1), dtype=dtype)
        term_angles = xp.empty(max(num_terms, 1), dtype=np.float64)
        tables = xp.empty(max(counts.count("entries", num_rows), 1), dtype=dtype)
        shape = (columns, np.int32(columns.shape[1]), np.int32(num_rows))
        if num_runs:
            args: tuple[Any, ...] = (
                *shape,
                self.plan.leaves,
                slots.runs,
                slots.run_order,
                slots.record,
                run_angles,
                rotations,
            )
            self._launch("bind.cu", "bind_runs", -(-num_runs // _BLOCK), _BLOCK, args)
        if num_terms:
            args = (*shape, slots.terms, slots.term_order, slots.record, term_angles)
            self._launch("bind.cu", "bind_terms", -(-num_terms // _BLOCK), _BLOCK, args)
        shared, varying = counts.num_shared_pieces, counts.num_varying_pieces
        if shared + varying:
            args = (slots.pieces, slots.piece_order, np.int32(shared), np.int32(varying), slots.items, slots.extras)
            args += (run_angles, term_angles, slots.record, tables)
            self._launch("bind.cu", "bind_tables", shared + num_rows * varying, _BLOCK, args)
        return run_angles, rotations, tables

    def _start(self, num_rows: int) -> Any:
        psi = self.xp.zeros((num_rows, self.state_size), dtype=self.question.dtype)
        initial = self.plan.initial_state
        if initial is None:
            psi[:, 0] = 1
        else:
            psi[:, : len(initial)] = initial
        return psi

    def _forward(self, psi: Any, bound: tuple[Any, Any, Any]) -> None:
        _, rotations, tables = bound
        passes, slots = self.passes, self.slots
        grid, threads, shared = sweep_shape(self.passes, self.question.dtype, len(psi), adjoint=False)
        counts = (np.int32(passes.num_address_bits), np.int32(len(psi)), np.int32(passes.num_tiles))
        for k, sweep in enumerate(passes.passes):
            self._check_stop(len(psi))
            stages = (slots.stages[k], np.int32(sweep.stages.stop - sweep.stages.start))
            args: tuple[Any, ...] = (
                psi,
                *counts,
                self.plan.windows[k],
                *stages,
                slots.pieces,
                slots.extras,
                slots.record,
                rotations,
            )
            self._launch("sweeps.cu", "forward_sweep", grid, threads, (*args, tables), shared)

    def _observe(self, psi: Any, pairs: slice, rows: np.ndarray, row_of_pair: np.ndarray) -> tuple[Any, Any]:
        xp, question, terms = self.xp, self.question, self.observables
        num_sums = max(self.state_size // _CHUNK_AMPLITUDES, 1)
        partial = xp.empty((len(row_of_pair), num_sums), dtype=np.float64)
        begin = np.searchsorted(row_of_pair, np.arange(len(rows) + 1)).astype(np.int32)
        lam = cotangents = None
        if question.gradient:
            count = len(rows) if question.per_row else len(row_of_pair)
            lam = xp.empty((count, self.state_size), dtype=question.dtype)
        if question.cotangents is not None:
            cotangents = xp.asarray(question.cotangents[pairs])
        args: tuple[Any, ...] = (
            psi,
            lam,
            xp.asarray(begin),
            xp.asarray(question.chosen[pairs]),
            terms.observable_begin,
            terms.groups,
        )
        args += (terms.terms, terms.diagonals, cotangents, np.int32(self.passes.num_address_bits))
        block = min(max(self.state_size // 4, 32), 256)
        self._launch("observe.cu", "observe", len(rows) * num_sums, block,
                     (*args, np.int32(question.imaginary), partial))  # fmt: skip
        return partial, lam

    def _pull_back(self, psi: Any, lam: Any, row_of_unit: Any, columns: Any, bound: tuple[Any, Any, Any]) -> Any:
        xp, passes, plan, slots = self.xp, self.passes, self.plan, self.slots
        _, rotations, tables = bound
        num_units, num_totals = len(lam), max(passes.num_totals, 1)
        real = np.float32 if self.question.dtype == "complex64" else np.float64
        totals = xp.empty((num_units, num_totals), dtype=np.float64)
        grid, threads, shared = sweep_shape(self.passes, self.question.dtype, num_units, adjoint=True)
        counts = (np.int32(num_units), np.int32(passes.num_tiles))
        most_slots = max((sweep.num_slots for sweep in passes.passes), default=0)
        sums = xp.empty(max(num_units * passes.num_tiles * most_slots, 1), dtype=real)
        for k in range(len(passes.passes) - 1, -1, -1):
            self._check_stop(num_units)
            sweep = passes.passes[k]
            stages = (slots.stages[k], np.int32(sweep.stages.stop - sweep.stages.start))
            args: tuple[Any, ...] = (
                psi,
                lam,
                np.int32(passes.num_address_bits),
                row_of_unit,
                *counts,
                plan.windows[k],
                *stages,
            )
            args += (slots.pieces, slots.extras, plan.masks, plan.directs, slots.record, rotations, tables, sums)
            last = np.int32(k > 0)  # nobody reads the states after the last sweep
            self._launch("sweeps.cu", "adjoint_sweep", grid, threads, (*args, np.int32(sweep.num_slots), last), shared)
            num_outputs = sweep.outputs.stop - sweep.outputs.start
            if num_outputs:
                tasks = num_units * -(-num_outputs // 8)
                block = 32 if passes.num_tiles <= 4 else _BLOCK if passes.num_tiles < 1024 else 1024
                args = (sums, *counts, np.int32(sweep.num_slots), plan.outputs[k], np.int32(num_outputs))
                self._launch("gradients.cu", "sum_tiles", min(tasks, 1 << 16), block,
                             (*args, totals, np.int32(num_totals)))  # fmt: skip
        return self._gradients(totals, columns, row_of_unit, bound)

    def _gradients(self, totals: Any, columns: Any, row_of_unit: Any, bound: tuple[Any, Any, Any]) -> Any:
        xp, plan, slots = self.xp, self.plan, self.slots
        num_units, num_totals = totals.shape
        num_runs, num_columns = self.num_runs, columns.shape[1]
        outputs = np.int32(plan.num_leaf_outputs)
        leaf_gradients = xp.empty((num_units, max(plan.num_leaf_outputs, 1)), dtype=np.float64)
        if plan.num_leaf_outputs:
            args: tuple[Any, ...] = (
                totals,
                np.int32(num_totals),
                columns,
                np.int32(num_columns),
                row_of_unit,
                np.int32(num_units),
            )
            args += (plan.leaves, slots.runs, np.int32(num_runs), slots.record, *bound[:2], leaf_gradients, outputs)
            self._launch("gradients.cu", "run_gradients", -(-num_units * num_runs // _BLOCK), _BLOCK, args)
        gradients = xp.empty((num_units, num_columns), dtype=np.float64)
        if num_columns:
            args = (*plan.combination, leaf_gradients, outputs, totals, np.int32(num_totals), np.int32(num_columns))
            grid = -(-num_units * num_columns // _BLOCK)
            self._launch("gradients.cu", "combine", grid, _BLOCK, (*args, np.int32(num_units), gradients))
        return gradients

    def _check_stop(self, num_units: int) -> None:
        """Count a sweep over the states of units, wait for the device now and then, and look whether to stop."""
        self.num_sweeps += 1
        self.amplitudes_ahead += num_units * self.state_size
        if self.amplitudes_ahead >= _AMPLITUDES_AHEAD:
            self.runtime.synchronize()
            self.amplitudes_ahead = 0
        if self.question.stop is not None and self.question.stop():
            raise RuntimeError("the evaluation was cancelled.")
