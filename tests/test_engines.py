# SPDX-License-Identifier: Apache-2.0
"""The fast engine against the reference engine: every gate, every size class, both number formats.

Tolerances follow the number format: the error of a complex64 sweep is a few units of float32, relative to the largest
component; nothing is tuned per test.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from circuits import circuits, values_of
from hypothesis import given, settings
from qiskit.circuit import ParameterVector, QuantumCircuit
from qiskit.circuit.library import PauliEvolutionGate
from qiskit.quantum_info import SparsePauliOp, Statevector, random_pauli_list, random_statevector

from qiskit_fused.coercion import coerce_observables
from qiskit_fused.engines.cpu import CpuEngine, fma_peak, isa
from qiskit_fused.engines.reference import ReferenceEngine
from qiskit_fused.execution import affordable_threads
from qiskit_fused.lowering import lower
from qiskit_fused.options import FusedOptions
from qiskit_fused.plan import make_plan

# Qiskit's own exponential of an evolution warns about its sparse format
pytestmark = pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")

TOLERANCE = {"complex64": 2e-5, "complex128": 2e-12}


def total_z(num_qubits):
    return SparsePauliOp.from_sparse_list([("Z", [q], 1.0) for q in range(num_qubits)], num_qubits)


def random_observables(num_qubits, seed):
    paulis = random_pauli_list(num_qubits, 3, seed=seed, phase=False)
    return [SparsePauliOp(paulis, np.random.default_rng(seed).normal(size=3)), total_z(num_qubits)]


def all_pairs(num_rows, num_observables):
    rows = np.repeat(np.arange(num_rows, dtype=np.int32), num_observables)
    return rows, np.tile(np.arange(num_observables, dtype=np.int32), num_rows)


def rows_of(program, seed=0, num_rows=3):
    """Rows that agree in all but two parameters, one of them with zeros: shared and varying angles, degenerate ones."""
    values = np.random.default_rng(seed).uniform(-3, 3, (num_rows, program.num_parameters))
    values[:, 2:] = values[0, 2:]
    values[-1, :2] = 0.0
    return program.columns(values)


def assert_engines_agree(circuit, observables, dtype="complex128", imaginary=False, num_threads=1, seed=0):
    """Compare values and gradients of all rows and observables on both engines."""
    program = lower(circuit)
    operators = coerce_observables(observables).operators
    plan = make_plan(program, None if imaginary else operators.support(circuit.num_qubits))
    columns = rows_of(program, seed)
    pairs = all_pairs(len(columns), len(operators))
    options = {"gradient": True, "imaginary": imaginary}
    expected = ReferenceEngine().evaluate(plan, operators, columns, pairs, **options)
    actual = CpuEngine(num_threads).evaluate(plan, operators, columns, pairs, dtype=dtype, **options)
    scale = max(1.0, np.abs(expected.values).max(initial=0), np.abs(expected.gradients).max(initial=0))
    np.testing.assert_allclose(actual.values, expected.values, rtol=0, atol=TOLERANCE[dtype] * scale)
    np.testing.assert_allclose(actual.gradients, expected.gradients, rtol=0, atol=TOLERANCE[dtype] * scale)
    return actual


def random_circuit(num_qubits, num_gates, seed):
    """Gates that reach every branch of the phases: low, high and crossing pairs, three- and four-body terms."""
    rng = np.random.default_rng(seed)
    parameters = ParameterVector("p", 8)
    circuit = QuantumCircuit(num_qubits)
    for qubit in range(num_qubits):
        circuit.ry(0.3 + 0.2 * qubit, qubit)
    for _ in range(num_gates):
        q = [int(i) for i in rng.permutation(num_qubits)[:4]]
        plain, scaled = parameters[int(rng.integers(8))], 1.5 * parameters[int(rng.integers(8))] - 0.3
        angle = [plain, scaled, float(rng.uniform(-3, 3)), 0.0, np.pi][rng.integers(5)]
        one = [circuit.rx, circuit.ry, circuit.rz, circuit.p]
        two = [circuit.rzz, circuit.cp, circuit.crz, circuit.rxx]
        kind = int(rng.integers(12))
        if kind < 4:
            one[kind](angle, q[0])
        elif kind < 8:
            two[kind - 4](angle, q[0], q[1])
        elif kind == 8:
            circuit.cx(q[0], q[1])
        elif kind == 9 and num_qubits > 2:
            circuit.ccz(q[0], q[1], q[2])
        elif kind == 10 and num_qubits > 3:
            circuit.mcp(angle, q[:3], q[3])
        elif kind == 11 and num_qubits > 3:
            circuit.append(PauliEvolutionGate(SparsePauliOp("XYZX"), angle), q)
    return circuit


def full_graph(num_qubits, layers=1):
    """QAOA with one angle per pair: phases whose low table changes with every block."""
    pairs = [(i, j) for j in range(num_qubits) for i in range(j)]
    angles = ParameterVector("g", layers * (len(pairs) + num_qubits))
    circuit = QuantumCircuit(num_qubits)
    for qubit in range(num_qubits):
        circuit.ry(np.pi / 4, qubit)
    angle = iter(angles)
    for _ in range(layers):
        for i, j in pairs:
            circuit.rzz(next(angle), i, j)
        for qubit in range(num_qubits):
            circuit.rx(next(angle), qubit)
    return circuit


@settings(max_examples=60, deadline=None)
@given(circuit=circuits())
def test_values_are_those_of_qiskits_statevector(circuit):
    observables = random_observables(circuit.num_qubits, 5)
    values = values_of(circuit)
    program = lower(circuit)
    operators = coerce_observables(observables).operators
    plan = make_plan(program, operators.support(circuit.num_qubits))
    columns = program.columns(values[None])
    actual = CpuEngine().evaluate(plan, operators, columns, all_pairs(1, len(observables))).values
    state = Statevector(circuit.assign_parameters(values))
    expected = [state.expectation_value(observable).real for observable in observables]
    np.testing.assert_allclose(actual, expected, atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(circuit=circuits())
def test_random_circuits_of_every_gate_agree_with_the_reference(circuit):
    for dtype in TOLERANCE:
        assert_engines_agree(circuit, random_observables(circuit.num_qubits, 1), dtype)


@settings(max_examples=30, deadline=None)
@given(circuit=circuits())
def test_imaginary_derivatives_of_random_circuits_agree_with_the_reference(circuit):
    assert_engines_agree(circuit, random_observables(circuit.num_qubits, 2), imaginary=True)


@pytest.mark.parametrize("num_qubits", [1, 2, 3, 4, 5, 7, 8, 9, 10, 12])
@pytest.mark.parametrize("imaginary", [False, True], ids=["real", "imaginary"])
def test_every_number_of_qubits_agrees_with_the_reference(num_qubits, imaginary, dtype):
    if num_qubits == 1:
        circuit = QuantumCircuit(1)
        for angle, gate in zip(ParameterVector("p", 4), (circuit.ry, circuit.rz, circuit.rx, circuit.ry)):
            gate(angle, 0)
    else:
        circuit = random_circuit(num_qubits, 25, seed=num_qubits)
    assert_engines_agree(circuit, random_observables(num_qubits, 3), dtype, imaginary)


@pytest.mark.parametrize("num_qubits", [14, 15])
def test_states_cut_into_chunks_agree_with_the_reference(num_qubits, dtype):
    circuit = random_circuit(num_qubits, 12, seed=num_qubits)
    assert_engines_agree(circuit, random_observables(num_qubits, 4), dtype, num_threads=2)


@pytest.mark.parametrize("num_qubits", [6, 9, 10, 11, 12])
def test_full_graph_phases_agree_with_the_reference(num_qubits, dtype):
    assert_engines_agree(full_graph(num_qubits), random_observables(num_qubits, 6), dtype)


@pytest.mark.parametrize("angle", [0.0, np.pi, -np.pi, 2 * np.pi, np.pi / 2])
@pytest.mark.parametrize("gates", ["x", "y", "xy", "yx", "xyz", "zxz", "xx", "yzy"])
def test_gradients_are_right_where_the_sine_or_cosine_of_a_run_is_zero(gates, angle, dtype):
    circuit = QuantumCircuit(2)
    circuit.ry(0.7, 0)
    circuit.cx(0, 1)
    for name, parameter in zip(gates, ParameterVector("p", len(gates))):
        getattr(circuit, f"r{name}")(parameter, 0)
    circuit.cx(0, 1)
    circuit.rx(0.4, 0)
    program = lower(circuit)
    operators = coerce_observables([SparsePauliOp("XY"), SparsePauliOp("ZI"), SparsePauliOp("IX")]).operators
    plan = make_plan(program, operators.support(2))
    columns, pairs = np.full((1, len(gates)), angle), all_pairs(1, 3)
    expected = ReferenceEngine().evaluate(plan, operators, columns, pairs, gradient=True)
    actual = CpuEngine().evaluate(plan, operators, columns, pairs, gradient=True, dtype=dtype)
    np.testing.assert_allclose(actual.gradients, expected.gradients, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("num_qubits", [3, 10])
def test_a_start_state_on_some_qubits_is_used(num_qubits, dtype):
    circuit = QuantumCircuit(num_qubits)
    circuit.initialize(random_statevector(4, seed=7).data, [0, num_qubits - 1])
    for qubit, parameter in enumerate(ParameterVector("p", num_qubits)):
        circuit.rx(parameter, qubit)
    circuit.cx(0, num_qubits - 1)
    assert_engines_agree(circuit, random_observables(num_qubits, 8), dtype)


def test_projectors_and_large_groups_are_observed_like_the_reference(dtype):
    circuit = random_circuit(10, 15, seed=3)
    observables = ["0" * 10, "1Z" * 5, "+-rl01XYZI", {"Z" * 10: 0.5, "X" * 10: 1.5, "Y" * 9 + "I": -1.0}]
    assert_engines_agree(circuit, observables, dtype)


@pytest.mark.parametrize("num_qubits", [5, 14])
def test_equal_input_gives_equal_bits_whatever_the_number_of_threads(num_qubits, dtype):
    circuit = random_circuit(num_qubits, 15, seed=1)
    observables = random_observables(num_qubits, 1)
    program = lower(circuit)
    operators = coerce_observables(observables).operators
    plan = make_plan(program, operators.support(num_qubits))
    columns = rows_of(program, num_rows=40 if num_qubits == 5 else 3)
    pairs = all_pairs(len(columns), 2)
    results = [
        CpuEngine(threads).evaluate(plan, operators, columns, pairs, gradient=True, dtype=dtype)
        for threads in (1, 2, 3, 3)
    ]
    for result in results[1:]:
        assert np.array_equal(result.values, results[0].values)
        assert np.array_equal(result.gradients, results[0].gradients)


def test_the_memory_limit_holds_for_rows_side_by_side():
    circuit = random_circuit(16, 6, seed=4)
    program = lower(circuit)
    plan = make_plan(program, np.full(16, 2, dtype=np.uint8))
    one = plan.memory("complex64")
    assert [plan.rows_at_once(rows, 8) for rows in (1, 3, 8, 100)] == [1, 1, 4, 8]
    options = FusedOptions(dtype="complex64", num_threads=8, memory_limit=2 * one)
    assert affordable_threads(plan, options, num_pairs=100, num_rows=100, gradient=True) == 2
    assert affordable_threads(plan, options, num_pairs=1, num_rows=1, gradient=True) == 8


def test_large_batches_use_the_threads_given():
    circuit = random_circuit(8, 30, seed=2)
    program = lower(circuit)
    operators = coerce_observables(total_z(8)).operators
    plan = make_plan(program, operators.support(8))
    columns = rows_of(program, num_rows=400)
    used = {
        threads: CpuEngine(threads).evaluate(plan, operators, columns, all_pairs(400, 1), gradient=True).stats
        for threads in (1, 2)
    }
    assert [used[threads]["num_threads"] for threads in (1, 2)] == [1, 2]


def test_the_bytes_reported_are_those_of_all_rows_side_by_side():
    circuit = random_circuit(14, 12, seed=2)
    program = lower(circuit)
    operators = coerce_observables(random_observables(14, 2)).operators
    plan = make_plan(program, operators.support(14))
    for num_rows, side_by_side in ((1, 1), (3, 1), (4, 2)):
        columns, pairs = rows_of(program, num_rows=num_rows), all_pairs(num_rows, 2)
        stats = CpuEngine(2).evaluate(plan, operators, columns, pairs, gradient=True).stats
        assert stats["num_threads"] == 2
        assert stats["bytes"] == plan.memory(gradient=True, observables=2, rows=side_by_side)


def test_one_plan_may_be_evaluated_from_several_threads_at_once(dtype):
    circuit = random_circuit(9, 15, seed=5)
    program = lower(circuit)
    operators = coerce_observables(random_observables(9, 5)).operators
    plan, engine = make_plan(program, operators.support(9)), CpuEngine(2)
    questions = [(rows_of(program, seed, seed), all_pairs(seed, 1 + seed % 2), seed % 3 > 0) for seed in range(1, 7)]

    def answer(engine, question):
        columns, pairs, gradient = question
        return engine.evaluate(plan, operators, columns, pairs, gradient=gradient, dtype=dtype)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda question: answer(engine, question), questions * 10))
    for result, question in zip(results, questions * 10):
        expected = answer(CpuEngine(1), question)
        assert np.array_equal(result.values, expected.values)
        assert not question[2] or np.array_equal(result.gradients, expected.gradients)


def test_long_sums_keep_their_digits_in_single_precision():
    # numbers of one sign in vectors of four: where partial sums stay in single precision, 3e-5 is lost
    code = (
        "from test_engines import *\n"
        "n, parameters = 21, ParameterVector('p', 42)\n"
        "circuit = QuantumCircuit(n)\n"
        "for q in range(n): circuit.ry(parameters[q], q)\n"
        "for q in range(n): circuit.cz(q, (q + 1) % n)\n"
        "for q in range(n): circuit.cz(q, (q + 1) % n)\n"
        "for q in range(n): circuit.rx(parameters[n + q], q)\n"
        "circuit.cz(0, 1)\n"
        "operators = coerce_observables(SparsePauliOp('I' * 10 + 'X' + 'I' * 10)).operators\n"
        "plan = make_plan(lower(circuit), np.full(n, 2, np.uint8))\n"
        "columns = np.concatenate([np.full((1, n), 1.47), np.full((1, n), 0.2)], axis=1)\n"
        "single, double = (CpuEngine(2).evaluate(plan, operators, columns, all_pairs(1, 1), gradient=True, dtype=d)\n"
        "                  for d in TOLERANCE)\n"
        "assert np.abs(single.values - double.values).max() < 4e-6\n"
        "assert np.abs(single.gradients - double.gradients).max() < 4e-6, single.gradients - double.gradients\n"
    )
    done = run_python(code, "baseline")
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="takes address space away by setrlimit")
@pytest.mark.parametrize(("num_qubits", "num_rows"), [(10, 2000), (18, 1)], ids=["rows", "one row"])
def test_threads_that_cannot_be_started_are_an_error_and_no_abort(num_qubits, num_rows):
    code = (
        "import resource\n"
        "from test_engines import *\n"
        f"n, rows = {num_qubits}, {num_rows}\n"
        "program = lower(random_circuit(n, 30, seed=1))\n"
        "operators = coerce_observables(total_z(n)).operators\n"
        "plan = make_plan(program, operators.support(n))\n"
        "question = plan, operators, rows_of(program, num_rows=rows), all_pairs(rows, 1)\n"
        "values = CpuEngine(1).evaluate(*question).values\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (48 << 20),) * 2)\n"
        "with pytest.raises(RuntimeError, match='could start only .* threads .*; use a smaller num_threads'):\n"
        "    CpuEngine(64).evaluate(*question)\n"
        "assert np.array_equal(CpuEngine(1).evaluate(*question).values, values)\n"
    )
    done = run_python(code, isa())
    assert done.returncode == 0, done.stderr


def test_a_peak_is_measured_on_at_least_one_thread():
    with pytest.raises(ValueError, match="num_threads is 0; allowed: 1 or more"):
        fma_peak(num_threads=0)


def test_only_the_pairs_asked_for_are_evaluated():
    circuit = random_circuit(4, 12, seed=9)
    program = lower(circuit)
    operators = coerce_observables(random_observables(4, 9)).operators
    plan = make_plan(program, operators.support(4))
    columns = rows_of(program)
    everything = CpuEngine().evaluate(plan, operators, columns, all_pairs(3, 2), gradient=True)
    rows, chosen = np.array([0, 2, 2], dtype=np.int32), np.array([1, 0, 1], dtype=np.int32)
    some = CpuEngine().evaluate(plan, operators, columns, (rows, chosen), gradient=True)
    np.testing.assert_array_equal(some.values, everything.values[2 * rows + chosen])
    np.testing.assert_array_equal(some.gradients, everything.gradients[2 * rows + chosen])


def run_python(code, instruction_set):
    """Run code in a fresh interpreter, in this folder, on an instruction set."""
    path = os.pathsep.join(filter(None, sys.path))
    environment = os.environ | {"QISKIT_FUSED_ISA": instruction_set, "PYTHONPATH": path}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, cwd=os.path.dirname(__file__), capture_output=True, text=True)


@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512"])
def test_every_instruction_set_of_this_cpu_agrees_with_the_reference(name):
    order = ["baseline", "avx2", "avx512"]
    if order.index(name) > order.index(isa()):
        pytest.skip(f"this CPU or build has no {name}")
    code = (
        "from test_engines import *\n"
        f"assert isa() == {name!r}\n"
        "for n in (1, 3, 6, 10, 14):\n"
        "    for dtype in TOLERANCE:\n"
        "        c = full_graph(n) if n in (1, 6, 10) else random_circuit(n, 12, n)\n"
        "        assert_engines_agree(c, random_observables(n, n), dtype)\n"
    )
    done = run_python(code, name)
    assert done.returncode == 0, done.stderr


def test_an_unknown_instruction_set_is_refused_with_those_there_are():
    done = run_python("from qiskit_fused import _cpu; _cpu.isa()", "sse9")
    assert "QISKIT_FUSED_ISA is 'sse9'; this CPU and build have: baseline" in done.stderr
