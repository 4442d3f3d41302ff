# SPDX-License-Identifier: Apache-2.0
"""The global phase of a program as a sum of multiples of columns."""

import pickle

import numpy as np
import pytest
from qiskit.circuit import Parameter, QuantumCircuit

from qiskit_fused.lowering.lower import lower
from qiskit_fused.program.global_phase import NO_PHASE, PhaseSum, means_of_generators
from qiskit_fused.program.program import Angle

ROWS = np.array([[0.1, 0.2, 0.3], [1.0, 2.0, 3.0]])


def factors_of(angles):
    """Return ``exp(i sum of angles)`` for each row, where an angle is a tuple (column, coefficient, offset)."""
    sums = [sum(o + (c * row[k] if k >= 0 else 0) for k, c, o in angles) for row in ROWS]
    return np.exp(1j * np.array(sums))


def test_angles_that_differ_by_powers_of_2_become_one_angle():
    angles = [Angle(2, 0.5, 0.25), Angle(2, 0.5, 0.25), Angle(0, 2.0, 0.0), Angle(2, -2.0, -1.0), Angle(0, 2.0, 0.0)]
    total = PhaseSum.of_angles(angles)
    assert total.column.tolist() == [0, 2] and total.coefficient.tolist() == [4.0, -1.0]
    assert total.offset.tolist() == [0.0, -0.5] and total.constant == 0.0
    np.testing.assert_allclose(total.factors(ROWS), factors_of(angles), atol=1e-15)


def test_a_multiple_of_an_angle_is_a_sum_of_powers_of_2():
    angles = [Angle(1, 0.3, 0.1)] * 11
    total = PhaseSum.of_angles(angles)
    assert (total.coefficient / 0.3).tolist() == [1.0, 2.0, 8.0] and (total.offset / 0.1).tolist() == [1.0, 2.0, 8.0]
    np.testing.assert_allclose(total.factors(ROWS), factors_of(angles), atol=2e-15)


def test_angles_with_other_coefficients_or_offsets_stay_apart():
    angles = [Angle(0, 0.5, 0.0), Angle(0, 0.3, 0.0), Angle(0, 0.5, 0.1), Angle(1, 0.5, 0.0), Angle(-1, 0.0, 0.75)]
    total = PhaseSum.of_angles(angles)
    assert total.column.tolist() == [0, 0, 0, 1] and total.constant == 0.75
    np.testing.assert_allclose(total.factors(ROWS), factors_of(angles), atol=1e-15)


def test_no_angles_are_no_phase():
    total = PhaseSum.of_angles([])
    assert not len(total.column) and total.constant == 0.0
    np.testing.assert_array_equal(NO_PHASE.factors(ROWS), [1.0, 1.0])


def test_no_rows_have_no_factors():
    assert PhaseSum.of_angles([Angle(0, 1.0, 0.5)]).factors(np.zeros((0, 3))).shape == (0,)


def test_columns_without_a_part_are_left_out():
    total = PhaseSum.of_angles([Angle(0, 0.0, 0.5), Angle(1, 1.0, 0.0), Angle(2, 0.5, 0.0), Angle(2, -0.5, 0.0)])
    assert total.column.tolist() == [1] and total.coefficient.tolist() == [1.0] and total.constant == 0.5


def test_the_sum_of_two_phases_is_the_phase_of_all_angles():
    first, second = [Angle(0, 1.0, 0.0), Angle(-1, 0.0, 0.5)], [Angle(0, 2.0, 0.0), Angle(1, 1.0), Angle(-1, 0.0, 3.0)]
    total = PhaseSum.of_angles(first).plus(PhaseSum.of_angles(second))
    expected = PhaseSum.of_angles(first + second)
    for found, part in zip(total, expected):
        np.testing.assert_allclose(found, part, atol=1e-15)
    np.testing.assert_allclose(total.factors(ROWS), factors_of(first + second), atol=1e-15)


def test_constants_are_reduced_by_whole_turns():
    quarters = PhaseSum.of_angles([Angle(-1, 0.0, np.pi / 2)] * 4001)
    assert quarters.constant == np.pi / 2
    assert quarters.plus(quarters).plus_constant(-np.pi).constant == 0.0
    large = PhaseSum.of_angles([Angle(-1, 0.0, 1e22), Angle(-1, 0.0, 0.5), Angle(-1, 0.0, -1e9)])
    expected = (np.cos(1e22) + 1j * np.sin(1e22)) * np.exp(0.5j) * (np.cos(1e9) - 1j * np.sin(1e9))
    np.testing.assert_allclose(large.factors(ROWS), expected, atol=1e-15)


def test_slopes_are_the_derivatives_with_respect_to_all_columns():
    total = PhaseSum.of_angles([Angle(2, 0.5, 0.0), Angle(2, 0.3, 0.0), Angle(0, 2.0, 0.5)])
    np.testing.assert_allclose(total.slopes(3), [2.0, 0.0, 0.8])


@pytest.mark.parametrize("size", [1e5, 1e9, 1e22])
def test_factors_of_rows_do_not_depend_on_the_other_rows_bit_for_bit(size):
    rng = np.random.default_rng(0)
    angles = [Angle(int(k), *rng.uniform(-2, 2, 2).tolist()) for k in rng.integers(0, 30, 60)]
    rows = rng.uniform(-1, 1, (20, 30)) * rng.choice([1.0, size], (20, 30))
    phase = PhaseSum.of_angles(angles)
    found = phase.factors(rows)
    np.testing.assert_array_equal(found, [phase.factors(rows[k : k + 1])[0] for k in range(20)])
    np.testing.assert_allclose(np.abs(found), 1, atol=4e-16)


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
        np.testing.assert_array_equal(
            getattr(again.phase, part).factors(row), getattr(program.phase, part).factors(row)
        )
    np.testing.assert_array_equal(again.phase.expressions.evaluate(row), [[np.sin(0.7)]])


def test_a_phase_that_only_states_depend_on_gets_no_column():
    a, b = Parameter("a"), Parameter("b")
    circuit = QuantumCircuit(1, global_phase=a * b + a)
    circuit.ry(a + b, 0)
    assert lower(circuit).num_columns == 3  # a, b, and the angle a + b
