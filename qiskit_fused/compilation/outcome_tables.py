# SPDX-License-Identifier: Apache-2.0
"""Measurements of a circuit and a user's ``interpret`` function -> the `Outcomes` whose probabilities are computed.

``interpret`` is a Python function. It is called once for each integer that the classical bits can have, and its
results are kept in a table, so an evaluation calls no Python code for a bitstring.

The integer of a measurement is the integer of the register "meas", which ``measure_all`` adds, if the circuit has one,
else the integer of all registers joined in the order of the circuit, the first one least significant. ``SamplerQNN``
reads the same integer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod
from operator import index
from typing import Any

import numpy as np
from qiskit.circuit import QuantumCircuit
from qiskit.transpiler import TranspileLayout

from qiskit_fused.common.text import count_text, whole_text
from qiskit_fused.compilation.circuits import CompiledCircuit, check_circuit
from qiskit_fused.compilation.measurements import find_measurements, integers_of
from qiskit_fused.program.outcomes import DROPPED, Outcomes

MAX_OUTCOMES = 1 << 30  # outcomes are stored as int32
_MEASURE_ALL = "meas"  # the register of `QuantumCircuit.measure_all`

Interpret = Callable[[int], int | Iterable[int]]
"""A function of the integer of the classical bits; it returns the index of an outcome, an int or a tuple of ints."""


def find_outcomes(
    circuit: QuantumCircuit | CompiledCircuit,
    interpret: Interpret | None = None,
    output_shape: int | Iterable[int] | None = None,
) -> tuple[Outcomes, tuple[int, ...]]:
    """Return the outcomes of the final measurements of a circuit, and the shape of their probabilities.

    The outcome of a bitstring is ``interpret(z)``, where z is the integer of the register "meas" if the circuit has
    one, else of all classical registers joined; the first bit is the least significant one. A bit that nothing is
    measured into is 0. If the circuit has no classical bits, all its qubits are measured in their order; if it was
    transpiled for a device, the qubits that it had before.

    >>> circuit = QuantumCircuit(2)
    >>> outcomes, shape = find_outcomes(circuit, lambda z: z.bit_count() % 2, 2)  # the parity of the bits
    >>> outcomes.table.tolist(), shape
    ([0, 1, 1, 0], (2,))

    Args:
        circuit: the circuit, or the result of `compile_circuit`.
        interpret: a function of z that returns the index of the outcome, an int or a tuple of ints. None: z itself.
        output_shape: the shape of the outcomes, an int or a tuple of ints; needed with ``interpret``, and refused
            without it. Without ``interpret`` the shape is ``(2^c,)`` for the c bits of z.

    Returns:
        The outcomes, numbered in row-major order of the shape; and the shape.

    Raises:
        TypeError: if the circuit is no circuit, or interpret no function.
        ValueError: if the circuit has classical bits and no final measurement; see also `tabulate`.
        MemoryError: for more than 30 measured qubits, or more than 2^30 outcomes.

    Cost: one call of ``interpret`` for each of the 2^k bitstrings of k measured qubits.
    """
    check_circuit(circuit)
    if isinstance(circuit, CompiledCircuit):
        circuit = circuit.circuit
    if interpret is None and output_shape is not None:
        raise ValueError(
            f"output_shape is {output_shape}, and there is no interpret; allowed: both or neither. Without interpret, "
            "there is one outcome for each integer of the classical bits."
        )
    return outcomes_of_bits(circuit.num_qubits, measured_bits(circuit), interpret, output_shape)


def find_integers(
    circuit: QuantumCircuit | CompiledCircuit, check: Callable[[Outcomes], None] | None = None
) -> tuple[Outcomes, list[int]]:
    """Return one outcome for each integer z that a measurement can give, see `find_outcomes`; and these integers.

    >>> circuit = QuantumCircuit(2, 3)
    >>> _ = circuit.measure([0, 1], [0, 2])
    >>> find_integers(circuit)[1]
    [0, 1, 4, 5]

    Args:
        circuit: the circuit, or the result of `compile_circuit`.
        check: called with outcomes of the same number, before the integers are made.

    Returns:
        The outcomes, and the integer of each outcome, ascending.

    Raises:
        TypeError, ValueError, MemoryError: as `find_outcomes`.
    """
    check_circuit(circuit)
    if isinstance(circuit, CompiledCircuit):
        circuit = circuit.circuit
    qubits, sources = _sources(measured_bits(circuit))
    outcomes = Outcomes(circuit.num_qubits, qubits)  # refuses too many qubits before their bitstrings are tabulated
    if check is not None:
        check(outcomes)
    integers, table = np.unique(integers_of(sources, len(qubits)), return_inverse=True)
    if np.array_equal(table, np.arange(len(table))):  # each bitstring is an outcome, in the same order
        return outcomes, integers.tolist()
    return Outcomes(circuit.num_qubits, qubits, table, len(integers)), integers.tolist()


def measured_bits(circuit: QuantumCircuit) -> np.ndarray:
    """Return the circuit qubit that is measured into each bit of the integer z of `find_outcomes`, int (c,), or -1.

    Raises:
        ValueError: if the circuit has classical bits and no final measurement into the bits of z.
    """
    if not circuit.num_clbits:
        return np.arange(circuit.num_qubits) if circuit.layout is None else _places_of(circuit.layout)
    qubits, registers, bits = find_measurements(circuit)
    sources = {register.name: register.sources for register in registers}
    if _MEASURE_ALL in sources:
        bits = sources[_MEASURE_ALL]
    elif sources:
        bits = np.concatenate(list(sources.values()))
    if bits.max(initial=-1) < 0:
        raise ValueError(
            f"the circuit has {count_text(circuit.num_clbits, 'classical bit')}, and no qubit is measured into "
            "them at the end of the circuit; measure qubits, or remove the classical bits to measure all qubits."
        )
    return np.where(bits < 0, -1, qubits[bits])


def bits_before_transpilation(
    circuit: QuantumCircuit, layout: TranspileLayout | None, qubit_of_bit: np.ndarray
) -> np.ndarray:
    """Return the qubits of the bits of z; if a circuit was measured after its transpilation, as it was before.

    A circuit was measured after its transpilation if, and only if, bit i of z is measured from qubit i for all its N
    qubits, z has no further bits, and either N is larger than the number n of qubits before the transpilation, or the
    register is called "meas", as ``measure_all`` makes it. Then bit i of the result is read from the place of qubit i
    of the circuit before the transpilation. In all other cases the bits mean what the circuit says. (With N > n, no
    circuit of n qubits has N bits with a qubit each, so it was measured later.)

    >>> from qiskit import transpile
    >>> circuit = QuantumCircuit(2)
    >>> _ = circuit.h(1)
    >>> transpiled = transpile(circuit, coupling_map=[[0, 1], [1, 2]], basis_gates=["h"], initial_layout=[2, 0])
    >>> transpiled.measure_all()
    >>> bits_before_transpilation(transpiled, transpiled.layout, measured_bits(transpiled)).tolist()
    [2, 0]

    Args:
        circuit: the circuit, with its classical registers.
        layout: its layout; None if it was not transpiled.
        qubit_of_bit: int (c,), the qubit that is measured into each bit of z, or -1, see `measured_bits`.

    Returns:
        Int (n,) or (c,), the qubit of each bit, or -1.
    """
    if layout is None or not np.array_equal(qubit_of_bit, np.arange(circuit.num_qubits)):
        return qubit_of_bit
    places = _places_of(layout)
    if len(places) < circuit.num_qubits or any(register.name == _MEASURE_ALL for register in circuit.cregs):
        return places
    return qubit_of_bit


def _places_of(layout: TranspileLayout) -> np.ndarray:
    """Return the final place of each qubit that a circuit had before its transpilation, int (n,)."""
    return np.array(layout.final_index_layout(filter_ancillas=True), dtype=np.int64)


def outcomes_of_bits(
    num_qubits: int,
    qubit_of_bit: np.ndarray,
    interpret: Interpret | None,
    output_shape: int | Iterable[int] | None,
    num_integers: int | None = None,
) -> tuple[Outcomes, tuple[int, ...]]:
    """Return the outcomes of an integer whose bits are qubits, and the shape of their probabilities.

    Args:
        num_qubits: number of qubits of the circuit.
        qubit_of_bit: int (c,), the qubit that is measured into each bit of the integer, or -1, see `measured_bits`.
        interpret: a function of the integer, see `tabulate`; None is the integer.
        output_shape: the shape of the outcomes; None without ``interpret`` is ``(2^c,)``.
        num_integers: larger or equal integers belong to no outcome. None: every integer has an outcome.

    Raises:
        TypeError, ValueError, MemoryError: as `find_outcomes`.
    """
    qubits, sources = _sources(qubit_of_bit)
    outcomes = Outcomes(num_qubits, qubits)  # refuses too many qubits before their bitstrings are tabulated
    if interpret is None:
        output_shape = 1 << len(sources) if output_shape is None else output_shape
        is_identity = np.array_equal(sources, np.arange(len(qubits)))
        if is_identity and output_shape in (outcomes.num_observables, (outcomes.num_observables,)):
            return outcomes, (outcomes.num_observables,)
    integers = integers_of(sources, len(qubits))
    if num_integers is not None:
        integers = np.where(integers < num_integers, integers, -1)
    table, shape = tabulate(interpret, output_shape, integers)
    return Outcomes(num_qubits, qubits, table, prod(shape)), shape


def _sources(qubit_of_bit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the measured qubits, and for each bit the position of its qubit among them, or -1.

    If each bit has a qubit of its own, the qubits are in the order of the bits: their bitstring is the integer.
    """
    qubits = np.unique(qubit_of_bit[qubit_of_bit >= 0])
    if len(qubits) == len(qubit_of_bit):
        return qubit_of_bit, np.arange(len(qubit_of_bit))
    return qubits, np.where(qubit_of_bit < 0, -1, np.searchsorted(qubits, qubit_of_bit))


def tabulate(
    interpret: Interpret | None, output_shape: int | Iterable[int] | None, integers: np.ndarray
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return the outcome of each bitstring, and the shape of the outcomes.

    >>> tabulate(lambda z: (z & 1, z >> 1), (2, 2), np.arange(4))
    (array([0, 2, 1, 3], dtype=int32), (2, 2))

    Args:
        interpret: a function of an integer that returns the index of its outcome, an int or a tuple of ints; it is
            called once for each different integer. None: the integer itself.
        output_shape: the shape of the outcomes, an int or a tuple of ints.
        integers: int (2^m,), the integer of each bitstring, see `integers_of`; a negative integer belongs to no
            outcome.

    Returns:
        The table, int32 (2^m,): the number of the outcome in row-major order of the shape, or `DROPPED`. And the shape,
        a tuple.

    Raises:
        TypeError: if interpret is no function.
        ValueError: if output_shape is missing or is no shape, or interpret returns something else than an index in that
            shape. The text names the integer and the result.
        MemoryError: for more than 2^30 outcomes.
    """
    if interpret is not None and not callable(interpret):
        raise TypeError(f"interpret must be a function of an integer, or None, not {type(interpret).__name__}.")
    shape = as_shape(output_shape)
    if interpret is None and len(shape) == 1 and integers.max(initial=0) < shape[0]:
        return np.where(integers < 0, DROPPED, integers).astype(np.int32), shape
    distinct, places = np.unique(integers, return_inverse=True)
    index_of = (lambda z: z) if interpret is None else interpret
    outcomes = [_number(z, index_of(z), shape) if z >= 0 else DROPPED for z in distinct.tolist()]
    return np.array(outcomes, dtype=np.int32)[places], shape


def as_shape(output_shape: Any) -> tuple[int, ...]:
    """Return a shape as a tuple of ints, or raise an error."""
    if output_shape is None:
        raise ValueError(
            "interpret is given without output_shape; give the shape of the outcomes too, such as output_shape=2 for "
            "two classes."
        )
    shape = _as_index(output_shape)
    if not shape or min(shape) < 1:
        raise ValueError(
            f"output_shape is {output_shape!r}; allowed: an integer of at least 1, or a tuple of such integers."
        )
    if prod(shape) > MAX_OUTCOMES:
        raise MemoryError(
            f"{count_text(prod(shape), 'outcome')} are asked for; allowed: at most 2^30. Give an interpret function "
            "that returns fewer, and its output_shape."
        )
    return shape


def _as_index(value: Any) -> tuple[int, ...] | None:
    """Return an int or several ints as a tuple of ints; None for anything else."""
    try:
        return (_as_int(value),)
    except TypeError:
        pass
    try:
        return tuple([_as_int(item) for item in value])
    except TypeError:
        return None


def _as_int(value: Any) -> int:
    """Return a bool or an integer of Python or NumPy as an int, or raise a TypeError."""
    return int(value) if isinstance(value, np.bool_) else index(value)


def _number(integer: int, value: Any, shape: tuple[int, ...]) -> int:
    """Return the number of the outcome with an index, in row-major order."""
    found = _as_index(value)
    number = 0
    if found is not None and len(found) == len(shape):
        for position, size in zip(found, shape):
            if not 0 <= position < size:
                break
            number = number * size + position
        else:
            return number
    if len(shape) == 1:
        allowed = f"integers from 0 to {shape[0] - 1}"
    else:
        allowed = f"tuples of {len(shape)} integers, from {(0,) * len(shape)} to {tuple(size - 1 for size in shape)}"
    shown = whole_text(value) if isinstance(value, int) else repr(value)
    raise ValueError(
        f"interpret({whole_text(integer)}) is {shown}; allowed for output_shape {shape}: {allowed}. Give another "
        "interpret or another output_shape."
    )
