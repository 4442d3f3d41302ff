# SPDX-License-Identifier: Apache-2.0
"""Groups of qubits that gates have joined so far, and which of them depend on parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from qiskit_fused.program.program import Gate


class QubitGroups:
    """The groups of a circuit, which is scanned as far as somebody has asked for it.

    Attributes:
        folded: numbers of the instructions whose gates a start state stands for.
    """

    def __init__(self, num_qubits: int):
        self.folded: list[int] = []
        self._group = [1 << qubit for qubit in range(num_qubits)]  # of each qubit: the qubits of its group, as bits
        self._members: dict[int, list[int]] = {}  # of each group: its instructions that are not folded
        self._varies = 0  # qubits of groups that depend on parameters, as bits
        self._num_scanned = 0  # instructions

    def join(self, qubits: Iterable[int], varies: bool, instruction: int | None = None) -> None:
        """Make qubits one group.

        Args:
            qubits: of any groups.
            varies: whether what joins them depends on parameters.
            instruction: the number of the instruction that joins them; None for a start state.
        """
        joined = 0
        for qubit in qubits:
            joined |= self._group[qubit]
        members = [] if instruction is None else [instruction]
        for group in {self._group[qubit] for qubit in _bits(joined)}:
            members += self._members.pop(group, [])
        self._members[joined] = members
        for qubit in _bits(joined):
            self._group[qubit] = joined
        if varies or joined & self._varies:
            self._varies |= joined

    def scan(self, gates: Sequence[Gate], begins: Sequence[int]) -> None:
        """Join the qubits of the instructions since the last call.

        The last instruction may still get gates, so that the next call scans it again.

        Args:
            gates: all gates so far.
            begins: number of the first gate of each instruction, and the number of gates.
        """
        last = len(begins) - 2
        for instruction in range(self._num_scanned, last + 1):
            its_gates = gates[begins[instruction] : begins[instruction + 1]]
            if its_gates:
                varies = any(angle.column >= 0 for gate in its_gates for angle in gate.angles)
                self.join([qubit for gate in its_gates for qubit in gate.qubits + gate.controls], varies, instruction)
        self._num_scanned = last

    def of(self, qubit: int) -> tuple[int, ...] | None:
        """Return the qubits of a qubit's group in ascending order; None where it depends on parameters."""
        return None if self._varies >> qubit & 1 else tuple(_bits(self._group[qubit]))

    def members(self, qubit: int) -> list[int]:
        """Return the instructions of a qubit's group that are not folded, in ascending order."""
        return sorted(set(self._members[self._group[qubit]]))

    def fold(self, qubit: int) -> None:
        """Note that a start state stands for the instructions of a qubit's group, the last one included."""
        self.folded += self.members(qubit)
        self._members[self._group[qubit]] = []
        self._num_scanned += 1


def _bits(mask: int) -> Iterator[int]:
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest
