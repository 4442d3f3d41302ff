# SPDX-License-Identifier: Apache-2.0
"""A gate-by-gate adjoint in NumPy, with which the benchmarks check contenders on small circuits."""

from __future__ import annotations

import numpy as np

from common.contender import Contender, Result
from common.workloads import Gate, Workload


class NumpyAdjoint(Contender):
    """A gate-by-gate adjoint in NumPy, in double precision."""

    label, package, precisions, is_timed = "numpy", "numpy", ("complex128",), False

    def prepare(self, workload: Workload) -> None:
        self.workload = workload
        self.gates = list(workload.gates())
        self.diagonal = workload.diagonal()
        self.index = np.arange(2**workload.num_qubits)

    def __call__(self, parameters: np.ndarray) -> Result:
        values, gradients = zip(*(self._row(row) for row in parameters), strict=True)
        return np.array(values), np.array(gradients)[:, self.workload.num_inputs :]

    def _row(self, row: np.ndarray) -> tuple[float, np.ndarray]:
        psi = np.zeros(len(self.index), dtype=complex)
        psi[0] = 1.0
        for gate in self.gates:
            psi = self._apply(gate, row, psi)
        lam = self.diagonal * psi
        if self.workload.is_ising:
            lam += sum(psi[self.index ^ (1 << q)] for q in range(self.workload.num_qubits))
        value, gradient = np.vdot(psi, lam).real, np.zeros(len(row))
        for gate in reversed(self.gates):
            if gate.column >= 0:
                gradient[gate.column] += np.vdot(lam, self._pauli(gate, psi)).imag
            psi, lam = self._apply(gate, row, psi, -1.0), self._apply(gate, row, lam, -1.0)
        return value, gradient

    def _bit(self, qubit: int) -> np.ndarray:
        return (self.index >> qubit) & 1

    def _pauli(self, gate: Gate, psi: np.ndarray) -> np.ndarray:
        sign = np.prod([1 - 2 * self._bit(q) for q in gate.qubits], axis=0)
        flipped = psi[self.index ^ (1 << gate.qubits[0])]
        return {"rx": flipped, "ry": -1j * sign * flipped, "rz": sign * psi, "rzz": sign * psi}[gate.name]

    def _apply(self, gate: Gate, row: np.ndarray, psi: np.ndarray, direction: float = 1.0) -> np.ndarray:
        if gate.is_rotation:
            half = direction * 0.5 * (row[gate.column] if gate.column >= 0 else gate.angle)
            return np.cos(half) * psi - 1j * np.sin(half) * self._pauli(gate, psi)
        if gate.name == "h":
            return (psi[self.index ^ (1 << gate.qubits[0])] + (1 - 2 * self._bit(gate.qubits[0])) * psi) / np.sqrt(2)
        control, target = gate.qubits
        if gate.name == "cz":
            return (1 - 2 * (self._bit(control) & self._bit(target))) * psi
        return psi[self.index ^ (self._bit(control) << target)]
