# SPDX-License-Identifier: Apache-2.0
"""An accelerated TorchConnector gives the same outputs and gradients as before, without the Jacobian."""

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose
from qiskit.circuit.library import real_amplitudes, zz_feature_map
from qiskit.primitives import BackendEstimatorV2
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.neural_networks import EstimatorQNN, SamplerQNN

from qiskit_fused import FusedEstimatorQNN, FusedSampler, FusedSamplerQNN, accelerate

OBSERVABLES = [SparsePauliOp(["ZZ", "XI"], [0.5, 0.25]), SparsePauliOp("IY")]
ROWS = np.random.default_rng(1).normal(size=(3, 2))
WEIGHTS = np.random.default_rng(2).normal(size=4)


def make_network(kind=EstimatorQNN, **keywords):
    features, ansatz = zz_feature_map(2, reps=1), real_amplitudes(2, reps=1)
    return kind(
        circuit=features.compose(ansatz),
        input_params=features.parameters,
        weight_params=ansatz.parameters,
        **({"observables": OBSERVABLES} if issubclass(kind, EstimatorQNN) else {}),
        **keywords,
    )


class Doubled(EstimatorQNN):
    def _forward(self, input_data, weights):
        return 2 * super()._forward(input_data, weights)


def parity(integer):
    return integer.bit_count() % 2


def pair(integer):
    return parity(integer), integer % 3


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


def test_modules_without_connectors_are_refused(torch):
    with pytest.raises(TypeError, match="no TorchConnector in the Linear"):
        accelerate(torch.nn.Linear(2, 2))


# --- networks of samplers ---


@pytest.fixture
def make_sampler_connector(torch):
    from qiskit_machine_learning.connectors import TorchConnector

    def make(interpret=parity, output_shape=2, connector_is_sparse=None, **keywords):
        network = make_network(SamplerQNN, interpret=interpret, output_shape=output_shape, **keywords)
        return TorchConnector(network, initial_weights=WEIGHTS, sparse=connector_is_sparse)

    return make


@pytest.mark.parametrize("inputs", [ROWS, ROWS[0]], ids=["rows", "one"])
@pytest.mark.parametrize("input_gradients", [False, True])
def test_connectors_of_sampler_networks_go_back_without_the_jacobian(
    torch, make_sampler_connector, input_gradients, inputs, monkeypatch
):
    connector = make_sampler_connector(input_gradients=input_gradients)
    expected = step(torch, connector, inputs)
    assert accelerate(connector) is connector and type(connector).__name__ == "FusedTorchConnector"
    monkeypatch.setattr(FusedSamplerQNN, "backward", None)
    assert_same_step(step(torch, connector, inputs), expected)
    assert "FusedSamplerQNN(2 qubits" in repr(connector)


def test_outputs_of_several_dimensions_keep_them(torch, make_sampler_connector):
    connector = accelerate(make_sampler_connector(pair, (2, 3), input_gradients=True))
    network, cotangents = connector.neural_network, np.random.default_rng(3).normal(size=(3, 2, 3))
    inputs = torch.tensor(ROWS, requires_grad=True)
    outputs = connector.double()(inputs)
    assert outputs.shape == (3, 2, 3) and connector(inputs[0]).shape == (2, 3)
    assert connector(inputs.reshape(3, 1, 2)).shape == (3, 1, 2, 3)
    outputs.backward(torch.tensor(cotangents))
    of_inputs, of_weights = network.backward(ROWS, connector.weight.detach().numpy())
    assert_allclose(connector.weight.grad.numpy(), np.einsum("bij,bijw->w", cotangents, of_weights), atol=1e-6)
    assert_allclose(inputs.grad.numpy(), np.einsum("bij,bijw->bw", cotangents, of_inputs), atol=1e-6)


def test_a_dense_connector_of_a_sparse_network_gives_dense_outputs(torch, make_sampler_connector):
    pytest.importorskip("sparse")
    connector = make_sampler_connector(sparse=True, connector_is_sparse=False, input_gradients=True)
    expected = step(torch, connector, ROWS)
    assert type(accelerate(connector)).__name__ == "FusedTorchConnector"
    assert_same_step(step(torch, connector, ROWS), expected)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_a_sparse_connector_keeps_sparse_outputs(torch, make_sampler_connector):
    pytest.importorskip("sparse")
    connector = make_sampler_connector(sparse=True)
    inputs = torch.tensor(ROWS)
    expected = connector(inputs).to_dense()
    assert type(accelerate(connector)).__name__ == "TorchConnector"
    assert type(connector.neural_network) is FusedSamplerQNN
    found = connector(inputs)
    assert found.is_sparse
    assert_allclose(found.to_dense().detach().numpy(), expected.detach().numpy(), atol=1e-6)


def test_outputs_of_a_sampler_with_shots_are_frequencies_and_gradients_are_exact(torch, make_sampler_connector):
    exact = accelerate(make_sampler_connector())
    connector = accelerate(make_sampler_connector(sampler=FusedSampler(default_shots=100, seed=5)))
    found, expected = step(torch, connector, ROWS), step(torch, exact, ROWS)
    assert_allclose(found[0] * 100, np.rint(found[0] * 100), atol=1e-5)
    assert not np.allclose(found[0], expected[0])
    assert_allclose(found[1][1], expected[1][1], atol=1e-6)
