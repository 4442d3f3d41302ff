# SPDX-License-Identifier: Apache-2.0
"""Lists of the amplitudes of outcomes: each amplitude is in the list of its outcome, and long lists are cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qiskit_fused.engines.cuda.outcome_lists import count_parts, make_lists, most_bytes

PART = 1024


def entries_of(lists, outcome):
    """Return the entries of an outcome, and the sizes of the parts of its list if the list is long."""
    begin, end, has_parts = lists.lists[outcome].tolist()
    if not has_parts:
        return lists.order[begin:end], []
    parts = [lists.order[part["begin"] : part["end"]] for part in lists.parts[begin:end]]
    return np.concatenate(parts), [len(part) for part in parts]


def assert_right(outcome, num_outcomes):
    lists = make_lists(outcome, num_outcomes)
    assert lists.order.dtype == np.uint32 and len(lists.order) == np.count_nonzero(outcome >= 0)
    num_parts = 0
    for k in range(num_outcomes):
        entries, parts = entries_of(lists, k)
        np.testing.assert_array_equal(entries, np.flatnonzero(outcome == k))
        assert bool(parts) == (len(entries) > 32 << lists.log_lanes)
        assert all(part == PART for part in parts[:-1]) and (not parts or 0 < parts[-1] <= PART)
        num_parts += len(parts)
    assert num_parts == len(lists.parts) <= len(outcome) // 32
    arrays = (lists.order, lists.lists, lists.parts)
    assert 4 * len(outcome) + sum(array.nbytes for array in arrays) <= most_bytes(
        int(np.log2(len(outcome))), num_outcomes
    )
    return lists


@settings(deadline=None, max_examples=60)
@given(num_qubits=st.integers(0, 13), num_outcomes=st.integers(1, 40), skew=st.floats(0, 1), seed=st.integers(0, 99))
def test_the_list_of_an_outcome_has_its_amplitudes_in_ascending_order(num_qubits, num_outcomes, skew, seed):
    rng = np.random.default_rng(seed)
    outcome = rng.integers(-1, num_outcomes, 1 << num_qubits).astype(np.int32)
    outcome[rng.random(len(outcome)) < skew] = rng.integers(-1, num_outcomes)
    assert_right(outcome, num_outcomes)


@pytest.mark.parametrize("largest", [1 << 16, (1 << 16) + 1, 1 << 20])
def test_outcomes_of_more_than_sixteen_bits_are_sorted(largest):
    rng = np.random.default_rng(0)
    outcome = rng.choice(largest, 4096, replace=False).astype(np.int32)
    outcome[rng.random(4096) < 0.2] = rng.integers(largest)
    lists = make_lists(outcome, largest)
    np.testing.assert_array_equal(lists.order, np.argsort(outcome, kind="stable"))
    sizes = np.bincount(outcome, minlength=largest)
    short = lists.lists["has_parts"] == 0
    assert np.array_equal((lists.lists["end"] - lists.lists["begin"])[short], sizes[short])


@pytest.mark.parametrize(
    ("num_qubits", "num_outcomes", "log_lanes", "num_parts"),
    [(3, 8, 0, 0), (8, 16, 4, 0), (12, 2, 5, 4), (12, 4, 5, 0), (14, 1, 5, 16), (10, 2048, 0, 0)],
)
def test_threads_of_a_list_follow_from_the_mean_length_and_long_lists_are_cut(
    num_qubits, num_outcomes, log_lanes, num_parts
):
    outcome = (np.arange(1 << num_qubits) % num_outcomes).astype(np.int32)
    lists = assert_right(outcome, num_outcomes)
    assert (lists.log_lanes, len(lists.parts)) == (log_lanes, num_parts)
    assert count_parts(num_qubits, num_outcomes) == num_parts


def test_a_long_list_among_short_ones_is_cut():
    outcome = np.arange(1 << 13, dtype=np.int32)
    outcome[5000:] = 3
    lists = assert_right(outcome, 5000)
    assert lists.log_lanes == 0 and len(lists.parts) == 4  # 3,193 entries


def test_amplitudes_without_outcomes_are_in_no_list():
    lists = make_lists(np.full(64, -1, np.int32), 3)
    assert len(lists.order) == 0 and not lists.lists["end"].any() and lists.log_lanes == 0
