# SPDX-License-Identifier: Apache-2.0
"""Evaluates values and gradients of checked batches, for the gradients and for `Objective`."""

from __future__ import annotations

from typing import Any

import numpy as np
from qiskit.providers import Options
from qiskit_machine_learning.gradients import DerivativeType, EstimatorGradientResult, SamplerGradientResult

from qiskit_fused.common.row_blocks import take_rows
from qiskit_fused.common.row_errors import renumbered
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.engines.request import NO_STATES, BoundaryStates, GradientRequest, Request, pairs_of
from qiskit_fused.execution.derivatives import check_derivatives, completed, differentiated, pull_back
from qiskit_fused.execution.evaluate import evaluate
from qiskit_fused.execution.initial_states import check_states
from qiskit_fused.execution.progress import AnyProgress, Part, Progress, progress_of
from qiskit_fused.execution.result_sizes import check_results
from qiskit_fused.options import FusedOptions
from qiskit_fused.primitives.gradient_requests import Batch
from qiskit_fused.primitives.job import Size
from qiskit_fused.program.observables import Observables

# The parts of a derivative to evaluate: False is the real part, True the imaginary part. The keys are the names of the
# members of DerivativeType, since qiskit-algorithms has an enum of its own with the same names.
_IMAGINARY_PARTS = {"REAL": (False,), "IMAG": (True,), "COMPLEX": (False, True)}


def differentiate_rows(
    options: FusedOptions,
    derivative_type: DerivativeType,
    compiled: CompiledCircuit,
    operators: Observables,
    values: np.ndarray,
    columns: np.ndarray | None = None,
    initial_states: Any = None,
    checks_values: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return values (B, K) and gradients (B, K, P) of all pairs of rows and observables.

    Args:
        options: options of the engine.
        derivative_type: the real part, the imaginary part or both parts of the derivative.
        compiled: the circuit.
        operators: K observables on the qubits of the circuit.
        values: parameter values (B, P), finite unless ``checks_values``.
        columns: positions of the parameters to differentiate; None is all parameters. P counts these in the result.
        initial_states: see `FusedEstimatorGradient.value_and_gradient`.
        checks_values: whether to check that the values are finite.

    Raises:
        ValueError: for a value that is checked and not finite.
        MemoryError: if the results do not fit the memory, before anything is allocated.
    """
    boundary, encodes = NO_STATES, compiled.program.encodes(columns)
    if initial_states is not None:
        values, states = _same_number(values, check_states(initial_states, compiled.num_qubits))
        boundary, encodes = BoundaryStates(states, on_circuit_qubits=True), False
    check_results(options, compiled, operators, len(values), gradient=True)
    swept = differentiated(operators)
    pairs = pairs_of(len(values), swept)
    gradient = GradientRequest(of_initial_states=encodes)
    request = Request(values, pairs, gradient, boundary, options.dtype)
    imaginary = _IMAGINARY_PARTS[derivative_type.name]
    with progress_of(options.progress, _parts_of_rows, compiled, request, len(imaginary)) as progress:
        evs, gradients = _differentiate(
            options, imaginary, compiled, operators, request, progress, checks_values=checks_values
        )
    shape = len(values), len(swept)
    evs, gradients = evs.reshape(shape), gradients.reshape(*shape, len(compiled.parameters))
    check_derivatives(compiled, values, gradients, columns)
    if columns is not None:
        gradients = gradients[:, :, columns]
    return completed(operators, swept, evs, 1), completed(operators, swept, gradients, 0)


def _parts_of_rows(compiled: CompiledCircuit, request: Request, num_parts: int) -> list[Part]:
    return [Part.of(compiled, request.num_rows, request.num_pairs)] * num_parts


def _same_number(values: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Repeat one row of values for all states, or one state for all rows of values."""
    if len(values) != len(states):
        if len(values) == 1:
            values = np.repeat(values, len(states), axis=0)
        elif len(states) == 1:
            states = np.broadcast_to(states, (len(values), states.shape[1]))
        else:
            raise ValueError(
                f"there are {len(states)} initial_states and {len(values)} rows of parameter_values; allowed: equal "
                "numbers, one state, or one row."
            )
    return values, states


def size_of(batch: Batch) -> Size:
    """Return the size of a batch of gradients."""
    num_terms = 0 if batch.operators is None else batch.operators.num_terms
    return Size(batch.compiled, len(batch.values), num_terms, len(batch.pairs.row))


def run_batches(
    batches: list[Batch],
    count: int,
    options: FusedOptions,
    derivative_type: DerivativeType,
    result_options: Options,
) -> tuple[EstimatorGradientResult, dict[str, Any]]:
    """Evaluate all requests of a job; return its result, with gradients in the order of the requests, and metrics."""
    metrics: dict[str, Any] = {}
    gradients: list[Any] = [None] * count
    metadata: list[Any] = [None] * count
    imaginary = _IMAGINARY_PARTS[derivative_type.name]
    with _progress_of(batches, options, len(imaginary)) as progress:
        for batch in batches:
            pair_gradients = _differentiate_batch(batch, options, imaginary, progress, metrics)
            assert batch.compiled is not None
            for parameters, columns, requests in batch.subsets:
                pairs = batch.back[requests]
                part = take_rows(pair_gradients, pairs)
                with renumbered(batch.index[requests].item):
                    check_derivatives(batch.compiled, batch.values, part, columns, batch.pairs.row[pairs])
                if columns is not None:
                    part = part[:, columns]
                if len(requests) == count:
                    gradients = list(part)
                    metadata = [{"parameters": parameters} for _ in range(count)]
                    continue
                for position, gradient in zip(batch.index[requests].tolist(), part):
                    gradients[position] = gradient
                    metadata[position] = {"parameters": parameters}
    return EstimatorGradientResult(gradients=gradients, metadata=metadata, options=result_options), metrics


def run_sampler_batches(
    batches: list[Batch], count: int, options: FusedOptions, result_options: Options
) -> tuple[SamplerGradientResult, dict[str, Any]]:
    """Evaluate all requests of a job of a sampler gradient; return its result and metrics as `run_batches` does."""
    metrics: dict[str, Any] = {}
    gradients: list[Any] = [None] * count
    metadata: list[Any] = [None] * count
    with _progress_of(batches, options) as progress:
        for batch in batches:
            pair_gradients = _differentiate_batch(batch, options, (False,), progress, metrics)
            assert batch.compiled is not None
            by_row = pair_gradients.reshape(len(batch.values), len(batch.integers), -1)
            for parameters, columns, rows in batch.subsets:
                part = by_row[rows]
                with renumbered(batch.index[rows].item):
                    check_derivatives(batch.compiled, batch.values, part, columns, rows)
                if columns is not None:
                    part = part[:, :, columns]
                for position, of_row in zip(batch.index[rows].tolist(), part.transpose(0, 2, 1).tolist()):
                    gradients[position] = [dict(zip(batch.integers, numbers)) for numbers in of_row]
                    metadata[position] = [{"parameters": parameters}]
    return SamplerGradientResult(gradients=gradients, metadata=metadata, options=result_options), metrics


def _progress_of(batches: list[Batch], options: FusedOptions, num_parts: int = 1) -> Progress:
    """Return the progress of batches, with ``num_parts`` evaluations for each. Raise the error of the first circuit."""
    for batch in batches:
        if batch.error is not None:
            raise batch.error
    parts = (
        Part.of(batch.compiled, len(batch.values), len(batch.pairs.row))
        for batch in batches
        for _ in range(num_parts)
        if batch.compiled is not None
    )
    return Progress(options.progress, parts)


def _differentiate_batch(
    batch: Batch,
    options: FusedOptions,
    imaginary_parts: tuple[bool, ...],
    progress: Progress,
    metrics: dict[str, Any],
) -> np.ndarray:
    """Return the gradients (N, P) of the pairs of a batch."""
    assert batch.compiled is not None and batch.operators is not None
    with renumbered(batch.request_of):
        gradient = GradientRequest(of_initial_states=True)
        request = Request(batch.values, batch.pairs, gradient, dtype=options.dtype)
        return _differentiate(options, imaginary_parts, batch.compiled, batch.operators, request, progress, metrics)[1]


def _differentiate(
    options: FusedOptions,
    imaginary_parts: tuple[bool, ...],
    compiled: CompiledCircuit,
    operators: Observables,
    request: Request,
    progress: AnyProgress,
    metrics: dict[str, Any] | None = None,
    checks_values: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return values (N,) and gradients (N, P) of the pairs: real parts, imaginary parts, or complex numbers."""
    gradient, parts = request.gradient, []
    assert gradient is not None
    for imaginary in imaginary_parts:
        progress.next_part()
        if imaginary:
            request = request._replace(gradient=gradient._replace(imaginary=True))
        evaluation = evaluate(
            options,
            compiled,
            operators,
            request,
            metrics=metrics,
            watch=progress.watch,
            checks_values=checks_values,
        )
        cone_operators = None if imaginary else operators  # 2 Im <psi|O|d psi> depends on gates outside the light cone
        parts.append(pull_back(compiled, request.columns, evaluation.gradients, request.pairs, cone_operators))
    gradients = parts[0] if len(parts) == 1 else parts[0] + 1j * parts[1]
    return evaluation.values, gradients
