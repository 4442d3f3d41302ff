# SPDX-License-Identifier: Apache-2.0
"""A request of a primitive -> its evaluation: by workers, in this process, or in blocks that fit the memory."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from qiskit_fused.common.cancellation import Cancellation
from qiskit_fused.common.free_memory import resolve_limit
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.engines.evaluation import Evaluation
from qiskit_fused.engines.interface import Watch
from qiskit_fused.engines.request import Request
from qiskit_fused.execution import segments
from qiskit_fused.execution.cone_evaluation import evaluate_cones
from qiskit_fused.execution.executor import cut_portions, options_of_workers, run_portions
from qiskit_fused.execution.magnitudes import Scaling, is_out_of_range
from qiskit_fused.execution.metrics import add_metrics
from qiskit_fused.execution.plan_runs import PlanRuns
from qiskit_fused.execution.row_cuts import JoinedEvaluation, evaluate_slice
from qiskit_fused.options import FusedOptions
from qiskit_fused.program.observables import Observables


def evaluate(
    options: FusedOptions,
    compiled: CompiledCircuit,
    operators: Observables,
    request: Request,
    *,
    metrics: dict[str, Any] | None = None,
    watch: Watch | None = None,
) -> Evaluation:
    """Evaluate rows of parameter values, and the pairs of rows and observables that are asked for.

    Args:
        options: device, threads and memory limit.
        compiled: the circuit.
        operators: the K observables.
        request: rows of the P parameters, finite, in the number format of the options; states that rows bring are on
            the qubits of the circuit.
        metrics: dict to add what ran to.
        watch: told how much is done; see `Progress.watch`.

    Returns:
        Gradients are with respect to the program's columns (see `derivatives.pull_back`), those of states on the
        qubits of the circuit.

    Raises:
        ValueError: when the amplitudes that a row starts in have no direction, or a result is larger than any float64,
            or the option num_segments is larger than the number of layers.
        UnsupportedInstruction: when rows bring states and the circuit needs qubits in |0>.
        MemoryError: when a single row exceeds the memory limit, before anything is allocated; several rows that exceed
            it together are evaluated in blocks.
    """
    if request.gradient is not None:
        any_start = request.boundary.initial is not None
        segments.check_option(options, compiled, operators, imaginary=request.imaginary, any_start=any_start)
    if is_out_of_range(operators, request):
        scaling = Scaling(operators, request)
        found = evaluate(options, compiled, scaling.operators, scaling.request, metrics=metrics, watch=watch)
        return scaling.multiplied(found)
    if options.executor is not None:
        portions = cut_portions(options, compiled, request.num_rows, request.num_adjoint_states)
        if portions:
            return _evaluate_on_workers(options, compiled, operators, request, portions, metrics, watch)
    return _evaluate_here(options, compiled, operators, request, metrics, watch)


def _evaluate_here(
    options: FusedOptions,
    compiled: CompiledCircuit,
    operators: Observables,
    request: Request,
    metrics: dict[str, Any] | None,
    watch: Watch | None,
) -> Evaluation:
    """Evaluate in this process, all rows together, or in blocks where they do not fit the memory limit."""
    try:
        return _evaluate_together(options, compiled, operators, request, metrics, watch)
    except MemoryError as error:
        refusal = error.with_traceback(None)  # its frames would hold the arrays
    return _evaluate_blocks(refusal, options, compiled, operators, request, metrics, watch)


def _evaluate_together(
    options: FusedOptions,
    compiled: CompiledCircuit,
    operators: Observables,
    request: Request,
    metrics: dict[str, Any] | None,
    watch: Watch | None,
) -> Evaluation:
    """Evaluate with all rows in memory at a time."""
    start = time.perf_counter()
    if not request.is_on_device:  # a device has columns of circuits without expressions only
        columns = compiled.program.columns(request.columns)
        if columns is not request.columns:
            request = request._replace(columns=columns)
    runs, num_cones = PlanRuns(options, compiled), 1
    any_start = request.boundary.initial is not None
    if request.imaginary or any_start:
        # gates outside the light cone change nothing real, but do change Im <psi|O|d psi>
        support = None if request.imaginary else operators.support(compiled.num_qubits)
        evaluation = runs.run(compiled.plan(support, any_start=any_start), operators, request, watch)
    else:
        evaluation, num_cones = evaluate_cones(runs.run, compiled, operators, request, watch)
    if metrics is not None:
        counts: dict[str, Any] = {"rows": request.num_rows, "pairs": request.num_pairs, "cones": num_cones}
        record = counts | {"seconds": time.perf_counter() - start}
        for stats in runs.stats(request):
            add_metrics(metrics, record | stats | counts)
            record = counts = dict.fromkeys(counts, 0)  # which were counted once
    return evaluation


def _evaluate_blocks(
    refusal: MemoryError,
    options: FusedOptions,
    compiled: CompiledCircuit,
    operators: Observables,
    request: Request,
    metrics: dict[str, Any] | None,
    watch: Watch | None,
) -> Evaluation:
    """Evaluate blocks of rows that fit the memory limit, one after the other.

    A block holds its own part of the arrays. The arrays of all rows belong to the caller: they must fit the free
    memory, not the limit.

    Raises:
        MemoryError: ``refusal``, what was raised for all rows together, where there is one row, or the arrays of all
            rows do not fit the free memory; where a row alone does not fit, what is raised for that row.
    """
    num_rows = request.num_rows
    num_numbers = request.num_pairs + request.num_gradients * compiled.program.num_columns
    if num_rows < 2 or request.is_on_device or 8 * num_numbers > resolve_limit(None):
        raise refusal

    def evaluate_block(part: Request, watch: Watch | None) -> Evaluation:
        return _evaluate_together(options, compiled, operators, part, metrics, watch)

    joined = JoinedEvaluation(request)
    # The first row goes alone: where it does not fit, no block does, and the error is about the circuit.
    begin, size = 0, 1
    while begin < num_rows:
        rows = slice(begin, min(begin + size, num_rows))
        try:
            found = evaluate_slice(request, rows, evaluate_block, watch)
        except MemoryError:
            if size == 1:
                raise
            size //= 2
            continue
        if begin == 0:
            size = max(num_rows // 2, 1)
        joined.add(rows, found)
        begin = rows.stop
    return joined.evaluation()


def _evaluate_on_workers(
    options: FusedOptions,
    compiled: CompiledCircuit,
    operators: Observables,
    request: Request,
    portions: list[slice],
    metrics: dict[str, Any] | None,
    watch: Watch | None,
) -> Evaluation:
    """Have workers evaluate portions of the rows."""
    start = time.perf_counter()
    given, joined = options_of_workers(options), JoinedEvaluation(request)
    found = run_portions(
        options.executor,
        _evaluate_portion,
        (compiled, operators),
        lambda number: (given, request.rows(portions[number])),
        portions,
        watch,
    )
    for rows, evaluation in zip(portions, found):
        joined.add(rows, evaluation)
        if metrics is not None:
            add_metrics(metrics, evaluation.stats)
    if metrics is not None:
        add_metrics(metrics, {"portions": len(portions), "seconds": time.perf_counter() - start})
    return joined.evaluation()


def _evaluate_portion(
    compiled: CompiledCircuit, operators: Observables, cancelled: Cancellation, options: FusedOptions, request: Request
) -> Evaluation:
    """Evaluate a portion, on a worker; stats of the evaluation are the metrics, without seconds."""
    metrics: dict[str, Any] = {}

    def watch(done: int, total: int) -> bool:
        return cancelled.is_set()

    found = _evaluate_here(options, compiled, operators, request, metrics, watch)
    metrics.pop("seconds")
    return replace(found, stats=metrics)
