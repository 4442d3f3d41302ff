# SPDX-License-Identifier: Apache-2.0
"""The contenders of S2 to S4, which draw bitstrings, and the check of their draws.

A call takes parameter values (B, P), and draws `shots` bitstrings from the circuit of each row. Its answer is how often
each bitstring was drawn (B, 2**n), and an empty array in the place of gradients. `NumpyProbabilities` computes the
probability of each bitstring (B, 2**n), with which `judge_draws` compares these numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from common.comparison import Answers
from common.contender import Contender, Result
from common.worker import Record, Worker, first_calls, prepare
from common.workloads import Gate, Workload, qiskit_circuit

LARGEST_DEVIATION = 6.0  # standard deviations; a right sampler exceeds it once in 10^8 comparisons
LEAST_EXPECTED = 25.0  # draws in a group of bitstrings, from which a sum of squares is near its limit distribution


class PubSampler(Contender):
    """A sampler of Qiskit's interface: all rows are one-row PUBs of one circuit, in one job.

    Attributes:
        shots: The number of bitstrings that a call draws from the circuit of each row.
        most_rows: The number of rows that it is given, by the least number of parameters of the circuit.
    """

    shots: int = 1024
    most_rows: ClassVar[dict[int, int]] = {}

    def sampler(self) -> Any:
        """Return the sampler."""
        raise NotImplementedError

    def prepare(self, workload: Workload) -> None:
        self.circuit, _, _ = qiskit_circuit(workload)
        self.circuit.measure_all()
        self.num_qubits = workload.num_qubits
        rows = [rows for least, rows in self.most_rows.items() if workload.num_parameters >= least]
        self.rows = min([*rows, workload.batch])
        self.primitive = self.sampler()

    def __call__(self, parameters: np.ndarray) -> Any:
        return self.primitive.run([(self.circuit, row) for row in parameters], shots=self.shots).result()

    def answer(self, result: Any) -> Result:
        draws = np.zeros((len(result), 2**self.num_qubits))
        for row, pub in zip(draws, result, strict=True):
            packed = pub.data.meas.array  # uint8 (shots, bytes), the first byte is the highest
            weights = 256 ** np.arange(packed.shape[-1])[::-1]
            row += np.bincount(packed.astype(np.int64) @ weights, minlength=len(row))
        return draws, np.zeros(0)


class FusedPubs(PubSampler):
    """`FusedSampler`."""

    label, package = "qiskit-fused", "qiskit-fused"

    def sampler(self) -> Any:
        from qiskit_fused import FusedSampler

        return FusedSampler(dtype=self.dtype, num_threads=self.num_threads)


class StatevectorPubs(PubSampler):
    """Qiskit's StatevectorSampler."""

    label, package, precisions = "StatevectorSampler", "qiskit", ("complex128",)
    most_rows: ClassVar[dict[int, int]] = {0: 500}

    def sampler(self) -> Any:
        from qiskit.primitives import StatevectorSampler

        return StatevectorSampler()


class AerPubs(PubSampler):
    """SamplerV2 of qiskit-aer with two circuits at once, or two threads for one circuit.

    The options method="statevector", fusion_enable=False and runtime_parameter_bind_enable=True did not make it faster.
    """

    label, package = "Aer SamplerV2", "qiskit-aer"
    most_rows: ClassVar[dict[int, int]] = {20: 1000, 100: 500}  # its time grows faster than the number of rows

    def sampler(self) -> Any:
        from qiskit_aer.primitives import SamplerV2

        precision = {"complex64": "single", "complex128": "double"}[self.dtype]
        threads = {"max_parallel_threads": self.num_threads, "max_parallel_experiments": self.num_threads}
        return SamplerV2(options={"backend_options": {"precision": precision, **threads}})


class QulacsSampling(Contender):
    """qulacs: gates merged into gates of two qubits, which was the fastest, then `QuantumState.sampling`."""

    label, package, precisions = "qulacs", "qulacs", ("complex128",)
    shots: int = 1024

    def prepare(self, workload: Workload) -> None:
        import qulacs
        from qulacs.circuit import QuantumCircuitOptimizer

        self.qulacs, self.optimizer = qulacs, QuantumCircuitOptimizer()
        self.gates, self.num_qubits = list(workload.gates()), workload.num_qubits
        self.state = qulacs.QuantumState(workload.num_qubits)

    def __call__(self, parameters: np.ndarray) -> list[list[int]]:
        draws = []
        for row in parameters.tolist():
            circuit = self.qulacs.QuantumCircuit(self.num_qubits)
            for gate in self.gates:
                angle = (-row[gate.column],) if gate.is_rotation else ()  # its rotations are exp(+i angle/2 P)
                name = {"cx": "CNOT"}.get(gate.name, gate.name.upper())
                getattr(circuit, f"add_{name}_gate")(*gate.qubits, *angle)
            self.optimizer.optimize(circuit, 2)
            self.state.set_zero_state()
            circuit.update_quantum_state(self.state)
            draws.append(self.state.sampling(self.shots))
        return draws

    def answer(self, result: list[list[int]]) -> Result:
        return np.array([np.bincount(draws, minlength=2**self.num_qubits) for draws in result]), np.zeros(0)


class NumpyProbabilities(Contender):
    """The probabilities of all bitstrings, in NumPy and in double precision, all rows at once.

    The rotations of a qubit are multiplied with each other until a gate of two qubits meets this qubit.
    """

    label, package, precisions, is_timed = "numpy", "numpy", ("complex128",), False

    def prepare(self, workload: Workload) -> None:
        self.gates, self.num_qubits = list(workload.gates()), workload.num_qubits

    def __call__(self, parameters: np.ndarray) -> Result:
        self.states = np.zeros((len(parameters), 2**self.num_qubits), dtype=complex)
        self.states[:, 0] = 1.0
        waiting: dict[int, np.ndarray] = {}
        for gate in self.gates:
            if gate.is_rotation:
                (qubit,) = gate.qubits
                matrices = self._matrices(gate, parameters)
                waiting[qubit] = matrices @ waiting[qubit] if qubit in waiting else matrices
                continue
            for qubit in gate.qubits:
                self._rotate(qubit, waiting.pop(qubit, None))
            self._entangle(gate)
        for qubit, matrices in waiting.items():
            self._rotate(qubit, matrices)
        return np.abs(self.states) ** 2, np.zeros(0)

    def _matrices(self, gate: Gate, parameters: np.ndarray) -> np.ndarray:
        """Return the matrices of a rotation, shape (B, 2, 2)."""
        pauli = {"rx": [[0, 1], [1, 0]], "ry": [[0, -1j], [1j, 0]], "rz": [[1, 0], [0, -1]]}[gate.name]
        half = parameters[:, gate.column, None, None] / 2 if gate.column >= 0 else gate.angle / 2
        return np.cos(half) * np.eye(2) - 1j * np.sin(half) * np.array(pauli)

    def _rotate(self, qubit: int, matrices: np.ndarray | None) -> None:
        if matrices is None:
            return
        halves = self.states.reshape(len(self.states), -1, 2, 2**qubit)
        (a, b), (c, d) = np.moveaxis(matrices, 0, -1)[..., None, None]
        zero, one = halves[:, :, 0], halves[:, :, 1]
        self.states = np.stack([a * zero + b * one, c * zero + d * one], axis=2).reshape(self.states.shape)

    def _entangle(self, gate: Gate) -> None:
        low, high = sorted(gate.qubits)
        quarters = self.states.reshape(len(self.states), -1, 2, 2 ** (high - low - 1), 2, 2**low)
        if gate.name == "cz":
            quarters[:, :, 1, :, 1] *= -1
        elif gate.qubits[0] == high:
            quarters[:, :, 1] = quarters[:, :, 1, :, ::-1].copy()
        else:
            quarters[:, :, :, :, 1] = quarters[:, :, ::-1, :, 1].copy()


def compare_draws_with(check: Worker) -> Callable[[Workload, Answers], None]:
    """Return a comparison with the probabilities of a worker that is given as many rows as the contender."""

    def compare(workload: Workload, answers: Answers) -> None:
        truth: dict[int, np.ndarray] = {}
        for entry, answer in answers.values():
            rows = entry["rows"]
            if rows not in truth:
                check.call(prepare, replace(workload, batch=rows))
                truth[rows] = check.call(first_calls)[1][0]
            judge_draws(entry, answer[0][0], truth[rows])

    return compare


def judge_draws(entry: Record, draws: np.ndarray, probabilities: np.ndarray) -> None:
    """Write into an entry how far draws are from their probabilities, and "wrong" if they are too far.

    Args:
        entry: The entry. Its "deviation" is the sum of squares of `deviation_of`, in standard deviations.
        draws: The number of draws of each bitstring, shape (B, 2**n).
        probabilities: The probability of each bitstring, shape (B, 2**n).
    """
    if draws.shape != probabilities.shape:
        entry["wrong"] = f"DIFFERS: shape {draws.shape}, not {probabilities.shape}"
        return
    impossible = int(draws[probabilities < 1e-12].sum())
    entry["deviation"] = deviation_of(draws, probabilities)
    # Sums of float32 probabilities are wrong by some 1e-7, so a draw in 10^7 may fall between two bitstrings.
    if impossible > (1e-6 * draws.sum() if entry.get("dtype") == "complex64" else 0):
        entry["wrong"] = f"DIFFERS: {impossible} draws of bitstrings whose probability is 0"
    elif not abs(entry["deviation"]) <= LARGEST_DEVIATION:
        entry["wrong"] = (
            f"DIFFERS: draws deviate by {entry['deviation']:.1f} standard deviations, allowed {LARGEST_DEVIATION:g}"
        )


def deviation_of(draws: np.ndarray, probabilities: np.ndarray) -> float:
    """Return by how many standard deviations Pearson's sum of squares differs from its mean.

    The bitstrings of a row are sorted by their probability, and neighbours are joined into groups in which at least
    LEAST_EXPECTED draws are expected. A group with O draws, of which E are expected, adds (O - E)^2 / E to the sum.
    With G groups in R rows, the sum has the mean G - R and the variance 2 (G - R), if the draws are right. It is much
    too large if they come from other probabilities, and much too small if they are not independent.
    """
    total, freedom = 0.0, 0
    for drawn, probability in zip(draws, probabilities, strict=True):
        order = np.argsort(probability)
        expected = probability[order] * drawn.sum()
        starts = _groups(np.cumsum(expected))
        sums, means = (np.add.reduceat(array, starts) for array in (drawn[order], expected))
        total += float(((sums - means) ** 2 / means).sum())
        freedom += len(starts) - 1
    return (total - freedom) / np.sqrt(2 * freedom) if freedom else 0.0


def _groups(cumulative: np.ndarray) -> np.ndarray:
    """Return the first index of each group; `cumulative` is the number of draws expected up to each bitstring."""
    starts, last = [0], cumulative[-1] - LEAST_EXPECTED
    while True:
        before = cumulative[starts[-1] - 1] if starts[-1] else 0.0
        start = int(np.searchsorted(cumulative, before + LEAST_EXPECTED)) + 1
        if start >= len(cumulative) or cumulative[start - 1] > last:
            return np.array(starts)
        starts.append(start)
