# SPDX-License-Identifier: Apache-2.0
"""The base classes of all layers: the weights of a circuit as a Parameter, and its values as a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from qiskit.circuit import Parameter, QuantumCircuit
from torch import Tensor, nn

from qiskit_fused.common.arrays import real_values
from qiskit_fused.common.display import arguments_text, shown_in_notebooks
from qiskit_fused.common.row_errors import indexed, renumbered
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.execution.arguments import is_by_name, ordered_values
from qiskit_fused.execution.devices import check_device
from qiskit_fused.execution.expectations import Expectations
from qiskit_fused.options.fused_options import FusedOptions
from qiskit_fused.torch.conversion import as_rows
from qiskit_fused.torch.functions import expectation_values
from qiskit_fused.torch.lines import bandwidth_along

ALWAYS_EXACT = "a layer is always exact, so leave it out"  # the cure of keywords about shots and noise


class InputDerivatives(NamedTuple):
    """Values of a layer, and their derivatives with respect to single inputs.

    Attributes:
        values: (..., K).
        first: (..., K, I), ``dE_k/dx_i``.
        second: (..., K, I), ``d^2E_k/dx_i^2``.
    """

    values: Tensor
    first: Tensor
    second: Tensor


class WeightedModule(nn.Module):
    """A module that evaluates a function of inputs and weights, whose weights are one Parameter.

    Args:
        make_function: makes the function with the given options.
        initial_weights: see `FusedLayer`.
        options: `FusedOptions` or a mapping.
        keywords: single options by name, which override ``options``.
    """

    weight: nn.Parameter

    def __init__(
        self,
        make_function: Callable[[FusedOptions], Any],
        initial_weights: Any,
        options: FusedOptions | Mapping[str, Any] | None,
        keywords: Mapping[str, Any],
    ):
        super().__init__()
        says_dtype = "dtype" in keywords or isinstance(options, FusedOptions) or "dtype" in (options or {})
        options = FusedOptions.coerce(options, **keywords)
        check_device(options)
        function = make_function(options)
        self._double = function if says_dtype else _with_dtype(function, "complex128")
        self._single = function if says_dtype else _with_dtype(function, "complex64")
        if is_by_name(initial_weights):
            initial_weights = ordered_values(initial_weights, function.parameters[1], "initial_weights")
        elif not (initial_weights is None or callable(initial_weights) or _is_real_tensor(initial_weights)):
            initial_weights = real_values(initial_weights, "initial_weights", "weight parameter")
        self._initial_weights = initial_weights
        self.weight = nn.Parameter(_empty_weights(initial_weights, function.num_weights))
        self.reset_parameters()

    @property
    def _function(self) -> Any:
        """The function in the number format for the dtype of the weights."""
        return self._double if self.weight.dtype == torch.float64 else self._single

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

    def _check(self, name: str, tensor: Any) -> None:
        """Check that an argument is a tensor with dimensions on the device of the weights."""
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, not {type(tensor).__name__}.")
        if tensor.device != self.weight.device:
            raise ValueError(
                f"{name} are on device '{tensor.device}', the weights on '{self.weight.device}'; "
                f"use layer.to('{tensor.device}')."
            )
        if not tensor.ndim:
            raise ValueError(f"{name} have shape (); allowed: at least one dimension.")

    def _checked_inputs(self, name: str, tensor: Any) -> Tensor:
        """Return inputs (..., I) as real numbers, checked."""
        self._check(name, tensor)
        if tensor.is_complex():
            if bool((tensor.imag != 0).any()):
                raise TypeError(f"{name} are complex; allowed: real numbers, one for each input parameter.")
            tensor = tensor.real
        return tensor

    def _shown_shape(self) -> dict[str, Any]:
        """Return the shape of the values as ``print(module)`` shows it, by its name."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Return the numbers of inputs, values, weights and qubits as text, for ``print(module)``."""
        function = self._double
        options = self._single.options.changed() if self._single is function else {}
        weights_and_qubits = {"num_weights": function.num_weights, "num_qubits": function.compiled.num_qubits}
        return arguments_text({"num_inputs": function.num_inputs} | self._shown_shape() | weights_and_qubits | options)

    _repr_html_ = shown_in_notebooks


class BaseLayer(WeightedModule):
    """A module that evaluates `Expectations`.

    A subclass decides which values these are, and which shape the values of a row have.

    Args:
        circuit: the circuit, or the result of `compile_circuit`.
        observables: see `Expectations`.
        input_params: the parameters whose values are the inputs.
        weight_params: the parameters whose values are the weights.
        initial_weights: see `FusedLayer`.
        options: `FusedOptions` or a mapping.
        keywords: single options by name, which override ``options``.
    """

    def __init__(
        self,
        circuit: QuantumCircuit | CompiledCircuit,
        observables: Any,
        input_params: Iterable[Parameter],
        weight_params: Iterable[Parameter],
        initial_weights: Any,
        options: FusedOptions | Mapping[str, Any] | None,
        keywords: Mapping[str, Any],
    ):
        def make_function(options: FusedOptions) -> Expectations:
            return Expectations(circuit, observables, input_params, weight_params, options)

        super().__init__(make_function, initial_weights, options, keywords)

    def _value_shape(self) -> tuple[int, ...]:
        """Return the shape of the values of one row."""
        raise NotImplementedError

    def forward(self, inputs: Tensor | None = None, initial_states: Tensor | None = None) -> Tensor:
        """Return values of the dtype and device of ``weight``.

        A `FusedLayer` returns expectation values (..., K), and a `FusedProbabilityLayer` returns probabilities ``(...,
        *output_shape)``.

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
            RuntimeError: in a backward pass, for a fourth derivative, or a second derivative of initial states.
        """
        inputs, initial_states, shape = self._broadcast(inputs, initial_states)
        values = expectation_values(self._function, self.weight, inputs, initial_states, shape)
        shape += self._value_shape()
        return values if values.shape == shape else values.reshape(shape)

    def input_derivatives(self, inputs: Tensor) -> InputDerivatives:
        """Return values, and their first and second derivatives with respect to each input.

        The derivatives are sums of values at shifted inputs, so a loss of them is differentiated by one backward sweep
        for each shifted row: this is the fast way to train a network on a differential equation. The results can be
        differentiated like values. Mixed second derivatives come from ``torch.autograd.grad``.

        >>> from qiskit_fused.torch import FusedLayer
        >>> circuit, x, w = QuantumCircuit(1), Parameter("x"), Parameter("w")
        >>> _ = circuit.ry(x + w, 0)
        >>> layer = FusedLayer(circuit, "Z", [x], [w], initial_weights=torch.tensor([0.5], dtype=torch.float64))
        >>> u, u_x, u_xx = layer.input_derivatives(torch.tensor([[0.0]], dtype=torch.float64))
        >>> round(u.item(), 3), round(u_x.item(), 3), round(u_xx.item(), 3)
        (0.878, -0.479, -0.878)

        Args:
            inputs: real (..., I).

        Returns:
            An `InputDerivatives` of values (..., K) and derivatives (..., K, I), of the dtype of ``weight``. A
            `FusedProbabilityLayer` has ``*output_shape`` in the place of K.

        Raises:
            TypeError, ValueError, MemoryError, RuntimeError: as a forward pass.

        Cost: the row itself, and for each input two rows if it is the angle of one gate with two eigenvalues, times a
        number, else four rows. The derivatives by two rows are exact. By four rows, their relative error is about 1e-9
        in complex128 and 1e-4 in complex64.
        """
        inputs, _, shape = self._broadcast(inputs, None)
        function, count = self._function, inputs.shape[1]
        steps, first, second, along = (torch.from_numpy(part).to(inputs.device) for part in function.input_rules())
        weight, inputs = self.weight.to(torch.float64), inputs.to(torch.float64)
        with indexed(shape), renumbered(lambda row: row // len(along)):
            scale = _scales(function, weight, inputs, along)
        rows = (inputs[:, None] + steps / scale[:, None]).flatten(0, 1)
        with indexed(shape), renumbered(lambda row: row // len(steps)):
            values = expectation_values(function, weight, rows).unflatten(0, (len(inputs), len(steps)))
        results = (
            values[:, 0],
            torch.einsum("brk,ri->bki", values, first) * scale[:, None],
            torch.einsum("brk,ri->bki", values, second) * scale[:, None] ** 2,
        )
        shapes = shape + self._value_shape(), shape + self._value_shape() + (count,)
        return InputDerivatives(
            *(part.to(self.weight.dtype).reshape(shapes[number > 0]) for number, part in enumerate(results))
        )

    def _broadcast(self, inputs: Tensor | None, states: Tensor | None) -> tuple[Tensor, Tensor | None, tuple[int, ...]]:
        """Return inputs (B, I), states (B, 2^n) or None, and the leading dimensions before, whose product is B."""
        count = self._double.num_inputs
        if inputs is None:
            if count:
                raise TypeError(f"inputs are None; allowed: a tensor of shape (..., {count}).")
            inputs = self.weight.new_empty(0)
        inputs = self._checked_inputs("inputs", inputs)
        if states is not None:
            self._check("initial_states", states)
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


def _is_real_tensor(values: Any) -> bool:
    return isinstance(values, Tensor) and not values.is_complex()


def _scales(function: Expectations, weight: Tensor, inputs: Tensor, along: Tensor) -> Tensor:
    """Return the scales of `InputRules`, float64 (B, I), for rows of inputs (B, I) and unit vectors (D, I)."""
    if not len(along):
        return torch.ones_like(inputs)
    shape = len(inputs), *along.shape
    rows = [part.expand(shape).flatten(0, 1) for part in (inputs[:, None], along)]
    found = bandwidth_along(function.function, (weight, rows[0]), (None, rows[1])).reshape(shape[:2])
    return 1 - along.sum(0) + torch.where(found > 0, found, 1.0) @ along


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


def _with_dtype(function: Any, dtype: str) -> Any:
    result = copy(function)
    result.options = replace(function.options, dtype=dtype)
    return result
