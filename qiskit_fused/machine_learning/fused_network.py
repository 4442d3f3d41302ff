# SPDX-License-Identifier: Apache-2.0
"""`FusedNetwork`: what `FusedEstimatorQNN` and `FusedSamplerQNN` share.

Both networks are functions of inputs and weights with K outputs. They check their arguments in the same way, evaluate a
batch by one call, and have a vector-Jacobian product.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit_machine_learning.neural_networks import NeuralNetwork

from qiskit_fused.common.arrays import real_values
from qiskit_fused.common.display import arguments_text, shown_in_notebooks
from qiskit_fused.common.row_errors import indexed, renumbered, row_index
from qiskit_fused.common.text import count_text
from qiskit_fused.compilation.circuits import COMPILED, CompiledCircuit
from qiskit_fused.execution.arguments import listed, ordered_values
from qiskit_fused.execution.expectations import Expectations
from qiskit_fused.machine_learning.network_parameters import UserNames, check_parameters
from qiskit_fused.options.fused_options import FusedOptions


class FusedNetwork(NeuralNetwork):
    """A network whose forward pass is one batch, and whose backward pass is one batched Jacobian.

    A subclass is also a subclass of ``EstimatorQNN`` or ``SamplerQNN``, which it calls for circuits, primitives and
    gradients that the engines do not run. It defines the methods that raise ``NotImplementedError`` here.
    """

    gradient: Any
    _circuit: QuantumCircuit
    _org_circuit: QuantumCircuit
    _input_params: list[Parameter]
    _weight_params: list[Parameter]
    _expectations: Expectations | None = None  # the outputs as a function, made at its first use

    def _primitive_arguments(self) -> dict[str, Any]:
        """Return the arguments of the primitive that differ from the defaults, for ``repr``."""
        raise NotImplementedError

    def _gradient_options(self) -> FusedOptions | None:
        """Return the options of the fused gradient; None if another gradient computes the backward pass."""
        raise NotImplementedError

    def _gradient_name(self) -> str:
        """Return the name of the gradient that a vector-Jacobian product needs, for errors."""
        raise NotImplementedError

    def _outputs(self) -> Expectations | None:
        """Return the outputs as an exact function; None if the primitive computes them."""
        raise NotImplementedError

    def _make_function(self, compiled: CompiledCircuit, options: FusedOptions) -> Expectations:
        """Return the outputs as a new function."""
        raise NotImplementedError

    def _is_current(self, function: Expectations) -> bool:
        """Say whether a cached function has the outputs that the network has now."""
        return True

    def _check_circuit(self, circuit: QuantumCircuit) -> None:
        """Raise a ValueError for a circuit that does not fit the outputs."""

    def _as_output(self, array: np.ndarray) -> Any:
        """Return an array in the type in which ``forward`` and ``backward`` return it."""
        return array

    def _reparameterize_circuit(self, circuit: QuantumCircuit, *params: Any) -> QuantumCircuit:
        """Check the circuit, which the pass manager has transpiled, and return it with renamed parameters.

        Raises:
            ValueError: for parameters that are not in the circuit, or a circuit that does not fit the outputs.
        """
        check_parameters(circuit, self._input_params, self._weight_params)
        self._check_circuit(circuit)
        return super()._reparameterize_circuit(circuit, *params)

    def __repr__(self) -> str:
        outputs = prod(self._output_shape)
        counts = (self._circuit.num_qubits, "qubit"), (self._num_inputs, "input"), (self._num_weights, "weight")
        texts = [count_text(*count) for count in (*counts, (outputs, "output"))]
        texts.append(arguments_text(self._primitive_arguments()))
        return f"{type(self).__name__}({', '.join(filter(None, texts))})"

    _repr_html_ = shown_in_notebooks

    def _validate_input(self, input_data: Any) -> tuple[np.ndarray | None, tuple[int, ...] | None]:
        """Return inputs as rows (B, I), and the shape in which they came; (None, None) if they are None.

        Raises:
            ValueError: for None if the network has inputs.
        """
        if input_data is None:
            _check_absent("input_data", self._input_params, f"(..., {self._num_inputs})")
            return None, None
        array = ordered_values(input_data, self._input_params, "input_data")
        if (
            array.ndim > 2 and not array.size and array.shape[-1] == self._num_inputs
        ):  # the base class cannot reshape it
            return np.zeros((prod(array.shape[:-1]), self._num_inputs)), array.shape
        return super()._validate_input(array)

    def _validate_weights(self, weights: Any) -> np.ndarray | None:
        """Return weights (W,), or None if they are None.

        Raises:
            ValueError: for another number of weights, and for None if the network has weights.
        """
        if weights is None:
            _check_absent("weights", self._weight_params, f"({self._num_weights},)")
            return None
        array = ordered_values(weights, self._weight_params, "weights")
        if array.size != self._num_weights:
            raise ValueError(
                f"weights have shape {array.shape}; allowed: ({self._num_weights},), one for each of weight_params."
            )
        return np.array(array).reshape(self._num_weights)

    def _validate_backward_output(self, input_grad: Any, weight_grad: Any, original_shape: Any) -> tuple[Any, Any]:
        """Reshape gradients. For an empty batch, return empty arrays, where the base class returns None."""
        if not original_shape or 0 not in original_shape[:-1]:
            return super()._validate_backward_output(input_grad, weight_grad, original_shape)
        shape = *original_shape[:-1], *self._output_shape
        num_inputs = self._num_inputs if self._input_gradients else 0
        of_inputs, of_weights = (
            self._as_output(np.zeros((*shape, n))) if n else None for n in (num_inputs, self._num_weights)
        )
        return of_inputs, of_weights

    def forward(self, input_data: Any, weights: Any) -> Any:
        """Return the outputs ``f_k(x_b, w)`` of samples b by one forward sweep per sample.

        Args:
            input_data: real (..., I), in the order of ``input_params``, or a dict by their names; a number is one
                input.
            weights: real (W,), in the order of ``weight_params``, or a dict by their names.

        Returns:
            Outputs, float64 (..., K), and (1, K) for inputs (I,). An ``output_shape`` of several dimensions stands in
            the place of K.
        """
        with self._user_names(), renumbered(lambda row: row_index(row, np.shape(input_data)[:-1])):
            return super().forward(input_data, weights)

    def backward(self, input_data: Any, weights: Any) -> tuple[Any, Any]:
        """Return the derivatives of the outputs of samples b, by one backward sweep per sample and output.

        Args:
            input_data: the inputs, as ``forward`` takes them.
            weights: the weights, as ``forward`` takes them.

        Returns:
            ``df_k(x_b, w)/dx_i``, (..., K, I), None unless ``input_gradients``, and ``df_k(x_b, w)/dw_j``, (..., K, W).
        """
        with self._user_names(), renumbered(lambda row: row_index(row, np.shape(input_data)[:-1])):
            return super().backward(input_data, weights)

    def _user_names(self) -> UserNames:
        return UserNames(self._input_params, self._weight_params)

    def vjp(self, input_data: Any, weights: Any, cotangent: Any) -> tuple[np.ndarray | None, np.ndarray]:
        """Return the gradient of a loss L of all outputs, with respect to inputs and weights.

        With the cotangent ``g[b, k] = dL/df_k(x_b, w)``, this is ``dL/dx[b, i] = sum_k g[b, k] df_k(x_b, w)/dx_i`` and
        ``dL/dw[j] = sum_bk g[b, k] df_k(x_b, w)/dw_j``. A sample takes one forward and one backward sweep, for any
        number of outputs. No array of samples times weights is made.

        Args:
            input_data: the inputs, as ``forward`` takes them.
            weights: the weights, as ``forward`` takes them.
            cotangent: the derivative of the loss with respect to each output, in the shape of ``forward``'s result, or
                (K,) for a single sample. Or a function that maps all outputs, in the shape of ``forward``'s result, to
                this derivative, in the same shape; it is called once, and costs another forward sweep. All arrays are
                arrays of NumPy.

        Returns:
            ``dL/dx`` in the shape of the inputs, None unless ``input_gradients`` or without inputs; and ``dL/dw`` (W,).

        Raises:
            TypeError: if ``gradient`` is no fused gradient for real derivatives.
            UnsupportedInstruction: if the circuit has an instruction that the engines cannot run.
            ValueError: for a cotangent of another shape, or values that are not finite.
        """
        return self.value_and_vjp(input_data, weights, cotangent)[1:]

    def value_and_vjp(
        self, input_data: Any, weights: Any, cotangent: Any
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Return outputs and the gradient of a loss, by the same sweeps.

        >>> from qiskit_fused import FusedEstimatorQNN
        >>> circuit, x, w = QuantumCircuit(1), Parameter("x"), Parameter("w")
        >>> _ = circuit.ry(x + w, 0)
        >>> qnn = FusedEstimatorQNN(circuit=circuit, input_params=[x], weight_params=[w], input_gradients=True)
        >>> targets = np.array([[1.0], [0.0]])
        >>> slope = lambda outputs: 2 * (outputs - targets) / len(targets)  # the loss is the mean squared error
        >>> outputs, of_inputs, of_weights = qnn.value_and_vjp([[0.0], [0.5]], [0.5], slope)
        >>> outputs.round(3).tolist(), of_inputs.round(3).tolist(), of_weights.round(3).tolist()
        ([[0.878], [0.54]], [[0.059], [-0.455]], [-0.396])

        Args:
            input_data: the inputs, as ``forward`` takes them.
            weights: the weights, as ``forward`` takes them.
            cotangent: the derivative of the loss, as `vjp` takes it.

        Returns:
            The exact outputs in the shape of ``forward``'s result, and both gradients as `vjp` returns them.

        Raises:
            TypeError, UnsupportedInstruction, ValueError: as in `vjp`.
        """
        return self._value_and_vjp(input_data, weights, cotangent, self._input_gradients)

    def _value_and_vjp(
        self, input_data: Any, weights: Any, cotangent: Any, input_gradients: bool, weight_gradients: bool = True
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        options = self._gradient_options()
        if options is None:
            raise TypeError(
                f"vjp needs a {self._gradient_name()}, and gradient is {self.gradient!r}; leave gradient out, or use "
                "backward."
            )
        inputs, shape = self._validate_input(input_data)
        inputs, weights = as_arrays(inputs, self._validate_weights(weights))
        cotangent = _rows_of(cotangent, inputs, shape, self._output_shape)
        with self._user_names(), indexed((shape or ())[:-1]):
            vjp = self._function(options).value_and_vjp(
                inputs, weights, cotangent, input_gradients=input_gradients, weight_gradients=weight_gradients
            )
        of_inputs = vjp.inputs.reshape(shape) if vjp.inputs is not None and self._num_inputs else None
        return self._validate_forward_output(self._shaped(vjp.values), shape), of_inputs, vjp.weights

    def _shaped(self, array: np.ndarray) -> np.ndarray:
        """Return an array (B, K, ...) in the shape (B, *output_shape, ...)."""
        return array.reshape(len(array), *self._output_shape, *array.shape[2:])

    def _forward(self, input_data: np.ndarray | None, weights: np.ndarray | None) -> Any:
        function = self._outputs()
        if function is None:
            if input_data is not None and not len(input_data):
                return self._as_output(np.zeros((0, *self._output_shape)))
            return super()._forward(input_data, weights)
        return self._as_output(self._shaped(function.values(*as_arrays(input_data, weights))))

    def _differentiated_outputs(self) -> Expectations | None:
        """Return the outputs as a function that the gradient differentiates; None if the gradient is not fused."""
        options = self._gradient_options()
        return None if options is None else self._function(options)

    def _backward(self, input_data: np.ndarray | None, weights: np.ndarray | None) -> tuple[Any, Any]:
        if input_data is not None and not len(input_data):
            return None, None
        options = self._gradient_options()
        if options is None:
            return super()._backward(input_data, weights)
        if not (self._num_weights or (self._num_inputs and self._input_gradients)):
            return None, None
        _, of_inputs, of_weights = self._function(options).value_and_jacobian(
            *as_arrays(input_data, weights), input_gradients=self._input_gradients
        )
        return (
            None if of_inputs is None else self._as_output(self._shaped(of_inputs)),
            self._as_output(self._shaped(of_weights)),
        )

    def _function(self, options: FusedOptions) -> Expectations:
        """Return the outputs as a function. The function is cached until the options, circuit or outputs change."""
        function, compiled = self._expectations, self._compiled()
        if (
            function is None
            or function.options is not options
            or function.compiled is not compiled
            or not self._is_current(function)
        ):
            function = self._expectations = self._make_function(compiled, options)
        return function

    def _compiled(self) -> CompiledCircuit:
        """Return the compiled circuit. Nobody but the network holds a copy of a circuit, so it is not compared."""
        function = self._expectations
        if (
            function is not None
            and self._circuit is not self._org_circuit
            and function.compiled._describes_copy(self._circuit)
        ):
            return function.compiled
        return COMPILED.get(self._circuit)

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes to pickle, without the function of the outputs and its compiled circuit."""
        return {name: value for name, value in self.__dict__.items() if name != "_expectations"}


def _check_absent(argument: str, parameters: Sequence[Parameter], shape: str) -> None:
    """Raise a ValueError for an argument that is None although the network has parameters for its values."""
    if parameters:
        names = listed([parameter.name for parameter in parameters])
        raise ValueError(f"{argument} is None; allowed: an array {shape} of values of {names}, or values by name.")


def as_arrays(inputs: np.ndarray | None, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs (B, I) and weights (W,) as arrays. A network without inputs has one row."""
    return np.zeros((1, 0)) if inputs is None else inputs, np.zeros(0) if weights is None else weights


def _rows_of(cotangent: Any, inputs: np.ndarray, shape: tuple[int, ...] | None, output_shape: tuple[int, ...]) -> Any:
    """Return cotangents (B, K), or the function that maps values (B, K) to cotangents (B, K).

    Args:
        cotangent: an array of the shape of the outputs, or a function of the outputs.
        inputs: (B, I).
        shape: the shape of the inputs before they became rows.
        output_shape: the shape of the K outputs.

    Raises:
        ValueError: for an array of another shape.
    """
    samples = shape[:-1] if shape is not None and len(shape) >= 2 else (1,)
    if callable(cotangent):
        if len(samples) == len(output_shape) == 1:
            return cotangent
        whole = *samples, *output_shape
        return lambda values: _rows_of(cotangent(values.reshape(whole)), inputs, shape, output_shape)
    array = real_values(cotangent, "cotangent", "output of each sample")
    allowed = [(*samples, *output_shape)] + [output_shape] * (samples == (1,))
    if array.shape not in allowed:
        raise ValueError(f"cotangent has shape {array.shape}; allowed: {' or '.join(map(str, allowed))}.")
    return array.reshape(len(inputs), prod(output_shape))
