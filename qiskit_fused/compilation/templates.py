# SPDX-License-Identifier: Apache-2.0
"""Templates: bound circuits that differ only in their numbers share one compiled circuit.

A loop that binds a circuit for each sample gives the estimator a new circuit for each sample. All these circuits have
the same gates on the same qubits, so they are rows of one template: a circuit in which each number is a parameter.

A template saves the time to compile each circuit, and loses the time that a simulation saves where numbers are known to
be constant. Measured for `efficient_su2` with 3 repetitions, bound anew before each call, two cores of an Intel Xeon:
10, 12, 16, 20 and 22 qubits take 0.18, 0.26, 0.93, 20 and 106 ms with a template, and 2.1, 4.3, 6.6, 28 and 217 ms
without one. A bound circuit that runs again and again takes up to 1.8 times as long with a template (4 qubits, 0.5 ms).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import isfinite
from typing import Any

import numpy as np
from qiskit.circuit import Barrier, Gate, Instruction, Measure, QuantumCircuit

from qiskit_fused.common.caches import BoundedCache
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.lowering.emitter import NormalForm
from qiskit_fused.lowering.gate_table import GATES
from qiskit_fused.lowering.lower import PASSIVE
from qiskit_fused.lowering.standard_gates import STANDARD
from qiskit_fused.program.expression_columns import CompiledExpressions
from qiskit_fused.program.program import Angle, Program
from qiskit_fused.program.program import Gate as ProgramGate

_MAX_BYTES = 64 << 20  # bound of all cached templates, in bytes
_BYTES_PER_ENTRY = 1000  # estimated bytes of a template with some fused programs, for each entry of its structure
# Bound of the names and qubits in a structure. A longer circuit has no template, because its template would take more
# than half of the cache.
MAX_ENTRIES = _MAX_BYTES // _BYTES_PER_ENTRY // 2

_KEPT_GATES = 4096  # bound of the cached gates and their cached rows; the key is (name, wires, first column)

_TEMPLATES: BoundedCache[CompiledCircuit] = BoundedCache(_MAX_BYTES)


def find_template(circuit: Any) -> tuple[CompiledCircuit, np.ndarray] | None:
    """Return the template of a circuit, and the circuit's numbers, float64, which are values of its parameters.

    Args:
        circuit: any circuit, compiled or not.

    Returns:
        None for a circuit that has no template. A circuit has a template if it is not compiled, has no parameters, and
        consists of standard gates with finite numbers, barriers, gates made of circuits (``circuit.to_gate()``), and
        measurements that no gate follows. A template has no measurements.

    Cost: 1 us for each gate; the first circuit of a structure is also compiled.
    """
    if not isinstance(circuit, QuantumCircuit) or circuit.num_parameters or len(circuit._data) > MAX_ENTRIES:
        return None
    structure: list[Any] = [circuit.num_qubits]
    numbers: list[float] = []
    if not _collect(circuit, range(circuit.num_qubits), structure, numbers, set()):
        return None
    try:
        if not all(isinstance(number, (float, int)) and isfinite(number) for number in numbers):
            return None
    except OverflowError:  # an integer larger than any float, which lowering refuses by name
        return None
    key = tuple(structure)
    template = _TEMPLATES.get(key)
    if template is None:
        template = _TEMPLATES.put(key, _make(structure, len(numbers)), _BYTES_PER_ENTRY * len(structure))
    return template, np.array(numbers, dtype=np.float64)


def _collect(
    circuit: QuantumCircuit,
    qubits: Sequence[int],
    structure: list[Any],
    numbers: list[float],
    measured: set[int] | None = None,
) -> bool:
    """Append the gates of a circuit to a structure and to its numbers, in the order of lowering.

    Args:
        circuit: the circuit, or the definition of a gate.
        qubits: the qubit of the outermost circuit for each qubit of ``circuit``.
        structure: the names and qubits of the gates, with brackets around definitions.
        numbers: the numbers of the gates.
        measured: the qubits that were measured; None for a definition, which may not measure.

    Returns:
        False for a circuit that has no template.
    """
    wires = dict(zip(circuit.qubits, qubits))
    for instruction in circuit._data:
        name, targets = instruction.name, [wires[qubit] for qubit in instruction.qubits]
        if instruction.is_standard_gate() and name in STANDARD:
            structure += [name, *targets]
            numbers += instruction.params
        elif not isinstance(operation := instruction.operation, Barrier):
            if measured is not None and isinstance(operation, Measure):
                measured.update(targets)
                continue
            if type(operation) not in (Gate, Instruction) or name in PASSIVE or operation.definition is None:
                return False
            structure += ["(", *targets]
            if not _collect(operation.definition, targets, structure, numbers):
                return False
            structure.append(")")
        else:
            continue
        if measured and not measured.isdisjoint(targets):  # a mid-circuit measurement, which lowering refuses
            return False
        if len(structure) > MAX_ENTRIES:
            return False
    return True


def _make(structure: Sequence[Any], num_numbers: int) -> CompiledCircuit:
    """Compile the circuit of a structure, with a parameter in the place of each number."""
    num_qubits, instructions = structure[0], list[tuple[str, list[int]]]()
    for part in structure[1:]:
        if isinstance(part, int):
            instructions[-1][1].append(part)
        elif part != ")":
            instructions.append((part, []))
    template = object.__new__(CompiledCircuit)
    template.__setstate__(
        {
            "_kept": None,
            "num_instructions": len(instructions),
            "num_qubits": num_qubits,
            "parameters": (),  # the template's parameters have no Parameter objects
            "_columns": {},
            "program": _lower(num_qubits, instructions, num_numbers),
        }
    )
    return template


def _lower(num_qubits: int, instructions: Sequence[tuple[str, Sequence[int]]], num_numbers: int) -> Program:
    """Lower standard gates, given by names and qubits, as `lower` does if each number is a parameter."""
    active = sorted({qubit for name, qubits in instructions if name != "id" for qubit in qubits})
    wire_of = dict(zip(active, range(len(active))))
    form = NormalForm(len(active))
    gates: list[ProgramGate] = []
    begins: list[int] = []
    column = 0
    for name, qubits in instructions:
        begins += (len(gates), len(form.rows))
        if name in _NO_GATE:
            column += name == "global_phase"
            continue
        wires = tuple([wire_of[qubit] for qubit in qubits])
        places = tuple([form.wire_of[wire] for wire in wires])
        gates.append(_gate(name, wires, column))
        rows, new_places = _normal_form(name, places, column)
        form.rows += rows
        if new_places != places:
            for wire, place in zip(wires, new_places):
                form.wire_of[wire] = place
        column += len(gates[-1].angles)
    begins += (len(gates), len(form.rows))
    output_wire_of = dict(zip(active, form.wire_of))
    names = _names(num_numbers)
    return Program(
        num_qubits=len(active),
        num_circuit_qubits=num_qubits,
        wires=np.array([wire_of.get(qubit, -1) for qubit in range(num_qubits)], np.int32),
        output_wires=np.array([output_wire_of.get(qubit, -1) for qubit in range(num_qubits)], np.int32),
        num_parameters=num_numbers,
        expressions=CompiledExpressions((), (), names),
        gates=tuple(gates),
        ops=form.finish(),
        parameter_names=names,
        instructions=np.array(begins, np.int64).reshape(-1, 2),
    )


_NO_GATE = ("(", "id", "global_phase")


# Different structures share many gates, so each gate is lowered once and cached.


@lru_cache(maxsize=_KEPT_GATES)
def _gate(name: str, wires: tuple[int, ...], column: int) -> ProgramGate:
    """Return a standard gate on wires. Its numbers are the parameters with consecutive columns from ``column`` on."""
    name, num_controls = STANDARD[name]
    angles = tuple([Angle(column + number, 1.0, 0.0) for number in range(GATES[name].num_angles)])
    return ProgramGate(name, wires[num_controls:], angles, wires[:num_controls], (1 << num_controls) - 1)


@lru_cache(maxsize=_KEPT_GATES)
def _normal_form(name: str, places: tuple[int, ...], column: int) -> tuple[list[tuple], tuple[int, ...]]:
    """Return the rows of the normal form of a gate whose qubits are on wires ``places``, and their wires after it."""
    form = NormalForm(len(places))
    form.wire_of[:] = places
    gate = _gate(name, tuple(range(len(places))), column)
    GATES[gate.name].lower(form.controlled(gate.controls, gate.ctrl_state), gate.qubits, gate.angles)
    return form.rows, tuple(form.wire_of)


@lru_cache(maxsize=256)
def _names(count: int) -> tuple[str, ...]:
    """Return the names of a template's parameters."""
    return tuple([f"number {column}" for column in range(count)])
