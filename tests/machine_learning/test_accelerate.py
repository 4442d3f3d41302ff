# SPDX-License-Identifier: Apache-2.0
"""A model gives the same results before and after `accelerate`."""

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose
from qiskit.circuit import QuantumCircuit
from qiskit.circuit.library import real_amplitudes, zz_feature_map
from qiskit.primitives import BackendEstimatorV2, StatevectorEstimator
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import SparseObservable, SparsePauliOp
from qiskit_algorithms import VQE, AdaptVQE, TrotterQRTE
from qiskit_algorithms import optimizers as algorithms_optimizers
from qiskit_machine_learning.algorithms import QSVC, VQC, VQR, NeuralNetworkClassifier, NeuralNetworkRegressor
from qiskit_machine_learning.gradients import LinCombEstimatorGradient
from qiskit_machine_learning.kernels import FidelityQuantumKernel
from qiskit_machine_learning.neural_networks import EffectiveDimension, EstimatorQNN, SamplerQNN
from qiskit_machine_learning.optimizers import L_BFGS_B
from qiskit_machine_learning.primitives import QMLEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler

from qiskit_fused import FusedEstimatorQNN, accelerate
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
        observables=observables,
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


def test_samplers_and_other_models_are_refused():
    circuit = QuantumCircuit(1)
    with pytest.raises(TypeError, match=r"an EstimatorQNN, or a model made of one, not SamplerQNN; .*observables"):
        accelerate(SamplerQNN(circuit=circuit))
    with pytest.raises(TypeError, match="not SamplerQNN"):
        accelerate(VQC(2))
    with pytest.raises(TypeError, match="not QuantumCircuit"):
        accelerate(circuit)
    with pytest.raises(TypeError, match="unknown option 'dtyp'"):
        accelerate(make_network(), dtyp="complex64")


@pytest.mark.parametrize(
    "make", [lambda kernel: kernel, lambda kernel: QSVC(quantum_kernel=kernel)], ids=["kernel", "svc"]
)
def test_kernels_are_refused_with_what_serves_them(make):
    with pytest.raises(TypeError, match=r"quantum kernels are built on samplers .*projector '00...0'.* FusedEstimator"):
        accelerate(make(FidelityQuantumKernel(feature_map=zz_feature_map(2))))


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


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def make_connector(torch):
    from qiskit_machine_learning.connectors import TorchConnector

    return lambda **keywords: TorchConnector(make_network(**keywords), initial_weights=WEIGHTS)


def step(torch, model, inputs):
    """Return the outputs, and the gradients of a loss with respect to the inputs and to the parameters."""
    inputs = torch.tensor(inputs, dtype=torch.float32, requires_grad=True)
    outputs = model(inputs)
    model.zero_grad()
    (outputs * torch.linspace(1, 2, outputs.numel()).reshape(outputs.shape)).sum().backward()
    gradients = [inputs.grad, *(parameter.grad for parameter in model.parameters())]
    return outputs.detach().numpy(), [None if one is None else one.numpy().copy() for one in gradients]


def assert_same_step(found, expected):
    for one, other in zip([found[0], *found[1]], [expected[0], *expected[1]], strict=True):
        assert type(one) is type(other)
        if one is not None:
            assert one.shape == other.shape and one.dtype == other.dtype
            assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("inputs", [ROWS, ROWS[0]], ids=["rows", "one"])
@pytest.mark.parametrize("input_gradients", [False, True])
def test_connectors_go_back_without_the_jacobian(torch, make_connector, input_gradients, inputs, monkeypatch):
    connector = make_connector(input_gradients=input_gradients)
    keys, expected = list(connector.state_dict()), step(torch, connector, inputs)
    weight = connector.weight
    assert accelerate(connector) is connector and accelerate(connector) is connector
    monkeypatch.setattr(FusedEstimatorQNN, "backward", None)
    assert list(connector.state_dict()) == keys and connector.weight is weight
    assert_same_step(step(torch, connector, inputs), expected)


def test_connectors_take_any_leading_shape(torch, make_connector):
    grid = np.random.default_rng(3).normal(size=(2, 3, 2))
    connector = accelerate(make_connector(input_gradients=True))
    outputs, gradients = step(torch, connector, grid)
    flat_outputs, flat_gradients = step(torch, connector, grid.reshape(6, 2))
    assert_allclose(outputs.reshape(6, 2), flat_outputs)
    assert_allclose(gradients[0].reshape(6, 2), flat_gradients[0], atol=1e-7)
    assert_allclose(gradients[1], flat_gradients[1], atol=1e-6)


def test_double_precision_gradients_are_not_rounded(torch, make_connector):
    connector = accelerate(make_connector(input_gradients=True)).double()
    inputs = torch.tensor(ROWS, requires_grad=True)
    connector(inputs).sum().backward()
    expected = connector.neural_network.vjp(ROWS, connector.weight.detach().numpy(), np.ones((3, 2)))
    assert inputs.grad.dtype == torch.float64
    assert_allclose(inputs.grad.numpy(), expected[0], rtol=1e-15)


def test_all_connectors_of_a_module_are_switched_or_none(torch, make_connector):
    def make():
        torch.manual_seed(5)
        return torch.nn.Sequential(
            torch.nn.Linear(3, 2), make_connector(input_gradients=True), torch.nn.Tanh(), torch.nn.Linear(2, 1)
        )

    model, inputs = make(), np.random.default_rng(4).normal(size=(5, 3))
    expected = step(torch, model, inputs)
    assert accelerate(model) is model and type(model[1]).__name__ == "FusedTorchConnector"
    assert_same_step(step(torch, model, inputs), expected)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_same_step(step(torch, other, inputs), expected)

    fresh = make()
    fresh.load_state_dict(model.state_dict())
    fresh.append(make_connector(estimator=BackendEstimatorV2(backend=GenericBackendV2(2, seed=1))))
    with pytest.raises(TypeError, match="BackendEstimatorV2"):
        accelerate(fresh)
    assert type(fresh[1]).__name__ == "TorchConnector" and type(fresh[1].neural_network) is EstimatorQNN


def test_an_optimizer_made_before_trains_the_same_weights(torch, make_connector):
    connector = make_connector()
    optimizer = torch.optim.Adam(connector.parameters(), lr=0.1)
    accelerate(connector)
    before = connector.weight.detach().clone()
    connector(torch.tensor(ROWS, dtype=torch.float32)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, connector.weight)
    with torch.no_grad():
        assert not connector(torch.tensor(ROWS)).requires_grad


def test_connectors_without_inputs_and_wrong_inputs(torch):
    from qiskit_machine_learning.connectors import TorchConnector
    from qiskit_machine_learning.exceptions import QiskitMachineLearningError

    ansatz = real_amplitudes(2, reps=1)
    network = EstimatorQNN(circuit=ansatz, weight_params=ansatz.parameters)
    connector = TorchConnector(network, initial_weights=WEIGHTS)
    expected = connector().detach().numpy()
    accelerate(connector)
    assert_allclose(connector().detach().numpy(), expected, atol=1e-6)
    connector().sum().backward()
    assert connector.weight.grad.shape == (4,)
    with pytest.raises(QiskitMachineLearningError, match="Invalid input dimension"):
        connector(torch.zeros(3, 2))


@pytest.mark.parametrize("loss", [lambda values: values.square().sum(), lambda values: values.sum()])
def test_a_second_derivative_is_refused(torch, make_connector, loss):
    connector = accelerate(make_connector(input_gradients=True))
    inputs = torch.tensor(ROWS, dtype=torch.float32, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(connector(inputs)), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        gradient.sum().backward()


def test_connectors_of_subclasses_keep_their_methods(torch):
    from qiskit_machine_learning.connectors import TorchConnector

    connector = TorchConnector(make_network(Doubled), initial_weights=WEIGHTS)
    expected = step(torch, connector, ROWS)
    assert type(accelerate(connector)) is TorchConnector
    assert_same_step(step(torch, connector, ROWS), expected)


def test_modules_without_connectors_and_with_samplers_are_refused(torch):
    from qiskit_machine_learning.connectors import TorchConnector

    with pytest.raises(TypeError, match="no TorchConnector in the Linear"):
        accelerate(torch.nn.Linear(2, 2))
    circuit = real_amplitudes(1)
    network = SamplerQNN(circuit=circuit, weight_params=circuit.parameters)
    with pytest.raises(TypeError, match="not SamplerQNN"):
        accelerate(TorchConnector(network))
