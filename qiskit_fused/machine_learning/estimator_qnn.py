# SPDX-License-Identifier: Apache-2.0
"""`FusedEstimatorQNN`: qiskit-machine-learning's `EstimatorQNN` in one batch per pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.primitives import BaseEstimatorV2
from qiskit_machine_learning.gradients import BaseEstimatorGradient
from qiskit_machine_learning.neural_networks import EstimatorQNN

from qiskit_fused.common.arrays import real_values
from qiskit_fused.common.display import arguments_text
from qiskit_fused.common.row_errors import indexed, renumbered, row_index
from qiskit_fused.common.text import count_text
from qiskit_fused.compilation.circuits import COMPILED, CompiledCircuit
from qiskit_fused.compilation.observables import as_list, circuit_observables, coerce_observables
from qiskit_fused.execution.arguments import listed, ordered_values
from qiskit_fused.execution.expectations import Expectations
from qiskit_fused.lowering.errors import UnsupportedInstruction
from qiskit_fused.machine_learning.network_parameters import UserNames, as_parameters, check_parameters
from qiskit_fused.options.fused_options import FusedOptions, NetworkOptionsDict, Unpack
from qiskit_fused.options.keywords import checks_keywords
from qiskit_fused.primitives.estimator import FusedEstimator
from qiskit_fused.primitives.estimator_gradient import FusedEstimatorGradient


class FusedEstimatorQNN(EstimatorQNN):
    """An ``EstimatorQNN`` whose forward pass is one batch, and whose backward pass is one batched Jacobian.

    Output k for the inputs x (I,) of a sample and the weights w (W,) is ``f_k(x, w) = <0|U(x, w)^+ O_k U(x, w)|0>``: U
    is the circuit, ``U^+`` its adjoint, ``|0>`` the state of all qubits in 0, and O_k the k-th of K observables.
    Outputs and gradients have the values and shapes of ``EstimatorQNN``, and gradients are exact. Classes that take an
    ``EstimatorQNN``, such as ``NeuralNetworkClassifier`` and ``TorchConnector``, take this network too. `vjp` and
    `value_and_vjp` compute the gradient of a loss by one adjoint sweep for all outputs, without the Jacobian.

    Outputs are exact too, unless the estimator emulates noise (``precision_mode="emulate"``) of the size
    ``default_precision``. A circuit that the engines cannot run goes to ``StatevectorEstimator``, as in
    `FusedEstimator`, and has no gradients. If an observable is changed in place, the results change from the next call
    on. A circuit with parameters is copied.

    >>> from qiskit import QuantumCircuit
    >>> from qiskit.circuit import Parameter
    >>> circuit, x, w = QuantumCircuit(1), Parameter("x"), Parameter("w")
    >>> _ = circuit.ry(x + w, 0)
    >>> qnn = FusedEstimatorQNN(circuit=circuit, input_params=[x], weight_params=[w])
    >>> qnn.forward([[0.0], [0.5]], [0.0]).round(3).tolist()
    [[1.0], [0.878]]

    Args:
        circuit: the circuit, with inputs and weights as its parameters, or the result of `compile_circuit`.
        estimator: a `FusedEstimator`; None makes one.
        observables: one observable, such as ``"ZZI"``, a ``Pauli``, ``SparsePauliOp``, ``SparseObservable`` or dict of
            labels and coefficients, or a list of K of them, the outputs; None is ``Z`` on all qubits.
        input_params: the I parameters whose values differ between samples.
        weight_params: the W trainable parameters, whose values all samples share.
        gradient: the gradient for the backward pass; None is a `FusedEstimatorGradient` with the estimator's options.
            Any other gradient is used as ``EstimatorQNN`` uses it, and the network then has no `vjp`.
        input_gradients: whether gradients with respect to the inputs are computed.
        default_precision: standard deviation of the noise, if noise is emulated.
        pass_manager: transpiles the circuit; not needed here.
        options: `FusedOptions` or a mapping, for the estimator that is made.
        keywords: single options, which override the estimator's options and ``options``.

    Raises:
        TypeError: for an estimator that is no `FusedEstimator`, for ``options`` beside an estimator, or an unknown
            option.
        ValueError: for a bad value of an option, or parameters that are not in the circuit.
    """

    _expectations: Expectations | None = None  # the outputs as a function, made at its first use

    @checks_keywords()
    def __init__(
        self,
        *,
        circuit: QuantumCircuit | CompiledCircuit,
        estimator: BaseEstimatorV2 | None = None,
        observables: Any = None,
        input_params: Sequence[Parameter] | None = None,
        weight_params: Sequence[Parameter] | None = None,
        gradient: BaseEstimatorGradient | None = None,
        input_gradients: bool = False,
        default_precision: float = 0.015625,
        pass_manager: Any = None,
        options: FusedOptions | Mapping[str, Any] | None = None,
        **keywords: Unpack[NetworkOptionsDict],
    ):
        if estimator is not None and not isinstance(estimator, FusedEstimator):
            raise TypeError(
                f"estimator must be a FusedEstimator or None, not {type(estimator).__name__}; "
                "EstimatorQNN takes any estimator, and accelerate(qnn) replaces a simulator."
            )
        if estimator is not None and options is not None:
            raise TypeError("options were given beside an estimator, which has its own; give one of both.")
        if isinstance(circuit, CompiledCircuit):
            circuit = circuit.circuit
        if estimator is None or keywords:
            estimator = FusedEstimator(options=options if estimator is None else estimator.options, **keywords)
        super().__init__(
            circuit=circuit,
            estimator=estimator,
            observables=as_list(observables),
            input_params=as_parameters(input_params),
            weight_params=as_parameters(weight_params),
            gradient=FusedEstimatorGradient(estimator) if gradient is None else gradient,
            input_gradients=input_gradients,
            default_precision=default_precision,
            pass_manager=pass_manager,
        )

    def _reparameterize_circuit(self, circuit: QuantumCircuit, *params: Any) -> QuantumCircuit:
        """Check the circuit, which the pass manager has transpiled, and return it with renamed parameters.

        Raises:
            ValueError: for parameters that are not in the circuit, or observables on another number of qubits.
        """
        check_parameters(circuit, self._input_params, self._weight_params)
        circuit_observables(self._observables, circuit.num_qubits)
        return super()._reparameterize_circuit(circuit, *params)

    def __repr__(self) -> str:
        outputs = prod(self._output_shape)
        counts = (self._circuit.num_qubits, "qubit"), (self._num_inputs, "input"), (self._num_weights, "weight")
        texts = [count_text(*count) for count in (*counts, (outputs, "output"))]
        options = getattr(self.estimator, "options", None)
        if isinstance(options, FusedOptions):
            texts.append(arguments_text(options.changed()))
        return f"{type(self).__name__}({', '.join(filter(None, texts))})"

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
        of_inputs, of_weights = (np.zeros((*shape, n)) if n else None for n in (num_inputs, self._num_weights))
        return of_inputs, of_weights

    def forward(self, input_data: Any, weights: Any) -> Any:
        """Return the outputs ``f_k(x_b, w)`` of samples b by one forward sweep per sample.

        Args:
            input_data: real (..., I), in the order of ``input_params``, or a dict by their names; a number is one
                input.
            weights: real (W,), in the order of ``weight_params``, or a dict by their names.

        Returns:
            Outputs, float64 (..., K), and (1, K) for inputs (I,).
        """
        with self._user_names(), renumbered(lambda row: row_index(row, np.shape(input_data)[:-1])):
            return super().forward(input_data, weights)

    def backward(self, input_data: Any, weights: Any) -> tuple[Any, Any]:
        """Return the derivatives of the outputs of samples b, by one adjoint sweep per sample and output.

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
        ``dL/dw[j] = sum_bk g[b, k] df_k(x_b, w)/dw_j``. A sample takes one forward and one adjoint sweep, for any
        number of outputs. No array of samples times weights is made.

        Args:
            input_data: the inputs, as ``forward`` takes them.
            weights: the weights, as ``forward`` takes them.
            cotangent: the derivative of the loss with respect to each output, in the shape of ``forward``'s result, or
                (K,) for a single sample. Or a function that maps all outputs, in the shape of ``forward``'s result, to
                this derivative, in the same shape; it is called once, and costs another forward sweep.

        Returns:
            ``dL/dx`` in the shape of the inputs, None unless ``input_gradients`` or without inputs; and ``dL/dw`` (W,).

        Raises:
            TypeError: if ``gradient`` is no `FusedEstimatorGradient` for real derivatives.
            UnsupportedInstruction: if the circuit has an instruction that the engines cannot run.
            ValueError: for a cotangent of another shape, or values that are not finite.
        """
        return self.value_and_vjp(input_data, weights, cotangent)[1:]

    def value_and_vjp(
        self, input_data: Any, weights: Any, cotangent: Any
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Return outputs and the gradient of a loss, by the same sweeps.

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
        options = _options_of(self.gradient)
        if options is None:
            raise TypeError(
                f"vjp needs a FusedEstimatorGradient for real derivatives, and gradient is {self.gradient!r}; "
                "leave gradient out, or use backward."
            )
        inputs, shape = self._validate_input(input_data)
        inputs, weights = _arrays(inputs, self._validate_weights(weights))
        cotangent = _rows_of(cotangent, inputs, shape, self._output_shape)
        with self._user_names(), indexed((shape or ())[:-1]):
            vjp = self._function(options).value_and_vjp(
                inputs, weights, cotangent, input_gradients=input_gradients, weight_gradients=weight_gradients
            )
        of_inputs = vjp.inputs.reshape(shape) if vjp.inputs is not None and self._num_inputs else None
        return self._validate_forward_output(vjp.values, shape), of_inputs, vjp.weights

    def _forward(self, input_data: np.ndarray | None, weights: np.ndarray | None) -> np.ndarray | None:
        function = self._outputs()
        if function is None:
            if input_data is not None and not len(input_data):
                return np.zeros((0, *self._output_shape))
            return super()._forward(input_data, weights)
        return function.values(*_arrays(input_data, weights))

    def _outputs(self) -> Expectations | None:
        """Return the outputs as an exact function; None if the estimator adds noise, or is not a `FusedEstimator`."""
        estimator = self.estimator
        if type(estimator).run is not FusedEstimator.run or (
            estimator.options.adds_noise and self._default_precision != 0
        ):
            return None
        try:
            return self._function(estimator.options)
        except UnsupportedInstruction:
            return None  # the base class then calls the estimator, which warns and falls back, or raises this error

    def _differentiated_outputs(self) -> Expectations | None:
        """Return the outputs as a function that the gradient differentiates; None if the gradient is not fused."""
        options = _options_of(self.gradient)
        return None if options is None else self._function(options)

    def _backward(
        self, input_data: np.ndarray | None, weights: np.ndarray | None
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        if input_data is not None and not len(input_data):
            return None, None
        options = _options_of(self.gradient)
        if options is None:
            return super()._backward(input_data, weights)
        if not (self._num_weights or (self._num_inputs and self._input_gradients)):
            return None, None
        _, of_inputs, of_weights = self._function(options).value_and_jacobian(
            *_arrays(input_data, weights), input_gradients=self._input_gradients
        )
        return of_inputs, of_weights

    def _function(self, options: FusedOptions) -> Expectations:
        """Return the outputs as a function. The function is cached until the options or the circuit change."""
        function, compiled = self._expectations, None
        if (
            function is not None
            and self._circuit is not self._org_circuit
            and function.compiled._describes_copy(self._circuit)
        ):
            compiled = function.compiled
        compiled = compiled or COMPILED.get(self._circuit)
        if function is None or function.options is not options or function.compiled is not compiled:
            function = self._expectations = make_function(self, self._observables, compiled, options)
        return function

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes to pickle, without the function of the outputs and its compiled circuit."""
        return {name: value for name, value in self.__dict__.items() if name != "_expectations"}


def make_function(network: Any, observables: Any, compiled: CompiledCircuit, options: FusedOptions) -> Expectations:
    """Return the outputs of an ``EstimatorQNN`` as a function of its inputs and weights.

    Args:
        network: the network.
        observables: its observables, one for each output.
        compiled: its compiled circuit.
        options: the options of the function.

    Raises:
        ValueError: for an output that is not a single observable.
    """
    if not isinstance(observables, (list, tuple)):  # `EstimatorQNN` accepts any iterable of observables
        observables = list(observables)
    for position, observable in enumerate(observables):
        count = coerce_observables(observable).operators.num_observables
        if count != 1:
            raise ValueError(f"each output is one observable; observables[{position}] holds {count}.")
    # in the renamed circuit, "inputs[i]" come before "weights[j]"
    inputs, weights = compiled.parameters[: network.num_inputs], compiled.parameters[network.num_inputs :]
    return Expectations(compiled, observables, inputs, weights, options)


def _check_absent(argument: str, parameters: Sequence[Parameter], shape: str) -> None:
    """Raise a ValueError for an argument that is None although the network has parameters for its values."""
    if parameters:
        names = listed([parameter.name for parameter in parameters])
        raise ValueError(f"{argument} is None; allowed: an array {shape} of values of {names}, or values by name.")


def _options_of(gradient: Any) -> FusedOptions | None:
    """Return the options of a `FusedEstimatorGradient` for real derivatives; None for any other gradient."""
    if isinstance(gradient, FusedEstimatorGradient) and gradient.derivative_type.name == "REAL":
        return gradient.fused_options
    return None


def _arrays(inputs: np.ndarray | None, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs (B, I) and weights (W,) as arrays. A network without inputs has one row."""
    return np.zeros((1, 0)) if inputs is None else inputs, np.zeros(0) if weights is None else weights


def _rows_of(cotangent: Any, inputs: np.ndarray, shape: tuple[int, ...] | None, output_shape: tuple[int, ...]) -> Any:
    """Return cotangents (B, K), or the function that maps values (B, K) to cotangents (B, K).

    Args:
        cotangent: an array of the shape of the outputs, or a function of the outputs.
        inputs: (B, I).
        shape: the shape of the inputs before they became rows.
        output_shape: (K,).

    Raises:
        ValueError: for an array of another shape.
    """
    samples = shape[:-1] if shape is not None and len(shape) >= 2 else (1,)
    if callable(cotangent):
        if len(samples) == 1:
            return cotangent
        whole = *samples, *output_shape
        return lambda values: _rows_of(cotangent(values.reshape(whole)), inputs, shape, output_shape)
    array = real_values(cotangent, "cotangent", "output of each sample")
    allowed = [(*samples, *output_shape)] + [output_shape] * (samples == (1,))
    if array.shape not in allowed:
        raise ValueError(f"cotangent has shape {array.shape}; allowed: {' or '.join(map(str, allowed))}.")
    return array.reshape(len(inputs), *output_shape)
