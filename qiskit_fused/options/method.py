# SPDX-License-Identifier: Apache-2.0
"""How the backward sweep of a gradient gets its states, as options say it and engines are told."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

METHODS = ("reverse", "checkpoint", "store")


@dataclass(frozen=True)
class Method:
    """How the backward sweep gets its states.

    Attributes:
        name: "reverse", "checkpoint" or "store".
        num_states: for "checkpoint", states kept at once; None leaves it to the memory there is.
        num_segments: for "checkpoint", cut the chain into that many segments of equal length instead: their starts are
            kept, and the positions of one segment at a time.
        kept_bytes: memory at most that the CPU engine keeps of earlier evaluations meanwhile, beside what this one
            finds of its own; the engine has a bound of its own, too.
    """

    name: str = "reverse"
    num_states: int | None = None
    num_segments: int | None = None
    kept_bytes: int = field(default=sys.maxsize, compare=False)


REVERSE = Method()


def methods_to_try(method: str, *, has_small_states: bool = False) -> list[str]:
    """Return the methods that an option stands for, the fastest first; what "auto" is is decided here.

    "reverse" is the fastest on a GPU, and on a CPU unless all states of a row stay in the cache of a core: then states
    are read a little faster than gates are undone. Neither method recomputes anything.

    Args:
        method: "auto", or one of `METHODS`, which stands for itself.
        has_small_states: whether a CPU runs it, and all states of a row stay in the cache of a core.
    """
    if method != "auto":
        return [method]
    return ["store", "reverse"] if has_small_states else ["reverse"]
