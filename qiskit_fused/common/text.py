# SPDX-License-Identifier: Apache-2.0
"""Write numbers as text for errors, tables and pictures."""

from __future__ import annotations


def count_text(number: int, noun: str) -> str:
    """Write a count with its noun: ``count_text(2, "qubit") == "2 qubits"``."""
    return f"{number} {noun}" if number == 1 else f"{whole_text(number)} {noun}s"


def whole_text(number: int) -> str:
    """Write a whole number; one from 2^63 on by a power of 2, because Python refuses to write thousands of digits.

    >>> whole_text(12), whole_text(2**5000), whole_text(2**5000 + 1)
    ('12', '2^5000', 'more than 2^5000')
    """
    if number < 1 << 63:
        return str(number)
    power = int(number).bit_length() - 1
    return f"2^{power}" if number == 1 << power else f"more than 2^{power}"


def short_text(value: float) -> str:
    """Write a number with three digits and a decimal prefix: ``short_text(12345) == "12.3 k"``."""
    prefixes = ["", " k", " M", " G", " T", " P"]
    while value >= 1000 and len(prefixes) > 1:
        value /= 1000
        prefixes.pop(0)
    return f"{value:.3g}{prefixes[0]}"
