# SPDX-License-Identifier: Apache-2.0
"""Layout of bound numbers on the device: stored once for all rows, or once per row if their columns vary."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qiskit_fused.engines.cuda import records
from qiskit_fused.engines.cuda.passes import Passes
from qiskit_fused.engines.cuda.records import Source
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.program.program import OpKind


@dataclass(frozen=True, eq=False)
class Slots:
    """The slots of the bound numbers of one plan, for one set of columns that vary.

    The first slots are shared: each is stored once for all rows. The others are stored once per row (``place`` in
    ``kernels/cuda/records.cuh``). Columns have slots too.

    Attributes:
        record: one record of ``records.SLOTS``.
        leaves, runs, terms, items, extras, stages, pieces: records with their slots filled in.
        column_varies: bool (C,), the columns that are stored once per row.
        run_order, term_order, piece_order: int32, the run, term or piece of each slot.
        num_shared_pieces: number of pieces whose tables are the same for all rows.
    """

    record: np.ndarray
    leaves: np.ndarray
    runs: np.ndarray
    terms: np.ndarray
    items: np.ndarray
    extras: np.ndarray
    stages: np.ndarray
    pieces: np.ndarray
    run_order: np.ndarray
    term_order: np.ndarray
    piece_order: np.ndarray
    column_varies: np.ndarray
    num_shared_pieces: int

    def count(self, name: str, num_rows: int) -> int:
        """Return the number of "runs", "terms" or table "entries" that are stored for ``num_rows`` rows."""
        return int(self.record[f"shared_{name}"][0] + num_rows * self.record[f"varying_{name}"][0])

    @property
    def num_varying_pieces(self) -> int:
        """Number of pieces whose tables are stored once per row."""
        return len(self.pieces) - self.num_shared_pieces


def place_slots(plan: FusedProgram, passes: Passes, varies: np.ndarray) -> Slots:
    """Lay out the bound numbers of a plan.

    Args:
        plan: the fused program.
        passes: the passes of the plan.
        varies: bool (C,), columns that differ between rows.
    """
    run_varies, term_varies = _runs_that_vary(plan, varies), _of_columns(varies, plan.term_column)
    column_varies = _stored_per_row(plan, varies)
    column_slot, _ = _shared_first(column_varies)
    run_slot, run_order = _shared_first(run_varies)
    term_slot, term_order = _shared_first(term_varies)

    piece_varies = np.zeros(len(passes.pieces), dtype=bool)
    slots = {}
    for name, of, piece in (
        ("items", passes.item_of, passes.item_piece),
        ("extras", passes.extra_of, passes.extra_piece),
    ):
        part = getattr(passes, name).copy()
        is_term = part["source"] == Source.TERM
        part["slot"][is_term] = term_slot[of[is_term]]
        part["slot"][~is_term] = run_slot[of[~is_term]]
        piece_varies[piece[is_term][term_varies[of[is_term]]]] = True
        piece_varies[piece[~is_term][run_varies[of[~is_term]]]] = True
        slots[name] = part
    stages = passes.stages.copy()
    rotated = passes.stage_run >= 0
    stages["slot"][rotated] = run_slot[passes.stage_run[rotated]]

    _, piece_order = _shared_first(piece_varies)
    pieces = passes.pieces.copy()
    ends = np.cumsum(passes.piece_entries[piece_order])
    pieces["table"][piece_order] = ends - passes.piece_entries[piece_order]
    shared_entries = int(passes.piece_entries[~piece_varies].sum())

    record = np.zeros(1, dtype=records.SLOTS)
    for name, varying in (("runs", run_varies), ("terms", term_varies), ("columns", column_varies)):
        record[f"shared_{name}"], record[f"varying_{name}"] = (~varying).sum(), varying.sum()
    record["shared_entries"] = shared_entries
    record["varying_entries"] = int(passes.piece_entries.sum()) - shared_entries
    return Slots(
        record=record,
        runs=_runs(plan, passes, run_slot),
        leaves=_leaves(plan, column_slot),
        terms=_terms(plan, term_slot, column_slot),
        stages=stages,
        pieces=pieces,
        run_order=run_order,
        term_order=term_order,
        piece_order=piece_order,
        column_varies=column_varies,
        num_shared_pieces=int((~piece_varies).sum()),
        **slots,
    )


def leaf_records(plan: FusedProgram) -> tuple[np.ndarray, int]:
    """Return the leaves as records, and their number of gradients: 3 for a rotation vector, 1 for any other angle.

    A leaf with a constant angle has no gradient.
    """
    leaves = np.zeros(len(plan.leaf_kind), dtype=records.LEAF)
    for name in ("coefficient", "offset", "quaternion", "kind", "column"):
        leaves[name] = getattr(plan, f"leaf_{name}")
    size = np.where(plan.leaf_column < 0, 0, np.where(plan.leaf_kind == OpKind.RV, 3, 1))
    leaves["output"] = np.where(size > 0, np.cumsum(size) - size, -1)
    return leaves, int(size.sum())


def _leaves(plan: FusedProgram, column_slot: np.ndarray) -> np.ndarray:
    leaves, _ = leaf_records(plan)
    leaves["column"] = np.append(column_slot, -1)[leaves["column"]]
    return leaves


def _stored_per_row(plan: FusedProgram, varies: np.ndarray) -> np.ndarray:
    """Return bool (C,): the columns that vary. The three columns of a rotation vector stay neighbours.

    If one of the three columns varies, all of them are stored once per row.
    """
    stored = varies.copy()
    vectors = np.unique(plan.leaf_column[plan.leaf_kind == OpKind.RV])[:, None] + np.arange(3)
    while True:
        mixed = vectors[stored[vectors].any(axis=1) & ~stored[vectors].all(axis=1)]
        if not len(mixed):
            return stored
        stored[mixed] = True


def _runs_that_vary(plan: FusedProgram, varies: np.ndarray) -> np.ndarray:
    if not plan.num_runs:
        return np.zeros(0, dtype=bool)
    leaf = _of_columns(varies, plan.leaf_column)
    vectors = np.flatnonzero(plan.leaf_kind == OpKind.RV)
    for k in (1, 2):
        leaf[vectors] |= varies[plan.leaf_column[vectors] + k]
    return np.add.reduceat(leaf, plan.run_begin[:-1]) > 0


def _of_columns(varies: np.ndarray, column: np.ndarray) -> np.ndarray:
    return np.append(varies, False)[column]  # column -1 is a constant


def _shared_first(varies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(varies, kind="stable").astype(np.int32)
    slot = np.empty_like(order)
    slot[order] = np.arange(len(order), dtype=np.int32)
    return slot, order


def _runs(plan: FusedProgram, passes: Passes, slot: np.ndarray) -> np.ndarray:
    runs = np.zeros(plan.num_runs, dtype=records.RUN)
    runs["first_leaf"], runs["end_leaf"], runs["slot"] = plan.run_begin[:-1], plan.run_begin[1:], slot
    runs["only_rx"] = plan.single_axis & (plan.leaf_kind[plan.run_begin[:-1]] == OpKind.RX)
    for axis, name in enumerate(("sum_x", "sum_y", "sum_z", "sum_z_after")):
        runs[name] = passes.run_sums[:, axis]
    return runs


def _terms(plan: FusedProgram, slot: np.ndarray, column_slot: np.ndarray) -> np.ndarray:
    terms = np.zeros(len(plan.term_column), dtype=records.TERM)
    terms["coefficient"], terms["offset"] = plan.term_coefficient, plan.term_offset
    terms["column"], terms["slot"] = np.append(column_slot, -1)[plan.term_column], slot
    return terms
