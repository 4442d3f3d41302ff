# SPDX-License-Identifier: Apache-2.0
"""Cached objects are bounded in bytes, found again, and freed on request and when memory is short."""

import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit.circuit.library import efficient_su2, real_amplitudes
from qiskit.quantum_info import Pauli, SparseObservable, SparsePauliOp

import qiskit_fused
from qiskit_fused import FusedEstimator, FusedEstimatorGradient, _cpu, release_memory
from qiskit_fused.common import caches
from qiskit_fused.common.caches import BoundedCache
from qiskit_fused.compilation import circuits as compiler
from qiskit_fused.compilation.observables import coerce_observables
from qiskit_fused.engines.cpu import engine as cpu

MB = 10**6


class Thing:
    """An object that owns entries."""


def visit(cache, keys, num_bytes):
    """Look up keys in turn, put missing keys into the cache, and return the number of hits."""
    hits = 0
    for key in keys:
        if cache.get(key) is None:
            cache.put(key, str(key), num_bytes)
        else:
            hits += 1
    return hits


# --- a cache ---


ACTIONS = st.sampled_from(["put", "replace", "get", "die", "clear"])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(ACTIONS, st.integers(0, 9), st.integers(0, 3000))))
def test_a_cache_holds_what_it_says_and_no_more_than_its_bound(steps):
    cache, owners = BoundedCache(6000), {}
    for action, key, size in steps:
        if action in ("put", "replace"):
            owners.setdefault(key, Thing())
            known, value = cache.get(key), object()
            found = cache.put(key, value, size, owners[key], replace=action == "replace")
            assert found is (value if known is None or action == "replace" else known)
            assert cache.get(key) is found
        elif action == "get":
            assert cache.get(key) is None or key in owners
        elif action == "die":
            owners.pop(key, None)
            assert cache.get(key) is None
        else:
            cache.clear()
        assert cache.num_bytes <= cache.max_bytes
        assert sorted(cache._keys) == sorted(cache._entries)
        assert cache.num_bytes == sum(entry.num_bytes for entry in cache._entries.values())


@pytest.mark.parametrize(("more", "hits"), [(1.02, 0.8), (1.1, 0.6), (1.5, 0.2)])
def test_a_loop_over_a_little_more_than_fits_keeps_most_of_its_hits(more, hits):
    cache = BoundedCache(500 * (1000 + caches._OVERHEAD))
    keys = range(int(500 * more))
    for _ in range(3):
        visit(cache, keys, 1000)
    assert visit(cache, keys, 1000) > hits * len(keys)


def test_what_is_larger_than_the_bound_is_kept_with_its_owner_only_and_leaves_room():
    cache, owner = BoundedCache(10_000), Thing()
    assert cache.put("large", 1, 50_000) == 1
    assert cache.get("large") is None
    cache.put("owned", 2, 50_000, owner)
    visit(cache, range(3), 100)
    assert cache.get("owned") == 2 and len(cache) == 4
    del owner
    assert cache.get("owned") is None


def test_a_change_that_was_interrupted_leaves_a_cache_usable(monkeypatch):
    cache = BoundedCache(10_000)
    visit(cache, range(5), 100)

    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache._random, "randrange", interrupted)
        with pytest.raises(KeyboardInterrupt):
            visit(cache, range(5, 50), 1000)
    visit(cache, range(50), 1000)
    assert cache.num_bytes <= cache.max_bytes and sorted(cache._keys) == sorted(cache._entries)


# --- circuits and observables ---


def test_circuits_visited_in_turn_are_lowered_once(monkeypatch):
    lowered = []
    monkeypatch.setattr(compiler, "lower", lambda circuit, lower=compiler.lower: lowered.append(1) or lower(circuit))
    circuits = [real_amplitudes(2, reps=1) for _ in range(300)]
    estimator = FusedEstimator()
    for _ in range(2):
        estimator.run([(circuit, "ZZ", np.ones(4)) for circuit in circuits]).result()
    assert len(lowered) == 300


def test_supports_visited_in_turn_are_planned_once(monkeypatch):
    planned, circuit = [], real_amplitudes(6, reps=1)
    make = compiler.fuse_program
    monkeypatch.setattr(compiler, "fuse_program", lambda *args: planned.append(1) or make(*args))
    observables = ["".join("Z" if number >> qubit & 1 else "I" for qubit in range(6)) for number in range(1, 41)]
    for _ in range(2):
        FusedEstimator().run([(circuit, observable, np.ones(12)) for observable in observables]).result()
    assert len(planned) <= 40


@pytest.mark.parametrize(
    "make",
    [
        lambda: SparsePauliOp(["ZZI", "XIX"], [0.5, 2.0]),
        lambda: Pauli("ZXY"),
        lambda: SparseObservable.from_list([("0X+", 0.5), ("ZZZ", 1.0)]),
        lambda: {"ZZI": 1.0, Pauli("XXX"): 0.25},
        lambda: ["ZZZ", SparsePauliOp("XXX"), Pauli("IYI")],
        lambda: [["ZZZ"], [SparsePauliOp(["XXX", "ZZZ"])]],
    ],
)
def test_equal_observables_in_new_objects_are_converted_once(make):
    first = coerce_observables(make())
    coerce_observables("III")
    assert coerce_observables(make()) is first
    assert coerce_observables(make()) is first  # also as the last conversion


def test_observables_of_other_content_or_kind_are_told_apart():
    kinds = [
        "ZZ", ["ZZ"], [["ZZ"]], Pauli("ZZ"), Pauli("-ZZ"), SparsePauliOp("ZZ"), SparsePauliOp("ZZ", [-1.0]),
        SparsePauliOp("ZX"), SparseObservable("ZZ"), SparseObservable("Z0"), {"ZZ": 1.0}, {"ZZ": -1.0}, ["ZZ", "ZX"],
    ]  # fmt: skip
    values = []
    for _ in range(2):
        for one in kinds:
            found = coerce_observables(one)
            values.append((found.shape, found.operators.coefficients.tobytes(), found.operators.letters.tobytes()))
    assert values[: len(kinds)] == values[len(kinds) :]
    assert [len(set(values)), len(kinds)] == [7, 13]


def test_an_operator_changed_in_place_is_another_one():
    operator = SparsePauliOp(["ZZ", "XX"], [1.0, 1.0])
    first = coerce_observables(operator)
    operator.coeffs[1] = 3.0
    assert coerce_observables(operator).operators.coefficients[1] == 3.0
    operator.coeffs[1] = 1.0
    assert coerce_observables(operator) is first


# --- the memory of the process ---


def question(num_qubits, observable=None):
    circuit = efficient_su2(num_qubits, reps=1)
    return circuit, observable or "Z" * num_qubits, np.linspace(0, 1, circuit.num_parameters)


def test_release_memory_frees_what_is_kept_and_changes_no_result():
    asked = question(10)
    before = FusedEstimator().run([asked]).result()[0].data.evs
    _, gradient = FusedEstimatorGradient().value_and_gradient(*asked)
    assert _cpu.kept_bytes() > 0 and len(compiler.COMPILED)
    release_memory()
    assert _cpu.kept_bytes() == 0 and not any(len(cache) for cache in caches._caches)
    assert FusedEstimator().run([asked]).result()[0].data.evs == before
    np.testing.assert_array_equal(FusedEstimatorGradient().value_and_gradient(*asked)[1], gradient)
    assert "release_memory" in qiskit_fused.__all__


def test_what_is_kept_stays_within_the_memory_limit_of_a_call():
    release_memory()
    largest, limit = 0, 4 * MB
    for number in range(12):
        observable = "I" * number + "Z" * (15 - number)
        FusedEstimator(num_threads=1).run([question(15, observable)]).result()
        largest = max(largest, _cpu.kept_bytes())
    assert largest > limit
    for number in range(12):
        observable = "I" * number + "Z" * (15 - number)
        FusedEstimator(num_threads=1, memory_limit=limit).run([question(15, observable)]).result()
        assert _cpu.kept_bytes() <= limit


def test_a_loop_over_one_plan_finds_its_workspace_again():
    release_memory()
    asked, kept = question(12), set()
    for _ in range(4):
        FusedEstimatorGradient(num_threads=1).value_and_gradient(*asked)
        kept.add(_cpu.kept_bytes())
    assert len(kept) == 1 and kept.pop() > 0


def test_plans_of_one_size_use_the_same_states():
    release_memory()
    for _ in range(6):
        FusedEstimator(num_threads=1).run([question(18)]).result()
    state, table = 16 << 18, 8 << 18
    assert _cpu.kept_bytes() < 2 * state + 6 * table


def test_what_is_kept_makes_room_where_free_memory_is_short(monkeypatch):
    release_memory()
    FusedEstimator(num_threads=1).run([question(20)]).result()
    kept = _cpu.kept_bytes()
    assert kept > 20 * MB
    monkeypatch.setattr(cpu, "free_memory", lambda: 16 * MB)
    monkeypatch.setattr(cpu, "_next_check", 0.0)
    FusedEstimator(num_threads=1).run([question(3)]).result()
    assert _cpu.kept_bytes() <= 9 * MB


MANY_CALLS = """
import numpy as np
from qiskit.circuit.library import efficient_su2
from qiskit.quantum_info import SparsePauliOp
from qiskit_fused import FusedEstimator, FusedEstimatorGradient

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

random, num_qubits = np.random.default_rng(0), 16
estimator, gradient = FusedEstimator(num_threads=1), FusedEstimatorGradient(num_threads=1)
ansatz = efficient_su2(num_qubits, reps=1)
values = random.random(ansatz.num_parameters)

def ask(number):
    if number % 3 == 0:  # a new observable: 24 diagonals of 512 KiB
        strings = ["".join(random.choice(list("IXYZ"), num_qubits)) for _ in range(24)]
        asked = ansatz, SparsePauliOp(strings, random.random(24)), values
    elif number % 3 == 1:  # a new circuit
        kept.append(efficient_su2(num_qubits, reps=1))
        asked = kept[-1], "Z" * num_qubits, values
    else:  # a circuit bound before it runs
        asked = ansatz.assign_parameters(random.random(len(values))), "Z" * num_qubits, []
    estimator.run([asked]).result()
    if len(asked[2]):
        gradient.value_and_gradient(*asked)

kept = []
ask(0), ask(1), ask(2)
before = resident()
for number in range(200):
    ask(number)
print(resident() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_two_hundred_calls_with_new_observables_and_circuits_take_bounded_memory():
    done = subprocess.run(
        [sys.executable, "-c", MANY_CALLS], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 350 * MB


def test_a_circuit_that_is_gone_leaves_the_cache():
    release_memory()
    circuit = real_amplitudes(3, reps=1)
    FusedEstimator().run([(circuit, "ZZZ", np.ones(6))]).result()
    assert len(compiler.COMPILED) == 1
    del circuit
    gc.collect()
    FusedEstimator().run([(real_amplitudes(2, reps=1), "ZZ", np.ones(4))]).result()
    assert len(compiler.COMPILED) == 1
