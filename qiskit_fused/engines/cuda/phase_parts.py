# SPDX-License-Identifier: Apache-2.0
"""Diagonals in a tile: polynomials in the bits of the index, sorted by the place where a thread evaluates them.

A term ``exp(-i angle/2 g)`` on one or two qubits is written as a sum of bits and a product of two bits. A term on more
qubits keeps the masks of g. A part that depends on thread bits only is added to a table over threads. A part on a
single register bit is added to the table entry of this bit. Any other part, which joins register and thread bits or
reaches outside the tile, becomes a sign mask if it is a constant factor -1, otherwise an *extra*.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache
from math import pi
from typing import NamedTuple

import numpy as np

from qiskit_fused.common.bits import bits_of, walsh
from qiskit_fused.engines.cuda import records
from qiskit_fused.engines.cuda.records import ExtraKind, Source

_SHORT = 4  # largest number of qubits of a projector whose gradient comes from Walsh sums; more take a direct sum


class Part(NamedTuple):
    """coefficient * angle * g, for the angle of a term or of an Rz of a run."""

    masks: tuple[int, int, int]  # care, value, sign of g
    source: Source
    of: int  # index of the term or run
    coefficient: float
    kind: ExtraKind = ExtraKind.THREAD
    bit: int = 0  # register bit of an extra of kind REGISTER


class Parts:
    """The parts of one piece, sorted by the place where a thread evaluates them.

    Masks are over local indices: tile bits, then the bits of the tile number.

    Attributes:
        arrangement: s, the lowest register bit.
        thread_items: parts of the table over thread bits.
        register_items: parts of the table entries of single register bits.
        extras: all other parts.
        signs: for each register bit, a mask of local bits. The amplitudes with this register bit set get the factor -1
            if an odd number of bits of the mask is set.
        register_signs: if bit j is set, the amplitude in register j gets the factor -1.
    """

    def __init__(self, arrangement: int, tile_qubits: int, register_qubits: int):
        self.arrangement, self._register_qubits = arrangement, register_qubits
        self._registers = ((1 << register_qubits) - 1) << arrangement
        self._threads = (1 << tile_qubits) - 1 & ~self._registers
        self.thread_items: list[Part] = []
        self.register_items: list[Part] = []
        self.extras: list[Part] = []
        self.signs = [0] * records.MAX_REGISTER_QUBITS
        self.register_signs = 0

    def add_bit(self, bit: int, source: Source, index: int, coefficient: float) -> None:
        """Add coefficient * angle for the amplitudes in which a local bit is set."""
        mask = 1 << bit
        part = Part((mask, mask, 0), source, index, coefficient)
        if mask & self._registers:
            self.register_items.append(part)
        elif mask & self._threads:
            self.thread_items.append(part)
        else:
            self.extras.append(part)

    def add_term(self, term: int, masks: tuple[int, int, int], constant: float | None) -> None:
        """Add a diagonal term, given by its local masks; ``constant`` is its angle, None for an angle with a column."""
        bits = bits_of(masks[0] | masks[2])
        if len(bits) > 2:
            part = Part(masks, Source.TERM, term, -0.5, ExtraKind.TERM)
            (self.extras if (masks[0] | masks[2]) & ~self._threads else self.thread_items).append(part)
            return
        bit_coefficients, pair = polynomial(*_compress(masks, bits), len(bits))
        for bit, coefficient in zip(bits, bit_coefficients):
            if coefficient:
                self.add_bit(bit, Source.TERM, term, coefficient)
        if pair and constant is not None and _is_odd_pi(pair * constant):
            self._add_sign(1 << bits[0] | 1 << bits[1], Part((0, 0, 0), Source.TERM, term, pair))
        elif pair:
            self._add_pair(1 << bits[0] | 1 << bits[1], Part((0, 0, 0), Source.TERM, term, pair))

    def _add_sign(self, pair: int, part: Part) -> None:
        in_registers, rest = pair & self._registers, pair & ~self._registers
        if in_registers and rest:
            self.signs[in_registers.bit_length() - 1 - self.arrangement] ^= rest
        elif in_registers:
            of_register = pair >> self.arrangement
            for j in range(1 << self._register_qubits):
                self.register_signs ^= (j & of_register == of_register) << j
        else:
            self._add_pair(pair, part)

    def _add_pair(self, pair: int, part: Part) -> None:
        in_registers, rest = pair & self._registers, pair & ~self._registers
        if in_registers and rest:
            bit = in_registers.bit_length() - 1 - self.arrangement
            self.extras.append(part._replace(masks=(rest, rest, 0), kind=ExtraKind.REGISTER, bit=bit))
        elif in_registers:
            self.extras.append(part._replace(masks=(pair, pair, 0), kind=ExtraKind.TERM))
        else:
            part = part._replace(masks=(pair, pair, 0))
            (self.extras if pair & ~self._threads else self.thread_items).append(part)


def _compress(masks: tuple[int, int, int], bits: list[int]) -> tuple[int, int, int]:
    care, value, sign = (sum((mask >> bit & 1) << k for k, bit in enumerate(bits)) for mask in masks)
    return care, value, sign


def _generators(care: int, value: int, sign: int, num_bits: int) -> Iterator[int]:
    for i in range(1 << num_bits):
        yield 0 if i & care != value else 1 - 2 * ((i & sign).bit_count() & 1)


@cache
def polynomial(care: int, value: int, sign: int, num_bits: int) -> tuple[tuple[float, ...], float]:
    """Write ``-g/2`` on one or two bits as constant + sum of coefficients[k] x_k + pair x_0 x_1.

    Returns:
        The coefficients of the bits, and the coefficient ``pair`` (0 for one bit). The constant is a global phase and
        is dropped.
    """
    g = list(_generators(care, value, sign, num_bits))
    if num_bits == 1:
        return (-0.5 * (g[1] - g[0]),), 0.0
    return (-0.5 * (g[1] - g[0]), -0.5 * (g[2] - g[0])), -0.5 * (g[3] - g[2] - g[1] + g[0])


def walsh_series(care: int, value: int, sign: int) -> list[tuple[int, float]] | None:
    """Write g minus its mean as a sum of weight (-1)^popcount(i & mask).

    Returns:
        (mask, weight) of each summand; None for a projector on more than `_SHORT` qubits, whose series is long.
    """
    if not care:
        return [(sign, 1.0)]
    bits = bits_of(care | sign)
    if len(bits) > _SHORT:
        return None
    weights = _walsh_weights(*_compress((care, value, sign), bits), len(bits))
    return [(sum(1 << bit for k, bit in enumerate(bits) if mask >> k & 1), weight) for mask, weight in weights]


@lru_cache(maxsize=4096)
def _walsh_weights(care: int, value: int, sign: int, num_bits: int) -> list[tuple[int, float]]:
    weights = walsh(np.array(list(_generators(care, value, sign, num_bits)))).tolist()
    return [(mask, weight) for mask, weight in enumerate(weights) if mask and weight]


def mean(care: int, value: int, sign: int) -> float:
    """Return the mean of g over all indices i."""
    if sign & ~care:
        return 0.0
    return (1 - 2 * ((value & sign).bit_count() & 1)) / (1 << care.bit_count())


def _is_odd_pi(angle: float) -> bool:
    return abs(angle / pi % 2 - 1) < 1e-15
