# SPDX-License-Identifier: Apache-2.0
"""FusedQuantumKernel has the values of the fidelity kernels of qiskit-machine-learning, and works where they work."""

import copy
import pickle
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.circuit.library import ZZFeatureMap, pauli_feature_map, zz_feature_map
from qiskit_machine_learning.algorithms import QSVC, QSVR, PegasosQSVC
from qiskit_machine_learning.exceptions import QiskitMachineLearningError
from qiskit_machine_learning.kernels import (
    BaseKernel,
    FidelityQuantumKernel,
    FidelityStatevectorKernel,
    TrainableFidelityStatevectorKernel,
    TrainableKernel,
)
from qiskit_machine_learning.kernels.algorithms import QuantumKernelTrainer
from qiskit_machine_learning.optimizers import COBYLA
from qiskit_machine_learning.utils.loss_functions import SVCLoss
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

from qiskit_fused import FusedProjectedQuantumKernel, FusedQuantumKernel, compile_circuit

RNG = np.random.default_rng(3)
FEATURES = zz_feature_map(2)
SAMPLES, OTHERS = RNG.normal(size=(12, 2)), RNG.normal(size=(5, 2))
SAMPLES[7] = SAMPLES[2]
OTHERS[3] = SAMPLES[1]
LABELS = (SAMPLES.sum(axis=1) > 0).astype(int)


def trainable(kind=FusedQuantumKernel, **arguments):
    """Return a kernel whose training parameters are named before and after its features."""
    first, last = Parameter("a"), Parameter("z")
    circuit = QuantumCircuit(2)
    circuit.ry(first, [0, 1])
    circuit.compose(FEATURES, inplace=True)
    circuit.ry(last, 0)
    circuit.compose(FEATURES, inplace=True)
    kernel = kind(feature_map=circuit, training_parameters=[last, first], **arguments)
    kernel.assign_training_parameters([0.3, -0.8])
    return kernel


@pytest.mark.parametrize("feature_map", [FEATURES, pauli_feature_map(2, paulis=["X", "YZ"])])
@pytest.mark.parametrize("others", [None, OTHERS, SAMPLES, OTHERS[0]], ids=["none", "others", "equal", "one"])
def test_values_are_those_of_qiskits_kernels(feature_map, others):
    fused = FusedQuantumKernel(feature_map=feature_map).evaluate(SAMPLES, others)
    exact = FidelityStatevectorKernel(feature_map=feature_map).evaluate(SAMPLES, others)
    assert fused.shape == exact.shape and fused.dtype == exact.dtype
    assert_allclose(fused, exact, atol=1e-13)
    assert_allclose(fused, FidelityQuantumKernel(feature_map=feature_map).evaluate(SAMPLES, others), atol=1e-7)
    assert (fused[exact == 1] == 1).all()


@pytest.mark.parametrize("others", [None, OTHERS], ids=["one", "two"])
def test_trainable_values_are_those_of_qiskits_kernel(others):
    fused, upstream = trainable(), trainable(TrainableFidelityStatevectorKernel)
    assert fused.num_features == upstream.num_features == 2 and fused.num_training_parameters == 2
    assert isinstance(fused, BaseKernel) and isinstance(fused, TrainableKernel)
    assert_allclose(fused.evaluate(SAMPLES, others), upstream.evaluate(SAMPLES, others), atol=1e-13)
    for kernel in (fused, upstream):
        kernel.assign_training_parameters({kernel.training_parameters[1]: 2.0})
    assert_array_equal(fused.parameter_values, [0.3, 2.0])
    assert_allclose(fused.evaluate(SAMPLES, others), upstream.evaluate(SAMPLES, others), atol=1e-13)


@pytest.mark.filterwarnings("ignore:The class ``qiskit.circuit.library.data_preparation:DeprecationWarning")
def test_a_feature_map_that_can_be_resized_is_adjusted_to_the_samples():
    samples = RNG.normal(size=(3, 4))
    fused = FusedQuantumKernel(feature_map=ZZFeatureMap(2))
    upstream = FidelityStatevectorKernel(feature_map=ZZFeatureMap(2))
    assert_allclose(fused.evaluate(samples), upstream.evaluate(samples), atol=1e-13)
    assert fused.num_features == 4


def test_a_changed_feature_map_and_changed_options_count_from_the_next_call_on():
    circuit = zz_feature_map(2)
    kernel = FusedQuantumKernel(feature_map=circuit)
    before = kernel.evaluate(SAMPLES)
    circuit.ry(1.3 * circuit.parameters[0], 0)
    after = kernel.evaluate(SAMPLES)
    assert_allclose(after, FidelityStatevectorKernel(feature_map=circuit).evaluate(SAMPLES), atol=1e-13)
    assert not np.allclose(before, after)
    kernel.options.dtype = "complex64"
    single = kernel.evaluate(SAMPLES)
    assert_allclose(single, after, atol=1e-5)
    assert (single != after).any()
    kernel.options = None
    assert_array_equal(kernel.evaluate(SAMPLES), after)


def test_a_compiled_circuit_is_a_feature_map():
    kernel = FusedQuantumKernel(feature_map=compile_circuit(FEATURES))
    assert_array_equal(kernel.evaluate(SAMPLES), FusedQuantumKernel(feature_map=FEATURES).evaluate(SAMPLES))


def test_samples_may_be_given_by_name():
    kernel = trainable()
    by_name = {parameter.name: SAMPLES[:, number] for number, parameter in enumerate(FEATURES.parameters)}
    assert_array_equal(
        kernel.evaluate(by_name, {FEATURES.parameters[0].vector: OTHERS}), kernel.evaluate(SAMPLES, OTHERS)
    )
    with pytest.raises(ValueError, match=r"x_vec has no values of 'x\[1\]'; give each parameter one"):
        kernel.evaluate({"x[0]": 0.1})


def test_one_sample_without_features_is_a_matrix_of_one_element():
    circuit = QuantumCircuit(1)
    circuit.h(0)
    assert FusedQuantumKernel(feature_map=circuit).evaluate([]).tolist() == [[1.0]]


def test_all_strategies_for_duplicates_give_the_same_matrix():
    kernels = [FusedQuantumKernel(feature_map=FEATURES, evaluate_duplicates=name) for name in ("all", "NONE")]
    expected = FusedQuantumKernel(feature_map=FEATURES).evaluate(SAMPLES)
    assert [kernel.evaluate_duplicates for kernel in kernels] == ["all", "none"]
    for kernel in kernels:
        assert_array_equal(kernel.evaluate(SAMPLES), expected)


class TestShots:
    def test_elements_are_means_of_draws(self):
        exact = FusedQuantumKernel(feature_map=FEATURES).evaluate(SAMPLES, OTHERS)
        kernel = FusedQuantumKernel(feature_map=FEATURES, shots=400, seed=5)
        means = np.mean([kernel.evaluate(SAMPLES, OTHERS) for _ in range(50)], axis=0)
        assert_allclose(means, exact, atol=5 * np.sqrt(0.25 / (400 * 50)))
        one = kernel.evaluate(SAMPLES, OTHERS)
        assert_allclose(one * 400, np.round(one * 400), atol=1e-9)
        assert one[1, 3] == 1  # equal samples

    def test_a_symmetric_matrix_stays_symmetric_with_ones_on_its_diagonal(self):
        noisy = FusedQuantumKernel(feature_map=FEATURES, shots=10, seed=1, enforce_psd=False).evaluate(SAMPLES)
        assert_array_equal(noisy, noisy.T)
        assert (np.diag(noisy) == 1).all() and noisy[2, 7] == 1
        assert np.linalg.eigvalsh(noisy)[0] < -1e-3

    def test_a_matrix_with_noise_becomes_the_closest_positive_semidefinite_matrix(self):
        noisy = FusedQuantumKernel(feature_map=FEATURES, shots=10, seed=1, enforce_psd=False)
        projected = FusedQuantumKernel(feature_map=FEATURES, shots=10, seed=1).evaluate(SAMPLES)
        values, vectors = np.linalg.eigh(noisy.evaluate(SAMPLES))
        assert_allclose(projected, vectors @ np.diag(values.clip(0)) @ vectors.T, atol=1e-13)
        assert np.linalg.eigvalsh(projected)[0] > -1e-14
        assert_array_equal(projected, projected.T)

    def test_a_seed_decides_the_sequence_of_draws_but_not_the_blocks(self, monkeypatch):
        first, second = (FusedQuantumKernel(feature_map=FEATURES, shots=100, seed=9) for _ in range(2))
        matrices = [first.evaluate(SAMPLES), first.evaluate(SAMPLES)]
        assert_array_equal(matrices, [second.evaluate(SAMPLES), second.evaluate(SAMPLES)])
        assert (matrices[0] != matrices[1]).any()
        first.options.seed = 10
        assert (first.evaluate(SAMPLES) != matrices[0]).any()
        limited = FusedQuantumKernel(feature_map=FEATURES, shots=100, seed=9, memory_limit=12_000)
        assert_array_equal(limited.evaluate(SAMPLES), matrices[0])

    def test_gradients_have_no_noise(self):
        exact, noisy = trainable(), trainable(shots=10, seed=1)
        for found, expected in zip(
            *(kernel.value_and_vjp(SAMPLES, None, np.ones((12, 12))) for kernel in (exact, noisy))
        ):
            assert (found is None and expected is None) or (found == expected).all()

    @pytest.mark.parametrize("shots", [0, -1, 1.5, True, "10"])
    def test_bad_numbers_of_shots_are_refused(self, shots):
        with pytest.raises((TypeError, ValueError), match="shots must be"):
            FusedQuantumKernel(feature_map=FEATURES, shots=shots)


class TestModels:
    def test_qsvc_and_qsvr_predict_as_with_qiskits_kernel(self):
        fused, upstream = FusedQuantumKernel(feature_map=FEATURES), FidelityStatevectorKernel(feature_map=FEATURES)
        predictions = [QSVC(quantum_kernel=kernel).fit(SAMPLES, LABELS).predict(OTHERS) for kernel in (fused, upstream)]
        assert_array_equal(*predictions)
        values = [
            QSVR(quantum_kernel=kernel).fit(SAMPLES, SAMPLES[:, 0]).predict(OTHERS) for kernel in (fused, upstream)
        ]
        assert_allclose(*values, atol=1e-6)

    def test_pegasos_qsvc_takes_the_same_steps(self):
        def alphas(kernel):
            return PegasosQSVC(quantum_kernel=kernel, num_steps=40, seed=1).fit(SAMPLES, LABELS)._alphas

        kinds = FusedQuantumKernel, FidelityStatevectorKernel
        assert alphas(kinds[0](feature_map=FEATURES)) == alphas(kinds[1](feature_map=FEATURES))

    def test_sklearns_svc_takes_evaluate_and_is_cloned(self):
        kernel = FusedQuantumKernel(feature_map=FEATURES)
        model = clone(SVC(kernel=kernel.evaluate)).fit(SAMPLES, LABELS)
        precomputed = SVC(kernel="precomputed").fit(kernel.evaluate(SAMPLES), LABELS)
        assert_allclose(
            model.decision_function(OTHERS), precomputed.decision_function(kernel.evaluate(OTHERS, SAMPLES)), atol=1e-12
        )

    def test_a_grid_search_with_processes_finds_the_scores_of_one_process(self):
        model = QSVC(quantum_kernel=trainable())
        searches = [
            GridSearchCV(clone(model), {"C": [0.1, 10.0]}, cv=2, n_jobs=jobs).fit(SAMPLES, LABELS) for jobs in (1, 2)
        ]
        assert_array_equal(*(search.cv_results_["mean_test_score"] for search in searches))
        assert not np.isnan(searches[0].cv_results_["mean_test_score"]).any()

    def test_a_quantum_kernel_trainer_trains_the_kernel(self):
        kernel = trainable()
        trainer = QuantumKernelTrainer(kernel, optimizer=COBYLA(maxiter=12), initial_point=[0.1, 0.2])
        result = trainer.fit(SAMPLES, LABELS)
        assert_array_equal(result.optimal_point, kernel.parameter_values)
        # The paths of two optimisers part where rounding errors differ, so the loss is compared at one point.
        upstream = trainable(TrainableFidelityStatevectorKernel)
        expected = SVCLoss().evaluate(result.optimal_point, upstream, SAMPLES, LABELS)
        assert_allclose(result.optimal_value, expected, atol=1e-6)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy, lambda kernel: pickle.loads(pickle.dumps(kernel))])
def test_copies_have_the_same_values_and_values_of_their_own(duplicate):
    kernel = trainable(dtype="complex64", shots=50, seed=4)
    kernel.evaluate(SAMPLES)
    copied = duplicate(kernel)
    assert repr(copied) == repr(kernel)
    assert_array_equal(
        copied.value_and_vjp(SAMPLES, OTHERS, np.ones((12, 5))).values,
        kernel.value_and_vjp(SAMPLES, OTHERS, np.ones((12, 5))).values,
    )
    if duplicate is not copy.copy:
        assert_array_equal(copied.evaluate(SAMPLES), kernel.evaluate(SAMPLES))  # the draws go on alike
        copied.assign_training_parameters([0.0, 0.0])
        assert_array_equal(kernel.parameter_values, [0.3, -0.8])


class TestGradients:
    @pytest.mark.parametrize("others", [None, OTHERS], ids=["one", "two"])
    def test_gradients_agree_with_finite_differences(self, others):
        kernel, step = trainable(), 1e-6
        cotangents = RNG.normal(size=(12, 12 if others is None else 5))
        found = kernel.value_and_vjp(SAMPLES, others, cotangents, input_gradients=True)
        assert_allclose(found.values, kernel.evaluate(SAMPLES, others), atol=1e-13)
        for number in range(2):
            losses = []
            for sign in (step, -step):
                kernel.assign_training_parameters(np.array([0.3, -0.8]) + sign * np.eye(2)[number])
                losses.append((cotangents * kernel.evaluate(SAMPLES, others)).sum())
            assert_allclose(found.weights[number], (losses[0] - losses[1]) / (2 * step), atol=1e-7)
        assert found.inputs.shape == SAMPLES.shape
        assert (found.others is None) == (others is None)

    def test_features_have_gradients_only_where_they_are_asked_for(self):
        found = trainable().value_and_vjp(SAMPLES, OTHERS, np.ones((12, 5)))
        assert found.inputs is None and found.others is None and found.weights.shape == (2,)

    def test_a_kernel_without_training_parameters_has_gradients_of_features(self):
        kernel, step = FusedQuantumKernel(feature_map=FEATURES), 1e-6
        found = kernel.value_and_vjp(OTHERS, None, lambda matrix: np.triu(np.ones_like(matrix)), input_gradients=True)
        ahead, behind = OTHERS.copy(), OTHERS.copy()
        ahead[2, 1] += step
        behind[2, 1] -= step
        slope = (np.triu(kernel.evaluate(ahead)).sum() - np.triu(kernel.evaluate(behind)).sum()) / (2 * step)
        assert_allclose(found.inputs[2, 1], slope, atol=1e-7)
        assert found.weights.shape == (0,)

    def test_equal_samples_as_two_sets_have_gradients_of_their_own(self):
        cotangents = RNG.normal(size=(5, 5))
        one = trainable().value_and_vjp(OTHERS, None, cotangents, input_gradients=True)
        two = trainable().value_and_vjp(OTHERS, OTHERS, cotangents, input_gradients=True)
        assert_allclose(one.inputs, two.inputs + two.others, atol=1e-12)
        assert_allclose(one.weights, two.weights, atol=1e-12)


class TestErrors:
    def test_arguments_that_are_no_options_are_refused(self):
        with pytest.raises(
            TypeError,
            match=r"unknown option 'fidelity'; allowed: .*; the kernel simulates all states .* leave it out",
        ):
            FusedQuantumKernel(feature_map=FEATURES, fidelity=None)

    def test_a_feature_map_is_needed(self):
        with pytest.raises(QiskitMachineLearningError, match="please provide a feature map"):
            FusedQuantumKernel()
        with pytest.raises(TypeError, match="feature_map must be a QuantumCircuit, not str"):
            FusedQuantumKernel(feature_map="zz")

    def test_training_parameters_are_in_the_feature_map(self):
        with pytest.raises(ValueError, match=re.escape("training_parameters contain 'a', which are not in")):
            FusedQuantumKernel(feature_map=FEATURES, training_parameters=[Parameter("a")])
        with pytest.raises(ValueError, match=r"training_parameters contain .*, which are not in"):
            FusedQuantumKernel(feature_map=FEATURES, training_parameters=[list(FEATURES.parameters)])

    def test_training_parameters_need_values(self):
        first = next(iter(FEATURES.parameters))
        kernel = FusedQuantumKernel(feature_map=FEATURES, training_parameters=first)
        with pytest.raises(QiskitMachineLearningError, match="has not been bound"):
            kernel.evaluate(SAMPLES[:, :1])
        kernel.assign_training_parameters([np.nan])
        with pytest.raises(ValueError, match=re.escape(f"the value of parameter '{first.name}' is nan")):
            kernel.evaluate(SAMPLES[:, :1])

    @pytest.mark.parametrize(
        ("samples", "others", "text"),
        [
            (SAMPLES[:, :1], None, "x_vec has 1 dimensions, but feature map has 2"),
            (SAMPLES, OTHERS[:, :1], "x_vec has 2 dimensions, but y_vec has 1"),
            ([[0.1, np.nan]], None, "in row 0 of x_vec is nan"),
            (SAMPLES, [[0.1, 0.2], [np.inf, 0.3]], "in row 1 of y_vec is inf"),
            (np.zeros((1, 1, 2)), None, "x_vec has shape (1, 1, 2); allowed: (samples, features), or (features,)"),
            (SAMPLES, 0.5, "y_vec has shape (); allowed: (samples, features), or (features,)"),
        ],
    )
    def test_bad_samples_are_named(self, samples, others, text):
        with pytest.raises(ValueError, match=re.escape(text)):
            FusedQuantumKernel(feature_map=FEATURES).evaluate(samples, others)

    @pytest.mark.parametrize("kind", [FusedQuantumKernel, FusedProjectedQuantumKernel])
    def test_a_sample_without_an_angle_is_named_by_its_argument(self, kind):
        circuit = QuantumCircuit(1)
        circuit.ry(Parameter("a") ** 0.5, 0)
        samples, wrong = [[0.0], [1.0], [2.0]], [[1.0], [1.0], [-2.0]]
        with pytest.raises(ValueError, match="row 2 of x_vec"):
            kind(feature_map=circuit).evaluate(wrong)
        with pytest.raises(ValueError, match="row 2 of y_vec"):
            kind(feature_map=circuit).evaluate(samples, wrong)

    def test_samples_that_are_no_real_numbers_are_refused(self):
        with pytest.raises(TypeError, match="x_vec is None; allowed: real numbers, one for each feature of a sample"):
            FusedQuantumKernel(feature_map=FEATURES).evaluate(None)

    def test_an_unknown_strategy_for_duplicates_is_refused(self):
        with pytest.raises(ValueError, match="evaluate_duplicates is 'some'; allowed: 'all', 'off_diagonal', 'none'"):
            FusedQuantumKernel(feature_map=FEATURES, evaluate_duplicates="some")


def test_a_kernel_shows_its_numbers_and_settings():
    kernel = trainable(shots=10, enforce_psd=False, num_threads=1)
    assert repr(kernel) == (
        "FusedQuantumKernel(2 qubits, 2 features, 2 training parameters, shots=10, enforce_psd=False, num_threads=1)"
    )
