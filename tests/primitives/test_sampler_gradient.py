# SPDX-License-Identifier: Apache-2.0
"""FusedSamplerGradient gives the exact derivatives of the probabilities that FusedSampler gives."""

import copy
import pickle

import numpy as np
import pytest
from circuits import circuits, values_of
from hypothesis import given, settings
from numpy.testing import assert_allclose
from qiskit import transpile
from qiskit.circuit import ClassicalRegister, Parameter, ParameterVector, QuantumCircuit, QuantumRegister
from qiskit.circuit.library import efficient_su2, real_amplitudes, zz_feature_map
from qiskit.primitives import StatevectorEstimator, StatevectorSampler
from qiskit.quantum_info import Statevector
from qiskit_machine_learning.gradients import ParamShiftSamplerGradient, SamplerGradientResult
from qiskit_machine_learning.primitives import QMLSampler

from qiskit_fused import FusedEstimator, FusedSampler, FusedSamplerGradient, UnsupportedInstruction, compile_circuit
from qiskit_fused.common.row_errors import RowError

TOLERANCE = {"complex128": 1e-10, "complex64": 1e-5}
A, B = Parameter("a"), Parameter("b")


def parity(integer):
    return integer.bit_count() % 2


def pair(integer):
    return integer % 2, integer // 4


@pytest.fixture
def gradient(device):
    return FusedSamplerGradient(device=device)


@pytest.fixture
def circuit():
    return zz_feature_map(3, reps=1).compose(real_amplitudes(3, reps=1, parameter_prefix="w"))


def measured(circuit):
    return circuit.measure_all(inplace=False)


def rows(circuit, *shape, seed=0):
    return np.random.default_rng(seed).normal(size=(*shape, circuit.num_parameters))


def numeric(circuit, values, step=1e-3):
    """Return probabilities (2^n,) of all qubits and their derivatives (2^n, P), by differences of fourth order."""

    def probabilities(at):
        return Statevector(circuit.assign_parameters(at)).probabilities()

    derivatives = []
    for direction in np.eye(len(values)) * step:
        ends = [probabilities(values + k * direction) for k in (-2, -1, 1, 2)]
        derivatives.append((ends[0] - 8 * ends[1] + 8 * ends[2] - ends[3]) / (12 * step))
    return probabilities(values), np.array(derivatives).reshape(-1, 2**circuit.num_qubits).T


def dense(dicts, size):
    """Return gradients (size, P) of a list of P dicts."""
    array = np.zeros((size, len(dicts)))
    for column, derivatives in enumerate(dicts):
        for integer, derivative in derivatives.items():
            array[integer, column] = derivative
    return array


# --- values ---


def test_gradients_match_the_parameter_shift_in_every_dtype(device, dtype, circuit):
    values = rows(circuit, 2)
    arguments = [measured(circuit)] * 2, values
    result = FusedSamplerGradient(device=device, dtype=dtype).run(*arguments).result()
    expected = ParamShiftSamplerGradient(QMLSampler()).run(*arguments).result()
    assert isinstance(result, SamplerGradientResult)
    for mine, theirs in zip(result.gradients, expected.gradients, strict=True):
        assert [list(derivatives) for derivatives in mine] == [list(range(8))] * circuit.num_parameters
        assert all(type(key) is int and type(value) is float for one in mine for key, value in one.items())
        assert_allclose(dense(mine, 8), dense(theirs, 8), atol=TOLERANCE[dtype])
    assert [list(entry[0]["parameters"]) for entry in result.metadata] == [
        list(entry[0]["parameters"]) for entry in expected.metadata
    ]


def test_value_and_gradient_returns_dense_arrays(gradient, circuit):
    values = rows(circuit, 2)
    probabilities, gradients = gradient.value_and_gradient(measured(circuit), values)
    assert probabilities.shape == (2, 8) and gradients.shape == (2, 8, circuit.num_parameters)
    for row, found, derivatives in zip(values, probabilities, gradients):
        expected = numeric(circuit, row)
        assert_allclose(found, expected[0], atol=1e-12)
        assert_allclose(derivatives, expected[1], atol=1e-9)


@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")
@settings(max_examples=25, deadline=None)
@given(circuit=circuits())
def test_gradients_of_random_circuits_are_those_of_finite_differences(circuit):
    values = values_of(circuit)
    expected = numeric(circuit, values)
    for device in ("reference", "cpu"):
        probabilities, gradients = FusedSamplerGradient(device=device).value_and_gradient(circuit, values)
        assert_allclose(probabilities[0], expected[0], atol=1e-10)
        assert_allclose(gradients[0], expected[1], atol=1e-6)


def test_interpret_adds_the_probabilities_of_its_outcomes(gradient, circuit):
    values = rows(circuit, 2)
    probabilities, gradients = gradient.value_and_gradient(circuit, values)
    of_parity = gradient.value_and_gradient(circuit, values, None, parity, 2)
    table = np.eye(2)[[parity(z) for z in range(8)]]
    assert_allclose(of_parity[0], probabilities @ table, atol=1e-12)
    assert_allclose(of_parity[1], np.einsum("bzp,zk->bkp", gradients, table), atol=1e-12)

    of_pairs = gradient.value_and_gradient(circuit, values, interpret=pair, output_shape=(2, 3))
    assert of_pairs[0].shape == (2, 2, 3) and of_pairs[1].shape == (2, 2, 3, circuit.num_parameters)
    expected = np.zeros((2, 2, 3))
    for z in range(8):
        expected[:, z % 2, z // 4] += probabilities[:, z]
    assert_allclose(of_pairs[0], expected, atol=1e-12)
    assert not of_pairs[1][:, :, 2].any()  # no integer has this outcome


def test_the_last_of_several_outcomes_follows_from_the_others(gradient, circuit):
    values = rows(circuit, 1)
    complete = gradient.value_and_gradient(circuit, values)[1]
    assert_allclose(complete.sum(axis=1), 0, atol=1e-12)
    job = gradient.run([circuit], values)
    assert_allclose(dense(job.result().gradients[0], 8), complete[0], atol=1e-12)


# --- which qubits, which bits ---


def test_the_integer_is_that_of_the_joined_registers(gradient):
    register, low, high = QuantumRegister(3), ClassicalRegister(2, "low"), ClassicalRegister(2, "high")
    circuit = QuantumCircuit(register, low, high)
    circuit.ry(A, 0)
    circuit.ry(B, 2)
    circuit.measure([0, 2], [low[1], high[0]])  # nothing is measured into the first and the last bit
    values = [[0.4, 0.9]]
    of_a, of_b = gradient.run([circuit], values).result().gradients[0]
    assert list(of_a) == list(of_b) == [0b0000, 0b0010, 0b0100, 0b0110]
    one, other = np.sin(0.2) ** 2, np.sin(0.45) ** 2
    assert of_a[0b0110] == pytest.approx(np.sin(0.4) / 2 * other) and of_b[0b0110] == pytest.approx(
        np.sin(0.9) / 2 * one
    )
    probabilities, gradients = gradient.value_and_gradient(circuit, values)
    assert probabilities.shape == (1, 16) and np.flatnonzero(probabilities[0]).tolist() == list(of_a)
    assert_allclose(gradients[0], dense([of_a, of_b], 16), atol=1e-12)
    counts = FusedSampler(default_shots=None).run([(circuit, values)]).result()[0].join_data().get_probabilities(0)
    assert_allclose([counts[format(z, "04b")] for z in of_a], probabilities[0, list(of_a)], atol=1e-12)


def test_the_register_of_measure_all_is_read_alone(gradient):
    circuit = QuantumCircuit(2, 2)
    circuit.ry(A, 0)
    circuit.measure(0, 1)
    circuit.measure_all()
    assert list(gradient.run([circuit], [[0.3]]).result().gradients[0][0]) == [0, 1, 2, 3]
    assert gradient.value_and_gradient(circuit, [0.3])[0].shape == (1, 4)
    expected = ParamShiftSamplerGradient(QMLSampler()).run([circuit], [[0.3]]).result().gradients[0][0]
    found = gradient.run([circuit], [[0.3]]).result().gradients[0][0]
    assert_allclose([found[z] for z in expected], list(expected.values()), atol=1e-9)


def test_a_qubit_that_is_measured_twice_gives_equal_bits(gradient):
    circuit = QuantumCircuit(1, 2)
    circuit.ry(A, 0)
    circuit.measure([0, 0], [0, 1])
    found = gradient.run([circuit], [[0.5]]).result().gradients[0][0]
    assert found == pytest.approx({0: -np.sin(0.5) / 2, 3: np.sin(0.5) / 2})


def test_few_measured_qubits_of_many_are_cheap(gradient):
    circuit = QuantumCircuit(60, 50)
    circuit.ry(A, 30)
    circuit.cx(30, 31)
    circuit.measure([31], [40])
    found = gradient.run([circuit], [[0.5]]).result().gradients[0][0]
    assert found == pytest.approx({0: -np.sin(0.5) / 2, 1 << 40: np.sin(0.5) / 2})
    _, gradients = gradient.value_and_gradient(circuit, [0.5], interpret=lambda z: z >> 40, output_shape=2)
    assert_allclose(gradients[0, :, 0], [-np.sin(0.5) / 2, np.sin(0.5) / 2], atol=1e-12)
    with pytest.raises(MemoryError, match="Give an interpret function"):
        gradient.value_and_gradient(circuit, [0.5])


def test_a_circuit_without_classical_bits_is_measured_on_the_qubits_before_transpilation(gradient, circuit):
    values = rows(circuit, 1)
    expected = gradient.value_and_gradient(circuit, values)
    transpiled = transpile(circuit, coupling_map=[[i, i + 1] for i in range(5)], initial_layout=[4, 2, 3])
    assert list(transpiled.parameters) == list(circuit.parameters)
    for found, wanted in zip(gradient.value_and_gradient(transpiled, values), expected):
        assert_allclose(found, wanted, atol=1e-12)


# --- requests ---


def test_parameter_subsets_keep_the_order_of_the_request(gradient, circuit):
    p = list(circuit.parameters)
    subsets, values = [[p[2], p[0]], None, [], [p[0], p[0]]], rows(circuit, 4)
    result = gradient.run([circuit] * 4, values, subsets).result()
    complete = gradient.value_and_gradient(circuit, values)[1]
    for mine, subset, row, metadata in zip(result.gradients, subsets, complete, result.metadata):
        chosen = list(range(len(p))) if subset is None else [p.index(q) for q in subset]
        assert_allclose(dense(mine, 8), row[:, chosen], atol=1e-12)
        assert list(metadata[0]["parameters"]) == (p if subset is None else subset)
    fast = gradient.value_and_gradient(circuit, values, [p[2], p[0]])[1]
    assert_allclose(fast, complete[:, :, [2, 0]], atol=1e-12)
    assert_allclose(gradient.value_and_gradient(circuit, values, p[1])[1], complete[:, :, [1]], atol=1e-12)


def test_several_circuits_of_different_widths_run_in_one_job(gradient):
    wide, narrow = real_amplitudes(3, reps=1), efficient_su2(1, reps=0)
    values = [rows(wide, seed=1), rows(narrow, seed=2), rows(wide, seed=3)]
    job = gradient.run([wide, narrow, wide], values)
    result = job.result()
    for circuit, row, mine in zip([wide, narrow, wide], values, result.gradients):
        assert_allclose(dense(mine, 2**circuit.num_qubits), numeric(circuit, row)[1], atol=1e-9)
    assert job.metrics()["rows"] == 3 and job.metrics()["pairs"] == 8 + 2 + 8


def test_values_come_by_name_and_circuits_compiled(gradient, circuit):
    x, w = circuit.parameters[:6], circuit.parameters[6:]
    values = rows(circuit, 2)
    expected = gradient.value_and_gradient(circuit, values)
    by_name = {tuple(x): values[:, :6], tuple(w): values[:, 6:]}
    for found, wanted in zip(gradient.value_and_gradient(compile_circuit(measured(circuit)), by_name), expected):
        assert_allclose(found, wanted, atol=1e-12)
    found = gradient.run(compile_circuit(circuit), dict(zip(circuit.parameters, values[1]))).result().gradients[0]
    assert_allclose(dense(found, 8), expected[1][1], atol=1e-12)


def test_interpret_is_called_once_for_each_integer_until_something_changes(gradient):
    circuit, calls = QuantumCircuit(2, 2), []
    circuit.ry(A, 0)
    circuit.measure([0, 1], [0, 1])

    def interpret(integer):
        calls.append(integer)
        return integer % 2

    for _ in range(3):
        gradient.value_and_gradient(circuit, [0.3], interpret=interpret, output_shape=2)
    assert calls == [0, 1, 2, 3]
    gradient.value_and_gradient(circuit, [0.3], interpret=interpret, output_shape=3)
    assert len(calls) == 8
    circuit.x(1)
    circuit.measure(1, 1)
    with pytest.raises(UnsupportedInstruction, match="mid-circuit measurement"):
        gradient.value_and_gradient(circuit, [0.3], interpret=interpret, output_shape=3)
    circuit.data.pop(2)
    gradient.value_and_gradient(circuit, [0.3], interpret=interpret, output_shape=3)
    assert len(calls) == 12


def test_a_register_that_is_added_later_counts(gradient):
    circuit = QuantumCircuit(1, 1)
    circuit.ry(A, 0)
    circuit.measure(0, 0)
    assert gradient.value_and_gradient(circuit, [0.3])[0].shape == (1, 2)
    circuit.add_register(ClassicalRegister(1))
    assert gradient.value_and_gradient(circuit, [0.3])[0].shape == (1, 4)


def test_a_large_circuit_that_changes_between_calls_is_seen(gradient):
    circuit = QuantumCircuit(2)
    for _ in range(300):
        circuit.ry(A, 0)
        circuit.cx(0, 1)
    first = gradient.value_and_gradient(circuit, [0.3])
    assert_allclose(gradient.value_and_gradient(circuit, [0.3])[0], first[0], atol=1e-15)
    circuit.x(0)
    assert_allclose(gradient.value_and_gradient(circuit, [0.3])[0], first[0][:, [1, 0, 3, 2]], atol=1e-12)


def test_jacobians_of_many_outcomes_stay_within_the_memory_limit():
    circuit = efficient_su2(10, reps=1)
    values = rows(circuit, 3)
    values_, gradients = FusedSamplerGradient(device="cpu").value_and_gradient(circuit, values)
    limited = FusedSamplerGradient(device="cpu", memory_limit="4 MB").value_and_gradient(circuit, values)
    assert_allclose(limited[0], values_, atol=1e-12)
    assert_allclose(limited[1], gradients, atol=1e-12)


# --- options ---


def test_options_are_those_of_the_sampler_until_the_gradient_has_its_own():
    sampler = FusedSampler(dtype="complex64")
    gradient = FusedSamplerGradient(sampler)
    assert gradient.fused_options is sampler.options and repr(gradient) == "FusedSamplerGradient(dtype='complex64')"
    sampler.options.device = "reference"
    assert gradient.options.device == "reference"
    gradient.options.num_threads = 1
    assert sampler.options.num_threads is None and gradient.options.num_threads == 1
    assert FusedSamplerGradient(StatevectorSampler(), {"shots": 7, "dtype": "complex64"}).options.shots == 7
    own = FusedSamplerGradient(sampler, dtype="complex128")
    assert own.fused_options.dtype == "complex128" and own.fused_options.device == "reference"


def test_options_of_a_job_are_in_its_result(gradient):
    circuit = real_amplitudes(1, reps=0)
    result = gradient.run([circuit], [[0.1]], shots=100, num_threads=1).result()
    assert result.options.shots == 100 and result.options.num_threads == 1
    assert gradient.fused_options.num_threads is None


def test_copies_and_pickles_work_on():
    circuit = real_amplitudes(2, reps=1)
    gradient = FusedSamplerGradient(FusedSampler(dtype="complex64"))
    expected = gradient.value_and_gradient(circuit, [0.1, 0.2, 0.3, 0.4], None, lambda z: z % 2, 2)
    for other in (copy.deepcopy(gradient), pickle.loads(pickle.dumps(gradient)), copy.copy(gradient)):
        found = other.value_and_gradient(circuit, [0.1, 0.2, 0.3, 0.4], None, parity, 2)
        assert found[0].shape == expected[0].shape and other.fused_options.dtype == "complex64"


# --- errors ---


def test_bad_arguments_are_named(gradient):
    circuit = real_amplitudes(2, reps=0)
    with pytest.raises(TypeError, match="sampler must be a sampler or None, not int"):
        FusedSamplerGradient(3)
    with pytest.raises(TypeError, match="unknown option 'dtyp'"):
        FusedSamplerGradient(dtyp="complex64")
    with pytest.raises(ValueError, match=r"number of circuits \(1\) does not match the number of parameter value sets"):
        gradient.run([circuit], [[0.1, 0.2], [0.3, 0.4]])
    with pytest.raises(ValueError, match="The 0-th circuit is not parameterised"):
        gradient.run([QuantumCircuit(1)], [[]])
    with pytest.raises(ValueError, match="The 0-th parameters contains parameters not present in the 0-th circuit"):
        gradient.run([circuit], [[0.1, 0.2]], [[A]])
    with pytest.raises(RowError, match="nan"):
        gradient.run([circuit] * 2, [[0.1, 0.2], [0.1, np.nan]])
    with pytest.raises(TypeError, match="circuit must be a QuantumCircuit, not int"):
        gradient.value_and_gradient(3, [0.1])
    with pytest.raises(ValueError, match=r"interpret\(3\) is 3; allowed for output_shape \(3,\): integers from 0 to 2"):
        gradient.value_and_gradient(circuit, [0.1, 0.2], interpret=lambda z: z, output_shape=3)
    with pytest.raises(ValueError, match="interpret is given without output_shape"):
        gradient.value_and_gradient(circuit, [0.1, 0.2], interpret=parity)
    unmeasured = QuantumCircuit(1, 1)
    unmeasured.ry(A, 0)
    for call in (gradient.value_and_gradient, lambda *arguments: gradient.run([arguments[0]], [arguments[1]])):
        with pytest.raises(ValueError, match="no qubit is measured into"):
            call(unmeasured, [0.1])


def test_circuits_that_no_engine_runs_are_refused_by_the_job(gradient):
    circuit = QuantumCircuit(1)
    circuit.ry(A, 0)
    circuit.reset(0)
    circuit.measure_all()
    job = gradient.run([circuit], [[0.3]])
    with pytest.raises(UnsupportedInstruction, match="reset"):
        job.result()


def test_an_infinite_derivative_is_an_error_only_if_it_is_asked_for(gradient):
    vector = ParameterVector("v", 2)
    circuit = QuantumCircuit(1)
    circuit.ry(vector[0] ** 0.5, 0)
    circuit.rx(vector[1], 0)
    rows_ = [[0.25, 0.2], [0.0, 0.2]]
    _, gradients = gradient.value_and_gradient(circuit, rows_, [vector[1]])
    assert np.isfinite(gradients).all() and gradients.shape == (2, 2, 1)
    with pytest.raises(ValueError, match=r"row 1"):
        gradient.value_and_gradient(circuit, rows_)
    with pytest.raises(ValueError, match=r"v\[0\]"):
        gradient.run([circuit] * 2, rows_).result()
    dicts = gradient.run([circuit] * 2, rows_, [[vector[1]]] * 2).result().gradients
    assert_allclose([dense(one, 2) for one in dicts], gradients, atol=1e-12)


@pytest.mark.parametrize("primitive", [FusedEstimator(), StatevectorEstimator()])
def test_an_estimator_is_refused_with_the_gradient_that_takes_it(primitive):
    text = rf"sampler must be a sampler or None, not {type(primitive).__name__}; give a FusedSampler, or use "
    with pytest.raises(TypeError, match=text + "FusedEstimatorGradient"):
        FusedSamplerGradient(primitive)


def test_a_register_with_more_outcomes_than_bitstrings_is_refused_with_a_cure_that_helps():
    circuit = QuantumCircuit(QuantumRegister(1), ClassicalRegister(12, "c"))
    circuit.ry(A, 0)
    circuit.measure(0, 0)
    gradient = FusedSamplerGradient(device="cpu", memory_limit="64 KiB")
    text = (
        r"1 qubit need .* sums of 4,096 outcomes.*; give interpret, use fewer classical bits or raise memory_limit\.$"
    )
    with pytest.raises(MemoryError, match=text):
        gradient.value_and_gradient(circuit, [[0.1]])
    assert gradient.value_and_gradient(circuit, [[0.1]], interpret=parity, output_shape=2)[0].shape == (1, 2)
    with pytest.raises(MemoryError, match=r"4 KiB; raise memory_limit\.$"):  # fewer outcomes do not fit either
        FusedSamplerGradient(device="cpu", memory_limit="4 KiB").value_and_gradient(circuit, [[0.1]])
    raised = FusedSamplerGradient(device="cpu", memory_limit="1 MiB").value_and_gradient(circuit, [[0.1]])
    assert_allclose(raised[1][0, :3, 0], [-np.sin(0.1) / 2, np.sin(0.1) / 2, 0], atol=1e-12)
