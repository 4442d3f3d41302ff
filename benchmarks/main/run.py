# SPDX-License-Identifier: Apache-2.0
"""Time qiskit-fused against other simulators, side by side, and write benchmarks/results/<device>/<date>.json.

Every contender runs in its own process on the same CPUs. Values and gradients are compared before anything is timed;
then the contenders take turns, with new parameters in every call.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
from typing import Any

import numpy as np

from common import own
from common.contender import Contender, limited, too_large
from common.harness import busy_cpus, claim_cpus, describe, make_parser, progress, refuse_unknown, save, version
from common.workloads import QUICK, WORKLOADS, Workload, select
from main import worker
from main.peers import ALSO_OURS, CHECK, OURS, PEERS
from main.report import failures, print_report
from main.worker import Worker, WorkerError

# Relative to n for values and to the largest component for gradients. They catch wrong circuits, not rounding: single
# precision loses up to 2e-4 in the deepest sums (W3).
TOLERANCES = {"complex64": 1e-3, "complex128": 1e-9}
TURN_SECONDS = 0.1
MAX_CALLS, MIN_TURNS, MAX_TURNS = 1000, 3, 15
PACKAGES = ("qiskit-fused", "qiskit", "qiskit-machine-learning", "qiskit-algorithms", "pennylane",
            "pennylane-lightning", "tensorcircuit-ng", "jax", "jaxlib", "qulacs", "torch", "triton-qml", "qiskit-aer",
            "numpy", "scipy")  # fmt: skip


def main() -> int:
    """Run the benchmark; the exit status is 1 if a contender failed or differs."""
    options = _parse()
    workloads = list(QUICK) if options.quick else select(WORKLOADS, options.only)
    if options.list:
        for workload in WORKLOADS:
            print(workload.name)
        print("peers:", ", ".join(PEERS))
        return 0
    claim_cpus(options.threads)
    results = describe(options, PACKAGES, PEERS)
    contenders = [*OURS.values(), *ALSO_OURS, *(PEERS[name] for name in options.peers)]
    workers, results["missing"] = make_workers([*contenders, CHECK] if options.quick else contenders, options.threads)
    results["workloads"] = records = []
    try:
        for i, workload in enumerate(workloads):
            progress(f"[{i + 1}/{len(workloads)}] {workload.name}")
            busy = busy_cpus()
            taking = [one for one in workers if one.contender.networks == workload.network or one.contender is CHECK]
            records.append(run_workload(workload, taking, options.seconds) | {"busy_cpus": busy})
        results["ceilings"] = workers[0].call(own.ceilings, options.threads)
        results["own"] = _run_own(records, workloads, workers, options)
    finally:
        for one in workers:
            one.close()
    progress("")
    print_report(results)
    save(results, options)
    return 1 if any(failures(record) for record in records) else 0


def _parse() -> argparse.Namespace:
    parser = make_parser(__doc__, "workloads whose names start so, such as W1,W3 (see --list)", PEERS)
    parser.add_argument("--list", action="store_true", help="list workloads and peers")
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each contender in a workload (default 3)")
    parser.add_argument("--no-own", action="store_true", help="leave out the figures of qiskit-fused alone")
    options = parser.parse_args()
    refuse_unknown(parser, "peer", options.peers, PEERS)
    try:
        select(WORKLOADS, options.only)
    except ValueError as error:
        parser.error(str(error))
    if options.quick:
        options.seconds = min(options.seconds, 0.2)
    return options


def make_workers(
    contenders: list[type[Contender]], threads: int, timeout: float = 180.0
) -> tuple[list[Worker], list[str]]:
    """Return a worker per contender and precision, and a line for each whose package is not installed."""
    workers, missing = [], []
    for contender in contenders:
        if contender.package != "qiskit-fused" and version(contender.package) is None:
            missing.append(f"{contender.label}: {contender.package} is not installed")
            continue
        workers += [Worker(contender, dtype, threads, timeout) for dtype in contender.precisions]
    return workers, missing


def run_workload(workload: Workload, workers: list[Worker], seconds: float, whole: bool = False) -> dict[str, Any]:
    """Check and time one workload; `whole` gives everybody all rows, however long they take."""
    record = {key: getattr(workload, key) for key in ("name", "num_qubits", "num_layers", "num_parameters", "batch")}
    record |= {"required": workload.required, "aim": workload.aim}
    entries: list[tuple[Worker, dict[str, Any]]] = []
    answers = {}
    for one in workers:
        given = workload if whole else limited(one.contender, workload)
        entry: dict[str, Any] = {"label": one.contender.label, "dtype": one.dtype}
        entry |= {"rows": given.batch, "extrapolated": given.batch < workload.batch}
        entries.append((one, entry))
        if reason := too_large(one.contender, workload):
            entry["left_out"] = reason
            continue
        try:
            entry["prepare_s"] = one.call(worker.prepare, given)
            entry["first_call_s"], *answers[one] = one.call(worker.first_call, 0)
        except WorkerError as error:
            entry["failed"] = str(error)
    record["contenders"] = [entry for _, entry in entries]
    _compare(workload, entries, answers)
    if not any("failed" in entry or "wrong" in entry for one, entry in entries if one.contender in OURS.values()):
        running = [(one, entry) for one, entry in entries if one in answers and "wrong" not in entry]
        take_turns(workload, [pair for pair in running if pair[0].contender is not CHECK], seconds)
        for one in [one for one in workers if one.contender is OURS[workload.network]][:1]:
            with contextlib.suppress(WorkerError):
                record["work"] = one.call(own.work, workload)
    return record


def _compare(workload: Workload, entries: list[tuple[Worker, dict[str, Any]]], answers: dict[Worker, Any]) -> None:
    """Compare everybody with ours in double precision (else the first one there is); say what differs."""
    known = [(one, entry) for one, entry in entries if one in answers]
    if not known:
        return
    reference = min((one for one, _ in known), key=lambda one: one.dtype)  # "complex128" sorts first
    for one, entry in known:
        values, gradients = answers[one]
        true_values, true_gradients = (array[: len(values)] for array in answers[reference])
        scale = np.abs(true_gradients).max()
        if gradients.shape != true_gradients.shape or values.shape != true_values.shape:
            entry["wrong"] = f"DIFFERS: shapes {values.shape} {gradients.shape}"
            continue
        entry["value_error"] = float(np.abs(values - true_values).max() / workload.num_qubits)
        entry["gradient_error"] = float(np.abs(gradients - true_gradients).max() / scale)
        if not max(entry["value_error"], entry["gradient_error"]) <= TOLERANCES[one.dtype]:
            entry["wrong"] = (
                f"DIFFERS from {reference.contender.label} {reference.dtype}: values by {entry['value_error']:.1e}, "
                f"gradients by {entry['gradient_error']:.1e}, allowed {TOLERANCES[one.dtype]:.0e}"
            )


def take_turns(workload: Workload, running: list[tuple[Worker, dict[str, Any]]], seconds: float) -> None:
    """Let the contenders take turns until each has used its time, and fill in their entries.

    A contender gets MIN_TURNS turns at least; one whose single call takes longer than `seconds` gets that call only.
    """
    runners = [_Runner(one, entry, workload.batch / entry["rows"]) for one, entry in running]
    for runner in runners:
        runner.probe(seconds)
    for _ in range(MAX_TURNS):
        for runner in runners:
            runner.go(seconds)
    for runner in runners:
        runner.finish()


class _Runner:
    """A contender in one workload: how often it was called and what that took."""

    def __init__(self, one: Worker, entry: dict[str, Any], scale: float) -> None:
        self.worker, self.entry, self.scale = one, entry, scale
        self.seed, self.spent = 1, 0.0
        self.times: list[float] = []
        self.done = False

    def probe(self, seconds: float) -> None:
        """Find out how long a call takes; the time is kept only if there is none for more."""
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
            self.latest = self.worker.call(worker.turn, self.seed, calls)
        except WorkerError as error:
            self.entry["failed"], self.done = str(error), True
            return
        self.seed += calls
        self.spent += calls * self.latest
        self.times.append(self.latest)

    def finish(self) -> None:
        """Fill in the entry, in milliseconds, scaled to the whole batch."""
        if "failed" in self.entry:
            return
        scaled = [1e3 * self.scale * time for time in self.times]
        quartiles = np.percentile(scaled, (25, 75)).tolist()
        self.entry |= {"times_ms": [float(f"{time:.5g}") for time in scaled], "calls": self.seed - 1,
                       "median_ms": statistics.median(scaled), "min_ms": min(scaled), "quartile_1_ms": quartiles[0],
                       "quartile_3_ms": quartiles[1]} | self.worker.call(worker.memory_growth)  # fmt: skip


def _run_own(
    records: list[dict[str, Any]], workloads: list[Workload], workers: list[Worker], options: argparse.Namespace
) -> dict[str, Any]:
    """Measure what concerns qiskit-fused alone, in the process of its complex64 worker."""
    ours = next(one for one in workers if one.contender is OURS[False] and one.dtype == "complex64")
    figures: dict[str, Any] = {"failed": {}}

    def measure(name: str, function: Any, *arguments: Any) -> Any:
        progress(name)
        try:
            return ours.call(function, *arguments)
        except WorkerError as error:
            figures["failed"][name] = str(error)
            return None

    for record, workload in zip(records, workloads, strict=True):
        if not (workload.network or failures(record)):
            record["drop_in"] = measure(f"drop-in {workload.name}", own.drop_in, workload, options.threads)
    if options.no_own or options.only:
        return figures
    sizes = (6,) if options.quick else (10, 12, 14)
    fractions = [measure(f"peak fraction, n={n}", own.peak_fraction, n) for n in sizes]
    figures["peak_fraction"] = [entry for entry in fractions if entry]
    deep = (4, 20) if options.quick else (20, 1000)
    figures["many_parameters"] = measure("many parameters", own.many_parameters, *deep, options.threads)
    return figures
