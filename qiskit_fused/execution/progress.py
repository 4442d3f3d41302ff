# SPDX-License-Identifier: Apache-2.0
"""What a job tells while it runs, and how it hears that it was cancelled: the option ``progress``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from qiskit_fused.common.cancellation import current, uninterrupted
from qiskit_fused.common.job_threads import job_threads
from qiskit_fused.compilation.circuits import CompiledCircuit

_INTERVAL = 0.05  # seconds between two calls of a callback or changes of the bar, at least
_BAR_AFTER = 0.5  # seconds of work, before which no bar is shown


class Part(NamedTuple):
    """Some of the work of a job: rows of one circuit.

    Attributes:
        num_adjoint_states: cotangents to go back with, None where no gradients are wanted.
    """

    num_qubits: int
    num_gates: int
    num_rows: int
    num_adjoint_states: int | None = None

    @classmethod
    def of(cls, compiled: CompiledCircuit, num_rows: int, num_adjoint_states: int | None = None) -> Part:
        """Return the part of a circuit, with the qubits and gates that are simulated."""
        program = compiled.program
        return cls(program.num_qubits, len(program.gates), num_rows, num_adjoint_states)

    def num_steps(self, num_qubits: int) -> int:
        """Return the gates to apply to statevectors, at least 1; a gate on fewer than ``num_qubits`` counts less."""
        num_sweeps = self.num_rows if self.num_adjoint_states is None else 2 * self.num_rows + self.num_adjoint_states
        return max(1, (self.num_gates * num_sweeps) >> (num_qubits - self.num_qubits))

    def __str__(self) -> str:
        return f"{'values' if self.num_adjoint_states is None else 'gradients'}, {self.num_qubits} qubits"


class Progress:
    """The work of one job, or of one call without a job, done part by part.

    It is shown as the option ``progress`` asks, and ends early when the job is cancelled. One step is one gate of the
    circuit on one statevector, forward or backward; one of a circuit narrower than the widest counts less. Steps never
    go backwards. Their total is known beforehand: what engines merge, leave out or recompute changes the pace alone.

    A function is called when the work begins, when it ends without an error, and in between every 50 ms or less often.
    A bar is made when the work has taken half a second.

    Args:
        show: False, True for a bar, or a function that is called with ``(done, total)``, in steps.
        parts: all the work; looked at where it is shown.

    Raises:
        ImportError: for True without tqdm, on entry.
    """

    # before anything is shown; small calls make many of these objects
    _bar: Any = None
    _row = ""  # which row is worked on, in words
    _next = 0  # part
    _begin = _end = _done = _total = 0  # steps
    _quiet_until = 0.0

    def __init__(self, show: bool | Callable[[int, int], Any], parts: Iterable[Part]):
        self._cancellation = current()
        self._show, self._given = show, parts

    def __enter__(self) -> Progress:
        if self._show is False:
            return self
        self._parts = list(self._given)
        if self._parts:
            num_qubits = max(part.num_qubits for part in self._parts)
            self._steps = [part.num_steps(num_qubits) for part in self._parts]
            self._total = sum(self._steps)
            if self._show is True:
                _bar_class()
            self._started = time.monotonic()
            self._tell(0)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None and self._done < self._total:
                self._tell(self._total)
        finally:
            if self._bar is not None:
                with uninterrupted():
                    self._bar.close()

    def next_part(self) -> None:
        """Go on to the next part; the one before it is done.

        Raises:
            RuntimeError: when the job was cancelled.
        """
        if self._cancellation is not None:
            self._cancellation.check()
        if self._total:
            self._begin, self._end = self._end, self._end + self._steps[self._next]
            self._next += 1
            self._row = ""
            self._tell(self._begin)

    def watch(self, done: int, total: int) -> bool:
        """Hear from an engine how much of the part is done; say whether to end it (see `engines.Watch`)."""
        if self._cancellation is not None and self._cancellation.is_set():
            return True
        if self._total:
            fraction = min(done / total, 1.0) if total else 0.0
            num_rows = self._parts[self._next - 1].num_rows
            if num_rows > 1:
                self._row = f"row {min(int(fraction * num_rows) + 1, num_rows)}/{num_rows}"
            self._tell(self._begin + int((self._end - self._begin) * fraction))
        return False

    def _tell(self, done: int) -> None:
        now = time.monotonic()
        if now < self._quiet_until and done < self._total:
            return
        self._quiet_until = now + _INTERVAL
        self._done = max(self._done, done)  # less is done when an engine gives up and another one begins again
        # The function may do anything; tqdm holds locks of its own. An exception that stops them half-way would harm.
        with uninterrupted():
            if callable(self._show):
                with job_threads().in_foreign_code():
                    self._show(self._done, self._total)
            elif now - self._started >= _BAR_AFTER:
                self._draw(now - self._started)

    def _draw(self, seconds: float) -> None:
        if self._bar is None:
            self._bar = _bar_class()(total=self._total, unit="step", unit_scale=True, miniters=1)
            self._bar.start_t -= seconds
        number = f" ({self._next} of {len(self._parts)})" if len(self._parts) > 1 else ""
        self._bar.set_description_str(f"{self._parts[max(self._next - 1, 0)]}{number}", refresh=False)
        self._bar.set_postfix_str(self._row, refresh=False)
        self._bar.update(self._done - self._bar.n)


def _bar_class() -> Any:
    try:
        # tqdm is optional.
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("option progress=True needs tqdm; pip install tqdm.") from error
    return tqdm
