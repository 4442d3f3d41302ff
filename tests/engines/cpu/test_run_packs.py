# SPDX-License-Identifier: Apache-2.0
"""Runs of a row that are bound in packs: gates of mixed kinds, places without a run, and angles at the edges."""

import numpy as np
import pytest
from asking import Ends, ask
from engine_cases import all_pairs, assert_agree, plan_of, random_observables, run_kinds, total_z
from qiskit.circuit import ParameterVector, QuantumCircuit

from qiskit_fused.engines.cpu.engine import CpuEngine
from qiskit_fused.engines.reference import ReferenceEngine
from qiskit_fused.options.method import Method

EDGES = [0.0, np.pi, -np.pi, np.pi / 2, 2 * np.pi, 1e-9, -1e-17, np.pi - 1e-9, 3 * np.pi, 1e-5, 0.3, 1e6]


def one_row(plan, seed=0):
    values = np.random.default_rng(seed).uniform(-3, 3, (1, plan.program.num_parameters))
    return plan.program.columns(values)


@pytest.mark.parametrize("method", ["reverse", "store"])
@pytest.mark.parametrize("num_qubits", [1, 2, 5, 9, 11])
def test_runs_of_any_kinds_and_number_agree_with_the_reference(num_qubits, method, dtype):
    plan, operators = plan_of(run_kinds(num_qubits), random_observables(num_qubits, 3))
    question = plan, operators, one_row(plan), all_pairs(1, len(operators))
    expected = ask(ReferenceEngine(), *question, gradient=True)
    assert_agree(ask(CpuEngine(1), *question, gradient=True, dtype=dtype, method=Method(method)), expected, dtype)


def layers_of_runs(gates):
    """Return two layers of runs of these gates on 4 qubits, with CZ gates between them."""
    parameters, circuit = ParameterVector("p", 3 * 2 * 4), QuantumCircuit(4)
    used = iter(parameters)
    for _ in range(2):
        for qubit in range(4):
            for gate in gates:
                getattr(circuit, f"r{gate}")(next(used), qubit)
        for qubit in range(3):
            circuit.cz(qubit, qubit + 1)
    return circuit


def rows_at_edges(plan):
    """Yield rows of columns. Each run has another angle, so edges and other angles share a vector."""
    for shift in range(len(EDGES)):
        yield plan.program.columns(np.resize(np.roll(EDGES, shift), (1, plan.program.num_parameters)))


@pytest.mark.parametrize("method", ["reverse", "store"])
@pytest.mark.parametrize("gates", ["x", "y", "xy", "zyz", "xyx"])
def test_runs_at_the_edges_of_their_angles_agree_with_the_reference(gates, method, dtype):
    plan, operators = plan_of(layers_of_runs(gates), random_observables(4, 2))
    for columns in rows_at_edges(plan):
        question = plan, operators, columns, all_pairs(1, len(operators))
        expected = ask(ReferenceEngine(), *question, gradient=True)
        assert_agree(ask(CpuEngine(1), *question, gradient=True, dtype=dtype, method=Method(method)), expected, dtype)


@pytest.mark.parametrize("varies", ["one column", "all columns"])
def test_rows_evaluated_one_by_one_have_the_bits_of_single_rows(varies, dtype):
    plan, operators = plan_of(run_kinds(11), random_observables(11, 1))
    columns = np.concatenate([one_row(plan, seed) for seed in range(3)])
    if varies == "one column":
        columns[1:] = columns[0]
        columns[1:, 3] += [0.25, -0.5]
    together = ask(CpuEngine(1), plan, operators, columns, all_pairs(3, 1), gradient=True, dtype=dtype)
    for row in range(3):
        alone = ask(CpuEngine(1), plan, operators, columns[[row]], all_pairs(1, 1), gradient=True, dtype=dtype)
        assert np.array_equal(together.values[row], alone.values[0])
        assert np.array_equal(together.gradients[row], alone.gradients[0])


def test_columns_summed_over_rows_have_the_sums_of_their_gradients(dtype):
    plan, operators = plan_of(run_kinds(11), random_observables(11, 1))
    columns = np.repeat(one_row(plan), 3, axis=0)
    own = np.arange(columns.shape[1]) % 3 == 0
    columns[:, own] = np.random.default_rng(1).uniform(-3, 3, (3, own.sum()))
    question = plan, operators, columns, all_pairs(3, 1)
    weights = np.array([0.7, -1.3, 0.4])
    expected = ask(ReferenceEngine(), *question, gradient=True, cotangents=weights).gradients
    actual = ask(CpuEngine(1), *question, gradient=True, cotangents=weights, sum_columns=~own, dtype=dtype).gradients
    tolerance = 1e-12 if dtype == "complex128" else 2e-5
    np.testing.assert_allclose(actual[:, own], expected[:, own], atol=tolerance)
    np.testing.assert_allclose(actual[:, ~own].sum(0), expected[:, ~own].sum(0), atol=tolerance)


def test_final_states_of_runs_of_any_kinds_have_the_phase_of_the_reference(dtype):
    circuit = run_kinds(5)
    plan, operators = plan_of(circuit, total_z(5), imaginary=True)
    for seed in range(3):
        question = plan, operators, one_row(plan, seed), all_pairs(1, 1)
        found, expected = (
            ask(engine, *question, ends=Ends(final=True)) for engine in (CpuEngine(1), ReferenceEngine())
        )
        np.testing.assert_allclose(found.final_states, expected.final_states, atol=1e-12)


@pytest.mark.parametrize("gates", ["x", "y", "yy", "zyz"])
def test_final_states_at_the_edges_of_the_angles_have_the_phase_of_the_reference(gates):
    plan, operators = plan_of(layers_of_runs(gates), total_z(4), imaginary=True)
    for columns in rows_at_edges(plan):
        question = plan, operators, columns, all_pairs(1, 1)
        found, expected = (
            ask(engine, *question, ends=Ends(final=True)) for engine in (CpuEngine(1), ReferenceEngine())
        )
        np.testing.assert_allclose(found.final_states, expected.final_states, atol=1e-12)
