# SPDX-License-Identifier: Apache-2.0
"""The GPU benchmark runs without a GPU on tiny circuits, refuses what is wrong, and says where we lose."""

import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from benchmarking import BENCHMARKS, ROOT, InProcess, run_benchmark


@pytest.fixture
def bench(monkeypatch):
    """The modules of the bench, which is no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from common import comparison, worker
    from gpu import device, peers, report, run

    modules = {"gpu": run, "peers": peers, "report": report, "device": device}
    return SimpleNamespace(**modules, comparison=comparison, worker=worker)


@pytest.mark.slow
def test_the_dry_run_goes_through_all_workloads_and_writes_nothing():
    before = sorted((BENCHMARKS / "results").rglob("*.json"))
    done = run_benchmark("gpu", "--dry-run", "--peers", "")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "DRY RUN" in done.stdout and "failed or differs: nothing" in done.stdout
    for name in ("(i) n=4", "(ii) n=5", "(iii) n=6 L=4 B=2", "scaled from fewer rows"):
        assert name in done.stdout
    assert sorted((BENCHMARKS / "results").rglob("*.json")) == before


def test_without_a_usable_gpu_the_status_is_2_and_the_reason_is_printed():
    done = run_benchmark("gpu", QISKIT_FUSED_DISABLE_CUDA="1")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "no usable GPU" in done.stderr and "QISKIT_FUSED_DISABLE_CUDA" in done.stderr


def run_with(bench, *peers):
    """Run the first tiny workload with made-up peers; return its record."""
    ours, *others = (InProcess(bench.worker, one) for one in (bench.peers.Fused, *peers))
    reference = InProcess(bench.worker, bench.peers.NumpyReference, "complex128")
    return bench.gpu.run_case(bench.gpu.QUICK[0], [ours, *others], reference, "cpu", 0.01)


@pytest.mark.parametrize("spoiled", [0, 1])
@pytest.mark.slow
def test_a_contender_that_differs_is_not_timed(bench, spoiled):
    class Wrong(bench.peers.Fused):
        label = "wrong"

        def __call__(self, parameters):
            results = list(super().__call__(parameters))
            results[spoiled] = results[spoiled] * 1.01
            return tuple(results)

    ours, wrong = run_with(bench, Wrong)["contenders"]
    assert wrong["wrong"].startswith("DIFFERS: values by") and "median_ms" not in wrong
    assert ours["median_ms"] > 0


@pytest.mark.slow
def test_a_contender_that_differs_in_later_rows_is_not_timed(bench):
    class Wrong(bench.peers.Fused):
        label = "wrong"

        def __call__(self, parameters):
            values, gradient = super().__call__(parameters)
            values[bench.gpu.QUICK[0].check_rows :] += 0.1
            return values, gradient

    _, wrong = run_with(bench, Wrong)["contenders"]
    assert wrong["wrong"].startswith("DIFFERS from qiskit-fused") and "median_ms" not in wrong


@pytest.mark.slow
def test_contenders_that_fail_do_not_stop_the_others(bench):
    class Failing(bench.peers.Fused):
        label = "failing"

        def __call__(self, parameters):
            raise RuntimeError("out of memory")

    ours, failing = run_with(bench, Failing)["contenders"]
    assert ours["median_ms"] > 0 and failing["failed"] == "out of memory"


@pytest.mark.slow
def test_fewer_rows_are_marked_and_scaled_to_the_batch(bench):
    class Half(bench.peers.Fused):
        label = "half"

        def prepare(self, workload):
            super().prepare(workload)
            self.rows = workload.batch // 2

    ours, half = run_with(bench, Half)["contenders"]
    assert half["extrapolated"] and not ours["extrapolated"]
    assert half["rows"] == 3 and half["median_ms"] > 0
    taken = bench.comparison.summary_of([1.0, 3.0, 2.0], 2.0)
    assert taken["median_ms"] == 4000 and taken["min_ms"] == 2000


@pytest.mark.parametrize(("held", "shown"), [(3 * 2**20, 3.0), (None, None)])
def test_the_memory_of_a_contender_on_a_gpu_is_that_of_the_device(bench, held, shown):
    class Held(bench.peers.Fused):
        device = "cuda"

        def prepare(self, workload):
            self.device = "cpu"
            super().prepare(workload)
            self.device = "cuda"

        def synchronize(self):
            pass

        def release(self):
            pass

        def device_bytes(self):
            return held

    one = InProcess(bench.worker, Held)
    one.call(bench.worker.prepare, bench.gpu.QUICK[0].workload)
    one.call(bench.worker.first_calls)
    one.call(bench.worker.turn, 1, 1)
    assert one.call(bench.worker.memory_growth) == {"peak_mib": shown, "calls_mib": None}


def test_the_timed_call_gives_values_and_the_gradient_of_their_mean(bench, make_engine):
    peers = bench.peers
    workload = peers.encoded_ansatz("", 5, 2, 4)
    contender, reference = peers.Fused("complex64", 1), peers.NumpyReference("complex128", 1)
    contender.device = "cpu"
    contender.prepare(workload)
    contender.engine = make_engine(1)
    reference.prepare(workload)
    parameters = workload.parameters(0)
    for found, expected in zip(contender(parameters), reference(parameters), strict=True):
        np.testing.assert_allclose(found, expected, atol=5e-6)
    assert min(contender.row_work().values()) > 0


def test_the_report_says_where_we_lose_or_miss(bench, capsys):
    def entry(label, median):
        times = dict.fromkeys(("median_ms", "min_ms", "quartile_1_ms", "quartile_3_ms"), median)
        errors = {"value_error": 0.0, "gradient_error": 0.0, "first_call_s": 1.0, "rows": 8, "extrapolated": False}
        return {"label": label, "dtype": "complex64", "times_ms": [median]} | times | errors

    workload = {
        "name": "some", "batch": 8, "required": 10, "goal_ms": 1.0, "extrapolates": None, "stats": {},
        "work": {"flops": 1e9, "bytes_moved": 1e9},
        "contenders": [entry("qiskit-fused", 2.0), entry("triton-qml", 8.0), entry("other", 1.0)],
    }  # fmt: skip
    results = {
        "gpu": {"name": "a GPU"}, "machine": {"cpu": "a CPU", "simd": "some"}, "num_threads": 1, "date": "today",
        "revision": None, "dry_run": False, "missing": ["gone: gone is not installed"],
        "ceilings": {"flops_per_second": 8e12, "bytes_per_second": 8e12}, "workloads": [workload],
    }  # fmt: skip
    bench.report.REPORT.print(json.loads(json.dumps(results)))
    printed = capsys.readouterr().out
    losses = printed[printed.index("Where we lose or miss:") :]
    assert "other c64 is 2.00 times faster" in losses
    assert "4 times faster than triton-qml c64, 10 wanted" in losses
    assert "2 ms, the goal for an H200 is 1 ms" in losses
    assert "gone is not installed" in printed
    assert re.search(r"some +2 +4,000 +50% +4,000 +50% +-\n", printed)  # 8 Gflop and 8 GB in 2 ms


@pytest.mark.parametrize("architecture", ["sm_75", "sm_90", "sm_120"])
def test_the_kernels_of_the_ceilings_compile_without_spills(bench, architecture):
    pytest.importorskip("cuda.bindings", reason="NVRTC comes with the extra `test` on Linux and Windows")
    from cuda_compiler import compile_module

    compiled = compile_module(bench.device._CEILINGS, {}, architecture)
    assert set(compiled.kernels) == {"multiply_add", "copy"} and not compiled.warnings
    assert all(kernel.stack == kernel.spills == 0 for kernel in compiled.kernels.values())


@pytest.mark.gpu
def test_the_ceilings_are_those_of_a_gpu(bench):
    from qiskit_fused.engines.cuda import availability

    runtime, reason = availability.usable_gpu()
    if runtime is None:
        pytest.skip(reason)
    assert bench.device.describe_device("cuda")["multiprocessors"] > 0
    found = bench.device.ceilings("cuda", 1)
    assert 1e11 < found["flops_per_second"] < 1e15 and 1e10 < found["bytes_per_second"] < 1e14


def test_the_collected_wheels_hold_what_the_project_asks_for(bench):
    from gpu import collect_wheels

    project = (ROOT / "pyproject.toml").read_text()
    asked = re.findall(r'"([a-z-]+)[^"]*"', re.search(r"^dependencies = \[(.*?)^\]$", project, re.M | re.S).group(1))
    asked += re.findall(r'"([a-z-]+)[^"]*"', re.search(r"^requires = (.*)$", project, re.M).group(1))
    collected = {re.match("[a-z-]+", name).group() for group in collect_wheels.PACKAGES.values() for name in group}
    assert set(asked) - collected == {"numpy", "scipy", "scikit-learn"}  # said to be there


def test_the_check_of_a_gpu_begins_with_what_matters_most_and_fits_its_time(bench, tmp_path):
    from gpu import check

    steps = check.steps(("python",), (), tmp_path)
    assert [step.name for step in steps] == ["doctor", *check.TOOLS, "tests", "bench", "ncu"]
    assert {step.command[0] for step in steps} == {"python", "compute-sanitizer", "ncu"}
    for step in steps:
        for part in step.command:
            if part.startswith(("tests/", str(BENCHMARKS))):
                assert (ROOT / part).exists()


def test_a_check_writes_each_result_as_it_goes_and_stops_in_time(bench, tmp_path):
    from gpu import check

    def python(name, code, seconds=60.0):
        return check.Step(name, (sys.executable, "-c", code), seconds)

    steps = [
        python("good", "print('output')"),
        python("bad", "raise SystemExit(3)"),
        check.Step("missing", ("no-such-program",), 60.0),
        python("slow", "import time; time.sleep(60)", 0.2),
    ]
    results = []
    for result in check.run(steps, tmp_path, 60.0):
        results.append(result)
        assert len((tmp_path / "summary.txt").read_text().splitlines()) == len(results)
    assert results == ["ok", "failed (3)", "left out, no-such-program is not in PATH", "stopped, it took too long"]
    assert (tmp_path / "good.log").read_text() == "output\n"
    assert list(check.run(steps[:1], tmp_path, 0.0)) == ["left out, the time is over"]


@pytest.mark.gpu
def test_the_scenarios_of_the_check_agree_on_this_device(bench, monkeypatch, capsys):
    from gpu import scenarios
    from qiskit_fused.engines.cuda.availability import usable_gpu

    runtime, reason = usable_gpu()
    if runtime is None:
        pytest.skip(reason)
    monkeypatch.setattr(runtime.xp.cuda, "set_allocator", lambda _: None)  # the pool stays for the tests after this one
    monkeypatch.setattr(sys, "argv", ["scenarios.py"])
    assert scenarios.main() == 0
    assert capsys.readouterr().out.count("agrees with the reference") == len(scenarios.ON_ANY_DEVICE)
