# SPDX-License-Identifier: Apache-2.0
"""The contenders of the training benchmark: networks with several outputs, and training steps.

The outputs are Z Z on the qubits k and k + n/2, k < n/2. Their light cones hold all gates, so no contender can leave
gates out. The angles of a call are made as in the main benchmark (see common/workloads.py). There are three jobs:

* jacobian: values (B, K), and gradients with respect to the weights (B, K, W)
* vjp: values (B, K), and the gradient of the sum of cotangents (B, K) times values (W,)
* step: the mean squared error between values and targets (B, K), and its gradient (W,); then a step of Adam. A model
  keeps its weights from call to call, and takes only the inputs from the angles of a call.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from common.contender import Contender, Result
from common.contest import Case, Goal
from common.numpy_adjoint import NumpyAdjoint
from common.workloads import Workload, qiskit_circuit
from main.peers import TensorCircuit

LEARNING_RATE, BETA_1, BETA_2, EPSILON = 0.01, 0.9, 0.999, 1e-8  # settings of Adam; the last three are torch's defaults


def output_qubits(num_qubits: int) -> list[tuple[int, int]]:
    """Return the two qubits of each output."""
    half = num_qubits // 2
    return [(k, k + half) for k in range(half)]


def output_operators(num_qubits: int) -> list[Any]:
    """Return the outputs as SparsePauliOps."""
    from qiskit.quantum_info import SparsePauliOp

    return [SparsePauliOp.from_sparse_list([("ZZ", pair, 1.0)], num_qubits) for pair in output_qubits(num_qubits)]


def output_diagonals(num_qubits: int, first_is_highest: bool = False) -> np.ndarray:
    """Return the diagonals of the outputs, shape (K, 2**n); qubit 0 is the lowest or the highest bit of the index."""
    qubits = np.arange(num_qubits)[:, None]
    signs = 1.0 - 2.0 * ((np.arange(2**num_qubits) >> qubits) & 1)
    if first_is_highest:
        signs = signs[::-1]
    return np.array([signs[a] * signs[b] for a, b in output_qubits(num_qubits)])


def cotangents_of(workload: Workload) -> np.ndarray:
    """Return the cotangents, shape (B, K); a smaller batch has the first rows."""
    return np.random.default_rng(1).normal(size=(workload.batch, workload.num_qubits // 2))


def targets_of(workload: Workload) -> np.ndarray:
    """Return the targets of a training step, shape (B, K); a smaller batch has the first rows."""
    return np.random.default_rng(2).uniform(-1, 1, (workload.batch, workload.num_qubits // 2))


def start_weights(workload: Workload) -> np.ndarray:
    """Return the weights with which a model starts, shape (W,)."""
    return workload.parameters(0)[0, workload.num_inputs :]


def network(workload: Workload, **options: Any) -> Any:
    """Return a `FusedEstimatorQNN` with these options."""
    from qiskit_fused import FusedEstimatorQNN

    circuit, inputs, weights = qiskit_circuit(workload)
    observables = output_operators(workload.num_qubits)
    return FusedEstimatorQNN(
        circuit=circuit, observables=observables, input_params=inputs, weight_params=weights, **options
    )


class FusedJacobian(Contender):
    """`FusedEstimatorQNN.forward`, then `backward`."""

    label, package = "qiskit-fused", "qiskit-fused"

    def prepare(self, workload: Workload) -> None:
        self.num_inputs, self.cotangents = workload.num_inputs, cotangents_of(workload)
        self.network = network(workload, dtype=self.dtype, num_threads=self.num_threads)

    def split(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return parameters[:, : self.num_inputs], parameters[0, self.num_inputs :]

    def __call__(self, parameters: np.ndarray) -> Result:
        inputs, weights = self.split(parameters)
        return self.network.forward(inputs, weights), self.network.backward(inputs, weights)[1]


class FusedVjp(FusedJacobian):
    """`FusedEstimatorQNN.value_and_vjp`."""

    def __call__(self, parameters: np.ndarray) -> Result:
        values, _, gradient = self.network.value_and_vjp(*self.split(parameters), self.cotangents)
        return values, gradient


class TensorCircuitJacobian(TensorCircuit):
    """JAX: one forward pass and K pullbacks, vmap over the rows, jit."""

    def prepare(self, workload: Workload) -> None:
        outputs, jax = self.outputs(workload), self.jax
        unit = np.eye(workload.num_qubits // 2, dtype=self.real)

        def value_and_jacobian(weights: Any, inputs: Any) -> Any:
            values, pull_back = jax.vjp(lambda weights: outputs(weights, inputs), weights)
            return values, jax.vmap(pull_back)(unit)[0]

        self.call = jax.jit(jax.vmap(value_and_jacobian, in_axes=(None, 0)))

    def outputs(self, workload: Workload) -> Any:
        """Return the values (K,) of a row as a function of weights and inputs."""
        state_of = self.states(workload)
        diagonals = output_diagonals(workload.num_qubits, first_is_highest=True).astype(self.real)
        return lambda weights, inputs: diagonals @ self.jax.numpy.abs(state_of(weights, inputs)) ** 2

    def __call__(self, parameters: np.ndarray) -> Result:
        inputs = parameters[:, : self.workload.num_inputs].astype(self.real)
        weights = parameters[0, self.workload.num_inputs :].astype(self.real)
        values, gradients = self.call(weights, inputs)
        return np.asarray(values), np.asarray(gradients)


class TensorCircuitVjp(TensorCircuitJacobian):
    """JAX: vmap over the rows, then one pullback, jit."""

    def prepare(self, workload: Workload) -> None:
        outputs, jax = self.outputs(workload), self.jax
        batched = jax.vmap(outputs, in_axes=(None, 0))
        cotangents = cotangents_of(workload).astype(self.real)

        def value_and_vjp(weights: Any, inputs: Any) -> Any:
            values, pull_back = jax.vjp(lambda weights: batched(weights, inputs), weights)
            return values, pull_back(cotangents)[0]

        self.call = jax.jit(value_and_vjp)


class TensorCircuitStep(TensorCircuitJacobian):
    """JAX: forward, loss, gradient and Adam in one jitted function."""

    def prepare(self, workload: Workload) -> None:
        outputs, jax = self.outputs(workload), self.jax
        numpy = jax.numpy
        batched = jax.vmap(outputs, in_axes=(None, 0))
        targets = targets_of(workload).astype(self.real)

        def loss_of(weights: Any, inputs: Any) -> Any:
            return numpy.mean((batched(weights, inputs) - targets) ** 2)

        def step(state: Any, inputs: Any) -> Any:
            loss, gradient = jax.value_and_grad(loss_of)(state[0], inputs)
            return loss, gradient, adam_step(*state, gradient, numpy.sqrt)

        self.call = jax.jit(step)
        weights = start_weights(workload).astype(self.real)
        self.state = (weights, np.zeros_like(weights), np.zeros_like(weights), np.zeros((), self.real))

    def __call__(self, parameters: np.ndarray) -> Result:
        inputs = parameters[:, : self.workload.num_inputs].astype(self.real)
        loss, gradient, self.state = self.call(self.state, inputs)
        return np.asarray(loss), np.asarray(gradient)


def adam_step(weights: Any, mean: Any, square: Any, count: Any, gradient: Any, sqrt: Any = np.sqrt) -> tuple[Any, ...]:
    """Return (weights, mean, square, count) after a step of Adam; all are arrays of NumPy or of JAX."""
    count = count + 1
    mean = BETA_1 * mean + (1 - BETA_1) * gradient
    square = BETA_2 * square + (1 - BETA_2) * gradient**2
    size = sqrt(square / (1 - BETA_2**count)) + EPSILON
    return weights - LEARNING_RATE * mean / (1 - BETA_1**count) / size, mean, square, count


class TorchStep(Contender):
    """A torch module, ``torch.nn.functional.mse_loss`` and ``torch.optim.Adam``."""

    def module(self, workload: Workload) -> Any:
        """Return the module, in which the Parameter `weight_name` holds the weights."""
        raise NotImplementedError

    weight_name: ClassVar[str] = "weight"

    def prepare(self, workload: Workload) -> None:
        import torch

        self.torch, self.num_inputs = torch, workload.num_inputs
        self.real = torch.float32 if self.dtype == "complex64" else torch.float64
        torch.set_default_dtype(self.real)  # PennyLane rounds lightning's outputs to torch's default dtype
        self.model = self.module(workload).to(self.real)
        self.weight = getattr(self.model, self.weight_name)
        with torch.no_grad():
            self.weight.copy_(torch.as_tensor(start_weights(workload)))
        self.targets = torch.as_tensor(targets_of(workload), dtype=self.real)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE)

    def __call__(self, parameters: np.ndarray) -> Result:
        inputs = self.torch.from_numpy(parameters[:, : self.num_inputs]).to(self.real)
        self.optimizer.zero_grad()
        loss = self.torch.nn.functional.mse_loss(self.model(inputs), self.targets)
        loss.backward()
        self.optimizer.step()
        return loss.item(), self.weight.grad


class FusedLayerStep(TorchStep):
    """`FusedLayer`, which runs in complex64 if its weights are float32."""

    label, package = "qiskit-fused", "qiskit-fused"

    def module(self, workload: Workload) -> Any:
        from qiskit_fused.torch import FusedLayer

        circuit, inputs, weights = qiskit_circuit(workload)
        return FusedLayer(circuit, output_operators(workload.num_qubits), inputs, weights, num_threads=self.num_threads)


class ConnectorStep(TorchStep):
    """``TorchConnector`` of an ``EstimatorQNN`` with its defaults: exact estimator, parameter shift.

    The connector's outputs are float32; Qiskit computes in double precision.
    """

    label, package, precisions = "TorchConnector", "qiskit-machine-learning", ("complex64",)
    sample_rows = 1

    def module(self, workload: Workload) -> Any:
        from qiskit_machine_learning.connectors import TorchConnector
        from qiskit_machine_learning.neural_networks import EstimatorQNN

        circuit, inputs, weights = qiskit_circuit(workload)
        observables = output_operators(workload.num_qubits)
        network = EstimatorQNN(
            circuit=circuit, observables=observables, input_params=inputs, weight_params=weights, **self.primitives()
        )
        return TorchConnector(network)

    def primitives(self) -> dict[str, Any]:
        return {}


class ReverseConnectorStep(ConnectorStep):
    """``TorchConnector`` with qiskit-algorithms' ReverseEstimatorGradient."""

    label, package = "TorchConnector + ReverseEstimatorGradient", "qiskit-algorithms"

    def primitives(self) -> dict[str, Any]:
        from qiskit_algorithms.gradients import ReverseEstimatorGradient

        return {"gradient": ReverseEstimatorGradient()}


class AcceleratedStep(ConnectorStep):
    """The same ``TorchConnector`` after `accelerate`."""

    label, package, sample_rows = "qiskit-fused, accelerate", "qiskit-fused", None

    def module(self, workload: Workload) -> Any:
        from qiskit_fused import accelerate

        return accelerate(super().module(workload), dtype=self.dtype, num_threads=self.num_threads)


class TorchLayerStep(TorchStep):
    """PennyLane's ``TorchLayer``; it gives all rows to the QNode at once."""

    precisions = ("complex64", "complex128")
    weight_name = "weights"
    differentiation: ClassVar[str]

    def device(self, num_qubits: int) -> Any:
        raise NotImplementedError

    def module(self, workload: Workload) -> Any:
        import pennylane as qml

        gates, num_inputs = list(workload.gates()), workload.num_inputs

        def circuit(inputs: Any, weights: Any) -> Any:
            for gate in gates:
                if not gate.is_rotation:
                    qml.CNOT(wires=gate.qubits)
                    continue
                column = gate.column
                angle = inputs[..., column] if column < num_inputs else weights[column - num_inputs]
                getattr(qml, gate.name.upper())(angle, wires=gate.qubits)
            return [qml.expval(qml.Z(a) @ qml.Z(b)) for a, b in output_qubits(workload.num_qubits)]

        device = self.device(workload.num_qubits)
        node = qml.QNode(circuit, device, interface="torch", diff_method=self.differentiation)
        return qml.qnn.TorchLayer(node, {"weights": (workload.num_weights,)})


class DefaultQubitStep(TorchLayerStep):
    """PennyLane default.qubit, differentiated by torch."""

    label, package, differentiation = "default.qubit", "pennylane", "backprop"

    def device(self, num_qubits: int) -> Any:
        import pennylane as qml

        return qml.device("default.qubit", wires=num_qubits)


class LightningStep(TorchLayerStep):
    """PennyLane lightning.qubit, adjoint, with its defaults: device_vjp and batch_obs are off, which was fastest."""

    label, package, differentiation = "lightning.qubit", "pennylane-lightning", "adjoint"

    def device(self, num_qubits: int) -> Any:
        import pennylane as qml

        return qml.device("lightning.qubit", wires=num_qubits, c_dtype=np.dtype(self.dtype).type)


class FlagQuantumStep(TorchStep):
    """A PyTorch module around a circuit of FlagQuantum that holds all rows."""

    label, package, precisions = "FlagQuantum", "flagquantum", ("complex64", "complex128")

    def module(self, workload: Workload) -> Any:
        import flagquantum
        import torch

        gates, dtype = list(workload.gates()), getattr(torch, self.dtype)

        class Network(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = torch.nn.Parameter(torch.zeros(workload.num_weights))

            def forward(self, inputs: Any) -> Any:
                rows = len(inputs)
                columns = [*inputs.unbind(1), *self.weight[:, None].expand(-1, rows).unbind()]
                circuit = flagquantum.Circuit(workload.num_qubits, bsz=rows, dtype=dtype)
                for gate in gates:
                    getattr(circuit, gate.name)(*gate.qubits, *([columns[gate.column]] if gate.is_rotation else []))
                pairs = output_qubits(workload.num_qubits)
                return torch.stack([circuit.expectation_ps(z=list(pair)) for pair in pairs], dim=1)

        return Network()


class NumpyJacobian(NumpyAdjoint):
    """The gate-by-gate adjoint in NumPy, one output after the other, with which all others are compared."""

    def prepare(self, workload: Workload) -> None:
        super().prepare(workload)
        self.diagonals = output_diagonals(workload.num_qubits)

    def jacobian(self, parameters: np.ndarray) -> Result:
        answers = []
        for diagonal in self.diagonals:
            self.diagonal = diagonal
            answers.append(super().__call__(parameters))
        values, gradients = zip(*answers, strict=True)
        return np.stack(values, axis=1), np.stack(gradients, axis=1)

    def __call__(self, parameters: np.ndarray) -> Result:
        return self.jacobian(parameters)


class NumpyVjp(NumpyJacobian):
    """The gate-by-gate adjoint in NumPy, contracted with the cotangents."""

    def __call__(self, parameters: np.ndarray) -> Result:
        values, jacobian = self.jacobian(parameters)
        return values, np.einsum("bk,bkw->w", cotangents_of(self.workload), jacobian)


class NumpyStep(NumpyJacobian):
    """The gate-by-gate adjoint in NumPy with a loss and a step of Adam."""

    def prepare(self, workload: Workload) -> None:
        super().prepare(workload)
        weights = start_weights(workload)
        self.state = (weights, np.zeros_like(weights), np.zeros_like(weights), 0)

    def __call__(self, parameters: np.ndarray) -> Result:
        inputs = parameters[:, : self.workload.num_inputs]
        weights = np.broadcast_to(self.state[0], (len(inputs), len(self.state[0])))
        values, jacobian = self.jacobian(np.hstack([inputs, weights]))
        difference = values - targets_of(self.workload)
        gradient = np.einsum("bk,bkw->w", 2 * difference / difference.size, jacobian)
        self.state = adam_step(*self.state, gradient)
        return np.mean(difference**2), gradient


def jobs(workload: Workload) -> dict[str, Case]:
    """Return the jobs of a network, by name."""
    tensorcircuit: dict[str, type[Contender]] = {"tensorcircuit": TensorCircuitJacobian}
    steps: dict[str, type[Contender]] = {
        "default.qubit": DefaultQubitStep,
        "lightning": LightningStep,
        "tensorcircuit": TensorCircuitStep,
        "flagquantum": FlagQuantumStep,
        "reverse": ReverseConnectorStep,
        "connector": ConnectorStep,
    }
    ten_times = (Goal(("tensorcircuit",), 10),)
    step_goals = (Goal(("connector",), 1000), Goal(("default.qubit", "lightning", "tensorcircuit", "flagquantum"), 5))
    return {
        "jacobian": Case("values and Jacobian", workload, (FusedJacobian,), tensorcircuit, ten_times, NumpyJacobian),
        "vjp": Case("values and VJP", workload, (FusedVjp,), {"tensorcircuit": TensorCircuitVjp}, ten_times, NumpyVjp),
        "step": Case("training step", workload, (FusedLayerStep, AcceleratedStep), steps, step_goals, NumpyStep),
    }
