# SPDX-License-Identifier: Apache-2.0
"""Makes requests for tests of engines. A request asks only for the results that its keyword arguments name."""

from typing import Any, NamedTuple

import numpy as np

from qiskit_fused.engines.request import NO_STATES, BoundaryStates, GradientRequest, Pairs, Request
from qiskit_fused.options.method import REVERSE


class Ends(NamedTuple):
    """States at both ends of a circuit, and whether gradients with respect to the initial states are requested."""

    initial: Any = None
    initial_gradients: bool = False
    final: bool = False
    final_cotangents: Any = None


def make_request(
    columns,
    pairs,
    *,
    gradient=False,
    imaginary=False,
    cotangents=None,
    sum_columns=None,
    dtype="complex128",
    method=REVERSE,
    ends=None,
):
    """Return the request of columns (B, C) and pairs (row, observable)."""
    wanted, boundary = None, NO_STATES
    if gradient:
        wanted = GradientRequest(cotangents, imaginary, sum_columns, None, ends is not None and ends.initial_gradients)
    if ends is not None:
        boundary = BoundaryStates(ends.initial, ends.final, ends.final_cotangents)
    return Request(columns, Pairs(*pairs), wanted, boundary, dtype, method)


def ask(engine, plan, observables, columns, pairs, *, watch=None, **options):
    """Return the evaluation of an engine; ``options`` are keyword arguments of `make_request`."""
    return engine.evaluate(plan, observables, make_request(columns, pairs, **options), watch)


def most_bytes(engine, plan, observables, request):
    """Return the most bytes that a request takes: a call for values keeps states if gradients have followed another."""

    def num_bytes(request):
        return engine.evaluate(plan, observables, request).stats["bytes"]

    first = num_bytes(request)
    if request.gradient is not None:
        return first
    gradient, boundary = request._replace(gradient=GradientRequest()), request.boundary
    if boundary.final:
        cotangents = np.zeros((request.num_rows, 1 << plan.num_qubits), complex)
        gradient = gradient._replace(boundary=boundary._replace(final_cotangents=cotangents))
    engine.evaluate(plan, observables, gradient)
    with_states, without_states = num_bytes(request), num_bytes(request)
    return first + with_states - without_states


def request_of(counts, num_columns):
    """Return a request with as many random rows, pairs and gradients as `memory.Counts` says."""
    columns = np.random.default_rng(0).normal(size=(counts.num_rows, num_columns))
    pairs = np.resize(np.arange(counts.num_rows), counts.num_pairs), np.zeros(counts.num_pairs, np.int32)
    return make_request(columns, pairs, gradient=counts.gradient, dtype=counts.dtype)
