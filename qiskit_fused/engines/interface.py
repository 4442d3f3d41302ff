# SPDX-License-Identifier: Apache-2.0
"""Engines run plans. All take the same question and give the same answer; they differ in where and how fast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from qiskit_fused.common.free_memory import TooManyQubits
from qiskit_fused.options.method import REVERSE, Method

if TYPE_CHECKING:
    from qiskit_fused.fusion.fused_program import FusedProgram
    from qiskit_fused.program.observables import Observables


@dataclass(eq=False)  # each call makes one of these; to make a frozen one takes 1 us more
class Evaluation:
    """What an engine returns; nobody changes it.

    Attributes:
        values: float64 (N,), the expectation value of each (row, observable) pair.
        gradients: float64 (N, C), 2 Re <psi|O|d psi/d column> (with ``imaginary``: 2 Im), or None if not asked for;
            float64 (B, C) with ``cotangents``, see `Engine.evaluate`.
        stats: what ran: kernels, sweeps, chunks, bytes allocated (on a GPU: predicted for the largest chunk) and, with
            gradient, the name of the method and the states it kept per row (1 with "reverse").
        answer: what ``meanwhile`` returned.
        state_gradients: complex128 (N, 2**n), G with d value = Re sum conj(G) d psi of the start; (B, 2**n) with
            ``cotangents`` of pairs or of final states; None if not asked for.
        final_states: complex128 (B, 2**n), or None if not asked for.
    """

    values: np.ndarray
    gradients: np.ndarray | None
    stats: dict[str, Any] = field(default_factory=dict)
    answer: Any = None
    state_gradients: np.ndarray | None = None
    final_states: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Ends:
    """Statevectors at both ends of the circuit, complex128 on the bits of the plan, that go in or are to come out.

    Attributes:
        initial: (B, 2**n), or (1, 2**n) for all rows, normalised: where rows start, for a plan that takes states.
        initial_gradients: with gradient and ``initial``, return ``Evaluation.state_gradients``.
        final: return ``Evaluation.final_states``, up to a global phase that is the same whenever an engine runs this
            plan from this start. For a plan that leaves no gate out.
        final_cotangents: (B, 2**n), with gradient, without pairs, and not with ``imaginary``: G of the final state of
            each row, in the place of observables. Gradients are then those of ``Re sum conj(G) psi``, (B, C). For a
            plan that leaves no gate out; G has the global phase of ``final``.
    """

    initial: np.ndarray | None = None
    initial_gradients: bool = False
    final: bool = False
    final_cotangents: np.ndarray | None = None


NO_STATES = Ends()


class DoesNotFit(TooManyQubits):
    """Not even one pair fits the memory of the device; known before anything is allocated."""


Watch = Callable[[int, int], bool]
"""``watch(done, total)`` hears how many steps of an evaluation are done, of how many; True: end it. It may raise."""


class Engine(Protocol):
    """The protocol of engines."""

    def evaluate(
        self,
        plan: FusedProgram,
        observables: Observables,
        columns: np.ndarray,
        pairs: tuple[np.ndarray, np.ndarray],
        *,
        gradient: bool = False,
        imaginary: bool = False,
        cotangents: np.ndarray | None = None,
        sum_columns: np.ndarray | None = None,
        dtype: str = "complex128",
        method: Method = REVERSE,
        ends: Ends = NO_STATES,
        meanwhile: Callable[[], Any] | None = None,
        watch: Watch | None = None,
    ) -> Evaluation:
        """Evaluate pairs of rows and observables.

        Args:
            plan: the planned circuit.
            observables: K observables on the circuit's qubits.
            columns: float64 (B, C), the columns of the program (see `Program.columns`).
            pairs: row int32 (N,), ascending, and observable int32 (N,).
            gradient: also return derivatives with respect to every column.
            imaginary: with ``gradient``, return 2 Im <psi|O|d psi> instead of 2 Re; generators are traceless.
            cotangents: float64 (N,), with ``gradient``: a weight for each pair. Gradients are then float64 (B, C),
                those of the weighted sum of each row's pairs (a vector-Jacobian product), zero for rows without pairs.
            sum_columns: bool (C,), with cotangents of pairs or final states: columns of which only the sum of the
                gradients over all rows matters. An engine may give this sum to any row, and the others zeros.
            dtype: number format of the amplitudes, "complex64" or "complex128".
            method: with ``gradient``, how the backward sweep gets its states; gradients are equal up to rounding.
            ends: statevectors that go in or come out.
            meanwhile: called once, beside the sweeps where the engine can.
            watch: called from this thread, every 0.1 s or more often while long work runs; True ends it.

        Raises:
            RuntimeError: "the evaluation was cancelled.", when ``watch`` ended it.
            DoesNotFit: when the memory of the device is too small.
        """
