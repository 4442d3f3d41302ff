# SPDX-License-Identifier: Apache-2.0
"""Batches that do not fit the memory limit as a whole are evaluated in blocks of rows."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from qiskit.circuit.library import real_amplitudes, zz_feature_map
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.circuit.library import raw_feature_vector

from qiskit_fused import FusedEstimator, FusedEstimatorGradient
from qiskit_fused.common.free_memory import TooManyQubits
from qiskit_fused.execution.expectations import Expectations
from qiskit_fused.options import FusedOptions

RNG = np.random.default_rng(5)


def parts(num_qubits):
    features = zz_feature_map(num_qubits, reps=1, entanglement="linear")
    ansatz = real_amplitudes(num_qubits, reps=1)
    return features.compose(ansatz), features.parameters, ansatz.parameters


def network(num_qubits, num_observables=1, **options):
    circuit, inputs, weights = parts(num_qubits)
    observables = [SparsePauliOp("XYZ"[k % 3] * num_qubits, 1.0 + k) for k in range(num_observables)]
    return Expectations(circuit, observables, inputs, weights, **options)


def question(function, num_rows, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((num_rows, function.num_inputs)), rng.random(function.num_weights)


@given(
    st.integers(2, 8),
    st.integers(1, 40),
    st.integers(1, 700),
    st.floats(3.7, 7.0),
    st.integers(1, 3),
    st.sampled_from(["complex64", "complex128"]),
)
@settings(max_examples=60, deadline=None)
def test_values_fit_wherever_a_gradient_fits_and_a_limit_does_not_change_them(
    n, count, num_rows, power, threads, dtype
):
    options = {"num_threads": threads, "dtype": dtype}
    function = network(n, count, **options, memory_limit=int(10**power))
    inputs, weights = question(function, num_rows)
    try:
        actual = function.value_and_vjp(inputs, weights, np.ones((num_rows, count)))
    except MemoryError:
        with pytest.raises(MemoryError):  # if many rows do not fit, one row does not fit either
            function.value_and_vjp(inputs[:1], weights, np.ones((1, count)))
        return
    values = function.values(inputs, weights)
    tolerance = {"complex64": 1e-4, "complex128": 1e-11}[dtype]
    assert_allclose(values, network(n, count, **options).values(inputs, weights), atol=tolerance)
    assert_allclose(actual.values, values, atol=tolerance)


@pytest.mark.parametrize(("num_qubits", "num_rows", "limit"), [(4, 20_000, 500_000), (8, 600, "1MB")])
def test_a_job_a_gradient_and_a_jacobian_are_cut_too(num_qubits, num_rows, limit):
    function, limited = network(num_qubits), network(num_qubits, memory_limit=limit)
    circuit = parts(num_qubits)[0]
    pub = circuit, "X" * num_qubits, RNG.random((num_rows, circuit.num_parameters))
    job = FusedEstimator(memory_limit=limit).run([pub])
    assert_allclose(job.result()[0].data.evs, FusedEstimator().run([pub]).result()[0].data.evs, atol=1e-12)
    assert job.metrics()["rows"] == num_rows
    actual = FusedEstimatorGradient(memory_limit=limit).value_and_gradient(*pub)
    for result, reference in zip(actual, FusedEstimatorGradient().value_and_gradient(*pub)):
        assert_allclose(result, reference, atol=1e-12)
    for result, reference in zip(*(each.value_and_jacobian(*question(function, 300)) for each in (limited, function))):
        assert_allclose(result, reference, atol=1e-12)


def test_start_states_of_a_batch_that_is_cut_have_their_gradients():
    circuit = real_amplitudes(6, reps=2)
    states = RNG.normal(size=(500, 64))
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    arguments = np.zeros((500, 0)), RNG.random(circuit.num_parameters), RNG.normal(size=(500, 1))
    function, limited = (
        Expectations(circuit, "ZIXZIX", [], circuit.parameters, memory_limit=limit) for limit in (None, "500kB")
    )
    whole, cut = (each.value_and_vjp(*arguments, initial_states=states) for each in (function, limited))
    assert_allclose(cut.values, whole.values, atol=1e-13)
    assert_allclose(cut.weights, whole.weights, atol=1e-11)
    assert_allclose(cut.initial_states, whole.initial_states, atol=1e-13)


def test_terms_of_several_light_cones_are_cut_too():
    circuit = real_amplitudes(30, reps=1, entanglement="pairwise")
    observables = [SparsePauliOp.from_sparse_list([("ZZ", [q, q + 1], 1.0)], 30) for q in range(29)]
    rows = RNG.random((200, circuit.num_parameters))
    whole = FusedEstimatorGradient().value_and_gradient(circuit, observables, rows)
    cut = FusedEstimatorGradient(memory_limit="400kB").value_and_gradient(circuit, observables, rows)
    for result, reference in zip(cut, whole):
        assert_allclose(result, reference, atol=1e-12)


def test_progress_of_blocks_goes_up_to_the_end():
    steps = []
    function = network(4, memory_limit=500_000, progress=lambda done, total: steps.append((done, total)))
    function.values(*question(function, 20_000))
    assert steps == sorted(steps)
    assert steps[-1][0] == steps[-1][1]


def test_an_error_about_a_row_of_a_later_block_names_the_row_of_the_caller():
    circuit = raw_feature_vector(256)
    rows = RNG.random((600, 256))
    rows[431] = 0.0
    estimator = FusedEstimator(memory_limit="1MB", fallback=False)
    with pytest.raises(ValueError, match="row 431 "):
        estimator.run([(circuit, "Z" * 8, rows)]).result()


@pytest.mark.parametrize("call", ["values", "value_and_vjp"])
def test_where_a_single_row_does_not_fit_the_error_is_about_qubits(call):
    function = network(8, memory_limit=5000)
    more = [np.ones((50, 1))] if call == "value_and_vjp" else []
    with pytest.raises(TooManyQubits, match=r"of 8 qubits .* use .*fewer qubits"):
        getattr(function, call)(*question(function, 50), *more)


def test_arrays_that_exceed_the_free_memory_are_refused_with_the_rows_that_would_fit(monkeypatch):
    monkeypatch.setattr("qiskit_fused.execution.evaluate.resolve_limit", lambda value: 1000)
    circuit = parts(8)[0]
    pub = circuit, "Z" * 8, RNG.random((600, circuit.num_parameters))
    with pytest.raises(MemoryError) as error:
        FusedEstimator(memory_limit="1MB", num_threads=1).run([pub]).result()
    assert not isinstance(error.value, TooManyQubits)
    most = re.search(r"ask for fewer rows or observables at a time, (\d+) rows at most, or raise", str(error.value))
    pub = *pub[:2], pub[2][: int(most[1])]
    FusedEstimator(memory_limit="1MB", num_threads=1).run([pub]).result()


def test_a_batch_that_is_cut_leaves_the_options_of_the_caller_unchanged():
    options = FusedOptions(memory_limit="1MB")
    function = network(8, options=options)
    function.values(*question(function, 600))
    assert function.options is options
