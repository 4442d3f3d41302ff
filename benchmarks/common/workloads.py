# SPDX-License-Identifier: Apache-2.0
"""The circuits of the benchmarks, as plain data; every contender builds its own form from the same description.

A workload is ``before``, then ``layer`` repeated ``num_layers`` times, then ``after``; the k-th repetition of the
layer uses the columns ``num_inputs + k * layer_stride + ...``. A gate's angle is a parameter (by column), a
constant, or nothing. The observable is a sum of Pauli strings. The first ``num_inputs`` columns are data, different in
every row; the others are weights, the same in all rows of a call. Gradients are per row, with respect to the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import pi
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Gate:
    """A gate of the neutral description; ``rx ry rz rzz`` are ``exp(-i angle/2 P)``.

    Attributes:
        name: The gate: rx, ry, rz, rzz, h, cx or cz.
        qubits: The qubits; the control of a cx comes first.
        column: The column of the parameter that is the angle; -1 for a constant angle or no angle.
        angle: The constant angle in radians, if column is -1.
    """

    name: str
    qubits: tuple[int, ...]
    column: int = -1
    angle: float = 0.0

    @property
    def is_rotation(self) -> bool:
        return self.name[0] == "r"


@dataclass(frozen=True)
class Workload:
    """A circuit, a batch and the goals that the project sets for its speed.

    Attributes:
        name: The name in the tables.
        num_qubits: The number of qubits, n.
        num_layers: The number of repetitions of `layer`.
        layer: The gates of a layer; a column c stands for ``layer_start + k * layer_stride + c`` in repetition k.
        before: The gates in front of the layers, with absolute columns.
        after: The gates behind the layers, with absolute columns.
        num_inputs: The number of columns that are data; the columns of the layers start behind them.
        num_parameters: The number of all columns, inputs included.
        layer_stride: The number of columns of one repetition.
        batch: The number of rows of a call.
        required: Our goal, as a multiple of the speed of the fastest peer.
        network: True if the workload runs through EstimatorQNN.forward and .backward, not through the contender's own
            fastest call.
        is_ising: True if the observable is sum Z_q Z_(q+1) + sum X_q; False for the sum of all Z.
    """

    name: str
    num_qubits: int
    num_layers: int
    layer: tuple[Gate, ...]
    before: tuple[Gate, ...]
    after: tuple[Gate, ...]
    num_inputs: int
    num_parameters: int
    layer_stride: int
    batch: int = 1
    required: float | None = None
    network: bool = False
    is_ising: bool = False

    @property
    def num_weights(self) -> int:
        return self.num_parameters - self.num_inputs

    def gates(self) -> Iterator[Gate]:
        """Yield all gates in circuit order, with their final columns."""
        yield from self.before
        for k in range(self.num_layers):
            start = self.num_inputs + k * self.layer_stride
            for gate in self.layer:
                yield replace(gate, column=gate.column + start) if gate.column >= 0 else gate
        yield from self.after

    def terms(self) -> list[tuple[str, tuple[int, ...]]]:
        """Return the Pauli strings of the observable, each with its qubits; all coefficients are 1."""
        qubits = range(self.num_qubits)
        if not self.is_ising:
            return [("Z", (q,)) for q in qubits]
        return [("ZZ", (q, q + 1)) for q in qubits[:-1]] + [("X", (q,)) for q in qubits]

    def operator(self):
        """Return the observable as a SparsePauliOp."""
        from qiskit.quantum_info import SparsePauliOp

        terms = [(label, list(qubits), 1.0) for label, qubits in self.terms()]
        return SparsePauliOp.from_sparse_list(terms, num_qubits=self.num_qubits)

    def diagonal(self) -> np.ndarray:
        """Return the diagonal of the strings of Z, shape (2**n,). It does not depend on which end the qubits start."""
        if not self.is_ising:
            return diagonal_sum_of_z(self.num_qubits)
        bits = np.arange(2**self.num_qubits, dtype=np.uint64)
        unequal = np.bitwise_count((bits ^ (bits >> np.uint64(1))) & np.uint64(2 ** (self.num_qubits - 1) - 1))
        return self.num_qubits - 1 - 2.0 * unequal

    def parameters(self, seed: int) -> np.ndarray:
        """Return angles in [-pi, pi), shape (batch, num_parameters): inputs differ by row, weights do not."""
        rng = np.random.default_rng([seed, self.num_qubits, self.num_layers])
        values = np.empty((self.batch, self.num_parameters))
        values[:, self.num_inputs :] = rng.uniform(-pi, pi, self.num_weights)
        # The inputs of a smaller batch are the first rows of the inputs of a larger batch.
        values[:, : self.num_inputs] = rng.uniform(-pi, pi, (self.batch, self.num_inputs))
        return values


def hardware_efficient(num_qubits: int, num_layers: int, **options) -> Workload:
    """W1: layers of RX RY RZ on every qubit and a ladder of CZ; one row."""
    rotations = [Gate(name, (q,), 3 * q + k) for q in range(num_qubits) for k, name in enumerate(("rx", "ry", "rz"))]
    ladder = [Gate("cz", (q, q + 1)) for q in range(num_qubits - 1)]
    stride = 3 * num_qubits
    return Workload(
        name=f"W1 ({num_qubits},{num_layers})",
        num_qubits=num_qubits,
        num_layers=num_layers,
        layer=(*rotations, *ladder),
        before=(),
        after=(),
        num_inputs=0,
        num_parameters=num_layers * stride,
        layer_stride=stride,
        **options,
    )


def deep_ansatz(num_qubits: int, num_layers: int) -> Workload:
    """Layers of RX RZ RX on every qubit, each gate with its own angle, and a ring of CZ; one row."""
    n, names = num_qubits, ("rx", "rz", "rx")
    rotations = [Gate(name, (q,), 3 * q + k) for q in range(n) for k, name in enumerate(names)]
    return Workload(
        name=f"n={n} L={num_layers}",
        num_qubits=n,
        num_layers=num_layers,
        layer=(*rotations, *(Gate("cz", (q, (q + 1) % n)) for q in range(n))),
        before=(),
        after=(),
        num_inputs=0,
        num_parameters=3 * n * num_layers,
        layer_stride=3 * n,
    )


def efficient_su2(num_qubits: int, num_layers: int, batch: int = 64, **options) -> Workload:
    """W2: RY(x) on every qubit, then Qiskit's efficient_su2 (RY RZ, linear CX) with num_layers repetitions."""
    n = num_qubits

    def rotations(start: int) -> tuple[Gate, ...]:
        return tuple(Gate(name, (q,), start + k * n + q) for k, name in enumerate(("ry", "rz")) for q in range(n))

    name = f"W2 ({n},{num_layers})"
    if batch == 1 or batch > 64:
        name += f" {batch:,} rows" if batch > 1 else " 1 row"
    return Workload(
        name=f"{name} EstimatorQNN" if options.get("network") else name,
        num_qubits=n,
        num_layers=num_layers,
        layer=(*rotations(0), *(Gate("cx", (q, q + 1)) for q in range(n - 1))),
        before=tuple(Gate("ry", (q,), q) for q in range(n)),
        after=rotations(n + 2 * n * num_layers),
        num_inputs=n,
        num_parameters=n + 2 * n * (num_layers + 1),
        layer_stride=2 * n,
        batch=batch,
        **options,
    )


def full_graph_qaoa(num_qubits: int, num_layers: int, **options) -> Workload:
    """W3: start in RY(pi/4), then layers of RZZ(gamma) on every pair and RX(beta) on every qubit; one row.

    From |+>^n all <Z> vanish by symmetry, hence RY(pi/4).
    """
    pairs = [(a, b) for b in range(num_qubits) for a in range(b)]
    return Workload(
        name=f"W3 QAOA ({num_qubits},{num_layers})",
        num_qubits=num_qubits,
        num_layers=num_layers,
        layer=(*(Gate("rzz", pair, 0) for pair in pairs), *(Gate("rx", (q,), 1) for q in range(num_qubits))),
        before=tuple(Gate("ry", (q,), angle=pi / 4) for q in range(num_qubits)),
        after=(),
        num_inputs=0,
        num_parameters=2 * num_layers,
        layer_stride=2,
        **options,
    )


def ising_ansatz(num_qubits: int, num_layers: int, **options) -> Workload:
    """TFIM: start in |+>, then layers of RZZ on neighbours and RX on every qubit, each with its own angle; one row."""
    n = num_qubits
    pairs = [Gate("rzz", (q, q + 1), q) for q in range(n - 1)]
    return Workload(
        name=f"TFIM ({n},{num_layers})",
        num_qubits=n,
        num_layers=num_layers,
        layer=(*pairs, *(Gate("rx", (q,), n - 1 + q) for q in range(n))),
        before=tuple(Gate("h", (q,)) for q in range(n)),
        after=(),
        num_inputs=0,
        num_parameters=num_layers * (2 * n - 1),
        layer_stride=2 * n - 1,
        is_ising=True,
        **options,
    )


def qiskit_circuit(workload: Workload):
    """Return (QuantumCircuit, its input parameters, its weight parameters); circuit.parameters is in column order."""
    from qiskit.circuit import ParameterVector, QuantumCircuit

    inputs = ParameterVector("inputs", workload.num_inputs)
    weights = ParameterVector("weights", workload.num_weights)
    columns = [*inputs, *weights]
    circuit = QuantumCircuit(workload.num_qubits)
    for gate in workload.gates():
        angle = (columns[gate.column] if gate.column >= 0 else gate.angle,) if gate.is_rotation else ()
        getattr(circuit, gate.name)(*angle, *gate.qubits)
    return circuit, list(inputs), list(weights)


def sum_of_z(num_qubits: int):
    """Return the observable as a SparsePauliOp."""
    from qiskit.quantum_info import SparsePauliOp

    return SparsePauliOp.from_sparse_list([("Z", [q], 1.0) for q in range(num_qubits)], num_qubits=num_qubits)


def diagonal_sum_of_z(num_qubits: int) -> np.ndarray:
    """Return the observable's diagonal, shape (2**n,); it does not depend on the order of the qubits."""
    bits = np.arange(2**num_qubits, dtype=np.uint64)
    return num_qubits - 2.0 * np.bitwise_count(bits).astype(np.float64)


WORKLOADS: tuple[Workload, ...] = (
    hardware_efficient(4, 10, required=10),
    hardware_efficient(8, 10, required=25),
    hardware_efficient(12, 20, required=50),
    hardware_efficient(16, 20, required=55),
    hardware_efficient(20, 10, required=18),
    hardware_efficient(22, 5, required=30),
    efficient_su2(4, 3, required=8),
    efficient_su2(8, 5, required=25),
    efficient_su2(8, 5, batch=1024, required=25),
    efficient_su2(12, 10, required=25),
    efficient_su2(20, 10, batch=1),
    full_graph_qaoa(16, 5, required=100),
    ising_ansatz(16, 10, required=40),
    ising_ansatz(20, 10, required=30),
    efficient_su2(8, 5, required=1000, network=True),
)

QUICK: tuple[Workload, ...] = (
    hardware_efficient(3, 2),
    efficient_su2(3, 2, batch=4),
    full_graph_qaoa(4, 2),
    ising_ansatz(4, 2),
    efficient_su2(3, 1, batch=2, network=True),
)


def select(workloads: Sequence[Any], prefixes: list[str]) -> list[Any]:
    """Return the workloads, or other things with a name, whose name starts with a prefix; all if there is no prefix.

    Raises:
        ValueError: if no name starts with one of the prefixes.
    """
    if not prefixes:
        return list(workloads)

    def matches(workload: Any, prefix: str) -> bool:
        return workload.name.replace(" ", "").lower().startswith(prefix.replace(" ", "").lower())

    for prefix in prefixes:
        if not any(matches(workload, prefix) for workload in workloads):
            raise ValueError(f"no workload is called {prefix!r}; there are {[w.name for w in workloads]}")
    return [workload for workload in workloads if any(matches(workload, prefix) for prefix in prefixes)]
