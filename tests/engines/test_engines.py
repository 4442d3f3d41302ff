# SPDX-License-Identifier: Apache-2.0
"""One suite compares all fast engines with the reference engine: every gate, every size class, both number formats."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from asking import ask
from circuits import values_of
from engine_cases import (
    EMULATED,
    TOLERANCE,
    all_pairs,
    assert_agree,
    assert_agrees_with_reference,
    assert_long_sums_keep_their_digits,
    check_random_circuits,
    full_graph,
    many_strings,
    on_engines,
    plan_of,
    random_circuit,
    random_observables,
    rows_of,
    string_masks,
    total_z,
)
from qiskit.circuit import ParameterVector, QuantumCircuit
from qiskit.quantum_info import SparsePauliOp, Statevector, random_statevector

from qiskit_fused.engines.reference import ReferenceEngine
from qiskit_fused.options.method import REVERSE, Method

# SciPy warns about the sparse format in which Qiskit exponentiates a PauliEvolutionGate.
pytestmark = pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")


def test_values_are_those_of_qiskits_statevector(engine_name, make_engine):
    def check(circuit):
        observables, values = random_observables(circuit.num_qubits, 5), values_of(circuit)
        plan, operators = plan_of(circuit, observables)
        columns = plan.program.columns(values[None])
        actual = ask(make_engine(), plan, operators, columns, all_pairs(1, len(observables))).values
        state = Statevector(circuit.assign_parameters(values))
        expected = [state.expectation_value(observable).real for observable in observables]
        np.testing.assert_allclose(actual, expected, atol=1e-10)

    check_random_circuits(engine_name, check)


def test_random_circuits_of_every_gate_agree_with_the_reference(engine_name, make_engine):
    def check(circuit):
        for dtype in TOLERANCE:
            assert_agrees_with_reference(make_engine(), circuit, random_observables(circuit.num_qubits, 1), dtype)

    check_random_circuits(engine_name, check)


def test_imaginary_derivatives_of_random_circuits_agree_with_the_reference(engine_name, make_engine):
    def check(circuit):
        observables = random_observables(circuit.num_qubits, 2)
        assert_agrees_with_reference(make_engine(), circuit, observables, imaginary=True)

    check_random_circuits(engine_name, check, max_examples=30)


@on_engines(cpu=[1, 2, 3, 4, 5, 7, 8, 9, 10, 12], emulated=[1, 2, 4, 10, 13], tiles=[6, 8, 11])
@pytest.mark.parametrize("imaginary", [False, True], ids=["real", "imaginary"])
def test_every_number_of_qubits_agrees_with_the_reference(make_engine, num_qubits, imaginary, dtype):
    if num_qubits == 1:
        circuit = QuantumCircuit(1)
        for angle, gate in zip(ParameterVector("p", 4), (circuit.ry, circuit.rz, circuit.rx, circuit.ry)):
            gate(angle, 0)
    else:
        circuit = random_circuit(num_qubits, 25, seed=num_qubits)
    observables = random_observables(num_qubits, 3)
    assert_agrees_with_reference(make_engine(), circuit, observables, dtype, imaginary)


@on_engines(cpu=[14, 15], emulated=[14], tiles=[12], cuda=[14, 18])
def test_states_cut_into_chunks_agree_with_the_reference(make_engine, num_qubits, dtype):
    circuit = random_circuit(num_qubits, 12, seed=num_qubits)
    assert_agrees_with_reference(make_engine(2), circuit, random_observables(num_qubits, 4), dtype)


@on_engines(cpu=[6, 9, 10, 11, 12], emulated=[10, 13], tiles=[7, 10], cuda=[6, 9, 12, 15])
def test_full_graph_phases_agree_with_the_reference(make_engine, num_qubits, dtype):
    assert_agrees_with_reference(make_engine(), full_graph(num_qubits), random_observables(num_qubits, 6), dtype)


@on_engines(cpu=[10], emulated=[10], tiles=[10])
def test_phases_of_very_many_strings_agree_with_the_reference(make_engine, num_qubits, dtype):
    circuit = many_strings(num_qubits)
    assert_agrees_with_reference(make_engine(2), circuit, random_observables(num_qubits, 6), dtype)


@on_engines(cpu=[14, 16, 18], emulated=[], tiles=[])
def test_very_many_strings_on_states_cut_into_chunks_turn_amplitudes_by_their_sum(make_engine, num_qubits, dtype):
    index = np.arange(1 << num_qubits)
    masks = string_masks(num_qubits)
    weights = np.random.default_rng(num_qubits).normal(size=len(masks))  # the weights that many_strings draws
    strings = sum(weight * (1.0 - 2.0 * (np.bitwise_count(index & mask) & 1)) for weight, mask in zip(weights, masks))
    total = num_qubits - 2.0 * np.bitwise_count(index)

    def energy(angles):
        gamma, beta, phi = angles
        psi = np.full(len(index), 1.0 + 0j)
        for qubit in range(num_qubits):
            bit = index >> qubit & 1
            psi *= np.where(bit, np.sin(np.pi / 8), np.cos(np.pi / 8))
        joined = (index & 3 == 3) & (index >> (num_qubits - 1) == 1)
        psi *= np.exp(-1j * gamma * strings + 1j * phi * joined)
        for qubit in range(num_qubits):
            psi = np.cos(beta / 2) * psi - 1j * np.sin(beta / 2) * psi[index ^ (1 << qubit)]
        return float(total @ np.abs(psi) ** 2)

    plan, operators = plan_of(many_strings(num_qubits, layers=1), total_z(num_qubits))
    angles, step = np.array([0.3, 0.7, -0.4]), 1e-5
    actual = ask(make_engine(2), plan, operators, angles[None], all_pairs(1, 1), gradient=True, dtype=dtype)
    slopes = [(energy(angles + step * unit) - energy(angles - step * unit)) / (2 * step) for unit in np.eye(3)]
    assert actual.values[0] == pytest.approx(energy(angles), abs=num_qubits * TOLERANCE[dtype])
    np.testing.assert_allclose(actual.gradients[0], slopes, atol=max(1e-7, 100 * TOLERANCE[dtype]))


@pytest.mark.parametrize("angle", [0.0, np.pi, -np.pi, 2 * np.pi, np.pi / 2])
@pytest.mark.parametrize("gates", ["x", "y", "xy", "yx", "xyz", "zxz", "xx", "yzy"])
@pytest.mark.parametrize("method", [REVERSE, Method("store")], ids=lambda method: method.name)
def test_gradients_are_right_where_the_sine_or_cosine_of_a_run_is_zero(make_engine, gates, angle, method, dtype):
    circuit = QuantumCircuit(2)
    circuit.ry(0.7, 0)
    circuit.cx(0, 1)
    for name, parameter in zip(gates, ParameterVector("p", len(gates))):
        getattr(circuit, f"r{name}")(parameter, 0)
    circuit.cx(0, 1)
    circuit.rx(0.4, 0)
    plan, operators = plan_of(circuit, [SparsePauliOp("XY"), SparsePauliOp("ZI"), SparsePauliOp("IX")])
    question = plan, operators, np.full((1, len(gates)), angle), all_pairs(1, 3)
    expected = ask(ReferenceEngine(), *question, gradient=True)
    assert_agree(ask(make_engine(), *question, gradient=True, dtype=dtype, method=method), expected, dtype)


@pytest.mark.parametrize("num_qubits", [3, 10])
def test_a_start_state_on_some_qubits_is_used(make_engine, num_qubits, dtype):
    circuit = QuantumCircuit(num_qubits)
    circuit.initialize(random_statevector(4, seed=7).data, [0, num_qubits - 1])
    for qubit, parameter in enumerate(ParameterVector("p", num_qubits)):
        circuit.rx(parameter, qubit)
    circuit.cx(0, num_qubits - 1)
    assert_agrees_with_reference(make_engine(), circuit, random_observables(num_qubits, 8), dtype)


def test_projectors_and_large_groups_are_observed_like_the_reference(make_engine, dtype):
    circuit = random_circuit(10, 15, seed=3)
    observables = ["0" * 10, "1Z" * 5, "+-rl01XYZI", {"Z" * 10: 0.5, "X" * 10: 1.5, "Y" * 9 + "I": -1.0}]
    assert_agrees_with_reference(make_engine(), circuit, observables, dtype)


def test_observables_that_see_no_qubit_are_constants(make_engine, dtype):
    assert_agrees_with_reference(make_engine(), random_circuit(4, 6, seed=1), SparsePauliOp("IIII", 0.7), dtype)


def test_circuits_without_parameters_have_empty_gradients(make_engine, dtype):
    circuit = QuantumCircuit(3)
    circuit.h([0, 1, 2])
    circuit.cz(0, 2)
    assert_agrees_with_reference(make_engine(), circuit, random_observables(3, 1), dtype)


@on_engines(cpu=[21], emulated=[14], tiles=[12])
def test_long_sums_keep_their_digits_in_single_precision(make_engine, num_qubits):
    assert_long_sums_keep_their_digits(make_engine(2), num_qubits)


@on_engines(cpu=[5, 14], emulated=[4, 13], tiles=[9])
@pytest.mark.parametrize("weighted", [False, True], ids=["jacobian", "cotangents"])
def test_equal_input_gives_equal_bits(make_engine, num_qubits, weighted, dtype):
    plan, operators = plan_of(random_circuit(num_qubits, 15, seed=1), random_observables(num_qubits, 1))
    columns, pairs = rows_of(plan.program), all_pairs(3, 2)
    weights = np.linspace(-1, 1, 6) if weighted else None
    first, again = (
        ask(make_engine(threads), plan, operators, columns, pairs, gradient=True, cotangents=weights, dtype=dtype)
        for threads in (1, 2)
    )
    assert np.array_equal(first.values, again.values)
    assert np.array_equal(first.gradients, again.gradients)


@on_engines(cpu=[9], emulated=[4], tiles=[7])
def test_one_plan_may_be_evaluated_from_several_threads_at_once(make_engine, engine_name, num_qubits, dtype):
    plan, operators = plan_of(random_circuit(num_qubits, 15, seed=5), random_observables(num_qubits, 5))
    questions = [
        (rows_of(plan.program, seed, seed), all_pairs(seed, 1 + seed % 2), seed % 3 > 0) for seed in range(1, 7)
    ]
    engine, repeats = make_engine(2), 2 if engine_name in EMULATED else 10

    def answer(engine, question):
        columns, pairs, gradient = question
        return ask(engine, plan, operators, columns, pairs, gradient=gradient, dtype=dtype)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda question: answer(engine, question), questions * repeats))
    expected = [answer(make_engine(1), question) for question in questions]
    for result, reference in zip(results, expected * repeats):
        assert np.array_equal(result.values, reference.values)
        assert reference.gradients is None or np.array_equal(result.gradients, reference.gradients)


def test_only_the_pairs_asked_for_are_evaluated(make_engine):
    plan, operators = plan_of(random_circuit(4, 12, seed=9), random_observables(4, 9))
    columns = rows_of(plan.program)
    everything = ask(make_engine(), plan, operators, columns, all_pairs(3, 2), gradient=True)
    rows, chosen = np.array([0, 2, 2], dtype=np.int32), np.array([1, 0, 1], dtype=np.int32)
    some = ask(make_engine(), plan, operators, columns, (rows, chosen), gradient=True)
    np.testing.assert_array_equal(some.values, everything.values[2 * rows + chosen])
    np.testing.assert_array_equal(some.gradients, everything.gradients[2 * rows + chosen])


@pytest.mark.parametrize("num_rows", [0, 2])
def test_no_pairs_are_an_empty_answer(make_engine, num_rows):
    plan, operators = plan_of(random_circuit(4, 12, seed=9), random_observables(4, 9))
    columns = rows_of(plan.program)[:num_rows]
    question = plan, operators, columns, all_pairs(0, 2)
    nothing = ask(make_engine(), *question, gradient=True)
    assert nothing.values.shape == (0,)
    assert nothing.gradients.shape == (0, columns.shape[1])
    weighted = ask(make_engine(), *question, gradient=True, cotangents=np.empty(0))
    assert np.array_equal(weighted.gradients, np.zeros(columns.shape))


# Row 0 has three pairs, row 1 has one, row 2 has none, and row 3 has three, out of order.
WEIGHTED_PAIRS = np.array([0, 0, 0, 1, 3, 3, 3], np.int32), np.array([0, 1, 2, 1, 2, 0, 2], np.int32)
WEIGHTS = np.array([0.7, -1.3, 0.4, 2.0, 0.0, 1.1, -0.6])


@on_engines(cpu=[1, 4, 9, 14], emulated=[1, 4, 13], tiles=[6, 10])
@pytest.mark.parametrize("imaginary", [False, True], ids=["real", "imaginary"])
def test_cotangents_give_the_weighted_sum_of_the_jacobian_of_each_row(make_engine, num_qubits, imaginary, dtype):
    circuit = random_circuit(num_qubits, 15, seed=num_qubits) if num_qubits > 1 else QuantumCircuit(1)
    for parameter in ParameterVector("q", 3):
        circuit.rx(parameter, 0)
        circuit.rz(0.4 + parameter, 0)
    observables = [*random_observables(num_qubits, 3), ("Z" * num_qubits + "+l1r")[-num_qubits:]]
    plan, operators = plan_of(circuit, observables, imaginary)
    question = plan, operators, rows_of(plan.program, num_rows=4), WEIGHTED_PAIRS
    options = {"gradient": True, "imaginary": imaginary}
    jacobian = ask(make_engine(), *question, **options, dtype=dtype)
    expected = ask(ReferenceEngine(), *question, **options, cotangents=WEIGHTS)
    for num_threads in (1, 2):
        actual = ask(make_engine(num_threads), *question, **options, dtype=dtype, cotangents=WEIGHTS)
        assert actual.gradients.shape == (4, plan.program.num_columns)
        assert not actual.gradients[2].any()
        assert_agree(actual, expected, dtype)
        summed = np.zeros_like(actual.gradients)
        np.add.at(summed, WEIGHTED_PAIRS[0], WEIGHTS[:, None] * jacobian.gradients)
        np.testing.assert_allclose(actual.gradients, summed, rtol=0, atol=4 * TOLERANCE[dtype])
        np.testing.assert_allclose(actual.values, jacobian.values, rtol=0, atol=TOLERANCE[dtype])


def test_cotangents_of_random_circuits_agree_with_the_reference(engine_name, make_engine):
    weights = np.array([0.3, -0.8, 1.0, 0.0, 2.0, -1.0])

    def check(circuit):
        plan, operators = plan_of(circuit, random_observables(circuit.num_qubits, 4))
        question = plan, operators, rows_of(plan.program), all_pairs(3, 2)
        expected = ask(ReferenceEngine(), *question, gradient=True, cotangents=weights)
        for dtype in TOLERANCE:
            actual = ask(make_engine(), *question, gradient=True, cotangents=weights, dtype=dtype)
            assert_agree(actual, expected, dtype)

    check_random_circuits(engine_name, check, max_examples=30)


def test_zero_cotangents_give_zero_gradients_and_all_values(make_engine, dtype):
    plan, operators = plan_of(random_circuit(4, 12, seed=9), random_observables(4, 9))
    question = plan, operators, rows_of(plan.program), all_pairs(3, 2)
    actual = ask(make_engine(), *question, gradient=True, cotangents=np.zeros(6), dtype=dtype)
    assert not actual.gradients.any()
    np.testing.assert_allclose(actual.values, ask(ReferenceEngine(), *question).values, atol=TOLERANCE[dtype])
