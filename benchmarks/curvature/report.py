# SPDX-License-Identifier: Apache-2.0
"""The tables of the benchmark of curvature."""

from __future__ import annotations

from common.report import DUELS, Report, details_table, failed_contenders, losses, missed_goals, summarize
from common.tables import Record, Table, count, tabulate, text

WHAT = {
    "Q1": "quantum Fisher information",
    "Q2": "a step of VarQITE",
    "H1": "Hessian times vector",
    "H2": "Hessian",
    "H3": "u and u_xx of a network",
}


def sections(results: Record) -> list[Record]:
    """Return the cases of a results file."""
    cases: list[Record] = results["cases"]
    return cases


def describe_case(case: Record) -> str:
    """Say what a case computes, and how large it is."""
    sizes = [count(case["num_qubits"], "qubit"), count(case["num_weights"], "parameter")]
    if case["num_rows"] > 1:
        sizes.append(count(case["num_rows"], "point"))
    return f"{case['name']}: {WHAT[case['name']]} ({', '.join(sizes)})"


def tables(results: Record) -> list[Table]:
    """Return the tables of a results file."""
    cases = [case | {"name": describe_case(case)} for case in results["cases"]]
    if not cases:
        return []
    return [
        tabulate(
            "One call, median ms. Our complex64 is held against the fastest of any precision; ~ extrapolated.",
            (text("workload", "name"), *DUELS),
            [row for case in cases for row in summarize(case)],
        ),
        details_table("All contenders, ms per call", cases),
    ]


def failures(results: Record) -> list[str]:
    """Return a line for each contender that failed or differs."""
    return [line for case in results["cases"] for line in failed_contenders(describe_case(case), case)]


def misses(results: Record) -> list[str]:
    """Return a line for each peer that is not installed or is faster, and for each goal that is missed."""
    lines = []
    for case in results["cases"]:
        lines += [f"{describe_case(case)}: {line}" for line in case["missing"]]
        lines += [*losses(case), *missed_goals(describe_case(case), case)]
    return lines


REPORT = Report(sections, tables, failures, misses)
