# SPDX-License-Identifier: Apache-2.0
"""Rows that start in states of their own: states that are given, or made from parameters, block by block."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qiskit_fused.common.arrays import as_numbers
from qiskit_fused.common.bits import spread
from qiskit_fused.common.row_errors import RowError, shifted
from qiskit_fused.engines.interface import NO_STATES, Ends, Engine, Evaluation, Watch
from qiskit_fused.program.amplitude_encoding import rows_at_once

if TYPE_CHECKING:
    from qiskit_fused.fusion.fused_program import FusedProgram
    from qiskit_fused.program.observables import Observables

_TOLERANCE = 1e-5  # of norms: states that were normalised in single precision are taken as they are


@dataclass(frozen=True)
class RowStarts:
    """How the rows of a batch start.

    Attributes:
        states: complex or real (B, 2**n) on all qubits of the circuit, see `check_states`; None: as the circuit says.
        gradients: with gradients, also give those with respect to ``states``, or to parameters that are amplitudes.
    """

    states: np.ndarray | None = None
    gradients: bool = True

    def part(self, rows: slice) -> RowStarts:
        """Return the same for some of the rows."""
        states = None if self.states is None else self.states[rows]
        return replace(self, states=states)


FROM_CIRCUIT = RowStarts()
WITHOUT_GRADIENTS = RowStarts(gradients=False)


def check_states(states: Any, num_qubits: int) -> np.ndarray:
    """Return start states as an array of floating-point numbers (B, 2**n), real or complex; one state is one row.

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
    check_norms(np.sqrt(squares))
    return array


def check_norms(norms: np.ndarray) -> None:
    """Raise a ValueError that names the first row of start states whose norm is not 1."""
    wrong = ~(np.abs(norms - 1) <= _TOLERANCE)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        after = f" of initial_states has the norm {norms[row]}, it must be 1; divide it by its norm."
        raise RowError("the state of ", row, after)


def evaluate_rows(
    engine: Engine,
    plan: FusedProgram,
    operators: Observables,
    columns: np.ndarray,
    pairs: tuple[np.ndarray, np.ndarray],
    flags: dict[str, Any],
    starts: RowStarts,
) -> list[Evaluation]:
    """Evaluate a plan that takes states, block by block of rows.

    Args:
        engine: what evaluates.
        plan: what it evaluates.
        operators: the observables.
        columns: float64 (B, C).
        pairs: see `Engine.evaluate`.
        flags: keywords of it; of the statevectors in ``ends``, the final ones.
        starts: how the rows start.

    Returns:
        The evaluation of each block, in order. Gradients include those with respect to parameters that are amplitudes;
        gradients with respect to states that were given are on the qubits of the circuit.
    """
    ends: Ends = flags.get("ends", NO_STATES)
    weighted = flags["cotangents"] is not None or ends.final_cotangents is not None
    wanted = flags["gradient"] and starts.gradients
    num_adjoint_states = (len(columns) if weighted else len(pairs[0])) * wanted
    size = rows_at_once(plan.num_qubits, len(columns), num_adjoint_states)
    blocks = [slice(0, 0)]
    if size:
        blocks = [slice(begin, min(begin + size, len(columns))) for begin in range(0, len(columns), size)]
    order = None if plan.starts is not None else circuit_order(plan)
    evaluations = []
    for number, rows in enumerate(blocks):
        part, options = columns[rows], dict(flags)
        chosen = slice(*np.searchsorted(pairs[0], (rows.start, rows.stop)))
        of_block = pairs if len(blocks) == 1 else (pairs[0][chosen] - np.int32(rows.start), pairs[1][chosen])
        if plan.starts is not None:
            with shifted(rows.start):
                states = plan.starts.states(part)
        else:
            assert starts.states is not None
            given = starts.states[rows] if order is None else starts.states[rows][:, order]
            states = np.ascontiguousarray(given, dtype=np.complex128)
        if flags["cotangents"] is not None:
            options["cotangents"] = flags["cotangents"][chosen]
        final = None if ends.final_cotangents is None else ends.final_cotangents[rows]
        options["ends"] = Ends(states, wanted, ends.final, final)
        options["watch"] = _watch_block(flags["watch"], number, len(blocks))
        options["meanwhile"] = flags["meanwhile"] if number == 0 else None
        found = engine.evaluate(plan, operators, part, of_block, **options)
        if wanted:
            of_states, found = found.state_gradients, replace(found, state_gradients=None)
            assert of_states is not None and found.gradients is not None
            if plan.starts is not None:
                row_of = np.arange(len(part)) if weighted else of_block[0]
                with shifted(rows.start):
                    plan.starts.add_gradients(part, row_of, of_states, found.gradients)
            else:
                found = replace(found, state_gradients=_reorder(of_states, order))
        evaluations.append(found)
    return evaluations


def join(evaluations: list[Evaluation]) -> Evaluation:
    """Put the evaluations of blocks of rows one behind the other; stats are those of the first."""
    if len(evaluations) == 1:
        return evaluations[0]
    joined: dict[str, Any] = {}
    for name in ("values", "gradients", "state_gradients", "final_states"):
        parts = [getattr(evaluation, name) for evaluation in evaluations]
        joined[name] = None if parts[0] is None else np.concatenate(parts)
    return replace(evaluations[0], **joined)


def circuit_order(plan: FusedProgram) -> np.ndarray | None:
    """Return the amplitude of the circuit that each amplitude of the plan is, or None where all are the same."""
    bits = plan.start_bits[plan.program.wires]
    if np.array_equal(bits, np.arange(len(bits))):
        return None
    return spread(np.argsort(bits).tolist())


def _reorder(states: np.ndarray, order: np.ndarray | None) -> np.ndarray:
    if order is None:
        return states
    moved = np.empty_like(states)
    moved[:, order] = states
    return moved


def _watch_block(watch: Watch | None, number: int, count: int) -> Watch | None:
    """Return what an engine tells of one of several blocks as a part of them all."""
    if watch is None or count == 1:
        return watch
    return lambda done, total: watch(number * total + done, count * total)
