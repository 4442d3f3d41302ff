# SPDX-License-Identifier: Apache-2.0
"""The tables of the GPU benchmark."""

from __future__ import annotations

from common.report import Report, ceilings_table, details_table, duel, failed_contenders, losses, ms, name_of
from common.tables import Column, Record, Table, figure, number, tabulate, text

MAIN_PEER = "triton-qml"


def _summarize(workload: Record) -> Record:
    """Return a workload with our duel against all peers, and our duel against the peer of the goals."""
    entries = workload["contenders"]
    return workload | duel(entries, "complex64") | {"main": duel(entries, "complex64", [MAIN_PEER])}


SPEED = (
    text("workload", "name"),
    Column("ms", lambda summary: ms(summary["ours"])),
    figure("goal H200", "goal_ms"),
    Column("best peer", lambda summary: summary["peer"]["label"] if summary["peer"] else "-"),
    Column("ms", lambda summary: ms(summary["peer"])),
    figure("times", "ratio"),
    Column(MAIN_PEER, lambda summary: ms(summary["main"]["peer"])),
    Column("times", lambda summary: number(summary["main"]["ratio"])),
    figure("our goal", "required"),
)
EXTRAPOLATION = (text("workload", "name"), text("contender", "label"), text("from rows", "from"),
                 figure("extrapolated ms", "scaled_ms"), text("measured ms", "measured"))  # fmt: skip
SETTINGS = (text("workload", "name"), text("contender", "label"), text("rows", "rows"), text("settings", "settings"))
SWEEPS = Column(
    "sweeps ms",
    lambda record: number(1e3 * record["stats"]["sweep_seconds"] if "sweep_seconds" in record["stats"] else None),
)


def tables(results: Record) -> list[Table]:
    """Return the tables of a results file."""
    workloads = results["workloads"]
    entries = [entry | {"name": workload["name"]} for workload in workloads for entry in workload["contenders"]]
    caption = "Values and gradient of their mean, median ms of a call, NumPy to NumPy; ~ extrapolated from fewer rows."
    shown = [tabulate(caption, SPEED, map(_summarize, workloads))]
    if extrapolated := _extrapolated(workloads):
        shown.append(tabulate("Times scaled from fewer rows, beside those of all rows.", EXTRAPOLATION, extrapolated))
    caption = "All contenders, ms per call; first call in s; device memory in MiB; errors beside double precision."
    shown.append(details_table(caption, workloads))
    if tuned := [entry for entry in entries if entry.get("settings")]:
        shown.append(tabulate("How the peers ran.", SETTINGS, tuned))
    return [*shown, ceilings_table(workloads, results["ceilings"], [SWEEPS])]


def failures(results: Record) -> list[str]:
    """Return a line for each contender that is not installed, failed or differs."""
    lines = [*results["missing"]]
    for workload in results["workloads"]:
        lines += failed_contenders(workload["name"], workload)
    return lines


def misses(results: Record) -> list[str]:
    """Return a line for every workload in which a peer is faster, and for every missed goal."""
    lines = []
    for workload in results["workloads"]:
        lines += losses(workload)
        found = _summarize(workload)
        ours, ratio, required = found["ours"], found["main"]["ratio"], workload["required"]
        if ratio is not None and required is not None and ratio < required:
            times = f"{number(ratio)} times faster than {name_of(found['main']['peer'])}"
            lines.append(f"{workload['name']}: {times}, {number(required)} wanted")
        if ours and workload["goal_ms"] and ours["median_ms"] > workload["goal_ms"]:
            goal = f"the goal for an H200 is {number(workload['goal_ms'])} ms"
            lines.append(f"{workload['name']}: {ms(ours)} ms, {goal}")
    return lines


def head(results: Record) -> list[str]:
    """Return the warning of a dry run."""
    warning = "DRY RUN on the CPU: tiny circuits show that the benchmark works; their times mean nothing"
    return [warning] if results["dry_run"] else []


REPORT = Report(lambda results: results["workloads"], tables, failures, misses, head=head)


def _extrapolated(workloads: list[Record]) -> list[Record]:
    """Return the times that are also scaled to the rows of another workload, beside the times measured there."""
    records = []
    for workload in workloads:
        target = next((other for other in workloads if other["name"] == workload["extrapolates"]), None)
        for entry in workload["contenders"] if target else ():
            measured = next((other for other in target["contenders"] if other["label"] == entry["label"]), None)
            if "median_ms" in entry:
                scaled = entry["median_ms"] * target["batch"] / workload["batch"]
                record = {"name": target["name"], "label": entry["label"], "from": workload["batch"]}
                records.append(record | {"scaled_ms": scaled, "measured": ms(measured)})
    return records
