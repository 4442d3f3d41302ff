# SPDX-License-Identifier: Apache-2.0
"""Emit the normal form: one-qubit leaves, diagonal terms and dense gates, under any number of controls.

The `lower` rules of the gate table emit their ops into a `NormalForm`. Two identities reduce all controlled gates:

* a controlled ``V D V^+`` is ``V (controlled D) V^+``, so a change of basis needs no controls (``form.free``);
* a controlled diagonal is a diagonal: its term also reads the control bits, so k controls need no 2^k terms.

So every constant one-qubit ``U = e^{i delta} V P(theta) V^+`` costs one term under controls (two if ``delta != 0``).
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from qiskit_fused.common.bits import spread, walsh
from qiskit_fused.program.program import MAX_QUBITS, Angle, OpKind, Ops

Quaternion = tuple[float, float, float, float]

_RX, _RY, _RZ, _SU2, _RV, _TERM, _DENSE = map(
    int, (OpKind.RX, OpKind.RY, OpKind.RZ, OpKind.SU2, OpKind.RV, OpKind.TERM, OpKind.DENSE)
)  # ints, because Python compares and converts them faster than members of an enum
IDENTITY: Quaternion = (1.0, 0.0, 0.0, 0.0)
_TINY = 1e-14  # smaller quaternion parts, and phases below 10 times this in radians, are rounding errors and become 0
_HALF = math.sqrt(0.5)
_MANY = 16  # from this number of terms on, one array of ops is faster than single rows
# For each Pauli P, the quaternion of V with V Z V^+ = P: V is Ry(pi/2) for X, and Rx(-pi/2) for Y.
FROM_Z: dict[str, Quaternion] = {"X": (_HALF, 0.0, _HALF, 0.0), "Y": (_HALF, -_HALF, 0.0, 0.0)}


def constant(radians: float) -> Angle:
    """Return a constant angle in radians."""
    return Angle(-1, 0.0, radians)


def scaled(angle: Angle, factor: float) -> Angle:
    """Return ``factor * angle``."""
    return Angle(angle.column, angle.coefficient * factor, angle.offset * factor)


def split_unitary(matrix: np.ndarray) -> tuple[Quaternion, float]:
    """Split a 2x2 unitary into ``e^{i phase} (a - i (b X + c Y + d Z))``.

    Returns:
        The unit quaternion ``(a, b, c, d)`` and the phase in radians.
    """
    (u00, u01), (u10, u11) = np.asarray(matrix, dtype=complex).tolist()
    phase = cmath.phase(u00 * u11 - u01 * u10) / 2
    turn = cmath.exp(-1j * phase)
    u00, u01, u10, u11 = u00 * turn, u01 * turn, u10 * turn, u11 * turn
    parts = ((u00 + u11).real / 2, -(u01 + u10).imag / 2, (u10 - u01).real / 2, (u11 - u00).imag / 2)
    norm = math.sqrt(sum(part * part for part in parts))
    a, b, c, d = (0.0 if abs(part) < _TINY else part / norm for part in parts)
    return (a, b, c, d), phase


def inverse(quaternion: Quaternion) -> Quaternion:
    """Return the unit quaternion of the inverse rotation."""
    a, b, c, d = quaternion
    return (a, -b, -c, -d)


def _is_zero_phase(radians: float) -> bool:
    return abs(math.remainder(radians, 2 * math.pi)) < _TINY * 10


# For each array of `Ops`: its dtype and its default number. Masks on more than `MAX_QUBITS` qubits have dtype object.
_PARTS: dict[str, tuple[type, object]] = {
    "kind": (np.uint8, _TERM),
    "qubit": (np.int32, -1),
    "column": (np.int32, -1),
    "coefficient": (np.float64, 0.0),
    "offset": (np.float64, 0.0),
    "care": (np.uint64, 0),
    "value": (np.uint64, 0),
    "sign": (np.uint64, 0),
    "quaternion": (np.float64, IDENTITY),
}


@lru_cache(maxsize=1024)
def _around_axis(quaternion: Quaternion, phase: float) -> tuple[Quaternion, Angle | None, Angle | None]:
    """Write a constant ``U = e^{i phase} (a - i (b X + c Y + d Z))`` as ``e^{i rest} V P(theta) V^+``.

    Returns:
        V as a quaternion, theta (None if U is a phase), and the rest (None if the rest is 0). Both are in radians.
    """
    a, b, c, d = quaternion
    norm = math.sqrt(b * b + c * c + d * d)
    if norm == 0.0:
        return IDENTITY, None, constant(phase if a > 0 else phase + math.pi)
    # U = e^{i phase} V Rz(theta) V^+ = e^{i (phase - theta/2)} V P(theta) V^+. The axis may be n or -n: choose the axis
    # for which the remaining phase is 0, if there is one.
    theta = 2 * math.atan2(norm, a)
    if not _is_zero_phase(phase - theta / 2) and _is_zero_phase(phase + theta / 2):
        norm, theta = -norm, -theta
    x, y, z = b / norm, c / norm, d / norm
    # The shortest rotation from Z to the axis. Near -Z the sum 1 + z loses digits by cancellation, but the equal
    # expression (x^2 + y^2) / (1 - z) does not.
    above = 1.0 + z if z > 0 else (x * x + y * y) / (1.0 - z)
    length = math.hypot(above, x, y)
    to_axis = (above / length, -y / length, x / length, 0.0) if length > 0 else (0.0, 1.0, 0.0, 0.0)
    rest = None if _is_zero_phase(phase - theta / 2) else constant(phase - theta / 2)
    return to_axis, constant(theta), rest


class NormalForm:
    """The ops of the normal form in circuit order, and the wire of each qubit.

    Ops are emitted one by one, as rows, or many at a time, as arrays. A swap emits no op: it exchanges the wires of two
    qubits in ``wire_of``.

    `controlled` returns a view that emits into the same rows, with gates that act only where its controls match. `free`
    is the view without controls.

    A phase without controls emits no op either: it is appended to ``phases``. The gates that were emitted are
    ``exp(i sum of phases)`` times the ops.

    Args:
        num_qubits: number of active qubits.
    """

    __slots__ = ("_arrays", "_care", "_matrices", "_value", "free", "phases", "rows", "wire_of")

    def __init__(self, num_qubits: int) -> None:
        self.rows: list[tuple] = []
        self.phases: list[Angle] = []
        self._matrices: list[np.ndarray] = []  # of the dense gates among the rows
        self._arrays: list[tuple[int, int, Ops]] = []  # (rows before the ops, ops in arrays up to these, the ops)
        self.wire_of = list(range(num_qubits))
        self.free = self
        self._care = 0
        self._value = 0

    def __len__(self) -> int:
        return len(self.rows) + (self._arrays[-1][1] if self._arrays else 0)

    def controlled(self, controls: Sequence[int], ctrl_state: int) -> NormalForm:
        """Return a view under further controls. Bit ``j`` of ``ctrl_state`` is the state of ``controls[j]``."""
        view = NormalForm.__new__(NormalForm)
        view.rows, view._arrays, view.wire_of, view.free = self.rows, self._arrays, self.wire_of, self.free
        view.phases, view._matrices = self.phases, self._matrices
        view._care, view._value = self._care, self._value
        for position, control in enumerate(controls):
            bit = 1 << self.wire_of[control]
            view._care |= bit
            view._value |= bit * (ctrl_state >> position & 1)
        return view

    @property
    def has_controls(self) -> bool:
        """Whether this view acts under controls."""
        return self._care != 0

    # One-qubit gates.

    def rx(self, qubit: int, angle: Angle) -> None:
        """Emit ``exp(-i angle/2 X)``."""
        self._rotation(_RX, "X", qubit, angle)

    def ry(self, qubit: int, angle: Angle) -> None:
        """Emit ``exp(-i angle/2 Y)``."""
        self._rotation(_RY, "Y", qubit, angle)

    def rz(self, qubit: int, angle: Angle) -> None:
        """Emit ``exp(-i angle/2 Z)``."""
        if self._care:
            self._term(self._care, self._value, 1 << self.wire_of[qubit], angle)
        elif angle.column >= 0 or angle.offset:
            self.rows.append(
                (_RZ, self.wire_of[qubit], angle.column, angle.coefficient, angle.offset, 0, 0, 0, IDENTITY)
            )

    def p(self, qubit: int, angle: Angle) -> None:
        """Emit ``diag(1, e^{i angle})``."""
        if self._care:
            bit = 1 << self.wire_of[qubit]
            self._term(self._care | bit, self._value | bit, 0, scaled(angle, -2.0))
        else:
            self.rz(qubit, angle)
            self.phases.append(scaled(angle, 0.5))

    def phase(self, angle: Angle) -> None:
        """Emit the phase ``e^{i angle}``: one term on the controls, and no op without controls."""
        if self._care:
            self._term(self._care, self._value, 0, scaled(angle, -2.0))
        else:
            self.phases.append(angle)

    def su2(self, qubit: int, quaternion: Quaternion, phase: float = 0.0) -> None:
        """Emit the constant ``e^{i phase} (a - i (b X + c Y + d Z))``."""
        a, b, c, d = quaternion
        if not self._care:
            if b or c:
                self.rows.append((_SU2, self.wire_of[qubit], -1, 0.0, 0.0, 0, 0, 0, quaternion))
            elif d:
                self.rz(qubit, constant(2 * math.atan2(d, a)))
            elif a < 0:
                phase += math.pi
            if phase:
                self.phases.append(constant(phase))
            return
        to_axis, theta, rest = _around_axis(quaternion, phase)
        if theta is not None:
            self.free.su2(qubit, inverse(to_axis))
            self.p(qubit, theta)
            self.free.su2(qubit, to_axis)
        if rest is not None:
            self.phase(rest)

    def rv(self, qubit: int, angles: Sequence[Angle]) -> None:
        """Emit ``exp(-i/2 (x X + y Y + z Z))``; the angles are constants, or three consecutive columns.

        Raises:
            NotImplementedError: for angles that are not constants, under controls.
        """
        if all(angle.column < 0 for angle in angles):
            vector = [angle.offset for angle in angles]
            length = math.sqrt(sum(part * part for part in vector))
            scale = math.sin(length / 2) / length if length else 0.0
            self.su2(qubit, (math.cos(length / 2), *(scale * part for part in vector)))  # type: ignore[arg-type]
        elif self._care:
            raise NotImplementedError("a controlled rv with parameters has no smooth form; use cu or crx, cry, crz")
        else:
            self.rows.append((_RV, self.wire_of[qubit], angles[0].column, 1.0, 0.0, 0, 0, 0, IDENTITY))

    def to_z(self, qubit: int, pauli: str) -> None:
        """Emit, without controls, the change of basis that turns ``pauli`` into Z."""
        if pauli != "Z":
            self.free.su2(qubit, inverse(FROM_Z[pauli]))

    def from_z(self, qubit: int, pauli: str) -> None:
        """Undo `to_z`."""
        if pauli != "Z":
            self.free.su2(qubit, FROM_Z[pauli])

    # Gates on several qubits.

    def pauli_rotation(self, paulis: Sequence[tuple[int, str]], angle: Angle) -> None:
        """Emit ``exp(-i angle/2 P)`` for a Pauli string P, given as pairs (qubit, "X" | "Y" | "Z").

        An empty string is the identity, so its rotation is a phase.
        """
        if len(paulis) == 1:
            qubit, pauli = paulis[0]
            {"X": self.rx, "Y": self.ry, "Z": self.rz}[pauli](qubit, angle)
            return
        if not paulis:
            self.phase(scaled(angle, -0.5))
            return
        for qubit, pauli in paulis:
            self.to_z(qubit, pauli)
        self._term(self._care, self._value, self._mask(qubit for qubit, _ in paulis), angle)
        for qubit, pauli in paulis:
            self.from_z(qubit, pauli)

    def pattern_phase(self, qubits: Sequence[int], state: int, angle: Angle) -> None:
        """Emit the phase ``e^{i angle}`` where ``qubits`` are in ``state`` (bit ``j`` belongs to ``qubits[j]``)."""
        self.controlled(qubits, state).phase(angle)

    def diagonal(self, qubits: Sequence[int], phases: np.ndarray) -> None:
        """Emit ``diag(e^{i phases})`` for phases (2**k,) in radians on k qubits.

        The terms are either one phase for each basis state or Z strings; the form with fewer terms is emitted.
        """
        phases = np.asarray(phases, dtype=float)
        rounded = np.round(np.mod(phases + np.pi, 2 * np.pi), 12)
        distinct, counts = np.unique(rounded, return_counts=True)
        common = float(distinct[np.argmax(counts)]) - np.pi
        relative = np.remainder(phases - common + np.pi, 2 * np.pi) - np.pi
        patterns = np.flatnonzero(np.abs(relative) > 1e-11)
        weights = walsh(phases)
        if len(patterns) > np.count_nonzero(np.abs(weights) > 1e-12):
            self.walsh_phases(qubits, weights, constant(1.0))
            return
        self.phase(constant(common))
        if len(patterns) >= _MANY:
            values = self.masks(qubits)
            self.many(len(patterns), care=values[-1], value=values[patterns], offset=-2 * relative[patterns])
            return
        for pattern in patterns.tolist():
            self.pattern_phase(qubits, pattern, constant(float(relative[pattern])))

    def walsh_phases(self, qubits: Sequence[int], weights: np.ndarray, angle: Angle) -> None:
        """Emit ``exp(i angle sum_m weights[m] (-1)^popcount(i & m))`` for weights (2**k,) on k qubits."""
        if angle.column < 0 and not angle.offset:
            return
        masks = np.flatnonzero(np.abs(weights) > 1e-15)
        if len(masks) and masks[0] == 0 and not self._care:
            masks = masks[1:]
            self.phases.append(scaled(angle, float(weights[0])))
        signs, factors = self.masks(qubits)[masks], -2 * weights[masks]
        if len(masks) >= _MANY:
            offset, coefficient = angle.offset * factors, angle.coefficient * factors
            self.many(len(masks), sign=signs, column=angle.column, coefficient=coefficient, offset=offset)
            return
        for sign, factor in zip(signs.tolist(), factors.tolist()):
            self._term(self._care, self._value, sign, scaled(angle, factor))

    def dense(self, qubits: Sequence[int], matrix: np.ndarray) -> None:
        """Emit a unitary matrix, complex128 (2**k, 2**k), on k qubits as one dense gate, which holds the matrix."""
        order = sorted(range(len(qubits)), key=lambda bit: self.wire_of[qubits[bit]])
        if order != list(range(len(qubits))):  # the bits of the emitted matrix are in the order of the wires
            moved = spread(order)
            matrix = matrix[moved[:, None], moved]
        self._matrices.append(matrix)
        self.rows.append((_DENSE, -1, -1, 0.0, 0.0, self._care, self._value, self._mask(qubits), IDENTITY))

    def many(self, count: int, **parts: object) -> None:
        """Emit many ops at once.

        Terms act under the controls of this view too. Leaves act without controls.

        Args:
            count: the number of ops.
            parts: the arrays of `Ops` by name, or one number for all ops. An array that is left out has the numbers of
                a constant term with the angle 0.
        """
        arrays = {}
        for name, (_, default) in _PARTS.items():
            array: np.ndarray = np.asarray(parts.get(name, default)).astype(self._dtype(name))
            arrays[name] = np.broadcast_to(array, (count, *array.shape[-1:]) if name == "quaternion" else count).copy()
        ops = Ops(**arrays)
        is_term = ops.kind == _TERM
        ops.care[is_term] |= np.array(self._care, ops.care.dtype)
        ops.value[is_term] |= np.array(self._value, ops.value.dtype)
        self._arrays.append((len(self.rows), count + (self._arrays[-1][1] if self._arrays else 0), ops))

    def swap(self, first: int, second: int) -> None:
        """Emit a swap: the qubits exchange their wires. A controlled swap is three CX gates, one of them controlled."""
        if not self._care:
            self.wire_of[first], self.wire_of[second] = self.wire_of[second], self.wire_of[first]
            return
        self.free.cx(first, second)
        self.cx(second, first)
        self.free.cx(first, second)

    def cx(self, control: int, target: int) -> None:
        """Emit an X on ``target``, controlled by ``control`` and by the controls of this view."""
        self.to_z(target, "X")
        self.pattern_phase((control, target), 3, constant(math.pi))
        self.from_z(target, "X")

    def finish(self) -> Ops:
        """Return all ops as arrays."""
        columns: Sequence[Sequence] = list(zip(*self.rows)) if self.rows else [()] * len(_PARTS)
        arrays: dict[str, np.ndarray] = {
            name: np.array(column, self._dtype(name)) for column, name in zip(columns, _PARTS)
        }
        arrays["quaternion"] = arrays["quaternion"].reshape(-1, 4)
        rows = Ops(**arrays, matrices=tuple(self._matrices))
        parts: list[Ops] = []
        done = 0
        for before, _, ops in self._arrays:
            parts += [rows.take(slice(done, before)), ops]
            done = before
        ops = Ops.joined([*parts, rows.take(slice(done, None))]) if parts else rows
        return ops.with_small_constants()

    # Rows.

    def masks(self, qubits: Sequence[int]) -> np.ndarray:
        """Return masks (2**k,) over wires: entry m holds the wire of ``qubits[j]`` if bit j of m is set."""
        masks: np.ndarray = np.zeros(1, self._dtype("sign"))
        for qubit in qubits:
            masks = np.concatenate([masks, masks | np.array(1 << self.wire_of[qubit], masks.dtype)])
        return masks

    def _dtype(self, name: str) -> type:
        is_wide = name in ("care", "value", "sign") and len(self.wire_of) > MAX_QUBITS
        return object if is_wide else _PARTS[name][0]

    def _mask(self, qubits: Iterable[int]) -> int:
        mask = 0
        for qubit in qubits:
            mask |= 1 << self.wire_of[qubit]
        return mask

    def _rotation(self, kind: int, pauli: str, qubit: int, angle: Angle) -> None:
        if angle.column < 0:
            a, s = math.cos(angle.offset / 2), math.sin(angle.offset / 2)
            self.su2(qubit, (a, s, 0.0, 0.0) if pauli == "X" else (a, 0.0, s, 0.0))
        elif self._care:
            self.to_z(qubit, pauli)
            self.rz(qubit, angle)
            self.from_z(qubit, pauli)
        else:
            self.rows.append(
                (kind, self.wire_of[qubit], angle.column, angle.coefficient, angle.offset, 0, 0, 0, IDENTITY)
            )

    def _term(self, care: int, value: int, sign: int, angle: Angle) -> None:
        if angle.column >= 0 or angle.offset:
            self.rows.append((_TERM, -1, angle.column, angle.coefficient, angle.offset, care, value, sign, IDENTITY))
