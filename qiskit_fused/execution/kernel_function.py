# SPDX-License-Identifier: Apache-2.0
"""`KernelFunction`: a matrix of all pairs of samples, as a differentiable function of inputs and weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from qiskit.circuit import Parameter, QuantumCircuit

from qiskit_fused.common.arrays import real_values
from qiskit_fused.common.display import arguments_text
from qiskit_fused.common.row_errors import renumbered
from qiskit_fused.common.text import count_text
from qiskit_fused.compilation.circuits import COMPILED, CompiledCircuit
from qiskit_fused.engines.interface import Watch
from qiskit_fused.execution.arguments import is_by_name, ordered_values
from qiskit_fused.execution.finite_values import check_finite, is_finite
from qiskit_fused.execution.magnitudes import scaled_cotangents
from qiskit_fused.execution.pair_batches import KernelEvaluation, KernelVjp, PairBatch, Pairs
from qiskit_fused.execution.parameter_columns import ParameterColumns
from qiskit_fused.execution.progress import Progress
from qiskit_fused.options import FusedOptions

MatrixCotangents = np.ndarray | Callable[[np.ndarray], Any]


class KernelFunction(ABC):
    """A kernel matrix K (N, M) of samples x (N, I) and y (M, I), and of weights w (W,) that all samples share.

    Without y, the matrix is made of x alone: it is symmetric, and its diagonal is exactly 1. The subclasses say what
    the element of two samples is.

    Args:
        circuit: the circuit, or the result of `compile_circuit`. It is compiled when this object is made.
        input_params: the I parameters of which each sample has its own values.
        weight_params: the W parameters whose values all samples share.
        options: `FusedOptions`, which are kept, not copied, or a mapping.
        keywords: single options, which override ``options``.

    Attributes:
        parameters: the input parameters and the weight parameters, two tuples.
        names: the names of x and y in errors, the arguments of the caller.
    """

    parameters: tuple[tuple[Parameter, ...], tuple[Parameter, ...]]
    names = "inputs", "others"

    def __init__(
        self,
        circuit: QuantumCircuit | CompiledCircuit,
        input_params: Iterable[Parameter],
        weight_params: Iterable[Parameter],
        options: FusedOptions | Mapping[str, Any] | None,
        keywords: Mapping[str, Any],
    ):
        self.compiled = compiled = COMPILED.get(circuit)
        if keywords or not isinstance(options, FusedOptions):
            options = FusedOptions.coerce(options, **keywords)
        self.options = options
        self._columns = ParameterColumns.of(compiled, input_params, weight_params)
        self.parameters = self._columns.parameters

    def __repr__(self) -> str:
        counts = (self.compiled.num_qubits, "qubit"), (self.num_inputs, "input"), (self.num_weights, "weight")
        texts = [*(count_text(*count) for count in counts), arguments_text(self._settings() | self.options.changed())]
        return f"{type(self).__name__}({', '.join(filter(None, texts))})"

    def _settings(self) -> dict[str, Any]:
        """Return further arguments, for ``repr``."""
        return {}

    @property
    def num_inputs(self) -> int:
        """I, the number of inputs of a sample."""
        return len(self._columns.inputs)

    @property
    def num_weights(self) -> int:
        """W, the number of weights."""
        return len(self._columns.weights)

    @abstractmethod
    def _pairs(self, batch: PairBatch) -> Pairs:
        """Return the pairs of a batch that is checked."""

    def values(self, inputs: Any, weights: Any = (), others: Any = None) -> np.ndarray:
        """Return the matrix K, float64 (N, M). Elements of equal samples are exactly 1.

        Args:
            inputs: x, real (N, I), in the order of ``input_params``; or a dict of values by name.
            weights: w, real (W,), in the order of ``weight_params``, or values by name.
            others: y, real (M, I); None makes the matrix of x alone.

        Raises:
            ValueError: for shapes that do not fit, or values that are not finite.
            MemoryError: if a state does not fit the memory limit, or the matrix does not fit the free memory.
        """
        return self.evaluate(PairBatch(inputs, weights, others)).values

    def value_and_vjp(
        self,
        inputs: Any,
        weights: Any,
        cotangents: MatrixCotangents,
        others: Any = None,
        *,
        input_gradients: bool = True,
        weight_gradients: bool = True,
    ) -> KernelVjp:
        """Return the matrix and a vector-Jacobian product, by one backward sweep for each sample.

        The product is the gradient of ``sum_ij C_ij K_ij`` with the cotangents C kept constant. If ``C = dL/dK`` for a
        loss L of the matrix, it is the gradient of the loss. Elements of a sample with itself have no gradient.

        Args:
            inputs: x, real (N, I), or values by name.
            weights: w, real (W,), or values by name.
            cotangents: C, real (N, M). Or a function that maps the matrix (N, M) to C; it is called once.
            others: y, real (M, I); None makes the matrix of x alone.
            input_gradients: whether gradients of x and y are computed.
            weight_gradients: whether the gradient of w is computed.

        Raises:
            TypeError: if the cotangents are a tuple of a loss and its derivatives.
            ValueError: for shapes that do not fit, or values that are not finite.
            MemoryError: as `values`.
        """
        batch = self._checked(PairBatch(inputs, weights, others, input_gradients, weight_gradients))
        if not callable(cotangents):
            cotangents = check_matrix(cotangents, batch.shape)
        pairs = self._pairs(batch)
        with Progress(self.options.progress, (pairs.part, pairs.part_of_gradients)) as progress:
            progress.next_part()
            values = pairs.values(progress.watch)
            if callable(cotangents):
                cotangents = check_matrix(cotangents(values), batch.shape)
            progress.next_part()
            return self._vjp(pairs, cotangents, progress.watch)._replace(values=values)

    def _vjp(self, pairs: Pairs, cotangents: np.ndarray, watch: Watch) -> KernelVjp:
        """Return gradients. Cotangents that the number format cannot hold are scaled by a power of two."""
        scaled, exponent = scaled_cotangents(cotangents, self.options.dtype)
        vjp = pairs.vjp(scaled, watch)
        return KernelVjp(*(None if part is None else np.ldexp(part, exponent) for part in vjp)) if exponent else vjp

    def evaluate(self, batch: PairBatch) -> KernelEvaluation:
        """Return the matrix of a batch, whose gradients are computed when they are asked for.

        Raises:
            ValueError: for shapes that do not fit, or values that are not finite.
            MemoryError: as `values`.
        """
        batch = self._checked(batch)
        pairs = self._pairs(batch)
        with Progress(self.options.progress, (pairs.part for _ in range(1))) as progress:
            progress.next_part()
            values = pairs.values(progress.watch)

        def vjp(cotangents: np.ndarray) -> KernelVjp:
            cotangents = check_matrix(cotangents, batch.shape)
            with Progress(self.options.progress, (pairs.part_of_gradients for _ in range(1))) as progress:
                progress.next_part()
                return self._vjp(pairs, cotangents, progress.watch)._replace(values=values)

        return KernelEvaluation(values, vjp)

    def _checked(self, batch: PairBatch) -> PairBatch:
        """Return a batch whose samples and weights are arrays in the order of their parameters."""
        weights = ordered_values(batch.weights, self.parameters[1], "weights")
        if weights.shape != (self.num_weights,):
            raise ValueError(f"weights have shape {weights.shape}; allowed: ({self.num_weights},).")
        check_finite(weights, self.parameters[1])
        inputs = self._samples(self.names[0], batch.inputs)
        others = None if batch.others is None else self._samples(self.names[1], batch.others)
        return batch._replace(inputs=inputs, weights=weights, others=others, names=self.names)

    def _samples(self, argument: str, values: Any) -> np.ndarray:
        """Return samples as an array (N, I), checked."""
        samples = ordered_values(values, self.parameters[0], argument)
        if samples.ndim == 1 and is_by_name(values):  # one sample by name
            samples = samples[None]
        if samples.ndim != 2 or samples.shape[1] != self.num_inputs:
            raise ValueError(f"{argument} have shape {samples.shape}; allowed: (samples, {self.num_inputs}).")
        with renumbered(lambda row: f"{row} of {argument}"):
            check_finite(samples, self.parameters[0])
        return samples


def check_matrix(cotangents: Any, shape: tuple[int, int]) -> np.ndarray:
    """Return the cotangents of a matrix as an array of its shape.

    Raises:
        TypeError: for a tuple of a loss and its derivatives.
        ValueError: for another shape, or a cotangent that is not finite.
    """
    if isinstance(cotangents, tuple) and cotangents and np.ndim(cotangents[0]) == 0:
        raise TypeError(
            f"cotangents are a tuple of {len(cotangents)} with a number at 0; allowed: an array of shape {shape}. A "
            "function of the matrix returns dL/dK alone, without the loss L."
        )
    array = real_values(cotangents, "cotangents", "element of the matrix")
    if array.shape != shape:
        raise ValueError(f"cotangents have shape {array.shape}; allowed: {shape}, one for each element of the matrix.")
    if not is_finite(array):
        row, column = np.argwhere(~np.isfinite(array))[0].tolist()
        raise ValueError(f"the cotangent of element ({row}, {column}) of the matrix is {array[row, column]}.")
    return array
