# SPDX-License-Identifier: Apache-2.0
"""Time qiskit-fused against other simulators, side by side, and write benchmarks/results/<device>/<date>.json.

Every contender runs in its own process on the same CPUs. Values and gradients are compared before anything is timed;
then the contenders take turns, with new parameters in every call.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import own
import worker
from contender import Contender, limited, too_large
from peers import ALSO_OURS, CHECK, OURS, PEERS
from report import print_report, verdict
from worker import Worker, WorkerError
from workloads import QUICK, WORKLOADS, Workload, select

# Relative to n for values and to the largest component for gradients. They catch wrong circuits, not rounding: single
# precision loses up to 2e-4 in the deepest sums (W3).
TOLERANCES = {"complex64": 1e-3, "complex128": 1e-9}
TURN_SECONDS = 0.1
MAX_CALLS, MIN_TURNS, MAX_TURNS = 1000, 3, 15
PACKAGES = ("qiskit-fused", "qiskit", "qiskit-machine-learning", "qiskit-algorithms", "pennylane",
            "pennylane-lightning", "tensorcircuit-ng", "jax", "jaxlib", "qulacs", "numpy", "scipy")  # fmt: skip


def main() -> int:
    """Run the benchmark; the exit status is 1 if a row was aborted."""
    options = _parse()
    workloads = list(QUICK) if options.quick else select(WORKLOADS, options.only)
    if options.list:
        for workload in WORKLOADS:
            print(workload.name)
        print("peers:", ", ".join(PEERS))
        return 0
    _claim_cpus(options.threads)
    workers = _workers(options)
    records, own_figures = [], {}
    try:
        for i, workload in enumerate(workloads):
            _progress(f"[{i + 1}/{len(workloads)}] {workload.name}")
            busy = _busy_cpus()
            records.append(_run_workload(workload, workers, options.seconds) | {"busy_cpus": busy})
        own_figures = _run_own(records, workloads, workers, options)
        machine = _machine(_simd_level(workers))
    finally:
        for one in workers:
            one.close()
    _progress("")
    results = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine,
        "num_threads": options.threads,
        "versions": {name: _version(name) for name in PACKAGES},
        "revision": _revision(),
        "workloads": records,
        "own": own_figures,
    }
    print_report(results)
    if not (options.quick or options.no_save):
        print(f"\nwritten to {_save(results, options.device)}")
    return 1 if any(verdict(record) == "ABORTED" for record in records) else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    split = lambda text: [part for part in text.split(",") if part]  # noqa: E731
    # "W1 (12,20)" holds a comma, so workloads are separated by ';' or by ',' outside brackets.
    names = lambda text: [part.strip() for part in re.split(r"[;,](?![^(]*\))", text) if part.strip()]  # noqa: E731
    parser.add_argument("--only", type=names, default=[], metavar="W1,W2", help="workloads whose names start so")
    parser.add_argument("--peers", type=split, default=list(PEERS), help=f"some of {','.join(PEERS)}, or '' for none")
    parser.add_argument("--quick", action="store_true", help="tiny workloads in seconds, nothing written")
    parser.add_argument("--list", action="store_true", help="list workloads and peers")
    parser.add_argument("--threads", type=int, default=2, help="CPUs for every contender (default 2)")
    parser.add_argument("--seconds", type=float, default=4.0, help="time for each contender in a workload (default 4)")
    parser.add_argument("--device", help="folder under benchmarks/results (default: the name of the CPU)")
    parser.add_argument("--no-own", action="store_true", help="leave out the figures of qiskit-fused alone")
    parser.add_argument("--no-save", action="store_true", help="write no results file")
    options = parser.parse_args()
    if unknown := set(options.peers) - set(PEERS):
        parser.error(f"unknown peer {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    try:
        select(WORKLOADS, options.only)
    except ValueError as error:
        parser.error(str(error))
    if options.quick:
        options.seconds = min(options.seconds, 0.2)
    return options


def _claim_cpus(num_threads: int) -> None:
    """Give this process and its children `num_threads` CPUs, one per core where there are enough cores."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "QULACS_NUM_THREADS"):
        os.environ[name] = str(num_threads)
    os.environ["JAX_PLATFORMS"] = "cpu"
    if not hasattr(os, "sched_setaffinity"):
        return
    cpus = sorted(os.sched_getaffinity(0))
    cores: dict[str, int] = {}
    for cpu in cpus:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.setdefault(siblings.read_text() if siblings.exists() else str(cpu), cpu)
    chosen = sorted(cores.values())
    os.sched_setaffinity(0, (chosen + [cpu for cpu in cpus if cpu not in chosen])[:num_threads])


def _busy_cpus(seconds: float = 0.3) -> float | None:
    """Return how many of our CPUs others keep busy, measured while all contenders are idle; None where unknown."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    time.sleep(0.05)  # OpenMP threads spin a while after their last job

    def idle_ticks() -> int:
        lines = (line.split() for line in Path("/proc/stat").read_text().splitlines())
        ours = {f"cpu{cpu}" for cpu in os.sched_getaffinity(0)}
        return sum(int(line[4]) + int(line[5]) for line in lines if line and line[0] in ours)

    try:
        before = idle_ticks()
        time.sleep(seconds)
        idle = (idle_ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds
    except OSError:
        return None
    return round(max(len(os.sched_getaffinity(0)) - idle, 0.0), 2)


def _workers(options: argparse.Namespace) -> list[Worker]:
    """Return a worker per contender and precision; ours come first, peers that are not installed are left out."""
    contenders: list[type[Contender]] = [*OURS.values(), *ALSO_OURS, *(PEERS[name] for name in options.peers)]
    if options.quick:
        contenders.append(CHECK)
    workers = []
    for contender in contenders:
        if contender not in (*OURS.values(), *ALSO_OURS) and _version(contender.package) is None:
            print(f"{contender.label} is left out: {contender.package} is not installed", file=sys.stderr)
            continue
        workers += [Worker(contender, dtype, options.threads) for dtype in contender.precisions]
    return workers


def _run_workload(workload: Workload, workers: list[Worker], seconds: float) -> dict[str, Any]:
    """Check and time one workload."""
    record = {key: getattr(workload, key) for key in ("name", "num_qubits", "num_layers", "num_parameters", "batch")}
    record |= {"required": workload.required, "aim": workload.aim}
    entries: list[tuple[Worker, dict[str, Any]]] = []
    answers = {}
    for one in workers:
        if one.contender.networks != workload.network and one.contender is not CHECK:
            continue
        rows = limited(one.contender, workload).batch
        entry: dict[str, Any] = {"label": one.contender.label, "dtype": one.dtype}
        entry |= {"rows": rows, "extrapolated": rows < workload.batch}
        entries.append((one, entry))
        try:
            entry["prepare_s"] = one.call(worker.prepare, limited(one.contender, workload))
            entry["first_call_s"], *answers[one] = one.call(worker.first_call, 0)
        except WorkerError as error:
            entry["failed"] = str(error)
    record["contenders"] = [entry for _, entry in entries]
    if wrong := _compare(workload, entries, answers):
        record["aborted"] = "; ".join(wrong)
        return record
    running = [(one, entry) for one, entry in entries if one in answers and one.contender is not CHECK]
    _take_turns(workload, running, seconds)
    return record


def _compare(workload: Workload, entries: list[tuple[Worker, dict[str, Any]]], answers: dict[Worker, Any]) -> list[str]:
    """Compare everybody with ours in double precision (else the first one there is); return what does not fit."""
    known = [(one, entry) for one, entry in entries if one in answers]
    reference = min((one for one, _ in known), key=lambda one: one.dtype)  # "complex128" sorts first
    wrong = [f"{entry['label']} {entry['dtype']}: {entry['failed']}" for one, entry in entries
             if "failed" in entry and one.contender in OURS.values()]  # fmt: skip
    if not known:
        return wrong
    for one, entry in known:
        values, gradients = answers[one]
        true_values, true_gradients = (array[: len(values)] for array in answers[reference])
        scale = np.abs(true_gradients).max()
        if gradients.shape != true_gradients.shape or values.shape != true_values.shape:
            wrong.append(f"{entry['label']} {entry['dtype']}: shapes {values.shape} {gradients.shape}")
            continue
        entry["value_error"] = float(np.abs(values - true_values).max() / workload.num_qubits)
        entry["gradient_error"] = float(np.abs(gradients - true_gradients).max() / scale)
        if not max(entry["value_error"], entry["gradient_error"]) <= TOLERANCES[one.dtype]:
            wrong.append(
                f"{entry['label']} {entry['dtype']} differs from {reference.contender.label} {reference.dtype}: "
                f"values by {entry['value_error']:.1e}, gradients by {entry['gradient_error']:.1e}, "
                f"allowed {TOLERANCES[one.dtype]:.0e}"
            )
    return wrong


def _take_turns(workload: Workload, running: list[tuple[Worker, dict[str, Any]]], seconds: float) -> None:
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
                       "quartile_3_ms": quartiles[1], "peak_mib": self.worker.call(worker.peak_memory)}  # fmt: skip


def _run_own(
    records: list[dict[str, Any]], workloads: list[Workload], workers: list[Worker], options: argparse.Namespace
) -> dict[str, Any]:
    """Measure what concerns qiskit-fused alone, in the process of its complex64 worker."""
    ours = next(one for one in workers if one.contender is OURS[False] and one.dtype == "complex64")
    figures: dict[str, Any] = {"failed": {}}

    def measure(name: str, function: Any, *arguments: Any) -> Any:
        _progress(name)
        try:
            return ours.call(function, *arguments)
        except WorkerError as error:
            figures["failed"][name] = str(error)
            return None

    for record, workload in zip(records, workloads, strict=True):
        if not (workload.network or record.get("aborted")):
            record["drop_in"] = measure(f"drop-in {workload.name}", own.drop_in, workload, options.threads)
    if options.no_own or options.only:
        return figures
    sizes = (6,) if options.quick else (10, 12, 14)
    fractions = [measure(f"peak fraction, n={n}", own.peak_fraction, n) for n in sizes]
    figures["peak_fraction"] = [entry for entry in fractions if entry]
    deep = (4, 20) if options.quick else (20, 1000)
    figures["many_parameters"] = measure("many parameters", own.many_parameters, *deep, options.threads)
    return figures


def _simd_level(workers: list[Worker]) -> str:
    try:
        return workers[0].call(own.simd_level)
    except WorkerError as error:
        return f"unknown SIMD level ({error})"


def _machine(simd: str) -> dict[str, Any]:
    return {"cpu": _cpu_name(), "simd": simd, "num_cpus": os.cpu_count(), "platform": platform.platform(),
            "python": platform.python_version()}  # fmt: skip


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"model name\s*:\s*(.+)", text)
    return found.group(1).strip() if found else platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _revision() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _save(results: dict[str, Any], device: str | None, suffix: str = "") -> Path:
    name = device or re.sub(r"[^a-z0-9]+", "-", f"{results['machine']['cpu']} {os.cpu_count()} cpu".lower()).strip("-")
    folder = Path(__file__).parent / "results" / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{results['date'][:16].replace(':', '')}{suffix}.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    return path


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
