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
from dataclasses import dataclass
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


def make_windows(plan: FusedProgram, tile_qubits: int) -> list[Window]:
    """Cut a plan into sweeps over tiles of at most 2^tile_qubits amplitudes.

    Greedy: of all windows of the lowest qubits and neighbouring others, each sweep takes the one, and as many steps of
    it, as get through most rotations for their cost. Cost: O(rotations + terms) where one window holds all qubits, else
    times the number of qubits.

    Raises:
        ValueError: when a window of that many qubits has no room beside the lowest ones.
    """
    n = plan.num_qubits
    if LOW_QUBITS >= tile_qubits < n:
        raise ValueError(f"tile_qubits is {tile_qubits}; allowed for {n} qubits: more than {LOW_QUBITS}.")
    progress = _Progress(plan)
    if n <= tile_qubits:
        candidates = [tuple(range(n))]
    else:
        others = range(LOW_QUBITS, n)
        size = tile_qubits - LOW_QUBITS
        blocks = ({others[(first + k) % len(others)] for k in range(size)} for first in range(len(others)))
        candidates = [(*range(LOW_QUBITS), *sorted(block)) for block in blocks]
    windows = []
    while not progress.finished():
        advances = [progress.advance(qubits) for qubits in candidates]
        best = max(range(len(candidates)), key=lambda k: (advances[k].speed()[0], advances[k].num_terms))
        chosen = progress.advance(candidates[best], advances[best].speed()[1]) if len(candidates) > 1 else advances[0]
        progress.commit(chosen)
        windows.append(Window(candidates[best], chosen.steps))
    return windows


class _Advance:
    """What a sweep over a window would do."""

    def __init__(self, done: list[int], waiting: list[int], arrived: bytearray):
        self.done, self.waiting, self.arrived = done, waiting, arrived
        self.executed: set[int] = set()
        self.ended: set[int] = set()
        self.steps: list[Step] = []

    @property
    def num_terms(self) -> int:
        return len(self.executed) + len(self.ended)

    def speed(self) -> tuple[float, int]:
        """Return the most rotations per cost over all numbers of steps, and that number."""
        counts = accumulate(len(step.runs) for step in self.steps)
        speeds = [count / (_PASS_COST + steps) for steps, count in enumerate(counts, start=1)]
        best = max(speeds, default=0.0)
        return best, speeds.index(best) + 1 if best else len(self.steps)


class _Progress:
    """How far every qubit got: runs done, and terms that its next run waits for."""

    def __init__(self, plan: FusedProgram):
        n = plan.num_qubits
        self.runs: list[list[int]] = [[] for _ in range(n)]
        layers: list[list[int]] = [[] for _ in range(n)]
        for run, (qubit, layer) in enumerate(zip(plan.run_qubit.tolist(), plan.run_layer.tolist())):
            self.runs[qubit].append(run)
            layers[qubit].append(layer)
        # before[q][m]: terms on qubit q after its run m - 1 and before its run m; members[t]: the qubits of term t
        self.before: list[list[list[int]]] = [[[] for _ in range(len(runs) + 1)] for runs in self.runs]
        self.members: list[list[int]] = []
        counts = [0] * n
        supports = (plan.term_care | plan.term_sign).tolist()
        for term, (phase, support) in enumerate(zip(plan.term_phase.tolist(), supports)):
            members = bits_of(support)
            for qubit in members:
                while counts[qubit] < len(layers[qubit]) and layers[qubit][counts[qubit]] < phase:
                    counts[qubit] += 1  # terms come by phase
                self.before[qubit][counts[qubit]].append(term)
            self.members.append(members)
        self.done = [0] * n
        self.waiting = [len(terms[0]) for terms in self.before]
        self.arrived = bytearray(len(supports))  # of each term, the qubits that have done the runs before it
        for terms in self.before:
            for term in terms[0]:
                self.arrived[term] += 1
        self.executed = bytearray(len(supports))
        self.ended = {qubit for qubit in range(n) if not self.runs[qubit]}

    def finished(self) -> bool:
        return len(self.ended) == len(self.runs) and all(self.executed)

    def advance(self, qubits: tuple[int, ...], most_steps: int = sys.maxsize) -> _Advance:
        """Run steps on a window until none of its qubits can go on, or that many with rotations."""
        to = _Advance(self.done[:], self.waiting[:], self.arrived[:])
        fresh: Iterable[int] = qubits
        while True:
            terms = self._executable(to, fresh)
            ready = [q for q in qubits if to.waiting[q] == 0 and to.done[q] < len(self.runs[q])]
            if not ready or len(to.steps) == most_steps:
                break
            to.steps.append(Step(terms, [self.runs[q][to.done[q]] for q in ready], []))
            for q in ready:
                to.done[q] += 1
                to.waiting[q] = len(self.before[q][to.done[q]])
                for term in self.before[q][to.done[q]]:
                    to.arrived[term] += 1
            fresh = ready
        endings = [q for q in qubits if to.done[q] == len(self.runs[q]) and q not in self.ended]
        if endings or any(self._is_last(to, term) for term in terms):
            to.steps.append(Step(terms, [], endings))
            to.ended.update(endings)
        else:  # left to the window that can go on behind them
            to.executed.difference_update(terms)
            for term in terms:
                for qubit in self.members[term]:
                    to.waiting[qubit] += 1
        return to

    def commit(self, to: _Advance) -> None:
        self.done, self.waiting, self.arrived = to.done, to.waiting, to.arrived
        for term in to.executed:
            self.executed[term] = 1
        self.ended |= to.ended

    def _executable(self, to: _Advance, fresh: Iterable[int]) -> list[int]:
        found = []
        members, arrived = self.members, to.arrived
        for q in fresh:
            for term in self.before[q][to.done[q]]:
                if arrived[term] < len(members[term]) or self.executed[term] or term in to.executed:
                    continue
                to.executed.add(term)
                found.append(term)
                for qubit in members[term]:
                    to.waiting[qubit] -= 1
        return found

    def _is_last(self, to: _Advance, term: int) -> bool:
        return all(to.done[qubit] == len(self.runs[qubit]) for qubit in self.members[term])
