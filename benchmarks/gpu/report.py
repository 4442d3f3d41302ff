# SPDX-License-Identifier: Apache-2.0
"""The tables of the GPU benchmark, made from the results alone."""

from __future__ import annotations

from typing import Any

from main.report import OURS, _ms, _name, _number, _print_table, summarize

MAIN_PEER = "triton-qml"

Record = dict[str, Any]


def print_report(results: Record) -> None:
    """Print all tables of a results file."""
    gpu, ceilings = results["gpu"], results["ceilings"]
    print(f"\n{gpu['name']}, {results['date']}, revision {results['revision']}")
    if results["dry_run"]:
        print("DRY RUN on the CPU: tiny circuits that show that the benchmark works, no figures")
    print(
        f"ceilings measured here: {ceilings['flops_per_second'] / 1e12:.3g} Tflop/s of single-precision multiply-adds, "
        f"{ceilings['bytes_per_second'] / 1e9:,.0f} GB/s of a copy, read plus written"
    )
    print("\nValues and gradient of their mean, median ms of a call, NumPy to NumPy; ~ extrapolated from fewer rows.\n")
    _print_table(*_main_table(results["workloads"]))
    for line in _extrapolations(results["workloads"]):
        print(line)
    print("\nAll contenders, ms per call; first call in s; device memory in MiB; errors beside double precision.\n")
    _print_table(*_detail_table(results["workloads"]))
    for workload in results["workloads"]:
        for entry in workload["contenders"]:
            if entry.get("settings"):
                print(f"  {workload['name']}, {entry['label']}: {entry['settings']}")
    print("\nqiskit-fused against the ceilings; flops of the plan, bytes that its sweeps read and write.\n")
    _print_table(*_rate_table(results["workloads"], ceilings))
    for label, reason in results["skipped"].items():
        print(f"\n{label} was skipped: {reason}")
    lines = _losses(results["workloads"])
    print("\nWhere we lose or miss:" + ("" if lines else " nowhere in this run"))
    for line in lines:
        print(f"  {line}")


def _ours(workload: Record) -> Record | None:
    return summarize(workload)["complex64"]["ours"]


def _times(workload: Record, entry: Record | None) -> float | None:
    ours = _ours(workload)
    return entry["median_ms"] / ours["median_ms"] if ours and entry and "median_ms" in entry else None


def _main_peer(workload: Record) -> Record | None:
    return next((entry for entry in workload["contenders"] if entry["label"] == MAIN_PEER), None)


def _main_table(workloads: list[Record]) -> tuple[list[str], list[list[str]]]:
    header = ["workload", "ms", "goal H200", "best peer", "ms", "times", MAIN_PEER, "times", "our goal"]
    rows = []
    for workload in workloads:
        best, main = summarize(workload)["complex64"]["peer"], _main_peer(workload)
        row = [workload["name"], _ms(_ours(workload)), _number(workload["goal_ms"])]
        row += [best["label"] if best else "-", _ms(best), _number(_times(workload, best))]
        rows.append([*row, _ms(main), _number(_times(workload, main)), _number(workload["required"])])
    return header, rows


def _extrapolations(workloads: list[Record]) -> list[str]:
    lines = []
    for workload in workloads:
        target = next((other for other in workloads if other["name"] == workload["extrapolates"]), None)
        if not target:
            continue
        for entry in workload["contenders"]:
            measured = next((other for other in target["contenders"] if other["label"] == entry["label"]), None)
            if "median_ms" in entry:
                scaled = entry["median_ms"] * target["batch"] / workload["batch"]
                what = f"{target['name']}: {entry['label']} from B={workload['batch']} ~{_number(scaled)} ms"
                lines.append(f"{what}, in the table {_ms(measured)}")
    return ["", *lines] if lines else []


def _detail_table(workloads: list[Record]) -> tuple[list[str], list[list[str]]]:
    header = ["workload", "contender", "median", "min", "25 %", "75 %", "calls", "rows", "first s", "MiB", "value err",
              "grad err"]  # fmt: skip
    rows = []
    for workload in workloads:
        for i, entry in enumerate(workload["contenders"]):
            row = [workload["name"] if i == 0 else "", _name(entry)]
            if "failed" in entry:
                rows.append([*row, entry["failed"]])
                continue
            row += [_ms(entry), *(_number(entry.get(key)) for key in ("min_ms", "quartile_1_ms", "quartile_3_ms"))]
            peak = entry.get("peak_bytes")
            row += [str(len(entry.get("times_ms", ()))), str(entry["rows"]), _number(entry["first_call_s"])]
            row.append(_number(None if peak is None else peak / 2**20))
            rows.append([*row, *(f"{entry[key]:.0e}" for key in ("value_error", "gradient_error"))])
        if workload.get("aborted"):
            rows.append(["", "ABORTED", workload["aborted"]])
    return header, rows


def _rate_table(workloads: list[Record], ceilings: Record) -> tuple[list[str], list[list[str]]]:
    header = ["workload", "call ms", "sweeps ms", "Gflop", "Tflop/s", "share", "GB", "GB/s", "share"]
    rows = []
    for workload in workloads:
        ours = _ours(workload)
        if not ours or "work" not in workload:
            continue
        seconds, stats = 1e-3 * ours["median_ms"], workload["stats"]
        flops, moved = (workload["work"][name] * workload["batch"] for name in ("flops", "bytes_moved"))
        row = [workload["name"], _ms(ours), _number(1e3 * stats["sweep_seconds"] if "sweep_seconds" in stats else None)]
        row += [_number(flops / 1e9), _number(flops / seconds / 1e12)]
        row.append(_number(flops / seconds / ceilings["flops_per_second"]))
        row += [_number(moved / 1e9), _number(moved / seconds / 1e9)]
        rows.append([*row, _number(moved / seconds / ceilings["bytes_per_second"])])
    return header, rows


def _losses(workloads: list[Record]) -> list[str]:
    lines = []
    for workload in workloads:
        if workload.get("aborted"):
            lines.append(f"{workload['name']}: {workload['aborted']}")
            continue
        for entry in workload["contenders"]:
            times = _times(workload, entry)
            if entry["label"] == OURS or times is None:
                continue
            if times < 1:
                lines.append(f"{workload['name']}: {entry['label']} is {_number(1 / times)} times faster")
            elif entry["label"] == MAIN_PEER and times < (workload["required"] or 0):
                lines.append(
                    f"{workload['name']}: {_number(times)} times faster than {MAIN_PEER}, "
                    f"{_number(workload['required'])} wanted"
                )
        ours = _ours(workload)
        if ours and workload["goal_ms"] and ours["median_ms"] > workload["goal_ms"]:
            lines.append(
                f"{workload['name']}: {_ms(ours)} ms, the goal for an H200 is {_number(workload['goal_ms'])} ms"
            )
    return lines
