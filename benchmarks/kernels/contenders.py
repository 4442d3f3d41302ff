# SPDX-License-Identifier: Apache-2.0
"""The contenders of the benchmark of kernels.

A call takes samples and weights (N, D + W). Its answer is the matrix (N, N), which also takes the place of gradients;
or it is the value of a loss (1,) and its gradient with respect to the weights (W,).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from common.contender import Contender, Result


def qiskit_feature_map(workload: Any) -> tuple[Any, list[Any]]:
    """Return the circuit of Qiskit, whose parameters are ``x[i]`` and ``w[i]``, and its weights."""
    from qiskit.circuit import ParameterVector, QuantumCircuit
    from qiskit.circuit.library import pauli_feature_map

    if workload.steps is None:
        paulis = {"paulis": ["X", "YZ"], "entanglement": "full"}
        return pauli_feature_map(workload.num_qubits, reps=2, **paulis), []
    x, w = ParameterVector("x", workload.num_inputs), ParameterVector("w", workload.num_weights)
    circuit = QuantumCircuit(workload.num_qubits)
    for name, *places in workload.steps:
        if name == "rzz":
            first, second, i, j = places
            circuit.rzz(2 * (np.pi - x[i]) * (np.pi - x[j]), first, second)
        elif name == "crz":
            control, target, i = places
            circuit.crz(w[i], control, target)
        elif name in ("rz", "ry"):
            qubit, kind, i = places
            getattr(circuit, name)(2 * x[i] if kind == "x" else w[i], qubit)
        else:
            getattr(circuit, name)(*places)
    return circuit, list(w)


class KernelContender(Contender):
    """A kernel of Qiskit's interface; the answer is the matrix."""

    warm_up = None

    def kernel(self, **arguments: Any) -> Any:
        """Return the kernel."""
        raise NotImplementedError

    def prepare(self, workload: Any) -> None:
        feature_map, self.weights = qiskit_feature_map(workload)
        self.workload, self.made = workload, self.kernel(feature_map=feature_map)

    def __call__(self, parameters: np.ndarray) -> Any:
        return self.made.evaluate(parameters)

    def answer(self, result: Any) -> Result:
        return result, result

    @classmethod
    def work(cls, workload: Any) -> float:
        return 0.0


class FusedKernel(KernelContender):
    """`FusedQuantumKernel.evaluate`."""

    label, package = "qiskit-fused", "qiskit-fused"

    def kernel(self, **arguments: Any) -> Any:
        from qiskit_fused import FusedQuantumKernel

        return FusedQuantumKernel(**arguments, dtype=self.dtype)


class StatevectorKernel(KernelContender):
    """`FidelityStatevectorKernel`, whose statevectors are dropped before each call."""

    label, package, precisions = "FidelityStatevectorKernel", "qiskit-machine-learning", ("complex128",)

    def kernel(self, **arguments: Any) -> Any:
        from qiskit_machine_learning.kernels import FidelityStatevectorKernel

        return FidelityStatevectorKernel(**arguments)


class FidelityKernel(KernelContender):
    """`FidelityQuantumKernel` with its defaults: compute-uncompute on an exact sampler."""

    label, package, precisions = "FidelityQuantumKernel", "qiskit-machine-learning", ("complex128",)

    def kernel(self, **arguments: Any) -> Any:
        from qiskit_machine_learning.kernels import FidelityQuantumKernel

        return FidelityQuantumKernel(**arguments)


class FusedAlignment(FusedKernel):
    """`KernelAlignmentLoss.value_and_gradient`."""

    def kernel(self, **arguments: Any) -> Any:
        from qiskit_fused import KernelAlignmentLoss

        self.loss, self.labels = KernelAlignmentLoss(), self.workload_labels
        return super().kernel(**arguments, training_parameters=self.weights)

    def prepare(self, workload: Any) -> None:
        self.workload_labels = workload.labels()
        super().prepare(workload)

    def __call__(self, parameters: np.ndarray) -> Any:
        samples, weights = np.split(parameters, [self.workload.num_inputs], axis=1)
        return self.loss.value_and_gradient(weights[0], self.made, samples, self.labels)

    def answer(self, result: Any) -> Result:
        value, gradient = result
        return np.array([value]), np.asarray(gradient)


class TensorCircuitKernel(Contender):
    """JAX: the states of all samples by vmap, and one matrix product, in one jitted function."""

    label, package, warm_up = "tensorcircuit-ng", "tensorcircuit-ng", None

    def prepare(self, workload: Any) -> None:
        matrix_of = self.matrix_function(workload)
        self.call = self.jax.jit(lambda weights, inputs: matrix_of(weights, inputs))

    def matrix_function(self, workload: Any) -> Any:
        """Return the matrix as a function of weights (W,) and samples (N, D)."""
        import jax
        import tensorcircuit as tc

        tc.set_backend("jax")
        tc.set_dtype(self.dtype)
        tc.set_contractor("plain-experimental")
        self.jax, self.workload = jax, workload
        self.real = "float32" if self.dtype == "complex64" else "float64"

        def state_of(weights: Any, x: Any) -> Any:
            circuit = tc.Circuit(workload.num_qubits)
            for name, *places in workload.steps:
                if name == "rzz":
                    first, second, i, j = places
                    circuit.rzz(first, second, theta=2 * (np.pi - x[i]) * (np.pi - x[j]))
                elif name == "crz":
                    control, target, i = places
                    circuit.crz(control, target, theta=weights[i])
                elif name in ("rz", "ry"):
                    qubit, kind, i = places
                    getattr(circuit, name)(qubit, theta=2 * x[i] if kind == "x" else weights[i])
                else:
                    getattr(circuit, name)(*places)
            return circuit.state()

        def matrix_of(weights: Any, inputs: Any) -> Any:
            states = jax.vmap(state_of, in_axes=(None, 0))(weights, inputs)
            overlaps = states.conj() @ states.T
            return overlaps.real**2 + overlaps.imag**2

        return matrix_of

    def __call__(self, parameters: np.ndarray) -> Any:
        samples, weights = np.split(parameters.astype(self.real), [self.workload.num_inputs], axis=1)
        found = self.call(weights[0], samples)
        return self.jax.block_until_ready(found)

    def answer(self, result: Any) -> Result:
        return np.asarray(result), np.asarray(result)

    @classmethod
    def work(cls, workload: Any) -> float:
        return 0.0


class TensorCircuitAlignment(TensorCircuitKernel):
    """JAX: value and gradient of the loss, in one jitted function."""

    def prepare(self, workload: Any) -> None:
        matrix_of = self.matrix_function(workload)
        signs = 1.0 - 2.0 * workload.labels()
        numpy = self.jax.numpy

        def loss(weights: Any, inputs: Any) -> Any:
            matrix = matrix_of(weights, inputs)
            return 1 - signs @ matrix @ signs / (len(signs) * numpy.sqrt(numpy.sum(matrix**2)))

        self.call = self.jax.jit(self.jax.value_and_grad(loss))

    def answer(self, result: Any) -> Result:
        value, gradient = result
        return np.asarray(value)[None], np.asarray(gradient)
