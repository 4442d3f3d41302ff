# SPDX-License-Identifier: Apache-2.0
"""First and second derivatives with respect to single inputs, as sums of values at shifted inputs.

A derivative that is a sum of values is differentiated by weights like any value, by one backward sweep for each shifted
row. Networks that solve differential equations train on such derivatives.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.execution.parameter_columns import ParameterColumns
from qiskit_fused.program.shift_rules import PROJECTOR, ROTATION

# Steps of second central differences times the bandwidth: the truncation error, step^4 / 90, and the rounding error,
# about 5 units / step^2, are below 1e-9 (complex128) and 1e-4 (complex64), relative to bandwidth^2.
_STEPS = {"complex128": 1e-2, "complex64": 2e-1}


class InputRules(NamedTuple):
    """R shifted rows for each row of inputs, and the sums that are derivatives with respect to I inputs.

    The inputs of row r are ``x + steps[r] / scale``, and row 0 has no shift. Then ``dE/dx_i = scale_i sum_r first[r, i]
    E_r`` and ``d^2E/dx_i^2 = scale_i^2 sum_r second[r, i] E_r``. The scale of D inputs is the bandwidth of the row
    along them (see `bandwidth_along`). The scale of all other inputs is 1.

    Attributes:
        steps: float64 (1 + R, I).
        first: float64 (1 + R, I).
        second: float64 (1 + R, I).
        along: float64 (D, I), the unit vectors of the D inputs.
    """

    steps: np.ndarray
    first: np.ndarray
    second: np.ndarray
    along: np.ndarray


def input_rules(compiled: CompiledCircuit, columns: ParameterColumns, dtype: str) -> InputRules:
    """Return the rules of the inputs.

    An input that is the angle of one gate with two eigenvalues, times a number, has two shifted rows, and its
    derivatives are exact. Any other input has four shifted rows and central differences of fourth order.

    Args:
        compiled: the circuit.
        columns: the positions of inputs and weights among the parameters.
        dtype: the number format of the amplitudes.
    """
    rules, inputs, h = compiled.column_rules, columns.inputs, _STEPS[dtype]
    is_exact = np.isin(rules.kind[inputs], (ROTATION, PROJECTOR)) & ~compiled.program.expressions.uses[inputs]
    exact, others = np.flatnonzero(is_exact), np.flatnonzero(~is_exact)
    w, signs, ones = rules.frequency[inputs[exact]], np.array([[1.0], [-1.0]]), np.ones(len(others))
    place = np.concatenate([np.tile(exact, 2), np.tile(others, 4)])
    parts = (
        (signs * math.pi / (2 * w), h * np.array([1.0, -1.0, 2.0, -2.0])),
        (signs * w / 2, np.array([8.0, -8.0, -1.0, 1.0]) / (12 * h)),
        (np.tile(w * w / 2, (2, 1)), np.array([16.0, 16.0, -1.0, -1.0]) / (12 * h * h)),
    )
    table = np.zeros((3, 1 + len(place), len(inputs)))
    table[:, 1 + np.arange(len(place)), place] = [
        np.concatenate([pair.ravel(), np.outer(four, ones).ravel()]) for pair, four in parts
    ]
    table[2, 0] = -table[2].sum(axis=0)  # the second derivative of a constant is 0
    steps, first, second = table
    return InputRules(steps, first, second, np.eye(len(inputs))[others])
