# SPDX-License-Identifier: Apache-2.0
"""`FusedQuantumKernel`: the fidelity kernels of qiskit-machine-learning as one matrix product."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from qiskit.circuit import Parameter, QuantumCircuit

from qiskit_fused.common.choices import check_choice
from qiskit_fused.common.row_blocks import row_blocks
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.execution.fidelities import Fidelities
from qiskit_fused.machine_learning.base_kernel import FusedKernel
from qiskit_fused.options.fused_options import ExactOptionsDict, FusedOptions, Unpack
from qiskit_fused.options.keywords import NO_PRECISION, checks_keywords
from qiskit_fused.primitives.sampler_errors import check_shots

_OWN_STATES = "the kernel simulates all states and keeps what it needs, so leave it out"
_ARGUMENTS_OF_OTHERS = "fidelity", "max_circuits_per_job", "statevector_type", "cache_size", "auto_clear_cache"
_REFUSED = NO_PRECISION | dict.fromkeys(_ARGUMENTS_OF_OTHERS, _OWN_STATES)
_DUPLICATES = ("all", "off_diagonal", "none")


class FusedQuantumKernel(FusedKernel):
    """The fidelity kernel ``K(x, y) = |<psi(x)|psi(y)>|^2`` with ``psi(x) = U(x) |0...0>``, U the feature map.

    It takes the place of ``FidelityQuantumKernel``, ``FidelityStatevectorKernel`` and their trainable forms, and has
    the same exact values. All states are simulated in one batch, each distinct sample once, and their overlaps are
    matrix products. Only one half of a symmetric matrix is computed. Elements of equal samples are exactly 1
    before ``enforce_psd``.

    Training parameters w are parameters of the feature map whose values all samples share. `value_and_vjp` gives exact
    gradients of any function of the matrix with respect to w and to the features.

    >>> from qiskit.circuit.library import zz_feature_map
    >>> kernel = FusedQuantumKernel(feature_map=zz_feature_map(2))
    >>> kernel.evaluate([[0.1, 0.2], [0.3, 0.4]]).round(3).tolist()
    [[1.0, 0.103], [0.103, 1.0]]

    Args:
        feature_map: the circuit, whose parameters are the features of a sample and the training parameters; or the
            result of `compile_circuit`.
        training_parameters: the W training parameters. Give their values to ``assign_training_parameters``.
        shots: None is the exact kernel. With a number of shots, each element is the mean of so many draws that are 1
            with the probability K_ij: the noise of the compute-uncompute method. Elements ij and ji are the same draws.
        enforce_psd: whether a symmetric matrix with the noise of shots is replaced by the closest positive semidefinite
            matrix. A matrix without noise is positive semidefinite up to rounding errors, and is not changed.
        evaluate_duplicates: "all", "off_diagonal" or "none", as in ``FidelityQuantumKernel``. All of them give the same
            matrix, since the fidelity of equal samples is exactly 1 before ``enforce_psd``.
        options: `FusedOptions` or a mapping.
        keywords: single options, which override ``options``: ``seed``, ``dtype``, ``memory_limit`` and others. ``seed``
            is the seed or NumPy generator of the draws: equal sequences of calls then give equal results. States that
            do not fit in ``memory_limit`` are simulated again for each block of the matrix.

    Raises:
        QiskitMachineLearningError: without a feature map.
        TypeError: for an argument of a wrong type, or an unknown option.
        ValueError: for training parameters that are not in the feature map, or a bad value of an argument.

    Cost: `evaluate` takes a forward sweep for each distinct sample, and N x M x 2^n complex multiplications for N and M
    samples and n qubits, or half as many for a symmetric matrix.
    """

    @checks_keywords(_REFUSED)
    def __init__(
        self,
        *,
        feature_map: QuantumCircuit | CompiledCircuit | None = None,
        training_parameters: Iterable[Parameter] | Parameter | None = None,
        shots: int | None = None,
        enforce_psd: bool = True,
        evaluate_duplicates: str = "off_diagonal",
        options: FusedOptions | Mapping[str, Any] | None = None,
        **keywords: Unpack[ExactOptionsDict],
    ):
        super().__init__(feature_map, training_parameters, enforce_psd, options, keywords)
        self._shots = check_shots(shots, may_be_none=True)
        duplicates = evaluate_duplicates.lower() if isinstance(evaluate_duplicates, str) else evaluate_duplicates
        self._evaluate_duplicates = check_choice("evaluate_duplicates", duplicates, _DUPLICATES)
        self._stream: tuple[Any, np.random.Generator] | None = None

    @property
    def shots(self) -> int | None:
        """The number of shots of an element. Without shots, elements are exact."""
        return self._shots

    @property
    def evaluate_duplicates(self) -> str:
        """The argument of the same name."""
        return self._evaluate_duplicates

    def _settings(self) -> dict[str, Any]:
        return ({} if self._shots is None else {"shots": self._shots}) | super()._settings()

    def _make_function(
        self, compiled: CompiledCircuit, inputs: list[Parameter], weights: list[Parameter]
    ) -> Fidelities:
        return Fidelities(compiled, inputs, weights, self._options)

    def _finished(self, matrix: np.ndarray, is_symmetric: bool) -> np.ndarray:
        if self._shots is None:
            return matrix
        self._draw(matrix, self._shots, is_symmetric)
        return self._make_psd(matrix) if is_symmetric and self._enforce_psd else matrix

    def _draw(self, matrix: np.ndarray, shots: int, is_symmetric: bool) -> None:
        """Replace each element by the mean of draws, in place."""
        generator = self._generator()
        for rows in row_blocks(matrix):
            columns = slice(rows.start if is_symmetric else 0, None)
            drawn = generator.binomial(shots, matrix[rows, columns]) / shots
            if is_symmetric:
                square = drawn[:, : rows.stop - rows.start]
                upper = np.triu(square, 1)
                square[...] = upper + upper.T
                np.fill_diagonal(square, 1)
                matrix[columns, rows] = drawn.T
            matrix[rows, columns] = drawn

    def _generator(self) -> np.random.Generator:
        """Return the generator of the draws, which goes on from call to call until another seed is set."""
        seed = self._options.seed
        if self._stream is None or self._stream[0] is not seed:
            self._stream = seed, np.random.default_rng(seed)
        return self._stream[1]
