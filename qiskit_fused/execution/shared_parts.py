# SPDX-License-Identifier: Apache-2.0
"""The gates that all rows of a batch share are simulated once: which parts of a circuit they are, when it pays.

The *prefix* is the gates before all angles that differ. It gives one state from which all rows start. In the backward
sweep, the cotangents of all rows are added at its end, since gradients are linear in the cotangent.

The *suffix* is the gates behind these angles, one unitary U. With its 2^n columns, an observable O becomes the matrix
U^+ O U, and a row that reaches the suffix in the state phi has the value <phi|U^+ O U|phi>. The gradient of the suffix
is that of Tr(U^+ O U R), where R is the weighted sum of |phi><phi| over all rows. It takes as many sweeps for any
number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from qiskit_fused.common.caches import BoundedCache
from qiskit_fused.engines.cpu.costs import flops
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.fusion.partition import split

# Costs are counted in flops of a sweep, which runs at about the rate of a matrix product.
FLOPS_PER_COPIED_AMPLITUDE = 150  # the cost of copying one amplitude between an engine and NumPy
SHARE_BELOW = 0.75  # share only if it is estimated to take less than 0.75 of the plain time: times are estimates
MOST_COLUMNS = 1 << 11  # columns of a suffix as a matrix, at most
ROWS_SEARCH_BOUND = 1 << 40  # rows at most, in the search for the number from which on sharing pays
CACHED_DECISIONS = 256  # answers of `Sharing.choose` that are kept for each set of columns
MIN_WORK = 1 << 22  # amplitude-rotations, 1 ms; of less, looking for what is shared costs more than it saves
SPLIT_FACTOR = 64  # times MIN_WORK, 0.1 s; a batch of so much work is split at first sight

ROWS, PREFIX, OBSERVABLE = "nothing", "prefix", "observable"


class Parts(NamedTuple):
    """The parts of a fused program, each a fused program of its own, or None where there is none.

    Attributes:
        prefix: what all rows begin with.
        rest: what follows the prefix; None where this is the whole.
        middle: the rest without the suffix; None where there is no suffix.
        suffix: what all rows end with.
    """

    prefix: FusedProgram | None = None
    rest: FusedProgram | None = None
    middle: FusedProgram | None = None
    suffix: FusedProgram | None = None


class SharedParts:
    """What is kept of a `Sharing`: no reference to its plan, which would keep the plan alive.

    Attributes:
        parts: once they are made.
        modes: answers of `Sharing.choose`.
    """

    def __init__(self) -> None:
        self.parts: Parts | None = None
        self.modes: dict[tuple[int, int, bool, bool, bool], str] = {}


@dataclass(frozen=True, eq=False)
class Sharing:
    """The parts of a plan for a batch in which only some columns differ between rows.

    Attributes:
        plan: the whole, as one row runs it.
        varies: bool (C,), the columns that differ.
        kept: the parts and answers of earlier objects for the same plan and columns.
    """

    plan: FusedProgram
    varies: np.ndarray
    kept: SharedParts = field(default_factory=SharedParts)

    @property
    def _parts(self) -> Parts:
        if self.kept.parts is None:
            self.kept.parts = self._split()
        return self.kept.parts

    def _split(self) -> Parts:
        plan = self.plan
        if plan.num_qubits != plan.program.num_qubits:  # states between parts are of all qubits
            return Parts()
        parts = split(plan.program, self.varies)
        prefix, middle, suffix = (
            None if program is None else fuse_program(program) for program in (parts.prefix, parts.middle, parts.suffix)
        )
        rest = None if prefix is None else fuse_program(parts.rest, plan.support)
        return Parts(prefix, rest, middle, suffix)

    @property
    def prefix(self) -> FusedProgram | None:
        """What all rows begin with, or None."""
        return self._parts.prefix

    @property
    def rest(self) -> FusedProgram:
        """What follows the prefix."""
        return self._parts.rest or self.plan

    @property
    def middle(self) -> FusedProgram | None:
        """The rest without the suffix, or None where there is no suffix."""
        return self._parts.middle

    @property
    def suffix(self) -> FusedProgram | None:
        """What all rows end with, or None."""
        return self._parts.suffix

    def cost(self, mode: str, num_rows: int, num_observables: int, gradient: bool, back: bool = True) -> float:
        """Estimate the flops of a batch, values alone or with the gradient of a weighted sum.

        Args:
            mode: ROWS, every row on its own; PREFIX; or OBSERVABLE, a prefix included where there is one.
            num_rows: B.
            num_observables: K.
            gradient: whether the gradient is wanted.
            back: whether it is wanted of the middle.
        """
        if mode == ROWS:
            return float(num_rows) * flops(self.plan, gradient)
        total, move = 0.0, float(FLOPS_PER_COPIED_AMPLITUDE << self.plan.num_qubits)
        if self.prefix is not None:
            total += _flops(self.prefix, False) + gradient * _flops(self.prefix, True) + 2 * move
        if mode == PREFIX:
            return total + num_rows * (_flops(self.rest, gradient) + (1 + gradient) * move)
        assert self.middle is not None and self.suffix is not None
        size = 1 << self.plan.num_qubits
        total += num_rows * (_flops(self.middle, False) + move)
        total += size * (_flops(self.suffix, False) + 2 * move)
        product = 8.0 * num_observables * (num_rows + size) * size * size
        if gradient:
            total += size * (_flops(self.suffix, True) + 2 * move)
            total += back * num_rows * (_flops(self.middle, True) + 2 * move)
        return total + (1 + gradient) * product

    def choose(
        self, num_rows: int, num_observables: int, gradient: bool, back: bool = True, evolve: bool = True
    ) -> str:
        """Return the mode that takes least, ROWS unless another one is clearly less.

        Args:
            num_rows: see `cost`.
            num_observables: likewise.
            gradient: likewise.
            back: likewise.
            evolve: whether OBSERVABLE may be chosen.
        """
        question = num_rows, num_observables, gradient, back
        key = *question, evolve
        mode = self.kept.modes.get(key)
        if mode is None:
            modes = [ROWS]
            if self.prefix is not None:
                modes.append(PREFIX)
            if evolve and self.suffix is not None and 1 << self.plan.num_qubits <= min(num_rows, MOST_COLUMNS):
                modes.append(OBSERVABLE)
            best = min(modes, key=lambda one: self.cost(one, *question))
            mode = best if self.cost(best, *question) < SHARE_BELOW * self.cost(ROWS, *question) else ROWS
            if len(self.kept.modes) >= CACHED_DECISIONS:
                self.kept.modes.clear()
            self.kept.modes[key] = mode
        return mode

    def rows_for(self, part: str, num_observables: int, gradient: bool) -> int | None:
        """Return from how many rows on the prefix or the suffix is shared, or None where it never is."""

        def is_shared(num_rows: int) -> bool:
            if not may_share(self.plan, num_rows):
                return False
            mode = self.choose(num_rows, num_observables, gradient)
            return mode == OBSERVABLE or (mode == PREFIX and part == "prefix")

        if not is_shared(ROWS_SEARCH_BOUND):
            return None
        few, many = 0, ROWS_SEARCH_BOUND
        while many - few > 1:
            rows = (few + many) // 2
            few, many = (few, rows) if is_shared(rows) else (rows, many)
        return many


_PARTS: BoundedCache[SharedParts] = BoundedCache(128 << 20)  # by plan and columns
_MET: BoundedCache[bool] = BoundedCache(1 << 20)  # sets of columns that `is_worth_splitting` was asked about once


def find_sharing(plan: FusedProgram, varies: np.ndarray) -> Sharing:
    """Return what rows share that differ in some columns of the program only, bool (C,); the parts are made once."""
    key = id(plan), varies.tobytes()
    parts = _PARTS.get(key)
    if parts is None:
        parts = _PARTS.put(key, SharedParts(), 2 * plan.num_bytes, plan)
    return Sharing(plan, varies, parts)


def is_worth_splitting(plan: FusedProgram, varies: np.ndarray, num_rows: int) -> bool:
    """Say whether to ask for `find_sharing` where nobody says which columns differ in every batch.

    Splitting takes as long as many gates. Rows of sparse data differ in other columns each time. So a batch is split
    where its rows are many, or when the same columns differ again.
    """
    if num_rows * plan.num_runs << plan.num_qubits >= SPLIT_FACTOR * MIN_WORK:
        return True
    key = id(plan), varies.tobytes()
    if _MET.get(key):
        return True
    _MET.put(key, True, len(key[1]), plan)
    return False


def may_share(plan: FusedProgram, num_rows: int) -> bool:
    """Say whether rows are worth looking at for what they share."""
    return num_rows > 1 and num_rows * plan.num_runs << plan.num_qubits >= MIN_WORK


def _flops(plan: FusedProgram, gradient: bool) -> int:
    """Count what an engine does for states that go in or come out, which it takes as complex."""
    return flops(plan, gradient, is_real=False)
