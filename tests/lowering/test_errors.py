# SPDX-License-Identifier: Apache-2.0
"""Bad start states, and instructions that no engine can simulate, are refused by name, position and cure."""

import pickle
import warnings

import numpy as np
import pytest
from normal_form_oracle import assert_lowered, circuit_state, same_up_to_phase
from qiskit.circuit import Clbit, Gate, Parameter, QuantumCircuit
from qiskit.circuit import library as lib
from qiskit.exceptions import QiskitError
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import Kraus, SparsePauliOp, Statevector, random_statevector

from qiskit_fused import FusedEstimator, UnsupportedInstruction, fuse
from qiskit_fused.lowering.lower import lower

A, B = Parameter("a"), Parameter("b")


# Start states.


def test_a_leading_initialize_is_the_start_state():
    vector = random_statevector(4, seed=4).data
    circuit = QuantumCircuit(4)
    circuit.initialize(vector, [3, 1])
    circuit.ry(A, 0)
    circuit.cx(3, 0)
    program = assert_lowered(circuit)
    assert program.initial_state.shape == (8,)
    assert np.linalg.norm(program.initial_state) == pytest.approx(1.0)
    assert sorted(map(sorted, program.starts_together)) == [[1, 2]]
    assert program.wires.tolist() == [0, 1, -1, 2]


def test_two_start_states_are_multiplied():
    circuit = QuantumCircuit(3)
    circuit.initialize(random_statevector(2, seed=1).data, 2)
    circuit.h(2)
    circuit.initialize(random_statevector(4, seed=2).data, [0, 1])
    circuit.cx(2, 0)
    assert sorted(lower(circuit).starts_together) == [(0, 1), (2,)]
    expected = Statevector(circuit).data
    assert same_up_to_phase(circuit_state(lower(circuit), []), expected)


@pytest.mark.parametrize("state", ["01+", "-rl", 5, 0])
def test_labels_and_integers_are_prepared_by_gates(state):
    circuit = QuantumCircuit(3)
    circuit.initialize(state, range(3))
    program = assert_lowered(circuit)
    assert program.initial_state is None


def test_a_leading_state_preparation_is_the_start_state_even_inside_a_gate():
    inner = QuantumCircuit(2)
    inner.prepare_state(random_statevector(4, seed=1), [1, 0])
    circuit = QuantumCircuit(3)
    circuit.append(inner.to_gate(), [2, 1])
    circuit.cx(1, 0)
    program = assert_lowered(circuit)
    assert sorted(map(sorted, program.starts_together)) == [[1, 2]]
    assert len(program.gates) == 1


# Instructions that no engine can simulate.


def mid_circuit_measurement():
    circuit = QuantumCircuit(3, 1)
    circuit.h(1)
    circuit.measure(1, 0)
    circuit.cx(1, 2)
    return circuit


def reset_in_use():
    circuit = QuantumCircuit(2)
    circuit.h(1)
    circuit.reset(1)
    return circuit


def initialize_in_use():
    circuit = QuantumCircuit(2)
    circuit.h(1)
    circuit.initialize([1, 0], 1)
    return circuit


def control_flow():
    circuit = QuantumCircuit(2, 1)
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.x(1)
    return circuit


def channel():
    circuit = QuantumCircuit(2)
    circuit.append(Kraus([np.eye(2) * 0.6, np.diag([0.8, -0.8])]).to_instruction(), [1])
    return circuit


def opaque():
    circuit = QuantumCircuit(2)
    circuit.append(Gate("mystery", 1, []), [1])
    return circuit


def opaque_inside():
    inner = QuantumCircuit(1, name="outer")
    inner.append(Gate("mystery", 1, []), [0])
    circuit = QuantumCircuit(2)
    circuit.append(inner.to_gate(), [1])
    return circuit


def reset_inside():
    inner = QuantumCircuit(1, name="outer")
    inner.h(0)
    inner.reset(0)
    circuit = QuantumCircuit(2)
    circuit.append(inner.to_instruction(), [1])
    return circuit


def reset_after_measurement():
    circuit = QuantumCircuit(1, 1)
    circuit.h(0)
    circuit.measure(0, 0)
    circuit.reset(0)
    return circuit


def reset_and_control_flow():
    circuit = reset_in_use()
    circuit.add_bits([Clbit()])
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.x(1)
    return circuit


def reset_and_final_measurement():
    circuit = reset_in_use()
    circuit.measure_all()
    return circuit


def large_unitary():
    circuit = QuantumCircuit(9)
    circuit.append(
        lib.PauliEvolutionGate(SparsePauliOp(["Z" * 9, *("I" * k + "X" + "I" * (8 - k) for k in range(9))])), range(9)
    )
    return circuit


def controlled_rotation_vector():
    circuit = QuantumCircuit(2)
    circuit.append(lib.RVGate(A, B, 0.1).control(1, annotated=True), [0, 1])
    return circuit


REFUSED = {
    mid_circuit_measurement: ("measure", 1, (1,), "mid-circuit measurement: instruction 2, 'cx', follows.*to the end"),
    reset_in_use: ("reset", 1, (1,), "resets a qubit that is in use.*use a fresh qubit. StatevectorEstimator and"),
    initialize_in_use: ("initialize", 1, (1,), "resets a qubit that is in use"),
    control_flow: (
        "if_else",
        0,
        (1,),
        "is control flow; append the instructions that are to run to the circuit itself",
    ),
    channel: ("kraus", 0, (1,), "is opaque.*define it by gates"),
    opaque: ("mystery", 0, (1,), "is opaque: it has neither a definition nor a matrix.*define it by gates"),
    opaque_inside: ("outer", 0, (1,), "contains 'mystery', which is opaque"),
    reset_inside: ("outer", 0, (1,), "contains 'reset', which resets a qubit that is in use"),
    reset_after_measurement: ("measure", 1, (0,), "mid-circuit measurement: instruction 2, 'reset', follows"),
    large_unitary: ("PauliEvolution", 0, tuple(range(9)), "dense matrix on 9 qubits, the limit is 8.*product formula"),
    controlled_rotation_vector: (None, 0, (0, 1), "use cu or crx, cry, crz"),
}


@pytest.mark.parametrize("build", REFUSED, ids=lambda build: build.__name__)
def test_what_no_sweep_can_do_is_refused_by_name_position_and_cure(build):
    name, index, qubits, text = REFUSED[build]
    with pytest.raises(UnsupportedInstruction, match=text) as caught:
        lower(build())
    error = caught.value
    assert isinstance(error, QiskitError)
    assert (error.index, error.qubits) == (index, qubits)
    assert name in (None, error.name)
    assert str(error) == error.message
    assert str(error).startswith(f"instruction {index}, '{error.name}' on qubits {list(qubits)}, ")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.index, again.qubits, again.fallback) == (str(error), index, qubits, error.fallback)


@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")  # StatevectorEstimator's warning
@pytest.mark.parametrize(
    "build", [*REFUSED, reset_and_control_flow, reset_and_final_measurement], ids=lambda build: build.__name__
)
def test_a_fallback_is_announced_if_and_only_if_statevector_estimator_can_run_the_circuit(build):
    circuit = build()
    pub = (circuit, "Z" * circuit.num_qubits, np.linspace(0, 1, circuit.num_parameters))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        job = FusedEstimator().run([pub])
    announced = any("Running it with StatevectorEstimator" in str(warning.message) for warning in caught)
    try:
        expected = StatevectorEstimator().run([(circuit.remove_final_measurements(False), *pub[1:])]).result()
    except QiskitError:
        assert not announced
        with pytest.raises(UnsupportedInstruction):
            job.result()
    else:
        assert announced
        np.testing.assert_allclose(job.result()[0].data.evs, expected[0].data.evs, atol=1e-12)


def test_a_start_vector_counts_where_an_observable_sees_it():
    circuit = QuantumCircuit(70)
    circuit.h(range(66))
    circuit.initialize([0.6, 0.8j], 66)
    circuit.initialize(random_statevector(4, seed=2).data, [69, 68])
    circuit.cx(66, 67)
    expected = 0.36 - 0.64
    for place in (66, 67):
        observable = SparsePauliOp.from_sparse_list([("Z", [place], 1.0)], 70)
        assert FusedEstimator().run([(circuit, observable)]).result()[0].data.evs == pytest.approx(expected)
    plan = fuse(circuit, SparsePauliOp.from_sparse_list([("Z", [67], 1.0)], 70))
    assert plan.num_qubits == 2
    assert fuse(circuit, SparsePauliOp.from_sparse_list([("X", [0], 1.0)], 70)).starts_at_zero
    assert fuse(circuit, SparsePauliOp.from_sparse_list([("X", [69], 1.0)], 70)).num_qubits == 2
    circuit = QuantumCircuit(40)
    circuit.h(range(39))
    circuit.initialize([0.6, 0.8j], 39)
    with pytest.raises(MemoryError, match=r"40 qubits start in a vector, the limit is 30; prepare the state by gates"):
        fuse(circuit)


def test_a_constant_angle_that_is_not_finite_is_refused():
    circuit = QuantumCircuit(1)
    circuit.rx(float("nan"), 0)
    with pytest.raises(
        ValueError, match="instruction 0, 'rx', has the angle nan; an angle must be a finite real number"
    ):
        lower(circuit)


def test_an_unnormalised_start_state_is_refused():
    circuit = QuantumCircuit(1)
    circuit.initialize([1.0, 0.0], 0)
    circuit.data[0].operation.params = [2.0, 0.0]
    with pytest.raises(UnsupportedInstruction, match=r"start state of norm 2.*normalise it"):
        lower(circuit)
