# SPDX-License-Identifier: Apache-2.0
"""A model gives the same results before and after `accelerate`."""

import copy
import pickle
import re
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from qiskit.circuit import QuantumCircuit
from qiskit.circuit.library import real_amplitudes, zz_feature_map
from qiskit.primitives import BackendEstimatorV2, BackendSamplerV2, StatevectorEstimator, StatevectorSampler
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import SparseObservable, SparsePauliOp
from qiskit_algorithms import VQE, AdaptVQE, TrotterQRTE
from qiskit_algorithms import optimizers as algorithms_optimizers
from qiskit_machine_learning.algorithms import VQC, VQR, NeuralNetworkClassifier, NeuralNetworkRegressor
from qiskit_machine_learning.gradients import LinCombEstimatorGradient, SPSASamplerGradient
from qiskit_machine_learning.neural_networks import EffectiveDimension, EstimatorQNN, SamplerQNN
from qiskit_machine_learning.optimizers import L_BFGS_B
from qiskit_machine_learning.primitives import QMLEstimator, QMLSampler
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler

from qiskit_fused import FusedEstimatorQNN, FusedSampler, FusedSamplerGradient, FusedSamplerQNN, accelerate
from qiskit_fused.lowering.errors import UnsupportedInstruction
from qiskit_fused.primitives.estimator import FusedEstimator
from qiskit_fused.primitives.estimator_gradient import FusedEstimatorGradient

OBSERVABLES = [SparsePauliOp(["ZZ", "XI"], [0.5, 0.25]), SparsePauliOp("IY")]
ROWS = np.random.default_rng(1).normal(size=(3, 2))
WEIGHTS = np.random.default_rng(2).normal(size=4)


def make_network(kind=EstimatorQNN, observables=OBSERVABLES, **keywords):
    features, ansatz = zz_feature_map(2, reps=1), real_amplitudes(2, reps=1)
    return kind(
        circuit=features.compose(ansatz),
        **({} if issubclass(kind, SamplerQNN) else {"observables": observables}),
        input_params=features.parameters,
        weight_params=ansatz.parameters,
        **keywords,
    )


def test_a_network_is_switched_in_place():
    network = make_network(input_gradients=True)
    outputs, gradients = network.forward(ROWS, WEIGHTS), network.backward(ROWS, WEIGHTS)
    assert accelerate(network) is network
    assert type(network) is FusedEstimatorQNN and isinstance(network, EstimatorQNN)
    assert_allclose(network.forward(ROWS, WEIGHTS), outputs, atol=1e-12)
    for found, expected in zip(network.backward(ROWS, WEIGHTS), gradients):
        assert_allclose(found, expected, atol=1e-12)
    assert network.vjp(ROWS, WEIGHTS, np.ones((3, 2)))[0].shape == (3, 2)
    assert_allclose(pickle.loads(pickle.dumps(network)).forward(ROWS, WEIGHTS), outputs, atol=1e-12)


@pytest.mark.parametrize("observable", ["XZ", SparseObservable("XZ")], ids=["string", "SparseObservable"])
def test_an_observable_that_upstream_takes_apart_is_one_output(observable):
    network, expected = make_network(observables=observable), make_network(observables=SparsePauliOp("XZ"))
    assert network.output_shape == (len(observable),)  # EstimatorQNN cannot run it
    accelerate(network)
    assert network.output_shape == (1,)
    assert_allclose(network.forward(ROWS, WEIGHTS), expected.forward(ROWS, WEIGHTS), atol=1e-12)
    assert_allclose(network.backward(ROWS, WEIGHTS)[1], expected.backward(ROWS, WEIGHTS)[1], atol=1e-12)


def test_outputs_that_upstream_can_run_stay_as_they_are():
    network = make_network(observables={"XZ": 0.5, "ZI": 2.0})  # EstimatorQNN would use its keys as observables
    outputs = network.forward(ROWS, WEIGHTS)
    assert_allclose(accelerate(network).forward(ROWS, WEIGHTS), outputs, atol=1e-12)
    circuit = QuantumCircuit(1)
    circuit.ry(0.3, 0)
    network = EstimatorQNN(circuit=circuit, observables="ZX")
    outputs = network.forward(None, None)
    assert_allclose(accelerate(network).forward(None, None), outputs, atol=1e-12)


def test_options_are_those_of_estimator_and_gradient():
    network = accelerate(make_network(), dtype="complex64")
    assert network.estimator.options.dtype == network.gradient.fused_options.dtype == "complex64"
    estimator = network.estimator
    accelerate(network)
    assert network.estimator is estimator
    accelerate(network, device="reference")
    assert network.estimator.options.dtype == "complex64" and network.gradient.fused_options.device == "reference"
    assert estimator.options.device == "auto"


def test_estimators_and_gradients_that_are_fused_stay():
    estimator, gradient = FusedEstimator(dtype="complex64"), FusedEstimatorGradient(num_threads=1)
    network = accelerate(make_network(estimator=estimator, gradient=gradient))
    assert network.estimator is estimator and network.gradient is gradient
    accelerate(network, device="reference")
    assert network.gradient.fused_options.num_threads == 1 and network.gradient.fused_options.device == "reference"


def test_noise_of_statevector_estimator_stays_until_exact_is_asked():
    network = make_network(estimator=StatevectorEstimator(seed=3), default_precision=0.1)
    exact = make_network().forward(ROWS, WEIGHTS)
    noisy = network.forward(ROWS, WEIGHTS)
    assert_allclose(accelerate(network).forward(ROWS, WEIGHTS), noisy, atol=1e-12)
    assert np.abs(noisy - exact).max() > 0.01
    assert_allclose(accelerate(network, precision_mode="exact").forward(ROWS, WEIGHTS), exact, atol=1e-12)
    delegating = make_network(estimator=QMLEstimator(default_precision=0.1, seed=3), default_precision=0.1)
    assert_allclose(accelerate(delegating).forward(ROWS, WEIGHTS), noisy, atol=1e-12)


def test_derivatives_keep_their_type():
    network = make_network(gradient=LinCombEstimatorGradient(QMLEstimator()))
    expected = network.backward(ROWS, WEIGHTS)[1]
    assert_allclose(accelerate(network).backward(ROWS, WEIGHTS)[1], expected, atol=1e-12)


def test_other_estimators_are_replaced_only_on_demand():
    network = make_network(estimator=BackendEstimatorV2(backend=GenericBackendV2(2, seed=1)))
    with pytest.raises(TypeError, match=r"is BackendEstimatorV2; precision_mode='exact' replaces it"):
        accelerate(network)
    assert type(network) is EstimatorQNN
    accelerate(network, precision_mode="exact")
    assert_allclose(network.forward(ROWS, WEIGHTS), make_network().forward(ROWS, WEIGHTS), atol=1e-12)


def test_classifiers_keep_their_weights_and_train_on():
    model = NeuralNetworkClassifier(
        make_network(observables=OBSERVABLES[0]),
        optimizer=L_BFGS_B(maxiter=2),
        initial_point=WEIGHTS,
        warm_start=True,
    )
    labels = np.array([1, -1, 1])
    model.fit(ROWS, labels)
    weights, scores = model.weights.copy(), model.predict_proba(ROWS)
    assert accelerate(model) is model and type(model.neural_network) is FusedEstimatorQNN
    assert_allclose(model.weights, weights)
    assert_allclose(model.predict_proba(ROWS), scores, atol=1e-12)
    model.fit(ROWS, labels)
    assert not np.array_equal(model.weights, weights)
    assert copy.deepcopy(model).weights.tolist() == model.weights.tolist()


@pytest.mark.parametrize("kind", ["regressor", "vqr"])
def test_regressors_train_as_before(kind, tmp_path):
    def make():
        if kind == "vqr":
            return VQR(2, optimizer=L_BFGS_B(maxiter=2), initial_point=np.linspace(0, 1, 8))
        return NeuralNetworkRegressor(
            make_network(observables=None), optimizer=L_BFGS_B(maxiter=2), initial_point=WEIGHTS
        )

    targets = np.array([[0.5], [-0.5], [0.1]])
    expected = make().fit(ROWS, targets)
    model = accelerate(make()).fit(ROWS, targets)
    assert type(model.neural_network) is FusedEstimatorQNN
    assert_allclose(model.weights, expected.weights, atol=1e-6)
    model.to_dill(tmp_path / "model")
    assert_allclose(type(model).from_dill(tmp_path / "model").predict(ROWS), model.predict(ROWS), atol=1e-12)


class Doubled(EstimatorQNN):
    def _forward(self, input_data, weights):
        return 2 * super()._forward(input_data, weights)


def test_subclasses_keep_their_methods():
    network = make_network(Doubled)
    expected = network.forward(ROWS, WEIGHTS)
    accelerate(network)
    assert type(network) is Doubled and type(network.estimator) is FusedEstimator
    assert type(network.gradient) is FusedEstimatorGradient
    assert_allclose(network.forward(ROWS, WEIGHTS), expected, atol=1e-12)


def test_other_models_are_refused():
    with pytest.raises(TypeError, match=r"made of one, or an algorithm with an estimator, not QuantumCircuit\.$"):
        accelerate(QuantumCircuit(1))
    for model, cure in (
        (StatevectorEstimator(), "Use FusedEstimator() in the place of an estimator."),
        (StatevectorSampler(), "Use FusedSampler() in the place of a sampler."),
        (
            SimpleNamespace(sampler=StatevectorSampler()),
            "Make the SimpleNamespace with FusedSampler() in the place of its",
        ),
        (SimpleNamespace(estimator=None), "The SimpleNamespace has no estimator; give it FusedEstimator()."),
    ):
        with pytest.raises(TypeError, match=re.escape(cure)):
            accelerate(model)
    with pytest.raises(TypeError, match=r"unknown option 'dtyp'; allowed: device, .* default_shots"):
        accelerate(make_network(), dtyp="complex64")


def test_a_class_is_refused():
    with pytest.raises(TypeError, match="a model that is made, not the class EstimatorQNN"):
        accelerate(EstimatorQNN)


def test_an_estimator_of_aer_is_named_with_its_package():
    aer = pytest.importorskip("qiskit_aer.primitives")
    with pytest.raises(TypeError, match=r"its estimator, of qiskit_aer, is EstimatorV2; precision_mode='exact'"):
        accelerate(make_network(estimator=aer.EstimatorV2()))


def test_the_network_of_an_effective_dimension_is_switched():
    def make():
        return EffectiveDimension(make_network(), weight_samples=WEIGHTS[None], input_samples=ROWS)

    expected = make().get_effective_dimension([100, 1000])
    model = accelerate(make())
    assert type(model._model) is FusedEstimatorQNN
    assert_allclose(model.get_effective_dimension([100, 1000]), expected, atol=1e-9)


def test_the_models_in_a_pipeline_and_in_a_search_are_switched():
    def make():
        optimizer = L_BFGS_B(maxiter=2)
        network = make_network(observables=OBSERVABLES[0])
        return NeuralNetworkRegressor(network, optimizer=optimizer, initial_point=WEIGHTS)

    pipeline = Pipeline([("scale", MinMaxScaler()), ("model", make())])
    assert accelerate(pipeline) is pipeline
    assert type(pipeline.named_steps["model"].neural_network) is FusedEstimatorQNN
    search = GridSearchCV(Pipeline([("model", make())]), {})
    accelerate(search)
    assert type(search.estimator.named_steps["model"].neural_network) is FusedEstimatorQNN
    with pytest.raises(TypeError, match="not Pipeline"):
        accelerate(Pipeline([("scale", MinMaxScaler())]))


@pytest.mark.parametrize("given", ["none", "linear combination", "fused"])
def test_vqe_gets_an_estimator_and_an_exact_gradient(given):
    ansatz, hamiltonian = real_amplitudes(2, reps=1), SparsePauliOp(["ZZ", "XI", "IX"], [1.0, 0.5, -0.3])
    gradient = {
        "none": lambda: None,
        "linear combination": lambda: LinCombEstimatorGradient(QMLEstimator()),
        "fused": lambda: FusedEstimatorGradient(num_threads=1),
    }[given]()
    vqe = VQE(
        StatevectorEstimator(),
        ansatz,
        algorithms_optimizers.L_BFGS_B(),
        gradient=gradient,
        initial_point=np.full(4, 0.3),
    )
    assert accelerate(vqe) is vqe
    assert type(vqe.estimator) is FusedEstimator and type(vqe.gradient) is FusedEstimatorGradient
    assert (vqe.gradient is gradient) == (given == "fused")
    lowest = np.linalg.eigvalsh(hamiltonian.to_matrix())[0]
    assert vqe.compute_minimum_eigenvalue(hamiltonian).eigenvalue == pytest.approx(lowest, abs=1e-6)
    accelerate(vqe, dtype="complex64")
    assert (vqe.estimator.options.dtype, vqe.gradient.fused_options.dtype) == ("complex64", "complex64")


def test_adaptive_vqe_and_algorithms_without_gradients_are_switched():
    inner = VQE(StatevectorEstimator(), real_amplitudes(2, reps=1), algorithms_optimizers.L_BFGS_B())
    accelerate(AdaptVQE(inner, operators=[SparsePauliOp("XY")]))
    assert type(inner.estimator) is FusedEstimator
    trotter = TrotterQRTE(estimator=StatevectorEstimator())
    accelerate(trotter)
    assert type(trotter.estimator) is FusedEstimator and not hasattr(trotter, "gradient")


def test_nothing_of_an_algorithm_changes_when_a_sweep_cannot_do_its_ansatz():
    ansatz = QuantumCircuit(1)
    ansatz.h(0)
    ansatz.reset(0)
    vqe = VQE(StatevectorEstimator(), ansatz, algorithms_optimizers.L_BFGS_B())
    with pytest.raises(UnsupportedInstruction, match="reset"):
        accelerate(vqe)
    assert type(vqe.estimator) is StatevectorEstimator and vqe.gradient is None


def test_a_model_that_holds_itself_is_no_endless_search():
    class Loop:
        @property
        def estimator(self):
            return self

    with pytest.raises(TypeError, match="not Loop"):
        accelerate(Loop())


def test_a_circuit_no_sweep_can_do_stays_as_it_was():
    circuit = QuantumCircuit(1)
    circuit.h(0)
    circuit.reset(0)
    network = EstimatorQNN(circuit=circuit)
    with pytest.raises(UnsupportedInstruction, match="reset"):
        accelerate(network)
    assert type(network) is EstimatorQNN and type(network.estimator) is QMLEstimator


# --- networks of samplers ---


def parity(integer):
    return integer.bit_count() % 2


def make_sampler_network(kind=SamplerQNN, **keywords):
    return make_network(kind, None, **({"interpret": parity, "output_shape": 2} | keywords))


def test_a_sampler_network_is_switched_in_place():
    network = make_sampler_network(input_gradients=True)
    outputs, gradients = network.forward(ROWS, WEIGHTS), network.backward(ROWS, WEIGHTS)
    assert accelerate(network) is network
    assert type(network) is FusedSamplerQNN and isinstance(network, SamplerQNN)
    assert network.sampler.default_shots is None and network.gradient.fused_options is network.sampler.options
    assert_allclose(network.forward(ROWS, WEIGHTS), outputs, atol=1e-9)
    for found, expected in zip(network.backward(ROWS, WEIGHTS), gradients):
        assert_allclose(found, expected, atol=1e-9)
    assert network.vjp(ROWS, WEIGHTS, np.ones((3, 2)))[0].shape == (3, 2)
    assert_allclose(pickle.loads(pickle.dumps(network)).forward(ROWS, WEIGHTS), outputs, atol=1e-9)


def test_a_network_without_interpret_can_be_pickled_after_it_was_switched():
    network = make_sampler_network(interpret=None, output_shape=None)
    outputs = network.forward(ROWS, WEIGHTS)
    accelerate(network)
    assert_allclose(network.forward(ROWS, WEIGHTS), outputs, atol=1e-9)
    assert_allclose(pickle.loads(pickle.dumps(network)).forward(ROWS, WEIGHTS), outputs, atol=1e-9)


@pytest.mark.parametrize(
    "make",
    [
        lambda: StatevectorSampler(default_shots=50, seed=3),
        lambda: QMLSampler(shots=50, seed=3),
        lambda: FusedSampler(default_shots=50, seed=3),
    ],
    ids=["statevector", "qml", "fused"],
)
def test_a_sampler_with_shots_keeps_them_and_its_seed_until_others_are_given(make):
    network = accelerate(make_sampler_network(sampler=make()))
    assert type(network.sampler) is FusedSampler
    assert (network.sampler.default_shots, network.sampler.seed) == (50, 3)
    outputs = network.forward(ROWS, WEIGHTS)
    assert_allclose(outputs * 50, np.rint(outputs * 50), atol=1e-12)
    sampler = network.sampler
    assert accelerate(network).sampler is sampler
    accelerate(network, default_shots=7, dtype="complex64")
    assert (network.sampler.default_shots, network.sampler.seed) == (7, 3)
    assert network.gradient.fused_options.dtype == network.sampler.options.dtype == "complex64"
    accelerate(network, default_shots=None)
    assert_allclose(network.forward(ROWS, WEIGHTS), make_sampler_network().forward(ROWS, WEIGHTS), atol=1e-5)
    assert network.gradient.fused_options is network.sampler.options


def test_other_samplers_are_replaced_only_on_demand():
    network = make_sampler_network(sampler=BackendSamplerV2(backend=GenericBackendV2(2, seed=1)))
    with pytest.raises(TypeError, match=r"its sampler, of qiskit, is BackendSamplerV2; default_shots=None replaces it"):
        accelerate(network)
    assert type(network) is SamplerQNN
    accelerate(network, default_shots=None)
    assert_allclose(network.forward(ROWS, WEIGHTS), make_sampler_network().forward(ROWS, WEIGHTS), atol=1e-9)


def test_options_that_no_part_of_a_model_reads_are_refused():
    with pytest.raises(TypeError, match="default_shots is given, and the model has no sampler; precision_mode"):
        accelerate(make_network(), default_shots=None)
    with pytest.raises(TypeError, match="precision_mode is given, and the model has no estimator; default_shots"):
        accelerate(make_sampler_network(), precision_mode="exact")
    with pytest.raises(TypeError, match="default_shots must be an integer, not 'all', or None"):
        accelerate(make_sampler_network(), default_shots="all")


@pytest.mark.parametrize("gradient", [SPSASamplerGradient(QMLSampler(), 0.1), FusedSamplerGradient(num_threads=1)])
def test_gradients_become_exact_and_fused_gradients_stay(gradient):
    expected = make_sampler_network().backward(ROWS, WEIGHTS)[1]
    network = accelerate(make_sampler_network(gradient=gradient))
    assert_allclose(network.backward(ROWS, WEIGHTS)[1], expected, atol=1e-9)
    assert (network.gradient is gradient) == isinstance(gradient, FusedSamplerGradient)


class DoubledSampler(SamplerQNN):
    def _forward(self, input_data, weights):
        return 2 * super()._forward(input_data, weights)


def test_subclasses_of_sampler_networks_keep_their_methods():
    network = make_sampler_network(DoubledSampler)
    outputs, gradients = network.forward(ROWS, WEIGHTS), network.backward(ROWS, WEIGHTS)[1]
    accelerate(network)
    assert type(network) is DoubledSampler and type(network.sampler) is FusedSampler
    assert_allclose(network.forward(ROWS, WEIGHTS), outputs, atol=1e-9)
    assert_allclose(network.backward(ROWS, WEIGHTS)[1], gradients, atol=1e-9)


def test_nothing_of_a_sampler_network_changes_if_a_sweep_cannot_do_its_circuit():
    circuit = QuantumCircuit(1)
    circuit.h(0)
    circuit.reset(0)
    for one, error in ((circuit, UnsupportedInstruction), (QuantumCircuit(1, 1), ValueError)):
        network = SamplerQNN(circuit=one)
        with pytest.raises(error, match=r"reset|no qubit is measured"):
            accelerate(network)
        assert type(network) is SamplerQNN and type(network.sampler) is QMLSampler


LABELS = {
    "one-hot": np.eye(2)[[0, 1, 0]],
    "strings": np.array(["A", "B", "A"]),
    "numbers": np.array([0, 1, 0]),
    "three classes": np.array([0, 1, 2]),
}


@pytest.mark.parametrize("labels", LABELS)
def test_classifiers_of_two_and_three_classes_train_as_before(labels):
    def make():
        return VQC(2, optimizer=L_BFGS_B(maxiter=2), initial_point=np.linspace(0, 1, 8))

    expected = make().fit(ROWS, LABELS[labels])
    model = accelerate(make())
    assert type(model.neural_network) is FusedSamplerQNN
    model.fit(ROWS, LABELS[labels])
    assert_allclose(model.weights, expected.weights, atol=1e-6)
    assert_allclose(model.predict_proba(ROWS), expected.predict_proba(ROWS), atol=1e-6)
    assert np.array_equal(model.predict(ROWS), expected.predict(ROWS))
    assert model.score(ROWS, LABELS[labels]) == expected.score(ROWS, LABELS[labels])


def test_a_trained_classifier_keeps_its_weights_and_trains_on(tmp_path):
    def make():
        model = VQC(
            2,
            ansatz=real_amplitudes(2, reps=1),
            optimizer=L_BFGS_B(maxiter=2),
            initial_point=WEIGHTS,
            warm_start=True,
            interpret=lambda integer: integer % 3,
            output_shape=3,
        )
        return model.fit(ROWS, np.array(["A", "B", "C"]))

    model, expected = make(), make()
    weights, scores = model.weights.copy(), model.predict_proba(ROWS)
    accelerate(model)
    assert_allclose(model.weights, weights)
    assert_allclose(model.predict_proba(ROWS), scores, atol=1e-9)
    for one in (model, expected):
        one.fit(ROWS, np.array(["A", "B", "C"]))
    assert not np.array_equal(model.weights, weights)
    assert_allclose(model.weights, expected.weights, atol=1e-5)
    model.to_dill(tmp_path / "model")
    assert_allclose(VQC.from_dill(tmp_path / "model").predict_proba(ROWS), model.predict_proba(ROWS), atol=1e-12)


def test_a_network_of_a_classifier_and_of_an_effective_dimension_is_switched():
    classifier = NeuralNetworkClassifier(make_sampler_network(), optimizer=L_BFGS_B(maxiter=1), initial_point=WEIGHTS)
    assert type(accelerate(classifier).neural_network) is FusedSamplerQNN
    assert classifier.fit(ROWS, np.array([0, 1, 0])).predict(ROWS).shape == (3,)

    def make():
        return EffectiveDimension(make_sampler_network(), weight_samples=WEIGHTS[None], input_samples=ROWS)

    expected, model = make().get_effective_dimension([100, 1000]), accelerate(make())
    assert type(model._model) is FusedSamplerQNN
    assert_allclose(model.get_effective_dimension([100, 1000]), expected, atol=1e-6)
