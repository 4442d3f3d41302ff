# SPDX-License-Identifier: Apache-2.0
"""Benchmarks of cases: contenders run a workload in turns, and goals say how much faster than peers we shall be."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from common.comparison import Answers, compare_with, compare_with_ours, make_workers, measure
from common.contender import Contender
from common.harness import make_parser, refuse_unknown
from common.worker import Record, Worker
from common.workloads import select


@dataclass(frozen=True)
class Goal:
    """How many times faster than the fastest of some peers our first contender shall be.

    Attributes:
        peers: The names of the peers.
        times: Our goal as a multiple of the speed of the fastest of them.
        dtype: Our precision.
    """

    peers: tuple[str, ...]
    times: float
    dtype: str = "complex64"


@dataclass(frozen=True)
class Case:
    """A workload, the contenders that run it, and the goals that the project sets.

    Attributes:
        name: The name in the tables.
        workload: The circuit and its rows.
        ours: Our contenders, which always run; the goals are about the first.
        peers: The contenders of other libraries, by name.
        goals: The goals.
        check: The contender with which all others are compared; None compares them with ours in double precision.
        shots: The number of draws from each row of a sampler; None for exact answers.
    """

    name: str
    workload: Any
    ours: tuple[type[Contender], ...]
    peers: dict[str, type[Contender]]
    goals: tuple[Goal, ...] = ()
    check: type[Contender] | None = None
    shots: int | None = None


def peers_of(cases: Iterable[Case]) -> tuple[str, ...]:
    """Return the names of the peers of some cases, each name once."""
    return tuple(dict.fromkeys(name for case in cases for name in case.peers))


def parse(
    description: str | None,
    parts: str,
    peers: Sequence[str],
    check_parts: Callable[[argparse.Namespace], object],
    seconds: float = 2.0,
) -> argparse.Namespace:
    """Return the options of a benchmark of cases; end with an error for a peer or a part that does not exist.

    Args:
        description: The text of --help.
        parts: Says from which parts --only chooses.
        peers: The names of the peers.
        check_parts: Raises ValueError if the options name a part that does not exist.
        seconds: The time for each contender in a case unless the options say another one.
    """
    parser = make_parser(description, parts, peers)
    text = f"time for each contender in a workload (default {seconds:g})"
    parser.add_argument("--seconds", type=float, default=seconds, help=text)
    options = parser.parse_args()
    refuse_unknown(parser, "peer", options.peers, peers)
    try:
        check_parts(options)
    except ValueError as error:
        parser.error(str(error))
    if options.quick:
        options.seconds = min(options.seconds, 0.2)
    return options


def select_cases(cases: Sequence[Case], other_part: str, prefixes: list[str]) -> tuple[list[Case], bool]:
    """Return the cases that prefixes choose, and whether they choose the part of the benchmark that is no case."""
    named = argparse.Namespace(name=other_part)
    chosen = select([*cases, named], prefixes)
    return [case for case in chosen if case is not named], named in chosen


def run(
    case: Case,
    options: argparse.Namespace,
    timeout: float,
    compare: Callable[[Worker], Callable[[Any, Answers], None]] = compare_with,
    *,
    calls: int = 1,
    whole: bool = False,
) -> Record:
    """Compare the contenders of a case with its check, then let them take turns; return goals and contenders.

    Args:
        case: The case.
        options: The options of the benchmark.
        timeout: The seconds for an answer of a contender.
        compare: Makes a comparison with the worker of the check.
        calls: The number of calls that are compared.
        whole: True if everybody is given all rows, however long a call takes.
    """
    goals = [
        {"against": [case.peers[name].label for name in goal.peers], "dtype": goal.dtype}
        | {"required": None if options.quick else goal.times}
        for goal in case.goals
    ]
    contenders = [*case.ours, *(peer for name, peer in case.peers.items() if name in options.peers)]
    workers, missing = make_workers(contenders, options.threads, timeout)
    checks = [Worker(case.check, "complex128", options.threads, timeout)] if case.check else []
    comparison = compare(checks[0]) if checks else compare_with_ours
    how: dict[str, Any] = {"calls": calls, "whole": whole}
    if case.shots is not None:
        how["attributes"] = {"shots": case.shots}
    try:
        record = measure(case.workload, workers, options.seconds, comparison, **how)
        return {"goals": goals, "missing": missing} | record
    finally:
        for one in (*checks, *workers):
            one.close()
