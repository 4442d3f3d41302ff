# SPDX-License-Identifier: Apache-2.0
"""`KernelAlignmentLoss` and `FusedSVCLoss`: losses of trainable kernels, with exact gradients."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from qiskit_machine_learning.utils.loss_functions import KernelLoss

from qiskit_fused.common.display import arguments_text
from qiskit_fused.execution.kernel_losses import MatrixLoss, alignment_loss, svc_loss
from qiskit_fused.machine_learning.base_kernel import FusedKernel


class FusedKernelLoss(KernelLoss):
    """A loss of a trainable kernel with its exact gradient; the base of the losses.

    A loss is a ``KernelLoss``, so ``QuantumKernelTrainer(kernel, loss=...)`` takes it with any kernel. The trainer
    calls `evaluate` only, and does not use gradients. With a kernel of this package, `value_and_gradient` also returns
    the gradient, in the form in which ``scipy.optimize.minimize`` takes it with ``jac=True``.
    """

    @abstractmethod
    def of_matrix(self, matrix: Any, labels: Any) -> MatrixLoss:
        """Return the loss of a kernel matrix (N, N) and its derivatives with respect to the elements (N, N)."""

    def evaluate(self, parameter_values: Any, quantum_kernel: Any, data: Any, labels: Any) -> float:
        """Return the loss. The values become those of the kernel's training parameters.

        Args:
            parameter_values: values of the W training parameters.
            quantum_kernel: the trainable kernel.
            data: the N samples, real (N, D).
            labels: the class of each sample, (N,).
        """
        quantum_kernel.assign_training_parameters(parameter_values)
        return self.of_matrix(quantum_kernel.evaluate(np.asarray(data)), labels).value

    def value_and_gradient(
        self, parameter_values: Any, quantum_kernel: FusedKernel, data: Any, labels: Any
    ) -> tuple[float, np.ndarray]:
        """Return the loss and its gradient, float64 (W,), by one backward sweep for each sample.

        The arguments are as in `evaluate`. The kernel is exact here, also if it has a number of shots.

        Raises:
            TypeError: for a kernel of another package, which has no gradients.
        """
        if not isinstance(quantum_kernel, FusedKernel):
            raise TypeError(
                f"value_and_gradient takes a FusedQuantumKernel or a FusedProjectedQuantumKernel, not "
                f"{type(quantum_kernel).__name__}; accelerate(kernel) makes a FusedQuantumKernel of it."
            )
        found: list[MatrixLoss] = []

        def cotangents(matrix: np.ndarray) -> np.ndarray:
            found.append(self.of_matrix(matrix, labels))
            return found[0].cotangents

        quantum_kernel.assign_training_parameters(parameter_values)
        gradient = quantum_kernel.value_and_vjp(data, None, cotangents).weights
        return found[0].value, gradient


class KernelAlignmentLoss(FusedKernelLoss):
    """The loss ``1 - A``, where A is the alignment of a kernel matrix with the labels.

    See `alignment_loss <qiskit_fused.execution.kernel_losses.alignment_loss>` for the formula. `value_and_gradient`
    trains with exact gradients, as here; ``QuantumKernelTrainer`` calls `evaluate` only.

    >>> from qiskit.circuit.library import real_amplitudes, zz_feature_map
    >>> from scipy.optimize import minimize
    >>> from qiskit_fused import FusedQuantumKernel
    >>> first, second = real_amplitudes(2, reps=1), zz_feature_map(2, reps=1)
    >>> kernel = FusedQuantumKernel(feature_map=first.compose(second), training_parameters=first.parameters)
    >>> samples = np.random.default_rng(0).random((20, 2))
    >>> labels = samples[:, 0] > 0.5
    >>> loss = KernelAlignmentLoss()
    >>> trained = minimize(loss.value_and_gradient, np.ones(4), (kernel, samples, labels), jac=True)
    >>> trained.fun < loss.evaluate(np.ones(4), kernel, samples, labels)
    True
    >>> kernel.assign_training_parameters(trained.x)

    Args:
        centered: whether the matrix and the labels are centered first.
    """

    def __init__(self, centered: bool = False):
        self.centered = centered

    def __repr__(self) -> str:
        return f"KernelAlignmentLoss({'centered=True' if self.centered else ''})"

    def of_matrix(self, matrix: Any, labels: Any) -> MatrixLoss:
        """Return the loss of a kernel matrix (N, N) and its derivatives with respect to the elements (N, N)."""
        return alignment_loss(matrix, labels, centered=self.centered)


class FusedSVCLoss(FusedKernelLoss):
    """The loss of a support vector classifier, as ``SVCLoss`` of qiskit-machine-learning, with its gradient.

    A small loss is a large margin; see `svc_loss <qiskit_fused.execution.kernel_losses.svc_loss>`. For more than two
    classes, it is the sum over all pairs of classes, and ``SVCLoss`` returns another number. `value_and_gradient` gives
    exact gradients to an optimizer; ``QuantumKernelTrainer`` calls `evaluate` only.

    >>> from qiskit.circuit.library import real_amplitudes, zz_feature_map
    >>> from qiskit_fused import FusedQuantumKernel
    >>> first, second = real_amplitudes(2, reps=1), zz_feature_map(2, reps=1)
    >>> kernel = FusedQuantumKernel(feature_map=first.compose(second), training_parameters=first.parameters)
    >>> samples = np.random.default_rng(0).random((20, 2))
    >>> value, gradient = FusedSVCLoss(C=10.0).value_and_gradient(np.ones(4), kernel, samples, samples[:, 0] > 0.5)
    >>> value == FusedSVCLoss(C=10.0).evaluate(np.ones(4), kernel, samples, samples[:, 0] > 0.5), gradient.shape
    (True, (4,))

    Args:
        C: the bound of the multipliers.
        arguments: further arguments of ``sklearn.svm.SVC``, such as ``class_weight``.
    """

    def __init__(self, C: float = 1.0, **arguments: Any):
        self.C, self.arguments = C, arguments

    def __repr__(self) -> str:
        return f"FusedSVCLoss({arguments_text({'C': self.C} | self.arguments)})"

    def of_matrix(self, matrix: Any, labels: Any) -> MatrixLoss:
        """Return the loss of a kernel matrix (N, N) and its derivatives with respect to the elements (N, N)."""
        return svc_loss(matrix, labels, self.C, **self.arguments)
