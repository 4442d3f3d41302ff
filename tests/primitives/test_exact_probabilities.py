# SPDX-License-Identifier: Apache-2.0
"""Exact probabilities are those of Statevector, with the methods and answers of qiskit-machine-learning's sampler."""

import pickle

import numpy as np
import pytest
from circuits import circuits
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import ClassicalRegister, QuantumCircuit
from qiskit.circuit.library import efficient_su2, real_amplitudes
from qiskit.quantum_info import Statevector
from qiskit_machine_learning.primitives import QMLSampler

from qiskit_fused import FusedSampler
from qiskit_fused.primitives.exact_probabilities import ExactProbabilities

pytestmark = pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")

EXACT = FusedSampler(default_shots=None)


def exact(pubs, sampler=EXACT):
    return sampler.run(pubs).result()


def two_registers(num_qubits=4):
    """Return a circuit whose two registers read three of its qubits in a mixed order."""
    circuit = efficient_su2(num_qubits, reps=1)
    circuit.add_register(ClassicalRegister(2, "low"), ClassicalRegister(1, "high"))
    circuit.measure([2, 0, 3], [0, 1, 2])
    return circuit


def rows(circuit, *shape):
    return np.random.default_rng(3).normal(size=(*shape, circuit.num_parameters))


def assert_close(ours, theirs):
    """Assert that two dicts of numbers are equal up to rounding; missing entries are 0."""
    for key in ours.keys() | theirs.keys():
        assert ours.get(key, 0) == pytest.approx(theirs.get(key, 0), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_probabilities_of_any_circuit_are_those_of_its_statevector(data):
    circuit = data.draw(circuits(max_qubits=4, num_parameters=2))
    values = data.draw(st.lists(st.floats(-4, 4), min_size=circuit.num_parameters, max_size=circuit.num_parameters))
    measured = data.draw(st.lists(st.integers(0, circuit.num_qubits - 1), max_size=5))
    register = ClassicalRegister(len(measured) + 1, "c")
    sampled = circuit.copy()
    sampled.add_register(register)
    sampled.measure(measured, register[: len(measured)])
    probabilities = exact([(sampled, values)])[0].data.c.probabilities
    expected = np.zeros(2 ** (len(measured) + 1))
    for state, probability in enumerate(Statevector(circuit.assign_parameters(values)).probabilities()):
        bits = sum((state >> qubit & 1) << bit for bit, qubit in enumerate(measured))
        expected[bits] += probability
    np.testing.assert_allclose(probabilities, expected, atol=1e-10)


def test_every_engine_and_dtype_gives_the_probabilities(device, dtype):
    circuit = two_registers()
    values = rows(circuit, 2, 3)
    sampler = FusedSampler(default_shots=None, device=device, dtype=dtype)
    data = exact([(circuit, values)], sampler)[0].data
    assert data.low.probabilities.shape == (2, 3, 4) and data.high.probabilities.shape == (2, 3, 2)
    unmeasured = circuit.remove_final_measurements(inplace=False)
    for index in np.ndindex(2, 3):
        state = Statevector(unmeasured.assign_parameters(values[index]))
        tolerance = 1e-12 if dtype == "complex128" else 1e-6
        np.testing.assert_allclose(data.low.probabilities[index], state.probabilities([2, 0]), atol=tolerance)
        np.testing.assert_allclose(data.high.probabilities[index], state.probabilities([3]), atol=tolerance)


@pytest.mark.parametrize("shape", [(), (3,), (2, 2), (1,)])
def test_answers_are_those_of_the_sampler_of_machine_learning(shape):
    circuit = two_registers()
    circuit.metadata = {"name": "mine"}
    pub = circuit, rows(circuit, *shape)
    (ours,), (theirs,) = exact([pub]), QMLSampler().run([pub]).result()
    assert ours.metadata == theirs.metadata | {"circuit_metadata": {"name": "mine"}}
    assert ours.data.shape == theirs.data.shape and list(ours.data) == list(theirs.data)
    pairs = [(ours.data[name], theirs.data[name]) for name in theirs.data]
    pairs += [(ours.join_data(), theirs.join_data()), (ours.join_data(["high"]), theirs.join_data(["high"]))]
    for mine, original in pairs:
        assert (mine.shape, mine.num_bits, mine.num_shots) == (original.shape, original.num_bits, None)
        assert_close(mine.get_counts(), original.get_counts())
        assert_close(mine.get_counts(shots=50), original.get_counts(shots=50))
        assert all(type(count) is int for count in mine.get_counts().values())
        if shape == ():
            assert_close(mine.get_probabilities(), original.get_probabilities())
            assert mine.get_counts(50) == mine.get_counts(shots=50)
            continue
        for index in np.ndindex(shape):
            loc = index[0] if len(shape) == 1 else index
            assert_close(mine.get_probabilities(loc), original.get_probabilities(loc))
            assert_close(mine.get_probabilities()[index], original.get_probabilities()[index])
            assert_close(mine.get_counts(loc), original.get_counts(loc))
            assert_close(mine[loc].get_counts(), original[loc].get_counts())
        assert mine[0].shape == shape[1:] and mine[:1].shape == (1, *shape[1:]) == original[:1].shape


@pytest.mark.parametrize(
    "probabilities",
    [[1.0, 0.0], [0.5, 0.5], [0.375, 0.625], [1 / 3, 2 / 3], [2**-20, 1 - 2**-20], [1e-13, 1 - 1e-13], [0.1] * 10],
)
def test_totals_of_counts_are_the_smallest_powers_of_two(probabilities):
    padded = np.append(probabilities, np.zeros(16 - len(probabilities)))
    counts = ExactProbabilities(padded, (0, 1, 2, 3)).get_counts()
    total = sum(counts.values())
    assert total & (total - 1) == 0 and total <= 2**39
    found = np.array([counts.get(format(outcome, "04b"), 0) for outcome in range(16)])
    np.testing.assert_allclose(found / total, padded, atol=1e-11)
    if total > 1:
        halved = padded * total / 2
        assert np.abs(halved - np.rint(halved)).max() > 1e-12 * total / 2


def test_unmeasured_and_repeated_bits_keep_their_places():
    circuit = QuantumCircuit(2, 4)
    circuit.ry(1.0, 0)
    circuit.x(1)
    circuit.measure([0, 1, 0], [0, 1, 3])  # bit 2 is not measured, bits 0 and 3 are equal
    register = exact([circuit])[0].data.c
    zero, one = np.cos(0.5) ** 2, np.sin(0.5) ** 2
    assert_close(register.get_probabilities(), {"0010": zero, "1011": one})
    expected = np.zeros(16)
    expected[[0b0010, 0b1011]] = zero, one
    np.testing.assert_allclose(register.probabilities, expected, atol=1e-14)


def test_rounding_errors_are_no_possible_bitstrings():
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.measure_all()
    register = exact([circuit])[0].data.meas
    assert register.probabilities[1] < 1e-28 and set(register.get_probabilities()) == {"00", "11"}
    assert register.get_counts() == {"00": 1, "11": 1}


def test_registers_without_measurements_are_zero_and_are_not_joined():
    circuit = QuantumCircuit(1)
    circuit.add_register(ClassicalRegister(2, "empty"), ClassicalRegister(1, "full"), ClassicalRegister(0, "none"))
    circuit.x(0)
    circuit.measure(0, 2)
    (result,) = exact([circuit])
    assert result.metadata["names"] == ["full"] and result.join_data().num_bits == 1
    assert result.data.empty.get_probabilities() == {"00": 1.0} and result.data.none.get_probabilities() == {"": 1.0}
    assert result.join_data(["full", "empty"]).get_probabilities() == {"001": 1.0}
    assert exact([(circuit, None)])[0].data.full.probabilities.tolist() == [0.0, 1.0]


def test_an_idle_measured_qubit_is_zero():
    circuit = QuantumCircuit(3)
    circuit.h(1)
    circuit.measure_all()
    (result,) = exact([circuit])
    assert_close(result.data.meas.get_probabilities(), {"000": 0.5, "010": 0.5})
    assert result.metadata["names"] == ["meas"]


def test_names_that_cannot_be_joined_are_refused():
    circuit = two_registers()
    (result,) = exact([(circuit, rows(circuit))])
    with pytest.raises(ValueError, match="name does not exist: 'middle'; allowed: 'low', 'high'"):
        result.join_data(["middle"])
    with pytest.raises(ValueError, match="names is empty"):
        result.join_data([])


@pytest.mark.parametrize("bits", [80, 5000, 20000])
def test_wide_registers_have_dicts_and_no_dense_arrays(bits):
    circuit = QuantumCircuit(1, bits)
    circuit.h(0)
    circuit.measure([0, 0], [bits - 10, 3])
    register = exact([circuit])[0].data.c
    assert_close(register.get_probabilities(), {"0" * bits: 0.5, format(1 << bits - 10 | 1 << 3, f"0{bits}b"): 0.5})
    with pytest.raises(MemoryError, match=rf"{bits} bits has 2\^{bits} prob.*allowed: 2\^30, .*get_probabilities"):
        _ = register.probabilities


def test_empty_batches_have_empty_probabilities():
    circuit = real_amplitudes(2, reps=1)
    circuit.measure_all()
    register = exact([(circuit, rows(circuit, 0))])[0].data.meas
    assert register.probabilities.shape == (0, 4) and register.get_counts() == {}
    assert register.get_probabilities().shape == (0,)


def test_rows_are_indexed_as_in_numpy():
    circuit = two_registers()
    register = exact([(circuit, rows(circuit, 3, 4))])[0].data.low
    dense = register.probabilities
    assert (register.ndim, register.size, repr(register)) == (2, 12, "ExactProbabilities(<shape=(3, 4), num_bits=2>)")
    mask = np.eye(3, 4, dtype=bool)
    for index in (1, -1, (0, 2), slice(1, 3), (slice(None), 1), ([0, 2], [1, 1]), mask, ...):
        np.testing.assert_array_equal(register[index].probabilities, dense[index])
    with pytest.raises(IndexError):
        register[0, 0, 0]
    copied = pickle.loads(pickle.dumps(register))
    np.testing.assert_array_equal(copied.probabilities, dense)


def test_integer_counts_are_the_counts_by_the_integers_of_the_bits():
    circuit = two_registers()
    register = exact([(circuit, rows(circuit, 3))])[0].data.low
    for arguments in ((), (1,), (2, 100)):
        counts = register.get_counts(*arguments)
        assert register.get_int_counts(*arguments) == {int(label, 2): count for label, count in counts.items()}


def test_a_row_that_does_not_exist_is_named():
    circuit = two_registers()
    one = exact([circuit.assign_parameters(rows(circuit))])[0].data.low
    with pytest.raises(IndexError, match=r"row 0 is asked for, and the PUB has no rows; .* get_probabilities\(\)\."):
        one.get_probabilities(0)
    two = exact([(circuit, rows(circuit, 2))])[0].data.low
    with pytest.raises(IndexError, match=r"row 5 is asked for, and the PUB has 2 rows; .* of shape \(2,\)\."):
        two.get_counts(5)
