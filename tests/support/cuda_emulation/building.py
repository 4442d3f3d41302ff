# SPDX-License-Identifier: Apache-2.0
"""Compiles the text of a kernel module with g++ into a shared library, once per text, definitions and compiler.

Libraries are kept in $QISKIT_FUSED_EMULATION_CACHE, or else in a folder of this user among the temporary files.
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

# Line tables tell where an error is. A thread's registers are arrays of its stack, so that loops need not be unrolled.
FLAGS = ["-std=c++17", "-march=native", "-g1", "-gdwarf-4", "-w", "-fPIC", "-fvisibility=hidden", "-fno-exceptions"]
KERNEL_FLAGS = ["-fno-strict-aliasing", "-ffp-contract=fast"]
# One access of the source must stay one access, of its size and under its condition.
CHECK_FLAGS = [
    "-O1",
    # Null pointers and misaligned ones show when memory is accessed; checks of every address would halve the speed.
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
    """g++ refused a kernel: never taken for an error that the emulation found."""


def missing_tools() -> str | None:
    """Say what is missing for the emulation on this machine; None when nothing is."""
    if os.uname().sysname != "Linux":
        return "the emulation of CUDA runs on Linux only"
    if _compiler() is None:
        return "the emulation of CUDA needs g++ or c++ in PATH"
    if "__clang__" in _predefined_macros():
        return "the emulation of CUDA needs GCC"
    return None


def kernels_of(text: str) -> dict[str, tuple[str, list[str]]]:
    """Return the kernels of a text: for each name its launch bound (an expression) and the names of its parameters."""
    kernels = {}
    code = _COMMENT.sub(" ", text)
    # Their parentheses would be taken for those of the parameters.
    bounds: list[str] = []

    def take_bounds(match: re.Match) -> str:
        bounds.append(match[1].split(",")[0].strip())
        return f" bounds{len(bounds) - 1} "

    code = _LAUNCH_BOUNDS.sub(take_bounds, code)
    for qualifiers, name, parameters in _KERNEL.findall(code):
        bound = re.search(r"\bbounds(\d+)\b", qualifiers)
        names = [re.findall(r"\w+", part)[-1] for part in parameters.split(",") if part.strip() not in {"", "void"}]
        kernels[name] = (bounds[int(bound[1])] if bound else "1024", names)
    return kernels


def host_text(text: str, file: str) -> str:
    """Return what g++ compiles: lines numbered by file, pointers to dynamic shared memory, and a list of kernels."""
    text = f'#line 1 "{file}"\n{text}'
    text = _DYNAMIC_SHARED.sub(r"\1* const \2 = reinterpret_cast<\1*>(::cuda_on_host::dynamic_shared)", text)
    registry = (f"CUDA_ON_HOST_KERNEL({name}, ({bound}))" for name, (bound, _) in kernels_of(text).items())
    return "\n".join([text, *registry, ""])


def lines_by_file(text: str, file: str) -> dict[str, list[str]]:
    """Return the lines of each file that a text was put together from, as its ``#line`` directives say."""
    _, *parts = _FILE.split(f'#line 1 "{file}"\n{text}')
    return {name: lines.split("\n") for name, lines in zip(parts[::2], parts[1::2])}


def build(text: str, file: str, defines: dict[str, int], check: bool) -> Path:
    """Return the path of the library of a module, compiled unless it was before.

    Raises:
        CompilationError: with the messages of the compiler.
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
    """Return the folder of compiled modules, made if it is not there."""
    chosen = os.environ.get("QISKIT_FUSED_EMULATION_CACHE")
    folder = Path(chosen or Path(tempfile.gettempdir()) / f"qiskit-fused-emulation-{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Libraries are loaded from here: nobody else may have put them.
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(
            f"{folder} belongs to another user; set QISKIT_FUSED_EMULATION_CACHE to a folder of yours"
        )
    return folder


def source_lines(library: Path, offsets: list[int]) -> list[str]:
    """Return "file:line" of instructions, given by their offsets in a library; "?:0" where it is not known."""
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
    """Return what the compiler predefines: it names the compiler's version and this processor's instruction sets."""
    command = [_compiler(), "-march=native", "-dM", "-E", "-x", "c++", os.devnull]
    return subprocess.run(command, capture_output=True, text=True).stdout
