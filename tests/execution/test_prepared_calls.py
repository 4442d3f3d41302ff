# SPDX-License-Identifier: Apache-2.0
"""Prepared calls: later requests of a kind skip the decisions, and see every change of options and observables."""

import numpy as np
import pytest
from qiskit.circuit import Parameter, ParameterVector, QuantumCircuit
from qiskit.circuit.library import efficient_su2, real_amplitudes
from qiskit.quantum_info import SparsePauliOp

from qiskit_fused import FusedEstimatorGradient, FusedOptions, compile_circuit, release_memory
from qiskit_fused.compilation.observables import circuit_observables
from qiskit_fused.engines.cpu import engine
from qiskit_fused.engines.request import Pairs, Request
from qiskit_fused.execution import prepared_calls
from qiskit_fused.execution.expectations import Expectations


@pytest.fixture
def preparations(monkeypatch):
    """The prepared calls, in the order in which they are prepared."""
    made, prepare = [], prepared_calls._prepare

    def watched(*arguments):
        made.append(prepare(*arguments))
        return made[-1]

    monkeypatch.setattr(prepared_calls, "_prepare", watched)
    return made


@pytest.fixture
def kernel(monkeypatch):
    """The arguments of all calls of the kernel."""
    calls, evaluate = [], engine._cpu.evaluate
    monkeypatch.setattr(engine._cpu, "evaluate", lambda *a: calls.append(a) or evaluate(*a))
    return calls


NUM_THREADS = 11  # the position of the number of threads among the arguments of the kernel


def rows(circuit, count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, circuit.num_parameters))


def test_calls_that_differ_in_their_numbers_alone_are_prepared_once(preparations):
    circuit = efficient_su2(4, reps=2)
    compiled, gradient = compile_circuit(circuit), FusedEstimatorGradient()
    reference = FusedEstimatorGradient(device="reference")
    for seed in range(3):
        question = compiled, "ZZZZ", rows(circuit, 2, seed)
        for actual, expected in zip(*(one.value_and_gradient(*question) for one in (gradient, reference))):
            np.testing.assert_allclose(actual, expected, atol=1e-12)
    assert [made.call is not None for made in preparations] == [True, False]  # the reference engine has no such calls
    gradient.value_and_gradient(
        circuit, "ZZZZ", rows(circuit, 2)
    )  # the circuit shares the program of its compiled form
    assert len(preparations) == 2
    for number, arguments in enumerate(
        [(compiled, "ZZZZ", rows(circuit, 3)), (compiled, "XZZZ", rows(circuit, 2))], start=3
    ):
        gradient.value_and_gradient(*arguments)
        assert len(preparations) == number


def test_prepared_calls_see_changed_options_and_observables(preparations, kernel):
    circuit = efficient_su2(3, reps=1)
    compiled, gradient, values = compile_circuit(circuit), FusedEstimatorGradient(num_threads=1), rows(circuit, 3)
    observable = SparsePauliOp(["ZZZ", "XII"], [1.0, 0.5])
    before, _ = gradient.value_and_gradient(compiled, observable, values)
    observable.coeffs *= 2
    np.testing.assert_allclose(gradient.value_and_gradient(compiled, observable, values)[0], 2 * before)
    gradient.options.dtype = "complex64"
    single, _ = gradient.value_and_gradient(compiled, observable, values)
    assert (single != 2 * before).any()
    gradient.options.num_threads = 2
    gradient.value_and_gradient(compiled, observable, values)
    assert [call[NUM_THREADS] for call in kernel] == [1, 1, 1, 2]
    gradient.options.memory_limit = 1000
    with pytest.raises(MemoryError):
        gradient.value_and_gradient(compiled, observable, values)


def test_prepared_calls_see_a_changed_environment(monkeypatch, preparations, kernel):
    circuit = efficient_su2(3, reps=1)
    compiled, gradient = compile_circuit(circuit), FusedEstimatorGradient()
    for number in ("1", "3", "3"):
        monkeypatch.setenv("QISKIT_FUSED_NUM_THREADS", number)
        gradient.value_and_gradient(compiled, "ZZZ", rows(circuit, 40))
    monkeypatch.setenv("QISKIT_FUSED_NUM_THREADS", "none")
    with pytest.raises(ValueError, match="QISKIT_FUSED_NUM_THREADS"):
        gradient.value_and_gradient(compiled, "ZZZ", rows(circuit, 40))
    assert [call[NUM_THREADS] for call in kernel] == [1, 3, 3]
    assert len(preparations) == 2


def test_a_single_row_of_few_qubits_does_not_ask_the_environment(monkeypatch):
    circuit = efficient_su2(3, reps=1)
    monkeypatch.setenv("QISKIT_FUSED_NUM_THREADS", "none")
    for seed in range(2):
        FusedEstimatorGradient().value_and_gradient(circuit, "ZZZ", rows(circuit, 1, seed))


def test_prepared_calls_are_forgotten_with_their_circuit_and_with_all_memory():
    prepared_calls._PREPARATIONS.clear()
    compiled, gradient = compile_circuit(efficient_su2(3, reps=1)), FusedEstimatorGradient()
    gradient.value_and_gradient(compiled, "ZZZ", rows(compiled.circuit, 2))
    assert len(prepared_calls._PREPARATIONS) == 1
    release_memory()
    assert len(prepared_calls._PREPARATIONS) == 0
    gradient.value_and_gradient(compiled, "ZZZ", rows(compiled.circuit, 2))
    del compiled
    other = compile_circuit(real_amplitudes(3, reps=1))
    gradient.value_and_gradient(other, "ZZZ", rows(other.circuit, 2))
    assert len(prepared_calls._PREPARATIONS) == 1


def test_a_long_evaluation_is_not_prepared_because_its_progress_is_watched(monkeypatch, preparations):
    monkeypatch.setattr(engine, "_WATCHED_WORK", 0)
    circuit, seen = efficient_su2(3, reps=1), []
    gradient = FusedEstimatorGradient(progress=lambda *steps: seen.append(steps))
    for seed in range(2):
        gradient.value_and_gradient(circuit, "ZZZ", rows(circuit, 2, seed))
    assert seen and [made.call for made in preparations] == [None]


def test_large_preparations_are_made_again_instead_of_being_kept(monkeypatch, preparations):
    monkeypatch.setattr(prepared_calls._PREPARATIONS, "max_bytes", 1000)
    circuit, gradient = efficient_su2(3, reps=1), FusedEstimatorGradient()
    found = [gradient.value_and_gradient(circuit, "ZZZ", rows(circuit, 50))[0] for _ in range(2)]
    np.testing.assert_array_equal(*found)
    assert len(preparations) == 2


def test_pairs_that_may_change_are_not_prepared(preparations):
    compiled, options = compile_circuit(efficient_su2(3, reps=1)), FusedOptions()
    operators, pairs = circuit_observables("ZZZ", 3).operators, Pairs(np.zeros(1, np.int32), np.zeros(1, np.int32))
    request = Request(np.zeros((1, 12)), pairs, dtype=options.dtype)
    assert prepared_calls.find_call(options, compiled, operators, request) is None
    assert not preparations


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_large_cotangents_after_small_ones_are_scaled(dtype, preparations):
    circuit = efficient_su2(3, reps=1)
    parameters = list(circuit.parameters)
    function = Expectations(circuit, ["ZZZ", "XII"], parameters[:3], parameters[3:], dtype=dtype)
    inputs, weights, cotangents = np.ones((4, 3)), rows(circuit, 1)[0, 3:], np.ones((4, 2))
    small = function.value_and_vjp(inputs, weights, cotangents)
    large = function.value_and_vjp(inputs, weights, np.ldexp(cotangents, 200))
    again = function.value_and_vjp(inputs, weights, cotangents)
    np.testing.assert_allclose(np.ldexp(large.weights, -200), small.weights, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(again.weights, small.weights)
    assert preparations[0].call is not None


@pytest.mark.parametrize(
    "options",
    [{"memory_limit": "1 GB"}, {"method": "checkpoint", "num_segments": 2}, {"device": "reference"}],
    ids=str,
)
def test_requests_that_need_decisions_of_their_own_are_not_prepared(options, preparations):
    circuit = efficient_su2(3, reps=1)
    gradient, values = FusedEstimatorGradient(**options), rows(circuit, 2)
    found = [gradient.value_and_gradient(circuit, "ZZZ", values)[1] for _ in range(2)]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_allclose(
        found[0], FusedEstimatorGradient().value_and_gradient(circuit, "ZZZ", values)[1], atol=1e-12
    )
    assert preparations[0].call is None
    assert len(preparations) == 2


def circuit_with_an_unread_angle():
    """Return a circuit of two qubits in which an observable of qubit 0 does not depend on the last parameter."""
    circuit, angles = QuantumCircuit(2), ParameterVector("a", 4)
    for qubit in (0, 1):
        circuit.rx(angles[2 * qubit], qubit)
        circuit.ry(angles[2 * qubit + 1], qubit)
    return circuit


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("shares", [False, True], ids=["own angles", "shared angles"])
@pytest.mark.parametrize("num_rows", [1, 2, 5, 40, 200])
def test_a_kernel_finds_every_value_that_is_not_finite(num_rows, shares, dtype, preparations):
    circuit = circuit_with_an_unread_angle()
    gradient, compiled = FusedEstimatorGradient(options={"dtype": dtype}), compile_circuit(circuit)
    finite = np.repeat(rows(circuit, 1), num_rows, axis=0) if shares else rows(circuit, num_rows)
    gradient.value_and_gradient(compiled, "IZ", finite)
    for row in {0, num_rows // 2, num_rows - 1}:
        for column in range(4):
            for wrong in (np.nan, np.inf, -np.inf):
                values = finite.copy()
                values[row, column] = wrong
                text = rf"the value of parameter 'a\[{column}\]' in row {row} is {wrong}; allowed: finite numbers"
                with pytest.raises(ValueError, match=text):
                    gradient.value_and_gradient(compiled, "IZ", values)
    values = finite.copy()
    values[:, 3] = np.inf
    with pytest.raises(ValueError, match=r"'a\[3\]' in row 0 is inf"):
        gradient.value_and_gradient(compiled, "IZ", values)
    assert np.isfinite(gradient.value_and_gradient(compiled, "IZ", finite)[1]).all()
    assert preparations[0].call is not None


def test_values_of_expressions_are_checked_before_the_expressions_are_evaluated(preparations):
    circuit, angle = QuantumCircuit(1), Parameter("a")
    circuit.ry(angle.log(), 0)
    for values in ([[np.nan]], np.full((40, 1), np.inf)):
        with pytest.raises(ValueError, match=r"the value of parameter 'a' in row 0 is .*; allowed: finite numbers"):
            FusedEstimatorGradient().value_and_gradient(circuit, "Z", values)
    assert not preparations


def test_values_of_requests_that_are_not_prepared_are_checked(preparations):
    values = np.full((2, 4), np.nan)
    with pytest.raises(ValueError, match=r"the value of parameter 'a\[0\]' in row 0 is nan; allowed: finite numbers"):
        FusedEstimatorGradient(device="reference").value_and_gradient(circuit_with_an_unread_angle(), "IZ", values)
    assert preparations[0].call is None
