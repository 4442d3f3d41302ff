# SPDX-License-Identifier: Apache-2.0
"""One evaluation on a CUDA device: chunks that fit its memory, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from qiskit_fused.chunks import (
    BLOCKS_AT_ONCE,
    ChunkBytes,
    choose_schedule,
    cut_into_chunks,
    find_demand,
    takes_what_fits,
)
from qiskit_fused.engines import DoesNotFit, Evaluation
from qiskit_fused.engines.cuda_chunk import Chunk, Question, Setting
from qiskit_fused.engines.pacing import Pace
from qiskit_fused.engines.uploads import DeviceObservables, DevicePlan, DeviceSlots
from qiskit_fused.schedules import Schedule

if TYPE_CHECKING:
    from qiskit_fused.plan import Plan

_MAX_ROWS_TIMES_RUNS = 1 << 31  # kernels count rotations in 32 bits


class Run:
    """One evaluation.

    Args:
        runtime: the device.
        plan: the plan.
        device_plan, observables: the plan and the observables on the device.
        question: what is asked.
        pace: counts the sweeps.
    """

    def __init__(
        self,
        runtime: Any,
        plan: Plan,
        device_plan: DevicePlan,
        observables: DeviceObservables,
        question: Question,
        pace: Pace,
    ):
        self.runtime = runtime
        self.num_qubits, self.num_runs = plan.num_qubits, plan.num_runs
        self.plan, self.passes = device_plan, device_plan.passes
        self.observables, self.question, self.pace = observables, question, pace
        columns = question.columns
        varies = (columns != columns[:1]).any(axis=0) if len(columns) else np.zeros(columns.shape[1], dtype=bool)
        self.slots: DeviceSlots = device_plan.slots(plan, varies)
        self.schedule: Schedule | None = None
        self.num_chunks = 0
        self.chunk_bytes = 0
        self.smallest = 0
        self.answer: Any = None
        self.asked = False

    def answer_again(self) -> Any:
        """Return what ``meanwhile`` returned, for a run that replaces this one."""
        return self.answer

    def evaluate(self, limit: int, meanwhile: Callable[[], Any] | None) -> Evaluation:
        """Answer within ``limit`` bytes of device memory; ``meanwhile`` is called beside the first chunk."""
        question = self.question
        values = np.zeros(len(question.rows))
        gradients: np.ndarray | None = None
        of_states: np.ndarray | None = None
        chunks = self._chunks(limit)
        setting = Setting(
            self.runtime, self.plan, self.slots, self.observables, self.num_runs, question, self.schedule, self.pace
        )
        self.pace.expect(sum(self._num_steps(pairs) for pairs in chunks))
        for pairs in chunks:
            self.num_chunks += 1
            chunk = Chunk(setting, pairs)
            answers = chunk.evaluate()
            if not self.asked:
                self.asked, self.answer = True, meanwhile() if meanwhile else None
            values[pairs] = self.runtime.to_host(answers[0])
            self.pace.arrive()
            found, lam = (None if part is None else self.runtime.to_host(part) for part in answers[1:])
            del answers  # before the arrays of the next chunk
            where = chunk.rows if question.per_row else pairs
            gradients = self._place(gradients, found, where)
            if lam is not None:
                of_states = self._place(of_states, 2 * lam[:, : 1 << self.num_qubits].astype(np.complex128), where)
        if question.gradient and gradients is None:
            gradients = np.zeros((self._num_gradients, question.columns.shape[1]))
        if question.state_gradients and of_states is None:
            of_states = np.zeros((self._num_gradients, 1 << self.num_qubits), dtype=np.complex128)
        if not self.asked and meanwhile:
            self.answer = meanwhile()
        return Evaluation(values, gradients, self._stats(), self.answer, of_states)

    @property
    def _num_gradients(self) -> int:
        return len(self.question.columns) if self.question.per_row else len(self.question.rows)

    def _place(self, whole: np.ndarray | None, found: np.ndarray | None, where: slice | np.ndarray) -> Any:
        """Put what a chunk found where it belongs in the whole, which is made when it is needed."""
        if found is None or len(found) == self._num_gradients:
            return whole if found is None else found
        if whole is None:
            whole = np.zeros((self._num_gradients, found.shape[1]), dtype=found.dtype)
        whole[where] = found
        return whole

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
        question, rows, record = self.question, self.question.rows, self.slots.host.record[0]
        shape = question.columns.shape[1], self.plan.num_leaf_outputs
        several = bool((rows[1:] == rows[:-1]).any())
        demand = find_demand(
            self.passes, record, shape, question.dtype,
            gradient=question.gradient, per_row=question.per_row, several=several,
            starts=question.initial_states is not None,
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
        if dtype != "complex64":
            cures.insert(0, "dtype='complex64'")
        if (self._num_states or 1) > 1 and not takes_what_fits(self.question.method):
            what = f"{self._num_states} statevectors that method='{method}' keeps and the cotangent"
            cures.insert(0, "method='reverse'")
            cures.insert(0, "method='checkpoint'" if method == "store" else "method='checkpoint' without num_segments")
        return (
            f"the {what} of {n} qubits with their sums and tables take {self.smallest / 2**30:.3g} GiB in {dtype}, of "
            f"{self.runtime.name} {limit / 2**30:.3g} GiB may be used; use {', '.join(cures[:-1])} or {cures[-1]}."
        )

    def _num_steps(self, pairs: slice) -> int:
        """Count the steps of a chunk: states swept, a step back for two."""
        rows, num_positions = self.question.rows[pairs], len(self.passes.passes)
        num_rows = 1 + int((rows[1:] != rows[:-1]).sum())
        num_units = (num_rows if self.question.per_row else len(rows)) * self.question.gradient
        forward = self.schedule.num_steps if self.schedule else num_positions
        return forward * num_rows + 2 * num_positions * num_units
