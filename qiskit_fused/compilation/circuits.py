# SPDX-License-Identifier: Apache-2.0
"""Lower and fuse each circuit once, and cache the results: circuit -> Program -> FusedProgram.

Circuits are mutable and have no version number. So a circuit counts as unchanged if it is the same object and equals
the snapshot that was taken when it was lowered.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from qiskit.circuit import Parameter, QuantumCircuit

from qiskit_fused.common.caches import BoundedCache, Owner
from qiskit_fused.common.forks import cached_property
from qiskit_fused.common.text import count_text
from qiskit_fused.compilation.snapshots import Snapshot
from qiskit_fused.fusion.cone import seen_columns
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.fusion.light_cones import LightCones
from qiskit_fused.lowering.constant_prefix import with_prefix
from qiskit_fused.lowering.errors import UnsupportedInstruction
from qiskit_fused.lowering.lower import lower
from qiskit_fused.program.expression_columns import CompiledExpressions
from qiskit_fused.program.program import Program
from qiskit_fused.program.shift_rules import ColumnRules

MAX_CIRCUIT_BYTES = 256 << 20  # bound of all cached compiled circuits in bytes, without their fused programs
MAX_PLAN_BYTES = 256 << 20  # bound of all cached fused programs in bytes, with the CPU engine's copies of them
_INSTRUCTION_BYTES = 1000  # estimated bytes of a compiled circuit: this for each instruction, and once for the circuit

_FUSED_PROGRAMS: BoundedCache[FusedProgram] = BoundedCache(MAX_PLAN_BYTES)
_SEEN_COLUMNS: BoundedCache[np.ndarray] = BoundedCache(16 << 20)  # the results of `CompiledCircuit.seen_columns`


class CompiledCircuit:
    """A circuit as it was when it was compiled. `compile_circuit` makes it, and it takes the place of a circuit.

    >>> circuit = QuantumCircuit(1)
    >>> compiled = compile_circuit(circuit)
    >>> _ = circuit.x(0)
    >>> compiled.describes(circuit), compiled.circuit.size()
    (False, 0)

    Attributes:
        num_qubits: number of qubits of the circuit.
        num_instructions: number of instructions of the circuit.
        parameters: the P parameters of the circuit, in the order of ``circuit.parameters``.
        program: the lowered circuit: one-qubit gates and diagonal terms.
        light_cones: groups of terms of observables that are simulated together.
        has_fused_program: whether an earlier call has fused the circuit.
    """

    has_fused_program = False

    def __init__(self, circuit: QuantumCircuit):
        check_circuit(circuit)
        self._circuit: Callable[[], Any] = weakref.ref(circuit)
        self._snapshot: Snapshot | None = Snapshot(circuit)
        self._kept: QuantumCircuit | None = None  # a copy of the circuit, if `compile_circuit` made this object
        self.num_instructions = len(circuit.data)
        self.num_qubits = circuit.num_qubits
        self.parameters: tuple[Parameter, ...] = tuple(circuit.parameters)
        self._columns = {parameter: column for column, parameter in enumerate(self.parameters)}
        self.program: Program = lower(circuit)
        self._snapshot.settle(self.program.ops.column)
        self.light_cones = LightCones(self.program)
        self._latest_columns = _NO_COLUMNS
        self._owner = Owner()  # owns the cached fused programs; `_keeping` shares it

    @property
    def circuit(self) -> QuantumCircuit:
        """A copy of the circuit, as it was when `compile_circuit` was called.

        Raises:
            ValueError: if this object was not made by `compile_circuit`.
        """
        return self._held().copy()

    def _held(self) -> QuantumCircuit:
        """Return the copy that this object holds. Nobody may change it."""
        if self._kept is None:
            raise ValueError(f"{self!r} holds no circuit; give the QuantumCircuit, or compile_circuit(circuit).")
        return self._kept

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the circuit, as it was when `compile_circuit` was called."""
        return {} if self._kept is None else self._kept.metadata

    def _keeping(self, circuit: QuantumCircuit | None) -> CompiledCircuit:
        """Return a compiled circuit with the same program and fused programs, whose `circuit` is this circuit."""
        other = object.__new__(CompiledCircuit)
        other.__dict__.update(self.__dict__)
        other._kept = circuit
        return other

    @cached_property
    def of_columns(self) -> CompiledCircuit:
        """The same circuit as a function of the C columns of its program. Each column is a parameter of its own.

        Derivatives with respect to columns take simple rules, and the chain rule turns them into derivatives with
        respect to parameters. It is this object if the circuit has no expressions. A global phase of the circuit
        that is no column, such as an expression that no gate has as an angle, is left out.
        """
        program = self.program
        if not program.expressions.num_expressions:
            return self
        names = (*program.parameter_names, *(f"expression {k}" for k in range(program.expressions.num_expressions)))
        other = self._keeping(None)
        other.parameters = tuple(Parameter(name) for name in names)
        other._columns, other._snapshot, other._circuit = {}, None, _no_circuit
        none = CompiledExpressions((), (), names)
        other.program = replace(
            program,
            num_parameters=program.num_columns,
            expressions=none,
            parameter_names=names,
            phase=program.phase and replace(program.phase, expressions=none),
        )
        other.light_cones, other._owner, other.has_fused_program = LightCones(other.program), Owner(), False
        return other

    @cached_property
    def column_rules(self) -> ColumnRules:
        """How final states depend on each column of the program."""
        return ColumnRules.of(self.program)

    def describes(self, circuit: QuantumCircuit) -> bool:
        """Say whether ``circuit`` is the object that was compiled, and has not changed since.

        Cost: 0.02 us for each standard gate, or 0.3 us with Qiskit before version 2.6.
        """
        return self._circuit() is circuit and self._snapshot is not None and self._snapshot.matches(circuit)

    def _describes_copy(self, circuit: QuantumCircuit) -> bool:
        """Say `describes` for a copy that only the caller holds, so only shared Python objects may have changed."""
        return self._fits(circuit) and self._snapshot is not None and self._snapshot.matches_objects(circuit)

    def _fits(self, circuit: QuantumCircuit) -> bool:
        """Say whether ``circuit`` is the compiled object and has the same size: a quick test before `describes`."""
        if self._circuit() is not circuit:
            return False
        size = len(circuit._data), circuit.num_qubits, circuit.num_parameters
        return size == (self.num_instructions, self.num_qubits, len(self.parameters))

    def columns_of(self, parameters: Any) -> np.ndarray:
        """Return the column of each parameter, int (number of parameters,), in the given order.

        Raises:
            KeyError: for a parameter that is not in the circuit.
        """
        return np.fromiter((self._columns[parameter] for parameter in parameters), dtype=np.intp)

    def find_columns(self, argument: str, parameters: Iterable[Parameter] | Parameter) -> np.ndarray:
        """Return the column of each parameter, int (number of parameters,), in the given order.

        Args:
            argument: the name of the caller's argument, for errors.
            parameters: the parameters, or a single parameter.

        Raises:
            ValueError: for a parameter that is not in the circuit. The text names the argument and the parameter.
        """
        if not isinstance(parameters, Iterable):  # such as one parameter
            parameters = (parameters,)
        listed = list(parameters)
        latest, columns = self._latest_columns
        if latest == listed:  # comparing identical parameters takes 1 % of the time of looking them up
            return columns
        try:
            columns = self.columns_of(listed)
        except TypeError:  # an object without a hash, such as a list of parameters
            wrong = next(part for part in listed if not isinstance(part, Parameter))
            raise TypeError(f"{argument} contains {wrong!r:.60}; allowed: Parameter objects.") from None
        except KeyError as error:
            name = getattr(error.args[0], "name", error.args[0])
            raise ValueError(
                f"{argument} contains '{name}', which is not in circuit.parameters; allowed: the Parameter objects in "
                "there (equal names are not enough)."
            ) from None
        columns.setflags(write=False)
        self._latest_columns = listed, columns
        return columns

    def fused_program(self, support: np.ndarray | None, any_start: bool = False) -> FusedProgram:
        """Return the fused program for observables with a certain support.

        Args:
            support: uint8 (number of circuit qubits,), see ``Observables.support``; None simulates all qubits.
            any_start: whether each row brings a start state of all qubits.

        Raises:
            UnsupportedInstruction: with ``any_start``, if an instruction needs its qubits in ``|0>``.
        """
        key = id(self._owner), None if support is None else support.tobytes(), any_start
        fused = _FUSED_PROGRAMS.get(key)
        if fused is None:
            program = self.program
            if any_start:
                if program.needs_zero is not None:
                    raise UnsupportedInstruction(*program.needs_zero, _NEEDS_ZERO, fallback=False)
                program = with_prefix(program).from_any_state()
            fused = fuse_program(program, support)
            self.has_fused_program = True
            fused = _FUSED_PROGRAMS.put(key, fused, fused.num_bytes, self._owner)
        return fused

    def seen_columns(self, support: np.ndarray) -> np.ndarray:
        """Return the columns, bool (C,), on which the values of observables with a certain support depend.

        Args:
            support: uint8 (number of circuit qubits,), see ``Observables.support``.

        Cost: O(gates) in Python for a new support.
        """
        key = id(self._owner), support.tobytes()
        seen = _SEEN_COLUMNS.get(key)
        if seen is None:
            seen = seen_columns(self.program, support)
            seen.setflags(write=False)
            seen = _SEEN_COLUMNS.put(key, seen, seen.nbytes, self._owner)
        return seen

    @property
    def num_bytes(self) -> int:
        """Estimated bytes of the compiled circuit without its fused programs."""
        return _INSTRUCTION_BYTES * (self.num_instructions + 1) + self.program.array_bytes

    def __repr__(self) -> str:
        gates = self.program.count_gates().total()
        counts = (self.num_qubits, "qubit"), (len(self.parameters), "parameter"), (gates, "gate")
        return f"CompiledCircuit({', '.join(count_text(*count) for count in counts)})"

    def __getstate__(self) -> dict[str, Any]:
        names = ("_kept", "num_instructions", "num_qubits", "parameters", "_columns", "program")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a copy. It runs like the original, and `describes` is false for every circuit."""
        self.__dict__.update(state)
        self._circuit, self._snapshot, self._latest_columns = _no_circuit, None, _NO_COLUMNS
        self._owner = Owner()
        self.light_cones = LightCones(self.program)


_NEEDS_ZERO = (
    "needs its qubits in |0>, where initial_states do not leave them; remove it from the circuit and give the states "
    "that it prepares, or circuit.decompose() it into gates"
)


# The latest parameters of `CompiledCircuit.find_columns` and their columns, before its first call.
_NO_COLUMNS: tuple[list[Parameter], np.ndarray] = [], np.zeros(0, np.intp)


def _no_circuit() -> None:
    return None


class CompileCache:
    """A cache of compiled circuits by the identity of the circuit, bounded in bytes. Threads may share it.

    An entry is dropped when its circuit dies.
    """

    def __init__(self, max_bytes: int = MAX_CIRCUIT_BYTES):
        self._entries: BoundedCache[CompiledCircuit] = BoundedCache(max_bytes)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, circuit: QuantumCircuit | CompiledCircuit) -> CompiledCircuit:
        """Compile a circuit, or return its cached compiled circuit if the circuit has not changed.

        A compiled circuit is returned as it is, so every entry point accepts one in the place of a circuit.

        Raises:
            TypeError: for an object that is not a circuit.
            UnsupportedInstruction: if the circuit has an instruction that no engine can simulate.
        """
        if isinstance(circuit, CompiledCircuit):
            return circuit
        entry = self._entries.get(id(circuit))
        if entry is None or not entry.describes(circuit):
            entry = CompiledCircuit(circuit)
            self._entries.put(id(circuit), entry, entry.num_bytes, circuit, replace=True)
        return entry

    def clear(self) -> None:
        """Drop all compiled circuits."""
        self._entries.clear()


COMPILED = CompileCache()
"""The cache of all estimators and gradients: a gradient reuses the compiled circuit of an estimate."""


def compile_circuit(circuit: QuantumCircuit | CompiledCircuit) -> CompiledCircuit:
    """Compile a circuit as it is now. Functions and classes of this package take the result in the place of a circuit.

    A call that is given a circuit compares it with its compiled form, which takes 0.02 us for each gate. A call that is
    given the compiled form compares nothing, and later changes of the circuit do not reach it. Observables are not
    compiled: each call reads them again, so it sees an observable that was changed in place.

    >>> from qiskit.circuit import Parameter
    >>> circuit = QuantumCircuit(2)
    >>> _ = circuit.ry(Parameter("a"), 0)
    >>> _ = circuit.cx(0, 1)
    >>> compile_circuit(circuit)
    CompiledCircuit(2 qubits, 1 parameter, 2 gates)

    Args:
        circuit: the circuit, with any number of parameters. A compiled circuit is returned as it is.

    Returns:
        The compiled circuit, which holds a copy of the circuit.

    Raises:
        TypeError: if ``circuit`` is no circuit.
        UnsupportedInstruction: if the circuit has an instruction that no engine can simulate.
    """
    if isinstance(circuit, CompiledCircuit):
        return circuit
    return COMPILED.get(circuit)._keeping(circuit.copy())


def check_circuit(circuit: Any) -> None:
    """Raise a TypeError unless ``circuit`` is a QuantumCircuit or a CompiledCircuit."""
    if not isinstance(circuit, (QuantumCircuit, CompiledCircuit)):
        raise TypeError(f"circuit must be a QuantumCircuit, not {type(circuit).__name__}.")
