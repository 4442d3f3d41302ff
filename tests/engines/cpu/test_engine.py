# SPDX-License-Identifier: Apache-2.0
"""Properties of the CPU engine alone: threads, instruction sets, and the memory of concurrent rows."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from asking import ask
from engine_cases import (
    all_pairs,
    assert_agree,
    plan_of,
    random_circuit,
    random_observables,
    rows_of,
    total_z,
)
from instruction_sets import run_python
from qiskit.circuit import ParameterVector, QuantumCircuit
from qiskit.quantum_info import SparsePauliOp, random_pauli_list

from qiskit_fused import _cpu
from qiskit_fused.common.caches import release_memory
from qiskit_fused.engines.cpu.costs import num_sweeps
from qiskit_fused.engines.cpu.engine import CpuEngine, fma_peak, isa
from qiskit_fused.engines.reference import ReferenceEngine

# SciPy warns about the sparse format in which Qiskit exponentiates a PauliEvolutionGate.
pytestmark = pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")


@pytest.mark.parametrize("weighted", [False, True], ids=["jacobian", "cotangents"])
@pytest.mark.parametrize(("num_qubits", "num_rows"), [(5, 40), (14, 3)], ids=["rows side by side", "one row shared"])
def test_results_do_not_depend_on_the_number_of_threads(num_qubits, num_rows, weighted, dtype):
    circuit = random_circuit(num_qubits, 15, seed=1)
    plan, operators = plan_of(circuit, random_observables(num_qubits, 1))
    columns, pairs = rows_of(plan.program, num_rows=num_rows), all_pairs(num_rows, 2)
    weights = np.random.default_rng(0).normal(size=2 * num_rows) if weighted else None
    results = [
        ask(CpuEngine(threads), plan, operators, columns, pairs, gradient=True, cotangents=weights, dtype=dtype)
        for threads in (1, 2, 3, 3)
    ]
    for result in results[1:]:
        assert np.array_equal(result.values, results[0].values)
        assert np.array_equal(result.gradients, results[0].gradients)


def test_large_batches_use_the_threads_given():
    plan, operators = plan_of(random_circuit(8, 30, seed=2), total_z(8))
    columns = rows_of(plan.program, num_rows=400)
    used = {
        threads: ask(CpuEngine(threads), plan, operators, columns, all_pairs(400, 1), gradient=True).stats
        for threads in (1, 2)
    }
    assert [used[threads]["num_threads"] for threads in (1, 2)] == [1, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_threads_wait_for_the_next_call_as_many_as_there_are_cpus():
    done = run_python(
        "import os\n"
        "from asking import ask\n"
        "from engine_cases import *\n"
        "from qiskit_fused.engines.cpu.engine import CpuEngine\n"
        "plan, operators = plan_of(random_circuit(8, 30, seed=2), total_z(8))\n"
        "question = plan, operators, rows_of(plan.program, num_rows=400), all_pairs(400, 1)\n"
        "for threads in (1, 2, 2, 20):\n"
        "    ask(CpuEngine(threads), *question)\n"
        "    print(len(os.listdir('/proc/self/task')))\n",
        isa(),
    )
    alone, *counts = map(int, done.stdout.split())
    assert counts[:2] == [alone + 1, alone + 1]
    assert counts[2] == alone + min(os.cpu_count(), 19)


@pytest.mark.parametrize("imaginary", [False, True])
@pytest.mark.parametrize("change", ["nothing", "a row", "all rows"])
def test_gradients_after_values_are_those_of_an_engine_that_knows_nothing(change, imaginary, dtype):
    plan, operators = plan_of(random_circuit(6, 30, seed=4), random_observables(6, 2), imaginary)
    columns, pairs, engine = rows_of(plan.program, num_rows=5), all_pairs(5, 2), CpuEngine()
    ask(engine, plan, operators, columns, pairs, dtype=dtype)
    columns = columns.copy()
    columns[{"nothing": [], "a row": [3], "all rows": slice(None)}[change]] += 0.1
    actual, expected = (
        ask(one, plan, operators, columns, pairs, gradient=True, imaginary=imaginary, dtype=dtype)
        for one in (engine, CpuEngine())
    )
    np.testing.assert_array_equal(actual.values, expected.values)
    np.testing.assert_array_equal(actual.gradients, expected.gradients)


@pytest.mark.parametrize("num_qubits", [4, 11])
def test_memory_of_earlier_calls_of_any_kind_does_not_change_results(num_qubits, dtype):
    def make():
        return plan_of(random_circuit(num_qubits, 40, seed=6), random_observables(num_qubits, 2))

    plan, operators = make()
    equal = np.repeat(rows_of(plan.program, num_rows=1), 20, axis=0)
    similar = equal.copy()
    similar[::3, 0] += 0.3
    similar[7:, -1] -= 0.2
    batches = equal[:1], similar, rows_of(plan.program, num_rows=20), equal, equal[:1] + 0.1
    kinds = [{}, {"gradient": True}, {"gradient": True, "imaginary": True}]
    kinds.append({"gradient": True, "sum_columns": np.ones(plan.program.num_columns, bool)})
    order = np.random.default_rng(0).permutation([(b, k) for b in range(len(batches)) for k in range(len(kinds))] * 2)
    for batch, kind in order.tolist():
        columns, options = batches[batch], kinds[kind] | {"dtype": dtype}
        if "sum_columns" in options:
            options["cotangents"] = np.linspace(-1, 1, 2 * len(columns))
        pairs = all_pairs(len(columns), 2)
        actual, expected = (
            ask(CpuEngine(2), *question, columns, pairs, **options) for question in ((plan, operators), make())
        )
        np.testing.assert_array_equal(actual.values, expected.values)
        np.testing.assert_array_equal(actual.gradients, expected.gradients)


def test_tables_that_many_rows_shared_are_not_those_of_a_single_row_that_makes_its_own(dtype):
    def make():  # the tables of one row take 2 to 4 MiB, which several rows share and a single row does not keep
        num_qubits, num_layers = 11, 150 if dtype == "complex128" else 300
        angles = ParameterVector("p", num_qubits * num_layers)
        circuit = QuantumCircuit(num_qubits)
        for layer in range(num_layers):
            for qubit in range(num_qubits):
                circuit.rx(angles[layer * num_qubits + qubit], qubit)
            for qubit in range(num_qubits):
                circuit.cz(qubit, (qubit + 1) % num_qubits)
        return plan_of(circuit, total_z(num_qubits))

    plan, operators = make()
    one = rows_of(plan.program, num_rows=1)
    equal = np.repeat(one + 0.1, 2, axis=0)
    similar = equal.copy()
    similar[1, :11] += 1
    for columns in (equal, one, similar, one):
        pairs = all_pairs(len(columns), 1)
        actual, expected = (
            ask(CpuEngine(1), *question, columns, pairs, gradient=True, dtype=dtype)
            for question in ((plan, operators), make())
        )
        np.testing.assert_array_equal(actual.values, expected.values)
        np.testing.assert_array_equal(actual.gradients, expected.gradients)


@pytest.mark.slow
def test_threads_that_ask_for_values_and_gradients_of_one_circuit_do_not_change_values_that_others_read():
    plan, operators = plan_of(random_circuit(3, 200, seed=5), total_z(3))
    points, pairs, engine = rows_of(plan.program, num_rows=8), all_pairs(1, 1), CpuEngine(1)

    def step(k):
        ask(engine, plan, operators, points[k : k + 1], pairs)
        return ask(engine, plan, operators, points[k : k + 1], pairs, gradient=True).gradients

    def repeat(thread):
        numbers = np.random.default_rng(thread).integers(8, size=30_000)
        return sum(not np.array_equal(step(k), expected[k]) for k in numbers)

    expected, interval = [step(k) for k in range(8)], sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(3) as pool:
            assert sum(pool.map(repeat, range(3))) == 0
    finally:
        sys.setswitchinterval(interval)


def test_calls_of_several_threads_at_once_have_workers_of_their_own():
    plan, operators = plan_of(random_circuit(8, 30, seed=2), total_z(8))
    columns, pairs, engine = rows_of(plan.program, num_rows=100), all_pairs(100, 1), CpuEngine(3)
    expected = [ask(engine, plan, operators, columns + k, pairs, gradient=True) for k in range(4)]

    def repeat(k):
        return [ask(engine, plan, operators, columns + k, pairs, gradient=True) for _ in range(10)]

    with ThreadPoolExecutor(4) as pool:
        for actual, reference in zip(pool.map(repeat, range(4)), expected):
            assert all(np.array_equal(repeated.values, reference.values) for repeated in actual)
            assert all(np.array_equal(repeated.gradients, reference.gradients) for repeated in actual)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_fork_starts_threads_of_its_own():
    done = run_python(
        "import os, warnings\n"
        "warnings.simplefilter('ignore', DeprecationWarning)  # fork of several threads, in Python 3.12\n"
        "from asking import ask\n"
        "from engine_cases import *\n"
        "from qiskit_fused.engines.cpu.engine import CpuEngine, isa\n"
        "plan, operators = plan_of(random_circuit(8, 30, seed=2), total_z(8))\n"
        "question = plan, operators, rows_of(plan.program, num_rows=400), all_pairs(400, 1)\n"
        "values = ask(CpuEngine(3), *question).values\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if np.array_equal(ask(CpuEngine(3), *question).values, values) else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert np.array_equal(ask(CpuEngine(3), *question).values, values)\n",
        isa(),
    )
    assert done.returncode == 0, done.stderr


def test_cotangents_take_one_backward_sweep_and_no_second_state_per_row():
    plan, operators = plan_of(random_circuit(5, 12, seed=2), random_observables(5, 2))
    columns, pairs = rows_of(plan.program), (np.array([0, 0, 2], np.int32), np.array([0, 1, 0], np.int32))
    weights = np.ones(3)
    each = ask(CpuEngine(), plan, operators, columns, pairs, gradient=True).stats
    release_memory()
    summed = ask(CpuEngine(), plan, operators, columns, pairs, gradient=True, cotangents=weights).stats
    assert each["sweeps"] == (3 + 3) * num_sweeps(plan)
    assert summed["sweeps"] == (3 + 2) * num_sweeps(plan)
    assert each["bytes"] > summed["bytes"]


def test_cotangents_of_observables_too_large_for_tables_agree_with_the_reference(dtype):
    # Diagonals of more than 64 MiB, here of 512 groups, are made block by block.
    num_qubits = 14
    rng = np.random.default_rng(3)
    paulis = random_pauli_list(num_qubits, 520, seed=3, phase=False)
    observables = [SparsePauliOp(part, rng.normal(size=len(part)) / 20) for part in (paulis[:500], paulis[500:])]
    plan, operators = plan_of(random_circuit(num_qubits, 6, seed=3), observables)
    question = plan, operators, rows_of(plan.program, num_rows=1), all_pairs(1, 2)
    weights = np.array([0.7, -1.3])
    expected = ask(ReferenceEngine(), *question, gradient=True, cotangents=weights)
    actual = ask(CpuEngine(2), *question, gradient=True, cotangents=weights, dtype=dtype)
    assert_agree(actual, expected, dtype)


def test_long_sums_keep_their_digits_in_vectors_of_four():
    done = run_python(
        "from asking import ask\n"
        "from engine_cases import *\n"
        "from qiskit_fused.engines.cpu.engine import CpuEngine\n"
        "assert_long_sums_keep_their_digits(CpuEngine(2), 21)\n",
        "baseline",
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="takes address space away by setrlimit")
@pytest.mark.parametrize(("num_qubits", "num_rows"), [(10, 2000), (18, 1)], ids=["rows", "one row"])
def test_threads_that_cannot_be_started_are_an_error_and_no_abort(num_qubits, num_rows):
    code = (
        "import resource\n"
        "from asking import ask\n"
        "from engine_cases import *\n"
        "from qiskit_fused.engines.cpu.engine import CpuEngine, isa\n"
        f"n, rows = {num_qubits}, {num_rows}\n"
        "plan, operators = plan_of(random_circuit(n, 30, seed=1), total_z(n))\n"
        "question = plan, operators, rows_of(plan.program, num_rows=rows), all_pairs(rows, 1)\n"
        "values = ask(CpuEngine(1), *question).values\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "limits = resource.getrlimit(resource.RLIMIT_AS)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (48 << 20), limits[1]))\n"
        "with pytest.raises(RuntimeError, match='could start only .* threads .*; use a smaller num_threads'):\n"
        "    ask(CpuEngine(64), *question)\n"
        "resource.setrlimit(resource.RLIMIT_AS, limits)\n"
        "assert np.array_equal(ask(CpuEngine(64), *question).values, values)\n"
    )
    done = run_python(code, isa())
    assert done.returncode == 0, done.stderr


def test_a_peak_is_measured_on_at_least_one_thread():
    with pytest.raises(ValueError, match="num_threads is 0; allowed: 1 or more"):
        fma_peak(num_threads=0)


def test_an_unknown_instruction_set_is_refused_with_those_there_are():
    done = run_python("import _cpu; _cpu.isa()", "sse9", _cpu.__file__)  # the package would take seconds to import
    assert "QISKIT_FUSED_ISA is 'sse9'; this CPU and build have: baseline" in done.stderr


@pytest.mark.parametrize("num_qubits", [5, 14])
def test_gradients_that_begin_from_the_states_of_a_call_for_values_have_the_same_bits(num_qubits, dtype):
    plan, operators = plan_of(random_circuit(num_qubits, 20, seed=4), random_observables(num_qubits, 4))
    columns = rows_of(plan.program)
    others, pairs = columns[::-1].copy(), all_pairs(3, 2)
    engine = CpuEngine(2)
    expected = ask(CpuEngine(), plan, operators, columns, pairs, gradient=True, dtype=dtype)
    for before in (columns, columns, others, columns[:2], columns):
        ask(engine, plan, operators, before, all_pairs(len(before), 2), dtype=dtype)
        for _ in range(2):
            actual = ask(engine, plan, operators, columns, pairs, gradient=True, dtype=dtype)
            np.testing.assert_array_equal(actual.gradients, expected.gradients)
            np.testing.assert_array_equal(actual.values, expected.values)


def test_states_of_a_call_for_some_rows_serve_a_call_for_all_of_them():
    plan, operators = plan_of(random_circuit(5, 20, seed=4), random_observables(5, 4))
    columns, engine = rows_of(plan.program), CpuEngine()
    ask(engine, plan, operators, columns, (np.array([1], dtype=np.int32), np.array([0], dtype=np.int32)))
    actual = ask(engine, plan, operators, columns, all_pairs(3, 2), gradient=True)
    assert_agree(actual, ask(CpuEngine(), plan, operators, columns, all_pairs(3, 2), gradient=True), "complex128")


def test_rounding_of_norms_does_not_add_up_over_equal_layers():
    # The error would be 1.2e-4 if each factor were rounded by itself.
    num_qubits, num_layers = 8, 1000
    circuit, angles = QuantumCircuit(num_qubits), iter(ParameterVector("p", 3 * num_qubits * num_layers))
    for _ in range(num_layers):
        for qubit in range(num_qubits):
            circuit.rx(next(angles), qubit)
            circuit.rz(next(angles), qubit)
            circuit.rx(next(angles), qubit)
        for qubit in range(num_qubits - 1):
            circuit.cz(qubit, qubit + 1)
    plan, operators = plan_of(circuit, [total_z(num_qubits)])
    layer = np.random.default_rng(0).uniform(-3, 3, (1, 3 * num_qubits))
    question = plan, operators, plan.program.columns(np.tile(layer, num_layers)), all_pairs(1, 1)
    single, double = (
        ask(CpuEngine(), *question, gradient=True, dtype=dtype).gradients for dtype in ("complex64", "complex128")
    )
    assert np.abs(single - double).max() < 6e-5 * np.abs(double).max()


class _EmptyIsNan:
    """NumPy for the module that makes the arrays of results: memory that is not initialised is NaN."""

    zeros, complex128 = np.zeros, np.complex128

    @staticmethod
    def empty(shape):
        return np.full(shape, np.nan)


@pytest.mark.parametrize("engine", [CpuEngine(2), ReferenceEngine()], ids=["cpu", "reference"])
@pytest.mark.parametrize("num_qubits", [3, 9], ids=["packs", "rows"])
@pytest.mark.parametrize("weighted", [False, True])
def test_an_engine_writes_all_values_and_gradients(engine, num_qubits, weighted, monkeypatch):
    plan, operators = plan_of(random_circuit(num_qubits, 20, seed=1), random_observables(num_qubits, 1))
    columns = rows_of(plan.program, num_rows=20)
    pairs = np.array([2, 2, 3, 17], np.int32), np.array([0, 1, 1, 0], np.int32)
    options = {"gradient": True, "cotangents": np.array([1.0, 2.0, -1.0, 0.5]) if weighted else None}
    expected = ask(ReferenceEngine(), plan, operators, columns, pairs, **options)
    monkeypatch.setattr("qiskit_fused.engines.evaluation.np", _EmptyIsNan)
    assert_agree(ask(engine, plan, operators, columns, pairs, **options), expected, "complex128")
