# SPDX-License-Identifier: Apache-2.0
"""Contenders that PyTorch differentiates: a statevector simulation of our own, and triton-qml without a GPU."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any
from unittest import mock

import numpy as np

from common.contender import Contender, Result
from common.workloads import Gate, Workload


class TorchContender(Contender):
    """Values of all rows and one backward pass; subclasses evolve the states of all rows together."""

    needs_diagonal = True
    most_work = 2.0**27  # autograd keeps a state for every gate: 1 GiB in complex64

    def prepare(self, workload: Workload) -> None:
        import torch

        torch.set_num_threads(self.num_threads)
        self.torch, self.workload, self.gates = torch, workload, list(workload.gates())
        self.real = torch.float32 if self.dtype == "complex64" else torch.float64
        self.diagonal = torch.tensor(workload.diagonal(), dtype=self.real)

    def __call__(self, parameters: np.ndarray) -> Result:
        torch, inputs = self.torch, self.workload.num_inputs
        # Each row gets its own copy of the weights, so that one backward pass gives the gradients of each row.
        data, weights = torch.tensor(parameters.T, dtype=self.real).tensor_split([inputs])
        weights = weights.requires_grad_()
        psi = self.states([*data.unbind(), *weights.unbind()], len(parameters))
        values = torch.linalg.vecdot(psi, self.diagonal * psi).real
        values.sum().backward()
        return values.detach().numpy(), weights.grad.numpy().T

    def states(self, columns: list[Any], rows: int) -> Any:
        """Return the final states (rows, 2**n) of angles (rows,), one tensor for each column of the parameters."""
        raise NotImplementedError

    def angle(self, gate: Gate, columns: list[Any]) -> Any:
        """Return the angles of a rotation: (rows,), or (1,) for a constant angle."""
        return columns[gate.column] if gate.column >= 0 else self.torch.tensor([gate.angle], dtype=self.real)


class TorchBackprop(TorchContender):
    """PyTorch alone: a statevector gate by gate, all rows at once, and autograd."""

    label, package = "PyTorch autograd", "torch"

    def prepare(self, workload: Workload) -> None:
        super().prepare(workload)
        index = self.torch.arange(2**workload.num_qubits)
        self.fixed = {(gate.name, gate.qubits): self._fixed(gate, index) for gate in self.gates}

    def _fixed(self, gate: Gate, index: Any) -> Any:
        """Return the constants of a gate: signs or a permutation of amplitudes, or signs of the values of Z."""
        torch, low, high = self.torch, min(gate.qubits), max(gate.qubits)
        if gate.name == "cz":
            return (1 - 2 * ((index >> low) & (index >> high) & 1)).to(self.real)
        if gate.name == "cx":
            control, target = gate.qubits
            return index ^ (((index >> control) & 1) << target)
        z = torch.tensor([1.0, -1.0], dtype=self.real)
        return z[:, None] if low == high else z[:, None, None, None] * z[:, None]

    def states(self, columns: list[Any], rows: int) -> Any:
        torch = self.torch
        psi = torch.zeros(rows, 2**self.workload.num_qubits, dtype=getattr(torch, self.dtype))
        psi[:, 0] = 1
        for gate in self.gates:
            fixed, (low, *high) = self.fixed[gate.name, gate.qubits], sorted(gate.qubits)
            if gate.name == "cz":
                psi = psi * fixed
                continue
            if gate.name == "cx":
                psi = psi[:, fixed]
                continue
            half = 0.5 * self.angle(gate, columns)[:, None, None]
            pairs = psi.view(rows, -1, 2, *(1 << (q - low - 1) for q in high), *(2 for _ in high), 1 << low)
            if gate.name in ("rz", "rzz"):
                turns = -half.view(-1, *(1 for _ in pairs.shape[1:])) * fixed
                psi = (pairs * torch.polar(torch.ones_like(turns), turns)).view(rows, -1)
            else:
                zero, one = pairs.unbind(2)
                cos, sin = torch.cos(half), torch.sin(half)
                down, up = (sin, -sin) if gate.name == "ry" else (-1j * sin, -1j * sin)
                psi = torch.stack((cos * zero + up * one, cos * one + down * zero), 2).view(rows, -1)
        return psi


class TritonQml(TorchContender):
    """triton-qml's PyTorch backend, which applies gates one by one with einsum; its fused kernels need a GPU."""

    label, package, precisions = "triton-qml, PyTorch path", "triton-qml", ("complex64",)
    most_work = 2.0**26

    def prepare(self, workload: Workload) -> None:
        super().prepare(workload)
        if (
            "triton" not in sys.modules and find_spec("triton") is None
        ):  # triton-qml imports this module even if its kernels are not used
            stub = mock.MagicMock()
            sys.modules |= {"triton": stub, "triton.language": stub.language}
        from triton_qml import FunctionalQuantumSimulator

        self.simulator = FunctionalQuantumSimulator(
            workload.num_qubits, device="cpu", backend_type="pytorch", dtype_str=self.dtype
        )

    def states(self, columns: list[Any], rows: int) -> Any:
        operations = []
        for gate in self.gates:
            qubits = list(gate.qubits) if len(gate.qubits) > 1 else gate.qubits[0]
            angle = [self.angle(gate, columns).expand(rows)] if gate.is_rotation else []
            operations.append([gate.name, qubits, *angle])
        return self.simulator.apply_fused_gates(self.simulator.create_initial_state(rows), operations)


class FlagQuantum(TorchContender):
    """FlagQuantum: a circuit with all rows and autograd, or its native adjoint, whichever was faster here.

    The native adjoint takes one row, and strings of one or two Z. It was the faster form for circuits without CZ.
    """

    label, package = "FlagQuantum", "flagquantum"
    needs_diagonal, most_work = False, 2.0**31

    def prepare(self, workload: Workload) -> None:
        super().prepare(workload)
        import flagquantum
        from flagquantum.algorithms.core import Hamiltonian, HamiltonianTerm

        # The circuit is built once. A call writes its angles into the tensors that the circuit holds.
        rows, torch = workload.batch, self.torch
        self.columns = [torch.zeros(rows, dtype=self.real) for _ in range(workload.num_parameters)]
        self.weights = [column.requires_grad_() for column in self.columns[workload.num_inputs :]]
        self.circuit = flagquantum.Circuit(workload.num_qubits, bsz=rows, dtype=getattr(torch, self.dtype))
        for gate in self.gates:
            angle = [self.angle(gate, self.columns)] if gate.is_rotation else []
            getattr(self.circuit, gate.name)(*gate.qubits, *angle)
        has_cz = any(gate.name == "cz" for gate in workload.layer)
        self.is_native = workload.batch == 1 and not workload.is_ising and not has_cz
        self.hamiltonian = Hamiltonian([HamiltonianTerm(1.0, label, qubits) for label, qubits in workload.terms()])

    def __call__(self, parameters: np.ndarray) -> Result:
        torch = self.torch
        with torch.no_grad():
            for column, angles in zip(self.columns, torch.tensor(parameters.T, dtype=self.real), strict=True):
                column.copy_(angles)
        values = self.expectation_values()
        gradients = torch.autograd.grad(values.sum(), self.weights)
        return values.detach().numpy().reshape(-1), torch.stack(gradients).numpy().T

    def expectation_values(self) -> Any:
        """Return the expectation values of all rows."""
        if self.is_native:
            return self.hamiltonian.expectation(self.circuit, differentiation="adjoint")
        psi = self.circuit.state(refresh=True).view(self.workload.batch, -1)
        values = self.torch.linalg.vecdot(psi, self.diagonal * psi).real
        for q in range(self.workload.num_qubits if self.workload.is_ising else 0):
            values = values + self.circuit.expectation_ps(x=[q])
        return values
