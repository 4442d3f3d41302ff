# SPDX-License-Identifier: Apache-2.0
"""``python -m qiskit_fused``: what it prints, and its exit code."""

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import fake_cupy
import numpy as np
import pytest
from fake_cupy import FakeCudaEngine, make_cupy

import qiskit_fused
from qiskit_fused import __main__ as doctor
from qiskit_fused.engines.cpu import engine as cpu
from qiskit_fused.engines.cuda.availability import SWITCH

world = fake_cupy.world


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(doctor, "SECONDS", 0.0)
    monkeypatch.setitem(doctor.TIMED, "cuda", (2, 1))


def report(capsys, expected=0):
    assert doctor.main(["--json"]) == expected
    return json.loads(capsys.readouterr().out)


def test_the_doctor_runs_as_a_module_and_finds_the_cpu_engine_well(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "qiskit_fused"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), SWITCH: "1"},
        cwd=tmp_path,  # python -m looks there first, and a checkout has no extension module
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    titles = [line for line in lines if not line.startswith(" ")]
    assert titles == ["Versions", "Reference engine", "CPU engine", "CUDA engine"]
    assert sum("  test                     passed, " in line for line in lines) == 2
    assert (
        lines[-1]
        == "  test                     not run: the environment variable QISKIT_FUSED_DISABLE_CUDA is set; unset it"
    )
    assert max(map(len, lines)) <= 120


def test_the_report_names_versions_and_the_cpu(world, capsys):
    found = report(capsys)
    assert found["Versions"]["qiskit-fused"] == qiskit_fused.__version__
    assert found["Versions"]["numpy"] == np.__version__
    assert found["CPU engine"]["instructions"] == cpu.isa() and int(found["CPU engine"]["threads"]) >= 1
    assert found["Reference engine"]["test"].startswith("passed, ")
    rate = float(found["CPU engine"]["test"].split()[1])
    assert rate > 1e6
    assert found["CUDA engine"]["test"] == "not run: CuPy is not installed"
    assert found["CUDA engine"]["to install"].startswith('pip install "cupy-cuda13x>=14" "nvidia-cuda-nvrtc>=13,<14" ')


def test_the_report_names_the_gpu_and_tests_it(world, capsys):
    world(make_cupy())
    found = report(capsys)["CUDA engine"]
    assert found["driver"].endswith(", CUDA 13.0")
    assert (found["CuPy"], found["CUDA runtime"], found["NVRTC"]) == ("14.0.0", "13.2", "13.0")
    assert (found["device"], found["architecture"], found["memory"]) == ("Fake 0", "sm_90", "4 GiB, 4 GiB free")
    assert found["test"].startswith("passed, ")


def test_the_report_names_the_command_for_each_package_that_is_missing(world, capsys, monkeypatch):
    def only_needed(name):
        if name in doctor.EXTRAS:
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(doctor, "version", only_needed)
    found = report(capsys)["Versions"]
    assert found["torch"] == "not installed; pip install torch"
    assert found["matplotlib"] == "not installed; pip install matplotlib"
    assert found["tqdm"] == "not installed; pip install tqdm"
    assert found["scipy"] == "1.0"


def test_a_machine_without_a_gpu_hears_of_small_packages_and_what_comes_first(world, capsys, monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    world(driver=0)
    monkeypatch.setattr(doctor, "version", missing)
    found = report(capsys)
    command = "pip install torch --index-url https://download.pytorch.org/whl/cpu"
    assert found["Versions"]["torch"] == f"not installed; {command}"
    assert len(f"  {'torch':<25}{found['Versions']['torch']}") <= 120
    assert found["CUDA engine"]["driver"] == "none"
    expected = "not run: no NVIDIA driver was found (libcuda.so.1), and CuPy is not installed"
    assert found["CUDA engine"]["test"] == expected
    assert found["CUDA engine"]["to install"].startswith(
        'for a GPU, install the driver, then pip install "cupy-cuda13x'
    )


def test_versions_that_can_be_asked_are_shown_where_the_gpu_is_not_usable(world, capsys):
    def missing():
        raise RuntimeError("no libnvrtc")

    world(make_cupy(getVersion=missing))
    found = report(capsys)["CUDA engine"]
    assert (found["CuPy"], found["CUDA runtime"], found["NVRTC"]) == ("14.0.0", "13.2", "RuntimeError: no libnvrtc")
    assert "device" not in found
    assert found["test"].startswith("not run: NVRTC, which compiles the kernels, is missing")


def test_an_engine_that_fails_is_shown_and_only_the_cpu_engine_fails_the_doctor(world, capsys, monkeypatch):
    class Wrong(FakeCudaEngine):
        def evaluate(self, *args, **keywords):
            evaluation = super().evaluate(*args, **keywords)
            evaluation.gradients[0] += 0.25
            return evaluation

    def broken(*_, **__):
        raise OSError("illegal\ninstruction")

    world(make_cupy())
    monkeypatch.setitem(sys.modules, "qiskit_fused.engines.cuda.engine", SimpleNamespace(CudaEngine=Wrong))
    expected = "FAILED: complex128 differs by 2.5e-01 from known values and gradients"
    assert report(capsys)["CUDA engine"]["test"] == expected
    monkeypatch.setattr(cpu.CpuEngine, "evaluate", broken)
    assert report(capsys, expected=1)["CPU engine"]["test"] == "FAILED: OSError: illegal instruction"


def test_an_engine_that_draws_wrong_shots_fails(world, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_draw", lambda device: {"011": 100})
    found = report(capsys, expected=1)["CPU engine"]["test"]
    assert found == "FAILED: shots of a state that always gives 110 are {'011': 100}"
