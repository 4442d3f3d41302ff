# SPDX-License-Identifier: Apache-2.0
"""The contenders of the benchmark of curvature.

The observable is the sum of all Z. A call takes the angles of a row. The answer of Q1 is the quantum Fisher
information, of Q2 the metric and the gradient of a step of imaginary time evolution, of H1 the product of the Hessian
with a vector, of H2 the Hessian. A row of the Hessian takes the place of a gradient. The answer of H3 is the mean of
``(u_xx + u)^2`` over the rows x, u the value of the network, and its gradient with respect to the weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from common.contender import Contender, Result
from common.workloads import Workload, diagonal_sum_of_z, qiskit_circuit, sum_of_z
from main.peers import TensorCircuit

PART = 8  # the parameters of a part of a Hessian


def vector_of(workload: Workload) -> np.ndarray:
    """Return the vector of H1, shape (P,)."""
    return np.random.default_rng(1).normal(size=workload.num_weights)


def ising_model(num_qubits: int) -> Any:
    """Return the transverse-field Ising model of Q2 as a SparsePauliOp."""
    from qiskit.quantum_info import SparsePauliOp

    terms = [("ZZ", [q, q + 1], -1.0) for q in range(num_qubits - 1)] + [("X", [q], -0.8) for q in range(num_qubits)]
    return SparsePauliOp.from_sparse_list(terms, num_qubits)


def as_answer(matrix: Any, values: Any = None) -> Result:
    """Return a matrix (P, P) as the gradients of one row, and values, or else its diagonal, as the values."""
    matrix = np.asarray(matrix)
    values = np.diag(matrix) if values is None else np.asarray(values)
    return values[None], matrix[None]


class Own(Contender):
    """A contender of this package."""

    label, package, warm_up = "qiskit-fused", "qiskit-fused", None

    def prepare(self, workload: Workload) -> None:
        self.workload = workload
        self.circuit, self.inputs, self.weights = qiskit_circuit(workload)
        self.observable = sum_of_z(workload.num_qubits)
        self.options = {"dtype": self.dtype, "num_threads": self.num_threads}

    @classmethod
    def work(cls, workload: Workload) -> float:
        return 0.0


class FusedInformation(Own):
    """``QFI(FusedQGT())``."""

    def prepare(self, workload: Workload) -> None:
        from qiskit_machine_learning.gradients import QFI

        super().prepare(workload)
        self.information = QFI(self.tensor())

    def tensor(self) -> Any:
        from qiskit_fused import FusedQGT

        return FusedQGT(**self.options)

    def __call__(self, parameters: np.ndarray) -> Any:
        return self.information.run([self.circuit], parameters).result().qfis[0]

    def answer(self, result: Any) -> Result:
        return as_answer(result)


class ReverseInformation(FusedInformation):
    """``QFI(ReverseQGT())`` of qiskit-algorithms."""

    label, package, precisions = "ReverseQGT", "qiskit-algorithms", ("complex128",)

    def prepare(self, workload: Workload) -> None:
        from qiskit_algorithms.gradients import QFI, ReverseQGT

        Own.prepare(self, workload)
        self.information = QFI(ReverseQGT())


class PennyLane(Contender):
    """A circuit on default.qubit."""

    package, precisions, warm_up = "pennylane", ("complex128",), None

    def prepare(self, workload: Workload) -> None:
        import pennylane as qml

        self.qml, self.num_qubits, self.gates = qml, workload.num_qubits, list(workload.gates())
        self.device = qml.device("default.qubit", wires=workload.num_qubits)

    def operations(self, angles: Any) -> list[Any]:
        """Return the operations of the circuit."""
        found = []
        for gate in self.gates:
            operator = getattr(self.qml, {"cx": "CNOT"}.get(gate.name, gate.name.upper()))
            found.append(operator(*([angles[gate.column]] if gate.is_rotation else []), wires=gate.qubits))
        return found

    def measurement(self) -> Any:
        """Return the measurement of the sum of all Z."""
        count = self.num_qubits
        return self.qml.expval(self.qml.Hamiltonian([1.0] * count, [self.qml.Z(q) for q in range(count)]))

    @classmethod
    def work(cls, workload: Workload) -> float:
        return 0.0


class PennyLaneInformation(PennyLane):
    """``adjoint_metric_tensor``, times 4."""

    label = "PennyLane adjoint_metric_tensor"

    def prepare(self, workload: Workload) -> None:
        super().prepare(workload)

        def circuit(angles: Any) -> Any:
            self.operations(angles)
            return self.measurement()

        self.function = self.qml.adjoint_metric_tensor(self.qml.QNode(circuit, self.device))

    def __call__(self, parameters: np.ndarray) -> Any:
        return self.function(self.qml.numpy.array(parameters[0], requires_grad=True))

    def answer(self, result: Any) -> Result:
        return as_answer(4 * np.asarray(result))


class PennyLanePartOfHessian(PennyLane):
    """``param_shift_hessian`` of a tape whose first 8 parameters are trainable."""

    label, part = "PennyLane param_shift_hessian", PART

    def __call__(self, parameters: np.ndarray) -> Any:
        qml = self.qml
        operations = self.operations(parameters[0].tolist())
        tape = qml.tape.QuantumScript(operations, [self.measurement()], trainable_params=list(range(PART)))
        tapes, combine = qml.gradients.param_shift_hessian(tape)
        return combine(qml.execute(tapes, self.device))

    def answer(self, result: Any) -> Result:
        return as_answer(np.array([[float(entry) for entry in row] for row in result]))


class TensorCircuitInformation(TensorCircuit):
    """JAX: the Jacobian of the state by forward mode, and its products, in one jitted function."""

    warm_up = None

    def prepare(self, workload: Workload) -> None:
        state_of = self.states(workload)
        jax, numpy = self.jax, self.jax.numpy
        nothing = numpy.zeros(0)

        def information(weights: Any) -> Any:
            psi, tangents = state_of(weights, nothing), jax.jacfwd(lambda angles: state_of(angles, nothing))(weights)
            tangents = tangents - numpy.outer(psi, psi.conj() @ tangents)
            return 4 * numpy.real(tangents.conj().T @ tangents)

        self.call = jax.jit(information)

    def __call__(self, parameters: np.ndarray) -> Any:
        return self.jax.block_until_ready(self.call(parameters[0].astype(self.real)))

    def answer(self, result: Any) -> Result:
        return as_answer(result)

    @classmethod
    def work(cls, workload: Workload) -> float:
        return 0.0


class FusedEvolution(Own):
    """The metric and the gradient of a step of ``VarQITE``, through its variational principle."""

    def prepare(self, workload: Workload) -> None:
        from qiskit_algorithms.time_evolvers.variational import ImaginaryMcLachlanPrinciple

        super().prepare(workload)
        self.observable = ising_model(workload.num_qubits)
        self.principle = ImaginaryMcLachlanPrinciple(*self.parts())

    def parts(self) -> tuple[Any, Any]:
        """Return the tensor and the gradient."""
        from qiskit_fused import FusedEstimatorGradient, FusedQGT

        return FusedQGT(**self.options), FusedEstimatorGradient(**self.options)

    def __call__(self, parameters: np.ndarray) -> Any:
        metric = self.principle.metric_tensor(self.circuit, parameters[0])
        return metric, self.principle.evolution_gradient(self.observable, self.circuit, parameters[0])

    def answer(self, result: Any) -> Result:
        return as_answer(*result)


class ReverseEvolution(FusedEvolution):
    """The same by ``ReverseQGT`` and ``ReverseEstimatorGradient``."""

    label, package, precisions = "ReverseQGT + ReverseEstimatorGradient", "qiskit-algorithms", ("complex128",)

    def parts(self) -> tuple[Any, Any]:
        from qiskit_algorithms.gradients import ReverseEstimatorGradient, ReverseQGT

        return ReverseQGT(), ReverseEstimatorGradient()


class FusedProduct(Own):
    """``FusedEstimatorGradient.hessian_vector_product``."""

    def prepare(self, workload: Workload) -> None:
        from qiskit_fused import FusedEstimatorGradient, compile_circuit

        super().prepare(workload)
        self.gradient, self.compiled = FusedEstimatorGradient(**self.options), compile_circuit(self.circuit)
        self.vector = vector_of(workload)

    def __call__(self, parameters: np.ndarray) -> Any:
        return self.gradient.hessian_vector_product(self.compiled, self.observable, parameters, self.vector)

    def answer(self, result: Any) -> Result:
        return result[1][0], result[2][0]


class TensorCircuitProduct(TensorCircuit):
    """JAX: ``jvp`` of ``grad``, in one jitted function."""

    warm_up = None

    def prepare(self, workload: Workload) -> None:
        state_of = self.states(workload)
        jax, numpy = self.jax, self.jax.numpy
        diagonal, nothing = numpy.asarray(diagonal_sum_of_z(workload.num_qubits), dtype=self.real), numpy.zeros(0)

        def value(weights: Any) -> Any:
            return numpy.sum(diagonal * numpy.abs(state_of(weights, nothing)) ** 2)

        self.call = jax.jit(self.derivative(value, workload))

    def derivative(self, value: Any, workload: Workload) -> Any:
        """Return the derivative of the value as a function of weights (P,)."""
        jax, vector = self.jax, vector_of(workload).astype(self.real)
        return lambda weights: jax.jvp(jax.grad(value), (weights,), (vector,))

    def __call__(self, parameters: np.ndarray) -> Any:
        return self.jax.block_until_ready(self.call(parameters[0].astype(self.real)))

    def answer(self, result: Any) -> Result:
        first, second = map(np.asarray, result)
        return first[None], second[None]

    @classmethod
    def work(cls, workload: Workload) -> float:
        return 0.0


class FusedHessian(FusedProduct):
    """``FusedEstimatorGradient.value_gradient_and_hessian``."""

    def __call__(self, parameters: np.ndarray) -> Any:
        return self.gradient.value_gradient_and_hessian(self.compiled, self.observable, parameters)[2]

    def answer(self, result: Any) -> Result:
        return as_answer(result[0, 0])


class TensorCircuitHessian(TensorCircuitProduct):
    """JAX: ``hessian``, forward over reverse, in one jitted function."""

    def derivative(self, value: Any, workload: Workload) -> Any:
        return self.jax.hessian(value)

    def answer(self, result: Any) -> Result:
        return as_answer(result)


class FusedCollocation(Own):
    """``FusedLayer.input_derivatives`` and a backward pass in PyTorch."""

    def prepare(self, workload: Workload) -> None:
        import torch

        from qiskit_fused.torch import FusedLayer

        super().prepare(workload)
        torch.set_num_threads(self.num_threads)
        self.real = torch.float32 if self.dtype == "complex64" else torch.float64
        weights = torch.zeros(workload.num_weights, dtype=self.real)
        self.torch, self.layer = (
            torch,
            FusedLayer(
                self.circuit, self.observable, self.inputs, self.weights, weights, num_threads=self.num_threads
            ).to(self.real),
        )

    def __call__(self, parameters: np.ndarray) -> Any:
        layer, rows = self.layer, self.torch.from_numpy(parameters).to(self.real)
        layer.weight.data = rows[0, 1:].clone()
        layer.weight.grad = None
        u, _, u_xx = layer.input_derivatives(rows[:, :1])
        loss = ((u_xx[..., 0] + u) ** 2).mean()
        loss.backward()
        return loss, layer.weight.grad

    def answer(self, result: Any) -> Result:
        loss, gradient = result
        return loss.detach().numpy()[None], gradient.numpy()[None]


class TensorCircuitCollocation(TensorCircuit):
    """JAX: value and gradient of the loss, whose u_xx is forward over reverse, vmap over the rows, jit."""

    warm_up = None

    def prepare(self, workload: Workload) -> None:
        state_of = self.states(workload)
        jax, numpy = self.jax, self.jax.numpy
        diagonal = numpy.asarray(diagonal_sum_of_z(workload.num_qubits), dtype=self.real)

        def residual(weights: Any, x: Any) -> Any:
            def network(x: Any) -> Any:
                return numpy.sum(diagonal * numpy.abs(state_of(weights, x[None])) ** 2)

            slope = jax.grad(network)
            return network(x) + jax.jvp(slope, (x,), (numpy.ones_like(x),))[1]

        def loss(weights: Any, points: Any) -> Any:
            return numpy.mean(jax.vmap(residual, in_axes=(None, 0))(weights, points) ** 2)

        self.call = jax.jit(jax.value_and_grad(loss))

    def __call__(self, parameters: np.ndarray) -> Any:
        parameters = parameters.astype(self.real)
        return self.jax.block_until_ready(self.call(parameters[0, 1:], parameters[:, 0]))

    def answer(self, result: Any) -> Result:
        value, gradient = map(np.asarray, result)
        return value[None], gradient[None]

    @classmethod
    def work(cls, workload: Workload) -> float:
        return 0.0
