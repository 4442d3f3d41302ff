# SPDX-License-Identifier: Apache-2.0
"""Parse numbers of bytes and memory limits as users write them, and write numbers of bytes with a unit."""

from __future__ import annotations

import re
from functools import lru_cache
from math import inf
from numbers import Integral, Real
from typing import Any

from qiskit_fused.common.text import whole_text

LEAST_LIMIT = 1000
"""Smallest memory limit without a unit, in bytes. No evaluation fits below it, so the unit was probably forgotten."""

LIMIT_HELP = (
    f"None, a number of bytes from {LEAST_LIMIT:,} on, a string such as '8GB' or '512MiB', or a fraction of the free "
    "memory, in (0, 1] or as '50%'"
)
_PREFIXES = ("", "K", "M", "G", "T")
_NUMBER = r"((?:\d+\.?\d*|\.\d+)(?:E[+-]?\d+)?)"  # matches text in upper case
_MOST_BYTES = 1 << 70  # 2^20 PiB
_LIKELY_GIGABYTES = 100  # above this number without a unit, an error suggests megabytes as well as gigabytes


def parse_bytes(text: str) -> int | None:
    """Return the bytes that a text such as ``"8GB"``, ``"512 mib"``, ``"8G"``, ``"100B"`` or ``"1e3 MB"`` stands for.

    Units may be in upper or lower case. A unit without an i is a power of 1,000; a unit with an i is a power of 1,024.
    Return None for any other text, a number without a unit included.
    """
    match = re.fullmatch(rf"\s*{_NUMBER}\s*(?:([KMGT])(I?)B?|B|BYTES?)\s*", text.upper())
    if not match:
        return None
    count = float(match[1]) * (1024 if match[3] else 1000) ** _PREFIXES.index(match[2] or "")
    return round(count) if count < inf else None


def parse_limit(value: Any) -> int | float | None:
    """Return a memory limit as bytes (int) or as a fraction of the free memory (float); None for a bad limit.

    >>> parse_limit("8GB"), parse_limit(8e9), parse_limit("50%"), parse_limit(0.25), parse_limit("8 apples")
    (8000000000, 8000000000, 0.5, 0.25, None)
    """
    if isinstance(value, str):
        return _parse_text(value)
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    if not isinstance(value, Integral) and 0 < float(value) <= 1:
        return float(value)
    return _count_bytes(value)


@lru_cache(maxsize=64)  # a call reads the limit of its options, and parsing a text takes some microseconds
def _parse_text(text: str) -> int | float | None:
    percent = re.fullmatch(rf"\s*{_NUMBER}\s*%\s*", text.upper())
    if percent:
        return float(percent[1]) / 100 if 0 < float(percent[1]) <= 100 else None
    number = _number(text)
    return parse_bytes(text) or None if number is None else _count_bytes(number)


def _number(text: str) -> float | None:
    """Return the number in a text without a unit; None for any other text."""
    return float(text) if re.fullmatch(rf"\s*{_NUMBER}\s*", text.upper()) else None


def _count_bytes(number: Any) -> int | None:
    """Return a number without a unit as bytes; None if the number is too small, infinite, or not whole."""
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


def format_bytes(count: float) -> str:
    """Write a number of bytes with a binary unit and three digits: ``format_bytes(2**38) == '256 GiB'``.

    Bytes beyond all units are written by a power of 2, because a float may not hold their number.
    """
    if count >= _MOST_BYTES:
        return f"{whole_text(int(count))} bytes"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if count < 1000 or unit == "PiB":
            break
        count /= 1024
    return f"{count:.3g} {unit}"
