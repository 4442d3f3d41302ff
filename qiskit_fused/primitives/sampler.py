# SPDX-License-Identifier: Apache-2.0
"""`FusedSampler`: Qiskit's `BaseSamplerV2` on fused sweeps."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from copy import copy
from math import prod
from typing import Any

import numpy as np
from qiskit.circuit import QuantumCircuit
from qiskit.primitives import BaseSamplerV2, PrimitiveResult, SamplerPubLike, SamplerPubResult
from qiskit.primitives.containers.sampler_pub import SamplerPub

from qiskit_fused.common.display import arguments_text
from qiskit_fused.common.row_errors import renumbered
from qiskit_fused.compilation.circuits import COMPILED, CompiledCircuit
from qiskit_fused.compilation.measurements import find_measurements, measurements_of
from qiskit_fused.compilation.templates import find_template
from qiskit_fused.execution.devices import check_device
from qiskit_fused.execution.finite_values import check_finite
from qiskit_fused.execution.progress import Part, Progress
from qiskit_fused.options.fused_options import EngineOptionsDict, FusedOptions, Unpack
from qiskit_fused.options.keywords import checks_keywords
from qiskit_fused.primitives.job import FusedJob
from qiskit_fused.primitives.pub_errors import name_row
from qiskit_fused.primitives.pub_values import bind_values
from qiskit_fused.primitives.sampler_batches import Batch, Readout, Task
from qiskit_fused.primitives.sampler_errors import NO_REGISTERS, check_shots, explain
from qiskit_fused.primitives.sampler_results import ExactPubResult, SampledData


class FusedSampler(BaseSamplerV2):
    """Samples of measured circuits, or exact probabilities, for all rows of parameter values at once."""

    @checks_keywords()
    def __init__(
        self,
        *,
        default_shots: int | None = 1024,
        seed: int | np.random.Generator | None = None,
        options: FusedOptions | Mapping[str, Any] | None = None,
        **keywords: Unpack[EngineOptionsDict],
    ):
        changes: dict[str, Any] = {**keywords}
        if seed is not None:
            changes["seed"] = seed
        self._default_shots = check_shots(default_shots, "default_shots", may_be_none=True)
        self._options = FusedOptions.coerce(options, **changes)
        self._stream: tuple[Any, np.random.Generator] | None = None
        check_device(self._options)

    def __repr__(self) -> str:
        shots = {} if self._default_shots == 1024 else {"default_shots": self._default_shots}
        return f"FusedSampler({arguments_text(shots | self._options.changed())})"

    @property
    def options(self) -> FusedOptions:
        """The options. ``sampler.options.dtype = "complex64"`` changes one option for the calls that follow."""
        return self._options

    @options.setter
    def options(self, options: FusedOptions | Mapping[str, Any] | None) -> None:
        self._options = FusedOptions.coerce(options)

    @property
    def default_shots(self) -> int | None:
        """The number of shots where neither a PUB nor `run` gives one; None: exact probabilities."""
        return self._default_shots

    @property
    def seed(self) -> int | np.random.Generator | None:
        """The seed or generator of the shots."""
        return self._options.seed

    def run(self, pubs: Iterable[SamplerPubLike], *, shots: int | None = None) -> FusedJob:
        """Start a job that samples the circuits of PUBs."""
        options = copy(self._options)
        shots = self._default_shots if shots is None else check_shots(shots)
        pubs = list(pubs)
        tasks: list[Task] = []
        circuits: dict[int, _Circuit] = {}
        stream = 0
        for number, pub in enumerate(pubs):
            task = _make_task(pub, shots, number, stream, circuits)
            stream += prod(task.shape)
            tasks.append(task)
        if not all(circuit.has_registers for circuit in circuits.values()):
            warnings.warn(NO_REGISTERS, stacklevel=2)
        key = self._next_key() if any(task.shots is not None for task in tasks) else np.zeros(2, np.uint64)
        job = FusedJob(_run, tasks, options, key)
        job.submit()
        return job

    def _next_key(self) -> np.ndarray:
        """Return the key of the random streams of a run, uint64 (2,)."""
        seed = self._options.seed
        if self._stream is None or self._stream[0] is not seed:
            self._stream = seed, np.random.default_rng(seed)
        return self._stream[1].integers(0, 1 << 64, size=2, dtype=np.uint64)


class _Circuit:
    """A circuit of a run, compiled."""

    def __init__(self, circuit: QuantumCircuit | CompiledCircuit):
        source = circuit.circuit if isinstance(circuit, CompiledCircuit) else circuit
        self.has_registers = bool(source.cregs)
        self.metadata = circuit.metadata
        self.error: Exception | None = None
        self.readout: Readout | None = None
        self.numbers: np.ndarray | None = None
        try:
            found = find_template(circuit)
            if found is not None:
                compiled, self.numbers = found
                measurements = find_measurements(source)
            else:
                compiled = COMPILED.get(circuit)
                measurements = measurements_of(compiled, source)
            self.parameters: tuple[Any, ...] = compiled.parameters
            self.readout = Readout(compiled, measurements)
        except Exception as error:
            self.parameters = tuple(source.parameters)
            self.error = explain(error, source)


def _make_task(pub: Any, shots: int | None, number: int, stream: int, circuits: dict[int, _Circuit]) -> Task:
    """Validate a PUB and return its task."""
    circuit, pub_values, shots = _parts_of(pub, shots)
    known = circuits.get(id(circuit))
    if known is None:
        known = circuits[id(circuit)] = _Circuit(circuit)
    values, shape = bind_values(pub_values, known.parameters)
    if known.parameters:
        with renumbered(lambda row: name_row(row, shape, number)):
            check_finite(values, known.parameters)
    if known.numbers is not None:
        values = np.repeat(known.numbers[None], len(values), axis=0)
        pub_values = values
    return Task(known, known.readout, known.error, values, id(pub_values), shape, shots, number, stream)


def _parts_of(pub: Any, shots: int | None) -> tuple[Any, Any, int | None]:
    """Return circuit, values and shots of a PUB; ``shots`` is for a PUB without shots."""
    if isinstance(pub, SamplerPub):
        parts: Any = (pub.circuit, pub.parameter_values, pub.shots)
    elif isinstance(pub, (QuantumCircuit, CompiledCircuit)):
        parts = (pub,)
    elif (
        isinstance(pub, (tuple, list)) and 1 <= len(pub) <= 3 and isinstance(pub[0], (QuantumCircuit, CompiledCircuit))
    ):
        parts = pub
    else:
        SamplerPub.coerce(pub, shots)
        raise TypeError("circuit must be QuantumCircuit.")
    circuit, values, own_shots = (*parts, None, None)[:3]
    if own_shots is not None:
        shots = check_shots(own_shots)
    return circuit, values, shots


def _run(
    tasks: list[Task], options: FusedOptions, key: np.ndarray
) -> tuple[PrimitiveResult[SamplerPubResult], dict[str, Any]]:
    """Run all PUBs of a job; return its result and its metrics."""
    metrics: dict[str, Any] = {"fallback": 0, "shots": 0}
    groups: dict[tuple[int, int], list[Task]] = {}
    for task in tasks:
        if task.readout is None:
            assert task.error is not None
            raise task.error
        groups.setdefault((id(task.readout.compiled), id(task.readout.outcomes)), []).append(task)
    batches = [Batch(group) for group in groups.values()]
    parts = (Part.of(batch.readout.compiled, len(batch.values)) for batch in batches)
    with Progress(options.progress, parts) as progress:
        for batch in batches:
            progress.next_part()
            batch.run(options, key, metrics, progress)
    return PrimitiveResult([_result(task) for task in tasks], metadata={"version": 2}), metrics


def _result(task: Task) -> SamplerPubResult:
    data = SampledData(**task.fields, shape=task.shape)
    metadata: dict[str, Any] = {"shots": task.shots}
    if task.shots is not None:
        return SamplerPubResult(data, metadata | {"circuit_metadata": task.circuit.metadata})
    assert task.readout is not None
    names = [name for name, sources in task.readout.registers if (sources >= 0).any()]
    return ExactPubResult(data, metadata | {"exact": True, "names": names, "circuit_metadata": task.circuit.metadata})
