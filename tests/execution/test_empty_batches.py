# SPDX-License-Identifier: Apache-2.0
"""A batch without rows gives values (0, K) and gradients (0, K, P) at every entry point."""

import numpy as np
import pytest
from qiskit.circuit import ParameterVector, QuantumCircuit
from qiskit.circuit.library import real_amplitudes
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.gradients import ParamShiftEstimatorGradient

from qiskit_fused import FusedEstimator, FusedEstimatorGradient, FusedEstimatorQNN, FusedOptions, FusedSampler
from qiskit_fused.execution.expectations import Expectations

INPUTS, ANSATZ = ParameterVector("x", 2), real_amplitudes(2, reps=1)
K, N, W = 3, 2, ANSATZ.num_parameters  # numbers of outputs, inputs of a row, and weights
P = N + W
OBSERVABLES = [SparsePauliOp(label) for label in ("ZZ", "XI", "IY")]


def make_circuit():
    circuit = QuantumCircuit(2)
    circuit.ry(INPUTS[0], 0)
    circuit.rx(INPUTS[1], 1)
    return circuit.compose(ANSATZ)


CIRCUIT = make_circuit()
WEIGHTS = np.zeros(W)


def make_network(**options):
    return FusedEstimatorQNN(
        circuit=CIRCUIT, observables=OBSERVABLES, input_params=INPUTS, weight_params=ANSATZ.parameters, **options
    )


def shapes(arrays):
    return tuple(None if array is None else tuple(array.shape) for array in arrays)


def test_values_and_gradients_of_no_rows_are_empty(device):
    gradient = FusedEstimatorGradient(device=device)
    no_rows = np.zeros((0, P))
    assert shapes(gradient.value_and_gradient(CIRCUIT, OBSERVABLES, no_rows)) == ((0, K), (0, K, P))
    assert shapes(gradient.value_and_gradient(CIRCUIT, OBSERVABLES, no_rows, INPUTS)) == ((0, K), (0, K, N))
    states = gradient.value_and_gradient(CIRCUIT, OBSERVABLES, no_rows, initial_states=np.zeros((0, 4)))
    assert shapes(states) == ((0, K), (0, K, P))
    assert gradient.run([], [], []).result().gradients == []


@pytest.mark.parametrize("num_rows", [0, 2])
def test_second_derivatives_of_no_rows_or_no_parameters_are_empty(device, num_rows):
    gradient, constant = FusedEstimatorGradient(device=device), QuantumCircuit(2)
    constant.h(0)
    for circuit in (CIRCUIT, constant)[num_rows > 0 :]:
        count = circuit.num_parameters
        rows, shape = np.zeros((num_rows, count)), (num_rows, K, count)
        found = gradient.hessian_vector_product(circuit, OBSERVABLES, rows, np.zeros(count))
        assert shapes(found) == (shape[:2], shape, shape)
        found = gradient.value_gradient_and_hessian(circuit, OBSERVABLES, rows)
        assert shapes(found) == (shape[:2], shape, (*shape, count))


@pytest.mark.filterwarnings("ignore:.*reset")
@pytest.mark.parametrize("default_shots", [10, None])
@pytest.mark.parametrize("reset", [False, True], ids=["sweeps", "fallback"])
def test_a_sampler_takes_a_pub_of_no_rows(device, reset, default_shots):
    circuit = CIRCUIT.copy()
    if reset:
        circuit.reset(0)
        circuit.h(0)
    circuit.measure_all()
    job = FusedSampler(default_shots=default_shots, device=device).run([(circuit, np.zeros((2, 0, P)))])
    assert job.result()[0].data.shape == (2, 0)


@pytest.mark.parametrize("reset", [False, True], ids=["sweeps", "fallback"])
def test_a_pub_of_no_rows_has_no_values(device, reset):
    circuit = CIRCUIT.copy()
    if reset:
        circuit.h(0)
        circuit.cx(0, 1)
        circuit.reset(0)
    for observables, shape in (("ZZ", (0,)), ([["ZZ"], ["XX"]], (2, 0))):
        with pytest.warns() if reset else pytest.MonkeyPatch.context():
            job = FusedEstimator(device=device).run([(circuit, observables, np.zeros((0, P)))])
        assert job.result()[0].data.evs.shape == job.result()[0].data.stds.shape == shape
    assert len(FusedEstimator(device=device).run([]).result()) == 0


@pytest.mark.parametrize("rows", [(0,), (2, 0), (0, 2)], ids=str)
@pytest.mark.parametrize("input_gradients", [False, True])
def test_a_network_of_no_samples_has_empty_outputs_and_gradients(device, rows, input_gradients):
    network, samples = make_network(device=device, input_gradients=input_gradients), np.zeros((*rows, N))
    assert network.forward(samples, WEIGHTS).shape == (*rows, K)
    of_inputs = (*rows, K, N) if input_gradients else None
    assert shapes(network.backward(samples, WEIGHTS)) == (of_inputs, (*rows, K, W))
    of_inputs = (*rows, N) if input_gradients else None
    for cotangents in (np.zeros((*rows, K)), lambda values: values):
        values, *gradients = network.value_and_vjp(samples, WEIGHTS, cotangents)
        assert values.shape == (*rows, K) and shapes(gradients) == (of_inputs, (W,))
        assert not gradients[1].any()


@pytest.mark.parametrize(
    "how", [{"precision_mode": "emulate"}, {"gradient": ParamShiftEstimatorGradient(FusedEstimator())}]
)
def test_other_ways_of_a_network_have_the_same_empty_shapes(how):
    network = make_network(**how)
    assert network.forward(np.zeros((0, N)), WEIGHTS).shape == (0, K)
    assert shapes(network.backward(np.zeros((0, N)), WEIGHTS)) == (None, (0, K, W))


def test_expectations_of_no_rows_are_empty(device):
    function = Expectations(CIRCUIT, OBSERVABLES, INPUTS, ANSATZ.parameters, FusedOptions(device=device))
    nothing = np.zeros((0, N))
    assert function.values(nothing, WEIGHTS).shape == (0, K)
    assert shapes(function.value_and_vjp(nothing, WEIGHTS, np.zeros((0, K)))) == ((0, K), (0, N), (W,), None)
    assert shapes(function.value_and_jacobian(nothing, WEIGHTS)) == ((0, K), (0, K, N), (0, K, W))


@pytest.mark.parametrize("rows", [(0,), (2, 0), (0, 2)], ids=str)
def test_a_layer_of_no_rows_goes_forward_and_back(device, rows):
    torch = pytest.importorskip("torch")
    from qiskit_machine_learning.connectors import TorchConnector

    from qiskit_fused import accelerate
    from qiskit_fused.torch import FusedLayer

    modules = [FusedLayer(CIRCUIT, OBSERVABLES, INPUTS, ANSATZ.parameters, device=device)]
    if len(rows) == 1:
        modules.append(accelerate(TorchConnector(make_network(device=device, input_gradients=True))))
    for module in modules:
        inputs = torch.zeros(*rows, N, requires_grad=True)
        values = module(inputs)
        values.sum().backward()
        assert shapes((values, inputs.grad, module.weight.grad)) == ((*rows, K), (*rows, N), (W,))
        assert not module.weight.grad.any()
    assert shapes(modules[0].input_derivatives(inputs)) == ((*rows, K), (*rows, K, N), (*rows, K, N))
