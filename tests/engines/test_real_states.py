# SPDX-License-Identifier: Apache-2.0
"""Circuits whose states stay real are recognised and simulated with real numbers, with the same results."""

import numpy as np
import pytest
from asking import ask
from engine_cases import all_pairs, assert_agree, plan_of, random_observables, rows_of, total_z
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.circuit.library import real_amplitudes
from qiskit.quantum_info import SparsePauliOp
from real_cases import assert_real_and_right, real_circuits

from qiskit_fused.engines.cpu.engine import CpuEngine
from qiskit_fused.engines.reference import ReferenceEngine
from qiskit_fused.inspection.plan import Plan
from qiskit_fused.options.method import REVERSE, Method


@settings(max_examples=60, deadline=None)
@given(circuit=real_circuits(), weighted=st.booleans(), dtype=st.sampled_from(["complex64", "complex128"]))
def test_real_circuits_agree_with_the_reference(circuit, weighted, dtype):
    assert_real_and_right(circuit, dtype, weighted)


@pytest.mark.parametrize("method", [REVERSE, Method("store"), Method("checkpoint", num_states=2)], ids=lambda m: m.name)
@pytest.mark.parametrize("num_qubits", [4, 5, 9, 12, 15])
def test_all_sizes_and_methods_agree_with_the_reference(num_qubits, method, dtype):
    assert_real_and_right(real_amplitudes(num_qubits, reps=2), dtype, method=method, engine=CpuEngine(2))


@pytest.mark.parametrize("angle", [0.0, np.pi, -np.pi, 2 * np.pi])
@pytest.mark.parametrize("before", ["h", "x", "z", "hx", "xz"])
def test_degenerate_runs_stay_real(before, angle):
    circuit = QuantumCircuit(6)
    circuit.h(range(6))
    for name in before:
        getattr(circuit, name)(0)
    circuit.ry(Parameter("a"), 0)
    circuit.cz(0, 1)
    plan, operators = plan_of(circuit, [SparsePauliOp("XXZXXX"), SparsePauliOp("IIIIXX")])
    assert plan.is_real
    question = plan, operators, np.array([[angle]]), all_pairs(1, 2)
    expected = ask(ReferenceEngine(), *question, gradient=True)
    assert_agree(ask(CpuEngine(), *question, gradient=True), expected, "complex128")


@pytest.mark.parametrize("gate", ["s", "sx", "t", "y"])
def test_one_complex_gate_makes_a_circuit_complex_unless_only_its_phase_is(gate):
    circuit = real_amplitudes(5, reps=1)
    getattr(circuit, gate)(2)
    circuit.compose(real_amplitudes(5, reps=1, parameter_prefix="b"), inplace=True)
    plan, _ = plan_of(circuit, total_z(5))
    assert plan.is_real == (gate == "y")


def test_rotations_about_other_axes_and_trained_phases_are_complex():
    for build in (
        lambda c, a: c.rx(a, 0),
        lambda c, a: c.rz(a, 0),
        lambda c, a: c.rzz(a, 0, 1),
        lambda c, a: c.cp(a, 0, 1),
    ):
        circuit = QuantumCircuit(5)
        circuit.h(range(5))
        build(circuit, Parameter("a"))
        circuit.h(range(5))
        assert not plan_of(circuit, total_z(5))[0].is_real


def test_imaginary_derivatives_of_a_real_circuit_are_those_of_the_reference():
    plan, operators = plan_of(real_amplitudes(6, reps=2), random_observables(6, 4), imaginary=True)
    assert plan.is_real
    question = plan, operators, rows_of(plan.program), all_pairs(3, 2)
    expected = ask(ReferenceEngine(), *question, gradient=True, imaginary=True)
    engine = CpuEngine()
    ask(engine, *question)  # this evaluation has real states, the next one complex states
    assert_agree(ask(engine, *question, gradient=True, imaginary=True), expected, "complex128")


def test_real_states_take_half_the_memory():
    plan, operators = plan_of(real_amplitudes(18, reps=1), total_z(18))
    question = plan, operators, rows_of(plan.program)[:1], all_pairs(1, 1)
    real, complex_ = (
        ask(CpuEngine(), *question, gradient=True, imaginary=imaginary).stats["bytes"] for imaginary in (False, True)
    )
    assert complex_ - real == pytest.approx(2 * 8 << 18, rel=0.05)
    assert Plan(plan).memory(gradient=True) == pytest.approx(real, rel=0.15)


@pytest.mark.parametrize("angle", [np.pi, 3.14159265358979, 5 * np.pi, 6.28318530717959, 4 * np.pi, 61 * np.pi, 1e-15])
def test_half_turns_are_real_however_their_angle_is_written(angle):
    circuit = real_amplitudes(5, reps=1, entanglement="linear")
    circuit.rx(angle, 0)
    circuit.cz(0, 1)
    circuit.h(2)
    circuit.rz(angle, 2)
    circuit.h(2)
    circuit.cz(1, 2)
    circuit.compose(real_amplitudes(5, reps=1, parameter_prefix="b"), inplace=True)
    assert_real_and_right(circuit, "complex128")


def test_real_states_of_values_do_not_serve_imaginary_gradients():
    plan, operators = plan_of(real_amplitudes(6, reps=2), total_z(6))
    question, options = (plan, operators, rows_of(plan.program), all_pairs(3, 1)), {"gradient": True, "imaginary": True}
    engine = CpuEngine()
    ask(engine, *question)
    assert_agree(ask(engine, *question, **options), ask(CpuEngine(), *question, **options), "complex128")
