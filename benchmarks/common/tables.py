# SPDX-License-Identifier: Apache-2.0
"""Tables, described by their columns: a title, and the cell of a record each."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]

MB = 10**6

_WORD = re.compile("[A-Za-df-z]")  # any letter but e, which may stand in a number: 1e-7
_FOLDED = 30  # a table of more rows is folded in Markdown


def number(value: float | None) -> str:
    """Format with three significant digits and without an exponent."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1g}"


def percent(share: float) -> str:
    """Format a share as a percentage."""
    return f"{number(100 * share)}%"


def count(size: int, noun: str) -> str:
    """Write a number with its noun."""
    return f"{size:,} {noun}{'' if size == 1 else 's'}"


@dataclass(frozen=True)
class Column:
    """A column of a table: its title, and the function that gives the cell of a record."""

    title: str
    cell: Callable[[Any], str]


def text(title: str, key: Hashable) -> Column:
    """Return a column of texts or whole numbers; a missing one is a dash."""
    return Column(title, lambda record: "-" if record.get(key) is None else str(record[key]))


def figure(title: str, key: Hashable, unit: float = 1, goal: str | None = None) -> Column:
    """Return a column of numbers, in multiples of `unit`; a missing number is a dash, the goal stands in brackets."""

    def cell(record: Record) -> str:
        value, limit = (None if record.get(name) is None else record[name] / unit for name in (key, goal))
        return number(value) if limit is None else f"{number(value)} ({number(limit)})"

    return Column(title, cell)


def error(title: str, key: Hashable) -> Column:
    """Return a column of errors with one digit; a missing error is a dash."""
    return Column(title, lambda record: "-" if record.get(key) is None else f"{record[key]:.0e}")


@dataclass(frozen=True)
class Table:
    """A table of texts; a row that is shorter than the header ends with a reason in the place of its cells."""

    caption: str
    header: Sequence[str]
    rows: list[list[str]]

    def print(self) -> None:
        """Print the table with its caption; columns of words are aligned on the left, others on the right."""
        full = [row for row in self.rows if len(row) == len(self.header)]
        widths = [max(len(row[i]) for row in [self.header, *full]) for i in range(len(self.header))]
        words = [any(_WORD.search(row[i]) for row in full) for i in range(len(self.header))]
        print(f"\n{self.caption}\n")
        for row in [self.header, *self.rows]:
            cells = (
                cell.ljust(width) if is_word else cell.rjust(width) for cell, width, is_word in zip(row, widths, words)
            )
            print("  ".join(cells).rstrip())

    def markdown(self) -> str:
        """Return the table with its caption as Markdown; a long table is folded."""
        lines = markdown_table(self.header, self.rows)
        if len(self.rows) > _FOLDED:
            return f"<details><summary>{self.caption}</summary>\n\n{lines}\n\n</details>"
        return f"{self.caption}\n\n{lines}"


def tabulate(
    caption: str,
    columns: Sequence[Column],
    records: Iterable[Any],
    reason: Callable[[Any], str | None] = lambda record: None,
    named: int = 1,
) -> Table:
    """Return the table of records; one with a `reason` has it in the place of the cells behind the first `named`."""
    rows = []
    for record in records:
        why = reason(record)
        cells = [column.cell(record) for column in (columns if why is None else columns[:named])]
        rows.append(cells if why is None else [*cells, why])
    return Table(caption, [column.title for column in columns], rows)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    full = [[*row, *[""] * (len(header) - len(row))] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *full])
