# SPDX-License-Identifier: Apache-2.0
"""The light cone of observables: the ops, qubits and columns of a program that they can see, by one walk back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qiskit_fused.common.bits import bits_of
from qiskit_fused.fusion.phase_gadgets import merge_ladders
from qiskit_fused.program.program import OpKind, Ops, Program

_RZ, _TERM = int(OpKind.RZ), int(OpKind.TERM)  # integers are compared faster than members of an enum
_MANY = 32  # terms in a row; from here on NumPy takes less time for all of them than Python for one after the other


class Cone(NamedTuple):
    """What some observables can see of a program.

    Attributes:
        ops: ops of the program, ladders merged.
        kept: int64, ascending, numbers of the ops that matter.
        seen: int64, ascending, the active qubits that matter.
    """

    ops: Ops
    kept: np.ndarray
    seen: np.ndarray


def find_cone(program: Program, support: np.ndarray | None) -> Cone:
    """Return what observables with that support see, all of the program for None."""
    ops = merge_ladders(program.ops)
    if support is None:
        return Cone(ops, np.arange(len(ops)), np.arange(program.num_qubits))
    touched, turned = [0] * program.num_qubits, [0] * program.num_qubits
    for wire, effect in zip(program.output_wires.tolist(), support.tolist()):
        if wire >= 0:
            touched[wire], turned[wire] = int(effect > 0), int(effect == 2)
    kept = np.flatnonzero(trace_back(ops, touched, turned))
    seen = np.array(touched, dtype=bool)
    for qubits in map(list, program.starts_together):
        seen[qubits] |= program.any_start or seen[qubits].any()
    return Cone(ops, kept, np.flatnonzero(seen))


def seen_columns(program: Program, support: np.ndarray) -> np.ndarray:
    """Say which columns, bool (C,), observables with that support may depend on."""
    ops, kept, seen = find_cone(program, support)
    cone = ops.take(kept)
    columns = [cone.column, *(cone.column[cone.kind == OpKind.RV] + further for further in (1, 2))]
    columns += [piece.column.ravel() for piece in program.pieces if np.isin(piece.qubits, seen).any()]
    is_seen = np.zeros(program.num_columns + 1, dtype=bool)  # column -1 is a constant
    is_seen[np.concatenate(columns)] = True
    return is_seen[:-1]


def trace_back(ops: Ops, touched: list[int], turned: list[int]) -> list[int]:
    """Follow observables back through ops, all at once: a set of observables is an int, one bit for each.

    Args:
        ops: the ops, ladders merged.
        touched: for each qubit, the observables that act on it. At the return, those that act on it before all ops.
        turned: for each qubit, those of them that are no diagonals there; likewise.

    Returns:
        For each op, the observables that it matters to.
    """
    seen_by = [0] * len(ops)
    masks = ops.care | ops.sign
    for begin, end, are_terms in reversed(term_ranges(ops)):
        if are_terms:
            seen_by[begin:end] = _trace_terms(masks[begin:end], touched, turned)
        else:
            kinds, qubits, supports = (part[begin:end].tolist() for part in (ops.kind, ops.qubit, masks))
            seen_by[begin:end] = _trace_one_by_one(kinds, qubits, supports, touched, turned)
    return seen_by


def _trace_one_by_one(
    kinds: list[int], qubits: list[int], supports: list[int], touched: list[int], turned: list[int]
) -> list[int]:
    """Do what `trace_back` does, op by op."""
    seen_by = [0] * len(kinds)
    not_diagonal = sum(1 << qubit for qubit, observables in enumerate(turned) if observables)  # for any observable
    for i in range(len(kinds) - 1, -1, -1):
        if kinds[i] == _TERM:
            # A diagonal commutes with an observable that is diagonal on all of its qubits.
            mask = supports[i]
            if not mask & not_diagonal:
                continue
            observables, members = 0, []
            while mask:
                qubit = (mask & -mask).bit_length() - 1
                members.append(qubit)
                observables |= turned[qubit]
                mask &= mask - 1
            for qubit in members:
                touched[qubit] |= observables
            seen_by[i] = observables
        elif kinds[i] == _RZ:
            seen_by[i] = turned[qubits[i]]
        elif observables := touched[qubits[i]]:
            seen_by[i] = turned[qubits[i]] = observables
            not_diagonal |= 1 << qubits[i]
    return seen_by


def _trace_terms(supports: np.ndarray, touched: list[int], turned: list[int]) -> list[int]:
    """Do for terms in a row, given by the qubits they act on, what `trace_back` does for one."""
    qubits = bits_of(int(np.bitwise_or.reduce(supports)))
    members: dict[int, int] = {}  # the qubits on which the same observables are no diagonals
    for qubit in qubits:
        if turned[qubit]:
            members[turned[qubit]] = members.get(turned[qubit], 0) | 1 << qubit
    hits = [(supports & np.uint64(mask)) != 0 for mask in members.values()]
    if all(hit.all() for hit in hits):  # the same for all terms, as inside a dense gate
        every = 0
        for observables in members:
            every |= observables
        for qubit in qubits:
            touched[qubit] |= every
        return [every] * len(supports)
    meets = np.zeros(len(supports), dtype=np.uint64)
    for number, hit in enumerate(hits):
        meets |= hit.astype(np.uint64) << np.uint64(number)
    distinct, which = np.unique(meets, return_inverse=True)
    seen_by = []
    for number, met in enumerate(distinct.tolist()):
        some = 0
        for bit, observables in enumerate(members):
            some |= observables * (met >> bit & 1)
        for qubit in bits_of(int(np.bitwise_or.reduce(supports[which == number]))):
            touched[qubit] |= some
        seen_by.append(some)
    return [seen_by[number] for number in which.tolist()]


def term_ranges(ops: Ops) -> list[tuple[int, int, bool]]:
    """Cut ops into ranges: begin, end, and whether it is at least `_MANY` terms and nothing else."""
    if ops.care.dtype == object or len(ops) < _MANY:
        return [(0, len(ops), False)]
    changes = np.flatnonzero(np.diff(ops.kind == _TERM, prepend=False, append=False)).reshape(-1, 2)
    ranges, done = [], 0
    for begin, end in changes[changes[:, 1] - changes[:, 0] >= _MANY].tolist():
        ranges += [(done, begin, False), (begin, end, True)]
        done = end
    return [*ranges, (done, len(ops), False)]
