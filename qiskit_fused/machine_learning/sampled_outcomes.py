# SPDX-License-Identifier: Apache-2.0
"""The frequencies of outcomes in the shots of a sampler."""

from __future__ import annotations

import numpy as np
from qiskit.primitives import BitArray

from qiskit_fused.program.outcomes import Outcomes

_BLOCK_SHOTS = 1 << 20  # shots of a block of rows; a block takes some 30 bytes for each shot


def frequencies(field: BitArray, qubit_of_bit: np.ndarray, outcomes: Outcomes) -> np.ndarray:
    """Return the frequency of each outcome in each row, float64 (B, K): its number of shots over all shots.

    >>> from qiskit_fused.program.outcomes import Outcomes
    >>> shots = BitArray.from_samples(["00", "11", "01", "00"], num_bits=2)
    >>> frequencies(shots, np.array([0, 1]), Outcomes(2, [0, 1], [0, 1, 1, 0], 2)).tolist()  # the parity
    [[0.75, 0.25]]

    Args:
        field: the shots of all B rows.
        qubit_of_bit: int (c,), the qubit that was measured into each bit of the field, or -1.
        outcomes: the K outcomes of the measured qubits. A bitstring may belong to no outcome.

    Cost: some operations of NumPy for each measured qubit, on one byte for each shot.
    """
    count, shots = len(outcomes), field.num_shots
    array = field.array.reshape(-1, *field.array.shape[-2:])  # (B, shots, bytes), the last byte has the first 8 bits
    place = {qubit: bit for bit, qubit in reversed(list(enumerate(qubit_of_bit.tolist())))}
    places = [place[qubit] for qubit in outcomes.measured.tolist()]
    values = np.empty((len(array), count))
    step = max(_BLOCK_SHOTS // max(shots, 1), 1)
    for begin in range(0, len(array), step):
        block = array[begin : begin + step]
        bitstrings = np.zeros(block.shape[:-1], dtype=np.int32)
        for position, bit in enumerate(places):
            is_one = block[..., -1 - bit // 8] >> (bit % 8) & 1
            bitstrings |= is_one.astype(np.int32) << position
        outcome = bitstrings if outcomes.table is None else outcomes.table[bitstrings]
        # Each row has a counter for shots without an outcome, whose number is -1, before the counters of its outcomes.
        counter = outcome.astype(np.int64) + 1 + (count + 1) * np.arange(len(block))[:, None]
        numbers = np.bincount(counter.ravel(), minlength=(count + 1) * len(block)).reshape(len(block), count + 1)
        values[begin : begin + step] = numbers[:, 1:] / shots
    return values
