# SPDX-License-Identifier: Apache-2.0
"""The methods by which the backward sweep of a gradient gets its states: reverse, checkpoint and store."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

METHODS = ("reverse", "checkpoint", "store")


@dataclass(frozen=True)
class Method:
    """The method by which the backward sweep gets its states, with the arguments of the method.

    Attributes:
        name: "reverse" uncomputes the states, "checkpoint" keeps some and recomputes the others, "store" keeps all.
        num_states: for "checkpoint", the number of states that are kept at the same time. None keeps as many as the
            memory allows.
        num_segments: for "checkpoint", an alternative to ``num_states``. The layers are cut into this number of
            segments of equal length. The states at the starts of all segments, and all states of one segment, are kept.
        kept_bytes: bound, in bytes, of the memory that the CPU engine keeps from earlier evaluations during this one,
            beside the memory that this evaluation reuses. The engine has its own bound, too.
    """

    name: str = "reverse"
    num_states: int | None = None
    num_segments: int | None = None
    kept_bytes: int = field(default=sys.maxsize, compare=False)


REVERSE = Method()


def methods_to_try(method: str, *, has_small_states: bool = False) -> list[str]:
    """Return the methods that an option stands for, the fastest first. This function decides the meaning of "auto".

    "reverse" is the fastest method on a GPU, and on a CPU if the states of a row exceed the cache of a core. If all
    states of a row fit the cache of a core, reading a state ("store") is slightly faster than undoing gates. Neither
    method recomputes a state.

    Args:
        method: "auto", or one of `METHODS`, which stands for itself.
        has_small_states: whether the engine is a CPU engine and all states of a row fit the cache of a core.
    """
    if method != "auto":
        return [method]
    return ["store", "reverse"] if has_small_states else ["reverse"]
