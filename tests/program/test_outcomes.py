# SPDX-License-Identifier: Apache-2.0
"""`Outcomes`: the outcome of each amplitude, for permuted, idle and left-out qubits, and what it says of itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiskit_fused.program.outcomes import DROPPED, Outcomes


@st.composite
def measurements(draw):
    """Draw the engine bit of each circuit qubit (-1 for some), the measured qubits, and a table or None."""
    num_qubits = draw(st.integers(1, 6))
    bits = draw(st.permutations(range(num_qubits)))
    num_bits = draw(st.integers(0, num_qubits))
    wires = np.array([bit if bit < num_bits else -1 for bit in bits])
    measured = draw(st.permutations(range(num_qubits)))[: draw(st.integers(0, num_qubits))]
    size = 1 << len(measured)
    table = draw(st.none() | st.lists(st.integers(-1, 2), min_size=size, max_size=size))
    return wires, measured, table


@given(case=measurements())
def test_an_amplitude_has_the_outcome_of_its_measured_bits_and_idle_qubits_are_zero(case):
    wires, measured, table = case
    outcomes = Outcomes(len(wires), measured, table, None if table is None else 3)
    masks = outcomes.restrict(wires)
    for index, outcome in enumerate(masks.outcome.tolist()):
        values = [index >> wires[qubit] & 1 if wires[qubit] >= 0 else 0 for qubit in measured]
        bitstring = sum(value << j for j, value in enumerate(values))
        assert outcome == (bitstring if table is None else table[bitstring])
    assert len(masks.outcome) == 1 << int((wires >= 0).sum()) and len(masks) == 0


def test_without_a_table_each_bitstring_is_an_outcome():
    assert len(Outcomes(5, [4, 0, 2])) == 8


def test_measured_qubits_are_the_support_and_are_acted_on_by_diagonals():
    assert Outcomes(4, [3, 1]).support(4).tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("table", "expected"), [(None, True), ([0, 1, 1, 0], True), ([0, DROPPED, 1, 0], False), ([0, 0, 0, 0], True)]
)
def test_probabilities_add_up_to_one_unless_a_bitstring_is_dropped(table, expected):
    assert Outcomes(2, [0, 1], table, None if table is None else 2).sum_to_one is expected


def test_equal_outcomes_have_equal_digests_and_different_ones_differ():
    same = [Outcomes(3, [0, 1], [0, 1, 1, 0], 2).structure for _ in range(2)]
    others = [
        Outcomes(3, [1, 0], [0, 1, 1, 0], 2),
        Outcomes(3, [0, 1], [0, 1, 0, 0], 2),
        Outcomes(3, [0, 1], [0, 1, 1, 0], 3),
        Outcomes(4, [0, 1], [0, 1, 1, 0], 2),
        Outcomes(3, [0, 1]),
    ]
    assert same[0] == same[1] and len({same[0], *(other.structure for other in others)}) == 6


def test_too_many_measured_qubits_are_refused_before_anything_is_allocated():
    with pytest.raises(MemoryError, match=r"40 qubits are measured together.*at most 30"):
        Outcomes(64, range(40))
