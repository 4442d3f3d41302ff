# SPDX-License-Identifier: Apache-2.0
"""Amplitude encoding: amplitudes of the start state that are parameters, and start states that callers give by row."""

import pickle
import warnings

import numpy as np
import pytest
from asking import Ends, ask
from engine_cases import TOLERANCE, all_pairs, assert_agree, random_circuit, random_observables, rows_of
from qiskit.circuit import Parameter, ParameterVector, QuantumCircuit
from qiskit.circuit.library import real_amplitudes
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp, Statevector
from qiskit_machine_learning.circuit.library import raw_feature_vector
from qiskit_machine_learning.circuit.library.raw_feature_vector import ParameterizedInitialize
from qiskit_machine_learning.gradients import DerivativeType
from qiskit_machine_learning.neural_networks import EstimatorQNN

from qiskit_fused import FusedEstimator, FusedEstimatorGradient, UnsupportedInstruction, compile_circuit, fuse
from qiskit_fused.compilation.observables import coerce_observables
from qiskit_fused.engines.cpu.engine import CpuEngine
from qiskit_fused.engines.reference import ReferenceEngine
from qiskit_fused.execution.expectations import Expectations
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.inspection.plan import Plan
from qiskit_fused.lowering.lower import lower
from qiskit_fused.options import FusedOptions
from qiskit_fused.options.method import REVERSE, Method
from qiskit_fused.program import amplitude_encoding

METHODS = [REVERSE, Method("store"), Method("checkpoint", num_states=1), Method("checkpoint", num_states=2)]
OBSERVABLES = [SparsePauliOp(["ZXI", "IYZ", "III"], [1.0, -0.7, 0.3]), SparsePauliOp(["IZI", "XXX"], [0.4, 1.1])]


def qiskit_values(circuit, observables, rows):
    """Return the values (B, K) of Qiskit's estimator, one bound circuit for each row."""
    pubs = [(circuit.assign_parameters(row), observables) for row in rows]
    return np.array([result.data.evs for result in StatevectorEstimator().run(pubs).result()])


def numeric(function, values, step=1e-6):
    """Return the derivatives of a function of an array (P,) by central differences."""
    shifts = step * np.eye(len(values))
    return np.stack([np.subtract(function(values + one), function(values - one)) for one in shifts], axis=-1) / (
        2 * step
    )


def gates_after(num_qubits, weights):
    """Return entangling gates without a symmetry that could hide an error."""
    circuit = QuantumCircuit(num_qubits)
    for qubit in range(num_qubits):
        circuit.rx(weights[2 * qubit], qubit)
        circuit.rz(weights[2 * qubit + 1], qubit)
    for qubit in range(num_qubits - 1):
        circuit.cx(qubit, qubit + 1)
        circuit.crz(0.7, qubit + 1, qubit)
        circuit.ry(weights[qubit], qubit)
    return circuit


def whole_register(weights):
    return raw_feature_vector(8).compose(gates_after(3, weights))


def two_of_three_qubits(weights):
    circuit = QuantumCircuit(3)
    circuit.h(1)
    circuit.compose(raw_feature_vector(4), [2, 0], inplace=True)
    return circuit.compose(gates_after(3, weights))


def inside_an_instruction(weights):
    circuit = QuantumCircuit(3)
    circuit.append(raw_feature_vector(4).to_instruction(), [1, 2])
    return circuit.compose(gates_after(3, weights))


def beside_other_start_states(weights):
    circuit = QuantumCircuit(3)
    circuit.append(ParameterizedInitialize(ParameterVector("a", 2)[:]), [2])
    circuit.initialize([0.6, 0.8j], 0)
    circuit.append(ParameterizedInitialize(ParameterVector("b", 2)[:]), [1])
    return circuit.compose(gates_after(3, weights))


def amplitudes_that_are_expressions(weights):
    x, y = Parameter("x"), Parameter("y")
    circuit = QuantumCircuit(3)
    amplitudes = [x, 2 * x - 1, x * y, y.sin(), 0.3, 1j * y + x, 0.2 - 0.4j, weights[0]]
    circuit.append(ParameterizedInitialize(amplitudes), [1, 0, 2])
    return circuit.compose(gates_after(3, weights))


def partly_bound(weights):
    features = raw_feature_vector(8)
    features.assign_parameters(dict(zip(features.parameters[2:5], [0.4, 0.5j, -1.0])), inplace=True)
    return features.compose(gates_after(3, weights))


ENCODINGS = [
    whole_register,
    two_of_three_qubits,
    inside_an_instruction,
    beside_other_start_states,
    amplitudes_that_are_expressions,
    partly_bound,
]


def encoded(make, num_rows=3, seed=0):
    """Return a circuit with encoded amplitudes, and rows of values that are not normalised."""
    circuit = make(ParameterVector("w", 6))
    return circuit, np.random.default_rng(seed).uniform(-2, 2, (num_rows, circuit.num_parameters))


# Amplitudes that are parameters.


@pytest.mark.parametrize("make", ENCODINGS)
def test_values_are_those_of_the_bound_circuit(make, device):
    circuit, values = encoded(make)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a fallback would warn
        found = FusedEstimator(device=device).run([(circuit, OBSERVABLES, values[:, None])]).result()[0].data.evs
    np.testing.assert_allclose(found, qiskit_values(circuit, OBSERVABLES, values), atol=1e-12)


@pytest.mark.parametrize("make", ENCODINGS)
def test_gradients_of_weights_and_features_are_numeric_derivatives(make, device):
    circuit, values = encoded(make)
    found, gradients = FusedEstimatorGradient(device=device).value_and_gradient(circuit, OBSERVABLES, values)
    np.testing.assert_allclose(found, qiskit_values(circuit, OBSERVABLES, values), atol=1e-12)
    for row, gradient in zip(values, gradients):
        expected = numeric(lambda one: qiskit_values(circuit, OBSERVABLES, [one])[0], row)
        np.testing.assert_allclose(gradient, expected, atol=1e-7)


def test_gradients_of_single_precision_are_close(device):
    circuit, values = encoded(whole_register)
    single, double = (
        FusedEstimatorGradient(device=device, dtype=dtype).value_and_gradient(circuit, OBSERVABLES, values)
        for dtype in ("complex64", "complex128")
    )
    for mine, expected in zip(single, double):
        np.testing.assert_allclose(mine, expected, atol=2e-5)


@pytest.mark.parametrize("kind", [DerivativeType.IMAG, DerivativeType.COMPLEX])
def test_complex_derivatives_are_those_of_the_state(kind, device):
    circuit, values = encoded(whole_register, num_rows=1)
    gradient = FusedEstimatorGradient(device=device, derivative_type=kind)
    found = gradient.value_and_gradient(circuit, OBSERVABLES[1], values)[1][0, 0]
    features = [k for k, parameter in enumerate(circuit.parameters) if parameter.name.startswith("x")]
    after = gates_after(3, ParameterVector("w", 6)).assign_parameters(values[0, :6])

    def state(row):
        return Statevector(row[features] / np.linalg.norm(row[features])).evolve(after).data

    bra = state(values[0]).conj() @ OBSERVABLES[1].to_matrix()
    expected = 2 * bra @ numeric(state, values[0])[:, features]
    expected = expected if kind is DerivativeType.COMPLEX else expected.imag
    np.testing.assert_allclose(found[features], expected, atol=1e-8)


def test_a_row_without_a_direction_is_an_error_that_names_it(device):
    circuit, values = encoded(whole_register)
    values[2, [p.name.startswith("x") for p in circuit.parameters]] = 0.0
    message = r"instruction 0, 'ParameterizedInitialize', have the norm 0.0 in row 2"
    with pytest.raises(ValueError, match=message):
        FusedEstimator(device=device).run([(circuit, "ZZZ", values)]).result()
    with pytest.raises(ValueError, match=message):
        FusedEstimatorGradient(device=device).value_and_gradient(circuit, "ZZZ", values)


def test_amplitudes_that_are_bound_to_zero_are_refused():
    circuit = raw_feature_vector(2).assign_parameters([0.0, 0.0])
    with pytest.raises(UnsupportedInstruction, match="norm 0"):
        lower(circuit)


def test_bound_features_are_a_start_state_of_all_rows():
    circuit = raw_feature_vector(4).assign_parameters([3.0, 0.0, 0.0, 4.0])
    program = lower(circuit)
    assert not program.takes_states
    np.testing.assert_allclose(program.initial_state, [0.6, 0, 0, 0.8], atol=1e-15)


def test_an_encoding_of_qubits_in_use_is_refused():
    circuit = QuantumCircuit(2)
    circuit.h(1)
    circuit.compose(raw_feature_vector(2), [1], inplace=True)
    with pytest.raises(UnsupportedInstruction, match="resets a qubit that is in use"):
        FusedEstimatorGradient().value_and_gradient(circuit, "ZZ", [[0.1, 0.2]])


def test_rows_keep_all_qubits_that_are_encoded_and_leave_them_out_where_none_is_seen(device):
    circuit = QuantumCircuit(4)
    circuit.compose(raw_feature_vector(8), [0, 1, 2], inplace=True)
    circuit.rx(Parameter("w"), 3)
    assert fuse(circuit, "IIIZ").num_qubits == 3 and fuse(circuit, "IIIZ").takes_states
    assert "each row in a state of its own" in str(fuse(circuit, "IIIZ"))
    assert fuse(circuit, "ZIII").num_qubits == 1 and not fuse(circuit, "ZIII").takes_states
    values = np.linspace(0.2, 0.9, 9)
    evs, gradients = FusedEstimatorGradient(device=device).value_and_gradient(circuit, ["ZIII", "IIIZ"], values)
    np.testing.assert_allclose(evs, qiskit_values(circuit, ["ZIII", "IIIZ"], [values]), atol=1e-12)
    alone = FusedEstimatorGradient(device=device).value_and_gradient(circuit, "ZIII", values)[1]
    np.testing.assert_allclose(alone, gradients[:, :1], atol=1e-12)


def test_features_that_are_not_differentiated_cost_no_state_gradients(monkeypatch):
    circuit, values = encoded(whole_register)
    weights = list(circuit.parameters)[:6]
    expected = FusedEstimatorGradient().value_and_gradient(circuit, OBSERVABLES, values)[1][:, :, :6]
    monkeypatch.delattr(amplitude_encoding.Starts, "add_gradients")
    found = FusedEstimatorGradient().value_and_gradient(circuit, OBSERVABLES, values, weights)[1]
    np.testing.assert_allclose(found, expected, atol=1e-14)
    inputs = [parameter for parameter in circuit.parameters if parameter.name.startswith("x")]
    function = Expectations(circuit, OBSERVABLES, inputs, weights, FusedOptions())
    jacobian = function.value_and_jacobian(values[:, 6:], values[0, :6], input_gradients=False)
    assert jacobian[1] is None
    np.testing.assert_allclose(jacobian[2][0], expected[0], atol=1e-14)


def test_a_network_with_an_amplitude_encoding_trains_its_weights_and_inputs(device):
    circuit = raw_feature_vector(4).compose(real_amplitudes(2, reps=1, parameter_prefix="w"))
    inputs = [parameter for parameter in circuit.parameters if parameter.name.startswith("x")]
    weights = [parameter for parameter in circuit.parameters if parameter.name.startswith("w")]
    estimator = FusedEstimator(device=device)
    network = EstimatorQNN(
        circuit=circuit,
        observables=[SparsePauliOp("ZX"), SparsePauliOp("IZ")],
        input_params=inputs,
        weight_params=weights,
        estimator=estimator,
        gradient=FusedEstimatorGradient(estimator),
        input_gradients=True,
    )
    rng = np.random.default_rng(3)
    data, point = rng.uniform(0.1, 1, (3, 4)), rng.normal(size=4)
    of_inputs, of_weights = network.backward(data, point)
    for row in range(3):
        expected = numeric(lambda one, row=row: network.forward(one, point)[0], data[row])
        np.testing.assert_allclose(of_inputs[row], expected, atol=1e-7)
        expected = numeric(lambda one, row=row: network.forward(data[row], one)[0], point)
        np.testing.assert_allclose(of_weights[row], expected, atol=1e-7)


# Start states that callers give by row.


def random_states(num_rows, num_qubits, seed=0):
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(num_rows, 1 << num_qubits)) + 1j * rng.normal(size=(num_rows, 1 << num_qubits))
    return states / np.linalg.norm(states, axis=1, keepdims=True)


def evolved(circuit, observables, rows, states):
    """Return values (B, K) by Qiskit's Statevector, for start states of any norm."""
    values = []
    for row, state in zip(rows, states):
        psi = Statevector(state).evolve(circuit.assign_parameters(row).remove_final_measurements(inplace=False))
        values.append([(psi.data.conj() @ (one.to_matrix() @ psi.data)).real for one in observables])
    return np.array(values)


def weighted_circuit():
    return gates_after(3, ParameterVector("w", 6))


def with_idle_qubits():
    """Return a circuit of three qubits that acts on the last two qubits and swaps them."""
    weights = ParameterVector("w", 6)
    circuit = QuantumCircuit(3, 1)
    circuit.compose(gates_after(2, weights), [2, 1], inplace=True)
    circuit.swap(1, 2)
    circuit.ry(weights[5], 2)
    circuit.rx(weights[4], 1)
    circuit.measure(2, 0)
    return circuit


@pytest.mark.parametrize("make", [weighted_circuit, with_idle_qubits])
def test_rows_start_in_their_own_states(make, device):
    circuit, states = make(), random_states(3, 3)
    values = np.random.default_rng(1).normal(size=(3, circuit.num_parameters))
    gradient = FusedEstimatorGradient(device=device)
    found, gradients = gradient.value_and_gradient(circuit, OBSERVABLES, values, initial_states=states)
    np.testing.assert_allclose(found, evolved(circuit, OBSERVABLES, values, states), atol=1e-12)
    for row in range(3):
        expected = numeric(
            lambda one, row=row: evolved(circuit, OBSERVABLES, [one], states[row : row + 1])[0], values[row]
        )
        np.testing.assert_allclose(gradients[row], expected, atol=1e-8)


@pytest.mark.parametrize("make", [weighted_circuit, with_idle_qubits])
@pytest.mark.parametrize("num_observables", [1, 2])
def test_gradients_of_states_are_numeric_derivatives(make, num_observables, device):
    circuit, states, observables = make(), random_states(3, 3), OBSERVABLES[:num_observables]
    rng = np.random.default_rng(1)
    point, cotangents = rng.normal(size=circuit.num_parameters), rng.normal(size=(3, num_observables))
    function = Expectations(circuit, observables, [], circuit.parameters, FusedOptions(device=device))
    found = function.value_and_vjp(np.zeros((3, 0)), point, cotangents, initial_states=states)
    rows = np.tile(point, (3, 1))
    np.testing.assert_allclose(found.values, evolved(circuit, observables, rows, states), atol=1e-12)
    direction = rng.normal(size=states.shape) + 1j * rng.normal(size=states.shape)
    up, down = (evolved(circuit, observables, rows, states + step * direction) for step in (1e-5, -1e-5))
    expected = (cotangents * (up - down)).sum(axis=1) / 2e-5
    assert found.initial_states.dtype == np.complex128
    np.testing.assert_allclose((found.initial_states.conj() * direction).real.sum(axis=1), expected, atol=1e-8)


def test_gradients_of_states_are_made_only_where_they_are_wanted(device):
    circuit, states = weighted_circuit(), random_states(2, 3)
    function = Expectations(circuit, OBSERVABLES, [], circuit.parameters, FusedOptions(device=device))
    question = np.zeros((2, 0)), np.arange(6.0), np.ones((2, 2))
    assert function.value_and_vjp(*question).initial_states is None
    full = function.value_and_vjp(*question, initial_states=states)
    less = function.value_and_vjp(*question, initial_states=states, state_gradients=False)
    assert less.initial_states is None
    np.testing.assert_allclose(less.weights, full.weights, atol=1e-13)
    np.testing.assert_allclose(less.values, function.values(*question[:2], initial_states=states), atol=1e-13)
    values, of_inputs, of_weights = function.value_and_jacobian(*question[:2], initial_states=states)
    np.testing.assert_allclose(of_weights.sum(axis=(0, 1)), full.weights, atol=1e-12)
    np.testing.assert_allclose(values, full.values, atol=1e-13)
    assert of_inputs.shape == (2, 2, 0)


def test_a_constant_observable_has_twice_the_state_as_gradient(device):
    circuit, states = weighted_circuit(), random_states(2, 3)
    function = Expectations(circuit, SparsePauliOp("III", 0.7), [], circuit.parameters, FusedOptions(device=device))
    found = function.value_and_vjp(np.zeros((2, 0)), np.arange(6.0), np.ones((2, 1)), initial_states=states)
    np.testing.assert_allclose(found.values, 0.7, atol=1e-13)
    np.testing.assert_allclose(found.initial_states, 1.4 * states, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.complex64, np.complex128, np.int64])
def test_states_of_any_number_format_are_taken(dtype):
    circuit = weighted_circuit()
    states = np.eye(8, dtype=dtype)[[3, 5]]
    values = np.linspace(0.1, 0.6, 6)
    found = FusedEstimatorGradient().value_and_gradient(circuit, OBSERVABLES, values, initial_states=states)[0]
    np.testing.assert_allclose(found, evolved(circuit, OBSERVABLES, [values] * 2, states), atol=1e-12)


def test_one_row_of_values_or_one_state_stands_for_all():
    circuit, states = weighted_circuit(), random_states(3, 3)
    values = np.random.default_rng(1).normal(size=(3, 6))
    gradient = FusedEstimatorGradient()
    for some_values, some_states in ((values[0], states), (values[:1], states), (values, states[0])):
        found = gradient.value_and_gradient(circuit, OBSERVABLES, some_values, initial_states=some_states)[0]
        all_values, all_states = np.broadcast_to(some_values, (3, 6)), np.broadcast_to(some_states, (3, 8))
        np.testing.assert_allclose(found, evolved(circuit, OBSERVABLES, all_values, all_states), atol=1e-12)


def test_states_that_do_not_fit_are_errors_that_say_what_would():
    circuit, states = weighted_circuit(), random_states(3, 3)
    values = np.zeros((3, 6))

    def run(some_states, some_values=values):
        return FusedEstimatorGradient().value_and_gradient(circuit, "ZZZ", some_values, initial_states=some_states)

    run(states * (1 + 5e-6))  # the error of a norm in single precision
    with pytest.raises(ValueError, match=r"row 1 of initial_states has the norm 2\.0.*, it must be 1"):
        run(states * [[1], [2], [1]])
    with pytest.raises(ValueError, match="row 2 of initial_states has the norm nan"):
        run(np.where(np.arange(3)[:, None] == 2, np.nan, states))
    with pytest.raises(ValueError, match=r"shape \(3, 4\).*allowed: \(rows, 8\)"):
        run(states[:, :4])
    with pytest.raises(ValueError, match="3 initial_states and 2 rows"):
        run(states, values[:2])
    with pytest.raises(TypeError, match="initial_states are strings; allowed: numbers"):
        run([["0"] * 8])
    function = Expectations(circuit, "ZZZ", [], circuit.parameters, FusedOptions())
    with pytest.raises(ValueError, match="there are 3 initial_states; allowed: 2"):
        function.values(np.zeros((2, 0)), np.zeros(6), initial_states=states)


def resetting():
    circuit = QuantumCircuit(2)
    circuit.reset(1)
    circuit.rx(Parameter("a"), 0)
    return circuit


def preparing():
    circuit = QuantumCircuit(2)
    circuit.rx(Parameter("a"), 0)
    circuit.prepare_state([0.6, 0.8], 1)
    return circuit


def initialising():
    circuit = QuantumCircuit(2)
    circuit.rx(Parameter("a"), 0)
    circuit.initialize("+", 1)
    return circuit


def encoding():
    return raw_feature_vector(4)


@pytest.mark.parametrize("make", [resetting, preparing, initialising, encoding])
def test_circuits_that_need_zero_take_no_states(make):
    circuit = make()
    with pytest.raises(UnsupportedInstruction, match=r"needs its qubits in \|0>") as error:
        FusedEstimatorGradient().value_and_gradient(
            circuit, "ZZ", np.ones(circuit.num_parameters), initial_states=np.eye(4)[:1]
        )
    assert not error.value.fallback
    FusedEstimatorGradient().value_and_gradient(circuit, "ZZ", np.ones(circuit.num_parameters))


def test_a_prepared_label_is_gates_that_take_any_state():
    circuit = QuantumCircuit(2)
    circuit.prepare_state("+r")
    circuit.rx(Parameter("a"), 0)
    states = random_states(1, 2)
    found = FusedEstimatorGradient().value_and_gradient(circuit, ["ZX", "YI"], [0.3], initial_states=states)[0]
    expected = evolved(circuit, [SparsePauliOp("ZX"), SparsePauliOp("YI")], [[0.3]], states)
    np.testing.assert_allclose(found, expected, atol=1e-12)


# Blocks, copies.


@pytest.mark.parametrize("weighted", [False, True], ids=["jacobian", "vjp"])
def test_blocks_of_rows_change_nothing(weighted, device, monkeypatch):
    circuit, values = encoded(two_of_three_qubits, num_rows=7)
    states, after = random_states(7, 3), weighted_circuit()
    inputs = [parameter for parameter in circuit.parameters if parameter.name.startswith("x")]
    weights = [parameter for parameter in circuit.parameters if parameter.name.startswith("w")]
    told = []

    def run():
        encoding_ = Expectations(circuit, OBSERVABLES, inputs, weights, FusedOptions(device=device))
        options = FusedOptions(device=device, progress=lambda done, total: told.append(done))
        bringing = Expectations(after, OBSERVABLES, [], after.parameters, options)
        if not weighted:
            return [
                *encoding_.value_and_jacobian(values[:, 6:], values[0, :6]),
                *bringing.value_and_jacobian(np.zeros((7, 0)), values[0, :6], initial_states=states),
            ]
        return [
            *encoding_.value_and_vjp(values[:, 6:], values[0, :6], np.cos)[:3],
            *bringing.value_and_vjp(np.zeros((7, 0)), values[0, :6], np.cos, initial_states=states),
        ]

    whole = run()
    monkeypatch.setattr(amplitude_encoding, "_BLOCK_BYTES", 1)
    monkeypatch.setattr(amplitude_encoding, "_MIN_BLOCK_ROWS", 2)
    told.clear()
    for mine, expected in zip(run(), whole):
        np.testing.assert_allclose(mine, expected, atol=1e-13)
    assert told == sorted(told)
    gradient = FusedEstimatorGradient(device=device)
    with pytest.raises(ValueError, match="in row 5"):
        gradient.value_and_gradient(circuit, OBSERVABLES, values * (np.arange(7) != 5)[:, None])


def test_compiled_circuits_with_encodings_survive_pickling():
    circuit, values = encoded(beside_other_start_states)
    expected = FusedEstimatorGradient().value_and_gradient(circuit, OBSERVABLES, values)
    copied = pickle.loads(pickle.dumps(compile_circuit(circuit)))
    for mine, theirs in zip(FusedEstimatorGradient().value_and_gradient(copied, OBSERVABLES, values), expected):
        np.testing.assert_array_equal(mine, theirs)
    compiled = compile_circuit(weighted_circuit())
    copied, states = pickle.loads(pickle.dumps(compiled)), random_states(2, 3)
    for mine, theirs in zip(
        FusedEstimatorGradient().value_and_gradient(copied, OBSERVABLES, np.ones(6), initial_states=states),
        FusedEstimatorGradient().value_and_gradient(compiled, OBSERVABLES, np.ones(6), initial_states=states),
    ):
        np.testing.assert_array_equal(mine, theirs)


# Engines.


def engine_question(num_qubits, num_rows=3):
    """Return a fused program, observables, columns, all pairs of rows and observables, and start states."""
    program = lower(random_circuit(num_qubits, 20, seed=num_qubits)).from_any_state()
    operators = coerce_observables(random_observables(num_qubits, 1)).operators
    plan = fuse_program(program, None)
    columns, states = rows_of(program, num_rows=num_rows), random_states(num_rows, num_qubits)
    return (plan, operators, columns, all_pairs(num_rows, 2)), states


@pytest.mark.slow
@pytest.mark.parametrize("num_qubits", [2, 3, 7, 10])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{method.name}{method.num_states or ''}")
@pytest.mark.parametrize("imaginary", [False, True], ids=["real", "imaginary"])
def test_every_engine_starts_from_states_and_goes_back_to_them(make_engine, num_qubits, method, imaginary, dtype):
    question, states = engine_question(num_qubits)
    kept = states.copy()
    for cotangents in (None, np.linspace(-1, 2, 6)):
        flags = {"gradient": True, "imaginary": imaginary, "cotangents": cotangents, "ends": Ends(states, True)}
        expected = ask(ReferenceEngine(), *question, **flags)
        found = ask(make_engine(2), *question, **flags, method=method, dtype=dtype)
        assert_agree(found, expected, dtype)
        assert found.state_gradients.dtype == np.complex128
        scale = max(1.0, np.abs(expected.state_gradients).max())
        np.testing.assert_allclose(found.state_gradients, expected.state_gradients, atol=TOLERANCE[dtype] * scale)
    np.testing.assert_array_equal(states, kept)


@pytest.mark.parametrize("num_qubits", [14])
def test_states_cut_into_chunks_start_as_told(make_engine, engine_name, num_qubits, dtype):
    if engine_name == "tiles":
        num_qubits = 11
    (plan, operators, columns, _), states = engine_question(num_qubits, num_rows=1)
    flags = {"gradient": True, "ends": Ends(states, True)}
    expected = ask(ReferenceEngine(), plan, operators, columns, all_pairs(1, 2), **flags)
    found = ask(make_engine(2), plan, operators, columns, all_pairs(1, 2), **flags, dtype=dtype)
    assert_agree(found, expected, dtype)
    np.testing.assert_allclose(found.state_gradients, expected.state_gradients, atol=TOLERANCE[dtype])


def test_rows_without_pairs_have_no_state_gradients(make_engine):
    (plan, operators, columns, _), states = engine_question(4, num_rows=4)
    pairs = np.array([1, 1, 3], np.int32), np.array([0, 1, 1], np.int32)
    flags = {"gradient": True, "ends": Ends(states, True), "cotangents": np.ones(3)}
    expected = ask(ReferenceEngine(), plan, operators, columns, pairs, **flags)
    for _ in range(3):  # later calls reuse memory of earlier calls
        found = ask(make_engine(), plan, operators, columns, pairs, **flags)
        assert not found.state_gradients[[0, 2]].any()
        np.testing.assert_allclose(found.state_gradients, expected.state_gradients, atol=1e-11)


def test_a_circuit_without_gates_takes_states(make_engine, dtype):
    plan = fuse_program(lower(QuantumCircuit(2)).from_any_state(), None)
    operators, states = coerce_observables([SparsePauliOp("ZX")]).operators, random_states(2, 2)
    flags = {"gradient": True, "ends": Ends(states, True)}
    found = ask(make_engine(), plan, operators, np.zeros((2, 0)), all_pairs(2, 1), **flags, dtype=dtype)
    expected = states @ SparsePauliOp("ZX").to_matrix().T
    np.testing.assert_allclose(found.values, (states.conj() * expected).sum(axis=1).real, atol=TOLERANCE[dtype])
    np.testing.assert_allclose(found.state_gradients, 2 * expected, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("encodes", [False, True], ids=["given", "encoded"])
@pytest.mark.parametrize("gradient", [False, True])
def test_memory_counts_the_states_that_rows_bring(encodes, gradient):
    num_qubits, num_rows = 12, 8
    circuit = random_circuit(num_qubits, 10, seed=1)
    if encodes:
        circuit = raw_feature_vector(1 << num_qubits).compose(circuit)
    program = lower(circuit)
    plan = fuse_program(program if encodes else program.from_any_state(), None)
    operators = coerce_observables(random_observables(num_qubits, 1)[1]).operators
    columns = np.random.default_rng(0).normal(size=(num_rows, program.num_columns))
    states = plan.starts.states(columns) if encodes else random_states(num_rows, num_qubits)
    flags = {"gradient": gradient, "ends": Ends(states, gradient)}
    found = ask(CpuEngine(2), plan, operators, columns, all_pairs(num_rows, 1), **flags).stats["bytes"]
    foreseen = Plan(plan).memory(num_rows, gradient=gradient, num_threads=2)
    assert foreseen == pytest.approx(found, rel=0.15)
