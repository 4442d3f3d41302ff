# SPDX-License-Identifier: Apache-2.0
"""The PTX that NVRTC makes of the kernels runs on the emulation, with its checks, and gives the reference's numbers."""

import re

import numpy as np
import pytest
from asking import ask
from cuda_emulation import EmulationError, missing_tools
from engine_cases import all_pairs, assert_agree, plan_of, random_circuit, random_observables, rows_of
from kernel_scenarios import SCENARIOS
from qiskit.circuit.library import real_amplitudes

from qiskit_fused.engines.cuda.engine import CudaEngine
from qiskit_fused.engines.cuda.formats import MAX_TILE_QUBITS, REAL_FORMAT, REGISTER_QUBITS
from qiskit_fused.engines.cuda.kernel_source import kernel_source
from qiskit_fused.engines.reference import ReferenceEngine

if missing_tools() is not None:
    pytest.skip(missing_tools(), allow_module_level=True)
ptx = pytest.importorskip("ptx", reason="NVRTC comes with the extra `test` on Linux and Windows")

# The code generator of NVRTC differs from 100 on.
TARGETS = [target if target == "compute_90" else pytest.param(target, marks=pytest.mark.slow) for target in (
    "compute_75", "compute_90", "compute_100", "compute_120")]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_compiled_kernels_pass_the_scenarios_of_the_mutants(scenario, target):
    SCENARIOS[scenario](ptx.PtxRuntime(target, check=True))


@pytest.mark.parametrize(
    ("num_qubits", "tile_qubits", "dtype"),
    [(12, 12, "complex64"), (13, 13, "complex64"), (12, 12, "complex128"), (14, 12, "complex64")],
)
@pytest.mark.slow
def test_compiled_kernels_agree_with_the_reference_on_large_tiles(num_qubits, tile_qubits, dtype):
    plan, operators = plan_of(random_circuit(num_qubits, 40, seed=3), random_observables(num_qubits, 1))
    question = plan, operators, rows_of(plan.program, num_rows=2), all_pairs(2, 2)
    actual = ask(CudaEngine(ptx.PtxRuntime(), max_tile_qubits=tile_qubits), *question, gradient=True, dtype=dtype)
    assert_agree(actual, ask(ReferenceEngine(), *question, gradient=True), dtype)


# The sizes of tiles for which the sweeps are compiled differently: one, two and four threads a tile, and the largest.
INSTANCES = [
    (dtype, tile_qubits)
    for dtype, fewest in REGISTER_QUBITS.items()
    for tile_qubits in (fewest, fewest + 1, fewest + 2, MAX_TILE_QUBITS[dtype])
]


@pytest.mark.slow
@pytest.mark.parametrize(("amplitudes", "tile_qubits"), INSTANCES)
def test_compiled_kernels_of_every_kind_of_tile_agree_with_the_reference(amplitudes, tile_qubits):
    dtype = {"float32": "complex64", "float64": "complex128"}.get(amplitudes, amplitudes)
    n = tile_qubits + (3 < tile_qubits < 10)  # the smallest tile and large tiles are the whole state
    circuit = real_amplitudes(n, reps=2) if amplitudes in REAL_FORMAT.values() else random_circuit(n, 30, seed=3)
    plan, operators = plan_of(circuit, random_observables(n, 1))
    question = plan, operators, rows_of(plan.program, num_rows=2), all_pairs(2, 2)
    actual = ask(CudaEngine(ptx.PtxRuntime(), max_tile_qubits=tile_qubits), *question, gradient=True, dtype=dtype)
    assert_agree(actual, ask(ReferenceEngine(), *question, gradient=True), dtype)


def run_text(body, *arrays, block=32, **options):
    """Compile a kernel of ``const`` inputs and one output, all of 32 unsigned integers, and run it."""
    text = f'extern "C" __global__ void planted(const unsigned* a, const unsigned* b, unsigned* out) {{ {body} }}'
    runtime = ptx.PtxRuntime(source=lambda file: text, **options)
    out = np.zeros(block, np.uint32)
    runtime.module("planted.cu").function("planted")(1, block, (*arrays, out))
    return out


WORDS = np.random.default_rng(0).integers(0, 1 << 32, (2, 32), dtype=np.uint32)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("x + y * 3u", lambda x, y: x + y * np.uint32(3)),
        ("(x & y) ^ (x | ~y)", lambda x, y: (x & y) ^ (x | ~y)),
        ("x >> (y & 31) | x << (y & 7)", lambda x, y: x >> (y & np.uint32(31)) | x << (y & np.uint32(7))),
        ("unsigned(int(x) >> (y & 31))", lambda x, y: (x.view(np.int32) >> (y & 31).view(np.int32)).view(np.uint32)),
        ("__popc(x) + __clz(y)", lambda x, y: np.bitwise_count(x) + (32 - np.frexp(y.astype(float))[1])),
        ("__umulhi(x, y)", lambda x, y: (x.astype(np.uint64) * y >> np.uint64(32)).astype(np.uint32)),
        ("x / (y | 1u) + x % (y | 1u)", lambda x, y: x // (y | np.uint32(1)) + x % (y | np.uint32(1))),
        ("x < y ? x : int(x) < int(y) ? y : 7u", lambda x, y: np.where(
            x < y, x, np.where(x.view(np.int32) < y.view(np.int32), y, 7))),
        ("__float_as_uint(fmaf(float(x), 0.5f, float(int(y))))", lambda x, y: (
            x.astype(np.float32).astype(float) * 0.5 + y.view(np.int32).astype(np.float32)
        ).astype(np.float32).view(np.uint32)),
        ("__shfl_xor_sync(~0u, x, 5) + __ballot_sync(~0u, x < y)", lambda x, y: x[np.arange(32) ^ 5] + np.uint32(
            sum(1 << k for k in range(32) if x[k] < y[k]))),
    ],
)  # fmt: skip
def test_instructions_compute_what_cuda_defines(expression, expected):
    body = f"const unsigned x = a[threadIdx.x], y = b[threadIdx.x]; out[threadIdx.x] = {expression};"
    assert np.array_equal(run_text(body, *WORDS), np.asarray(expected(*WORDS)).astype(np.uint32))


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("out[threadIdx.x + 1] = a[0] + b[0];", "out of bounds|outside"),
        (
            "__shared__ unsigned s[32]; s[threadIdx.x] = a[threadIdx.x] + b[0]; __syncthreads(); "
            "s[threadIdx.x] = s[threadIdx.x ^ 16]; out[threadIdx.x] = s[threadIdx.x];",
            "race",
        ),
        ("if (threadIdx.x < 7) __syncthreads(); out[threadIdx.x] = a[0] * b[0];", "syncthreads|diverge"),
    ],
    ids=["bounds", "race", "divergence"],
)
def test_the_checks_of_the_emulation_see_compiled_code(body, error):
    with pytest.raises(EmulationError, match=f"(?i){error}"):
        run_text(body, *WORDS, check=True)


def test_a_barrier_that_is_missing_in_the_source_is_missing_in_the_compiled_code():
    def edit(file, text):
        return re.sub(r"__syncthreads\(\);(?=\s*for_each_place)", "", text)

    assert edit("sweeps.cu", kernel_source("sweeps.cu")) != kernel_source("sweeps.cu")
    with pytest.raises((EmulationError, AssertionError)):
        SCENARIOS["warps"](ptx.PtxRuntime(check=True, source_edit=edit))


def test_an_unknown_instruction_is_refused_by_name():
    text = ".visible .entry k(){\n.reg .b32 %r<2>;\nmma.sync.aligned.m8n8k4.f32 %r1, %r0;\n}"
    with pytest.raises(ptx.Unsupported, match="mma"):
        ptx.PtxModule(text)
