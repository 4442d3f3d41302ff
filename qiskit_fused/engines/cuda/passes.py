# SPDX-License-Identifier: Apache-2.0
"""FusedProgram -> passes: the work of the CUDA kernels, as records of ``kernels/cuda/records.cuh``.

A *pass* takes every tile of a window through *stages*. A stage is an exchange between threads, a *piece* of a phase,
and rotations of register qubits. The exchange brings r neighbouring window qubits into the registers of each thread;
the lowest of their bits is the *arrangement*. `phase_parts` sorts the parts of a piece by the arrangement of its stage.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qiskit_fused.common.bits import bits_of
from qiskit_fused.engines.cuda import records
from qiskit_fused.engines.cuda.phase_parts import Part, Parts, mean, walsh_series
from qiskit_fused.engines.cuda.records import Source
from qiskit_fused.engines.cuda.tiling import Step, Window, WindowRuns, arrangement_of, make_windows
from qiskit_fused.fusion.fused_program import FusedProgram


@dataclass(frozen=True, eq=False)
class Pass:
    """One sweep over the state.

    Attributes:
        stages: slice of the stages of all passes.
        outputs: slice of the outputs of all passes; an output adds the sums of all tiles to a total.
        num_partials: number of sums that every tile stores.
    """

    stages: slice
    outputs: slice
    num_partials: int


@dataclass(frozen=True, eq=False)
class Passes:
    """A fused program as passes over tiles of 2^t amplitudes, 2^r of them in the registers of each thread.

    Attributes:
        tile_qubits, register_qubits: t and r.
        num_address_bits: N = max(n, t); address bits n, n + 1, ... are always 0.
        passes: the passes in forward order.
        windows: the address bits of the tile of each pass.
        stages, pieces, items, extras, directs, outputs: records of all passes, one pass after the other.
        masks: uint32, Walsh masks over tile indices.
        stage_run: int32 (stages, 4), run that rotates each register bit, -1 for none.
        item_of, extra_of: int32, for each item or extra, the index of the term or run whose angle it takes.
        item_piece, extra_piece: int32, for each item or extra, the index of its piece.
        piece_entries: int64, number of entries of the tables of each piece.
        run_sums: int32 (R, 4), for each run the indices of four totals: Im<lam|X|psi>, Im<lam|Y|psi> and Im<lam|Z|psi>
            before its rotation, and Im<lam|Z|psi> after it; -1 for a total that no gradient needs.
        term_sums: three arrays of equal length, term int32, total int32 and weight float64. The gradient of a term is
            the sum of weight times total over its entries.
        num_totals: number of totals per row and observable.
    """

    tile_qubits: int
    register_qubits: int
    num_address_bits: int
    passes: list[Pass]
    windows: list[WindowRuns]
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
        """Number of tiles of a state."""
        return 1 << (self.num_address_bits - self.tile_qubits)


def make_passes(fused: FusedProgram, tile_qubits: int, register_qubits: int, is_real: bool = False) -> Passes:
    """Cut a fused program into passes.

    Args:
        fused: the fused program.
        tile_qubits: largest t; a smaller state has one tile of fewer qubits.
        register_qubits: r.
        is_real: whether amplitudes are real numbers, see `FusedProgram.is_real`; then sums of X and Z are 0.

    Cost: O(gates) Python operations, once per fused program.
    """
    t = max(min(fused.num_qubits, tile_qubits), register_qubits)
    builder = _PassBuilder(fused, t, register_qubits, is_real)
    for window in make_windows(fused, t, register_qubits):
        builder.add(window)
    return builder.finish()


class _PassBuilder:
    """Appends the records of one window after the other.

    The lists from ``passes`` to ``term_sums`` become the attributes of `Passes` with the same names. The other
    attributes are read from the fused program, or describe the window that is being added.

    Attributes:
        t, r: number of tile qubits and of register qubits.
        item_of, extra_of: for each item or extra, the index of its term or run, and the index of its piece.
        trained: for each run, the number of its gates whose angle has a column.
        needs_all: for each run, whether its gradients need the sums of X, Y and Z; other runs need Y or no sum.
        due: for each qubit, the run whose last factor Rz(phi) has still to be applied, or -1.
        local: for each qubit, its bit in the window that is being added: tile bits first, then bits of the tile number.
        num_partials: number of sums that each tile of this window stores so far.
    """

    def __init__(self, fused: FusedProgram, tile_qubits: int, register_qubits: int, is_real: bool):
        self.fused, self.t, self.r = fused, tile_qubits, register_qubits
        self.passes: list[Pass] = []
        self.windows: list[WindowRuns] = []
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
        self.num_partials = 0

    def add(self, window: Window) -> None:
        """Append the pass of a window."""
        held = [*window.qubits, *range(self.fused.num_qubits, self.t)]
        outside = [q for q in range(self.fused.num_qubits) if q not in window.qubits]
        self.local = {qubit: bit for bit, qubit in enumerate([*held, *outside])}
        self.windows.append(WindowRuns.of(held))
        self.num_partials = 0
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
        self.passes.append(Pass(stages, outputs, self.num_partials))

    def _partials(self, count: int) -> int:
        """Reserve ``count`` sums in every tile of the window and return the index of the first one."""
        self.num_partials += count
        return self.num_partials - count

    def _total(self, partial: int, outside: int = 0) -> int:
        """Add an output: the total of a sum over all tiles, each with the sign (-1)^popcount(tile number & outside)."""
        self.outputs.append((outside, partial, len(self.outputs)))
        return len(self.outputs) - 1

    def _stage(self, arrangement: int, piece: int, runs: list[tuple[int, int]]) -> None:
        """Append a stage: a piece, or -1 for none, then rotations; ``runs`` are pairs of a register bit and its run."""
        rotate = sum(1 << bit for bit, _ in runs)
        sum_x = sum(1 << bit for bit, run in runs if self.needs_all[run])
        y_partial = self._partials(self.r) if runs else 0
        x_partial = self._partials(self.r) if sum_x else 0
        of_bit = [-1] * records.MAX_REGISTER_QUBITS
        for bit, run in runs:
            of_bit[bit] = run
            if self.trained[run]:
                self.run_sums[run, 1] = self._total(y_partial + bit)
                if sum_x >> bit & 1:
                    self.run_sums[run, 0] = self._total(x_partial + bit)
        self.stages.append((arrangement, piece, rotate, sum_x, y_partial, x_partial, (0,) * len(of_bit)))
        self.stage_run.append(of_bit)

    def _piece(self, step: Step, arrangement: int) -> int:
        """Append the piece of a step, and return its index: the terms, and the Rz before and after the runs."""
        parts = Parts(arrangement, self.t, self.r)
        z_uses: list[tuple[int, int, int]] = []  # (bit, run, column of `run_sums`) of each Z sum that a run needs
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
        """Append the parts of a piece, and return the fields of its record that refer to them."""
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
        """Return the masks (care, value, sign) of a term over local bits."""
        care, value, sign = self.term_masks[term]
        moved = [0, 0, 0]
        for qubit in bits_of(care | sign):
            bit = self.local[qubit]
            for k, mask in enumerate((care, value, sign)):
                moved[k] |= (mask >> qubit & 1) << bit
        return moved[0], moved[1], moved[2]

    def _sums(self, step: Step, z_uses: list[tuple[int, int, int]]) -> dict[str, int]:
        """Plan the sums of p = Im(conj(lam) psi) over a tile that the gradients of a piece need.

        There are three kinds of sums. A *Z sum* has the sign of one bit of the tile, or no sign. A *Walsh sum* has the
        sign of the parity of several bits. A *direct sum* is over the amplitudes that a term acts on, with the sign of
        the term. A kernel computes either all t + 1 Z sums of a tile or none, and the Walsh and direct sums that the
        record of the piece lists.

        Args:
            step: the step with the terms of the piece.
            z_uses: (bit, run, column of `run_sums`) of each Z sum that a run needs.

        Returns:
            The fields of the record of the piece that say which sums it has and where they are stored.
        """
        strings, direct = self._strings(step)
        strings = {(1 << bit, 0): list[tuple[int, float]]() for bit, _, _ in z_uses} | strings
        insides = {inside for inside, _ in strings}
        long = sorted(inside for inside in insides if inside & (inside - 1))
        fields = {"first_walsh": len(self.masks), "first_direct": len(self.directs)}
        self.masks += long
        self.directs += [self._local_masks(term) for term in direct]
        fields |= {"end_walsh": len(self.masks), "end_direct": len(self.directs)}
        z_partial = self._partials(self.t + 1) if direct or len(long) < len(insides) else -1
        walsh_partial = self._partials(len(long)) if long else -1
        direct_partial = self._partials(len(direct)) if direct else -1
        partial_of = {0: z_partial + self.t} | {1 << bit: z_partial + bit for bit in range(self.t)}
        partial_of |= {inside: walsh_partial + k for k, inside in enumerate(long)}
        totals = {}
        for (inside, outside), uses in strings.items():
            total = totals[inside, outside] = self._total(partial_of[inside], outside)
            self.term_sums += [(term, total, weight) for term, weight in uses]
        for bit, run, which in z_uses:
            self.run_sums[run, which] = totals[1 << bit, 0]
        if direct:
            mean_total = self._total(partial_of[0])
            for k, term in enumerate(direct):
                self.term_sums.append((term, self._total(direct_partial + k), 1.0))
                self.term_sums.append((term, mean_total, -mean(*self._local_masks(term))))
        return fields | {"z_partial": z_partial, "walsh_partial": walsh_partial, "direct_partial": direct_partial}

    def _strings(self, step: Step) -> tuple[dict[tuple[int, int], list[tuple[int, float]]], list[int]]:
        """Return the Z strings whose sums give the gradients of terms, and the terms that need too many strings.

        Returns:
            A dictionary that maps each string to the terms that use it, with their weights, and a list of the other
            terms. A string is a mask of tile bits and a mask of bits of the tile number.
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
            windows=self.windows,
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
    """Choose arrangements, from the current one on, that bring all ``bits`` of the tile into registers.

    Returns:
        (arrangement, bits) of each stage. The first stage has the bits that are in registers already. The others start
        from the nearer end of the remaining bits, so that successive layers visit the groups of bits to and fro.
    """
    groups: dict[int, list[int]] = {}
    for bit in sorted(bits):
        groups.setdefault(arrangement_of(bit, tile_qubits, register_qubits), []).append(bit)
    others = [first for first in groups if first != arrangement]
    if others and arrangement - others[0] >= others[-1] - arrangement:
        others.reverse()
    return [(first, groups[first]) for first in ([arrangement] if arrangement in groups else []) + others]
