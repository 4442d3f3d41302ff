# SPDX-License-Identifier: Apache-2.0
"""Draws shots from rows of probabilities, and packs them into the bytes of Qiskit's ``BitArray``."""

from __future__ import annotations

import numpy as np

_CHUNK_BITS = 12  # a shot is looked up in tables of at most 2^12 words, which stay in the first-level cache


def draw_outcomes(
    probabilities: np.ndarray, sources: np.ndarray, streams: np.ndarray, key: np.ndarray, num_shots: int
) -> np.ndarray:
    """Draw outcomes, int32 (D, num_shots), one row of shots for each of D draws.

    Args:
        probabilities: float64 (B, K). The probabilities of a row need not have the sum 1.
        sources: int64 (D,), the row of probabilities of each draw.
        streams: uint64 (D,), the number of the stream of random numbers of each draw.
        key: uint64 (2,), the key of all streams. Streams with another key or another number are independent.
        num_shots: number of shots of each draw.
    """
    outcomes = np.empty((len(sources), num_shots), dtype=np.int32)
    for number, (source, stream) in enumerate(zip(sources.tolist(), streams.tolist())):
        uniform = np.random.Generator(np.random.Philox(counter=[0, 0, stream, 0], key=key)).random(num_shots)
        sums = probabilities[source].cumsum()
        places = np.searchsorted(sums, uniform * sums[-1], side="right")
        outcomes[number] = np.minimum(places, np.flatnonzero(probabilities[source])[-1])
    return outcomes


class BitPacker:
    """Packs the outcomes of k measured qubits into the bytes of a classical register.

    An outcome is an integer whose bit j is the value of measured qubit j. The bytes of a shot are the integer of the
    register, the most significant byte first, as in ``BitArray.array``.

    Args:
        sources: int (bits,), for each bit of the register, the least significant first, the position of its qubit
            among the k measured qubits; -1 for a bit that is always 0.
        num_measured: k.
    """

    def __init__(self, sources: np.ndarray, num_measured: int):
        self.num_bits = len(sources)
        self.num_bytes = -(-len(sources) // 8)
        # Words of 64 bits, the most significant word first; a short register has one word of fewer bits.
        self._words = [
            self._tables(sources[begin : begin + 64], num_measured) for begin in reversed(range(0, self.num_bits, 64))
        ]

    def _tables(self, sources: np.ndarray, num_measured: int) -> list[np.ndarray]:
        """Return for each chunk of the outcome's bits a table of the bits of a word that the chunk decides."""
        kind = next(dtype for dtype in ("u1", "u2", "u4", "u8") if 8 * np.dtype(dtype).itemsize >= len(sources))
        tables = []
        for begin in range(0, max(num_measured, 1), _CHUNK_BITS):
            table = np.zeros(1, dtype=kind)
            for position in range(begin, min(begin + _CHUNK_BITS, num_measured)):
                weight = sum(1 << bit for bit in np.flatnonzero(sources == position).tolist())
                table = np.concatenate([table, table | np.array(weight, dtype=kind)])
            tables.append(table)
        return tables

    def pack(self, outcomes: np.ndarray) -> np.ndarray:
        """Return, uint8 (..., num_bytes), the bytes of outcomes (...)."""
        parts = []
        for tables in self._words:
            word = tables[0][outcomes & (len(tables[0]) - 1)] if len(tables) > 1 else tables[0][outcomes]
            for number, table in enumerate(tables[1:], start=1):
                word |= table[(outcomes >> (number * _CHUNK_BITS)) & (len(table) - 1)]
            parts.append(word.astype(word.dtype.newbyteorder(">"), copy=False)[..., None].view(np.uint8))
        if not parts:
            return np.zeros((*outcomes.shape, 0), dtype=np.uint8)
        packed = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        return packed[..., packed.shape[-1] - self.num_bytes :]
