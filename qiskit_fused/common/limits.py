# SPDX-License-Identifier: Apache-2.0
"""Limits of memory: how they are written, and how much memory is free."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from math import inf
from numbers import Integral, Real
from pathlib import Path
from typing import Any

DEFAULT_SHARE = 0.8
"""Share of the free memory that is used where no limit is given."""

ALWAYS_FREE = 64 << 20
"""Bytes that are taken to be free, so that small calls need not ask."""

reclaimable: list[Callable[[], int]] = []
"""Functions that count bytes which are kept for later calls and freed when a call needs them."""

LEAST_LIMIT = 1000
"""Bytes: a smaller number without a unit is refused, for no evaluation fits and the unit was probably forgotten."""

LIMIT_HELP = (
    f"None, a number of bytes from {LEAST_LIMIT:,} on, a string such as '8GB' or '512MiB', or a fraction of the free "
    "memory, in (0, 1] or as '50%'"
)

_PREFIXES = ("", "K", "M", "G", "T")
_NUMBER = r"((?:\d+\.?\d*|\.\d+)(?:E[+-]?\d+)?)"  # in upper case
_LIKELY_GIGABYTES = 100  # a larger number without a unit may be megabytes as well


class TooManyQubits(MemoryError):
    """A statevector does not fit the memory there is; one of fewer qubits may."""


def parse_bytes(text: str) -> int | None:
    """Parse ``"8GB"``, ``"512 mib"``, ``"8G"``, ``"100B"``, ``"1e3 MB"`` to bytes; None for other texts.

    Units may be in upper or lower case; they are powers of 1,000 without an i, and of 1,024 with one. A number without
    a unit is None.
    """
    match = re.fullmatch(rf"\s*{_NUMBER}\s*(?:([KMGT])(I?)B?|B|BYTES?)\s*", text.upper())
    if not match:
        return None
    count = float(match[1]) * (1024 if match[3] else 1000) ** _PREFIXES.index(match[2] or "")
    return round(count) if count < inf else None


def parse_limit(value: Any) -> int | float | None:
    """Return a memory limit as bytes (int) or as a fraction (float); None if it is neither.

    >>> parse_limit("8GB"), parse_limit(8e9), parse_limit("50%"), parse_limit(0.25), parse_limit("8 apples")
    (8000000000, 8000000000, 0.5, 0.25, None)
    """
    if isinstance(value, str):
        percent = re.fullmatch(rf"\s*{_NUMBER}\s*%\s*", value.upper())
        if percent:
            return float(percent[1]) / 100 if 0 < float(percent[1]) <= 100 else None
        number = _number(value)
        return parse_bytes(value) or None if number is None else _count_bytes(number)
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    if not isinstance(value, Integral) and 0 < float(value) <= 1:
        return float(value)
    return _count_bytes(value)


def _number(text: str) -> float | None:
    """Return the number that a text is, without a unit, or None."""
    return float(text) if re.fullmatch(rf"\s*{_NUMBER}\s*", text.upper()) else None


def _count_bytes(number: Any) -> int | None:
    """Return a number of bytes that has no unit; None where it is too small, infinite, or no whole number."""
    return int(number) if LEAST_LIMIT <= number < inf and number == int(number) else None


def suggest_limit(value: Any) -> str:
    """Return the end of an error: ``"; did you mean '8GB' or '8%'?"`` for a number that lacks a unit, else ``"."``."""
    number = _number(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, Real) or not 0 < float(number) < LEAST_LIMIT:
        return "."
    if number == 1:
        return "; did you mean 1.0, which is all of the free memory, or '1GB'?"
    gigabytes = f"'{float(number):g}GB'"
    if float(number) > _LIKELY_GIGABYTES:
        return f"; did you mean '{float(number):g}MB' or {gigabytes}?"
    return f"; did you mean {gigabytes} or '{float(number) * 100 if number < 1 else float(number):g}%'?"


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
