# SPDX-License-Identifier: Apache-2.0
"""FusedEstimatorQNN agrees with EstimatorQNN."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from qiskit import generate_preset_pass_manager
from qiskit.circuit import Parameter, ParameterVector, QuantumCircuit
from qiskit.circuit.library import real_amplitudes, zz_feature_map
from qiskit.primitives import StatevectorEstimator
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import Operator, Pauli, PauliList, SparseObservable, SparsePauliOp
from qiskit_machine_learning.algorithms import VQR, NeuralNetworkClassifier, NeuralNetworkRegressor
from qiskit_machine_learning.circuit.library import raw_feature_vector
from qiskit_machine_learning.exceptions import QiskitMachineLearningError
from qiskit_machine_learning.gradients import DerivativeType, SPSAEstimatorGradient
from qiskit_machine_learning.neural_networks import EffectiveDimension, EstimatorQNN, LocalEffectiveDimension
from qiskit_machine_learning.optimizers import COBYLA, L_BFGS_B
from sklearn.base import clone

from qiskit_fused.execution import row_functions
from qiskit_fused.lowering.errors import UnsupportedInstruction
from qiskit_fused.machine_learning.estimator_qnn import FusedEstimatorQNN
from qiskit_fused.primitives.estimator import FusedEstimator
from qiskit_fused.primitives.estimator_gradient import FusedEstimatorGradient

OBSERVABLES = [SparsePauliOp(["ZZ", "XI"], [0.5, 0.25]), SparsePauliOp("IY")]
A, B, C = (Parameter(name) for name in ("c", "a", "b"))  # not in the order of the circuit


def parts(num_inputs, num_weights, observables=OBSERVABLES):
    """Return the arguments of a network with ``num_inputs`` inputs (0 or 2) and ``num_weights`` weights (0 or 1)."""
    circuit = QuantumCircuit(2)
    circuit.ry(A * B + 0.1 if num_inputs else 0.4, 0)
    circuit.cx(0, 1)
    circuit.rx(B if num_inputs else 0.3, 1)
    circuit.ry(2 * C if num_weights else 0.2, 0)
    circuit.cz(1, 0)
    return {
        "circuit": circuit,
        "observables": observables,
        "input_params": [A, B][:num_inputs],
        "weight_params": [C][:num_weights],
    }


def assert_same(found, expected):
    assert type(found) is type(expected)
    if expected is not None:
        assert found.shape == expected.shape and found.dtype == expected.dtype
        assert_allclose(found, expected, atol=1e-12)


def data(shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape)


INPUTS = {"none": None, "one": data(2), "rows": data((3, 2)), "grid": data((2, 3, 2)), "list": [[0.1, 0.2]]}


@pytest.mark.parametrize("input_gradients", [False, True])
@pytest.mark.parametrize("observables", [None, OBSERVABLES[0], OBSERVABLES], ids=["default", "single", "two"])
@pytest.mark.parametrize("num_weights", [0, 1])
@pytest.mark.parametrize("inputs", INPUTS)
def test_passes_have_the_values_and_shapes_of_estimator_qnn(inputs, num_weights, observables, input_gradients, device):
    given, weights = INPUTS[inputs], data(num_weights)
    arguments = parts(0 if given is None else 2, num_weights, observables) | {"input_gradients": input_gradients}
    fused, upstream = FusedEstimatorQNN(**arguments, device=device), EstimatorQNN(**arguments)
    assert fused.output_shape == upstream.output_shape and not fused.sparse
    weights = weights if num_weights else None
    assert_same(fused.forward(given, weights), upstream.forward(given, weights))
    for found, expected in zip(fused.backward(given, weights), upstream.backward(given, weights)):
        assert_same(found, expected)


@pytest.mark.parametrize("given", [0.3, [0.3], [[0.3], [0.5]]])
def test_a_number_is_a_sample_of_one_input(given):
    circuit = QuantumCircuit(1)
    circuit.rx(A, 0)
    circuit.ry(C, 0)
    arguments = {"circuit": circuit, "input_params": [A], "weight_params": [C], "input_gradients": True}
    fused, upstream = FusedEstimatorQNN(**arguments), EstimatorQNN(**arguments)
    assert_same(fused.forward(given, 0.7), upstream.forward(given, 0.7))
    for found, expected in zip(fused.backward(given, 0.7), upstream.backward(given, 0.7)):
        assert_same(found, expected)
    of_inputs, of_weights = fused.vjp(given, 0.7, np.ones((np.size(given), 1)))
    assert of_inputs.shape == np.shape(given) and of_weights.shape == (1,)


def test_inputs_without_columns_are_samples_too():
    arguments = parts(0, 1)
    fused, upstream = FusedEstimatorQNN(**arguments), EstimatorQNN(**arguments)
    assert_same(fused.forward(np.zeros((4, 0)), [0.1]), upstream.forward(np.zeros((4, 0)), [0.1]))
    assert_same(fused.backward(np.zeros((4, 0)), [0.1])[1], upstream.backward(np.zeros((4, 0)), [0.1])[1])


def test_each_pass_is_one_evaluation(monkeypatch):
    calls = []
    evaluate = row_functions.evaluate

    def watched(options, compiled, operators, request, **keywords):
        calls.append(request.num_pairs)
        return evaluate(options, compiled, operators, request, **keywords)

    monkeypatch.setattr(row_functions, "evaluate", watched)
    fused = FusedEstimatorQNN(**parts(2, 1), input_gradients=True)
    fused.forward(INPUTS["rows"], [0.1])
    fused.backward(INPUTS["rows"], [0.1])
    fused.value_and_vjp(INPUTS["rows"], [0.1], np.ones((3, 2)))
    assert calls == [6, 6, 6]  # pairs of a sample and an output


@pytest.mark.parametrize("input_gradients", [False, True])
@pytest.mark.parametrize("inputs", INPUTS)
def test_vjp_contracts_the_jacobian(inputs, input_gradients, device):
    given = INPUTS[inputs]
    fused = FusedEstimatorQNN(
        **parts(0 if given is None else 2, 1), input_gradients=input_gradients, device=device, num_threads=1
    )
    outputs = fused.forward(given, [0.4])
    cotangent = data(outputs.shape)
    values, of_inputs, of_weights = fused.value_and_vjp(given, [0.4], cotangent)
    assert_same(values, outputs)
    jacobian_inputs, jacobian_weights = fused.backward(given, [0.4])
    assert_same(of_weights, np.tensordot(cotangent, jacobian_weights, cotangent.ndim))
    if given is None or not input_gradients:
        assert of_inputs is None
    else:
        assert_same(of_inputs, np.einsum("...k,...ki->...i", cotangent, jacobian_inputs).reshape(np.shape(given)))
    assert_same(fused.vjp(given, [0.4], cotangent)[1], of_weights)


def test_vjp_takes_the_cotangent_of_a_single_sample_flat_and_that_of_a_loss_as_a_function():
    fused = FusedEstimatorQNN(**parts(2, 1))
    assert_same(fused.vjp([0.1, 0.2], [0.3], [1.0, 2.0])[1], fused.vjp([0.1, 0.2], [0.3], [[1.0, 2.0]])[1])
    outputs = fused.forward(INPUTS["grid"], [0.3])
    _, of_weights = fused.vjp(INPUTS["grid"], [0.3], lambda values: 2 * values)  # the loss is the sum of squares
    assert_same(of_weights, fused.vjp(INPUTS["grid"], [0.3], 2 * outputs)[1])


def test_a_function_maps_outputs_to_a_cotangent_in_the_shape_of_the_outputs():
    fused, inputs = FusedEstimatorQNN(**parts(2, 1)), data((2, 3, 2))
    targets = data((2, 3, 2))
    wanted = fused.vjp(inputs, [0.3], fused.forward(inputs, [0.3]) - targets)[1]
    assert_same(fused.vjp(inputs, [0.3], lambda outputs: outputs - targets)[1], wanted)
    with pytest.raises(ValueError, match=r"cotangent has shape \(6, 2\); allowed: \(2, 3, 2\)"):
        fused.vjp(inputs, [0.3], lambda outputs: outputs.reshape(6, 2))
    with pytest.raises(TypeError, match="cotangent is None; allowed: real numbers, one for each output of each sample"):
        fused.vjp(inputs, [0.3], None)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (3, 2, 1), (1, 2)])
def test_a_cotangent_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"cotangent has shape .*; allowed: \(3, 2\)\.$"):
        FusedEstimatorQNN(**parts(2, 1)).vjp(INPUTS["rows"], [0.1], np.ones(shape))


def test_values_that_are_not_finite_are_refused_by_name_and_row():
    fused = FusedEstimatorQNN(**parts(2, 1))
    bad = INPUTS["rows"].copy()
    bad[1, 1] = np.nan
    for ask in (fused.forward, fused.backward, lambda *given: fused.vjp(*given, np.ones((len(bad), 2)))):
        with pytest.raises(ValueError, match="parameter 'a' in row 1 is nan"):
            ask(bad, [0.1])
        with pytest.raises(ValueError, match="parameter 'b' is inf"):
            ask(INPUTS["rows"], [np.inf])
        with pytest.raises(ValueError, match=r"input_data is None; allowed: an array \(\.\.\., 2\) .* of 'c', 'a', or"):
            ask(None, [0.1])
        with pytest.raises(ValueError, match=r"weights is None; allowed: an array \(1,\) of values of 'b', or"):
            ask(INPUTS["rows"], None)
    with pytest.raises(QiskitMachineLearningError, match="incorrect shape"):
        fused.forward(np.zeros((3, 1)), [0.1])


def test_input_gradients_can_be_switched():
    fused = FusedEstimatorQNN(**parts(2, 1))
    assert fused.backward(INPUTS["rows"], [0.1])[0] is None
    fused.input_gradients = True
    assert fused.backward(INPUTS["rows"], [0.1])[0].shape == (3, 2, 2)
    assert fused.vjp(INPUTS["rows"], [0.1], np.ones((3, 2)))[0].shape == (3, 2)


@pytest.mark.parametrize("keywords", [{"dtype": "complex64"}, {"options": {"dtype": "complex64"}}])
def test_options_are_those_of_the_estimator_that_is_made(keywords):
    fused = FusedEstimatorQNN(**parts(2, 1), **keywords)
    assert fused.estimator.options.dtype == "complex64" and fused.gradient.fused_options is fused.estimator.options


def test_an_estimator_is_kept_and_its_options_followed():
    estimator = FusedEstimator(device="reference")
    fused = FusedEstimatorQNN(**parts(2, 1), estimator=estimator)
    assert fused.estimator is estimator
    exact = fused.forward(INPUTS["rows"], [0.1])
    estimator.options.device, estimator.options.dtype = "cpu", "complex64"
    single = fused.forward(INPUTS["rows"], [0.1])
    assert 0 < np.abs(single - exact).max() < 1e-5
    estimator.options = {"dtype": "complex128"}
    assert_same(fused.forward(INPUTS["rows"], [0.1]), exact)
    changed = FusedEstimatorQNN(**parts(2, 1), estimator=estimator, dtype="complex64")
    assert changed.estimator.options.dtype == "complex64" and estimator.options.dtype == "complex128"


def test_the_gradients_own_options_rule_the_backward_pass():
    fused = FusedEstimatorQNN(**parts(2, 1), gradient=FusedEstimatorGradient(dtype="complex64"))
    exact = EstimatorQNN(**parts(2, 1)).backward(INPUTS["rows"], [0.1])[1]
    assert 0 < np.abs(fused.backward(INPUTS["rows"], [0.1])[1] - exact).max() < 1e-5


def test_wrong_estimators_and_options_are_refused():
    with pytest.raises(TypeError, match=r"FusedEstimator or None, not StatevectorEstimator; .*accelerate\(qnn\)"):
        FusedEstimatorQNN(**parts(2, 1), estimator=StatevectorEstimator())
    with pytest.raises(TypeError, match="give one of both"):
        FusedEstimatorQNN(**parts(2, 1), estimator=FusedEstimator(), options={"dtype": "complex64"})
    with pytest.raises(TypeError, match="unknown option 'dtyp'"):
        FusedEstimatorQNN(**parts(2, 1), dtyp="complex64")
    with pytest.raises(ValueError, match="option dtype is 'float'"):
        FusedEstimatorQNN(**parts(2, 1), dtype="float")


@pytest.mark.parametrize("precision_mode", ["exact", "emulate"])
def test_errors_of_a_network_name_parameters_as_its_user_does(precision_mode):
    weights, inputs = ParameterVector("θ", 2), ParameterVector("x", 2)
    circuit = QuantumCircuit(1)
    circuit.rx(inputs[0], 0)
    circuit.ry(inputs[1].arccos() + weights[1].log() * weights[0], 0)
    network = FusedEstimatorQNN(
        circuit=circuit,
        input_params=inputs,
        weight_params=weights[::-1],
        precision_mode=precision_mode,
        input_gradients=True,
    )
    allowed, wrong, edge = [[0.1, 0.2]], [[0.1, 2.0]], [[0.1, 1.0]]
    for ask in (network.forward, network.backward, lambda *given: network.vjp(*given, [[1.0]])):
        with pytest.raises(
            ValueError, match=r"the angle '[^']*acos\(x\[1\]\)[^']*' of instruction 1, 'ry', is .* row 0 of"
        ):
            ask(wrong, [2.0, 3.0])
        with pytest.raises(ValueError, match=r"the angle '[^']*log\(θ\[1\]\)[^']*' of instruction 1"):
            ask(allowed, [-2.0, 3.0])
    with pytest.raises(ValueError, match=r"with respect to 'x\[1\]' in row 0 .*, where 'x\[1\]' is 1\.0"):
        network.backward(edge, [2.0, 3.0])


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"weight_params": None}, "input_params and weight_params lack 'b' of the circuit"),
        ({"weight_params": None, "input_params": []}, "lack 'a', 'b', 'c' of the circuit"),
        ({"weight_params": ["b"]}, "weight_params contains 'b', which is not in circuit.parameters"),
        ({"weight_params": "b"}, "weight_params contains 'b', which is not in circuit.parameters"),
        ({"input_params": [A, Parameter("a")]}, "input_params contains 'a', .*equal names are not enough"),
        ({"input_params": [A, B, B]}, "contain 'a' more than once"),
        ({"weight_params": [C, A]}, "contain 'c' more than once"),
        ({"observables": "ZZZ"}, r"qubits of the circuit \(2\) does not match .* observables \(3\)"),
        ({"observables": ["ZZ", "Z"]}, r"observables\[0\] is on 2 qubits and observables\[1\] on 1"),
    ],
)
def test_networks_whose_parts_do_not_go_together_are_refused_at_construction(changed, text):
    with pytest.raises(ValueError, match=text):
        FusedEstimatorQNN(**parts(2, 1) | changed)


def test_a_single_parameter_needs_no_list():
    given = parts(2, 1)
    listed, single = FusedEstimatorQNN(**given), FusedEstimatorQNN(**given | {"weight_params": C})
    assert_same(single.forward([0.1, 0.2], [0.3]), listed.forward([0.1, 0.2], [0.3]))


def test_an_output_is_one_observable():
    with pytest.raises(ValueError, match=r"observables\[0\] holds 2"):
        FusedEstimatorQNN(**parts(2, 1, [["ZZ", "XX"]])).forward([0.1, 0.2], [0.1])


@pytest.mark.parametrize(
    ("observables", "text"),
    [
        (np.eye(4), "observables is a ndarray, a matrix; use SparsePauliOp.from_operator"),
        (Operator(np.eye(4)), "observables is an Operator, a matrix"),
        (3, "observables is 3, of type int; allowed: a string such as 'ZZI'"),
        (SparsePauliOp("ZZ", np.nan), "the coefficient of 'ZZ' in observables is .*; allowed: finite real numbers"),
        (SparsePauliOp("ZZ", 1j), "the coefficient of 'ZZ' in observables is 1j; allowed: real numbers"),
        ([], "observables is empty; allowed: one observable or a list of them"),
    ],
)
def test_observables_that_are_none_are_refused_as_everywhere(observables, text):
    with pytest.raises((TypeError, ValueError), match=text):
        FusedEstimatorQNN(circuit=QuantumCircuit(2), observables=observables)


def test_another_gradient_is_used_as_upstream_uses_it():
    def network(kind):
        gradient = SPSAEstimatorGradient(FusedEstimator(), epsilon=0.1, seed=5)
        return kind(**parts(2, 1), estimator=FusedEstimator(), gradient=gradient)

    fused = network(FusedEstimatorQNN)
    assert_same(fused.backward(INPUTS["rows"], [0.1])[1], network(EstimatorQNN).backward(INPUTS["rows"], [0.1])[1])
    with pytest.raises(TypeError, match=r"vjp needs a FusedEstimatorGradient.*SPSAEstimatorGradient"):
        fused.vjp(INPUTS["rows"], [0.1], np.ones((3, 2)))
    fused.gradient = FusedEstimatorGradient(derivative_type=DerivativeType.IMAG)
    upstream = EstimatorQNN(**parts(2, 1), gradient=fused.gradient)
    assert_same(fused.backward(INPUTS["rows"], [0.1])[1], upstream.backward(INPUTS["rows"], [0.1])[1])
    with pytest.raises(TypeError, match="for real derivatives"):
        fused.vjp(INPUTS["rows"], [0.1], np.ones((3, 2)))


def test_emulated_noise_is_that_of_statevector_estimator():
    arguments = parts(2, 1) | {"default_precision": 0.1}
    noisy = FusedEstimatorQNN(**arguments, precision_mode="emulate", seed=3)
    expected = EstimatorQNN(**arguments, estimator=StatevectorEstimator(seed=3)).forward(INPUTS["rows"], [0.1])
    assert_same(noisy.forward(INPUTS["rows"], [0.1]), expected)
    exact = FusedEstimatorQNN(**arguments).forward(INPUTS["rows"], [0.1])
    assert np.abs(expected - exact).max() > 0.01
    assert_same(noisy.value_and_vjp(INPUTS["rows"], [0.1], np.ones((3, 2)))[0], exact)


def test_an_estimator_with_a_run_of_its_own_is_asked():
    class Recording(FusedEstimator):
        def run(self, pubs, *, precision=None):
            pubs = list(pubs)
            recorded.append(len(pubs))
            return super().run(pubs, precision=precision)

    recorded = []
    FusedEstimatorQNN(**parts(2, 1), estimator=Recording()).forward(INPUTS["rows"], [0.1])
    assert recorded == [2]


def test_a_circuit_no_sweep_can_do_runs_forward_alone():
    arguments = parts(0, 1)
    arguments["circuit"].reset(0)
    fused = FusedEstimatorQNN(**arguments)
    with pytest.warns(UserWarning, match="Running it with StatevectorEstimator"):
        assert fused.forward(None, [0.3]).shape == (1, 2)
    with pytest.raises(UnsupportedInstruction, match="reset"):
        fused.backward(None, [0.3])
    with pytest.raises(UnsupportedInstruction, match="reset"):
        FusedEstimatorQNN(**arguments, fallback=False).forward(None, [0.3])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("XZ", ["XZ"]),
        (Pauli("XZ"), ["XZ"]),
        (SparsePauliOp(["XZ", "ZI"], [0.5, 2.0]), None),
        (SparseObservable.from_list([("XZ", 0.5), ("ZI", 2.0)]), None),
        ({"XZ": 0.5, "ZI": 2.0}, None),
        (ObservablesArray.coerce("XZ"), ["XZ"]),
        (ObservablesArray.coerce(["XZ", "01"]), ["XZ", "01"]),
        (PauliList(["XZ", "ZI"]), ["XZ", "ZI"]),
        (("XZ", "ZI"), ["XZ", "ZI"]),
        (np.array(["XZ", "ZI"]), ["XZ", "ZI"]),
        ("0+", ["0+"]),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_one_observable_is_one_output_and_a_list_is_a_list(given, expected):
    expected = [SparsePauliOp(["XZ", "ZI"], [0.5, 2.0])] if expected is None else expected
    found, wanted = (FusedEstimatorQNN(**(parts(2, 1) | {"observables": one})) for one in (given, expected))
    assert found.output_shape == (len(expected),)
    assert_same(found.forward(INPUTS["rows"], [0.1]), wanted.forward(INPUTS["rows"], [0.1]))
    assert_same(found.backward(INPUTS["rows"], [0.1])[1], wanted.backward(INPUTS["rows"], [0.1])[1])


def test_changes_of_a_circuit_without_parameters_and_of_observables_are_seen():
    circuit, observables = QuantumCircuit(1), [SparsePauliOp("Z")]
    fused = FusedEstimatorQNN(circuit=circuit, observables=observables)
    assert_allclose(fused.forward(None, None), [[1.0]])
    circuit.x(0)
    assert_allclose(fused.forward(None, None), [[-1.0]])
    observables[0] = SparsePauliOp("Z", 3.0)
    assert_allclose(fused.forward(None, None), [[-3.0]])
    observables[0].coeffs[0] = 2.0
    assert_allclose(fused.forward(None, None), [[-2.0]])


@pytest.mark.parametrize("copies", ["pickle", "deepcopy", "clone", "copy"])
@pytest.mark.parametrize("used", [False, True])
def test_copies_give_the_same(copies, used):
    fused = FusedEstimatorQNN(**parts(2, 1), input_gradients=True, dtype="complex64")
    if used:
        fused.forward(INPUTS["rows"], [0.1])
    make = {
        "pickle": lambda network: pickle.loads(pickle.dumps(network)),
        "deepcopy": copy.deepcopy,
        "clone": lambda network: clone(network, safe=False),
        "copy": copy.copy,
    }
    other = make[copies](fused)
    assert type(other) is FusedEstimatorQNN and other.estimator.options.dtype == "complex64"
    assert other.gradient.fused_options is other.estimator.options
    assert_same(other.forward(INPUTS["rows"], [0.1]), fused.forward(INPUTS["rows"], [0.1]))
    for found, expected in zip(other.backward(INPUTS["rows"], [0.1]), fused.backward(INPUTS["rows"], [0.1])):
        assert_same(found, expected)


def test_models_are_saved_and_loaded(tmp_path):
    model = NeuralNetworkRegressor(FusedEstimatorQNN(**parts(2, 1, None)), optimizer=L_BFGS_B(maxiter=2))
    model.fit(INPUTS["rows"], np.array([[1.0], [-1.0], [0.5]]))
    model.to_dill(tmp_path / "model")
    loaded = NeuralNetworkRegressor.from_dill(tmp_path / "model")
    assert_same(loaded.predict(INPUTS["rows"]), model.predict(INPUTS["rows"]))


def layers(kind, num_observables=None):
    """Return a network of two qubits, with its feature map and ansatz."""
    features, ansatz = zz_feature_map(2, reps=1), real_amplitudes(2, reps=1)
    observables = None if num_observables is None else [SparsePauliOp("IZ"), SparsePauliOp("ZI")][:num_observables]
    return kind(
        circuit=features.compose(ansatz),
        observables=observables,
        input_params=features.parameters,
        weight_params=ansatz.parameters,
    )


@pytest.mark.parametrize("one_hot", [False, True])
def test_classifiers_train_alike(one_hot):
    labels = np.array([[1, 0], [0, 1], [1, 0]]) if one_hot else np.array([1, -1, 1])
    found, expected = (
        NeuralNetworkClassifier(
            layers(kind, 2 if one_hot else 1),
            one_hot=one_hot,
            optimizer=L_BFGS_B(maxiter=3),
            initial_point=data(4),
        ).fit(INPUTS["rows"], labels)
        for kind in (FusedEstimatorQNN, EstimatorQNN)
    )
    assert_allclose(found.weights, expected.weights, atol=1e-6)
    assert_allclose(found.predict(INPUTS["rows"]), expected.predict(INPUTS["rows"]))
    assert clone(found, safe=False).weights.tolist() == found.weights.tolist()


def test_regressors_train_alike():
    found, expected = (
        NeuralNetworkRegressor(layers(kind), optimizer=COBYLA(maxiter=8), initial_point=data(4)).fit(
            INPUTS["rows"], np.array([[0.5], [-0.5], [0.1]])
        )
        for kind in (FusedEstimatorQNN, EstimatorQNN)
    )
    assert_allclose(found.weights, expected.weights, atol=1e-6)


@pytest.mark.parametrize(("measure", "num_samples"), [(EffectiveDimension, 2), (LocalEffectiveDimension, 1)])
def test_effective_dimensions_agree(measure, num_samples):
    found, expected = (
        measure(layers(kind), weight_samples=data((num_samples, 4)), input_samples=INPUTS["rows"])
        for kind in (FusedEstimatorQNN, EstimatorQNN)
    )
    information = [one.get_fisher_information(*one.run_monte_carlo()) for one in (found, expected)]
    assert_allclose(*information, atol=1e-9)
    assert_allclose(found.get_effective_dimension([100, 1000]), expected.get_effective_dimension([100, 1000]))


def test_vqr_takes_the_network():
    model = VQR(2, optimizer=L_BFGS_B(maxiter=1), estimator=FusedEstimator(), initial_point=data(8))
    network = model.neural_network
    fused = FusedEstimatorQNN(
        circuit=network.circuit,
        input_params=model.feature_map.parameters,
        weight_params=model.ansatz.parameters,
    )
    model._neural_network = fused
    assert model.fit(INPUTS["rows"], np.array([[0.5], [-0.5], [0.1]])).weights.shape == (8,)
    assert_same(fused.forward(INPUTS["rows"], data(8)), network.forward(INPUTS["rows"], data(8)))


def test_transpiled_circuits_keep_their_qubits():
    manager = generate_preset_pass_manager(1, GenericBackendV2(5, seed=1), seed_transpiler=1)
    virtual = layers(EstimatorQNN)
    features, ansatz = zz_feature_map(2, reps=1), real_amplitudes(2, reps=1)
    fused = FusedEstimatorQNN(
        circuit=features.compose(ansatz),
        input_params=features.parameters,
        weight_params=ansatz.parameters,
        pass_manager=manager,
    )
    assert fused.circuit.num_qubits == 5 and fused.num_virtual_qubits == 2
    upstream = EstimatorQNN(circuit=fused.circuit, input_params=features.parameters, weight_params=ansatz.parameters)
    assert_same(fused.forward(INPUTS["rows"], data(4)), upstream.forward(INPUTS["rows"], data(4)))
    assert fused.output_shape == virtual.output_shape


def test_amplitude_encoded_samples_can_be_trained():
    features, ansatz = raw_feature_vector(4), real_amplitudes(2, reps=1)
    arguments = {
        "circuit": features.compose(ansatz),
        "input_params": features.parameters,
        "weight_params": ansatz.parameters,
    }
    rows = data((3, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    fused, weights = FusedEstimatorQNN(**arguments), data(4)
    assert_same(fused.forward(rows, weights), EstimatorQNN(**arguments).forward(rows, weights))
    steps = 1e-5 * np.eye(4)
    differences = [(fused.forward(rows, weights + h) - fused.forward(rows, weights - h)) / 2e-5 for h in steps]
    assert_allclose(fused.backward(rows, weights)[1], np.stack(differences, axis=-1), atol=1e-8)
    assert_allclose(fused.vjp(rows, weights, np.ones((3, 1)))[1], np.sum(differences, axis=(1, 2)), atol=1e-8)


def test_importing_networks_does_not_import_torch():
    modules = "qiskit_fused.machine_learning.estimator_qnn, qiskit_fused.machine_learning.sampler_qnn"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=False).returncode == 0
