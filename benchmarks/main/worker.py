# SPDX-License-Identifier: Apache-2.0
"""One process per contender: own thread pools, own global configuration, own memory, and a crash stays its own.

The parent sends a function and its arguments, the child answers with what the function returned. The functions below
run in the child and share `_current`, the contender and the workload it was prepared for.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from common.contender import Contender
from common.workloads import Workload, efficient_su2

_MIB = 2.0**20
_current: dict[str, Any] = {}


class WorkerError(RuntimeError):
    """A contender raised, died, or did not answer in time."""


class Worker:
    """The parent's end of a contender's process, which is started when first needed."""

    def __init__(self, contender: type[Contender], dtype: str, num_threads: int, timeout: float = 180.0) -> None:
        self.contender, self.dtype, self.timeout = contender, dtype, timeout
        self._arguments = (contender, dtype, num_threads)
        self._process: Any = None

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a module-level function in the process.

        Raises:
            WorkerError: with the first line of the child's error.
        """
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._connection, child = context.Pipe()
            self._process = context.Process(target=_serve, args=(child, *self._arguments), daemon=True)
            self._process.start()
            child.close()
        try:
            self._connection.send((function, arguments))
            if not self._connection.poll(self.timeout):
                self.close(kill=True)
                raise WorkerError(f"no answer within {self.timeout:g} s")
            error, result = self._connection.recv()
        except (EOFError, OSError) as exc:
            self.close(kill=True)
            raise WorkerError("the process died") from exc
        if error:
            raise WorkerError(error)
        return result

    def close(self, kill: bool = False) -> None:
        """End the process."""
        if self._process is None:
            return
        if not kill:
            with contextlib.suppress(OSError):
                self._connection.send(None)
            self._process.join(5)
        self._process.kill()
        self._process.join()
        self._connection.close()
        self._process = None


def _serve(connection: Connection, contender: type[Contender], dtype: str, num_threads: int) -> None:
    _current["contender"] = contender(dtype, num_threads)
    while (message := connection.recv()) is not None:
        function, arguments = message
        output = io.StringIO()  # imports of some libraries log advice; stdout is for the table
        try:
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                answer = "", function(*arguments)
        except Exception as exc:
            answer = f"{type(exc).__name__}: {str(exc).strip()}".splitlines()[0][:200], None
        connection.send(answer)


def prepare(workload: Workload) -> float:
    """Prepare the contender; return the seconds it took. Its libraries are loaded before, on a tiny workload."""
    if "workload" not in _current:
        tiny = efficient_su2(2, 1, batch=2)
        _current["contender"].prepare(tiny)
        _current["contender"](tiny.parameters(0))
    contender: Contender = _current["contender"].anew()
    _current.update(contender=contender, workload=workload)
    return_free_memory()
    _current["before"] = memory_in_use("VmRSS")
    forget_peak_memory()
    start = time.perf_counter()
    contender.prepare(workload)
    seconds = time.perf_counter() - start
    _current["peak"] = memory_in_use("VmHWM")
    return_free_memory()
    _current["prepared"] = memory_in_use("VmRSS")
    forget_peak_memory()
    return seconds


def first_call(seed: int) -> tuple[float, np.ndarray, np.ndarray]:
    """Call once; return seconds (compilation included), values and gradients."""
    parameters = _current["workload"].parameters(seed)
    start = time.perf_counter()
    values, gradients = _current["contender"](parameters)
    return time.perf_counter() - start, np.asarray(values), np.asarray(gradients)


def turn(seed: int, calls: int) -> float:
    """Call several times, each time with new parameters; return the mean seconds per call."""
    contender, workload = _current["contender"], _current["workload"]
    parameters = [workload.parameters(seed + i) for i in range(calls)]
    start = time.perf_counter()
    for values in parameters:
        contender(values)
    return (time.perf_counter() - start) / calls


def memory_growth() -> dict[str, float | None]:
    """Return how far memory rose above what was in use before `prepare`, and in the calls behind it, in MiB."""
    before, prepared, peaks = _current["before"], _current["prepared"], (_current["peak"], memory_in_use("VmHWM"))
    if before is None or prepared is None or None in peaks:
        return {"peak_mib": None, "calls_mib": None}
    return {"peak_mib": (max(peaks) - before) / _MIB, "calls_mib": (peaks[1] - prepared) / _MIB}


def return_free_memory() -> None:
    """Give the memory of what is no longer used back to the system, so that using it again counts."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def forget_peak_memory() -> None:
    """Forget the highest memory use so far: VmHWM starts again at what is in use."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def memory_in_use(field: str) -> float | None:
    """Return a field of /proc/self/status in bytes, VmRSS (now) or VmHWM (at most); None where /proc is missing."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next((float(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(field)), None)
