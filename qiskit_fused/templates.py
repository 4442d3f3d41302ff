# SPDX-License-Identifier: Apache-2.0
"""Small circuits without parameters, by their structure: circuits that differ in numbers alone are compiled once.

A loop that binds a circuit for each sample gives the estimator a new circuit each time. Their gates and qubits are the
same, so that all of them are rows of one template: a circuit in which each number is a parameter.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

import numpy as np
from qiskit.circuit import QuantumCircuit

from qiskit_fused.caches import BoundedCache
from qiskit_fused.compiler import CompiledCircuit
from qiskit_fused.lowering import lower
from qiskit_fused.standard_gates import STANDARD

MAX_QUBITS = 10  # in larger circuits, what is known of constants saves more time than compiling takes
MAX_INSTRUCTIONS = 500
_MAX_BYTES = 64 << 20
_BYTES_PER_INSTRUCTION = 3000  # of a template with some plans

_TEMPLATES: BoundedCache[CompiledCircuit] = BoundedCache(_MAX_BYTES)


def find_template(circuit: Any) -> tuple[CompiledCircuit, np.ndarray] | None:
    """Return the template of a circuit, and the circuit's numbers: the values of the template's parameters.

    Args:
        circuit: any circuit, compiled or not.

    Returns:
        None for a circuit that has parameters, is compiled, or holds anything but standard gates and finite numbers.

    Cost: 1 us per gate; for the first circuit of a structure what compiling takes.
    """
    if (
        not isinstance(circuit, QuantumCircuit)
        or circuit.num_qubits > MAX_QUBITS
        or circuit.num_parameters
        or len(circuit._data) > MAX_INSTRUCTIONS
    ):
        return None
    wires = {qubit: index for index, qubit in enumerate(circuit.qubits)}
    structure: list[Any] = [circuit.num_qubits]
    numbers: list[float] = []
    for instruction in circuit._data:
        name = instruction.name
        if not instruction.is_standard_gate() or name not in STANDARD:
            return None
        structure.append(name)
        structure.extend([wires[qubit] for qubit in instruction.qubits])
        numbers.extend(instruction.params)
    if not all(isinstance(number, (float, int)) and isfinite(number) for number in numbers):
        return None
    key = tuple(structure)
    template = _TEMPLATES.get(key)
    if template is None:
        template = _TEMPLATES.put(key, _make(circuit, len(numbers)), _BYTES_PER_INSTRUCTION * len(structure))
    return template, np.array(numbers, dtype=np.float64)


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
