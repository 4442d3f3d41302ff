# SPDX-License-Identifier: Apache-2.0
"""Time qiskit-fused against other simulators, side by side, and write benchmarks/results/<device>/<date>.json.

Every contender runs in its own process on the same CPUs. Values and gradients are compared before anything is timed;
then the contenders take turns, with new parameters in every call.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from common import own
from common.comparison import compare_with_ours, make_workers, measure
from common.harness import busy_cpus, claim_cpus, describe, make_parser, progress, refuse_unknown, save
from common.numpy_adjoint import NumpyAdjoint
from common.report import OURS, failed_contenders
from common.worker import Record, Worker, WorkerError
from common.workloads import QUICK, WORKLOADS, Workload, select
from main.peers import FUSED, PEERS
from main.report import REPORT

PACKAGES = ("qiskit-fused", "qiskit", "qiskit-machine-learning", "qiskit-algorithms", "pennylane",
            "pennylane-lightning", "tensorcircuit-ng", "jax", "jaxlib", "qulacs", "torch", "triton-qml", "qiskit-aer",
            "flagquantum", "mindquantum", "scaluq", "numpy", "scipy")  # fmt: skip


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
    contenders = [*FUSED, *(PEERS[name] for name in options.peers), *([NumpyAdjoint] if options.quick else [])]
    if options.beside:
        os.environ[own.OTHER_CHECKOUT] = str(options.beside.resolve())
        contenders.append(own.FusedOther)
    workers, results["missing"] = make_workers(contenders, options.threads)
    results["workloads"] = records = []
    try:
        for i, workload in enumerate(workloads):
            progress(f"[{i + 1}/{len(workloads)}] {workload.name}")
            busy = busy_cpus()
            taking = [
                one for one in workers if one.contender.networks == workload.network or not one.contender.is_timed
            ]
            records.append(run_workload(workload, taking, options.seconds) | {"busy_cpus": busy})
        results["ceilings"] = workers[0].call(own.ceilings, options.threads)
        results["own"] = _run_own(records, workloads, workers, options)
    finally:
        for one in workers:
            one.close()
    progress("")
    REPORT.print(results)
    save(results, options)
    return 1 if any(failed_contenders(record["name"], record) for record in records) else 0


def _parse() -> argparse.Namespace:
    parser = make_parser(__doc__, "workloads whose names start so, such as W1,W3 (see --list)", PEERS)
    parser.add_argument("--list", action="store_true", help="list workloads and peers")
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each contender in a workload (default 3)")
    parser.add_argument("--no-own", action="store_true", help="leave out the figures of qiskit-fused alone")
    what = "also time qiskit-fused of another checkout, which is compiled in place; nothing is written"
    parser.add_argument("--beside", type=Path, metavar="FOLDER", help=what)
    options = parser.parse_args()
    options.no_save |= options.beside is not None
    refuse_unknown(parser, "peer", options.peers, PEERS)
    try:
        select(WORKLOADS, options.only)
    except ValueError as error:
        parser.error(str(error))
    if options.quick:
        options.seconds = min(options.seconds, 0.2)
    return options


def run_workload(workload: Workload, workers: list[Worker], seconds: float, whole: bool = False) -> Record:
    """Check and time one workload; `whole` gives every contender all rows, however long a call takes."""
    record = {key: getattr(workload, key) for key in ("name", "num_qubits", "num_layers", "num_parameters", "batch")}
    record["required"] = workload.required
    record |= measure(workload, workers, seconds, compare_with_ours, whole=whole)
    ours = [one for one in workers if one.contender.label == OURS]
    if ours and any("median_ms" in entry for entry in record["contenders"]):
        try:
            record["work"] = ours[0].call(own.work, workload)
        except WorkerError as error:
            record["failed"] = f"the work of a row: {error}"
    return record


def _run_own(
    records: list[Record], workloads: list[Workload], workers: list[Worker], options: argparse.Namespace
) -> Record:
    """Measure the figures of qiskit-fused alone, in the process of its complex64 worker."""
    ours = workers[0]
    figures: Record = {"failed": {}}

    def attempt(name: str, function: Any, *arguments: Any) -> Any:
        progress(name)
        try:
            return ours.call(function, *arguments)
        except WorkerError as error:
            figures["failed"][name] = str(error)
            return None

    for record, workload in zip(records, workloads, strict=True):
        if not (workload.network or failed_contenders(record["name"], record)):
            record["drop_in"] = attempt(f"drop-in {workload.name}", own.drop_in, workload, options.threads)
    if options.no_own or options.only:
        return figures
    sizes = (6,) if options.quick else (10, 12, 14)
    fractions = [attempt(f"peak fraction, n={n}", own.peak_fraction, n) for n in sizes]
    figures["peak_fraction"] = [entry for entry in fractions if entry]
    deep = (4, 20) if options.quick else (20, 1000)
    figures["many_parameters"] = attempt("many parameters", own.many_parameters, *deep, options.threads)
    return figures
