# SPDX-License-Identifier: Apache-2.0
"""`accelerate` makes the kernels of models FusedQuantumKernels, with the same values, noise and training parameters."""

import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from qiskit.circuit import QuantumCircuit
from qiskit.circuit.library import zz_feature_map
from qiskit.primitives import StatevectorSampler
from qiskit_machine_learning.algorithms import QSVC, PegasosQSVC
from qiskit_machine_learning.kernels import (
    FidelityQuantumKernel,
    FidelityStatevectorKernel,
    TrainableFidelityQuantumKernel,
    TrainableFidelityStatevectorKernel,
)
from qiskit_machine_learning.kernels.algorithms import QuantumKernelTrainer
from qiskit_machine_learning.primitives import QMLSampler
from qiskit_machine_learning.state_fidelities import ComputeUncompute
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import SVC

from qiskit_fused import (
    FusedProjectedQuantumKernel,
    FusedQuantumKernel,
    FusedSampler,
    FusedStateFidelity,
    UnsupportedInstruction,
    accelerate,
)

FEATURES = zz_feature_map(2)
SAMPLES = np.random.default_rng(2).normal(size=(10, 2))
LABELS = (SAMPLES.sum(axis=1) > 0).astype(int)
KERNELS = [FidelityQuantumKernel, FidelityStatevectorKernel]
TRAINABLE = [TrainableFidelityQuantumKernel, TrainableFidelityStatevectorKernel]


@pytest.mark.parametrize("kind", KERNELS + TRAINABLE)
def test_a_kernel_becomes_a_fused_kernel_with_the_same_values(kind):
    arguments = {"training_parameters": FEATURES.parameters[:1]} if kind in TRAINABLE else {}
    kernel = kind(feature_map=FEATURES, enforce_psd=False, **arguments)
    samples = SAMPLES[:, 1:] if kind in TRAINABLE else SAMPLES
    if kind in TRAINABLE:
        kernel.assign_training_parameters([0.7])
    expected = kernel.evaluate(samples)
    assert accelerate(kernel, dtype="complex64") is kernel
    assert type(kernel) is FusedQuantumKernel and not kernel.enforce_psd and kernel.options.dtype == "complex64"
    assert_allclose(kernel.evaluate(samples), expected, atol=2e-6)
    if kind in TRAINABLE:
        kernel.assign_training_parameters([0.2])
        assert_array_equal(kernel.parameter_values, [0.2])


def test_training_parameters_without_values_stay_without_values():
    kernel = accelerate(
        TrainableFidelityQuantumKernel(feature_map=FEATURES, training_parameters=FEATURES.parameters[:1])
    )
    with pytest.raises(Exception, match="has not been bound"):
        kernel.evaluate(SAMPLES[:, 1:])


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize(
    "make", [lambda kernel: QSVC(quantum_kernel=kernel), lambda kernel: SVC(kernel=kernel.evaluate)]
)
def test_a_classifier_predicts_as_before(make, kind):
    model = make(kind(feature_map=FEATURES)).fit(SAMPLES, LABELS)
    expected = model.decision_function(SAMPLES[:4])
    assert accelerate(model) is model
    assert type(model.kernel.__self__) is FusedQuantumKernel
    assert model.kernel.__func__ is FusedQuantumKernel.evaluate
    assert_allclose(model.decision_function(SAMPLES[:4]), expected, atol=1e-6)


def test_a_model_with_a_fused_kernel_stays_as_it_is():
    kernel = FusedQuantumKernel(feature_map=FEATURES, shots=9, dtype="complex64")
    model = QSVC(quantum_kernel=kernel)
    options, method = kernel.options, model.kernel
    assert accelerate(model) is model and model.quantum_kernel is kernel
    assert model.kernel == method and kernel.options is options and kernel.shots == 9


def test_other_models_with_kernels_are_taken():
    pegasos = PegasosQSVC(quantum_kernel=FidelityStatevectorKernel(feature_map=FEATURES), num_steps=20, seed=1)
    trainable = TrainableFidelityStatevectorKernel(feature_map=FEATURES, training_parameters=FEATURES.parameters[:1])
    trainer = QuantumKernelTrainer(trainable)
    accelerate(pegasos.fit(SAMPLES, LABELS))
    accelerate(trainer)
    assert type(pegasos.quantum_kernel) is FusedQuantumKernel and pegasos.predict(SAMPLES).shape == (10,)
    assert type(trainer.quantum_kernel) is FusedQuantumKernel and trainer.quantum_kernel is trainable


def test_a_kernel_within_a_search_within_a_pipeline_is_found():
    search = GridSearchCV(QSVC(quantum_kernel=FidelityStatevectorKernel(feature_map=FEATURES)), {"C": [1.0, 2.0]}, cv=2)
    model = accelerate(make_pipeline(MinMaxScaler(), search))
    assert type(search.estimator.quantum_kernel) is FusedQuantumKernel
    assert model.fit(SAMPLES, LABELS).predict(SAMPLES).shape == (10,)
    assert type(search.best_estimator_.quantum_kernel) is FusedQuantumKernel


class TestNoise:
    def test_shots_and_seeds_of_samplers_are_kept(self):
        sampler = StatevectorSampler(default_shots=123, seed=4)
        kernel = accelerate(FidelityQuantumKernel(feature_map=FEATURES, fidelity=ComputeUncompute(sampler)))
        assert kernel.shots == 123 and kernel.options.seed == 4
        kernel = accelerate(
            FidelityQuantumKernel(feature_map=FEATURES, fidelity=ComputeUncompute(QMLSampler(shots=50)))
        )
        assert kernel.shots == 50
        kernel = accelerate(FidelityStatevectorKernel(feature_map=FEATURES, shots=77))
        assert kernel.shots == 77

    def test_shots_of_a_fidelity_go_before_those_of_its_sampler(self):
        fidelity = ComputeUncompute(StatevectorSampler(), options={"shots": 10})
        assert accelerate(FidelityQuantumKernel(feature_map=FEATURES, fidelity=fidelity)).shots == 10

    @pytest.mark.parametrize("kind", KERNELS)
    def test_default_shots_replace_them(self, kind):
        kernel = accelerate(kind(feature_map=FEATURES), default_shots=9)
        assert kernel.shots == 9
        assert accelerate(kernel, default_shots=None).shots is None

    def test_a_fused_sampler_and_a_fused_fidelity_give_their_options(self):
        for fidelity in (
            ComputeUncompute(FusedSampler(default_shots=None, num_threads=1)),
            FusedStateFidelity(num_threads=1),
        ):
            kernel = accelerate(FidelityQuantumKernel(feature_map=FEATURES, fidelity=fidelity), dtype="complex64")
            assert kernel.shots is None and kernel.options.changed() == {"dtype": "complex64", "num_threads": 1}


def test_options_of_a_fused_kernel_are_changed():
    for kernel in (FusedQuantumKernel(feature_map=FEATURES), FusedProjectedQuantumKernel(feature_map=FEATURES)):
        before = kernel.evaluate(SAMPLES)
        assert accelerate(kernel, dtype="complex64") is kernel and kernel.options.dtype == "complex64"
        assert_allclose(kernel.evaluate(SAMPLES), before, atol=1e-5)
        assert accelerate(kernel) is kernel


def test_a_subclass_and_a_local_fidelity_keep_the_class_of_the_kernel():
    class Doubled(FidelityQuantumKernel):
        def evaluate(self, x_vec, y_vec=None):
            return 2 * super().evaluate(x_vec, y_vec)

    for kernel in (
        Doubled(feature_map=FEATURES),
        FidelityQuantumKernel(feature_map=FEATURES, fidelity=ComputeUncompute(QMLSampler(), local=True)),
    ):
        kind, expected = type(kernel), kernel.evaluate(SAMPLES)
        accelerate(kernel)
        assert type(kernel) is kind and type(kernel.fidelity) is FusedStateFidelity
        assert_allclose(kernel.evaluate(SAMPLES), expected, atol=1e-6)


class TestErrors:
    def test_other_kernels_are_refused(self):
        class Other(FidelityStatevectorKernel):
            pass

        with pytest.raises(TypeError, match="takes the fidelity kernels of qiskit-machine-learning, not Other"):
            accelerate(Other(feature_map=FEATURES))

    def test_other_fidelities_and_samplers_are_refused(self):
        class Other(ComputeUncompute):
            pass

        class Noisy(StatevectorSampler):
            pass

        kernel = FidelityQuantumKernel(feature_map=FEATURES, fidelity=Other(QMLSampler()))
        with pytest.raises(TypeError, match="takes kernels with the fidelity ComputeUncompute, not Other"):
            accelerate(kernel)
        kernel = FidelityQuantumKernel(feature_map=FEATURES, fidelity=ComputeUncompute(Noisy()))
        with pytest.raises(TypeError, match="have the noise of a device"):
            accelerate(kernel)
        assert accelerate(kernel, default_shots=None).shots is None

    def test_a_circuit_that_no_engine_runs_leaves_the_model_as_it_is(self):
        circuit = QuantumCircuit(1, 1)
        circuit.measure(0, 0)
        circuit.h(0)
        kernel = FidelityStatevectorKernel(feature_map=circuit)
        with pytest.raises(UnsupportedInstruction):
            accelerate(kernel)
        assert type(kernel) is FidelityStatevectorKernel

    def test_options_of_estimators_are_refused(self):
        with pytest.raises(TypeError, match=re.escape("precision_mode is given, and the model has no estimator")):
            accelerate(FidelityStatevectorKernel(feature_map=FEATURES), precision_mode="exact")
