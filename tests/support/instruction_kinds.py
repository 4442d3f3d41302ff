# SPDX-License-Identifier: Apache-2.0
"""Operations of every kind that a circuit may hold, and classes of gates that users may define."""

import functools

import numpy as np
from qiskit.circuit import AnnotatedOperation, Gate, QuantumCircuit
from qiskit.circuit import library as lib
from qiskit.circuit.annotated_operation import ControlModifier, InverseModifier, PowerModifier
from qiskit.circuit.library.standard_gates import get_standard_gate_name_mapping
from qiskit.quantum_info import Clifford, SparsePauliOp
from qiskit.synthesis import SuzukiTrotter

X = np.array([[0, 1], [1, 0]], dtype=complex)


class Lazy(Gate):
    """A user's gate that makes a new definition at each access."""

    @property
    def definition(self):
        circuit = QuantumCircuit(1)
        circuit.rx(self.angle(), 0)
        return circuit

    @definition.setter
    def definition(self, definition):
        pass


class Turning(Lazy):
    """A user's gate whose definition depends on its attributes."""

    def __init__(self, angle):
        super().__init__("turning", 1, [])
        self.settings = {"angles": [angle], "more": {"offset": np.array([0.1, 0.2])}}

    def angle(self):
        return self.settings["angles"][0] + self.settings["more"]["offset"].sum()


class Delegating(Lazy):
    """A user's gate that gets its definition from another object."""

    def __init__(self, angle):
        super().__init__("delegating", 1, [])
        self.angle = angle


class Slotted:
    __slots__ = ("__hidden", "angle")

    def __init__(self, angle):
        self.angle, self.__hidden = 0.0, angle

    def hide(self, angle):
        self.__hidden = angle

    def total(self):
        return self.angle + self.__hidden


class OwnList(list):
    pass


def gate_of(*angles, phase=0.0):
    circuit = QuantumCircuit(1, global_phase=phase)
    for angle in angles:
        circuit.rx(angle, 0)
    return circuit.to_gate()


def nested(depth):
    gate = gate_of(0.3)
    for _ in range(depth):
        outer = QuantumCircuit(1)
        outer.append(gate, [0])
        outer.h(0)
        gate = outer.to_gate()
    return gate


class Fixed(Gate):
    """A user's gate with a matrix and further attributes."""

    def __init__(self):
        super().__init__("fixed", 1, [0.3])
        self.bag = {"a": [1.0, (2.0, 3.0)], "b": {4, 5}, "c": np.arange(3.0), "d": Slotted(0.2), "e": lambda: 1}

    def __array__(self, dtype=None, copy=None):
        turn = self.bag["a"][0] + float(self.bag["c"][1]) + self.bag["d"].total() + self.params[0]
        return np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]], dtype=complex)


def standard_gates():
    for name, gate in sorted(get_standard_gate_name_mapping().items()):
        if isinstance(gate, Gate) and name not in ("delay", "global_phase"):
            numbers = [0.3 + 0.2 * position for position in range(len(gate.params))]
            yield name, functools.partial(type(gate.to_mutable()), *numbers)


KINDS = {
    **dict(standard_gates()),
    "labelled": lambda: lib.RXGate(0.3, label="mine"),
    "cx of state 0": lambda: lib.CXGate(ctrl_state=0),
    "ccx of state 1": lambda: lib.CCXGate(ctrl_state=1),
    "cu of state 0": lambda: lib.CUGate(0.1, 0.2, 0.3, 0.4, ctrl_state=0),
    "mcx": lambda: lib.MCXGate(3),
    "mcphase": lambda: lib.MCPhaseGate(0.3, 2),
    "unitary": lambda: lib.UnitaryGate(np.kron(X, np.eye(2))),
    "controlled unitary": lambda: lib.UnitaryGate(X).control(1, ctrl_state=0),
    "evolution": lambda: lib.PauliEvolutionGate(SparsePauliOp(["XX", "ZI"]), 0.3, synthesis=SuzukiTrotter(reps=2)),
    "controlled evolution": lambda: lib.PauliEvolutionGate(SparsePauliOp(["XX", "ZI"]), 0.3).control(1),
    "hamiltonian": lambda: lib.HamiltonianGate(np.diag([0.1, 0.2]) + 0j, 0.5),
    "pauli": lambda: lib.PauliGate("XY"),
    "diagonal": lambda: lib.DiagonalGate([1, 1, 1, -1]),
    "permutation": lambda: lib.PermutationGate([1, 2, 0]),
    "annotated": lambda: AnnotatedOperation(lib.RXGate(0.4), [InverseModifier(), ControlModifier(1, 0)]),
    "annotated twice": lambda: AnnotatedOperation(
        AnnotatedOperation(gate_of(0.4, phase=0.2), [PowerModifier(2)]), [ControlModifier(2, 1)]
    ),
    "preparation": lambda: lib.StatePreparation([0.6, 0.8, 0, 0]),
    "preparation by letters": lambda: lib.StatePreparation("0+"),
    "initialize": lambda: lib.Initialize([0.6, 0.8, 0, 0]),
    "isometry": lambda: lib.Isometry(np.eye(4)[:, :2], 0, 0),
    "multiplexer": lambda: lib.UCRXGate([0.1, 0.2]),
    "nested": lambda: nested(3),
    "controlled definition": lambda: gate_of(0.4, phase=0.2).control(1, ctrl_state=0),
    "instruction": lambda: gate_of(0.4).definition.to_instruction(),
    "clifford": lambda: Clifford.from_label("XZ"),
    "user's gate": Fixed,
    "user's lazy gate": lambda: Turning(0.3),
}
