# SPDX-License-Identifier: Apache-2.0
"""The costs of a fused program on the CPU: chunks, sweeps, floating-point operations and bytes."""

import numpy as np
from layered_circuits import hardware_efficient
from qiskit.circuit.library import efficient_su2, real_amplitudes

from qiskit_fused.engines.cpu.costs import bytes_moved, chunk_bits, flops, num_sweeps
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.lowering.lower import lower


def fused(circuit):
    return fuse_program(lower(circuit))


def test_the_work_of_the_sweeps_is_counted():
    plan = fuse_program(lower(hardware_efficient(16, 2)), np.ones(16, np.uint8))
    # The forward sweep has the 16 rotations of layer 1 and two phases; the state after layer 0 is a product state.
    # The adjoint has all 32 rotations, and two phases with sums.
    forward, adjoint = 4 * 16 + 2 * 16, 12 * 32 + 2 * (24 + 6)
    assert flops(plan, gradient=False) == forward * 2**16
    assert flops(plan) == (forward + adjoint) * 2**16


def test_chunks_of_wide_states_stay_in_the_cache():
    assert [chunk_bits(num_qubits) for num_qubits in (13, 14, 20, 25, 26, 28)] == [0, 2, 6, 6, 7, 9]


def test_real_states_move_half_the_bytes():
    real, other = fused(real_amplitudes(6, reps=2)), fused(efficient_su2(6, reps=2))
    of_real, of_other = (bytes_moved(program, "complex128") / num_sweeps(program) for program in (real, other))
    assert of_real == of_other / 2
