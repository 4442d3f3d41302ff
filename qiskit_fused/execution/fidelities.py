# SPDX-License-Identifier: Apache-2.0
"""Fidelities of all pairs of samples as a differentiable function of inputs and weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from qiskit.circuit import Parameter, QuantumCircuit

from qiskit_fused.common.arrays import real_values
from qiskit_fused.common.display import arguments_text
from qiskit_fused.common.row_errors import renumbered
from qiskit_fused.common.text import count_text
from qiskit_fused.compilation.circuits import COMPILED, CompiledCircuit
from qiskit_fused.execution.arguments import is_by_name, ordered_values
from qiskit_fused.execution.fidelity_pairs import FidelityPairs, KernelVjp, PairBatch
from qiskit_fused.execution.finite_values import check_finite, is_finite
from qiskit_fused.execution.progress import Progress
from qiskit_fused.execution.row_functions import ParameterColumns
from qiskit_fused.execution.statevectors import FinalStates
from qiskit_fused.options.fused_options import FusedOptions, FusedOptionsDict, Unpack
from qiskit_fused.options.keywords import checks_keywords

MatrixCotangents = np.ndarray | Callable[[np.ndarray], Any]


class Fidelities:
    """The fidelities of all pairs of samples after one circuit, as a function of inputs x (N, I) and weights w (W,).

    Element ij of the matrix is ``K_ij = |<psi(x_i, w)|psi(y_j, w)>|^2`` with ``psi(x, w) = U(x, w) |0...0>``, where U
    is the circuit. Without y, the matrix is made of x alone: it is symmetric, and its diagonal is exactly 1.

    The circuit is compiled when this object is made.

    >>> circuit, x, w = QuantumCircuit(1), Parameter("x"), Parameter("w")
    >>> _ = circuit.ry(x * w, 0)
    >>> function = Fidelities(circuit, [x], [w])
    >>> function.values([[0.0], [1.0]], [0.5]).round(3).tolist()
    [[1.0, 0.939], [0.939, 1.0]]

    Args:
        circuit: the circuit, or the result of `compile_circuit`.
        input_params: the I parameters of which each sample has its own values.
        weight_params: the W parameters whose values all samples share. Each parameter of the circuit is one input or
            one weight.
        options: `FusedOptions`, which are kept, not copied, or a mapping.
        keywords: single options, which override ``options``.

    Attributes:
        parameters: the input parameters and the weight parameters, two tuples.

    Raises:
        UnsupportedInstruction: if the circuit has an instruction that no engine can simulate.
        TypeError: for a circuit of a wrong type, or an unknown option.
        ValueError: for a parameter that is not in the circuit, or a parameter of the circuit that is not one input or
            one weight.
    """

    parameters: tuple[tuple[Parameter, ...], tuple[Parameter, ...]]

    @checks_keywords()
    def __init__(
        self,
        circuit: QuantumCircuit | CompiledCircuit,
        input_params: Iterable[Parameter] = (),
        weight_params: Iterable[Parameter] = (),
        options: FusedOptions | Mapping[str, Any] | None = None,
        **keywords: Unpack[FusedOptionsDict],
    ):
        self.compiled = compiled = COMPILED.get(circuit)
        if keywords or not isinstance(options, FusedOptions):
            options = FusedOptions.coerce(options, **keywords)
        self.options = options
        self._columns = columns = ParameterColumns.of(compiled, input_params, weight_params)
        inputs, weights = (
            tuple(compiled.parameters[column] for column in part) for part in (columns.inputs, columns.weights)
        )
        self.parameters = inputs, weights

    def __repr__(self) -> str:
        counts = (self.compiled.num_qubits, "qubit"), (self.num_inputs, "input"), (self.num_weights, "weight")
        texts = [*(count_text(*count) for count in counts), arguments_text(self.options.changed())]
        return f"Fidelities({', '.join(filter(None, texts))})"

    @property
    def num_inputs(self) -> int:
        """I, the number of inputs of a sample."""
        return len(self._columns.inputs)

    @property
    def num_weights(self) -> int:
        """W, the number of weights."""
        return len(self._columns.weights)

    def values(self, inputs: Any, weights: Any = (), others: Any = None) -> np.ndarray:
        """Return the matrix K, float64 (N, M). Elements of equal samples are exactly 1.

        Args:
            inputs: x, real (N, I), in the order of ``input_params``; or a dict of values by name.
            weights: w, real (W,), in the order of ``weight_params``, or values by name.
            others: y, real (M, I); None makes the matrix of x alone.

        Raises:
            ValueError: for shapes that do not fit, or values that are not finite.
            MemoryError: if a state does not fit the memory limit, or the matrix does not fit the free memory.

        Cost: a forward sweep for each distinct sample, and N x M x 2^n complex multiplications for n qubits, or half as
        many for x alone. States that do not fit in ``memory_limit`` are simulated again for each block.
        """
        pairs = self.pairs(PairBatch(inputs, weights, others))
        with Progress(self.options.progress, (pairs.part for _ in range(1))) as progress:
            progress.next_part()
            return pairs.values(progress.watch)

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
        loss L of the matrix, it is the gradient of the loss. The backward sweep of sample i starts from the cotangent
        of its state, ``2 sum_j (C_ij + C_ji) <psi_j|psi_i> psi_j`` for a matrix of x alone.

        >>> circuit, x, w = QuantumCircuit(1), Parameter("x"), Parameter("w")
        >>> _ = circuit.ry(x * w, 0)
        >>> function = Fidelities(circuit, [x], [w])
        >>> found = function.value_and_vjp([[0.0], [1.0]], [0.5], [[0.0, 1.0], [0.0, 0.0]])
        >>> found.weights.round(3).tolist(), found.inputs.round(3).tolist()
        ([-0.24], [[0.12], [-0.12]])

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

        Cost: as `values`, a forward and a backward sweep for each sample, and the products of `values` again.
        """
        batch = self._checked(PairBatch(inputs, weights, others, input_gradients, weight_gradients))
        if not callable(cotangents):
            cotangents = check_matrix(cotangents, batch.shape)
        pairs = self.pairs(batch)
        with Progress(self.options.progress, (pairs.part, pairs.part_of_gradients)) as progress:
            progress.next_part()
            values = pairs.values(progress.watch)
            if callable(cotangents):
                cotangents = check_matrix(cotangents(values), batch.shape)
            progress.next_part()
            return pairs.vjp(cotangents, progress.watch)._replace(values=values)

    def pairs(self, batch: PairBatch) -> FidelityPairs:
        """Return the pairs of the samples of a batch, whose fidelities and gradients are computed one by one.

        Raises:
            ValueError: for shapes that do not fit, or values that are not finite.
        """
        states = FinalStates(self.compiled, self.options, only_active=True)
        return FidelityPairs(states, self._columns, self._checked(batch))

    def _checked(self, batch: PairBatch) -> PairBatch:
        """Return a batch whose samples and weights are arrays in the order of their parameters."""
        weights = ordered_values(batch.weights, self.parameters[1], "weights")
        if weights.shape != (self.num_weights,):
            raise ValueError(f"weights have shape {weights.shape}; allowed: ({self.num_weights},).")
        check_finite(weights, self.parameters[1])
        inputs = self._samples("inputs", batch.inputs)
        others = None if batch.others is None else self._samples("others", batch.others)
        return batch._replace(inputs=inputs, weights=weights, others=others)

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
