# SPDX-License-Identifier: Apache-2.0
"""An evaluation, the result that an engine returns for a request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qiskit_fused.engines.request import Request


@dataclass(eq=False)  # not frozen, because each call makes an evaluation and a frozen one takes 1 us longer
class Evaluation:
    """The result of a `Request`. After an engine has returned an evaluation, it is never changed.

    Attributes:
        values: float64 (N,), the expectation value of each pair of a row and an observable.
        gradients: float64 (N, C), 2 Re <psi|O|d psi/d column>, or 2 Im for an ``imaginary`` request; (B, C) if
            `Request.gradients_are_per_row`. Of a request with split columns, the summed columns are left out. None
            without gradients.
        stats: what the engine ran: kernels, sweeps, chunks, bytes allocated (on a GPU: predicted for the largest
            chunk). With gradients also the name of the method, and the states it kept per row (1 with "reverse").
        state_gradients: (N, 2**n) or (B, 2**n), like ``gradients``: G with d value = Re sum conj(G) d psi of the
            initial state; complex128 on the host, the number format of the request on a CUDA device. None if the
            request does not ask for them.
        final_states: complex (B, 2**n) in the number format of the request, on the host or on a CUDA device (see
            `BoundaryStates.on_device`). None if the request does not ask for them.
        sums: float64 (number of summed columns,), the gradients summed over all rows, for a request with split columns.
            None for other requests, where a row of ``gradients`` has the sums.
    """

    values: Any
    gradients: Any = None
    stats: dict[str, Any] = field(default_factory=dict)
    state_gradients: Any = None
    final_states: Any = None
    sums: Any = None


def empty_evaluation(request: Request, num_qubits: int) -> Evaluation:
    """Return an evaluation whose arrays an engine on the host fills.

    The engine writes all values, gradients and final states: the arrays are not initialised, because writing zeros to
    fresh memory takes as long as the sweeps of a few qubits. Gradients of initial states are zeros, which an engine
    leaves in rows without pairs.

    Args:
        request: the request.
        num_qubits: n, the qubits of the states that go in and out.
    """
    gradient, evaluation = request.gradient, Evaluation(np.empty(len(request.pairs.row)))
    if gradient is not None:
        num_gradients = request.num_gradients
        evaluation.gradients = np.empty((num_gradients, request.columns.shape[1]))
        if gradient.of_initial_states:
            evaluation.state_gradients = np.zeros((num_gradients, 1 << num_qubits), dtype=np.complex128)
    if request.boundary.final:
        evaluation.final_states = np.empty((request.num_rows, 1 << num_qubits), dtype=request.dtype)
    return evaluation
