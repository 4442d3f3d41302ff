# SPDX-License-Identifier: Apache-2.0
"""Sweeps of the CUDA engine over a state of the caller do what those of the CPU engine do, also as ranks."""

import numpy as np
import pytest
from engine_cases import TOLERANCE, dense_circuit, on_engines, random_circuit, random_observables, rows_of
from qiskit.quantum_info import SparsePauliOp

from qiskit_fused import FusedEstimatorGradient
from qiskit_fused.common.array_modules import to_numpy
from qiskit_fused.compilation.circuits import compile_circuit
from qiskit_fused.compilation.observables import coerce_observables
from qiskit_fused.distributed import run_on_threads
from qiskit_fused.distributed.evaluation import RankEvaluator
from qiskit_fused.distributed.rank_program import empty_program
from qiskit_fused.engines.cpu.state_sweeps import CpuSweeps
from qiskit_fused.engines.cuda.state_sweeps import CudaSweeps
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.lowering.lower import lower

pytestmark = [
    pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning"),
    on_engines(cpu=[], emulated=[3, 7], tiles=[7], cuda=[3, 7]),
    pytest.mark.parametrize("dtype", ["complex64", "complex128"]),
]


def random_states(num_qubits):
    numbers = np.random.default_rng(num_qubits).normal(size=(2, 1, 1 << num_qubits, 2)) @ [1, 1j]
    return numbers / np.linalg.norm(numbers[0])


def host(array):
    return to_numpy(array).astype(np.complex128)


@pytest.mark.parametrize("make", [lambda n: random_circuit(n, 40, seed=n), lambda n: dense_circuit(n, 2)])
def test_sweeps_agree_with_those_of_the_cpu(make_engine, make, num_qubits, dtype):
    program = lower(make(num_qubits)).from_any_state()
    plan, columns = fuse_program(program, None), rows_of(program, num_rows=1)
    cpu, cuda = CpuSweeps("complex128"), CudaSweeps(make_engine(), dtype)
    start, cotangents = random_states(num_qubits)
    expected, expected_cotangent = start.copy(), cotangents.copy()
    state, cotangent = cuda.xp.asarray(start.astype(dtype)), cuda.xp.asarray(cotangents.astype(dtype))
    cpu.forward(plan, columns, expected)
    cuda.forward(plan, columns, state)
    np.testing.assert_allclose(host(state), expected, atol=TOLERANCE[dtype], rtol=0)
    expected_gradient = cpu.back(plan, columns, expected, expected_cotangent)
    gradient = cuda.back(plan, columns, state, cotangent)
    atol = TOLERANCE[dtype] * max(1, np.abs(expected_gradient).max())
    np.testing.assert_allclose(gradient, expected_gradient, atol=atol, rtol=0)
    np.testing.assert_allclose(host(state), start, atol=atol, rtol=0)
    np.testing.assert_allclose(host(cotangent), expected_cotangent, atol=atol, rtol=0)


def test_observing_agrees_with_the_cpu(make_engine, num_qubits, dtype):
    start, _ = random_states(num_qubits)
    plan = empty_program(lower(random_circuit(num_qubits, 3, seed=0)), num_qubits)
    operators, weights = coerce_observables(random_observables(num_qubits, 1)).operators, np.array([0.5, -2.0])
    terms = operators.restrict(plan.wires)
    cuda, expected = CudaSweeps(make_engine(), dtype), np.empty_like(start)
    state = cuda.xp.asarray(start.astype(dtype))
    cotangent = cuda.xp.empty_like(state)
    values = CpuSweeps("complex128").observe(plan, terms, start, weights, expected)
    atol = 10 * TOLERANCE[dtype]
    np.testing.assert_allclose(cuda.observe(plan, terms, state, weights, cotangent), values, atol=atol, rtol=0)
    np.testing.assert_allclose(host(cotangent), expected, atol=atol, rtol=0)
    np.testing.assert_allclose(cuda.observe(plan, terms, state), values, atol=atol, rtol=0)


@pytest.mark.parametrize("num_global", [1, 2])
def test_ranks_agree_with_the_reference(make_engine, num_qubits, num_global, dtype):
    compiled = compile_circuit(random_circuit(num_qubits, 40, seed=num_global))
    observables = [*random_observables(num_qubits, 2), SparsePauliOp("XYXYXYX"[:num_qubits])]
    values = np.random.default_rng(3).normal(size=compiled.circuit.num_parameters)
    expected = FusedEstimatorGradient(device="reference").value_and_gradient(compiled, observables, values)
    operators, engine = coerce_observables(observables).operators, make_engine()
    fused = compiled.fused_program(operators.support(num_qubits))
    columns, weights = compiled.program.columns(values[None]), np.array([1.0, -0.5, 2.0])

    def evaluate(ranks):
        return RankEvaluator(fused, operators, ranks, CudaSweeps(engine, dtype)).values_and_vjp(columns, weights)

    for found_values, gradient in run_on_threads(1 << num_global, evaluate):
        atol = 10 * TOLERANCE[dtype]
        np.testing.assert_allclose(found_values, expected[0][0], atol=atol, rtol=0)
        np.testing.assert_allclose(gradient, weights @ expected[1][0], atol=atol, rtol=0)
