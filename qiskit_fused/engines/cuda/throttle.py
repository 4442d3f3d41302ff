# SPDX-License-Identifier: Apache-2.0
"""How far the host runs ahead of a CUDA device: far enough to keep it busy, near enough to tell and to stop it."""

from __future__ import annotations

import time
from typing import Any

from qiskit_fused.engines.interface import Watch

FIRST_AHEAD = 1 << 28  # amplitudes to sweep before the first wait: some 10 ms of an H200 (computed)
LEAST_WAIT, MOST_WAIT = 0.03, 0.06  # seconds between waits, where single sweeps are not longer


class Pace:
    """Waits for the device now and then, and tells ``watch`` what has been done.

    Args:
        runtime: the device.
        watch: see `Engine.evaluate`; its steps are sweeps over one state.

    Attributes:
        num_sweeps: launched since `expect`.
    """

    def __init__(self, runtime: Any, watch: Watch | None):
        self._runtime, self._watch = runtime, watch
        self._done = self._launched = self._total = 0
        self._ahead, self._most_ahead = 0, FIRST_AHEAD
        self._waited = time.perf_counter()
        self.num_sweeps = 0

    def expect(self, num_steps: int) -> None:
        """Take that many steps for all that is left; an evaluation that begins again expects anew."""
        self.num_sweeps, self._done = 0, self._launched
        self._total = self._done + num_steps
        self._look()

    def launch(self, num_steps: int, state_size: int) -> None:
        """Count a sweep that is about to be launched, of that many steps, and wait if the host is far ahead."""
        if self._ahead >= self._most_ahead or time.perf_counter() - self._waited >= MOST_WAIT:
            self._runtime.synchronize()
            self.arrive()
        self.num_sweeps += 1
        self._launched += num_steps
        self._ahead += num_steps * state_size

    def skip(self, num_steps: int) -> None:
        """Count the steps of a sweep that was expected and is not needed."""
        self._launched += num_steps

    def arrive(self) -> None:
        """Take note that the device has done all that was launched.

        Raises:
            RuntimeError: when ``watch`` wants to stop.
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
