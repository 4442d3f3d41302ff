# SPDX-License-Identifier: Apache-2.0
"""The printed tables, made from the results alone: ``python benchmarks/report.py results.json`` prints them again."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

OURS = "qiskit-fused"
WITH_CIRCUIT = "qiskit-fused, circuit"

_QUIET = 0.2  # CPUs that others may take before the report warns

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
    """Say what the ratio in complex64 means for what is asked."""
    ratio, required, aim = summarize(workload)["complex64"]["ratio"], workload["required"], workload["aim"]
    if workload.get("aborted"):
        return "ABORTED"
    if ratio is None or required is None:
        return ""
    return "MISSED" if ratio < required else "ok" if ratio < aim else "aim"


def print_report(results: Record) -> None:
    """Print all tables of a results file."""
    _print_machine(results, results["workloads"])
    print(
        "\nOne call: values and gradients, median ms. c64 against the fastest peer of any precision; ~ extrapolated.\n"
        "circuit: the same given a QuantumCircuit, which every call compares with what was compiled.\n"
    )
    _print_table(*_main_table(results["workloads"]))
    print("\nAll contenders, ms per call; first call in s, compilation included; memory above what was loaded.\n")
    _print_table(*_detail_table(results["workloads"]))
    _print_own(results.get("own", {}))
    _print_losses(results["workloads"])


def markdown(results: Record) -> str:
    """Return the table of the README."""
    lines = [
        "| workload | qiskit-fused, ms | given a circuit, ms | best peer, ms | times faster |",
        "|---|---|---|---|---|",
    ]
    for workload in results["workloads"]:
        summary = summarize(workload)
        ours, peer, ratio = (summary["complex64"][key] for key in ("ours", "peer", "ratio"))
        cells = [workload["name"], _ms(ours), _ms(summary["circuit"]), f"{_ms(peer)}, {_name(peer)}", _number(ratio)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def print_sections(
    results: Record,
    sections: Iterable[Record],
    tables: Iterable[tuple[str, Table]],
    failures: list[str],
    misses: list[str],
) -> None:
    """Print a results file of `deep.py` or `training.py`: its tables with captions, what failed and what misses."""
    _print_machine(results, sections)
    for caption, table in tables:
        print(f"\n{caption}\n")
        _print_table(*table)
    for title, lines in (("What failed or differs:", failures), ("Where we miss:", misses)):
        print(f"\n{title}" + ("" if lines else " nothing in this run"))
        for line in lines:
            print(f"  {line}")


def markdown_tables(tables: Iterable[tuple[str, Table]]) -> str:
    """Return tables with captions as Markdown."""
    blocks = []
    for caption, (header, rows) in tables:
        lines = [header, ["---"] * len(header), *rows]
        blocks.append("\n".join([f"{caption}\n", *(f"| {' | '.join(line)} |" for line in lines)]))
    return "\n\n".join(blocks)


def _print_machine(results: Record, parts: Iterable[Record]) -> None:
    machine = results["machine"]
    print(f"\n{machine['cpu']}, {machine['simd']}, {results['num_threads']} threads, {results['date']}")
    busy = max((part["busy_cpus"] or 0.0 for part in parts), default=0.0)
    if busy > _QUIET:
        print(f"THE MACHINE WAS BUSY (others took up to {busy:.1f} of our CPUs): do not trust these figures")


def _main_table(workloads: list[Record]) -> tuple[list[str], list[list[str]]]:
    header = ["workload", "c64 ms", "best peer", "ms", "times", "need", "aim", "verdict", "circuit ms", "times",
              "c128 ms", "best c128 peer",
              "ms", "times", "drop-in 1 row ms", "on top"]  # fmt: skip
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
    header = [
        "workload",
        "contender",
        "median",
        "min",
        "25 %",
        "75 %",
        "turns",
        "first s",
        "MiB",
        "value err",
        "grad err",
    ]
    rows = []
    for workload in workloads:
        for i, entry in enumerate(workload["contenders"]):
            row = [workload["name"] if i == 0 else "", _name(entry)]
            if "failed" in entry:
                rows.append([*row, entry["failed"]])
                continue
            row += [_ms(entry), *(_number(entry.get(key)) for key in ("min_ms", "quartile_1_ms", "quartile_3_ms"))]
            row += [str(len(entry.get("times_ms", ()))), _number(entry["first_call_s"]), _number(entry.get("peak_mib"))]
            rows.append([*row, *(f"{entry[key]:.0e}" for key in ("value_error", "gradient_error"))])
        if workload.get("aborted"):
            rows.append(["", workload["aborted"]])
    return header, rows


def _print_own(own: Record) -> None:
    if fractions := own.get("peak_fraction"):
        print(
            "\nShare of the multiply-add peak inside the sweeps (need 0.5): value_and_gradient of W1, c64, 1 thread\n"
        )
        header = ["n", "sweeps ms", "bind ms", "Gflop/s", "peak Gflop/s", "share"]
        rows = []
        for entry in fractions:
            rates = (entry["flops"] / entry["sweep_ms"] / 1e6, entry["peak_flops_per_second"] / 1e9, entry["fraction"])
            numbers = (entry["num_qubits"], entry["sweep_ms"], entry["bind_ms"], *rates)
            rows.append([_number(number) for number in numbers])
        _print_table(header, rows)
    if many := own.get("many_parameters"):
        size = f"{many['num_qubits']} qubits, {many['num_layers']:,} layers, {many['num_gates']:,} gates"
        print(f"\n{many['num_parameters']:,} parameters ({size}), c64, seconds")
        print(f"  lowering and planning {many['lower_and_plan_s']:8.3f}, need 10")
        print(
            f"  re-binding            {many['rebind_s']:8.3f}, need 0.3; in the engine {many['rebind_in_engine_s']:.3f}"
        )
        print(f"  value_and_gradient    {many['call_s']:8.3f}, the first one {many['first_call_s']:.3f}")
    for name, text in own.get("failed", {}).items():
        print(f"\n{name}: {text}")


def _print_losses(workloads: list[Record]) -> None:
    lines = []
    for workload in workloads:
        summary = summarize(workload)
        for dtype in ("complex64", "complex128"):
            entry = summary[dtype]
            if entry["ratio"] is not None and entry["ratio"] < 1:
                lines.append(
                    f"{workload['name']}, {dtype}: {_name(entry['peer'])} is {1 / entry['ratio']:.2f} times faster"
                )
        if workload.get("aborted"):
            lines.append(f"{workload['name']}: {workload['aborted']}")
        elif verdict(workload) == "MISSED":
            ratio = summary["complex64"]["ratio"]
            lines.append(f"{workload['name']}: {_number(ratio)} times faster, {_number(workload['required'])} needed")
    print("\nWhere we lose or miss:" + ("" if lines else " nowhere in this run"))
    for line in lines:
        print(f"  {line}")


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


def _print_table(header: Sequence[str], rows: list[list[str]]) -> None:
    full = [row for row in rows if len(row) == len(header)]
    widths = [max(len(row[i]) for row in [list(header), *full]) for i in range(len(header))]
    left = {i for i, name in enumerate(header) if name in ("workload", "contender", "verdict") or "peer" in name[-4:]}
    for row in [list(header), *rows]:
        cells = (
            cell.ljust(width) if i in left else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))
        )
        print("  ".join(cells).rstrip())


def main(arguments: Sequence[str]) -> None:
    """Print the tables of a results file of `run.py`, `deep.py` or `training.py`; with --markdown, those of READMEs."""
    *flags, path = arguments
    results = json.loads(Path(path).read_text())
    show, in_markdown = print_report, markdown
    if results.get("kind") == "deep":
        import deep_report

        show, in_markdown = deep_report.print_report, deep_report.markdown
    elif results.get("kind") == "training":
        import training_report

        show, in_markdown = training_report.print_report, training_report.markdown
    if "--markdown" in flags:
        print(in_markdown(results))
    else:
        show(results)


if __name__ == "__main__":
    main(sys.argv[1:])
