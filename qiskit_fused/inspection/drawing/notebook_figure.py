# SPDX-License-Identifier: Apache-2.0
"""A matplotlib figure that notebooks show.

Importing this module imports matplotlib, so only functions that draw import it.
"""

from __future__ import annotations

from io import BytesIO

from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """A figure that belongs to no pyplot window and shows itself in notebooks."""

    def _repr_png_(self) -> bytes:
        png = BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()
