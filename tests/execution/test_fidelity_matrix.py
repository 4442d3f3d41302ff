# SPDX-License-Identifier: Apache-2.0
"""Matrices of fidelities do not depend on the memory limit, on workers, or on how they are cut."""

import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.circuit.library import zz_feature_map

from qiskit_fused import FusedOptions, compile_circuit
from qiskit_fused.execution import executor, fidelity_matrix, fidelity_sizes
from qiskit_fused.execution.fidelity_matrix import FidelityMatrix
from qiskit_fused.execution.fidelity_sizes import Meter, check_room
from qiskit_fused.execution.statevectors import FinalStates

CIRCUIT = compile_circuit(zz_feature_map(3, reps=1))
LEFT, RIGHT = np.random.default_rng(0).normal(size=(90, 3)), np.random.default_rng(1).normal(size=(70, 3))
COTANGENTS = np.random.default_rng(2).normal(size=(90, 90))
WEIGHTS = COTANGENTS + COTANGENTS.T - 2 * np.diag(np.diag(COTANGENTS))


def matrix_of(right=None, gradient=False, **options):
    rows = FinalStates(CIRCUIT, FusedOptions(**options), only_active=True)
    return FidelityMatrix(rows, LEFT, right, gradient)


def filled(matrix, num_columns, watch=None):
    values = np.full((len(LEFT), num_columns), np.nan)
    matrix.fill(values, watch)
    return values


@pytest.fixture(scope="module")
def expected():
    states = FinalStates(CIRCUIT, FusedOptions(), only_active=True)
    left, right = states.states(LEFT), states.states(RIGHT)
    return abs(left.conj() @ left.T) ** 2, abs(left.conj() @ right.T) ** 2


@pytest.fixture
def small_portions(monkeypatch):
    """Cut small matrices into portions for workers."""
    monkeypatch.setattr(executor, "_MIN_WORK", 1000)
    monkeypatch.setattr(fidelity_sizes, "_EXTRA_SHARE", 0)


LIMITS = [None, "30kB", 14_000, 13_000]


@pytest.mark.parametrize("limit", LIMITS)
def test_a_memory_limit_changes_a_matrix_by_rounding_errors_alone(limit, dtype, expected):
    atol = 1e-14 if dtype == "complex128" else 1e-6
    symmetric = filled(matrix_of(dtype=dtype, memory_limit=limit), 90)
    np.testing.assert_allclose(symmetric, expected[0], atol=atol)
    assert (symmetric == symmetric.T).all() and (np.diag(symmetric) == 1).all()
    np.testing.assert_allclose(filled(matrix_of(RIGHT, dtype=dtype, memory_limit=limit), 70), expected[1], atol=atol)


@pytest.mark.parametrize("limit", LIMITS[1:])
def test_a_memory_limit_changes_gradients_by_rounding_errors_alone(limit):
    found = []
    for memory_limit in (None, limit):
        symmetric = matrix_of(gradient=True, memory_limit=memory_limit)
        filled(symmetric, 90)
        two = matrix_of(RIGHT, gradient=True, memory_limit=memory_limit)
        filled(two, 70)
        found.append((symmetric.gradients(WEIGHTS)[0], *two.gradients(COTANGENTS[:, :70], of_right=True)))
    for actual, expected in zip(*found):
        np.testing.assert_allclose(actual, expected, atol=1e-11)


def test_gradients_need_no_values_first():
    matrix = matrix_of(RIGHT, gradient=True)
    found = matrix.gradients(COTANGENTS[:, :70], of_right=True)
    filled(matrix, 70)
    for actual, expected in zip(found, matrix.gradients(COTANGENTS[:, :70], of_right=True)):
        np.testing.assert_allclose(actual, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "limit"),
    [("threads", None), ("threads", 14_000), pytest.param("processes", 14_000, marks=pytest.mark.slow)],
)
def test_workers_compute_the_same_matrix(kind, limit, expected, small_portions):
    spawn = {"mp_context": multiprocessing.get_context("spawn")} if kind == "processes" else {}
    with (ThreadPoolExecutor if kind == "threads" else ProcessPoolExecutor)(2, **spawn) as pool:
        matrix = matrix_of(executor=pool, memory_limit=limit)
        assert len(matrix._portions) > 8
        symmetric = filled(matrix, 90)
        np.testing.assert_allclose(symmetric, expected[0], atol=1e-14)
        assert (symmetric == symmetric.T).all() and (np.diag(symmetric) == 1).all()
        two = filled(matrix_of(RIGHT, executor=pool, memory_limit=limit), 70)
        np.testing.assert_allclose(two, expected[1], atol=1e-14)


def test_a_small_matrix_is_not_sent_to_workers():
    with ThreadPoolExecutor(2) as pool:
        assert matrix_of(executor=pool)._portions == []


def test_states_that_do_not_fit_are_compared_on_workers():
    with ThreadPoolExecutor(2) as pool:
        assert len(matrix_of(executor=pool, memory_limit=14_000)._portions) > 1


@pytest.mark.parametrize("limit", [None, 14_000])
@pytest.mark.parametrize("right", [None, RIGHT], ids=["symmetric", "two"])
def test_progress_rises_to_the_whole_work(right, limit, monkeypatch):
    seen, meters = [], []
    monkeypatch.setattr(fidelity_matrix, "Meter", lambda *arguments: meters.append(Meter(*arguments)) or meters[-1])
    matrix, watch = matrix_of(right, gradient=True, memory_limit=limit), lambda done, total: seen.append(done / total)
    filled(matrix, 90 if right is None else 70, watch)
    assert seen == sorted(seen)
    seen.clear()
    matrix.gradients(WEIGHTS if right is None else COTANGENTS[:, :70], right is not None, watch)
    assert seen == sorted(seen)
    assert all(meter._done > 0.85 * meter._whole for meter in meters) and len(meters) == 2


def test_a_watch_ends_the_work():
    with pytest.raises(RuntimeError, match=re.escape("the evaluation was cancelled.")):
        filled(matrix_of(), 90, lambda done, total: True)


@pytest.mark.parametrize("limit", [None, 8000])
def test_a_row_error_names_the_row_of_its_side(limit):
    parameter = Parameter("a")
    circuit = QuantumCircuit(1)
    circuit.ry(parameter**0.5, 0)
    rows = FinalStates(compile_circuit(circuit), FusedOptions(memory_limit=limit), only_active=True, with_phase=False)
    wrong, right = np.r_[np.ones(99), -2.0][:, None], np.ones((100, 1))
    for sides, text in (
        ((wrong, None), "row left 99 "),
        ((wrong, right), "row left 99 "),
        ((right, wrong), "row right 99 "),
    ):
        names = (lambda row: f"left {row}"), (lambda row: f"right {row}")
        with pytest.raises(ValueError, match=text):
            FidelityMatrix(rows, *sides, names=names).fill(np.empty((100, 100)))


def test_a_matrix_that_does_not_fit_the_free_memory_is_refused():
    with pytest.raises(MemoryError, match="10,000,000 x 10,000,000 fidelities takes 728 TiB"):
        check_room(10_000_000, 10_000_000)
