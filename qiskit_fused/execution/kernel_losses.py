# SPDX-License-Identifier: Apache-2.0
"""Losses of kernel matrices, with their derivatives with respect to the elements of the matrix."""

from __future__ import annotations

from math import sqrt
from typing import Any, NamedTuple

import numpy as np

from qiskit_fused.common.arrays import real_values
from qiskit_fused.execution.product_threads import inner_product


class MatrixLoss(NamedTuple):
    """A loss of a kernel matrix and its derivatives.

    Attributes:
        value: the loss L.
        cotangents: float64 (N, N), ``dL/dK_ij``.
    """

    value: float
    cotangents: np.ndarray


def alignment_loss(matrix: Any, labels: Any, *, centered: bool = False) -> MatrixLoss:
    """Return the loss ``1 - A`` of a kernel matrix K, where A is its alignment with the labels.

    The alignment is ``A = <K, T> / (|K| |T|)`` with the Frobenius product and norm. The target T has the elements 1 for
    samples of one class and ``-1 / (c - 1)`` for samples of two of the c classes; for two classes, it is ``y y^T`` with
    the labels ``y = -1, 1``. A matrix that equals its target has the loss 0.

    >>> loss = alignment_loss([[1.0, 0.5], [0.5, 1.0]], [0, 1])
    >>> round(loss.value, 3), loss.cotangents.round(3).tolist()
    (0.684, [[-0.19, 0.379], [0.379, -0.19]])

    Args:
        matrix: K, real (N, N).
        labels: the class of each sample, (N,), of at least 2 classes.
        centered: whether rows and columns of K and T are centered first: from each element, the mean of its row and of
            its column are subtracted and the mean of all elements is added. Then classes of different sizes, and a
            constant in K, do not change the alignment.

    Raises:
        ValueError: for a matrix that is not square, another number of labels, fewer than 2 classes, or a matrix whose
            norm is 0.

    Source: N. Cristianini et al., On kernel-target alignment (2001); C. Cortes et al., arXiv:1203.0550.
    """
    matrix, classes, count = _checked(matrix, labels)
    target = np.where(classes[:, None] == classes, 1.0, -1 / (count - 1))
    center = _centered if centered else np.asarray
    matrix, target = center(matrix), center(target)
    norm, target_norm = (sqrt(inner_product(array, array)) for array in (matrix, target))
    if norm == 0:
        raise ValueError("the norm of the matrix is 0, so that it has no alignment.")
    alignment = inner_product(matrix, target) / (norm * target_norm)
    # A centered matrix is a projection of the matrix, and so is this gradient: it has no further part to center.
    cotangents = alignment / norm**2 * matrix - target / (norm * target_norm)
    return MatrixLoss(float(1 - alignment), cotangents)


def _centered(matrix: np.ndarray) -> np.ndarray:
    """Return a matrix whose rows and columns have the mean 0."""
    centered: np.ndarray = matrix - matrix.mean(axis=0) - matrix.mean(axis=1)[:, None] + matrix.mean()
    return centered


def svc_loss(matrix: Any, labels: Any, C: float = 1.0, **arguments: Any) -> MatrixLoss:
    """Return the loss of a support vector classifier, the largest value of its dual problem.

    For two classes with the labels ``y = -1, 1``, it is ``max_a sum_i a_i - 1/2 sum_ij a_i a_j y_i y_j K_ij`` over
    multipliers ``0 <= a_i <= C`` with ``sum_i a_i y_i = 0``. For more classes, it is the sum over all pairs of classes.
    A small loss is a large margin. The derivatives are ``dL/dK_ij = -1/2 a_i a_j y_i y_j`` at the best multipliers:
    these change with K too, but do not change the loss in first order, since the loss is largest there.

    >>> loss = svc_loss([[1.0, 0.5], [0.5, 1.0]], [0, 1], C=10.0)
    >>> round(loss.value, 3), loss.cotangents.round(3).tolist()
    (2.0, [[-2.0, 2.0], [2.0, -2.0]])

    Args:
        matrix: K, real (N, N).
        labels: the class of each sample, (N,), of at least 2 classes.
        C: the bound of the multipliers.
        arguments: further arguments of ``sklearn.svm.SVC``. The tolerance ``tol`` of its solver is 1e-8 here, because
            the errors of the derivatives are as large as the errors of the multipliers.

    Raises:
        ValueError: for a matrix that is not square, another number of labels, or fewer than 2 classes.

    Source: J. Hubregtsen et al., arXiv:2105.02276; J. Glick et al., arXiv:2105.03406.
    """
    # scikit-learn takes a second to import.
    from sklearn.svm import SVC

    matrix, classes, count = _checked(matrix, labels)
    cotangents, value = np.zeros_like(matrix), 0.0
    for second in range(count):
        for first in range(second):
            samples = np.flatnonzero((classes == first) | (classes == second))
            model = SVC(kernel="precomputed", C=C, **{"tol": 1e-8, **arguments})
            model.fit(matrix[np.ix_(samples, samples)], classes[samples])
            support, multipliers = samples[model.support_], model.dual_coef_[0]
            place = np.ix_(support, support)
            value += float(np.abs(multipliers).sum() - multipliers @ matrix[place] @ multipliers / 2)
            cotangents[place] -= np.outer(multipliers, multipliers) / 2
    return MatrixLoss(value, cotangents)


def _checked(matrix: Any, labels: Any) -> tuple[np.ndarray, np.ndarray, int]:
    """Return a matrix as an array, the number of the class of each sample, and the number of classes."""
    matrix, labels = real_values(matrix, "the matrix", "pair of samples"), np.asarray(labels)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"the matrix has shape {matrix.shape}; allowed: (samples, samples).")
    if labels.shape == (len(matrix), 1):  # a column of labels, as QuantumKernelTrainer describes them
        labels = labels[:, 0]
    if labels.shape != (len(matrix),):
        raise ValueError(f"labels have shape {labels.shape}; allowed: ({len(matrix)},), one for each sample.")
    names, classes = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"all labels are {names.tolist()}; allowed: labels of at least 2 classes.")
    return matrix, classes, len(names)
