# SPDX-License-Identifier: Apache-2.0
"""Schedules of recomputation: which states the backward sweep finds, and where.

Engines cut a circuit into a chain of *positions* 1..S: states on the way, each made from the one before by a *step*,
the first from nothing. The backward sweep needs them in descending order. Method "reverse" uncomputes them. The others
keep them in *states*, memory for one state each: all of them ("store"), or fewer ("checkpoint"), with segments of the
chain recomputed from the states that were kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import comb

import numpy as np

from qiskit_fused.common.caches import keeps
from qiskit_fused.common.forks import cached_property
from qiskit_fused.common.text import count_text
from qiskit_fused.options.method import Method

FORWARD, BACK = 0, 1


@dataclass(frozen=True, eq=False)
class Schedule:
    """What to do, in order.

    Attributes:
        num_positions: S.
        num_states: memory, in states.
        actions: int32 (A, 4): FORWARD, position, source, target makes a position in state ``target`` from the position
            before it in state ``source`` (-1 for position 1; it may be ``target``); BACK, position, state, -1 uses a
            position. BACK comes once for each position, in descending order; the forward sweep comes before the first.
    """

    num_positions: int
    num_states: int
    actions: np.ndarray

    @cached_property
    def num_steps(self) -> int:
        """Forward steps, those of the forward sweep included."""
        return int((self.actions[:, 0] == FORWARD).sum())


def check_segments(what: str, num_segments: int, num_layers: int) -> None:
    """Raise a ValueError where segments are more than the layers of a fused circuit; one without layers takes any.

    Args:
        what: how the error calls the number of segments.
        num_segments: segments.
        num_layers: D.
    """
    if 0 < num_layers < num_segments:
        raise ValueError(
            f"{what} is {num_segments}, and the fused circuit has {count_text(num_layers, 'layer')}; use a number of "
            f"at most {num_layers}, or None, which keeps as many states as fit in memory_limit."
        )


def schedule_of(method: Method, num_positions: int) -> Schedule | None:
    """Return the schedule of a method for a chain of S positions, None for "reverse".

    A method that names neither states nor segments keeps all states.
    """
    if method.name == "reverse":
        return None
    if method.name == "checkpoint" and method.num_segments is not None:
        return segmented_schedule(num_positions, min(method.num_segments, num_positions))
    num_states = None if method.name == "store" else method.num_states
    return make_schedule(num_positions, min(num_states or num_positions, num_positions))


def num_steps(num_positions: int, num_states: int) -> int:
    """Return the fewest forward steps with which a chain can be gone back through.

    A chain of l = S + 1 positions, the first one for nothing, takes r l - C(c + r, c + 1) steps with c states, where r
    is the smallest number with C(c + r, c) >= l (Griewank and Walther, ACM TOMS 26, 19 (2000), algorithm 799).
    """
    length, r = num_positions + 1, 0
    while comb(num_states + r, num_states) < length:
        r += 1
    return r * length - comb(num_states + r, num_states + 1)


def _count_bytes(schedule: Schedule) -> int:
    return schedule.actions.nbytes


@keeps(32 << 20, _count_bytes)
def make_schedule(num_positions: int, num_states: int) -> Schedule:
    """Schedule a chain with the fewest forward steps.

    Args:
        num_positions: S >= 1.
        num_states: c >= 1; with S of them every position is made once.

    Cost: O(actions), of which there are ``num_steps(S, c) + S``.
    """
    actions = np.empty((num_steps(num_positions, num_states) + num_positions, 4), dtype=np.int32)
    count = 0
    # Ranges (origin, its state, end) still to go back through: positions origin + 1 .. end, the deepest on top.
    ranges = [(0, -1, num_positions)]
    free = list(range(num_states - 1, -1, -1))
    while ranges:
        origin, source, end = ranges.pop()
        if origin == end:
            if source >= 0:
                actions[count] = BACK, origin, source, -1
                count += 1
                free.append(source)
            continue
        target = free.pop()
        middle = origin + _advance(end - origin + 1, len(free) + 1)
        advance = actions[count : count + middle - origin]
        advance[:] = FORWARD, 0, target, target
        advance[:, 1] = np.arange(origin + 1, middle + 1)
        advance[0, 2] = source
        count += middle - origin
        ranges += [(origin, source, middle - 1), (middle, target, end)]
    return Schedule(num_positions, num_states, actions)


def _advance(length: int, num_states: int) -> int:
    """Return how many steps to go before a state is kept, of ``length`` positions, the first of which is there."""
    r = 0
    while comb(num_states + r, num_states) < length:
        r += 1
    longest = comb(num_states - 1 + r, num_states - 1)  # that r recomputations allow behind the kept state
    least = comb(num_states + r - 2, num_states) if r >= 2 else 0
    return max(least, length - longest, 1)


@keeps(32 << 20, _count_bytes)
def segmented_schedule(num_positions: int, num_segments: int) -> Schedule:
    """Schedule a chain in segments whose lengths differ by one at most; each step is made twice at most.

    Args:
        num_positions: S >= 1.
        num_segments: m, 1 <= m <= S. States: m - 1 at the ends of segments, and those of the longest segment.
    """
    ends = [num_positions * k // num_segments for k in range(num_segments + 1)]
    longest = max(b - a for a, b in pairwise(ends))
    inside = list(range(num_segments - 1, num_segments - 1 + longest))  # states of the positions of one segment
    actions: list[tuple[int, int, int, int]] = []
    for k in range(num_segments - 1):
        actions.append((FORWARD, ends[k] + 1, k - 1, k))
        actions += [(FORWARD, position, k, k) for position in range(ends[k] + 2, ends[k + 1] + 1)]
    for k in range(num_segments - 1, -1, -1):
        begin, end = ends[k], ends[k + 1]
        state_of = {position: inside[position - begin - 1] for position in range(begin + 1, end + 1)} | {begin: k - 1}
        if k < num_segments - 1:
            state_of[end] = k  # kept since the forward sweep
        made = range(begin + 1, end + (k == num_segments - 1))
        actions += [(FORWARD, position, state_of[position - 1], state_of[position]) for position in made]
        actions += [(BACK, position, state_of[position], -1) for position in range(end, begin, -1)]
    return Schedule(num_positions, num_segments - 1 + longest, np.array(actions, dtype=np.int32))
