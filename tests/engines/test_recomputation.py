# SPDX-License-Identifier: Apache-2.0
"""Every method of every fast engine, "store" and "checkpoint", gives the gradients of the reference engine."""

import numpy as np
import pytest
from asking import ask
from engine_cases import (
    all_pairs,
    assert_agree,
    check_random_circuits,
    full_graph,
    on_engines,
    plan_of,
    random_circuit,
    random_observables,
    rows_of,
)
from qiskit.circuit import ParameterVector, QuantumCircuit
from qiskit.quantum_info import random_statevector

from qiskit_fused.engines.checkpointing import schedule_of
from qiskit_fused.engines.cpu.costs import num_positions
from qiskit_fused.engines.cpu.engine import CpuEngine
from qiskit_fused.engines.reference import ReferenceEngine
from qiskit_fused.options.method import REVERSE, Method

pytestmark = pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")

METHODS = {
    "store": Method("store"),
    "checkpoint-1": Method("checkpoint", num_states=1),
    "checkpoint-3": Method("checkpoint", num_states=3),
    "segments-2": Method("checkpoint", num_segments=2),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def assert_method_agrees(engine, circuit, method, dtype="complex128", *, imaginary=False, weighted=False):
    """Compare a method's values and gradients of some rows with those of the reference engine."""
    plan, operators = plan_of(circuit, random_observables(circuit.num_qubits, 3), imaginary)
    columns = rows_of(plan.program)
    pairs = all_pairs(len(columns), len(operators))
    options = {"gradient": True, "imaginary": imaginary}
    options["cotangents"] = np.linspace(-1, 1, len(pairs[0])) if weighted else None
    expected = ask(ReferenceEngine(), plan, operators, columns, pairs, **options)
    actual = ask(engine, plan, operators, columns, pairs, **options, dtype=dtype, method=method)
    assert_agree(actual, expected, dtype)


@pytest.mark.parametrize("num_qubits", [9, 12])
def test_methods_of_one_plan_follow_each_other(make_engine, num_qubits):
    plan, operators = plan_of(random_circuit(num_qubits, 200, seed=8), random_observables(num_qubits, 1))
    question = plan, operators, rows_of(plan.program)[:1], all_pairs(1, 2)
    expected = ask(ReferenceEngine(), *question, gradient=True)
    engine = make_engine()
    for method in (Method("reverse"), *METHODS.values(), Method("reverse")):
        assert_agree(ask(engine, *question, gradient=True, method=method), expected, "complex128")


@every_method
@pytest.mark.parametrize("imaginary", [False, True], ids=["real", "imaginary"])
def test_random_circuits_of_every_gate_agree_with_the_reference(engine_name, make_engine, method, imaginary):
    def check(circuit):
        assert_method_agrees(make_engine(), circuit, method, imaginary=imaginary)

    check_random_circuits(engine_name, check, max_examples=15)


@pytest.mark.slow
@on_engines(cpu=[2, 4, 9, 10, 15], emulated=[2, 10, 13], tiles=[7, 10])
@pytest.mark.parametrize("weighted", [False, True], ids=["jacobian", "cotangents"])
@every_method
def test_numbers_of_qubits_agree_with_the_reference(make_engine, num_qubits, method, weighted, dtype):
    circuit = full_graph(num_qubits) if num_qubits < 3 else random_circuit(num_qubits, 25, seed=num_qubits)
    assert_method_agrees(make_engine(2), circuit, method, dtype, weighted=weighted)


@on_engines(cpu=[9, 11], emulated=[10], tiles=[8])
@every_method
def test_full_graph_phases_agree_with_the_reference(make_engine, num_qubits, method, dtype):
    assert_method_agrees(make_engine(), full_graph(num_qubits, layers=2), method, dtype)


@pytest.mark.parametrize("num_qubits", [3, 10])
@every_method
def test_a_start_state_is_made_again(make_engine, num_qubits, method):
    circuit = QuantumCircuit(num_qubits)
    circuit.initialize(random_statevector(4, seed=7).data, [0, num_qubits - 1])
    for qubit, parameter in enumerate(ParameterVector("p", num_qubits)):
        circuit.rx(parameter, qubit)
    circuit.cx(0, num_qubits - 1)
    circuit.rx(circuit.parameters[0], 0)
    assert_method_agrees(make_engine(), circuit, method)


@on_engines(cpu=[5, 14], emulated=[4, 13], tiles=[9])
@every_method
def test_equal_input_gives_equal_bits(make_engine, num_qubits, method):
    plan, operators = plan_of(random_circuit(num_qubits, 15, seed=1), random_observables(num_qubits, 1))
    question = plan, operators, rows_of(plan.program), all_pairs(3, 2)
    first, second = (ask(make_engine(threads), *question, gradient=True, method=method) for threads in (1, 2))
    np.testing.assert_array_equal(first.gradients, second.gradients)
    np.testing.assert_array_equal(first.values, second.values)


@every_method
def test_a_gradient_says_which_method_ran_and_a_value_does_not(make_engine, method):
    plan, operators = plan_of(random_circuit(10, 40, seed=2), random_observables(10, 2))
    question = plan, operators, rows_of(plan.program), all_pairs(3, 2)
    stats = ask(make_engine(), *question, gradient=True, method=method).stats
    assert stats["method"] == method.name
    assert 1 <= stats["states"] <= (method.num_states or num_positions(plan))
    assert "method" not in ask(make_engine(), *question, method=method).stats


def test_the_schedule_decides_how_many_states_the_cpu_engine_allocates():
    plan, operators = plan_of(random_circuit(16, 60, seed=2), random_observables(16, 2))
    question = plan, operators, rows_of(plan.program)[:1], all_pairs(1, 1)
    state = 16 << 16

    def allocated(method):
        return ask(CpuEngine(), *question, gradient=True, method=method).stats["bytes"]

    base = allocated(REVERSE)
    for method in METHODS.values():
        num_states = schedule_of(method, num_positions(plan)).num_states
        assert allocated(method) - base == pytest.approx((num_states - 1) * state, abs=0.05 * state)
