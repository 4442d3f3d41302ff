# SPDX-License-Identifier: Apache-2.0
"""Layout -> picture: draws the layout of a plan with matplotlib or as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from qiskit_fused.common.choices import check_choice, check_count, check_dtype
from qiskit_fused.engines.checkpointing import check_segments
from qiskit_fused.engines.cpu.costs import num_positions
from qiskit_fused.engines.cpu.method import fewest_states
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.inspection.drawing.layout import Column, Layout, make_layout
from qiskit_fused.inspection.drawing.marks import OFF, ON, SIGN
from qiskit_fused.options.method import METHODS, Method

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TEXT_WIDTH = 118  # characters of a line
_TEXT_SIGNS = {"run": "[ ]", "block": "░", "box": "▒", "sweep": "┊", "cut": "═", "kept": "┃", "recomputed": "~"}

# Okabe and Ito's palette, whose colours differ for colour-blind readers, and tints of these colours.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#A0508C"
_RUN, _CONSTANT, _BLOCK, _BOX, _AGAIN = "#9CCDEE", "#FFFFFF", "#D8ECF9", "#F6CBA8", "#CDEBE1"
_BANDS, _WIRE, _FADED, _INK = ("#F3F3F3", "#E2E2E2"), "#707070", "#8A8A8A", "#1A1A1A"
_SYMBOLS = {ON: ("o", True), OFF: ("o", False), SIGN: ("s", True)}
_INCH = 0.36  # inches between two qubits, the unit of length of a picture


def draw(
    fused: FusedProgram,
    output: str,
    *,
    device: str,
    dtype: str,
    method: str,
    num_states: int | None,
    num_segments: int | None,
    max_layers: int,
) -> Figure | str:
    """Draw a fused program; see `Plan.draw` for the arguments and errors."""
    check_choice("output", output, ("mpl", "text"))
    check_choice("device", device, ("cpu", "cuda"))
    check_choice("method", method, METHODS)
    dtype = check_dtype("dtype", dtype)
    max_layers = check_count("max_layers", max_layers, 2)
    for name, number in (("num_states", num_states), ("num_segments", num_segments)):
        if number is None:
            continue
        check_count(name, number)
        if method != "checkpoint":
            raise ValueError(f"{name} is {number} with method={method!r}; it goes with method='checkpoint' only.")
    if num_states is not None and num_segments is not None:
        raise ValueError(f"num_states is {num_states} and num_segments is {num_segments}; give one of them.")
    if num_segments is not None:
        check_segments("num_segments", num_segments, fused.num_layers)
    if method == "checkpoint" and num_segments is None:
        num_states = num_states or fewest_states(num_positions(fused), 2)
    keeps = Method(method, num_states, num_segments)
    layout = make_layout(fused, device=device, dtype=dtype, method=keeps, max_layers=max_layers)
    return draw_text(layout) if output == "text" else draw_figure(layout)


def draw_text(layout: Layout, width: int = _TEXT_WIDTH) -> str:
    """Render a layout as text, folded to lines of at most ``width`` characters; one column is never folded."""
    names = [name for wire in layout.wires for name in (wire.start, wire.end)]
    margin = max(map(len, ["states", *names]))
    rows: list[list[_TextColumn]] = [[]]
    for place in range(len(layout.columns)):
        cell = _TextColumn(layout, place)
        if rows[-1] and sum(map(len, rows[-1])) + len(cell) > width - 2 * margin - 5:
            rows.append([])
        rows[-1].append(cell)
    lines = [*layout.title, ""]
    for number, row in enumerate(rows if layout.columns else []):
        lines += [*_text_rows(layout, row, margin, number == 0, number == len(rows) - 1), ""]
    lines += [f"{wire.start:<{margin}}  not simulated: {wire.why}" for wire in layout.wires if wire.bit < 0]
    lines += [f"{_TEXT_SIGNS.get(name, name):<{margin}}  {text}" for name, text in layout.legend().items()]
    lines += [f"{'⋯':<{margin}}  {layout.gap}"] if layout.gap else []
    return "\n".join(line.rstrip() for line in lines)


class _TextColumn:
    """The characters of a column: lines of equal length, one per simulated qubit and one between each two of them."""

    def __init__(self, layout: Layout, place: int):
        self.column = column = layout.columns[place]
        is_after_gap = layout.gap is not None and layout.gap.at == place
        is_sweep = place == 0 or is_after_gap or layout.columns[place - 1].sweep != column.sweep
        edge = "┃" if column.is_kept else "┊" if is_sweep else ""
        self.indent = 4 * is_after_gap
        sweep = "start" if column.sweep <= layout.num_start_sweeps else str(column.sweep)
        self.heads = {"sweep": sweep if is_sweep else "", column.kind: str(column.number)}
        body = _layer_lines(layout, column) if column.kind == "layer" else _phase_lines(layout, column)
        wide = max(map(len, self.heads.values())) + 1 - len(edge)
        self.lines = []
        for number, line in enumerate(body):
            fill = " " if number % 2 else "─"
            gap = (f" ⋯{fill}{fill}" if fill == "─" else " " * 4) if is_after_gap else ""
            self.lines.append(gap + edge + line.ljust(wide, fill))

    def __len__(self) -> int:
        return len(self.lines[0])

    def head(self, name: str) -> str:
        return (" " * self.indent + self.heads.get(name, "")).ljust(len(self))

    def states(self) -> str:
        column = self.column
        mark = "~" if column.is_recomputed else " "
        return (" " * self.indent + ("┃" if column.is_kept else mark)).ljust(len(self), mark)


def _layer_lines(layout: Layout, column: Column) -> Iterator[str]:
    labels = {run.bit: f"[{layout.label(run)}]" for run in column.runs}
    labels |= {bit: f"[{symbol}]" for mark in column.dense for bit, symbol in zip(mark.bits, mark.symbols)}
    wide = max(map(len, labels.values()))
    shaded = {bit for first, last in column.spans for bit in range(first, last)}
    for wire in layout.bits:
        yield labels.get(wire.bit, "").center(wide, "─") + "─"
        if wire is not layout.bits[-1]:
            yield ("░" if wire.bit in shaded else " ") * wide + " "


def _phase_lines(layout: Layout, column: Column) -> list[str]:
    boxes = [mark for mark in column.terms if mark.is_box]
    wide = len(boxes[0].label) + 4 if boxes else 2 * column.num_places + 1
    grid = [[" " if k % 2 else "─"] * wide for k in range(2 * len(layout.bits) - 1)]
    for mark in column.terms:
        first, last, at = 2 * mark.bits[0], 2 * mark.bits[-1], 2 * mark.place + 1
        if mark.is_box:
            for k in range(first, last + 1):
                grid[k][1:-1] = f" {mark.label} " if k == (first + last) // 2 else "▒" * (wide - 2)
        for k in range(first + 1, last if mark.symbols else first):
            grid[k][at] = "│" if k % 2 else "┼"
        for bit, symbol in zip(mark.bits, mark.symbols):
            grid[2 * bit][at] = symbol
    return ["".join(line) for line in grid]


def _text_rows(layout: Layout, row: list[_TextColumn], margin: int, first: bool, last: bool) -> Iterator[str]:
    indent = " " * (margin + 2)
    for name, shown in (("sweep", "sweep"), ("phase", "phase"), ("layer", layout.unit)):
        yield f"{shown:<{margin}}  {''.join(cell.head(name) for cell in row)}"
    for number, wire in enumerate(layout.bits):
        if number:
            yield indent + "".join(cell.lines[2 * number - 1] for cell in row)
        joint = "═" if wire.is_cut else "─"
        line = "".join(cell.lines[2 * number] for cell in row)
        yield f"{wire.start if first else '…':<{margin}} {joint}{line}{joint} {wire.end if last else '…'}"
    if layout.method.name != "reverse":
        yield f"{'states':<{margin}}  {''.join(cell.states() for cell in row)}{'┃' * (last and layout.keeps_end)}"


def draw_figure(layout: Layout) -> Figure:
    """Render a layout as a matplotlib Figure, to which pyplot keeps no reference.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    new_figure(1.0, 1.0)  # raises the ImportError before `_Picture` imports matplotlib
    return _Picture(layout).figure


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of the given width and height in inches, which belongs to no pyplot window.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    try:
        # matplotlib is optional, and only a process that draws needs it, here and in the methods of `_Picture`.
        from qiskit_fused.inspection.drawing.notebook_figure import NotebookFigure
    except ImportError as error:
        raise ImportError("pictures need matplotlib; pip install matplotlib, or use plan.draw('text').") from error
    return NotebookFigure(figsize=(width, height), layout="constrained")


class _Picture:
    """Draws a layout into a figure. x is in units of `_INCH` from the left, y is the index of the wire from the top."""

    def __init__(self, layout: Layout):
        self.layout, self.count = layout, len(layout.bits)
        self.widths = [self._width(place) for place in range(len(layout.columns))]
        self.lefts = [0.0]
        for place, width in enumerate(self.widths):
            gap = 4.4 if layout.gap and layout.gap.at == place + 1 else 0.0
            self.lefts.append(self.lefts[-1] + width + gap)
        self.right = max(self.lefts[-1], 6.0)
        self.bottom = len(layout.wires) - 0.4
        self.has_strip = layout.method.name != "reverse"
        depth = self.bottom + 1.7 + 0.7 * self.has_strip
        self.names = max((len(wire.start) for wire in layout.wires), default=0)
        width = max((self.right + 1.6 + 0.2 * self.names) * _INCH, 6.5)
        legend, columns = self._legend(), int(width / 3.0)
        self.figure = new_figure(width, (depth + 1.2) * _INCH + 0.45 + 0.17 * -(-len(legend) // columns))
        self.figure.legend(
            legend.values(), legend.keys(), loc="outside lower left", ncols=columns, fontsize=7, frameon=False
        )
        self.axes: Axes = self.figure.subplots()
        self.axes.set(xlim=(-1.0 - 0.2 * self.names, self.right + 0.8), ylim=(depth, -1.2))
        self.axes.set_axis_off()
        self.axes.set_title("\n".join(layout.title), fontsize=9, loc="left", color=_INK)
        self._bands()
        self._wires()
        for place, column in enumerate(layout.columns):
            self._phase(place, column) if column.kind == "phase" else self._layer(place, column)
        self._states()
        self._gap()

    def _width(self, place: int) -> float:
        column, *after = self.layout.columns[place : place + 2]
        if column.is_empty and after and after[0].sweep == column.sweep:
            return 0.0
        if column.kind == "layer":
            return 0.5 + 0.19 * max([1, *(len(self.layout.label(run)) for run in column.runs)])
        if any(mark.is_box for mark in column.terms):
            return 2.2
        return 0.5 + 0.62 * column.num_places

    def _text(self, x: float, y: float, text: str, **options: Any) -> None:
        defaults: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7, "color": _INK}
        self.axes.text(x, y, text, **(defaults | options))

    def _line(self, x: Sequence[float], y: Sequence[float], **options: Any) -> None:
        from matplotlib.lines import Line2D

        self.axes.add_line(Line2D(x, y, **options))

    def _box(self, x: tuple[float, float], y: tuple[float, float], **options: Any) -> None:
        from matplotlib.patches import Rectangle

        self.axes.add_patch(Rectangle((x[0], y[0]), x[1] - x[0], y[1] - y[0], **options))

    def _bands(self) -> None:
        columns = self.layout.columns
        for begin, end in self.layout.sweeps():
            left, right = self.lefts[begin], self.lefts[end - 1] + self.widths[end - 1]
            sweep = columns[begin].sweep
            for first, last in _stretches(columns[begin].window):
                y = (first - 0.5, last + 0.5)
                self._box((left, right), y, facecolor=_BANDS[sweep % 2], edgecolor="none", zorder=0)
            if sweep > self.layout.num_start_sweeps:
                self._text((left + right) / 2, -0.85, str(sweep))
            elif sweep == 1:  # one word for all sweeps of the start, which are the first columns
                right = max(self.lefts[k] + self.widths[k] for k in self._start_columns())
                self._text((left + right) / 2, -0.85, "start", color=_FADED)
        self._text(-0.45, -0.85, "sweep", ha="right", color=_FADED)

    def _start_columns(self) -> list[int]:
        columns = self.layout.columns
        return [k for k, column in enumerate(columns) if column.sweep <= self.layout.num_start_sweeps]

    def _wires(self) -> None:
        for y, wire in enumerate(self.layout.wires):
            color = _FADED if wire.bit < 0 else PURPLE if wire.is_cut else _WIRE
            style = (0, (1, 3)) if wire.bit < 0 else "-"
            ends = [-0.3, self.right + 0.3]
            if self.layout.gap and wire.bit >= 0:
                gap = self.layout.gap.at
                ends[1:1] = [self.lefts[gap - 1] + self.widths[gap - 1] + 0.2, self.lefts[gap] - 0.2]
            for x in zip(ends[::2], ends[1::2]):
                self._line(x, (y, y), color=color, linestyle=style, linewidth=1.6 if wire.is_cut else 0.9, zorder=1)
            self._text(-0.45, y, wire.start, ha="right", color=_INK if wire.bit >= 0 else _FADED, fontsize=8)
            if wire.end not in ("", wire.start):
                self._text(self.right + 0.4, y, wire.end, ha="left", fontsize=8)
            if wire.bit < 0:
                note: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 1}
                self._text(0.2, y, f"not simulated: {wire.why}", ha="left", color=_FADED, bbox=note)

    def _phase(self, place: int, column: Column) -> None:
        left = self.lefts[place]
        for mark in column.terms:
            color = VERMILION if mark.has_parameter else _INK
            y = (mark.bits[0], mark.bits[-1])
            if mark.is_box:
                self._box((left + 0.2, left + self.widths[place] - 0.2), (y[0] - 0.35, y[1] + 0.35), zorder=3,
                          facecolor=_BOX if mark.has_parameter else _CONSTANT, edgecolor=color)  # fmt: skip
                self._text(left + self.widths[place] / 2, sum(y) / 2, mark.label, zorder=4)
                continue
            x = left + 0.56 + 0.62 * mark.place
            self._line((x, x), y, color=color, linewidth=1.3, zorder=3)
            for bit, symbol in zip(mark.bits, mark.symbols):
                shape, filled = _SYMBOLS[symbol]
                self._line([x], [bit], marker=shape, color=color, markerfacecolor=color if filled else "white",
                               markersize=5.5 if shape == "o" else 5, zorder=4)  # fmt: skip
        self._number(place, column)

    def _layer(self, place: int, column: Column) -> None:
        left, right = self.lefts[place], self.lefts[place] + self.widths[place]
        for first, last in column.spans:
            self._box((left + 0.04, right - 0.04), (first - 0.46, last + 0.46), zorder=2,
                      facecolor=_BLOCK, edgecolor=BLUE, linestyle="--", linewidth=0.7)  # fmt: skip
        for run in column.runs:
            self._box((left + 0.14, right - 0.14), (run.bit - 0.34, run.bit + 0.34), zorder=3,
                      facecolor=_RUN if run.has_parameter else _CONSTANT, edgecolor=BLUE, linewidth=0.9)  # fmt: skip
            self._text((left + right) / 2, run.bit, self.layout.label(run), zorder=4)
        for mark in column.dense:
            middle = (left + right) / 2
            self._line((middle, middle), (mark.bits[0], mark.bits[-1]), color=_INK, linewidth=1.3, zorder=2)
            for bit, symbol in zip(mark.bits, mark.symbols):
                self._box((left + 0.14, right - 0.14), (bit - 0.34, bit + 0.34), zorder=3,
                          facecolor=_CONSTANT, edgecolor=_INK, linewidth=0.9)  # fmt: skip
                self._text(middle, bit, symbol, zorder=4)
        self._number(place, column)

    def _number(self, place: int, column: Column) -> None:
        name = self.layout.unit if column.kind == "layer" else "phase"
        y = self.bottom + 0.25 + 0.7 * self.has_strip
        last = place
        while last + 1 < len(self.widths) and self._continues(last + 1):
            last += 1
        if self._continues(place) or not self.widths[place]:  # the two columns of a layer of two sweeps share a label
            return
        x = (self.lefts[place] + self.lefts[last] + self.widths[last]) / 2
        self._text(x, y, f"{name} {column.number}", rotation=90, va="top", color=_FADED)

    def _continues(self, place: int) -> bool:
        """Return whether a column shows the same layer as the column before it."""
        if not place:
            return False
        before, column = self.layout.columns[place - 1 : place + 1]
        return before.kind == column.kind == "layer" and before.number == column.number

    def _states(self) -> None:
        if not self.has_strip:
            return
        top = self.bottom + 0.1
        for place, column in enumerate(self.layout.columns):
            x = (self.lefts[place], self.lefts[place] + self.widths[place])
            if column.is_recomputed:
                self._box(x, (top, top + 0.45), facecolor=_AGAIN, edgecolor="none", zorder=2)
            if column.is_kept:
                self._kept(x[0])
        if self.layout.keeps_end:
            self._kept(self.lefts[-1])

    def _kept(self, x: float) -> None:
        self._line((x, x), (-0.55, self.bottom + 0.55), color=GREEN, linewidth=2, zorder=5)

    def _gap(self) -> None:
        gap = self.layout.gap
        if gap is None:
            return
        x = (self.lefts[gap.at - 1] + self.widths[gap.at - 1] + self.lefts[gap.at]) / 2
        lines = str(gap).replace(": ", ":\n").replace(", ", "\n")  # one below the other
        self._text(x, (self.count - 1) / 2, f"⋯\n{lines}", linespacing=1.5)

    def _legend(self) -> dict[str, Any]:
        """Return the legend: the matplotlib handle of each text."""
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        def line(color: str, **options: Any) -> Line2D:
            return Line2D([], [], color=color, **options)

        blank = line("none")
        handles: dict[str, Any] = {
            "run": Patch(facecolor=_RUN, edgecolor=BLUE),
            "block": Patch(facecolor=_BLOCK, edgecolor=BLUE, linestyle="--"),
            "box": Patch(facecolor=_BOX, edgecolor=VERMILION),
            "sweep": Patch(facecolor=_BANDS[1]),
            "cut": line(PURPLE, linewidth=1.6),
            "kept": line(GREEN, linewidth=2),
            "recomputed": Patch(facecolor=_AGAIN),
        }
        for symbol, (shape, filled) in _SYMBOLS.items():
            handles[symbol] = line(
                _INK, marker=shape, linewidth=1.3, markersize=5.5, markerfacecolor=_INK if filled else "white"
            )
        legend = {
            text if name in handles else f"{name}: {text}": handles.get(name, blank)
            for name, text in self.layout.legend().items()
        }
        columns = self.layout.columns
        if any(not run.has_parameter for column in columns for run in column.runs):
            legend["run of constant gates"] = Patch(facecolor=_CONSTANT, edgecolor=BLUE)
        if any(mark.has_parameter and not mark.is_box for column in columns for mark in column.terms):
            legend["term whose angle has parameters"] = line(VERMILION, linewidth=2)
        return legend


def _stretches(bits: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last bit of each stretch of neighbouring bits; ``bits`` are ascending."""
    cuts = [k for k, (a, b) in enumerate(pairwise(bits), start=1) if b != a + 1]
    for begin, end in pairwise([0, *cuts, len(bits)]):
        if begin < end:
            yield bits[begin], bits[end - 1]
