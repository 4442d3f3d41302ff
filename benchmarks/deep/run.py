# SPDX-License-Identifier: Apache-2.0
"""Measure deep and wide circuits under memory budgets and write benchmarks/results/<device>/<date>-deep.json and .png.

Time and peak memory of very deep and very wide circuits, time against budget for every method, and the drift of single
precision over depth. Everything is compared with double precision; the exit status is 1 if something differs.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass

from common.comparison import errors
from common.harness import busy_cpus, claim_cpus, describe, make_parser, need_matplotlib, progress, refuse_unknown, save
from common.tables import MB
from common.worker import Record, attempt
from common.workloads import Workload, deep_ansatz
from deep import measurements
from deep.report import METHODS, REPORT, SECTIONS, plot

# The largest errors of gradients in complex64, relative to the largest component. They catch wrong gradients, not
# rounding.
TOLERANCE = 1e-3
DRIFT_TOLERANCE = 1e-2  # for up to 10,000 layers
PACKAGES = ("qiskit-fused", "qiskit", "numpy")


@dataclass(frozen=True)
class Setting:
    """The settings of a gradient, and the goals that the project sets for it.

    Attributes:
        method: The option `method`.
        memory_limit: The option `memory_limit`, in bytes.
        rows: The number of rows of a call.
        scaled_rows: The number of rows to which the time is also scaled.
        calls: The number of calls that are timed after the first call.
        goal_s: The largest time of a call, in seconds.
        goal_times: The largest time of a call, as a multiple of the time of method "reverse" for as many rows.
        goal_bytes: The largest memory of the whole process, in bytes.
    """

    method: str = "reverse"
    memory_limit: int | None = None
    rows: int = 1
    scaled_rows: int | None = None
    calls: int = 3
    goal_s: float | None = None
    goal_times: float | None = None
    goal_bytes: int | None = None


@dataclass(frozen=True)
class Sizes:
    """The sizes of all sections. Circuits are (num_qubits, num_layers), budgets are bytes."""

    deep: tuple[int, int]
    wide: tuple[int, int]
    budgets_of: tuple[int, int]
    budgets: tuple[int, ...]
    turns: int
    drift_qubits: tuple[int, ...]
    drift_layers: tuple[int, ...]


FULL = Sizes(
    deep=(20, 1000),
    wide=(26, 4),
    budgets_of=(16, 200),
    budgets=tuple(round(MB * size) for size in (4, 5, 6, 6.5, 7, 8, 10, 12, 16, 24, 32, 48, 64, 96, 128, 256)),
    turns=7,
    drift_qubits=(4, 8, 12),
    drift_layers=(10, 100, 1000, 10_000),
)
QUICK = Sizes(
    deep=(6, 20),
    wide=(8, 2),
    budgets_of=(10, 40),
    budgets=tuple(round(MB * size) for size in (0.001, 0.5, 0.7, 0.75, 0.8, 0.9, 1.2, 4)),
    turns=2,
    drift_qubits=(3,),
    drift_layers=(30,),
)


def main() -> int:
    """Run the benchmark."""
    options = _parse()
    sizes = QUICK if options.quick else FULL
    claim_cpus(options.threads)
    results = {"kind": "deep"} | describe(options, PACKAGES)
    sections = {"deep": _deep, "wide": _wide, "budgets": _budgets, "drift": _drift}
    for name in options.only or SECTIONS:
        busy = busy_cpus()
        results[name] = sections[name](sizes, options.threads) | {"busy_cpus": busy}
    progress("")
    REPORT.print(results)
    path = save(results, options, "-deep")
    for picture in REPORT.pictures(results, path).values() if path else ():
        plot(results, picture)
        print(f"drawn to {picture}")
    return 1 if REPORT.failures(results) else 0


def _parse() -> argparse.Namespace:
    parser = make_parser(__doc__, f"some of {','.join(SECTIONS)}")
    options = parser.parse_args()
    refuse_unknown(parser, "section", options.only, SECTIONS)
    need_matplotlib(parser, options)
    return options


def _deep(sizes: Sizes, threads: int) -> Record:
    workload = deep_ansatz(*sizes.deep)
    stored = workload.num_layers * 8 * 2**workload.num_qubits  # one state per layer, complex64
    tenth = max(stored // 10, 4 * MB)  # tiny circuits need up to 4 MB beside their states
    most = 1500 * MB
    settings = (
        Setting("reverse", goal_s=6.0, goal_bytes=1000 * MB),
        Setting("checkpoint", tenth, goal_times=1.5, goal_bytes=most),
        Setting("reverse", rows=8, scaled_rows=1000, calls=2, goal_s=8 * 1.2, goal_bytes=most),  # 20 min for 1,000
        Setting("checkpoint", tenth, rows=8, scaled_rows=1000, calls=1, goal_times=1.5, goal_bytes=most),
    )
    return _measure_all("deep", workload, settings, threads) | {"stored_bytes": stored}


def _wide(sizes: Sizes, threads: int) -> Record:
    return _measure_all("wide", deep_ansatz(*sizes.wide), (Setting("reverse", goal_bytes=1600 * MB),), threads)


def _measure_all(section: str, workload: Workload, settings: tuple[Setting, ...], threads: int) -> Record:
    """Measure each setting in a new process and compare its first call with double precision."""
    shared = {"device": "cpu", "num_threads": threads}
    rows = max(setting.rows for setting in settings)
    record = {**_description(workload), "dtype": "complex64", "entries": []}
    progress(f"{section}: double precision")
    true, record["unchecked"] = attempt(measurements.answer, workload, shared | measurements.DOUBLE, rows)
    for setting in settings:
        progress(f"{section}: {setting.method}, {setting.rows} rows")
        entry = asdict(setting)
        record["entries"].append(entry)
        options = {"dtype": "complex64", "method": setting.method, "memory_limit": setting.memory_limit} | shared
        found, failed = attempt(measurements.measure, workload, options, setting.rows, setting.calls)
        if failed:
            entry["failed"] = failed
            continue
        figures, answer = found
        entry |= figures
        if true is not None:
            entry |= errors(answer, tuple(array[: setting.rows] for array in true))
            entry |= {"wrong": not entry["gradient_error"] <= TOLERANCE}
    return record


def _budgets(sizes: Sizes, threads: int) -> Record:
    """Time every method with every budget, in one process."""
    progress("budgets")
    workload = deep_ansatz(*sizes.budgets_of)
    shared = {"device": "cpu", "num_threads": threads, "dtype": "complex64"}
    settings = [{"method": method, "memory_limit": budget} for budget in sizes.budgets for method in METHODS]
    record = {**_description(workload), "dtype": "complex64", "state_bytes": 8 * 2**workload.num_qubits}
    entries, failed = attempt(measurements.measure_budgets, workload, shared, settings, sizes.turns)
    for entry in entries or []:
        if "median_s" in entry:
            entry["wrong"] = not entry["gradient_error"] <= TOLERANCE
    return record | ({"failed": failed} if failed else {"entries": entries})


def _drift(sizes: Sizes, threads: int) -> Record:
    shared = {"device": "cpu", "num_threads": threads}
    entries = []
    for num_qubits in sizes.drift_qubits:
        for num_layers in sizes.drift_layers:
            progress(f"drift: n={num_qubits}, L={num_layers}")
            workload = deep_ansatz(num_qubits, num_layers)
            found, failed = attempt(measurements.measure_drift, workload, shared)
            entries += [_description(workload) | entry for entry in found or [{"failed": failed}]]
    for entry in entries:
        if "error" in entry:
            entry["wrong"] = not entry["error"] <= DRIFT_TOLERANCE
    return {"num_seeds": len(measurements.SEEDS), "goal": 1e-4, "entries": entries}


def _description(workload: Workload) -> Record:
    return {key: getattr(workload, key) for key in ("num_qubits", "num_layers", "num_parameters")}
