# SPDX-License-Identifier: Apache-2.0
"""Labels of the runs in a picture: the names of a run's gates, with the parameters of their angles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt

import numpy as np

from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.program.program import OpKind

_MOST_LEAVES = 3  # largest number of gates of a run that are named; a longer run shows the number of its gates
_LONGEST_LABEL = 20  # characters of a run's label; a run with a longer label shows the number of its gates
_LONGEST_NAME = 8  # characters of a parameter's name; a parameter with a longer name is shown by its index
_DIGITS, _EXPRESSION = "₀₁₂₃₄₅₆₇₈₉", "ₑ"
_SUBSCRIPTS = str.maketrans("0123456789e", _DIGITS + _EXPRESSION)
_PLAIN = str.maketrans(_DIGITS, "0123456789")
_HADAMARD = (0.0, sqrt(0.5), 0.0, sqrt(0.5))


def run_label(fused: FusedProgram, leaves: Sequence[int]) -> str:
    """Return the gates of a run, such as "Rx(w) Ry", or the number of its gates if the names are too long."""
    label = " ".join(_gate_label(fused, leaf) for leaf in leaves[: _MOST_LEAVES + 1])
    return label if len(leaves) <= _MOST_LEAVES and len(label) <= _LONGEST_LABEL else f"{len(leaves)} gates"


def label_meanings(labels: str) -> Iterator[tuple[str, str]]:
    """Yield (example, meaning) for each way in which ``labels``, separated by spaces, name an angle."""
    words = labels.split()
    for word in [word for word in words if word.endswith(")")][:1]:
        yield word, f"its angle depends on the parameter {word[:-1].partition('(')[2]}"
    for word in [word for word in words if word[-1] in _DIGITS and _EXPRESSION not in word][:1]:
        yield word, f"its angle is of circuit.parameters[{word.lstrip('RxyzP').translate(_PLAIN)}]"
    for word in [word for word in words if _EXPRESSION in word][:1]:
        yield word, "its angle is an expression of parameters"


def count_words(number: int) -> str:
    """Return a number of gates in words."""
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
