# SPDX-License-Identifier: Apache-2.0
"""Fake devices whose memory is memory of the host: the functions of the CUDA runtime and driver that CuPy calls."""

from __future__ import annotations

import ctypes
import itertools
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cuda_emulation.building import build
from cuda_emulation.emulation import POOL_ALIGNMENT, Launch, load_library
from ptx import PtxModule

from .queues import DEFAULT, Queues, Stream

COMPUTE_CAPABILITY = 9, 0
DEFAULT_SHARED, MOST_SHARED = 48 << 10, 232448  # bytes of shared memory of a block: without a request, and at most
OUT_OF_MEMORY, INVALID_VALUE, NOT_FOUND, NOT_READY, LAUNCH_FAILED, UNKNOWN = 2, 1, 500, 600, 719, 999
TO_HOST, TO_DEVICE = 2, 1  # kinds of copies
POISON = 0xFF  # the byte that fills memory that was not written; it makes NaN of numbers
ATTRIBUTES = {75: COMPUTE_CAPABILITY[0], 76: COMPUTE_CAPABILITY[1], 16: 4, 1: 1024, 10: 32, 8: DEFAULT_SHARED}
ATTRIBUTES |= {97: MOST_SHARED, 39: 2048, 13: 1755000, 36: 3200000, 5: (1 << 31) - 1}
PROPERTIES = {
    "sharedMemPerBlockOptin": MOST_SHARED, "sharedMemPerBlock": DEFAULT_SHARED,
    "sharedMemPerMultiprocessor": 228 << 10, "multiProcessorCount": 4, "l2CacheSize": 1 << 20,
    "major": 9, "minor": 0, "warpSize": 32, "maxThreadsPerBlock": 1024,
}  # fmt: skip

_libc = ctypes.CDLL(None)
_libc.aligned_alloc.restype = ctypes.c_void_p
_libc.aligned_alloc.argtypes = ctypes.c_size_t, ctypes.c_size_t
_libc.free.argtypes = (ctypes.c_void_p,)


@dataclass
class Counts:
    """What a device was told to do: kernels launched, and bytes allocated and copied.

    Attributes:
        launches: names of the kernels, in order.
        uploaded: bytes copied from the host.
        live, peak: bytes of device memory that are allocated, and the largest number so far.
        pinned: bytes of pinned memory that are allocated.
    """

    launches: list[str] = field(default_factory=list)
    uploaded: int = 0
    live: int = 0
    peak: int = 0
    pinned: int = 0


class Devices:
    """All fake devices, as CuPy sees them through the CUDA runtime. The names of methods are those of the runtime.

    Args:
        count: number of devices.
        error: ``error(code)`` makes the exception of the runtime.
        make_attributes: makes the attributes of an address.

    Attributes:
        total: bytes of memory of each device.
        fails: says, for a number of bytes, whether the next allocation fails.
        is_idle: whether kernels and copies do nothing and memory does not exist, so that only the host takes time.
    """

    def __init__(self, count: int, error: Callable[[int], Exception], make_attributes: Callable[..., Any]):
        self.total = 8 << 30
        self.fails: Callable[[int], bool] = lambda size: False
        self.is_idle = False
        self.counts = Counts()
        self.queues = [Queues() for _ in range(count)]
        self._error, self._make_attributes = error, make_attributes
        self._thread = threading.local()
        self._handles = itertools.count(0x1000, 16)
        self._unused_addresses = itertools.count(1 << 50, 1 << 40)
        self._device_of_stream: dict[int, int] = {}
        self._sizes: dict[int, tuple[int, int]] = {}  # address -> device and bytes
        self._pinned: dict[int, int] = {}  # address -> bytes
        self._lock = threading.RLock()

    # --- devices

    def getDevice(self) -> int:  # noqa: N802
        return getattr(self._thread, "device", 0)

    def setDevice(self, device: int) -> None:  # noqa: N802
        self._thread.device = device

    def getDeviceCount(self) -> int:  # noqa: N802
        return len(self.queues)

    def deviceSynchronize(self) -> None:  # noqa: N802
        self.queues[self.getDevice()].synchronize_all()

    def driverGetVersion(self) -> int:  # noqa: N802
        return 13000

    runtimeGetVersion = driverGetVersion  # noqa: N815

    def _getCUDAMajorVersion(self) -> int:  # noqa: N802
        return 13

    def deviceGetAttribute(self, attribute: int, device: int) -> int:  # noqa: N802
        return ATTRIBUTES.get(attribute, 0)

    def getDeviceProperties(self, device: int) -> dict[str, Any]:  # noqa: N802
        return {"name": b"Fake %d" % device, "totalGlobalMem": self.total, **PROPERTIES}

    def deviceCanAccessPeer(self, device: int, peer: int) -> int:  # noqa: N802
        return 1

    def memGetInfo(self) -> tuple[int, int]:  # noqa: N802
        return self.total - self.counts.live, self.total

    # --- memory

    def malloc(self, size: int) -> int:
        with self._lock:
            if self.is_idle:
                return next(self._unused_addresses)
            if self.counts.live + size > self.total or self.fails(size):
                raise self._error(OUT_OF_MEMORY)
            address = _libc.aligned_alloc(POOL_ALIGNMENT, -(-max(size, 1) // POOL_ALIGNMENT) * POOL_ALIGNMENT)
            ctypes.memset(address, POISON, size)
            self._sizes[address] = self.getDevice(), size
            self.counts.live += size
            self.counts.peak = max(self.counts.peak, self.counts.live)
            return address

    def free(self, address: int) -> None:
        """Free memory. As in CUDA, this waits for all work of the device."""
        with self._lock:
            if address not in self._sizes:  # made while the devices were idle
                return
            device, size = self._sizes.pop(address)
            self.counts.live -= size
        self.queues[device].synchronize_all()
        ctypes.memset(address, POISON, size)
        _libc.free(address)

    def hostAlloc(self, size: int) -> int:  # noqa: N802
        with self._lock:
            address = _libc.aligned_alloc(POOL_ALIGNMENT, -(-max(size, 1) // POOL_ALIGNMENT) * POOL_ALIGNMENT)
            self._pinned[address] = size
            self.counts.pinned += size
            return address

    def freeHost(self, address: int) -> None:  # noqa: N802
        with self._lock:
            size = self._pinned.pop(address)
            self.counts.pinned -= size
        ctypes.memset(address, POISON, size)
        _libc.free(address)

    def pointerGetAttributes(self, address: int) -> Any:  # noqa: N802
        return self._make_attributes(self.getDevice(), address, address, 2)

    def pointerGetMemoryType(self, address: int) -> int:  # noqa: N802
        return 1 if self._is_pinned(address) else 0

    def memcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> None:  # noqa: N802
        """Copy when the stream runs. Memory that is not pinned is read, or written, before the call returns."""
        queues = self._queues_of(stream)
        if kind == TO_DEVICE:
            self.counts.uploaded += size
            if not self.is_idle and not self._is_pinned(source):
                copy = ctypes.string_at(source, size)
                queues.add(stream, lambda: _move(to, copy, size))
                return
        if not self.is_idle:
            queues.add(stream, lambda: _move(to, source, size))
        if kind == TO_HOST and not self._is_pinned(to):
            queues.synchronize(stream)

    def memcpy(self, to: int, source: int, size: int, kind: int) -> None:
        self.memcpyAsync(to, source, size, kind, DEFAULT)
        self.queues[self.getDevice()].synchronize(DEFAULT)

    def memsetAsync(self, to: int, value: int, size: int, stream: int) -> None:  # noqa: N802
        if not self.is_idle:
            self._queues_of(stream).add(stream, lambda: _fill(to, value, size))

    def memset(self, to: int, value: int, size: int) -> None:
        self.memsetAsync(to, value, size, DEFAULT)

    # --- streams and events

    def streamCreateWithFlags(self, flags: int, priority: int = 0) -> int:  # noqa: N802
        with self._lock:
            handle, device = next(self._handles), self.getDevice()
            self._device_of_stream[handle] = device
            self.add_stream(handle, is_blocking=flags == 0)
            return handle

    streamCreateWithPriority = streamCreateWithFlags  # noqa: N815

    def streamCreate(self) -> int:  # noqa: N802
        return self.streamCreateWithFlags(0)

    def add_stream(self, handle: int, *, is_blocking: bool) -> None:
        """Add a stream of the current device, which CuPy or another library made."""
        self.queues[self.getDevice()].streams[handle] = Stream(is_blocking)

    def streamDestroy(self, stream: int) -> None:  # noqa: N802
        self._queues_of(stream).synchronize(stream)

    def streamSynchronize(self, stream: int) -> None:  # noqa: N802
        self._queues_of(stream).synchronize(stream)

    def streamQuery(self, stream: int) -> int:  # noqa: N802
        queue = self._queues_of(stream).streams[stream]
        return 0 if queue.done == queue.count else NOT_READY

    def streamWaitEvent(self, stream: int, event: int) -> None:  # noqa: N802
        self._queues_of(stream).wait(stream, event)

    def eventCreateWithFlags(self, flags: int) -> int:  # noqa: N802
        with self._lock:
            return next(self._handles)

    def eventCreate(self) -> int:  # noqa: N802
        return self.eventCreateWithFlags(0)

    def eventDestroy(self, event: int) -> None:  # noqa: N802
        pass

    def eventRecord(self, event: int, stream: int) -> None:  # noqa: N802
        self._queues_of(stream).record(event, stream)

    def eventQuery(self, event: int) -> int:  # noqa: N802
        return 0 if self._queues_of_event(event).is_done(event) else NOT_READY

    def eventSynchronize(self, event: int) -> None:  # noqa: N802
        self._queues_of_event(event).synchronize_event(event)

    def _queues_of(self, stream: int) -> Queues:
        return self.queues[self._device_of_stream.get(stream, self.getDevice())]

    def _queues_of_event(self, event: int) -> Queues:
        return next((queues for queues in self.queues if event in queues.events), self.queues[0])

    def _is_pinned(self, address: int) -> bool:
        return any(begin <= address < begin + size for begin, size in self._pinned.items())


def _move(to: int, source: int | bytes, size: int) -> None:
    ctypes.memmove(to, source, size)


def _fill(to: int, value: int, size: int) -> None:
    ctypes.memset(to, value, size)


class Driver:
    """The functions of the CUDA driver that load modules and launch kernels.

    Args:
        devices: the devices.
    """

    def __init__(self, devices: Devices):
        self._devices = devices
        self._modules: dict[int, tuple[PtxModule, ctypes.CDLL]] = {}
        self._functions: dict[int, tuple[int, str, Any]] = {}
        self._limits: dict[int, int] = {}  # function -> largest number of bytes of shared memory
        self._handles = itertools.count(0x7000, 16)
        self._launching = threading.RLock()  # a library keeps the threads of one launch

    def load(self, ptx: bytes, out: Any) -> int:
        module = PtxModule(ptx.decode())
        library = load_library(build(module.text, "ptx.cu", {}, False))
        handle = next(self._handles)
        self._modules[handle] = module, library
        out[0] = handle
        return 0

    def find(self, module: int, name: bytes, out: Any) -> int:
        kernel = self._modules[module][1].find_kernel(name)
        if not kernel:
            return NOT_FOUND
        handle = next(self._handles)
        self._functions[handle] = module, name.decode(), kernel
        out[0] = handle
        return 0

    def launch(self, function: int, grid: int, block: int, shared: int, stream: int, arguments: Any) -> int:
        """Add a launch to a stream. The arguments are copied now, as CUDA does."""
        number, name, kernel = self._functions[function]
        module, library = self._modules[number]
        entry = module.kernels[name]
        if not grid or not 1 <= block <= min(1024, entry.max_threads):
            return INVALID_VALUE
        if shared + module.static_shared > self._limits.get(function, DEFAULT_SHARED):
            return INVALID_VALUE
        self._devices.counts.launches.append(name)
        if self._devices.is_idle:
            return 0
        values = [
            ctypes.create_string_buffer(ctypes.string_at(arguments[k], size), size)
            for k, size in enumerate(entry.sizes)
        ]

        def run() -> None:
            pointers = (ctypes.c_void_p * max(1, len(values)))(*map(ctypes.addressof, values))
            with self._launching:
                message = library.launch_kernel(kernel, pointers, ctypes.byref(Launch(grid, block, shared)))
            if message is not None:
                raise RuntimeError(f"{name}: {message.decode()}")

        self._devices._queues_of(stream).add(stream, run)
        return 0

    def attribute(self, function: int, which: int, value: Any, is_set: int) -> int:
        """Get or set an attribute of a kernel; only the limit of dynamic shared memory (8) can be set."""
        number, name, _ = self._functions[function]
        module = self._modules[number][0]
        if is_set:
            if which != 8 or value[0] + module.static_shared > MOST_SHARED:
                return INVALID_VALUE
            self._limits[function] = value[0] + module.static_shared
            return 0
        dynamic = self._limits.get(function, DEFAULT_SHARED) - module.static_shared
        value[0] = {0: module.kernels[name].max_threads, 1: module.static_shared, 8: dynamic, 4: 0, 3: 0}.get(which, -1)
        return 0

    def callbacks(self) -> tuple[Any, ...]:
        """Return the four functions for `fake_set_callbacks`; the caller keeps them alive."""
        number, pointer = ctypes.c_uint64, ctypes.POINTER
        types = (
            (self.load, (ctypes.c_char_p, pointer(number))),
            (self.find, (number, ctypes.c_char_p, pointer(number))),
            (self.launch, (number, *[ctypes.c_uint] * 3, number, pointer(ctypes.c_void_p))),
            (self.attribute, (number, ctypes.c_int, pointer(ctypes.c_int), ctypes.c_int)),
        )
        return tuple(ctypes.CFUNCTYPE(ctypes.c_int, *arguments)(_guarded(function)) for function, arguments in types)


def _guarded(function: Callable[..., int]) -> Callable[..., int]:
    """Return a function that returns an error of the driver where ``function`` raises an exception."""

    def call(*arguments: Any) -> int:
        try:
            return function(*arguments)
        except BaseException:
            traceback.print_exc()
            return UNKNOWN

    return call
