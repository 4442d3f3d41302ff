# SPDX-License-Identifier: Apache-2.0
"""Observables agree with Qiskit's operators: the formula of masks, idle qubits, merged terms and the support."""

from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
from qiskit.quantum_info import SparseObservable

from qiskit_fused.program.observables import Observables

S = 1 / np.sqrt(2)
KETS = {"0": [1, 0], "1": [0, 1], "+": [S, S], "-": [S, -S], "r": [S, 1j * S], "l": [S, -1j * S]}
LETTERS = {
    "I": np.eye(2),
    "X": np.array([[0, 1], [1, 0]]),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1, -1]),
} | {letter: np.outer(ket, np.conj(ket)) for letter, ket in KETS.items()}


def observables(lists, num_qubits):
    """Return `Observables` for K lists of (label, coefficient)."""
    sparse = [SparseObservable.from_list(terms, num_qubits=num_qubits) for terms in lists]
    parts = [
        Observables(num_qubits, 1, [0] * o.num_terms, o.coeffs, o.boundaries, o.bit_terms, o.indices) for o in sparse
    ]
    return Observables.concatenate(parts)


def matrix(terms):
    """Return the dense matrix of terms (label, coefficient); the rightmost letter acts on qubit 0."""
    return sum(coefficient * reduce(np.kron, [LETTERS[letter] for letter in label]) for label, coefficient in terms)


def mask_matrix(masks, observable, num_bits):
    """Return the dense matrix of one observable by the formula in the docstring of `program.observables`."""
    size = 1 << num_bits
    out = np.zeros((size, size), dtype=complex)
    for t in np.flatnonzero(masks.observable == observable):
        for i in range(size):
            if i & int(masks.care[t]) == int(masks.value[t]):
                sign = (-1) ** bin(i & int(masks.z[t])).count("1")
                out[i, i ^ int(masks.x[t])] += (masks.real[t] + 1j * masks.imag[t]) * sign
    return out


def random_terms(rng, num_terms, num_qubits, letters="IXYZ01+-rl"):
    labels = ["".join(rng.choice(list(letters), num_qubits)) for _ in range(num_terms)]
    return list(zip(labels, rng.normal(size=num_terms)))


def strictly_sorted(masks):
    keys = list(zip(masks.observable, masks.x, masks.care, masks.value, masks.z))
    return all(a < b for a, b in pairwise(keys))


@pytest.mark.parametrize("label", ["I", "X", "Y", "Z", "0", "1", "+", "-", "r", "l", "Y+Y", "rl1", "XYZ", "0Y-"])
def test_masks_of_one_term_are_the_operator(label):
    masks = observables([[(label, 0.7)]], len(label)).restrict(np.arange(len(label)))
    np.testing.assert_allclose(mask_matrix(masks, 0, len(label)), matrix([(label, 0.7)]), atol=1e-15)


@pytest.mark.parametrize("seed", range(5))
def test_masks_of_random_sums_are_the_operators(seed):
    rng = np.random.default_rng(seed)
    lists = [random_terms(rng, count, 4) for count in (12, 1, 30)]
    masks = observables(lists, 4).restrict(np.arange(4))
    assert strictly_sorted(masks)
    for k, terms in enumerate(lists):
        np.testing.assert_allclose(mask_matrix(masks, k, 4), matrix(terms), atol=1e-13)


@pytest.mark.parametrize("seed", range(5))
def test_wires_permute_the_bits_and_idle_qubits_are_expectations_in_zero(seed):
    rng = np.random.default_rng(seed)
    terms = random_terms(rng, 40, 5)
    wires = np.array([2, -1, 0, -1, 1])
    masks = observables([terms], 5).restrict(wires)

    expected = np.zeros((8, 8), dtype=complex)
    full = matrix(terms)
    place = [sum(((i >> bit) & 1) << int(np.flatnonzero(wires == bit)[0]) for bit in range(3)) for i in range(8)]
    expected = full[np.ix_(place, place)]
    np.testing.assert_allclose(mask_matrix(masks, 0, 3), expected, atol=1e-13)


def test_all_qubits_idle_leaves_a_constant():
    masks = observables([[("Z0+", 2.0), ("III", 1.0), ("XII", 5.0)], [("1II", 3.0)]], 3).restrict(np.full(3, -1))
    assert (len(masks), masks.num_observables) == (1, 2)
    assert (masks.real[0], masks.imag[0], masks.x[0], masks.z[0], masks.care[0]) == (2.0, 0.0, 0, 0, 0)


def test_equal_masks_are_merged_and_zeros_dropped():
    masks = observables([[("+", 1.0), ("-", 1.0), ("Z", 1.0), ("Z", -1.0)], [("I", 2.0), ("I", 3.0)]], 1).restrict(
        np.arange(1)
    )
    assert list(masks.observable) == [0, 1]
    assert list(masks.real) == [1.0, 5.0]


def test_projectors_stay_one_diagonal_term():
    masks = observables([[("01Z", 1.0)]], 3).restrict(np.arange(3))
    assert (int(masks.care[0]), int(masks.value[0]), int(masks.z[0]), int(masks.x[0])) == (0b110, 0b010, 0b001, 0)
    assert len(masks) == 1


def test_support_tells_diagonal_from_other_qubits():
    both = observables([[("IZ0I", 1.0)], [("IZ1X", 1.0), ("IIrI", 1.0)]], 4)
    assert list(both.support(4)) == [2, 2, 1, 0]
    assert list(observables([[("IZ0I", 1.0)]], 4).support(4)) == [0, 1, 1, 0]


def test_restrictions_are_cached_by_wires():
    op = observables([[("XZ", 1.0)]], 2)
    wires = np.arange(2)
    assert op.restrict(wires) is op.restrict(wires) is op.restrict(wires.copy())
    assert op.restrict(np.array([1, 0])) is not op.restrict(wires)


def test_letters_that_expand_too_far_are_refused():
    with pytest.raises(ValueError, match=r"expand to 3\.36e\+07 Pauli terms, the limit is 16777216"):
        observables([[("+" * 25, 1.0)]], 25).restrict(np.arange(25))


def test_sixty_four_bits_fit():
    masks = observables([[("X" + "I" * 62 + "Z", 1.0)]], 64).restrict(np.arange(64))
    assert (int(masks.x[0]), int(masks.z[0])) == (1 << 63, 1)
