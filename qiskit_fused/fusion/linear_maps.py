# SPDX-License-Identifier: Apache-2.0
"""Linear maps: gather CX gates that follow each other into one permutation of the amplitudes.

A CX moves amplitude ``i`` to ``i`` with the bit of the target replaced by its parity with the bit of the control. CX
gates without other gates between them are one linear map over GF(2): each bit of the new index is the parity of some
bits of the old index. An engine moves each amplitude once for a whole ladder of CX, without arithmetic.

The CPU engine moves blocks of neighbouring amplitudes. It therefore takes CX gates whose control is a higher bit of the
index than the target. Circuits mostly have CX gates in one direction, so the order of the bits is chosen by the
direction of most CX gates.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qiskit_fused.fusion.phase_gadgets import OPS_OF_CX, find_cx
from qiskit_fused.program.program import OpKind, Ops

FEWEST_QUBITS = 11  # smaller states are evaluated in packs, which have no linear maps
MOST_QUBITS = 30  # in larger states, the windows of the CPU engine share fewer low bits than a block has
_FEWEST_CX = 4  # circuits with fewer CX gates are not searched for maps


class MappedOps(NamedTuple):
    """Ops with linear maps in the place of CX gates.

    Attributes:
        ops: the ops. The qubits of a map, of kind `OpKind.MAP`, are in its ``care``.
        maps: for each map in turn, for each target qubit, the mask of the qubits whose parity is its new bit.
        upwards: whether the controls of the CX gates in the maps are lower qubits than the targets.
        phase: 0 or pi, a global phase in radians: the ops that were given are ``exp(i phase)`` times these ops.
    """

    ops: Ops
    maps: list[dict[int, int]]
    upwards: bool
    phase: float


def gather_maps(ops: Ops) -> MappedOps | None:
    """Return the ops with linear maps in the place of the CX gates of the more frequent direction.

    A CX joins the open map if no op after the map acts on its qubits. Ops that act on the qubits of the open map, or on
    qubits of such ops, move behind the map.

    Args:
        ops: the ops of any program.

    Returns:
        None if the ops have few CX gates.

    Cost: O(ops) in Python if there are CX gates.
    """
    cx_places = find_cx(ops)
    num_upwards = sum(control < target for _, control, target, _ in cx_places)
    upwards = 2 * num_upwards > len(cx_places)
    cx_places = [cx for cx in cx_places if (cx[1] < cx[2]) == upwards]
    if len(cx_places) < _FEWEST_CX:
        return None
    order = _Order()
    supports = (ops.care | ops.sign).tolist()
    qubits = ops.qubit.tolist()
    row, sign = 0, 1
    for begin, control, target, sign_of_cx in [*cx_places, (len(ops), -1, -1, 1)]:
        for i in range(row, begin):
            order.add(i, supports[i] if qubits[i] < 0 else 1 << qubits[i])
        if control >= 0:
            order.add_cx(begin, control, target)
            sign *= sign_of_cx
        row = begin + OPS_OF_CX
    order.close()
    result = ops.take(np.array(order.rows))
    places = order.places
    result.kind[places], result.qubit[places], result.column[places] = OpKind.MAP, -1, -1
    result.care[places] = np.array([sum(1 << qubit for qubit in parities) for parities in order.maps], ops.care.dtype)
    result.value[places] = result.sign[places] = 0
    return MappedOps(result, order.maps, upwards, 0.0 if sign > 0 else float(np.pi))


class _Order:
    """The new order of the ops.

    Attributes:
        rows: for each op of the result, its old index. A map has the index of its first op.
        places: the indices of the maps among `rows`.
        maps: see `MappedOps`.
        open: the open map.
        of_map: mask of the qubits of the open map.
        behind: the ops that move behind the open map.
        of_behind: mask of the qubits of these ops.
    """

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.places: list[int] = []
        self.maps: list[dict[int, int]] = []
        self._start()

    def _start(self) -> None:
        self.open: dict[int, int] = {}
        self.first = -1
        self.of_map, self.of_behind = 0, 0
        self.behind: list[int] = []

    def add(self, row: int, support: int) -> None:
        """Add an op that acts on the qubits of a mask."""
        if support & (self.of_map | self.of_behind):
            self.behind.append(row)
            self.of_behind |= support
        else:
            self.rows.append(row)

    def add_cx(self, row: int, control: int, target: int) -> None:
        """Add the CX whose first op is ``row`` to the open map, or to a new map."""
        support = 1 << control | 1 << target
        if support & self.of_behind:
            self.close()
        if not self.open:
            self.first = row
        for qubit in (control, target):
            self.open.setdefault(qubit, 1 << qubit)
        self.open[target] ^= self.open[control]
        self.of_map |= support

    def close(self) -> None:
        """Close the open map, and add the ops behind it."""
        if self.open:
            self.places.append(len(self.rows))
            self.rows.append(self.first)
            self.maps.append(self.open)
        self.rows += self.behind
        self._start()
