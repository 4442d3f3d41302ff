# SPDX-License-Identifier: Apache-2.0
"""Time samplers beside other libraries and write benchmarks/results/<device>/<date>-sampling.json.

A network of probabilities forward and backward, lists of one-row PUBs, many shots from one circuit, and a classifier
that is trained. Probabilities and gradients are compared with double precision, and draws with exact probabilities,
before anything is timed; the exit status is 1 if something differs or fails.
"""

from __future__ import annotations

import argparse
import os

import numpy as np

from common import contest
from common.comparison import compare_with, summary_of
from common.contest import Case
from common.harness import busy_cpus, claim_cpus, describe, progress, save
from common.report import OURS
from common.worker import Record, attempt
from sampling.cases import FULL, PEERS, QUICK
from sampling.classifier import train_iris
from sampling.report import REPORT
from sampling.samplers import compare_draws_with

TIMEOUT = 600.0  # seconds for an answer
CLASSIFIER = "VQC on iris"
LARGEST_DIFFERENCE = 1e-6  # of a loss; an exact sampler of qiskit-machine-learning rounds probabilities to 1e-12
PACKAGES = ("qiskit-fused", "qiskit", "qiskit-machine-learning", "qiskit-aer", "tensorcircuit-ng", "jax", "jaxlib",
            "qulacs", "scikit-learn", "numpy", "scipy")  # fmt: skip


def main() -> int:
    """Run the benchmark."""
    options = contest.parse(__doc__, "workloads whose names start so, such as S1,S4,VQC", PEERS, _selected)
    cases, train = _selected(options)
    claim_cpus(options.threads)
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # waiting OpenMP threads of one contender do not slow the next one
    results = {"kind": "sampling"} | describe(options, PACKAGES, PEERS)
    results["cases"] = []
    for case in cases:
        busy = busy_cpus()
        results["cases"].append(_run(case, options) | {"busy_cpus": busy})
    if train:
        busy = busy_cpus()
        results["classifier"] = _train(options) | {"busy_cpus": busy}
    progress("")
    REPORT.print(results)
    save(results, options, "-sampling")
    return 1 if REPORT.failures(results) else 0


def _selected(options: argparse.Namespace) -> tuple[list[Case], bool]:
    """Return the cases that the options choose, and whether the classifier is trained."""
    return contest.select_cases(QUICK if options.quick else FULL, CLASSIFIER, options.only)


def _run(case: Case, options: argparse.Namespace) -> Record:
    """Compare each contender with the check of the case, then let the contenders take turns."""
    workload = case.workload
    record: Record = {"name": case.name, "shots": case.shots, "rows": workload.batch}
    record |= {"num_qubits": workload.num_qubits, "num_parameters": workload.num_parameters}
    return record | contest.run(case, options, TIMEOUT, compare_with if case.shots is None else compare_draws_with)


def _train(options: argparse.Namespace) -> Record:
    """Train the classifier with ours and with the defaults, each time in a new process."""
    num_features, repetitions, evaluations, sample = (2, 1, 8, 8) if options.quick else (4, 3, 60, 20)
    required = None if options.quick else 50
    goal = {"against": ["VQC defaults"], "required": required, "dtype": "complex128"}
    record: Record = {"name": CLASSIFIER, "evaluations": evaluations, "num_features": num_features, "missing": []}
    record |= {"num_weights": num_features * (repetitions + 1), "goals": [goal], "contenders": []}
    kinds = [(OURS, evaluations, 3), *([("VQC defaults", sample, 1)] if "defaults" in options.peers else [])]
    losses: dict[str, np.ndarray] = {}
    for label, calls, runs in kinds:
        progress(f"{CLASSIFIER}: {label}")
        entry: Record = {"label": label, "dtype": "complex128", "evaluations": calls}
        entry["extrapolated"] = calls < evaluations
        record["contenders"].append(entry)
        seconds = []
        for _ in range(runs):
            arguments = (num_features, repetitions, calls, label == OURS, options.threads)
            found, failed = attempt(train_iris, *arguments)
            if failed:
                entry["failed"] = failed
                break
            more = evaluations / len(found["losses"]) - 1 if entry["extrapolated"] else 0
            seconds.append(found["seconds"] + more * found["fit_s"])
        else:
            losses[label] = np.array(found["losses"])
            entry |= {"last_loss": found["losses"][-1], "accuracy": found["accuracy"]} | summary_of(seconds, 1.0)
    if len(losses) == 2:
        _judge_losses(record["contenders"][1], *losses.values())
    return record


def _judge_losses(entry: Record, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Write into the entry of the defaults by how much our losses differ at the evaluations that both made."""
    shared = min(len(ours), len(theirs))
    entry["value_error"] = float(np.abs(ours[:shared] - theirs[:shared]).max())
    if not entry["value_error"] <= LARGEST_DIFFERENCE:
        entry["wrong"] = f"DIFFERS: losses by {entry['value_error']:.1e}, allowed {LARGEST_DIFFERENCE:.0e}"
