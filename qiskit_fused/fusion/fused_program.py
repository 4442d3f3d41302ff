# SPDX-License-Identifier: Apache-2.0
"""Program -> Plan: what runs together, on which qubits, and what it costs.

A plan is *phases* and *layers* in turn: phase 0, layer 0, phase 1, ..., phase D. A phase is any number of commuting
diagonal gates, one complex multiplication per amplitude. A layer is at most one rotation ``Ry`` per qubit, each the
middle of a *run*: the gates of one qubit between two terms, multiplied into ``Rz(phi) Ry(beta) Rz(lambda)`` when the
angles are known. Diagonal gates at either end of a run are terms of the phases beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from qiskit_fused.common.caches import BoundedCache
from qiskit_fused.common.choices import check_choice, check_count, check_dtype
from qiskit_fused.common.display import ShownAsText
from qiskit_fused.common.forks import cached_property
from qiskit_fused.common.limits import count_text, resolve_limit
from qiskit_fused.engines.checkpointing import METHODS
from qiskit_fused.engines.cpu.memory import Footprint, Request
from qiskit_fused.inspection.method_table import Report, report
from qiskit_fused.program.amplitude_encoding import Starts
from qiskit_fused.program.program import OpKind, Program

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from qiskit_fused.engines.cpu.method import Choice
    from qiskit_fused.execution.shared_parts import SharedParts, Sharing

_CHUNKED_FROM = 14  # qubits; below, threads sharing a row wait longer than they work
_LOCAL_QUBITS = 14  # of a chunk at most, while there are few: psi and lam of 2^14 amplitudes stay in L2
_MIN_CHUNK_BITS, _MAX_CHUNK_BITS = 2, 6
_MOST_LOCAL_QUBITS = 19  # of a chunk; larger ones leave an L3 cache of 32 MiB, and take 1.4 times as long at n = 26
_EXACT = 2e-16  # sines and cosines of constants below are 0, here and in kernels/cpu/angles.cpp
_KEPT_SHARINGS = 16  # sets of columns that were met once
_MAX_SHARED_BYTES = 128 << 20  # of the parts of all plans that rows share
_WORTH_SPLITTING = 64  # times the work that is worth a look, 0.1 s
_LOW_BITS = 8  # amplitudes 2^8 share a factor of the phase tables (kernels/cpu/simd/sweeps.hpp)


_PLAN_BYTES = 6000  # of the objects of a plan, beside its arrays
_SHARED: BoundedCache[SharedParts] = BoundedCache(_MAX_SHARED_BYTES)


@dataclass(frozen=True, eq=False, repr=False)
class Plan(ShownAsText):
    """A circuit as engines run it.

    Attributes:
        program: what was planned.
        num_qubits: n, qubits simulated: those that some observable can see.
        wires: int array (num_circuit_qubits,), bit of each circuit qubit in the final state, -1 where the qubit is
            not simulated.
        num_layers: D, layers of rotations.
        initial_state: complex128 (2**n,) or None for ``|0...0>``.
        starts: makes the start state of each row from its columns, or None.
        start_bits: int64, bit of each active qubit of the program at the start, -1 where it is not simulated.
        support: uint8, what the observables do to each circuit qubit: 0 nothing, 1 a diagonal, 2 anything. None: no
            gate is left out.
        inputs: bool (C,), columns that differ between the rows of a batch, if that is to be shown.
        num_observables: of the batch, likewise.
        cones: qubits of each light cone, where the terms of the observables are simulated in several of them; this plan
            is then that of the first.

    What engines read of R runs and T terms, in arrays as those of ``program.ops``:

    * ``leaf_kind``, ``leaf_column``, ``leaf_coefficient``, ``leaf_offset``, ``leaf_quaternion``: gates of the runs.
    * ``run_begin``: int32 (R + 1,), leaves of run ``r`` are ``run_begin[r]:run_begin[r + 1]``.
    * ``run_qubit``, ``run_layer``: int32 (R,), by layer, then qubit.
    * ``term_phase``: int32 (T,), ascending, and the other term arrays, with masks over the n bits.
    """

    program: Program
    num_qubits: int
    wires: np.ndarray
    num_layers: int
    leaf_kind: np.ndarray
    leaf_column: np.ndarray
    leaf_coefficient: np.ndarray
    leaf_offset: np.ndarray
    leaf_quaternion: np.ndarray
    run_begin: np.ndarray
    run_qubit: np.ndarray
    run_layer: np.ndarray
    term_phase: np.ndarray
    term_column: np.ndarray
    term_coefficient: np.ndarray
    term_offset: np.ndarray
    term_care: np.ndarray
    term_value: np.ndarray
    term_sign: np.ndarray
    initial_state: np.ndarray | None
    starts: Starts | None
    start_bits: np.ndarray
    support: np.ndarray | None
    inputs: np.ndarray | None = None
    num_observables: int = 1
    cones: tuple[int, ...] = ()

    @property
    def takes_states(self) -> bool:
        """Whether each row has a start state of its own, on the bits of the plan."""
        return self.starts is not None or self.program.any_start

    @property
    def starts_at_zero(self) -> bool:
        """Whether all rows start in ``|0...0>``."""
        return self.initial_state is None and not self.takes_states

    @property
    def num_runs(self) -> int:
        """Runs, that is rotations of one qubit after fusion."""
        return len(self.run_qubit)

    @property
    def chunk_bits(self) -> int:
        """Highest bits that cut the state into chunks, the unit of work of a thread."""
        if self.num_qubits < _CHUNKED_FROM:
            return 0
        bits = min(max(self.num_qubits - _LOCAL_QUBITS, _MIN_CHUNK_BITS), _MAX_CHUNK_BITS)
        return max(bits, self.num_qubits - _MOST_LOCAL_QUBITS)

    def num_positions(self, *, imaginary: bool = False) -> int:
        """Count the states that the CPU engine meets on its way back (see ``schedules``): one per phase, and the end.

        From ``|0...0>`` the state before the first layer is left out, unless ``imaginary`` derivatives need it.
        """
        return self.num_layers + (1 if self.starts_at_zero and not imaginary else 2)

    @cached_property
    def is_real(self) -> bool:
        """Whether states stay real, up to a global phase, whatever the angles, which halves numbers and work."""
        if self.takes_states or (self.initial_state is not None and self.initial_state.imag.any()):
            return False
        if (self.term_column >= 0).any():
            return False
        others = np.flatnonzero(self.leaf_kind != OpKind.RY)
        if len(others):
            is_constant = self.leaf_kind[others] == OpKind.SU2
            constants, turns = others[is_constant], others[~is_constant]
            half = self.leaf_offset[turns] / 2
            rest = np.minimum(np.abs(np.sin(half)), np.abs(np.cos(half)))
            if (self.leaf_column[turns] >= 0).any() or (rest >= _EXACT).any():
                return False
            a, b, c, d = np.abs(self.leaf_quaternion[constants].T) < _EXACT
            if not ((b & d) | (a & c)).all():
                return False
        is_sign = np.abs(np.sin(self.term_offset / 2)) < _EXACT
        if is_sign.all():
            return True
        few = (self.term_care == 0) & (np.bitwise_count(self.term_sign) <= 2)
        return bool((is_sign | (few & (np.abs(np.cos(self.term_offset / 2)) < _EXACT))).all())

    @cached_property
    def num_sweeps(self) -> int:
        """Passes over all amplitudes of a forward sweep; the adjoint makes as many, over two states.

        A layer is one sweep, and one more where it rotates qubits that chunks are cut along.
        """
        if not self.chunk_bits:
            return self.num_layers + 1
        outside = self.run_qubit >= self.num_qubits - self.chunk_bits
        return self.num_layers + 1 + len(np.unique(self.run_layer[outside]))

    @cached_property
    def single_axis(self) -> np.ndarray:
        """Which runs, bool (R,), are of RX alone or of RY alone, whose gradients need one sum."""
        first = self.leaf_kind[self.run_begin[:-1]]
        rest = np.repeat(first, np.diff(self.run_begin))
        differs = (self.leaf_kind != rest) | ~np.isin(self.leaf_kind, (OpKind.RX, OpKind.RY))
        return np.add.reduceat(differs, self.run_begin[:-1]) == 0 if self.num_runs else np.zeros(0, bool)

    @property
    def num_bytes(self) -> int:
        """Bytes of the plan and of what the CPU engine makes of it, estimated."""
        start = 8 * (len(self.wires) + len(self.start_bits))
        start += 0 if self.initial_state is None else self.initial_state.nbytes
        ops = 181 * len(self.leaf_kind) + 84 * self.num_runs + 152 * len(self.term_phase)
        return start + ops + 1200 * (self.num_layers + 1) + _PLAN_BYTES

    @property
    def fused_text(self) -> str:
        """What the circuit became, in words."""
        return (
            f"{count_text(self.num_runs, 'rotation')} in {count_text(self.num_layers, 'layer')}, "
            f"{count_text(len(self.term_phase), 'term')} in {count_text(self.num_layers + 1, 'phase')}"
        )

    def flops(self, gradient: bool = True, *, is_real: bool | None = None) -> int:
        """Count the floating-point operations of the sweeps for one row and observable, a multiply-add being two.

        A rotation is 4 per amplitude, its adjoint 8 and 4 for the sum Im<lam|Y|psi>. A phase is 8, and 8 more for the
        product of its two tables (4 where there is one); its adjoint 16, and 6 with the sums of Im(conj(lam) psi). Real
        states take half of it for rotations, and 2 for a phase or 4 back, without sums.
        Tables, bindings and the rare sums of Im<lam|X|psi> are not counted.

        Args:
            gradient: whether the adjoint is counted too.
            is_real: whether states are real; None: where they stay so.
        """
        if is_real is None:
            is_real = self.is_real
        start = 1 if self.starts_at_zero else 0
        num_rotations, num_phases = int((self.run_layer >= start).sum()), self.num_layers + 1 - start
        table = 8 if self.num_qubits > _LOW_BITS else 4
        forward = 2 * (num_rotations + num_phases) if is_real else 4 * num_rotations + (8 + table) * num_phases
        if not gradient:
            return forward << self.num_qubits
        if is_real:
            return (forward + 6 * self.num_runs + 4 * num_phases) << self.num_qubits
        many_axes = self.run_layer[~self.single_axis]
        with_sums = np.union1d(np.union1d(many_axes, many_axes + 1), self.term_phase[self.term_column >= 0])
        adjoint = 12 * self.num_runs + (16 + table) * num_phases + 6 * int((with_sums >= start).sum())
        return (forward + adjoint) << self.num_qubits

    def footprint(self, dtype: str) -> Footprint:
        """Return what the CPU engine allocates in a number format, made once."""
        kept = self._footprints.get(dtype)
        if kept is None:
            kept = self._footprints[dtype] = Footprint(self, dtype)
        return kept

    @cached_property
    def small_choices(self) -> dict[tuple[object, ...], Choice]:
        """How batches run that are too small to ask for a footprint; kept by ``methods.choose``."""
        return {}

    @cached_property
    def _footprints(self) -> dict[str, Footprint]:
        return {}

    def memory(
        self,
        batch_size: int = 1,
        method: str = "reverse",
        dtype: str = "complex128",
        *,
        gradient: bool = True,
        observables: int = 1,
        num_threads: int = 1,
        num_states: int | None = None,
    ) -> int:
        """Predict the bytes that the CPU engine holds at its peak: states, tables, sums, and the arrays in and out.

        The angles are taken as different in each row. The process grows by as much, within 15 % from some 10 MB on.

        Args:
            batch_size: rows.
            method: "reverse", "checkpoint" or "store".
            dtype: number format of the amplitudes.
            gradient: whether gradients are returned, float64 (rows x observables, columns).
            observables: per row, each with one diagonal.
            num_threads: rows run side by side, one per thread at most.
            num_states: for "checkpoint", states kept per row; None is the fewest, 1.

        Raises:
            ValueError: for a count that is no integer or too small, or when ``method`` or ``dtype`` is not understood.
        """
        check_choice("method", method, METHODS)
        kept = 1 if num_states is None else check_count("num_states", num_states)
        states = {"reverse": 0, "checkpoint": kept, "store": self.num_positions()}[method]
        request = _request(batch_size, observables, dtype, gradient)
        threads = check_count("num_threads", num_threads)
        return self.footprint(request.dtype).total(request, threads, min(states, self.num_positions()))

    def report(
        self,
        batch_size: int = 1,
        memory_limit: int | float | str | None = None,
        *,
        dtype: str = "complex128",
        observables: int = 1,
        num_threads: int = 1,
    ) -> Report:
        """Compare what methods take for gradients: states, bytes, forward sweeps, estimated time; ``print`` shows it.

        Args:
            batch_size: rows.
            memory_limit: as the option of that name; None is 80 % of the memory that is free now.
            dtype: number format of the amplitudes.
            observables: per row.
            num_threads: rows run side by side, one per thread at most.

        Raises:
            ValueError: for a count that is no integer or too small, or when ``memory_limit`` or ``dtype`` is not
                understood.
        """
        request = _request(batch_size, observables, dtype)
        return report(self, request, check_count("num_threads", num_threads), resolve_limit(memory_limit))

    def state_bytes(self, dtype: str = "complex128") -> int:
        """Count the bytes of the amplitudes of a state: half of them where it is real."""
        return (np.dtype(dtype).itemsize << self.num_qubits) >> int(self.is_real)

    def sharing(self, varies: np.ndarray) -> Sharing:
        """Return what rows have in common that differ in some columns of the program only, bool (C,); made once."""
        from qiskit_fused.execution.shared_parts import SharedParts, Sharing  # which makes plans

        key = id(self), varies.tobytes()
        parts = _SHARED.get(key)
        if parts is None:
            parts = _SHARED.put(key, SharedParts(), 2 * self.num_bytes, self)
        return Sharing(self, varies, parts)

    def is_worth_splitting(self, varies: np.ndarray, num_rows: int) -> bool:
        """Say whether to ask for `sharing` where nobody says which columns differ for good.

        Splitting takes as long as many gates. Rows of sparse data differ in others each time: they are split where they
        are many, or when the same columns differ again.
        """
        from qiskit_fused.execution.shared_parts import MIN_WORK

        key = varies.tobytes()
        if key in self._met or num_rows * self.num_runs << self.num_qubits >= _WORTH_SPLITTING * MIN_WORK:
            return True
        if len(self._met) >= _KEPT_SHARINGS:
            self._met.clear()
        self._met.add(key)
        return False

    @cached_property
    def _met(self) -> set[bytes]:
        return set()

    def __getstate__(self) -> dict[str, object]:
        """Return what to pickle, without what is made again."""
        return {part.name: getattr(self, part.name) for part in fields(self)}

    def bytes_moved(self, dtype: str = "complex128", *, gradient: bool = True) -> int:
        """Count the bytes that the sweeps of one row read and write, wherever in the memory hierarchy that is."""
        return 2 * self.state_bytes(dtype) * self.num_sweeps * (3 if gradient else 1)

    def draw(
        self,
        output: str = "mpl",
        *,
        device: str = "cpu",
        dtype: str = "complex128",
        method: str = "reverse",
        num_states: int | None = None,
        num_segments: int | None = None,
        max_layers: int = 6,
    ) -> Figure | str:
        """Draw the circuit as an engine runs it: fused runs, phases, blocks, sweeps, and states that are kept.

        Args:
            output: "mpl" for a matplotlib figure, which notebooks show and ``savefig`` saves; "text" for a string.
            device: engine whose sweeps are drawn, "cpu" (with the widest vectors) or "cuda"; neither has to be there.
            dtype: number format, which decides on blocks.
            method: of a backward pass, "reverse", "checkpoint" or "store".
            num_states: for "checkpoint", states kept (see `report`); None: so many that no step is made thrice.
            num_segments: for "checkpoint", segments of equal length instead.
            max_layers: layers shown (steps of a sweep, for "cuda"), at least 2; of more, the first and the last ones.

        Raises:
            ImportError: for "mpl" without matplotlib.
            ValueError: for an argument that is not allowed.
        """
        from qiskit_fused.inspection.drawing.draw import draw  # which imports plans

        return draw(
            self,
            output,
            device=device,
            dtype=dtype,
            method=method,
            num_states=num_states,
            num_segments=num_segments,
            max_layers=max_layers,
        )

    def explain(self, dtype: str = "complex128") -> str:
        """Say in sentences what was fused into what, what was left out, what a row costs and what bounds its speed.

        Args:
            dtype: number format of the amplitudes.
        """
        from qiskit_fused.inspection.explanation import explain  # which imports plans

        return explain(self, dtype)

    def short_text(self) -> str:
        """Return the line that ``repr`` shows."""
        parameters = count_text(self.program.num_parameters, "parameter")
        return f"Plan({count_text(self.num_qubits, 'qubit')}, {parameters}, {self.fused_text})"

    def __str__(self) -> str:
        from qiskit_fused.inspection.explanation import tabulate  # which imports plans

        return tabulate(self)


def _request(batch_size: int, observables: int, dtype: str, gradient: bool = True) -> Request:
    rows, per_row = check_count("batch_size", batch_size, 0), check_count("observables", observables)
    return Request.full(rows, per_row, check_dtype("dtype", dtype), gradient)
