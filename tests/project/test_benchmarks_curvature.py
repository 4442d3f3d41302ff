# SPDX-License-Identifier: Apache-2.0
"""The benchmark of curvature runs, compares tensors and Hessians before it times them, and says what it misses."""

import importlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
from benchmarking import BENCHMARKS, run_benchmark


@pytest.fixture
def bench(monkeypatch):
    """The modules of the benchmark, which is no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return SimpleNamespace(**{name: importlib.import_module(f"curvature.{name}") for name in ("cases", "report")})


def answer(contender, workload):
    made = contender("complex128", 1)
    made.prepare(workload)
    return made.answer(made(workload.parameters(0)))


@pytest.mark.slow
def test_the_quick_curvature_benchmark_measures_its_workloads_and_prints_them_again(tmp_path):
    pytest.importorskip("torch")
    output = tmp_path / "curvature.json"
    arguments = "--quick", "--only", "Q1,H3", "--peers", "reverse", "--threads", "1", "--output", output
    done = run_benchmark("curvature", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed or differs: nothing" in done.stdout
    results = json.loads(output.read_text())
    assert [case["name"] for case in results["cases"]] == ["Q1", "H3"]
    for case in results["cases"]:
        assert all("median_ms" in entry for entry in case["contenders"])
    assert run_benchmark("report", output).stdout.strip() in done.stdout


def test_the_gradient_of_the_differential_equation_agrees_with_finite_differences(bench):
    pytest.importorskip("torch")
    case, step = bench.cases.QUICK[-1], 1e-6
    contender = case.ours[0]("complex128", 1)
    contender.prepare(case.workload)
    start = case.workload.parameters(0)
    gradient = contender.answer(contender(start))[1][0].copy()
    for weight in range(case.workload.num_weights):
        losses = []
        for sign in (1, -1):
            moved = start.copy()
            moved[:, 1 + weight] += sign * step
            losses.append(contender.answer(contender(moved))[0][0])
        np.testing.assert_allclose(gradient[weight], (losses[0] - losses[1]) / (2 * step), atol=1e-4)


@pytest.mark.parametrize(("peer", "package"), [("tensorcircuit", "tensorcircuit"), ("pennylane", "pennylane")])
def test_the_contenders_of_other_libraries_give_the_same(bench, peer, package):
    pytest.importorskip(package)
    for case in bench.cases.QUICK:
        if peer in case.peers:
            part, expected = case.peers[peer].part, answer(case.ours[0], case.workload)
            if part is not None:
                expected = expected[0][..., :part], expected[1][..., :part, :part]
            for found, one in zip(answer(case.peers[peer], case.workload), expected, strict=True):
                np.testing.assert_allclose(found, one, atol=1e-8)


def test_the_time_of_a_part_of_a_hessian_is_extrapolated_to_the_whole(bench):
    growth = importlib.import_module("common.contender").growth
    (case,) = (case for case in bench.cases.FULL if case.name == "H2")
    assert growth(case.ours[0], case.workload) == 1
    assert growth(case.peers["pennylane"], case.workload) == 96 * 97 / (8 * 9)


def test_a_report_names_missed_goals(bench):
    def entry(label, dtype, median):
        return {"label": label, "dtype": dtype, "median_ms": median, "extrapolated": False}

    case = {"name": "Q1", "num_qubits": 8, "num_weights": 96, "num_rows": 1, "missing": []}
    case["goals"] = [{"against": ["slow"], "required": 50, "dtype": "complex128"}]
    case["contenders"] = [entry("qiskit-fused", "complex128", 2.0), entry("slow", "complex128", 80.0)]
    assert bench.report.failures({"cases": [case]}) == []
    assert bench.report.misses({"cases": [case]}) == [
        "Q1: quantum Fisher information (8 qubits, 96 parameters): 40 times faster than slow c128, 50 needed"
    ]
