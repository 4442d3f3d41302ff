# SPDX-License-Identifier: Apache-2.0
"""Schedules of recomputation are possible, complete and as short as they can be; a replay checks every position."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiskit_fused.engines.checkpointing import BACK, FORWARD, make_schedule, num_steps, schedule_of, segmented_schedule
from qiskit_fused.options.method import Method


@cache
def fewest_steps(length, num_states):
    """Return the least number of steps, by recursion: every place for the first kept state is tried."""
    if length == 1:
        return 0
    if num_states == 0:
        return float("inf")
    return min(m + fewest_steps(length - m, num_states - 1) + fewest_steps(m, num_states) for m in range(1, length))


def replay(schedule):
    """Execute a schedule, check that it is possible and complete, and return how often each position was made."""
    states = [None] * schedule.num_states
    next_back = schedule.num_positions
    made = [0] * (schedule.num_positions + 1)
    for kind, position, source, target in schedule.actions.tolist():
        if kind == FORWARD:
            assert states[source] == position - 1 if position > 1 else source == -1
            states[target] = position
            made[position] += 1
        else:
            assert (kind, position, target) == (BACK, next_back, -1)
            assert states[source] == position
            next_back -= 1
    assert next_back == 0
    return made[1:]


chains = st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))


@given(chains)
def test_schedules_take_the_fewest_steps_of_all(chain):
    num_positions, num_states = chain
    schedule = make_schedule(num_positions, num_states)
    total = sum(replay(schedule))
    assert total == schedule.num_steps == num_steps(num_positions, num_states)
    assert total == fewest_steps(num_positions + 1, num_states)


@given(chains)
def test_segments_make_no_step_more_than_twice(chain):
    num_positions, num_segments = chain
    schedule = segmented_schedule(num_positions, num_segments)
    assert max(replay(schedule)) <= 2
    assert schedule.num_states <= num_segments - 1 + -(-num_positions // num_segments)


def test_one_state_starts_over_for_every_position():
    assert replay(make_schedule(5, 1)) == [5, 4, 3, 2, 1]


def test_as_many_states_as_positions_make_every_step_once():
    assert replay(make_schedule(200, 200)) == [1] * 200


def test_ten_states_for_ten_thousand_positions_take_six_sweeps():
    assert sum(replay(make_schedule(10_000, 10))) == 57_631


@pytest.mark.parametrize("num_positions", [1, 2, 30])
@pytest.mark.parametrize(
    ("method", "num_states"),
    [(Method("store"), 30), (Method("checkpoint", num_states=4), 4), (Method("checkpoint", num_segments=5), 10)],
)
def test_a_method_makes_a_schedule_that_fits_the_chain(method, num_states, num_positions):
    schedule = schedule_of(method, num_positions)
    replay(schedule)
    assert schedule.num_states == min(num_states, num_positions)


def test_reverse_needs_no_schedule():
    assert schedule_of(Method("reverse"), 10) is None
