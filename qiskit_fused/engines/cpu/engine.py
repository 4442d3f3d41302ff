# SPDX-License-Identifier: Apache-2.0
"""The CPU engine: passes plans and arrays to the C++ extension, and caches the observables that the extension made."""

from __future__ import annotations

from functools import partial
from time import monotonic
from typing import Any, NamedTuple

import numpy as np

from qiskit_fused import _cpu
from qiskit_fused.common.caches import BoundedCache, array_bytes, on_release
from qiskit_fused.common.free_memory import free_memory, reclaimable
from qiskit_fused.engines.checkpointing import Schedule, schedule_of
from qiskit_fused.engines.cpu.costs import num_positions
from qiskit_fused.engines.cpu.native_plan import NativePlan, native_plan
from qiskit_fused.engines.evaluation import Evaluation, empty_evaluation
from qiskit_fused.engines.interface import Watch
from qiskit_fused.engines.request import NO_STATES, Request
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.options.method import REVERSE
from qiskit_fused.program.observables import Observables, TermMasks

isa = _cpu.isa

reclaimable.append(_cpu.kept_bytes)
on_release(partial(_cpu.release_memory, 0))

# Observables of the extension, shared by all engines. The bound, in bytes, counts the arrays of the terms as well.
_OBSERVABLES: BoundedCache[Any] = BoundedCache(1 << 30)
# Setups of plans for terms and read-only pairs, which a training loop uses at each step. The bound is in bytes.
_SETUPS: BoundedCache[_Setup] = BoundedCache(32 << 20)

_ALWAYS_KEPT = 16 << 20  # bytes of workspaces that the extension keeps even if no memory is free
_CHECK_SECONDS = 1.0  # least time between two checks of the free memory, in seconds; a check takes 0.1 ms
_next_check = 0.0

# Work is counted in rotations of one amplitude; a rotation takes 1 ns on one core.
_WATCHED_WORK = 10**8  # above this work, 0.1 s, a second thread computes, and this thread calls the watch
_WORK_OF_ROW = 1000  # work to begin a row, or the gradient of a pair
_WORK_OF_ANGLE = 30  # work of the sine and cosine of one angle of one row, and of the sum of its gradient
_WORK_OF_DIAGONAL = 8  # work of one element of the diagonal table of an observable


class _Setup(NamedTuple):
    """The part of an evaluation that is the same for all evaluations of a plan with the same terms and pairs.

    Attributes:
        native: the plan in the form of the extension.
        observables: the observables in the form of the extension.
        begin: int64 (B + 1,); the pairs of row b are begin[b]:begin[b + 1].
        num_rows_with_pairs: the number of rows that have pairs.
        most_work: the nanoseconds on one core of an evaluation without a schedule, at most.
        terms: the terms of the observables.
        rows: int32 (N,), the row of each pair, ascending.
    """

    native: NativePlan
    observables: Any
    begin: np.ndarray
    num_rows_with_pairs: int
    most_work: int
    terms: TermMasks
    rows: np.ndarray


class PreparedCall(NamedTuple):
    """An evaluation of which all but the numbers is known: the columns, and the cotangents if there are any.

    The evaluation is short: nothing watches it. Its states start in |0...0> and are not returned.

    Attributes:
        setup: the plan, the observables and the pairs.
        pair_observable: int32 (N,), the observable of each pair.
        summed: bool (C,), see `Request.summed_columns`.
        shape: the number of pairs N, the number of gradients or None, and the number of columns C.
        arguments: the last arguments of ``_cpu.evaluate``, which are the same in all evaluations.
    """

    setup: _Setup
    pair_observable: np.ndarray
    summed: np.ndarray | None
    shape: tuple[int, int | None, int]
    arguments: tuple[Any, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes that the call keeps beside the arrays of the request."""
        return self.setup.terms.num_bytes + self.setup.begin.nbytes

    def evaluate(self, columns: np.ndarray, cotangents: np.ndarray | None) -> Evaluation:
        """Evaluate rows of columns, with the cotangents of a request.

        The stats only say whether all columns are finite.
        """
        _release_if_memory_is_short()
        setup, pair_observable, summed, (num_pairs, num_gradients, num_columns), arguments = self
        values = np.empty(num_pairs)
        gradients = None if num_gradients is None else np.empty((num_gradients, num_columns))
        plan, begin = setup.native.plan, setup.begin
        *_, is_finite = _cpu.evaluate(
            plan, setup.observables, columns, begin, pair_observable, cotangents, summed, values, gradients, *arguments
        )
        return Evaluation(values, gradients, {"is_finite": is_finite})


def _watch_nothing(done: int, total: int) -> bool:
    """Let an evaluation go on. With this watch, Ctrl-C still ends a long evaluation."""
    return False


def fma_peak(dtype: str = "complex64", num_threads: int = 1) -> float:
    """Measure the flop/s of multiply-adds on registers, in the real format of ``dtype``. Cost: about 0.1 s."""
    return float(_cpu.fma_peak(dtype == "complex64", num_threads))


class CpuEngine:
    """Fused sweeps on the CPU.

    Args:
        num_threads: largest number of threads. Several rows run side by side; threads share a single row of 14 or more
            qubits. Results are the same bits for any number of threads.
    """

    name = "cpu"

    def __init__(self, num_threads: int = 1):
        self.num_threads = num_threads

    def evaluate(
        self, plan: FusedProgram, observables: Observables, request: Request, watch: Watch | None = None
    ) -> Evaluation:
        """Evaluate pairs of rows and observables (see `Engine.evaluate`)."""
        _release_if_memory_is_short()
        columns, pairs, gradient, boundary, dtype, method, _ = request
        num_rows, cotangents, summed, imaginary = len(columns), None, None, False
        if gradient is not None:
            cotangents, imaginary = gradient.cotangents, gradient.imaginary
            summed = None if gradient.summed is None else request.summed_columns
        setup = _set_up(plan, observables.restrict(plan.wires), pairs.row, num_rows)
        native, terms, num_rows_with_pairs = setup.native, setup.terms, setup.num_rows_with_pairs
        takes_cotangents_of_pairs = gradient is not None and boundary.final_cotangents is None
        if takes_cotangents_of_pairs and boundary.final and num_rows_with_pairs < num_rows:
            raise ValueError("final states and gradients together need pairs in every row, or final cotangents.")
        schedule = None
        if gradient is not None and method.name != REVERSE.name:
            schedule = schedule_of(method, num_positions(plan, imaginary=imaginary))
        num_states = 1 if schedule is None else schedule.num_states
        evaluation = empty_evaluation(request, plan.num_qubits)
        states = boundary.initial, boundary.final_cotangents, evaluation.final_states, evaluation.state_gradients
        actions = None if schedule is None else schedule.actions
        is_long = schedule is not None or setup.most_work > _WATCHED_WORK
        is_long = is_long and _work(native, terms, _count_units(request, terms), num_rows, schedule) > _WATCHED_WORK
        threads, _, num_bytes, bind_seconds, sweep_seconds, _ = _cpu.evaluate(
            native.plan,
            setup.observables,
            columns,
            setup.begin,
            pairs.observable,
            cotangents,
            summed,
            evaluation.values,
            evaluation.gradients,
            imaginary,
            dtype == "complex64",
            self.num_threads,
            actions,
            num_states,
            method.kept_bytes,
            *states,
            (watch or _watch_nothing) if is_long else None,
        )
        num_bytes += columns.nbytes + evaluation.values.nbytes
        num_sweeps = num_rows
        if gradient is not None:
            num_sweeps += num_rows_with_pairs if cotangents is not None else len(evaluation.gradients)
            num_bytes += evaluation.gradients.nbytes
        if boundary is not NO_STATES or actions is not None:
            num_bytes += sum([array.nbytes for array in (actions, *states) if array is not None])
        evaluation.stats = {
            "kernels": isa(),
            "num_threads": threads,
            "sweeps": native.num_sweeps * num_sweeps,
            "chunks": 1,
            "bytes": num_bytes,
            "bind_seconds": bind_seconds,
            "sweep_seconds": sweep_seconds,
        }  # fmt: skip
        if gradient is not None:
            evaluation.stats |= {"method": method.name, "states": num_states}
        return evaluation

    def prepare(self, plan: FusedProgram, observables: Observables, request: Request) -> PreparedCall | None:
        """Return the call for all requests that differ from this one in their numbers alone.

        Return None for a request whose evaluation may be long. The request has read-only pairs, and no states at its
        boundary.
        """
        num_rows, pairs, gradient = request.num_rows, request.pairs, request.gradient
        schedule, imaginary = None, request.imaginary
        if gradient is not None:
            schedule = schedule_of(request.method, num_positions(plan, imaginary=imaginary))
        setup = _set_up(plan, observables.restrict(plan.wires), pairs.row, num_rows)
        if _work(setup.native, setup.terms, max(request.num_pairs, num_rows), num_rows, schedule) > _WATCHED_WORK:
            return None
        num_states, actions = (1, None) if schedule is None else (schedule.num_states, schedule.actions)
        single, no_states, no_watch = request.dtype == "complex64", (None,) * 4, None
        return PreparedCall(
            setup,
            pairs.observable,
            request.summed_columns,
            (request.num_pairs, None if gradient is None else request.num_gradients, request.num_columns),
            (imaginary, single, self.num_threads, actions, num_states, request.method.kept_bytes, *no_states, no_watch),
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return CpuEngine, (self.num_threads,)


def _release_if_memory_is_short() -> None:
    """Release workspaces of the extension if it keeps more bytes than are free, because other processes need memory.

    The function checks the free memory at most once in `_CHECK_SECONDS`.
    """
    global _next_check
    now = monotonic()
    if now < _next_check:
        return
    _next_check = now + _CHECK_SECONDS
    num_bytes = _cpu.kept_bytes()
    if num_bytes > _ALWAYS_KEPT:
        free = free_memory()
        if free is not None and num_bytes > free:
            _cpu.release_memory(free // 2)


def _count_units(request: Request, terms: TermMasks) -> int:
    """Return the number of sweeps back and forth."""
    num_rows = request.num_rows
    if terms.outcome is not None:  # one pass over a state gives the values of all outcomes
        return max(request.num_gradients, num_rows)
    return max(request.num_pairs, num_rows * (request.boundary is not NO_STATES))


def _work(native: NativePlan, terms: TermMasks, units: int, num_rows: int, schedule: Schedule | None = None) -> int:
    """Estimate the nanoseconds that an evaluation takes on one core."""
    repeated = 1 if schedule is None else -(-schedule.num_steps // schedule.num_positions)
    work = native.num_rotations * repeated * units + (len(terms) * (num_rows + _WORK_OF_DIAGONAL) << native.num_qubits)
    return work + (_WORK_OF_ROW + _WORK_OF_ANGLE * native.num_angles) * units + num_rows * native.num_columns


def _set_up(plan: FusedProgram, terms: TermMasks, rows: np.ndarray, num_rows: int) -> _Setup:
    """Return the setup of a plan for some terms and pairs. The setup of a read-only array of rows is cached."""
    key = id(plan), id(terms), id(rows), num_rows
    setup = _SETUPS.get(key)
    if setup is None:
        begin = np.searchsorted(rows, np.arange(num_rows + 1)).astype(np.int64)
        num_rows_with_pairs = int(np.count_nonzero(np.diff(begin)))
        observables = native_observables(plan, terms)
        native = native_plan(plan)
        most_work = _work(native, terms, max(len(rows), num_rows), num_rows)
        setup = _Setup(native, observables, begin, num_rows_with_pairs, most_work, terms, rows)
        num_bytes = begin.nbytes + rows.nbytes + terms.num_bytes
        if not rows.flags.writeable and num_bytes < _SETUPS.max_bytes // 4:
            _SETUPS.put(key, setup, num_bytes, plan)
    return setup


def native_observables(plan: FusedProgram, terms: TermMasks) -> Any:
    """Return the observables in the form of the extension; they are made once for each plan and set of terms."""
    key = id(terms), plan.num_qubits
    native = _OBSERVABLES.get(key)
    if native is None and terms.outcome is not None:
        native = _cpu.make_outcomes(plan.num_qubits, terms.num_observables, terms.outcome)
        native = _OBSERVABLES.put(key, native, terms.num_bytes, terms)
    elif native is None:
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
