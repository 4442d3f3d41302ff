# SPDX-License-Identifier: Apache-2.0
"""Sweeps of the CUDA engine over a state of the caller on the device, forward or backward, in place.

A rank of a distributed state keeps its amplitudes on its device, and sweeps them one segment of a circuit at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qiskit_fused.common.array_modules import to_numpy
from qiskit_fused.engines.cuda.engine import CudaEngine
from qiskit_fused.engines.request import NO_PAIRS, BoundaryStates, GradientRequest, Request, all_pairs
from qiskit_fused.engines.split_columns import SplitColumns
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.program.observables import GivenTerms, TermMasks, merged_masks

_NONE = GivenTerms(
    merged_masks(
        0,
        np.zeros(0, np.int32),
        np.zeros(0, complex),
        **dict.fromkeys(("x", "z", "care", "value"), np.zeros(0, np.uint64)),
    )
)


class CudaSweeps:
    """Sweeps over states in a number format on the device of an engine.

    Args:
        engine: the engine.
        dtype: number format of the amplitudes.
    """

    def __init__(self, engine: CudaEngine, dtype: str):
        self.engine, self.dtype, self.state_dtype = engine, dtype, dtype
        self.xp = engine.runtime.xp

    def forward(self, plan: FusedProgram, columns: np.ndarray, state: Any) -> None:
        """Apply the traceless runs and terms of a fused program to a state (1, 2**n), in place."""
        boundary = BoundaryStates(state, final=True, on_device=True)
        request = Request(self._columns(columns), NO_PAIRS, None, boundary, self.dtype)
        state[...] = self._on_device(self.engine.evaluate(plan, _NONE, request).final_states)

    def back(self, plan: FusedProgram, columns: np.ndarray, state: Any, cotangent: Any) -> np.ndarray:
        """Undo a fused program on a final state and its cotangent, in place; return the gradient, float64 (C,)."""
        boundary = BoundaryStates(state, True, cotangent, on_device=True, from_end=True)
        gradient = GradientRequest(of_initial_states=True)
        request = Request(self._columns(columns), NO_PAIRS, gradient, boundary, self.dtype)
        evaluation = self.engine.evaluate(plan, _NONE, request)
        state[...] = self._on_device(evaluation.final_states)
        cotangent[...] = self._on_device(evaluation.state_gradients)
        row: np.ndarray = to_numpy(evaluation.gradients)[0]
        return row

    def observe(
        self,
        plan: FusedProgram,
        terms: TermMasks,
        state: Any,
        weights: np.ndarray | None = None,
        cotangent: Any = None,
    ) -> np.ndarray:
        """Return the values ``<psi|O_k|psi>``, float64 (K,), of a state of any norm.

        Args:
            plan: a fused program without gates, which takes any start state.
            terms: the terms of K observables on the bits of the state.
            state: (1, 2**n).
            weights: float64 (K,); None requests no cotangent.
            cotangent: (1, 2**n), receives ``2 sum_k weights[k] O_k psi``. None without weights.
        """
        gradient = None
        if weights is not None:
            gradient = GradientRequest(self.xp.asarray(weights), of_initial_states=True)
        columns = self._columns(np.zeros((1, plan.program.num_columns)))
        pairs = all_pairs(1, terms.num_observables)
        request = Request(columns, pairs, gradient, BoundaryStates(state), self.dtype)
        evaluation = self.engine.evaluate(plan, GivenTerms(terms), request)
        if cotangent is not None:
            cotangent[...] = self._on_device(evaluation.state_gradients)
        values: np.ndarray = to_numpy(evaluation.values)
        return values

    def _columns(self, columns: np.ndarray) -> SplitColumns:
        split = SplitColumns.of(columns, np.zeros(columns.shape[1], bool))
        return SplitColumns(self.xp.asarray(split.varying), self.xp.asarray(split.shared), split.is_varying)

    def _on_device(self, states: Any) -> Any:
        return self.xp.asarray(states, dtype=self.dtype)
