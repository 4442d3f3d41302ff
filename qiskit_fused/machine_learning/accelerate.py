# SPDX-License-Identifier: Apache-2.0
"""`accelerate`: switch existing models over to fused sweeps, in place."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal, TypeVar

from qiskit.circuit import QuantumCircuit
from qiskit.primitives import BaseEstimatorV2, BaseSamplerV2, StatevectorEstimator, StatevectorSampler
from qiskit_machine_learning.gradients import DerivativeType
from qiskit_machine_learning.kernels import BaseKernel
from qiskit_machine_learning.neural_networks import EstimatorQNN, NeuralNetwork, SamplerQNN
from qiskit_machine_learning.primitives import QMLEstimator, QMLSampler

from qiskit_fused.compilation.circuits import COMPILED
from qiskit_fused.compilation.observables import as_list
from qiskit_fused.compilation.outcome_tables import measured_bits
from qiskit_fused.machine_learning.accelerate_kernels import find_kernels, prepare_kernel
from qiskit_fused.machine_learning.estimator_qnn import FusedEstimatorQNN, make_function
from qiskit_fused.machine_learning.fused_network import FusedNetwork
from qiskit_fused.machine_learning.sampler_qnn import FusedSamplerQNN, identity
from qiskit_fused.options.fused_options import FusedOptionsDict, Unpack
from qiskit_fused.options.keywords import checks_keywords
from qiskit_fused.primitives.estimator import FusedEstimator
from qiskit_fused.primitives.estimator_gradient import FusedEstimatorGradient
from qiskit_fused.primitives.sampler import FusedSampler
from qiskit_fused.primitives.sampler_gradient import FusedSamplerGradient

_Model = TypeVar("_Model")

# Names of attributes that hold a model within a model. Classifiers and regressors have neural_network, and
# EffectiveDimension has _model. Meta-estimators of scikit-learn, such as searches, have estimator and best_estimator_.
# AdaptVQE has solver.
_INNER_MODELS = ("neural_network", "_model", "estimator", "best_estimator_", "solver")


_UPSTREAMS_IDENTITY = "SamplerQNN.set_interpret.<locals>.<lambda>"  # pickle cannot store this function

# Options that only estimators read. ``default_shots`` decides for samplers.
_OPTIONS_OF_ESTIMATORS = ("precision_mode", "default_precision")


@checks_keywords()
def accelerate(
    model: _Model, *, default_shots: int | Literal["keep"] | None = "keep", **options: Unpack[FusedOptionsDict]
) -> _Model:
    """Switch a model over to fused sweeps, in place, and return it: same weights, same outputs, exact gradients.

    For example, ``accelerate(model, dtype="complex64").fit(x, y)`` trains a model in complex64. An ``EstimatorQNN``
    becomes a `FusedEstimatorQNN`, and a ``SamplerQNN`` a `FusedSamplerQNN`. A ``FidelityQuantumKernel``, a
    ``FidelityStatevectorKernel`` and their trainable forms become a `FusedQuantumKernel`. A ``TorchConnector`` becomes
    a connector whose backward pass is a vector-Jacobian product, unless its outputs are sparse. A subclass of these may
    have methods of its own, so only its primitive and its gradient, or its fidelity, are replaced. An algorithm such as
    ``VQE`` gets a `FusedEstimator` and a `FusedEstimatorGradient`, even if it had no gradient. Any other gradient, such
    as a ``SPSAEstimatorGradient``, is replaced by the exact one. If an error is raised, the model has not changed.

    An exact ``QMLEstimator`` or ``QMLSampler``, the defaults of the networks, is replaced by an exact `FusedEstimator`
    or `FusedSampler`. A ``StatevectorEstimator`` is replaced by an estimator that adds the same noise, or by an exact
    one with ``precision_mode="exact"``. A ``StatevectorSampler`` is replaced by a sampler with as many shots and the
    same seed, or by an exact one with ``default_shots=None``. Gradients never have noise.

    A network keeps its outputs, except where upstream's outputs are wrong. ``EstimatorQNN`` splits a string such as
    ``"ZZZ"`` into letters, and cannot run them as observables; here, the string becomes one output. `FusedSamplerQNN`
    lists the outputs of ``SamplerQNN`` that are wrong.

    >>> from qiskit.circuit.library import real_amplitudes
    >>> circuit = real_amplitudes(2, reps=1)
    >>> network = EstimatorQNN(circuit=circuit, weight_params=circuit.parameters)
    >>> accelerate(network)
    FusedEstimatorQNN(2 qubits, 0 inputs, 4 weights, 1 output)

    Args:
        model: an ``EstimatorQNN`` or ``SamplerQNN``; a model with one of them inside, such as a
            ``NeuralNetworkClassifier``, ``NeuralNetworkRegressor``, ``VQC`` or ``VQR``, an ``EffectiveDimension``, a
            ``Pipeline`` or ``GridSearchCV`` of scikit-learn; a ``TorchConnector``, or a torch module with some of them
            in it; an algorithm with an estimator, such as ``VQE``, ``AdaptVQE`` and ``VQD``, but no algorithm with a
            sampler, such as ``QAOA``, which takes a `FusedSampler` itself; a kernel, or a model with
            a kernel, such as ``QSVC``, ``QSVR``, ``PegasosQSVC``, ``QuantumKernelTrainer`` or an ``SVC`` of
            scikit-learn that was given the method of one.
        default_shots: number of shots of samplers. None is exact probabilities, and "keep" is the number that the
            sampler or the kernel has.
        options: options of the primitives, see `FusedOptions`.

    Returns:
        The same object as ``model``.

    Raises:
        TypeError: for another model or another kernel, for an unknown option, for an option of estimators or
            samplers if the model has none; for an estimator that is not one of Qiskit's exact simulators, unless
            ``precision_mode`` is among the options; and for a sampler that is not one of them, unless ``default_shots``
            is given.
        ValueError: for a bad value of an option, or a ``SamplerQNN`` whose circuit has classical bits into which
            nothing is measured.
        UnsupportedInstruction: if the circuit has an instruction that the engines cannot run.
    """
    parts = {id(part): part for part in _find_parts(model, frozenset())}
    if not parts:
        raise _nothing_found(model)
    _check_options(parts.values(), default_shots, options)
    switches = [_prepare(part, default_shots, {**options}) for part in parts.values()]
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
    elif kernels := list(find_kernels(model)):
        yield from kernels
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
    if isinstance(model, BaseEstimatorV2):
        cure = " Use FusedEstimator() in the place of an estimator."
    elif isinstance(model, BaseSamplerV2):
        cure = " Use FusedSampler() in the place of a sampler."
    elif isinstance(getattr(model, "sampler", None), BaseSamplerV2):
        cure = f" Make the {name} with FusedSampler() in the place of its sampler."
    elif getattr(model, "estimator", model) is None:
        cure = f" The {name} has no estimator; give it FusedEstimator()."
    else:
        cure = ""
    return TypeError(
        "accelerate takes an EstimatorQNN, a SamplerQNN, a quantum kernel, a model made of one, or an algorithm with "
        f"an estimator, not {name}.{cure}"
    )


def _check_options(parts: Collection[Any], default_shots: Any, options: Mapping[str, Any]) -> None:
    """Raise a TypeError for options that no part of a model reads."""
    if default_shots != "keep" and not any(isinstance(part, (SamplerQNN, BaseKernel)) for part in parts):
        raise TypeError(
            "default_shots is given, and the model has no sampler; precision_mode and default_precision decide for "
            "estimators."
        )
    of_estimators = [name for name in _OPTIONS_OF_ESTIMATORS if name in options]
    if of_estimators and not any(hasattr(part, "estimator") for part in parts):
        raise TypeError(
            f"{of_estimators[0]} is given, and the model has no estimator; default_shots decides for samplers: None "
            "is exact probabilities."
        )


def _prepare(part: Any, default_shots: Any, options: dict[str, Any]) -> Callable[[], None]:
    """Check a network, connector or algorithm, and return a function that switches it over and raises no error."""
    if _is_torch_module(part):
        return lambda: _switch_connector(part)
    others = {name: value for name, value in options.items() if name not in _OPTIONS_OF_ESTIMATORS}
    if isinstance(part, SamplerQNN):
        return _prepare_sampler_network(part, default_shots, others)
    if isinstance(part, BaseKernel) or any(part is found for found in find_kernels(part)):
        return prepare_kernel(part, default_shots, others, _make_sampler)
    if isinstance(part, NeuralNetwork) and not isinstance(part, EstimatorQNN):
        raise _nothing_found(part)
    estimator = _make_estimator(part.estimator, options)
    observables = None
    if isinstance(part, EstimatorQNN):
        observables = _outputs_of(part)
        make_function(part, observables, COMPILED.get(part._circuit), estimator.options)  # raises any error now
    has_gradient = hasattr(part, "gradient")
    gradient = None
    if has_gradient:
        derivative_type = getattr(part.gradient, "derivative_type", DerivativeType.REAL)
        primitives = part.estimator, estimator
        gradient = _make_gradient(FusedEstimatorGradient, part.gradient, primitives, options, derivative_type)
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


def _prepare_sampler_network(network: SamplerQNN, default_shots: Any, options: dict[str, Any]) -> Callable[[], None]:
    """Check a ``SamplerQNN``, and return a function that switches it over and raises no error.

    ``interpret`` is not called now: the ``fit`` of a ``VQC`` gives the network another one.
    """
    sampler = _make_sampler(network.sampler, default_shots, options)
    gradient = _make_gradient(FusedSamplerGradient, network.gradient, (network.sampler, sampler), options)
    measured_bits(network._circuit)  # raises any error now
    COMPILED.get(network._circuit)

    def switch() -> None:
        network.sampler, network.gradient = sampler, gradient
        if type(network) is SamplerQNN:
            network.__class__ = FusedSamplerQNN
            if network._interpret.__qualname__ == _UPSTREAMS_IDENTITY:
                network._interpret = identity

    return switch


def _outputs_of(network: EstimatorQNN) -> Any:
    """Return the observables of a network, with one output for each.

    ``EstimatorQNN`` splits a string such as "ZZZ" into letters, which it cannot run. Here the string is one observable.
    """
    observables = network._observables
    in_parts = isinstance(observables, str) and len(observables) != network._circuit.num_qubits
    return observables if in_parts or isinstance(observables, Mapping) else as_list(observables)


def _make_gradient(
    kind: Any, gradient: Any, primitives: tuple[Any, Any], options: dict[str, Any], *derivative_type: DerivativeType
) -> Any:
    """Return the gradient that replaces a model's gradient. Options override the options of a fused gradient.

    Args:
        kind: the class of the new gradient.
        gradient: the model's gradient.
        primitives: the model's primitive, and the primitive that replaces it.
        options: options of the engine.
        derivative_type: the derivative type of the new gradient, if its class has one.
    """
    old, new = primitives
    is_fused = isinstance(gradient, kind)
    if is_fused and not options and (new is old or gradient._primitive is not old):
        return gradient
    own_options = gradient._own_options if is_fused else None
    return kind(new, own_options, *derivative_type, **({} if own_options is None else options))


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


def _make_sampler(sampler: Any, default_shots: Any, options: dict[str, Any]) -> FusedSampler:
    """Return the sampler that replaces a model's sampler. Options override the options of a fused sampler.

    Args:
        sampler: the model's sampler.
        default_shots: number of shots; None is exact probabilities, "keep" the number that the sampler has.
        options: options of the engine.

    Raises:
        TypeError: for a sampler that is not a simulator of Qiskit, if ``default_shots`` is "keep".
    """
    changes = dict(options)
    if isinstance(sampler, FusedSampler):
        if not options and default_shots in ("keep", sampler.default_shots):
            return sampler
        shots, changes["options"] = sampler.default_shots, sampler.options
    elif type(sampler) is QMLSampler and sampler._exact_mode:
        shots = None
    elif type(sampler) in (QMLSampler, StatevectorSampler):
        shots, changes = sampler.default_shots, {"seed": sampler.seed} | changes
    elif default_shots == "keep":
        kind = type(sampler)
        raise TypeError(
            "accelerate cannot tell whether the samples of this model have the noise of a device: its sampler, of "
            f"{kind.__module__.partition('.')[0]}, is {kind.__name__}; default_shots=None replaces it by exact "
            "probabilities, and default_shots=1024 by a sampler without noise that draws 1024 shots."
        )
    else:
        shots = default_shots
    return FusedSampler(default_shots=shots if default_shots == "keep" else default_shots, **changes)


def _switch_connector(connector: Any) -> None:
    # These imports need torch; see `_find_parts`.
    from qiskit_machine_learning.connectors import TorchConnector

    from qiskit_fused.machine_learning.torch_connector import FusedTorchConnector

    # A sparse connector has sparse cotangents, which a vector-Jacobian product does not take.
    if (
        type(connector) is TorchConnector
        and isinstance(connector.neural_network, FusedNetwork)
        and not connector._sparse
    ):
        connector.__class__ = FusedTorchConnector
