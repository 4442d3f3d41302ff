# SPDX-License-Identifier: Apache-2.0
"""The CUDA engine: launches the kernels of ``kernels/cuda/*.cu`` on a runtime.

Everything stays on the device until the answers are copied. No pair writes what another one reads, so results do not
depend on chunks, bit for bit.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

import numpy as np

from qiskit_fused.common.caches import on_release
from qiskit_fused.common.forks import in_child, new_lock, new_rlock
from qiskit_fused.engines.cuda.device_data import DeviceObservables, DevicePlan, device_observables
from qiskit_fused.engines.cuda.evaluation import Findings, Run
from qiskit_fused.engines.cuda.formats import REGISTER_QUBITS, amplitude_format, choose_tile_qubits
from qiskit_fused.engines.cuda.launch import kernel
from qiskit_fused.engines.cuda.request import Finals, Question
from qiskit_fused.engines.cuda.throttle import Pace
from qiskit_fused.engines.interface import NO_STATES, DoesNotFit, Ends, Evaluation, Watch
from qiskit_fused.options.method import REVERSE, Method

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
        self._finals: Finals | None = None
        self._mark: Any = None  # of the work that was launched last, maybe in another stream
        self._lock = new_lock()
        self._running = new_rlock()  # one evaluation at a time: each counts on the memory that is free
        _made.add(self)

    def evaluate(
        self,
        plan: FusedProgram,
        observables: Observables,
        columns: np.ndarray,
        pairs: tuple[np.ndarray, np.ndarray],
        *,
        gradient: bool = False,
        imaginary: bool = False,
        cotangents: np.ndarray | None = None,
        sum_columns: np.ndarray | None = None,
        dtype: str = "complex128",
        method: Method = REVERSE,
        ends: Ends = NO_STATES,
        meanwhile: Callable[[], Any] | None = None,
        watch: Watch | None = None,
    ) -> Evaluation:
        """Evaluate pairs of rows and observables (see `Engine.evaluate`).

        Gradients of ``sum_columns`` are summed on the device, in the order of rows and in double precision; row 0 has
        these sums.

        Raises:
            DoesNotFit: when the states of one pair exceed the memory limit, before anything is allocated.
            RuntimeError: when ``watch`` ended it.
        """
        columns = np.ascontiguousarray(columns, dtype=np.float64)
        final_states = ends.final or ends.final_cotangents is not None
        dtype = amplitude_format(dtype, plan.stays_real(imaginary=imaginary, final_states=final_states))
        question = Question(columns, *pairs, gradient, imaginary, cotangents, sum_columns, dtype, method, ends)
        found = self._answer(plan, observables, question, meanwhile, watch)
        gradients = found.gradients
        if gradients is not None and question.is_summed.any():
            gradients = np.zeros(columns.shape)
            gradients[:, ~question.is_summed] = found.gradients
            gradients[:1, question.is_summed] = found.sums
        return Evaluation(found.values, gradients, found.stats, found.answer, found.of_states, found.final_states)

    def evaluate_on_device(
        self,
        plan: FusedProgram,
        observables: Observables,
        columns: Any,
        pairs: tuple[np.ndarray, np.ndarray],
        *,
        cotangents: Any = None,
        sum_columns: np.ndarray | None = None,
        dtype: str = "complex128",
        method: Method = REVERSE,
        ends: Ends = NO_STATES,
        watch: Watch | None = None,
    ) -> Findings:
        """Evaluate as `evaluate` does, with arrays that are on the device and stay there.

        Of their numbers only the columns that vary between rows come to the host, one bool for each column.

        Args:
            plan: the plan.
            observables: the observables.
            columns: (B, C) on the device, of work in the current stream.
            pairs: row and observable of each pair, on the host.
            cotangents: (N,) on the device; gradients are wanted where it is given.
            sum_columns: on the host, as all that follows but the states of ``ends``.
            dtype: see `Engine.evaluate`, also for the rest.
            method: likewise.
            ends: likewise; no final states.
            watch: likewise.
        """
        with self.runtime.context():
            columns = self.runtime.xp.ascontiguousarray(columns, dtype=np.float64)
        gradient = cotangents is not None
        dtype = amplitude_format(dtype, plan.stays_real())
        question = Question(columns, *pairs, gradient, False, cotangents, sum_columns, dtype, method, ends, True)
        return self._answer(plan, observables, question, None, watch)

    def _answer(
        self,
        plan: FusedProgram,
        observables: Observables,
        question: Question,
        meanwhile: Callable[[], Any] | None,
        watch: Watch | None,
    ) -> Findings:
        with self._running, self.runtime.context(), self._behind_earlier_work():
            device_plan = self._device_plan(plan, question.dtype)
            terms = self._device_observables(
                observables.restrict(plan.wires), device_plan.passes.num_address_bits, question.dtype
            )
            pace = Pace(self.runtime, watch)
            finals, self._finals = self._finals, None
            if finals is not None and not finals.may_serve(device_plan, self.runtime.current_stream(), question):
                finals = None
            free = self.runtime.free_memory() + (finals.num_bytes if finals else 0)
            limit = max(int(free * _MEMORY_SHARE), free - _MEMORY_RESERVE)
            if self.memory_limit is not None:
                limit = min(limit, self.memory_limit - terms.num_bytes)
            smallest_failure: float = np.inf
            while True:
                run = Run(self.runtime, plan, device_plan, terms, question, pace, finals)
                finals = None  # the run gives them up where it has no use for them
                try:
                    found = run.evaluate(limit, meanwhile)
                    self._finals = run.finals
                    return found
                except self.runtime.out_of_memory as error:
                    if isinstance(error, DoesNotFit) or run.chunk_bytes >= smallest_failure:
                        raise
                    smallest_failure = run.chunk_bytes
                    limit = max(run.chunk_bytes // 2, run.smallest)
                    self._forget_observables(0)
                    if run.asked:
                        meanwhile = run.answer_again
                    _log.warning("the device ran out of memory; trying again with chunks of at most %d bytes", limit)

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
            self._finals = None
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
