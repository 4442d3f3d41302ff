# SPDX-License-Identifier: Apache-2.0
"""Evaluates fused programs for a batch whose rows are all in memory: chooses the device, and keeps the memory limit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from qiskit_fused.common.byte_sizes import LEAST_LIMIT, format_bytes
from qiskit_fused.common.free_memory import ALWAYS_FREE
from qiskit_fused.engines.cpu.costs import chunk_bits
from qiskit_fused.engines.cpu.engine import CpuEngine, PreparedCall
from qiskit_fused.engines.cpu.method import Choice, choose, choose_unlimited
from qiskit_fused.engines.evaluation import Evaluation
from qiskit_fused.engines.interface import DoesNotFit, Watch
from qiskit_fused.engines.request import Request
from qiskit_fused.execution.devices import bytes_of_states, choose_device, engine_for, runs_on_cpu, say_once
from qiskit_fused.execution.initial_states import evaluate_from_states
from qiskit_fused.execution.shared_evaluation import LIMIT_SHARE, MOST_BYTES, SharedBatch, evaluate_shared, find_mode
from qiskit_fused.execution.shared_parts import ROWS, find_sharing, is_worth_splitting, may_share
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.fusion.light_cones import with_seen_gates
from qiskit_fused.options import FusedOptions
from qiskit_fused.program.observables import Observables


class _Record(NamedTuple):
    """A record of one evaluation by an engine.

    Attributes:
        device: the device of the engine.
        fused: the fused program that the engine ran.
        mode: the mode of sharing, see `shared_parts`: ROWS, PREFIX or OBSERVABLE.
        stats: the stats of the engine.
    """

    device: str
    fused: FusedProgram
    mode: str
    stats: dict[str, Any]


class ProgramEvaluator:
    """Evaluates fused programs of one circuit.

    Args:
        options: device, threads and memory limit.
        keeps_records: whether a record of each evaluation by an engine is kept, for `stats`.
    """

    def __init__(self, options: FusedOptions, *, keeps_records: bool):
        self.options = options
        self._records: list[_Record] | None = [] if keeps_records else None

    def stats(self, request: Request) -> Iterator[dict[str, Any]]:
        """Yield the stats of each evaluation by an engine. Entries that the engine left out get default values."""
        for device, fused, mode, stats in self._records or ():
            num_bytes = bytes_of_states(fused, request.dtype, request.gradient is not None)
            names = {"device": device, "dtype": request.dtype, "shared": mode}
            yield {"kernels": device, "chunks": 1, "bytes": num_bytes, **stats, **names}

    def evaluate(
        self, fused: FusedProgram, operators: Observables, request: Request, watch: Watch | None, result_bytes: int = 0
    ) -> Evaluation:
        """Evaluate some terms of the observables. Gates that all rows share are simulated once where that saves time.

        Args:
            fused: the gates that the terms see.
            operators: the terms.
            request: rows and pairs.
            watch: told the progress of this evaluation.
            result_bytes: bytes of results of other terms, which are in memory at the same time.

        Raises:
            MemoryError: when the batch does not fit the memory limit.
        """
        options = self.options
        device = "cuda"  # split columns are for the CUDA engine
        if not request.is_split:
            has_gradient = request.gradient is not None
            device = choose_device(options, fused, request.num_rows, request.num_gradients, has_gradient)
        if device == "reference":
            fused = with_seen_gates(fused)
        shared = self._find_shared(device, fused, operators, request)
        limited = _beside(result_bytes, options)
        try:
            return self._evaluate_on(device, limited, fused, operators, request, watch, shared)
        except DoesNotFit as error:
            if options.device != "auto" or request.is_split:
                raise
            say_once(f"device='auto' runs on the CPU: {error}")
            return self._evaluate_on("cpu", limited, fused, operators, request, watch, shared)

    def prepare(self, fused: FusedProgram, operators: Observables, request: Request) -> PreparedCall | None:
        """Return the call that `evaluate` makes for all requests that differ from this one in their numbers alone.

        Return None where the numbers, the free memory or a GPU decide how a request is evaluated.
        """
        options, num_rows, has_gradient = self.options, request.num_rows, request.gradient is not None
        if fused.takes_states or not runs_on_cpu(options, fused, num_rows, request.num_gradients, has_gradient):
            return None
        looks_at_rows = may_share(fused, num_rows) and not request.needs_all_gates
        if looks_at_rows and (request.may_vary is None or self._find_shared("cpu", fused, operators, request)):
            return None
        terms, num_threads = operators.restrict(fused.wires), num_threads_for(options, fused, num_rows)
        arguments = options.method, options.num_segments, num_threads
        _, choice, num_bytes = choose_unlimited(fused, request, terms, *arguments)
        if choice.advice or options.limit_for(num_bytes) is not None:
            return None
        engine = engine_for("cpu", options, choice.num_threads)
        if not isinstance(engine, CpuEngine):
            return None
        return engine.prepare(fused, operators, request._replace(method=choice.method))

    def _evaluate_on(
        self,
        device: str,
        options: FusedOptions,
        fused: FusedProgram,
        operators: Observables,
        request: Request,
        watch: Watch | None,
        shared: SharedBatch | None,
    ) -> Evaluation:
        """Evaluate on one device, in the mode of ``shared`` or every row on its own."""
        if shared is None:
            return self._run(device, options, operators, ROWS, fused, request, watch)
        return evaluate_shared(partial(self._run, device, options, operators, shared.mode), shared, watch)

    def _run(
        self,
        device: str,
        options: FusedOptions,
        operators: Observables,
        mode: str,
        fused: FusedProgram,
        request: Request,
        watch: Watch | None,
    ) -> Evaluation:
        """Evaluate a fused program by the engine of a device, and record the evaluation.

        Rows start in the states of the request, or where the fused program starts them.
        """
        if device == "cuda":
            engine, method = engine_for(device, options), options.gpu_method()
        else:
            choice = choose_method(options, fused, operators, request)
            engine, method = engine_for(device, options, choice.num_threads), choice.method
        columns, pairs, gradient, boundary, dtype, former_method, may_vary = request
        if gradient is not None and gradient.of_initial_states and not fused.takes_states:
            gradient = gradient._replace(of_initial_states=False)  # no qubit with an initial state is in the light cone
        if method is not former_method or gradient is not request.gradient:
            request = Request(columns, pairs, gradient, boundary, dtype, method, may_vary)

        def run(request: Request, watch: Watch | None) -> Evaluation:
            evaluation = engine.evaluate(fused, operators, request, watch)
            if self._records is not None:
                self._records.append(_Record(device, fused, mode, evaluation.stats))
            return evaluation

        if fused.takes_states and (boundary.initial is None or boundary.on_circuit_qubits):
            return evaluate_from_states(fused, request, run, watch)
        return run(request, watch)

    def _find_shared(
        self, device: str, fused: FusedProgram, operators: Observables, request: Request
    ) -> SharedBatch | None:
        """Return the batch with its mode of sharing, or None where every row is simulated on its own."""
        if not may_share(fused, request.num_rows) or device == "reference" or request.is_split:
            return None
        if request.needs_all_gates:
            return None
        options, varies = self.options, request.may_vary
        if varies is None:
            varies = request.varying_columns
            if not is_worth_splitting(fused, varies, request.num_rows):
                return None
        room = MOST_BYTES
        if options.memory_limit is not None:
            room = min(room, options.resolve_memory_limit() // LIMIT_SHARE)
        batch = SharedBatch(find_sharing(fused, varies), operators, request, room)
        mode = find_mode(batch)
        return None if mode == ROWS else batch._replace(mode=mode)


def _beside(result_bytes: int, options: FusedOptions) -> FusedOptions:
    """Return options whose memory limit is lower by the bytes of results that are in memory already.

    Raises:
        MemoryError: when less than the least allowed memory limit would be left.
    """
    if not result_bytes or (options.memory_limit is None and result_bytes <= ALWAYS_FREE):
        return options
    limit = options.resolve_memory_limit()
    if limit - result_bytes < LEAST_LIMIT:
        raise MemoryError(
            f"values and gradients take {format_bytes(result_bytes)}, memory_limit is {format_bytes(limit)}; ask for "
            "fewer rows or observables at a time or raise memory_limit."
        )
    return replace(options, memory_limit=limit - result_bytes)


def is_for_one_thread(fused: FusedProgram, num_rows: int) -> bool:
    """Say whether a batch runs on one thread: threads share a batch row by row, or share one row chunk by chunk."""
    return num_rows == 1 and not chunk_bits(fused.num_qubits)


def num_threads_for(options: FusedOptions, fused: FusedProgram, num_rows: int) -> int:
    """Return the largest number of threads for a batch on the CPU.

    The environment is not asked for the number of threads of a batch for one thread, which would take 2 us.
    """
    return 1 if is_for_one_thread(fused, num_rows) else options.resolve_num_threads()


def choose_method(options: FusedOptions, fused: FusedProgram, operators: Observables, request: Request) -> Choice:
    """Return the method and the number of threads for a request on the CPU.

    Raises:
        MemoryError: when the request does not fit the memory limit.
        ValueError: for options that exclude each other.
    """
    options.check_method()
    choice = choose(
        fused,
        request,
        operators.restrict(fused.wires),
        method=options.method,
        num_segments=options.num_segments,
        num_threads=num_threads_for(options, fused, request.num_rows),
        limit_of=options.limit_for,
        limit_name="80 % of the free memory" if options.memory_limit is None else "memory_limit",
    )
    if choice.advice:
        say_once(choice.advice)
    return choice
