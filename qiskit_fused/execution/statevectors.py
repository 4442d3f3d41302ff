# SPDX-License-Identifier: Apache-2.0
"""The final states of a circuit as a function of parameter values, and the vector-Jacobian product of this function.

A row x of parameter values gives the final state ``psi(x) = U(x) |0...0>``. A loss L of the states of all rows has a
cotangent G, the array with ``dL = Re sum conj(G) dpsi``. The vector-Jacobian product turns G into the gradient
``dL/dx`` by one backward sweep for each row.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from qiskit_fused.common.array_modules import array_module, to_numpy
from qiskit_fused.common.bits import spread
from qiskit_fused.common.byte_sizes import format_bytes
from qiskit_fused.common.cancellation import Cancellation
from qiskit_fused.common.forks import cached_property
from qiskit_fused.common.free_memory import ALWAYS_FREE, resolve_limit
from qiskit_fused.common.text import count_text
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.engines.evaluation import Evaluation
from qiskit_fused.engines.interface import DoesNotFit, Watch
from qiskit_fused.engines.request import NO_PAIRS, BoundaryStates, GradientRequest, Request, all_pairs
from qiskit_fused.execution.derivatives import check_derivatives, pull_back
from qiskit_fused.execution.devices import choose_device, engine_for, say_once
from qiskit_fused.execution.evaluate import evaluate
from qiskit_fused.execution.executor import cut_portions, options_of_workers, run_portions
from qiskit_fused.execution.magnitudes import scaled_cotangents
from qiskit_fused.execution.row_cuts import JoinedArrays, cut_evenly, evaluate_slice, rows_that_fit
from qiskit_fused.execution.state_phases import StatePhases, phase_slopes
from qiskit_fused.options import FusedOptions
from qiskit_fused.program.observables import Observables

_BLOCK_BYTES = 1 << 26  # the states and cotangents of a block of rows take at most 64 MiB
_BLOCKS_IN_LIMIT = 4  # the states and cotangents of a block of rows take at most memory_limit / 4
_MIN_BLOCK_ROWS = 16  # least number of rows of a block, also if it exceeds _BLOCK_BYTES: each thread needs a row


class StatesVjp(NamedTuple):
    """Final states and a vector-Jacobian product.

    Attributes:
        states: complex (B, 2^n) in the number format of the options, or None if they were not requested.
        gradients: float64 (B, P), ``d/dx[b, p] Re sum conj(G[b]) psi(x_b)``, or None without cotangents.
    """

    states: Any = None
    gradients: Any = None


class StateBatch(NamedTuple):
    """B rows of parameter values, and the results that are requested for them.

    Attributes:
        values: float64 (B, P), finite.
        cotangents: complex (B, 2^n), the cotangents G of the states; None requests no gradients.
        wants_states: whether the states are requested.
    """

    values: np.ndarray
    cotangents: Any = None
    wants_states: bool = True

    @property
    def num_rows(self) -> int:
        """B, rows."""
        return len(self.values)

    def rows(self, rows: slice) -> StateBatch:
        """Return some of the rows."""
        cotangents = None if self.cotangents is None else self.cotangents[rows]
        return self._replace(values=self.values[rows], cotangents=cotangents)

    @property
    def num_adjoint_states(self) -> int | None:
        """Number of adjoint states of a backward sweep; None where no gradients are requested."""
        return None if self.cotangents is None else self.num_rows


@dataclass(frozen=True, eq=False)
class FinalStates:
    """The final states of one circuit as a function of rows of parameter values.

    Rows are evaluated in blocks within the memory limit, or on the workers of the executor of the options. The arrays
    of all rows belong to the caller: they must fit the free memory, and may exceed the memory limit.

    Attributes:
        compiled: the circuit.
        options: the options of the engine. The option ``dtype`` is the number format of the states.
        only_active: whether idle qubits are left out of the states. The k-th bit of the index of an amplitude is then
            the k-th qubit on which some gate acts. Otherwise idle qubits are in |0>.
        with_phase: whether states have the global phase of the circuit. Otherwise the phase of a row is any function of
            the row, and cotangents come from a loss that does not depend on phases.
        runtime: the CUDA device on which states stay and cotangents come in, see `on_device`; None: the host.
        on_host: the same states on the host, for rows that do not fit the device; None if these are an error.
    """

    compiled: CompiledCircuit
    options: FusedOptions
    only_active: bool = False
    with_phase: bool = True
    runtime: Any = None
    on_host: FinalStates | None = None

    def on_device(self, num_rows: int, gradient: bool = False) -> FinalStates:
        """Return these states, on the CUDA device if that is where the sweeps of ``num_rows`` rows run, else as is.

        States on the device have no phase.

        Raises:
            RuntimeError: for a device that cannot be used.
        """
        options, compiled = self.options, self.compiled
        if options.device in ("cpu", "reference") or options.executor is not None or self.with_phase or not num_rows:
            return self
        if choose_device(options, compiled.fused_program(None), num_rows, num_rows, gradient) != "cuda":
            return self
        engine: Any = engine_for("cuda", options)
        if fault := engine.runtime.product_fault:
            say_once(f"products of states run on the CPU, because CuPy cannot multiply matrices: {fault}.")
            return self
        on_host = replace(self, options=replace(options, device="cpu")) if options.device == "auto" else None
        return replace(self, options=replace(options, device="cuda"), runtime=engine.runtime, on_host=on_host)

    @property
    def array_module(self) -> Any:
        """``numpy``, or ``cupy`` for states on a device."""
        return np if self.runtime is None else self.runtime.xp

    def context(self) -> AbstractContextManager[Any]:
        """Return a context for work on states: the device is current in it."""
        return nullcontext() if self.runtime is None else self.runtime.context()

    def limit_for(self, num_bytes: int) -> int | None:
        """Return the memory limit in bytes for ``num_bytes`` of states; None if they always fit."""
        if self.runtime is None:
            return self.options.limit_for(num_bytes)
        return self.options.resolve_memory_limit(self.runtime.free_memory())

    @property
    def num_qubits(self) -> int:
        """n, the number of qubits of the states."""
        return self.compiled.program.num_qubits if self.only_active else self.compiled.num_qubits

    def states(self, values: np.ndarray, watch: Watch | None = None) -> np.ndarray:
        """Return final states, complex (B, 2^n), for finite parameter values (B, P). A row takes one forward sweep."""
        states: np.ndarray = self.evaluate(StateBatch(values), watch).states
        return states

    def vjp(self, values: np.ndarray, cotangents: np.ndarray, watch: Watch | None = None) -> np.ndarray:
        """Return the gradients, float64 (B, P), of ``Re sum conj(G[b]) psi(x_b)`` for cotangents G, complex (B, 2^n).

        A row takes one forward and one backward sweep.
        """
        gradients: np.ndarray = self.evaluate(StateBatch(values, cotangents, False), watch).gradients
        return gradients

    def evaluate(self, batch: StateBatch, watch: Watch | None = None) -> StatesVjp:
        """Evaluate rows: on the workers of an executor, or block by block in this process.

        Args:
            batch: the rows.
            watch: told the progress of all rows.

        Raises:
            MemoryError: when the states of all rows do not fit the free memory, or a row does not fit the memory limit.
        """
        joined, num_rows = JoinedArrays(), batch.num_rows
        self._check_memory(batch)
        for rows, part in self._parts(batch, watch):
            joined.put("states", part.states, rows, num_rows)
            joined.put("gradients", part.gradients, rows, num_rows)
        return StatesVjp(joined["states"], joined["gradients"])

    def _check_memory(self, batch: StateBatch) -> None:
        """Raise a MemoryError where the states of all rows do not fit the free memory."""
        if not batch.wants_states or self.runtime is not None:
            return
        num_rows, num_qubits = batch.num_rows, self.num_qubits
        state_bytes = np.dtype(self.options.dtype).itemsize << num_qubits
        if num_rows * state_bytes <= ALWAYS_FREE:
            return
        room = resolve_limit(None)
        if num_rows * state_bytes > room:
            most = room // state_bytes
            raise MemoryError(
                f"the states of {count_text(num_rows, 'row')} and {count_text(num_qubits, 'qubit')} take "
                f"{format_bytes(num_rows * state_bytes)} in {self.options.dtype}, {format_bytes(room)} may be used; "
                + (f"ask for at most {count_text(most, 'row')} at a time." if most else "use fewer qubits.")
            )

    def _parts(self, batch: StateBatch, watch: Watch | None) -> Iterable[tuple[slice, StatesVjp]]:
        """Yield slices of the rows and their results, one after the other."""
        options = self.options
        if options.executor is not None:
            portions = cut_portions(options, self.compiled, batch.num_rows, batch.num_adjoint_states)
            if portions:
                arguments = options_of_workers(options), self.only_active, self.with_phase
                return zip(
                    portions,
                    run_portions(
                        options.executor,
                        _evaluate_portion,
                        (self.compiled,),
                        lambda number: (*arguments, batch.rows(portions[number])),
                        portions,
                        watch,
                    ),
                )
        slices = cut_evenly(batch.num_rows, self._rows_of_block(batch))
        return ((rows, evaluate_slice(batch, rows, self._evaluate_block, watch)) for rows in slices)

    def _rows_of_block(self, batch: StateBatch) -> int:
        """Return the largest number of rows of a block.

        A block has states and cotangents of the engine, at most complex128, and a copy of either in another order.
        """
        num_states = batch.wants_states + (batch.cotangents is not None)
        row_bytes = (32 * num_states << self.num_qubits) + 8 * self.compiled.program.num_columns
        size = rows_that_fit(_BLOCK_BYTES, row_bytes, _MIN_BLOCK_ROWS)
        if self.options.memory_limit is not None:
            room = self.options.resolve_memory_limit() // _BLOCKS_IN_LIMIT
            size = min(size, rows_that_fit(room, row_bytes))
        return size

    def _evaluate_block(self, batch: StateBatch, watch: Watch | None) -> StatesVjp:
        """Evaluate a block of rows in this process."""
        try:
            return self._evaluate_rows(batch, watch)
        except DoesNotFit as error:
            if self.on_host is None:
                raise
            say_once(f"device='auto' runs on the CPU: {error}")
        cotangents = None if batch.cotangents is None else to_numpy(batch.cotangents)
        states, gradients = self.on_host._evaluate_rows(batch._replace(cotangents=cotangents), watch)
        return StatesVjp(None if states is None else self.array_module.asarray(states), gradients)

    def _evaluate_rows(self, batch: StateBatch, watch: Watch | None) -> StatesVjp:
        """Evaluate a block of rows in this process, on one device."""
        compiled, phases, values = self.compiled, self._phases, batch.values
        factors = None if phases is None else phases.factors(values)
        is_on_device, gradient, cotangents, exponent = self.runtime is not None, None, None, 0
        boundary = BoundaryStates(final=batch.wants_states, on_device=is_on_device)
        if batch.cotangents is not None:
            gradient = GradientRequest(of_initial_states=compiled.program.encodes(None))
            cotangents, exponent = scaled_cotangents(batch.cotangents, self.options.dtype)
            cotangents = self._order.to_engine(cotangents)
            if factors is not None:
                cotangents = cotangents * factors.conj()
            needs_states = batch.wants_states or (phases is not None and phases.vary)
            boundary = BoundaryStates(final=needs_states, final_cotangents=cotangents, on_device=is_on_device)
        request = Request(values, NO_PAIRS, gradient, boundary, self.options.dtype)
        evaluation = evaluate(self.options, compiled, _no_observables(compiled.num_qubits), request, watch=watch)
        gradients, states = None, evaluation.final_states
        if cotangents is not None:
            gradients = np.ldexp(self._gradients(values, evaluation, cotangents), exponent)
        if not batch.wants_states:
            return StatesVjp(None, gradients)
        assert states is not None
        if factors is not None:
            states *= factors.astype(states.dtype)
        return StatesVjp(self._order.from_engine(states), gradients)

    def _gradients(self, values: np.ndarray, evaluation: Evaluation, cotangents: np.ndarray) -> np.ndarray:
        """Return gradients with respect to parameters, float64 (B, P), the part of the phase included.

        Args:
            values: the parameter values, (B, P).
            evaluation: the gradients and, if phases vary, the states of the engine.
            cotangents: the cotangents of the states of the engine.
        """
        compiled, phases, gradients, slopes = self.compiled, self._phases, evaluation.gradients, None
        if phases is not None and phases.vary:
            slopes = phase_slopes(evaluation.final_states, cotangents)
            phases.add_column_gradients(gradients, slopes)
        gradients = pull_back(compiled, values, gradients, all_pairs(len(values), 1))
        check_derivatives(compiled, values, gradients)
        if phases is not None and slopes is not None:
            gradients = phases.add_parameter_gradients(values, gradients, slopes)
        return gradients

    @cached_property
    def _order(self) -> _Order:
        return _Order(self.compiled, self.only_active)

    @cached_property
    def _phases(self) -> StatePhases | None:
        return StatePhases(self.compiled.fused_program(None)) if self.with_phase else None


class _Order:
    """The place of each amplitude of the engine in the states of this module.

    Args:
        compiled: the circuit.
        only_active: whether idle qubits are left out.
    """

    def __init__(self, compiled: CompiledCircuit, only_active: bool):
        wires = compiled.fused_program(None).wires
        active = np.flatnonzero(wires >= 0)
        self.num_qubits = len(active) if only_active else compiled.num_qubits
        # Amplitude i of the active qubits is amplitude `bits[i]` of the engine and amplitude `qubits[i]` of the result.
        self._bits = _unless_ascending(wires[active].tolist(), len(active))
        self._qubits = None if only_active else _unless_ascending(active.tolist(), compiled.num_qubits)

    def from_engine(self, states: Any) -> Any:
        """Return the states of an engine, complex (B, 2^m) on the m active qubits, as complex (B, 2^n)."""
        xp = array_module(states)
        if self._bits is not None:
            states = states[:, xp.asarray(self._bits)]
        if self._qubits is None:
            return states
        placed = xp.zeros((len(states), 1 << self.num_qubits), dtype=states.dtype)
        placed[:, xp.asarray(self._qubits)] = states
        return placed

    def to_engine(self, cotangents: Any) -> Any:
        """Return cotangents of states (B, 2^n) as cotangents of the states of an engine, complex (B, 2^m).

        On the host they become complex128; on a device they keep their number format.
        """
        xp = array_module(cotangents)
        dtype = np.complex128 if xp is np else cotangents.dtype
        if self._qubits is not None:
            cotangents = cotangents[:, xp.asarray(self._qubits)]
        if self._bits is None:
            return xp.ascontiguousarray(cotangents, dtype=dtype)
        placed = xp.empty(cotangents.shape, dtype=dtype)
        placed[:, xp.asarray(self._bits)] = cotangents
        return placed


def _unless_ascending(positions: list[int], num_bits: int) -> np.ndarray | None:
    """Return `spread` of positions; None where bit k stays bit k and no other bit exists."""
    return None if positions == list(range(num_bits)) else spread(positions)


@lru_cache(maxsize=64)  # engines keep the form that they make of observables as long as the observables live
def _no_observables(num_qubits: int) -> Observables:
    return Observables(num_qubits, 0, (), (), (0,), (), ())


def _evaluate_portion(
    compiled: CompiledCircuit,
    cancelled: Cancellation,
    options: FusedOptions,
    only_active: bool,
    with_phase: bool,
    batch: StateBatch,
) -> StatesVjp:
    """Evaluate a portion of the rows, on a worker."""
    function = FinalStates(compiled, options, only_active, with_phase)
    return function.evaluate(batch, lambda done, total: cancelled.is_set())
