# SPDX-License-Identifier: Apache-2.0
"""The option ``progress``: shows how much of a job is done, and ends the job when it was cancelled."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from qiskit_fused.common.cancellation import current, uninterrupted
from qiskit_fused.common.job_threads import job_threads
from qiskit_fused.common.text import count_text
from qiskit_fused.compilation.circuits import CompiledCircuit

_INTERVAL = 0.05  # least time between two calls of a callback, or two changes of the bar, in seconds
_BAR_AFTER = 0.5  # the bar is shown when the work has taken 0.5 seconds


class Part(NamedTuple):
    """A part of the work of a job: rows of one circuit.

    Attributes:
        num_qubits: number of qubits that are simulated.
        num_gates: number of gates of the circuit.
        num_rows: number of rows.
        num_adjoint_states: number of adjoint states of a backward sweep; None where no gradients are requested.
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
        """Return the number of steps, at least 1: a step is a gate applied to a statevector of ``num_qubits`` qubits.

        A gate on a statevector of n fewer qubits counts as 2**-n steps.
        """
        return max(1, (self.num_gates * self.num_sweeps) >> (num_qubits - self.num_qubits))

    @property
    def num_sweeps(self) -> int:
        """The number of sweeps over a statevector."""
        return self.num_rows if self.num_adjoint_states is None else 2 * self.num_rows + self.num_adjoint_states

    def __str__(self) -> str:
        return f"{'values' if self.num_adjoint_states is None else 'gradients'}, {count_text(self.num_qubits, 'qubit')}"


class Progress:
    """The progress of one job, or of one call without a job, whose work is done part by part.

    The option ``progress`` decides how progress is shown. The work ends early when the job is cancelled. A step is one
    gate of the circuit on one statevector, forward or backward; see `Part.num_steps` for narrower circuits. The number
    of steps that are done never falls. The total is known beforehand: gates that engines merge, leave out or recompute
    change only the time that a step takes.

    A callback is called when the work begins, when the work ends without an error, and in between at most every 50 ms.
    A bar is made when the work has taken half a second.

    Args:
        show: False, True for a bar, or a callback that is called with ``(done, total)``, in steps.
        parts: all parts of the work; read only if progress is shown.

    Raises:
        ImportError: on entry, for ``show=True`` without tqdm.
    """

    # Default values are attributes of the class, since every small call makes one of these objects.
    _bar: Any = None
    _row = ""  # the row in work, as the bar shows it: "row 3/10"
    _next = 0  # number of the next part
    _begin = _end = _done = _total = 0  # steps: the begin and end of the current part, steps done, all steps
    _quiet_until = 0.0  # time before which no callback is called, in seconds of time.monotonic()

    def __init__(self, show: bool | Callable[[int, int], Any], parts: Iterable[Part]):
        self._cancellation = current()
        self._show, self._all_parts = show, parts

    def __enter__(self) -> Progress:
        if self._show is False:
            return self
        self._parts = list(self._all_parts)
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
        """Begin the next part; the part before it is done.

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
        """Take from an engine how much of the current part is done; return whether to end it (see `Watch`)."""
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
        """Call the callback or draw the bar, unless the last call was less than 50 ms ago."""
        now = time.monotonic()
        if now < self._quiet_until and done < self._total:
            return
        self._quiet_until = now + _INTERVAL
        # The number falls when an engine gives up and another engine begins again: the larger number is shown.
        self._done = max(self._done, done)
        # A cancellation must not stop a callback or tqdm half-way: a callback may do anything, and tqdm holds locks.
        with uninterrupted():
            if callable(self._show):
                with job_threads().in_foreign_code():
                    self._show(self._done, self._total)
            elif now - self._started >= _BAR_AFTER:
                self._draw(now - self._started)

    def _draw(self, seconds: float) -> None:
        """Draw the bar of work that began ``seconds`` ago."""
        if self._bar is None:
            self._bar = _bar_class()(total=self._total, unit="step", unit_scale=True, miniters=1)
            self._bar.start_t -= seconds
        number = f" ({self._next} of {len(self._parts)})" if len(self._parts) > 1 else ""
        self._bar.set_description_str(f"{self._parts[max(self._next - 1, 0)]}{number}", refresh=False)
        self._bar.set_postfix_str(self._row, refresh=False)
        self._bar.update(self._done - self._bar.n)


class _Silence:
    """The progress of work that nobody watches and nobody can cancel, with the interface of `Progress`."""

    def __enter__(self) -> _Silence:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None: ...

    def next_part(self) -> None: ...

    def watch(self, done: int, total: int) -> bool:
        return False


_SILENCE = _Silence()
AnyProgress = Progress | _Silence


def progress_of(
    show: bool | Callable[[int, int], Any], parts: Callable[..., Iterable[Part]], *arguments: Any
) -> AnyProgress:
    """Return the progress of the parts that ``parts(*arguments)`` returns.

    A small call that is neither shown nor part of a job makes no `Progress`, which would take 2 us.
    """
    if show is False and current() is None:
        return _SILENCE
    return Progress(show, parts(*arguments))


def _bar_class() -> Any:
    try:
        # tqdm is optional.
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("option progress=True needs tqdm; pip install tqdm.") from error
    return tqdm
