# SPDX-License-Identifier: Apache-2.0
"""The light cone of observables: the ops, qubits and columns of a program that their values depend on.

One walk back over the ops finds the light cone. Observables *see* an op or a qubit if their values may depend on it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qiskit_fused.common.bits import bits_of
from qiskit_fused.fusion.phase_gadgets import merge_ladders
from qiskit_fused.program.program import OpKind, Ops, Program

_RZ, _TERM, _DENSE = map(
    int, (OpKind.RZ, OpKind.TERM, OpKind.DENSE)
)  # integers are compared faster than members of an enum
_MANY = 32  # least number of consecutive terms for which NumPy, on all at once, is faster than a Python loop over them


class Cone(NamedTuple):
    """The part of a program that some observables see.

    Attributes:
        ops: all ops of the program, with ladders of CX merged.
        kept: int64, ascending, indices of the ops that the observables see.
        seen: int64, ascending, the active qubits that the observables see.
        phase: the global phase of `MergedOps`.
    """

    ops: Ops
    kept: np.ndarray
    seen: np.ndarray
    phase: float = 0.0


def find_cone(program: Program, support: np.ndarray | None) -> Cone:
    """Return the light cone of observables with a support, uint8 (num_circuit_qubits,); the whole program for None."""
    ops, phase = merge_ladders(program.ops)
    if support is None:
        return Cone(ops, np.arange(len(ops)), np.arange(program.num_qubits), phase)
    touched, turned = [0] * program.num_qubits, [0] * program.num_qubits
    for wire, effect in zip(program.output_wires.tolist(), support.tolist()):
        if wire >= 0:
            touched[wire], turned[wire] = int(effect > 0), int(effect == 2)
    kept = np.flatnonzero(trace_back(ops, touched, turned))
    seen = np.array(touched, dtype=bool)
    for qubits in map(list, program.starts_together):
        seen[qubits] |= program.any_start or seen[qubits].any()
    return Cone(ops, kept, np.flatnonzero(seen), phase)


def seen_columns(program: Program, support: np.ndarray) -> np.ndarray:
    """Return which columns, bool (C,), the values of observables with a support, uint8 per circuit qubit, depend on."""
    ops, kept, seen, _ = find_cone(program, support)
    cone = ops.take(kept)
    columns = [cone.column, *(cone.column[cone.kind == OpKind.RV] + further for further in (1, 2))]
    columns += [piece.column.ravel() for piece in program.pieces if np.isin(piece.qubits, seen).any()]
    is_seen = np.zeros(program.num_columns + 1, dtype=bool)  # column -1 is a constant
    is_seen[np.concatenate(columns)] = True
    return is_seen[:-1]


def trace_back(ops: Ops, touched: list[int], turned: list[int]) -> list[int]:
    """Pull sets of observables back through all ops; a set is an int with one bit for each observable.

    Args:
        ops: the ops, with ladders of CX merged.
        touched: for each qubit, the set of the observables that act on it after all ops. Overwritten by the set of the
            observables that act on it before all ops.
        turned: for each qubit, the set of the observables that act on it by more than a diagonal. Overwritten as
            ``touched`` is.

    Returns:
        For each op, the set of the observables that see it.
    """
    seen_by = [0] * len(ops)
    masks = ops.care | ops.sign
    for begin, end, are_terms in reversed(term_ranges(ops)):
        if are_terms:
            seen_by[begin:end] = _trace_terms(masks[begin:end], touched, turned)
        else:
            part = ops.take(slice(begin, end))
            seen_by[begin:end] = _trace_one_by_one(part, masks[begin:end].tolist(), touched, turned)
    return seen_by


def _trace_one_by_one(ops: Ops, supports: list[int], touched: list[int], turned: list[int]) -> list[int]:
    """Pull sets of observables back through ops, one op at a time; see `trace_back`."""
    kinds, qubits, controls = ops.kind.tolist(), ops.qubit.tolist(), ops.care
    seen_by = [0] * len(kinds)
    # The mask of the qubits on which some observable is more than a diagonal.
    not_diagonal = sum(1 << qubit for qubit, observables in enumerate(turned) if observables)
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
        elif kinds[i] == _DENSE:
            seen_by[i] = _trace_dense(supports[i], int(controls[i]), touched, turned)
            not_diagonal |= supports[i] if seen_by[i] else 0
        elif observables := touched[qubits[i]]:
            seen_by[i] = turned[qubits[i]] = observables
            not_diagonal |= 1 << qubits[i]
    return seen_by


def _trace_dense(support: int, controls: int, touched: list[int], turned: list[int]) -> int:
    """Pull sets of observables back through a dense gate, which is a diagonal on its controls.

    Args:
        support: the mask of the targets and the controls.
        controls: the mask of the controls.
        touched: see `trace_back`.
        turned: see `trace_back`.

    Returns:
        The set of the observables that see the gate.
    """
    targets = bits_of(support & ~controls)
    observables = 0
    for qubit in targets:
        observables |= touched[qubit]
    for qubit in bits_of(controls):
        observables |= turned[qubit]
    for qubit in bits_of(support):
        touched[qubit] |= observables
    for qubit in targets:
        turned[qubit] |= observables
    return observables


def _trace_terms(supports: np.ndarray, touched: list[int], turned: list[int]) -> list[int]:
    """Pull sets of observables back through consecutive terms, given by the masks of the qubits they act on."""
    qubits = bits_of(int(np.bitwise_or.reduce(supports)))
    members: dict[int, int] = {}  # set of observables -> mask of the qubits on which exactly these are no diagonals
    for qubit in qubits:
        if turned[qubit]:
            members[turned[qubit]] = members.get(turned[qubit], 0) | 1 << qubit
    hits = [(supports & np.uint64(mask)) != 0 for mask in members.values()]
    if all(hit.all() for hit in hits):  # every term is seen by the same observables, as inside a dense gate
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
    """Cut ops into ranges (begin, end, are_terms); are_terms marks ranges of at least `_MANY` terms and no other op."""
    if ops.care.dtype == object or len(ops) < _MANY:
        return [(0, len(ops), False)]
    changes = np.flatnonzero(np.diff(ops.kind == _TERM, prepend=False, append=False)).reshape(-1, 2)
    ranges, done = [], 0
    for begin, end in changes[changes[:, 1] - changes[:, 0] >= _MANY].tolist():
        ranges += [(done, begin, False), (begin, end, True)]
        done = end
    return [*ranges, (done, len(ops), False)]
