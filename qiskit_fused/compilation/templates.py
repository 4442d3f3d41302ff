# SPDX-License-Identifier: Apache-2.0
"""Small circuits without parameters, by their structure: circuits that differ in numbers alone are compiled once.

A loop that binds a circuit for each sample gives the estimator a new circuit each time. Their gates and qubits are the
same, so that all of them are rows of one template: a circuit in which each number is a parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np
from qiskit.circuit import Barrier, Gate, Instruction, QuantumCircuit

from qiskit_fused.common.caches import BoundedCache
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.lowering.lower import PASSIVE, lower
from qiskit_fused.lowering.standard_gates import STANDARD

MAX_QUBITS = 10  # in larger circuits, fusing constants saves more time than compiling takes
MAX_ENTRIES = 2000  # of a structure: names and qubits of its gates
_MAX_BYTES = 64 << 20
_BYTES_PER_ENTRY = 1000  # of a template with some plans

_TEMPLATES: BoundedCache[CompiledCircuit] = BoundedCache(_MAX_BYTES)


def find_template(circuit: Any) -> tuple[CompiledCircuit, np.ndarray] | None:
    """Return the template of a circuit, and the circuit's numbers: the values of the template's parameters.

    Args:
        circuit: any circuit, compiled or not.

    Returns:
        None for a circuit that has parameters, is compiled, or holds anything but standard gates, with finite numbers,
        barriers, and gates that circuits were turned into.

    Cost: 1 us per gate; for the first circuit of a structure what compiling takes.
    """
    if not isinstance(circuit, QuantumCircuit) or circuit.num_qubits > MAX_QUBITS or circuit.num_parameters:
        return None
    structure: list[Any] = [circuit.num_qubits]
    numbers: list[float] = []
    if not _collect(circuit, range(circuit.num_qubits), structure, numbers):
        return None
    try:
        if not all(isinstance(number, (float, int)) and isfinite(number) for number in numbers):
            return None
    except OverflowError:  # an integer larger than any float, which lowering refuses by name
        return None
    key = tuple(structure)
    template = _TEMPLATES.get(key)
    if template is None:
        template = _TEMPLATES.put(key, _make(circuit, len(numbers)), _BYTES_PER_ENTRY * len(structure))
    return template, np.array(numbers, dtype=np.float64)


def _collect(circuit: QuantumCircuit, qubits: Sequence[int], structure: list[Any], numbers: list[float]) -> bool:
    """Add the gates of a circuit on some qubits, in the order in which they are lowered; False where there is more."""
    wires = dict(zip(circuit.qubits, qubits))
    for instruction in circuit._data:
        name, targets = instruction.name, [wires[qubit] for qubit in instruction.qubits]
        if instruction.is_standard_gate() and name in STANDARD:
            structure += [name, *targets]
            numbers += instruction.params
        elif not isinstance(operation := instruction.operation, Barrier):
            if type(operation) not in (Gate, Instruction) or name in PASSIVE or operation.definition is None:
                return False
            structure += ["(", *targets]
            if not _collect(operation.definition, targets, structure, numbers):
                return False
            structure.append(")")
        if len(structure) > MAX_ENTRIES:
            return False
    return True


def _make(circuit: QuantumCircuit, num_numbers: int) -> CompiledCircuit:
    template = object.__new__(CompiledCircuit)
    template.__setstate__(
        {
            "_kept": None,
            "num_instructions": len(circuit._data),
            "num_qubits": circuit.num_qubits,
            "parameters": (),  # nobody has Parameter objects for them
            "_columns": {},
            "program": lower(circuit, num_numbers),
        }
    )
    return template
