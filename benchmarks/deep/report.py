# SPDX-License-Identifier: Apache-2.0
"""The tables and the picture of the deep benchmark, made from the results alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from main.report import Record, Table, _number, count, markdown_sections, plain_ticks, print_sections

MB = 10**6
SECTIONS = ("deep", "wide", "budgets", "drift")
METHODS = ("reverse", "checkpoint", "store", "auto")


def sections(results: Record) -> list[Record]:
    """Return the parts of a results file that say how busy the machine was."""
    return [results[name] for name in SECTIONS if name in results]


def pictures(results: Record, path: Path) -> dict[str, Path]:
    """Return the pictures beside a results file `path`, by what they show."""
    drawn = results.get("budgets", {}).get("entries")
    return {"Time against memory budget, by method": path.with_suffix(".png")} if drawn else {}


def print_report(results: Record) -> None:
    """Print all tables of a results file."""
    print_sections(results, sections(results), _tables(results), failures(results), misses(results))


def markdown(results: Record) -> str:
    """Return the tables of benchmarks/README.md."""
    return markdown_sections(_tables(results), failures(results), misses(results))


def failures(results: Record) -> list[str]:
    """Return a line for everything that did not run, was not checked, or differs from double precision."""
    lines = []
    for name in (name for name in SECTIONS if name in results):
        section = results[name]
        lines += [f"{name}, {key}: {section[key]}" for key in ("failed", "unchecked") if section.get(key)]
        for entry in section.get("entries", []):
            what = f"{name}, {_size(entry if name == 'drift' else section)}, {entry.get('method', 'any method')}"
            if "failed" in entry:
                lines.append(f"{what}: {entry['failed']}")
            elif entry.get("wrong"):
                error = entry["error"] if name == "drift" else entry["gradient_error"]
                lines.append(f"{what} DIFFERS from double precision: gradients by {error:.1e}")
    return lines


def misses(results: Record) -> list[str]:
    """Return a line for every goal that is missed."""
    lines = []
    for name in ("deep", "wide"):
        for entry in results.get(name, {}).get("entries", []):
            what = f"{name}, {entry['method']}, {count(entry['rows'], 'row')}"
            for quantity, value, goal, unit in _goals(entry, results[name]["entries"]):
                if goal is not None and value is not None and value > goal:
                    lines.append(f"{what}: {quantity} {_number(value)} {unit}, wanted {_number(goal)}")
    drift = results.get("drift", {})
    for entry in drift.get("entries", []):
        if entry.get("error", 0.0) > drift["goal"]:
            what = f"{_size(entry)}, {entry['method']}, {_angles(entry)}"
            lines.append(f"drift, {what}: {entry['error']:.1e}, wanted {drift['goal']:.0e}")
    return lines


def plot(results: Record, path: Path) -> None:
    """Draw time against memory budget, a line for each method, as a PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    section = results["budgets"]
    figure = Figure(figsize=(7.2, 4.4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    styles = {"reverse": ("C0", "o"), "checkpoint": ("C1", "s"), "store": ("C2", "^")}
    for method in METHODS:
        fits = [entry for entry in section.get("entries", []) if entry["method"] == method and "median_s" in entry]
        points = [entry["memory_limit"] / MB for entry in fits], [1e3 * entry["median_s"] for entry in fits]
        if method == "auto":
            axes.plot(*points, "o", color="black", markerfacecolor="none", markersize=11, label="auto takes")
        else:
            color, marker = styles[method]
            axes.plot(*points, color=color, marker=marker, markersize=5, label=method)
    stored = section["num_layers"] * section["state_bytes"] / MB
    axes.axvline(stored, color="gray", linestyle=":", linewidth=1)
    axes.text(stored, 0.98, " a state per layer", transform=axes.get_xaxis_transform(), va="top", color="gray")
    axes.set(xscale="log", yscale="log", xlabel="memory_limit, MB", ylabel="value and gradient of one sample, ms")
    axes.set_title(f"{_size(section)}, {section['dtype']}, {count(results['num_threads'], 'thread')}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        plain_ticks(axis)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path)


def _tables(results: Record) -> list[tuple[str, Table]]:
    makers = {"deep": _memory_table, "wide": _memory_table, "budgets": _budget_table, "drift": _drift_table}
    return [maker(results[name]) for name, maker in makers.items() if "entries" in results.get(name, {})]


def _memory_table(section: Record) -> tuple[str, Table]:
    """Time and memory of one circuit; goals in brackets."""
    header = ["method", "limit, MB", "rows", "call, s", "times reverse", "first, s", "process, MB", "calls, MB",
              "engine, MB", "states", "error"]  # fmt: skip
    scaled = next((entry["scaled_rows"] for entry in section["entries"] if entry["scaled_rows"]), None)
    if scaled:
        header.append(f"{scaled:,} rows, s")
    rows = []
    for entry in section["entries"]:
        limit = _number(_megabytes(entry["memory_limit"]))
        row = [entry["method"], limit, str(entry["rows"])]
        if "failed" in entry:
            rows.append([*row, "failed", *["-"] * (len(header) - 4)])
            continue
        times, slower, peak = (_with_goal(value, goal) for _, value, goal, _ in _goals(entry, section["entries"]))
        calls, before = entry["calls_peak_bytes"], entry["before_bytes"]
        row += [times, slower, _number(entry["first_call_s"]), peak]
        row.append(_number(None if calls is None or before is None else (calls - before) / MB))
        row += [_number(_megabytes(entry["engine_bytes"])), _text(entry["states"]), _error(entry.get("gradient_error"))]
        if scaled:
            factor = entry["scaled_rows"] and entry["scaled_rows"] / entry["rows"]
            row.append(f"~{_number(factor * entry['median_s'])}" if factor else "-")
        rows.append(row)
    stored = f"; a state per layer is {section['stored_bytes'] / MB:,.0f} MB" if "stored_bytes" in section else ""
    parameters = f"{section['num_parameters']:,} parameters"
    return f"{_size(section)}, {parameters}, {section['dtype']}{stored}. Goals in brackets.", (header, rows)


def _goals(entry: Record, entries: list[Record]) -> list[tuple[str, float | None, float | None, str]]:
    """Return (quantity, value, goal, unit) of time, time relative to method "reverse", and memory."""
    same = [one for one in entries if one["rows"] == entry["rows"] and one["method"] == "reverse"]
    base = same[0].get("median_s") if same else None
    time = entry.get("median_s")
    relative = time / base if time is not None and base else None
    return [
        ("a call takes", time, entry["goal_s"], "s"),
        ("slower than reverse by", relative, entry["goal_times"], "times"),
        ("the process takes", _megabytes(entry.get("peak_bytes")), _megabytes(entry["goal_bytes"]), "MB"),
    ]


def _budget_table(section: Record) -> tuple[str, Table]:
    """Milliseconds of each method with each budget; a dash is a budget that does not fit."""
    header = ["memory_limit, MB", *(f"{method}, ms" for method in METHODS), "auto took"]
    header[3:3] = ["its states"]
    rows = []
    for budget in sorted({entry["memory_limit"] for entry in section["entries"]}):
        of = {entry["method"]: entry for entry in section["entries"] if entry["memory_limit"] == budget}
        times = [_number(1e3 * of[m]["median_s"]) if "median_s" in of[m] else "-" for m in METHODS]
        times.insert(2, _text(of["checkpoint"].get("states")))
        rows.append([_number(budget / MB), *times, _text(of["auto"].get("engine_method"))])
    caption = f"{_size(section)}, {section['dtype']}, one sample. -: does not fit."
    return caption, (header, rows)


def _drift_table(section: Record) -> tuple[str, Table]:
    """The largest errors of gradients by depth."""
    entries = [entry for entry in section["entries"] if "error" in entry]
    depths = sorted({entry["num_layers"] for entry in entries})
    header = ["n", "angles", "dtype", "method", *(f"L = {depth:,}" for depth in depths)]
    lines: dict[tuple[str, ...], dict[int, str]] = {}
    for entry in sorted(entries, key=lambda entry: entry["num_qubits"]):
        key = (str(entry["num_qubits"]), _angles(entry), entry["dtype"], entry["method"])
        lines.setdefault(key, {})[entry["num_layers"]] = _error(entry["error"])
    rows = [[*key, *(found.get(depth, "-") for depth in depths)] for key, found in lines.items()]
    caption = (
        f"max |dg| / max |g| beside method reverse in complex128, the largest of {section['num_seeds']} samples; "
        f"at most {section['goal']:.0e} is wanted of complex64."
    )
    return caption, (header, rows)


def _size(record: Record) -> str:
    return f"n = {record['num_qubits']}, L = {record['num_layers']:,}"


def _angles(entry: Record) -> str:
    return "the same in all layers" if entry["repeated"] else "independent"


def _megabytes(count: float | None) -> float | None:
    return None if count is None else count / MB


def _with_goal(value: float | None, goal: float | None) -> str:
    return _number(value) if goal is None else f"{_number(value)} ({_number(goal)})"


def _error(value: float | None) -> str:
    return "-" if value is None else f"{value:.0e}"


def _text(value: Any) -> str:
    return "-" if value is None else str(value)
