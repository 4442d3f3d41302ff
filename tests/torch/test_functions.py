# SPDX-License-Identifier: Apache-2.0
"""Gradients of layers can be differentiated again, in every way that autograd has."""

import numpy as np
import pytest
from qiskit.circuit import Parameter, ParameterVector, QuantumCircuit
from qiskit.circuit.library import zz_feature_map

from qiskit_fused import FusedEstimatorGradient

torch = pytest.importorskip("torch")

from qiskit_fused.torch import FusedLayer, FusedProbabilityLayer  # noqa: E402  (the module is skipped without torch)


def make_layer(kind=FusedLayer, **options):
    """Return a layer of three inputs and five weights, with a feature map whose angles are products of inputs."""
    circuit, w = zz_feature_map(3, reps=1, parameter_prefix="x"), ParameterVector("w", 5)
    for qubit in range(3):
        circuit.ry(w[qubit], qubit)
    circuit.crx(w[3], 0, 1)
    circuit.rzz(2 * w[4], 1, 2)
    circuit.h(2)
    inputs = [parameter for parameter in circuit.parameters if parameter.name.startswith("x")]
    weights = torch.tensor([0.3, -0.5, 0.8, 0.4, 0.9], dtype=options.pop("weights", torch.float64))
    observables = [["ZZI", "IIX"]] * (kind is FusedLayer)
    return kind(circuit, *observables, inputs, list(w), weights, **options)


def random_inputs(num_rows, dtype=torch.float64, requires_grad=True):
    rows = np.random.default_rng(1).uniform(0, 2, (num_rows, 3))
    return torch.tensor(rows, dtype=dtype, requires_grad=requires_grad)


def test_the_second_derivative_of_a_network_with_preprocessing_is_right():
    """PennyLane #9901: the adjoint method with torch gave 1.3286 for a preprocessed input."""
    x, circuit = Parameter("x"), QuantumCircuit(1)
    circuit.ry(x, 0)
    layer = FusedLayer(circuit, "Z", [x])
    layer.double()
    for value, known in ((0.37, 0.6789133862932988), (-0.4, None)):
        point = torch.tensor([[value]], dtype=torch.float64, requires_grad=True)
        angle = torch.tanh(1.7 * point + 0.2)
        (first,) = torch.autograd.grad(layer(angle).sum(), point, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), point)
        exact = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(torch.cos(torch.tanh(1.7 * exact + 0.2)), exact, create_graph=True)
        (expected,) = torch.autograd.grad(slope, exact)
        assert known is None or abs(expected.item() - known) < 1e-12
        assert abs(second.item() - expected.item()) < 1e-9


@pytest.mark.parametrize("kind", [FusedLayer, FusedProbabilityLayer])
def test_gradgradcheck_accepts_weights_and_inputs(kind):
    layer = make_layer(kind)

    def function(weight, inputs):
        return torch.func.functional_call(layer, {"weight": weight}, (inputs,))

    arguments = layer.weight.detach().clone().requires_grad_(), random_inputs(2)
    assert torch.autograd.gradcheck(function, arguments)
    assert torch.autograd.gradgradcheck(function, arguments)


def test_a_hessian_of_autograd_is_that_of_the_gradient():
    layer, inputs = make_layer(), random_inputs(2, requires_grad=False)
    weight = layer.weight.detach().clone()

    def loss(weight):
        return torch.func.functional_call(layer, {"weight": weight}, (inputs,)).sum()

    found = torch.autograd.functional.hessian(loss, weight)
    compiled, (inputs_of, weights_of) = layer._double.compiled, layer._double.parameters
    values = {parameter.name: inputs[:, k].numpy() for k, parameter in enumerate(inputs_of)}
    values |= {parameter.name: np.full(2, float(weight[k])) for k, parameter in enumerate(weights_of)}
    values = np.stack([values[parameter.name] for parameter in compiled.parameters], axis=1)
    hessians = FusedEstimatorGradient().value_gradient_and_hessian(compiled, ["ZZI", "IIX"], values, weights_of)[2]
    np.testing.assert_allclose(found, hessians.sum(axis=(0, 1)), atol=1e-9)


def test_a_penalty_on_the_gradient_has_a_gradient():
    """The loss contains second derivatives, and its gradient with respect to weights takes third derivatives."""
    layer = make_layer()

    def loss(weight):
        inputs = random_inputs(2)
        values = torch.func.functional_call(layer, {"weight": weight}, (inputs,))
        (first,) = torch.autograd.grad(values.sum(), inputs, create_graph=True)
        (second,) = torch.autograd.grad(first[:, 0].sum(), inputs, create_graph=True)
        return (values**2).sum() + (first * second[:, :1]).sum()

    weight = layer.weight.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(weight), weight)
    step = 1e-4
    for k in range(len(weight)):
        moved = [weight.detach() + sign * step * torch.eye(5, dtype=torch.float64)[k] for sign in (1, -1, 2, -2)]
        plus, minus, twice_plus, twice_minus = (loss(at.requires_grad_()).item() for at in moved)
        expected = (8 * (plus - minus) - twice_plus + twice_minus) / (12 * step)
        assert abs(found[k].item() - expected) < 1e-6 * max(1, abs(expected))


def test_an_input_that_is_made_from_weights_counts_once():
    x, w, circuit = Parameter("x"), Parameter("w"), QuantumCircuit(1)
    circuit.ry(x, 0)
    circuit.rx(w, 0)
    layer = FusedLayer(circuit, "Z", [x], [w], torch.tensor([0.4], dtype=torch.float64))
    value = layer((layer.weight**2)[None]).sum()  # cos(w^2) cos(w)
    (first,) = torch.autograd.grad(value, layer.weight, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), layer.weight)
    w = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(torch.cos(w**2) * torch.cos(w), w, create_graph=True)
    (expected,) = torch.autograd.grad(slope, w)
    assert abs(second.item() - expected.item()) < 1e-9


def test_float32_has_second_derivatives_of_less_accuracy():
    results = []
    for dtype in (torch.float64, torch.float32):
        layer, inputs = make_layer(weights=dtype), random_inputs(2, dtype)
        (first,) = torch.autograd.grad(layer(inputs).sum(), inputs, create_graph=True)
        results.append(torch.autograd.grad((first**2).sum(), [layer.weight, inputs]))
    for double, single in zip(*results, strict=True):
        assert single.dtype == torch.float32
        assert (double - single).abs().max() < 2e-4 * double.abs().max()


def test_second_derivatives_of_initial_states_are_one_clear_error():
    w, circuit = Parameter("w"), QuantumCircuit(1)
    circuit.ry(w, 0)
    layer = FusedLayer(circuit, "Z", [], [w], torch.tensor([0.4], dtype=torch.float64))
    states = torch.tensor([[0.6, 0.8]], dtype=torch.complex128)
    (first,) = torch.autograd.grad(layer(None, states).sum(), layer.weight, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), layer.weight)
    assert abs(second.item() + layer(None, states).item()) < 1e-9
    states.requires_grad_()
    (first,) = torch.autograd.grad(layer(None, states).sum(), states, create_graph=True)
    with pytest.raises(RuntimeError, match="initial_states, but no second derivatives"):
        first.abs().sum().backward()
