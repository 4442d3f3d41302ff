# SPDX-License-Identifier: Apache-2.0
"""CUDA through CuPy: whether this process can use a GPU, and if not, why; and the runtime that `CudaEngine` works with.

CuPy is imported by the first question for a GPU. Nothing of CUDA survives a fork, so a child of a process that has
used CUDA is told that there is no GPU.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from qiskit_fused.common.forks import in_child, new_lock
from qiskit_fused.engines.cuda.kernel_source import kernel_source

SWITCH = "QISKIT_FUSED_DISABLE_CUDA"  # environment variable: anything but "" and "0" keeps this package off the GPU

# What makes a GPU usable where only its driver is installed: the extras [cuda12] and [cuda13] of pyproject.toml.
REQUIREMENTS = {
    12: ("cupy-cuda12x>=14", "nvidia-cuda-nvrtc-cu12>=12.8,<13", "nvidia-cuda-runtime-cu12>=12.8,<13"),
    13: ("cupy-cuda13x>=14", "nvidia-cuda-nvrtc>=13,<14", "nvidia-cuda-runtime>=13,<14"),
}

_DEFAULT_SHARED_MEMORY = 48 << 10  # bytes, static and dynamic, that any kernel may have without asking
_TRIAL = 'extern "C" __global__ void trial(int* x) { x[threadIdx.x] = 2 * threadIdx.x + 1; }'

_lock = new_lock()
_forked = False


def usable_gpu() -> tuple[CupyRuntime | None, str]:
    """Return the runtime of the current CUDA device, or None with the reason and its cure; asked once per device."""
    if is_switched_off():
        return None, f"the environment variable {SWITCH} is set; unset it"
    if _forked:
        return None, (
            "this process was forked from one that had used CUDA, which does not survive a fork; "
            "multiprocessing.set_start_method('spawn') starts fresh ones"
        )
    with _lock:
        cupy, reason = _find_cupy()
        return (None, reason) if cupy is None else _find_runtime(cupy.cuda.runtime.getDevice())


def is_switched_off() -> bool:
    """Say whether the environment keeps this package off the GPU."""
    return os.environ.get(SWITCH, "0").strip() not in ("", "0")


def is_cupy_installed() -> bool:
    """Say whether there is a CuPy to import, without importing it."""
    return sys.modules.get("cupy") is not None or find_spec("cupy") is not None


def place() -> AbstractContextManager[Any]:
    """Return a context in which another thread works on the CUDA device and stream that are current in this one.

    Before anything has imported CuPy these are the defaults, the same in every thread.
    """
    cupy = sys.modules.get("cupy")
    if cupy is None or _forked or is_switched_off():
        return nullcontext()
    try:
        return _current(cupy.cuda.Device(), cupy.cuda.get_current_stream())
    except Exception:  # no driver or no device: `usable_gpu` has the words for it
        return nullcontext()


@contextmanager
def _current(device: Any, stream: Any) -> Iterator[None]:
    with device, stream:
        yield


class CupyRuntime:
    """A CUDA device for `CudaEngine`, which has no other way to it.

    Attributes:
        xp: the module of arrays, CuPy.
        name: of the device, such as "NVIDIA H200".
        architecture: compute capability without its dot, such as "90".
        shared_memory_per_block: bytes a block can have when it asks for them.
        num_multiprocessors: of the device.
        l2_bytes: size of its second-level cache.
        total_memory: bytes of device memory.
        out_of_memory: the exception of an allocation that fails.
    """

    def __init__(self, cupy: Any, device: int):
        self.xp = cupy
        self._device = device
        properties = cupy.cuda.runtime.getDeviceProperties(device)
        name = properties["name"]
        self.name = name.decode() if isinstance(name, bytes) else str(name)
        self.architecture = str(cupy.cuda.Device(device).compute_capability)
        self.shared_memory_per_block = int(properties["sharedMemPerBlockOptin"])
        self.num_multiprocessors = int(properties["multiProcessorCount"])
        self.l2_bytes = int(properties["l2CacheSize"])
        self.total_memory = int(properties["totalGlobalMem"])
        self.out_of_memory: type[Exception] = cupy.cuda.memory.OutOfMemoryError
        self._modules: dict[tuple[Any, ...], CupyModule] = {}
        self._lock = new_lock()

    def free_memory(self) -> int:
        """Return the bytes that can still be allocated: free on the device, and free in CuPy's pool."""
        with self.context():
            pool = self.xp.get_default_memory_pool()
            free = self.xp.cuda.runtime.memGetInfo()[0] + pool.free_bytes()
            limit = pool.get_limit()  # 0: none
            return int(min(free, limit - pool.used_bytes()) if limit else free)

    def free_unused_memory(self) -> None:
        """Give the device what CuPy's pool holds and nobody uses."""
        self.xp.get_default_memory_pool().free_all_blocks()

    def module(self, file: str, **defines: int) -> CupyModule:
        """Return the kernels of a file, compiled with macros; CuPy keeps what it has compiled on disk."""
        key = (file, *sorted(defines.items()))
        with self._lock:
            if key not in self._modules:
                self._modules[key] = self._compile(kernel_source(file), **defines)
            return self._modules[key]

    def _compile(self, source: str, **defines: int) -> CupyModule:
        options = ("-std=c++17", *(f"-D{name}={value}" for name, value in sorted(defines.items())))
        return CupyModule(self.xp.RawModule(code=source, options=options))

    def context(self) -> AbstractContextManager[Any]:
        """Return a context with this device current; work goes to the thread's current stream of the device."""
        return self.xp.cuda.Device(self._device)

    def stream(self, handle: int) -> AbstractContextManager[Any]:
        """Return a context in which a CUDA stream that another library made is current in this thread, on this device.

        Args:
            handle: its address; 0 is the default stream.
        """
        return _current(self.context(), self.xp.cuda.ExternalStream(handle))

    def current_stream(self) -> int:
        """Return the handle of the stream that is current in this thread."""
        return int(self.xp.cuda.get_current_stream().ptr)

    def mark(self) -> Any:
        """Return a mark behind the work that was launched in the current stream."""
        event = self.xp.cuda.Event(disable_timing=True)
        event.record()
        return event

    def wait_for(self, mark: Any) -> None:
        """Let the work of the current stream that is launched from now on wait for a mark; the host does not."""
        self.xp.cuda.get_current_stream().wait_event(mark)

    def from_dlpack(self, array: Any) -> Any:
        """Return an array of another library as one of this device: the same memory, after the work that makes it."""
        return self.xp.from_dlpack(array)

    def to_host(self, array: Any) -> np.ndarray:
        """Return a copy in host memory, after the work that makes it."""
        return self.xp.asnumpy(array)

    def synchronize(self) -> None:
        """Wait for the work of the current stream."""
        self.xp.cuda.get_current_stream().synchronize()

    def check(self) -> None:
        """Compile, load and run a kernel of one line.

        Raises:
            Exception: of any type, when that fails; CuPy's own are RuntimeErrors.
        """
        with self.context():
            numbers = self.xp.empty(32, dtype=np.int32)
            self._compile(_TRIAL).function("trial")(1, 32, (numbers,))
            if not np.array_equal(self.to_host(numbers), 2 * np.arange(32) + 1):
                raise RuntimeError("it returned wrong numbers")


class CupyModule:
    """Kernels that were compiled together."""

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
            with lock:  # the limit must never fall, not even for a moment: another thread may be about to launch
                if shared_memory > allowed:
                    kernel.max_dynamic_shared_size_bytes = shared_memory
                    allowed = shared_memory
        kernel((grid,), (block,), args, shared_mem=shared_memory)

    return launch


def install_command(major: int | None = None, upgrade: bool = False) -> str:
    """Return the pip command that installs all but the driver.

    Args:
        major: CUDA version, 12 or 13; None takes the newest that the driver knows.
        upgrade: whether what is installed is too old.
    """
    if major is None:
        major = 12 if 0 < driver_version() < 13000 else 13
    return " ".join(
        ["pip install", *(["--upgrade"] if upgrade else []), *(f'"{name}"' for name in REQUIREMENTS[major])]
    )


def driver_version() -> int:
    """Return the newest CUDA version that the NVIDIA driver knows, 13000 for 13.0; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    version = ctypes.c_int(0)
    return version.value if driver.cuDriverGetVersion(ctypes.byref(version)) == 0 else 0


@lru_cache(maxsize=1)
def _find_cupy() -> tuple[Any, str]:
    """Return CuPy where it finds a driver, a device and a compiler; else None and the reason."""
    driver = driver_version()
    try:
        import cupy
    except ModuleNotFoundError as error:
        if error.name == "cupy":
            if driver:
                return None, f"CuPy is not installed; {install_command()}"
            return None, (
                "no NVIDIA driver was found (libcuda.so.1), and CuPy is not installed; for a GPU, install the driver, "
                f"then {install_command()}"
            )
        return None, f"CuPy cannot be imported ({brief(error)}); {install_command()}"
    except Exception as error:  # a broken installation raises what it likes
        return None, f"CuPy cannot be imported ({brief(error)}); {install_command(upgrade=True)}"
    api = cupy.cuda.runtime
    if api.is_hip:
        return None, f"this CuPy is built for ROCm, not for CUDA; pip uninstall cupy, then {install_command()}"
    if not driver:
        return None, "no NVIDIA driver was found (libcuda.so.1); install one, or give the container access to the GPU"
    built = api.runtimeGetVersion() // 1000
    if driver // 1000 < built:
        return None, (
            f"the NVIDIA driver knows CUDA {version_text(driver)}, and CuPy is built for CUDA {built}; update the "
            f"driver, or pip uninstall cupy-cuda{built}x, then {install_command()}"
        )
    try:
        count = api.getDeviceCount()
    except Exception as error:
        return None, f"CUDA finds no GPU ({brief(error)}); {_visible_devices()}"
    if not count:
        return None, f"CUDA finds no GPU; {_visible_devices()}"
    try:
        major, minor = cupy.cuda.nvrtc.getVersion()
    except Exception as error:
        return None, f"NVRTC, which compiles the kernels, is missing ({brief(error)}); {install_command(built)}"
    if major > driver // 1000:  # CuPy for CUDA 12 takes the NVRTC of CUDA 13 where it finds both
        return None, (
            f"NVRTC {major}.{minor} is too new for the NVIDIA driver, which knows CUDA {version_text(driver)}; "
            f"update the driver, or pip uninstall nvidia-cuda-nvrtc, then {install_command(built)}"
        )
    return cupy, ""


@cache
def _find_runtime(device: int) -> tuple[CupyRuntime | None, str]:
    """Return the runtime of a device that has run a kernel; else None and the reason."""
    cupy, _ = _find_cupy()
    try:
        runtime = CupyRuntime(cupy, device)
        nvrtc = "{}.{}".format(*cupy.cuda.nvrtc.getVersion())
        # CuPy compiles to the machine code of an architecture, which runs on no newer generation.
        known: tuple[int, ...] = getattr(cupy.cuda.nvrtc, "getSupportedArchs", tuple)()
        if known and int(runtime.architecture) not in known and not os.environ.get("CUPY_COMPILE_WITH_PTX"):
            built = cupy.cuda.runtime.runtimeGetVersion() // 1000
            cure = install_command(built, upgrade=True)
            if int(runtime.architecture) < min(known):
                cure = f"pip uninstall cupy-cuda{built}x, then {install_command(12)}"
            return None, f"NVRTC {nvrtc} cannot compile for {runtime.name} (sm_{runtime.architecture}); {cure}"
    except Exception as error:
        return None, f"CUDA device {device} cannot be used ({brief(error)}); python -m qiskit_fused shows the versions"
    try:
        runtime.check()
    except Exception as error:
        return None, (
            f"a trial kernel failed on {runtime.name} (sm_{runtime.architecture}, NVRTC {nvrtc}): {brief(error)}; "
            "python -m qiskit_fused shows the versions"
        )
    return runtime, ""


def _visible_devices() -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "nvidia-smi shows what the driver sees" if visible is None else f"CUDA_VISIBLE_DEVICES is {visible!r}"


def version_text(version: int) -> str:
    """Write a CUDA version: ``version_text(12080) == '12.8'``."""
    return f"{version // 1000}.{version % 1000 // 10}"


def brief(error: BaseException) -> str:
    """Write an error in one line of moderate length."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return text if len(text) <= 300 else f"{text[:297]}..."


def describe() -> dict[str, str]:
    """Return versions of CuPy and its libraries, and the current device, as far as they can be asked."""
    runtime, _ = usable_gpu()
    cupy = sys.modules.get("cupy")
    if cupy is None or not hasattr(cupy, "cuda"):
        return {}
    found = {
        "CuPy": cupy.__version__,
        "CUDA runtime": _answer(lambda: version_text(cupy.cuda.runtime.runtimeGetVersion())),
        "NVRTC": _answer(lambda: "{}.{}".format(*cupy.cuda.nvrtc.getVersion())),
    }
    if runtime is not None:
        found |= {"device": runtime.name, "architecture": f"sm_{runtime.architecture}"}
    return found


def _answer(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except Exception as error:
        return brief(error)


@in_child
def _forget_cuda() -> None:
    global _forked
    _forked = _forked or (_find_cupy.cache_info().currsize > 0 and _find_cupy()[0] is not None)
