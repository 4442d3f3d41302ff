# SPDX-License-Identifier: Apache-2.0
"""All PUBs of a circuit are one batch, in blocks that fit the memory, and shots do not depend on how it is cut."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.circuit.library import efficient_su2, real_amplitudes

from qiskit_fused import FusedSampler
from qiskit_fused.primitives import sampler_batches


@pytest.fixture
def circuit():
    circuit = efficient_su2(5, reps=2)
    circuit.measure_all()
    return circuit


def rows(circuit, *shape, seed=0):
    return np.random.default_rng(seed).normal(size=(*shape, circuit.num_parameters))


def shots_of(pubs, **options):
    result = FusedSampler(seed=1, **options).run(pubs).result()
    return [[field.array for field in pub.data.values()] for pub in result]


def test_thousands_of_pubs_are_one_batch_and_have_the_shots_of_one_array():
    circuit = QuantumCircuit(2)
    circuit.ry(Parameter("a"), 0)
    circuit.cx(0, 1)
    circuit.measure_all()
    values = rows(circuit, 2000)
    job = FusedSampler(seed=1).run([(circuit, row) for row in values], shots=10)
    assert job.metrics()["rows"] == 2000 and job.metrics()["cones"] == 1
    together = FusedSampler(seed=1).run([(circuit, values)], shots=10).result()[0].data.meas
    for number, result in enumerate(job.result()):
        assert result.data.meas == together[number]


def test_shots_do_not_depend_on_threads_memory_or_blocks(circuit, dtype, monkeypatch):
    pubs = [(circuit, rows(circuit, 40, 3), 200), (circuit, rows(circuit), 100), (circuit, rows(circuit, 7, seed=1))]
    expected = shots_of(pubs, dtype=dtype)
    for num_threads in (1, 3):
        np.testing.assert_equal(shots_of(pubs, dtype=dtype, num_threads=num_threads), expected)

    def assert_same(found):
        # The engine may round a row differently in a block of few rows, which decides few shots of complex64.
        for (bits,), (others,) in zip(found, expected):
            assert (bits != others).mean() <= (0 if dtype == "complex128" else 1e-3)

    assert_same(shots_of(pubs, dtype=dtype, memory_limit="100 KB"))
    monkeypatch.setattr(sampler_batches, "_BLOCK_BYTES", 5000)
    monkeypatch.setattr(sampler_batches, "SHOTS_BETWEEN_CHECKS", 128)
    assert_same(shots_of(pubs, dtype=dtype))


def test_exact_probabilities_do_not_depend_on_blocks(circuit, monkeypatch):
    values = rows(circuit, 60)
    pubs = [(circuit, values), (circuit, values[5], 100), (circuit, values[3:5].reshape(2, 1, -1))]
    whole = FusedSampler(seed=1, default_shots=None).run(pubs).result()
    monkeypatch.setattr(sampler_batches, "_BLOCK_BYTES", 5000)
    cut = FusedSampler(seed=1, default_shots=None).run(pubs).result()
    for left, right in zip(whole, cut):
        assert left.data.shape == right.data.shape
    for number in (0, 2):
        left, right = (result[number].data.meas.probabilities for result in (whole, cut))
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-14)  # blocks of few rows are not in packs
    assert whole[1].data.meas == cut[1].data.meas


def test_equal_arrays_are_simulated_once_and_drawn_apart(circuit):
    values, others = rows(circuit, 6), rows(circuit, 2, seed=9)
    pubs = [(circuit, values), (circuit, others), (circuit, values, 50), (circuit, values), (circuit, values.copy())]
    job = FusedSampler(seed=1).run(pubs, shots=2000)
    assert job.metrics()["rows"] == 14
    drawn = [result.data.meas for result in job.result()]
    assert [bits.num_shots for bits in drawn] == [2000, 2000, 50, 2000, 2000]
    for other in (drawn[3], drawn[4]):
        assert (other.array != drawn[0].array).any(axis=(1, 2)).all()
    exact = FusedSampler(default_shots=None).run([pub[:2] for pub in pubs]).result()
    for bits, result in zip(drawn, exact):
        for row, probabilities in enumerate(result.data.meas.probabilities):
            counts = np.bincount(bits.array[row].ravel(), minlength=32)
            assert abs(counts / bits.num_shots - probabilities).max() < 5 * np.sqrt(0.25 / bits.num_shots)


def test_a_circuit_without_parameters_is_simulated_once():
    circuit = QuantumCircuit(12)
    for qubit in range(12):
        circuit.sx(qubit)
    circuit.measure_all()  # more qubits than a template has
    job = FusedSampler(seed=1).run([circuit] * 300, shots=10)
    assert job.metrics()["rows"] == 1 and job.metrics()["shots"] == 3000
    assert len({result.data.meas.array.tobytes() for result in job.result()}) == 300


def test_circuits_of_one_run_are_compiled_once_each(circuit):
    other = real_amplitudes(3, reps=1)
    other.measure_all()
    pubs = [(circuit, rows(circuit, 2)), (other, rows(other)), (circuit, rows(circuit)), (other, rows(other, 3))]
    results = FusedSampler(seed=4).run(pubs).result()
    assert [result.data.meas.num_bits for result in results] == [5, 3, 5, 3]
    assert [result.data.shape for result in results] == [(2,), (), (), (3,)]


@pytest.mark.parametrize("shape", [(0,), (3, 0)])
@pytest.mark.parametrize("shots", [10, None])
def test_empty_batches_have_empty_results(circuit, shape, shots):
    sampler = FusedSampler(default_shots=shots)
    empty = sampler.run([(circuit, rows(circuit, *shape))]).result()[0]
    beside = sampler.run([(circuit, rows(circuit, *shape)), (circuit, rows(circuit))]).result()[0]
    assert empty.data.shape == beside.data.shape == empty.data.meas.shape == beside.data.meas.shape == shape


def test_workers_share_the_rows(circuit, monkeypatch):
    monkeypatch.setattr("qiskit_fused.execution.executor._MIN_WORK", 1 << 18)
    pubs = [(circuit, rows(circuit, 3000), 20)]
    with ThreadPoolExecutor(2) as executor:
        job = FusedSampler(seed=1, executor=executor).run(pubs)
        assert job.metrics()["portions"] > 1
        np.testing.assert_array_equal(job.result()[0].data.meas.array, shots_of(pubs)[0][0])


def test_results_that_do_not_fit_the_memory_are_refused(circuit, monkeypatch):
    monkeypatch.setattr(sampler_batches, "resolve_limit", lambda value: 100 << 20)
    text = r"100000000 shots of 2 rows need 191 MiB, 100 MiB are free; run fewer rows at a time, or draw fewer shots\.$"
    with pytest.raises(MemoryError, match=text):
        FusedSampler().run([(circuit, rows(circuit, 2), 10**8)]).result()
    with pytest.raises(MemoryError, match=r"the 10000000000000 shots of 1 row need .* free; draw fewer shots\.$"):
        FusedSampler().run([(circuit, rows(circuit, 1), 10**13)]).result()
    for shots, text in ((1 << 70, r"2\^70"), (10**400, r"more than 2\^1328")):
        with pytest.raises(ValueError, match=rf"shots must be smaller than 2\^63, not {text}"):
            FusedSampler().run([(circuit, rows(circuit, 1), shots)])
    with pytest.raises(MemoryError, match=r"probabilities of 32 bitstrings in 1000000 rows need 244 MiB"):
        FusedSampler(default_shots=None).run([(circuit, np.zeros((10**6, circuit.num_parameters)))]).result()


def test_a_state_that_does_not_fit_the_memory_is_refused():
    circuit = QuantumCircuit(20)
    circuit.h(range(20))
    circuit.cx(range(19), range(1, 20))
    circuit.measure_all()
    with pytest.raises(MemoryError, match="statevector of 20 qubits needs"):
        FusedSampler(memory_limit="1 MB").run([circuit]).result()


def test_progress_rises_to_its_total_over_all_blocks(circuit, monkeypatch):
    monkeypatch.setattr(sampler_batches, "_BLOCK_BYTES", 5000)
    monkeypatch.setattr("qiskit_fused.execution.progress._INTERVAL", 0)
    calls = []
    other = real_amplitudes(3, reps=1)
    other.measure_all()
    sampler = FusedSampler(progress=lambda done, total: calls.append((done, total)))
    sampler.run([(circuit, rows(circuit, 30)), (other, rows(other))]).result()
    done, totals = zip(*calls)
    assert done[0] == 0 and done[-1] == totals[0] and list(done) == sorted(done) and len(set(totals)) == 1
    assert len(calls) > 5


def test_a_job_is_cancelled_while_shots_are_drawn(circuit, monkeypatch):
    drawing, draw_shots = threading.Event(), sampler_batches.draw_shots

    def slow_draw(*args, **keywords):
        drawing.set()
        time.sleep(0.01)
        draw_shots(*args, **keywords)

    monkeypatch.setattr(sampler_batches, "SHOTS_BETWEEN_CHECKS", 128)
    monkeypatch.setattr(sampler_batches, "draw_shots", slow_draw)
    job = FusedSampler().run([(circuit, rows(circuit), 128_000)])
    assert drawing.wait(10)
    begin = time.monotonic()
    assert job.cancel()
    with pytest.raises(RuntimeError, match="the evaluation was cancelled"):
        job.result()
    assert time.monotonic() - begin < 5


def test_a_row_that_the_engine_refuses_is_named():
    from qiskit_machine_learning.circuit.library import raw_feature_vector

    circuit = raw_feature_vector(4)
    circuit.measure_all()
    values = np.ones((3, 4))
    values[2] = 0
    with pytest.raises(ValueError, match="row 2 of PUB 1"):
        FusedSampler().run([(circuit, np.ones(4)), (circuit, values)]).result()
