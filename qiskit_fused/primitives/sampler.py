# SPDX-License-Identifier: Apache-2.0
"""`FusedSampler`: Qiskit's `BaseSamplerV2` on fused sweeps."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from typing import Any

import numpy as np
from qiskit.circuit import QuantumCircuit
from qiskit.primitives import BaseSamplerV2, PrimitiveResult, SamplerPubLike, SamplerPubResult
from qiskit.primitives.containers.sampler_pub import SamplerPub

from qiskit_fused.common.display import arguments_text
from qiskit_fused.common.row_errors import renumbered
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.execution.devices import check_device
from qiskit_fused.execution.finite_values import check_finite
from qiskit_fused.execution.progress import Part, Progress
from qiskit_fused.options.fused_options import FusedOptions, SamplerOptionsDict, Unpack
from qiskit_fused.options.keywords import checks_keywords, no_precision
from qiskit_fused.primitives.job import FusedJob, Size
from qiskit_fused.primitives.pub_errors import name_row
from qiskit_fused.primitives.pub_values import bind_values
from qiskit_fused.primitives.sampled_circuits import SampledCircuit
from qiskit_fused.primitives.sampler_batches import Batch, Task
from qiskit_fused.primitives.sampler_errors import NO_REGISTERS, check_shots
from qiskit_fused.primitives.sampler_fallback import fallback_pub, run_fallback
from qiskit_fused.primitives.sampler_results import ExactPubResult, SampledData

_AMPLITUDES_OF_SHOT = 100  # drawing a shot takes about the time of a gate on 100 amplitudes


class FusedSampler(BaseSamplerV2):
    """Shots of measured circuits, or exact probabilities, for all rows of parameter values at once.

    A circuit U(theta) measures k qubits at its end. The bitstring y of these qubits has the probability
    ``p(y) = sum over all basis states x with these bits of |<x|U(theta)|0>|^2``. With shots, the sampler draws
    bitstrings from p, as ``StatevectorSampler`` does. With ``default_shots=None``, it gives p itself, as the exact
    sampler ``QMLSampler`` of qiskit-machine-learning does.

    It takes the place of both, with the same PUBs, results and metadata, except for these differences:

    * Shots of different rows, PUBs and calls of `run` are independent, and one ``seed`` repeats all of them.
      ``StatevectorSampler`` with an integer as seed gives each row the same random numbers.
    * Exact probabilities of a register in which some bits are not measured have these bits, and they are 0, as with
      shots. ``QMLSampler`` leaves the bits out.
    * ``result[i].data.get_counts(row)`` gives the counts or probabilities of one row. ``SamplerQNN`` calls this method,
      so its batches are right for classical registers of any name.

    Circuits transpiled for large devices run too: idle qubits, and gates that no measured qubit can see, are not
    simulated. A measurement may stand anywhere as long as no gate follows on its qubit. ``job.metrics()`` tells what
    ran.

    >>> from qiskit import QuantumCircuit
    >>> circuit = QuantumCircuit(2)
    >>> _ = circuit.h(0)
    >>> _ = circuit.cx(0, 1)
    >>> circuit.measure_all()
    >>> counts = FusedSampler(seed=7).run([circuit], shots=1000).result()[0].data.meas.get_counts()
    >>> sorted(counts), sum(counts.values())
    (['00', '11'], 1000)
    >>> exact = FusedSampler(default_shots=None).run([circuit]).result()[0].data.meas
    >>> exact.probabilities.round(12).tolist()
    [0.5, 0.0, 0.0, 0.5]

    Args:
        default_shots: number of shots where neither a PUB nor `run` gives one. None: exact probabilities.
        seed: seed, an integer from 0 on, or NumPy generator of the shots. With an integer, the sampler keeps a random
            stream: each call of `run` takes the next part, and a new sampler with the same seed repeats all calls. A
            generator is advanced by each call. The outcomes of resets of qubits in use are not repeated, because
            Qiskit's simulators, which run them, draw these outcomes without a seed. Shots do not depend on threads, nor
            on the values in other rows. The number of rows, a memory limit or an executor may round probabilities
            differently. Where they do, a few shots in a million differ with complex64, and none with complex128.
        options: `FusedOptions` or a mapping; copied. Of `FusedOptions`, the options about precision are not used; in a
            mapping or as keywords, they are errors.
        keywords: single options, which override ``options``.

    Raises:
        TypeError: for an unknown option, or shots that are no integer.
        ValueError: for a bad value of an option, or shots that are not positive.
        RuntimeError: for a device that cannot be used.

    Cost: a row takes one forward sweep, and O(2^k + shots) for its shots. Rows are evaluated in blocks, so the 2^k
    probabilities of all rows are in memory at the same time only if they are the result.
    """

    @checks_keywords(no_precision("default_shots=None gives exact probabilities, a number gives the noise of shots"))
    def __init__(
        self,
        *,
        default_shots: int | None = 1024,
        seed: int | np.random.Generator | None = None,
        options: FusedOptions | Mapping[str, Any] | None = None,
        **keywords: Unpack[SamplerOptionsDict],
    ):
        changes: dict[str, Any] = {**keywords}
        if seed is not None:
            changes["seed"] = seed
        self._default_shots = check_shots(default_shots, "default_shots", may_be_none=True)
        self._options = FusedOptions.coerce(options, **changes)
        self._generator: np.random.Generator | None = None  # the random stream of a seed that is no generator
        self._generator_seed: int | None = None
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
        """The number of shots where neither a PUB nor `run` gives one, or None for exact probabilities."""
        return self._default_shots

    @property
    def seed(self) -> int | np.random.Generator | None:
        """The seed or generator of the shots."""
        return self._options.seed

    def run(self, pubs: Iterable[SamplerPubLike], *, shots: int | None = None) -> FusedJob:
        """Start a job that draws the shots, or computes the exact probabilities, of PUBs.

        All rows of all PUBs with the same circuit run as one batch.

        Args:
            pubs: PUBs: circuits, or tuples ``(circuit[, parameter_values[, shots]])``. The circuit may be the result of
                `compile_circuit`. Parameter values are an array (..., P) for P parameters, in the order of
                ``circuit.parameters``, which Qiskit sorts by name (``w10`` before ``w2``), or a mapping of parameters,
                names or tuples of them to values.
            shots: number of shots of PUBs that state none; None is ``default_shots``.

        Returns:
            A job whose result is a ``PrimitiveResult``, as from ``StatevectorSampler``. ``result[i].data`` has one
            field for each classical register of circuit i: a ``BitArray``, or `ExactProbabilities` without shots.

        Raises:
            TypeError: for a PUB with a part of a wrong type, or shots that are no integer.
            ValueError: for a PUB that is not valid, such as values that are not finite, or shots that are not positive.
                An error that occurs later, such as that of a circuit with a mid-circuit measurement, is raised by
                ``job.result()``.
        """
        options = copy(self._options)
        shots = self._default_shots if shots is None else check_shots(shots)
        circuits: dict[int, SampledCircuit] = {}
        tasks: list[Task] = []
        stream = 0
        all_pubs = list(pubs)  # a circuit is compared with its compiled form once, so nothing may change it meanwhile
        for number, pub in enumerate(all_pubs):
            task = _make_task(pub, shots, number, stream, circuits)
            stream += len(task.values)
            tasks.append(task)
        if not all(circuit.source.cregs for circuit in circuits.values()):
            warnings.warn(NO_REGISTERS, stacklevel=2)
        if options.fallback:
            _warn_of_fallbacks(tasks)
        key = self._next_key() if any(task.shots is not None for task in tasks) else np.zeros(2, np.uint64)
        job = FusedJob(_run, tasks, options, key)
        job.submit(_sizes(tasks))
        return job

    def _next_key(self) -> np.ndarray:
        """Return the key of the random streams of a run, uint64 (2,), the next numbers of the sampler's own stream."""
        seed = self._options.seed
        if isinstance(seed, np.random.Generator):
            generator = seed
        else:
            if self._generator is None or self._generator_seed != seed:
                self._generator, self._generator_seed = np.random.default_rng(seed), seed
            generator = self._generator
        return generator.integers(1 << 64, size=2, dtype=np.uint64)


def _make_task(pub: Any, shots: int | None, number: int, stream: int, circuits: dict[int, SampledCircuit]) -> Task:
    """Validate a PUB and return its task.

    Args:
        pub: the PUB.
        shots: number of shots of a PUB that states none; None asks for exact probabilities.
        number: number of the PUB.
        stream: number of the random stream of its first row.
        circuits: the circuits of earlier PUBs by their ids; a new circuit is added.
    """
    circuit, pub_values, shots = _parts_of(pub, shots)
    sampled = circuits.get(id(circuit))
    if sampled is None:
        sampled = circuits[id(circuit)] = SampledCircuit(circuit)
    values, shape = bind_values(pub_values, sampled.parameters, "second")
    if sampled.parameters:
        with renumbered(lambda row: name_row(row, shape, number)):
            check_finite(values, sampled.parameters)
    if sampled.numbers is not None:  # the values of the template's parameters, the same in all rows of the PUB
        values = pub_values = np.repeat(sampled.numbers[None], len(values), axis=0)
    task = Task(sampled, values, id(pub_values), shape, shots, number, stream)
    if sampled.error is not None:
        task.pub = fallback_pub(task)
    return task


def _warn_of_fallbacks(tasks: list[Task]) -> None:
    """Warn of the circuits that simulators of Qiskit run."""
    refused = {id(task.circuit): task for task in tasks if task.pub is not None}
    if not refused:
        return
    first = next(iter(refused.values()))
    simulator = "QMLSampler" if first.shots is None else "StatevectorSampler"
    more = f" (and {len(refused) - 1} more circuits)" if len(refused) > 1 else ""
    warnings.warn(
        f"{first.circuit.error}. Running it with {simulator}, one parameter set at a time{more}; fallback=False makes "
        "this an error.",
        stacklevel=3,
    )


def _parts_of(pub: Any, shots: int | None) -> tuple[Any, Any, int | None]:
    """Return circuit, values and shots of a PUB; ``shots`` is for a PUB without shots."""
    parts: Any
    # The usual forms come first: a test whether an object is a `SamplerPub` takes 5 us.
    if isinstance(pub, (tuple, list)) and 1 <= len(pub) <= 3 and isinstance(pub[0], (QuantumCircuit, CompiledCircuit)):
        parts = pub
    elif isinstance(pub, (QuantumCircuit, CompiledCircuit)):
        parts = (pub,)
    elif isinstance(pub, SamplerPub):
        parts = (pub.circuit, pub.parameter_values, pub.shots)
    else:
        if isinstance(pub, (tuple, list)) and 1 <= len(pub) <= 3:
            raise TypeError(f"circuit must be QuantumCircuit, not {type(pub[0]).__name__}.")
        return _parts_of(SamplerPub.coerce(pub, shots), shots)  # raises Qiskit's errors for other objects
    circuit, values, own_shots = (*parts, None, None)[:3]
    if own_shots is not None:
        shots = check_shots(own_shots)
    return circuit, values, shots


def _sizes(tasks: list[Task]) -> list[Size]:
    """Return the sizes of PUBs. Shots are counted as terms that take the same time."""
    return [
        Size(
            task.circuit.compiled,
            len(task.values),
            1 + (_AMPLITUDES_OF_SHOT * (task.shots or 0) >> task.circuit.source.num_qubits),
        )
        for task in tasks
    ]


def _run(
    tasks: list[Task], options: FusedOptions, key: np.ndarray
) -> tuple[PrimitiveResult[SamplerPubResult], dict[str, Any]]:
    """Run all PUBs of a job; return its result and its metrics."""
    metrics: dict[str, Any] = {"fallback": 0, "shots": 0, "drawing_seconds": 0.0}
    groups: dict[tuple[int, int], list[Task]] = {}
    fallbacks = []
    for task in tasks:
        circuit = task.circuit
        if circuit.readout is not None:
            groups.setdefault((id(circuit.compiled), id(circuit.readout.outcomes)), []).append(task)
        elif task.pub is not None and options.fallback:
            fallbacks.append(task)
        else:
            assert circuit.error is not None
            raise circuit.error
    batches = [Batch(group) for group in groups.values()]
    with Progress(options.progress, _parts(batches, fallbacks)) as progress:
        for batch in batches:
            progress.next_part()
            batch.run(options, key, metrics, progress)
        for task in fallbacks:
            progress.next_part()
            run_fallback(task, key)
            metrics["fallback"] += 1
            metrics["shots"] += len(task.values) * (task.shots or 0)
    return PrimitiveResult([_result(task) for task in tasks], metadata={"version": 2}), metrics


def _parts(batches: list[Batch], fallbacks: list[Task]) -> Iterator[Part]:
    """Yield the parts of the progress."""
    for batch in batches:
        yield Part.of(batch.compiled, len(batch.values))
    for task in fallbacks:
        circuit = task.circuit.source
        yield Part(circuit.num_qubits, len(circuit.data), len(task.values))


def _result(task: Task) -> SamplerPubResult:
    """Return the result of a PUB that was run."""
    data = SampledData(**task.fields, shape=task.shape)
    if task.shots is not None:
        return SamplerPubResult(data, metadata={"shots": task.shots, "circuit_metadata": task.circuit.metadata})
    names = list(task.circuit.measured_names)
    metadata = {"shots": None, "exact": True, "names": names, "circuit_metadata": task.circuit.metadata}
    return ExactPubResult(data, metadata=metadata)
