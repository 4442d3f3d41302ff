# SPDX-License-Identifier: Apache-2.0
"""The numbers of an instruction are checked before their use: a bad number is an error, and is never replaced."""

import numpy as np
import pytest
from qiskit.circuit import AnnotatedOperation, Gate, Parameter, QuantumCircuit
from qiskit.circuit import library as lib
from qiskit.circuit.annotated_operation import ControlModifier
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import Operator, SparsePauliOp, random_unitary

from qiskit_fused import FusedEstimator, FusedEstimatorGradient, UnsupportedInstruction
from qiskit_fused.lowering.lower import lower

THETA = Parameter("theta")


class Opaque(Gate):
    """A gate with a matrix of its parameters, and no definition."""

    def __init__(self, angle, scale=1.0):
        super().__init__("opaque", 1, [angle])
        self.scale = scale

    def __array__(self, dtype=None, copy=None):
        angle = float(self.params[0])
        return self.scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


class MyUnitary(lib.UnitaryGate):
    """A subclass that a user defines."""


def changed(gate, params):
    gate.params = params
    return gate


def evolution(coefficient):
    gate = lib.PauliEvolutionGate(SparsePauliOp(["XX", "ZI"], [0.3, 0.4]), 0.2)
    gate.operator = SparsePauliOp(["XX", "ZI"], [0.3, coefficient])
    return gate


TILTED = np.array([[1, 0.1], [0, 1]], dtype=complex)
NOT_A_NUMBER = np.array([[1, 0], [0, np.nan]], dtype=complex)
WRONG = {
    "unitary": (lib.UnitaryGate(TILTED, check_input=False), r"not unitary.*up to 0\.1,.*tolerance is 1e-08.*polar"),
    "scaled": (lib.UnitaryGate(np.eye(4) * 1.001, check_input=False), r"not unitary.*up to 0\.002"),
    "huge": (lib.UnitaryGate(np.eye(2) * 1e200, check_input=False), "not unitary.*up to inf"),
    "not a number": (lib.UnitaryGate(NOT_A_NUMBER, check_input=False), r"the number \(?nan.* at \[1, 1\]"),
    "class of its own": (MyUnitary(TILTED, check_input=False), "not unitary"),
    "controlled": (lib.UnitaryGate(TILTED, check_input=False).control(1, annotated=True), "not unitary"),
    "power": (AnnotatedOperation(lib.UnitaryGate(TILTED, check_input=False), ControlModifier(1)), "not unitary"),
    "opaque": (Opaque(0.3, scale=1.1), r"not unitary.*up to 0\.21"),
    "opaque under a control": (AnnotatedOperation(Opaque(0.3, scale=1.1), ControlModifier(2)), "not unitary"),
    "diagonal": (
        changed(lib.DiagonalGate([1, 1]), [1, 0.5]),
        r"entry \(0\.5\+0j\), whose modulus differs from 1 by 0\.5",
    ),
    "diagonal, not a number": (changed(lib.DiagonalGate([1, 1]), [1, np.nan]), "must be finite"),
    "hamiltonian": (changed(lib.HamiltonianGate(np.eye(2), 0.1), [TILTED, 0.1]), r"not Hermitian.*up to 0\.1"),
    "hamiltonian, infinite": (
        changed(lib.HamiltonianGate(np.eye(2), 0.1), [np.full((2, 2), np.inf), 0.1]),
        "must be finite",
    ),
    "evolution": (evolution(0.3j), r"not Hermitian.*coefficient 0\.3j"),
    "evolution, not a number": (evolution(np.nan), "must be finite"),
    "isometry": (
        changed(lib.Isometry(np.eye(4)[:, :2], 0, 0), [2 * np.eye(4)[:, :2]]),
        "columns that are not orthonormal",
    ),
    "uniformly controlled": (changed(lib.UCGate([np.eye(2)] * 2), [np.eye(2), TILTED]), "not unitary"),
    "wrong shape": (changed(lib.HamiltonianGate(np.eye(2), 0.1), [np.eye(4), 0.1]), r"shape \(4, 4\), on 1 qubits"),
}


@pytest.mark.parametrize("name", WRONG)
def test_numbers_that_are_no_gate_are_refused_by_name_and_place(name):
    operation, text = WRONG[name]
    circuit = QuantumCircuit(4)
    circuit.h(range(4))
    qubits = [3, 1, 0][: operation.num_qubits]
    circuit.append(operation, qubits)
    with pytest.raises(UnsupportedInstruction, match=text) as caught:
        lower(circuit)
    assert (caught.value.index, list(caught.value.qubits), caught.value.fallback) == (4, qubits, False)
    with pytest.raises(UnsupportedInstruction, match=text):
        FusedEstimator().run([(circuit, "ZZZZ")]).result()


def test_rounding_errors_of_matrices_are_allowed():
    matrix = random_unitary(4, seed=1).data
    for unitary in (matrix * (1 + 2e-6), np.round(matrix, 10), matrix + 1e-10):
        circuit = QuantumCircuit(3)
        circuit.h(range(3))
        circuit.append(lib.UnitaryGate(unitary), [2, 0])
        circuit.append(lib.UnitaryGate(unitary).control(1, annotated=True), [0, 1, 2])
        expected = StatevectorEstimator().run([(circuit, "XYZ")]).result()[0].data.evs
        assert FusedEstimator().run([(circuit, "XYZ")]).result()[0].data.evs == pytest.approx(expected, abs=3e-5)


def test_a_gate_whose_matrix_needs_its_parameters_runs_by_fallback_and_natively_once_they_are_bound():
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.append(Opaque(THETA), [1])
    circuit.cx(1, 0)
    observable = SparsePauliOp(["ZX", "XI"], [1.0, 0.4])
    bound = circuit.assign_parameters([0.7])
    expected = StatevectorEstimator().run([(bound, observable)]).result()[0].data.evs
    with pytest.warns(UserWarning, match=r"'opaque'.*no matrix before its parameters are bound.*StatevectorEstimator"):
        found = FusedEstimator().run([(circuit, observable, [[0.7], [0.2]])]).result()[0].data.evs
    np.testing.assert_allclose(found[0], expected, atol=1e-12)
    np.testing.assert_allclose(FusedEstimator().run([(bound, observable)]).result()[0].data.evs, expected, atol=1e-12)
    with pytest.raises(UnsupportedInstruction, match="assign_parameters"):
        FusedEstimatorGradient().run([circuit], [observable], [[0.7]]).result()


def test_the_warning_of_a_reset_says_that_the_value_is_random():
    circuit = QuantumCircuit(1)
    circuit.h(0)
    circuit.reset(0)
    with pytest.warns(UserWarning, match="draw one random outcome for each row"):
        FusedEstimator().run([(circuit, "Z")]).result()


def test_a_matrix_that_is_changed_later_does_not_change_the_program():
    matrix = np.array(Operator(lib.RYGate(0.4)).data)
    circuit = QuantumCircuit(1)
    circuit.append(lib.UnitaryGate(matrix), [0])
    program = lower(circuit)
    circuit.data[0].operation.params[0][:] = 0
    np.testing.assert_allclose(program.gates[0].matrix, Operator(lib.RYGate(0.4)).data)
