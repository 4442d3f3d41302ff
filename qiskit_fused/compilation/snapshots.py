# SPDX-License-Identifier: Apache-2.0
"""The snapshot of a circuit holds everything that decides its results, so that a later call can compare the circuit.

The results depend on the qubits, the parameters (also of the global phase) and the instructions. Standard gates are
compared in native code, in 0.02 us each, or in 0.3 us with Qiskit before version 2.6. Unitaries are compared by Qiskit,
in 0.3 us each. Every other instruction is a Python object, which its owner may change in place: the attributes of an
object of any class are compared by content, and so are the objects in them. A circuit with an object that cannot be
compared counts as changed, so it is compiled at every call.
"""

from __future__ import annotations

from copy import deepcopy
from enum import Enum
from functools import lru_cache, partial
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from qiskit.circuit import Barrier, Bit, Delay, Measure, ParameterExpression, QuantumCircuit, Register
from qiskit.circuit.library import UnitaryGate

from qiskit_fused.compilation.native_instructions import native_instructions

_CONSTANT = (
    *(bool, int, float, complex, str, bytes, type(None), Enum, np.generic, np.dtype, range, slice),
    *(ParameterExpression, Bit, Register),
    *(type, ModuleType, CodeType, np.ufunc),
)
"""Classes whose objects never change, so that an object is its own content."""

_NATIVE = (Barrier, Delay, Measure, UnitaryGate)
"""Classes that Qiskit stores in native code, so that a change of the Python object does not change the circuit."""


class Snapshot:
    """The content of a circuit at one moment.

    Cost: making a snapshot takes 1 us for each standard gate, and a copy of all arrays. A comparison takes 0.02 us for
    each standard gate and about 3 us for any other instruction, and the time to compare its arrays and its definition.
    """

    def __init__(self, circuit: QuantumCircuit):
        self._parameters: list[Any] | None = list(circuit.parameters)  # must be first, because it builds a lazy circuit
        self._num_parameters = len(self._parameters)
        self._maker: _Maker | None = _Maker()
        self._circuit = _Circuit(circuit, self._maker)

    def settle(self, used: np.ndarray) -> None:
        """Add attributes that appeared during lowering: Qiskit makes a definition at its first use.

        Args:
            used: int, the columns of all angles; the first P columns of a program are the parameters.
        """
        if self._maker is not None:
            self._maker.settle()
            self._maker = None
        if len(np.unique(used[(used >= 0) & (used < self._num_parameters)])) == self._num_parameters:
            # The angles depend on all P parameters. A circuit with equal angles has these P parameters, and a different
            # list of parameters would be longer. So the list need not be compared, which takes 0.6 us per parameter.
            self._parameters = None

    def matches(self, circuit: QuantumCircuit) -> bool:
        """Say whether a circuit has the same content as at the moment of the snapshot."""
        try:
            return (
                circuit.num_parameters == self._num_parameters
                and (self._parameters is None or list(circuit.parameters) == self._parameters)
                and self._circuit.matches(circuit, {})
            )
        except Exception:  # the comparison of a user's object may raise any exception
            return False

    def matches_objects(self, circuit: QuantumCircuit) -> bool:
        """Say `matches` for a circuit whose list of instructions nobody changes: only Python objects are compared."""
        try:
            return self._circuit.matches_objects(circuit, {})
        except Exception:  # the comparison of a user's object may raise any exception
            return False


# The objects that a comparison has met, by id, each with the content that it equals. No object is compared twice, and
# circular references end. The dict holds the objects, so that their ids are not reused.
_Met = dict[int, tuple[Any, "_Content"]]


class _Content:
    """The content of a mutable object."""

    def matches(self, thing: Any, met: _Met) -> bool:
        """Say whether a thing has this content."""
        raise NotImplementedError


def _matches(content: Any, thing: Any, met: _Met) -> bool:
    if isinstance(content, _Content):
        return content.matches(thing, met)
    return content is thing or bool(content == thing)


class _Maker:
    """Makes the contents of objects, one content for each object."""

    def __init__(self) -> None:
        self._made: _Met = {}
        self._objects: list[tuple[_Object, Any]] = []

    def content(self, thing: Any) -> Any:
        """Return the current content of a thing."""
        if isinstance(thing, _CONSTANT):
            return thing
        made = self._made.get(id(thing))
        if made is not None:
            return made[1]
        kind: Any = type(thing)
        if kind is list and not isinstance(items := self.items(thing.copy()), _Content):
            return items
        if isinstance(thing, QuantumCircuit):
            content: _Content = _Circuit(thing, self)
        elif not _is_python(kind):
            content = _Copy(thing)
        else:
            content = _Object(thing)
            self._made[id(thing)] = (thing, content)  # before the attributes, which may refer to the object again
            self._objects.append((content, thing))
            content.take_items(thing, self)
            content.take_attributes(thing, self)
        self._made[id(thing)] = (thing, content)
        return content

    def items(self, items: list[Any]) -> Any:
        """Return the content of a list that no other code holds."""
        # A list of constants is compared in native code, which takes 5 ns for an identical item.
        if all(issubclass(kind, _CONSTANT) for kind in set(map(type, items))):
            return items
        return _Items([self.content(item) for item in items])

    def settle(self) -> None:
        """Add attributes that were missing or None when the snapshot was made."""
        for content, thing in self._objects:  # the list grows during the loop
            content.take_attributes(thing, self)


class _Circuit(_Content):
    """The instructions, qubits and global phase of a circuit or of a definition."""

    def __init__(self, circuit: QuantumCircuit, maker: _Maker):
        data = circuit._data
        self._qubits, self._phase, self._num_instructions = data.qubits, data.global_phase, len(data)
        self._native = native_instructions(data)
        # Python compares the instructions that native code does not compare as a whole.
        self._instructions: list[tuple[int, Any]] = []
        self._objects: list[tuple[int, Any]] = []
        for index in range(len(data)) if self._native is None else self._native.not_whole():
            instruction = data[index]
            if not instruction.is_standard_gate():
                operation = instruction.operation
                if getattr(operation, "base_class", None) not in _NATIVE:
                    self._objects.append((index, maker.content(operation)))
                    instruction = _Place(instruction)
            self._instructions.append((index, instruction))

    def matches(self, thing: Any, met: _Met) -> bool:
        entry = met.get(id(thing))
        if entry is not None and entry[1] is self:
            return True
        data = thing._data
        met[id(thing)] = (thing, self)
        return (
            len(data) == self._num_instructions
            and bool(data.global_phase == self._phase)
            and data.qubits == self._qubits
            and (self._native is None or self._native.match(data))
            and all(instruction == data[index] for index, instruction in self._instructions)
            and self.matches_objects(thing, met)
        )

    def matches_objects(self, circuit: QuantumCircuit, met: _Met) -> bool:
        """Say whether all operations that are Python objects have the same content."""
        data = circuit._data
        return all(_matches(content, data[index].operation, met) for index, content in self._objects)


class _Place:
    """The name and the bits of an instruction whose operation is a Python object."""

    __slots__ = ("_bits", "_name")

    def __init__(self, instruction: Any):
        self._name, self._bits = instruction.name, (instruction.qubits, instruction.clbits)

    def __eq__(self, other: Any) -> bool:
        return bool(other.name == self._name and (other.qubits, other.clbits) == self._bits)

    __hash__ = None  # type: ignore[assignment]


_CONTAINERS = (
    list,
    tuple,
    dict,
    set,
    frozenset,
    np.ndarray,
    partial,
    FunctionType,
    BuiltinFunctionType,
    MethodType,
    CellType,
)


class _Object(_Content):
    """The content of an object of any Python class: its attributes, and its items if it is a container."""

    def __init__(self, thing: Any):
        self._type = type(thing)
        self._attributes: dict[str, Any] = {}
        self._items: Any = None

    def take_items(self, thing: Any, maker: _Maker) -> None:
        if isinstance(thing, np.ndarray) and thing.dtype != object:
            self._items = np.array(thing, subok=False)
        elif isinstance(thing, _CONTAINERS):
            self._items = maker.items(_items(thing))

    def take_attributes(self, thing: Any, maker: _Maker) -> None:
        """Add attributes that were missing or None so far."""
        for name, value in _attributes(thing).items():
            if self._attributes.get(name) is None:
                self._attributes[name] = maker.content(value)
        self._objects = [item for item in self._attributes.items() if isinstance(item[1], _Content)]
        self._constants = [item for item in self._attributes.items() if not isinstance(item[1], _Content)]

    def matches(self, thing: Any, met: _Met) -> bool:
        if type(thing) is not self._type:
            return False
        entry = met.get(id(thing))
        if entry is not None and entry[1] is self:
            return True
        met[id(thing)] = (thing, self)
        attributes = _attributes(thing)
        if len(attributes) != len(self._attributes):
            return False
        for name, constant in self._constants:
            value = attributes[name]
            if value is not constant and value != constant:
                return False
        for name, content in self._objects:
            if not content.matches(attributes[name], met):
                return False
        return self._items is None or self._matches_items(thing, met)

    def _matches_items(self, thing: Any, met: _Met) -> bool:
        if isinstance(self._items, np.ndarray):
            return bool(
                thing.dtype == self._items.dtype
                and thing.shape == self._items.shape
                and (np.asarray(thing) == self._items).all()
            )
        items = _items(thing)
        if isinstance(self._items, _Content):
            return self._items.matches(items, met)
        return bool(items == self._items)


class _Items(_Content):
    """The content of a list with mutable items."""

    def __init__(self, contents: list[Any]):
        self._contents = contents

    def matches(self, thing: Any, met: _Met) -> bool:
        return len(thing) == len(self._contents) and all(map(_matches, self._contents, thing, [met] * len(thing)))


class _Copy(_Content):
    """The content of an object that is implemented in native code: a copy, which is compared with ``==``."""

    def __init__(self, thing: Any):
        self._copy: Any = _INCOMPARABLE
        if "__eq__" in {name for base in type(thing).__mro__[:-1] for name in vars(base)}:
            try:
                self._copy = deepcopy(thing)
            except Exception:  # copying may raise any exception
                self._copy = _INCOMPARABLE

    def matches(self, thing: Any, met: _Met) -> bool:
        return type(thing) is type(self._copy) and bool(self._copy == thing)


_INCOMPARABLE = object()


def _items(container: Any) -> list[Any]:
    """Return the items of a container in a list. The order of a set's items stays while the set does not change."""
    if isinstance(container, dict):
        return [*container.keys(), *container.values()]
    if isinstance(container, np.ndarray):
        return [container.shape, *container.flat]
    if isinstance(container, partial):
        return [container.func, container.args, container.keywords]
    if isinstance(container, (MethodType, BuiltinFunctionType)):
        return [container.__name__, container.__self__, getattr(container, "__func__", None)]
    if isinstance(container, FunctionType):
        return [container.__code__, container.__defaults__, container.__kwdefaults__, *(container.__closure__ or ())]
    if isinstance(container, CellType):
        return [container.cell_contents] if container != CellType() else []  # an empty cell equals CellType()
    return list(container)


def _attributes(thing: Any) -> dict[str, Any]:
    kind: Any = type(thing)
    slots = _slots(kind)
    if not slots:
        return getattr(thing, "__dict__", {})
    attributes = {name: getattr(thing, name) for name in slots if hasattr(thing, name)}
    return attributes | getattr(thing, "__dict__", {})


@lru_cache(maxsize=1024)
def _slots(kind: Any) -> tuple[str, ...]:
    """Return the names of the attributes that objects of a class store in slots, outside of ``__dict__``."""
    names = []
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            is_private = name.startswith("__") and not name.endswith("__")
            names.append(f"_{base.__name__.lstrip('_')}{name}" if is_private else name)
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


@lru_cache(maxsize=1024)
def _is_python(kind: Any) -> bool:
    """Say whether objects of a class have attributes and items alone, because no base class is in native code."""
    return all(base in (object, *_CONTAINERS) or _is_defined_in_python(base) for base in kind.__mro__)


def _is_defined_in_python(kind: type) -> bool:
    # A `class` statement gives the class one of these two attributes, unless a base class already has one.
    attributes = vars(kind)
    return "__weakref__" in attributes or "__slots__" in attributes or any(map(_is_defined_in_python, kind.__bases__))
