# SPDX-License-Identifier: Apache-2.0
"""FusedQGT takes the place of LinCombQGT and ReverseQGT, in QFI and in variational time evolution too."""

import numpy as np
import pytest
import qiskit_algorithms.gradients as algorithms
import qiskit_machine_learning.gradients as learning
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.circuit.library import efficient_su2
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp
from qiskit_algorithms import TimeEvolutionProblem, VarQITE, VarQRTE
from qiskit_algorithms.time_evolvers.variational import ImaginaryMcLachlanPrinciple, RealMcLachlanPrinciple

from qiskit_fused import FusedEstimator, FusedEstimatorGradient, FusedQGT, UnsupportedInstruction

A, B, C = (Parameter(name) for name in "abc")


@pytest.fixture
def circuit():
    """Return a circuit of shared parameters, products, an angle of two parameters and a global phase."""
    circuit = QuantumCircuit(2, global_phase=A)
    circuit.h(0)
    circuit.ry(2 * B + 0.3, 0)
    circuit.cx(0, 1)
    circuit.rz(A * B, 1)
    circuit.rx(C + A, 0)
    circuit.rzz(B, 0, 1)
    return circuit


@pytest.mark.parametrize("phase_fix", [True, False])
@pytest.mark.parametrize("kind", ["REAL", "IMAG", "COMPLEX"])
def test_results_are_those_of_lincomb_qgt(phase_fix, kind):
    circuit = QuantumCircuit(2)
    circuit.ry(2 * B + 0.3, 0)
    circuit.cx(0, 1)
    circuit.rz(A, 1)
    circuit.rx(C, 0)
    circuit.rzz(-B, 0, 1)
    arguments = [circuit, circuit], [[0.1, 0.7, -0.4], [0.2, 0.3, 0.5]], [[C, A], None]
    types = learning.DerivativeType[kind], algorithms.DerivativeType[kind]
    expected = learning.LinCombQGT(StatevectorEstimator(), phase_fix, types[0]).run(*arguments).result()
    for derivative_type in types:
        found = FusedQGT(phase_fix=phase_fix, derivative_type=derivative_type).run(*arguments).result()
        assert found.derivative_type is derivative_type and found.metadata == expected.metadata
        for qgt, other in zip(found.qgts, expected.qgts, strict=True):
            assert qgt.dtype == other.dtype
            np.testing.assert_allclose(qgt, other, atol=1e-10)


@pytest.mark.parametrize("library", [learning, algorithms])
def test_qfi_of_both_libraries_takes_it_and_leaves_its_derivative_type(circuit, library):
    qgt, reverse = FusedQGT(), algorithms.QFI(algorithms.ReverseQGT())
    found = library.QFI(qgt).run([circuit], [[0.1, 0.7, -0.4]]).result().qfis[0]
    expected = reverse.run([circuit], [[0.1, 0.7, -0.4]]).result().qfis[0]
    np.testing.assert_allclose(found, expected, atol=1e-10)
    assert qgt.derivative_type.name == "COMPLEX"


@pytest.mark.parametrize(
    ("evolver", "principle"), [(VarQITE, ImaginaryMcLachlanPrinciple), (VarQRTE, RealMcLachlanPrinciple)]
)
def test_variational_time_evolution_takes_it_with_the_gradient(evolver, principle):
    hamiltonian, ansatz = SparsePauliOp(["ZZ", "IX", "XI"], [0.4, 0.7, 0.2]), efficient_su2(2, reps=1)
    start, problem = np.full(ansatz.num_parameters, 0.2), TimeEvolutionProblem(hamiltonian, time=0.1)
    kind = algorithms.DerivativeType.IMAG if evolver is VarQRTE else algorithms.DerivativeType.REAL
    ours = principle(FusedQGT(), FusedEstimatorGradient(derivative_type=kind))
    theirs = principle(algorithms.ReverseQGT(), algorithms.ReverseEstimatorGradient(derivative_type=kind))
    found, expected = (
        evolver(ansatz, start, one, FusedEstimator(), num_timesteps=3).evolve(problem).parameter_values[-1]
        for one in (ours, theirs)
    )
    np.testing.assert_allclose(found, expected, atol=1e-8)


@pytest.mark.parametrize(
    ("evolver", "principle"), [(VarQITE, ImaginaryMcLachlanPrinciple), (VarQRTE, RealMcLachlanPrinciple)]
)
def test_a_hamiltonian_that_depends_on_time_may_be_zero_at_the_start(evolver, principle):
    """VarQITE and VarQRTE end without an error at a step in which the gradient raises one."""
    time, ansatz = Parameter("t"), efficient_su2(1, reps=1)
    hamiltonian = SparsePauliOp(["I", "Z"], np.array([0, time]))
    start, problem = np.full(4, 0.4), TimeEvolutionProblem(hamiltonian, time=1.0, t_param=time)
    kind = algorithms.DerivativeType.IMAG if evolver is VarQRTE else algorithms.DerivativeType.REAL
    estimator = FusedEstimator()
    ours = principle(FusedQGT(), FusedEstimatorGradient(estimator, derivative_type=kind))
    theirs = principle(algorithms.ReverseQGT(), algorithms.ReverseEstimatorGradient(derivative_type=kind))
    found, expected = (
        evolver(ansatz, start, one, estimator, num_timesteps=4).evolve(problem).parameter_values
        for one in (ours, theirs)
    )
    assert len(found) == 5
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_options_come_from_the_estimator_or_from_keywords():
    estimator = FusedEstimator(dtype="complex64")
    assert FusedQGT(estimator).fused_options.dtype == "complex64"
    assert FusedQGT(StatevectorEstimator(), dtype="complex64").fused_options.dtype == "complex64"
    assert repr(FusedQGT(phase_fix=False, num_threads=1)) == "FusedQGT(num_threads=1, phase_fix=False)"
    with pytest.raises(TypeError, match="estimator must be an estimator or None"):
        FusedQGT(3)


@pytest.mark.parametrize("kind", [FusedQGT, FusedEstimatorGradient])
@pytest.mark.parametrize("wrong", ["REAL", None, 1])
def test_another_derivative_type_is_refused(kind, wrong):
    with pytest.raises(ValueError, match=r"derivative_type is .*; allowed: DerivativeType\.REAL, "):
        kind(derivative_type=wrong)
    with pytest.raises(ValueError, match="derivative_type is"):
        kind().derivative_type = wrong


def test_errors_name_the_request(circuit):
    qgt = FusedQGT()
    with pytest.raises(ValueError, match=r"The number of values \(2\)"):
        qgt.run([circuit], [[0.1, 0.2]])
    with pytest.raises(ValueError, match="The 0-th parameters contains parameters not present"):
        qgt.run([circuit], [[0.1, 0.2, 0.3]], [[Parameter("z")]])
    with pytest.raises(ValueError, match="The 0-th parameters contains parameters not present"):
        qgt.run([circuit], [[0.1, 0.2, 0.3]], [[list(circuit.parameters)]])
    with pytest.raises(TypeError, match="parameters are a mapping; allowed: for each circuit a sequence"):
        qgt.run([circuit], [[0.1, 0.2, 0.3]], {circuit.parameters[0]: 1})
    root = QuantumCircuit(1)
    root.ry(A**0.5, 0)
    with pytest.raises(ValueError, match="no finite derivative with respect to 'a' in row 1"):
        qgt.run([root, root], [[0.1], [0.0]]).result()
    measured = QuantumCircuit(1, 1)
    measured.measure(0, 0)
    measured.rx(A, 0)
    with pytest.raises(UnsupportedInstruction):
        qgt.run([measured], [[0.1]]).result()


def test_the_progress_reaches_its_total(circuit):
    calls = []
    FusedQGT(progress=lambda done, total: calls.append((done, total))).run([circuit], [[0.1, 0.2, 0.3]]).result()
    assert calls and calls[-1][0] == calls[-1][1]
