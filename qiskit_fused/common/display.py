# SPDX-License-Identifier: Apache-2.0
"""Show objects as a table of text in notebooks and at IPython prompts, and as one short line in ``repr``."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

_LONGEST_VALUE = 80  # a longer value of an argument in a `repr` is cut to this number of characters


def shown_in_notebooks(thing: Any) -> str:
    """Return ``str(thing)`` as HTML, in letters of one width. A class uses it as its ``_repr_html_``."""
    return f'<pre style="line-height: 1.2">{escape(str(thing))}</pre>'


class ShownAsText:
    """A base class whose objects IPython and notebooks show as ``str(self)``, a table of text.

    ``repr`` returns `short_text`. IPython does not show the table of a class that defines ``__repr__``, so a dataclass
    needs ``dataclass(repr=False)``.
    """

    def short_text(self) -> str:
        """Return one short line for ``repr``."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return self.short_text()

    _repr_html_ = shown_in_notebooks

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        # Inside a list or a dict the printer is indented, and the rows of a table would no longer align.
        printer.text(str(self) if not printer.indentation else repr(self))


def arguments_text(values: Mapping[str, Any]) -> str:
    """Write keyword arguments for a `repr`, and cut long values: ``arguments_text({"seed": 3}) == "seed=3"``."""
    return ", ".join(f"{name}={_cut(repr(value))}" for name, value in values.items())


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."
