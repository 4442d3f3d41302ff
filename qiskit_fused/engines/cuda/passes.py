# SPDX-License-Identifier: Apache-2.0
"""FusedProgram -> passes: what CUDA kernels do, as records of ``kernels/cuda/records.cuh``.

A *pass* takes every tile of a window through *stages*: an exchange between threads that brings some window qubits into
the registers of each thread (the arrangement), a *piece* of the diagonals, and rotations of register qubits.

A piece is evaluated where its stage has brought the rotated qubits: `diagonals` sorts its parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qiskit_fused.common.bits import bits_of
from qiskit_fused.engines.cuda import records
from qiskit_fused.engines.cuda.phase_parts import Part, Parts, mean, walsh_series
from qiskit_fused.engines.cuda.records import Source
from qiskit_fused.engines.cuda.tiling import Step, Window, make_windows
from qiskit_fused.fusion.fused_program import FusedProgram


@dataclass(frozen=True, eq=False)
class Pass:
    """One sweep over the state.

    Attributes:
        stages: slice of the stages.
        outputs: slice of the outputs: which of its sums go to which totals.
        num_slots: sums that every tile stores.
    """

    stages: slice
    outputs: slice
    num_slots: int


@dataclass(frozen=True, eq=False)
class Passes:
    """A fused program as passes over tiles of 2^t amplitudes, 2^r of them in the registers of each thread.

    Attributes:
        tile_qubits, register_qubits: t and r.
        num_address_bits: N = max(n, t); bits from the number of qubits on are always 0.
        passes: in forward order.
        windows: one record a pass. stages, pieces, items, extras, directs, outputs: records.
        masks: uint32, Walsh masks over tile indices.
        stage_run: int32 (stages, 4), run of each register bit, -1 for none.
        item_of, extra_of: int32, index of the term or run whose angle it takes.
        item_piece, extra_piece: int32, the piece it belongs to.
        piece_entries: int64, entries of the tables of each piece.
        run_sums: int32 (R, 4), index in the totals of Im<lam|X|psi>, Y and Z before the rotation of each run, and of Z
            behind it; -1 where not needed.
        term_sums: term int32, total int32, weight float64: the gradient of a term is the weighted sum of its totals.
        num_totals: sums per row and observable.
    """

    tile_qubits: int
    register_qubits: int
    num_address_bits: int
    passes: list[Pass]
    windows: np.ndarray
    stages: np.ndarray
    pieces: np.ndarray
    items: np.ndarray
    extras: np.ndarray
    directs: np.ndarray
    outputs: np.ndarray
    masks: np.ndarray
    stage_run: np.ndarray
    item_of: np.ndarray
    extra_of: np.ndarray
    item_piece: np.ndarray
    extra_piece: np.ndarray
    piece_entries: np.ndarray
    run_sums: np.ndarray
    term_sums: tuple[np.ndarray, np.ndarray, np.ndarray]
    num_totals: int

    @property
    def num_tiles(self) -> int:
        """Tiles of a state."""
        return 1 << (self.num_address_bits - self.tile_qubits)


def make_passes(fused: FusedProgram, tile_qubits: int, register_qubits: int, is_real: bool = False) -> Passes:
    """Cut a fused program into passes.

    Args:
        fused: the fused program.
        tile_qubits: t at most; smaller states take fewer.
        register_qubits: r.
        is_real: amplitudes are real numbers, see `FusedProgram.is_real`: sums of X and Z are 0.

    Cost: O(gates) Python operations, once per fused program.
    """
    t = max(min(fused.num_qubits, tile_qubits), register_qubits)
    builder = _PassBuilder(fused, t, register_qubits, is_real)
    for window in make_windows(fused, t):
        builder.add(window)
    return builder.finish()


class _PassBuilder:
    """Appends the records of one window after the other.

    The first lists are the columns and records of `Passes`; those below hold what is read of the fused program.

    Attributes:
        t, r: tile qubits and register qubits.
        item_of, extra_of: index of a term or run, and the piece, of each item and extra.
        trained: for each run, the number of its gates whose angle has a column.
        needs_all: for each run, whether its gradients need the sums of X, Y and Z; else those of Y alone, or none.
        due: for each qubit, the run behind whose rotation an Rz has still to be applied, or -1.
        local: for each qubit, its bit in the window that is being added: bits of the tile first, then of its number.
        num_slots: sums that each tile of this window stores so far.
    """

    def __init__(self, fused: FusedProgram, tile_qubits: int, register_qubits: int, is_real: bool):
        self.fused, self.t, self.r = fused, tile_qubits, register_qubits
        self.passes: list[Pass] = []
        self.windows: list[tuple[list[int], list[int]]] = []
        self.stages: list[tuple] = []
        self.pieces: list[dict] = []
        self.items: list[tuple] = []
        self.extras: list[tuple] = []
        self.directs: list[tuple[int, int, int]] = []
        self.outputs: list[tuple[int, int, int]] = []
        self.masks: list[int] = []
        self.stage_run: list[list[int]] = []
        self.item_of: list[tuple[int, int]] = []
        self.extra_of: list[tuple[int, int]] = []
        self.run_sums = np.full((fused.num_runs, 4), -1, dtype=np.int32)
        self.term_sums: list[tuple[int, int, float]] = []

        self.run_qubit = fused.run_qubit.tolist()
        has_column = np.concatenate([[0], np.cumsum(fused.leaf_column >= 0)])
        self.trained = np.diff(has_column[fused.run_begin]).tolist()
        self.single_axis = fused.single_axis.tolist()
        self.column, self.offset = fused.term_column.tolist(), fused.term_offset.tolist()
        self.term_masks = list(zip(fused.term_care.tolist(), fused.term_value.tolist(), fused.term_sign.tolist()))
        self.due = [-1] * fused.num_qubits
        self.needs_all = [
            bool(trained) and not (single or is_real) for trained, single in zip(self.trained, self.single_axis)
        ]
        self.local: dict[int, int] = {}
        self.num_slots = 0

    def add(self, window: Window) -> None:
        """Append the pass of a window."""
        held = [*window.qubits, *range(self.fused.num_qubits, self.t)]
        outside = [q for q in range(self.fused.num_qubits) if q not in window.qubits]
        self.local = {qubit: bit for bit, qubit in enumerate([*held, *outside])}
        self.windows.append((held, outside))
        self.num_slots = 0
        first_stage, first_output = len(self.stages), len(self.outputs)
        arrangement = self.t - self.r
        for step in window.steps:
            run_at = {self.local[self.run_qubit[run]]: run for run in step.runs}
            groups = cover(list(run_at), arrangement, self.t, self.r) or [(arrangement, [])]
            for k, (first, bits) in enumerate(groups):
                piece = self._piece(step, first) if k == 0 else -1
                self._stage(first, piece, [(bit - first, run_at[bit]) for bit in bits])
            arrangement = groups[-1][0]
        stages, outputs = slice(first_stage, len(self.stages)), slice(first_output, len(self.outputs))
        self.passes.append(Pass(stages, outputs, self.num_slots))

    def _slots(self, count: int) -> int:
        """Reserve sums in every tile of the window and return the first one."""
        self.num_slots += count
        return self.num_slots - count

    def _total(self, slot: int, outside: int = 0) -> int:
        """Add up a sum over all tiles, with the sign of the tile numbers' bits ``outside``; return the total."""
        self.outputs.append((outside, slot, len(self.outputs)))
        return len(self.outputs) - 1

    def _stage(self, arrangement: int, piece: int, runs: list[tuple[int, int]]) -> None:
        """Append a stage: a piece, or -1 for none, then rotations of register bits, given with their runs."""
        rotate = sum(1 << bit for bit, _ in runs)
        sum_x = sum(1 << bit for bit, run in runs if self.needs_all[run])
        y_slot = self._slots(self.r) if runs else 0
        x_slot = self._slots(self.r) if sum_x else 0
        of_bit = [-1] * records.MAX_REGISTER_QUBITS
        for bit, run in runs:
            of_bit[bit] = run
            if self.trained[run]:
                self.run_sums[run, 1] = self._total(y_slot + bit)
                if sum_x >> bit & 1:
                    self.run_sums[run, 0] = self._total(x_slot + bit)
        self.stages.append((arrangement, piece, rotate, sum_x, y_slot, x_slot, (0,) * len(of_bit)))
        self.stage_run.append(of_bit)

    def _piece(self, step: Step, arrangement: int) -> int:
        """Append the piece of a step, its terms and the Rz before and behind its runs, and return its number."""
        parts = Parts(arrangement, self.t, self.r)
        z_uses: list[tuple[int, int, int]] = []  # bit, run, which of its sums
        after = {self.run_qubit[run]: run for run in step.runs} | dict.fromkeys(step.endings, -1)
        for qubit, run in after.items():
            before, bit = self.due[qubit], self.local[qubit]
            if before >= 0:
                parts.add_bit(bit, Source.RUN_OUT, before, 1.0)
                z_uses += [(bit, before, 3)] * self.needs_all[before]
            if run >= 0:
                parts.add_bit(bit, Source.RUN_IN, run, 1.0)
                z_uses += [(bit, run, 2)] * self.needs_all[run]
            self.due[qubit] = run
        for term in step.terms:
            parts.add_term(term, self._local_masks(term), self.offset[term] if self.column[term] < 0 else None)
        self.pieces.append({**self._tables(parts), **self._sums(step, z_uses)})
        return len(self.pieces) - 1

    def _tables(self, parts: Parts) -> dict[str, object]:
        """Append the parts of a piece and return the fields that refer to them."""
        number = len(self.pieces)

        def append_items(items: list[Part]) -> int:
            self.items += [(part.coefficient, *part.masks, part.source, 0, 0) for part in items]
            self.item_of += [(part.of, number) for part in items]
            return len(self.items) - len(items)

        first_extra = len(self.extras)
        self.extras += [(*part.masks, part.coefficient, part.source, 0, part.kind, part.bit) for part in parts.extras]
        self.extra_of += [(part.of, number) for part in parts.extras]
        return {
            "first_thread_item": append_items(parts.thread_items),
            "first_register_item": append_items(parts.register_items),
            "end_item": len(self.items),
            "first_extra": first_extra,
            "end_extra": len(self.extras),
            "arrangement": parts.arrangement,
            "signs": parts.signs,
            "register_signs": parts.register_signs,
        }

    def _local_masks(self, term: int) -> tuple[int, int, int]:
        """Return care, value and sign of a term over the bits of the window."""
        care, value, sign = self.term_masks[term]
        moved = [0, 0, 0]
        for qubit in bits_of(care | sign):
            bit = self.local[qubit]
            for k, mask in enumerate((care, value, sign)):
                moved[k] |= (mask >> qubit & 1) << bit
        return moved[0], moved[1], moved[2]

    def _sums(self, step: Step, z_uses: list[tuple[int, int, int]]) -> dict[str, int]:
        """Plan the sums of p = Im(conj(lam) psi) over a tile that the gradients of a piece need.

        There are three kinds. A *Z sum* has the sign of one bit of the tile, or no sign. A *Walsh sum* has the sign of
        a string of several bits. A *direct sum* is over the amplitudes that a term acts on, with its sign. A kernel
        makes all t + 1 Z sums of a tile or none, and those Walsh and direct sums that are asked for.

        Args:
            step: the terms of the piece.
            z_uses: bit, run and place in `run_sums` of the Z sums that runs need.

        Returns:
            Fields of the record of the piece: where its sums are, and which masks they have.
        """
        strings, direct = self._strings(step)
        strings = {(1 << bit, 0): list[tuple[int, float]]() for bit, _, _ in z_uses} | strings
        insides = {inside for inside, _ in strings}
        long = sorted(inside for inside in insides if inside & (inside - 1))
        fields = {"first_walsh": len(self.masks), "first_direct": len(self.directs)}
        self.masks += long
        self.directs += [self._local_masks(term) for term in direct]
        fields |= {"end_walsh": len(self.masks), "end_direct": len(self.directs)}
        z_slot = self._slots(self.t + 1) if direct or len(long) < len(insides) else -1
        walsh_slot = self._slots(len(long)) if long else -1
        direct_slot = self._slots(len(direct)) if direct else -1
        slot_of = {0: z_slot + self.t} | {1 << bit: z_slot + bit for bit in range(self.t)}
        slot_of |= {inside: walsh_slot + k for k, inside in enumerate(long)}
        totals = {}
        for (inside, outside), uses in strings.items():
            total = totals[inside, outside] = self._total(slot_of[inside], outside)
            self.term_sums += [(term, total, weight) for term, weight in uses]
        for bit, run, which in z_uses:
            self.run_sums[run, which] = totals[1 << bit, 0]
        if direct:
            mean_total = self._total(slot_of[0])
            for k, term in enumerate(direct):
                self.term_sums.append((term, self._total(direct_slot + k), 1.0))
                self.term_sums.append((term, mean_total, -mean(*self._local_masks(term))))
        return fields | {"z_slot": z_slot, "walsh_slot": walsh_slot, "direct_slot": direct_slot}

    def _strings(self, step: Step) -> tuple[dict[tuple[int, int], list[tuple[int, float]]], list[int]]:
        """Return the Z strings whose sums give the gradients of terms, and the terms that take too many strings.

        A string is a mask of bits of the tile and one of bits of the tile number; with it come the terms that use it,
        and their weights.
        """
        strings: dict[tuple[int, int], list[tuple[int, float]]] = {}
        direct = []
        for term in step.terms:
            if self.column[term] < 0:
                continue
            series = walsh_series(*self._local_masks(term))
            if series is None:
                direct.append(term)
                continue
            for mask, weight in series:
                string = mask & ((1 << self.t) - 1), mask >> self.t
                strings.setdefault(string, []).append((term, weight))
        return strings, direct

    def finish(self) -> Passes:
        windows = np.zeros(len(self.windows), dtype=records.WINDOW)
        for record, (held, outside) in zip(windows, self.windows):
            record["tile"][: len(held)] = held
            record["outside"][: len(outside)] = outside
        pieces = np.zeros(len(self.pieces), dtype=records.PIECE)
        for name in records.PIECE.names or ():
            if name != "table":
                pieces[name] = np.array([piece[name] for piece in self.pieces], pieces[name].dtype).reshape(
                    pieces[name].shape
                )
        entries = (1 << (self.t - self.r)) + self.r + pieces["end_extra"].astype(np.int64) - pieces["first_extra"]
        item_of, extra_of = (np.array(rows, np.int32).reshape(-1, 2) for rows in (self.item_of, self.extra_of))
        sums = list(zip(*self.term_sums)) or [(), (), ()]
        return Passes(
            tile_qubits=self.t,
            register_qubits=self.r,
            num_address_bits=max(self.fused.num_qubits, self.t),
            passes=self.passes,
            windows=windows,
            stages=np.array(self.stages, dtype=records.STAGE),
            pieces=pieces,
            items=np.array(self.items, dtype=records.ITEM),
            extras=np.array(self.extras, dtype=records.EXTRA),
            directs=np.array(self.directs, dtype=records.DIRECT),
            outputs=np.array(self.outputs, dtype=records.OUTPUT),
            masks=np.array(self.masks, dtype=np.uint32),
            stage_run=np.array(self.stage_run, dtype=np.int32).reshape(-1, records.MAX_REGISTER_QUBITS),
            item_of=item_of[:, 0],
            extra_of=extra_of[:, 0],
            item_piece=item_of[:, 1],
            extra_piece=extra_of[:, 1],
            piece_entries=entries,
            run_sums=self.run_sums,
            term_sums=(np.array(sums[0], np.int32), np.array(sums[1], np.int32), np.array(sums[2], np.float64)),
            num_totals=len(self.outputs),
        )


def cover(bits: list[int], arrangement: int, tile_qubits: int, register_qubits: int) -> list[tuple[int, list[int]]]:
    """Choose arrangements, from the current one on, that bring all of these tile bits into registers.

    Returns:
        Arrangement and bits of each: first what is in registers already, then from the nearer end, so that layers
        after one another go through the groups of bits to and fro.
    """
    left, covered = sorted(bits), []
    reached = [bit for bit in left if arrangement <= bit < arrangement + register_qubits]
    while left:
        if not reached:
            if arrangement - left[0] >= left[-1] - (arrangement + register_qubits - 1):
                arrangement = max(left[-1] - register_qubits + 1, 0)
            else:
                arrangement = min(left[0], tile_qubits - register_qubits)
            reached = [bit for bit in left if arrangement <= bit < arrangement + register_qubits]
        covered.append((arrangement, reached))
        left = [bit for bit in left if bit not in reached]
        reached = []
    return covered
