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

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from qiskit_fused.program.expression_columns import CompiledExpressions


class PhaseSum(NamedTuple):
    """The phase ``offset + sum_k coefficients[k] columns[column[k]]``, in radians.

    Attributes:
        column: int64 (K,), ascending, each column once.
        coefficient: float64 (K,), radians per unit of the column, not 0.
        offset: radians.
    """

    column: np.ndarray
    coefficient: np.ndarray
    offset: float

    @classmethod
    def of(cls, column: np.ndarray, coefficient: np.ndarray, offset: np.ndarray) -> PhaseSum:
        """Return the sum of the angles ``coefficient * columns[column] + offset``, whose column is -1 for constants."""
        varies = column >= 0
        distinct, places = np.unique(column[varies], return_inverse=True)
        sums = np.bincount(places, coefficient[varies], len(distinct))
        counts = sums != 0  # the generators of most terms have no trace
        return cls(distinct[counts], sums[counts], float(offset.sum()))

    @classmethod
    def of_angles(cls, angles: Iterable[tuple[int, float, float]]) -> PhaseSum:
        """Return the sum of angles (column, coefficient, offset)."""
        column, coefficient, offset = np.array([*angles], dtype=np.float64).reshape(-1, 3).T
        return cls.of(column.astype(np.int64), coefficient, offset)

    def plus(self, other: PhaseSum) -> PhaseSum:
        """Return the sum of two phases."""
        column, coefficient = (np.concatenate(parts) for parts in zip(self[:2], other[:2]))
        return PhaseSum.of(column, coefficient, np.array([self.offset, other.offset]))

    def at(self, columns: np.ndarray) -> np.ndarray:
        """Return the phase of each row, float64 (B,), for columns (B, C)."""
        phases: np.ndarray = columns[:, self.column] @ self.coefficient + self.offset
        return phases


NO_PHASE = PhaseSum(np.zeros(0, np.int64), np.zeros(0), 0.0)


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
