# SPDX-License-Identifier: Apache-2.0
"""A request: what one evaluation is asked, from the primitives down to the engines, and what an engine can tell of it.

Primitives make a request, execution cuts it into rows and observables, and an engine answers it with an `Evaluation`.
Which columns differ between rows, what a gradient belongs to, and which pairs belong to which rows is decided here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from qiskit_fused.common.array_modules import to_numpy
from qiskit_fused.common.caches import BoundedCache
from qiskit_fused.common.forks import cached_property
from qiskit_fused.common.row_blocks import columns_that_differ
from qiskit_fused.options.method import REVERSE, Method


class Pairs(NamedTuple):
    """Pairs of a row and an observable, sorted by row, each pair once.

    Attributes:
        row: int32 (N,), ascending.
        observable: int32 (N,).
    """

    row: np.ndarray
    observable: np.ndarray

    def of_rows(self, rows: slice) -> slice:
        """Return which pairs belong to some rows."""
        begin, end = np.searchsorted(self.row, (rows.start, rows.stop)).tolist()
        return slice(begin, end)


NO_PAIRS = Pairs(np.zeros(0, np.int32), np.zeros(0, np.int32))
_ALL_PAIRS: BoundedCache[Pairs] = BoundedCache(32 << 20)


def all_pairs(num_rows: int, num_observables: int) -> Pairs:
    """Return all pairs of rows and observables, as read-only arrays; small ones are kept."""
    key = num_rows, num_observables
    pairs = _ALL_PAIRS.get(key)
    if pairs is None:
        row, observable = np.divmod(np.arange(num_rows * num_observables, dtype=np.int32), max(num_observables, 1))
        row.setflags(write=False)
        observable.setflags(write=False)
        pairs = _ALL_PAIRS.put(key, Pairs(row, observable), row.nbytes + observable.nbytes)
    return pairs


class GradientRequest(NamedTuple):
    """Which gradients are wanted.

    Attributes:
        cotangents: float64 (N,), a weight for each pair; gradients are then those of the weighted sum of the pairs of
            each row (a vector-Jacobian product), zero for rows without pairs. None: each pair has a gradient.
        imaginary: 2 Im <psi|O|d psi> in the place of 2 Re <psi|O|d psi>; generators are taken as traceless.
        summed: bool (C,), columns of which only the sum of the gradients over all rows matters, where each row has one
            gradient. An engine may give the sum to any row, and zeros to the others. None: no column.
        unused: bool (C,), columns whose gradients do not matter. None: no column.
        of_initial_states: whether gradients of the initial states of rows are wanted too, and those of parameters that
            are amplitudes of initial states.
    """

    cotangents: Any = None
    imaginary: bool = False
    summed: np.ndarray | None = None
    unused: np.ndarray | None = None
    of_initial_states: bool = False


class BoundaryStates(NamedTuple):
    """Statevectors at both ends of a circuit: states that rows bring, and states that are wanted.

    Engines take and return states complex128 on the bits of the plan.

    Attributes:
        initial: (B, 2**n), or (1, 2**n) for all rows, normalised: where rows start, for a plan that takes states.
        final: return ``Evaluation.final_states``, up to a global phase that is the same whenever an engine runs this
            plan from this start. For a plan that leaves no gate out.
        final_cotangents: (B, 2**n), with a gradient, without pairs, and not with ``imaginary``: G of the final state of
            each row, in the place of observables. Gradients are then those of ``Re sum conj(G) psi``, one for each
            row. For a plan that leaves no gate out; G has the global phase of ``final``.
        on_circuit_qubits: whether ``initial`` is as users give it, real or complex and on all qubits of the circuit.
            `execution.initial_states` brings such states to the bits of the plan; engines never see them.
    """

    initial: Any = None
    final: bool = False
    final_cotangents: Any = None
    on_circuit_qubits: bool = False


NO_STATES = BoundaryStates()


class _Fields(NamedTuple):
    """The fields of a `Request`: a NamedTuple takes 0.4 us to make, a frozen dataclass 1.2 us."""

    columns: Any
    pairs: Pairs
    gradient: GradientRequest | None = None
    boundary: BoundaryStates = NO_STATES
    dtype: str = "complex128"
    method: Method = REVERSE
    may_vary: np.ndarray | None = None


class Request(_Fields):
    """B rows of numbers, N pairs of a row and an observable, and what is wanted of them. Nobody changes a request.

    Attributes:
        columns: float64 (B, C), the columns of the program in each row (see `Program.columns`): an array of the host,
            or of a CUDA device. Then cotangents and states are on this device too, and so are the answers. Where
            a request comes from, columns are the P parameters; those of expressions follow once its rows are cut.
        pairs: the values that are wanted.
        gradient: the gradients that are wanted, or None.
        boundary: states that come in and go out.
        dtype: number format of the amplitudes, "complex64" or "complex128".
        method: how a backward sweep gets its states; gradients are equal up to rounding.
        may_vary: bool (C,), columns that may differ between rows where it is known beforehand, as of inputs and
            weights. Rows then share the same gates in all batches, also where sparse inputs happen to be equal.
    """

    @property
    def num_rows(self) -> int:
        """B, rows."""
        return len(self.columns)

    @property
    def num_pairs(self) -> int:
        """N, pairs of a row and an observable, each with a value."""
        return len(self.pairs.row)

    @property
    def num_columns(self) -> int:
        """C, columns of each row."""
        return int(self.columns.shape[1])

    @property
    def is_on_device(self) -> bool:
        """Whether arrays are on a CUDA device."""
        return not isinstance(self.columns, np.ndarray)

    @property
    def cotangents(self) -> Any:
        """Float64 (N,), the weight of each pair, or None."""
        return None if self.gradient is None else self.gradient.cotangents

    @property
    def imaginary(self) -> bool:
        """Whether gradients are 2 Im <psi|O|d psi>."""
        return self.gradient is not None and self.gradient.imaginary

    @property
    def gradients_are_per_row(self) -> bool:
        """Whether each row has one gradient; else each pair has one."""
        gradient = self.gradient
        return gradient is not None and (gradient.cotangents is not None or self.boundary.final_cotangents is not None)

    @property
    def num_gradients(self) -> int:
        """Rows of the array of gradients: B, N, or 0 where none are wanted."""
        if self.gradient is None:
            return 0
        return self.num_rows if self.gradients_are_per_row else self.num_pairs

    @property
    def num_adjoint_states(self) -> int | None:
        """The cotangents that are pulled back through the circuit, None where no gradients are wanted."""
        return None if self.gradient is None else self.num_gradients

    @property
    def wants_state_gradients(self) -> bool:
        """Whether gradients of the initial states are wanted."""
        return self.gradient is not None and self.gradient.of_initial_states

    @property
    def num_state_gradients(self) -> int:
        """Rows of the array of gradients of initial states."""
        return self.num_gradients if self.wants_state_gradients else 0

    @cached_property
    def summed_columns(self) -> np.ndarray | None:
        """Bool (C,): an engine may sum the gradients of these columns over all rows. None: of no column."""
        gradient = self.gradient
        if gradient is None or gradient.summed is None or not self.gradients_are_per_row:
            return None
        return gradient.summed if gradient.unused is None else gradient.summed | gradient.unused

    @cached_property
    def varying_columns(self) -> np.ndarray:
        """Bool (C,): columns in which some row differs from the first one. Asked of a device once."""
        if self.num_rows <= 1 or not self.num_columns:
            return np.zeros(self.num_columns, dtype=bool)
        columns = self.columns
        return to_numpy((columns != columns[:1]).any(axis=0)) if self.is_on_device else columns_that_differ(columns)

    def rows(self, rows: slice) -> Request:
        """Return the request of some rows: their pairs, counted from the first of them, cotangents and states."""
        if rows.start == 0 and rows.stop == self.num_rows:
            return self
        pairs = self.pairs.of_rows(rows)
        gradient, boundary = self.gradient, self.boundary
        if gradient is not None and gradient.cotangents is not None:
            gradient = gradient._replace(cotangents=gradient.cotangents[pairs])
        initial, cotangents = boundary.initial, boundary.final_cotangents
        if initial is not None and len(initial) == self.num_rows:
            initial = initial[rows]
        if initial is not boundary.initial or cotangents is not None:
            cotangents = None if cotangents is None else cotangents[rows]
            boundary = boundary._replace(initial=initial, final_cotangents=cotangents)
        return Request(
            self.columns[rows],
            Pairs(self.pairs.row[pairs] - np.int32(rows.start), self.pairs.observable[pairs]),
            gradient,
            boundary,
            self.dtype,
            self.method,
            self.may_vary,
        )
