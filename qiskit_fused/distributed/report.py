# SPDX-License-Identifier: Apache-2.0
"""What a state over several ranks takes: memory, exchanges and bytes moved, without any amplitude."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from qiskit.circuit import QuantumCircuit

from qiskit_fused.common.byte_sizes import format_bytes
from qiskit_fused.common.text import count_text
from qiskit_fused.compilation.circuits import COMPILED, CompiledCircuit
from qiskit_fused.compilation.observables import circuit_observables
from qiskit_fused.distributed.communicator import check_size
from qiskit_fused.distributed.rank_program import move_bits
from qiskit_fused.distributed.schedule import Schedule, make_schedule
from qiskit_fused.fusion.dense_gates import without_maps
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.program.observables import Observables

_GIVEN_BYTES = 16  # bytes of an amplitude outside the sweeps, where all amplitudes are complex128
_DTYPES = ("complex64", "complex128")


def fuse_for_ranks(compiled: CompiledCircuit, operators: Observables) -> FusedProgram:
    """Return the fused program that ranks execute. Observables that see no qubit get all qubits of the circuit.

    Raises:
        ValueError: if the start state depends on parameters.
    """
    fused = compiled.fused_program(operators.support(compiled.num_qubits))
    if not fused.num_qubits:
        fused = compiled.fused_program(None)
    if fused.starts is not None:
        raise ValueError(
            "the start state of the circuit depends on parameters, which ranks cannot differentiate; prepare the state "
            "by rotations, or use FusedEstimatorGradient, which takes such circuits in one process."
        )
    return without_maps(fused)


@dataclass(frozen=True, eq=False)
class DistributedPlan:
    """A circuit on 2^g ranks. ``print`` shows it as a table.

    Attributes:
        num_qubits: n, the number of simulated qubits.
        num_ranks: 2^g.
        num_layers: number of layers of the fused circuit.
        num_exchanges: number of exchanges of a forward sweep. An exchange swaps at most g pairs of qubits.
        states_moved: the amplitudes that a rank sends in a forward sweep, and also receives, in multiples of the
            amplitudes that it holds.
        num_patterns: number of exchanges of the whole state for observables that flip global qubits.
        schedule: the segments and exchanges.
    """

    num_qubits: int
    num_ranks: int
    num_layers: int
    num_exchanges: int
    states_moved: float
    num_patterns: int
    schedule: Schedule

    def state_bytes(self, dtype: str) -> int:
        """Return the bytes of the amplitudes of one rank in a number format."""
        return np.dtype(dtype).itemsize << self.schedule.num_local

    def memory_bytes(self, dtype: str, gradient: bool) -> int:
        """Return the bytes of the states that a rank holds at the same time, without tables of phases and pieces."""
        num_states = 2 if gradient else 1
        return num_states * (_GIVEN_BYTES + np.dtype(dtype).itemsize) << self.schedule.num_local

    def moved_bytes(self, dtype: str, gradient: bool) -> float:
        """Return the bytes that a rank sends for one row, and also receives.

        Args:
            dtype: number format of the amplitudes.
            gradient: whether a gradient is computed, whose backward sweep moves the state and its cotangent.
        """
        num_states = self.states_moved * (3 if gradient else 1) + self.num_patterns
        return num_states * self.state_bytes(dtype)

    def __str__(self) -> str:
        local, g = self.schedule.num_local, self.schedule.num_global
        lines = [
            "DistributedPlan",
            f"  qubits      {self.num_qubits}: {local} local, {g} global",
            f"  ranks       {self.num_ranks}",
            f"  layers      {self.num_layers} in {count_text(len(self.schedule.segments), 'segment')}",
            f"  exchanges   {self.num_exchanges}, and {self.num_patterns} for observables",
            "  one rank       " + "".join(f"{dtype:>14}" for dtype in _DTYPES),
        ]
        for name, numbers in (
            ("state", [self.state_bytes(dtype) for dtype in _DTYPES]),
            ("value, memory", [self.memory_bytes(dtype, False) for dtype in _DTYPES]),
            ("value, sent", [self.moved_bytes(dtype, False) for dtype in _DTYPES]),
            ("gradient, memory", [self.memory_bytes(dtype, True) for dtype in _DTYPES]),
            ("gradient, sent", [self.moved_bytes(dtype, True) for dtype in _DTYPES]),
        ):
            lines.append(f"    {name:<16} " + "".join(f"{format_bytes(number):>13} " for number in numbers).rstrip())
        return "\n".join(lines)

    __repr__ = __str__


def plan_ranks(circuit: QuantumCircuit | CompiledCircuit, observables: Any, num_ranks: int) -> DistributedPlan:
    """Plan a circuit on several ranks, without a communicator and without any amplitude.

    Args:
        circuit: the circuit, or the result of `compile_circuit`.
        observables: one observable or a list, of any type that ``ObservablesArray`` takes; None is Z on all qubits.
        num_ranks: 2^g.

    Raises:
        ValueError: for a number of ranks that is no power of 2 or too large for the circuit, or a circuit whose start
            state depends on parameters.

    Cost: seconds for thousands of gates.
    """
    num_ranks = check_size(num_ranks)
    compiled = COMPILED.get(circuit)
    operators = circuit_observables(observables, compiled.num_qubits).operators
    fused = fuse_for_ranks(compiled, operators)
    schedule = make_schedule(fused, num_ranks.bit_length() - 1)
    return DistributedPlan(
        num_qubits=fused.num_qubits,
        num_ranks=num_ranks,
        num_layers=fused.num_layers,
        num_exchanges=len(schedule.exchanges),
        states_moved=sum(exchange.moved for exchange in schedule.exchanges),
        num_patterns=len(_patterns(fused, operators, schedule)),
        schedule=schedule,
    )


def _patterns(fused: FusedProgram, operators: Observables, schedule: Schedule) -> list[int]:
    """Return the different patterns of bits of the rank's number that terms of the observables flip, without 0."""
    flips = move_bits(operators.restrict(fused.wires).x, schedule.segments[-1].places)
    return [int(pattern) for pattern in np.unique(flips >> np.uint64(schedule.num_local)) if pattern]
