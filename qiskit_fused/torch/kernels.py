# SPDX-License-Identifier: Apache-2.0
"""`kernel_matrix`, `alignment_loss` and `svc_loss`: kernel matrices and their losses as functions of tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qiskit_fused.execution import kernel_losses
from qiskit_fused.execution.kernel_function import KernelFunction
from qiskit_fused.execution.kernel_losses import MatrixLoss
from qiskit_fused.execution.pair_batches import KernelVjp, PairBatch
from qiskit_fused.torch.conversion import to_array, to_tensor
from qiskit_fused.torch.functions import apply


@torch.compiler.disable  # torch.compile cannot trace the engine's NumPy code, so a compiled model calls this function
def kernel_matrix(function: KernelFunction, weight: Tensor, inputs: Tensor, others: Tensor | None = None) -> Tensor:
    """Return a kernel matrix that autograd can differentiate once, of the dtype and device of the weights.

    This function suits modules of your own.

    >>> from qiskit.circuit import Parameter, QuantumCircuit
    >>> from qiskit_fused.execution.fidelities import Fidelities
    >>> circuit, x, w = QuantumCircuit(1), Parameter("x"), Parameter("w")
    >>> _ = circuit.ry(x * w, 0)
    >>> function = Fidelities(circuit, [x], [w])
    >>> weight = torch.tensor([0.5], requires_grad=True)
    >>> kernel_matrix(function, weight, torch.tensor([[0.0], [1.0]])).sum().backward()
    >>> round(weight.grad.item(), 3)
    -0.479

    Args:
        function: `Fidelities` or `Projections`. Its options decide the number format of the amplitudes.
        weight: real (W,).
        inputs: the N samples, real (N, I).
        others: M samples, real (M, I). None makes the symmetric matrix of ``inputs``.

    Returns:
        The matrix, (N, M).

    Raises:
        TypeError: if ``function`` is no kernel function, or weights or samples are no tensors.
        ValueError: for shapes that do not fit, or values that are not finite.
        RuntimeError: inside a transform of ``torch.func``.

    Cost: as `FusedKernelLayer`.
    """
    if not isinstance(function, KernelFunction):
        raise TypeError(
            f"function must be Fidelities or Projections, not {type(function).__name__}; for a circuit, make one by "
            "Fidelities(circuit, input_params, weight_params), or a module by FusedKernelLayer(...)."
        )
    for name, tensor in (("weight", weight), ("inputs", inputs), ("others", others)):
        if not isinstance(tensor, Tensor) and (tensor is not None or name != "others"):
            raise TypeError(f"{name} must be a torch.Tensor, not {type(tensor).__name__}.")
    matrix: Tensor = apply(_Matrix, function, weight, inputs, others)
    return matrix


class _Matrix(torch.autograd.Function):
    """A kernel matrix as a function of autograd, whose backward pass is `_Gradients`."""

    @staticmethod
    def forward(ctx: Any, function: KernelFunction, weight: Tensor, inputs: Tensor, others: Tensor | None) -> Tensor:
        _, of_weight, of_inputs, of_others = ctx.needs_input_grad
        arrays = to_array(inputs, None), to_array(weight, None), to_array(others, None)
        evaluation = function.evaluate(PairBatch(*arrays, of_inputs or of_others, of_weight))
        ctx.vjp = evaluation.vjp
        ctx.save_for_backward(weight, inputs, others)
        return to_tensor(evaluation.values, weight)

    @staticmethod
    def backward(ctx: Any, cotangents: Tensor) -> tuple[Tensor | None, ...]:
        arguments = ctx.vjp, ctx.needs_input_grad[1:], cotangents, *ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: the caller may differentiate the gradient
            return None, *_Gradients.apply(*arguments)
        return None, *_Gradients.forward(None, *arguments)


class _Gradients(torch.autograd.Function):
    """Gradients of the sum of cotangents times elements, a separate function so that a second derivative is an error.

    See ``qiskit_fused.torch.functions._Gradients``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        vjp: Callable[[np.ndarray], KernelVjp],
        needed: tuple[bool, bool, bool],
        cotangents: Tensor,
        weight: Tensor,
        inputs: Tensor,
        others: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        found = vjp(to_array(cotangents, None))
        gradients = (found.weights, weight), (found.inputs, inputs), (found.others, others)
        return tuple(
            to_tensor(gradient, like) if is_needed and like is not None else None
            for is_needed, (gradient, like) in zip(needed, gradients)
        )

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        raise RuntimeError(_NO_SECOND)


_NO_SECOND = (
    "kernels and their losses have no second derivatives, and this differentiates a gradient; detach the gradient, or "
    "leave create_graph=True out."
)


def alignment_loss(matrix: Tensor, labels: Any, *, centered: bool = False) -> Tensor:
    """Return the loss ``1 - A`` of a kernel matrix, where A is its alignment with the labels, a scalar tensor.

    >>> matrix = torch.tensor([[1.0, 0.5], [0.5, 1.0]], requires_grad=True)
    >>> loss = alignment_loss(matrix, torch.tensor([0, 1]))
    >>> loss.backward()
    >>> round(loss.item(), 3), round(matrix.grad[0, 1].item(), 3)
    (0.684, 0.379)

    Args:
        matrix: real (N, N).
        labels: the class of each sample, (N,), a tensor or an array.
        centered: whether the matrix and the labels are centered first, see
            `alignment_loss <qiskit_fused.execution.kernel_losses.alignment_loss>`.

    Raises:
        ValueError: for a matrix that is not square, another number of labels, or fewer than 2 classes.
    """
    return _loss_of(matrix, lambda array: kernel_losses.alignment_loss(array, _array(labels), centered=centered))


def svc_loss(matrix: Tensor, labels: Any, C: float = 1.0, **arguments: Any) -> Tensor:
    """Return the loss of a support vector classifier with a kernel matrix, a scalar tensor.

    A small loss is a large margin.

    >>> matrix = torch.tensor([[1.0, 0.5], [0.5, 1.0]], requires_grad=True)
    >>> loss = svc_loss(matrix, torch.tensor([0, 1]), C=10.0)
    >>> loss.backward()
    >>> round(loss.item(), 3), round(matrix.grad[0, 1].item(), 3)
    (2.0, 2.0)

    Args:
        matrix: real (N, N).
        labels: the class of each sample, (N,), a tensor or an array.
        C: the bound of the multipliers.
        arguments: further arguments of ``sklearn.svm.SVC``, see
            `svc_loss <qiskit_fused.execution.kernel_losses.svc_loss>`.

    Raises:
        ValueError: for a matrix that is not square, another number of labels, or fewer than 2 classes.
    """
    return _loss_of(matrix, lambda array: kernel_losses.svc_loss(array, _array(labels), C, **arguments))


def _array(labels: Any) -> Any:
    return labels.detach().cpu().numpy() if isinstance(labels, Tensor) else labels


@torch.compiler.disable
def _loss_of(matrix: Tensor, loss: Callable[[np.ndarray], MatrixLoss]) -> Tensor:
    if not isinstance(matrix, Tensor):
        raise TypeError(f"matrix must be a torch.Tensor, not {type(matrix).__name__}.")
    value: Tensor = apply(_Loss, matrix, loss)
    return value


class _Loss(torch.autograd.Function):
    """A loss of a matrix as a function of autograd."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, loss: Callable[[np.ndarray], MatrixLoss]) -> Tensor:
        found = loss(to_array(matrix, None))
        ctx.save_for_backward(matrix, to_tensor(found.cotangents, matrix))
        return matrix.new_tensor(found.value)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        arguments = cotangent, *ctx.saved_tensors
        if torch.is_grad_enabled():
            return _LossGradient.apply(*arguments), None
        return _LossGradient.forward(None, *arguments), None


class _LossGradient(torch.autograd.Function):
    """The gradient of a loss of a matrix, a separate function so that a second derivative is an error."""

    @staticmethod
    def forward(ctx: Any, cotangent: Tensor, matrix: Tensor, derivatives: Tensor) -> Tensor:
        return cotangent * derivatives

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        raise RuntimeError(_NO_SECOND)
