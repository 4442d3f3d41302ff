# SPDX-License-Identifier: Apache-2.0
"""Availability of CUDA through CuPy: the runtime of the current device, or the reason why there is none, and a cure.

The first call of `usable_gpu` imports CuPy. CUDA does not survive a fork, so in the child of a process that has used
CUDA no GPU is available.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any

from qiskit_fused.common.forks import in_child, new_lock
from qiskit_fused.engines.cuda.runtime import CupyRuntime, current

SWITCH = "QISKIT_FUSED_DISABLE_CUDA"  # environment variable: with any value but "" and "0" this package uses no GPU

# The packages that a GPU needs besides its driver, by CUDA version: the extras [cuda12] and [cuda13] of pyproject.toml.
REQUIREMENTS = {
    12: ("cupy-cuda12x>=14", "nvidia-cuda-nvrtc-cu12>=12.8,<13", "nvidia-cuda-runtime-cu12>=12.8,<13"),
    13: ("cupy-cuda13x>=14", "nvidia-cuda-nvrtc>=13,<14", "nvidia-cuda-runtime>=13,<14"),
}

_OLDEST_CUPY = 14  # the first that has `Stream.from_external`; earlier ones pass None to kernels as 0x00000000ffffffff

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
    """Return whether the environment variable `SWITCH` forbids the use of a GPU."""
    return os.environ.get(SWITCH, "0").strip() not in ("", "0")


def is_cupy_installed() -> bool:
    """Return whether CuPy can be found by an import, without importing it."""
    return sys.modules.get("cupy") is not None or find_spec("cupy") is not None


def place() -> AbstractContextManager[Any]:
    """Return a context for another thread, in which this thread's current CUDA device and stream are current too.

    Without an imported CuPy, every thread has the default device and stream, and the context does nothing.
    """
    cupy = sys.modules.get("cupy")
    if cupy is None or _forked or is_switched_off():
        return nullcontext()
    try:
        return current(cupy.cuda.Device(), cupy.cuda.get_current_stream())
    except Exception:  # there is no driver or no device; `usable_gpu` returns the reason
        return nullcontext()


def install_command(major: int | None = None, upgrade: bool = False) -> str:
    """Return the pip command that installs all packages that a GPU needs besides its driver.

    Args:
        major: CUDA version, 12 or 13; None takes the newest version that the driver supports.
        upgrade: whether the command replaces installed packages.
    """
    if major is None:
        major = 12 if 0 < driver_version() < 13000 else 13
    return " ".join(
        ["pip install", *(["--upgrade"] if upgrade else []), *(f'"{name}"' for name in REQUIREMENTS[major])]
    )


def driver_version() -> int:
    """Return the newest CUDA version that the NVIDIA driver supports, 13000 for 13.0; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    version = ctypes.c_int(0)
    return version.value if driver.cuDriverGetVersion(ctypes.byref(version)) == 0 else 0


@lru_cache(maxsize=1)
def _find_cupy() -> tuple[Any, str]:
    """Return CuPy if it finds a driver, a device and a compiler; otherwise None and the reason."""
    driver = driver_version()
    try:
        # CuPy is optional, and only a process that asks for a GPU needs it.
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
    except Exception as error:  # a broken installation may raise any exception
        return None, f"CuPy cannot be imported ({brief(error)}); {install_command(upgrade=True)}"
    api = cupy.cuda.runtime
    if api.is_hip:
        return None, f"this CuPy is built for ROCm, not for CUDA; pip uninstall cupy, then {install_command()}"
    if not driver:
        return None, "no NVIDIA driver was found (libcuda.so.1); install one, or give the container access to the GPU"
    built = api.runtimeGetVersion() // 1000
    if int(cupy.__version__.partition(".")[0]) < _OLDEST_CUPY:
        return None, (
            f"CuPy {cupy.__version__} is too old, this package needs CuPy {_OLDEST_CUPY} or newer; "
            f"{install_command(built, upgrade=True)}"
        )
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
    if major > driver // 1000:  # CuPy for CUDA 12 takes the NVRTC of CUDA 13 if both are installed
        return None, (
            f"NVRTC {major}.{minor} is too new for the NVIDIA driver, which knows CUDA {version_text(driver)}; "
            f"update the driver, or pip uninstall nvidia-cuda-nvrtc, then {install_command(built)}"
        )
    return cupy, ""


@cache
def _find_runtime(device: int) -> tuple[CupyRuntime | None, str]:
    """Return the runtime of a device after a trial kernel ran on it; otherwise None and the reason."""
    cupy, _ = _find_cupy()
    try:
        runtime = CupyRuntime(cupy, device)
        nvrtc = "{}.{}".format(*cupy.cuda.nvrtc.getVersion())
        # CuPy compiles to the machine code of one architecture, which newer generations of GPUs cannot run.
        supported: tuple[int, ...] = getattr(cupy.cuda.nvrtc, "getSupportedArchs", tuple)()
        if supported and int(runtime.architecture) not in supported and not os.environ.get("CUPY_COMPILE_WITH_PTX"):
            built = cupy.cuda.runtime.runtimeGetVersion() // 1000
            cure = install_command(built, upgrade=True)
            if int(runtime.architecture) < min(supported):
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
    """Return a CUDA version as text: ``version_text(12080) == '12.8'``."""
    return f"{version // 1000}.{version % 1000 // 10}"


def brief(error: BaseException) -> str:
    """Return an error as one line of at most 300 characters."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return text if len(text) <= 300 else f"{text[:297]}..."


def describe() -> dict[str, str]:
    """Return the versions of CuPy and its libraries, and the current device; empty if CuPy is not imported."""
    runtime, _ = usable_gpu()
    cupy = sys.modules.get("cupy")
    if cupy is None or not hasattr(cupy, "cuda"):
        return {}
    versions = {
        "CuPy": cupy.__version__,
        "CUDA runtime": _answer(lambda: version_text(cupy.cuda.runtime.runtimeGetVersion())),
        "NVRTC": _answer(lambda: "{}.{}".format(*cupy.cuda.nvrtc.getVersion())),
    }
    if runtime is not None:
        versions |= {"device": runtime.name, "architecture": f"sm_{runtime.architecture}"}
    return versions


def _answer(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except Exception as error:
        return brief(error)


@in_child
def _forget_cuda() -> None:
    global _forked
    _forked = _forked or (_find_cupy.cache_info().currsize > 0 and _find_cupy()[0] is not None)
