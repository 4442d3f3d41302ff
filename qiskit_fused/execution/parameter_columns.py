# SPDX-License-Identifier: Apache-2.0
"""The parameters of a circuit as two groups: inputs, which vary between rows, and weights, which all rows share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qiskit_fused.common.array_modules import array_module
from qiskit_fused.common.forks import cached_property
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.engines.split_columns import SplitColumns

if TYPE_CHECKING:
    from qiskit.circuit import Parameter


class ParameterColumns:
    """The positions of inputs and weights among the parameters of a circuit.

    Args:
        compiled: the circuit.
        inputs: int (I,), positions of the inputs.
        weights: int (W,), positions of the weights.
    """

    def __init__(self, compiled: CompiledCircuit, inputs: np.ndarray, weights: np.ndarray):
        self._compiled, self._program, self.inputs, self.weights = compiled, compiled.program, inputs, weights

    @classmethod
    def of(cls, compiled: CompiledCircuit, input_params: Any, weight_params: Any) -> ParameterColumns:
        """Return the positions of the inputs and weights of a circuit.

        Raises:
            ValueError: for a parameter that is not in the circuit, or a parameter of the circuit that is not one input
                or one weight.
        """
        inputs = compiled.find_columns("input_params", input_params)
        weights = compiled.find_columns("weight_params", weight_params)
        uses = np.bincount(np.concatenate([inputs, weights]), minlength=len(compiled.parameters))
        if (uses != 1).any():
            name = compiled.parameters[int(np.flatnonzero(uses != 1)[0])].name
            raise ValueError(
                f"parameter '{name}' of the circuit must be one input parameter or one weight parameter, not "
                f"{'both' if uses.max() > 1 else 'neither'}."
            )
        return cls(compiled, inputs, weights)

    @cached_property
    def parameters(self) -> tuple[tuple[Parameter, ...], tuple[Parameter, ...]]:
        """The parameters that are inputs, and the parameters that are weights."""
        inputs, weights = ([self._compiled.parameters[k] for k in part] for part in (self.inputs, self.weights))
        return tuple(inputs), tuple(weights)

    def check_shapes(self, inputs: Any, weights: Any) -> None:
        """Raise a ValueError for inputs that are not (B, I), or weights that are not (W,)."""
        if inputs.ndim != 2 or inputs.shape[1] != len(self.inputs):
            raise ValueError(f"inputs have shape {inputs.shape}; allowed: (rows, {len(self.inputs)}).")
        if weights.shape != (len(self.weights),):
            raise ValueError(f"weights have shape {weights.shape}; allowed: ({len(self.weights)},).")

    @cached_property
    def index(self) -> tuple[Any, Any]:
        """Positions of inputs and of weights. Consecutive positions are a slice, which selects without a copy."""
        return _as_slice(self.inputs), _as_slice(self.weights)

    def join(self, inputs: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return parameter values of the circuit, float64 (B, P), of inputs (B, I) and of weights (W,)."""
        values = np.empty((len(inputs), self._program.num_parameters))
        for index, numbers in zip(self.index, (inputs, weights)):
            values[:, index] = numbers
        return values

    def split(self, inputs: Any, weights: Any) -> SplitColumns:
        """Return the parameter values of the circuit as columns, of which the weights are stored once."""
        is_input = np.zeros(self._program.num_parameters, bool)
        is_input[self.inputs] = True
        return SplitColumns(_sorted(inputs, self.inputs), _sorted(weights, self.weights), is_input)

    @cached_property
    def depend_on_inputs(self) -> np.ndarray:
        """Bool (C,): whether a column of the program depends on inputs, and so may vary between rows."""
        is_input = np.zeros(self._program.num_parameters, bool)
        is_input[self.inputs] = True
        return self._program.depends_on(is_input)

    @cached_property
    def shared(self) -> np.ndarray:
        """Bool (C,): whether a column does not depend on inputs, and so is the same in all rows."""
        return ~self.depend_on_inputs

    @cached_property
    def unused_without_input_gradients(self) -> np.ndarray:
        """Bool (C,): whether a column does not depend on weights."""
        is_weight = np.zeros(self._program.num_parameters, bool)
        is_weight[self.weights] = True
        return ~self._program.depends_on(is_weight)

    @cached_property
    def summed_without_input_gradients(self) -> np.ndarray:
        """Bool (C,): whether a column is the same in all rows, or does not depend on weights."""
        summed: np.ndarray = self.shared | self.unused_without_input_gradients
        return summed

    @cached_property
    def places(self) -> tuple[Any, Any]:
        """Indices of the gradients of inputs and of weights, among the gradients of split columns (see `_places`)."""
        return self._places(self.shared)

    @cached_property
    def places_without_input_gradients(self) -> tuple[Any, Any]:
        """The same where gradients of inputs are not requested; only the index of weights is valid."""
        return self._places(self.summed_without_input_gradients)

    def _places(self, is_summed: np.ndarray) -> tuple[Any, Any]:
        """Return indices as `index` does.

        The gradients of summed columns are one array and the gradients of the other columns another array, both in the
        order of the columns.
        """
        position = np.where(is_summed, np.cumsum(is_summed), np.cumsum(~is_summed)) - 1
        return _as_slice(position[self.inputs]), _as_slice(position[self.weights])


def _sorted(numbers: Any, positions: np.ndarray) -> Any:
    """Return numbers (..., P) in the order of their positions, as a view if they are in order."""
    if (positions[1:] > positions[:-1]).all():
        return numbers
    return numbers[..., array_module(numbers).asarray(np.argsort(positions))]


def _as_slice(columns: np.ndarray) -> Any:
    """Return a slice that selects the same columns; the columns themselves where no slice does."""
    if len(columns) and (columns == columns[0] + np.arange(len(columns))).all():
        return slice(int(columns[0]), int(columns[0]) + len(columns))
    return columns
