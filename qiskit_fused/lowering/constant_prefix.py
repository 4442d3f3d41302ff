# SPDX-License-Identifier: Apache-2.0
"""Replace constant gates at the start of a circuit by the state that they prepare, if a dense matrix is among them.

A group is a set of qubits that gates have joined so far. While all gates of a group are constant, they prepare one
constant state of its qubits. A dense matrix on k qubits takes 2**k multiply-adds for each amplitude of each row. So
when lowering meets a dense matrix, it computes the state of the matrix's group, and this piece of the start state
replaces the gates of the group. The gates of groups without a dense matrix stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from qiskit_fused.common.bits import spread
from qiskit_fused.lowering.context import LoweringContext
from qiskit_fused.lowering.emitter import NormalForm
from qiskit_fused.lowering.gate_table import GATES, apply_gate, gate_matrix
from qiskit_fused.lowering.unitaries import emit_unitary
from qiskit_fused.program.amplitude_encoding import Encoding
from qiskit_fused.program.global_phase import PhaseSum
from qiskit_fused.program.program import Angle, Gate, Ops, Program

MIN_DENSE_QUBITS = 3  # matrices on fewer qubits are few ops
MAX_GROUP_QUBITS = 16  # larger groups stay gates: one gate on a vector of 16 qubits takes about 1 ms
MAX_CIRCUIT_QUBITS = 20  # larger circuits store no such start state: on 20 qubits it takes 16 MiB

# Microseconds of a gate on k qubits on a vector of m qubits: _PER_GATE + 2**m * (_PER_AMPLITUDE + _PER_PRODUCT * 2**k),
# measured on one AVX-512 core within a factor of 3.
_PER_GATE, _PER_AMPLITUDE, _PER_PRODUCT = 15.0, 0.02, 0.0003
# Microseconds of the first call of a circuit with a dense gate on k qubits: _FIXED + _PER_ENTRY * 4**k, measured on one
# AVX-512 core within a factor of 2.
_FIXED, _PER_ENTRY = 1000.0, 0.1


def start_from_gate(lowering: LoweringContext, matrix: np.ndarray) -> bool:
    """Replace the gates of the last gate's group by a start state if this is faster. Return whether this was done.

    Args:
        lowering: the walk over the circuit. Its last gate is recorded, and its ops are not emitted yet.
        matrix: the matrix of the last gate, without the gate's controls.
    """
    dense = lowering.gates[-1]
    if len(dense.qubits) < MIN_DENSE_QUBITS or len(lowering.active) > MAX_CIRCUIT_QUBITS:
        return False
    groups, begins = lowering.groups, [gates for gates, _, _ in lowering.begins] + [len(lowering.gates)]
    for piece in lowering.pieces:
        groups.join(piece.qubits, piece.varies)
    groups.scan(lowering.gates, begins)
    group = groups.of(dense.qubits[0])
    if group is None or len(group) > MAX_GROUP_QUBITS:
        return False
    gates = [
        gate for number in groups.members(group[0]) for gate in lowering.gates[begins[number] : begins[number + 1]]
    ]
    if sum(_microseconds(gate, len(group)) for gate in gates) > _FIXED + _PER_ENTRY * 4 ** len(dense.qubits):
        return False
    inside = [piece for piece in lowering.pieces if piece.qubits[0] in group]
    vector = _evolve(group, inside, gates[:-1], dense, matrix)
    lowering.pieces = [piece for piece in lowering.pieces if piece.qubits[0] not in group]
    lowering.pieces.append(Encoding.constant(group, vector / np.linalg.norm(vector)))
    groups.fold(group[0])
    lowering.begins.append(lowering.place())  # further gates of this instruction stay gates
    for qubit in group:
        lowering.form.wire_of[qubit] = qubit  # the state includes the swaps of the group
    return True


def _microseconds(gate: Gate, num_qubits: int) -> float:
    per_amplitude = _PER_AMPLITUDE + _PER_PRODUCT * (1 << len(gate.qubits))
    return _PER_GATE + per_amplitude * (1 << num_qubits)


class _State:
    """The state of some qubits, complex128 (2**m,). Bit j of an index of the vector is qubit ``qubits[j]``."""

    def __init__(self, qubits: Sequence[int], vector: np.ndarray):
        self.qubits, self.vector = list(qubits), vector


def _evolve(
    group: Sequence[int], pieces: Sequence[Encoding], gates: Sequence[Gate], dense: Gate, matrix: np.ndarray
) -> np.ndarray:
    """Return the state of a group of m qubits, complex128 (2**m,), after pieces, gates and a dense gate.

    Args:
        group: the m active qubits; bit j of an index of the state is qubit ``group[j]``.
        pieces: constant start states of some of these qubits. All other qubits start in |0>.
        gates: gates with constant angles.
        dense: the gate that acts last.
        matrix: the matrix of the dense gate, without its controls.
    """
    states = {qubit: _State([qubit], np.array([1, 0], dtype=np.complex128)) for qubit in group}
    for piece in pieces:
        state = _State(piece.qubits, piece.normalised(np.zeros((1, 0)))[0][0])
        states.update(dict.fromkeys(piece.qubits, state))
    for gate in gates:
        _apply(states, gate, gate_matrix(gate, [angle.offset for angle in gate.angles]))
    _apply(states, dense, matrix)
    whole = _merge(states, group)
    vector = np.empty_like(whole.vector)
    vector[spread([group.index(qubit) for qubit in whole.qubits])] = whole.vector
    return vector


def _merge(states: dict[int, _State], qubits: Iterable[int]) -> _State:
    """Join the states of these qubits to one state, and return this state."""
    parts = list(dict.fromkeys([states[qubit] for qubit in qubits]))
    merged = parts[0]
    for part in parts[1:]:
        merged = _State(merged.qubits + part.qubits, np.outer(part.vector, merged.vector).ravel())
    states.update(dict.fromkeys(merged.qubits, merged))
    return merged


def _apply(states: dict[int, _State], gate: Gate, matrix: np.ndarray) -> None:
    state = _merge(states, gate.qubits + gate.controls)
    places = {qubit: place for place, qubit in enumerate(state.qubits)}
    state.vector = apply_gate(state.vector, matrix, gate.on(places))


# Programs.


def without_folded(
    lowering: LoweringContext,
) -> tuple[list[Gate], Ops, list[Angle], np.ndarray, tuple[tuple[Gate, ...], ...]]:
    """Return the parts of a program without its folded instructions, whose gates a start state replaces.

    Returns:
        The other gates; the other ops; the phases that these ops leave out; the array ``Program.instructions``, int64
        (M + 1, 2), of the other instructions; and the gates of each folded instruction.
    """
    begins = np.array([*lowering.begins, lowering.place()], dtype=np.int64)
    instructions, phases = begins[:, :2], lowering.form.phases
    ops, folded = lowering.form.finish(), sorted(lowering.groups.folded)
    if not folded:
        return lowering.gates, ops, phases, instructions, ()
    stays = np.ones(len(instructions) - 1, dtype=bool)
    stays[folded] = False
    sizes = np.diff(instructions, axis=0)
    of_instructions = [lowering.gates[begin:end] for begin, end in zip(instructions[:-1, 0], instructions[1:, 0])]
    gates = [gate for number in np.flatnonzero(stays) for gate in of_instructions[number]]
    ops = ops.take(np.repeat(stays, sizes[:, 1]))
    # All phases belong to instructions: the first instruction begins before the first phase.
    phases = [phase for phase, is_kept in zip(phases, np.repeat(stays, np.diff(begins[:, 2]))) if is_kept]
    instructions = np.concatenate([np.zeros((1, 2), np.int64), np.cumsum(sizes[stays], axis=0)])
    return gates, ops, phases, instructions, tuple(tuple(of_instructions[number]) for number in folded)


def with_prefix(program: Program) -> Program:
    """Return the program with the gates and ops of its prefix in the place of the start state."""
    if not program.prefix:
        return program
    form, phase = NormalForm(program.num_qubits), program.phase
    assert phase is not None
    begins: list[tuple[int, int]] = []
    gates: list[Gate] = []
    for members in program.prefix:
        begins.append((len(gates), len(form)))
        for gate in members:
            _emit(form, gate)
            gates.append(gate)
    begins.append((len(gates), len(form)))
    for qubit in range(program.num_qubits):  # program.ops expect each qubit on its own wire, so undo the swaps
        if form.wire_of[qubit] != qubit:
            other = form.wire_of.index(qubit)
            for control, target in ((qubit, other), (other, qubit), (qubit, other)):
                form.cx(control, target)
            form.swap(qubit, other)
    moved = program.instructions + np.array([len(gates), len(form)])
    return replace(
        program,
        gates=(*gates, *program.gates),
        ops=Ops.joined([form.finish(), program.ops]),
        instructions=np.concatenate([np.array(begins, dtype=np.int64), moved]),
        pieces=(),
        prefix=(),
        phase=replace(phase, left_out=phase.left_out.plus(PhaseSum.of_angles(form.phases))),
    )


def _emit(form: NormalForm, gate: Gate) -> None:
    """Emit a gate whose angles are constant."""
    view = form.controlled(gate.controls, gate.ctrl_state)
    if gate.matrix is None:
        GATES[gate.name].lower(view, gate.qubits, gate.angles)
        return
    matrix = gate_matrix(gate, [angle.offset for angle in gate.angles])
    if matrix.ndim == 1:
        view.diagonal(gate.qubits, np.angle(matrix))
    else:
        emit_unitary(view, matrix, gate.qubits)
