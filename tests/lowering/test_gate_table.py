# SPDX-License-Identifier: Apache-2.0
"""The facts of the gate table, proved against Qiskit and against each other for every gate."""

import numpy as np
import pytest
from circuits import NUM_ANGLES
from normal_form_oracle import apply_ops, same_up_to_phase
from qiskit.circuit import ControlledGate
from qiskit.circuit.library import RVGate
from qiskit.circuit.library.standard_gates import get_standard_gate_name_mapping

from qiskit_fused.lowering.emitter import NormalForm, split_unitary
from qiskit_fused.lowering.gate_table import GATES, gate_matrix
from qiskit_fused.program.program import Angle, Gate, OpKind

STANDARD = get_standard_gate_name_mapping()
EVERY_GATE = pytest.mark.parametrize("rule", GATES.values(), ids=GATES)
PARAMETRISED = pytest.mark.parametrize(
    "rule", [rule for rule in GATES.values() if rule.num_angles], ids=lambda r: r.name
)


def angle_sets(rule):
    """Yield generic angles, and angles at which a sine or a cosine is 0."""
    rng = np.random.default_rng(7)
    yield rng.normal(size=rule.num_angles)
    if rule.num_angles:
        yield np.zeros(rule.num_angles)
        yield np.full(rule.num_angles, np.pi)
        yield rng.choice([0.0, np.pi / 2, -np.pi, 2 * np.pi], size=rule.num_angles)


def controlled(matrix, num_controls, ctrl_state):
    """Return a matrix under controls, which are the most significant qubits."""
    size = len(matrix)
    full = np.eye(size << num_controls, dtype=complex)
    block = slice(ctrl_state * size, (ctrl_state + 1) * size)
    full[block, block] = matrix
    return full


def lowered(rule, values, num_controls=0, ctrl_state=0, constants=False):
    """Return the matrix of the lowered gate, with its controls above its qubits, and the ops."""
    num_qubits = rule.num_qubits + num_controls
    form = NormalForm(num_qubits)
    view = form.controlled(range(rule.num_qubits, num_qubits), ctrl_state) if num_controls else form
    angles = [Angle(-1, 0.0, value) if constants else Angle(index, 1.0, 0.0) for index, value in enumerate(values)]
    rule.lower(view, tuple(range(rule.num_qubits)), angles)
    ops = form.finish()
    matrix = apply_ops(ops, np.asarray(values), np.eye(2**num_qubits))
    indices = np.arange(2**num_qubits)
    wires = sum((indices >> qubit & 1) << wire for qubit, wire in enumerate(form.wire_of))
    return matrix[wires], ops


def test_every_standard_gate_of_qiskit_is_in_the_table_or_a_controlled_one():
    missing = {
        name
        for name, gate in STANDARD.items()
        if name not in GATES and not (isinstance(gate, ControlledGate) and gate.base_gate.name in GATES)
    }
    assert missing == {"delay", "reset", "measure"}


@EVERY_GATE
def test_matrix_is_qiskits_global_phase_included(rule):
    gate_class = RVGate if rule.name == "rv" else STANDARD[rule.name].base_class
    assert rule.num_angles == NUM_ANGLES[rule.name]
    for values in angle_sets(rule):
        gate = gate_class(*values)
        assert rule.num_qubits == gate.num_qubits
        np.testing.assert_allclose(rule.matrix(*values), gate.to_matrix(), atol=1e-14)


@PARAMETRISED
def test_generators_are_the_derivative_of_the_matrix(rule):
    for values in angle_sets(rule):
        unitary = rule.matrix(*values)
        for index, generator in enumerate(rule.exact_generators(*values)):
            step = np.zeros(rule.num_angles)
            step[index] = 1e-5
            difference = (rule.matrix(*(values + step)) - rule.matrix(*(values - step))) / 2e-5
            np.testing.assert_allclose(-0.5j * generator @ unitary, difference, atol=1e-9)


@PARAMETRISED
def test_generators_are_hermitian_and_traceless(rule):
    for values in angle_sets(rule):
        generators = rule.generators(*values)
        assert len(generators) == rule.num_angles
        for generator in generators:
            np.testing.assert_allclose(generator, generator.conj().T, atol=1e-14)
            assert abs(np.trace(generator)) < 1e-14


@EVERY_GATE
@pytest.mark.parametrize("constants", [False, True], ids=["columns", "constants"])
def test_normal_form_multiplies_out_to_the_matrix(rule, constants):
    for values in angle_sets(rule):
        found, _ = lowered(rule, values, constants=constants)
        assert same_up_to_phase(found, rule.matrix(*values))


@EVERY_GATE
@pytest.mark.parametrize("num_controls", [1, 2, 3])
def test_normal_form_is_right_under_every_control_state(rule, num_controls):
    constants = rule.name == "rv"
    for values in list(angle_sets(rule))[:2]:
        for ctrl_state in range(2**num_controls):
            found, _ = lowered(rule, values, num_controls, ctrl_state, constants)
            assert same_up_to_phase(found, controlled(rule.matrix(*values), num_controls, ctrl_state))


def test_a_controlled_rotation_vector_with_parameters_names_the_cure():
    with pytest.raises(NotImplementedError, match="use cu or crx, cry, crz"):
        lowered(GATES["rv"], [0.1, 0.2, 0.3], 1, 1)


@pytest.mark.parametrize("name", ["p", "rz", "x", "y", "z", "h", "s", "t", "sx", "rx", "ry", "rzz", "rxx", "rzx"])
@pytest.mark.parametrize("num_controls", [1, 3])
def test_controls_cost_one_term(name, num_controls):
    _, ops = lowered(GATES[name], [0.3] * GATES[name].num_angles, num_controls, 2**num_controls - 2)
    assert np.sum(ops.kind == OpKind.TERM) == 1


@pytest.mark.parametrize("name", ["z", "s", "sdg", "t", "tdg", "p", "u1", "rz"])
def test_diagonal_leaves_are_rz(name):
    _, ops = lowered(GATES[name], [0.3] * GATES[name].num_angles)
    assert ops.kind.tolist() == [OpKind.RZ]


@pytest.mark.parametrize("name", ["id", "swap", "global_phase"])
def test_identity_swap_and_global_phase_cost_nothing(name):
    _, ops = lowered(GATES[name], [0.3] * GATES[name].num_angles)
    assert len(ops) == 0


@pytest.mark.parametrize(("name", "terms"), [("iswap", 1), ("dcx", 1), ("ecr", 1), ("rccx", 2), ("xx_plus_yy", 2)])
def test_two_qubit_gates_cost_the_fewest_terms_known(name, terms):
    _, ops = lowered(GATES[name], [0.3] * GATES[name].num_angles)
    assert np.sum(ops.kind == OpKind.TERM) == terms


@pytest.mark.parametrize("seed", range(5))
def test_split_unitary_gives_quaternion_and_phase(seed):
    rng = np.random.default_rng(seed)
    matrix = np.linalg.qr(rng.normal(size=(2, 2)) + 1j * rng.normal(size=(2, 2)))[0]
    (a, b, c, d), phase = split_unitary(matrix)
    rebuilt = np.array([[a - 1j * d, -c - 1j * b], [c - 1j * b, a + 1j * d]]) * np.exp(1j * phase)
    np.testing.assert_allclose(rebuilt, matrix, atol=1e-14)


@pytest.mark.parametrize("num_qubits", range(5))
def test_diagonals_are_exact_as_patterns_and_as_walsh_terms(num_qubits):
    rng = np.random.default_rng(num_qubits)
    sparse = np.where(np.arange(2**num_qubits) == 2**num_qubits - 1, np.pi, 0.4)
    for phases in (rng.uniform(-np.pi, np.pi, 2**num_qubits), sparse):
        for num_controls in (0, 1):
            form = NormalForm(num_qubits + num_controls)
            form.controlled(range(num_qubits, num_qubits + num_controls), 1).diagonal(range(num_qubits), phases)
            found = apply_ops(form.finish(), np.empty(0), np.eye(2 ** (num_qubits + num_controls)))
            assert same_up_to_phase(found, controlled(np.diag(np.exp(1j * phases)), num_controls, num_controls))


def test_a_diagonal_with_one_sign_is_one_term():
    form = NormalForm(4)
    form.diagonal(range(4), np.pi * (np.arange(16) == 11))
    assert len(form.finish()) == 1


def test_an_evolution_gate_is_the_exponential_of_its_matrix():
    hamiltonian = np.array([[1, 2], [2, -1]], dtype=complex)
    unitary = gate_matrix(Gate("evolution", (0,), (Angle(0, 1.0, 0.0),), matrix=hamiltonian), [0.3])
    norm = np.sqrt(5)
    expected = np.cos(0.3 * norm) * np.eye(2) - 1j * np.sin(0.3 * norm) / norm * hamiltonian
    np.testing.assert_allclose(unitary, expected, atol=1e-14)
