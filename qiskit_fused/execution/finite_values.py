# SPDX-License-Identifier: Apache-2.0
"""Checks that values of parameters are finite numbers, in arrays on the host and on a CUDA device."""

from __future__ import annotations

from typing import Any

import numpy as np

from qiskit_fused.common.array_modules import array_module, to_numpy
from qiskit_fused.common.row_blocks import all_finite
from qiskit_fused.common.row_errors import RowError


def is_finite(array: Any) -> bool:
    """Say whether no number is NaN or infinite. An array on a CUDA device is checked there."""
    if isinstance(array, np.ndarray):
        return all_finite(array)
    return bool(array_module(array).isfinite(array).all())


def check_finite(values: Any, parameters: tuple[Any, ...]) -> None:
    """Raise a ValueError that names the parameter and the row of the first value that is NaN or infinite.

    Args:
        values: (B, P); or (P,) for values that all rows share, then the error names no row.
        parameters: the P parameters.
    """
    if is_finite(values):
        return
    values = to_numpy(values)
    *row, column = np.argwhere(~np.isfinite(values))[0].tolist()
    before, after = f"the value of parameter '{parameters[column].name}' ", "; allowed: finite numbers."
    if not row:
        raise ValueError(f"{before}is {values[column]}{after}")
    raise RowError(f"{before}in ", row[0], f" is {values[row[0], column]}{after}")
