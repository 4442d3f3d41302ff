# SPDX-License-Identifier: Apache-2.0
"""What the CPU engine allocates for a batch, in bytes, known before anything is.

An evaluation holds *states* (psi and lam of each row that is simulated at the moment, or the states of a schedule),
tables of phases, sums of gradients, diagonals of observables, what the native plan keeps, and the arrays that come in
and go out. Each term below is one allocation of kernels/cpu/engine.cpp, kernels/cpu/phases.cpp or engines/cpu.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from weakref import ref

import numpy as np

from qiskit_fused.common.caches import BoundedCache
from qiskit_fused.engines.checkpointing import num_steps
from qiskit_fused.engines.cpu.costs import chunk_bits, num_positions
from qiskit_fused.program.amplitude_encoding import rows_at_once
from qiskit_fused.program.program import OpKind

if TYPE_CHECKING:
    from qiskit_fused.fusion.fused_program import FusedProgram
    from qiskit_fused.program.observables import TermMasks

_LOW_BITS = 8  # max_low_bits in kernels/cpu/simd/sweeps.hpp
LANE_BITS = {"complex64": 4, "complex128": 3}  # of the widest vectors; no state is smaller than one
_SIDE_BY_SIDE_QUBITS = 20  # at most, where chunked rows of large batches run side by side (kernels/cpu/engine.cpp)
_WORTH_A_THREAD = 2e5  # amplitude-runs, likewise
_ROW_TABLES, _SHARED_TABLES = 2 << 20, 64 << 20  # bytes of tables that are kept at most, likewise
_BLOCKS_PER_SUM = 256  # likewise
_WHOLE_STRINGS, _WHOLE_HIGH_BITS = 8, 12  # a qubit; at most: a phase is then stored whole (kernels/cpu/phases.cpp)
_DIAGONALS = 64 << 20  # bytes of float64 diagonals that are kept at most (kernels/cpu/observables.cpp)
_DIAGONAL_QUBITS = 23  # at most, likewise
_STAGGER = 1024  # bytes that a state is longer than its amplitudes, or a little more (kernels/cpu/engine.hpp)
_KEPT_FINALS = 4 << 20  # bytes of last states that are kept for gradients of the same rows (kernels/cpu/engine.cpp)
_ACTION = 16  # bytes of an action of a schedule


class Request(NamedTuple):
    """What a batch asks of a plan.

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

    def part(self, num_rows: int) -> Request:
        """Return what a block of that many of the rows asks for."""
        counts = ("num_pairs", "num_ends", "num_values")
        shares = {name: -(-getattr(self, name) * num_rows // self.num_rows) for name in counts}
        return self._replace(num_rows=num_rows, **shares)

    @property
    def most_values(self) -> int:
        """Values that come out."""
        return max(self.num_pairs, self.num_values)

    @classmethod
    def full(cls, num_rows: int, observables: int, dtype: str, gradient: bool = True) -> Request:
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


def is_small(plan: FusedProgram) -> bool:
    """Say whether `bytes_at_most` holds for a plan."""
    return plan.num_qubits <= _LOW_BITS and not plan.takes_states


def bytes_at_most(plan: FusedProgram, request: Request, num_threads: int, num_terms: int) -> int:
    """Bound `Footprint.total` of a small plan in a few microseconds, where a footprint takes a hundred.

    Args:
        plan: a plan of 8 qubits or fewer, whose rows bring no start states (see `is_small`).
        request: the batch.
        num_threads: threads at most.
        num_terms: terms of the observables.

    Returns:
        The bytes of method "reverse".
    """
    item = np.dtype(request.dtype).itemsize // 2
    low = 1 << max(plan.num_qubits, LANE_BITS[request.dtype])  # amplitudes of a state, which all share a factor
    num_leaves, num_runs, num_terms_of_plan = len(plan.leaf_kind), plan.num_runs, len(plan.term_phase)
    num_phases, state = plan.num_layers + 1, 2 * item * low + _STAGGER
    tables = num_phases * item * (2 * low + 2)
    bound = 48 * num_leaves + 56 * num_runs + 16 * num_terms_of_plan
    sums = 8 * (5 * num_runs + num_phases * plan.num_qubits + 2 * num_terms_of_plan + 2)
    row = tables + bound + 105 * num_phases + low * (16 + 2 * item) + 3 * state + sums
    values_of_row = -(-request.most_values // max(request.num_rows, 1))
    native = 64 * num_leaves + 36 * num_runs + (188 + 8 * low) * num_terms_of_plan + 600 * num_phases + 16 * low
    num_columns, num_lams = plan.program.num_columns, request.num_pairs * request.gradient
    arrays = 8 * (request.num_rows * num_columns + request.most_values + num_lams * num_columns)
    arrays += 16 * request.num_ends * low
    return (
        min(num_threads, max(request.num_rows, 1)) * (row + 8 * values_of_row + low * (6 * item + 16))
        + tables + bound + native + 2 * num_terms * item * low + min(request.num_rows * state, _KEPT_FINALS) + arrays
    )  # fmt: skip


class Footprint:
    """The bytes of a plan in one number format, by cause. Made once, in O(runs + terms).

    Attributes:
        state: of one statevector.
        tables: int64 (phases,), of the tables of each phase.
        sums: of all sums that gradients need, for a row.
        bound: of a row's angles.
        row, thread: of what else each row that is simulated, and each thread, has.
        native: what the native plan keeps.
    """

    def __init__(self, plan: FusedProgram, dtype: str):
        self._plan = ref(plan)  # footprints are kept in a cache as long as the plan lives
        self.item = np.dtype(dtype).itemsize // 2  # of a real number
        self.bits = max(plan.num_qubits, LANE_BITS[dtype])
        self.low_bits = max(min(plan.num_qubits, _LOW_BITS), LANE_BITS[dtype])
        self.low, self.high = 1 << self.low_bits, 1 << max(plan.num_qubits - self.low_bits, 0)
        self.num_chunks, self.blocks = 1 << chunk_bits(plan.num_qubits), 1 << (self.bits - self.low_bits)
        self.state, self.real_state = ((parts * self.item << self.bits) + _STAGGER for parts in (2, 1))
        num_runs, num_leaves, num_terms = plan.num_runs, len(plan.leaf_kind), len(plan.term_phase)
        num_phases = plan.num_layers + 1
        rv = 32 * num_leaves if (plan.leaf_kind == OpKind.RV).any() else 0
        self.bound = 16 * num_leaves + rv + 56 * num_runs + 16 * num_terms
        scratch = 16 * max(self.low, self.high) + 2 * self.low * self.item
        self.row = self.bound + 105 * num_phases + scratch
        self.native = 64 * num_leaves + 36 * num_runs + 52 * num_terms + 600 * num_phases
        if plan.initial_state is not None:
            self.native += plan.initial_state.nbytes
        self._count_phases()
        self.all_tables = int(self.tables.sum())
        self.most_shared = self.all_tables if self.all_tables <= _SHARED_TABLES else 0
        self.varying = self.varying_phases(None)

    @property
    def plan(self) -> FusedProgram:
        """The plan, which somebody else has to hold."""
        plan = self._plan()
        assert plan is not None
        return plan

    def _count_phases(self) -> None:
        """Count what depends on how the terms of a phase are split over low and high bits (kernels/cpu/phases.cpp)."""
        plan, num_phases = self.plan, self.plan.num_layers + 1

        def per_phase(which: np.ndarray) -> np.ndarray:
            return np.bincount(plan.term_phase[which], minlength=num_phases)

        support = plan.term_care | plan.term_sign
        in_low, high = (support & np.uint64(self.low - 1)) != 0, support >> self.low_bits
        angled, crosses, size = plan.term_column >= 0, in_low & (high != 0), np.bitwise_count(support)
        is_pair, is_many = size == 2, (size > 2) & (angled | crosses)
        joined = np.zeros(num_phases, np.uint64)  # bits of h that the low table of a phase depends on
        joins = (is_pair & crosses) | (is_many & in_low)
        np.bitwise_or.at(joined, plan.term_phase[joins], high[joins])
        num_joined = np.bitwise_count(joined).astype(np.int64)
        strings = per_phase(is_many & crosses & (plan.term_care == 0))
        whole = (strings >= _WHOLE_STRINGS * plan.num_qubits) & (plan.num_qubits - self.low_bits <= _WHOLE_HIGH_BITS)
        per_block = ~whole & (num_joined > 2) & ((num_joined > 5) | (num_joined + 3 > self.high.bit_length() - 1))
        variants = np.where(whole, self.high, np.where(per_block, 1, 1 << np.minimum(num_joined, 5)))
        low_tables = 2 * variants + per_block * per_phase(is_many & crosses)
        self.tables = self.item * (low_tables * self.low + 2 * self.high * (1 + per_block * self.low_bits))
        if plan.starts_at_zero:
            self.tables[0] = 0  # the start is a product state

        pairs = np.unique(np.stack([plan.term_phase[is_pair].astype(np.uint64), support[is_pair]]), axis=1)
        num_pairs, num_many = np.bincount(pairs[0].astype(np.int64), minlength=num_phases), per_phase(is_many)
        wants_pairs, wants_many = per_phase(is_pair & angled) > 0, per_phase(is_many & angled) > 0
        of_chunk = 2 * plan.num_runs + num_phases * plan.num_qubits
        of_chunk += int(num_pairs[wants_pairs].sum() + num_many[wants_many].sum())
        of_block = 1 + self.low_bits * bool((per_block & wants_pairs).any())
        of_block += int(num_many[per_block & wants_many].max(initial=0))
        self.sums = 8 * (self.num_chunks * of_chunk + self.blocks * of_block + 3 * plan.num_runs)
        parts = 2 if self.blocks > self.num_chunks * _BLOCKS_PER_SUM else 1
        self.thread = self.low * ((5 + parts * int(variants.max(initial=1))) * self.item + 16)
        self.thread += 8 * bool(whole.any()) << (self.bits - chunk_bits(plan.num_qubits))
        self.row += 16 * bool(whole.any()) << self.bits
        tabulated = int(is_many.sum()) - int(strings[whole].sum())
        self.native += 72 * pairs.shape[1] + 64 * int(is_many.sum()) + 8 * self.low * tabulated

    def most_diagonals(self, num_terms: int) -> int:
        """Bound the bytes of the diagonals of observables by their number of terms."""
        if self.plan.num_qubits > _DIAGONAL_QUBITS:
            return 0
        return min(2 * num_terms * self.item << self.bits, 2 * _DIAGONALS)

    def varying_phases(self, columns: np.ndarray | None) -> tuple[int, int]:
        """Return the bytes of the tables of phases that differ between rows, all of them and the largest.

        Args:
            columns: bool (C,), columns of the program that differ; None is all.
        """
        plan = self.plan
        varies = np.ones(plan.program.num_columns, bool) if columns is None else columns
        runs = _any_varies(plan.leaf_column, plan.leaf_kind == OpKind.RV, varies)
        runs = np.logical_or.reduceat(runs, plan.run_begin[:-1]) if plan.num_runs else np.zeros(0, bool)
        terms = _any_varies(plan.term_column, np.zeros(len(plan.term_column), bool), varies)
        phases = np.zeros(len(self.tables), bool)
        phases[plan.run_layer[runs]] = phases[plan.run_layer[runs] + 1] = True
        phases[plan.term_phase[terms]] = True
        return int(self.tables[phases].sum()), int(self.tables[phases].max(initial=0))

    def side_by_side(self, num_rows: int, num_threads: int) -> tuple[int, int]:
        """Return the rows that run side by side, each with states of its own, and the threads that work.

        Rows run side by side while there are enough of them and their states are small, else all threads on one row.
        """
        work = (num_rows << self.bits) * (self.plan.num_runs + 1) / _WORTH_A_THREAD
        wanted = max(1, min(num_threads, int(work) + 1))
        if self.num_chunks == 1 or (num_rows >= 2 * wanted and self.bits <= _SIDE_BY_SIDE_QUBITS):
            threads = min(wanted, max(num_rows, 1))
            return threads, threads
        return 1, min(wanted, self.num_chunks)

    def count_states(self, request: Request, num_states: int = 0) -> int:
        """Count the states of one row, lam included.

        Args:
            request: the batch.
            num_states: states of a schedule; 0 is method "reverse", where further pairs start from a copy of psi.
        """
        several = request.num_pairs > request.num_rows
        held = num_states + 1 if num_states else 2 + several
        return held if request.gradient else 1

    def state_bytes(self, request: Request) -> int:
        """Return the bytes of one state: half where it is real."""
        is_real = self.plan.stays_real(imaginary=request.imaginary, final_states=request.num_ends > 0)
        fills_a_vector = self.plan.num_qubits == self.bits
        return self.real_state if is_real and fills_a_vector else self.state

    def arrays(self, request: Request) -> int:
        """Return the bytes of columns, values and gradients, and of start states that rows bring and theirs."""
        columns, num_lams = self.plan.program.num_columns, request.num_pairs * request.gradient
        num_bytes = 8 * (request.num_rows * columns + request.most_values + num_lams * columns)
        num_bytes += 16 * request.num_ends << self.plan.num_qubits
        if not self.plan.takes_states:
            return num_bytes
        num_lams *= request.state_gradients
        rows = rows_at_once(self.plan.num_qubits, request.num_rows, num_lams)
        states = rows + -(-num_lams * rows // max(request.num_rows, 1))
        if self.plan.starts is None and rows < request.num_rows:
            states += num_lams  # the answer, beside that of a block
        return num_bytes + (16 * states << self.plan.num_qubits)

    def total(
        self, request: Request, num_threads: int, num_states: int = 0, varying: tuple[int, int] | None = None
    ) -> int:
        """Return the bytes of an evaluation at its peak.

        Args:
            request: the batch.
            num_threads: threads at most.
            num_states: states of a schedule, per row; 0 is method "reverse".
            varying: see `varying_phases`; None takes all columns as different in each row.
        """
        rows, threads = self.side_by_side(request.num_rows, num_threads)
        all_varying, largest = (varying or self.varying) if request.num_rows > 1 else (0, 0)
        shared = self.all_tables - all_varying
        if self.all_tables > (_SHARED_TABLES if request.num_rows > 1 else _ROW_TABLES):
            shared, largest = 0, int(self.tables.max())
        of_row = all_varying if self.all_tables <= _ROW_TABLES else largest
        state = self.state_bytes(request)
        of_row += self.row + state * self.count_states(request, num_states) + self.sums * request.gradient
        diagonals = 0
        if self.plan.num_qubits <= _DIAGONAL_QUBITS and request.num_flips * 8 << self.plan.num_qubits <= _DIAGONALS:
            diagonals = request.num_diagonals * self.item << self.bits
        schedule = 0
        if num_states:
            positions = num_positions(self.plan, imaginary=request.imaginary)
            schedule = _ACTION * (num_steps(positions, num_states) + positions)
        kept = 0 if request.gradient or self.plan.takes_states else request.num_rows * state
        kept = kept if kept <= _KEPT_FINALS else 0
        of_values = 8 * self.num_chunks * -(-request.most_values // max(request.num_rows, 1))
        return (
            rows * (of_row + of_values) + threads * self.thread + shared + diagonals + schedule
            + kept + self.native + self.bound + self.arrays(request)
        )  # fmt: skip


_FOOTPRINTS: BoundedCache[Footprint] = BoundedCache(32 << 20)
_FOOTPRINT_BYTES = 2000  # bytes of a footprint beside the table of its phases


def footprint_of(plan: FusedProgram, dtype: str) -> Footprint:
    """Return what the CPU engine allocates for a plan in a number format, counted once."""
    key = id(plan), dtype
    footprint = _FOOTPRINTS.get(key)
    if footprint is None:
        footprint = Footprint(plan, dtype)
        footprint = _FOOTPRINTS.put(key, footprint, footprint.tables.nbytes + _FOOTPRINT_BYTES, plan)
    return footprint


def _any_varies(column: np.ndarray, is_vector: np.ndarray, varies: np.ndarray) -> np.ndarray:
    """Say which gates have an angle in a column that varies; a rotation vector has three of them."""
    if not len(varies):
        return np.zeros(len(column), bool)
    found = (column >= 0) & varies[np.maximum(column, 0)]
    for further in (1, 2):
        found |= is_vector & varies[np.minimum(np.maximum(column, 0) + further, len(varies) - 1)]
    return found
