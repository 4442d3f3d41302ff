# SPDX-License-Identifier: Apache-2.0
"""Measurements of the deep benchmark. Each runs in a process of its own and returns plain data for the results file.

``options`` are options of `FusedEstimatorGradient`. Angles are uniform in [-pi, pi), and each row has its own angles.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable
from math import isqrt, pi

import numpy as np

from common.comparison import Answer, errors
from common.own import engine_stats
from common.worker import Record, forget_peak_memory, memory_in_use
from common.workloads import Workload, qiskit_circuit, sum_of_z

TURN_SECONDS = 0.1
SEEDS = (0, 1, 2)  # seeds of the angles in the table of errors over the depth, which shows the largest error

DOUBLE = {"dtype": "complex128", "method": "reverse"}  # options of the call with which all other calls are compared

Call = Callable[[np.ndarray], Answer]  # angles (B, P) to values (B,) and gradients (B, P)


class _Problem:
    """A compiled circuit and its observable, which need only angles and options."""

    def __init__(self, workload: Workload) -> None:
        from qiskit_fused import compile_circuit

        logging.getLogger("qiskit_fused").setLevel(logging.ERROR)  # calls with small budgets warn
        self.circuit, _, _ = qiskit_circuit(workload)
        self.compiled = compile_circuit(self.circuit)
        self.observable = sum_of_z(workload.num_qubits)

    def call(self, options: Record) -> Call:
        """Return `value_and_gradient` with these options."""
        from qiskit_fused import FusedEstimatorGradient

        gradient = FusedEstimatorGradient(options=options)

        def call(parameters: np.ndarray) -> Answer:
            values, gradients = gradient.value_and_gradient(self.compiled, self.observable, parameters)
            return values[:, 0], gradients[:, 0]

        return call


def angles(workload: Workload, rows: int, seed: int, repeated: bool = False) -> np.ndarray:
    """Return angles (rows, P), with `repeated` the same in every layer. More rows do not change the first row."""
    rng = np.random.default_rng([seed, workload.num_qubits, workload.num_layers])
    if repeated:
        return np.tile(rng.uniform(-pi, pi, (rows, workload.layer_stride)), workload.num_layers)
    return rng.uniform(-pi, pi, (rows, workload.num_parameters))


def answer(workload: Workload, options: Record, rows: int) -> Answer:
    """Return values and gradients of the angles with which `measure` starts."""
    return _Problem(workload).call(options)(angles(workload, rows, 0))


def measure(workload: Workload, options: Record, rows: int, calls: int) -> tuple[Record, Answer]:
    """Time a first call and more calls, each with new angles; return a record and the answer of the first call.

    The record holds seconds, and bytes of memory: of the whole process at its peak, before the first call, and what the
    engine says that it allocated.
    """
    call = _Problem(workload).call(options)
    prepared, before = memory_in_use("VmHWM"), memory_in_use("VmRSS")
    forget_peak_memory()
    times, first = [], None
    with engine_stats() as stats:
        for seed in range(1 + calls):
            parameters = angles(workload, rows, seed)
            start = time.perf_counter()
            found = call(parameters)
            times.append(time.perf_counter() - start)
            first = first or found
    peak = memory_in_use("VmHWM")
    record = {"first_call_s": times[0], "times_s": times[1:], "median_s": statistics.median(times[1:])}
    record |= {"prepared_peak_bytes": prepared, "before_bytes": before, "calls_peak_bytes": peak}
    record["peak_bytes"] = None if peak is None or prepared is None else max(peak, prepared)
    record |= _engine_figures(stats[-1])
    record["engine_bytes"] = max((stat["bytes"] for stat in stats if "bytes" in stat), default=None)
    return record, first


def measure_budgets(workload: Workload, options: Record, settings: list[Record], turns: int) -> list[Record]:
    """Let settings of method and memory limit take turns of about 0.1 s; return their records.

    A setting that does not fit has the error's text as `does_not_fit`. Errors are relative to double precision.
    """
    problem, start = _Problem(workload), angles(workload, 1, 0)
    true = problem.call(options | DOUBLE)(start)
    records, running = [], []
    with engine_stats() as stats:
        for setting in settings:
            record = dict(setting)
            records.append(record)
            one = problem.call(options | setting)
            try:
                found = one(start)
            except MemoryError as error:
                record["does_not_fit"] = str(error)
                continue
            record |= errors(found, true) | _engine_figures(stats[-1]) | {"times_s": []}
            begin = time.perf_counter()
            one(start)
            running.append((one, record, max(1, round(TURN_SECONDS / (time.perf_counter() - begin)))))
    for turn in range(turns):
        for one, record, calls in running:
            parameters = [angles(workload, 1, 1 + turn * calls + k) for k in range(calls)]
            begin = time.perf_counter()
            for row in parameters:
                one(row)
            record["times_s"].append((time.perf_counter() - begin) / calls)
    for _, record, _ in running:
        record["median_s"] = statistics.median(record["times_s"])
    return records


def measure_drift(workload: Workload, options: Record) -> list[Record]:
    """Return the errors of gradients, compared with method "reverse" in double precision.

    An error is max |dg| / max |g|; the lists run over `SEEDS`. Checkpoints are kept about every sqrt(L) layers. The
    error of double precision with checkpoints is the accuracy of the comparison itself.
    """
    problem = _Problem(workload)
    reference = problem.call(options | DOUBLE)
    checkpoints = {"method": "checkpoint", "num_segments": isqrt(workload.num_layers)}
    settings = [
        {"dtype": "complex64", "method": "reverse"},
        {"dtype": "complex64", **checkpoints},
        {"dtype": "complex128", **checkpoints},
    ]
    records = []
    for repeated in (False, True):
        rows = [angles(workload, 1, seed, repeated) for seed in SEEDS]
        true = [reference(row) for row in rows]
        for setting in settings:
            one = problem.call(options | setting)
            largest = [errors(one(row), expected)["gradient_error"] for row, expected in zip(rows, true, strict=True)]
            records.append({**setting, "repeated": repeated, "errors": largest, "error": max(largest)})
    return records


def _engine_figures(stats: Record) -> Record:
    names = {"engine_method": "method", "states": "states", "engine_bytes": "bytes", "sweep_s": "sweep_seconds"}
    return {name: stats.get(key) for name, key in names.items()}
