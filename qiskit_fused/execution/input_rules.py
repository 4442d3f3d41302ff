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
from qiskit_fused.execution.column_shifts import bandwidth_along
from qiskit_fused.execution.row_batches import RowBatch
from qiskit_fused.execution.row_functions import ParameterColumns
from qiskit_fused.program.shift_rules import PROJECTOR, ROTATION

# Steps of second central differences times the bandwidth: the truncation error, step^4 / 90, and the rounding error,
# about 5 units / step^2, are below 1e-9 (complex128) and 1e-4 (complex64), relative to bandwidth^2.
_STEPS = {"complex128": 1e-2, "complex64": 2e-1}


class InputRules(NamedTuple):
    """R shifted rows for each row of inputs, and the sums that are derivatives with respect to I inputs.

    With row 0 the row without a shift, ``dE/dx_i = scale_i sum_r first[r, i] E_r`` and ``d^2E/dx_i^2 = scale_i^2
    sum_r second[r, i] E_r``. Row r shifts input ``place[r]`` by ``shift[r] / scale``.

    Attributes:
        place: int (R,).
        shift: float64 (R,).
        scale: float64 (B, I).
        first: float64 (1 + R, I).
        second: float64 (1 + R, I).
    """

    place: np.ndarray
    shift: np.ndarray
    scale: np.ndarray
    first: np.ndarray
    second: np.ndarray


def input_rules(compiled: CompiledCircuit, columns: ParameterColumns, dtype: str, batch: RowBatch) -> InputRules:
    """Return the rules of the inputs.

    An input that is the angle of one gate with two eigenvalues, times a number, has two shifted rows, and its
    derivatives are exact. Any other input has four shifted rows and central differences of fourth order.

    Args:
        compiled: the circuit.
        columns: the positions of inputs and weights among the parameters.
        dtype: the number format of the amplitudes.
        batch: rows of inputs and the weights.
    """
    rules, program, count = compiled.column_rules, compiled.program, len(columns.inputs)
    scale = np.ones((batch.num_rows, count))
    entries: list[tuple[int, float, float, float]] = []  # input, shift, and the weights of both derivatives
    of_base = np.zeros(count)
    values = columns.join(batch.inputs, batch.weights)
    for place, column in enumerate(columns.inputs.tolist()):
        direction = np.zeros(program.num_parameters)
        direction[column] = 1.0
        is_single = rules.kind[column] in (ROTATION, PROJECTOR)
        if is_single and not program.expressions.depend_on(direction.astype(bool)).any():
            w = rules.frequency[column]
            entries += [(place, sign * math.pi / (2 * w), sign * w / 2, w * w / 2) for sign in (1.0, -1.0)]
            of_base[place] = -w * w
            continue
        bandwidth = bandwidth_along(compiled, values, np.broadcast_to(direction, values.shape))
        scale[:, place] = np.where(bandwidth > 0, bandwidth, 1.0)
        h = _STEPS[dtype]
        for number, slope, curvature in ((1, 8.0, 16.0), (2, -1.0, -1.0)):
            for sign in (1.0, -1.0):
                entries.append((place, sign * number * h, sign * slope / (12 * h), curvature / (12 * h * h)))
        of_base[place] = -30.0 / (12 * h * h)
    places, shifts, first, second = (np.array(part) for part in zip(*entries)) if entries else np.zeros((4, 0))
    sums = np.zeros((2, 1 + len(places), count))
    sums[1, 0] = of_base
    rows, places = 1 + np.arange(len(places)), places.astype(np.intp)
    sums[0, rows, places], sums[1, rows, places] = first, second
    return InputRules(places, shifts, scale, *sums)
