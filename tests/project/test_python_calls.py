# SPDX-License-Identifier: Apache-2.0
"""A call enters as many Python functions for many gates and parameters as for few, once its caches are filled."""

import sys
import threading

import numpy as np
import pytest
from qiskit.circuit import ParameterVector, QuantumCircuit
from qiskit.quantum_info import SparsePauliOp

from qiskit_fused import (
    FusedEstimator,
    FusedEstimatorGradient,
    FusedEstimatorQNN,
    FusedQGT,
    FusedQuantumKernel,
    FusedSampler,
    FusedSamplerGradient,
    FusedStateFidelity,
    compile_circuit,
    natural_gradient,
    statevectors,
)

OPERATOR = SparsePauliOp(["ZIII", "IXZI"], [1.0, 0.5])
FEW, MANY = 5, 25  # layers
MOST_MORE = 8  # more functions that are allowed: larger arrays may take more blocks


class Case:
    """A circuit of layers with an angle for each qubit, and values of its parameters."""

    def __init__(self, num_layers, has_expressions):
        angles = ParameterVector("a", 4 * num_layers)
        circuit = QuantumCircuit(4)
        for index, angle in enumerate(angles):
            circuit.ry(2 * angle + angles[0] * angles[1] if has_expressions else angle, index % 4)
            circuit.cx(index % 4, (index + 1) % 4)
        self.circuit, self.compiled = circuit, compile_circuit(circuit)
        self.measured = compile_circuit(circuit.measure_all(inplace=False))
        self.rows = np.random.default_rng(0).normal(size=(3, len(angles)))
        self.row, self.options = self.rows[0], {"num_threads": 1}
        self.groups = list(circuit.parameters[:3]), list(circuit.parameters[3:])


def network(case):
    inputs, weights = case.groups
    made = FusedEstimatorQNN(
        circuit=case.circuit, observables=OPERATOR, input_params=inputs, weight_params=weights, options=case.options
    )
    return lambda: (made.forward(case.rows[:, :3], case.row[3:]), made.backward(case.rows[:, :3], case.row[3:]))


def layer(case):
    torch = pytest.importorskip("torch")
    from qiskit_fused.torch import FusedLayer

    module, inputs = FusedLayer(case.circuit, OPERATOR, *case.groups, **case.options), torch.zeros(3, 3)
    return lambda: module(inputs).sum().backward()


def kernel(case):
    made = FusedQuantumKernel(feature_map=case.circuit, options=case.options)
    return lambda: made.evaluate(case.rows)


def estimator(case):
    return lambda: FusedEstimator(**case.options).run([(case.compiled, OPERATOR, case.rows)]).result()


def gradient_job(case):
    return lambda: FusedEstimatorGradient(**case.options).run([case.compiled], [OPERATOR], [case.row]).result()


def gradient(case):
    return lambda: FusedEstimatorGradient(**case.options).value_and_gradient(case.compiled, OPERATOR, case.rows)


def gradient_of_a_circuit(case):
    return lambda: FusedEstimatorGradient(**case.options).value_and_gradient(case.circuit, OPERATOR, case.rows)


def hessian_vector_product(case):
    estimator_gradient = FusedEstimatorGradient(**case.options)
    return lambda: estimator_gradient.hessian_vector_product(case.compiled, OPERATOR, case.rows, case.rows)


def hessian(case):
    return lambda: FusedEstimatorGradient(**case.options).value_gradient_and_hessian(case.compiled, OPERATOR, case.row)


def metric_tensor(case):
    return lambda: FusedQGT(**case.options).run([case.compiled], [case.row]).result()


def natural_step(case):
    return lambda: natural_gradient(case.compiled, OPERATOR, case.row, regularisation=1e-3, **case.options)


def states(case):
    return lambda: statevectors(case.compiled, case.rows, **case.options)


def sampler(case):
    return lambda: FusedSampler(seed=1, **case.options).run([(case.measured, case.rows)], shots=10).result()


def sampler_gradient(case):
    return lambda: FusedSamplerGradient(**case.options).run([case.measured], [case.row]).result()


def fidelity(case):
    made = FusedStateFidelity(**case.options)
    return lambda: made.run([case.compiled], [case.compiled], [case.row], [case.rows[1]]).result()


def count_python_calls(function):
    """Count the Python functions, generators included, that a call enters after the caches are filled."""
    entered = []

    def note(frame, event, argument):
        if event == "call":
            entered.append(frame.f_code)

    for _ in range(2):
        function()
    before = sys.getprofile()
    threading.setprofile(note)  # for the threads of jobs
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
    return len(entered)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("has_expressions", [False, True], ids=["angles", "expressions"])
@pytest.mark.parametrize(
    "call",
    [
        estimator,
        gradient_job,
        gradient,
        gradient_of_a_circuit,
        hessian_vector_product,
        hessian,
        metric_tensor,
        natural_step,
        states,
        sampler,
        sampler_gradient,
        fidelity,
        kernel,
        network,
        layer,
    ],
    ids=lambda call: call.__name__,
)
def test_no_call_enters_more_python_functions_for_more_gates(call, has_expressions):
    few, many = (count_python_calls(call(Case(number, has_expressions))) for number in (FEW, MANY))
    assert many <= few + MOST_MORE
