# SPDX-License-Identifier: Apache-2.0
"""FusedProgram -> layout: the parts of a picture and their places, as data; `draw` renders it.

Columns are phases and layers in turn, in the order in which an engine sweeps over them. The middle of a deep circuit is
left out, and the picture counts the omitted columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from qiskit_fused.common.bits import bits_of
from qiskit_fused.common.text import count_text
from qiskit_fused.engines.checkpointing import BACK, schedule_of
from qiskit_fused.fusion.dense_gates import rotations_and_terms
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.inspection.drawing.marks import DENSE, MAP, OFF, ON, SIGN, DenseMark, RunMark, TermMark
from qiskit_fused.inspection.drawing.run_labels import count_words, label_meanings, run_label
from qiskit_fused.inspection.drawing.sweeps import CpuSweeps, CudaSweeps, SweepPart
from qiskit_fused.inspection.explanation import fused_text
from qiskit_fused.options.method import REVERSE, Method

_MOST_PLACES = 6  # largest number of marks side by side in a phase; a phase with more marks is drawn as one box
_MOST_WIRES = 4  # up to 4 qubits that are not simulated have a line each; more such qubits share one line
_DETAILED_QUBITS = 10  # largest number of simulated qubits for which runs name their gates


@dataclass(frozen=True)
class Column:
    """One column of the picture: a phase, or the rotations of a layer.

    Attributes:
        kind: "phase" or "layer".
        number: index of the phase or layer; for a GPU, of the step.
        sweep: number of the sweep, 1, 2, ...
        window: bits that a tile of the sweep holds.
        terms: marks of the terms of a phase.
        runs: marks of the runs of a layer.
        dense: marks of the dense gates and the linear map of a layer.
        blocks: bits rotated together in registers; spans of the same layer do not overlap.
        is_kept: whether the state before the column is kept for the backward pass.
        is_recomputed: whether the step of the column is executed again for the backward pass.
    """

    kind: str
    number: int
    sweep: int
    window: tuple[int, ...]
    terms: tuple[TermMark, ...] = ()
    runs: tuple[RunMark, ...] = ()
    dense: tuple[DenseMark, ...] = ()
    blocks: tuple[tuple[int, ...], ...] = ()
    is_kept: bool = False
    is_recomputed: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether the column is a phase without terms; it is not drawn if a layer of the same sweep follows."""
        return self.kind == "phase" and not self.terms

    @property
    def spans(self) -> list[tuple[int, int]]:
        """First and last bit of each block; a block is cut in two at bits outside the window."""
        places = {bit: place for place, bit in enumerate(self.window)}
        spans = []
        for block in self.blocks:
            first = block[0]
            for before, bit in pairwise(block):
                if bit - before != places[bit] - places[before]:
                    spans.append((first, before))
                    first = bit
            spans.append((first, block[-1]))
        return spans

    @property
    def num_places(self) -> int:
        """Number of marks side by side."""
        return 1 + max((mark.place for mark in self.terms), default=-1)


@dataclass(frozen=True)
class Gap:
    """The columns that are left out.

    Attributes:
        at: index of the column after the gap.
        steps: number of layers or steps left out.
        unit: name of a step, "layer" or "step".
        rotations, dense, terms, sweeps: numbers of rotations, dense gates and linear maps, terms and whole sweeps left
            out.
        states: number of kept states left out.
    """

    at: int
    steps: int
    unit: str
    rotations: int
    dense: int
    terms: int
    sweeps: int
    states: int

    def __str__(self) -> str:
        parts = (
            ("rotation", self.rotations),
            ("dense gate or map", self.dense),
            ("term", self.terms),
            ("sweep", self.sweeps),
            ("kept state", self.states),
        )
        counts = [count_text(number, noun) for noun, number in parts if number]
        return f"{count_text(self.steps, self.unit)} more: {', '.join(counts)}"


@dataclass(frozen=True)
class Wire:
    """A line of the picture: one qubit, or several qubits that are not simulated.

    Attributes:
        start, end: names of the qubit before the first and after the last gate; they differ if swaps renamed it. The
            line of a qubit that is not simulated has no end name.
        bit: bit of the qubit in the fused program, -1 if it is not simulated.
        is_cut: whether some sweeps cut the state into chunks along the qubit.
        why: the reason why the qubit is not simulated.
    """

    start: str
    end: str
    bit: int = -1
    is_cut: bool = False
    why: str = ""


@dataclass(frozen=True)
class Layout:
    """A picture of a plan as data.

    Attributes:
        title: two lines: the size of the fused program, and its sweeps.
        wires: from top to bottom: simulated qubits by bit, then the others.
        columns: from left to right.
        gap: the columns that are left out, or None.
        num_start_sweeps: number of first sweeps, which write the product state of |0...0> after layer 0.
        method: method of the backward pass.
        keeps_end: whether the final state is kept for the backward pass.
        unit: the unit that `Column.number` counts: "layer" or "step".
    """

    title: tuple[str, str]
    wires: tuple[Wire, ...]
    columns: tuple[Column, ...]
    gap: Gap | None
    num_start_sweeps: int
    method: Method
    keeps_end: bool
    unit: str

    @property
    def is_detailed(self) -> bool:
        """Whether runs name their gates; with many qubits they show only the number of gates."""
        return len(self.bits) <= _DETAILED_QUBITS

    @property
    def bits(self) -> tuple[Wire, ...]:
        """The wires of simulated qubits, by bit."""
        return tuple(wire for wire in self.wires if wire.bit >= 0)

    def label(self, run: RunMark) -> str:
        """Return the text on a run: its gates, or their number."""
        return run.label if self.is_detailed else str(run.num_gates)

    def legend(self) -> dict[str, str]:
        """Return the legend: the meaning of each symbol that occurs in this picture."""
        terms = [mark for column in self.columns for mark in column.terms]
        symbols = {symbol for mark in terms for symbol in mark.symbols}
        labels = " ".join(self.label(run) for column in self.columns for run in column.runs)
        over = "tiles of these qubits" if self.unit == "step" else "the state"
        counts = sorted({run.num_gates for column in self.columns for run in column.runs})
        number = 0 if self.is_detailed or not counts else 2 if 2 in counts else counts[0]
        has_runs = any(column.runs for column in self.columns)
        dense = {symbol for column in self.columns for mark in column.dense for symbol in mark.symbols}
        entries = [
            ("run", has_runs, "run: gates fused to one rotation"),
            *((word, True, meaning) for word, meaning in label_meanings(labels)),
            (str(number), number > 0, f"a run of {count_words(number)}"),
            ("block", any(len(block) > 1 for column in self.columns for block in column.blocks),
             "block: rotated together in registers"),
            ("box", any(mark.is_box for mark in terms), "all diagonal terms of a phase"),
            (DENSE, DENSE in dense, "dense gate: a constant matrix on these qubits"),
            (f"[{MAP}]", MAP in dense, "linear map: CX gates on these qubits, which move amplitudes"),
            (f"[{ON}]", ON in dense, "control of a dense gate that acts where this is 1"),
            (f"[{OFF}]", OFF in dense, "control of a dense gate that acts where this is 0"),
            (ON, ON in symbols, "diagonal term: a phase where all of these are 1"),
            (OFF, OFF in symbols, "diagonal term: a phase where these are 0"),
            (SIGN, SIGN in symbols, "diagonal term: phases of opposite sign for 0 and 1"),
            ("sweep", bool(self.columns), f"sweep: one pass over {over}"),
            ("cut", any(wire.is_cut for wire in self.wires), "chunk qubit: some sweeps are cut along it"),
            ("kept", self.keeps_end or any(column.is_kept for column in self.columns), "state kept for the way back"),
            ("recomputed", any(column.is_recomputed for column in self.columns), "made again on the way back"),
        ]  # fmt: skip
        return {name: text for name, present, text in entries if present}

    def sweeps(self) -> Iterator[tuple[int, int]]:
        """Yield begin and end of the columns of each sweep shown; a sweep that the gap cuts is yielded in two parts."""
        edges = [0] if self.columns else []
        for k, (before, column) in enumerate(pairwise(self.columns), start=1):
            if column.sweep != before.sweep or (self.gap is not None and k == self.gap.at):
                edges.append(k)
        yield from pairwise([*edges, len(self.columns)])


def make_layout(
    fused: FusedProgram,
    *,
    device: str = "cpu",
    dtype: str = "complex128",
    method: Method = REVERSE,
    max_layers: int = 6,
) -> Layout:
    """Lay out the picture of a fused program.

    Args:
        fused: the fused program.
        device: "cpu" or "cuda": the engine whose sweeps and blocks are shown.
        dtype: number format of the amplitudes; blocks and windows depend on it.
        method: method of the backward pass, which decides on the kept states.
        max_layers: largest number of layers (for "cuda", of steps) shown, at least 2. If there are more, the first and
            the last ones are shown.

    Cost: O(columns shown) for "cpu", the cost of `make_windows` for "cuda".
    """
    if device == "cuda":
        fused = rotations_and_terms(fused)
    sweeps = CudaSweeps(fused, dtype) if device == "cuda" else CpuSweeps(fused, dtype)
    kept = _kept_positions(method, sweeps.num_positions)
    kept_before = {sweeps.step_after(position) for position in kept}
    count = sweeps.num_steps if fused.num_qubits else 0
    shown = list(range(count))
    if count > max_layers + 1:
        shown = [*range((max_layers + 1) // 2), *range(count - 1 - max_layers // 2, count)]
    columns: list[Column] = []
    gap_at = None
    for place, k in enumerate(shown):
        if place and shown[place - 1] != k - 1:
            gap_at = len(columns)
        for part in sweeps.parts(k):
            again = bool(kept) and sweeps.end(k) not in kept_before
            columns += _columns(fused, k, part, is_kept=k in kept_before, is_recomputed=again)
    gap = None
    if gap_at is not None:
        gap = Gap(
            at=gap_at,
            steps=count - len(shown),
            unit=sweeps.unit,
            rotations=fused.num_runs - sum(len(column.runs) for column in columns),
            dense=len(fused.dense_layer) + len(fused.map_layer) - sum(len(column.dense) for column in columns),
            terms=len(fused.term_phase) - sum(len(mark.terms) for column in columns for mark in column.terms),
            sweeps=sweeps.num_sweeps - len({column.sweep for column in columns}),
            states=len(kept) - len(kept_before.intersection([*shown, count])),
        )
    runs = f"{count_text(sweeps.num_sweeps, 'sweep')} forward, as many back{sweeps.where}"
    if method.name != "reverse":
        runs += f"; method={method.name!r} keeps {len(kept):,} of {sweeps.num_positions:,} states"
    return Layout(
        title=(f"{count_text(fused.num_qubits, 'qubit')}: {fused_text(fused)}", runs),
        wires=tuple(_wires(fused, sweeps.cut_from)),
        columns=tuple(columns),
        gap=gap,
        num_start_sweeps=sweeps.num_start_sweeps,
        method=method,
        keeps_end=count in kept_before,
        unit=sweeps.unit,
    )


def _columns(
    fused: FusedProgram, number: int, part: SweepPart, *, is_kept: bool, is_recomputed: bool
) -> Iterator[Column]:
    if part.terms is not None:
        yield Column(
            "phase",
            number,
            part.sweep,
            part.window,
            terms=_term_marks(fused, part.terms),
            is_kept=is_kept,
            is_recomputed=is_recomputed,
        )
    if part.blocks or part.dense or part.maps:
        yield Column(
            "layer",
            number,
            part.sweep,
            part.window,
            runs=tuple(_run_mark(fused, run) for block in part.blocks for run in block),
            dense=(*[_dense_mark(fused, gate) for gate in part.dense], *[_map_mark(fused, k) for k in part.maps]),
            blocks=tuple(tuple(int(fused.run_qubit[run]) for run in block) for block in part.blocks),
            is_recomputed=is_recomputed,
        )


def _kept_positions(method: Method, num_positions: int) -> set[int]:
    """Return the positions whose states are in memory when the backward pass begins."""
    schedule = schedule_of(method, num_positions)
    if schedule is None:
        return set()
    forward = schedule.actions[: np.argmax(schedule.actions[:, 0] == BACK)]
    return set(dict(zip(forward[:, 3].tolist(), forward[:, 1].tolist())).values())


def _term_marks(fused: FusedProgram, terms: Sequence[int]) -> tuple[TermMark, ...]:
    """Return one mark for the terms with the same masks; one box for all, if more than `_MOST_PLACES` overlap."""
    care, value, sign = fused.term_care, fused.term_value, fused.term_sign
    together: dict[tuple[int, int, int], list[int]] = {}
    for term in terms:
        together.setdefault((int(care[term]), int(value[term]), int(sign[term])), []).append(term)
    marks: list[TermMark] = []
    ends: list[int] = []  # for each place, the last bit of its last mark
    supports = {masks: bits_of(masks[0] | masks[2]) for masks in together}
    for masks, bits in sorted(supports.items(), key=lambda item: (len(item[1]) > 1, item[1])):
        symbols = "".join(SIGN if masks[2] >> bit & 1 else ON if masks[1] >> bit & 1 else OFF for bit in bits)
        place = next((k for k, end in enumerate(ends) if end < bits[0]), len(ends))
        ends[place : place + 1] = [bits[-1]]
        marks.append(
            TermMark(tuple(together[masks]), tuple(bits), symbols, place, _has_parameter(fused, together[masks]))
        )
    if len(ends) <= _MOST_PLACES:
        return tuple(marks)
    bits = sorted({bit for mark in marks for bit in mark.bits})
    return (TermMark(tuple(terms), tuple(bits), "", 0, _has_parameter(fused, terms)),)


def _has_parameter(fused: FusedProgram, terms: Sequence[int]) -> bool:
    return bool((fused.term_column[terms] >= 0).any())


def _run_mark(fused: FusedProgram, run: int) -> RunMark:
    leaves = range(int(fused.run_begin[run]), int(fused.run_begin[run + 1]))
    has_parameter = bool((fused.leaf_column[leaves.start : leaves.stop] >= 0).any())
    return RunMark(run, int(fused.run_qubit[run]), len(leaves), run_label(fused, leaves), has_parameter)


def _dense_mark(fused: FusedProgram, gate: int) -> DenseMark:
    targets, care, value = (int(masks[gate]) for masks in (fused.dense_targets, fused.dense_care, fused.dense_value))
    bits = bits_of(targets | care)
    symbols = [DENSE if targets >> bit & 1 else ON if value >> bit & 1 else OFF for bit in bits]
    return DenseMark(tuple(bits), "".join(symbols))


def _map_mark(fused: FusedProgram, number: int) -> DenseMark:
    columns = fused.map_columns[fused.map_number[number]]
    moved = columns ^ (np.uint64(1) << np.arange(fused.num_qubits, dtype=np.uint64))
    bits = sorted({*np.flatnonzero(moved).tolist(), *bits_of(int(np.bitwise_or.reduce(moved)))})
    return DenseMark(tuple(bits), MAP * len(bits))


def _wires(fused: FusedProgram, cut_from: int) -> Iterator[Wire]:
    program = fused.program
    start, end = (
        {wire: qubit for qubit, wire in enumerate(wires.tolist())} for wires in (program.wires, program.output_wires)
    )
    others = dict.fromkeys(np.flatnonzero(program.wires < 0).tolist(), "no gate acts on it")
    for bit, wire in sorted(zip(fused.start_bits.tolist(), range(program.num_qubits))):
        if bit >= 0:
            yield Wire(f"q{start[wire]}", f"q{end[wire]}", bit, is_cut=bit >= cut_from)
        else:
            others[start[wire]] = "no observable sees it"
    if len(others) <= _MOST_WIRES:
        yield from (Wire(f"q{qubit}", "", why=others[qubit]) for qubit in sorted(others))
        return
    idle = sum(why == "no gate acts on it" for why in others.values())
    counts = [(len(others) - idle, "that no observable sees"), (idle, "that no gate acts on")]
    yield Wire("others", "", why=", ".join(f"{count} {which}" for count, which in counts if count))
