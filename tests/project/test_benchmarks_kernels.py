# SPDX-License-Identifier: Apache-2.0
"""The benchmark of kernels runs, compares matrices and gradients before it times them, and says what it misses."""

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
    names = {name: f"kernels.{name}" for name in ("cases", "contenders", "large", "report")}
    return SimpleNamespace(**{name: importlib.import_module(path) for name, path in names.items()})


@pytest.mark.slow
def test_the_quick_kernels_benchmark_measures_every_workload_and_prints_it_again(tmp_path):
    output = tmp_path / "kernels.json"
    done = run_benchmark("kernels", "--quick", "--peers", "statevector", "--threads", "1", "--output", output)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed or differs: nothing" in done.stdout
    results = json.loads(output.read_text())
    for case in results["cases"]:
        assert all("median_ms" in entry for entry in case["contenders"])
    assert [entry["progress_calls"] > 0 for entry in results["large"]["entries"]] == [True, True]
    assert run_benchmark("report", output).stdout.strip() in done.stdout


def test_an_unknown_workload_or_peer_is_refused_with_those_that_exist():
    for flag, text in (("--only", "K1"), ("--peers", "tensorcircuit")):
        done = run_benchmark("kernels", flag, "nonsense")
        assert done.returncode == 2 and "nonsense" in done.stderr and text in done.stderr


def test_the_steps_of_a_feature_map_are_those_of_qiskit(bench):
    from qiskit.circuit.library import zz_feature_map
    from qiskit_machine_learning.kernels import FidelityStatevectorKernel

    workload = bench.cases.matrix(3, 5).workload
    circuit, _ = bench.contenders.qiskit_feature_map(workload)
    samples = workload.parameters(0)
    library = FidelityStatevectorKernel(feature_map=zz_feature_map(3)).evaluate(samples)
    np.testing.assert_allclose(FidelityStatevectorKernel(feature_map=circuit).evaluate(samples), library, atol=1e-13)


def test_the_gradient_of_the_training_step_agrees_with_finite_differences(bench):
    case, step = bench.cases.alignment(3, 6), 1e-6
    contender = case.ours[0]("complex128", 1)
    contender.prepare(case.workload)
    start = case.workload.parameters(0)
    _, gradient = contender.answer(contender(start))
    for weight in range(case.workload.num_weights):
        losses = []
        for sign in (1, -1):
            parameters = start.copy()
            parameters[:, case.workload.num_inputs + weight] += sign * step
            losses.append(contender.answer(contender(parameters))[0][0])
        np.testing.assert_allclose(gradient[weight], (losses[0] - losses[1]) / (2 * step), atol=1e-7)


@pytest.mark.parametrize("name", ["K2", "K3"])
def test_the_contender_of_tensorcircuit_gives_the_same(bench, name):
    pytest.importorskip("tensorcircuit")
    case = next(case for case in bench.cases.QUICK if case.name == name)
    answers = []
    for kind in (case.ours[0], case.peers["tensorcircuit"]):
        contender = kind("complex128", 1)
        contender.prepare(case.workload)
        answers.append(contender.answer(contender(case.workload.parameters(0))))
    for found, expected in zip(*answers, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_report_names_missed_goals_and_failures(bench):
    def entry(label, dtype, median):
        return {"label": label, "dtype": dtype, "median_ms": median, "extrapolated": False}

    case = {"name": "K2", "num_qubits": 10, "num_samples": 1000, "missing": ["peer: package is not installed"]}
    case["goals"] = [{"against": ["slow"], "required": 50, "dtype": "complex128"}]
    case["contenders"] = [entry("qiskit-fused", "complex128", 2.0), entry("slow", "complex128", 80.0)]
    large = {"num_qubits": 10, "num_samples": 10, "seconds": 40.0, "required": 30.0}
    results = {"cases": [case], "large": {"entries": [large, {"failed": "no memory"}]}}
    assert bench.report.failures(results) == ["K4: no memory"]
    assert bench.report.misses(results) == [
        "K2 (10 qubits, 1,000 samples): peer: package is not installed",
        "K2 (10 qubits, 1,000 samples): 40 times faster than slow c128, 50 needed",
        "K4, 10 qubits: 40 s, 30 s allowed",
    ]
