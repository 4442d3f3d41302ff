# SPDX-License-Identifier: Apache-2.0
"""The CPU engine: hands plans and arrays to the C++ extension and keeps what it made of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from qiskit_fused import _cpu
from qiskit_fused.common.caches import BoundedCache, array_bytes, on_release
from qiskit_fused.common.free_memory import free_memory, reclaimable
from qiskit_fused.engines.checkpointing import schedule_of
from qiskit_fused.engines.cpu.costs import num_positions
from qiskit_fused.engines.cpu.native_plan import native_plan
from qiskit_fused.engines.interface import NO_STATES, Ends, Evaluation, Watch
from qiskit_fused.options.method import REVERSE, Method

if TYPE_CHECKING:
    from qiskit_fused.fusion.fused_program import FusedProgram
    from qiskit_fused.program.observables import Observables, TermMasks

isa = _cpu.isa

reclaimable.append(_cpu.kept_bytes)
on_release(partial(_cpu.release_memory, 0))

# Observables in the extension, for engines of any number of threads. The bound counts their arrays as well.
_OBSERVABLES: BoundedCache[Any] = BoundedCache(1 << 30)
_LITTLE = 16 << 20  # bytes that are kept whatever is free
_LOOK_SECONDS = 1.0  # between two looks at the free memory, which take 0.1 ms
_next_look = 0.0
_ROW_BEGINS: BoundedCache[tuple[np.ndarray, int]] = BoundedCache(32 << 20)

# Longer calls than 0.1 s or so look out for Ctrl-C, beside a second thread that computes. Work is counted in rotations
# of one amplitude, 1 ns each on one core.
_WATCHED_WORK = 10**8
_WORK_OF_ROW = 1000  # to begin a row, or the gradient of a pair
_WORK_OF_ANGLE = 30  # to take the sine and cosine of one angle of one row, and to add up its gradient
_WORK_OF_DIAGONAL = 8  # to make one element of the diagonal table of an observable


def _never(done: int, total: int) -> bool:
    return False


def fma_peak(dtype: str = "complex64", num_threads: int = 1) -> float:
    """Measure the flop/s of multiply-adds on registers, in the real format of ``dtype``; takes about 0.1 s."""
    return float(_cpu.fma_peak(dtype == "complex64", num_threads))


class CpuEngine:
    """Fused sweeps on the CPU.

    Args:
        num_threads: threads at most. Rows run side by side; a single row of 14 or more qubits is shared by threads.
            Results do not depend on it.
    """

    name = "cpu"

    def __init__(self, num_threads: int = 1):
        self.num_threads = num_threads

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
        """Evaluate pairs of rows and observables (see `Engine.evaluate`)."""
        _mind_free_memory()
        terms = observables.restrict(plan.wires)
        native, native_observables = native_plan(plan), _native_observables(plan, terms)
        rows, chosen = pairs
        values = np.empty(len(rows))
        begin, num_asked = _begin_of_rows(rows, len(columns))
        gradients, backward = None, 0
        actions, num_states, repeated = None, 1, 1
        if not gradient:
            cotangents = None
        else:
            by_row = cotangents is not None or ends.final_cotangents is not None
            gradients = np.zeros((len(columns) if by_row else len(rows), columns.shape[1]))
            backward = num_asked if cotangents is not None else len(gradients)
        if gradient and ends.final and ends.final_cotangents is None and num_asked < len(columns):
            raise ValueError("final states and gradients together need pairs in every row, or final cotangents.")
        of_states, final_states = None, None
        if ends.final:
            final_states = np.empty((len(columns), 1 << plan.num_qubits), dtype=np.complex128)
        if gradients is not None:
            if method.name != REVERSE.name:
                schedule = schedule_of(method, num_positions(plan, imaginary=imaginary))
                assert schedule is not None
                actions, num_states = schedule.actions, schedule.num_states
                repeated = -(-schedule.num_steps // schedule.num_positions)
            if ends.initial_gradients:
                of_states = np.zeros((len(gradients), 1 << plan.num_qubits), dtype=np.complex128)
        units = max(len(rows), len(columns) * (ends is not NO_STATES))
        work = (plan.num_runs * repeated * units + len(terms) * (len(columns) + _WORK_OF_DIAGONAL)) << plan.num_qubits
        work += (_WORK_OF_ROW + _WORK_OF_ANGLE * (len(plan.leaf_kind) + len(plan.term_phase))) * units + columns.size
        states = (ends.initial, ends.final_cotangents, final_states, of_states)
        arrays = (columns, values, gradients, actions, *states)
        threads, _, num_bytes, bind_seconds, sweep_seconds, answer = _cpu.evaluate(
            native.plan,
            native_observables,
            columns,
            begin,
            chosen,
            cotangents,
            sum_columns,
            values,
            gradients,
            imaginary,
            dtype == "complex64",
            self.num_threads,
            actions,
            num_states,
            method.kept_bytes,
            *states,
            meanwhile,
            (watch or _never) if work > _WATCHED_WORK else None,
        )
        stats = {
            "kernels": isa(),
            "num_threads": threads,
            "sweeps": native.num_sweeps * (len(columns) + backward),
            "chunks": 1,
            "bytes": num_bytes + sum([array.nbytes for array in arrays if array is not None]),
            "bind_seconds": bind_seconds,
            "sweep_seconds": sweep_seconds,
        }  # fmt: skip
        if gradient:
            stats |= {"method": method.name, "states": num_states}
        return Evaluation(values, gradients, stats, answer, of_states, final_states)

    def __reduce__(self) -> tuple[Any, ...]:
        return CpuEngine, (self.num_threads,)


def _mind_free_memory() -> None:
    """Keep no more than is free, where other processes want the memory; looks for that once a second at most."""
    global _next_look
    now = monotonic()
    if now < _next_look:
        return
    _next_look = now + _LOOK_SECONDS
    kept = _cpu.kept_bytes()
    if kept > _LITTLE:
        free = free_memory()
        if free is not None and kept > free:
            _cpu.release_memory(free // 2)


def _begin_of_rows(rows: np.ndarray, num_rows: int) -> tuple[np.ndarray, int]:
    """Return int64 (B + 1,), the pairs of row b are begin[b]:begin[b + 1], and the rows that have some."""
    key = id(rows), num_rows
    kept = None if rows.flags.writeable else _ROW_BEGINS.get(key)
    if kept is None:
        begin = np.searchsorted(rows, np.arange(num_rows + 1)).astype(np.int64)
        kept = begin, int(np.count_nonzero(np.diff(begin)))
        if not rows.flags.writeable and begin.nbytes < _ROW_BEGINS.max_bytes // 4:
            _ROW_BEGINS.put(key, kept, begin.nbytes, rows)
    return kept


def _native_observables(plan: FusedProgram, terms: TermMasks) -> Any:
    key = id(terms), plan.num_qubits
    native = _OBSERVABLES.get(key)
    if native is None:
        native = _cpu.make_observables(
            plan.num_qubits,
            terms.num_observables,
            terms.observable,
            terms.x,
            terms.z,
            terms.care,
            terms.value,
            terms.real,
            terms.imag,
        )
        native = _OBSERVABLES.put(key, native, array_bytes(terms), terms)
    return native
