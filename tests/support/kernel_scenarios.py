# SPDX-License-Identifier: Apache-2.0
"""Questions that together reach every kernel, run on an emulated device and compared with the reference engine."""

import functools

import numpy as np
from asking import ask
from engine_cases import all_pairs, assert_agree, plan_of, random_circuit, random_observables, rows_of
from qiskit.circuit import ParameterVector, QuantumCircuit

from qiskit_fused.engines.cuda import records
from qiskit_fused.engines.cuda.engine import CudaEngine
from qiskit_fused.engines.cuda.launch import kernel
from qiskit_fused.engines.cuda.memory import UNITS_PER_SUM
from qiskit_fused.engines.reference import ReferenceEngine
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.lowering.lower import lower
from qiskit_fused.options.method import REVERSE, Method
from qiskit_fused.program.outcomes import Outcomes

# The functions below run the kernels with tiles of less than a warp and a last block that is not full, with tiles of
# two warps, and with fewer amplitudes than a warp has threads.


@functools.cache
def thorough_question(num_qubits):
    """Return a question that needs every kind of sum, phase and rotation, and the reference's answer."""
    circuit, n = random_circuit(num_qubits, 30, seed=num_qubits), num_qubits
    varying, q = circuit.parameters[0], ParameterVector("q", 6)
    for layer in range(2):
        for qubit in range(n):
            # The run of this RX has no other gate, and its angle is 0 in the last row.
            circuit.rx(varying, qubit)
            circuit.cz(qubit, (qubit + 1) % n)
        if n >= 5:
            # The gradients of these terms need sums of more than two bits.
            circuit.mcp(q[layer], [0, 1, 2, n // 2], n - 1)
            circuit.mcp(q[2 + layer], [n - 1, n - 2, 2, 1], 0)
            circuit.rzz(q[layer], 0, n - 1)
            circuit.rzz(varying, n - 2, n - 1)
        for qubit in range(n):
            circuit.ry(q[4] + qubit, qubit)
            circuit.rz(varying, qubit)
            circuit.rx(q[5] - qubit, qubit)
    plan, operators = plan_of(circuit, random_observables(n, 1))
    question = plan, operators, rows_of(plan.program), all_pairs(3, 2)
    return question, ask(ReferenceEngine(), *question, gradient=True)


def run_engine(runtime, num_qubits, tile_qubits, dtype, method=REVERSE):
    question, expected = thorough_question(num_qubits)
    engine = CudaEngine(runtime, max_tile_qubits=tile_qubits)
    assert_agree(ask(engine, *question, gradient=True, dtype=dtype, method=method), expected, dtype)


def run_sums(runtime):
    """Sum over tiles and over chunks, with fewer blocks than tasks, and with blocks of several warps."""
    rng = np.random.default_rng(0)
    units, num_tiles, num_partials, num_outputs = 3, 64, 21, 19
    partial = rng.normal(size=(units, num_tiles, num_partials))
    outputs = np.zeros(num_outputs, records.OUTPUT)
    outputs["partial"], outputs["outside"] = (
        rng.integers(0, num_partials, num_outputs),
        rng.integers(0, 64, num_outputs),
    )
    outputs["total"] = rng.permutation(num_outputs)
    totals = np.zeros((units, num_outputs))
    sizes = [np.int32(size) for size in (units, num_tiles, num_partials)]
    arguments = (partial, *sizes, outputs, np.int32(num_outputs), totals, np.int32(num_outputs))
    kernel(runtime, "gradients.cu", "sum_tiles", "complex128")(2, 128, arguments)
    odd = np.bitwise_count(np.arange(num_tiles)[:, None] & outputs["outside"].astype(np.int64)) & 1
    expected = np.zeros_like(totals)
    expected[:, outputs["total"]] = (partial[:, :, outputs["partial"]] * (1.0 - 2.0 * odd)).sum(1)
    np.testing.assert_allclose(totals, expected, atol=1e-12)

    chunks, values = rng.normal(size=(7, 300)), np.zeros(7)
    arguments = (chunks, np.int32(7), np.int32(300), values)
    kernel(runtime, "gradients.cu", "sum_chunks", "complex128")(2, 128, arguments)
    np.testing.assert_allclose(values, chunks.sum(1), atol=1e-12)


def run_summed(runtime):
    """Sum the gradients of some columns over more rows than one sum of `combine` takes."""
    circuit = random_circuit(3, 60, seed=3)
    plan, operators = plan_of(circuit, random_observables(3, 1))
    num_rows = UNITS_PER_SUM + 6
    columns = np.random.default_rng(1).normal(size=(num_rows, plan.program.num_columns))
    question = plan, operators, columns, all_pairs(num_rows, 1)
    options = {"gradient": True, "cotangents": np.linspace(-1, 2, num_rows)}
    expected = ask(ReferenceEngine(), *question, **options).gradients
    summed = np.arange(columns.shape[1]) % 3 > 0
    actual = ask(CudaEngine(runtime), *question, **options, sum_columns=summed).gradients
    np.testing.assert_allclose(actual[:, ~summed], expected[:, ~summed], atol=1e-10)
    np.testing.assert_allclose(actual[0, summed], expected[:, summed].sum(axis=0), atol=1e-10)


def run_real(runtime):
    """Run sweeps over real amplitudes: all kinds of signs, tiles of several warps, a last block that is not full."""
    circuit = QuantumCircuit(10)
    for layer in range(3):
        for qubit, parameter in enumerate(ParameterVector(f"p{layer}", 10)):
            circuit.h(qubit)
            circuit.ry(parameter, qubit)
        for qubit in range(10):
            circuit.cx(qubit, (qubit + 3) % 10)
        circuit.rx(np.pi, 4)
        circuit.h(6)
        circuit.z(6)
        circuit.h(6)
        circuit.mcp(np.pi, [0, 1, 5], 9)
        circuit.mcp(np.pi, [2, 4], 6)
        circuit.ccz(2, 7, 8)
    plan, operators = plan_of(circuit, random_observables(10, 1))
    assert plan.is_real
    question = plan, operators, rows_of(plan.program), all_pairs(3, 2)
    expected = ask(ReferenceEngine(), *question, gradient=True)
    # In tiles of 9 qubits, places of floats in shared memory are exclusive ors of bits that both may be 1.
    for dtype, tile_qubits in (("complex64", 9), ("complex128", 10)):
        engine = CudaEngine(runtime, max_tile_qubits=tile_qubits)
        assert_agree(ask(engine, *question, gradient=True, dtype=dtype), expected, dtype)


def run_outcomes(runtime, num_qubits, num_outcomes, dtype):
    """Compute probabilities of outcomes, of which one has half of the bitstrings, and gradients of some or of sums."""
    rng, n = np.random.default_rng(num_qubits), num_qubits
    table = rng.integers(-1, num_outcomes, 1 << n)
    table[rng.random(len(table)) < 0.5] = 1
    program, outcomes = lower(random_circuit(n, 12, seed=n)), Outcomes(n, rng.permutation(n), table, num_outcomes)
    question = fuse_program(program, None), outcomes, rng.normal(size=(3, program.num_columns))
    some = np.array([0, 0, 2], np.int32), np.array([1, num_outcomes - 1, 1], np.int32)
    every, engine = all_pairs(3, num_outcomes), CudaEngine(runtime, max_tile_qubits=min(n, 7))
    for pairs, options in (
        (every, {"gradient": True, "cotangents": rng.normal(size=len(every[0]))}),
        (some, {"gradient": True, "imaginary": True}),
    ):
        expected = ask(ReferenceEngine(), *question, pairs, **options)
        assert_agree(ask(engine, *question, pairs, **options, dtype=dtype), expected, dtype)


def run_one_state(runtime):
    """Exchange psi and lam one after the other, as on a device whose multiprocessors have little shared memory."""
    memory = runtime.shared_memory_per_multiprocessor
    runtime.shared_memory_per_multiprocessor = 0
    try:
        run_engine(runtime, 10, 9, "complex128")
        run_engine(runtime, 8, 6, "complex64")
    finally:
        runtime.shared_memory_per_multiprocessor = memory


def run_compiled(runtime):
    """Compile every pass, of sums and phases of all kinds that single bits and pairs have."""
    circuit = QuantumCircuit(7)
    varying, shared = ParameterVector("v", 7), ParameterVector("w", 35)
    for layer in range(3):
        for qubit in range(7):
            circuit.rx((0.02 if qubit % 3 == 0 else 1) * (varying if layer == 1 else shared)[qubit], qubit)
            # Small angles need sums of X, beside rotations that change the scale.
            circuit.ry((0.02 if qubit % 3 == 0 else 1) * shared[7 + 7 * layer + qubit], qubit)
            circuit.rz(shared[28 + qubit], qubit)
        for qubit in range(7):
            circuit.cz(qubit, (qubit + 1) % 7)
        circuit.rzz(varying[layer], 0, 6)
    plan, operators = plan_of(circuit, random_observables(7, 1))
    question = plan, operators, rows_of(plan.program), all_pairs(3, 2)
    engine = CudaEngine(runtime, max_tile_qubits=6, compile_above=0)
    expected = ask(ReferenceEngine(), *question, gradient=True)
    assert_agree(ask(engine, *question, gradient=True, dtype="complex128"), expected, "complex128")


SCENARIOS = {
    "lanes": lambda runtime: run_engine(runtime, 8, 6, "complex64"),
    "warps": lambda runtime: run_engine(runtime, 10, 9, "complex128"),
    "tile of a block": lambda runtime: run_engine(runtime, 11, 10, "complex128"),
    "kept": lambda runtime: run_engine(runtime, 8, 6, "complex64", Method("checkpoint", 2)),
    "one state": run_one_state,
    "small": lambda runtime: run_engine(runtime, 3, 3, "complex128"),
    "sums": run_sums,
    "summed": run_summed,
    "real": run_real,
    "compiled": run_compiled,
    "long lists": lambda runtime: run_outcomes(runtime, 11, 3, "complex128"),
    "short lists": lambda runtime: run_outcomes(runtime, 3, 5, "complex64"),
}

# The scenarios that hand no array of the host to a kernel.
ON_ANY_DEVICE = {name: scenario for name, scenario in SCENARIOS.items() if name != "sums"}
