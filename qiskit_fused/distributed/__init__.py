# SPDX-License-Identifier: Apache-2.0
"""A state over several processes: each of 2^g ranks holds 2^(n-g) amplitudes of one state of n qubits.

A circuit, observables, parameter values and a communicator come in, values and gradients go out, the same on all ranks.
``schedule`` cuts a fused program into segments and chooses the qubits that ranks hold between them. ``rank_program``
writes a segment as the fused program of one rank, ``evaluation`` sweeps and exchanges states, and ``communicator`` has
the transports. May import ``execution`` and the folders before it.
"""

from qiskit_fused.distributed.communicator import Communicator, MpiCommunicator, NcclCommunicator, run_on_threads
from qiskit_fused.distributed.functions import expectation_values, value_and_gradient, value_and_vjp
from qiskit_fused.distributed.report import DistributedPlan, plan_ranks

__all__ = [
    "Communicator",
    "DistributedPlan",
    "MpiCommunicator",
    "NcclCommunicator",
    "expectation_values",
    "plan_ranks",
    "run_on_threads",
    "value_and_gradient",
    "value_and_vjp",
]
