# SPDX-License-Identifier: Apache-2.0
"""Lower a QuantumCircuit to a Program: idle qubits dropped, angles as columns, gates kept and in normal form.

One walk over the circuit. Standard gates take a short path through the gate table; everything else is an operation
with a rule in `synthesis.py` or is walked through its own definition, under the controls it is in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from qiskit.circuit import (
    Barrier,
    CircuitInstruction,
    ControlFlowOp,
    ControlledGate,
    Delay,
    Instruction,
    Measure,
    Parameter,
    ParameterExpression,
    QuantumCircuit,
    Reset,
)
from qiskit.circuit.library import Initialize, StatePreparation, UGate, UnitaryGate
from qiskit.exceptions import QiskitError

from qiskit_fused.lowering import matrices
from qiskit_fused.lowering import rules as synthesis
from qiskit_fused.lowering.emitter import NormalForm
from qiskit_fused.lowering.errors import UnsupportedInstruction
from qiskit_fused.lowering.expressions import Key, affine, constant_value, is_finite_real, shorten, translate
from qiskit_fused.lowering.gate_table import GATES
from qiskit_fused.lowering.standard_gates import STANDARD, TABLE_CLASSES, stored_operation
from qiskit_fused.program.amplitude_encoding import Encoding
from qiskit_fused.program.expression_columns import CompiledExpressions
from qiskit_fused.program.program import Angle, Gate, Program
from qiskit_fused.program.tapes import Tape

_MAX_PREPARED_QUBITS = 20  # in larger circuits a StatePreparation is synthesised instead of stored as a start state


PASSIVE = frozenset(("barrier", "delay", "id", "measure", "reset"))


def lower(circuit: QuantumCircuit) -> Program:
    """Lower a circuit.

    Args:
        circuit: any unitary circuit, with parameters or without; final measurements, barriers, delays and resets of
            fresh qubits are dropped, an `Initialize` of fresh qubits is the start state.

    Returns:
        The program. Its columns are ``circuit.parameters`` followed by the expressions that need their own column.

    Raises:
        UnsupportedInstruction: for an instruction that no sweep can do; it names the cure.
        ValueError: for a constant angle that is not a finite real number.

    Cost: about 10 microseconds a gate, once per circuit.
    """
    return _Lowering(circuit).program()


def _instructions(circuit: QuantumCircuit) -> Iterable[CircuitInstruction]:
    """Return the instructions of a circuit, which its `data` give one by one in five times the time."""
    _ = circuit.data  # builds a circuit that is lazy
    return circuit._data


class _Lowering:
    """The state of one walk.

    Bit sets of active qubits: ``touched`` are not known to be |0>, ``measured`` must not be acted on any more.
    """

    def __init__(self, circuit: QuantumCircuit):
        self.circuit = circuit
        self.circuit_index = {qubit: index for index, qubit in enumerate(circuit.qubits)}
        self.parameters: list[Parameter] = list(circuit.parameters)
        self.columns = {parameter: column for column, parameter in enumerate(self.parameters)}
        self.angles = {parameter: Angle(column, 1.0, 0.0) for parameter, column in self.columns.items()}
        self.translated: dict[Key, Tape] = {}
        self.tapes: list[Tape] = []
        self.origins: list[str] = []
        self.tape_columns: dict[Tape | tuple[Angle, ...], int] = {}
        self.definitions: dict[int, tuple[object, QuantumCircuit | None]] = {}
        self.unitaries: dict[bytes, Any] = {}  # their decompositions, by matrix
        self.gates: list[Gate] = []
        self.recording = True
        self.begins: list[tuple[int, int]] = []  # gates and ops before each instruction
        self.pieces: list[Encoding] = []
        self.needs_zero: tuple[str, int, tuple[int, ...]] | None = None
        self.touched = 0
        self.measured = 0
        self.measurements: dict[int, tuple[str, int, tuple[int, ...]]] = {}
        self.index = 0
        self.name = ""
        self.qubits: tuple = ()
        self.active = self._active_qubits()
        self.form = NormalForm(len(self.active))

    def program(self) -> Program:
        """Walk the circuit and return the program."""
        wires = np.full(self.circuit.num_qubits, -1, dtype=np.int32)
        wires[self.active] = np.arange(len(self.active))
        self.walk(self.circuit, wires.tolist(), (), 0, top=True)
        output_wires = wires.copy()
        output_wires[self.active] = self.form.slot
        return Program(
            num_qubits=len(self.active),
            num_circuit_qubits=self.circuit.num_qubits,
            wires=wires,
            output_wires=output_wires,
            num_parameters=len(self.parameters),
            expressions=CompiledExpressions(self.tapes, self.origins, [one.name for one in self.parameters]),
            gates=tuple(self.gates),
            ops=self.form.finish(),
            parameter_names=tuple(parameter.name for parameter in self.parameters),
            instructions=np.array([*self.begins, (len(self.gates), len(self.form))], dtype=np.int64),
            pieces=tuple(self.pieces),
            needs_zero=self.needs_zero,
        )

    # The walk.

    def _active_qubits(self) -> list[int]:
        active: set = set()
        for instruction in _instructions(self.circuit):
            name = instruction.name
            is_passive = name in PASSIVE
            if is_passive and (name == "id" or isinstance(instruction.operation, Barrier | Delay | Measure | Reset)):
                continue
            active.update(instruction.qubits)
        return sorted(self.circuit_index[qubit] for qubit in active)

    def walk(
        self, circuit: QuantumCircuit, qubits: Sequence[int], controls: tuple[int, ...], state: int, top: bool = False
    ) -> None:
        """Lower the instructions of a circuit whose qubit j is active qubit ``qubits[j]`` (-1: idle)."""
        where = dict(zip(circuit.qubits, qubits))
        if controls:
            self.gate("global_phase", (), (self.angle(circuit.global_phase),), controls, state)
        for index, instruction in enumerate(_instructions(circuit)):
            targets = tuple([where[qubit] for qubit in instruction.qubits])
            if self.recording:
                self.begins.append((len(self.gates), len(self.form)))
            if top:
                self.index, self.name, self.qubits = index, instruction.name, instruction.qubits
            if instruction.is_standard_gate():
                entry = STANDARD.get(instruction.name)
                if entry is not None:
                    name, num_controls = entry
                    params = instruction.params
                    angles = tuple([self.angle(param) for param in params]) if params else ()
                    if num_controls:
                        own, targets = targets[:num_controls], targets[num_controls:]
                        self.gate(
                            name, targets, angles, own + controls, (1 << num_controls) - 1 | state << num_controls
                        )
                    else:
                        self.gate(name, targets, angles, controls, state)
                    continue
            self.operation(stored_operation(instruction), targets, controls, state)

    def gate(
        self,
        name: str,
        qubits: tuple[int, ...],
        angles: tuple[Angle, ...] = (),
        controls: tuple[int, ...] = (),
        state: int = 0,
    ) -> None:
        """Lower a gate of the table."""
        if name == "id" or (name == "global_phase" and (not controls or angles[0] == Angle())):
            return
        if name == "rv":
            angles = self._rotation_vector(angles)
        mask = 0
        for qubit in qubits + controls if controls else qubits:
            mask |= 1 << qubit
        if self.measured & mask:
            self._require_unmeasured(qubits + controls, mask)
        self.touched |= mask
        if self.recording:
            self.gates.append(Gate(name, qubits, angles, controls, state))
        form = self.form.controlled(controls, state) if controls else self.form
        try:
            GATES[name].lower(form, qubits, angles)
        except NotImplementedError as error:
            raise self.unsupported(name, f"cannot be lowered: {error}") from None

    def touch(self, qubits: Sequence[int]) -> None:
        """Note that qubits are acted on."""
        mask = 0
        for qubit in qubits:
            mask |= 1 << qubit
        self._require_unmeasured(qubits, mask)
        self.touched |= mask

    def _require_unmeasured(self, qubits: Sequence[int], mask: int) -> None:
        if self.measured & mask:
            name, index, where = next(self.measurements[qubit] for qubit in qubits if self.measured >> qubit & 1)
            raise UnsupportedInstruction(
                name,
                index,
                where,
                f"is a mid-circuit measurement: instruction {self.index}, '{self.name}', follows on the same qubit; a "
                "statevector has no classical outcomes, move the measurement to the end (there it is dropped)",
                fallback=False,
            )

    def operation(self, op: Instruction, qubits: tuple[int, ...], controls: tuple[int, ...], state: int) -> None:
        """Lower any operation on active qubits, under controls."""
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
            synthesis.prepare(self, op, qubits)
        elif isinstance(op, ControlFlowOp):
            raise self.unsupported(
                op.name,
                "is control flow; append the instructions that are to run to the circuit itself (one branch, all turns "
                "of a loop)",
                fallback=False,
            )
        elif isinstance(op, ControlledGate) and self._controlled(op, qubits, controls, state):
            pass
        elif isinstance(op, StatePreparation) and not controls and self._is_start_state(op, qubits):
            synthesis.prepare(self, op, qubits)
        elif kind in synthesis.RULES:
            synthesis.RULES[kind](self, op, qubits, controls, state)
        elif isinstance(op, UnitaryGate):  # of a class derived from it: the matrix says what it does
            matrices.unitary(self, op, qubits, controls, state)
        elif (definition := self.definition(op)) is not None:
            self.walk(definition, qubits, controls, state)
        else:
            matrices.opaque(self, op, qubits, controls, state)

    def definition(self, op: Instruction) -> QuantumCircuit | None:
        """Return the circuit that an operation stands for, if it has one."""
        known = self.definitions.get(id(op))
        if known is not None:
            return known[1]
        try:
            definition = op.to_circuit() if hasattr(op, "to_circuit") else op.definition
        except (QiskitError, TypeError, ValueError, AttributeError) as error:
            raise self.unsupported(
                op.name, f"has no definition as gates: {error}; bind its parameters or define it by gates"
            ) from error
        self.definitions[id(op)] = (op, definition)  # holding op keeps its id from being reused
        return definition

    def _controlled(self, op: ControlledGate, qubits: tuple[int, ...], controls: tuple[int, ...], state: int) -> bool:
        """Lower a controlled gate as its base gate under controls; False if only its definition tells what it does."""
        num_controls = op.num_ctrl_qubits
        base = op.base_gate
        if op.num_qubits != num_controls + base.num_qubits:
            return False  # auxiliary qubits, or several targets
        own, targets = qubits[:num_controls], qubits[num_controls:]
        controls, state = own + controls, op.ctrl_state | state << num_controls
        if base.base_class is UGate and len(op.params) == 4:  # CUGate and what Qiskit makes of its further controls
            theta, phi, lam, gamma = (self.angle(param) for param in op.params)
            self.gate("global_phase", (), (gamma,), controls, state)
            self.gate("u", targets, (theta, phi, lam), controls, state)
            return True
        kind = getattr(base, "base_class", type(base))
        if kind not in TABLE_CLASSES and kind not in synthesis.RULES and not isinstance(base, ControlledGate):
            definition = getattr(base, "definition", None)
            if definition is not None and definition.parameters:
                return False  # assign_parameters() updates the definition of the controlled gate, not that of its base
        self.operation(base, targets, controls, state)
        return True

    # Starting and ending.

    def _measure(self, qubit: int) -> None:
        if qubit >= 0 and not self.measured >> qubit & 1:
            self.measured |= 1 << qubit
            self.measurements[qubit] = (self.name, self.index, self._circuit_qubits())

    def require_fresh(self, op: Instruction, qubits: Sequence[int]) -> None:
        """Raise unless qubits are in |0>, and note that this instruction needs them to be."""
        self.needs_zero = self.needs_zero or (self.name, self.index, self._circuit_qubits())
        active = [qubit for qubit in qubits if qubit >= 0]
        mask = sum(1 << qubit for qubit in active)
        self._require_unmeasured(active, mask)
        if self.touched & mask:
            raise self.unsupported(
                op.name,
                "resets a qubit that is in use: this is not unitary; use a fresh qubit or StatevectorEstimator, which "
                "draws the outcome of the reset at random: its value is that of one trajectory, not the mean",
            )

    def _is_start_state(self, op: StatePreparation, qubits: Sequence[int]) -> bool:
        fresh = not any((self.touched | self.measured) >> qubit & 1 for qubit in qubits)
        return fresh and op.name == "state_preparation" and len(self.active) <= _MAX_PREPARED_QUBITS

    # Angles.

    def angle(self, value: ParameterExpression | float) -> Angle:
        """Return the angle of a gate's parameter, giving it an expression column where it needs one."""
        if not isinstance(value, ParameterExpression):
            return self._constant(value)
        known = self.angles.get(value) if isinstance(value, Parameter) else None
        if known is not None:
            return known
        return self.angle_of(self.tape_of(value), value)

    def tape_of(self, value: ParameterExpression) -> Tape:
        """Translate an expression."""
        try:
            return translate(value, self.columns, self.translated)
        except (KeyError, NotImplementedError) as error:
            raise self.unsupported(
                self.name, f"has an angle that cannot be translated: {error}; bind it first"
            ) from error

    def angle_of(self, tape: Tape, value: object) -> Angle:
        """Return the angle that an expression, by its tape, is in every row; ``value`` is for errors."""
        number = constant_value(tape)
        if number is not None:
            return self._constant(number)
        _, terms, offset = tape[0] if len(tape) == 1 else ("", (), 0.0)
        if len(terms) == 1 and is_finite_real(offset) and is_finite_real(terms[0][1]):
            return Angle(terms[0][0], float(terms[0][1]), float(offset))
        column = self.tape_columns.get(tape, -1)
        if column < 0:
            column = self.tape_columns[tape] = self._new_column(tape, shorten(value))
        return Angle(column, 1.0, 0.0)

    def _constant(self, value: complex) -> Angle:
        if not is_finite_real(value):
            raise ValueError(
                f"instruction {self.index}, '{self.name}', has the angle {value}; an angle must be a finite real number"
            )
        return Angle(-1, 0.0, float(value.real))

    def _new_column(self, tape: Tape, words: str) -> int:
        self.tapes.append(tape)
        self.origins.append(f"{words} of instruction {self.index}, '{self.name}',")
        return len(self.parameters) + len(self.tapes) - 1

    def _rotation_vector(self, angles: tuple[Angle, ...]) -> tuple[Angle, ...]:
        """Return the same three angles as three consecutive columns, unless they are constants."""
        if all(angle.column < 0 for angle in angles):
            return angles
        first = self.tape_columns.get(angles, -1)
        if first < 0:
            named = zip("xyz", angles)
            first, *_ = [self._new_column(self._as_tape(angle), f"component {axis}") for axis, angle in named]
            self.tape_columns[angles] = first
        return tuple(Angle(first + axis, 1.0, 0.0) for axis in range(3))

    def _as_tape(self, angle: Angle) -> Tape:
        if angle.column < len(self.parameters):  # the coefficient of a constant is 0: it has no term
            return (affine({angle.column: angle.coefficient}, angle.offset),)
        return self.tapes[angle.column - len(self.parameters)]

    # Errors.

    def _circuit_qubits(self) -> tuple[int, ...]:
        return tuple(self.circuit_index[qubit] for qubit in self.qubits)

    def unsupported(self, name: str, reason: str, fallback: bool = True) -> UnsupportedInstruction:
        """Return the error for the top-level instruction at hand, of which ``name`` may be a part."""
        if name != self.name:
            reason = f"contains '{name}', which {reason}"
        return UnsupportedInstruction(self.name, self.index, self._circuit_qubits(), reason, fallback)
