# SPDX-License-Identifier: Apache-2.0
"""Write numbers as text for errors, tables and pictures."""

from __future__ import annotations


def count_text(number: int, noun: str) -> str:
    """Write a count with its noun: ``count_text(2, "qubit") == "2 qubits"``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def short_text(value: float) -> str:
    """Write a number with three digits and a decimal prefix: ``short_text(12345) == "12.3 k"``."""
    prefixes = ["", " k", " M", " G", " T", " P"]
    while value >= 1000 and len(prefixes) > 1:
        value /= 1000
        prefixes.pop(0)
    return f"{value:.3g}{prefixes[0]}"
