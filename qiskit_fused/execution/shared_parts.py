# SPDX-License-Identifier: Apache-2.0
"""What the rows of a batch have in common is simulated once: which part of a plan that is, and when it pays.

The *prefix*, what comes before all angles that differ, gives one state that all rows start from; going back, the
cotangents of all rows are added where they meet it, since gradients are linear in the cotangent. The *suffix*, what
comes after them, is one unitary U: with 2^n columns of it, an observable becomes the matrix U^+ O U, and a row that
reaches the suffix in phi has the value <phi|U^+ O U|phi>. Its gradient is that of Tr(U^+ O U R), R the weighted sum of
|phi><phi| over all rows: as many sweeps for any number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from qiskit_fused.common.limits import count_text
from qiskit_fused.fusion.layers import make_plan
from qiskit_fused.fusion.partition import split

if TYPE_CHECKING:
    from qiskit_fused.fusion.fused_program import Plan

# In flops of a sweep, which runs at about the rate of a matrix product:
_MOVE = 150  # of an amplitude into an engine or out of it
_GAIN = 0.75  # of the time without; less is not worth it, since times are estimates
_MOST_COLUMNS = 1 << 11  # of a suffix as a matrix
_MOST_ROWS = 1 << 40  # that anybody has
_KEPT = 256  # answers
MIN_WORK = 1 << 22  # amplitude-rotations, 1 ms; of less, looking for what is shared costs more than it saves

ROWS, PREFIX, OBSERVABLE = "nothing", "prefix", "observable"


class SharedParts:
    """What is kept of a `Sharing`: no reference to its plan, which would keep the plan alive.

    Attributes:
        plans: prefix, rest, middle and suffix; no rest where it is the whole plan.
        chosen: answers of `Sharing.choose`.
    """

    def __init__(self) -> None:
        self.plans: tuple[Plan | None, Plan | None, Plan | None, Plan | None] | None = None
        self.chosen: dict[tuple[int, int, bool, bool, bool], str] = {}


@dataclass(frozen=True, eq=False)
class Sharing:
    """The parts of a plan for a batch in which only some columns differ between rows.

    Attributes:
        plan: the whole, as one row runs it.
        varies: bool (C,), the columns that differ.
        kept: what earlier objects for the same plan and columns have found.
    """

    plan: Plan
    varies: np.ndarray
    kept: SharedParts = field(default_factory=lambda: SharedParts())

    @property
    def _parts(self) -> tuple[Plan | None, Plan | None, Plan | None, Plan | None]:
        if self.kept.plans is None:
            self.kept.plans = self._split()
        return self.kept.plans

    def _split(self) -> tuple[Plan | None, Plan | None, Plan | None, Plan | None]:
        plan = self.plan
        if plan.num_qubits != plan.program.num_qubits:  # states between parts are of all qubits
            return None, None, None, None
        parts = split(plan.program, self.varies)
        prefix, middle, suffix = (
            None if program is None else make_plan(program) for program in (parts.prefix, parts.middle, parts.suffix)
        )
        return prefix, None if prefix is None else make_plan(parts.rest, plan.support), middle, suffix

    @property
    def prefix(self) -> Plan | None:
        """What all rows begin with, or None."""
        return self._parts[0]

    @property
    def rest(self) -> Plan:
        """What follows the prefix."""
        return self._parts[1] or self.plan

    @property
    def middle(self) -> Plan | None:
        """The rest without the suffix, or None where there is no suffix."""
        return self._parts[2]

    @property
    def suffix(self) -> Plan | None:
        """What all rows end with, or None."""
        return self._parts[3]

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
            return float(num_rows) * self.plan.flops(gradient)
        total, move = 0.0, float(_MOVE << self.plan.num_qubits)
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
        known = self.kept.chosen.get(key)
        if known is None:
            modes = [ROWS]
            if self.prefix is not None:
                modes.append(PREFIX)
            if evolve and self.suffix is not None and 1 << self.plan.num_qubits <= min(num_rows, _MOST_COLUMNS):
                modes.append(OBSERVABLE)
            best = min(modes, key=lambda mode: self.cost(mode, *question))
            known = best if self.cost(best, *question) < _GAIN * self.cost(ROWS, *question) else ROWS
            if len(self.kept.chosen) >= _KEPT:
                self.kept.chosen.clear()
            self.kept.chosen[key] = known
        return known

    def rows_for(self, part: str, num_observables: int, gradient: bool) -> int | None:
        """Return from how many rows on the prefix or the suffix is shared, or None where it never is."""

        def is_shared(num_rows: int) -> bool:
            if not may_share(self.plan, num_rows):
                return False
            mode = self.choose(num_rows, num_observables, gradient)
            return mode == OBSERVABLE or (mode == PREFIX and part == "prefix")

        if not is_shared(_MOST_ROWS):
            return None
        few, many = 0, _MOST_ROWS
        while many - few > 1:
            rows = (few + many) // 2
            few, many = (few, rows) if is_shared(rows) else (rows, many)
        return many

    def lines(self, num_observables: int) -> list[tuple[str, str]]:
        """Say what is shared, as names and texts for the printed plan."""
        found = []
        size = 1 << self.plan.num_qubits
        for name, part, what in (
            ("prefix", self.prefix, "once for all rows"),
            ("suffix", self.suffix, f"on the observable, by {size:,} columns"),
        ):
            if part is None:
                continue
            rows = [self.rows_for(name, num_observables, gradient) for gradient in (False, True)]
            pays = [f"{of} from {count:,}" for of, count in zip(("values", "gradients"), rows) if count is not None]
            text = f"{what}: {', '.join(pays)} rows on" if pays else "not worth sharing"
            found.append((name, f"{count_text(part.num_runs, 'rotation')}, {text}"))
        return found or [("shared", "nothing; inputs come first and last")]


def may_share(plan: Plan, num_rows: int) -> bool:
    """Say whether rows are worth looking at for what they share."""
    return num_rows > 1 and num_rows * plan.num_runs << plan.num_qubits >= MIN_WORK


def _flops(plan: Plan, gradient: bool) -> int:
    """Count what an engine does for states that go in or come out, which it takes as complex."""
    return plan.flops(gradient, is_real=False)
