# SPDX-License-Identifier: Apache-2.0
"""`FusedEstimator`: Qiskit's `BaseEstimatorV2` on fused sweeps."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from concurrent.futures import wait
from copy import copy
from math import prod
from numbers import Real
from typing import Any

import numpy as np
from qiskit.circuit import QuantumCircuit
from qiskit.primitives import BaseEstimatorV2, DataBin, PrimitiveResult, PubResult, StatevectorEstimator
from qiskit.primitives.containers import EstimatorPubLike
from qiskit.primitives.containers.bindings_array import BindingsArray
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.observables_array import ObservablesArray

from qiskit_fused.common.cancellation import current
from qiskit_fused.common.display import arguments_text
from qiskit_fused.common.row_errors import renumbered
from qiskit_fused.compilation.circuits import COMPILED, CompiledCircuit
from qiskit_fused.compilation.observable_errors import wrong_width
from qiskit_fused.compilation.observables import coerce_observables
from qiskit_fused.compilation.templates import find_template
from qiskit_fused.engines.request import Request, all_pairs
from qiskit_fused.execution.devices import check_device
from qiskit_fused.execution.evaluate import evaluate
from qiskit_fused.execution.finite_values import check_finite
from qiskit_fused.execution.progress import Part, Progress
from qiskit_fused.lowering.errors import fallback_circuit
from qiskit_fused.options.fused_options import EngineOptionsDict, FusedOptions, Unpack
from qiskit_fused.options.keywords import checks_keywords
from qiskit_fused.primitives.estimator_batches import Task, join_tasks, name_owner
from qiskit_fused.primitives.job import FusedJob, Size
from qiskit_fused.primitives.pub_errors import name_row, not_broadcastable
from qiskit_fused.primitives.pub_values import bind_values

_POLL_SECONDS = 0.05  # seconds between two checks of a fallback's thread whether its job was cancelled

# Qiskit's class, also after a test or a user has replaced ``qiskit.primitives.StatevectorEstimator``.
_FALLBACK = StatevectorEstimator


class FusedEstimator(BaseEstimatorV2):
    """Exact expectation values of circuits, for all rows of parameter values at once.

    For a circuit U(theta) and observables O_k, an estimator computes ``E_k(theta) = <0|U(theta)^+ O_k U(theta)|0>``,
    where ``U^+`` is the adjoint of U and ``|0>`` is the state of all qubits in 0.

    It takes the place of ``StatevectorEstimator``, with the same PUBs, results and metadata. It also runs circuits that
    end in measurements, circuits transpiled for large devices (idle qubits are not simulated), and observables with
    projectors ``0 1 + - r l``. ``job.metrics()`` tells what ran.

    Values are exact, so they meet every target precision that a call asks for. An estimator
    adds normal noise, whose standard deviation is the target precision, only if ``precision_mode`` is ``"emulate"``, or
    is ``"auto"`` and ``default_precision`` is above zero, see `FusedOptions`.

    >>> from qiskit import QuantumCircuit
    >>> circuit = QuantumCircuit(2)
    >>> _ = circuit.h(0)
    >>> _ = circuit.cx(0, 1)
    >>> FusedEstimator().run([(circuit, ["ZZ", "ZI", "11"])]).result()[0].data.evs.round(12).tolist()
    [1.0, 0.0, 0.5]

    Args:
        default_precision: target precision of PUBs that do not state one: the standard deviation of a value.
        seed: seed or NumPy generator of emulated noise.
        options: `FusedOptions` or a mapping; copied.
        keywords: single options, which override ``options``.

    Raises:
        TypeError: for an unknown option.
        ValueError: for a bad value of an option.
        RuntimeError: for a device that cannot be used.

    Cost: a row takes one forward sweep for all its observables. The memory of one state is 16 bytes (complex128) or 8
    bytes (complex64) times 2^n, where n counts the qubits that the observables can see.

    Source: fused gates, arXiv:2603.02804.
    """

    @checks_keywords()
    def __init__(
        self,
        *,
        default_precision: float | None = None,
        seed: int | np.random.Generator | None = None,
        options: FusedOptions | Mapping[str, Any] | None = None,
        **keywords: Unpack[EngineOptionsDict],
    ):
        changes: dict[str, Any] = {**keywords}
        if default_precision is not None:
            changes["default_precision"] = default_precision
        if seed is not None:
            changes["seed"] = seed
        self._options = FusedOptions.coerce(options, **changes)
        check_device(self._options)

    def __repr__(self) -> str:
        return f"FusedEstimator({arguments_text(self._options.changed())})"

    @property
    def options(self) -> FusedOptions:
        """The options. ``estimator.options.dtype = "complex64"`` changes one option for the calls that follow."""
        return self._options

    @options.setter
    def options(self, options: FusedOptions | Mapping[str, Any] | None) -> None:
        self._options = FusedOptions.coerce(options)

    @property
    def default_precision(self) -> float:
        """The target precision of PUBs that do not state one."""
        return self._options.default_precision

    @property
    def seed(self) -> int | np.random.Generator | None:
        """The seed or generator of emulated noise."""
        return self._options.seed

    def run(self, pubs: Iterable[EstimatorPubLike], *, precision: float | None = None) -> FusedJob:
        """Start a job that computes the expectation values of PUBs.

        PUBs with the same circuit object run as one batch. PUBs with the same circuit and the same array of values
        share the states of their rows.

        Args:
            pubs: PUBs ``(circuit, observables[, parameter_values[, precision]])``. The circuit may be the result of
                `compile_circuit`. Parameter values are an array (..., P) for P parameters, in the order of
                ``circuit.parameters``, which Qiskit sorts by name (``w10`` before ``w2``), or a mapping of parameters,
                names or tuples of them to values. The leading dimensions of the values are broadcast with the shape of
                the observables.
            precision: target precision of PUBs that do not state one; None is ``default_precision``.

        Returns:
            A job whose result is a ``PrimitiveResult``, as from ``StatevectorEstimator``. In ``result[i].data``,
            ``evs`` are the values of PUB i, float64 of the broadcast shape, and ``stds`` are zeros of the same shape.

        Raises:
            TypeError: for a PUB with a part of a wrong type.
            ValueError: for a PUB that is not valid, such as shapes that do not fit or values that are not finite. An
                error that occurs later, such as a statevector that is too large, is raised by ``job.result()``.
        """
        options = copy(self._options)
        if precision is None:
            precision = options.default_precision
        tasks = [_make_task(pub, precision, number) for number, pub in enumerate(pubs)]
        if options.fallback:
            refused = {id(task.circuit): task.error for task in tasks if task.falls_back}
            if refused:
                more = f" (and {len(refused) - 1} more circuits)" if len(refused) > 1 else ""
                warnings.warn(
                    f"{next(iter(refused.values()))}. Running it with StatevectorEstimator, one parameter set at a "
                    f"time{more}; fallback=False makes this an error.",
                    stacklevel=2,
                )
        job = FusedJob(_run, tasks, options)
        job.submit(map(_size_of, tasks))
        return job


def _make_task(pub: Any, precision: Any, number: int) -> Task:
    """Validate a PUB and return its task.

    The checks are the checks of `EstimatorPub.coerce`, without its conversion of observables to labels and back.
    """
    circuit, pub_observables, pub_values, precision = _parts_of(pub, precision)
    error: Exception | None = None
    compiled: CompiledCircuit | None = None
    numbers: np.ndarray | None = None
    try:
        compiled, numbers = find_template(circuit) or (COMPILED.get(circuit), None)
    except Exception as exc:  # as in Qiskit, job.result() raises the errors of circuits
        error = exc
    parameters = tuple(circuit.parameters) if compiled is None else compiled.parameters
    observables = coerce_observables(pub_observables)
    values, values_shape = bind_values(pub_values, parameters, "third")
    if observables.operators.num_observables and observables.operators.num_qubits != circuit.num_qubits:
        raise wrong_width(circuit.num_qubits, observables.operators.num_qubits)
    shape = _broadcast(observables.shape, values_shape, len(parameters))
    if parameters:
        with renumbered(lambda row: name_row(row, values_shape, number)):
            check_finite(values, parameters)
    if numbers is not None:  # the values of the template's parameters, the same in all rows of the PUB
        values = pub_values = np.repeat(numbers[None], len(values), axis=0) if values_shape else numbers[None]
    task = Task(
        circuit=circuit,
        compiled=compiled,
        error=error,
        observables=observables,
        values=values,
        values_key=id(pub_values),
        shape=shape,
        values_shape=values_shape,
        precision=precision,
        metadata=circuit.metadata,
        number=number,
    )
    fallback = fallback_circuit(circuit, error)
    if fallback is not None:
        rows = {parameters: values.reshape(*values_shape, len(parameters))} if parameters else None
        paulis = _as_paulis(ObservablesArray.coerce(pub_observables))
        task.pub = EstimatorPub(fallback, paulis, BindingsArray(rows, values_shape), precision, validate=False)
    return task


def _size_of(task: Task) -> Size:
    return Size(task.compiled, len(task.values), task.observables.operators.num_terms)


def _parts_of(pub: Any, precision: Any) -> tuple[Any, Any, Any, float]:
    """Return circuit, observables, values and precision of a PUB; ``precision`` is for a PUB without one.

    A PUB of a wrong form, or with a wrong precision, goes to `EstimatorPub.coerce`, which raises Qiskit's errors.
    """
    if isinstance(pub, EstimatorPub):
        if pub.precision is None:
            pub = EstimatorPub.coerce(pub, precision)
        parts: Any = (pub.circuit, pub.observables, pub.parameter_values, pub.precision)
    elif (
        isinstance(pub, (tuple, list)) and 2 <= len(pub) <= 4 and isinstance(pub[0], (QuantumCircuit, CompiledCircuit))
    ):
        parts = pub
    else:
        return _parts_of(_upstreams_pub(pub, precision), precision)
    circuit, observables, values, target = (*parts, None, None)[:4]
    if target is None:
        target = precision
    if not (_is_precision(target) and _is_precision(precision)):
        _upstreams_pub(pub, precision)
        raise ValueError(f"precision is {target!r}; allowed: a number >= 0.")
    return circuit, observables, values, target


def _broadcast(shape: tuple[int, ...], values_shape: tuple[int, ...], num_parameters: int) -> tuple[int, ...]:
    """Return the shape of the results of observables and rows of values."""
    if not values_shape:
        return shape
    try:
        return np.broadcast_shapes(shape, values_shape)
    except ValueError:
        raise not_broadcastable(shape, values_shape, num_parameters) from None


def _upstreams_pub(pub: Any, precision: Any) -> EstimatorPub:
    """Return the `EstimatorPub` of a PUB, or raise the error of `EstimatorPub.coerce`.

    A compiled circuit is replaced by its circuit first.
    """
    if isinstance(pub, CompiledCircuit):
        pub = pub.circuit
    elif isinstance(pub, (tuple, list)) and pub and isinstance(pub[0], CompiledCircuit):
        pub = (pub[0].circuit, *pub[1:])
    return EstimatorPub.coerce(pub, precision)


def _is_precision(value: Any) -> bool:
    return isinstance(value, Real) and value >= 0  # type: ignore[operator]


def _as_paulis(observables: ObservablesArray) -> ObservablesArray:
    """Expand projectors into Paulis: ``StatevectorEstimator`` refuses projectors or reads '1Z', '+X' as phases."""
    array = np.empty(observables.shape, dtype=object)
    for index, observable in np.ndenumerate(observables.sparse_observables_array(copy=False)):
        array[index] = observable.as_paulis().simplify()
    return ObservablesArray(array, num_qubits=observables.num_qubits, validate=False)


def _run(tasks: list[Task], options: FusedOptions) -> tuple[PrimitiveResult[PubResult], dict[str, Any]]:
    """Run all PUBs of a job; return its result and its metrics."""
    metrics: dict[str, Any] = {"fallback": 0}
    groups: dict[int, list[Task]] = {}
    for task in tasks:
        if task.compiled is not None:
            groups.setdefault(id(task.compiled), []).append(task)
        elif not (task.falls_back and options.fallback):
            assert task.error is not None
            raise task.error
    parts = map(_part, [*groups.values(), *([task] for task in tasks if task.falls_back)])
    with Progress(options.progress, parts) as progress:
        for group in groups.values():
            _run_group(group, options, metrics, progress)
        # PUBs are finished in their order, since a Generator as seed advances from PUB to PUB.
        results = [_finish(task, options, metrics, progress) for task in tasks]
    return PrimitiveResult(results, metadata={"version": 2}), metrics


def _part(group: list[Task]) -> Part:
    """Return the part of the progress of the PUBs of one circuit."""
    num_rows = sum(len(values) for values in {task.values_key: task.values for task in group}.values())
    first = group[0]
    if first.compiled is None:
        return Part(first.circuit.num_qubits, len(first.circuit.data), num_rows)
    return Part.of(first.compiled, num_rows)


def _run_group(group: list[Task], options: FusedOptions, metrics: dict[str, Any], progress: Progress) -> None:
    """Run the PUBs of one circuit as one batch of (row, observable) pairs."""
    progress.next_part()
    task = group[0]
    compiled, back = task.compiled, None
    assert compiled is not None
    if len(group) == len(task.values) == 1 and task.shape == task.observables.shape:
        # The only PUB has one row and each observable once: its pairs are all pairs, in order.
        operators, array, owners = task.observables.operators, task.values, [(0, task)]
        pairs = all_pairs(1, operators.num_observables)
    else:
        operators, array, owners, pairs, back = join_tasks(group)
    evs = np.zeros(0)
    if len(pairs.row):
        request = Request(array, pairs, dtype=options.dtype)
        with renumbered(lambda row: name_owner(row, owners)):
            evs = evaluate(options, compiled, operators, request, metrics=metrics, watch=progress.watch).values
        if back is not None:
            evs = evs[back]
    position = 0
    for task in group:
        size = prod(task.shape)
        task.evs = evs[position : position + size].reshape(task.shape)
        position += size


def _finish(task: Task, options: FusedOptions, metrics: dict[str, Any], progress: Progress) -> PubResult:
    """Return the result of a PUB: run its fallback, or add emulated noise to its values."""
    noise = task.precision if options.adds_noise else 0.0
    if task.pub is not None:
        progress.next_part()
        evs = _fall_back(task, options.seed, noise)
        metrics["fallback"] += 1
    else:
        assert task.evs is not None
        evs = task.evs
        if noise != 0:
            evs = np.asarray(np.random.default_rng(options.seed).normal(evs, noise), dtype=np.float64)
    data = DataBin(evs=evs, stds=np.zeros_like(evs), shape=evs.shape)
    return PubResult(data, metadata={"target_precision": task.precision, "circuit_metadata": task.metadata})


def _fall_back(task: Task, seed: Any, noise: float) -> np.ndarray:
    """Return the values of a PUB from ``StatevectorEstimator``; its failure raises the error of the circuit."""
    assert task.pub is not None and task.error is not None
    pub = EstimatorPub(task.pub.circuit, task.pub.observables, task.pub.parameter_values, noise, validate=False)
    try:
        job = _FALLBACK(seed=seed).run([pub])
        while current() is not None and not wait([job._future], _POLL_SECONDS).done:
            pass  # a cancelled job raises `Stopped` in this loop
        return job.result()[0].data.evs
    except Exception as exc:
        raise task.error from exc
