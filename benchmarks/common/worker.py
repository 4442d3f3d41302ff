# SPDX-License-Identifier: Apache-2.0
"""The process of a contender, and what runs in it.

Each contender has a process of its own, with its own thread pools, global configuration and memory, and a crash ends
that process alone. The parent sends a module-level function and its arguments; the child answers with the result. The
functions below run in the child and share `_current`, the contender and the workload that it was prepared for.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from common.contender import Contender
from common.workloads import Workload

Record = dict[str, Any]

_MIB = 2.0**20
_SHORT = 1.0  # seconds; turns of shorter calls start with an untimed call, if the contender asks for it
_current: Record = {}


class WorkerError(RuntimeError):
    """A contender raised an error, died, or did not answer in time."""


class Worker:
    """The parent's end of a process, which is started when it is first needed.

    Args:
        contender: The contender that lives in the process; None for a process that only runs functions.
        dtype: The precision of the contender.
        num_threads: The number of threads of the contender.
        timeout: The longest time in seconds for an answer; None for any time.
    """

    def __init__(
        self,
        contender: type[Contender] | None = None,
        dtype: str = "",
        num_threads: int = 1,
        timeout: float | None = 180.0,
    ) -> None:
        self.contender, self.dtype, self.timeout = contender, dtype, timeout
        self._arguments = (contender, dtype, num_threads)
        self._process: Any = None

    def call(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Run a module-level function in the process.

        Raises:
            WorkerError: If the function failed, with the first line of its error.
        """
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._connection, child = context.Pipe()
            self._process = context.Process(target=_serve, args=(child, *self._arguments), daemon=True)
            self._process.start()
            child.close()
        try:
            self._connection.send((function, arguments, keywords))
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


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own, so that its peak memory and its death are its own.

    Raises:
        WorkerError: If the function failed, with the first line of its error.
    """
    process = Worker(timeout=None)
    try:
        return process.call(function, *arguments)
    finally:
        process.close()


def attempt(function: Callable[..., Any], *arguments: Any) -> tuple[Any, str | None]:
    """Call a function in a process of its own; return its result, and the text of its error or None."""
    try:
        return alone(function, *arguments), None
    except WorkerError as error:
        return None, str(error)


def _serve(connection: Connection, contender: type[Contender] | None, dtype: str, num_threads: int) -> None:
    if contender is not None:
        _current["contender"] = contender(dtype, num_threads)
    while (message := connection.recv()) is not None:
        function, arguments, keywords = message
        output = io.StringIO()  # some libraries log advice when they are imported; stdout is for the tables
        try:
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                answer = "", function(*arguments, **keywords)
        except Exception as exc:
            answer = f"{type(exc).__name__}: {str(exc).strip()}".splitlines()[0][:200], None
        connection.send(answer)


def prepare(workload: Workload, **attributes: Any) -> Record:
    """Prepare the contender, with `attributes` set before; return the seconds this took, its rows and its settings."""
    contender: Contender = _current["contender"].anew(**attributes)
    if "workload" not in _current and contender.warm_up is not None:
        contender.prepare(contender.warm_up)
        contender(contender.warm_up.parameters(0))
        contender = contender.anew(**attributes)
    _current.update(contender=contender, workload=workload)
    return_free_memory()
    _current["before"] = memory_in_use("VmRSS")
    forget_peak_memory()
    start = time.perf_counter()
    contender.prepare(workload)
    record = {"prepare_s": time.perf_counter() - start, "rows": contender.rows or workload.batch}
    _current["workload"] = replace(workload, batch=record["rows"])
    _current["peak"] = memory_in_use("VmHWM")
    return_free_memory()
    _current["prepared"] = memory_in_use("VmRSS")
    forget_peak_memory()
    return record | ({"settings": contender.settings} if contender.settings else {})


def first_calls(calls: int = 1, rows: int | None = None) -> tuple[float, np.ndarray, np.ndarray]:
    """Call with the seeds 0 to calls - 1; return seconds of the first call, all values and all gradients.

    The seconds include compilation. The arrays have the calls as their first axis. `rows` is the number of rows of a
    call; None takes the rows of the workload.
    """
    contender, workload = _current["contender"], _current["workload"]
    if rows is not None:
        workload = replace(workload, batch=rows)
    seconds, answers = [], []
    for seed in range(calls):
        parameters = workload.parameters(seed)
        start = time.perf_counter()
        result = contender(parameters)
        contender.synchronize()
        seconds.append(time.perf_counter() - start)
        values, gradients = contender.answer(result)
        answers.append((np.array(values), np.array(gradients)))
    if rows is None:
        _current["seconds"] = seconds[-1]
    contender.release()
    values, gradients = zip(*answers, strict=True)
    return seconds[0], np.stack(values), np.stack(gradients)


def turn(seed: int, calls: int) -> float:
    """Call several times, each time with new parameters; return the mean seconds per call."""
    contender, workload = _current["contender"], _current["workload"]
    parameters = [workload.parameters(seed + i) for i in range(calls)]
    if contender.starts_turns_untimed and _current["seconds"] < _SHORT:
        contender(parameters[0])
        contender.synchronize()
    start = time.perf_counter()
    for values in parameters:
        contender(values)
    contender.synchronize()
    _current["seconds"] = seconds = (time.perf_counter() - start) / calls
    _current["device_bytes"] = contender.device_bytes()
    contender.release()
    return seconds


def memory_growth() -> dict[str, float | None]:
    """Return the memory of the contender in MiB: in all, and in its calls alone.

    On a GPU, the first number is the most device memory that the contender held in the latest turn, and the second is
    None. On the CPU, they are the peak memory of the process less the memory in use before `prepare`, and less the
    memory in use after `prepare`.
    """
    if _current["contender"].device != "cpu":
        held = _current["device_bytes"]
        return {"peak_mib": None if held is None else held / _MIB, "calls_mib": None}
    before, prepared, peaks = _current["before"], _current["prepared"], (_current["peak"], memory_in_use("VmHWM"))
    if before is None or prepared is None or None in peaks:
        return {"peak_mib": None, "calls_mib": None}
    return {"peak_mib": (max(peaks) - before) / _MIB, "calls_mib": (peaks[1] - prepared) / _MIB}


def return_free_memory() -> None:
    """Give unused memory back to the system, so that memory counts again when it is used again."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # malloc_trim is a function of glibc
        ctypes.CDLL(None).malloc_trim(0)


def forget_peak_memory() -> None:
    """Forget the highest memory use so far: VmHWM starts again at the memory in use."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def memory_in_use(field: str) -> float | None:
    """Return a field of /proc/self/status in bytes: VmRSS is now, VmHWM the peak; None where /proc is missing."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next((float(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(field)), None)
