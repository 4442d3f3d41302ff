# SPDX-License-Identifier: Apache-2.0
"""The cases of the benchmark of samplers: workloads, who runs them, and the goals that the project sets."""

from __future__ import annotations

from common.contender import Contender
from common.contest import Case, Goal, peers_of
from common.workloads import Gate, Workload, efficient_su2, hardware_efficient
from sampling.networks import (
    FusedJacobian,
    FusedVjp,
    NumpyJacobian,
    NumpyVjp,
    SamplerNetwork,
    TensorCircuitJacobian,
    TensorCircuitVjp,
)
from sampling.samplers import AerPubs, FusedPubs, NumpyProbabilities, QulacsSampling, StatevectorPubs


def networks(workload: Workload) -> tuple[Case, ...]:
    """S1: values and gradients of a network of two probabilities."""
    jacobian = Case(
        "S1 values and Jacobian",
        workload,
        (FusedJacobian,),
        {"tensorcircuit": TensorCircuitJacobian, "defaults": SamplerNetwork},
        (Goal(("tensorcircuit",), 12), Goal(("defaults",), 10_000)),
        NumpyJacobian,
    )
    vjp = Case(
        "S1 values and VJP",
        workload,
        (FusedVjp,),
        {"tensorcircuit": TensorCircuitVjp},
        (Goal(("tensorcircuit",), 15),),
        NumpyVjp,
    )
    return jacobian, vjp


def list_of_rows(num_qubits: int, batch: int) -> Case:
    """S2: one-row PUBs of Qiskit's `efficient_su2` with three repetitions and a reversed ladder of CX."""
    n, gates = num_qubits, []
    for layer in range(4):
        start = 2 * n * layer
        gates += [Gate(name, (q,), start + k * n + q) for k, name in enumerate(("ry", "rz")) for q in range(n)]
        if layer < 3:
            gates += [Gate("cx", (q, q + 1)) for q in reversed(range(n - 1))]
    peers = {"statevector": StatevectorPubs, "aer": AerPubs}
    return _sampled(f"S2 ({n} qubits)", n, gates, 8 * n, batch, peers, (Goal(("statevector",), 20),))


def payload(num_parameters: int, batch: int) -> Case:
    """S3: many one-row PUBs of one qubit with RZ gates."""
    gates = [Gate("rz", (0,), k) for k in range(num_parameters)]
    name = f"S3 ({num_parameters} parameter{'' if num_parameters == 1 else 's'})"
    peers = {"aer": AerPubs, "statevector": StatevectorPubs}
    return _sampled(name, 1, gates, num_parameters, batch, peers, (Goal(("aer",), 20),))


def many_shots(num_qubits: int, num_layers: int, shots: int) -> Case:
    """S4: many draws from one row of W1."""
    workload = hardware_efficient(num_qubits, num_layers)
    name = f"S4 ({num_qubits},{num_layers})"
    peers: dict[str, type[Contender]] = {"aer": AerPubs, "qulacs": QulacsSampling}
    return Case(name, workload, (FusedPubs,), peers, (Goal(("aer", "qulacs"), 3),), NumpyProbabilities, shots)


def _sampled(
    name: str,
    num_qubits: int,
    gates: list[Gate],
    num_parameters: int,
    batch: int,
    peers: dict[str, type[Contender]],
    goals: tuple[Goal, ...],
) -> Case:
    """Return the case of 1,024 draws from rows that differ in all parameters."""
    workload = Workload(
        name=name,
        num_qubits=num_qubits,
        num_layers=0,
        layer=(),
        before=tuple(gates),
        after=(),
        num_inputs=num_parameters,
        num_parameters=num_parameters,
        layer_stride=0,
        batch=batch,
    )
    return Case(name, workload, (FusedPubs,), peers, goals, NumpyProbabilities, 1024)


FULL: tuple[Case, ...] = (
    *networks(efficient_su2(8, 5)),
    *(list_of_rows(n, 100) for n in range(5, 11)),
    *(payload(size, 5000) for size in (1, 20, 100)),
    many_shots(20, 10, 10**6),
)
QUICK: tuple[Case, ...] = (
    *networks(efficient_su2(3, 1, batch=4)),
    list_of_rows(3, 4),
    payload(2, 8),
    many_shots(4, 2, 1000),
)
PEERS = peers_of(FULL)
