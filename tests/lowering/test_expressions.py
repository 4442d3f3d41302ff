# SPDX-License-Identifier: Apache-2.0
"""Values and derivatives of expressions over a batch agree with Qiskit."""

import math
import time

import numpy as np
import pytest
from circuits import angles
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from qiskit.circuit import Parameter, ParameterExpression, QuantumCircuit
from qiskit.circuit.library import RVGate, zz_feature_map

from qiskit_fused.lowering.errors import UnsupportedInstruction
from qiskit_fused.lowering.expressions import translate
from qiskit_fused.lowering.lower import lower

A, B, C = Parameter("a"), Parameter("b"), Parameter("c")
PARAMETERS = [A, B, C]
COLUMNS = {parameter: column for column, parameter in enumerate(PARAMETERS)}

EXPRESSIONS = {
    "sum": A + B,
    "difference": 1 - A - B,
    "product": A * B,
    "product of affine ones": 2 * (math.pi - A) * (math.pi - B),
    "quotient": A / B,
    "reciprocal": 1 / A,
    "constant over sum": 3 / (A + B),
    "square": A**2,
    "cube of a difference": (A - 1.0) ** 3,
    "root": A**0.5,
    "power": A**B,
    "power of a constant": 2**A,
    "sin": A.sin(),
    "cos of a product": (A * B).cos(),
    "tan": A.tan(),
    "arcsin": (A / 4).arcsin(),
    "arccos": (A / 4).arccos(),
    "arctan": (A - B).arctan(),
    "exp": (-A).exp(),
    "log": A.log(),
    "abs": abs(A - 0.8),
    "nested": ((A.sin() + B) ** 2 / (1 + C**2)).exp() - A * C,
    "substituted": (A * B).assign(A, 2 * C + B),
    "minus a product": 1 - A * B,
    "divided product": (A * B) / 3 - 2 / (A * B),
    "imaginary unit squared": (1j * A) * (1j * B),
}


def circuit_of(*expressions):
    """Return a circuit with one rx per expression and all three parameters."""
    circuit = QuantumCircuit(1)
    for expression in expressions:
        circuit.rx(expression, 0)
    for parameter in PARAMETERS:
        circuit.rz(parameter, 0)
    return circuit


def gate_angles(program, values, count):
    """Return the angles (B, count) of the first gates for parameter values (B, P)."""
    columns = program.columns(values)
    angles_of_gates = [program.gates[index].angles[0] for index in range(count)]
    return np.stack([angle.coefficient * columns[:, angle.column] + angle.offset for angle in angles_of_gates], axis=1)


def rows(count=4):
    return np.random.default_rng(3).uniform(0.3, 1.7, (count, 3))


def qiskit_value(expression, row):
    known = {parameter: value for parameter, value in zip(PARAMETERS, row) if parameter in expression.parameters}
    return complex(expression.bind(known).numeric(strict=False))


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_values_are_qiskits(expression):
    values = rows()
    found = gate_angles(lower(circuit_of(expression)), values, 1)[:, 0]
    np.testing.assert_allclose(found, [qiskit_value(expression, row).real for row in values], rtol=1e-12)


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_derivatives_are_those_of_finite_differences(expression):
    values = rows()
    program = lower(circuit_of(expression))
    angle = program.gates[0].angles[0]
    gradients = np.zeros((len(values), 1, program.num_columns))
    gradients[:, 0, angle.column] = angle.coefficient
    found = program.expressions.pull_back(values, gradients)[:, 0]
    assert found.shape == (len(values), 3)
    for column in range(3):
        step = np.zeros(3)
        step[column] = 1e-6
        ahead, behind = (gate_angles(program, values + sign * step, 1)[:, 0] for sign in (1, -1))
        np.testing.assert_allclose(found[:, column], (ahead - behind) / 2e-6, atol=1e-7, rtol=1e-7)


@given(st.lists(angles(PARAMETERS), min_size=1, max_size=6))
@settings(max_examples=50, deadline=None)
def test_random_expressions_share_columns_and_keep_their_values(expressions):
    program = lower(circuit_of(*expressions))
    values = rows(2)
    found = gate_angles_with_constants(program, values, len(expressions))
    for index, expression in enumerate(expressions):
        if isinstance(expression, float):
            expected = [expression] * 2
        else:
            expected = [qiskit_value(expression, row).real for row in values]
        np.testing.assert_allclose(found[:, index], expected, rtol=1e-10, atol=1e-10)


def gate_angles_with_constants(program, values, count):
    columns = np.concatenate([program.columns(values), np.zeros((len(values), 1))], axis=1)
    angles_of_gates = [program.gates[index].angles[0] for index in range(count)]
    return np.stack([angle.coefficient * columns[:, angle.column] + angle.offset for angle in angles_of_gates], axis=1)


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_pull_back_is_the_chain_rule_for_many_expressions_and_observables(seed):
    rng = np.random.default_rng(seed)
    chosen = [list(EXPRESSIONS.values())[index] for index in rng.integers(0, len(EXPRESSIONS), 5)]
    program = lower(circuit_of(*chosen))
    values, gradients = rows(2), rng.normal(size=(2, 3, program.num_columns))
    found = program.expressions.pull_back(values, gradients)

    def weighted(shifted):
        return np.einsum("bkc,bc->bk", gradients, program.columns(shifted))

    for column in range(3):
        step = np.zeros(3)
        step[column] = 1e-6
        expected = (weighted(values + step) - weighted(values - step)) / 2e-6
        assume(np.abs(expected).max() < 1e3)
        np.testing.assert_allclose(found[:, :, column], expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("expression", "coefficient", "offset"),
    [
        (A, 1.0, 0.0),
        (-A, -1.0, 0.0),
        (2 * A + 1, 2.0, 1.0),
        ((3 - A) / 2, -0.5, 1.5),
        (2 * (A - 1) * 3, 6.0, -6.0),
        (A + A - 0.5, 2.0, -0.5),
        (A + B - B, 1.0, 0.0),
        (A * B.bind({B: 2.0}), 2.0, 0.0),
    ],
)
def test_affine_angles_need_no_column_of_their_own(expression, coefficient, offset):
    program = lower(circuit_of(expression))
    angle = program.gates[0].angles[0]
    assert program.expressions.num_expressions == 0
    assert angle.column == 0
    assert (angle.coefficient, angle.offset) == pytest.approx((coefficient, offset))


@pytest.mark.parametrize("expression", [A - A + 0.5, 0 * A + 0.5, (A * 0 + 1) / 2, A.assign(A, 0.5), (A**0) / 2])
def test_expressions_without_a_parameter_left_are_constants(expression):
    program = lower(circuit_of(expression))
    assert program.gates[0].angles[0].column == -1
    assert program.gates[0].angles[0].offset == 0.5


def test_equal_expressions_share_a_column():
    program = lower(circuit_of(A * B, A * B, 2 * (A * B)))
    assert program.expressions.num_expressions == 2
    assert program.gates[0].angles == program.gates[1].angles


def test_a_rotation_vector_has_three_consecutive_columns():
    circuit = QuantumCircuit(1)
    circuit.append(RVGate(A, 0.3, A * B), [0])
    circuit.rx(A * B, 0)
    program = lower(circuit)
    column = program.ops.column[0]
    values = np.array([[0.2, 0.5]])
    np.testing.assert_allclose(program.columns(values)[0, column : column + 3], [0.2, 0.3, 0.1])
    assert [angle.column for angle in program.gates[0].angles] == [column, column + 1, column + 2]


def test_many_expressions_of_one_shape_are_one_group():
    circuit = zz_feature_map(20, reps=2, entanglement="full")
    program = lower(circuit)
    assert program.expressions.num_expressions == 190
    values = np.random.default_rng(0).uniform(size=(64, 20))
    start = time.perf_counter()
    columns = program.columns(values)
    program.expressions.pull_back(values, np.ones((64, 1, program.num_columns)))
    assert time.perf_counter() - start < 0.1
    np.testing.assert_allclose(columns[:, 20], 2 * (np.pi - values[:, 0]) * (np.pi - values[:, 1]))


@pytest.mark.parametrize(
    ("expression", "row", "text"),
    [
        (A.log(), [-1.0, 1.0, 1.0], r"'log\(a\)' of instruction 0, 'rx', is 3\.14159\d*j for row 1.*must be real"),
        (A.arcsin() * B / B, [1.0, 0.0, 1.0], r"of instruction 0, 'rx', is nan for row 1.*finite"),
        (1 / A, [0.0, 1.0, 1.0], r"'1/a' of instruction 0, 'rx', is inf for row 1.*finite"),
        (1j * A * B, [1.0, 1.0, 1.0], r"of instruction 0, 'rx', is 1j for row 1.*an angle must be real"),
    ],
)
def test_values_that_are_no_angles_are_refused_with_expression_gate_and_row(expression, row, text):
    program = lower(circuit_of(expression))
    start = [0.0, 1.0, 1.0] if "1j" in text else [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match=text):
        program.columns(np.array([start, row]))


def test_the_derivative_of_sign_is_zero_and_does_not_exist_at_zero():
    program = lower(circuit_of(A.sign() * B))
    values = np.array([[0.5, 2.0, 0.0], [-0.5, 2.0, 0.0], [0.0, 2.0, 0.0]])
    found = program.expressions.pull_back(values, np.array([[[0.0, 0, 0, 1]]] * 3))[:, 0]
    np.testing.assert_array_equal(found, [[0, 1, 0], [0, -1, 0], [np.nan, 0, 0]])
    with pytest.raises(ValueError, match=r"instruction 0, 'rx', has no finite derivative with respect to 'a' in row 2"):
        program.expressions.check_derivatives(values, 2, 0)


def test_the_derivative_of_abs_is_the_sign():
    program = lower(circuit_of(abs(A)))
    values = np.array([[-2.0, 0, 0], [0.0, 0, 0], [3.0, 0, 0]])
    found = program.expressions.pull_back(values, np.array([[[0.0, 0, 0, 1]]] * 3))
    np.testing.assert_array_equal(found[:, 0, 0], [-1, 0, 1])


def test_without_expressions_pull_back_returns_the_gradients():
    program = lower(circuit_of(A))
    gradients = np.ones((2, 1, 3))
    np.testing.assert_array_equal(program.expressions.pull_back(rows(2), gradients), gradients)


def test_an_unknown_parameter_is_refused():
    with pytest.raises(KeyError):
        translate(Parameter("d") * 2, COLUMNS)


def test_a_translation_that_disagrees_with_qiskit_is_refused(monkeypatch):
    monkeypatch.setattr("qiskit_fused.lowering.expressions._BINARY", {"MUL": lambda writer, left, right: left})
    with pytest.raises(UnsupportedInstruction, match=r"cannot be translated.*bind it first"):
        lower(circuit_of(A * B))


V = [Parameter(f"v{index}") for index in range(12)]


def selected(index):
    """Return a sum over all parameters of V that equals one of the parameters."""
    return sum(float(other == index) * parameter for other, parameter in enumerate(V))


@pytest.mark.parametrize(
    ("expression", "coefficient", "offset"),
    [
        (selected(7), 1.0, 0.0),
        (3 * selected(7) - 1, 3.0, -1.0),
        (V[7] * (selected(7) - V[7] + 1), 1.0, 0.0),
        (0 * V[3] + V[7], 1.0, 0.0),
        (V[3] - V[3] + V[7], 1.0, 0.0),
        (V[3] * V[4] * 0 + V[7] / 2, 0.5, 0.0),
        ((V[1] * V[2] + V[7]).bind({V[2]: 0.0}), 1.0, 0.0),
        ((V[1] * V[2] + V[7]).assign(V[2], 0.0), 1.0, 0.0),
        ((V[1] * V[2] + V[3]).assign(V[1], 0.0).assign(V[3], V[7]), 1.0, 0.0),
        ((V[3] - V[3]).sin() + (V[4] - V[4]).cos() + V[7], 1.0, 1.0),
        ((V[3] - V[3] + 2) ** 2 * V[7], 4.0, 0.0),
    ],
    ids=str,
)
def test_angles_of_one_parameter_that_list_others_are_bound_to_that_one(expression, coefficient, offset):
    circuit = QuantumCircuit(2)
    circuit.rx(expression, 0)
    for parameter in V:
        circuit.rz(parameter, 1)
    program = lower(circuit)
    angle = program.gates[0].angles[0]
    assert program.expressions.num_expressions == 0
    assert (list(circuit.parameters)[angle.column], angle.coefficient, angle.offset) == (V[7], coefficient, offset)


@pytest.mark.parametrize(
    ("expression", "value"), [(A - A, 0.0), (0 * A, 0.0), ((A - A).exp() / 2, 0.5), (A * B * 0 + 0.5, 0.5)], ids=str
)
def test_angles_whose_parameters_all_cancel_out_are_constants(expression, value):
    angle = lower(circuit_of(expression)).gates[0].angles[0]
    assert (angle.column, angle.offset) == (-1, value)


@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 11), st.integers(0, 11)), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_sums_of_products_that_partly_cancel_are_qiskits(terms):
    expression = sum(
        factor * V[left] * V[right] - factor * V[right] * V[left] + factor * V[left] for factor, left, right in terms
    )
    if not isinstance(expression, ParameterExpression):
        return
    circuit = QuantumCircuit(1)
    circuit.rx(expression, 0)
    program, values = lower(circuit), np.random.default_rng(1).normal(size=(2, circuit.num_parameters))
    for row in values:
        expected = expression.bind(dict(zip(circuit.parameters, row))).numeric(strict=False)
        found = gate_angles_with_constants(program, row[None], 1)[0, 0] if program.gates else 0.0
        assert found == pytest.approx(complex(expected).real, abs=1e-12)


def test_expressions_of_thousands_of_operations_are_evaluated_and_differentiated():
    chain = A
    for _ in range(1000):
        chain = chain.sin() + 0.001 * B
    products = sum(V[index % 12] * V[(index + 1) % 12] for index in range(1500))
    circuit = circuit_of(chain, products + A)
    program, values = lower(circuit), np.random.default_rng(2).normal(size=(3, 15))
    names = [parameter.name for parameter in circuit.parameters]
    found = program.columns(values)[:, 15:]
    for row, angles_of_row in zip(values, found):
        bound = dict(zip(circuit.parameters, row))
        for expression, angle in zip((chain, products + A), angles_of_row):
            assert angle == pytest.approx(expression.bind(bound, allow_unknown_parameters=True).numeric(), rel=1e-9)
    gradients = program.expressions.pull_back(values, np.ones((3, 1, 17)))[:, 0] - 1.0
    of_first = 125 * (values[:, names.index("v1")] + values[:, names.index("v11")])
    np.testing.assert_allclose(gradients[:, names.index("v0")], of_first, rtol=1e-9)
    step = 1e-6 * np.eye(15)[names.index("b")]
    slope = (program.columns(values + step) - program.columns(values - step))[:, 15:].sum(axis=1) / 2e-6
    np.testing.assert_allclose(gradients[:, names.index("b")], slope, rtol=1e-6, atol=1e-9)


def test_a_chain_that_turns_rounding_into_anything_is_not_taken_for_a_wrong_translation():
    chain = A
    for _ in range(400):
        chain = (2 * chain).tan()
    lower(circuit_of(chain))


def test_a_long_expression_that_many_gates_share_is_translated_once(monkeypatch):
    calls = []
    monkeypatch.setattr("qiskit_fused.lowering.expressions._check", lambda *arguments: calls.append(arguments))
    program = lower(circuit_of(*[sum(one * A.sin() for one in V) + B * C] * 20))
    assert len(calls) == program.expressions.num_expressions == 1


def test_an_expression_whose_hash_qiskit_cannot_make_is_translated(monkeypatch):
    monkeypatch.setattr("qiskit_fused.lowering.expressions._key", lambda expression: None)
    expression = sum(V) * A
    assert lower(circuit_of(expression, expression)).expressions.num_expressions == 1


def test_long_expressions_are_short_in_errors():
    expression = sum((V[index % 12] * V[index % 5] for index in range(300)), A.log())
    circuit = QuantumCircuit(1)
    circuit.rx(expression, 0)
    with pytest.raises(ValueError, match=r"j\) for row 0.*an angle must be real") as caught:
        lower(circuit).columns(np.full((1, 13), -1.0))
    assert len(str(caught.value)) < 300
