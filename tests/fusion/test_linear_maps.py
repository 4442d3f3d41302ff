# SPDX-License-Identifier: Apache-2.0
"""CX gates that follow each other become linear maps; the circuit stays the same."""

import numpy as np
import pytest
from circuits import circuits_of_cx_and_diagonals, values_of
from engine_cases import cx_layers, plan_of, total_z
from hypothesis import given, settings
from normal_form_oracle import apply_ops
from qiskit.circuit import ParameterVector, QuantumCircuit

from qiskit_fused.fusion.linear_maps import gather_maps
from qiskit_fused.lowering.lower import lower
from qiskit_fused.program.program import OpKind


def move(parities, num_qubits, matrix):
    """Apply a linear map, given as in `MappedOps`, to the rows of a matrix."""
    index = np.arange(1 << num_qubits)
    moved = index.copy()
    for target, mask in parities.items():
        bit = np.bitwise_count(index & mask).astype(np.int64) & 1
        moved = moved & ~(1 << target) | bit << target
    result = np.empty_like(matrix)
    result[moved] = matrix
    return result


@settings(max_examples=300)
@given(circuits_of_cx_and_diagonals())
def test_the_circuit_stays_the_same(circuit):
    program = lower(circuit)
    mapped = gather_maps(program.ops)
    if mapped is None:
        return
    columns = program.columns(np.asarray(values_of(circuit), dtype=float)[None])[0]
    unit = np.eye(1 << program.num_qubits, dtype=complex)
    found, done, maps = unit, 0, iter(mapped.maps)
    for place in [*np.flatnonzero(mapped.ops.kind == OpKind.MAP).tolist(), len(mapped.ops)]:
        found = apply_ops(mapped.ops.take(slice(done, place)), columns, found)
        if place < len(mapped.ops):
            found = move(next(maps), program.num_qubits, found)
        done = place + 1
    expected = apply_ops(program.ops, columns, unit)
    np.testing.assert_allclose(np.exp(1j * mapped.phase) * found, expected, rtol=0, atol=1e-10)
    for parities in mapped.maps:
        for target, mask in parities.items():
            assert mask >> target & 1
            assert mask < 2 << target if mapped.upwards else mask & -mask == 1 << target


def test_gates_between_the_cx_of_a_ladder_move_behind_the_map():
    circuit, angles = QuantumCircuit(12), ParameterVector("a", 24)
    for qubit in range(12):
        circuit.rx(angles[qubit], qubit)
    for qubit in range(11):
        circuit.cx(qubit, qubit + 1)
        circuit.rx(angles[12 + qubit], qubit)
    circuit.rx(angles[23], 11)
    mapped = gather_maps(lower(circuit).ops)
    assert len(mapped.maps) == 1
    assert len(mapped.ops) == 25


@pytest.mark.parametrize("num_qubits", [10, 11])
def test_states_that_fit_into_packs_have_no_maps(num_qubits):
    plan, _ = plan_of(cx_layers(num_qubits), total_z(num_qubits))
    assert bool(len(plan.map_layer)) == (num_qubits == 11)


def test_few_cx_gates_stay_rotations_and_terms():
    circuit = QuantumCircuit(12)
    for qubit, angle in enumerate(ParameterVector("a", 12)):
        circuit.ry(angle, qubit)
    for qubit in range(5):
        circuit.cx(2 * qubit, 2 * qubit + 1)
    for qubit, angle in enumerate(ParameterVector("b", 12)):
        circuit.ry(angle, qubit)
    plan, _ = plan_of(circuit, total_z(12))
    assert not len(plan.map_layer)


@pytest.mark.parametrize("upwards", [True, False])
def test_the_order_of_the_bits_follows_the_direction_of_the_cx_gates(upwards):
    plan, _ = plan_of(cx_layers(12, "ladder" if upwards else "ladder of higher controls"), total_z(12))
    assert plan.start_bits.tolist() == [*range(12)][:: -1 if upwards else 1]
