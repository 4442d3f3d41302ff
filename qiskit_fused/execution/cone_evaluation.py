# SPDX-License-Identifier: Apache-2.0
"""Evaluate observables by their light cones: groups of terms one after the other, whose values and gradients add up."""

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


class Run(Protocol):
    """Evaluates some terms of the observables with a plan of the gates that they see."""

    def __call__(
        self, plan: FusedProgram, operators: Observables, request: Request, watch: Watch | None, held: int = 0
    ) -> Evaluation:
        """Return values and gradients of the pairs of these terms.

        Args:
            plan: what they see.
            operators: the terms, as observables.
            request: rows, and pairs of rows and numbers of these observables.
            watch: hears of these terms.
            held: bytes of the results of all terms, which are there meanwhile.
        """


def evaluate_cones(
    run: Run, compiled: CompiledCircuit, operators: Observables, request: Request, watch: Watch | None
) -> tuple[Evaluation, int]:
    """Evaluate a batch whose rows start as the circuit says; return also in how many light cones.

    Terms are simulated together where that takes less time, and apart where their statevector would not fit.

    Raises:
        TooManyQubits: when the qubits that a single term sees do not fit; it names the term.
    """
    has_gradient_per_pair = request.gradient is not None and not request.gradients_are_per_row
    grouping = compiled.light_cones.groups(operators, request.num_rows, has_gradient_per_pair)
    try:
        if grouping is None:
            return run(compiled.plan(operators.support(compiled.num_qubits)), operators, request, watch), 1
        return _evaluate_groups(run, grouping, operators, request, watch), len(grouping.groups)
    except TooManyQubits as error:
        if request.is_on_device:  # the caller has the arrays on the host too, which has more memory
            raise
        return _evaluate_finer(run, compiled, operators, request, watch, grouping, error)


def _evaluate_finer(
    run: Run,
    compiled: CompiledCircuit,
    operators: Observables,
    request: Request,
    watch: Watch | None,
    grouping: Grouping | None,
    error: TooManyQubits,
) -> tuple[Evaluation, int]:
    """Evaluate a batch in smaller groups than those of which the first, which has the most qubits, does not fit."""
    cones = compiled.light_cones
    together, most, term = cones.widest(operators)
    size = together if grouping is None else grouping.groups[0].num_qubits
    if most == size:
        name = f"{operators.term_text(term)} of observable {operators.observable[term]}"
        raise TooManyQubits(f"{error} The term {name} alone sees {count_text(most, 'qubit')} of the circuit.") from None
    finer = cones.groups(operators, request.num_rows, False, size - 1)
    assert finer is not None
    try:
        return _evaluate_groups(run, finer, operators, request, watch), len(finer.groups)
    except TooManyQubits as next_error:
        return _evaluate_finer(run, compiled, operators, request, watch, finer, next_error)


def _evaluate_groups(
    run: Run, grouping: Grouping, operators: Observables, request: Request, watch: Watch | None
) -> Evaluation:
    """Add up the evaluations of all groups."""
    groups, num_pairs = grouping.groups, request.num_pairs
    held = 8 * (num_pairs + request.num_gradients * request.num_columns)
    values, gradients = np.zeros(num_pairs), None
    costs = np.cumsum([0, *(int(group.cost) + 1 for group in groups)]).tolist()
    for number, (group, terms) in enumerate(zip(groups, grouping.parts(operators))):
        if number:
            check_cancelled(watch, costs[number], costs[-1])
        mine, part = _request_of(group.observables, len(operators), request)
        found = run(group.plan, terms, part, share(watch, costs[number], costs[number + 1], costs[-1]), held)
        values[mine] += found.values
        if found.gradients is None:
            continue
        place: Any = slice(None) if request.gradients_are_per_row else mine
        if gradients is None:
            if isinstance(place, slice):
                gradients = found.gradients
                continue
            gradients = np.zeros((num_pairs, found.gradients.shape[1]))
        gradients[place] += found.gradients
    return Evaluation(values, gradients)


def _request_of(observables: np.ndarray, count: int, request: Request) -> tuple[Any, Request]:
    """Return which pairs ask for some of the ``count`` observables, and the request of these pairs."""
    if len(observables) == count:
        return slice(None), request
    place = np.full(count, -1, dtype=np.int32)
    place[observables] = np.arange(len(observables), dtype=np.int32)
    row, observable = request.pairs
    mine = np.flatnonzero(place[observable] >= 0)
    gradient = request.gradient
    if gradient is not None and gradient.cotangents is not None:
        gradient = gradient._replace(cotangents=gradient.cotangents[mine])
    return mine, request._replace(pairs=Pairs(row[mine], place[observable[mine]]), gradient=gradient)
