# SPDX-License-Identifier: Apache-2.0
"""A fake CuPy with the members that this package uses, for two fake devices."""

import importlib.machinery
import sys
import threading
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from qiskit_fused.engines.cuda import availability
from qiskit_fused.engines.reference import ReferenceEngine
from qiskit_fused.execution import devices

FREE, TOTAL = 3 << 30, 4 << 30


class Stream:
    """A stream; `waited` is the event for which it was told to wait last."""

    def __init__(self, non_blocking=False):
        self.non_blocking = non_blocking

    @classmethod
    def from_external(cls, stream):
        made = cls()
        version, made.ptr = stream.__cuda_stream__()
        assert version == 0
        return made

    def __enter__(self):
        self.outer = CURRENT.streams[CURRENT.device]
        CURRENT.streams[CURRENT.device] = self

    def __exit__(self, *_):
        CURRENT.streams[CURRENT.device] = self.outer

    def wait_event(self, event):
        self.waited = event


class Event:
    def __init__(self, disable_timing):
        assert disable_timing

    def record(self):
        self.stream = CURRENT.streams[CURRENT.device]


class Current(threading.local):
    """The current device of each thread, and its current stream on each device, as in CUDA."""

    def __init__(self):
        self.device, self.streams = 0, [Stream(), Stream()]


CURRENT = Current()


class Device:
    compute_capability = "90"

    def __init__(self, index=None):
        self.id = CURRENT.device if index is None else index
        self.outer = []

    def __enter__(self):
        self.outer.append(CURRENT.device)
        CURRENT.device = self.id

    def __exit__(self, *_):
        CURRENT.device = self.outer.pop()


class Array(np.ndarray):
    """An array of `cupy.empty`, which can be filled with an array of the host without pinned memory."""

    def set(self, array):
        assert array.flags.c_contiguous
        self[...] = array


class Kernel:
    """A kernel that writes 2 i + 1, as the trial kernel does, or fails.

    It records launches and limits of memory, and the arguments of the last launch.
    """

    shared_size_bytes = 1024

    def __init__(self, fault):
        self.__dict__.update(fault=fault, launches=[], limits=[], arguments=())

    def __setattr__(self, name, value):
        assert name == "max_dynamic_shared_size_bytes"
        self.limits.append(value)

    def __call__(self, grid, block, args, shared_mem):
        if isinstance(self.fault, Exception):
            raise self.fault
        self.launches.append((grid, block, shared_mem))
        self.__dict__["arguments"] = args
        if args:
            args[0][:] = 2 * np.arange(len(args[0])) + (not self.fault)


def raises(error):
    """Return a function that raises an error."""

    def function(*_):
        raise error

    return function


def make_cupy(fault=None, version="14.0.0", **changes):
    """Make a module that looks like CuPy.

    Args:
        fault: the fault of all kernels: an error that launches raise, or "wrong numbers".
        version: version of CuPy.
        changes: other functions of ``cupy.cuda.runtime`` and ``cupy.cuda.nvrtc``, by name.
    """
    cupy = ModuleType("cupy")

    class RawModule:
        def __init__(self, code, options):
            cupy.compiled.append((code, options))

        def get_function(self, name):
            cupy.kernels.append(Kernel(fault))
            return cupy.kernels[-1]

    numbers = {
        "sharedMemPerBlockOptin": 227 << 10,
        "multiProcessorCount": 132,
        "sharedMemPerMultiprocessor": 228 << 10,
        "l2CacheSize": 50 << 20,
    }
    runtime = {
        "is_hip": False,
        "runtimeGetVersion": lambda: 13020,
        "getDeviceCount": lambda: 2,
        "getDevice": lambda: CURRENT.device,
        "getDeviceProperties": lambda device: {"name": b"Fake %d" % device, "totalGlobalMem": TOTAL, **numbers},
        "memGetInfo": lambda: (FREE, TOTAL),
    }
    nvrtc = {"getVersion": lambda: (13, 0), "getSupportedArchs": lambda: (75, 80, 90, 120)}
    for part in (runtime, nvrtc):
        part.update({name: change for name, change in changes.items() if name in part})
    pool = SimpleNamespace(free_bytes=lambda: 1 << 30, used_bytes=lambda: 1 << 29, get_limit=lambda: cupy.pool_limit)
    cupy.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
    cupy.__version__ = version
    cupy.compiled, cupy.kernels, cupy.pool_limit = [], [], 0
    cupy.array, cupy.asnumpy, cupy.from_dlpack, cupy.RawModule = np.array, np.array, np.from_dlpack, RawModule
    cupy.empty = lambda shape, dtype: np.empty(shape, dtype).view(Array)
    cupy.get_default_memory_pool = lambda: pool
    cupy.cuda = SimpleNamespace(
        memory=SimpleNamespace(OutOfMemoryError=MemoryError),
        Device=type("Device", (Device,), {}),
        Stream=Stream,
        Event=Event,
        runtime=SimpleNamespace(**runtime),
        nvrtc=SimpleNamespace(**nvrtc),
        get_current_stream=lambda: CURRENT.streams[CURRENT.device],
    )
    return cupy


class FakeCudaEngine(ReferenceEngine):
    def __init__(self, runtime, memory_limit=None, compile_above=None):
        self.runtime, self.memory_limit = runtime, memory_limit


@pytest.fixture
def world(monkeypatch):
    """Start a test without CuPy and with a driver for CUDA 13; ``world(cupy, driver)`` replaces both."""

    def change(cupy=None, driver=13000):
        monkeypatch.setitem(sys.modules, "cupy", cupy)  # None makes the import fail
        monkeypatch.setattr(availability, "driver_version", lambda: driver)
        availability._find_cupy.cache_clear()
        availability._find_runtime.cache_clear()

    monkeypatch.delenv(availability.SWITCH, raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(availability, "_forked", False)
    monkeypatch.setattr(devices, "_engines", {})
    monkeypatch.setattr(devices, "_logged", set())
    monkeypatch.setitem(sys.modules, "qiskit_fused.engines.cuda.engine", SimpleNamespace(CudaEngine=FakeCudaEngine))
    change()
    yield change
    availability._find_cupy.cache_clear()
    availability._find_runtime.cache_clear()
