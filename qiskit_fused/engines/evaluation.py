# SPDX-License-Identifier: Apache-2.0
"""An evaluation: what an engine returns for a request, and how the evaluations of some rows are put together."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np


@dataclass(eq=False)  # each call makes one of these; to make a frozen one takes 1 us more
class Evaluation:
    """What an engine returns for a `Request`; nobody changes it.

    Attributes:
        values: float64 (N,), the expectation value of each pair of a row and an observable.
        gradients: float64 (N, C), 2 Re <psi|O|d psi/d column> (with ``imaginary``: 2 Im), or None if not asked for;
            (B, C) where `Request.gradients_are_per_row`. On a CUDA device, without the columns that are summed.
        stats: what ran: kernels, sweeps, chunks, bytes allocated (on a GPU: predicted for the largest chunk) and, with
            gradient, the name of the method and the states it kept per row (1 with "reverse").
        state_gradients: complex128 (N, 2**n) or (B, 2**n), as gradients: G with d value = Re sum conj(G) d psi of the
            initial state; None if not asked for. On a CUDA device, in the number format of the request.
        final_states: complex128 (B, 2**n) on the host, or None if not asked for.
        sums: float64 (columns that are summed,), for a request on a CUDA device: gradients summed over all rows. For a
            request on the host, the sums are in a row of ``gradients``, and this is None.
    """

    values: Any
    gradients: Any = None
    stats: dict[str, Any] = field(default_factory=dict)
    state_gradients: Any = None
    final_states: np.ndarray | None = None
    sums: Any = None


def join(evaluations: list[Evaluation]) -> Evaluation:
    """Put the evaluations of rows that follow each other one behind the other; stats are those of the first."""
    if len(evaluations) == 1:
        return evaluations[0]
    joined: dict[str, Any] = {}
    for name in ("values", "gradients", "state_gradients", "final_states"):
        parts = [getattr(evaluation, name) for evaluation in evaluations]
        joined[name] = None if parts[0] is None else np.concatenate(parts)
    return replace(evaluations[0], **joined)
