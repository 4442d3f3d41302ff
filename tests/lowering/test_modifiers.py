# SPDX-License-Identifier: Apache-2.0
"""An annotated operation under controls, inverses and powers in any order acts as its matrix."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from normal_form_oracle import circuit_state, same_up_to_phase
from qiskit.circuit import AnnotatedOperation, Gate, Parameter, QuantumCircuit
from qiskit.circuit import library as lib
from qiskit.circuit.annotated_operation import ControlModifier, InverseModifier, Modifier, PowerModifier
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import (
    Operator,
    SparsePauliOp,
    Statevector,
    random_clifford,
    random_statevector,
    random_unitary,
)

from qiskit_fused import FusedEstimator, FusedEstimatorGradient, UnsupportedInstruction, statevectors
from qiskit_fused.lowering.lower import lower

A, B = Parameter("a"), Parameter("b")


class MatrixOnly(Gate):
    """A gate without a definition, whose inverse Qiskit cannot compute."""

    def __init__(self):
        super().__init__("matrix_only", 1, [])

    def __array__(self, dtype=None, copy=None):
        return random_unitary(2, seed=8).data


def composed():
    circuit = QuantumCircuit(2, name="composed", global_phase=0.4)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.rz(0.3, 1)
    return circuit.to_gate()


BASES = {
    "z": lib.ZGate(),
    "sx": lib.SXGate(),
    "u": lib.UGate(0.4, -1.3, 2.2),
    "long rotation": lib.RXGate(7.0),
    "long phase": lib.PhaseGate(4.0),
    "unitary": lib.UnitaryGate(random_unitary(4, seed=3)),
    "iswap": lib.iSwapGate(),
    "controlled": lib.CRYGate(5.0, ctrl_state=0),
    "controlled twice": lib.CUGate(0.3, 0.4, 0.5, 0.6).control(1),
    "diagonal": lib.DiagonalGate([1j, 1, -1, 1]),
    "composed": composed(),
    "matrix only": MatrixOnly(),
    "clifford": random_clifford(2, seed=4),
    "annotated": AnnotatedOperation(lib.YGate(), [ControlModifier(1, 0), PowerModifier(0.5)]),
}
MODIFIERS = [
    InverseModifier(),
    PowerModifier(2),
    PowerModifier(-3),
    PowerModifier(0),
    PowerModifier(0.5),
    PowerModifier(-1.3),
    PowerModifier(2.0),
    ControlModifier(1, 0),
    ControlModifier(2, 1),
]
SEQUENCES = [sequence for length in (1, 2, 3) for sequence in product(MODIFIERS, repeat=length)]


def assert_acts_as_its_matrix(operation, num_controls=0, state=0):
    """Compare an operation on scrambled qubits, under further controls, with `to_matrix`."""
    matrix = Operator(operation).data
    num_qubits = operation.num_qubits + num_controls
    wanted = np.eye(2**num_qubits, dtype=complex)
    chosen = state + 2**num_controls * np.arange(len(matrix))
    wanted[np.ix_(chosen, chosen)] = matrix
    if num_controls:
        operation = AnnotatedOperation(operation, ControlModifier(num_controls, state))
    start = random_statevector(2**num_qubits, seed=1)
    circuit = QuantumCircuit(num_qubits)
    circuit.initialize(start.data, range(num_qubits))
    circuit.append(operation, range(num_qubits))
    assert same_up_to_phase(circuit_state(lower(circuit), []), wanted @ start.data, atol=1e-9)


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_modifiers_act_in_their_order(base):
    rng = np.random.default_rng(0)
    for sequence in [*SEQUENCES[:9], *(SEQUENCES[k] for k in rng.choice(len(SEQUENCES), 12, replace=False))]:
        extra = sum(getattr(modifier, "num_ctrl_qubits", 0) for modifier in sequence)
        if base.num_qubits + extra <= 4:
            assert_acts_as_its_matrix(AnnotatedOperation(base, list(sequence)))


@given(
    st.sampled_from(sorted(BASES)), st.lists(st.lists(st.sampled_from(MODIFIERS), max_size=2), max_size=3), st.data()
)
@settings(max_examples=30, deadline=None)
def test_modifiers_of_modified_operations_and_further_controls(base, nested, data):
    operation = BASES[base]
    for modifiers in nested:
        operation = AnnotatedOperation(operation, modifiers)
    num_controls = data.draw(st.integers(0, 2))
    if operation.num_qubits + num_controls <= 6:
        assert_acts_as_its_matrix(operation, num_controls, data.draw(st.integers(0, 2**num_controls - 1)))


def test_a_root_of_a_square_is_not_the_square_of_a_root():
    circuit = QuantumCircuit(1)
    circuit.h(0)
    circuit.append(AnnotatedOperation(lib.ZGate(), [PowerModifier(2), PowerModifier(0.5)]), [0])
    assert FusedEstimator().run([(circuit, "X")]).result()[0].data.evs == pytest.approx(1.0)


def test_high_powers_of_constant_gates_take_no_time():
    circuit = QuantumCircuit(2)
    circuit.h([0, 1])
    circuit.append(AnnotatedOperation(BASES["unitary"], PowerModifier(10**9)), [0, 1])
    assert len(lower(circuit).ops) < 40


WITH_PARAMETERS = {
    "rx": lib.RXGate(A),
    "p": lib.PhaseGate(A * B),
    "rzz": lib.RZZGate(A + 1),
    "r": lib.RGate(A, B),
    "xx_plus_yy": lib.XXPlusYYGate(A, B),
    "crz": lib.CRZGate(A, ctrl_state=0),
    "cp": lib.CPhaseGate(A),
}


@pytest.mark.parametrize("base", WITH_PARAMETERS.values(), ids=WITH_PARAMETERS)
@pytest.mark.parametrize("powers", [(2,), (-1,), (0.5,), (-1.7,), (3, 0.5), (0.5, 2), (0.5, 0.5), (0.25, -3, 0.5)])
def test_powers_of_gates_with_parameters_have_values_and_gradients(base, powers):
    modifiers = [PowerModifier(power) for power in powers]
    num_qubits = base.num_qubits + 1
    circuit = QuantumCircuit(num_qubits)
    circuit.initialize(random_statevector(2**num_qubits, seed=2).data, range(num_qubits))
    circuit.append(AnnotatedOperation(base, [*modifiers, ControlModifier(1, 0)]), range(num_qubits))
    observable = SparsePauliOp(["X" * num_qubits, "Y" + "Z" * base.num_qubits], [0.7, 1.0])
    points = np.random.default_rng(3).uniform(-9, 9, size=(6, circuit.num_parameters))
    expected = [Statevector(circuit.assign_parameters(point)).expectation_value(observable).real for point in points]
    found = FusedEstimator().run([(circuit, observable, points)]).result()[0].data.evs
    np.testing.assert_allclose(found, expected, atol=1e-9)
    step = 1e-6 * np.eye(circuit.num_parameters)
    shifted = np.concatenate([points[:1] + step, points[:1] - step])
    ahead, back = np.split(FusedEstimator().run([(circuit, observable, shifted)]).result()[0].data.evs, 2)
    gradient = FusedEstimatorGradient().run([circuit], [observable], [points[0]]).result().gradients[0]
    np.testing.assert_allclose(gradient, (ahead - back) / 2e-6, atol=1e-7)


def test_roots_of_other_gates_with_parameters_wait_for_values():
    circuit = QuantumCircuit(1)
    circuit.h(0)
    circuit.append(AnnotatedOperation(lib.UGate(A, 0.3, 0.2), PowerModifier(0.5)), [0])
    with pytest.raises(UnsupportedInstruction, match=r"raised to the power 0\.5; bind them"):
        lower(circuit)
    with pytest.warns(UserWarning, match="StatevectorEstimator"):
        found = FusedEstimator().run([(circuit, "X", [2.0])]).result()[0].data.evs
    bound = circuit.assign_parameters([2.0])
    assert found == pytest.approx(FusedEstimator().run([(bound, "X")]).result()[0].data.evs)
    assert found == pytest.approx(StatevectorEstimator().run([(bound, "X")]).result()[0].data.evs)


def with_nested_controls():
    """Return a circuit of gates whose inverses by Qiskit lose a phase, or parameters that were assigned."""
    inner = QuantumCircuit(1)
    inner.rx(A, 0)
    outer = QuantumCircuit(3)
    outer.append(lib.CUGate(0.3, 0.4, B, 0.6 * B).control(1), [0, 1, 2])
    circuit = QuantumCircuit(3)
    circuit.h([0, 1, 2])
    circuit.append(inner.to_gate().control(1, ctrl_state=0), [0, 2])
    circuit.append(lib.DiagonalGate([1j, 1, -1, 1]), [0, 1])
    circuit.append(outer.to_gate(), [0, 1, 2])
    return circuit


@pytest.mark.parametrize("parameters", [(A, B), (Parameter("c"), Parameter("d"))], ids=["own", "assigned"])
def test_a_circuit_and_its_annotated_inverse_are_the_identity(parameters):
    circuit = with_nested_controls().assign_parameters(dict(zip((A, B), parameters)))
    whole = circuit.compose(circuit.inverse(annotated=True))
    nested = circuit.compose(AnnotatedOperation(circuit.to_gate(), [InverseModifier()]))
    for product_circuit in (whole, nested):
        np.testing.assert_allclose(statevectors(product_circuit, [0.7, -1.1])[0], np.eye(8)[0], atol=1e-12)


def test_a_modifier_of_another_kind_is_refused():
    circuit = QuantumCircuit(1)
    circuit.append(AnnotatedOperation(lib.XGate(), [Modifier()]), [0])
    with pytest.raises(UnsupportedInstruction, match=r"has the modifier .*; use controls, inverses and powers"):
        lower(circuit)
