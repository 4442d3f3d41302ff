# SPDX-License-Identifier: Apache-2.0
"""FusedProbabilityLayer agrees with Statevector, SamplerQNN and numerical derivatives, and works as FusedLayer does."""

import copy
import io
import math
import re

import numpy as np
import pytest
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import ClassicalRegister, Parameter, ParameterVector, QuantumRegister
from qiskit.circuit.library import real_amplitudes
from qiskit.quantum_info import SparsePauliOp, Statevector
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.neural_networks import SamplerQNN
from qiskit_machine_learning.primitives import QMLSampler

from qiskit_fused import FusedOptions, UnsupportedInstruction, compile_circuit
from qiskit_fused.execution.row_functions import RowFunction

torch = pytest.importorskip("torch")
from qiskit_fused.torch import FusedLayer, FusedProbabilityLayer, expectation_values  # noqa: E402

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6}


def parity(integer):
    return integer.bit_count() % 2


def low_bit_and_rest(integer):
    return integer & 1, integer >> 1


OUTPUTS = {
    "integers": {},
    "classes": {"interpret": parity, "output_shape": 2},
    "tuples": {"interpret": low_bit_and_rest, "output_shape": (2, 4)},
}


@pytest.fixture(autouse=True)
def _same_numbers_every_time():
    torch.manual_seed(7)


@pytest.fixture
def model():
    """Return a circuit without classical bits, with its 2 input parameters and 6 weight parameters."""
    inputs, weights = ParameterVector("x", 2), ParameterVector("w", 6)
    circuit = QuantumCircuit(3)
    for qubit in range(3):
        circuit.ry(inputs[qubit % 2], qubit)
        circuit.rx(weights[qubit], qubit)
        circuit.cx(qubit, (qubit + 1) % 3)
        circuit.ry(weights[3 + qubit], qubit)
    return circuit, list(inputs), list(weights)


@pytest.fixture(params=OUTPUTS)
def output(request):
    """Return the arguments that decide the outcomes."""
    return OUTPUTS[request.param]


@pytest.fixture
def layer(model, output):
    return FusedProbabilityLayer(*model, **output)


def exact(model, inputs, weights, interpret=int, output_shape=8, states=None):
    """Return the probabilities (B, *shape) of Qiskit's Statevector, with all qubits measured in their order."""
    circuit, input_params, weight_params = model
    shape = np.empty(output_shape).shape
    results = np.zeros((len(inputs), *shape))
    for row, numbers in enumerate(np.asarray(inputs, dtype=float)):
        values = dict(zip(input_params, numbers)) | dict(zip(weight_params, np.asarray(weights, dtype=float)))
        start = Statevector.from_int(0, 8) if states is None else Statevector(states[row])
        for integer, probability in enumerate(start.evolve(circuit.assign_parameters(values)).probabilities()):
            results[row][interpret(integer)] += probability
    return results


def random_states(*shape, real=False, dtype=torch.float64):
    states = torch.randn(*shape, 8, dtype=dtype if real else dtype.to_complex())
    return states / states.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_are_the_probabilities_of_qiskit(model, output, device, dtype):
    layer = FusedProbabilityLayer(*model, **output, device=device).to(dtype)
    inputs = torch.randn(4, 2, dtype=dtype)
    values = layer(inputs)
    expected = exact(model, inputs, layer.weight.detach(), **output)
    assert values.dtype == dtype and values.shape == expected.shape
    np.testing.assert_allclose(values.detach().numpy(), expected, atol=TOLERANCE[dtype])


def test_devices_give_the_same_gradients(model, output):
    gradients = []
    for device in ("cpu", "reference"):
        layer = FusedProbabilityLayer(*model, [0.3] * 6, **output, device=device).double()
        inputs = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(4, 2).requires_grad_()
        layer(inputs).square().sum().backward()
        gradients.append((inputs.grad, layer.weight.grad))
    for first, second in zip(*gradients):
        assert first.abs().max() > 1e-3
        torch.testing.assert_close(first, second, atol=1e-12, rtol=0)


@pytest.mark.parametrize("register", ["meas", "c"])
def test_each_row_is_the_output_of_a_sampler_network(model, output, register):
    circuit = model[0]
    circuit.add_register(ClassicalRegister(3, register))
    circuit.measure(range(3), range(3))
    qnn, layer = network(model, output), FusedProbabilityLayer(*model, **output).double()
    data = torch.randn(4, 2, dtype=torch.float64)
    # One row at a time: with a register that is not called "meas", SamplerQNN may merge the rows of a batch.
    expected = np.concatenate([qnn.forward(row, layer.weight.detach().numpy()) for row in data.numpy()])
    np.testing.assert_allclose(layer(data).detach().numpy(), expected, atol=1e-12)


def network(model, output):
    """Return a SamplerQNN with exact probabilities, which measures all qubits."""
    circuit, inputs, weights = model
    names = {"input_params": inputs, "weight_params": weights, "sampler": QMLSampler(), "input_gradients": True}
    return SamplerQNN(circuit=circuit, **names, **output)


@pytest.mark.parametrize("kind", ["integers", "classes"])  # TorchConnector has no outputs of several dimensions
def test_values_and_gradients_are_those_of_a_torch_connector(model, kind):
    connector = TorchConnector(network(model, OUTPUTS[kind]))
    layer = FusedProbabilityLayer(*model, connector.weight, **OUTPUTS[kind])
    data, cotangents = torch.randn(3, 2), torch.randn(3, *layer.output_shape)
    results = []
    for module in (connector, layer):
        points = data.clone().requires_grad_()
        values = module(points)
        (values * cotangents).sum().backward()
        results.append((values.detach(), points.grad, module.weight.grad))
    for expected, found in zip(*results):
        torch.testing.assert_close(found, expected, atol=5e-6, rtol=0)


def test_gradients_of_outcomes_of_several_dimensions_are_those_of_a_sampler_network(model):
    qnn, layer = network(model, OUTPUTS["tuples"]), FusedProbabilityLayer(*model, **OUTPUTS["tuples"]).double()
    data = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    cotangents = torch.randn(2, 2, 4, dtype=torch.float64)
    layer(data).backward(cotangents)
    of_inputs, of_weights = qnn.backward(data.detach().numpy(), layer.weight.detach().numpy())
    expected = np.einsum("bjk,bjki->bi", cotangents, of_inputs)
    np.testing.assert_allclose(data.grad, expected, atol=1e-12)
    expected = np.einsum("bjk,bjkw->w", cotangents, of_weights)
    np.testing.assert_allclose(layer.weight.grad, expected, atol=1e-12)


def test_gradcheck_of_weights_and_inputs(layer):
    layer.double()
    inputs = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda weight, inputs: expectation_values(layer._double, weight, inputs), (layer.weight, inputs)
    )
    assert torch.autograd.gradcheck(layer, (torch.randn(2, 2, 2, dtype=torch.float64, requires_grad=True),))


@pytest.mark.parametrize("real", [False, True], ids=["complex", "real"])
def test_rows_start_from_initial_states_and_differentiate_them(model, output, real):
    layer = FusedProbabilityLayer(*model, **output).double()
    inputs, states = torch.randn(2, 2, dtype=torch.float64), random_states(2, real=real)
    expected = exact(model, inputs, layer.weight.detach(), states=states.numpy().astype(complex), **output)
    np.testing.assert_allclose(layer(inputs, states).detach().numpy(), expected, atol=1e-12)

    def values(inputs, raw):
        return layer(inputs, raw / raw.norm(dim=-1, keepdim=True))

    assert torch.autograd.gradcheck(values, (inputs.requires_grad_(), states.requires_grad_()))


def test_single_parameters_need_no_list():
    a, b, circuit = Parameter("a"), Parameter("b"), QuantumCircuit(1)
    circuit.ry(a + b, 0)
    assert FusedProbabilityLayer(circuit, a, b, [0.3])(torch.zeros(2, 1)).shape == (2, 2)


def test_leading_dimensions_are_kept(layer):
    inputs = torch.randn(2, 3, 2)
    values = layer(inputs)
    assert values.shape == (2, 3, *layer.output_shape)
    torch.testing.assert_close(values[1, 2], layer(inputs[1, 2]))  # rows in packs round differently from one row
    assert layer(torch.zeros(5, 0, 2)).shape == (5, 0, *layer.output_shape)
    assert layer(inputs[0], random_states(4, 1, dtype=torch.float32)).shape == (4, 3, *layer.output_shape)


def test_measured_bits_are_read_as_one_integer_of_all_registers():
    weights = ParameterVector("w", 3)
    circuit = QuantumCircuit(QuantumRegister(3), ClassicalRegister(2, "b"), ClassicalRegister(1, "a"))
    for qubit in range(3):
        circuit.ry(weights[qubit], qubit)
    circuit.measure([2, 0], [0, 2])  # nothing is measured into the second bit
    given = [0.4, 1.0, 2.0]
    ones = np.sin(np.array(given) / 2) ** 2  # the probability of 1 for each qubit
    expected = np.kron([1 - ones[0], ones[0]], np.kron([1, 0], [1 - ones[2], ones[2]]))
    for measured in (circuit, compile_circuit(circuit)):
        layer = FusedProbabilityLayer(measured, (), weights, given).double()
        assert layer.output_shape == (8,)
        np.testing.assert_allclose(layer().detach().numpy(), expected, atol=1e-6)


def test_a_transpiled_circuit_gives_the_probabilities_of_the_circuit(model):
    circuit, inputs, weights = model
    data, given = torch.randn(3, 2), [0.3] * 6
    expected = FusedProbabilityLayer(circuit, inputs, weights, given)(data)
    line = [[qubit, qubit + 1] for qubit in range(6)]
    measured = circuit.measure_all(inplace=False)
    for source in (circuit, measured):
        transpiled = transpile(source, coupling_map=line, basis_gates=["rz", "sx", "cx"], seed_transpiler=3)
        found = FusedProbabilityLayer(transpiled, inputs, weights, given)(data)
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_the_weights_decide_the_number_format_unless_an_option_does(model):
    def difference(**options):
        layer = FusedProbabilityLayer(*model, [0.3] * 6, **options).double()
        data = torch.ones(1, 2, dtype=torch.float64)
        return np.abs(layer(data).detach().numpy() - exact(model, data, layer.weight.detach())).max()

    assert difference() < 1e-14 and difference(options=FusedOptions()) < 1e-14
    assert 1e-12 < difference(dtype="complex64") < 1e-6


def test_interpret_is_called_when_the_layer_is_made_and_one_sweep_back_serves_all_outcomes(model, monkeypatch):
    asked, batches, evaluate = [], [], RowFunction.evaluate

    def spy(self, batch):
        batches.append(batch)
        return evaluate(self, batch)

    monkeypatch.setattr(RowFunction, "evaluate", spy)
    layer = FusedProbabilityLayer(*model, interpret=lambda z: asked.append(z) or z // 2, output_shape=4)
    assert asked == list(range(8))
    layer(torch.randn(3, 2)).sum().backward()
    assert asked == list(range(8))
    assert [batch.cotangents is None for batch in batches] == [True, False]
    assert not batches[1].input_gradients and not batches[1].jacobian


def test_it_trains_by_the_negative_log_likelihood_where_a_probability_is_zero(model):
    layer = FusedProbabilityLayer(*model, [0.0] * 6, interpret=parity, output_shape=2)
    data, classes = torch.tensor([[0.0, 0.0], [math.pi, 0.0]]), torch.tensor([1, 0])
    assert (layer(data) < 1e-6).any()
    with torch.no_grad():
        layer.weight.add_(0.05 * torch.randn(6))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = torch.nn.functional.nll_loss(torch.log(layer(data) + 1e-6), classes)
        loss.backward()
        assert layer.weight.grad.isfinite().all()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_state_dict_copies_and_pickles_give_the_same_values(model):
    arguments = {"interpret": lambda z: z % 3, "output_shape": 3}  # a lambda function cannot be pickled, nor need it be
    layer, other = (FusedProbabilityLayer(*model, **arguments) for _ in range(2))
    data = torch.randn(3, 2)
    expected = layer(data)
    assert not torch.equal(other(data), expected)
    other.load_state_dict(layer.state_dict(), strict=True)
    assert list(layer.state_dict()) == ["weight"]
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    copied = copy.deepcopy(layer)
    for twin in (other, copied, torch.load(file, weights_only=False)):
        assert torch.equal(twin(data), expected) and twin.output_shape == (3,)
    copied(data).square().sum().backward()
    assert copied.weight.grad is not None and layer.weight.grad is None
    assert repr(layer) == "FusedProbabilityLayer(num_inputs=2, output_shape=(3,), num_weights=6, num_qubits=3)"


def test_the_state_dict_of_a_layer_of_expectation_values_fits(model, layer):
    values = FusedLayer(model[0], "ZZZ", *model[1:])
    layer.load_state_dict(values.state_dict(), strict=True)
    assert torch.equal(layer.weight, values.weight)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch.compile reads .grad
def test_a_compiled_model_calls_the_layer_as_it_is(model):
    layer = FusedProbabilityLayer(*model, **OUTPUTS["tuples"])
    hybrid = torch.nn.Sequential(torch.nn.Linear(2, 2), layer, torch.nn.Flatten())
    data = torch.randn(3, 2)
    hybrid(data).square().sum().backward()
    expected, layer.weight.grad = layer.weight.grad, None
    compiled = torch.compile(hybrid, backend="eager")
    torch.testing.assert_close(compiled(data), hybrid(data))
    compiled(data).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, expected)


def test_errors_say_what_is_wrong(model):
    circuit, inputs, _ = model
    layer = FusedProbabilityLayer(*model)
    middle = QuantumCircuit(1, 1)
    middle.measure(0, 0)
    middle.x(0)
    middle.measure(0, 0)
    for error, text, call in [
        (ValueError, "interpret is given without output_shape", lambda: FusedProbabilityLayer(*model, interpret=int)),
        (ValueError, "there is no interpret", lambda: FusedProbabilityLayer(*model, output_shape=2)),
        (
            ValueError,
            "interpret(2) is 2; allowed for output_shape (2,): integers from 0 to 1",
            lambda: FusedProbabilityLayer(*model, interpret=int, output_shape=2),
        ),
        (
            ValueError,
            "no qubit is measured into them at the end",
            lambda: FusedProbabilityLayer(QuantumCircuit(1, 1)),
        ),
        (UnsupportedInstruction, "is a mid-circuit measurement", lambda: FusedProbabilityLayer(middle)),
        (ValueError, "input_params contains 'None'", lambda: FusedProbabilityLayer(circuit, None, None)),
        (ValueError, "must be one input parameter or one weight", lambda: FusedProbabilityLayer(circuit, inputs)),
        (TypeError, "unknown option 'threads'", lambda: FusedProbabilityLayer(*model, threads=1)),
        (TypeError, "did you mean 'interpret'", lambda: FusedProbabilityLayer(*model, interprets=int)),
        (TypeError, "circuit must be a QuantumCircuit, not str", lambda: FusedProbabilityLayer("circuit")),
        (ValueError, "inputs have shape (2, 3); allowed: (..., 2)", lambda: layer(torch.zeros(2, 3))),
        (TypeError, "inputs are None; allowed: a tensor of shape (..., 2)", lambda: layer()),
    ]:
        with pytest.raises(error, match=re.escape(text)):
            call()


@pytest.mark.gpu
def test_tensors_of_a_gpu_go_in_and_come_out(layer):
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no GPU")
    data = torch.randn(4, 2)
    expected = layer(data)
    expected.square().sum().backward()
    on_cpu = layer.weight.grad
    layer.cuda()
    values = layer(data.cuda())
    values.square().sum().backward()
    torch.testing.assert_close(values.cpu(), expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(layer.weight.grad.cpu(), on_cpu, atol=5e-6, rtol=0)


@pytest.mark.parametrize("observables", ["ZI", ["ZI"], SparsePauliOp("ZI"), [SparsePauliOp("ZI")], {"ZI": 1.0}])
def test_observables_are_refused_as_such(observables):
    circuit = real_amplitudes(2, reps=1)
    with pytest.raises(
        TypeError, match=r"(?s)input_params contains the observable .*takes no observables; allowed: Fused"
    ):
        FusedProbabilityLayer(circuit, observables, circuit.parameters[:1], circuit.parameters[1:])
