# SPDX-License-Identifier: Apache-2.0
"""Evaluates a request of a primitive: on workers of an executor, or in this process in blocks that fit the memory."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from qiskit_fused.common.cancellation import Cancellation
from qiskit_fused.common.free_memory import TooManyQubits, resolve_limit
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.engines.evaluation import Evaluation
from qiskit_fused.engines.interface import Watch
from qiskit_fused.engines.request import Request
from qiskit_fused.execution import segments
from qiskit_fused.execution.cone_evaluation import evaluate_finer, evaluate_groups, find_grouping, fused_program_of
from qiskit_fused.execution.executor import cut_portions, options_of_workers, run_portions
from qiskit_fused.execution.finite_values import check_finite
from qiskit_fused.execution.magnitudes import Scaling, is_out_of_range
from qiskit_fused.execution.metrics import add_metrics
from qiskit_fused.execution.prepared_calls import find_call
from qiskit_fused.execution.program_evaluation import ProgramEvaluator
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
    checks_values: bool = False,
) -> Evaluation:
    """Evaluate the pairs of rows of parameter values and observables that a request names.

    Args:
        options: device, threads and memory limit.
        compiled: the circuit.
        operators: the K observables.
        request: rows of the P parameters. Values are finite unless ``checks_values``, the number format is
            ``options.dtype``, and initial states are on the qubits of the circuit.
        metrics: a dict to which the metrics of this evaluation are added.
        watch: told the progress; see `Progress.watch`.
        checks_values: whether to check that the values are finite. The kernel of a prepared call checks the columns
            while it reads them, because reading large batches once more takes 5 % of the time.

    Returns:
        The evaluation. Gradients are with respect to the program's columns (see `derivatives.pull_back`).
        Gradients with respect to initial states are on the qubits of the circuit.

    Raises:
        ValueError: when a value that is checked is not finite, when the amplitudes in which a row starts have the norm
            0 or a norm that is not finite, when a result is larger than any float64, or when the option num_segments is
            larger than the number of layers.
        UnsupportedInstruction: when rows bring initial states and the circuit needs qubits in |0>.
        MemoryError: when a single row exceeds the memory limit; it is raised before arrays are allocated. Several rows
            that exceed the limit together are evaluated in blocks.
    """
    program = compiled.program
    if checks_values and (metrics is not None or program.expressions.num_expressions):
        check_finite(request.columns, compiled.parameters)
    if metrics is None:
        call = find_call(options, compiled, operators, request)
        if call is not None:
            evaluation = call.evaluate(program.columns(request.columns), request.cotangents)
            if checks_values and not evaluation.stats["is_finite"]:
                check_finite(request.columns, compiled.parameters)
            return evaluation
        if checks_values:
            check_finite(request.columns, compiled.parameters)
    if options.num_segments is not None and request.gradient is not None:
        any_start = request.boundary.initial is not None
        segments.check_option(options, compiled, operators, whole=request.needs_all_gates, any_start=any_start)
    if is_out_of_range(operators, request):
        scaling = Scaling(operators, request)
        evaluation = evaluate(options, compiled, scaling.operators, scaling.request, metrics=metrics, watch=watch)
        return scaling.multiplied(evaluation)
    if options.executor is not None:
        portions = cut_portions(options, compiled, request.num_rows, request.num_adjoint_states)
        if portions:
            return _evaluate_on_workers(options, compiled, operators, request, portions, metrics, watch)
    try:
        return _evaluate_together(options, compiled, operators, request, metrics, watch)
    except MemoryError as error:
        refusal = error.with_traceback(None)  # the frames of a traceback would keep the arrays alive
    return _evaluate_blocks(refusal, options, compiled, operators, request, metrics, watch)


def _evaluate_together(
    options: FusedOptions,
    compiled: CompiledCircuit,
    operators: Observables,
    request: Request,
    metrics: dict[str, Any] | None,
    watch: Watch | None,
) -> Evaluation:
    """Evaluate with all rows in memory at the same time."""
    start = 0.0 if metrics is None else time.perf_counter()
    # Columns are split only if the circuit has no expressions. The columns of its program are then its parameters.
    if not request.is_split:
        columns = compiled.program.columns(request.columns)
        if columns is not request.columns:
            request = request._replace(columns=columns)
    evaluator = ProgramEvaluator(options, keeps_records=metrics is not None)
    grouping = find_grouping(compiled, operators, request)
    try:
        if grouping is None:
            fused = fused_program_of(compiled, operators, request)
            evaluation = evaluator.evaluate(fused, operators, request, watch)
        else:
            evaluation = evaluate_groups(evaluator.evaluate, grouping, operators, request, watch)
    except TooManyQubits as error:
        # The caller evaluates rows of split columns again on the host, which has more memory. One state must hold all
        # measured qubits.
        is_whole = request.needs_all_gates or request.boundary.initial is not None
        if is_whole or request.is_split or not operators.have_terms:
            raise
        evaluation, grouping = evaluate_finer(evaluator.evaluate, compiled, operators, request, watch, grouping, error)
    if metrics is not None:
        num_cones = 1 if grouping is None else len(grouping.groups)
        counts: dict[str, Any] = {"rows": request.num_rows, "pairs": request.num_pairs, "cones": num_cones}
        seconds = {"seconds": time.perf_counter() - start}
        for stats in evaluator.stats(request):
            add_metrics(metrics, counts | seconds | stats | counts)
            # Rows, pairs, cones and seconds are of the whole batch: they count with the stats of the first evaluation.
            counts, seconds = dict.fromkeys(counts, 0), {}
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

    The memory limit holds for the arrays of one block. The arrays of all rows belong to the caller: they must fit the
    free memory, and may exceed the limit.

    Raises:
        MemoryError: ``refusal``, the error that was raised for all rows together, when there is only one row, or when
            the arrays of all rows do not fit the free memory. The error of the first row, when the first row alone does
            not fit.
    """
    num_rows = request.num_rows
    num_numbers = request.num_pairs + request.num_gradients * compiled.program.num_columns
    state_bytes = np.dtype(request.dtype).itemsize << compiled.program.num_qubits
    num_bytes = 8 * num_numbers + num_rows * request.boundary.final * state_bytes
    if num_rows < 2 or request.is_split or num_bytes > resolve_limit(None):
        raise refusal

    def evaluate_block(part: Request, watch: Watch | None) -> Evaluation:
        return _evaluate_together(options, compiled, operators, part, metrics, watch)

    joined = JoinedEvaluation(request)
    # The first block is one row: if one row does not fit, no block fits, and the error is about the circuit.
    begin, size = 0, 1
    while begin < num_rows:
        rows = slice(begin, min(begin + size, num_rows))
        try:
            evaluation = evaluate_slice(request, rows, evaluate_block, watch)
        except MemoryError:
            if size == 1:
                raise
            size //= 2
            continue
        if begin == 0:
            size = max(num_rows // 2, 1)
        joined.add(rows, evaluation)
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
    """Evaluate portions of the rows on the workers of the executor."""
    start = time.perf_counter()
    worker_options, joined = options_of_workers(options), JoinedEvaluation(request)
    evaluations = run_portions(
        options.executor,
        _evaluate_portion,
        (compiled, operators),
        lambda number: (worker_options, request.rows(portions[number])),
        portions,
        watch,
    )
    for rows, evaluation in zip(portions, evaluations):
        joined.add(rows, evaluation)
        if metrics is not None:
            add_metrics(metrics, evaluation.stats)
    if metrics is not None:
        add_metrics(metrics, {"portions": len(portions), "seconds": time.perf_counter() - start})
    return joined.evaluation()


def _evaluate_portion(
    compiled: CompiledCircuit, operators: Observables, cancelled: Cancellation, options: FusedOptions, request: Request
) -> Evaluation:
    """Evaluate a portion on a worker, and return its metrics, without seconds, as the stats of the evaluation."""
    metrics: dict[str, Any] = {}

    def watch(done: int, total: int) -> bool:
        return cancelled.is_set()

    evaluation = evaluate(options, compiled, operators, request, metrics=metrics, watch=watch)
    metrics.pop("seconds")
    return replace(evaluation, stats=metrics)
