# SPDX-License-Identifier: Apache-2.0
"""Exact probabilities of classical registers, with the interface of qiskit-machine-learning's exact sampler."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from qiskit_fused.common.text import count_text
from qiskit_fused.compilation.measurements import integers_of

_LEAST = 1e-28  # a smaller probability is a rounding error of a zero amplitude of complex128, and is left out of dicts
_TOLERANCE = 1e-12  # `get_counts` takes a multiple of 2^-k for a probability that is at most this far away
_MOST_HALVINGS = 39  # every number is within 1e-12 of a multiple of 2^-39
_KEPT_LABELS = 12  # labels of registers of at most 12 bits are cached
_MOST_BITS = 30  # a dense array has at most 2^30 probabilities for each row


class ExactProbabilities:
    """The exact probabilities of the bits of a classical register, or of joined registers, in every row of a PUB.

    It stands where a sampler with shots gives a ``BitArray``, and has the methods of the exact sampler of
    qiskit-machine-learning. A register with unmeasured bits has its full width, and these bits are 0.

    Args:
        joint: float64 ``(*shape, 2^k)``, the probabilities of the bitstrings of k measured qubits.
        sources: for each bit, the least significant first, the position of its qubit among the k measured qubits; -1
            for a bit that is always 0.
    """

    __slots__ = ("_joint", "_sources")

    def __init__(self, joint: np.ndarray, sources: tuple[int, ...]):
        self._joint, self._sources = joint, sources

    def __repr__(self) -> str:
        return f"ExactProbabilities(<shape={self.shape}, num_bits={self.num_bits}>)"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the rows of the PUB."""
        return self._joint.shape[:-1]

    @property
    def ndim(self) -> int:
        """The number of dimensions of ``shape``."""
        return self._joint.ndim - 1

    @property
    def size(self) -> int:
        """The number of rows."""
        return self._joint[..., 0].size

    @property
    def num_bits(self) -> int:
        """The number of bits."""
        return len(self._sources)

    @property
    def num_shots(self) -> None:
        """None, because no shots were drawn."""
        return None

    @property
    def probabilities(self) -> np.ndarray:
        """The probabilities as a new array, float64 ``(*shape, 2^bits)``, whose last index is the integer of the bits.

        Raises:
            MemoryError: for more than 30 bits.
        """
        if self.num_bits > _MOST_BITS:
            raise MemoryError(
                f"the array of all bitstrings of {self.num_bits} bits has 2^{self.num_bits} probabilities for each "
                f"row; allowed: 2^{_MOST_BITS}, of {_MOST_BITS} bits. get_probabilities() returns the "
                "possible bitstrings alone."
            )
        marginal, integers = self._marginal()
        dense = np.zeros((*self.shape, 1 << self.num_bits))
        dense[..., integers] = marginal
        return dense

    def __getitem__(self, index: Any) -> ExactProbabilities:
        """Return the probabilities of some rows. The index is one of ``shape``, as of an array of NumPy."""
        try:
            return ExactProbabilities(self._joint[_rows(index)], self._sources)
        except IndexError:
            allowed = f"an index of rows of shape {self.shape}" if self.shape else "none, as in get_probabilities()"
            there = count_text(self.size, "row") if self.shape else "no rows"
            raise IndexError(f"row {index!r} is asked for, and the PUB has {there}; allowed: {allowed}.") from None

    def get_probabilities(self, loc: int | tuple[int, ...] | None = None) -> Any:
        """Return the probabilities of the bitstrings that are possible, by bitstring.

        Probabilities below 1e-28 are rounding errors, and are left out.

        Args:
            loc: the index of a row. None: the only row of a PUB without shape, or else all rows.

        Returns:
            A dict; or for all rows of a PUB with a shape, an array of this shape of dicts.
        """
        chosen = self if loc is None else self[loc]
        marginal, integers = chosen._marginal()
        labels = _labels_of(integers, self.num_bits)
        if chosen.shape == ():
            return _dict_of(marginal, labels)
        dicts = np.empty(chosen.shape, dtype=object)
        for index in np.ndindex(chosen.shape):
            dicts[index] = _dict_of(marginal[index], labels)
        return dicts

    def get_counts(self, loc: int | tuple[int, ...] | None = None, shots: int | None = None) -> dict[str, int]:
        """Return counts in proportion to the probabilities, as the exact sampler of qiskit-machine-learning does.

        The total of a row is ``shots``, or by default the smallest power of two for which all probabilities are
        multiples of 1/total, up to 1e-12. It is at most 2^39.

        Args:
            loc: the index of a row. None: the sum of the counts of all rows. If the PUB has no shape, there is no index
                to give, and an integer is the number of shots.
            shots: the total of a row; then counts are rounded one by one, and their sum may differ from it.
        """
        if self.shape == () and loc is not None and loc != ():
            loc, shots = None, loc if shots is None else shots
        marginal, integers = (self if loc is None else self[loc])._marginal()
        labels = _labels_of(integers, self.num_bits)
        counts = _counts_of(marginal.reshape(-1, len(integers)), shots)
        possible = np.flatnonzero((marginal.reshape(-1, len(integers)) >= _LEAST).any(axis=0))
        return {labels[index]: int(count) for index, count in zip(possible, counts.sum(axis=0)[possible].tolist())}

    def get_int_counts(self, loc: int | tuple[int, ...] | None = None, shots: int | None = None) -> dict[int, int]:
        """Return the counts of `get_counts` by the integers of the bits, as ``BitArray`` gives them with shots.

        >>> from qiskit import QuantumCircuit
        >>> from qiskit_fused import FusedSampler
        >>> circuit = QuantumCircuit(2)
        >>> _ = circuit.h(1)
        >>> circuit.measure_all()
        >>> FusedSampler(default_shots=None).run([circuit]).result()[0].data.meas.get_int_counts()
        {0: 1, 2: 1}

        Args:
            loc: see `get_counts`.
            shots: see `get_counts`.
        """
        return {int(label or "0", 2): count for label, count in self.get_counts(loc, shots).items()}

    @staticmethod
    def join(parts: Sequence[ExactProbabilities]) -> ExactProbabilities:
        """Return the joint probabilities of several registers of a PUB; the first register has the lowest bits."""
        return ExactProbabilities(parts[0]._joint, sum([part._sources for part in parts], ()))

    def _marginal(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the probabilities (*shape, 2^m) of the m qubits that decide the bits, and the integers of the bits."""
        num_measured = (self._joint.shape[-1]).bit_length() - 1
        seen = sorted(set(self._sources) - {-1})
        marginal = self._joint
        if len(seen) < num_measured:
            # Axis ndim + j of the split array is measured qubit num_measured - 1 - j.
            split = marginal.reshape(*self.shape, *[2] * num_measured)
            left_out = [self.ndim + num_measured - 1 - qubit for qubit in range(num_measured) if qubit not in seen]
            marginal = split.sum(axis=tuple(left_out)).reshape(*self.shape, 1 << len(seen))
        sources = [seen.index(source) if source >= 0 else -1 for source in self._sources]
        return marginal, integers_of(sources, len(seen))


def _rows(index: Any) -> Any:
    """Return the index of the joint array for an index of its rows: the last axis, of bitstrings, is kept."""
    return (*index, slice(None)) if isinstance(index, tuple) else (index, slice(None))


def _dict_of(probabilities: np.ndarray, labels: list[str]) -> dict[str, float]:
    possible = np.flatnonzero(probabilities >= _LEAST)
    return dict(zip([labels[index] for index in possible.tolist()], probabilities[possible].tolist()))


def _labels_of(integers: np.ndarray, num_bits: int) -> list[str]:
    """Return the bitstring of each integer."""
    if num_bits <= _KEPT_LABELS and len(integers) == 1 << num_bits:
        labels = _all_labels(num_bits)
        return [labels[integer] for integer in integers.tolist()]
    return [format(integer, f"0{num_bits}b") if num_bits else "" for integer in integers.tolist()]


@cache
def _all_labels(num_bits: int) -> list[str]:
    return [format(integer, f"0{num_bits}b") if num_bits else "" for integer in range(1 << num_bits)]


def _counts_of(probabilities: np.ndarray, shots: int | None) -> np.ndarray:
    """Return the counts (R, N), int64, of rows of probabilities; see `ExactProbabilities.get_counts`."""
    if shots is not None:
        return np.rint(probabilities * int(shots)).astype(np.int64)
    # If all probabilities of a row are near multiples of 2^-k, they are near multiples of 2^-(k + 1) too: bisection
    # finds the smallest k.
    low, high = np.zeros(len(probabilities), np.int64), np.full(len(probabilities), _MOST_HALVINGS, np.int64)
    while (low < high).any():
        middle = (low + high) // 2
        scale = np.ldexp(1.0, middle)[:, None]
        near = (np.abs(probabilities - np.rint(probabilities * scale) / scale) <= _TOLERANCE).all(axis=1)
        low, high = np.where(near, low, middle + 1), np.where(near, middle, high)
    total = np.ldexp(1.0, low).astype(np.int64)
    counts = np.rint(probabilities * total[:, None]).astype(np.int64)
    if counts.size:
        # The most likely bitstring takes the difference, so that the counts of a row have the sum total.
        counts[np.arange(len(counts)), probabilities.argmax(axis=1)] += total - counts.sum(axis=1)
    return counts
