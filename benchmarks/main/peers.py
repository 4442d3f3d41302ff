# SPDX-License-Identifier: Apache-2.0
"""The contenders of the named workloads and of the scans.

Each is the fastest way that we found to get values and gradients out of the public interface of a library.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from common.contender import Contender, Result
from common.own import Fused, FusedCircuit
from common.workloads import Gate, Workload, diagonal_sum_of_z, qiskit_circuit
from main.adjoint_peers import Lightning, MindQuantum, Qulacs, Scaluq
from main.torch_peers import FlagQuantum, TorchBackprop, TritonQml


class TensorCircuit(Contender):
    """tensorcircuit-ng on JAX: jit of vmap of value_and_grad, with a scan over the layers."""

    label, package = "tensorcircuit-ng", "tensorcircuit-ng"

    def prepare(self, workload: Workload) -> None:
        state_of = self.states(workload)
        jax = self.jax
        diagonal = jax.numpy.asarray(workload.diagonal(), dtype=self.real)
        sum_of_z = jax.numpy.asarray(diagonal_sum_of_z(workload.num_qubits), dtype=self.real)

        def value(weights: Any, inputs: Any) -> Any:
            state = state_of(weights, inputs)
            total = jax.numpy.sum(diagonal * jax.numpy.abs(state) ** 2)
            if workload.is_ising:  # the sum of X is the sum of Z behind a Hadamard gate on every qubit
                circuit = self.tensorcircuit.Circuit(workload.num_qubits, inputs=state)
                for q in range(workload.num_qubits):
                    circuit.h(q)
                total = total + jax.numpy.sum(sum_of_z * jax.numpy.abs(circuit.state()) ** 2)
            return total

        # The weights are the same in all rows, so their gate matrices are computed once.
        batched = jax.vmap(jax.value_and_grad(value), in_axes=(None, 0)) if workload.batch > 1 else None
        self.call = jax.jit(batched or jax.value_and_grad(value))

    def states(self, workload: Workload, checkpoints: bool = False) -> Any:
        """Return the final state of a row as a function of weights (W,) and inputs (I,); qubit 0 is the highest bit.

        With checkpoints, derivatives keep the states between layers and recompute the states within a layer.
        """
        import jax
        import tensorcircuit as tc

        tc.set_backend("jax")
        tc.set_dtype(self.dtype)
        tc.set_contractor("plain-experimental")  # up to 3x faster here than the default "greedy", never slower
        self.jax, self.tensorcircuit, self.workload = jax, tc, workload
        self.real = "float32" if self.dtype == "complex64" else "float64"
        start = np.zeros(2**workload.num_qubits, dtype=self.dtype)
        start[0] = 1.0
        in_layers = workload.num_layers * workload.layer_stride

        def run(gates: tuple[Gate, ...], angles: Any, state: Any, first_column: int = 0) -> Any:
            circuit = tc.Circuit(workload.num_qubits, inputs=state)
            for gate in gates:
                angle = angles[gate.column - first_column] if gate.column >= 0 else gate.angle
                getattr(circuit, gate.name)(*gate.qubits, **({"theta": angle} if gate.is_rotation else {}))
            return circuit.state()

        def state_of(weights: Any, inputs: Any) -> Any:
            state = run(workload.before, inputs, jax.numpy.asarray(start))
            layers = weights[:in_layers].reshape(workload.num_layers, workload.layer_stride)
            layer = lambda psi, angles: (run(workload.layer, angles, psi), None)  # noqa: E731
            state, _ = jax.lax.scan(jax.checkpoint(layer) if checkpoints else layer, state, layers)
            return run(workload.after, weights[in_layers:], state, workload.num_inputs + in_layers)

        return state_of

    def __call__(self, parameters: np.ndarray) -> Result:
        inputs = parameters[:, : self.workload.num_inputs].astype(self.real)
        weights = parameters[0, self.workload.num_inputs :].astype(self.real)
        values, gradients = self.call(weights, inputs if self.workload.batch > 1 else inputs[0])
        return np.asarray(values).reshape(-1), np.asarray(gradients).reshape(len(parameters), -1)


class Aer(Contender):
    """EstimatorV2 of qiskit-aer: parameter shift, with the values and all shifts of all rows in one PUB."""

    label, package, precisions = "Aer EstimatorV2", "qiskit-aer", ("complex128",)
    sample_rows, most_work = 16, 2.0**28

    @classmethod
    def work(cls, workload: Workload) -> float:
        shifts = 2 * sum(gate.column >= workload.num_inputs for gate in workload.gates())
        return (1 + shifts) * super().work(dataclasses.replace(workload, batch=min(workload.batch, cls.sample_rows)))

    def prepare(self, workload: Workload) -> None:
        from qiskit_aer.primitives import EstimatorV2

        # The shift rule holds for a gate, not for a shared weight. Each gate gets its own parameter, and the gradient
        # of a weight is the sum over its gates.
        self.workload, self.columns, own = workload, [], []
        for gate in workload.gates():
            own.append(dataclasses.replace(gate, column=len(self.columns)) if gate.column >= 0 else gate)
            self.columns += [gate.column] if gate.column >= 0 else []
        unshared = dataclasses.replace(
            workload, before=tuple(own), num_layers=0, after=(), num_inputs=0, num_parameters=len(self.columns)
        )
        self.circuit, _, _ = qiskit_circuit(unshared)
        self.trainable = [k for k, column in enumerate(self.columns) if column >= workload.num_inputs]
        self.observable = workload.operator()
        # Binding parameters at run time halves the time of a call. Parallel experiments took as long as serial ones.
        backend = {"method": "statevector", "precision": "double", "runtime_parameter_bind_enable": True}
        self.estimator = EstimatorV2(options={"backend_options": backend | {"max_parallel_threads": self.num_threads}})

    def __call__(self, parameters: np.ndarray) -> Result:
        points = np.repeat(parameters[:, None, self.columns], 1 + 2 * len(self.trainable), axis=1)
        for k, gate in enumerate(self.trainable):
            points[:, 1 + 2 * k, gate] += math.pi / 2
            points[:, 2 + 2 * k, gate] -= math.pi / 2
        values = self.estimator.run([(self.circuit, self.observable, points)]).result()[0].data.evs
        gradients = np.zeros(parameters.shape)
        per_gate = (values[:, 1::2] - values[:, 2::2]) / 2
        np.add.at(gradients.T, [self.columns[gate] for gate in self.trainable], per_gate.T)
        return values[:, 0], gradients[:, self.workload.num_inputs :]


class Network(Contender):
    """EstimatorQNN.forward and .backward; subclasses choose the estimator and the gradient."""

    networks = True

    def primitives(self) -> dict[str, Any]:
        raise NotImplementedError

    def prepare(self, workload: Workload) -> None:
        from qiskit_machine_learning.neural_networks import EstimatorQNN

        circuit, inputs, weights = qiskit_circuit(workload)
        self.workload = workload
        self.network = EstimatorQNN(
            circuit=circuit,
            observables=workload.operator(),
            input_params=inputs,
            weight_params=weights,
            **self.primitives(),
        )

    def __call__(self, parameters: np.ndarray) -> Result:
        inputs, weights = parameters[:, : self.workload.num_inputs], parameters[0, self.workload.num_inputs :]
        values: Any = self.network.forward(inputs, weights)
        gradients: Any = self.network.backward(inputs, weights)[1]
        return values[:, 0], gradients[:, 0]


class FusedNetwork(Network):
    """EstimatorQNN with our estimator and our gradient."""

    label, package = "qiskit-fused", "qiskit-fused"

    def primitives(self) -> dict[str, Any]:
        from qiskit_fused import FusedEstimator, FusedEstimatorGradient

        estimator = FusedEstimator(options={"dtype": self.dtype, "num_threads": self.num_threads})
        return {"estimator": estimator, "gradient": FusedEstimatorGradient(estimator)}


class ReverseNetwork(Network):
    """EstimatorQNN with its default estimator and qiskit-algorithms' ReverseEstimatorGradient."""

    label, package, precisions = "QNN + ReverseEstimatorGradient", "qiskit-algorithms", ("complex128",)
    sample_rows = 4

    def primitives(self) -> dict[str, Any]:
        from qiskit_algorithms.gradients import ReverseEstimatorGradient

        return {"gradient": ReverseEstimatorGradient()}


class DefaultNetwork(Network):
    """EstimatorQNN with its default estimator, which is exact, and its default gradient, parameter shift."""

    label, package, precisions = "QNN defaults", "qiskit-machine-learning", ("complex128",)
    sample_rows = 1

    def primitives(self) -> dict[str, Any]:
        return {}


FUSED: tuple[type[Contender], ...] = (Fused, FusedNetwork, FusedCircuit)
PEERS: dict[str, type[Contender]] = {
    "lightning": Lightning,
    "tensorcircuit": TensorCircuit,
    "qulacs": Qulacs,
    "flagquantum": FlagQuantum,
    "mindquantum": MindQuantum,
    "scaluq": Scaluq,
    "torch": TorchBackprop,
    "triton-qml": TritonQml,
    "aer": Aer,
    "reverse": ReverseNetwork,
    "defaults": DefaultNetwork,
}
