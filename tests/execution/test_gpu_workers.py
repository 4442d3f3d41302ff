# SPDX-License-Identifier: Apache-2.0
"""Each worker of a GPU executor is a thread with a GPU of its own."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
from qiskit.circuit.library import efficient_su2

from qiskit_fused import FusedEstimator, FusedEstimatorGradient, gpu_executor
from qiskit_fused.engines.cuda.availability import usable_gpu
from qiskit_fused.execution import executor, gpu_workers


@pytest.fixture
def devices(monkeypatch):
    """A machine of three GPUs; the list has the threads and the devices that they made current."""
    used = []
    runtime = SimpleNamespace(
        num_devices=lambda: 3, use_device=lambda device: used.append((threading.get_ident(), device))
    )
    monkeypatch.setattr(gpu_workers, "require_gpu", lambda what: runtime)
    return used


@pytest.mark.parametrize(("chosen", "expected"), [(None, {0, 1, 2}), ([2, 0], {0, 2}), ([1], {1})])
def test_every_worker_has_a_device_of_its_own(devices, chosen, expected):
    barrier = threading.Barrier(len(expected))
    with gpu_executor(chosen) as pool:
        list(pool.map(lambda _: barrier.wait(10), expected))
    assert {device for _, device in devices} == expected and len(dict(devices)) == len(devices) == len(expected)


@pytest.mark.parametrize("chosen", [[], [0, 0], [3], [-1]])
def test_wrong_devices_are_refused_with_the_allowed_numbers(devices, chosen):
    with pytest.raises(ValueError, match=r"allowed: different numbers from 0 to 2\."):
        gpu_executor(chosen)


def test_without_a_gpu_the_reason_is_given(monkeypatch):
    monkeypatch.setenv("QISKIT_FUSED_DISABLE_CUDA", "1")
    with pytest.raises(RuntimeError, match=r"gpu_executor\(\) is not available: .*QISKIT_FUSED_DISABLE_CUDA"):
        gpu_executor()


@pytest.mark.gpu
def test_all_devices_of_a_machine_share_the_rows_of_a_batch(monkeypatch):
    runtime, reason = usable_gpu()
    if runtime is None:
        pytest.skip(reason)
    if runtime.num_devices() < 2:
        pytest.skip("needs two devices")
    monkeypatch.setattr(executor, "_MIN_WORK", 1)  # small portions
    circuit = efficient_su2(4, reps=2)
    values = np.random.default_rng(0).normal(size=(60, circuit.num_parameters))
    expected = FusedEstimator(device="cpu").run([(circuit, "ZZZZ", values)]).result()[0].data.evs
    with gpu_executor() as pool:
        job = FusedEstimator(device="cuda", executor=pool).run([(circuit, "ZZZZ", values)])
        np.testing.assert_allclose(job.result()[0].data.evs, expected, rtol=0, atol=1e-10)
        assert job.metrics()["portions"] > 1
        gradient = FusedEstimatorGradient(device="cuda", executor=pool)
        found = gradient.run([circuit] * 2, ["ZZZZ"] * 2, values[:2]).result().gradients
    reference = FusedEstimatorGradient(device="cpu").run([circuit] * 2, ["ZZZZ"] * 2, values[:2]).result().gradients
    np.testing.assert_allclose(found, reference, rtol=0, atol=1e-10)
