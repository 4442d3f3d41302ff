# SPDX-License-Identifier: Apache-2.0
"""Passes whose stages are compiled as straight-line code give the numbers of the reference engine."""

from collections import Counter

import numpy as np
import pytest
from asking import ask
from cuda_emulation import EmulatedRuntime, missing_tools
from engine_cases import all_pairs, assert_agree, plan_of, rows_of
from kernel_scenarios import SCENARIOS
from layered_circuits import hardware_efficient, total_z

from qiskit_fused.engines.cuda import compiled_stages
from qiskit_fused.engines.cuda.compiled_stages import PassShape, StageShape, find_repetition, shape_of, stage_functions
from qiskit_fused.engines.cuda.engine import CudaEngine
from qiskit_fused.engines.cuda.formats import REGISTER_QUBITS, USUAL_TILE_QUBITS, states_at_once
from qiskit_fused.engines.cuda.kernel_source import kernel_source
from qiskit_fused.engines.cuda.launch import definitions
from qiskit_fused.engines.cuda.passes import make_passes
from qiskit_fused.engines.reference import ReferenceEngine

needs_emulation = pytest.mark.skipif(missing_tools() is not None, reason=str(missing_tools()))


def layers(num_qubits, num_layers):
    """Return a plan of equal layers, with rows, pairs and observables."""
    plan, operators = plan_of(hardware_efficient(num_qubits, num_layers), total_z(num_qubits))
    return plan, operators, rows_of(plan.program), all_pairs(3, len(operators))


def engines(tile_qubits, runtime=None):
    runtime = runtime or EmulatedRuntime(check=True, seed=1)
    for compile_above in (None, 0.0):
        yield CudaEngine(runtime, max_tile_qubits=tile_qubits, compile_above=compile_above)


def num_compiled(engine, plan, dtype):
    compiled = engine._plans[plan][dtype].compiled
    return sum(bool(compiled.text(number)) for number in range(len(engine._plans[plan][dtype].passes.passes)))


@needs_emulation
@pytest.mark.parametrize(
    ("num_qubits", "num_layers", "tile_qubits", "dtype"),
    [
        (6, 9, 6, "complex64"),
        pytest.param(8, 4, 6, "complex64", marks=pytest.mark.slow),
        pytest.param(8, 4, 6, "complex128", marks=pytest.mark.slow),
        pytest.param(9, 2, 9, "complex128", marks=pytest.mark.slow),
    ],
)
def test_compiled_passes_give_the_numbers_of_the_reference(num_qubits, num_layers, tile_qubits, dtype):
    question = layers(num_qubits, num_layers)
    expected = ask(ReferenceEngine(), *question, gradient=True)
    for engine, is_compiled in zip(engines(tile_qubits), (False, True)):
        assert_agree(ask(engine, *question, gradient=True, dtype=dtype), expected, dtype)
        assert (num_compiled(engine, question[0], dtype) > 0) == is_compiled


@needs_emulation
@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["warps", "kept", "one state", "real"])
def test_compiled_passes_pass_the_scenarios_of_the_mutants(scenario, monkeypatch):
    monkeypatch.setattr(compiled_stages, "MOST_STAGES", 40)
    monkeypatch.setattr(CudaEngine.__init__, "__defaults__", (None, None, 0.0))
    SCENARIOS[scenario](EmulatedRuntime(check=True, seed=1))


@needs_emulation
@pytest.mark.slow
def test_a_compiled_pass_runs_as_ptx():
    ptx = pytest.importorskip("ptx", reason="NVRTC comes with the extra `test` on Linux and Windows")
    question = layers(8, 2)
    _, compiled = engines(6, ptx.PtxRuntime())
    actual = ask(compiled, *question, gradient=True, dtype="complex64")
    assert num_compiled(compiled, question[0], "complex64") > 0
    assert_agree(actual, ask(ReferenceEngine(), *question, gradient=True), "complex64")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("architecture", ["sm_75", "sm_90", "sm_120"])
def test_compiled_passes_fit_the_registers_without_spills(architecture, dtype):
    compiler = pytest.importorskip("cuda_compiler", reason="NVRTC comes with the extra `test` on Linux and Windows")
    t, r = USUAL_TILE_QUBITS[dtype], REGISTER_QUBITS[dtype]
    passes = make_passes(plan_of(hardware_efficient(14, 12, is_ring=True), total_z(14))[0], t, r)
    shapes = Counter(shape_of(passes, number) for number in range(len(passes.passes)))
    source = kernel_source("sweeps.cu", stage_functions(shapes.most_common(1)[0][0], t - r))
    defines = definitions(dtype, t, states_at_once(dtype, compiler.MULTIPROCESSORS[architecture].shared))
    for kernel in compiler.compile_module(source, defines, architecture).kernels.values():
        assert kernel.registers <= 128 and kernel.spills <= 20


def test_passes_are_compiled_once_their_shape_has_enough_work():
    plan, *_ = layers(8, 4)
    passes = make_passes(plan, 6, 4)
    compiled = compiled_stages.CompiledPasses(passes, 1e6)
    compiled.add_work(10)
    assert not any(compiled.text(number) for number in range(len(passes.passes)))
    compiled.add_work(10**6)
    assert all(compiled.text(number) for number in range(len(passes.passes)))


def test_an_environment_variable_says_how_much_work_is_compiled(monkeypatch):
    for text, expected in (("", None), ("6e12", 6e12), ("1", 1.0)):
        monkeypatch.setenv(compiled_stages.LEAST_WORK, text)
        assert compiled_stages.least_work() == expected
    monkeypatch.setenv(compiled_stages.LEAST_WORK, "yes")
    with pytest.raises(ValueError, match="QISKIT_FUSED_COMPILE_PASSES is 'yes'; allowed: a number"):
        compiled_stages.least_work()


def test_equal_layers_are_a_loop_and_depth_does_not_change_the_code():
    texts = set()
    for num_layers in (10, 20):
        passes = make_passes(layers(6, num_layers)[0], 6, 4)
        assert len(passes.passes) == 1
        texts.add(stage_functions(shape_of(passes, 0), 2))
    assert len(texts) == 1 and "while" in texts.pop()


def stages(*arrangements):
    return tuple(StageShape(arrangement, 1, 0, None) for arrangement in arrangements)


@pytest.mark.parametrize(
    ("arrangements", "num_stages"),
    [((0, 4, 8) * 5, 6), ((0, 4, 8, 8, 4, 0) * 5, 12), ((4, 0) * 9, 4), ((8,) * 9, 1), ((0,) * 9, 3), ((0, 4, 2), 3)],
)
def test_a_loop_has_the_same_arrangements_around_it_and_inside(arrangements, num_stages):
    before, period, after = form = find_repetition(stages(*arrangements), 8)
    around = (8, *arrangements, 8)
    assert form.num_stages == num_stages and (len(arrangements) - before - after) % max(period, 1) == 0
    if period:
        assert around[before] == around[before + period]
        assert around[len(around) - 1 - after] == around[before + 1]


def test_long_passes_without_repetition_stay_with_the_interpreter():
    assert stage_functions(PassShape((12, 12), stages(*np.random.default_rng(0).permutation(100).tolist())), 8) == ""
    assert stage_functions(PassShape((12, 12), ()), 8) == ""
