# SPDX-License-Identifier: Apache-2.0
"""Interface of the engines: every engine answers the same request with the same evaluation, up to rounding.

Engines differ in the device on which they compute, and in their speed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from qiskit_fused.common.free_memory import TooManyQubits
from qiskit_fused.engines.evaluation import Evaluation
from qiskit_fused.engines.request import Request
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.program.observables import Observables


class DoesNotFit(TooManyQubits):
    """The memory of the device is too small for a single pair. Engines raise this before they allocate anything."""


Watch = Callable[[int, int], bool]
"""``watch(done, total)``: an engine reports that ``done`` of ``total`` steps of an evaluation are finished.

The engine ends the evaluation if the watch returns True. An exception that a watch raises ends the evaluation too.
"""


class Engine(Protocol):
    """An engine evaluates fused programs on one device."""

    def evaluate(
        self, plan: FusedProgram, observables: Observables, request: Request, watch: Watch | None = None
    ) -> Evaluation:
        """Evaluate pairs of rows and observables.

        Args:
            plan: the fused program of the circuit.
            observables: K observables on the circuit's qubits.
            request: the rows, the pairs, the gradients, and the states at both ends of the circuit.
            watch: receives the progress. During long work, the engine calls it from the caller's thread at intervals
                of at most 0.1 s.

        Raises:
            RuntimeError: "the evaluation was cancelled.", when ``watch`` returned True.
            DoesNotFit: when the memory of the device is too small for one pair.
        """
