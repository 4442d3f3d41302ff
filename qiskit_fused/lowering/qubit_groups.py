# SPDX-License-Identifier: Apache-2.0
"""Track the groups of qubits that gates have joined, and whether the state of each group depends on parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from qiskit_fused.program.program import Gate


class QubitGroups:
    """The groups of a circuit's qubits. `scan` brings them up to date with the gates recorded so far.

    Attributes:
        folded: numbers of the instructions whose gates were replaced by a start state.
    """

    def __init__(self, num_qubits: int):
        self.folded: list[int] = []
        self._group = [1 << qubit for qubit in range(num_qubits)]  # for each qubit: bit set of its group's qubits
        self._members: dict[int, list[int]] = {}  # for each group: its instructions that are not folded
        self._varies = 0  # bit set of the qubits in groups that depend on parameters
        self._num_scanned = 0  # number of scanned instructions

    def join(self, qubits: Iterable[int], varies: bool, instruction: int | None = None) -> None:
        """Join the groups of some qubits to one group.

        Args:
            qubits: active qubits of any groups.
            varies: whether the instruction or start state that joins the groups depends on parameters.
            instruction: the number of the instruction that joins the groups; None for a start state.
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
        """Join the qubits of each instruction that was recorded since the last call.

        The last instruction may get further gates, so the next call scans it again.

        Args:
            gates: all gates recorded so far.
            begins: the number of the first gate of each instruction, then the number of all gates.
        """
        last = len(begins) - 2
        for instruction in range(self._num_scanned, last + 1):
            its_gates = gates[begins[instruction] : begins[instruction + 1]]
            if its_gates:
                varies = any(angle.column >= 0 for gate in its_gates for angle in gate.angles)
                self.join([qubit for gate in its_gates for qubit in gate.qubits + gate.controls], varies, instruction)
        self._num_scanned = last

    def of(self, qubit: int) -> tuple[int, ...] | None:
        """Return the qubits of a qubit's group in ascending order; None for a group that depends on parameters."""
        return None if self._varies >> qubit & 1 else tuple(_bits(self._group[qubit]))

    def members(self, qubit: int) -> list[int]:
        """Return the instructions of a qubit's group that are not folded, in ascending order."""
        return sorted(set(self._members[self._group[qubit]]))

    def fold(self, qubit: int) -> None:
        """Record that a start state replaces all instructions of a qubit's group, the last instruction included."""
        self.folded += self.members(qubit)
        self._members[self._group[qubit]] = []
        self._num_scanned += 1


def _bits(mask: int) -> Iterator[int]:
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest
