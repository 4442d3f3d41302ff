# SPDX-License-Identifier: Apache-2.0
"""The error for what no sweep can do, and the circuit that another simulator is given instead."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from qiskit.circuit import QuantumCircuit
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


def fallback_circuit(circuit: Any, error: Exception | None) -> QuantumCircuit | None:
    """Return a copy of the circuit for ``StatevectorEstimator``; None where it can do no more than fused sweeps.

    Final measurements are left out, which it refuses. It reads the copy when the job runs: changes of the circuit, or
    of objects in it, do not reach it.
    """
    if not isinstance(error, UnsupportedInstruction) or not error.fallback:
        return None
    if any(instruction.clbits for instruction in circuit.data):
        circuit = circuit.remove_final_measurements(inplace=False)
    return None if any(instruction.clbits for instruction in circuit.data) else deepcopy(circuit)
