# SPDX-License-Identifier: Apache-2.0
"""The CUDA engine: launches the kernels of ``kernels/cuda/*.cu`` on a CUDA device.

All data stay on the device until the results are copied. No pair writes numbers that another pair reads, so the values
and gradients of a pair or row are the same bits however a batch is cut into chunks.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import numpy as np

from qiskit_fused.common.caches import on_release
from qiskit_fused.common.forks import in_child, new_lock, new_rlock
from qiskit_fused.engines.cuda.device_data import (
    DeviceObservables,
    DeviceOutcomes,
    DevicePlan,
    device_observables,
    device_outcomes,
)
from qiskit_fused.engines.cuda.evaluation import DeviceEvaluation
from qiskit_fused.engines.cuda.formats import amplitude_format, choose_tile_qubits, states_at_once
from qiskit_fused.engines.cuda.launch import kernel
from qiskit_fused.engines.cuda.outcome_lists import MAX_QUBITS, most_bytes
from qiskit_fused.engines.cuda.stream_order import StreamOrder
from qiskit_fused.engines.cuda.throttle import Pace
from qiskit_fused.engines.cuda.work_items import CachedFinalStates
from qiskit_fused.engines.evaluation import Evaluation
from qiskit_fused.engines.interface import DoesNotFit, Watch
from qiskit_fused.engines.request import Request
from qiskit_fused.fusion.dense_gates import rotations_and_terms
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.program.observables import Observables, TermMasks
from qiskit_fused.program.outcomes import OutcomeMasks

_BLOCK = 128  # number of threads of a block of the kernel `fill_diagonals`
# An evaluation may use max(_MEMORY_SHARE * free, free - _MEMORY_RESERVE) bytes of the free device memory.
_MEMORY_SHARE = 0.9
_MEMORY_RESERVE = 1 << 30
_MAX_OBSERVABLES = 64  # largest number of observables that an engine keeps on the device
_MAX_OBSERVABLE_BYTES = 1 << 28  # largest number of bytes of their diagonals and lists, unless one alone takes more

_log = logging.getLogger("qiskit_fused")


_made: WeakSet[CudaEngine] = WeakSet()


class CudaEngine:
    """Fused sweeps on a CUDA device.

    Args:
        runtime: the device, a `CupyRuntime`.
        memory_limit: largest number of bytes of device memory; None is all free memory.
        max_tile_qubits: largest number of qubits t of a tile. None is the largest t that fits the shared memory of a
            block, at most 12 for complex64 and 11 for complex128, or one more if the tile then is the whole state.
        compile_above: the work of passes of one shape (see `CompiledPasses`) above which they are compiled as
            straight-line code. None compiles none, so that one interpreter runs all passes.
    """

    name = "cuda"

    def __init__(
        self,
        runtime: Any,
        memory_limit: int | None = None,
        max_tile_qubits: int | None = None,
        compile_above: float | None = None,
    ):
        self.runtime = runtime
        self.compile_above = compile_above
        self.memory_limit = memory_limit
        self.max_tile_qubits = max_tile_qubits
        self._plans: WeakKeyDictionary[FusedProgram, dict[str, DevicePlan]] = WeakKeyDictionary()
        self._observables: OrderedDict[tuple[TermMasks, str, int], DeviceObservables | DeviceOutcomes] = OrderedDict()
        self._cached_states: CachedFinalStates | None = None
        self._order = StreamOrder(runtime)
        self._lock = new_lock()
        self._running = new_rlock()  # one evaluation at a time, because each one plans to use all free memory
        _made.add(self)

    def evaluate(
        self, plan: FusedProgram, observables: Observables, request: Request, watch: Watch | None = None
    ) -> Evaluation:
        """Evaluate pairs of rows and observables (see `Engine.evaluate`).

        The arrays of the request may be on the device; work in the current stream has then filled them. In this case
        the results stay on the device, and no number of the request is copied to the host. Gradients of summed columns
        are summed on the device, in the order of the rows, in double precision; for a request without split columns,
        row 0 of the gradients has the sums.

        Raises:
            DoesNotFit: when the states of one pair exceed the memory limit, before anything is allocated.
            RuntimeError: "the evaluation was cancelled.", when ``watch`` returned True.
        """
        plan, boundary = rotations_and_terms(plan), request.boundary
        final_states = boundary.final or boundary.final_cotangents is not None
        is_real = plan.stays_real(imaginary=request.imaginary, final_states=final_states)
        dtype = amplitude_format(request.dtype, is_real)
        with self._running, self.runtime.context(), self._order.behind_earlier_work():
            return self._evaluate(plan, observables, request._replace(dtype=dtype), watch)

    def _evaluate(
        self, plan: FusedProgram, observables: Observables, request: Request, watch: Watch | None
    ) -> Evaluation:
        """Evaluate in the current stream; if the device runs out of memory, evaluate again in smaller chunks.

        An allocation can fail although the bytes were predicted to fit, if the device has less memory than it reports.
        Each attempt bounds a chunk by half of the bytes of the chunk that failed, but never below a chunk of one pair.
        The loop ends with the error of the device if the chunks cannot become smaller.
        """
        device_plan = self._device_plan(plan, request.dtype)
        masks = observables.restrict(plan.wires)
        kept = self._device_observables(masks, request, device_plan.passes.num_address_bits)
        pace = Pace(self.runtime, watch)
        cached = self._take_cached_states(device_plan, request)
        limit = self._memory_for(cached, kept.num_bytes)
        failed_bytes: float = np.inf  # bytes of the largest chunk of the last attempt, which failed
        while True:
            evaluation = DeviceEvaluation(self.runtime, plan, device_plan, kept, request, pace, cached)
            # The evaluation now has the only reference to the cached states, so it can free them before it allocates.
            cached = None
            try:
                result = evaluation.evaluate(limit)
                self._cached_states = evaluation.cached
                return result
            except self.runtime.out_of_memory as error:
                if isinstance(error, DoesNotFit) or evaluation.chunk_bytes >= failed_bytes:
                    raise
                failed_bytes = evaluation.chunk_bytes
                limit = max(evaluation.chunk_bytes // 2, evaluation.smallest)
                self._forget_observables(0)
                _log.warning("the device ran out of memory; trying again with chunks of at most %d bytes", limit)

    def _take_cached_states(self, device_plan: DevicePlan, request: Request) -> CachedFinalStates | None:
        """Return the final states of the last call if this request may start from them, else None.

        The engine drops its own reference in both cases, so that their memory can be freed.
        """
        cached, self._cached_states = self._cached_states, None
        if cached is None or not cached.may_serve(device_plan, self.runtime.current_stream(), request):
            return None
        return cached

    def _memory_for(self, cached: CachedFinalStates | None, num_bytes: int) -> int:
        """Return the bytes that an evaluation may use: a share of the free memory, and at most the memory limit.

        Args:
            cached: final states that the evaluation frees, or None.
            num_bytes: bytes of the observables, which are on the device already.
        """
        free = self.runtime.free_memory() + (cached.num_bytes if cached else 0)
        limit = max(int(free * _MEMORY_SHARE), free - _MEMORY_RESERVE)
        if self.memory_limit is not None:
            limit = min(limit, self.memory_limit - num_bytes)
        return limit

    def release_memory(self) -> None:
        """Free the device memory that is kept between calls: plans, observables, and cached final states."""
        with self._running, self._lock, self.runtime.context():
            self._plans.clear()
            self._observables.clear()
            self._cached_states = None
            self.runtime.free_unused_memory()

    def tile_qubits(self, dtype: str, num_qubits: int) -> int:
        """Return t, the largest number of qubits of a tile, for a state of ``num_qubits`` qubits."""
        if self.max_tile_qubits is not None:
            return self.max_tile_qubits
        num_states = states_at_once(dtype, self.runtime.shared_memory_per_multiprocessor)
        return choose_tile_qubits(num_qubits, dtype, self.runtime.shared_memory_per_block, num_states)

    def _device_plan(self, plan: FusedProgram, dtype: str) -> DevicePlan:
        with self._lock:
            by_dtype = self._plans.setdefault(plan, {})
            if dtype not in by_dtype:
                tile_qubits = self.tile_qubits(dtype, plan.num_qubits)
                by_dtype[dtype] = DevicePlan(self._order, plan, tile_qubits, dtype, self.compile_above)
            return by_dtype[dtype]

    def _device_observables(
        self, masks: TermMasks, request: Request, num_address_bits: int
    ) -> DeviceObservables | DeviceOutcomes:
        with self._lock:
            key = (masks, request.dtype, num_address_bits)
            observables = self._observables.get(key)
            if observables is None:
                limit, dtype = self.memory_limit, request.dtype
                room = _MAX_OBSERVABLE_BYTES if limit is None else min(_MAX_OBSERVABLE_BYTES, limit // 4)
                with self._order.kept_arrays():
                    if isinstance(masks, OutcomeMasks):
                        observables = self._device_outcomes(masks, request, num_address_bits, room)
                    else:
                        observables = device_observables(self.runtime, masks, num_address_bits, dtype, room)
                        self._fill_diagonals(observables, num_address_bits, dtype)
                self._forget_observables(room - observables.num_bytes)
                self._observables[key] = observables
            self._observables.move_to_end(key)
            return observables

    def _device_outcomes(
        self, masks: OutcomeMasks, request: Request, num_address_bits: int, room: int
    ) -> DeviceOutcomes:
        """Make the lists of outcomes and copy them to the device, after a check of the memory.

        Raises:
            DoesNotFit: when the lists and the states of one row exceed the memory limit.
        """
        n, runtime, cures = len(masks.weights), self.runtime, "fewer qubits, device='cpu'"
        if n > MAX_QUBITS:
            raise DoesNotFit(
                f"device='cuda' computes probabilities of states of at most {MAX_QUBITS} qubits, and the measured "
                f"qubits see {n} qubits; use {cures.replace(',', ' or')}."
            )
        num_bytes = most_bytes(num_address_bits, masks.num_observables)
        self._forget_observables(room - num_bytes)
        needed = num_bytes + (
            (1 + (request.gradient is not None)) * np.dtype(request.dtype).itemsize << num_address_bits
        )
        limit = self._memory_for(self._cached_states, 0)
        if needed > limit:
            raise DoesNotFit(
                f"the statevector of {n} qubits and the outcomes of its amplitudes take {needed / 2**30:.3g} GiB in "
                f"{request.dtype}, of {runtime.name} {limit / 2**30:.3g} GiB may be used; use {cures} or a larger "
                "memory_limit."
            )
        return device_outcomes(runtime, masks.outcome, masks.num_observables, num_address_bits)

    def _fill_diagonals(self, observables: DeviceObservables, num_address_bits: int, dtype: str) -> None:
        """Compute the diagonals of the groups of terms, if the device stores them."""
        if observables.diagonals is None or not observables.num_groups:
            return
        blocks = -(-(1 << num_address_bits) // _BLOCK) * observables.num_groups
        args = observables.groups, observables.terms, np.int32(num_address_bits), observables.diagonals
        kernel(self.runtime, "observe.cu", "fill_diagonals", dtype)(blocks, _BLOCK, args)

    def _forget_observables(self, room: int) -> None:
        """Drop the least recently used observables until the others take at most ``room`` bytes."""
        cached = self._observables
        while cached and (len(cached) >= _MAX_OBSERVABLES or sum(part.num_bytes for part in cached.values()) > room):
            cached.popitem(last=False)


@on_release
def _release_all() -> None:
    for engine in list(_made):
        engine.release_memory()


@in_child
def _forget_all() -> None:
    _made.clear()  # a forked child cannot free the device memory of its parent
