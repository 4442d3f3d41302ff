# SPDX-License-Identifier: Apache-2.0
"""Bytes that the CPU engine holds for a batch, known before anything is allocated.

The C++ extension counts what it allocates by the functions that allocate it: states, tables of phases, sums of
gradients, diagonals of observables, and what it keeps of the plan. The arrays that come in and go out, and the list of
steps of a schedule, are Python's; they are added here.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from qiskit_fused import _cpu
from qiskit_fused.engines.checkpointing import num_steps
from qiskit_fused.engines.cpu.costs import num_positions
from qiskit_fused.engines.cpu.native_plan import native_plan
from qiskit_fused.program.amplitude_encoding import rows_at_once

if TYPE_CHECKING:
    from qiskit_fused.engines.request import Request
    from qiskit_fused.fusion.fused_program import FusedProgram
    from qiskit_fused.program.observables import TermMasks

_ACTION = 16  # bytes of an action of a schedule
_COUNTED_QUBITS = 48  # the extension counts in 64 bits; of wider states, which no machine holds, the states alone count


class Counts(NamedTuple):
    """Counts of a batch, as far as its memory depends on them.

    Attributes:
        num_rows: rows of angles.
        num_pairs: pairs of a row and an observable; some row has several where there are more than rows.
        dtype: number format of the amplitudes.
        gradient: whether gradients are wanted, float64 (num_pairs, columns).
        imaginary: whether these are ``2 Im <psi|O|d psi>``.
        num_flips, num_diagonals: of all observables, see `count_diagonals`.
        state_gradients: whether gradients of start states are wanted, where rows bring them.
        num_ends: final states, and cotangents of these, that come out or in.
        num_values: values that come out, where a row has several and the gradient of their weighted sum.
    """

    num_rows: int = 1
    num_pairs: int = 1
    dtype: str = "complex128"
    gradient: bool = True
    imaginary: bool = False
    num_flips: int = 0
    num_diagonals: int = 0
    state_gradients: bool = True
    num_ends: int = 0
    num_values: int = 0

    @classmethod
    def of(cls, request: Request) -> Counts:
        """Count what the request of an evaluation holds."""
        num_rows, num_pairs, boundary = request.num_rows, request.num_pairs, request.boundary
        return cls(
            num_rows,
            num_pairs if request.gradient is None else request.num_gradients,
            request.dtype,
            request.gradient is not None,
            request.imaginary,
            state_gradients=request.wants_state_gradients,
            num_ends=num_rows * (boundary.final + (boundary.final_cotangents is not None)),
            num_values=num_pairs if request.gradients_are_per_row else 0,
        )

    def part(self, num_rows: int) -> Counts:
        """Return what a block of that many of the rows asks for."""
        counts = ("num_pairs", "num_ends", "num_values")
        shares = {name: -(-getattr(self, name) * num_rows // self.num_rows) for name in counts}
        return self._replace(num_rows=num_rows, **shares)

    @property
    def most_values(self) -> int:
        """Values that come out."""
        return max(self.num_pairs, self.num_values)

    @classmethod
    def full(cls, num_rows: int, observables: int, dtype: str, gradient: bool = True) -> Counts:
        """Ask for all observables, each of one diagonal, in every row."""
        return cls(num_rows, num_rows * observables, dtype, gradient, False, observables, observables)


def count_diagonals(terms: TermMasks) -> tuple[int, int]:
    """Count the sets of flipped bits of observables, and their diagonals: a real and an imaginary one if not zero."""
    if not len(terms):
        return 0, 0
    first = np.ones(len(terms), bool)
    first[1:] = (terms.x[1:] != terms.x[:-1]) | (terms.observable[1:] != terms.observable[:-1])
    begin = np.flatnonzero(first)
    parts = (np.logical_or.reduceat(part != 0, begin) for part in (terms.real, terms.imag))
    return len(begin), sum(int(part.sum()) for part in parts)


class Footprint:
    """The bytes of a plan in one number format.

    Args:
        plan: the fused program.
        dtype: number format of the amplitudes.
    """

    def __init__(self, plan: FusedProgram, dtype: str):
        self.plan = plan
        self._is_single = dtype == "complex64"
        self._native = native_plan(plan).plan

    def most_shared(self, num_terms: int) -> int:
        """Bound the bytes that tables of shared angles and diagonals of ``num_terms`` terms add to `total`."""
        return _cpu.most_shared_bytes(self._native, self._is_single, num_terms)

    def varying_phases(self, columns: np.ndarray | None) -> tuple[int, int]:
        """Return the bytes of the tables of phases that differ between rows, all of them and the largest.

        Args:
            columns: bool (C,), columns of the program that differ; None is all.
        """
        return _cpu.varying_tables(self._native, self._is_single, columns)

    @cached_property
    def _all_varying(self) -> tuple[int, int]:
        return self.varying_phases(None)

    def side_by_side(self, num_rows: int, num_threads: int) -> tuple[int, int]:
        """Return the rows that run side by side, each with states of its own, and the threads that work."""
        return _cpu.side_by_side(self._native, self._is_single, num_rows, num_threads)

    def count_states(self, counts: Counts, num_states: int = 0) -> int:
        """Count the states of one row, lam included.

        Args:
            counts: the batch.
            num_states: states of a schedule; 0 is method "reverse", where further pairs start from a copy of psi.
        """
        several = counts.num_pairs > counts.num_rows
        held = num_states + 1 if num_states else 2 + several
        return held if counts.gradient else 1

    def state_bytes(self, counts: Counts) -> int:
        """Return the bytes of one state: half where it is real."""
        if self.plan.num_qubits > _COUNTED_QUBITS:
            return np.dtype(counts.dtype).itemsize << self.plan.num_qubits
        return _cpu.state_bytes(self._native, self._is_single, counts.imaginary, self._has_states(counts))

    def _has_states(self, counts: Counts) -> bool:
        return self.plan.takes_states or counts.num_ends > 0

    def arrays(self, counts: Counts) -> int:
        """Return the bytes of columns, values and gradients, and of start states that rows bring and theirs."""
        columns, num_adjoint_states = self.plan.program.num_columns, counts.num_pairs * counts.gradient
        num_bytes = 8 * (counts.num_rows * columns + counts.most_values + num_adjoint_states * columns)
        num_bytes += 16 * counts.num_ends << self.plan.num_qubits
        if not self.plan.takes_states:
            return num_bytes
        num_adjoint_states *= counts.state_gradients
        rows = rows_at_once(self.plan.num_qubits, counts.num_rows, num_adjoint_states)
        states = rows + -(-num_adjoint_states * rows // max(counts.num_rows, 1))
        if self.plan.starts is None and rows < counts.num_rows:
            states += num_adjoint_states  # the answer, beside that of a block
        return num_bytes + (16 * states << self.plan.num_qubits)

    def total(
        self, counts: Counts, num_threads: int, num_states: int = 0, varying: tuple[int, int] | None = None
    ) -> int:
        """Return the bytes of an evaluation at its peak.

        Args:
            counts: the batch.
            num_threads: threads at most.
            num_states: states of a schedule, per row; 0 is method "reverse".
            varying: see `varying_phases`; None takes all columns as different in each row.
        """
        own = self.arrays(counts)
        if num_states:
            positions = num_positions(self.plan, imaginary=counts.imaginary)
            own += _ACTION * (num_steps(positions, num_states) + positions)
        if self.plan.num_qubits > _COUNTED_QUBITS:
            return own + self.count_states(counts, num_states) * self.state_bytes(counts)
        of_row = -(-counts.most_values // max(counts.num_rows, 1))
        one_by_one = counts.gradient and not counts.num_values
        all_tables, largest_table = varying or self._all_varying
        return own + _cpu.predict(
            self._native,
            self._is_single,
            num_rows=counts.num_rows,
            values_per_row=1 if one_by_one else of_row,
            gradient=counts.gradient,
            imaginary=counts.imaginary,
            has_states=self._has_states(counts),
            starts_given=self.plan.takes_states,
            saves_psi=one_by_one and not num_states and of_row > 1,
            num_states=max(num_states, 1),
            num_threads=num_threads,
            varying_tables=all_tables,
            largest_varying_table=largest_table,
            num_flips=counts.num_flips,
            num_diagonals=counts.num_diagonals,
        )
