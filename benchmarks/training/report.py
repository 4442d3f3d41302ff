# SPDX-License-Identifier: Apache-2.0
"""The tables of the training benchmark, made from the results alone."""

from __future__ import annotations

from main.report import OURS, Record, Table, _ms, _name, _number, markdown_sections, print_sections
from main.report import pictures as pictures  # none

MB = 10**6
JOBS = ("jacobian", "vjp", "step")
SECTIONS = (*JOBS, "digits", "memory")


def sections(results: Record) -> list[Record]:
    """Return the parts of a results file that say how busy the machine was."""
    return [results[name] for name in SECTIONS if name in results]


def print_report(results: Record) -> None:
    """Print all tables of a results file."""
    print_sections(results, sections(results), _tables(results), failures(results), misses(results))


def markdown(results: Record) -> str:
    """Return the tables of benchmarks/README.md."""
    return markdown_sections(_tables(results), failures(results), misses(results))


def summarize(section: Record) -> list[Record]:
    """Return, for each goal and precision, ours, the best peer that it is held against, and how many times faster.

    Our complex64 is held against the fastest of any precision, our complex128 against complex128. Goals are about the
    former.
    """
    timed = [entry for entry in section["contenders"] if "median_ms" in entry]
    rows = []
    for goal in section["goals"]:
        for dtype, rivals in (("complex64", ("complex64", "complex128")), ("complex128", ("complex128",))):
            ours = [entry for entry in timed if entry["label"] == OURS and entry["dtype"] == dtype]
            peers = [entry for entry in timed if entry["label"] in goal["against"] and entry["dtype"] in rivals]
            if not (ours and peers):
                continue
            peer = min(peers, key=lambda entry: entry["median_ms"])
            ratio = peer["median_ms"] / ours[0]["median_ms"]
            required = goal["required"] if dtype == "complex64" else None
            rows.append({"ours": ours[0], "peer": peer, "ratio": ratio, "required": required})
    return rows


def failures(results: Record) -> list[str]:
    """Return a line for everything that did not run, was not checked, or differs from double precision."""
    lines = []
    for name in (name for name in SECTIONS if name in results):
        section = results[name]
        lines += [f"{name}: {section[key]}" for key in ("failed", "unchecked") if section.get(key)]
        if section.get("wrong"):
            lines.append(f"{name} {_differs(section)}")
        for entry in (*section.get("contenders", ()), *section.get("entries", ())):
            what = f"{name}, {_name(entry) if 'label' in entry else _limit(entry)}"
            if "failed" in entry:
                lines.append(f"{what}: {entry['failed']}")
            elif entry.get("wrong"):
                lines.append(f"{what} {_differs(entry)}")
    return lines


def misses(results: Record) -> list[str]:
    """Return a line for every goal that is missed, or that nobody was there for."""
    lines = []
    for name in (name for name in JOBS if name in results):
        section = results[name]
        lines += [f"{name}: {text}" for text in section["missing"]]
        for row in summarize(section):
            if row["required"] is not None and row["ratio"] < row["required"]:
                times = f"{_number(row['ratio'])} times faster than {_name(row['peer'])}"
                lines.append(f"{name}: {times}, {_number(row['required'])} needed")
    digits = results.get("digits", {})
    if digits.get("median_s", 0.0) > digits.get("goal_s", 0.0):
        lines.append(f"digits: an epoch takes {_number(digits['median_s'])} s, wanted {_number(digits['goal_s'])}")
    for entry in results.get("memory", {}).get("entries", []):
        limit, growth = entry["memory_limit"], entry.get("growth_bytes")
        if limit is not None and growth is not None and growth > limit:
            lines.append(f"memory, {_limit(entry)}: {_number(growth / MB)} MB more were in use")
    return lines


def _tables(results: Record) -> list[tuple[str, Table]]:
    jobs = [results[name] for name in JOBS if name in results]
    tables = [_summary_table(jobs)] if jobs else []
    tables += [_job_table(section) for section in jobs]
    if "median_s" in results.get("digits", {}):
        tables.append(_digits_table(results["digits"]))
    if "memory" in results:
        tables.append(_memory_table(results["memory"]))
    return tables


def _summary_table(jobs: list[Record]) -> tuple[str, Table]:
    header = ["job", "qiskit-fused, ms", "dtype", "against", "ms", "times", "our goal", "verdict"]
    rows = []
    for section in jobs:
        for row in summarize(section):
            ratio, required = row["ratio"], row["required"]
            verdict = "" if required is None else "missed" if ratio < required else "met"
            ours, peer = row["ours"], row["peer"]
            line = [section["title"], _ms(ours), ours["dtype"], _name(peer), _ms(peer)]
            rows.append([*line, _number(ratio), _number(required), verdict])
    first = jobs[0]
    caption = (
        f"{first['workload']}, {first['batch']} samples, {first['num_weights']} weights, {first['num_outputs']} "
        "outputs; complex64 is held against the fastest of any precision. Median ms, ~ extrapolated."
    )
    return caption, (header, rows)


def _job_table(section: Record) -> tuple[str, Table]:
    """All contenders of a job."""
    header = ["contender", "median", "min", "25 %", "75 %", "turns", "first, s", "MiB", "value err", "grad err"]
    rows = []
    for entry in section["contenders"]:
        if "median_ms" not in entry:
            text = entry.get("failed") or _differs(entry)
            rows.append([_name(entry), text, *["-"] * (len(header) - 2)])
            continue
        spread = [_number(entry[key]) for key in ("min_ms", "quartile_1_ms", "quartile_3_ms")]
        rows.append([_name(entry), _ms(entry), *spread, str(len(entry["times_ms"])), _number(entry["first_call_s"])])
        rows[-1] += [_number(entry["peak_mib"]), _error(entry["value_error"]), _error(entry["gradient_error"])]
    title = section["title"]
    return f"{title[0].upper()}{title[1:]}, ms", (header, rows)


def _digits_table(section: Record) -> tuple[str, Table]:
    header = ["steps", "epoch, s (wanted)", "min", "max", "ms a step", "first loss", "last loss", "accuracy",
              "grad err"]  # fmt: skip
    seconds, losses = section["epochs_s"], section["losses"]
    row = [str(section["steps"]), f"{_number(section['median_s'])} ({_number(section['goal_s'])})"]
    row += [_number(value) for value in (min(seconds), max(seconds), 1e3 * section["median_s"] / section["steps"])]
    row += [_number(losses[0]), _number(losses[-1]), f"{section['accuracy']:.1%}", _error(section["gradient_error"])]
    caption = (
        f"Digits: {section['num_images']:,} images, {section['num_qubits']} qubits, {section['num_layers']} layers, "
        f"{section['num_weights']} weights, batches of {section['batch']}; the median of {len(seconds)} epochs, and "
        "the accuracy on these images after them"
    )
    return caption, (header, [row])


def _memory_table(section: Record) -> tuple[str, Table]:
    header = ["limit, MB", "grew by, MB", "seconds", "value err", "grad err"]
    rows = []
    for entry in section["entries"]:
        limit = "none" if entry["memory_limit"] is None else _number(entry["memory_limit"] / MB)
        if "failed" in entry:
            rows.append([limit, "failed", *["-"] * (len(header) - 2)])
            continue
        growth = entry["growth_bytes"]
        row = [limit, _number(None if growth is None else growth / MB), _number(entry["seconds"])]
        rows.append([*row, *(_error(entry.get(key)) for key in ("value_error", "gradient_error"))])
    jacobian = 8 * section["rows"] * section["num_outputs"] * section["num_weights"] / MB
    caption = (
        f"A VJP over {section['rows']:,} samples of {section['workload']}, {section['num_weights']} weights, "
        f"{section['num_outputs']} outputs, {section['dtype']}; the Jacobian would be {jacobian:,.0f} MB"
    )
    return caption, (header, rows)


def _differs(entry: Record) -> str:
    return f"DIFFERS: values by {entry['value_error']:.1e}, gradients by {entry['gradient_error']:.1e}"


def _limit(entry: Record) -> str:
    limit = entry["memory_limit"]
    return "no limit" if limit is None else f"limit {_number(limit / MB)} MB"


def _error(value: float | None) -> str:
    return "-" if value is None else f"{value:.0e}"
