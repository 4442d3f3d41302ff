# SPDX-License-Identifier: Apache-2.0
"""The search for the windows of the sweeps: which window each sweep takes, and how many steps it executes.

The search knows a fused program only by the runs that each run waits for. It is a beam search: it extends a few
sequences of sweeps by every window and every number of steps, and continues with the cheapest sequences. In a program
that repeats, such as equal layers, it searches for a cycle of sweeps and repeats the cycle, so that many sweeps have
the same shape, and the search takes the same time for any number of layers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Costs in machine instructions for each amplitude, forward and backward (kernels/README.md, "Work, counted"). A sweep
# takes 28 instructions, and moves 48 bytes. These bytes take as long as 330 instructions where nothing hides them; the
# search counts a tenth of this time.
_SWEEP_COST = 60.0
_STEP_COST = 40.0  # a piece and its sums, without the exchange that a step saves by the arrangement of the step before
_STAGE_COST = 19.0  # an exchange, and a stage without rotations

LONGEST_SWEEP = 20
"""Largest number of stages of a sweep that has a choice of windows, so that the machine code of compiled passes is not
longer. Without this limit, rings of 16 qubits cost 1 % less."""

# The search continues with the cheapest `_BEAM` sequences whose numbers of runs differ by less than `_BAND` for each
# qubit. Twice as many sequences cost less than 1 % less for rings and ladders of 14 to 28 qubits. Long programs without
# a cycle are searched with the other two numbers, which take a quarter of the time.
_BEAM, _BAND = 8, 0.5
_COARSE_BEAM, _COARSE_BAND = 4, 1.0

_LONGEST_PERIOD = 4  # largest number of runs of a qubit after which a program may repeat
_LONGEST_CYCLE = 6  # largest number of sweeps in a cycle
_SEARCHED = 16  # number of runs of each qubit that are searched for a cycle
_TAIL = 5  # least number of runs of each qubit after the last cycle


class RunOrder(NamedTuple):
    """What each run waits for.

    Attributes:
        counts: int64 (n,), the number of runs of each qubit.
        first: int64 (n,), the row of the first run of each qubit. The next rows are its other runs, and then a row that
            stands for the end of the qubit.
        needed: int32 (rows, n), the number of runs of each qubit that have to be done before the run; at the end of a
            qubit a number that is never reached.
    """

    counts: np.ndarray
    first: np.ndarray
    needed: np.ndarray

    def period(self) -> np.ndarray | None:
        """Return the smallest numbers of runs, int64 (n,), after which the program repeats; None if there are none.

        The first run of a qubit may differ, because terms before all runs do not wait for runs.
        """
        rows = self.counts + 1
        count, number = np.repeat(self.counts, rows), np.arange(len(self.needed)) - np.repeat(self.first, rows)
        for longest in range(1, _LONGEST_PERIOD + 1):
            period = np.rint(longest * self.counts / self.counts.max()).astype(np.int64)
            later = np.flatnonzero((number > np.repeat(period, rows)) & (number < count))
            before = self.needed[later - np.repeat(period, rows)[later]]
            if len(later) and (self.needed[later] == np.where(before > 0, before + period, 0)).all():
                return period
        return None


class _Sequence(NamedTuple):
    """A sequence of sweeps.

    Attributes:
        done: int32 (n,), the number of runs of each qubit that are done.
        cost: the cost of the sweeps.
        before: the sequence without its last sweep; None without sweeps.
        sweep: the window of the last sweep, as an index, and its number of steps.
    """

    done: np.ndarray
    cost: float = 0.0
    before: _Sequence | None = None
    sweep: tuple[int, int] = (0, 0)

    def sweeps(self, start: _Sequence | None = None) -> list[tuple[int, int]]:
        """Return the sweeps after an earlier sequence; None returns all sweeps."""
        found, sequence = [], self
        while sequence is not start and sequence.before is not None:
            found.append(sequence.sweep)
            sequence = sequence.before
        return found[::-1]


class _Cycle(NamedTuple):
    """Sweeps between two sequences that execute a multiple of the period of the program."""

    start: _Sequence
    end: _Sequence

    @property
    def runs(self) -> np.ndarray:
        """The number of runs of each qubit."""
        return self.end.done - self.start.done

    @property
    def price(self) -> float:
        """The average cost of a run."""
        return (self.end.cost - self.start.cost) / float(self.runs.sum())


class _Extensions(NamedTuple):
    """Sequences with one more sweep.

    Attributes:
        done, cost: int32 (E, n) and float64 (E,), as in `_Sequence`.
        last: int64 (E, 3), the number of the sequence before the last sweep, and the last sweep.
    """

    done: np.ndarray
    cost: np.ndarray
    last: np.ndarray

    def take(self, chosen: np.ndarray) -> _Extensions:
        return _Extensions(*(array[chosen] for array in self))

    def cheapest(self, most: int) -> _Extensions:
        """Return, of the different extensions with the same number of runs, the cheapest ``most``, in this order."""
        weights = np.full(self.done.shape[1], 0x1E3779B97F4A7C15).cumprod()
        key = self.done @ weights  # a hash of the runs that are done: both the powers and the sum overflow
        order = np.lexsort((self.cost, key))
        order = order[np.diff(key[order], prepend=key[order[:1]] - 1) != 0]
        num_done = self.done[order].sum(axis=1)
        by_length = np.lexsort((self.cost[order], num_done))
        order, num_done = order[by_length], num_done[by_length]
        rank = np.arange(len(order)) - np.searchsorted(num_done, num_done)
        return self.take(order[rank < most])


def search_windows(order: RunOrder, windows: np.ndarray, arrangements: np.ndarray) -> list[tuple[int, int]]:
    """Return the window, as an index, and the number of steps of each sweep, until all runs are done.

    Args:
        order: what each run waits for, of at least one run.
        windows: int64 (W, t), the qubits of each window, ascending. Every qubit is in a window.
        arrangements: int64 (t,), for each qubit of a window the arrangement in which it is rotated.

    Cost: O(W t n) NumPy work for each step of a sweep, for a bounded number of sweeps if the program repeats.
    """
    search = _Search(order, windows, arrangements)
    start = _Sequence(np.zeros(len(order.first), np.int32))
    if order.counts.max() <= _SEARCHED + _TAIL:
        return search.run(start, _BEAM, _BAND)[-1].sweeps()
    period = order.period()
    if period is not None:
        cycles = _cycles(search.run(start, _BEAM, _BAND, _SEARCHED / order.counts.max()), period)
        if cycles:
            cycle = min(cycles, key=lambda cycle: cycle.price)
            runs = cycle.runs
            left = order.counts - cycle.start.done - _TAIL
            repetitions = max(int((left[runs > 0] // runs[runs > 0]).min()), 0)
            tail = search.run(_Sequence(cycle.start.done + np.int32(repetitions) * runs), _BEAM, _BAND)[-1]
            return cycle.start.sweeps() + repetitions * cycle.end.sweeps(cycle.start) + tail.sweeps()
    return search.run(start, _COARSE_BEAM, _COARSE_BAND)[-1].sweeps()


def _cycles(sequences: list[_Sequence], period: np.ndarray) -> list[_Cycle]:
    """Return the cycles at the ends of sequences."""
    found, longest = [], int(period.max())
    for end in sequences:
        start = end.before
        for _ in range(_LONGEST_CYCLE):
            if start is None or not start.done[period > 0].all():  # the first run of a qubit may differ
                break
            added = end.done - start.done
            if (added * longest == period * added.max()).all() and added.max() % longest == 0:
                found.append(_Cycle(start, end))
            start = start.before
    return found


class _Search:
    """A beam search with the arguments of `search_windows`."""

    def __init__(self, order: RunOrder, windows: np.ndarray, arrangements: np.ndarray):
        self._order, self._windows = order, windows
        self._stages = arrangements == np.unique(arrangements)[:, None]

    def run(self, start: _Sequence, beam: int, band: float, share: float = 1.0) -> list[_Sequence]:
        """Return the sequences that were extended, and at the end the cheapest sequence that executes all runs.

        Args:
            start: the sequence to start from, without sweeps, before the end of the program.
            beam: number of sequences that are extended at the same time.
            band: by how many runs for each qubit these sequences may differ.
            share: the share of all runs after which to stop.
        """
        num_qubits, num_runs = len(start.done), int(self._order.counts.sum())
        enough = int(share * num_runs)
        sequences, before = [start], int(start.done.sum())
        found = self._extend(sequences, 0).cheapest(beam)
        while (lowest := (num_done := found.done.sum(axis=1)).min()) < enough:
            is_near = num_done < min(lowest + band * num_qubits, num_runs)
            near, gain = found.take(is_near), num_done[is_near] - before
            # Sequences of different lengths are compared at the average cost of a run.
            price = (near.cost / gain).min()
            near = near.take(np.argsort(near.cost - price * gain, kind="stable")[:beam])
            extended = _sequences(near, sequences)
            parts = found.take(~is_near), self._extend(extended, len(sequences))
            sequences += extended
            found = _Extensions(*map(np.concatenate, zip(*parts))).cheapest(beam)
        return sequences + _sequences(found.take(np.zeros(1, int)), sequences)

    def _extend(self, sequences: list[_Sequence], number: int) -> _Extensions:
        """Extend sequences by one sweep, for every window and every number of steps.

        Args:
            sequences: the sequences.
            number: the number of the first sequence in `_Extensions.last`.
        """
        order = self._order
        before, window = (index.ravel() for index in np.indices((len(sequences), len(self._windows))))
        done = np.stack([sequence.done for sequence in sequences])[before]
        cost = np.array([sequence.cost for sequence in sequences])[before] + _SWEEP_COST
        num_stages = np.zeros(len(done), np.int64)
        found: list[_Extensions] = []
        while len(done):
            qubits = self._windows[window]
            following = order.first[qubits] + np.take_along_axis(done, qubits, axis=1)
            is_ready = (order.needed[following] <= done[:, None, :]).all(axis=2)
            added = (is_ready[:, None, :] & self._stages).any(axis=2).sum(axis=1)
            num_stages = num_stages + added
            goes_on = (added > 0) & (num_stages <= LONGEST_SWEEP)
            done, cost, before, window, num_stages, added, qubits, is_ready = (
                array[goes_on] for array in (done, cost, before, window, num_stages, added, qubits, is_ready)
            )
            done[np.arange(len(done))[:, None], qubits] += is_ready
            cost = cost + _STEP_COST + _STAGE_COST * added
            steps = np.full(len(done), len(found) + 1)
            found.append(_Extensions(done, cost, np.column_stack([before + number, window, steps])))
        return _Extensions(*map(np.concatenate, zip(*found)))


def _sequences(extensions: _Extensions, before: list[_Sequence]) -> list[_Sequence]:
    parts = zip(extensions.done, extensions.cost.tolist(), extensions.last.tolist())
    return [_Sequence(done, cost, before[number], (window, steps)) for done, cost, (number, window, steps) in parts]
