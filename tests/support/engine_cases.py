# SPDX-License-Identifier: Apache-2.0
"""Helpers for tests of engines: circuits, observables, rows of angles, and the comparison with the reference engine.

Tolerances depend on the number format alone: the error of a complex64 sweep is a few units of float32, relative to the
largest component. No tolerance is tuned for a test.
"""

from itertools import combinations

import numpy as np
import pytest
from asking import ask
from circuits import circuits
from hypothesis import given, settings
from qiskit.circuit import ParameterVector, QuantumCircuit
from qiskit.circuit.library import PauliEvolutionGate, RVGate, UnitaryGate
from qiskit.quantum_info import SparsePauliOp, random_pauli_list, random_unitary
from scipy.stats import ortho_group

from qiskit_fused.compilation.observables import coerce_observables
from qiskit_fused.engines.reference import ReferenceEngine
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.lowering.lower import lower

TOLERANCE = {"complex64": 2e-5, "complex128": 2e-12}


EMULATED = ("emulated", "tiles")


def on_engines(*, cpu, emulated, tiles, cuda=None):
    """Parametrise a test over engines and their numbers of qubits. A GPU uses the CPU's numbers by default."""
    cases = [(name, n) for name, sizes in (("cpu", cpu), ("emulated", emulated)) for n in sizes]
    cases += [pytest.param("tiles", n, marks=pytest.mark.slow) for n in tiles]
    cases += [pytest.param("cuda", n, marks=pytest.mark.gpu) for n in (cpu if cuda is None else cuda)]
    return pytest.mark.parametrize(("engine_name", "num_qubits"), cases)


def check_random_circuits(engine_name, check, max_examples=60):
    """Call check(circuit) for random circuits of every gate, for fewer circuits on large emulated tiles."""
    fewer = max_examples // 3 if engine_name == "emulated" else max_examples
    drawn = circuits(max_qubits=8, max_gates=14) if engine_name == "tiles" else circuits()
    settings(max_examples=fewer, deadline=None)(given(circuit=drawn)(check))()


def total_z(num_qubits):
    return SparsePauliOp.from_sparse_list([("Z", [q], 1.0) for q in range(num_qubits)], num_qubits)


def random_observables(num_qubits, seed):
    paulis = random_pauli_list(num_qubits, 3, seed=seed, phase=False)
    return [SparsePauliOp(paulis, np.random.default_rng(seed).normal(size=3)), total_z(num_qubits)]


def all_pairs(num_rows, num_observables):
    rows = np.repeat(np.arange(num_rows, dtype=np.int32), num_observables)
    return rows, np.tile(np.arange(num_observables, dtype=np.int32), num_rows)


def rows_of(program, seed=0, num_rows=3):
    """Return the columns of rows that differ in the first two parameters only. These are 0 in the last row."""
    values = np.random.default_rng(seed).uniform(-3, 3, (num_rows, program.num_parameters))
    values[:, 2:] = values[0, 2:]
    values[-1, :2] = 0.0
    return program.columns(values)


def plan_of(circuit, observables, imaginary=False):
    """Return the fused program of a circuit for observables, and the observables in the engine's format."""
    operators = coerce_observables(observables).operators
    return fuse_program(lower(circuit), None if imaginary else operators.support(circuit.num_qubits)), operators


def assert_agree(actual, expected, dtype):
    """Assert that values and gradients of two evaluations agree within the tolerance of the dtype."""
    parts = [(actual.values, expected.values)]
    if expected.gradients is not None:
        parts.append((actual.gradients, expected.gradients))
    scale = max(1.0, *(np.abs(part).max(initial=0) for _, part in parts))
    for found, wanted in parts:
        np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE[dtype] * scale)


def assert_agrees_with_reference(engine, circuit, observables, dtype="complex128", imaginary=False, seed=0):
    """Assert that values and gradients of some rows and all observables agree with the reference engine."""
    assert_formats_agree_with_reference(engine, circuit, observables, [dtype], imaginary, seed)


def assert_formats_agree_with_reference(engine, circuit, observables, dtypes=TOLERANCE, imaginary=False, seed=0):
    """Assert the same in several number formats. The reference engine, the slower one, evaluates the rows once."""
    plan, operators = plan_of(circuit, observables, imaginary)
    columns = rows_of(plan.program, seed)
    question = plan, operators, columns, all_pairs(len(columns), len(operators))
    expected = ask(ReferenceEngine(), *question, gradient=True, imaginary=imaginary)
    for dtype in dtypes:
        assert_agree(ask(engine, *question, gradient=True, imaginary=imaginary, dtype=dtype), expected, dtype)


def random_circuit(num_qubits, num_gates, seed):
    """Return a circuit that reaches every branch of the phases: low, high and crossing pairs, 3- and 4-body terms."""
    rng = np.random.default_rng(seed)
    parameters = ParameterVector("p", 8)
    circuit = QuantumCircuit(num_qubits)
    for qubit in range(num_qubits):
        circuit.ry(0.3 + 0.2 * qubit, qubit)
    for _ in range(num_gates):
        q = [int(i) for i in rng.permutation(num_qubits)[:4]]
        plain, scaled = parameters[int(rng.integers(8))], 1.5 * parameters[int(rng.integers(8))] - 0.3
        angle = [plain, scaled, float(rng.uniform(-3, 3)), 0.0, np.pi][rng.integers(5)]
        one = [circuit.rx, circuit.ry, circuit.rz, circuit.p]
        two = [circuit.rzz, circuit.cp, circuit.crz, circuit.rxx]
        kind = int(rng.integers(12))
        if kind < 4:
            one[kind](angle, q[0])
        elif kind < 8:
            two[kind - 4](angle, q[0], q[1])
        elif kind == 8:
            circuit.cx(q[0], q[1])
        elif kind == 9 and num_qubits > 2:
            circuit.ccz(q[0], q[1], q[2])
        elif kind == 10 and num_qubits > 3:
            circuit.mcp(angle, q[:3], q[3])
        elif kind == 11 and num_qubits > 3:
            circuit.append(PauliEvolutionGate(SparsePauliOp("XYZX"), angle), q)
    return circuit


def run_kinds(num_qubits):
    """Return a circuit whose runs have gates of many kinds: rotations, rotation vectors and different constants."""
    rng = np.random.default_rng(num_qubits)
    parameters, circuit = iter(ParameterVector("p", 9 * num_qubits)), QuantumCircuit(num_qubits)
    for layer in range(3):
        for qubit in range(num_qubits):
            for kind in rng.integers(5, size=1 + (qubit + layer) % 3):
                if kind == 0:
                    circuit.append(RVGate(*(next(parameters, 0.4) for _ in range(3))), [qubit])
                elif kind == 1:
                    circuit.unitary(random_unitary(2, seed=rng), [qubit])
                else:
                    [circuit.rx, circuit.ry, circuit.rz][kind - 2](1.5 * next(parameters, 0.7) - 0.2, qubit)
        for qubit in range(num_qubits - 1):
            circuit.cz(qubit, qubit + 1)
    return circuit


CX_PAIRS = {
    "ladder": lambda n: [(i, i + 1) for i in range(n - 1)],
    "ladder from the end": lambda n: [(i, i + 1) for i in reversed(range(n - 1))],
    "ladder of higher controls": lambda n: [(i + 1, i) for i in range(n - 1)],
    "pairs": lambda n: [(i, i + 1) for i in [*range(0, n - 1, 2), *range(1, n - 1, 2)]],
    "ring": lambda n: [(i, (i + 1) % n) for i in range(n)],
    "all pairs": lambda n: [(i, j) for i in range(n) for j in range(i + 1, n)],
}


def cx_layers(num_qubits, pairs="ladder", num_layers=3, gates=("ry", "rz")):
    """Return layers of rotations and of CX gates on pairs of qubits, which become linear maps."""
    circuit = QuantumCircuit(num_qubits)
    angles = iter(ParameterVector("p", len(gates) * num_layers * num_qubits))
    for _ in range(num_layers):
        for gate in gates:
            for qubit in range(num_qubits):
                getattr(circuit, gate)(next(angles), qubit)
        for control, target in CX_PAIRS[pairs](num_qubits):
            circuit.cx(control, target)
    return circuit


def dense_circuit(num_qubits, num_targets, num_controls=0, seed=0, real=False):
    """Return a circuit with two dense gates, on qubits drawn from a seed, between rotations."""
    rng = np.random.default_rng(seed)
    circuit, angles = QuantumCircuit(num_qubits), ParameterVector("p", 3)
    for qubit in range(num_qubits):
        circuit.ry(angles[qubit % 3] + 0.3 * qubit, qubit)
    for _ in range(2):
        size = 2**num_targets
        matrix = ortho_group.rvs(size, random_state=rng) if real else random_unitary(size, seed=rng).data
        gate = UnitaryGate(matrix)
        if num_controls:
            gate = gate.control(num_controls, ctrl_state=int(rng.integers(2**num_controls)), annotated=True)
        circuit.append(gate, rng.permutation(num_qubits)[: num_targets + num_controls].tolist())
        circuit.cz(0, num_qubits - 1)
        for qubit in range(num_qubits):
            (circuit.ry if real else circuit.rx)(angles[qubit % 2], qubit)
    return circuit


def full_graph(num_qubits, layers=1):
    """Return a QAOA circuit with one angle per pair: the low table of its phases changes with every block."""
    pairs = [(i, j) for j in range(num_qubits) for i in range(j)]
    angles = ParameterVector("g", layers * (len(pairs) + num_qubits))
    circuit = QuantumCircuit(num_qubits)
    for qubit in range(num_qubits):
        circuit.ry(np.pi / 4, qubit)
    angle = iter(angles)
    for _ in range(layers):
        for i, j in pairs:
            circuit.rzz(next(angle), i, j)
        for qubit in range(num_qubits):
            circuit.rx(next(angle), qubit)
    return circuit


def string_masks(num_qubits):
    """Return sets of four qubits as masks, enough that a phase of their Z strings is made by a Walsh transform."""
    masks = [sum(1 << qubit for qubit in string) for string in combinations(range(num_qubits), 4)]
    return np.random.default_rng(0).permutation(masks)[: 13 * num_qubits].tolist()


def many_strings(num_qubits, layers=2):
    """Return a circuit whose phases are spin models of the strings of `string_masks`."""
    masks = string_masks(num_qubits)
    weights = np.random.default_rng(num_qubits).normal(size=len(masks)).tolist()
    bits = [[qubit for qubit in range(num_qubits) if mask >> qubit & 1] for mask in masks]
    energy = [("ZZZZ", string, weight) for string, weight in zip(bits, weights)]
    angles = ParameterVector("g", 3 * layers)
    circuit = QuantumCircuit(num_qubits)
    for qubit in range(num_qubits):
        circuit.ry(np.pi / 4, qubit)
    for layer in range(layers):
        cost = SparsePauliOp.from_sparse_list(energy, num_qubits)
        circuit.append(PauliEvolutionGate(cost, angles[3 * layer]), range(num_qubits))
        circuit.mcp(angles[3 * layer + 2], [0, 1], num_qubits - 1)  # not a string, but it joins low and high bits
        for qubit in range(num_qubits):
            circuit.rx(angles[3 * layer + 1], qubit)
    return circuit


def assert_long_sums_keep_their_digits(engine, num_qubits):
    """Assert that sums of numbers of one sign keep their digits. Sums in float32 would lose 3e-5 at 21 qubits."""
    n, parameters = num_qubits, ParameterVector("p", 2 * num_qubits)
    circuit = QuantumCircuit(n)
    for q in range(n):
        circuit.ry(parameters[q], q)
    for _ in range(2):
        for q in range(n):
            circuit.cz(q, (q + 1) % n)
    for q in range(n):
        circuit.rx(parameters[n + q], q)
    circuit.cz(0, 1)
    plan = fuse_program(lower(circuit), np.full(n, 2, np.uint8))
    operators = coerce_observables(SparsePauliOp("I" * (n // 2) + "X" + "I" * (n - n // 2 - 1))).operators
    columns = np.repeat([[1.47, 0.2]], n, axis=1)
    single, double = (
        ask(engine, plan, operators, columns, all_pairs(1, 1), gradient=True, dtype=dtype) for dtype in TOLERANCE
    )
    assert np.abs(single.values - double.values).max() < 4e-6
    assert np.abs(single.gradients - double.gradients).max() < 4e-6
