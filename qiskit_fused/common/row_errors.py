# SPDX-License-Identifier: Apache-2.0
"""Errors about one row of a batch, which name the row by its number in the caller's batch.

On their way to an engine, rows are cut into blocks, joined and deduplicated. The code of each such step wraps the work
in `renumbered` or `shifted`, which set the number in the error back to the row's number before the step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


class RowError(ValueError):
    """A ValueError about one row; its text is ``{before}row {row}{after}``.

    >>> error = RowError("the angle of ", 3, " is nan.")
    >>> error.renumber(lambda row: row + 100)
    >>> print(error)
    the angle of row 103 is nan.

    Args:
        before: the text before the row.
        row: the number of the row in the batch of the code that raises the error.
        after: the text after the row.
    """

    def __init__(self, before: str, row: Any, after: str):
        # Exception.__reduce__ pickles args, so an error from the worker of a process pool keeps its row.
        super().__init__(before, row, after)

    @property
    def row(self) -> Any:
        """The number of the row, or the index of the row as a tuple or text."""
        return self.args[1]

    def renumber(self, number: Callable[[int], Any]) -> None:
        """Replace the number of the row by ``number(row)``, its number in the batch of the caller.

        An index that is a tuple or a text is final and stays.
        """
        before, row, after = self.args
        if isinstance(row, int):
            self.args = before, number(row), after

    def __str__(self) -> str:
        before, row, after = self.args
        return f"{before}row {row}{after}"


class _Renumbered:
    """The context of `renumbered`. A class, because a generator would take one microsecond longer in each call."""

    __slots__ = ("_number",)

    def __init__(self, number: Callable[[int], Any]):
        self._number = number

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, RowError):
            error.renumber(self._number)


def renumbered(number: Callable[[int], Any]) -> _Renumbered:
    """Correct the row of a `RowError` raised inside ``with``: ``number`` maps the row to the row of the caller."""
    return _Renumbered(number)


def shifted(first_row: int) -> _Renumbered:
    """Correct the row of a `RowError` raised by work on a block of rows that begins at ``first_row``."""
    return _Renumbered(first_row.__add__)


def indexed(shape: tuple[int, ...]) -> _Renumbered:
    """Replace the row of a `RowError` by its index in the caller's array of rows, which has this shape."""
    return _Renumbered(lambda row: row_index(row, shape))


def row_index(row: int, shape: tuple[int, ...]) -> int | tuple[int, ...]:
    """Return the index of a row in an array of rows of this shape, in C order; a number for at most one dimension.

    >>> row_index(5, (2, 3)), row_index(5, (6,)), row_index(0, ())
    ((1, 2), 5, 0)
    """
    return row if len(shape) < 2 else tuple(int(part) for part in np.unravel_index(row, shape))
