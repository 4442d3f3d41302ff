# SPDX-License-Identifier: Apache-2.0
"""Communicators: how ranks exchange arrays and add up numbers.

A communicator needs four members, so a transport of your own is a class of a few lines. `MpiCommunicator` connects the
processes that ``mpiexec`` started, and `NcclCommunicator` their GPUs. `run_on_threads` runs all ranks as threads of one
process, for tests of a program.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from operator import index
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

import numpy as np

from qiskit_fused.common.array_modules import to_numpy
from qiskit_fused.engines.cuda.nccl import NcclConnection
from qiskit_fused.engines.selection import require_gpu

Result = TypeVar("Result")


def check_size(num_ranks: Any) -> int:
    """Return the number of ranks.

    Raises:
        TypeError: if it is no integer.
        ValueError: if it is no power of 2.
    """
    try:
        size = index(num_ranks)
    except TypeError:
        raise TypeError(f"the number of ranks is {num_ranks!r}; allowed: an integer, a power of 2.") from None
    if size < 1 or size & size - 1:
        below = 1 << max(size.bit_length() - 1, 0)
        raise ValueError(f"there are {size} ranks; allowed: a power of 2, such as {max(below, 1) if size > 0 else 1}.")
    return size


class Communicator(Protocol):
    """Connects 2^g ranks. All ranks call the same functions with the same arguments in the same order.

    A communicator with a true attribute ``takes_device_arrays`` exchanges arrays of CuPy, others arrays of NumPy.
    """

    @property
    def rank(self) -> int:
        """The number of this rank, 0 to ``size - 1``."""

    @property
    def size(self) -> int:
        """The number of ranks, a power of 2."""

    def exchange(self, partner: int, array: np.ndarray) -> np.ndarray:
        """Send a contiguous array to another rank, and return the array of the same shape and dtype that it sends."""

    def sum(self, array: np.ndarray) -> np.ndarray:
        """Return the sum of the float64 arrays of all ranks; it is the same on all ranks."""


class MpiCommunicator:
    """Connects MPI processes by mpi4py, which is imported when the first object is made.

    Args:
        comm: a communicator of mpi4py; None is ``MPI.COMM_WORLD``.

    Raises:
        ImportError: if mpi4py or an MPI library is not installed.
    """

    def __init__(self, comm: Any = None):
        if comm is None:
            try:
                from mpi4py import MPI
            except (ImportError, RuntimeError) as error:  # mpi4py finds no MPI library
                cure = "pip install mpi4py mpich (or mpi4py and the MPI library of your machine)"
                raise ImportError(f"MpiCommunicator needs mpi4py: {error}; {cure}.") from error
            comm = MPI.COMM_WORLD
        self._comm = comm
        self.rank, self.size = int(comm.Get_rank()), int(comm.Get_size())

    def exchange(self, partner: int, array: np.ndarray) -> np.ndarray:
        """Send an array to another rank, and return the array that it sends (see `Communicator.exchange`)."""
        received = np.empty_like(array)
        self._comm.Sendrecv(array, partner, recvbuf=received, source=partner)
        return received

    def sum(self, array: np.ndarray) -> np.ndarray:
        """Return the sum of the arrays of all ranks (see `Communicator.sum`)."""
        result = np.empty_like(array)
        self._comm.Allreduce(array, result)
        return result


class NcclCommunicator:
    """Connects the GPUs of processes by NCCL, so that amplitudes do not go through the memory of the hosts.

    Each rank needs a GPU of its own, which has to be the current one where the object is made. All ranks make the
    object at the same time. This code has not run on GPUs yet.

    Args:
        beside: an object with the members ``rank``, ``size`` and ``sum`` of a communicator of the same ranks. NCCL
            needs it to find the ranks. None is an `MpiCommunicator`.

    Raises:
        ImportError: if NCCL, or mpi4py for ``beside=None``, is not installed.
        RuntimeError: if the GPU cannot be used.
    """

    takes_device_arrays = True

    def __init__(self, beside: Any = None):
        runtime = require_gpu("NcclCommunicator")
        beside = MpiCommunicator() if beside is None else beside
        self.rank, self.size = int(beside.rank), check_size(beside.size)
        self._connection = NcclConnection(runtime, self.size, self.rank, beside.sum)

    def exchange(self, partner: int, array: Any) -> Any:
        """Send an array to another rank, and return the array that it sends (see `Communicator.exchange`)."""
        return self._connection.exchange(partner, array)

    def sum(self, array: np.ndarray) -> np.ndarray:
        """Return the sum of the arrays of all ranks (see `Communicator.sum`)."""
        return self._connection.sum(array)


def takes_device_arrays(communicator: Communicator) -> bool:
    """Return whether a communicator exchanges arrays of CuPy."""
    return bool(getattr(communicator, "takes_device_arrays", False))


def exchange_amplitudes(communicator: Communicator, partner: int, amplitudes: Any, dtype: str, xp: Any) -> Any:
    """Send amplitudes to another rank, and return the amplitudes that it sends.

    Args:
        communicator: connects the ranks.
        partner: the other rank.
        amplitudes: an array of ``xp``, of the same shape on both ranks.
        dtype: number format in which amplitudes are sent.
        xp: ``numpy``, or ``cupy`` for amplitudes on a CUDA device.
    """
    sent = xp.ascontiguousarray(amplitudes, dtype=dtype)
    return xp.asarray(communicator.exchange(partner, sent if takes_device_arrays(communicator) else to_numpy(sent)))


class _ThreadCommunicator:
    """Connects the ranks of `run_on_threads`; ``queues[sender][receiver]`` holds what was sent and not yet received."""

    def __init__(self, rank: int, queues: list[list[SimpleQueue[Any]]]):
        self.rank, self.size = rank, len(queues)
        self._queues = queues

    def exchange(self, partner: int, array: np.ndarray) -> np.ndarray:
        return self._swap(partner, array.copy())

    def sum(self, array: np.ndarray) -> np.ndarray:
        parts = [self._swap(rank, array.copy()) for rank in range(self.size)]  # every rank adds in the same order
        total: np.ndarray = np.sum(parts, axis=0)
        return total

    def _swap(self, partner: int, array: np.ndarray) -> np.ndarray:
        self._queues[self.rank][partner].put(array)
        received = self._queues[partner][self.rank].get()
        if received is None:
            raise RuntimeError(
                f"rank {partner} ended while rank {self.rank} waited for it; all ranks must call the same functions."
            )
        return received

    def end(self) -> None:
        """Wake the ranks that wait for this rank: each of them fails."""
        for queue in self._queues[self.rank]:
            queue.put(None)


def run_on_threads(num_ranks: int, function: Callable[[Communicator], Result]) -> list[Result]:
    """Run a function on ranks that are threads of this process, and return the result of each rank.

    This is for tests: one process without ranks takes less time and memory.

    >>> run_on_threads(2, lambda communicator: communicator.rank)
    [0, 1]

    Args:
        num_ranks: the number of ranks, a power of 2.
        function: is called on every rank with the communicator of the rank.

    Raises:
        Exception: the first exception that a rank raised by itself; the other ranks then end too.
        RuntimeError: if a rank ends while another rank waits for it.
        TypeError, ValueError: if the number of ranks is no power of 2.
    """
    num_ranks = check_size(num_ranks)
    queues: list[list[SimpleQueue[Any]]] = [[SimpleQueue() for _ in range(num_ranks)] for _ in range(num_ranks)]
    failures: list[BaseException] = []

    def run(rank: int) -> Any:
        communicator = _ThreadCommunicator(rank, queues)
        try:
            return function(communicator)
        except BaseException as error:
            failures.append(error)
            return None
        finally:
            communicator.end()

    with ThreadPoolExecutor(num_ranks) as pool:
        results = list(pool.map(run, range(num_ranks)))
    if failures:
        raise failures[0]
    return results
