# SPDX-License-Identifier: Apache-2.0
"""The tables of the named workloads."""

from __future__ import annotations

from common.report import OURS, Report, ceilings_table, details_table, duel, failed_contenders, losses, ms, name_of
from common.tables import Column, Record, Table, figure, markdown_table, number, tabulate, text

WITH_CIRCUIT = f"{OURS}, circuit"
OTHER = f"{OURS}, other checkout"
NEEDED_SHARE = 0.5  # our goal for the sweeps, as a share of the multiply-add peak of a core
NEEDED_SECONDS = {"lower_and_plan_s": 10, "rebind_s": 0.3}  # our goals for a circuit of 60,000 parameters


def summarize(workload: Record) -> Record:
    """Return a workload with our duels in both precisions, and our entry that is given a circuit."""
    entries = workload["contenders"]
    circuit = next((entry for entry in entries if entry["label"] == WITH_CIRCUIT and "median_ms" in entry), None)
    peer = (double := {dtype: duel(entries, dtype) for dtype in ("complex64", "complex128")})["complex64"]["peer"]
    times = peer["median_ms"] / circuit["median_ms"] if peer and circuit else None
    return workload | double | {"circuit": circuit, "circuit_ratio": times} | (workload.get("drop_in") or {})


def verdict(summary: Record) -> str:
    """Compare the ratio in complex64 with the goal of the workload."""
    ratio, required = summary["complex64"]["ratio"], summary["required"]
    if ratio is None or required is None:
        return ""
    return "missed" if ratio < required else "met"


def _ours(title: str, dtype: str) -> Column:
    return Column(title, lambda summary: ms(summary[dtype]["ours"]))


def _against(title: str, dtype: str) -> tuple[Column, ...]:
    """Return the columns of the fastest peer, its time, and how many times faster ours is."""
    return (
        Column(title, lambda summary: name_of(summary[dtype]["peer"]) if summary[dtype]["peer"] else "-"),
        Column("ms", lambda summary: ms(summary[dtype]["peer"])),
        Column("times", lambda summary: number(summary[dtype]["ratio"])),
    )


CIRCUIT = Column("circuit ms", lambda summary: ms(summary["circuit"]))
SPEED = (text("workload", "name"), _ours("c64 ms", "complex64"), *_against("best peer", "complex64"),
         figure("our goal", "required"), Column("verdict", verdict), CIRCUIT,
         figure("times", "circuit_ratio"), _ours("c128 ms", "complex128"), *_against("best c128 peer", "complex128"),
         figure("drop-in 1 row ms", "drop_in_ms"), figure("on top", "on_top_ms"))  # fmt: skip
README_SPEED = (
    text("workload", "name"),
    _ours("qiskit-fused, ms", "complex64"),
    Column("given a circuit, ms", CIRCUIT.cell),
    Column("best peer, ms", lambda s: "-" if not s["complex64"]["peer"] else ", ".join(
        (ms(s["complex64"]["peer"]), name_of(s["complex64"]["peer"])))),
    Column("times faster", lambda summary: number(summary["complex64"]["ratio"])),
)  # fmt: skip
PEAK = (figure("n", "num_qubits"), figure("sweeps ms", "sweep_ms"), figure("bind ms", "bind_ms"),
        Column("Gflop/s", lambda entry: number(entry["flops"] / entry["sweep_ms"] / 1e6)),
        figure("peak Gflop/s", "peak_flops_per_second", 1e9), figure("share", "fraction"))  # fmt: skip
MANY = (figure(f"lowering and planning (our goal: {NEEDED_SECONDS['lower_and_plan_s']})", "lower_and_plan_s"),
        figure(f"re-binding (our goal: {NEEDED_SECONDS['rebind_s']})", "rebind_s"),
        figure("in the engine", "rebind_in_engine_s"), figure("value_and_gradient", "call_s"),
        figure("the first one", "first_call_s"))  # fmt: skip


CHECKOUTS = (text("workload", "name"), text("dtype", "dtype"), Column("this, ms", lambda pair: ms(pair["ours"])),
             Column("other, ms", lambda pair: ms(pair["peer"])), figure("times faster", "ratio"),
             Column("this, min", lambda pair: number(pair["ours"]["min_ms"])),
             Column("other, min", lambda pair: number(pair["peer"]["min_ms"])),
             Column("times faster", lambda pair: number(pair["peer"]["min_ms"] / pair["ours"]["min_ms"])))  # fmt: skip


def readme_table(results: Record) -> str:
    """Return the table of README.md."""
    table = tabulate("", README_SPEED, map(summarize, results["workloads"]))
    return markdown_table(table.header, table.rows)


def tables(results: Record) -> list[Table]:
    """Return the tables of a results file."""
    workloads, own = results["workloads"], results.get("own", {})
    shown = [
        tabulate(
            "One call: values and gradients, median ms. c64 against the fastest peer of any precision; ~ extrapolated. "
            "circuit: the same given a QuantumCircuit, which every call compares with what was compiled.",
            SPEED,
            map(summarize, workloads),
        ),
        details_table(
            "All contenders, ms per call; first call in s, compilation included; memory above what was loaded.",
            workloads,
        ),
    ]
    pairs = [
        duel(entries, dtype, [OTHER], rivals=(dtype,)) | {"name": workload["name"], "dtype": dtype}
        for workload in workloads
        for entries in [workload["contenders"]]
        for dtype in ("complex64", "complex128")
    ]
    if pairs := [pair for pair in pairs if pair["ours"] and pair["peer"]]:
        shown.append(tabulate("This checkout beside the other one: median and least ms of a call.", CHECKOUTS, pairs))
    if "ceilings" in results:
        shown.append(ceilings_table(workloads, results["ceilings"]))
    if fractions := own.get("peak_fraction"):
        what = f"Share of the multiply-add peak inside the sweeps (our goal: {NEEDED_SHARE})"
        shown.append(tabulate(f"{what}: value_and_gradient of W1, c64, 1 thread", PEAK, fractions))
    if many := own.get("many_parameters"):
        size = f"{many['num_qubits']} qubits, {many['num_layers']:,} layers, {many['num_gates']:,} gates"
        shown.append(tabulate(f"{many['num_parameters']:,} parameters ({size}), c64, seconds", MANY, [many]))
    return shown


def failures(results: Record) -> list[str]:
    """Return a line for every contender that is not installed, failed or differs, and for every figure that failed."""
    lines = [*results.get("missing", ())]
    for workload in results["workloads"]:
        lines += failed_contenders(workload["name"], workload)
    return lines + [f"{name}: {why}" for name, why in results.get("own", {}).get("failed", {}).items()]


def misses(results: Record) -> list[str]:
    """Return a line for every precision in which a peer is faster, and for every missed goal."""
    lines = []
    for workload in results["workloads"]:
        lines += losses(workload)
        if verdict(summary := summarize(workload)) == "missed":
            ratio = number(summary["complex64"]["ratio"])
            lines.append(f"{workload['name']}: {ratio} times faster, {number(workload['required'])} needed")
    own = results.get("own", {})
    for entry in own.get("peak_fraction") or ():
        if entry["fraction"] < NEEDED_SHARE:
            share = f"{number(entry['fraction'])} of the multiply-add peak"
            lines.append(f"sweeps of {entry['num_qubits']} qubits: {share}, {NEEDED_SHARE} needed")
    many = own.get("many_parameters") or {}
    for key, seconds in NEEDED_SECONDS.items():
        if many and many[key] > seconds:
            what = f"{many['num_parameters']:,} parameters: {key} is {number(many[key])}"
            lines.append(f"{what}, {seconds} needed")
    return lines


REPORT = Report(lambda results: results["workloads"], tables, failures, misses)
