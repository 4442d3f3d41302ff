# SPDX-License-Identifier: Apache-2.0
"""Compile CUDA kernels through NVRTC as CuPy does, which needs no device, and read the report of ptxas."""

from __future__ import annotations

import re
import time
from typing import NamedTuple

from cuda.bindings import nvrtc

from qiskit_fused.engines.cuda.formats import states_at_once
from qiskit_fused.engines.cuda.kernel_source import kernel_source
from qiskit_fused.engines.cuda.launch import definitions

# cupy/cuda/compiler.py 14.2 adds these options to the package's options. It also compiles for sm_XX, to machine code.
CUPY_OPTIONS = ("-ftz=true", "--device-as-default-execution-space")
OUR_OPTIONS = ("-std=c++17",)
# Not every module uses every constant of its headers (177: declared but never referenced).
REPORT_OPTIONS = ("--ptxas-options=-v", "-diag-suppress=177")
WARN_ON_DOUBLE = "--ptxas-options=--warn-on-double-precision-use"


class Multiprocessor(NamedTuple):
    """The bytes of shared memory of a multiprocessor, and of one of its blocks; its threads; its registers."""

    shared: int
    shared_of_block: int
    threads: int
    registers: int = 65536


# CUDA C++ Programming Guide, table of technical specifications by compute capability.
MULTIPROCESSORS = {
    "sm_75": Multiprocessor(64 << 10, 64 << 10, 1024), "sm_80": Multiprocessor(164 << 10, 163 << 10, 2048),
    "sm_86": Multiprocessor(100 << 10, 99 << 10, 1536), "sm_89": Multiprocessor(100 << 10, 99 << 10, 1536),
    "sm_90": Multiprocessor(228 << 10, 227 << 10, 2048), "sm_100": Multiprocessor(228 << 10, 227 << 10, 2048),
    "sm_120": Multiprocessor(100 << 10, 99 << 10, 1536),
}  # fmt: skip


class Kernel(NamedTuple):
    """The resources of a kernel: registers per thread; bytes of stack, spill stores and loads, static shared memory."""

    registers: int
    stack: int
    spills: int
    shared: int


class Compiled(NamedTuple):
    """A compiled module: machine code, kernels by name, warnings in the log, and the compile time in seconds."""

    cubin: bytes
    kernels: dict[str, Kernel]
    warnings: list[str]
    seconds: float


def compiler_version() -> str:
    return "NVRTC {}.{}".format(*checked(nvrtc.nvrtcVersion()))


def compile_kernels(file: str, dtype: str, tile_qubits: int | None, architecture: str, *options: str) -> Compiled:
    """Compile a file of kernels as the CUDA engine compiles it for a dtype and a tile size."""
    num_states = states_at_once(dtype, MULTIPROCESSORS[architecture].shared)
    return compile_module(kernel_source(file), definitions(dtype, tile_qubits, num_states), architecture, *options)


def compile_module(source: str, defines: dict[str, int], architecture: str, *options: str) -> Compiled:
    """Compile the text of a module for an architecture such as "sm_90". Several threads may compile at once."""
    started = time.perf_counter()
    ours = [*OUR_OPTIONS, *(f"-D{name}={value}" for name, value in defines.items())]
    flags = [f"-arch={architecture}", *ours, *CUPY_OPTIONS, *REPORT_OPTIONS, *options]
    program = checked(nvrtc.nvrtcCreateProgram(source.encode(), b"kernels.cu", 0, [], []))[0]
    try:
        text = compile_log(program, flags)
        cubin = bytes(checked(nvrtc.nvrtcGetCUBINSize(program))[0])
        checked(nvrtc.nvrtcGetCUBIN(program, cubin))
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    warnings = [line for line in text.splitlines() if "warning" in line.lower()]
    return Compiled(cubin, read_log(text), warnings, time.perf_counter() - started)


def compile_log(program, flags: list[str]) -> str:
    """Compile a program of NVRTC and return its log; raise a RuntimeError with the log if the compiler fails."""
    status = nvrtc.nvrtcCompileProgram(program, len(flags), [flag.encode() for flag in flags])
    log = bytes(checked(nvrtc.nvrtcGetProgramLogSize(program))[0])
    checked(nvrtc.nvrtcGetProgramLog(program, log))
    text = log.rstrip(b"\0").decode()
    if status[0] != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise RuntimeError(f"{' '.join(flags)}\n{text}")
    return text


def read_log(log: str) -> dict[str, Kernel]:
    """Read `ptxas -v`. A function that was not inlined is listed with its kernel, and its stack and spills count."""
    kernels = {}
    for section in log.split("Compiling entry function ")[1:]:
        name = section[1 : section.index("'", 1)]
        frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", section)
        used = re.search(r"Used (\d+) registers([^\n]*)", section)
        shared = re.search(r"(\d+) bytes smem", used[2])
        kernels[name] = Kernel(
            registers=int(used[1]),
            stack=sum(int(stack) for stack, _, _ in frames),
            spills=sum(int(stores) + int(loads) for _, stores, loads in frames),
            shared=int(shared[1]) if shared else 0,
        )
    return kernels


def checked(result):
    """Return the values of a call of NVRTC, which follow the status; raise an error for a bad status."""
    status, *values = result
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise RuntimeError(nvrtc.nvrtcGetErrorString(status)[1].decode())
    return values
