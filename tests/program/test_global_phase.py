# SPDX-License-Identifier: Apache-2.0
"""The global phase of a program as a sum of multiples of columns."""

import pickle

import numpy as np
from qiskit.circuit import Parameter, QuantumCircuit

from qiskit_fused.lowering.lower import lower
from qiskit_fused.program.global_phase import NO_PHASE, PhaseSum, means_of_generators
from qiskit_fused.program.program import Angle

ROWS = np.array([[0.1, 0.2, 0.3], [1.0, 2.0, 3.0]])


def test_angles_of_one_column_are_added():
    total = PhaseSum.of_angles([Angle(2, 0.5, 1.0), Angle(-1, 0.0, 0.25), Angle(0, 2.0, 0.0), Angle(2, 1.0, -0.5)])
    assert total.column.tolist() == [0, 2] and total.coefficient.tolist() == [2.0, 1.5] and total.offset == 0.75
    np.testing.assert_allclose(total.at(ROWS), 2 * ROWS[:, 0] + 1.5 * ROWS[:, 2] + 0.75)


def test_no_angles_are_no_phase():
    total = PhaseSum.of_angles([])
    assert not len(total.column) and total.offset == 0.0
    np.testing.assert_array_equal(NO_PHASE.at(ROWS), [0.0, 0.0])


def test_columns_without_a_part_are_left_out():
    total = PhaseSum.of_angles([Angle(0, 0.0, 0.5), Angle(1, 1.0, 0.0), Angle(2, 0.5, 0.0), Angle(2, -0.5, 0.0)])
    assert total.column.tolist() == [1] and total.coefficient.tolist() == [1.0] and total.offset == 0.5


def test_the_sum_of_two_phases_has_each_column_once():
    first, second = (
        PhaseSum.of_angles(angles) for angles in ([Angle(0, 1.0, 0.5)], [Angle(0, 2.0, 0.5), Angle(1, 1.0)])
    )
    total = first.plus(second)
    assert total.column.tolist() == [0, 1]
    np.testing.assert_allclose(total.at(ROWS), first.at(ROWS) + second.at(ROWS))
    np.testing.assert_allclose(first.plus(NO_PHASE).at(ROWS), first.at(ROWS))


def test_means_of_generators_are_their_traces_divided_by_the_dimension():
    care, value, sign = np.meshgrid(*[np.arange(8, dtype=np.uint64)] * 3)
    is_valid = (value & ~care) == 0
    care, value, sign = (masks[is_valid] for masks in (care, value, sign))
    index = np.arange(8, dtype=np.uint64)[:, None]
    generators = ((index & care) == value) * (1.0 - 2.0 * (np.bitwise_count(index & sign) & 1))
    np.testing.assert_allclose(means_of_generators(care, value, sign), generators.mean(axis=0))


def test_a_pickled_program_keeps_its_phase():
    a = Parameter("a")
    circuit = QuantumCircuit(1, global_phase=a.sin())
    circuit.p(a, 0)
    program = lower(circuit)
    again = pickle.loads(pickle.dumps(program))
    row = np.array([[0.7]])
    for part in ("of_circuit", "left_out"):
        np.testing.assert_array_equal(getattr(again.phase, part).at(row), getattr(program.phase, part).at(row))
    np.testing.assert_array_equal(again.phase.expressions.evaluate(row), [[np.sin(0.7)]])


def test_a_phase_that_only_states_depend_on_gets_no_column():
    a, b = Parameter("a"), Parameter("b")
    circuit = QuantumCircuit(1, global_phase=a * b + a)
    circuit.ry(a + b, 0)
    assert lower(circuit).num_columns == 3  # a, b, and the angle a + b
