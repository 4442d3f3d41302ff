# SPDX-License-Identifier: Apache-2.0
"""Time one training step on a GPU against other simulators and write benchmarks/results/<device>/<date>.json.

A step is the values of all rows of a batch and the gradient of their mean with respect to all weights, in complex64.
Every contender runs in its own process on the same GPU, is compared with the CPU engine in double precision and, with
the whole batch, with ours; then they take turns. The exit status is 1 if a contender differs, 2 without a usable GPU.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.harness import progress, revision, version
from common.workloads import Workload
from gpu import worker
from gpu.peers import PEERS, CpuReference, Fused, NumpyReference, encoded_ansatz
from gpu.report import print_report
from main.worker import Worker, WorkerError

# Single precision: values relative to n, the gradient to its largest component; the CPU engine's errors are 2e-8 and
# 1e-5. The values of deep circuits are about 2^(-n/2): a bound of 1e-3 would accept any circuit.
VALUE_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-3
TURN_SECONDS = 0.1
MAX_CALLS, MIN_TURNS, MAX_TURNS = 100, 3, 15
TIMEOUT = 3600.0  # seconds; kernels are compiled and blocks tuned in the first answer
PACKAGES = ("qiskit-fused", "qiskit", "numpy", "cupy-cuda12x", "cupy-cuda13x", "triton-qml", "torch", "triton",
            "tensorcircuit-ng", "jax", "pennylane-lightning-gpu", "pennylane-lightning")  # fmt: skip

Record = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A workload of the benchmark.

    Attributes:
        workload: the circuit and its batch; `required` is how many times faster than triton-qml it is meant to be.
        goal_ms: the project's goal for one NVIDIA H200.
        check_rows: rows that the CPU computes again in double precision.
        extrapolates: the name of the case whose time this one's is also scaled to.
    """

    workload: Workload
    goal_ms: float | None = None
    check_rows: int = 2
    extrapolates: str | None = None


CASES = (
    Case(encoded_ansatz("(i) n=12 L=50 B=1000", 12, 50, 1000, required=10), goal_ms=3.5, check_rows=8),
    Case(encoded_ansatz("(ii) n=16 L=100 B=1000", 16, 100, 1000, required=6), goal_ms=110, check_rows=4),
    Case(encoded_ansatz("(iii) n=20 L=1000 B=8", 20, 1000, 8), extrapolates="(iii) n=20 L=1000 B=1000"),
    Case(encoded_ansatz("(iii) n=20 L=1000 B=1000", 20, 1000, 1000, required=6), goal_ms=25_000),
)
DRY_CASES = (
    Case(encoded_ansatz("(i) n=4 L=3 B=6", 4, 3, 6, required=10), goal_ms=3.5, check_rows=3),
    Case(encoded_ansatz("(ii) n=5 L=2 B=4", 5, 2, 4, required=6)),
    Case(encoded_ansatz("(iii) n=6 L=4 B=2", 6, 4, 2), extrapolates="(iii) n=6 L=4 B=5"),
    Case(encoded_ansatz("(iii) n=6 L=4 B=5", 6, 4, 5, required=6)),
)


def main() -> int:
    """Run the benchmark."""
    options = _parse()
    if options.print:
        print_report(json.loads(options.print.read_text()))
        return 0
    device = "cpu" if options.dry_run else "cuda"
    ours = Worker(Fused, "complex64", options.threads, TIMEOUT)
    reference = Worker(NumpyReference if options.dry_run else CpuReference, "complex128", options.threads, TIMEOUT)
    peers = [Worker(PEERS[name], "complex64", options.threads, TIMEOUT) for name in options.peers]
    try:
        info, reason = _describe(ours, device)
        if info is None:
            print(reason, file=sys.stderr)
            return 2
        results: Record = {
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "gpu": info,
            "engine": device,
            "dry_run": options.dry_run,
            "machine": {"platform": platform.platform(), "python": platform.python_version()},
            "versions": {name: version(name) for name in PACKAGES},
            "revision": revision(),
            "ceilings": ours.call(worker.ceilings, device, options.threads),
            "skipped": {},
            "workloads": [],
        }
        for case in _selected(options):
            progress(case.workload.name)
            run = _Run(case, device, options.seconds, results["skipped"])
            results["workloads"].append(run.record)
            run.go(ours, reference, peers)
            peers = [one for one in peers if one.contender.label not in results["skipped"]]
    finally:
        for one in (ours, reference, *peers):
            one.close()
    progress("")
    print_report(results)
    if not (options.dry_run or options.no_save):
        print(f"\nwritten to {_save(results, options.device)}")
    return 1 if any("aborted" in record for record in results["workloads"]) else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    split = lambda text: [part.strip() for part in text.split(",") if part.strip()]  # noqa: E731
    parser.add_argument("--dry-run", action="store_true", help="tiny circuits on the CPU engine, nothing written")
    parser.add_argument("--only", type=split, default=[], metavar="(i),(iii)", help="workloads whose names start so")
    parser.add_argument("--peers", type=split, default=list(PEERS), help=f"some of {','.join(PEERS)}, or '' for none")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="time for each contender in a workload (default 20)"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads, for the reference")
    parser.add_argument("--device", help="folder under benchmarks/results (default: the name of the GPU)")
    parser.add_argument("--no-save", action="store_true", help="write no results file")
    parser.add_argument("--print", type=Path, metavar="FILE", help="print the tables of a results file again")
    options = parser.parse_args()
    if unknown := set(options.peers) - set(PEERS):
        parser.error(f"unknown peer {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    names = [case.workload.name for case in (DRY_CASES if options.dry_run else CASES)]
    if options.only and not _selected(options):
        parser.error(f"no workload starts with {' or '.join(options.only)}; there are {names}")
    if options.dry_run:
        options.seconds, options.threads = min(options.seconds, 0.05), 1
    return options


def _selected(options: argparse.Namespace) -> list[Case]:
    cases = DRY_CASES if options.dry_run else CASES
    return [case for case in cases if not options.only or case.workload.name.startswith(tuple(options.only))]


def _describe(ours: Worker, device: str) -> tuple[Record | None, str]:
    """Return what is known of the device, or None and why it cannot be used."""
    try:
        info = ours.call(worker.describe_device, device)
    except WorkerError as error:
        return None, f"cannot use qiskit-fused with {sys.executable}: {error}; pip install '.[cuda12]' or '.[cuda13]'"
    return (None, f"no usable GPU: {info['unusable']}") if "unusable" in info else (info, "")


class _Run:
    """One workload: everybody prepares, is compared, and takes turns. `record` holds what was found so far."""

    def __init__(self, case: Case, device: str, seconds: float, skipped: dict[str, str]) -> None:
        self.case, self.workload, self.device, self.seconds, self.skipped = (
            case,
            case.workload,
            device,
            seconds,
            skipped,
        )
        names = ("name", "num_qubits", "num_layers", "num_parameters", "batch", "required")
        self.record: Record = {name: getattr(self.workload, name) for name in names}
        self.record |= {"goal_ms": case.goal_ms, "extrapolates": case.extrapolates, "contenders": []}
        self.check_rows = min(case.check_rows, self.workload.batch)

    def go(self, ours: Worker, reference: Worker, peers: list[Worker]) -> None:
        """Fill in the record."""
        try:
            reference.call(worker.prepare, self.workload, "cpu", self.seconds)
            _, *self.truth = reference.call(worker.call, 0, self.check_rows)
        except WorkerError as error:
            self.record["aborted"] = f"{reference.contender.label}: {error}"
            return
        running = [pair for one in (ours, *peers) if (pair := self._admit(one, ours))]
        wrong = [f"{entry['label']}: {entry['wrong']}" for entry in self.record["contenders"] if "wrong" in entry]
        if not any(one is ours for one, _ in running):
            wrong.append(f"{ours.contender.label}: {self.record['contenders'][0].get('failed')}")
        if wrong:
            self.record["aborted"] = "; ".join(wrong)
            return
        self._take_turns(running)
        self.record |= ours.call(worker.work)

    def _admit(self, one: Worker, ours: Worker) -> tuple[Worker, Record] | None:
        """Prepare and check a contender; return it with its entry if it may be timed."""
        entry: Record = {"label": one.contender.label, "dtype": one.dtype}
        progress(f"{self.workload.name}: {entry['label']}")
        try:
            prepared = one.call(worker.prepare, self.workload, self.device, self.seconds / 2)
            if "skipped" in prepared:
                self.skipped[entry["label"]] = prepared["skipped"]
                one.close()
                return None
            self.record["contenders"].append(entry)
            entry |= prepared | {"extrapolated": prepared["rows"] < self.workload.batch}
            _, *few = one.call(worker.call, 0, self.check_rows)
            entry["first_call_s"], *many = one.call(worker.call, 0, entry["rows"])
            one.call(worker.release)
            errors = [self._errors(few, self.truth)]
            if one is not ours:
                errors.append(self._errors(many, ours.call(worker.call, 0, entry["rows"])[1:]))
                ours.call(worker.release)
        except WorkerError as error:
            if entry not in self.record["contenders"]:
                self.record["contenders"].append(entry)
            entry["failed"] = str(error)
            return None
        entry["value_error"], entry["gradient_error"] = np.max(errors, axis=0).tolist()
        if entry["value_error"] <= VALUE_TOLERANCE and entry["gradient_error"] <= GRADIENT_TOLERANCE:
            return one, entry
        entry["wrong"] = f"values differ by {entry['value_error']:.1e}, the gradient by {entry['gradient_error']:.1e}"
        return None

    def _errors(self, found: Any, expected: Any) -> tuple[float, float]:
        """Return the largest error of a value, in units of n, and of a component, in units of the largest one."""
        shapes = [[array.shape for array in both] for both in (found, expected)]
        if shapes[0] != shapes[1] or not all(np.isfinite(array).all() for array in found):
            return np.inf, np.inf
        values, gradient = (np.abs(a - b).max() for a, b in zip(found, expected, strict=True))
        return float(values / self.workload.num_qubits), float(gradient / np.abs(expected[1]).max())

    def _take_turns(self, running: list[tuple[Worker, Record]]) -> None:
        times: list[list[float]] = [[] for _ in running]
        seed = 1
        for number in range(MAX_TURNS):
            for (one, entry), spent in zip(running, times, strict=True):
                if "failed" in entry or (number >= MIN_TURNS and sum(spent) >= self.seconds):
                    continue
                expected = spent[-1] if spent else entry["first_call_s"]
                calls = int(np.clip(TURN_SECONDS / expected, 1, MAX_CALLS))
                progress(f"{self.workload.name}: {entry['label']}, turn {number + 1}")
                try:
                    spent += one.call(worker.turn, seed, calls, expected)
                    entry["peak_bytes"] = one.call(worker.peak_bytes)
                except WorkerError as error:
                    entry["failed"] = str(error)
                seed += 1 + calls
        for (_, entry), spent in zip(running, times, strict=True):
            if "failed" not in entry:
                entry |= _statistics(spent, self.workload.batch / entry["rows"])


def _statistics(times: list[float], scale: float) -> Record:
    """Return times of the whole batch in milliseconds: `scale` times those taken."""
    scaled = [1e3 * scale * time for time in times]
    quartiles = np.percentile(scaled, (25, 75)).tolist()
    return {"times_ms": [float(f"{time:.5g}") for time in scaled], "median_ms": statistics.median(scaled),
            "min_ms": min(scaled), "quartile_1_ms": quartiles[0], "quartile_3_ms": quartiles[1]}  # fmt: skip


def _save(results: Record, device: str | None) -> Path:
    name = device or re.sub(r"[^a-z0-9]+", "-", results["gpu"]["name"].lower()).strip("-")
    folder = Path(__file__).parent.parent / "results" / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{results['date'][:16].replace(':', '')}.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    return path
