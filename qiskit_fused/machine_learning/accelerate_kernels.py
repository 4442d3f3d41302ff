# SPDX-License-Identifier: Apache-2.0
"""The part of `accelerate` that switches quantum kernels over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from qiskit.quantum_info import Statevector
from qiskit_machine_learning.kernels import (
    BaseKernel,
    FidelityQuantumKernel,
    FidelityStatevectorKernel,
    TrainableFidelityQuantumKernel,
    TrainableFidelityStatevectorKernel,
    TrainableKernel,
)
from qiskit_machine_learning.state_fidelities import ComputeUncompute

from qiskit_fused.compilation.circuits import COMPILED
from qiskit_fused.machine_learning.base_kernel import FusedKernel
from qiskit_fused.machine_learning.fidelity_kernel import FusedQuantumKernel
from qiskit_fused.machine_learning.state_fidelity import FusedStateFidelity
from qiskit_fused.options import FusedOptions
from qiskit_fused.primitives.sampler import FusedSampler

# Makes the sampler that replaces a model's sampler, from this sampler, `default_shots` and options.
MakeSampler = Callable[[Any, Any, dict[str, Any]], FusedSampler]

_OF_STATEVECTORS = (FidelityStatevectorKernel, TrainableFidelityStatevectorKernel)
_OF_FIDELITIES = (FidelityQuantumKernel, TrainableFidelityQuantumKernel)


def find_kernels(model: Any) -> Iterator[Any]:
    """Yield the kernel of a model, and then the model itself if it holds the method ``evaluate`` of the kernel.

    A kernel is its own kernel. ``QSVC`` and ``PegasosQSVC`` hold a kernel, and ``sklearn.svm.SVC(kernel=...)`` may hold
    the method of one.
    """
    method = getattr(model, "kernel", None)
    for kernel in (model, getattr(model, "quantum_kernel", None), getattr(method, "__self__", None)):
        if isinstance(kernel, BaseKernel):
            yield kernel
    if isinstance(getattr(method, "__self__", None), BaseKernel):
        yield model


def prepare_kernel(
    part: Any, default_shots: Any, options: dict[str, Any], make_sampler: MakeSampler
) -> Callable[[], None]:
    """Check a kernel or a model that holds its method, and return a function that switches it over.

    Raises:
        TypeError: for a kernel that is not one of qiskit-machine-learning, or a fidelity that is not
            ``ComputeUncompute`` with a simulator of Qiskit.
        UnsupportedInstruction: if the feature map has an instruction that the engines cannot run.
    """
    if not isinstance(part, BaseKernel):
        return lambda: _bind_again(part)
    if isinstance(part, FusedKernel):
        return _prepare_fused_kernel(part, default_shots, options)
    COMPILED.get(part.feature_map)  # raises any error now
    if type(part) in _OF_STATEVECTORS and part._statevector_type is Statevector:
        shots = part._shots if default_shots == "keep" else default_shots
        return _prepare_switch(part, FusedStateFidelity(shots=shots, options=options))
    if isinstance(part, _OF_FIDELITIES):
        fidelity = _make_fidelity(part.fidelity, default_shots, options, make_sampler)
        if type(part) in _OF_FIDELITIES and not fidelity._local:
            return _prepare_switch(part, fidelity)
        return lambda: setattr(part, "_fidelity", fidelity)
    raise TypeError(
        f"accelerate takes the fidelity kernels of qiskit-machine-learning, not {type(part).__name__}; make a "
        "FusedQuantumKernel(feature_map=...)."
    )


def _bind_again(model: Any) -> None:
    """Replace the bound method of a kernel whose class has changed."""
    model.kernel = model.kernel.__self__.evaluate


def _prepare_fused_kernel(kernel: FusedKernel, default_shots: Any, options: dict[str, Any]) -> Callable[[], None]:
    changed = FusedOptions.coerce(kernel.options, **options) if options else kernel.options

    def switch() -> None:
        if options:
            kernel.options = changed
        if default_shots != "keep" and isinstance(kernel, FusedQuantumKernel):
            kernel._shots = default_shots

    return switch


def _make_fidelity(
    fidelity: Any, default_shots: Any, options: dict[str, Any], make_sampler: MakeSampler
) -> FusedStateFidelity:
    """Return the fidelity that replaces the fidelity of a kernel."""
    if isinstance(fidelity, FusedStateFidelity):
        shots, sampler_options, local = (
            fidelity._shots,
            FusedOptions.coerce(fidelity.options, **options),
            fidelity._local,
        )
        shots = shots if default_shots == "keep" else default_shots
        return FusedStateFidelity(local=local, shots=shots, options=sampler_options)
    if type(fidelity) is not ComputeUncompute:
        raise TypeError(
            f"accelerate takes kernels with the fidelity ComputeUncompute, not {type(fidelity).__name__}; make a "
            "FusedQuantumKernel(feature_map=...)."
        )
    sampler = make_sampler(fidelity._sampler, default_shots, options)
    shots = sampler.default_shots
    if default_shots == "keep" and shots is not None:
        shots = getattr(fidelity._default_options, "shots", None) or shots
    return FusedStateFidelity(local=fidelity._local, shots=shots, options=sampler.options)


def _prepare_switch(kernel: BaseKernel, fidelity: FusedStateFidelity) -> Callable[[], None]:
    """Return a function that makes a kernel a `FusedQuantumKernel` with the shots and the options of a fidelity."""
    parameters = kernel.training_parameters if isinstance(kernel, TrainableKernel) else None
    fused = FusedQuantumKernel(
        feature_map=kernel.feature_map,
        training_parameters=parameters,
        shots=fidelity._shots,
        enforce_psd=kernel.enforce_psd,
        evaluate_duplicates=getattr(kernel, "evaluate_duplicates", "off_diagonal"),
        options=fidelity.options,
    )
    if isinstance(kernel, TrainableKernel):
        names = kernel.training_parameters
        fused._parameter_dict.update({parameter: kernel._parameter_dict[parameter] for parameter in names})

    def switch() -> None:
        kernel.__class__ = FusedQuantumKernel
        kernel.__dict__.clear()
        kernel.__dict__.update(fused.__dict__)

    return switch
