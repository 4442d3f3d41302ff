# SPDX-License-Identifier: Apache-2.0
"""FusedStateFidelity has the values of ComputeUncompute, and works where it works."""

import re

import numpy as np
import pytest
import qiskit_algorithms.optimizers
import qiskit_algorithms.utils
import qiskit_machine_learning.optimizers
import qiskit_machine_learning.utils
from numpy.testing import assert_allclose, assert_array_equal
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.circuit.library import CUGate, efficient_su2, real_amplitudes, zz_feature_map
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import Operator, SparsePauliOp, Statevector
from qiskit_algorithms.optimizers import L_BFGS_B
from qiskit_algorithms.time_evolvers import PVQD, TimeEvolutionProblem
from qiskit_algorithms.utils import algorithm_globals
from qiskit_machine_learning.kernels import FidelityQuantumKernel, FidelityStatevectorKernel
from qiskit_machine_learning.primitives import QMLSampler
from qiskit_machine_learning.state_fidelities import BaseStateFidelity, ComputeUncompute

from qiskit_fused import FusedEstimator, FusedStateFidelity

FIRST, SECOND = real_amplitudes(2, reps=1), efficient_su2(2, reps=1)
RNG = np.random.default_rng(6)
X, Y, Z = RNG.normal(size=(5, 4)), RNG.normal(size=(5, 8)), RNG.normal(size=(5, 4))
Z[3] = X[3]


def results(fidelity, *arguments):
    return fidelity.run(*arguments).result()


@pytest.mark.parametrize("local", [False, True], ids=["global", "local"])
@pytest.mark.parametrize(
    "arguments",
    [
        ([FIRST] * 5, [FIRST] * 5, X, Z),
        ([FIRST] * 5, [SECOND] * 5, X.tolist(), Y),
        (
            [FIRST, SECOND, FIRST, SECOND],
            [FIRST, SECOND, SECOND, FIRST],
            [X[0], Y[0], X[1], Y[1]],
            [X[2], Y[2], Y[3], X[3]],
        ),
        (FIRST, SECOND, X[0], Y[0]),
        (FIRST.assign_parameters(X[0]), FIRST, None, Z[0]),
        (FIRST.assign_parameters(X[0]), SECOND.assign_parameters(Y[0])),
    ],
    ids=["one circuit", "two circuits", "mixed", "one pair", "one bound", "both bound"],
)
def test_values_are_those_of_compute_uncompute(arguments, local, device):
    found = results(FusedStateFidelity(local=local, device=device), *arguments)
    expected = results(ComputeUncompute(QMLSampler(), local=local), *arguments)
    assert_allclose(found.fidelities, expected.fidelities, atol=1e-9)
    assert found.fidelities == found.raw_fidelities and len(found.metadata) == len(found.fidelities)
    assert isinstance(found.fidelities, list)


def test_local_fidelities_take_controlled_gates_whose_inverses_by_qiskit_are_wrong():
    inner, circuit = QuantumCircuit(1), QuantumCircuit(3)
    inner.rx(Parameter("a"), 0)
    circuit.h([0, 1, 2])
    circuit.append(inner.to_gate().control(1), [0, 1])
    circuit.append(CUGate(0.3, 0.4, 0.5, Parameter("b")).control(1), [0, 1, 2])
    rows = np.array([[0.3, 0.9], [1.4, -0.7]])
    first, second = (Operator(circuit.assign_parameters(row)) for row in rows)
    state = Statevector.from_int(0, 8).evolve(first).evolve(second.adjoint())
    expected = np.mean([state.probabilities([qubit])[0] for qubit in range(3)])
    found = results(FusedStateFidelity(local=True), circuit, circuit, rows[0], rows[1])
    assert_allclose(found.fidelities, expected, atol=1e-12)


def test_values_may_be_given_by_name():
    circuits = [FIRST, SECOND]
    rows = [dict(zip(FIRST.parameters, X[0])), dict(zip(SECOND.parameters, Y[0]))]
    expected = results(FusedStateFidelity(), circuits, circuits[::-1], [X[0], Y[0]], [Y[0], X[0]]).fidelities
    assert results(FusedStateFidelity(), circuits, circuits[::-1], rows, rows[::-1]).fidelities == expected
    by_vector = {FIRST.parameters[0].vector: X}
    found = results(FusedStateFidelity(), [FIRST] * 5, [FIRST] * 5, by_vector, Z).fidelities
    assert found == results(FusedStateFidelity(), [FIRST] * 5, [FIRST] * 5, X, Z).fidelities


def test_equal_rows_of_one_circuit_have_exactly_one():
    assert results(FusedStateFidelity(dtype="complex64"), [FIRST] * 5, [FIRST] * 5, X, Z).fidelities[3] == 1.0


def test_circuits_with_measurements_are_not_changed():
    measured = FIRST.copy()
    measured.measure_all()
    before = measured.copy()
    for local in (False, True):
        found = results(FusedStateFidelity(local=local), measured, FIRST, X[0], Z[0])
        expected = results(FusedStateFidelity(local=local), FIRST, FIRST, X[0], Z[0])
        assert_allclose(found.fidelities, expected.fidelities, atol=1e-13)
    assert measured == before


@pytest.mark.parametrize("local", [False, True], ids=["global", "local"])
def test_a_feature_map_that_is_no_equal_object_has_the_same_values(local):
    fidelity = FusedStateFidelity(local=local)
    one = results(fidelity, [FIRST] * 5, [FIRST] * 5, X, Z).fidelities
    assert_allclose(results(fidelity, [FIRST.copy()] * 5, [FIRST] * 5, X, Z).fidelities, one, atol=1e-13)


def test_fidelity_quantum_kernel_takes_it():
    circuit, samples = zz_feature_map(2), RNG.normal(size=(8, 2))
    kernel = FidelityQuantumKernel(feature_map=circuit, fidelity=FusedStateFidelity())
    assert_allclose(
        kernel.evaluate(samples), FidelityStatevectorKernel(feature_map=circuit).evaluate(samples), atol=1e-12
    )


@pytest.mark.parametrize("library", [qiskit_algorithms, qiskit_machine_learning], ids=lambda library: library.__name__)
def test_qnspsa_takes_the_steps_that_it_takes_with_compute_uncompute(library):
    """Both libraries have a QNSPSA, with random directions of its own."""

    def minimize(estimator, fidelity):
        def loss(point):
            return float(estimator.run([(FIRST, "ZZ", point)]).result()[0].data.evs)

        def overlap(left, right):
            left, right = (np.reshape(values, (-1, 4)) for values in (left, right))
            return np.array(results(fidelity, [FIRST] * len(left), [FIRST] * len(left), left, right).fidelities)

        library.utils.algorithm_globals.random_seed = 4
        points = []
        optimizer = library.optimizers.QNSPSA(
            overlap,
            maxiter=5,
            learning_rate=0.05,
            perturbation=0.05,
            callback=lambda _, point, *rest: points.append(point),
        )
        return optimizer.minimize(loss, np.ones(4)), points

    found, points = minimize(FusedEstimator(), FusedStateFidelity())
    expected, other_points = minimize(StatevectorEstimator(), ComputeUncompute(QMLSampler()))
    assert len(points) == 5
    assert_allclose(points, other_points, atol=1e-7)
    assert_allclose(found.fun, expected.fun, atol=1e-7)


def test_pvqd_evolves_with_it():
    hamiltonian, ansatz = SparsePauliOp(["ZZ", "IX", "XI"], [0.1, 1, 1]), efficient_su2(2, reps=1)
    start = np.zeros(ansatz.num_parameters)
    algorithm_globals.random_seed = 2  # PVQD begins near a stationary point, at a point that it draws
    evolver = PVQD(FusedStateFidelity(), ansatz, start, FusedEstimator(), L_BFGS_B(maxiter=20), num_timesteps=2)
    result = evolver.evolve(TimeEvolutionProblem(hamiltonian, 0.1, aux_operators=[hamiltonian]))
    assert len(result.fidelities) == 3 and min(result.fidelities) > 0.999


class TestShots:
    def test_fidelities_are_means_of_draws(self):
        exact = np.array(results(FusedStateFidelity(), [FIRST] * 5, [FIRST] * 5, X, Z).fidelities)
        fidelity = FusedStateFidelity(shots=200, seed=3)
        found = np.array([results(fidelity, [FIRST] * 5, [FIRST] * 5, X, Z).fidelities for _ in range(100)])
        assert_allclose(found.mean(axis=0), exact, atol=5 * np.sqrt(0.25 / 20_000))
        assert (found[:, 3] == 1).all()

    def test_a_seed_decides_the_sequence_of_draws(self):
        fidelities = [FusedStateFidelity(shots=50, seed=2) for _ in range(2)]
        runs = [[results(fidelity, FIRST, SECOND, X[0], Y[0]).fidelities for _ in range(6)] for fidelity in fidelities]
        assert runs[0] == runs[1] and len({tuple(run) for run in runs[0]}) > 1

    def test_shots_of_a_run_go_before_those_of_the_object(self):
        found = FusedStateFidelity(shots=5).run(FIRST, SECOND, X[0], Y[0], shots=1).result()
        assert found.fidelities[0] in (0.0, 1.0) and found.metadata == [{"shots": 1}]


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (([FIRST], [FIRST] * 2, X, X), "the lists of circuits have the lengths 1 and 2; allowed: equal lengths."),
            (([], []), "there are no circuits; allowed: at least one pair."),
            ((FIRST, QuantumCircuit(3), X[0]), "The number of qubits for the first circuit (2) and second circuit (3)"),
            ((FIRST, FIRST, X[0]), "values_2 are None; allowed: 4 values for each pair of circuits."),
            ((FIRST, FIRST, X[0], X[0, :3]), "values_2 have shape (1, 3) for 1 pairs of circuits with 4 parameters"),
            (([FIRST] * 2, [FIRST] * 2, X, X[:2]), "values_1 have shape (5, 4) for 2 pairs"),
            (([FIRST] * 2, [FIRST] * 2, X[:2], [X[0], X[0] * np.nan]), "in row 1 is nan"),
        ],
    )
    def test_bad_arguments_are_named(self, arguments, text):
        with pytest.raises(ValueError, match=re.escape(text)):
            FusedStateFidelity().run(*arguments)

    @pytest.mark.parametrize("values", [0.5, {0.5}, iter([0.5])], ids=["number", "set", "iterator"])
    def test_values_that_are_no_rows_are_refused(self, values):
        with pytest.raises(TypeError, match=r"values_2 is .*; allowed: a list or an array with a row of values for"):
            FusedStateFidelity().run(FIRST, FIRST, X[0], values)

    def test_unknown_options_are_refused(self):
        with pytest.raises(
            TypeError,
            match=r"unknown option 'sampler'; allowed: .*; the fidelity simulates all states itself, so leave",
        ):
            FusedStateFidelity(sampler=None)


def test_an_object_shows_its_settings_and_changes_its_options():
    fidelity = FusedStateFidelity(local=True, shots=10, num_threads=1)
    assert isinstance(fidelity, BaseStateFidelity)
    assert repr(fidelity) == "FusedStateFidelity(local=True, shots=10, num_threads=1)"
    fidelity.options = {"dtype": "complex64"}
    assert fidelity.options.dtype == "complex64"


def test_a_job_shows_progress(monkeypatch):
    monkeypatch.setattr("qiskit_fused.execution.progress._INTERVAL", 0)
    calls = []
    fidelity = FusedStateFidelity(progress=lambda done, total: calls.append((done, total)))
    results(fidelity, [FIRST, FIRST], [FIRST, SECOND], [X[0], X[1]], [Z[0], Y[1]])
    done, totals = zip(*calls)
    assert done[0] == 0 and done[-1] == totals[0] and list(done) == sorted(done) and len(set(totals)) == 1
    assert_array_equal(totals, totals[0])
