# SPDX-License-Identifier: Apache-2.0
"""How much memory is free here, on the machine or in the container, and memory limits that are shares of it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qiskit_fused.common.byte_sizes import LIMIT_HELP, parse_limit, suggest_limit

DEFAULT_SHARE = 0.8
"""Share of the free memory that is used where no limit is given."""

ALWAYS_FREE = 64 << 20
"""Bytes that are taken to be free, so that small calls need not ask."""

reclaimable: list[Callable[[], int]] = []
"""Functions that count bytes which are kept for later calls and freed when a call needs them."""


class TooManyQubits(MemoryError):
    """A statevector does not fit the memory there is; one of fewer qubits may."""


def resolve_limit(value: Any, free: int | None = None) -> int:
    """Return a memory limit in bytes; None is the default share of what is free, and fractions are of that.

    Args:
        value: the limit, as users write it.
        free: bytes that are free; None asks the system.

    Raises:
        ValueError: when it is no memory limit.
    """
    limit = DEFAULT_SHARE if value is None else parse_limit(value)
    if limit is None:
        raise ValueError(f"memory_limit is {value!r}; allowed: {LIMIT_HELP}{suggest_limit(value)}")
    if isinstance(limit, int):
        return limit
    if free is None:
        free = free_memory()
        if free is not None:
            free += sum(count() for count in reclaimable)
    return sys.maxsize if free is None else int(limit * free)


def free_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes of memory this process can still have, or None where that cannot be told.

    On Linux that is what the kernel says is available, or what the container may still take if that is less. Other
    systems only tell how much memory they have.

    Args:
        root: of the file system, for tests.
    """
    try:
        text = (root / "proc/meminfo").read_text(encoding="ascii")
        match = re.search(r"^MemAvailable:\s*(\d+) kB$", text, re.M)
        free = [int(match[1]) * 1024] if match else []
    except OSError:
        free = []
    if not free:
        try:
            free = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
        except (AttributeError, ValueError, OSError):
            return None
    return max(min(free + _free_in_containers(root)), 0)


def _free_in_containers(root: Path) -> list[int]:
    """Return what each control group around this process leaves, of version 2 and 1; unlimited ones do not count."""
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    free = []
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = base / path.strip("/")
        # a container may see its own group as the root, under a path that it is told from outside
        for folder in [group, *group.parents]:
            if folder == base or base in folder.parents:
                free += _free_in_group(folder, *names)
    return free


def _free_in_group(folder: Path, limit_file: str, used_file: str, reclaimable: str) -> list[int]:
    try:
        limit, used = (int((folder / name).read_text(encoding="ascii")) for name in (limit_file, used_file))
        stat = (folder / "memory.stat").read_text(encoding="ascii")
    except (OSError, ValueError):  # "max" is no limit
        return []
    match = re.search(rf"^{reclaimable} (\d+)$", stat, re.M)
    return [limit - used + (int(match[1]) if match else 0)]
