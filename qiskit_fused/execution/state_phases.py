# SPDX-License-Identifier: Apache-2.0
"""The global phase of final states, and its part in gradients.

The final state of the circuit is ``psi = exp(i phi(x)) psi_e``, where ``psi_e`` is the state of an engine (see
`global_phase`) and x is a row of parameter values. A cotangent G of psi is the cotangent ``exp(-i phi) G`` of
``psi_e``. The derivative with respect to phi is ``Re sum conj(G) i psi = -Im sum conj(G) psi``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qiskit_fused.execution.derivatives import check_expressions
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.program.global_phase import PhaseSum


class StatePhases:
    """The phases of the final states of a circuit.

    Args:
        fused: the fused program of the whole circuit.

    Raises:
        ValueError: if a global phase of the circuit is not known.
    """

    def __init__(self, fused: FusedProgram):
        program = fused.program
        assert program.phase is not None
        if program.phase.unknown:
            raise ValueError(f"final states depend on the global phase, and {program.phase.unknown}.")
        self._program, self._expressions = program, program.phase.expressions
        self._sum = fused.phase_of_circuit

    @property
    def vary(self) -> bool:
        """Whether some phase depends on a parameter."""
        return bool(len(self._sum.column) or self._expressions.num_expressions)

    def factors(self, values: np.ndarray) -> np.ndarray | None:
        """Return ``exp(i phi)`` of each row, complex128 (B, 1), for parameter values (B, P); None if phi is always 0.

        Raises:
            RowError: if an expression of a row is not finite or not real.
        """
        if not self.vary and self._sum.constant == 0:
            return None
        columns = values
        if (self._sum.column >= self._program.num_parameters).any():
            columns = self._program.columns(values)
        factors = self._sum.factors(columns)
        if count := self._expressions.num_expressions:
            sum_of_expressions = PhaseSum(np.arange(count), np.ones(count), np.zeros(count), 0.0)
            factors *= sum_of_expressions.factors(self._expressions.evaluate(values))
        return factors[:, None]

    def add_column_gradients(self, gradients: np.ndarray, slopes: np.ndarray) -> None:
        """Add the part of the phase to gradients with respect to columns, float64 (B, C), in place.

        Args:
            gradients: the gradients.
            slopes: the derivatives with respect to the phase, float64 (B,).
        """
        gradients += slopes[:, None] * self._sum.slopes(gradients.shape[1])

    def add_parameter_gradients(self, values: np.ndarray, gradients: np.ndarray, slopes: np.ndarray) -> np.ndarray:
        """Return gradients with respect to parameters (B, P) with the part of expressions that only the phase has.

        Raises:
            RowError: if an expression has no finite derivative.
        """
        count = self._expressions.num_expressions
        if not count:
            return gradients
        of_expressions = np.broadcast_to(slopes[:, None], (len(slopes), count))
        joined = np.concatenate([gradients, of_expressions], axis=1)[:, None]
        pulled_back = self._expressions.pull_back(values, joined)[:, 0]
        check_expressions(self._expressions, values, pulled_back)
        return pulled_back


def phase_slopes(states: Any, cotangents: np.ndarray) -> np.ndarray:
    """Return ``-Im sum conj(G) psi`` of each row, float64 (B,), for states psi and cotangents G, complex (B, 2**n)."""
    slopes: np.ndarray = np.einsum("bi,bi->b", cotangents.imag, states.real)
    return slopes - np.einsum("bi,bi->b", cotangents.real, states.imag)
