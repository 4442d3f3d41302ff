# SPDX-License-Identifier: Apache-2.0
"""Phase gadgets: remove pairs of CX that undo each other around diagonals.

``CX D CX`` is a diagonal: the bit of the target in ``D`` becomes the parity of target and control. Qiskit writes
``exp(-i t/2 ZZ...Z)`` as a ladder of CX, a rotation and the ladder back; feature maps, QAOA and chemistry circuits
consist of such ladders. With the ladders removed, the diagonals that commute are one phase.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import defaultdict
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from qiskit_fused.program.program import OpKind, Ops

OPS_OF_CX = 3
"""The ops of a CX: a change of basis of the target, a sign where both qubits are 1, and the change back."""

_RX, _RZ, _SU2, _TERM, _DENSE = map(
    int, (OpKind.RX, OpKind.RZ, OpKind.SU2, OpKind.TERM, OpKind.DENSE)
)  # ints are compared and converted faster than members of an enum
_ROUNDING = 1e-12  # absolute tolerance of sines, cosines and quaternions when three ops are compared with a CX
_REACH = 1000  # largest number of ops on its qubits over which a CX looks back for its partner

_REMOVED, _OTHER, _X_LEAF, _DIAGONAL, _CX = range(5)


class MergedOps(NamedTuple):
    """Ops without the pairs of CX that undo each other.

    Attributes:
        ops: the other ops.
        phase: 0 or pi, a global phase in radians: all ops together are ``exp(i phase)`` times the other ops. Three ops
            count as a CX also if they are -1 times a CX.
    """

    ops: Ops
    phase: float


def merge_ladders(ops: Ops) -> MergedOps:
    """Return the ops without the pairs of CX that undo each other: only diagonals and commuting ops lie between them.

    Args:
        ops: the ops of any program.

    Cost: O(ops) in Python if there are CX gates, times the length of unbroken chains of CX and diagonals.
    """
    cx_places = find_cx(ops)
    if len({cx[1:3] for cx in cx_places}) == len(cx_places):
        return MergedOps(ops, 0.0)  # no two CX have the same control and target
    walk = _Walk(ops)
    walk.add(cx_places)
    return MergedOps(walk.finish(), 0.0 if walk.sign > 0 else math.pi) if walk.has_merged else MergedOps(ops, 0.0)


def find_cx(ops: Ops) -> list[tuple[int, int, int, int]]:
    """Return (first op, control, target, sign) of each three consecutive ops that are a CX times a sign, 1 or -1.

    The ops may come from any gates.
    """
    is_term, is_constant = ops.kind == _TERM, ops.kind == _SU2
    candidates = np.flatnonzero(is_term[1:-1] & is_constant[:-2] & is_constant[2:]).tolist()
    if len(candidates) < 2:
        return []
    cx_places: list[tuple[int, int, int, int]] = []
    for row in candidates:
        target, care = ops.qubit.item(row), ops.care.item(row + 1)
        other = care ^ 1 << target
        if (
            ops.qubit.item(row + 2) == target
            and care.bit_count() == 2
            and other.bit_count() == 1
            and ops.column.item(row + 1) < 0
            and not ops.sign.item(row + 1)
            and ops.value.item(row + 1) == care
            and not (cx_places and row < cx_places[-1][0] + OPS_OF_CX)
        ):
            before, after = (tuple(ops.quaternion[place].tolist()) for place in (row, row + 2))
            if sign := _sign_of_cx(before, ops.offset.item(row + 1), after):
                cx_places.append((row, other.bit_length() - 1, target, sign))
    return cx_places


@lru_cache(maxsize=1024)
def _sign_of_cx(before: tuple[float, ...], offset: float, after: tuple[float, ...]) -> int:
    """Return 1 or -1 if three ops are this sign times a CX, and 0 if they are not.

    The three ops are a controlled phase by ``offset`` between two rotations of the target.

    Args:
        before: quaternion of the rotation before the phase.
        offset: angle of the phase, in radians.
        after: quaternion of the rotation after the phase.
    """
    a, b, c, d = before
    # The sine is compared, which is linear in the error of the angle. A cosine near -1 is quadratic in the error: the
    # tolerance _ROUNDING of the cosine would accept angles that are wrong by its square root.
    if abs(math.sin(offset / 2)) >= _ROUNDING or math.cos(offset / 2) >= 0:
        return 0
    if abs(c * d + a * b) >= _ROUNDING or abs(a * a - b * b - c * c + d * d) >= _ROUNDING:  # U^+ Z U = +-X
        return 0
    pairs = list(zip((a, -b, -c, -d), after))
    sign = 1 if sum(left * right for left, right in pairs) >= 0 else -1  # q and -q are the same rotation, up to a sign
    is_cx = b * d > a * c and max(abs(sign * left - right) for left, right in pairs) < _ROUNDING
    return sign if is_cx else 0


class _Walk:
    """The ops as items in circuit order, from which pairs of CX are removed.

    An item is the three ops of a CX, or one other op.

    Attributes:
        rows: for each item, the index of its first op.
        kinds: for each item, `_REMOVED`, `_OTHER`, `_X_LEAF`, `_DIAGONAL` or `_CX`.
        masks: for each item, (care, value, sign) of a diagonal, (control, target, sign) of a CX, zeros otherwise.
        touching: for each qubit, the items that act on it, ascending.
        has_merged: whether some pair of CX was removed.
        sign: the product of the signs of all CX that were removed.
    """

    def __init__(self, ops: Ops):
        self.ops = ops
        self.rows: list[int] = []
        self.kinds: list[int] = []
        self.masks: list[tuple[int, int, int]] = []
        self.touching: defaultdict[int, list[int]] = defaultdict(list)
        self.has_merged = False
        self.sign = 1

    def add(self, cx_places: list[tuple[int, int, int, int]]) -> None:
        """Add all ops; ``cx_places`` are the CX gates among them, from `find_cx`."""
        ops = self.ops
        x_axis = (ops.kind == _RX) | ((ops.kind == _SU2) & (ops.quaternion[:, 2:] == 0).all(axis=1))
        kinds, qubits, is_x = ops.kind.tolist(), ops.qubit.tolist(), x_axis.tolist()
        care, value, sign = (part.tolist() for part in (ops.care, ops.value, ops.sign))
        row, gates = 0, iter([*cx_places, (len(ops), -1, -1, 1)])
        begin, *cx = next(gates)
        while row < len(ops):
            if row == begin:
                self._add_cx(row, *cx)
                row += OPS_OF_CX
                begin, *cx = next(gates)
                continue
            if kinds[row] == _TERM:
                self._append(row, _DIAGONAL, (care[row], value[row], sign[row]), care[row] | sign[row])
            elif kinds[row] == _DENSE:
                self._append(row, _OTHER, (0, 0, 0), care[row] | sign[row])
            elif kinds[row] == _RZ:
                self._append(row, _DIAGONAL, (0, 0, 1 << qubits[row]), 1 << qubits[row])
            else:
                self._append(row, _X_LEAF if is_x[row] else _OTHER, (0, 0, 0), 1 << qubits[row])
            row += 1

    def _append(self, row: int, kind: int, masks: tuple[int, int, int], touched: int) -> None:
        number = len(self.rows)
        self.rows.append(row)
        self.kinds.append(kind)
        self.masks.append(masks)
        while touched:
            self.touching[(touched & -touched).bit_length() - 1].append(number)
            touched &= touched - 1

    def _add_cx(self, row: int, control: int, target: int, sign_of_cx: int) -> None:
        between: list[int] = []
        partner = self._partner(control, target, between)
        if partner < 0:
            self._append(row, _CX, (control, target, sign_of_cx), 1 << control | 1 << target)
            return
        self.has_merged = True
        self.sign *= sign_of_cx * self.masks[partner][2]
        self.kinds[partner] = _REMOVED
        self._leave(control, partner)
        self._leave(target, partner)
        of_control, of_target = 1 << control, 1 << target
        for number in between:
            care, value, sign = self.masks[number]
            touched = (care | sign) & of_control
            if care & of_target and value & of_control:
                value ^= of_target
            if sign & of_target:
                sign ^= of_control
            self.masks[number] = care, value, sign
            if (care | sign) & of_control and not touched:
                insort(self.touching[control], number)
            elif touched and not (care | sign) & of_control:
                self._leave(control, number)

    def _leave(self, qubit: int, number: int) -> None:
        touching = self.touching[qubit]
        del touching[bisect_left(touching, number)]

    def _partner(self, control: int, target: int, between: list[int]) -> int:
        """Return the CX that a CX added now would undo, or -1; append the later diagonals on the target to between."""
        ours, theirs = self.touching[control], self.touching[target]
        i, j = len(ours) - 1, len(theirs) - 1
        of_control, of_target = 1 << control, 1 << target
        for _ in range(_REACH):
            at_control, at_target = ours[i] if i >= 0 else -1, theirs[j] if j >= 0 else -1
            number = max(at_control, at_target)
            if number < 0:
                return -1
            i -= number == at_control
            j -= number == at_target
            kind, masks = self.kinds[number], self.masks[number]
            if kind == _DIAGONAL:
                if masks[0] & of_target and not masks[0] & of_control:
                    return -1  # a term cannot be conditioned on a parity of two qubits
                if number == at_target:
                    between.append(number)
            elif kind == _CX:
                if masks[0] == control and masks[1] == target:
                    return number
                if masks[0] == target or masks[1] == control:
                    return -1
            elif kind != _X_LEAF or number != at_target:
                return -1
        return -1

    def finish(self) -> Ops:
        """Return the items that are left, as ops."""
        rows, kinds = np.array(self.rows), np.array(self.kinds)
        sizes = np.where(kinds == _CX, OPS_OF_CX, kinds != _REMOVED)
        items = np.repeat(np.arange(len(rows)), sizes)
        begin = np.cumsum(sizes) - sizes
        result = self.ops.take(rows[items] + np.arange(len(items)) - begin[items])
        diagonal = np.flatnonzero(kinds[items] == _DIAGONAL)
        of_diagonals = [self.masks[number] for number in items[diagonal].tolist()]
        care, value, sign = np.array(of_diagonals, dtype=self.ops.sign.dtype).reshape(-1, 3).T
        alone = (care == 0) & (_count_bits(sign) == 1)  # a diagonal on one qubit is an RZ
        result.kind[diagonal] = np.where(alone, _RZ, _TERM)
        result.qubit[diagonal] = np.where(alone, _count_bits(sign - np.ones((), sign.dtype)), -1)
        result.care[diagonal], result.value[diagonal] = care, value
        result.sign[diagonal] = np.where(alone, np.zeros((), sign.dtype), sign)
        return result


def _count_bits(masks: np.ndarray) -> np.ndarray:
    if masks.dtype != object:
        return np.bitwise_count(masks).astype(np.int64)
    return np.fromiter((mask.bit_count() for mask in masks.tolist()), dtype=np.int64, count=len(masks))
