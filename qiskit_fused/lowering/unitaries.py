# SPDX-License-Identifier: Apache-2.0
"""Emit constant unitary matrices of any size in normal form."""

from __future__ import annotations

import numpy as np
from qiskit.exceptions import QiskitError
from qiskit.synthesis import TwoQubitWeylDecomposition

from qiskit_fused.lowering.cosine_sine import CosineSine, decompose, emit
from qiskit_fused.lowering.emitter import NormalForm, constant, split_unitary


def nearest_unitary(matrix: np.ndarray) -> np.ndarray:
    """Return the unitary factor of the polar decomposition of a square matrix, which is the nearest unitary matrix."""
    first, _, second = np.linalg.svd(matrix)
    return np.asarray(first @ second)


def emit_unitary(
    form: NormalForm, matrix: np.ndarray, qubits: tuple[int, ...], decomposed: dict[bytes, CosineSine]
) -> None:
    """Emit a unitary.

    Args:
        form: the emitter, as a view under the controls of the unitary.
        matrix: complex128 (2**k, 2**k).
        qubits: (k,); ``qubits[0]`` is the least significant bit of an index of the matrix.
        decomposed: the decompositions made so far, by the bytes of their matrices. A new decomposition is added.
    """
    if len(qubits) == 0:
        form.phase(constant(float(np.angle(matrix[0, 0]))))
    elif len(qubits) == 1:
        form.su2(qubits[0], *split_unitary(matrix))
    elif len(qubits) == 2 and not form.has_controls:
        _emit_pair(form, matrix, qubits)
    else:
        key = matrix.tobytes()
        if key not in decomposed:
            decomposed[key] = decompose(matrix)
        emit(form, qubits, decomposed[key])


def _emit_pair(form: NormalForm, matrix: np.ndarray, qubits: tuple[int, ...]) -> None:
    """Emit a two-qubit unitary by its Weyl decomposition, K1 exp(i (a XX + b YY + c ZZ)) K2.

    With a fidelity, Qiskit rounds to a special case that reaches the fidelity. Its default, 1 - 1e-9, gives errors up
    to 3e-5. The fidelity 1 still gives errors up to 2e-8, because float64 rounds fidelities near 1.
    """
    try:
        weyl = TwoQubitWeylDecomposition(matrix, fidelity=None)
    except QiskitError:  # Qiskit refuses a matrix that differs from a unitary by 1e-8
        weyl = TwoQubitWeylDecomposition(nearest_unitary(matrix), fidelity=None)
    low, high = qubits
    form.su2(low, *split_unitary(weyl.K2r))
    form.su2(high, *split_unitary(weyl.K2l))
    for pauli, coordinate in (("X", weyl.a), ("Y", weyl.b), ("Z", weyl.c)):
        if abs(coordinate) > 1e-15:
            form.pauli_rotation([(low, pauli), (high, pauli)], constant(-2 * coordinate))
    form.su2(low, *split_unitary(weyl.K1r))
    form.su2(high, *split_unitary(weyl.K1l))
    form.phase(constant(weyl.global_phase))
