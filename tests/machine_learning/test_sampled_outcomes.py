# SPDX-License-Identifier: Apache-2.0
"""Frequencies of outcomes count each row of a sampler's shots by itself."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.primitives import BitArray
from qiskit_machine_learning.neural_networks import SamplerQNN

from qiskit_fused import FusedSampler, FusedSamplerQNN
from qiskit_fused.machine_learning import sampled_outcomes
from qiskit_fused.machine_learning.sampled_outcomes import frequencies
from qiskit_fused.program.outcomes import DROPPED, Outcomes


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_each_shot_counts_for_the_outcome_of_its_bits(block, monkeypatch):
    monkeypatch.setattr(sampled_outcomes, "_BLOCK_SHOTS", block)
    rng = np.random.default_rng(0)
    field = BitArray(rng.integers(0, 256, size=(5, 6, 2), dtype=np.uint8), 16)
    qubit_of_bit = np.array([3, -1, 9, 0, -1, -1, -1, 5, -1, 7, 3, -1, -1, -1, -1, 2])
    measured = [5, 2, 9, 3]
    table = rng.integers(-1, 4, size=16)
    found = frequencies(field, qubit_of_bit, Outcomes(10, measured, table, 4))
    places = [7, 15, 2, 0]  # the first bit of each measured qubit
    expected = np.zeros((5, 4))
    for row in range(5):
        for text in field[row].get_bitstrings():
            outcome = table[sum(int(text[::-1][place]) << position for position, place in enumerate(places))]
            if outcome != DROPPED:
                expected[row, outcome] += 1 / 6
    np.testing.assert_allclose(found, expected)


def test_without_a_table_the_bitstring_is_the_outcome():
    field = BitArray.from_samples(["10", "11", "10"], num_bits=2)
    found = frequencies(field, np.array([1, 0]), Outcomes(2, [0, 1]))
    np.testing.assert_allclose(found, [[0, 2 / 3, 0, 1 / 3]])  # the bit of qubit 0 is the second one


def test_a_network_counts_the_shots_of_its_sampler():
    angle, circuit = Parameter("a"), QuantumCircuit(2)
    circuit.ry(angle, 0)
    circuit.h(1)
    network = FusedSamplerQNN(
        circuit=circuit,
        input_params=[angle],
        interpret=lambda integer: integer // 2,
        output_shape=2,
        sampler=FusedSampler(default_shots=200, seed=7),
    )
    angles = np.array([[0.1], [2.0], [3.0]])
    data = FusedSampler(default_shots=200, seed=7).run([(network._circuit, angles)]).result()[0].data
    counts = [data.meas.get_int_counts(row) for row in range(3)]
    expected = [[sum(n for integer, n in one.items() if integer // 2 == k) / 200 for k in range(2)] for one in counts]
    np.testing.assert_allclose(network.forward(angles, None), expected)


@pytest.mark.parametrize("shots", [None, 500])
@pytest.mark.parametrize("kind", [FusedSamplerQNN, SamplerQNN])
@pytest.mark.parametrize("inputs", [None, np.zeros(0), np.zeros((2, 0))], ids=["none", "row", "rows"])
def test_a_network_without_parameters_reads_results_without_a_shape(kind, shots, inputs):
    circuit = QuantumCircuit(2, 2)
    circuit.x(0)
    circuit.reset(0)  # Qiskit's simulators run this circuit
    circuit.x(0)
    circuit.measure([0, 1], [0, 1])
    network = kind(circuit=circuit, sampler=FusedSampler(default_shots=shots))
    with pytest.warns(UserWarning, match="resets a qubit that is in use"):
        outputs = network.forward(inputs, None)
    assert_allclose(outputs, [[0, 1, 0, 0]] * (2 if np.ndim(inputs) == 2 else 1), atol=1e-12)
