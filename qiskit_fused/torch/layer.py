# SPDX-License-Identifier: Apache-2.0
"""`FusedLayer`: expectation values of a circuit as a PyTorch module. A backward pass is one backward sweep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
from qiskit.circuit import Parameter, QuantumCircuit

from qiskit_fused.common.display import arguments_text
from qiskit_fused.common.row_errors import indexed
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.execution.arguments import is_by_name, ordered_values
from qiskit_fused.execution.devices import check_device
from qiskit_fused.execution.expectations import Expectations
from qiskit_fused.options.fused_options import FusedOptions, FusedOptionsDict, Unpack
from qiskit_fused.options.keywords import checks_keywords

try:
    import torch
    from torch import Tensor, nn
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ModuleNotFoundError(
        "qiskit_fused.torch needs PyTorch, which is not installed; use: pip install torch",
        name="torch",
    ) from error

from qiskit_fused.torch.conversion import as_rows
from qiskit_fused.torch.evaluation import TensorRows, evaluate_tensors


class FusedLayer(nn.Module):
    """Expectation values of K observables after a circuit: a module that maps (..., I) to (..., K).

    The weights are one Parameter, ``weight`` (W,). A backward pass is one forward and one backward sweep for all
    observables together, in memory that does not depend on rows times weights. Gradients of the inputs, and of initial
    states, are only made where they are needed. There are no second derivatives.

    The circuit is compiled when the module is made, and later changes of it do not count. Observables are looked at in
    each forward pass: changes in place count from the next one on.

    ``weight.dtype`` decides the arithmetic: amplitudes are complex128 where it is float64 (``layer.double()``), else
    complex64, unless an option says which. Values have the dtype and the device of ``weight``.

    Tensors in CPU memory are shared with the engine, not copied, where they are float64 (complex128 for states), and
    converted where they are not: angles are float64 in all engines. Tensors of a GPU on which the sweeps run go to the
    engine through DLPack, in torch's current stream, and values and gradients come back the same way: none of them
    visits the host. (Tested with an emulated device; this has not run on a GPU yet.) All other tensors are copied
    through CPU memory, rows times inputs in and rows times observables out: where the ``device`` option, which alone
    says where sweeps run, chooses the CPU; where an executor shares the rows; where parameters are amplitudes, or in
    expressions that are not affine in one parameter; and where parts of the circuit are simulated once for all rows.

    Args:
        circuit: the circuit, or what `compile_circuit` made of it.
        observables: one observable or a list of K; None is Z on all qubits.
        input_params: I parameters of the circuit that the inputs are values of, in their order.
        weight_params: W parameters of the circuit that the weights are values of, in their order; with the inputs,
            all parameters of the circuit. ``input_parameters`` and ``weight_parameters``, the names that both had
            before, still work, with a FutureWarning.
        initial_weights: W numbers; a dict of them by the names of their parameters; or a function that fills a tensor
            in place as those of ``torch.nn.init`` do. A tensor keeps its dtype and device; other numbers become the
            default dtype. None is uniform in [-1, 1), as in ``TorchConnector``.
        options: `FusedOptions`, which say a dtype too, or a mapping; copied.
        keywords: single options, which override both.

    Raises:
        UnsupportedInstruction: when the circuit holds an instruction no sweep can do.
        TypeError: for an unknown option.
        ValueError: for a bad value of an option, parameters that are not those of the circuit, observables on other
            qubits, or another number of weights.
        RuntimeError: for a device that cannot be used.
    """

    weight: nn.Parameter

    @checks_keywords(input_parameters="input_params", weight_parameters="weight_params")
    def __init__(
        self,
        circuit: QuantumCircuit | CompiledCircuit,
        observables: Any = None,
        input_params: Iterable[Parameter] = (),
        weight_params: Iterable[Parameter] = (),
        initial_weights: Any = None,
        *,
        options: FusedOptions | Mapping[str, Any] | None = None,
        **keywords: Unpack[FusedOptionsDict],
    ):
        super().__init__()
        says_dtype = "dtype" in keywords or isinstance(options, FusedOptions) or "dtype" in (options or {})
        options = FusedOptions.coerce(options, **keywords)
        check_device(options)
        expectations = Expectations(circuit, observables, input_params, weight_params, options)
        self._double = expectations if says_dtype else _with_dtype(expectations, "complex128")
        self._single = expectations if says_dtype else _with_dtype(expectations, "complex64")
        if is_by_name(initial_weights):
            initial_weights = ordered_values(initial_weights, expectations.parameters[1], "initial_weights")
        self._initial_weights = initial_weights
        self.weight = nn.Parameter(_empty_weights(initial_weights, expectations.num_weights))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Give the weights their initial values, new ones where these are random."""
        initial = self._initial_weights
        with torch.no_grad():
            if initial is None:
                nn.init.uniform_(self.weight, -1.0, 1.0)
            elif callable(initial):
                initial(self.weight)
            else:
                self.weight.copy_(torch.as_tensor(initial))

    def forward(self, inputs: Tensor | None = None, initial_states: Tensor | None = None) -> Tensor:
        """Return expectation values (..., K).

        Args:
            inputs: real (..., I), with any number of leading dimensions; may be left out where I is 0.
            initial_states: real or complex (..., 2^n), n the qubits of the circuit: what each row starts from in place
                of ``|0...0>``, normalised. Its leading dimensions are broadcast with those of the inputs.

        Raises:
            TypeError: for what is not a tensor, or complex inputs.
            ValueError: for shapes that do not fit, tensors on several devices, values that are not finite, or states
                that are not normalised; the text names the row.
            MemoryError: when a row does not fit the memory limit.
        """
        expectations = self._double if self.weight.dtype == torch.float64 else self._single
        inputs, initial_states, shape = self._broadcast(inputs, initial_states)
        values = expectation_values(expectations, self.weight, inputs, initial_states, shape)
        return values if len(shape) == 1 else values.reshape(*shape, expectations.num_observables)

    def _broadcast(self, inputs: Tensor | None, states: Tensor | None) -> tuple[Tensor, Tensor | None, tuple[int, ...]]:
        """Return inputs (B, I), states (B, 2^n) or None, and the leading dimensions before, whose product is B."""
        count = self._double.num_inputs
        if inputs is None:
            if count:
                raise TypeError(f"inputs are None; allowed: a tensor of shape (..., {count}).")
            inputs = self.weight.new_empty(0)
        for name, tensor in (("inputs", inputs), ("initial_states", states)):
            if tensor is not None:
                self._check(name, tensor)
        if inputs.is_complex():
            if bool((inputs.imag != 0).any()):
                raise TypeError("inputs are complex; allowed: real numbers, one for each input parameter.")
            inputs = inputs.real
        if inputs.shape[-1] != count:
            raise ValueError(f"inputs have shape {tuple(inputs.shape)}; allowed: (..., {count}).")
        shape = tuple(inputs.shape[:-1])
        if states is not None:
            try:
                shape = tuple(torch.broadcast_shapes(shape, states.shape[:-1]))
            except RuntimeError:
                raise ValueError(
                    f"initial_states of shape {tuple(states.shape)} do not go with inputs of shape "
                    f"{tuple(inputs.shape)}; allowed: (..., 2^n) whose leading dimensions broadcast with theirs."
                ) from None
            states = as_rows(states, shape)
        return as_rows(inputs, shape), states, shape

    def _check(self, name: str, tensor: Any) -> None:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, not {type(tensor).__name__}.")
        if tensor.device != self.weight.device:
            raise ValueError(
                f"{name} are on device '{tensor.device}', the weights on '{self.weight.device}'; "
                f"use layer.to('{tensor.device}')."
            )
        if not tensor.ndim:
            raise ValueError(f"{name} have shape (); allowed: at least one dimension.")

    def extra_repr(self) -> str:
        """Say what the module maps to what, for ``print(module)``."""
        expectations = self._double
        numbers = {name: getattr(expectations, name) for name in ("num_inputs", "num_observables", "num_weights")}
        options = self._single.options.changed() if self._single is expectations else {}
        return arguments_text(numbers | {"num_qubits": expectations.compiled.num_qubits} | options)


@torch.compiler.disable  # torch.compile cannot trace the engine's NumPy code, so a compiled model calls this function
def expectation_values(
    expectations: Expectations,
    weight: Tensor,
    inputs: Tensor,
    initial_states: Tensor | None = None,
    shape: tuple[int, ...] = (),
) -> Tensor:
    """Return expectation values (B, K) that autograd can differentiate once, of the dtype and device of the weights.

    Args:
        expectations: what to evaluate, in the number format of its options.
        weight: real (W,).
        inputs: real (B, I).
        initial_states: real or complex (B, 2^n), normalised, or None for ``|0...0>``.
        shape: the dimensions that the B rows were, for errors.

    Raises:
        TypeError: for something that is no `Expectations`, or weights or inputs that are no tensors.
        RuntimeError: inside a transform of ``torch.func``.
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


def _empty_weights(initial_weights: Any, count: int) -> Tensor:
    """Return a tensor (W,) without values, with the dtype and device of initial weights that are a float tensor."""
    if initial_weights is None or callable(initial_weights):
        return torch.empty(count)
    shape = tuple(np.shape(initial_weights))
    if shape != (count,):
        raise ValueError(f"initial_weights have shape {shape}; allowed: ({count},), one for each weight parameter.")
    if isinstance(initial_weights, Tensor) and initial_weights.is_floating_point():
        return torch.empty_like(initial_weights, requires_grad=False)
    return torch.empty(count)


def _with_dtype(expectations: Expectations, dtype: str) -> Expectations:
    result = copy(expectations)
    result.options = replace(expectations.options, dtype=dtype)
    return result
