# SPDX-License-Identifier: Apache-2.0
"""Compile the text of a kernel module with g++ to a shared library, once per text, definitions and compiler.

The libraries are stored in $QISKIT_FUSED_EMULATION_CACHE, or in a folder of this user in the temporary folder.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
RUNTIME_FILES = ("runtime.cpp", "checks.cpp")
HEADERS = ("cuda_on_host.hpp", "runtime.hpp")

# Line tables give the line of an error. A thread's registers are arrays on its stack, so loops need not be unrolled.
FLAGS = ["-std=c++17", "-march=native", "-g1", "-gdwarf-4", "-w", "-fPIC", "-fvisibility=hidden", "-fno-exceptions"]
KERNEL_FLAGS = ["-fno-strict-aliasing", "-ffp-contract=fast"]
# The compiler must not merge, split or move a memory access of the source.
CHECK_FLAGS = [
    "-O1",
    # An access through a null or misaligned pointer is found when it happens. Checking every address would halve speed.
    "-fsanitize=thread,shift,bounds,signed-integer-overflow,integer-divide-by-zero,return,unreachable",
    "-fno-tree-sra",
    "-fno-tree-vectorize",
    "-fno-tree-slp-vectorize",
    "-fno-store-merging",
    "-fno-tree-loop-distribute-patterns",
    "-fno-tree-loop-im",
    "-fno-tree-pre",
]

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_LAUNCH_BOUNDS = re.compile(r"__launch_bounds__\s*\(((?:[^()]|\([^()]*\))*)\)")
_KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+([^;{(]*?)(\w+)\s*\(([^{;]*?)\)\s*\{', re.DOTALL)
_DYNAMIC_SHARED = re.compile(
    r"extern\s+__shared__\s+(?:(?:__align__|alignas)\s*\([^)]*\)\s*)?([\w:][\w: ]*?)\s+(\w+)\s*\[\s*\]"
)
_FILE = re.compile(r'^#line 1 "([^"\n]+)"\n', re.MULTILINE)


class CompilationError(RuntimeError):
    """The error for a kernel that g++ cannot compile. It is not an `EmulationError`."""


def missing_tools() -> str | None:
    """Return the reason why the emulation cannot run on this machine; None if it can run."""
    if os.uname().sysname != "Linux":
        return "the emulation of CUDA runs on Linux only"
    if _compiler() is None:
        return "the emulation of CUDA needs g++ or c++ in PATH"
    if "__clang__" in _predefined_macros():
        return "the emulation of CUDA needs GCC"
    return None


def kernels_of(text: str, *, whole: bool = False) -> dict[str, tuple[str, list[str]]]:
    """Return the kernels of a text: for each name its launch bound (an expression) and the names of its parameters.

    With ``whole``, the parameters come with their types.
    """
    kernels = {}
    code = _COMMENT.sub(" ", text)
    # The launch bounds are taken out first, because their parentheses would be read as the list of parameters.
    bounds: list[str] = []

    def take_bounds(match: re.Match) -> str:
        bounds.append(match[1].split(",")[0].strip())
        return f" bounds{len(bounds) - 1} "

    code = _LAUNCH_BOUNDS.sub(take_bounds, code)
    for qualifiers, name, parameters in _KERNEL.findall(code):
        bound = re.search(r"\bbounds(\d+)\b", qualifiers)
        names = [part.strip() for part in parameters.split(",") if part.strip() not in {"", "void"}]
        if not whole:
            names = [re.findall(r"\w+", part)[-1] for part in names]
        kernels[name] = (bounds[int(bound[1])] if bound else "1024", names)
    return kernels


def host_text(text: str, file: str) -> str:
    """Return the text for g++: with line numbers by file, pointers to dynamic shared memory, and a list of kernels."""
    text = f'#line 1 "{file}"\n{text}'
    text = _DYNAMIC_SHARED.sub(r"\1* const \2 = reinterpret_cast<\1*>(::cuda_on_host::dynamic_shared)", text)
    registry = (f"CUDA_ON_HOST_KERNEL({name}, ({bound}))" for name, (bound, _) in kernels_of(text).items())
    return "\n".join([text, *registry, ""])


def lines_by_file(text: str, file: str) -> dict[str, list[str]]:
    """Return the lines of each source file of a text, as its ``#line`` directives separate them."""
    _, *parts = _FILE.split(f'#line 1 "{file}"\n{text}')
    return {name: lines.split("\n") for name, lines in zip(parts[::2], parts[1::2])}


def build(text: str, file: str, defines: dict[str, int], check: bool) -> Path:
    """Return the path of the library of a module. The module is compiled if there is no such library yet.

    Raises:
        CompilationError: if g++ fails, with its messages.
    """
    source = host_text(text, file)
    flags = [f"-D{name}={int(value)}" for name, value in sorted(defines.items())]
    flags += KERNEL_FLAGS + (CHECK_FLAGS if check else ["-O2"])
    stem = Path(file).stem + ("-checked" if check else "")
    library = cache_folder() / f"{stem}-{_key(source, *flags)}.so"
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="build-") as folder:
        source_file = Path(folder) / "kernel.cpp"
        source_file.write_text(source)
        kernel = Path(folder) / "kernel.o"
        _compile([*flags, "-include", str(HERE / "cuda_on_host.hpp"), "-c", str(source_file), "-o", str(kernel)])
        linked = Path(folder) / "kernel.so"
        _compile(["-shared", str(kernel), *map(str, _runtime_objects(check)), "-o", str(linked)])
        os.replace(linked, library)
    return library


def cache_folder() -> Path:
    """Return the folder of compiled modules. A missing folder is made."""
    chosen = os.environ.get("QISKIT_FUSED_EMULATION_CACHE")
    folder = Path(chosen or Path(tempfile.gettempdir()) / f"qiskit-fused-emulation-{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Libraries are loaded from this folder, so no other user may write to it.
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(
            f"{folder} belongs to another user; set QISKIT_FUSED_EMULATION_CACHE to a folder of yours"
        )
    return folder


def source_lines(library: Path, offsets: list[int]) -> list[str]:
    """Return "file:line" of instructions, given by their offsets in a library; "?:0" for an unknown line."""
    if not offsets or shutil.which("addr2line") is None:
        return ["?:0"] * len(offsets)
    command = ["addr2line", "-s", "-e", str(library), *map(hex, offsets)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.split(" ")[0] for line in lines]


def _runtime_objects(check: bool) -> list[Path]:
    flags = ["-O2", f"-DCUDA_ON_HOST_CHECK={int(check)}"]
    objects = []
    for name in RUNTIME_FILES:
        target = cache_folder() / f"{Path(name).stem}-{_key((HERE / name).read_text(), *flags)}.o"
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="build-") as folder:
                compiled = Path(folder) / target.name
                _compile([*flags, "-c", str(HERE / name), "-o", str(compiled)])
                os.replace(compiled, target)
        objects.append(target)
    return objects


def _compile(arguments: list[str]) -> None:
    compiler = _compiler()
    if compiler is None:
        raise CompilationError(missing_tools())
    result = subprocess.run([compiler, *FLAGS, *arguments], capture_output=True, text=True)
    if result.returncode:
        raise CompilationError(result.stderr)


def _key(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in (*parts, *FLAGS, _predefined_macros(), *((HERE / n).read_text() for n in HEADERS + RUNTIME_FILES)):
        digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:20]


@cache
def _compiler() -> str | None:
    return shutil.which("g++") or shutil.which("c++")


@cache
def _predefined_macros() -> str:
    """Return the macros that the compiler predefines: its version and the instruction sets of this processor."""
    command = [_compiler(), "-march=native", "-dM", "-E", "-x", "c++", os.devnull]
    return subprocess.run(command, capture_output=True, text=True).stdout
