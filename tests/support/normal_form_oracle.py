# SPDX-License-Identifier: Apache-2.0
"""Multiply out the normal form of a program, op by op, from the definitions in `program.OpKind`."""

from __future__ import annotations

import numpy as np
from circuits import values_of
from qiskit.quantum_info import Statevector

from qiskit_fused.common.bits import bits_of, spread
from qiskit_fused.engines.reference import final_state, parity
from qiskit_fused.lowering.lower import lower
from qiskit_fused.program.program import OpKind, Ops, Program

PAULI = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])


def apply_ops(ops: Ops, columns: np.ndarray, psi: np.ndarray) -> np.ndarray:
    """Apply all ops to a statevector (2**n,) or to the columns of a matrix (2**n, m)."""
    psi = np.array(psi, dtype=complex)
    indices = np.arange(len(psi), dtype=np.uint64)
    matrices = iter(ops.matrices)
    for k in range(len(ops)):
        column = ops.column[k]
        angle = ops.offset[k] + (ops.coefficient[k] * columns[column] if column >= 0 else 0.0)
        kind = OpKind(ops.kind[k])
        if kind is OpKind.TERM:
            assert ops.value[k] & ~ops.care[k] == 0, "value must be a subset of care"
            selected = (indices & ops.care[k]) == ops.value[k]
            phases = np.exp(-0.5j * angle * selected * (1.0 - 2.0 * parity(indices & ops.sign[k])))
            psi = (psi.T * phases).T
            continue
        if kind is OpKind.DENSE:
            offsets, matrix = spread(bits_of(int(ops.sign[k]))), next(matrices)
            for base in np.flatnonzero((indices & (ops.care[k] | ops.sign[k])) == ops.value[k]):
                psi[base + offsets] = matrix @ psi[base + offsets]
            continue
        if kind is OpKind.SU2:
            a, *vector = ops.quaternion[k]
            matrix = a * np.eye(2) - 1j * np.tensordot(vector, PAULI, axes=1)
        elif kind is OpKind.RV:
            vector = columns[column : column + 3]
            length = np.linalg.norm(vector)
            matrix = np.cos(length / 2) * np.eye(2) - 0.5j * np.sinc(length / 2 / np.pi) * np.tensordot(
                vector, PAULI, axes=1
            )
        else:
            matrix = np.cos(angle / 2) * np.eye(2) - 1j * np.sin(angle / 2) * PAULI[kind]
        low = 1 << int(ops.qubit[k])
        psi = np.einsum("ab,xbyz->xayz", matrix, psi.reshape(len(psi) // (2 * low), 2, low, -1)).reshape(psi.shape)
    return psi


def circuit_state(program: Program, parameter_values: np.ndarray) -> np.ndarray:
    """Return the state (2**num_circuit_qubits,) of all circuit qubits after the ops; idle qubits are in |0>."""
    columns = program.columns(np.asarray(parameter_values, dtype=float)[None])[0]
    psi = np.zeros(1 << program.num_qubits, dtype=complex)
    psi[0] = 1.0
    if program.initial_state is not None:
        psi = program.initial_state
    psi = apply_ops(program.ops, columns, psi)
    return place(psi, program.output_wires)


def place(psi: np.ndarray, wires: np.ndarray) -> np.ndarray:
    """Extend a state of the active wires to all circuit qubits. Idle qubits (wire -1) are in |0>."""
    indices = np.arange(len(psi))
    spread = np.zeros_like(indices)
    for qubit, wire in enumerate(wires):
        if wire >= 0:
            spread |= (indices >> wire & 1) << qubit
    state = np.zeros(1 << len(wires), dtype=complex)
    state[spread] = psi
    return state


def same_up_to_phase(left: np.ndarray, right: np.ndarray, atol: float = 1e-10) -> bool:
    """Say whether two states, or two matrices, are equal up to a global phase."""
    left, right = np.ravel(left), np.ravel(right)
    overlap = np.vdot(left, right)
    return bool(np.allclose(left * overlap / abs(overlap), right, rtol=0, atol=atol)) if abs(overlap) > 1e-12 else False


def assert_lowered(circuit, values=None):
    """Assert that the ops and gates of a lowered circuit agree with Qiskit's Statevector; return the program.

    The ops and the gates are compared together with the global phases that they leave out.
    """
    program = lower(circuit)
    values = values_of(circuit) if values is None else np.asarray(values, dtype=float)
    expected = Statevector(circuit.assign_parameters(values) if circuit.num_parameters else circuit).data
    columns, phase = program.columns(values[None]), program.phase
    of_circuit = phase.of_circuit.factors(columns) * np.exp(1j * phase.expressions.evaluate(values[None]).sum(axis=1))
    of_ops = of_circuit * phase.left_out.factors(columns)
    np.testing.assert_allclose(circuit_state(program, values) * of_ops, expected, rtol=0, atol=1e-10)
    from_gates = place(final_state(program, columns[0]), program.wires)
    np.testing.assert_allclose(from_gates * of_circuit, expected, rtol=0, atol=1e-10)
    return program
