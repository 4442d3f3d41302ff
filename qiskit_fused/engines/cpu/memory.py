# SPDX-License-Identifier: Apache-2.0
"""Memory of the CPU engine: the bytes of an evaluation, predicted before anything is allocated.

The C++ extension predicts the bytes of its own arrays, with the functions that allocate them: states, tables of phases,
sums of gradients, diagonals of observables, and the plan. This module adds the bytes of the arrays that Python
allocates: the arguments, the results, and the list of steps of a schedule.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qiskit_fused import _cpu
from qiskit_fused.common.forks import cached_property
from qiskit_fused.engines.checkpointing import num_steps
from qiskit_fused.engines.cpu.costs import num_positions
from qiskit_fused.engines.cpu.native_plan import native_plan
from qiskit_fused.engines.request import Request
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.program.amplitude_encoding import rows_at_once
from qiskit_fused.program.observables import TermMasks

_ACTION_BYTES = 16  # bytes of one action of a schedule
# Largest number of qubits for which the extension counts bytes, in 64-bit integers. No machine holds wider states, so
# for wider states the prediction counts the states alone.
_COUNTED_QUBITS = 48


class Counts(NamedTuple):
    """The counts of a batch that determine the bytes of its evaluation.

    Attributes:
        num_rows: number of rows of angles.
        num_pairs: number of gradients if there are gradients, otherwise number of pairs of a row and an observable. If
            it exceeds ``num_rows``, some row has several pairs.
        dtype: number format of the amplitudes.
        gradient: whether gradients are returned, float64 (num_pairs, columns).
        imaginary: whether gradients are ``2 Im <psi|O|d psi>``.
        num_flips, num_diagonals: counts over all observables, see `count_diagonals`.
        state_gradients: whether gradients of the initial states are returned, if rows have initial states.
        num_final_states: number of final states that are returned.
        num_final_cotangents: number of cotangents of final states.
        num_values: number of values if each row has one gradient, of the weighted sum of its values; otherwise 0.
        num_outcomes: number of outcomes, if the observables are the projectors onto outcomes; otherwise 0.
    """

    num_rows: int = 1
    num_pairs: int = 1
    dtype: str = "complex128"
    gradient: bool = True
    imaginary: bool = False
    num_flips: int = 0
    num_diagonals: int = 0
    state_gradients: bool = True
    num_final_states: int = 0
    num_final_cotangents: int = 0
    num_values: int = 0
    num_outcomes: int = 0

    @classmethod
    def of(cls, request: Request) -> Counts:
        """Return the counts of a request."""
        num_rows, num_pairs, boundary = request.num_rows, request.num_pairs, request.boundary
        gradients_are_per_row = request.gradients_are_per_row
        return cls(
            num_rows,
            num_rows if gradients_are_per_row else num_pairs,
            request.dtype,
            request.gradient is not None,
            request.imaginary,
            state_gradients=request.wants_state_gradients,
            num_final_states=num_rows * boundary.final,
            num_final_cotangents=num_rows * (boundary.final_cotangents is not None),
            num_values=num_pairs if gradients_are_per_row else 0,
        )

    def part(self, num_rows: int) -> Counts:
        """Return the counts of a block of ``num_rows`` rows."""
        counts = ("num_pairs", "num_final_states", "num_final_cotangents", "num_values")
        shares = {name: -(-getattr(self, name) * num_rows // self.num_rows) for name in counts}
        return self._replace(num_rows=num_rows, **shares)

    @property
    def most_values(self) -> int:
        """Number of values that are returned."""
        return max(self.num_pairs, self.num_values)

    @classmethod
    def full(cls, num_rows: int, observables: int, dtype: str, gradient: bool = True) -> Counts:
        """Return the counts of a request of all observables in every row, if each observable is one diagonal."""
        return cls(num_rows, num_rows * observables, dtype, gradient, False, observables, observables)


def count_diagonals(terms: TermMasks) -> tuple[int, int]:
    """Count the diagonals of observables.

    The terms of an observable that flip the same bits form a group. A group has a real diagonal if some coefficient has
    a real part, and an imaginary diagonal if some coefficient has an imaginary part. A string of X and I that is a
    group of its own has no diagonal, since all numbers of its diagonal are equal.

    Returns:
        The number of groups with diagonals, and the number of diagonals.
    """
    if not len(terms):
        return 0, 0
    first = np.ones(len(terms), bool)
    first[1:] = (terms.x[1:] != terms.x[:-1]) | (terms.observable[1:] != terms.observable[:-1])
    begin = np.flatnonzero(first)
    varies = np.logical_or.reduceat((terms.z | terms.care) != 0, begin)
    parts = (np.logical_or.reduceat(part != 0, begin) & varies for part in (terms.real, terms.imag))
    return int(varies.sum()), sum(int(part.sum()) for part in parts)


class Footprint:
    """Predicts the bytes of evaluations of a plan in one number format.

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

    def varying_phases(self, columns: np.ndarray | None) -> tuple[int, int, int]:
        """Return the bytes of all tables of phases that differ between rows, of the largest table, and their number.

        Args:
            columns: bool (C,), the columns of the program that differ between rows; None is all columns.
        """
        return _cpu.varying_tables(self._native, self._is_single, columns)

    @cached_property
    def _all_varying(self) -> tuple[int, int, int]:
        return self.varying_phases(None)

    def side_by_side(self, num_rows: int, num_threads: int) -> tuple[int, int]:
        """Return the number of rows that run side by side, each with its own states, and the number of threads used."""
        return _cpu.side_by_side(self._native, self._is_single, num_rows, num_threads)

    def count_states(self, counts: Counts, num_states: int = 0) -> int:
        """Count the states of one row, the adjoint state included.

        Args:
            counts: the counts of the batch.
            num_states: number of states of a schedule; 0 is method "reverse". This method saves a copy of the final
                state if a row has several pairs, because the sweep of each pair uncomputes the state.
        """
        if not counts.gradient:
            return 1
        has_several_pairs = counts.num_pairs > counts.num_rows
        return num_states + 1 if num_states else 2 + has_several_pairs

    def state_bytes(self, counts: Counts) -> int:
        """Return the bytes of one state; a real state has half the bytes of a complex one."""
        if self.plan.num_qubits > _COUNTED_QUBITS:
            return np.dtype(counts.dtype).itemsize << self.plan.num_qubits
        return _cpu.state_bytes(self._native, self._is_single, counts.imaginary)

    def arrays(self, counts: Counts) -> int:
        """Return the bytes of the columns, values and gradients, and of the states that come in or go out."""
        columns, num_adjoint_states = self.plan.program.num_columns, counts.num_pairs * counts.gradient
        num_bytes = 8 * (counts.num_rows * columns + counts.most_values + num_adjoint_states * columns)
        state_bytes = np.dtype(counts.dtype).itemsize
        num_bytes += state_bytes * counts.num_final_states + 16 * counts.num_final_cotangents << self.plan.num_qubits
        if not self.plan.takes_states:
            return num_bytes
        num_adjoint_states *= counts.state_gradients
        rows = rows_at_once(self.plan.num_qubits, counts.num_rows, num_adjoint_states)
        states = rows + -(-num_adjoint_states * rows // max(counts.num_rows, 1))
        if self.plan.starts is None and rows < counts.num_rows:
            states += num_adjoint_states  # the result of the whole batch exists beside the result of one block
        return num_bytes + (16 * states << self.plan.num_qubits)

    def total(
        self, counts: Counts, num_threads: int, num_states: int = 0, varying: tuple[int, int, int] | None = None
    ) -> int:
        """Return the bytes of an evaluation at its peak.

        Args:
            counts: the counts of the batch.
            num_threads: largest number of threads.
            num_states: number of states of a schedule, per row; 0 is method "reverse".
            varying: the result of `varying_phases`; None assumes that all columns differ in each row.
        """
        num_bytes = self.arrays(counts)
        if num_states:
            positions = num_positions(self.plan, imaginary=counts.imaginary)
            num_bytes += _ACTION_BYTES * (num_steps(positions, num_states) + positions)
        if self.plan.num_qubits > _COUNTED_QUBITS:
            return num_bytes + self.count_states(counts, num_states) * self.state_bytes(counts)
        values_of_row = -(-counts.most_values // max(counts.num_rows, 1))
        gradient_per_pair = counts.gradient and not counts.num_values
        return num_bytes + _cpu.predict(
            self._native,
            self._is_single,
            num_rows=counts.num_rows,
            values_per_row=1 if gradient_per_pair else values_of_row,
            num_outcomes=counts.num_outcomes,
            gradient=counts.gradient,
            imaginary=counts.imaginary,
            starts_given=self.plan.takes_states,
            saves_psi=gradient_per_pair and not num_states and values_of_row > 1,
            num_states=num_states,
            num_threads=num_threads,
            varying_tables=varying or self._all_varying,
            num_flips=counts.num_flips,
            num_diagonals=counts.num_diagonals,
        )
