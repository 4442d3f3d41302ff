# SPDX-License-Identifier: Apache-2.0
"""The tables of the training benchmark."""

from __future__ import annotations

from common.report import (
    CONTENDER,
    DETAILS,
    DUELS,
    Report,
    difference,
    failed_contenders,
    missed_goals,
    summarize,
    why_not_timed,
)
from common.tables import MB, Column, Record, Table, error, figure, number, tabulate, text

JOBS = ("jacobian", "vjp", "step")
SECTIONS = (*JOBS, "digits", "memory")


def sections(results: Record) -> list[Record]:
    """Return the sections that a results file holds."""
    return [results[name] for name in SECTIONS if name in results]


SUMMARY = (text("job", "title"), *DUELS)
DIGITS = (
    text("steps", "steps"),
    figure("epoch, s (wanted)", "median_s", goal="goal_s"),
    Column("min", lambda digits: number(min(digits["epochs_s"]))),
    Column("max", lambda digits: number(max(digits["epochs_s"]))),
    Column("ms a step", lambda digits: number(1e3 * digits["median_s"] / digits["steps"])),
    Column("first loss", lambda digits: number(digits["losses"][0])),
    Column("last loss", lambda digits: number(digits["losses"][-1])),
    Column("accuracy", lambda digits: f"{digits['accuracy']:.1%}"),
    error("grad err", "gradient_error"),
)
MEMORY = (
    Column("limit, MB", lambda entry: "none" if entry["memory_limit"] is None else number(entry["memory_limit"] / MB)),
    figure("grew by, MB", "growth_bytes", MB),
    figure("seconds", "seconds"),
    error("value err", "value_error"),
    error("grad err", "gradient_error"),
)


def tables(results: Record) -> list[Table]:
    """Return the tables of a results file."""
    shown, jobs = [], [results[name] for name in JOBS if name in results]
    if jobs:
        first = jobs[0]
        caption = (
            f"{first['workload']}, {first['batch']} samples, {first['num_weights']} weights, {first['num_outputs']} "
            "outputs; complex64 is held against the fastest of any precision. Median ms, ~ extrapolated."
        )
        shown.append(tabulate(caption, SUMMARY, [row for section in jobs for row in summarize(section)]))
    for section in jobs:
        caption = f"{section['title'][0].upper()}{section['title'][1:]}, ms"
        shown.append(tabulate(caption, (CONTENDER, *DETAILS), section["contenders"], why_not_timed))
    if "median_s" in (digits := results.get("digits", {})):
        caption = (
            f"Digits: {digits['num_images']:,} images, {digits['num_qubits']} qubits, {digits['num_layers']} layers, "
            f"{digits['num_weights']} weights, batches of {digits['batch']}; the median of {len(digits['epochs_s'])} "
            "epochs, and the accuracy on these images after them"
        )
        shown.append(tabulate(caption, DIGITS, [digits]))
    if memory := results.get("memory"):
        jacobian = 8 * memory["rows"] * memory["num_outputs"] * memory["num_weights"] / MB
        caption = (
            f"A VJP over {memory['rows']:,} samples of {memory['workload']}, {memory['num_weights']} weights, "
            f"{memory['num_outputs']} outputs, {memory['dtype']}; the Jacobian would be {jacobian:,.0f} MB"
        )
        shown.append(tabulate(caption, MEMORY, memory["entries"], lambda entry: entry.get("failed")))
    return shown


def failures(results: Record) -> list[str]:
    """Return a line for each measurement that did not run, was not checked, or differs from double precision."""
    lines = []
    for name in (name for name in SECTIONS if name in results):
        section = results[name]
        lines += failed_contenders(name, {"contenders": ()} | section)
        if section.get("wrong"):
            lines.append(f"{name} {difference(section)}")
        for entry in section.get("entries", ()):
            if "failed" in entry:
                lines.append(f"{name}, {_limit(entry)}: {entry['failed']}")
            elif entry.get("wrong"):
                lines.append(f"{name}, {_limit(entry)}: {difference(entry)}")
    return lines


def misses(results: Record) -> list[str]:
    """Return a line for every goal that is missed, and for every peer that is not installed."""
    lines = []
    for name in (name for name in JOBS if name in results):
        lines += [f"{name}: {line}" for line in results[name]["missing"]]
        lines += missed_goals(name, results[name])
    digits = results.get("digits", {})
    if digits.get("median_s", 0.0) > digits.get("goal_s", 0.0):
        lines.append(f"digits: an epoch takes {number(digits['median_s'])} s, wanted {number(digits['goal_s'])}")
    for entry in results.get("memory", {}).get("entries", []):
        limit, growth = entry["memory_limit"], entry.get("growth_bytes")
        if limit is not None and growth is not None and growth > limit:
            lines.append(f"memory, {_limit(entry)}: {number(growth / MB)} MB more were in use")
    return lines


REPORT = Report(sections, tables, failures, misses)


def _limit(entry: Record) -> str:
    limit = entry["memory_limit"]
    return "no limit" if limit is None else f"limit {number(limit / MB)} MB"
