# SPDX-License-Identifier: Apache-2.0
"""Shift rules: derivatives with respect to a column of a program as sums of results at shifted values of the column.

A column t that is the angle of one op makes the op ``exp(-i k t/2 g)``, where k is the coefficient of the angle and g
is a diagonal or a Pauli operator with eigenvalues in {-1, 0, 1}. So final states and expectation values are
trigonometric polynomials of t with few frequencies, and their derivatives are exact sums of few shifted results:

* a rotation (eigenvalues -1 and 1): ``dpsi/dt = k/2 psi(t + pi/k)``, and ``dE/dt = k/2 (E(t + pi/2k) - E(t - pi/2k))``;
* a projector (eigenvalues 0 and 1, or 0 and -1): `_projector_rule`, and the rule of E for the frequency k/2;
* eigenvalues -1, 0 and 1, or two rotations with the same k: the rules of two frequencies w and 2w.

Any other column (several ops, a rotation vector, an amplitude of the start state) has central differences of fourth
order. The frequencies of E are at most the *bandwidth*, the sum of the absolute values of all k. The step h is a small
number divided by the bandwidth, so the error of a derivative is at most ``(h bandwidth)^4 / 30`` times bandwidth times
the largest absolute value of E, beside rounding errors.

Source: parameter-shift rules for several frequencies, arXiv:2107.12390.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from qiskit_fused.program.program import OpKind, Program

UNUSED, ROTATION, PROJECTOR, THREE_VALUES, OTHER = range(5)

# Steps of central differences times the bandwidth. The truncation error grows with the step, and the rounding error
# falls; at these steps, both are below 1e-11 (complex128) and 1e-5 (complex64), relative to bandwidth times max |E|.
_STEPS = {"complex128": 4e-3, "complex64": 1e-1}

_SQRT2 = math.sqrt(2.0)


def central_differences(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Return shifts (4,) and weights (4,) of the derivative along a direction in which the bandwidth is 1.

    Args:
        dtype: the number format of the amplitudes.
    """
    step = _STEPS[dtype]
    return step * np.array([1.0, -1.0, 2.0, -2.0]), np.array([8.0, -8.0, -1.0, 1.0]) / (12 * step)


class Segment(NamedTuple):
    """The shifted rows of n columns that have rules of J shifts each.

    Attributes:
        places: int (n,), the positions of the columns in the list of requested columns.
        shifts: float64 (J, n).
        weights: (J, n), real or complex.
        base: complex128 (n,), the weights of the result without a shift, or None if all are 0.
    """

    places: np.ndarray
    shifts: np.ndarray
    weights: np.ndarray
    base: np.ndarray | None = None


class ColumnRules(NamedTuple):
    """How final states depend on the C columns of a program.

    Attributes:
        kind: int8 (C,), one of `UNUSED`, `ROTATION`, `PROJECTOR`, `THREE_VALUES` and `OTHER`.
        frequency: float64 (C,), the least frequency w > 0 of expectation values, of a kind that has exact rules.
        coefficient: float64 (C,), k of the op of a rotation or projector; for a projector, times its eigenvalue.
        mean: float64 (C,), the mean of the eigenvalues of a projector, 0 otherwise. Engines leave this part of the
            generator out (see `global_phase`).
        bandwidth: float64 (C,), the sum of the absolute values of k of all ops of the column.
    """

    kind: np.ndarray
    frequency: np.ndarray
    coefficient: np.ndarray
    mean: np.ndarray
    bandwidth: np.ndarray

    @classmethod
    def of(cls, program: Program) -> ColumnRules:
        """Return the rules of a program."""
        ops, count = program.ops, program.num_columns
        used = np.flatnonzero((ops.column >= 0) & ((ops.kind != OpKind.RV) & (ops.coefficient != 0)))
        column, factor = ops.column[used], ops.coefficient[used]
        care, sign, value = ops.care[used], ops.sign[used], ops.value[used]
        is_term = ops.kind[used] == OpKind.TERM
        is_pauli = ~is_term | (care == 0)
        is_projector = ~is_pauli & ((sign & ~care) == 0)
        bandwidth = np.bincount(column, np.abs(factor), count).astype(np.float64)
        num_ops = np.bincount(column, minlength=count)
        num_paulis, num_projectors = (np.bincount(column[part], minlength=count) for part in (is_pauli, is_projector))
        largest = np.zeros(count)
        np.maximum.at(largest, column, np.abs(factor))
        is_equal = np.isclose(largest * num_ops, bandwidth, rtol=1e-14, atol=0.0)
        kind = np.full(count, OTHER, np.int8)
        kind[num_ops == 0] = UNUSED
        single = num_ops == 1
        kind[single] = THREE_VALUES
        kind[single & (num_projectors == 1)] = PROJECTOR
        kind[single & (num_paulis == 1)] = ROTATION
        is_pair = is_equal & (num_paulis == 2) & (num_ops == 2)
        kind[is_pair] = THREE_VALUES
        frequency = np.where(is_pair | (kind == ROTATION), largest, largest / 2)
        eigenvalue = np.where(is_projector, 1.0 - 2.0 * _odd(value & sign), 1.0)
        coefficient, mean = np.zeros(count), np.zeros(count)
        coefficient[column] = factor * eigenvalue
        mean[column] = np.where(is_projector, np.ldexp(1.0, -_num_bits(care)), 0.0)
        for first in ops.column[(ops.kind == OpKind.RV) & (ops.column >= 0)].tolist():
            kind[first : first + 3] = OTHER
            bandwidth[first : first + 3] += 1.0
        for encoding in program.encodings:
            kind[encoding.column[encoding.column >= 0]] = OTHER
        return cls(kind, frequency, coefficient, mean, bandwidth)

    def of_values(self, columns: np.ndarray, bandwidth: np.ndarray, dtype: str) -> list[Segment]:
        """Return the rules of expectation values, and of their gradients.

        Args:
            columns: int (N,), the columns.
            bandwidth: float64 (N,), the bandwidth of each column, including the bandwidth of amplitudes.
            dtype: the number format of the amplitudes.
        """
        kind, frequency, segments = self.kind[columns], self.frequency[columns], []
        if len(pairs := np.flatnonzero((kind == ROTATION) | (kind == PROJECTOR))):
            segments.append(_pair_rule(pairs, frequency[pairs]))
        if len(fours := np.flatnonzero(kind == THREE_VALUES)):
            unit = np.array([1.0, -1.0, 3.0, -3.0])[:, None] * math.pi / 2
            weights = np.array([_SQRT2 + 1, -_SQRT2 - 1, 1 - _SQRT2, _SQRT2 - 1])[:, None] / (4 * _SQRT2)
            segments.append(Segment(fours, unit / (2 * frequency[fours]), weights * 2 * frequency[fours]))
        if len(others := np.flatnonzero(kind == OTHER)):
            segments.append(_difference_rule(others, bandwidth[others], dtype))
        return segments

    def of_states(self, columns: np.ndarray, bandwidth: np.ndarray, dtype: str) -> list[Segment]:
        """Return the rules of final states without their global phases. The arguments are those of `of_values`."""
        kind, factor, segments = self.kind[columns], self.coefficient[columns], []
        if len(rotations := np.flatnonzero(kind == ROTATION)):
            k = factor[rotations][None]
            segments.append(Segment(rotations, math.pi / k, k / 2))
        if len(projectors := np.flatnonzero(kind == PROJECTOR)):
            segments.append(_projector_rule(projectors, factor[projectors], self.mean[columns[projectors]]))
        if len(pairs := np.flatnonzero(kind == THREE_VALUES)):
            segments.append(_pair_rule(pairs, self.frequency[columns[pairs]]))
        if len(others := np.flatnonzero(kind == OTHER)):
            segments.append(_difference_rule(others, bandwidth[others], dtype))
        return segments


def _difference_rule(places: np.ndarray, bandwidth: np.ndarray, dtype: str) -> Segment:
    """Return the central differences of columns without an exact rule."""
    shifts, weights = central_differences(dtype)
    return Segment(places, shifts[:, None] / bandwidth, weights[:, None] * bandwidth)


def _pair_rule(places: np.ndarray, frequency: np.ndarray) -> Segment:
    """Return the rule ``f' = w/2 (f(t + pi/2w) - f(t - pi/2w))`` of functions with the frequencies -w, 0 and w."""
    signs = np.array([1.0, -1.0])[:, None]
    return Segment(places, signs * math.pi / (2 * frequency), signs * frequency / 2)


def _projector_rule(places: np.ndarray, k: np.ndarray, mean: np.ndarray) -> Segment:
    """Return the rule of the op ``exp(-i k t/2 (g - mean))`` with a projector g.

    A shift by T = 2 pi/k makes the op ``exp(i pi mean) (1 - 2 g)``, which gives g psi.
    """
    weights = 0.25j * k * np.exp(-1j * math.pi * mean)
    return Segment(places, (2 * math.pi / k)[None], weights[None], 1j * k * (mean / 2 - 0.25))


def _num_bits(masks: np.ndarray) -> np.ndarray:
    """Return the numbers of bits that are set, int64."""
    if masks.dtype == object:
        return np.array([mask.bit_count() for mask in masks], dtype=np.int64)
    counts: np.ndarray = np.bitwise_count(masks).astype(np.int64)
    return counts


def _odd(masks: np.ndarray) -> np.ndarray:
    """Return 1 for masks with an odd number of bits, else 0."""
    return _num_bits(masks) & 1
