# SPDX-License-Identifier: Apache-2.0
"""One evaluation on a CUDA device: chunks that fit its memory, one after the other."""

from __future__ import annotations

from collections.abc import Callable
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
from qiskit_fused.engines.cuda.throttle import Pace
from qiskit_fused.engines.cuda.work_items import CachedFinalStates, ChunkResult, is_summed, take_rows, work_items
from qiskit_fused.engines.evaluation import Evaluation
from qiskit_fused.engines.interface import DoesNotFit
from qiskit_fused.engines.request import Request

if TYPE_CHECKING:
    from qiskit_fused.fusion.fused_program import FusedProgram

_MAX_ROWS_TIMES_RUNS = 1 << 31  # kernels count rotations in 32 bits
_FINALS_SHARE = 8  # last states are kept where this many times as much may be used


class DeviceEvaluation:
    """One evaluation: chunks of pairs and rows that fit the memory of the device, one after the other.

    Args:
        runtime: the device.
        plan: the plan.
        device_plan, observables: the plan and the observables on the device.
        request: rows and pairs, in the number format of the amplitudes.
        pace: counts the sweeps.
        cached: last states of these rows, maybe; see `CachedFinalStates.may_serve`. The evaluation becomes their owner.

    Attributes:
        cached: the last states of these rows, where a call for their gradients may begin there.
        chunk_bytes: bytes of the largest chunk.
        smallest: bytes of a chunk of one pair.
    """

    def __init__(
        self,
        runtime: Any,
        plan: FusedProgram,
        device_plan: DevicePlan,
        observables: DeviceObservables,
        request: Request,
        pace: Pace,
        cached: CachedFinalStates | None = None,
    ):
        self.runtime = runtime
        self.num_qubits, self.num_runs = plan.num_qubits, plan.num_runs
        self.plan, self.passes = device_plan, device_plan.passes
        self.observables, self.request, self.pace = observables, request, pace
        self.items, self.is_summed = work_items(request), is_summed(request)
        self.slots: DeviceSlots = device_plan.slots(plan, request.varying_columns)
        self.schedule: Schedule | None = None
        self.chunk_bytes = 0
        self.smallest = 0
        self.cached = cached

    def evaluate(self, limit: int) -> Evaluation:
        """Answer within ``limit`` bytes of device memory.

        States take nearly all the memory, and each array of them has one owner, which drops it before the next one is
        made. Cached states go to the chunks that begin with them, or are dropped before the first chunk. The arrays of
        a chunk are dropped at its end, but for the last states of a single chunk, which become the cached ones. Last
        states of several chunks are written to one array, ``kept``, which is made before the first chunk.
        """
        request, runtime = self.request, self.runtime
        chunks = self._chunks(limit)
        setting = self._setting()
        collection = _Collection(runtime, request, self.is_summed, 1 << self.num_qubits)
        self.pace.expect(sum(self._num_steps(items) for items in chunks))
        cached, self.cached = self._cached_states_for(chunks, limit), None
        rows, kept = np.unique(self.items.row), None
        keeps = self._keeps_last_states(len(rows), len(chunks), limit)
        if keeps and len(chunks) > 1:
            kept = runtime.xp.empty((len(rows), 1 << self.passes.num_address_bits), dtype=request.dtype)
        for items in chunks:
            chunk = Chunk(setting, items)
            here = slice(*np.searchsorted(rows, [chunk.rows[0], chunk.rows[-1] + 1]))
            chunk.cached = None if cached is None else cached.part(here)
            chunk.room = None if kept is None else kept[here]
            if len(chunks) == 1:
                cached = None  # the chunk drops them where their columns are others
            result = chunk.evaluate()
            collection.add(result)
            if not request.is_on_device:  # else nothing has waited
                self.pace.arrive()
            if len(chunks) == 1 and keeps:
                kept = result.last_states
            del result, chunk  # before the arrays of the next chunk are made
        if kept is not None:
            columns = runtime.xp.array(take_rows(request.columns, rows))
            self.cached = CachedFinalStates(self.plan, runtime.current_stream(), rows, columns, kept)
        return collection.evaluation(self._stats(len(chunks)))

    def _setting(self) -> Setting:
        """Return what all chunks share."""
        kept, summed = (
            self.runtime.xp.asarray(np.flatnonzero(columns).astype(np.int32))
            for columns in (~self.is_summed, self.is_summed)
        )
        return Setting(
            self.runtime, self.plan, self.slots, self.observables, self.num_qubits, self.num_runs, self.request,
            self.items, self.schedule, self.pace, kept, summed,
        )  # fmt: skip

    def _cached_states_for(self, chunks: list[slice], limit: int) -> CachedFinalStates | None:
        """Return last states that chunks may begin with: each row is in one of them, and uncomputes its only state."""
        cached = self.cached
        if cached is None or (self._num_states or 1) > 1:
            return None
        if len(chunks) > 1:
            rows, begins = self.items.row, np.array([items.start for items in chunks[1:]])
            if (rows[begins] == rows[begins - 1]).any() or self.chunk_bytes + cached.num_bytes > limit:
                return None
            self.chunk_bytes += cached.num_bytes
        return cached

    def _keeps_last_states(self, num_rows: int, num_chunks: int, limit: int) -> bool:
        """Say whether last states are kept for gradients: where they are small beside the memory there is."""
        request = self.request
        if request.gradient is not None or request.boundary.initial is not None or not num_chunks:
            return False
        state = np.dtype(request.dtype).itemsize << self.passes.num_address_bits
        kept = num_rows * (state + 8 * request.num_columns)
        if kept > limit // _FINALS_SHARE or (num_chunks > 1 and self.chunk_bytes + kept > limit):
            return False
        self.chunk_bytes += kept * (num_chunks > 1)
        return True

    def _stats(self, num_chunks: int) -> dict[str, Any]:
        passes = self.passes
        stats = {
            "gpu": self.runtime.name,
            "kernels": f"sweeps of 2^{passes.tile_qubits} amplitudes, {1 << passes.register_qubits} a thread",
            "sweeps": self.pace.num_sweeps,
            "chunks": num_chunks,
            "bytes": self.chunk_bytes,
        }
        if self.request.gradient is not None:
            stats |= {"method": self.request.method.name, "states": self._num_states or 1}
        return stats

    @property
    def _num_states(self) -> int | None:
        return self.schedule.num_states if self.schedule else None

    # Chunks.

    def _chunks(self, limit: int) -> list[slice]:
        """Cut the pairs into chunks that fit the memory, and the L2 cache where that still fills the device."""
        request, rows, record = self.request, self.items.row, self.slots.host.record[0]
        starts, num_summed = request.boundary.initial, int(np.count_nonzero(self.is_summed))
        shape = request.num_columns, self.plan.num_leaf_outputs
        several = bool((rows[1:] == rows[:-1]).any())
        demand = find_demand(
            self.passes, record, shape, request.dtype,
            gradient=request.gradient is not None, per_row=request.gradients_are_per_row, several=several,
            starts=starts is not None, shared_start=starts is not None and len(starts) < request.num_rows,
            summed=num_summed, returned=self._returned_bytes(num_summed),
        )  # fmt: skip
        if request.gradient is not None:
            num_multiprocessors = self.runtime.num_multiprocessors
            self.schedule = choose_schedule(request.method, demand, self.passes, rows, limit, num_multiprocessors)
        size, cut_at = demand.chunk_bytes(self._num_states, limit)
        fewest = 1 if self._num_states and takes_what_fits(request.method) else self._num_states
        self.smallest = demand.chunk_bytes(fewest, 0)[0].smallest
        if self.smallest > limit:
            raise DoesNotFit(self._refusal(limit))
        resident = self._resident_bytes(size)
        chunks = list(cut_into_chunks(rows, size, cut_at, resident, whole_rows=request.gradients_are_per_row))
        self.chunk_bytes = max((taken for _, taken in chunks), default=0)
        return [pairs for pairs, _ in chunks]

    def _returned_bytes(self, num_summed: int) -> int:
        """Count the bytes of answers that stay on the device."""
        request = self.request
        if not request.is_on_device:
            return 0
        of_gradient = 8 * (request.num_columns - num_summed)
        of_gradient += request.wants_state_gradients * np.dtype(request.dtype).itemsize << self.num_qubits
        return 8 * (request.num_pairs + num_summed) + request.num_gradients * of_gradient

    def _resident_bytes(self, size: ChunkBytes) -> int:
        """Return the bytes of a chunk whose states, without those that are kept, stay in half of the L2 cache.

        A wave is the blocks that run at once: whole waves, and no bound where the cache holds less than two.
        """
        passes, states = self.passes, 1 + (self.request.gradient is not None)
        unit = size.row + size.pair
        varying_runs = int(self.slots.host.record["varying_runs"][0])
        most = unit * (_MAX_ROWS_TIMES_RUNS // (varying_runs + 1))
        unit_states = (states << passes.num_address_bits) * np.dtype(self.request.dtype).itemsize
        wave = BLOCKS_AT_ONCE * self.runtime.num_multiprocessors
        waves = self.runtime.l2_bytes // 2 // unit_states * passes.num_tiles // wave
        if waves < 2 or len(passes.passes) == 1:
            return most
        return min(max(waves * wave // passes.num_tiles, 1) * unit, most)

    def _refusal(self, limit: int) -> str:
        n, dtype, method = self.num_qubits, self.request.dtype, self.request.method.name
        cures = ["fewer qubits", "device='cpu'", "a larger memory_limit"]
        what = "statevector and cotangent" if self.request.gradient is not None else "statevector"
        if np.finfo(dtype).bits == 64:
            cures.insert(0, "dtype='complex64'")
        if (self._num_states or 1) > 1 and not takes_what_fits(self.request.method):
            what = f"{self._num_states} statevectors that method='{method}' keeps and the cotangent"
            cures.insert(0, "method='reverse'")
            cures.insert(0, "method='checkpoint'" if method == "store" else "method='checkpoint' without num_segments")
        return (
            f"the {what} of {n} qubits with their sums and tables take {self.smallest / 2**30:.3g} GiB in {dtype}, of "
            f"{self.runtime.name} {limit / 2**30:.3g} GiB may be used; use {', '.join(cures[:-1])} or {cures[-1]}."
        )

    def _num_steps(self, items: slice) -> int:
        """Count the steps of a chunk: states swept, a step back for two."""
        request, num_positions = self.request, len(self.passes.passes)
        rows, pairs_before = self.items.row[items], self.items.pairs_before
        num_rows = 1 + int((rows[1:] != rows[:-1]).sum())
        num_pairs = int(pairs_before[items.stop] - pairs_before[items.start])
        num_units = num_pairs
        if request.gradients_are_per_row:
            num_units = num_rows if num_pairs or request.boundary.final_cotangents is not None else 0
        num_units *= request.gradient is not None
        forward = self.schedule.num_steps if self.schedule else num_positions
        return forward * num_rows + 2 * num_positions * num_units


class _Collection:
    """The results of chunks in their places in the arrays of all rows, on the host or on the device."""

    def __init__(self, runtime: Any, request: Request, is_summed: np.ndarray, state_size: int):
        self._request, self._is_summed, self._state_size = request, is_summed, state_size
        self._xp: Any = runtime.xp if request.is_on_device else np
        self._bring: Callable[[Any], Any] = (lambda array: array) if request.is_on_device else runtime.to_host
        amplitude = request.dtype if request.is_on_device else np.complex128
        num_summed = int(np.count_nonzero(is_summed))
        units, num_columns = request.num_gradients, request.num_columns
        self._shapes: dict[str, tuple[tuple[int, ...], Any]] = {"values": ((request.num_pairs,), np.float64)}
        if request.gradient is not None:
            self._shapes["gradients"] = ((units, num_columns - num_summed), np.float64)
            self._shapes["sums"] = ((num_summed,), np.float64)
        if request.wants_state_gradients:
            self._shapes["state_gradients"] = ((units, state_size), amplitude)
        if request.boundary.final:
            self._shapes["final_states"] = ((request.num_rows, state_size), np.complex128)
        self._arrays: dict[str, Any] = {}

    def add(self, result: ChunkResult) -> None:
        """Copy the result of a chunk to its place."""
        units = result.rows if self._request.gradients_are_per_row else result.pairs
        self._place("values", self._bring(result.values), result.pairs)
        for name, found in (("gradients", result.gradients), ("state_gradients", result.state_gradients)):
            if found is not None:
                self._place(name, self._bring(found), units)
        if result.sums is not None:
            found, known = self._bring(result.sums), self._arrays.get("sums")
            self._arrays["sums"] = found if known is None else known + found
        if result.final_states is not None:
            self._place("final_states", result.final_states[:, : self._state_size], result.rows)

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

    def evaluation(self, stats: dict[str, Any]) -> Evaluation:
        """Return everything; zeros for what no chunk has found."""
        arrays = {
            name: self._arrays[name] if name in self._arrays else self._xp.zeros(shape, dtype=dtype)
            for name, (shape, dtype) in self._shapes.items()
        }
        if "sums" in arrays and not self._request.is_on_device:
            sums, of_others = arrays.pop("sums"), arrays["gradients"]
            if len(sums):
                gradients = arrays["gradients"] = np.zeros((self._request.num_gradients, self._request.num_columns))
                gradients[:, ~self._is_summed] = of_others
                gradients[:1, self._is_summed] = sums
        return Evaluation(**arrays, stats=stats)
