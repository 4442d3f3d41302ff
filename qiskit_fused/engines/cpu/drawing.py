# SPDX-License-Identifier: Apache-2.0
"""Draws the shots of measured circuits from their probabilities, on the CPU. All engines share this code."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qiskit_fused import _cpu
from qiskit_fused.common.caches import keeps

SHOTS_BETWEEN_CHECKS = 1 << 24
"""Most shots of one call, so that a job is cancelled within a fraction of a second: a shot takes 5 to 50 ns."""

BYTES_PER_OUTCOME = 16
"""Bytes that one row of probabilities needs for each outcome while it is drawn from: a sum and two guides."""

_CHUNK_BITS = 11  # bits of an outcome that one table takes: a table of 2^11 words of 8 bytes fits the L1 cache


class BitTables:
    """Tables of the bytes that classical registers have after an outcome.

    An outcome is an integer whose bit j is the value of measured qubit j. The bytes of all registers follow each other;
    the bytes of a register are its integer, the most significant byte first, as in Qiskit's ``BitArray``.

    Args:
        registers: for each register, for each of its bits, the least significant first, the position of its qubit among
            the measured qubits; -1 for a bit that is always 0.
        num_measured: k, the number of measured qubits.

    Attributes:
        num_bytes: number of bytes of all registers together.
        slices: the bytes of each register.
        chunk_bits: number of bits of an outcome that one table takes.
        tables: uint64 (chunks, 2^chunk_bits, words), for each chunk of the outcome's bits the bytes that it sets.
    """

    def __init__(self, registers: Sequence[Sequence[int]], num_measured: int):
        self.slices: list[slice] = []
        places: list[list[tuple[int, int]]] = [[] for _ in range(num_measured)]  # (byte, bit) that each qubit sets
        end = 0
        for sources in registers:
            begin, end = end, end - (-len(sources) // 8)
            self.slices.append(slice(begin, end))
            for bit, source in enumerate(sources):
                if source >= 0:
                    places[source].append((end - 1 - bit // 8, 1 << bit % 8))
        self.num_bytes = end
        num_words = max(-(-end // 8), 1)
        self.chunk_bits = min(num_measured, _CHUNK_BITS)
        self.tables = np.zeros(
            (max(-(-num_measured // _CHUNK_BITS), 1), 1 << self.chunk_bits, num_words), dtype=np.uint64
        )
        table_bytes = self.tables.view(np.uint8)
        for qubit in range(num_measured):
            chunk, bit = divmod(qubit, _CHUNK_BITS)
            entries = np.arange(1 << self.chunk_bits) >> bit & 1 == 1
            for byte, value in places[qubit]:
                table_bytes[chunk, entries, byte] |= value


def _count_bytes(tables: BitTables) -> int:
    return tables.tables.nbytes


@keeps(8 << 20, _count_bytes)
def find_tables(registers: tuple[tuple[int, ...], ...], num_measured: int) -> BitTables:
    """Return the `BitTables` of registers. The results are cached."""
    return BitTables(registers, num_measured)


def draw_shots(
    probabilities: np.ndarray,
    sources: np.ndarray,
    streams: np.ndarray,
    key: np.ndarray,
    tables: BitTables,
    shots: np.ndarray,
    *,
    first_shot: int = 0,
    num_threads: int = 1,
) -> None:
    """Draw the shots of D draws.

    The shots of a draw are independent and in random order. Shot s takes number s of a stream of uniform random
    numbers, which a key and a stream number determine. Streams with another key or another number are independent. So
    a shot depends only on its probabilities, the key, the number of the stream, and s.

    >>> shots = np.zeros((2, 3, 1), dtype=np.uint8)
    >>> tables = BitTables([[0, 1]], 2)
    >>> draw_shots(np.array([[0.0, 0.0, 1.0, 0.0]]), np.zeros(2, int), np.arange(2), np.array([1, 2]), tables, shots)
    >>> shots[..., 0].tolist()
    [[2, 2, 2], [2, 2, 2]]

    Args:
        probabilities: float64 (B, K), not negative. The sum of a row is positive and need not be 1, since probabilities
            of complex64 amplitudes are rounded.
        sources: int64 (D,), the row of probabilities of each draw.
        streams: uint64 (D,), the number of the stream of each draw.
        key: uint64 (2,).
        tables: the bytes of each outcome.
        shots: uint8 (D, S, bytes), C-contiguous, to which the bytes of the S shots of each draw are written.
        first_shot: the number s of the first shot.
        num_threads: most threads. Results do not depend on them.

    Cost: 3 ns for each outcome of a row, and 5 ns for each shot, or 20 ns for 2^20 outcomes, which do not fit the cache
    (one AVX-512 core). These methods were slower for 2^20 outcomes and 10^6 shots, and for 5,000 rows of 2^5 outcomes
    and 1,024 shots, by the factors in brackets: NumPy's ``multinomial`` and a shuffle (2, 6), sorted uniform numbers
    and a shuffle (3, 12), a binary search for each shot (8, 15), and the same guide table written in NumPy (2, 12).

    Source: ``kernels/cpu/sampling.cpp``.
    """
    _cpu.draw_shots(
        probabilities, sources, streams, key, first_shot, tables.tables, tables.chunk_bits, shots, num_threads
    )
