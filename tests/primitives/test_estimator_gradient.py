# SPDX-License-Identifier: Apache-2.0
"""FusedEstimatorGradient is right, also where gradients of qiskit-machine-learning are wrong."""

import copy
import pickle

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import RVGate, UnitaryGate, real_amplitudes, zz_feature_map
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import Operator, SparseObservable, SparsePauliOp, Statevector, random_unitary
from qiskit_machine_learning.circuit.library import raw_feature_vector
from qiskit_machine_learning.gradients import (
    DerivativeType,
    EstimatorGradientResult,
    LinCombEstimatorGradient,
    ParamShiftEstimatorGradient,
)
from qiskit_machine_learning.neural_networks import EstimatorQNN
from qiskit_machine_learning.primitives import QMLEstimator

from qiskit_fused import FusedEstimator, FusedEstimatorGradient, FusedSampler, UnsupportedInstruction
from qiskit_fused.compilation.circuits import COMPILED

TOLERANCE = {"complex128": 1e-10, "complex64": 1e-5}


@pytest.fixture
def gradient(device):
    return FusedEstimatorGradient(device=device)


@pytest.fixture
def circuit():
    return zz_feature_map(3, reps=1).compose(real_amplitudes(3, reps=1, parameter_prefix="w"))


OPERATORS = [
    SparsePauliOp(["ZZI", "IXY"], [1.0, -0.4]),
    SparsePauliOp("IIZ"),
    SparsePauliOp(["XXX", "III"], [0.7, 3.0]),
]


def rows(circuit, *shape, seed=0):
    return np.random.default_rng(seed).normal(size=(*shape, circuit.num_parameters))


def shift(circuit, operator, values, parameters=None):
    """Return the parameter-shift gradient of one row."""
    gradient = ParamShiftEstimatorGradient(StatevectorEstimator())
    return gradient.run([circuit], [operator], [values], [parameters]).result().gradients[0]


def numeric(circuit, operator, values, step=1e-3):
    """Return 2 <psi|O|d psi>, float or complex (P,), by central differences of fourth order."""
    operator = (
        Operator(operator)
        if not isinstance(operator, SparseObservable)
        else SparsePauliOp.from_sparse_observable(operator)
    )
    matrix = np.asarray(operator.to_matrix())

    def state(at):
        return Statevector(circuit.assign_parameters(at)).data

    psi = state(values)
    out = []
    for direction in np.eye(len(values)) * step:
        ends = [state(values + k * direction) for k in (-2, -1, 1, 2)]
        derivative = (ends[0] - 8 * ends[1] + 8 * ends[2] - ends[3]) / (12 * step)
        out.append(2 * np.vdot(psi, matrix @ derivative))
    return np.array(out)


# --- values ---


def test_gradients_match_the_parameter_shift_in_every_dtype(device, dtype, circuit):
    values = rows(circuit, 3)
    result = FusedEstimatorGradient(device=device, dtype=dtype).run([circuit] * 3, OPERATORS, values).result()
    assert isinstance(result, EstimatorGradientResult)
    for mine, operator, row in zip(result.gradients, OPERATORS, values):
        np.testing.assert_allclose(mine, shift(circuit, operator, row), atol=TOLERANCE[dtype])


@pytest.mark.parametrize("derivative_type", list(DerivativeType), ids=lambda kind: kind.name)
def test_derivative_types_match_linear_combinations(gradient, derivative_type):
    a, b, c = Parameter("a"), Parameter("b"), Parameter("c")
    circuit = QuantumCircuit(2)
    circuit.rx(a, 0)
    circuit.ry(b, 1)
    circuit.cx(0, 1)
    circuit.rz(2 * a, 1)
    circuit.rzz(b * c, 0, 1)
    circuit.rx(c, 0)
    theirs = LinCombEstimatorGradient(StatevectorEstimator(), derivative_type)
    gradient.derivative_type = derivative_type
    assert gradient.derivative_type == derivative_type
    arguments = ([circuit] * 2, OPERATORS_2, [[0.3, -0.5, 1.1], [1.0, 0.2, 0.3]], [None, [c, a]])
    ours, original = gradient.run(*arguments).result(), theirs.run(*arguments).result()
    for mine, their in zip(ours.gradients, original.gradients):
        assert mine.dtype == their.dtype
        np.testing.assert_allclose(mine, their, atol=1e-10)
    _, fast = gradient.value_and_gradient(circuit, OPERATORS_2, [0.3, -0.5, 1.1])
    np.testing.assert_allclose(fast[0, 0], original.gradients[0], atol=1e-10)


OPERATORS_2 = [SparsePauliOp(["ZZ", "XI", "YX"], [1.0, 0.5, -0.2]), SparsePauliOp(["IY", "XX"], [1.0, 0.3])]


def test_imaginary_derivatives_see_gates_outside_the_light_cone(gradient):
    gradient.derivative_type = DerivativeType.IMAG
    circuit = QuantumCircuit(2)
    circuit.ry(Parameter("a"), 0)
    circuit.h(1)
    circuit.rx(Parameter("b"), 1)
    operator = SparsePauliOp("IZ")
    theirs = LinCombEstimatorGradient(StatevectorEstimator(), DerivativeType.IMAG)
    expected = theirs.run([circuit], [operator], [[0.4, 0.7]]).result().gradients[0]
    assert abs(expected[1]) > 0.1
    np.testing.assert_allclose(
        gradient.run([circuit], [operator], [[0.4, 0.7]]).result().gradients[0], expected, atol=1e-10
    )


def test_parameter_subsets_keep_the_order_of_the_request(gradient, circuit):
    p = list(circuit.parameters)
    subsets = [[p[2], p[0]], None, [], [p[-1], p[3], p[1]], [p[0], p[0]]]
    values = rows(circuit, 5)
    result = gradient.run([circuit] * 5, [OPERATORS[0]] * 5, values, subsets).result()
    for mine, subset, row, metadata in zip(result.gradients, subsets, values, result.metadata):
        full = shift(circuit, OPERATORS[0], row)
        chosen = list(range(len(p))) if subset is None else [p.index(q) for q in subset]
        np.testing.assert_allclose(mine, full[chosen], atol=1e-10)
        assert list(metadata["parameters"]) == (p if subset is None else subset)
    _, fast = gradient.value_and_gradient(circuit, OPERATORS[0], values, subsets[3])
    np.testing.assert_allclose(fast[3, 0], result.gradients[3], atol=1e-12)


def test_shared_parameters_and_expressions_follow_the_chain_rule(gradient):
    a, b = Parameter("a"), Parameter("b")
    circuit = QuantumCircuit(2)
    circuit.rx(a, 0)
    circuit.ry(2 * a + b, 1)
    circuit.cx(0, 1)
    circuit.rz(a * b, 1)
    circuit.cp(a.sin() - b**2, 0, 1)
    circuit.u(a, b, a / 3, 0)
    operator = SparsePauliOp(["XZ", "YI", "IZ"], [1.0, 2.0, -0.5])
    values = rows(circuit, 4)
    actual = gradient.value_and_gradient(circuit, operator, values)[1][:, 0]
    for mine, row in zip(actual, values):
        np.testing.assert_allclose(mine, numeric(circuit, operator, row).real, atol=1e-8)
    result = gradient.run([circuit] * 4, [operator] * 4, values).result()
    np.testing.assert_allclose(result.gradients, actual, atol=1e-12)


def test_different_circuits_may_be_mixed(gradient, circuit):
    other = real_amplitudes(2, reps=1)
    circuits = [circuit, other, circuit, other]
    operators = [OPERATORS[0], OPERATORS_2[0], OPERATORS[2], OPERATORS_2[0]]
    values = [rows(c, seed=i) for i, c in enumerate(circuits)]
    subsets = [None, other.parameters[1:3], list(circuit.parameters)[:2], None]
    result = gradient.run(circuits, operators, values, subsets).result()
    for i, mine in enumerate(result.gradients):
        np.testing.assert_allclose(mine, shift(circuits[i], operators[i], values[i], subsets[i]), atol=1e-10)


def test_a_single_circuit_and_observable_need_no_list(gradient, circuit):
    values = rows(circuit, 1)
    expected = shift(circuit, OPERATORS[0], values[0])
    for operator in (
        OPERATORS[0],
        [OPERATORS[0]],
        (OPERATORS[0],),
        SparseObservable.from_sparse_pauli_op(OPERATORS[0]),
    ):
        np.testing.assert_allclose(gradient.run(circuit, operator, values).result().gradients[0], expected, atol=1e-10)


# --- value_and_gradient ---


def test_values_and_gradients_of_full_products(gradient, device, circuit):
    values = rows(circuit, 4)
    evs, gradients = gradient.value_and_gradient(circuit, OPERATORS, values)
    assert (evs.shape, gradients.shape) == ((4, 3), (4, 3, circuit.num_parameters))
    expected = FusedEstimator(device=device).run([(circuit, [[op] for op in OPERATORS], values)]).result()[0].data.evs
    np.testing.assert_allclose(evs, expected.T, atol=1e-12)
    for b, k in ((0, 0), (1, 2), (3, 1)):
        np.testing.assert_allclose(gradients[b, k], shift(circuit, OPERATORS[k], values[b]), atol=1e-10)


def test_one_row_keeps_its_axis(gradient, circuit):
    evs, gradients = gradient.value_and_gradient(circuit, OPERATORS[0], rows(circuit))
    assert (evs.shape, gradients.shape) == ((1, 1), (1, 1, circuit.num_parameters))
    evs, gradients = gradient.value_and_gradient(circuit, OPERATORS, np.zeros((0, circuit.num_parameters)))
    assert (evs.shape, gradients.shape) == ((0, 3), (0, 3, circuit.num_parameters))


def test_projectors_have_gradients(gradient, circuit):
    values = rows(circuit)
    _, actual = gradient.value_and_gradient(circuit, ["0+1", "rIl"], values)
    for k, label in enumerate(("0+1", "rIl")):
        np.testing.assert_allclose(actual[0, k], numeric(circuit, SparseObservable(label), values).real, atol=1e-8)


def test_value_and_gradient_names_arguments_that_do_not_fit(gradient, circuit):
    with pytest.raises(
        ValueError, match=r"parameter_values has shape \(2, 3\); the circuit has 9 parameters, allowed: \(r"
    ):
        gradient.value_and_gradient(circuit, OPERATORS, np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"circuit \(3\) does not match the number of qubits of the observables \(2\)"):
        gradient.value_and_gradient(circuit, "ZZ", rows(circuit))
    with pytest.raises(ValueError, match=r"parameters contains 'foreign', which is not in circuit\.parameters"):
        gradient.value_and_gradient(circuit, "ZZZ", rows(circuit), [circuit.parameters[0], Parameter("foreign")])
    with pytest.raises(TypeError, match=r"parameters contains \[Parameter.*; allowed: Parameter objects"):
        gradient.value_and_gradient(circuit, "ZZZ", rows(circuit), [[circuit.parameters[0]]])
    with pytest.raises(ValueError, match=r"parameters contains '0', which is not in circuit\.parameters"):
        gradient.value_and_gradient(circuit, "ZZZ", rows(circuit), 0)
    with pytest.raises(ValueError, match="observables is empty; allowed: one observable or a list of them"):
        gradient.value_and_gradient(circuit, [], rows(circuit))
    values = rows(circuit)
    values[1] = np.nan
    with pytest.raises(ValueError, match=r"the value of parameter 'w\[1\]' in row 0 is nan; allowed: finite numbers"):
        gradient.value_and_gradient(circuit, "ZZZ", values)


def test_gates_a_gradient_needs_are_refused_when_a_sweep_cannot_do_them(gradient):
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.reset(0)
    circuit.ry(Parameter("a"), 0)
    with pytest.raises(UnsupportedInstruction, match="reset"):
        gradient.value_and_gradient(circuit, "ZZ", [0.1])
    job = gradient.run([circuit], [SparsePauliOp("ZZ")], [[0.1]])
    with pytest.raises(UnsupportedInstruction, match="reset"):
        job.result()


def test_the_memory_limit_counts_the_cotangent(device, circuit):
    gradient = FusedEstimatorGradient(device=device, memory_limit="200B")
    with pytest.raises(
        MemoryError, match="statevector and cotangent of 3 qubits need 256 B in complex128, memory_limit is 200"
    ):
        gradient.value_and_gradient(circuit, "ZZZ", rows(circuit))


# --- validation ---


def test_something_that_is_no_circuit_is_refused_by_its_type(gradient, circuit):
    text = "circuit must be a QuantumCircuit, not "
    with pytest.raises(TypeError, match=text + "str"):
        gradient.value_and_gradient("circuit", "Z", [0.1])
    for wrong in ("circuit", ["circuit"], None, [circuit, None]):
        with pytest.raises(TypeError, match=text):
            gradient.run(wrong, ["ZZZ"], rows(circuit, 1))


def test_values_that_are_none_or_complex_are_refused(gradient, circuit):
    for values, what in (
        (None, "None"),
        (rows(circuit, 1) * 1j, "complex"),
        ((rows(circuit, 1) * 1j).tolist(), "comp"),
    ):
        with pytest.raises(TypeError, match=f"parameter_values is {what}.*; allowed: real numbers"):
            gradient.value_and_gradient(circuit, "ZZZ", values)
        with pytest.raises(TypeError, match=f"parameter_values is {what}.*; allowed: real numbers"):
            gradient.run([circuit], ["ZZZ"], values)


@pytest.mark.parametrize(
    "values", [0.5, np.float64(0.5), np.array(0.5), {0.5}, (x for x in [0.5])], ids=lambda values: type(values).__name__
)
def test_values_of_a_job_that_are_no_rows_are_refused(gradient, circuit, values):
    with pytest.raises(TypeError, match=r"parameter_values is .*; allowed: a list or an array with a row of values"):
        gradient.run([circuit], ["ZZZ"], values)
    with pytest.raises(TypeError, match=r"parameter_values\[1\] is .*; allowed: the 9 values of the 1-th circuit"):
        gradient.run([circuit] * 2, ["ZZZ"] * 2, [rows(circuit, 1)[0], 0.5])


def test_run_takes_observables_as_strings_and_dicts_and_refuses_lists_of_lists(gradient, circuit):
    values = rows(circuit, 2)
    expected = gradient.run([circuit] * 2, [SparsePauliOp("ZZI"), SparsePauliOp("XIX", 0.5)], values).result().gradients
    actual = gradient.run([circuit] * 2, ["ZZI", {"XIX": 0.5}], values).result().gradients
    np.testing.assert_allclose(actual, expected, atol=1e-14)
    np.testing.assert_allclose(gradient.run(circuit, "ZZI", values[:1]).result().gradients, expected[:1], atol=1e-14)
    with pytest.raises(ValueError, match="The 0-th observable is a list of 2; allowed: one observable"):
        gradient.run([circuit], [["ZZI", "XIX"]], values[:1])
    with pytest.raises(TypeError, match="int"):
        gradient.run([circuit], [5], values[:1])


def test_one_parameter_needs_no_list(gradient, circuit):
    values, parameter = rows(circuit, 1), circuit.parameters[3]
    expected = gradient.value_and_gradient(circuit, "ZZZ", values)[1][:, :, 3:4]
    np.testing.assert_array_equal(gradient.value_and_gradient(circuit, "ZZZ", values, parameter)[1], expected)
    for parameters in (parameter, [parameter]):
        result = gradient.run(circuit, "ZZZ", values, parameters).result()
        np.testing.assert_allclose(result.gradients, expected[0], atol=1e-14)
        assert result.metadata == [{"parameters": [parameter]}]


def test_errors_begin_with_the_text_of_qiskit_machine_learnings(gradient, circuit):
    plain = QuantumCircuit(3)
    operator, values = OPERATORS[0], rows(circuit, 2)
    bad = [
        ([circuit], [operator], values),
        ([circuit] * 2, [operator], values),
        ([circuit] * 2, [operator] * 2, values[:, :-1]),
        ([circuit] * 2, [operator] * 2, [values[0], values[1][:-2]]),
        ([circuit, plain], [operator] * 2, [values[0], []]),
        ([circuit] * 2, [operator, SparsePauliOp("ZZ")], values),
        ([circuit] * 2, [operator] * 2, values, [None]),
        ([circuit] * 2, [operator] * 2, values, [None, [Parameter("foreign")]]),
        ([circuit] * 2, [operator] * 2, values, [None, [Parameter(circuit.parameters[0].name)]]),
    ]
    for arguments in bad:
        with pytest.raises(ValueError, match="The ") as theirs:
            ParamShiftEstimatorGradient(StatevectorEstimator()).run(*arguments)
        with pytest.raises(ValueError, match="The ") as ours:
            gradient.run(*arguments)
        assert str(ours.value).startswith(str(theirs.value).removesuffix("."))  # some errors of ours add a cure


def test_options_are_merged_into_the_result(gradient, circuit):
    made = FusedEstimatorGradient(FusedEstimator(), options={"shots": 100})
    assert made.options.shots == 100
    made.update_default_options(shots=200)
    result = made.run([circuit], [OPERATORS[0]], rows(circuit, 1), other=3).result()
    assert (result.options.shots, result.options.other) == (200, 3)
    assert gradient.options.__dict__ == {} or dict(gradient.options.items()) == {}


def test_metrics_count_rows_and_pairs(device, circuit):
    job = FusedEstimatorGradient(FusedEstimator(device=device, dtype="complex64")).run(
        [circuit] * 2, [OPERATORS[0]] * 2, rows(circuit, 2)
    )
    metrics = job.metrics()
    assert (metrics["device"], metrics["dtype"], metrics["rows"], metrics["pairs"]) == (device, "complex64", 2, 2)


def test_a_gradient_survives_pickle_and_deepcopy(device, circuit):
    gradient = FusedEstimatorGradient(FusedEstimator(device=device), derivative_type=DerivativeType.IMAG)
    expected = gradient.value_and_gradient(circuit, OPERATORS, rows(circuit))[1]
    for other in (pickle.loads(pickle.dumps(gradient)), copy.deepcopy(gradient)):
        np.testing.assert_array_equal(other.value_and_gradient(circuit, OPERATORS, rows(circuit))[1], expected)
    assert copy.deepcopy(gradient).fused_options.device == device


def test_the_gradient_uses_the_circuit_that_the_estimator_compiled(device):
    circuit = real_amplitudes(2, reps=1)
    estimator = FusedEstimator(device=device)
    estimator.run([(circuit, "ZZ", rows(circuit))]).result()
    compiled = COMPILED.get(circuit)
    FusedEstimatorGradient(estimator).run([circuit], [SparsePauliOp("ZZ")], rows(circuit, 1)).result()
    assert COMPILED.get(circuit) is compiled


def test_progress_changes_nothing(device, circuit, capsys, monkeypatch):
    monkeypatch.setattr("qiskit_fused.execution.progress._BAR_AFTER", 0)
    values = rows(circuit, 60)
    plain = FusedEstimatorGradient(device=device).value_and_gradient(circuit, OPERATORS, values)
    shown = FusedEstimatorGradient(device=device, progress=True).value_and_gradient(circuit, OPERATORS, values)
    for result, reference in zip(shown, plain):
        np.testing.assert_array_equal(result, reference)
    assert "100%" in capsys.readouterr().err


# --- EstimatorQNN ---


@pytest.mark.parametrize("input_gradients", [False, True])
@pytest.mark.parametrize("num_outputs", [1, 3])
def test_a_network_gives_the_same_results_with_this_gradient(device, circuit, input_gradients, num_outputs):
    def make(**keywords):
        return EstimatorQNN(
            circuit=circuit,
            observables=OPERATORS[:num_outputs],
            input_params=circuit.parameters[6:],
            weight_params=circuit.parameters[:6],
            input_gradients=input_gradients,
            **keywords,
        )

    estimator = FusedEstimator(device=device)
    ours = make(estimator=estimator, gradient=FusedEstimatorGradient(estimator))
    theirs = make(estimator=QMLEstimator(), gradient=ParamShiftEstimatorGradient(QMLEstimator()))
    rng = np.random.default_rng(1)
    inputs, weights = rng.normal(size=(4, 3)), rng.normal(size=6)
    np.testing.assert_allclose(ours.forward(inputs, weights), theirs.forward(inputs, weights), atol=1e-12)
    for mine, original in zip(ours.backward(inputs, weights), theirs.backward(inputs, weights)):
        if original is None:
            assert mine is None
        else:
            assert mine.shape == original.shape
            np.testing.assert_allclose(mine, original, atol=1e-10)


def test_a_networks_tiles_are_simulated_once(gradient, circuit):
    values = rows(circuit, 5)
    job = gradient.run([circuit] * 15, [op for op in OPERATORS for _ in range(5)], np.tile(values, (3, 1)))
    assert (job.metrics()["rows"], job.metrics()["pairs"]) == (5, 15)
    _, expected = gradient.value_and_gradient(circuit, OPERATORS, values)
    np.testing.assert_allclose(job.result().gradients, expected.transpose(1, 0, 2).reshape(15, -1), atol=1e-12)


def test_equal_rows_in_any_order_are_simulated_once(gradient, circuit):
    values = rows(circuit, 2)[[0, 1, 0, 1, 0]]
    operators = [OPERATORS[k] for k in (0, 1, 1, 0, 0)]
    job = gradient.run([circuit] * 5, operators, values)
    assert (job.metrics()["rows"], job.metrics()["pairs"]) == (2, 4)
    for mine, operator, row in zip(job.result().gradients, operators, values):
        np.testing.assert_allclose(mine, shift(circuit, operator, row), atol=1e-10)


# --- circuits whose gradients by qiskit-machine-learning are wrong or fail ---


def test_parameters_of_equal_names_in_two_circuits(gradient):
    for seed in (1, 2):
        circuit = QuantumCircuit(1)
        circuit.rx(Parameter("a"), 0)
        circuit.ry(Parameter("b"), 0)
        values = rows(circuit, 1, seed=seed)
        mine = gradient.run([circuit], [SparsePauliOp("Z")], values).result().gradients[0]
        np.testing.assert_allclose(mine, numeric(circuit, SparsePauliOp("Z"), values[0]).real, atol=1e-8)


def test_composite_gates_of_equal_name_and_parameters(gradient):
    a = Parameter("a")
    for build in (lambda c: c.rx(a, 0), lambda c: (c.rx(2 * a, 0), c.ry(a, 0))):
        inner = QuantumCircuit(1, name="block")
        build(inner)
        circuit = QuantumCircuit(1)
        circuit.append(inner.to_gate(), [0])
        mine = gradient.run([circuit], [SparsePauliOp("Z")], [[0.7]]).result().gradients[0]
        np.testing.assert_allclose(mine, numeric(circuit, SparsePauliOp("Z"), np.array([0.7])).real, atol=1e-8)


def test_large_unitaries_that_differ_in_the_middle(gradient):
    unitary = random_unitary(64, seed=3).data
    for sign in (1, -1):
        middle = unitary.copy()
        middle[:, 30:34] *= sign
        circuit = QuantumCircuit(6)
        circuit.h(range(6))
        circuit.ry(Parameter("a"), 2)
        circuit.append(UnitaryGate(middle), range(6))
        mine = gradient.run([circuit], [SparsePauliOp("IIIZZZ")], [[0.7]]).result().gradients[0]
        expected = numeric(circuit, SparsePauliOp("IIIZZZ"), np.array([0.7])).real
        np.testing.assert_allclose(mine, expected, atol=1e-8)


def test_a_parameter_of_the_global_phase_has_gradient_zero(gradient):
    circuit = QuantumCircuit(1)
    circuit.rx(Parameter("a"), 0)
    circuit.global_phase = Parameter("phase")
    mine = gradient.run([circuit], [SparsePauliOp("Z")], [[0.7, 0.3]]).result().gradients[0]
    np.testing.assert_allclose(mine, [-np.sin(0.7), 0.0], atol=1e-12)


def test_the_rv_gate(gradient):
    circuit = QuantumCircuit(1)
    circuit.h(0)
    circuit.append(RVGate(*ParameterVector("v", 3)), [0])
    for values in ([0.3, -0.5, 1.2], [0.0, 0.0, 0.0]):
        mine = gradient.run([circuit], [SparsePauliOp(["Z", "Y"])], [values]).result().gradients[0]
        expected = numeric(circuit, SparsePauliOp(["Z", "Y"]), np.array(values) + 1e-9).real
        np.testing.assert_allclose(mine, expected, atol=1e-6)


def test_weights_after_an_amplitude_encoding(device):
    features = raw_feature_vector(4)
    circuit = features.compose(real_amplitudes(2, reps=1, parameter_prefix="w"))
    weights = [p for p in circuit.parameters if p.name.startswith("w")]
    inputs = [p for p in circuit.parameters if not p.name.startswith("w")]
    row = np.array([0.5, 0.5, -0.1, 0.7, 0.1, 0.2, 0.3, 0.4])
    order = [p.name for p in inputs] + [p.name for p in weights]
    values = np.array([row[order.index(p.name)] for p in circuit.parameters])
    gradient = FusedEstimatorGradient(device=device)
    mine = gradient.run([circuit], [SparsePauliOp("ZX")], [values], [weights]).result().gradients[0]
    bound = circuit.assign_parameters(dict(zip(inputs, row[:4])))
    np.testing.assert_allclose(mine, numeric(bound, SparsePauliOp("ZX"), row[4:]).real, atol=1e-8)


# --- qiskit-algorithms ---


def test_vqe_takes_this_gradient(device):
    algorithms = pytest.importorskip("qiskit_algorithms")
    optimizers = pytest.importorskip("qiskit_algorithms.optimizers")
    hamiltonian = SparsePauliOp(["ZZ", "XI", "IX"], [1.0, 0.5, 0.5])
    estimator = FusedEstimator(device=device)
    vqe = algorithms.VQE(
        estimator,
        real_amplitudes(2, reps=2),
        optimizers.SLSQP(maxiter=100),
        gradient=FusedEstimatorGradient(estimator),
        initial_point=np.full(6, 0.3),
    )
    actual = vqe.compute_minimum_eigenvalue(hamiltonian).eigenvalue
    assert actual == pytest.approx(np.linalg.eigvalsh(hamiltonian.to_matrix())[0], abs=1e-5)


def test_derivative_types_of_qiskit_algorithms_are_understood(device):
    gradients = pytest.importorskip("qiskit_algorithms.gradients")
    circuit = real_amplitudes(2, reps=1)
    values = rows(circuit, 1)
    for kind in DerivativeType:
        ours = FusedEstimatorGradient(device=device, derivative_type=kind)
        theirs = FusedEstimatorGradient(device=device, derivative_type=gradients.DerivativeType[kind.name])
        np.testing.assert_array_equal(
            theirs.value_and_gradient(circuit, "ZX", values)[1], ours.value_and_gradient(circuit, "ZX", values)[1]
        )


def test_a_sampler_is_refused_with_the_gradient_that_takes_it():
    text = (
        "estimator must be an estimator or None, not FusedSampler; give a FusedEstimator, or use FusedSamplerGradient"
    )
    with pytest.raises(TypeError, match=text):
        FusedEstimatorGradient(FusedSampler())
