# SPDX-License-Identifier: Apache-2.0
"""Straight-line code for the stages of a pass, in the place of ``kernels/cuda/interpreted_stages.cuh``.

The *shape* of a pass is all that the compiler can use: for each stage the arrangement, the rotated bits, masks, signs
and kinds of factors. Numbers and their places stay in the records of the plan, so passes of one shape share a kernel.
Stages that repeat, such as layers, are a loop.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from qiskit_fused.engines.cuda.passes import Passes

# Environment variable: the work of a shape, in amplitudes times stages, above which it is compiled; 1 compiles all.
# Compiling takes some seconds. From a work of 6e12 on, a compiled pass saves more seconds than that on an H200; this
# is an estimate from counts of instructions.
LEAST_WORK = "QISKIT_FUSED_COMPILE_PASSES"
MOST_STAGES = 24  # largest number of stages in the text of a pass; complex64 takes some 22 KiB of machine code for each
_MOST_PERIOD = 24  # largest number of stages that a loop repeats


def least_work() -> float | None:
    """Return the number in the environment variable `LEAST_WORK`, or None, which compiles no passes.

    Raises:
        ValueError: if the variable does not hold a number.
    """
    text = os.environ.get(LEAST_WORK, "").strip()
    try:
        return float(text) if text else None
    except ValueError:
        raise ValueError(f"environment variable {LEAST_WORK} is {text!r}; allowed: a number such as 6e12.") from None


class PieceShape(NamedTuple):
    """The fields of the record of a piece that its code depends on; ``extras`` are (care, value, sign, kind, bit)."""

    register_signs: int
    signs: tuple[int, ...]
    extras: tuple[tuple[int, ...], ...]
    has_z: bool
    has_walsh: bool
    has_direct: bool


class StageShape(NamedTuple):
    """The fields of the record of a stage that its code depends on."""

    arrangement: int
    rotate: int
    sum_x: int
    piece: PieceShape | None


class PassShape(NamedTuple):
    """What the code of a pass depends on: its window, and its stages."""

    window: tuple[int, int]
    stages: tuple[StageShape, ...]


def shape_of(passes: Passes, number: int) -> PassShape:
    """Return the shape of a pass."""
    shapes = []
    for stage in passes.stages[passes.passes[number].stages]:
        piece = None if stage["piece"] < 0 else _piece_shape(passes, int(stage["piece"]))
        shapes.append(StageShape(int(stage["arrangement"]), int(stage["rotate"]), int(stage["sum_x"]), piece))
    low, high = passes.windows[number]
    return PassShape((int(low), int(high)), tuple(shapes))


def _piece_shape(passes: Passes, number: int) -> PieceShape:
    piece = passes.pieces[number]
    extras = passes.extras[piece["first_extra"] : piece["end_extra"]]
    names = ("care", "value", "sign", "kind", "bit")
    masks: tuple[tuple[int, ...], ...] = tuple(tuple(int(extra[name]) for name in names) for extra in extras)
    has = (bool(piece[f"{name}_partial"] >= 0) for name in ("z", "walsh", "direct"))
    return PieceShape(int(piece["register_signs"]), tuple(map(int, piece["signs"])), masks, *has)


class Repetition(NamedTuple):
    """The stages of a pass as ``before`` stages, a loop over ``period`` stages, and ``after`` stages."""

    before: int
    period: int
    after: int

    @property
    def num_stages(self) -> int:
        """Number of stages in the text."""
        return self.before + self.period + self.after


def find_repetition(stages: tuple[StageShape, ...], ends: int) -> Repetition:
    """Return the shortest form of a pass.

    An exchange comes before each stage, so the stages around a loop have the arrangements that the loop has inside.

    Args:
        stages: the shapes of the stages.
        ends: the arrangement before the first stage and after the last stage.
    """
    count, best = len(stages), Repetition(len(stages), 0, 0)
    around = [ends, *(stage.arrangement for stage in stages), ends]  # around[k + 1] is of stage k
    for period in range(1, min(count // 2, _MOST_PERIOD) + 1):
        equal = 0  # number of stages from `first` on that are equal to the stage one period later
        for first in range(count - period - 1, -1, -1):
            equal = equal + 1 if stages[first] == stages[first + period] else 0
            repetitions = equal // period + 1
            if repetitions < 2 or around[first] != around[first + period]:
                continue
            while repetitions > 1 and around[first + repetitions * period + 1] != around[first + 1]:
                repetitions -= 1
            form = Repetition(first, period, count - first - repetitions * period)
            if repetitions > 1 and form.num_stages < best.num_stages:
                best = form
    return best


class CompiledPasses:
    """Says which passes of a plan run straight-line code: those whose shape has much work, over all calls so far.

    Args:
        passes: the passes of the plan.
        least_work: the work of a shape, in amplitudes times stages, that is worth compiling it; None compiles none.
    """

    def __init__(self, passes: Passes, least_work: float | None):
        self._passes, self._least_work = passes, least_work
        self._num_stages = np.array([sweep.stages.stop - sweep.stages.start for sweep in passes.passes], dtype=float)
        self._work, self._texts = 0.0, [""] * len(passes.passes)
        self._shapes: list[PassShape] = []

    def add_work(self, num_amplitudes: int) -> None:
        """Count sweeps over all passes for ``num_amplitudes``, and write the code of shapes that have enough work."""
        self._work += num_amplitudes
        if self._least_work is None or self._work * self._num_stages.sum() < self._least_work:
            return
        if not self._shapes:
            self._shapes = [shape_of(self._passes, number) for number in range(len(self._texts))]
        stages_of = Counter[PassShape]()
        for shape in self._shapes:
            stages_of[shape] += len(shape.stages)
        ends = self._passes.tile_qubits - self._passes.register_qubits
        for number, shape in enumerate(self._shapes):
            if not self._texts[number] and self._work * stages_of[shape] >= self._least_work:
                self._texts[number] = stage_functions(shape, ends)

    def text(self, number: int) -> str:
        """Return the code of the stages of a pass, or "" where the interpreter runs them."""
        return self._texts[number]


@lru_cache(maxsize=256)
def stage_functions(shape: PassShape, ends: int) -> str:
    """Return the text of `forward_stages` and `backward_stages` for a shape; "" where it would be too long.

    Args:
        shape: the shape of the pass.
        ends: the arrangement of loads and stores, t - r.
    """
    stages = shape.stages
    form = find_repetition(stages, ends)
    if not 0 < form.num_stages <= MOST_STAGES:
        return ""
    before, inside = stages[: form.before], stages[form.before : form.before + form.period]
    after = stages[len(stages) - form.after :]
    number = {stage: k for k, stage in enumerate(dict.fromkeys((*before, *inside, *after)))}
    lines = [f'#include "cuda/{name}.cuh"' for name in ("stage_sums", "stages", "sweep_tiles")]
    lines += [line for stage, k in number.items() for line in _stage(stage, k)]
    lines += [
        "__device__ __forceinline__ Window window_of_pass(int, int) {",
        f"    return {{{shape.window[0]}, {shape.window[1]}}};",
        "}",
        "__device__ __forceinline__ void forward_stages(State& psi, const PassData& pass, const Place& here,",
        "                                               Amplitude* tile) {",
        "    int s = 0;",
        "    Real scale = 1;",
        *_steps((before, inside, after), f"s < pass.num_stages - {form.after}", ends, number, "forward"),
        "}",
        "__device__ __forceinline__ void backward_stages(State& psi, State& lam, const PassData& pass,",
        "                                                const Place& here, int row, const BackwardMemory& memory) {",
        "    int s = pass.num_stages - 1;",
        "    Real scale = 1;",
        *_steps((after[::-1], inside[::-1], before[::-1]), f"s >= {form.before}", ends, number, "backward"),
        "}",
    ]
    return "\n".join(lines) + "\n"


_Parts = tuple[tuple[StageShape, ...], tuple[StageShape, ...], tuple[StageShape, ...]]


def _steps(parts: _Parts, condition: str, ends: int, number: dict[StageShape, int], sweep: str) -> Iterator[str]:
    """Yield the lines of a sweep: exchanges and stages, with a loop around the middle part."""
    states, tile, more, step = "psi", "tile", "pass, here, scale", "s++"
    if sweep == "backward":
        states, tile, more, step = "psi, lam", "memory.tile", "pass, here, row, memory, scale", "s--"
    arrangement = ends
    for k, part in enumerate(parts):
        indent = "    " * (1 + (k == 1))
        if k == 1 and part:
            yield "#pragma unroll 1"
            yield f"    while ({condition}) {{"
        for stage in part:
            if stage.arrangement != arrangement:
                yield f"{indent}exchange({states}, {tile}, here, {arrangement}, {stage.arrangement});"
            arrangement = stage.arrangement
            yield f"{indent}{sweep}_stage_{number[stage]}({states}, {step}, {more});"
        if k == 1 and part:
            yield "    }"
    if arrangement != ends:
        yield f"    exchange({states}, {tile}, here, {arrangement}, {ends});"
    for state in states.split(", "):
        yield f"    multiply_all({state}, scale);"


def _stage(stage: StageShape, number: int) -> Iterator[str]:
    """Yield the lines of the two functions of a stage: records whose shape is replaced by literals."""
    piece = stage.piece
    yield f"struct Extras{number} {{"
    yield "    template <class Visit>"
    yield "    __device__ __forceinline__ void for_each(Visit visit) const {"
    for k, (care, value, sign, kind, bit) in enumerate(piece.extras if piece else ()):
        yield f"        visit({k}, Extra{{{care}ull, {value}ull, {sign}ull, 0, 0, 0, {kind}, {bit}}});"
    yield "    }"
    yield "};"
    yield f"__device__ __forceinline__ Stage stage_{number}(const PassData& pass, int s) {{"
    yield "    Stage stage = pass.stages[s];"
    yield f"    stage.arrangement = {stage.arrangement};"
    yield f"    stage.rotate = {stage.rotate};"
    yield f"    stage.sum_x = {stage.sum_x};"
    yield "    stage.piece &= 0x7fffffff;" if piece else "    stage.piece = -1;"
    yield "    return stage;"
    yield "}"
    yield f"__device__ __forceinline__ Piece piece_{number}(const PassData& pass, const Stage& stage) {{"
    if piece is None:
        yield "    return Piece{};"
    else:
        yield "    Piece piece = pass.pieces[stage.piece];"
        yield f"    piece.arrangement = {stage.arrangement};"
        yield f"    piece.register_signs = {piece.register_signs}u;"
        for bit, mask in enumerate(piece.signs):
            yield f"    piece.signs[{bit}] = {mask}ull;"
        for name, has in (("z", piece.has_z), ("walsh", piece.has_walsh), ("direct", piece.has_direct)):
            yield f"    piece.{name}_partial {'&= 0x7fffffff' if has else '= -1'};"
        if not piece.has_direct:
            yield "    piece.end_direct = piece.first_direct;"
        yield "    return piece;"
    yield "}"
    for sweep, states, kinds, inside, more in (
        ("forward", "State& psi", "", "psi, ", ""),
        (
            "backward",
            "State& psi, State& lam",
            "int row, const BackwardMemory& memory, ",
            "psi, lam, s, ",
            "row, memory, ",
        ),
    ):
        yield f"__device__ __forceinline__ void {sweep}_stage_{number}({states}, int s, const PassData& pass,"
        yield f"                                                const Place& here, {kinds}Real& scale) {{"
        yield f"    const Stage stage = stage_{number}(pass, s);"
        yield f"    const Piece piece = piece_{number}(pass, stage);"
        yield f"    {sweep}_stage<true>({inside}stage, piece, Extras{number}{{}}, pass, here, {more}scale);"
        yield "}"
