# SPDX-License-Identifier: Apache-2.0
"""Program -> Plan: what runs together, on which qubits, and what it costs.

A plan is *phases* and *layers* in turn: phase 0, layer 0, phase 1, ..., phase D. A phase is any number of commuting
diagonal gates, one complex multiplication per amplitude. A layer is at most one rotation ``Ry`` per qubit, each the
middle of a *run*: the gates of one qubit between two terms, multiplied into ``Rz(phi) Ry(beta) Rz(lambda)`` when the
angles are known. Diagonal gates at either end of a run are terms of the phases beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from qiskit_fused.limits import count_text, format_bytes, resolve_limit, short_text
from qiskit_fused.memory import Footprint, Request
from qiskit_fused.methods import Report, report
from qiskit_fused.program import OpKind, Program
from qiskit_fused.starts import Starts, spread

_CHUNKED_FROM = 14  # qubits; below, threads sharing a row wait longer than they work
_LOCAL_QUBITS = 14  # of a chunk at most, while there are few: psi and lam of 2^14 amplitudes stay in L2
_MIN_CHUNK_BITS, _MAX_CHUNK_BITS = 2, 6
_MOST_LOCAL_QUBITS = 19  # of a chunk; larger ones leave an L3 cache of 32 MiB, and take 1.4 times as long at n = 26
_EXACT = 1e-14  # cosines and sines of constants below are 0
_LOW_BITS = 8  # amplitudes 2^8 share a factor of the phase tables (kernels/sweeps.hpp)


@dataclass(frozen=True, eq=False)
class Plan:
    """A circuit as engines run it.

    Attributes:
        program: what was planned.
        num_qubits: n, qubits simulated: those that some observable can see.
        wires: int array (num_circuit_qubits,), bit of each circuit qubit in the final state, -1 where the qubit is
            not simulated.
        num_layers: D.
        leaf_kind, leaf_column, leaf_coefficient, leaf_offset, leaf_quaternion: gates of the runs, see `Ops`.
        run_begin: int32 (R + 1,), leaves of run ``r`` are ``run_begin[r]:run_begin[r + 1]``.
        run_qubit, run_layer: int32 (R,), by layer, then qubit.
        term_phase: int32 (T,), ascending; the other term arrays as in `Ops`, masks over the n bits.
        initial_state: complex128 (2**n,) or None for |0...0>.
        starts: makes the start state of each row from its columns, or None.
        start_bits: int64, bit of each active qubit of the program at the start, -1 where it is not simulated.
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

    @property
    def takes_states(self) -> bool:
        """Whether each row has a start state of its own, on the bits of the plan."""
        return self.starts is not None or self.program.any_start

    @property
    def starts_at_zero(self) -> bool:
        """Whether all rows start in |0...0>."""
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
        """Count the states that a backward sweep of the CPU engine meets (see `schedules`): one per phase, and the end.

        From |0...0> the state before the first layer is left out, unless ``imaginary`` derivatives need it.
        """
        return self.num_layers + (1 if self.starts_at_zero and not imaginary else 2)

    @cached_property
    def is_real(self) -> bool:
        """Whether states stay real, up to a global phase, whatever the angles: half the numbers, half the work."""
        if self.initial_state is not None and np.abs(self.initial_state.imag).max() > 0:
            return False
        fixed = self.leaf_column < 0
        half_turn = fixed & (np.abs(np.cos(self.leaf_offset / 2)) < _EXACT)
        a, b, c, d = np.abs(self.leaf_quaternion.T) < _EXACT
        leaves = np.select(
            [self.leaf_kind == OpKind.RY, self.leaf_kind == OpKind.SU2, self.leaf_kind == OpKind.RV],
            [True, (b & d) | (a & c), False],
            half_turn | (fixed & (np.abs(np.sin(self.leaf_offset / 2)) < _EXACT)),
        )
        signs = np.abs(np.sin(self.term_offset / 2)) < _EXACT
        few = (self.term_care == 0) & (np.bitwise_count(self.term_sign) <= 2)
        signs |= few & (np.abs(np.cos(self.term_offset / 2)) < _EXACT)
        return bool(leaves.all() and (signs & (self.term_column < 0)).all())

    @cached_property
    def num_sweeps(self) -> int:
        """Passes over all amplitudes of a forward sweep; the adjoint makes as many, over two states.

        A layer is one sweep, and one more where it rotates qubits that chunks are cut along.
        """
        outside = self.run_qubit >= self.num_qubits - self.chunk_bits
        return self.num_layers + 1 + len(np.unique(self.run_layer[outside]))

    @cached_property
    def single_axis(self) -> np.ndarray:
        """Bool (R,): runs of RX alone or of RY alone, whose gradients need one sum."""
        first = self.leaf_kind[self.run_begin[:-1]]
        rest = np.repeat(first, np.diff(self.run_begin))
        differs = (self.leaf_kind != rest) | ~np.isin(self.leaf_kind, (OpKind.RX, OpKind.RY))
        return np.add.reduceat(differs, self.run_begin[:-1]) == 0 if self.num_runs else np.zeros(0, bool)

    def flops(self, gradient: bool = True) -> int:
        """Count the floating-point operations of the sweeps for one row and observable, a multiply-add being two.

        A rotation is 4 per amplitude, its adjoint 8 and 4 for the sum Im<lam|Y|psi>. A phase is 8, and 8 more for the
        product of its two tables (4 where there is one); its adjoint 16, and 6 with the sums of Im(conj(lam) psi).
        Tables, bindings and the rare sums of Im<lam|X|psi> are not counted.
        """
        table = 8 if self.num_qubits > _LOW_BITS else 4
        start = 1 if self.starts_at_zero else 0
        forward = 4 * int((self.run_layer >= start).sum()) + (8 + table) * (self.num_layers + 1 - start)
        if not gradient:
            return forward << self.num_qubits
        many_axes = self.run_layer[~self.single_axis]
        with_sums = np.union1d(np.union1d(many_axes, many_axes + 1), self.term_phase[self.term_column >= 0])
        adjoint = (
            12 * self.num_runs + (16 + table) * (self.num_layers + 1 - start) + 6 * int((with_sums >= start).sum())
        )
        return (forward + adjoint) << self.num_qubits

    def footprint(self, dtype: str) -> Footprint:
        """Return what the CPU engine allocates in a number format, made once."""
        kept = self._footprints.get(dtype)
        if kept is None:
            kept = self._footprints[dtype] = Footprint(self, dtype)
        return kept

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
        """
        states = {"reverse": 0, "checkpoint": num_states or 1, "store": self.num_positions()}[method]
        request = Request.full(batch_size, observables, dtype, gradient)
        return self.footprint(dtype).total(request, num_threads, min(states, self.num_positions()))

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
            ValueError: when ``memory_limit`` is not understood.
        """
        request = Request.full(batch_size, observables, dtype)
        return report(self, request, num_threads, resolve_limit(memory_limit))

    def bytes_moved(self, dtype: str = "complex128", *, gradient: bool = True) -> int:
        """Count the bytes that the sweeps of one row read and write, wherever in the memory hierarchy that is."""
        state = np.dtype(dtype).itemsize << self.num_qubits
        return 2 * state * self.num_sweeps * (3 if gradient else 1)

    def __str__(self) -> str:
        program = self.program
        num_terms = int((program.ops.kind == OpKind.TERM).sum())
        rows = [
            ("circuit", f"{count_text(program.num_circuit_qubits, 'qubit')}, "
                        f"{count_text(program.num_parameters, 'parameter')}"),
            ("simulated", f"{count_text(self.num_qubits, 'qubit')} that the observables can see"),
            ("gates", f"{len(program.gates)}"),
            ("normal form", f"{count_text(len(program.ops) - num_terms, 'one-qubit gate')}, "
                            f"{count_text(num_terms, 'diagonal term')}"),
            ("fused", f"{count_text(self.num_runs, 'rotation')} in {count_text(self.num_layers, 'layer')}, "
                      f"{count_text(len(self.term_phase), 'term')} in {count_text(self.num_layers + 1, 'phase')}"),
            ("angles", f"{count_text(program.num_parameters, 'parameter')}, "
                       f"{count_text(program.expressions.num_expressions, 'expression')}"),
            ("sweeps", f"{self.num_sweeps} forward, {self.num_sweeps} backward, in "
                       f"{count_text(1 << self.chunk_bits, 'chunk')}"),
        ]  # fmt: skip
        if self.takes_states:
            rows.insert(2, ("start", "each row in a state of its own"))
        lines = ["Plan", *(f"  {name:<12}{text}" for name, text in rows)]
        lines.append(f"  {'one row':<12}{'flops':>12}{'complex64':>14}{'complex128':>14}{'moved (c64)':>14}")
        for name, gradient in (("value", False), ("gradient", True)):
            cells = [
                short_text(self.flops(gradient)),
                *(format_bytes(self.memory(dtype=dtype, gradient=gradient)) for dtype in ("complex64", "complex128")),
                format_bytes(self.bytes_moved("complex64", gradient=gradient)),
            ]
            lines.append(f"  {'  ' + name:<12}{cells[0]:>12}{cells[1]:>14}{cells[2]:>14}{cells[3]:>14}")
        return "\n".join(lines)


def make_plan(program: Program, support: np.ndarray | None = None) -> Plan:
    """Plan a program for the observables of one request.

    Args:
        program: the lowered circuit.
        support: uint8 (num_circuit_qubits,), what the observables do to each circuit qubit: 0 nothing, 1 a diagonal,
            2 anything (see `Observables.support`). Gates outside their light cone are left out, which keeps values and
            2 Re <psi|O|d psi>, but not 2 Im <psi|O|d psi>. None keeps every gate.

    Cost: O(gates), once per circuit and support.
    """
    kept, seen = _light_cone(program, support)
    seen = np.flatnonzero(seen)
    bit_of = np.full(max(program.num_qubits, 1), -1, dtype=np.int64)
    bit_of[seen] = np.arange(len(seen))
    wires = np.where(program.output_wires >= 0, bit_of[program.output_wires], -1)
    schedule = _Schedule(program, bit_of, len(seen))
    schedule.add(kept)
    return schedule.finish(wires, seen)


def _light_cone(program: Program, support: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Say which ops (N,) and which qubits (n,) matter for observables with that support."""
    ops = program.ops
    if support is None:
        return np.ones(len(ops), bool), np.ones(program.num_qubits, bool)
    # What the observable, pulled back to this point, does to each qubit: nothing, diagonal, anything.
    effect = [0] * program.num_qubits
    for wire, value in zip(program.output_wires.tolist(), support.tolist()):
        if wire >= 0:
            effect[wire] = value
    anything = sum(1 << q for q, value in enumerate(effect) if value == 2)
    kept = np.zeros(len(ops), bool)
    kinds, qubits, supports = ops.kind.tolist(), ops.qubit.tolist(), (ops.care | ops.sign).tolist()
    for i in range(len(kinds) - 1, -1, -1):
        if kinds[i] == OpKind.TERM:
            # A diagonal commutes with an observable that is diagonal on all of its qubits.
            if supports[i] & anything:
                kept[i] = True
                mask = supports[i]
                while mask:
                    qubit = (mask & -mask).bit_length() - 1
                    effect[qubit] = effect[qubit] or 1
                    mask &= mask - 1
        elif effect[qubits[i]] == 2 or (effect[qubits[i]] == 1 and kinds[i] != OpKind.RZ):
            kept[i] = True
            effect[qubits[i]] = 2
            anything |= 1 << qubits[i]
    seen = np.array(effect, dtype=bool)
    if program.any_start or seen[list(program.initialized)].any():
        seen[list(program.initialized)] = True
    return kept, seen


def _constants_as_rotations(
    kind: np.ndarray, offset: np.ndarray, quaternion: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Turn constants that rotate about X or Y into RX and RY: runs about one axis need fewer sums."""
    kind, offset = kind.copy(), offset.copy()
    a, b, c, d = quaternion.T
    for rotation, along, others in ((OpKind.RX, b, (c, d)), (OpKind.RY, c, (b, d))):
        chosen = (kind == OpKind.SU2) & (others[0] == 0) & (others[1] == 0)
        offset[chosen] = 2 * np.arctan2(along, a)[chosen]
        kind[chosen] = rotation
    return kind, offset


class _Schedule:
    """Puts every op into the earliest layer or phase it can join."""

    def __init__(self, program: Program, bit_of: np.ndarray, num_qubits: int):
        self.program, self.bit_of, self.num_qubits = program, bit_of, num_qubits
        self.kinds = program.ops.kind.tolist()
        self.position = [0] * num_qubits  # next layer, and current phase, of each qubit
        self.open: list[list[int]] = [[] for _ in range(num_qubits)]  # leaves of the run that may still grow
        self.rotates = [False] * num_qubits  # whether that run holds a gate that is not diagonal
        self.runs: list[tuple[int, int, list[int]]] = []  # layer, qubit, leaves
        self.terms: list[tuple[int, int, int]] = []  # phase, op, its qubit if the op is a leaf, else -1

    def add(self, kept: np.ndarray) -> None:
        ops, kinds = self.program.ops, self.kinds
        qubits, supports, bits = ops.qubit.tolist(), (ops.care | ops.sign).tolist(), self.bit_of.tolist()
        for i in np.flatnonzero(kept).tolist():
            if kinds[i] != OpKind.TERM:
                qubit = bits[qubits[i]]
                self.open[qubit].append(i)
                self.rotates[qubit] = self.rotates[qubit] or kinds[i] != OpKind.RZ
                continue
            phase, mask, members = 0, supports[i], []
            while mask:
                members.append(bits[(mask & -mask).bit_length() - 1])
                mask &= mask - 1
            for qubit in members:
                if self.rotates[qubit]:  # a run of diagonal gates commutes with the term and stays open
                    self.close(qubit)
                phase = max(phase, self.position[qubit])
            for qubit in members:
                self.position[qubit] = phase
            self.terms.append((phase, i, -1))
        for qubit in range(self.num_qubits):
            self.close(qubit)

    def close(self, qubit: int) -> None:
        """End the open run of a qubit; diagonal gates at its ends go to the phases beside its layer."""
        leaves, layer = self.open[qubit], self.position[qubit]
        diagonal = [self.kinds[i] == OpKind.RZ for i in leaves]
        first = diagonal.index(False) if False in diagonal else len(leaves)
        end = len(leaves) - diagonal[::-1].index(False) if first < len(leaves) else len(leaves)
        self.terms += [(layer, i, qubit) for i in leaves[:first]]
        if first < end:
            self.runs.append((layer, qubit, leaves[first:end]))
            self.position[qubit] = layer + 1
            self.terms += [(layer + 1, i, qubit) for i in leaves[end:]]
        self.open[qubit], self.rotates[qubit] = [], False

    def to_bits(self, masks: np.ndarray) -> np.ndarray:
        """Turn masks over active qubits into masks over the bits of the plan."""
        if self.num_qubits == self.program.num_qubits:
            return masks
        moved = np.zeros_like(masks)
        for qubit, bit in enumerate(self.bit_of.tolist()):
            if bit >= 0:
                moved |= ((masks >> np.uint64(qubit)) & np.uint64(1)) << np.uint64(bit)
        return moved

    def finish(self, wires: np.ndarray, seen: np.ndarray) -> Plan:
        ops, initial_state, starts = self.program.ops, None, None
        if np.isin(self.program.initialized, seen).all():  # the qubits that are not seen start in |0>
            if self.program.initial_state is not None:
                initial_state = np.ascontiguousarray(self.program.initial_state[spread(seen.tolist())])
            if self.program.encodings:
                starts = Starts(self.program.encodings, self.bit_of, self.num_qubits)
        runs = sorted(self.runs, key=lambda run: run[:2])
        terms = np.array(sorted(self.terms), dtype=np.int64).reshape(-1, 3)
        leaf = np.array([i for run in runs for i in run[2]], dtype=np.int64)
        kind, offset = _constants_as_rotations(ops.kind[leaf], ops.offset[leaf], ops.quaternion[leaf])
        chosen, own = terms[:, 1], terms[:, 2]
        bit = np.uint64(1) << np.maximum(own, 0).astype(np.uint64)
        return Plan(
            program=self.program,
            num_qubits=self.num_qubits,
            wires=wires,
            num_layers=1 + max((run[0] for run in runs), default=-1),
            leaf_kind=kind,
            leaf_column=ops.column[leaf],
            leaf_coefficient=ops.coefficient[leaf],
            leaf_offset=offset,
            leaf_quaternion=np.ascontiguousarray(ops.quaternion[leaf]),
            run_begin=np.cumsum([0] + [len(run[2]) for run in runs], dtype=np.int32),
            run_qubit=np.array([run[1] for run in runs], dtype=np.int32),
            run_layer=np.array([run[0] for run in runs], dtype=np.int32),
            term_phase=terms[:, 0].astype(np.int32),
            term_column=ops.column[chosen],
            term_coefficient=ops.coefficient[chosen],
            term_offset=ops.offset[chosen],
            term_care=np.where(own >= 0, np.uint64(0), self.to_bits(ops.care[chosen])),
            term_value=np.where(own >= 0, np.uint64(0), self.to_bits(ops.value[chosen])),
            term_sign=np.where(own >= 0, bit, self.to_bits(ops.sign[chosen])),
            initial_state=initial_state,
            starts=starts,
            start_bits=self.bit_of[: self.program.num_qubits],
        )
