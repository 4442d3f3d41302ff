# SPDX-License-Identifier: Apache-2.0
"""FusedProjectedQuantumKernel is a Gaussian kernel of expectation values that works where fidelity kernels work."""

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from qiskit.circuit.library import zz_feature_map
from qiskit.quantum_info import DensityMatrix, SparsePauliOp, partial_trace
from qiskit_machine_learning.algorithms import QSVC
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV

from qiskit_fused import FusedEstimator, FusedProjectedQuantumKernel, compile_circuit

FEATURES = zz_feature_map(2)
SAMPLES, OTHERS = np.random.default_rng(1).normal(size=(10, 2)), np.random.default_rng(2).normal(size=(4, 2))
LABELS = (SAMPLES.sum(axis=1) > 0).astype(int)


@pytest.mark.parametrize("others", [None, OTHERS], ids=["one", "two"])
def test_values_are_gaussian_functions_of_density_matrices(others):
    def reduced(samples):
        states = [DensityMatrix(FEATURES.assign_parameters(row)) for row in samples]
        return np.array([[partial_trace(state, [1 - qubit]).data for qubit in range(2)] for state in states])

    left, right = reduced(SAMPLES), reduced(SAMPLES if others is None else others)
    expected = np.exp(-0.5 * (abs(left[:, None] - right) ** 2).sum(axis=(2, 3, 4)))
    kernel = FusedProjectedQuantumKernel(feature_map=FEATURES, gamma=0.5)
    assert_allclose(kernel.evaluate(SAMPLES, others), expected, atol=1e-13)


def test_given_observables_are_the_features_of_sklearns_kernel():
    observables = ["ZI", SparsePauliOp(["XX", "IY"], [1.0, 0.5])]
    kernel = FusedProjectedQuantumKernel(feature_map=compile_circuit(FEATURES), observables=observables, gamma=2.0)
    job = FusedEstimator().run([(FEATURES, observable, SAMPLES) for observable in observables])
    values = np.transpose([result.data.evs for result in job.result()])
    assert_allclose(kernel.evaluate(SAMPLES), rbf_kernel(values, gamma=2.0), atol=1e-12)
    assert kernel.observables is observables


def test_a_changed_factor_counts_from_the_next_call_on():
    kernel = FusedProjectedQuantumKernel(feature_map=FEATURES)
    before = kernel.evaluate(SAMPLES)
    kernel.gamma = 3.0
    assert_allclose(kernel.evaluate(SAMPLES), before**3, atol=1e-13)
    with pytest.raises(ValueError, match="gamma is -1; allowed: a finite number above 0"):
        kernel.gamma = -1
    assert repr(kernel) == "FusedProjectedQuantumKernel(2 qubits, 2 features, 0 training parameters, gamma=3.0)"


def test_classifiers_and_grid_searches_take_the_kernel():
    kernel = FusedProjectedQuantumKernel(feature_map=FEATURES)
    search = GridSearchCV(QSVC(quantum_kernel=kernel), {"C": [1.0, 10.0]}, cv=2).fit(SAMPLES, LABELS)
    assert search.predict(OTHERS).shape == (4,)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda kernel: pickle.loads(pickle.dumps(kernel))])
def test_copies_have_the_same_values(duplicate):
    kernel = FusedProjectedQuantumKernel(feature_map=FEATURES, observables=["ZI"], gamma=0.5)
    expected = kernel.evaluate(SAMPLES)
    assert_array_equal(duplicate(kernel).evaluate(SAMPLES), expected)


def test_gradients_of_training_parameters_agree_with_finite_differences():
    kernel = FusedProjectedQuantumKernel(feature_map=FEATURES, training_parameters=FEATURES.parameters[0])
    samples, cotangents, step = SAMPLES[:, :1], np.random.default_rng(3).normal(size=(10, 10)), 1e-6
    losses = []
    for value in (0.4 + step, 0.4 - step, 0.4):
        kernel.assign_training_parameters([value])
        losses.append((cotangents * kernel.evaluate(samples)).sum())
    found = kernel.value_and_vjp(samples, None, cotangents)
    assert_allclose(found.weights, (losses[0] - losses[1]) / (2 * step), atol=1e-7)
