# SPDX-License-Identifier: Apache-2.0
"""The interface between the walk over a circuit and the rules for instructions.

A rule uses a `LoweringContext` to record gates, to emit the normal form, to turn parameters into angles, and to lower
further circuits and operations. The walk in `lower.py` is the subclass that implements the last two.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

from qiskit.circuit import ControlledGate, Instruction, Parameter, ParameterExpression, QuantumCircuit
from qiskit.exceptions import QiskitError

from qiskit_fused.lowering.emitter import NormalForm
from qiskit_fused.lowering.errors import UnsupportedInstruction
from qiskit_fused.lowering.expressions import Key, affine, constant_value, is_finite_real, shorten, translate
from qiskit_fused.lowering.gate_table import GATES
from qiskit_fused.lowering.qubit_groups import QubitGroups
from qiskit_fused.program.amplitude_encoding import Encoding
from qiskit_fused.program.program import Angle, Gate
from qiskit_fused.program.tapes import Tape


class LoweringContext(ABC):
    """The state of one walk over a circuit.

    Attributes:
        circuit: the circuit that is lowered.
        active: numbers of the circuit's qubits on which some instruction acts, ascending. "Active qubit k" is the
            circuit's qubit ``active[k]``.
        gates: the original gates, recorded while ``recording``.
        form: the emitter of the normal form.
        begins: for each instruction, also inside definitions, the numbers of gates, ops and phases of the normal form
            before the instruction.
        phases: the global phases of the circuit and of definitions, which no gate records.
        phase_tapes: further global phases, which are not affine in the parameters.
        phase_origins: for each of these, its expression as text, for errors.
        unknown_phase: why a global phase cannot be translated, or "".
        groups: the groups of active qubits that the gates have joined.
        pieces: the start states of some active qubits; all other active qubits start in |0>.
        touched: bit set of the active qubits that are not known to be in |0>.
        measured: bit set of the active qubits that were measured. No later gate may act on them.
        index: number of the instruction of ``circuit`` that is being lowered.
        name: the name of this instruction.
        qubits: the qubits of this instruction.
    """

    def __init__(self, circuit: QuantumCircuit, active: list[int]):
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
        self.gates: list[Gate] = []
        self.recording = True
        self.begins: list[tuple[int, int, int]] = []
        self.phases: list[Angle] = []
        self.phase_tapes: list[Tape] = []
        self.phase_origins: list[str] = []
        self.unknown_phase = ""
        self.pieces: list[Encoding] = []
        self.needs_zero: tuple[str, int, tuple[int, ...]] | None = None
        self.touched = 0
        self.measured = 0
        self.measurements: dict[int, tuple[str, int, tuple[int, ...]]] = {}
        self.index = 0
        self.name = ""
        self.qubits: tuple = ()
        self.active = active
        self.form = NormalForm(len(active))
        self.groups = QubitGroups(len(active))

    @abstractmethod
    def walk(
        self, circuit: QuantumCircuit, qubits: Sequence[int], controls: tuple[int, ...], state: int, top: bool = False
    ) -> None:
        """Lower the instructions of a circuit under controls.

        Args:
            circuit: the circuit, or the definition of an operation.
            qubits: the active qubit of each qubit of ``circuit``, -1 for an idle qubit.
            controls: active qubits.
            state: the state of the controls: bit j belongs to ``controls[j]``.
            top: whether ``circuit`` is the circuit itself, not a definition.
        """

    @abstractmethod
    def operation(self, op: Instruction, qubits: tuple[int, ...], controls: tuple[int, ...], state: int) -> None:
        """Lower any operation on active qubits, under controls whose states are the bits of ``state``."""

    @abstractmethod
    def controlled(
        self,
        op: ControlledGate,
        qubits: tuple[int, ...],
        controls: tuple[int, ...],
        state: int,
        inverse: bool = False,
    ) -> bool:
        """Lower a controlled gate, or its inverse, as its base gate under controls.

        Returns:
            Whether this was done. It is not done where only the definition of the gate is reliable.
        """

    # Gates.

    def gate(
        self,
        name: str,
        qubits: tuple[int, ...],
        angles: tuple[Angle, ...] = (),
        controls: tuple[int, ...] = (),
        state: int = 0,
    ) -> None:
        """Record a gate of the table under controls, and emit its normal form.

        Args:
            name: a name in `GATES`.
            qubits: the active qubits of the gate.
            angles: the angles of the gate.
            controls: active qubits.
            state: the state of the controls: bit j belongs to ``controls[j]``.

        Raises:
            UnsupportedInstruction: for a gate on a measured qubit, or a gate that has no normal form under controls.
        """
        if name == "id" or (name == "global_phase" and angles[0] == Angle()):
            return
        if name == "global_phase" and not controls:
            self.phases.append(angles[0])
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

    def place(self) -> tuple[int, int, int]:
        """Return the numbers of gates, ops and phases of the normal form that were emitted so far."""
        return len(self.gates), len(self.form), len(self.form.phases)

    def touch(self, qubits: Sequence[int]) -> None:
        """Mark active qubits as touched; raise an UnsupportedInstruction if one of them was measured."""
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
                "statevector has no classical outcomes, move the measurement to the end",
                fallback=False,
            )

    def note_zero(self) -> None:
        """Record that the current instruction needs its qubits to start in |0>."""
        self.needs_zero = self.needs_zero or (self.name, self.index, self._circuit_qubits())

    def require_fresh(self, op: Instruction, qubits: Sequence[int]) -> None:
        """Raise an UnsupportedInstruction unless qubits are in |0>, and record that the instruction needs this."""
        self.note_zero()
        active = [qubit for qubit in qubits if qubit >= 0]
        mask = sum(1 << qubit for qubit in active)
        self._require_unmeasured(active, mask)
        if self.touched & mask:
            raise self.unsupported(
                op.name,
                "resets a qubit that is in use: this is not unitary; use a fresh qubit. StatevectorEstimator and "
                "StatevectorSampler run it, but draw one random outcome for each row",
            )

    def definition(self, op: Instruction) -> QuantumCircuit | None:
        """Return the definition of an operation as a circuit; None if the operation has no definition."""
        entry = self.definitions.get(id(op))
        if entry is not None:
            return entry[1]
        try:
            definition = op.to_circuit() if hasattr(op, "to_circuit") else op.definition
        except (QiskitError, TypeError, ValueError, AttributeError) as error:
            raise self.unsupported(
                op.name, f"has no definition as gates: {error}; bind its parameters or define it by gates"
            ) from error
        self.definitions[id(op)] = (op, definition)  # holding op keeps its id from being reused
        return definition

    # Angles.

    def angle(self, value: ParameterExpression | float) -> Angle:
        """Return the angle for a parameter of a gate. An expression gets its own column if it is not affine."""
        if not isinstance(value, ParameterExpression):
            return self._constant(value)
        angle = self.angles.get(value) if isinstance(value, Parameter) else None
        if angle is not None:
            return angle
        return self.angle_of(self.tape_of(value), value)

    def add_phase(self, value: ParameterExpression | float) -> None:
        """Add a global phase without controls. It gets no column, because only final states depend on it.

        A phase that cannot be translated is no error here: expectation values do not depend on it.
        """
        if not isinstance(value, ParameterExpression):
            if not math.isfinite(value):
                self.unknown_phase = f"the global phase is {value}; it must be a finite number"
            elif value:
                self.phases.append(Angle(-1, 0.0, float(value)))
            return
        try:
            tape = translate(value, self.columns, self.translated)
        except (KeyError, NotImplementedError) as error:
            self.unknown_phase = f"the global phase {shorten(value)} cannot be translated: {error}; bind it first"
            return
        _, terms, offset = tape[0] if len(tape) == 1 else ("", (), math.nan)
        if is_finite_real(offset) and all(is_finite_real(factor) for _, factor in terms):
            self.phases += [Angle(column, float(factor.real), 0.0) for column, factor in terms]
            self.phases.append(Angle(-1, 0.0, float(offset.real)))
        else:
            self.phase_tapes.append(tape)
            self.phase_origins.append(f"{shorten(value)} of the global phase")

    def tape_of(self, value: ParameterExpression) -> Tape:
        """Return the tape of an expression.

        Raises:
            UnsupportedInstruction: for an expression that cannot be translated.
        """
        try:
            return translate(value, self.columns, self.translated)
        except (KeyError, NotImplementedError) as error:
            raise self.unsupported(
                self.name, f"has an angle that cannot be translated: {error}; bind it first"
            ) from error

    def angle_of(self, tape: Tape, value: object) -> Angle:
        """Return the angle of an expression, given by its tape. The expression itself, ``value``, is for errors."""
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
        """Return three angles as three consecutive columns; three constant angles are returned as they are."""
        if all(angle.column < 0 for angle in angles):
            return angles
        first = self.tape_columns.get(angles, -1)
        if first < 0:
            named = zip("xyz", angles)
            first, *_ = [self._new_column(self._as_tape(angle), f"component {axis}") for axis, angle in named]
            self.tape_columns[angles] = first
        return tuple(Angle(first + axis, 1.0, 0.0) for axis in range(3))

    def _as_tape(self, angle: Angle) -> Tape:
        if angle.column < len(self.parameters):  # `affine` drops the term of a constant, whose coefficient is 0
            return (affine({angle.column: angle.coefficient}, angle.offset),)
        return self.tapes[angle.column - len(self.parameters)]

    # Errors.

    def _circuit_qubits(self) -> tuple[int, ...]:
        return tuple(self.circuit_index[qubit] for qubit in self.qubits)

    def unsupported(self, name: str, reason: str, fallback: bool = True) -> UnsupportedInstruction:
        """Return the error for the current instruction of the circuit.

        Args:
            name: the name of the operation at fault: the instruction itself, or an operation in its definition.
            reason: the end of the sentence "instruction 3, 'name' on qubits [0], ...".
            fallback: whether ``StatevectorEstimator`` may be able to run the circuit.
        """
        if name != self.name:
            reason = f"contains '{name}', which {reason}"
        return UnsupportedInstruction(self.name, self.index, self._circuit_qubits(), reason, fallback)
