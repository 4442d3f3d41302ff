# SPDX-License-Identifier: Apache-2.0
"""An executor whose workers are threads of this process, one for each GPU of this machine."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from qiskit_fused.engines.selection import require_gpu


def gpu_executor(devices: Iterable[int] | None = None) -> ThreadPoolExecutor:
    """Return an executor that shares the rows of a batch among the GPUs of this machine.

    Give it as the option ``executor`` with ``device="cuda"``::

        with gpu_executor() as gpus:
            estimator = FusedEstimator(device="cuda", executor=gpus)

    Each worker is a thread with a GPU of its own. Values and sums over rows are the same bits for any number of GPUs of
    one kind. ``memory_limit`` holds for each GPU.

    Args:
        devices: numbers of the CUDA devices, each at most once; None is all devices that CUDA shows to this process.

    Raises:
        RuntimeError: if no GPU can be used; the error gives the reason and a cure.
        ValueError: for a number of a device that does not exist, or numbers that occur twice.
    """
    runtime = require_gpu("gpu_executor()")
    count = runtime.num_devices()
    numbers = list(range(count) if devices is None else devices)
    if not numbers or len(set(numbers)) < len(numbers) or not set(numbers) <= set(range(count)):
        raise ValueError(f"devices are {numbers}; allowed: different numbers from 0 to {count - 1}.")
    free: SimpleQueue[int] = SimpleQueue()
    for number in numbers:
        free.put(number)

    def take_device() -> None:
        runtime.use_device(free.get())

    return ThreadPoolExecutor(len(numbers), thread_name_prefix="qiskit-fused-gpu", initializer=take_device)
