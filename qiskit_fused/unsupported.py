# SPDX-License-Identifier: Apache-2.0
"""The error for what no sweep can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qiskit.exceptions import QiskitError


class UnsupportedInstruction(QiskitError):
    """An instruction no sweep over statevectors can do.

    Attributes:
        name: the instruction's name.
        index: its position in ``circuit.data``.
        qubits: the circuit qubits it acts on.
        fallback: whether ``StatevectorEstimator`` may be able to do it.
    """

    def __init__(self, name: str, index: int, qubits: Sequence[int], reason: str, fallback: bool = True):
        self.name = name
        self.index = index
        self.qubits = tuple(qubits)
        self.fallback = fallback
        self._reason = reason
        super().__init__(f"instruction {index}, '{name}' on qubits {list(self.qubits)}, {reason}")

    def __str__(self) -> str:
        return self.message  # QiskitError puts quotes around it

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.index, self.qubits, self._reason, self.fallback)
