# SPDX-License-Identifier: Apache-2.0
"""An emulated device that runs the PTX that NVRTC makes of a kernel file, in the place of the file itself."""

from __future__ import annotations

import re
from functools import cache

from cuda.bindings import nvrtc
from cuda_compiler import CUPY_OPTIONS, OUR_OPTIONS, checked, compile_log
from cuda_emulation import EmulatedModule, EmulatedRuntime, kernels_of
from cuda_emulation.emulation import constant_parameters

from .module import PtxModule


@cache
def compile_ptx(source: str, defines: tuple[tuple[str, int], ...], architecture: str) -> str:
    """Return the PTX of the text of a module for an architecture such as "compute_90"."""
    flags = [f"-arch={architecture}", *OUR_OPTIONS, *(f"-D{name}={value}" for name, value in defines), *CUPY_OPTIONS]
    program = checked(nvrtc.nvrtcCreateProgram(source.encode(), b"kernels.cu", 0, [], []))[0]
    try:
        compile_log(program, flags)
        ptx = bytes(checked(nvrtc.nvrtcGetPTXSize(program))[0])
        checked(nvrtc.nvrtcGetPTX(program, ptx))
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return ptx.rstrip(b"\0").decode()


def signatures(source: str) -> dict[str, str]:
    """Return for each kernel of a text a letter for each parameter: "p" pointer, "c" pointer to const, "v" value."""
    letters = {}
    for name, (_, parameters) in kernels_of(source, whole=True).items():
        letters[name] = "".join(
            "v" if "*" not in part else "c" if re.match(r"\s*const\b", part) else "p" for part in parameters
        )
    return letters


class PtxRuntime(EmulatedRuntime):
    """The emulated device with compiled kernels.

    Args:
        architecture: the virtual architecture that NVRTC compiles for; NVRTC has another code generator from 100 on.
        options: options of `EmulatedRuntime`.
    """

    name = "compiled"

    def __init__(self, architecture: str = "compute_90", **options):
        super().__init__(**options)
        self.architecture = architecture

    def module(self, file: str, *, stages: str = "", **defines: int) -> EmulatedModule:
        key = (file, stages, tuple(sorted(defines.items())))
        if key not in self._modules:
            source = self.text_of(file, stages)
            translated = PtxModule(compile_ptx(source, key[2], self.architecture), signatures(source))
            constant = constant_parameters(source)
            self._modules[key] = EmulatedModule(self, file, translated.text, {}, _names(source), constant)
        return self._modules[key]


def _names(source: str) -> dict[str, list[str]]:
    return {name: parameters for name, (_, parameters) in kernels_of(source).items()}
