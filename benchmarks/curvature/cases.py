# SPDX-License-Identifier: Apache-2.0
"""The cases of the benchmark of curvature: circuits, who computes what, and the project's goals."""

from __future__ import annotations

from dataclasses import replace

from common.contender import Contender
from common.contest import Case, Goal, peers_of
from common.workloads import Gate, Workload, hardware_efficient
from curvature import contenders as who


def ansatz(name: str, num_qubits: int, num_layers: int) -> Workload:
    """Return Qiskit's efficient_su2 with linear entanglement, without data; one row."""
    n = num_qubits

    def rotations(start: int) -> tuple[Gate, ...]:
        return tuple(Gate(kind, (q,), start + k * n + q) for k, kind in enumerate(("ry", "rz")) for q in range(n))

    return Workload(
        name=name,
        num_qubits=n,
        num_layers=num_layers,
        layer=(*rotations(0), *(Gate("cx", (q, q + 1)) for q in range(n - 1))),
        before=(),
        after=rotations(2 * n * num_layers),
        num_inputs=0,
        num_parameters=2 * n * (num_layers + 1),
        layer_stride=2 * n,
    )


def collocation(num_qubits: int, num_layers: int, batch: int) -> Workload:
    """H3: a network u(x) whose input x is the angle of an RY on every qubit, before the layers of `ansatz`."""
    n, plain = num_qubits, ansatz("H3", num_qubits, num_layers)

    def moved(gates: tuple[Gate, ...]) -> tuple[Gate, ...]:
        return tuple(Gate(gate.name, gate.qubits, gate.column + 1) for gate in gates)

    return Workload(
        name="H3",
        num_qubits=n,
        num_layers=num_layers,
        layer=plain.layer,
        before=tuple(Gate("ry", (q,), 0) for q in range(n)),
        after=moved(plain.after),
        num_inputs=1,
        num_parameters=1 + plain.num_parameters,
        layer_stride=2 * n,
        batch=batch,
    )


def cases(sizes: tuple[tuple[int, int], ...], batch: int) -> tuple[Case, ...]:
    """Return the cases for the qubits and layers of Q1 and H2, Q2, H1, and H3, and the rows of H3."""
    small, evolution, wide, network = sizes
    information = {
        "reverse": who.ReverseInformation,
        "pennylane": who.PennyLaneInformation,
        "tensorcircuit": who.TensorCircuitInformation,
    }
    goals = Goal(("reverse",), 500, "complex128"), Goal(("pennylane",), 100, "complex128"), Goal(("tensorcircuit",), 5)
    double = "complex128"
    return (
        _case(ansatz("Q1", *small), who.FusedInformation, information, goals),
        _case(
            ansatz("Q2", *evolution),
            who.FusedEvolution,
            {"reverse": who.ReverseEvolution},
            (Goal(("reverse",), 200, double),),
        ),
        _case(
            replace(hardware_efficient(*wide), name="H1"),
            who.FusedProduct,
            {"tensorcircuit": who.TensorCircuitProduct},
            (Goal(("tensorcircuit",), 15),),
        ),
        _case(
            ansatz("H2", *small),
            who.FusedHessian,
            {"tensorcircuit": who.TensorCircuitHessian, "pennylane": who.PennyLanePartOfHessian},
            (Goal(("tensorcircuit",), 10), Goal(("pennylane",), 1000, double)),
        ),
        _case(
            collocation(*network, batch),
            who.FusedCollocation,
            {"tensorcircuit": who.TensorCircuitCollocation},
            (Goal(("tensorcircuit",), 5),),
        ),
    )


def _case(
    workload: Workload, ours: type[Contender], peers: dict[str, type[Contender]], goals: tuple[Goal, ...]
) -> Case:
    """Return the case of a workload, which has its name."""
    return Case(workload.name, workload, (ours,), peers, goals)


FULL = cases(((8, 5), (10, 1), (12, 20), (6, 3)), 200)
QUICK = cases(((4, 1), (3, 1), (3, 2), (2, 1)), 4)
PEERS = peers_of(FULL)
