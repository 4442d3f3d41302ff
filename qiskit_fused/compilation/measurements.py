# SPDX-License-Identifier: Apache-2.0
"""The final measurements of a circuit: which qubit is measured into each classical bit of each register."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from qiskit.circuit import QuantumCircuit

from qiskit_fused.common.caches import BoundedCache
from qiskit_fused.compilation.circuits import CompiledCircuit

_MEASUREMENTS: BoundedCache[_Found] = BoundedCache(8 << 20)  # by the id of the compiled circuit; the bound is in bytes
_BYTES_PER_BIT = 200  # estimated bytes of cached measurements for each classical bit


class MeasuredRegister(NamedTuple):
    """A classical register, and where the values of its bits come from.

    Attributes:
        name: name of the register.
        sources: int64 (bits,), for each bit the position in `Measurements.qubits` of the qubit that is measured into
            the bit; -1 for a bit that nothing is measured into, whose value is 0.
    """

    name: str
    sources: np.ndarray


class Measurements(NamedTuple):
    """The final measurements of a circuit.

    The k measured qubits have a bitstring y: bit j of the integer y is the value of qubit ``qubits[j]``.

    Attributes:
        qubits: int64 (k,), the measured circuit qubits, each once, ascending.
        registers: all classical registers, in the order of the circuit, also those nothing is measured into.
        bits: int64 (classical bits of the circuit,), for each bit the position in ``qubits``, or -1.
    """

    qubits: np.ndarray
    registers: tuple[MeasuredRegister, ...]
    bits: np.ndarray


def find_measurements(circuit: QuantumCircuit) -> Measurements:
    """Return the measurements of a circuit that compiles, also those inside the definition of an instruction.

    All of them are final: lowering refuses a circuit in which a gate or a reset follows a measurement on its qubit. If
    several measurements write a classical bit, the last one counts, as in a run of the circuit.

    Cost: 0.3 us for each instruction from the first measurement that counts to the end of the circuit; if nothing is
    measured into a classical bit, for each instruction of the circuit.
    """
    index_of = {bit: index for index, bit in enumerate(circuit.qubits)}
    index_of_clbit = {bit: index for index, bit in enumerate(circuit.clbits)}
    qubit_of_bit: dict[int, int] = {}
    for qubit, clbit in _measurements_from_the_end(circuit, index_of, index_of_clbit):
        qubit_of_bit.setdefault(clbit, qubit)
        if len(qubit_of_bit) == circuit.num_clbits:
            break
    qubits = np.array(sorted(set(qubit_of_bit.values())), dtype=np.int64)
    bits = np.full(circuit.num_clbits, -1, dtype=np.int64)
    for clbit, qubit in qubit_of_bit.items():
        bits[clbit] = np.searchsorted(qubits, qubit)
    registers = tuple(
        MeasuredRegister(register.name, bits[[index_of_clbit[bit] for bit in register]] if len(register) else bits[:0])
        for register in circuit.cregs
    )
    return Measurements(qubits, registers, bits)


def _measurements_from_the_end(
    circuit: QuantumCircuit, qubits: Mapping[Any, int], clbits: Mapping[Any, int]
) -> Iterator[tuple[int, int]]:
    """Yield the qubit and the classical bit of each measurement, the last measurement first.

    Args:
        circuit: a circuit, or the definition of an instruction.
        qubits: the number of each of its qubits.
        clbits: the number of each of its classical bits.
    """
    for instruction in reversed(circuit._data):
        if not instruction.clbits:
            continue
        if instruction.name == "measure":
            yield qubits[instruction.qubits[0]], clbits[instruction.clbits[0]]
        elif (definition := instruction.operation.definition) is not None:
            inner_qubits = zip(definition.qubits, [qubits[bit] for bit in instruction.qubits])
            inner_clbits = zip(definition.clbits, [clbits[bit] for bit in instruction.clbits])
            yield from _measurements_from_the_end(definition, dict(inner_qubits), dict(inner_clbits))


class _Found(NamedTuple):
    """Measurements of a compiled circuit, and the classical bits and registers that the circuit then had."""

    clbits: list[Any]
    registers: list[Any]
    measurements: Measurements


def measurements_of(compiled: CompiledCircuit, circuit: QuantumCircuit) -> Measurements:
    """Return `find_measurements` of a circuit that ``compiled`` describes. The result is cached.

    The compiled circuit has the same instructions. Only classical bits and registers may have been added or removed
    since the circuit was compiled.

    Cost: 20 ns for each classical bit, after the first call.
    """
    found = _MEASUREMENTS.get(id(compiled))
    clbits, registers = circuit.clbits, circuit.cregs
    if found is None or found.clbits != clbits or found.registers != registers:
        found = _Found(clbits, registers, find_measurements(circuit))
        num_bytes = _BYTES_PER_BIT * (len(clbits) + sum(map(len, registers)))
        _MEASUREMENTS.put(id(compiled), found, num_bytes, compiled, replace=True)
    return found.measurements


def integers_of(sources: Sequence[int] | np.ndarray, num_measured: int) -> np.ndarray:
    """Return, for each bitstring of the measured qubits, the integer that classical bits then have.

    Args:
        sources: int (bits,), for each classical bit, the least significant first, the position of its qubit among the
            measured qubits, or -1.
        num_measured: k, the number of measured qubits.

    Returns:
        int64 (2^k,), or Python integers in an array of dtype object for more than 62 bits.
    """
    kind = np.int64 if len(sources) < 63 else object
    integers = np.zeros(1, dtype=kind)
    for qubit in range(num_measured):
        weight = sum(1 << bit for bit, source in enumerate(sources) if source == qubit)
        integers = np.concatenate([integers, integers + weight])
    return integers
