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
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import _set_fwd_grad_enabled, unpack_dual

from qiskit_fused.common.row_errors import indexed
from qiskit_fused.engines.interface import DoesNotFit
from qiskit_fused.execution.expectations import Expectations
from qiskit_fused.execution.magnitudes import LARGEST_COTANGENT
from qiskit_fused.execution.row_batches import RowBatch, Vjp
from qiskit_fused.execution.row_functions import RowFunction
from qiskit_fused.torch.conversion import device_of, is_on_gpu, to_array, to_tensor
from qiskit_fused.torch.lines import TensorFunction, batched, line_points, with_weights

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
    kind = _Values if torch._C._are_functorch_transforms_active() else _PlainValues
    values: Tensor = kind.apply(TensorFunction(expectations.function, shape), weight, inputs, initial_states)
    return values


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


class _Values(torch.autograd.Function):
    """Expectation values. The backward pass is `_Gradients`."""

    @staticmethod
    def forward(function: TensorFunction, weight: Tensor, inputs: Tensor, initial_states: Tensor | None) -> Tensor:
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
        tensors = cotangents, *ctx.saved_tensors
        # The caller may differentiate the gradient with create_graph=True, in transforms and in forward mode.
        is_plain = not torch.is_grad_enabled() and not torch._C._are_functorch_transforms_active()
        if is_plain and not any(tensor is not None and unpack_dual(tensor).tangent is not None for tensor in tensors):
            return None, *_Gradients.forward(ctx.function, ctx.needs_input_grad[1:], *tensors)
        return None, *_Gradients.apply(ctx.function, ctx.needs_input_grad[1:], *tensors)

    @staticmethod
    def jvp(ctx: Any, _: None, *along: Tensor | None) -> Any:
        if along[2] is not None:
            raise RuntimeError(_OF_STATES)
        with _set_fwd_grad_enabled(True):
            return _values_along(ctx.function, _primals(ctx), along[:2])

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], function: TensorFunction, *tensors: Tensor | None
    ) -> tuple[Tensor, int]:
        weight, inputs, states = batched(info.batch_size, in_dims[1:], tensors)
        shape = inputs.shape[:2]
        if in_dims[1] is None:
            weight, inputs = weight[0], inputs.flatten(0, 1)
        else:
            function, weight, inputs = function.in_rows(), weight.new_empty(0), with_weights(inputs, weight)
        values = _Values.apply(function, weight, inputs, None if states is None else states.flatten(0, 1))
        return values.unflatten(0, shape), 0


class _PlainValues(_Values):
    """`_Values` outside the transforms of ``torch.func``, which alone need ``setup_context``.

    PyTorch takes about 10 us to bind the arguments of a class that has its own ``setup_context``.
    """

    setup_context = staticmethod(torch.autograd.Function.setup_context)

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        values = _Values.forward(*arguments)
        _Values.setup_context(ctx, arguments, values)
        return values


class _Gradients(torch.autograd.Function):
    """Gradients of the sum of cotangents times values, with respect to weights, inputs and initial states."""

    @staticmethod
    def forward(
        function: TensorFunction,
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
        info: Any,
        in_dims: tuple[Any, ...],
        function: TensorFunction,
        needed: tuple[bool, bool, bool],
        *tensors: Tensor | None,
    ) -> Any:
        size, (cotangents, weight, inputs, states) = info.batch_size, batched(info.batch_size, in_dims[2:], tensors)
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
        arguments = rows.flatten(0, 1), weight.new_empty(0), with_weights(inputs, weight)
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


def _primals(ctx: Any) -> list[Tensor | None]:
    """Return the tensors that a function saved, without their tangents of the present level of forward mode.

    PyTorch calls ``jvp`` with forward mode off, which would leave out the derivatives of outer levels.
    """
    return [None if saved is None else unpack_dual(saved).primal for saved in ctx.saved_tensors]


def _values_along(function: TensorFunction, point: Sequence[Any], along: tuple[Tensor | None, ...]) -> Tensor:
    """Return the derivative (B, K) of values along a line, see `line_points`."""
    function = function.in_difference()
    terms = (factor * _Values.apply(function, *moved) for factor, *moved in line_points(function, point, along))
    return _sum(terms).to(point[0].dtype)


def _gradients_along(
    function: TensorFunction,
    needed: tuple[bool, bool, bool],
    cotangents: Tensor,
    point: Sequence[Any],
    along: tuple[Tensor | None, ...],
) -> list[Tensor | None]:
    """Return the derivatives of the needed gradients along a line, see `line_points`."""
    function = function.in_difference()
    terms = (
        _Gradients.apply(function, needed, factor * cotangents, *moved)
        for factor, *moved in line_points(function, point, along)
    )
    return [None if part[0] is None else _sum(part).to(at.dtype) for part, at in zip(zip(*terms), point)]


def _sum(terms: Any) -> Any:
    """Return the sum of tensors; None if the first term is None."""
    first, *others = terms
    for other in others:
        first = first if first is None else first + other
    return first


def evaluate_tensors(function: RowFunction, rows: RowBatch) -> Vjp:
    """Return values, or gradients if there are cotangents, in the dtype and on the device of what they belong to.

    Tensors on a GPU on which the sweeps run are shared with the engine, in torch's current stream; all others go by way
    of the host.

    Args:
        function: the function.
        rows: real (B, I), real (W,), real or complex (B, 2^n) or None, and real (B, K) or None, all tensors.
    """
    if not is_on_gpu(rows.weights):
        return _evaluate(function, rows, None)
    found = evaluate_on_gpu(function, rows)
    if found is None:
        with device_of(rows.weights):
            found = _evaluate(function, rows, None)
    return found


def evaluate_on_gpu(function: RowFunction, rows: RowBatch) -> Vjp | None:
    """Do what `evaluate_tensors` does for weights on a GPU, but return None where tensors go by way of the host."""
    weights, inputs = rows.weights, rows.inputs
    if inputs.device != weights.device:
        return None
    with torch.cuda.device(weights.device):
        gradient, any_start = rows.cotangents is not None, rows.initial_states is not None
        runtime = function.device_runtime(len(inputs), gradient=gradient, any_start=any_start)
        if runtime is None or _has_large_cotangents(rows.cotangents, function.options.dtype):
            return None
        try:
            with _current_stream(runtime):
                return _evaluate(function, rows, runtime)
        except DoesNotFit:
            if function.options.device != "auto":
                raise
            return None  # the host has more memory; the evaluation there says why it is asked


def _has_large_cotangents(cotangents: Tensor | None, dtype: str) -> bool:
    """Say whether cotangents are so large that the host has to scale them (see `magnitudes`)."""
    if cotangents is None or dtype != "complex64":
        return False
    return bool((cotangents.abs() > LARGEST_COTANGENT).any())


def _current_stream(runtime: Any) -> AbstractContextManager[Any]:
    """Return a context in which the engine works in torch's current stream."""
    stream: AbstractContextManager[Any] = runtime.stream(torch.cuda.current_stream().cuda_stream)
    return stream


def _evaluate(function: RowFunction, rows: RowBatch, runtime: Any) -> Vjp:
    """Evaluate arrays on the CUDA device of ``runtime``, or on the host if ``runtime`` is None."""
    inputs, weights, states, cotangents, *requested = rows
    states_dtype = torch.complex128 if runtime is None else getattr(torch, function.options.dtype)
    found = function.evaluate(
        RowBatch(
            to_array(inputs, runtime),
            to_array(weights, runtime),
            to_array(states, runtime, states_dtype),
            to_array(cotangents, runtime),
            *requested,
        )
    )
    if cotangents is None:
        return Vjp(to_tensor(found.values, weights))
    return Vjp(
        None,
        None if found.inputs is None else to_tensor(found.inputs, inputs),
        None if found.weights is None else to_tensor(found.weights, weights),
        None if found.initial_states is None or states is None else to_tensor(found.initial_states, states),
    )
