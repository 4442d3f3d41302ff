# SPDX-License-Identifier: Apache-2.0
"""Derivatives of layers with respect to inputs, as sums of values at shifted inputs."""

import pytest
from qiskit.circuit import ParameterVector, QuantumCircuit

torch = pytest.importorskip("torch")

from qiskit_fused.torch import FusedLayer, FusedProbabilityLayer  # noqa: E402  (the module is skipped without torch)

TOLERANCE = {torch.float64: 1e-8, torch.float32: 2e-3}


def make_layer(kind, dtype):
    """Return a layer whose inputs are angles of one rotation, of a phase, of two gates, and of a product."""
    x, w, circuit = ParameterVector("x", 4), ParameterVector("w", 2), QuantumCircuit(2)
    circuit.h([0, 1])
    circuit.rx(2 * x[0], 0)
    circuit.cp(x[1], 0, 1)
    circuit.ry(w[0], 1)
    for qubit in range(2):
        circuit.ry(1.5 * x[2], qubit)
    circuit.rzz(x[3] * w[1], 0, 1)
    circuit.rx(w[1], 0)
    weights = torch.tensor([0.3, -0.7], dtype=dtype)
    return kind(circuit, *([["ZZ", "XI"]] * (kind is FusedLayer)), list(x), list(w), weights)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", [FusedLayer, FusedProbabilityLayer])
def test_they_agree_with_derivatives_of_autograd(kind, dtype):
    layer, exact = make_layer(kind, dtype), make_layer(kind, torch.float64)
    rows = torch.linspace(-1, 2, 24, dtype=dtype).reshape(3, 2, 4)
    found = layer.input_derivatives(rows)
    count = exact(rows.double()).shape[-1]
    assert found.values.shape == (3, 2, count) and found.first.shape == found.second.shape == (3, 2, count, 4)
    assert found.second.dtype == dtype
    inputs = rows.double().requires_grad_()
    values = exact(inputs)
    for k in range(count):
        (first,) = torch.autograd.grad(values[..., k].sum(), inputs, create_graph=True)
        for i in range(4):
            (second,) = torch.autograd.grad(first[..., i].sum(), inputs, retain_graph=True)
            assert (found.second[..., k, i] - second[..., i]).abs().max() < TOLERANCE[dtype]
        assert (found.first[..., k, :] - first).abs().max() < TOLERANCE[dtype]
    assert (found.values - values).abs().max() < TOLERANCE[dtype]


def test_a_loss_of_them_trains_the_weights():
    layer = make_layer(FusedLayer, torch.float64)
    rows = torch.linspace(0, 1, 20, dtype=torch.float64).reshape(5, 4)

    def loss():
        u, u_x, u_xx = layer.input_derivatives(rows)
        return (u**2).mean() + (u_x * u_xx).sum()

    loss().backward()
    # The losses have errors of about 1e-9, which the step divides.
    step, gradient = 1e-4, layer.weight.grad.clone()
    for k in range(2):
        losses = []
        for sign in (1, -2, 1):
            with torch.no_grad():
                layer.weight[k] += sign * step
            losses.append(loss().item())
        assert abs(gradient[k].item() - (losses[0] - losses[1]) / (2 * step)) < 1e-4
