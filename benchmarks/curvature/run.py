# SPDX-License-Identifier: Apache-2.0
"""Time metric tensors and second derivatives beside other libraries; write results/<device>/<date>-curvature.json.

Tensors, Hessians and gradients of all libraries are compared with ours in double precision before anything is timed;
the exit status is 1 if something differs or fails.
"""

from __future__ import annotations

import argparse
import os

from common import contest
from common.contest import Case
from common.harness import busy_cpus, claim_cpus, describe, progress, save
from common.worker import Record
from common.workloads import select
from curvature.cases import FULL, PEERS, QUICK
from curvature.report import REPORT

TIMEOUT = 600.0  # seconds for an answer
PACKAGES = ("qiskit-fused", "qiskit", "qiskit-machine-learning", "qiskit-algorithms", "pennylane", "tensorcircuit-ng",
            "jax", "jaxlib", "torch", "numpy", "scipy")  # fmt: skip


def main() -> int:
    """Run the benchmark."""
    options = contest.parse(__doc__, "workloads whose names start so, such as Q1,H3", PEERS, _selected)
    claim_cpus(options.threads)
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # waiting OpenMP threads of one contender do not slow the next one
    results = {"kind": "curvature"} | describe(options, PACKAGES, PEERS)
    results["cases"] = []
    for case in _selected(options):
        busy = busy_cpus()
        results["cases"].append(_run(case, options) | {"busy_cpus": busy})
    progress("")
    REPORT.print(results)
    save(results, options, "-curvature")
    return 1 if REPORT.failures(results) else 0


def _selected(options: argparse.Namespace) -> list[Case]:
    """Return the cases that the options choose."""
    return select(QUICK if options.quick else FULL, options.only)


def _run(case: Case, options: argparse.Namespace) -> Record:
    """Compare the contenders with ours, then let them take turns."""
    workload = case.workload
    record: Record = {"name": case.name, "num_qubits": workload.num_qubits, "num_weights": workload.num_weights}
    return record | {"num_rows": workload.batch} | contest.run(case, options, TIMEOUT, whole=True)
