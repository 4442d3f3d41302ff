# SPDX-License-Identifier: Apache-2.0
"""A circuit that was changed in place after a first run gives the same results as a copy, whatever was changed."""

import copy
import functools
import itertools
import threading
import time

import numpy as np
import pytest
from instruction_kinds import KINDS, Delegating, OwnList, Slotted, Turning, gate_of, nested
from qiskit.circuit import (
    AnnotatedOperation,
    ClassicalRegister,
    Parameter,
    ParameterVector,
    QuantumCircuit,
    QuantumRegister,
    Qubit,
)
from qiskit.circuit import library as lib
from qiskit.circuit.annotated_operation import ControlModifier, InverseModifier, PowerModifier
from qiskit.exceptions import QiskitError
from qiskit.quantum_info import Clifford, SparseObservable, SparsePauliOp, random_pauli_list

from qiskit_fused import FusedEstimator, FusedEstimatorGradient, FusedEstimatorQNN, fuse
from qiskit_fused.compilation.circuits import COMPILED, compile_circuit
from qiskit_fused.lowering.lower import lower
from qiskit_fused.primitives import estimator as estimator_module

X = np.array([[0, 1], [1, 0]], dtype=complex)
LABELS = ["ZZZZ", "XYZI", "IYXZ", "XXXX", "YIIZ", "ZXIY"]


def circuit_of(operation, num_qubits=4, prepares=False):
    """Put an operation between two layers of rotations with parameters, so that each change of it changes results."""
    circuit = QuantumCircuit(num_qubits)
    angles = ParameterVector("w", 2 * num_qubits)
    for qubit in range(2 * prepares, num_qubits):
        circuit.ry(angles[qubit] + 0.3 * qubit, qubit)
    circuit.append(operation, range(operation.num_qubits))
    for qubit in range(num_qubits):
        circuit.rx(angles[num_qubits + qubit], qubit)
    return circuit


def answers(circuit):
    """Return all results of a circuit: values, gradients, the plan and the compiled circuit."""
    observables = [label[: circuit.num_qubits] for label in LABELS]
    values = 0.2 + 0.37 * np.arange(circuit.num_parameters)
    gradient = FusedEstimatorGradient()
    evs = FusedEstimator().run([(circuit, observables, values)]).result()[0].data.evs
    compiled = compile_circuit(circuit)
    return [
        evs,
        *gradient.value_and_gradient(circuit, observables, values),
        *gradient.value_and_gradient(compiled, observables, values),
        str(fuse(circuit, observables)),
        [parameter.name for parameter in compiled.parameters],
    ]


def assert_like_a_fresh_copy(circuit):
    for fresh in (circuit.copy(), copy.deepcopy(circuit)):
        for mine, expected in zip(answers(circuit), answers(fresh), strict=True):
            if isinstance(mine, np.ndarray):
                np.testing.assert_allclose(mine, expected, atol=1e-12)
            else:
                assert mine == expected


def differ(before, after):
    return any(
        np.shape(one) != np.shape(other) or np.abs(one - other).max() > 1e-6
        for one, other in zip(before, after)
        if isinstance(one, np.ndarray)
    )


# Each case: an operation, and a change of it in place that changes the result.


def operation_of(circuit):
    return next(item.operation for item in circuit.data if not item.is_standard_gate())


def innermost(gate):
    while gate.definition.data[0].name != "rx":
        gate = gate.definition.data[0].operation
    return gate


def set_item(things, index, value):
    things[index] = value


CHANGES = {
    "modifiers, replaced": (
        lambda: AnnotatedOperation(lib.RXGate(0.4), [InverseModifier()]),
        lambda op: setattr(op, "modifiers", []),
    ),
    "modifiers, shortened": (
        lambda: AnnotatedOperation(lib.SGate(), [InverseModifier()]),
        lambda op: op.modifiers.clear(),
    ),
    "modifiers, control state": (
        lambda: AnnotatedOperation(lib.RYGate(0.4), [ControlModifier(2, 1)]),
        lambda op: setattr(op.modifiers[0], "ctrl_state", 2),
    ),
    "modifiers, power": (
        lambda: AnnotatedOperation(lib.RYGate(0.4), [PowerModifier(2)]),
        lambda op: setattr(op.modifiers[0], "power", 3),
    ),
    "base of an annotated operation": (
        lambda: AnnotatedOperation(lib.RYGate(0.4), [PowerModifier(2)]),
        lambda op: setattr(op, "base_op", lib.RXGate(0.4)),
    ),
    "parameter of the base of an annotated operation": (
        lambda: AnnotatedOperation(lib.RYGate(0.4), [PowerModifier(2)]),
        lambda op: set_item(op.base_op.params, 0, 0.6),
    ),
    "phase of a definition under a control modifier": (
        lambda: AnnotatedOperation(gate_of(0.2), [ControlModifier(1)]),
        lambda op: setattr(op.base_op.definition, "global_phase", 0.9),
    ),
    "control state of mcx": (lambda: lib.MCXGate(3), lambda op: setattr(op, "ctrl_state", 2)),
    "control state of a controlled gate": (
        lambda: gate_of(0.7).control(2),
        lambda op: setattr(op, "ctrl_state", 1),
    ),
    "definition of the base gate of a controlled gate": (
        lambda: gate_of(0.7).control(1),
        lambda op: op.base_gate.definition.rx(0.3, 0),
    ),
    "base gate of a controlled gate": (
        lambda: gate_of(0.7).control(1),
        lambda op: setattr(op, "base_gate", lib.RYGate(0.7)),
    ),
    "angle of the base gate of an open controlled gate": (
        lambda: lib.CRXGate(0.3, ctrl_state=0),
        lambda op: set_item(op.base_gate.params, 0, 0.8),
    ),
    "definition": (lambda: gate_of(0.4), lambda op: op.definition.ry(0.5, 0)),
    "definition, replaced": (lambda: gate_of(0.4), lambda op: setattr(op, "definition", gate_of(1.4).definition)),
    "definition, deep": (lambda: nested(6), lambda op: innermost(op).definition.ry(0.5, 0)),
    "Pauli evolution, operator replaced": (
        lambda: lib.PauliEvolutionGate(SparsePauliOp(["XX", "ZI"]), 0.3),
        lambda op: setattr(op, "operator", SparsePauliOp(["XY", "ZI"])),
    ),
    "Pauli evolution, coefficient": (
        lambda: lib.PauliEvolutionGate(SparsePauliOp(["XX", "ZI"]), 0.3),
        lambda op: set_item(op.operator.coeffs, 0, 2.0),
    ),
    "Pauli evolution, letter": (
        lambda: lib.PauliEvolutionGate(SparsePauliOp(["XX", "ZI"]), 0.3),
        lambda op: set_item(op.operator.paulis.z[0], 0, True),
    ),
    "Pauli evolution, one of several operators": (
        lambda: lib.PauliEvolutionGate([SparsePauliOp(["XX"]), SparsePauliOp(["ZI"])], 0.3),
        lambda op: set_item(op.operator, 1, SparsePauliOp(["YI"])),
    ),
    "Pauli evolution, sparse observable": (
        lambda: lib.PauliEvolutionGate(SparseObservable("XX"), 0.3),
        lambda op: set_item(op.operator.coeffs, 0, 2.0),
    ),
    "Pauli evolution, time": (
        lambda: lib.PauliEvolutionGate(SparsePauliOp(["XX", "ZI"]), 0.3),
        lambda op: setattr(op, "time", 0.4),
    ),
    "Hamiltonian, matrix": (
        lambda: lib.HamiltonianGate(np.diag([0.1, 0.2, 0.3, 0.4]) + 0j, 0.5),
        lambda op: set_item(op.params[0], (0, 0), 2.0),
    ),
    "Hamiltonian, time": (
        lambda: lib.HamiltonianGate(np.diag([0.1, 0.2, 0.3, 0.4]) + 0j, 0.5),
        lambda op: set_item(op.params, 1, 0.9),
    ),
    "Pauli": (lambda: lib.PauliGate("XY"), lambda op: set_item(op.params, 0, "ZY")),
    "diagonal, one entry": (lambda: lib.DiagonalGate([1, 1, 1, -1]), lambda op: set_item(op.params, 1, -1)),
    "permutation, pattern": (
        lambda: lib.PermutationGate([0, 1, 2]),
        lambda op: set_item(op.params[0], slice(None), [2, 0, 1]),
    ),
    "state preparation": (
        lambda: lib.StatePreparation([0.6, 0.8, 0, 0]),
        lambda op: (set_item(op.params, 1, 0.0), set_item(op.params, 2, 0.8)),
    ),
    "initialize": (
        lambda: lib.Initialize([0.6, 0.8, 0, 0]),
        lambda op: (set_item(op.params, 1, 0.0), set_item(op.params, 2, 0.8)),
    ),
    "clifford, tableau": (
        lambda: Clifford.from_label("XZ"),
        lambda op: set_item(op.tableau, (slice(None), -1), ~op.tableau[:, -1]),
    ),
    "attribute of a user's gate": (lambda: Turning(0.3), lambda op: set_item(op.settings["angles"], 0, 0.9)),
    "array deep in an attribute of a user's gate": (
        lambda: Turning(0.3),
        lambda op: set_item(op.settings["more"]["offset"], 1, 0.9),
    ),
    "slot of an object": (lambda: Delegating(Slotted(0.3).total), lambda op: op.angle.__self__.hide(0.9)),
    "attribute of a list": (
        lambda: Delegating(functools.partial(sum, OwnList([0.3]))),
        lambda op: op.angle.args[0].append(0.4),
    ),
    "content of an object of native code": (
        lambda: Delegating(functools.partial(float, bytearray(b"0.3"))),
        lambda op: set_item(op.angle.args[0], 2, ord("9")),
    ),
}


@pytest.fixture(autouse=True)
def nothing_compiled():
    COMPILED.clear()


@pytest.mark.parametrize("case", CHANGES)
def test_a_change_of_an_operation_in_place_is_noticed(case):
    make, change = CHANGES[case]
    operation = make()
    circuit = circuit_of(operation, prepares=isinstance(operation, lib.Initialize | lib.StatePreparation))
    before = answers(circuit)
    change(operation_of(circuit))
    assert_like_a_fresh_copy(circuit)
    assert differ(before, answers(circuit))


# Every attribute of every kind of instruction, whatever its meaning.


def places_in(thing, path=(), met=None):
    """Yield (owner, key) of every attribute and item inside an object that can be set, in a fixed order."""
    met = set() if met is None else met
    if id(thing) in met or len(path) > 7 or isinstance(thing, (type, str, ParameterVector)):
        return
    met.add(id(thing))
    if isinstance(thing, QuantumCircuit):
        yield thing, "global_phase"
        for item in thing.data:
            yield from places_in(item.operation, (*path, item), met)
    elif isinstance(thing, np.ndarray):
        if thing.size:
            yield thing, tuple(np.array(thing.shape) - 1)
    elif isinstance(thing, (list, dict)):
        for key in range(len(thing)) if isinstance(thing, list) else list(thing):
            yield thing, key
            yield from places_in(thing[key], (*path, key), met)
    elif hasattr(thing, "__dict__") and not callable(thing):
        for name in sorted(vars(thing)):
            yield thing, name
            yield from places_in(getattr(thing, name), (*path, name), met)


def other_than(value):
    """Return another value of the same type; None for a type without a rule here."""
    if isinstance(value, (bool, np.bool_)):
        return not value
    if isinstance(value, (int, np.integer)):
        return value - 1 if value else 1
    if isinstance(value, (float, complex, np.number)):
        return -value if value else value + 0.5
    if isinstance(value, str):
        return value[::-1]
    return None


def write(owner, key, value):
    if isinstance(owner, (list, dict, np.ndarray)):
        owner[key] = value
    else:
        setattr(owner, key, value)


def change(owner, key):
    """Change one attribute, and return a function that changes it back; None where it cannot be changed."""
    before = owner[key] if isinstance(owner, (list, dict, np.ndarray)) else getattr(owner, key)
    other = other_than(before)
    if other is None:
        return None
    try:
        write(owner, key, other)
    except (ValueError, TypeError, AttributeError, NotImplementedError, QiskitError):
        return None
    return lambda: write(owner, key, before)


def outcome(circuit):
    try:
        values = 0.2 + 0.37 * np.arange(circuit.num_parameters)
        return FusedEstimatorGradient().value_and_gradient(circuit, LABELS, values)
    except Exception as error:
        return type(error), str(error)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_every_attribute_of_an_instruction_counts(kind):
    make = KINDS[kind]
    prepares = isinstance(make(), lib.Initialize | lib.StatePreparation | lib.Isometry)
    for number in range(40):
        circuit = circuit_of(make(), prepares=prepares)
        outcome(circuit)
        operation = circuit.data[-5].operation
        place = next(itertools.islice(places_in(operation), number, None), None)
        if place is None:
            break
        change_back = change(*place)
        if change_back is None:
            continue
        mine = outcome(circuit)
        COMPILED.clear()
        for expected in (outcome(circuit), outcome(circuit.copy())):
            assert len(mine) == len(expected)
            for one, other in zip(mine, expected):
                np.testing.assert_equal(one, other, err_msg=f"{kind}: {place}")
        change_back()  # gates of one kind share their definition in all circuits of the process


# Changes of the circuit itself, not of an instruction.


def test_parameters_of_the_global_phase_alone_are_parameters_of_the_circuit():
    a, b, c = map(Parameter, "abc")
    circuit = QuantumCircuit(1, global_phase=a)
    circuit.ry(b, 0)
    estimator = FusedEstimator()
    assert estimator.run([(circuit, "Z", [0.1, 0.7])]).result()[0].data.evs == pytest.approx(np.cos(0.7))
    circuit.global_phase = c  # c comes after b in the list of parameters
    assert estimator.run([(circuit, "Z", [0.7, 0.1])]).result()[0].data.evs == pytest.approx(np.cos(0.7))
    _, gradients = FusedEstimatorGradient().value_and_gradient(circuit, "Z", [0.7, 0.1])
    np.testing.assert_allclose(gradients, [[[-np.sin(0.7), 0.0]]], atol=1e-12)
    circuit.assign_parameters({c: 0.1}, inplace=True)
    assert estimator.run([(circuit, "Z", [0.7])]).result()[0].data.evs == pytest.approx(np.cos(0.7))
    circuit.global_phase = 2 * b + a
    assert estimator.run([(circuit, "Z", [0.1, 0.7])]).result()[0].data.evs == pytest.approx(np.cos(0.7))


def test_parameters_that_cancel_are_parameters_of_the_circuit():
    a, b, c = map(Parameter, "abc")
    circuit = QuantumCircuit(1)
    circuit.ry(b, 0)
    circuit.rz(a - a + b, 0)
    assert compile_circuit(circuit).parameters == (a, b)
    circuit.data[1] = circuit.data[1].replace(operation=lib.RZGate(c - c + b))
    assert compile_circuit(circuit).parameters == (b, c)


CIRCUIT_CHANGES = {
    "qubits exchanged": lambda circuit: set_item(circuit.data, 1, circuit.data[1].replace(qubits=circuit.qubits[2:3])),
    "qubit added": lambda circuit: circuit.add_bits([Qubit()]),
    "register added": lambda circuit: circuit.add_register(QuantumRegister(1, "more")),
    "register of classical bits added": lambda circuit: circuit.add_register(ClassicalRegister(1, "more")),
    "parameter replaced by an equal name": lambda circuit: circuit.assign_parameters(
        {circuit.parameters[0]: Parameter("w0")}, inplace=True
    ),
    "parameter replaced by a later name": lambda circuit: circuit.assign_parameters(
        {circuit.parameters[0]: Parameter("z")}, inplace=True
    ),
    "parameters exchanged": lambda circuit: circuit.assign_parameters(
        dict(zip(circuit.parameters[:2], circuit.parameters[1::-1])), inplace=True
    ),
    "parameter bound": lambda circuit: circuit.assign_parameters({circuit.parameters[3]: 0.5}, inplace=True),
    "measured": lambda circuit: circuit.measure_all(),
    "measured early": lambda circuit: (circuit.measure_all(), circuit.x(0)),
    "emptied": lambda circuit: circuit.clear(),
    "angle nudged": lambda circuit: circuit.data.__setitem__(
        0, circuit.data[0].replace(operation=lib.RYGate(circuit.parameters[0] + 1e-6))
    ),
}


@pytest.mark.parametrize("case", CIRCUIT_CHANGES)
def test_a_change_of_the_circuit_is_noticed(case):
    circuit = circuit_of(lib.CXGate())
    outcome(circuit)
    CIRCUIT_CHANGES[case](circuit)
    mine = outcome(circuit)
    COMPILED.clear()
    np.testing.assert_equal(mine, outcome(circuit.copy()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_lazy_circuit_compiles_once_and_is_compared_as_built():
    circuit = lib.RealAmplitudes(2, reps=1)
    compiled = COMPILED.get(circuit)
    assert COMPILED.get(circuit) is compiled
    circuit.reps = 2
    assert_like_a_fresh_copy(circuit)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("user")])
def test_an_unchanged_circuit_compiles_once(kind):
    make = KINDS[kind]
    circuit = circuit_of(make(), prepares=isinstance(make(), lib.Initialize | lib.StatePreparation | lib.Isometry))
    compiled = COMPILED.get(circuit)
    assert COMPILED.get(circuit) is compiled


def test_what_cannot_be_compared_never_counts_as_unchanged():
    gate = Turning(0.3)
    gate.state = np.random.default_rng(1)
    circuit = circuit_of(gate)
    assert COMPILED.get(circuit) is not COMPILED.get(circuit)


def test_an_object_that_holds_itself_can_be_compared():
    gate = Turning(0.3)
    gate.settings["gate"] = gate
    circuit = circuit_of(gate)
    assert COMPILED.get(circuit) is COMPILED.get(circuit)


def test_a_compiled_circuit_keeps_the_matrices_it_was_made_of():
    matrix = np.diag([0.1, 0.9]).astype(complex)
    circuit = circuit_of(lib.HamiltonianGate(matrix, 0.5).control(1))
    compiled = compile_circuit(circuit)
    values, estimator = 0.3 + np.arange(8.0), FusedEstimatorGradient(device="reference")
    before = estimator.value_and_gradient(compiled, LABELS, values)
    operation_of(circuit).base_gate.params[0][:] = 0.0
    for mine, expected in zip(estimator.value_and_gradient(compiled, LABELS, values), before):
        np.testing.assert_array_equal(mine, expected)


def test_a_network_sees_a_change_of_an_operation_that_its_copy_of_the_circuit_shares():
    gate, weight = Turning(0.3), Parameter("w")
    circuit = QuantumCircuit(1)
    circuit.append(gate, [0])
    circuit.ry(weight, 0)
    network = FusedEstimatorQNN(circuit=circuit, weight_params=[weight])
    before = network.forward([], [0.4])
    for item in network._circuit.data:
        if isinstance(item.operation, Turning):
            item.operation.settings["angles"][0] = 1.2
    assert network.forward([], [0.4]) != pytest.approx(before)
    np.testing.assert_allclose(
        network.forward([], [0.4]),
        FusedEstimatorQNN(circuit=network._circuit.copy(), weight_params=network._circuit.parameters).forward(
            [], [0.4]
        ),
    )


def test_a_circuit_of_the_fallback_is_read_when_run_is_called(monkeypatch):
    gate = Turning(0.3)
    circuit = QuantumCircuit(1)
    circuit.h(0)
    circuit.append(gate, [0])
    circuit.reset(0)
    circuit.rx(0.4, 0)
    may_run = threading.Event()
    run = estimator_module._run
    monkeypatch.setattr(estimator_module, "_run", lambda *given: may_run.wait(10) and run(*given))
    with pytest.warns(UserWarning, match="StatevectorEstimator"):
        job = FusedEstimator().run([(circuit, "Z")])
    circuit.x(0)
    gate.settings["angles"][0] = 2.0
    may_run.set()
    assert job.result()[0].data.evs == pytest.approx(np.cos(0.4))


# Comparing a circuit costs less than running it.


def seconds_to_compare(circuit):
    compiled = COMPILED.get(circuit)
    start = time.process_time()
    for _ in range(5):
        assert compiled.describes(circuit)
    return (time.process_time() - start) / 5


@pytest.mark.parametrize(
    "make",
    [
        lambda: lib.StatePreparation(np.full(2**14, 2**-7, dtype=complex)),
        lambda: lib.DiagonalGate([1] * 2**10),
        lambda: lib.PauliEvolutionGate(
            SparsePauliOp(random_pauli_list(10, 1500, seed=1, phase=False).to_labels()), 0.1
        ),
    ],
    ids=["preparation", "diagonal", "evolution"],
)
def test_comparing_large_operations_takes_milliseconds(make, monkeypatch):
    monkeypatch.setattr("qiskit_fused.compilation.circuits.lower", lambda circuit: lower(QuantumCircuit(1)))
    operation = make()
    circuit = QuantumCircuit(operation.num_qubits)
    circuit.append(operation, range(operation.num_qubits))
    assert seconds_to_compare(circuit) < 0.005
