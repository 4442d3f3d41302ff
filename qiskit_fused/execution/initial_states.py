# SPDX-License-Identifier: Apache-2.0
"""Rows that start in states of their own: states that are given, or made from parameters, block by block."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qiskit_fused.common.array_modules import array_module, to_numpy
from qiskit_fused.common.arrays import as_numbers
from qiskit_fused.common.bits import spread
from qiskit_fused.common.row_errors import RowError
from qiskit_fused.engines.evaluation import Evaluation
from qiskit_fused.engines.interface import Watch
from qiskit_fused.engines.request import Request
from qiskit_fused.execution.row_cuts import Evaluate, cut_evenly, evaluate_slices
from qiskit_fused.program.amplitude_encoding import rows_at_once

if TYPE_CHECKING:
    from qiskit_fused.fusion.fused_program import FusedProgram

_TOLERANCE = 1e-5  # of norms: states that were normalised in single precision are taken as they are
_AT_ONCE = 1 << 24  # amplitudes whose squares are made at a time


def check_states(states: Any, num_qubits: int) -> Any:
    """Return initial states as an array of floating-point numbers (B, 2**n), real or complex; one state is one row.

    Raises:
        ValueError: for another shape, or a row whose norm is not 1; it names the row and the norm.
    """
    array = as_numbers(states, "initial_states")
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or array.shape[1] != 1 << num_qubits:
        raise ValueError(
            f"initial_states have shape {np.shape(states)}; the circuit has {num_qubits} qubits, allowed: (rows, "
            f"{1 << num_qubits}) or ({1 << num_qubits},)."
        )
    if array.dtype.kind in "biu":
        array = array.astype(np.float64)
    squares = np.zeros(len(array))
    for part in (array.real, array.imag) if array.dtype.kind == "c" else (array,):
        squares += np.einsum("bi,bi->b", part, part, dtype=np.float64)
    _check_norms(np.sqrt(squares))
    return array


def check_device_states(states: Any) -> None:
    """Raise a ValueError that names the first row of states (B, 2**n) on a CUDA device whose norm is not 1.

    Norms alone come to the host. The squares that are made at a time take little memory.
    """
    num_rows, size = states.shape
    step = max(_AT_ONCE // num_rows, 1)
    squares = array_module(states).zeros(num_rows, dtype=np.float64)
    for begin in range(0, size, step):
        part = abs(states[:, begin : begin + step])
        squares += (part * part).sum(axis=1, dtype=np.float64)
    _check_norms(np.sqrt(to_numpy(squares)))


def _check_norms(norms: np.ndarray) -> None:
    wrong = ~(np.abs(norms - 1) <= _TOLERANCE)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        after = f" of initial_states has the norm {norms[row]}, it must be 1; divide it by its norm."
        raise RowError("the state of ", row, after)


def evaluate_from_states(plan: FusedProgram, request: Request, run: Evaluate, watch: Watch | None) -> Evaluation:
    """Evaluate a plan that takes states, from states on the qubits of the circuit or from parameters as amplitudes.

    On the host rows go block by block, since states on the bits of the plan are a copy; on a device they are cut by
    the engine.

    Args:
        plan: the plan.
        request: rows, and the states they bring; without states, the plan makes them from columns.
        run: evaluates the plan for rows with states on its bits.
        watch: hears of all rows.

    Returns:
        Gradients include those with respect to parameters that are amplitudes; gradients with respect to states that
        were given are on the qubits of the circuit.
    """
    num_rows = request.num_rows
    size = num_rows
    if not request.is_on_device:
        size = rows_at_once(plan.num_qubits, num_rows, request.num_state_gradients)

    def evaluate(part: Request, watch: Watch | None) -> Evaluation:
        if plan.starts is not None:
            return _from_amplitudes(plan, part, run, watch)
        return _from_given_states(plan, part, run, watch)

    return evaluate_slices(request, cut_evenly(num_rows, size), evaluate, watch)


def _from_amplitudes(plan: FusedProgram, request: Request, run: Evaluate, watch: Watch | None) -> Evaluation:
    """Evaluate rows whose states the plan makes from columns."""
    starts = plan.starts
    assert starts is not None
    states = starts.states(request.columns)
    found = run(request._replace(boundary=request.boundary._replace(initial=states)), watch)
    if found.state_gradients is None:
        return found
    row_of = np.arange(request.num_rows) if request.gradients_are_per_row else request.pairs.row
    starts.add_gradients(request.columns, row_of, found.state_gradients, found.gradients)
    return replace(found, state_gradients=None)


def _from_given_states(plan: FusedProgram, request: Request, run: Evaluate, watch: Watch | None) -> Evaluation:
    """Evaluate rows that bring states on the qubits of the circuit."""
    order, given = circuit_order(plan), request.boundary.initial
    xp = array_module(given)
    if order is not None:
        given = given[:, xp.asarray(order)]
    if not request.is_on_device:
        given = np.ascontiguousarray(given, dtype=np.complex128)
    found = run(request._replace(boundary=request.boundary._replace(initial=given, on_circuit_qubits=False)), watch)
    if found.state_gradients is None or order is None:
        return found
    return replace(found, state_gradients=found.state_gradients[:, xp.asarray(np.argsort(order))])


def circuit_order(plan: FusedProgram) -> np.ndarray | None:
    """Return the amplitude of the circuit that each amplitude of the plan is, or None where all are the same."""
    bits = plan.start_bits[plan.program.wires]
    if np.array_equal(bits, np.arange(len(bits))):
        return None
    return spread(np.argsort(bits).tolist())
