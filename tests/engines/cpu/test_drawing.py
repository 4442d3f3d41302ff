# SPDX-License-Identifier: Apache-2.0
"""Drawn outcomes are the outcomes of NumPy's random stream, searched for in the sums of the probabilities."""

import numpy as np
import pytest

from qiskit_fused.engines.cpu.drawing import draw_outcomes

KEY = np.array([0x123456789ABCDEF0, 0xFEDCBA9876543210], dtype=np.uint64)


def plain_draws(probabilities, sources, streams, num_shots):
    """Draw as `draw_outcomes` does, one row after the other in NumPy."""
    rows = []
    for source, stream in zip(sources.tolist(), streams.tolist()):
        uniform = np.random.Generator(np.random.Philox(counter=[0, 0, stream, 0], key=KEY)).random(num_shots)
        sums = probabilities[source].cumsum()
        rows.append(np.searchsorted(sums, uniform * sums[-1], side="right"))
    return np.array(rows)


def skewed(rng, num_rows, num_outcomes, power):
    """Return probabilities of which a fifth is 0; the larger the power, the smaller are most of the others."""
    probabilities = rng.random((num_rows, num_outcomes)) ** power
    probabilities[rng.random(probabilities.shape) < 0.2] = 0
    probabilities[:, 0] += 1e-9
    return probabilities


@pytest.mark.parametrize("power", [1, 30])
@pytest.mark.parametrize(
    ("num_outcomes", "num_draws", "num_shots"),
    [(1, 3, 7), (2, 5, 100), (32, 50, 1024), (1000, 7, 1025), (1 << 15, 3, 5000), (1 << 17, 1, 6), (4096, 1, 100_001)],
)
def test_outcomes_are_those_of_the_plain_search_for_any_threads(num_outcomes, num_draws, num_shots, power):
    rng = np.random.default_rng(num_outcomes)
    probabilities = skewed(rng, num_draws, num_outcomes, power)
    sources = np.sort(rng.integers(num_draws, size=num_draws))
    streams = rng.integers(1 << 63, size=num_draws).astype(np.uint64)
    expected = plain_draws(probabilities, sources, streams, num_shots)
    for num_threads in (1, 2, 5):
        drawn = draw_outcomes(probabilities, sources, streams, KEY, num_shots, num_threads=num_threads)
        np.testing.assert_array_equal(drawn, expected)


@pytest.mark.parametrize("first", [1, 63, 64, 65, 130])
def test_shots_can_be_drawn_in_several_calls(first):
    probabilities = skewed(np.random.default_rng(0), 2, 40, 1)
    sources, streams = np.array([0, 1, 1]), np.arange(3).astype(np.uint64)
    whole = draw_outcomes(probabilities, sources, streams, KEY, 200)
    begin = draw_outcomes(probabilities, sources, streams, KEY, first)
    end = draw_outcomes(probabilities, sources, streams, KEY, 200 - first, first_shot=first)
    np.testing.assert_array_equal(np.hstack([begin, end]), whole)


def test_sums_need_not_be_one():
    probabilities = np.array([[0.1, 0.2, 0.0, 0.1]])
    sources, streams = np.zeros(1, dtype=int), np.zeros(1, np.uint64)
    drawn = [draw_outcomes(scale * probabilities, sources, streams, KEY, 1000) for scale in (1, 0.25, 1e-200, 1e200)]
    for other in drawn[1:]:
        np.testing.assert_array_equal(other, drawn[0])
    assert set(drawn[0][0].tolist()) == {0, 1, 3}


def test_the_largest_uniform_numbers_draw_the_last_possible_outcome():
    # Sums of three thirds are rounded down, so that a search for the largest uniform number could pass their end.
    probabilities = np.array([[1 / 3, 1 / 3, 1 / 3, 0.0, 0.0]]) / 7
    drawn = draw_outcomes(probabilities, np.zeros(1, dtype=int), np.zeros(1, np.uint64), KEY, 100_000)
    assert drawn.max() == 2
