# SPDX-License-Identifier: Apache-2.0
"""Compare the answers of contenders, then time the contenders in turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from common.contender import Contender, growth, limited, too_large
from common.harness import progress, version
from common.report import OURS
from common.worker import Record, Worker, WorkerError, first_calls, memory_growth, prepare, turn
from common.workloads import Workload

# The largest errors of values and of gradients. They catch wrong circuits, not rounding: single precision loses up to
# 2e-4 in the deepest sums (W3).
TOLERANCES = {"complex64": (1e-3, 1e-3), "complex128": (1e-9, 1e-9)}
TURN_SECONDS = 0.1
MAX_CALLS, MIN_TURNS, MAX_TURNS = 1000, 3, 15

Answer = tuple[np.ndarray, np.ndarray]  # values and gradients
Answers = dict[Worker, tuple[Record, Answer]]  # by worker: its entry in the results, and the answer of its first calls


def make_workers(
    contenders: Iterable[type[Contender]], threads: int, timeout: float = 180.0
) -> tuple[list[Worker], list[str]]:
    """Return a worker for each contender and precision, and a line for each contender that is not installed."""
    workers, missing = [], []
    for contender in contenders:
        if contender.package != OURS and version(contender.package) is None:
            missing.append(f"{contender.label}: {contender.package} is not installed")
            continue
        workers += [Worker(contender, dtype, threads, timeout) for dtype in contender.precisions]
    return workers, missing


def measure(
    workload: Workload,
    workers: list[Worker],
    seconds: float,
    compare: Callable[[Workload, Answers], None],
    *,
    calls: int = 1,
    whole: bool = False,
    attributes: Record | None = None,
) -> Record:
    """Prepare, compare and time contenders; return ``{"contenders": their entries}``.

    Nobody is timed if qiskit-fused fails or differs, or if `compare` fails, which adds the reason as "failed".

    Args:
        workload: The circuit and its rows.
        workers: The contenders.
        seconds: The time for each contender.
        compare: Calls `judge` for each answer.
        calls: The number of calls that are compared; one for contenders that are given some of the rows only.
        whole: True if everybody is given all rows, however long a call takes.
        attributes: Attributes of the contenders, which are set before `prepare`.
    """
    entries: list[Record] = []
    answers: Answers = {}
    for one in workers:
        progress(f"{workload.name}: {one.contender.label} {one.dtype}")
        given = workload if whole else limited(one.contender, workload)
        entry: Record = {"label": one.contender.label, "dtype": one.dtype, "rows": given.batch}
        entries.append(entry)
        if reason := too_large(one.contender, workload):
            entry |= {"extrapolated": given.batch < workload.batch, "left_out": reason}
            continue
        try:
            entry |= one.call(prepare, given, **attributes or {})
            entry["extrapolated"] = entry["rows"] < workload.batch or growth(one.contender, workload) > 1
            entry["first_call_s"], *answer = one.call(first_calls, 1 if entry["extrapolated"] else calls)
            answers[one] = entry, tuple(answer)
        except WorkerError as error:
            entry["failed"] = str(error)
    record: Record = {"contenders": entries}
    try:
        compare(workload, answers)
    except WorkerError as error:
        return record | {"failed": str(error)}
    if not any(_is_out(entry) for entry in entries if entry["label"] == OURS):
        running = [(one, entry) for one, (entry, _) in answers.items() if one.contender.is_timed and not _is_out(entry)]
        take_turns(workload, running, seconds)
    return record


def _is_out(entry: Record) -> bool:
    return "failed" in entry or "wrong" in entry


def compare_with_ours(workload: Workload, answers: Answers) -> None:
    """Compare rows with the rows of qiskit-fused in double precision, or of the first contender if ours is missing."""
    if not answers:
        return
    reference = min(answers, key=lambda one: one.dtype)  # "complex128" is less than "complex64"
    name = f"{reference.contender.label} {reference.dtype}"
    truth = answers[reference][1]
    for one, (entry, answer) in answers.items():
        values, gradients = (array[:, : entry["rows"]] for array in truth)
        if (part := one.contender.part) is not None:
            values, gradients = values[..., :part], gradients[..., :part, :part]
        judge(entry, answer, (values, gradients), f" from {name}", workload.num_qubits)


def compare_with(check: Worker) -> Callable[[Workload, Answers], None]:
    """Return a comparison with a worker that is given as many rows and calls as the contender."""

    def compare(workload: Workload, answers: Answers) -> None:
        truth: dict[int, Answer] = {}
        for entry, answer in answers.values():
            rows = entry["rows"]
            if rows not in truth:
                check.call(prepare, replace(workload, batch=rows))
                truth[rows] = check.call(first_calls, len(answer[0]))[1:]
            judge(entry, answer, truth[rows])

    return compare


def judge(
    entry: Record,
    found: Answer,
    true: Answer,
    who: str = "",
    scale: float = 1.0,
    allowed: dict[str, tuple[float, float]] = TOLERANCES,
) -> None:
    """Write the errors of an answer into its entry, and "wrong" if they are larger than allowed.

    Args:
        entry: The entry, which may hold errors already; the larger ones stay.
        found: The answer.
        true: The answer it should be.
        who: Words that name the owner of `true`.
        scale: The error of a value is given in units of this number.
        allowed: The largest errors of values and gradients, by precision.
    """
    if [array.shape for array in found] != [array.shape for array in true]:
        entry["wrong"] = f"DIFFERS{who}: shapes {found[0].shape} {found[1].shape}"
        return
    for name, error in errors(found, true, scale).items():
        entry[name] = float(np.maximum(entry.get(name, 0.0), error))  # NaN stays NaN
    limits = allowed[entry["dtype"]]
    if not (entry["value_error"] <= limits[0] and entry["gradient_error"] <= limits[1]):
        most = " and ".join(f"{limit:.0e}" for limit in dict.fromkeys(limits))
        entry["wrong"] = (
            f"DIFFERS{who}: values by {entry['value_error']:.1e}, gradients by {entry['gradient_error']:.1e}, "
            f"allowed {most}"
        )


def errors(found: Answer, true: Answer, scale: float = 1.0) -> dict[str, float]:
    """Return the largest error of a value, in units of `scale`, and of a gradient, relative to the largest component.

    Raises:
        ValueError: If the shapes differ.
    """
    if any(one.shape != other.shape for one, other in zip(found, true, strict=True)):
        raise ValueError(f"shapes {[one.shape for one in found]}, not {[one.shape for one in true]}")
    value, gradient = (float(np.abs(one - other).max()) for one, other in zip(found, true, strict=True))
    return {"value_error": value / scale, "gradient_error": gradient / float(np.abs(true[1]).max())}


def take_turns(workload: Workload, running: list[tuple[Worker, Record]], seconds: float) -> None:
    """Let contenders take turns until each has used its time, and write the times into their entries.

    A contender gets at least MIN_TURNS turns; one whose single call takes longer than `seconds` gets that call only.
    """
    runners = [
        _Runner(one, entry, workload.batch / entry["rows"] * growth(one.contender, workload)) for one, entry in running
    ]
    for runner in runners:
        runner.probe(seconds)
    for number in range(MAX_TURNS):
        progress(f"{workload.name}: turn {number + 1}")
        for runner in runners:
            runner.go(seconds)
    for runner in runners:
        runner.finish()


class _Runner:
    """A contender in its turns: how often it was called, and how long the calls took."""

    def __init__(self, one: Worker, entry: Record, scale: float) -> None:
        self.worker, self.entry, self.scale = one, entry, scale
        self.seed, self.spent = 1, 0.0
        self.times: list[float] = []
        self.done = False

    def probe(self, seconds: float) -> None:
        """Find out how long a call takes; the time is kept only if there is no time for more calls."""
        self._turn(1)
        if self.done or self.times[0] > seconds:
            self.done = True
        else:
            self.latest, self.spent = self.times.pop(), 0.0

    def go(self, seconds: float) -> None:
        """Take a turn if there is time."""
        if not self.done and (len(self.times) < MIN_TURNS or self.spent < seconds):
            self._turn(int(min(max(TURN_SECONDS / self.latest, 1), MAX_CALLS)))

    def _turn(self, calls: int) -> None:
        try:
            self.latest = self.worker.call(turn, self.seed, calls)
        except WorkerError as error:
            self.entry["failed"], self.done = str(error), True
            return
        self.seed += calls
        self.spent += calls * self.latest
        self.times.append(self.latest)

    def finish(self) -> None:
        """Write times and memory into the entry."""
        if "failed" not in self.entry:
            self.entry |= (
                {"calls": self.seed - 1} | summary_of(self.times, self.scale) | self.worker.call(memory_growth)
            )


def summary_of(times: list[float], scale: float) -> Record:
    """Return times of the whole batch in milliseconds, which are `scale` times those taken, and their quartiles."""
    scaled = [1e3 * scale * time for time in times]
    quartiles = np.percentile(scaled, (25, 75)).tolist()
    return {"times_ms": [float(f"{time:.5g}") for time in scaled], "median_ms": statistics.median(scaled),
            "min_ms": min(scaled), "quartile_1_ms": quartiles[0], "quartile_3_ms": quartiles[1]}  # fmt: skip
