# SPDX-License-Identifier: Apache-2.0
"""Chunks of a batch cover the pairs in order and are as large as the limit allows; as many states as fit are kept."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiskit_fused.engines.checkpointing import num_steps
from qiskit_fused.engines.cuda.memory import ChunkBytes, Demand, choose_schedule, cut_into_chunks
from qiskit_fused.options.method import REVERSE, Method

row_numbers = st.lists(st.integers(0, 12), max_size=40).map(lambda rows: np.array(sorted(rows), dtype=np.int64))
sizes = st.builds(ChunkBytes, fixed=st.integers(0, 300), row=st.integers(0, 100), pair=st.integers(1, 100))


def bytes_of(rows, size):
    return size.fixed + size.row * len(np.unique(rows)) + size.pair * len(rows)


@given(rows=row_numbers, size=sizes, more=st.integers(0, 1500), resident=st.integers(1, 2000), whole_rows=st.booleans())
def test_chunks_cover_all_pairs_and_are_as_large_as_their_bounds_allow(rows, size, more, resident, whole_rows):
    limit = size.smallest + more
    chunks = list(cut_into_chunks(rows, size, limit, resident, whole_rows=whole_rows))
    assert [part.start for part, _ in chunks] == [0, *(part.stop for part, _ in chunks)][: len(chunks)]
    assert not chunks or chunks[-1][0].stop == len(rows)
    assert len(rows) == 0 or chunks

    def fits(pairs):
        taken = bytes_of(pairs, size)
        return taken <= limit and taken - size.fixed <= max(resident, size.row + size.pair)

    for part, taken in chunks:
        pairs = rows[part]
        assert len(pairs) and taken == bytes_of(pairs, size)
        assert fits(pairs) or (whole_rows and len(np.unique(pairs)) == 1)
        following = rows[part.stop :]
        if len(following):
            assert not (whole_rows and following[0] == pairs[-1])
            more_pairs = following[: np.searchsorted(following, following[0], side="right") if whole_rows else 1]
            assert not fits(np.append(pairs, more_pairs))


@pytest.mark.parametrize(("room", "expected"), [(120, [4, 2]), (110, [3, 3]), (80, [1, 4, 1]), (70, [1, 3, 1, 1])])
def test_a_row_in_two_chunks_is_counted_in_both(room, expected):
    rows, size = np.array([0, 3, 3, 3, 3, 4]), ChunkBytes(fixed=7, row=40, pair=10)
    chunks = cut_into_chunks(rows, size, 7 + room, 1 << 62, whole_rows=False)
    assert [part.stop - part.start for part, _ in chunks] == expected


def test_no_pairs_are_no_chunks():
    empty = np.zeros(0, dtype=np.int64)
    assert not list(cut_into_chunks(empty, ChunkBytes(1, 1, 1), 3, 1, whole_rows=True))


def passes_of(num_passes, num_tiles=4):
    """Return the attributes of passes that `choose_schedule` reads."""
    return SimpleNamespace(passes=[None] * num_passes, num_tiles=num_tiles)


demands = st.builds(
    Demand,
    state=st.integers(1, 50),
    fixed=st.integers(0, 50),
    row=st.integers(0, 20),
    pair=st.integers(1, 60),
    copies=st.booleans(),
)
CHECKPOINT = Method("checkpoint")


@given(demand=demands, rows=row_numbers, num_passes=st.integers(2, 40), more=st.integers(0, 3000))
def test_a_checkpoint_schedule_fits_as_long_as_one_state_does(demand, rows, num_passes, more):
    least, _ = demand.chunk_bytes(1, 0)
    limit = least.smallest + more
    schedule = choose_schedule(CHECKPOINT, demand, passes_of(num_passes), rows, limit, num_multiprocessors=1)
    assert 1 <= schedule.num_states <= num_passes
    size, _ = demand.chunk_bytes(schedule.num_states, limit)
    assert size.smallest <= limit
    # All states are kept if they fit for all rows at once.
    everything = demand.fixed + len(rows) * (demand.row + demand.pair + num_passes * demand.state)
    if len(rows) and limit >= everything:
        assert schedule.num_states == num_passes


def test_states_give_way_to_rows_until_the_device_is_full():
    demand, rows = Demand(state=100, fixed=0, row=0, pair=100, copies=False), np.arange(64)
    # Two waves of 2 blocks on each of 2 multiprocessors are 8 blocks: the 4 tiles of 2 rows.
    for limit, num_states in ((10_000, 40), (1000, 4), (100_000, 40)):
        assert choose_schedule(CHECKPOINT, demand, passes_of(40), rows, limit, 2).num_states == num_states
    # One row at a time has room for 9 states, but its steps then take longer than those of two rows with 4 states.
    assert num_steps(40, 9) * 2 > num_steps(40, 4)
    # One row fills this device, so it keeps as many states as fit.
    assert choose_schedule(CHECKPOINT, demand, passes_of(40, num_tiles=8), rows, 1000, 2).num_states == 9


def test_pairs_of_one_row_share_its_states_and_bring_cotangents():
    demand = Demand(state=100, fixed=0, row=0, pair=100, copies=True)
    alone = choose_schedule(CHECKPOINT, demand, passes_of(40), np.zeros(1), 2000, 1)
    many = choose_schedule(CHECKPOINT, demand, passes_of(40), np.zeros(16), 2000, 1)
    assert alone.num_states == 19 and many.num_states < 19


@pytest.mark.parametrize("method", [REVERSE, Method("store"), Method("checkpoint", num_states=3)])
def test_methods_that_say_what_they_keep_are_followed(method):
    demand = Demand(state=10**9, fixed=0, row=0, pair=1, copies=False)
    schedule = choose_schedule(method, demand, passes_of(5), np.arange(3), 1, 1)
    assert (schedule and schedule.num_states) == {"reverse": None, "store": 5, "checkpoint": 3}[method.name]
    assert choose_schedule(method, demand, passes_of(1), np.arange(3), 1, 1).num_states == 1
    assert choose_schedule(method, demand, passes_of(0), np.arange(3), 1, 1) is None


def test_a_copy_is_left_out_where_there_is_no_room_for_it():
    demand = Demand(state=100, fixed=7, row=1, pair=102, copies=True)
    assert demand.chunk_bytes(None, 310) == (ChunkBytes(7, 101, 202), 310)
    assert demand.chunk_bytes(None, 309) == (ChunkBytes(7, 101, 102), 210)
    assert demand.chunk_bytes(5, 309) == (ChunkBytes(7, 501, 102), 309)
    chunks = list(cut_into_chunks(np.zeros(3), *demand.chunk_bytes(None, 309), 1 << 62, whole_rows=False))
    assert chunks == [(slice(k, k + 1), 210) for k in range(3)]
