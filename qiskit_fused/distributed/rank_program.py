# SPDX-License-Identifier: Apache-2.0
"""Segment -> the fused program of one rank, whose engine sweeps the amplitudes of the rank alone.

On one rank, a global qubit is a constant. A term whose controls the rank does not satisfy is left out, and the parity
of the global qubits of a term is the sign of its angle. An engine leaves out the mean of a term over the amplitudes of
its rank (see `global_phase`). These means differ between ranks, so a rank multiplies its amplitudes by their phase.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from qiskit_fused.common.bits import bits_of, spread
from qiskit_fused.distributed.schedule import Schedule, Segment
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.program.global_phase import PhaseSum, means_of_generators
from qiskit_fused.program.program import Program


class RankProgram(NamedTuple):
    """A segment on one rank.

    Attributes:
        fused: the fused program on the local qubits. It takes any start state.
        phase: the final state of the segment is ``exp(i phase)`` times the final state of the fused program.
    """

    fused: FusedProgram
    phase: PhaseSum


def rank_programs(fused: FusedProgram, schedule: Schedule, rank: int) -> list[RankProgram]:
    """Return the programs of all segments of a schedule on one rank."""
    program = replace(fused.program, any_start=True, pieces=())
    return [_rank_program(fused, program, segment, schedule.num_local, rank) for segment in schedule.segments]


def empty_program(program: Program, num_qubits: int) -> FusedProgram:
    """Return a fused program without gates, which takes any start state."""
    none, words = np.zeros(0, np.int32), np.zeros(0, np.uint64)
    return FusedProgram(
        program=replace(program, any_start=True, pieces=()),
        num_qubits=num_qubits,
        wires=np.arange(num_qubits),
        num_layers=0,
        leaf_kind=np.zeros(0, np.uint8),
        leaf_column=none,
        leaf_coefficient=np.zeros(0),
        leaf_offset=np.zeros(0),
        leaf_quaternion=np.zeros((0, 4)),
        run_begin=np.zeros(1, np.int32),
        run_qubit=none,
        run_layer=none,
        term_phase=none,
        term_column=none,
        term_coefficient=np.zeros(0),
        term_offset=np.zeros(0),
        term_care=words,
        term_value=words,
        term_sign=words,
        dense_layer=none,
        dense_targets=words,
        dense_care=words,
        dense_value=words,
        dense_matrices=(),
        map_layer=none,
        map_number=none,
        map_columns=np.zeros((0, num_qubits), np.uint64),
        initial_state=None,
        starts=None,
        start_bits=np.arange(num_qubits),
        support=None,
    )


def move_bits(masks: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return masks, uint64, whose bit ``places[q]`` is bit q of the given masks."""
    moved = np.zeros(len(masks), np.uint64)
    for bit, place in enumerate(places.tolist()):
        moved |= (masks >> np.uint64(bit) & np.uint64(1)) << np.uint64(place)
    return moved


class RankMasks(NamedTuple):
    """Generators ``[(i & care) == value] (-1)^popcount(i & sign)`` on the amplitudes i of one rank.

    Attributes:
        kept: int64, the generators that are not zero on the rank.
        care, value, sign: uint64 (kept,), masks over the local qubits.
        factor: float64 (kept,), 1 or -1, the sign that the global qubits give.
    """

    kept: np.ndarray
    care: np.ndarray
    value: np.ndarray
    sign: np.ndarray
    factor: np.ndarray

    @classmethod
    def of(cls, care: np.ndarray, value: np.ndarray, sign: np.ndarray, num_local: int, rank: int) -> RankMasks:
        """Restrict generators, given by masks over the places of all qubits, to one rank."""
        number, local = np.uint64(rank << num_local), np.uint64((1 << num_local) - 1)
        kept = np.flatnonzero((value ^ number) & care & ~local == 0)
        factor = 1.0 - 2.0 * (np.bitwise_count(sign[kept] & number) & 1)
        return cls(kept, care[kept] & local, value[kept] & local, sign[kept] & local, factor)


def _rank_program(fused: FusedProgram, program: Program, segment: Segment, num_local: int, rank: int) -> RankProgram:
    places, terms, dense = segment.places, segment.terms, segment.dense
    layers = np.unique(np.concatenate([fused.run_layer[segment.runs], fused.dense_layer[dense]]))
    # Engines take no dense gate in layer 0 (see `FusedProgram`); layer 0 may be empty.
    shift = int(len(dense) > 0 and fused.dense_layer[dense[0]] == layers[0])

    def layer_of(numbers: np.ndarray) -> np.ndarray:
        return (np.searchsorted(layers, numbers) + shift).astype(np.int32)

    order = np.lexsort((places[fused.run_qubit[segment.runs]], fused.run_layer[segment.runs]))
    runs = segment.runs[order]
    sizes = np.diff(fused.run_begin)[runs]
    run_begin = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    leaves = np.arange(run_begin[-1]) + np.repeat(fused.run_begin[runs] - run_begin[:-1], sizes)

    care, value, sign = (
        move_bits(masks[terms], places) for masks in (fused.term_care, fused.term_value, fused.term_sign)
    )
    masks = RankMasks.of(care, value, sign, num_local, rank)
    kept = terms[masks.kept]
    column = fused.term_column[kept]
    coefficient, offset = (masks.factor * part[kept] for part in (fused.term_coefficient, fused.term_offset))
    mean = -0.5 * means_of_generators(masks.care, masks.value, masks.sign)
    phase = PhaseSum.of(column, mean * coefficient, mean * offset)
    acts = (masks.care | masks.sign) != 0  # other terms are only phases on this rank

    targets, controls, states = (
        move_bits(part[dense], places) for part in (fused.dense_targets, fused.dense_care, fused.dense_value)
    )
    gates = RankMasks.of(controls, states, np.zeros_like(controls), num_local, rank)
    local = replace(
        empty_program(program, num_local),
        program=program,
        num_layers=len(layers) + shift,
        **{
            name: getattr(fused, name)[leaves]
            for name in ("leaf_kind", "leaf_column", "leaf_coefficient", "leaf_offset", "leaf_quaternion")
        },
        run_begin=run_begin,
        run_qubit=places[fused.run_qubit[runs]].astype(np.int32),
        run_layer=layer_of(fused.run_layer[runs]),
        term_phase=layer_of(fused.term_phase[kept][acts]),
        term_column=column[acts],
        term_coefficient=coefficient[acts],
        term_offset=offset[acts],
        term_care=masks.care[acts],
        term_value=masks.value[acts],
        term_sign=masks.sign[acts],
        dense_layer=layer_of(fused.dense_layer[dense][gates.kept]),
        dense_targets=targets[gates.kept],
        dense_care=gates.care,
        dense_value=gates.value,
        dense_matrices=tuple(_reordered(fused, int(dense[gate]), places) for gate in gates.kept),
    )
    return RankProgram(local, phase)


def _reordered(fused: FusedProgram, gate: int, places: np.ndarray) -> np.ndarray:
    """Return the matrix of a dense gate, with its bits in the order of the places of its targets."""
    order = np.argsort(places[bits_of(int(fused.dense_targets[gate]))])
    index = spread(order.tolist())
    return np.ascontiguousarray(fused.dense_matrices[gate][np.ix_(index, index)])
