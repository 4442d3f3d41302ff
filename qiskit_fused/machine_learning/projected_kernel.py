# SPDX-License-Identifier: Apache-2.0
"""`FusedProjectedQuantumKernel`: a Gaussian kernel of expectation values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from qiskit.circuit import Parameter, QuantumCircuit

from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.execution.projections import Projections, check_gamma
from qiskit_fused.machine_learning.base_kernel import FusedKernel
from qiskit_fused.options.fused_options import ExactOptionsDict, FusedOptions, Unpack
from qiskit_fused.options.keywords import NO_PRECISION, checks_keywords


class FusedProjectedQuantumKernel(FusedKernel):
    """The projected kernel ``K(x, y) = exp(-gamma sum_q |rho_q(x) - rho_q(y)|^2)``.

    Here, rho_q(x) is the density matrix of qubit q after the feature map, and the norm is the Frobenius norm. With
    ``observables``, it is ``K(x, y) = exp(-gamma sum_k (E_k(x) - E_k(y))^2)`` with their expectation values E_k. All
    expectation values of all samples are computed in one batch. Elements of equal samples are exactly 1. The fidelities
    of many qubits are close to 0 for most pairs of samples; projected kernels can be larger there.

    >>> from qiskit.circuit.library import zz_feature_map
    >>> kernel = FusedProjectedQuantumKernel(feature_map=zz_feature_map(2))
    >>> kernel.evaluate([[0.1, 0.2], [0.3, 0.4]]).round(3).tolist()
    [[1.0, 0.123], [0.123, 1.0]]

    Args:
        feature_map: the circuit, whose parameters are the features of a sample and the training parameters; or the
            result of `compile_circuit`.
        training_parameters: the W training parameters. Give their values to ``assign_training_parameters``.
        observables: one observable or a list of K; None is X, Y and Z divided by sqrt(2) on each qubit, which gives the
            formula with density matrices.
        gamma: the factor in the exponent, above 0.
        enforce_psd: kept for the interface. The matrix is positive semidefinite up to rounding errors.
        options: `FusedOptions` or a mapping.
        keywords: single options, which override ``options``.

    Raises:
        QiskitMachineLearningError: without a feature map.
        TypeError: for an argument of a wrong type, or an unknown option.
        ValueError: for training parameters that are not in the feature map, or a bad value of an argument.

    Cost: `evaluate` takes a forward sweep for each distinct sample.

    Source: H.-Y. Huang et al., arXiv:2011.01938.
    """

    @checks_keywords(NO_PRECISION)
    def __init__(
        self,
        *,
        feature_map: QuantumCircuit | CompiledCircuit | None = None,
        training_parameters: Iterable[Parameter] | Parameter | None = None,
        observables: Any = None,
        gamma: float = 1.0,
        enforce_psd: bool = True,
        options: FusedOptions | Mapping[str, Any] | None = None,
        **keywords: Unpack[ExactOptionsDict],
    ):
        super().__init__(feature_map, training_parameters, enforce_psd, options, keywords)
        self._observables, self._gamma = observables, check_gamma(gamma)

    @property
    def observables(self) -> Any:
        """The observables, or None for the density matrices of single qubits."""
        return self._observables

    @property
    def gamma(self) -> float:
        """The factor in the exponent."""
        return self._gamma

    @gamma.setter
    def gamma(self, gamma: float) -> None:
        self._gamma, self._function = check_gamma(gamma), None

    def _settings(self) -> dict[str, Any]:
        return ({} if self._gamma == 1 else {"gamma": self._gamma}) | super()._settings()

    def _make_function(
        self, compiled: CompiledCircuit, inputs: list[Parameter], weights: list[Parameter]
    ) -> Projections:
        return Projections(compiled, inputs, weights, self._observables, self._gamma, self._options)
