# SPDX-License-Identifier: Apache-2.0
"""Qiskit's observables -> `Observables`, each converted once.

Conversion follows `ObservablesArray`, with its nesting, its simplification and its errors. Results are remembered by
the identity of the object given, and used again only while its content is what it was.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from qiskit.circuit import QuantumCircuit
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info import Pauli, PauliList, SparseObservable, SparsePauliOp

from qiskit_fused.forks import new_lock
from qiskit_fused.observable_errors import check_coefficients, explain_refusal, wrong_width
from qiskit_fused.observables import Observables

MAX_CONVERTED = 1024
MAX_CONVERTED_LETTERS = 5_000_000
MAX_STACKS = 64


@dataclass(frozen=True, eq=False)
class CoercedObservables:
    """Observables as given by a caller, flattened in C order.

    Attributes:
        operators: all of them.
        shape: the shape of the array they came in; () for a single one.
    """

    operators: Observables
    shape: tuple[int, ...]


class _ConversionCache:
    """Converted observables by id, with a strong reference (so that no id is reused) and a fingerprint."""

    def __init__(self) -> None:
        self._entries: OrderedDict[int, tuple[Any, Any, CoercedObservables]] = OrderedDict()
        self._letters = 0
        self._lock = new_lock()

    def get(self, given: Any) -> CoercedObservables:
        entry = self._entries.get(id(given))
        if entry is not None and entry[0] is given and entry[1] == fingerprint(given):
            return entry[2]
        # fingerprint first: a change by another thread while converting is then seen by the next call
        print_ = fingerprint(given)
        converted = _convert(given)
        with self._lock:
            replaced = self._entries.pop(id(given), None)
            self._letters += len(converted.operators.letters) - (len(replaced[2].operators.letters) if replaced else 0)
            self._entries[id(given)] = (given, print_, converted)
            while len(self._entries) > 1 and (
                len(self._entries) > MAX_CONVERTED or self._letters > MAX_CONVERTED_LETTERS
            ):
                _, dropped = self._entries.popitem(last=False)
                self._letters -= len(dropped[2].operators.letters)
        return converted


_CONVERTED = _ConversionCache()
_SCALARS = (str, Pauli, SparsePauliOp, SparseObservable, Mapping)


def coerce_observables(observables: Any) -> CoercedObservables:
    """Convert anything `ObservablesArray` takes: one observable or nested lists of them.

    All letters of ``SparseObservable`` labels are understood, strings that start with ``+``, ``-`` or ``1`` included.

    Raises:
        TypeError: for an object that is no observable.
        ValueError: for a complex or empty observable, ragged lists, or different numbers of qubits.
    """
    return _CONVERTED.get(observables)


def as_list(observables: Any) -> Any:
    """Return observables as a list or other sequence of single ones; a single one may have come without a list."""
    if isinstance(observables, ObservablesArray):
        observables = observables.sparse_observables_array()
    if isinstance(observables, (np.ndarray, PauliList)):
        return list(observables.ravel() if isinstance(observables, np.ndarray) else observables)
    return (observables,) if isinstance(observables, _SCALARS) else observables


def circuit_observables(given: Any, num_qubits: int) -> CoercedObservables:
    """Convert observables on the qubits of a circuit, as `coerce_observables` does; None is Z on all qubits.

    Raises:
        TypeError, ValueError: as `coerce_observables`, and where there is no observable, or they are on another number
            of qubits.
    """
    found = coerce_observables(or_all_z(given, num_qubits))
    if not found.operators.num_observables:
        raise ValueError("observables is empty; allowed: one observable or a list of them.")
    if num_qubits != found.operators.num_qubits:
        raise wrong_width(num_qubits, found.operators.num_qubits)
    return found


def or_all_z(given: Any, num_qubits: int) -> Any:
    """Return what was given, or Z on all qubits in the place of None."""
    return _all_z(num_qubits) if given is None else given


@lru_cache(maxsize=64)
def _all_z(num_qubits: int) -> str:
    """Return the same string for the same number, since conversions are remembered by identity."""
    return "Z" * num_qubits


class LiveObservables:
    """Observables of an object that outlives a call: each call sees them as they are then, changed in place or not.

    Args:
        given: one observable or a list of them; None is Z on all qubits.
        num_qubits: qubits of the circuit.

    Attributes:
        given: the observables, the same object.
        shape: the shape of the array they came in; () for a single one.
        num_observables: how many they are.

    Raises:
        TypeError, ValueError: as `circuit_observables`.
    """

    def __init__(self, given: Any, num_qubits: int):
        self.given, self._num_qubits = given, num_qubits
        self._known, self.shape = self._read()
        self.num_observables = self._known[1].num_observables

    def now(self) -> Observables:
        """Return the observables as they are now: the same object as before, if they are as they were.

        Raises:
            ValueError: when the number of observables is another one than at first.
        """
        known, operators = self._known  # both at once: another thread may be replacing them
        if known == fingerprint(self.given):
            return operators
        changed, shape = self._read()
        if shape != self.shape:
            raise ValueError(
                f"observables has been changed from shape {self.shape} to {shape}; make a new object for them."
            )
        self._known = changed
        return changed[1]

    def _read(self) -> tuple[tuple[Any, Observables], tuple[int, ...]]:
        """Return what the observables are and what they look like now, and their shape."""
        print_ = fingerprint(self.given)  # first: a change while converting is then seen by the next call
        found = circuit_observables(self.given, self._num_qubits)
        return (print_, found.operators), found.shape


class FixedObservables:
    """Observables that never change, in the place of `LiveObservables`."""

    def __init__(self, operators: Observables):
        self.num_observables = operators.num_observables
        self._operators = operators

    def now(self) -> Observables:
        """Return the observables."""
        return self._operators


def fingerprint(thing: Any) -> Any:
    """Return a value that equals the fingerprint of the same object later if, and only if, it has not changed.

    Cost: about 1 us for an operator of a few terms; a copy of its arrays for a large one.
    """
    if isinstance(thing, SparsePauliOp):
        paulis = thing._pauli_list
        return (
            thing._coeffs.tobytes() if thing._coeffs.dtype != object else tuple(thing._coeffs),
            paulis._z.tobytes(),
            paulis._x.tobytes(),
            paulis._phase.tobytes(),
            paulis._z.shape,
        )
    if isinstance(thing, (Pauli, PauliList)):
        return thing._z.tobytes(), thing._x.tobytes(), thing._phase.tobytes(), thing._z.shape
    if isinstance(thing, SparseObservable):
        return thing.copy()
    if isinstance(thing, ObservablesArray):
        return fingerprint(thing.sparse_observables_array(copy=False))
    if isinstance(thing, (list, tuple)):
        return tuple([(id(item), fingerprint(item)) for item in thing])
    if isinstance(thing, np.ndarray):
        if thing.dtype == object:
            return thing.shape, fingerprint(list(thing.flat))
        return thing.shape, thing.dtype.str, thing.tobytes()
    if isinstance(thing, Mapping):
        return tuple((fingerprint(key), value) for key, value in thing.items())
    if isinstance(thing, QuantumCircuit):
        return thing.copy()
    return thing


class _StackCache:
    """Concatenations of observables, by the identity of the parts."""

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[int, ...], tuple[list[Observables], Observables]] = OrderedDict()
        self._lock = new_lock()

    def get(self, parts: list[Observables]) -> Observables:
        if len(parts) == 1:
            return parts[0]
        key = tuple(map(id, parts))
        entry = self._entries.get(key)
        if entry is None:
            entry = (list(parts), Observables.concatenate(parts))  # the list keeps the ids taken
            with self._lock:
                self._entries[key] = entry
                if len(self._entries) > MAX_STACKS:
                    self._entries.popitem(last=False)
        return entry[1]


_STACKS = _StackCache()


def stack_observables(parts: list[Observables]) -> Observables:
    """Join observables on the same qubits; the same object for the same parts."""
    return _STACKS.get(parts)


def _convert(given: Any) -> CoercedObservables:
    if isinstance(given, tuple):  # which `ObservablesArray` refuses
        given = list(given)
    if isinstance(given, list) and given and all(isinstance(item, _SCALARS) for item in given):
        # the items may have been converted before, and will be again in other lists
        try:
            parts = [_CONVERTED.get(item).operators for item in given]
        except Exception as error:
            raise explain_refusal(given, error) from None  # with the place in the list
        if len({part.num_qubits for part in parts}) == 1:
            return CoercedObservables(stack_observables(parts), (len(given),))
    try:
        array = ObservablesArray.coerce(given)
    except Exception as error:
        raise explain_refusal(given, error) from error
    operators = _stack(array)
    check_coefficients(given, operators.coefficients)
    return CoercedObservables(operators, array.shape)


def _stack(array: ObservablesArray) -> Observables:
    elements = list(array.sparse_observables_array(copy=False).flat)
    first_letter = np.cumsum([0] + [len(element.indices) for element in elements])

    def join(parts: list[Any], dtype: Any) -> np.ndarray:
        return np.concatenate([np.zeros(0, dtype=dtype), *parts], dtype=dtype, casting="unsafe")

    return Observables(
        array.num_qubits,
        len(elements),
        np.repeat(np.arange(len(elements)), [element.num_terms for element in elements]),
        join([element.coeffs for element in elements], np.complex128),
        join(
            [
                [0],
                *(
                    np.add(e.boundaries[1:], n, dtype=np.int64, casting="unsafe")
                    for e, n in zip(elements, first_letter)
                ),
            ],
            np.int64,
        ),
        join([element.bit_terms for element in elements], np.uint8),
        join([element.indices for element in elements], np.int64),
    )
