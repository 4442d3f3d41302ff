# SPDX-License-Identifier: Apache-2.0
"""`expectation_values`: values as a differentiable function of tensors. A backward pass is one backward sweep.

`_Values` are the values E, and `_Gradients` are the exact gradients of ``sum_bk g[b, k] E_k(x_b, w)``. Each further
derivative is a derivative along a line ``(w, x) + t (v, u)``, by central differences of the functions themselves:

* a product of the Jacobian of E with a vector, in forward mode, is a derivative of `_Values` along the line;
* a product of the Hessian with a vector, in both modes, is a derivative of `_Gradients` along the line.

A difference is a sum of differentiable functions, so derivatives can be nested, by autograd and by ``torch.func``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import unwrap_dead_wrappers
from torch.autograd.forward_ad import _set_fwd_grad_enabled, unpack_dual

from qiskit_fused.common.row_errors import indexed
from qiskit_fused.execution.expectations import Expectations
from qiskit_fused.execution.row_batches import RowBatch
from qiskit_fused.execution.row_functions import RowFunction
from qiskit_fused.program.shift_rules import central_differences
from qiskit_fused.torch.conversion import detached, to_array
from qiskit_fused.torch.evaluation import evaluate_tensors

_MAX_DIFFERENCES = 2  # nested differences: a third one would have errors of 1e-5 in float64
_OF_STATES = (
    "qiskit_fused.torch has gradients with respect to initial_states, but no second derivatives and no derivatives in "
    "forward mode; detach the states, or leave create_graph=True out."
)


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
        RuntimeError: for a fourth derivative, or another derivative of initial states than a gradient.

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
    values: Tensor = _Values.apply(_Map(expectations.function, shape), weight, inputs, initial_states)
    return values


def bandwidth_along(
    of_rows: RowFunction, point: tuple[Tensor, Tensor], along: tuple[Tensor | None, Tensor | None]
) -> Tensor:
    """Return the rates at which the values of rows change along lines, float64 (B,), without a gradient.

    Args:
        of_rows: the function.
        point: weights (W,) and inputs (B, I).
        along: directions of the weights and of the inputs; None is 0.
    """
    directions = (torch.zeros_like(at) if part is None else part for at, part in zip(point, along))
    rates: Tensor = _Bandwidths.apply(of_rows, *(detached(tensor) for tensor in (*point, *directions)))
    return rates


def apply(function: type[torch.autograd.Function], *arguments: Any) -> Any:
    """Apply a function of autograd that the transforms of ``torch.func`` cannot transform.

    Raises:
        RuntimeError: inside a transform of ``torch.func``. The text names the functions to use instead.
    """
    try:
        return function.apply(*arguments)
    except RuntimeError as error:
        if "setup_context" not in str(error):  # PyTorch's error says that transforms need this method
            raise
        raise RuntimeError(
            "kernels and accelerated TorchConnectors cannot be transformed by torch.func (grad, vmap, jvp, jacrev, "
            "hessian, ...); use loss.backward() or torch.autograd.grad for gradients, and "
            "torch.autograd.functional.jacobian. FusedLayer and FusedProbabilityLayer can be transformed."
        ) from None


@dataclass(frozen=True, eq=False)
class _Map:
    """A function of weights, inputs and initial states.

    Attributes:
        of_rows: the function of rows.
        shape: the dimensions of which the rows were made, for errors.
        num_differences: the number of nested central differences of which the function is a part.
    """

    of_rows: RowFunction
    shape: tuple[int, ...] = ()
    num_differences: int = 0

    def in_difference(self) -> _Map:
        """Return this function as a part of one more difference.

        Raises:
            RuntimeError: if there are too many differences.
        """
        if self.num_differences == _MAX_DIFFERENCES:
            raise RuntimeError(
                "qiskit_fused.torch has derivatives up to the third order, or up to the second order if all are in "
                "forward mode; detach the gradient, leave create_graph=True out, or take the innermost derivative by "
                "torch.func.grad, vjp or jacrev."
            )
        return _Map(self.of_rows, self.shape, self.num_differences + 1)

    def in_rows(self) -> _Map:
        """Return this function with weights that vary by row, as further inputs."""
        return _Map(self.of_rows.with_weights_in_rows, (), self.num_differences)


class _Function(torch.autograd.Function):
    """A function of autograd that the transforms of ``torch.func`` can transform."""

    @classmethod
    def apply(cls, *arguments: Any) -> Any:
        if torch._C._are_functorch_transforms_active():
            return super().apply(*arguments)
        # The method of the base class binds the arguments to the signature of `forward`, which takes 10 us.
        return super(torch.autograd.Function, cls).apply(*unwrap_dead_wrappers(arguments))


class _Values(_Function):
    """Expectation values. The backward pass is `_Gradients`."""

    @staticmethod
    def forward(function: _Map, weight: Tensor, inputs: Tensor, initial_states: Tensor | None) -> Tensor:
        with indexed(function.shape):
            values: Tensor = evaluate_tensors(function.of_rows, RowBatch(inputs, weight, initial_states)).values
        return values

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.function, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, cotangents: Tensor | None) -> Any:
        if cotangents is None:
            return None, None, None, None
        # A graph is made for create_graph=True and for transforms, where the caller may differentiate the gradient.
        is_plain = not torch.is_grad_enabled() and not torch._C._are_functorch_transforms_active()
        gradients = _Gradients.forward if is_plain else _Gradients.apply
        return None, *gradients(ctx.function, ctx.needs_input_grad[1:], cotangents, *ctx.saved_tensors)

    @staticmethod
    def jvp(ctx: Any, _: None, *along: Tensor | None) -> Any:
        if along[2] is not None:
            raise RuntimeError(_OF_STATES)
        with _set_fwd_grad_enabled(True):
            return _values_along(ctx.function, _primals(ctx), along[:2])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], function: _Map, *tensors: Tensor | None) -> tuple[Tensor, int]:
        weight, inputs, states = _batched(info.batch_size, in_dims[1:], tensors)
        shape = inputs.shape[:2]
        if in_dims[1] is None:
            weight, inputs = weight[0], inputs.flatten(0, 1)
        else:
            function, weight, inputs = function.in_rows(), weight.new_empty(0), _joined(inputs, weight)
        values = _Values.apply(function, weight, inputs, None if states is None else states.flatten(0, 1))
        return values.unflatten(0, shape), 0


class _Gradients(_Function):
    """Gradients of the sum of cotangents times values, with respect to weights, inputs and initial states."""

    @staticmethod
    def forward(
        function: _Map,
        needed: tuple[bool, bool, bool],
        cotangents: Tensor,
        weight: Tensor,
        inputs: Tensor,
        initial_states: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        with indexed(function.shape):
            rows = RowBatch(inputs, weight, initial_states, cotangents, False, needed[1], needed[0], needed[2])
            _, of_inputs, of_weights, of_states = evaluate_tensors(function.of_rows, rows)
        gradients = of_weights, of_inputs, of_states
        return tuple(gradient if is_needed else None for is_needed, gradient in zip(needed, gradients))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
        ctx.function, ctx.needed, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *along: Tensor | None) -> Any:
        cotangents, *point = ctx.saved_tensors
        of_cotangents, *needed, of_states = ctx.needs_input_grad[2:]
        if of_states or along[2] is not None:
            raise RuntimeError(_OF_STATES)
        if along[0] is None and along[1] is None:
            return (None,) * 6
        values = _values_along(ctx.function, point, along[:2]) if of_cotangents else None
        gradients = _gradients_along(ctx.function, (*needed, False), cotangents, point, along[:2])
        return None, None, values, *gradients

    @staticmethod
    def jvp(ctx: Any, _: None, __: None, of_cotangents: Tensor | None, *along: Tensor | None) -> Any:
        function, needed, parts = ctx.function, ctx.needed, []
        moves = along[0] is not None or along[1] is not None
        if along[2] is not None or (moves and needed[2]):
            raise RuntimeError(_OF_STATES)
        with _set_fwd_grad_enabled(True):
            cotangents, *point = _primals(ctx)
            if of_cotangents is not None:
                parts.append(_Gradients.apply(function, needed, of_cotangents, *point))
            if moves:
                parts.append(_gradients_along(function, needed, cotangents, point, along[:2]))
            return tuple(_sum(part) for part in zip(*parts))

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], function: _Map, needed: tuple[bool, bool, bool], *tensors: Tensor | None
    ) -> Any:
        size, (cotangents, weight, inputs, states) = info.batch_size, _batched(info.batch_size, in_dims[2:], tensors)
        (_, num_rows, count), num_values = inputs.shape, cotangents.shape[2]
        is_jacobian = size > num_values and all(dim is None for dim in in_dims[3:])
        if is_jacobian:  # fewer sweeps: the gradient of each value of a row once, as further rows
            weight, inputs = (part[:1].expand(num_values, *part.shape[1:]) for part in (weight, inputs))
            states = None if states is None else states[:1].expand(num_values, *states.shape[1:])
            unit = torch.eye(num_values, dtype=cotangents.dtype, device=cotangents.device)
            rows = unit[:, None].expand(num_values, num_rows, num_values)
        else:
            rows = cotangents
        needed_in_rows = False, needed[0] or needed[1], needed[2]
        arguments = rows.flatten(0, 1), weight.new_empty(0), _joined(inputs, weight)
        _, of_inputs, of_states = _Gradients.apply(
            function.in_rows(), needed_in_rows, *arguments, None if states is None else states.flatten(0, 1)
        )
        found = []
        for gradients in (of_inputs, of_states):
            if gradients is not None:
                gradients = gradients.reshape(*rows.shape[:2], gradients.shape[1])
                if is_jacobian:
                    gradients = torch.einsum("nbk,kbp->nbp", cotangents.to(gradients.dtype), gradients)
            found.append(gradients)
        joined, of_states = found
        of_weights = joined[..., count:].sum(1).to(weight.dtype) if needed[0] else None
        return (of_weights, joined[..., :count].to(inputs.dtype) if needed[1] else None, of_states), 0


class _Bandwidths(_Function):
    """The result of `bandwidth_along`, which has no gradient."""

    @staticmethod
    def forward(of_rows: RowFunction, weight: Tensor, inputs: Tensor, v: Tensor, u: Tensor) -> Tensor:
        weight_array, inputs_array, v_array, u_array = (to_array(part, None) for part in (weight, inputs, v, u))
        rates = of_rows.bandwidth_along(RowBatch(inputs_array, weight_array), u_array, v_array)
        return torch.from_numpy(rates).to(inputs.device)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], of_rows: RowFunction, *tensors: Tensor) -> tuple[Tensor, int]:
        weight, inputs, v, u = _batched(info.batch_size, in_dims[1:], tensors)
        rows = weight.new_empty(0), _joined(inputs, weight), weight.new_empty(0), _joined(u, v)
        return _Bandwidths.apply(of_rows.with_weights_in_rows, *rows).reshape(inputs.shape[:2]), 0


def _primals(ctx: Any) -> list[Tensor | None]:
    """Return the tensors that a function saved, without their tangents of the present level of forward mode.

    PyTorch calls ``jvp`` with forward mode off, which would leave out the derivatives of outer levels.
    """
    return [None if saved is None else unpack_dual(saved).primal for saved in ctx.saved_tensors]


def _batched(size: int, dims: tuple[int | None, ...], tensors: Sequence[Tensor | None]) -> list[Any]:
    """Return tensors with the dimension of ``vmap``, whose size is given, in front."""
    return [
        None if part is None else part.expand(size, *part.shape) if dim is None else part.movedim(dim, 0)
        for dim, part in zip(dims, tensors)
    ]


def _joined(inputs: Tensor, weight: Tensor) -> Tensor:
    """Return rows (N B, I + W) of inputs (N, B, I) and weights (N, W)."""
    weight = weight[:, None].expand(*inputs.shape[:2], weight.shape[1])
    return torch.cat([inputs, weight], dim=2).flatten(0, 1)


def _values_along(function: _Map, point: Sequence[Any], along: tuple[Tensor | None, ...]) -> Tensor:
    """Return the derivative (B, K) of values along a line, see `_line`."""
    function = function.in_difference()
    terms = (factor * _Values.apply(function, *moved) for factor, *moved in _line(function, point, along))
    return _sum(terms).to(point[0].dtype)


def _gradients_along(
    function: _Map,
    needed: tuple[bool, bool, bool],
    cotangents: Tensor,
    point: Sequence[Any],
    along: tuple[Tensor | None, ...],
) -> list[Tensor | None]:
    """Return the derivatives of the needed gradients along a line, see `_line`."""
    function = function.in_difference()
    terms = (
        _Gradients.apply(function, needed, factor * cotangents, *moved)
        for factor, *moved in _line(function, point, along)
    )
    return [None if part[0] is None else _sum(part).to(at.dtype) for part, at in zip(zip(*terms), point)]


def _line(
    function: _Map, point: Sequence[Any], along: tuple[Tensor | None, ...]
) -> list[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
    """Return the points of a central difference: for each its factors (B, 1), weights, inputs and initial states.

    The step of a row is a small number divided by the bandwidth of the row, or by the largest bandwidth of all rows if
    weights move.

    Args:
        function: the function, for its bandwidth.
        point: weights (W,), inputs (B, I), and initial states or None.
        along: directions of the weights and of the inputs; None is 0.
    """
    weight, inputs = (part.to(torch.float64) for part in point[:2])
    v, u = (None if part is None else part.to(torch.float64) for part in along)
    scale = bandwidth_along(function.of_rows, (weight, inputs), (v, u))
    largest = torch.cat([scale, scale.new_zeros(1)]).amax()
    if v is not None:
        scale = largest.expand(scale.shape)
    scale, largest = (torch.where(part > 0, part, 1.0) for part in (scale, largest))
    shifts, factors = central_differences(function.of_rows.options.dtype)
    return [
        (
            factor * scale[:, None],
            weight if v is None else weight + shift / largest * v,
            inputs if u is None else inputs + (shift / scale)[:, None] * u,
            point[2],
        )
        for shift, factor in zip(shifts.tolist(), factors.tolist())
    ]


def _sum(terms: Any) -> Any:
    """Return the sum of tensors; None if the first term is None."""
    first, *others = terms
    for other in others:
        first = first if first is None else first + other
    return first
