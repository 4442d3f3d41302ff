# SPDX-License-Identifier: Apache-2.0
"""Every instruction that StatevectorEstimator runs is lowered exactly, and all others are refused by name."""

import pickle
import time

import numpy as np
import pytest
from circuits import STANDARD_GATES, circuits, values_of
from hypothesis import given, settings
from hypothesis import strategies as st
from normal_form_oracle import assert_lowered, circuit_state, same_up_to_phase
from qiskit import transpile
from qiskit.circuit import AnnotatedOperation, Gate, Parameter, ParameterVector, QuantumCircuit
from qiskit.circuit import library as lib
from qiskit.circuit.annotated_operation import ControlModifier, InverseModifier, PowerModifier
from qiskit.quantum_info import (
    Operator,
    Pauli,
    SparseObservable,
    SparsePauliOp,
    Statevector,
    random_clifford,
    random_statevector,
    random_unitary,
)
from qiskit.transpiler import CouplingMap
from scipy.linalg import expm

from qiskit_fused import FusedEstimator
from qiskit_fused.lowering.gate_table import kron
from qiskit_fused.lowering.lower import lower
from qiskit_fused.program.program import OpKind

# Qiskit's own exponential of an evolution warns about its sparse format
pytestmark = pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")

A, B = Parameter("a"), Parameter("b")


def scrambled(num_qubits):
    """Return a circuit that prepares a generic state."""
    circuit = QuantumCircuit(num_qubits)
    rng = np.random.default_rng(num_qubits)
    for _ in range(2):
        for qubit in range(num_qubits):
            circuit.u(*rng.normal(size=3), qubit)
        for qubit in range(num_qubits - 1):
            circuit.cx(qubit, qubit + 1)
    return circuit


def on_scrambled(operation, order=None):
    """Return a circuit that prepares a generic state, then applies an operation to the qubits, the last qubit first."""
    circuit = scrambled(operation.num_qubits)
    circuit.append(operation, order or list(reversed(range(operation.num_qubits))))
    return circuit


def custom(num_parameters=2):
    """Return a two-qubit circuit with shared parameters, an expression and a global phase."""
    a, b = (A, B) if num_parameters == 2 else (0.3, 0.7)
    circuit = QuantumCircuit(2, name="custom", global_phase=0.3 + 2 * a)
    circuit.rx(a, 0)
    circuit.cx(0, 1)
    circuit.p(2 * a + b, 1)
    circuit.u(a, b, a * b, 0)
    return circuit


def nested():
    """Return a gate that holds `custom` twice, once under a control."""
    circuit = QuantumCircuit(3, name="nested")
    circuit.append(custom().to_gate(), [2, 0])
    circuit.append(custom().to_gate().control(1, ctrl_state=0), [0, 1, 2])
    return circuit


class MatrixOnly(Gate):
    """A gate without a definition."""

    def __init__(self):
        super().__init__("matrix_only", 1, [])

    def __array__(self, dtype=None, copy=None):
        return random_unitary(2, seed=5).data


class Misnamed(Gate):
    """A gate that has the name rx and the matrix of a Hadamard gate."""

    def __init__(self):
        super().__init__("rx", 1, [0.2])

    def _define(self):
        self.definition = QuantumCircuit(1)
        self.definition.h(0)


def diagonal_entries(num_qubits):
    return np.exp(1j * np.random.default_rng(1).normal(size=2**num_qubits))


ISING = SparsePauliOp(["ZZI", "IZZ", "XII", "IXI", "IIX"], [1.0, 0.9, 0.5, 0.4, 0.3])
EXCHANGE = SparsePauliOp(["XX", "YY", "ZZ", "II"], [0.3, 0.4, 0.5, 0.2])
OPERATIONS = {
    "unitary on 1 qubit": lib.UnitaryGate(random_unitary(2, seed=1)),
    "unitary on 2 qubits": lib.UnitaryGate(random_unitary(4, seed=1)),
    "unitary on 4 qubits": lib.UnitaryGate(random_unitary(16, seed=1)),
    "diagonal unitary": lib.UnitaryGate(np.diag(diagonal_entries(3))),
    "controlled unitary on 1 qubit": lib.UnitaryGate(random_unitary(2, seed=2)).control(2, ctrl_state=1),
    "controlled unitary on 2 qubits": lib.UnitaryGate(random_unitary(4, seed=2)).control(1, ctrl_state=0),
    "controlled unitary on 3 qubits": lib.UnitaryGate(random_unitary(8, seed=2)).control(1),
    "diagonal": lib.DiagonalGate(diagonal_entries(3)),
    "controlled diagonal": lib.DiagonalGate(diagonal_entries(2)).control(1, ctrl_state=0),
    "controlled diagonal with one sign": lib.DiagonalGate([1j, 1j, 1j, 1]).control(1),
    "permutation": lib.PermutationGate([2, 0, 3, 1]),
    "pauli": lib.PauliGate("XYZI"),
    "controlled pauli": lib.PauliGate("XY").control(2, ctrl_state=1),
    "hamiltonian": lib.HamiltonianGate(EXCHANGE.to_matrix(), 0.3),
    "evolution of commuting terms": lib.PauliEvolutionGate(EXCHANGE, 0.7),
    "evolution of anticommuting terms": lib.PauliEvolutionGate(ISING, 0.7),
    "evolution of two components": lib.PauliEvolutionGate(SparsePauliOp(["XXI", "YYI", "IIZ", "IIX"]), 0.7),
    "evolution of a list": lib.PauliEvolutionGate([EXCHANGE, SparsePauliOp(["ZI", "II"], [0.3, 0.9])], 0.7),
    "evolution of a sparse observable": lib.PauliEvolutionGate(
        SparseObservable.from_list([("X0+", 0.3), ("ZZI", 0.2)])
    ),
    "controlled evolution": lib.PauliEvolutionGate(SparsePauliOp(["XX", "YI", "II"], [0.3, 0.4, 0.3]), 0.7).control(1),
    "controlled evolution of commuting terms": lib.PauliEvolutionGate(EXCHANGE, 0.7).control(1, ctrl_state=0),
    "mcx": lib.MCXGate(3, ctrl_state=5),
    "c4x": lib.C4XGate(),
    "c3sx": lib.C3SXGate(),
    "mcphase": lib.MCPhaseGate(A, 3),
    "mcmt": lib.MCMTGate(lib.ZGate(), 2, 2),
    "mcmt with a parameter": lib.MCMTGate(lib.RXGate(A), 1, 2),
    "cu under one more control": lib.CUGate(A, B, 0.3, 0.4).control(1, ctrl_state=0),
    "cx with open control and label": lib.CXGate(label="label", ctrl_state=0),
    "qft": lib.QFTGate(3),
    "ucrx": lib.UCRXGate([0.1, 0.2, 0.3, 0.4]),
    "ucry": lib.UCRYGate([0.1, 0.2, 0.3, 0.4]),
    "ucrz": lib.UCRZGate([0.1, 0.2, 0.3, 0.4]),
    "uniformly controlled": lib.UCGate([random_unitary(2, seed=seed).data for seed in range(4)]),
    "isometry": lib.Isometry(random_unitary(4, seed=3).data[:, :2], 0, 0),
    "state preparation in use": lib.StatePreparation(random_statevector(8, seed=1)),
    "inverse state preparation": lib.StatePreparation(random_statevector(4, seed=1)).inverse(),
    "controlled state preparation": lib.StatePreparation(random_statevector(4, seed=1)).control(1),
    "state preparation of a label": lib.StatePreparation("01+-"),
    "clifford": random_clifford(3, seed=1),
    "linear function": lib.LinearFunction([[1, 1], [0, 1]]),
    "ms": lib.MSGate(3, 0.4),
    "graph state": lib.GraphStateGate([[0, 1], [1, 0]]),
    "adder": lib.ModularAdderGate(2),
    "annotated": AnnotatedOperation(lib.SXGate(), [ControlModifier(2, 1), InverseModifier(), PowerModifier(3)]),
    "annotated with controls twice": AnnotatedOperation(
        lib.UGate(A, B, 0.2), [ControlModifier(1, 0), ControlModifier(2, 1), PowerModifier(-2)]
    ),
    "annotated with a root": AnnotatedOperation(lib.SwapGate(), [PowerModifier(0.5), ControlModifier(1, 0)]),
    "custom gate": custom().to_gate(),
    "custom instruction": custom().to_instruction(),
    "controlled custom gate": custom().to_gate().control(2, ctrl_state=1),
    "controlled custom gate without parameters": custom(0).to_gate().control(1),
    "nested gate": nested().to_gate(),
    "controlled nested gate": nested().to_gate().control(1),
    "gate with a matrix only": MatrixOnly(),
    "gate with a standard name and its own definition": Misnamed(),
}
if hasattr(lib, "PauliProductRotationGate"):
    OPERATIONS["pauli product rotation"] = lib.PauliProductRotationGate(Pauli("-XIYZ"), A * B)


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_operation_is_lowered_exactly(operation):
    assert_lowered(on_scrambled(operation))


@pytest.mark.parametrize("name", sorted(STANDARD_GATES))
def test_standard_gate_with_parameters_is_lowered_exactly(name):
    gate_class = STANDARD_GATES[name]
    num_angles = 3 if name == "rv" else len(lib.get_standard_gate_name_mapping()[name].params)
    assert_lowered(on_scrambled(gate_class(*[A, B, A + B, 2 * A][:num_angles])))


@given(circuits())
@settings(max_examples=100, deadline=None)
def test_random_circuits_are_lowered_exactly(circuit):
    assert_lowered(circuit)


@pytest.mark.parametrize("num_qubits", [2, 4])
def test_an_evolution_in_time_is_exact_for_every_time(num_qubits):
    time_parameter = Parameter("t")
    labels = [("ZZ", [i, i + 1], 1.0) for i in range(num_qubits - 1)] + [("X", [i], 0.5) for i in range(num_qubits)]
    operator = SparsePauliOp.from_sparse_list(labels, num_qubits)
    circuit = on_scrambled(lib.PauliEvolutionGate(operator, 2 * time_parameter - 0.1))
    for value in (0.0, 0.4, -3.0):
        assert_lowered(circuit, [value])


@pytest.mark.parametrize("step", [1e-4, 6e-5, 1e-6, 1e-8])
def test_a_short_step_in_time_is_not_rounded_away(step):
    evolution = lib.PauliEvolutionGate(SparsePauliOp(["XX", "YZ", "XI"], [0.3, 0.55, 0.8]), step)
    assert_lowered(on_scrambled(evolution))
    matrix = Operator(evolution).data
    controlled = np.kron(matrix, np.diag([1, 0])) + np.kron(np.eye(4), np.diag([0, 1]))
    expected = Statevector(scrambled(3)).evolve(Operator(controlled), [2, 1, 0])  # Qiskit would synthesise the gate
    program = lower(on_scrambled(lib.UnitaryGate(matrix).control(1, ctrl_state=0)))
    assert same_up_to_phase(circuit_state(program, []), expected.data)


@pytest.mark.parametrize("step", [1e-9, 1e-8, 1e-7])
def test_a_unitary_that_is_almost_local_is_not_rounded_to_a_local_one(step):
    local = np.kron(random_unitary(2, seed=1), random_unitary(2, seed=2))
    generator = SparsePauliOp(["XX", "YZ", "ZZ"], [0.8, -1.1, 0.9]).to_matrix()
    circuit = on_scrambled(lib.UnitaryGate(local @ expm(-1j * step * generator)))
    assert same_up_to_phase(circuit_state(lower(circuit), []), Statevector(circuit).data, atol=1e-12)


@pytest.mark.parametrize("distance", [0.0, 1e-200, 1e-12, 1e-9, 1e-8, 1.3e-7, 2e-7, 1e-5, 0.1])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("angle", [1.2, -1.2])
def test_a_controlled_rotation_about_an_axis_near_z_is_exact(angle, sign, distance):
    axis = SparsePauliOp(["X", "Z"], [np.sin(distance), sign * np.cos(distance)]).to_matrix()
    circuit = on_scrambled(lib.UnitaryGate(expm(-0.5j * angle * axis)).control(2))
    controlled = np.eye(8, dtype=complex)
    controlled[np.ix_([3, 7], [3, 7])] = expm(-0.5j * angle * axis)  # the controls are the low qubits of the gate
    expected = Statevector(scrambled(3)).evolve(Operator(controlled), [2, 1, 0])
    assert same_up_to_phase(circuit_state(lower(circuit), []), expected.data, atol=1e-14)


def test_an_integer_that_no_float_can_hold_is_refused_by_name():
    circuit = QuantumCircuit(1)
    circuit.rx(10**400, 0)
    with pytest.raises(ValueError, match=r"instruction 0, 'rx', has the angle 1000.*; an angle must be a finite real"):
        lower(circuit)
    with pytest.raises(ValueError, match="instruction 0, 'rx'"):
        FusedEstimator().run([(circuit, "Z")]).result()


def almost_local(num_qubits, step, seed):
    local = kron(*(random_unitary(2, seed=seed + qubit).data for qubit in range(num_qubits)))
    labels = ["X" * qubit + "Z" * (num_qubits - qubit) for qubit in range(num_qubits)]
    generator = SparsePauliOp(labels, np.random.default_rng(seed).normal(size=num_qubits)).to_matrix()
    return local @ expm(-1j * step * generator)


@pytest.mark.parametrize("num_qubits", [3, 4])
def test_unitaries_that_qiskit_synthesises_badly_are_exact(num_qubits):
    for seed in range(12):
        circuit = on_scrambled(lib.UnitaryGate(almost_local(num_qubits, 1e-5, seed)))
        assert same_up_to_phase(circuit_state(lower(circuit), []), Statevector(circuit).data)


def test_a_hamiltonian_gate_in_time_is_exact():
    circuit = on_scrambled(lib.HamiltonianGate(EXCHANGE.to_matrix() + ISING.to_matrix()[:4, :4], A))
    program = lower(circuit)
    bound = on_scrambled(lib.HamiltonianGate(EXCHANGE.to_matrix() + ISING.to_matrix()[:4, :4], 0.8))
    assert same_up_to_phase(circuit_state(program, [0.8]), Statevector(bound).data)


def test_parameters_assigned_after_nesting_are_found():
    circuit = on_scrambled(nested().to_gate().control(1))
    renamed = circuit.assign_parameters({A: Parameter("c"), B: 0.4})
    assert renamed.num_parameters == 1
    assert_lowered(renamed)


@pytest.mark.parametrize(
    "gate", [lib.PauliEvolutionGate(EXCHANGE, A), lib.PauliEvolutionGate(SparsePauliOp(["XX", "ZI"]), A)]
)
def test_parameters_assigned_after_controlling_are_found(gate):
    circuit = on_scrambled(gate.control(1))
    assert_lowered(circuit.assign_parameters({A: 2 * B}))
    assert_lowered(circuit.assign_parameters({A: 0.4}))


@pytest.mark.parametrize("num_controls", [1, 2, 5])
def test_controlled_phases_and_full_layers_are_one_term_each(num_controls):
    circuit = QuantumCircuit(num_controls + 1)
    circuit.append(lib.MCPhaseGate(A, num_controls), range(num_controls + 1))
    circuit.append(lib.ZGate().control(num_controls, ctrl_state=0), range(num_controls + 1))
    circuit.append(lib.RZGate(A).control(num_controls), range(num_controls + 1))
    assert lower(circuit).ops.kind.tolist() == [OpKind.TERM] * 3


def test_swaps_only_rename_wires():
    circuit = QuantumCircuit(3)
    circuit.x(0)
    circuit.swap(0, 1)
    circuit.append(lib.PermutationGate([1, 2, 0]), range(3))
    program = assert_lowered(circuit)
    assert len(program.ops) == 1
    assert program.wires.tolist() == [0, 1, 2]
    assert program.output_wires.tolist() != [0, 1, 2]


# Dropped instructions, and the wires of qubits.


def test_idle_qubits_are_dropped_and_wires_tell_where_the_others_are():
    circuit = QuantumCircuit(127)
    circuit.ry(A, 100)
    circuit.cx(100, 5)
    circuit.barrier()
    circuit.delay(10, 60)
    circuit.id(7)
    program = lower(circuit)
    assert program.num_qubits == 2
    assert program.num_circuit_qubits == 127
    assert program.wires[[5, 100]].tolist() == [0, 1]
    assert np.count_nonzero(program.wires >= 0) == 2


def test_a_transpiled_circuit_is_lowered_exactly():
    circuit = nested()
    transpiled = transpile(
        circuit, coupling_map=CouplingMap.from_line(6), basis_gates=["rz", "sx", "x", "cx"], seed_transpiler=1
    )
    assert_lowered(transpiled)


@pytest.mark.parametrize("circuit", [QuantumCircuit(), QuantumCircuit(3), QuantumCircuit(0, global_phase=1.0)])
def test_empty_circuits_are_lowered(circuit):
    program = assert_lowered(circuit)
    assert program.num_qubits == 0
    assert len(program.ops) == 0


def test_a_parameter_of_the_global_phase_alone_counts_and_does_nothing():
    circuit = QuantumCircuit(1, global_phase=A)
    circuit.rx(B, 0)
    program = assert_lowered(circuit)
    assert program.num_parameters == 2
    assert program.ops.column.tolist() == [1]


def test_a_parameter_of_a_delay_counts_and_does_nothing():
    circuit = QuantumCircuit(1)
    circuit.delay(A, 0)
    circuit.rx(B, 0)
    program = lower(circuit)
    assert (program.num_parameters, len(program.ops)) == (2, 1)


def test_final_measurements_are_dropped():
    circuit = scrambled(2)
    bare = lower(circuit)
    circuit.measure_all()
    circuit.barrier()
    circuit.measure(0, circuit.clbits[1])
    program = lower(circuit)
    assert len(program.gates) == len(bare.gates)
    np.testing.assert_array_equal(program.ops.offset, bare.ops.offset)


def test_measuring_an_idle_qubit_leaves_it_idle():
    circuit = QuantumCircuit(2, 2)
    circuit.h(0)
    circuit.measure([0, 1], [0, 1])
    assert lower(circuit).wires.tolist() == [0, -1]


def test_reset_of_a_fresh_qubit_does_nothing():
    circuit = QuantumCircuit(2)
    circuit.reset([0, 1])
    circuit.h(0)
    assert lower(circuit).wires.tolist() == [0, -1]


# The program as data, and the cost of lowering.


def test_lowering_reads_the_circuit_as_it_is_now():
    circuit = QuantumCircuit(1)
    circuit.rx(A, 0)
    before = lower(circuit)
    circuit.ry(B, 0)
    assert len(before.gates) == 1
    assert len(lower(circuit).gates) == 2


@given(circuits(max_qubits=3, max_gates=4), st.integers(0, 5))
@settings(max_examples=10, deadline=None)
def test_a_program_survives_pickling(circuit, seed):
    program = lower(circuit)
    again = pickle.loads(pickle.dumps(program))
    values = values_of(circuit, seed)
    np.testing.assert_array_equal(circuit_state(again, values), circuit_state(program, values))


@pytest.mark.slow
def test_sixty_thousand_parameters_are_lowered_in_seconds():
    num_qubits, layers = 20, 1000
    parameters = iter(ParameterVector("t", 3 * num_qubits * layers))
    circuit = QuantumCircuit(num_qubits)
    for _ in range(layers):
        for qubit in range(num_qubits):
            circuit.rx(next(parameters), qubit)
            circuit.ry(next(parameters), qubit)
            circuit.rz(next(parameters), qubit)
        for qubit in range(num_qubits - 1):
            circuit.cz(qubit, qubit + 1)
    start = time.process_time()  # not wall time, because other processes may run
    program = lower(circuit)
    assert time.process_time() - start < 5
    assert len(program.ops) == len(program.gates) == 79_000
    assert program.num_columns == 60_000
