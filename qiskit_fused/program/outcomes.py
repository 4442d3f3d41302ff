# SPDX-License-Identifier: Apache-2.0
"""The probabilities of measured bitstrings, as observables that an engine evaluates by one pass over the final state.

The measured qubits have a bitstring y, an integer whose bit j is the value of the j-th measured qubit. A table maps
each bitstring to an outcome k. The probability of an outcome is the expectation value of a projector,

    p_k = <psi| P_k |psi>,    P_k = sum over all y with table[y] = k of |y><y|,

so K outcomes are K diagonal observables. Written as sums of terms they would need up to 2^m terms each for m measured
qubits. An engine reads one array instead: the outcome of each amplitude.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from qiskit_fused.common.forks import cached_property
from qiskit_fused.program.observables import Observables, TermMasks

DROPPED = -1
"""The entry of a table for bitstrings that belong to no outcome."""

MAX_MEASURED_QUBITS = 30  # outcomes are stored as int32


def noun_of(operators: Observables) -> str:
    """Return the word for the observables in errors: "outcomes" or "observables"."""
    return "observables" if operators.have_terms else "outcomes"


def ways_to_fewer(noun: str, gradient: bool) -> str:
    """Return the cures of an error about too many results. ``noun`` is the word of `noun_of`."""
    if noun == "observables":
        return "ask for fewer observables at a time"
    ways = "measure fewer qubits, or give interpret"
    return f"{ways}, or use FusedSamplerQNN.value_and_vjp" if gradient else ways


class Outcomes(Observables):
    """The projectors onto K outcomes of a measurement, in the place of `Observables`.

    Args:
        num_qubits: number of qubits of the circuit.
        qubits: int (m,), the measured circuit qubits, each once. Bit j of a bitstring is the value of qubit j of these.
        table: int (2^m,), the outcome of each bitstring, 0 to K - 1, or `DROPPED`. None: the bitstring is the outcome.
        num_outcomes: K; 2^m if ``table`` is None.

    Attributes:
        measured: int64 (m,), the measured qubits.
        table: int32 (2^m,), or None.
    """

    def __init__(self, num_qubits: int, qubits: Any, table: Any = None, num_outcomes: int | None = None):
        self.measured = np.ascontiguousarray(qubits, dtype=np.int64)
        if len(self.measured) > MAX_MEASURED_QUBITS:
            raise MemoryError(
                f"{len(self.measured)} qubits are measured together, and the probabilities of all bitstrings are "
                f"computed for at most {MAX_MEASURED_QUBITS} qubits; measure fewer qubits."
            )
        self.table = None if table is None else np.ascontiguousarray(table, dtype=np.int32)
        size = 1 << len(self.measured)
        super().__init__(num_qubits, size if num_outcomes is None else num_outcomes, (), (), (0,), (), ())

    @property
    def have_terms(self) -> bool:
        """Whether the observables are sums of terms: False."""
        return False

    @cached_property
    def sum_to_one(self) -> bool:
        """Whether each bitstring has an outcome, so that the probabilities of each row add up to 1."""
        return self.table is None or bool((self.table != DROPPED).all())

    @cached_property
    def not_zero(self) -> np.ndarray | None:
        """Int (R,), ascending, the outcomes that some bitstring has; None: all outcomes."""
        if self.table is None:
            return None
        outcomes = np.unique(self.table[self.table != DROPPED])
        return outcomes if len(outcomes) < self.num_observables else None

    @cached_property
    def structure(self) -> bytes:
        """A SHA-256 digest of the measured qubits and of the table."""
        table = b"" if self.table is None else self.table.tobytes()
        numbers = f"outcomes {self.num_qubits} {self.num_observables} ".encode()
        return sha256(numbers + self.measured.tobytes() + table).digest()

    def _find_support(self, num_circuit_qubits: int) -> np.ndarray:
        """Return 1 for each measured qubit, on which projectors are diagonal, and 0 for the others."""
        support = np.zeros(num_circuit_qubits, dtype=np.uint8)
        support[self.measured] = 1
        return support

    def _restrict(self, wires: np.ndarray) -> TermMasks:
        """Return masks without terms, which tell the outcome of each amplitude."""
        weights = np.zeros(int(wires.max(initial=-1)) + 1, dtype=np.int32)
        bits = wires[self.measured]
        weights[bits[bits >= 0]] = np.int32(1) << np.flatnonzero(bits >= 0).astype(np.int32)
        return OutcomeMasks(**vars(super()._restrict(wires)), weights=weights, table=self.table)


@dataclass(frozen=True, eq=False)
class OutcomeMasks(TermMasks):
    """The projectors onto K outcomes on n engine bits. There are no terms.

    Attributes:
        weights: int32 (n,), the weight of each engine bit in a bitstring: 2^j for the bit of measured qubit j, and 0
            for a bit that is not measured. A measured qubit that is not simulated stays in |0>, and adds 0.
        table: int32 (2^m,), the outcome of each bitstring; None if the bitstring is the outcome.
    """

    weights: np.ndarray
    table: np.ndarray | None

    @cached_property
    def outcome(self) -> np.ndarray:
        """Int32 (2^n,), the outcome of each amplitude, or `DROPPED`.

        It is made at its first use, because the memory for states of n qubits is checked before.
        """
        outcome = np.zeros(1, dtype=np.int32)
        for weight in self.weights:
            outcome = np.concatenate([outcome, outcome + weight])
        if self.table is not None:
            outcome = self.table[outcome]
        outcome.setflags(write=False)
        return outcome

    @property
    def num_bytes(self) -> int:
        """Bytes of the outcomes of all amplitudes here and in an engine."""
        return 2 * self.weights.itemsize << len(self.weights)
