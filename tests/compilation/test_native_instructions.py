# SPDX-License-Identifier: Apache-2.0
"""Native code sees the same changes of instructions as a comparison in Python."""

import numpy as np
import pytest
from instruction_kinds import gate_of
from qiskit.circuit import Gate, Parameter, QuantumCircuit
from qiskit.circuit import library as lib

from qiskit_fused.compilation import native_instructions
from qiskit_fused.compilation.circuits import COMPILED

A, B, SAME_NAME, FIRST = map(Parameter, ["a", "b", "a", "first"])


def circuit_of(*operations):
    circuit = QuantumCircuit(3, 2)
    circuit.rx(FIRST, 0)
    for operation in operations:
        circuit.append(operation, range(operation.num_qubits))
    circuit.cx(0, 1)
    circuit.barrier()
    circuit.measure(0, 0)
    return circuit


@pytest.fixture
def comparable():
    if native_instructions.native_instructions(QuantumCircuit(1)._data) is None:
        pytest.skip("needs Qiskit 2.6")


EQUAL = {
    "expressions": (lib.RXGate(A + 2 * B), lib.RXGate(2 * B + A)),
    "integer and float": (lib.RXGate(1), lib.RXGate(1.0)),
    "labels": (lib.RXGate(0.3, label="one"), lib.RXGate(0.3)),
}

DIFFERENT = {
    "angles": (lib.RXGate(0.3), lib.RXGate(np.nextafter(0.3, 1))),
    "names": (lib.RXGate(0.3), lib.RYGate(0.3)),
    "parameters of one name": (lib.RXGate(A), lib.RXGate(SAME_NAME)),
    "expressions": (lib.RXGate(A + B), lib.RXGate(A - B)),
    "angle and parameter": (lib.RXGate(0.3), lib.RXGate(A)),
    "standard gate and a gate with its name": (lib.RXGate(0.3), Gate("rx", 1, [0.3])),
    "control states": (lib.CXGate(), lib.CXGate(ctrl_state=0)),
    "one of several angles": (lib.UGate(0.1, 0.2, 0.3), lib.UGate(0.1, 0.2, 0.4)),
}


@pytest.mark.usefixtures("comparable")
@pytest.mark.parametrize("is_equal", [True, False])
def test_instructions_match_if_all_that_counts_is_equal(is_equal):
    for first, second in (EQUAL if is_equal else DIFFERENT).values():
        one, other = circuit_of(first), circuit_of(second)
        instructions = native_instructions.native_instructions(one._data)
        assert instructions.match(one._data) and instructions.match(one.copy()._data)
        assert instructions.match(other._data) is is_equal, (first, second)


@pytest.mark.usefixtures("comparable")
def test_bits_and_order_and_number_of_instructions_count():
    circuit = circuit_of(lib.HGate())
    instructions = native_instructions.native_instructions(circuit._data)
    for change in (
        lambda c: c.data.__setitem__(1, c.data[1].replace(qubits=c.qubits[1:2])),
        lambda c: c.data.__setitem__(2, c.data[2].replace(qubits=c.qubits[1::-1])),
        lambda c: c.data.__setitem__(-1, c.data[-1].replace(clbits=c.clbits[1:])),
        lambda c: c.data.insert(1, c.data.pop(0)),
        lambda c: c.data.pop(),
        lambda c: c.x(0),
        lambda c: c.assign_parameters({FIRST: B}, inplace=True),
    ):
        changed = circuit.copy()
        change(changed)
        assert not instructions.match(changed._data)
    assert instructions.match(circuit._data)


@pytest.mark.usefixtures("comparable")
def test_instructions_that_views_do_not_show_are_left_to_python():
    circuit = circuit_of(lib.UnitaryGate(np.eye(2)), gate_of(0.4), lib.HGate())
    assert native_instructions.native_instructions(circuit._data).not_whole() == [1, 2]


@pytest.mark.usefixtures("comparable")
def test_only_the_instructions_of_a_circuit_are_compared():
    with pytest.raises(TypeError):
        native_instructions.native_instructions(QuantumCircuit(1)._data).match("circuit")


def test_python_compares_where_qiskit_lacks_the_interface(monkeypatch):
    monkeypatch.setattr(native_instructions, "_functions", lambda: None)
    COMPILED.clear()
    for first, second in [*DIFFERENT.values(), (lib.UnitaryGate(np.eye(2)), lib.UnitaryGate(np.diag([1, -1])))]:
        circuit = circuit_of(first)
        circuit.remove_final_measurements()
        compiled = COMPILED.get(circuit)
        assert compiled.describes(circuit)
        circuit.data[1] = circuit.data[1].replace(operation=second)
        assert not compiled.describes(circuit)
