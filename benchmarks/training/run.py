# SPDX-License-Identifier: Apache-2.0
"""Time training beside other libraries and write benchmarks/results/<device>/<date>-training.json.

A network with several outputs forward and backward, a training step, an epoch of digits, and the memory of the gradient
of a loss over many samples. Everything is compared with double precision before it is timed; the exit status is 1 if
something differs or fails.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from dataclasses import dataclass
from typing import Any

from common.contender import Contender, limited
from common.harness import (
    attempt,
    busy_cpus,
    claim_cpus,
    describe,
    make_parser,
    progress,
    refuse_unknown,
    save,
    version,
)
from common.workloads import Workload, efficient_su2
from main import worker
from main.run import TOLERANCES, take_turns
from main.worker import Worker, WorkerError
from training import worker as training_worker
from training.peers import JOBS, PEERS, Job
from training.report import SECTIONS, failures, print_report

MB = 10**6
TIMEOUT = 600.0  # seconds; Qiskit's own gradients take their time
CHECKED_CALLS = 3  # of a model that changes from step to step
PACKAGES = ("qiskit-fused", "qiskit", "qiskit-machine-learning", "qiskit-algorithms", "torch", "pennylane",
            "pennylane-lightning", "tensorcircuit-ng", "jax", "jaxlib", "scikit-learn", "numpy")  # fmt: skip

Record = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """The sizes of all sections.

    Attributes:
        network: (num_qubits, num_layers) of W2, for the jobs.
        batch: rows of the jobs, and of a batch of digits.
        digits: (num_qubits, num_layers).
        images: of the digits; None is all.
        epochs: of the digits.
        epoch_goal_s: seconds of an epoch, at most.
        memory: (num_qubits, num_layers) of W2, for the memory of a VJP.
        rows: of that VJP.
        budgets: memory limits, bytes.
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
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # no slower alone; lightning stalled beside other work
    results = {"kind": "training"} | describe(options, PACKAGES, PEERS)
    for name in options.only or SECTIONS:
        busy = busy_cpus()
        if name in JOBS:
            section = _run_job(JOBS[name], efficient_su2(*sizes.network, batch=sizes.batch), options)
        else:
            section = {"digits": _digits, "memory": _memory}[name](sizes, options.threads)
        results[name] = section | {"busy_cpus": busy}
    progress("")
    print_report(results)
    save(results, options, "-training")
    return 1 if failures(results) else 0


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
    """Compare everybody with the check, then let them take turns."""
    contenders = [*job.ours, *(peer for name, peer in job.peers.items() if name in options.peers)]
    record: Record = {"workload": workload.name, "batch": workload.batch, "num_outputs": workload.num_qubits // 2}
    record |= {"title": job.title, "num_weights": workload.num_weights, "missing": [], "contenders": []}
    record["goals"] = [
        {"against": [job.peers[name].label for name in names], "required": None if options.quick else required}
        for names, required in job.goals
    ]
    workers = []
    for contender in contenders:
        if contender not in job.ours and version(contender.package) is None:
            record["missing"].append(f"{contender.label}: {contender.package} is not installed")
            continue
        workers += [Worker(contender, dtype, options.threads, TIMEOUT) for dtype in contender.precisions]
    check = Worker(job.check, "complex128", options.threads, TIMEOUT)
    try:
        truth = {rows: _truth(check, workload, rows) for rows in {_rows(one.contender, workload) for one in workers}}
        running = []
        for one in workers:
            progress(f"{job.title}: {one.contender.label} {one.dtype}")
            entry = _check(one, workload, truth)
            record["contenders"].append(entry)
            if "failed" not in entry and not entry["wrong"]:
                running.append((one, entry))
        progress(f"{job.title}: turns")
        take_turns(workload, running, options.seconds)
    except WorkerError as error:
        record["failed"] = f"{check.contender.__name__}: {error}"
    finally:
        for one in (check, *workers):
            one.close()
    return record


def _rows(contender: type[Contender], workload: Workload) -> int:
    return limited(contender, workload).batch


def _calls(rows: int, workload: Workload) -> int:
    """Return how many calls are compared: one of those that take seconds for a row."""
    return CHECKED_CALLS if rows == workload.batch else 1


def _truth(check: Worker, workload: Workload, rows: int) -> Any:
    check.call(worker.prepare, dataclasses.replace(workload, batch=rows))
    return check.call(training_worker.first_calls, _calls(rows, workload))[1:]


def _check(one: Worker, workload: Workload, truth: dict[int, Any]) -> Record:
    """Prepare a contender and compare its first calls; return its entry."""
    rows = _rows(one.contender, workload)
    entry: Record = {"label": one.contender.label, "dtype": one.dtype, "rows": rows}
    entry["extrapolated"] = rows < workload.batch
    try:
        entry["prepare_s"] = one.call(worker.prepare, dataclasses.replace(workload, batch=rows))
        entry["first_call_s"], *answer = one.call(training_worker.first_calls, _calls(rows, workload))
        entry |= training_worker.errors(tuple(answer), truth[rows])
    except (WorkerError, ValueError) as error:
        return entry | {"failed": str(error)}
    return entry | {"wrong": not max(entry["value_error"], entry["gradient_error"]) <= TOLERANCES[one.dtype]}


def _digits(sizes: Sizes, threads: int) -> Record:
    progress("digits")
    sizes_of = (*sizes.digits, sizes.batch, sizes.images, sizes.epochs)
    found, failed = attempt(training_worker.train_digits, *sizes_of, threads)
    if failed:
        return {"failed": failed}
    wrong = not max(found["value_error"], found["gradient_error"]) <= TOLERANCES["complex64"]
    return found | {"goal_s": sizes.epoch_goal_s, "wrong": wrong}


def _memory(sizes: Sizes, threads: int) -> Record:
    """Measure a VJP with each budget in a process of its own."""
    workload = efficient_su2(*sizes.memory, batch=sizes.rows)
    record: Record = {"workload": workload.name, "rows": workload.batch, "num_weights": workload.num_weights}
    record |= {"num_outputs": workload.num_qubits // 2, "dtype": "complex64", "entries": []}
    progress("memory: double precision")
    shared = {"num_threads": threads, "device": "cpu"}
    double, record["unchecked"] = attempt(training_worker.measure_vjp, workload, shared | {"dtype": "complex128"})
    for budget in (None, *sizes.budgets):
        progress(f"memory: limit {budget}")
        entry: Record = {"memory_limit": budget}
        record["entries"].append(entry)
        given = shared | {"dtype": "complex64", "memory_limit": budget}
        found, failed = attempt(training_worker.measure_vjp, workload, given)
        if failed:
            entry["failed"] = failed
            continue
        figures, answer = found
        entry |= figures
        if double:
            entry |= training_worker.errors(answer, double[1])
            entry["wrong"] = not max(entry["value_error"], entry["gradient_error"]) <= TOLERANCES["complex64"]
    return record
