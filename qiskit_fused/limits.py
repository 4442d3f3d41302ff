# SPDX-License-Identifier: Apache-2.0
"""Limits of memory: how they are written, and how much memory is free."""

from __future__ import annotations

import os
import re
import sys
from numbers import Integral, Real
from pathlib import Path
from typing import Any

DEFAULT_SHARE = 0.8
"""Share of the free memory that is used where no limit is given."""

ALWAYS_FREE = 64 << 20
"""Bytes that are taken to be free, so that small calls need not ask."""

LIMIT_HELP = (
    "None, a number of bytes, a string such as '8GB' or '512MiB', or a fraction of the free memory, in (0, 1] or as "
    "'50%'"
)

_UNITS = {
    unit: base**power
    for power, prefix in enumerate(("", "K", "M", "G", "T"))
    for unit, base in ((f"{prefix}B", 1000), (f"{prefix}IB" if prefix else "B", 1024))
}


def parse_bytes(text: str) -> int | None:
    """Parse ``"8GB"``, ``"512 mib"``, ``"100B"`` to bytes, in upper or lower case; None if it is no such text."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([KMGT]?I?B)\s*", text.upper())
    if not match or match[2] not in _UNITS:
        return None
    return int(float(match[1]) * _UNITS[match[2]])


def parse_limit(value: Any) -> int | float | None:
    """Return a memory limit as bytes (int) or as a fraction (float); None if it is neither.

    >>> parse_limit("8GB"), parse_limit("50%"), parse_limit(0.25), parse_limit("8 apples")
    (8000000000, 0.5, 0.25, None)
    """
    percent = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*%\s*", value) if isinstance(value, str) else None
    if percent:
        return float(percent[1]) / 100 if 0 < float(percent[1]) <= 100 else None
    if isinstance(value, str):
        return parse_bytes(value) or None
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    if isinstance(value, Integral):
        return max(int(value), 0) or None
    return float(value) if 0 < float(value) <= 1 else None


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
        raise ValueError(f"memory_limit is {value!r}; allowed: {LIMIT_HELP}.")
    if isinstance(limit, int):
        return limit
    if free is None:
        free = free_memory()
    return sys.maxsize if free is None else int(limit * free)


def format_bytes(count: float) -> str:
    """Write a number of bytes with a binary unit and three digits: ``format_bytes(2**38) == '256 GiB'``."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if count < 1000 or unit == "PiB":
            break
        count /= 1024
    return f"{count:.3g} {unit}"


def free_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes of memory this process can still have, or None where that cannot be told.

    On Linux that is what the kernel says is available, or what the container may still take if that is less. Other
    systems only tell how much memory they have.

    Args:
        root: of the file system, for tests.
    """
    try:
        text = (root / "proc/meminfo").read_text(encoding="ascii")
        found = re.search(r"^MemAvailable:\s*(\d+) kB$", text, re.M)
        free = [int(found[1]) * 1024] if found else []
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
    found = re.search(rf"^{reclaimable} (\d+)$", stat, re.M)
    return [limit - used + (int(found[1]) if found else 0)]


def count_text(number: int, noun: str) -> str:
    """Write a number of things: ``count_text(2, "qubit") == "2 qubits"``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def short_text(value: float) -> str:
    """Write a number in three digits: ``short_text(12345) == "12.3 k"``."""
    prefixes = ["", " k", " M", " G", " T", " P"]
    while value >= 1000 and len(prefixes) > 1:
        value /= 1000
        prefixes.pop(0)
    return f"{value:.3g}{prefixes[0]}"
