# SPDX-License-Identifier: Apache-2.0
"""FusedSampler gives the results of StatevectorSampler and, without shots, of qiskit-machine-learning's exact sampler."""

import numpy as np
from qiskit.circuit.library import efficient_su2
from qiskit.quantum_info import Statevector

from qiskit_fused import FusedSampler


def test_exact_probabilities_are_those_of_the_statevector(device, dtype):
    circuit = efficient_su2(3, reps=1)
    values = np.random.default_rng(0).normal(size=(2, circuit.num_parameters))
    expected = [Statevector(circuit.assign_parameters(row)).probabilities() for row in values]
    measured = circuit.measure_all(inplace=False)
    data = FusedSampler(default_shots=None, device=device, dtype=dtype).run([(measured, values)]).result()[0].data
    np.testing.assert_allclose(data.meas.probabilities, expected, atol=1e-12 if dtype == "complex128" else 1e-6)
