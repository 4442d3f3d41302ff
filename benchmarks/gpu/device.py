# SPDX-License-Identifier: Apache-2.0
"""The device of the GPU benchmark: its description, its ceilings, and the work of our calls on it.

These functions run in the process of our contender (see common/worker.py).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from common.worker import _current

# Eight independent chains of multiply-adds in each thread keep the units busy at any latency. The factors a and b are
# arguments, so that the compiler cannot fold the chains.
_CEILINGS = r"""
extern "C" __global__ void multiply_add(float* out, float a, float b, int rounds) {
    float x[8];
    for (int k = 0; k < 8; k++) x[k] = threadIdx.x + k * b;
    for (int i = 0; i < rounds; i++) {
#pragma unroll
        for (int j = 0; j < 32; j++) {
#pragma unroll
            for (int k = 0; k < 8; k++) x[k] = fmaf(x[k], a, b);
        }
    }
    float sum = 0;
    for (int k = 0; k < 8; k++) sum += x[k];
    out[(size_t)blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

extern "C" __global__ void copy(const float4* in, float4* out, long long size) {
    const long long stride = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) out[i] = in[i];
}
"""
_FLOPS_PER_ROUND, _ROUNDS = 2 * 8 * 32, 2048
_THREADS, _BLOCKS_PER_MULTIPROCESSOR = 256, 8
_REPETITIONS = 20


def describe_device(device: str) -> dict[str, Any]:
    """Return the name and sizes of the device, or ``{"unusable": reason}``."""
    from qiskit_fused.engines.selection import select_engine

    try:
        select_engine(device)
    except RuntimeError as error:
        return {"unusable": str(error)}
    if device == "cpu":
        return {"name": "CPU (dry run)"}
    import cupy

    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(cupy.cuda.Device().id)
    return {
        "name": properties["name"].decode(),
        "compute_capability": f"{properties['major']}.{properties['minor']}",
        "multiprocessors": properties["multiProcessorCount"],
        "l2_bytes": properties["l2CacheSize"],
        "memory_bytes": properties["totalGlobalMem"],
        "driver": runtime.driverGetVersion(),
        "runtime": runtime.runtimeGetVersion(),
        "nvrtc": ".".join(map(str, cupy.cuda.nvrtc.getVersion())),
    }


def ceilings(device: str, num_threads: int) -> dict[str, float]:
    """Measure flop/s of single-precision multiply-adds, and the bytes/s that a copy in memory reads and writes."""
    if device == "cpu":
        from qiskit_fused.engines.cpu.engine import fma_peak

        source = np.random.default_rng(0).random(2**20)
        seconds = _median_seconds(partial(np.copyto, np.empty_like(source), source))
        return {"flops_per_second": fma_peak("complex64", num_threads), "bytes_per_second": 2 * source.nbytes / seconds}
    import cupy

    module = cupy.RawModule(code=_CEILINGS, options=("-std=c++17",))
    grid = cupy.cuda.Device().attributes["MultiProcessorCount"] * _BLOCKS_PER_MULTIPROCESSOR
    results = cupy.empty(grid * _THREADS, dtype=cupy.float32)
    arguments = (results, np.float32(0.999), np.float32(0.5), np.int32(_ROUNDS))
    seconds = _median_device_seconds(partial(module.get_function("multiply_add"), (grid,), (_THREADS,), arguments))
    flops = _FLOPS_PER_ROUND * _ROUNDS * grid * _THREADS / seconds
    size = min(2**28, cupy.cuda.runtime.memGetInfo()[0] // 64 // 16 * 16)  # float4: 4 GiB, far beyond any cache
    source = cupy.random.default_rng(0).random(4 * size, dtype=cupy.float32)  # copies of zeros may be faster
    target = cupy.empty_like(source)
    arguments = (source, target, np.int64(size))
    seconds = _median_device_seconds(partial(module.get_function("copy"), (grid,), (_THREADS,), arguments))
    if not all(bool((a == b).all()) for a, b in zip(cupy.split(source, 16), cupy.split(target, 16), strict=True)):
        raise RuntimeError("the copy of the ceiling measurement is wrong")
    return {"flops_per_second": flops, "bytes_per_second": 2 * 16 * size / seconds}


def _median_seconds(function: Callable[[], Any]) -> float:
    times = []
    for _ in range(_REPETITIONS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _median_device_seconds(function: Callable[[], Any]) -> float:
    import cupy

    times = []
    for i in range(3 + _REPETITIONS):
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        begin.record()
        function()
        end.record()
        end.synchronize()
        if i >= 3:
            times.append(1e-3 * cupy.cuda.get_elapsed_time(begin, end))
    return statistics.median(times)


def work() -> dict[str, Any]:
    """Return the statistics of the latest call of our engine, and the work of a row."""
    contender = _current["contender"]
    return {"stats": _plain(contender.stats), "work": contender.row_work()}


def _plain(stats: dict[str, Any]) -> dict[str, Any]:
    return {name: value if isinstance(value, (int, float, str)) else str(value) for name, value in stats.items()}
