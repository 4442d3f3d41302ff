# SPDX-License-Identifier: Apache-2.0
"""The marks of a picture: a run, the terms on the same qubits, a dense gate, or a linear map."""

from __future__ import annotations

from dataclasses import dataclass

from qiskit_fused.common.text import count_text

ON, OFF, SIGN, DENSE, MAP = "●", "○", "■", "U", "⊕"
"""How a term, a dense gate or a linear map depends on a qubit.

It acts if the qubit is 1, it acts if the qubit is 0, the sign of the term is (-1)^bit, the matrix acts on
the qubit, or the map reads or changes the qubit.
"""


@dataclass(frozen=True)
class RunMark:
    """The mark of one run.

    Attributes:
        run: index of the run in the fused program.
        bit: bit that the run rotates.
        num_gates: number of gates merged into the run.
        label: the gates of the run, "Rx(w) Ry(v)"; "Rx₀ Ry₁" shows places in circuit.parameters for long names.
        has_parameter: whether some angle depends on the parameters.
    """

    run: int
    bit: int
    num_gates: int
    label: str
    has_parameter: bool


@dataclass(frozen=True)
class TermMark:
    """The mark of diagonal terms on the same qubits, or the one mark of all terms of a phase.

    Attributes:
        terms: indices of the terms in the fused program.
        bits: bits that the terms act on, ascending.
        symbols: for each bit, ON, OFF or SIGN; "" for the mark of a whole phase.
        place: position in the phase, 0, 1, ... from the left; marks whose spans overlap have different places.
        has_parameter: whether some angle depends on the parameters.
    """

    terms: tuple[int, ...]
    bits: tuple[int, ...]
    symbols: str
    place: int
    has_parameter: bool

    @property
    def is_box(self) -> bool:
        """Whether all terms of a phase are one box."""
        return not self.symbols

    @property
    def label(self) -> str:
        """The number of terms, in words."""
        return count_text(len(self.terms), "term")


@dataclass(frozen=True)
class DenseMark:
    """The mark of one dense gate, or of one linear map.

    Attributes:
        bits: bits that the matrix acts on and control bits, or bits that the map reads or changes, ascending.
        symbols: for each bit, DENSE, ON or OFF; MAP for all bits of a map.
    """

    bits: tuple[int, ...]
    symbols: str
