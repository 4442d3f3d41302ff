# SPDX-License-Identifier: Apache-2.0
"""Selection of an engine: when ``auto`` prefers a GPU, the message when it takes the CPU, and the device of a job.

The tests need neither CuPy nor a GPU: a fake CuPy replaces CuPy, and the reference engine replaces the CUDA engine.
"""

import logging
import threading

import fake_cupy
import numpy as np
import pytest
from fake_cupy import CURRENT, FREE, Device, FakeCudaEngine, Stream, make_cupy
from qiskit.circuit.library import real_amplitudes

import qiskit_fused
from qiskit_fused import FusedEstimator, FusedJob, FusedOptions
from qiskit_fused.engines.cuda.availability import SWITCH
from qiskit_fused.engines.interface import DoesNotFit
from qiskit_fused.engines.selection import suits_gpu
from qiskit_fused.execution import devices

GIB = 1 << 30
world = fake_cupy.world


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


SMALL = 2  # number of rows that is too small for a GPU


def run(rows, **options):
    circuit = real_amplitudes(8, reps=1)
    estimator = FusedEstimator(**options)
    return estimator.run([(circuit, "Z" * 8, np.zeros((rows, circuit.num_parameters)))])


@pytest.fixture
def quick(monkeypatch):
    """Lower the least work for a GPU, so that work which is large enough takes little time."""
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
        assert devices.choose_device(FusedOptions(), circuit.fused_program(None), SMALL, 20, gradient) == expected


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
    cupy.pool_limit = (GIB >> 1) + 1000  # the pool may grow by 1000 bytes only
    for _ in range(2):
        assert run(20).metrics()["device"] == "cpu"
    [record] = caplog.records
    assert (
        record.getMessage()
        == "device='auto' runs 8 qubits on the CPU: the states take 4 KiB, and Fake 0 has 0.977 KiB."
    )


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
        [engine] = [engine for key, engine in devices._engines.items() if key[-1] == limit]
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
    device, current_stream, thread = job.result()
    assert (device, current_stream) == (1, stream) and thread is not threading.current_thread()
    assert [key[1].name for key in devices._engines] == ["Fake 1"]
    run(SMALL, device="cuda").result()
    assert [key[1].name for key in devices._engines] == ["Fake 1", "Fake 0"]


def test_a_job_of_the_cpu_does_not_ask_cuda_anything(world):
    calls = []
    world(cupy := make_cupy(getDevice=lambda: calls.append("device"), getDeviceCount=lambda: calls.append("count")))
    cupy.cuda.get_current_stream = cupy.cuda.Device = lambda *_: calls.append("stream or device")
    assert run(SMALL, device="cpu").metrics()["device"] == "cpu"
    assert not calls
