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

    For inputs x (I,) and weights w (W,), value k is ``E_k(x, w) = <0|U(x, w)^+ O_k U(x, w)|0>``: U is the circuit,
    ``U^+`` its adjoint, ``|0>`` the state of all qubits in 0 (or an initial state), and O_k the k-th observable. A
    backward pass computes the vector-Jacobian products ``sum_k g[b, k] dE_k(x_b, w)/dx_i`` of each row b and
    ``sum_bk g[b, k] dE_k(x_b, w)/dw_j``, where g is the gradient of the loss with respect to the values. There are no
    second derivatives.

    The weights are one Parameter, ``weight`` (W,). Gradients of the inputs, and of initial states, are computed only if
    autograd asks for them. The circuit is compiled when the module is made, and later changes of it do not count.
    Observables are read in each forward pass: a change in place counts from the next pass on.

    ``weight.dtype`` decides the number format, unless an option does: amplitudes are complex128 if it is float64
    (``layer.double()``), else complex64. Values have the dtype and the device of ``weight``.

    The ``device`` option alone says where the sweeps run. A float64 tensor (complex128 for states) in CPU memory is
    shared with the engine on the CPU; a tensor of another dtype is converted, because angles are float64 in all
    engines. A tensor on the GPU on which the sweeps run goes to the engine through DLPack, in torch's current stream,
    and its values and gradients come back the same way, without a copy through the host. (Tested with an emulated
    device; this has not run on a GPU yet.) GPU tensors are copied through CPU memory if the sweeps run on the CPU, if
    an executor shares the rows, if parameters are amplitudes, if an angle is not affine in one parameter, or if parts
    of the circuit are simulated once for all rows.

    >>> circuit, x, w = QuantumCircuit(1), Parameter("x"), Parameter("w")
    >>> _ = circuit.ry(x + w, 0)
    >>> layer = FusedLayer(circuit, ["Z", "X"], [x], [w], initial_weights=[0.5])
    >>> values = layer(torch.tensor([[0.0], [0.5]]))
    >>> values.shape
    torch.Size([2, 2])
    >>> values.sum().backward()
    >>> round(layer.weight.grad.item(), 3)
    0.097

    Args:
        circuit: the circuit, or the result of `compile_circuit`.
        observables: one observable or a list of K; None is Z on all qubits.
        input_params: the I parameters of the circuit whose values are the inputs, in the order of the inputs.
        weight_params: the W parameters of the circuit whose values are the weights, in the order of the weights. Each
            parameter of the circuit is one input or one weight. ``input_parameters`` and ``weight_parameters``, the
            former names of both arguments, still work, with a FutureWarning.
        initial_weights: W numbers; a dict of numbers by the names of their parameters; or a function that fills a
            tensor in place, as the functions of ``torch.nn.init`` do. A tensor keeps its dtype and device; other
            numbers become the default dtype. None is uniform in [-1, 1), as in ``TorchConnector``.
        options: `FusedOptions`, which decide the number format too, or a mapping; copied.
        keywords: single options, which override ``options``.

    Raises:
        UnsupportedInstruction: if the circuit has an instruction that no engine can simulate.
        TypeError: for an unknown option.
        ValueError: for a bad value of an option, a parameter that is not in the circuit, a parameter of the circuit
            that is neither input nor weight, observables on another number of qubits, or another number of weights.
        RuntimeError: for a device that cannot be used.

    Cost: a row takes one forward sweep in a forward pass, and one forward and one adjoint sweep in a backward pass, for
    any number of observables. Memory does not depend on the number of rows times the number of weights.

    Source: adjoint differentiation, arXiv:2009.02823; gates fused in both directions, arXiv:2603.02804.
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
        """Give the weights their initial values. Random initial values are drawn anew."""
        initial = self._initial_weights
        with torch.no_grad():
            if initial is None:
                nn.init.uniform_(self.weight, -1.0, 1.0)
            elif callable(initial):
                initial(self.weight)
            else:
                self.weight.copy_(torch.as_tensor(initial))

    def forward(self, inputs: Tensor | None = None, initial_states: Tensor | None = None) -> Tensor:
        """Return expectation values (..., K), of the dtype and device of ``weight``.

        Args:
            inputs: real (..., I), with any number of leading dimensions; may be left out if I is 0.
            initial_states: real or complex (..., 2^n), n the number of qubits of the circuit: the state of norm 1 in
                which each row starts instead of ``|0...0>``. Its leading dimensions are broadcast with the leading
                dimensions of ``inputs``.

        Raises:
            TypeError: for an argument that is no tensor, or complex inputs.
            ValueError: for shapes that do not fit, tensors on several devices, values that are not finite, or states
                whose norm is not 1; the text names the row.
            MemoryError: if a row does not fit the memory limit.
            RuntimeError: inside a transform of ``torch.func``.
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
        """Return the numbers of inputs, observables, weights and qubits as text, for ``print(module)``."""
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
    """Return expectation values that autograd can differentiate once, of the dtype and device of the weights.

    Value k of row b is ``E_k(x_b, w)``, as in `FusedLayer`. This function suits modules of your own.

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
