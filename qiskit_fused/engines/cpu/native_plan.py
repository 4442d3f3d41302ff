# SPDX-License-Identifier: Apache-2.0
"""FusedProgram -> native plan: the C++ object from which the CPU engine runs a fused program, made once and cached."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from qiskit_fused import _cpu
from qiskit_fused.common.caches import BoundedCache
from qiskit_fused.engines.cpu.costs import chunk_bits, num_sweeps
from qiskit_fused.fusion.fused_program import FusedProgram


class NativePlan(NamedTuple):
    """A fused program in the form of the extension.

    Attributes:
        plan: the object of the extension.
        num_qubits: number of qubits.
        num_columns: number of columns of the program.
        num_sweeps: number of sweeps of a forward pass.
        num_rotations: work of a forward pass, in rotations of one amplitude.
        num_angles: number of angles of gates and terms.
    """

    plan: Any
    num_qubits: int
    num_columns: int
    num_sweeps: int
    num_rotations: int
    num_angles: int


_NO_ENTRIES = np.zeros(0, np.complex128)

# Engines with any number of threads share the native plans. The bound in bytes counts the fused program's arrays, too.
_PLANS: BoundedCache[NativePlan] = BoundedCache(1 << 30)


def native_plan(plan: FusedProgram) -> NativePlan:
    """Return a fused program in the form of the extension; it is made once for each fused program."""
    native = _PLANS.get(id(plan))
    if native is None:
        made = _cpu.make_plan(
            num_qubits=plan.num_qubits,
            num_columns=plan.program.num_columns,
            num_layers=plan.num_layers,
            chunk_bits=chunk_bits(plan.num_qubits),
            is_real=plan.is_real,
            leaf_kind=plan.leaf_kind,
            leaf_column=plan.leaf_column,
            leaf_coefficient=plan.leaf_coefficient,
            leaf_offset=plan.leaf_offset,
            leaf_quaternion=plan.leaf_quaternion,
            run_begin=plan.run_begin,
            run_qubit=plan.run_qubit,
            run_layer=plan.run_layer,
            term_phase=plan.term_phase,
            term_column=plan.term_column,
            term_coefficient=plan.term_coefficient,
            term_offset=plan.term_offset,
            term_care=plan.term_care,
            term_value=plan.term_value,
            term_sign=plan.term_sign,
            dense_layer=plan.dense_layer,
            dense_targets=plan.dense_targets,
            dense_care=plan.dense_care,
            dense_value=plan.dense_value,
            dense_entries=np.concatenate([_NO_ENTRIES, *[matrix.ravel() for matrix in plan.dense_matrices]]),
            map_layer=plan.map_layer,
            map_number=plan.map_number,
            map_columns=plan.map_columns,
            initial=plan.initial_state,
        )
        num_angles = len(plan.leaf_kind) + len(plan.term_phase)
        num_qubits, num_rotations = plan.num_qubits, math.ceil(plan.work) << plan.num_qubits
        num_columns = plan.program.num_columns
        native = NativePlan(made, num_qubits, num_columns, num_sweeps(plan), num_rotations, num_angles)
        native = _PLANS.put(id(plan), native, plan.num_bytes, plan)
    return native


def windows(plan: FusedProgram, dtype: str) -> list[int]:
    """Return the window of the forward pass of each phase, 0 or 1.

    Window 0 holds all qubits but the highest `chunk_bits` qubits, window 1 all but as many qubits below these. The
    windows take turns: a pass leaves the rotations outside its window to the next pass.
    """
    return _cpu.windows(native_plan(plan).plan, dtype == "complex64")
