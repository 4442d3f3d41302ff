# SPDX-License-Identifier: Apache-2.0
"""`FusedStateFidelity`: the fidelities of pairs of circuits, in the place of ``ComputeUncompute``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np
from qiskit.circuit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.state_fidelities import BaseStateFidelity, StateFidelityResult

from qiskit_fused.common.arrays import real_values
from qiskit_fused.common.display import arguments_text
from qiskit_fused.common.row_errors import renumbered
from qiskit_fused.compilation.circuits import COMPILED, CompiledCircuit
from qiskit_fused.compilation.observables import coerce_observables
from qiskit_fused.engines.interface import Watch
from qiskit_fused.engines.request import Request, all_pairs
from qiskit_fused.execution.arguments import check_sequence, is_by_name, ordered_values
from qiskit_fused.execution.devices import check_device
from qiskit_fused.execution.evaluate import evaluate
from qiskit_fused.execution.finite_values import check_finite
from qiskit_fused.execution.pair_fidelities import pair_fidelities
from qiskit_fused.execution.progress import Part, Progress
from qiskit_fused.execution.statevectors import FinalStates
from qiskit_fused.options.fused_options import ExactOptionsDict, FusedOptions, Unpack
from qiskit_fused.options.keywords import NO_PRECISION, checks_keywords
from qiskit_fused.primitives.job import FusedJob
from qiskit_fused.primitives.sampler_errors import check_shots

_OWN_STATES = "the fidelity simulates all states itself, so leave it out"
_REFUSED = NO_PRECISION | dict.fromkeys(("sampler", "pass_manager"), _OWN_STATES)


class FusedStateFidelity(BaseStateFidelity):
    """Fidelities ``|<psi(x)|phi(y)>|^2`` of pairs of circuits that prepare psi and phi, for rows of values x and y.

    It takes the place of ``ComputeUncompute``, in ``FidelityQuantumKernel``, ``PVQD`` and elsewhere, and has its exact
    values. All pairs of the same two circuits are computed together, and equal rows are simulated once. The circuits
    are not changed. Measurements at their ends are ignored.

    >>> from qiskit.circuit.library import real_amplitudes
    >>> circuit = real_amplitudes(2, reps=1)
    >>> job = FusedStateFidelity().run([circuit] * 2, [circuit] * 2, [[0, 0, 0, 0]] * 2, [[0, 0, 0, 0], [1, 0, 0, 0]])
    >>> [round(fidelity, 3) for fidelity in job.result().fidelities]
    [1.0, 0.77]

    Args:
        local: whether the fidelity is local. After the circuit of psi and the inverse of the circuit of phi, the
            fidelity is the probability to find all qubits in ``|0>``. The local fidelity is the mean of the
            probabilities to find single qubits in ``|0>``.
        shots: None is exact. With a number of shots, each fidelity is the mean of so many draws.
        options: `FusedOptions` or a mapping. The option ``seed`` is the seed or the generator of the draws.
        keywords: single options, which override ``options``.

    Raises:
        TypeError: for an unknown option, or shots that are no integer.
        ValueError: for a bad value of an option.
    """

    @checks_keywords(_REFUSED)
    def __init__(
        self,
        *,
        local: bool = False,
        shots: int | None = None,
        options: FusedOptions | Mapping[str, Any] | None = None,
        **keywords: Unpack[ExactOptionsDict],
    ):
        super().__init__()
        self._local, self._shots = bool(local), check_shots(shots, may_be_none=True)
        self._options = FusedOptions.coerce(options, **keywords)
        self._stream: tuple[Any, np.random.Generator] | None = None
        check_device(self._options)

    def __repr__(self) -> str:
        settings = ({"local": True} if self._local else {}) | ({} if self._shots is None else {"shots": self._shots})
        return f"FusedStateFidelity({arguments_text(settings | self._options.changed())})"

    @property
    def options(self) -> FusedOptions:
        """The options. ``fidelity.options.dtype = "complex64"`` changes one option for the calls that follow."""
        return self._options

    @options.setter
    def options(self, options: FusedOptions | Mapping[str, Any] | None) -> None:
        self._options = FusedOptions.coerce(options)

    def create_fidelity_circuit(self, circuit_1: QuantumCircuit, circuit_2: QuantumCircuit) -> QuantumCircuit:
        """Return the circuit of psi, followed by the inverse of the circuit of phi and a measurement of all qubits."""
        first, second = (circuit.remove_final_measurements(inplace=False) for circuit in (circuit_1, circuit_2))
        # Qiskit's own inverse of a controlled gate can lose a phase, or parameters that were assigned.
        circuit = first.compose(second.inverse(annotated=True))
        circuit.measure_all()
        return circuit

    def run(
        self,
        circuits_1: QuantumCircuit | Sequence[QuantumCircuit],
        circuits_2: QuantumCircuit | Sequence[QuantumCircuit],
        values_1: Any = None,
        values_2: Any = None,
        *,
        shots: int | None = None,
    ) -> FusedJob:
        """Start a job that computes the fidelity of each pair of circuits.

        Args:
            circuits_1: the circuits of psi, or one circuit for one pair.
            circuits_2: the circuits of phi, as many.
            values_1: parameter values of the circuits of psi, a row for each pair, as numbers or by name;
                None for circuits without parameters.
            values_2: parameter values of the circuits of phi.
            shots: see the class; None takes the number of shots of this object.

        Returns:
            A job whose result is a ``StateFidelityResult``: ``fidelities`` and ``raw_fidelities`` are equal lists.

        Raises:
            ValueError: for lists of different lengths, circuits on different numbers of qubits, values that do not
                belong to the parameters, or values that are not finite.
            UnsupportedInstruction: if a circuit has an instruction that no engine can simulate.
        """
        job = self._run(circuits_1, circuits_2, values_1, values_2, shots=shots)
        job.submit()
        return job

    def _run(
        self,
        circuits_1: QuantumCircuit | Sequence[QuantumCircuit],
        circuits_2: QuantumCircuit | Sequence[QuantumCircuit],
        values_1: Any = None,
        values_2: Any = None,
        *,
        shots: int | None = None,
    ) -> FusedJob:
        """Return the job of `run` before it is submitted."""
        shots = self._shots if shots is None else check_shots(shots)
        sides = [[one] if isinstance(one, QuantumCircuit) else list(one) for one in (circuits_1, circuits_2)]
        lengths = [len(side) for side in sides]
        if lengths[0] != lengths[1]:
            raise ValueError(
                f"the lists of circuits have the lengths {lengths[0]} and {lengths[1]}; allowed: equal lengths."
            )
        if not lengths[0]:
            raise ValueError("there are no circuits; allowed: at least one pair.")
        groups = [self._group(pair, rows, (values_1, values_2), lengths[0]) for pair, rows in _group_pairs(*sides)]
        draws = None if shots is None else (shots, self._generator())
        return FusedJob(_compute, groups, copy(self._options), lengths[0], draws)

    def _group(
        self, pair: tuple[QuantumCircuit, QuantumCircuit], rows: np.ndarray, values: tuple[Any, Any], count: int
    ) -> _Group:
        """Check the pairs of the same two circuits."""
        self._check_qubits_match(*pair)
        compiled = [COMPILED.get(circuit) for circuit in pair]
        arrays = tuple(
            _rows_of(f"values_{number + 1}", values[number], compiled[number], rows, count) for number in range(2)
        )
        local = None
        if self._local:
            local = COMPILED.get(self._construct_circuits(*pair)[0])
        return _Group(rows, (compiled[0], compiled[1]), (arrays[0], arrays[1]), local)

    def _generator(self) -> np.random.Generator:
        """Return the generator of the draws, which goes on from run to run until another seed is set."""
        seed = self._options.seed
        if self._stream is None or self._stream[0] is not seed:
            self._stream = seed, np.random.default_rng(seed)
        return self._stream[1]


class _Group(NamedTuple):
    """The pairs of the same two circuits.

    Attributes:
        rows: int (B,), their numbers among all pairs.
        compiled: the two circuits.
        values: parameter values of the first circuit (B, P) and of the second circuit (B, Q).
        local: the circuit of local fidelities, with P + Q parameters; None for global ones.
    """

    rows: np.ndarray
    compiled: tuple[CompiledCircuit, CompiledCircuit]
    values: tuple[np.ndarray, np.ndarray]
    local: CompiledCircuit | None

    @property
    def part(self) -> Part:
        """The part of the progress."""
        if self.local is not None:
            return Part.of(self.local, len(self.rows))
        first, second = (Part.of(compiled, len(self.rows)) for compiled in self.compiled)
        return first._replace(num_gates=first.num_gates + second.num_gates)

    def fidelities(self, options: FusedOptions, watch: Watch) -> np.ndarray:
        """Return the fidelities, float64 (B,)."""
        if self.local is not None:
            num_qubits = self.local.num_qubits
            operators = coerce_observables(_mean_projector(num_qubits)).operators
            request = Request(np.concatenate(self.values, axis=1), all_pairs(len(self.rows), 1), dtype=options.dtype)
            return evaluate(options, self.local, operators, request, watch=watch).values.clip(0, 1)
        only_active = self.compiled[0] is self.compiled[1]
        first, second = (FinalStates(compiled, options, only_active, False) for compiled in self.compiled)
        return pair_fidelities(first, second, self.values, watch)


def _mean_projector(num_qubits: int) -> SparsePauliOp:
    """Return the mean over all qubits of the projector onto ``|0>`` of a qubit, ``1/2 + sum_q Z_q / (2 n)``."""
    terms: list[tuple[str, list[int], float]] = [("Z", [qubit], 0.5 / num_qubits) for qubit in range(num_qubits)]
    terms.append(("", [], 0.5))
    return SparsePauliOp.from_sparse_list(terms, num_qubits)


def _group_pairs(
    circuits_1: list[QuantumCircuit], circuits_2: list[QuantumCircuit]
) -> list[tuple[tuple[QuantumCircuit, QuantumCircuit], np.ndarray]]:
    """Return pairs of circuit objects, and int (B,), the numbers of the pairs of the lists that are these objects."""
    kinds = []
    for circuits in (circuits_1, circuits_2):
        distinct = {id(circuit): circuit for circuit in circuits}
        numbers = {key: number for number, key in enumerate(distinct)}
        kinds.append((list(distinct.values()), np.fromiter(map(numbers.__getitem__, map(id, circuits)), np.intp)))
    (first, left), (second, right) = kinds
    both, places = np.unique(left * len(second) + right, return_inverse=True)
    return [
        ((first[number // len(second)], second[number % len(second)]), np.flatnonzero(places == place))
        for place, number in enumerate(both.tolist())
    ]


def _rows_of(argument: str, values: Any, compiled: CompiledCircuit, rows: np.ndarray, count: int) -> np.ndarray:
    """Return the parameter values of some pairs of the same circuit, float64 (B, P), checked.

    Args:
        argument: the name of the values, for errors.
        values: a row for each of all pairs, or None.
        compiled: the circuit.
        rows: int (B,), the numbers of the pairs.
        count: number of all pairs.
    """
    parameters = compiled.parameters
    if values is None or not parameters:
        if parameters:
            raise ValueError(f"{argument} are None; allowed: {len(parameters)} values for each pair of circuits.")
        return np.zeros((len(rows), 0))
    if is_by_name(values):
        values = ordered_values(values, parameters, argument)
    check_sequence(argument, values, "a list or an array with a row of values for each pair of circuits")
    if len(values) == count and (np.ndim(values[0]) or is_by_name(values[0])):
        values = [values[row] for row in rows] if len(rows) < count else values
    if isinstance(values, (list, tuple)) and any(map(is_by_name, values)):
        values = [ordered_values(value, parameters, f"{argument}[{row}]") for row, value in zip(rows, values)]
    array = real_values(values, argument)
    if array.ndim == 1:
        array = array.reshape(-1, len(parameters)) if len(array) == count and len(parameters) == 1 else array[None]
    if array.shape != (len(rows), len(parameters)):
        raise ValueError(
            f"{argument} have shape {array.shape} for {len(rows)} pairs of circuits with {len(parameters)} parameters; "
            f"allowed: {(len(rows), len(parameters))}."
        )
    with renumbered(lambda row: int(rows[row])):
        check_finite(array, parameters)
    return array


def _compute(
    groups: list[_Group], options: FusedOptions, count: int, draws: tuple[int, np.random.Generator] | None
) -> tuple[StateFidelityResult, dict[str, Any]]:
    """Compute all groups; return the result of the job, and no metrics.

    Args:
        groups: the pairs.
        options: the options of the engine.
        count: number of pairs.
        draws: the number of shots and the generator of the draws; None is exact.
    """
    fidelities, shots = np.empty(count), None
    with Progress(options.progress, (group.part for group in groups)) as progress:
        for group in groups:
            progress.next_part()
            fidelities[group.rows] = group.fidelities(options, progress.watch)
    if draws is not None:
        shots, generator = draws
        fidelities = generator.binomial(shots, fidelities) / shots
    numbers = fidelities.tolist()
    return StateFidelityResult(numbers, numbers, [{"shots": shots}] * count, options), {}
