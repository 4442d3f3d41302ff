# SPDX-License-Identifier: Apache-2.0
"""Sweeps over a state of the caller: they do what the engine does with boundary states."""

import numpy as np
import pytest
from engine_cases import TOLERANCE, dense_circuit, random_circuit, random_observables, rows_of

from qiskit_fused.compilation.observables import coerce_observables
from qiskit_fused.distributed.rank_program import empty_program
from qiskit_fused.engines.cpu.engine import CpuEngine
from qiskit_fused.engines.cpu.state_sweeps import CpuSweeps
from qiskit_fused.engines.reference import apply_observable
from qiskit_fused.engines.request import NO_PAIRS, BoundaryStates, GradientRequest, Request
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.lowering.lower import lower

pytestmark = pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")


def random_states(num_qubits):
    numbers = np.random.default_rng(num_qubits).normal(size=(2, 1, 1 << num_qubits, 2)) @ [1, 1j]
    return numbers / np.linalg.norm(numbers[0])


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("num_qubits", [2, 4, 7, 10, 14, 15])
@pytest.mark.parametrize("make", [lambda n: random_circuit(n, 60, seed=n), lambda n: dense_circuit(n, 2)])
def test_sweeps_give_the_states_and_gradients_of_the_engine_and_return_to_the_start(make, num_qubits, dtype):
    program = lower(make(num_qubits)).from_any_state()
    plan, columns, operators = fuse_program(program, None), rows_of(program, num_rows=1), total(num_qubits)
    start, cotangents = random_states(num_qubits)
    boundary = BoundaryStates(start, final=True, final_cotangents=cotangents)
    request = Request(columns, NO_PAIRS, GradientRequest(of_initial_states=True), boundary)
    expected = CpuEngine(2).evaluate(plan, operators, request)
    atol = TOLERANCE[dtype] * max(1, np.abs(expected.gradients).max())

    state, cotangent = start.copy(), cotangents.copy()
    CpuSweeps(dtype, 2).forward(plan, columns, state)
    np.testing.assert_allclose(state, expected.final_states, atol=atol, rtol=0)
    gradient = CpuSweeps(dtype, 2).back(plan, columns, state, cotangent)
    np.testing.assert_allclose(gradient, expected.gradients[0], atol=atol, rtol=0)
    np.testing.assert_allclose(state, start, atol=atol, rtol=0)
    np.testing.assert_allclose(cotangent, expected.state_gradients, atol=atol, rtol=0)


def total(num_qubits):
    return coerce_observables(random_observables(num_qubits, 1)).operators


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("num_qubits", [2, 5, 9, 14])
def test_observing_a_state_of_any_norm_gives_values_and_the_cotangent(num_qubits, dtype):
    state, _ = random_states(num_qubits)
    state *= 3
    plan = empty_program(lower(random_circuit(num_qubits, 3, seed=0)), num_qubits)
    terms, weights = total(num_qubits).restrict(plan.wires), np.array([0.5, -2.0])
    applied = [apply_observable(terms, k, state[0]) for k in range(2)]
    expected = [np.vdot(state[0], of_state).real for of_state in applied]
    cotangent = np.empty_like(state)
    values = CpuSweeps(dtype, 2).observe(plan, terms, state, weights, cotangent)
    scale = 100 * TOLERANCE[dtype]
    np.testing.assert_allclose(values, expected, atol=scale, rtol=0)
    np.testing.assert_allclose(cotangent[0], 2 * weights @ applied, atol=scale, rtol=0)
    np.testing.assert_allclose(CpuSweeps(dtype, 2).observe(plan, terms, state), expected, atol=scale, rtol=0)
