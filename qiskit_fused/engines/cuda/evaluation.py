# SPDX-License-Identifier: Apache-2.0
"""One evaluation on a CUDA device: chunks that fit its memory, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from qiskit_fused.engines.checkpointing import Schedule
from qiskit_fused.engines.cuda.chunk import Chunk, Setting
from qiskit_fused.engines.cuda.device_data import DeviceObservables, DevicePlan, DeviceSlots
from qiskit_fused.engines.cuda.memory import (
    BLOCKS_AT_ONCE,
    ChunkBytes,
    choose_schedule,
    cut_into_chunks,
    find_demand,
    takes_what_fits,
)
from qiskit_fused.engines.cuda.request import Answer, Finals, Question
from qiskit_fused.engines.cuda.throttle import Pace
from qiskit_fused.engines.interface import DoesNotFit

if TYPE_CHECKING:
    from qiskit_fused.fusion.fused_program import FusedProgram

_MAX_ROWS_TIMES_RUNS = 1 << 31  # kernels count rotations in 32 bits
_FINALS_SHARE = 8  # last states are kept where this many times as much may be used


@dataclass(frozen=True, eq=False)
class Findings:
    """What an evaluation found: arrays of the host, or of the device where the question came from there.

    Attributes:
        values: float64 (N,).
        gradients: float64 (N or B, columns that are not summed), or None.
        sums: float64 (columns that are summed,), or None.
        of_states: complex (N or B, 2**n), derivatives with respect to the start, or None.
        final_states: complex128 (B, 2**n) on the host, or None.
        stats, answer: see `Evaluation`.
    """

    values: Any
    gradients: Any = None
    sums: Any = None
    of_states: Any = None
    final_states: np.ndarray | None = None
    stats: dict[str, Any] = field(default_factory=dict)
    answer: Any = None


class Run:
    """One evaluation.

    Args:
        runtime: the device.
        plan: the plan.
        device_plan, observables: the plan and the observables on the device.
        question: what is asked.
        pace: counts the sweeps.
        finals: last states of these rows, maybe; see `Finals.may_serve`.

    Attributes:
        finals: the last states of these rows, where a call for their gradients may begin there.
    """

    def __init__(
        self,
        runtime: Any,
        plan: FusedProgram,
        device_plan: DevicePlan,
        observables: DeviceObservables,
        question: Question,
        pace: Pace,
        finals: Finals | None = None,
    ):
        self.runtime = runtime
        self.num_qubits, self.num_runs = plan.num_qubits, plan.num_runs
        self.plan, self.passes = device_plan, device_plan.passes
        self.observables, self.question, self.pace = observables, question, pace
        self.slots: DeviceSlots = device_plan.slots(plan, self._varies())
        self.schedule: Schedule | None = None
        self.num_chunks = 0
        self.chunk_bytes = 0
        self.smallest = 0
        self.answer: Any = None
        self.asked = False
        self.finals = finals

    def answer_again(self) -> Any:
        """Return what ``meanwhile`` returned, for a run that replaces this one."""
        return self.answer

    def _varies(self) -> np.ndarray:
        """Return bool (C,): columns that are not the same in all rows."""
        columns = self.question.columns
        if len(columns) <= 1 or not columns.shape[1]:
            return np.zeros(columns.shape[1], dtype=bool)
        varies = (columns != columns[:1]).any(axis=0)
        return self.runtime.to_host(varies) if self.question.on_device else varies

    def evaluate(self, limit: int, meanwhile: Callable[[], Any] | None) -> Findings:
        """Answer within ``limit`` bytes of device memory; ``meanwhile`` is called beside the first chunk."""
        question, runtime = self.question, self.runtime
        chunks = self._chunks(limit)
        is_summed = question.is_summed
        kept, summed = (runtime.xp.asarray(np.flatnonzero(part).astype(np.int32)) for part in (~is_summed, is_summed))
        setting = Setting(
            runtime, self.plan, self.slots, self.observables, self.num_qubits, self.num_runs, question, self.schedule,
            self.pace, kept, summed,
        )  # fmt: skip
        found = _Collection(runtime, question, len(kept), len(summed), 1 << self.num_qubits)
        self.pace.expect(sum(self._num_steps(entries) for entries in chunks))
        finals, self.finals = self._finals_for(chunks, limit), None
        rows, room = np.unique(question.entries[0]), None
        keeps = self._keeps_last_states(len(rows), len(chunks), limit)
        if keeps and len(chunks) > 1:
            room = runtime.xp.empty((len(rows), 1 << self.passes.num_address_bits), dtype=question.dtype)
        for entries in chunks:
            self.num_chunks += 1
            chunk = Chunk(setting, entries)
            here = slice(*np.searchsorted(rows, [chunk.rows[0], chunk.rows[-1] + 1]))
            chunk.finals = None if finals is None else finals.part(here)
            chunk.room = None if room is None else room[here]
            if len(chunks) == 1:
                finals = None  # given up where the chunk has no use for them
            answer = chunk.evaluate()
            if not self.asked:
                self.asked, self.answer = True, meanwhile() if meanwhile else None
            found.add(chunk, answer)
            if not question.on_device:  # else nothing has waited
                self.pace.arrive()
            if len(chunks) == 1 and keeps:
                room = chunk.last
            del answer, chunk  # before the arrays of the next chunk
        if room is not None:
            columns = runtime.xp.array(question.of_rows(question.columns, rows, runtime.xp))
            self.finals = Finals(self.plan, runtime.current_stream(), rows, columns, room)
        if not self.asked and meanwhile:
            self.answer = meanwhile()
        return Findings(**found.arrays(), stats=self._stats(), answer=self.answer)

    def _finals_for(self, chunks: list[slice], limit: int) -> Finals | None:
        """Return last states that chunks may begin with: each row is in one of them, and uncomputes its only state."""
        finals = self.finals
        if finals is None or (self._num_states or 1) > 1:
            return None
        if len(chunks) > 1:
            rows, begins = self.question.entries[0], np.array([entries.start for entries in chunks[1:]])
            if (rows[begins] == rows[begins - 1]).any() or self.chunk_bytes + finals.num_bytes > limit:
                return None
            self.chunk_bytes += finals.num_bytes
        return finals

    def _keeps_last_states(self, num_rows: int, num_chunks: int, limit: int) -> bool:
        """Say whether last states are kept for gradients: where they are small beside the memory there is."""
        question = self.question
        if question.gradient or question.ends.initial is not None or not num_chunks:
            return False
        state = np.dtype(question.dtype).itemsize << self.passes.num_address_bits
        kept = num_rows * (state + 8 * question.columns.shape[1])
        if kept > limit // _FINALS_SHARE or (num_chunks > 1 and self.chunk_bytes + kept > limit):
            return False
        self.chunk_bytes += kept * (num_chunks > 1)
        return True

    def _stats(self) -> dict[str, Any]:
        passes = self.passes
        stats = {
            "gpu": self.runtime.name,
            "kernels": f"sweeps of 2^{passes.tile_qubits} amplitudes, {1 << passes.register_qubits} a thread",
            "sweeps": self.pace.num_sweeps,
            "chunks": self.num_chunks,
            "bytes": self.chunk_bytes,
        }
        if self.question.gradient:
            stats |= {"method": self.question.method.name, "states": self._num_states or 1}
        return stats

    @property
    def _num_states(self) -> int | None:
        return self.schedule.num_states if self.schedule else None

    # Chunks.

    def _chunks(self, limit: int) -> list[slice]:
        """Cut the pairs into chunks that fit the memory, and the L2 cache where that still fills the device."""
        question, rows, record = self.question, self.question.entries[0], self.slots.host.record[0]
        starts, num_summed = question.ends.initial, int(np.count_nonzero(question.is_summed))
        shape = question.columns.shape[1], self.plan.num_leaf_outputs
        several = bool((rows[1:] == rows[:-1]).any())
        demand = find_demand(
            self.passes, record, shape, question.dtype,
            gradient=question.gradient, per_row=question.per_row, several=several,
            starts=starts is not None, shared_start=starts is not None and len(starts) < len(question.columns),
            summed=num_summed, returned=self._returned_bytes(num_summed),
        )  # fmt: skip
        if question.gradient:
            num_multiprocessors = self.runtime.num_multiprocessors
            self.schedule = choose_schedule(question.method, demand, self.passes, rows, limit, num_multiprocessors)
        size, cut_at = demand.chunk_bytes(self._num_states, limit)
        fewest = 1 if self._num_states and takes_what_fits(question.method) else self._num_states
        self.smallest = demand.chunk_bytes(fewest, 0)[0].smallest
        if self.smallest > limit:
            raise DoesNotFit(self._refusal(limit))
        resident = self._resident_bytes(size)
        chunks = list(cut_into_chunks(rows, size, cut_at, resident, whole_rows=question.per_row))
        self.chunk_bytes = max((taken for _, taken in chunks), default=0)
        return [pairs for pairs, _ in chunks]

    def _returned_bytes(self, num_summed: int) -> int:
        """Count the bytes of answers that stay on the device."""
        question = self.question
        if not question.on_device:
            return 0
        num_units = (len(question.columns) if question.per_row else len(question.rows)) * question.gradient
        of_unit = 8 * (question.columns.shape[1] - num_summed)
        of_unit += question.state_gradients * np.dtype(question.dtype).itemsize << self.num_qubits
        return 8 * (len(question.rows) + num_summed) + num_units * of_unit

    def _resident_bytes(self, size: ChunkBytes) -> int:
        """Return the bytes of a chunk whose states, without those that are kept, stay in half of the L2 cache.

        A wave is the blocks that run at once: whole waves, and no bound where the cache holds less than two.
        """
        passes, states = self.passes, 1 + self.question.gradient
        unit = size.row + size.pair
        varying_runs = int(self.slots.host.record["varying_runs"][0])
        most = unit * (_MAX_ROWS_TIMES_RUNS // (varying_runs + 1))
        unit_states = (states << passes.num_address_bits) * np.dtype(self.question.dtype).itemsize
        wave = BLOCKS_AT_ONCE * self.runtime.num_multiprocessors
        waves = self.runtime.l2_bytes // 2 // unit_states * passes.num_tiles // wave
        if waves < 2 or len(passes.passes) == 1:
            return most
        return min(max(waves * wave // passes.num_tiles, 1) * unit, most)

    def _refusal(self, limit: int) -> str:
        n, dtype, method = self.num_qubits, self.question.dtype, self.question.method.name
        cures = ["fewer qubits", "device='cpu'", "a larger memory_limit"]
        what = "statevector and cotangent" if self.question.gradient else "statevector"
        if np.finfo(dtype).bits == 64:
            cures.insert(0, "dtype='complex64'")
        if (self._num_states or 1) > 1 and not takes_what_fits(self.question.method):
            what = f"{self._num_states} statevectors that method='{method}' keeps and the cotangent"
            cures.insert(0, "method='reverse'")
            cures.insert(0, "method='checkpoint'" if method == "store" else "method='checkpoint' without num_segments")
        return (
            f"the {what} of {n} qubits with their sums and tables take {self.smallest / 2**30:.3g} GiB in {dtype}, of "
            f"{self.runtime.name} {limit / 2**30:.3g} GiB may be used; use {', '.join(cures[:-1])} or {cures[-1]}."
        )

    def _num_steps(self, entries: slice) -> int:
        """Count the steps of a chunk: states swept, a step back for two."""
        question, num_positions = self.question, len(self.passes.passes)
        rows, pairs_before = question.entries[0][entries], question.entries[1]
        num_rows = 1 + int((rows[1:] != rows[:-1]).sum())
        num_pairs = int(pairs_before[entries.stop] - pairs_before[entries.start])
        num_units = num_pairs
        if question.per_row:
            num_units = num_rows if num_pairs or question.final_cotangents is not None else 0
        num_units *= question.gradient
        forward = self.schedule.num_steps if self.schedule else num_positions
        return forward * num_rows + 2 * num_positions * num_units


class _Collection:
    """What chunks found, put where it belongs: into arrays of the host, or of the device."""

    def __init__(self, runtime: Any, question: Question, num_kept: int, num_summed: int, state_size: int):
        self._question = question
        self._xp: Any = runtime.xp if question.on_device else np
        self._bring: Callable[[Any], Any] = (lambda array: array) if question.on_device else runtime.to_host
        num_rows, num_pairs = len(question.columns), len(question.rows)
        units = num_rows if question.per_row else num_pairs
        amplitude = question.dtype if question.on_device else np.complex128
        self._shapes: dict[str, tuple[tuple[int, ...], Any]] = {"values": ((num_pairs,), np.float64)}
        if question.gradient:
            self._shapes |= {"gradients": ((units, num_kept), np.float64), "sums": ((num_summed,), np.float64)}
        if question.state_gradients:
            self._shapes["of_states"] = ((units, state_size), amplitude)
        if question.ends.final:
            self._shapes["final_states"] = ((num_rows, state_size), np.complex128)
        self._arrays: dict[str, Any] = {}

    def add(self, chunk: Chunk, answer: Answer) -> None:
        """Add the answer of a chunk."""
        units = chunk.rows if self._question.per_row else chunk.pairs
        where = {"values": chunk.pairs, "gradients": units, "of_states": units}
        for name, found in answer._asdict().items():
            if found is None:
                continue
            found = self._bring(found)
            if name == "sums":
                known = self._arrays.get(name)
                self._arrays[name] = found if known is None else known + found
            else:
                self._place(name, found, where[name])
        if chunk.final_states is not None:
            self._place("final_states", chunk.final_states[:, : self._shapes["final_states"][0][1]], chunk.rows)

    def _place(self, name: str, found: Any, where: slice | np.ndarray) -> None:
        shape, dtype = self._shapes[name]
        if len(found) == shape[0]:
            self._arrays[name] = found.astype(dtype, copy=False)
            return
        if name not in self._arrays:
            self._arrays[name] = self._xp.zeros(shape, dtype=dtype)
        if isinstance(where, np.ndarray):
            where = self._xp.asarray(where)
        self._arrays[name][where] = found

    def arrays(self) -> dict[str, Any]:
        """Return everything by name; zeros for what no chunk has found."""
        return {
            name: self._arrays[name] if name in self._arrays else self._xp.zeros(shape, dtype=dtype)
            for name, (shape, dtype) in self._shapes.items()
        }
