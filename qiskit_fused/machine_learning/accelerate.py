# SPDX-License-Identifier: Apache-2.0
"""`accelerate`: switch existing models over to fused sweeps, in place."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from qiskit.circuit import QuantumCircuit
from qiskit.primitives import BaseEstimatorV2, StatevectorEstimator
from qiskit_machine_learning.gradients import DerivativeType
from qiskit_machine_learning.kernels import BaseKernel
from qiskit_machine_learning.neural_networks import EstimatorQNN, NeuralNetwork, SamplerQNN
from qiskit_machine_learning.primitives import QMLEstimator

from qiskit_fused.compilation.circuits import COMPILED
from qiskit_fused.compilation.observables import as_list
from qiskit_fused.machine_learning.estimator_qnn import FusedEstimatorQNN, make_function
from qiskit_fused.options.fused_options import FusedOptionsDict, Unpack
from qiskit_fused.options.keywords import checks_keywords
from qiskit_fused.primitives.estimator import FusedEstimator
from qiskit_fused.primitives.estimator_gradient import FusedEstimatorGradient

_Model = TypeVar("_Model")

# Names of attributes that hold a model within a model. Classifiers and regressors have neural_network, and
# EffectiveDimension has _model. Meta-estimators of scikit-learn, such as searches, have estimator and best_estimator_.
# AdaptVQE has solver.
_INNER_MODELS = ("neural_network", "_model", "estimator", "best_estimator_", "solver")


@checks_keywords()
def accelerate(model: _Model, **options: Unpack[FusedOptionsDict]) -> _Model:
    """Switch a model over to fused sweeps, in place, and return it: same weights, same outputs, same exact gradients.

    For example, ``accelerate(model, dtype="complex64").fit(x, y)`` trains a model in complex64. An ``EstimatorQNN``
    becomes a `FusedEstimatorQNN`. A ``TorchConnector`` becomes a connector whose backward pass is a vector-Jacobian
    product. A subclass of these may have methods of its own, so only its estimator and its gradient are replaced. An
    algorithm such as ``VQE`` gets a `FusedEstimator` and a `FusedEstimatorGradient`, even if it had no gradient. Any
    other gradient, such as a ``SPSAEstimatorGradient``, is replaced by the exact one. If an error is raised, the model
    has not changed.

    An exact ``QMLEstimator``, the default of ``EstimatorQNN``, is replaced by an exact `FusedEstimator`. A
    ``StatevectorEstimator`` is replaced by an estimator that adds the same noise, or by an exact one with
    ``precision_mode="exact"``. Gradients never have noise.

    A network keeps its outputs. ``EstimatorQNN`` splits a string such as ``"ZZZ"`` into letters, and cannot run them as
    observables; here, the string becomes one output.

    >>> from qiskit.circuit.library import real_amplitudes
    >>> circuit = real_amplitudes(2, reps=1)
    >>> network = EstimatorQNN(circuit=circuit, weight_params=circuit.parameters)
    >>> accelerate(network)
    FusedEstimatorQNN(2 qubits, 0 inputs, 4 weights, 1 output)

    Args:
        model: an ``EstimatorQNN``; a model with an ``EstimatorQNN`` inside, such as a ``NeuralNetworkClassifier``,
            ``NeuralNetworkRegressor`` or ``VQR``, an ``EffectiveDimension``, a ``Pipeline`` or ``GridSearchCV`` of
            scikit-learn; a ``TorchConnector``, or a torch module with some of them in it; an algorithm with an
            estimator, such as ``VQE``, ``AdaptVQE`` and ``VQD``.
        options: options of the estimator, see `FusedOptions`.

    Returns:
        The same object as ``model``.

    Raises:
        TypeError: for another model, for ``SamplerQNN``, ``VQC`` and quantum kernels, for an unknown option, and for an
            estimator that is not one of Qiskit's exact simulators, unless ``precision_mode`` is among the options.
        UnsupportedInstruction: if the circuit has an instruction that the engines cannot run.
    """
    parts = {id(part): part for part in _find_parts(model, frozenset())}
    if not parts:
        raise _nothing_found(model)
    switches = [_prepare(part, {**options}) for part in parts.values()]
    for switch in switches:
        switch()
    return model


def _find_parts(model: Any, around: frozenset[int]) -> Iterator[Any]:
    """Yield the networks, connectors and algorithms of a model, the model itself included.

    Args:
        model: any model.
        around: the ids of the models that contain this model.
    """
    if isinstance(model, NeuralNetwork):
        yield model
    elif _is_torch_module(model):
        # This import needs torch, which is optional and large. A caller with a torch module has already imported torch.
        from qiskit_machine_learning.connectors import TorchConnector

        for module in model.modules():
            if isinstance(module, TorchConnector):
                yield module.neural_network
                yield module
    elif isinstance(getattr(model, "estimator", None), BaseEstimatorV2):
        yield model
    elif id(model) not in around and not isinstance(model, type):
        steps = getattr(model, "steps", None)
        inner = [step[-1] for step in steps] if isinstance(steps, list) else []
        for thing in [*inner, *(getattr(model, name, None) for name in _INNER_MODELS)]:
            if thing is not None and not isinstance(thing, str):
                yield from _find_parts(thing, around | {id(model)})


def _is_torch_module(model: Any) -> bool:
    """Say whether a model is a module of PyTorch. PyTorch is not imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def _nothing_found(model: Any) -> TypeError:
    name = type(model).__name__
    if isinstance(model, type):
        return TypeError(f"accelerate takes a model that is made, not the class {model.__name__}.")
    if _is_torch_module(model):
        return TypeError(f"accelerate found no TorchConnector in the {name}.")
    if isinstance(model, BaseKernel) or isinstance(getattr(model, "quantum_kernel", None), BaseKernel):
        return TypeError(
            f"accelerate takes models of expectation values, not {name}: quantum kernels are built on samplers or on "
            "statevectors, see the page on limits. A fidelity is also the expectation value of the projector '00...0' "
            "after one feature map and the inverse of another, which FusedEstimator gives exactly."
        )
    return TypeError(
        f"accelerate takes an EstimatorQNN, or a model made of one, not {name}; a network of expectation values, "
        "EstimatorQNN(circuit=..., observables=...), can be accelerated."
    )


def _prepare(part: Any, options: dict[str, Any]) -> Callable[[], None]:
    """Check a network, connector or algorithm, and return a function that switches it over and raises no error."""
    if _is_torch_module(part):
        return lambda: _switch_connector(part)
    if isinstance(part, NeuralNetwork) and not isinstance(part, EstimatorQNN):
        raise _refusal_of_network(part)
    estimator = _make_estimator(part.estimator, options)
    observables = None
    if isinstance(part, EstimatorQNN):
        observables = _outputs_of(part)
        make_function(part, observables, COMPILED.get(part._circuit), estimator.options)  # raises any error now
    has_gradient = hasattr(part, "gradient")
    gradient = _make_gradient(part.gradient, estimator, options) if has_gradient else None
    circuit = getattr(part, "ansatz", None)
    if has_gradient and isinstance(circuit, QuantumCircuit):
        COMPILED.get(circuit)  # raises any error now

    def switch() -> None:
        part.estimator = estimator
        if observables is not None and observables is not part._observables:
            part._observables, part._output_shape = observables, (len(observables),)
        if has_gradient:
            part.gradient = gradient
        if type(part) is EstimatorQNN:
            part.__class__ = FusedEstimatorQNN

    return switch


def _outputs_of(network: EstimatorQNN) -> Any:
    """Return the observables of a network, with one output for each.

    ``EstimatorQNN`` splits a string such as "ZZZ" into letters, which it cannot run. Here the string is one observable.
    """
    observables = network._observables
    in_parts = isinstance(observables, str) and len(observables) != network._circuit.num_qubits
    return observables if in_parts or isinstance(observables, Mapping) else as_list(observables)


def _refusal_of_network(network: NeuralNetwork) -> TypeError:
    name, cure = type(network).__name__, "a network of expectation values can be"
    if isinstance(network, SamplerQNN):
        cure = "the probabilities of a sampler are expectation values of the projectors '00', '01', ... as well"
    return TypeError(
        f"accelerate takes an EstimatorQNN, or a model made of one, not {name}; {cure}: "
        "EstimatorQNN(circuit=..., observables=...)."
    )


def _make_gradient(gradient: Any, estimator: FusedEstimator, options: dict[str, Any]) -> FusedEstimatorGradient:
    """Return the gradient that replaces a model's gradient. Options override the options of a fused gradient."""
    if isinstance(gradient, FusedEstimatorGradient) and not options:
        return gradient
    gradient_options = gradient._own_options if isinstance(gradient, FusedEstimatorGradient) else None
    kind = getattr(gradient, "derivative_type", DerivativeType.REAL)
    return FusedEstimatorGradient(estimator, gradient_options, kind, **({} if gradient_options is None else options))


def _make_estimator(estimator: Any, options: dict[str, Any]) -> FusedEstimator:
    """Return the estimator that replaces a model's estimator. Options override the options of a fused estimator.

    Raises:
        TypeError: for an estimator that is not exact and not a simulator of Qiskit, without a ``precision_mode``.
    """
    if isinstance(estimator, FusedEstimator):
        return FusedEstimator(options=estimator.options, **options) if options else estimator
    if type(estimator) in (QMLEstimator, StatevectorEstimator):
        if type(estimator) is QMLEstimator and estimator.default_precision == 0:  # always exact, for any precision
            return FusedEstimator(**options)
        noise = {"precision_mode": "emulate", "default_precision": estimator.default_precision, "seed": estimator.seed}
        return FusedEstimator(**(noise | options))
    if "precision_mode" not in options:
        kind = type(estimator)
        raise TypeError(
            "accelerate cannot tell whether the values of this model have the noise of shots or of a device: its "
            f"estimator, of {kind.__module__.partition('.')[0]}, is {kind.__name__}; precision_mode='exact' replaces "
            "it by exact expectation values, precision_mode='emulate' with a default_precision by values with normal "
            "noise of that size."
        )
    return FusedEstimator(**options)


def _switch_connector(connector: Any) -> None:
    # These imports need torch; see `_find_parts`.
    from qiskit_machine_learning.connectors import TorchConnector

    from qiskit_fused.machine_learning.torch_connector import FusedTorchConnector

    if type(connector) is TorchConnector and isinstance(connector.neural_network, FusedEstimatorQNN):
        connector.__class__ = FusedTorchConnector
