# SPDX-License-Identifier: Apache-2.0
"""Every CUDA kernel compiles for every architecture within its limits of registers. No device is needed."""

import itertools
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from qiskit_fused.engines.cuda.formats import (
    MAX_TILE_QUBITS,
    REAL_FORMAT,
    REGISTER_QUBITS,
    choose_tile_qubits,
    shared_memory,
    states_at_once,
    tiles_per_block,
)

compiler = pytest.importorskip("cuda_compiler", reason="NVRTC comes with the extra `test` on Linux and Windows")

ROOT = Path(__file__).resolve().parents[3]
ARCHITECTURES = [
    name if name in ("sm_75", "sm_90", "sm_120") else pytest.param(name, marks=pytest.mark.slow)
    for name in ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
]
MOST_SHARED = 48 * 1024  # bytes of static shared memory of a kernel; ptxas refuses more

# The largest number of registers of a thread over all instances of a kernel and all architectures, for each format.
FORMATS = ("complex64", "complex128", "float32", "float64")
REGISTERS = {
    "sweeps.cu": {"forward_sweep": (128, 112, 114, 116), "backward_sweep": (128,) * 4},
    "bind.cu": {"bind_runs": (52,) * 4, "bind_terms": (24,) * 4, "bind_tables": (66,) * 4},
    "observe.cu": {"fill_diagonals": (58, 58, 47, 47), "observe": (80, 130, 64, 80)},
    "outcomes.cu": {"sum_parts": (30, 36, 28, 32), "outcome_values": (40,) * 4, "outcome_adjoints": (22,) * 4},
    "gradients.cu": {"sum_tiles": (40, 40), "sum_chunks": (35, 35), "run_gradients": (64, 64), "combine": (60, 60)},
}
# The registers of backward_sweep if at most two threads hold a tile, or at most four with real amplitudes.
SMALL_TILE_REGISTERS = 168
# Bytes of spills, stores and loads together, of the kernels that may spill, by kernel and format; others may not. The
# code generator for sm_100 and newer spills two or three numbers of some sizes of tiles.
SPILLS = {
    ("backward_sweep", "complex64"): 20,
    ("backward_sweep", "complex128"): 16,
    ("backward_sweep", "float64"): 16,
}


class Instance(NamedTuple):
    file: str
    dtype: str
    tile_qubits: int

    def __str__(self):
        return f"{self.file} {self.dtype} t={self.tile_qubits}"


def instances(architecture="sm_90"):
    """Return every module that the CUDA engine may load on an architecture.

    Only sweeps and their tables depend on the size of tiles. Real amplitudes take fewer resources than complex ones, so
    other architectures than sm_90 have only the smallest and the largest tiles of them.
    """
    every = [
        Instance(file, dtype, tile_qubits)
        for file in REGISTERS
        for dtype, smallest in REGISTER_QUBITS.items()
        for tile_qubits in range(smallest, MAX_TILE_QUBITS[dtype] + 1)
        if tile_qubits == smallest or file in ("sweeps.cu", "bind.cu")
        if FORMATS.index(dtype)
        < len(next(iter(REGISTERS[file].values())))  # sums are the same for real and complex amplitudes
    ]
    if architecture == "sm_90":
        return every
    ends = {dtype: (few, few + 1, few + 2, MAX_TILE_QUBITS[dtype]) for dtype, few in REGISTER_QUBITS.items()}
    return [
        instance
        for instance in every
        if instance.dtype not in REAL_FORMAT.values() or instance.tile_qubits in ends[instance.dtype]
    ]


def compile_instance(instance, architecture):
    single_sweep = instance.file == "sweeps.cu" and instance.dtype in ("complex64", "float32")
    options = [compiler.WARN_ON_DOUBLE] if single_sweep else []
    return compiler.compile_kernels(*instance, architecture, *options)


def complaints(instance, compiled):
    """Return the faults of a compiled module, as sentences."""
    expected = REGISTERS[instance.file]
    if set(compiled.kernels) != set(expected):
        return [f"{instance.file} has the kernels {sorted(compiled.kernels)}, expected {sorted(expected)}"]
    faults = list(compiled.warnings)
    for name, kernel in compiled.kernels.items():
        registers = expected[name][FORMATS.index(instance.dtype)]
        few = 1 + (instance.dtype in REAL_FORMAT.values())
        if name == "backward_sweep" and instance.tile_qubits <= REGISTER_QUBITS[instance.dtype] + few:
            registers = SMALL_TILE_REGISTERS
        spills = SPILLS.get((name, instance.dtype), 0)
        if kernel.registers > registers:
            faults.append(f"{name}: {kernel.registers} registers, expected {registers} at most")
        if kernel.spills > spills or (kernel.stack and not spills):
            faults.append(
                f"{name}: {kernel.spills} bytes of spills and {kernel.stack} of stack, expected {spills} at most"
            )
        if kernel.shared > MOST_SHARED:
            faults.append(f"{name}: {kernel.shared} bytes of static shared memory, expected {MOST_SHARED} at most")
    return faults


class Table:
    """Prints, after the tests, the largest resources of each kernel over all its instances."""

    def __init__(self):
        self.results = {}  # architecture -> list of (instance, compiled module)
        self.seconds = {}

    def lines(self):
        yield row("kernel", "dtype", ["limit", *self.results, "shared", "spills"])
        for file, kernels in REGISTERS.items():
            for name, limits in kernels.items():
                for dtype, limit in zip(FORMATS, limits):
                    taken = [self.kernels(architecture, file, name, dtype) for architecture in self.results]
                    registers = [most(kernels, "registers") for kernels in taken]
                    every = list(itertools.chain(*taken))
                    yield row(name, dtype, [limit, *registers, most(every, "shared"), most(every, "spills")])
        yield row("seconds", f"{len(instances())} modules", ["", *(f"{took:.1f}" for took in self.seconds.values())])

    def kernels(self, architecture, file, name, dtype):
        modules = [module for instance, module in self.results[architecture] if instance[:2] == (file, dtype)]
        return [module.kernels[name] for module in modules if name in module.kernels]

    def pytest_terminal_summary(self, terminalreporter):
        if self.results:
            title = (
                f"CUDA kernels by {compiler.compiler_version()}: registers; bytes of static shared memory and spills"
            )
            terminalreporter.section(title)
            terminalreporter.write("\n".join(self.lines()) + "\n")


def most(kernels, field):
    return max((getattr(kernel, field) for kernel in kernels), default="-")


def row(name, dtype, figures):
    return f"{name:<18}{dtype:<12}" + "".join(f"{figure:>8}" for figure in figures)


@pytest.fixture(scope="module")
def table(request):
    plugin = Table()
    request.config.pluginmanager.register(plugin)
    return plugin


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.slow
def test_every_kernel_compiles_within_its_registers(architecture, table):
    started = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        selected = instances(architecture)
        modules = list(pool.map(compile_instance, selected, itertools.repeat(architecture)))
    table.results[architecture] = list(zip(selected, modules))
    table.seconds[architecture] = time.perf_counter() - started
    wrong = [
        f"{instance}: {line}"
        for instance, module in table.results[architecture]
        for line in complaints(instance, module)
    ]
    assert not wrong, "\n".join(wrong)


# Blocks of forward_sweep and of backward_sweep that a multiprocessor runs at the same time, with the usual tiles.
BLOCKS = {
    "complex64": {"sm_75": (1, 1), "sm_80": (3, 2), "sm_86": (2, 2), "sm_89": (2, 2), "sm_90": (3, 2),
                  "sm_100": (3, 2), "sm_120": (2, 2)},
    "complex128": {"sm_75": (1, 1), "sm_80": (2, 2), "sm_86": (2, 2), "sm_89": (2, 2), "sm_90": (2, 2),
                   "sm_100": (2, 2), "sm_120": (2, 2)},
    "float32": {"sm_75": (3, 2), "sm_80": (4, 2), "sm_86": (4, 2), "sm_89": (4, 2), "sm_90": (3, 2),
                "sm_100": (2, 2), "sm_120": (2, 2)},
    "float64": {"sm_75": (1, 1), "sm_80": (3, 2), "sm_86": (2, 2), "sm_89": (2, 2), "sm_90": (2, 2),
                "sm_100": (2, 2), "sm_120": (2, 2)},
}  # fmt: skip


def blocks_at_once(architecture, dtype, compiled, tile_qubits):
    """Return the numbers of blocks of forward_sweep and of backward_sweep that fit a multiprocessor."""
    resources, (_, threads) = compiler.MULTIPROCESSORS[architecture], tiles_per_block(tile_qubits, dtype)
    counts = []
    for name, adjoint in (("forward_sweep", False), ("backward_sweep", True)):
        kernel = compiled.kernels[name]
        num_states = states_at_once(dtype, resources.shared) if adjoint else 1
        # The system takes 1 KiB of shared memory of each block.
        shared = shared_memory(tile_qubits, dtype, num_states, adjoint) + kernel.shared + 1024
        registers = -(-kernel.registers // 8) * 8 * threads
        counts.append(min(resources.shared // shared, resources.registers // registers, resources.threads // threads))
    return tuple(counts)


@pytest.mark.parametrize(
    "dtype", [pytest.param(name, marks=pytest.mark.slow) if name in REAL_FORMAT.values() else name for name in BLOCKS]
)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_multiprocessor_runs_as_many_blocks_as_the_table_says(architecture, dtype):
    multiprocessor = compiler.MULTIPROCESSORS[architecture]
    num_states = states_at_once(dtype, multiprocessor.shared)
    tile_qubits = choose_tile_qubits(20, dtype, multiprocessor.shared_of_block, num_states)
    compiled = compile_instance(Instance("sweeps.cu", dtype, tile_qubits), architecture)
    assert blocks_at_once(architecture, dtype, compiled, tile_qubits) == BLOCKS[dtype][architecture]


# Machine instructions of the sweeps for sm_90 with the usual tiles, by format. A kernel that grows by more than 2 % has
# to justify it here, and in the table of kernels/README.md.
INSTRUCTIONS = {
    "complex64": (1569, 4166),
    "complex128": (1048, 2898),
    "float32": (1353, 2191),
    "float64": (1182, 2067),
}


@pytest.mark.parametrize("dtype", INSTRUCTIONS)
@pytest.mark.slow
def test_sweeps_have_as_many_instructions_as_the_table_says(dtype):
    script = ROOT / "benchmarks" / "gpu" / "instruction_counts.py"
    path = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, script, "sweeps.cu", "--dtype", dtype, "--architecture", "sm_90", "--depth", "1"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [int(count) for count in re.findall(r"_sweep: .* (\d+) instructions", done.stdout)]
    assert len(found) == 2
    for count, expected in zip(found, INSTRUCTIONS[dtype]):
        assert abs(count - expected) <= 0.02 * expected, f"{found} instructions, expected {INSTRUCTIONS[dtype]}"


def test_every_file_of_kernels_is_in_the_table():
    assert {path.name for path in (ROOT / "kernels" / "cuda").glob("*.cu")} == set(REGISTERS)


# Bodies of kernels with a fault, by the field of the compiler's log that must show the fault.
FAULTS = {
    "stack": "float a[64] = {}; a[int(x[0]) & 63] = 1; a[int(x[1]) & 63] = 2; x[3] = a[int(x[2]) & 63];",
    "spills": """float a[96];
#pragma unroll
for (int i = 0; i < 96; ++i) a[i] = x[i];
__syncthreads();
#pragma unroll
for (int i = 0; i < 96; ++i) x[95 - i] = a[i];""",
    "shared": "__shared__ float a[1024]; a[threadIdx.x] = x[0]; __syncthreads(); x[0] = a[threadIdx.x ^ 1];",
}


def compile_planted(body, *options):
    source = f'extern "C" __global__ void __launch_bounds__(1024) planted(float* x) {{\n{body}\n}}'
    return compiler.compile_module(source, {}, "sm_90", *options)


@pytest.mark.parametrize("field", FAULTS)
def test_faults_show_in_the_log(field):
    assert getattr(compile_planted("x[0] = 1;").kernels["planted"], field) == 0
    assert getattr(compile_planted(FAULTS[field]).kernels["planted"], field) > 0


def test_double_precision_is_warned_of():
    assert not compile_planted("x[0] *= 0.1f;", compiler.WARN_ON_DOUBLE).warnings
    assert compile_planted("x[0] *= 0.1;", compiler.WARN_ON_DOUBLE).warnings


def test_a_template_that_nobody_names_is_no_kernel():
    compiled = compiler.compile_module("template <int N> __global__ void planted(int* x) { *x = N; }", {}, "sm_90")
    assert compiled.kernels == {}


@pytest.mark.slow
def test_a_rotation_takes_three_multiply_adds_per_amplitude_and_ten_in_the_adjoint():
    """The adjoint has two states, and sums of Y and X. The test counts instructions of the machine code."""
    script = ROOT / "benchmarks" / "gpu" / "instruction_counts.py"
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, script], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for kernel, expected in (("forward_sweep", 3), ("backward_sweep", 10)):
        table = re.search(rf"\*\*{kernel}\*\*.*?\n\n", done.stdout, re.S)[0]
        # The table has a row for each call of for_each_bit; its first two figures are copies and multiply-adds.
        rotations = re.findall(r"`for_each_bit\(\w+\)` \| 1 \| ([\d.]+) ", table)
        assert sum(map(float, rotations)) == expected * REGISTER_QUBITS["complex64"], table
