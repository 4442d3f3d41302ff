# SPDX-License-Identifier: Apache-2.0
"""The arrays that a chunk on a CUDA device allocates for its backward sweep."""

from __future__ import annotations

from typing import Any

import numpy as np

from qiskit_fused.engines.cuda.formats import real_type


class BackwardArrays:
    """The arrays of a backward sweep.

    Args:
        chunk: the `Chunk` that sweeps back.
        states: (kept states, rows, 2^N), the states after the forward sweep.
        lam: (units, 2^N), the adjoint states.

    Attributes:
        lam: (units, 2^N), the adjoint states, which the sweep pulls back in place.
        psi: (units, 2^N), the state of each unit, which the sweep uncomputes; None if a schedule keeps states.
        row_of_unit: int32 (units,), the row of each unit, an index into the rows of the chunk.
        totals: float64 (units, totals), the sums over all tiles.
        sums: real, the partial sums of the tiles in one pass; each pass overwrites them.
    """

    def __init__(self, chunk: Any, states: Any, lam: Any):
        xp, passes, num_units = chunk.xp, chunk.passes, len(lam)
        self.lam, self.psi = lam, None
        if chunk.setting.schedule is None:
            self.psi = states[0] if num_units == len(chunk.rows) else xp.empty(lam.shape, dtype=lam.dtype)
        self.row_of_unit = chunk.pairs_on_device.row_of_unit
        self.totals = xp.empty((num_units, max(passes.num_totals, 1)), dtype=np.float64)
        most_partials = max((sweep.num_partials for sweep in passes.passes), default=0)
        num_sums = max(num_units * passes.num_tiles * most_partials, 1)
        self.sums = xp.empty(num_sums, dtype=real_type(chunk.request.dtype))
