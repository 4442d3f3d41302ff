# SPDX-License-Identifier: Apache-2.0
"""Puts fake devices below CuPy. This must happen before anything imports CuPy."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from cuda_emulation.building import cache_folder

from .device import Devices, Driver

HERE = Path(__file__).parent
_state: dict[str, Any] = {}  # these objects must live as long as the process


def installed() -> Devices:
    """Return the devices of `install`."""
    devices: Devices = _state["devices"]
    return devices


def install(count: int = 2) -> Devices:
    """Put fake devices below CuPy, and return them.

    Args:
        count: number of devices.
    """
    if _state:
        return installed()
    os.environ["CUPY_COMPILE_WITH_PTX"] = "1"
    os.environ["CUPY_ACCELERATORS"] = ""  # CUB and cuTENSOR need a real GPU
    os.environ.setdefault("CUPY_CACHE_DIR", str(cache_folder() / "cupy"))
    driver = _replace_driver()
    import cupy_backends.cuda.api.runtime as api

    devices = Devices(count, api.CUDARuntimeError, api.PointerAttributes)
    calls = Driver(devices)
    _state.update(devices=devices, callbacks=calls.callbacks())
    driver.fake_set_callbacks(*_state["callbacks"])
    _replace_runtime(api, devices)
    return devices


def _replace_driver() -> ctypes.CDLL:
    """Let ctypes open the fake driver in the place of libcuda. NVRTC, which opens libcuda itself, finds none."""
    path = _build("fake_cuda.c")
    original = ctypes.CDLL

    class Library(original):  # type: ignore[misc, valid-type]
        def __init__(self, name: Any, *arguments: Any, **keywords: Any):
            super().__init__(path if name == "libcuda.so.1" else name, *arguments, **keywords)

    ctypes.CDLL = Library  # type: ignore[misc]
    return Library("libcuda.so.1")


def _replace_runtime(api: Any, devices: Devices) -> None:
    """Replace what CuPy's compiled modules import from the module of the CUDA runtime, and what Python calls there."""
    library = ctypes.PyDLL(_build("fake_runtime.c", f"-I{sysconfig.get_paths()['include']}"))
    library.fake_set_target.argtypes = (ctypes.py_object,)
    library.fake_set_target(devices)
    python = ctypes.pythonapi
    python.PyCapsule_GetName.restype, python.PyCapsule_GetName.argtypes = ctypes.c_char_p, (ctypes.py_object,)
    python.PyCapsule_New.restype = ctypes.py_object
    python.PyCapsule_New.argtypes = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p
    functions = api.__pyx_capi__
    signatures = _state["signatures"] = {name: python.PyCapsule_GetName(capsule) for name, capsule in functions.items()}
    for name, signature in signatures.items():
        function = getattr(library, f"fake_{name}", None)
        if function is not None:
            address = ctypes.cast(function, ctypes.c_void_p).value
            functions[name] = python.PyCapsule_New(address, signature, None)
        if hasattr(devices, name):
            setattr(api, name, getattr(devices, name))
    _state["library"] = library


def _build(source: str, *flags: str) -> str:
    """Compile a C file to a shared library, and return its path."""
    text = (HERE / source).read_bytes()
    target = (
        cache_folder()
        / f"{Path(source).stem}-{sysconfig.get_python_version()}-{hashlib.sha256(text).hexdigest()[:16]}.so"
    )
    if not target.exists():
        made = target.with_suffix(f".{os.getpid()}")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", *flags, str(HERE / source), "-o", str(made)], check=True)
        os.replace(made, target)
    return str(target)
