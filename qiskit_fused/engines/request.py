# SPDX-License-Identifier: Apache-2.0
"""The request of one evaluation, from the primitives down to the engines.

Primitives make a request, execution cuts it into rows and observables, and an engine answers it with an `Evaluation`.
This module alone decides which columns differ between rows, whether a gradient belongs to a row or to a pair, and which
pairs belong to a block of rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from qiskit_fused.common.caches import BoundedCache
from qiskit_fused.common.forks import cached_property
from qiskit_fused.common.row_blocks import columns_that_differ
from qiskit_fused.engines.split_columns import SplitColumns
from qiskit_fused.options.method import REVERSE, Method


class Pairs(NamedTuple):
    """N pairs of a row and an observable, sorted by row; each pair occurs once.

    Attributes:
        row: int32 (N,), the row of each pair, ascending.
        observable: int32 (N,), the observable of each pair.
    """

    row: np.ndarray
    observable: np.ndarray

    def of_rows(self, rows: slice) -> slice:
        """Return the slice of the pairs that belong to a slice of the rows."""
        begin, end = np.searchsorted(self.row, (rows.start, rows.stop)).tolist()
        return slice(begin, end)


NO_PAIRS = Pairs(*[np.frombuffer(b"", np.int32)] * 2)  # read-only, so that engines keep what they make of it
_ALL_PAIRS: BoundedCache[Pairs] = BoundedCache(32 << 20)  # results of `all_pairs`; the bound is in bytes


def all_pairs(num_rows: int, num_observables: int) -> Pairs:
    """Return all pairs of rows and observables, as read-only arrays. The pairs of small batches are cached."""
    key = num_rows, num_observables
    pairs = _ALL_PAIRS.get(key)
    if pairs is None:
        row = np.repeat(np.arange(num_rows, dtype=np.int32), num_observables)
        observable = np.tile(np.arange(num_observables, dtype=np.int32), num_rows)
        row.setflags(write=False)
        observable.setflags(write=False)
        pairs = _ALL_PAIRS.put(key, Pairs(row, observable), row.nbytes + observable.nbytes)
    return pairs


def pairs_of(num_rows: int, observables: np.ndarray) -> Pairs:
    """Return the pairs of all rows with some observables, int32, ascending."""
    pairs = all_pairs(num_rows, len(observables))
    if len(observables) and observables[-1] == len(observables) - 1:  # the first observables, in order
        return pairs
    return Pairs(pairs.row, observables[pairs.observable])


class GradientRequest(NamedTuple):
    """The gradients of a request.

    Attributes:
        cotangents: float64 (N,), a weight for each pair. Each row then has one gradient, the gradient of the weighted
            sum of the values of its pairs (a vector-Jacobian product); it is zero for rows without pairs. None: each
            pair has one gradient.
        imaginary: whether gradients are 2 Im <psi|O|d psi>, with traceless generators, instead of 2 Re <psi|O|d psi>.
        summed: bool (C,), columns for which the caller uses only the sum of the gradients over all rows, or nothing.
            This has a meaning only where each row has one gradient. An engine may give the sum to any row, and zeros
            to the other rows. None: no column.
        unused: bool (C,), columns whose gradients the caller does not use. None: no column.
        of_initial_states: whether gradients of the initial states of rows are returned too, and gradients of parameters
            that are amplitudes of initial states.
    """

    cotangents: Any = None
    imaginary: bool = False
    summed: np.ndarray | None = None
    unused: np.ndarray | None = None
    of_initial_states: bool = False


class BoundaryStates(NamedTuple):
    """Statevectors at both ends of a circuit: initial states of rows, and final states or their cotangents.

    Engines take complex128 states on the n bits of the plan, and return final states in the number format of the
    request. Final states and their cotangents need a plan that leaves no gate out.

    Attributes:
        initial: (B, 2**n), the normalised initial state of each row, or (1, 2**n), the initial state of all rows. It is
            given if and only if `FusedProgram.takes_states` is true.
        final: whether ``Evaluation.final_states`` is returned: the states after the traceless runs and terms of the
            fused program. They lack a global phase (see `global_phase`), which is the same on all engines.
        final_cotangents: (B, 2**n), a cotangent G of the final state psi of each row, in the place of observables. Each
            row then has one gradient, the gradient of ``Re sum conj(G) psi``, where psi is the state of ``final``. Such
            a request has a gradient, no pairs, and no ``imaginary``.
        on_device: whether the CUDA engine returns final states on its device. Other engines return them on the host.
            The CUDA engine takes cotangents on the host and on its device.
        on_circuit_qubits: whether ``initial`` has the form of the user: real or complex, on all qubits of the circuit.
            `execution.initial_states` converts such states to the bits of the plan; engines never see them.
        from_end: whether ``initial`` holds the final states, and ``Evaluation.final_states`` the initial states that
            the backward sweep brings them back to. Such a request has one row, final cotangents, no pairs, and the
            method "reverse". Only the CUDA engine takes such a
            request; `engines.cpu.state_sweeps` does the same on the CPU.
    """

    initial: Any = None
    final: bool = False
    final_cotangents: Any = None
    on_device: bool = False
    on_circuit_qubits: bool = False
    from_end: bool = False


NO_STATES = BoundaryStates()


class _Fields(NamedTuple):
    """The fields of a `Request`. Making a NamedTuple takes 0.4 us; making a frozen dataclass takes 1.2 us."""

    columns: Any
    pairs: Pairs
    gradient: GradientRequest | None = None
    boundary: BoundaryStates = NO_STATES
    dtype: str = "complex128"
    method: Method = REVERSE
    may_vary: np.ndarray | None = None


class Request(_Fields):
    """B rows of numbers and N pairs of a row and an observable. A request is never changed.

    Attributes:
        columns: float64 (B, C), the columns of the program in each row (see `Program.columns`). In a request of a
            primitive, the columns are the P parameters; execution appends the columns of expressions after it has cut
            the rows. Or `SplitColumns`, on the host or on a CUDA device, for the CUDA engine alone. Cotangents, states
            and results are on the same device.
        pairs: the pairs whose values are returned.
        gradient: the gradients that are returned, or None.
        boundary: the states at both ends of the circuit.
        dtype: number format of the amplitudes, "complex64" or "complex128".
        method: how a backward sweep gets its states. All methods give the same gradients, up to rounding.
        may_vary: bool (C,), columns that may differ between rows; None if only the numbers tell. A layer knows them:
            inputs vary and weights do not. Rows then share the same gates in all batches, even in a batch whose inputs
            happen to be equal.
    """

    @property
    def num_rows(self) -> int:
        """B, the number of rows."""
        return len(self.columns)

    @property
    def num_pairs(self) -> int:
        """N, the number of pairs; each pair has one value."""
        return len(self.pairs.row)

    @property
    def num_columns(self) -> int:
        """C, the number of columns."""
        return int(self.columns.shape[1])

    @property
    def sizes(self) -> tuple[Any, ...]:
        """The key for caches of decisions: requests with equal keys take the same bytes and work for a plan."""
        gradient, boundary = self.gradient, self.boundary
        return (
            len(self.columns),
            len(self.pairs.row),
            self.dtype,
            gradient and (gradient.cotangents is not None, gradient.imaginary, gradient.of_initial_states),
            boundary.final,
            boundary.final_cotangents is not None,
        )

    @property
    def is_on_device(self) -> bool:
        """Whether the arrays of the request are on a CUDA device."""
        return self.is_split and bool(self.columns.is_on_device)

    @property
    def is_split(self) -> bool:
        """Whether shared columns are stored once. The gradients of summed columns are then returned apart."""
        return isinstance(self.columns, SplitColumns)

    @property
    def cotangents(self) -> Any:
        """Float64 (N,), the weight of each pair, or None."""
        return None if self.gradient is None else self.gradient.cotangents

    @property
    def imaginary(self) -> bool:
        """Whether gradients are 2 Im <psi|O|d psi>."""
        return self.gradient is not None and self.gradient.imaginary

    @property
    def needs_all_gates(self) -> bool:
        """Whether the results depend on gates that no observable sees: imaginary gradients and final states do."""
        boundary = self.boundary
        return self.imaginary or boundary.final or boundary.final_cotangents is not None

    @property
    def gradients_are_per_row(self) -> bool:
        """Whether each row has one gradient; otherwise each pair has one gradient."""
        gradient = self.gradient
        return gradient is not None and (gradient.cotangents is not None or self.boundary.final_cotangents is not None)

    @property
    def num_gradients(self) -> int:
        """Number of gradients: B if they are per row, N if they are per pair, 0 without gradients."""
        gradient = self.gradient
        if gradient is None:
            return 0
        is_per_row = gradient.cotangents is not None or self.boundary.final_cotangents is not None
        return len(self.columns if is_per_row else self.pairs.row)

    @property
    def num_adjoint_states(self) -> int | None:
        """Number of adjoint states of the backward sweep, one for each gradient; None without gradients."""
        return None if self.gradient is None else self.num_gradients

    @property
    def wants_state_gradients(self) -> bool:
        """Whether gradients of the initial states are returned."""
        return self.gradient is not None and self.gradient.of_initial_states

    @property
    def num_state_gradients(self) -> int:
        """Number of gradients of initial states."""
        return self.num_gradients if self.wants_state_gradients else 0

    @property
    def summed_columns(self) -> np.ndarray | None:
        """Bool (C,), the columns whose gradients an engine may sum over all rows; None: no column."""
        gradient = self.gradient
        return None if gradient is None or not self.gradients_are_per_row else gradient.summed

    @cached_property
    def varying_columns(self) -> np.ndarray:
        """Bool (C,), the columns in which some row differs from the first row. A device computes the others once.

        Of split columns, all columns that are stored for each row.
        """
        if self.is_split:
            is_varying: np.ndarray = self.columns.is_varying
            return is_varying
        if self.num_rows <= 1 or not self.num_columns:
            return np.zeros(self.num_columns, dtype=bool)
        return columns_that_differ(self.columns)

    @property
    def split_columns(self) -> SplitColumns:
        """The columns, with the columns that are the same in all rows stored once."""
        if isinstance(self.columns, SplitColumns):
            return self.columns
        return SplitColumns.of(np.asarray(self.columns, dtype=np.float64), self.varying_columns)

    def rows(self, rows: slice) -> Request:
        """Return the request of a block of rows, with their pairs, cotangents and states.

        The new request numbers its rows from 0.
        """
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
