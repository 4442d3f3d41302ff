# SPDX-License-Identifier: Apache-2.0
"""The error for an instruction that no engine can simulate, and the copy of the circuit for another simulator."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from qiskit.circuit import QuantumCircuit
from qiskit.exceptions import QiskitError


class UnsupportedInstruction(QiskitError):
    """The error for an instruction that no engine can simulate, such as a measurement in the middle of a circuit.

    Its text names the instruction, its qubits, the reason and the cure.

    >>> from qiskit import QuantumCircuit
    >>> from qiskit_fused import compile_circuit
    >>> circuit = QuantumCircuit(1, 1)
    >>> _ = circuit.measure(0, 0)
    >>> _ = circuit.x(0)
    >>> try:
    ...     _ = compile_circuit(circuit)
    ... except UnsupportedInstruction as error:
    ...     print(error.name, error.index, error.qubits, error.fallback)
    measure 0 (0,) False

    Attributes:
        name: the name of the instruction.
        index: the position of the instruction in ``circuit.data``, counted from 0.
        qubits: the numbers of the circuit's qubits on which the instruction acts, in a tuple.
        fallback: whether ``StatevectorEstimator`` may be able to run the circuit.
    """

    def __init__(
        self, name: str, index: int, qubits: Sequence[int], reason: str, fallback: bool = True, preface: str = ""
    ):
        self.name = name
        self.index = index
        self.qubits = tuple(qubits)
        self.fallback = fallback
        self._reason, self._preface = reason, preface
        super().__init__(f"{preface}instruction {index}, '{name}' on qubits {list(self.qubits)}, {reason}")

    def __str__(self) -> str:
        return self.message  # QiskitError.__str__ would put quotes around the message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.index, self.qubits, self._reason, self.fallback, self._preface)

    def prefaced(self, preface: str) -> UnsupportedInstruction:
        """Return the error with a sentence before its text."""
        return UnsupportedInstruction(self.name, self.index, self.qubits, self._reason, self.fallback, f"{preface}: ")


def fallback_circuit(circuit: Any, error: Exception | None) -> QuantumCircuit | None:
    """Return a copy of the circuit for ``StatevectorEstimator``; None if that estimator cannot run the circuit either.

    The copy has no final measurements, because ``StatevectorEstimator`` refuses them. The estimator reads the copy when
    the job runs, so later changes of the circuit, or of objects in it, do not change the result.

    Args:
        circuit: the circuit that was lowered.
        error: the error that lowering raised, if any.
    """
    if not isinstance(error, UnsupportedInstruction) or not error.fallback:
        return None
    if any(instruction.clbits for instruction in circuit.data):
        circuit = circuit.remove_final_measurements(inplace=False)
    return None if any(instruction.clbits for instruction in circuit.data) else deepcopy(circuit)
