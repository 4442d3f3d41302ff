# SPDX-License-Identifier: Apache-2.0
"""The benchmark of training runs, checks what it times, and says what it misses."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from benchmarking import BENCHMARKS, InProcess, run_benchmark


@pytest.fixture
def bench(monkeypatch):
    """The modules of the benchmark, which is no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from common import comparison, worker, workloads
    from training import peers, report

    return SimpleNamespace(comparison=comparison, peers=peers, report=report, worker=worker, workloads=workloads)


@pytest.mark.slow
def test_the_quick_training_benchmark_checks_a_vjp_and_its_memory():
    done = run_benchmark("training", "--quick", "--only", "vjp,memory", "--peers", "", "--threads", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed or differs: nothing" in done.stdout
    assert "qiskit-fused c64" in done.stdout and "limit, MB" in done.stdout


@pytest.mark.slow
def test_the_quick_training_benchmark_measures_every_section_and_prints_it_again(tmp_path):
    pytest.importorskip("torch")
    output = tmp_path / "training.json"
    done = run_benchmark("training", "--quick", "--peers", "connector", "--threads", "1", "--output", output)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed or differs: nothing" in done.stdout
    results = json.loads(output.read_text())
    assert [name for name in ("jacobian", "vjp", "step", "digits", "memory") if name in results] == list(results)[-5:]
    connector = results["step"]["contenders"][-1]
    assert connector["label"] == "TorchConnector" and connector["extrapolated"] and connector["rows"] == 1
    limited = [entry for entry in results["memory"]["entries"] if entry["memory_limit"] is not None]
    assert all(entry["growth_bytes"] is None or entry["growth_bytes"] < entry["memory_limit"] for entry in limited)
    again = run_benchmark("report", output).stdout
    assert again.strip() in done.stdout


def test_a_contender_whose_gradient_differs_is_not_timed(bench):
    workload = bench.workloads.efficient_su2(4, 1, batch=3)
    check = bench.peers.NumpyStep("complex128", 1)
    check.prepare(workload)
    answer = [np.array(part) for part in check(workload.parameters(0))]
    true = tuple(part[None] for part in answer)
    compare = bench.comparison.compare_with(InProcess(bench.worker, bench.peers.NumpyStep, "complex128"))
    entries = [{"dtype": "complex64", "rows": 3} for _ in range(2)]
    compare(workload, {"right": (entries[0], true), "wrong": (entries[1], (true[0], true[1] + 0.1))})
    assert "wrong" not in entries[0] and "DIFFERS" in entries[1]["wrong"]


def test_the_jobs_of_the_check_agree_with_finite_differences(bench):
    workload = bench.workloads.efficient_su2(4, 1, batch=2)
    contenders = {name: job.check("complex128", 1) for name, job in bench.peers.jobs(workload).items()}
    for contender in contenders.values():
        contender.prepare(workload)
    start, step = workload.parameters(0), 1e-5
    values, jacobian = contenders["jacobian"](start)
    shifted = []
    for sign in (1, -1):
        parameters = start.copy()
        parameters[:, workload.num_inputs + 2] += sign * step
        shifted.append(contenders["jacobian"](parameters)[0])
    slope = (shifted[0] - shifted[1]) / (2 * step)
    np.testing.assert_allclose(jacobian[:, :, 2], slope, atol=1e-8)
    cotangents, difference = bench.peers.cotangents_of(workload), values - bench.peers.targets_of(workload)
    np.testing.assert_allclose(contenders["vjp"](start)[1][2], (cotangents * slope).sum(), atol=1e-8)
    loss, gradient = contenders["step"](start)
    np.testing.assert_allclose(loss, np.mean(difference**2))
    np.testing.assert_allclose(gradient[2], np.mean(2 * difference * slope), atol=1e-8)


def test_adam_makes_the_steps_of_torch(bench):
    torch = pytest.importorskip("torch")
    rng, weight = np.random.default_rng(0), torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=bench.peers.LEARNING_RATE)
    state = (np.zeros(5), np.zeros(5), np.zeros(5), 0)
    for _ in range(3):
        gradient = rng.normal(size=5)
        weight.grad = torch.as_tensor(gradient)
        optimizer.step()
        state = bench.peers.adam_step(*state, gradient)
    np.testing.assert_allclose(state[0], weight.detach().numpy(), rtol=1e-12)


def test_what_fails_or_differs_or_misses_a_goal_is_said(bench):
    timed = {"extrapolated": False, "wrong": False}
    ours = timed | {"label": "qiskit-fused", "dtype": "complex64", "median_ms": 2.0}
    peers = [timed | {"label": label, "dtype": "complex64", "median_ms": 8.0} for label in ("a", "b")]
    wrong = {"label": "c", "dtype": "complex64", "wrong": True, "value_error": 0.1, "gradient_error": 0.2}
    goals = [{"against": ["a"], "required": 3}, {"against": ["b", "c"], "required": 5}]
    section = {"contenders": [ours, *peers, wrong], "goals": goals, "missing": ["d: d is not installed"]}
    entries = [
        {"memory_limit": None, "growth_bytes": 9 * 10**6},
        {"memory_limit": 10**6, "growth_bytes": 2 * 10**6},
        {"memory_limit": 5, "failed": "MemoryError: no"},
    ]
    results = {
        "step": section,
        "digits": {"median_s": 11.0, "goal_s": 10.0},
        "memory": {"entries": entries, "unchecked": "it died"},
    }
    found, missed = bench.report.REPORT.failures(results), bench.report.REPORT.misses(results)
    assert len(found) == 3 and "c c64: DIFFERS" in found[0] and "it died" in found[1] and "MemoryError" in found[2]
    assert len(missed) == 4
    assert "not installed" in missed[0] and "4 times faster than b" in missed[1]
    assert "11 s" in missed[2] and "2 MB" in missed[3]


def test_complex64_is_held_against_the_fastest_peer_of_any_precision(bench):
    times = (("qiskit-fused", 64, 1.0), ("qiskit-fused", 128, 2.0), ("peer", 64, 9.0), ("peer", 128, 6.0))
    entries = [{"label": label, "dtype": f"complex{bits}", "median_ms": ms} for label, bits, ms in times]
    rows = bench.report.summarize({"contenders": entries, "goals": [{"against": ["peer"], "required": 5}]})
    assert [(row["ratio"], row["required"]) for row in rows] == [(6.0, 5), (3.0, None)]


def test_an_unknown_section_or_peer_is_refused_with_those_that_exist():
    for flag, text in (("--only", "jacobian"), ("--peers", "tensorcircuit")):
        done = run_benchmark("training", flag, "nonsense")
        assert done.returncode == 2 and "nonsense" in done.stderr and text in done.stderr
