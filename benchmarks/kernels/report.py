# SPDX-License-Identifier: Apache-2.0
"""The tables of the benchmark of kernels."""

from __future__ import annotations

from common.report import DUELS, Report, details_table, failed_contenders, losses, missed_goals, summarize
from common.tables import MB, Column, Record, Table, count, figure, tabulate, text

LARGE = (
    Column("qubits", lambda entry: str(entry["num_qubits"])),
    Column("samples", lambda entry: f"{entry['num_samples']:,}"),
    figure("states, MB", "state_bytes", MB),
    figure("limit, MB", "memory_limit", MB),
    figure("memory, MB", "growth_bytes", MB),
    figure("matrix, MB", "matrix_bytes", MB),
    figure("seconds", "seconds", goal="required"),
    text("calls of progress", "progress_calls"),
)


def sections(results: Record) -> list[Record]:
    """Return the cases of a results file, and the large matrices."""
    return [*results["cases"], *([results["large"]] if "large" in results else [])]


def describe_case(case: Record) -> str:
    """Say how large a case is."""
    texts = [count(case[name], noun) for name, noun in (("num_qubits", "qubit"), ("num_samples", "sample"))]
    return f"{case['name']} ({', '.join(texts)})"


def tables(results: Record) -> list[Table]:
    """Return the tables of a results file."""
    cases = [case | {"name": describe_case(case)} for case in results["cases"]]
    shown = []
    if cases:
        shown = [
            tabulate(
                "One call, median ms. Our complex64 is held against the fastest of any precision.",
                (text("workload", "name"), *DUELS),
                [row for case in cases for row in summarize(case)],
            ),
            details_table("All contenders, ms per call", cases),
        ]
    if "large" in results:
        caption = (
            "K4: large matrices in complex64. The memory is the peak of the process less the memory before the call "
            "and less the matrix, which belongs to the caller. In brackets: the goal"
        )
        shown.append(tabulate(caption, LARGE, results["large"]["entries"], lambda entry: entry.get("failed"), named=4))
    return shown


def failures(results: Record) -> list[str]:
    """Return a line for each contender and each large matrix that failed or differs."""
    lines = [line for case in results["cases"] for line in failed_contenders(describe_case(case), case)]
    return lines + [
        f"K4: {entry['failed']}" for entry in results.get("large", {}).get("entries", ()) if "failed" in entry
    ]


def misses(results: Record) -> list[str]:
    """Return a line for each peer that is not installed or is faster, and for each goal that is missed."""
    lines = []
    for case in results["cases"]:
        lines += [f"{describe_case(case)}: {line}" for line in case["missing"]]
        lines += [*losses(case), *missed_goals(describe_case(case), case)]
    for entry in results.get("large", {}).get("entries", ()):
        if "seconds" in entry and entry["required"] is not None and entry["seconds"] > entry["required"]:
            lines.append(f"K4, {entry['num_qubits']} qubits: {entry['seconds']:.0f} s, {entry['required']:g} s allowed")
    return lines


REPORT = Report(sections, tables, failures, misses)
