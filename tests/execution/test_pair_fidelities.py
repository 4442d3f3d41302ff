# SPDX-License-Identifier: Apache-2.0
"""Fidelities of given pairs do not depend on how they are computed."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from qiskit.circuit.library import efficient_su2, real_amplitudes
from qiskit.quantum_info import Statevector

from qiskit_fused import FusedOptions, compile_circuit
from qiskit_fused.execution import pair_fidelities as pairs
from qiskit_fused.execution.statevectors import FinalStates

FIRST, SECOND = real_amplitudes(2, reps=1), efficient_su2(2, reps=1)
RNG = np.random.default_rng(0)
ONE = compile_circuit(FIRST)


def expected(first, second, left, right):
    states = [
        np.array([Statevector(circuit.assign_parameters(row)).data for row in rows])
        for circuit, rows in ((first, left), (second, right))
    ]
    return abs(np.einsum("bi,bi->b", states[0].conj(), states[1])) ** 2


@pytest.mark.parametrize("limit", [None, 11_000])
@pytest.mark.parametrize("in_matrix", [0, 16], ids=["pairs", "matrix"])
def test_pairs_of_one_circuit(in_matrix, limit, monkeypatch):
    monkeypatch.setattr(pairs, "_PAIRS_IN_MATRIX", in_matrix)
    left, right = RNG.normal(size=(2, 60, 4))
    left[3:] = left[RNG.integers(0, 3, 57)]
    right[7] = left[7]
    states = FinalStates(ONE, FusedOptions(memory_limit=limit), only_active=True)
    found = pairs.pair_fidelities(states, states, (left, right))
    assert_allclose(found, expected(FIRST, FIRST, left, right), atol=1e-13)
    assert found[7] == 1


@pytest.mark.parametrize("limit", [None, 13_500])
def test_pairs_of_two_circuits(limit):
    left, right = RNG.normal(size=(60, 4)), RNG.normal(size=(60, 8))
    states = [FinalStates(compile_circuit(circuit), FusedOptions(memory_limit=limit)) for circuit in (FIRST, SECOND)]
    found = pairs.pair_fidelities(*states, (left, right))
    assert_allclose(found, expected(FIRST, SECOND, left, right), atol=1e-13)


def test_a_watch_ends_the_work():
    states = FinalStates(ONE, FusedOptions(), only_active=True)
    with pytest.raises(RuntimeError, match=r"the evaluation was cancelled."):
        pairs.pair_fidelities(states, states, tuple(RNG.normal(size=(2, 60, 4))), lambda done, total: True)
