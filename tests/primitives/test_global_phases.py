# SPDX-License-Identifier: Apache-2.0
"""Final states have exact global phases for angles of any size, and for any number of gates.

A sum of many large angles is rounded like its largest partial sum, which is wrong by more than a turn at 1e22.
"""

import numpy as np
import pytest
from asking import Ends, ask
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import (
    MCPhaseGate,
    PauliEvolutionGate,
    RYGate,
    UGate,
    get_standard_gate_name_mapping,
)
from qiskit.quantum_info import SparsePauliOp

from qiskit_fused import FusedEstimatorGradient, statevectors, statevectors_and_vjp
from qiskit_fused.compilation.observables import coerce_observables
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.lowering.lower import lower

# SciPy warns about the sparse format in which Qiskit exponentiates a PauliEvolutionGate.
pytestmark = pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")

A, B = Parameter("a"), Parameter("b")
SIZES = [1e5, 1e9, 1e22]
NUM_ROWS = {"row": 1, "packs": 20}  # the CPU engine takes a row of this size by itself, and many rows in packs
PER_GATE = {"complex128": 1e-15, "complex64": 1e-7}


def every_gate_with_angles(angles):
    """Return a circuit of every gate of Qiskit that has angles, which ``angles()`` gives one by one."""
    gates = [gate for gate in get_standard_gate_name_mapping().values() if gate.params and gate.name != "delay"]
    gates += [MCPhaseGate(A, 3), PauliEvolutionGate(SparsePauliOp(["II", "ZZ", "XY"], [0.5, 1.0, 2.0]), A)]
    gates += [UGate(A, A, A).control(2), RYGate(A).control(2)]
    circuit, rng = QuantumCircuit(4, global_phase=angles()), np.random.default_rng(0)
    for gate in gates:
        for qubit in range(4):
            circuit.ry(0.5 + qubit, qubit)
        gate = gate.to_mutable()
        gate.params = [angles() for _ in gate.params]
        circuit.append(gate, rng.permutation(4)[: gate.num_qubits].tolist())
    return circuit


def circuit_with_angles_of_its_own():
    numbers = iter(range(1000))
    return every_gate_with_angles(lambda: Parameter(f"x{next(numbers):03}"))


def circuit_with_shared_angles():
    numbers = iter(range(1000))
    return every_gate_with_angles(lambda: (A, B)[next(numbers) % 2])


CIRCUITS = {"own": circuit_with_angles_of_its_own, "shared": circuit_with_shared_angles}


def large_rows(circuit, size, num_rows):
    return np.random.default_rng(3).uniform(-size, size, (num_rows, circuit.num_parameters))


def small_angles(rows):
    """Return angles of the same gates, whose period is two turns: half an angle is exact, and so are its sines."""
    return 2 * np.arctan2(np.sin(rows / 2), np.cos(rows / 2))


def states_of_engine(engine, circuit, rows, dtype):
    program = lower(circuit)
    plan, operators, columns = fuse_program(program, None), coerce_observables("Z" * 4).operators, program.columns(rows)
    no_pairs = np.zeros(0, np.int32), np.zeros(0, np.int32)
    states = ask(engine, plan, operators, columns, no_pairs, dtype=dtype, ends=Ends(final=True)).final_states
    return plan.phase_of_circuit.factors(columns)[:, None] * states


@pytest.mark.parametrize("num_rows", NUM_ROWS.values(), ids=NUM_ROWS)
@pytest.mark.parametrize("size", [*SIZES, 1e29])
@pytest.mark.parametrize("kind", CIRCUITS)
def test_engines_give_the_same_states_for_large_angles_as_for_small_angles(make_engine, kind, size, num_rows, dtype):
    circuit, engine = CIRCUITS[kind](), make_engine(1)
    rows = large_rows(circuit, size, num_rows)
    found, expected = (states_of_engine(engine, circuit, angles, dtype) for angles in (rows, small_angles(rows)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=len(circuit) * PER_GATE[dtype])


@pytest.mark.parametrize("num_rows", NUM_ROWS.values(), ids=NUM_ROWS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", CIRCUITS)
def test_states_and_gradients_are_the_same_for_large_angles_as_for_small_angles(device, kind, size, num_rows, dtype):
    circuit = CIRCUITS[kind]()
    rows = large_rows(circuit, size, num_rows)
    cotangents = np.random.default_rng(4).normal(size=(num_rows, 1 << circuit.num_qubits, 2)) @ [1, 1j]
    (states, gradients), (expected, expected_gradients) = (
        statevectors_and_vjp(circuit, angles, cotangents, device=device, dtype=dtype)
        for angles in (rows, small_angles(rows))
    )
    atol = len(circuit) * PER_GATE[dtype]
    np.testing.assert_allclose(states, expected, rtol=0, atol=atol)
    np.testing.assert_allclose(gradients, expected_gradients, rtol=0, atol=atol * np.abs(expected_gradients).max())


@pytest.mark.parametrize("num_rows", NUM_ROWS.values(), ids=NUM_ROWS)
@pytest.mark.parametrize("size", SIZES)
def test_amplitudes_are_products_of_the_phases_of_many_gates(device, size, num_rows, dtype):
    x = ParameterVector("x", 40)
    circuit = QuantumCircuit(2, global_phase=x[39])
    circuit.h([0, 1])
    for k in range(39):
        circuit.p(x[k], k % 2)
    rows = large_rows(circuit, size, num_rows)
    units = np.cos(rows) + 1j * np.sin(rows)
    first, second, common = units[:, 0:39:2].prod(axis=1), units[:, 1:39:2].prod(axis=1), units[:, 39]
    expected = 0.5 * np.stack([common, common * first, common * second, common * first * second], axis=1)
    found = statevectors(circuit, rows, device=device, dtype=dtype)
    np.testing.assert_allclose(found, expected, rtol=0, atol=40 * PER_GATE[dtype])


def integers(size):
    """Return two numbers of a size whose sum and multiples by 2 and 3 are exact."""
    unit = 2.0 ** max(0, np.frexp(size)[1] - 40)
    return np.array([round(size / unit) * unit, -7 * round(size / 11 / unit) * unit])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "angle",
    [lambda a, b: 2 * a, lambda a, b: 3 * a + b, lambda a, b: a + b, lambda a, b: a / 3, lambda a, b: b - 2 * a],
    ids=["2a", "3a+b", "a+b", "a/3", "b-2a"],
)
def test_a_phase_has_the_rounding_error_of_the_angle_of_its_gate(device, angle, size):
    circuit = QuantumCircuit(2)
    circuit.h([0, 1])
    for _ in range(5):
        circuit.p(angle(A, B), 0)
        circuit.cp(angle(A, B), 0, 1)
        circuit.u(0.0, angle(A, B), angle(A, B), 1)
    row = integers(size)
    exact = 1 / 3 * row[0] if angle(3.0, 0.0) == 1.0 else angle(*row)
    unit = np.cos(exact) + 1j * np.sin(exact)
    (found,) = statevectors(circuit, [row[: circuit.num_parameters]], device=device)
    np.testing.assert_allclose(found, [0.5, 0.5 * unit**5, 0.5 * unit**10, 0.5 * unit**20], rtol=0, atol=3e-14)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_global_phase_that_is_an_expression_is_exact_for_large_values(device, size, sign):
    a, b = sign * integers(size)
    for phase, parts in [
        (A, [a]),
        (2 * A + B, [2 * a, b]),
        (A.abs() + B, [abs(a) + b]),
        (3 * A - 0.25, [3 * a, -0.25]),
    ]:
        circuit = QuantumCircuit(1, global_phase=phase)
        circuit.p(B, 0)
        circuit.rz(A, 0)
        parts = [*parts, -a / 2]
        expected = np.prod(np.cos(parts) + 1j * np.sin(parts))
        (found,) = statevectors(circuit, [[a, b]], device=device)
        np.testing.assert_allclose(found, [expected, 0], rtol=0, atol=1e-15 * 4)


@pytest.mark.parametrize("num_rows", NUM_ROWS.values(), ids=NUM_ROWS)
def test_constants_of_any_size_are_exact(device, num_rows):
    angles = np.outer([1e5, 1e9, -1e22], np.random.default_rng(0).uniform(-1, 1, 20)).ravel().tolist()
    circuit = QuantumCircuit(2)
    circuit.ry(A, 0)
    circuit.h(1)
    for angle in angles:
        circuit.rz(angle, 0)
        circuit.rzz(angle, 0, 1)
        circuit.cp(angle, 0, 1)
        circuit.global_phase += 0.25 * angle
    expected = circuit.copy_empty_like()
    expected.global_phase = 0
    expected.ry(A, 0)
    expected.h(1)
    for angle in small_angles(np.array(angles)).tolist():
        expected.rz(angle, 0)
        expected.rzz(angle, 0, 1)
        expected.cp(angle, 0, 1)
    rows = np.random.default_rng(1).uniform(-1, 1, (num_rows, 1))
    found, wanted = (statevectors(one, rows, device=device) for one in (circuit, expected))
    wanted *= np.exp(1j * circuit.global_phase)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=len(angles) * 3e-15)


@pytest.mark.parametrize("size", SIZES)
def test_neighbouring_constants_of_any_size_are_exact(device, size):
    def circuit_of(angles):
        circuit = QuantumCircuit(2)
        circuit.ry(A, 0)
        circuit.h(1)
        for gate, angle in zip(("rz", "p", "rz", "p", "rx", "ry"), angles):
            getattr(circuit, gate)(angle, 0)
        circuit.u(angles[6], angles[7], angles[8], 1)
        circuit.cp(0.3, 0, 1)
        circuit.u(A, angles[9], angles[10], 0)
        return circuit

    angles = size * np.random.default_rng(0).uniform(-1, 1, 11)
    angles[1] = 0.3
    for rows in ([[0.4]], np.linspace(-1, 1, 20)[:, None]):
        found, wanted = (
            statevectors(circuit_of(numbers.tolist()), rows, device=device)
            for numbers in (angles, small_angles(angles))
        )
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-14)
    observable = SparsePauliOp(["XY", "ZZ", "IX"], [0.5, 1.0, -0.3])
    gradient = FusedEstimatorGradient(device=device)
    found, wanted = (
        gradient.value_and_gradient(circuit_of(numbers.tolist()), observable, [0.4])
        for numbers in (angles, small_angles(angles))
    )
    for left, right in zip(found, wanted):
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-14)


@pytest.mark.parametrize("num_rows", NUM_ROWS.values(), ids=NUM_ROWS)
def test_the_phases_of_a_thousand_cx_add_up_to_no_phase(device, num_rows):
    circuit = QuantumCircuit(2)
    circuit.ry(A, 0)
    circuit.ry(B, 1)
    psi = np.kron([np.cos(0.35), np.sin(0.35)], [np.cos(0.15), np.sin(0.15)]).reshape(2, 2)
    turn = np.array([[np.cos(0.125), -np.sin(0.125)], [np.sin(0.125), np.cos(0.125)]])
    for _ in range(1000):
        circuit.cx(0, 1)
        circuit.ry(0.25, 1)
        psi[:, 1] = psi[::-1, 1].copy()
        psi = turn @ psi
    found = statevectors(circuit, np.tile([0.3, 0.7], (num_rows, 1)), device=device)
    phases = np.angle(found @ psi.ravel())
    np.testing.assert_allclose(phases, 0, rtol=0, atol=2e-13)
