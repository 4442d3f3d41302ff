# SPDX-License-Identifier: Apache-2.0
"""Losses of trainable kernels have exact gradients, and work in SciPy and in QuantumKernelTrainer."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from qiskit.circuit.library import real_amplitudes, zz_feature_map
from qiskit_machine_learning.kernels import TrainableFidelityStatevectorKernel
from qiskit_machine_learning.kernels.algorithms import QuantumKernelTrainer
from qiskit_machine_learning.optimizers import COBYLA
from qiskit_machine_learning.utils.loss_functions import KernelLoss, SVCLoss
from scipy.optimize import minimize

from qiskit_fused import FusedProjectedQuantumKernel, FusedQuantumKernel, FusedSVCLoss, KernelAlignmentLoss

SAMPLES = np.random.default_rng(0).random((16, 2))
LABELS = (SAMPLES[:, 0] > 0.5).astype(int)
START = np.array([0.2, -0.4, 1.0, 0.6])
LOSSES = [KernelAlignmentLoss(), KernelAlignmentLoss(centered=True), FusedSVCLoss(C=5.0, tol=1e-10)]


def kernel_of(kind=FusedQuantumKernel, **arguments):
    first, second = real_amplitudes(2, reps=1), zz_feature_map(2, reps=1)
    return kind(feature_map=first.compose(second), training_parameters=list(first.parameters), **arguments)


@pytest.mark.parametrize("kind", [FusedQuantumKernel, FusedProjectedQuantumKernel])
@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_gradients_agree_with_finite_differences(loss, kind):
    kernel, step = kernel_of(kind), 1e-5
    value, gradient = loss.value_and_gradient(START, kernel, SAMPLES, LABELS)
    assert_array_equal(kernel.parameter_values, START)
    assert_allclose(value, loss.evaluate(START, kernel, SAMPLES, LABELS))
    slopes = [
        (loss(START + change, kernel, SAMPLES, LABELS) - loss(START - change, kernel, SAMPLES, LABELS)) / (2 * step)
        for change in step * np.eye(4)
    ]
    assert_allclose(gradient, slopes, atol=1e-5)


def test_a_kernel_without_gradients_is_refused():
    with pytest.raises(
        TypeError, match=r"FusedQuantumKernel .*, not TrainableFidelityStatevectorKernel; accelerate\(k"
    ):
        KernelAlignmentLoss().value_and_gradient(START, kernel_of(TrainableFidelityStatevectorKernel), SAMPLES, LABELS)


def test_scipy_minimizes_a_loss_with_its_gradient():
    kernel, loss = kernel_of(), KernelAlignmentLoss()
    trained = minimize(loss.value_and_gradient, START, (kernel, SAMPLES, LABELS), jac=True, method="L-BFGS-B")
    assert trained.fun < loss.evaluate(START, kernel, SAMPLES, LABELS) - 0.1
    assert abs(trained.jac).max() < 1e-3


def test_the_loss_of_a_classifier_is_that_of_qiskit_machine_learning():
    upstream = SVCLoss(C=5.0).evaluate(START, kernel_of(TrainableFidelityStatevectorKernel), SAMPLES, LABELS)
    assert_allclose(FusedSVCLoss(C=5.0).evaluate(START, kernel_of(), SAMPLES, LABELS), upstream, rtol=1e-4)


@pytest.mark.parametrize("loss", LOSSES[:1] + LOSSES[2:], ids=repr)
def test_quantum_kernel_trainer_takes_a_loss(loss):
    assert isinstance(loss, KernelLoss)
    kernel = kernel_of()
    trainer = QuantumKernelTrainer(kernel, loss, optimizer=COBYLA(maxiter=10), initial_point=START)
    result = trainer.fit(SAMPLES, LABELS)
    assert_array_equal(kernel.parameter_values, result.optimal_point)


def test_gradients_are_exact_with_shots():
    exact, noisy = kernel_of(), kernel_of(shots=10, seed=1)
    found = [KernelAlignmentLoss().value_and_gradient(START, kernel, SAMPLES, LABELS) for kernel in (exact, noisy)]
    assert found[0][0] == found[1][0] and (found[0][1] == found[1][1]).all()


def test_losses_show_their_arguments():
    assert [repr(loss) for loss in LOSSES[:2]] == ["KernelAlignmentLoss()", "KernelAlignmentLoss(centered=True)"]
    assert repr(FusedSVCLoss(2.0, shrinking=False)) == "FusedSVCLoss(C=2.0, shrinking=False)"
