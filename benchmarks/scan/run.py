# SPDX-License-Identifier: Apache-2.0
"""Time qiskit-fused and its peers over qubits, rows and layers; write benchmarks/results/<device>/<date>-scan.json.

Pictures are drawn beside the results file, memory over layers included. All circuits are W2, and all are measured as in
main. A contender is not given larger sizes once a call took longer than --cap, or once it failed or differed.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from common import own
from common.comparison import make_workers
from common.harness import busy_cpus, claim_cpus, describe, make_parser, need_matplotlib, progress, refuse_unknown, save
from common.numpy_adjoint import NumpyAdjoint
from common.own import Fused
from common.report import OURS
from common.tables import count
from common.worker import Record, Worker
from common.workloads import Workload, efficient_su2
from main.peers import PEERS
from main.run import PACKAGES, run_workload
from scan.report import REPORT, plot

TIMEOUT = 60.0  # seconds for an answer; compilation takes up to 30 s


@dataclass(frozen=True)
class Axis:
    """One size that grows while the others stay.

    Attributes:
        label: The name of the size that grows, for tables and pictures.
        fixed: The sizes that stay, in words.
        workload: Returns the workload of a size.
        sizes: The sizes of a full run.
        quick: The sizes of a run with --quick.
    """

    label: str
    fixed: str
    workload: Callable[[int], Workload]
    sizes: tuple[int, ...]
    quick: tuple[int, ...]


def _w2(num_qubits: int, num_layers: int, rows: int) -> Workload:
    sizes = ((num_qubits, "qubit"), (num_layers, "layer"), (rows, "row"))
    return replace(efficient_su2(num_qubits, num_layers, batch=rows), name=", ".join(count(*size) for size in sizes))


AXES: dict[str, Axis] = {
    "qubits": Axis("qubits", "5 layers, 1 row", lambda n: _w2(n, 5, 1), tuple(range(4, 23, 2)), (3, 4)),
    "rows": Axis("rows", "8 qubits, 5 layers", lambda rows: _w2(8, 5, rows), (1, 4, 16, 64, 256, 1024), (2,)),
    "layers": Axis(
        "layers", "10 qubits, 1 row", lambda layers: _w2(10, layers, 1), (1, 3, 10, 30, 100, 300, 1000), (2,)
    ),
}


def main() -> int:
    """Run the benchmark; the exit status is 1 if a contender failed or differs."""
    options = _parse()
    claim_cpus(options.threads)
    results = {"kind": "scan"} | describe(options, PACKAGES, PEERS) | {"cap_s": options.cap}
    contenders = [Fused, *(PEERS[name] for name in options.peers), *([NumpyAdjoint] if options.quick else [])]
    workers, results["missing"] = make_workers(contenders, options.threads, TIMEOUT)
    workers = [one for one in workers if _is_scanned(one)]
    try:
        results["ceilings"] = workers[0].call(own.ceilings, options.threads)
        results["axes"] = {name: scan(name, workers, options) for name in options.only or AXES}
    finally:
        for one in workers:
            one.close()
    progress("")
    REPORT.print(results)
    if path := save(results, options, "-scan"):
        for picture in plot(results, path):
            print(f"drawn to {picture}")
    return 1 if REPORT.failures(results) else 0


def _is_scanned(one: Worker) -> bool:
    """Return whether a worker takes part: ours in both precisions, a peer in its first, which is the faster one."""
    return one.contender.label == OURS or one.dtype == one.contender.precisions[0]


def scan(name: str, workers: list[Worker], options: argparse.Namespace) -> Record:
    """Measure all sizes of an axis, with each contender up to the size at which it is stopped."""
    axis = AXES[name]
    record: Record = {"label": axis.label, "fixed": axis.fixed, "points": [], "stopped": []}
    running = list(workers)
    for size in axis.quick if options.quick else axis.sizes:
        progress(f"{size} {axis.label}")
        busy = busy_cpus()
        point = run_workload(axis.workload(size), running, options.seconds, whole=True)
        record["points"].append({"size": size, "busy_cpus": busy} | point)
        going = []
        for one, entry in zip(running, point["contenders"], strict=True):
            cap = math.inf if one.contender.label == OURS else options.cap  # ours runs at every size of a peer
            if reason := _why_stop(entry, cap):
                record["stopped"].append(
                    {key: entry[key] for key in ("label", "dtype")} | {"size": size, "reason": reason}
                )
            else:
                going.append(one)
        running = going
    return record


def _why_stop(entry: Record, cap: float) -> str | None:
    """Return the reason why a contender is given no larger sizes; None if it is given larger sizes."""
    if entry.get("min_ms", 0.0) > 1e3 * cap:
        return f"a call took more than {cap:g} s"
    return entry.get("failed") or entry.get("wrong") or entry.get("left_out")


def _parse() -> argparse.Namespace:
    parser = make_parser(__doc__, f"some of {','.join(AXES)}", PEERS)
    parser.add_argument("--seconds", type=float, default=0.4, help="time for each contender and size (default 0.4)")
    parser.add_argument("--cap", type=float, default=2.0, help="seconds of a call that end a scan (default 2)")
    options = parser.parse_args()
    refuse_unknown(parser, "axis", options.only, AXES)
    refuse_unknown(parser, "peer", options.peers, PEERS)
    need_matplotlib(parser, options)
    if options.quick:
        options.seconds = min(options.seconds, 0.05)
    return options
