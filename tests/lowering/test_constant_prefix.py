# SPDX-License-Identifier: Apache-2.0
"""Constant gates at the start of a circuit become a start state if a dense matrix is among them."""

import pickle

import numpy as np
import pytest
from circuits import gates
from engine_cases import assert_agrees_with_reference, random_observables
from hypothesis import given, settings
from hypothesis import strategies as st
from normal_form_oracle import apply_ops, assert_lowered, circuit_state, place, same_up_to_phase
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.circuit import library as lib
from qiskit.quantum_info import Operator, SparsePauliOp, Statevector, random_statevector, random_unitary

from qiskit_fused import FusedEstimator, FusedEstimatorGradient, UnsupportedInstruction, compile_circuit, fuse
from qiskit_fused.engines.reference import apply_gate, gate_matrix
from qiskit_fused.lowering import constant_prefix
from qiskit_fused.lowering.constant_prefix import with_prefix
from qiskit_fused.lowering.lower import lower

A, B = Parameter("a"), Parameter("b")

# Qiskit's PauliEvolutionGate.to_matrix warns about its sparse format.
pytestmark = pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")


def dense(num_qubits, seed=0):
    return lib.UnitaryGate(random_unitary(2**num_qubits, seed=seed))


def hamiltonian(num_qubits):
    terms = [("ZZ", [i, i + 1], 1.0) for i in range(num_qubits - 1)] + [("X", [i], 0.7) for i in range(num_qubits)]
    return SparsePauliOp.from_sparse_list(terms, num_qubits)


@st.composite
def dense_circuits(draw, max_qubits=7, starts=True, parameters=(A, B)):
    """Draw a circuit that begins with constant gates, dense ones among them, and goes on with gates of all kinds."""
    num_qubits = draw(st.integers(3, max_qubits))
    places = st.permutations(range(num_qubits))
    circuit = QuantumCircuit(num_qubits)
    if starts and draw(st.booleans()):
        vector = random_statevector(4, seed=draw(st.integers(0, 9)))
        prepare = draw(st.sampled_from([lib.StatePreparation, lib.Initialize]))
        circuit.append(prepare(vector), draw(places)[:2])
    for known in ([],) * draw(st.integers(2, 9)) + (list(parameters),) * draw(st.integers(0, 5)):
        kind = draw(st.sampled_from(["dense", "controlled", "evolution", "nested", "diagonal", "swap", "gate", "gate"]))
        seed, wires = draw(st.integers(0, 99)), draw(places)
        if kind == "dense":
            size = draw(st.integers(2, min(num_qubits, 5)))
            circuit.append(dense(size, seed), wires[:size])
        elif kind == "controlled" and num_qubits > 3:
            circuit.append(dense(3, seed).control(1, ctrl_state=seed % 2, annotated=draw(st.booleans())), wires[:4])
        elif kind == "evolution":
            turn = draw(st.sampled_from(known)) if known else 0.3 + seed
            circuit.append(lib.PauliEvolutionGate(hamiltonian(3), turn), wires[:3])
        elif kind == "nested":
            inner = QuantumCircuit(3, global_phase=0.4)
            inner.append(dense(2, seed), [2, 0])
            inner.iswap(0, 1)
            inner.append(dense(3, seed), [0, 1, 2])
            inner.swap(2, 1)
            gate = inner.to_gate()
            control = num_qubits > 3 and draw(st.booleans())
            circuit.append(gate.control(1) if control else gate, wires[: 3 + control])
        elif kind == "diagonal":
            circuit.append(lib.DiagonalGate(np.exp(1j * np.arange(8) * seed).tolist()), wires[:3])
        elif kind == "swap":
            circuit.append(draw(st.sampled_from([lib.SwapGate(), lib.iSwapGate(), lib.DCXGate()])), wires[:2])
        else:
            gate = draw(gates(num_qubits, known))
            circuit.append(gate, wires[: gate.num_qubits])
    return circuit


# The program.


@given(dense_circuits())
@settings(max_examples=80, deadline=None)
def test_gates_and_ops_prepare_the_state_of_the_circuit(circuit):
    assert_lowered(circuit)


@given(dense_circuits(starts=False), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_the_gates_come_back_where_rows_bring_start_states(circuit, seed):
    program = with_prefix(lower(circuit)).from_any_state()
    values = np.random.default_rng(seed).normal(size=circuit.num_parameters)
    start = random_statevector(2**circuit.num_qubits, seed=seed)
    expected = start.evolve(circuit.assign_parameters(values)).data
    columns = program.columns(values[None])[0]
    wires = np.argsort(program.wires)  # idle qubits come last
    placed = np.empty(len(start.data), complex)
    placed[place(np.arange(len(placed)), program.wires).real.astype(int)] = start.data
    np.testing.assert_array_equal(place(placed, program.wires), start.data)
    assert sorted(wires) == list(range(circuit.num_qubits))
    phase, row = program.phase, columns[None]
    of_circuit = phase.of_circuit.factors(row) * np.exp(1j * phase.expressions.evaluate(values[None]).sum())
    of_ops = place(apply_ops(program.ops, columns, placed), program.output_wires) * phase.left_out.factors(row)
    np.testing.assert_allclose(of_circuit * of_ops, expected, rtol=0, atol=1e-10)
    for gate in program.gates:
        angles = [one.offset + (one.coefficient * columns[one.column] if one.column >= 0 else 0) for one in gate.angles]
        placed = apply_gate(placed, gate_matrix(gate, angles), gate)
    np.testing.assert_allclose(of_circuit * place(placed, program.wires), expected, rtol=0, atol=1e-10)


def test_constant_gates_around_a_dense_matrix_leave_no_ops():
    circuit = QuantumCircuit(7)
    circuit.h(range(7))
    circuit.cx(0, 1)
    circuit.append(dense(5), range(5))
    circuit.rzz(0.3, 4, 5)
    circuit.append(dense(5, seed=1), [6, 5, 0, 3, 2])
    program = assert_lowered(circuit)
    assert len(program.ops) == len(program.gates) == 0
    assert [piece.qubits for piece in program.pieces] == [tuple(range(7))]
    assert program.count_gates() == {"h": 7, "cx": 1, "rzz": 1, "unitary": 2}
    assert fuse(circuit).num_layers == 0


def test_groups_without_a_dense_matrix_stay_gates():
    circuit, without = QuantumCircuit(8), QuantumCircuit(8)
    for each in (circuit, without):
        each.h(range(8))
        each.cx(5, 6)
        each.swap(6, 7)
        each.append(dense(2), [6, 5])
    circuit.append(dense(5), range(5))
    program, other = assert_lowered(circuit), lower(without)
    stays = np.isin(other.ops.qubit, [5, 6, 7]) | (other.ops.qubit < 0)
    np.testing.assert_array_equal(program.ops.quaternion, other.ops.quaternion[stays])
    assert [gate.name for gate in program.gates] == ["h", "h", "h", "x", "swap", "unitary"]
    assert [piece.qubits for piece in program.pieces] == [tuple(range(5))]


def test_disjoint_groups_are_start_states_of_their_own():
    circuit = QuantumCircuit(12)
    for number, first in enumerate((0, 4, 8)):
        circuit.append(dense(4, seed=number), range(first, first + 4))
    circuit.ry(A, 3)
    circuit.cx(3, 8)
    program = lower(circuit)
    assert [piece.qubits for piece in program.pieces] == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)]
    assert same_up_to_phase(circuit_state(program, [0.7]), Statevector(circuit.assign_parameters([0.7])).data)


def test_a_dense_matrix_behind_a_parameter_is_a_dense_gate():
    circuit = QuantumCircuit(5)
    circuit.ry(A, 0)
    circuit.cx(0, 3)
    circuit.append(dense(3), [3, 1, 2])
    program = assert_lowered(circuit)
    assert not program.pieces and not program.prefix and len(program.ops.matrices) == 1


def test_many_constant_gates_before_a_small_matrix_stay_gates():
    circuit = QuantumCircuit(10)
    for _ in range(20):
        circuit.h(range(10))
        circuit.cx(range(9), range(1, 10))
    circuit.append(dense(3), range(3))
    assert not lower(circuit).pieces


def test_large_groups_and_large_circuits_stay_gates(monkeypatch):
    wide = QuantumCircuit(constant_prefix.MAX_CIRCUIT_QUBITS + 1)
    wide.h(range(wide.num_qubits))
    wide.append(dense(3), range(3))
    assert not lower(wide).pieces
    monkeypatch.setattr(constant_prefix, "MAX_GROUP_QUBITS", 4)
    circuit = QuantumCircuit(5)
    circuit.cx(3, 4)
    circuit.append(dense(4), range(4))
    assert not assert_lowered(circuit).pieces


def test_ordinary_circuits_have_no_prefix():
    circuit = QuantumCircuit(4)
    circuit.h(range(4))
    circuit.append(dense(2), [0, 1])
    circuit.append(lib.PauliEvolutionGate(SparsePauliOp(["XXXX", "ZZZZ"]), 0.3), range(4))
    circuit.append(lib.DiagonalGate([1, 1j, -1, 1]), [0, 1])
    program = lower(circuit)
    assert not program.pieces and not program.prefix and program.needs_zero is None


# Errors that stay.


def test_measured_qubits_and_matrices_that_are_not_unitary_are_refused():
    circuit = QuantumCircuit(3, 1)
    circuit.measure(1, 0)
    circuit.append(dense(3), range(3))
    with pytest.raises(UnsupportedInstruction, match="is a mid-circuit measurement"):
        lower(circuit)
    circuit = QuantumCircuit(3)
    circuit.append(lib.UnitaryGate(2 * np.eye(8)[::-1], check_input=False), range(3))
    with pytest.raises(UnsupportedInstruction, match="not unitary"):
        lower(circuit)
    circuit = QuantumCircuit(3)
    circuit.append(dense(3), range(3))
    circuit.reset(0)
    with pytest.raises(UnsupportedInstruction, match="resets a qubit that is in use"):
        lower(circuit)


def test_matrices_above_the_limit_run_at_the_start_alone():
    circuit = QuantumCircuit(10)
    circuit.h(9)
    circuit.append(dense(9), range(9))
    circuit.ry(A, 0)
    circuit.cx(0, 9)
    assert_lowered(circuit)
    states = np.eye(1024)[:1]
    with pytest.raises(UnsupportedInstruction, match=r"needs its qubits in \|0>, where initial_states do not"):
        FusedEstimatorGradient().value_and_gradient(circuit, "Z" * 10, [[0.3]], initial_states=states)
    circuit.append(dense(9), range(9))
    with pytest.raises(UnsupportedInstruction, match="dense matrix on 9 qubits, the limit is 8"):
        lower(circuit)


# Results of the engines.


def layers(num_qubits):
    circuit = QuantumCircuit(num_qubits)
    circuit.h(range(num_qubits))
    circuit.append(dense(3), [2, 0, 1])
    circuit.swap(0, 2)
    circuit.append(dense(3, seed=1), [num_qubits - 1, 0, 2])
    circuit.rx(A, 0)
    circuit.cx(0, 1)
    circuit.rzz(A * B, 1, 3)
    circuit.append(dense(3, seed=2), [0, 1, 3])
    circuit.ry(B, 3)
    return circuit


@pytest.mark.parametrize("dtype", ["complex128", "complex64"])
def test_engines_agree_on_values_and_gradients(make_engine, dtype):
    for num_qubits in (4, 6):
        circuit = layers(num_qubits)
        assert lower(circuit).pieces
        for imaginary in (False, True):
            observables = random_observables(num_qubits, 0)
            assert_agrees_with_reference(make_engine(), circuit, observables, dtype, imaginary)


@given(dense_circuits(max_qubits=5, parameters=(A,)), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_values_and_gradients_are_those_of_qiskit(circuit, seed):
    observable = random_observables(circuit.num_qubits, seed)[0]
    point = np.random.default_rng(seed).normal(size=circuit.num_parameters)

    def value(at):
        state = Statevector(circuit.assign_parameters(at))
        return state.expectation_value(observable).real

    def slope(along):
        """Return a derivative of fourth order, because a parameter of many gates has large third derivatives."""
        near, far = (value(point + step * along) - value(point - step * along) for step in (1e-4, 2e-4))
        return (8 * near - far) / 12e-4

    differences = [slope(along) for along in np.eye(len(point))]
    for device in ("cpu", "reference"):
        estimated = FusedEstimator(device=device).run([(circuit, observable, point)]).result()[0].data.evs
        np.testing.assert_allclose(estimated, value(point), atol=1e-10)
        if len(point):
            found = FusedEstimatorGradient(device=device).run([circuit], [observable], [point]).result().gradients[0]
            np.testing.assert_allclose(found, differences, atol=1e-7)


def test_given_start_states_meet_the_gates_and_not_the_state_they_make():
    circuit, point = layers(5), np.array([0.4, -1.1])
    observable = random_observables(5, 3)[0]
    states = np.array([random_statevector(32, seed=seed).data for seed in range(3)])
    bound = Operator(circuit.assign_parameters(point))
    expected = [Statevector(state).evolve(bound).expectation_value(observable).real for state in states]
    for device in ("cpu", "reference"):
        gradient = FusedEstimatorGradient(device=device)
        given_states = gradient.value_and_gradient(circuit, observable, [point] * 3, initial_states=states)
        np.testing.assert_allclose(np.ravel(given_states[0]), expected, atol=1e-12)
        zero = gradient.value_and_gradient(circuit, observable, [point], initial_states=np.eye(32)[:1])
        plain = gradient.value_and_gradient(circuit, observable, [point])
        for left, right in zip(zero[:2], plain[:2]):
            np.testing.assert_allclose(left, right, atol=1e-12)


def test_compiled_copied_and_pickled_circuits_give_the_same_bits():
    circuit, observable = layers(5), SparsePauliOp("ZXIYZ")
    wanted = FusedEstimator().run([(circuit, observable, [0.3, 0.8])]).result()[0].data.evs
    compiled = compile_circuit(circuit)
    states = np.eye(32)[3:4]
    expected = FusedEstimatorGradient().value_and_gradient(circuit, observable, [[0.3, 0.8]], initial_states=states)
    for other in (circuit.copy(), compiled, pickle.loads(pickle.dumps(compiled))):
        assert FusedEstimator().run([(other, observable, [0.3, 0.8])]).result()[0].data.evs == wanted
        found = FusedEstimatorGradient().value_and_gradient(other, observable, [[0.3, 0.8]], initial_states=states)
        np.testing.assert_array_equal(found[1], expected[1])
    assert "13 gates" in repr(compiled)


def test_plans_of_a_start_state_print_and_draw():
    plan = fuse(layers(5), "ZZIIZ")
    assert "q0" in str(plan.draw("text")) and "layers" in repr(plan)
    circuit = QuantumCircuit(5)
    circuit.append(dense(5), range(5))
    assert "q0" in str(fuse(circuit).draw("text"))


def test_a_dense_matrix_after_constant_gates_is_no_dense_gate():
    circuit = QuantumCircuit(7)
    circuit.h(range(7))
    circuit.append(dense(7), range(7))
    assert not lower(circuit).ops.matrices
    wanted = Statevector(circuit).expectation_value(SparsePauliOp("ZXIIZZY")).real
    found = FusedEstimator().run([(circuit, "ZXIIZZY")]).result()[0].data.evs
    np.testing.assert_allclose(found, wanted, atol=1e-12)
