# SPDX-License-Identifier: Apache-2.0
"""Sweeps of the extension over a state of the caller, forward or backward, in place.

`CpuEngine.evaluate` makes the states of an evaluation and drops them. A rank of a distributed state keeps its
amplitudes, and sweeps them one segment of a circuit at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qiskit_fused import _cpu
from qiskit_fused.engines.cpu.engine import native_observables
from qiskit_fused.engines.cpu.native_plan import native_plan
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.program.observables import TermMasks

_NO_PAIRS = np.zeros(2, np.int64), np.zeros(0, np.int32)  # the pairs of one row: their begin and end, and none
_NO_VALUES, _NO_WORDS = np.zeros(0), np.zeros(0, np.uint64)


class CpuSweeps:
    """Sweeps over states of the caller in a number format.

    Args:
        dtype: number format in which a sweep holds its amplitudes; the states of the caller are complex128.
        num_threads: largest number of threads.
    """

    xp: Any = np
    state_dtype = "complex128"

    def __init__(self, dtype: str, num_threads: int = 1):
        self.dtype, self.num_threads = dtype, num_threads

    def forward(self, plan: FusedProgram, columns: np.ndarray, state: np.ndarray) -> None:
        """Apply the traceless runs and terms of a fused program to a state (see `BoundaryStates.final`).

        Args:
            plan: the fused program, which takes any start state.
            columns: float64 (1, C).
            state: complex128 (1, 2**n), changed in place.
        """
        self._sweep(plan, columns, None, (state, None, state, None))

    def back(self, plan: FusedProgram, columns: np.ndarray, state: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
        """Undo the traceless runs and terms of a fused program on a state and on its cotangent.

        Args:
            plan: the fused program, which takes any start state.
            columns: float64 (1, C).
            state: complex128 (1, 2**n), the final state; it becomes the start state.
            cotangent: complex128 (1, 2**n), the cotangent of the final state; it becomes the one of the start state.

        Returns:
            float64 (C,), the gradient of ``Re sum conj(G) psi``, where psi is the final state and G its cotangent.
        """
        gradients = np.empty((1, columns.shape[1]))
        self._sweep(plan, columns, gradients, (state, cotangent, state, cotangent), from_end=True)
        row: np.ndarray = gradients[0]
        return row

    def observe(
        self,
        plan: FusedProgram,
        terms: TermMasks,
        state: np.ndarray,
        weights: np.ndarray | None = None,
        cotangent: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the values ``<psi|O_k|psi>``, float64 (K,), of a state of any norm.

        Args:
            plan: a fused program without gates, which takes any start state.
            terms: the terms of K observables on the bits of the state.
            state: complex128 (1, 2**n).
            weights: float64 (K,); None requests no cotangent.
            cotangent: complex128 (1, 2**n), receives ``2 sum_k weights[k] O_k psi``. None without weights.
        """
        num_columns, count = plan.program.num_columns, terms.num_observables
        values = np.empty(count)
        gradients = None if weights is None else np.empty((1, num_columns))
        pairs = np.array([0, count], np.int64), np.arange(count, dtype=np.int32)
        observables = native_observables(plan, terms)
        results = weights, values, gradients
        self._evaluate(plan, observables, np.zeros((1, num_columns)), pairs, results, (state, None, None, cotangent))
        return values

    def _sweep(
        self,
        plan: FusedProgram,
        columns: np.ndarray,
        gradients: np.ndarray | None,
        states: tuple[np.ndarray, np.ndarray | None, np.ndarray | None, np.ndarray | None],
        from_end: bool = False,
    ) -> None:
        """Sweep a state without observables. ``states`` are as for `_evaluate`."""
        words, none = _NO_WORDS, _NO_VALUES
        observables = _cpu.make_observables(plan.num_qubits, 0, _NO_PAIRS[1], words, words, words, words, none, none)
        results = None, _NO_VALUES, gradients
        self._evaluate(plan, observables, columns, _NO_PAIRS, results, states, from_end)

    def _evaluate(
        self,
        plan: FusedProgram,
        observables: Any,
        columns: np.ndarray,
        pairs: tuple[np.ndarray, np.ndarray],
        results: tuple[np.ndarray | None, np.ndarray, np.ndarray | None],
        states: tuple[np.ndarray, np.ndarray | None, np.ndarray | None, np.ndarray | None],
        from_end: bool = False,
    ) -> None:
        """Call the extension.

        Args:
            plan: the fused program.
            observables: the observables in the form of the extension.
            columns: float64 (1, C).
            pairs: the begin and end of the pairs of the row, and the observable of each pair.
            results: the weights of the pairs, and the arrays of values and gradients.
            states: the initial states, cotangents, final states and gradients of states.
            from_end: see ``Request`` in ``kernels/cpu/plan.hpp``.
        """
        weights, values, gradients = results
        is_single = self.dtype == "complex64"
        args = (weights, None, values, gradients, False, is_single, self.num_threads, None, 1, 0, *states, _go_on)
        call: Any = _cpu.evaluate
        call(native_plan(plan).plan, observables, columns, *pairs, *args, from_end=from_end)


def _go_on(done: int, total: int) -> bool:
    """Let a sweep go on. With this watch, Ctrl-C still ends a long sweep."""
    return False
