# SPDX-License-Identifier: Apache-2.0
"""`FusedTorchConnector`, the class that `accelerate` gives a ``TorchConnector``. This module imports torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from qiskit_machine_learning import QiskitMachineLearningError
from qiskit_machine_learning.connectors import TorchConnector

from qiskit_fused.execution.expectations import Expectations
from qiskit_fused.execution.row_batches import RowBatch, Vjp
from qiskit_fused.machine_learning.fused_network import FusedNetwork
from qiskit_fused.torch.conversion import is_on_gpu
from qiskit_fused.torch.functions import apply, evaluate_on_gpu


class FusedTorchConnector(TorchConnector):
    """A ``TorchConnector`` of a fused network whose backward pass is one vector-Jacobian product.

    For the outputs ``f_k(x_b, w)`` of samples b, the backward pass computes ``sum_bk g[b, k] df_k(x_b, w)/dw_j``, where
    g is the gradient of the loss with respect to the outputs: one backward sweep per sample, without the Jacobian.
    `accelerate` makes it of a ``TorchConnector``. If the network is sparse, its outputs become dense tensors.

    Everything else is as in ``TorchConnector``: the parameter is ``weight``, outputs are float32, and gradients of the
    inputs exist only with the network's ``input_gradients``. The engine computes gradients in float64. There are no
    second derivatives. Tensors of a GPU on which the sweeps run stay there, as with `FusedLayer`.

    >>> from qiskit.circuit import Parameter, QuantumCircuit
    >>> from qiskit_fused import FusedEstimatorQNN
    >>> circuit, x, w = QuantumCircuit(1), Parameter("x"), Parameter("w")
    >>> _ = circuit.ry(x + w, 0)
    >>> qnn = FusedEstimatorQNN(circuit=circuit, input_params=[x], weight_params=[w])
    >>> module = FusedTorchConnector(qnn, initial_weights=[0.5])
    >>> module(torch.tensor([[0.0], [0.5]])).sum().backward()
    >>> round(module.weight.grad.item(), 3)
    -1.321

    Args:
        neural_network: the `FusedEstimatorQNN` or `FusedSamplerQNN`, with W weights.
        initial_weights: real (W,); None is uniform in [-1, 1).
    """

    def extra_repr(self) -> str:
        """Return the text of the network, for ``print(module)``."""
        return repr(self.neural_network)

    def forward(self, input_data: torch.Tensor | None = None) -> torch.Tensor:
        """Return the outputs of the network, float32 ``(..., *output_shape)``.

        Args:
            input_data: real (..., I), I the number of inputs of the network; None for a network without inputs.

        Raises:
            QiskitMachineLearningError: if the last dimension is not I.
            ValueError: for values that are not finite; the text names the sample.
            RuntimeError: inside a transform of ``torch.func``.
        """
        inputs = torch.zeros(0) if input_data is None else input_data
        return apply(_NetworkFunction, inputs, self._weights, self._neural_network)


class _NetworkFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, weights: torch.Tensor, network: FusedNetwork) -> torch.Tensor:
        if inputs.shape[-1] != network.num_inputs:
            raise QiskitMachineLearningError(
                f"Invalid input dimension! Received {inputs.shape} and expected input compatible to "
                f"{network.num_inputs}"
            )
        ctx.network = network
        ctx.save_for_backward(inputs, weights)

        with network._user_names():
            found = _evaluate_on_gpu(network._outputs, RowBatch(inputs, weights))
        if found is not None:
            values = found.values.float()
            return values.reshape(*inputs.shape[:-1], *network.output_shape)
        outputs = network.forward(_array(inputs), _array(weights))
        values = torch.as_tensor(outputs.todense() if network.sparse else outputs, dtype=torch.float)
        return (values[0] if inputs.ndim == 1 else values).to(inputs.device)

    @staticmethod
    def backward(ctx: Any, cotangents: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return *_NetworkGradients.apply(ctx.network, ctx.needs_input_grad[:2], cotangents, *ctx.saved_tensors), None


class _NetworkGradients(torch.autograd.Function):
    """Gradients of a network as a separate function, so that a second derivative is an error.

    See ``qiskit_fused.torch.functions._Gradients``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        network: FusedNetwork,
        needed: tuple[bool, bool],
        cotangents: torch.Tensor,
        inputs: torch.Tensor,
        weights: torch.Tensor,
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        input_gradients = network.input_gradients and needed[0]

        rows = RowBatch(inputs, weights, None, cotangents, False, input_gradients, needed[1])
        with network._user_names():
            found = _evaluate_on_gpu(network._differentiated_outputs, rows)
        if found is not None:
            return None if found.inputs is None else found.inputs.reshape(inputs.shape), found.weights
        arrays = _array(inputs), _array(weights), _array(cotangents)
        _, of_inputs, of_weights = network._value_and_vjp(*arrays, input_gradients, needed[1])
        return None if of_inputs is None else _like(inputs, of_inputs), _like(weights, of_weights)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> Any:
        raise RuntimeError(
            "an accelerated TorchConnector has no second derivatives, and this differentiates a gradient; "
            "detach the gradient, or leave create_graph=True out."
        )


def _evaluate_on_gpu(function_of: Callable[[], Expectations | None], rows: RowBatch) -> Vjp | None:
    """Evaluate a network's function of inputs (..., I) on their GPU; None where they go by way of the host."""
    inputs, cotangents = rows.inputs, rows.cotangents
    if not (is_on_gpu(rows.weights) and is_on_gpu(inputs)):
        return None
    function = function_of()
    if function is None:
        return None
    inputs = inputs.reshape(inputs.shape[:-1].numel(), inputs.shape[-1])
    if cotangents is not None:
        cotangents = cotangents.reshape(len(inputs), -1)
    return evaluate_on_gpu(function.function, rows._replace(inputs=inputs, cotangents=cotangents))


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _like(tensor: torch.Tensor, array: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(array, dtype=tensor.dtype, device=tensor.device)
