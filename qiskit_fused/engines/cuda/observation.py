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
    """The pairs of a chunk, with arrays on the device.

    Attributes:
        num_rows, num_pairs: numbers of rows and of pairs of the chunk.
        row: int32 (pairs,), ascending, the row of each pair among the rows of the chunk.
        begin: int32 (rows + 1,), the pairs of row b are begin[b]:begin[b + 1].
        observable: int32 (pairs,), the observable or the outcome of each pair.
        row_of_unit: int32 (units,), the row of each unit.
        cotangents: float64 (pairs,), or None.
    """

    num_rows: int
    num_pairs: int
    row: Any
    begin: Any
    observable: Any
    row_of_unit: Any
    cotangents: Any


def observe(setting: Setting, pairs: ChunkPairs, psi: Any, values: Any) -> Any:
    """Compute the values of pairs; return the adjoint states (units, 2^N), or None without gradients.

    Args:
        setting: the data that all chunks share.
        pairs: the pairs, at least one.
        psi: (rows, 2^N), the final states.
        values: float64 (pairs,), receives the values.
    """
    observables = setting.observables
    if isinstance(observables, DeviceOutcomes):
        return _observe_outcomes(setting, observables, pairs, psi, values)
    return _observe_terms(setting, observables, pairs, psi, values)


def _observe_terms(setting: Setting, terms: DeviceObservables, pairs: ChunkPairs, psi: Any, values: Any) -> Any:
    """Observe sums of terms: one kernel computes O psi of each pair, its value, and the adjoint states."""
    xp, request, state_size = setting.runtime.xp, setting.request, psi.shape[1]
    num_sums = max(state_size // CONSTANTS.observed_amplitudes, 1)
    partial = xp.empty((pairs.num_pairs, num_sums), dtype=np.float64)
    lam = _empty_adjoint_states(setting, pairs, psi)
    args: tuple[Any, ...] = (psi, lam, pairs.begin, pairs.observable)
    args += (terms.observable_begin, terms.groups, terms.terms, terms.diagonals, pairs.cotangents)
    args += (_address_bits(setting), np.int32(request.imaginary), partial)
    block = min(max(state_size // 4, 32), 256)
    setting.launch("observe.cu", "observe", pairs.num_rows * num_sums, block, args)
    setting.sum_chunks(partial, values)
    return lam


def _observe_outcomes(setting: Setting, outcomes: DeviceOutcomes, pairs: ChunkPairs, psi: Any, values: Any) -> Any:
    """Observe projectors onto outcomes, in work that does not grow with outcomes times amplitudes.

    The value of a pair is the sum of ``|psi|^2`` over the amplitudes of its outcome. The adjoint states are psi times
    one number for each amplitude, which depends on its outcome.
    """
    xp, request, weights = setting.runtime.xp, setting.request, None
    if pairs.cotangents is not None:
        weights = xp.zeros((pairs.num_rows, outcomes.num_outcomes), dtype=real_type(request.dtype))
    _probabilities(setting, outcomes, pairs, psi, weights, values)
    lam = _empty_adjoint_states(setting, pairs, psi)
    if lam is not None:
        args: tuple[Any, ...] = (psi, _address_bits(setting), outcomes.outcome, weights)
        args += (np.int32(outcomes.num_outcomes), pairs.row, pairs.observable, np.int32(len(lam)))
        args += (np.int32(request.imaginary), lam)
        blocks = -(-len(lam) * psi.shape[1] // _BLOCK)
        setting.launch("outcomes.cu", "outcome_adjoints", blocks, _BLOCK, args)
    return lam


def _probabilities(
    setting: Setting, outcomes: DeviceOutcomes, pairs: ChunkPairs, psi: Any, weights: Any, values: Any
) -> None:
    """Compute the values of pairs.

    Args:
        setting: the data that all chunks share.
        outcomes: the outcomes.
        pairs: the pairs.
        psi: (rows, 2^N), the final states.
        weights: real (rows, K), zeros, which receive the cotangents in the order of the outcomes; None without
            cotangents.
        values: float64 (pairs,), receives the values.
    """
    xp, num_rows, num_pairs, bits = setting.runtime.xp, len(psi), pairs.num_pairs, _address_bits(setting)
    partial = None
    if outcomes.num_parts:
        partial = xp.empty((num_rows, outcomes.num_parts), dtype=np.float64)
        args: tuple[Any, ...] = (psi, bits, np.int32(num_rows), outcomes.order)
        args += (outcomes.parts, np.int32(outcomes.num_parts), partial)
        blocks = -(-num_rows * outcomes.num_parts * 32 // _BLOCK)
        setting.launch("outcomes.cu", "sum_parts", blocks, _BLOCK, args)
    args = (psi, bits, outcomes.order, outcomes.lists, partial, np.int32(outcomes.num_parts))
    args += (pairs.row, pairs.observable, np.int32(num_pairs), np.int32(outcomes.log_lanes), pairs.cotangents, weights)
    args += (np.int32(outcomes.num_outcomes), values)
    blocks = -(-(num_pairs << outcomes.log_lanes) // _BLOCK)
    setting.launch("outcomes.cu", "outcome_values", blocks, _BLOCK, args)


def _address_bits(setting: Setting) -> np.int32:
    return np.int32(setting.plan.passes.num_address_bits)


def _empty_adjoint_states(setting: Setting, pairs: ChunkPairs, psi: Any) -> Any:
    """Return memory for the adjoint states (units, 2^N), or None without gradients."""
    request = setting.request
    if request.gradient is None:
        return None
    num_units = pairs.num_rows if request.gradients_are_per_row else pairs.num_pairs
    return setting.runtime.xp.empty((num_units, psi.shape[1]), dtype=request.dtype)
