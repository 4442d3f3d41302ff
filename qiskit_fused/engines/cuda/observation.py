# SPDX-License-Identifier: Apache-2.0
"""Values of the pairs of a chunk, and the adjoint states at the start of its backward sweep."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from qiskit_fused.common.native import CONSTANTS
from qiskit_fused.engines.cuda.device_data import DeviceObservables, DeviceOutcomes
from qiskit_fused.engines.cuda.formats import real_type
from qiskit_fused.engines.cuda.setting import Setting

_BLOCK = 128  # number of threads of a block of the kernels of outcomes


class ChunkPairs(NamedTuple):
    """The pairs of a chunk.

    Attributes:
        num_rows: number of rows of the chunk.
        row: int32 (pairs,), ascending, the row of each pair among the rows of the chunk.
        places: the slice of the pairs of the request that belongs to the chunk.
    """

    num_rows: int
    row: np.ndarray
    places: slice


def observe(setting: Setting, pairs: ChunkPairs, psi: Any) -> tuple[Any, Any]:
    """Return the values of pairs, float64 (pairs,), and with gradients the adjoint states (units, 2^N), else None.

    Args:
        setting: the data that all chunks share.
        pairs: the pairs, at least one.
        psi: (rows, 2^N), the final states.
    """
    observables = setting.observables
    if isinstance(observables, DeviceOutcomes):
        return _observe_outcomes(setting, observables, pairs, psi)
    return _observe_terms(setting, observables, pairs, psi)


def _observe_terms(setting: Setting, terms: DeviceObservables, pairs: ChunkPairs, psi: Any) -> tuple[Any, Any]:
    """Observe sums of terms: one kernel computes O psi of each pair, its value, and the adjoint states."""
    xp, request, state_size = setting.runtime.xp, setting.request, psi.shape[1]
    num_sums = max(state_size // CONSTANTS.observed_amplitudes, 1)
    partial = xp.empty((len(pairs.row), num_sums), dtype=np.float64)
    begin = np.searchsorted(pairs.row, np.arange(pairs.num_rows + 1)).astype(np.int32)
    lam, cotangents = _empty_adjoint_states(setting, pairs, psi), _cotangents(setting, pairs)
    observable = xp.asarray(request.pairs.observable[pairs.places], dtype=np.int32)
    args: tuple[Any, ...] = (psi, lam, xp.asarray(begin), observable)
    args += (terms.observable_begin, terms.groups, terms.terms, terms.diagonals, cotangents)
    args += (_address_bits(setting), np.int32(request.imaginary), partial)
    block = min(max(state_size // 4, 32), 256)
    setting.launch("observe.cu", "observe", pairs.num_rows * num_sums, block, args)
    values = xp.empty(len(pairs.row), dtype=np.float64)
    setting.sum_chunks(partial, values)
    return values, lam


def _observe_outcomes(setting: Setting, outcomes: DeviceOutcomes, pairs: ChunkPairs, psi: Any) -> tuple[Any, Any]:
    """Observe projectors onto outcomes, in work that does not grow with outcomes times amplitudes.

    The value of a pair is the sum of ``|psi|^2`` over the amplitudes of its outcome. The adjoint states are psi times
    one number for each amplitude, which depends on its outcome.
    """
    xp, request = setting.runtime.xp, setting.request
    row = xp.asarray(pairs.row)
    outcome = xp.asarray(request.pairs.observable[pairs.places], dtype=np.int32)
    cotangents, weights = _cotangents(setting, pairs), None
    if cotangents is not None:
        weights = xp.zeros((pairs.num_rows, outcomes.num_outcomes), dtype=real_type(request.dtype))
    values = _probabilities(setting, outcomes, (row, outcome), psi, cotangents, weights)
    lam = _empty_adjoint_states(setting, pairs, psi)
    if lam is not None:
        args: tuple[Any, ...] = (psi, _address_bits(setting), outcomes.outcome, weights)
        args += (np.int32(outcomes.num_outcomes), row, outcome, np.int32(len(lam)), np.int32(request.imaginary), lam)
        blocks = -(-len(lam) * psi.shape[1] // _BLOCK)
        setting.launch("outcomes.cu", "outcome_adjoints", blocks, _BLOCK, args)
    return values, lam


def _probabilities(
    setting: Setting, outcomes: DeviceOutcomes, pairs: tuple[Any, Any], psi: Any, cotangents: Any, weights: Any
) -> Any:
    """Return the values of pairs, float64 (pairs,).

    Args:
        setting: the data that all chunks share.
        outcomes: the outcomes.
        pairs: int32 (pairs,) on the device, the row and the outcome of each pair.
        psi: (rows, 2^N), the final states.
        cotangents: float64 (pairs,), or None.
        weights: real (rows, K), zeros, which receive the cotangents in the order of the outcomes; None without
            cotangents.
    """
    xp, num_rows, num_pairs, bits = setting.runtime.xp, len(psi), len(pairs[0]), _address_bits(setting)
    partial = None
    if outcomes.num_parts:
        partial = xp.empty((num_rows, outcomes.num_parts), dtype=np.float64)
        args: tuple[Any, ...] = (psi, bits, np.int32(num_rows), outcomes.order)
        args += (outcomes.parts, np.int32(outcomes.num_parts), partial)
        blocks = -(-num_rows * outcomes.num_parts * 32 // _BLOCK)
        setting.launch("outcomes.cu", "sum_parts", blocks, _BLOCK, args)
    values = xp.empty(num_pairs, dtype=np.float64)
    args = (psi, bits, outcomes.order, outcomes.lists, partial, np.int32(outcomes.num_parts), *pairs)
    args += (np.int32(num_pairs), np.int32(outcomes.log_lanes), cotangents, weights)
    args += (np.int32(outcomes.num_outcomes), values)
    blocks = -(-(num_pairs << outcomes.log_lanes) // _BLOCK)
    setting.launch("outcomes.cu", "outcome_values", blocks, _BLOCK, args)
    return values


def _address_bits(setting: Setting) -> np.int32:
    return np.int32(setting.plan.passes.num_address_bits)


def _cotangents(setting: Setting, pairs: ChunkPairs) -> Any:
    """Return the cotangents of pairs on the device, float64 (pairs,), or None."""
    cotangents = setting.request.cotangents
    return None if cotangents is None else setting.runtime.xp.asarray(cotangents[pairs.places], dtype=np.float64)


def _empty_adjoint_states(setting: Setting, pairs: ChunkPairs, psi: Any) -> Any:
    """Return memory for the adjoint states (units, 2^N), or None without gradients."""
    request = setting.request
    if request.gradient is None:
        return None
    num_units = pairs.num_rows if request.gradients_are_per_row else len(pairs.row)
    return setting.runtime.xp.empty((num_units, psi.shape[1]), dtype=request.dtype)
