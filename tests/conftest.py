# SPDX-License-Identifier: Apache-2.0
"""Fixtures: every test of a primitive, and every test of an engine, runs on every engine."""

import functools
import signal

import pytest

from qiskit_fused.engines.cpu.engine import CpuEngine
from qiskit_fused.engines.selection import select_engine


@pytest.fixture(scope="session", autouse=True)
def listens_to_ctrl_c():
    """Install Python's handler of Ctrl-C where it is missing: a shell starts commands in the background without one."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["reference", "cpu"])
def device(request):
    """An engine, by the name users give it."""
    return request.param


@pytest.fixture(params=["complex128", "complex64"])
def dtype(request):
    """A number format of the amplitudes."""
    return request.param


@pytest.fixture(
    params=[
        "cpu",
        "emulated",
        pytest.param("tiles", marks=pytest.mark.slow),
        pytest.param("cuda", marks=pytest.mark.gpu),
    ]
)
def engine_name(request):
    """An engine under test: "emulated" is the CUDA engine with its kernels run, and checked, on the CPU.

    "tiles" is the same with tiles of 5 qubits, so that small circuits take many windows, blocks and sums over tiles.
    """
    return request.param


@pytest.fixture  # not of the session: one made for another parametrisation of engine_name would be served again
def make_engine(engine_name):
    """A function that returns the engine under test; the number of threads matters to the CPU engine only."""
    if engine_name == "cpu":
        return CpuEngine
    engine = gpu_engine() if engine_name == "cuda" else emulated_engine(5 if engine_name == "tiles" else None)
    return lambda num_threads=1: engine


@functools.cache  # kernels are compiled once
def emulated_engine(max_tile_qubits):
    """Return the CUDA engine on the emulated device."""
    from cuda_emulation import EmulatedRuntime, missing_tools

    from qiskit_fused.engines.cuda.engine import CudaEngine

    if missing_tools() is not None:
        pytest.skip(missing_tools())
    return CudaEngine(EmulatedRuntime(check=True), max_tile_qubits=max_tile_qubits)


@functools.cache
def gpu_engine():
    """Return the CUDA engine on the current device."""
    from qiskit_fused.engines.cuda import availability

    runtime, reason = availability.usable_gpu()
    if runtime is None:
        pytest.skip(reason)
    return select_engine("cuda")
