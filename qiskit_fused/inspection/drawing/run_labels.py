# SPDX-License-Identifier: Apache-2.0
"""What stands on the runs of a picture: their gates by name, with the parameters of their angles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt

import numpy as np

from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.program.program import OpKind

_MOST_LEAVES = 3  # gates of a run that are named; those of longer runs are counted
_LONGEST_LABEL = 20  # characters of a run's label; gates of runs with longer ones are counted
_LONGEST_NAME = 8  # characters of a parameter's name; parameters with longer ones have their number as a subscript
_DIGITS, _EXPRESSION = "₀₁₂₃₄₅₆₇₈₉", "ₑ"
_SUBSCRIPTS = str.maketrans("0123456789e", _DIGITS + _EXPRESSION)
_PLAIN = str.maketrans(_DIGITS, "0123456789")
_HADAMARD = (0.0, sqrt(0.5), 0.0, sqrt(0.5))


def run_label(fused: FusedProgram, leaves: Sequence[int]) -> str:
    """Return the gates of a run, such as "Rx(w) Ry"; their number where that is short of space."""
    label = " ".join(_gate_label(fused, leaf) for leaf in leaves[: _MOST_LEAVES + 1])
    return label if len(leaves) <= _MOST_LEAVES and len(label) <= _LONGEST_LABEL else f"{len(leaves)} gates"


def label_meanings(labels: str) -> Iterator[tuple[str, str]]:
    """Yield an example and what it means for each way in which labels name an angle."""
    words = labels.split()
    for word in [word for word in words if word.endswith(")")][:1]:
        yield word, f"its angle depends on the parameter {word[:-1].partition('(')[2]}"
    for word in [word for word in words if word[-1] in _DIGITS and _EXPRESSION not in word][:1]:
        yield word, f"its angle is of circuit.parameters[{word.lstrip('RxyzP').translate(_PLAIN)}]"
    for word in [word for word in words if _EXPRESSION in word][:1]:
        yield word, "its angle is an expression of parameters"


def count_words(number: int) -> str:
    """Write a number of gates."""
    return {1: "one gate", 2: "two gates"}.get(number, f"{number} gates")


def _gate_label(fused: FusedProgram, leaf: int) -> str:
    kind, column = OpKind(fused.leaf_kind[leaf]), int(fused.leaf_column[leaf])
    if column >= 0:
        further, names = column - fused.program.num_parameters, fused.program.parameter_names
        if further < 0 and names and len(names[column]) <= _LONGEST_NAME and not set(names[column]) & set(" ()"):
            return f"{kind.name.capitalize()}({names[column]})"
        place = str(column) if further < 0 else f"e{further}"
        return kind.name.capitalize() + place.translate(_SUBSCRIPTS)
    if kind is OpKind.SU2:
        return "H" if np.allclose(fused.leaf_quaternion[leaf], _HADAMARD) else "U"
    return kind.name[1] if fused.leaf_offset[leaf] == np.pi else kind.name.capitalize()
