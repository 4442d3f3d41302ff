# SPDX-License-Identifier: Apache-2.0
"""A circuit of a sampler's run: its compiled circuit, and how its classical registers are read from bitstrings."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from qiskit.circuit import QuantumCircuit

from qiskit_fused.common.caches import BoundedCache
from qiskit_fused.common.forks import cached_property
from qiskit_fused.compilation.circuits import COMPILED, CompiledCircuit
from qiskit_fused.compilation.measurements import Measurements, find_measurements, measurements_of
from qiskit_fused.compilation.templates import find_template
from qiskit_fused.primitives.sampler_errors import explain
from qiskit_fused.program.outcomes import Outcomes

_OUTCOMES: BoundedCache[Outcomes] = BoundedCache(8 << 20)  # by the measured qubits; the bound is in bytes
_READOUTS: BoundedCache[Readout] = BoundedCache(8 << 20)  # by the id of the compiled circuit; the bound is in bytes
_REGISTER_BYTES = 1000  # estimated bytes of a readout for each register


class Register(NamedTuple):
    """A classical register.

    Attributes:
        name: name of the register.
        sources: for each bit, the least significant first, the position of its qubit among the measured qubits of a
            `Readout`; -1 for a bit that is always 0.
    """

    name: str
    sources: tuple[int, ...]


class Readout:
    """The measured qubits that are simulated, and the classical registers that are read from their bitstrings.

    Measured qubits on which no gate acts are always 0, so they are not simulated.

    Args:
        wires: int (num_qubits,), -1 for each qubit of the circuit on which no gate acts.
        measurements: the measurements of the circuit.

    Attributes:
        measurements: the measurements of the circuit.
        outcomes: the 2^k bitstrings of the k measured qubits that are simulated.
        registers: all classical registers, in the order of the circuit.
        layout: the sources of all registers.

    Raises:
        MemoryError: for more measured qubits than `Outcomes` takes.
    """

    def __init__(self, wires: np.ndarray, measurements: Measurements):
        self.measurements = measurements
        is_active = wires[measurements.qubits] >= 0
        qubits = measurements.qubits[is_active]
        self.outcomes = _outcomes_of(len(wires), qubits)
        position = np.append(np.where(is_active, np.cumsum(is_active) - 1, -1), -1)  # the last entry is that of -1
        self.registers = tuple(
            Register(name, tuple(position[sources].tolist())) for name, sources in measurements.registers
        )
        self.layout = tuple([sources for _, sources in self.registers])


def _outcomes_of(num_qubits: int, qubits: np.ndarray) -> Outcomes:
    """Return the outcomes of measured qubits; the same object for the same qubits, since engines cache by identity."""
    key = num_qubits, qubits.tobytes()
    outcomes = _OUTCOMES.get(key)
    return outcomes if outcomes is not None else _OUTCOMES.put(key, Outcomes(num_qubits, qubits), qubits.nbytes)


class SampledCircuit:
    """A circuit of one run, compiled once for all its PUBs.

    Args:
        circuit: the circuit of a PUB, or the result of `compile_circuit`.

    Attributes:
        source: the circuit as a ``QuantumCircuit``.
        parameters: the parameters for which PUBs give values.
        metadata: the metadata of the circuit.
        error: the error of compiling the circuit, in the words of Qiskit's sampler; or None.
        compiled, readout: the compiled circuit and its readout; None after an error.
        numbers: float64 (P,), the numbers of a bound circuit, which are values of its template's P parameters; or None.
    """

    def __init__(self, circuit: QuantumCircuit | CompiledCircuit):
        self.source: QuantumCircuit = circuit._held() if isinstance(circuit, CompiledCircuit) else circuit
        self.metadata: dict[str, Any] = circuit.metadata
        self.error: Exception | None = None
        self.compiled: CompiledCircuit | None = None
        self.readout: Readout | None = None
        self.numbers: np.ndarray | None = None
        try:
            found = find_template(circuit)
            if found is not None:
                compiled, self.numbers = found
                self.readout = Readout(compiled.program.wires, find_measurements(circuit))
            else:
                compiled = COMPILED.get(circuit)
                self.readout = _readout_of(compiled, measurements_of(compiled, self.source))
            self.compiled = compiled
        except Exception as error:  # as in Qiskit, job.result() raises the errors of circuits
            self.error = explain(error, self.source)
        self.parameters: tuple[Any, ...] = (
            tuple(self.source.parameters) if self.compiled is None else self.compiled.parameters
        )

    @cached_property
    def measured_names(self) -> list[str]:
        """The names of the registers that some qubit is measured into."""
        measurements = find_measurements(self.source) if self.readout is None else self.readout.measurements
        return [name for name, sources in measurements.registers if (sources >= 0).any()]


def _readout_of(compiled: CompiledCircuit, measurements: Measurements) -> Readout:
    """Return the readout of a compiled circuit. The latest readout is cached."""
    readout = _READOUTS.get(id(compiled))
    if readout is None or readout.measurements is not measurements:
        readout = Readout(compiled.program.wires, measurements)
        num_bytes = _REGISTER_BYTES * (1 + len(readout.registers))
        _READOUTS.put(id(compiled), readout, num_bytes, compiled, replace=True)
    return readout
