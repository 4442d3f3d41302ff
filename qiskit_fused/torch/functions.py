# SPDX-License-Identifier: Apache-2.0
"""`expectation_values`: values as a differentiable function of tensors. A backward pass is one backward sweep."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qiskit_fused.common.row_errors import indexed
from qiskit_fused.execution.expectations import Expectations
from qiskit_fused.execution.row_batches import RowBatch
from qiskit_fused.program.shift_rules import central_differences
from qiskit_fused.torch.conversion import to_array
from qiskit_fused.torch.evaluation import TensorRows, evaluate_tensors


@torch.compiler.disable  # torch.compile cannot trace the engine's NumPy code, so a compiled model calls this function
def expectation_values(
    expectations: Expectations,
    weight: Tensor,
    inputs: Tensor,
    initial_states: Tensor | None = None,
    shape: tuple[int, ...] = (),
) -> Tensor:
    """Return expectation values that autograd can differentiate, of the dtype and device of the weights.

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
            "loss.backward() or torch.autograd.grad for gradients, torch.autograd.functional.jacobian or hessian, and "
            "the leading dimensions of the inputs for batches."
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
    """Gradients of the sum of cotangents times values; its own backward pass is `_second_derivatives`."""

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
        if ctx is not None:
            ctx.expectations = expectations
            ctx.save_for_backward(cotangents, weight, inputs, initial_states)
        rows = TensorRows(weight, inputs, initial_states, cotangents, needed)
        found = evaluate_tensors(expectations, rows)
        gradients = (found.weights, found.inputs, found.initial_states)
        return tuple(gradient if is_needed else None for is_needed, gradient in zip(needed, gradients))

    @staticmethod
    def backward(
        ctx: Any, along_weight: Tensor | None, along_inputs: Tensor | None, along_states: Tensor | None
    ) -> Any:
        if ctx.needs_input_grad[5] or (along_states is not None and bool((along_states != 0).any())):
            raise RuntimeError(
                "qiskit_fused.torch has no second derivatives with respect to initial_states; detach the states, or "
                "leave create_graph=True out."
            )
        arguments = (along_weight, along_inputs), ctx.saved_tensors, ctx.needs_input_grad[2:5]
        return None, None, *_second_derivatives(ctx.expectations, *arguments), None


def _second_derivatives(
    expectations: Expectations,
    directions: tuple[Tensor | None, Tensor | None],
    saved: tuple[Tensor, ...],
    needed: tuple[bool, bool, bool],
) -> tuple[Tensor | None, ...]:
    """Return the gradient of ``phi = v . dS/d(w, x)`` with respect to cotangents, weights w and inputs x.

    S is the sum of cotangents times values. phi is the derivative of S along the line ``(w, x) + t v``, which is a sum
    of S at four points of the line (see `shift_rules`). The gradient of phi is the sum of exact gradients at these
    points. It is made of differentiable functions, so it can be differentiated again.

    Args:
        expectations: the function.
        directions: v of the weights (W,) and of the inputs (B, I); None is 0.
        saved: cotangents (B, K), weights (W,), inputs (B, I), and initial states or None.
        needed: which of the three gradients are needed.
    """
    states = saved[3]
    is_further = torch.is_grad_enabled()
    with torch.enable_grad():
        # Aliases: an input may have been computed from a weight, and only direct derivatives are asked for.
        cotangents, weight, inputs = (tensor.view_as(tensor).to(torch.float64) for tensor in saved[:3])
        aliases = cotangents, weight, inputs
        v, u = (
            torch.zeros_like(point) if along is None else along.to(torch.float64)
            for along, point in zip(directions, (weight, inputs))
        )
        moves_weight = v.requires_grad or bool((v != 0).any())
        scale = _scales(expectations, (weight, inputs), (v, u), moves_weight)
        shifts, factors = central_differences(expectations.options.dtype)
        phi: Any = 0.0
        for shift, factor in zip(shifts.tolist(), factors.tolist()):
            moved_weight = weight + shift / scale.max() * v if moves_weight else weight
            values = apply(_Values, expectations, (), moved_weight, inputs + (shift / scale)[:, None] * u, states)
            phi = phi + (factor * scale[:, None] * cotangents * values).sum()
        chosen = [alias for alias, is_needed in zip(aliases, needed) if is_needed]
        found = iter(torch.autograd.grad(phi, chosen, create_graph=is_further) if chosen else ())
    return tuple(next(found).to(tensor.dtype) if is_needed else None for is_needed, tensor in zip(needed, saved))


def _scales(
    expectations: Expectations, point: tuple[Tensor, Tensor], along: tuple[Tensor, Tensor], moves_weight: bool
) -> Tensor:
    """Return the bandwidth of each row along a line, float64 (B,). It is the same for all rows if weights move."""
    weight, inputs = point
    if not len(inputs):
        return inputs.new_ones(1)
    batch = RowBatch(to_array(inputs, None), to_array(weight, None))
    rates = expectations.bandwidth_along(batch, to_array(along[1], None), to_array(along[0], None))
    scale = torch.from_numpy(rates).to(inputs.device)
    if moves_weight:
        scale = scale.max().expand(len(scale))
    return torch.where(scale > 0, scale, torch.ones_like(scale))
