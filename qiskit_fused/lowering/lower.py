# SPDX-License-Identifier: Apache-2.0
"""Lower a QuantumCircuit to a Program, which holds the original gates and the ops of the normal form.

Idle qubits are dropped, and angles become columns. The circuit is walked once. Standard gates take a short path through
the gate table. Every other operation has a rule in `rules.py`, or its definition is walked under its controls.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from qiskit.circuit import (
    AnnotatedOperation,
    Barrier,
    CircuitInstruction,
    ControlFlowOp,
    ControlledGate,
    Delay,
    Instruction,
    Measure,
    QuantumCircuit,
    Reset,
)
from qiskit.circuit.annotated_operation import InverseModifier
from qiskit.circuit.library import Initialize, StatePreparation, UGate, UnitaryGate

from qiskit_fused.common.cancellation import stop_if_cancelled
from qiskit_fused.lowering import matrices, rules
from qiskit_fused.lowering.constant_prefix import without_folded
from qiskit_fused.lowering.context import LoweringContext
from qiskit_fused.lowering.standard_gates import STANDARD, TABLE_CLASSES, stored_operation
from qiskit_fused.program.expression_columns import CompiledExpressions
from qiskit_fused.program.global_phase import GlobalPhase, PhaseSum
from qiskit_fused.program.program import Program

_MAX_PREPARED_QUBITS = 20  # in larger circuits a StatePreparation is synthesised instead of stored as a start state


PASSIVE = frozenset(("barrier", "delay", "id", "measure", "reset"))
"""Names of instructions that leave a qubit idle if no other instruction acts on the qubit."""


def lower(circuit: QuantumCircuit) -> Program:
    """Lower a circuit.

    Args:
        circuit: any unitary circuit, with or without parameters. Final measurements, barriers, delays and resets of
            fresh qubits are dropped. An `Initialize` of fresh qubits becomes a start state.

    Returns:
        The program. Its columns are ``circuit.parameters``, followed by the expressions that need their own column.

    Raises:
        UnsupportedInstruction: for an instruction that no engine can simulate. The text names the cure.
        ValueError: for a constant angle that is not a finite real number.

    Cost: about 10 microseconds for each gate, once per circuit.
    """
    return _Lowering(circuit).program()


def _instructions(circuit: QuantumCircuit) -> Iterable[CircuitInstruction]:
    """Return the instructions of a circuit. Reading them from ``circuit.data`` would take five times as long."""
    _ = circuit.data  # builds a lazy circuit
    return circuit._data


def _active_qubits(circuit: QuantumCircuit) -> list[int]:
    """Return the numbers of the circuit's qubits on which some instruction acts, ascending."""
    active: set = set()
    for instruction in _instructions(circuit):
        name = instruction.name
        is_passive = name in PASSIVE
        if is_passive and (name == "id" or isinstance(instruction.operation, Barrier | Delay | Measure | Reset)):
            continue
        active.update(instruction.qubits)
    return [index for index, qubit in enumerate(circuit.qubits) if qubit in active]


class _Lowering(LoweringContext):
    """One walk over a circuit."""

    def __init__(self, circuit: QuantumCircuit):
        super().__init__(circuit, _active_qubits(circuit))

    def program(self) -> Program:
        """Walk the circuit and return the program."""
        stop_if_cancelled()
        wires = np.full(self.circuit.num_qubits, -1, dtype=np.int32)
        wires[self.active] = np.arange(len(self.active))
        self.walk(self.circuit, wires.tolist(), (), 0, top=True)
        output_wires = wires.copy()
        output_wires[self.active] = self.form.wire_of
        gates, ops, left_out, instructions, prefix = without_folded(self)
        names = tuple(parameter.name for parameter in self.parameters)
        return Program(
            num_qubits=len(self.active),
            num_circuit_qubits=self.circuit.num_qubits,
            wires=wires,
            output_wires=output_wires,
            num_parameters=len(self.parameters),
            expressions=CompiledExpressions(self.tapes, self.origins, names),
            gates=tuple(gates),
            ops=ops,
            parameter_names=names,
            instructions=instructions,
            pieces=tuple(self.pieces),
            prefix=prefix,
            needs_zero=self.needs_zero,
            phase=GlobalPhase(
                PhaseSum.of_angles(self.phases),
                PhaseSum.of_angles(left_out),
                CompiledExpressions(self.phase_tapes, self.phase_origins, names),
                self.unknown_phase,
            ),
        )

    # The walk.

    def walk(
        self, circuit: QuantumCircuit, qubits: Sequence[int], controls: tuple[int, ...], state: int, top: bool = False
    ) -> None:
        """Lower the instructions of a circuit. See `LoweringContext.walk`."""
        where = dict(zip(circuit.qubits, qubits))
        if controls:
            self.gate("global_phase", (), (self.angle(circuit.global_phase),), controls, state)
        else:
            self.add_phase(circuit.global_phase)
        for index, instruction in enumerate(_instructions(circuit)):
            targets = tuple([where[qubit] for qubit in instruction.qubits])
            if self.recording:
                self.begins.append(self.place())
            if top:
                self.index, self.name, self.qubits = index, instruction.name, instruction.qubits
            if instruction.is_standard_gate():
                entry = STANDARD.get(instruction.name)
                if entry is not None:
                    name, num_controls = entry
                    params = instruction.params
                    angles = tuple([self.angle(param) for param in params]) if params else ()
                    if num_controls:
                        own_controls, targets = targets[:num_controls], targets[num_controls:]
                        self.gate(
                            name,
                            targets,
                            angles,
                            own_controls + controls,
                            (1 << num_controls) - 1 | state << num_controls,
                        )
                    else:
                        self.gate(name, targets, angles, controls, state)
                    continue
            self.operation(stored_operation(instruction), targets, controls, state)

    def operation(self, op: Instruction, qubits: tuple[int, ...], controls: tuple[int, ...], state: int) -> None:
        """Lower any operation on active qubits under controls. See `LoweringContext.operation`."""
        kind = getattr(op, "base_class", type(op))
        if kind in TABLE_CLASSES:
            self.gate(TABLE_CLASSES[kind], qubits, tuple([self.angle(param) for param in op.params]), controls, state)
        elif isinstance(op, Barrier | Delay):
            pass
        elif isinstance(op, Measure):
            self._measure(qubits[0])
        elif isinstance(op, Reset):
            self.require_fresh(op, qubits)
        elif isinstance(op, Initialize):
            self.require_fresh(op, qubits)
            rules.prepare(self, op, qubits)
        elif isinstance(op, ControlFlowOp):
            raise self.unsupported(
                op.name,
                "is control flow; append the instructions that are to run to the circuit itself (one branch, all turns "
                "of a loop)",
                fallback=False,
            )
        elif isinstance(op, ControlledGate) and self.controlled(op, qubits, controls, state):
            pass
        elif isinstance(op, StatePreparation) and not controls and self._is_start_state(op, qubits):
            rules.prepare(self, op, qubits)
        elif kind in rules.RULES:
            rules.RULES[kind](self, op, qubits, controls, state)
        elif isinstance(op, UnitaryGate):  # an object of a subclass is lowered by its matrix
            matrices.unitary(self, op, qubits, controls, state)
        elif (definition := self.definition(op)) is not None:
            self.walk(definition, qubits, controls, state)
        else:
            matrices.opaque(self, op, qubits, controls, state)

    def controlled(
        self,
        op: ControlledGate,
        qubits: tuple[int, ...],
        controls: tuple[int, ...],
        state: int,
        inverse: bool = False,
    ) -> bool:
        """Lower a controlled gate, or its inverse. See `LoweringContext.controlled`."""
        num_controls = op.num_ctrl_qubits
        base = op.base_gate
        if op.num_qubits != num_controls + base.num_qubits:
            return False  # the gate has auxiliary qubits or several targets
        own_controls, targets = qubits[:num_controls], qubits[num_controls:]
        controls, state = own_controls + controls, op.ctrl_state | state << num_controls
        if base.base_class is UGate and len(op.params) == 4:  # CUGate, and the gate that CUGate.control() returns
            theta, phi, lam, gamma = op.params
            if inverse:
                theta, phi, lam, gamma = -theta, -lam, -phi, -gamma
            theta, phi, lam, gamma = map(self.angle, (theta, phi, lam, gamma))
            self.gate("global_phase", (), (gamma,), controls, state)
            self.gate("u", targets, (theta, phi, lam), controls, state)
            return True
        kind = getattr(base, "base_class", type(base))
        if kind not in TABLE_CLASSES and kind not in rules.RULES and not isinstance(base, ControlledGate):
            definition = getattr(base, "definition", None)
            if definition is not None and definition.parameters:
                return False  # assign_parameters() updates the definition of the controlled gate, not of its base gate
        self.operation(AnnotatedOperation(base, InverseModifier()) if inverse else base, targets, controls, state)
        return True

    # Starting and ending.

    def _measure(self, qubit: int) -> None:
        if qubit >= 0 and not self.measured >> qubit & 1:
            self.measured |= 1 << qubit
            self.measurements[qubit] = (self.name, self.index, self._circuit_qubits())

    def _is_start_state(self, op: StatePreparation, qubits: Sequence[int]) -> bool:
        fresh = not any((self.touched | self.measured) >> qubit & 1 for qubit in qubits)
        return fresh and op.name == "state_preparation" and len(self.active) <= _MAX_PREPARED_QUBITS
