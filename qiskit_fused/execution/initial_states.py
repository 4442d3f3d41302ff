# SPDX-License-Identifier: Apache-2.0
"""Evaluates rows that start in different states: states that the caller gives, or states made from parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qiskit_fused.common.array_modules import array_module, to_numpy
from qiskit_fused.common.arrays import as_numbers
from qiskit_fused.common.bits import spread
from qiskit_fused.common.row_errors import RowError
from qiskit_fused.common.text import count_text
from qiskit_fused.engines.evaluation import Evaluation
from qiskit_fused.engines.interface import Watch
from qiskit_fused.engines.request import Request
from qiskit_fused.execution.row_cuts import Evaluate, cut_evenly, evaluate_slices
from qiskit_fused.program.amplitude_encoding import rows_at_once

if TYPE_CHECKING:
    from qiskit_fused.fusion.fused_program import FusedProgram

_TOLERANCE = 1e-5  # largest difference of a norm from 1; states normalised in single precision must pass
_AT_ONCE = 1 << 24  # number of amplitudes whose squares are computed at a time on a CUDA device, 128 MiB of float64


def check_states(states: Any, num_qubits: int) -> Any:
    """Return initial states as an array of floating-point numbers (B, 2**n), real or complex.

    A single state (2**n,) becomes one row.

    Raises:
        ValueError: for another shape, or a row whose norm is not 1; it names the row and the norm.
    """
    array = _as_rows(as_numbers(states, "initial_states"), num_qubits)
    if array.dtype.kind in "biu":
        array = array.astype(np.float64)
    squares = np.zeros(len(array))
    for part in (array.real, array.imag) if array.dtype.kind == "c" else (array,):
        squares += np.einsum("bi,bi->b", part, part, dtype=np.float64)
    _check_norms(np.sqrt(squares))
    return array


def check_device_states(states: Any, num_qubits: int) -> Any:
    """Return initial states on a CUDA device as (B, 2**n). A single state (2**n,) becomes one row.

    Only the norms are copied to the host. Squares are computed for a few columns at a time, which takes little memory.

    Raises:
        ValueError: as `check_states`.
    """
    states = _as_rows(states, num_qubits)
    num_rows, size = states.shape
    step = max(_AT_ONCE // max(num_rows, 1), 1)
    squares = array_module(states).zeros(num_rows, dtype=np.float64)
    for begin in range(0, size, step):
        part = abs(states[:, begin : begin + step])
        squares += (part * part).sum(axis=1, dtype=np.float64)
    _check_norms(np.sqrt(to_numpy(squares)))
    return states


def _as_rows(states: Any, num_qubits: int) -> Any:
    """Return states as rows (B, 2**n); raise a ValueError for another shape."""
    shape = states.shape
    if len(shape) == 1:
        states = states[None]
    if states.ndim != 2 or states.shape[1] != 1 << num_qubits:
        raise ValueError(
            f"initial_states have shape {shape}; the circuit has {count_text(num_qubits, 'qubit')}, allowed: (rows, "
            f"{1 << num_qubits}) or ({1 << num_qubits},)."
        )
    return states


def _check_norms(norms: np.ndarray) -> None:
    """Raise a RowError that names the first row whose norm is not 1."""
    wrong = ~(np.abs(norms - 1) <= _TOLERANCE)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        after = f" of initial_states has the norm {norms[row]}, it must be 1; divide it by its norm."
        raise RowError("the state of ", row, after)


def evaluate_from_states(fused: FusedProgram, request: Request, run: Evaluate, watch: Watch | None) -> Evaluation:
    """Evaluate a fused program whose rows start in different states.

    The states are on the qubits of the circuit, or are made from parameters that are amplitudes. They are copied to the
    bits of the fused program. On the host, rows are evaluated in blocks, which bounds the memory of the copies. On a
    CUDA device, the engine cuts the rows.

    Args:
        fused: the fused program.
        request: rows and their initial states. Without initial states, the fused program makes them from columns.
        run: evaluates the fused program for rows with states on its bits.
        watch: told the progress of all rows.

    Returns:
        The evaluation. Its gradients include gradients with respect to parameters that are amplitudes. Gradients with
        respect to initial states of the request are on the qubits of the circuit.
    """
    num_rows = request.num_rows
    size = num_rows
    if not request.is_on_device:
        size = rows_at_once(fused.num_qubits, num_rows, request.num_state_gradients)

    def evaluate(part: Request, watch: Watch | None) -> Evaluation:
        if fused.starts is not None:
            return _from_amplitudes(fused, part, run, watch)
        return _from_circuit_states(fused, part, run, watch)

    return evaluate_slices(request, cut_evenly(num_rows, size), evaluate, watch)


def _from_amplitudes(fused: FusedProgram, request: Request, run: Evaluate, watch: Watch | None) -> Evaluation:
    """Evaluate rows whose initial states the fused program makes from columns."""
    starts = fused.starts
    assert starts is not None
    states = starts.states(request.columns)
    evaluation = run(request._replace(boundary=request.boundary._replace(initial=states)), watch)
    if evaluation.state_gradients is None:
        return evaluation
    row_of = np.arange(request.num_rows) if request.gradients_are_per_row else request.pairs.row
    starts.add_gradients(request.columns, row_of, evaluation.state_gradients, evaluation.gradients)
    return replace(evaluation, state_gradients=None)


def _from_circuit_states(fused: FusedProgram, request: Request, run: Evaluate, watch: Watch | None) -> Evaluation:
    """Evaluate rows that bring initial states on the qubits of the circuit."""
    order, states = circuit_order(fused), request.boundary.initial
    xp = array_module(states)
    if order is not None:
        states = states[:, xp.asarray(order)]
    if not request.is_on_device:
        states = np.ascontiguousarray(states, dtype=np.complex128)
    boundary = request.boundary._replace(initial=states, on_circuit_qubits=False)
    evaluation = run(request._replace(boundary=boundary), watch)
    if evaluation.state_gradients is None or order is None:
        return evaluation
    return replace(evaluation, state_gradients=evaluation.state_gradients[:, xp.asarray(np.argsort(order))])


def circuit_order(fused: FusedProgram) -> np.ndarray | None:
    """Return int (2**n,): the circuit's index of each amplitude of the fused program; None where all are equal."""
    bits = fused.start_bits[fused.program.wires]
    if np.array_equal(bits, np.arange(len(bits))):
        return None
    return spread(np.argsort(bits).tolist())
