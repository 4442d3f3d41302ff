# SPDX-License-Identifier: Apache-2.0
"""The amplitudes of each outcome of a measurement, as lists that the kernels of ``kernels/cuda/outcomes.cu`` add up.

The list of outcome k has the indices of all amplitudes whose outcome is k. A group of threads, the lanes, adds up one
list. Their number is chosen for all lists together, by the mean length. A list with too many entries for its lanes is
*long*: it is cut into parts, and a warp adds up each part, so that a few outcomes of many amplitudes still use the
whole device.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qiskit_fused.common.native import CONSTANTS
from qiskit_fused.engines.cuda import records

MAX_QUBITS = 31  # the places of amplitudes in a list are stored in 32 bits
_PART = 1024  # largest number of entries of a part, of which each of the 32 threads of a warp adds up 32
_ENTRIES_OF_LANE = 32  # largest number of entries that one thread adds up, of a list that is not long


class OutcomeLists(NamedTuple):
    """The lists of K outcomes.

    Attributes:
        order: uint32 (M,), the lists, one after the other; M amplitudes have an outcome. Each list is ascending.
        lists: ``records.OUTCOME_LIST`` (K,), the place of each list in ``order``, or of its parts in ``parts``.
        parts: ``records.LIST_PART`` (P,), the parts of all long lists.
        log_lanes: log2 of the number of threads that add up a list, 0 to 5.
    """

    order: np.ndarray
    lists: np.ndarray
    parts: np.ndarray
    log_lanes: int


def make_lists(outcome: np.ndarray, num_outcomes: int) -> OutcomeLists:
    """Sort amplitudes by their outcomes.

    Args:
        outcome: int32 (2^n,), the outcome of each amplitude, or -1 for none.
        num_outcomes: K.

    Cost: O(2^n + K), on the host.
    """
    kept = np.flatnonzero(outcome >= 0)
    if len(kept) < len(outcome):
        outcome = outcome[kept]
        order = kept[_stable_order(outcome)]
    else:
        order = _stable_order(outcome)
    sizes = np.bincount(outcome, minlength=num_outcomes)
    ends = np.cumsum(sizes)
    begins = ends - sizes
    log_lanes = _log_lanes(len(order), int(np.count_nonzero(sizes)))
    long = np.flatnonzero(sizes > _ENTRIES_OF_LANE << log_lanes)
    num_parts = -(-sizes[long] // _PART)
    ends_of_parts = np.cumsum(num_parts)
    number = np.arange(num_parts.sum()) - np.repeat(ends_of_parts - num_parts, num_parts)  # within its list
    parts = np.zeros(len(number), dtype=records.LIST_PART)
    parts["begin"] = np.repeat(begins[long], num_parts) + _PART * number
    parts["end"] = np.minimum(parts["begin"] + np.uint32(_PART), np.repeat(ends[long], num_parts))
    lists = np.zeros(num_outcomes, dtype=records.OUTCOME_LIST)
    lists["begin"], lists["end"] = begins, ends
    lists["begin"][long], lists["end"][long] = ends_of_parts - num_parts, ends_of_parts
    lists["has_parts"][long] = 1
    return OutcomeLists(order.astype(np.uint32), lists, parts, log_lanes)


def count_parts(num_qubits: int, num_outcomes: int) -> int:
    """Return the number of parts if the 2^n amplitudes are shared equally by K outcomes."""
    size = -(-(1 << num_qubits) // max(num_outcomes, 1))
    is_long = size > _ENTRIES_OF_LANE << _log_lanes(size, 1)
    return num_outcomes * -(-size // _PART) if is_long else 0


def most_bytes(num_address_bits: int, num_outcomes: int) -> int:
    """Bound the bytes of outcomes and lists on the device, before they are made.

    A long list has more than 32 entries, so there is at most one part for each 32 amplitudes.
    """
    of_parts = records.LIST_PART.itemsize * -(-(1 << num_address_bits) // _ENTRIES_OF_LANE)
    return (8 << num_address_bits) + records.OUTCOME_LIST.itemsize * max(num_outcomes, 1) + of_parts


def _log_lanes(num_entries: int, num_lists: int) -> int:
    mean = num_entries // max(num_lists, 1)
    return min(max(mean.bit_length() - 1, 0), CONSTANTS.warp_qubits)


def _stable_order(outcome: np.ndarray) -> np.ndarray:
    """Return the stable order that sorts outcomes, int64 (M,).

    NumPy sorts numbers of 16 bits by counting, in linear time. Larger numbers are sorted by their low 16 bits, then by
    their high 16 bits.
    """
    order = np.argsort((outcome & 0xFFFF).astype(np.uint16), kind="stable")
    high = (outcome >> 16).astype(np.uint16)
    return order[np.argsort(high[order], kind="stable")] if high.any() else order
