# SPDX-License-Identifier: Apache-2.0
"""Light cones of single terms of observables, and groups of terms that are simulated together.

Pulled back through the circuit, an observable acts on each qubit not at all, by a diagonal, or by any operator. It sees
a diagonal op if it acts by more than a diagonal on one of the op's qubits. It sees any other op if it acts on the op's
qubit. The cone of several observables is the union of their cones. Therefore one walk back over the ops, which finds
the cones of Z and of X on every single qubit, gives the cone of every term.

Simulating a cone of n qubits and g ops costs about ``g 2^n``, and applying each term that is no diagonal costs ``2^n``
more. Terms whose cones overlap are cheaper together, terms far apart are cheaper one by one. `LightCones.groups` merges
two cones at a time, the cheapest pair first, and returns the cheapest groups met on the way.
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
from qiskit_fused.program.program import OpKind, Ops, Program

# The unit of cost is one op on one amplitude: 0.5 ns on one core (AMD Zen 4).
_MIN_QUBITS = 12  # least number of active qubits for groups; a smaller gradient takes less than 2 * _FIXED
_FIXED = 1 << 16  # cost of one evaluation besides its sweeps: 30 us
_ROW = 1 << 11  # cost of one row besides its sweeps: 1 us
_BACK = 2  # cost of the sweep back for one observable, in forward sweeps
_GAIN = 0.75  # groups are used only if they are estimated to take less than 0.75 of the time of all terms together
_SEVERAL, _MANY = 16, 256  # groups are computed for 1, 16 or 256 rows: the largest of these that the batch has

_MOST_REFERENCE_QUBITS = 30  # largest number of qubits that gates cut for the reference engine may act on
_MOST_CONES = 1024  # largest number of cones whose pairs are all compared at once
_BLOCK = 1 << 13  # number of ops whose sets are transposed at a time

_OP_BYTES, _GROUP_BYTES = 300, 1 << 14  # estimated bytes of a group with its fused program: per op, and besides the ops
_GROUPINGS: BoundedCache[Grouping] = BoundedCache(64 << 20)
_CONES: BoundedCache[tuple[Ops, np.ndarray, np.ndarray]] = BoundedCache(32 << 20)


@dataclass(frozen=True, eq=False)
class Group:
    """Terms of observables that are simulated together.

    Attributes:
        terms: int64, ascending, indices of the terms.
        observables: int64, ascending, indices of the observables that the terms belong to.
        num_qubits: number of qubits that the terms see.
        cost: estimated cost, in ops times amplitudes.
        program: the lowered circuit.
        support: uint8 (num_circuit_qubits,), the action of the terms on each circuit qubit.
        cone: the common light cone of the terms.
    """

    terms: np.ndarray
    observables: np.ndarray
    num_qubits: int
    cost: float
    program: Program
    support: np.ndarray
    cone: Cone

    @cached_property
    def fused(self) -> FusedProgram:
        """The fused program of the common light cone of the terms, made once."""
        return fuse_program(self.program, self.support, self.cone)


class Grouping:
    """The groups of the terms of some observables, sorted by falling number of qubits; empty if all belong together."""

    def __init__(self, groups: list[Group]):
        self.groups = groups
        self._parts: WeakKeyDictionary[Observables, list[Observables]] = WeakKeyDictionary()

    @property
    def num_bytes(self) -> int:
        """Estimated bytes of the groups and their fused programs."""
        return sum(_GROUP_BYTES + _OP_BYTES * len(group.cone.kept) for group in self.groups)

    def parts(self, operators: Observables) -> list[Observables]:
        """Return the terms of each group as observables; the same objects for the same observables."""
        parts = self._parts.get(operators)
        if parts is None:
            parts = [operators.take(group.terms, group.observables) for group in self.groups]
            self._parts[operators] = parts
        return parts


class LightCones:
    """The light cones of a program, and the groups of terms that are cheapest to simulate.

    Args:
        program: the lowered circuit.
    """

    def __init__(self, program: Program):
        self._program = program

    def groups(
        self, operators: Observables, num_rows: int, per_pair: bool, most_qubits: int | None = None
    ) -> Grouping | None:
        """Return groups of terms to simulate one after the other; None if all terms belong together.

        Args:
            operators: the observables.
            num_rows: number of rows of the batch.
            per_pair: whether every pair of a row and an observable takes its own sweep back.
            most_qubits: largest number of qubits that the terms of one group may see; None sets no limit.

        Cost: one look-up for observables whose groups are cached. Otherwise O(ops + terms), and the square of the
        number of different cones.
        """
        if (self._program.num_qubits < _MIN_QUBITS and most_qubits is None) or not operators.have_terms:
            return None  # the outcomes of one measurement depend on one state of all measured qubits
        rows = 1 if num_rows < _SEVERAL else _SEVERAL if num_rows < _MANY else _MANY
        key = (id(self), rows, per_pair, most_qubits, operators.structure)
        grouping = _GROUPINGS.get(key)
        if grouping is None:
            grouping = self._find_groups(operators, _Costs(rows, per_pair, most_qubits))
            grouping = _GROUPINGS.put(key, grouping, grouping.num_bytes, owner=self)
        return grouping if grouping.groups else None

    def widest(self, operators: Observables) -> tuple[int, int, int]:
        """Return how many qubits all terms see together, how many the widest term sees, and the index of that term."""
        seen, _, _ = self._seen(operators)
        counts = np.bitwise_count(seen).sum(axis=1, dtype=np.int64)
        together = np.bitwise_count(np.bitwise_or.reduce(seen, axis=0, initial=0)).sum()
        return int(together), int(counts.max(initial=0)), int(counts.argmax()) if len(counts) else 0

    def _cones(self) -> tuple[Ops, np.ndarray, np.ndarray]:
        """Return the merged ops, and two arrays of packed bits, (2n, words): the qubits and the ops that are seen.

        Row 2q of both arrays is for Z on qubit q, row 2q + 1 for X on qubit q. A dense gate on k qubits costs as much
        as 2**k ops, so it has 2**k further bits behind the bits of all ops.
        """
        cached_cones = _CONES.get(id(self))
        if cached_cones is not None:
            return cached_cones
        program, ops = self._program, merge_ladders(self._program.ops).ops
        num_qubits = program.num_qubits
        touched = [3 << 2 * qubit for qubit in range(num_qubits)]
        turned = [2 << 2 * qubit for qubit in range(num_qubits)]
        seen_by = trace_back(ops, touched, turned)
        for place in np.flatnonzero(ops.kind == OpKind.DENSE).tolist():
            seen_by += [seen_by[place]] * (1 << int(ops.sign[place]).bit_count())
        for qubits in program.starts_together:
            together = reduce(or_, [touched[qubit] for qubit in qubits])
            for qubit in qubits:
                touched[qubit] = together
        cones = ops, _transposed(touched, 2 * num_qubits), _transposed(seen_by, 2 * num_qubits)
        num_bytes = cones[1].nbytes + cones[2].nbytes + (ops is not program.ops) * _OP_BYTES * len(ops)
        return _CONES.put(id(self), cones, num_bytes, owner=self)

    def _seen(self, operators: Observables) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return packed bits of the qubits that each term sees, and each letter's term and row of `_cones`."""
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


def with_seen_gates(fused: FusedProgram) -> FusedProgram:
    """Return the fused program with only the gates that observables see.

    The reference engine needs such a program, because it applies whole gates.

    A gate is seen if it acts on a qubit that an observable acts on, or that a later gate which is seen acts on.

    Raises:
        TooManyQubits: when the gates that are seen act on more than 30 qubits, and on more qubits than the fused
            program simulates.
    """
    program, support = fused.program, fused.support
    if support is None or program.any_start or program.num_qubits < _MIN_QUBITS:
        return fused
    reached = set(program.wires[support > 0].tolist()) - {-1}
    kept = []
    for gate in reversed(program.gates):
        if not reached.isdisjoint(gate.qubits + gate.controls):
            reached.update(gate.qubits + gate.controls)
            kept.append(gate)
    pieces = [piece for piece in program.pieces if not reached.isdisjoint(piece.qubits)]
    for piece in pieces:
        reached.update(piece.qubits)
    if len(reached) > max(_MOST_REFERENCE_QUBITS, fused.num_qubits):
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
    return replace(fused, program=seen, start_bits=fused.start_bits[order])


@dataclass(eq=False)
class _Sets:
    """C cones as sets.

    Attributes:
        qubits, ops: packed bits, uint64 (C, words), of the qubits and the ops of each cone.
        owners: packed bits, uint64 (C, words), of the observables that have terms with this cone.
        flips: float64 (C,), number of the terms that are no diagonals. An observable is applied in one pass for each
            such term, and one pass for all diagonal terms together.
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
        """Return the union of one cone with every cone, C cones."""
        qubits, ops, owners = (part | part[number] for part in (self.qubits, self.ops, self.owners))
        return _Sets(qubits, ops, owners, self.flips + self.flips[number])


@dataclass(frozen=True)
class _Costs:
    """Estimated costs of simulating cones; the fields are arguments of `LightCones.groups`."""

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
        """Return the cost of each union, float64 (C,); infinite if the union holds more than ``most_qubits`` qubits."""
        costs = self.of(cones)
        if self.most_qubits is not None:
            costs[_count_qubits(cones) > self.most_qubits] = np.inf
        return costs


def _count_qubits(cones: _Sets) -> np.ndarray:
    return np.bitwise_count(cones.qubits).sum(axis=1, dtype=np.int64)


def _merge(cones: _Sets, costs: _Costs) -> list[list[int]]:
    """Return the cheapest groups of cones; first merge blocks of `_MOST_CONES` groups while there are more of them."""
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
    """Merge the pair of groups that adds the least cost, again and again; return the cheapest groups met on the way.

    The merges make a tree. The least cost of a node is the cost of its union, or the sum of the least costs of its two
    branches if that is smaller.
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
        # If this cheapest union costs more than all groups together, every later union does so too.
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
    """Return packed bits, uint64 (count, words): bit i of row u is bit u of ``sets[i]``."""
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
