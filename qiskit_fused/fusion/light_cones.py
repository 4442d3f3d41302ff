# SPDX-License-Identifier: Apache-2.0
"""The light cones of observables: which ops and qubits each of their terms can see, and which terms share a sweep.

Pulled back through the circuit, an observable acts on each qubit not at all, by a diagonal, or by anything. A diagonal
op matters where the observable is more than a diagonal on one of its qubits, any other op where the observable acts on
its qubit. What several observables see together is the union of what each of them sees; so the cones of Z and of X on
every single qubit, found by one walk back over the ops, give the cone of every term.

Simulating a cone of n qubits and g ops takes about ``g 2^n``, and applying each term that is no diagonal ``2^n`` more.
Terms whose cones overlap are cheaper together, terms far apart are cheaper one by one: `LightCones.groups` merges cones
pair by pair, the pair that costs least first, and keeps the groups of least cost on the way.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import reduce
from operator import or_
from weakref import WeakKeyDictionary

import numpy as np

from qiskit_fused.common.caches import BoundedCache
from qiskit_fused.common.forks import cached_property
from qiskit_fused.common.free_memory import TooManyQubits
from qiskit_fused.fusion.cone import Cone, trace_back
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.fusion.phase_gadgets import merge_ladders
from qiskit_fused.program.observables import Observables, X
from qiskit_fused.program.program import Ops, Program

# Costs are counted in ops times amplitudes, 0.5 ns each on one core (AMD Zen 4).
_MIN_QUBITS = 12  # active qubits; a gradient of fewer takes less than two evaluations take beside their sweeps
_FIXED = 1 << 16  # of an evaluation beside its sweeps, 30 us
_ROW = 1 << 11  # of a row beside its sweeps, 1 us
_BACK = 2  # times the forward sweep: the sweep back for one observable
_GAIN = 0.75  # groups are used only if they are estimated to take less than 0.75 of the time of all terms together
_SEVERAL, _MANY = 16, 256  # rows: groups are made for 1 row, or for as many as these

_MOST_REFERENCE_QUBITS = 30
_MOST_CONES = 1024  # that are compared with one another at a time
_BLOCK = 1 << 13  # ops whose sets are transposed at a time

_OP_BYTES, _GROUP_BYTES = 300, 1 << 14  # of a group with its plan, for each op and beside them, about
_GROUPINGS: BoundedCache[Grouping] = BoundedCache(64 << 20)
_CONES: BoundedCache[tuple[Ops, np.ndarray, np.ndarray]] = BoundedCache(32 << 20)


@dataclass(frozen=True, eq=False)
class Group:
    """Terms of observables that are simulated together.

    Attributes:
        terms: int64, ascending, numbers of the terms.
        observables: int64, ascending, the observables they belong to.
        num_qubits: qubits that they see.
        cost: estimated, in ops times amplitudes.
    """

    terms: np.ndarray
    observables: np.ndarray
    num_qubits: int
    cost: float
    program: Program
    support: np.ndarray
    cone: Cone

    @cached_property
    def plan(self) -> FusedProgram:
        """The fused program of their common light cone, made once."""
        return fuse_program(self.program, self.support, self.cone)


class Grouping:
    """The terms of some observables in groups, the group of most qubits first; without groups, all belong together."""

    def __init__(self, groups: list[Group]):
        self.groups = groups
        self._parts: WeakKeyDictionary[Observables, list[Observables]] = WeakKeyDictionary()

    @property
    def num_bytes(self) -> int:
        """Bytes of the groups and their plans, about."""
        return sum(_GROUP_BYTES + _OP_BYTES * len(group.cone.kept) for group in self.groups)

    def parts(self, operators: Observables) -> list[Observables]:
        """Return the terms of each group as observables; the same objects for the same observables."""
        parts = self._parts.get(operators)
        if parts is None:
            parts = [operators.take(group.terms, group.observables) for group in self.groups]
            self._parts[operators] = parts
        return parts


class LightCones:
    """The light cones of a program, and groups of terms by what they see.

    Args:
        program: the lowered circuit.
    """

    def __init__(self, program: Program):
        self._program = program

    def groups(
        self, operators: Observables, num_rows: int, per_pair: bool, most_qubits: int | None = None
    ) -> Grouping | None:
        """Return groups of terms to simulate one after the other; None where all terms belong together.

        Args:
            operators: the observables.
            num_rows: rows of the batch.
            per_pair: whether every pair of a row and an observable has a sweep back of its own.
            most_qubits: never put terms together that see more qubits than this.

        Cost: one look-up for observables that were seen before, else O(ops + terms) and the square of the number of
        different cones.
        """
        if self._program.num_qubits < _MIN_QUBITS and most_qubits is None:
            return None
        rows = 1 if num_rows < _SEVERAL else _SEVERAL if num_rows < _MANY else _MANY
        key = (id(self), rows, per_pair, most_qubits, operators.structure)
        grouping = _GROUPINGS.get(key)
        if grouping is None:
            grouping = self._find_groups(operators, _Costs(rows, per_pair, most_qubits))
            grouping = _GROUPINGS.put(key, grouping, grouping.num_bytes, owner=self)
        return grouping if grouping.groups else None

    def widest(self, operators: Observables) -> tuple[int, int, int]:
        """Return the qubits that all terms see together, the most that one term sees, and the number of that term."""
        seen, _, _ = self._seen(operators)
        counts = np.bitwise_count(seen).sum(axis=1, dtype=np.int64)
        together = np.bitwise_count(np.bitwise_or.reduce(seen, axis=0, initial=0)).sum()
        return int(together), int(counts.max(initial=0)), int(counts.argmax()) if len(counts) else 0

    def _cones(self) -> tuple[Ops, np.ndarray, np.ndarray]:
        """Return ops, and packed bits of the qubits and of the ops that Z and X on each qubit see, (2n, words)."""
        kept_cones = _CONES.get(id(self))
        if kept_cones is not None:
            return kept_cones
        program, ops = self._program, merge_ladders(self._program.ops)
        num_qubits = program.num_qubits
        touched = [3 << 2 * qubit for qubit in range(num_qubits)]
        turned = [2 << 2 * qubit for qubit in range(num_qubits)]
        seen_by = trace_back(ops, touched, turned)
        for qubits in program.starts_together:
            together = reduce(or_, [touched[qubit] for qubit in qubits])
            for qubit in qubits:
                touched[qubit] = together
        cones = ops, _transposed(touched, 2 * num_qubits), _transposed(seen_by, 2 * num_qubits)
        num_bytes = cones[1].nbytes + cones[2].nbytes + (ops is not program.ops) * _OP_BYTES * len(ops)
        return _CONES.put(id(self), cones, num_bytes, owner=self)

    def _seen(self, operators: Observables) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return packed bits of the qubits that each term sees, and term and row of `_cones` of each letter."""
        term: np.ndarray = np.repeat(np.arange(operators.num_terms), np.diff(operators.boundaries))
        wires = self._program.output_wires[operators.qubits]
        factor = 2 * wires + ((operators.letters & X) != 0)
        term, factor = term[wires >= 0], factor[wires >= 0]
        qubits_of = self._cones()[1]
        seen = np.zeros((operators.num_terms, qubits_of.shape[1]), np.uint64)
        np.bitwise_or.at(seen, term, qubits_of[factor])
        return seen, term, factor

    def _find_groups(self, operators: Observables, costs: _Costs) -> Grouping:
        seen, term, factor = self._seen(operators)
        qubits, kind = np.unique(seen, axis=0, return_inverse=True)
        kind = kind.reshape(-1)
        if len(qubits) < 2:
            return Grouping([])
        all_ops, _, ops_of = self._cones()
        factors = np.zeros((len(qubits), len(ops_of)), bool)
        factors[kind[term], factor] = True
        ops = np.array([np.bitwise_or.reduce(ops_of[row], axis=0) for row in factors])
        owners = np.zeros((len(qubits), -(-operators.num_observables // 64)), np.uint64)
        owner = operators.observable.astype(np.uint64)
        np.bitwise_or.at(owners, (kind, operators.observable // 64), np.uint64(1) << (owner & np.uint64(63)))
        flips_bits = np.zeros(operators.num_terms, bool)
        flips_bits[term[factor % 2 == 1]] = True
        cones = _Sets(qubits, ops, owners, np.bincount(kind[flips_bits], minlength=len(qubits)).astype(np.float64))
        chosen = _merge(cones, costs)
        together = cones.union(list(range(len(qubits))))
        apart = sum(costs.of(cones.union(members))[0] for members in chosen)
        if len(chosen) < 2 or (costs.most_qubits is None and apart >= _GAIN * costs.of(together)[0]):
            return Grouping([])
        groups = [
            self._make_group(operators, np.isin(kind, members), cones.union(members), costs, all_ops)
            for members in chosen
        ]
        groups.sort(key=lambda group: (group.num_qubits, group.cost), reverse=True)
        return Grouping(groups)

    def _make_group(self, operators: Observables, chosen: np.ndarray, union: _Sets, costs: _Costs, ops: Ops) -> Group:
        program, terms = self._program, np.flatnonzero(chosen)
        seen = np.flatnonzero(_unpacked(union.qubits[0], program.num_qubits))
        return Group(
            terms=terms,
            observables=np.unique(operators.observable[terms]),
            num_qubits=len(seen),
            cost=float(costs.of(union)[0]),
            program=program,
            support=operators.take(terms, np.arange(len(operators))).support(program.num_circuit_qubits),
            cone=Cone(ops, np.flatnonzero(_unpacked(union.ops[0], len(ops))), seen),
        )


def with_seen_gates(plan: FusedProgram) -> FusedProgram:
    """Return a plan for the reference engine, which applies gates: its program has no gates that no observable sees.

    A gate counts as seen where it acts on a qubit that an observable, or a later gate that is seen, acts on.

    Raises:
        TooManyQubits: when more than 30 qubits are left, and more than the plan has.
    """
    program, support = plan.program, plan.support
    if support is None or program.any_start or program.num_qubits < _MIN_QUBITS:
        return plan
    reached = set(program.wires[support > 0].tolist()) - {-1}
    kept = []
    for gate in reversed(program.gates):
        if not reached.isdisjoint(gate.qubits + gate.controls):
            reached.update(gate.qubits + gate.controls)
            kept.append(gate)
    pieces = [piece for piece in program.pieces if not reached.isdisjoint(piece.qubits)]
    for piece in pieces:
        reached.update(piece.qubits)
    if len(reached) > max(_MOST_REFERENCE_QUBITS, plan.num_qubits):
        raise TooManyQubits(
            f"device='reference' applies whole gates, to {len(reached)} qubits at once, the limit is "
            f"{_MOST_REFERENCE_QUBITS}; use device='cpu'."
        )
    order = sorted(reached)
    place = dict(zip(order, range(len(order))))
    seen = replace(
        program,
        num_qubits=len(order),
        wires=np.array([place.get(wire, -1) for wire in program.wires.tolist()], dtype=program.wires.dtype),
        gates=tuple([gate.on(place) for gate in reversed(kept)]),
        pieces=tuple([replace(piece, qubits=tuple([place[qubit] for qubit in piece.qubits])) for piece in pieces]),
    )
    return replace(plan, program=seen, start_bits=plan.start_bits[order])


@dataclass(eq=False)
class _Sets:
    """C cones: packed bits, uint64 (C, words), of their qubits, their ops and the observables whose terms they are of.

    ``flips``, float64 (C,), counts the terms that are no diagonals: an observable is applied in one pass for each of
    them, and in one for all others.
    """

    qubits: np.ndarray
    ops: np.ndarray
    owners: np.ndarray
    flips: np.ndarray

    def take(self, chosen: np.ndarray | list[int]) -> _Sets:
        return _Sets(self.qubits[chosen], self.ops[chosen], self.owners[chosen], self.flips[chosen])

    def union(self, chosen: list[int]) -> _Sets:
        """Return the union of some cones, as one cone."""
        qubits, ops, owners = (
            np.bitwise_or.reduce(part[chosen], axis=0)[None] for part in (self.qubits, self.ops, self.owners)
        )
        return _Sets(qubits, ops, owners, self.flips[chosen].sum(keepdims=True))

    def with_each(self, number: int) -> _Sets:
        """Return the unions of one cone with each of them all."""
        qubits, ops, owners = (part | part[number] for part in (self.qubits, self.ops, self.owners))
        return _Sets(qubits, ops, owners, self.flips + self.flips[number])


@dataclass(frozen=True)
class _Costs:
    """What simulating cones takes; see `LightCones.groups` for the fields."""

    num_rows: int
    per_pair: bool
    most_qubits: int | None

    def of(self, cones: _Sets) -> np.ndarray:
        """Return the cost of each cone, float64 (C,)."""
        sweeps = np.bitwise_count(cones.ops).sum(axis=1) + cones.flips + 1
        if self.per_pair:
            sweeps *= 1 + _BACK * np.bitwise_count(cones.owners).sum(axis=1)
        return _FIXED + self.num_rows * (_ROW + sweeps * np.exp2(np.minimum(_count_qubits(cones), 900)))

    def of_unions(self, cones: _Sets) -> np.ndarray:
        """Return the cost of each union, infinite where the union holds too many qubits."""
        costs = self.of(cones)
        if self.most_qubits is not None:
            costs[_count_qubits(cones) > self.most_qubits] = np.inf
        return costs


def _count_qubits(cones: _Sets) -> np.ndarray:
    return np.bitwise_count(cones.qubits).sum(axis=1, dtype=np.int64)


def _merge(cones: _Sets, costs: _Costs) -> list[list[int]]:
    """Return the groups of cones that take least; of very many cones, merge some at a time first."""
    groups = [[number] for number in range(len(cones.qubits))]
    while len(groups) > _MOST_CONES:
        merged = []
        for begin in range(0, len(groups), _MOST_CONES):
            merged += _merge_groups(cones, groups[begin : begin + _MOST_CONES], costs)
        if len(merged) > 0.9 * len(groups):
            return merged
        groups = merged
    return _merge_groups(cones, groups, costs)


def _merge_groups(cones: _Sets, groups: list[list[int]], costs: _Costs) -> list[list[int]]:
    """Merge the pair of groups that adds least, again and again; return the cheapest groups met on the way.

    The merges make a tree. Each node takes what its union costs, or what its two branches cost at their best.
    """
    unions = [cones.union(group) for group in groups]
    sets = _Sets(*(np.concatenate([getattr(union, part.name) for union in unions]) for part in fields(_Sets)))
    union_costs, count = costs.of(sets), len(groups)
    best, partition = union_costs.copy(), [[group] for group in groups]
    alive = np.ones(count, bool)

    def added_to(number: int) -> np.ndarray:
        added = costs.of_unions(sets.with_each(number)) - union_costs - union_costs[number]
        added[~alive] = added[number] = np.inf
        return added

    added = np.array([added_to(number) for number in range(count)])
    nearest = added.argmin(axis=1)
    least = added[np.arange(count), nearest]
    while True:
        first = int(least.argmin())
        # where even this union costs more than all groups do, so does every later one
        if not least[first] <= best[alive].sum():
            return [group for number in np.flatnonzero(alive).tolist() for group in partition[number]]
        second = int(nearest[first])
        for bits in (sets.qubits, sets.ops, sets.owners):
            bits[first] |= bits[second]
        sets.flips[first] += sets.flips[second]
        alive[second] = False
        union_costs[first] = costs.of(sets.take([first]))[0]
        apart = best[first] + best[second]
        if union_costs[first] <= apart:
            partition[first] = [[cone for group in (*partition[first], *partition[second]) for cone in group]]
        else:
            partition[first] = partition[first] + partition[second]
        best[first] = min(union_costs[first], apart)
        row = added_to(first)
        added[second, :] = added[:, second] = np.inf
        added[first, :] = added[:, first] = row
        stale = (nearest == first) | (nearest == second)
        stale[[first, second]] = True
        nearest[stale] = added[stale].argmin(axis=1)
        closer = row < added[np.arange(count), nearest]
        nearest[closer] = first
        least = added[np.arange(count), nearest]


def _transposed(sets: list[int], count: int) -> np.ndarray:
    """Return packed bits, uint64 (count, words): bit i of row u says whether bit u of ``sets[i]`` is set."""
    packed = np.zeros((count, 8 * max(-(-len(sets) // 64), 1)), np.uint8)
    width = -(-count // 8)
    for begin in range(0, len(sets), _BLOCK):
        block = b"".join([members.to_bytes(width, "little") for members in sets[begin : begin + _BLOCK]])
        rows = np.frombuffer(block, np.uint8).reshape(-1, width)
        bits = np.packbits(np.unpackbits(rows, axis=1, count=count, bitorder="little").T, axis=1, bitorder="little")
        packed[:, begin // 8 : begin // 8 + bits.shape[1]] = bits
    return packed.view(np.uint64)


def _unpacked(words: np.ndarray, count: int) -> np.ndarray:
    return np.unpackbits(words.view(np.uint8), count=count, bitorder="little").astype(bool)
