# SPDX-License-Identifier: Apache-2.0
"""Values of observables, and their cotangents, of a state whose amplitudes are on several ranks.

A term maps amplitude ``i ^ x`` to amplitude i. Terms that flip no global qubit need the amplitudes of one rank, and the
engine applies them. The other terms need the amplitudes of the rank whose number is this rank's number with some bits
flipped. All terms that flip the same global qubits share one exchange of the whole state, in pieces.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qiskit_fused.common.array_modules import array_module
from qiskit_fused.distributed.communicator import Communicator, exchange_amplitudes
from qiskit_fused.distributed.rank_program import RankMasks, empty_program, move_bits
from qiskit_fused.distributed.sweeps import Sweeps
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.program.observables import Observables, TermMasks, merged_masks

PIECE_BITS = 20
"""Exchanged pieces have at most 2^20 amplitudes, 16 MiB: a larger piece is not faster, and takes more memory."""


class RankObservables:
    """The terms of K observables on one rank.

    Args:
        fused: the fused program of the whole circuit.
        operators: the observables.
        places: the places of the qubits at the end of the circuit (see `Segment`).
        num_local: n - g.
        rank: the number of the rank.
    """

    def __init__(self, fused: FusedProgram, operators: Observables, places: np.ndarray, num_local: int, rank: int):
        terms = operators.restrict(fused.wires)
        self.num_observables, self.num_local, self.rank = terms.num_observables, num_local, rank
        flips, signs, care, value = (move_bits(part, places) for part in (terms.x, terms.z, terms.care, terms.value))
        masks = RankMasks.of(care, value, signs, num_local, rank)
        kept = masks.kept
        self._observable = terms.observable[kept]
        self._coefficient = masks.factor * (terms.real[kept] + 1j * terms.imag[kept])
        self._masks = {
            "x": flips[kept] & np.uint64((1 << num_local) - 1),
            "z": masks.sign,
            "care": masks.care,
            "value": masks.value,
        }
        # Every rank takes part in the exchanges of all patterns, also if its own terms of a pattern are all 0.
        patterns = flips >> np.uint64(num_local)
        self._pattern = patterns[kept]
        self.patterns = [int(pattern) for pattern in np.unique(patterns) if pattern]
        self._local = self._terms_of(0)
        self._across = {pattern: self._terms_of(pattern) for pattern in self.patterns}
        self._empty = empty_program(fused.program, num_local)

    def _terms_of(self, pattern: int) -> TermMasks:
        """Return the terms that flip the bits of a pattern in the number of the rank."""
        chosen = np.flatnonzero(self._pattern == pattern)
        masks = {name: mask[chosen] for name, mask in self._masks.items()}
        return merged_masks(self.num_observables, self._observable[chosen], self._coefficient[chosen], **masks)

    def values(
        self,
        state: Any,
        communicator: Communicator,
        sweeps: Sweeps,
        weights: np.ndarray | None = None,
        cotangent: Any = None,
    ) -> np.ndarray:
        """Return this rank's part of the values, float64 (K,): the values are the sums over all ranks.

        Args:
            state: (1, 2**num_local), the amplitudes of this rank.
            communicator: connects the ranks.
            sweeps: the local engine.
            weights: float64 (K,); None requests no cotangent.
            cotangent: (1, 2**num_local), receives ``2 sum_k weights[k] O_k psi``. None without weights.
        """
        values = sweeps.observe(self._empty, self._local, state, weights, cotangent)
        for pattern, terms in self._across.items():
            partner = self.rank ^ pattern
            size = 1 << min(self.num_local, PIECE_BITS)
            for begin in range(0, 1 << self.num_local, size):
                piece = state[0, begin : begin + size]
                received = exchange_amplitudes(communicator, partner, piece, sweeps.dtype, sweeps.xp)
                _add_piece(terms, begin, received, state[0], values, weights, cotangent)
        return values


def _add_piece(
    terms: TermMasks,
    begin: int,
    received: Any,
    state: Any,
    values: np.ndarray,
    weights: np.ndarray | None,
    cotangent: Any,
) -> None:
    """Add the part of a piece of the partner's amplitudes to the values and to the cotangent of this rank."""
    size, xp = len(received), array_module(received)
    starts = np.flatnonzero((np.diff(terms.observable) != 0) | (np.diff(terms.x.astype(np.int64)) != 0)) + 1
    for group in np.split(np.arange(len(terms)), starts) if len(terms) else []:
        k, flip = int(terms.observable[group[0]]), int(terms.x[group[0]])
        # The piece holds the amplitudes i ^ x of the indices i of another block.
        inside = flip & (size - 1)
        block = slice(begin ^ flip ^ inside, (begin ^ flip ^ inside) + size)
        mapped = received[xp.arange(size) ^ inside] if inside else received
        mapped = xp.asarray(_diagonal(terms, group, block)) * mapped
        values[k] += float((state[block].conj() * mapped).real.sum(dtype=np.float64))  # CuPy's vdot would need cuBLAS
        if weights is not None and cotangent is not None:
            cotangent[0, block] += (2 * weights[k] * mapped).astype(cotangent.dtype)


def _diagonal(terms: TermMasks, group: np.ndarray, block: slice) -> np.ndarray | complex:
    """Return the factors of terms with equal x at the indices of a block: an array, or one number for all indices."""
    coefficients = terms.real[group] + 1j * terms.imag[group]
    if not (terms.z[group].any() or terms.care[group].any()):
        return complex(coefficients.sum())
    indices = np.arange(block.start, block.stop, dtype=np.uint64)
    diagonal = np.zeros(len(indices), dtype=np.complex128)
    for term, coefficient in zip(group.tolist(), coefficients.tolist()):
        sign = 1.0 - 2.0 * (np.bitwise_count(indices & terms.z[term]) & 1)
        diagonal += coefficient * sign * (indices & terms.care[term] == terms.value[term])
    return diagonal
