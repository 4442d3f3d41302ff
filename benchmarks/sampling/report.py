# SPDX-License-Identifier: Apache-2.0
"""The tables of the benchmark of samplers."""

from __future__ import annotations

from common.report import (
    CONTENDER,
    DETAILS,
    DUELS,
    Report,
    details_table,
    failed_contenders,
    losses,
    missed_goals,
    ms,
    name_of,
    summarize,
    why_not_timed,
)
from common.tables import Column, Record, Table, error, figure, markdown_table, number, tabulate, text


def sections(results: Record) -> list[Record]:
    """Return the cases of a results file, and the classifier."""
    return [*results["cases"], *([results["classifier"]] if "classifier" in results else [])]


README_SPEED = (
    text("workload", "name"),
    Column("qiskit-fused, ms", lambda row: ms(row["ours"])),
    Column("peer, ms", lambda row: f"{ms(row['peer'])}, {name_of(row['peer'])}"),
    figure("times faster", "ratio"),
)
# The columns of a sampler have no errors, but the deviation of its draws.
DRAWS = (*DETAILS[:-2], Column("deviation", lambda entry: f"{entry['deviation']:.1f}" if "deviation" in entry else "-"))
TRAINING = (
    CONTENDER,
    Column("script, s", lambda entry: ("~" if entry["extrapolated"] else "") + number(entry["median_ms"] / 1e3)),
    Column("min", lambda entry: number(entry["min_ms"] / 1e3)),
    Column("runs", lambda entry: str(len(entry["times_ms"]))),
    text("evaluations", "evaluations"),
    Column("last loss", lambda entry: number(entry["last_loss"])),
    Column("accuracy", lambda entry: f"{entry['accuracy']:.1%}"),
    error("loss err", "value_error"),
)


def readme_table(results: Record) -> str:
    """Return the table of README.md: one row for each goal."""
    rows = [row for section in sections(results) for row in summarize(section) if row["required"] is not None]
    table = tabulate("", README_SPEED, rows)
    return markdown_table(table.header, table.rows)


def tables(results: Record) -> list[Table]:
    """Return the tables of a results file."""
    networks = [case for case in results["cases"] if case["shots"] is None]
    samplers = [case for case in results["cases"] if case["shots"] is not None]
    shown = [
        tabulate(
            "One call, median ms; ~ extrapolated. Our complex64 is held against the fastest of any precision.",
            (text("workload", "name"), *DUELS),
            [row for section in sections(results) for row in summarize(section)],
        )
    ]
    if networks:
        shown.append(details_table("Networks, ms per call", networks))
    if samplers:
        entries = [
            {"workload": case["name"] if i == 0 else ""} | entry
            for case in samplers
            for i, entry in enumerate(case["contenders"])
        ]
        columns = (text("workload", "workload"), CONTENDER, *DRAWS)
        shown.append(tabulate("Samplers, ms per call", columns, entries, why_not_timed, named=2))
    if "classifier" in results:
        classifier = results["classifier"]
        caption = (
            f"{classifier['name']}, {classifier['num_features']} qubits, {classifier['num_weights']} weights, "
            f"{classifier['evaluations']} evaluations by COBYLA: the whole script behind its imports"
        )
        shown.append(tabulate(caption, TRAINING, classifier["contenders"], why_not_timed))
    return shown


def failures(results: Record) -> list[str]:
    """Return a line for each contender that failed or differs."""
    return [line for section in sections(results) for line in failed_contenders(section["name"], section)]


def misses(results: Record) -> list[str]:
    """Return a line for each peer that is not installed or is faster, and for each goal that is missed."""
    lines = []
    for section in sections(results):
        lines += [f"{section['name']}: {line}" for line in section["missing"]]
        lines += [*losses(section), *missed_goals(section["name"], section)]
    return lines


REPORT = Report(sections, tables, failures, misses)
