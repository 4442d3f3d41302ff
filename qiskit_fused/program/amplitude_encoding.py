# SPDX-License-Identifier: Apache-2.0
"""Amplitude encoding: start states that are functions of the columns and differ between rows.

A start state is a product of encodings ``psi = a(columns) / |a|`` on some qubits, and of |0> on all other qubits.

Gradients: engines return G with ``dE = Re sum conj(G) dPsi`` for the whole start state Psi. The part ``g`` of one
encoding is G contracted with the conjugates of the other encodings. The normalisation turns g into
``h = (g - Re<psi|g> psi) / |a|``, and ``dE = Re sum conj(h) da``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qiskit_fused.common.bits import spread
from qiskit_fused.common.forks import cached_property
from qiskit_fused.common.row_errors import RowError

_BLOCK_BYTES = 1 << 26  # bound of one block's start states, and gradients with respect to them, in bytes: 64 MiB
_SMALLEST_SQUARES = 1e-140  # vectors with a smaller norm are scaled first: float64 loses digits of their squares
_MIN_BLOCK_ROWS = 16  # smallest number of rows in a block, so that several threads have rows


@dataclass(frozen=True, eq=False)
class Encoding:
    """Amplitudes ``coefficient * columns[column] + offset`` of k qubits, which are then normalised.

    Attributes:
        qubits: (k,), active qubits; bit j of an amplitude's index is qubit ``qubits[j]``.
        column: int32 (2, 2**k), the columns of real and imaginary parts; -1 for a constant part.
        coefficient, offset: float64 (2, 2**k).
        origin: the instruction that prepares the amplitudes, as text for errors.
    """

    qubits: tuple[int, ...]
    column: np.ndarray
    coefficient: np.ndarray
    offset: np.ndarray
    origin: str = ""

    @classmethod
    def constant(cls, qubits: tuple[int, ...], vector: np.ndarray) -> Encoding:
        """Return the encoding of a constant vector, complex (2**k,), which is the same in every row."""
        column = np.full((2, len(vector)), -1, dtype=np.int32)
        return cls(qubits, column, np.zeros(column.shape), np.array([vector.real, vector.imag]))

    @cached_property
    def varies(self) -> bool:
        """Whether some amplitude depends on a column."""
        return bool((self.column >= 0).any())

    @cached_property
    def varying(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, bool]]:
        """The varying amplitudes, for real and imaginary parts.

        Each tuple holds the indices of the amplitudes that depend on a column, their columns and coefficients, and
        whether all these columns are distinct.
        """
        parts = []
        for column, coefficient in zip(self.column, self.coefficient):
            used = np.flatnonzero(column >= 0)
            distinct = len(np.unique(column[used])) == len(used)
            parts.append((used, column[used], coefficient[used], distinct))
        return parts

    def normalised(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return amplitudes of norm 1, complex128 (B, 2**k), and their norms before, float64 (B,).

        A row with the norm 0 stays zero. A constant encoding returns one row.
        """
        if not self.varies:
            columns = columns[:1] if len(columns) else np.zeros((1, columns.shape[1]))
        parts = []
        for column, coefficient, offset in zip(self.column, self.coefficient, self.offset):
            if (column < 0).all():
                parts.append(offset[None])
                continue
            # in place: each operation works on the same array (B, 2**k)
            part = columns[:, np.maximum(column, 0)]
            part *= coefficient
            part += offset
            parts.append(part)
        amplitudes = parts[0] + 1j * parts[1] if parts[1].any() else parts[0].astype(np.complex128)
        return amplitudes, _normalise(amplitudes)


def _normalise(amplitudes: np.ndarray) -> np.ndarray:
    """Divide rows by their norms in place, and return the norms (B,). A row of zeros stays."""
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(amplitudes, axis=1)
        rows = np.flatnonzero(~((norms > _SMALLEST_SQUARES) & (norms < np.inf)))
        parts = amplitudes[rows].view(np.float64)  # scaling by powers of 2 is exact
        exponents = np.frexp(np.abs(parts).max(axis=1))[1]
        parts = np.ldexp(parts, -exponents[:, None])
        scaled = np.linalg.norm(parts, axis=1)
        amplitudes[rows] = parts.view(np.complex128)
        norms[rows] = np.where(scaled > 0, scaled, 1.0)
        amplitudes /= norms[:, None]
        norms[rows] = np.ldexp(scaled, exponents)
    return norms


def rows_at_once(num_qubits: int, num_rows: int, num_state_gradients: int) -> int:
    """Return the number of rows of a block, so that its start states and their gradients stay below 64 MiB.

    A block has at least 16 rows, or all rows of a smaller batch.

    Args:
        num_qubits: n.
        num_rows: the number of rows of the batch.
        num_state_gradients: the number of gradients with respect to start states, for the whole batch.
    """
    bytes_per_row = (16 << num_qubits) * (1 + num_state_gradients / max(num_rows, 1))
    return min(num_rows, max(int(_BLOCK_BYTES / bytes_per_row), _MIN_BLOCK_ROWS))


class Starts:
    """The start states of rows on the bits of a fused program.

    Args:
        encodings: the encodings, on disjoint qubits.
        bits: int, the bit of each active qubit. All qubits of the encodings have a bit.
        num_qubits: n, the number of bits of the fused program.
    """

    def __init__(self, encodings: Sequence[Encoding], bits: np.ndarray, num_qubits: int):
        self.encodings, self.num_qubits = encodings, num_qubits
        self._shape = tuple(encoding.column.shape[1] for encoding in encodings)
        index = np.zeros(1, dtype=np.int64)
        for encoding in encodings:
            index = (index[:, None] | spread([int(bits[qubit]) for qubit in encoding.qubits])).ravel()
        self._index: np.ndarray | slice = index
        if len(index) == 1 << num_qubits and np.array_equal(index, np.arange(len(index))):
            self._index = slice(None)

    def states(self, columns: np.ndarray) -> np.ndarray:
        """Return the start states, complex128 (B, 2**n), for columns (B, C) of the program.

        Raises:
            RowError: if the amplitudes of a row have the norm 0, or a norm that is not finite.
        """
        product = np.ones((1, 1), dtype=np.complex128)
        for encoding in self.encodings:
            vectors, norms = encoding.normalised(columns)
            bad = ~((norms > 0) & np.isfinite(norms))
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                before = f"the amplitudes of {encoding.origin} have the norm {norms[row]} in "
                raise RowError(before, row, "; allowed: any finite norm but 0, they are divided by it.")
            joint = product[:, :, None] * vectors[:, None, :]
            product = joint.reshape(len(joint), joint.shape[1] * joint.shape[2])
        if len(product) != len(columns):
            product = np.repeat(product, len(columns), axis=0)
        if isinstance(self._index, slice):
            return np.ascontiguousarray(product)
        states = np.zeros((len(columns), 1 << self.num_qubits), dtype=np.complex128)
        states[:, self._index] = product
        return states

    def add_gradients(
        self, columns: np.ndarray, rows: np.ndarray, of_states: np.ndarray, gradients: np.ndarray
    ) -> None:
        """Add the contribution of the start states to gradients with respect to columns.

        Args:
            columns: float64 (B, C).
            rows: int (N,), the row of each gradient.
            of_states: complex (N, 2**n), the gradients G with respect to start states; see the module's docstring.
            gradients: float64 (N, C), changed in place.

        Raises:
            RowError: if the amplitudes of a row have a norm that is too small to divide by.
        """
        made = [encoding.normalised(columns) for encoding in self.encodings]
        tensor = of_states[:, self._index].reshape(len(rows), *self._shape)
        for number, encoding in enumerate(self.encodings):
            if not encoding.varies:
                continue
            vectors, norms = made[number]
            g = tensor
            for other in reversed(range(len(made))):
                if other != number:
                    g = np.moveaxis(g, 1 + other, -1)
                    factor = made[other][0].conj()
                    factor = factor if len(factor) == 1 else factor[rows]
                    g = (g * factor.reshape(len(factor), *(1,) * (g.ndim - 2), -1)).sum(axis=-1)
            psi = vectors[rows]
            along = np.einsum("ni,ni->n", psi.real, g.real) + np.einsum("ni,ni->n", psi.imag, g.imag)
            small = norms < np.finfo(np.float64).tiny
            if small.any():
                row = int(np.flatnonzero(small)[0])
                before = f"the amplitudes of {encoding.origin} have the norm {norms[row]} in "
                raise RowError(before, row, ", too small for a gradient; scale them, they are divided by their norm.")
            h = (g - along[:, None] * psi) / norms[rows][:, None]
            for part, (used, column, coefficient, distinct) in zip((h.real, h.imag), encoding.varying):
                if distinct:
                    gradients[:, column] += coefficient * part[:, used]
                else:
                    np.add.at(gradients.T, column, (coefficient * part[:, used]).T)
