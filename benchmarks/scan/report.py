# SPDX-License-Identifier: Apache-2.0
"""The tables and the pictures of the scans."""

from __future__ import annotations

from pathlib import Path

from common.report import (
    CONTENDER,
    OURS,
    Report,
    ceilings_table,
    failed_contenders,
    losses,
    machine_line,
    name_of,
    plain_ticks,
)
from common.tables import Column, Record, Table, number, tabulate, text

# Okabe and Ito chose these colours, which colour-blind people can tell apart; each colour has its own marker.
STYLES = {
    "lightning.qubit": ("#E69F00", "s"),
    "tensorcircuit-ng": ("#0072B2", "^"),
    "qulacs": ("#009E73", "D"),
    "FlagQuantum": ("#882255", "h"),
    "MindQuantum": ("#117733", "p"),
    "scaluq": ("#332288", "d"),
    "PyTorch autograd": ("#D55E00", "v"),
    "triton-qml, PyTorch path": ("#CC79A7", "P"),
    "Aer EstimatorV2": ("#56B4E9", "X"),
    "QNN + ReverseEstimatorGradient": ("#8A8A00", "<"),
    "QNN defaults": ("#7F7F7F", ">"),
}
LEAST_MIB = 0.25  # the growth of a process is measured to about 0.25 MiB; a smaller growth is drawn at 0.25 MiB
MEMORY = "Memory over layers"
_NOTES = "-: not continued to this size. Bold (`**`): the least is a peer's."

Who = tuple[str, str]  # label and precision


def sections(results: Record) -> list[Record]:
    """Return all points of all axes."""
    return [point for axis in results["axes"].values() for point in axis["points"]]


def pictures(results: Record, path: Path) -> dict[str, Path]:
    """Return the pictures beside a results file `path`, by their titles."""
    shown = {f"Time over {name}": path.with_name(f"{path.stem}-{name}.png") for name in results["axes"]}
    return shown | ({MEMORY: path.with_name(f"{path.stem}-memory.png")} if "layers" in results["axes"] else {})


def tables(results: Record) -> list[Table]:
    """Return the tables of a results file."""
    shown = []
    for axis in results["axes"].values():
        caption = f"Median ms of a call over {axis['label']}; W2, {axis['fixed']}. {_NOTES}"
        shown.append(_table(caption, axis, "median_ms"))
        if axis["label"] == "layers":
            caption = (
                "MiB that the process grew by in its calls, above what it held when it was prepared (circuits, tapes); "
                "compilation counts, which with JAX comes with the first call. The same circuits and notes."
            )
            shown.append(_table(caption, axis, "calls_mib"))
        if axis["stopped"]:
            columns = (CONTENDER, Column(axis["label"], lambda one: f"{one['size']:,}"), text("why", "reason"))
            caption = f"Who was not continued over {axis['label']} behind which, and why."
            shown.append(tabulate(caption, columns, axis["stopped"]))
    return [*shown, ceilings_table(sections(results), results["ceilings"])]


def failures(results: Record) -> list[str]:
    """Return a line for each contender that is not installed, and for each that failed or differs at a point."""
    return results["missing"] + [
        line for point in sections(results) for line in failed_contenders(point["name"], point)
    ]


def misses(results: Record) -> list[str]:
    """Return a line for each point and precision in which a peer is faster."""
    return [line for point in sections(results) for line in losses(point)]


REPORT = Report(sections, tables, failures, misses, pictures)


def _lines(axis: Record, key: str) -> dict[Who, dict[int, float]]:
    """Return the value of every contender at every size; contenders in the order in which they were measured."""
    lines: dict[Who, dict[int, float]] = {}
    for point in axis["points"]:
        for entry in point["contenders"]:
            if entry.get(key) is not None and "median_ms" in entry:
                lines.setdefault((entry["label"], entry["dtype"]), {})[point["size"]] = entry[key]
    return lines


def _table(caption: str, axis: Record, key: str) -> Table:
    """Return a row for each size, with a column for each contender; the least is bold if it is a peer's."""
    lines = _lines(axis, key)

    def column(who: Who) -> Column:
        def cell(size: int) -> str:
            found = {other: line[size] for other, line in lines.items() if size in line}
            least = min(found, key=lambda other: (found[other], other), default=None)
            shown = number(found.get(who))
            return f"**{shown}**" if who == least and who[0] != OURS else shown

        return Column(name_of({"label": who[0], "dtype": who[1]}), cell)

    sizes = Column(axis["label"], lambda size: f"{size:,}")
    return tabulate(caption, [sizes, *map(column, lines)], [point["size"] for point in axis["points"]])


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
        name = name_of({"label": label_of, "dtype": dtype})
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
    axes.set_title(f"W2, {axis['fixed']}\n{machine_line(results)}", fontsize=9)
    note = f"×: not continued (more than {results['cap_s']:g} s a call, or failed)"
    if key == "calls_mib":
        note = f"growth below {LEAST_MIB:g} MiB is drawn there"
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    figure.supxlabel(note, fontsize=7, ha="left", x=0.01)
    figure.savefig(file)
