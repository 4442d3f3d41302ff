# SPDX-License-Identifier: Apache-2.0
"""The report of a benchmark in a terminal and in Markdown, and the tables and lines about contenders.

A benchmark describes its report as a `Report`. The second half of this file holds the columns and lines that benchmarks
with several contenders share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.tables import Column, Record, Table, count, error, figure, number, percent, tabulate, text

OURS = "qiskit-fused"

_QUIET = 0.2  # number of CPUs that others may take before the report warns


def no_pictures(results: Record, path: Path) -> dict[str, Path]:
    """Return the pictures of a benchmark that draws none."""
    return {}


@dataclass(frozen=True)
class Report:
    """The report of a benchmark, as functions of its results.

    Attributes:
        sections: Returns the parts of a results file that say how busy the machine was.
        tables: Returns the tables.
        failures: Returns a line for everything that failed, was not checked, or differs.
        misses: Returns a line for every lost comparison and every missed goal.
        pictures: Returns the pictures beside a results file, given its path, by their titles.
        head: Returns lines that stand above the tables in a terminal.
    """

    sections: Callable[[Record], list[Record]]
    tables: Callable[[Record], list[Table]]
    failures: Callable[[Record], list[str]]
    misses: Callable[[Record], list[str]]
    pictures: Callable[[Record, Path], dict[str, Path]] = no_pictures
    head: Callable[[Record], list[str]] = lambda results: []

    def print(self, results: Record) -> None:
        """Print the tables with their captions, and the lists below them."""
        print(f"\n{machine_line(results)}")
        print(self.busy_line(results), end="")
        for line in self.head(results):
            print(line)
        for table in self.tables(results):
            table.print()
        for title, lines in self._lists(results):
            print(f"\n{title}" + ("" if lines else " nothing in this run"))
            for line in lines:
                print(f"  {line}")

    def markdown(self, results: Record) -> str:
        """Return the same as Markdown, without the machine."""
        blocks = [table.markdown() for table in self.tables(results)]
        for title, lines in self._lists(results):
            blocks.append("\n".join([f"{title}\n", *(f"* {line}" for line in lines)]) if lines else f"{title} nothing.")
        return "\n\n".join(blocks)

    def busy_line(self, results: Record) -> str:
        """Return a line that warns if others used the CPUs."""
        busy = max((section.get("busy_cpus") or 0.0 for section in self.sections(results)), default=0.0)
        if busy <= _QUIET:
            return ""
        return f"THE MACHINE WAS BUSY (others took up to {busy:.1f} of our CPUs): do not trust these figures\n"

    def _lists(self, results: Record) -> tuple[tuple[str, list[str]], ...]:
        return ("What failed or differs:", self.failures(results)), ("Where we lose or miss:", self.misses(results))


def machine_line(results: Record) -> str:
    """Name the machine and the day."""
    machine, threads = results["machine"], count(results["num_threads"], "thread")
    device = f"{results['gpu']['name']}, " if "gpu" in results else ""
    day = results["date"][:16].replace("T", " ")
    return f"{device}{machine['cpu']}, {machine['simd']}, {threads}, {day} UTC"


def plain_ticks(axis: Any) -> None:
    """Write the numbers of a logarithmic axis without exponents."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


# Contenders. An entry is the record of a contender in one workload, a section holds entries as "contenders".

RIVALS = {"complex64": ("complex64", "complex128"), "complex128": ("complex128",)}


def name_of(entry: Record) -> str:
    """Return the label and the precision of an entry."""
    return f"{entry['label']} {entry['dtype'].replace('omplex', '')}"


def ms(entry: Record | None) -> str:
    """Return the median of an entry in milliseconds; ~ marks an extrapolated one."""
    if not entry or "median_ms" not in entry:
        return "-"
    return ("~" if entry["extrapolated"] else "") + number(entry["median_ms"])


def difference(entry: Record) -> str:
    """Say how an entry differs; older results files hold the errors alone."""
    if isinstance(entry["wrong"], str):
        return entry["wrong"]
    return f"DIFFERS: values by {entry['value_error']:.1e}, gradients by {entry['gradient_error']:.1e}"


def why_not_timed(entry: Record) -> str | None:
    """Return the reason why an entry has no times; None if it has."""
    return entry.get("failed") or (difference(entry) if entry.get("wrong") else entry.get("left_out"))


CONTENDER = Column("contender", name_of)
DETAILS = (Column("median", ms), figure("min", "min_ms"), figure("25 %", "quartile_1_ms"),
           figure("75 %", "quartile_3_ms"), Column("turns", lambda entry: str(len(entry.get("times_ms", ())))),
           figure("first s", "first_call_s"), figure("MiB", "peak_mib"), error("value err", "value_error"),
           error("grad err", "gradient_error"))  # fmt: skip


def details_table(caption: str, sections: Iterable[Record]) -> Table:
    """Return the table of all contenders of workloads; a workload's name stands in the first row of its contenders."""
    entries = [
        {"workload": section["name"] if i == 0 else ""} | entry
        for section in sections
        for i, entry in enumerate(section["contenders"])
    ]
    return tabulate(caption, (text("workload", "workload"), CONTENDER, *DETAILS), entries, why_not_timed, named=2)


def duel(
    entries: Iterable[Record],
    dtype: str,
    against: Iterable[str] | None = None,
    rivals: Iterable[str] | None = None,
) -> Record:
    """Return ours in a precision, the fastest peer that it is held against, and how many times faster ours is.

    Our complex64 is held against peers of any precision, our complex128 against peers in complex128.

    Args:
        entries: The entries of all contenders.
        dtype: Our precision.
        against: The labels of the peers; None for all that are not ours.
        rivals: The precisions of the peers, if they are others than those.
    """
    timed = [entry for entry in entries if "median_ms" in entry]

    def fastest(some: Iterable[Record]) -> Record | None:
        return min(some, key=lambda entry: entry["median_ms"], default=None)

    def is_rival(entry: Record) -> bool:
        return entry["label"] in against if against is not None else not entry["label"].startswith(OURS)

    ours = fastest(entry for entry in timed if entry["label"] == OURS and entry["dtype"] == dtype)
    peer = fastest(entry for entry in timed if entry["dtype"] in (rivals or RIVALS[dtype]) and is_rival(entry))
    return {"ours": ours, "peer": peer, "ratio": peer["median_ms"] / ours["median_ms"] if ours and peer else None}


def summarize(section: Record) -> list[Record]:
    """Return our duels in a section, one for each goal and precision.

    A goal is a record: the labels of its peers, "against", our goal as a multiple of the speed of the fastest of them,
    "required", and our precision, "dtype", if it is another one than complex64.
    """
    rows = []
    for goal in section["goals"]:
        for dtype in RIVALS:
            found = duel(section["contenders"], dtype, goal["against"])
            required = goal["required"] if dtype == goal.get("dtype", "complex64") else None
            if found["ratio"] is not None:
                is_missed = required is not None and found["ratio"] < required
                rows.append(section | found | {"required": required, "missed": is_missed})
    return rows


# The columns of the duels of `summarize`, behind the name of the section.
DUELS = (
    Column("qiskit-fused, ms", lambda row: ms(row["ours"])),
    Column("dtype", lambda row: row["ours"]["dtype"]),
    Column("against", lambda row: name_of(row["peer"])),
    Column("ms", lambda row: ms(row["peer"])),
    figure("times", "ratio"),
    figure("our goal", "required"),
    Column("verdict", lambda row: "" if row["required"] is None else "missed" if row["missed"] else "met"),
)


def missed_goals(name: str, section: Record) -> list[str]:
    """Return a line for each goal of a section that is missed."""
    return [
        f"{name}: {number(row['ratio'])} times faster than {name_of(row['peer'])}, {number(row['required'])} needed"
        for row in summarize(section)
        if row["missed"]
    ]


def failed_contenders(name: str, section: Record) -> list[str]:
    """Return a line for each contender of a section that failed or differs, and for a check that failed."""
    lines = [f"{name}: {section[key]}" for key in ("failed", "unchecked") if section.get(key)]
    return lines + [
        f"{name}, {name_of(entry)}: {why_not_timed(entry)}"
        for entry in section["contenders"]
        if entry.get("failed") or entry.get("wrong")
    ]


def losses(section: Record) -> list[str]:
    """Return a line for each precision in which a peer is faster."""
    lines = []
    for dtype in RIVALS:
        found = duel(section["contenders"], dtype)
        if found["ratio"] is not None and found["ratio"] < 1:
            times = f"{name_of(found['peer'])} is {1 / found['ratio']:.2f} times faster"
            lines.append(f"{section['name']}, {dtype}: {times}")
    return lines


def ceilings_table(sections: Iterable[Record], ceilings: Record, more: Sequence[Column] = ()) -> Table:
    """Return how near our complex64 calls come to the ceilings of the machine, with `more` columns behind."""
    records = []
    for section in sections:
        ours = duel(section["contenders"], "complex64")["ours"]
        if ours and "work" in section:
            seconds = 1e-3 * ours["median_ms"]
            rates = {name: section["work"][name] * section["batch"] / seconds for name in ("flops", "bytes_moved")}
            records.append(section | {"ours": ours} | rates)
    columns = (
        text("workload", "name"),
        Column("c64 ms", lambda record: ms(record["ours"])),
        figure("Gflop/s", "flops", 1e9),
        Column("share of peak", lambda record: percent(record["flops"] / ceilings["flops_per_second"])),
        figure("GB/s", "bytes_moved", 1e9),
        Column("share of bandwidth", lambda record: percent(record["bytes_moved"] / ceilings["bytes_per_second"])),
        *more,
    )
    caption = (
        f"Whole calls of qiskit-fused in complex64 against the ceilings of the machine, measured in the same run: "
        f"{ceilings['flops_per_second'] / 1e9:,.0f} Gflop/s of multiply-adds on registers, "
        f"{ceilings['bytes_per_second'] / 1e9:.3g} GB/s of a copy in memory, read plus written. Flops and bytes are "
        "those of the plan; small states stay in the caches, which are faster than memory."
    )
    return tabulate(caption, columns, records)
