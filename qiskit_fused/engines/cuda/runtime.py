# SPDX-License-Identifier: Apache-2.0
"""The CUDA runtime: all calls by which the CUDA engine uses a device, made through CuPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from qiskit_fused.common.forks import cached_property, new_lock
from qiskit_fused.engines.cuda.kernel_source import kernel_source

_DEFAULT_SHARED_MEMORY = 48 << 10  # bytes of shared memory, static and dynamic, that a kernel has without a request
_MOST_STAGED = 16 << 20  # largest number of bytes of an upload that goes through a pinned buffer of CuPy's pool
_NULL = np.intp(0)
_TRIAL = 'extern "C" __global__ void trial(int* x) { x[threadIdx.x] = 2 * threadIdx.x + 1; }'


@contextmanager
def current(device: Any, stream: Any) -> Iterator[None]:
    """Make a device, and one of its streams, the current ones of this thread for the duration of the context."""
    with device, stream:
        yield


class _StreamOfLibrary:
    """A stream that another library made, in the form that CuPy takes streams of other libraries.

    Args:
        handle: address of the stream; 0 is the default stream.
    """

    def __init__(self, handle: int):
        self._handle = handle

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._handle  # version of the protocol, address


class CupyRuntime:
    """A CUDA device; `CudaEngine` uses the device only through this class.

    Attributes:
        xp: the array module, CuPy.
        name: name of the device, such as "NVIDIA H200".
        architecture: compute capability without its dot, such as "90".
        shared_memory_per_block: largest number of bytes of shared memory that a block can request.
        shared_memory_per_multiprocessor: bytes of shared memory of a multiprocessor, for all of its blocks.
        num_multiprocessors: number of multiprocessors of the device.
        l2_bytes: bytes of the second-level cache.
        total_memory: bytes of device memory.
        out_of_memory: the exception that a failed allocation raises.
    """

    def __init__(self, cupy: Any, device: int):
        self.xp = cupy
        self._device = device
        properties = cupy.cuda.runtime.getDeviceProperties(device)
        name = properties["name"]
        self.name = name.decode() if isinstance(name, bytes) else str(name)
        self.architecture = str(cupy.cuda.Device(device).compute_capability)
        self.shared_memory_per_block = int(properties["sharedMemPerBlockOptin"])
        self.shared_memory_per_multiprocessor = int(properties["sharedMemPerMultiprocessor"])
        self.num_multiprocessors = int(properties["multiProcessorCount"])
        self.l2_bytes = int(properties["l2CacheSize"])
        self.total_memory = int(properties["totalGlobalMem"])
        self.out_of_memory: type[Exception] = cupy.cuda.memory.OutOfMemoryError
        self._modules: dict[tuple[Any, ...], CupyModule] = {}
        self._kept_stream: Any = None
        self._lock = new_lock()

    def free_memory(self) -> int:
        """Return the bytes that can still be allocated: free on the device, and free in CuPy's pool."""
        with self.context():
            pool = self.xp.get_default_memory_pool()
            free = self.xp.cuda.runtime.memGetInfo()[0] + pool.free_bytes()
            limit = pool.get_limit()  # 0 if the pool has no limit
            return int(min(free, limit - pool.used_bytes()) if limit else free)

    def free_unused_memory(self) -> None:
        """Return the unused memory of CuPy's pool to the device."""
        self.xp.get_default_memory_pool().free_all_blocks()

    def module(self, file: str, *, stages: str = "", **defines: int) -> CupyModule:
        """Return the kernels of a file, compiled with macros; CuPy caches compiled kernels on disk.

        Args:
            file: name of the file in kernels/cuda.
            stages: see `kernel_source`.
            defines: values of macros.
        """
        key = (file, stages, *sorted(defines.items()))
        with self._lock:
            if key not in self._modules:
                self._modules[key] = self._compile(kernel_source(file, stages), **defines)
            return self._modules[key]

    def _compile(self, source: str, **defines: int) -> CupyModule:
        options = ("-std=c++17", *(f"-D{name}={value}" for name, value in sorted(defines.items())))
        return CupyModule(self.xp.RawModule(code=source, options=options))

    def context(self) -> AbstractContextManager[Any]:
        """Return a context in which this device is current; work goes to the thread's current stream of the device."""
        return self.xp.cuda.Device(self._device)

    def num_devices(self) -> int:
        """Return the number of CUDA devices that this process sees."""
        return int(self.xp.cuda.runtime.getDeviceCount())

    def use_device(self, device: int) -> None:
        """Make a device the current one of this thread, from now on."""
        self.xp.cuda.Device(device).use()

    def stream(self, handle: int) -> AbstractContextManager[Any]:
        """Return a context in which this device, and a stream that another library made, are current in this thread.

        Args:
            handle: address of the stream; 0 is the default stream.
        """
        return current(self.context(), self.xp.cuda.Stream.from_external(_StreamOfLibrary(handle)))

    def stream_of_kept_arrays(self) -> AbstractContextManager[Any]:
        """Return a context in which a stream of this runtime is current, for arrays that are kept between calls.

        CuPy's pool gives freed memory only to later work of the stream that allocated it. Nothing but kept arrays is
        allocated in this stream, so no other work can overwrite a dropped array that an earlier kernel still reads.
        """
        with self._lock:
            if self._kept_stream is None:
                with self.context():
                    self._kept_stream = self.xp.cuda.Stream(non_blocking=True)
        return current(self.context(), self._kept_stream)

    def current_stream(self) -> int:
        """Return the handle of the stream that is current in this thread."""
        return int(self.xp.cuda.get_current_stream().ptr)

    def mark(self) -> Any:
        """Return an event that comes after all work launched in the current stream so far."""
        event = self.xp.cuda.Event(disable_timing=True)
        event.record()
        return event

    def wait_for(self, mark: Any) -> None:
        """Let all work launched in the current stream from now on wait for a mark; the host does not wait."""
        self.xp.cuda.get_current_stream().wait_event(mark)

    def from_dlpack(self, array: Any) -> Any:
        """Return a CuPy array that shares memory with an array of another library, after the work that fills it."""
        return self.xp.from_dlpack(array)

    def to_device(self, array: np.ndarray) -> Any:
        """Return a copy of an array on the device.

        CuPy copies arrays through pinned host memory, which its pool keeps. Large arrays are copied from where they
        are, through a buffer of the driver, so that a call keeps no pinned memory of their size.
        """
        if array.nbytes <= _MOST_STAGED:
            return self.xp.array(array)
        copy = self.xp.empty(array.shape, dtype=array.dtype)
        copy.set(np.ascontiguousarray(array))
        return copy

    def to_host(self, array: Any) -> np.ndarray:
        """Return a copy in host memory, after waiting for the work that fills the array."""
        return self.xp.asnumpy(array)

    def synchronize(self) -> None:
        """Wait for the work of the current stream."""
        self.xp.cuda.get_current_stream().synchronize()

    @cached_property
    def product_fault(self) -> str:
        """Why CuPy cannot multiply matrices on the device, and the cure; the empty text if it can."""
        try:
            with self.context():
                ones = self.xp.ones((2, 2), dtype=np.complex64)
                is_right = bool((self.to_host(ones @ ones) == 2).all())
        except Exception as error:  # CuPy loads cuBLAS at its first use; a library that is missing raises any error
            cublas = "nvidia-cublas" if self.xp.cuda.runtime.runtimeGetVersion() >= 13000 else "nvidia-cublas-cu12"
            text = f"{type(error).__name__}: {' '.join(str(error).split())}"
            return f"cuBLAS cannot be used ({text[:120]}); pip install {cublas}"
        return "" if is_right else "a product was wrong"

    def check(self) -> None:
        """Compile, load and run a kernel of one line.

        Raises:
            Exception: of any type, when the kernel cannot be compiled, loaded or run, or returns wrong numbers.
        """
        with self.context():
            numbers = self.xp.empty(32, dtype=np.int32)
            self._compile(_TRIAL).function("trial")(1, 32, (numbers,))
            if not np.array_equal(self.to_host(numbers), 2 * np.arange(32) + 1):
                raise RuntimeError("it returned wrong numbers")


class CupyModule:
    """The kernels of one file, compiled together."""

    def __init__(self, raw: Any):
        self._raw = raw
        self._functions: dict[str, Callable[..., None]] = {}
        self._lock = new_lock()

    def function(self, name: str) -> Callable[..., None]:
        """Return a kernel as ``launch(grid, block, args, shared_memory=0)``, sizes in blocks, threads and bytes."""
        with self._lock:
            if name not in self._functions:
                self._functions[name] = _launcher(self._raw.get_function(name))
            return self._functions[name]


def _launcher(kernel: Any) -> Callable[..., None]:
    lock = new_lock()
    allowed = _DEFAULT_SHARED_MEMORY - kernel.shared_size_bytes

    def launch(grid: int, block: int, args: tuple[Any, ...], shared_memory: int = 0) -> None:
        nonlocal allowed
        if shared_memory > allowed:
            with lock:  # another thread may launch at any time with more shared memory, so the limit must never fall
                if shared_memory > allowed:
                    kernel.max_dynamic_shared_size_bytes = shared_memory
                    allowed = shared_memory
        # A null pointer is passed as an integer, because not every CuPy takes None for a null pointer.
        pointers = tuple([_NULL if argument is None else argument for argument in args])
        kernel((grid,), (block,), pointers, shared_mem=shared_memory)

    return launch
