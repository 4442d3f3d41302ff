# SPDX-License-Identifier: Apache-2.0
"""Derivatives of angles at the edges of their domains are right, or a request for them is an error."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit_machine_learning.circuit.library import raw_feature_vector
from qiskit_machine_learning.gradients import DerivativeType

from qiskit_fused import FusedEstimatorGradient, FusedEstimatorQNN, FusedOptions
from qiskit_fused.execution.expectations import Expectations
from qiskit_fused.lowering.lower import lower

A, B = Parameter("a"), Parameter("b")
NAN = math.nan


def circuit_of(expression):
    """Return a circuit whose expectation value of Z is cos(expression + 0.3)."""
    circuit = QuantumCircuit(1)
    circuit.rx(expression + 0.3, 0)
    return circuit


def derivatives(expression, values):
    """Return the derivatives of an expression with respect to its parameters; NaN where no derivative exists."""
    program = lower(circuit_of(expression))
    incoming = np.zeros((1, 1, program.num_columns))
    incoming[..., -1] = 1.0
    return program.expressions.pull_back(np.array([values], float), incoming)[0, 0]


@pytest.mark.parametrize(
    ("expression", "values", "expected"),
    [
        (A**B, (0, 2), (0, 0)),
        (A**B, (0, 1), (1, 0)),
        (A**B, (0, 1.5), (0, 0)),
        (A**B, (0, 0.5), (NAN, 0)),
        (A**B, (0, 0), (0, NAN)),
        (A**B, (-2, 3), (12, NAN)),
        (A**B, (2, 3), (12, 8 * math.log(2))),
        (A**2, (0,), (0,)),
        (A**0.5, (0,), (NAN,)),
        (abs(A) ** 0.5, (0,), (NAN,)),
        (A**A, (0,), (NAN,)),
        (A.arcsin(), (1,), (NAN,)),
        (A.arccos(), (-1,), (NAN,)),
        ((A**0.5) ** 2, (0,), (1,)),
        ((A**0.5) ** 3, (0,), (0,)),
        ((A**2) ** 0.5, (0,), (NAN,)),
        ((A**4) ** 0.5, (0,), (0,)),
        ((2 * A - 1) ** 0.5 * (2 * A - 1) ** 0.5, (0.5,), (2,)),
        (A * abs(A) ** 0.5, (0,), (0,)),
        ((-1 / A**2).exp(), (0,), (0,)),
        (A / (1 / B), (3, 0), (0, 3)),
        ((1 / A).arctan(), (0,), (NAN,)),
        (B * A**0.5, (0, 0), (0, 0)),
        (B * A**0.5, (0, 2), (NAN, 0)),
        (abs(A), (0,), (0,)),
        (abs(A) ** 2, (0,), (0,)),
        (A * A.sign(), (0,), (NAN,)),
        (A * A.sign(), (-3,), (-1,)),
        ((A * 1j) * (B * 1j), (2, 5), (-5, -2)),
        ((A**0.5) ** 2, (-3,), (1,)),
        (A**0.5 * B**0.5, (-4, -9), (3 / 4, 1 / 3)),
        (1j * A * B, (0, 2), (NAN, 0)),
        (A.log().cos() * 0 + A * B, (-2, 3), (3, -2)),
    ],
    ids=str,
)
def test_the_derivative_is_the_limit_where_there_is_one(expression, values, expected):
    np.testing.assert_allclose(derivatives(expression, values), expected, rtol=1e-12, atol=1e-12)


@given(st.sampled_from([1.0, 1.25, 1.5, 2.0, 2.5, 3.0]), st.sampled_from([-2.0, -0.5, 0.5, 3.0]))
@settings(max_examples=20, deadline=None)
def test_powers_of_roots_have_the_derivative_of_the_power(exponent, factor):
    # ((f a)^(1/2))^(2 e) is (f a)^e wherever the root is defined.
    expression = ((factor * A) ** 0.5) ** (2 * exponent)
    assert derivatives(expression, (0,))[0] == pytest.approx(factor if exponent == 1 else 0.0, abs=1e-10)


def test_gradients_are_refused_with_parameter_expression_and_row():
    values = [[0.5, 2.0], [0.0, 0.5]]
    text = (
        r"the angle '0.3 \+ a\*\*b' of instruction 0, 'rx', has no finite derivative with respect to 'a' in row 1 of "
        r"the parameter values, where 'a' is 0\.0; move it away from there, or leave 'a' out of the parameters"
    )
    gradient, circuit = FusedEstimatorGradient(), circuit_of(A**B)
    for call in (
        lambda: gradient.value_and_gradient(circuit, "Z", values),
        lambda: gradient.value_and_gradient(circuit, "Z", values, [B, A]),
        lambda: FusedEstimatorGradient(derivative_type=DerivativeType.COMPLEX).value_and_gradient(circuit, "Z", values),
        lambda: gradient.run([circuit] * 2, ["Z"] * 2, values).result(),
    ):
        with pytest.raises(ValueError, match=text):
            call()


def test_an_infinite_derivative_that_is_not_requested_is_no_error():
    values, circuit, gradient = np.array([[0.5, 2.0], [0.0, 0.5]]), circuit_of(A**B), FusedEstimatorGradient()
    of_b = -np.sin(0.25 + 0.3) * 0.25 * np.log(0.5), 0.0
    np.testing.assert_allclose(gradient.value_and_gradient(circuit, "Z", values, B)[1][:, 0, 0], of_b, atol=1e-12)
    actual = gradient.run([circuit] * 2, ["Z"] * 2, values, [[B], [B]]).result().gradients
    np.testing.assert_allclose(np.concatenate(actual), of_b, atol=1e-12)
    # Only the first request has the derivative with respect to a.
    actual = gradient.run([circuit] * 2, ["Z"] * 2, values, [[A], [B]]).result().gradients
    np.testing.assert_allclose(np.concatenate(actual), [-np.sin(0.25 + 0.3), 0.0], atol=1e-12)

    function = Expectations(circuit, "Z", [A], [B], FusedOptions())
    inputs = np.array([[0.5], [0.0]])
    ones = np.ones((2, 1))
    assert function.value_and_vjp(inputs, [0.5], ones, input_gradients=False).inputs is None
    assert np.isfinite(function.value_and_vjp(inputs, [0.5], ones, input_gradients=False).weights).all()
    assert np.isfinite(function.value_and_jacobian(inputs, [0.5], input_gradients=False)[2]).all()
    turned = Expectations(circuit, "Z", [B], [A], FusedOptions())
    actual = turned.value_and_vjp([[0.5]], [0.0], [[1.0]], weight_gradients=False)
    np.testing.assert_allclose(actual.inputs, 0, atol=1e-12)
    for call in (
        lambda: function.value_and_vjp(inputs, [0.5], ones),
        lambda: function.value_and_jacobian(inputs, [0.5]),
        lambda: turned.value_and_vjp([[0.5]], [0.0], [[1.0]], input_gradients=False),
        lambda: turned.value_and_jacobian([[0.5]], [0.0], input_gradients=False),
    ):
        with pytest.raises(ValueError, match="with respect to 'a' in row"):
            call()


def test_a_row_whose_cotangents_are_zero_adds_nothing_to_the_gradient():
    function = Expectations(circuit_of(A**0.5), "Z", [A], [], FusedOptions())
    actual = function.value_and_vjp([[0.0], [1.0]], [], [[0.0], [1.0]]).inputs
    np.testing.assert_allclose(actual, [[0.0], [-0.5 * np.sin(1.3)]], atol=1e-12)


@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("input_gradients", [False, True])
@pytest.mark.parametrize("num_rows", [3, 20_000])
def test_sums_of_weight_gradients_are_kept_where_a_row_without_cotangents_has_no_derivative(
    device, input_gradients, num_rows
):
    # All engines may give the sums to row 0, which has no cotangents. With many rows, gates are simulated once.
    num_rows = min(num_rows, 50) if device == "reference" else num_rows
    circuit = QuantumCircuit(4)
    for layer in range(2):
        circuit.ry(B + layer, 0)
        circuit.rx(B * B, 1)
        for qubit in range(3):
            circuit.cx(qubit, qubit + 1)
        if layer == 0:
            circuit.rx(A**0.5, 0)
    inputs = np.linspace(0.0, 2.0, num_rows)[:, None]
    cotangents = np.ones((num_rows, 1))
    cotangents[0] = 0
    function = Expectations(circuit, "ZZZZ", [A], [B], device=device)
    actual = function.value_and_vjp(inputs, [0.4], cotangents, input_gradients=input_gradients)
    expected = function.value_and_vjp(inputs[1:], [0.4], cotangents[1:], input_gradients=input_gradients)
    np.testing.assert_allclose(actual.weights, expected.weights, rtol=1e-10)
    assert not input_gradients or actual.inputs[0] == 0.0
    zeros = np.zeros_like(cotangents)
    assert function.value_and_vjp(inputs, [0.4], zeros, input_gradients=input_gradients).weights == 0.0


def test_an_infinite_derivative_of_a_weight_is_refused_although_a_row_has_no_cotangents():
    function = Expectations(circuit_of(A + B**0.5), "Z", [A], [B], device="cpu")
    with pytest.raises(ValueError, match="no finite derivative with respect to 'b'"):
        function.value_and_vjp([[0.0], [1.0]], [0.0], [[0.0], [1.0]])
    assert function.value_and_vjp([[0.0], [1.0]], [0.0], [[0.0], [0.0]]).weights == 0.0


def test_a_gradient_of_zero_times_an_infinite_derivative_is_refused():
    # cos(sqrt(a)) has the derivative -1/2 at 0: the derivative of the cosine is 0 there, and the root's is infinite.
    circuit = QuantumCircuit(1)
    circuit.rx(A**0.5, 0)
    with pytest.raises(ValueError, match="'a' in row 0"):
        FusedEstimatorGradient().value_and_gradient(circuit, "Z", [0.0])


def test_gates_that_no_observable_sees_need_no_derivative():
    circuit = QuantumCircuit(3)
    circuit.rx(A**0.5, 0)
    circuit.rx(B + 0.3, 1)
    circuit.rzz(A.log() * 0 + A**0.5, 1, 2)  # commutes with the observables
    gradients = FusedEstimatorGradient().value_and_gradient(circuit, ["IZI", "ZII"], [0.0, 0.2])[1]
    np.testing.assert_allclose(gradients[0], [[0, -np.sin(0.5)], [0, 0]], atol=1e-12)
    function = Expectations(circuit, "IZI", [A], [B], FusedOptions())
    np.testing.assert_allclose(function.value_and_vjp([[0.0]], [0.2], [[1.0]]).inputs, 0, atol=1e-12)
    for derivative_type, observables in ((DerivativeType.REAL, ["IZI", "IIZ"]), (DerivativeType.IMAG, ["IZI"])):
        with pytest.raises(ValueError, match="with respect to 'a' in row 0"):
            FusedEstimatorGradient(derivative_type=derivative_type).value_and_gradient(circuit, observables, [0.0, 0.2])


def test_networks_and_layers_request_only_the_derivatives_that_they_need():
    torch = pytest.importorskip("torch")
    from qiskit_fused.torch import FusedLayer

    parts = {"circuit": circuit_of(A**0.5 + B), "input_params": [A], "weight_params": [B]}
    network = FusedEstimatorQNN(**parts)
    assert np.isfinite(network.backward([[0.0]], [0.2])[1]).all()
    assert np.isfinite(network.vjp([[0.0]], [0.2], [[1.0]])[1]).all()
    network = FusedEstimatorQNN(**parts, input_gradients=True)
    for call in (lambda: network.backward([[0.0]], [0.2]), lambda: network.vjp([[0.0]], [0.2], [[1.0]])):
        with pytest.raises(ValueError, match="no finite derivative"):
            call()

    layer = FusedLayer(parts["circuit"], "Z", [A], [B]).double()
    inputs = torch.zeros(1, 1, dtype=torch.float64)
    layer(inputs).sum().backward()
    assert bool(torch.isfinite(layer.weight.grad).all())
    with pytest.raises(ValueError, match="with respect to 'a' in row 0"):
        layer(inputs.requires_grad_()).sum().backward()
    frozen = FusedLayer(parts["circuit"], "Z", [B], [A], [0.0]).double()
    frozen.weight.requires_grad_(False)
    inputs = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
    frozen(inputs).sum().backward()
    assert bool(torch.isfinite(inputs.grad).all())


def test_amplitudes_of_any_size_are_normalised_to_all_digits():
    circuit = raw_feature_vector(2)
    for size in (1e-300, 1e-160, 1e-30, 1.0, 1e160, 1e300):
        values, gradients = FusedEstimatorGradient().value_and_gradient(circuit, "Z", [0.6 * size, -0.8 * size])
        np.testing.assert_allclose(values, [[0.36 - 0.64]], rtol=0, atol=1e-15)
        np.testing.assert_allclose(gradients[0, 0] * size, [4 * 0.6 * 0.64, 4 * 0.8 * 0.36], rtol=1e-12)
    with pytest.raises(ValueError, match=r"norm 0\.0 in row 0"):
        FusedEstimatorGradient().value_and_gradient(circuit, "Z", [0.0, 0.0])
    with pytest.raises(ValueError, match=r"have the norm 5e-324 in row 0, too small for a gradient; scale them"):
        FusedEstimatorGradient().value_and_gradient(circuit, "Z", [0.0, 5e-324])
