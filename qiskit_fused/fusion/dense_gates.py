# SPDX-License-Identifier: Apache-2.0
"""Dense gates and linear maps -> rotations and terms, for engines that have neither."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qiskit_fused.common.bits import bits_of
from qiskit_fused.common.caches import BoundedCache
from qiskit_fused.fusion.cone import find_cone
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.lowering.cosine_sine import CosineSine, decompose, emit
from qiskit_fused.lowering.emitter import NormalForm
from qiskit_fused.program.global_phase import PhaseSum
from qiskit_fused.program.program import OpKind, Ops, Program

_ROTATIONS_AND_TERMS: BoundedCache[FusedProgram] = BoundedCache(64 << 20)  # the bounds are in bytes
_WITHOUT_MAPS: BoundedCache[FusedProgram] = BoundedCache(64 << 20)


def rotations_and_terms(fused: FusedProgram) -> FusedProgram:
    """Return the fused program with each dense gate and linear map as rotations and terms, on the same bits.

    Cost: 20 ms for a dense gate on 7 qubits, once for each fused program; nothing for a program without both.
    """
    if not fused.dense_matrices:
        return without_maps(fused)
    result = _ROTATIONS_AND_TERMS.get(id(fused))
    if result is None:
        result = _fused_again(fused, _without_dense_ops(fused.program))
        _ROTATIONS_AND_TERMS.put(id(fused), result, result.num_bytes, fused)
    return result


def without_maps(fused: FusedProgram) -> FusedProgram:
    """Return the fused program with each linear map as rotations and terms, on the same bits.

    Cost: O(gates), once for each fused program; nothing for a program without maps.
    """
    if not len(fused.map_layer):
        return fused
    result = _WITHOUT_MAPS.get(id(fused))
    if result is None:
        result = _fused_again(fused, fused.program)
        _WITHOUT_MAPS.put(id(fused), result, result.num_bytes, fused)
    return result


def _fused_again(fused: FusedProgram, program: Program) -> FusedProgram:
    """Return another form of the same program, fused without linear maps, on the bits of a fused program."""
    cone = find_cone(program, fused.support)._replace(seen=np.flatnonzero(fused.start_bits >= 0))
    result = fuse_program(program, fused.support, cone, fused.start_bits)
    if program.phase is None:
        return result
    return replace(result, extra_phase=result.phase_of_gates.constant - fused.phase_of_gates.constant)


def _without_dense_ops(program: Program) -> Program:
    """Return the program with the cosine-sine decomposition of each dense gate in its place."""
    ops, parts, done = program.ops, list[Ops](), 0
    sizes = np.ones(len(ops), np.int64)
    decomposed: dict[int, CosineSine] = {}
    phases = []
    for place, matrix in zip(np.flatnonzero(ops.kind == OpKind.DENSE).tolist(), ops.matrices):
        if id(matrix) not in decomposed:
            decomposed[id(matrix)] = decompose(matrix)
        form = NormalForm(program.num_qubits)
        controls, value = bits_of(int(ops.care[place])), int(ops.value[place])
        state = sum((value >> control & 1) << position for position, control in enumerate(controls))
        emit(form.controlled(controls, state), bits_of(int(ops.sign[place])), decomposed[id(matrix)])
        parts += [ops.take(slice(done, place)), form.finish()]
        phases += form.phases
        sizes[place], done = len(parts[-1]), place + 1
    begin = np.concatenate([[0], np.cumsum(sizes)])
    instructions = np.stack([program.instructions[:, 0], begin[program.instructions[:, 1]]], axis=1)
    phase = program.phase
    if phase is not None:
        phase = replace(phase, left_out=phase.left_out.plus(PhaseSum.of_angles(phases)))
    ops = Ops.joined([*parts, ops.take(slice(done, None))])
    return replace(program, ops=ops, instructions=instructions, phase=phase)
