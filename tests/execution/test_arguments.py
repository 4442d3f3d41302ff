# SPDX-License-Identifier: Apache-2.0
"""Every entry point takes compiled circuits, values by name, and one observable, a list of observables or None."""

import copy
import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import UnitaryGate
from qiskit.primitives import StatevectorEstimator
from qiskit.primitives.containers.bindings_array import BindingsArray
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info import Pauli, PauliList, SparseObservable, SparsePauliOp

from qiskit_fused import FusedEstimator, FusedEstimatorGradient, FusedEstimatorQNN, compile_circuit, fuse
from qiskit_fused.execution.arguments import ordered_values
from qiskit_fused.execution.executor import _Shared
from qiskit_fused.execution.expectations import Expectations

X, W = ParameterVector("x", 2), [Parameter(f"w{number}") for number in range(12)]


def make_circuit():
    circuit = QuantumCircuit(2, metadata={"name": "test"})
    for number, weight in enumerate(W):
        circuit.ry(weight, number % 2)
        circuit.cx(number % 2, 1 - number % 2)
        if number < 2:
            circuit.rx(X[number], number)
    return circuit


CIRCUIT, OBSERVABLE = make_circuit(), SparsePauliOp(["ZZ", "XI"], [1.0, 0.5])
ROWS = np.random.default_rng(0).normal(size=(3, 14))
GRADIENT = FusedEstimatorGradient()
# The order of circuit.parameters is w0, w1, w10, w11, w2, ..., w9, x[0], x[1].
BY_ORDER = {parameter: ROWS[:, column] for column, parameter in enumerate(CIRCUIT.parameters)}


def network(circuit):
    return FusedEstimatorQNN(circuit=circuit, observables=[OBSERVABLE], input_params=X, weight_params=W)


# Each function calls one entry point with a circuit, and returns arrays.
ENTRY_POINTS = {
    "value_and_gradient": lambda circuit: GRADIENT.value_and_gradient(circuit, OBSERVABLE, ROWS),
    "run": lambda circuit: GRADIENT.run([circuit] * 3, [OBSERVABLE] * 3, ROWS).result().gradients,
    "run, one": lambda circuit: GRADIENT.run(circuit, OBSERVABLE, ROWS[:1]).result().gradients,
    "objective": lambda circuit: GRADIENT.objective(circuit, OBSERVABLE)(ROWS[0])[1],
    "estimator": lambda circuit: FusedEstimator().run([(circuit, OBSERVABLE, ROWS)]).result()[0].data.evs,
    "estimator, list": lambda circuit: FusedEstimator().run([[circuit, "ZZ", ROWS, 0.1]]).result()[0].data.evs,
    "network": lambda circuit: network(circuit).forward(ROWS[:, :2], ROWS[0, 2:]),
    "network's noise": lambda circuit: FusedEstimatorQNN(
        circuit=circuit, input_params=X, weight_params=W, precision_mode="emulate", seed=3
    ).forward(ROWS[:, :2], ROWS[0, 2:]),
    "function": lambda circuit: Expectations(circuit, OBSERVABLE, X, W).value_and_vjp(
        ROWS[:, :2], ROWS[0, 2:], np.ones((3, 1))
    )[:3],
    "plan": lambda circuit: str(fuse(circuit, OBSERVABLE, inputs=X)).encode(),
    "compiled": lambda circuit: compile_circuit(circuit).program.num_columns,
}


def assert_same(actual, expected):
    """Compare arrays, or tuples of arrays."""
    pairs = zip(actual, expected) if isinstance(actual, tuple) else [(actual, expected)]
    for array, expected_array in pairs:
        np.testing.assert_array_equal(array, expected_array)


@pytest.mark.parametrize("copies", [None, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
@pytest.mark.parametrize("call", ENTRY_POINTS.values(), ids=ENTRY_POINTS)
def test_a_compiled_circuit_is_taken_wherever_a_circuit_is(call, copies):
    circuit = make_circuit()
    compiled = compile_circuit(circuit)
    circuit.x(0)  # the compiled circuit does not change
    if copies is not None:
        compiled = copies(compiled)
    assert_same(call(compiled), call(CIRCUIT))


def test_subclasses_of_circuits_are_circuits():
    class Mine(QuantumCircuit):
        pass

    circuit = Mine(2)
    circuit.compose(CIRCUIT, inplace=True)
    for call in ENTRY_POINTS.values():
        assert_same(call(circuit), call(CIRCUIT))


def test_a_pub_of_a_compiled_circuit_has_the_metadata_and_the_errors_of_its_circuit():
    compiled = compile_circuit(CIRCUIT)
    result = FusedEstimator().run([(compiled, "ZZ", ROWS)]).result()[0]
    assert result.metadata["circuit_metadata"] == {"name": "test"}
    for pub in ((CIRCUIT, "ZZ", ROWS[:, 1:]), (CIRCUIT, "ZZZ", ROWS), (CIRCUIT, ["ZZ"] * 2, ROWS)):
        with pytest.raises(ValueError, match=" ") as expected:
            FusedEstimator().run([pub])
        with pytest.raises(ValueError, match=re.escape(str(expected.value))):
            FusedEstimator().run([(compiled, *pub[1:])])
    for pubs in ((compiled, "ZZ"), [compiled]):
        with pytest.raises(ValueError, match="An invalid Estimator pub-like was given"):
            FusedEstimator().run(pubs)


def test_matrices_changed_in_place_do_not_reach_a_compiled_circuit():
    circuit, angle = QuantumCircuit(1), Parameter("a")
    circuit.append(UnitaryGate(np.eye(2)), [0])
    circuit.ry(angle, 0)
    compiled = compile_circuit(circuit)
    circuit.data[0].operation.params[0][:] = [[0, 1], [1, 0]]
    assert_allclose(FusedEstimatorQNN(circuit=compiled, weight_params=[angle]).forward(None, [0.3]), [[np.cos(0.3)]])
    assert_allclose(GRADIENT.value_and_gradient(compiled, "Z", [0.3])[0], [[np.cos(0.3)]])


def test_a_worker_is_not_sent_the_circuit():
    compiled = compile_circuit(CIRCUIT)
    sent = pickle.loads(_Shared(compiled).pickled)
    assert compiled.circuit == CIRCUIT and sent.metadata == {}
    with pytest.raises(ValueError, match=r"CompiledCircuit\(2 qubits.* holds no circuit; give the QuantumCircuit"):
        network(sent)
    actual = GRADIENT.value_and_gradient(sent, OBSERVABLE, ROWS)[1]
    np.testing.assert_array_equal(actual, GRADIENT.value_and_gradient(CIRCUIT, OBSERVABLE, ROWS)[1])


# --- values by name ---


def test_values_by_name_need_no_order_and_parameters_of_a_circuit_are_sorted_by_name():
    assert [parameter.name for parameter in CIRCUIT.parameters][:4] == ["w0", "w1", "w10", "w11"]
    weights = np.arange(12.0)
    by_name = GRADIENT.value_and_gradient(CIRCUIT, OBSERVABLE, {tuple(W): weights, X: ROWS[:, :2]})
    bound = CIRCUIT.assign_parameters(dict(zip(W, weights)))
    expected = StatevectorEstimator().run([(bound, OBSERVABLE, ROWS[:, :2])]).result()[0].data.evs
    assert_allclose(by_name[0][:, 0], expected, atol=1e-12)


NAMED = {
    "parameters": BY_ORDER,
    "names": {parameter.name: values for parameter, values in reversed(BY_ORDER.items())},
    "vector and tuple": {X: ROWS[:, -2:], tuple(BY_ORDER)[:12]: ROWS[:, :12]},
    "bindings": BindingsArray({tuple(BY_ORDER): ROWS}),
    "names and columns": {parameter.name: values[:, None] for parameter, values in BY_ORDER.items()},
}


@pytest.mark.parametrize("named", NAMED.values(), ids=NAMED)
def test_values_by_name_are_taken_wherever_arrays_of_values_are(named):
    for actual, expected in zip(
        GRADIENT.value_and_gradient(CIRCUIT, OBSERVABLE, named), GRADIENT.value_and_gradient(CIRCUIT, OBSERVABLE, ROWS)
    ):
        np.testing.assert_array_equal(actual, expected)
    actual = FusedEstimator().run([(CIRCUIT, OBSERVABLE, named)]).result()[0].data.evs
    np.testing.assert_array_equal(actual, ENTRY_POINTS["estimator"](CIRCUIT))


def test_a_job_takes_a_mapping_for_each_circuit():
    expected = ENTRY_POINTS["run"](CIRCUIT)
    rows = [{parameter: values[row] for parameter, values in BY_ORDER.items()} for row in range(3)]
    actual = GRADIENT.run([CIRCUIT] * 3, [OBSERVABLE] * 3, rows).result().gradients
    np.testing.assert_array_equal(actual, expected)
    mixed = [rows[0], ROWS[1], BindingsArray(rows[2])]
    np.testing.assert_array_equal(GRADIENT.run([CIRCUIT] * 3, [OBSERVABLE] * 3, mixed).result().gradients, expected)
    for values in (rows[0], [rows[0]], ROWS[0], ROWS[0].tolist(), ROWS[:1]):  # a single row is not in a pack
        np.testing.assert_allclose(
            GRADIENT.run(CIRCUIT, OBSERVABLE, values).result().gradients, expected[:1], rtol=0, atol=1e-13
        )
    with pytest.raises(ValueError, match=r"values of the 0-th circuit have the shape \(3,\); allowed: one row"):
        GRADIENT.run(CIRCUIT, OBSERVABLE, BY_ORDER)
    with pytest.raises(ValueError, match="parameter_values is one dict for 3 circuits; allowed: a list of 3"):
        GRADIENT.run([CIRCUIT] * 3, [OBSERVABLE] * 3, rows[0])


def test_a_single_parameter_needs_no_list_of_rows():
    circuit = QuantumCircuit(1)
    circuit.ry(Parameter("a"), 0)
    for values in ([0.3], np.array([0.3]), [[0.3]], {"a": 0.3}, {"a": [0.3]}):
        assert_allclose(GRADIENT.run(circuit, "Z", values).result().gradients, [[-np.sin(0.3)]])


def test_inputs_and_weights_of_a_function_or_network_may_be_named():
    function = Expectations(CIRCUIT, OBSERVABLE, X, W)
    weights = dict(zip(reversed(W), ROWS[0, 13:1:-1]))
    expected = function.values(ROWS[:, :2], ROWS[0, 2:])
    actual = network(CIRCUIT).forward({X: ROWS[:, :2]}, weights)
    np.testing.assert_array_equal(actual, expected)
    actual = network(CIRCUIT).backward({X: ROWS[:, :2]}, weights)[1]
    np.testing.assert_array_equal(actual, network(CIRCUIT).backward(ROWS[:, :2], ROWS[0, 2:])[1])
    with pytest.raises(ValueError, match="weights has no values of 'w1', 'w2'"):
        network(CIRCUIT).forward(ROWS[:, :2], {"w0": 0.1})
    np.testing.assert_array_equal(function.values({X: ROWS[:, :2]}, weights), expected)
    row = function.values({"x[1]": ROWS[0, 1], "x[0]": ROWS[0, 0]}, weights)
    assert_allclose(row, expected[:1], atol=1e-14)
    with pytest.raises(ValueError, match=r"placement for parameter 'w0' of inputs; allowed: the parameters 'x\[0\]'"):
        function.values({"w0": 1.0}, weights)
    with pytest.raises(ValueError, match="weights has no values of 'w0', 'w1'"):
        function.values(ROWS[:, :2], {"w2": 1.0})


def test_the_name_of_a_vector_is_refused_with_a_name_that_is_allowed():
    circuit = QuantumCircuit(1)
    vector = ParameterVector("θ", 2)
    circuit.ry(vector[0], 0)
    circuit.rz(vector[1], 0)
    with pytest.raises(
        ValueError, match=r"'θ' is the name of a ParameterVector: give that object .*, or .*'θ\[0\]'\.$"
    ):
        GRADIENT.value_and_gradient(circuit, "Z", {"θ": [1.0, 2.0]})
    with pytest.raises(ValueError, match=r"allowed: the parameters 'θ\[0\]', 'θ\[1\]'\.$"):
        GRADIENT.value_and_gradient(circuit, "Z", {"phi": [1.0, 2.0]})


@pytest.mark.parametrize(
    ("named", "text"),
    [
        (
            {"x": 1.0},
            "Could not find placement for parameter 'x' of parameter_values; allowed: the parameters 'a', 'b'",
        ),
        ({"a": 1.0}, "parameter_values has no values of 'b'; give each parameter one"),
        ({("a", "b"): [1, 2], "a": 1}, "parameter_values has values of 'a' more than once"),
        ({("a", "a"): [1, 2]}, "parameter_values has values of 'a' more than once"),
        ({("a", "b"): [1, 2, 3]}, r"values of 'a', 'b' have shape \(3,\); allowed: \(\.\.\., 2\)"),
        ({"a": [1.0, 2.0], "b": [1.0, 2.0, 3.0]}, r"do not go together, .* \(2,\) of 'a'; \(3,\) of 'b'"),
        ({}, "parameter_values has no values of 'a', 'b'"),
        ({"a": [1.0, np.nan], "b": 1.0}, "the value of parameter 'a' in row 1( of PUB 0)? is nan"),
    ],
)
def test_errors_tell_names_that_do_not_fit(named, text):
    circuit = QuantumCircuit(1)
    circuit.ry(Parameter("a"), 0)
    circuit.rz(Parameter("b"), 0)
    for call in (
        lambda: GRADIENT.value_and_gradient(circuit, "Z", named),
        lambda: FusedEstimator().run([(circuit, "Z", named)]),
    ):
        with pytest.raises(ValueError, match=text):
            call()


def test_keys_and_values_of_other_types_are_refused():
    with pytest.raises(TypeError, match="parameter_values has the key 5; allowed: a Parameter, a name"):
        ordered_values({5: 0.1}, W)
    with pytest.raises(TypeError, match="complex"):
        ordered_values(dict.fromkeys(W, 1j), W)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_values_by_name_are_ordered_as_by_bindings_arrays(data):
    """A mapping that `BindingsArray` accepts gives the same array in both."""
    names = [f"p{number}" for number in range(data.draw(st.integers(1, 5)))]
    order = data.draw(st.permutations(names))
    shape = tuple(data.draw(st.lists(st.integers(0, 3), max_size=2)))
    mapping, position = {}, 0
    while position < len(names):
        size = data.draw(st.integers(1, len(names) - position))
        key = tuple(order[position : position + size])
        array = np.arange(np.prod(shape, dtype=int) * size, dtype=float).reshape(*shape, size) + 100 * position
        if size == 1 and data.draw(st.booleans()):
            mapping[key[0]] = array[..., 0]
        else:
            mapping[key] = array
        position += size
    parameters = [Parameter(name) for name in names]
    try:
        expected = BindingsArray(mapping).as_array(names)
    except ValueError:
        return
    np.testing.assert_array_equal(ordered_values(mapping, parameters), expected)


# --- observables ---


def test_lists_of_observables_have_any_form():
    expected = GRADIENT.run([CIRCUIT] * 2, ["ZZ", "XI"], ROWS[:2]).result().gradients
    forms = [PauliList(["ZZ", "XI"]), ObservablesArray.coerce(["ZZ", "XI"]), ("ZZ", "XI"), np.array(["ZZ", "XI"])]
    for form in forms:
        np.testing.assert_array_equal(GRADIENT.run([CIRCUIT] * 2, form, ROWS[:2]).result().gradients, expected)
        actual = GRADIENT.value_and_gradient(CIRCUIT, form, ROWS[:2])[1]
        assert_allclose(actual[[0, 1], [0, 1]], expected, atol=1e-14)


def test_another_number_of_observables_is_refused_each_time():
    observables = ["ZZ", "XI"]
    function = Expectations(CIRCUIT, observables, X, W)
    observables.append("IZ")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"changed from shape \(2,\) to \(3,\); make a new object"):
            function.values(ROWS[:, :2], ROWS[0, 2:])
    observables.pop()
    observables[0] = "IZ"
    expected = Expectations(CIRCUIT, ["IZ", "XI"], X, W).values(ROWS[:, :2], ROWS[0, 2:])
    np.testing.assert_array_equal(function.values(ROWS[:, :2], ROWS[0, 2:]), expected)


def test_later_changes_of_circuits_have_no_effect_and_those_of_observables_have():
    """Objects that outlive a call keep the circuit, and read the observables at each call."""
    circuit, observable = make_circuit(), OBSERVABLE.copy()
    compiled, network = (
        compile_circuit(circuit),
        FusedEstimatorQNN(circuit=circuit, observables=observable, input_params=X, weight_params=W),
    )
    function, objective = Expectations(circuit, observable, X, W), GRADIENT.objective(circuit, observable)
    calls = [
        lambda: GRADIENT.value_and_gradient(compiled, observable, ROWS)[0],
        lambda: GRADIENT.run([compiled], [observable], ROWS[:1]).result().gradients[0],
        lambda: FusedEstimator().run([(compiled, observable, ROWS)]).result()[0].data.evs,
        lambda: network.forward(ROWS[:, :2], ROWS[0, 2:]),
        lambda: network.vjp(ROWS[:, :2], ROWS[0, 2:], np.ones((3, 1)))[1],
        lambda: function.values(ROWS[:, :2], ROWS[0, 2:]),
        lambda: function.value_and_vjp(ROWS[:, :2], ROWS[0, 2:], np.ones((3, 1))).weights,
        lambda: objective(ROWS[0])[1],
        lambda: objective.value(ROWS[0]),
    ]
    before = [call() for call in calls]
    circuit.y(0)
    circuit.h(1)
    for call, expected in zip(calls, before):
        np.testing.assert_array_equal(call(), expected)
    observable.coeffs[:] *= -2
    for call, expected in zip(calls, before):
        assert_allclose(call(), -2 * np.asarray(expected), atol=1e-12)


@pytest.mark.parametrize("observables", [None, "ZZ", ["ZZ"], ("ZZ",), Pauli("ZZ"), SparseObservable("ZZ"), {"ZZ": 1.0}])
def test_one_observable_needs_no_list_and_none_is_z_on_all_qubits(observables):
    expected = GRADIENT.value_and_gradient(CIRCUIT, [SparsePauliOp("ZZ")], ROWS)
    actual = GRADIENT.value_and_gradient(CIRCUIT, observables, ROWS)
    np.testing.assert_array_equal(actual[1], expected[1])
    actual = GRADIENT.run(CIRCUIT, observables, ROWS[:1]).result().gradients
    assert_allclose(actual, expected[1][:1, 0], atol=1e-14)
    actual = Expectations(CIRCUIT, observables, X, W).values(ROWS[:, -2:], np.zeros(12))
    assert_allclose(actual, Expectations(CIRCUIT, "ZZ", X, W).values(ROWS[:, -2:], np.zeros(12)), atol=1e-14)
