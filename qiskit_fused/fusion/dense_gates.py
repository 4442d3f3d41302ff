# SPDX-License-Identifier: Apache-2.0
"""Dense gates -> rotations and terms, for engines that have no dense gates."""

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

_WITHOUT_DENSE: BoundedCache[FusedProgram] = BoundedCache(64 << 20)  # the bound is in bytes


def without_dense_gates(fused: FusedProgram) -> FusedProgram:
    """Return the fused program with each dense gate as rotations and terms, on the same qubits.

    Cost: 20 ms for a dense gate on 7 qubits, once for each fused program; nothing for a program without dense gates.
    """
    if not fused.dense_matrices:
        return fused
    result = _WITHOUT_DENSE.get(id(fused))
    if result is None:
        result = _decomposed(fused)
        _WITHOUT_DENSE.put(id(fused), result, result.num_bytes, fused)
    return result


def _decomposed(fused: FusedProgram) -> FusedProgram:
    program = _without_dense_ops(fused.program)
    cone = find_cone(program, fused.support)._replace(seen=np.flatnonzero(fused.start_bits >= 0))
    result = fuse_program(program, fused.support, cone)
    if program.phase is None:
        return result
    return replace(result, extra_phase=result.phase_of_gates.offset - fused.phase_of_gates.offset)


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
