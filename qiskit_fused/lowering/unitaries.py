# SPDX-License-Identifier: Apache-2.0
"""Emit constant unitary matrices of any size in normal form.

This module decides how each matrix is applied. Factors are taken off a matrix first: gates on single qubits that act
beside the rest, and controls. The rest of the matrix is emitted as

* a diagonal, a one-qubit gate, or a two-qubit gate without controls: leaves and terms, which join the layers and the
  phases beside them;
* any other matrix: a dense gate. On k qubits, a dense gate takes 2**k multiply-adds for each amplitude, in one pass.
  Leaves and terms take 4**k ops in about 2 * 2**k phases, which are made in many times the time of one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from qiskit.exceptions import QiskitError
from qiskit.synthesis import TwoQubitWeylDecomposition

from qiskit_fused.lowering.emitter import NormalForm, constant, split_unitary

_ROUNDING = 1e-14  # largest modulus of a rounding error in an entry of a unitary matrix


def nearest_unitary(matrix: np.ndarray) -> np.ndarray:
    """Return the unitary factor of the polar decomposition of a square matrix, which is the nearest unitary matrix."""
    first, _, second = np.linalg.svd(matrix)
    return np.asarray(first @ second)


def emit_unitary(form: NormalForm, matrix: np.ndarray, qubits: Sequence[int]) -> None:
    """Emit a unitary.

    Args:
        form: the emitter, as a view under the controls of the unitary.
        matrix: complex128 (2**k, 2**k). Nobody may change it later.
        qubits: (k,); ``qubits[0]`` is the least significant bit of an index of the matrix.

    Cost: O(k 4**k) for a matrix with factors, else O(k 2**k).
    """
    places = list(qubits)
    while len(places) > 1 and (len(places) > 2 or form.has_controls):
        factor = _find_factor(matrix)
        if factor is None:
            break
        qubit, matrix = places.pop(factor.place), factor.rest
        if factor.single is None:
            form.phase(constant(factor.phase))
            form = form.controlled([qubit], factor.state)
        else:
            form.su2(qubit, *split_unitary(factor.single))
    if len(places) == 0:
        form.phase(constant(float(np.angle(matrix[0, 0]))))
    elif len(places) == 1:
        form.su2(places[0], *split_unitary(matrix))
    elif len(places) == 2 and not form.has_controls:
        _emit_pair(form, matrix, places)
    elif is_diagonal(matrix):
        form.diagonal(places, np.angle(matrix.diagonal()))
    else:
        form.dense(places, matrix)


def is_diagonal(matrix: np.ndarray) -> bool:
    """Say whether a unitary matrix is a diagonal up to rounding errors."""
    if abs(matrix[0, 1:]).max(initial=0.0) > _ROUNDING:
        return False
    return not (np.abs(matrix - np.diag(matrix.diagonal())) > _ROUNDING).any()


class _Factor(NamedTuple):
    """A qubit that a unitary acts on in a simple way.

    Attributes:
        place: the place of the qubit among the qubits of the unitary.
        rest: the unitary on the other qubits.
        single: the unitary is the product of ``rest`` and this matrix, complex128 (2, 2), on the qubit. None: the
            unitary is ``e^{i phase}`` times ``rest`` where the qubit is in ``state``, and times 1 elsewhere.
        state: the state of a control.
        phase: radians.
    """

    place: int
    rest: np.ndarray
    single: np.ndarray | None
    state: int = 0
    phase: float = 0.0


def _find_factor(matrix: np.ndarray) -> _Factor | None:
    """Return a factor of a unitary, complex128 (2**k, 2**k), k >= 2; None if no qubit acts beside the others."""
    size = len(matrix)
    row = int(np.abs(matrix[:, 0]).argmax())  # the modulus of this entry is at least 2**(-k/2)
    for place in range(size.bit_length() - 1):
        bit = 1 << place
        blocks = matrix.reshape(size >> place + 1, 2, bit, size >> place + 1, 2, bit).transpose(1, 4, 0, 2, 3, 5)
        state = row >> place & 1
        corner = blocks[:, :, row >> place + 1, row & bit - 1]  # [row bit, column bit, other column bits]
        ratios = corner[:, :, 0, 0] / corner[state, 0, 0, 0]
        if _is_small(corner - ratios[:, :, None, None] * corner[state, 0]):
            block = blocks[state, 0]
            if _is_small(blocks - ratios[:, :, None, None, None, None] * block):
                norm = float(np.linalg.norm(ratios[:, 0]))
                rest = norm * block.reshape(size // 2, size // 2)
                return _Factor(place, rest, ratios / norm)
        if _is_small(corner[state, 1 - state]) and _is_small(blocks[0, 1]) and _is_small(blocks[1, 0]):
            for on, off in ((1, 0), (0, 1)):
                idle, rest = (blocks[part, part].reshape(size // 2, size // 2) for part in (off, on))
                if _is_small(idle - idle[0, 0] * np.eye(size // 2)):
                    return _Factor(place, rest / idle[0, 0], None, on, float(np.angle(idle[0, 0])))
    return None


def _is_small(entries: np.ndarray) -> bool:
    return not (np.abs(entries) > _ROUNDING).any()


def _emit_pair(form: NormalForm, matrix: np.ndarray, qubits: Sequence[int]) -> None:
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
