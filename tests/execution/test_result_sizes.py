# SPDX-License-Identifier: Apache-2.0
"""Results that no memory holds are refused before anything is allocated, with a cure that fits."""

import tracemalloc

import numpy as np
import pytest
from qiskit.circuit.library import real_amplitudes

from qiskit_fused import FusedEstimatorGradient, FusedOptions, FusedSamplerGradient, FusedSamplerQNN
from qiskit_fused.common import free_memory
from qiskit_fused.compilation.circuits import COMPILED
from qiskit_fused.engines.request import GradientRequest, Request, pairs_of
from qiskit_fused.execution.derivatives import differentiated, num_differentiated
from qiskit_fused.execution.evaluate import _evaluate_together
from qiskit_fused.execution.expectations import Expectations
from qiskit_fused.execution.result_sizes import check_results
from qiskit_fused.program.outcomes import Outcomes

CURE = "measure fewer qubits, or give interpret, or use FusedSamplerQNN.value_and_vjp"
MEMORY = 16 << 30


@pytest.fixture(autouse=True)
def sixteen_gibibytes(monkeypatch):
    """Let the system report 16 GiB of free memory."""
    monkeypatch.setattr(free_memory, "free_memory", lambda: MEMORY)


def circuit_of(num_qubits):
    return real_amplitudes(num_qubits, reps=1)


def value_and_gradient(num_qubits, num_rows):
    circuit = circuit_of(num_qubits)
    return lambda: FusedSamplerGradient().value_and_gradient(circuit, np.zeros((num_rows, circuit.num_parameters)))


def run(num_qubits, num_rows):
    circuit = circuit_of(num_qubits)
    values = [np.zeros(circuit.num_parameters)] * num_rows
    return lambda: FusedSamplerGradient().run([circuit] * num_rows, values).result()


def backward(num_qubits, num_rows):
    circuit = circuit_of(num_qubits)
    parameters = list(circuit.parameters)
    network = FusedSamplerQNN(circuit=circuit, input_params=parameters[:1], weight_params=parameters[1:])
    return lambda: network.backward(np.zeros((num_rows, 1)), np.zeros(len(parameters) - 1))


def value_and_jacobian(num_qubits, num_rows):
    circuit = circuit_of(num_qubits)
    outcomes, parameters = Outcomes(num_qubits, range(num_qubits)), list(circuit.parameters)
    function = Expectations(circuit, outcomes, parameters[:1], parameters[1:])
    return lambda: function.value_and_jacobian(np.zeros((num_rows, 1)), np.zeros(len(parameters) - 1))


@pytest.mark.parametrize("make", [value_and_gradient, run, backward, value_and_jacobian])
@pytest.mark.parametrize(("num_qubits", "num_rows"), [(30, 1), (26, 1), (20, 64)])
def test_gradients_of_too_many_outcomes_are_refused_before_anything_is_allocated(make, num_qubits, num_rows):
    call = make(num_qubits, num_rows)
    tracemalloc.start()
    try:
        with pytest.raises(MemoryError, match=CURE) as error:
            call()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20
    assert f"the gradients of {1 << num_qubits:,} outcomes in {num_rows} row" in str(error.value)
    assert "80% of the free memory is 12.8 GiB" in str(error.value)
    assert ("ask for fewer rows at a time" in str(error.value)) == (num_rows > 1)


def test_values_of_too_many_outcomes_are_refused_with_a_cure_for_values():
    compiled, outcomes = COMPILED.get(circuit_of(28)), Outcomes(28, range(28))
    with pytest.raises(MemoryError, match=r"the values of 268,435,456 outcomes in 100 rows take .* 6 rows at most"):
        check_results(FusedOptions(), compiled, outcomes, 100, gradient=False)
    check_results(FusedOptions(), compiled, outcomes, 6, gradient=False)


def test_a_row_must_fit_the_memory_limit_of_the_cpu():
    compiled, outcomes = COMPILED.get(circuit_of(20)), Outcomes(20, range(20))
    check_results(FusedOptions(device="cpu"), compiled, outcomes, 2, gradient=True)
    with pytest.raises(MemoryError, match=rf"outcomes in 1 row .*, memory_limit is 95\.4 MiB; {CURE}"):
        check_results(FusedOptions(device="cpu", memory_limit="100MB"), compiled, outcomes, 2, gradient=True)


def test_the_error_about_observables_speaks_of_observables():
    circuit = circuit_of(4)
    values = np.broadcast_to(0.0, (10**8, circuit.num_parameters))
    compiled, operators = COMPILED.get(circuit), Expectations(circuit, ["ZZZZ", "XXXX"], circuit.parameters).operators
    with pytest.raises(MemoryError, match=r"of 2 observables in 100000000 rows .* or ask for fewer observables"):
        check_results(FusedOptions(), compiled, operators, len(values), gradient=True)
    assert FusedEstimatorGradient().value_and_gradient(circuit, ["ZZZZ"], values[:2])[1].shape == (2, 1, 8)


@pytest.mark.parametrize("table", [None, [0, 1, 1, 0], [0, 2, 2, -1], [-1] * 4])
def test_the_number_of_differentiated_outcomes_is_known_without_their_list(table):
    outcomes = Outcomes(2, [0, 1], table, 4)
    assert num_differentiated(outcomes) == len(differentiated(outcomes))


@pytest.mark.parametrize(("num_rows", "cure"), [(1, CURE), (2, "ask for fewer rows at a time, 1 row at most, or ")])
def test_the_cpu_engine_names_the_same_cures_for_outcomes(num_rows, cure):
    circuit = circuit_of(14)
    compiled, outcomes = COMPILED.get(circuit), Outcomes(14, range(14))
    gradient = GradientRequest()
    pairs = pairs_of(num_rows, differentiated(outcomes))
    request = Request(np.zeros((num_rows, circuit.num_parameters)), pairs, gradient)
    limit = "3MB" if num_rows == 1 else "7MB"
    with pytest.raises(MemoryError, match=rf"pairs of rows and outcomes, .*; {cure}.*, or raise memory_limit\.$"):
        _evaluate_together(FusedOptions(device="cpu", memory_limit=limit), compiled, outcomes, request, None, None)
