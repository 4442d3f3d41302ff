# SPDX-License-Identifier: Apache-2.0
"""The final measurements of a circuit: which qubit is measured into each classical bit of each register."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from qiskit.circuit import QuantumCircuit

from qiskit_fused.common.caches import BoundedCache
from qiskit_fused.compilation.circuits import CompiledCircuit

_MEASUREMENTS: BoundedCache[_Found] = BoundedCache(8 << 20)  # by the id of the compiled circuit; the bound is in bytes
_BYTES_PER_BIT = 200  # estimated bytes of cached measurements for each classical bit

_TRANSPARENT = frozenset(("barrier", "delay"))  # names of instructions behind which a measurement is still final


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
    """Return the measurements that no later instruction but barriers, delays and measurements follows on their qubit.

    If several measurements write a classical bit, the last one counts, as in a run of the circuit.

    Cost: 0.3 us for each instruction from the first final measurement to the end of the circuit.
    """
    qubit_of_bit: dict[int, int] = {}
    blocked: set[int] = set()  # qubits on which a later instruction acts
    num_qubits, num_clbits = circuit.num_qubits, circuit.num_clbits
    index_of = {bit: index for index, bit in enumerate(circuit.qubits)}
    index_of_clbit = {bit: index for index, bit in enumerate(circuit.clbits)}
    for instruction in reversed(circuit._data):
        if len(qubit_of_bit) == num_clbits or len(blocked) == num_qubits:
            break
        name = instruction.name
        if name == "measure":
            qubit, clbit = index_of[instruction.qubits[0]], index_of_clbit[instruction.clbits[0]]
            if qubit not in blocked:
                qubit_of_bit.setdefault(clbit, qubit)
        elif name not in _TRANSPARENT:
            blocked.update([index_of[bit] for bit in instruction.qubits])
    qubits = np.array(sorted(set(qubit_of_bit.values())), dtype=np.int64)
    bits = np.full(num_clbits, -1, dtype=np.int64)
    for clbit, qubit in qubit_of_bit.items():
        bits[clbit] = np.searchsorted(qubits, qubit)
    registers = tuple(
        MeasuredRegister(register.name, bits[[index_of_clbit[bit] for bit in register]] if len(register) else bits[:0])
        for register in circuit.cregs
    )
    return Measurements(qubits, registers, bits)


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
