# SPDX-License-Identifier: Apache-2.0
"""Count the machine instructions of compiled passes (engines/cuda/compiled_stages.py). Needs no device.

    python benchmarks/gpu/compiled_counts.py --qubits 16 --layers 100 --architecture sm_90

Needs the packages of `instruction_counts.py`. The circuit is the ring of kernels/README.md: RX, RY, RZ and CZ. A row
is a sweep over one of the three most frequent shapes of passes. Instructions are for each amplitude and run, with loops
counted as often as they run. *text* is the machine code in KiB. Two kinds of code are left out of the instructions,
because few rows run them: the three shears of an angle near pi, and the sums of X of an angle near 0 or pi.
"""

from __future__ import annotations

import argparse
import collections
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

import cuda_compiler
from instruction_counts import classify, disassemble, instructions
from layered_circuits import hardware_efficient

from qiskit_fused.engines.cuda.compiled_stages import PassShape, find_repetition, shape_of, stage_functions
from qiskit_fused.engines.cuda.formats import REGISTER_QUBITS, USUAL_TILE_QUBITS
from qiskit_fused.engines.cuda.kernel_source import kernel_source
from qiskit_fused.engines.cuda.launch import definitions
from qiskit_fused.engines.cuda.passes import make_passes
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.lowering.lower import lower

RARE = (
    "void rotate(State& a, Real half_tan",
    "struct SumX {",
    "if (sums_x) {",
)  # first lines of code that few rows run
SIZE_OF_INSTRUCTION = 16  # bytes


def lines_of(source: list[str], first: str) -> set[int]:
    """Return the numbers of the lines from the one that contains ``first`` to the bracket that closes it."""
    start = next(k for k, line in enumerate(source) if first in line)
    indent = re.match(r" *", source[start])[0]
    end = next(k for k in range(start + 1, len(source)) if re.match(indent + r"\}", source[k]))
    return set(range(start + 2, end + 2))


def count(shape: PassShape, dtype: str, architecture: str) -> dict[str, collections.Counter[str]]:
    """Return the counts of one thread for each kernel: "all" and "FP" of a run, and "text" of the code."""
    tile_qubits, registers = USUAL_TILE_QUBITS[dtype], REGISTER_QUBITS[dtype]
    text, form = stage_functions(shape, tile_qubits - registers), find_repetition(shape.stages, tile_qubits - registers)
    joined = re.sub(r"^#line.*$", "", kernel_source("sweeps.cu", text), flags=re.MULTILINE)
    compiled = cuda_compiler.compile_module(joined, definitions(dtype, tile_qubits), architecture, "-lineinfo")
    source = joined.splitlines()
    rare = set().union(*(lines_of(source, first) for first in RARE))
    starts = [k for k, line in enumerate(source) if line.startswith("    while (")]
    loops = {k + line for k in starts for line in lines_of(source[k:], "while (")}
    repetitions = (len(shape.stages) - form.before - form.after) // form.period if form.period else 1
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for kernel, instruction, lines in instructions(disassemble(compiled.cubin)):
        counts[kernel]["text"] += 1
        if rare & set(lines):
            continue
        times = repetitions if loops & set(lines) else 1
        counts[kernel]["all"] += times
        counts[kernel]["FP"] += times * (classify(instruction) in ("FMA", "add mul", "FP64"))
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qubits", type=int, default=16)
    parser.add_argument("--layers", type=int, default=100)
    parser.add_argument("--dtype", choices=["complex64", "complex128"], default="complex64")
    parser.add_argument("--architecture", default="sm_90")
    options = parser.parse_args()
    dtype = options.dtype
    plan = fuse_program(lower(hardware_efficient(options.qubits, options.layers, is_ring=True)), None)
    passes = make_passes(plan, USUAL_TILE_QUBITS[dtype], REGISTER_QUBITS[dtype])
    shapes = collections.Counter(shape_of(passes, number) for number in range(len(passes.passes)))
    print(
        f"n = {options.qubits}, L = {options.layers}, {dtype}, {options.architecture}; {len(passes.passes)} passes of "
    )
    print(f"{len(shapes)} shapes, {cuda_compiler.compiler_version()}\n")
    print("| sweep | passes | stages | runs | FP | all | text |\n|---|---|---|---|---|---|---|")
    for shape, number in shapes.most_common(3):
        runs = sum(stage.rotate.bit_count() for stage in shape.stages)
        for kernel, counts in sorted(count(shape, dtype, options.architecture).items(), reverse=True):
            share = runs << REGISTER_QUBITS[dtype]
            print(f"| `{kernel}` | {number} | {len(shape.stages)} | {runs} | {counts['FP'] / share:.2f} | ", end="")
            print(f"{counts['all'] / share:.2f} | {counts['text'] * SIZE_OF_INSTRUCTION / 1024:.0f} |")


if __name__ == "__main__":
    main()
