# SPDX-License-Identifier: Apache-2.0
"""The number of CPU threads where no option says it: from environment variables, or the number of CPUs."""

from __future__ import annotations

import os
from functools import lru_cache


def default_num_threads() -> int:
    """Return the number of CPU threads, from the environment variables or the number of CPUs.

    Raises:
        ValueError: if an environment variable that is read does not hold an integer from 1 to 2^31 - 1.
    """
    for variable in ("QISKIT_FUSED_NUM_THREADS", "OMP_NUM_THREADS"):
        num_threads = _read(variable, os.environ.get(variable, ""))
        if num_threads is not None:
            return num_threads
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@lru_cache(maxsize=16)  # every call with default options asks for the number
def _read(variable: str, text: str) -> int | None:
    """Return the number of threads in the text of an environment variable; None for an empty text."""
    first = text.split(",")[0].strip()  # OMP_NUM_THREADS may hold one number for each nesting level
    if not first:
        return None
    if not first.isdecimal() or not 1 <= int(first) < 1 << 31:
        raise ValueError(f"environment variable {variable} is {first!r}; allowed: an integer from 1 to 2^31 - 1.")
    return int(first)
