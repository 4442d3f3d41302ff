# SPDX-License-Identifier: Apache-2.0
"""FusedLayer agrees with Qiskit, TorchConnector and numerical derivatives, and works with PyTorch's tools."""

import copy
import io
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import real_amplitudes
from qiskit.quantum_info import SparsePauliOp, Statevector
from qiskit_machine_learning.circuit.library import raw_feature_vector
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.neural_networks import EstimatorQNN

from qiskit_fused import FusedEstimator, FusedEstimatorGradient, FusedOptions, compile_circuit
from qiskit_fused.execution.expectations import Expectations
from qiskit_fused.execution.row_functions import RowFunction

torch = pytest.importorskip("torch")
from qiskit_fused.torch import FusedLayer, expectation_values  # noqa: E402

OBSERVABLES = [SparsePauliOp(["ZZI", "IXY"], [1.0, -0.4]), SparsePauliOp("IIZ")]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6}


@pytest.fixture(autouse=True)
def _same_numbers_every_time():
    torch.manual_seed(7)


@pytest.fixture
def model():
    """Return a circuit with its 2 input parameters and 6 weight parameters."""
    inputs, weights = ParameterVector("x", 2), ParameterVector("w", 6)
    circuit = QuantumCircuit(3)
    circuit.ry(inputs[0], 0)
    circuit.rz(inputs[0] * inputs[1], 1)
    for qubit in range(3):
        circuit.rx(weights[qubit], qubit)
        circuit.ry(weights[3 + qubit], qubit)
        circuit.cz(qubit, (qubit + 1) % 3)
    return circuit, list(inputs), list(weights)


@pytest.fixture
def layer(model):
    circuit, inputs, weights = model
    return FusedLayer(circuit, OBSERVABLES, inputs, weights)


@pytest.fixture
def calls(monkeypatch):
    """Record the batches that a `RowFunction` evaluates, and the number format."""
    made, evaluate = [], RowFunction.evaluate

    def spy(self, batch):
        made.append((batch, self.options.dtype))
        return evaluate(self, batch)

    monkeypatch.setattr(RowFunction, "evaluate", spy)
    return made


def exact(model, inputs, weights, states=None):
    """Return Qiskit's expectation values (B, K), one row at a time."""
    circuit, input_parameters, weight_parameters = model
    rows = []
    for index, row in enumerate(np.asarray(inputs, dtype=float)):
        values = dict(zip(input_parameters, row)) | dict(zip(weight_parameters, np.asarray(weights, dtype=float)))
        start = Statevector.from_int(0, 8) if states is None else Statevector(states[index])
        final = start.evolve(circuit.assign_parameters(values))
        rows.append([final.expectation_value(observable).real for observable in OBSERVABLES])
    return np.array(rows)


def random_states(*shape, real=False, dtype=torch.float64):
    states = torch.randn(*shape, 8, dtype=dtype if real else dtype.to_complex())
    return states / states.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_are_those_of_qiskit(model, layer, dtype):
    inputs = torch.randn(4, 2, dtype=dtype)
    values = layer.to(dtype)(inputs)
    assert values.dtype == dtype and values.shape == (4, 2)
    expected = exact(model, inputs, layer.weight.detach())
    np.testing.assert_allclose(values.detach().numpy(), expected, atol=TOLERANCE[dtype])


def test_gradcheck_of_weights_and_inputs(layer):
    layer.double()
    inputs = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    expectations = layer._double
    assert torch.autograd.gradcheck(
        lambda weight, inputs: expectation_values(expectations, weight, inputs), (layer.weight, inputs)
    )
    assert torch.autograd.gradcheck(layer, (torch.randn(2, 2, 2, dtype=torch.float64, requires_grad=True),))


@pytest.mark.parametrize("real", [False, True], ids=["complex", "real"])
def test_gradcheck_of_initial_states_through_their_normalisation(layer, real):
    layer.double()
    inputs = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    raw = random_states(2, real=real).requires_grad_()

    def values(inputs, raw, weight):
        states = raw / raw.norm(dim=-1, keepdim=True)
        return expectation_values(layer._double, weight, inputs, states)

    assert torch.autograd.gradcheck(values, (inputs, raw, layer.weight))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("real", [False, True], ids=["complex", "real"])
def test_rows_start_from_initial_states(model, layer, dtype, real):
    inputs, states = torch.randn(4, 2, dtype=dtype), random_states(4, real=real, dtype=dtype)
    values = layer.to(dtype)(inputs, states).detach().numpy()
    normalised = states.numpy().astype(complex)
    normalised /= np.linalg.norm(normalised, axis=1, keepdims=True)
    expected = exact(model, inputs, layer.weight.detach(), normalised)
    np.testing.assert_allclose(values, expected, atol=TOLERANCE[dtype])
    assert torch.equal(layer(inputs, states.conj().resolve_conj()), layer(inputs, states.conj()))


def test_gradcheck_of_inputs_that_are_amplitudes():
    encoding, ansatz = raw_feature_vector(4), real_amplitudes(2, reps=1)
    layer = FusedLayer(encoding.compose(ansatz), ["ZI", "IX"], encoding.parameters, ansatz.parameters).double()
    assert torch.autograd.gradcheck(layer, (torch.randn(3, 4, dtype=torch.float64, requires_grad=True),))


def test_initial_states_broadcast_with_inputs(layer):
    layer.double()
    states = random_states(3, 1)
    inputs = torch.randn(2, 2, dtype=torch.float64)
    together = layer(inputs, states)
    assert together.shape == (3, 2, 2)
    for row in range(3):
        torch.testing.assert_close(together[row], layer(inputs, states[row, 0].expand(2, 8)))


def test_leading_dimensions_are_kept(layer):
    inputs = torch.randn(2, 3, 4, 2)
    values = layer(inputs)
    assert values.shape == (2, 3, 4, 2)
    assert torch.equal(values.reshape(24, 2), layer(inputs.reshape(24, 2)))
    torch.testing.assert_close(values[1, 2, 3], layer(inputs[1, 2, 3]))  # rows of a batch are in packs, one row is not
    assert torch.equal(layer(inputs.transpose(0, 2)), values.transpose(0, 2))  # not contiguous
    assert layer(torch.zeros(0, 2)).shape == (0, 2)
    empty = layer(torch.zeros(5, 0, 2))
    assert empty.shape == (5, 0, 2)
    empty.sum().backward()
    assert torch.equal(layer.weight.grad, torch.zeros(6))


def test_a_circuit_without_inputs_needs_none(model):
    circuit, inputs, weights = model
    circuit = circuit.assign_parameters({inputs[0]: 0.3, inputs[1]: -0.7})
    layer = FusedLayer(circuit, OBSERVABLES, weight_params=weights)
    expected = exact(model, [[0.3, -0.7]], layer.weight.detach())
    np.testing.assert_allclose(layer().detach().numpy(), expected[0], atol=1e-6)
    np.testing.assert_allclose(layer(torch.zeros(1, 0)).detach().numpy(), expected, atol=1e-6)
    assert layer(None, random_states(5, dtype=torch.float32)).shape == (5, 2)
    layer()[0].backward()
    assert layer.weight.grad.abs().max() > 0


def test_a_circuit_without_weights_differentiates_its_inputs(model):
    circuit, inputs, weights = model
    circuit = circuit.assign_parameters(dict(zip(weights, np.linspace(0.1, 2, 6))))
    layer = FusedLayer(circuit, OBSERVABLES, inputs).double()
    assert layer.weight.shape == (0,) and list(layer.state_dict()) == ["weight"]
    assert torch.autograd.gradcheck(layer, (torch.randn(2, 2, dtype=torch.float64, requires_grad=True),))


def test_integers_and_half_precision_are_inputs_too(model, layer):
    layer.double()
    expected = layer(torch.tensor([[1.0, -2.0]], dtype=torch.float64))
    for dtype in (torch.int64, torch.int8, torch.bfloat16, torch.float16, torch.float32):
        inputs = torch.tensor([[1, -2]], dtype=dtype, requires_grad=dtype.is_floating_point)
        values = layer(inputs)
        assert torch.equal(values, expected)
        if inputs.requires_grad:
            values.sum().backward()
            assert inputs.grad.dtype == dtype and inputs.grad.abs().max() > 0


def test_the_weights_decide_the_number_format_unless_an_option_does(model, calls):
    circuit, inputs, weights = model
    data = torch.randn(1, 2)

    def formats(**options):
        layer = FusedLayer(circuit, OBSERVABLES, inputs, weights, **options)
        calls.clear()
        for dtype in (torch.float32, torch.float64, torch.float16):
            layer.to(dtype)(data).sum().backward()
        return [dtype for *_, dtype in calls[::2]]

    assert formats() == formats(num_threads=1) == ["complex64", "complex128", "complex64"]
    assert formats(options={"num_threads": 1}) == ["complex64", "complex128", "complex64"]
    assert formats(dtype="complex128") == formats(options=FusedOptions()) == ["complex128"] * 3
    assert formats(options={"dtype": "complex64"}) == ["complex64"] * 3


def test_one_sweep_back_for_all_observables_and_only_what_is_needed(layer, calls):
    inputs = torch.randn(4, 2)
    with torch.no_grad():
        assert not layer(inputs).requires_grad
    assert [batch.cotangents for batch, _ in calls] == [None]
    layer(inputs).sum().backward()
    assert [batch.cotangents is None for batch, _ in calls[1:]] == [True, False]
    assert calls[-1][0].input_gradients is False
    layer(inputs.requires_grad_()).sum().backward()
    assert calls[-1][0].input_gradients is True
    assert inputs.grad.shape == (4, 2)
    layer.weight.requires_grad_(False)
    layer.weight.grad = None
    layer(inputs).sum().backward()
    assert layer.weight.grad is None


def test_double_tensors_share_their_memory_with_the_engine(layer, calls):
    layer.double()
    inputs, states = torch.randn(4, 2, dtype=torch.float64), random_states(4)
    values = layer(inputs, states)
    cotangents = torch.randn(4, 2, dtype=torch.float64)
    values.backward(cotangents)
    assert len(calls) == 2
    for batch, _ in calls:
        assert np.shares_memory(batch.inputs, inputs.numpy())
        assert np.shares_memory(batch.weights, layer.weight.detach().numpy())
        assert np.shares_memory(batch.initial_states, states.numpy())
        assert batch.cotangents is None or np.shares_memory(batch.cotangents, cotangents.numpy())


def test_weights_changed_between_forward_and_backward_are_an_error(layer):
    values = layer(torch.randn(2, 2))
    with torch.no_grad():
        layer.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        values.sum().backward()


def test_it_starts_and_trains_as_a_torch_connector_does(model):
    circuit, inputs, weights = model
    qnn = EstimatorQNN(
        circuit=circuit,
        observables=OBSERVABLES,
        input_params=inputs,
        weight_params=weights,
        estimator=FusedEstimator(),
        gradient=FusedEstimatorGradient(),
        input_gradients=True,
    )
    torch.manual_seed(3)
    connector = TorchConnector(qnn)
    torch.manual_seed(3)
    layer = FusedLayer(circuit, OBSERVABLES, inputs, weights)
    assert torch.equal(layer.state_dict()["weight"], connector.state_dict()["weight"])
    data, targets = torch.randn(8, 2), torch.randn(8, 2)
    for module in (connector, layer):
        optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
        losses = []
        for _ in range(5):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(module(data), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]
    torch.testing.assert_close(layer.weight, connector.weight, atol=1e-5, rtol=0)


def test_a_layer_between_layers_trains_those_before_it(layer):
    hybrid = torch.nn.Sequential(torch.nn.Linear(5, 2), torch.nn.Tanh(), layer, torch.nn.Linear(2, 1))
    data = torch.randn(6, 5)
    hybrid(data).sum().backward()
    parameter, step = hybrid[0].weight, 1e-3
    with torch.no_grad():
        parameter[1, 2] += step
        above = hybrid(data).sum()
        parameter[1, 2] -= 2 * step
        below = hybrid(data).sum()
    assert parameter.grad[1, 2].item() == pytest.approx((above - below).item() / (2 * step), abs=5e-3)
    with torch.autocast("cpu", torch.bfloat16):  # the linear layer returns bfloat16
        hybrid(data).sum().backward()


def test_initial_weights(model):
    circuit, inputs, weights = model

    def weight_of(initial):
        return FusedLayer(circuit, OBSERVABLES, inputs, weights, initial).weight

    default = weight_of(None)
    assert default.abs().max() <= 1 and len(set(default.tolist())) == 6
    assert weight_of(range(6)).tolist() == [0, 1, 2, 3, 4, 5]
    assert weight_of(np.linspace(0, 1, 6)).dtype == torch.float32
    given = torch.linspace(0, 1, 6, dtype=torch.float64, requires_grad=True)
    copied = weight_of(given)
    assert copied.dtype == torch.float64 and torch.equal(copied, given) and copied.data_ptr() != given.data_ptr()
    assert torch.equal(weight_of(torch.nn.init.zeros_), torch.zeros(6))
    assert weight_of(lambda weight: torch.nn.init.constant_(weight, math.pi)).tolist() == pytest.approx([math.pi] * 6)
    with pytest.raises(ValueError, match=r"initial_weights have shape \(5,\); allowed: \(6,\)"):
        weight_of(range(5))
    for wrong in ([1j] * 6, torch.full((6,), 1j), ["0.5"] * 6, [None] * 6):
        with pytest.raises(TypeError, match=r"initial_weights.* (is|are) .*; allowed"):
            weight_of(wrong)


def test_what_stands_in_the_wrong_place_is_named(layer):
    weight, inputs = layer.weight, torch.zeros(1, len(_parameters(layer)[0]))
    with pytest.raises(TypeError, match="expectations must be an Expectations, not QuantumCircuit; for a circuit"):
        expectation_values(QuantumCircuit(1), weight, inputs)
    for arguments in (("ZZZ", inputs), (weight, np.zeros((1, 2))), (weight, None), (weight, inputs, "state")):
        with pytest.raises(TypeError, match=r"must be a torch.Tensor, not (str|ndarray|NoneType)"):
            expectation_values(layer._single, *arguments)


def test_reset_parameters_starts_again(layer):
    before = layer.weight.detach().clone()
    layer.reset_parameters()
    assert not torch.equal(layer.weight, before)
    again = FusedLayer(layer._double.compiled, OBSERVABLES, *_parameters(layer), initial_weights=[0.5] * 6)
    again.weight.data.zero_()
    again.reset_parameters()
    assert again.weight.tolist() == [0.5] * 6


def _parameters(layer):
    names = layer._double.compiled.parameters
    return [p for p in names if p.name[0] == "x"], [p for p in names if p.name[0] == "w"]


def test_state_dict_copies_and_pickles_give_the_same_values(model, layer):
    circuit, inputs, weights = model
    data = torch.randn(3, 2)
    expected = layer(data)
    other = FusedLayer(compile_circuit(circuit), OBSERVABLES, inputs, weights)
    assert not torch.equal(other(data), expected)
    other.load_state_dict(layer.state_dict(), strict=True)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    copied = copy.deepcopy(layer)
    for twin in (other, copied, torch.load(file, weights_only=False)):
        assert torch.equal(twin(data), expected)
    copied(data).sum().backward()
    assert copied.weight.grad is not None and layer.weight.grad is None
    assert "num_inputs=2, num_observables=2, num_weights=6, num_qubits=3" in repr(layer)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch.compile reads .grad
def test_a_compiled_model_calls_the_layer_as_it_is(layer):
    hybrid = torch.nn.Sequential(torch.nn.Linear(2, 2), layer)
    data = torch.randn(3, 2)
    hybrid(data).sum().backward()
    expected, layer.weight.grad = layer.weight.grad, None
    compiled = torch.compile(hybrid, backend="eager")
    torch.testing.assert_close(compiled(data), hybrid(data))
    compiled(data).sum().backward()
    torch.testing.assert_close(layer.weight.grad, expected)


class Encoded(torch.utils.data.Dataset):
    """A data set whose rows are outputs of a layer, computed in the worker that loads them."""

    def __init__(self, layer, data):
        self.layer, self.data = layer, data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        with torch.no_grad():
            return self.layer(self.data[index])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # os.fork in Python 3.12
def test_forked_workers_of_a_data_loader_use_the_layer(layer):
    data = torch.randn(8, 2)
    expected = layer(data).detach()  # starts the engine and its threads before the fork
    loader = torch.utils.data.DataLoader(
        Encoded(layer, data), batch_size=4, num_workers=2, multiprocessing_context="fork"
    )
    torch.testing.assert_close(torch.cat(list(loader)), expected)


DISTRIBUTED = """
import sys
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit_fused.torch import FusedLayer, FusedProbabilityLayer

rank, folder, kind = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
x, w = ParameterVector("x", 2), ParameterVector("w", 2)
circuit = QuantumCircuit(2)
for qubit in range(2):
    circuit.rx(x[qubit], qubit)
    circuit.ry(w[qubit], qubit)
circuit.cx(0, 1)
given = [0.1 * rank, 0.2]  # rank 0 has the weights
if kind == "FusedLayer":
    layer = FusedLayer(circuit, ["ZZ", "IX"], x, w, given, num_threads=1)
else:
    layer = FusedProbabilityLayer(circuit, x, w, given, num_threads=1)
data = torch.linspace(-1, 1, 8).reshape(4, 2)
alone = torch.nn.parallel.DistributedDataParallel(layer)
alone(data[2 * rank : 2 * rank + 2]).square().sum(1).mean().backward()
shared, layer.weight.grad = layer.weight.grad, None
assert layer.weight[0] == 0
layer(data).square().sum(1).mean().backward()
torch.testing.assert_close(shared, layer.weight.grad)
torch.distributed.destroy_process_group()
print("agreed")
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
@pytest.mark.parametrize("kind", ["FusedLayer", "FusedProbabilityLayer"])
@pytest.mark.slow
def test_two_distributed_processes_average_their_gradients(tmp_path, kind):
    with ThreadPoolExecutor() as threads:  # each thread waits for the other
        for worker in threads.map(lambda rank: run_python(DISTRIBUTED, str(rank), str(tmp_path), kind), range(2)):
            assert worker.stdout.strip() == "agreed", worker.stderr


def test_importing_the_package_leaves_torch_alone_and_a_missing_torch_has_a_cure():
    script = """
import sys
import qiskit_fused
assert "torch" not in sys.modules
sys.modules["torch"] = None
try:
    import qiskit_fused.torch
except ImportError as error:
    print(error)
"""
    process = run_python(script)
    assert "pip install torch" in process.stdout, process.stderr


def run_python(script, *arguments):
    """Run a script in a process with the same package path."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(
        command, cwd=Path(__file__).parent, env=environment, capture_output=True, text=True, timeout=120
    )


def test_errors_say_what_is_wrong(model, layer):
    circuit, inputs, weights = model
    good = torch.zeros(2, 2)
    for error, text, call in [
        (TypeError, r"inputs are None; allowed: a tensor of shape \(\.\.\., 2\)", lambda: layer()),
        (TypeError, "inputs must be a torch.Tensor, not ndarray", lambda: layer(np.zeros((2, 2)))),
        (TypeError, "inputs are complex", lambda: layer(good + 1j)),
        (ValueError, r"inputs have shape \(2, 3\); allowed: \(\.\.\., 2\)", lambda: layer(torch.zeros(2, 3))),
        (ValueError, r"inputs have shape \(\)", lambda: layer(torch.tensor(1.0))),
        (ValueError, r"'x\[1\]' in row 1 is nan", lambda: layer(torch.tensor([[0, 0], [0, math.nan]]))),
        (ValueError, r"on device 'meta', the weights on 'cpu'; use layer.to\('meta'\)", lambda: layer(good.to("meta"))),
        (TypeError, "initial_states must be a torch.Tensor", lambda: layer(good, np.zeros((2, 8)))),
        (ValueError, r"initial_states of shape \(3, 8\) do not go with", lambda: layer(good, random_states(3))),
        (ValueError, "row 1", lambda: layer(good, torch.tensor([[1.0], [2.0]]) * torch.eye(8)[0])),
        (TypeError, "unknown option 'threads'", lambda: FusedLayer(circuit, "ZZZ", inputs, weights, threads=1)),
        (ValueError, "option dtype is torch.float64", lambda: FusedLayer(circuit, "ZZZ", dtype=torch.float64)),
    ]:
        with pytest.raises(error, match=text):
            call()


def test_the_names_of_a_network_are_those_of_a_layer_and_old_ones_still_work(model):
    circuit, inputs, weights = model
    data, given = torch.randn(3, 2), [0.1] * 6
    expected = FusedLayer(circuit, OBSERVABLES, inputs, weights, given)(data)
    named = FusedLayer(
        circuit=circuit, observables=OBSERVABLES, input_params=inputs, weight_params=weights, initial_weights=given
    )
    assert torch.equal(named(data), expected)
    with pytest.warns(FutureWarning, match="_parameters of FusedLayer is now called (input|weight)_params") as record:
        old = FusedLayer(
            circuit, OBSERVABLES, input_parameters=inputs, weight_parameters=weights, initial_weights=given
        )
    assert len(record) == 2 and record[0].filename == __file__
    assert torch.equal(old(data), expected)
    with pytest.raises(TypeError, match="given input_params and input_parameters, its old name"):
        FusedLayer(circuit, OBSERVABLES, input_params=inputs, input_parameters=inputs)
    with pytest.warns(FutureWarning), pytest.raises(TypeError, match="multiple values for argument 'input_params'"):
        FusedLayer(circuit, OBSERVABLES, inputs, input_parameters=inputs)
    with pytest.raises(TypeError, match="did you mean 'input_params'"):
        FusedLayer(circuit, OBSERVABLES, input_parms=inputs)
    with pytest.raises(
        TypeError, match="and the arguments circuit, observables, input_params, weight_params, initial_"
    ):
        FusedLayer(circuit, OBSERVABLES, features=inputs)


def test_initial_weights_may_be_named_and_no_observable_is_z_on_all_qubits(model):
    circuit, inputs, weights = model
    numbers = np.linspace(0, 1, 6)
    layer = FusedLayer(circuit, None, inputs, weights, dict(zip(reversed(weights), numbers[::-1])))
    torch.testing.assert_close(layer.weight.detach(), torch.tensor(numbers, dtype=torch.float32))
    data = torch.randn(3, 2)
    assert torch.equal(layer(data), FusedLayer(circuit, "ZZZ", inputs, weights, numbers)(data))
    with pytest.raises(ValueError, match=r"initial_weights has no values of 'w\[1\]'"):
        FusedLayer(circuit, None, inputs, weights, {"w[0]": 0.1, "w[2]": 0, "w[3]": 0, "w[4]": 0, "w[5]": 0})


def test_observables_changed_in_place_count_from_the_next_forward_pass_on(model):
    circuit, inputs, weights = model
    observable = SparsePauliOp(["ZZI", "IXY"], [1.0, -0.4])
    layer = FusedLayer(circuit, observable, inputs, weights, [0.1] * 6, dtype="complex128")
    data = torch.randn(3, 2, requires_grad=True)
    values = layer(data)
    (slope,) = torch.autograd.grad(values.sum(), data, retain_graph=True)
    observable.coeffs[:] *= 3
    # A backward pass uses the observables of its own forward pass.
    assert torch.equal(torch.autograd.grad(values.sum(), data)[0], slope)
    torch.testing.assert_close(layer(data), 3 * values)
    for twin in (copy.deepcopy(layer), layer):
        torch.testing.assert_close(torch.autograd.grad(twin(data).sum(), data)[0], 3 * slope)


def test_a_function_of_tensors_wants_expectations(model):
    circuit = model[0]
    with pytest.raises(
        TypeError, match=r"expectations must be an Expectations, not QuantumCircuit; for a circuit, make"
    ):
        expectation_values(circuit, "ZZZ", torch.zeros(3, 2))
    with pytest.raises(TypeError, match=r"weight must be a torch\.Tensor, not list"):
        expectation_values(Expectations(circuit, "ZZZ", (), circuit.parameters), [0.0] * 8, torch.zeros(1, 0))


@pytest.mark.gpu
def test_tensors_of_a_gpu_go_in_and_come_out(layer):
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no GPU")
    data = torch.randn(4, 2)
    expected = layer(data)
    expected.sum().backward()
    on_cpu = layer.weight.grad
    layer.cuda()
    values = layer(data.cuda())
    values.sum().backward()
    torch.testing.assert_close(values.cpu(), expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(layer.weight.grad.cpu(), on_cpu, atol=5e-6, rtol=0)
