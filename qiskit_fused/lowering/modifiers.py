# SPDX-License-Identifier: Apache-2.0
"""Lower annotated operations: a base operation under controls, inverses and powers, as `to_matrix` defines them."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from qiskit.circuit import AnnotatedOperation, ControlledGate, Instruction, ParameterExpression
from qiskit.circuit import library as gates
from qiskit.circuit.annotated_operation import ControlModifier, InverseModifier, Modifier, PowerModifier
from qiskit.exceptions import QiskitError
from qiskit.quantum_info import Operator

from qiskit_fused.lowering.context import LoweringContext
from qiskit_fused.lowering.matrices import MAX_DENSE_QUBITS, Qubits, apply_matrix, unitary_matrix
from qiskit_fused.lowering.unitaries import nearest_unitary

_MOST_REPEATED = 16  # a constant gate is repeated at most 16 times; its higher powers are powers of its matrix
_BRANCH = 1e-12 * math.pi  # radians; roots of eigenvalues e^{i phi} are taken with phi in (_BRANCH - pi, _BRANCH + pi]

# A power of these gates scales their first angle. The eigenvalues of _ROTATIONS are e^{-i angle/2}, e^{i angle/2} and
# 1. The eigenvalues of _PHASES are e^{i angle} and 1.
_ROTATIONS = (
    gates.RXGate,
    gates.RYGate,
    gates.RZGate,
    gates.RXXGate,
    gates.RYYGate,
    gates.RZZGate,
    gates.RZXGate,
    gates.RGate,
    gates.XXPlusYYGate,
    gates.XXMinusYYGate,
)
_PHASES = (gates.PhaseGate, gates.U1Gate, gates.GlobalPhaseGate)

_BY_DEFINITION = (Instruction.inverse, ControlledGate.inverse)  # the inverses that Qiskit makes of definitions


def annotated(lowering: LoweringContext, op: AnnotatedOperation, qubits: Qubits, controls: Qubits, state: int) -> None:
    """Lower a base operation under its modifiers.

    The first modifier is the innermost: the qubits of its controls come directly before the qubits of the base. Powers
    and inverses are applied to the base alone, because they commute with controls.
    """
    base, modifiers = _unwrapped(op)
    powers: list[float] = []
    start = len(qubits) - base.num_qubits
    targets = qubits[start:]
    for modifier in modifiers:
        if isinstance(modifier, ControlModifier):
            start -= modifier.num_ctrl_qubits
            controls = qubits[start : start + modifier.num_ctrl_qubits] + controls
            state = modifier.ctrl_state | state << modifier.num_ctrl_qubits
        elif isinstance(modifier, PowerModifier):
            powers.append(modifier.power)
        elif isinstance(modifier, InverseModifier) or modifier is InverseModifier:  # the class comes from DiagonalGate
            powers.append(-1)
        else:
            raise lowering.unsupported(op.name, f"has the modifier {modifier!r}; use controls, inverses and powers")
    _apply_powers(lowering, base, powers, targets, controls, state)


def _unwrapped(op: AnnotatedOperation) -> tuple[Instruction, list[Modifier]]:
    """Return the base operation under all modifiers, and the modifiers from the innermost to the outermost."""
    modifiers: list[Modifier] = []
    while isinstance(op, AnnotatedOperation):
        modifiers = [*op.modifiers, *modifiers]
        op = op.base_op
    return op, modifiers


def _apply_powers(
    lowering: LoweringContext, base: Instruction, powers: list[float], targets: Qubits, controls: Qubits, state: int
) -> None:
    """Lower an operation that is raised to one power after the other."""
    whole = 1
    while powers and float(powers[0]).is_integer():
        whole *= int(powers[0])
        powers = powers[1:]
    if not powers and whole == 0:
        return
    has_parameters = any(isinstance(param, ParameterExpression) and param.parameters for param in _params(base))
    if has_parameters and isinstance(base, _ROTATIONS + _PHASES):
        angle = _scaled_angle(base, [whole, *powers])
        turned = base.to_mutable()
        turned.params = [angle, *base.params[1:]]
        lowering.operation(turned, targets, controls, state)
    elif powers and has_parameters:
        if not isinstance(base, ControlledGate) or base.num_qubits != base.num_ctrl_qubits + base.base_gate.num_qubits:
            raise lowering.unsupported(
                base.name,
                f"has parameters and is raised to the power {powers[0]}; bind them, or use a power that is an integer",
            )
        own_controls, targets = targets[: base.num_ctrl_qubits], targets[base.num_ctrl_qubits :]
        state = base.ctrl_state | state << base.num_ctrl_qubits
        _apply_powers(lowering, base.base_gate, [whole, *powers], targets, own_controls + controls, state)
    elif powers or (abs(whole) > _MOST_REPEATED and not has_parameters and base.num_qubits <= MAX_DENSE_QUBITS):
        _apply_matrix_power(lowering, base, [whole, *powers], targets, controls, state)
    else:
        apply = lowering.operation if whole > 0 else partial(_apply_inverse, lowering)
        for _ in range(abs(whole)):
            apply(base, targets, controls, state)


def _apply_inverse(lowering: LoweringContext, base: Instruction, targets: Qubits, controls: Qubits, state: int) -> None:
    """Lower the inverse of an operation.

    Qiskit's inverse of a controlled gate can lose the phase of a CU, or values that ``assign_parameters`` put into a
    definition. So a controlled gate is inverted as its base gate under controls, and other gates by their definitions.
    """
    if isinstance(base, ControlledGate) and lowering.controlled(base, targets, controls, state, inverse=True):
        return
    if getattr(type(base), "inverse", None) in _BY_DEFINITION and (definition := lowering.definition(base)) is not None:
        lowering.walk(definition.inverse(annotated=True), targets, controls, state)
        return
    try:
        inverse = base.inverse()
    except (QiskitError, AttributeError):  # an operation that has a matrix alone, or a Clifford
        _apply_matrix_power(lowering, base, [-1], targets, controls, state)
    else:
        lowering.operation(inverse, targets, controls, state)


def _params(op: Instruction) -> list:
    return list(getattr(op, "params", ()))


def _scaled_angle(base: Instruction, powers: list[float]) -> ParameterExpression:
    """Return the angle (radians) of a power of a gate with one angle. A root uses the angle modulo its period."""
    angle = base.params[0]
    for power in powers:
        if not float(power).is_integer():
            if isinstance(base, _PHASES):
                angle = 2 * ((angle - _BRANCH) / 2).tan().arctan() + _BRANCH
            else:
                angle = 4 * (angle / 4).tan().arctan()
        angle = angle * power
    return angle


def _apply_matrix_power(
    lowering: LoweringContext, base: Instruction, powers: list[float], targets: Qubits, controls: Qubits, state: int
) -> None:
    if base.num_qubits > MAX_DENSE_QUBITS:
        raise lowering.unsupported(
            base.name,
            f"acts on {base.num_qubits} qubits and is raised to the power {powers[-1]}, which needs its matrix; the "
            f"limit is {MAX_DENSE_QUBITS} qubits; use a power that is an integer",
        )
    matrix = unitary_matrix(lowering, base.name, Operator(base).data, base.num_qubits)
    for power in powers:
        if not float(power).is_integer():
            matrix = Operator(matrix).power(float(power), assume_unitary=True).data
        else:
            matrix = np.linalg.matrix_power(matrix if power >= 0 else matrix.conj().T, abs(int(power)))
    apply_matrix(lowering, nearest_unitary(matrix), targets, controls, state)
