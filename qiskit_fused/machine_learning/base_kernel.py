# SPDX-License-Identifier: Apache-2.0
"""`FusedKernel`: what all quantum kernels of this package have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from itertools import filterfalse
from typing import Any

import numpy as np
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit_machine_learning.kernels import TrainableKernel

from qiskit_fused.common.arrays import real_values
from qiskit_fused.common.display import arguments_text
from qiskit_fused.common.row_errors import renumbered
from qiskit_fused.common.text import count_text
from qiskit_fused.compilation.circuits import COMPILED, CompiledCircuit
from qiskit_fused.execution.arguments import is_by_name, listed, ordered_values
from qiskit_fused.execution.devices import check_device
from qiskit_fused.execution.finite_values import check_finite
from qiskit_fused.execution.kernel_function import KernelFunction, MatrixCotangents
from qiskit_fused.execution.pair_batches import KernelVjp
from qiskit_fused.options import FusedOptions


class FusedKernel(TrainableKernel):
    """A quantum kernel with options of the engine, training parameters and gradients; the base of the kernel classes.

    Args:
        feature_map: the circuit.
        training_parameters: parameters of the circuit whose values all samples share.
        enforce_psd: see the kernel classes.
        options: `FusedOptions` or a mapping.
        keywords: single options, which override ``options``.
    """

    _function: KernelFunction | None = None  # the matrix as a function, made at its first use

    def __init__(
        self,
        feature_map: Any,
        training_parameters: Iterable[Parameter] | Parameter | None,
        enforce_psd: bool,
        options: FusedOptions | Mapping[str, Any] | None,
        keywords: Mapping[str, Any],
    ):
        if isinstance(feature_map, CompiledCircuit):
            feature_map = feature_map.circuit
        if not isinstance(feature_map, QuantumCircuit) and feature_map is not None:
            raise TypeError(f"feature_map must be a QuantumCircuit, not {type(feature_map).__name__}.")
        if isinstance(training_parameters, Parameter):
            training_parameters = [training_parameters]
        elif training_parameters is not None and not hasattr(training_parameters, "__len__"):
            training_parameters = list(training_parameters)
        known = set(() if feature_map is None else feature_map.parameters)
        foreign = [one for one in training_parameters or () if not (isinstance(one, Parameter) and one in known)]
        if foreign and feature_map is not None:
            names = listed([str(getattr(parameter, "name", parameter)) for parameter in foreign])
            raise ValueError(
                f"training_parameters contain {names}, which are not in feature_map.parameters; allowed: the Parameter "
                "objects in there (equal names are not enough)."
            )
        super().__init__(feature_map=feature_map, training_parameters=training_parameters, enforce_psd=enforce_psd)
        self._num_features -= self._num_training_parameters
        self._options = FusedOptions.coerce(options, **keywords)
        check_device(self._options)

    @property
    def options(self) -> FusedOptions:
        """The options. ``kernel.options.dtype = "complex64"`` changes one option for the calls that follow."""
        return self._options

    @options.setter
    def options(self, options: FusedOptions | Mapping[str, Any] | None) -> None:
        self._options = FusedOptions.coerce(options)

    def __repr__(self) -> str:
        counts = (
            (self._feature_map.num_qubits, "qubit"),
            (self._num_features, "feature"),
            (self._num_training_parameters, "training parameter"),
        )
        texts = [count_text(*count) for count in counts] + [arguments_text(self._settings() | self._options.changed())]
        return f"{type(self).__name__}({', '.join(filter(None, texts))})"

    def _settings(self) -> dict[str, Any]:
        """Return arguments of this kernel that differ from their defaults, for ``repr``."""
        return {} if self._enforce_psd else {"enforce_psd": False}

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes to pickle, without the function and its compiled circuit."""
        return {name: value for name, value in self.__dict__.items() if name != "_function"}

    @abstractmethod
    def _make_function(
        self, compiled: CompiledCircuit, inputs: list[Parameter], weights: list[Parameter]
    ) -> KernelFunction:
        """Return the matrix as a function of features and training parameters."""

    def _current_function(self) -> KernelFunction:
        """Return the matrix as a function, for the feature map and the options as they are now."""
        compiled, function = COMPILED.get(self._feature_map), self._function
        if function is None or function.compiled is not compiled or function.options is not self._options:
            weights = list(self._training_parameters)
            inputs = [parameter for parameter in compiled.parameters if parameter not in set(weights)]
            function = self._function = self._make_function(compiled, inputs, weights)
            function.names = "x_vec", "y_vec"
        return function

    def _weights(self) -> np.ndarray:
        """Return the values of the training parameters, float64 (W,).

        Raises:
            QiskitMachineLearningError: if a training parameter has no value yet.
        """
        self._check_trainable_parameters()
        values: np.ndarray = np.asarray(self.parameter_values, dtype=np.float64)
        return values

    def evaluate(self, x_vec: Any, y_vec: Any = None) -> np.ndarray:
        """Return the kernel matrix, float64 (N, M): element ij is the kernel of sample i of x and sample j of y.

        Args:
            x_vec: real (N, D), or (D,) for one sample. The D features are the parameters of the feature map, without
                the training parameters, in the order of ``feature_map.parameters``. Or a dict of values by name.
            y_vec: as ``x_vec``, M samples; None is ``x_vec``. A ``y_vec`` that equals ``x_vec`` counts as None.

        Raises:
            QiskitMachineLearningError: if a training parameter has no value yet.
            ValueError: for another number of features, or a value that is not finite.
            MemoryError: if a state does not fit the memory limit, or the matrix does not fit the free memory.
        """
        x_vec, y_vec = self._validate_input(x_vec, y_vec)
        if y_vec is not None and (y_vec is x_vec or np.array_equal(x_vec, y_vec)):
            y_vec = None
        function = self._current_function()
        return self._finished(function.values(x_vec, self._weights(), y_vec), y_vec is None)

    def _finished(self, matrix: np.ndarray, is_symmetric: bool) -> np.ndarray:
        """Return the result of `evaluate` for an exact matrix."""
        return matrix

    def value_and_vjp(
        self, x_vec: Any, y_vec: Any, cotangents: MatrixCotangents, *, input_gradients: bool = False
    ) -> KernelVjp:
        """Return the exact kernel matrix and a vector-Jacobian product, by one backward sweep for each sample.

        The product is the gradient of ``sum_ij C_ij K_ij`` with the cotangents C kept constant. If ``C = dL/dK`` for a
        loss L of the matrix, it is the gradient of the loss.

        Args:
            x_vec: see `evaluate`.
            y_vec: see `evaluate`. None makes the matrix of ``x_vec`` alone. In a matrix of two sets, also of equal
                ones, ``x_vec`` and ``y_vec`` have gradients of their own.
            cotangents: C, real (N, M). Or a function that maps the matrix (N, M) to C; it is called once.
            input_gradients: whether gradients of the features are computed.

        Returns:
            A `KernelVjp` of the matrix ``values`` (N, M), the gradient ``weights`` (W,) of the W training parameters in
            the order of ``training_parameters``, and the gradients ``inputs`` (N, D) and ``others`` (M, D) of the
            features, or None.

        Raises:
            TypeError: if the cotangents are a tuple of a loss and its derivatives.
            QiskitMachineLearningError, ValueError, MemoryError: as `evaluate`.

        Cost: as `evaluate`, a forward and a backward sweep for each sample, and the matrix products again.
        """
        x_vec, y_vec = self._validate_input(x_vec, y_vec)
        function = self._current_function()
        return function.value_and_vjp(x_vec, self._weights(), cotangents, y_vec, input_gradients=input_gradients)

    def _validate_input(self, x_vec: Any, y_vec: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """Return samples as arrays (N, D) and (M, D) of finite numbers.

        A feature map that can change its number of qubits, such as ``ZZFeatureMap``, is adjusted to ``x_vec``, as the
        kernels of qiskit-machine-learning do.

        Raises:
            ValueError: for another number of features, or a value that is not finite.
        """
        names = self._features()
        x_vec, y_vec = super()._validate_input(
            _rows_of("x_vec", x_vec, names), None if y_vec is None else _rows_of("y_vec", y_vec, names)
        )
        names = self._features()
        self._num_features = len(names)
        for argument, samples in (("x_vec", x_vec), ("y_vec", y_vec)):
            if samples is not None and samples.shape[1] == len(names):
                with renumbered(lambda row, argument=argument: f"{row} of {argument}"):  # type: ignore[misc]
                    check_finite(samples, names)
        return x_vec, y_vec

    def _features(self) -> tuple[Parameter, ...]:
        """Return the parameters of the feature map that are no training parameters."""
        is_weight = set(self._training_parameters).__contains__
        return tuple(filterfalse(is_weight, self._feature_map.parameters))

    def _make_psd(self, kernel_matrix: np.ndarray) -> np.ndarray:
        """Return the closest positive semidefinite matrix to a symmetric matrix, by its eigenvalues and eigenvectors.

        Cost: O(N^3) for N samples.
        """
        values, vectors = np.linalg.eigh(kernel_matrix)
        if not len(values) or values[0] >= 0:
            return kernel_matrix
        matrix: np.ndarray = (vectors * np.maximum(values, 0)) @ vectors.T
        return (matrix + matrix.T) / 2


def _rows_of(argument: str, samples: Any, features: tuple[Parameter, ...]) -> np.ndarray:
    """Return samples as an array (N, D). An array (D,) is one sample, also for D = 0."""
    if is_by_name(samples):
        array = ordered_values(samples, features, argument)
    else:
        array = real_values(samples, argument, "feature of a sample")
    if array.ndim not in (1, 2):
        raise ValueError(
            f"{argument} has shape {array.shape}; allowed: (samples, features), or (features,) for one sample."
        )
    return array if array.ndim == 2 else array[None]
