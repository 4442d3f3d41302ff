# SPDX-License-Identifier: Apache-2.0
"""Losses of kernel matrices have the values of their definitions, and derivatives as of finite differences."""

import re

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.svm import SVC

from qiskit_fused.execution.kernel_losses import alignment_loss, svc_loss

RNG = np.random.default_rng(5)
FEATURES = RNG.normal(size=(12, 3))
MATRIX = np.exp(-((FEATURES[:, None] - FEATURES) ** 2).sum(axis=2))
TWO = np.where(FEATURES[:, 0] > 0.3, "yes", "no")
THREE = np.digitize(FEATURES[:, 0], [-0.5, 0.5])

LOSSES = {
    "alignment": alignment_loss,
    "centered": lambda matrix, labels: alignment_loss(matrix, labels, centered=True),
    "svc": lambda matrix, labels: svc_loss(matrix, labels, C=2.0, tol=1e-10),
    "weighted svc": lambda matrix, labels: svc_loss(matrix, labels, class_weight="balanced", tol=1e-10),
}


@pytest.mark.parametrize("labels", [TWO, THREE], ids=["two", "three"])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_derivatives_agree_with_finite_differences(loss, labels):
    found, step = loss(MATRIX, labels), RNG.normal(size=MATRIX.shape)
    step = 1e-5 * (step + step.T)
    slope = (loss(MATRIX + step, labels).value - loss(MATRIX - step, labels).value) / 2
    assert_allclose((found.cotangents * step).sum(), slope, rtol=1e-4)


def test_the_alignment_of_two_classes_is_that_with_the_product_of_their_signs():
    signs = np.where(TWO == "yes", 1.0, -1.0)
    alignment = signs @ MATRIX @ signs / (len(signs) * np.linalg.norm(MATRIX))
    assert_allclose(alignment_loss(MATRIX, TWO).value, 1 - alignment)
    assert_allclose(alignment_loss(MATRIX, signs[:, None]).value, 1 - alignment)


@pytest.mark.parametrize("centered", [False, True])
def test_a_matrix_that_equals_its_target_has_the_loss_zero_and_no_derivative(centered):
    target = np.where(THREE[:, None] == THREE, 1.0, -0.5)
    found = alignment_loss(target, THREE, centered=centered)
    assert_allclose(found.value, 0, atol=1e-14)
    assert_allclose(found.cotangents, 0, atol=1e-14)


def test_a_constant_in_the_matrix_does_not_change_a_centered_alignment():
    shifted = alignment_loss(MATRIX + 0.7, TWO, centered=True).value
    assert_allclose(shifted, alignment_loss(MATRIX, TWO, centered=True).value)
    assert alignment_loss(MATRIX + 0.7, TWO).value != alignment_loss(MATRIX, TWO).value


def test_the_loss_of_a_classifier_is_that_of_its_dual_problem():
    model = SVC(kernel="precomputed", C=2.0, tol=1e-8).fit(MATRIX, TWO)
    multipliers, support = model.dual_coef_[0], model.support_
    primal_part = multipliers @ MATRIX[np.ix_(support, support)] @ multipliers
    assert_allclose(svc_loss(MATRIX, TWO, C=2.0).value, abs(multipliers).sum() - primal_part / 2)


def test_the_loss_of_three_classes_is_the_sum_over_pairs_of_classes():
    pairs = [missing != THREE for missing in range(3)]
    parts = [svc_loss(MATRIX[np.ix_(pair, pair)], THREE[pair]).value for pair in pairs]
    assert_allclose(svc_loss(MATRIX, THREE).value, sum(parts))


@pytest.mark.parametrize("loss", [alignment_loss, svc_loss])
@pytest.mark.parametrize(
    ("matrix", "labels", "text"),
    [
        (MATRIX[:3], TWO[:3], "the matrix has shape (3, 12); allowed: (samples, samples)."),
        (MATRIX, TWO[:3], "labels have shape (3,); allowed: (12,), one for each sample."),
        (MATRIX, np.zeros(12), "all labels are [0.0]; allowed: labels of at least 2 classes."),
    ],
)
def test_bad_matrices_and_labels_are_named(loss, matrix, labels, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        loss(matrix, labels)


@pytest.mark.parametrize("loss", [alignment_loss, svc_loss])
@pytest.mark.parametrize("matrix", [None, MATRIX * 1j, MATRIX.astype(str)], ids=["none", "complex", "strings"])
def test_a_matrix_that_is_no_array_of_real_numbers_is_refused(loss, matrix):
    with pytest.raises(TypeError, match=r"the matrix (is|are) .*; allowed: (real )?numbers"):
        loss(matrix, TWO)


def test_a_matrix_without_a_norm_has_no_alignment():
    with pytest.raises(ValueError, match="the norm of the matrix is 0"):
        alignment_loss(np.ones((2, 2)), [0, 1], centered=True)
