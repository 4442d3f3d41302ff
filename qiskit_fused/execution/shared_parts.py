# SPDX-License-Identifier: Apache-2.0
"""Splits a circuit into the parts that all rows of a batch share, and decides when sharing saves time.

The *prefix* is all gates before the first angle that differs between rows. It is simulated once and gives one state,
from which all rows start. In the backward sweep, the cotangents of all rows are added at the end of the prefix, since
gradients are linear in the cotangent.

The *suffix* is all gates behind the last angle that differs between rows, one unitary U. Sweeps of the 2^n basis states
give the columns of U, and an observable O becomes the matrix U^+ O U. A row that reaches the suffix in the state phi
has the value <phi|U^+ O U|phi>. The gradient of the suffix is the gradient of Tr(U^+ O U R), where R is the weighted
sum of |phi><phi| over all rows. The number of sweeps of the suffix does not depend on the number of rows.

There are three modes: ROWS simulates every row on its own, PREFIX simulates the prefix once, and OBSERVABLE simulates
the prefix, where there is one, and the suffix once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from qiskit_fused.common.caches import BoundedCache
from qiskit_fused.engines.cpu.costs import flops
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.fusion.partition import split

# Costs are estimated in flops. Sweeps and matrix products are taken to run at the same number of flops per second.
FLOPS_PER_COPIED_AMPLITUDE = 150  # cost of copying one amplitude between an engine and NumPy, in flops
SHARE_BELOW = 0.75  # rows share gates only if the estimated time is less than 0.75 of the time of ROWS
MOST_COLUMNS = 1 << 11  # largest number of columns of a suffix that is made a matrix
ROWS_SEARCH_BOUND = 1 << 40  # largest number of rows in the search for the least number of rows that share a part
CACHED_DECISIONS = 256  # largest number of modes that are cached for each fused program and set of columns
MIN_WORK = 1 << 22  # amplitudes times rotations, about 1 ms of work; batches with less work do not share gates
SPLIT_FACTOR = 64  # a batch of at least SPLIT_FACTOR * MIN_WORK, about 0.1 s of work, is split when first seen

ROWS, PREFIX, OBSERVABLE = "nothing", "prefix", "observable"


class Parts(NamedTuple):
    """The parts of a fused program. Each part is a fused program.

    Attributes:
        prefix: the gates with which all rows begin; None where there is no prefix.
        rest: the gates behind the prefix; None where there is no prefix.
        middle: the rest without the suffix; None where there is no suffix.
        suffix: the gates with which all rows end; None where there is no suffix.
    """

    prefix: FusedProgram | None = None
    rest: FusedProgram | None = None
    middle: FusedProgram | None = None
    suffix: FusedProgram | None = None


class SharedParts:
    """The cached results of a `Sharing`. They hold no reference to the fused program, which would keep it alive.

    Attributes:
        parts: the parts of the fused program; None before they are made.
        modes: the modes that `Sharing.choose` returned, by its arguments.
    """

    def __init__(self) -> None:
        self.parts: Parts | None = None
        self.modes: dict[tuple[int, int, bool, bool, bool], str] = {}


@dataclass(frozen=True, eq=False)
class Sharing:
    """The parts of a fused program for a batch in which only some columns differ between rows.

    Attributes:
        fused: the whole fused program.
        varies: bool (C,), whether a column differs between rows.
        cache: the parts and modes that earlier objects found for the same fused program and columns.
    """

    fused: FusedProgram
    varies: np.ndarray
    cache: SharedParts = field(default_factory=SharedParts)

    @property
    def _parts(self) -> Parts:
        if self.cache.parts is None:
            self.cache.parts = self._split()
        return self.cache.parts

    def _split(self) -> Parts:
        fused = self.fused
        if fused.num_qubits != fused.program.num_qubits:  # states between parts need all qubits of the program
            return Parts()
        parts = split(fused.program, self.varies)
        bits = np.arange(fused.num_qubits)  # the states between parts have the same order in all parts
        prefix, middle, suffix = (
            None if program is None else fuse_program(program, bits=bits)
            for program in (parts.prefix, parts.middle, parts.suffix)
        )
        rest = None if prefix is None else fuse_program(parts.rest, fused.support)
        return Parts(prefix, rest, middle, suffix)

    @property
    def prefix(self) -> FusedProgram | None:
        """The gates with which all rows begin, or None."""
        return self._parts.prefix

    @property
    def rest(self) -> FusedProgram:
        """The gates behind the prefix; all gates where there is no prefix."""
        return self._parts.rest or self.fused

    @property
    def middle(self) -> FusedProgram | None:
        """The rest without the suffix, or None where there is no suffix."""
        return self._parts.middle

    @property
    def suffix(self) -> FusedProgram | None:
        """The gates with which all rows end, or None."""
        return self._parts.suffix

    def cost(self, mode: str, num_rows: int, num_observables: int, gradient: bool, back: bool = True) -> float:
        """Estimate the flops of a batch: of its values alone, or with the gradient of their weighted sum.

        Args:
            mode: ROWS, PREFIX or OBSERVABLE.
            num_rows: B.
            num_observables: K.
            gradient: whether the gradient is needed.
            back: whether the gradient of the middle is needed.
        """
        if mode == ROWS:
            return float(num_rows) * flops(self.fused, gradient)
        total, move = 0.0, float(FLOPS_PER_COPIED_AMPLITUDE << self.fused.num_qubits)
        if self.prefix is not None:
            total += _flops(self.prefix, False) + gradient * _flops(self.prefix, True) + 2 * move
        if mode == PREFIX:
            return total + num_rows * (_flops(self.rest, gradient) + (1 + gradient) * move)
        assert self.middle is not None and self.suffix is not None
        size = 1 << self.fused.num_qubits
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
        """Return the mode of the least estimated cost, or ROWS if no mode costs less than SHARE_BELOW times ROWS.

        Args:
            num_rows: B.
            num_observables: K.
            gradient: whether the gradient is needed.
            back: whether the gradient of the middle is needed.
            evolve: whether OBSERVABLE may be chosen.
        """
        batch = num_rows, num_observables, gradient, back
        key = *batch, evolve
        mode = self.cache.modes.get(key)
        if mode is None:
            modes = [ROWS]
            if self.prefix is not None:
                modes.append(PREFIX)
            if evolve and self.suffix is not None and 1 << self.fused.num_qubits <= min(num_rows, MOST_COLUMNS):
                modes.append(OBSERVABLE)
            best = min(modes, key=lambda mode: self.cost(mode, *batch))
            mode = best if self.cost(best, *batch) < SHARE_BELOW * self.cost(ROWS, *batch) else ROWS
            if len(self.cache.modes) >= CACHED_DECISIONS:
                self.cache.modes.clear()
            self.cache.modes[key] = mode
        return mode

    def rows_for(self, part: str, num_observables: int, gradient: bool) -> int | None:
        """Return the least number of rows that share the prefix or the suffix; None where no number of rows does."""

        def is_shared(num_rows: int) -> bool:
            if not may_share(self.fused, num_rows):
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


# Both caches have the keys (id of the fused program, columns that differ) and bound their size in bytes.
_PARTS: BoundedCache[SharedParts] = BoundedCache(128 << 20)
_SEEN: BoundedCache[bool] = BoundedCache(1 << 20)  # True for the keys that `is_worth_splitting` has seen


def find_sharing(fused: FusedProgram, varies: np.ndarray) -> Sharing:
    """Return the parts of a fused program for rows that differ only in the columns ``varies``, bool (C,).

    The parts are made once and cached.
    """
    key = id(fused), varies.tobytes()
    parts = _PARTS.get(key)
    if parts is None:
        parts = _PARTS.put(key, SharedParts(), 2 * fused.num_bytes, fused)
    return Sharing(fused, varies, parts)


def is_worth_splitting(fused: FusedProgram, varies: np.ndarray, num_rows: int) -> bool:
    """Say whether to split a fused program for columns that were found to differ between the rows of one batch.

    Splitting takes as long as the simulation of many gates, and batches of sparse data differ in other columns each
    time. A fused program is therefore split only for a batch of much work, or when the same columns differ again.
    """
    if math.ldexp(num_rows * fused.work, fused.num_qubits) >= SPLIT_FACTOR * MIN_WORK:
        return True
    key = id(fused), varies.tobytes()
    if _SEEN.get(key):
        return True
    _SEEN.put(key, True, len(key[1]), fused)
    return False


def may_share(fused: FusedProgram, num_rows: int) -> bool:
    """Say whether a batch has enough work to look for gates that its rows share."""
    return num_rows > 1 and math.ldexp(num_rows * fused.work, fused.num_qubits) >= MIN_WORK


def _flops(fused: FusedProgram, gradient: bool) -> int:
    """Return the flops of one row. States that go into an engine or come out of it are complex, never real."""
    return flops(fused, gradient, is_real=False)
