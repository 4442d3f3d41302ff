# SPDX-License-Identifier: Apache-2.0
"""Show results files: print one again, or write the newest of each benchmark into README.md and benchmarks/README.md.

A generated section stands between ``<!-- generated: NAME -->`` and ``<!-- end: NAME -->``. It shows the newest results
file of its kind from any machine, unless that file is partial (--only, --peers, --quick). All files are listed.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path

import curvature.report
import deep.report
import gpu.report
import kernels.report
import main.report
import sampling.report
import scan.report
import training.report
from common.report import OURS, Report, machine_line
from common.tables import Record

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
READMES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")
REPORTS: dict[str, Report] = {
    "run": main.report.REPORT,
    "scan": scan.report.REPORT,
    "deep": deep.report.REPORT,
    "training": training.report.REPORT,
    "sampling": sampling.report.REPORT,
    "kernels": kernels.report.REPORT,
    "curvature": curvature.report.REPORT,
    "gpu": gpu.report.REPORT,
}

Files = dict[Path, Record]


def show() -> None:
    """Print the report of a results file."""
    parser = argparse.ArgumentParser(description="Print the tables of a results file.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    options = parser.parse_args()
    results = json.loads(options.file.read_text())
    report = REPORTS[kind_of(results)]
    if options.markdown:
        print(report.markdown(results))
    else:
        report.print(results)


def update() -> None:
    """Write the generated sections of both READMEs."""
    files = load(RESULTS)
    for readme in READMES:
        readme.write_text(updated(readme, files))
        print(f"written to {readme.relative_to(ROOT)}")


def kind_of(results: Record) -> str:
    """Return the benchmark that wrote a results file."""
    return results.get("kind", "run")


def load(folder: Path) -> Files:
    """Read all results files, the newest first."""
    files = {path: json.loads(path.read_text()) for path in folder.glob("*/*.json")}
    return dict(sorted(files.items(), key=lambda item: item[1]["date"], reverse=True))


def updated(readme: Path, files: Files) -> str:
    """Return the text of a README with its generated sections made from results files.

    Raises:
        ValueError: if a section is unknown or has no end.
    """
    text = readme.read_text()
    section = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end: \2 -->)", re.S)
    names = [name for _, name, _ in section.findall(text)]
    if names != re.findall(r"<!-- generated: (\w+) -->", text) or set(names) - set(SECTIONS):
        raise ValueError(
            f"{readme.name}: generated sections are {', '.join(SECTIONS)}, each with its end; found {names}"
        )
    return section.sub(lambda found: f"{found[1]}\n{SECTIONS[found[2]](files, readme.parent)}\n\n{found[3]}", text)


def newest(files: Files, kind: str) -> tuple[Path, Record] | None:
    """Return the newest complete results of a kind."""
    complete = (item for item in files.items() if kind_of(item[1]) == kind and not item[1].get("partial"))
    return next(complete, None)


def _link(path: Path, folder: Path) -> str:
    return f"[{path.parent.name}/{path.name}]({path.relative_to(folder).as_posix()})"


def _machine(path: Path, results: Record, folder: Path) -> str:
    busy = REPORTS[kind_of(results)].busy_line(results)
    where = f"Measured on {machine_line(results)}, revision {results['revision']}."
    return f"{where} {busy}All figures: {_link(path, folder)}."


def _section(kind: str) -> Callable[[Files, Path], str]:
    def section(files: Files, folder: Path) -> str:
        found = newest(files, kind)
        if found is None:
            return "No results yet."
        path, results = found
        report = REPORTS[kind]
        shown = report.pictures(results, path).items()
        blocks = [_machine(path, results, folder)]
        blocks += [f"![{title}]({file.relative_to(folder).as_posix()})" for title, file in shown]
        return "\n\n".join([*blocks, report.markdown(results)])

    return section


def _speed(files: Files, folder: Path) -> str:
    """Return the table of README.md."""
    found = newest(files, "run")
    if found is None:
        return "No results yet."
    path, results = found
    peers = {
        entry["label"]: None
        for workload in results["workloads"]
        for entry in workload["contenders"]
        if "median_ms" in entry and not entry["label"].startswith(OURS)
    }
    *some, last = peers
    beside = f"the fastest of {', '.join(some)} and {last}"
    times = "The table shows the time of one call for values and all gradients in complex64"
    what = f"{times}, beside {beside} in the same run."
    return "\n\n".join([f"{what} {_machine(path, results, folder)}", main.report.readme_table(results)])


def _samplers(files: Files, folder: Path) -> str:
    """Return the table of README.md about samplers."""
    found = newest(files, "sampling")
    if found is None:
        return "No results yet."
    path, results = found
    what = "The table shows the time of one call, or of a whole script for VQC, beside other libraries in the same run."
    return "\n\n".join([f"{what} {_machine(path, results, folder)}", sampling.report.readme_table(results)])


def _all_files(files: Files, folder: Path) -> str:
    """Return a list of all results, by machine."""
    lines = []
    for path, results in files.items():
        machine = results["gpu"]["name"] if "gpu" in results else results["machine"]["cpu"]
        part = ", a part of it" if results.get("partial") else ""
        lines.append(f"* {_link(path, folder)}: {machine}, {kind_of(results)}{part}, {results['date'][:10]}")
    return "\n".join(lines)


SECTIONS: dict[str, Callable[[Files, Path], str]] = {
    "speed": _speed,
    "samplers": _samplers,
    "files": _all_files,
    **{kind: _section(kind) for kind in REPORTS},
}
