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


def request_of(counts, num_columns):
    """Return a request with as many random rows, pairs and gradients as `memory.Counts` says."""
    columns = np.random.default_rng(0).normal(size=(counts.num_rows, num_columns))
    pairs = np.resize(np.arange(counts.num_rows), counts.num_pairs), np.zeros(counts.num_pairs, np.int32)
    return make_request(columns, pairs, gradient=counts.gradient, dtype=counts.dtype)
