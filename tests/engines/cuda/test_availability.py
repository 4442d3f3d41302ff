# SPDX-License-Identifier: Apache-2.0
"""Availability of CUDA: the causes that make a GPU unusable, and the messages about them, with a fake CuPy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import fake_cupy
import pytest
from fake_cupy import make_cupy, raises

from qiskit_fused import FusedEstimator, FusedEstimatorGradient
from qiskit_fused.engines.cuda import availability
from qiskit_fused.engines.cuda.availability import REQUIREMENTS, SWITCH, usable_gpu

ROOT = Path(__file__).resolve().parents[3]
world = fake_cupy.world
PIP12 = 'pip install "cupy-cuda12x>=14" "nvidia-cuda-nvrtc-cu12>=12.8,<13" "nvidia-cuda-runtime-cu12>=12.8,<13"'
PIP13 = 'pip install "cupy-cuda13x>=14" "nvidia-cuda-nvrtc>=13,<14" "nvidia-cuda-runtime>=13,<14"'
BROKEN = RuntimeError("first line\n  second line")


def test_a_gpu_that_runs_the_trial_kernel_is_usable(world):
    cupy = make_cupy()
    world(cupy)
    runtime, reason = usable_gpu()
    assert (runtime.name, runtime.architecture, reason) == ("Fake 0", "90", "")
    assert (runtime.shared_memory_per_block, runtime.num_multiprocessors, runtime.l2_bytes) == (
        227 << 10,
        132,
        50 << 20,
    )
    assert runtime.xp is cupy
    assert usable_gpu()[0] is runtime and len(cupy.compiled) == 1  # the trial kernel was compiled once


@pytest.mark.parametrize(
    ("cupy", "driver", "reason"),
    [
        (None, 13000, f"CuPy is not installed; {PIP13}"),
        (None, 12040, f"CuPy is not installed; {PIP12}"),
        (
            None,
            0,
            "no NVIDIA driver was found (libcuda.so.1), and CuPy is not installed; for a GPU, install the driver, then "
            f"{PIP13}",
        ),
        (make_cupy(is_hip=True), 0, f"this CuPy is built for ROCm, not for CUDA; pip uninstall cupy, then {PIP13}"),
        (
            make_cupy(),
            0,
            "no NVIDIA driver was found (libcuda.so.1); install one, or give the container access to the GPU",
        ),
        (
            make_cupy(),
            12040,
            "the NVIDIA driver knows CUDA 12.4, and CuPy is built for CUDA 13; update the driver, or "
            f"pip uninstall cupy-cuda13x, then {PIP12}",
        ),
        (
            make_cupy(getDeviceCount=raises(BROKEN)),
            13000,
            "CUDA finds no GPU (RuntimeError: first line second line); nvidia-smi shows what the driver sees",
        ),
        (
            make_cupy(version="13.6.0", runtimeGetVersion=lambda: 12090),
            13000,
            "CuPy 13.6.0 is too old, this package needs CuPy 14 or newer; "
            f"{PIP12.replace('install', 'install --upgrade')}",
        ),
        (make_cupy(getDeviceCount=lambda: 0), 13000, "CUDA finds no GPU; nvidia-smi shows what the driver sees"),
        (
            make_cupy(getVersion=raises(BROKEN)),
            13000,
            f"NVRTC, which compiles the kernels, is missing (RuntimeError: first line second line); {PIP13}",
        ),
        (
            make_cupy(runtimeGetVersion=lambda: 12090),
            12040,
            "NVRTC 13.0 is too new for the NVIDIA driver, which knows CUDA 12.4; update the driver, or "
            f"pip uninstall nvidia-cuda-nvrtc, then {PIP12}",
        ),
        (
            make_cupy(runtimeGetVersion=lambda: 12090, getVersion=lambda: (12, 4), getSupportedArchs=lambda: (50, 80)),
            13000,
            f"NVRTC 12.4 cannot compile for Fake 0 (sm_90); {PIP12.replace('install', 'install --upgrade')}",
        ),
        (
            make_cupy(getSupportedArchs=lambda: (100, 120)),
            13000,
            f"NVRTC 13.0 cannot compile for Fake 0 (sm_90); pip uninstall cupy-cuda13x, then {PIP12}",
        ),
        (
            make_cupy(getDeviceProperties=raises(BROKEN)),
            13000,
            "CUDA device 0 cannot be used (RuntimeError: first line second line); "
            "python -m qiskit_fused shows the versions",
        ),
        (
            make_cupy(fault=BROKEN),
            13000,
            "a trial kernel failed on Fake 0 (sm_90, NVRTC 13.0): RuntimeError: first line second line; "
            "python -m qiskit_fused shows the versions",
        ),
        (
            make_cupy(fault="wrong numbers"),
            13000,
            "a trial kernel failed on Fake 0 (sm_90, NVRTC 13.0): RuntimeError: it returned wrong numbers; "
            "python -m qiskit_fused shows the versions",
        ),
    ],
)
def test_every_obstacle_is_named_with_its_cure(world, cupy, driver, reason):
    world(cupy, driver)
    assert usable_gpu() == (None, reason)
    for make in (FusedEstimator, FusedEstimatorGradient):
        with pytest.raises(RuntimeError) as caught:
            make(device="cuda")
        assert str(caught.value) == f"device='cuda' is not available: {reason}. device='cpu' works without a GPU."


def test_a_broken_cupy_is_told_from_a_missing_one(world, monkeypatch, tmp_path):
    (tmp_path / "cupy.py").write_text("import a_library_of_cupy")
    monkeypatch.syspath_prepend(tmp_path)
    world()
    del sys.modules["cupy"]
    reason = f"CuPy cannot be imported (ModuleNotFoundError: No module named 'a_library_of_cupy'); {PIP13}"
    assert usable_gpu() == (None, reason)
    (tmp_path / "cupy.py").write_text("raise ImportError('built for another NumPy')")
    availability._find_cupy.cache_clear()
    assert usable_gpu()[1].startswith(
        "CuPy cannot be imported (ImportError: built for another NumPy); pip install --up"
    )


def test_the_environment_can_switch_the_gpu_off(world, monkeypatch):
    world(make_cupy())
    for off in ("1", "yes"):
        monkeypatch.setenv(SWITCH, off)
        assert usable_gpu() == (None, "the environment variable QISKIT_FUSED_DISABLE_CUDA is set; unset it")
    for on in ("", "0"):
        monkeypatch.setenv(SWITCH, on)
        assert usable_gpu()[0] is not None


def test_the_extras_are_what_the_reasons_ask_for():
    text = (ROOT / "pyproject.toml").read_text()
    for major, packages in REQUIREMENTS.items():
        assert f"\ncuda{major} = {json.dumps(packages)}\n" in text


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_of_a_process_that_used_cuda_does_not():
    code = (
        "import os, sys\n"
        "from fake_cupy import make_cupy\n"
        "from qiskit_fused.engines.cuda import availability\n"
        "sys.modules['cupy'] = make_cupy()\n"
        "availability.driver_version = lambda: 13000\n"
        "if sys.argv[1] == 'used': assert availability.usable_gpu()[0] is not None\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    runtime, reason = availability.usable_gpu()\n"
        "    os._exit(('forked' in reason and \"set_start_method('spawn')\" in reason) if runtime is None else 2)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    path = os.pathsep.join([str(ROOT / "tests" / "support"), *sys.path])
    for before, expected in (("used", 1), ("unused", 2)):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, before],
            cwd=Path(__file__).parent,  # python -c looks there first, and a checkout has no extension module
            env=os.environ | {"PYTHONPATH": path, SWITCH: ""},
            check=False,
        )
        assert done.returncode == expected
