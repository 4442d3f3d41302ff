# SPDX-License-Identifier: Apache-2.0
"""How objects are shown: a table in notebooks, one short line wherever else ``repr`` is called."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

_LONGEST_VALUE = 80  # characters of an argument in a `repr`


class ShownAsText:
    """A base class: the last line of a notebook cell, or of an IPython prompt, shows ``str(self)``, a table of text.

    ``repr`` is `short_text`. A class that defines ``__repr__`` itself hides the table from IPython: use
    ``dataclass(repr=False)``.
    """

    def short_text(self) -> str:
        """Return one short line for ``repr``."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return self.short_text()

    def _repr_html_(self) -> str:
        return f'<pre style="line-height: 1.2">{escape(str(self))}</pre>'

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        # inside a list or a dict, where the printer is indented, a table would not stay one
        printer.text(str(self) if not printer.indentation else repr(self))


def arguments_text(values: Mapping[str, Any]) -> str:
    """Write keyword arguments for a `repr`, long values cut: ``arguments_text({"seed": 3}) == "seed=3"``."""
    return ", ".join(f"{name}={_cut(repr(value))}" for name, value in values.items())


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."
