# SPDX-License-Identifier: Apache-2.0
"""Chooses the device of a batch, and keeps the engines.

There is one engine for each device and its settings, for as long as the process lives.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from qiskit_fused.common.byte_sizes import format_bytes
from qiskit_fused.common.forks import in_child, new_lock
from qiskit_fused.common.text import count_text
from qiskit_fused.engines.cuda import availability
from qiskit_fused.engines.interface import Engine
from qiskit_fused.engines.selection import require_gpu, select_engine, suits_gpu
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.options import FusedOptions

_engines: dict[tuple[Any, ...], Engine] = {}
_engines_of_parents: list[dict[tuple[Any, ...], Engine]] = []
_lock = new_lock()
_log = logging.getLogger("qiskit_fused")
_logged: set[str] = set()  # texts of the warnings that `say_once` has logged


@in_child
def _forget_engines() -> None:
    global _engines
    _engines_of_parents.append(_engines)  # a child process cannot free the device memory of its parent
    _engines = {}


def engine_for(device: str, options: FusedOptions, num_threads: int = 1) -> Engine:
    """Return the engine of a device. A CPU has one for each number of threads, a GPU one for each memory limit.

    Raises:
        RuntimeError: when the device cannot be used; the error gives the reason.
    """
    runtime = require_gpu() if device == "cuda" else None
    key = (device, num_threads) if runtime is None else (device, runtime, options.memory_limit)
    engine = _engines.get(key)
    if engine is None:
        limit = None
        if runtime is not None and options.memory_limit is not None:
            limit = options.resolve_memory_limit(runtime.free_memory())
        with _lock:
            engine = _engines.setdefault(key, select_engine(device, num_threads, limit))
    return engine


def check_device(options: FusedOptions) -> None:
    """Raise a RuntimeError when the device of the options cannot be used, before the first run needs the device.

    With an executor nothing is checked, since workers use the devices of their own machines.
    """
    if options.device != "auto" and options.executor is None:
        engine_for(options.device, options, options.resolve_num_threads())


def choose_device(options: FusedOptions, fused: FusedProgram, num_rows: int, num_pairs: int, gradient: bool) -> str:
    """Return the device for a batch.

    "auto" is the GPU where a GPU is usable, the work is large enough for a GPU, and the GPU has memory for the states
    of one row. Else "auto" is the CPU.
    """
    if options.device != "auto":
        return options.device
    if not _suits_gpu(fused, num_rows, num_pairs, gradient):
        return "cpu"
    runtime, reason = availability.usable_gpu()
    if runtime is None:
        if availability.is_cupy_installed() and not availability.is_switched_off():
            say_once(f"device='auto' runs on the CPU: {reason}.")
        return "cpu"
    free = runtime.free_memory()
    limit = free if options.memory_limit is None else min(free, options.resolve_memory_limit(free))
    needed = bytes_of_states(fused, options.dtype, gradient)
    if needed > limit:
        say_once(
            f"device='auto' runs {count_text(fused.num_qubits, 'qubit')} on the CPU: the states take "
            f"{format_bytes(needed)}, and {runtime.name} has {format_bytes(limit)}."
        )
        return "cpu"
    return "cuda"


def runs_on_cpu(options: FusedOptions, fused: FusedProgram, num_rows: int, num_pairs: int, gradient: bool) -> bool:
    """Say whether `choose_device` returns "cpu" for a batch, whatever GPU there is and how much memory is free."""
    if options.device != "auto":
        return options.device == "cpu"
    return not _suits_gpu(fused, num_rows, num_pairs, gradient)


def _suits_gpu(fused: FusedProgram, num_rows: int, num_pairs: int, gradient: bool) -> bool:
    return suits_gpu(fused.num_qubits, fused.work, max(num_rows, num_pairs) if gradient else num_rows)


def bytes_of_states(fused: FusedProgram, dtype: str, gradient: bool) -> int:
    """Return the bytes of the state psi of one row and, with ``gradient``, of its adjoint state lam."""
    return (1 + gradient) * np.dtype(dtype).itemsize << fused.num_qubits


def say_once(text: str) -> None:
    """Log a warning, unless it was logged before."""
    if text not in _logged:
        _logged.add(text)
        _log.warning(text)
