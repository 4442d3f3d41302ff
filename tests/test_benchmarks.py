# SPDX-License-Identifier: Apache-2.0
"""The benchmark runs, checks what it times, and the figures in the README are those of its results."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUN, REPORT = ROOT / "benchmarks" / "run.py", ROOT / "benchmarks" / "report.py"


def run_python(*arguments):
    path = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=300)


def test_the_quick_benchmark_agrees_with_a_numpy_adjoint_and_prints_its_tables():
    done = run_python(RUN, "--quick", "--peers", "", "--threads", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "numpy c128" in done.stdout
    assert "ABORTED" not in done.stdout


def test_the_readme_shows_the_latest_results():
    results = (ROOT / "benchmarks" / "results").glob("*/*.json")
    on_cpus = [path for path in results if "gpu" not in json.loads(path.read_text())]
    latest = max(on_cpus, key=lambda path: path.name)
    table = run_python(REPORT, "--markdown", latest).stdout.strip()
    readme = (ROOT / "README.md").read_text()
    assert len(table.splitlines()) == 2 + len(json.loads(latest.read_text())["workloads"])
    assert table in readme
    assert str(latest.relative_to(ROOT).as_posix()) in readme
