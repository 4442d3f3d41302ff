# SPDX-License-Identifier: Apache-2.0
"""FusedProgram -> Schedule: the segments that ranks sweep alone, and the exchanges of qubits between the segments.

Of the n qubits of a state, g are *global*: their bits are the number of the rank. The other qubits are *local*: their
bits are the index of an amplitude on its rank. Rotations and dense gates need local target qubits. Diagonal terms and
controls do not, because a global qubit only gives a factor that depends on the rank. A *segment* executes all gates
that do not wait for a rotation of a global qubit. An *exchange* then swaps global qubits with local qubits.

The search for global qubits is greedy. It takes the set with which the next segment executes the most rotations, which
are qubits whose next rotations are needed last. Among equal sets, it takes a set that needs few swaps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qiskit_fused.common.bits import bits_of
from qiskit_fused.common.text import count_text
from qiskit_fused.fusion.fused_program import FusedProgram


@dataclass(frozen=True, eq=False)
class Segment:
    """The gates that ranks execute between two exchanges.

    Attributes:
        places: int64 (n,), the place of each bit of the fused program. Place p < n - g is bit p of the index of an
            amplitude on its rank, and place n - g + p is bit p of the number of the rank.
        runs, terms, dense: int64, ascending, indices of runs, terms and dense gates of the fused program.
    """

    places: np.ndarray
    runs: np.ndarray
    terms: np.ndarray
    dense: np.ndarray


@dataclass(frozen=True)
class Exchange:
    """A swap of bit ``rank_bits[j]`` of the number of the rank with bit ``local_bits[j]`` of the index, for each j."""

    rank_bits: tuple[int, ...]
    local_bits: tuple[int, ...]

    @property
    def moved(self) -> float:
        """The share of its amplitudes that a rank sends, and also receives."""
        return 1.0 - 0.5 ** len(self.rank_bits)


@dataclass(frozen=True, eq=False)
class Schedule:
    """The segments of a fused program; ``exchanges[s]`` is between segment s and segment s + 1."""

    num_qubits: int
    num_global: int
    segments: list[Segment]
    exchanges: list[Exchange]

    @property
    def num_local(self) -> int:
        """Number of local qubits, n - g."""
        return self.num_qubits - self.num_global


def make_schedule(fused: FusedProgram, num_global: int) -> Schedule:
    """Cut a fused program into segments for 2^g ranks.

    Args:
        fused: the fused program.
        num_global: g.

    Raises:
        ValueError: when a rank is too small for the targets of a dense gate, or holds no qubit.

    Cost: O(g n) NumPy operations for each phase of the fused program.
    """
    n = fused.num_qubits
    if not n:
        raise ValueError("the circuit has no qubits, so ranks have no state to share; use FusedEstimatorGradient.")
    widest = max([1, *np.bitwise_count(fused.dense_targets).tolist()])
    if n - num_global < widest:
        needed = "a dense gate acts on" if widest > 1 else "each rank needs"
        raise ValueError(
            f"the observables see {count_text(n, 'qubit')}, so {1 << num_global} ranks hold "
            f"{count_text(max(n - num_global, 0), 'qubit')} each, and {needed} {count_text(widest, 'qubit')}; use "
            f"at most {count_text(1 << max(n - widest, 0), 'rank')}."
        )
    walk = _Walk(fused, num_global)
    while not walk.is_over():
        walk.add_segment()
    return Schedule(n, num_global, walk.segments, walk.exchanges)


class _Walk:
    """The walk through a fused program, one segment after the other.

    A *move* is a rotation or a dense gate; a qubit has at most one move in a layer. The number D + 1 stands for the
    layer of a move that does not exist, where D is the number of layers.

    Attributes:
        next_move: int32 (D + 2, n), the first layer >= the row in which the qubit has a move.
        next_target: the same for moves that need the qubit local: controls of dense gates are left out.
        moves_before: int64 (D + 2, n), the number of moves of the qubit that need it local, in layers before the row.
        supports: uint64 (T,), the qubits of each term.
        begin: int64 (n,), the layer of the first move of each qubit that is not executed.
        pending: bool (T,), which terms are not executed.
        places: the places of the latest segment; None before the first segment.
        flipped: the mask of the qubits on which some observable is no diagonal.
    """

    def __init__(self, fused: FusedProgram, num_global: int):
        n, depth = fused.num_qubits, fused.num_layers
        self.fused, self.num_global = fused, num_global
        self.none = depth + 1
        targets, moves = np.zeros((2, self.none, n), dtype=bool)
        targets[fused.run_layer, fused.run_qubit] = True
        self.members = fused.dense_targets | fused.dense_care
        for layer, own, members in zip(fused.dense_layer.tolist(), fused.dense_targets, self.members):
            targets[layer, bits_of(int(own))] = True
            moves[layer, bits_of(int(members))] = True
        self.next_move, self.next_target = self._next(moves | targets), self._next(targets)
        self.moves_before = np.concatenate([np.zeros((1, n), np.int64), targets.cumsum(axis=0)])
        self.supports = fused.term_care | fused.term_sign
        self.terms_of = np.searchsorted(fused.term_phase, np.arange(depth + 2))
        self.dense_of = np.searchsorted(fused.dense_layer, np.arange(depth + 2))
        self.begin = self.next_move[0].astype(np.int64)
        self.pending = np.ones(len(self.supports), dtype=bool)
        self.qubits = np.arange(n, dtype=np.uint64)
        self.places: np.ndarray | None = None
        support = np.zeros(n, np.uint8) if fused.support is None else fused.support
        seen = fused.wires >= 0
        flipped = fused.wires[seen][support[seen] == 2] if fused.support is not None else []
        self.flipped = int(sum(1 << int(bit) for bit in flipped))
        self.segments: list[Segment] = []
        self.exchanges: list[Exchange] = []

    def _next(self, moves: np.ndarray) -> np.ndarray:
        """Return int32 (D + 2, n): the first layer >= the row with a move, from bool (D + 1, n)."""
        layers = np.where(moves, np.arange(self.none)[:, None], self.none)
        first = np.minimum.accumulate(layers[::-1], axis=0)[::-1]
        return np.concatenate([first, np.full((1, moves.shape[1]), self.none)]).astype(np.int32)

    def is_over(self) -> bool:
        """Say whether all gates are executed, by at least one segment."""
        return bool(self.segments) and not self.pending.any() and bool((self.begin == self.none).all())

    def add_segment(self) -> None:
        """Choose the global qubits of the next segment, and execute it."""
        chosen, end = self._choose()
        self._place(bits_of(chosen))
        assert self.places is not None
        fused, begin = self.fused, self.begin
        layer, qubit = fused.run_layer, fused.run_qubit
        runs = np.flatnonzero((begin[qubit] <= layer) & (layer < end[qubit]))
        stopped = (end < np.arange(self.none)[:, None]).astype(np.uint64) << self.qubits
        stopped_at = np.bitwise_or.reduce(stopped, axis=1, initial=np.uint64(0))  # for each phase, the qubits behind it
        is_done = self.pending & (self.supports & stopped_at[fused.term_phase] == 0)
        target = np.array([bits_of(int(mask))[0] for mask in fused.dense_targets], dtype=np.intp)
        dense = np.flatnonzero((begin[target] <= fused.dense_layer) & (fused.dense_layer < end[target]))
        self.segments.append(Segment(self.places, runs, np.flatnonzero(is_done), dense))
        self.pending &= ~is_done
        self.begin = end

    def _choose(self) -> tuple[int, np.ndarray]:
        """Return the mask of the global qubits of the next segment, and for each qubit the layer of its next move.

        The set grows by one qubit at a time. The last step also compares sets of neighbouring qubits.
        """
        n, g = self.fused.num_qubits, self.num_global
        chosen, candidates = 0, [0]
        for step in range(g):
            candidates = [chosen | 1 << qubit for qubit in range(n) if not chosen >> qubit & 1]
            if step == g - 1:
                candidates += [sum(1 << (first + k) % n for k in range(g)) for first in range(n)]
                candidates += [self._current()] if self.places is not None else []
            if step < g - 1:
                chosen = candidates[self._best(candidates)[0]]
        best, end = self._best(candidates)
        return candidates[best], end

    def _current(self) -> int:
        """Return the mask of the global qubits of the latest segment."""
        local = self.fused.num_qubits - self.num_global
        return 0 if self.places is None else sum(1 << int(bit) for bit in np.flatnonzero(self.places >= local))

    def _best(self, candidates: list[int]) -> tuple[int, np.ndarray]:
        """Return the index of the best set of global qubits, and for each qubit the layer of its next move."""
        masks = np.array(candidates, dtype=np.uint64)
        ends = self._advance(masks)
        done = np.take_along_axis(self.moves_before, ends, axis=0) - self.moves_before[self.begin, self.qubits]
        stays = np.bitwise_count(masks & np.uint64(self._current())).astype(np.int64)
        # Observables that flip global qubits cost an exchange at the end.
        flipped = np.bitwise_count(masks & np.uint64(self.flipped)).astype(np.int64) * (ends == self.none).all(axis=1)
        scale = self.fused.num_qubits + 1
        best = int(np.argmax((done.sum(axis=1) * scale + stays) * scale - flipped))
        return best, ends[best]

    def _advance(self, masks: np.ndarray) -> np.ndarray:
        """Return int64 (sets, n), the layer of the next move of each qubit after a segment with these global qubits.

        A term of phase p waits where a qubit has a next move before layer p. The next moves after phase p of its qubits
        then wait too. Terms of a phase commute, so they do not wait for each other.
        """
        fused = self.fused
        is_global = (masks[:, None] >> self.qubits & np.uint64(1)).astype(bool)
        ends = np.where(is_global, self.next_target[self.begin, self.qubits], self.none).astype(np.int64)
        first = min(int(self.begin.min()), int(fused.term_phase[self.pending].min(initial=self.none)))
        for phase in range(first, fused.num_layers + 1):
            terms = slice(self.terms_of[phase], self.terms_of[phase + 1])
            supports = self.supports[terms][self.pending[terms]]
            if len(supports):
                behind = ((ends < phase).astype(np.uint64) << self.qubits).sum(axis=1, dtype=np.uint64)
                waits = supports & behind[:, None] != 0
                reached = np.bitwise_or.reduce(np.where(waits, supports, np.uint64(0)), axis=1)
                is_reached = (reached[:, None] >> self.qubits & np.uint64(1)).astype(bool)
                np.minimum(ends, self.next_move[phase], out=ends, where=is_reached)
            for gate in range(self.dense_of[phase], self.dense_of[phase + 1]):
                members = bits_of(int(self.members[gate]))
                if self.begin[members[0]] <= phase:
                    gate_waits = (masks & fused.dense_targets[gate] != 0) | (ends[:, members] <= phase).any(axis=1)
                    waiting = np.minimum(ends[:, members], phase)
                    ends[:, members] = np.where(gate_waits[:, None], waiting, ends[:, members])
            if (ends <= phase).all():
                break
        return ends

    def _place(self, global_qubits: list[int]) -> None:
        """Set the places of the next segment, and append the exchange before it."""
        n, local = self.fused.num_qubits, self.fused.num_qubits - self.num_global
        if self.places is None:
            others = [qubit for qubit in range(n) if qubit not in global_qubits]
            self.places = np.empty(n, np.int64)
            self.places[others + global_qubits] = np.arange(n)
            return
        before = self.places
        leaving = [qubit for qubit in global_qubits if before[qubit] < local]
        arriving = [qubit for qubit in range(n) if before[qubit] >= local and qubit not in global_qubits]
        self.places = before.copy()
        self.places[leaving], self.places[arriving] = before[arriving], before[leaving]
        rank_bits, local_bits = (before[arriving] - local).tolist(), before[leaving].tolist()
        self.exchanges.append(Exchange(tuple(rank_bits), tuple(local_bits)))
