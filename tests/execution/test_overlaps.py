# SPDX-License-Identifier: Apache-2.0
"""Tiles cover a matrix, and products of tiles give fidelities and the cotangents of states."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiskit_fused.execution import overlaps
from qiskit_fused.execution.overlaps import Tiling, cotangents_of_states, mirror, overlaps_of, squared

COUNTS = st.integers(0, 700)
TILINGS = st.builds(
    Tiling,
    st.sampled_from([1, 1 << 10, 1 << 20, 1 << 30]),
    st.sampled_from([8, 16]),
    st.integers(1, 8),
    st.sampled_from([0, 1, 128 << 20]),
)


def random_states(num_states, size, seed=0):
    states = np.random.default_rng(seed).normal(size=(num_states, size, 2)) @ [1, 1j]
    return states / np.linalg.norm(states, axis=1, keepdims=True)


@given(COUNTS, COUNTS, TILINGS)
def test_tiles_cover_each_element_once_and_are_bounded(num_rows, num_columns, tiling):
    count = np.zeros((num_rows, num_columns), int)
    for rows, columns in tiling.tiles(num_rows, num_columns):
        count[rows, columns] += 1
        height, width = rows.stop - rows.start, columns.stop - columns.start
        assert height * width * tiling.size <= tiling._most_products or min(height, width) <= overlaps._LEAST_TILE_ROWS
    assert (count == 1).all()


@given(COUNTS, TILINGS)
def test_lower_tiles_cover_each_element_below_the_diagonal_once(num_rows, tiling):
    count = np.zeros((num_rows, num_rows), int)
    for rows, columns in tiling.lower_tiles(num_rows):
        count[rows, columns] += 1
        assert columns.stop in (rows.stop, min(columns.stop, rows.start))
    assert (np.tril(count) == np.tril(np.ones_like(count))).all() and count.max(initial=0) <= 1


def test_lower_tiles_leave_out_nearly_half_of_a_large_matrix():
    tiles = Tiling(1, 16).lower_tiles(4000)
    area = sum((rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in tiles)
    assert area < 0.57 * 4000**2


def test_each_thread_has_several_strips_of_a_large_matrix():
    assert len(Tiling(1024, 8, 8).strips(5000, 100)) >= 32
    assert len(Tiling(1024, 8).strips(200, 100)) == 1


def test_a_mirrored_square_is_hermitian_with_ones_on_its_diagonal():
    overlaps_found = overlaps_of(*[random_states(5, 4)] * 2)
    square = overlaps_found + np.triu(np.ones((5, 5)), 1)  # wrong above the diagonal
    mirror(square)
    assert (square == square.conj().T).all() and (np.diag(square) == 1).all()
    np.testing.assert_allclose(square, overlaps_found, atol=1e-15)


@pytest.mark.parametrize("real", [False, True])
def test_squares_are_fidelities_and_never_exceed_one(real):
    left, right = random_states(5, 4), random_states(3, 4, seed=1)
    if real:
        left, right = left.real, right.real
    expected = [[abs(np.vdot(psi, phi)) ** 2 for phi in right] for psi in left]
    np.testing.assert_allclose(squared(overlaps_of(left, right)), np.minimum(expected, 1), atol=1e-15)
    assert squared(np.array([[1 + 1e-15 + 0j]])).item() == 1


def test_cotangents_of_states_give_the_differential_of_weighted_fidelities():
    rng, left, right = np.random.default_rng(2), random_states(4, 8), random_states(3, 8, seed=1)
    weights, step = rng.normal(size=(4, 3)), 1e-6 * random_states(4, 8, seed=3)
    cotangents = cotangents_of_states(weights, overlaps_of(left, right), right)
    ahead, behind = ((weights * np.abs(overlaps_of(psi, right)) ** 2).sum() for psi in (left + step, left - step))
    np.testing.assert_allclose(2 * np.vdot(cotangents, step).real, ahead - behind, rtol=1e-6)
