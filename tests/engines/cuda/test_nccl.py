# SPDX-License-Identifier: Apache-2.0
"""GPUs that are connected by NCCL: real CuPy over fake devices, and a fake of NCCL that checks each call.

The tests marked gpu run on fake devices alone (``fake_driver``): a rank is a thread with a device of its own.
"""

import sys
import warnings

import numpy as np
import pytest
from engine_cases import random_circuit
from qiskit.circuit.library import efficient_su2

from qiskit_fused import FusedEstimatorGradient
from qiskit_fused.distributed import NcclCommunicator, run_on_threads, value_and_gradient
from qiskit_fused.distributed.communicator import exchange_amplitudes
from qiskit_fused.engines.cuda import availability, nccl
from qiskit_fused.engines.cuda.runtime import CupyRuntime

OBSERVABLES = ["ZIZIZIZ", "XXXXXXX", "IIYIXZI"]


@pytest.fixture
def fake(monkeypatch):
    if "fake_driver.plugin" not in sys.modules:
        pytest.skip("needs the fake devices of fake_driver")
    import cupy
    from fake_driver import installed
    from fake_driver.nccl import FakeNccl

    fake = FakeNccl(installed())
    monkeypatch.setattr(cupy.cuda, "nccl", fake, raising=False)
    return fake


def on_devices(function):
    """Run a function on two ranks, each on a device and on a stream of its own."""
    import cupy

    def run(ranks):
        with cupy.cuda.Device(ranks.rank), cupy.cuda.Stream(non_blocking=True):
            result = function(NcclCommunicator(ranks))
            cupy.cuda.Device().synchronize()  # no exchange is left for later tests
            return result

    return run_on_threads(2, run)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_ranks_on_gpus_agree_with_the_reference_and_exchange_on_their_devices(fake, dtype):
    circuit = random_circuit(7, 40, seed=7)
    values = np.linspace(-1, 2, circuit.num_parameters)
    expected = FusedEstimatorGradient(device="reference").value_and_gradient(circuit, OBSERVABLES, values)
    found = on_devices(
        lambda ranks: value_and_gradient(circuit, OBSERVABLES, values, ranks, device="cuda", dtype=dtype)
    )
    for result in found:
        for mine, wanted in zip(result, expected):
            np.testing.assert_allclose(mine, wanted, atol=1e-11 if dtype == "complex128" else 2e-5, rtol=0)
    kinds = {kind for _, name, _, kind in fake.calls if name != "allReduce"}
    assert kinds == {fake.NCCL_FLOAT32 if dtype == "complex64" else fake.NCCL_FLOAT64}
    for name in ("send", "recv", "allReduce"):
        first, second = ([call[1:] for call in fake.calls if call[:2] == (rank, name)] for rank in range(2))
        assert first == second and first


def add_and_exchange(ranks):
    """Return (a number for each round of additions and exchanges, a sum over ranks) as one list."""
    import cupy

    numbers = cupy.zeros(1000, dtype=np.complex64)
    for _ in range(3):
        numbers += 1 + ranks.rank
        numbers = exchange_amplitudes(ranks, 1 - ranks.rank, numbers, "complex64", cupy)
        numbers *= 2
    total = ranks.sum(np.array([1.0, ranks.rank]))
    found = np.unique(cupy.asnumpy(numbers))
    return [*found.real.tolist(), *total.tolist()]


EXPECTED = [[24.0, 2.0, 1.0], [18.0, 2.0, 1.0]]


@pytest.mark.gpu
def test_an_exchange_waits_for_the_work_before_it_and_later_work_for_the_exchange(fake):
    assert on_devices(add_and_exchange) == EXPECTED


@pytest.mark.gpu
def test_an_exchange_in_another_stream_shows_on_the_fake_devices(fake, monkeypatch):
    monkeypatch.setattr(CupyRuntime, "current_stream", lambda self: 0)
    assert on_devices(add_and_exchange) != EXPECTED


@pytest.mark.gpu
def test_a_rank_that_sends_before_it_receives_shows_on_the_fake_devices(fake, monkeypatch):
    monkeypatch.setattr(fake, "groupStart", lambda: None)
    with pytest.raises(AssertionError, match="may wait for ever"):
        on_devices(add_and_exchange)


@pytest.mark.gpu
def test_a_missing_library_is_an_error_that_names_its_package(monkeypatch):
    runtime, reason = availability.usable_gpu()
    if runtime is None:
        pytest.skip(reason)
    import cupy

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cupy.cuda import nccl as module
    monkeypatch.setattr(module, "available", False)
    monkeypatch.setattr(cupy.cuda, "nccl", module, raising=False)
    with pytest.raises(ImportError, match=r"pip install nvidia-nccl-cu\d\d"):
        nccl.import_nccl(runtime)


def test_a_communicator_of_gpus_is_an_error_without_a_gpu(monkeypatch):
    monkeypatch.setattr(availability, "usable_gpu", lambda: (None, "there is none"))
    with pytest.raises(RuntimeError, match="NcclCommunicator is not available: there is none"):
        NcclCommunicator()


def test_sweeps_on_the_cpu_are_an_error_for_a_communicator_of_gpus():
    circuit = efficient_su2(3, reps=1)

    def run(ranks):
        ranks.takes_device_arrays = True
        return value_and_gradient(circuit, "ZZZ", np.zeros(circuit.num_parameters), ranks)

    with pytest.raises(ValueError, match="exchanges arrays of GPUs, and device is 'cpu'; use device='cuda'"):
        run_on_threads(2, run)
