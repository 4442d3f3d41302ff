# SPDX-License-Identifier: Apache-2.0
"""`FusedEstimatorGradient`: qiskit-machine-learning's `BaseEstimatorGradient` by adjoint sweeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.primitives import BaseEstimatorV2
from qiskit.providers import Options
from qiskit_machine_learning.gradients import BaseEstimatorGradient, DerivativeType, EstimatorGradientResult

from qiskit_fused.batches import Batch, all_pairs, columns_of, make_batches
from qiskit_fused.coercion import coerce_observables
from qiskit_fused.compiler import COMPILED, CompiledCircuit, check_observables
from qiskit_fused.display import arguments_text
from qiskit_fused.estimator import FusedEstimator
from qiskit_fused.execution import Pairs, check_device, check_finite, evaluate, pull_back, real_values
from qiskit_fused.jobs import FusedJob
from qiskit_fused.observables import Observables
from qiskit_fused.options import FusedOptions, resembles_option, unknown_option
from qiskit_fused.progress import Part, Progress
from qiskit_fused.row_starts import FROM_CIRCUIT, RowStarts, check_states

# A circuit is compared with what was compiled beside the sweeps where that takes longer than starting a thread, and
# where the sweeps leave a processor idle: threads that share a row would wait for the one that has to make way.
_COMPARED_BESIDE_SWEEPS = 400  # gates, at least
_SWEPT_BY_ONE_THREAD = 13  # qubits, at most

# What to evaluate, imaginary or not; by name, since qiskit-algorithms has its own DerivativeType.
_IMAGINARY_PARTS = {"REAL": (False,), "IMAG": (True,), "COMPLEX": (False, True)}


class FusedEstimatorGradient(BaseEstimatorGradient):
    """Gradients of expectation values with respect to all parameters, from one adjoint sweep per row and observable.

    Goes where ``ParamShiftEstimatorGradient`` goes: ``EstimatorQNN(gradient=FusedEstimatorGradient())``,
    ``VQE(gradient=...)``. Any differentiable ``ParameterExpression`` may be an angle. Gradients are exact; they are
    those of the circuit as the estimator runs it, so circuits that would fall back to another estimator are refused.
    Global phases do not count: IMAG and COMPLEX derivatives follow ``LinCombEstimatorGradient``.

    >>> from qiskit import QuantumCircuit
    >>> from qiskit.circuit import Parameter
    >>> from qiskit.quantum_info import SparsePauliOp
    >>> circuit = QuantumCircuit(1)
    >>> _ = circuit.ry(Parameter("a"), 0)
    >>> values, gradients = FusedEstimatorGradient().value_and_gradient(circuit, SparsePauliOp("Z"), [0.0])
    >>> values.tolist(), abs(gradients.round(12)).tolist()
    ([[1.0]], [[[0.0]]])

    Args:
        estimator: a `FusedEstimator`, whose options are used, or any other estimator, which is not used.
        options: `FusedOptions` or a mapping of options; other entries of a mapping are kept for ``result.options``.
        derivative_type: ``REAL`` 2 Re, ``IMAG`` 2 Im, ``COMPLEX`` 2 times ``<psi|O|d psi>``.
        pass_manager: accepted and not used: an exact gradient does not depend on how a circuit is transpiled.
        keywords: single options, which override ``options``.

    Raises:
        TypeError: for an unknown option, entries of ``options`` that look like a mistyped one included, or for an
            estimator that is none.
        ValueError: for a bad value of an option.
        RuntimeError: for a device that cannot be used.
    """

    def __init__(
        self,
        estimator: BaseEstimatorV2 | None = None,
        options: FusedOptions | Mapping[str, Any] | Options | None = None,
        derivative_type: DerivativeType = DerivativeType.REAL,
        pass_manager: Any = None,
        **keywords: Any,
    ):
        if estimator is not None and (isinstance(estimator, type) or not hasattr(estimator, "run")):
            given_type = estimator.__name__ if isinstance(estimator, type) else type(estimator).__name__
            raise TypeError(
                f"estimator must be an estimator or None, not {given_type}; options go into options=... or keywords."
            )
        others: dict[str, Any] = {}
        shared = isinstance(estimator, FusedEstimator)
        own = options if isinstance(options, FusedOptions) else None
        if options is not None and own is None:
            given = dict(options.items()) if isinstance(options, Mapping) else dict(options.__dict__)
            names = FusedOptions.__dataclass_fields__
            keywords = {name: value for name, value in given.items() if name in names} | keywords
            others = {name: value for name, value in given.items() if name not in names}
            for name in filter(resembles_option, others):
                raise unknown_option(name)
        if own is not None or keywords or not shared:
            base = own if own is not None else (estimator._options if isinstance(estimator, FusedEstimator) else None)
            self._own_options: FusedOptions | None = FusedOptions.coerce(base, **keywords)
            check_device(self._own_options)
        else:
            self._own_options = None
        super().__init__(
            estimator,
            options=Options(**others),
            derivative_type=derivative_type,
            pass_manager=pass_manager,
        )

    def __repr__(self) -> str:
        changed = self.fused_options.changed()
        if self._derivative_type.name != "REAL":
            changed["derivative_type"] = self._derivative_type
        return f"FusedEstimatorGradient({arguments_text(changed)})"

    @property
    def fused_options(self) -> FusedOptions:
        """The options of the engine, those of the estimator unless own ones were given."""
        if self._own_options is not None:
            return self._own_options
        assert isinstance(self._estimator, FusedEstimator)
        return self._estimator._options

    @BaseEstimatorGradient.derivative_type.setter
    def derivative_type(self, derivative_type: DerivativeType) -> None:
        """Set the derivative type."""
        self._derivative_type = derivative_type

    def value_and_gradient(
        self,
        circuit: QuantumCircuit | CompiledCircuit,
        observables: Any,
        parameter_values: Any,
        parameters: Iterable[Parameter] | Parameter | None = None,
        *,
        initial_states: Any = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return values and gradients of all pairs of rows and observables: the fast path for training loops.

        No job and no per-row lists: about 30 us of Python beside the sweeps and the comparison of the circuit with what
        was compiled (0.3 us per gate; of large circuits beside the sweeps). Observables are recognised by identity, so
        keep the objects.

        Args:
            circuit: the circuit, with P parameters, or what `compile_circuit` made of it.
            observables: one observable or a list of K (anything ``ObservablesArray`` takes).
            parameter_values: (B, P), or (P,) for B = 1, in ``circuit.parameters`` order.
            parameters: the parameters to differentiate, in the order wanted; None is all, in circuit order.
            initial_states: real or complex (B, 2^n) of norm 1, in which all n qubits of the circuit start instead of
                ``|0...0>``. One row of values is taken for all states, and one state for all rows of values.

        Returns:
            Values (B, K) and gradients (B, K, P), both also for B = 1 and K = 1. Gradients are complex128 when
            the derivative type is COMPLEX, else float64.

        Raises:
            UnsupportedInstruction: when the circuit holds an instruction no sweep can do, or one that needs its qubits
                in ``|0>`` where there are ``initial_states``.
            TypeError: for a circuit, observable or values of a wrong type.
            ValueError: for shapes that do not fit, foreign parameters, values that are not finite, or states whose norm
                is not 1; it names the row.
        """
        given = observables, parameter_values, initial_states
        if parameters is not None:
            parameters = [parameters] if isinstance(parameters, Parameter) else list(parameters)
        if isinstance(circuit, CompiledCircuit):
            return self._value_and_gradient(circuit, given, parameters)[:2]
        candidate = COMPILED.candidate(circuit)
        if (
            candidate is not None
            and candidate.num_instructions >= _COMPARED_BESIDE_SWEEPS
            and candidate.num_qubits <= _SWEPT_BY_ONE_THREAD
            and self.fused_options.progress is False  # which does not begin again when the circuit has changed
        ):
            try:
                *results, unchanged = self._value_and_gradient(
                    candidate, given, parameters, lambda: candidate.describes(circuit)
                )
            except Exception:
                if candidate.describes(circuit):
                    raise
                unchanged = False  # the error may be one of the circuit as it was
            if unchanged:
                return results[0], results[1]
        compiled = COMPILED.get(circuit)
        return self._value_and_gradient(compiled, given, parameters)[:2]

    def _value_and_gradient(
        self,
        compiled: CompiledCircuit,
        given: tuple[Any, Any, Any],
        parameters: list[Parameter] | None,
        meanwhile: Callable[[], bool] | None = None,
    ) -> tuple[np.ndarray, np.ndarray, bool]:
        observables, parameter_values, initial_states = given
        operators = coerce_observables(observables).operators
        check_observables(compiled.num_qubits, operators)
        num_parameters, num_observables = len(compiled.parameters), operators.num_observables
        values = real_values(parameter_values)
        if values.ndim == 1:
            values = values[None]
        if values.ndim != 2 or values.shape[1] != num_parameters:
            raise ValueError(
                f"parameter_values has shape {np.shape(parameter_values)}; the circuit has {num_parameters} "
                f"parameters, allowed: (rows, {num_parameters}) or ({num_parameters},)."
            )
        check_finite(values, compiled.parameters)
        columns = None if parameters is None else _columns(compiled, parameters)
        starts = FROM_CIRCUIT if compiled.program.encodes(columns) else RowStarts(gradients=False)
        if initial_states is not None:
            states = check_states(initial_states, compiled.num_qubits)
            values, states = _same_number(values, states)
            starts = RowStarts(states, gradients=False)
        pairs = all_pairs(len(values), num_observables)
        options, imaginary = self.fused_options, _IMAGINARY_PARTS[self._derivative_type.name]
        parts = (Part.of(compiled, len(values), len(pairs[0])) for _ in imaginary)
        with Progress(options.progress, parts) as progress:
            evs, gradients, answer = _differentiate(
                options, imaginary, compiled, operators, values, pairs, progress, starts=starts, meanwhile=meanwhile
            )
        gradients = gradients.reshape(len(values), num_observables, num_parameters)
        if columns is not None:
            gradients = gradients[:, :, columns]
        return evs.reshape(len(values), num_observables), gradients, answer

    def run(
        self,
        circuits: Sequence[QuantumCircuit] | QuantumCircuit,
        observables: Any,
        parameter_values: Any,
        parameters: Sequence[Sequence[Parameter] | None] | None = None,
        **options: Any,
    ) -> FusedJob:
        """Differentiate the i-th observable in the i-th circuit at the i-th parameter values.

        Repeated objects are validated once, and equal rows of one circuit are simulated once for all their observables
        (``EstimatorQNN`` sends its batch once per observable).

        Args:
            circuits: N circuits, or one.
            observables: N observables, or one; strings too.
            parameter_values: (N, P), or N sequences.
            parameters: per circuit the parameters to differentiate, in the order wanted, or None for all.
            options: kept in ``result.options``.

        Returns:
            A job whose result is an ``EstimatorGradientResult``.

        Raises:
            TypeError: for a circuit, observable or values of a wrong type.
            ValueError: for arguments that do not fit together, values that are not finite included.
        """
        if isinstance(circuits, str) or not isinstance(circuits, (Sequence, np.ndarray)):
            circuits = (circuits,)
        if isinstance(parameters, Parameter):
            parameters = [[parameters]]
        if (
            not isinstance(observables, (Sequence, np.ndarray))
            or isinstance(observables, str)
            or _is_single(observables)
        ):
            observables = (observables,)
        batches = make_batches(circuits, observables, parameter_values, parameters)
        merged = copy(self._default_options)
        merged.update_options(**options)
        job = FusedJob(_run_batches, batches, len(circuits), copy(self.fused_options), self._derivative_type, merged)
        job.submit()
        return job

    def _run(self, circuits: Any, observables: Any, parameter_values: Any, parameters: Any, **options: Any) -> Any:
        """Do what the base class asks of `_run`; `run` does not go this way."""
        return FusedEstimatorGradient.run(self, circuits, observables, parameter_values, parameters, **options).result()

    def _get_local_options(self, options: Any) -> Options:
        merged = copy(self._default_options)
        merged.update_options(**options)
        return merged


def _columns(compiled: CompiledCircuit, parameters: list[Parameter]) -> np.ndarray:
    columns: np.ndarray | None = columns_of(compiled.parameters, compiled, parameters)
    if columns is None:
        foreign = next(parameter for parameter in parameters if parameter not in compiled.parameters)
        raise ValueError(
            f"parameters contains '{getattr(foreign, 'name', foreign)}', which is not in circuit.parameters; "
            "allowed: the Parameter objects in there (equal names are not enough)."
        )
    return columns


def _same_number(values: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Repeat one row of values for all states, or one state for all rows of values."""
    if len(values) != len(states):
        if len(values) == 1:
            values = np.repeat(values, len(states), axis=0)
        elif len(states) == 1:
            states = np.broadcast_to(states, (len(values), states.shape[1]))
        else:
            raise ValueError(
                f"there are {len(states)} initial_states and {len(values)} rows of parameter_values; allowed: as many "
                "of both, or one of either."
            )
    return values, states


def _is_single(observables: Any) -> bool:
    # Pauli and SparsePauliOp have a length, but are one observable
    return (
        hasattr(observables, "num_qubits") and not hasattr(observables, "ravel") and not isinstance(observables, list)
    )


def _run_batches(
    batches: list[Batch],
    count: int,
    options: FusedOptions,
    derivative_type: DerivativeType,
    result_options: Options,
) -> tuple[EstimatorGradientResult, dict[str, Any]]:
    metrics: dict[str, Any] = {}
    gradients: list[Any] = [None] * count
    metadata: list[Any] = [None] * count
    imaginary = _IMAGINARY_PARTS[derivative_type.name]
    for batch in batches:
        if batch.error is not None:
            raise batch.error
    parts = (
        Part.of(batch.compiled, len(batch.values), len(batch.pairs[0]))
        for batch in batches
        for _ in imaginary
        if batch.compiled is not None
    )
    with Progress(options.progress, parts) as progress:
        for batch in batches:
            assert batch.compiled is not None and batch.operators is not None
            _, found, _ = _differentiate(
                options, imaginary, batch.compiled, batch.operators, batch.values, batch.pairs, progress, metrics
            )
            for given, columns, requests in batch.subsets:
                part = found[batch.back[requests]]
                if columns is not None:
                    part = part[:, columns]
                if len(requests) == count:
                    gradients = list(part)
                    metadata = [{"parameters": given} for _ in range(count)]
                    continue
                for position, gradient in zip(batch.index[requests].tolist(), part):
                    gradients[position] = gradient
                    metadata[position] = {"parameters": given}
    return EstimatorGradientResult(gradients=gradients, metadata=metadata, options=result_options), metrics


def _differentiate(
    options: FusedOptions,
    imaginary_parts: tuple[bool, ...],
    compiled: CompiledCircuit,
    operators: Observables,
    values: np.ndarray,
    pairs: Pairs,
    progress: Progress,
    metrics: dict[str, Any] | None = None,
    starts: RowStarts = FROM_CIRCUIT,
    meanwhile: Callable[[], bool] | None = None,
) -> tuple[np.ndarray, np.ndarray, Any]:
    """Return values (N,) and gradients (N, P) of the pairs, of the parts asked, and meanwhile's answer."""
    parts = []
    for imaginary in imaginary_parts:
        progress.next_part()
        evaluation = evaluate(
            options,
            compiled,
            operators,
            values,
            pairs,
            gradient=True,
            imaginary=imaginary,
            starts=starts,
            metrics=metrics,
            meanwhile=meanwhile,
            watch=progress.watch,
        )
        assert evaluation.gradients is not None
        parts.append(pull_back(compiled, values, evaluation.gradients, pairs))
    gradients = parts[0] if len(parts) == 1 else parts[0] + 1j * parts[1]
    return evaluation.values, gradients, evaluation.answer
