# SPDX-License-Identifier: Apache-2.0
"""Contenders whose library pulls states back through the circuit in compiled code."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import numpy as np

from common.contender import Contender, Result
from common.workloads import Workload


class Lightning(Contender):
    """PennyLane lightning.qubit: adjoint Jacobian through the device API; tapes are kept, and get new angles."""

    label, package = "lightning.qubit", "pennylane-lightning"
    _classes: ClassVar[dict[str, str]] = {"rzz": "IsingZZ", "cx": "CNOT", "h": "Hadamard"}

    def prepare(self, workload: Workload) -> None:
        import pennylane as qml
        from pennylane.devices import ExecutionConfig

        n = workload.num_qubits
        self.workload = workload
        self.device = qml.device("lightning.qubit", wires=n, c_dtype=np.dtype(self.dtype).type)
        self.config = self.device.setup_execution_config(ExecutionConfig(gradient_method="adjoint"))
        gates = list(workload.gates())
        rotations = [gate for gate in gates if gate.is_rotation]
        trainable = [i for i, gate in enumerate(rotations) if gate.column >= workload.num_inputs]
        self.columns = np.array([rotations[i].column for i in trainable]) - workload.num_inputs
        self.shared = len(np.unique(self.columns)) < len(self.columns)
        self.tapes, self.slots = [], []
        for _ in range(workload.batch):
            operations, slots = [], []
            for gate in gates:
                operator = getattr(qml, self._classes.get(gate.name, gate.name.upper()))
                operations.append(operator(*([gate.angle] if gate.is_rotation else []), wires=gate.qubits))
                if gate.column >= 0:
                    slots.append((operations[-1], gate.column))
            strings = [qml.prod(*map(getattr(qml, label[0]), qubits)) for label, qubits in workload.terms()]
            observable = qml.Hamiltonian([1.0] * len(strings), strings)
            self.tapes.append(qml.tape.QuantumScript(operations, [qml.expval(observable)], trainable_params=trainable))
            self.slots.append(slots)

    def __call__(self, parameters: np.ndarray) -> Result:
        for slots, row in zip(self.slots, parameters.tolist(), strict=True):
            for operation, column in slots:
                operation.data = (row[column],)
        values, jacobians = self.device.execute_and_compute_derivatives(self.tapes, self.config)
        per_gate = np.array(jacobians).reshape(len(parameters), -1)
        if not self.shared:
            return np.array(values).reshape(-1), per_gate
        gradients = np.zeros((len(parameters), self.workload.num_weights))
        np.add.at(gradients.T, self.columns, per_gate.T)
        return np.array(values).reshape(-1), gradients


class Qulacs(Contender):
    """qulacs: ParametricQuantumCircuit.backprop_inner_product, one row after the other; double precision only."""

    label, package, precisions = "qulacs", "qulacs", ("complex128",)

    def prepare(self, workload: Workload) -> None:
        import qulacs

        n = workload.num_qubits
        self.workload = workload
        self.circuit = qulacs.ParametricQuantumCircuit(n)
        columns = []
        for gate in workload.gates():
            name = gate.name.upper()
            if gate.column < 0:
                angle = (-gate.angle,) if gate.is_rotation else ()
                getattr(self.circuit, f"add_{name if angle else {'CX': 'CNOT'}.get(name, name)}_gate")(
                    *gate.qubits, *angle
                )
                continue
            columns.append(gate.column)
            if gate.name == "rzz":
                self.circuit.add_parametric_multi_Pauli_rotation_gate(list(gate.qubits), [3, 3], 0.0)
            else:
                getattr(self.circuit, f"add_parametric_{name}_gate")(*gate.qubits, 0.0)
        self.columns = np.array(columns)
        self.state, self.image, self.work = (qulacs.QuantumState(n) for _ in range(3))
        self.observable = qulacs.Observable(n)
        for label, qubits in workload.terms():
            self.observable.add_operator(1.0, " ".join(f"{label[0]} {q}" for q in qubits))
        self.inner_product = qulacs.state.inner_product

    def __call__(self, parameters: np.ndarray) -> Result:
        values = np.empty(len(parameters))
        gradients = np.zeros(parameters.shape)
        for i, row in enumerate(parameters):
            for gate, angle in enumerate((-row[self.columns]).tolist()):  # rotations of qulacs are exp(+i angle/2 P)
                self.circuit.set_parameter(gate, angle)
            self.state.set_zero_state()
            self.circuit.update_quantum_state(self.state)
            self.observable.apply_to_state(self.work, self.state, self.image)
            values[i] = self.inner_product(self.state, self.image).real
            # The derivative of Re <image|psi> is half the derivative of <psi|O|psi>.
            np.add.at(gradients[i], self.columns, -2.0 * np.array(self.circuit.backprop_inner_product(self.image)))
        return values, gradients[:, self.workload.num_inputs :]


class MindQuantum(Contender):
    """MindQuantum's mqvector: gradients of encoder and ansatz parameters, rows spread over its parallel workers."""

    label, package = "MindQuantum", "mindquantum"
    _gates: ClassVar[dict[str, str]] = {"rzz": "Rzz", "cx": "X", "cz": "Z"}

    def prepare(self, workload: Workload) -> None:
        import mindquantum
        from mindquantum.core import gates
        from mindquantum.core.circuit import Circuit
        from mindquantum.core.operators import Hamiltonian, QubitOperator
        from mindquantum.simulator import Simulator

        dtype, names = getattr(mindquantum, self.dtype), [f"p{k}" for k in range(workload.num_parameters)]
        circuit, used = Circuit(), []
        for gate in workload.gates():
            kind = getattr(gates, self._gates.get(gate.name, gate.name.upper()))
            if gate.is_rotation:
                angle = names[gate.column] if gate.column >= 0 else gate.angle
                circuit += kind(angle).on(list(gate.qubits))
                used += [gate.column] if gate.column >= 0 else []
            else:
                circuit += kind.on(gate.qubits[-1], list(gate.qubits[:-1]) or None)
        terms = [QubitOperator(" ".join(f"{label[0]}{q}" for q in qubits)) for label, qubits in workload.terms()]
        operator = Hamiltonian(sum(terms, QubitOperator()), dtype)
        self.num_inputs, self.columns = workload.num_inputs, list(dict.fromkeys(used))
        self.has_rows = workload.batch > 1
        # A batch belongs to encoder parameters, so all parameters of a batch are made encoder parameters. Gradients are
        # per row.
        simulator = Simulator("mqvector", workload.num_qubits, dtype=dtype)
        circuit = circuit.as_encoder() if self.has_rows else circuit
        self.call = simulator.get_expectation_with_grad(operator, circuit, parallel_worker=self.num_threads)

    def __call__(self, parameters: np.ndarray) -> Result:
        ordered = parameters[:, self.columns]
        found = self.call(ordered) if self.has_rows else self.call(ordered[0])
        gradients = np.zeros(parameters.shape)
        gradients[:, self.columns] = found[1].real[:, 0]
        return found[0].real[:, 0].astype(float), gradients[:, self.num_inputs :]


class Scaluq(Contender):
    """scaluq: forward, observable, ``compute_expectation_gradient_backprop``, one row after the other.

    States of fewer than 12 qubits live in its serial space, which was faster there.
    """

    label, package = "scaluq", "scaluq"
    sample_rows = 16
    _pauli: ClassVar[dict[str, int]] = {"X": 1, "Z": 3}

    def prepare(self, workload: Workload) -> None:
        os.environ["KOKKOS_DISABLE_WARNINGS"] = "1"  # Kokkos would warn that threads are not bound to cores
        import scaluq

        n, self.workload = workload.num_qubits, workload
        precision = "f32" if self.dtype == "complex64" else "f64"
        library = getattr(scaluq.default, precision)
        self.space = getattr(scaluq.host_serial if n < 12 else scaluq.default, precision)
        self.circuit, seen = library.Circuit(), set()
        make = library.gate
        for gate in workload.gates():
            name = {"rzz": "PauliRotation"}.get(gate.name, gate.name.upper())
            where: tuple[Any, ...] = gate.qubits
            if gate.name == "rzz":
                where = (library.PauliOperator(list(gate.qubits), [3, 3]),)
            if not gate.is_rotation:
                self.circuit.add_gate(getattr(make, name)(*where))
            elif gate.column < 0:
                self.circuit.add_gate(getattr(make, name)(*where, gate.angle))
            else:
                key = f"p{gate.column}"
                self.circuit.add_param_gate(getattr(make, f"Param{name}")(*where), key)
                seen.add(gate.column)
        self.columns = sorted(seen)
        self.keys = [f"p{column}" for column in self.columns]
        strings = [
            library.PauliOperator(list(qubits), [self._pauli[letter] for letter in label])
            for label, qubits in workload.terms()
        ]
        self.observable, self.zero = self.space.Operator(strings), self.space.StateVector(n)

    def __call__(self, parameters: np.ndarray) -> Result:
        values, gradients = np.empty(len(parameters)), np.zeros(parameters.shape)
        for i, row in enumerate(parameters):
            angles = dict(zip(self.keys, row[self.columns].tolist(), strict=True))
            state = self.zero.copy()
            self.circuit.update_quantum_state(state, angles)
            image = state.copy()
            self.observable.apply_to_state(image)
            values[i] = self.space.StateVector.inner_product(state, image).real
            found = self.circuit.compute_expectation_gradient_backprop(state, image, angles)
            gradients[i, self.columns] = [found[key] for key in self.keys]
        return values, gradients[:, self.workload.num_inputs :]
