# SPDX-License-Identifier: Apache-2.0
"""The reference engine agrees with Qiskit's Statevector and with finite differences."""

from types import SimpleNamespace

import numpy as np
import pytest
from asking import ask
from circuits import circuits, values_of
from hypothesis import given, settings
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.circuit.library import PhaseGate
from qiskit.quantum_info import SparseObservable, SparsePauliOp, Statevector, random_statevector

from qiskit_fused.engines.reference import ReferenceEngine, final_state
from qiskit_fused.lowering.lower import lower
from qiskit_fused.program.observables import Observables

# SciPy warns about the sparse format in which Qiskit exponentiates a PauliEvolutionGate.
pytestmark = pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")

ENGINE = ReferenceEngine()


def observables_of(operators):
    """Return the `Observables` of a list of SparsePauliOps."""
    parts = [SparseObservable(operator) for operator in operators]
    return Observables.concatenate(
        [
            Observables(
                part.num_qubits,
                1,
                np.zeros(part.num_terms),
                part.coeffs,
                part.boundaries,
                part.bit_terms,
                part.indices,
            )
            for part in parts
        ]
    )


def random_operators(num_qubits, seed=0):
    rng = np.random.default_rng(seed)
    labels = ["".join(rng.choice(list("IXYZ"), num_qubits)) for _ in range(4)]
    return [SparsePauliOp(labels[:3], rng.normal(size=3)), SparsePauliOp(labels[3:])]


def evaluate(circuit, operators, values, **options):
    """Return values (K,) and parameter gradients (K, P) of one row."""
    program = lower(circuit)
    columns = program.columns(values[None])
    pairs = np.zeros(len(operators), dtype=np.int32), np.arange(len(operators), dtype=np.int32)
    result = ask(
        ENGINE,
        SimpleNamespace(program=program, num_qubits=program.num_qubits),
        observables_of(operators),
        columns,
        pairs,
        **options,
    )
    if result.gradients is None:
        return result.values, None
    return result.values, program.expressions.pull_back(values[None], result.gradients[None])[0]


def expectation(circuit, operator, values):
    return Statevector(circuit.assign_parameters(values)).expectation_value(operator).real


@given(circuits(max_qubits=3, max_gates=6))
@settings(max_examples=40, deadline=None)
def test_values_and_gradients_are_those_of_statevector(circuit):
    operators, values = random_operators(circuit.num_qubits), values_of(circuit)
    actual, gradients = evaluate(circuit, operators, values, gradient=True)
    np.testing.assert_allclose(actual, [expectation(circuit, operator, values) for operator in operators], atol=1e-10)
    for column in range(circuit.num_parameters):
        step = np.zeros(circuit.num_parameters)
        step[column] = 1e-5
        for k, operator in enumerate(operators):
            ahead, behind = (expectation(circuit, operator, values + sign * step) for sign in (1, -1))
            assert gradients[k, column] == pytest.approx((ahead - behind) / 2e-5, abs=1e-6, rel=1e-6)


def test_imaginary_gradients_are_those_of_the_state_with_global_phases_dropped():
    a, b = Parameter("a"), Parameter("b")
    circuit = QuantumCircuit(2)
    circuit.h([0, 1])
    circuit.ry(a, 0)
    circuit.rxx(b, 0, 1)
    operator, values = SparsePauliOp(["XZ", "ZY", "II"], [0.3, 0.7, 0.4]), np.array([0.3, 0.8])
    _, gradients = evaluate(circuit, [operator], values, gradient=True, imaginary=True)
    for column in range(2):
        step = np.zeros(2)
        step[column] = 1e-5
        ahead, behind = (Statevector(circuit.assign_parameters(values + sign * step)).data for sign in (1, -1))
        psi = Statevector(circuit.assign_parameters(values)).data
        expected = 2 * np.vdot(psi, operator.to_matrix() @ (ahead - behind) / 2e-5).imag
        assert gradients[0, column] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("num_controls", [0, 1, 2])
def test_imaginary_gradients_of_phases_use_the_traceless_generator(num_controls):
    # For O = 1, the imaginary gradient is 2 Im <psi|d psi> = -<G> with the traceless G = -2 (projector - 2^-k).
    a = Parameter("a")
    circuit = QuantumCircuit(num_controls + 1)
    circuit.ry(0.7, range(num_controls + 1))
    gate = PhaseGate(a).control(num_controls) if num_controls else PhaseGate(a)
    circuit.append(gate, range(num_controls + 1))
    identity = SparsePauliOp("I" * (num_controls + 1))
    _, gradients = evaluate(circuit, [identity], np.array([0.4]), gradient=True, imaginary=True)
    weight = np.sin(0.35) ** (2 * (num_controls + 1))
    assert gradients[0, 0] == pytest.approx(2 * (weight - 2.0 ** -(num_controls + 1)))


def test_pairs_choose_rows_and_observables():
    a = Parameter("a")
    circuit = QuantumCircuit(1)
    circuit.ry(a, 0)
    program = lower(circuit)
    pairs = np.array([0, 1, 1, 2]), np.array([1, 0, 1, 0])
    observables = observables_of([SparsePauliOp("Z"), SparsePauliOp("X")])
    result = ask(
        ENGINE,
        SimpleNamespace(program=program, num_qubits=program.num_qubits),
        observables,
        np.array([[0.1], [0.2], [0.3]]),
        pairs,
    )
    np.testing.assert_allclose(result.values, [np.sin(0.1), np.cos(0.2), np.sin(0.2), np.cos(0.3)])
    assert result.gradients is None


def test_single_precision_stays_single():
    circuit = QuantumCircuit(2)
    circuit.initialize(random_statevector(4, seed=1).data, [0, 1])
    circuit.rx(0.3, 0)
    program = lower(circuit)
    single, double = (final_state(program, np.empty(0), dtype) for dtype in ("complex64", "complex128"))
    assert single.dtype == np.complex64
    np.testing.assert_allclose(single, double, atol=1e-6)
