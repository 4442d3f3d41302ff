# SPDX-License-Identifier: Apache-2.0
"""Write the newest results into README.md and benchmarks/README.md: ``python benchmarks readmes``.

A section is what stands between ``<!-- generated: NAME -->`` and ``<!-- end: NAME -->``. It is of the newest results
file of its kind, whatever the machine, that is not partial (--only, --peers, --quick); all files are listed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from main import report
from main.report import Record

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
READMES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")

Files = dict[Path, Record]


def main() -> None:
    """Rewrite the generated sections of both files."""
    files = load(RESULTS)
    for readme in READMES:
        readme.write_text(updated(readme, files))
        print(f"written to {readme.relative_to(ROOT)}")


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
    complete = (item for item in files.items() if report.kind_of(item[1]) == kind and not item[1].get("partial"))
    return next(complete, None)


def _link(path: Path, folder: Path) -> str:
    return f"[{path.parent.name}/{path.name}]({path.relative_to(folder).as_posix()})"


def _machine(path: Path, results: Record, folder: Path) -> str:
    busy = report.busy_line(report.report_of(results).sections(results))
    where = f"Measured on {report.machine_line(results)}, revision {results['revision']}."
    return f"{where} {busy}All figures: {_link(path, folder)}."


def _section(kind: str) -> Callable[[Files, Path], str]:
    def section(files: Files, folder: Path) -> str:
        found = newest(files, kind)
        if found is None:
            return "No results yet."
        path, results = found
        shown = report.report_of(results).pictures(results, path)
        blocks = [_machine(path, results, folder)]
        blocks += [f"![{what}]({file.relative_to(folder).as_posix()})" for what, file in shown.items()]
        return "\n\n".join([*blocks, report.report_of(results).markdown(results)])

    return section


def _speed(files: Files, folder: Path) -> str:
    """The table of README.md."""
    found = newest(files, "run")
    if found is None:
        return "No results yet."
    path, results = found
    peers = {
        entry["label"]: None
        for workload in results["workloads"]
        for entry in workload["contenders"]
        if "median_ms" in entry and not entry["label"].startswith(report.OURS)
    }
    *some, last = peers
    beside = f"the fastest of {', '.join(some)} and {last}"
    what = f"Values and all gradients of one call in complex64, beside {beside} in the same run."
    return "\n\n".join([f"{what} {_machine(path, results, folder)}", report.speed_table(results)])


def _all_files(files: Files, folder: Path) -> str:
    """A list of all results, by machine."""
    lines = []
    for path, results in files.items():
        machine = results["gpu"]["name"] if "gpu" in results else results["machine"]["cpu"]
        part = ", a part of it" if results.get("partial") else ""
        lines.append(f"* {_link(path, folder)}: {machine}, {report.kind_of(results)}{part}, {results['date'][:10]}")
    return "\n".join(lines)


SECTIONS: dict[str, Callable[[Files, Path], str]] = {
    "speed": _speed,
    "files": _all_files,
    **{kind: _section(kind) for kind in ("run", "scan", "deep", "training")},
}
