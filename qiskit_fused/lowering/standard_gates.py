# SPDX-License-Identifier: Apache-2.0
"""Map Qiskit's standard gates to names in the gate table, and read operations as a circuit stores them."""

from __future__ import annotations

from qiskit.circuit import CircuitInstruction, ControlledGate, Instruction
from qiskit.circuit.library import RVGate, UnitaryGate
from qiskit.circuit.library.standard_gates import get_standard_gate_name_mapping

from qiskit_fused.lowering.gate_table import GATES


def _standard_names() -> dict[str, tuple[str, int]]:
    """Map Qiskit's standard gate names to (name in the gate table, number of controls)."""
    names = {}
    for name, gate in get_standard_gate_name_mapping().items():
        if name in GATES:
            names[name] = (name, 0)
        elif isinstance(gate, ControlledGate) and gate.base_gate.name in GATES and name != "cu":
            names[name] = (gate.base_gate.name, gate.num_ctrl_qubits)
    return names


STANDARD = _standard_names()
"""The name in the gate table and the number of controls, by the name of each standard gate of Qiskit."""

TABLE_CLASSES = {get_standard_gate_name_mapping()[name].base_class: name for name in STANDARD if name in GATES}
TABLE_CLASSES[RVGate] = "rv"
"""The name in the gate table of each class of standard gates. Subclasses that users define are not among them."""


def stored_operation(instruction: CircuitInstruction) -> Instruction:
    """Return the operation of an instruction as the circuit stores it.

    Qiskit stores standard gates and the matrix of a `UnitaryGate` in native code, so a change of the Python object does
    not change the circuit.
    """
    operation = instruction.operation
    if instruction.is_standard_gate():
        return operation.base_class(*instruction.params)
    return UnitaryGate(instruction.matrix, check_input=False) if type(operation) is UnitaryGate else operation
