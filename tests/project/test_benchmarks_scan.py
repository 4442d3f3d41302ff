# SPDX-License-Identifier: Apache-2.0
"""The scan measures every axis, says who was left behind and why, and draws; every peer is the circuit it says."""

import importlib
import json
import re
import time
from types import SimpleNamespace

import numpy as np
import pytest
from benchmarking import BENCHMARKS, ROOT, InProcess, run_benchmark


@pytest.fixture
def bench(monkeypatch):
    """The modules of the benchmark."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = {name: f"main.{name}" for name in ("peers", "run")} | {"main_report": "main.report"}
    names |= {name: f"common.{name}" for name in ("comparison", "harness", "numpy_adjoint", "own", "report", "worker")}
    names |= {"workloads": "common.workloads"}
    names |= {"scan": "scan.run", "scan_report": "scan.report", "training_peers": "training.peers"}
    return SimpleNamespace(**{name: importlib.import_module(path) for name, path in names.items()})


@pytest.mark.slow
def test_the_quick_scan_measures_every_axis_and_draws_small_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    output = tmp_path / "scan.json"
    done = run_benchmark("scan", "--quick", "--peers", "", "--threads", "1", "--output", output)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed or differs: nothing" in done.stdout
    results = json.loads(output.read_text())
    assert list(results["axes"]) == ["qubits", "rows", "layers"] and results["partial"]
    for axis in results["axes"].values():
        for point in axis["points"]:
            ours = [entry["dtype"] for entry in point["contenders"] if entry["label"] == "qiskit-fused"]
            assert ours == ["complex64", "complex128"] and all(rate > 0 for rate in point["work"].values())
            assert any(entry["label"] == "numpy" and "value_error" in entry for entry in point["contenders"])
    assert min(results["ceilings"].values()) > 1e8
    for name in ("qubits", "rows", "layers", "memory"):
        picture = (tmp_path / f"scan-{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG") and len(picture) < 150_000
    assert run_benchmark("report", output).stdout.strip() in done.stdout


def test_an_unknown_axis_or_peer_is_refused_with_those_that_exist():
    for flag, text in (("--only", "qubits"), ("--peers", "lightning")):
        done = run_benchmark("scan", flag, "nonsense", "--no-save")
        assert done.returncode == 2 and "nonsense" in done.stderr and text in done.stderr


def scanned(bench, monkeypatch, *contenders, cap=10.0, ours=None):
    """Scan three tiny sizes with ours and made-up contenders."""
    sizes = (2, 3, 4)
    axis = bench.scan.Axis("qubits", "", lambda n: bench.workloads.efficient_su2(n, 1, batch=2), sizes, sizes)
    monkeypatch.setitem(bench.scan.AXES, "qubits", axis)
    ours = [InProcess(bench.worker, ours or bench.peers.Fused, dtype) for dtype in ("complex64", "complex128")]
    workers = [*ours, *(InProcess(bench.worker, one) for one in contenders)]
    return bench.scan.scan("qubits", workers, SimpleNamespace(quick=True, seconds=0.01, cap=cap))


def results_of(axis):
    machine = {"cpu": "a CPU", "simd": "some"}
    shared = {"kind": "scan", "date": "2026-01-01T00:00:00", "machine": machine, "num_threads": 1, "missing": []}
    ceilings = {"flops_per_second": 1e11, "bytes_per_second": 1e10}
    return shared | {"ceilings": ceilings, "axes": {"qubits": axis}, "cap_s": 10.0}


@pytest.mark.slow
def test_a_contender_that_is_slow_or_fails_or_differs_is_not_continued_and_named(bench, monkeypatch):
    class Slow(bench.peers.Fused):
        label = "slow"

        def __call__(self, parameters):
            time.sleep(0.2 if self.circuit.num_qubits == 3 else 0.0)
            return super().__call__(parameters)

    class Failing(bench.peers.Fused):
        label = "failing"

        def prepare(self, workload):
            if workload.num_qubits == 3:
                raise MemoryError("no room")
            super().prepare(workload)

    class Wrong(bench.peers.Fused):
        label = "wrong"

        def __call__(self, parameters):
            values, gradients = super().__call__(parameters)
            return values, gradients * 1.01

    axis = scanned(bench, monkeypatch, Slow, Failing, Wrong, cap=0.1)
    assert {(one["label"], one["size"]) for one in axis["stopped"]} == {("slow", 3), ("failing", 3), ("wrong", 2)}
    labels = [[entry["label"] for entry in point["contenders"]] for point in axis["points"]]
    assert labels == [["qiskit-fused"] * 2 + more for more in (["slow", "failing", "wrong"], ["slow", "failing"], [])]
    assert not any("median_ms" in entry for entry in axis["points"][0]["contenders"] if entry["label"] == "wrong")
    failed = bench.scan_report.REPORT.failures(results_of(axis))
    assert len(failed) == 2 and "DIFFERS" in failed[0] and "no room" in failed[1]
    text = bench.scan_report.REPORT.markdown(results_of(axis))
    assert "| slow c64 | 3 | a call took more than 0.1 s |" in text and "DIFFERS" in text and "no room" in text


@pytest.mark.slow
def test_a_scan_goes_on_without_ours_when_ours_fails(bench, monkeypatch):
    class Failing(bench.peers.Fused):
        def prepare(self, workload):
            if workload.num_qubits == 3:
                raise MemoryError("no room")
            super().prepare(workload)

    class Other(bench.peers.Fused):
        label = "qulacs"

    axis = scanned(bench, monkeypatch, Other, cap=0.0, ours=Failing)
    assert [len(point["contenders"]) for point in axis["points"]] == [3, 2, 0]
    assert {(one["label"], one["size"]) for one in axis["stopped"]} == {("qulacs", 2), ("qiskit-fused", 3)}
    assert "no room" in bench.scan_report.REPORT.markdown(results_of(axis))


@pytest.mark.slow
def test_a_faster_peer_is_named_for_each_size(bench, monkeypatch):
    axis = scanned(bench, monkeypatch)
    for point in axis["points"]:
        ours = point["contenders"][0]
        point["contenders"].append(ours | {"label": "qulacs", "median_ms": ours["median_ms"] / 2})
    text = bench.scan_report.REPORT.markdown(results_of(axis))
    assert len(re.findall(r"\* W2 .*, complex64: qulacs c64 is 2.00 times faster", text)) == 3
    assert len(re.findall(r"^\| [234] \|.*\| \*\*[^|]*\*\* \|$", text, re.M)) == 3


def test_when_ours_differs_nobody_is_timed(bench):
    class Wrong(bench.peers.Fused):
        def __call__(self, parameters):
            values, gradients = super().__call__(parameters)
            return values + 0.1, gradients

    reference = InProcess(bench.worker, bench.peers.Fused, "complex128")
    broken = InProcess(bench.worker, Wrong)
    record = bench.run.run_workload(bench.workloads.efficient_su2(3, 1, batch=2), [broken, reference], 0.01)
    assert "DIFFERS" in record["contenders"][0]["wrong"]
    assert not any("median_ms" in entry for entry in record["contenders"])


def test_what_is_too_large_for_a_contender_is_left_out_and_said(bench):
    class Small(bench.peers.Fused):
        label, most_work = "small", 10.0

    workers = [InProcess(bench.worker, one, "complex128") for one in (bench.peers.Fused, Small)]
    record = bench.run.run_workload(bench.workloads.efficient_su2(3, 1, batch=2), workers, 0.01)
    ours, small = record["contenders"]
    assert "median_ms" in ours and "its limit here is 1e+01" in small["left_out"]
    assert bench.report.why_not_timed(small) == small["left_out"]
    assert not bench.report.failed_contenders("small", record)


def test_a_peer_that_is_not_installed_is_named_in_the_results(bench):
    class Absent(bench.peers.Fused):
        label, package = "absent", "no-such-distribution"

    workers, missing = bench.comparison.make_workers([bench.peers.Fused, Absent], 1)
    assert [one.contender for one in workers] == [bench.peers.Fused] * 2
    assert missing == ["absent: no-such-distribution is not installed"]
    text = bench.main_report.REPORT.markdown({"workloads": [], "missing": missing})
    assert "* absent: no-such-distribution is not installed" in text


def test_every_peer_has_a_requirements_file_that_names_its_package(bench):
    files = {path.stem: path.read_text() for path in (BENCHMARKS / "requirements").glob("*.txt")}
    assert set(files) == set(bench.peers.PEERS)
    for name, peer in bench.peers.PEERS.items():
        assert re.search(rf"^{peer.package}\b", files[name], re.M)
    jobs = bench.training_peers.jobs(bench.workloads.efficient_su2(4, 1))
    packages = {peer.package for job in jobs.values() for peer in job.peers.values()}
    known = re.findall(r"^[a-z-]+", "\n".join(files.values()), re.M)
    assert (
        packages - {"pennylane"} <= set(known) and "pennylane-lightning" in known
    )  # the installation of pennylane-lightning brings pennylane
    assert "benchmarks/requirements" in (ROOT / "Makefile").read_text()


def test_every_peer_has_a_line_of_its_own_in_the_pictures(bench):
    styles = bench.scan_report.STYLES
    assert set(styles) == {peer.label for peer in bench.peers.PEERS.values()}
    assert all(len(set(kind)) == len(styles) for kind in zip(*styles.values(), strict=True))  # colours, markers


PEERS = ["torch", "triton-qml", "aer", "reverse", "lightning", "qulacs", "flagquantum", "mindquantum", "scaluq",
         "tensorcircuit"]  # fmt: skip


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("rows", [1, 3])
def test_peers_that_are_installed_agree_with_a_numpy_adjoint(bench, name, rows):
    peer = bench.peers.PEERS[name]
    if bench.harness.version(peer.package) is None:
        pytest.skip(f"{peer.package} is not installed")
    workloads = bench.workloads
    cases = [workloads.efficient_su2(3, 2, batch=rows)]
    if not peer.networks and rows == 1:
        cases += [workloads.hardware_efficient(4, 2), workloads.full_graph_qaoa(4, 2)]
        cases += [] if peer.needs_diagonal else [workloads.ising_ansatz(4, 2)]
    for workload in cases:
        check = bench.numpy_adjoint.NumpyAdjoint("complex128", 1)
        check.prepare(workload)
        true = check(workload.parameters(0))
        for dtype in peer.precisions:
            one = peer(dtype, 1)
            one.prepare(workload)
            for found, expected in zip(one(workload.parameters(0)), true, strict=True):
                assert found.shape == expected.shape
                np.testing.assert_allclose(found, expected, atol=1e-4 if dtype == "complex64" else 1e-9)


def test_memory_bandwidth_is_that_of_a_machine(bench):
    assert 1e8 < bench.own.memory_bandwidth(1, size=2**22, repetitions=2) < 1e13
