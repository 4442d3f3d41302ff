# SPDX-License-Identifier: Apache-2.0
"""NCCL: CUDA devices of several processes exchange arrays, without their hosts. All calls go through CuPy."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from qiskit_fused.engines.cuda.availability import brief
from qiskit_fused.engines.cuda.runtime import CupyRuntime


def import_nccl(runtime: CupyRuntime) -> Any:
    """Return CuPy's module for NCCL.

    Raises:
        ImportError: if the library is missing.
    """
    reason = "NCCL is not installed"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CuPy warns of the missing library
            from cupy.cuda import nccl
        if nccl.available:
            return nccl
    except Exception as error:  # a broken installation may raise any exception
        reason = brief(error)
    version = runtime.xp.cuda.runtime.runtimeGetVersion() // 1000
    raise ImportError(f"CuPy cannot load NCCL ({reason}); pip install nvidia-nccl-cu{version}.")


class NcclConnection:
    """Connects the current CUDA device with the devices of other ranks. All ranks have to make it at the same time.

    All work goes to the stream that is current in the calling thread, as the work of `CudaEngine` does, so that the
    host waits for no exchange.

    Args:
        runtime: the current CUDA device, which no other rank uses.
        num_ranks, rank: the number of ranks, and the number of this rank.
        add_up: returns the sum of the float64 arrays of all ranks, by another way than NCCL.
    """

    def __init__(self, runtime: CupyRuntime, num_ranks: int, rank: int, add_up: Callable[[np.ndarray], np.ndarray]):
        self._runtime, self._nccl = runtime, import_nccl(runtime)
        own = np.array(self._nccl.get_unique_id() if rank == 0 else np.zeros(128), dtype=np.float64)
        unique_id = tuple(int(number) for number in add_up(own).tolist())
        with runtime.context():
            self._connection = self._nccl.NcclCommunicator(num_ranks, unique_id, rank)

    def exchange(self, partner: int, array: Any) -> Any:
        """Send a contiguous complex array to another rank, and return the array of the same form that it sends."""
        with self._runtime.context():
            received = self._runtime.xp.empty_like(array)
            stream = self._runtime.current_stream()
            kind = self._nccl.NCCL_FLOAT32 if array.dtype == np.complex64 else self._nccl.NCCL_FLOAT64
            count = 2 * array.size  # real numbers
            self._nccl.groupStart()  # each rank sends and receives at the same time, so that none waits for ever
            self._connection.send(array.data.ptr, count, kind, partner, stream)
            self._connection.recv(received.data.ptr, count, kind, partner, stream)
            self._nccl.groupEnd()
        return received

    def sum(self, array: np.ndarray) -> np.ndarray:
        """Return the sum of the float64 arrays of all ranks, after waiting for it."""
        with self._runtime.context():
            total = self._runtime.to_device(array)
            pointer, stream = total.data.ptr, self._runtime.current_stream()
            self._connection.allReduce(
                pointer, pointer, array.size, self._nccl.NCCL_FLOAT64, self._nccl.NCCL_SUM, stream
            )
            return self._runtime.to_host(total)
