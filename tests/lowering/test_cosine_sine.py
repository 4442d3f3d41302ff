# SPDX-License-Identifier: Apache-2.0
"""The cosine-sine decomposition of dense matrices is exact, alone, under controls and among parameters, and is fast."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from normal_form_oracle import assert_lowered, circuit_state, same_up_to_phase
from qiskit.circuit import AnnotatedOperation, Parameter, QuantumCircuit
from qiskit.circuit import library as lib
from qiskit.circuit.annotated_operation import ControlModifier
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import Operator, SparsePauliOp, Statevector, random_statevector, random_unitary
from scipy.linalg import block_diag, dft, expm, hadamard
from scipy.stats import ortho_group

from qiskit_fused import FusedEstimator, FusedEstimatorGradient, fuse
from qiskit_fused.fusion.dense_gates import rotations_and_terms
from qiskit_fused.lowering.cosine_sine import decompose, turned_qubit
from qiskit_fused.lowering.lower import lower


def generator(size, seed):
    random = np.random.default_rng(seed).normal(size=(2, size, size))
    return random[0] + random[0].T + 1j * (random[1] - random[1].T)


KINDS = {
    "generic": lambda size, seed: random_unitary(size, seed=seed).data,
    "identity": lambda size, seed: np.eye(size),
    "phase": lambda size, seed: np.exp(0.7j) * np.eye(size),
    "permutation": lambda size, seed: np.eye(size)[np.random.default_rng(seed).permutation(size)],
    "signed permutation": lambda size, seed: -1j * np.eye(size)[::-1] * (-1.0) ** np.arange(size),
    "diagonal": lambda size, seed: np.diag(np.exp(1j * np.random.default_rng(seed).normal(size=size))),
    "orthogonal": lambda size, seed: ortho_group.rvs(size, random_state=seed),
    "reflection": lambda size, seed: np.eye(size) - 2 / size,
    "blocks": lambda size, seed: block_diag(*(random_unitary(size // 2, seed=seed + k).data for k in range(2))),
    "factor on the last qubit": lambda size, seed: np.kron(random_unitary(2, seed=seed).data, np.eye(size // 2)),
    "factor on the first qubit": lambda size, seed: np.kron(np.eye(size // 2), random_unitary(2, seed=seed).data),
    "hadamards": lambda size, seed: hadamard(size) / np.sqrt(size),
    "fourier": lambda size, seed: dft(size, scale="sqrtn"),
    "nearly the identity": lambda size, seed: expm(1e-8j * generator(size, seed)),
    "nearly a permutation": lambda size, seed: np.roll(expm(1e-8j * generator(size, seed)), 1, axis=0),
    "denormal entries": lambda size, seed: np.roll(np.eye(size), 1, axis=0) + (5e-324 + 5e-324j),
    "entries with denormal squares": lambda size, seed: np.eye(size) + 1e-161 * generator(size, seed),
    "entries whose products are denormal": lambda size, seed: np.eye(size) + (1e-310 + 1e-310j),
    "not quite the identity": lambda size, seed: expm(1e-4j * generator(size, seed)),
}


def product_of(factors):
    """Multiply out the factors as the header of `cosine_sine` defines them."""
    size = len(factors.diagonals)
    strings = np.arange(size)
    signs = (-1.0) ** np.bitwise_count(strings[:, None] & strings[None])
    product = np.eye(size, dtype=complex)
    for number in range(size):
        product = np.exp(1j * signs @ factors.diagonals[number])[:, None] * product
        if number < size - 1:
            bit = 1 << turned_qubit(number)
            angles = (signs @ factors.rotations[number])[strings & ~bit]  # depends on the other qubits alone
            flipped = (-1j * np.where(strings & bit, 1j, -1j))[:, None] * product[strings ^ bit]  # -i Y
            product = np.cos(angles)[:, None] * product + np.sin(angles)[:, None] * flipped
    return product


@pytest.mark.parametrize("num_qubits", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_unitary_is_the_product_of_its_factors(kind, num_qubits):
    matrix = KINDS[kind](2**num_qubits, 3)
    factors = decompose(matrix)
    np.testing.assert_allclose(product_of(factors), matrix, atol=1e-12)
    strings = np.arange(2**num_qubits)
    for number, weights in enumerate(factors.rotations):
        assert not weights[strings >> turned_qubit(number) & 1 == 0].any()


@given(st.integers(0, 2**31), st.integers(1, 3), st.sampled_from(sorted(KINDS)), st.data())
@settings(max_examples=40, deadline=None)
def test_dense_gates_under_controls_act_as_their_matrix(seed, num_qubits, kind, data):
    num_controls = data.draw(st.integers(0, 2))
    state = data.draw(st.integers(0, 2**num_controls - 1))
    matrix = KINDS[kind](2**num_qubits, seed)
    gate = lib.UnitaryGate(matrix)
    if num_controls:
        gate = gate.control(num_controls, ctrl_state=state, annotated=data.draw(st.booleans()))
    total = num_qubits + num_controls + 1
    places = data.draw(st.permutations(range(total)))[:-1]
    circuit = QuantumCircuit(total)
    circuit.initialize(random_statevector(2**total, seed=seed).data, range(total))
    start = Statevector(circuit)
    circuit.append(gate, places)
    wanted = np.eye(2 ** (num_controls + num_qubits), dtype=complex)
    chosen = state + 2**num_controls * np.arange(2**num_qubits)
    wanted[np.ix_(chosen, chosen)] = matrix
    found = circuit_state(lower(circuit), [])
    assert same_up_to_phase(found, start.evolve(Operator(wanted), list(places)).data, atol=1e-11)


def ising(num_qubits):
    terms = [("ZZ", [i, i + 1], 1.0) for i in range(num_qubits - 1)] + [("X", [i], 0.7) for i in range(num_qubits)]
    return SparsePauliOp.from_sparse_list(terms, num_qubits)


@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")  # StatevectorEstimator's warning
def test_gradients_of_other_parameters_pass_through_dense_gates():
    a, b, time_ = Parameter("a"), Parameter("b"), Parameter("t")
    circuit = QuantumCircuit(5)
    circuit.h(range(5))
    circuit.ry(a, 1)
    circuit.append(lib.UnitaryGate(random_unitary(16, seed=1)), [0, 3, 1, 4])
    circuit.rzz(b, 0, 1)
    circuit.append(lib.UnitaryGate(random_unitary(8, seed=2)).control(1, annotated=True), [4, 2, 1, 0])
    circuit.append(lib.PauliEvolutionGate(ising(5), time_), range(5))
    circuit.rx(a * b, 2)
    observable = SparsePauliOp(["ZIXIZ", "IYIII"], [1.0, 0.5])
    values = np.array([0.3, -0.8, 0.6])
    value = lambda point: StatevectorEstimator().run([(circuit, observable, point)]).result()[0].data.evs  # noqa: E731
    differences = [(value(values + 1e-5 * e) - value(values - 1e-5 * e)) / 2e-5 for e in np.eye(3)]
    for device in ("cpu", "reference"):
        estimator = FusedEstimator(device=device)
        np.testing.assert_allclose(
            estimator.run([(circuit, observable, values)]).result()[0].data.evs, value(values), atol=1e-11
        )
        gradient = FusedEstimatorGradient(device=device).run([circuit], [observable], [values]).result().gradients[0]
        np.testing.assert_allclose(gradient, differences, atol=1e-8)


def test_a_unitary_is_few_phases_and_as_many_terms_as_it_has_numbers():
    circuit = QuantumCircuit(5)
    circuit.ry(Parameter("a"), 0)
    circuit.append(lib.UnitaryGate(random_unitary(32, seed=1)), range(5))
    plan = rotations_and_terms(fuse(circuit).fused_program)
    assert plan.num_layers == 2 * 31 + 1
    assert len(plan.term_phase) <= 4**5 + 5 * 63


@pytest.mark.parametrize("gate_class", [lib.UCRXGate, lib.UCRYGate, lib.UCRZGate])
def test_uniformly_controlled_rotations_are_one_phase(gate_class):
    for num_qubits in (1, 2, 4, 6):
        gate = gate_class(np.random.default_rng(num_qubits).normal(size=2 ** (num_qubits - 1)).tolist())
        for operation in (gate, gate.inverse(), AnnotatedOperation(gate, ControlModifier(2, 1))):
            circuit = QuantumCircuit(num_qubits + 2)
            circuit.h(range(num_qubits + 2))
            circuit.t(range(num_qubits + 2))
            places = np.random.default_rng(1).permutation(num_qubits + 2)[: operation.num_qubits].tolist()
            expected = Statevector(circuit).evolve(Operator(operation), places)
            circuit.append(operation, places)
            program = assert_lowered(circuit)
            assert same_up_to_phase(circuit_state(program, []), expected.data)
            if not operation.name.endswith("_dg"):  # Qiskit makes the inverse a circuit
                assert len(fuse(circuit).run_qubit) <= num_qubits + 3


def test_large_diagonals_are_exact_on_every_engine():
    rng = np.random.default_rng(4)
    circuit = QuantumCircuit(9)
    circuit.h(range(9))
    circuit.append(lib.DiagonalGate(np.exp(1j * rng.normal(size=256)).tolist()), [8, 1, 2, 3, 5, 4, 6, 0])
    few = np.ones(128, complex)
    few[:20] = np.exp(0.3j * np.arange(1, 21))
    circuit.append(lib.DiagonalGate(few.tolist()).control(1, ctrl_state=0), [3, 7, 8, 0, 1, 2, 5, 4])
    circuit.sx(range(9))
    program = assert_lowered(circuit)
    assert [gate.matrix.shape for gate in program.gates if gate.name == "diagonal"] == [(256,), (128,)]


@given(st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_many_terms_in_a_row_are_planned_as_one_after_the_other(seed):
    rng = np.random.default_rng(seed)
    num_qubits = int(rng.integers(3, 9))
    parameters = [Parameter(f"p{k}") for k in range(3)]
    circuit = QuantumCircuit(num_qubits)
    for _ in range(3):
        for qubit in np.flatnonzero(rng.random(num_qubits) < 0.6).tolist():
            circuit.ry(float(rng.normal()), qubit)
        for _ in range(int(rng.integers(20, 60))):
            pair = rng.choice(num_qubits, 2, replace=False).tolist()
            angle = parameters[rng.integers(3)] if rng.random() < 0.2 else float(rng.normal())
            circuit.rzz(angle, *pair) if rng.random() < 0.5 else circuit.cp(angle, *pair)
    circuit.global_phase = sum(parameters)  # so that the circuit has all parameters
    labels = ["".join(rng.choice(list("IIIXYZ"), num_qubits)) for _ in range(3)]
    operators = [SparsePauliOp(label) for label in labels]
    point = rng.normal(size=3)
    values, gradients = FusedEstimatorGradient().value_and_gradient(circuit, operators, [point])
    reference = FusedEstimatorGradient(device="reference").value_and_gradient(circuit, operators, [point])
    state = Statevector(circuit.assign_parameters(point))
    np.testing.assert_allclose(
        values[0], [state.expectation_value(operator).real for operator in operators], atol=1e-10
    )
    np.testing.assert_allclose(gradients, reference[1], atol=1e-10)


def first_call(estimator, circuit):
    """Return the processor time, in seconds, of a call with a new circuit."""
    observable = SparsePauliOp.from_sparse_list([("Z", [0], 1.0), ("X", [1], 0.5)], circuit.num_qubits)
    begin = time.process_time()
    estimator.run([(circuit, observable)]).result()
    return time.process_time() - begin


def diagonal(num_qubits):
    circuit = QuantumCircuit(num_qubits)
    circuit.h(range(num_qubits))
    phases = np.random.default_rng(1).normal(size=2**num_qubits)
    circuit.append(lib.DiagonalGate(np.exp(1j * phases).tolist()), range(num_qubits))
    return circuit


def test_the_decomposition_of_an_exact_evolution_has_as_many_terms_as_a_unitary():
    circuit = QuantumCircuit(7)
    circuit.ry(Parameter("a"), 0)
    circuit.append(lib.PauliEvolutionGate(ising(7), 0.3), range(7))
    program = rotations_and_terms(fuse(circuit).fused_program).program
    assert 4**6 < len(program.ops) <= 4**7 + 2 * 127 + 1  # Qiskit's synthesis had three times as many, and took seconds


def test_large_diagonals_have_no_cliff():
    estimator = FusedEstimator(num_threads=1)
    small, large = (min(first_call(estimator, diagonal(num_qubits)) for _ in range(3)) for num_qubits in (11, 14))
    assert large < 40 * small  # 8 times as many terms
