# SPDX-License-Identifier: Apache-2.0
"""The columns of a program at one row of parameter values: their derivatives, and shifted rows of columns.

Derivatives with respect to columns are sums of results at shifted columns (see `shift_rules`). The chain rule turns
them into derivatives with respect to parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qiskit_fused.common.array_modules import array_module
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.execution.derivatives import check_expressions
from qiskit_fused.program.program import Program
from qiskit_fused.program.shift_rules import UNUSED, Segment

# Functions of the amplitudes of a start state are rational functions of a direction d, divided by the norm r of the
# amplitudes. Their fifth derivative is at most about 5! (d/r)^5, like the fifth derivative of a sine with
# the frequency 4 d/r.
_FREQUENCY_OF_AMPLITUDES = 4.0


class ColumnPoint:
    """The columns of a circuit at one row of parameter values, and some parameters to differentiate.

    Args:
        compiled: the circuit.
        values: finite parameter values, float64 (P,).
        parameters: int (Q,), positions of the parameters to differentiate; None is all parameters.
        seen: bool (C,), the columns on which the results depend; None is all columns.

    Attributes:
        parameters: int (Q,), positions of the parameters to differentiate.
        row: the columns, float64 (C,).
        used: int (N,), the columns that depend on a parameter to differentiate and that change the state, ascending.
        bandwidth: float64 (N,), a bound of the frequencies of expectation values as functions of each used column.
    """

    def __init__(
        self,
        compiled: CompiledCircuit,
        values: np.ndarray,
        parameters: np.ndarray | None,
        seen: np.ndarray | None = None,
    ):
        program, rules = compiled.program, compiled.column_rules
        self._compiled, self._values = compiled, values
        count, is_used = program.num_parameters, rules.kind != UNUSED
        if parameters is None:
            self.parameters = np.arange(count)
        else:
            self.parameters, is_chosen = parameters, np.zeros(count, bool)
            is_chosen[parameters] = True
            is_used &= program.depends_on(is_chosen)
        self.row = program.columns(values[None])[0]
        self.used = np.flatnonzero(is_used if seen is None else is_used & seen)
        self.bandwidth = rules.bandwidth[self.used]
        if program.encodings:
            self.bandwidth = self.bandwidth + bandwidth_of_amplitudes(program, self.row[None])[0, self.used]

    @property
    def num_parameters(self) -> int:
        """Q, the number of parameters to differentiate."""
        return len(self.parameters)

    def jacobian(self) -> np.ndarray | None:
        """Return the derivatives of the used columns, float64 (N, Q); None if they are the parameters in this order.

        Raises:
            RowError: if an expression has no finite derivative.
        """
        program = self._compiled.program
        count = program.num_parameters
        if np.array_equal(self.used, self.parameters):
            return None
        jacobian = (self.used[:, None] == self.parameters[None]).astype(np.float64)
        is_expression = self.used >= count
        if is_expression.any():
            of_expressions = program.expressions.jacobian(self._values[None])[0]
            part = of_expressions[self.used[is_expression] - count]
            check_expressions(program.expressions, self._values[None], part.sum(axis=0)[None], self.parameters)
            jacobian[is_expression] = part[:, self.parameters]
        return jacobian

    def shifted(self, columns: np.ndarray, segments: Sequence[Segment]) -> np.ndarray:
        """Return this row followed by its shifted rows, float64 (1 + R, C), segment by segment and shift by shift.

        Args:
            columns: the columns to which the places of the segments refer.
            segments: the rules of these columns.
        """
        count = sum(segment.shifts.size for segment in segments)
        rows = np.repeat(self.row[None], 1 + count, axis=0)
        begin = 1
        for places, shifts, _, _ in segments:
            end = begin + shifts.size
            rows[np.arange(begin, end).reshape(shifts.shape), columns[places]] += shifts
            begin = end
        return rows


def combine(segments: Sequence[Segment], results: Any, num_columns: int) -> Any:
    """Return the derivatives with respect to N columns, (N, ...), from results of the rows of `ColumnPoint.shifted`.

    The results of shifted rows are overwritten.
    """
    xp = array_module(results)
    is_whole = len(segments) == 1 and len(segments[0].places) == num_columns
    derivatives: Any = None if is_whole else xp.zeros((num_columns, *results.shape[1:]), dtype=results.dtype)
    begin = 1
    for places, _, weights, base in segments:
        count, trailing = len(places), (1,) * (results.ndim - 1)
        shaped = xp.asarray(weights, dtype=results.dtype).reshape(*weights.shape, *trailing)
        part = results[begin : begin + count]
        part *= shaped[0]
        for number in range(1, len(weights)):
            start = begin + number * count
            part += results[start : start + count] * shaped[number]
        if base is not None:
            part += xp.asarray(base, dtype=results.dtype).reshape(count, *trailing) * results[:1]
        begin += weights.size
        if is_whole:
            return part
        derivatives[xp.asarray(places)] = part
    return derivatives


def bandwidth_of_amplitudes(program: Program, rows: np.ndarray, directions: np.ndarray | None = None) -> np.ndarray:
    """Return bounds of the frequencies that come from amplitudes of start states, for rows of columns (B, C).

    Args:
        program: the program.
        rows: the columns, float64 (B, C).
        directions: directions in which the columns change, float64 (B, C). None: each column changes alone, at the
            rate 1.

    Returns:
        Float64 (B,) for directions, (B, C) without.
    """
    shape = rows.shape if directions is None else (len(rows),)
    result = np.zeros(shape)
    for encoding in program.encodings:
        if not encoding.varies:
            continue
        norms = encoding.normalised(rows)[1]
        factor = _FREQUENCY_OF_AMPLITUDES / np.where(norms > 0, norms, 1.0)
        squares = np.zeros(shape)
        for used, columns, coefficients, _ in encoding.varying:
            if directions is None:
                np.add.at(squares.T, columns, np.broadcast_to(coefficients[:, None] ** 2, (len(used), len(rows))))
            else:
                squares += ((directions[:, columns] * coefficients) ** 2).sum(axis=1)
        result += np.sqrt(squares) * (factor[:, None] if directions is None else factor)
    return result


def bandwidth_along(compiled: CompiledCircuit, values: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return the rates at which expectation values change along lines ``x + t v`` of parameter values, float64 (B,).

    If all angles are affine in the parameters, it is a bound of the frequencies of E as functions of t. Otherwise it
    counts the second derivatives of the angles too, so that derivatives of E of order m are about the m-th power of it.

    Args:
        compiled: the circuit.
        values: x, finite parameter values, float64 (B, P).
        vectors: v, float64 (B, P).
    """
    program, rules = compiled.program, compiled.column_rules
    count, columns, directions = program.num_parameters, program.columns(values), vectors
    further: Any = 0.0
    if program.expressions.num_expressions:
        first, second = program.expressions.rates(values, vectors)
        directions = np.concatenate([vectors, first], axis=1)
        further = np.sqrt(np.abs(second) @ rules.bandwidth[count:])
        further = further + np.abs(vectors[:, program.expressions.uses]).sum(axis=1)
    bandwidth: np.ndarray = np.abs(directions) @ rules.bandwidth + further
    return bandwidth + bandwidth_of_amplitudes(program, columns, directions)
