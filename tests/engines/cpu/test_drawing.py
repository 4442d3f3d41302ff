# SPDX-License-Identifier: Apache-2.0
"""Shots are outcomes of NumPy's random stream, searched for in the sums of the probabilities, packed as in Qiskit."""

import numpy as np
import pytest
from qiskit.primitives import BitArray
from scipy.stats import chisquare

from qiskit_fused.engines.cpu.drawing import BitTables, draw_shots

KEY = np.array([0x123456789ABCDEF0, 0xFEDCBA9876543210], dtype=np.uint64)


def draw(probabilities, sources, streams, num_shots, first_shot=0, num_threads=1):
    """Return the outcomes (D, S) of shots, read from one register of all measured qubits."""
    num_measured = max(int(probabilities.shape[1] - 1).bit_length(), 1)
    tables = BitTables([range(num_measured)], num_measured)
    shots = np.empty((len(sources), num_shots, tables.num_bytes), dtype=np.uint8)
    draw_shots(probabilities, sources, streams, KEY, tables, shots, first_shot=first_shot, num_threads=num_threads)
    return shots.astype(int) @ (256 ** np.arange(tables.num_bytes)[::-1])


def plain_draws(probabilities, sources, streams, num_shots):
    """Draw as `draw_shots` does, one row after the other in NumPy."""
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
def test_shots_are_those_of_the_plain_search_for_any_threads(num_outcomes, num_draws, num_shots, power):
    rng = np.random.default_rng(num_outcomes)
    probabilities = skewed(rng, num_draws, num_outcomes, power)
    sources = np.sort(rng.integers(num_draws, size=num_draws))
    streams = rng.integers(1 << 63, size=num_draws).astype(np.uint64)
    expected = plain_draws(probabilities, sources, streams, num_shots)
    for num_threads in (1, 2, 5):
        drawn = draw(probabilities, sources, streams, num_shots, num_threads=num_threads)
        np.testing.assert_array_equal(drawn, expected)


@pytest.mark.parametrize("first", [1, 63, 64, 65, 130])
def test_shots_can_be_drawn_in_several_calls(first):
    probabilities = skewed(np.random.default_rng(0), 2, 40, 1)
    sources, streams = np.array([0, 1, 1]), np.arange(3).astype(np.uint64)
    begin = draw(probabilities, sources, streams, first)
    end = draw(probabilities, sources, streams, 200 - first, first_shot=first)
    np.testing.assert_array_equal(np.hstack([begin, end]), draw(probabilities, sources, streams, 200))


def test_frequencies_pass_a_chi_square_test():
    probabilities = skewed(np.random.default_rng(1), 1, 64, 2)
    drawn = draw(probabilities, np.zeros(20, dtype=int), np.arange(20).astype(np.uint64), 50_000)
    counts = np.bincount(drawn.ravel(), minlength=64)
    likely = probabilities[0] / probabilities.sum() * drawn.size > 5
    expected = probabilities[0, likely] / probabilities[0, likely].sum() * counts[likely].sum()
    assert counts[likely].sum() > drawn.size - 50 and chisquare(counts[likely], expected).pvalue > 1e-3


def test_streams_and_keys_are_independent():
    probabilities = np.full((1, 1024), 1 / 1024)
    drawn = draw(probabilities, np.zeros(3, dtype=int), np.array([0, 1, 1 << 40], dtype=np.uint64), 4096)
    for left, right in ((0, 1), (0, 2), (1, 2)):
        assert (drawn[left] == drawn[right]).sum() < 20  # 4 are expected


def test_sums_need_not_be_one():
    probabilities = np.array([[0.1, 0.2, 0.0, 0.1]])
    sources, streams = np.zeros(1, dtype=int), np.zeros(1, np.uint64)
    drawn = [draw(scale * probabilities, sources, streams, 1000) for scale in (1, 0.25, 1e-200, 1e200)]
    for other in drawn[1:]:
        np.testing.assert_array_equal(other, drawn[0])
    assert set(drawn[0][0].tolist()) == {0, 1, 3}


def test_the_largest_uniform_numbers_draw_the_last_possible_outcome():
    # The sum of three thirds is rounded, so that a search for the largest uniform number could pass its end.
    probabilities = np.array([[1 / 3, 1 / 3, 1 / 3, 0.0, 0.0]]) / 7
    assert draw(probabilities, np.zeros(1, dtype=int), np.zeros(1, np.uint64), 100_000).max() == 2


@pytest.mark.parametrize("num_bits", [0, 1, 8, 9, 24, 31, 33, 64, 65, 100])
@pytest.mark.parametrize("num_measured", [0, 3, 11, 12, 23])
def test_registers_are_packed_as_in_qiskit(num_measured, num_bits):
    rng = np.random.default_rng(num_bits)
    sources = rng.integers(-1, num_measured, size=num_bits)
    tables = BitTables([sources.tolist(), [0] if num_measured else []], num_measured)
    outcomes = rng.integers(1 << num_measured, size=50)
    probabilities = np.zeros((len(outcomes), 1 << num_measured)) if num_measured < 20 else None
    if probabilities is None:  # one outcome alone, as an array of all is large
        outcomes = outcomes[:1]
        probabilities = np.zeros((1, 1 << num_measured))
    probabilities[np.arange(len(outcomes)), outcomes] = 1.0
    shots = np.empty((len(outcomes), 2, tables.num_bytes), dtype=np.uint8)
    draw_shots(probabilities, np.arange(len(outcomes)), np.arange(len(outcomes)).astype(np.uint64), KEY, tables, shots)
    values = np.append(outcomes[:, None] >> np.arange(num_measured) & 1, np.zeros((len(outcomes), 1), int), axis=1)
    bits = np.repeat(values[:, None, sources].astype(bool), 2, axis=1)
    np.testing.assert_array_equal(shots[..., tables.slices[0]], BitArray.from_bool_array(bits, order="little").array)
    if num_measured:
        np.testing.assert_array_equal(shots[..., tables.slices[1]][:, 0, 0], outcomes & 1)
