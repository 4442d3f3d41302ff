# SPDX-License-Identifier: Apache-2.0
"""The benchmark of samplers runs, checks gradients and draws before it times them, and says what it misses."""

import importlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
from benchmarking import BENCHMARKS, InProcess, run_benchmark


@pytest.fixture
def bench(monkeypatch):
    """The modules of the benchmark, which is no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = {name: f"sampling.{name}" for name in ("cases", "classifier", "networks", "report", "run", "samplers")}
    names |= {name: f"common.{name}" for name in ("comparison", "harness", "worker", "workloads")}
    return SimpleNamespace(**{name: importlib.import_module(path) for name, path in names.items()})


@pytest.mark.slow
def test_the_quick_sampling_benchmark_measures_every_workload_and_prints_it_again(tmp_path):
    pytest.importorskip("sklearn")
    output = tmp_path / "sampling.json"
    done = run_benchmark("sampling", "--quick", "--peers", "statevector", "--threads", "1", "--output", output)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed or differs: nothing" in done.stdout
    results = json.loads(output.read_text())
    for section in (*results["cases"], results["classifier"]):
        assert all("median_ms" in entry for entry in section["contenders"] if entry["label"] == "qiskit-fused")
    lists = next(case for case in results["cases"] if case["name"].startswith("S2"))
    assert [entry["label"] for entry in lists["contenders"]][-1] == "StatevectorSampler"
    assert run_benchmark("report", output).stdout.strip() in done.stdout


def test_an_unknown_workload_or_peer_is_refused_with_those_that_exist():
    for flag, text in (("--only", "S1 values"), ("--peers", "tensorcircuit")):
        done = run_benchmark("sampling", flag, "nonsense")
        assert done.returncode == 2 and "nonsense" in done.stderr and text in done.stderr


def workloads_of(bench):
    """Return small workloads with each gate of the benchmark; the CX ladder is reversed in one of them."""
    lists = bench.cases.list_of_rows(3, 2).workload
    return [bench.workloads.efficient_su2(3, 1, batch=2), lists, bench.workloads.hardware_efficient(4, 2)]


def test_the_probabilities_of_the_check_are_those_of_qiskit(bench):
    from qiskit.quantum_info import Statevector

    for workload in workloads_of(bench):
        check = bench.samplers.NumpyProbabilities("complex128", 1)
        check.prepare(workload)
        parameters = workload.parameters(0)
        circuit, _, _ = bench.workloads.qiskit_circuit(workload)
        true = [Statevector(circuit.assign_parameters(row)).probabilities() for row in parameters]
        np.testing.assert_allclose(check(parameters)[0], true, atol=1e-14)


def test_the_list_of_rows_is_the_circuit_of_qiskit(bench):
    from qiskit.circuit.library import efficient_su2
    from qiskit.quantum_info import Statevector

    workload = bench.cases.list_of_rows(5, 1).workload
    circuit, library = bench.workloads.qiskit_circuit(workload)[0], efficient_su2(5)
    row = workload.parameters(0)[0]
    assert library.num_parameters == len(row)
    assert Statevector(circuit.assign_parameters(row)).equiv(Statevector(library.assign_parameters(row)))


def test_the_jacobian_of_the_check_agrees_with_finite_differences(bench):
    workload, step = bench.workloads.efficient_su2(3, 1, batch=2), 1e-5
    jobs = {name: getattr(bench.networks, f"Numpy{name}")("complex128", 1) for name in ("Jacobian", "Vjp")}
    for job in jobs.values():
        job.prepare(workload)
    start, shifted = workload.parameters(0), []
    for sign in (1, -1):
        parameters = start.copy()
        parameters[:, workload.num_inputs + 2] += sign * step
        shifted.append(jobs["Jacobian"](parameters)[0])
    values, jacobian = jobs["Jacobian"](start)
    slope = (shifted[0] - shifted[1]) / (2 * step)
    np.testing.assert_allclose(values.sum(axis=1), 1)
    np.testing.assert_allclose(jacobian[:, :, 2], slope, atol=1e-8)
    cotangents = bench.networks.cotangents_of(workload)
    np.testing.assert_allclose(jobs["Vjp"](start)[1][2], (cotangents * slope).sum(), atol=1e-8)


def draws_of(probabilities, shots, seed=0):
    rng = np.random.default_rng(seed)
    return np.array([rng.multinomial(shots, row / row.sum()) for row in probabilities])


def test_right_draws_pass_and_draws_from_other_circuits_differ(bench):
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet(np.ones(64), size=5)
    for shots in (100, 1000, 100_000):
        entry = {}
        bench.samplers.judge_draws(entry, draws_of(probabilities, shots), probabilities)
        assert "wrong" not in entry and abs(entry["deviation"]) < 4
        wrong = {
            "reversed": probabilities[:, ::-1],
            "other": rng.dirichlet(np.ones(64), size=5),
            "uniform": np.full((5, 64), 1 / 64),
        }
        for other in wrong.values():
            entry = {}
            bench.samplers.judge_draws(entry, draws_of(other, shots), probabilities)
            assert "standard deviations" in entry["wrong"]


def test_draws_that_are_not_random_or_impossible_or_of_another_shape_differ(bench):
    probabilities = np.tile([0.5, 0.25, 0.25, 0.0], (40, 1))
    cases = {"standard deviations": [512, 256, 256, 0], "probability is 0": [511, 256, 256, 1]}
    for text, row in cases.items():
        entry = {}
        bench.samplers.judge_draws(entry, np.tile(row, (40, 1)), probabilities)
        assert text in entry["wrong"]
    entry = {}
    bench.samplers.judge_draws(entry, np.ones((40, 2)), probabilities)
    assert "shape (40, 2)" in entry["wrong"]
    entry = {}
    bench.samplers.judge_draws(entry, np.array([[1024, 0]]), np.array([[1.0, 0.0]]))
    assert entry == {"deviation": 0.0}


@pytest.mark.parametrize(("dtype", "is_wrong"), [("complex64", False), ("complex128", True)])
def test_one_impossible_draw_of_millions_is_a_rounding_error_of_single_precision(bench, dtype, is_wrong):
    entry = {"dtype": dtype}
    bench.samplers.judge_draws(entry, np.array([[4_000_000, 1]]), np.array([[1.0, 0.0]]))
    assert ("wrong" in entry) == is_wrong


@pytest.mark.slow
def test_a_sampler_that_draws_wrong_bits_is_not_timed(bench):
    class Reversed(bench.samplers.FusedPubs):
        label = "reversed"

        def answer(self, result):
            draws, nothing = super().answer(result)
            return draws[:, ::-1], nothing

    case = bench.cases.QUICK[2]
    workers = [InProcess(bench.worker, one, "complex128") for one in (bench.samplers.FusedPubs, Reversed)]
    check = InProcess(bench.worker, bench.samplers.NumpyProbabilities, "complex128")
    compare = bench.samplers.compare_draws_with(check)
    ours, wrong = bench.comparison.measure(case.workload, workers, 0.01, compare)["contenders"]
    assert ours["median_ms"] > 0
    assert wrong["wrong"].startswith("DIFFERS: draws") and "median_ms" not in wrong


def test_a_classifier_with_other_losses_differs(bench):
    entry = {}
    bench.run._judge_losses(entry, np.array([2.0, 1.0, 0.5]), np.array([2.0, 1.0]))
    assert entry == {"value_error": 0.0}
    bench.run._judge_losses(entry, np.array([2.0, 1.0]), np.array([2.0, 1.1]))
    assert "losses by 1.0e-01" in entry["wrong"]


def test_what_fails_or_differs_or_misses_a_goal_is_said(bench):
    timed = {"extrapolated": False, "times_ms": [1.0], "min_ms": 1.0}
    ours = timed | {"label": "qiskit-fused", "median_ms": 2.0}
    network = {
        "name": "S1",
        "shots": None,
        "contenders": [
            ours | {"dtype": "complex64"},
            timed | {"label": "a", "dtype": "complex64", "median_ms": 8.0},
            timed | {"label": "b", "dtype": "complex64", "wrong": "DIFFERS by a lot"},
        ],
        "goals": [{"against": ["a"], "required": 12}],
        "missing": ["c: c is not installed"],
    }
    default = timed | {"label": "VQC defaults", "dtype": "complex128", "median_ms": 60.0}
    trained = {"evaluations": 9, "last_loss": 1.0, "accuracy": 0.5}
    classifier = {
        "name": "VQC",
        "num_features": 4,
        "num_weights": 16,
        "evaluations": 9,
        "contenders": [ours | {"dtype": "complex128"} | trained, default | trained],
        "goals": [{"against": ["VQC defaults"], "required": 50, "dtype": "complex128"}],
        "missing": [],
    }
    results = {"cases": [network], "classifier": classifier}
    assert bench.report.REPORT.failures(results) == ["S1, b c64: DIFFERS by a lot"]
    assert bench.report.REPORT.misses(results) == [
        "S1: c: c is not installed",
        "S1: 4 times faster than a c64, 12 needed",
        "VQC: 30 times faster than VQC defaults c128, 50 needed",
    ]
    shown = bench.report.readme_table(results)
    assert "| S1 | 2 | 8, a c64 | 4 |" in shown and "| VQC | 2 | 60, VQC defaults c128 | 30 |" in shown


@pytest.mark.parametrize("name", ["tensorcircuit", "defaults", "statevector", "aer", "qulacs"])
@pytest.mark.slow
def test_peers_that_are_installed_agree_with_the_check(bench, name):
    for case in bench.cases.QUICK:
        if name not in case.peers:
            continue
        peer = case.peers[name]
        if bench.harness.version(peer.package) is None:
            pytest.skip(f"{peer.package} is not installed")
        workers = [InProcess(bench.worker, peer, dtype) for dtype in peer.precisions]
        check = InProcess(bench.worker, case.check, "complex128")
        if case.shots is None:
            compare, attributes = bench.comparison.compare_with(check), None
        else:
            compare, attributes = bench.samplers.compare_draws_with(check), {"shots": case.shots}
        record = bench.comparison.measure(case.workload, workers, 0.01, compare, attributes=attributes)
        for entry in record["contenders"]:
            assert not {"failed", "wrong"} & set(entry), entry
