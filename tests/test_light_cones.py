# SPDX-License-Identifier: Apache-2.0
"""Wide circuits with many local observables: terms are simulated in groups, by their light cones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparseObservable, SparsePauliOp, Statevector

from qiskit_fused import FusedEstimator, FusedEstimatorGradient, FusedOptions, compile_circuit, light_cones
from qiskit_fused.training import Expectations


def put_apart(patch):
    """Have terms simulated apart wherever that is less work, however small the circuit."""
    for name, value in (("_MIN_QUBITS", 0), ("_FIXED", 0), ("_ROW", 0), ("_GAIN", 1.0)):
        patch.setattr(light_cones, name, value)


def brickwork(num_qubits, depth, entangle="cx"):
    circuit = QuantumCircuit(num_qubits)
    angles = iter(ParameterVector("a", num_qubits * (depth + 1)))
    for layer in range(depth):
        for qubit in range(num_qubits):
            circuit.ry(next(angles), qubit)
        for qubit in range(layer % 2, num_qubits - 1, 2):
            getattr(circuit, entangle)(qubit, qubit + 1)
    for qubit in range(num_qubits):
        circuit.rx(next(angles), qubit)
    return circuit


def neighbours(num_qubits, pauli="ZZ"):
    width = len(pauli)
    places = range(num_qubits - width + 1)
    return [SparsePauliOp.from_sparse_list([(pauli, range(q, q + width), 0.5 + q)], num_qubits) for q in places]


def angles_of(circuit, *shape):
    return np.random.default_rng(7).uniform(-3, 3, (*shape, circuit.num_parameters))


def values_of(circuit, observables, values, **options):
    return FusedEstimator(**options).run([(circuit, observables, values)]).result()[0].data.evs


def random_circuit(seed, num_qubits):
    random = np.random.default_rng(seed)
    circuit = QuantumCircuit(num_qubits)
    angles = ParameterVector("a", 6)
    for _ in range(12):
        first, second, third = (int(q) for q in random.permutation(num_qubits)[:3])
        angle = 0.3 * angles[random.integers(6)] + random.uniform()
        name = random.choice(["ry", "rx", "rz", "cx", "cz", "rzz", "swap", "ccx", "crx", "h", "s", "cp"])
        if name in ("ry", "rx", "rz"):
            getattr(circuit, name)(angle, first)
        elif name in ("rzz", "crx", "cp"):
            getattr(circuit, name)(angle, first, second)
        else:
            getattr(circuit, name)(
                *{"ccx": (first, second, third)}.get(name, (first, second)[: 1 + (name not in "hs")])
            )
    return circuit


def random_observables(seed, num_qubits):
    random = np.random.default_rng(seed)
    letters = np.array(list("IIIXYZ01+-rl"))
    return [
        SparseObservable.from_list(
            [
                ("".join(random.choice(letters, num_qubits)), float(random.normal()))
                for _ in range(int(random.integers(1, 4)))
            ]
        )
        for _ in range(4)
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["cpu", "reference"]))
def test_values_and_gradients_in_groups_are_those_of_all_terms_together(seed, device):
    num_qubits = 6
    circuit, observables = random_circuit(seed, num_qubits), random_observables(seed, num_qubits)
    values = np.random.default_rng(seed).uniform(-2, 2, (3, len(circuit.parameters)))
    weights = np.random.default_rng(seed).normal(size=(3, 4))
    found = []
    for apart in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            if apart:
                put_apart(patch)
            compiled = compile_circuit(circuit.copy())
            answer = FusedEstimatorGradient(device=device).value_and_gradient(compiled, observables, values)
            function = Expectations(compiled, observables, (), circuit.parameters, FusedOptions(device=device))
            vjp = function.value_and_vjp(np.zeros((1, 0)), values[0], weights[:1]).weights
            found.append((*answer, vjp))
    for together, apart in zip(*found):
        np.testing.assert_allclose(apart, together, atol=1e-12)
    bound = circuit.assign_parameters(values[0])
    exact = [
        Statevector(bound).expectation_value(SparsePauliOp.from_sparse_observable(one.as_paulis())).real
        for one in observables
    ]
    np.testing.assert_allclose(found[1][0][0], exact, atol=1e-12)


def test_neighbouring_terms_of_sixty_qubits_take_one_call():
    circuit, observables = brickwork(60, 3), neighbours(60)
    values = angles_of(circuit)
    one_by_one = [float(values_of(circuit, observable, values)) for observable in observables]
    np.testing.assert_allclose(values_of(circuit, observables, values), one_by_one, atol=1e-10)
    total = SparsePauliOp.sum(observables)
    assert values_of(circuit, total, values) == pytest.approx(sum(one_by_one), abs=1e-10)
    gradient = FusedEstimatorGradient()
    evs, gradients = gradient.value_and_gradient(circuit, observables, values)
    np.testing.assert_allclose(evs[0], one_by_one, atol=1e-10)
    for observable, found in zip(observables[::20], gradients[0, ::20]):
        np.testing.assert_allclose(found, gradient.value_and_gradient(circuit, observable, values)[1][0, 0], atol=1e-10)
    of_total = gradient.value_and_gradient(circuit, total, values)[1]
    np.testing.assert_allclose(of_total[0, 0], gradients[0].sum(axis=0), atol=1e-9)


@pytest.mark.parametrize("num_qubits", [66, 70, 130])
def test_more_than_64_qubits_are_simulated_where_observables_see_few(num_qubits):
    def at_the_end(of):
        return SparsePauliOp.from_sparse_list([("XZ", [of - 1, of - 2], 1.0)], of)

    circuit, small = brickwork(num_qubits, 2, "cz"), brickwork(8, 2, "cz")
    values = angles_of(circuit)
    last = np.arange(num_qubits - 8, num_qubits)
    values_of_last = values.reshape(3, -1)[:, last].ravel()
    gradient = FusedEstimatorGradient()
    found = gradient.value_and_gradient(circuit, at_the_end(num_qubits), values)
    expected = gradient.value_and_gradient(small, at_the_end(8), values_of_last)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-12)
    gradients = found[1].reshape(3, -1)
    np.testing.assert_allclose(gradients[:, last], expected[1].reshape(3, -1), atol=1e-12)
    assert not gradients[:, : last[0]].any()
