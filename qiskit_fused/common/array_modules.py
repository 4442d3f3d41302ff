# SPDX-License-Identifier: Apache-2.0
"""Arrays of NumPy and arrays of a CUDA device, by the same code: the module that an array belongs to, and its copy."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


def array_module(array: Any) -> Any:
    """Return ``numpy`` for an array of the host, and ``cupy`` for an array of a CUDA device."""
    if isinstance(array, np.ndarray):
        return np
    if hasattr(array, "__array_namespace__"):
        return array.__array_namespace__()
    return sys.modules[type(array).__module__.partition(".")[0]]  # arrays of CuPy before version 14


def to_numpy(array: Any) -> np.ndarray:
    """Return a copy of a CUDA array in the memory of the host. An array of NumPy is returned itself."""
    return array if isinstance(array, np.ndarray) else array_module(array).asnumpy(array)
