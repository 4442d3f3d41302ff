# SPDX-License-Identifier: Apache-2.0
"""The cases of the benchmark of kernels: feature maps, samples, who computes their matrices, and the project's goals.

A feature map is a list of steps, which every contender builds in its own form. The angle of a step is a function of a
sample x (D,) and of the weights w (W,), which all samples share:

* ``("h", q)``: a Hadamard gate
* ``("rz", q, "x", i)``: RZ with the angle 2 x_i
* ``("ry", q, "w", i)``: RY with the angle w_i
* ``("rzz", q, r, i, j)``: RZZ with the angle 2 (pi - x_i) (pi - x_j)
* ``("crz", q, r, i)``: CRZ with the control q and the angle w_i
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import pi
from typing import Any

import numpy as np

from common.contender import Contender
from common.contest import Case, Goal, peers_of
from kernels.contenders import (
    FidelityKernel,
    FusedAlignment,
    FusedKernel,
    StatevectorKernel,
    TensorCircuitAlignment,
    TensorCircuitKernel,
)

Step = tuple[Any, ...]


@dataclass(frozen=True)
class KernelWorkload:
    """A feature map and its samples.

    Attributes:
        name: The name in the tables.
        num_qubits: The number of qubits.
        steps: The steps of the feature map; None for the circuit of qml#547, which only Qiskit's form has.
        num_inputs: D, the number of features.
        num_weights: W, the number of training parameters.
        batch: N, the number of samples.
    """

    name: str
    num_qubits: int
    steps: tuple[Step, ...] | None
    num_inputs: int
    num_weights: int
    batch: int

    def gates(self) -> Iterator[Step]:
        """Yield the steps."""
        yield from self.steps or ()

    def parameters(self, seed: int) -> np.ndarray:
        """Return samples in [0, 1) and weights in [-pi, pi), shape (N, D + W); the weights are the same in all rows."""
        rng = np.random.default_rng([seed, self.num_qubits])
        values = np.empty((self.batch, self.num_inputs + self.num_weights))
        values[:, self.num_inputs :] = rng.uniform(-pi, pi, self.num_weights)
        values[:, : self.num_inputs] = rng.random((self.batch, self.num_inputs))
        return values

    def labels(self) -> np.ndarray:
        """Return a class for each sample, shape (N,): 0 and 1 in turns."""
        return np.arange(self.batch) % 2


def zz_steps(num_qubits: int) -> tuple[Step, ...]:
    """Return the steps of `zz_feature_map`, up to global phases."""
    layer: list[Step] = [("h", q) for q in range(num_qubits)]
    layer += [("rz", q, "x", q) for q in range(num_qubits)]
    layer += [("rzz", q, r, q, r) for q, r in combinations(range(num_qubits), 2)]
    return tuple(layer * 2)


def embedding_steps(num_qubits: int) -> tuple[Step, ...]:
    """Return the steps of two layers of arXiv:2105.02276: H, RZ of the features, RY and a ring of CRZ of the weights.

    The second layer ends with the features, because gates of the weights behind them do not change the kernel.
    """
    n = num_qubits
    features: list[Step] = [("h", q) for q in range(n)] + [("rz", q, "x", q) for q in range(n)]
    weights: list[Step] = [("ry", q, "w", q) for q in range(n)] + [("crz", q, (q + 1) % n, n + q) for q in range(n)]
    return (*features, *weights, *features)


def public_script(num_features: int, batch: int) -> Case:
    """K1: the script of qml#547, with Pauli strings of X and YZ."""
    workload = KernelWorkload("K1", num_features, None, num_features, 0, batch)
    peers: dict[str, type[Contender]] = {"fidelity": FidelityKernel, "statevector": StatevectorKernel}
    goals = (Goal(("fidelity",), 1000, "complex128"), Goal(("statevector",), 20, "complex128"))
    return Case(workload.name, workload, (FusedKernel,), peers, goals)


def matrix(num_qubits: int, batch: int) -> Case:
    """K2: the symmetric matrix of `zz_feature_map`."""
    workload = KernelWorkload("K2", num_qubits, zz_steps(num_qubits), num_qubits, 0, batch)
    peers: dict[str, type[Contender]] = {"statevector": StatevectorKernel, "tensorcircuit": TensorCircuitKernel}
    goals = (Goal(("statevector",), 50, "complex128"), Goal(("tensorcircuit",), 3))
    return Case(workload.name, workload, (FusedKernel,), peers, goals)


def alignment(num_qubits: int, batch: int) -> Case:
    """K3: kernel alignment and its gradient, of a kernel with two weights for each qubit."""
    workload = KernelWorkload("K3", num_qubits, embedding_steps(num_qubits), num_qubits, 2 * num_qubits, batch)
    peers: dict[str, type[Contender]] = {"tensorcircuit": TensorCircuitAlignment}
    return Case(workload.name, workload, (FusedAlignment,), peers, (Goal(("tensorcircuit",), 10),))


FULL = (public_script(5, 100), matrix(10, 1000), alignment(12, 200))
QUICK = (public_script(3, 6), matrix(3, 8), alignment(3, 6))
PEERS = peers_of(FULL)
