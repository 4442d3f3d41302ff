# SPDX-License-Identifier: Apache-2.0
"""Time one training step on a GPU against other simulators and write benchmarks/results/<device>/<date>.json.

A step is the values of all rows of a batch and the gradient of their mean with respect to all weights, in complex64.
Every contender runs in its own process on the same GPU, is compared with the CPU engine in double precision and, with
the whole batch, with ours; then they take turns. The exit status is 1 if a contender failed or differs, 2 without a
usable GPU.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from typing import Any

from common.comparison import Answers, judge, make_workers, measure
from common.harness import busy_cpus, describe, make_parser, progress, refuse_unknown, save
from common.report import OURS
from common.worker import Record, Worker, WorkerError, first_calls, prepare
from common.workloads import Workload, select
from gpu import device
from gpu.peers import PEERS, CpuReference, Fused, NumpyReference, encoded_ansatz
from gpu.report import REPORT

# The largest errors of values in units of n, and of gradients. The errors of the CPU engine are 2e-8 and 1e-5. The
# values of deep circuits are about 2^(-n/2), so a bound of 1e-3 for values would accept any circuit.
ALLOWED = {"complex64": (1e-5, 1e-3)}
TIMEOUT = 3600.0  # seconds for an answer; kernels are compiled and blocks are tuned before the first
PACKAGES = ("qiskit-fused", "qiskit", "numpy", "cupy-cuda12x", "cupy-cuda13x", "triton-qml", "torch", "triton",
            "tensorcircuit-ng", "jax", "pennylane-lightning-gpu", "pennylane-lightning")  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A workload of the benchmark.

    Attributes:
        workload: The circuit and its batch; `required` is our goal, times faster than triton-qml.
        goal_ms: Our goal for one NVIDIA H200.
        check_rows: The number of rows that the CPU computes again in double precision.
        extrapolates: The name of the case to whose rows the time is also scaled.
    """

    workload: Workload
    goal_ms: float | None = None
    check_rows: int = 2
    extrapolates: str | None = None

    @property
    def name(self) -> str:
        return self.workload.name


CASES = (
    Case(encoded_ansatz("(i) n=12 L=50 B=1000", 12, 50, 1000, required=10), goal_ms=3.5, check_rows=8),
    Case(encoded_ansatz("(ii) n=16 L=100 B=1000", 16, 100, 1000, required=6), goal_ms=110, check_rows=4),
    Case(encoded_ansatz("(iii) n=20 L=1000 B=8", 20, 1000, 8), extrapolates="(iii) n=20 L=1000 B=1000"),
    Case(encoded_ansatz("(iii) n=20 L=1000 B=1000", 20, 1000, 1000, required=6), goal_ms=25_000),
)
QUICK = (
    Case(encoded_ansatz("(i) n=4 L=3 B=6", 4, 3, 6, required=10), goal_ms=3.5, check_rows=3),
    Case(encoded_ansatz("(ii) n=5 L=2 B=4", 5, 2, 4, required=6)),
    Case(encoded_ansatz("(iii) n=6 L=4 B=2", 6, 4, 2), extrapolates="(iii) n=6 L=4 B=5"),
    Case(encoded_ansatz("(iii) n=6 L=4 B=5", 6, 4, 5, required=6)),
)


def main() -> int:
    """Run the benchmark."""
    options, cases = _parse()
    where = "cpu" if options.quick else "cuda"
    workers, missing = make_workers([Fused, *(PEERS[name] for name in options.peers)], options.threads, TIMEOUT)
    ours = workers[0]
    reference = Worker(NumpyReference if options.quick else CpuReference, "complex128", options.threads, TIMEOUT)
    try:
        gpu, reason = _find_gpu(ours, where)
        if gpu is None:
            print(reason, file=sys.stderr)
            return 2
        results = {"kind": "gpu", "gpu": gpu, "dry_run": options.quick, "missing": missing, "workloads": []}
        results |= describe(options, PACKAGES, PEERS)
        results["ceilings"] = ours.call(device.ceilings, where, options.threads)
        for case in cases:
            progress(case.name)
            busy = busy_cpus()
            record = run_case(case, workers, reference, where, options.seconds)
            results["workloads"].append(record | {"busy_cpus": busy})
    finally:
        for one in (reference, *workers):
            one.close()
    progress("")
    REPORT.print(results)
    save(results, options)
    return 1 if any("wrong" in entry or "failed" in entry for entry in _entries(results)) else 0


def _entries(results: Record) -> list[Record]:
    return [part for workload in results["workloads"] for part in (workload, *workload["contenders"])]


def _parse() -> tuple[argparse.Namespace, list[Case]]:
    parser = make_parser(__doc__, "workloads whose names start so, such as (i),(iii)", PEERS)
    parser.add_argument("--dry-run", action="store_true", dest="quick", help="the same as --quick, on the CPU engine")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="time for each contender in a workload (default 20)"
    )
    parser.set_defaults(threads=os.cpu_count() or 1)
    options = parser.parse_args()
    refuse_unknown(parser, "peer", options.peers, PEERS)
    try:
        cases = select(QUICK if options.quick else CASES, options.only)
    except ValueError as error:
        parser.error(str(error))
    if options.quick:
        options.seconds, options.threads = min(options.seconds, 0.05), 1
    return options, cases


def _find_gpu(ours: Worker, where: str) -> tuple[Record | None, str]:
    """Return a description of the device, or None and the reason why it cannot be used."""
    try:
        info = ours.call(device.describe_device, where)
    except WorkerError as error:
        return None, f"cannot use qiskit-fused with {sys.executable}: {error}; pip install '.[cuda12]' or '.[cuda13]'"
    return (None, f"no usable GPU: {info['unusable']}") if "unusable" in info else (info, "")


def run_case(case: Case, workers: list[Worker], reference: Worker, where: str, seconds: float) -> Record:
    """Check and time one workload."""
    names = ("name", "num_qubits", "num_layers", "num_parameters", "batch", "required")
    record: Record = {name: getattr(case.workload, name) for name in names}
    record |= {"goal_ms": case.goal_ms, "extrapolates": case.extrapolates}
    check_rows = min(case.check_rows, case.workload.batch)

    def compare(workload: Workload, answers: Answers) -> None:
        reference.call(prepare, workload)
        true: Any = reference.call(first_calls, 1, check_rows)[1:]
        for one, (entry, answer) in answers.items():
            try:
                judge(entry, one.call(first_calls, 1, check_rows)[1:], true, "", workload.num_qubits, ALLOWED)
            except WorkerError as error:
                entry["failed"] = str(error)
                continue
            if entry["label"] != OURS and "wrong" not in entry and ours in answers:
                same_rows = ours.call(first_calls, 1, entry["rows"])[1:]
                judge(entry, answer, same_rows, f" from {OURS}", workload.num_qubits, ALLOWED)

    ours = workers[0]
    attributes = {"device": where, "call_seconds": seconds / 2}
    record |= measure(case.workload, workers, seconds, compare, attributes=attributes)
    if any(entry["label"] == OURS and "median_ms" in entry for entry in record["contenders"]):
        record |= ours.call(device.work)
    return record
