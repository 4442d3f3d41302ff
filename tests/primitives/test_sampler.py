# SPDX-License-Identifier: Apache-2.0
"""FusedSampler keeps the contract of StatevectorSampler: PUBs, shots, registers, seeds, errors and fallback."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister, transpile
from qiskit.circuit import Parameter
from qiskit.circuit.library import efficient_su2, real_amplitudes
from qiskit.exceptions import QiskitError
from qiskit.primitives import BaseSamplerV2, BitArray, DataBin, PrimitiveResult, SamplerPubResult, StatevectorSampler
from qiskit.primitives.containers.bindings_array import BindingsArray
from qiskit.primitives.containers.sampler_pub import SamplerPub
from qiskit.quantum_info import Statevector
from qiskit.transpiler import CouplingMap
from scipy.stats import chisquare

from qiskit_fused import FusedJob, FusedOptions, FusedSampler, UnsupportedInstruction, compile_circuit


@pytest.fixture
def sampler(device):
    return FusedSampler(device=device, seed=5)


@pytest.fixture
def circuit():
    circuit = real_amplitudes(3, reps=1)
    circuit.measure_all()
    return circuit


def rows(circuit, *shape, seed=0):
    return np.random.default_rng(seed).normal(size=(*shape, circuit.num_parameters))


def same_form(sampler, pubs, **keywords):
    """Assert that a sampler's result has the form of StatevectorSampler's, and return it."""
    ours, theirs = sampler.run(pubs, **keywords).result(), StatevectorSampler().run(pubs, **keywords).result()
    assert isinstance(ours, PrimitiveResult) and ours.metadata == theirs.metadata and len(ours) == len(theirs)
    for our, their in zip(ours, theirs):
        assert type(our) is SamplerPubResult and isinstance(our.data, DataBin) and our.metadata == their.metadata
        assert our.data.shape == their.data.shape and list(our.data) == list(their.data)
        for mine, original in zip(our.data.values(), their.data.values()):
            assert type(mine) is BitArray and mine.array.dtype == np.uint8 and mine.array.flags.c_contiguous
            assert mine.array.shape == original.array.shape and mine.num_bits == original.num_bits
    return ours


def probabilities_of(circuit, values=()):
    """Return the probabilities of all bitstrings of a circuit without measurements."""
    bound = circuit.remove_final_measurements(inplace=False).assign_parameters(list(values))
    return Statevector(bound).probabilities()


def assert_drawn_from(bits, probabilities):
    """Assert that the shots of a BitArray without shape are drawn from probabilities, by a chi-square test."""
    counts = np.zeros(len(probabilities))
    for outcome, count in bits.get_int_counts().items():
        counts[outcome] = count
    assert not counts[probabilities < 1e-12].any()
    likely = probabilities * bits.num_shots >= 5
    observed = np.append(counts[likely], counts[~likely].sum())
    expected = np.append(probabilities[likely], probabilities[~likely].sum()) * bits.num_shots
    kept = expected > 1e-9
    assert chisquare(observed[kept], expected[kept] * observed[kept].sum() / expected[kept].sum()).pvalue > 1e-4


# --- shots and shapes ---


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (1, 1), (0,), (2, 0)])
def test_shapes_are_those_of_the_values(sampler, circuit, shape):
    same_form(sampler, [(circuit, rows(circuit, *shape), 20)])


def test_shots_follow_the_probabilities_in_every_dtype(device, dtype, circuit):
    values = rows(circuit, 3)
    data = FusedSampler(device=device, dtype=dtype, seed=1).run([(circuit, values)], shots=20_000).result()[0].data
    for row, value in enumerate(values):
        assert_drawn_from(data.meas[row], probabilities_of(circuit, value))


def test_shots_are_in_random_order(sampler):
    circuit = QuantumCircuit(1)
    circuit.h(0)
    circuit.measure_all()
    bits = sampler.run([circuit], shots=10_000).result()[0].data.meas.array.ravel()
    pairs = np.bincount(2 * bits[1:] + bits[:-1], minlength=4)
    halves = bits[:5000].sum(), bits[5000:].sum()
    assert chisquare(pairs).pvalue > 1e-4 and chisquare(halves).pvalue > 1e-4


def test_shots_of_a_pub_beat_those_of_run_which_beat_the_default(circuit):
    values = rows(circuit)
    sampler = FusedSampler(default_shots=7)
    pubs = [(circuit, values), (circuit, values, 30), SamplerPub.coerce((circuit, values), 4)]
    assert [result.metadata["shots"] for result in sampler.run(pubs).result()] == [7, 30, 4]
    results = same_form(sampler, pubs, shots=11)
    assert [result.data.meas.num_shots for result in results] == [11, 30, 4]
    assert FusedSampler().default_shots == 1024
    assert FusedSampler().run([(circuit, values)]).result()[0].data.meas.num_shots == 1024
    exact = FusedSampler(default_shots=None).run([(circuit, values), (circuit, values, 5)]).result()
    assert [result.metadata["shots"] for result in exact] == [None, 5]
    assert FusedSampler(default_shots=None).run([(circuit, values)], shots=9).result()[0].data.meas.num_shots == 9


def test_every_form_of_a_pub_is_taken(sampler, circuit):
    values = rows(circuit, 2)
    by_name = dict(zip(circuit.parameters, values.T))
    bindings = BindingsArray({tuple(circuit.parameters): values})
    bound = circuit.assign_parameters(values[0])
    pubs = [
        (circuit, values),
        [circuit, values.tolist()],
        (circuit, by_name),
        (circuit, bindings, None),
        SamplerPub(circuit, bindings),
        bound,
        (bound,),
        (bound, None, 5),
        (bound, BindingsArray(shape=(2, 2))),
    ]
    same_form(sampler, pubs)
    assert len(sampler.run(iter(pubs[:2])).result()) == 2
    assert len(sampler.run([]).result()) == 0


def test_a_single_parameter_needs_no_last_axis(sampler):
    circuit = QuantumCircuit(1)
    circuit.ry(Parameter("a"), 0)
    circuit.measure_all()
    for values in (0.3, [0.3], [[0.3]], [0.1, 0.2], [[0.1], [0.2]], [[0.1, 0.2]], np.zeros((3, 1, 1)), []):
        same_form(sampler, [(circuit, values, 3)])


def test_a_compiled_circuit_takes_the_place_of_its_circuit(circuit):
    circuit.metadata = {"name": "mine"}
    values = rows(circuit, 2)
    compiled = compile_circuit(circuit)
    pubs = [(circuit, values), (circuit, values)], [(compiled, values), SamplerPub.coerce((circuit, values))]
    ours, theirs = (FusedSampler(seed=1).run(part).result() for part in pubs)
    assert [result.data.meas == other.data.meas for result, other in zip(ours, theirs)] == [True, True]
    assert theirs[0].metadata == {"shots": 1024, "circuit_metadata": {"name": "mine"}}
    circuit.x(0)
    assert FusedSampler(seed=1).run([(compiled, values)]).result()[0].data.meas == ours[0].data.meas
    bound = compile_circuit(compiled.circuit.assign_parameters(values[0]))
    assert same_form_of_one(bound).num_bits == 3


def same_form_of_one(compiled):
    return FusedSampler().run([compiled]).result()[0].data.meas


# --- registers ---


def test_each_register_gets_its_bits():
    alpha, beta, empty = ClassicalRegister(2, "alpha"), ClassicalRegister(11, "beta"), ClassicalRegister(3, "empty")
    circuit = QuantumCircuit(QuantumRegister(4), alpha, beta, empty, ClassicalRegister(0, "none"))
    circuit.x([1, 3])
    circuit.measure(1, alpha[0])
    circuit.measure(0, alpha[1])
    circuit.measure(3, beta[10])
    circuit.measure(1, beta[2])  # the same qubit into another bit
    data = same_form(FusedSampler(), [(circuit, None, 6)])[0].data
    assert list(data) == ["alpha", "beta", "empty", "none"]
    counts = [data[name].get_counts() for name in ("alpha", "beta", "empty")]
    assert counts == [{"01": 6}, {"1" + 7 * "0" + "100": 6}, {"000": 6}] and data.none.num_bits == 0
    theirs = StatevectorSampler().run([(circuit, None, 6)]).result()[0].data
    assert all((data[name].array == theirs[name].array).all() for name in data)


def test_registers_that_share_bits_have_the_same_shots():
    circuit = QuantumCircuit(3)
    first = ClassicalRegister(3, "first")
    circuit.add_register(first)
    circuit.add_register(ClassicalRegister(bits=[first[2], first[0]], name="second"))
    circuit.h(range(3))
    circuit.measure(range(3), first)
    data = same_form(FusedSampler(), [circuit])[0].data
    first, second = (data[name].to_bool_array(order="little") for name in ("first", "second"))
    assert (second == first[:, [2, 0]]).all()


def test_the_last_measurement_into_a_bit_counts():
    circuit = QuantumCircuit(2, 1)
    circuit.x(1)
    circuit.measure(0, 0)
    circuit.measure(1, 0)
    assert FusedSampler().run([circuit]).result()[0].data.c.get_counts() == {"1": 1024}


@pytest.mark.parametrize("num_bits", [7, 8, 9, 16, 17, 33, 64, 70])
def test_wide_registers_are_packed_as_in_qiskit(num_bits):
    circuit = QuantumCircuit(3, num_bits)
    circuit.h(0)
    circuit.x(1)
    circuit.cx(0, 2)
    places = np.random.default_rng(num_bits).permutation(num_bits)[:3].tolist()
    circuit.measure(range(3), places)
    drawn = FusedSampler(seed=1).run([circuit]).result()[0].data.c.to_bool_array(order="little")
    assert drawn[:, places[1]].all() and (drawn[:, places[0]] == drawn[:, places[2]]).all()
    assert 400 < drawn[:, places[0]].sum() < 624 and drawn.sum() == drawn[:, places].sum()


def test_registers_added_after_compiling_are_read():
    circuit = QuantumCircuit(1, 1)
    circuit.x(0)
    circuit.measure(0, 0)
    sampler = FusedSampler()
    sampler.run([circuit]).result()
    circuit.add_register(ClassicalRegister(bits=circuit.clbits, name="alias"))
    circuit.add_register(ClassicalRegister(2, "more"))
    data = sampler.run([circuit]).result()[0].data
    assert [data[name].get_counts() for name in data] == [{"1": 1024}, {"1": 1024}, {"00": 1024}]


@pytest.mark.parametrize("shots", [10, None])
def test_a_circuit_without_registers_warns_and_has_no_data(shots):
    circuit = QuantumCircuit(2)
    circuit.h(0)
    with pytest.warns(UserWarning, match="One of your circuits has no output classical registers and so the result"):
        result = FusedSampler(default_shots=shots).run([circuit]).result()[0]
    assert list(result.data) == [] and result.metadata["shots"] == shots


def test_a_circuit_that_measures_nothing_gives_zeros():
    circuit = QuantumCircuit(2, 3)
    circuit.h(0)
    assert FusedSampler().run([circuit]).result()[0].data.c.get_counts() == {"000": 1024}


def test_a_register_with_the_name_of_a_method_is_refused_as_in_qiskit():
    circuit = QuantumCircuit(1)
    circuit.add_register(ClassicalRegister(1, "keys"))
    with pytest.raises(ValueError, match="Cannot assign with these field names"):
        FusedSampler().run([circuit]).result()


# --- where measurements stand, and which qubits are simulated ---


def test_a_measurement_is_final_if_no_gate_follows_on_its_qubit(sampler):
    circuit = QuantumCircuit(2, 2)
    circuit.x(0)
    circuit.measure(0, 0)
    circuit.barrier()
    circuit.delay(10, 0)
    circuit.x(1)
    circuit.measure(1, 1)
    assert sampler.run([circuit]).result()[0].data.c.get_counts() == {"11": 1024}


def test_a_circuit_for_a_large_device_simulates_the_qubits_in_use(circuit):
    values = rows(circuit)
    wide = transpile(circuit, coupling_map=CouplingMap.from_line(127), initial_layout=[100, 101, 99], seed_transpiler=1)
    assert wide.num_qubits == 127
    data = FusedSampler(seed=1).run([(wide, values)], shots=20_000).result()[0].data
    assert_drawn_from(data.meas, probabilities_of(circuit, values))
    everything = wide.remove_final_measurements(inplace=False)
    everything.measure_all()  # also all idle qubits
    job = FusedSampler(seed=1).run([(everything, values)])
    assert job.result()[0].data.meas.num_bits == 127 and job.metrics()["pairs"] <= 2**8


def test_only_the_light_cone_of_the_measured_qubits_is_simulated():
    circuit = QuantumCircuit(60, 3)
    for qubit in range(60):
        circuit.ry(0.1 * qubit, qubit)
    for qubit in range(0, 59, 2):
        circuit.cx(qubit, qubit + 1)
    circuit.measure([10, 31, 30], range(3))
    job = FusedSampler(seed=2, memory_limit="1 MB").run([circuit], shots=20_000)
    small = QuantumCircuit(4)
    for place, qubit in enumerate((10, 11, 30, 31)):
        small.ry(0.1 * qubit, place)
    small.cx(0, 1)
    small.cx(2, 3)
    assert_drawn_from(job.result()[0].data.c, Statevector(small).probabilities([0, 3, 2]))


def test_too_many_measured_qubits_are_refused_with_the_cure():
    circuit = QuantumCircuit(31)
    circuit.h(range(31))
    circuit.measure_all()
    with pytest.raises(MemoryError, match=r"31 qubits are measured together.*measure fewer qubits"):
        FusedSampler().run([circuit]).result()


# --- seeds ---


def shots_of(sampler, pubs):
    return [[field.array for field in result.data.values()] for result in sampler.run(pubs).result()]


def assert_equal_shots(left, right):
    np.testing.assert_equal(left, right)


def test_a_seed_repeats_all_runs_of_a_sampler(circuit):
    pubs = [(circuit, rows(circuit, 2)), (circuit, rows(circuit, 3), 50)]
    first, second = FusedSampler(seed=3), FusedSampler(seed=3)
    runs = [(shots_of(first, pubs), shots_of(second, pubs)) for _ in range(2)]
    for ours, theirs in runs:
        assert_equal_shots(ours, theirs)
    assert (runs[0][0][0][0] != runs[1][0][0][0]).any()
    assert (shots_of(FusedSampler(seed=4), pubs)[0][0] != runs[0][0][0][0]).any()


def test_rows_pubs_and_runs_are_independent():
    circuit = QuantumCircuit(10)
    circuit.h(range(10))
    circuit.measure_all()
    sampler = FusedSampler(seed=0)
    pub = (circuit, BindingsArray(shape=(2,)), 500)
    drawn = [row for _ in range(2) for arrays in shots_of(sampler, [pub, pub]) for row in arrays[0]]
    words = [row[:, 0].astype(int) * 256 + row[:, 1] for row in drawn]
    for number, left in enumerate(words):
        for right in words[:number]:
            assert (left == right).sum() < 10  # 0.5 are expected if both are independent, 500 if they are equal
            assert (left[1:] == right[:-1]).sum() < 10


def test_a_generator_is_used_and_advanced(circuit):
    pubs = [(circuit, rows(circuit, 2))]
    generator, twin = np.random.default_rng(9), np.random.default_rng(9)
    sampler = FusedSampler(seed=generator)
    assert sampler.seed is generator
    first = shots_of(sampler, pubs)
    assert generator.bit_generator.state != twin.bit_generator.state
    second = shots_of(sampler, pubs)
    assert (first[0][0] != second[0][0]).any()
    assert_equal_shots([first, second], [shots_of(FusedSampler(seed=twin), pubs) for _ in range(2)])


def test_without_a_seed_samplers_differ(circuit):
    pubs = [(circuit, rows(circuit, 2))]
    assert (shots_of(FusedSampler(), pubs)[0][0] != shots_of(FusedSampler(), pubs)[0][0]).any()


def test_another_seed_in_the_options_begins_another_stream(circuit):
    pubs = [(circuit, rows(circuit))]
    sampler = FusedSampler(seed=1)
    shots_of(sampler, pubs)
    sampler.options.seed = 2
    assert sampler.seed == 2
    assert_equal_shots(shots_of(sampler, pubs), shots_of(FusedSampler(seed=2), pubs))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda sampler: pickle.loads(pickle.dumps(sampler))])
def test_a_copy_of_a_sampler_continues_its_stream(circuit, copied):
    pubs = [(circuit, rows(circuit))]
    sampler = FusedSampler(seed=10**9, default_shots=100, dtype="complex64")
    shots_of(sampler, pubs)
    other = copied(sampler)
    assert repr(other) == repr(sampler) == "FusedSampler(default_shots=100, dtype='complex64', seed=1000000000)"
    assert_equal_shots(shots_of(other, pubs), shots_of(sampler, pubs))


# --- bound circuits ---


def test_bound_circuits_that_differ_in_numbers_are_one_batch(device):
    circuits = [
        real_amplitudes(2, reps=1).assign_parameters(values) for values in np.random.default_rng(0).random((6, 4))
    ]
    measured = [circuit.measure_all(inplace=False) for circuit in circuits[:3]]
    for number, circuit in enumerate(circuits[3:]):
        circuit.add_register(ClassicalRegister(2, f"name{number}"))
        circuit.measure([0, 1], [number % 2, (number + 1) % 2])
        measured.append(circuit)
    job = FusedSampler(device=device, seed=1).run(measured, shots=20_000)
    assert job.metrics()["rows"] == 6 and job.metrics()["cones"] == 1
    for number, (result, circuit) in enumerate(zip(job.result(), circuits)):
        probabilities = probabilities_of(circuit)
        if number == 4:  # the bits are exchanged
            probabilities = probabilities[[0, 2, 1, 3]]
        (bits,) = result.data.values()
        assert_drawn_from(bits, probabilities)


def test_a_bound_circuit_with_a_mid_circuit_measurement_has_no_template():
    circuit = QuantumCircuit(2, 2)
    circuit.h(0)
    circuit.measure(0, 0)
    circuit.cx(0, 1)
    with pytest.raises(QiskitError, match=r"instruction 1, 'measure' on qubits .0., .*instruction 2, 'cx', follows"):
        FusedSampler().run([circuit]).result()


# --- what is refused ---


def test_mid_circuit_measurements_and_control_flow_are_refused_with_qiskits_text():
    circuit = QuantumCircuit(1, 1)
    circuit.h(0)
    circuit.measure(0, 0)
    with circuit.if_test((0, 1)):
        circuit.x(0)
    with pytest.raises(
        QiskitError,
        match=r"^StatevectorSampler cannot handle ControlFlowOp, nor can FusedSampler: instruction 2, 'if_else'",
    ):
        FusedSampler().run([circuit]).result()
    circuit = QuantumCircuit(1, 1)
    circuit.measure(0, 0)
    circuit.x(0)
    job = FusedSampler().run([circuit])
    with pytest.raises(
        QiskitError,
        match=r"^StatevectorSampler cannot handle mid-circuit measurements, nor can FusedSampler: inst.*end$",
    ) as error:
        job.result()
    assert (error.value.name, error.value.index, error.value.qubits) == ("measure", 0, (0,))
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


def test_a_measurement_inside_an_instruction_is_read(sampler):
    inner = QuantumCircuit(2, 2, name="inner")
    inner.x(0)
    inner.measure([0, 1], [1, 0])
    circuit = QuantumCircuit(3, 3)
    circuit.append(inner.to_instruction(), [2, 1], [2, 1])
    assert sampler.run([circuit]).result()[0].data.c.get_counts() == {"010": 1024}


@pytest.mark.parametrize(
    ("shots", "error", "text"),
    [
        (0, ValueError, "shots must be positive"),
        (-3, ValueError, "shots must be positive"),
        (10**30, ValueError, "shots must be smaller than 2"),
        (1.5, TypeError, "shots must be an integer"),
        (True, TypeError, "shots must be an integer"),
        ("10", TypeError, "shots must be an integer"),
    ],
)
def test_bad_shots_are_refused_with_qiskits_text(circuit, shots, error, text):
    values = rows(circuit)
    with pytest.raises(error, match=text):
        FusedSampler().run([(circuit, values)], shots=shots)
    with pytest.raises(error, match=text):
        FusedSampler().run([(circuit, values, shots)])
    with pytest.raises(error, match="default_" + text + ".*None for exact probabilities"):
        FusedSampler(default_shots=shots)


@pytest.mark.parametrize(
    ("pub", "error", "text"),
    [
        (
            lambda circuit: (circuit,),
            ValueError,
            r"values \(0\) does not match.*\(6\).*second part.*wrap it with `\[\]`",
        ),
        (lambda circuit: (circuit, [1, 2]), ValueError, r"has shape \(2,\); the circuit has 6 parameters, allowed"),
        (lambda circuit: (circuit, [1, 2, 3, 4, 5, np.nan]), ValueError, r"'θ\[5\]' in row 0 of PUB 1 is nan"),
        (lambda circuit: (circuit, [1j] * 6), TypeError, "complex"),
        (lambda circuit: (circuit, {"a": 1}), ValueError, "Could not find placement for parameter 'a'"),
        (lambda circuit: (circuit, None, None, None), ValueError, "length of pub must be 1, 2 or 3"),
        (lambda circuit: ("circuit",), TypeError, "circuit must be QuantumCircuit, not str"),
        (lambda circuit: circuit.data[0], ValueError, r"wrap it with `\[\]`"),
    ],
)
def test_bad_pubs_are_refused(circuit, pub, error, text):
    good = (circuit, rows(circuit))
    with pytest.raises(error, match=text):
        FusedSampler().run([good, pub(circuit)])


def test_a_bad_row_is_named(circuit):
    values = rows(circuit, 2, 3)
    values[1, 2, 0] = np.inf
    with pytest.raises(ValueError, match=r"in row \(1, 2\) of PUB 1 is inf"):
        FusedSampler().run([(circuit, rows(circuit)), (circuit, values)])


def test_unknown_and_bad_options_are_refused():
    with pytest.raises(TypeError, match=r"unknown option 'shots'.*default_shots"):
        FusedSampler(shots=10)
    with pytest.raises(ValueError, match="option device is 'gpu'"):
        FusedSampler(device="gpu")
    with pytest.raises(ValueError, match="option seed is -1"):
        FusedSampler(seed=-1)


# --- fallback ---


@pytest.fixture
def reset_in_use():
    circuit = QuantumCircuit(2, 2)
    circuit.ry(Parameter("a"), 0)
    circuit.cx(0, 1)
    circuit.reset(0)
    circuit.measure([0, 1], [1, 0])
    return circuit


def test_a_reset_in_use_falls_back_with_a_warning(reset_in_use):
    fine = QuantumCircuit(1)
    fine.x(0)
    fine.measure_all()
    with pytest.warns(UserWarning, match=r"instruction 2, 'reset'.*Running it with StatevectorSampler.*fallback=False"):
        job = FusedSampler(seed=1).run([(reset_in_use, np.array([[0.0, np.pi]]).T, 10), fine])
    result = job.result()
    assert [result[0].data.c[row].get_counts() for row in (0, 1)] == [{"00": 10}, {"01": 10}]
    assert result[1].data.meas.get_counts() == {"1": 1024} and result[0].metadata["shots"] == 10
    assert job.metrics()["fallback"] == 1 and job.metrics()["shots"] == 1044


def test_exact_probabilities_of_a_reset_in_use_fall_back(reset_in_use):
    with pytest.warns(UserWarning, match="Running it with QMLSampler"):
        job = FusedSampler(default_shots=None).run([(reset_in_use, np.pi), (reset_in_use, [[[0.0]], [[np.pi]]])])
    scalar, array = job.result()
    np.testing.assert_allclose(scalar.data.c.probabilities, [0, 1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(array.data.c.probabilities, [[[1, 0, 0, 0]], [[0, 1, 0, 0]]], atol=1e-12)
    assert array.join_data().get_counts((1, 0)) == {"01": 1}


def test_without_fallback_the_job_raises_the_error(reset_in_use):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        job = FusedSampler(fallback=False).run([(reset_in_use, 1.0)])
    with pytest.raises(UnsupportedInstruction, match="resets a qubit that is in use"):
        job.result()


def test_a_circuit_that_the_fallback_cannot_run_either_raises_its_error():
    circuit = QuantumCircuit(1, 1)
    circuit.append(QuantumCircuit(1, name="empty").to_gate(), [0])
    circuit.data[0].operation.definition = None
    opaque = QuantumCircuit(1, 1)
    opaque.append(circuit.data[0].operation, [0])
    opaque.measure(0, 0)
    for shots in (10, None):
        sampler = FusedSampler(default_shots=shots)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            job = sampler.run([opaque])
        with pytest.raises(QiskitError):
            job.result()


# --- the object itself ---


def test_a_sampler_is_qiskits_sampler_and_its_job_tells_what_ran(device, circuit):
    sampler = FusedSampler(device=device)
    assert isinstance(sampler, BaseSamplerV2)
    job = sampler.run([(circuit, rows(circuit, 5))] * 2, shots=10)
    metrics = job.metrics()
    assert isinstance(job, FusedJob) and metrics["device"] == device
    assert (metrics["rows"], metrics["shots"], metrics["fallback"]) == (5, 100, 0)  # equal arrays are simulated once


def test_options_are_set_as_in_the_estimator():
    sampler = FusedSampler(options={"dtype": "complex64"}, num_threads=2)
    assert sampler.options == FusedOptions(dtype="complex64", num_threads=2)
    sampler.options.dtype = "complex128"
    sampler.options = {"num_threads": 1}
    assert sampler.options == FusedOptions(num_threads=1)
    assert repr(FusedSampler()) == "FusedSampler()"
    assert repr(FusedSampler(default_shots=None)) == "FusedSampler(default_shots=None)"


def test_a_result_of_a_batch_does_not_depend_on_its_neighbours():
    circuit = efficient_su2(3, reps=1)
    circuit.measure_all()
    values = rows(circuit, 4)
    sampler = FusedSampler(default_shots=None)
    together = sampler.run([(circuit, values)]).result()[0].data.meas.probabilities
    alone = [sampler.run([(circuit, row)]).result()[0].data.meas.probabilities for row in values]
    np.testing.assert_allclose(together, alone, atol=1e-14)
