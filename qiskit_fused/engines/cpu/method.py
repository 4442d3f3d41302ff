# SPDX-License-Identifier: Apache-2.0
"""Choice of the method on the CPU: the fastest method, number of states and number of threads within a memory limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import comb, inf
from typing import NamedTuple

import numpy as np

from qiskit_fused.common.byte_sizes import format_bytes
from qiskit_fused.common.caches import BoundedCache
from qiskit_fused.common.free_memory import TooManyQubits, resolve_limit
from qiskit_fused.common.native import CONSTANTS
from qiskit_fused.common.text import count_text
from qiskit_fused.engines.checkpointing import num_steps
from qiskit_fused.engines.cpu.costs import flops, num_positions
from qiskit_fused.engines.cpu.memory import Counts, Footprint, count_diagonals
from qiskit_fused.engines.request import Request
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.options.method import REVERSE, Method, methods_to_try
from qiskit_fused.program.observables import TermMasks
from qiskit_fused.program.outcomes import OutcomeMasks, ways_to_fewer

# Measured on one and on two cores of an AMD EPYC (1 MiB of L2 cache for each core): within these bounds "store" takes
# 0.88 to 1.02 of the time of "reverse". It takes 0.91 to 1.16 with 2.6 to 2.8 MiB, and 1.0 to 1.4 with 5 MiB or more.
# With fewer qubits it takes 1.0 to 1.03.
STORE_MIN_QUBITS = 10
STORE_MAX_BYTES = 2 << 20  # largest number of bytes of all states of a row

LONG_SCHEDULE = 20
"""Recomputation, in forward sweeps, above which the user is told the memory limit that would halve it."""


@dataclass(frozen=True)
class Choice:
    """The method, the threads and the memory with which a batch runs.

    Attributes:
        method: the method with its number of states or segments.
        num_threads: largest number of CPU threads.
        num_bytes: predicted peak of the whole evaluation, in bytes.
        num_steps: number of forward steps of a row, recomputed ones included.
        advice: a sentence for the user, or "".
    """

    method: Method
    num_threads: int
    num_bytes: int
    num_steps: int
    advice: str = ""

    def keeping(self, kept_bytes: int) -> Choice:
        """Return the choice with a bound, in bytes, of the memory kept from earlier evaluations during this one."""
        return replace(self, method=replace(self.method, kept_bytes=max(kept_bytes, 0)))


class Unlimited(NamedTuple):
    """The choice for a batch without a memory limit.

    Attributes:
        names: methods to try within a limit, the fastest first.
        choice: the fastest choice without a limit.
        num_bytes: upper bound of the bytes of this choice, for any observables and columns.
    """

    names: list[str]
    choice: Choice
    num_bytes: int


# Choices by plan and arguments; a training loop makes the same choice at every step.
_CHOICES: BoundedCache[Unlimited] = BoundedCache(16 << 20)
_CHOICE_BYTES = 1500  # bytes of an entry: the arguments, the choice and its method


def choose(
    plan: FusedProgram,
    request: Request,
    terms: TermMasks,
    *,
    method: str,
    num_segments: int | None,
    num_threads: int,
    limit_of: Callable[[int], int | None],
    limit_name: str = "memory_limit",
) -> Choice:
    """Choose method, states and threads for a batch on the CPU.

    Args:
        plan: the planned circuit.
        request: the batch.
        terms: the observables on the plan's bits.
        method: "reverse", "checkpoint", "store" or "auto". "auto" takes "store" if a row's states fit both the cache
            and the limit, else "reverse"; neither recomputes a state.
        num_segments: number of segments, for "checkpoint"; None keeps as many states as fit.
        num_threads: largest number of threads; fewer are taken if the states of concurrent rows do not fit.
        limit_of: maps a number of bytes to the limit in bytes, or to None if so few bytes need no limit.
        limit_name: name of the limit in errors.

    Raises:
        TooManyQubits: when the states do not fit, with the figures, the qubits that would fit, and the cure.
        MemoryError: when the rows and the results do not fit beside the states; the text says how many rows would.
    """
    num_outcomes = _count_outcomes(terms)
    names, choice, most = choose_unlimited(plan, request, terms, method, num_segments, num_threads)
    limit = limit_of(most)
    if limit is None or limit - most >= CONSTANTS.most_kept_bytes:
        return choice
    if most <= limit:
        return choice.keeping(limit - most)
    num_flips, num_diagonals = count_diagonals(terms)
    counts = Counts.of(request)._replace(num_outcomes=num_outcomes, num_flips=num_flips, num_diagonals=num_diagonals)
    footprint = Footprint(plan, counts.dtype)
    options = Options(footprint, counts, num_threads, limit, footprint.varying_phases(request.varying_columns))
    for name in names:
        within = options.choose(name, num_segments)
        if within is not None:
            return within.keeping(limit - within.num_bytes)
    raise options.refusal(names[-1], num_segments, limit_name)


def choose_unlimited(
    plan: FusedProgram, request: Request, terms: TermMasks, method: str, num_segments: int | None, num_threads: int
) -> Unlimited:
    """Return the fastest choice without a limit, and a bound of its bytes. The arguments are those of `choose`."""
    num_outcomes = _count_outcomes(terms)
    key = id(plan), request.sizes, method, num_segments, num_threads, len(terms), num_outcomes
    unlimited = _CHOICES.get(key)
    if unlimited is None:
        counts = Counts.of(request)._replace(num_outcomes=num_outcomes)
        footprint = Footprint(plan, counts.dtype)
        names = methods_by_speed(footprint, counts, method)
        choice = Options(footprint, counts, num_threads, inf, None).choose(names[0], num_segments)
        assert choice is not None
        unlimited = Unlimited(names, choice, choice.num_bytes + footprint.most_shared(len(terms)))
        _CHOICES.put(key, unlimited, _CHOICE_BYTES, plan)
    return unlimited


def _count_outcomes(terms: TermMasks) -> int:
    return terms.num_observables if isinstance(terms, OutcomeMasks) else 0


def methods_by_speed(footprint: Footprint, counts: Counts, method: str) -> list[str]:
    """Return the methods to try on the CPU, the fastest first."""
    if not counts.gradient:
        return ["reverse"]
    return methods_to_try(method, has_small_states=suits_store(footprint, counts))


def suits_store(footprint: Footprint, counts: Counts) -> bool:
    """Return whether method "store" is the fastest: all states of a row fit the cache of a core."""
    plan = footprint.plan
    num_bytes = num_positions(plan, imaginary=counts.imaginary) * footprint.state_bytes(counts)
    return plan.num_qubits >= STORE_MIN_QUBITS and num_bytes <= STORE_MAX_BYTES


@dataclass(frozen=True)
class Options:
    """The choices of one batch within one limit.

    Attributes:
        footprint: predicts bytes.
        counts: the batch.
        num_threads: largest number of threads.
        limit: limit in bytes.
        varying: bytes of the tables of phases that differ between rows, see `Footprint.varying_phases`; None assumes
            that all columns differ.
    """

    footprint: Footprint
    counts: Counts
    num_threads: int
    limit: float
    varying: tuple[int, int, int] | None

    @property
    def num_positions(self) -> int:
        """Number of states that the backward pass visits; see `costs.num_positions`."""
        return num_positions(self.footprint.plan, imaginary=self.counts.imaginary)

    def total(self, num_threads: int, num_states: int) -> int:
        """Return the bytes of the evaluation; see `Footprint.total`."""
        return self.footprint.total(self.counts, num_threads, num_states, self.varying)

    def choose(self, name: str, num_segments: int | None = None) -> Choice | None:
        """Return the fastest choice of a method that fits, or None."""
        positions = self.num_positions
        if name == "checkpoint" and num_segments is None:
            return self._most_states()
        method, num_states, steps = REVERSE, 0, positions
        if name == "store":
            method, num_states = Method("store"), positions
        elif name == "checkpoint":
            assert num_segments is not None
            method = Method("checkpoint", None, num_segments)
            num_states = _states_of_segments(positions, num_segments)
            # Every step is executed twice, except the steps to segment starts and the steps of the last segment.
            steps = 2 * positions - num_states
        demand = self.threads_for(num_states)
        return None if demand is None else Choice(method, *demand, steps)

    def threads_for(self, num_states: int) -> tuple[int, int] | None:
        """Return the largest number of threads whose concurrent rows fit, and their bytes; None if no row fits."""
        for threads in range(self.num_threads, 0, -1):
            total = self.total(threads, num_states)
            if total <= self.limit:
                return threads, total
        return None

    def _most_states(self) -> Choice | None:
        best, least = None, inf
        for threads in range(self.num_threads, 0, -1):
            num_states = self._fit_states(threads)
            if num_states is None:
                continue
            working = self.footprint.side_by_side(self.counts.num_rows, threads)[1]
            time = relative_time(self.footprint.plan, num_states, self.counts.imaginary) / working
            if time < least:
                steps = num_steps(self.num_positions, num_states)
                best, least = (threads, num_states, steps), time
            if threads == self.num_threads and num_steps(self.num_positions, num_states) <= 2 * self.num_positions:
                break
        if best is None:
            return None
        threads, num_states, steps = best
        choice = Choice(Method("checkpoint", num_states), threads, self.total(threads, num_states), steps)
        return replace(choice, advice=self._advice(choice))

    def _fit_states(self, num_threads: int) -> int | None:
        most = self.num_positions
        if most * self.footprint.state_bytes(self.counts) > STORE_MAX_BYTES:
            # More states would save steps, and lose more time when they leave the cache. A gradient of 16 qubits and
            # 201 positions in complex64 takes 46 ms with 20 states, 59 ms with 111 states and 71 ms with all states.
            most = fewest_states(most, 2)
        if self.limit < inf:
            rows, _ = self.footprint.side_by_side(self.counts.num_rows, num_threads)
            state = rows * self.footprint.state_bytes(self.counts)
            room = self.limit - self.total(num_threads, most) + most * state
            most = min(most, int(room) // state)
        # Fewer states make the list of actions a little longer, so a few smaller numbers are tried.
        fewer = (c for c in range(most, max(most - 4, 0), -1) if self.total(num_threads, c) <= self.limit)
        return next(fewer, None)

    def _advice(self, choice: Choice) -> str:
        positions, few = self.num_positions, choice.method.num_states or 1
        if choice.num_steps <= LONG_SCHEDULE * positions:
            return ""
        more = next(c for c in range(few, positions + 1) if 2 * num_steps(positions, c) <= choice.num_steps)
        return (
            f"method='checkpoint' with {few} {'state' if few == 1 else 'states'} of {self.footprint.plan.num_qubits} "
            f"qubits recomputes {choice.num_steps / positions:.3g} times the forward sweep; "
            f"memory_limit='{format_limit(self.total(choice.num_threads, more))}' would halve that, method='reverse' "
            "recomputes nothing."
        )

    def refusal(self, name: str, num_segments: int | None, limit_name: str) -> MemoryError:
        """Return the error that names the bytes that do not fit, the limit, and a cure."""
        footprint, counts, plan = self.footprint, self.counts, self.footprint.plan
        states = {"store": self.num_positions, "reverse": 0}.get(name, 1)
        if name == "checkpoint" and num_segments is not None:
            states = _states_of_segments(self.num_positions, num_segments)
        of_states = footprint.count_states(counts, states) * np.dtype(counts.dtype).itemsize << plan.num_qubits
        total, arrays = self.total(1, states), footprint.arrays(counts)
        limit = f"{limit_name} is {format_bytes(self.limit)}"
        fitting = self._rows_that_fit(states)
        if fitting or total - arrays <= self.limit:
            most = f", {count_text(fitting, 'row')} at most," if fitting else ""
            noun = "outcomes" if counts.num_outcomes else "observables"
            cure = "ask for fewer rows or observables at a time" + most
            if counts.num_outcomes:
                rows = f"ask for fewer rows at a time{most} or " if fitting else ""
                cure = f"{rows}{ways_to_fewer(noun, counts.gradient)},"
            return MemoryError(
                f"the {'gradients' if counts.gradient else 'values'} of {counts.num_pairs:,} pairs of rows and "
                f"{noun}, and the rows, take {format_bytes(arrays)} beside {format_bytes(total - arrays)} of "
                f"states and tables, {limit}; {cure} or raise memory_limit."
            )
        what = "statevector and cotangent" if counts.gradient else "statevector"
        if states > 1:
            what = f"{states:,} statevectors of method='{name}' and the cotangent"
        figures = (
            f"the {what} of {count_text(plan.num_qubits, 'qubit')} {'need' if counts.gradient else 'needs'} "
            f"{format_bytes(of_states)} in {counts.dtype}"
        )
        may_raise = total <= resolve_limit(1.0)  # the evaluation fits into all free memory
        with_one = self._with_one_outcome().total(1, states) if counts.num_outcomes else total
        if with_one <= self.limit or 2 * with_one <= total:  # the sums over outcomes are the cause
            return MemoryError(
                f"{figures}, with the sums of {counts.num_outcomes:,} outcomes, tables and arrays "
                f"{format_bytes(total)}, {limit}; {self._cures_of_outcomes(with_one, may_raise)}."
            )
        if of_states <= self.limit:
            figures += f", with tables, sums and arrays {format_bytes(total)}"
        # All bytes that do not grow with the batch double with each qubit.
        needed = max(total - arrays, of_states + 1)  # tables take bytes beside the states
        missing = (-(-needed // max(int(self.limit), 1)) - 1).bit_length()
        if (smaller := plan.num_qubits - missing) > 0:
            limit += f", enough for {count_text(smaller, 'qubit')}"
        cures = self._cures(name, num_segments)
        if may_raise:
            cures.append("raise memory_limit")
        *others, last = cures
        return TooManyQubits(f"{figures}, {limit}; use {', '.join(others)}{' or ' if others else ''}{last}.")

    def _cures_of_outcomes(self, with_one: int, may_raise: bool) -> str:
        """Return the cures of an error about many outcomes, of which a single one would take ``with_one`` bytes."""
        cures = ["raise memory_limit"] if may_raise else []
        if with_one <= self.limit or not may_raise:
            # A table can have more outcomes than there are bitstrings of the qubits, for a wide classical register.
            is_wide = self.counts.num_outcomes > 1 << self.footprint.plan.num_qubits
            cures = ["give interpret", "use fewer classical bits" if is_wide else "measure fewer qubits", *cures]
        *others, last = cures
        return f"{', '.join(others)}{' or ' if others else ''}{last}"

    def _with_one_outcome(self) -> Options:
        """Return the options of the same batch with one outcome."""
        counts, rows = self.counts, self.counts.num_rows
        pairs, values = min(counts.num_pairs, rows), min(counts.num_values, rows)
        return replace(self, counts=counts._replace(num_pairs=pairs, num_values=values, num_outcomes=1))

    def _rows_that_fit(self, num_states: int) -> int:
        """Return a number of rows that fits, found by halving the number of rows; 0 if one row does not fit."""
        num_rows = self.counts.num_rows
        while num_rows > 1:
            num_rows //= 2
            part = replace(self, counts=self.counts.part(num_rows))
            if part.total(1, num_states) <= self.limit:
                return num_rows
        return 0

    def _cures(self, name: str, num_segments: int | None) -> list[str]:
        cures = []
        if self.counts.dtype != "complex64":
            smaller = Footprint(self.footprint.plan, "complex64")
            options = replace(self, footprint=smaller, counts=self.counts._replace(dtype="complex64"))
            if options.choose(name, num_segments):
                cures.append("dtype='complex64'")
        if self.counts.gradient:
            for other in ("reverse", "checkpoint"):
                if (other != name or num_segments is not None) and self.choose(other):
                    cures.append(f"method='{other}'" + (" without num_segments" if other == name else ""))
                    break
        return [*cures, "fewer qubits"]


def _states_of_segments(num_positions: int, num_segments: int) -> int:
    """Return the number of states of a `segmented_schedule`."""
    segments = min(num_segments, num_positions)
    return segments - 1 - (-num_positions // segments)


def relative_time(plan: FusedProgram, num_states: int = 0, imaginary: bool = False) -> float:
    """Estimate the time of values and gradients, relative to method "reverse", from the number of operations.

    The estimate takes the backward pass as equally long for all methods: measurements found no difference between
    uncomputing psi beside lam and reading psi from memory.

    Args:
        plan: the planned circuit.
        num_states: number of states of a schedule; 0 is method "reverse".
        imaginary: see `costs.num_positions`.
    """
    if num_states == 0:
        return 1.0
    positions = num_positions(plan, imaginary=imaginary)
    forward = flops(plan, False)
    again = forward * (num_steps(positions, num_states) / positions - 1)
    return 1 + again / max(flops(plan, True), 1)


def format_limit(count: float) -> str:
    """Return bytes as the text of a memory limit, rounded up: ``format_limit(2**30 + 1) == '1074MB'``."""
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if count >= 10 * 1000**power:
            return f"{-int(-count // 1000**power)}{unit}"
    return f"{int(count)}B"


def fewest_states(num_positions: int, repetitions: int) -> int:
    """Return the least number of states with which no step is executed more than ``repetitions`` times."""
    num_states = 1
    while comb(num_states + repetitions, num_states) < num_positions + 1:
        num_states += 1
    return min(num_states, num_positions)
