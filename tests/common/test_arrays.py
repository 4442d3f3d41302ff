# SPDX-License-Identifier: Apache-2.0
"""Every entry point accepts the same kinds of numbers, and refuses all others with the same texts."""

import re
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from qiskit.circuit import ParameterVector, QuantumCircuit

from qiskit_fused import FusedEstimator, FusedEstimatorGradient, FusedEstimatorQNN, FusedOptions
from qiskit_fused.common.arrays import as_numbers
from qiskit_fused.execution.expectations import Expectations

torch = pytest.importorskip("torch")

ANGLES = ParameterVector("a", 2)


def make_circuit():
    circuit = QuantumCircuit(2)
    circuit.ry(ANGLES[0], 0)
    circuit.rx(ANGLES[1], 1)
    return circuit


CIRCUIT = make_circuit()
QNN = FusedEstimatorQNN(circuit=CIRCUIT, input_params=[ANGLES[0]], weight_params=[ANGLES[1]])
FUNCTION = Expectations(CIRCUIT, "ZZ", [ANGLES[0]], [ANGLES[1]], FusedOptions())

ENTRIES = {
    "value_and_gradient": lambda rows: FusedEstimatorGradient().value_and_gradient(CIRCUIT, "ZZ", rows),
    "gradient.run": lambda rows: FusedEstimatorGradient().run([CIRCUIT], ["ZZ"], rows).result(),
    "estimator": lambda rows: FusedEstimator().run([(CIRCUIT, "ZZ", rows)]).result(),
    "inputs": lambda rows: QNN.forward([row[:1] for row in rows], [0.1]),
    "weights": lambda rows: QNN.forward([[0.1]], rows[0][1:]),
    "backward": lambda rows: QNN.backward([[0.1]], rows[0][1:]),
    "vjp": lambda rows: QNN.vjp([row[:1] for row in rows], [0.1], [[1.0]]),
    "cotangents": lambda rows: QNN.vjp([[0.1]], [0.1], [row[:1] for row in rows]),
    "expectations": lambda rows: FUNCTION.values([row[:1] for row in rows], [0.1]),
}
entries = pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)


@entries
def test_a_tensor_that_requires_a_gradient_is_refused_with_the_layer_as_cure(entry):
    text = (
        r"requires a gradient, which would be lost here; use qiskit_fused\.torch\.FusedLayer, which autograd diff\w+\.$"
    )
    with pytest.raises(TypeError, match=text):
        entry(torch.ones(1, 2, requires_grad=True) * 0.5)


@entries
def test_a_tensor_that_requires_no_gradient_is_understood(entry):
    entry(torch.ones(1, 2))


@entries
def test_a_tensor_of_another_device_is_refused_with_its_device(entry):
    with pytest.raises(TypeError, match=r"NumPy cannot read the tensor .* of torch.float32 on device 'meta'; use"):
        entry(torch.ones(1, 2, device="meta"))


@entries
@pytest.mark.parametrize("number", ["0.5", None, {}, "x"], ids=repr)
def test_what_is_no_number_is_refused(entry, number):
    with pytest.raises(TypeError, match=r"allowed: (a number|numbers|real numbers)\b"):
        entry([[number, number]])


@entries
def test_numbers_of_other_types_are_understood(entry):
    for number in (Fraction(1, 2), Decimal("0.5"), np.float32(0.5), True, 1, torch.tensor(0.5)):
        entry([[number, number]])


@entries
def test_complex_numbers_are_real_ones_if_all_their_imaginary_parts_are_zero(entry):
    for rows in (np.array([[0.5 + 0j, 0.25]]), [[0.5 + 0j, 0.25]], np.array([[0.5 + 0j, 0.25]], dtype=object)):
        entry(rows)


@entries
@pytest.mark.parametrize("number", [1j, 0.5 + 1e-300j, complex(0.5, np.nan)], ids=str)
@pytest.mark.filterwarnings("error")
def test_complex_numbers_are_refused_with_their_value(entry, number):
    for rows in (np.array([[number, number]]), [[number, number]]):
        with pytest.raises(TypeError, match=r"is complex \(.*j\); allowed: real numbers"):
            entry(rows)


def test_complex_values_by_name_and_of_single_parameters_follow_the_rule():
    estimator, gradient = FusedEstimator(), FusedEstimatorGradient()
    by_name = {ANGLES[0]: np.array(0.5 + 1j), ANGLES[1]: 0.25}
    single = CIRCUIT.assign_parameters({ANGLES[1]: 0.25})
    for call in (
        lambda: estimator.run([(CIRCUIT, "ZZ", by_name)]),
        lambda: estimator.run([(single, "ZZ", np.array([0.5 + 1j]))]),
        lambda: estimator.run([(single, "ZZ", 0.5 + 1j)]),
        lambda: gradient.value_and_gradient(CIRCUIT, "ZZ", by_name),
    ):
        with pytest.raises(TypeError, match="is complex"):
            call()
    right = estimator.run([(single, "ZZ", 0.5)]).result()[0].data.evs
    for values in (0.5 + 0j, [0.5 + 0j], np.array([0.5 + 0j])):
        found = estimator.run([(single, "ZZ", values)]).result()[0].data.evs
        assert found == right
    assert estimator.run([(CIRCUIT, "ZZ", {ANGLES[0]: 0.5 + 0j, ANGLES[1]: 0.25})]).result()[0].data.evs == right


def test_a_layer_takes_complex_inputs_whose_imaginary_parts_are_zero():
    from qiskit_fused.torch import FusedLayer

    layer = FusedLayer(CIRCUIT, "ZZ", [ANGLES[0]], [ANGLES[1]]).double()
    inputs = torch.tensor([[0.5 + 0j]], dtype=torch.complex128, requires_grad=True)
    layer(inputs).sum().backward()
    assert inputs.grad.real == pytest.approx(-np.sin(0.5) * np.cos(layer.weight.item()))
    with pytest.raises(TypeError, match="inputs are complex"):
        layer(inputs + 1j)


def test_rows_of_different_lengths_are_named():
    with pytest.raises(ValueError, match=re.escape("row 0 of x holds 2 values, and row 1 holds 1 value; allowed: as")):
        as_numbers([[1, 2], [3], [4, 5]], "x")
    with pytest.raises(ValueError, match=re.escape("row 0 of x holds 1 value, and row 1 holds a number")):
        as_numbers([[1], 2], "x")


def test_a_tensor_among_others_is_found_and_named():
    found = [[torch.tensor(1.0), torch.tensor(1.0, requires_grad=True)]]
    with pytest.raises(TypeError, match=re.escape("the tensor x[0][1] requires a gradient")):
        as_numbers(found, "x")


def test_masked_values_are_refused_and_arrays_without_masked_values_are_not():
    masked = np.ma.masked_array([[1.0, 2.0]], mask=[[False, True]])
    with pytest.raises(ValueError, match=re.escape("x are masked at (0, 1); give values without a mask")):
        as_numbers(masked, "x")
    as_numbers(np.ma.masked_array([1.0]), "x")
    with pytest.raises(ValueError, match=re.escape("x[1] are masked at (0, 1)")):
        as_numbers([np.zeros((1, 2)), masked], "x")
    with pytest.raises(ValueError, match=re.escape("x[0] are masked")):
        as_numbers([np.ma.masked], "x")


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int8, bool, np.complex64])
def test_arrays_of_numbers_are_returned_themselves(kind):
    array = np.zeros((2, 3), kind)
    assert as_numbers(array, "x") is array
