# SPDX-License-Identifier: Apache-2.0
"""Throttle of launches: bounds the work that the host launches ahead of a CUDA device.

The bound is large enough to keep the device busy, and small enough to report progress and to stop an evaluation soon.
"""

from __future__ import annotations

import time
from typing import Any

from qiskit_fused.engines.interface import Watch

FIRST_AHEAD = 1 << 28  # amplitudes swept before the first wait: some 10 ms of an H200 (computed, not measured)
LEAST_WAIT, MOST_WAIT = 0.03, 0.06  # aimed time between two waits, in seconds; one sweep may take longer


class Pace:
    """Waits for the device from time to time, and reports the finished steps to ``watch``.

    Args:
        runtime: the device.
        watch: see `Engine.evaluate`; a step is a sweep over one state.

    Attributes:
        num_sweeps: number of sweeps launched since the last call of `expect`.
    """

    def __init__(self, runtime: Any, watch: Watch | None):
        self._runtime, self._watch = runtime, watch
        self._done = self._launched = self._total = 0
        self._ahead, self._most_ahead = 0, FIRST_AHEAD
        self._waited = time.perf_counter()
        self.num_sweeps = 0

    def expect(self, num_steps: int) -> None:
        """Set the number of steps that are left; an evaluation that starts again calls this again."""
        self.num_sweeps, self._done = 0, self._launched
        self._total = self._done + num_steps
        self._look()

    def launch(self, num_steps: int, state_size: int) -> None:
        """Count a sweep that the caller launches next, and wait first if the host is far ahead.

        Args:
            num_steps: number of states that the sweep goes over.
            state_size: number of amplitudes of a state.
        """
        if self._ahead >= self._most_ahead or time.perf_counter() - self._waited >= MOST_WAIT:
            self._runtime.synchronize()
            self.arrive()
        self.num_sweeps += 1
        self._launched += num_steps
        self._ahead += num_steps * state_size

    def skip(self, num_steps: int) -> None:
        """Count the steps of an expected sweep that is not launched."""
        self._launched += num_steps

    def arrive(self) -> None:
        """Report that the device has finished all launched work, and adapt the bound to the time that it took.

        Raises:
            RuntimeError: when ``watch`` asks to stop.
        """
        now = time.perf_counter()
        if self._ahead >= self._most_ahead:
            seconds = now - self._waited
            if seconds < LEAST_WAIT:
                self._most_ahead *= 2
            elif seconds > MOST_WAIT:
                self._most_ahead = max(self._most_ahead // 2, 1)
        self._ahead, self._waited, self._done = 0, now, self._launched
        self._look()

    def _look(self) -> None:
        if self._watch is not None and self._watch(self._done, self._total):
            raise RuntimeError("the evaluation was cancelled.")
