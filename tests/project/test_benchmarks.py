# SPDX-License-Identifier: Apache-2.0
"""The benchmarks run, and check what they time."""

import ast
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from benchmarking import BENCHMARKS, run_benchmark

import qiskit_fused

FOLDERS = ("common", "main", "scan", "deep", "training", "sampling", "kernels", "curvature", "gpu")


def test_a_folder_of_the_benchmarks_imports_common_and_main_only():
    for path in BENCHMARKS.glob("*/*.py"):
        here = path.parent.name
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        imported = {node.module.split(".")[0] for node in nodes} & {*FOLDERS, "readmes"}
        assert imported <= ({"common"} if here == "common" else {"common", "main", here}), path


@pytest.mark.slow
def test_the_quick_benchmark_agrees_with_a_numpy_adjoint_and_prints_its_tables():
    checkout = Path(qiskit_fused.__file__).parent.parent
    done = run_benchmark("main", "--quick", "--peers", "", "--threads", "1", "--beside", checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "This checkout beside the other one" in done.stdout
    assert "numpy c128" in done.stdout
    assert "failed or differs: nothing" in done.stdout and "share of bandwidth" in done.stdout


@pytest.fixture
def deep(monkeypatch):
    """The modules of the benchmark of deep circuits, found by their path because the benchmarks are no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from deep import report, run

    return SimpleNamespace(main=run, report=report.REPORT)


@pytest.mark.slow
def test_the_quick_deep_benchmark_measures_every_section_and_draws(tmp_path):
    pytest.importorskip("matplotlib")
    output = tmp_path / "deep.json"
    done = run_benchmark("deep", "--quick", "--threads", "1", "--output", output)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed or differs: nothing" in done.stdout
    assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    results = json.loads(output.read_text())
    methods = {entry["method"] for entry in results["budgets"]["entries"] if "median_s" in entry}
    assert methods == {"reverse", "checkpoint", "store", "auto"}
    assert all("does_not_fit" in entry for entry in results["budgets"]["entries"] if entry["memory_limit"] == 1000)
    again = run_benchmark("report", output).stdout
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


def test_our_own_goals_are_missed_aloud(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from main.report import REPORT

    speed = {"num_qubits": 10, "sweep_ms": 1.0, "bind_ms": 1.0, "flops": 10**9, "peak_flops_per_second": 1e12}
    seconds = {"lower_and_plan_s": 11, "rebind_s": 0.2, "rebind_in_engine_s": 0.1, "call_s": 1, "first_call_s": 2}
    many = {"num_parameters": 60_000, "num_qubits": 20, "num_layers": 1000, "num_gates": 79_000} | seconds
    own = {"peak_fraction": [speed | {"fraction": share} for share in (0.4, 0.6)], "many_parameters": many}
    said = REPORT.markdown({"workloads": [], "own": own})
    assert said.split("Where we lose or miss:")[1].strip().splitlines() == [
        "* sweeps of 10 qubits: 0.4 of the multiply-add peak, 0.5 needed",
        "* 60,000 parameters: lower_and_plan_s is 11, 10 needed",
    ]


def test_a_process_that_dies_is_a_failure_of_its_measurement_only(deep):
    result, failed = deep.main.attempt(os._exit, 1)
    assert result is None and failed == "the process died"
    assert deep.main.attempt(abs, -1) == (1, None)
