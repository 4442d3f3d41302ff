# SPDX-License-Identifier: Apache-2.0
"""`statevectors` gives the states of Qiskit's Statevector, global phases included, and their gradients."""

import re

import numpy as np
import pytest
from circuits import circuits
from hypothesis import given, settings
from instruction_kinds import KINDS
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import (
    PauliEvolutionGate,
    StatePreparation,
    UnitaryGate,
    efficient_su2,
    pauli_feature_map,
    qaoa_ansatz,
    zz_feature_map,
)
from qiskit.quantum_info import SparsePauliOp, Statevector, random_statevector, random_unitary
from qiskit_machine_learning.circuit.library import raw_feature_vector

from qiskit_fused import FusedOptions, compile_circuit, statevectors, statevectors_and_vjp

# SciPy warns about the sparse format in which Qiskit exponentiates a PauliEvolutionGate.
pytestmark = pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")

A, B = Parameter("a"), Parameter("b")


def rows_of(circuit, num_rows=3):
    return np.random.default_rng(0).uniform(-1.5, 1.5, (num_rows, circuit.num_parameters))


def exact_states(circuit, rows):
    return np.array([Statevector(circuit.assign_parameters(row) if len(row) else circuit).data for row in rows])


def random_cotangents(shape):
    return np.random.default_rng(1).normal(size=(*shape, 2)) @ [1, 1j]


def assert_states_are_exact(circuit, **options):
    """Assert that states equal Qiskit's, the global phase included; return the rows of parameter values."""
    rows = rows_of(circuit)
    np.testing.assert_allclose(statevectors(circuit, rows, **options), exact_states(circuit, rows), rtol=0, atol=1e-10)
    return rows


def assert_exact(circuit, **options):
    """Assert that states and vector-Jacobian products are right, for cotangents that depend on the global phase.

    Gradients are compared with finite differences of the states.
    """
    rows, step = assert_states_are_exact(circuit, **options), 1e-5
    cotangents = random_cotangents((len(rows), 1 << circuit.num_qubits))
    states, gradients = statevectors_and_vjp(circuit, rows, cotangents, **options)
    np.testing.assert_array_equal(states, statevectors(circuit, rows, **options))
    for column in range(circuit.num_parameters):
        moved = np.zeros_like(rows)
        moved[:, column] = step
        before, after = (statevectors(circuit, rows + sign * moved, **options) for sign in (-1, 1))
        change = (after - before) / (2 * step)
        expected = (cotangents.conj() * change).sum(axis=1).real
        scale = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(gradients[:, column], expected, rtol=0, atol=2e-6 * scale)


# Equal to Qiskit's states.


@settings(max_examples=100, deadline=None)
@given(circuit=circuits())
def test_random_circuits_of_every_gate_have_exact_states_and_gradients(circuit):
    assert_exact(circuit, device="cpu")


@settings(max_examples=20, deadline=None)
@given(circuit=circuits())
def test_the_reference_engine_has_exact_states_and_gradients(circuit):
    assert_exact(circuit, device="reference")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_instruction_has_exact_states(kind, device):
    operation = KINDS[kind]()
    circuit = QuantumCircuit(operation.num_qubits + 1, global_phase=0.3)
    if not kind.startswith(("prep", "init")):  # these need fresh qubits
        for qubit in range(circuit.num_qubits):
            circuit.ry(0.3 + qubit, qubit)
            circuit.rz(0.1 + 0.2 * qubit, qubit)
    circuit.append(operation, range(operation.num_qubits))
    circuit.rx(0.7, 0)
    assert_states_are_exact(circuit, device=device)


def with_dense_prefix():
    circuit = QuantumCircuit(4)
    circuit.h(1)
    circuit.append(UnitaryGate(random_unitary(8, seed=1)), [3, 0, 2])
    circuit.append(UnitaryGate(random_unitary(8, seed=2)), [1, 0, 2])
    return circuit.compose(efficient_su2(4, reps=1))


def with_start_states():
    circuit = QuantumCircuit(4)
    circuit.initialize(random_statevector(4, seed=3).data, [2, 0])
    circuit.prepare_state(random_statevector(2, seed=3).data, 3)
    return circuit.compose(efficient_su2(4, reps=1))


def with_a_late_preparation():
    circuit = QuantumCircuit(3)
    circuit.h(range(3))
    circuit.append(StatePreparation(random_statevector(4, seed=4)), [2, 0])
    circuit.p(A, 1)
    return circuit


def with_swaps_and_idle_qubits():
    circuit = QuantumCircuit(5, global_phase=A)
    circuit.ry(A, 1)
    circuit.swap(1, 3)
    circuit.iswap(3, 4)
    circuit.append(PauliEvolutionGate(SparsePauliOp(["II", "XY"], [0.4, 0.5]), B), [1, 3])
    return circuit


def with_ladders_of_both_signs():
    """Return a circuit with pairs of CX that are left out; H CZ H is -1 times a CX in the normal form."""
    circuit = QuantumCircuit(3)
    circuit.h(range(3))
    circuit.cx(0, 1)
    circuit.rz(A, 1)
    circuit.h(1)
    circuit.cz(0, 1)
    circuit.h(1)
    circuit.cswap(0, 1, 2)
    circuit.cx(1, 2)
    circuit.cp(B, 0, 2)
    return circuit


def transpiled(circuit, gates, **options):
    return transpile(circuit, basis_gates=gates, **options)


CIRCUITS = {
    "zz feature map": lambda: zz_feature_map(3, reps=2),
    "pauli feature map": lambda: pauli_feature_map(3, reps=1, paulis=["X", "YZ"]),
    "qaoa": lambda: qaoa_ansatz(SparsePauliOp(["ZZI", "IZZ", "III"], [1, 2, 3]), reps=1),
    "amplitude encoding": lambda: raw_feature_vector(4).compose(efficient_su2(2, reps=1)),
    "transpiled": lambda: transpiled(zz_feature_map(3), ["rz", "sx", "x", "cx"], optimization_level=2),
    "on a device": lambda: transpiled(
        efficient_su2(3, reps=1), ["rz", "sx", "x", "ecr"], coupling_map=[[0, 1], [1, 2], [2, 3]]
    ),
    "dense prefix": with_dense_prefix,
    "start states": with_start_states,
    "late preparation": with_a_late_preparation,
    "swaps and idle qubits": with_swaps_and_idle_qubits,
    "ladders": with_ladders_of_both_signs,
}


@pytest.mark.parametrize("name", CIRCUITS)
def test_circuits_of_libraries_and_transpilers_have_exact_states_and_gradients(name, device):
    assert_exact(CIRCUITS[name](), device=device)


@pytest.mark.parametrize(
    "phase", [0.4, A, 2 * A - B + 1, A * B + A, (A * B).sin(), A - A], ids=["number", "a", "sum", "product", "sin", "0"]
)
def test_a_global_phase_that_depends_on_parameters_is_in_states_and_gradients(phase, device):
    circuit = QuantumCircuit(2, global_phase=phase)
    circuit.ry(A, 0)
    circuit.p(B, 0)
    assert_exact(circuit, device=device)


def test_the_global_phase_of_a_definition_counts():
    inner = QuantumCircuit(1, global_phase=A * B)
    inner.rx(A, 0)
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.append(inner.to_gate(), [1])
    circuit.append(inner.to_gate().control(1), [0, 1])
    assert_exact(circuit)


def test_a_changed_global_phase_is_seen():
    circuit = QuantumCircuit(1, global_phase=0.1)
    circuit.ry(A, 0)
    before = statevectors(circuit, [0.3])
    circuit.global_phase = 0.6
    np.testing.assert_allclose(statevectors(circuit, [0.3]), np.exp(0.5j) * before, atol=1e-14)


def test_measurements_at_the_end_are_ignored():
    circuit = efficient_su2(2, reps=1)
    rows, expected = rows_of(circuit), statevectors(circuit, rows_of(circuit))
    circuit.measure_all()
    np.testing.assert_array_equal(statevectors(circuit, rows), expected)


def test_states_in_complex64_are_those_of_complex128_within_single_precision():
    circuit = zz_feature_map(4)
    rows = rows_of(circuit)
    single = statevectors(circuit, rows, dtype="complex64")
    assert single.dtype == np.complex64
    np.testing.assert_allclose(single, exact_states(circuit, rows), rtol=0, atol=2e-5)


# Forms of arguments and results.


def test_a_circuit_without_parameters_needs_no_values():
    circuit = QuantumCircuit(2, global_phase=0.2)
    circuit.h(0)
    np.testing.assert_allclose(statevectors(circuit), [Statevector(circuit).data], atol=1e-14)


def test_values_may_be_one_row_or_given_by_name():
    circuit = efficient_su2(2, reps=1)
    row = rows_of(circuit)[0]
    expected = statevectors(circuit, row[None])
    np.testing.assert_array_equal(statevectors(circuit, row), expected)
    np.testing.assert_array_equal(statevectors(compile_circuit(circuit), {tuple(circuit.parameters): row}), expected)


def test_objects_of_qiskit_are_returned_on_request():
    circuit = efficient_su2(3, reps=1)
    rows = rows_of(circuit)
    for state, row in zip(statevectors(circuit, rows, as_statevectors=True, dtype="complex64"), rows):
        assert isinstance(state, Statevector) and state.dims() == (2, 2, 2)
        np.testing.assert_allclose(state.data, Statevector(circuit.assign_parameters(row)).data, atol=1e-5)


def test_options_are_taken_as_an_object_a_mapping_or_keywords():
    circuit = efficient_su2(2, reps=1)
    rows = rows_of(circuit)
    for options in (FusedOptions(dtype="complex64"), {"dtype": "complex64"}):
        assert statevectors(circuit, rows, options=options).dtype == np.complex64
        assert statevectors(circuit, rows, options=options, dtype="complex128").dtype == np.complex128


def test_no_rows_give_no_states():
    circuit = efficient_su2(2, reps=1)
    states, gradients = statevectors_and_vjp(circuit, np.zeros((0, 8)), np.zeros((0, 4)))
    assert states.shape == (0, 4) and gradients.shape == (0, 8)


def test_cotangents_may_be_a_function_of_the_states():
    circuit, target = efficient_su2(2, reps=1), random_statevector(4, seed=0).data
    rows = rows_of(circuit)

    def cotangents(states):
        return -2 * (states @ target.conj())[:, None] * target

    states, gradients = statevectors_and_vjp(circuit, rows, cotangents)
    expected = statevectors_and_vjp(circuit, rows, cotangents(states))
    np.testing.assert_array_equal(states, expected[0])
    np.testing.assert_allclose(gradients, expected[1], atol=1e-14)


def test_one_row_takes_one_cotangent():
    circuit = efficient_su2(2, reps=1)
    row, cotangent = rows_of(circuit)[0], random_cotangents((4,))
    np.testing.assert_array_equal(
        statevectors_and_vjp(circuit, row, cotangent)[1], statevectors_and_vjp(circuit, row, cotangent[None])[1]
    )


def test_progress_is_told():
    seen = []
    statevectors(efficient_su2(2, reps=1), np.zeros((5, 8)), progress=lambda done, total: seen.append((done, total)))
    assert seen[0][0] == 0 and seen[-1][0] == seen[-1][1] > 0


# Errors.


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (np.zeros((2, 3)), "parameter_values has shape (2, 3); the circuit has 8 parameters"),
        ([[0.0] * 7 + [np.nan]], "the value of parameter 'θ[7]' in row 0 is nan"),
    ],
)
def test_wrong_values_are_named(values, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        statevectors(efficient_su2(2, reps=1), values)


@pytest.mark.parametrize(
    ("cotangents", "kind", "text"),
    [
        (np.zeros((3, 2)), ValueError, "cotangents have shape (3, 2); allowed: (3, 4), the shape of the states."),
        (np.full((3, 4), np.inf), ValueError, "the cotangent of amplitude 0 in row 0 is inf; allowed: finite."),
        (["x"], TypeError, "cotangents are strings; allowed: numbers."),
        (lambda states: states[:1], ValueError, "cotangents have shape (1, 4); allowed: (3, 4)"),
    ],
)
def test_wrong_cotangents_are_named(cotangents, kind, text):
    circuit = efficient_su2(2, reps=1)
    with pytest.raises(kind, match=re.escape(text)):
        statevectors_and_vjp(circuit, rows_of(circuit), cotangents)


def test_an_unknown_option_is_named():
    with pytest.raises(TypeError, match="unknown option 'dtpye'"):
        statevectors(QuantumCircuit(1), dtpye="complex64")


def test_a_global_phase_that_is_no_number_is_named():
    circuit = QuantumCircuit(1, global_phase=float("nan"))
    with pytest.raises(
        ValueError, match="final states depend on the global phase, and the global phase is nan; it must"
    ):
        statevectors(circuit)


def test_a_phase_without_a_finite_value_or_derivative_names_the_row():
    circuit = QuantumCircuit(1, global_phase=(A * A + A).log())
    with pytest.raises(ValueError, match=r"of the global phase is -inf for row 1"):
        statevectors(circuit, [[1.0], [0.0]])
    circuit.global_phase = (A * B).abs() + (A * B) ** 0.5
    with pytest.raises(ValueError, match=r"of the global phase has no finite derivative with respect to 'a' in row 1"):
        statevectors_and_vjp(circuit, [[1.0, 1.0], [0.0, 1.0]], np.ones((2, 2)))


def test_states_that_do_not_fit_the_memory_are_refused_with_the_rows_that_would():
    circuit, angles = QuantumCircuit(20), ParameterVector("a", 1)
    circuit.ry(angles[0], 0)
    with pytest.raises(
        MemoryError, match=r"the states of 10000000 rows and 20 qubits take .* ask for at most \d+ rows"
    ):
        statevectors(circuit, np.zeros((10_000_000, 1)))
    wide = QuantumCircuit(80)
    wide.h(3)
    with pytest.raises(MemoryError, match=r"80 qubits take .* use fewer qubits"):
        statevectors(wide)
