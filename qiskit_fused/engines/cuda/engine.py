# SPDX-License-Identifier: Apache-2.0
"""The CUDA engine: launches the kernels of ``kernels/cuda/*.cu`` on a runtime.

Everything stays on the device until the answers are copied. No pair writes what another one reads, so results do not
depend on chunks, bit for bit.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

import numpy as np

from qiskit_fused.common.array_modules import array_module
from qiskit_fused.common.caches import on_release
from qiskit_fused.common.forks import in_child, new_lock, new_rlock
from qiskit_fused.engines.cuda.device_data import DeviceObservables, DevicePlan, device_observables
from qiskit_fused.engines.cuda.evaluation import DeviceEvaluation
from qiskit_fused.engines.cuda.formats import REGISTER_QUBITS, amplitude_format, choose_tile_qubits
from qiskit_fused.engines.cuda.launch import kernel
from qiskit_fused.engines.cuda.throttle import Pace
from qiskit_fused.engines.cuda.work_items import CachedFinalStates
from qiskit_fused.engines.evaluation import Evaluation
from qiskit_fused.engines.interface import DoesNotFit, Watch
from qiskit_fused.engines.request import Request

if TYPE_CHECKING:
    from qiskit_fused.fusion.fused_program import FusedProgram
    from qiskit_fused.program.observables import Observables, TermMasks

_BLOCK = 128  # threads of `fill_diagonals`
_MEMORY_SHARE = 0.9  # of what is free, for one evaluation; all but this many bytes at least:
_MEMORY_RESERVE = 1 << 30
_KEPT_OBSERVABLES = 64
_KEPT_DIAGONALS = 1 << 28  # bytes

_log = logging.getLogger("qiskit_fused")


_made: WeakSet[CudaEngine] = WeakSet()


class CudaEngine:
    """Fused sweeps on a CUDA device.

    Args:
        runtime: the device (`CupyRuntime`).
        memory_limit: bytes of device memory at most; None takes what is free.
        max_tile_qubits: t at most; None takes the most that the shared memory of a block holds, up to 12 for
            complex64 and 11 for complex128, or one more where that is the whole state.
    """

    name = "cuda"

    def __init__(self, runtime: Any, memory_limit: int | None = None, max_tile_qubits: int | None = None):
        self.runtime = runtime
        self.memory_limit = memory_limit
        self.max_tile_qubits = max_tile_qubits
        self._plans: WeakKeyDictionary[FusedProgram, dict[str, DevicePlan]] = WeakKeyDictionary()
        self._observables: OrderedDict[tuple[TermMasks, str, int], DeviceObservables] = OrderedDict()
        self._cached_states: CachedFinalStates | None = None
        self._mark: Any = None  # of the work that was launched last, maybe in another stream
        self._lock = new_lock()
        self._running = new_rlock()  # one evaluation at a time: each counts on the memory that is free
        _made.add(self)

    def evaluate(
        self, plan: FusedProgram, observables: Observables, request: Request, watch: Watch | None = None
    ) -> Evaluation:
        """Evaluate pairs of rows and observables (see `Engine.evaluate`).

        Arrays of the request may be on the device, of work in the current stream: then answers stay there, and of the
        numbers only one bool for each column comes to the host, whether it varies between rows. Gradients of columns
        that are summed are summed on the device, in the order of rows and in double precision; for a request on the
        host, row 0 has these sums.

        Raises:
            DoesNotFit: when the states of one pair exceed the memory limit, before anything is allocated.
            RuntimeError: when ``watch`` ended it.
        """
        boundary = request.boundary
        final_states = boundary.final or boundary.final_cotangents is not None
        is_real = plan.stays_real(imaginary=request.imaginary, final_states=final_states)
        dtype = amplitude_format(request.dtype, is_real)
        with self._running, self.runtime.context(), self._behind_earlier_work():
            columns = array_module(request.columns).ascontiguousarray(request.columns, dtype=np.float64)
            return self._evaluate(plan, observables, request._replace(columns=columns, dtype=dtype), watch)

    def _evaluate(
        self, plan: FusedProgram, observables: Observables, request: Request, watch: Watch | None
    ) -> Evaluation:
        """Evaluate in the current stream; where the device has less memory than it says, again in smaller chunks."""
        device_plan = self._device_plan(plan, request.dtype)
        terms = self._device_observables(
            observables.restrict(plan.wires), device_plan.passes.num_address_bits, request.dtype
        )
        pace = Pace(self.runtime, watch)
        cached = self._take_cached_states(device_plan, request)
        limit = self._memory_for(cached, terms)
        smallest_failure: float = np.inf
        while True:
            evaluation = DeviceEvaluation(self.runtime, plan, device_plan, terms, request, pace, cached)
            # The evaluation alone refers to these states now, so that it can free them where it has no use for them.
            cached = None
            try:
                found = evaluation.evaluate(limit)
                self._cached_states = evaluation.cached
                return found
            except self.runtime.out_of_memory as error:
                if isinstance(error, DoesNotFit) or evaluation.chunk_bytes >= smallest_failure:
                    raise
                smallest_failure = evaluation.chunk_bytes
                limit = max(evaluation.chunk_bytes // 2, evaluation.smallest)
                self._forget_observables(0)
                _log.warning("the device ran out of memory; trying again with chunks of at most %d bytes", limit)

    def _take_cached_states(self, device_plan: DevicePlan, request: Request) -> CachedFinalStates | None:
        """Return the last states of the call before where they may serve this one; the engine forgets them."""
        cached, self._cached_states = self._cached_states, None
        if cached is None or not cached.may_serve(device_plan, self.runtime.current_stream(), request):
            return None
        return cached

    def _memory_for(self, cached: CachedFinalStates | None, terms: DeviceObservables) -> int:
        """Return the bytes that an evaluation may use: max(0.9 x free, free - 1 GiB), and no more than the limit."""
        free = self.runtime.free_memory() + (cached.num_bytes if cached else 0)
        limit = max(int(free * _MEMORY_SHARE), free - _MEMORY_RESERVE)
        if self.memory_limit is not None:
            limit = min(limit, self.memory_limit - terms.num_bytes)
        return limit

    @contextmanager
    def _behind_earlier_work(self) -> Iterator[None]:
        """Let the current stream wait for what other evaluations have launched in theirs: they share plans."""
        if self._mark is not None:
            self.runtime.wait_for(self._mark)
        try:
            yield
        finally:
            self._mark = self.runtime.mark()

    def release_memory(self) -> None:
        """Free the device memory that is kept between calls: plans, observables, and the last states."""
        with self._running, self._lock, self.runtime.context():
            self._plans.clear()
            self._observables.clear()
            self._cached_states = None
            self.runtime.free_unused_memory()

    def tile_qubits(self, dtype: str, num_qubits: int) -> int:
        """Return t, the most qubits of a tile, for a state of that many qubits."""
        if self.max_tile_qubits is not None:
            return self.max_tile_qubits
        return choose_tile_qubits(num_qubits, dtype, self.runtime.shared_memory_per_block)

    def _device_plan(self, plan: FusedProgram, dtype: str) -> DevicePlan:
        with self._lock:
            by_dtype = self._plans.setdefault(plan, {})
            if dtype not in by_dtype:
                by_dtype[dtype] = DevicePlan(
                    self.runtime.xp, plan, self.tile_qubits(dtype, plan.num_qubits), REGISTER_QUBITS[dtype], dtype
                )
            return by_dtype[dtype]

    def _device_observables(self, masks: TermMasks, num_address_bits: int, dtype: str) -> DeviceObservables:
        with self._lock:
            key = (masks, dtype, num_address_bits)
            found = self._observables.get(key)
            if found is None:
                room = _KEPT_DIAGONALS if self.memory_limit is None else min(_KEPT_DIAGONALS, self.memory_limit // 4)
                found = device_observables(self.runtime.xp, masks, num_address_bits, dtype, room)
                if found.diagonals is not None and found.num_groups:
                    blocks = -(-(1 << num_address_bits) // _BLOCK) * found.num_groups
                    fill = kernel(self.runtime, "observe.cu", "fill_diagonals", dtype)
                    fill(blocks, _BLOCK, (found.groups, found.terms, np.int32(num_address_bits), found.diagonals))
                self._forget_observables(room - found.num_bytes)
                self._observables[key] = found
            self._observables.move_to_end(key)
            return found

    def _forget_observables(self, room: int) -> None:
        """Forget the least recent observables until the diagonals of the others take at most ``room`` bytes."""
        kept = self._observables
        while kept and (len(kept) >= _KEPT_OBSERVABLES or sum(one.num_bytes for one in kept.values()) > room):
            kept.popitem(last=False)


@on_release
def _release_all() -> None:
    for engine in list(_made):
        engine.release_memory()


@in_child
def _forget_all() -> None:
    _made.clear()  # a child cannot free the device memory of its parent
