# SPDX-License-Identifier: Apache-2.0
"""The tables and the picture of the deep benchmark."""

from __future__ import annotations

from pathlib import Path

from common.report import Report, plain_ticks
from common.tables import MB, Column, Record, Table, count, error, figure, number, tabulate, text

SECTIONS = ("deep", "wide", "budgets", "drift")
METHODS = ("reverse", "checkpoint", "store", "auto")


# A goal: the words in front of a value that misses it, the keys of the value and of its limit, the noun and the size of
# the unit.
GOALS = (
    ("a call takes", "median_s", "goal_s", "s", 1),
    ("slower than reverse by", "slowdown", "goal_times", "times", 1),
    ("the process takes", "peak_bytes", "goal_bytes", "MB", MB),
)
MEMORY = (text("method", "method"), figure("limit, MB", "memory_limit", MB), text("rows", "rows"),
          figure("call, s", "median_s", goal="goal_s"), figure("times reverse", "slowdown", goal="goal_times"),
          figure("first, s", "first_call_s"), figure("process, MB", "peak_bytes", MB, goal="goal_bytes"),
          figure("calls, MB", "growth_bytes", MB), figure("engine, MB", "engine_bytes", MB), text("states", "states"),
          error("error", "gradient_error"))  # fmt: skip


def sections(results: Record) -> list[Record]:
    """Return the sections that a results file holds."""
    return [results[name] for name in SECTIONS if name in results]


def pictures(results: Record, path: Path) -> dict[str, Path]:
    """Return the pictures beside a results file `path`, by their titles."""
    drawn = results.get("budgets", {}).get("entries")
    return {"Time against memory budget, by method": path.with_suffix(".png")} if drawn else {}


def tables(results: Record) -> list[Table]:
    """Return the tables of a results file."""
    makers = {"deep": _memory_table, "wide": _memory_table, "budgets": _budget_table, "drift": _drift_table}
    return [maker(results[name]) for name, maker in makers.items() if "entries" in results.get(name, {})]


def failures(results: Record) -> list[str]:
    """Return a line for each measurement that did not run, was not checked, or differs from double precision."""
    lines = []
    for name in (name for name in SECTIONS if name in results):
        section = results[name]
        lines += [f"{name}, {key}: {section[key]}" for key in ("failed", "unchecked") if section.get(key)]
        for entry in section.get("entries", []):
            what = f"{name}, {_size(entry if name == 'drift' else section)}, {entry.get('method', 'any method')}"
            if "failed" in entry:
                lines.append(f"{what}: {entry['failed']}")
            elif entry.get("wrong"):
                largest = entry["error"] if name == "drift" else entry["gradient_error"]
                lines.append(f"{what} DIFFERS from double precision: gradients by {largest:.1e}")
    return lines


def misses(results: Record) -> list[str]:
    """Return a line for every goal that is missed."""
    lines = []
    for name in ("deep", "wide"):
        for entry in _derived(results.get(name, {}).get("entries", [])):
            what = f"{name}, {entry['method']}, {count(entry['rows'], 'row')}"
            for words, key, limit, noun, unit in GOALS:
                value, goal = entry.get(key), entry.get(limit)
                if value is not None and goal is not None and value > goal:
                    lines.append(f"{what}: {words} {number(value / unit)} {noun}, wanted {number(goal / unit)}")
    drift = results.get("drift", {})
    for entry in drift.get("entries", []):
        if entry.get("error", 0.0) > drift["goal"]:
            what = f"{_size(entry)}, {entry['method']}, {_angles(entry)}"
            lines.append(f"drift, {what}: {entry['error']:.1e}, wanted {drift['goal']:.0e}")
    return lines


REPORT = Report(sections, tables, failures, misses, pictures)


def _derived(entries: list[Record]) -> list[Record]:
    """Add to entries how many times slower they are than method "reverse", and how far memory rose in the calls."""
    reverse = {entry["rows"]: entry.get("median_s") for entry in reversed(entries) if entry["method"] == "reverse"}
    derived = []
    for entry in entries:
        time, base = entry.get("median_s"), reverse.get(entry["rows"])
        before, peak = entry.get("before_bytes"), entry.get("calls_peak_bytes")
        more = {"slowdown": time / base if time is not None and base else None}
        derived.append(entry | more | {"growth_bytes": None if None in (before, peak) else peak - before})
    return derived


def _memory_table(section: Record) -> Table:
    """Return time and memory of one circuit."""
    columns = list(MEMORY)
    if scaled := next((entry["scaled_rows"] for entry in section["entries"] if entry["scaled_rows"]), None):

        def cell(entry: Record) -> str:
            factor = entry["scaled_rows"] and entry["scaled_rows"] / entry["rows"]
            return f"~{number(factor * entry['median_s'])}" if factor else "-"

        columns.append(Column(f"{scaled:,} rows, s", cell))
    stored = f"; a state per layer is {section['stored_bytes'] / MB:,.0f} MB" if "stored_bytes" in section else ""
    parameters = f"{section['num_parameters']:,} parameters"
    caption = f"{_size(section)}, {parameters}, {section['dtype']}{stored}. Goals in brackets."
    reason = lambda entry: "failed" if "failed" in entry else None  # noqa: E731
    return tabulate(caption, columns, _derived(section["entries"]), reason, named=3)


def _budget_table(section: Record) -> Table:
    """Return milliseconds of each method with each budget."""

    def time(method: str) -> Column:
        return figure(f"{method}, ms", method, 1e-3)

    columns = (figure("memory_limit, MB", "memory_limit", MB), time("reverse"), time("checkpoint"),
               text("its states", "states"), time("store"), time("auto"), text("auto took", "took"))  # fmt: skip
    records = []
    for budget in sorted({entry["memory_limit"] for entry in section["entries"]}):
        of = {entry["method"]: entry for entry in section["entries"] if entry["memory_limit"] == budget}
        record = {method: of[method].get("median_s") for method in METHODS} | {"memory_limit": budget}
        record |= {"states": of["checkpoint"].get("states"), "took": of["auto"].get("engine_method")}
        records.append(record)
    return tabulate(f"{_size(section)}, {section['dtype']}, one sample. -: does not fit.", columns, records)


def _drift_table(section: Record) -> Table:
    """Return the largest errors of gradients by depth."""
    entries = [entry for entry in section["entries"] if "error" in entry]
    depths = sorted({entry["num_layers"] for entry in entries})
    records: dict[tuple[str, ...], Record] = {}
    for entry in sorted(entries, key=lambda entry: entry["num_qubits"]):
        key = {"num_qubits": entry["num_qubits"], "angles": _angles(entry), "dtype": entry["dtype"]}
        key |= {"method": entry["method"]}
        records.setdefault(tuple(key.values()), key)[entry["num_layers"]] = entry["error"]
    columns = (text("n", "num_qubits"), text("angles", "angles"), text("dtype", "dtype"), text("method", "method"),
               *(error(f"L = {depth:,}", depth) for depth in depths))  # fmt: skip
    caption = (
        f"max |dg| / max |g| beside method reverse in complex128, the largest of {section['num_seeds']} samples; "
        f"at most {section['goal']:.0e} is wanted of complex64."
    )
    return tabulate(caption, columns, records.values())


def plot(results: Record, path: Path) -> None:
    """Draw time against memory budget, a line for each method, as a PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    section = results["budgets"]
    picture = Figure(figsize=(7.2, 4.4), dpi=150, layout="constrained")
    axes = picture.add_subplot()
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
    picture.savefig(path)


def _size(record: Record) -> str:
    return f"n = {record['num_qubits']}, L = {record['num_layers']:,}"


def _angles(entry: Record) -> str:
    return "the same in all layers" if entry["repeated"] else "independent"
