# SPDX-License-Identifier: Apache-2.0
"""The snapshot of a circuit: everything that decides its results, to be compared with the circuit at a later call.

Qiskit compares instructions in native code (0.3 us per gate), exactly as far as standard gates and `Parameter`
identities go. Instructions that carry arrays, operators or definitions are compared here, since Qiskit shares these
with the snapshot or compares them with a tolerance.
"""

from __future__ import annotations

from operator import eq
from typing import Any

from qiskit.circuit import Instruction

from qiskit_fused.coercion import fingerprint

_TRANSPARENT = frozenset(("barrier", "delay", "measure"))


class Snapshot:
    """What a circuit held at one moment."""

    def __init__(self, circuit: Any):
        data = circuit._data
        self._qubits = data.qubits
        # comparing element by element takes 0.6 of the time that comparing two CircuitData does
        self._instructions = [
            instruction
            if instruction.is_standard_gate() or instruction.name in _TRANSPARENT
            else _FrozenInstruction(instruction)
            for instruction in data
        ]

    def matches(self, circuit: Any) -> bool:
        """Say whether a circuit holds the same instructions on the same qubits."""
        data = circuit._data
        return (
            len(data) == len(self._instructions)
            and data.qubits == self._qubits
            and all(map(eq, self._instructions, data))
        )


class _FrozenInstruction:
    """An instruction whose operation may be changed in place."""

    def __init__(self, instruction: Any):
        self._place = (instruction.name, instruction.qubits, instruction.clbits)
        self._frozen = _Frozen(instruction.operation)

    def __eq__(self, other: Any) -> bool:
        place = (other.name, other.qubits, other.clbits)
        return place == self._place and self._frozen.matches(other.operation)

    __hash__ = None  # type: ignore[assignment]


class _Frozen:
    """The mutable parts of an instruction: arrays and operators by content, definition and base gate recursively."""

    def __init__(self, operation: Any):
        self._class = type(operation)
        self._content = _content(operation)
        definition = getattr(operation, "_definition", None)
        self._definition = None if definition is None else Snapshot(definition)
        base = _base(operation)
        self._base = None if base is None else _Frozen(base)

    def matches(self, operation: Any) -> bool:
        if type(operation) is not self._class or self._content != _content(operation):
            return False
        if self._definition is not None:
            definition = getattr(operation, "_definition", None)
            if definition is None or not self._definition.matches(definition):
                return False
        return self._base is None or self._base.matches(_base(operation))


def _base(operation: Any) -> Any:
    return getattr(operation, "base_gate", None) or getattr(operation, "base_op", None)


def _content(operation: Any) -> tuple[Any, ...]:
    params = operation.params if isinstance(operation, Instruction) else getattr(operation, "params", ())
    content = [fingerprint(parameter) for parameter in params]
    operator = getattr(operation, "operator", None)
    if operator is not None:
        parts = operator if isinstance(operator, list) else [operator]
        content.extend(fingerprint(part) for part in parts)
    return tuple(content)
