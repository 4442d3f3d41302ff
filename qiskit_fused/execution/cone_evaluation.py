# SPDX-License-Identifier: Apache-2.0
"""Evaluates groups of terms of observables with different light cones, one group after the other.

Values and gradients of all groups are added.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from qiskit_fused.common.free_memory import TooManyQubits
from qiskit_fused.common.text import count_text
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.engines.evaluation import Evaluation
from qiskit_fused.engines.interface import Watch
from qiskit_fused.engines.request import Pairs, Request
from qiskit_fused.execution.row_cuts import check_cancelled, share
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.fusion.light_cones import Grouping
from qiskit_fused.program.observables import Observables


class EvaluateGroup(Protocol):
    """Evaluates a group of terms with the fused program of their light cone."""

    def __call__(
        self, fused: FusedProgram, operators: Observables, request: Request, watch: Watch | None, result_bytes: int = 0
    ) -> Evaluation:
        """Return values and gradients of the pairs of this group.

        Args:
            fused: the gates that the terms of the group see.
            operators: the terms of the group, as observables.
            request: rows, and pairs of a row and a position in ``operators``.
            watch: told the progress of this group.
            result_bytes: bytes of the results of all groups, which are in memory at the same time.
        """


def find_grouping(compiled: CompiledCircuit, operators: Observables, request: Request) -> Grouping | None:
    """Return groups of terms to evaluate one after the other; None if all terms are evaluated together."""
    if request.needs_all_gates or request.boundary.initial is not None:
        return None
    has_gradient_per_pair = request.gradient is not None and not request.gradients_are_per_row
    return compiled.light_cones.groups(operators, request.num_rows, has_gradient_per_pair)


def fused_program_of(compiled: CompiledCircuit, operators: Observables, request: Request) -> FusedProgram:
    """Return the fused program that evaluates all terms together.

    Gates outside the light cone of the observables do not change Re <psi|O|d psi>. They do change Im <psi|O|d psi> and
    final states.
    """
    support = None if request.needs_all_gates else operators.support(compiled.num_qubits)
    return compiled.fused_program(support, any_start=request.boundary.initial is not None)


def evaluate_finer(
    evaluate: EvaluateGroup,
    compiled: CompiledCircuit,
    operators: Observables,
    request: Request,
    watch: Watch | None,
    grouping: Grouping | None,
    error: TooManyQubits,
) -> tuple[Evaluation, Grouping]:
    """Evaluate a batch in groups of fewer qubits, after the widest group of ``grouping`` did not fit the memory.

    Groups are sorted by their number of qubits, the widest first. A ``grouping`` of None is one group of all terms.

    Returns:
        The evaluation, and the groups that fit.

    Raises:
        TooManyQubits: when the qubits that a single term sees do not fit; it names the term.
    """
    cones = compiled.light_cones
    all_terms_qubits, widest_term_qubits, term = cones.widest(operators)
    num_qubits = all_terms_qubits if grouping is None else grouping.groups[0].num_qubits
    if widest_term_qubits == num_qubits:
        name = f"{operators.term_text(term)} of observable {operators.observable[term]}"
        seen = count_text(widest_term_qubits, "qubit")
        raise TooManyQubits(f"{error} The term {name} alone sees {seen} of the circuit.") from None
    finer = cones.groups(operators, request.num_rows, False, num_qubits - 1)
    assert finer is not None
    try:
        return evaluate_groups(evaluate, finer, operators, request, watch), finer
    except TooManyQubits as next_error:
        return evaluate_finer(evaluate, compiled, operators, request, watch, finer, next_error)


def evaluate_groups(
    evaluate: EvaluateGroup, grouping: Grouping, operators: Observables, request: Request, watch: Watch | None
) -> Evaluation:
    """Evaluate all groups, one after the other, and return the sum of their values and gradients."""
    groups, num_pairs = grouping.groups, request.num_pairs
    result_bytes = 8 * (num_pairs + request.num_gradients * request.num_columns)
    values, gradients = np.zeros(num_pairs), None
    costs = np.cumsum([0, *(int(group.cost) + 1 for group in groups)]).tolist()
    for number, (group, terms) in enumerate(zip(groups, grouping.parts(operators))):
        if number:
            check_cancelled(watch, costs[number], costs[-1])
        pairs, group_request = _request_of(group.observables, len(operators), request)
        group_watch = share(watch, costs[number], costs[number + 1], costs[-1])
        evaluation = evaluate(group.fused, terms, group_request, group_watch, result_bytes)
        values[pairs] += evaluation.values
        if evaluation.gradients is None:
            continue
        gradient_rows: Any = slice(None) if request.gradients_are_per_row else pairs
        if gradients is None:
            if isinstance(gradient_rows, slice):
                gradients = evaluation.gradients
                continue
            gradients = np.zeros((num_pairs, evaluation.gradients.shape[1]))
        gradients[gradient_rows] += evaluation.gradients
    return Evaluation(values, gradients)


def _request_of(observables: np.ndarray, count: int, request: Request) -> tuple[Any, Request]:
    """Return the indices of the pairs of some of the ``count`` observables, and the request of these pairs alone."""
    if len(observables) == count:
        return slice(None), request
    position = np.full(count, -1, dtype=np.int32)  # the position in the group of each observable; -1: not in the group
    position[observables] = np.arange(len(observables), dtype=np.int32)
    row, observable = request.pairs
    indices = np.flatnonzero(position[observable] >= 0)
    gradient = request.gradient
    if gradient is not None and gradient.cotangents is not None:
        gradient = gradient._replace(cotangents=gradient.cotangents[indices])
    return indices, request._replace(pairs=Pairs(row[indices], position[observable[indices]]), gradient=gradient)
