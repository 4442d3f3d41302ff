# SPDX-License-Identifier: Apache-2.0
"""Evaluates a circuit on one rank: sweeps of its own amplitudes, and exchanges of amplitudes with other ranks.

The forward sweep executes the segments of the schedule, with an exchange between two segments. The backward sweep
undoes segments and exchanges in reverse order on the state and on its cotangent; an exchange is its own inverse. A
gradient is the sum of the gradients of all ranks, because ``Re sum conj(G) psi`` is a sum over amplitudes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from qiskit_fused.common.bits import spread
from qiskit_fused.common.caches import BoundedCache
from qiskit_fused.distributed.communicator import Communicator, exchange_amplitudes
from qiskit_fused.distributed.observation import PIECE_BITS, RankObservables
from qiskit_fused.distributed.rank_program import RankProgram, rank_programs
from qiskit_fused.distributed.schedule import Exchange, Schedule, make_schedule
from qiskit_fused.distributed.sweeps import Sweeps
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.program.observables import Observables

_PROGRAMS: BoundedCache[tuple[Schedule, list[RankProgram]]] = BoundedCache(256 << 20)  # the bound is in bytes


class RankEvaluator:
    """A fused program and observables on one rank.

    Args:
        fused: the fused program.
        operators: K observables.
        communicator: connects the ranks.
        sweeps: the local engine.
    """

    def __init__(self, fused: FusedProgram, operators: Observables, communicator: Communicator, sweeps: Sweeps):
        self.fused, self.communicator, self.sweeps = fused, communicator, sweeps
        self.schedule, self.programs = _programs(fused, communicator)
        places, num_local = self.schedule.segments[-1].places, self.schedule.num_local
        self.observables = RankObservables(fused, operators, places, num_local, communicator.rank)

    def values(self, columns: np.ndarray) -> np.ndarray:
        """Return the values of all observables, float64 (K,), for one row of columns (1, C)."""
        return self.communicator.sum(self._observe(self._final_state(columns)))

    def values_and_vjp(self, columns: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the values (K,), and the gradient (C,) of the sum of the values times weights (K,)."""
        state = self._final_state(columns)
        cotangent = self.sweeps.xp.empty_like(state)
        values = self._observe(state, weights, cotangent)
        gradient = self._gradient(columns, state, cotangent)
        sums = self.communicator.sum(np.concatenate([values, gradient]))
        return sums[: len(values)], sums[len(values) :]

    def _final_state(self, columns: np.ndarray) -> Any:
        """Return the amplitudes of this rank at the end of the circuit, (1, 2**num_local)."""
        state = self._start()
        for number, (fused, phase) in enumerate(self.programs):
            if number:
                self._exchange(self.schedule.exchanges[number - 1], state)
            self.sweeps.forward(fused, columns, state)
            _multiply(state, phase.factors(columns)[0])
        return state

    def _gradient(self, columns: np.ndarray, state: Any, cotangent: Any) -> np.ndarray:
        """Return this rank's part of the gradient (C,). State and cotangent at the end are changed in place."""
        gradient = np.zeros(columns.shape[1])
        for number, (fused, phase) in reversed(list(enumerate(self.programs))):
            if len(phase.column):  # d psi = i d phase psi
                gradient -= _imaginary_overlap(cotangent, state) * phase.slopes(len(gradient))
            for array in (state, cotangent):
                _multiply(array, phase.factors(columns)[0].conjugate())
            gradient += self.sweeps.back(fused, columns, state, cotangent)
            if number:
                for array in (state, cotangent):
                    self._exchange(self.schedule.exchanges[number - 1], array)
        return gradient

    def _observe(self, state: Any, weights: np.ndarray | None = None, cotangent: Any = None) -> np.ndarray:
        return self.observables.values(state, self.communicator, self.sweeps, weights, cotangent)

    def _start(self) -> Any:
        """Return the amplitudes of this rank at the start of the circuit."""
        local, rank = self.schedule.num_local, self.communicator.rank
        state = self.sweeps.xp.zeros((1, 1 << local), dtype=self.sweeps.state_dtype)
        if self.fused.initial_state is None:
            state[0, 0] = rank == 0
            return state
        bit_at = np.argsort(self.schedule.segments[0].places).tolist()
        own = sum(1 << bit for position, bit in enumerate(bit_at[local:]) if rank >> position & 1)
        state[0] = self.sweeps.xp.asarray(self.fused.initial_state[spread(bit_at[:local]) | own], dtype=state.dtype)
        return state

    def _exchange(self, exchange: Exchange, state: Any) -> None:
        """Swap global qubits with local qubits on a state, in place.

        With k pairs of qubits, a rank keeps the block of amplitudes whose local bits are equal to its own rank bits.
        It swaps each of the 2^k - 1 other blocks with another rank, whose rank bits are the local bits of the block.
        """
        rank, count = self.communicator.rank, len(exchange.rank_bits)
        own = sum((rank >> bit & 1) << j for j, bit in enumerate(exchange.rank_bits))
        for difference in range(1, 1 << count):
            flipped = sum(1 << bit for j, bit in enumerate(exchange.rank_bits) if difference >> j & 1)
            for piece in _pieces(_block(state, exchange.local_bits, own ^ difference)):
                sweeps = self.sweeps
                piece[...] = exchange_amplitudes(self.communicator, rank ^ flipped, piece, sweeps.dtype, sweeps.xp)


def _programs(fused: FusedProgram, communicator: Communicator) -> tuple[Schedule, list[RankProgram]]:
    """Return the schedule of a fused program and the programs of this rank; they are made once."""
    key = id(fused), communicator.size, communicator.rank
    made = _PROGRAMS.get(key)
    if made is None:
        schedule = make_schedule(fused, communicator.size.bit_length() - 1)
        programs = rank_programs(fused, schedule, communicator.rank)
        num_bytes = sum(program.fused.num_bytes for program in programs)
        made = _PROGRAMS.put(key, (schedule, programs), num_bytes, fused)
    return made


def _imaginary_overlap(first: Any, second: Any) -> float:
    """Return the imaginary part of ``sum conj(first) second``. CuPy's vdot would need cuBLAS."""
    pieces = zip(_pieces(first), _pieces(second))
    return float(sum((one.conj() * other).imag.sum(dtype=np.float64) for one, other in pieces))


def _multiply(array: Any, factor: np.complex128) -> None:
    """Multiply an array by a number, in place."""
    if factor != 1:
        array *= complex(factor)


def _block(state: Any, bits: tuple[int, ...], value: int) -> Any:
    """Return a view of the amplitudes (1, 2**m) whose bit ``bits[j]`` is bit j of ``value``, for each j."""
    chosen = {bit: value >> j & 1 for j, bit in enumerate(bits)}
    shape: list[int] = []
    index: list[Any] = []
    above = state.shape[1].bit_length() - 1
    for bit in sorted(chosen, reverse=True):
        shape += [1 << above - bit - 1, 2]
        index += [slice(None), chosen[bit]]
        above = bit
    return state.reshape(*shape, 1 << above)[tuple(index)]


def _pieces(view: Any) -> Iterator[Any]:
    """Yield views that together are an array, of at most 2**PIECE_BITS numbers each."""
    if view.size <= 1 << PIECE_BITS:
        yield view
        return
    axis = int(np.argmax(view.shape))
    half = view.shape[axis] // 2
    for part in (slice(None, half), slice(half, None)):
        yield from _pieces(view[(slice(None),) * axis + (part,)])
