# SPDX-License-Identifier: Apache-2.0
"""Which engine runs: what makes a GPU unusable and how that is said, when ``auto`` prefers one, whose device it is.

A fake CuPy stands for the real one, and the reference engine for the CUDA engine, so that no test needs either.
"""

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import fake_cupy
import numpy as np
import pytest
from fake_cupy import CURRENT, FREE, Device, FakeCudaEngine, Stream, make_cupy, raises
from qiskit.circuit.library import real_amplitudes

import qiskit_fused
from qiskit_fused import FusedEstimator, FusedEstimatorGradient, FusedJob, FusedOptions
from qiskit_fused.engines.cuda import availability
from qiskit_fused.engines.cuda.availability import REQUIREMENTS, SWITCH, usable_gpu
from qiskit_fused.engines.cuda.kernel_source import HEADER, kernel_source
from qiskit_fused.engines.interface import DoesNotFit
from qiskit_fused.engines.selection import suits_gpu
from qiskit_fused.execution import evaluate as execution

ROOT = Path(__file__).resolve().parents[2]
GIB = 1 << 30
world = fake_cupy.world


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
    assert usable_gpu()[0] is runtime and len(cupy.compiled) == 1  # tried once


def test_a_stream_of_another_library_is_current_on_the_device_of_the_runtime(world):
    world(make_cupy())
    with Device(1):
        runtime, _ = usable_gpu()
    outer = list(CURRENT.streams)
    with runtime.stream(1234):
        assert CURRENT.device == 1
        assert CURRENT.streams[1].ptr == 1234 and CURRENT.streams[0] is outer[0]
        array = np.arange(3.0)
        assert np.shares_memory(runtime.from_dlpack(array), array)
        mark = runtime.mark()
        assert runtime.current_stream() == 1234 and mark.stream is CURRENT.streams[1]
    with runtime.stream(77):
        runtime.wait_for(mark)
        assert CURRENT.streams[1].waited is mark
    assert CURRENT.device == 0 and CURRENT.streams == outer


PIP12 = 'pip install "cupy-cuda12x>=14" "nvidia-cuda-nvrtc-cu12>=12.8,<13" "nvidia-cuda-runtime-cu12>=12.8,<13"'
PIP13 = 'pip install "cupy-cuda13x>=14" "nvidia-cuda-nvrtc>=13,<14" "nvidia-cuda-runtime>=13,<14"'
BROKEN = RuntimeError("first line\n  second line")


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
            env=os.environ | {"PYTHONPATH": path, SWITCH: ""},
            check=False,
        )
        assert done.returncode == expected


@pytest.mark.parametrize(
    ("num_qubits", "num_runs", "num_rows", "prefers"),
    [
        (4, 20, 1, False),
        (4, 20, 100, False),
        (4, 20, 100_000, True),
        (8, 80, 64, False),
        (10, 10**6, 1, False),
        (12, 600, 1, False),
        (12, 600, 1000, True),
        (16, 320, 1, True),
        (20, 60, 1, True),
        (28, 1, 1, True),
    ],
)
def test_auto_prefers_a_gpu_for_large_work(num_qubits, num_runs, num_rows, prefers):
    assert suits_gpu(num_qubits, num_runs, num_rows) is prefers


SMALL = 2  # rows


def run(rows, **options):
    circuit = real_amplitudes(8, reps=1)
    estimator = FusedEstimator(**options)
    return estimator.run([(circuit, "Z" * 8, np.zeros((rows, circuit.num_parameters)))])


@pytest.fixture
def quick(monkeypatch):
    """Lower the crossover, so that large work is soon done."""
    monkeypatch.setattr("qiskit_fused.engines.selection.MIN_GPU_WORK", 10 * 16 << 8)


def test_auto_takes_the_gpu_for_large_work_only(world, quick):
    cupy = make_cupy()
    world(cupy)
    assert run(SMALL).metrics()["device"] == "cpu" and not cupy.compiled
    metrics = run(20).metrics()
    assert (metrics["device"], metrics["kernels"]) == ("cuda", "numpy")
    assert run(20, device="cpu").metrics()["device"] == "cpu"
    assert run(SMALL, device="cuda").metrics()["device"] == "cuda"


def test_auto_says_once_why_it_does_not_use_the_gpu(world, quick, caplog):
    world(make_cupy(), driver=0)
    assert [run(20).metrics()["device"] for _ in range(2)] == ["cpu", "cpu"]
    [record] = caplog.records
    assert (record.name, record.levelno) == ("qiskit_fused", logging.WARNING)
    assert record.getMessage().startswith("device='auto' runs on the CPU: no NVIDIA driver was found (libcuda.so.1); ")


def test_auto_counts_the_sweeps_of_gradients_by_pairs(world, quick):
    world(make_cupy())
    circuit = qiskit_fused.compile_circuit(real_amplitudes(8, reps=1))
    for gradient, expected in ((False, "cpu"), (True, "cuda")):
        assert execution.choose_device(FusedOptions(), circuit.plan(None), SMALL, 20, gradient) == expected


@pytest.mark.parametrize("switch", ["", "1"])
def test_auto_is_silent_where_nobody_expects_a_gpu(world, quick, caplog, monkeypatch, switch):
    world(make_cupy() if switch else None)
    monkeypatch.setenv(SWITCH, switch)
    assert run(20).metrics()["device"] == "cpu"
    assert not caplog.records


def test_auto_keeps_states_on_the_cpu_that_the_gpu_has_no_room_for(world, quick, caplog):
    world(make_cupy(memGetInfo=lambda: (0, GIB)))
    assert run(20).metrics()["device"] == "cuda"
    world(cupy := make_cupy())
    cupy.pool_limit = (GIB >> 1) + 1000  # what the pool may still grow by: 1000 bytes
    for _ in range(2):
        assert run(20).metrics()["device"] == "cpu"
    [record] = caplog.records
    assert record.getMessage() == "device='auto' runs 8 qubits on the CPU: they need 4 KiB, and Fake 0 has 0.977 KiB."


def test_auto_runs_on_the_cpu_what_the_gpu_refuses_for_its_memory(world, quick, caplog, monkeypatch):
    def refuse(*args, **keywords):
        raise DoesNotFit("the statevector takes too much.")

    world(make_cupy())
    monkeypatch.setattr(FakeCudaEngine, "evaluate", refuse)
    assert [run(20).metrics()["device"] for _ in range(2)] == ["cpu", "cpu"]
    [record] = caplog.records
    assert record.getMessage() == "device='auto' runs on the CPU: the statevector takes too much."
    with pytest.raises(MemoryError, match="takes too much"):
        run(20, device="cuda").result()


def test_auto_says_which_devices_ran_the_circuits_of_a_job(world, quick):
    world(make_cupy())
    small, large = real_amplitudes(2, reps=1), real_amplitudes(8, reps=1)
    job = FusedEstimator().run([(small, "ZZ", np.zeros(4)), (large, "Z" * 8, np.zeros((20, 16)))])
    assert job.metrics()["device"] == "cpu + cuda"


def test_a_memory_limit_is_one_of_the_device(world):
    world(make_cupy())
    for limit, expected in ((None, None), ("1GiB", GIB), (0.5, (FREE + GIB) // 2)):
        run(SMALL, device="cuda", memory_limit=limit).result()
        [engine] = [engine for key, engine in execution._engines.items() if key[-1] == limit]
        assert engine.memory_limit == expected


def test_a_job_runs_on_the_device_and_stream_it_was_submitted_from(world):
    world(make_cupy())
    stream = Stream()

    def where(options):
        return (CURRENT.device, CURRENT.streams[CURRENT.device], threading.current_thread()), {}

    with Device(1), stream:
        job = FusedJob(where, FusedOptions(device="cuda"))
        job.submit()
        run(SMALL, device="cuda").result()
    device, found, thread = job.result()
    assert (device, found) == (1, stream) and thread is not threading.current_thread()
    assert [key[1].name for key in execution._engines] == ["Fake 1"]
    run(SMALL, device="cuda").result()
    assert [key[1].name for key in execution._engines] == ["Fake 1", "Fake 0"]


def test_a_job_of_the_cpu_does_not_ask_cuda_anything(world):
    asked = []
    world(cupy := make_cupy(getDevice=lambda: asked.append("device"), getDeviceCount=lambda: asked.append("count")))
    cupy.cuda.get_current_stream = cupy.cuda.Device = lambda *_: asked.append("stream or device")
    assert run(SMALL, device="cpu").metrics()["device"] == "cpu"
    assert not asked


def test_kernels_are_compiled_once_per_file_and_macros(world):
    world(cupy := make_cupy())
    runtime, _ = usable_gpu()
    del cupy.compiled[:]
    one = runtime.module(HEADER, QF_DOUBLE=0, QF_TILE_QUBITS=10)
    assert runtime.module(HEADER, QF_TILE_QUBITS=10, QF_DOUBLE=0) is one
    assert runtime.module(HEADER, QF_TILE_QUBITS=11, QF_DOUBLE=0) is not one
    assert [options for _, options in cupy.compiled] == [
        ("-std=c++17", "-DQF_DOUBLE=0", f"-DQF_TILE_QUBITS={qubits}") for qubits in (10, 11)
    ]
    assert cupy.compiled[0][0] == kernel_source(HEADER)
    assert one.function("sweep") is one.function("sweep") is not one.function("other")


def test_shared_memory_beyond_the_default_is_asked_for_once(world):
    world(cupy := make_cupy())
    launch = usable_gpu()[0].module(HEADER).function("sweep")
    kernel = cupy.kernels[-1]
    for size in (0, 47 << 10, 48 << 10, 60 << 10, 50 << 10, 64 << 10):  # 1 KiB of 48 is static
        launch(7, 128, (), size)
    assert kernel.limits == [48 << 10, 60 << 10, 64 << 10]
    assert kernel.launches[-1] == ((7,), (128,), 64 << 10)


def test_free_memory_counts_the_pool_and_keeps_to_its_limit(world):
    world(cupy := make_cupy())
    runtime, _ = usable_gpu()
    assert runtime.free_memory() == FREE + GIB
    cupy.pool_limit = 2 * GIB
    assert runtime.free_memory() == 2 * GIB - GIB // 2


@pytest.mark.parametrize("path", sorted((ROOT / "kernels" / "cuda").glob("*.cu")), ids=lambda path: path.name)
def test_the_text_of_a_module_holds_the_header_and_needs_no_files(path):
    text = kernel_source(path.name)
    assert text.count("struct Leaf {") == 1 and '#include "' not in text and "#pragma once" not in text
    assert text.count('extern "C"') == path.read_text().count('extern "C"') >= 1
    assert str(ROOT) not in text


def test_a_kernel_file_that_is_not_there_is_an_error():
    with pytest.raises(FileNotFoundError, match=r"missing\.cu"):
        kernel_source("missing.cu")


@pytest.mark.gpu
def test_a_real_gpu_gives_more_shared_memory_than_the_default():
    runtime, reason = usable_gpu()
    if runtime is None:
        pytest.skip(reason)
    source = 'extern "C" __global__ void last(int* x) { extern __shared__ int s[]; s[x[0]] = 7; x[1] = s[x[0]]; }'
    size = runtime.shared_memory_per_block
    with runtime.context():
        numbers = runtime.xp.asarray(np.array([size // 4 - 1, 0], dtype=np.int32))
        runtime._compile(source).function("last")(1, 1, (numbers,), size)
        assert runtime.to_host(numbers)[1] == 7
    assert 0 < runtime.free_memory() <= runtime.total_memory
