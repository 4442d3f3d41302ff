# SPDX-License-Identifier: Apache-2.0
"""One batch with all its rows in memory: each plan of it runs on its device, within the memory limit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from qiskit_fused.common.byte_sizes import LEAST_LIMIT, format_bytes
from qiskit_fused.common.free_memory import ALWAYS_FREE
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.engines.cpu.costs import chunk_bits
from qiskit_fused.engines.cpu.method import Choice, choose
from qiskit_fused.engines.evaluation import Evaluation
from qiskit_fused.engines.interface import DoesNotFit, Watch
from qiskit_fused.engines.request import Request
from qiskit_fused.execution.devices import bytes_of_states, choose_device, engine_for, say_once
from qiskit_fused.execution.initial_states import evaluate_from_states
from qiskit_fused.execution.shared_evaluation import LIMIT_SHARE, MOST_BYTES, SharedBatch, evaluate_shared, find_mode
from qiskit_fused.execution.shared_parts import ROWS, find_sharing, is_worth_splitting, may_share
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.fusion.light_cones import with_seen_gates
from qiskit_fused.options import FusedOptions
from qiskit_fused.program.observables import Observables


class _Ran(NamedTuple):
    """One evaluation by an engine: the device, the plan, what rows shared, and the stats of the engine."""

    device: str
    plan: FusedProgram
    shared: str
    stats: dict[str, Any]


class PlanRuns:
    """Runs plans of one circuit, and keeps what ran.

    Args:
        options: device, threads and memory limit.
        compiled: the circuit.
    """

    def __init__(self, options: FusedOptions, compiled: CompiledCircuit):
        self.options, self.compiled = options, compiled
        self._ran: list[_Ran] = []

    def stats(self, request: Request) -> Iterator[dict[str, Any]]:
        """Yield the stats of each evaluation by an engine, with what an engine may leave out."""
        for device, plan, shared, stats in self._ran:
            num_bytes = bytes_of_states(plan, request.dtype, request.gradient is not None)
            names = {"device": device, "dtype": request.dtype, "shared": shared}
            yield {"kernels": device, "chunks": 1, "bytes": num_bytes, **stats, **names}

    def run(
        self, plan: FusedProgram, operators: Observables, request: Request, watch: Watch | None, held: int = 0
    ) -> Evaluation:
        """Evaluate some terms of the observables, all rows together or what they share first.

        Args:
            plan: the gates that the terms see.
            operators: the terms.
            request: rows and pairs.
            watch: hears of these terms.
            held: bytes of results of other terms, which are there meanwhile.

        Raises:
            MemoryError: when the batch does not fit the memory limit.
        """
        options = self.options
        num_adjoint_states = request.num_adjoint_states or 0
        gradient = request.gradient is not None
        device = "cuda"  # where arrays are there already
        if not request.is_on_device:
            device = choose_device(options, plan, request.num_rows, num_adjoint_states, gradient)
        shared = self._find_shared(device, plan, operators, request)
        try:
            return self._run_on(device, plan, operators, request, watch, held, shared)
        except DoesNotFit as error:
            if options.device != "auto" or request.is_on_device:
                raise
            say_once(f"device='auto' runs on the CPU: {error}")
            return self._run_on("cpu", plan, operators, request, watch, held, shared)

    def _run_on(
        self,
        device: str,
        plan: FusedProgram,
        operators: Observables,
        request: Request,
        watch: Watch | None,
        held: int,
        shared: SharedBatch | None,
    ) -> Evaluation:
        if device == "reference":
            plan = with_seen_gates(plan)
        mode = ROWS if shared is None else shared.mode
        on_device = _OnDevice(device, _beside(held, self.options), operators, mode, self._ran)
        if shared is not None:
            return evaluate_shared(on_device.run, shared, watch)
        return on_device.run(plan, request, watch)

    def _find_shared(
        self, device: str, plan: FusedProgram, operators: Observables, request: Request
    ) -> SharedBatch | None:
        """Return how to simulate once what all rows share, or None where that does not pay."""
        if not may_share(plan, request.num_rows) or device == "reference" or request.imaginary or request.is_on_device:
            return None
        options, varies = self.options, request.may_vary
        if varies is None:
            varies = request.varying_columns
            if not is_worth_splitting(plan, varies, request.num_rows):
                return None
        room = MOST_BYTES
        if options.memory_limit is not None:
            room = min(room, options.resolve_memory_limit() // LIMIT_SHARE)
        batch = SharedBatch(find_sharing(plan, varies), operators, request, room)
        mode = find_mode(batch)
        return None if mode == ROWS else batch._replace(mode=mode)


class _OnDevice(NamedTuple):
    """Evaluates plans on one device.

    Attributes:
        device: its name.
        options: with the memory limit that is left.
        operators: the observables.
        mode: what rows share.
        ran: the list that evaluations are added to.
    """

    device: str
    options: FusedOptions
    operators: Observables
    mode: str
    ran: list[_Ran]

    def run(self, plan: FusedProgram, request: Request, watch: Watch | None) -> Evaluation:
        """Evaluate a plan; rows start as the plan says, or in states that the request brings."""
        options = self.options
        if self.device == "cuda":
            engine, method = engine_for(self.device, options), options.gpu_method()
        else:
            choice = choose_method(options, plan, self.operators, request)
            engine, method = engine_for(self.device, options, choice.num_threads), choice.method

        def run_on_engine(part: Request, watch: Watch | None) -> Evaluation:
            found = engine.evaluate(plan, self.operators, part, watch)
            self.ran.append(_Ran(self.device, plan, self.mode, found.stats))
            return found

        columns, pairs, gradient, boundary, dtype, _, may_vary = request
        if gradient is not None and gradient.of_initial_states and not plan.takes_states:
            gradient = gradient._replace(of_initial_states=False)  # nobody sees the states that rows start in
        request = Request(columns, pairs, gradient, boundary, dtype, method, may_vary)
        if plan.takes_states and (boundary.initial is None or boundary.on_circuit_qubits):
            return evaluate_from_states(plan, request, run_on_engine, watch)
        return run_on_engine(request, watch)


def _beside(held: int, options: FusedOptions) -> FusedOptions:
    """Return options whose memory limit is lower by the bytes of arrays that are held.

    Raises:
        MemoryError: when they leave nothing.
    """
    if not held or (options.memory_limit is None and held <= ALWAYS_FREE):
        return options
    limit = options.resolve_memory_limit()
    if limit - held < LEAST_LIMIT:
        raise MemoryError(
            f"values and gradients take {format_bytes(held)}, memory_limit is {format_bytes(limit)}; ask for fewer "
            "rows or observables at a time or raise memory_limit."
        )
    return replace(options, memory_limit=limit - held)


def choose_method(options: FusedOptions, plan: FusedProgram, operators: Observables, request: Request) -> Choice:
    """Return method and threads for a request on the CPU.

    Raises:
        MemoryError: when it does not fit the memory limit.
        ValueError: for options that do not go together.
    """
    options.check_method()
    # Threads share a batch row by row, or a row chunk by chunk. To ask the environment for their number takes 2 us.
    is_for_one_thread = request.num_rows == 1 and not chunk_bits(plan.num_qubits)
    choice = choose(
        plan,
        request,
        operators.restrict(plan.wires),
        method=options.method,
        num_segments=options.num_segments,
        num_threads=1 if is_for_one_thread else options.resolve_num_threads(),
        limit_of=options.limit_for,
        limit_name="80 % of the free memory" if options.memory_limit is None else "memory_limit",
    )
    if choice.advice:
        say_once(choice.advice)
    return choice
