# SPDX-License-Identifier: Apache-2.0
"""Tensors of a GPU go through the engine and come back without the host, in torch's stream.

Tensors of the CPU stand for tensors of a GPU. An emulated device, whose arrays NumPy refuses, stands for CuPy. The last
test needs a real GPU: it checks that streams and DLPack do what their documentation says.
"""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from cuda_emulation import missing_tools
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import real_amplitudes
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.circuit.library import raw_feature_vector
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.neural_networks import EstimatorQNN

from qiskit_fused import accelerate
from qiskit_fused.engines.cuda import device_data
from qiskit_fused.engines.cuda.engine import CudaEngine
from qiskit_fused.engines.interface import DoesNotFit
from qiskit_fused.execution import program_evaluation, row_functions
from qiskit_fused.execution.expectations import Expectations
from qiskit_fused.execution.row_functions import RowFunction
from qiskit_fused.program.outcomes import Outcomes

torch = pytest.importorskip("torch")
strict_device = pytest.importorskip("strict_device")
from qiskit_fused.machine_learning import torch_connector as connector_module  # noqa: E402
from qiskit_fused.torch import FusedLayer, expectation_values  # noqa: E402
from qiskit_fused.torch import functions as torch_module  # noqa: E402

pytestmark = pytest.mark.skipif(missing_tools() is not None, reason=str(missing_tools()))

OBSERVABLES = [SparsePauliOp(["ZZI", "IXY"], [1.0, -0.4]), SparsePauliOp("IIZ")]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-6}
HANDLE = 1234


@pytest.fixture(autouse=True)
def _same_numbers_every_time():
    torch.manual_seed(7)


@pytest.fixture
def gpu(monkeypatch):
    """Treat tensors of the CPU as tensors of an emulated GPU, which refuses arrays of the host."""
    runtime = strict_device.StrictRuntime()
    engine = CudaEngine(runtime, max_tile_qubits=5)
    for module in (torch_module, connector_module):
        monkeypatch.setattr(module, "is_on_gpu", lambda tensor: True)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=HANDLE))
    monkeypatch.setattr(row_functions, "choose_device", lambda *_: "cuda")
    real = program_evaluation.engine_for
    for module in (row_functions, program_evaluation):
        monkeypatch.setattr(
            module, "engine_for", lambda device, *rest: engine if device == "cuda" else real(device, *rest)
        )
    return SimpleNamespace(runtime=runtime, engine=engine)


def evaluate_on_the_cpu(monkeypatch):
    """Treat tensors as tensors of the CPU again, which the CPU engine evaluates."""
    monkeypatch.setattr(torch_module, "is_on_gpu", lambda tensor: False)
    monkeypatch.setattr(row_functions, "choose_device", lambda *_: "cpu")


@pytest.fixture
def host_calls(monkeypatch):
    """A list of the evaluations of `RowFunction` with arrays of the host: "values" or "value_and_vjp"."""
    made, evaluate = [], RowFunction.evaluate

    def watched(self, batch):
        if isinstance(batch.inputs, np.ndarray):
            made.append("values" if batch.cotangents is None else "value_and_vjp")
        return evaluate(self, batch)

    monkeypatch.setattr(RowFunction, "evaluate", watched)
    return made


def make_layer(dtype, affine=True, **options):
    """Return a layer whose inputs and weights are not in the order of the circuit's parameters."""
    x, w = ParameterVector("x", 2), ParameterVector("w", 6)
    circuit = QuantumCircuit(3)
    circuit.ry(x[0], 0)
    circuit.rz(2 * x[1] - 0.3 if affine else x[0] * x[1], 1)
    for qubit in range(3):
        circuit.rx(w[qubit], qubit)
        circuit.ry(w[3 + qubit], qubit)
        circuit.cz(qubit, (qubit + 1) % 3)
    circuit.swap(0, 2)
    weights = [w[k] for k in (3, 0, 5, 1, 4, 2)]
    return FusedLayer(circuit, OBSERVABLES, [x[1], x[0]], weights, **options).to(dtype)


def random_states(*shape, dtype=torch.float64):
    states = torch.randn(*shape, 8, dtype=dtype.to_complex())
    return states / states.norm(dim=-1, keepdim=True)


def run(layer, inputs, states=None, cotangents=None):
    """Return values and the gradients of weights, inputs and states, as detached tensors."""
    leaves = [layer.weight, inputs.detach().requires_grad_()]
    if states is not None:
        leaves.append(states.detach().requires_grad_())
    values = layer(*leaves[1:])
    return [values.detach(), *torch.autograd.grad(values, leaves, cotangents)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("with_states", [False, True], ids=["zero", "states"])
def test_values_and_gradients_are_equal_to_the_host(gpu, host_calls, monkeypatch, dtype, with_states):
    layer, inputs, cotangents = make_layer(dtype), torch.randn(5, 2, dtype=dtype), torch.randn(5, 2, dtype=dtype)
    states = random_states(5, dtype=dtype) if with_states else None
    actual = run(layer, inputs, states, cotangents)
    assert host_calls == [] and gpu.runtime.streams == [HANDLE, HANDLE]
    evaluate_on_the_cpu(monkeypatch)
    expected = run(layer, inputs, states, cotangents)
    assert host_calls == ["values", "value_and_vjp"]
    for result, reference in zip(actual, expected):
        assert result.dtype == reference.dtype and result.shape == reference.shape
        torch.testing.assert_close(result, reference, atol=TOLERANCE[dtype], rtol=0)


@pytest.mark.parametrize("input_gradients", [True, False])
@pytest.mark.parametrize("dtype", ["complex128", "complex64"])
def test_arrays_of_the_host_go_to_the_device_with_each_weight_once(gpu, monkeypatch, dtype, input_gradients):
    layer = make_layer(torch.float64)._double
    function = Expectations(layer.compiled, OBSERVABLES, *layer.parameters, dtype=dtype)
    rng = np.random.default_rng(0)
    rows, weights, cotangents = rng.normal(size=(50, 2)), rng.normal(size=6), rng.normal(size=(50, 2))
    uploads, to_device = [], gpu.runtime.to_device
    monkeypatch.setattr(gpu.runtime, "to_device", lambda array: uploads.append(array) or to_device(array))
    actual = function.value_and_vjp(rows, weights, cotangents, input_gradients=input_gradients)
    # The row and the observable of each pair, the first pair and the unit of each row; inputs, weights and cotangents.
    sizes = [array.nbytes for array in uploads]
    assert sizes[-2:] == [4 * (2 * 100 + 51 + 50), 8 * (50 * 2 + 6 + 50 * 2)]
    function.value_and_vjp(rows, weights + 1, cotangents, input_gradients=input_gradients)
    assert [array.nbytes for array in uploads[len(sizes) :]] == sizes[-1:]  # the pairs are on the device already
    gpu.runtime.copied.pop()
    assert gpu.runtime.copied == [8 * (100 + 100 * input_gradients + 6 + 2 * (not input_gradients))]
    evaluate_on_the_cpu(monkeypatch)
    expected = function.value_and_vjp(rows, weights, cotangents, input_gradients=input_gradients)
    assert (actual.inputs is None) == (not input_gradients)
    for result, reference in zip(actual, expected):
        if reference is not None:
            np.testing.assert_allclose(result, reference, rtol=0, atol=1e-12 if dtype == "complex128" else 1e-4)


def test_places_of_very_many_pairs_go_to_the_device_with_each_call(gpu, monkeypatch):
    monkeypatch.setattr(device_data, "_MAX_PLACES_BYTES", 400)
    layer = make_layer(torch.float64)._double
    function = Expectations(layer.compiled, OBSERVABLES, *layer.parameters)
    uploads, to_device = [], gpu.runtime.to_device
    monkeypatch.setattr(gpu.runtime, "to_device", lambda array: uploads.append(array) or to_device(array))
    for _ in range(2):
        actual = function.values(np.ones((50, 2)), np.linspace(-1, 1, 6))
        assert uploads[-1].nbytes == 8 * (50 * 2 + 6) + 4 * (3 * 100 + 51)
    evaluate_on_the_cpu(monkeypatch)
    np.testing.assert_allclose(actual, function.values(np.ones((50, 2)), np.linspace(-1, 1, 6)), rtol=0, atol=1e-12)


def test_rows_of_the_host_that_do_not_fit_the_device_are_evaluated_on_the_cpu(gpu, monkeypatch):
    layer = make_layer(torch.float64)._double
    function = Expectations(layer.compiled, OBSERVABLES, *layer.parameters)
    rows, weights = np.ones((3, 2)), np.linspace(-1, 1, 6)
    gpu.runtime.memory = 100
    actual = function.value_and_vjp(rows, weights, np.ones((3, 2)))
    evaluate_on_the_cpu(monkeypatch)
    for result, reference in zip(actual, function.value_and_vjp(rows, weights, np.ones((3, 2)))):
        assert reference is None or np.array_equal(result, reference)


def test_the_strict_device_refuses_arrays_of_the_host():
    runtime = strict_device.StrictRuntime()
    array, host = runtime.xp.zeros(3), np.ones(3)
    for mix in (
        lambda: np.asarray(array),
        lambda: np.isfinite(array),
        lambda: host + array,
        lambda: array * host,
        lambda: array.__iadd__(host),
        lambda: array.__setitem__(slice(0, 3), host),
        lambda: runtime.xp.isfinite(host),
        lambda: runtime.module("observe.cu", QF_DOUBLE=1, QF_TILE_QUBITS=3, QF_REGISTER_QUBITS=3).function("observe")(
            1, 32, (host,)
        ),
    ):
        with pytest.raises(TypeError):
            mix()
    assert np.array_equal(runtime.to_host(runtime.xp.asarray(host) + array), host)


def test_only_norms_are_copied_to_the_host(gpu):
    layer = make_layer(torch.float64)
    run(layer, torch.randn(50, 2, dtype=torch.float64), random_states(50), torch.randn(50, 2, dtype=torch.float64))
    assert gpu.runtime.copied == [400, 400]  # bytes of 50 norms, forward and backward


def test_double_tensors_and_results_share_their_memory_with_the_engine(gpu, monkeypatch):
    layer, inputs = make_layer(torch.float64), torch.randn(4, 2, dtype=torch.float64)
    states, cotangents = random_states(4), torch.randn(4, 2, dtype=torch.float64)
    taken, evaluations = [], []
    from_dlpack, evaluate = gpu.runtime.from_dlpack, gpu.engine.evaluate
    monkeypatch.setattr(
        gpu.runtime, "from_dlpack", lambda tensor: taken.append(tensor.data_ptr()) or from_dlpack(tensor)
    )
    monkeypatch.setattr(
        gpu.engine, "evaluate", lambda *a, **k: evaluations.append(evaluate(*a, **k)) or evaluations[-1]
    )
    values = layer(inputs, states)
    assert taken == [tensor.data_ptr() for tensor in (inputs, layer.weight, states)]
    assert values.data_ptr() == evaluations[0].values._memory.ctypes.data
    values.backward(cotangents)
    assert cotangents.data_ptr() in taken


def test_gradients_of_inputs_that_are_not_requested_are_no_array(gpu, monkeypatch):
    layer, inputs = make_layer(torch.float64), torch.randn(4, 2, dtype=torch.float64)
    evaluations, evaluate = [], gpu.engine.evaluate
    monkeypatch.setattr(
        gpu.engine, "evaluate", lambda *a, **k: evaluations.append(evaluate(*a, **k)) or evaluations[-1]
    )
    layer(inputs).sum().backward()
    assert evaluations[0].gradients is None
    assert evaluations[1].gradients.shape == (4, 0) and evaluations[1].sums.shape == (8,)
    layer(inputs.requires_grad_()).sum().backward()
    assert evaluations[3].gradients.shape == (4, 2) and evaluations[3].sums.shape == (6,)


def test_chunks_of_a_small_device_give_the_same_results(gpu, monkeypatch):
    layer, inputs, states = make_layer(torch.float64), torch.randn(40, 2, dtype=torch.float64), random_states(40)
    expected = run(layer, inputs, states, torch.ones(40, 2, dtype=torch.float64))
    gpu.runtime.memory = 25_000
    chunks, evaluate = [], gpu.engine.evaluate
    monkeypatch.setattr(gpu.engine, "evaluate", lambda *a, **k: chunks.append(evaluate(*a, **k)) or chunks[-1])
    actual = run(layer, inputs, states, torch.ones(40, 2, dtype=torch.float64))
    assert chunks[-1].stats["chunks"] > 1
    for result, reference in zip(actual, expected):
        torch.testing.assert_close(result, reference, atol=1e-13, rtol=0)


def test_half_precision_strided_and_conjugated_tensors_are_converted_on_the_gpu(gpu, host_calls):
    layer = make_layer(torch.float64)
    expected = layer(torch.tensor([[1.0, -2.0]], dtype=torch.float64))
    for dtype in (torch.int64, torch.bfloat16, torch.float16):
        assert torch.equal(layer(torch.tensor([[1, -2]], dtype=dtype)), expected)
    inputs, states = torch.randn(2, 3, dtype=torch.float64).T, random_states(3)
    torch.testing.assert_close(layer(inputs, states.conj()), layer(inputs.contiguous(), states.conj().resolve_conj()))
    assert host_calls == []


def test_expressions_encodings_and_empty_batches_are_evaluated_from_the_host(gpu, host_calls):
    inputs = torch.randn(3, 2, dtype=torch.float64)
    make_layer(torch.float64, affine=False)(inputs)
    ansatz = real_amplitudes(2, reps=1)
    encoding = raw_feature_vector(4)
    FusedLayer(encoding.compose(ansatz), ["ZI"], encoding.parameters, ansatz.parameters).double()(torch.ones(1, 4))
    make_layer(torch.float64)(torch.zeros(0, 2))
    assert host_calls == ["values"] * 3 and gpu.runtime.streams == []


def test_batches_that_share_gates_are_evaluated_from_the_host(gpu, host_calls):
    weights, x = ParameterVector("w", 80), ParameterVector("x", 1)
    circuit = QuantumCircuit(4)
    for k, weight in enumerate(weights):
        circuit.ry(weight, k % 4)
        circuit.cx(k % 4, (k + 1) % 4)
    circuit.rx(x[0], 0)
    layer = FusedLayer(circuit, ["ZZZZ"], x, weights).double()
    layer(torch.randn(10, 1, dtype=torch.float64))
    assert host_calls == []
    layer(torch.randn(5000, 1, dtype=torch.float64))
    assert host_calls == ["values"]


def test_real_states_stay_on_the_device_too(gpu, host_calls, monkeypatch):
    circuit = real_amplitudes(6, reps=2)
    layer = FusedLayer(circuit, ["ZZIXXI", "IIZIIY"], circuit.parameters[:2], circuit.parameters[2:]).double()
    inputs = torch.randn(3, 2, dtype=torch.float64)
    actual = run(layer, inputs, cotangents=torch.ones(3, 2, dtype=torch.float64))
    assert host_calls == []
    evaluate_on_the_cpu(monkeypatch)
    for result, reference in zip(actual, run(layer, inputs, cotangents=torch.ones(3, 2, dtype=torch.float64))):
        torch.testing.assert_close(result, reference, atol=1e-12, rtol=0)


@pytest.mark.parametrize("table", [None, [0, 1, 1, -1]], ids=["bitstrings", "table"])
@pytest.mark.parametrize("dtype", ["complex128", "complex64"])
def test_probabilities_of_outcomes_stay_on_the_device(gpu, host_calls, monkeypatch, table, dtype):
    expected = make_layer(torch.float64)._double
    outcomes = Outcomes(3, [2, 0], table, 4 if table is None else 2)
    function = Expectations(expected.compiled, outcomes, *expected.parameters, dtype=dtype)
    leaves = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((6,), (5, 2))]
    cotangents = torch.randn(5, len(outcomes), dtype=torch.float64)

    def answers():
        values = expectation_values(function, *leaves)
        return [values.detach(), *torch.autograd.grad(values, leaves, cotangents)]

    actual = answers()
    assert host_calls == []
    assert gpu.runtime.copied == []  # no value and no state is copied to the host
    evaluate_on_the_cpu(monkeypatch)
    for result, reference in zip(actual, answers()):
        torch.testing.assert_close(result, reference, atol=1e-12 if dtype == "complex128" else 1e-5, rtol=0)


def test_a_device_that_is_too_small_leaves_the_work_to_the_host(gpu, host_calls, monkeypatch):
    def refuse(*_, **__):
        raise DoesNotFit("too small")

    monkeypatch.setattr(gpu.engine, "evaluate", refuse)
    layer = make_layer(torch.float64)
    run(layer, torch.randn(2, 2, dtype=torch.float64), cotangents=torch.ones(2, 2, dtype=torch.float64))
    assert host_calls == ["values", "value_and_vjp"]


def test_errors_are_the_errors_of_the_host(gpu):
    layer = make_layer(torch.float64)
    inputs = torch.zeros(2, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"'x\[0\]' in row 1 is nan"):
        layer(torch.tensor([[0, 0], [0, np.nan]], dtype=torch.float64))
    with pytest.raises(ValueError, match="state of row 1 of initial_states has the norm 2"):
        layer(inputs, torch.tensor([[1.0], [2.0]]) * torch.eye(8)[0])
    with pytest.raises(ValueError, match="cotangent of observable 1 in row 0 is inf"):
        layer(inputs).backward(torch.tensor([[0.0, np.inf], [0.0, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize("shape", [(2, 4), (2, 16), (1, 2, 8), (8,), (3, 8), (0, 8)])
def test_wrong_shapes_of_states_are_the_errors_of_the_host(gpu, host_calls, monkeypatch, shape):
    layer = make_layer(torch.float64)
    states = torch.zeros(shape, dtype=torch.float64)
    states[..., 0] = 1.0

    def error():
        with pytest.raises(ValueError, match="initial_states") as caught:
            expectation_values(layer._double, layer.weight, torch.zeros(2, 2, dtype=torch.float64), states)
        return str(caught.value)

    actual = error()
    assert host_calls == []
    evaluate_on_the_cpu(monkeypatch)
    assert actual == error()


def test_large_cotangents_of_complex64_are_scaled_on_the_host(gpu, host_calls, monkeypatch):
    layer = make_layer(torch.float64)
    layer._double = Expectations(
        layer._double.compiled, [SparsePauliOp("ZZZ", [1e10])], *layer._double.parameters, dtype="complex64"
    )
    inputs, cotangents = torch.full((2, 2), 0.3, dtype=torch.float64), torch.full((2, 1), 1e30, dtype=torch.float64)
    actual = run(layer, inputs, cotangents=cotangents)
    assert host_calls == ["value_and_vjp"]
    evaluate_on_the_cpu(monkeypatch)
    for result, reference in zip(actual[1:], run(layer, inputs, cotangents=cotangents)[1:]):
        assert torch.isfinite(result).all() and torch.equal(result, reference)


@pytest.mark.parametrize("input_gradients", [False, True])
def test_an_accelerated_connector_stays_on_the_gpu(gpu, host_calls, monkeypatch, input_gradients):
    features, x, ansatz = QuantumCircuit(2), ParameterVector("x", 2), real_amplitudes(2, reps=1)
    features.rx(x[0], 0)
    features.ry(x[1], 1)
    qnn = EstimatorQNN(
        circuit=features.compose(ansatz),
        observables=[SparsePauliOp("ZZ"), SparsePauliOp("IX")],
        input_params=list(x),
        weight_params=ansatz.parameters,
        input_gradients=input_gradients,
    )
    module = accelerate(TorchConnector(qnn))

    def answers(inputs):
        inputs = inputs.detach().requires_grad_()
        values = module(inputs)
        leaves = [module.weight, *([inputs] if input_gradients else [])]
        return [values.detach(), *torch.autograd.grad(values.square().sum(), leaves)]

    for shape in ((4, 2), (2, 3, 2), (2,)):
        inputs = torch.randn(*shape)
        actual = answers(inputs)
        assert host_calls == []
        with monkeypatch.context() as patch:
            patch.setattr(connector_module, "is_on_gpu", lambda tensor: False)
            expected = answers(inputs)
        assert host_calls == ["values", "value_and_vjp"]
        host_calls.clear()
        for result, reference in zip(actual, expected):
            assert result.dtype == reference.dtype
            torch.testing.assert_close(result, reference, atol=1e-6, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("own_stream", [False, True], ids=["default stream", "own stream"])
@pytest.mark.parametrize("with_states", [False, True], ids=["zero", "states"])
def test_a_real_gpu_gives_the_results_of_the_host(host_calls, with_states, own_stream):
    from qiskit_fused.engines.cuda.availability import usable_gpu

    if not torch.cuda.is_available() or usable_gpu()[0] is None:
        pytest.skip("needs a GPU that PyTorch and CuPy can use")
    on_host, dtype = make_layer(torch.float64), torch.float64
    layer = make_layer(dtype, device="cuda")
    layer.load_state_dict(on_host.state_dict())
    layer.cuda()
    inputs, cotangents = torch.randn(500, 2, dtype=dtype), torch.randn(500, 2, dtype=dtype)
    states = random_states(500) if with_states else None
    expected = run(on_host, inputs, states, cotangents)
    host_calls.clear()
    with torch.cuda.stream(torch.cuda.Stream() if own_stream else None):
        tensors = [None if tensor is None else tensor.cuda() for tensor in (inputs, states, cotangents)]
        for _ in range(3):
            # Torch is still computing its tensors when the engine is called, and when the results are read.
            scaled = 2 * (tensors[0] / 2)
            actual = [tensor * 1 for tensor in run(layer, scaled, *tensors[1:])]
        actual = [tensor.cpu() for tensor in actual]
    assert host_calls == []
    for result, reference in zip(actual, expected):
        torch.testing.assert_close(result, reference, atol=1e-11, rtol=0)
