# SPDX-License-Identifier: Apache-2.0
"""Results of single rows, and the algorithms of Qiskit that read results of samplers."""

import pickle

import numpy as np
import pytest
from qiskit import ClassicalRegister, QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import efficient_su2, real_amplitudes, z_feature_map
from qiskit.quantum_info import SparsePauliOp, Statevector
from qiskit_algorithms import PVQD, QAOA, SamplingVQE, TimeEvolutionProblem
from qiskit_algorithms.optimizers import COBYLA, L_BFGS_B
from qiskit_algorithms.state_fidelities import ComputeUncompute as AlgorithmsComputeUncompute
from qiskit_machine_learning.algorithms import QSVC, VQC
from qiskit_machine_learning.kernels import FidelityQuantumKernel
from qiskit_machine_learning.neural_networks import SamplerQNN
from qiskit_machine_learning.primitives import QMLSampler
from qiskit_machine_learning.state_fidelities import ComputeUncompute

from qiskit_fused import FusedEstimator, FusedSampler


def network(*registers):
    """Return a circuit of two qubits whose bits belong to registers given as pairs of a name and a size."""
    inputs, weights = ParameterVector("x", 2), ParameterVector("w", 4)
    circuit = QuantumCircuit(2)
    for qubit in range(2):
        circuit.ry(inputs[qubit], qubit)
    circuit.compose(real_amplitudes(2, reps=1).assign_parameters(weights), inplace=True)
    for name, size in registers:
        circuit.add_register(ClassicalRegister(size, name))
    circuit.measure(range(2), range(2))
    return circuit, inputs, weights


REGISTERS = {"meas": [("meas", 2)], "other name": [("out", 2)], "two": [("low", 1), ("high", 1)]}


@pytest.mark.parametrize("registers", REGISTERS.values(), ids=REGISTERS)
def test_counts_of_a_row_are_those_of_the_joined_registers(registers):
    circuit, *_ = network(*registers)
    values = np.random.default_rng(0).normal(size=(2, 3, 6))
    result = FusedSampler(seed=1).run([(circuit, values)]).result()[0]
    exact = FusedSampler(default_shots=None).run([(circuit, values)]).result()[0]
    for index in np.ndindex(2, 3):
        assert result.data.get_counts(index) == result.join_data()[index].get_counts()
        assert exact.data.get_counts(index) == exact.join_data().get_probabilities(index)
    scalar = FusedSampler().run([(circuit, values[0, 0])]).result()[0]
    assert scalar.data.get_counts() == scalar.data.get_counts(0) == scalar.join_data().get_counts()
    assert type(pickle.loads(pickle.dumps(result.data))) is type(result.data)


def test_meas_is_read_alone_as_in_sampler_qnn():
    circuit, *_ = network(("meas", 2), ("more", 3))
    data = FusedSampler().run([(circuit, np.zeros(6))]).result()[0].data
    assert data.get_counts() == {"00": 1024}


def test_a_circuit_without_registers_has_no_counts():
    with pytest.warns(UserWarning, match="no output classical registers"):
        job = FusedSampler().run([QuantumCircuit(1)])
    assert job.result()[0].data.get_counts() == {}


@pytest.mark.parametrize("registers", REGISTERS.values(), ids=REGISTERS)
def test_a_sampler_network_keeps_its_rows_apart_with_registers_of_any_name(registers):
    circuit, inputs, weights = network(*registers)
    rng = np.random.default_rng(0)
    samples, point = rng.normal(size=(4, 2)), rng.normal(size=4)
    keywords = {"input_params": inputs, "weight_params": weights, "interpret": lambda x: x % 2, "output_shape": 2}

    def forward(sampler, rows):
        return SamplerQNN(circuit=circuit, sampler=sampler, **keywords).forward(rows, point)

    one_by_one = np.concatenate([forward(QMLSampler(), row) for row in samples])
    np.testing.assert_allclose(forward(FusedSampler(default_shots=None), samples), one_by_one, atol=1e-9)
    if len(registers) == 1:  # with shots, Qiskit joins several registers in another order
        drawn = forward(FusedSampler(seed=1), samples)
        np.testing.assert_allclose(drawn, one_by_one, atol=5 * 0.5 / np.sqrt(1024))


@pytest.mark.parametrize("shots", [4096, None])
def test_gradients_by_parameter_shift_run_on_the_sampler(shots):
    circuit, inputs, weights = network(("meas", 2))
    rng = np.random.default_rng(0)
    samples, point = rng.normal(size=(3, 2)), rng.normal(size=4)

    def backward(sampler):
        return SamplerQNN(
            circuit=circuit, sampler=sampler, input_params=inputs, weight_params=weights, input_gradients=True
        ).backward(samples, point)

    for ours, theirs in zip(backward(FusedSampler(default_shots=shots, seed=1)), backward(QMLSampler())):
        np.testing.assert_allclose(ours, theirs, atol=1e-9 if shots is None else 0.05)


@pytest.mark.parametrize("kind", [ComputeUncompute, AlgorithmsComputeUncompute])
def test_fidelities_are_those_of_states(kind):
    circuit = efficient_su2(2, reps=1)
    left, right = np.random.default_rng(0).normal(size=(2, 5, 8))
    states = [[Statevector(circuit.assign_parameters(row)) for row in rows] for rows in (left, right)]
    expected = [abs(a.inner(b)) ** 2 for a, b in zip(*states)]
    fidelity = kind(FusedSampler(seed=1, default_shots=10_000))
    found = fidelity.run([circuit] * 5, [circuit] * 5, list(left), list(right)).result().fidelities
    np.testing.assert_allclose(found, expected, atol=0.03)
    if kind is ComputeUncompute:
        exact = kind(FusedSampler(default_shots=None))
        found = exact.run([circuit] * 5, [circuit] * 5, list(left), list(right)).result().fidelities
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_the_options_of_a_fidelity_are_those_of_the_sampler():
    fidelity = ComputeUncompute(FusedSampler(dtype="complex64"), options={"num_threads": 1})
    assert fidelity.options.dtype == "complex64" and fidelity.options.num_threads == 1
    assert fidelity._sampler.options.num_threads is None


def test_a_kernel_classifier_runs_on_the_sampler():
    samples = np.random.default_rng(0).normal(size=(8, 2))
    labels = np.array([0, 1] * 4)
    feature_map = z_feature_map(2, reps=1)
    kernels = [
        FidelityQuantumKernel(feature_map=feature_map, fidelity=ComputeUncompute(sampler))
        for sampler in (FusedSampler(default_shots=None), QMLSampler())
    ]
    ours, theirs = (kernel.evaluate(samples) for kernel in kernels)
    np.testing.assert_allclose(ours, theirs, atol=1e-9)
    assert QSVC(quantum_kernel=kernels[0]).fit(samples, labels).score(samples, labels) > 0.5


@pytest.mark.parametrize("shots", [1024, None])
def test_a_variational_classifier_runs_on_the_sampler(shots):
    samples = np.random.default_rng(0).normal(size=(6, 2))
    labels = np.array([0, 1] * 3)
    classifier = VQC(
        num_qubits=2, optimizer=COBYLA(maxiter=12), sampler=FusedSampler(default_shots=shots, seed=1), ansatz=None
    )
    assert classifier.fit(samples, labels).predict(samples).shape == (6,)


def test_sampling_vqe_finds_the_least_energy():
    hamiltonian = SparsePauliOp(["ZZ", "IZ"], [1.0, 0.5])
    solver = SamplingVQE(
        FusedSampler(seed=1), real_amplitudes(2, reps=1), COBYLA(maxiter=60), initial_point=np.full(4, 0.5)
    )
    assert solver.compute_minimum_eigenvalue(hamiltonian).eigenvalue.real < -1.2
    solver = QAOA(FusedSampler(seed=1), COBYLA(maxiter=30), reps=2, initial_point=np.full(4, 0.5))
    assert solver.compute_minimum_eigenvalue(hamiltonian).eigenvalue.real < -0.5


def test_pvqd_follows_the_time_evolution():
    hamiltonian = SparsePauliOp(["ZZ", "IX", "XI"], [0.1, 1, 1])
    ansatz = efficient_su2(2, reps=1)
    solver = PVQD(
        AlgorithmsComputeUncompute(FusedSampler(seed=1, default_shots=10_000)),
        ansatz,
        np.zeros(ansatz.num_parameters),
        estimator=FusedEstimator(),
        num_timesteps=2,
        optimizer=L_BFGS_B(maxiter=3),
    )
    result = solver.evolve(TimeEvolutionProblem(hamiltonian, time=0.2, aux_operators=[hamiltonian]))
    assert result.estimated_error < 0.5
