# SPDX-License-Identifier: Apache-2.0
"""One evaluation on a CUDA device: a request is cut into chunks that fit the memory, and the chunks run in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from qiskit_fused.common.array_modules import array_module
from qiskit_fused.engines.checkpointing import Schedule
from qiskit_fused.engines.cuda.chunk import Chunk
from qiskit_fused.engines.cuda.device_data import DeviceObservables, DeviceOutcomes, DevicePlan, DeviceSlots
from qiskit_fused.engines.cuda.memory import (
    BLOCKS_AT_ONCE,
    ChunkBytes,
    OutcomeCounts,
    choose_schedule,
    cut_into_chunks,
    find_demand,
    takes_what_fits,
)
from qiskit_fused.engines.cuda.setting import Setting
from qiskit_fused.engines.cuda.throttle import Pace
from qiskit_fused.engines.cuda.work_items import (
    CachedFinalStates,
    ChunkResult,
    is_summed,
    place_pairs,
    take_rows,
    work_items,
)
from qiskit_fused.engines.evaluation import Evaluation
from qiskit_fused.engines.interface import DoesNotFit
from qiskit_fused.engines.request import Request
from qiskit_fused.fusion.fused_program import FusedProgram

_MAX_ROTATIONS = 1 << 31  # largest number of rotations of a chunk; kernels count rotations in 32 bits
_CACHE_FRACTION = 8  # final states are cached if they take at most 1/8 of the bytes that the evaluation may use


class DeviceEvaluation:
    """One evaluation, which cuts a request into chunks and runs them one after the other.

    Args:
        runtime: the device.
        plan: the fused program.
        device_plan, observables: the plan and the observables on the device.
        request: the request; its dtype is the number format of the amplitudes on the device.
        pace: counts the sweeps.
        cached: final states from which the request may start (see `CachedFinalStates.may_serve`), or None. The
            evaluation becomes their owner.

    Attributes:
        cached: after `evaluate`, the final states of its rows if a later call for gradients may start from them.
        chunk_bytes: predicted bytes of the largest chunk.
        smallest: predicted bytes of a chunk of one pair.
    """

    def __init__(
        self,
        runtime: Any,
        plan: FusedProgram,
        device_plan: DevicePlan,
        observables: DeviceObservables | DeviceOutcomes,
        request: Request,
        pace: Pace,
        cached: CachedFinalStates | None = None,
    ):
        self.runtime = runtime
        self.num_qubits, self.num_runs = plan.num_qubits, plan.num_runs
        self.plan, self.passes = device_plan, device_plan.passes
        self.observables, self.request, self.pace = observables, request, pace
        self.items, self.is_summed = work_items(request), is_summed(request)
        self.rows = place_pairs(self.items.row, request.pairs.row).rows
        columns = request.split_columns
        self.slots: DeviceSlots = device_plan.slots(plan, columns.is_varying)
        self.columns = columns.stored(self.slots.host.column_varies)
        self.schedule: Schedule | None = None
        self.chunk_bytes = 0
        self.smallest = 0
        self.cached = cached

    def evaluate(self, limit: int) -> Evaluation:
        """Evaluate the request with at most ``limit`` bytes of device memory.

        Statevectors take nearly all of the memory, so each array of them has one owner, which frees it before the next
        array is allocated:

        * Cached states belong to this function, or to the chunk if there is only one. They are freed before the first
          chunk if the chunks cannot start from them.
        * The arrays of a chunk are freed before the next chunk allocates its own.
        * Final states that the engine caches are the array of the chunk if there is only one. Several chunks write
          their final states to one array, which is allocated before the first chunk.
        """
        request, runtime = self.request, self.runtime
        chunks = self._chunks(limit)
        is_single = len(chunks) == 1
        setting = self._setting()
        collection = _Collection(runtime, request, self.is_summed, 1 << self.num_qubits)
        num_steps = sum(self._num_steps(items) for items in chunks)
        self.pace.expect(num_steps)
        self.plan.compiled.add_work((num_steps << self.passes.num_address_bits) // max(len(self.passes.passes), 1))
        cached, self.cached = self._cached_states_for(chunks, limit), None
        rows, final_states = self.rows, None
        caches_final_states = self._caches_final_states(len(rows), len(chunks), limit)
        if caches_final_states and not is_single:
            final_states = runtime.xp.empty((len(rows), 1 << self.passes.num_address_bits), dtype=request.dtype)
        for items in chunks:
            chunk = Chunk(setting, items)
            rows_of_chunk = slice(0, len(rows))
            if not is_single:
                rows_of_chunk = slice(*np.searchsorted(rows, [chunk.rows[0], chunk.rows[-1] + 1]))
            chunk.cached = None if cached is None else cached.part(rows_of_chunk)
            chunk.final_states_out = None if final_states is None else final_states[rows_of_chunk]
            if is_single:
                # The chunk has the only reference, so it frees the states before it allocates, if the columns differ.
                cached = None
            result = chunk.evaluate()
            collection.add(result)
            if not request.is_on_device:
                self.pace.arrive()  # copying the result to the host has waited for all launched work
            if is_single and caches_final_states:
                final_states = result.device_final_states
            # Without this line, both names would hold the arrays of this chunk while the next chunk allocates its own.
            del result, chunk
        if final_states is not None:
            columns = take_rows(self.columns, rows).copy()
            self.cached = CachedFinalStates(self.plan, runtime.current_stream(), rows, columns, final_states)
        return collection.evaluation(self._stats(len(chunks)))

    def _setting(self) -> Setting:
        """Return the data that all chunks share."""
        return Setting(
            self.runtime, self.plan, self.slots, self.observables, self.num_qubits, self.num_runs, self.request,
            self.columns, self.items, self.schedule, self.pace, self.plan.chosen_columns(self.is_summed),
        )  # fmt: skip

    def _cached_states_for(self, chunks: list[slice], limit: int) -> CachedFinalStates | None:
        """Return the cached final states if the chunks may start from them, else None.

        A chunk overwrites the final states of its rows. So each row must be in one chunk, and its schedule must hold a
        single state, which the backward sweep uncomputes.
        """
        cached = self.cached
        if cached is None or (self._num_states or 1) > 1:
            return None
        if len(chunks) > 1:
            rows, begins = self.items.row, np.array([items.start for items in chunks[1:]])
            if (rows[begins] == rows[begins - 1]).any() or self.chunk_bytes + cached.num_bytes > limit:
                return None
            self.chunk_bytes += cached.num_bytes
        return cached

    def _caches_final_states(self, num_rows: int, num_chunks: int, limit: int) -> bool:
        """Return whether the final states are cached for a call for gradients; they must be small beside ``limit``.

        The array that several chunks write to is added to ``chunk_bytes``.
        """
        request = self.request
        if request.gradient is not None or request.boundary.initial is not None or not num_chunks:
            return False
        state_bytes = np.dtype(request.dtype).itemsize << self.passes.num_address_bits
        cache_bytes = num_rows * state_bytes
        if request.is_on_device:
            cache_bytes += 8 * (num_rows * self.columns.varying.shape[1] + len(self.columns.shared))
        if cache_bytes > limit // _CACHE_FRACTION or (num_chunks > 1 and self.chunk_bytes + cache_bytes > limit):
            return False
        self.chunk_bytes += cache_bytes * (num_chunks > 1)
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

    def _chunks(self, limit: int) -> list[slice]:
        """Choose the schedule, and cut the work items into chunks that fit the memory.

        Chunks are cut smaller, so that their states stay in the L2 cache, if such chunks still keep the device busy.
        """
        request, rows, record = self.request, self.items.row, self.slots.host.record[0]
        starts, num_summed = request.boundary.initial, int(np.count_nonzero(self.is_summed))
        shape = request.num_columns, self.plan.num_leaf_outputs
        several = len(self.rows) < len(rows)
        demand = find_demand(
            self.passes, record, shape, request.dtype,
            gradient=request.gradient is not None, per_row=request.gradients_are_per_row, several=several,
            starts=starts is not None, shared_start=starts is not None and len(starts) < request.num_rows,
            summed=num_summed, returned=self._returned_bytes(num_summed), outcomes=self._outcome_counts,
        )  # fmt: skip
        if request.gradient is not None and not request.boundary.from_end:  # from the end, psi is uncomputed
            num_multiprocessors = self.runtime.num_multiprocessors
            self.schedule = choose_schedule(request.method, demand, self.passes, rows, limit, num_multiprocessors)
        # A chunk returns a copy of its final states.
        demand = replace(demand, row=demand.row + self._final_state_bytes)
        size, cut_at = demand.chunk_bytes(self._num_states, limit)
        min_states = 1 if self._num_states and takes_what_fits(request.method) else self._num_states
        self.smallest = demand.chunk_bytes(min_states, 0)[0].smallest
        if self.smallest > limit:
            raise DoesNotFit(self._refusal(limit))
        resident = self._resident_bytes(size)
        chunks = list(cut_into_chunks(rows, size, cut_at, resident, whole_rows=request.gradients_are_per_row))
        self.chunk_bytes = max((taken for _, taken in chunks), default=0)
        return [pairs for pairs, _ in chunks]

    @property
    def _outcome_counts(self) -> OutcomeCounts | None:
        outcomes = self.observables
        return (
            OutcomeCounts(outcomes.num_outcomes, outcomes.num_parts) if isinstance(outcomes, DeviceOutcomes) else None
        )

    @property
    def _final_state_bytes(self) -> int:
        """The bytes of a final state that is returned on the device; 0 if it is returned on the host."""
        boundary = self.request.boundary
        return (boundary.final and boundary.on_device) * np.dtype(self.request.dtype).itemsize << self.num_qubits

    def _returned_bytes(self, num_summed: int) -> int:
        """Count the bytes of the results that stay on the device."""
        request = self.request
        if not request.is_on_device:
            return request.num_rows * self._final_state_bytes
        gradient_bytes = 8 * (request.num_columns - num_summed)
        gradient_bytes += request.wants_state_gradients * np.dtype(request.dtype).itemsize << self.num_qubits
        return 8 * (request.num_pairs + num_summed) + request.num_gradients * gradient_bytes

    def _resident_bytes(self, size: ChunkBytes) -> int:
        """Return the largest number of bytes of a chunk whose running states stay in half of the L2 cache.

        The running states of a unit are its state, and with gradients its adjoint state; states that a schedule keeps
        are not counted. A wave is the number of blocks that run at the same time. The bound is a whole number of waves.
        If the cache holds less than two waves, or a circuit has one pass, only `_MAX_ROTATIONS` bounds the chunk.

        Args:
            size: the bytes of a row and of a pair.
        """
        request, passes, states = self.request, self.passes, 1 + (self.request.gradient is not None)
        unit, pairs_of_unit = size.row + size.pair, 1
        if request.gradient is None or request.gradients_are_per_row:  # a unit is a row
            pairs_of_unit = max(-(-request.num_pairs // max(request.num_rows, 1)), 1)
        slots = self.slots.host.record[0]
        max_rows = (_MAX_ROTATIONS - int(slots["shared_runs"])) // max(int(slots["varying_runs"]), 1)
        max_bytes = unit * max(max_rows, 1)
        unit_states = (states << passes.num_address_bits) * np.dtype(request.dtype).itemsize
        wave = BLOCKS_AT_ONCE * self.runtime.num_multiprocessors
        waves = self.runtime.l2_bytes // 2 // unit_states * passes.num_tiles // wave
        if waves < 2 or len(passes.passes) == 1:
            return max_bytes
        num_units = max(waves * wave // passes.num_tiles, 1)
        return min(num_units * (size.row + pairs_of_unit * size.pair), max_bytes)

    def _refusal(self, limit: int) -> str:
        """Return the text of the error for a request whose smallest chunk exceeds ``limit`` bytes."""
        n, dtype, method = self.num_qubits, self.request.dtype, self.request.method.name
        cures = ["fewer qubits", "device='cpu'", "a larger memory_limit"]
        states = "statevector and cotangent" if self.request.gradient is not None else "statevector"
        if np.finfo(dtype).bits == 64:
            cures.insert(0, "dtype='complex64'")
        if (self._num_states or 1) > 1 and not takes_what_fits(self.request.method):
            states = f"{self._num_states} statevectors that method='{method}' keeps and the cotangent"
            cures.insert(0, "method='reverse'")
            cures.insert(0, "method='checkpoint'" if method == "store" else "method='checkpoint' without num_segments")
        beside = " beside the outcomes of its amplitudes" if self._outcome_counts else ""
        return (
            f"the {states} of {n} qubits with their sums and tables take {self.smallest / 2**30:.3g} GiB in {dtype}, "
            f"of {self.runtime.name} {limit / 2**30:.3g} GiB may be used{beside}; use {', '.join(cures[:-1])} or "
            f"{cures[-1]}."
        )

    def _num_steps(self, items: slice) -> int:
        """Count the steps of a chunk: one for each pass over a state; a pass back over two states counts as two."""
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
    """Collects the results of chunks in the arrays of all rows, on the host or on the device.

    Args:
        runtime: the device.
        request: the request of all rows.
        is_summed: bool (C,), the columns whose gradients are summed over rows.
        state_size: number of amplitudes of a returned state.
    """

    def __init__(self, runtime: Any, request: Request, is_summed: np.ndarray, state_size: int):
        self._request, self._is_summed, self._state_size = request, is_summed, state_size
        self._xp: Any = runtime.xp if request.is_on_device else np
        self._fetch: Callable[[Any], Any] = (lambda array: array) if request.is_on_device else runtime.to_host
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
            self._shapes["final_states"] = ((request.num_rows, state_size), request.dtype)
        self._arrays: dict[str, Any] = {}

    def add(self, result: ChunkResult) -> None:
        """Copy the arrays of a chunk to their places, and add its sums to the sums of earlier chunks."""
        units = result.rows if self._request.gradients_are_per_row else result.pairs
        numbers = result.numbers.copied(self._fetch)
        self._place("values", numbers.values, result.pairs)
        if "gradients" in self._shapes and len(numbers.gradients):
            self._place("gradients", numbers.gradients, units)
            earlier_sums = self._arrays.get("sums")
            self._arrays["sums"] = numbers.sums if earlier_sums is None else earlier_sums + numbers.sums
        if result.state_gradients is not None:
            self._place("state_gradients", self._fetch(result.state_gradients), units)
        if result.final_states is not None:
            self._place("final_states", result.final_states[:, : self._state_size], result.rows)

    def _place(self, name: str, part: Any, places: slice | np.ndarray) -> None:
        """Write a part of an array to its places; a part that is the whole array becomes the array without a copy."""
        shape, dtype = self._shapes[name]
        if len(part) == shape[0]:
            self._arrays[name] = part.astype(dtype, copy=False)
            return
        xp = array_module(part)
        if name not in self._arrays:
            self._arrays[name] = xp.zeros(shape, dtype=dtype)
        if isinstance(places, np.ndarray):
            places = xp.asarray(places)
        self._arrays[name][places] = part

    def evaluation(self, stats: dict[str, Any]) -> Evaluation:
        """Return the evaluation of all rows. Arrays to which no chunk has written are zeros."""
        arrays = {
            name: self._arrays[name] if name in self._arrays else self._xp.zeros(shape, dtype=dtype)
            for name, (shape, dtype) in self._shapes.items()
        }
        if "sums" in arrays and not self._request.is_split:
            sums, separate_gradients = arrays.pop("sums"), arrays["gradients"]
            if len(sums):
                gradients = arrays["gradients"] = np.zeros((self._request.num_gradients, self._request.num_columns))
                gradients[:, ~self._is_summed] = separate_gradients
                gradients[:1, self._is_summed] = sums
        return Evaluation(**arrays, stats=stats)
