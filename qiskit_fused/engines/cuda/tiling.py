# SPDX-License-Identifier: Apache-2.0
"""FusedProgram -> windows: the qubits that the tiles of each sweep hold, and the steps that the sweep executes.

A *tile* is 2^t amplitudes that differ in t qubits only; these qubits are its *window*. A sweep over the tiles of a
window executes *steps*: diagonal terms, then rotations of window qubits. A rotation waits for the earlier terms on its
qubit. A term waits for the earlier rotations on all its qubits, but only one of its qubits has to be in the window: the
qubits outside give a sign or a factor that depends on the tile. A sweep therefore goes many layers deep, until terms
wait for rotations of qubits outside the window. The next sweep takes another window and continues there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from qiskit_fused.common.bits import bits_of
from qiskit_fused.engines.cuda.window_search import RunOrder, search_windows
from qiskit_fused.fusion.fused_program import FusedProgram

LOW_QUBITS = 3
"""Number of lowest qubits that are in every window: eight neighbouring amplitudes are read and written together."""


@dataclass(frozen=True)
class Step:
    """Terms, then rotations, that a sweep executes.

    Attributes:
        terms: indices of terms of the fused program.
        runs: indices of runs of the fused program, on different qubits.
        endings: qubits whose last rotation was executed, and whose Rz after it is part of this step.
    """

    terms: list[int]
    runs: list[int]
    endings: list[int]


@dataclass(frozen=True)
class Window:
    """One sweep: its qubits, ascending, and its steps."""

    qubits: tuple[int, ...]
    steps: list[Step]


class WindowRuns(NamedTuple):
    """The address bits of a window, which are two runs of neighbouring bits.

    Attributes:
        low: number of bits of the first run, which begins at bit 0.
        high: the bit at which the second run begins; the number of all bits if there is a single run.
    """

    low: int
    high: int

    @classmethod
    def of(cls, bits: list[int]) -> WindowRuns:
        """Return the runs of the bits of a window, ascending."""
        low = next((k for k, bit in enumerate(bits) if bit != k), len(bits))
        high = bits[low] if low < len(bits) else len(bits)
        assert bits[low:] == list(range(high, high + len(bits) - low)), "a window is at most two runs of bits"
        return cls(low, high)


def arrangement_of(bit: int, tile_qubits: int, register_qubits: int) -> int:
    """Return the arrangement in which a tile bit is rotated: a multiple of r, or t - r.

    Exchanges between the arrangements 0, r and t - r take the fewest instructions.
    """
    most = tile_qubits - register_qubits
    return most if bit >= most else bit - bit % register_qubits


def make_windows(fused: FusedProgram, tile_qubits: int, register_qubits: int) -> list[Window]:
    """Cut a fused program into sweeps over tiles of at most 2^tile_qubits amplitudes.

    Candidates are the windows of the lowest qubits and of a range of neighbouring other qubits. `window_search` chooses
    the candidate and the number of steps of each sweep. Terms that are left after all rotations take the candidates
    that execute the most of them.

    Args:
        fused: the fused program.
        tile_qubits: t.
        register_qubits: r, on which the number of stages of a step depends.

    Cost: O(rotations + terms), and the cost of `search_windows` unless one window holds all qubits.

    Raises:
        ValueError: when a window of ``tile_qubits`` qubits has no room for more than the lowest qubits.
    """
    n = fused.num_qubits
    if LOW_QUBITS >= tile_qubits < n:
        raise ValueError(f"tile_qubits is {tile_qubits}; allowed for {n} qubits: more than {LOW_QUBITS}.")
    order = _Order(fused)
    candidates = _candidates(n, tile_qubits)
    frontier, windows = _Frontier.start(order), []

    def add(qubits: tuple[int, ...], most_steps: int = sys.maxsize) -> None:
        nonlocal frontier
        advance = _advance(order, frontier, qubits, most_steps)
        frontier = advance.frontier
        windows.append(Window(qubits, advance.steps))

    if len(candidates) > 1 and fused.num_runs:
        arrangements = [arrangement_of(bit, tile_qubits, register_qubits) for bit in range(tile_qubits)]
        for number, steps in search_windows(order.run_order(), np.array(candidates), np.array(arrangements)):
            add(candidates[number], steps)
    while not frontier.is_end(order):
        add(max(candidates, key=lambda qubits: _advance(order, frontier, qubits).num_terms))
    return windows


def _candidates(num_qubits: int, tile_qubits: int) -> list[tuple[int, ...]]:
    """Return the windows that a sweep may take: the lowest qubits, and a cyclic range of the other qubits."""
    if num_qubits <= tile_qubits:
        return [tuple(range(num_qubits))]
    others = range(LOW_QUBITS, num_qubits)
    size = tile_qubits - LOW_QUBITS
    ranges = ([others[(first + k) % len(others)] for k in range(size)] for first in range(len(others)))
    return [(*range(LOW_QUBITS), *sorted(qubits)) for qubits in ranges]


class _Order:
    """The order in which the runs and terms of a fused program have to be executed.

    Attributes:
        runs: ``runs[q]``, the runs of qubit q in order.
        terms: ``terms[q][m]``, the terms on qubit q after m of its runs and before its run number m.
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
        counts = [0] * n  # for each qubit, the number of its runs before the current phase of the loop
        for term, phase in enumerate(fused.term_phase.tolist()):
            for qubit in self.qubits[term]:
                while counts[qubit] < len(layers[qubit]) and layers[qubit][counts[qubit]] < phase:
                    counts[qubit] += 1
                self.terms[qubit][counts[qubit]].append(term)

    def run_order(self) -> RunOrder:
        """Return the runs that each run waits for."""
        n = len(self.runs)
        counts = np.array([len(runs) for runs in self.runs])
        ends = np.cumsum(counts + 1)
        first = ends - counts - 1
        needed = np.zeros((ends[-1], n), np.int32)
        before = np.zeros((len(self.qubits), n), np.int32)  # number of runs of each qubit of a term before the term
        for qubit, terms in enumerate(self.terms):
            for number, group in enumerate(terms):
                before[group, qubit] = number
        for qubit, terms in enumerate(self.terms):
            for number, group in enumerate(terms):
                if group:
                    before[group].max(axis=0, out=needed[first[qubit] + number])
        needed[ends - 1] = np.iinfo(np.int32).max
        return RunOrder(counts, first, needed)


@dataclass
class _Frontier:
    """The progress of the sweeps, for every qubit q and every term t of the order.

    Attributes:
        done: ``done[q]`` is the number of runs of q that are done.
        waiting: ``waiting[q]`` is the number of terms in ``order.terms[q][done[q]]`` that are not executed. The next
            run of q can be done when this number is 0.
        arrived: ``arrived[t]`` is the number of qubits of t on which all runs before t are done. The term can be
            executed when this number is the number of its qubits.
        executed: ``executed[t]`` is 1 if t is executed, else 0.
        ended: the qubits whose last run and the Rz after it are done, and the qubits without runs.
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
        """Return whether all runs, all terms and the last Rz of every qubit are done."""
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
        """Execute, among the terms that the next runs of ``qubits`` wait for, all that can be; return them."""
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
        """Mark terms that were executed last as not executed."""
        for term in terms:
            self.executed[term] = 0
            for member in order.qubits[term]:
                self.waiting[member] += 1


@dataclass
class _Advance:
    """A sweep over a window.

    Attributes:
        frontier: the progress after the sweep.
        steps: the steps of the sweep.
        num_terms: number of terms, and of Rz after last runs, that the sweep executes.
    """

    frontier: _Frontier
    steps: list[Step] = field(default_factory=list)
    num_terms: int = 0

    def add(self, step: Step) -> None:
        self.steps.append(step)
        self.num_terms += len(step.terms) + len(step.endings)


def _advance(order: _Order, start: _Frontier, qubits: tuple[int, ...], most_steps: int = sys.maxsize) -> _Advance:
    """Execute steps on a window until no run of its qubits can be done, or ``most_steps`` steps with rotations."""
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
    else:  # a later window that can do the runs after these terms executes them
        frontier.give_back(order, terms)
    return advance
