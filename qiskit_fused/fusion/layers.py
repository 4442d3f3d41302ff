# SPDX-License-Identifier: Apache-2.0
"""Program -> FusedProgram: leave out the ops that no observable sees, and schedule the others as early as possible.

Every op joins the earliest layer or phase that it can (ASAP scheduling).
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate, chain
from typing import Any

import numpy as np

from qiskit_fused.common.bits import bits_of, spread
from qiskit_fused.common.cancellation import stop_if_cancelled
from qiskit_fused.common.free_memory import TooManyQubits
from qiskit_fused.fusion.cone import Cone, find_cone, term_ranges
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.fusion.linear_maps import FEWEST_QUBITS, MOST_QUBITS, gather_maps
from qiskit_fused.lowering.emitter import IDENTITY
from qiskit_fused.program.amplitude_encoding import Starts
from qiskit_fused.program.program import MAX_QUBITS, OpKind, Ops, Program

MAX_START_STATE_QUBITS = 30  # largest start state that is given as a vector: 16 GiB
_ROTATIONS_OF_PHASE = 6  # time of a phase, with the traffic of its pass, in rotations (n = 20, complex64, AMD Zen 4)
_ROUNDING = 1e-14  # absolute rounding error of constants: angles in multiples of pi, parts of unit quaternions
# Integers are compared and converted faster than members of an enum.
_RX, _RY, _RZ, _SU2, _TERM, _DENSE, _MAP = map(
    int, (OpKind.RX, OpKind.RY, OpKind.RZ, OpKind.SU2, OpKind.TERM, OpKind.DENSE, OpKind.MAP)
)


def fuse_program(
    program: Program, support: np.ndarray | None = None, cone: Cone | None = None, bits: np.ndarray | None = None
) -> FusedProgram:
    """Fuse a program for the observables of one request.

    Args:
        program: the lowered circuit.
        support: uint8 (num_circuit_qubits,), the action of the observables on each circuit qubit: 0 none, 1 a
            diagonal, 2 any other (see `Observables.support`). Gates outside the light cone of the observables are left
            out: values and 2 Re <psi|O|d psi> stay the same, 2 Im <psi|O|d psi> does not. None keeps every gate.
        cone: the light cone of ``support`` if the caller has it already; None computes it.
        bits: int64, bit of each active qubit, -1 where it is not simulated. The result then has no linear maps. None
            lets this function choose.

    Raises:
        TooManyQubits: when the observables see more than 64 qubits, or more than 30 that start in a given vector.

    Cost: O(gates), once per circuit and support; O(gates of the cone) if ``cone`` is given.
    """
    stop_if_cancelled()
    ops, kept, seen, phase = find_cone(program, support) if cone is None else cone
    if len(seen) > MAX_QUBITS:
        reason, cure = "the observables see", "observables, or gates, that connect fewer qubits"
        if support is None:  # imaginary derivatives, or a plan without observables
            reason, cure = "this needs all of", "real derivatives, or a plan for observables that see fewer"
        raise TooManyQubits(f"{reason} {len(seen)} qubits, a statevector has at most {MAX_QUBITS}; use {cure}.")
    if len(seen) > MAX_START_STATE_QUBITS and any(np.isin(piece.qubits, seen).any() for piece in program.pieces):
        raise TooManyQubits(
            f"{len(seen)} qubits start in a vector, the limit is {MAX_START_STATE_QUBITS}; prepare the state by gates "
            "(StatePreparation)."
        )
    ops = ops if len(kept) == len(ops) else ops.take(kept)

    if bits is not None:
        return _build(program, ops, seen[np.argsort(bits[seen])], support, phase)
    fused = _build(program, ops, seen, support, phase)
    if not FEWEST_QUBITS <= len(seen) <= MOST_QUBITS or program.any_start or program.pieces:
        return fused
    mapped = gather_maps(ops)
    if mapped is None:
        return fused
    order = seen[::-1] if mapped.upwards else seen
    with_maps = _build(program, mapped.ops, order, support, phase + mapped.phase, mapped.maps)
    if _cost(with_maps) >= _cost(fused):
        return fused
    return replace(with_maps, ops_of_maps=len(ops) + len(mapped.maps) - len(mapped.ops))


def _build(
    program: Program,
    ops: Ops,
    qubits: np.ndarray,
    support: np.ndarray | None,
    phase: float,
    maps: list[dict[int, int]] | None = None,
) -> FusedProgram:
    """Schedule ops.

    Args:
        program: the program.
        ops: the ops to schedule.
        qubits: the simulated qubits in the order of their bits.
        support: field of the result.
        phase: field of the result.
        maps: the linear maps among the ops, see `MappedOps`.
    """
    bit_of = np.full(program.num_qubits + 1, -1)  # the last entry is the bit of wire -1, which is no qubit
    bit_of[qubits] = np.arange(len(qubits))
    builder = _LayerBuilder(program, ops, bit_of, len(qubits), maps or [])
    builder.add_ops()
    return builder.finish(bit_of[program.output_wires], support, phase)


def _cost(fused: FusedProgram) -> float:
    """Estimate the time of a sweep for each amplitude, in rotations."""
    return fused.work + _ROTATIONS_OF_PHASE * fused.num_layers


def _snapped(column: int, offset: float) -> float:
    """Return the offset of an angle. A constant angle within its rounding error of a multiple of pi is this multiple.

    A rounding error in the place of a zero matrix element would have an arbitrary phase, which later phases would have
    to cancel.
    """
    if column >= 0 or not offset:
        return offset
    turns = round(offset / math.pi)
    is_exact = abs(offset - turns * math.pi) < _ROUNDING * max(1, abs(turns))
    return turns % 4 * math.pi if is_exact else offset


@lru_cache(maxsize=1024)
def _constant_leaf(quaternion: tuple[float, ...]) -> tuple[int, float, tuple[float, ...]]:
    """Return kind, angle and quaternion of a constant; parts of the quaternion within rounding of 0 become 0.

    The kind is RX or RY if the constant is a rotation about that axis, because runs about one axis need fewer sums.
    """
    a, b, c, d = parts = tuple(0.0 if abs(part) < _ROUNDING else part for part in quaternion)
    if not c and not d:
        return _RX, 2 * math.atan2(b, a), parts
    if not b and not d:
        return _RY, 2 * math.atan2(c, a), parts
    return _SU2, 0.0, parts


class _LayerBuilder:
    """Puts the ops, in circuit order, each into the earliest layer or phase that it can join.

    Attributes:
        kinds, supports: for each op, its kind and the mask of the active qubits it acts on.
        bits: for each active qubit, its bit in the fused program.
        position: for each bit, the layer that its next run joins. Its next term joins the phase of the same number or a
            later phase. The number never falls.
        open: for each bit, the ops of the run that may still grow. A term closes the runs that hold a rotation about X
            or Y; a run of diagonal gates commutes with the term and stays open.
        rotates: for each bit, whether its open run holds a gate that is not diagonal.
        runs: (layer, bit, ops) of each closed run.
        terms: (phase, op, bit) of each term. The bit is -1 unless the op is a diagonal gate from the end of a run.
        many_terms: int64 (terms, 3), (phase, op, bit) of the terms that were added by one NumPy call.
        dense: (layer, op) of each dense gate.
        maps: for each linear map in turn, see `MappedOps`.
        map_layers: the layers of the linear maps.
    """

    def __init__(self, program: Program, ops: Ops, bit_of: np.ndarray, num_qubits: int, maps: list[dict[int, int]]):
        self.program, self.ops, self.bit_of, self.num_qubits = program, ops, bit_of, num_qubits
        self.kinds: list[int] = ops.kind.tolist()
        self.supports, self.bits = ops.care | ops.sign, bit_of.tolist()
        self.position = [0] * num_qubits
        self.open: list[list[int]] = [[] for _ in range(num_qubits)]
        self.rotates = [False] * num_qubits
        self.runs: list[tuple[int, int, list[int]]] = []
        self.terms: list[tuple[int, int, int]] = []
        self.many_terms: list[np.ndarray] = []
        self.dense: list[tuple[int, int]] = []
        self.maps, self.map_layers = maps, list[int]()

    def add_ops(self) -> None:
        """Add all ops and close all runs."""
        for begin, end, are_terms in term_ranges(self.ops):
            if are_terms:
                self._add_terms(begin, end)
            else:
                self._add_one_by_one(begin, end)
        for qubit in range(self.num_qubits):
            self.close(qubit)

    def _add_one_by_one(self, begin: int, end: int) -> None:
        kinds, bits = self.kinds, self.bits
        qubits, supports = self.ops.qubit[begin:end].tolist(), self.supports[begin:end].tolist()
        for i, qubit, mask in zip(range(begin, end), qubits, supports):
            if qubit >= 0:
                qubit = bits[qubit]
                self.open[qubit].append(i)
                self.rotates[qubit] = self.rotates[qubit] or kinds[i] != _RZ
                continue
            phase, members = 0, []
            while mask:
                members.append(bits[(mask & -mask).bit_length() - 1])
                mask &= mask - 1
            if kinds[i] == _DENSE:
                self.dense.append((self._add_alone(members), i))
                continue
            if kinds[i] == _MAP:
                self.map_layers.append(self._add_alone(members))
                continue
            for qubit in members:
                if self.rotates[qubit]:
                    self.close(qubit)
                phase = max(phase, self.position[qubit])
            for qubit in members:
                self.position[qubit] = phase
            self.terms.append((phase, i, -1))

    def _add_alone(self, members: list[int]) -> int:
        """Return the first layer after all ops on some bits, for a dense gate or a map on these bits.

        It is never layer 0. Engines that start in |0...0> compute the state after layer 0 as a product state.
        """
        for qubit in members:
            self.close(qubit)
        layer = max(1, *[self.position[qubit] for qubit in members])
        for qubit in members:
            self.position[qubit] = layer + 1
        return layer

    def _add_terms(self, begin: int, end: int) -> None:
        """Add consecutive terms, which commute: each joins the earliest phase it can, independent of the others."""
        qubits = bits_of(int(np.bitwise_or.reduce(self.supports[begin:end])))
        members = [self.bits[qubit] for qubit in qubits]
        for bit in members:
            if self.rotates[bit]:
                self.close(bit)
        terms = np.empty((end - begin, 3), dtype=np.int64)
        terms[:, 0], terms[:, 1], terms[:, 2] = (
            self._join_phases(begin, end, qubits, members),
            np.arange(begin, end),
            -1,
        )
        self.many_terms.append(terms)

    def _join_phases(self, begin: int, end: int, qubits: list[int], members: list[int]) -> np.ndarray | int:
        """Return the phase that each consecutive term joins, and raise the positions of the bits to these phases.

        Args:
            begin: index of the first term among the ops.
            end: index behind the last term.
            qubits: the active qubits that some term acts on.
            members: the bits of these qubits.
        """
        last = max(self.position[bit] for bit in members)
        common = int(np.bitwise_and.reduce(self.supports[begin:end]))
        if any(common >> qubit & 1 and self.position[bit] == last for qubit, bit in zip(qubits, members)):
            for bit in members:  # every term acts on the qubit whose position is last, as inside a dense gate
                self.position[bit] = last
            return last
        acts = self.supports[begin:end, None] >> np.array(qubits, np.uint64) & np.uint64(1)
        acts = acts.astype(np.int64)
        phases: np.ndarray = (acts * [self.position[bit] for bit in members]).max(axis=1)
        for bit, position in zip(members, (acts * phases[:, None]).max(axis=0).tolist()):
            self.position[bit] = position
        return phases

    def close(self, qubit: int) -> None:
        """Close the open run of a bit; the diagonal gates at the run's ends become terms of the phases beside it."""
        leaves, layer = self.open[qubit], self.position[qubit]
        diagonal = [self.kinds[i] == _RZ for i in leaves]
        first = diagonal.index(False) if False in diagonal else len(leaves)
        end = len(leaves) - diagonal[::-1].index(False) if first < len(leaves) else len(leaves)
        self.terms += [(layer, i, qubit) for i in leaves[:first]]
        if first < end:
            self.runs.append((layer, qubit, leaves[first:end]))
            self.position[qubit] = layer + 1
            self.terms += [(layer + 1, i, qubit) for i in leaves[end:]]
        self.open[qubit], self.rotates[qubit] = [], False

    def to_bits(self, masks: np.ndarray) -> np.ndarray:
        """Turn masks over active qubits into masks over the bits of the fused program."""
        if np.array_equal(self.bit_of, [*range(self.program.num_qubits), -1]):
            return masks.astype(np.uint64, copy=False)
        moved, one = np.zeros(len(masks), np.uint64), np.ones((), masks.dtype)
        for qubit in np.flatnonzero(self.bit_of >= 0).tolist():
            moved |= ((masks >> one * qubit) & one).astype(np.uint64) << np.uint64(self.bit_of[qubit])
        return moved

    def leaves(self, chosen: list[int]) -> dict[str, Any]:
        """Return the arrays of the leaves of the fused program, by field name, for the chosen ops."""
        ops, which = self.ops, np.array(chosen, np.intp)
        columns, offsets = ops.column[which].tolist(), ops.offset[which].tolist()
        leaves = [
            _constant_leaf(tuple(quaternion)) if kind == _SU2 else (kind, _snapped(column, offset), IDENTITY)
            for kind, column, offset, quaternion in zip(
                ops.kind[which].tolist(), columns, offsets, ops.quaternion[which].tolist()
            )
        ]
        kinds, offsets, quaternions = zip(*leaves) if leaves else ((), (), ())
        return {
            "leaf_kind": np.array(kinds, dtype=np.uint8),
            "leaf_column": ops.column[which],
            "leaf_coefficient": ops.coefficient[which],
            "leaf_offset": np.array(offsets, dtype=np.float64),
            "leaf_quaternion": np.array([*chain.from_iterable(quaternions)], dtype=np.float64).reshape(-1, 4),
        }

    def finish(self, wires: np.ndarray, support: np.ndarray | None, phase: float) -> FusedProgram:
        """Return the fused program; the arguments become its fields of the same names."""
        initial_state, starts = self._start()
        runs, dense = sorted(self.runs), sorted(self.dense)
        dense_ops = self.ops.take(np.array([op for _, op in dense], np.intp))
        return FusedProgram(
            program=self.program,
            num_qubits=self.num_qubits,
            wires=wires,
            num_layers=1 + max([part[-1][0] for part in (runs, dense) if part] + self.map_layers, default=-1),
            **self.leaves([i for run in runs for i in run[2]]),
            run_begin=np.array([0, *accumulate([len(run[2]) for run in runs])], dtype=np.int32),
            run_qubit=np.array([run[1] for run in runs], dtype=np.int32),
            run_layer=np.array([run[0] for run in runs], dtype=np.int32),
            **self._term_arrays(),
            dense_layer=np.array([layer for layer, _ in dense], dtype=np.int32),
            dense_targets=self.to_bits(dense_ops.sign),
            dense_care=self.to_bits(dense_ops.care),
            dense_value=self.to_bits(dense_ops.value),
            dense_matrices=self._dense_matrices(dense_ops),
            **self._map_arrays(),
            initial_state=initial_state,
            starts=starts,
            start_bits=self.bit_of[: self.program.num_qubits],
            support=support,
            phase=phase,
        )

    def _start(self) -> tuple[np.ndarray | None, Starts | None]:
        """Return the fields ``initial_state`` and ``starts``; at most one is not None, both are None for |0...0>."""
        pieces = [piece for piece in self.program.pieces if self.bit_of[piece.qubits[0]] >= 0]
        if not pieces:
            return None, None
        starts = Starts(pieces, self.bit_of, self.num_qubits)
        if any(piece.varies for piece in pieces):
            return None, starts
        return starts.states(np.zeros((1, 0)))[0], None

    def _dense_matrices(self, dense: Ops) -> tuple[np.ndarray, ...]:
        """Return the matrices of dense gates. Bit j of a row is the j-th lowest bit of the fused program's masks."""
        matrices = []
        for matrix, targets in zip(dense.matrices, dense.sign.tolist()):
            ranks = np.argsort(np.argsort([self.bits[qubit] for qubit in bits_of(targets)])).tolist()
            if ranks != sorted(ranks):
                order = np.argsort(spread(ranks))
                matrix = np.ascontiguousarray(matrix[order][:, order])
            matrices.append(matrix)
        return tuple(matrices)

    def _map_arrays(self) -> dict[str, Any]:
        """Return the arrays of the linear maps, by field name, sorted by layer."""
        of_layer: dict[int, list[int]] = {}
        for layer, parities in zip(self.map_layers, self.maps):  # the maps of a layer act on different bits
            columns = of_layer.setdefault(layer, [1 << bit for bit in range(self.num_qubits)])
            for target, mask in parities.items():
                for source in bits_of(mask):
                    columns[self.bits[source]] |= 1 << self.bits[target]
        layers, numbers = sorted(of_layer), dict[tuple[int, ...], int]()
        of_layers = [numbers.setdefault(tuple(of_layer[layer]), len(numbers)) for layer in layers]
        return {
            "map_layer": np.array(layers, dtype=np.int32),
            "map_number": np.array(of_layers, dtype=np.int32),
            "map_columns": np.array([*numbers], dtype=np.uint64).reshape(len(numbers), self.num_qubits),
        }

    def _term_arrays(self) -> dict[str, Any]:
        """Return the arrays of the terms, by field name, sorted by phase, then by op."""
        ops = self.ops
        terms = np.array([*chain.from_iterable(sorted(self.terms))], dtype=np.int64).reshape(-1, 3)
        if self.many_terms:
            terms = np.concatenate([terms, *self.many_terms])
            terms = terms[np.lexsort((terms[:, 1], terms[:, 0]))]
        chosen, own_bit = terms[:, 1], terms[:, 2]
        care, value, sign = (self.to_bits(part[chosen]) for part in (ops.care, ops.value, ops.sign))
        is_leaf = own_bit >= 0
        care[is_leaf] = value[is_leaf] = 0
        sign[is_leaf] = np.uint64(1) << own_bit[is_leaf].astype(np.uint64)
        return {
            "term_phase": terms[:, 0].astype(np.int32),
            "term_column": ops.column[chosen],
            "term_coefficient": ops.coefficient[chosen],
            "term_offset": ops.offset[chosen],
            "term_care": care,
            "term_value": value,
            "term_sign": sign,
        }
