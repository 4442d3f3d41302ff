# SPDX-License-Identifier: Apache-2.0
"""Program -> prefix, middle and suffix: prefix and suffix are the same in all rows of a batch, the middle varies.

The *prefix* holds the instructions that no varying instruction precedes on any path of qubits. The *suffix* holds the
other instructions that no varying instruction follows. Instructions on different qubits commute, so prefix, middle and
suffix one after the other are the circuit. The states between the parts number the qubits as the program's ops do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from qiskit_fused.program.program import Program


@dataclass(frozen=True, eq=False)
class Split:
    """The parts of a program; a part without ops is None.

    Attributes:
        prefix: starts in the start state of the program.
        rest: all instructions after the prefix, starting in the final states of the prefix. The whole program if there
            is no prefix.
        middle: ``rest`` without the suffix; starts as ``rest`` does. None if there is no suffix.
        suffix: starts in the final states of ``middle``.
    """

    prefix: Program | None
    rest: Program
    middle: Program | None
    suffix: Program | None


def split(program: Program, varies: np.ndarray) -> Split:
    """Split a program into the parts that are the same in all rows of a batch and the part that varies.

    Args:
        program: the lowered circuit.
        varies: bool (C,), which columns differ between the rows.

    Cost: O(gates) in Python.
    """
    qubits, op_varies = _qubits_of_instructions(program), program.ops.varies(varies)
    begin = program.instructions[:, 1]
    varying = np.diff(np.concatenate([[0], np.cumsum(op_varies)])[begin]) > 0
    moved = _moved_wires(program, np.ones(len(qubits), bool))
    active = program.wires >= 0
    if [moved[wire] for wire in program.wires[active]] != program.output_wires[active].tolist():
        return Split(None, program, None, None)  # a rename of qubits is not the product of the swaps among the gates
    forward, none = np.arange(len(qubits)), np.zeros(len(qubits), bool)
    is_prefix = none if program.takes_states else _without_varying_before(qubits, varying, forward)
    prefix, rest = _cut(program, is_prefix)
    if rest is None:
        is_prefix, rest = none, program
    is_suffix = _without_varying_before(qubits, varying | is_prefix, forward[::-1])
    middle, suffix = _cut(rest, is_suffix[~is_prefix], from_end=True)
    return Split(prefix, rest, middle, suffix)


def _qubits_of_instructions(program: Program) -> list[int]:
    """Return, for each instruction, the mask of the qubits that its gates act on."""
    masks = []
    for begin, end in zip(program.instructions[:-1, 0].tolist(), program.instructions[1:, 0].tolist()):
        mask = 0
        for gate in program.gates[begin:end]:
            for qubit in gate.qubits + gate.controls:
                mask |= 1 << qubit
        masks.append(mask)
    return masks


def _without_varying_before(qubits: list[int], varying: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return which instructions, bool, do not come after a varying one through any chain of shared qubits.

    Args:
        qubits: for each instruction, the mask of its qubits.
        varying: bool, for each instruction, whether it differs between rows.
        order: the indices of the instructions in the order of the walk.
    """
    is_free, reached, varies = np.zeros(len(qubits), bool), 0, varying.tolist()
    for number in order.tolist():
        if varies[number] or qubits[number] & reached:
            reached |= qubits[number]
        else:
            is_free[number] = True
    return is_free


def _moved_wires(program: Program, chosen: np.ndarray) -> list[int]:
    """Return, for each wire before the chosen instructions, its wire after them: swaps exchange wires."""
    moved = list(range(program.num_qubits))
    for number in np.flatnonzero(chosen).tolist():
        begin, end = program.instructions[number : number + 2, 0].tolist()
        for gate in program.gates[begin:end]:
            if gate.name == "swap" and not gate.controls:
                first, second = gate.qubits
                moved[first], moved[second] = moved[second], moved[first]
    return moved


def _cut(program: Program, chosen: np.ndarray, from_end: bool = False) -> tuple[Program | None, Program | None]:
    """Cut off the chosen instructions at the start, or at the end: return (first part, second part).

    Both parts are None if the chosen instructions have no ops.
    """
    is_first = ~chosen if from_end else chosen
    num_ops = np.diff(program.instructions[:, 1])
    if not num_ops[chosen].sum():
        return None, None
    moved = _moved_wires(program, is_first)
    wires = np.where(program.wires >= 0, np.array([*moved, -1])[program.wires], -1).astype(program.wires.dtype)
    first = _take(program, is_first)
    second = _take(program, ~is_first)
    second = replace(
        second,
        wires=wires,
        gates=tuple(gate.on(moved) for gate in second.gates),
        pieces=(),
        prefix=(),
        any_start=True,
    )
    return replace(first, output_wires=wires), second


def _take(program: Program, chosen: np.ndarray) -> Program:
    begins = program.instructions
    gates = [
        gate for number in np.flatnonzero(chosen) for gate in program.gates[begins[number, 0] : begins[number + 1, 0]]
    ]
    sizes = np.diff(begins, axis=0)
    instructions = np.concatenate([np.zeros((1, 2), np.int64), np.cumsum(sizes[chosen], axis=0)])
    ops = program.ops.take(np.flatnonzero(np.repeat(chosen, sizes[:, 1])))
    return replace(program, gates=tuple(gates), ops=ops, instructions=instructions)
