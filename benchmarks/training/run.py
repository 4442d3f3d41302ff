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

from common import contest
from common.comparison import judge
from common.contest import Case
from common.harness import busy_cpus, claim_cpus, describe, progress, save
from common.tables import MB
from common.worker import Record, attempt
from common.workloads import efficient_su2
from training import measurements
from training.peers import jobs
from training.report import REPORT, SECTIONS

TIMEOUT = 600.0  # seconds for an answer; a gradient of Qiskit takes minutes
CHECKED_CALLS = 3  # number of calls that are compared, since the weights of a model change from step to step
PACKAGES = ("qiskit-fused", "qiskit", "qiskit-machine-learning", "qiskit-algorithms", "torch", "pennylane",
            "pennylane-lightning", "tensorcircuit-ng", "flagquantum", "jax", "jaxlib", "scikit-learn",
            "numpy")  # fmt: skip


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


PEERS = contest.peers_of(jobs(efficient_su2(*FULL.network)).values())


def main() -> int:
    """Run the benchmark."""
    options = contest.parse(__doc__, f"some of {','.join(SECTIONS)}", PEERS, _check_sections, seconds=4.0)
    sizes = QUICK if options.quick else FULL
    claim_cpus(options.threads)
    # Waiting OpenMP threads spin briefly. lightning.qubit is as fast as before on a quiet machine, and does not stall
    # beside other work.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    cases = jobs(efficient_su2(*sizes.network, batch=sizes.batch))
    results = {"kind": "training"} | describe(options, PACKAGES, PEERS)
    for name in options.only or SECTIONS:
        busy = busy_cpus()
        if name in cases:
            section = _run_job(cases[name], options)
        else:
            section = {"digits": _digits, "memory": _memory}[name](sizes, options.threads)
        results[name] = section | {"busy_cpus": busy}
    progress("")
    REPORT.print(results)
    save(results, options, "-training")
    return 1 if REPORT.failures(results) else 0


def _check_sections(options: argparse.Namespace) -> None:
    """Raise ValueError if the options name a section that does not exist."""
    if unknown := set(options.only) - set(SECTIONS):
        raise ValueError(f"unknown section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")


def _run_job(case: Case, options: argparse.Namespace) -> Record:
    """Compare each contender with the check of the job, then let the contenders take turns."""
    workload = case.workload
    record: Record = {"workload": workload.name, "batch": workload.batch, "num_outputs": workload.num_qubits // 2}
    record |= {"title": case.name, "num_weights": workload.num_weights}
    return record | contest.run(case, options, TIMEOUT, calls=CHECKED_CALLS)


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
