# SPDX-License-Identifier: Apache-2.0
"""The benchmark runs, checks what it times, and the figures in the README are those of its results."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
RUN, REPORT, DEEP = (BENCHMARKS / name for name in ("run.py", "report.py", "deep.py"))


def run_python(*arguments):
    path = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=300)


def test_the_quick_benchmark_agrees_with_a_numpy_adjoint_and_prints_its_tables():
    done = run_python(RUN, "--quick", "--peers", "", "--threads", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "numpy c128" in done.stdout
    assert "ABORTED" not in done.stdout


def latest_results(kind):
    """The newest results file of a benchmark, "run", "deep" or "gpu", and what it holds."""
    files = {path: json.loads(path.read_text()) for path in (BENCHMARKS / "results").glob("*/*.json")}
    of_kind = [path for path, held in files.items() if held.get("kind", "gpu" if "gpu" in held else "run") == kind]
    latest = max(of_kind, key=lambda path: path.name)
    return latest, files[latest]


def test_the_readme_shows_the_latest_results():
    latest, results = latest_results("run")
    table = run_python(REPORT, "--markdown", latest).stdout.strip()
    readme = (ROOT / "README.md").read_text()
    assert len(table.splitlines()) == 2 + len(results["workloads"])
    assert table in readme
    assert str(latest.relative_to(ROOT).as_posix()) in readme


def test_the_readme_of_the_benchmarks_shows_the_latest_deep_results():
    latest, results = latest_results("deep")
    tables = run_python(REPORT, "--markdown", latest).stdout.strip()
    readme = (BENCHMARKS / "README.md").read_text()
    assert tables.count("\n| --- |") == len({"deep", "wide", "budgets", "drift"} & set(results)) == 4
    assert tables in readme
    for file in (latest, latest.with_suffix(".png")):
        assert file.exists() and f"({file.relative_to(BENCHMARKS).as_posix()})" in readme


@pytest.fixture
def deep(monkeypatch):
    """The modules of the benchmark of deep circuits, which is no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import deep
    import deep_report
    import deep_worker

    return SimpleNamespace(main=deep, report=deep_report, worker=deep_worker)


def test_the_quick_deep_benchmark_measures_every_section_and_draws(tmp_path):
    pytest.importorskip("matplotlib")
    output = tmp_path / "deep.json"
    done = run_python(DEEP, "--quick", "--threads", "1", "--output", output)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed or differs: nothing" in done.stdout
    assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    results = json.loads(output.read_text())
    methods = {entry["method"] for entry in results["budgets"]["entries"] if "median_s" in entry}
    assert methods == {"reverse", "checkpoint", "store", "auto"}
    assert all("does_not_fit" in entry for entry in results["budgets"]["entries"] if entry["memory_limit"] == 1000)
    again = run_python(REPORT, output).stdout
    assert again.strip() in done.stdout


def test_what_fails_or_differs_or_misses_a_goal_is_said(deep):
    fits = {"method": "reverse", "rows": 1, "median_s": 7.0, "peak_bytes": 5 * 10**8, "wrong": False}
    goals = {"goal_s": 6.0, "goal_times": 1.5, "goal_bytes": 10**9}
    slow = fits | goals | {"method": "checkpoint", "median_s": 14.0, "wrong": True, "gradient_error": 0.1}
    large = {"method": "store", "rows": 1, "failed": "MemoryError: 8 GB"} | goals
    section = {"num_qubits": 4, "num_layers": 9, "unchecked": None, "entries": [fits | goals, slow, large]}
    results = {"deep": section, "wide": section | {"entries": [], "unchecked": "MemoryError: too large"}}
    found, missed = deep.report.failures(results), deep.report.misses(results)
    assert len(found) == 3 and "DIFFERS" in found[0] and "8 GB" in found[1] and "too large" in found[2]
    assert len(missed) == 3  # both are too slow, one also relative to the other


def test_a_process_that_dies_is_a_failure_of_its_measurement_only(deep):
    result, failed = deep.main._attempt(os._exit, 1)
    assert result is None and "BrokenProcessPool" in failed
    assert deep.main._attempt(abs, -1) == (1, None)
