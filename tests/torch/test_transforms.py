# SPDX-License-Identifier: Apache-2.0
"""The transforms of torch.func, and forward mode, give the derivatives of plain autograd."""

import numpy as np
import pytest
from qiskit.circuit import ParameterVector, QuantumCircuit
from qiskit.circuit.library import zz_feature_map

torch = pytest.importorskip("torch")

from torch.autograd import forward_ad  # noqa: E402
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, stack_module_state, vjp, vmap  # noqa: E402

from qiskit_fused.torch import FusedKernelLayer, FusedLayer, FusedProbabilityLayer  # noqa: E402

# PyTorch's own forward mode uses torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

KINDS = [FusedLayer, FusedProbabilityLayer]
ROWS = torch.tensor(np.random.default_rng(1).uniform(0, 2, (3, 2)))


def make_layer(kind=FusedLayer, dtype=torch.float64, seed=2):
    """Return a layer of two inputs and three weights, with a feature map whose angles are products of inputs."""
    circuit, w = zz_feature_map(2, reps=1, parameter_prefix="x"), ParameterVector("w", 3)
    inputs = list(circuit.parameters)
    circuit.ry(w[0], 0)
    circuit.crx(w[1], 0, 1)
    circuit.rzz(2 * w[2] + w[0], 0, 1)
    circuit.h(1)
    weights = torch.tensor(np.random.default_rng(seed).normal(size=3), dtype=dtype)
    return kind(circuit, *[["ZZ", "IX"]] * (kind is FusedLayer), inputs, list(w), weights)


def function_of(layer):
    return lambda weight, inputs: functional_call(layer, {"weight": weight}, (inputs,))


def assert_close(found, expected, atol=1e-8):
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


def loop(function, *rows):
    return torch.stack([function(*row) for row in zip(*rows)])


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def case(request):
    """A layer as a function of weights and inputs, and its weights."""
    layer = make_layer(request.param)
    return function_of(layer), layer.weight.detach().clone()


def test_first_derivatives_are_those_of_autograd(case):
    function, weight = case
    expected = torch.autograd.functional.jacobian(function, (weight, ROWS))
    for found in (jacrev(function, (0, 1))(weight, ROWS), jacfwd(function, (0, 1))(weight, ROWS)):
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
    values, pull_back = vjp(function, weight, ROWS)
    for one, other in zip(pull_back(values), expected, strict=True):
        assert_close(one, torch.tensordot(values, other, 2))
    along = torch.ones_like(weight), ROWS.cos()
    found = jvp(function, (weight, ROWS), along)
    assert_close(found[0], function(weight, ROWS), 0)
    assert_close(found[1], expected[0] @ along[0] + torch.tensordot(expected[1], along[1], 2))
    slope = grad(lambda weight: (function(weight, ROWS) ** 2).sum())(weight)
    assert_close(slope, 2 * torch.tensordot(values, expected[0], 2))


def test_a_gradient_from_vjp_can_be_differentiated_after_the_transform(case):
    function, weight = case
    inputs = ROWS.clone().requires_grad_()
    values, pull_back = vjp(lambda inputs: function(weight, inputs), inputs)
    cotangents = values.detach().cos()
    (found,) = pull_back(cotangents)
    (expected,) = torch.autograd.grad(function(weight, inputs), inputs, cotangents, create_graph=True)
    assert_close(found, expected)
    assert_close(*(torch.autograd.grad(gradient.sum(), inputs)[0] for gradient in (found, expected)))


def test_the_gradient_of_a_dual_input_has_a_tangent(case):
    function, weight = case
    along = ROWS.cos()

    def gradient(inputs):
        return grad(lambda inputs: (function(weight, inputs) ** 2).sum())(inputs)

    expected = jvp(gradient, (ROWS,), (along,))[1]
    with forward_ad.dual_level():
        inputs = forward_ad.make_dual(ROWS.clone().requires_grad_(), along)
        (found,) = torch.autograd.grad((function(weight, inputs) ** 2).sum(), inputs)
        assert_close(forward_ad.unpack_dual(found).tangent, expected)


def test_second_derivatives_are_those_of_autograd(case):
    function, weight = case

    def loss(weight, inputs):
        return (function(weight, inputs) ** 3).sum()

    expected = torch.autograd.functional.hessian(loss, (weight, ROWS))
    ways = hessian(loss, (0, 1)), jacrev(jacrev(loss, (0, 1)), (0, 1)), jacrev(jacfwd(loss, (0, 1)), (0, 1))
    for way in ways:
        for row, other in zip(way(weight, ROWS), expected, strict=True):
            for found, exact in zip(row, other, strict=True):
                assert_close(found, exact, 1e-7)
    vector = torch.linspace(-1, 1, 3, dtype=torch.float64)
    assert_close(jvp(grad(loss), (weight, ROWS), (vector, ROWS))[1][:3],
                 expected[0][0] @ vector + torch.tensordot(expected[0][1], ROWS, 2), 1e-7)  # fmt: skip
    twice = jacfwd(jacfwd(loss))(weight, ROWS)
    assert_close(twice, expected[0][0], 1e-6)


@pytest.mark.parametrize("inner", [grad, hessian], ids=["gradients", "Hessians"])
def test_derivatives_of_single_samples_are_vectorised(case, inner):
    function, weight = case
    of_sample = inner(lambda weight, row: (function(weight, row) ** 2).sum())
    found = vmap(of_sample, (None, 0))(weight, ROWS)
    assert_close(found, loop(lambda row: of_sample(weight, row), ROWS))


def test_an_ensemble_of_layers_is_one_batch(case):
    layers = [make_layer(seed=seed) for seed in range(4)]
    parameters, buffers = stack_module_state(layers)
    base = layers[0]

    def call(parameters, buffers, inputs):
        return functional_call(base, (parameters, buffers), (inputs,))

    found = vmap(call, (0, 0, None))(parameters, buffers, ROWS)
    assert_close(found, torch.stack([layer(ROWS) for layer in layers]), 1e-12)
    (gradient,) = torch.autograd.grad((found**2).sum(), parameters["weight"])
    for layer, one in zip(layers, gradient, strict=True):
        assert_close(one, torch.autograd.grad((layer(ROWS) ** 2).sum(), layer.weight)[0], 1e-12)


def test_batches_may_be_nested_and_lie_in_any_dimension(case):
    function, weight = case
    weights = torch.stack([weight, 2 * weight], dim=1)
    found = vmap(vmap(function, (None, 1)), (1, None))(weights, ROWS.T)
    expected = torch.stack([function(one, ROWS) for one in weights.T])
    assert_close(found, expected, 1e-12)


def test_forward_mode_agrees_with_differences(case):
    function, weight = case
    arguments = weight.requires_grad_(), ROWS.clone().requires_grad_()
    assert torch.autograd.gradcheck(function, arguments, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, arguments, check_fwd_over_rev=True)


def test_vectorised_autograd_names_the_transforms(case):
    function, weight = case
    with pytest.raises(RuntimeError, match=r"cannot be differentiated with vectorize=True .* use torch.func.jacrev"):
        torch.autograd.functional.jacobian(lambda weight: function(weight, ROWS), weight, vectorize=True)
    with pytest.raises(RuntimeError, match=r"cannot be differentiated with vectorize=True .* use torch.func.jacrev"):
        torch.autograd.functional.hessian(lambda weight: function(weight, ROWS).sum(), weight, vectorize=True)


def test_derivatives_of_inputs_can_be_transformed():
    layer = make_layer()

    def residual(weight, inputs):
        class Called(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = layer

            def forward(self, inputs):
                return torch.cat([part.flatten() for part in self.layer.input_derivatives(inputs)])

        return functional_call(Called(), {"layer.weight": weight}, (inputs,))

    weight = layer.weight.detach().clone()
    assert_close(vmap(residual, (None, 0))(weight, ROWS), loop(lambda row: residual(weight, row), ROWS), 1e-7)
    found = jacrev(residual)(weight, ROWS)
    assert_close(found, torch.autograd.functional.jacobian(lambda weight: residual(weight, ROWS), weight), 1e-7)


def test_float32_has_the_accuracy_that_the_layer_states():
    double, single = (function_of(make_layer(dtype=dtype)) for dtype in (torch.float64, torch.float32))
    weight = make_layer().weight.detach()
    exact = jacrev(double)(weight, ROWS)
    for way in (jacrev, jacfwd):
        found = way(single)(weight.float(), ROWS.float())
        assert found.dtype == torch.float32
        assert_close(found.double(), exact, 1e-4)
    found, exact = (hessian(one)(at, rows) for one, at, rows in (
        (single, weight.float(), ROWS.float()), (double, weight, ROWS)))  # fmt: skip
    assert_close(found.double(), exact, 1e-3)


def test_a_fourth_derivative_is_one_clear_error(case):
    function, weight = case
    third = grad(grad(grad(lambda x: function(weight, x * ROWS).sum())))
    point = torch.tensor(0.3, dtype=torch.float64)
    step = 1e-3
    second = grad(grad(lambda x: function(weight, x * ROWS).sum()))
    expected = (second(point + step) - second(point - step)) / (2 * step)
    assert abs(third(point) - expected) < 1e-3 * max(1, abs(expected))
    with pytest.raises(RuntimeError, match="derivatives up to the third order"):
        grad(third)(point)


def test_initial_states_have_gradients_in_transforms_but_no_more():
    circuit, w = QuantumCircuit(1), ParameterVector("w", 1)
    circuit.ry(w[0], 0)
    layer = FusedLayer(circuit, "Z", [], list(w), torch.tensor([0.4], dtype=torch.float64))
    states = torch.tensor([[0.6, 0.8], [1.0, 0.0]], dtype=torch.float64)

    def value(states):
        return layer(None, states).sum()

    plain = states.clone().requires_grad_()
    (expected,) = torch.autograd.grad(value(plain), plain)
    assert_close(grad(value)(states), expected, 1e-12)
    assert_close(vmap(grad(value))(states[:, None])[:, 0], expected, 1e-12)
    for call in (lambda: jvp(value, (states,), (states,)), lambda: hessian(value)(states)):
        with pytest.raises(RuntimeError, match="initial_states, but no second derivatives and no derivatives in forw"):
            call()


def test_a_kernel_says_that_it_cannot_be_transformed():
    circuit, x = QuantumCircuit(1), ParameterVector("x", 1)
    circuit.ry(x[0], 0)
    layer = FusedKernelLayer(circuit, list(x))
    with pytest.raises(RuntimeError, match=r"cannot be transformed by torch.func .*torch.autograd.grad"):
        grad(lambda rows: layer(rows).sum())(torch.zeros(2, 1))
