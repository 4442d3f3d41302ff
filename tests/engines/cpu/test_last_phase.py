# SPDX-License-Identifier: Apache-2.0
"""Packs leave the last phase out if all observables are diagonal: the phase changes neither values nor gradients."""

import numpy as np
import pytest
from asking import ask
from engine_cases import all_pairs, assert_agree, plan_of, total_z
from layered_circuits import rx_ry_layers
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp

from qiskit_fused.engines.cpu.engine import CpuEngine
from qiskit_fused.engines.reference import ReferenceEngine

NUM_ROWS = 37  # rows of two full packs of the widest kind, and of a third


def with_last_angles(num_qubits, num_layers):
    """Return a circuit that ends in diagonal gates with angles, and the number of their angles."""
    circuit = rx_ry_layers(num_qubits, num_layers)
    angles = ParameterVector("last", 2 * num_qubits)
    for qubit in range(num_qubits):
        circuit.rz(angles[2 * qubit], qubit)
        if qubit:
            circuit.cp(angles[2 * qubit + 1], qubit - 1, qubit)
    return circuit


def rows_of(plan, own):
    rng = np.random.default_rng(3)
    values = np.repeat(rng.uniform(-3, 3, (1, plan.program.num_parameters)), NUM_ROWS, axis=0)
    return plan.program.columns(np.where(own, rng.uniform(-3, 3, values.shape), values))


@pytest.mark.parametrize("imaginary", [False, True], ids=["real part", "imaginary part"])
@pytest.mark.parametrize("own", ["all", "first layer", "last phase"])
@pytest.mark.parametrize(("num_qubits", "num_layers"), [(1, 1), (4, 3), (8, 2), (8, 40)])
def test_gradients_of_diagonal_observables_agree_with_the_reference(num_qubits, num_layers, own, imaginary, dtype):
    circuit = with_last_angles(num_qubits, num_layers)
    diagonal = SparsePauliOp(["Z" * num_qubits, "I" * (num_qubits - 1) + "Z"], [0.7, -1.2])
    plan, operators = plan_of(circuit, [total_z(num_qubits), diagonal], imaginary=imaginary)
    is_last = np.array([parameter.name.startswith("last") for parameter in circuit.parameters])
    marks = {"all": True, "first layer": np.arange(len(is_last)) < num_qubits, "last phase": is_last}
    columns, pairs = rows_of(plan, marks[own]), all_pairs(NUM_ROWS, 2)
    options = {"gradient": True, "imaginary": imaginary}
    actual = ask(CpuEngine(2), plan, operators, columns, pairs, dtype=dtype, **options)
    assert_agree(actual, ask(ReferenceEngine(), plan, operators, columns, pairs, **options), dtype)


def test_angles_of_a_last_phase_that_is_left_out_have_the_gradient_zero(dtype):
    circuit = with_last_angles(4, 3)
    plan, operators = plan_of(circuit, total_z(4))
    columns = rows_of(plan, True)
    gradients = ask(CpuEngine(), plan, operators, columns, all_pairs(NUM_ROWS, 1), gradient=True, dtype=dtype).gradients
    is_last = np.array([parameter.name.startswith("last") for parameter in circuit.parameters])
    assert not gradients[:, is_last].any() and gradients[:, ~is_last].all()


@pytest.mark.parametrize("num_layers", [3, 40], ids=["kept states", "no kept states"])
def test_observables_that_are_not_diagonal_do_not_start_from_states_without_the_last_phase(num_layers, dtype):
    circuit = with_last_angles(8, num_layers)
    _, diagonal = plan_of(circuit, total_z(8))
    plan, flipping = plan_of(circuit, SparsePauliOp("X" * 8))
    columns, pairs, engine = rows_of(plan, True), all_pairs(NUM_ROWS, 1), CpuEngine()
    for first, second in ((diagonal, flipping), (flipping, diagonal)):
        expected = ask(CpuEngine(), plan, second, columns[::-1].copy(), pairs, gradient=True, dtype=dtype)
        ask(engine, plan, first, columns, pairs, dtype=dtype)
        actual = ask(engine, plan, second, columns, pairs, gradient=True, dtype=dtype)
        np.testing.assert_array_equal(actual.values, expected.values[::-1])
        np.testing.assert_array_equal(actual.gradients, expected.gradients[::-1])
