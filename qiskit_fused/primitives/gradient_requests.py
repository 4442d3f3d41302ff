# SPDX-License-Identifier: Apache-2.0
"""Turns lists of gradient requests into batches, one batch for each circuit.

Each distinct object is validated once, and each distinct pair of a row and an observable is simulated once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.circuit.parametertable import ParameterView
from qiskit.quantum_info import SparsePauliOp

from qiskit_fused.common.arrays import real_values
from qiskit_fused.common.row_blocks import copy_rows, unique_sorted
from qiskit_fused.common.row_errors import renumbered
from qiskit_fused.compilation.circuits import COMPILED, CompiledCircuit, check_circuit
from qiskit_fused.compilation.observable_errors import wrong_width
from qiskit_fused.compilation.observables import as_list, coerce_observables, or_all_z, stack_observables
from qiskit_fused.compilation.outcome_tables import find_integers
from qiskit_fused.engines.request import Pairs, all_pairs
from qiskit_fused.execution.arguments import check_sequence, is_by_name, ordered_values
from qiskit_fused.execution.finite_values import check_finite
from qiskit_fused.execution.result_sizes import check_results
from qiskit_fused.options import FusedOptions
from qiskit_fused.program.observables import Observables
from qiskit_fused.program.outcomes import Outcomes

_BYTES_IN_DICT = 64  # least bytes of a derivative in a dict of Python: 24 of the float, 40 of the entry


class Batch:
    """The requests that share a circuit.

    Attributes:
        circuit: the circuit or compiled circuit.
        index: positions of the requests in the arguments of `run`.
        compiled: the compiled circuit; None after an error.
        error: the error of compiling the circuit, or None.
        parameters: the P parameters of the circuit.
        subsets: (parameters, their columns or None for all, requests): the requests with the same list of parameters.
        operators: the distinct observables, or the outcomes of a measurement.
        integers: the integer of each outcome of a measurement.
        values: float64 (rows, P). Equal rows are kept once, if there are several observables.
        pairs: the distinct pairs of a row and an observable, sorted by row; of outcomes, all pairs.
        back: for each request the index of its pair; of outcomes, the index of its row.
    """

    def __init__(self, circuit: QuantumCircuit | CompiledCircuit, index: np.ndarray):
        self.circuit = circuit
        self.index = index
        self.compiled: CompiledCircuit | None = None
        self.error: Exception | None = None
        try:
            self.compiled = COMPILED.get(circuit)
        except Exception as exc:  # as in Qiskit, job.result() raises the errors of circuits
            self.error = exc
        self.parameters = tuple(circuit.parameters) if self.compiled is None else self.compiled.parameters
        self.subsets: list[tuple[Any, np.ndarray | None, np.ndarray]] = []
        self.operators: Observables | None = None
        self.integers: list[int] = []
        self.values = np.zeros((0, 0))
        self.pairs: Pairs = all_pairs(0, 0)
        self.back: np.ndarray = index

    def request_of(self, row: int) -> int:
        """Return the first request that has a row of ``values``, for errors."""
        rows = self.back if self.integers else self.pairs.row[self.back]
        return int(self.index[np.flatnonzero(rows == row)[0]])


def make_batches(circuits: Any, observables: Any, parameter_values: Any, parameters: Any) -> tuple[list[Batch], int]:
    """Validate the arguments of `run`, each distinct object once, and group the requests by circuit.

    Errors have the texts of ``BaseEstimatorGradient``.

    Returns:
        The batches, and the number of requests.
    """
    batches, count = _make_batches(circuits, parameter_values)
    observables = _list_of_observables(observables, count)
    if count != len(observables):
        raise ValueError(
            f"The number of circuits ({count}) does not match the number of observables ({len(observables)})."
        )
    for batch in batches:
        _take_observables(batch, observables)
    _take_all_parameters(batches, parameters, count)
    return batches, count


def make_state_batches(circuits: Any, parameter_values: Any, parameters: Any) -> tuple[list[Batch], int]:
    """Do what `make_batches` does for functions of final states: the requests have no observables.

    Returns:
        The batches, and the number of requests.
    """
    batches, count = _make_batches(circuits, parameter_values)
    _take_all_parameters(batches, parameters, count)
    return batches, count


def make_sampler_batches(
    circuits: Any, parameter_values: Any, parameters: Any, options: FusedOptions
) -> tuple[list[Batch], int]:
    """Do what `make_batches` does for a sampler gradient: each row has all outcomes of its circuit.

    Returns:
        The batches, and the number of requests.

    Raises:
        MemoryError: if the derivatives of a batch do not fit the memory; nothing was allocated for them then.
    """
    batches, count = _make_batches(circuits, parameter_values)
    for batch in batches:
        batch.operators, batch.integers = find_integers(batch.circuit, partial(_check_derivatives, batch, options))
        batch.pairs, batch.back = all_pairs(len(batch.index), len(batch.integers)), np.arange(len(batch.index))
    _take_all_parameters(batches, parameters, count)
    return batches, count


def _check_derivatives(batch: Batch, options: FusedOptions, outcomes: Outcomes) -> None:
    """Raise a MemoryError if the dicts of the derivatives of all rows do not fit the memory."""
    if batch.compiled is not None:
        num_rows = len(batch.index)
        check_results(options, batch.compiled, outcomes, num_rows, gradient=True, number_bytes=_BYTES_IN_DICT)


def _make_batches(circuits: Any, parameter_values: Any) -> tuple[list[Batch], int]:
    """Group requests by circuit, with their rows of values. Return the batches and the number of requests."""
    if isinstance(circuits, str) or not isinstance(circuits, (Sequence, np.ndarray)):
        circuits = (circuits,)
    groups = _by_identity(circuits)
    for group in groups:
        check_circuit(circuits[group[0]])
    count = len(circuits)
    parameter_values = _list_of_values(parameter_values, count)
    if count != len(parameter_values):
        raise ValueError(
            f"The number of circuits ({count}) does not match the number of parameter value sets "
            f"({len(parameter_values)})."
        )
    batches = [Batch(circuits[group[0]], group) for group in groups]
    for batch in batches:
        _take_values(batch, parameter_values)
    return batches, count


def _list_of_values(values: Any, count: int) -> Any:
    """Return a sequence of rows. For a single circuit, ``values`` may be the row itself or a mapping."""
    if values is None:
        real_values(None)  # raises the error for None
    if is_by_name(values):
        if count != 1:
            raise ValueError(
                f"parameter_values is one {type(values).__name__} for {count} circuits; allowed: a list of {count}, "
                "one for each circuit."
            )
        return [values]
    check_sequence("parameter_values", values, "a list or an array with a row of values for each circuit")
    if count == 1 and len(values) and not is_by_name(values[0]) and not np.ndim(values[0]):
        return [values]
    return values


def _list_of_observables(observables: Any, count: int) -> Any:
    """Return a sequence of observables. A single observable may come without a list; None is Z on all qubits."""
    if observables is None:
        return [None] * count
    observables = as_list(observables)
    return observables if isinstance(observables, (Sequence, np.ndarray)) else (observables,)


def _by_identity(things: Sequence[Any]) -> list[np.ndarray]:
    """Return the positions of each distinct object, in order of first appearance."""
    ids = list(map(id, things))
    if len(set(ids)) == 1:
        return [np.arange(len(ids))]
    groups: dict[int, list[int]] = {}
    for position, key in enumerate(ids):
        groups.setdefault(key, []).append(position)
    return [np.array(group) for group in groups.values()]


def _take_values(batch: Batch, parameter_values: Any) -> None:
    """Set the rows of values of a batch, checked."""
    num_parameters = len(batch.parameters)
    if not num_parameters:
        raise ValueError(f"The {batch.index[0]}-th circuit is not parameterised.")
    if isinstance(parameter_values, np.ndarray) and parameter_values.ndim == 2:
        rows = parameter_values if len(batch.index) == len(parameter_values) else parameter_values[batch.index]
        wrong = None if rows.shape[1] == num_parameters else (batch.index[0], rows.shape[1])
    else:
        rows = [parameter_values[i] for i in batch.index]
        if any(map(is_by_name, rows)):
            rows = [_one_row(i, row, batch.parameters) for i, row in zip(batch.index, rows)]
        try:
            wrong = next(((i, len(row)) for i, row in zip(batch.index, rows) if len(row) != num_parameters), None)
        except TypeError:
            for i, row in zip(batch.index, rows):
                check_sequence(f"parameter_values[{i}]", row, f"the {num_parameters} values of the {i}-th circuit")
            raise
    if wrong is not None:
        raise ValueError(
            f"The number of values ({wrong[1]}) does not match the number of parameters ({num_parameters}) for the "
            f"{wrong[0]}-th circuit."
        )
    batch.values = copy_rows(real_values(rows))  # a copy: the caller's array may change while the job runs
    with renumbered(lambda row: int(batch.index[row])):
        check_finite(batch.values, batch.parameters)


def _one_row(i: int, row: Any, parameters: tuple[Parameter, ...]) -> np.ndarray:
    """Return the values of the i-th circuit in the order of the parameters, (P,)."""
    values = ordered_values(row, parameters)
    if values.ndim == 2 and len(values) == 1:
        values = values[0]
    if is_by_name(row) and values.ndim != 1:
        raise ValueError(f"The values of the {i}-th circuit have the shape {values.shape[:-1]}; allowed: one row.")
    return values


def _take_observables(batch: Batch, observables: Any) -> None:
    """Set the observables and the pairs of a batch, checked."""
    requested = observables if len(batch.index) == len(observables) else [observables[i] for i in batch.index]
    groups = _by_identity(requested)
    parts = []
    for group in groups:
        i = batch.index[group[0]]
        operators = _operators_of(or_all_z(requested[group[0]], batch.circuit.num_qubits))
        if operators.num_observables != 1:
            raise ValueError(
                f"The {i}-th observable is a list of {operators.num_observables}; allowed: one observable."
            )
        if batch.circuit.num_qubits != operators.num_qubits:
            raise wrong_width(batch.circuit.num_qubits, operators.num_qubits, i)
        parts.append(operators)
    batch.operators = stack_observables(parts)
    if len(groups) == 1:
        batch.pairs, batch.back = all_pairs(len(requested), 1), groups[0]
        return
    number = np.empty(len(requested), dtype=np.int64)
    for k, group in enumerate(groups):
        number[group] = k
    row, batch.values = _distinct_rows(batch.values, number, len(groups))
    key, batch.back = unique_sorted(row * len(groups) + number)
    batch.pairs = Pairs((key // len(groups)).astype(np.int32), (key % len(groups)).astype(np.int32))


def _operators_of(observable: Any) -> Observables:
    """Return the operators of a request.

    The gradient of an operator that is zero is zero, as with ``LinCombEstimatorGradient``. `FusedEstimator` refuses
    such an operator, as ``StatevectorEstimator`` does. A Hamiltonian of ``VarQITE`` that depends on time may be zero at
    the start, and ``VarQITE`` ends without an error where a gradient raises one.
    """
    try:
        return coerce_observables(observable).operators
    except ValueError:
        if not isinstance(observable, SparsePauliOp) or observable.coeffs.dtype == object:
            raise
        if observable.simplify().coeffs.any():
            raise
        return Observables(observable.num_qubits, 1, [], [], [0], [], [])


def _distinct_rows(values: np.ndarray, number: np.ndarray, num_observables: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each request the number of its row, and the rows. Equal rows of different observables become one."""
    count = len(values)
    block = count // num_observables
    if block * num_observables == count and np.array_equal(number, np.repeat(np.arange(num_observables), block)):
        tiles = values.reshape(num_observables, block, -1)
        if (tiles == tiles[0]).all():  # EstimatorQNN sends its rows once for each observable
            return np.tile(np.arange(block), num_observables), tiles[0]
    first: dict[bytes, int] = {}
    row = np.array([first.setdefault(values_of_row.tobytes(), len(first)) for values_of_row in values])
    return row, values[np.unique(row, return_index=True)[1]]


def _take_all_parameters(batches: list[Batch], parameters: Any, count: int) -> None:
    """Set the subsets of all batches, checked."""
    if isinstance(parameters, Parameter):
        parameters = [[parameters]]
    if isinstance(parameters, Mapping):
        raise TypeError("parameters are a mapping; allowed: for each circuit a sequence of parameters, or None.")
    if parameters is not None and count != len(parameters):
        raise ValueError(
            f"The number of circuits ({count}) does not match the number of the list of specified parameters "
            f"({len(parameters)})."
        )
    for batch in batches:
        _take_parameters(batch, parameters)


def _take_parameters(batch: Batch, parameters: Any) -> None:
    """Set the subsets of a batch: the requests with the same parameters to differentiate, checked."""
    # This view equals `circuit.parameters`, which takes 13 us to make for 120 parameters.
    all_parameters = ParameterView(batch.parameters)
    if parameters is None:
        batch.subsets = [(all_parameters, None, np.arange(len(batch.index)))]
        return
    requested = [parameters[i] for i in batch.index]
    for group in _by_identity(requested):
        subset = requested[group[0]]
        # `QFI` passes `circuit.parameters` for None. A comparison takes a third of the time of looking up all columns.
        if subset is None or (isinstance(subset, ParameterView) and tuple(subset) == batch.parameters):
            batch.subsets.append((all_parameters, None, group))
            continue
        if isinstance(subset, Parameter):
            subset = [subset]
        i = batch.index[group[0]]
        columns = columns_of(batch.parameters, batch.compiled, subset)
        if columns is None:
            raise ValueError(f"The {i}-th parameters contains parameters not present in the {i}-th circuit.")
        batch.subsets.append((subset, columns, group))


def columns_of(
    circuit_parameters: tuple[Parameter, ...], compiled: CompiledCircuit | None, parameters: Iterable[Parameter]
) -> Any:
    """Return the columns of parameters, in the order of ``parameters``; None if the circuit lacks one of them."""
    try:
        if compiled is not None:
            return compiled.columns_of(parameters)
        return np.array([circuit_parameters.index(parameter) for parameter in parameters], dtype=np.intp)
    except (KeyError, TypeError, ValueError):  # a TypeError is that of an object without a hash, such as a list
        return None
