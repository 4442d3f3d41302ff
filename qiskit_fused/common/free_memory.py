# SPDX-License-Identifier: Apache-2.0
"""Read the free memory of the machine or the container, and turn memory limits into bytes."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qiskit_fused.common.byte_sizes import LIMIT_HELP, parse_limit, suggest_limit

DEFAULT_SHARE = 0.8
"""Share of the free memory that an evaluation may use if no limit is given."""

ALWAYS_FREE = 64 << 20
"""Bytes that always count as free, so that a small call does not read the free memory."""

reclaimable: list[Callable[[], int]] = []
"""Functions that return the bytes in caches that are freed when a call needs the memory."""


class TooManyQubits(MemoryError):
    """The error for a statevector that does not fit the memory. A statevector of fewer qubits may fit."""


def resolve_limit(value: Any, free: int | None = None) -> int:
    """Return a memory limit in bytes.

    Args:
        value: the limit as users write it. A fraction is a share of the free memory, and None is `DEFAULT_SHARE`.
        free: free memory in bytes; None asks the system.

    Raises:
        ValueError: for a value that is not a memory limit.
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
    """Return the bytes of memory that this process can still allocate; None if the system does not say.

    On Linux this is the memory that the kernel reports as available, or the rest of the container's limit if that is
    less. On other systems it is the whole memory of the machine.

    Args:
        root: the root of the file system; tests pass a folder.
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
    """Return the bytes that each control group of this process still allows, for cgroup versions 1 and 2.

    Groups without a limit are left out.
    """
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
        # Inside a container the group's folder may be mounted as the root, while the path is the host's path.
        for folder in [group, *group.parents]:
            if folder == base or base in folder.parents:
                free += _free_in_group(folder, *names)
    return free


def _free_in_group(folder: Path, limit_file: str, used_file: str, reclaimable: str) -> list[int]:
    try:
        limit, used = (int((folder / name).read_text(encoding="ascii")) for name in (limit_file, used_file))
        stat = (folder / "memory.stat").read_text(encoding="ascii")
    except (OSError, ValueError):  # the text "max" means that there is no limit
        return []
    match = re.search(rf"^{reclaimable} (\d+)$", stat, re.M)
    return [limit - used + (int(match[1]) if match else 0)]
