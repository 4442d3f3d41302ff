# SPDX-License-Identifier: Apache-2.0
"""FusedProgram -> costs on the CPU engine: its chunks, sweeps, floating-point operations and bytes moved."""

from __future__ import annotations

import math

import numpy as np

from qiskit_fused.common.native import CONSTANTS
from qiskit_fused.fusion.fused_program import FusedProgram

_CHUNKED_FROM = 14  # least number of qubits with chunks; threads that share a smaller state wait longer than they work
_LOCAL_QUBITS = 14  # qubits of a chunk up to _MAX_CHUNK_BITS: psi and lam of 2^14 amplitudes stay in the L2 cache
_MIN_CHUNK_BITS, _MAX_CHUNK_BITS = 2, 6  # log2 of the number of chunks: its least value, its largest up to 25 qubits
_MOST_LOCAL_QUBITS = 19  # qubits of the largest chunk; larger ones exceed an L3 cache of 32 MiB (1.4 x time at n = 26)


def chunk_bits(num_qubits: int) -> int:
    """Return log2 of the number of chunks of a state, which threads share."""
    if num_qubits < _CHUNKED_FROM:
        return 0
    bits = min(max(num_qubits - _LOCAL_QUBITS, _MIN_CHUNK_BITS), _MAX_CHUNK_BITS)
    return max(bits, num_qubits - _MOST_LOCAL_QUBITS)


def num_positions(fused: FusedProgram, *, imaginary: bool = False) -> int:
    """Count the states that the backward pass visits (see `checkpointing`): one before each phase, and the final one.

    If rows start in ``|0...0>``, the state before the first layer is left out, unless ``imaginary`` derivatives need
    it.
    """
    return fused.num_layers + (1 if fused.starts_at_zero and not imaginary else 2)


def num_sweeps(fused: FusedProgram) -> int:
    """Count the passes over all amplitudes of a forward sweep; the adjoint makes as many, over two states.

    A phase, and the rotations and linear maps around it, take one pass, and each dense gate takes one more. Rarely, a
    phase with a table of all amplitudes takes a second pass, which is not counted.
    """
    return fused.num_layers + 1 + len(fused.dense_layer)


def flops(fused: FusedProgram, gradient: bool = True, *, is_real: bool | None = None) -> int:
    """Count the floating-point operations of the sweeps for one row and observable; a multiply-add counts as two.

    A rotation takes 4 flops per amplitude, its adjoint 8, and the sum Im<lam|Y|psi> 4. A phase takes 8 flops, and 8
    more for the product of its two tables (4 if it has one table). The adjoint of a phase takes 16 flops, and 6 more
    with the sums of Im(conj(lam) psi). Real states take half of the flops of rotations, and 2 flops for a phase or 4
    for its adjoint, without sums. A dense gate on k qubits takes 8 2^k flops per amplitude (2 2^k for real states),
    half as many per control, and its adjoint twice as many. Tables, bindings and the rare sums of Im<lam|X|psi> are not
    counted.

    Args:
        fused: the fused program.
        gradient: whether the adjoint is counted too.
        is_real: whether states are real; None means real if `FusedProgram.is_real` is True.
    """
    if is_real is None:
        is_real = fused.is_real
    start = 1 if fused.starts_at_zero else 0
    num_rotations, num_phases = int((fused.run_layer >= start).sum()), fused.num_layers + 1 - start
    table = 8 if fused.num_qubits > CONSTANTS.max_low_bits else 4
    forward = 2 * (num_rotations + num_phases) if is_real else 4 * num_rotations + (8 + table) * num_phases
    dense = (2 if is_real else 8) * float(fused.dense_multiply_adds.sum())
    of_dense = int((3 if gradient else 1) * math.ldexp(dense, fused.num_qubits))
    if not gradient:
        return of_dense + (forward << fused.num_qubits)
    if is_real:
        return of_dense + ((forward + 6 * fused.num_runs + 4 * num_phases) << fused.num_qubits)
    many_axes = fused.run_layer[~fused.single_axis]
    with_sums = np.union1d(np.union1d(many_axes, many_axes + 1), fused.term_phase[fused.term_column >= 0])
    adjoint = 12 * fused.num_runs + (16 + table) * num_phases + 6 * int((with_sums >= start).sum())
    return of_dense + ((forward + adjoint) << fused.num_qubits)


def state_bytes(fused: FusedProgram, dtype: str) -> int:
    """Return the bytes of the amplitudes of a state; a real state has half the bytes of a complex one."""
    return (np.dtype(dtype).itemsize << fused.num_qubits) >> int(fused.is_real)


def bytes_moved(fused: FusedProgram, dtype: str, *, gradient: bool = True) -> int:
    """Count the bytes that the sweeps of one row read and write, in caches or in memory."""
    return 2 * state_bytes(fused, dtype) * num_sweeps(fused) * (3 if gradient else 1)
