# SPDX-License-Identifier: Apache-2.0
"""What the CPU engine does with a fused program: its chunks, sweeps, floating-point operations and bytes moved."""

from __future__ import annotations

import numpy as np

from qiskit_fused.common.native import CONSTANTS
from qiskit_fused.fusion.fused_program import FusedProgram

_CHUNKED_FROM = 14  # qubits; threads that share a row of a smaller state wait longer than they work
_LOCAL_QUBITS = 14  # qubits of a chunk at most, while chunks are few: psi and lam of 2^14 amplitudes stay in L2
_MIN_CHUNK_BITS, _MAX_CHUNK_BITS = 2, 6
_MOST_LOCAL_QUBITS = 19  # qubits of any chunk; larger chunks leave an L3 cache of 32 MiB: 1.4 times as long at n = 26


def chunk_bits(num_qubits: int) -> int:
    """Count the highest bits that cut a state into chunks; a chunk is the unit of work of a thread."""
    if num_qubits < _CHUNKED_FROM:
        return 0
    bits = min(max(num_qubits - _LOCAL_QUBITS, _MIN_CHUNK_BITS), _MAX_CHUNK_BITS)
    return max(bits, num_qubits - _MOST_LOCAL_QUBITS)


def num_positions(fused: FusedProgram, *, imaginary: bool = False) -> int:
    """Count the states that the engine meets on its way back (see `checkpointing`): one per phase, and the end.

    From ``|0...0>`` the state before the first layer is left out, unless ``imaginary`` derivatives need it.
    """
    return fused.num_layers + (1 if fused.starts_at_zero and not imaginary else 2)


def num_sweeps(fused: FusedProgram) -> int:
    """Count the passes over all amplitudes of a forward sweep; the adjoint makes as many, over two states.

    A layer is one sweep, and one more where it rotates qubits that chunks are cut along. Cost: O(runs).
    """
    bits = chunk_bits(fused.num_qubits)
    if not bits:
        return fused.num_layers + 1
    outside = fused.run_qubit >= fused.num_qubits - bits
    return fused.num_layers + 1 + len(np.unique(fused.run_layer[outside]))


def flops(fused: FusedProgram, gradient: bool = True, *, is_real: bool | None = None) -> int:
    """Count the floating-point operations of the sweeps for one row and observable, a multiply-add being two.

    A rotation is 4 per amplitude, its adjoint 8 and 4 for the sum Im<lam|Y|psi>. A phase is 8, and 8 more for the
    product of its two tables (4 where there is one); its adjoint 16, and 6 with the sums of Im(conj(lam) psi). Real
    states take half of it for rotations, and 2 for a phase or 4 back, without sums.
    Tables, bindings and the rare sums of Im<lam|X|psi> are not counted.

    Args:
        fused: the fused program.
        gradient: whether the adjoint is counted too.
        is_real: whether states are real; None: where they stay so.
    """
    if is_real is None:
        is_real = fused.is_real
    start = 1 if fused.starts_at_zero else 0
    num_rotations, num_phases = int((fused.run_layer >= start).sum()), fused.num_layers + 1 - start
    table = 8 if fused.num_qubits > CONSTANTS.max_low_bits else 4
    forward = 2 * (num_rotations + num_phases) if is_real else 4 * num_rotations + (8 + table) * num_phases
    if not gradient:
        return forward << fused.num_qubits
    if is_real:
        return (forward + 6 * fused.num_runs + 4 * num_phases) << fused.num_qubits
    many_axes = fused.run_layer[~fused.single_axis]
    with_sums = np.union1d(np.union1d(many_axes, many_axes + 1), fused.term_phase[fused.term_column >= 0])
    adjoint = 12 * fused.num_runs + (16 + table) * num_phases + 6 * int((with_sums >= start).sum())
    return (forward + adjoint) << fused.num_qubits


def state_bytes(fused: FusedProgram, dtype: str) -> int:
    """Count the bytes of the amplitudes of a state: half of them where it is real."""
    return (np.dtype(dtype).itemsize << fused.num_qubits) >> int(fused.is_real)


def bytes_moved(fused: FusedProgram, dtype: str, *, gradient: bool = True) -> int:
    """Count the bytes that the sweeps of one row read and write, wherever in the memory hierarchy that is."""
    return 2 * state_bytes(fused, dtype) * num_sweeps(fused) * (3 if gradient else 1)
