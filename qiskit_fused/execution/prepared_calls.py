# SPDX-License-Identifier: Apache-2.0
"""Prepared calls: requests that differ in their numbers alone are evaluated by one prepared call of the CPU engine.

The call of a small circuit takes as long as a few decisions in Python. All decisions about a request that depend only
on the circuit, the observables, the options, the pairs and the requested gradients are made at the first such request.
They are kept by the identity of these objects, none of which ever changes: an assignment of an option makes another
`FusedOptions.state`, and an observable that was changed in place is converted to other `Observables`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from qiskit_fused.common.caches import BoundedCache, array_bytes
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.engines.cpu.engine import PreparedCall
from qiskit_fused.engines.request import NO_STATES, Request
from qiskit_fused.execution.cone_evaluation import find_grouping, fused_program_of
from qiskit_fused.execution.magnitudes import has_large_cotangents
from qiskit_fused.execution.program_evaluation import ProgramEvaluator, is_for_one_thread
from qiskit_fused.options import FusedOptions
from qiskit_fused.options.default_threads import default_num_threads
from qiskit_fused.program.observables import Observables


class _Preparation(NamedTuple):
    """What was found at the first request of a kind.

    Attributes:
        call: the prepared call; None if each request needs decisions of its own.
        num_threads: the number of threads that the environment gave; None if the call does not depend on it.
        named: the objects whose identities name the kind. Their identities stay theirs while they are kept.
    """

    call: PreparedCall | None
    num_threads: int | None
    named: tuple[Any, ...]


_PREPARATIONS: BoundedCache[_Preparation] = BoundedCache(64 << 20)  # the bound is in bytes


def find_call(
    options: FusedOptions, compiled: CompiledCircuit, operators: Observables, request: Request
) -> PreparedCall | None:
    """Return the prepared call that evaluates a request; None if the request needs decisions of its own."""
    columns, pairs, gradient, boundary, dtype, _, may_vary = request
    if boundary is not NO_STATES or type(columns) is not np.ndarray:
        return None
    cotangents = kind = None
    if gradient is not None:
        cotangents, imaginary, summed, _, of_states = gradient
        kind = cotangents is None, imaginary, of_states, id(summed)
    of_pairs = id(pairs.row), id(pairs.observable)
    key = id(compiled._owner), id(options.state), id(operators), len(columns), kind, of_pairs, id(may_vary), dtype
    found = _PREPARATIONS.get(key)
    if found is None or (found.num_threads is not None and found.num_threads != default_num_threads()):
        if pairs.row.flags.writeable or pairs.observable.flags.writeable:
            return None
        found = _prepare(options, compiled, operators, request)
        num_bytes = array_bytes(operators) + pairs.row.nbytes + pairs.observable.nbytes
        num_bytes += 0 if found.call is None else found.call.num_bytes
        if num_bytes < _PREPARATIONS.max_bytes // 4:
            _PREPARATIONS.put(key, found, num_bytes, compiled._owner, replace=True)
    if cotangents is not None and has_large_cotangents(cotangents, dtype):
        return None
    return found.call


def _prepare(
    options: FusedOptions, compiled: CompiledCircuit, operators: Observables, request: Request
) -> _Preparation:
    """Make the decisions about all requests that differ from this one in their numbers alone."""
    gradient = request.gradient
    named = options.state, operators, request.pairs, request.may_vary, gradient and gradient.summed
    is_decided = options.executor is None and options.num_segments is None and operators.scaled is None
    if not is_decided or find_grouping(compiled, operators, request) is not None:
        return _Preparation(None, None, named)
    fused = fused_program_of(compiled, operators, request)
    request = request._replace(columns=compiled.program.columns(request.columns))
    call = ProgramEvaluator(options, keeps_records=False).prepare(fused, operators, request)
    asks_environment = options.num_threads is None and not is_for_one_thread(fused, request.num_rows)
    num_threads = None if call is None or not asks_environment else default_num_threads()
    return _Preparation(call, num_threads, named)
