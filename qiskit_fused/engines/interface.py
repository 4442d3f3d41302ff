# SPDX-License-Identifier: Apache-2.0
"""Engines run plans. All take the same request and give the same answer; they differ in where and how fast."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from qiskit_fused.common.free_memory import TooManyQubits
from qiskit_fused.engines.evaluation import Evaluation
from qiskit_fused.engines.request import Request

if TYPE_CHECKING:
    from qiskit_fused.fusion.fused_program import FusedProgram
    from qiskit_fused.program.observables import Observables


class DoesNotFit(TooManyQubits):
    """Not even one pair fits the memory of the device; known before anything is allocated."""


Watch = Callable[[int, int], bool]
"""``watch(done, total)`` hears how many steps of an evaluation are done, of how many; True: end it. It may raise."""


class Engine(Protocol):
    """The protocol of engines."""

    def evaluate(
        self, plan: FusedProgram, observables: Observables, request: Request, watch: Watch | None = None
    ) -> Evaluation:
        """Evaluate pairs of rows and observables.

        Args:
            plan: the planned circuit.
            observables: K observables on the circuit's qubits.
            request: rows, pairs, gradients, and the states that go in or come out.
            watch: called from this thread, every 0.1 s or more often while long work runs; True ends it.

        Raises:
            RuntimeError: "the evaluation was cancelled.", when ``watch`` ended it.
            DoesNotFit: when the memory of the device is too small.
        """
