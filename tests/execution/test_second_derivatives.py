# SPDX-License-Identifier: Apache-2.0
"""Hessians and their products with vectors agree with differences of exact gradients, for circuits of every gate."""

from functools import partial
from itertools import combinations

import numpy as np
import pytest
from circuits import circuits, values_of
from hypothesis import given, settings
from qiskit.circuit import Parameter, ParameterVector, QuantumCircuit
from qiskit.circuit.library import RVGate, efficient_su2, qaoa_ansatz
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.circuit.library import raw_feature_vector

from qiskit_fused import FusedEstimatorGradient, FusedOptions, compile_circuit
from qiskit_fused.compilation.observables import circuit_observables
from qiskit_fused.execution.second_derivatives import SecondDerivatives


def observables_of(num_qubits):
    return ["Z" * num_qubits, SparsePauliOp(["X" * num_qubits, "Z" + "I" * (num_qubits - 1)], [0.5, 1.0])]


def numeric_hessians(circuit, observables, values):
    """Return the Hessians (K, P, P) by differences of fourth order of exact gradients; the error is about 1e-10."""
    step, count = 2e-4, len(values)  # a longer step is too inexact for angles that change fast
    steps = step * np.eye(count)
    rows = values + np.concatenate([steps, -steps, 2 * steps, -2 * steps])
    _, gradients = FusedEstimatorGradient().value_and_gradient(circuit, observables, rows)
    plus, minus, twice_plus, twice_minus = gradients.reshape(4, count, -1, count)
    return ((8 * (plus - minus) - twice_plus + twice_minus) / (12 * step)).transpose(1, 0, 2)


def function_of(circuit, observables, **options):
    compiled = compile_circuit(circuit)
    return SecondDerivatives(
        compiled, circuit_observables(observables, compiled.num_qubits).operators, FusedOptions(**options)
    )


def check(circuit, values, **options):
    """Check Hessians against differences, and products against Hessians."""
    observables = observables_of(circuit.num_qubits)
    expected = numeric_hessians(circuit, observables, values)
    scale = max(1.0, np.abs(expected).max())
    first = FusedEstimatorGradient().value_and_gradient(circuit, observables, values)
    function = function_of(circuit, observables, **options)
    evs, gradients, hessians = function.hessian(values, None)
    np.testing.assert_allclose(evs, first[0][0], atol=1e-12)
    np.testing.assert_allclose(gradients, first[1][0], atol=1e-10 * scale)
    np.testing.assert_allclose(hessians, expected, atol=1e-7 * scale)
    vectors = np.random.default_rng(0).normal(size=(1, len(values)))
    evs, gradients, products = function.products(values[None], vectors)
    np.testing.assert_allclose(evs, first[0], atol=1e-12)
    np.testing.assert_allclose(gradients, first[1], atol=1e-10 * scale)
    exact = hessians @ vectors[0]
    np.testing.assert_allclose(products[0], exact, rtol=0, atol=1e-9 * max(1.0, np.abs(exact).max()))
    return exact, vectors


@settings(max_examples=40, deadline=None)
@given(circuit=circuits(max_gates=6))
def test_second_derivatives_of_circuits_of_every_gate_agree_with_differences(circuit):
    if circuit.num_parameters:
        check(circuit, values_of(circuit))


def test_every_engine_gives_the_same(device):
    circuit = efficient_su2(2, reps=1)
    check(circuit, values_of(circuit), device=device)


def test_every_function_of_expressions_has_a_second_derivative():
    a, b, circuit = Parameter("a"), Parameter("b"), QuantumCircuit(2)
    angles = [
        a.tan(),
        (a * b).arcsin(),
        (b / 2).arccos(),
        (a + 3).log(),
        (a + 2) ** b,
        (a * b).abs(),
        (a + b).conjugate(),
    ]
    angles += [(a.sin() / (b + 2)).exp(), (a * a).arctan() - b.cos(), a**3 / b, (a - b) ** 0.5 * (a - b) ** 0.5]
    for number, angle in enumerate(angles):
        circuit.ry(angle, number % 2)
        circuit.rz(0.7, number % 2)
        circuit.cx(0, 1)
    check(circuit, np.array([0.4, 0.7]))
    check(circuit, np.array([-0.6, 0.3]))


def test_rotation_vectors_and_amplitudes_have_second_derivatives():
    v, circuit = ParameterVector("v", 3), raw_feature_vector(4)
    circuit.append(RVGate(*v), [0])
    circuit.cx(0, 1)
    circuit.ry(0.4, 1)
    check(circuit, np.array([0.3, -0.2, 0.8, 0.3, -0.5, 0.8, 0.2]))


@pytest.mark.parametrize(("dtype", "error"), [("complex128", 1e-9), ("complex64", 2e-4)])
def test_the_relative_error_of_a_product_is_small_where_many_gates_share_few_parameters(dtype, error):
    cost = SparsePauliOp.from_sparse_list([("ZZ", pair, 1.0) for pair in combinations(range(6), 2)], 6)
    circuit = qaoa_ansatz(cost, reps=3)
    values, vector = values_of(circuit), np.ones((1, 6))
    # each parameter has its own gates, whose second derivatives are exact
    angles = ParameterVector("t", 3 * 21)
    split = QuantumCircuit(6)
    split.h(range(6))
    where, number = [], 0
    for layer in range(3):
        for i, j in combinations(range(6), 2):
            split.rzz(2 * angles[number], i, j)
            where.append(3 + layer)
            number += 1
        for qubit in range(6):
            split.rx(2 * angles[number], qubit)
            where.append(layer)
            number += 1
    chain = np.eye(6)[where]
    hessian = function_of(split, cost).hessian(chain @ values, None)[2][0]
    expected = chain.T @ hessian @ chain @ vector[0]
    found = function_of(circuit, cost, dtype=dtype).products(values[None], vector).products[0, 0]
    assert np.linalg.norm(found - expected) < error * np.linalg.norm(expected)


def test_a_part_of_the_parameters_has_the_order_in_which_it_was_given():
    circuit = efficient_su2(3, reps=1)
    values, function = values_of(circuit), function_of(efficient_su2(3, reps=1), "ZII")
    chosen = np.array([11, 2, 7])
    whole, part = function.hessian(values, None), function.hessian(values, chosen)
    np.testing.assert_allclose(part[1], whole[1][:, chosen], atol=1e-14)
    np.testing.assert_allclose(part[2], whole[2][:, chosen][:, :, chosen], atol=1e-14)


def test_blocks_within_the_memory_limit_give_the_same():
    circuit = efficient_su2(3, reps=2)
    values, vectors = values_of(circuit)[None].repeat(9, axis=0), np.ones((9, 18))
    whole, cut = (function_of(circuit, observables_of(3), **options) for options in ({}, {"memory_limit": 100_000}))
    close = partial(np.testing.assert_allclose, atol=1e-14)
    close(cut.products(values, vectors).products, whole.products(values, vectors).products)
    close(cut.hessian(values[0], None)[2], whole.hessian(values[0], None)[2])


def test_an_expression_without_a_second_derivative_is_one_clear_error():
    a, b, circuit = Parameter("a"), Parameter("b"), QuantumCircuit(2)
    circuit.ry(a.abs() + b, 0)
    circuit.rx(b**0.5, 1)  # no observable sees this gate
    function = function_of(circuit, "IZ")
    text = "no finite second derivative with respect to 'a' in row 0"
    for call in (
        lambda: function.hessian(np.zeros(2), None),
        lambda: function.products(np.zeros((1, 2)), np.ones((1, 2))),
    ):
        with pytest.raises(ValueError, match=text):
            call()
    assert np.isfinite(function.hessian(np.array([0.1, 0.0]), None)[2]).all()


def test_a_power_at_zero_has_the_limits_of_its_second_derivatives():
    a, b, circuit = Parameter("a"), Parameter("b"), QuantumCircuit(1)
    circuit.rx(a**b, 0)
    point, vectors = np.array([0.0, 2.0]), np.eye(2)
    # <Y> = -sin(a^b), and the derivatives of a^b at (0, 2) are 0 but d^2/da^2 = b (b - 1) a^(b - 2) = 2
    expected = [[-2.0, 0.0], [0.0, 0.0]]
    function = function_of(circuit, "Y")
    np.testing.assert_allclose(function.hessian(point, None)[2][0], expected, atol=1e-12)
    np.testing.assert_allclose(function.products(point[None].repeat(2, 0), vectors).products[:, 0], expected, atol=1e-9)
    with pytest.raises(ValueError, match="no finite second derivative with respect to 'a' in row 0"):
        function.products(np.array([[0.0, 1.0]]), vectors[1:])  # d^2/da db = 1 + log(a)


@pytest.mark.parametrize("coefficient", [1e308, 1.7e308])
def test_a_second_derivative_that_is_larger_than_any_float_is_an_error(coefficient):
    circuit = QuantumCircuit(1)
    circuit.ry(Parameter("a"), 0)
    function = function_of(circuit, SparsePauliOp("Z", coefficient))
    for call in (
        lambda: function.hessian(np.array([0.3]), None),
        lambda: function.products(np.array([[0.3]]), np.ones((1, 1))),
    ):
        with (
            pytest.raises(ValueError, match="observable 0 in row 0, or a derivative of it, is larger than"),
            np.errstate(over="ignore", invalid="ignore"),
        ):
            call()
