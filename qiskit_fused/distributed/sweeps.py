# SPDX-License-Identifier: Apache-2.0
"""The duties of a local engine, which sweeps the amplitudes of one rank (see `CpuSweeps` and `CudaSweeps`)."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.program.observables import TermMasks


class Sweeps(Protocol):
    """Sweeps over states (1, 2**n) that the caller holds.

    Attributes:
        xp: ``numpy``, or ``cupy`` for states on a CUDA device.
        state_dtype: number format of the states.
        dtype: number format of the sweeps, and of the amplitudes that ranks exchange.
    """

    xp: Any
    state_dtype: str
    dtype: str

    def forward(self, plan: FusedProgram, columns: np.ndarray, state: Any) -> None:
        """Apply a fused program to a state, in place."""

    def back(self, plan: FusedProgram, columns: np.ndarray, state: Any, cotangent: Any) -> np.ndarray:
        """Undo a fused program on a final state and its cotangent, in place; return the gradient, float64 (C,)."""

    def observe(
        self,
        plan: FusedProgram,
        terms: TermMasks,
        state: Any,
        weights: np.ndarray | None = None,
        cotangent: Any = None,
    ) -> np.ndarray:
        """Return the values of observables, and set the cotangent to ``2 sum_k weights[k] O_k psi``."""
