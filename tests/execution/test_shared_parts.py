# SPDX-License-Identifier: Apache-2.0
"""Gates that all rows of a batch share are simulated once, with the values and gradients of every row on its own."""

import pickle

import numpy as np
import pytest
from asking import Ends, ask
from circuits import circuits
from engine_cases import TOLERANCE, random_circuit, random_observables
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import efficient_su2, real_amplitudes, zz_feature_map
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.circuit.library import raw_feature_vector

from qiskit_fused import FusedEstimator, FusedEstimatorGradient, fuse
from qiskit_fused.compilation.circuits import compile_circuit
from qiskit_fused.compilation.observables import coerce_observables
from qiskit_fused.engines.cpu.engine import CpuEngine
from qiskit_fused.engines.reference import ReferenceEngine
from qiskit_fused.engines.reference import apply_observable as apply_one
from qiskit_fused.engines.request import GradientRequest, Request, all_pairs
from qiskit_fused.execution import evaluate as execution
from qiskit_fused.execution import program_evaluation, shared_evaluation, shared_parts
from qiskit_fused.execution.derivatives import pull_back
from qiskit_fused.execution.expectations import Expectations
from qiskit_fused.execution.parameter_columns import ParameterColumns
from qiskit_fused.execution.shared_parts import OBSERVABLE, PREFIX, ROWS, Sharing, is_worth_splitting
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.fusion.partition import split
from qiskit_fused.lowering.lower import lower
from qiskit_fused.options import FusedOptions

pytestmark = pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")

NO_PAIRS = np.zeros(0, np.int32), np.zeros(0, np.int32)


# Splitting.


def final_state(engine, program, columns, initial=None):
    plan, operators = fuse_program(program), coerce_observables("Z" * program.num_circuit_qubits).operators
    ends = Ends(initial, final=True)
    return plan, ask(engine, plan, operators, columns, NO_PAIRS, ends=ends).final_states


@pytest.mark.parametrize("engine", [ReferenceEngine(), CpuEngine()], ids=["reference", "cpu"])
def test_the_parts_of_a_circuit_one_after_the_other_are_the_circuit(engine):
    lengths = set()

    @settings(max_examples=50, deadline=None, derandomize=True)
    @given(circuit=circuits(), data=st.data())
    def check(circuit, data):
        program = lower(circuit)
        varies = np.array(
            data.draw(st.lists(st.booleans(), min_size=program.num_columns, max_size=program.num_columns))
        )
        varies = varies.astype(bool)
        columns = program.columns(np.random.default_rng(1).normal(size=(1, program.num_parameters)))
        whole, expected = final_state(engine, program, columns)
        parts = split(program, varies)
        chain = [parts.prefix, parts.rest] if parts.suffix is None else [parts.prefix, parts.middle, parts.suffix]
        chain = [part for part in chain if part is not None]
        lengths.add(len(chain))
        state = None
        for part in chain:
            plan, state = final_state(engine, part, columns, state)
        np.testing.assert_array_equal(plan.wires, whole.wires)
        assert abs(np.vdot(expected[0], state[0])) == pytest.approx(1, abs=1e-10)
        for part in (parts.prefix, parts.suffix):
            assert part is None or not part.ops.varies(varies).any()

    check()
    assert lengths == {1, 2, 3}


def test_the_prefix_is_all_gates_before_the_inputs_and_the_suffix_all_gates_behind_them():
    x, w = ParameterVector("x", 2), ParameterVector("w", 5)
    circuit = QuantumCircuit(3)
    circuit.ry(w[0], 0)
    circuit.ry(x[0], 1)
    circuit.rz(w[1], 2)  # no input acts on qubit 2
    circuit.cx(0, 2)
    circuit.cx(1, 0)
    circuit.ry(w[2], 2)  # the input x[0] acts on qubit 1, and through CX on qubit 0
    circuit.rx(x[1], 1)
    circuit.ry(w[3], 0)  # no later gate of qubit 0 depends on an input
    circuit.cx(1, 2)
    circuit.rx(w[4], 2)
    program = lower(circuit)
    parts = split(program, np.isin(np.arange(program.num_columns), [5, 6]))  # parameters are sorted by name
    columns = [
        sorted(set(part.ops.column[part.ops.column >= 0])) for part in (parts.prefix, parts.middle, parts.suffix)
    ]
    assert columns == [[0, 1, 2], [5, 6], [3, 4]]


# Evaluation.


@pytest.fixture
def modes(monkeypatch):
    """Let batches of any size share gates, and return a list of the modes of all shared batches."""
    seen, original = [], program_evaluation.evaluate_shared

    def watched(run, batch, *others):
        seen.append(batch.mode)
        return original(run, batch, *others)

    monkeypatch.setattr(shared_parts, "MIN_WORK", 0)
    monkeypatch.setattr(program_evaluation, "evaluate_shared", watched)
    return seen


def always(monkeypatch, mode):
    def choose(self, num_rows, num_observables, gradient, back=True, evolve=True):
        if mode == OBSERVABLE and not evolve:
            return PREFIX if self.prefix is not None else ROWS
        return mode

    monkeypatch.setattr(Sharing, "choose", choose)


def encoding_first(num_qubits=4):
    features, ansatz = zz_feature_map(num_qubits), efficient_su2(num_qubits, reps=2)
    return features.compose(ansatz), list(features.parameters), list(ansatz.parameters)


def weights_around(num_qubits=4):
    before = real_amplitudes(num_qubits, reps=1, parameter_prefix="b")
    circuit, inputs, weights = encoding_first(num_qubits)
    return before.compose(circuit), inputs, [*before.parameters, *weights]


def expressions_and_swaps():
    x, w = ParameterVector("x", 2), ParameterVector("w", 3)
    circuit = QuantumCircuit(3)
    circuit.rx(w[0] * w[1], 0)
    circuit.cx(0, 1)
    circuit.ry(x[0] * w[2], 1)
    circuit.swap(0, 2)
    circuit.rx(x[1], 2)
    circuit.cx(1, 2)
    circuit.swap(1, 2)
    circuit.rz(w[1] ** 2, 1)
    circuit.ry(w[1], 0)
    circuit.crx(w[2], 0, 1)
    return circuit, list(x), list(w)


def amplitudes():
    data, ansatz = raw_feature_vector(8), efficient_su2(3, reps=2)
    return data.compose(ansatz), list(data.parameters), list(ansatz.parameters)


CIRCUITS = {"encoding": encoding_first, "around": weights_around, "swaps": expressions_and_swaps, "data": amplitudes}


def rows_that_differ(circuit, inputs, num_rows):
    """Return rows of values of all parameters, in which only the inputs differ between rows."""
    rows = np.random.default_rng(0).normal(size=(num_rows, circuit.num_parameters))
    shared = [parameter not in inputs for parameter in circuit.parameters]
    rows[:, shared] = rows[0, shared]
    return rows


def question(circuit, inputs, weights, num_rows=19):
    rng = np.random.default_rng(3)
    observables = [*random_observables(circuit.num_qubits, 2), SparsePauliOp("Z" * circuit.num_qubits)]
    rows = rng.normal(size=(num_rows, len(inputs)))
    return observables, rows, rng.normal(size=len(weights)), rng.normal(size=(num_rows, len(observables)))


@pytest.mark.parametrize("input_gradients", [False, True], ids=["weights", "inputs"])
@pytest.mark.parametrize(  # the circuit "data" begins with its inputs and has no prefix
    ("name", "mode"),
    [(name, mode) for name in CIRCUITS for mode in (PREFIX, OBSERVABLE) if (name, mode) != ("data", PREFIX)],
)
def test_shared_batches_have_the_values_and_gradients_of_the_reference(
    monkeypatch, modes, name, mode, input_gradients, dtype
):
    always(monkeypatch, mode)
    circuit, inputs, weights = CIRCUITS[name]()
    observables, rows, point, cotangents = question(circuit, inputs, weights)
    shared, reference = (
        Expectations(circuit, observables, inputs, weights, FusedOptions(**options))
        for options in ({"dtype": dtype, "device": "cpu"}, {"device": "reference"})
    )
    np.testing.assert_allclose(shared.values(rows, point), reference.values(rows, point), atol=10 * TOLERANCE[dtype])
    actual, expected = (
        function.value_and_vjp(rows, point, cotangents, input_gradients=input_gradients)
        for function in (shared, reference)
    )
    scale = max(1.0, np.abs(expected.weights).max(), *(np.abs(expected.inputs).max() for _ in range(input_gradients)))
    for name in ("values", "weights", "inputs")[: 2 + input_gradients]:
        atol = 10 * TOLERANCE[dtype] * scale
        np.testing.assert_allclose(getattr(actual, name), getattr(expected, name), rtol=0, atol=atol)
    assert modes == [mode, mode]


def test_blocks_of_rows_add_up(monkeypatch, modes):
    circuit, inputs, weights = weights_around()
    observables, rows, point, cotangents = question(circuit, inputs, weights, num_rows=150)
    function = Expectations(circuit, observables, inputs, weights, FusedOptions())
    for mode in (PREFIX, OBSERVABLE):
        always(monkeypatch, mode)
        actual = []
        for room in (1 << 20, 70_000):
            monkeypatch.setattr(program_evaluation, "MOST_BYTES", room)
            actual.append(function.value_and_vjp(rows, point, cotangents))
        for whole, blocks in zip(*(vjp[:3] for vjp in actual)):
            np.testing.assert_allclose(whole, blocks, atol=1e-11)
    assert modes == [PREFIX, PREFIX, OBSERVABLE, OBSERVABLE]


def test_rows_without_pairs_keep_their_place_in_blocks(monkeypatch, modes):
    always(monkeypatch, PREFIX)
    monkeypatch.setattr(program_evaluation, "MOST_BYTES", 64 << 5)  # the states of two rows fit
    circuit, inputs, weights = encoding_first()
    rows, pairs = rows_that_differ(circuit, inputs, 4), all_pairs(2, 1)  # the last two rows have no pairs
    compiled, operators = compile_circuit(circuit), coerce_observables("ZZZZ").operators
    columns = ParameterColumns(compiled, compiled.columns_of(inputs), compiled.columns_of(weights))
    gradient = GradientRequest(np.ones(2), summed=columns.shared)
    request = Request(rows, pairs, gradient, may_vary=columns.depend_on_inputs)
    actual, expected = (
        execution.evaluate(FusedOptions(device=device), compiled, operators, request) for device in ("cpu", "reference")
    )
    np.testing.assert_allclose(actual.values, expected.values, atol=1e-12)
    assert actual.gradients.shape == expected.gradients.shape
    np.testing.assert_allclose(actual.gradients.sum(axis=0), expected.gradients.sum(axis=0), atol=1e-12)
    assert modes == [PREFIX]


def test_states_and_matrices_of_shared_parts_fit_a_part_of_the_memory_limit(monkeypatch, modes):
    circuit, inputs, weights = weights_around()
    observables, rows, point, cotangents = question(circuit, inputs, weights)
    always(monkeypatch, OBSERVABLE)
    for limit in ("1GB", "200kB"):
        function = Expectations(circuit, observables, inputs, weights, FusedOptions(memory_limit=limit))
        function.value_and_vjp(rows, point, cotangents)
    assert modes == [OBSERVABLE, PREFIX]


def test_evolved_observables_have_the_values_and_gradients_of_initial_states(monkeypatch, modes):
    always(monkeypatch, OBSERVABLE)
    ansatz = efficient_su2(3, reps=2)
    states = np.random.default_rng(5).normal(size=(20, 8, 2)) @ [1, 1j]
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    cotangents, point = np.linspace(-1, 1, 20)[:, None], np.linspace(0, 1, 18)
    question = np.zeros((20, 0)), point, cotangents
    actual, expected = (
        Expectations(ansatz, "XYZ", [], ansatz.parameters, FusedOptions(device=device)).value_and_vjp(
            *question, initial_states=states
        )
        for device in ("cpu", "reference")
    )
    for name in ("values", "weights", "initial_states"):
        np.testing.assert_allclose(getattr(actual, name), getattr(expected, name), atol=1e-12)
    assert modes == [OBSERVABLE]


def test_a_jacobian_shares_a_constant_prefix_but_no_prefix_with_parameters(monkeypatch, modes):
    always(monkeypatch, PREFIX)
    for number, gates in enumerate((lambda q: q.h(0), lambda q: q.ry(ParameterVector("a", 1)[0], 0))):
        circuit = QuantumCircuit(2)
        gates(circuit)
        circuit.cx(0, 1)
        circuit.rx(ParameterVector("x", 1)[0], 1)
        rows = np.random.default_rng(0).normal(size=(5, circuit.num_parameters))
        rows[:, :-1] = rows[0, :-1]
        actual, expected = (
            FusedEstimatorGradient(device=device).value_and_gradient(circuit, ["ZZ", "XY"], rows)
            for device in ("cpu", "reference")
        )
        for result, reference in zip(actual, expected):
            np.testing.assert_allclose(result, reference, atol=1e-12)
        assert modes == [PREFIX]  # only the first circuit shares its prefix
        assert number < 2


def test_gradients_of_single_rows_are_not_summed(monkeypatch, modes):
    """A request without summed columns needs the gradient of every row, and the rows share no gates."""
    always(monkeypatch, OBSERVABLE)
    circuit, inputs, _ = encoding_first()
    rows = rows_that_differ(circuit, inputs, 20)
    compiled, operators, pairs = compile_circuit(circuit), coerce_observables("ZZZZ").operators, all_pairs(20, 1)
    request = Request(rows, pairs, GradientRequest(np.ones(20)))
    actual = execution.evaluate(FusedOptions(), compiled, operators, request).gradients
    actual = pull_back(compiled, rows, actual, pairs)
    expected = FusedEstimatorGradient(device="reference").value_and_gradient(circuit, "ZZZZ", rows)[1][:, 0]
    np.testing.assert_allclose(actual, expected, atol=1e-12)
    assert modes == []


def test_pairs_that_are_not_all_pairs_do_not_evolve_the_observable(monkeypatch, modes):
    always(monkeypatch, OBSERVABLE)
    circuit, inputs, _ = encoding_first()
    rows = rows_that_differ(circuit, inputs, 4)
    pub = circuit, ["ZZZZ", "XXXX", "ZIIZ", "IYYI"], rows  # the PUB asks for observable k of row k only
    actual, expected = (
        FusedEstimator(device=device).run([pub]).result()[0].data.evs for device in ("cpu", "reference")
    )
    np.testing.assert_allclose(actual, expected, atol=1e-12)
    assert modes == [PREFIX]  # the prefix is the Hadamard gates of the feature map


def test_a_jacobian_does_not_share_a_short_prefix_and_a_gradient_of_the_sum_evolves_the_observable(modes):
    circuit, inputs = QuantumCircuit(4), ParameterVector("x", 4)
    circuit.h(range(4))  # the prefix
    for qubit, angle in enumerate(inputs):
        circuit.rx(angle, qubit)
    circuit.compose(efficient_su2(4, reps=40), inplace=True)
    weights = [parameter for parameter in circuit.parameters if parameter not in set(inputs)]
    function = Expectations(circuit, "ZZZZ", inputs, weights, FusedOptions())
    rows, point = np.random.default_rng(1).normal(size=(2000, 4)), np.linspace(-1, 1, len(weights))
    _, _, gradients = function.value_and_jacobian(rows, point, input_gradients=False)
    assert modes == []
    summed = function.value_and_vjp(rows, point, np.ones((2000, 1)), input_gradients=False).weights
    assert modes == [OBSERVABLE]
    np.testing.assert_allclose(gradients[:, 0].sum(axis=0), summed, atol=1e-9)


def test_batches_of_sparse_inputs_are_split_once(monkeypatch, modes):
    calls, original = [], shared_parts.split
    monkeypatch.setattr(shared_parts, "split", lambda *question: calls.append(question) or original(*question))
    circuit, inputs, weights = weights_around()
    observables, rows, point, cotangents = question(circuit, inputs, weights)
    function = Expectations(circuit, observables, inputs, weights, FusedOptions())
    for column in range(len(inputs)):
        sparse = np.where(np.arange(len(inputs)) == column, rows, 0.0)
        function.values(sparse, point)
        function.value_and_vjp(sparse, point, cotangents)
    assert len(calls) == 1


def test_small_batches_do_not_look_for_shared_gates(monkeypatch):
    monkeypatch.setattr(Sharing, "choose", lambda *question: pytest.fail("looked at"))
    circuit, *_ = encoding_first(2)
    FusedEstimator().run([(circuit, "ZZ", np.zeros((3, circuit.num_parameters)))]).result()


def test_metrics_have_the_mode_of_sharing(monkeypatch, modes):
    circuit, inputs, _ = encoding_first()
    rows = rows_that_differ(circuit, inputs, 40)
    for mode in (ROWS, PREFIX, OBSERVABLE):
        always(monkeypatch, mode)
        metrics = FusedEstimator().run([(circuit, "ZZZZ", rows)]).metrics()
        assert metrics["shared"] == mode
        assert metrics["rows"] == 40


def test_progress_of_shared_batches_goes_up_to_its_total(monkeypatch, modes):
    always(monkeypatch, OBSERVABLE)
    circuit, inputs, weights = weights_around()
    observables, rows, point, cotangents = question(circuit, inputs, weights)
    steps = []
    options = FusedOptions(progress=lambda done, total: steps.append((done, total)))
    Expectations(circuit, observables, inputs, weights, options).value_and_vjp(rows, point, cotangents)
    assert steps == sorted(steps)
    assert steps[-1][0] == steps[-1][1]


@pytest.mark.parametrize("num_terms", [1, 40])
def test_observables_apply_to_many_states_as_to_one(num_terms, dtype):
    rng = np.random.default_rng(num_terms)
    labels = {"".join(rng.choice(list("IXYZ01"), size=4)) for _ in range(num_terms)}
    operators = coerce_observables([dict.fromkeys(labels, 0.5), "+rl-"]).operators
    terms = operators.restrict(np.arange(4))
    states = (rng.normal(size=(3, 16, 2)) @ [1, 1j]).astype(dtype)
    for k in range(2):
        actual = shared_evaluation.apply_observable(terms, k, states)
        np.testing.assert_allclose(actual, [apply_one(terms, k, state) for state in states], atol=20 * TOLERANCE[dtype])


# The choice.


def test_deep_weights_before_inputs_are_shared_and_weights_behind_them_where_rows_are_many(monkeypatch):
    monkeypatch.setattr(shared_parts, "MIN_WORK", 0)
    circuit, inputs, _ = weights_around(4)
    deep = real_amplitudes(4, reps=40, parameter_prefix="d").compose(circuit)
    shown = str(fuse(deep, "ZZZZ", inputs))
    assert "prefix      " in shown and "suffix      " in shown
    plan = fuse(deep, "ZZZZ", inputs)
    shared = plan.sharing(plan.inputs)
    assert shared.choose(10, 1, True) == PREFIX
    assert 2 <= shared.rows_for("prefix", 1, True) <= 10
    behind = efficient_su2(4, reps=60)
    features = zz_feature_map(4)
    plan = fuse(features.compose(behind), "ZZZZ", features.parameters)
    shared = plan.sharing(plan.inputs)
    rows = shared.rows_for("suffix", 1, True)
    assert 16 < rows < 1000
    assert shared.choose(rows, 1, True) == OBSERVABLE != shared.choose(rows - 1, 1, True)


def test_sharing_does_not_add_gates_outside_the_light_cone():
    circuit, inputs, _ = weights_around(4)
    wide = QuantumCircuit(6)
    wide.compose(circuit, range(4), inplace=True)
    wide.rx(ParameterVector("y", 1)[0], 5)
    plan = fuse(wide, "IIZZZZ", inputs)
    assert plan.num_qubits == 4
    assert "nothing" in str(plan)


def test_a_program_is_split_when_the_same_columns_differ_for_the_second_time():
    circuit, inputs, _ = encoding_first(8)
    plan = fuse(circuit, "ZZZZZZZZ", inputs)
    fused, varies = plan.fused_program, plan.inputs
    assert [is_worth_splitting(fused, varies, 1000) for _ in range(3)] == [False, True, True]
    assert is_worth_splitting(fused, ~varies, 10**6)


def test_pickled_plans_lack_the_parts_that_can_be_made_again():
    circuit, inputs, _ = encoding_first()
    plan = fuse(circuit, "ZZZZ", inputs)
    before = len(pickle.dumps(plan))
    str(plan)
    assert plan.sharing(plan.inputs).suffix is not None
    assert len(pickle.dumps(plan)) == before
    assert str(pickle.loads(pickle.dumps(plan))) == str(plan)


def test_inputs_of_another_circuit_are_named():
    circuit, *_ = encoding_first(2)
    with pytest.raises(ValueError, match=r"inputs contains 'y', which is not in circuit\.parameters"):
        fuse(circuit, "ZZ", [Parameter("y")])


def test_random_circuits_with_any_split_of_parameters_agree_with_the_reference(monkeypatch, modes):
    for seed in range(12):
        circuit = random_circuit(4, 30, seed)
        parameters = list(circuit.parameters)
        inputs, weights = parameters[seed % 3 :: 3], [p for p in parameters if p not in parameters[seed % 3 :: 3]]
        observables, rows, point, cotangents = question(circuit, inputs, weights)
        expected = Expectations(circuit, observables, inputs, weights, FusedOptions(device="reference")).value_and_vjp(
            rows, point, cotangents
        )
        for mode in (PREFIX, OBSERVABLE):
            always(monkeypatch, mode)
            function = Expectations(circuit, observables, inputs, weights, FusedOptions(device="cpu"))
            plan = fuse(circuit, observables, inputs)
            if mode == OBSERVABLE and plan.sharing(plan.inputs).suffix is None:
                continue
            actual = function.value_and_vjp(rows, point, cotangents)
            for result, reference in zip(actual[:3], expected[:3]):
                np.testing.assert_allclose(result, reference, atol=1e-11)
    assert PREFIX in modes and OBSERVABLE in modes
