# SPDX-License-Identifier: Apache-2.0
"""Tangent states and metric tensors agree with differences of states of the reference engine."""

import numpy as np
import pytest
from circuits import circuits, values_of
from hypothesis import given, settings
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.circuit.library import efficient_su2, zz_feature_map
from qiskit_machine_learning.circuit.library import raw_feature_vector

from qiskit_fused import FusedOptions, compile_circuit, statevectors
from qiskit_fused.execution.metric_tensor import MetricTensor

TOLERANCE = {"complex128": 1e-8, "complex64": 2e-4}


def numeric_tensor(circuit, values, phase_fix=True):
    """Return the tensor by differences of fourth order of states of the reference engine; the error is about 1e-11."""
    step = 1e-3
    steps = step * np.eye(len(values))
    rows = values + np.concatenate([0 * steps[:1], steps, -steps, 2 * steps, -2 * steps])
    psi, *states = statevectors(circuit, rows, device="reference")
    plus, minus, twice_plus, twice_minus = np.split(np.array(states), 4)
    tangents = (8 * (plus - minus) - twice_plus + twice_minus) / (12 * step)
    if phase_fix:
        tangents -= (tangents @ psi.conj())[:, None] * psi
    return tangents.conj() @ tangents.T


def tensor_of(circuit, values, parameters=None, real=False, **options):
    return MetricTensor(compile_circuit(circuit), FusedOptions(**options)).tensor(values, parameters, real, None)


@settings(max_examples=25, deadline=None)
@given(circuit=circuits(max_gates=5))
def test_tensors_of_circuits_of_every_gate_agree_with_differences_of_states(circuit):
    values = values_of(circuit)
    if not len(values):
        return
    expected = numeric_tensor(circuit, values)
    scale = max(1.0, np.abs(expected).max())
    for dtype, tolerance in TOLERANCE.items():
        np.testing.assert_allclose(tensor_of(circuit, values, dtype=dtype), expected, atol=tolerance * scale)
    np.testing.assert_allclose(tensor_of(circuit, values, real=True), expected.real, atol=1e-8 * scale)
    vectors = np.random.default_rng(1).normal(size=(2, len(values)))
    products = MetricTensor(compile_circuit(circuit), FusedOptions()).metric_times(values, vectors)
    np.testing.assert_allclose(products, vectors @ expected.real, atol=1e-7 * scale)


@pytest.mark.parametrize("circuit", [efficient_su2(3, reps=1), zz_feature_map(3)], ids=["parameters", "expressions"])
def test_every_engine_gives_the_same_tensor(device, circuit):
    values = values_of(circuit)
    found = tensor_of(circuit, values, device=device)
    np.testing.assert_allclose(found, numeric_tensor(circuit, values), atol=1e-9)


def test_a_part_of_the_parameters_has_the_order_in_which_it_was_given():
    circuit = zz_feature_map(3, reps=1)
    values = values_of(circuit)
    whole, chosen = tensor_of(circuit, values), np.array([2, 0])
    np.testing.assert_allclose(tensor_of(circuit, values, chosen), whole[np.ix_(chosen, chosen)], atol=1e-12)


def test_amplitudes_that_are_parameters_have_tangent_states():
    circuit = raw_feature_vector(4).compose(efficient_su2(2, ["ry"], reps=0, parameter_prefix="w"))
    values = np.array([0.4, -0.7, 0.3, -0.5, 0.8, 0.2])
    np.testing.assert_allclose(tensor_of(circuit, values), numeric_tensor(circuit, values), atol=1e-9)


def test_blocks_within_the_memory_limit_give_the_same_tensor():
    circuit = efficient_su2(4, reps=2)
    values = values_of(circuit)
    found = tensor_of(circuit, values, memory_limit=40_000)
    np.testing.assert_allclose(found, tensor_of(circuit, values), atol=1e-13)
    with pytest.raises(MemoryError, match="tangent states of one parameter take"):
        tensor_of(efficient_su2(10, reps=0), np.zeros(20), memory_limit=40_000)


def test_global_phases_do_not_count_without_the_phase_fix():
    a = Parameter("a")
    plain, phased = QuantumCircuit(2), QuantumCircuit(2, global_phase=3 * a)
    for circuit in (plain, phased):
        circuit.h([0, 1])
        circuit.rzz(a, 0, 1)
        circuit.rx(2 * a, 0)
    phased.p(a, 1)
    plain.rz(a, 1)
    tensors = [
        MetricTensor(compile_circuit(circuit), FusedOptions(), phase_fix=False).tensor(
            np.array([0.4]), None, False, None
        )
        for circuit in (plain, phased)
    ]
    np.testing.assert_allclose(*tensors, atol=1e-10)
    np.testing.assert_allclose(tensors[0], numeric_tensor(plain, np.array([0.4]), phase_fix=False), atol=1e-9)


def test_an_expression_without_a_derivative_is_an_error():
    a, circuit = Parameter("a"), QuantumCircuit(1)
    circuit.ry(a**0.5, 0)
    with pytest.raises(ValueError, match="no finite derivative with respect to 'a'"):
        tensor_of(circuit, np.array([0.0]))
