# SPDX-License-Identifier: Apache-2.0
"""Convert Qiskit's observables to `Observables`, and cache the results.

Conversion follows `ObservablesArray`, with its nesting, its simplification and its errors. The contents are the keys of
the cache: an observable that was changed in place is converted again, and an equal observable in a new object is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from qiskit.circuit import QuantumCircuit
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info import Pauli, PauliList, SparseObservable, SparsePauliOp

from qiskit_fused.common.caches import BoundedCache, array_bytes, on_release
from qiskit_fused.compilation.observable_errors import check_coefficients, explain_refusal, wrong_width
from qiskit_fused.program.observables import Observables

MAX_CONVERTED_BYTES = 64 << 20  # bound of all cached conversions, in bytes
MAX_STACK_BYTES = 64 << 20  # bound of all cached stacks of observables, in bytes


@dataclass(frozen=True, eq=False)
class CoercedObservables:
    """The observables of a caller, flattened in C order.

    Attributes:
        operators: all K observables.
        shape: the shape of the caller's array of observables; () for a single observable.
    """

    operators: Observables
    shape: tuple[int, ...]


_CONVERTED: BoundedCache[CoercedObservables] = BoundedCache(MAX_CONVERTED_BYTES)
_STACKS: BoundedCache[tuple[list[Observables], Observables]] = BoundedCache(MAX_STACK_BYTES)
_latest: tuple[Any, CoercedObservables] | None = None  # the content and the conversion of the last observables
_FINGERPRINTED = frozenset((SparsePauliOp, Pauli, PauliList))
_SCALARS = (str, Pauli, SparsePauliOp, SparseObservable, Mapping)


@on_release
def _forget_latest() -> None:
    global _latest
    _latest = None


def coerce_observables(observables: Any) -> CoercedObservables:
    """Convert one observable or nested lists of observables: everything that `ObservablesArray` takes.

    Labels may hold all letters of ``SparseObservable``, also strings that start with ``+``, ``-`` or ``1``.

    Raises:
        TypeError: for an object that is not an observable.
        ValueError: for a complex or empty observable, ragged lists, or different numbers of qubits.
    """
    global _latest
    key, latest = _content(observables), _latest
    if key is None:
        return _convert(observables)
    if latest is not None and latest[0] == key:  # comparing a large key is faster than hashing it
        return latest[1]
    coerced = _CONVERTED.get(key)
    if coerced is None:
        coerced = _convert(observables)
        if _content(observables) == key:  # no other thread changed the observables during the conversion
            # The factor 2 counts the key, which takes about as many bytes as the arrays.
            coerced = _CONVERTED.put(key, coerced, 2 * array_bytes(coerced.operators))
        else:
            return coerced
    _latest = key, coerced
    return coerced


def given_observables(observables: Any) -> CoercedObservables:
    """Convert observables as `coerce_observables` does, and raise a ValueError for an empty list."""
    coerced = coerce_observables(observables)
    if not coerced.operators.num_observables:
        raise ValueError("observables is empty; allowed: one observable or a list of them.")
    return coerced


def as_list(observables: Any) -> Any:
    """Return observables as a sequence of single observables. A single observable becomes a sequence of length 1."""
    if isinstance(observables, ObservablesArray):
        observables = observables.sparse_observables_array()
    if isinstance(observables, (np.ndarray, PauliList)):
        return list(observables.ravel() if isinstance(observables, np.ndarray) else observables)
    return (observables,) if isinstance(observables, _SCALARS) else observables


def circuit_observables(observables: Any, num_qubits: int) -> CoercedObservables:
    """Convert observables on the qubits of a circuit, as `coerce_observables` does; None is Z on all qubits.

    Raises:
        TypeError, ValueError: as `coerce_observables`.
        ValueError: for an empty list, and for observables on another number of qubits than ``num_qubits``.
    """
    coerced = given_observables(or_all_z(observables, num_qubits))
    if num_qubits != coerced.operators.num_qubits:
        raise wrong_width(num_qubits, coerced.operators.num_qubits)
    return coerced


def or_all_z(observables: Any, num_qubits: int) -> Any:
    """Return the observables as they are; for None, return the string of Z on all qubits."""
    return "Z" * num_qubits if observables is None else observables


class LiveObservables:
    """The observables of an object that outlives a call. Each call uses their current content.

    Args:
        observables: one observable or a list of observables; None is Z on all qubits.
        num_qubits: number of qubits of the circuit.

    Attributes:
        observables: the same object as the argument.
        shape: the shape of the array of observables; () for a single observable.
        num_observables: K, the number of observables.

    Raises:
        TypeError, ValueError: as `circuit_observables`.
    """

    def __init__(self, observables: Any, num_qubits: int):
        self.observables, self._num_qubits = observables, num_qubits
        self._latest, self.shape = self._read()
        self.num_observables = self._latest[1].num_observables

    def now(self) -> Observables:
        """Return the observables with their current content. If it has not changed, return the same object as before.

        Raises:
            ValueError: if the shape of the observables has changed.
        """
        content, operators = self._latest  # read both at once: another thread may replace the pair
        if content == fingerprint(self.observables):
            return operators
        changed, shape = self._read()
        if shape != self.shape:
            raise ValueError(
                f"observables has been changed from shape {self.shape} to {shape}; make a new object for them."
            )
        self._latest = changed
        return changed[1]

    def _read(self) -> tuple[tuple[Any, Observables], tuple[int, ...]]:
        """Return the current fingerprint of the observables, their conversion, and their shape."""
        print_ = fingerprint(self.observables)  # before the conversion, so that the next call sees a change during it
        coerced = circuit_observables(self.observables, self._num_qubits)
        return (print_, coerced.operators), coerced.shape


class FixedObservables:
    """Observables that never change, with the interface of `LiveObservables`."""

    def __init__(self, operators: Observables):
        self.num_observables = operators.num_observables
        self._operators = operators

    def now(self) -> Observables:
        """Return the observables."""
        return self._operators


def fingerprint(thing: Any) -> Any:
    """Return a value that equals a later fingerprint of the same object if, and only if, the object has not changed.

    Cost: about 1 us for an operator of a few terms; for a large operator, a copy of its arrays.
    """
    if isinstance(thing, (list, tuple)):  # first: a check of one of the abstract classes below takes 0.3 us
        return tuple([(id(item), fingerprint(item)) for item in thing])
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
    if isinstance(thing, np.ndarray):
        if thing.dtype == object:
            return thing.shape, fingerprint(list(thing.flat))
        return thing.shape, thing.dtype.str, thing.tobytes()
    if isinstance(thing, Mapping):
        return tuple((fingerprint(key), value) for key, value in thing.items())
    if isinstance(thing, QuantumCircuit):
        return thing.copy()
    return thing


def _content(thing: Any) -> Any:
    """Return a key for the cache of observables, equal for equal content; None for an object of an unknown class.

    Cost: the cost of `fingerprint`, and of a hash of the fingerprint.
    """
    kind, parts = type(thing), None
    if kind is str:
        return thing
    if kind in _FINGERPRINTED:
        return kind, fingerprint(thing)
    if isinstance(thing, (str, complex, float, int, np.number)):
        return thing
    if isinstance(thing, (SparsePauliOp, Pauli, PauliList)):
        parts = fingerprint(thing)
    elif isinstance(thing, SparseObservable):
        arrays = thing.coeffs, thing.bit_terms, thing.indices, thing.boundaries
        parts = thing.num_qubits, *(np.asarray(array).tobytes() for array in arrays)
    elif isinstance(thing, ObservablesArray):
        parts = _content(thing.sparse_observables_array(copy=False))
    elif isinstance(thing, (list, tuple)):
        parts = tuple([_content(item) for item in thing])
    elif isinstance(thing, np.ndarray) and thing.dtype == object:
        parts = thing.shape, *[_content(item) for item in thing.flat]
    elif isinstance(thing, Mapping):
        parts = tuple([_content(item) for pair in thing.items() for item in pair])
    return None if parts is None or any(part is None for part in parts) else (kind, parts)


def stack_observables(parts: list[Observables]) -> Observables:
    """Join observables on the same qubits. The same parts give the same object while the cache holds it."""
    if len(parts) == 1:
        return parts[0]
    key = tuple(map(id, parts))
    entry = _STACKS.get(key)
    if entry is None:
        stack = Observables.concatenate(parts)
        # The list of the parts keeps their ids from being reused.
        entry = _STACKS.put(key, (list(parts), stack), 2 * array_bytes(stack))
    return entry[1]


def _convert(observables: Any) -> CoercedObservables:
    if isinstance(observables, tuple):  # `ObservablesArray` refuses tuples
        observables = list(observables)
    if isinstance(observables, list) and observables and all(isinstance(item, _SCALARS) for item in observables):
        # Each item is cached by itself, because other lists may hold the same item.
        try:
            parts = [coerce_observables(item).operators for item in observables]
        except Exception as error:
            raise explain_refusal(observables, error) from None  # names the place in the list
        if len({part.num_qubits for part in parts}) == 1:
            return CoercedObservables(stack_observables(parts), (len(observables),))
    try:
        array = ObservablesArray.coerce(observables)
    except Exception as error:
        raise explain_refusal(observables, error) from error
    operators = _stack(array)
    check_coefficients(observables, operators.coefficients)
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
