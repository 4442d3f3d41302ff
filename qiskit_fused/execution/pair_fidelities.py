# SPDX-License-Identifier: Apache-2.0
"""The fidelities of given pairs of states, each of which is made by a row of one of two circuits."""

from __future__ import annotations

from typing import Any

import numpy as np

from qiskit_fused.common.array_modules import to_numpy
from qiskit_fused.common.row_blocks import distinct_rows
from qiskit_fused.common.row_errors import shifted
from qiskit_fused.engines.interface import Watch
from qiskit_fused.execution.fidelity_matrix import FidelityMatrix
from qiskit_fused.execution.row_cuts import check_cancelled, cut_evenly, rows_that_fit
from qiskit_fused.execution.statevectors import FinalStates

# A matrix of all pairs of distinct rows takes less time than the given pairs alone if they are at least 1/16 of it:
# the product of two states takes 16 times as long outside a matrix product, since it reads both states from the memory.
_PAIRS_IN_MATRIX = 16
_LIMIT_SHARE = 8  # the states of a block of pairs take at most 1/8 of the memory limit
_BLOCK_BYTES = 1 << 26  # the states of a block of pairs take at most 64 MiB
_STATE_COPIES = 4  # the states of two rows, and a copy of each


def pair_fidelities(
    first: FinalStates, second: FinalStates, values: tuple[np.ndarray, np.ndarray], watch: Watch | None = None
) -> np.ndarray:
    """Return ``|<psi(v_b)|phi(u_b)>|^2`` for each row b, float64 (B,), at most 1.

    Args:
        first: the states psi as a function of parameter values.
        second: the states phi, on as many qubits, with the options of ``first``.
        values: v (B, P) and u (B, Q), finite.
        watch: told the progress.
    """
    num_rows, is_one_circuit = len(values[0]), first.compiled is second.compiled
    if is_one_circuit:
        (left_rows, left), (right_rows, right) = (distinct_rows(array) for array in values)
        if len(left_rows) * len(right_rows) <= _PAIRS_IN_MATRIX * num_rows:
            matrix = np.empty((len(left_rows), len(right_rows)))
            FidelityMatrix(first, values[0][left_rows], values[1][right_rows]).fill(matrix, watch)
            fidelities: np.ndarray = matrix[left, right]
            return _with_ones(fidelities, *values)
    fidelities, on_device = np.empty(num_rows), [states.on_device(num_rows) for states in (first, second)]
    if all(states.runtime is not None for states in on_device):
        first, second = on_device
    for rows in cut_evenly(num_rows, _block_rows(first)):
        check_cancelled(watch, rows.start, num_rows)
        with shifted(rows.start), first.context():
            psi, phi = (_states(states, array[rows]) for states, array in zip((first, second), values))
            overlaps = to_numpy(first.array_module.einsum("bi,bi->b", psi.conj(), phi))
        fidelities[rows] = np.minimum(overlaps.real**2 + overlaps.imag**2, 1)
    return _with_ones(fidelities, *values) if is_one_circuit else fidelities


def _states(states: FinalStates, values: np.ndarray) -> Any:
    """Return the states of rows, (B, 2^n). Equal rows are simulated once."""
    distinct, places = distinct_rows(values)
    return states.states(values[distinct])[states.array_module.asarray(places)]


def _with_ones(fidelities: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Set the fidelities of equal rows of one circuit to 1."""
    fidelities[(left == right).all(axis=1)] = 1
    return fidelities


def _block_rows(states: FinalStates) -> int:
    """Return the number of pairs whose states are in memory at a time."""
    row_bytes = _STATE_COPIES * np.dtype("complex128").itemsize << states.num_qubits
    size = rows_that_fit(_BLOCK_BYTES, row_bytes)
    limit = states.limit_for(size * row_bytes * _LIMIT_SHARE)
    return size if limit is None else min(size, rows_that_fit(limit // _LIMIT_SHARE, row_bytes))
