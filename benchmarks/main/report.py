# SPDX-License-Identifier: Apache-2.0
"""The tables of the benchmarks, made from the results alone.

::

    python benchmarks report results/DEVICE/DATE.json    # print the tables of a results file again
    python benchmarks report --markdown FILE             # the same as Markdown
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

OURS = "qiskit-fused"
WITH_CIRCUIT = "qiskit-fused, circuit"
REPORTS = {"run": "main.report", "scan": "scan.report", "deep": "deep.report", "training": "training.report",
           "gpu": "gpu.report"}  # fmt: skip

DETAILS = ["median", "min", "25 %", "75 %", "turns", "first s", "MiB", "value err", "grad err"]

_FOLDED = 30  # rows of a table in Markdown that has to be opened
_QUIET = 0.2  # CPUs that others may take before the report warns
NEEDED_SHARE = 0.5  # of the multiply-add peak inside the sweeps
NEEDED_SECONDS = {"lower_and_plan_s": 10, "rebind_s": 0.3}  # of a circuit of 60,000 parameters

Record = dict[str, Any]
Table = tuple[list[str], list[list[str]]]


def summarize(workload: Record) -> Record:
    """Return ours and the best peer of a workload in both precisions, and how many times faster ours is.

    Our complex64 is held against the fastest peer of any precision, our complex128 against the complex128 peers.
    """
    timed = [entry for entry in workload["contenders"] if "median_ms" in entry]

    def best(entries: Iterable[Record]) -> Record | None:
        return min(entries, key=lambda entry: entry["median_ms"], default=None)

    summary: Record = {}
    for dtype, rivals in (("complex64", ("complex64", "complex128")), ("complex128", ("complex128",))):
        ours = best(entry for entry in timed if entry["label"] == OURS and entry["dtype"] == dtype)
        peer = best(entry for entry in timed if not entry["label"].startswith(OURS) and entry["dtype"] in rivals)
        ratio = peer["median_ms"] / ours["median_ms"] if ours and peer else None
        summary[dtype] = {"ours": ours, "peer": peer, "ratio": ratio}
    summary["circuit"] = best(entry for entry in timed if entry["label"] == WITH_CIRCUIT)
    return summary


def verdict(workload: Record) -> str:
    """Compare the ratio in complex64 with the two goals of the workload."""
    ratio, required, aim = summarize(workload)["complex64"]["ratio"], workload["required"], workload["aim"]
    if ratio is None or required is None:
        return ""
    return "missed" if ratio < required else "goal met" if ratio < aim else "stretch goal met"


def failures(workload: Record) -> list[str]:
    """Return a line for each contender of a workload that failed or differs."""
    return [
        f"{workload['name']}, {_name(entry)}: {entry.get('failed') or entry['wrong']}"
        for entry in workload["contenders"]
        if "failed" in entry or "wrong" in entry
    ]


def losses(workload: Record) -> list[str]:
    """Return a line for each precision in which a peer is faster."""
    lines = []
    for dtype, entry in ((dtype, summarize(workload)[dtype]) for dtype in ("complex64", "complex128")):
        if entry["ratio"] is not None and entry["ratio"] < 1:
            times = f"{_name(entry['peer'])} is {1 / entry['ratio']:.2f} times faster"
            lines.append(f"{workload['name']}, {dtype}: {times}")
    return lines


def sections(results: Record) -> list[Record]:
    """Return the parts of a results file that say how busy the machine was."""
    return results["workloads"]


def pictures(results: Record, path: Path) -> dict[str, Path]:
    """Return the pictures beside a results file `path`, by what they show."""
    return {}


def print_report(results: Record) -> None:
    """Print all tables of a results file of main."""
    print_sections(results, sections(results), *_contents(results))


def markdown(results: Record) -> str:
    """Return the same as Markdown."""
    return markdown_sections(*_contents(results))


def speed_table(results: Record) -> str:
    """Return the table of the README."""
    header = ["workload", "qiskit-fused, ms", "given a circuit, ms", "best peer, ms", "times faster"]
    rows = []
    for workload in results["workloads"]:
        summary = summarize(workload)
        ours, peer, ratio = (summary["complex64"][key] for key in ("ours", "peer", "ratio"))
        best = f"{_ms(peer)}, {_name(peer)}" if peer else "-"
        rows.append([workload["name"], _ms(ours), _ms(summary["circuit"]), best, _number(ratio)])
    return _markdown_table((header, rows))


def plain_ticks(axis: Any) -> None:
    """Write the numbers of a logarithmic axis without exponents."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def print_sections(
    results: Record,
    sections: Iterable[Record],
    tables: Iterable[tuple[str, Table]],
    failures: list[str],
    misses: list[str],
) -> None:
    """Print a results file: its tables with captions, what failed and what misses."""
    print(f"\n{machine_line(results)}")
    print(busy_line(sections), end="")
    for caption, table in tables:
        print(f"\n{caption}\n")
        _print_table(*table)
    for title, lines in _lists(failures, misses):
        print(f"\n{title}" + ("" if lines else " nothing in this run"))
        for line in lines:
            print(f"  {line}")


def markdown_sections(tables: Iterable[tuple[str, Table]], failures: list[str], misses: list[str]) -> str:
    """Return the same as Markdown, without the machine."""
    blocks = []
    for caption, table in tables:
        lines = _markdown_table(table)
        folded = len(table[1]) > _FOLDED
        blocks.append(
            f"<details><summary>{caption}</summary>\n\n{lines}\n\n</details>" if folded else f"{caption}\n\n{lines}"
        )
    for title, lines in _lists(failures, misses):
        blocks.append("\n".join([f"{title}\n", *(f"* {line}" for line in lines)]) if lines else f"{title} nothing.")
    return "\n\n".join(blocks)


def machine_line(results: Record) -> str:
    """Name the machine and the day."""
    threads = count(results["num_threads"], "thread")
    day = results["date"][:16].replace("T", " ")
    return f"{results['machine']['cpu']}, {results['machine']['simd']}, {threads}, {day} UTC"


def count(number: int, noun: str) -> str:
    """Write a number with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def busy_line(sections: Iterable[Record]) -> str:
    """Warn, in a line, if others used the CPUs."""
    busy = max((section.get("busy_cpus") or 0.0 for section in sections), default=0.0)
    if busy <= _QUIET:
        return ""
    return f"THE MACHINE WAS BUSY (others took up to {busy:.1f} of our CPUs): do not trust these figures\n"


def ceilings_table(workloads: Sequence[Record], ceilings: Record) -> tuple[str, Table]:
    """Return how near our complex64 calls come to what the machine can do at most."""
    header = ["workload", "c64 ms", "Gflop/s", "share of peak", "GB/s", "share of bandwidth"]
    rows = []
    for workload in workloads:
        ours = summarize(workload)["complex64"]["ours"]
        if not ours or "work" not in workload:
            continue
        seconds = 1e-3 * ours["median_ms"]
        flops, moved = (workload["work"][name] * workload["batch"] / seconds for name in ("flops", "bytes_moved"))
        row = [workload["name"], _ms(ours), _number(flops / 1e9), _percent(flops / ceilings["flops_per_second"])]
        rows.append([*row, _number(moved / 1e9), _percent(moved / ceilings["bytes_per_second"])])
    caption = (
        f"Whole calls of qiskit-fused in complex64 against the ceilings of the machine, measured in the same run: "
        f"{ceilings['flops_per_second'] / 1e9:,.0f} Gflop/s of multiply-adds on registers, "
        f"{ceilings['bytes_per_second'] / 1e9:.3g} GB/s of a copy in memory, read plus written. Flops and bytes are "
        "those of the plan; small states stay in the caches, which are faster than memory."
    )
    return caption, (header, rows)


def _lists(failures: list[str], misses: list[str]) -> tuple[tuple[str, list[str]], ...]:
    return ("What failed or differs:", failures), ("Where we lose or miss:", misses)


def _markdown_table(table: Table) -> str:
    header, rows = table
    full = [[*row, *[""] * (len(header) - len(row))] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *full])


def _contents(results: Record) -> tuple[list[tuple[str, Table]], list[str], list[str]]:
    """Return the tables of a results file of main, what failed, and what misses."""
    workloads = results["workloads"]
    tables = [
        (
            "One call: values and gradients, median ms. c64 against the fastest peer of any precision; ~ extrapolated. "
            "circuit: the same given a QuantumCircuit, which every call compares with what was compiled.",
            _main_table(workloads),
        ),
        (
            "All contenders, ms per call; first call in s, compilation included; memory above what was loaded.",
            _detail_table(workloads),
        ),
    ]
    if "ceilings" in results:
        tables.append(ceilings_table(workloads, results["ceilings"]))
    tables += _own_tables(results.get("own", {}))
    failed = [*results.get("missing", ()), *(line for workload in workloads for line in failures(workload))]
    failed += [f"{name}: {text}" for name, text in results.get("own", {}).get("failed", {}).items()]
    missed = []
    for workload in workloads:
        missed += losses(workload)
        if verdict(workload) == "missed":
            ratio = _number(summarize(workload)["complex64"]["ratio"])
            missed.append(f"{workload['name']}: {ratio} times faster, {_number(workload['required'])} needed")
    return tables, failed, missed + _own_misses(results.get("own", {}))


def _own_misses(own: Record) -> list[str]:
    missed = []
    for entry in own.get("peak_fraction") or ():
        if entry["fraction"] < NEEDED_SHARE:
            share = f"{_number(entry['fraction'])} of the multiply-add peak"
            missed.append(f"sweeps of {entry['num_qubits']} qubits: {share}, {NEEDED_SHARE} needed")
    many = own.get("many_parameters") or {}
    for key, seconds in NEEDED_SECONDS.items():
        if many and many[key] > seconds:
            missed.append(f"{many['num_parameters']:,} parameters: {key} is {_number(many[key])}, {seconds} needed")
    return missed


def _main_table(workloads: list[Record]) -> tuple[list[str], list[list[str]]]:
    header = ["workload", "c64 ms", "best peer", "ms", "times", "our goal", "stretch goal", "verdict", "circuit ms",
              "times", "c128 ms", "best c128 peer", "ms", "times", "drop-in 1 row ms", "on top"]  # fmt: skip
    rows = []
    for workload in workloads:
        summary, row = summarize(workload), [workload["name"]]
        for dtype in ("complex64", "complex128"):
            ours, peer, ratio = (summary[dtype][key] for key in ("ours", "peer", "ratio"))
            row += [_ms(ours), _name(peer) if peer else "-", _ms(peer), _number(ratio)]
            if dtype == "complex64":
                row += [_number(workload["required"]), _number(workload["aim"]), verdict(workload)]
                circuit = summary["circuit"]
                row += [_ms(circuit), _number(peer["median_ms"] / circuit["median_ms"] if peer and circuit else None)]
        route = workload.get("drop_in") or {}
        rows.append([*row, _number(route.get("drop_in_ms")), _number(route.get("on_top_ms"))])
    return header, rows


def _detail_table(workloads: list[Record]) -> tuple[list[str], list[list[str]]]:
    header = ["workload", "contender", *DETAILS]
    rows = []
    for workload in workloads:
        for i, entry in enumerate(workload["contenders"]):
            rows.append([workload["name"] if i == 0 else "", _name(entry), *details(entry)])
    return header, rows


def details(entry: Record) -> list[str]:
    """Return the cells of `DETAILS` of a contender, or why it has none."""
    for reason in ("failed", "wrong", "left_out"):
        if entry.get(reason):
            return [entry[reason]]
    row = [_ms(entry), *(_number(entry.get(key)) for key in ("min_ms", "quartile_1_ms", "quartile_3_ms"))]
    row += [str(len(entry.get("times_ms", ()))), _number(entry["first_call_s"]), _number(entry.get("peak_mib"))]
    return [*row, *(f"{entry[key]:.0e}" for key in ("value_error", "gradient_error"))]


def _own_tables(own: Record) -> list[tuple[str, Table]]:
    tables = []
    if fractions := own.get("peak_fraction"):
        header = ["n", "sweeps ms", "bind ms", "Gflop/s", "peak Gflop/s", "share"]
        rows = []
        for entry in fractions:
            rates = (entry["flops"] / entry["sweep_ms"] / 1e6, entry["peak_flops_per_second"] / 1e9, entry["fraction"])
            numbers = (entry["num_qubits"], entry["sweep_ms"], entry["bind_ms"], *rates)
            rows.append([_number(number) for number in numbers])
        caption = (
            f"Share of the multiply-add peak inside the sweeps (our goal: {NEEDED_SHARE}): value_and_gradient of W1, "
            "c64, 1 thread"
        )
        tables.append((caption, (header, rows)))
    if many := own.get("many_parameters"):
        size = f"{many['num_qubits']} qubits, {many['num_layers']:,} layers, {many['num_gates']:,} gates"
        planning, binding = (NEEDED_SECONDS[key] for key in ("lower_and_plan_s", "rebind_s"))
        header = [f"lowering and planning (our goal: {planning})", f"re-binding (our goal: {binding})", "in the engine",
                  "value_and_gradient", "the first one"]  # fmt: skip
        keys = ("lower_and_plan_s", "rebind_s", "rebind_in_engine_s", "call_s", "first_call_s")
        caption = f"{many['num_parameters']:,} parameters ({size}), c64, seconds"
        tables.append((caption, (header, [[_number(many[key]) for key in keys]])))
    return tables


def _name(entry: Record) -> str:
    return f"{entry['label']} {entry['dtype'].replace('omplex', '')}"


def _ms(entry: Record | None) -> str:
    if not entry or "median_ms" not in entry:
        return "-"
    return ("~" if entry["extrapolated"] else "") + _number(entry["median_ms"])


def _number(value: float | None) -> str:
    """Format with three significant digits and without an exponent."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1g}"


def _percent(share: float) -> str:
    return f"{_number(100 * share)}%"


def _print_table(header: Sequence[str], rows: list[list[str]]) -> None:
    full = [row for row in rows if len(row) == len(header)]
    widths = [max(len(row[i]) for row in [list(header), *full]) for i in range(len(header))]
    left = {i for i, name in enumerate(header) if name in ("workload", "contender", "verdict") or "peer" in name[-4:]}
    for row in [list(header), *rows]:
        cells = (
            cell.ljust(width) if i in left else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))
        )
        print("  ".join(cells).rstrip())


def kind_of(results: Record) -> str:
    """Return which benchmark a results file is of."""
    return results.get("kind", "gpu" if "gpu" in results else "run")


def report_of(results: Record) -> Any:
    """Return the module with `print_report` and `markdown` for a results file."""
    return importlib.import_module(REPORTS[kind_of(results)])


def main() -> None:
    """Print the tables of a results file."""
    *flags, path = sys.argv[1:]
    results = json.loads(Path(path).read_text())
    report = report_of(results)
    if "--markdown" in flags:
        print(report.markdown(results))
    else:
        report.print_report(results)
