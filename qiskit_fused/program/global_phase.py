# SPDX-License-Identifier: Apache-2.0
"""The global phase between a circuit and its traceless normal form.

Engines simulate *traceless* gates: leaves of determinant 1, and terms ``exp(-i angle/2 (g - mean(g)))``, whose
generators have no trace. The state of the circuit is ``exp(i phi)`` times their state. The phase phi is a sum of
multiples of columns, and of expressions that no gate has as an angle. It has four sources:

* the global phases of the circuit and of the definitions of its instructions;
* the phases that lowering left out, such as theta/2 of ``P(theta) = exp(i theta/2) RZ(theta)``;
* a phase of pi where pairs of CX were left out whose signs differ (see `phase_gadgets.MergedOps`);
* the means of terms: a term with the angle theta has the phase ``-theta/2 mean(g)``.

The first two belong to the program, and the last two to its fused form (see `FusedProgram.phase_of_gates`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from qiskit_fused import _cpu
from qiskit_fused.program.expression_columns import CompiledExpressions


class PhaseSum(NamedTuple):
    """The phase ``constant + sum_k (coefficient[k] columns[column[k]] + offset[k])``, in radians.

    Each summand is the angle of a gate times a power of 2. It is computed as the gate computes its angle, so both have
    the same rounding error.

    Attributes:
        column: int64 (K,), ascending.
        coefficient: float64 (K,), radians per unit of the column, not 0.
        offset: float64 (K,), radians.
        constant: radians between -pi and pi.
    """

    column: np.ndarray
    coefficient: np.ndarray
    offset: np.ndarray
    constant: float

    @classmethod
    def of(cls, column: np.ndarray, coefficient: np.ndarray, offset: np.ndarray) -> PhaseSum:
        """Return the sum of the angles ``coefficient * columns[column] + offset``, whose column is -1 for constants.

        Angles of gates that differ by powers of 2 become one multiple of one angle. The product of an angle and a
        multiple such as 5 would be rounded, so the multiple is cut into powers of 2 again.
        """
        varies = (column >= 0) & (coefficient != 0)  # the generators of most terms have no trace
        constant = _rest_of_turns(offset[~varies])
        mantissa, exponent = np.frexp(coefficient[varies])
        powers = np.copysign(np.ldexp(0.5, exponent), mantissa)
        angles = np.stack([offset[varies] / powers, 2 * np.abs(mantissa), column[varies]])
        order = np.lexsort(angles)
        angles, is_new = angles[:, order], np.ones(len(order), bool)
        is_new[1:] = (angles[:, 1:] != angles[:, :-1]).any(axis=0)
        places, powers = _powers_of_2(np.bincount(np.cumsum(is_new) - 1, powers[order]))
        offset, mantissa, column = angles[:, is_new][:, places]
        return cls(column.astype(np.int64), mantissa * powers, offset * powers, constant)

    @classmethod
    def of_angles(cls, angles: Iterable[tuple[int, float, float]]) -> PhaseSum:
        """Return the sum of angles (column, coefficient, offset)."""
        column, coefficient, offset = np.array([*angles], dtype=np.float64).reshape(-1, 3).T
        return cls.of(column.astype(np.int64), coefficient, offset)

    def plus(self, other: PhaseSum) -> PhaseSum:
        """Return the sum of two phases."""
        return PhaseSum.of(*map(np.concatenate, zip(self[:3], other[:3]))).plus_constant(self.constant + other.constant)

    def plus_constant(self, radians: float) -> PhaseSum:
        """Return the phase plus a constant of a few turns at most."""
        return self._replace(constant=math.remainder(self.constant + radians, 2 * math.pi))

    def factors(self, columns: np.ndarray) -> np.ndarray:
        """Return ``exp(i phase)`` of each row, complex128 (B,), for columns (B, C). Angles may have any size."""
        factors = np.empty(len(columns), np.complex128)
        _cpu.phase_factors(np.ascontiguousarray(columns), *self, factors)
        return factors

    def slopes(self, num_columns: int) -> np.ndarray:
        """Return the derivatives of the phase with respect to all columns, float64 (C,)."""
        return np.bincount(self.column, self.coefficient, num_columns)


def _rest_of_turns(angles: np.ndarray) -> float:
    """Return the sum of constant angles up to multiples of 2 pi, between -pi and pi.

    Large angles are replaced one by one, because their sum would be rounded like its largest partial sum. Multiples of
    pi/4 of at most one turn give exact multiples of pi/4.
    """
    turn = 2 * math.pi
    small = np.where(np.abs(angles) > turn, np.arctan2(np.sin(angles), np.cos(angles)), angles).tolist()
    turns = round(math.fsum(small) / turn)
    return math.fsum([*small, *[-math.copysign(turn, turns)] * abs(turns)])


def _powers_of_2(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Write numbers (D,) as sums of powers of 2.

    Returns:
        The indices of the numbers, ascending, and the powers with the signs of their numbers. There is one entry for
        each bit 1 of a number.
    """
    mantissa, exponent = np.frexp(numbers)
    bits = np.abs(np.ldexp(mantissa, 53)).astype(np.int64)
    places, bit = np.nonzero(bits[:, None] >> np.arange(53) & 1)
    return places, np.copysign(np.ldexp(1.0, exponent[places] + bit - 53), numbers[places])


NO_PHASE = PhaseSum.of_angles(())


@dataclass(frozen=True, eq=False)
class GlobalPhase:
    """The parts of the global phase that a program records; see `Program.phase`.

    Attributes:
        of_circuit: the global phases of the circuit and of definitions. They belong to no gate of the program.
        left_out: the phases that the ops leave out of the gates.
        expressions: further global phases of the circuit, which are not affine in the parameters; all are added.
        unknown: the reason why a global phase of the circuit is not known, or "".
    """

    of_circuit: PhaseSum
    left_out: PhaseSum
    expressions: CompiledExpressions
    unknown: str = ""


def means_of_generators(care: np.ndarray, value: np.ndarray, sign: np.ndarray) -> np.ndarray:
    """Return the means over all i of ``g(i) = [(i & care) == value] (-1)^popcount(i & sign)``, float64 (T,).

    The masks of the T generators are uint64 (T,).
    """
    signs = 1.0 - 2.0 * (np.bitwise_count(value & sign) & 1)
    means: np.ndarray = np.where(sign & ~care, 0.0, np.ldexp(signs, -np.bitwise_count(care).astype(np.int32)))
    return means
