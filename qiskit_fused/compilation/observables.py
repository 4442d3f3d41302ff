# SPDX-License-Identifier: Apache-2.0
"""Qiskit's observables -> `Observables`, each converted once.

Conversion follows `ObservablesArray`, with its nesting, its simplification and its errors. Results are remembered by
the content of the object given: a change in place is a new content, and equal observables in a new object are known.
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

MAX_CONVERTED_BYTES = 64 << 20
MAX_STACK_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class CoercedObservables:
    """Observables as given by a caller, flattened in C order.

    Attributes:
        operators: all of them.
        shape: the shape of the array they came in; () for a single one.
    """

    operators: Observables
    shape: tuple[int, ...]


_CONVERTED: BoundedCache[CoercedObservables] = BoundedCache(MAX_CONVERTED_BYTES)
_STACKS: BoundedCache[tuple[list[Observables], Observables]] = BoundedCache(MAX_STACK_BYTES)
_latest: tuple[Any, CoercedObservables] | None = None  # content and conversion of the last observables
_FINGERPRINTED = frozenset((SparsePauliOp, Pauli, PauliList))
_SCALARS = (str, Pauli, SparsePauliOp, SparseObservable, Mapping)


@on_release
def _forget_latest() -> None:
    global _latest
    _latest = None


def coerce_observables(observables: Any) -> CoercedObservables:
    """Convert anything `ObservablesArray` takes: one observable or nested lists of them.

    All letters of ``SparseObservable`` labels are understood, strings that start with ``+``, ``-`` or ``1`` included.

    Raises:
        TypeError: for an object that is no observable.
        ValueError: for a complex or empty observable, ragged lists, or different numbers of qubits.
    """
    global _latest
    key, latest = _content(observables), _latest
    if key is None:
        return _convert(observables)
    if latest is not None and latest[0] == key:  # a large key is compared in less time than it is hashed
        return latest[1]
    coerced = _CONVERTED.get(key)
    if coerced is None:
        coerced = _convert(observables)
        if _content(observables) == key:  # no other thread has changed them meanwhile
            coerced = _CONVERTED.put(key, coerced, 2 * array_bytes(coerced.operators))  # the key takes about as much
        else:
            return coerced
    _latest = key, coerced
    return coerced


def as_list(observables: Any) -> Any:
    """Return observables as a list or other sequence of single ones; a single one may have come without a list."""
    if isinstance(observables, ObservablesArray):
        observables = observables.sparse_observables_array()
    if isinstance(observables, (np.ndarray, PauliList)):
        return list(observables.ravel() if isinstance(observables, np.ndarray) else observables)
    return (observables,) if isinstance(observables, _SCALARS) else observables


def circuit_observables(observables: Any, num_qubits: int) -> CoercedObservables:
    """Convert observables on the qubits of a circuit, as `coerce_observables` does; None is Z on all qubits.

    Raises:
        TypeError, ValueError: as `coerce_observables`, and where there is no observable, or they are on another number
            of qubits.
    """
    coerced = coerce_observables(or_all_z(observables, num_qubits))
    if not coerced.operators.num_observables:
        raise ValueError("observables is empty; allowed: one observable or a list of them.")
    if num_qubits != coerced.operators.num_qubits:
        raise wrong_width(num_qubits, coerced.operators.num_qubits)
    return coerced


def or_all_z(observables: Any, num_qubits: int) -> Any:
    """Return what was given, or Z on all qubits in the place of None."""
    return "Z" * num_qubits if observables is None else observables


class LiveObservables:
    """Observables of an object that outlives a call: each call sees them as they are then, changed in place or not.

    Args:
        observables: one observable or a list of them; None is Z on all qubits.
        num_qubits: qubits of the circuit.

    Attributes:
        observables: the observables, the same object.
        shape: the shape of the array they came in; () for a single one.
        num_observables: how many they are.

    Raises:
        TypeError, ValueError: as `circuit_observables`.
    """

    def __init__(self, observables: Any, num_qubits: int):
        self.observables, self._num_qubits = observables, num_qubits
        self._latest, self.shape = self._read()
        self.num_observables = self._latest[1].num_observables

    def now(self) -> Observables:
        """Return the observables as they are now: the same object as before, if they are as they were.

        Raises:
            ValueError: when the number of observables is another one than at first.
        """
        content, operators = self._latest  # both at once: another thread may be replacing them
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
        """Return what the observables are and what they look like now, and their shape."""
        print_ = fingerprint(self.observables)  # first: a change while converting is then seen by the next call
        coerced = circuit_observables(self.observables, self._num_qubits)
        return (print_, coerced.operators), coerced.shape


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


def _content(thing: Any) -> Any:
    """Return a value to look up observables by: equal for equal content; None where the content cannot be told.

    Cost: as `fingerprint`, and a hash of it.
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
    """Join observables on the same qubits; the same object for the same parts."""
    if len(parts) == 1:
        return parts[0]
    key = tuple(map(id, parts))
    entry = _STACKS.get(key)
    if entry is None:
        stack = Observables.concatenate(parts)
        entry = _STACKS.put(key, (list(parts), stack), 2 * array_bytes(stack))  # the list keeps the ids taken
    return entry[1]


def _convert(observables: Any) -> CoercedObservables:
    if isinstance(observables, tuple):  # which `ObservablesArray` refuses
        observables = list(observables)
    if isinstance(observables, list) and observables and all(isinstance(item, _SCALARS) for item in observables):
        # the items may have been converted before, and will be again in other lists
        try:
            parts = [coerce_observables(item).operators for item in observables]
        except Exception as error:
            raise explain_refusal(observables, error) from None  # with the place in the list
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
