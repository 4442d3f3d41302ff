# SPDX-License-Identifier: Apache-2.0
"""`FusedEstimatorQNN`: qiskit-machine-learning's `EstimatorQNN` in one batch per pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.primitives import BaseEstimatorV2
from qiskit_machine_learning.gradients import BaseEstimatorGradient
from qiskit_machine_learning.neural_networks import EstimatorQNN

from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.compilation.observables import as_list, circuit_observables, coerce_observables, given_observables
from qiskit_fused.execution.expectations import Expectations
from qiskit_fused.lowering.errors import UnsupportedInstruction
from qiskit_fused.machine_learning.fused_network import FusedNetwork
from qiskit_fused.machine_learning.network_parameters import as_parameters
from qiskit_fused.options.fused_options import FusedOptions, NetworkOptionsDict, Unpack
from qiskit_fused.options.keywords import checks_keywords
from qiskit_fused.primitives.estimator import FusedEstimator
from qiskit_fused.primitives.estimator_gradient import FusedEstimatorGradient


class FusedEstimatorQNN(FusedNetwork, EstimatorQNN):
    """An ``EstimatorQNN`` whose forward pass is one batch, and whose backward pass is one batched Jacobian.

    Output k for the inputs x (I,) of a sample and the weights w (W,) is ``f_k(x, w) = <0|U(x, w)^+ O_k U(x, w)|0>``: U
    is the circuit, ``U^+`` its adjoint, ``|0>`` the state of all qubits in 0, and O_k the k-th of K observables.
    Outputs and gradients have the values and shapes of ``EstimatorQNN``, and gradients are exact. Classes that take an
    ``EstimatorQNN``, such as ``NeuralNetworkClassifier`` and ``TorchConnector``, take this network too. `vjp` and
    `value_and_vjp` compute the gradient of a loss by one backward sweep for all outputs, without the Jacobian.

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
        if isinstance(observables, Iterator):
            observables = list(observables)
        if observables is not None:
            given_observables(observables)
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

    def _check_circuit(self, circuit: QuantumCircuit) -> None:
        """Raise a ValueError for observables on another number of qubits."""
        circuit_observables(self._observables, circuit.num_qubits)

    def _primitive_arguments(self) -> dict[str, Any]:
        options = getattr(self.estimator, "options", None)
        return options.changed() if isinstance(options, FusedOptions) else {}

    def _gradient_options(self) -> FusedOptions | None:
        gradient = self.gradient
        if isinstance(gradient, FusedEstimatorGradient) and gradient.derivative_type.name == "REAL":
            return gradient.fused_options
        return None

    def _gradient_name(self) -> str:
        return "FusedEstimatorGradient for real derivatives"

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

    def _make_function(self, compiled: CompiledCircuit, options: FusedOptions) -> Expectations:
        return make_function(self, self._observables, compiled, options)


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
