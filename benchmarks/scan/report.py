# SPDX-License-Identifier: Apache-2.0
"""The tables and the pictures of the scans, made from the results alone."""

from __future__ import annotations

from pathlib import Path

from main import report
from main.report import (
    OURS,
    Record,
    Table,
    _name,
    _number,
    ceilings_table,
    markdown_sections,
    plain_ticks,
    print_sections,
)

# Okabe and Ito's colours, which colour-blind people can tell apart, with markers of their own; ours is black.
STYLES = {
    "lightning.qubit": ("#E69F00", "s"),
    "tensorcircuit-ng": ("#0072B2", "^"),
    "qulacs": ("#009E73", "D"),
    "PyTorch autograd": ("#D55E00", "v"),
    "triton-qml, PyTorch path": ("#CC79A7", "P"),
    "Aer EstimatorV2": ("#56B4E9", "X"),
    "QNN + ReverseEstimatorGradient": ("#8A8A00", "<"),
    "QNN defaults": ("#7F7F7F", ">"),
}
LEAST_MIB = 0.25  # what a process grows by is not known better than that
MEMORY = "Memory over layers"
_NOTES = "-: not continued to this size. Bold (`**`): the least is a peer's."


def sections(results: Record) -> list[Record]:
    """Return the parts of a results file that say how busy the machine was: all points."""
    return [point for axis in results["axes"].values() for point in axis["points"]]


def pictures(results: Record, path: Path) -> dict[str, Path]:
    """Return the pictures beside a results file `path`, by what they show."""
    shown = {f"Time over {name}": path.with_name(f"{path.stem}-{name}.png") for name in results["axes"]}
    return shown | ({MEMORY: path.with_name(f"{path.stem}-memory.png")} if "layers" in results["axes"] else {})


def print_report(results: Record) -> None:
    """Print all tables of a results file."""
    print_sections(results, sections(results), *_contents(results))


def markdown(results: Record) -> str:
    """Return the same as Markdown, without the machine."""
    return markdown_sections(*_contents(results))


def failures(results: Record) -> list[str]:
    """Return a line for each contender of a point that failed or differs."""
    return [line for point in sections(results) for line in report.failures(point)]


def plot(results: Record, path: Path) -> list[Path]:
    """Draw time over each axis, and memory over layers, beside the results file `path`; return the files."""
    files = pictures(results, path)
    for name, axis in results["axes"].items():
        _draw(results, axis, files[f"Time over {name}"], "median_ms", "value and gradients, ms a call")
    if MEMORY in files:
        _draw(results, results["axes"]["layers"], files[MEMORY], "calls_mib", "growth of the process in its calls, MiB")
    return list(files.values())


def _draw(results: Record, axis: Record, file: Path, key: str, label: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.6), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    stopped = {(one["label"], one["dtype"]) for one in axis["stopped"]}
    for who, points in _lines(axis, key).items():
        label_of, dtype = who
        name = _name({"label": label_of, "dtype": dtype})
        if label_of == OURS:
            style = {"color": "black", "marker": "o", "linewidth": 2.5, "zorder": 3}
            style |= {} if dtype == "complex64" else {"linestyle": "--", "markerfacecolor": "white"}
        else:
            color, marker = STYLES[label_of]
            style = {"color": color, "marker": marker, "linewidth": 1.2}
        sizes, values = zip(*sorted(points.items()), strict=True)
        if key == "calls_mib":
            values = tuple(max(value, LEAST_MIB) for value in values)
        axes.plot(sizes, values, markersize=5.5, label=name, **style)
        if who in stopped and key == "median_ms":
            axes.annotate("×", (sizes[-1], values[-1]), xytext=(7, 0), textcoords="offset points", ha="left",
                          va="center", color=style["color"], fontsize=13)  # fmt: skip
    axes.set(yscale="log", xlabel=axis["label"], ylabel=label)
    plain_ticks(axes.yaxis)
    axes.set_xscale("linear" if axis["label"] == "qubits" else "log")  # the work is exponential in the qubits
    axes.set_xticks([point["size"] for point in axis["points"]])
    plain_ticks(axes.xaxis)
    axes.grid(alpha=0.3)
    axes.set_title(f"W2, {axis['fixed']}\n{report.machine_line(results)}", fontsize=9)
    note = f"×: not continued (more than {results['cap_s']:g} s a call, or failed)"
    if key == "calls_mib":
        note = f"growth below {LEAST_MIB:g} MiB is drawn there"
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    figure.supxlabel(note, fontsize=7, ha="left", x=0.01)
    figure.savefig(file)


def _lines(axis: Record, key: str) -> dict[tuple[str, str], dict[int, float]]:
    """Return the value of every contender at every size; contenders in the order in which they were measured."""
    lines: dict[tuple[str, str], dict[int, float]] = {}
    for point in axis["points"]:
        for entry in point["contenders"]:
            if entry.get(key) is not None and "median_ms" in entry:
                lines.setdefault((entry["label"], entry["dtype"]), {})[point["size"]] = entry[key]
    return lines


def _contents(results: Record) -> tuple[list[tuple[str, Table]], list[str], list[str]]:
    """Return the tables, what failed, and where a peer is faster."""
    tables = []
    for axis in results["axes"].values():
        caption = f"Median ms of a call over {axis['label']}; W2, {axis['fixed']}. {_NOTES}"
        tables.append((caption, _table(axis, "median_ms")))
        if axis["label"] == "layers":
            caption = (
                "MiB that the process grew by in its calls, above what it held when it was prepared (circuits, tapes); "
                "compilation counts, which with JAX comes with the first call. The same circuits and notes."
            )
            tables.append((caption, _table(axis, "calls_mib")))
        stops = [[_name(one), f"{one['size']:,}", one["reason"]] for one in axis["stopped"]]
        if stops:
            header = ["contender", axis["label"], "why"]
            tables.append((f"Who was not continued over {axis['label']} behind which, and why.", (header, stops)))
    points = sections(results)
    tables.append(ceilings_table(points, results["ceilings"]))
    return tables, results["missing"] + failures(results), [line for point in points for line in report.losses(point)]


def _table(axis: Record, key: str) -> Table:
    lines = _lines(axis, key)
    rows = []
    for point in axis["points"]:
        found = {who: line.get(point["size"]) for who, line in lines.items()}
        cells = {who: _number(value) for who, value in found.items()}
        for _, who in sorted((value, who) for who, value in found.items() if value is not None)[:1]:
            cells[who] = cells[who] if who[0] == OURS else f"**{cells[who]}**"
        rows.append([f"{point['size']:,}", *cells.values()])
    return [axis["label"], *(_name({"label": label, "dtype": dtype}) for label, dtype in lines)], rows
