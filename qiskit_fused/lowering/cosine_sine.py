# SPDX-License-Identifier: Apache-2.0
"""The cosine-sine decomposition of a unitary on k qubits into diagonals and rotations about Y.

    U = D_{N-1} R_{N-2} D_{N-2} ... R_0 D_0        with N = 2**k

``D_i`` is a diagonal. ``R_i`` rotates the qubit `turned_qubit` about Y by an angle that depends on the basis state of
all other qubits. Each factor is the exponential of a sum of Z strings (R_i after a change of basis), so each factor is
one phase of the normal form. The 2 N - 1 phases have N**2 strings in all; a unitary has N**2 real parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qiskit_fused.common.bits import walsh
from qiskit_fused.lowering.emitter import FROM_Z, NormalForm, constant, inverse
from qiskit_fused.program.program import OpKind

_NEGLIGIBLE = 1e-15  # radians; smaller weights are left out
_ROUNDING = 1e-14  # radians; an angle of R that is closer to 0 or pi/2 is set to this value
_VANISHING = 1e-75  # modulus; a smaller entry of a unitary counts as 0


@dataclass(frozen=True, eq=False)
class CosineSine:
    """The factors of U as weights, in radians, of Z strings. Bit q of m says whether the string ``Z_m`` has a Z on q.

    Attributes:
        diagonals: float64 (N, N), ``D_i = exp(i sum_m diagonals[i, m] Z_m)``; m = 0 is the global phase.
        rotations: float64 (N - 1, N), ``R_i = exp(-i sum_m rotations[i, m] Z_m')``. ``Z_m'`` is ``Z_m`` with Y in the
            place of Z on the turned qubit. The weight is 0 for each m without the turned qubit.
    """

    diagonals: np.ndarray
    rotations: np.ndarray


def turned_qubit(number: int) -> int:
    """Return the qubit that ``R_number`` rotates: 0, 1, 0, 2, 0, 1, 0, 3, ..."""
    number += 1
    return (number & -number).bit_length() - 1


def decompose(matrix: np.ndarray) -> CosineSine:
    """Decompose a unitary.

    Args:
        matrix: complex128 (2**k, 2**k), k >= 1, unitary within rounding errors.

    Returns:
        The 2 N - 1 factors of the matrix.

    Cost: 20 ms for k = 7 on one core, and 4.5 times as long for each further qubit.
    """
    size = len(matrix)
    num_qubits = size.bit_length() - 1
    sequence = np.asarray(matrix, dtype=complex)[None, None]  # (factors in order of application, blocks, rows, columns)
    rotations = np.zeros((size - 1, size))
    for level in range(num_qubits):
        num_factors, num_blocks, width, _ = sequence.shape
        left, theta, right = _split(sequence.reshape(-1, width, width))
        shape = (num_factors, 2 * num_blocks, width // 2, width // 2)
        sequence = np.stack([right.reshape(shape), left.reshape(shape)], axis=1).reshape(-1, *shape[1:])
        # The rotations of this level turn one qubit. Their angles are numbered by the states of all other qubits.
        qubit = num_qubits - 1 - level
        weights = walsh(theta.reshape(num_factors, size // 2))
        rotations[(1 << qubit) - 1 :: 2 << qubit, np.arange(size) >> qubit & 1 == 1] = weights
    diagonals = walsh(np.angle(sequence.reshape(size, size)))
    return CosineSine(_moved_on(diagonals), rotations)


def _split(unitaries: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split unitaries (B, 2 m, 2 m) into ``diag(left) [[C, -S], [S, C]] diag(right)`` with C, S of angles in [0, pi/2].

    Let ``U_1 P_1`` and ``U_2 P_2`` be the polar decompositions of the upper left and the lower left quarter. Then
    ``P_1 = W C W^+`` and ``P_2 = W S W^+``, so the columns of W are the eigenvectors of ``P_1 - P_2``. Its eigenvalues
    are sqrt(2) cos(theta + pi/4), which resolves all angles theta equally well: nearly equal eigenvalues belong to
    nearly equal entries of C and of S, and then any basis of their eigenspace is accurate.

    Returns:
        left (B, 2, m, m), angles (B, m) in radians, right (B, 2, m, m).
    """
    half = unitaries.shape[-1] // 2
    quarters = unitaries.reshape(-1, 2, half, 2, half).transpose(0, 1, 3, 2, 4)
    unitary, positive = _polar(quarters[:, :, 0])
    eigenvalues, basis = np.linalg.eigh(positive[:, 0] - positive[:, 1])
    angles = np.arccos(np.clip(eigenvalues * np.sqrt(0.5), -1.0, 1.0)) - np.pi / 4
    for exact in (0.0, np.pi / 2):
        angles[np.abs(angles - exact) < _ROUNDING] = exact
    left = unitary @ basis[:, None]
    upper, lower = _adjoint(left[:, 0]) @ quarters[:, 0, 1], _adjoint(left[:, 1]) @ quarters[:, 1, 1]
    other = np.cos(angles)[..., None] * lower - np.sin(angles)[..., None] * upper
    return left, angles, np.stack([_adjoint(basis), other], axis=1)


def _polar(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the polar decompositions ``U P`` of matrices (..., m, m): U unitary, P positive, both (..., m, m).

    For m = 2, ``U = (A + e^{i arg det A} cof(A)) / (s_1 + s_2)``, with the singular values s_1, s_2 and the matrix
    ``cof(A)`` of complex conjugate cofactors. If det A is 0, any phase gives a valid U. An SVD takes 10 times as long.
    """
    size = matrices.shape[-1]
    if size > 2:
        first, values, second = np.linalg.svd(matrices)
        return first @ second, (_adjoint(second) * values[..., None, :]) @ second
    # Below 1e-308 float64 has fewer digits; products of entries below the bound would get there.
    matrices = np.where(np.abs(matrices) < _VANISHING, 0.0, matrices)
    if size == 1:
        lengths = np.abs(matrices)
        return np.where(lengths > 0, matrices, 1.0) / np.where(lengths > 0, lengths, 1.0), lengths + 0j
    a, b, c, d = (matrices[..., row, column] for row in (0, 1) for column in (0, 1))
    phases = np.exp(1j * np.angle(a * d - b * c))
    cofactors = np.stack([d, -c, -b, a], axis=-1).conj().reshape(matrices.shape)
    unitary = matrices + phases[..., None, None] * cofactors
    sums = np.sqrt((np.abs(unitary) ** 2).sum(axis=(-2, -1)) / 2)  # s_1 + s_2
    unitary = np.where(sums[..., None, None] > 0, unitary, np.eye(2)) / np.where(sums > 0, sums, 1.0)[..., None, None]
    positive = _adjoint(unitary) @ matrices
    return unitary, (positive + _adjoint(positive)) / 2


def _adjoint(matrices: np.ndarray) -> np.ndarray:
    return matrices.conj().swapaxes(-1, -2)


def _moved_on(diagonals: np.ndarray) -> np.ndarray:
    """Move strings of each diagonal to the next diagonal if the string commutes with the rotation between the two."""
    moved = diagonals.copy()
    strings = np.arange(len(moved))
    for number in range(len(moved) - 1):
        free = strings >> turned_qubit(number) & 1 == 0
        moved[number + 1, free] += moved[number, free]
        moved[number, free] = 0.0
    return moved


def emit(form: NormalForm, qubits: Sequence[int], factors: CosineSine) -> None:
    """Emit U on k qubits: one phase for each D_i, and one phase between two changes of basis for each R_i."""
    size = len(factors.diagonals)
    # Row i: the strings of D_i, the change of basis of the turned qubit, the strings of R_i, the change back.
    offset = np.zeros((size, 2 * size + 2))
    offset[:, :size] = -2 * factors.diagonals
    offset[:-1, size + 1 : -1] = 2 * factors.rotations
    is_emitted = np.abs(offset) > 2 * _NEGLIGIBLE
    if not form.has_controls:
        is_emitted[-1, 0] = False
        form.phase(constant(float(factors.diagonals[-1, 0])))
    is_emitted[:, size] = is_emitted[:, -1] = is_emitted[:, size + 1 : -1].any(axis=1)
    number, column = np.nonzero(is_emitted)
    is_change, is_last = column % (size + 1) == size, column > size
    wires = np.array([form.wire_of[qubit] for qubit in qubits])
    turned = wires[[turned_qubit(i) for i in range(size - 1)] + [0]]
    to_z, from_z = np.array(inverse(FROM_Z["Y"])), np.array(FROM_Z["Y"])
    form.many(
        len(number),
        kind=np.where(is_change, OpKind.SU2, OpKind.TERM),
        qubit=np.where(is_change, turned[number], -1),
        offset=offset[is_emitted],
        sign=np.where(is_change, 0, form.masks(qubits)[column % (size + 1) % size]),
        quaternion=np.where(is_change[:, None], np.where(is_last[:, None], from_z, to_z), (1.0, 0.0, 0.0, 0.0)),
    )
