# SPDX-License-Identifier: Apache-2.0
"""Schedules of recomputation: the order in which states are made, kept and used for the backward sweep.

Engines cut a circuit into a chain of *positions* 1..S, the states between its parts. A *step* makes each position from
the position before it; the first step starts from nothing. The backward sweep needs the positions in descending order.
Method "reverse" uncomputes them. The other methods keep them in *states*, each the memory of one statevector. "store"
keeps all positions. "checkpoint" keeps fewer, and recomputes segments of the chain from the positions that it kept.
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
    """The actions of a forward and a backward sweep, in order.

    Attributes:
        num_positions: S, length of the chain.
        num_states: number of states that are in memory at the same time.
        actions: int32 (A, 4), of two kinds. (FORWARD, position, source, target) makes a position in state ``target``
            from the position before it in state ``source``; the source is -1 for position 1, and may equal the target.
            (BACK, position, state, -1) is the backward sweep's use of a position. BACK comes once for each position, in
            descending order. The whole forward sweep comes before the first BACK.
    """

    num_positions: int
    num_states: int
    actions: np.ndarray

    @cached_property
    def num_steps(self) -> int:
        """Number of FORWARD actions, the steps of the forward sweep included."""
        return int((self.actions[:, 0] == FORWARD).sum())


def check_segments(name: str, num_segments: int, num_layers: int) -> None:
    """Check that a fused circuit has at least as many layers as segments; a circuit without layers takes any number.

    Args:
        name: name of the number of segments in the error.
        num_segments: number of segments.
        num_layers: D, number of layers of the fused circuit.

    Raises:
        ValueError: when there are more segments than layers.
    """
    if 0 < num_layers < num_segments:
        raise ValueError(
            f"{name} is {num_segments}, and the fused circuit has {count_text(num_layers, 'layer')}; use a number of "
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
    """Return the least number of forward steps of a backward sweep through a chain.

    Args:
        num_positions: S; the formula counts the start of the chain as one more position, l = S + 1.
        num_states: c.

    The number is r l - C(c + r, c + 1), where r is the smallest number with C(c + r, c) >= l (Griewank and Walther, ACM
    TOMS 26, 19 (2000), algorithm 799).
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
        num_states: c >= 1; with c = S every position is made once.

    Cost: O(actions), of which there are ``num_steps(S, c) + S``.
    """
    actions = np.empty((num_steps(num_positions, num_states) + num_positions, 4), dtype=np.int32)
    count = 0
    # A stack of (origin, state of the origin, end): the backward sweep has still to use positions origin + 1 .. end.
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
    """Return the number of steps after which the next state is kept.

    Args:
        length: number of positions of the range, the origin included.
        num_states: number of free states, the state to be kept included.
    """
    r = 0
    while comb(num_states + r, num_states) < length:
        r += 1
    # The largest number of positions from the kept state on that r recomputations allow.
    longest = comb(num_states - 1 + r, num_states - 1)
    least = comb(num_states + r - 2, num_states) if r >= 2 else 0
    return max(least, length - longest, 1)


@keeps(32 << 20, _count_bytes)
def segmented_schedule(num_positions: int, num_segments: int) -> Schedule:
    """Schedule a chain in segments whose lengths differ by at most one; each step is executed at most twice.

    Args:
        num_positions: S >= 1.
        num_segments: m, 1 <= m <= S. The schedule takes m - 1 states for the ends of segments, and one state for each
            position of the longest segment.
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
