# SPDX-License-Identifier: Apache-2.0
"""The contenders of S1: a network whose two outputs are the probabilities of an even and an odd number of ones.

The circuit is W2 (see common/workloads.py), and all qubits are measured. There are two jobs:

* values and Jacobian: values (B, 2), and gradients with respect to the weights (B, 2, W)
* values and VJP: values (B, 2), and the gradient of the sum of cotangents (B, 2) times values (W,)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from common.contender import Contender, Result
from common.numpy_adjoint import NumpyAdjoint
from common.workloads import Workload, qiskit_circuit
from main.peers import TensorCircuit

NUM_OUTPUTS = 2


def parity(outcome: int) -> int:
    """Return 1 for an odd number of ones, else 0."""
    return outcome.bit_count() % 2


def signs_of(num_qubits: int) -> np.ndarray:
    """Return 1 for each bitstring with an even number of ones and -1 for the others, shape (2**n,)."""
    return 1.0 - 2.0 * (np.bitwise_count(np.arange(2**num_qubits)) % 2)


def cotangents_of(workload: Workload) -> np.ndarray:
    """Return the cotangents, shape (B, 2); a smaller batch has the first rows."""
    return np.random.default_rng(1).normal(size=(workload.batch, NUM_OUTPUTS))


class SamplerNetwork(Contender):
    """`SamplerQNN` with its defaults: exact probabilities, parameter shift."""

    label, package, precisions = "SamplerQNN defaults", "qiskit-machine-learning", ("complex128",)
    sample_rows = 1

    def network(self, **arguments: Any) -> Any:
        """Return the network."""
        from qiskit_machine_learning.neural_networks import SamplerQNN

        return SamplerQNN(**arguments)

    def prepare(self, workload: Workload) -> None:
        circuit, inputs, weights = qiskit_circuit(workload)
        circuit.measure_all()
        self.num_inputs, self.cotangents = workload.num_inputs, cotangents_of(workload)
        arguments: Any = {"circuit": circuit, "input_params": inputs, "weight_params": weights}
        self.qnn = self.network(**arguments, interpret=parity, output_shape=NUM_OUTPUTS)

    def __call__(self, parameters: np.ndarray) -> Result:
        inputs, weights = parameters[:, : self.num_inputs], parameters[0, self.num_inputs :]
        return self.qnn.forward(inputs, weights), self.qnn.backward(inputs, weights)[1]


class FusedJacobian(SamplerNetwork):
    """`FusedSamplerQNN.forward`, then `backward`."""

    label, package, precisions = "qiskit-fused", "qiskit-fused", ("complex64", "complex128")
    sample_rows = None

    def network(self, **arguments: Any) -> Any:
        from qiskit_fused import FusedSamplerQNN

        return FusedSamplerQNN(**arguments, dtype=self.dtype, num_threads=self.num_threads)


class FusedVjp(FusedJacobian):
    """`FusedSamplerQNN.value_and_vjp`."""

    def __call__(self, parameters: np.ndarray) -> Result:
        inputs, weights = parameters[:, : self.num_inputs], parameters[0, self.num_inputs :]
        values, _, gradient = self.qnn.value_and_vjp(inputs, weights, self.cotangents)
        return values, gradient


class TensorCircuitJacobian(TensorCircuit):
    """JAX: value and gradient of the mean sign z; the outputs are (1 + z) / 2 and (1 - z) / 2."""

    def prepare(self, workload: Workload) -> None:
        sign_of, numpy = self.mean_sign(workload), self.jax.numpy
        batched = self.jax.vmap(self.jax.value_and_grad(sign_of), in_axes=(None, 0))

        def value_and_jacobian(weights: Any, inputs: Any) -> Any:
            signs, gradients = batched(weights, inputs)
            return outputs_of(numpy, signs), numpy.stack([gradients / 2, -gradients / 2], axis=1)

        self.call = self.jax.jit(value_and_jacobian)

    def mean_sign(self, workload: Workload) -> Any:
        """Return the mean sign of a row as a function of weights and inputs."""
        state_of = self.states(workload)
        signs = signs_of(workload.num_qubits).astype(self.real)

        def mean_sign(weights: Any, inputs: Any) -> Any:
            state = state_of(weights, inputs)
            return signs @ (state.real**2 + state.imag**2)

        return mean_sign

    def __call__(self, parameters: np.ndarray) -> Result:
        inputs = parameters[:, : self.workload.num_inputs].astype(self.real)
        weights = parameters[0, self.workload.num_inputs :].astype(self.real)
        values, gradients = self.call(weights, inputs)
        return np.asarray(values), np.asarray(gradients)


class TensorCircuitVjp(TensorCircuitJacobian):
    """JAX: the mean signs of all rows, then one pullback."""

    def prepare(self, workload: Workload) -> None:
        sign_of, jax = self.mean_sign(workload), self.jax
        batched = jax.vmap(sign_of, in_axes=(None, 0))
        cotangents = cotangents_of(workload).astype(self.real)
        slopes = (cotangents[:, 0] - cotangents[:, 1]) / 2

        def value_and_vjp(weights: Any, inputs: Any) -> Any:
            signs, pull_back = jax.vjp(lambda weights: batched(weights, inputs), weights)
            return outputs_of(jax.numpy, signs), pull_back(slopes)[0]

        self.call = jax.jit(value_and_vjp)


def outputs_of(numpy: Any, signs: Any) -> Any:
    """Return both outputs (B, 2) of mean signs (B,); `numpy` is the module of the arrays."""
    return numpy.stack([(1 + signs) / 2, (1 - signs) / 2], axis=1)


class NumpyJacobian(NumpyAdjoint):
    """The gate-by-gate adjoint in NumPy, one output after the other, with which all others are compared."""

    def prepare(self, workload: Workload) -> None:
        super().prepare(workload)
        self.signs = signs_of(workload.num_qubits)

    def __call__(self, parameters: np.ndarray) -> Result:
        answers = []
        for sign in (1, -1):
            self.diagonal = (1 + sign * self.signs) / 2
            answers.append(super().__call__(parameters))
        values, gradients = zip(*answers, strict=True)
        return np.stack(values, axis=1), np.stack(gradients, axis=1)


class NumpyVjp(NumpyJacobian):
    """The gate-by-gate adjoint in NumPy, contracted with the cotangents."""

    def __call__(self, parameters: np.ndarray) -> Result:
        values, jacobian = super().__call__(parameters)
        return values, np.einsum("bk,bkw->w", cotangents_of(self.workload), jacobian)
