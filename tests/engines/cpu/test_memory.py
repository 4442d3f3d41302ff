# SPDX-License-Identifier: Apache-2.0
"""The CPU engine predicts its memory before it allocates, and a batch runs with the fastest method that fits."""

import logging
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from asking import ask, make_request, most_bytes, request_of
from engine_cases import all_pairs, cx_layers, dense_circuit, many_strings, rows_of, total_z
from layered_circuits import rx_ry_layers
from qiskit.circuit import ParameterVector, QuantumCircuit
from qiskit.quantum_info import SparsePauliOp

from qiskit_fused import FusedEstimator, FusedEstimatorGradient, fuse
from qiskit_fused.common.caches import release_memory
from qiskit_fused.compilation.observables import coerce_observables
from qiskit_fused.engines.checkpointing import FORWARD, make_schedule, num_steps, schedule_of, segmented_schedule
from qiskit_fused.engines.cpu import method as methods
from qiskit_fused.engines.cpu.costs import num_positions
from qiskit_fused.engines.cpu.engine import CpuEngine
from qiskit_fused.engines.cpu.memory import Counts, Footprint, count_diagonals
from qiskit_fused.engines.cpu.method import choose
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.inspection.plan import Plan
from qiskit_fused.lowering.lower import lower
from qiskit_fused.options.method import REVERSE, Method

MB = 10**6


def full_graph(num_qubits, num_layers):
    """Return a circuit of layers of RX, of RZZ between all pairs, and of Pauli rotations of weight 3."""
    circuit = QuantumCircuit(num_qubits)
    angles = iter(ParameterVector("g", num_layers * num_qubits * (num_qubits + 3) // 2))
    for _ in range(num_layers):
        for a in range(num_qubits):
            circuit.rx(next(angles), a)
            for b in range(a):
                circuit.rzz(next(angles), a, b)
        for a in range(num_qubits):
            circuit.mcp(next(angles), [a, (a + 3) % num_qubits], (a + 5) % num_qubits)
    return circuit


def planned(circuit, observable=None):
    """Return a new plan and new observables, for which no other test has filled a cache."""
    return fuse_program(lower(circuit)), coerce_observables(observable or total_z(circuit.num_qubits)).operators


def chosen(plan, operators, request, limit, *, method="auto", num_segments=None, num_threads=1):
    asked = request_of(request, plan.program.num_columns)
    options = {"num_segments": num_segments, "num_threads": num_threads}
    return choose(plan, asked, operators.restrict(plan.wires), method=method, limit_of=lambda _: limit, **options)


# --- prediction ---

CHILD = """
import pickle, resource, sys
from qiskit_fused.engines.cpu.engine import CpuEngine

plan, operators, request, num_threads = pickle.load(open(sys.argv[1], "rb"))
request = request._replace(columns=request.columns + 0.0)
engine, page = CpuEngine(num_threads), resource.getpagesize()
resident = int(open("/proc/self/statm").read().split()[1]) * page - request.columns.nbytes
engine.evaluate(plan, operators, request)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - resident)
"""

MEASURED = {
    "a value": (20, 4, Counts(1, 1, "complex64", False), REVERSE, 1),
    "reverse": (20, 4, Counts(1, 1, "complex128"), REVERSE, 2),
    "deep": (12, 1000, Counts(1, 1, "complex64"), REVERSE, 1),
    "rows side by side": (18, 10, Counts(4, 4, "complex64"), REVERSE, 2),
    "several observables": (18, 10, Counts(1, 2, "complex128"), REVERSE, 2),
    "a Jacobian": (14, 40, Counts(1000, 1000, "complex64"), REVERSE, 1),
    "store": (16, 60, Counts(1, 1, "complex64"), Method("store"), 2),
    "checkpoint": (20, 12, Counts(1, 1, "complex64"), Method("checkpoint", 5), 2),
    "checkpoint, rows side by side": (18, 12, Counts(4, 4, "complex64"), Method("checkpoint", 5), 2),
    "segments": (18, 16, Counts(1, 1, "complex128"), Method("checkpoint", None, 4), 1),
}


def states_of(plan, method):
    schedule = schedule_of(method, num_positions(plan))
    return 0 if schedule is None else schedule.num_states


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("case", MEASURED)
@pytest.mark.slow
def test_the_process_grows_by_what_was_predicted(case, tmp_path):
    # The tolerance is 15 %, and 1 MB for the heap and the stacks of threads.
    num_qubits, num_layers, request, method, num_threads = MEASURED[case]
    observables = [total_z(num_qubits), SparsePauliOp("X" * num_qubits)][: request.num_pairs // request.num_rows]
    plan, operators = planned(rx_ry_layers(num_qubits, num_layers), observables)
    columns = rows_of(plan.program, num_rows=request.num_rows) + np.linspace(0, 1, request.num_rows)[:, None]
    request = Counts.full(request.num_rows, len(observables), request.dtype, request.gradient)
    predicted = Footprint(plan, request.dtype).total(request, num_threads, states_of(plan, method))
    pairs = all_pairs(request.num_rows, len(observables))
    asked = make_request(columns, pairs, gradient=request.gradient, dtype=request.dtype, method=method)
    (tmp_path / "question").write_bytes(pickle.dumps((plan, operators, asked, num_threads)))
    # A shell between this process and the child keeps this process's peak out of the child's peak.
    command = ["sh", "-c", '"$0" -c "$1" "$2"; exit $?', sys.executable, CHILD, str(tmp_path / "question")]
    grown = int(subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout)
    assert predicted == pytest.approx(grown, rel=0.15, abs=0.15 * grown + MB)


@pytest.mark.parametrize("num_rows", [1, 2, 9])
@pytest.mark.parametrize(
    ("circuit", "num_threads"),
    [
        (rx_ry_layers(15, 10), 2),
        (full_graph(14, 6), 1),
        (full_graph(16, 1), 2),
        (rx_ry_layers(16, 2), 3),
        (many_strings(15, 3), 2),
        (many_strings(17, 1), 2),
        (dense_circuit(14, 7, 1), 2),
        (cx_layers(15), 2),
    ],
)
def test_the_engine_allocates_what_was_predicted(circuit, num_threads, num_rows, dtype):
    plan, operators = planned(circuit, [total_z(circuit.num_qubits), SparsePauliOp("Y" * circuit.num_qubits)])
    columns, footprint = rows_of(plan.program, num_rows=num_rows), Footprint(plan, dtype)
    varying = footprint.varying_phases((columns != columns[0]).any(axis=0))
    for count in (1, 2):
        pairs = (
            np.repeat(np.arange(num_rows, dtype=np.int32), count),
            np.tile(np.arange(count, dtype=np.int32), num_rows),
        )
        request = Counts.full(num_rows, count, dtype)
        for method in (REVERSE, Method("store"), Method("checkpoint", 2)):
            release_memory()  # a larger workspace kept from the last call would be reused and counted
            stats = ask(
                CpuEngine(num_threads), plan, operators, columns, pairs, gradient=True, dtype=dtype, method=method
            ).stats
            predicted = footprint.total(request, num_threads, states_of(plan, method), varying)
            assert stats["num_threads"] == footprint.side_by_side(num_rows, num_threads)[1]
            assert predicted == pytest.approx(stats["bytes"], rel=0.15)


def test_diagonals_are_counted_by_flipped_bits_and_parts():
    observables = [
        SparsePauliOp(["ZZ", "IZ", "XI", "YI", "XY", "IX"], [1, 2, 3, 4, 5, 6]),
        SparsePauliOp(["XX", "YY", "ZI"]),
    ]
    terms = coerce_observables(observables).operators.restrict(np.arange(2))
    assert count_diagonals(terms) == (3 + 2, 4 + 2)


# --- choice ---


@pytest.fixture
def deep():
    return planned(rx_ry_layers(10, 40))


def test_auto_stores_states_that_are_few_bytes_and_fit(deep, monkeypatch):
    plan, operators = deep
    monkeypatch.setattr(methods, "STORE_MAX_BYTES", 2**30)
    assert chosen(plan, operators, Counts(), None).method == Method("store")
    assert chosen(plan, operators, Counts(), Plan(plan).memory(method="reverse") + 10**5).method == REVERSE
    assert chosen(plan, operators, Counts(gradient=False), None).method == REVERSE
    plan, operators = planned(rx_ry_layers(10, 40))
    monkeypatch.setattr(methods, "STORE_MAX_BYTES", 2**10)
    assert chosen(plan, operators, Counts(), None).method == REVERSE


@pytest.mark.parametrize("num_rows", [1, 16])
def test_checkpoints_are_as_many_as_fit(deep, num_rows):
    plan, operators = deep
    request = Counts(num_rows, num_rows)
    for num_states in (1, 2, 5, 20):
        limit = Plan(plan).memory(num_rows, "checkpoint", num_threads=2, num_states=num_states) + 100
        choice = chosen(plan, operators, request, limit, method="checkpoint", num_threads=2)
        states = choice.method.num_states
        assert choice.num_bytes <= limit
        assert states == num_states or choice.num_threads == 1
        assert choice.num_steps == num_steps(num_positions(plan), states)
        more = Footprint(plan, "complex128").total(
            Counts.full(num_rows, 1, "complex128"), choice.num_threads, states + 1
        )
        assert more > limit or states == num_positions(plan)


def test_checkpoints_take_all_states_where_they_fit(deep):
    plan, operators = deep
    assert chosen(plan, operators, Counts(), None, method="checkpoint").method.num_states == num_positions(plan)


def test_checkpoints_that_leave_the_cache_are_no_more_than_make_no_step_three_times():
    plan, operators = planned(rx_ry_layers(14, 60))
    choice = chosen(plan, operators, Counts(), None, method="checkpoint")
    schedule = schedule_of(choice.method, num_positions(plan))
    assert np.bincount(schedule.actions[schedule.actions[:, 0] == FORWARD, 1]).max() == 2
    fewer = make_schedule(num_positions(plan), schedule.num_states - 1).actions
    assert np.bincount(fewer[fewer[:, 0] == FORWARD, 1]).max() == 3


def test_segments_are_kept_as_given(deep):
    plan, operators = deep
    for num_segments in (1, 6, 10**6):
        choice = chosen(plan, operators, Counts(), None, method="checkpoint", num_segments=num_segments)
        schedule = segmented_schedule(num_positions(plan), min(num_segments, num_positions(plan)))
        assert choice.method == Method("checkpoint", None, num_segments)
        assert choice.num_steps == schedule.num_steps
        states = Footprint(plan, "complex128").total(Counts(), 1, schedule.num_states)
        assert choice.num_bytes == states


@pytest.mark.parametrize("method", ["reverse", "store", "checkpoint"])
def test_fewer_rows_run_side_by_side_where_all_do_not_fit(deep, method):
    plan, operators = deep
    request = Counts(100, 100, "complex128")
    limit = Plan(plan).memory(100, method, num_threads=3)
    assert chosen(plan, operators, request, None, method=method, num_threads=8).num_threads == 8
    choice = chosen(plan, operators, request, limit, method=method, num_threads=8)
    assert choice.num_bytes <= limit
    assert choice.num_threads == 3 or (method == "checkpoint" and choice.num_threads < 3)


def test_a_long_recomputation_is_told_with_the_limit_that_halves_it(deep):
    plan, operators = deep
    limit = Plan(plan).memory(method="checkpoint", num_states=1)
    choice = chosen(plan, operators, Counts(), limit, method="checkpoint")
    assert choice.num_steps > 20 * num_positions(plan)
    advised = re.search(
        r"1 state of 10 qubits recomputes 21 times .* memory_limit='(\d+)(B|kB)' would halve", choice.advice
    )
    more = int(advised[1]) * {"B": 1, "kB": 1000}[advised[2]]
    better = chosen(plan, operators, Counts(), more, method="checkpoint")
    assert 2 * better.num_steps <= choice.num_steps
    assert not better.advice


@pytest.mark.parametrize(
    ("asked", "states", "text"),
    [
        ({}, 1.9, "the statevector and cotangent of 16 qubits need 2 MiB in complex128, memory_limit is"),
        ({}, 2.2, "the statevector and cotangent of 16 qubits need 2 MiB in complex128, with tables, sums and arrays"),
        ({}, 0.5, "; use fewer qubits or raise memory_limit."),
        ({}, 1.9, "; use dtype='complex64', fewer qubits or raise memory_limit."),
        (
            {"method": "store"},
            10,
            "the 21 statevectors of method='store' and the cotangent of 16 qubits need 22 MiB in",
        ),
        ({"method": "store"}, 10, "; use method='reverse', fewer qubits or raise memory_limit."),
        ({"method": "store"}, 15, "; use dtype='complex64', method='reverse', fewer qubits or raise memory_limit."),
        ({"method": "checkpoint", "num_segments": 2}, 4, "use method='reverse', fewer qubits or raise memory_limit."),
        ({"method": "checkpoint"}, 1, "the statevector and cotangent of 16 qubits need 2 MiB"),
    ],
)
def test_too_small_a_limit_is_refused_with_figures_and_cure(asked, states, text):
    plan, operators = planned(rx_ry_layers(16, 20))
    with pytest.raises(MemoryError, match=re.escape(text)):
        chosen(plan, operators, Counts(), int(states * 2**20), **asked)


def test_several_observables_fit_by_checkpoints_where_a_copy_of_psi_does_not():
    plan, operators = planned(rx_ry_layers(16, 20), [total_z(16), SparsePauliOp("Y" * 16)])
    limit = Plan(plan).memory(observables=2) - 2**19
    with pytest.raises(MemoryError, match="use dtype='complex64', method='checkpoint', fewer qubits or raise"):
        chosen(plan, operators, Counts(1, 2), limit)
    assert chosen(plan, operators, Counts(1, 2), limit, method="checkpoint").method.num_states == 1


def test_an_answer_that_does_not_fit_is_refused_by_its_size(deep):
    plan, operators = deep
    with pytest.raises(MemoryError) as error:
        chosen(plan, operators, Counts(500, 500), 4 * MB)
    text = r"the gradients of 500 pairs of rows and observables, and the rows, take 6.11 MiB beside .* of states and "
    assert re.match(text + "tables, memory_limit is .*; ask for fewer rows or observables at a time", str(error.value))


# --- in the primitives ---


@pytest.mark.parametrize(
    ("options", "method", "states"),
    [
        ({"method": "reverse"}, "reverse", 1),
        ({"method": "store"}, "store", 31),
        ({"method": "checkpoint"}, "checkpoint", 31),
        ({"method": "checkpoint", "num_segments": 5}, "checkpoint", 4 + 7),
        ({"method": "checkpoint", "memory_limit": None}, "checkpoint", 7),
    ],
)
def test_all_methods_give_equal_gradients(options, method, states, dtype):
    circuit = rx_ry_layers(9, 30)
    values = np.random.default_rng(0).normal(size=(1, circuit.num_parameters))
    if "memory_limit" in options:
        limit = fuse(circuit, total_z(9)).memory(1, method, dtype, num_states=states) + 100
        options = options | {"memory_limit": limit}
    job = FusedEstimatorGradient(device="cpu", num_threads=1, dtype=dtype, **options).run(
        [circuit], [total_z(9)], values
    )
    expected = FusedEstimatorGradient(device="reference").run([circuit], [total_z(9)], values).result().gradients
    tolerance = {"complex64": 2e-5, "complex128": 1e-11}[dtype]
    np.testing.assert_allclose(job.result().gradients, expected, atol=tolerance * np.abs(expected).max())
    metrics = job.metrics()
    assert metrics["method"] == method
    assert metrics["states"] == states


def test_a_limit_that_makes_work_long_is_logged_once(caplog):
    circuit = rx_ry_layers(10, 45)
    limit = fuse(circuit, total_z(10)).memory(method="checkpoint")
    gradient = FusedEstimatorGradient(device="cpu", num_threads=1, method="checkpoint", memory_limit=limit)
    with caplog.at_level(logging.WARNING, "qiskit_fused"):
        for _ in range(2):
            gradient.value_and_gradient(circuit, total_z(10), np.zeros(circuit.num_parameters))
    assert [record.getMessage().startswith("method='checkpoint' with 1 state of 10") for record in caplog.records] == [
        True
    ]


def test_the_default_limit_names_the_free_memory(monkeypatch):
    release_memory()  # memory that the engine keeps counts as free
    monkeypatch.setattr("qiskit_fused.common.free_memory.free_memory", lambda: 140 * MB)
    circuit = QuantumCircuit(23)
    circuit.ry(0.3, range(23))
    with pytest.raises(
        MemoryError, match=r"80 % of the free memory is 107 MiB, enough for 22 qubits; use dtype='complex64', fewer"
    ):
        FusedEstimator(device="cpu").run([(circuit, "Z" * 23)]).result()


def test_states_are_kept_for_a_gradient_only_where_the_copy_of_their_angles_is_small():
    circuit = QuantumCircuit(1)
    for number, angle in enumerate(ParameterVector("a", 600)):
        (circuit.rx if number % 2 else circuit.ry)(angle, 0)
    plan, operators = planned(circuit)

    def num_bytes(num_rows):
        """Return the bytes of a call for values without the arrays of the caller."""
        columns = np.random.default_rng(0).normal(size=(num_rows, 600))
        asked = make_request(columns, all_pairs(num_rows, 1))
        return most_bytes(CpuEngine(1), plan, operators, asked) - columns.nbytes - 8 * num_rows

    assert num_bytes(4000) < num_bytes(3000)  # the copies would take 19.2 and 14.4 MB


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts the pages that a call maps")
def test_a_call_uses_the_states_of_the_call_before_it_where_the_limit_holds_one_call():
    import resource  # Windows has no such module

    num_qubits, num_layers = 16, 40
    circuit = rx_ry_layers(num_qubits, num_layers)
    limit = fuse(circuit, total_z(num_qubits)).memory(method="store", dtype="complex64")
    gradient = FusedEstimatorGradient(
        dtype="complex64", method="store", memory_limit=limit + limit // 20, num_threads=1, device="cpu"
    )
    angles = [np.linspace(0, 1, circuit.num_parameters)]
    release_memory()

    def num_mapped_bytes():
        """Return the bytes of fresh pages that a call maps."""
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        gradient.run([circuit], [total_z(num_qubits)], angles).result()
        return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize()

    states = num_layers * 8 * 2**num_qubits
    first, second = num_mapped_bytes(), num_mapped_bytes()
    if first < states:
        pytest.skip("one fault maps a huge page, so that the number of faults does not tell the bytes")
    assert second < states / 4
