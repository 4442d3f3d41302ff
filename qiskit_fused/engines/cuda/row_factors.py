# SPDX-License-Identifier: Apache-2.0
"""The global phase of each row on a CUDA device, where states leave the device or their cotangents reach it.

The kernels apply gates up to a global phase. They apply a run as diag(1, e^{i phi}) Ry diag(1, e^{i lambda}), without
the phase -(phi + lambda)/2 of the two Rz. They apply a term on one or two qubits without the constant of its
polynomial (see `phase_parts.polynomial`), and a term on more qubits with the mean of its generator.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qiskit_fused.engines.cuda.value_layout import Slots
from qiskit_fused.engines.request import BoundaryStates
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.program.global_phase import PhaseSum, means_of_generators

_FEW = 2  # largest number of qubits of a term that is applied as a polynomial


def phase_of_terms(plan: FusedProgram) -> PhaseSum:
    """Return the phase that traceless terms ``exp(-i angle/2 (g - mean))`` have beyond the terms that are applied."""
    is_few = np.bitwise_count(plan.term_care | plan.term_sign) <= _FEW
    left_out = np.where(is_few & (plan.term_value == 0), 1.0, 0.0)  # g(0) of a term on few qubits
    means = means_of_generators(plan.term_care, plan.term_value, plan.term_sign)
    phase = plan.sum_of_terms(-0.5 * left_out).plus(plan.sum_of_terms(0.5 * means))
    return phase.plus_constant(plan.extra_phase)


def factors_of_rows(phase: PhaseSum, slots: Slots, columns: np.ndarray, run_angles: np.ndarray) -> np.ndarray:
    """Return numbers of modulus 1, complex128 (B,): the states after traceless gates are these times the states.

    Args:
        phase: the result of `phase_of_terms`.
        slots: the layout of the runs.
        columns: float64 (B, C).
        run_angles: float64 (runs, 2), lambda and phi of the shared runs, then of the other runs row by row.
    """
    num_rows, shared = len(columns), int(slots.record["shared_runs"][0])
    num_runs = slots.count("runs", num_rows)
    sums = run_angles[:num_runs].sum(axis=1)
    of_rows = sums[shared:].reshape(num_rows, -1).sum(axis=1) + sums[:shared].sum()
    factors: np.ndarray = phase.factors(columns) * np.exp(-0.5j * of_rows)
    return factors


def returned_states(runtime: Any, boundary: BoundaryStates, psi: Any, factors: Any) -> Any:
    """Return the final states that a request asks for, complex (rows, 2^N); None if it asks for none.

    Args:
        runtime: the device.
        boundary: says whether final states are requested, and whether they stay on the device.
        psi: the states on the device, (rows, 2^N).
        factors: complex128 (rows, 1), see `factors_of_rows`, or None.
    """
    if not boundary.final:
        return None
    if boundary.on_device:
        return runtime.xp.asarray(factors.astype(psi.dtype)) * psi
    return factors.astype(psi.dtype) * runtime.to_host(psi)
