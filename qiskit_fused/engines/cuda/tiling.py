# SPDX-License-Identifier: Apache-2.0
"""FusedProgram -> windows: which qubits a sweep over tiles holds, and how far it gets inside their light cone.

A tile is the 2^t amplitudes that differ in t qubits, its *window*. Inside a window a sweep runs *steps*: diagonal
terms, then rotations of window qubits. A rotation waits for the terms before it on its qubit; a term waits for the
rotations before it on all its qubits, but only one of them has to be in the window: what the others do to it is a sign
or a factor that depends on the tile. So a sweep goes many layers deep until terms that join the window to qubits left
behind stop it, and the next window takes over there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate

from qiskit_fused.common.bits import bits_of
from qiskit_fused.fusion.fused_program import FusedProgram

LOW_QUBITS = 3
"""Lowest qubits, in every window: eight neighbouring amplitudes are read and written together."""

# Of reading and writing a tile, in steps: the value that costs least over rings and ladders of 14 to 28 qubits.
_PASS_COST = 0.75


@dataclass(frozen=True)
class Step:
    """Terms, then rotations, of one sweep.

    Attributes:
        terms: indices into the plan's terms.
        runs: indices into the plan's runs, on different qubits.
        endings: qubits whose last run is over, and whose Rz after it is due.
    """

    terms: list[int]
    runs: list[int]
    endings: list[int]


@dataclass(frozen=True)
class Window:
    """One sweep: its qubits, ascending, and its steps."""

    qubits: tuple[int, ...]
    steps: list[Step]


def make_windows(fused: FusedProgram, tile_qubits: int) -> list[Window]:
    """Cut a fused program into sweeps over tiles of at most 2^tile_qubits amplitudes.

    Greedy: of all windows of the lowest qubits and neighbouring others, each sweep takes the one, and as many steps of
    it, as get through most rotations for their cost. Cost: O(rotations + terms) where one window holds all qubits, else
    times the number of qubits.

    Raises:
        ValueError: when a window of that many qubits has no room beside the lowest ones.
    """
    n = fused.num_qubits
    if LOW_QUBITS >= tile_qubits < n:
        raise ValueError(f"tile_qubits is {tile_qubits}; allowed for {n} qubits: more than {LOW_QUBITS}.")
    order = _Order(fused)
    candidates = _candidates(n, tile_qubits)
    frontier, windows = _Frontier.start(order), []
    while not frontier.is_end(order):
        advances = [_advance(order, frontier, qubits) for qubits in candidates]
        best = max(range(len(candidates)), key=lambda k: (advances[k].speed()[0], advances[k].num_terms))
        chosen = advances[best]
        if len(candidates) > 1:
            chosen = _advance(order, frontier, candidates[best], chosen.speed()[1])
        frontier = chosen.frontier
        windows.append(Window(candidates[best], chosen.steps))
    return windows


def _candidates(num_qubits: int, tile_qubits: int) -> list[tuple[int, ...]]:
    """Return the qubits of all windows that a sweep may take: the lowest ones, and a cyclic range of the others."""
    if num_qubits <= tile_qubits:
        return [tuple(range(num_qubits))]
    others = range(LOW_QUBITS, num_qubits)
    size = tile_qubits - LOW_QUBITS
    ranges = ([others[(first + k) % len(others)] for k in range(size)] for first in range(len(others)))
    return [(*range(LOW_QUBITS), *sorted(qubits)) for qubits in ranges]


class _Order:
    """The order that a fused program demands.

    Attributes:
        runs: ``runs[q]``, the runs of qubit q, the first one first.
        terms: ``terms[q][m]``, the terms on qubit q behind m of its runs. They come before its run number m.
        qubits: ``qubits[t]``, the qubits of term t.
    """

    def __init__(self, fused: FusedProgram):
        n = fused.num_qubits
        self.runs: list[list[int]] = [[] for _ in range(n)]
        layers: list[list[int]] = [[] for _ in range(n)]
        for run, (qubit, layer) in enumerate(zip(fused.run_qubit.tolist(), fused.run_layer.tolist())):
            self.runs[qubit].append(run)
            layers[qubit].append(layer)
        self.terms: list[list[list[int]]] = [[[] for _ in range(len(runs) + 1)] for runs in self.runs]
        self.qubits = [bits_of(support) for support in (fused.term_care | fused.term_sign).tolist()]
        counts = [0] * n  # of each qubit, the runs before the phase that the loop has come to
        for term, phase in enumerate(fused.term_phase.tolist()):
            for qubit in self.qubits[term]:
                while counts[qubit] < len(layers[qubit]) and layers[qubit][counts[qubit]] < phase:
                    counts[qubit] += 1
                self.terms[qubit][counts[qubit]].append(term)


@dataclass
class _Frontier:
    """How far the sweeps got. The attributes say so for every qubit q and every term t of the order, at any time.

    Attributes:
        done: ``done[q]`` runs of q are done, the first ones.
        waiting: ``waiting[q]`` is the number of terms in ``order.terms[q][done[q]]`` that are not executed. The next
            run of q can be done where that is 0.
        arrived: ``arrived[t]`` is the number of qubits of t on which all runs before t are done. The term can be
            executed where that is the number of all its qubits.
        executed: ``executed[t]`` says whether t is executed.
        ended: the qubits whose last run is done with the Rz behind it; those without runs from the start.
    """

    done: list[int]
    waiting: list[int]
    arrived: bytearray
    executed: bytearray
    ended: set[int]

    @classmethod
    def start(cls, order: _Order) -> _Frontier:
        """Return the frontier before the first sweep."""
        num_qubits, num_terms = len(order.runs), len(order.qubits)
        ended = {qubit for qubit in range(num_qubits) if not order.runs[qubit]}
        start = cls([0] * num_qubits, [0] * num_qubits, bytearray(num_terms), bytearray(num_terms), ended)
        for qubit in range(num_qubits):
            start._arrive(order, qubit)
        return start

    def copy(self) -> _Frontier:
        return _Frontier(self.done[:], self.waiting[:], self.arrived[:], self.executed[:], set(self.ended))

    def is_end(self, order: _Order) -> bool:
        """Say whether everything is done."""
        return len(self.ended) == len(order.runs) and all(self.executed)

    def do_run(self, order: _Order, qubit: int) -> int:
        """Do the next run of a qubit and return it."""
        run = order.runs[qubit][self.done[qubit]]
        self.done[qubit] += 1
        self._arrive(order, qubit)
        return run

    def _arrive(self, order: _Order, qubit: int) -> None:
        terms = order.terms[qubit][self.done[qubit]]
        self.waiting[qubit] = len(terms)
        for term in terms:
            self.arrived[term] += 1

    def execute_terms(self, order: _Order, qubits: Iterable[int]) -> list[int]:
        """Execute all terms that can be, of those that the next runs of some qubits wait for, and return them."""
        executed = []
        for qubit in qubits:
            for term in order.terms[qubit][self.done[qubit]]:
                members = order.qubits[term]
                if self.arrived[term] == len(members) and not self.executed[term]:
                    self.executed[term] = 1
                    executed.append(term)
                    for member in members:
                        self.waiting[member] -= 1
        return executed

    def give_back(self, order: _Order, terms: list[int]) -> None:
        """Undo terms that were executed last."""
        for term in terms:
            self.executed[term] = 0
            for member in order.qubits[term]:
                self.waiting[member] += 1


@dataclass
class _Advance:
    """A sweep over a window: the frontier behind it, its steps, and the terms and last Rz that it does."""

    frontier: _Frontier
    steps: list[Step] = field(default_factory=list)
    num_terms: int = 0

    def speed(self) -> tuple[float, int]:
        """Return the most rotations per cost over all numbers of steps, and that number."""
        counts = accumulate(len(step.runs) for step in self.steps)
        speeds = [count / (_PASS_COST + steps) for steps, count in enumerate(counts, start=1)]
        best = max(speeds, default=0.0)
        return best, speeds.index(best) + 1 if best else len(self.steps)

    def add(self, step: Step) -> None:
        self.steps.append(step)
        self.num_terms += len(step.terms) + len(step.endings)


def _advance(order: _Order, start: _Frontier, qubits: tuple[int, ...], most_steps: int = sys.maxsize) -> _Advance:
    """Run steps on a window until none of its qubits can go on, or that many with rotations."""
    frontier = start.copy()
    advance = _Advance(frontier)
    fresh: Iterable[int] = qubits  # the qubits whose next terms may have become executable
    while True:
        terms = frontier.execute_terms(order, fresh)
        ready = [q for q in qubits if frontier.waiting[q] == 0 and frontier.done[q] < len(order.runs[q])]
        if not ready or len(advance.steps) == most_steps:
            break
        advance.add(Step(terms, [frontier.do_run(order, q) for q in ready], []))
        fresh = ready

    def is_over(qubit: int) -> bool:
        return frontier.done[qubit] == len(order.runs[qubit])

    endings = [q for q in qubits if is_over(q) and q not in frontier.ended]
    if endings or any(all(map(is_over, order.qubits[term])) for term in terms):
        advance.add(Step(terms, [], endings))
        frontier.ended.update(endings)
    else:  # these terms are left to the window that can go on behind them
        frontier.give_back(order, terms)
    return advance
