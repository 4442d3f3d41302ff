# SPDX-License-Identifier: Apache-2.0
"""FusedKernelLayer agrees with its function of arrays and with numerical derivatives, and works as FusedLayer does."""

import copy
import io
import re

import numpy as np
import pytest
from qiskit.circuit.library import real_amplitudes, zz_feature_map

from qiskit_fused.execution import kernel_losses
from qiskit_fused.execution.fidelities import Fidelities
from qiskit_fused.execution.projections import Projections

torch = pytest.importorskip("torch")
from qiskit_fused.torch import FusedKernelLayer, alignment_loss, kernel_matrix, svc_loss  # noqa: E402

FIRST, SECOND = real_amplitudes(2, reps=1), zz_feature_map(2, reps=1)
CIRCUIT, INPUTS, WEIGHTS = FIRST.compose(SECOND), list(SECOND.parameters), list(FIRST.parameters)
KINDS = {"fidelity": Fidelities, "projected": Projections}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-6}


@pytest.fixture(autouse=True)
def _same_numbers_every_time():
    torch.manual_seed(3)


@pytest.fixture(params=KINDS)
def kernel(request):
    return request.param


def layer_of(kernel="fidelity", **options):
    return FusedKernelLayer(CIRCUIT, INPUTS, WEIGHTS, kernel=kernel, **options)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("two", [False, True], ids=["one", "two"])
def test_matrices_are_those_of_the_function_of_arrays(kernel, dtype, two):
    layer = layer_of(kernel).to(dtype)
    inputs, others = torch.randn(5, 2, dtype=dtype), torch.randn(3, 2, dtype=dtype) if two else None
    matrix = layer(inputs, others)
    weights = layer.weight.detach().double().numpy()
    samples = [None if tensor is None else tensor.double().numpy() for tensor in (inputs, others)]
    expected = KINDS[kernel](CIRCUIT, INPUTS, WEIGHTS).values(samples[0], weights, samples[1])
    assert matrix.dtype == dtype
    torch.testing.assert_close(matrix.double(), torch.from_numpy(expected), atol=TOLERANCE[dtype], rtol=0)


def test_gradients_of_weights_and_samples_agree_with_finite_differences(kernel):
    layer = layer_of(kernel).double()
    inputs, others = (torch.randn(count, 2, dtype=torch.float64, requires_grad=True) for count in (4, 3))
    weight = layer.weight.detach().requires_grad_()
    function = layer._double
    assert torch.autograd.gradcheck(lambda w, x, y: kernel_matrix(function, w, x, y), (weight, inputs, others))
    # The diagonal of a matrix of one set is constant only if both of its samples change together.
    assert torch.autograd.gradcheck(lambda w, x: kernel_matrix(function, w, x), (weight, inputs))


def test_samples_that_need_no_gradient_have_none(kernel):
    layer = layer_of(kernel)
    others = torch.randn(3, 2, requires_grad=True)
    inputs = torch.randn(4, 2)
    layer(inputs, others).sum().backward()
    assert inputs.grad is None and others.grad.shape == (3, 2) and layer.weight.grad.shape == (4,)
    layer.weight.requires_grad_(False)
    assert not layer(inputs).requires_grad


def test_a_graph_can_be_kept_for_several_backward_passes(kernel):
    layer = layer_of(kernel).double()
    loss = layer(torch.randn(4, 2, dtype=torch.float64)).sum()
    loss.backward(retain_graph=True)
    once = layer.weight.grad.clone()
    loss.backward()
    torch.testing.assert_close(layer.weight.grad, 2 * once)


def test_a_matrix_that_changes_in_place_has_the_same_gradient(kernel):
    layer = layer_of(kernel).double()
    inputs = torch.randn(4, 2, dtype=torch.float64)
    gradients = []
    for change in (False, True):
        layer.weight.grad = None
        matrix = layer(inputs)
        if change:
            matrix += torch.eye(4, dtype=torch.float64)
        matrix.sum().backward()
        gradients.append(layer.weight.grad.clone())
    torch.testing.assert_close(*gradients)


def test_a_second_derivative_is_an_error(kernel):
    layer = layer_of(kernel)
    (gradient,) = torch.autograd.grad(layer(torch.randn(3, 2)).sum(), layer.weight, create_graph=True)
    with pytest.raises(RuntimeError, match="kernels and their losses have no second derivatives"):
        gradient.sum().backward()


def test_a_copy_and_a_saved_state_have_the_same_matrix(kernel):
    layer, inputs, file = layer_of(kernel), torch.randn(3, 2), io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = layer_of(kernel)
    other.load_state_dict(torch.load(file))
    for same in (other, copy.deepcopy(layer)):
        assert torch.equal(same(inputs), layer(inputs))


def test_training_makes_the_alignment_better():
    layer = layer_of(initial_weights=torch.full((4,), 0.3))
    samples = torch.rand(20, 2)
    labels = samples[:, 0] > 0.5
    optimizer, losses = torch.optim.Adam(layer.parameters(), lr=0.1), []
    for _ in range(15):
        optimizer.zero_grad()
        loss = alignment_loss(layer(samples), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05


LOSSES = {
    "alignment": (alignment_loss, kernel_losses.alignment_loss, {"centered": True}),
    "svc": (svc_loss, kernel_losses.svc_loss, {"C": 3.0}),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_those_of_arrays(name, dtype):
    of_tensors, of_arrays, arguments = LOSSES[name]
    features = torch.randn(8, 2, dtype=dtype)
    matrix = torch.exp(-(torch.cdist(features, features) ** 2)).requires_grad_()
    labels = torch.arange(8) % 2
    loss = of_tensors(matrix, labels, **arguments)
    (2 * loss).backward()
    expected = of_arrays(matrix.detach().double().numpy(), labels.numpy(), **arguments)
    assert loss.dtype == dtype and loss.shape == ()
    np.testing.assert_allclose(loss.item(), expected.value, rtol=1e-6)
    np.testing.assert_allclose(matrix.grad.numpy(), 2 * expected.cotangents, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", [alignment_loss, svc_loss])
def test_losses_have_no_second_derivatives(loss):
    matrix = torch.eye(4, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(matrix, [0, 1, 0, 1]), matrix, create_graph=True)
    with pytest.raises(RuntimeError, match="kernels and their losses have no second derivatives"):
        gradient.sum().backward()
    with pytest.raises(TypeError, match=r"matrix must be a torch.Tensor, not ndarray"):
        loss(np.eye(4), [0, 1, 0, 1])


def test_modules_show_their_numbers_and_options():
    assert layer_of().extra_repr() == "num_inputs=2, num_weights=4, num_qubits=2"
    assert layer_of("projected", gamma=2, dtype="complex128").extra_repr() == (
        "num_inputs=2, kernel='projected', gamma=2.0, num_weights=4, num_qubits=2"
    )


class TestErrors:
    def test_observables_belong_to_projected_kernels(self):
        with pytest.raises(TypeError, match="observables and gamma belong to projected kernels"):
            layer_of(observables=["ZZ"])
        with pytest.raises(ValueError, match="kernel is 'linear'; allowed: 'fidelity', 'projected'"):
            layer_of("linear")

    @pytest.mark.parametrize(
        ("arguments", "error", "text"),
        [
            ((np.zeros((3, 2)),), TypeError, "inputs must be a torch.Tensor, not ndarray."),
            ((torch.zeros(3, 2), [1.0]), TypeError, "others must be a torch.Tensor, not list."),
            ((torch.zeros(3, 1),), ValueError, "inputs have shape (3, 1); allowed: (samples, 2)."),
            ((torch.zeros(2, 3, 2),), ValueError, "inputs have shape (2, 3, 2); allowed: (samples, 2)."),
            ((torch.tensor([[0.0, float("nan")]]),), ValueError, "in row 0 of inputs is nan"),
            ((torch.full((1, 2), 1j),), TypeError, "inputs are complex; allowed: real numbers"),
        ],
    )
    def test_bad_samples_are_named(self, kernel, arguments, error, text):
        with pytest.raises(error, match=re.escape(text)):
            layer_of(kernel)(*arguments)

    def test_a_function_of_another_kind_is_refused(self):
        with pytest.raises(TypeError, match="function must be Fidelities or Projections, not FusedKernelLayer"):
            kernel_matrix(layer_of(), torch.zeros(4), torch.zeros(3, 2))
        with pytest.raises(TypeError, match=r"weight must be a torch.Tensor, not ndarray"):
            kernel_matrix(Fidelities(CIRCUIT, INPUTS, WEIGHTS), np.zeros(4), torch.zeros(3, 2))

    def test_transforms_of_torch_func_are_refused(self):
        with pytest.raises(RuntimeError, match=r"cannot be transformed by torch.func"):
            torch.func.grad(lambda x: layer_of()(x).sum())(torch.zeros(3, 2))
