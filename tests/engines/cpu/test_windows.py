# SPDX-License-Identifier: Apache-2.0
"""The windows of the CPU engine take turns: states of 10 to 14 qubits, cut into many chunks, keep their results."""

import numpy as np
import pytest
from asking import Ends, ask
from engine_cases import (
    all_pairs,
    assert_agree,
    assert_agrees_with_reference,
    cx_layers,
    dense_circuit,
    full_graph,
    many_strings,
    plan_of,
    random_circuit,
    random_observables,
    rows_of,
)
from layered_circuits import hardware_efficient
from qiskit.circuit import ParameterVector, QuantumCircuit
from qiskit.circuit.library import real_amplitudes

from qiskit_fused.common.native import CONSTANTS
from qiskit_fused.engines.cpu import costs, native_plan
from qiskit_fused.engines.cpu.engine import CpuEngine
from qiskit_fused.options.method import Method

# SciPy warns about the sparse format in which Qiskit exponentiates a PauliEvolutionGate.
pytestmark = pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")

CIRCUITS = {
    "random 10": lambda: random_circuit(10, 60, seed=3),
    "random 12": lambda: random_circuit(12, 80, seed=4),
    "random 13": lambda: random_circuit(13, 80, seed=5),
    "layers 14": lambda: hardware_efficient(14, 4),
    "real 12": lambda: real_amplitudes(12, reps=3),
    "low tables of each block": lambda: full_graph(12, layers=2),
    "tables of all amplitudes": lambda: many_strings(12),
    "dense gates": lambda: dense_circuit(12, 3, num_controls=1),
    "linear maps": lambda: cx_layers(13),
    "real linear maps": lambda: cx_layers(12, "ring", gates=("ry",)),
}


def most_windows(num_qubits):
    """Return the most bits of chunks with which both windows hold whole blocks."""
    return (num_qubits - CONSTANTS.max_low_bits) // 2


def one_chunk(num_qubits):
    return 0


@pytest.fixture
def cut(monkeypatch):
    """Return a function that makes plans cut states by another number of bits; call it before the plan is used."""

    def cut_by(bits):
        for module in (costs, native_plan):
            monkeypatch.setattr(module, "chunk_bits", bits)

    cut_by(most_windows)
    return cut_by


@pytest.mark.parametrize("name", CIRCUITS)
def test_small_windows_agree_with_the_reference(name, cut, dtype):
    circuit = CIRCUITS[name]()
    assert_agrees_with_reference(CpuEngine(2), circuit, random_observables(circuit.num_qubits, 1), dtype)


@pytest.mark.parametrize("imaginary", [False, True])
@pytest.mark.parametrize("method", [Method("reverse"), Method("checkpoint", 3)], ids=["reverse", "checkpoint"])
@pytest.mark.parametrize("name", CIRCUITS)
def test_small_windows_give_the_results_of_one_window(name, method, imaginary, cut):
    circuit, found = CIRCUITS[name](), []
    for bits in (one_chunk, most_windows):
        cut(bits)
        plan, operators = plan_of(circuit, random_observables(circuit.num_qubits, 2), imaginary)
        question = plan, operators, rows_of(plan.program), all_pairs(3, 2)
        options = {"gradient": True, "imaginary": imaginary, "method": method}
        found += [ask(CpuEngine(), *question, **options)]
        found += [ask(CpuEngine(), *question, **options, cotangents=np.linspace(-1, 1, 6))]
    for one, small in zip(found[:2], found[2:]):
        assert_agree(small, one, "complex128")


def test_windows_take_turns_in_these_tests(cut):
    plan, _ = plan_of(hardware_efficient(14, 4), random_observables(14, 1))
    assert native_plan.windows(plan, "complex64") == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("name", CIRCUITS)
def test_results_do_not_depend_on_the_number_of_threads(name, threads, cut):
    circuit = CIRCUITS[name]()
    plan, operators = plan_of(circuit, random_observables(circuit.num_qubits, 1))
    question = plan, operators, rows_of(plan.program, num_rows=1), all_pairs(1, 2)
    one, other = (ask(CpuEngine(count), *question, gradient=True, dtype="complex64") for count in (1, threads))
    np.testing.assert_array_equal(other.values, one.values)
    np.testing.assert_array_equal(other.gradients, one.gradients)


def few_and_many_terms(num_layers):
    """Return a circuit whose phases have, by turns, 24 terms and 1 term that join low and high qubits."""
    circuit, angles = QuantumCircuit(14), ParameterVector("a", 4 * num_layers)
    circuit.h(range(14))
    for layer in range(num_layers):
        first, second, third, mixer = angles[4 * layer : 4 * layer + 4]
        if layer % 2:
            circuit.mcp(first, [0, *range(8, 13)], 13)
            circuit.p(second, 0)
            circuit.p(third, 1)
        for i in range(0 if layer % 2 else 24):
            angle = (first, second, third)[i % 3]
            circuit.mcp(angle, [i % 8, (i + 3) % 8, 8 + i % 6], 8 + (i + 1 + i // 6) % 6)
        circuit.rx(mixer, range(3))
    return circuit


def test_sums_of_neighbouring_phases_keep_apart_on_several_threads():
    plan, operators = plan_of(few_and_many_terms(40), random_observables(14, 1))
    # The window does not change, so no barrier lies between the phases.
    assert len(set(native_plan.windows(plan, "complex64")[2:])) == 1
    question = plan, operators, rows_of(plan.program, num_rows=1), all_pairs(1, 2)
    expected = ask(CpuEngine(1), *question, gradient=True).gradients
    for threads in [2, 4] * 20:  # a thread that is ahead must not change sums that another thread still reads
        np.testing.assert_array_equal(ask(CpuEngine(threads), *question, gradient=True).gradients, expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_states_at_both_ends_pass_through_small_windows(threads, cut):
    rng, found = np.random.default_rng(0), []
    starts, cotangents = rng.normal(size=(2, 2, 2**12)) + 1j * rng.normal(size=(2, 2, 2**12))
    starts /= np.linalg.norm(starts, axis=1, keepdims=True)
    nothing = np.zeros(0, np.int32), np.zeros(0, np.int32)
    for bits in (one_chunk, most_windows):
        cut(bits)
        plan, operators = plan_of(random_circuit(12, 60, seed=6), random_observables(12, 1), imaginary=True)
        columns = rows_of(plan.program, num_rows=2)
        ends = Ends(initial=starts, initial_gradients=True, final=True, final_cotangents=cotangents)
        found.append(ask(CpuEngine(threads), plan, operators, columns, nothing, gradient=True, ends=ends))
    for name in ("gradients", "final_states", "state_gradients"):
        one, small = (getattr(evaluation, name) for evaluation in found)
        np.testing.assert_allclose(small, one, rtol=0, atol=1e-12)
