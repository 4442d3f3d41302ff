# SPDX-License-Identifier: Apache-2.0
"""Observables as data: sums of sparse terms, and their bit masks on the qubits of an engine.

A term is a coefficient times one letter per qubit: a Pauli ``X Y Z`` or a projector onto an eigenstate of one,
``0 1`` (of Z), ``+ -`` (of X), ``r l`` (of Y). Letters are stored as in Qiskit's ``SparseObservable``: bit 1 says the
letter's Pauli has an X part, bit 0 a Z part, bit 3 (2) makes it the projector on the +1 (-1) eigenstate.

An engine needs flat bit masks. With ``i`` an amplitude index, the terms of one observable act as

    (O psi)[i] = sum_t c_t [(i & care_t) == value_t] (-1)^popcount(i & z_t) psi[i ^ x_t],

``c_t`` the coefficient times ``(-i)^(number of Y)``, since ``(Y psi)[i] = -i (-1)^i psi[i ^ 1]``. Projectors 0 and 1
stay diagonal (``care``, ``value``); ``+ - r l`` are expanded as ``(1 +- P)/2``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from weakref import ref

import numpy as np

from qiskit_fused.common.caches import BoundedCache, array_bytes
from qiskit_fused.common.forks import cached_property

Z, X, Y = 0b0001, 0b0010, 0b0011
ZERO, ONE, PLUS, MINUS, RIGHT, LEFT = 0b1001, 0b0101, 0b1010, 0b0110, 0b1011, 0b0111

_NAMES = {Z: "Z", X: "X", Y: "Y", ZERO: "0_", ONE: "1_", PLUS: "+_", MINUS: "-_", RIGHT: "r_", LEFT: "l_"}

_MOST_NAMES = 8  # a term with more letters is written with dots

MAX_EXPANDED_TERMS = 1 << 24  # bound of the terms after expanding the letters + - r l: 1 GiB of masks
_MAX_MASK_BYTES = 64 << 20  # bound of all cached masks in bytes, with the arrays that the CPU engine makes of them
# Products of amplitudes and coefficients of 2**-50 to 2**50 are in float32's range, 2**-126 to 2**127.
_MAX_EXPONENT = 50


@dataclass(frozen=True, eq=False)
class TermMasks:
    """The M terms of K observables on engine bits, sorted by observable, then x, care, value, z.

    No two terms have the same masks and observable, and no coefficient is 0.

    Attributes:
        num_observables: K; an observable without terms is zero.
        observable: int32 (M,), the observable of each term.
        x: uint64 (M,), the bits that the term flips.
        z: uint64 (M,), the bits whose parity is the sign, taken at the output index.
        care: uint64 (M,), the bits that a projector reads.
        value: uint64 (M,), the bits of care that must be 1.
        real: float64 (M,), real part of the coefficient times (-i)^(number of Y).
        imag: float64 (M,), imaginary part of the coefficient times (-i)^(number of Y).
    """

    num_observables: int
    observable: np.ndarray
    x: np.ndarray
    z: np.ndarray
    care: np.ndarray
    value: np.ndarray
    real: np.ndarray
    imag: np.ndarray

    def __len__(self) -> int:
        return len(self.observable)

    @property
    def outcome(self) -> np.ndarray | None:
        """The outcome of each amplitude, for the projectors onto outcomes (see `outcomes`); None for sums of terms."""
        return None

    @property
    def num_bytes(self) -> int:
        """Bytes of the masks, and of the arrays that engines make of them."""
        return 2 * array_bytes(self)


_RESTRICTIONS: BoundedCache[TermMasks] = BoundedCache(_MAX_MASK_BYTES)


class Observables:
    """K observables on the qubits of a circuit, as arrays of letters.

    Args:
        num_qubits: number of qubits of the circuit.
        num_observables: K.
        observable: int (T,), the observable of each of the T terms, ascending.
        coefficients: complex (T,).
        boundaries: int (T + 1,), term ``t`` owns the letters ``boundaries[t]:boundaries[t + 1]``.
        letters: uint8 (L,), the letters of all terms.
        qubits: int (L,), the circuit qubit of each letter. A term has at most one letter on a qubit.
    """

    def __init__(
        self,
        num_qubits: int,
        num_observables: int,
        observable: Any,
        coefficients: Any,
        boundaries: Any,
        letters: Any,
        qubits: Any,
    ):
        self.num_qubits = int(num_qubits)
        self.num_observables = int(num_observables)
        self.observable = np.ascontiguousarray(observable, dtype=np.int32)
        self.coefficients = np.ascontiguousarray(coefficients, dtype=np.complex128)
        self.boundaries = np.ascontiguousarray(boundaries, dtype=np.int64)
        self.letters = np.ascontiguousarray(letters, dtype=np.uint8)
        self.qubits = np.ascontiguousarray(qubits, dtype=np.int64)
        self._support: np.ndarray | None = None
        # The last wires and masks. A training loop finds them by the identity of the wires, without hashing. The cache
        # _RESTRICTIONS finds them by the content of the wires, also after the circuit was compiled again.
        self._latest: tuple[np.ndarray, ref[TermMasks]] | None = None

    def __len__(self) -> int:
        return self.num_observables

    @property
    def have_terms(self) -> bool:
        """Whether the observables are sums of terms; False for the projectors onto outcomes (see `outcomes`)."""
        return True

    @property
    def sum_to_one(self) -> bool:
        """Whether the observables add up to the identity, so that the values of each row add up to 1."""
        return False

    @property
    def not_zero(self) -> np.ndarray | None:
        """Int (R,), ascending, the observables that are not the operator 0; None: all observables."""
        return None

    @property
    def num_terms(self) -> int:
        """T, the number of terms of all observables, before equal terms are merged."""
        return len(self.coefficients)

    @staticmethod
    def concatenate(parts: Sequence[Observables]) -> Observables:
        """Join observables on the same qubits in the order of the parts."""
        if len(parts) == 1:
            return parts[0]
        numbers = np.cumsum([0] + [part.num_observables for part in parts])
        letters = np.cumsum([0] + [len(part.letters) for part in parts])
        return Observables(
            parts[0].num_qubits,
            numbers[-1],
            np.concatenate([part.observable + first for part, first in zip(parts, numbers)]),
            np.concatenate([part.coefficients for part in parts]),
            np.concatenate([[0]] + [part.boundaries[1:] + first for part, first in zip(parts, letters)]),
            np.concatenate([part.letters for part in parts]),
            np.concatenate([part.qubits for part in parts]),
        )

    def take(self, terms: np.ndarray, observables: np.ndarray) -> Observables:
        """Return some terms of some observables, in their order.

        Args:
            terms: int, ascending, the numbers of the terms to keep, all of them terms of ``observables``.
            observables: int, ascending, the numbers of the observables to keep.
        """
        sizes = np.diff(self.boundaries)[terms]
        boundaries = np.concatenate([[0], np.cumsum(sizes)])
        letters = np.arange(boundaries[-1]) + np.repeat(self.boundaries[terms] - boundaries[:-1], sizes)
        return Observables(
            self.num_qubits,
            len(observables),
            np.searchsorted(observables, self.observable[terms]),
            self.coefficients[terms],
            boundaries,
            self.letters[letters],
            self.qubits[letters],
        )

    @cached_property
    def scaled(self) -> tuple[Observables, np.ndarray] | None:
        """Observables with coefficients in the range of float32, and exponents int64 (K,).

        Observable k is ``2**exponents[k]`` times the scaled observable k. A power of two changes no digit of a
        coefficient. None if all coefficients are already in the range.
        """
        largest = np.zeros(self.num_observables)
        parts = np.maximum(np.abs(self.coefficients.real), np.abs(self.coefficients.imag))
        np.maximum.at(largest, self.observable, parts)
        exponents = np.where(largest > 0, np.frexp(largest)[1], 0).astype(np.int64)
        exponents[np.abs(exponents) <= _MAX_EXPONENT] = 0
        if not exponents.any():
            return None
        of_term = -exponents[self.observable]
        coefficients = np.empty_like(self.coefficients)
        coefficients.real = np.ldexp(self.coefficients.real, of_term)
        coefficients.imag = np.ldexp(self.coefficients.imag, of_term)
        parts_of_terms = (self.observable, coefficients, self.boundaries, self.letters, self.qubits)
        return Observables(self.num_qubits, self.num_observables, *parts_of_terms), exponents

    @cached_property
    def structure(self) -> bytes:
        """A SHA-256 digest of all arrays but the coefficients."""
        parts = (self.observable, self.boundaries, self.letters, self.qubits)
        numbers = f"{self.num_qubits} {self.num_observables} ".encode()
        return sha256(numbers + b"".join(part.tobytes() for part in parts)).digest()

    def term_text(self, term: int) -> str:
        """Write a term as its letters on qubits, "Z3 Z4". A long term is cut: its middle becomes three dots."""
        span = slice(self.boundaries[term], self.boundaries[term + 1])
        names = [f"{_NAMES[letter]}{qubit}" for letter, qubit in zip(self.letters[span].tolist(), self.qubits[span])]
        if len(names) > _MOST_NAMES:
            names[_MOST_NAMES - 2 : -1] = ["..."]
        return " ".join(names) or "1"

    def support(self, num_circuit_qubits: int) -> np.ndarray:
        """Return how the observables together act on each circuit qubit.

        Returns:
            uint8 (num_circuit_qubits,): 0 if no letter acts on the qubit, 1 if only the diagonal letters Z, 0, 1 act on
            it, else 2.
        """
        if self._support is None or len(self._support) != num_circuit_qubits:
            support = self._find_support(num_circuit_qubits)
            support.setflags(write=False)
            self._support = support
        return self._support

    def _find_support(self, num_circuit_qubits: int) -> np.ndarray:
        support = np.zeros(num_circuit_qubits, dtype=np.uint8)
        support[self.qubits] = 1
        support[self.qubits[(self.letters & X) != 0]] = 2
        return support

    def restrict(self, wires: np.ndarray) -> TermMasks:
        """Write the terms as masks on engine bits.

        Args:
            wires: int (num_qubits,), the engine bit of each circuit qubit; -1 for a qubit that stays in |0>. Letters on
                such a qubit are replaced by their expectation values: ``Z 0`` by 1, ``X Y 1`` by 0, ``+ - r l`` by 1/2.

        Returns:
            The masks. Calls with equal wires return the same object while the cache holds it.

        Raises:
            ValueError: if the letters ``+ - r l`` expand to more than `MAX_EXPANDED_TERMS` terms.
        """
        latest = self._latest
        masks = latest[1]() if latest is not None and latest[0] is wires else None
        if masks is None:
            key = id(self), wires.tobytes()
            masks = _RESTRICTIONS.get(key)
            if masks is None:
                masks = self._restrict(np.asarray(wires, dtype=np.int64))
                masks = _RESTRICTIONS.put(key, masks, masks.num_bytes, self)
            self._latest = (wires, ref(masks))
        return masks

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_latest": None}

    def _restrict(self, wires: np.ndarray) -> TermMasks:
        term: np.ndarray = np.repeat(np.arange(self.num_terms), np.diff(self.boundaries))
        coefficients = self.coefficients.copy()
        letters: np.ndarray = self.letters
        bits: np.ndarray = wires[self.qubits]
        mixed = ((letters & X) != 0) & (letters > Y)  # the letters + - r l

        idle = bits < 0
        vanishing = idle & ~mixed & (letters != Z) & (letters != ZERO)
        coefficients[term[vanishing]] = 0.0
        np.multiply.at(coefficients, term[idle & mixed], 0.5)

        term, letters, bits, mixed = (a[~idle] for a in (term, letters, bits, mixed))
        bit = np.uint64(1) << bits.astype(np.uint64)
        masks = {name: np.zeros(self.num_terms, dtype=np.uint64) for name in ("x", "z", "care", "value")}
        for name, chosen in (
            ("x", (letters == X) | (letters == Y)),
            ("z", (letters == Z) | (letters == Y)),
            ("care", (letters == ZERO) | (letters == ONE)),
            ("value", letters == ONE),
        ):
            np.bitwise_or.at(masks[name], term[chosen], bit[chosen])
        np.multiply.at(coefficients, term[letters == Y], -1j)

        alive = coefficients != 0
        rows = _Rows(
            term=np.flatnonzero(alive),
            coefficient=coefficients[alive],
            **{name: mask[alive] for name, mask in masks.items()},
        )
        rows = _expand(rows, term[mixed], letters[mixed], bit[mixed], self.num_terms)
        return _merge(rows, self.observable[rows.term], self.num_observables)


@dataclass
class _Rows:
    term: np.ndarray
    coefficient: np.ndarray
    x: np.ndarray
    z: np.ndarray
    care: np.ndarray
    value: np.ndarray


def _expand(rows: _Rows, term: np.ndarray, letters: np.ndarray, bit: np.ndarray, num_terms: int) -> _Rows:
    """Replace each letter + - r l by (1 +- P)/2. Pass j doubles the rows of terms that have a j-th such letter."""
    if not len(term):
        return rows
    counts = np.bincount(term, minlength=num_terms)
    total = np.sum(2.0 ** counts[rows.term])
    if total > MAX_EXPANDED_TERMS:
        raise ValueError(
            f"the letters '+', '-', 'r', 'l' of the observables expand to {total:.3g} Pauli terms, the limit is "
            f"{MAX_EXPANDED_TERMS}; use fewer of these letters per term, or '0' and '1' after a basis change."
        )
    # letters are stored term by term, so the j-th letter of a term is j places after its first letter
    ordinal = np.arange(len(term)) - (np.cumsum(counts) - counts)[term]
    for j in range(counts.max()):
        letter = np.full(num_terms, -1)
        letter[term[ordinal == j]] = np.flatnonzero(ordinal == j)
        which = letter[rows.term]
        doubled = which >= 0
        which = which[doubled]
        pauli, sign = letters[which] & Y, np.where(letters[which] & 0b1000, 0.5, -0.5)
        rows.coefficient[doubled] *= 0.5
        flip, parity = (np.where(pauli & part, bit[which], np.uint64(0)) for part in (X, Z))
        rows = _Rows(
            term=np.concatenate([rows.term, rows.term[doubled]]),
            coefficient=np.concatenate(
                [rows.coefficient, rows.coefficient[doubled] * 2.0 * sign * np.where(pauli == Y, -1j, 1.0)]
            ),
            x=np.concatenate([rows.x, rows.x[doubled] | flip]),
            z=np.concatenate([rows.z, rows.z[doubled] | parity]),
            care=np.concatenate([rows.care, rows.care[doubled]]),
            value=np.concatenate([rows.value, rows.value[doubled]]),
        )
    return rows


def _merge(rows: _Rows, observable: np.ndarray, num_observables: int) -> TermMasks:
    """Sort the rows, add up rows with equal masks and observable, and drop sums that are 0."""
    keys = [rows.z, rows.value, rows.care, rows.x, observable]
    order = np.lexsort(keys)
    keys = [key[order] for key in keys]
    first = np.ones(len(order), dtype=bool)
    if len(order):
        first[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    group_begins = np.flatnonzero(first)
    coefficient = rows.coefficient[order]
    if len(group_begins) < len(order):
        coefficient = np.add.reduceat(coefficient, group_begins)
    is_nonzero = coefficient != 0
    z, value, care, x, observable = (key[group_begins][is_nonzero] for key in keys)
    masks = TermMasks(
        num_observables=num_observables,
        observable=observable.astype(np.int32),
        x=x,
        z=z,
        care=care,
        value=value,
        real=np.ascontiguousarray(coefficient.real[is_nonzero]),
        imag=np.ascontiguousarray(coefficient.imag[is_nonzero]),
    )
    for array in (masks.observable, masks.x, masks.z, masks.care, masks.value, masks.real, masks.imag):
        array.setflags(write=False)
    return masks


def merged_masks(
    num_observables: int, observable: np.ndarray, coefficient: np.ndarray, **masks: np.ndarray
) -> TermMasks:
    """Return terms in any order as `TermMasks`.

    Args:
        num_observables: K.
        observable: int (M,), the observable of each term.
        coefficient: complex128 (M,), with the factor (-i)^(number of Y).
        masks: uint64 (M,), the masks x, z, care and value of each term.
    """
    return _merge(_Rows(np.arange(len(observable)), coefficient, **masks), observable, num_observables)


class GivenTerms(Observables):
    """Observables whose terms are given on the bits of a fused program."""

    def __init__(self, terms: TermMasks):
        super().__init__(0, terms.num_observables, [], [], [0], [], [])
        self._terms = terms

    def restrict(self, wires: np.ndarray) -> TermMasks:
        """Return the given terms."""
        return self._terms
