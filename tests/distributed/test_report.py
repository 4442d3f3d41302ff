# SPDX-License-Identifier: Apache-2.0
"""The plan of ranks: the bytes and exchanges that it predicts are those that ranks make."""

import numpy as np
import pytest
from engine_cases import random_circuit, random_observables
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.circuit.library import raw_feature_vector

from qiskit_fused.distributed import expectation_values, plan_ranks, run_on_threads, value_and_vjp

pytestmark = pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")


class Counting:
    """A communicator that counts the bytes that its rank sends in exchanges."""

    def __init__(self, communicator):
        self.rank, self.size, self.sum, self._exchange = (
            communicator.rank,
            communicator.size,
            communicator.sum,
            communicator.exchange,
        )
        self.num_bytes = 0

    def exchange(self, partner, array):
        self.num_bytes += array.nbytes
        return self._exchange(partner, array)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("num_ranks", [1, 2, 8])
def test_ranks_send_the_bytes_that_the_plan_predicts(num_ranks, dtype):
    circuit, observables = random_circuit(8, 60, seed=1), random_observables(8, 1)
    values = np.ones(circuit.num_parameters)
    plan = plan_ranks(circuit, observables, num_ranks)

    def count(communicator, gradient):
        counting = Counting(communicator)
        if gradient:
            value_and_vjp(circuit, observables, values, [1.0, 2.0], counting, dtype=dtype)
        else:
            expectation_values(circuit, observables, values, counting, dtype=dtype)
        return counting.num_bytes

    for gradient in (False, True):
        sent = run_on_threads(num_ranks, lambda ranks, gradient=gradient: count(ranks, gradient))
        assert sent == [plan.moved_bytes(dtype, gradient)] * num_ranks
    assert plan.state_bytes(dtype) * num_ranks == np.dtype(dtype).itemsize << 8


def test_a_plan_of_34_qubits_prints_exchanges_and_bytes_of_a_rank():
    circuit, angles = QuantumCircuit(34), iter(ParameterVector("p", 3400))
    for _ in range(100):
        for qubit in range(34):
            circuit.ry(next(angles), qubit)
        for qubit in range(34):
            circuit.cz(qubit, (qubit + 1) % 34)
    chain = SparsePauliOp.from_sparse_list([("ZZ", [q, q + 1], 1.0) for q in range(33)], 34)
    text = str(plan_ranks(circuit, chain, 8))
    assert "34: 31 local, 3 global" in text and "100 in 8 segments" in text and "7, and 0 for observables" in text
    assert "state" in text and "16 GiB" in text and "32 GiB" in text
    assert repr(plan_ranks(circuit, chain, 8)) == text


def test_plans_refuse_what_ranks_refuse():
    circuit = random_circuit(4, 10, seed=0)
    with pytest.raises(ValueError, match="there are 6 ranks; allowed: a power of 2, such as 4"):
        plan_ranks(circuit, "ZZZZ", 6)
    with pytest.raises(ValueError, match="there are 0 ranks"):
        plan_ranks(circuit, "ZZZZ", 0)
    encoded = QuantumCircuit(3)
    encoded.compose(raw_feature_vector(4), [0, 2], inplace=True)
    encoded.cx(0, 1)
    with pytest.raises(ValueError, match="depends on parameters"):
        plan_ranks(encoded, "ZZZ", 2)
