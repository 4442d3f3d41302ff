# SPDX-License-Identifier: Apache-2.0
"""Hypothesis strategies: random circuits of every gate, with parameters, expressions, controls and nesting."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st
from qiskit.circuit import Parameter, ParameterVector, QuantumCircuit
from qiskit.circuit.library import PauliEvolutionGate, RVGate, UnitaryGate
from qiskit.circuit.library.standard_gates import get_standard_gate_name_mapping
from qiskit.quantum_info import SparsePauliOp, random_unitary

NOT_GATES = {"measure", "reset", "delay", "global_phase"}
STANDARD_GATES = {
    name: gate.base_class for name, gate in get_standard_gate_name_mapping().items() if name not in NOT_GATES
} | {"rv": RVGate}
NUM_ANGLES = {name: len(gate.params) for name, gate in get_standard_gate_name_mapping().items()} | {"rv": 3}

SPECIAL_ANGLES = [0.0, math.pi / 2, math.pi, -math.pi, 2 * math.pi]
numbers = st.one_of(st.floats(-7, 7, allow_nan=False, width=32), st.sampled_from(SPECIAL_ANGLES))


@st.composite
def angles(draw, parameters):
    """Draw a number, a parameter or an expression of the given parameters."""
    if not parameters:
        return draw(numbers)
    kind = draw(st.sampled_from(["number", "parameter", "parameter", "affine", "product", "function"]))
    first, second = draw(st.sampled_from(parameters)), draw(st.sampled_from(parameters))
    factor = draw(st.sampled_from([-1.0, 0.5, 2.0, 1 / 3]))
    if kind == "number":
        return draw(numbers)
    if kind == "affine":
        return factor * first + draw(numbers)
    if kind == "product":
        return 2 * (math.pi - first) * (math.pi - factor * second)
    if kind == "function":
        function = draw(st.sampled_from(["sin", "cos", "exp", "arctan", "square", "quotient", "sum"]))
        if function == "square":
            return first**2 - second
        if function == "quotient":
            return first / (2 + second.cos())
        if function == "sum":
            return first + factor * second - 1
        return factor * getattr(second.sin() if function == "exp" else second, function)()
    return first


@st.composite
def gates(draw, max_qubits, parameters, names=None):
    """Draw a gate on at most ``max_qubits`` qubits, perhaps under controls."""
    fitting = [name for name in names or sorted(STANDARD_GATES) if get_num_qubits(name) <= max_qubits]
    name = draw(st.sampled_from(fitting))
    params = [draw(angles(parameters)) for _ in range(NUM_ANGLES[name])]
    gate = STANDARD_GATES[name](*params)
    room = max_qubits - gate.num_qubits
    symbolic_rv = name == "rv" and any(isinstance(param, type(parameters[0] + 0)) for param in params if parameters)
    if room and not symbolic_rv and draw(st.integers(0, 3)) == 0:
        num_controls = draw(st.integers(1, min(room, 3)))
        gate = gate.control(num_controls, ctrl_state=draw(st.integers(0, 2**num_controls - 1)))
    return gate


def get_num_qubits(name):
    """Return the number of qubits of a standard gate."""
    return 1 if name == "rv" else get_standard_gate_name_mapping()[name].num_qubits


@st.composite
def circuits(draw, max_qubits=4, max_gates=8, num_parameters=3, nested=True):
    """Draw a circuit. Every third circuit has a custom gate, a unitary or an evolution in it."""
    num_qubits = draw(st.integers(1, max_qubits))
    parameters = [Parameter(f"p{index}") for index in range(num_parameters)]
    circuit = QuantumCircuit(num_qubits, global_phase=draw(numbers))
    for _ in range(draw(st.integers(1, max_gates))):
        special = draw(st.integers(0, 9))
        if special == 0 and nested:
            _append_nested(draw, circuit, parameters)
        elif special == 1:
            num_targets = draw(st.integers(1, min(num_qubits, 3)))
            unitary = random_unitary(2**num_targets, seed=draw(st.integers(0, 99)))
            circuit.append(UnitaryGate(unitary), draw(_targets(num_qubits, num_targets)))
        elif special == 2 and num_qubits > 1:
            labels = draw(
                st.lists(st.sampled_from(["XX", "YY", "ZZ", "IZ", "XI", "YZ"]), min_size=1, max_size=3, unique=True)
            )
            operator = SparsePauliOp(labels, np.linspace(0.3, 0.8, len(labels)))
            circuit.append(PauliEvolutionGate(operator, draw(angles(parameters))), draw(_targets(num_qubits, 2)))
        else:
            gate = draw(gates(num_qubits, parameters))
            circuit.append(gate, draw(_targets(num_qubits, gate.num_qubits)))
    return circuit


def _targets(num_qubits, num_targets):
    return st.permutations(range(num_qubits)).map(lambda order: list(order)[:num_targets])


def _append_nested(draw, circuit, parameters):
    inner = draw(circuits(max_qubits=min(circuit.num_qubits, 2), max_gates=3, num_parameters=0, nested=False))
    inner.rx(draw(angles(parameters)), 0)
    inner.global_phase += draw(st.sampled_from(parameters)) if parameters else 0.5
    gate = inner.to_gate(label="custom")
    if gate.num_qubits < circuit.num_qubits and draw(st.booleans()):
        gate = gate.control(1, ctrl_state=draw(st.integers(0, 1)))
    circuit.append(gate, draw(_targets(circuit.num_qubits, gate.num_qubits)))


def values_of(circuit, seed=0):
    """Return random values (P,) for the parameters of a circuit."""
    return np.random.default_rng(seed).uniform(-1.5, 1.5, circuit.num_parameters)


_DIAGONAL = ["rz", "p", "t", "rzz", "cp", "crz", "ccz", "cz"]
_OTHERS = ["rx", "ry", "x", "sx", "h", "swap", "cy", "rv"]


@st.composite
def circuits_of_cx_and_diagonals(draw):
    """Draw circuits of many CX gates, some of them in pairs, and diagonals, with few other gates."""
    parameters = list(ParameterVector("a", 3))
    circuit = QuantumCircuit(4)
    open_cx = []
    for _ in range(draw(st.integers(3, 25))):
        kind = draw(st.sampled_from(["cx", "cx", "again", "again", "h cz h", "diagonal", "diagonal", "other"]))
        qubits = draw(st.permutations(range(4)))
        if kind == "again" and open_cx:
            circuit.cx(*open_cx.pop(draw(st.sampled_from([0, -1]))))
        elif kind in ("cx", "again"):
            circuit.cx(*qubits[:2])
            open_cx.append(qubits[:2])
        elif kind == "h cz h":
            circuit.h(qubits[1])
            circuit.cz(*qubits[:2])
            circuit.h(qubits[1])
        else:
            name = draw(st.sampled_from(_DIAGONAL if kind == "diagonal" else _OTHERS))
            size = {"rzz": 2, "cp": 2, "crz": 2, "cz": 2, "swap": 2, "cy": 2, "ccz": 3}.get(name, 1)
            num_angles = {"rz": 1, "p": 1, "rzz": 1, "cp": 1, "crz": 1, "rx": 1, "ry": 1, "rv": 3}.get(name, 0)
            getattr(circuit, name)(*[draw(angles(parameters)) for _ in range(num_angles)], *qubits[:size])
    return circuit
