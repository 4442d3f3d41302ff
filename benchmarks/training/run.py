# SPDX-License-Identifier: Apache-2.0
"""Time training beside other libraries and write benchmarks/results/<device>/<date>-training.json.

A network with several outputs forward and backward, a training step, an epoch of digits, and the memory of the gradient
of a loss over many samples. Everything is compared with double precision before it is timed; the exit status is 1 if
something differs or fails.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass

from common.comparison import compare_with, judge, make_workers, measure
from common.harness import busy_cpus, claim_cpus, describe, make_parser, progress, refuse_unknown, save
from common.tables import MB
from common.worker import Record, Worker, attempt
from common.workloads import Workload, efficient_su2
from training import measurements
from training.peers import JOBS, PEERS, Job
from training.report import REPORT, SECTIONS

TIMEOUT = 600.0  # seconds for an answer; a gradient of Qiskit takes minutes
CHECKED_CALLS = 3  # number of calls that are compared, since the weights of a model change from step to step
PACKAGES = ("qiskit-fused", "qiskit", "qiskit-machine-learning", "qiskit-algorithms", "torch", "pennylane",
            "pennylane-lightning", "tensorcircuit-ng", "jax", "jaxlib", "scikit-learn", "numpy")  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """The sizes of all sections.

    Attributes:
        network: (num_qubits, num_layers) of the W2 circuit of the jobs.
        batch: The number of rows of the jobs, and of a batch of digits.
        digits: (num_qubits, num_layers) of the classifier of digits.
        images: The number of images of digits; None is all.
        epochs: The number of epochs of the classifier.
        epoch_goal_s: The largest time of an epoch, in seconds.
        memory: (num_qubits, num_layers) of the W2 circuit with which the memory of a VJP is measured.
        rows: The number of rows of this VJP.
        budgets: The memory limits of this VJP, in bytes.
    """

    network: tuple[int, int]
    batch: int
    digits: tuple[int, int]
    images: int | None
    epochs: int
    epoch_goal_s: float
    memory: tuple[int, int]
    rows: int
    budgets: tuple[int, ...]


FULL = Sizes(
    network=(8, 5),
    batch=64,
    digits=(8, 10),
    images=None,
    epochs=10,
    epoch_goal_s=10.0,
    memory=(12, 20),
    rows=10_000,
    budgets=(16 * MB, 64 * MB, 256 * MB),
)
QUICK = Sizes(
    network=(4, 1),
    batch=4,
    digits=(4, 2),
    images=100,
    epochs=2,
    epoch_goal_s=10.0,
    memory=(4, 10),
    rows=2000,
    budgets=(16 * MB,),
)


def main() -> int:
    """Run the benchmark."""
    options = _parse()
    sizes = QUICK if options.quick else FULL
    claim_cpus(options.threads)
    # Waiting OpenMP threads spin briefly. lightning.qubit is as fast as before on a quiet machine, and does not stall
    # beside other work.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    results = {"kind": "training"} | describe(options, PACKAGES, PEERS)
    for name in options.only or SECTIONS:
        busy = busy_cpus()
        if name in JOBS:
            section = _run_job(JOBS[name], efficient_su2(*sizes.network, batch=sizes.batch), options)
        else:
            section = {"digits": _digits, "memory": _memory}[name](sizes, options.threads)
        results[name] = section | {"busy_cpus": busy}
    progress("")
    REPORT.print(results)
    save(results, options, "-training")
    return 1 if REPORT.failures(results) else 0


def _parse() -> argparse.Namespace:
    parser = make_parser(__doc__, f"some of {','.join(SECTIONS)}", PEERS)
    parser.add_argument("--seconds", type=float, default=4.0, help="time for each contender in a job (default 4)")
    options = parser.parse_args()
    refuse_unknown(parser, "section", options.only, SECTIONS)
    refuse_unknown(parser, "peer", options.peers, PEERS)
    if options.quick:
        options.seconds = min(options.seconds, 0.2)
    return options


def _run_job(job: Job, workload: Workload, options: argparse.Namespace) -> Record:
    """Compare each contender with the check of the job, then let the contenders take turns."""
    record: Record = {"workload": workload.name, "batch": workload.batch, "num_outputs": workload.num_qubits // 2}
    record |= {"title": job.title, "num_weights": workload.num_weights}
    record["goals"] = [
        {"against": [job.peers[name].label for name in names], "required": None if options.quick else required}
        for names, required in job.goals
    ]
    contenders = [*job.ours, *(peer for name, peer in job.peers.items() if name in options.peers)]
    workers, record["missing"] = make_workers(contenders, options.threads, TIMEOUT)
    check = Worker(job.check, "complex128", options.threads, TIMEOUT)
    try:
        return record | measure(workload, workers, options.seconds, compare_with(check), calls=CHECKED_CALLS)
    finally:
        for one in (check, *workers):
            one.close()


def _digits(sizes: Sizes, threads: int) -> Record:
    progress("digits")
    sizes_of = (*sizes.digits, sizes.batch, sizes.images, sizes.epochs)
    found, failed = attempt(measurements.train_digits, *sizes_of, threads)
    if failed:
        return {"failed": failed}
    section, answer, true = found
    judge(section, answer, true)
    return section | {"goal_s": sizes.epoch_goal_s}


def _memory(sizes: Sizes, threads: int) -> Record:
    """Measure a VJP with each budget in a process of its own."""
    workload = efficient_su2(*sizes.memory, batch=sizes.rows)
    record: Record = {"workload": workload.name, "rows": workload.batch, "num_weights": workload.num_weights}
    record |= {"num_outputs": workload.num_qubits // 2, "dtype": "complex64", "entries": []}
    progress("memory: double precision")
    shared = {"num_threads": threads, "device": "cpu"}
    double, record["unchecked"] = attempt(measurements.measure_vjp, workload, shared | {"dtype": "complex128"})
    for budget in (None, *sizes.budgets):
        progress(f"memory: limit {budget}")
        entry: Record = {"memory_limit": budget, "dtype": "complex64"}
        record["entries"].append(entry)
        given = shared | {"dtype": "complex64", "memory_limit": budget}
        found, failed = attempt(measurements.measure_vjp, workload, given)
        if failed:
            entry["failed"] = failed
            continue
        figures, answer = found
        entry |= figures
        if double:
            judge(entry, answer, double[1])
    return record
