# SPDX-License-Identifier: Apache-2.0
"""qiskit-fused as a contender, and figures that are measured for qiskit-fused only.

The figures are the drop-in route, the share of the machine's peak, and a circuit of very many parameters. Their
functions run in a worker process and return plain dicts for the results file.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from common.contender import Contender, Result
from common.workloads import Workload, hardware_efficient, qiskit_circuit, sum_of_z

OTHER_CHECKOUT = "QISKIT_FUSED_OTHER_CHECKOUT"  # environment variable with the folder of `FusedOther`


class Fused(Contender):
    """qiskit-fused: one `value_and_gradient` call on the compiled circuit."""

    label, package = "qiskit-fused", "qiskit-fused"

    def prepare(self, workload: Workload) -> None:
        from qiskit_fused import FusedEstimatorGradient, compile_circuit

        self.num_inputs = workload.num_inputs
        self.circuit, _, _ = qiskit_circuit(workload)
        self.given = compile_circuit(self.circuit)
        self.observable = workload.operator()
        self.gradient = FusedEstimatorGradient(options={"dtype": self.dtype, "num_threads": self.num_threads})

    def __call__(self, parameters: np.ndarray) -> Result:
        values, gradients = self.gradient.value_and_gradient(self.given, self.observable, parameters)
        return values[:, 0], gradients[:, 0, self.num_inputs :]


class FusedCircuit(Fused):
    """qiskit-fused given a `QuantumCircuit`, which every call compares with its compiled form."""

    label, precisions = "qiskit-fused, circuit", ("complex64",)

    def prepare(self, workload: Workload) -> None:
        super().prepare(workload)
        self.given = self.circuit


class FusedOther(Fused):
    """qiskit-fused of another checkout, which is compiled in place and whose folder `OTHER_CHECKOUT` names."""

    label = "qiskit-fused, other checkout"

    def prepare(self, workload: Workload) -> None:
        folder = os.environ[OTHER_CHECKOUT]
        if folder not in sys.path:
            sys.path.insert(0, folder)
        super().prepare(workload)
        found = Path(sys.modules["qiskit_fused"].__file__ or "").parent
        if found != Path(folder, "qiskit_fused"):
            raise ImportError(f"qiskit_fused was imported from {found}, not from {folder}")


class FusedDropIn(Fused):
    """qiskit-fused as a drop-in: a job of `FusedEstimator.run`, then a job of `FusedEstimatorGradient.run`."""

    def prepare(self, workload: Workload) -> None:
        from qiskit_fused import FusedEstimator

        super().prepare(workload)
        self.estimator = FusedEstimator(options={"dtype": self.dtype, "num_threads": self.num_threads})

    def __call__(self, parameters: np.ndarray) -> Result:
        rows = len(parameters)
        values = self.estimator.run([(self.circuit, self.observable, parameters)]).result()[0].data.evs
        result = self.gradient.run([self.circuit] * rows, [self.observable] * rows, parameters).result()
        return values, np.array(result.gradients)[:, self.num_inputs :]


@contextmanager
def engine_stats() -> Iterator[list[dict[str, Any]]]:
    """Collect the statistics of every evaluation of the CPU engine; `value_and_gradient` does not return them.

    Prepared calls have no statistics, so none is made meanwhile.
    """
    from qiskit_fused.engines.cpu.engine import CpuEngine

    collected: list[dict[str, Any]] = []
    original = CpuEngine.evaluate

    def evaluate(*arguments: Any, **keywords: Any) -> Any:
        evaluation = original(*arguments, **keywords)
        collected.append(evaluation.stats)
        return evaluation

    without = mock.patch("qiskit_fused.execution.evaluate.find_call", return_value=None)
    with without, mock.patch.object(CpuEngine, "evaluate", evaluate):
        yield collected


def drop_in(workload: Workload, num_threads: int, seconds: float = 0.5) -> dict[str, float]:
    """Time estimator.run and gradient.run on one row, in turns with value_and_gradient; complex64, milliseconds."""
    workload = replace(workload, batch=1)
    routes = [Fused("complex64", num_threads), FusedDropIn("complex64", num_threads)]
    for route in routes:
        route.prepare(workload)
        route(workload.parameters(0))
    times: list[list[float]] = [[], []]
    stop = time.perf_counter() + seconds
    while len(times[0]) < 5 or (time.perf_counter() < stop and len(times[0]) < 1000):
        parameters = workload.parameters(len(times[0]))
        for route, record in zip(routes, times, strict=True):
            start = time.perf_counter()
            route(parameters)
            record.append(time.perf_counter() - start)
    fused, route_median = (1e3 * statistics.median(record) for record in times)
    return {"value_and_gradient_ms": fused, "drop_in_ms": route_median, "on_top_ms": route_median - fused}


def peak_fraction(num_qubits: int, num_layers: int = 20, seconds: float = 1.0) -> dict[str, float]:
    """Compare the sweeps of value_and_gradient with the multiply-add peak of a core; complex64, one thread."""
    from qiskit_fused import fuse
    from qiskit_fused.engines.cpu.engine import fma_peak

    workload = hardware_efficient(num_qubits, num_layers)
    fused = Fused("complex64", 1)
    fused.prepare(workload)
    fused(workload.parameters(0))
    flops = fuse(fused.circuit, fused.observable).flops(gradient=True)
    peak = fma_peak("complex64", 1)
    with engine_stats() as stats:
        stop = time.perf_counter() + seconds
        while len(stats) < 5 or (time.perf_counter() < stop and len(stats) < 1000):
            fused(workload.parameters(len(stats)))
    peak = max(peak, fma_peak("complex64", 1))
    sweeps = statistics.median(stat["sweep_seconds"] for stat in stats)
    return {
        "num_qubits": num_qubits,
        "num_layers": num_layers,
        "flops": flops,
        "peak_flops_per_second": peak,
        "sweep_ms": 1e3 * sweeps,
        "bind_ms": 1e3 * statistics.median(stat["bind_seconds"] for stat in stats),
        "fraction": flops / sweeps / peak,
    }


def many_parameters(num_qubits: int, num_layers: int, num_threads: int) -> dict[str, float]:
    """Lower, plan and re-bind a very deep circuit; re-binding is the time of value_and_gradient outside the sweeps."""
    from qiskit_fused import FusedEstimatorGradient, fuse

    workload = hardware_efficient(num_qubits, num_layers)
    start = time.perf_counter()
    circuit, _, _ = qiskit_circuit(workload)
    built = time.perf_counter()
    observable = sum_of_z(num_qubits)
    fuse(circuit, observable)
    planned = time.perf_counter()
    gradient = FusedEstimatorGradient(options={"dtype": "complex64", "num_threads": num_threads})
    calls = []
    with engine_stats() as stats:
        for seed in range(2):  # the first call hands the plan to the engine
            parameters = workload.parameters(seed)
            begin = time.perf_counter()
            gradient.value_and_gradient(circuit, observable, parameters)
            calls.append(time.perf_counter() - begin)
    return {
        "num_qubits": num_qubits,
        "num_layers": num_layers,
        "num_parameters": workload.num_parameters,
        "num_gates": len(circuit.data),
        "build_circuit_s": built - start,
        "lower_and_plan_s": planned - built,
        "first_call_s": calls[0],
        "call_s": calls[1],
        "sweep_s": stats[1]["sweep_seconds"],
        "rebind_s": calls[1] - stats[1]["sweep_seconds"],
        "rebind_in_engine_s": stats[1]["bind_seconds"],
    }


def work(workload: Workload) -> dict[str, int]:
    """Return the cost of a row: the flops of its sweeps, and the bytes that they read and write in complex64."""
    from qiskit_fused import fuse

    circuit, _, _ = qiskit_circuit(workload)
    plan = fuse(circuit, workload.operator())
    return {"flops": plan.flops(gradient=True), "bytes_moved": plan.bytes_moved("complex64", gradient=True)}


def ceilings(num_threads: int) -> dict[str, float]:
    """Measure flop/s of single-precision multiply-adds, and the bytes/s that a copy in memory reads and writes."""
    from qiskit_fused.engines.cpu.engine import fma_peak

    flops = max(fma_peak("complex64", num_threads) for _ in range(3))
    return {"flops_per_second": flops, "bytes_per_second": memory_bandwidth(num_threads)}


def memory_bandwidth(num_threads: int, size: int = 2**28, repetitions: int = 5) -> float:
    """Return the bytes/s, read plus written, at which threads copy arrays of `size` bytes, beyond any cache."""
    source = np.random.default_rng(0).integers(255, size=size, dtype=np.uint8)  # pages of zeros would share memory
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(target, num_threads), np.array_split(source, num_threads), strict=True))
    seconds = []
    with ThreadPoolExecutor(num_threads) as pool:
        for _ in range(1 + repetitions):  # the first copy touches the pages of the target
            start = time.perf_counter()
            list(pool.map(lambda part: np.copyto(*part), parts))
            seconds.append(time.perf_counter() - start)
    return 2 * size / min(seconds[1:])


def simd_level() -> str:
    """Return the instruction set that the engine chose."""
    from qiskit_fused.engines.cpu.engine import isa

    return str(isa())
