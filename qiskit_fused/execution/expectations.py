# SPDX-License-Identifier: Apache-2.0
"""Expectation values as a differentiable function of inputs and weights, for training: block by block of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from typing import Any

import numpy as np
from qiskit.circuit import Parameter, QuantumCircuit

from qiskit_fused.common.display import arguments_text
from qiskit_fused.common.forks import cached_property
from qiskit_fused.common.row_errors import shifted
from qiskit_fused.common.text import count_text
from qiskit_fused.compilation.circuits import COMPILED, CompiledCircuit
from qiskit_fused.compilation.observables import FixedObservables, LiveObservables
from qiskit_fused.execution.arguments import is_by_name, ordered_values
from qiskit_fused.execution.derivatives import check_derivatives, pull_back
from qiskit_fused.execution.evaluate import check_finite, evaluate
from qiskit_fused.execution.executor import cut_rows, options_of_workers, run_portions
from qiskit_fused.execution.initial_states import RowStarts, check_states
from qiskit_fused.execution.progress import Part, Progress
from qiskit_fused.execution.row_batches import Cotangents, Found, Rows, Vjp, check_cotangents
from qiskit_fused.execution.shared_evaluation import Wanted
from qiskit_fused.options.fused_options import FusedOptions, FusedOptionsDict, Unpack
from qiskit_fused.options.keywords import checks_keywords
from qiskit_fused.primitives.gradient_requests import all_pairs, as_slice, join_rows
from qiskit_fused.program.observables import Observables

_BLOCK_BYTES = 1 << 26  # of the values and gradients of a block of rows
_BLOCKS_IN_LIMIT = 8  # these take at most this part of memory_limit
_FORWARD = 0.25  # of the time of a gradient, where values are needed before it, about
_MIN_BLOCK_ROWS = 16  # where a row alone takes many bytes: threads run rows side by side


class Expectations:
    """Expectation values of K observables after one circuit, as a function of inputs (B, I) and weights (W,).

    The circuit is compiled when this is made. Observables are looked at in each call, which sees them as they are then.

    Args:
        circuit: the circuit, or what `compile_circuit` made of it.
        observables: one observable or a list of K; None is Z on all qubits.
        input_params: I parameters of the circuit that each row has values of its own for.
        weight_params: W parameters that all rows share; with the inputs, all parameters of the circuit.
        options: how the engine runs: `FusedOptions`, which are kept, not copied, or a mapping.
        keywords: single options, which override ``options``.

    Attributes:
        parameters: inputs and weights.

    Raises:
        UnsupportedInstruction: when the circuit holds an instruction no sweep can do.
        TypeError: for a circuit or an observable of a wrong type, or an unknown option.
        ValueError: for parameters that are not those of the circuit, or observables on other qubits.
    """

    parameters: tuple[tuple[Parameter, ...], tuple[Parameter, ...]]
    _frozen: Expectations | None = None

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
        self._observables: LiveObservables | FixedObservables = LiveObservables(observables, compiled.num_qubits)
        self._inputs = compiled.find_columns("input_params", input_params)
        self._weights = compiled.find_columns("weight_params", weight_params)
        inputs, weights = ([compiled.parameters[one] for one in columns] for columns in (self._inputs, self._weights))
        self.parameters = tuple(inputs), tuple(weights)
        given = np.bincount(np.concatenate([self._inputs, self._weights]), minlength=len(compiled.parameters))
        if (given != 1).any():
            name = compiled.parameters[int(np.flatnonzero(given != 1)[0])].name
            raise ValueError(
                f"parameter '{name}' of the circuit must be one input parameter or one weight parameter, not "
                f"{'both' if given.max() > 1 else 'neither'}."
            )

    def __repr__(self) -> str:
        counts = (self.compiled.num_qubits, "qubit"), (self.num_inputs, "input"), (self.num_weights, "weight")
        texts = [count_text(*count) for count in (*counts, (self.num_observables, "observable"))]
        return f"Expectations({', '.join(filter(None, [*texts, arguments_text(self.options.changed())]))})"

    @property
    def operators(self) -> Observables:
        """The observables as they are now."""
        return self._observables.now()

    def frozen(self) -> Expectations:
        """Return this function with the observables as they are now, which later changes of them do not reach."""
        if isinstance(self._observables, FixedObservables):
            return self
        operators, known = self.operators, self._frozen
        if known is None or known.operators is not operators:
            known = copy(self)
            known._observables = FixedObservables(operators)
            self._frozen = known
        return known

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_frozen"}

    @cached_property
    def _index(self) -> tuple[Any, Any]:
        """Columns of inputs and weights, as slices where they are consecutive: these select without a copy."""
        return as_slice(self._inputs), as_slice(self._weights)

    @cached_property
    def _wanted(self) -> tuple[Wanted, Wanted]:
        """Which gradients of a weighted sum matter, without and with those of the inputs."""
        return Wanted.of(self.compiled.program, self._inputs, self._weights)

    @property
    def num_inputs(self) -> int:
        """I, inputs of a row."""
        return len(self._inputs)

    @property
    def num_weights(self) -> int:
        """W, weights."""
        return len(self._weights)

    @property
    def num_observables(self) -> int:
        """K, observables."""
        return self._observables.num_observables

    def values(self, inputs: Any, weights: Any, *, initial_states: Any = None) -> np.ndarray:
        """Return expectation values, float64 (B, K).

        Args:
            inputs: (B, I), in the order of ``input_params``; or a dict or ``BindingsArray`` of values by name.
            weights: (W,), in the order of ``weight_params``, or values by name.
            initial_states: real or complex (B, 2**n), in which the qubits of each row start instead of ``|0...0>``; of
                norm 1. The circuit must not need ``|0>``.

        Raises:
            ValueError: for shapes that do not fit, values that are not finite, or a start whose norm is wrong.
            MemoryError: when a row does not fit the memory limit.
        """
        inputs, weights = self._check(inputs, weights)
        rows = Rows(inputs, weights, self._starts(initial_states, len(inputs), False))
        return self._run(Expectations._values, rows, None)

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
        """Return values and the gradient of the sum of cotangents times values: one sweep back for all observables.

        Rows go through in blocks: memory does not depend on rows times weights.

        >>> from qiskit.circuit import Parameter, QuantumCircuit
        >>> circuit, x, w = QuantumCircuit(1), Parameter("x"), Parameter("w")
        >>> _ = circuit.ry(x + w, 0)
        >>> function = Expectations(circuit, "Z", [x], [w])
        >>> targets = np.array([[1.0], [0.0]])
        >>> squares = lambda values: 2 * (values - targets) / len(targets)  # of the mean squared error
        >>> values, of_inputs, of_weights, _ = function.value_and_vjp([[0.0], [0.5]], [0.5], squares)
        >>> values.round(3).tolist(), of_inputs.round(3).tolist(), of_weights.round(3).tolist()
        ([[0.878], [0.54]], [[0.059], [-0.455]], [-0.396])

        Args:
            inputs: (B, I).
            weights: (W,).
            cotangents: (B, K), the derivative of a loss with respect to each value. Or a function that maps the values
                (B, K) to it, which is called once with the values of all rows, in this process, however the rows are
                cut into blocks or go to workers; it costs another forward sweep.
            initial_states: see `values`.
            input_gradients: whether gradients of the inputs are wanted.
            weight_gradients: whether gradients of the weights are wanted; if not, some may be NaN.
            state_gradients: whether gradients of the initial states are wanted, where they are given.

        Returns:
            Values (B, K), the gradient of the inputs (B, I) or None, that of the weights (W,), summed over all rows,
            and that of the initial states or None, in this order; see `Vjp`.

        Raises:
            ValueError: for shapes that do not fit, values that are not finite, or a start whose norm is wrong.
            MemoryError: when a row does not fit the memory limit.
        """
        inputs, weights = self._check(inputs, weights)
        starts = self._starts(initial_states, len(inputs), input_gradients, state_gradients)
        if not callable(cotangents):
            cotangents = check_cotangents(cotangents, (len(inputs), self.num_observables))
        rows = Rows(inputs, weights, starts, cotangents)
        return self._run(Expectations._vjp, rows, len(inputs), input_gradients, weight_gradients)

    def value_and_jacobian(
        self, inputs: Any, weights: Any, *, initial_states: Any = None, input_gradients: bool = True
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Return values (B, K) and their gradients with respect to inputs (B, K, I), or None, and weights (B, K, W).

        Args:
            inputs: (B, I).
            weights: (W,).
            initial_states: see `values`.
            input_gradients: whether gradients of the inputs are wanted.

        Raises:
            ValueError: for shapes that do not fit, values that are not finite, or a start whose norm is wrong.
            MemoryError: when a row does not fit the memory limit.
        """
        inputs, weights = self._check(inputs, weights)
        starts = self._starts(initial_states, len(inputs), input_gradients, False)
        num_adjoint_states = len(inputs) * self.num_observables
        return self._run(Expectations._jacobian, Rows(inputs, weights, starts), num_adjoint_states, input_gradients)

    def _run(self, method: Callable[..., Any], rows: Rows, num_adjoint_states: int | None, *flags: bool) -> Any:
        with self._progress(len(rows.inputs), num_adjoint_states) as progress:
            progress.next_part()
            return method(self.frozen(), progress, rows, *flags)

    def _values(self, progress: Progress, rows: Rows) -> np.ndarray:
        def find(part: Rows) -> np.ndarray:
            return self._evaluate(part, progress).values

        parts = self._parts(progress, rows, 0, find, Expectations._values)
        return join_rows(((part, (found,)) for part, found in parts), len(rows.inputs))[0]

    def _vjp(self, progress: Progress, rows: Rows, input_gradients: bool, weight_gradients: bool) -> Vjp:
        if callable(rows.cotangents):
            with progress.share(0.0, _FORWARD):
                known = self._values(progress, rows._replace(cotangents=None))
            rows = rows._replace(cotangents=check_cotangents(rows.cotangents(known), known.shape))
            with progress.share(_FORWARD, 1.0):
                return self._vjp(progress, rows, input_gradients, weight_gradients)
        of_weights = np.zeros(self.num_weights)

        def find(part: Rows) -> Vjp:
            found = self._evaluate(part, progress, False, (input_gradients, weight_gradients))
            inputs, weights = (found.gradients[:, index] for index in self._index)
            return Vjp(found.values, inputs if input_gradients else None, weights.sum(axis=0), found.of_states)

        def each() -> Iterator[tuple[slice, Any]]:
            for part, found in self._parts(
                progress, rows, 1, find, Expectations._vjp, input_gradients, weight_gradients
            ):
                np.add(of_weights, found.weights, out=of_weights)
                yield part, found._replace(weights=None)

        return Vjp(*join_rows(each(), len(rows.inputs)))._replace(weights=of_weights)

    def _jacobian(
        self, progress: Progress, rows: Rows, input_gradients: bool
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        count = self.num_observables

        def find(part: Rows) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
            found = self._evaluate(part, progress, True, (input_gradients, True))
            gradients = found.gradients.reshape(-1, count, len(self.compiled.parameters))
            inputs, weights = (gradients[:, :, index] for index in self._index)
            return found.values, inputs if input_gradients else None, weights

        return join_rows(
            self._parts(progress, rows, count, find, Expectations._jacobian, input_gradients), len(rows.inputs)
        )

    def _parts(
        self,
        progress: Progress,
        rows: Rows,
        lams_per_row: int,
        find: Callable[[Rows], Any],
        method: Callable[..., Any],
        *flags: bool,
    ) -> Iterator[tuple[slice, Any]]:
        """Yield some rows after the others, and what ``find`` finds for them or, on a worker, ``method``."""
        num_rows = len(rows.inputs)
        portions = cut_rows(self.options, self.compiled, num_rows, lams_per_row * num_rows if lams_per_row else None)
        if not portions:
            numbers = self.compiled.program.num_columns * max(lams_per_row, 1) + self.num_observables
            for block in self._blocks(num_rows, numbers, progress):
                with shifted(block.start):
                    found = find(rows.part(block))
                yield block, found
            return
        yield from zip(portions, self._ask_workers(progress, rows, portions, method, *flags))

    def _ask_workers(
        self, progress: Progress, rows: Rows, portions: list[slice], method: Callable[..., Any], *flags: bool
    ) -> Iterator[Any]:
        """Yield what a method finds for each portion of rows, in order."""
        columns, options = (self._inputs, self._weights), options_of_workers(self.options)
        return run_portions(
            self.options.executor,
            _work,
            (self.compiled, self.operators),
            lambda number: (columns, options, method, rows.part(portions[number]), flags),
            portions,
            watch=progress.watch,
        )

    def _evaluate(
        self, rows: Rows, progress: Progress, jacobian: bool = False, of: tuple[bool, bool] = (True, True)
    ) -> Found:
        """Evaluate rows; ``of`` says whether gradients of inputs and of weights are asked for."""
        inputs, weights, starts, cotangents = rows
        values, (of_inputs, of_weights) = np.empty((len(inputs), len(self.compiled.parameters))), self._index
        values[:, of_inputs], values[:, of_weights] = inputs, weights
        pairs = all_pairs(len(inputs), self.num_observables)
        evaluation = evaluate(
            self.options,
            self.compiled,
            self.operators,
            values,
            pairs,
            gradient=jacobian or cotangents is not None,
            cotangents=None if cotangents is None else cotangents.ravel(),
            starts=starts,
            wanted=self._wanted[jacobian or of[0]],
            watch=progress.watch,
        )
        gradients = evaluation.gradients
        if gradients is not None:
            of_rows = pairs if jacobian else all_pairs(len(inputs), 1)
            gradients = pull_back(self.compiled, values, gradients, of_rows, self.operators)
            if cotangents is not None and not np.isfinite(gradients).all():
                gradients[~cotangents.any(axis=1)] = 0.0  # a row of weight 0 has no part in the sum
            asked = np.concatenate([self._inputs[: None if of[0] else 0], self._weights[: None if of[1] else 0]])
            per_row = len(gradients) // max(len(inputs), 1)
            check_derivatives(self.compiled, values, gradients.reshape(len(inputs), per_row, values.shape[1]), asked)
        shape = len(inputs), self.num_observables
        return Found(evaluation.values.reshape(shape), gradients, evaluation.state_gradients)

    def _starts(self, states: Any, num_rows: int, input_gradients: bool, state_gradients: bool = False) -> RowStarts:
        """Check states that were given, and say whether gradients of the start are wanted."""
        if states is None:
            wanted = None if input_gradients else self._weights
            return RowStarts(gradients=self.compiled.program.encodes(wanted))
        states = check_states(states, self.compiled.num_qubits)
        if len(states) != num_rows:
            raise ValueError(
                f"there are {len(states)} initial_states; allowed: {num_rows}, one for each row of inputs."
            )
        return RowStarts(states, state_gradients)

    def _blocks(self, num_rows: int, numbers_per_row: int, progress: Progress) -> Iterator[slice]:
        row = 8 * numbers_per_row
        size = max(_BLOCK_BYTES // row, _MIN_BLOCK_ROWS)
        if self.options.memory_limit is not None:
            size = max(min(size, self.options.resolve_memory_limit() // (_BLOCKS_IN_LIMIT * row)), 1)
        for begin in range(0, max(num_rows, 1), size):
            block = slice(begin, min(begin + size, num_rows))
            with progress.share(block.start / max(num_rows, 1), block.stop / max(num_rows, 1)):
                yield block

    def _progress(self, num_rows: int, num_adjoint_states: int | None) -> Progress:
        return Progress(self.options.progress, (Part.of(self.compiled, num_rows, num_adjoint_states) for _ in range(1)))

    def _check(self, inputs: Any, weights: Any) -> tuple[np.ndarray, np.ndarray]:
        one_row = is_by_name(inputs)
        inputs = ordered_values(inputs, self.parameters[0], "inputs")
        weights = ordered_values(weights, self.parameters[1], "weights")
        if one_row and inputs.ndim == 1:
            inputs = inputs[None]
        if inputs.ndim != 2 or inputs.shape[1] != self.num_inputs:
            raise ValueError(f"inputs have shape {inputs.shape}; allowed: (rows, {self.num_inputs}).")
        if weights.shape != (self.num_weights,):
            raise ValueError(f"weights have shape {weights.shape}; allowed: ({self.num_weights},).")
        check_finite(inputs, self.parameters[0])
        check_finite(weights, self.parameters[1])
        return inputs, weights


def _work(
    compiled: CompiledCircuit,
    operators: Observables,
    cancelled: Any,
    columns: tuple[np.ndarray, np.ndarray],
    options: FusedOptions,
    method: Callable[..., Any],
    rows: Rows,
    flags: tuple[bool, ...],
) -> Any:
    """Do a portion of the rows, on a worker."""
    function = object.__new__(Expectations)
    function.compiled, function.options = compiled, options
    function._observables = FixedObservables(operators)
    function._inputs, function._weights = columns
    with Progress(False, ()) as progress:
        return method(function, progress, rows, *flags)
