# SPDX-License-Identifier: Apache-2.0
"""Real states on the CUDA engine: half of the memory, the same results, the same kernels with real amplitudes."""

import numpy as np
import pytest
from asking import Ends, ask
from cuda_cases import count_allocations, engine_on, forget_last_states
from cuda_emulation import EmulatedRuntime, missing_tools
from engine_cases import TOLERANCE, all_pairs, assert_agree, on_engines, plan_of, random_observables, rows_of, total_z
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.circuit.library import real_amplitudes
from qiskit.quantum_info import SparsePauliOp
from real_cases import assert_real_and_right, real_circuits

from qiskit_fused.engines.cuda.engine import CudaEngine
from qiskit_fused.engines.cuda.memory import predict
from qiskit_fused.engines.reference import ReferenceEngine
from qiskit_fused.options.method import REVERSE, Method

pytestmark = pytest.mark.skipif(missing_tools() is not None, reason=str(missing_tools()))

METHODS = [REVERSE, Method("store"), Method("checkpoint", num_states=2)]
FORMAT = {"complex64": "float32", "complex128": "float64"}


@pytest.fixture(scope="module")
def small_tiles():
    return engine_on(check=True)


@settings(max_examples=40, deadline=None)
@given(circuit=real_circuits(), weighted=st.booleans(), dtype=st.sampled_from(list(TOLERANCE)))
def test_real_circuits_agree_with_the_reference(small_tiles, circuit, weighted, dtype):
    assert_real_and_right(circuit, dtype, weighted, engine=small_tiles)


@pytest.mark.slow
@on_engines(cpu=[], emulated=[3, 4, 5, 9, 13, 14], tiles=[3, 6, 10], cuda=[4, 13, 15])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_all_sizes_and_methods_agree_with_the_reference(make_engine, num_qubits, method, dtype):
    assert_real_and_right(real_amplitudes(num_qubits, reps=2), dtype, method=method, engine=make_engine())


@pytest.mark.parametrize("angle", [0.0, np.pi, -np.pi, 2 * np.pi, 0.3])
@pytest.mark.parametrize("before", ["h", "x", "z", "hx", "xz", "hzh", "xhzhx"])
def test_degenerate_runs_stay_real(small_tiles, before, angle, dtype):
    circuit = QuantumCircuit(6)
    circuit.h(range(6))
    for name in before:
        getattr(circuit, name)(0)
    circuit.ry(Parameter("a"), 0)
    circuit.cz(0, 1)
    plan, operators = plan_of(circuit, [SparsePauliOp("XXZXXX"), SparsePauliOp("IIIIXX"), SparsePauliOp("IIIIYY")])
    assert plan.is_real
    question = plan, operators, np.array([[angle]]), all_pairs(1, 3)
    expected = ask(ReferenceEngine(), *question, gradient=True)
    assert_agree(ask(small_tiles, *question, gradient=True, dtype=dtype), expected, dtype)


@pytest.mark.parametrize("angle", [np.pi, 3.14159265358979, 5 * np.pi, 6.28318530717959, 61 * np.pi, 1e-15])
def test_half_turns_are_real_however_their_angle_is_written(small_tiles, angle, dtype):
    circuit = real_amplitudes(6, reps=1, entanglement="linear")
    circuit.rx(angle, 0)
    circuit.cz(0, 1)
    circuit.h(2)
    circuit.rz(angle, 2)
    circuit.h(2)
    circuit.rzz(np.pi, 1, 5)
    circuit.ccz(0, 3, 5)
    circuit.mcp(np.pi, [0, 1, 2, 4], 5)
    circuit.compose(real_amplitudes(6, reps=1, parameter_prefix="b"), inplace=True)
    assert_real_and_right(circuit, dtype, engine=small_tiles)


def test_a_real_start_state_is_used(small_tiles, dtype):
    circuit = QuantumCircuit(6)
    circuit.initialize(np.array([0.5, -0.5, 0.1, np.sqrt(0.49)]), [1, 4])
    circuit.compose(real_amplitudes(6, reps=2), inplace=True)
    assert_real_and_right(circuit, dtype, engine=small_tiles)


def test_states_take_half_the_memory_and_their_bytes_are_predicted(dtype):
    plan, operators = plan_of(real_amplitudes(11, reps=2), random_observables(11, 3))
    question = plan, operators, rows_of(plan.program), all_pairs(3, 2)
    for gradient in (False, True):
        runtime = EmulatedRuntime(num_multiprocessors=1000)
        count, engine = count_allocations(runtime), engine_on(runtime)
        ask(engine, *question, gradient=gradient, dtype=dtype)
        forget_last_states(engine)
        count.peak = before = count.live
        predicted = ask(engine, *question, gradient=gradient, dtype=dtype).stats["bytes"]
        assert 0.85 * predicted <= count.peak - before <= predicted
        forget_last_states(engine)
        assert count.live == before
        # The states for 2 Im <psi|O|d psi>, and returned states, are complex.
        whole_options = {"gradient": True, "imaginary": True} if gradient else {"ends": Ends(final=True)}
        whole = ask(engine, *question, **whole_options, dtype=dtype).stats["bytes"]
        assert predicted < 0.62 * whole


def test_a_prediction_without_a_device_says_what_the_engine_says(dtype):
    plan, operators = plan_of(real_amplitudes(14, reps=1), total_z(14))
    columns = np.random.default_rng(1).normal(size=(2, plan.program.num_columns))
    for gradient in (False, True):
        actual = ask(
            CudaEngine(EmulatedRuntime(num_multiprocessors=132)),
            plan,
            operators,
            columns,
            all_pairs(2, 1),
            gradient=gradient,
            dtype=dtype,
        )
        assert predict(plan, 2, REVERSE, dtype, gradient=gradient).bytes == actual.stats["bytes"]


def test_kernels_with_real_amplitudes_run_where_they_may(small_tiles, dtype):
    plan, operators = plan_of(real_amplitudes(6, reps=1), total_z(6), imaginary=True)
    question = plan, operators, rows_of(plan.program), all_pairs(3, 1)
    no_pairs = *question[:3], (np.zeros(0, np.int32), np.zeros(0, np.int32))
    runtime, used = small_tiles.runtime, set()
    module = runtime.module

    def watch(file, **defines):
        used.add((file, defines["QF_REAL"], defines["QF_DOUBLE"]))
        return module(file, **defines)

    runtime.module = watch
    double = int(dtype == "complex128")
    try:
        for asked, options, real in (
            (question, {"gradient": True}, 1),
            (question, {}, 1),
            (question, {"gradient": True, "imaginary": True}, 0),
            (question, {"ends": Ends(final=True)}, 0),
            (no_pairs, {"gradient": True, "ends": Ends(final_cotangents=np.ones((3, 64)))}, 0),
        ):
            used.clear()
            small_tiles.release_memory()  # a plan keeps its kernels
            ask(small_tiles, *asked, **options, dtype=dtype)
            assert {one for one in used if one[0] != "gradients.cu"} >= {("sweeps.cu", real, double)}
            assert {real_ for file, real_, _ in used if file != "gradients.cu"} == {real}
            assert {one for one in used if one[0] == "gradients.cu"} == {("gradients.cu", 0, double)}
    finally:
        runtime.module = module


def test_imaginary_derivatives_of_a_real_circuit_are_those_of_the_reference(small_tiles, dtype):
    plan, operators = plan_of(real_amplitudes(6, reps=2), random_observables(6, 4), imaginary=True)
    assert plan.is_real
    question = plan, operators, rows_of(plan.program), all_pairs(3, 2)
    expected = ask(ReferenceEngine(), *question, gradient=True, imaginary=True)
    ask(small_tiles, *question, dtype=dtype)  # this evaluation has real states, the next one complex states
    assert_agree(ask(small_tiles, *question, gradient=True, imaginary=True, dtype=dtype), expected, dtype)
