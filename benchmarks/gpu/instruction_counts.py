# SPDX-License-Identifier: Apache-2.0
"""Count the machine instructions of CUDA kernels by the line of the kernel that they come from. Needs no device.

    python benchmarks/gpu/instruction_counts.py sweeps.cu --dtype complex64 --architecture sm_90 --depth 4

Needs the packages of the tests, and nvdisasm: pip install nvidia-cuda-nvdisasm

A row is a call, with all code that the compiler inlined into it. The rows below it with more dots are the calls inside.
The counts are of instructions in the program text, not in a run: skipped code counts, a loop that was not
unrolled counts once, and merged code counts for one of its origins. If the compiler wrote code several times, such as
a template for all register bits, the count is divided by `copies`. Figures are per amplitude in sweeps.cu and per
thread elsewhere. Bytes are the bytes that the instructions of one thread read or write: if a warp reads one address
together, the bytes count for each of its threads.
"""

from __future__ import annotations

import argparse
import collections
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

import cuda_compiler

from qiskit_fused.engines.cuda.formats import REGISTER_QUBITS, USUAL_TILE_QUBITS
from qiskit_fused.engines.cuda.kernel_source import kernel_source
from qiskit_fused.engines.cuda.launch import definitions

# For each column, the beginnings of the instructions that it counts; the longest match decides.
CLASSES = {
    "FMA": "FFMA",
    "add mul": "FADD FMUL UFMUL",
    "FP64": "DFMA DADD DMUL",
    "MUFU": "MUFU",
    "integer": "IADD IMAD VIADD LEA LOP SHF ISETP FSETP DSETP POPC FLO BREV PRMT SGXT IABS IDP PLOP BMSK VOTE MATCH "
    "IMNMX VIMNMX FMNMX R2P P2R FCHK UIADD UIMAD ULEA ULOP USHF UISETP UPOPC UPRMT UFLO UBREV USGXT UPLOP UBMSK "
    "F2F F2I I2F FRND UI2F UF2I",
    "move select": "MOV SEL FSEL USEL UMOV IMAD.MOV HFMA2 S2R S2UR CS2R R2UR UR2UP UP2UR",
    "constant": "LDC ULDC LDCU",
    "shared": "LDS STS",
    "global": "LDG STG LD ST",
    "spill": "LDL STL",
    "SHFL": "SHFL",
    "barrier": "BAR WARPSYNC DEPBAR",
    "branch": "BRA EXIT BSSY BSYNC BMOV BREAK CALL RET BRX YIELD ENDCOLLECTIVE",
}
PREFIXES = {prefix: name for name, prefixes in CLASSES.items() for prefix in prefixes.split()} | {"": "other"}
COLUMNS = ("FMA", "add mul", "FP64", "flop", "MUFU", "integer", "move select", "constant", "shared B", "global B",
           "spill", "SHFL", "barrier", "branch", "other", "all")  # fmt: skip


class Part:
    """A call of a function, or a kernel, with the calls that were inlined into it."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.copies: set[tuple[int, ...]] = set()  # the chain of lines of calls that leads to each inlined copy
        self.inner: dict[int, Part] = {}  # inlined calls, by the line of the call


def find_nvdisasm() -> str:
    packages = Path(sysconfig.get_path("purelib")) / "nvidia"
    found = [*packages.glob("cu*/bin/nvdisasm*"), shutil.which("nvdisasm")]
    if not found[0]:
        raise SystemExit("there is no nvdisasm: pip install nvidia-cuda-nvdisasm")
    return str(found[0])


def disassemble(cubin: bytes) -> str:
    """Return the text of the machine code, with the chain of inlined calls before each instruction."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernels.cubin")
        path.write_bytes(cubin)
        command = [find_nvdisasm(), "-c", "-gi", str(path)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def instructions(text: str) -> Iterator[tuple[str, str, list[int]]]:
    """Yield the kernel, the text and the source lines of every instruction; the line in the kernel comes first."""
    kernel, lines, fresh = "", [0], True
    for line in text.splitlines():
        if section := re.match(r"\.text\.(\w+):", line):
            kernel = section[1]
        elif place := re.search(r'//## File "[^"]*", line (\d+)', line):
            lines = [int(place[1]), *lines] if not fresh else [int(place[1])]
            fresh = False
        elif code := re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", line):
            fresh = True
            if code[1] != "NOP":
                yield kernel, code[1], lines


def classify(instruction: str) -> str:
    return PREFIXES[max(filter(instruction.startswith, PREFIXES), key=len)]


def count(parts: list[Part], instruction: str) -> None:
    """Count an instruction in each of the parts."""
    name = classify(instruction)
    added = collections.Counter({name: 1, "all": 1})
    if name in ("FMA", "add mul", "FP64"):
        added["flop"] = (2 if instruction[1:4] == "FMA" else 1) * (2 if "2" in instruction.split(".")[0] else 1)
    if name in ("shared", "global"):
        width = re.search(r"\.(?:[US]?(8|16)|(32|64|128))\b", instruction)
        added[f"{name} B"] = int(width[1] or width[2]) // 8 if width else 4
    for part in parts:
        part.counts += added


def function_of_lines(source: str) -> list[int]:
    """Return for each line, counted from 1, the first line of the function or struct around it."""
    first, found = 0, [0]
    for number, line in enumerate(source.splitlines(), start=1):
        if re.match(r"[^\s/#}]", line) and (first == 0):
            first = number
        found.append(first)
        if line.startswith("}") or (first == number and line.endswith(";")):
            first = 0
    return found


def read_parts(text: str, source: str) -> dict[str, Part]:
    """Return the kernels as trees of calls; a function that calls itself, as a template over bits does, is one call."""
    kernels: dict[str, Part] = collections.defaultdict(Part)
    functions = function_of_lines(source)
    for kernel, instruction, lines in instructions(text):
        part = kernels[kernel]
        part.copies.add(())
        parts = [part]
        for depth in range(1, len(lines)):
            if functions[lines[depth]] == functions[lines[depth - 1]]:
                continue
            part = part.inner.setdefault(lines[depth - 1], Part())
            part.copies.add(tuple(lines[:depth]))
            parts.append(part)
        count(parts, instruction)
    return kernels


def rows(part: Part, label: str, lines: list[str], depth: int, smallest: int) -> Iterator[tuple[str, Part]]:
    """Yield the label and the part of a call and of the calls inside, in the order of the source."""
    yield label, part
    indent = label[: len(label) - len(label.lstrip("·"))] + "·"
    for line, inner in sorted(part.inner.items()):
        if depth > 0 and inner.counts["all"] >= smallest:
            text = lines[line - 1].strip().rstrip(" {;").replace("|", "\\|")
            yield from rows(inner, f"{indent} `{text}`", lines, depth - 1, smallest)


def print_table(kernel: Part, name: str, lines: list[str], amplitudes: int, depth: int) -> None:
    """Print a kernel as a table in Markdown, without calls of less than a hundredth of its instructions."""
    columns = [column for column in COLUMNS if kernel.counts[column]]
    print("| " + " | ".join(["", "copies", *columns]) + " |")
    print("|---" * (len(columns) + 2) + "|")
    for label, part in rows(kernel, f"**{name}**", lines, depth, kernel.counts["all"] // 100):
        scale = len(part.copies) * amplitudes
        figures = [f"{part.counts[column] / scale:.1f}" if part.counts[column] else "" for column in columns]
        print("| " + " | ".join([label, str(len(part.copies)), *figures]) + " |")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", default="sweeps.cu")
    parser.add_argument("--dtype", choices=list(REGISTER_QUBITS), default="complex64")
    parser.add_argument("--architecture", default="sm_90")
    parser.add_argument("--tile-qubits", type=int, help="default: the largest that the engine takes")
    parser.add_argument("--depth", type=int, default=4, help="how far calls inside calls are listed")
    options = parser.parse_args()
    file, dtype, architecture = options.file, options.dtype, options.architecture
    tile_qubits = options.tile_qubits or USUAL_TILE_QUBITS[dtype]
    source = re.sub(r"^#line.*$", "", kernel_source(file), flags=re.MULTILINE)  # lines are numbered over all files
    compiled = cuda_compiler.compile_module(source, definitions(dtype, tile_qubits), architecture, "-lineinfo")
    unit, amplitudes = ("amplitude", 1 << REGISTER_QUBITS[dtype]) if file == "sweeps.cu" else ("thread", 1)
    print(f"{file}, {dtype}, t = {tile_qubits}, r = {REGISTER_QUBITS[dtype]}, {architecture}, ", end="")
    print(f"{cuda_compiler.compiler_version()}; instructions, flop and bytes per {unit}\n")
    for name, kernel in sorted(read_parts(disassemble(compiled.cubin), source).items(), reverse=True):
        registers, _, spills, _ = compiled.kernels[name]
        print(f"{name}: {registers} registers, {spills} bytes of spills, {kernel.counts['all']} instructions\n")
        print_table(kernel, name, source.splitlines(), amplitudes, options.depth)


if __name__ == "__main__":
    main()
