# SPDX-License-Identifier: Apache-2.0
"""Check the matrices of operations, record them as gates, and emit them in normal form."""

from __future__ import annotations

import numpy as np
from qiskit.circuit import Instruction, ParameterExpression
from qiskit.circuit.library import DiagonalGate
from qiskit.exceptions import QiskitError

from qiskit_fused.common.native import CONSTANTS
from qiskit_fused.lowering.constant_prefix import start_from_gate
from qiskit_fused.lowering.context import LoweringContext
from qiskit_fused.lowering.unitaries import emit_unitary, is_diagonal
from qiskit_fused.program.program import Gate

MAX_DENSE_QUBITS = CONSTANTS.max_dense_qubits
_ABSOLUTE, _RELATIVE = 1e-8, 1e-5  # tolerances for unitary and Hermitian matrices, the same as Qiskit's

Qubits = tuple[int, ...]


# Checks.


def unitary_matrix(lowering: LoweringContext, name: str, matrix: object, num_qubits: int) -> np.ndarray:
    """Return a copy of a unitary matrix, complex128 (2**num_qubits, 2**num_qubits).

    Args:
        lowering: the walk over the circuit.
        name: the name of the operation, for errors.
        matrix: the matrix.
        num_qubits: the number of qubits of the operation.

    Raises:
        UnsupportedInstruction: if the matrix has another shape or is not unitary.
    """
    checked = np.array(matrix, dtype=complex)  # a copy, so that a later change of the operation has no effect
    size = 1 << num_qubits
    if checked.shape != (size, size):
        reason = f"has a matrix of shape {checked.shape}, on {num_qubits} qubits it must be ({size}, {size})"
        raise lowering.unsupported(name, reason, fallback=False)
    require_orthonormal(lowering, name, checked)
    return checked


def require_orthonormal(lowering: LoweringContext, name: str, columns: np.ndarray) -> None:
    """Raise an UnsupportedInstruction unless the columns of a matrix (m, k) are orthonormal.

    A square matrix with orthonormal columns is unitary.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        deviation = columns.conj().T @ columns
    deviation.flat[:: len(deviation) + 1] -= 1
    deviation = np.abs(deviation)
    if deviation.max(initial=0.0) <= _ABSOLUTE:
        return
    _require_finite(lowering, name, columns)
    if not (deviation <= _ABSOLUTE + _RELATIVE * np.eye(len(deviation))).all():
        what = "is not unitary" if columns.shape[0] == columns.shape[1] else "has columns that are not orthonormal"
        raise lowering.unsupported(
            name,
            f"has a matrix U that {what}: U^+ U differs from the identity by up to {np.max(deviation):.3g}, the "
            f"tolerance is {_ABSOLUTE:.0e}, and {_RELATIVE:.0e} on the diagonal; use the nearest matrix that is, "
            "scipy.linalg.polar(U)[0]",
            fallback=False,
        )


def hermitian_matrix(lowering: LoweringContext, name: str, matrix: object, num_qubits: int) -> np.ndarray:
    """Return the Hermitian part of a Hermitian matrix, complex128 (2**num_qubits, 2**num_qubits).

    Raises:
        UnsupportedInstruction: if the matrix has another shape or is not Hermitian within the tolerances.
    """
    checked = np.array(matrix, dtype=complex)
    size = 1 << num_qubits
    if checked.shape != (size, size):
        reason = f"has a matrix of shape {checked.shape}, on {num_qubits} qubits it must be ({size}, {size})"
        raise lowering.unsupported(name, reason, fallback=False)
    _require_finite(lowering, name, checked)
    deviation = np.abs(checked - checked.conj().T)
    if not (deviation <= _ABSOLUTE + _RELATIVE * np.abs(checked)).all():
        raise lowering.unsupported(
            name,
            f"has a matrix H that is not Hermitian: H - H^+ is up to {deviation.max():.3g}, the tolerance is "
            f"{_ABSOLUTE:.0e} + {_RELATIVE:.0e} |H|; use (H + H^+) / 2",
            fallback=False,
        )
    return np.asarray((checked + checked.conj().T) / 2)


def require_real(lowering: LoweringContext, name: str, coefficients: np.ndarray) -> None:
    """Raise an UnsupportedInstruction unless a Hamiltonian's coefficients are finite and real."""
    _require_finite(lowering, name, coefficients)
    wrong = np.abs(coefficients.imag) > _ABSOLUTE + _RELATIVE * np.abs(coefficients)
    if wrong.any():
        raise lowering.unsupported(
            name,
            f"has an operator that is not Hermitian: the tolerance for the imaginary part of its coefficient "
            f"{coefficients[wrong][0]} is {_ABSOLUTE:.0e} + {_RELATIVE:.0e} of its modulus; use real coefficients",
            fallback=False,
        )


def _require_finite(lowering: LoweringContext, name: str, numbers: np.ndarray) -> None:
    if not np.isfinite(numbers).all():
        place = np.argwhere(~np.isfinite(numbers))[0].tolist()
        reason = f"has the number {numbers[tuple(place)]} at {place}; all numbers must be finite"
        raise lowering.unsupported(name, reason, fallback=False)


def require_dense(lowering: LoweringContext, qubits: Qubits) -> None:
    """Raise an UnsupportedInstruction for more than `MAX_DENSE_QUBITS` qubits: `StatevectorEstimator` is faster."""
    if len(qubits) > MAX_DENSE_QUBITS:
        raise lowering.unsupported(
            lowering.name,
            f"needs a dense matrix on {len(qubits)} qubits, the limit is {MAX_DENSE_QUBITS}; decompose it (for an "
            "evolution of non-commuting terms: choose a product formula and call circuit.decompose())",
        )


# Rules.


def matrix_of(op: Instruction) -> object | None:
    """Return the matrix of an operation; None if the operation has no matrix."""
    try:
        return op.to_matrix() if hasattr(op, "to_matrix") else op.__array__()
    except (AttributeError, QiskitError, TypeError, ValueError):
        return None


def opaque(lowering: LoweringContext, op: Instruction, qubits: Qubits, controls: Qubits, state: int) -> None:
    """Lower an operation without a definition by its matrix.

    Raises:
        UnsupportedInstruction: if the operation has no matrix either, or a matrix that is not unitary.
    """
    matrix = matrix_of(op)
    if matrix is not None:
        apply_matrix(lowering, unitary_matrix(lowering, op.name, matrix, op.num_qubits), qubits, controls, state)
        return
    is_bound = not any(isinstance(param, ParameterExpression) and param.parameters for param in op.params)
    if is_bound or not (hasattr(op, "__array__") or hasattr(type(op), "to_matrix")):
        raise lowering.unsupported(
            op.name,
            "is opaque: it has neither a definition nor a matrix; define it by gates (noise channels cannot be: leave "
            "them out)",
            fallback=False,
        )
    raise lowering.unsupported(
        op.name,
        "has no definition as gates, and no matrix before its parameters are bound; bind them by "
        "circuit.assign_parameters() or define it by gates",
        fallback=hasattr(op, "__array__"),
    )


def unitary(lowering: LoweringContext, op: Instruction, qubits: Qubits, controls: Qubits, state: int) -> None:
    """Lower an operation by its constant matrix."""
    apply_matrix(lowering, unitary_matrix(lowering, op.name, op.to_matrix(), op.num_qubits), qubits, controls, state)


def apply_matrix(lowering: LoweringContext, matrix: np.ndarray, qubits: Qubits, controls: Qubits, state: int) -> None:
    """Record and emit a unitary matrix, complex128 (2**k, 2**k), on k qubits."""
    lowering.touch(qubits + controls)
    if lowering.recording:
        lowering.gates.append(Gate("unitary", qubits, (), controls, state, matrix))
    if len(matrix) == 2 or not is_diagonal(matrix):
        if not start_from_gate(lowering, matrix):
            emit_matrix(lowering, matrix, qubits, controls, state)
        elif len(qubits) > MAX_DENSE_QUBITS:
            lowering.note_zero()
    else:
        lowering.form.controlled(controls, state).diagonal(qubits, np.angle(matrix.diagonal()))


def diagonal(lowering: LoweringContext, op: DiagonalGate, qubits: Qubits, controls: Qubits, state: int) -> None:
    """Lower a `DiagonalGate` as terms; its entries must have the modulus 1."""
    entries = np.array([complex(param) for param in op.params])
    _require_finite(lowering, op.name, entries)
    deviation = np.abs(np.abs(entries) - 1)
    if not deviation.max(initial=0.0) <= _RELATIVE:
        raise lowering.unsupported(
            op.name,
            f"has the entry {entries[deviation.argmax()]}, whose modulus differs from 1 by {deviation.max():.3g}, the "
            f"tolerance is {_RELATIVE:.0e}; divide entries by their moduli",
            fallback=False,
        )
    lowering.touch(qubits + controls)
    if lowering.recording:
        lowering.gates.append(Gate("diagonal", qubits, (), controls, state, entries))
    lowering.form.controlled(controls, state).diagonal(qubits, np.angle(entries))


def by_definition(lowering: LoweringContext, op: Instruction, qubits: Qubits, controls: Qubits, state: int) -> None:
    """Lower an operation by its definition, after a check that the columns of its matrices are orthonormal."""
    for param in op.params:
        columns = np.asarray(param, dtype=complex)
        require_orthonormal(lowering, op.name, columns.reshape(len(columns), -1))
    lowering.walk(lowering.definition(op), qubits, controls, state)


def isometry(lowering: LoweringContext, op: Instruction, qubits: Qubits, controls: Qubits, state: int) -> None:
    """Lower an isometry: by its matrix if it is a unitary on all of its qubits, else by its definition."""
    columns = np.asarray(op.params[0], dtype=complex)
    if columns.shape == (1 << len(qubits),) * 2 and len(qubits) <= MAX_DENSE_QUBITS:
        apply_matrix(lowering, unitary_matrix(lowering, op.name, columns, len(qubits)), qubits, controls, state)
    else:
        by_definition(lowering, op, qubits, controls, state)


# The normal form.


def emit_matrix(
    lowering: LoweringContext, matrix: np.ndarray, qubits: Qubits, controls: Qubits = (), state: int = 0
) -> None:
    """Emit the normal form of a unitary matrix without recording a gate."""
    require_dense(lowering, qubits)
    emit_unitary(lowering.form.controlled(controls, state), matrix, qubits)
