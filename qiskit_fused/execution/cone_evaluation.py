# SPDX-License-Identifier: Apache-2.0
"""Evaluate observables by their light cones: groups of terms one after the other, whose values and gradients add up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from qiskit_fused.common.cancellation import CANCELLED
from qiskit_fused.common.free_memory import TooManyQubits
from qiskit_fused.common.text import count_text
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.engines.interface import Evaluation, Watch
from qiskit_fused.execution.shared_evaluation import share
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.fusion.light_cones import Grouping
from qiskit_fused.program.observables import Observables

Pairs = tuple[np.ndarray, np.ndarray]


class Part(NamedTuple):
    """Terms of the observables of a batch, and who wants them.

    Attributes:
        operators: the terms, as observables.
        pairs: rows and numbers of these observables.
        cotangents: float64, a weight for each pair, or None.
        meanwhile, watch: see `Engine.evaluate`.
        held: bytes of the results of all parts, which are there meanwhile.
    """

    operators: Observables
    pairs: Pairs
    cotangents: np.ndarray | None
    meanwhile: Callable[[], Any] | None
    watch: Watch | None
    held: int = 0


class Run(Protocol):
    """Evaluates a part of a batch with a plan of what its observables see."""

    def __call__(self, plan: FusedProgram, part: Part) -> Evaluation:
        """Return values of the pairs, and gradients as `Engine.evaluate` does."""


def evaluate_cones(
    run: Run, compiled: CompiledCircuit, whole: Part, num_rows: int, gradient: bool
) -> tuple[Evaluation, int]:
    """Evaluate a batch whose rows start as the circuit says; return also in how many light cones.

    Terms are simulated together where that takes less time, and apart where their statevector would not fit.

    Args:
        run: evaluates a part.
        compiled: the circuit.
        whole: the batch.
        num_rows: B.
        gradient: whether gradients are wanted, without cotangents one for each pair.

    Raises:
        TooManyQubits: when the qubits that a single term sees do not fit; it names the term.
    """
    operators = whole.operators
    grouping = compiled.light_cones.groups(operators, num_rows, gradient and whole.cotangents is None)
    try:
        if grouping is None:
            return run(compiled.plan(operators.support(compiled.num_qubits)), whole), 1
        num_adjoint_states = gradient * (num_rows if whole.cotangents is not None else len(whole.pairs[0]))
        whole = whole._replace(held=8 * (len(whole.pairs[0]) + num_adjoint_states * compiled.program.num_columns))
        return _evaluate_groups(run, grouping, whole), len(grouping.groups)
    except TooManyQubits as error:
        return _evaluate_finer(run, compiled, whole, num_rows, grouping, error)


def _evaluate_finer(
    run: Run, compiled: CompiledCircuit, whole: Part, num_rows: int, grouping: Grouping | None, error: TooManyQubits
) -> tuple[Evaluation, int]:
    """Evaluate a batch in smaller groups than those of which the first, which has the most qubits, does not fit."""
    cones, operators = compiled.light_cones, whole.operators
    together, most, term = cones.widest(operators)
    size = together if grouping is None else grouping.groups[0].num_qubits
    if most == size:
        name = f"{operators.term_text(term)} of observable {operators.observable[term]}"
        raise TooManyQubits(f"{error} The term {name} alone sees {count_text(most, 'qubit')} of the circuit.") from None
    finer = cones.groups(operators, num_rows, False, size - 1)
    assert finer is not None
    try:
        return _evaluate_groups(run, finer, whole), len(finer.groups)
    except TooManyQubits as next_error:
        return _evaluate_finer(run, compiled, whole, num_rows, finer, next_error)


def _evaluate_groups(run: Run, grouping: Grouping, whole: Part) -> Evaluation:
    rows, chosen = whole.pairs
    count, groups = len(whole.operators), grouping.groups
    values, gradients, answer = np.zeros(len(rows)), None, None
    costs = np.cumsum([0, *(int(group.cost) + 1 for group in groups)]).tolist()
    for number, (group, operators) in enumerate(zip(groups, grouping.parts(whole.operators))):
        # engines tell a watch of long work only
        if number and whole.watch is not None and whole.watch(costs[number], costs[-1]):
            raise RuntimeError(CANCELLED)
        mine: Any = slice(None)
        own = whole.pairs
        if len(group.observables) < count:
            place = np.full(count, -1, dtype=np.int32)
            place[group.observables] = np.arange(len(group.observables), dtype=np.int32)
            mine = np.flatnonzero(place[chosen] >= 0)
            own = rows[mine], place[chosen[mine]]
        part = Part(
            operators,
            own,
            None if whole.cotangents is None else whole.cotangents[mine],
            whole.meanwhile if number == 0 else None,
            share(whole.watch, costs[number], costs[number + 1], costs[-1]),
            whole.held,
        )
        found = run(group.plan, part)
        answer = found.answer if number == 0 else answer
        values[mine] += found.values
        if found.gradients is None:
            continue
        if whole.cotangents is not None:
            mine = slice(None)
        if gradients is None:
            if isinstance(mine, slice):
                gradients = found.gradients
                continue
            gradients = np.zeros((len(rows), found.gradients.shape[1]))
        gradients[mine] += found.gradients
    return Evaluation(values, gradients, {}, answer)
