# SPDX-License-Identifier: Apache-2.0
"""What the estimator and the gradient share: running a batch on an engine."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from qiskit_fused.common.byte_sizes import LEAST_LIMIT, format_bytes
from qiskit_fused.common.forks import in_child, new_lock
from qiskit_fused.common.free_memory import ALWAYS_FREE
from qiskit_fused.common.row_blocks import all_finite, columns_that_differ
from qiskit_fused.common.row_errors import RowError
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.engines.cpu.costs import chunk_bits
from qiskit_fused.engines.cpu.memory import Request
from qiskit_fused.engines.cpu.method import Choice, choose
from qiskit_fused.engines.cuda import availability
from qiskit_fused.engines.interface import NO_STATES, DoesNotFit, Engine, Evaluation, Watch
from qiskit_fused.engines.selection import require_gpu, select_engine, suits_gpu
from qiskit_fused.execution import segments
from qiskit_fused.execution.block_evaluation import evaluate_blocks
from qiskit_fused.execution.cone_evaluation import Part, evaluate_cones
from qiskit_fused.execution.executor import cut_rows, evaluate_portions
from qiskit_fused.execution.initial_states import FROM_CIRCUIT, RowStarts, evaluate_rows, join
from qiskit_fused.execution.magnitudes import evaluate_scaled, is_out_of_range
from qiskit_fused.execution.metrics import add_metrics
from qiskit_fused.execution.shared_evaluation import LIMIT_SHARE, MOST_BYTES, Batch, Wanted, evaluate_shared, find_mode
from qiskit_fused.execution.shared_parts import ROWS, find_sharing, is_worth_splitting, may_share
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.fusion.light_cones import with_seen_gates
from qiskit_fused.options import FusedOptions
from qiskit_fused.program.observables import Observables

_engines: dict[tuple[Any, ...], Engine] = {}
_engines_of_parents: list[dict[tuple[Any, ...], Engine]] = []
_lock = new_lock()
_log = logging.getLogger("qiskit_fused")
_said: set[str] = set()

Pairs = tuple[np.ndarray, np.ndarray]


@in_child
def _forget_engines() -> None:
    global _engines
    _engines_of_parents.append(_engines)  # kept: a child cannot free the device memory of its parent
    _engines = {}


def engine_for(device: str, options: FusedOptions, num_threads: int = 1) -> Engine:
    """Return the engine of a device: one per number of CPU threads, or per CUDA device and memory limit.

    Raises:
        RuntimeError: when the device cannot be used, with the reason.
    """
    runtime = require_gpu() if device == "cuda" else None
    key = (device, num_threads) if runtime is None else (device, runtime, options.memory_limit)
    engine = _engines.get(key)
    if engine is None:
        limit = None
        if runtime is not None and options.memory_limit is not None:
            limit = options.resolve_memory_limit(runtime.free_memory())
        with _lock:
            engine = _engines.setdefault(key, select_engine(device, num_threads, limit))
    return engine


def check_device(options: FusedOptions) -> None:
    """Raise now, not at the first run, when the device that is asked for cannot be used; workers have their own."""
    if options.device != "auto" and options.executor is None:
        engine_for(options.device, options, options.resolve_num_threads())


def choose_device(options: FusedOptions, plan: FusedProgram, num_rows: int, num_pairs: int, gradient: bool) -> str:
    """Return the device for a batch; "auto" is the GPU where it is usable, worth it and large enough, else the CPU."""
    if options.device != "auto":
        return options.device
    if not suits_gpu(plan.num_qubits, plan.num_runs, max(num_rows, num_pairs) if gradient else num_rows):
        return "cpu"
    runtime, reason = availability.usable_gpu()
    if runtime is None:
        if availability.is_cupy_installed() and not availability.is_switched_off():
            _say_once(f"device='auto' runs on the CPU: {reason}.")
        return "cpu"
    free = runtime.free_memory()
    limit = free if options.memory_limit is None else min(free, options.resolve_memory_limit(free))
    needed = _states(plan, options.dtype, gradient)
    if needed > limit:
        _say_once(
            f"device='auto' runs {plan.num_qubits} qubits on the CPU: they need {format_bytes(needed)}, and "
            f"{runtime.name} has {format_bytes(limit)}."
        )
        return "cpu"
    return "cuda"


def _states(plan: FusedProgram, dtype: str, gradient: bool) -> int:
    """Return the bytes of psi and, with gradient, lam."""
    return (1 + gradient) * np.dtype(dtype).itemsize << plan.num_qubits


def _say_once(text: str) -> None:
    if text not in _said:
        _said.add(text)
        _log.warning(text)


def evaluate(
    options: FusedOptions,
    compiled: CompiledCircuit,
    operators: Observables,
    values: np.ndarray,
    pairs: Pairs,
    *,
    gradient: bool = False,
    imaginary: bool = False,
    cotangents: np.ndarray | None = None,
    starts: RowStarts = FROM_CIRCUIT,
    wanted: Wanted | None = None,
    metrics: dict[str, Any] | None = None,
    meanwhile: Callable[[], Any] | None = None,
    watch: Watch | None = None,
) -> Evaluation:
    """Run one batch: rows of parameter values, observables, and the pairs of both that are asked for.

    Args:
        options: device, dtype, threads and memory limit.
        compiled: the circuit.
        operators: the K observables.
        values: float64 (B, P), finite.
        pairs: int32 row and observable of each of the N pairs, sorted by row.
        gradient: whether gradients are wanted.
        imaginary: give ``2 Im <psi|O|d psi>`` instead of the derivative ``2 Re <psi|O|d psi>``.
        cotangents: float64 (N,), weights of the pairs: gradients are then those of each row's weighted sum, (B, C).
        starts: states that rows start in, and whether gradients of the start are wanted.
        wanted: with cotangents, which gradients matter; columns that are summed must be the same in all rows. None is
            all of them.
        metrics: dict to add what ran to.
        meanwhile: called once beside the sweeps where the engine can, see `Evaluation.answer`; or once more where the
            rows turn out to need blocks.
        watch: told how much is done; see `Progress.watch`.

    Returns:
        Values (N,) and gradients (N, C) with respect to the program's columns (see `derivatives.pull_back`); with start
        states and their gradients also ``state_gradients``, on the qubits of the circuit.

    Raises:
        ValueError: when the amplitudes that a row starts in have no direction, or a result is larger than any float64,
            or the option num_segments is larger than the number of layers.
        UnsupportedInstruction: when rows bring states and the circuit needs qubits in |0>.
        MemoryError: when a single row exceeds the memory limit, before anything is allocated; several rows that exceed
            it together are evaluated in blocks.
    """
    start = time.perf_counter()
    if gradient:
        segments.check_option(options, compiled, operators, imaginary=imaginary, any_start=starts.states is not None)
    num_adjoint_states = len(values) if cotangents is not None else len(pairs[0])
    is_scaled = is_out_of_range(operators, cotangents, options.dtype)
    portions = [] if is_scaled else cut_rows(options, compiled, len(values), num_adjoint_states if gradient else None)
    flags: dict[str, Any] = {
        "gradient": gradient,
        "imaginary": imaginary,
        "starts": starts,
        "wanted": wanted,
        "cotangents": cotangents,
        "meanwhile": meanwhile,
        "watch": watch,
    }
    if is_scaled:
        flags |= {"options": options, "compiled": compiled, "values": values, "metrics": metrics}
        return evaluate_scaled(evaluate, operators, pairs, **flags)
    if portions:
        evaluations = evaluate_portions(evaluate, options, portions, (compiled, operators), values, pairs, **flags)
        if metrics is not None:
            for evaluation in evaluations:
                add_metrics(metrics, evaluation.stats)
            add_metrics(metrics, {"portions": len(portions), "seconds": time.perf_counter() - start})
        return join(evaluations)
    batch = options, compiled, operators, values, pairs
    try:
        return _evaluate_together(*batch, metrics=metrics, **flags)
    except MemoryError as error:
        refusal = error.with_traceback(None)  # whose frames would hold the arrays
    return evaluate_blocks(_evaluate_together, refusal, *batch, metrics=metrics, **flags)


def _evaluate_together(
    options: FusedOptions,
    compiled: CompiledCircuit,
    operators: Observables,
    values: np.ndarray,
    pairs: Pairs,
    *,
    gradient: bool,
    imaginary: bool,
    cotangents: np.ndarray | None,
    starts: RowStarts,
    wanted: Wanted | None,
    metrics: dict[str, Any] | None,
    meanwhile: Callable[[], Any] | None,
    watch: Watch | None,
) -> Evaluation:
    """Do what `evaluate` does, in this process and with all rows in memory at a time."""
    start = time.perf_counter()
    question = _Question(
        options, compiled, values, compiled.program.columns(values), gradient, imaginary, starts, wanted, []
    )
    whole, num_cones = Part(operators, pairs, cotangents, meanwhile, watch), 1
    if imaginary or starts.states is not None:
        # gates outside the light cone change nothing real, but do change Im <psi|O|d psi>
        support = None if imaginary else operators.support(compiled.num_qubits)
        evaluation = question.run(compiled.plan(support, any_start=starts.states is not None), whole)
    else:
        evaluation, num_cones = evaluate_cones(question.run, compiled, whole, len(values), gradient)
    if metrics is not None:
        counts = {"rows": len(values), "pairs": len(pairs[0]), "cones": num_cones}
        record: dict[str, Any] = counts | {"seconds": time.perf_counter() - start}
        for stats in question.stats():
            add_metrics(metrics, record | stats | counts)
            record = counts = dict.fromkeys(counts, 0)  # which were counted once
    return evaluation


class _Question(NamedTuple):
    """What `evaluate` is asked, and for each plan that ran: what ran it, the plan, and how rows shared work."""

    options: FusedOptions
    compiled: CompiledCircuit
    values: np.ndarray
    columns: np.ndarray
    gradient: bool
    imaginary: bool
    starts: RowStarts
    wanted: Wanted | None
    ran: list[tuple[_Runner, FusedProgram, str]]

    def run(self, plan: FusedProgram, part: Part) -> Evaluation:
        """Evaluate some terms of the observables, all rows together or what these share first."""
        options, num_rows = self.options, len(self.values)
        num_adjoint_states = num_rows if part.cotangents is not None else len(part.pairs[0])
        device = choose_device(options, plan, num_rows, num_adjoint_states, self.gradient)
        batch = None
        if device != "reference" and not self.imaginary and may_share(plan, num_rows):
            batch = self._find_shared(plan, part)
        try:
            return self._run_on(device, plan, part, batch)
        except DoesNotFit as error:
            if options.device != "auto":
                raise
            _say_once(f"device='auto' runs on the CPU: {error}")
            return self._run_on("cpu", plan, part, batch)

    def _run_on(self, device: str, plan: FusedProgram, part: Part, batch: Batch | None) -> Evaluation:
        operators, pairs, cotangents, meanwhile, watch, held = part
        if device == "reference":
            plan = with_seen_gates(plan)
        runner = _Runner(_beside(held, self.options), operators, device, self.imaginary, [])
        self.ran.append((runner, plan, ROWS if batch is None else batch.mode))
        if batch is not None:
            return evaluate_shared(runner, batch, meanwhile, watch)
        flags: dict[str, Any] = {"gradient": self.gradient, "cotangents": cotangents}
        if self.wanted is not None and cotangents is not None:
            flags["sum_columns"] = self.wanted.summed | self.wanted.unused
        return runner(plan, self.columns, pairs, self.starts, **flags, meanwhile=meanwhile, watch=watch)

    def stats(self) -> Iterator[dict[str, Any]]:
        """Yield the stats of each evaluation by an engine."""
        for runner, plan, mode in self.ran:
            num_bytes = _states(plan, self.options.dtype, self.gradient)
            defaults = {"kernels": runner.device, "chunks": 1, "bytes": num_bytes}
            own = {"device": runner.device, "dtype": self.options.dtype, "shared": mode}
            for stats in runner.stats:
                yield {**defaults, **stats, **own}

    def _find_shared(self, plan: FusedProgram, part: Part) -> Batch | None:
        """Return how to simulate once what all rows share, or None where that does not pay."""
        options, values, wanted, program = self.options, self.values, self.wanted, self.compiled.program
        if wanted is None:
            varies = program.depends_on(columns_that_differ(values))
            if not is_worth_splitting(plan, varies, len(values)):
                return None
        else:  # not the columns that happen to differ: each batch of sparse inputs would be split anew
            varies = ~wanted.summed
        room = MOST_BYTES
        if options.memory_limit is not None:
            room = min(room, options.resolve_memory_limit() // LIMIT_SHARE)
        operators, pairs, cotangents = part[:3]
        starts, gradient = self.starts, self.gradient
        parts = find_sharing(plan, varies)
        batch = Batch(parts, operators, self.columns, pairs, gradient, cotangents, starts, wanted, options.dtype, room)
        mode = find_mode(batch)
        return None if mode == ROWS else batch._replace(mode=mode)


class _Runner(NamedTuple):
    """Evaluates plans for a batch on one device, within the memory limit; keeps the stats of each evaluation."""

    options: FusedOptions
    operators: Observables
    device: str
    imaginary: bool
    stats: list[dict[str, Any]]

    def __call__(
        self, plan: FusedProgram, columns: np.ndarray, pairs: Pairs, starts: RowStarts = FROM_CIRCUIT, **flags: Any
    ) -> Evaluation:
        options, ends = self.options, flags.get("ends", NO_STATES)
        if self.device == "cuda":
            engine, method = engine_for(self.device, options), options.gpu_method()
        else:
            by_row = flags.get("cotangents") is not None or ends.final_cotangents is not None
            request = Request(
                len(columns),
                len(columns) if by_row else len(pairs[0]),
                options.dtype,
                flags.get("gradient", False),
                self.imaginary,
                state_gradients=starts.gradients,
                num_ends=len(columns) * (ends.final + (ends.final_cotangents is not None)),
                num_values=len(pairs[0]),
            )
            choice = choose_method(options, plan, self.operators, columns, request)
            engine, method = engine_for(self.device, options, choice.num_threads), choice.method
        flags |= {"dtype": options.dtype, "imaginary": self.imaginary, "method": method}
        if plan.takes_states and ends.initial is None:
            flags = {"cotangents": None, "gradient": False, "meanwhile": None, "watch": None} | flags
            evaluations = evaluate_rows(engine, plan, self.operators, columns, pairs, flags, starts)
        else:
            evaluations = [engine.evaluate(plan, self.operators, columns, pairs, **flags)]
        self.stats.extend([evaluation.stats for evaluation in evaluations])
        return join(evaluations)


def _beside(held: int, options: FusedOptions) -> FusedOptions:
    """Return options whose memory limit is lower by the bytes of arrays that are held.

    Raises:
        MemoryError: when they leave nothing.
    """
    if not held or (options.memory_limit is None and held <= ALWAYS_FREE):
        return options
    limit = options.resolve_memory_limit()
    if limit - held < LEAST_LIMIT:
        raise MemoryError(
            f"values and gradients take {format_bytes(held)}, memory_limit is {format_bytes(limit)}; ask for fewer "
            "rows or observables at a time or raise memory_limit."
        )
    return replace(options, memory_limit=limit - held)


def choose_method(
    options: FusedOptions, plan: FusedProgram, operators: Observables, columns: np.ndarray, request: Request
) -> Choice:
    """Return method and threads for a batch on the CPU.

    Raises:
        MemoryError: when it does not fit the memory limit.
        ValueError: for options that do not go together.
    """
    options.check_method()
    # Threads share a batch row by row, or a row chunk by chunk. To ask the environment for their number takes 2 us.
    is_for_one_thread = len(columns) == 1 and not chunk_bits(plan.num_qubits)
    choice = choose(
        plan,
        request,
        operators.restrict(plan.wires),
        columns,
        method=options.method,
        num_segments=options.num_segments,
        num_threads=1 if is_for_one_thread else options.resolve_num_threads(),
        limit_of=options.limit_for,
        limit_name="80 % of the free memory" if options.memory_limit is None else "memory_limit",
    )
    if choice.advice:
        _say_once(choice.advice)
    return choice


def check_finite(values: np.ndarray, parameters: tuple[Any, ...]) -> None:
    """Raise a ValueError that names the parameter and the row of the first value that is NaN or infinite.

    Args:
        values: (B, P), or (P,) for values that all rows share, which have no row.
        parameters: what they are values of.
    """
    if all_finite(values):
        return
    *row, column = np.argwhere(~np.isfinite(values))[0].tolist()
    before, after = f"the value of parameter '{parameters[column].name}' ", "; allowed: finite numbers."
    if not row:
        raise ValueError(f"{before}is {values[column]}{after}")
    raise RowError(f"{before}in ", row[0], f" is {values[row[0], column]}{after}")
