# SPDX-License-Identifier: Apache-2.0
"""`expectation_values`: values as a differentiable function of tensors. A backward pass is one backward sweep."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qiskit_fused.common.row_errors import indexed
from qiskit_fused.execution.expectations import Expectations
from qiskit_fused.torch.evaluation import TensorRows, evaluate_tensors


@torch.compiler.disable  # torch.compile cannot trace the engine's NumPy code, so a compiled model calls this function
def expectation_values(
    expectations: Expectations,
    weight: Tensor,
    inputs: Tensor,
    initial_states: Tensor | None = None,
    shape: tuple[int, ...] = (),
) -> Tensor:
    """Return expectation values that autograd can differentiate once, of the dtype and device of the weights.

    Value k of row b is ``E_k(x_b, w)``, as in `FusedLayer`. This function suits modules of your own.

    >>> from qiskit.circuit import Parameter, QuantumCircuit
    >>> circuit, x, w = QuantumCircuit(1), Parameter("x"), Parameter("w")
    >>> _ = circuit.ry(x + w, 0)
    >>> function = Expectations(circuit, "Z", [x], [w])
    >>> weight = torch.tensor([0.5], requires_grad=True)
    >>> expectation_values(function, weight, torch.tensor([[0.0]])).sum().backward()
    >>> round(weight.grad.item(), 3)
    -0.479

    Args:
        expectations: the function to evaluate. Its options decide the number format of the amplitudes.
        weight: real (W,).
        inputs: real (B, I).
        initial_states: real or complex (B, 2^n) of norm 1, or None for ``|0...0>``.
        shape: the dimensions of which the B rows were made, for errors.

    Returns:
        Values (B, K) for row b and observable k.

    Raises:
        TypeError: if ``expectations`` is no `Expectations`, or weights or inputs are no tensors.
        ValueError: for shapes that do not fit, or values that are not finite.
        RuntimeError: inside a transform of ``torch.func``.

    Cost: as `FusedLayer`.
    """
    if not isinstance(expectations, Expectations):
        raise TypeError(
            f"expectations must be an Expectations, not {type(expectations).__name__}; for a circuit, make one by "
            "Expectations(circuit, observables, input_params, weight_params), or a module by FusedLayer(...)."
        )
    for name, tensor in (("weight", weight), ("inputs", inputs), ("initial_states", initial_states)):
        if not isinstance(tensor, Tensor) and (tensor is not None or name != "initial_states"):
            raise TypeError(f"{name} must be a torch.Tensor, not {type(tensor).__name__}.")
    values: Tensor = apply(_Values, expectations.frozen(), shape, weight, inputs, initial_states)
    return values


def apply(function: type[torch.autograd.Function], *arguments: Any) -> Any:
    """Apply a function of autograd.

    Raises:
        RuntimeError: inside a transform of ``torch.func``. The text names the functions to use instead.
    """
    try:
        return function.apply(*arguments)
    except RuntimeError as error:
        if "setup_context" not in str(error):  # PyTorch's error says that transforms need this method
            raise
        raise RuntimeError(
            "qiskit_fused.torch cannot be transformed by torch.func (grad, vmap, jvp, jacrev, hessian, ...); use "
            "loss.backward() or torch.autograd.grad for gradients, torch.autograd.functional.jacobian for a Jacobian, "
            "and the leading dimensions of the inputs for batches."
        ) from None


class _Values(torch.autograd.Function):
    """Expectation values as a function of autograd, whose backward pass is `_Gradients`."""

    @staticmethod
    def forward(
        ctx: Any,
        expectations: Expectations,
        shape: tuple[int, ...],
        weight: Tensor,
        inputs: Tensor,
        initial_states: Tensor | None,
    ) -> Tensor:
        ctx.expectations, ctx.shape = expectations, shape
        ctx.save_for_backward(weight, inputs, initial_states)

        with indexed(shape):
            values: Tensor = evaluate_tensors(expectations, TensorRows(weight, inputs, initial_states)).values
        return values

    @staticmethod
    def backward(ctx: Any, cotangents: Tensor) -> tuple[Tensor | None, ...]:
        arguments = ctx.expectations, ctx.needs_input_grad[2:], cotangents, *ctx.saved_tensors
        with indexed(ctx.shape):
            if torch.is_grad_enabled():  # create_graph=True: the caller may differentiate the gradient
                return None, None, *_Gradients.apply(*arguments)
            return None, None, *_Gradients.forward(None, *arguments)


class _Gradients(torch.autograd.Function):
    """Gradients of the sum of cotangents times values.

    A separate function of autograd, so that differentiating a gradient is an error. With ``once_differentiable`` it
    would not be an error for constant cotangents: a penalty on the gradient would silently have no effect.
    """

    @staticmethod
    def forward(
        ctx: Any,
        expectations: Expectations,
        needed: tuple[bool, bool, bool],
        cotangents: Tensor,
        weight: Tensor,
        inputs: Tensor,
        initial_states: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        rows = TensorRows(weight, inputs, initial_states, cotangents, needed)
        found = evaluate_tensors(expectations, rows)
        gradients = (found.weights, found.inputs, found.initial_states)
        return tuple(gradient if is_needed else None for is_needed, gradient in zip(needed, gradients))

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        raise RuntimeError(
            "qiskit_fused.torch has no second derivatives, and this differentiates a gradient; "
            "detach the gradient, or leave create_graph=True out."
        )
