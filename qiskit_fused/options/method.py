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
