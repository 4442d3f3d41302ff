# SPDX-License-Identifier: Apache-2.0
"""Expectation values as a differentiable function of inputs and weights, for training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from qiskit.circuit import Parameter, QuantumCircuit

from qiskit_fused.common.display import arguments_text
from qiskit_fused.common.text import count_text
from qiskit_fused.compilation.circuits import COMPILED, CompiledCircuit
from qiskit_fused.compilation.observables import FixedObservables, LiveObservables
from qiskit_fused.execution.arguments import is_by_name, ordered_values
from qiskit_fused.execution.input_rules import InputRules, input_rules
from qiskit_fused.execution.parameter_columns import ParameterColumns
from qiskit_fused.execution.row_batches import Cotangents, RowBatch, Vjp, check_cotangents
from qiskit_fused.execution.row_functions import RowFunction
from qiskit_fused.options.fused_options import FusedOptions, FusedOptionsDict, Unpack
from qiskit_fused.options.keywords import checks_keywords
from qiskit_fused.program.observables import Observables


class Expectations:
    """Expectation values of K observables after one circuit, as a function of inputs x (B, I) and weights w (W,).

    Value k of row b is ``E_k(x_b, w) = <0|U(x_b, w)^+ O_k U(x_b, w)|0>``, where U is the circuit, ``U^+`` its adjoint,
    ``|0>`` the state of all qubits in 0 (or an initial state of the row), and O_k the k-th observable.

    The circuit is compiled when this object is made. Each call reads the observables, so it sees an observable that was
    changed in place.

    >>> circuit, x, w = QuantumCircuit(1), Parameter("x"), Parameter("w")
    >>> _ = circuit.ry(x + w, 0)
    >>> function = Expectations(circuit, ["Z", "X"], [x], [w])
    >>> function.values([[0.0], [0.5]], [0.5]).round(3).tolist()
    [[0.878, 0.479], [0.54, 0.841]]

    Args:
        circuit: the circuit, or the result of `compile_circuit`.
        observables: one observable or a list of K; None is Z on all qubits. Or the ``Outcomes`` of a measurement: then
            value k is the probability of outcome k.
        input_params: the I parameters of which each row has its own values.
        weight_params: the W parameters whose values all rows share. Each parameter of the circuit is one input or one
            weight.
        options: `FusedOptions`, which are kept, not copied, or a mapping.
        keywords: single options, which override ``options``.

    Attributes:
        parameters: the input parameters and the weight parameters, two tuples.

    Raises:
        UnsupportedInstruction: if the circuit has an instruction that no engine can simulate.
        TypeError: for a circuit or an observable of a wrong type, or an unknown option.
        ValueError: for a parameter that is not in the circuit, a parameter of the circuit that is not one input or one
            weight, or observables on another number of qubits.

    Source: adjoint differentiation, arXiv:2009.02823; gates fused in both directions, arXiv:2603.02804.
    """

    parameters: tuple[tuple[Parameter, ...], tuple[Parameter, ...]]
    _rules: tuple[str, InputRules] | None = None  # the result of `input_rules`, and its number format
    _latest: RowFunction | None = None  # the result of `function` for the latest observables and options

    @checks_keywords(input_parameters="input_params", weight_parameters="weight_params")
    def __init__(
        self,
        circuit: QuantumCircuit | CompiledCircuit,
        observables: Any = None,
        input_params: Iterable[Parameter] = (),
        weight_params: Iterable[Parameter] = (),
        options: FusedOptions | Mapping[str, Any] | None = None,
        **keywords: Unpack[FusedOptionsDict],
    ):
        self.compiled = compiled = COMPILED.get(circuit)
        if keywords or not isinstance(options, FusedOptions):
            options = FusedOptions.coerce(options, **keywords)
        self.options = options
        self._observables: LiveObservables | FixedObservables
        if isinstance(observables, Observables):
            self._observables = FixedObservables(observables)
        else:
            self._observables = LiveObservables(observables, compiled.num_qubits)
        self._columns = columns = ParameterColumns.of(compiled, input_params, weight_params)
        self.parameters = columns.parameters

    def __repr__(self) -> str:
        counts = (self.compiled.num_qubits, "qubit"), (self.num_inputs, "input"), (self.num_weights, "weight")
        texts = [count_text(*count) for count in (*counts, (self.num_observables, "observable"))]
        return f"Expectations({', '.join(filter(None, [*texts, arguments_text(self.options.changed())]))})"

    @property
    def operators(self) -> Observables:
        """The observables as they are now, converted to bit masks."""
        return self._observables.now()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_latest", "_rules")}

    @property
    def function(self) -> RowFunction:
        """This function of the observables as they are now. Later changes of the observables do not reach it."""
        operators, latest = self.operators, self._latest
        if latest is None or latest.operators is not operators or latest.options is not self.options:
            latest = self._latest = RowFunction(self.compiled, operators, self.options, self._columns)
        return latest

    @property
    def num_inputs(self) -> int:
        """I, the number of inputs of a row."""
        return len(self._columns.inputs)

    @property
    def num_weights(self) -> int:
        """W, the number of weights."""
        return len(self._columns.weights)

    @property
    def num_observables(self) -> int:
        """K, the number of observables."""
        return self._observables.num_observables

    def values(self, inputs: Any, weights: Any, *, initial_states: Any = None) -> np.ndarray:
        """Return expectation values, float64 (B, K): row b, observable k. A row takes one forward sweep.

        Args:
            inputs: real (B, I), in the order of ``input_params``; or a dict or ``BindingsArray`` of values by name.
            weights: real (W,), in the order of ``weight_params``, or values by name.
            initial_states: real or complex (B, 2^n) of norm 1, in which the n qubits of the circuit start instead of
                ``|0...0>``.

        Raises:
            UnsupportedInstruction: with ``initial_states``, if an instruction needs its qubits in ``|0>``.
            ValueError: for shapes that do not fit, values that are not finite, or a state whose norm is not 1.
            MemoryError: if a row does not fit the memory limit.
        """
        values: np.ndarray = self.function.evaluate(RowBatch(*self._ordered(inputs, weights), initial_states)).values
        return values

    def value_and_vjp(
        self,
        inputs: Any,
        weights: Any,
        cotangents: Cotangents,
        *,
        initial_states: Any = None,
        input_gradients: bool = True,
        weight_gradients: bool = True,
        state_gradients: bool = True,
    ) -> Vjp:
        """Return values and a vector-Jacobian product, by one backward sweep per row for all observables.

        The product is the gradient of ``sum_bk g[b, k] E_k(x_b, w)`` with the cotangents g kept constant. If
        ``g = dL/dE`` for a loss L of the values, it is the gradient of the loss.

        >>> circuit, x, w = QuantumCircuit(1), Parameter("x"), Parameter("w")
        >>> _ = circuit.ry(x + w, 0)
        >>> function = Expectations(circuit, "Z", [x], [w])
        >>> targets = np.array([[1.0], [0.0]])
        >>> slope = lambda values: 2 * (values - targets) / len(targets)  # the loss is the mean squared error
        >>> values, of_inputs, of_weights, _ = function.value_and_vjp([[0.0], [0.5]], [0.5], slope)
        >>> values.round(3).tolist(), of_inputs.round(3).tolist(), of_weights.round(3).tolist()
        ([[0.878], [0.54]], [[0.059], [-0.455]], [-0.396])

        Args:
            inputs: real (B, I), or values by name.
            weights: real (W,), or values by name.
            cotangents: g, real (B, K). Or a function that maps the values (B, K) to g; it is called once with the
                values of all rows, in this process, and costs another forward sweep.
            initial_states: see `values`.
            input_gradients: whether gradients of the inputs are computed.
            weight_gradients: whether gradients of the weights are computed; if not, some may be NaN.
            state_gradients: whether gradients of the initial states are computed, if there are initial states.

        Returns:
            A `Vjp` of values (B, K), the gradient of the inputs (B, I) or None, the gradient of the weights (W,), which
            is summed over all rows, and the gradient of the initial states or None, in this order.

        Raises:
            TypeError: if the cotangents are a tuple of a loss and its derivatives.
            ValueError: for shapes that do not fit, values that are not finite, or a state whose norm is not 1.
            MemoryError: if a row does not fit the memory limit.

        Cost: one forward and one backward sweep per row. Rows run in blocks, so memory does not depend on the number of
        rows times the number of weights.
        """
        inputs, weights = self._ordered(inputs, weights)
        self._columns.check_shapes(inputs, weights)  # the inputs determine which shape of cotangents is allowed
        if not callable(cotangents):
            cotangents = check_cotangents(cotangents, (len(inputs), self.num_observables))
        gradients = input_gradients, weight_gradients, state_gradients and initial_states is not None
        return self.function.evaluate(RowBatch(inputs, weights, initial_states, cotangents, False, *gradients))

    def value_and_jacobian(
        self, inputs: Any, weights: Any, *, initial_states: Any = None, input_gradients: bool = True
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Return values and the gradient of each value, by one backward sweep per row and observable.

        Args:
            inputs: real (B, I), or values by name.
            weights: real (W,), or values by name.
            initial_states: see `values`.
            input_gradients: whether gradients of the inputs are computed.

        Returns:
            Values ``E_k(x_b, w)``, (B, K); ``dE_k(x_b, w)/dx_i``, (B, K, I), or None; and ``dE_k(x_b, w)/dw_j``, (B, K,
            W).

        Raises:
            ValueError: for shapes that do not fit, values that are not finite, or a state whose norm is not 1.
            MemoryError: if a row does not fit the memory limit.
        """
        inputs, weights = self._ordered(inputs, weights)
        result = self.function.evaluate(RowBatch(inputs, weights, initial_states, None, True, input_gradients))
        return result.values, result.inputs, result.weights

    def input_rules(self) -> InputRules:
        """Return the rules of derivatives with respect to single inputs."""
        dtype, latest = self.options.dtype, self._rules
        if latest is None or latest[0] != dtype:
            latest = self._rules = dtype, input_rules(self.compiled, self._columns, dtype)
        return latest[1]

    def _ordered(self, inputs: Any, weights: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs and weights as arrays, in the order of their parameters."""
        are_by_name = is_by_name(inputs)
        inputs = ordered_values(inputs, self.parameters[0], "inputs")
        weights = ordered_values(weights, self.parameters[1], "weights")
        if are_by_name and inputs.ndim == 1:  # one row of inputs by name
            inputs = inputs[None]
        return inputs, weights
