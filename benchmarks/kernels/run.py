# SPDX-License-Identifier: Apache-2.0
"""Time quantum kernels beside other libraries and write benchmarks/results/<device>/<date>-kernels.json.

Matrices of Qiskit's feature maps, a training step of a kernel, and large matrices within a memory limit. Matrices,
losses and gradients of all libraries are compared with ours in double precision before anything is timed; the exit
status is 1 if something differs or fails.
"""

from __future__ import annotations

import argparse
import os

from common import contest
from common.contest import Case
from common.harness import busy_cpus, claim_cpus, describe, progress, save
from common.worker import Record, attempt
from kernels.cases import FULL, PEERS, QUICK
from kernels.large import large_matrix
from kernels.report import REPORT

TIMEOUT = 900.0  # seconds for an answer
LARGE = "K4"
# Qubits, samples, memory limit in bytes, and our goal in seconds.
LARGE_MATRICES = ((10, 10_000, 10**9, 30.0), (16, 4000, 10**9, None))
QUICK_MATRICES = ((6, 60, 10**8, None), (8, 40, 10**5, None))
PACKAGES = ("qiskit-fused", "qiskit", "qiskit-machine-learning", "tensorcircuit-ng", "jax", "jaxlib", "numpy", "scipy",
            "scikit-learn")  # fmt: skip


def main() -> int:
    """Run the benchmark."""
    options = contest.parse(__doc__, "workloads whose names start so, such as K1,K4", PEERS, _selected)
    cases, is_large = _selected(options)
    claim_cpus(options.threads)
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # waiting OpenMP threads of one contender do not slow the next one
    results = {"kind": "kernels"} | describe(options, PACKAGES, PEERS)
    results["cases"] = []
    for case in cases:
        busy = busy_cpus()
        results["cases"].append(_run(case, options) | {"busy_cpus": busy})
    if is_large:
        busy = busy_cpus()
        matrices = QUICK_MATRICES if options.quick else LARGE_MATRICES
        results["large"] = {"entries": [_measure(*matrix) for matrix in matrices], "busy_cpus": busy}
    progress("")
    REPORT.print(results)
    save(results, options, "-kernels")
    return 1 if REPORT.failures(results) else 0


def _selected(options: argparse.Namespace) -> tuple[list[Case], bool]:
    """Return the cases that the options choose, and whether large matrices are computed."""
    return contest.select_cases(QUICK if options.quick else FULL, LARGE, options.only)


def _run(case: Case, options: argparse.Namespace) -> Record:
    """Compare the contenders with ours, then let them take turns."""
    workload = case.workload
    record: Record = {"name": case.name, "num_qubits": workload.num_qubits, "num_samples": workload.batch}
    record |= {"num_weights": workload.num_weights}
    return record | contest.run(case, options, TIMEOUT, whole=True)


def _measure(num_qubits: int, num_samples: int, memory_limit: int, required: float | None) -> Record:
    """Compute a large matrix in a process of its own."""
    progress(f"{LARGE}: {num_qubits} qubits")
    entry: Record = {"num_qubits": num_qubits, "num_samples": num_samples, "memory_limit": memory_limit}
    entry |= {"required": required, "state_bytes": num_samples * 8 << num_qubits}
    found, failed = attempt(large_matrix, num_qubits, num_samples, memory_limit)
    return entry | ({"failed": failed} if failed else found)
