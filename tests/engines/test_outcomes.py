# SPDX-License-Identifier: Apache-2.0
"""Outcomes of measurements on engines: probabilities, and gradients of each outcome and of weighted sums."""

import numpy as np
import pytest
from asking import Ends, ask, make_request, most_bytes
from engine_cases import (
    TOLERANCE,
    all_pairs,
    assert_agree,
    check_random_circuits,
    on_engines,
    random_circuit,
    rows_of,
)
from qiskit.circuit.library import real_amplitudes

from qiskit_fused.engines.cpu.engine import CpuEngine
from qiskit_fused.engines.cpu.method import choose
from qiskit_fused.engines.reference import ReferenceEngine
from qiskit_fused.engines.request import Pairs
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.lowering.lower import lower
from qiskit_fused.options.method import REVERSE, Method
from qiskit_fused.program.outcomes import Outcomes

pytestmark = pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")

METHODS = [REVERSE, Method("store"), Method("checkpoint", 2)]
NO_PAIRS = np.zeros(0, np.int32), np.zeros(0, np.int32)

every_size = on_engines(cpu=[1, 2, 5, 10, 15], emulated=[1, 5, 12], tiles=[4, 8])
small_size = on_engines(cpu=[1, 2, 5, 8], emulated=[1, 5], tiles=[4, 7], cuda=[1, 2, 5, 8, 12])


def question(num_qubits, num_outcomes=3, *, imaginary=False, num_measured=None, drops=True):
    """Return a plan, the outcomes of measuring some qubits, and the columns of three rows."""
    circuit = real_amplitudes(1, reps=2) if num_qubits == 1 else random_circuit(num_qubits, 20, seed=num_qubits)
    if num_qubits > 1:
        circuit.swap(0, num_qubits - 1)  # the bits of the final state are renamed
    rng = np.random.default_rng(num_qubits)
    measured = rng.permutation(num_qubits)[: num_measured or max(1, num_qubits - 1)]
    if num_outcomes is None:
        outcomes = Outcomes(num_qubits, measured)
    else:
        table = rng.integers(-1 if drops else 0, num_outcomes, 1 << len(measured))
        outcomes = Outcomes(num_qubits, measured, table, num_outcomes)
    program = lower(circuit)
    return fuse_program(program, None if imaginary else outcomes.support(num_qubits)), outcomes, rows_of(program)


@every_size
@pytest.mark.parametrize("num_outcomes", [2, None], ids=["classes", "bitstrings"])
def test_values_are_the_sums_of_squared_amplitudes(make_engine, num_qubits, num_outcomes, dtype):
    plan, outcomes, columns = question(num_qubits, num_outcomes)
    states = ask(make_engine(2), plan, outcomes, columns, NO_PAIRS, dtype=dtype, ends=Ends(final=True)).final_states
    actual = ask(make_engine(2), plan, outcomes, columns, all_pairs(3, len(outcomes)), dtype=dtype).values
    of_amplitude = outcomes.restrict(plan.wires).outcome
    expected = np.zeros((3, len(outcomes) + 1))
    for row in range(3):
        np.add.at(expected[row], of_amplitude, np.abs(states[row]) ** 2)  # outcome -1 is the last entry
    np.testing.assert_allclose(actual.reshape(3, -1), expected[:, :-1], atol=TOLERANCE[dtype])


def test_outcomes_of_random_circuits_agree_with_the_reference(engine_name, make_engine):
    """Measured qubits may be idle, outcomes may have no bitstring, and only some pairs are evaluated."""

    def check(circuit):
        n, rng = circuit.num_qubits, np.random.default_rng(circuit.size())
        measured = rng.permutation(n)[: rng.integers(1, n + 1)]
        num_outcomes = int(rng.integers(1, 2 + 2 ** len(measured)))
        outcomes = Outcomes(n, measured, rng.integers(-1, num_outcomes, 2 ** len(measured)), num_outcomes)
        program, imaginary = lower(circuit), bool(rng.integers(2))
        plan = fuse_program(program, None if imaginary else outcomes.support(n))
        rows, observable = all_pairs(3, num_outcomes)
        chosen = np.flatnonzero(rng.random(len(rows)) < 0.7)
        question = plan, outcomes, rows_of(program), (rows[chosen], observable[chosen])
        options = {"gradient": True, "imaginary": imaginary}
        if rng.integers(2):
            options["cotangents"] = rng.normal(size=len(chosen))
        expected = ask(ReferenceEngine(), *question, **options)
        for dtype in TOLERANCE:
            assert_agree(ask(make_engine(2), *question, **options, dtype=dtype), expected, dtype)

    check_random_circuits(engine_name, check, max_examples=40)


@small_size
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("imaginary", [False, True], ids=["real", "imaginary"])
def test_gradients_of_each_outcome_agree_with_the_reference(make_engine, num_qubits, method, imaginary, dtype):
    plan, outcomes, columns = question(num_qubits, imaginary=imaginary)
    pairs = np.array([0, 0, 2], np.int32), np.array([0, 2, 1], np.int32)  # some outcomes of some rows
    options = {"gradient": True, "imaginary": imaginary}
    expected = ask(ReferenceEngine(), plan, outcomes, columns, pairs, **options)
    actual = ask(make_engine(2), plan, outcomes, columns, pairs, dtype=dtype, method=method, **options)
    np.testing.assert_allclose(actual.values, expected.values, atol=TOLERANCE[dtype])
    scale = 4 * max(1.0, np.abs(expected.gradients).max(initial=0))
    np.testing.assert_allclose(actual.gradients, expected.gradients, atol=scale * TOLERANCE[dtype])


@every_size
@pytest.mark.parametrize("num_outcomes", [2, None], ids=["classes", "bitstrings"])
def test_a_weighted_sum_of_outcomes_has_the_gradient_of_its_final_cotangent(
    make_engine, num_qubits, num_outcomes, dtype
):
    plan, outcomes, columns = question(num_qubits, num_outcomes)
    weights = np.random.default_rng(0).normal(size=(3, len(outcomes)))
    states = ask(make_engine(2), plan, outcomes, columns, NO_PAIRS, dtype=dtype, ends=Ends(final=True)).final_states
    of_amplitude = outcomes.restrict(plan.wires).outcome
    cotangents = 2 * np.pad(weights, ((0, 0), (0, 1)))[:, of_amplitude] * states
    ends = Ends(final_cotangents=cotangents)
    expected = ask(make_engine(2), plan, outcomes, columns, NO_PAIRS, gradient=True, dtype=dtype, ends=ends)
    pairs = all_pairs(3, len(outcomes))
    actual = ask(make_engine(2), plan, outcomes, columns, pairs, gradient=True, cotangents=weights.ravel(), dtype=dtype)
    scale = 8 * max(1.0, np.abs(expected.gradients).max(initial=0))
    np.testing.assert_allclose(actual.gradients, expected.gradients, atol=scale * TOLERANCE[dtype])


@pytest.mark.parametrize("num_outcomes", [2, None], ids=["classes", "bitstrings"])
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_threads_that_share_a_row_give_the_same_bits(num_outcomes, dtype):
    plan, outcomes, columns = question(16, num_outcomes)
    pairs, weights = all_pairs(1, len(outcomes)), np.ones(len(outcomes))
    first, again = (
        ask(CpuEngine(threads), plan, outcomes, columns[:1], pairs, gradient=True, cotangents=weights, dtype=dtype)
        for threads in (1, 2)
    )
    np.testing.assert_array_equal(first.values, again.values)
    np.testing.assert_array_equal(first.gradients, again.gradients)


@pytest.mark.parametrize("num_outcomes", [2, None], ids=["classes", "bitstrings"])
def test_predicted_bytes_are_the_allocated_bytes_and_do_not_grow_with_threads_times_outcomes(num_outcomes):
    plan, outcomes, columns = question(17, num_outcomes, num_measured=17)
    pairs = Pairs(*all_pairs(1, len(outcomes)))
    request = make_request(columns[:1], pairs)
    choice = choose(
        plan,
        request,
        outcomes.restrict(plan.wires),
        method="auto",
        num_segments=None,
        num_threads=2,
        limit_of=lambda num_bytes: 1 << 40,
    )
    num_bytes = most_bytes(CpuEngine(2), plan, outcomes, request)
    assert num_bytes == pytest.approx(choice.num_bytes, rel=0.2)
    assert num_bytes < 6 * (16 << 17)
