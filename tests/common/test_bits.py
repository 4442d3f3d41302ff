# SPDX-License-Identifier: Apache-2.0
"""The functions on bits of indices and masks agree with their definitions."""

import numpy as np

from qiskit_fused.common.bits import bits_of, spread, walsh


def test_bits_are_listed_in_ascending_order():
    assert bits_of(0) == [] and bits_of(0b1011 << 62) == [62, 63, 65]


def test_bits_of_all_indices_move_to_their_positions():
    assert spread([]).tolist() == [0]
    assert spread([3, 0, 5]).tolist() == [0, 8, 1, 9, 32, 40, 33, 41]


def test_walsh_weights_rebuild_the_values():
    values = np.random.default_rng(0).normal(size=8)
    signs = np.array([[(-1) ** bin(i & m).count("1") for m in range(8)] for i in range(8)])
    np.testing.assert_allclose(signs @ walsh(values), values)
